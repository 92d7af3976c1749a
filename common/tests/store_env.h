/* store_env.h - a small env for the tests of the store: one thread, virtual time, run by hand.
 *
 * Jobs wait in queues until senv_pump() runs them: a worker's handler gets all that is queued, as
 * in production. When the VFS is off (power cut) or fatal was called, nothing more is delivered. */
#ifndef BNS_TESTS_STORE_ENV_H
#define BNS_TESTS_STORE_ENV_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "sim/heap.h"
#include "sim/vfs_mem.h"

struct senv;

struct bns_worker {
    struct senv *env;
    bns_worker_fn *fn;
    void *arg;
    struct bns_list jobs;
};

struct senv {
    struct bns_env env;
    struct bns_test_heap *heap;
    uint64_t now_ns;
    struct bns_heap timers;
    struct bns_worker *worker; /* the one this env knows */
    struct bns_list pool, tasks;
    bool dead, hold_pool;
    int fatal_code;
    char fatal_text[320];
};

static inline struct senv *senv_of(struct bns_env *e)
{
    return BNS_CONTAINER(e, struct senv, env);
}
static uint64_t senv_now(struct bns_env *e)
{
    return senv_of(e)->now_ns;
}
static int64_t senv_wall(struct bns_env *e)
{
    return (int64_t)(senv_of(e)->now_ns / BNS_MS) + INT64_C(1700000000000);
}
static int senv_entropy(struct bns_env *e, void *dst, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)dst)[i] = (uint8_t)bns_prng_next(&e->prng);
    return BNS_OK;
}
static void senv_timer_stop(struct bns_env *e, struct bns_timer *t)
{
    bns_heap_del(&senv_of(e)->timers, &t->node);
}
static void senv_timer_start(struct bns_env *e, struct bns_timer *t, uint64_t deadline_ns)
{
    senv_timer_stop(e, t);
    if (bns_heap_insert(&senv_of(e)->timers, &t->node, deadline_ns) != BNS_OK)
        abort();
}
static void senv_post(struct bns_env *e, struct bns_task *t)
{
    bns_list_push(&senv_of(e)->tasks, &t->node);
}
static int senv_worker_new(struct bns_env *e, const char *name, bns_worker_fn *fn, void *arg,
                           struct bns_worker **out)
{
    struct bns_worker *w = bns_alloc(e->alloc, sizeof *w);
    (void)name;
    if (w == NULL)
        return BNS_E_NOMEM;
    *w = (struct bns_worker){.env = senv_of(e), .fn = fn, .arg = arg};
    bns_list_init(&w->jobs);
    w->env->worker = w;
    *out = w;
    return BNS_OK;
}
static void senv_worker_submit(struct bns_worker *w, struct bns_job *j)
{
    bns_list_push(&w->jobs, &j->node);
}
static void senv_worker_free(struct bns_worker *w)
{
    if (w == NULL)
        return;
    assert_true(bns_list_empty(&w->jobs));
    w->env->worker = NULL;
    bns_free(w->env->env.alloc, w);
}
static void senv_pool_submit(struct bns_env *e, struct bns_job *j)
{
    bns_list_push(&senv_of(e)->pool, &j->node);
}
static void senv_fatal(struct bns_env *e, int exit_code, const char *text)
{
    struct senv *s = senv_of(e);
    s->fatal_code = exit_code;
    (void)snprintf(s->fatal_text, sizeof s->fatal_text, "%s", text);
}

static const struct bns_env_ops senv_ops = {
    .now_ns = senv_now,
    .wall_ms = senv_wall,
    .entropy = senv_entropy,
    .timer_start = senv_timer_start,
    .timer_stop = senv_timer_stop,
    .post = senv_post,
    .worker_new = senv_worker_new,
    .worker_submit = senv_worker_submit,
    .worker_free = senv_worker_free,
    .pool_submit = senv_pool_submit,
    .fatal = senv_fatal,
};

static inline void senv_init(struct senv *s, struct bns_vfs *vfs, uint64_t seed, int fail_at)
{
    memset(s, 0, sizeof *s);
    s->heap = bns_test_heap(fail_at);
    s->env.ops = &senv_ops;
    s->env.alloc = bns_test_heap_alloc(s->heap);
    s->env.vfs = vfs;
    s->env.sim = true;
    s->now_ns = BNS_SEC;
    bns_prng_seed(&s->env.prng, seed);
    bns_heap_init(&s->timers, bns_alloc_libc());
    bns_list_init(&s->pool);
    bns_list_init(&s->tasks);
}

/* Returns the bytes leaked; a dead node's memory is freed whole and does not count. */
static inline size_t senv_free(struct senv *s, bool *fired)
{
    bns_heap_free(&s->timers);
    if (s->dead)
        bns_test_heap_free_all(s->heap);
    return bns_test_heap_close(s->heap, fired);
}

static inline void senv_check(struct senv *s)
{
    if (bns_vfs_mem_is_off(s->env.vfs))
        s->dead = true;
}

static inline void senv_done(struct senv *s, struct bns_list *jobs)
{
    struct bns_list *n;
    senv_check(s);
    while (!s->dead && (n = bns_list_pop(jobs)) != NULL) {
        struct bns_job *j = BNS_CONTAINER(n, struct bns_job, node);
        j->done(j);
    }
}

/* One step: the worker's queue, one pool job, one task. False when there was nothing to do. */
static inline bool senv_step(struct senv *s)
{
    struct bns_list batch, *n;
    bool did = false;

    if (s->dead)
        return false;
    bns_list_init(&batch);
    if (s->worker != NULL && !bns_list_empty(&s->worker->jobs)) {
        bns_list_splice(&batch, &s->worker->jobs);
        s->worker->fn(s->worker->arg, &batch);
        senv_done(s, &batch);
        did = true;
    }
    if (!s->dead && !s->hold_pool && (n = bns_list_pop(&s->pool)) != NULL) {
        struct bns_job *j = BNS_CONTAINER(n, struct bns_job, node);
        bns_list_push(&batch, n);
        j->run(j);
        senv_done(s, &batch);
        did = true;
    }
    if (!s->dead && (n = bns_list_pop(&s->tasks)) != NULL) {
        struct bns_task *t = BNS_CONTAINER(n, struct bns_task, node);
        t->fn(t);
        did = true;
    }
    return did;
}

static inline void senv_pump(struct senv *s)
{
    while (senv_step(s))
        continue;
}

/* Fires what is due within ns, in order, pumping after each. */
static inline void senv_advance(struct senv *s, uint64_t ns)
{
    uint64_t end = s->now_ns + ns;
    struct bns_heap_node *h;

    senv_pump(s);
    while (!s->dead && (h = bns_heap_min(&s->timers)) != NULL && h->key <= end) {
        struct bns_timer *t = BNS_CONTAINER(h, struct bns_timer, node);
        if (h->key > s->now_ns)
            s->now_ns = h->key;
        bns_heap_del(&s->timers, h);
        t->fn(t->arg);
        senv_pump(s);
    }
    s->now_ns = end;
}

#endif
