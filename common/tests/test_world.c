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

/* ---- a world of idle nodes ------------------------------------------------------------------- */

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

/* ---- timers, tasks, workers ------------------------------------------------------------------ */

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

/* ---- death ----------------------------------------------------------------------------------- */

static const struct bns_stream_events no_events;

static void give_up(struct bns_env *env, void *arg)
{
    struct bns_file *f;
    struct bns_stream *s;

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
    assert_int_equal(bns_net_connect(env, "10.0.0.1", 1, &no_events, NULL, &s, NULL), BNS_E_OFF);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_of_deadline_then_start),
        cmocka_unit_test(a_stopped_timer_may_be_freed),
        cmocka_unit_test(a_fast_clock_rings_more_often_and_a_jump_moves_wall_time_only),
        cmocka_unit_test(tasks_run_later_in_post_order),
        cmocka_unit_test(a_batch_is_all_that_queued_and_completes_in_order),
        cmocka_unit_test(pool_jobs_all_run_and_complete),
        cmocka_unit_test(fatal_ends_the_node_and_only_it),
        cmocka_unit_test(a_node_that_cannot_start_exits_and_tries_again),
        cmocka_unit_test(power_goes_in_the_middle_of_a_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
