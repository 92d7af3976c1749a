/* test_grpc_uv.c - the gRPC client and server over TCP on the libuv env, with answers that come
 * from another thread through bns_post().
 *
 * ctest: labels=threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on
#include <pthread.h>

#include "base/varint.h"
#include "io/env_uv.h"
#include "io/grpc.h"
#include "io/http.h"

#define CLIENTS 16u
#define CALLS 2000u

/* One request on its way to the thread and back. */
struct work {
    struct bns_task task; /* back to the loop */
    struct work *next;
    struct bns_env *env;
    struct bns_grpc_call *call;
    bool ended; /* loop only: the call has ended, the answer goes nowhere */
    uint32_t in, out;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct work *queue;
    bool stop;
} mill = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static void on_answer(struct bns_task *t)
{
    struct work *w = BNS_CONTAINER(t, struct work, task);
    uint8_t out[4];

    bns_put_u32be(out, w->out);
    if (!w->ended && bns_grpc_send_copy(w->call, bns_slice(out, 4)) != BNS_OK)
        w->out = 0;
    bns_grpc_finish(w->call, BNS_GRPC_OK, NULL, NULL, 0);
    free(w);
}

static void *run_mill(void *arg)
{
    (void)arg;
    (void)pthread_mutex_lock(&mill.lock);
    while (!mill.stop || mill.queue != NULL) {
        struct work *w = mill.queue;

        if (w == NULL) {
            (void)pthread_cond_wait(&mill.cond, &mill.lock);
            continue;
        }
        mill.queue = w->next;
        (void)pthread_mutex_unlock(&mill.lock);
        w->out = w->in * 3 + 1;
        w->task.fn = on_answer;
        bns_post(w->env, &w->task);
        (void)pthread_mutex_lock(&mill.lock);
    }
    (void)pthread_mutex_unlock(&mill.lock);
    return NULL;
}

static void to_mill(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct work *w = calloc(1, sizeof *w);

    assert_non_null(w);
    assert_int_equal(msg.len, 4);
    w->env = bns_grpc_arg(c);
    w->call = c;
    w->in = bns_get_u32be(msg.ptr);
    bns_grpc_set_ctx(c, w);
    (void)pthread_mutex_lock(&mill.lock);
    w->next = mill.queue;
    mill.queue = w;
    (void)pthread_cond_signal(&mill.cond);
    (void)pthread_mutex_unlock(&mill.lock);
}

static void mill_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    if (why != BNS_GRPC_END_DONE)
        ((struct work *)bns_grpc_ctx(c))->ended = true; /* detached: the finish is still owed */
}

/* ---- the client ---------------------------------------------------------------------------- */
struct lane {
    struct bns_env *env;
    struct bns_grpc_client *client;
    uint32_t n, good, cancelled;
    unsigned *open;
    bool cancel; /* every third call by its deadline */
    bool answered;
};

static void next(struct lane *l);

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct lane *l = bns_grpc_ccall_arg(c);

    assert_int_equal(msg.len, 4);
    l->answered = bns_get_u32be(msg.ptr) == l->n * 3 + 1;
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct lane *l = bns_grpc_ccall_arg(c);

    (void)text;
    if (status == BNS_GRPC_OK && l->answered)
        l->good++;
    else if (status == BNS_GRPC_DEADLINE_EXCEEDED)
        l->cancelled++;
    l->n++;
    if (l->n < CALLS)
        next(l);
    else if (--*l->open == 0)
        bns_env_uv_stop(l->env);
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void next(struct lane *l)
{
    struct bns_grpc_call_options o = {.path = "/t.Mill/Grind"};
    uint8_t in[4];

    if (l->cancel && l->n % 3 == 0)
        o.deadline_ns = 1; /* long ago */
    l->answered = false;
    bns_put_u32be(in, l->n);
    assert_int_equal(bns_grpc_unary(l->client, &o, bns_slice(in, 4), &handler, l), BNS_OK);
}

/* Goal: answers made on another thread reach their calls, also when a call ended meanwhile. */
static void answers_from_another_thread(void **state)
{
    struct bns_grpc_method m = {.path = "/t.Mill/Grind",
                                .kind = BNS_GRPC_UNARY,
                                .handler = {.on_message = to_mill, .on_end = mill_end}};
    struct lane lanes[CLIENTS];
    struct bns_grpc_server *s;
    unsigned open = CLIENTS;
    struct bns_env *env;
    pthread_t thread;
    uint16_t port;

    (void)state;
    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), NULL, &env, NULL), BNS_OK);
    m.arg = env;
    assert_int_equal(pthread_create(&thread, NULL, run_mill, NULL), 0);
    assert_int_equal(bns_grpc_server_new(env, NULL, &s), BNS_OK);
    assert_int_equal(bns_grpc_server_methods(s, &m, 1), BNS_OK);
    assert_int_equal(bns_grpc_server_listen(s, "127.0.0.1", 0, &port, NULL), BNS_OK);
    for (unsigned i = 0; i < CLIENTS; i++) {
        lanes[i] = (struct lane){.env = env, .open = &open, .cancel = i % 2 == 1};
        assert_int_equal(bns_grpc_client_new(env, "127.0.0.1", port, &lanes[i].client, NULL),
                         BNS_OK);
        next(&lanes[i]);
    }
    bns_env_uv_run(env);
    for (unsigned i = 0; i < CLIENTS; i++) {
        assert_int_equal(lanes[i].good + lanes[i].cancelled, CALLS);
        assert_true(lanes[i].cancel || lanes[i].cancelled == 0);
        bns_grpc_client_free(lanes[i].client);
    }
    (void)pthread_mutex_lock(&mill.lock);
    mill.stop = true;
    (void)pthread_cond_signal(&mill.cond);
    (void)pthread_mutex_unlock(&mill.lock);
    assert_int_equal(pthread_join(thread, NULL), 0);
    bns_grpc_server_free(s);
    bns_env_uv_free(env);
}

/* ---- drain, and metrics -------------------------------------------------------------------- */
static void echo(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct bns_net_addr peer;

    bns_grpc_peer(c, &peer);
    assert_string_equal(peer.host, "127.0.0.1");
    assert_int_equal(bns_grpc_send_copy(c, msg), BNS_OK);
    bns_grpc_finish(c, BNS_GRPC_OK, NULL, NULL, 0);
}

struct one {
    struct bns_env *env;
    struct bns_grpc_server *s;
    size_t bytes;
    int status;
};

static void drained(void *arg)
{
    bns_env_uv_stop(((struct one *)arg)->env);
}

static void one_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    ((struct one *)bns_grpc_ccall_arg(c))->bytes = msg.len;
}

static void one_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct one *o = bns_grpc_ccall_arg(c);

    (void)text;
    o->status = status;
    bns_grpc_server_drain(o->s, NULL, BNS_SEC, drained, o);
}

/* Goal: 3 MiB there and back over TCP, counted, and a drain that ends with the last connection. */
static void large_echo_is_counted_and_drained(void **state)
{
    static const char *const want[] = {
        "grpc_server_started_total{grpc_method=\"Unary\",grpc_service=\"t.Echo\"",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Unary\",grpc_service=\"t.Echo\"",
        "grpc_server_msg_received_total{grpc_method=\"Unary\"",
        "grpc_server_msg_sent_total{grpc_method=\"Unary\"",
        "bns_h2_received_bytes_total{side=\"server\"} 31",
        "bns_grpc_connections 0",
    };
    static const struct bns_grpc_client_handler h = {.on_message = one_message,
                                                     .on_status = one_status};
    static uint8_t big[3 * 1024 * 1024];
    struct bns_grpc_method m = {
        .path = "/t.Echo/Unary", .kind = BNS_GRPC_UNARY, .handler = {.on_message = echo}};
    struct bns_grpc_call_options opt = {.path = m.path};
    struct one o = {.status = -1};
    struct bns_grpc_client *client;
    struct bns_metrics *metrics;
    struct bns_buf text;
    uint16_t port;

    (void)state;
    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), NULL, &o.env, NULL), BNS_OK);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &metrics), BNS_OK);
    o.env->metrics = metrics;
    assert_int_equal(bns_grpc_server_new(o.env, NULL, &o.s), BNS_OK);
    assert_int_equal(bns_grpc_server_methods(o.s, &m, 1), BNS_OK);
    assert_int_equal(bns_grpc_server_listen(o.s, "127.0.0.1", 0, &port, NULL), BNS_OK);
    assert_int_equal(bns_grpc_client_new(o.env, "localhost", port, &client, NULL), BNS_OK);
    assert_int_equal(bns_grpc_unary(client, &opt, bns_slice(big, sizeof big), &h, &o), BNS_OK);
    bns_env_uv_run(o.env);
    assert_int_equal(o.status, 0);
    assert_int_equal(o.bytes, sizeof big);
    bns_buf_init(&text, bns_alloc_libc(), 1u << 20);
    assert_int_equal(bns_metrics_text(metrics, &text), BNS_OK);
    assert_int_equal(bns_buf_byte(&text, 0), BNS_OK);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        if (strstr((const char *)text.ptr, want[i]) == NULL)
            fail_msg("missing: %s\nin:\n%s", want[i], (const char *)text.ptr);
    }
    bns_buf_free(&text);
    bns_grpc_client_free(client);
    bns_grpc_server_free(o.s);
    bns_env_uv_free(o.env);
    bns_metrics_free(metrics);
}

/* ---- a connection that the HTTP/1.1 server does not take ------------------------------------- */
struct shared {
    struct bns_env *env;
    struct bns_grpc_server *grpc;
    struct bns_http_server *http;
    struct bns_stream *stream;
    int closed;
};

static void to_http(void *arg, struct bns_stream *stream, struct bns_slice read_so_far)
{
    struct shared *s = arg;

    bns_http_server_adopt(s->http, stream, read_so_far);
}

static void say_get(void *arg)
{
    static const struct bns_slice get = BNS_LIT("GET / HTTP/1.1\r\n\r\n");
    struct shared *s = arg;

    assert_int_equal(bns_stream_write(s->stream, &get, 1, NULL, NULL), BNS_OK);
}

static void shared_closed(void *arg, int code)
{
    struct shared *s = arg;

    (void)code;
    s->stream = NULL;
    if (s->closed++ == 0)
        bns_grpc_server_drain(s->grpc, NULL, BNS_SEC, NULL, NULL);
    bns_env_uv_stop(s->env);
}

static void dial_shared(struct shared *s, uint16_t port)
{
    static const struct bns_stream_events ev = {
        .on_open = say_get, .on_data = bns_stream_ignore_data, .on_close = shared_closed};

    assert_int_equal(bns_net_connect(s->env, "127.0.0.1", port, &ev, s, &s->stream, NULL), BNS_OK);
    bns_env_uv_run(s->env);
}

static void accepted_late(void *arg, struct bns_stream *stream)
{
    struct shared *s = arg;

    bns_grpc_server_adopt(s->grpc, stream, bns_slice(NULL, 0));
}

/* Goal: a server that is full or draining refuses what another layer hands to it, and the layer
 * hears no more of it. */
static void what_nobody_takes_is_reset(void **state)
{
    struct shared s = {.closed = 0};
    struct bns_grpc_config cfg = {.on_http1 = to_http, .arg = &s};
    struct bns_listener *late;
    uint16_t port;

    (void)state;
    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), NULL, &s.env, NULL), BNS_OK);
    assert_int_equal(bns_http_server_new(s.env, NULL, &s.http), BNS_OK);
    assert_int_equal(bns_grpc_server_new(s.env, &cfg, &s.grpc), BNS_OK);
    assert_int_equal(bns_grpc_server_listen(s.grpc, "127.0.0.1", 0, &port, NULL), BNS_OK);
    bns_http_server_drain(s.http, BNS_SEC, NULL, NULL);
    dial_shared(&s, port);
    assert_int_equal(s.closed, 1);
    /* the gRPC server drains now, too */
    assert_int_equal(bns_net_listen(s.env, "127.0.0.1", 0, accepted_late, &s, &late, NULL), BNS_OK);
    dial_shared(&s, bns_listener_port(s.env, late));
    assert_int_equal(s.closed, 2);
    bns_listener_close(s.env, late);
    bns_grpc_server_free(s.grpc);
    bns_http_server_free(s.http);
    bns_env_uv_free(s.env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_takes_is_reset),
        cmocka_unit_test(answers_from_another_thread),
        cmocka_unit_test(large_echo_is_counted_and_drained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
