/* test_world_net.c - the simulator's byte streams keep the contract of base/env.h.
 *
 * Method: small programs on a calm world, one claim each; faults are struck by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "sim/world.h"

/* ---- a world of idle nodes ------------------------------------------------------------------- */

static int idle(struct bns_env *env, unsigned id, void *arg)
{
    (void)env;
    (void)id;
    (void)arg;
    return BNS_OK;
}

static const struct bns_node_main idle_main = {.start = idle};

static void run_ms(struct bns_world *w, uint64_t ms)
{
    assert_null(bns_world_run(w, bns_world_now(w) + ms * BNS_MS, NULL, NULL));
}

static struct bns_world *world(unsigned nodes)
{
    struct bns_world_config cfg = bns_world_calm(nodes);
    struct bns_world *w;

    assert_int_equal(bns_world_new(1, &cfg, &w), BNS_OK);
    for (unsigned i = 0; i < nodes; i++)
        bns_world_start(w, i, &idle_main);
    run_ms(w, 1);
    return w;
}

/* ---- streams --------------------------------------------------------------------------------- */

struct talk { /* one end, in test memory so that it can be looked at after death */
    struct bns_stream *s;
    struct bns_listener *l;
    char name;
    bool echo, keep_half_open;
    bool open, eof, closed;
    int code, dial_rv;
    uint64_t got, released, released_bad;
    unsigned writable;
    const char *host;
    uint16_t port;
};

static void talk_open(void *arg)
{
    ((struct talk *)arg)->open = true;
}

static void talk_data(void *arg, struct bns_slice data)
{
    struct talk *t = arg;

    assert_false(t->closed);
    t->got += data.len;
    if (t->echo) {
        static uint8_t zeros[1024 * 1024];
        struct bns_slice s = bns_slice(zeros, data.len);
        assert_int_equal(bns_stream_write(t->s, &s, 1, NULL, NULL), BNS_OK);
    }
}

static void talk_eof(void *arg)
{
    struct talk *t = arg;

    t->eof = true;
    if (!t->keep_half_open)
        bns_stream_close(t->s);
}

static void talk_writable(void *arg)
{
    ((struct talk *)arg)->writable++;
}

static void talk_close(void *arg, int code)
{
    struct talk *t = arg;

    assert_false(t->closed);
    t->closed = true;
    t->code = code;
    t->s = NULL;
}

static void talk_release(void *arg, int code)
{
    struct talk *t = arg;

    assert_false(t->closed); /* at the latest before on_close */
    if (code == BNS_OK)
        t->released++;
    else
        t->released_bad++;
}

static const struct bns_stream_events talk_events = {.on_open = talk_open,
                                                     .on_data = talk_data,
                                                     .on_eof = talk_eof,
                                                     .on_writable = talk_writable,
                                                     .on_close = talk_close};

static void talk_accept(void *arg, struct bns_stream *s)
{
    struct talk *t = arg;

    t->s = s;
    t->open = true;
    bns_stream_set_events(s, &talk_events, t);
}

static void serve(struct bns_env *env, void *arg)
{
    struct talk *t = arg;

    assert_int_equal(bns_net_listen(env, "0.0.0.0", t->port, talk_accept, t, &t->l, NULL), BNS_OK);
    t->port = bns_listener_port(env, t->l);
}

static void dial(struct bns_env *env, void *arg)
{
    struct talk *t = arg;

    t->dial_rv = bns_net_connect(env, t->host, t->port, &talk_events, t, &t->s, NULL);
}

static void send_kib(struct bns_env *env, void *arg)
{
    static uint8_t bytes[1024];
    struct talk *t = arg;
    struct bns_slice v[2] = {bns_slice(bytes, 1000), bns_slice(bytes, 24)};

    (void)env;
    for (int i = 0; i < 1024; i++)
        assert_int_equal(bns_stream_write(t->s, v, 2, talk_release, t), BNS_OK);
}

static void hang_up(struct bns_env *env, void *arg)
{
    struct talk *t = arg;
    struct bns_slice s = BNS_LIT("late");

    (void)env;
    bns_stream_close(t->s);
    bns_stream_close(t->s);
    assert_int_equal(bns_stream_write(t->s, &s, 1, talk_release, t), BNS_E_OFF);
}

static void cut_off(struct bns_env *env, void *arg)
{
    (void)env;
    bns_stream_reset(((struct talk *)arg)->s);
}

static void stop_reading(struct bns_env *env, void *arg)
{
    (void)env;
    bns_stream_read(((struct talk *)arg)->s, false);
}

static void go_on_reading(struct bns_env *env, void *arg)
{
    (void)env;
    bns_stream_read(((struct talk *)arg)->s, true);
}

struct pair {
    struct bns_world *w;
    struct talk a, b;
};

/* Node 1 dials node 0; both are connected. */
static void pair_up(struct pair *p)
{
    *p = (struct pair){.w = world(2), .a = {.name = 'a'}, .b = {.name = 'b', .host = "10.0.0.1"}};
    assert_true(bns_world_call(p->w, 0, serve, &p->a));
    p->b.port = p->a.port;
    assert_true(bns_world_call(p->w, 1, dial, &p->b));
    assert_int_equal(p->b.dial_rv, BNS_OK);
    run_ms(p->w, 10);
    assert_true(p->a.open);
    assert_true(p->b.open);
}

static void a_close_delivers_all_bytes_first(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    assert_true(bns_world_call(p.w, 1, hang_up, &p.b));
    assert_false(p.b.closed);
    run_ms(p.w, 1000);
    assert_int_equal(p.a.got, 1024 * 1024);
    assert_true(p.a.eof);
    assert_int_equal(p.b.released, 1024);
    assert_true(p.a.closed);
    assert_int_equal(p.a.code, BNS_OK);
    assert_int_equal(p.b.code, BNS_OK);
    assert_int_equal(bns_world_links(p.w), 0);
    bns_world_free(p.w);
}

static void an_echo_after_half_close_arrives(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    p.a.echo = true;
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 1000);
    assert_int_equal(p.b.got, 1024 * 1024);
    assert_true(bns_world_call(p.w, 0, hang_up, &p.a));
    p.b.keep_half_open = true;
    run_ms(p.w, 10);
    assert_true(p.a.closed);
    assert_true(p.b.eof);
    assert_false(p.b.closed);
    /* Within the lingering second bytes are thrown away; after it they bring a reset. */
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 500);
    assert_false(p.b.closed);
    run_ms(p.w, 1000);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 500);
    assert_true(p.b.closed);
    assert_int_equal(p.b.code, BNS_E_DROPPED);
    bns_world_free(p.w);
}

static void a_reader_that_stops_fills_the_writer_only(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    assert_true(bns_world_call(p.w, 0, stop_reading, &p.a));
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 1000);
    assert_int_equal(p.a.got, 0);
    assert_int_equal(bns_stream_queued(p.b.s), 768 * 1024);
    assert_int_equal(p.b.writable, 0);
    assert_true(bns_world_call(p.w, 0, go_on_reading, &p.a));
    run_ms(p.w, 1000);
    assert_int_equal(p.a.got, 1024 * 1024);
    assert_int_equal(p.b.writable, 1);
    assert_int_equal(bns_stream_queued(p.b.s), 0);
    bns_world_free(p.w);
}

static void a_reset_drops_the_queue_and_tells_both(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    assert_true(bns_world_call(p.w, 1, cut_off, &p.b));
    run_ms(p.w, 100);
    assert_int_equal(p.b.code, BNS_OK);
    assert_int_equal(p.b.released_bad, 1024);
    assert_int_equal(p.a.code, BNS_E_DROPPED);
    assert_int_equal(bns_world_links(p.w), 0);
    bns_world_free(p.w);
}

static void dials_that_fail_say_why(void **state)
{
    static const struct {
        const char *name, *host;
        bool cut, block;
        int rv, code;
    } t[] = {
        {"nobody listens", "10.0.0.1", false, false, BNS_OK, BNS_E_DROPPED},
        {"myself, nobody listens", "localhost", false, false, BNS_OK, BNS_E_DROPPED},
        {"no power", "10.0.0.1", true, false, BNS_OK, BNS_E_TIMEOUT},
        {"blocked", "10.0.0.1", false, true, BNS_OK, BNS_E_TIMEOUT},
        {"no such machine", "10.0.0.77", false, false, BNS_OK, BNS_E_TIMEOUT},
        {"a name without an address", "example", false, false, BNS_OK, BNS_E_NOTFOUND},
        {"no name", "exam ple", false, false, BNS_E_INVALID, 0},
        {"no address", "10.0.0.256", false, false, BNS_E_INVALID, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_world *w = world(2);
        struct talk b = {.host = t[i].host, .port = 99};
        print_message("  %s\n", t[i].name);
        if (t[i].cut)
            bns_world_power_cut(w, 0);
        bns_world_block(w, 1, 0, t[i].block);
        assert_true(bns_world_call(w, 1, dial, &b));
        assert_int_equal(b.dial_rv, t[i].rv);
        run_ms(w, 11000);
        assert_int_equal(b.closed, t[i].rv == BNS_OK);
        assert_int_equal(b.code, t[i].code);
        assert_false(b.open);
        bns_world_free(w);
    }
}

static void a_name_means_whoever_has_it_when_it_is_dialled(void **state)
{
    struct bns_world *w = world(3);
    struct talk a = {.name = 'a', .port = 99}, b = {.name = 'b', .port = 99};

    (void)state;
    assert_true(bns_world_call(w, 0, serve, &a));
    assert_true(bns_world_call(w, 1, serve, &b));
    for (unsigned i = 0; i < 3; i++) {
        struct talk c = {.host = "db.test", .port = 99};

        bns_world_name(w, "other.test", 2);
        bns_world_name(w, "db.test", i < 2 ? i : BNS_WORLD_NODES_MAX);
        assert_true(bns_world_call(w, 2, dial, &c));
        assert_int_equal(c.dial_rv, BNS_OK);
        run_ms(w, 100);
        assert_int_equal(c.open, i < 2);
        assert_int_equal(c.closed, i == 2);
        assert_int_equal(c.code, i < 2 ? BNS_OK : BNS_E_NOTFOUND);
        assert_int_equal(a.open, true);
        assert_int_equal(b.open, i > 0);
        bns_world_kill(w, 2); /* its streams end with this round */
        run_ms(w, 10);
        bns_world_restart(w, 2);
        run_ms(w, 10);
    }
    bns_world_free(w);
}

static void a_killed_peer_resets_a_dark_one_leaves_us_half_open(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    bns_world_kill(p.w, 0);
    run_ms(p.w, 100);
    assert_int_equal(p.b.code, BNS_E_DROPPED);
    bns_world_free(p.w);

    pair_up(&p);
    bns_world_power_cut(p.w, 0);
    run_ms(p.w, 60000);
    assert_false(p.b.closed); /* silence */
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 30000);
    assert_int_equal(p.b.code, BNS_E_TIMEOUT);
    bns_world_free(p.w);

    pair_up(&p);
    bns_world_power_cut(p.w, 0);
    bns_world_restart(p.w, 0);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 1000);
    assert_int_equal(p.b.code, BNS_E_DROPPED); /* the rebooted machine knows nothing of us */
    bns_world_free(p.w);
}

static void a_short_partition_delays_a_long_one_ends(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    bns_world_partition(p.w, 1);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 5000);
    assert_int_equal(p.a.got, 0);
    bns_world_connect_all(p.w);
    run_ms(p.w, 5000);
    assert_int_equal(p.a.got, 1024 * 1024);
    bns_world_partition(p.w, 1);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 30000);
    assert_int_equal(p.b.code, BNS_E_TIMEOUT);
    assert_false(p.a.closed); /* it was not told */
    bns_world_free(p.w);
}

static void ports_are_taken_once(struct bns_env *env, void *arg)
{
    struct bns_listener *a;
    struct bns_listener *b;
    struct bns_listener *c;

    (void)arg;
    assert_int_equal(bns_net_listen(env, "0.0.0.0", 80, talk_accept, NULL, &a, NULL), BNS_OK);
    assert_int_equal(bns_net_listen(env, "10.0.0.1", 80, talk_accept, NULL, &b, NULL),
                     BNS_E_ADDRINUSE);
    assert_int_equal(bns_net_listen(env, "10.0.0.2", 81, talk_accept, NULL, &b, NULL),
                     BNS_E_INVALID);
    assert_int_equal(bns_net_listen(env, "127.0.0.1", 0, talk_accept, NULL, &b, NULL), BNS_OK);
    assert_int_equal(bns_net_listen(env, "0.0.0.0", 0, talk_accept, NULL, &c, NULL), BNS_OK);
    assert_int_not_equal(bns_listener_port(env, b), bns_listener_port(env, c));
    bns_listener_close(env, a);
    assert_int_equal(bns_net_listen(env, "0.0.0.0", 80, talk_accept, NULL, &a, NULL), BNS_OK);
    bns_listener_close(env, a);
    bns_listener_close(env, b);
    bns_listener_close(env, c);
    bns_listener_close(env, NULL);
}

static void listeners_have_ports(void **state)
{
    struct bns_world *w = world(2);

    (void)state;
    assert_true(bns_world_call(w, 0, ports_are_taken_once, NULL));
    assert_int_equal(bns_test_heap_in_use(bns_world_heap(w, 0)), 0);
    bns_world_free(w);
}

static void a_failed_allocation_refuses_and_leaks_nothing(void **state)
{
    bool refused = false;
    bool through = false;

    (void)state;
    for (int fail_at = 1; !through; fail_at++) {
        struct pair p = {.w = world(2), .b = {.host = "10.0.0.1"}};
        bns_test_heap_fail_at(bns_world_heap(p.w, 1), fail_at);
        assert_true(bns_world_call(p.w, 0, serve, &p.a));
        bns_test_heap_fail_at(bns_world_heap(p.w, 0), fail_at);
        p.b.port = p.a.port;
        assert_true(bns_world_call(p.w, 1, dial, &p.b));
        run_ms(p.w, 100);
        refused |= p.b.dial_rv == BNS_E_NOMEM || p.b.code == BNS_E_DROPPED;
        through = p.b.open && fail_at > 3;
        bns_world_kill(p.w, 0);
        run_ms(p.w, 100);
        assert_int_equal(bns_test_heap_in_use(bns_world_heap(p.w, 1)), 0);
        assert_int_equal(bns_world_links(p.w), 0);
        bns_world_free(p.w);
    }
    assert_true(refused);
}

static void a_paused_node_misses_nothing(void **state)
{
    struct pair p;

    (void)state;
    pair_up(&p);
    bns_world_pause(p.w, 0, 3 * BNS_SEC);
    assert_true(bns_world_call(p.w, 1, send_kib, &p.b));
    run_ms(p.w, 2900);
    assert_int_equal(p.a.got, 0);
    assert_false(bns_world_call(p.w, 0, hang_up, &p.a));
    run_ms(p.w, 200);
    assert_int_equal(p.a.got, 1024 * 1024);
    bns_world_free(p.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_close_delivers_all_bytes_first),
        cmocka_unit_test(an_echo_after_half_close_arrives),
        cmocka_unit_test(a_reader_that_stops_fills_the_writer_only),
        cmocka_unit_test(a_reset_drops_the_queue_and_tells_both),
        cmocka_unit_test(dials_that_fail_say_why),
        cmocka_unit_test(a_name_means_whoever_has_it_when_it_is_dialled),
        cmocka_unit_test(a_killed_peer_resets_a_dark_one_leaves_us_half_open),
        cmocka_unit_test(a_short_partition_delays_a_long_one_ends),
        cmocka_unit_test(listeners_have_ports),
        cmocka_unit_test(a_failed_allocation_refuses_and_leaks_nothing),
        cmocka_unit_test(a_paused_node_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
