/* ctest: labels=threads */
/* test_worker.c - batches that a worker of the production env holds back.
 *
 * Method: the handler waits on conditions that the loop's side sets, so that each order of events
 * is forced, not hoped for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "io/env_uv.h"
#include "sim/heap.h"

#define JOBS 3

struct rig;

struct work {
    struct bns_job job;
    struct rig *rig;
};

struct rig {
    struct bns_test_heap *heap;
    struct bns_env *env;
    struct bns_worker *w;
    struct work jobs[JOBS];
    bool release;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    size_t entered, queued, done; /* handler calls, submits, dones; under the lock */
    bool held[JOBS];              /* what the n-th call of the handler found */
    struct work *order[JOBS];
};

static void wait_for(struct rig *r, const size_t *what, size_t count)
{
    pthread_mutex_lock(&r->lock);
    while (*what < count)
        pthread_cond_wait(&r->cond, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static void count(struct rig *r, size_t *what)
{
    pthread_mutex_lock(&r->lock);
    ++*what;
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
}

/* The n-th call ends when the job behind it is queued, as if it had been a long sync. */
static void handle(void *arg, struct bns_list *jobs)
{
    struct rig *r = arg;
    size_t call = r->entered; /* changed here only */

    assert_false(bns_list_empty(jobs));
    r->held[call] = bns_worker_held(r->env, r->w);
    if (call > 0 && r->release) {
        bns_worker_release(r->env, r->w);
        assert_false(bns_worker_held(r->env, r->w));
        wait_for(r, &r->done, call); /* the one before is told now, not when we return */
    }
    count(r, &r->entered);
    if (call + 1 < JOBS)
        wait_for(r, &r->queued, call + 2);
}

static void job_done(struct bns_job *j)
{
    struct work *w = BNS_CONTAINER(j, struct work, job);
    struct rig *r = w->rig;

    r->order[r->done] = w;
    count(r, &r->done);
    if (r->done == JOBS)
        bns_env_uv_stop(r->env);
}

struct submit {
    struct bns_task task;
    struct work *work;
};

static void submit(struct bns_task *t)
{
    struct work *w = BNS_CONTAINER(t, struct submit, task)->work;

    bns_worker_submit(w->rig->env, w->rig->w, &w->job);
    count(w->rig, &w->rig->queued);
}

/* Has each job submitted when the one before it is in the handler's hands. */
static void *feed(void *arg)
{
    static struct submit submits[JOBS];
    struct rig *r = arg;

    for (size_t i = 0; i < JOBS; i++) {
        wait_for(r, &r->entered, i);
        submits[i] = (struct submit){.task.fn = submit, .work = &r->jobs[i]};
        bns_post(r->env, &submits[i].task);
    }
    return NULL;
}

static void run(struct rig *r, bool hold)
{
    struct bns_err err;
    pthread_t thread;

    r->heap = bns_test_heap(0);
    assert_non_null(r->heap);
    assert_int_equal(bns_env_uv_new(bns_test_heap_alloc(r->heap), NULL, &r->env, &err), BNS_OK);
    assert_int_equal(pthread_mutex_init(&r->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&r->cond, NULL), 0);
    assert_int_equal(bns_worker_new(r->env, "test", handle, r, &r->w), BNS_OK);
    if (hold)
        bns_worker_hold(r->env, r->w);
    for (size_t i = 0; i < JOBS; i++)
        r->jobs[i] = (struct work){.job.done = job_done, .rig = r};
    assert_int_equal(pthread_create(&thread, NULL, feed, r), 0);
    bns_env_uv_run(r->env);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < JOBS; i++)
        assert_ptr_equal(r->order[i], &r->jobs[i]);
    bns_worker_free(r->env, r->w);
    bns_env_uv_free(r->env);
    (void)pthread_cond_destroy(&r->cond);
    (void)pthread_mutex_destroy(&r->lock);
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

/* Nobody asked for it: each batch is told when the handler returns. */
static void nothing_is_held_unless_asked_for(void **state)
{
    struct rig r = {.release = true};
    (void)state;

    run(&r, false);
    for (size_t i = 0; i < JOBS; i++)
        assert_false(r.held[i]);
}

/* A batch whose successor is queued is told when the successor's handler says so, in order. */
static void a_held_batch_is_told_when_the_next_handler_releases_it(void **state)
{
    struct rig r = {.release = true};
    (void)state;

    run(&r, true);
    assert_false(r.held[0]);
    assert_true(r.held[1]);
    assert_true(r.held[2]);
}

/* A handler that does not say so: it is told when that handler has returned; the last batch, behind
 * which nothing is queued, at once. */
static void a_held_batch_is_told_at_the_latest_behind_the_next_one(void **state)
{
    struct rig r = {.release = false};
    (void)state;

    run(&r, true);
    assert_true(r.held[1]);
    assert_true(r.held[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_held_unless_asked_for),
        cmocka_unit_test(a_held_batch_is_told_when_the_next_handler_releases_it),
        cmocka_unit_test(a_held_batch_is_told_at_the_latest_behind_the_next_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
