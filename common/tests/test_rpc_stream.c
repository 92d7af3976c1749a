/* test_rpc_stream.c - streams of the internal RPC: order, back-pressure, every way to end.
 *
 * Method: a server and a peer in one fake env on virtual time; the receiving side acknowledges at
 * once, or holds on to what it got. A peer that lies is a plain stream that writes frames. */
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

#define BULK (BNS_RPC_STREAM_BIT | 1)
#define PIECE (100u * 1024)

struct end {
    struct bns_rpc_stream *s;
    size_t got, kept, writable, closes;
    bool keeps; /* does not acknowledge */
    bool end_seen;
    int code;
    struct bns_rpc_peer **free_on_close;
};

struct rig {
    struct bns_test_heap *heap;
    struct fake_env f;
    struct bns_rpc_server *s;
    struct bns_rpc_peer *p;
    uint16_t port;
    struct end server, client;
    bool refuses;
    size_t opened;
};

static uint8_t bytes[BNS_RPC_WINDOW + 1];

static void on_data(void *arg, struct bns_slice data)
{
    struct end *e = arg;

    e->got += data.len;
    if (e->keeps)
        e->kept += data.len;
    else
        bns_rpc_stream_ack(e->s, data.len);
}
static void on_end(void *arg)
{
    ((struct end *)arg)->end_seen = true;
}
static void on_writable(void *arg)
{
    ((struct end *)arg)->writable++;
}
static void on_close(void *arg, int code)
{
    struct end *e = arg;

    e->closes++;
    e->code = code;
    e->s = NULL;
    if (e->free_on_close != NULL) {
        bns_rpc_peer_free(*e->free_on_close);
        *e->free_on_close = NULL;
    }
}
static const struct bns_rpc_stream_events events = {on_data, on_end, on_writable, on_close};

static void on_stream(void *arg, struct bns_rpc_stream *s, uint64_t from, uint16_t method,
                      struct bns_slice payload)
{
    struct rig *r = arg;

    assert_int_equal(from, 2);
    assert_int_equal(method, BULK);
    assert_true(bns_slice_eq(payload, BNS_LIT("open")));
    r->opened++;
    if (r->refuses || r->server.s != NULL) {
        bns_rpc_stream_close(s, BNS_E_FORBIDDEN);
        return;
    }
    r->server.s = s;
    bns_rpc_stream_accept(s, &events, &r->server);
}

static void rig_start(struct rig *r)
{
    static const struct bns_rpc_handler none = {NULL, NULL};
    struct bns_rpc_identity a = {.node_id = 1}, b = {.node_id = 2};
    struct bns_rpc_peer_config cfg = {.node_id = 1, .host = "127.0.0.1"};

    memset(r, 0, sizeof *r);
    r->heap = bns_test_heap(0);
    fake_init(&r->f, bns_test_heap_alloc(r->heap));
    assert_int_equal(bns_rpc_server_new(&r->f.env, &a, &none, r, &r->s), BNS_OK);
    bns_rpc_server_streams(r->s, on_stream);
    assert_int_equal(bns_rpc_server_listen(r->s, "127.0.0.1", 0, &r->port, NULL), BNS_OK);
    cfg.port = r->port;
    assert_int_equal(bns_rpc_peer_new(&r->f.env, &b, &cfg, &r->p, NULL), BNS_OK);
}

static void open_stream(struct rig *r)
{
    struct bns_rpc_stream_options o = {
        .method = BULK, .payload = BNS_LIT("open"), .ev = &events, .arg = &r->client};

    fake_run_for(&r->f, BNS_MS);
    assert_int_equal(bns_rpc_stream_open(r->p, &o, &r->client.s), BNS_OK);
    fake_run_for(&r->f, BNS_MS);
}

static void rig_end(struct rig *r)
{
    bns_rpc_peer_free(r->p);
    bns_rpc_server_free(r->s);
    assert_null(r->client.s); /* whoever was open was told */
    assert_null(r->server.s);
    fake_free(&r->f);
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

static int write_piece(struct end *e, size_t len)
{
    struct bns_slice v[2] = {bns_slice(bytes, len / 2), bns_slice(bytes, len - len / 2)};
    return bns_rpc_stream_write(e->s, v, 2, NULL, NULL);
}

static void many_windows_flow_both_ways(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r);
    open_stream(&r);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(write_piece(&r.client, PIECE), BNS_OK);
        assert_int_equal(write_piece(&r.server, PIECE), BNS_OK);
        fake_run_for(&r.f, BNS_MS);
    }
    bns_rpc_stream_end(r.client.s);
    assert_int_equal(write_piece(&r.client, 1), BNS_E_OFF);
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.server.got, 100 * PIECE);
    assert_int_equal(r.client.got, 100 * PIECE);
    assert_true(r.server.end_seen);
    assert_false(r.client.end_seen);
    assert_int_equal(write_piece(&r.server, 5), BNS_OK); /* the other half still lives */
    bns_rpc_stream_close(r.server.s, BNS_OK);
    r.server.s = NULL;
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.client.got, 100 * PIECE + 5);
    assert_int_equal(r.client.closes, 1);
    assert_int_equal(r.client.code, BNS_OK);
    rig_end(&r);
}

static void a_receiver_that_keeps_its_bytes_stops_the_sender(void **state)
{
    struct rig r;
    size_t sent = 0;

    (void)state;
    rig_start(&r);
    r.server.keeps = true;
    open_stream(&r);
    assert_int_equal(write_piece(&r.client, BNS_RPC_WINDOW + 1), BNS_E_TOOBIG);
    while (write_piece(&r.client, PIECE) == BNS_OK) {
        sent += PIECE;
        fake_run_for(&r.f, BNS_MS);
    }
    assert_true(sent <= BNS_RPC_WINDOW);
    assert_true(sent > BNS_RPC_WINDOW - PIECE);
    fake_run_for(&r.f, 10 * BNS_SEC);
    assert_int_equal(write_piece(&r.client, PIECE), BNS_E_BUSY);
    assert_int_equal(r.client.writable, 0);
    assert_int_equal(r.server.got, sent);
    bns_rpc_stream_ack(r.server.s, r.server.kept); /* now it has dealt with them */
    r.server.keeps = false;
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.client.writable, 1);
    assert_int_equal(write_piece(&r.client, PIECE), BNS_OK);
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.server.got, sent + PIECE);
    rig_end(&r);
}

static void every_way_to_end_is_told_once_to_the_other_side(void **state)
{
    enum { CANCEL, REFUSED, CLOSED, PEER_FREED, SERVER_FREED, LOST, FREE_IN_CLOSE, WAYS };
    static const struct {
        int client, server; /* codes; 1 = not told */
    } want[WAYS] = {
        {1, BNS_E_CANCELED},         {BNS_E_FORBIDDEN, 1},   {BNS_E_CORRUPT, 1},
        {BNS_E_CANCELED, BNS_E_OFF}, {BNS_E_OFF, BNS_E_OFF}, {BNS_E_OFF, BNS_E_OFF},
        {BNS_E_CORRUPT, 1},
    };

    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct rig r;

        print_message("  way %d\n", way);
        rig_start(&r);
        r.refuses = way == REFUSED;
        r.client.code = r.server.code = 1;
        if (way == FREE_IN_CLOSE)
            r.client.free_on_close = &r.p;
        open_stream(&r);
        if (way == CANCEL) {
            bns_rpc_stream_close(r.client.s, BNS_OK);
            r.client.s = NULL;
        } else if (way == CLOSED || way == FREE_IN_CLOSE) {
            bns_rpc_stream_close(r.server.s, BNS_E_CORRUPT);
            r.server.s = NULL;
        } else if (way == PEER_FREED) {
            bns_rpc_peer_free(r.p);
            r.p = NULL;
        } else if (way == SERVER_FREED) {
            bns_rpc_server_free(r.s);
            r.s = NULL;
        } else if (way == LOST) {
            r.f.blackhole = true;
            fake_run_for(&r.f, 6 * BNS_SEC);
        }
        fake_run_for(&r.f, BNS_MS);
        assert_int_equal(r.client.code, want[way].client);
        assert_int_equal(r.server.code, want[way].server);
        assert_true(r.client.closes <= 1);
        assert_true(r.server.closes <= 1);
        rig_end(&r);
    }
}

/* ---- a dialler that lies --------------------------------------------------------------------- */
struct rude {
    struct bns_stream *s;
    bool closed;
};

static void rude_data(void *arg, struct bns_slice data)
{
    (void)arg;
    (void)data;
}
static void rude_closed(void *arg, int code)
{
    (void)code;
    ((struct rude *)arg)->closed = true;
}

static void add_frame(struct bns_buf *b, uint8_t kind, uint32_t aux, struct bns_slice payload)
{
    struct bns_frame f = {.kind = kind, .method = BULK, .aux = aux, .id = 9, .payload = payload};
    assert_int_equal(bns_frame_encode(&f, b), BNS_OK);
}

static void a_dialler_that_breaks_the_window_is_closed(void **state)
{
    static const struct bns_stream_events ev = {.on_data = rude_data, .on_close = rude_closed};

    (void)state;
    for (int lie = 0; lie < 4; lie++) {
        struct rig r;
        struct rude c = {.s = NULL};
        struct bns_buf b;
        struct bns_hello h = {.ver_min = 1, .ver_max = 1, .node_id = 2};
        uint8_t hello[BNS_HELLO_BYTES];
        struct bns_slice all;

        print_message("  lie %d\n", lie);
        rig_start(&r);
        r.server.keeps = true;
        bns_buf_init(&b, r.f.env.alloc, 8u << 20);
        bns_hello_encode(&h, hello);
        add_frame(&b, BNS_FRAME_HELLO, 0, bns_slice(hello, sizeof hello));
        add_frame(&b, BNS_FRAME_REQUEST, 0, BNS_LIT("open"));
        if (lie == 0) { /* more than the window */
            add_frame(&b, BNS_FRAME_DATA, 0, bns_slice(bytes, BNS_RPC_WINDOW));
            add_frame(&b, BNS_FRAME_DATA, 0, bns_slice(bytes, 1));
        } else if (lie == 1) { /* credit for what was not sent */
            add_frame(&b, BNS_FRAME_CREDIT, 1, bns_slice(NULL, 0));
        } else if (lie == 2) { /* data after the end */
            add_frame(&b, BNS_FRAME_END, 0, bns_slice(NULL, 0));
            add_frame(&b, BNS_FRAME_DATA, 0, bns_slice(bytes, 1));
        } else { /* an answer from the one who asks */
            add_frame(&b, BNS_FRAME_RESPONSE, 0, bns_slice(NULL, 0));
        }
        assert_int_equal(bns_net_connect(&r.f.env, "h", r.port, &ev, &c, &c.s, NULL), BNS_OK);
        all = bns_buf_slice(&b);
        assert_int_equal(bns_stream_write(c.s, &all, 1, NULL, NULL), BNS_OK);
        fake_run_for(&r.f, 10 * BNS_MS);
        assert_true(c.closed);
        assert_int_equal(r.opened, 1);
        assert_int_equal(r.server.closes, 1);
        assert_int_equal(r.server.code, BNS_E_OFF);
        assert_true(r.server.got <= BNS_RPC_WINDOW);
        assert_true(bns_rpc_peer_up(r.p)); /* others are not disturbed */
        bns_buf_free(&b);
        rig_end(&r);
    }
}

static void more_streams_than_the_limit_are_busy(void **state)
{
    struct rig r;
    struct end ends[300];
    size_t opened = 0;
    int rv = BNS_OK;

    (void)state;
    memset(ends, 0, sizeof ends);
    rig_start(&r);
    fake_run_for(&r.f, BNS_MS);
    for (size_t i = 0; i < 300 && rv == BNS_OK; i++) {
        struct bns_rpc_stream_options o = {
            .method = BULK, .payload = BNS_LIT("open"), .ev = &events, .arg = &ends[i]};
        rv = bns_rpc_stream_open(r.p, &o, &ends[i].s);
        opened += rv == BNS_OK;
    }
    assert_int_equal(rv, BNS_E_BUSY);
    assert_int_equal(opened, 256);
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.opened, 256);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_windows_flow_both_ways),
        cmocka_unit_test(a_receiver_that_keeps_its_bytes_stops_the_sender),
        cmocka_unit_test(every_way_to_end_is_told_once_to_the_other_side),
        cmocka_unit_test(a_dialler_that_breaks_the_window_is_closed),
        cmocka_unit_test(more_streams_than_the_limit_are_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
