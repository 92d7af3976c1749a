/* test_world.c - the env of a simulated node keeps the contract of base/env.h, and dies as it says.
 *
 * Method: small programs on a calm world, one claim each; faults are struck by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "sim/world.h"

/* ---- a world of idle nodes ------------------------------------------------------------------------- */

static char diary[4096]; /* what happened, in order */

static void say(const char *fmt, ...) BNS_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    size_t len = strlen(diary);
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(diary + len, sizeof diary - len, fmt, ap); /* cut is fine */
    va_end(ap);
}

static int idle(struct bns_env *env, unsigned id, void *arg)
{
    (void)env;
    (void)id;
    (void)arg;
    return BNS_OK;
}

static void died(unsigned id, int code, const char *text, void *arg)
{
    (void)arg;
    say("died %u code %d %s;", id, code, text);
}

static const struct bns_node_main idle_main = {.start = idle, .died = died};

static void run_ms(struct bns_world *w, uint64_t ms)
{
    assert_null(bns_world_run(w, bns_world_now(w) + ms * BNS_MS, NULL, NULL));
}

static struct bns_world *world(unsigned nodes)
{
    struct bns_world_config cfg = bns_world_calm(nodes);
    struct bns_world *w;

    diary[0] = '\0';
    assert_int_equal(bns_world_new(1, &cfg, &w), BNS_OK);
    for (unsigned i = 0; i < nodes; i++)
        bns_world_start(w, i, &idle_main);
    run_ms(w, 1);
    return w;
}

/* ---- timers, tasks, workers ------------------------------------------------------------------------ */

struct alarm {
    struct bns_timer timer;
    struct bns_env *env;
    char name;
    uint64_t again_ns;
    unsigned fired;
};

static void ring(void *arg)
{
    struct alarm *a = arg;

    a->fired++;
    say("%c", a->name);
    if (a->again_ns > 0)
        bns_timer_start(a->env, &a->timer, bns_now_ns(a->env) + a->again_ns);
}

static struct alarm *alarm_new(struct bns_env *env, char name)
{
    struct alarm *a = bns_alloc_zero(env->alloc, sizeof *a);

    assert_non_null(a);
    a->env = env;
    a->name = name;
    bns_timer_init(&a->timer, ring, a);
    return a;
}

static void set_alarms(struct bns_env *env, void *arg)
{
    uint64_t now = bns_now_ns(env);
    struct alarm *a = alarm_new(env, 'a');
    struct alarm *b = alarm_new(env, 'b');
    struct alarm *c = alarm_new(env, 'c');
    struct alarm *d = alarm_new(env, 'd');

    (void)arg;
    bns_timer_start(env, &a->timer, now + 3 * BNS_MS);
    bns_timer_start(env, &b->timer, now + 2 * BNS_MS);
    bns_timer_start(env, &c->timer, now + 2 * BNS_MS); /* as b, later */
    bns_timer_start(env, &a->timer, now + 1 * BNS_MS); /* moved */
    bns_timer_start(env, &d->timer, now);              /* due, but never inside this call */
    say("-");
    bns_timer_start(env, &b->timer, now + 2 * BNS_MS); /* again: behind c now */
    d->again_ns = 0;
}

static void timers_fire_in_order_of_deadline_then_start(void **state)
{
    struct bns_world *w = world(1);

    (void)state;
    assert_true(bns_world_call(w, 0, set_alarms, NULL));
    run_ms(w, 10);
    assert_string_equal(diary, "-dacb");
    bns_world_free(w);
}

static void set_and_stop(struct bns_env *env, void *arg)
{
    struct alarm *a = alarm_new(env, 'a');

    (void)arg;
    bns_timer_stop(env, &a->timer); /* idle: no-op */
    bns_timer_start(env, &a->timer, bns_now_ns(env) + BNS_MS);
    bns_timer_stop(env, &a->timer);
    bns_free(env->alloc, a);
}

static void a_stopped_timer_may_be_freed(void **state)
{
    struct bns_world *w = world(1);

    (void)state;
    assert_true(bns_world_call(w, 0, set_and_stop, NULL));
    run_ms(w, 10);
    assert_string_equal(diary, "");
    assert_int_equal(bns_test_heap_in_use(bns_world_heap(w, 0)), 0);
    bns_world_free(w);
}

static void set_clock_alarm(struct bns_env *env, void *arg)
{
    struct alarm *a = alarm_new(env, 't');

    *(struct alarm **)arg = a;
    a->again_ns = 10 * BNS_MS;
    bns_timer_start(env, &a->timer, bns_now_ns(env) + a->again_ns);
}

static void a_fast_clock_rings_more_often_and_a_jump_moves_wall_time_only(void **state)
{
    struct bns_world *w = world(1);
    struct alarm *a;
    uint64_t before;
    int64_t wall;

    (void)state;
    assert_true(bns_world_call(w, 0, set_clock_alarm, &a));
    bns_world_drift(w, 0, 100000);
    run_ms(w, 1000);
    assert_true(a->fired >= 109);
    assert_true(a->fired <= 110);
    before = bns_now_ns(bns_world_env(w, 0));
    wall = bns_wall_ms(bns_world_env(w, 0));
    bns_world_jump(w, 0, -5000);
    assert_true(bns_now_ns(bns_world_env(w, 0)) == before);
    assert_int_equal(bns_wall_ms(bns_world_env(w, 0)), wall - 5000);
    bns_world_free(w);
}

struct chore {
    struct bns_task task;
    struct bns_job job;
    struct bns_env *env;
    struct bns_worker *worker;
    char name;
};

static void run_task(struct bns_task *t)
{
    say("%c", BNS_CONTAINER(t, struct chore, task)->name);
}

static void run_job(struct bns_job *j)
{
    say("(%c)", BNS_CONTAINER(j, struct chore, job)->name);
}

static void job_done(struct bns_job *j)
{
    say("%c", BNS_CONTAINER(j, struct chore, job)->name);
}

static struct chore *chore_new(struct bns_env *env, char name)
{
    struct chore *c = bns_alloc_zero(env->alloc, sizeof *c);

    assert_non_null(c);
    *c = (struct chore){.task.fn = run_task, .job = {.run = run_job, .done = job_done}, .env = env};
    c->name = name;
    return c;
}

static void post_three(struct bns_env *env, void *arg)
{
    (void)arg;
    for (char c = 'a'; c < 'd'; c++)
        bns_post(env, &chore_new(env, c)->task);
    say("-");
}

static void tasks_run_later_in_post_order(void **state)
{
    struct bns_world *w = world(1);

    (void)state;
    assert_true(bns_world_call(w, 0, post_three, NULL));
    run_ms(w, 1);
    assert_string_equal(diary, "-abc");
    bns_world_free(w);
}

static void batch(void *arg, struct bns_list *jobs)
{
    (void)arg;
    say("[");
    BNS_LIST_EACH(n, jobs)
    say("%c", BNS_CONTAINER(n, struct chore, job.node)->name);
    say("]");
}

static void submit_more(struct bns_task *t)
{
    struct chore *c = BNS_CONTAINER(t, struct chore, task);

    for (char name = 'x'; name <= 'z'; name++)
        bns_worker_submit(c->env, c->worker, &chore_new(c->env, name)->job);
}

static void work(struct bns_env *env, void *arg)
{
    struct bns_worker **wk = arg;

    assert_int_equal(bns_worker_new(env, "w", batch, NULL, wk), BNS_OK);
    bns_worker_submit(env, *wk, &chore_new(env, 'a')->job);
    bns_worker_submit(env, *wk, &chore_new(env, 'b')->job);
}

static void work_more(struct bns_env *env, void *arg)
{
    struct chore *c = chore_new(env, '?');

    c->worker = *(struct bns_worker **)arg;
    c->task.fn = submit_more;
    bns_post(env, &c->task);
}

static void work_end(struct bns_env *env, void *arg)
{
    bns_worker_free(env, *(struct bns_worker **)arg);
}

static void a_batch_is_all_that_queued_and_completes_in_order(void **state)
{
    struct bns_world *w = world(1);
    struct bns_worker *wk = NULL;

    (void)state;
    assert_true(bns_world_call(w, 0, work, &wk));
    assert_string_equal(diary, "");
    run_ms(w, 1);
    assert_true(bns_world_call(w, 0, work_more, &wk));
    run_ms(w, 5);
    assert_string_equal(diary, "[ab]ab[xyz]xyz");
    assert_true(bns_world_call(w, 0, work_end, &wk));
    bns_world_free(w);
}

static void pool_work(struct bns_env *env, void *arg)
{
    (void)arg;
    for (char c = 'a'; c < 'g'; c++)
        bns_pool_submit(env, &chore_new(env, c)->job);
}

static void pool_jobs_all_run_and_complete(void **state)
{
    struct bns_world *w = world(1);

    (void)state;
    assert_true(bns_world_call(w, 0, pool_work, NULL));
    run_ms(w, 5);
    assert_int_equal(strlen(diary), 6 * 4);
    bns_world_free(w);
}

/* ---- streams --------------------------------------------------------------------------------------- */

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
        {"not numeric", "example", false, false, BNS_E_INVALID, 0},
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

/* ---- death ----------------------------------------------------------------------------------------- */

static void give_up(struct bns_env *env, void *arg)
{
    struct bns_file *f;
    struct talk t = {.host = "10.0.0.1", .port = 1};

    (void)arg;
    assert_non_null(bns_alloc(env->alloc, 100));
    (void)alarm_new(env, 'x');
    bns_fatal(env, 6, "disk is unsafe");
    bns_fatal(env, 7, "again"); /* the first one counts */
    /* What unwinding code may still call does nothing. */
    assert_int_equal(bns_vfs_open(env->vfs, "f", BNS_OPEN_CREATE, &f, NULL), BNS_E_OFF);
    bns_timer_start(env, &alarm_new(env, 'y')->timer, bns_now_ns(env));
    bns_post(env, &chore_new(env, 'z')->task);
    bns_pool_submit(env, &chore_new(env, 'q')->job);
    assert_int_equal(bns_net_connect(env, t.host, t.port, &talk_events, &t, &t.s, NULL), BNS_E_OFF);
}

static void fatal_ends_the_node_and_only_it(void **state)
{
    struct bns_world *w = world(2);

    (void)state;
    assert_true(bns_world_call(w, 0, give_up, NULL));
    assert_int_equal(bns_world_state(w, 0), BNS_NODE_DEAD);
    assert_int_equal(bns_world_exit_code(w, 0), 6);
    assert_int_equal(bns_world_state(w, 1), BNS_NODE_UP);
    assert_int_equal(bns_test_heap_in_use(bns_world_heap(w, 0)), 0);
    run_ms(w, 100);
    assert_string_equal(diary, "died 0 code 6 disk is unsafe;");
    assert_false(bns_world_call(w, 0, give_up, NULL));
    bns_world_restart(w, 0);
    assert_int_equal(bns_world_state(w, 0), BNS_NODE_UP);
    bns_world_free(w);
}

static int fail_start(struct bns_env *env, unsigned id, void *arg)
{
    (void)env;
    (void)id;
    return ++*(int *)arg < 3 ? BNS_E_CORRUPT : BNS_OK;
}

static void a_node_that_cannot_start_exits_and_tries_again(void **state)
{
    struct bns_world_config cfg = bns_world_calm(1);
    int tries = 0;
    struct bns_node_main main = {
        .start = fail_start, .died = died, .arg = &tries, .restart_ns = BNS_SEC};
    struct bns_world *w;

    (void)state;
    diary[0] = '\0';
    assert_int_equal(bns_world_new(1, &cfg, &w), BNS_OK);
    bns_world_start(w, 0, &main);
    run_ms(w, 5000);
    assert_int_equal(tries, 3);
    assert_string_equal(diary, "died 0 code 1 CORRUPT;died 0 code 1 CORRUPT;");
    bns_world_free(w);
}

static void write_two(void *arg, struct bns_list *jobs)
{
    struct bns_env *env = arg;
    struct bns_slice s = BNS_LIT("x");
    struct bns_file *f = NULL;
    int rv = bns_vfs_open(env->vfs, "f", BNS_OPEN_CREATE, &f, NULL);

    (void)jobs;
    for (uint64_t i = 0; i < 100 && rv == BNS_OK; i++)
        rv = bns_file_write_at(f, i, &s, 1, NULL);
    say("rv %d;", rv);
    bns_file_close(f);
}

static void work_on_disk(struct bns_env *env, void *arg)
{
    struct bns_worker *wk;

    (void)arg;
    assert_int_equal(bns_worker_new(env, "w", write_two, env, &wk), BNS_OK);
    bns_worker_submit(env, wk, &chore_new(env, 'a')->job);
}

static void power_goes_in_the_middle_of_a_job(void **state)
{
    struct bns_world *w = world(1);

    (void)state;
    bns_world_power_cut_soon(w, 0, BNS_SEC);
    assert_true(bns_world_call(w, 0, work_on_disk, NULL));
    run_ms(w, 2000);
    assert_string_equal(diary, "rv -21;died 0 code 0 ;"); /* no completion */
    assert_int_equal(bns_world_state(w, 0), BNS_NODE_OFF);
    bns_world_restart(w, 0);
    bns_world_power_cut_soon(w, 0, BNS_SEC); /* nothing to do: at the end of that second */
    run_ms(w, 999);
    assert_int_equal(bns_world_state(w, 0), BNS_NODE_UP);
    run_ms(w, 2);
    assert_int_equal(bns_world_state(w, 0), BNS_NODE_OFF);
    bns_world_free(w);
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
        cmocka_unit_test(timers_fire_in_order_of_deadline_then_start),
        cmocka_unit_test(a_stopped_timer_may_be_freed),
        cmocka_unit_test(a_fast_clock_rings_more_often_and_a_jump_moves_wall_time_only),
        cmocka_unit_test(tasks_run_later_in_post_order),
        cmocka_unit_test(a_batch_is_all_that_queued_and_completes_in_order),
        cmocka_unit_test(pool_jobs_all_run_and_complete),
        cmocka_unit_test(a_close_delivers_all_bytes_first),
        cmocka_unit_test(an_echo_after_half_close_arrives),
        cmocka_unit_test(a_reader_that_stops_fills_the_writer_only),
        cmocka_unit_test(a_reset_drops_the_queue_and_tells_both),
        cmocka_unit_test(dials_that_fail_say_why),
        cmocka_unit_test(a_killed_peer_resets_a_dark_one_leaves_us_half_open),
        cmocka_unit_test(a_short_partition_delays_a_long_one_ends),
        cmocka_unit_test(listeners_have_ports),
        cmocka_unit_test(a_failed_allocation_refuses_and_leaks_nothing),
        cmocka_unit_test(fatal_ends_the_node_and_only_it),
        cmocka_unit_test(a_node_that_cannot_start_exits_and_tries_again),
        cmocka_unit_test(power_goes_in_the_middle_of_a_job),
        cmocka_unit_test(a_paused_node_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
