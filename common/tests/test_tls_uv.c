/* test_tls_uv.c - gRPC, HTTP and the internal RPC on TLS over TCP, on the libuv env, while the
 * certificate files change under them.
 *
 * ctest: labels=threads */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on
#include <unistd.h>

#include "io/env_uv.h"
#include "io/grpc.h"
#include "io/http.h"
#include "io/rpc.h"
#include "store/vfs_posix.h"
#include "tls_kit.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
/* The libraries count references with atomics that the sanitizer does not see in them. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libcrypto.so.3\ncalled_from_lib:libssl.so.3\n";
}
#endif
#endif

#define LANES 8u
#define CALLS 150u
#define BIG (1024u * 1024)

struct world {
    struct bns_env *env;
    struct bns_vfs *vfs;
    struct bns_metrics *metrics;
    char dir[64], cert[96], key[96], ca_file[96];
    struct kit_pair ca, leaf[2];
    struct bns_tls *tls;
    struct bns_grpc_server *grpc;
    struct bns_http_server *http;
    struct bns_rpc_server *rpc;
    struct bns_rpc_peer *peer;
    uint16_t port, rpc_port;
    struct bns_timer change, guard;
    size_t changes, open;
    int codes[4];
    int statuses[4];
};

static void hang(void *arg)
{
    (void)arg;
    (void)fprintf(stderr, "the test hangs\n");
    abort();
}

static void over(struct world *w)
{
    if (--w->open == 0)
        bns_env_uv_stop(w->env);
}

/* ---- files that change ----------------------------------------------------------------------- */
static void put(struct world *w, const char *path, X509 *cert, EVP_PKEY *key)
{
    char tmp[128];

    (void)snprintf(tmp, sizeof tmp, "%s.tmp", path);
    kit_write_pem(w->vfs, tmp, cert, key);
    assert_int_equal(rename(tmp, path), 0);
}

static void change(void *arg)
{
    struct world *w = arg;
    const struct kit_pair *p = &w->leaf[++w->changes % 2];

    put(w, w->key, NULL, p->key); /* between the two the pair does not match */
    put(w, w->cert, p->cert, NULL);
    bns_tls_reload(w->tls);
    bns_timer_start(w->env, &w->change, bns_now_ns(w->env) + 5 * BNS_MS);
}

/* ---- set-up ---------------------------------------------------------------------------------- */
static void echo(struct bns_grpc_call *c, struct bns_slice msg)
{
    if (bns_grpc_send_copy(c, msg) != BNS_OK)
        abort();
    bns_grpc_finish(c, BNS_GRPC_OK, NULL, NULL, 0);
}

static void on_http1(void *arg, struct bns_stream *s, struct bns_slice read_so_far)
{
    bns_http_server_adopt(((struct world *)arg)->http, s, read_so_far);
}

static void page(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply(q, 200, "text/plain", BNS_LIT("a page"));
}

static void on_request(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                       struct bns_slice payload)
{
    (void)arg;
    (void)from;
    (void)method;
    bns_rpc_reply(r, BNS_OK, payload);
}

static void make_files(struct world *w)
{
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/bonsai-tls-uv-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(w->cert, sizeof w->cert, "%s/leaf.pem", w->dir);
    (void)snprintf(w->key, sizeof w->key, "%s/leaf.key", w->dir);
    (void)snprintf(w->ca_file, sizeof w->ca_file, "%s/ca.pem", w->dir);
    w->ca = kit_issue(NULL, (struct kit_issue){.cn = "ca", .ca = true});
    w->leaf[0] = kit_issue(&w->ca, (struct kit_issue){.cn = "one"});
    w->leaf[1] = kit_issue(&w->ca, (struct kit_issue){.cn = "two"});
    put(w, w->ca_file, w->ca.cert, NULL);
    put(w, w->cert, w->leaf[0].cert, NULL);
    put(w, w->key, NULL, w->leaf[0].key);
}

static void world_start(struct world *w)
{
    static const struct bns_grpc_method echoes = {
        .path = "/t.Echo/Unary", .kind = BNS_GRPC_UNARY, .handler = {.on_message = echo}};
    static const struct bns_http_route routes[] = {{.method = "GET", .path = "/page", .fn = page}};
    static const struct bns_rpc_handler handler = {.on_request = on_request};
    struct bns_grpc_config gc = {.on_http1 = on_http1, .arg = w};
    struct bns_rpc_identity me = {.node_id = 1, .incarnation = 1};
    struct bns_tls_config cfg = {.name = "t",
                                 .serve = true,
                                 .dial = true,
                                 .cert_file = w->cert,
                                 .key_file = w->key,
                                 .ca_file = w->ca_file,
                                 .client_cert_auth = true};

    memset(w, 0, sizeof *w);
    w->vfs = bns_vfs_posix(bns_alloc_libc());
    assert_non_null(w->vfs);
    make_files(w);
    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), w->vfs, &w->env, NULL), BNS_OK);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &w->metrics), BNS_OK);
    w->env->metrics = w->metrics;
    assert_int_equal(bns_tls_new(w->env, &cfg, &w->tls, NULL), BNS_OK);
    assert_int_equal(bns_grpc_server_new(w->env, &gc, &w->grpc), BNS_OK);
    assert_int_equal(bns_grpc_server_methods(w->grpc, &echoes, 1), BNS_OK);
    assert_int_equal(bns_grpc_server_listen_tls(w->grpc, w->tls, "127.0.0.1", 0, &w->port, NULL),
                     BNS_OK);
    assert_int_equal(bns_http_server_new(w->env, NULL, &w->http), BNS_OK);
    assert_int_equal(bns_http_server_routes(w->http, routes, 1), BNS_OK);
    assert_int_equal(bns_rpc_server_new(w->env, &me, &handler, w, &w->rpc), BNS_OK);
    assert_int_equal(bns_rpc_server_listen_tls(w->rpc, w->tls, "127.0.0.1", 0, &w->rpc_port, NULL),
                     BNS_OK);
    bns_timer_init(&w->guard, hang, w);
    bns_timer_init(&w->change, change, w);
    bns_timer_start(w->env, &w->guard, bns_now_ns(w->env) + 100 * BNS_SEC);
}

static void stopped(void *arg)
{
    bns_env_uv_stop(((struct world *)arg)->env);
}

static void world_end(struct world *w)
{
    bns_rpc_peer_free(w->peer);
    bns_rpc_server_free(w->rpc);
    bns_grpc_server_free(w->grpc);
    bns_http_server_free(w->http);
    bns_timer_stop(w->env, &w->change);
    bns_timer_stop(w->env, &w->guard);
    bns_tls_stop(w->tls, stopped, w);
    bns_env_uv_run(w->env);
    bns_tls_free(w->tls);
    bns_env_uv_free(w->env); /* tells the ends of the streams, which hold the certificates too */
    bns_metrics_free(w->metrics);
    (void)unlink(w->cert); /* a second name of a file may be left in a directory of ours */
    (void)unlink(w->key);
    (void)unlink(w->ca_file);
    assert_int_equal(rmdir(w->dir), 0);
    bns_vfs_posix_free(w->vfs);
    kit_pair_free(&w->ca);
    kit_pair_free(&w->leaf[0]);
    kit_pair_free(&w->leaf[1]);
}

/* ---- gRPC ------------------------------------------------------------------------------------ */
struct lane {
    struct world *w;
    struct bns_grpc_client *client;
    size_t n, bytes;
    bool answered;
};

static uint8_t big[BIG];

static void call(struct lane *l);

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct lane *l = bns_grpc_ccall_arg(c);

    l->answered = msg.len == l->bytes && memcmp(msg.ptr, big, msg.len) == 0;
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct lane *l = bns_grpc_ccall_arg(c);

    if (status != BNS_GRPC_OK || !l->answered)
        fail_msg("call %zu: status %d, %s", l->n, status, text);
    if (++l->n % 25 == 0) { /* a new handshake, with the files of this moment */
        bns_grpc_client_free(l->client);
        l->client = NULL;
    }
    if (l->n < CALLS)
        call(l);
    else
        over(l->w);
}

static void call(struct lane *l)
{
    static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                           .on_status = on_status};
    struct bns_grpc_call_options o = {.path = "/t.Echo/Unary"};

    if (l->client == NULL) {
        assert_int_equal(bns_grpc_client_new(l->w->env, "127.0.0.1", l->w->port, &l->client, NULL),
                         BNS_OK);
        assert_int_equal(bns_grpc_client_tls(l->client, l->w->tls, "localhost"), BNS_OK);
    }
    l->answered = false;
    l->bytes = l->n % 50 == 7 ? BIG : l->n;
    assert_int_equal(bns_grpc_unary(l->client, &o, bns_slice(big, l->bytes), &handler, l), BNS_OK);
}

/* Goal: no call fails while the certificates change, on old connections and on new ones. */
static void calls_go_on_while_certificates_change(void **state)
{
    struct lane lanes[LANES] = {0};
    struct world w;

    (void)state;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 31 + i / 997);
    world_start(&w);
    w.open = LANES;
    for (size_t i = 0; i < LANES; i++) {
        lanes[i].w = &w;
        call(&lanes[i]);
    }
    bns_timer_start(w.env, &w.change, bns_now_ns(w.env) + 5 * BNS_MS);
    bns_env_uv_run(w.env);
    for (size_t i = 0; i < LANES; i++)
        bns_grpc_client_free(lanes[i].client);
    print_message("  %zu changes\n", w.changes);
    assert_true(w.changes > 0);
    assert_true(
        bns_counter(w.metrics, "bns_tls_reloads_total", "name=\"t\",result=\"ok\"", "")->value > 0);
    world_end(&w);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */
struct fetch {
    struct world *w;
    size_t at;
};

static void fetched(void *arg, int code, const struct bns_http_answer *a)
{
    struct fetch *f = arg;

    f->w->codes[f->at] = code;
    f->w->statuses[f->at] = code == BNS_OK ? a->status : 0;
    over(f->w);
}

static void pages_are_fetched_with_certificates_alone(void **state)
{
    struct bns_tls *stranger = NULL;
    struct bns_tls_config cfg = {.name = "stranger", .dial = true};
    struct fetch f[3];
    struct world w;

    (void)state;
    world_start(&w);
    cfg.ca_file = w.ca_file;
    assert_int_equal(bns_tls_new(w.env, &cfg, &stranger, NULL), BNS_OK);
    w.open = 3;
    for (size_t i = 0; i < 3; i++) {
        struct bns_http_fetch_opts o = {.host = "127.0.0.1", .port = w.port, .target = "/page"};

        o.tls = i == 0 ? w.tls : i == 1 ? stranger : NULL; /* none: plain text */
        f[i] = (struct fetch){&w, i};
        assert_int_equal(bns_http_fetch(w.env, &o, fetched, &f[i], NULL, NULL), BNS_OK);
    }
    bns_env_uv_run(w.env);
    assert_int_equal(w.codes[0], BNS_OK);
    assert_int_equal(w.statuses[0], 200);
    assert_int_equal(w.codes[1], BNS_E_UNAUTH);
    assert_int_equal(w.codes[2], BNS_OK);
    assert_int_equal(w.statuses[2], 400);
    bns_tls_free(stranger);
    world_end(&w);
}

/* ---- the internal RPC ------------------------------------------------------------------------ */
static void replied(void *arg, int code, struct bns_slice payload)
{
    struct world *w = arg;

    assert_int_equal(code, BNS_OK);
    assert_int_equal(payload.len, BIG);
    over(w);
}

static void ask(struct world *w)
{
    struct bns_rpc_call_options o = {
        .method = 1, .deadline_ns = bns_now_ns(w->env) + 60 * BNS_SEC, .done = replied, .arg = w};
    struct bns_slice v = bns_slice(big, sizeof big);

    assert_int_equal(bns_rpc_call(w->peer, &o, &v, 1), BNS_OK);
}

static void members_speak_with_certificates(void **state)
{
    struct bns_rpc_identity id = {.node_id = 2, .incarnation = 1};
    struct bns_rpc_peer_config pc = {.node_id = 1, .host = "127.0.0.1"};
    struct world w;

    (void)state;
    world_start(&w);
    pc.port = w.rpc_port;
    pc.tls = w.tls;
    assert_int_equal(bns_rpc_peer_new(w.env, &id, &pc, &w.peer, NULL), BNS_OK);
    w.open = 8;
    for (size_t i = 0; i < 8; i++)
        ask(&w);
    bns_env_uv_run(w.env);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_go_on_while_certificates_change),
        cmocka_unit_test(pages_are_fetched_with_certificates_alone),
        cmocka_unit_test(members_speak_with_certificates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
