/* test_rpc.c - the internal RPC: identity, messages, calls, and peers that misbehave.
 *
 * Method: server and peers in one fake env, on virtual time; rude clients are plain streams that
 * write frames by hand. Most tests run with whole reads and again cut at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "codec/frame.h"
#include "io/rpc.h"
#include "sim/heap.h"

#include "fake_env.h"

struct rig {
    struct bns_test_heap *heap;
    struct fake_env f;
    struct bns_log log;
    size_t warnings;
    char last_warning[512];
    struct bns_rpc_server *s;
    uint16_t port;
    struct bns_rpc_peer *p;
    size_t ups, downs;
    /* what the server saw */
    size_t oneways;
    size_t oneway_bytes;
    uint64_t from;
    struct bns_rpc_request *held[64]; /* requests of method HOLD */
    size_t held_count;
    /* what the caller saw */
    size_t dones;
    int code;
    char payload[64];
    size_t released;
    int release_code;
    bool free_in_done;
};

enum { ECHO = 1, HOLD = 2, REFUSE = 3 };

static void log_line(void *arg, struct bns_slice line)
{
    struct rig *r = arg;

    r->warnings++;
    (void)snprintf(r->last_warning, sizeof r->last_warning, "%.*s", (int)line.len,
                   (const char *)line.ptr);
}

static int64_t log_time(void *arg)
{
    (void)arg;
    return 0;
}

static void on_oneway(void *arg, uint64_t from, uint16_t method, struct bns_slice payload)
{
    struct rig *r = arg;

    (void)method;
    r->oneways++;
    r->oneway_bytes += payload.len;
    r->from = from;
}

static void on_request(void *arg, struct bns_rpc_request *q, uint64_t from, uint16_t method,
                       struct bns_slice payload)
{
    struct rig *r = arg;

    r->from = from;
    if (method == ECHO) {
        bns_rpc_reply(q, BNS_OK, payload);
    } else if (method == HOLD && r->held_count < 64) {
        r->held[r->held_count++] = q;
    } else {
        bns_rpc_reply(q, BNS_E_NOTLEADER, bns_slice(NULL, 0));
    }
}

static const struct bns_rpc_handler handler = {on_oneway, on_request};

static struct bns_rpc_identity identity(uint64_t node)
{
    return (struct bns_rpc_identity){.cluster_id = {7, 7, 7}, .node_id = node, .incarnation = 1};
}

static void rig_start(struct rig *r, size_t chunk)
{
    struct bns_rpc_identity id = identity(1);

    memset(r, 0, sizeof *r);
    r->heap = bns_test_heap(0);
    fake_init(&r->f, bns_test_heap_alloc(r->heap));
    r->f.chunk = chunk;
    r->log =
        (struct bns_log){.level = BNS_LOG_WARN, .wall_ms = log_time, .write = log_line, .arg = r};
    r->f.env.log = &r->log;
    assert_int_equal(bns_rpc_server_new(&r->f.env, &id, &handler, r, &r->s), BNS_OK);
    assert_int_equal(bns_rpc_server_listen(r->s, "127.0.0.1", 0, &r->port, NULL), BNS_OK);
}

static void on_up(void *arg)
{
    ((struct rig *)arg)->ups++;
}
static void on_down(void *arg)
{
    ((struct rig *)arg)->downs++;
}

static void dial(struct rig *r, const struct bns_rpc_identity *me, uint64_t whom)
{
    struct bns_rpc_peer_config cfg = {.node_id = whom,
                                      .host = "127.0.0.1",
                                      .port = r->port,
                                      .on_up = on_up,
                                      .on_down = on_down,
                                      .arg = r};

    assert_int_equal(bns_rpc_peer_new(&r->f.env, me, &cfg, &r->p, NULL), BNS_OK);
}

static void rig_end(struct rig *r)
{
    bns_rpc_peer_free(r->p);
    bns_rpc_server_free(r->s);
    fake_free(&r->f);
    for (size_t i = 0; i < r->held_count; i++)
        bns_rpc_reply(r->held[i], BNS_OK, BNS_LIT("nobody is there"));
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

static void released(void *arg, int code)
{
    struct rig *r = arg;
    r->released++;
    r->release_code = code;
}

static void done(void *arg, int code, struct bns_slice payload)
{
    struct rig *r = arg;

    r->dones++;
    r->code = code;
    (void)snprintf(r->payload, sizeof r->payload, "%.*s", (int)payload.len,
                   (const char *)payload.ptr);
    if (r->free_in_done) {
        r->free_in_done = false;
        bns_rpc_peer_free(r->p);
        r->p = NULL;
    }
}

static int ask(struct rig *r, uint16_t method, const char *text, uint64_t ns)
{
    struct bns_rpc_call_options o = {
        .method = method, .deadline_ns = r->f.now + ns, .done = done, .arg = r};
    struct bns_slice v = bns_slice_str(text);

    return bns_rpc_call(r->p, &o, &v, 1);
}

static const size_t chunks[] = {64u * 1024, 1};

static void messages_and_calls_reach_the_other_node(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rig r;
        struct bns_rpc_identity me = identity(2);
        struct bns_slice v[100];

        rig_start(&r, chunks[i]);
        dial(&r, &me, 1);
        for (size_t j = 0; j < 100; j++)
            v[j] = BNS_LIT("abc");
        assert_int_equal(bns_rpc_send(r.p, 9, v, 100, released, &r), BNS_E_OFF);
        assert_int_equal(ask(&r, ECHO, "early", BNS_SEC), BNS_OK); /* waits for the connection */
        fake_run_for(&r.f, BNS_MS);
        assert_int_equal(r.ups, 1);
        assert_true(bns_rpc_peer_up(r.p));
        assert_string_equal(r.payload, "early");
        assert_int_equal(bns_rpc_send(r.p, 9, v, 100, released, &r), BNS_OK);
        assert_int_equal(bns_rpc_send(r.p, 9, NULL, 0, released, &r), BNS_OK);
        assert_int_equal(r.released, 0);
        assert_int_equal(ask(&r, ECHO, "hello", BNS_SEC), BNS_OK);
        assert_int_equal(ask(&r, REFUSE, "", BNS_SEC), BNS_OK);
        fake_run_for(&r.f, BNS_MS);
        assert_int_equal(r.oneways, 2);
        assert_int_equal(r.oneway_bytes, 300);
        assert_int_equal(r.from, 2);
        assert_int_equal(r.released, 2);
        assert_int_equal(r.release_code, BNS_OK);
        assert_int_equal(r.dones, 3);
        assert_int_equal(r.code, BNS_E_NOTLEADER);
        rig_end(&r);
    }
}

static void an_idle_connection_stays_up_by_pings(void **state)
{
    struct rig r;
    struct bns_rpc_identity me = identity(2);

    (void)state;
    rig_start(&r, 64);
    dial(&r, &me, 1);
    fake_run_for(&r.f, 600 * BNS_SEC);
    assert_int_equal(r.ups, 1);
    assert_int_equal(r.downs, 0);
    rig_end(&r);
}

/* A link that swallows everything and tells no end. */
static void a_half_open_connection_is_found_and_dialled_again(void **state)
{
    struct rig r;
    struct bns_rpc_identity me = identity(2);

    (void)state;
    rig_start(&r, 64);
    dial(&r, &me, 1);
    fake_run_for(&r.f, BNS_SEC / 2);
    assert_int_equal(ask(&r, HOLD, "x", 60 * BNS_SEC), BNS_OK);
    fake_run_for(&r.f, BNS_SEC / 2);
    assert_int_equal(r.held_count, 1);
    r.f.blackhole = true;
    fake_run_for(&r.f, 6 * BNS_SEC);
    assert_int_equal(r.downs, 1);
    assert_int_equal(r.dones, 1);
    assert_int_equal(r.code, BNS_E_OFF); /* outcome unknown */
    r.f.blackhole = false;
    fake_run_for(&r.f, 6 * BNS_SEC);
    assert_int_equal(r.ups, 2);
    rig_end(&r);
}

static void a_call_ends_at_its_deadline_and_a_late_answer_is_ignored(void **state)
{
    struct rig r;
    struct bns_rpc_identity me = identity(2);

    (void)state;
    rig_start(&r, 64);
    dial(&r, &me, 1);
    assert_int_equal(ask(&r, HOLD, "x", BNS_SEC), BNS_OK);
    fake_run_for(&r.f, 2 * BNS_SEC);
    assert_int_equal(r.dones, 1);
    assert_int_equal(r.code, BNS_E_TIMEOUT);
    bns_rpc_reply(r.held[--r.held_count], BNS_OK, BNS_LIT("late"));
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(r.dones, 1);
    assert_int_equal(r.downs, 0);
    rig_end(&r);
}

static void a_call_that_never_finds_a_connection_times_out(void **state)
{
    struct rig r;
    struct bns_rpc_identity me = identity(2);

    (void)state;
    rig_start(&r, 64);
    bns_rpc_server_free(r.s);
    r.s = NULL;
    dial(&r, &me, 1);
    assert_int_equal(ask(&r, ECHO, "x", 3 * BNS_SEC), BNS_OK);
    fake_run_for(&r.f, 4 * BNS_SEC);
    assert_int_equal(r.code, BNS_E_TIMEOUT);
    assert_int_equal(r.ups, 0);
    assert_int_equal(r.downs, 0); /* it never was up */
    rig_end(&r);
}

static void the_next_address_is_dialled_and_a_missing_name_is_told_once(void **state)
{
    const struct bns_endpoint more[] = {{.host = "127.0.0.1", .port = 1}, {.host = "127.0.0.1"}};
    struct bns_endpoint at[2];
    struct rig r;
    struct bns_rpc_identity me = identity(2);
    struct bns_rpc_peer_config cfg = {.node_id = 1,
                                      .host = "gone.test",
                                      .port = 1,
                                      .more = at,
                                      .on_up = on_up,
                                      .on_down = on_down};

    (void)state;
    memcpy(at, more, sizeof at);
    rig_start(&r, 64);
    cfg.arg = &r;
    r.f.nameless = "gone.test";
    assert_int_equal(bns_rpc_peer_new(&r.f.env, &me, &cfg, &r.p, NULL), BNS_OK);
    fake_run_for(&r.f, 60 * BNS_SEC);
    assert_in_range(r.f.nameless_dials, 50, 200); /* once a second, not more */
    assert_int_equal(r.warnings, 1);
    assert_non_null(strstr(r.last_warning, "gone.test"));
    bns_rpc_peer_free(r.p);

    at[1].port = r.port;
    cfg.more_count = 2;
    assert_int_equal(bns_rpc_peer_new(&r.f.env, &me, &cfg, &r.p, NULL), BNS_OK);
    fake_run_for(&r.f, 2 * BNS_SEC);
    assert_int_equal(r.ups, 1); /* the third */
    rig_end(&r);
}

static void another_cluster_or_node_is_refused_with_one_warning_a_minute(void **state)
{
    static const struct {
        const char *name, *warning;
        uint8_t cluster;
        uint64_t me, whom;
    } t[] = {
        {"wrong cluster", "wrong cluster id", 8, 2, 1},
        {"wrong node", "was dialled", 7, 2, 5},
        {"our own id", "is our own", 7, 1, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct rig r;
        struct bns_rpc_identity me = identity(t[i].me);

        print_message("  %s\n", t[i].name);
        rig_start(&r, 64);
        me.cluster_id[0] = t[i].cluster;
        dial(&r, &me, t[i].whom);
        fake_run_for(&r.f, 30 * BNS_SEC);
        if (i < 2) /* the server drops its own id only after it has answered the HELLO */
            assert_int_equal(r.ups, 0);
        assert_int_equal(r.oneways, 0);
        assert_true(r.warnings >= 1);
        assert_true(r.warnings <= 2); /* one a side */
        assert_non_null(strstr(r.last_warning, t[i].warning));
        rig_end(&r);
    }
}

static void a_lost_server_fails_what_was_asked_and_comes_back(void **state)
{
    struct rig r;
    struct bns_rpc_identity me = identity(2), id = identity(1);

    (void)state;
    rig_start(&r, 64);
    dial(&r, &me, 1);
    assert_int_equal(ask(&r, HOLD, "x", 60 * BNS_SEC), BNS_OK);
    fake_run_for(&r.f, BNS_SEC);
    bns_rpc_server_free(r.s);
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(r.code, BNS_E_OFF);
    assert_int_equal(r.downs, 1);
    assert_int_equal(ask(&r, ECHO, "again", 60 * BNS_SEC), BNS_OK);
    assert_int_equal(bns_rpc_server_new(&r.f.env, &id, &handler, &r, &r.s), BNS_OK);
    assert_int_equal(bns_rpc_server_listen(r.s, "127.0.0.1", r.port, NULL, NULL), BNS_OK);
    fake_run_for(&r.f, 2 * BNS_SEC);
    assert_int_equal(r.ups, 2);
    assert_string_equal(r.payload, "again");
    rig_end(&r);
}

static void a_peer_may_be_freed_inside_its_own_callback(void **state)
{
    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        struct rig r;
        struct bns_rpc_identity me = identity(2);

        rig_start(&r, 64);
        dial(&r, &me, 1);
        assert_int_equal(ask(&r, lost != 0 ? HOLD : ECHO, "x", BNS_SEC), BNS_OK);
        assert_int_equal(ask(&r, HOLD, "y", BNS_SEC), BNS_OK);
        r.free_in_done = true;
        fake_run_for(&r.f, BNS_MS);
        if (lost != 0) {
            bns_rpc_server_free(r.s);
            r.s = NULL;
            fake_run_for(&r.f, BNS_MS);
        }
        assert_int_equal(r.dones, 2);
        assert_int_equal(r.code, BNS_E_CANCELED); /* the second, by the free in the first */
        assert_null(r.p);
        rig_end(&r);
    }
}

static void a_reader_that_stops_makes_the_queue_full_and_nothing_more(void **state)
{
    struct rig r;
    struct bns_rpc_identity me = identity(2);
    static uint8_t mib[1u << 20];
    struct bns_slice v = bns_slice(mib, sizeof mib);
    size_t ok = 0;

    (void)state;
    rig_start(&r, 64u * 1024);
    dial(&r, &me, 1);
    fake_run_for(&r.f, BNS_MS);
    r.f.window = 0; /* the other side takes nothing */
    while (bns_rpc_send(r.p, 1, &v, 1, released, &r) == BNS_OK)
        ok++;
    assert_true(ok >= 15);
    assert_true(ok <= 16);
    assert_int_equal(bns_rpc_send(r.p, 1, &v, 1, released, &r), BNS_E_BUSY);
    assert_int_equal(ask(&r, ECHO, "x", BNS_SEC), BNS_OK); /* small ones still fit */
    fake_run_for(&r.f, 10 * BNS_SEC);
    assert_int_equal(r.downs, 1); /* it does not answer pings either */
    assert_int_equal(r.released, ok);
    assert_int_equal(r.release_code, BNS_E_DROPPED);
    r.f.window = 1u << 20;
    rig_end(&r);
}

/* ---- rude clients ---------------------------------------------------------------------------- */
struct rude {
    struct bns_stream *s;
    size_t got;
    bool closed;
};

static void rude_data(void *arg, struct bns_slice data)
{
    ((struct rude *)arg)->got += data.len;
}
static void rude_closed(void *arg, int code)
{
    (void)code;
    ((struct rude *)arg)->closed = true;
}
static const struct bns_stream_events rude_events = {.on_data = rude_data, .on_close = rude_closed};

static void rude_dial(struct rig *r, struct rude *c)
{
    *c = (struct rude){0};
    assert_int_equal(bns_net_connect(&r->f.env, "127.0.0.1", r->port, &rude_events, c, &c->s, NULL),
                     BNS_OK);
}

static void add_frame(struct bns_buf *b, uint8_t kind, uint16_t method, uint64_t id,
                      struct bns_slice payload)
{
    struct bns_frame f = {.kind = kind, .method = method, .id = id, .payload = payload};
    assert_int_equal(bns_frame_encode(&f, b), BNS_OK);
}

static void add_hello(struct bns_buf *b, uint64_t node)
{
    struct bns_rpc_identity id = identity(node);
    struct bns_hello h = {.ver_min = 1, .ver_max = 1, .node_id = node, .incarnation = 1};
    uint8_t bytes[BNS_HELLO_BYTES];

    memcpy(h.cluster_id, id.cluster_id, 16);
    bns_hello_encode(&h, bytes);
    add_frame(b, BNS_FRAME_HELLO, 0, 0, bns_slice(bytes, sizeof bytes));
}

static void rude_write(struct rude *c, const struct bns_buf *b)
{
    struct bns_slice v = bns_buf_slice(b);
    assert_int_equal(bns_stream_write(c->s, &v, 1, NULL, NULL), BNS_OK);
}

/* Whatever is wrong, the connection closes, and another peer does not notice. */
static void nonsense_closes_the_connection_and_harms_nobody(void **state)
{
    enum { GARBAGE, NO_HELLO, TWO_HELLOS, BIG_HELLO, OVERSIZE, BAD_CRC, RESPONSE, SHORT, KINDS };
    static const uint8_t big[4096];

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct rig r;
        struct bns_rpc_identity me = identity(2);
        struct rude c;
        struct bns_buf b;

        print_message("  kind %d\n", kind);
        rig_start(&r, kind % 2 == 0 ? 64u * 1024 : 1);
        bns_buf_init(&b, r.f.env.alloc, 1u << 20);
        dial(&r, &me, 1);
        if (kind >= TWO_HELLOS && kind != BIG_HELLO && kind != SHORT)
            add_hello(&b, 3);
        if (kind == GARBAGE)
            assert_int_equal(bns_buf_str(&b, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), BNS_OK);
        if (kind == NO_HELLO)
            add_frame(&b, BNS_FRAME_ONE_WAY, 1, 0, BNS_LIT("x"));
        if (kind == TWO_HELLOS)
            add_hello(&b, 3);
        if (kind == BIG_HELLO)
            add_frame(&b, BNS_FRAME_HELLO, 0, 0, bns_slice(big, sizeof big));
        if (kind == OVERSIZE)
            assert_int_equal(bns_buf_add(&b, "\xff\xff\xff\x7f........................", 28),
                             BNS_OK);
        if (kind == BAD_CRC) {
            add_frame(&b, BNS_FRAME_ONE_WAY, 1, 0, BNS_LIT("x"));
            b.ptr[b.len - 1] ^= 1;
        }
        if (kind == RESPONSE)
            add_frame(&b, BNS_FRAME_RESPONSE, 1, 0, BNS_LIT("x"));
        if (kind == SHORT)
            assert_int_equal(bns_buf_add(&b, "\x44\0\0", 3), BNS_OK); /* and nothing more */
        rude_dial(&r, &c);
        rude_write(&c, &b);
        fake_run_for(&r.f, 6 * BNS_SEC);
        assert_true(c.closed);
        assert_int_equal(r.oneways, 0);
        assert_int_equal(r.downs, 0);
        assert_int_equal(ask(&r, ECHO, "fine", BNS_SEC), BNS_OK);
        fake_run_for(&r.f, BNS_MS);
        assert_string_equal(r.payload, "fine");
        bns_buf_free(&b);
        rig_end(&r);
    }
}

static void a_stranger_that_says_nothing_is_closed(void **state)
{
    struct rig r;
    struct rude c;

    (void)state;
    rig_start(&r, 64);
    rude_dial(&r, &c);
    fake_run_for(&r.f, 6 * BNS_SEC);
    assert_true(c.closed);
    rig_end(&r);
}

/* It asks without end and never reads an answer: our memory stays bounded. */
static void a_flood_that_reads_nothing_is_held_back(void **state)
{
    struct rig r;
    struct rude c;
    struct bns_buf b;
    static uint8_t kib[1024];

    (void)state;
    rig_start(&r, 64u * 1024);
    bns_buf_init(&b, r.f.env.alloc, 64u << 20);
    add_hello(&b, 3);
    for (uint64_t i = 0; i < 40000; i++) /* 40 MiB of questions, as many of answers */
        add_frame(&b, BNS_FRAME_REQUEST, ECHO, i, bns_slice(kib, sizeof kib));
    rude_dial(&r, &c);
    rude_write(&c, &b);
    bns_stream_read(c.s, false);
    size_t before = bns_test_heap_in_use(r.heap);
    for (int i = 0; i < 30; i++)
        fake_run_for(&r.f, 100 * BNS_MS);
    print_message("  %zu bytes held\n", bns_test_heap_in_use(r.heap) - before);
    assert_true(bns_test_heap_in_use(r.heap) - before < 24u << 20);
    fake_run_for(&r.f, 10 * BNS_SEC); /* it takes nothing for seconds: closed */
    assert_true(c.closed);
    bns_buf_free(&b);
    rig_end(&r);
}

static void requests_outlive_their_connection_and_cancelled_ones_get_no_answer(void **state)
{
    struct rig r;
    struct rude c;
    struct bns_buf b;

    (void)state;
    rig_start(&r, 64u * 1024);
    bns_buf_init(&b, r.f.env.alloc, 64u << 20);
    add_hello(&b, 3);
    for (uint64_t i = 0; i < 64; i++)
        add_frame(&b, BNS_FRAME_REQUEST, HOLD, i, BNS_LIT("x"));
    add_frame(&b, BNS_FRAME_CANCEL, HOLD, 7, bns_slice(NULL, 0));
    rude_dial(&r, &c);
    rude_write(&c, &b);
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.held_count, 64);
    size_t got = c.got;
    bns_rpc_reply(r.held[7], BNS_OK, BNS_LIT("cancelled: dropped"));
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(c.got, got);
    bns_rpc_reply(r.held[8], BNS_OK, BNS_LIT("x"));
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(c.got, got + BNS_FRAME_HEAD_BYTES + 1);
    r.held[7] = r.held[62];
    r.held[8] = r.held[63];
    r.held_count = 62;
    bns_stream_reset(c.s); /* with 62 requests open */
    fake_run_for(&r.f, BNS_MS);
    bns_buf_free(&b);
    rig_end(&r);
}

/* ---- out of memory --------------------------------------------------------------------------- */
/* The n-th allocation fails, for every n until a run gets through: whatever breaks, it is told, the
 * connection comes back, nothing leaks. (The fake env takes its own memory elsewhere.) */
static void every_allocation_may_fail(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct rig r;
        struct bns_rpc_identity me = identity(2), id = identity(1);
        struct bns_rpc_peer_config cfg = {.node_id = 1, .host = "127.0.0.1"};
        struct bns_slice v = BNS_LIT("abc");

        memset(&r, 0, sizeof r);
        r.heap = bns_test_heap(fail_at);
        fake_init(&r.f, bns_test_heap_alloc(r.heap));
        r.f.own = bns_alloc_libc();
        r.f.timers.alloc = bns_alloc_libc();
        if (bns_rpc_server_new(&r.f.env, &id, &handler, &r, &r.s) == BNS_OK &&
            bns_rpc_server_listen(r.s, "h", 0, &cfg.port, NULL) == BNS_OK) {
            if (bns_rpc_peer_new(&r.f.env, &me, &cfg, &r.p, NULL) == BNS_OK) {
                size_t asked = ask(&r, ECHO, "one", 5 * BNS_SEC) == BNS_OK;
                fake_run_for(&r.f, 6 * BNS_SEC);
                if (bns_rpc_send(r.p, 1, &v, 1, NULL, NULL) == BNS_OK)
                    fake_run_for(&r.f, BNS_SEC);
                asked += ask(&r, ECHO, "two", 5 * BNS_SEC) == BNS_OK;
                fake_run_for(&r.f, 6 * BNS_SEC);
                assert_int_equal(r.dones, asked);
                fake_run_for(&r.f, BNS_SEC / 2); /* the last ping may be what failed */
                if (!bns_rpc_peer_up(r.p))
                    fail_msg("not up again after allocation %d failed", fail_at);
            }
        }
        bns_rpc_peer_free(r.p);
        bns_rpc_server_free(r.s);
        fake_free(&r.f);
        assert_int_equal(bns_test_heap_close(r.heap, &fired), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_and_calls_reach_the_other_node),
        cmocka_unit_test(an_idle_connection_stays_up_by_pings),
        cmocka_unit_test(a_half_open_connection_is_found_and_dialled_again),
        cmocka_unit_test(a_call_ends_at_its_deadline_and_a_late_answer_is_ignored),
        cmocka_unit_test(a_call_that_never_finds_a_connection_times_out),
        cmocka_unit_test(the_next_address_is_dialled_and_a_missing_name_is_told_once),
        cmocka_unit_test(another_cluster_or_node_is_refused_with_one_warning_a_minute),
        cmocka_unit_test(a_lost_server_fails_what_was_asked_and_comes_back),
        cmocka_unit_test(a_peer_may_be_freed_inside_its_own_callback),
        cmocka_unit_test(a_reader_that_stops_makes_the_queue_full_and_nothing_more),
        cmocka_unit_test(nonsense_closes_the_connection_and_harms_nobody),
        cmocka_unit_test(a_stranger_that_says_nothing_is_closed),
        cmocka_unit_test(a_flood_that_reads_nothing_is_held_back),
        cmocka_unit_test(requests_outlive_their_connection_and_cancelled_ones_get_no_answer),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
