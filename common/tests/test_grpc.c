/* test_grpc.c - our gRPC client and server against each other, in memory and virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "grpc_kit.h"

#define TICK (10 * BNS_MS)

static const size_t chunks[] = {1, 7, 1000, 64u * 1024};

/* Goal: each kind of call works however the bytes are cut. */
static void all_four_kinds_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        static uint8_t big[5000];
        struct kit k;
        struct rec u, ss, cs, bd;
        struct bns_grpc_ccall *c;

        kit_open(&k, NULL);
        k.f.chunk = chunks[i];
        bns_put_u32be(big, 20);
        assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("hello"), &u), BNS_OK);
        assert_int_equal(kit_unary(&k, "/bns.Echo/ServerStream", bns_slice(big, sizeof big), &ss),
                         BNS_OK);
        c = kit_call(&k, "/bns.Echo/ClientStream", &cs);
        for (int n = 0; n < 10; n++)
            assert_int_equal(bns_grpc_ccall_send_copy(c, bns_slice(big, sizeof big)), BNS_OK);
        bns_grpc_ccall_half_close(c);
        c = kit_call(&k, "/bns.Echo/Bidi", &bd);
        assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("")), BNS_OK);
        fake_run_for(&k.f, TICK);
        assert_int_equal(bd.messages, 1);
        assert_int_equal(bd.ended, 0);
        assert_int_equal(bns_grpc_ccall_send_copy(c, bns_slice(big, sizeof big)), BNS_OK);
        bns_grpc_ccall_half_close(c);
        fake_run_for(&k.f, TICK);

        assert_int_equal(u.ended, 1);
        assert_int_equal(u.status, 0);
        assert_int_equal(u.opened, 1);
        assert_int_equal(u.messages, 1);
        assert_memory_equal(u.first, "hello", 5);
        assert_int_equal(ss.status, 0);
        assert_int_equal(ss.messages, 20);
        assert_int_equal(ss.bytes, 20 * sizeof big);
        assert_int_equal(cs.status, 0);
        assert_int_equal(cs.first_len, 8);
        assert_true(bns_get_u64be(cs.first) == 10 * sizeof big);
        assert_int_equal(bd.messages, 2);
        assert_int_equal(bd.status, BNS_GRPC_ABORTED);
        assert_int_equal(k.ends[BNS_GRPC_END_DONE], 4);
        assert_int_equal(kit_close(&k, NULL), 0);
    }
}

/* Goal: binary metadata travels both ways; a status text may hold any bytes. */
static void binary_metadata_and_texts_survive(void **state)
{
    static const uint8_t token[] = {0, 255, 1, 200, 'x'};
    struct bns_grpc_md md[] = {{BNS_LIT("token-bin"), {token, sizeof token}},
                               {BNS_LIT("user"), BNS_LIT("me")}};
    struct bns_grpc_call_options o = {.path = "/bns.Echo/Bidi", .md = md, .md_count = 2};
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec r = {.ended = 0};

    (void)state;
    kit_open(&k, NULL);
    assert_int_equal(bns_grpc_call_start(k.client, &o, &rec_handler, &r, &c), BNS_OK);
    bns_grpc_ccall_half_close(c);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r.ended, 1);
    assert_int_equal(r.status, BNS_GRPC_ABORTED);
    assert_string_equal(r.text, "caf\303\251 100%\n");
    assert_int_equal(r.seen_len, sizeof token);
    assert_memory_equal(r.seen, token, sizeof token);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: what the server refuses by itself, with the texts that clients know. */
static void refusals(void **state)
{
    static uint8_t big[4 * 1024 * 1024 + 1];
    static const struct {
        const char *path;
        size_t len;
        int status;
        const char *text;
    } t[] = {
        {"/bns.Echo/Nope", 0, 12, "unknown method Nope for service bns.Echo"},
        {"/bns.Nope/Nope", 0, 12, "unknown service bns.Nope"},
        {"/", 0, 12, "malformed method name: \"/\""},
        {"/bns.Echo/Unary", sizeof big - 1, 0, ""},
        {"/bns.Echo/Unary", sizeof big, 8,
         "grpc: received message larger than max (4194305 vs. 4194304)"},
    };
    struct kit k;

    (void)state;
    kit_open(&k, NULL);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct rec r;
        print_message("  %s %zu\n", t[i].path, t[i].len);
        assert_int_equal(kit_unary(&k, t[i].path, bns_slice(big, t[i].len), &r), BNS_OK);
        fake_run_for(&k.f, TICK);
        assert_int_equal(r.ended, 1);
        assert_int_equal(r.status, t[i].status);
        assert_string_equal(r.text, t[i].text);
        assert_int_equal(r.opened, t[i].status == 0); /* trailers-only otherwise */
    }
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: exactly one message for unary calls. */
static void cardinality_is_kept(void **state)
{
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec none, two;

    (void)state;
    kit_open(&k, NULL);
    bns_grpc_ccall_half_close(kit_call(&k, "/bns.Echo/Unary", &none));
    c = kit_call(&k, "/bns.Echo/Hang", &two);
    assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("a")), BNS_OK);
    assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("b")), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(none.status, BNS_GRPC_UNIMPLEMENTED);
    assert_int_equal(two.status, BNS_GRPC_UNIMPLEMENTED);
    assert_int_equal(k.ends[BNS_GRPC_END_RESET], 2);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: the server answers 4 by itself; the handler may finish later, into the void. */
static void deadline_ends_the_call_on_both_sides(void **state)
{
    struct bns_grpc_md md[] = {{BNS_LIT("grpc-timeout"), BNS_LIT("100m")}};
    struct bns_grpc_call_options o = {.path = "/bns.Echo/Hang"};
    struct kit k;
    struct rec r[2] = {{.ended = 0}};

    (void)state;
    kit_open(&k, NULL);
    o.deadline_ns = k.f.now + 100 * BNS_MS;
    assert_int_equal(bns_grpc_unary(k.client, &o, BNS_LIT("x"), &rec_handler, &r[0]), BNS_OK);
    o.deadline_ns = 0; /* the client itself would wait for ever */
    o.md = md;
    o.md_count = 1;
    assert_int_equal(bns_grpc_unary(k.client, &o, BNS_LIT("x"), &rec_handler, &r[1]), BNS_OK);
    fake_run_for(&k.f, 90 * BNS_MS);
    assert_int_equal(k.held_count, 2);
    assert_true(bns_grpc_deadline(k.held[1]) > k.f.now);
    assert_int_equal(r[0].ended + r[1].ended, 0);
    fake_run_for(&k.f, 20 * BNS_MS);
    assert_int_equal(r[0].status, BNS_GRPC_DEADLINE_EXCEEDED);
    assert_int_equal(r[1].status, BNS_GRPC_DEADLINE_EXCEEDED);
    assert_string_equal(r[1].text, "context deadline exceeded");
    assert_int_equal(k.ends[BNS_GRPC_END_DEADLINE] + k.ends[BNS_GRPC_END_RESET], 2);
    assert_int_equal(bns_grpc_send_copy(k.held[0], BNS_LIT("late")), BNS_E_OFF);
    kit_finish_held(&k, BNS_GRPC_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r[0].ended + r[1].ended, 2);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: cancel reaches the handler as RESET, the owner gets 1 in a later turn. */
static void cancel_reaches_the_handler(void **state)
{
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec r, other;

    (void)state;
    kit_open(&k, NULL);
    c = kit_call(&k, "/bns.Echo/Hang", &r);
    assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("a")), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(k.held_count, 1);
    bns_grpc_ccall_cancel(c);
    assert_int_equal(r.ended, 0);
    assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("b")), BNS_E_OFF);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r.ended, 1);
    assert_int_equal(r.status, BNS_GRPC_CANCELLED);
    assert_int_equal(k.ends[BNS_GRPC_END_RESET], 1);
    kit_finish_held(&k, BNS_GRPC_OK);
    /* Cancelled before its HEADERS were sent: the server never hears of it. */
    bns_grpc_ccall_cancel(kit_call(&k, "/bns.Echo/Bidi", &r));
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &other), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r.status, BNS_GRPC_CANCELLED);
    assert_int_equal(other.status, BNS_GRPC_OK);
    assert_int_equal(k.started, 2);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: a server that ends a stream whose client half is open leaves nothing behind. */
static void server_may_finish_before_the_client_half_closes(void **state)
{
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec r;

    (void)state;
    kit_open(&k, NULL);
    for (int i = 0; i < 50; i++) {
        c = kit_call(&k, "/bns.Echo/Bidi", &r);
        assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("a")), BNS_OK);
        assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("stop")), BNS_OK);
        assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("ignored")), BNS_OK);
        fake_run_for(&k.f, TICK);
        assert_int_equal(r.messages, 1);
        assert_int_equal(r.status, BNS_GRPC_OUT_OF_RANGE);
        assert_string_equal(r.text, "stopped");
    }
    assert_int_equal(k.ends[BNS_GRPC_END_DONE], 50);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: a client that takes nothing costs one window and one handler's queue, not the answer. */
static void slow_reader_is_bounded(void **state)
{
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec r, quick;

    (void)state;
    kit_open(&k, NULL);
    k.flood_bytes = 64u * 1024 * 1024;
    c = kit_call(&k, "/bns.Echo/Flood", &r);
    bns_grpc_ccall_read(c, false);
    assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("go")), BNS_OK);
    bns_grpc_ccall_half_close(c);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(r.messages, 0);
    assert_true(k.flood_bytes > 60u * 1024 * 1024);
    assert_true(bns_test_heap_peak(k.heap) < 4u * 1024 * 1024);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &quick), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(quick.ended, 1); /* others on the connection are not held up */
    bns_grpc_ccall_read(c, true);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.bytes, 64u * 1024 * 1024);
    assert_true(k.queued_max < 128u * 1024);
    assert_int_equal(k.borrowed, 2048);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: a handler that takes nothing stops its client by flow control, and loses nothing. */
static void slow_handler_stops_the_client(void **state)
{
    static uint8_t block[100000];
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec r;
    size_t at_stop;

    (void)state;
    kit_open(&k, NULL);
    k.pause = true;
    c = kit_call(&k, "/bns.Echo/ClientStream", &r);
    for (int i = 0; i < 50; i++)
        assert_int_equal(bns_grpc_ccall_send_copy(c, bns_slice(block, sizeof block)), BNS_OK);
    fake_run_for(&k.f, BNS_SEC);
    at_stop = bns_grpc_ccall_queued(c);
    assert_int_equal(k.messages, 0);
    assert_true(at_stop > 50 * sizeof block - 1100000);
    assert_true(r.writable == 0);
    bns_grpc_ccall_half_close(c);
    bns_grpc_read(k.held[0], true);
    k.held_count = 0;
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(r.writable, 1);
    assert_int_equal(r.status, 0);
    assert_true(bns_get_u64be(r.first) == 50 * sizeof block);
    assert_int_equal(k.half_closed, 1);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: borrowed bytes come back once each, also when the client goes away in the middle. */
static void borrowed_slices_are_released_after_a_reset(void **state)
{
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec r;

    (void)state;
    kit_open(&k, NULL);
    k.flood_bytes = 64u * 1024 * 1024;
    c = kit_call(&k, "/bns.Echo/Flood", &r);
    bns_grpc_ccall_read(c, false);
    assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("go")), BNS_OK);
    fake_run_for(&k.f, BNS_SEC);
    assert_true(k.released < k.borrowed);
    bns_grpc_ccall_cancel(c);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(k.released, k.borrowed);
    assert_int_equal(k.ends[BNS_GRPC_END_RESET], 1);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: streams take turns: a small answer does not wait for a large one before it. */
static void a_large_answer_does_not_starve_a_small_one(void **state)
{
    static uint8_t big[3 * 1024 * 1024];
    struct kit k;
    struct rec large, small;

    (void)state;
    kit_open(&k, NULL);
    bns_put_u32be(big, 5);
    assert_int_equal(kit_unary(&k, "/bns.Echo/ServerStream", bns_slice(big, sizeof big), &large),
                     BNS_OK);
    while (large.messages == 0)
        assert_true(fake_turn(&k.f));
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &small), BNS_OK);
    while (small.ended == 0)
        assert_true(fake_turn(&k.f));
    assert_true(large.messages < 3);
    fake_run_for(&k.f, TICK);
    assert_int_equal(large.messages, 5);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: over the byte budget new calls wait, and go on when the client has read. */
static void over_budget_new_calls_wait(void **state)
{
    static uint8_t big[3 * 1024 * 1024];
    struct bns_grpc_config cfg = {.queued_bytes_max = 1024 * 1024};
    struct bns_grpc_ccall *c;
    struct kit k;
    struct rec large, small;

    (void)state;
    kit_open(&k, &cfg);
    bns_put_u32be(big, 2);
    c = kit_call(&k, "/bns.Echo/ServerStream", &large);
    bns_grpc_ccall_read(c, false);
    assert_int_equal(bns_grpc_ccall_send_copy(c, bns_slice(big, sizeof big)), BNS_OK);
    bns_grpc_ccall_half_close(c);
    fake_run_for(&k.f, TICK);
    assert_int_equal(k.messages, 1);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &small), BNS_OK);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(k.started, 1);
    assert_int_equal(small.ended, 0);
    bns_grpc_ccall_read(c, true);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(large.messages, 2);
    assert_int_equal(large.status, 0);
    assert_int_equal(small.ended, 1);
    assert_int_equal(small.status, 0);
    assert_int_equal(kit_close(&k, NULL), 0);
}

static bool doors_open;

static enum bns_grpc_admission at_the_door(void *arg, struct bns_grpc_call *c,
                                           struct bns_slice path, uint64_t first_asked_ns,
                                           struct bns_grpc_refusal *why)
{
    (void)arg;
    (void)c;
    (void)path;
    (void)first_asked_ns;
    (void)why;
    return doors_open ? BNS_GRPC_ADMIT : BNS_GRPC_HOLD;
}

/* Goal: calls that are held for ever (tokens that nobody ever gave) leave room for those that are
 * held for a moment: 64 a connection, and when all 1,024 places are taken the oldest goes. */
static void held_calls_do_not_shut_out_others(void **state)
{
    enum { CONNS = 17, EACH = 70 };
    static struct rec r[CONNS][EACH];
    struct bns_grpc_config cfg = {.admit = at_the_door};
    struct bns_grpc_client *more[CONNS] = {NULL};
    struct kit k;

    (void)state;
    doors_open = false;
    kit_open(&k, &cfg);
    for (int i = 0; i < CONNS; i++) {
        struct bns_grpc_client *own = k.client;
        unsigned refused = 0;
        int n = i < CONNS - 1 ? EACH : 1;

        assert_int_equal(bns_grpc_client_new(&k.f.env, "127.0.0.1", k.port, &more[i], NULL),
                         BNS_OK);
        k.client = more[i];
        for (int j = 0; j < n; j++)
            assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &r[i][j]), BNS_OK);
        k.client = own;
        fake_run_for(&k.f, TICK);
        for (int j = 0; j < n; j++)
            refused += r[i][j].status == BNS_GRPC_UNAVAILABLE;
        assert_int_equal(refused, n == 1 ? 0 : EACH - 64);
    }
    assert_int_equal(r[0][0].status, BNS_GRPC_UNAVAILABLE); /* 1,024 places: the oldest went */
    assert_int_equal(r[0][1].ended, 0);
    doors_open = true;
    fake_run_for(&k.f, TICK);
    assert_int_equal(r[CONNS - 1][0].ended, 1);
    assert_int_equal(r[CONNS - 1][0].status, BNS_GRPC_OK);
    for (int i = 0; i < CONNS; i++)
        bns_grpc_client_free(more[i]);
    assert_int_equal(kit_close(&k, NULL), 0);
}

static void stream_limit_of_a_method(void **state)
{
    struct kit k;
    struct rec r[5];

    (void)state;
    kit_open(&k, NULL);
    for (int i = 0; i < 5; i++)
        assert_int_equal(kit_unary(&k, "/bns.Echo/Hang", BNS_LIT("x"), &r[i]), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(k.held_count, 3);
    assert_int_equal(r[3].status, BNS_GRPC_RESOURCE_EXHAUSTED);
    assert_int_equal(r[4].status, BNS_GRPC_RESOURCE_EXHAUSTED);
    kit_finish_held(&k, BNS_GRPC_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r[0].ended + r[1].ended + r[2].ended, 3);
    assert_int_equal(kit_close(&k, NULL), 0);
}

static void flag_done(void *arg)
{
    *(bool *)arg = true;
}

/* Goal: a drain lets open calls finish, then reports; later calls do not get through. */
static void drain_waits_for_open_calls(void **state)
{
    struct kit k;
    struct rec r, late;
    bool done = false;

    (void)state;
    kit_open(&k, NULL);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Hang", BNS_LIT("x"), &r), BNS_OK);
    fake_run_for(&k.f, TICK);
    bns_grpc_server_drain(k.server, "server stopped", 7 * BNS_SEC, flag_done, &done);
    fake_run_for(&k.f, TICK);
    assert_false(done);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &late), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(late.status, BNS_GRPC_UNAVAILABLE);
    kit_finish_held(&k, BNS_GRPC_NOT_FOUND);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r.status, BNS_GRPC_NOT_FOUND);
    assert_true(done);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: at the end of its time a drain ends what is open with 14 and the text. */
static void drain_ends_calls_at_its_time_limit(void **state)
{
    struct kit k;
    struct rec r;
    bool done = false;

    (void)state;
    kit_open(&k, NULL);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Hang", BNS_LIT("x"), &r), BNS_OK);
    fake_run_for(&k.f, TICK);
    bns_grpc_server_drain(k.server, "etcdserver: server stopped", BNS_SEC, flag_done, &done);
    fake_run_for(&k.f, BNS_SEC / 2);
    assert_int_equal(r.ended, 0);
    fake_run_for(&k.f, 2 * BNS_SEC);
    assert_int_equal(r.status, BNS_GRPC_UNAVAILABLE);
    assert_string_equal(r.text, "etcdserver: server stopped");
    assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 1);
    assert_true(done);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: a lost server is 14 for open calls; the next call dials again. */
static void client_dials_again(void **state)
{
    struct kit k;
    struct rec r;
    uint16_t port;

    (void)state;
    kit_open(&k, NULL);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Hang", BNS_LIT("x"), &r), BNS_OK);
    fake_run_for(&k.f, TICK);
    bns_grpc_server_free(k.server);
    fake_run_for(&k.f, TICK);
    assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 1);
    assert_int_equal(r.status, BNS_GRPC_UNAVAILABLE);
    kit_finish_held(&k, BNS_GRPC_OK);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &r), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r.status, BNS_GRPC_UNAVAILABLE);
    assert_non_null(strstr(r.text, "cannot connect to 127.0.0.1:"));
    k.server = NULL;
    assert_int_equal(bns_grpc_server_new(&k.f.env, NULL, &k.server), BNS_OK);
    assert_int_equal(bns_grpc_server_methods(k.server, kit_table, KIT_METHODS), BNS_OK);
    assert_int_equal(bns_grpc_server_methods(k.server, kit_table, 1), BNS_E_EXISTS);
    assert_int_equal(bns_grpc_server_listen(k.server, "127.0.0.1", k.port, &port, NULL), BNS_OK);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Unary", BNS_LIT("x"), &r), BNS_OK);
    fake_run_for(&k.f, TICK);
    assert_int_equal(r.status, 0);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: freeing either side with calls open ends them, once, and leaks nothing. */
static void freeing_ends_open_calls(void **state)
{
    struct kit k;
    struct rec r, bd;

    (void)state;
    kit_open(&k, NULL);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Hang", BNS_LIT("x"), &r), BNS_OK);
    (void)kit_call(&k, "/bns.Echo/Bidi", &bd);
    fake_run_for(&k.f, TICK);
    bns_grpc_client_free(k.client);
    assert_int_equal(r.ended + bd.ended, 2);
    assert_int_equal(r.status, BNS_GRPC_CANCELLED);
    k.client = NULL;
    fake_run_for(&k.f, TICK);
    assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 2);
    assert_int_equal(kit_close(&k, NULL), 0);
}

/* Goal: a client that has silently gone is noticed by keepalive. */
static void keepalive_finds_a_dead_client(void **state)
{
    struct bns_grpc_config cfg = {.keepalive_ns = 60 * BNS_SEC,
                                  .keepalive_timeout_ns = 20 * BNS_SEC};
    struct kit k;
    struct rec r;

    (void)state;
    kit_open(&k, &cfg);
    assert_int_equal(kit_unary(&k, "/bns.Echo/Hang", BNS_LIT("x"), &r), BNS_OK);
    fake_run_for(&k.f, 600 * BNS_SEC); /* answered PINGs keep it */
    assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 0);
    k.f.blackhole = true;
    fake_run_for(&k.f, 100 * BNS_SEC);
    assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 1);
    k.f.blackhole = false;
    assert_int_equal(kit_close(&k, NULL), 0);
}

static void eat_and_finish(struct bns_grpc_call *c, struct bns_slice msg)
{
    size_t n = 64u * 1024 * 1024;

    (void)msg;
    while (n >= 16)
        n = bns_arena_alloc(bns_grpc_arena(c), n) == NULL ? n / 2 : n;
    kit_finish(c, BNS_GRPC_INTERNAL, "no room for this text");
}

/* Goal: a call that used up its memory is reset; the message behind it is not delivered. */
static void an_answer_without_memory_is_a_reset(void **state)
{
    struct bns_grpc_call_options o = {.path = "/bns.Echo/Bidi"};
    struct bns_grpc_ccall *c = NULL;
    struct rec r = {.ended = 0};
    struct kit k;

    (void)state;
    kit_open(&k, NULL);
    for (size_t i = 0; i < KIT_METHODS; i++) {
        if (strcmp(kit_table[i].path, o.path) == 0)
            kit_table[i].handler.on_message = eat_and_finish;
    }
    assert_int_equal(bns_grpc_call_start(k.client, &o, &rec_handler, &r, &c), BNS_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(bns_grpc_ccall_send_copy(c, BNS_LIT("x")), BNS_OK);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(r.ended, 1);
    assert_int_not_equal(r.status, BNS_GRPC_OK);
    assert_int_equal(kit_close(&k, NULL), 0);
}

static int sweep_run(int fail_at, bool *fired)
{
    struct bns_grpc_call_options o = {.path = "/bns.Echo/Unary"};
    struct bns_grpc_ccall *c = NULL;
    struct rec u = {.ended = 0}, bd = {.ended = 0};
    bool u_on = false, bd_on = false;
    struct kit k;

    if (kit_try(&k, NULL, fail_at) == BNS_OK) {
        u_on = bns_grpc_unary(k.client, &o, BNS_LIT("x"), &rec_handler, &u) == BNS_OK;
        o.path = "/bns.Echo/Bidi";
        bd_on = bns_grpc_call_start(k.client, &o, &rec_handler, &bd, &c) == BNS_OK;
        if (bd_on && bns_grpc_ccall_send_copy(c, bns_slice(k.block, sizeof k.block)) == BNS_OK)
            bns_grpc_ccall_half_close(c);
        else if (bd_on)
            bns_grpc_ccall_cancel(c);
        fake_run_for(&k.f, 30 * BNS_SEC);
        assert_int_equal(u.ended, u_on);
        assert_int_equal(bd.ended, bd_on);
    }
    assert_int_equal(kit_close(&k, fired), 0);
    return u_on && bd_on ? u.status * 100 + bd.status : -1;
}

/* Goal: whichever allocation fails, every call ends once and nothing leaks. */
static void every_allocation_may_fail(void **state)
{
    bool fired = true;
    int n, rv = -1;

    (void)state;
    for (n = 1; fired; n++)
        rv = sweep_run(n, &fired);
    print_message("  %d allocations\n", n - 2);
    assert_int_equal(rv, BNS_GRPC_ABORTED);
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_four_kinds_at_every_cut),
        cmocka_unit_test(binary_metadata_and_texts_survive),
        cmocka_unit_test(refusals),
        cmocka_unit_test(cardinality_is_kept),
        cmocka_unit_test(deadline_ends_the_call_on_both_sides),
        cmocka_unit_test(cancel_reaches_the_handler),
        cmocka_unit_test(server_may_finish_before_the_client_half_closes),
        cmocka_unit_test(slow_reader_is_bounded),
        cmocka_unit_test(slow_handler_stops_the_client),
        cmocka_unit_test(borrowed_slices_are_released_after_a_reset),
        cmocka_unit_test(a_large_answer_does_not_starve_a_small_one),
        cmocka_unit_test(over_budget_new_calls_wait),
        cmocka_unit_test(stream_limit_of_a_method),
        cmocka_unit_test(held_calls_do_not_shut_out_others),
        cmocka_unit_test(drain_waits_for_open_calls),
        cmocka_unit_test(drain_ends_calls_at_its_time_limit),
        cmocka_unit_test(client_dials_again),
        cmocka_unit_test(freeing_ends_open_calls),
        cmocka_unit_test(keepalive_finds_a_dead_client),
        cmocka_unit_test(an_answer_without_memory_is_a_reset),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
