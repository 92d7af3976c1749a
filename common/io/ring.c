/* ring.c - what other threads hand to the loop: posted tasks and finished jobs.
 *
 * One mutex, two intrusive lists, one wake-up. The first hand-over since the loop last looked
 * wakes it: by the async handle (an eventfd) from another thread, by the idle handle (no system
 * call) from the loop itself; further ones only link. The loop takes both lists whole and runs them
 * unlocked: what is posted meanwhile waits for the next turn, so no task starves the sockets.
 *
 * Lock order: a worker's lock and this one are never held together.
 */
#include "io/loop.h"

int bns_ring_init(struct bns_ring *r)
{
    bns_list_init(&r->tasks);
    bns_list_init(&r->ready);
    r->owner = pthread_self();
    return pthread_mutex_init(&r->lock, NULL) == 0 ? BNS_OK : BNS_E_NOMEM;
}

void bns_ring_free(struct bns_ring *r)
{
    (void)pthread_mutex_destroy(&r->lock); /* nobody holds it */
}

void bns_ring_own(struct bns_env_uv *e)
{
    pthread_mutex_lock(&e->ring.lock);
    e->ring.owner = pthread_self();
    e->ring.woken = true; /* look once: a wake-up by idle may belong to the former thread */
    pthread_mutex_unlock(&e->ring.lock);
    bns_loop_kick(e);
}

/* Under the lock. */
static void wake(struct bns_env_uv *e)
{
    if (e->ring.woken)
        return;
    e->ring.woken = true;
    if (pthread_equal(e->ring.owner, pthread_self()) != 0)
        bns_loop_kick(e);
    else
        BNS_ASSERT(uv_async_send(&e->async) == 0);
}

void bns_ring_post(struct bns_env *env, struct bns_task *t)
{
    struct bns_env_uv *e = bns_uv(env);

    BNS_ASSERT(t->fn != NULL);
    pthread_mutex_lock(&e->ring.lock);
    bns_list_push(&e->ring.tasks, &t->node);
    wake(e);
    pthread_mutex_unlock(&e->ring.lock);
}

void bns_ring_finish(struct bns_env_uv *e, struct bns_worker *w, struct bns_list *jobs)
{
    pthread_mutex_lock(&e->ring.lock);
    bns_list_splice(&w->finished, jobs);
    bns_list_del(&w->ready); /* may be linked since the last batch */
    bns_list_push(&e->ring.ready, &w->ready);
    wake(e);
    pthread_mutex_unlock(&e->ring.lock);
}

static void run_jobs(struct bns_worker *w, struct bns_list *jobs)
{
    struct bns_list *n;

    while ((n = bns_list_pop(jobs)) != NULL) {
        struct bns_job *j = BNS_CONTAINER(n, struct bns_job, node);
        BNS_ASSERT(w->submitted > 0);
        w->submitted--;
        j->done(j);
    }
}

void bns_ring_drain(struct bns_env_uv *e)
{
    struct bns_list tasks, ready, *n;

    bns_list_init(&tasks);
    bns_list_init(&ready);
    pthread_mutex_lock(&e->ring.lock);
    e->ring.woken = false;
    bns_list_splice(&tasks, &e->ring.tasks);
    bns_list_splice(&ready, &e->ring.ready);
    while ((n = bns_list_pop(&ready)) != NULL) {
        struct bns_worker *w = BNS_CONTAINER(n, struct bns_worker, ready);
        struct bns_list jobs;

        bns_list_init(&jobs);
        bns_list_splice(&jobs, &w->finished);
        pthread_mutex_unlock(&e->ring.lock);
        run_jobs(w, &jobs); /* the last done may free the worker */
        pthread_mutex_lock(&e->ring.lock);
    }
    pthread_mutex_unlock(&e->ring.lock);
    while ((n = bns_list_pop(&tasks)) != NULL) {
        struct bns_task *t = BNS_CONTAINER(n, struct bns_task, node);
        t->fn(t);
    }
}
