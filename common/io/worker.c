/* worker.c - ordered queues with a thread of their own, and the threads of the pool.
 *
 * A worker thread waits, takes ALL queued jobs as one list, calls the handler once, and hands the
 * list back to the loop with one wake-up. That is group commit without a timer: what queued while
 * the last sync ran is the next batch. A pool thread takes one job at a time and runs it.
 *
 * The wake-up of the loop often takes the worker's processor (measured: 40 us, a fifth of a sync,
 * in which the disk has nothing to do). So a worker that asked for it (bns_worker_hold) keeps a
 * batch that is over while the next one is queued, and its handler hands it back when it has given
 * the disk something to do.
 *
 * Threads:  `queue` and `stop` are under the lock of the worker, `finished` and `ready` under the
 *           one of the ring; `submitted` belongs to the loop. All signals are blocked in these
 *           threads, so that the loop's thread gets them.
 */
#include "io/loop.h"

#include <signal.h>

static void run_all(struct bns_worker *w, struct bns_list *jobs)
{
    bns_list_splice(jobs, &w->queue);
    pthread_mutex_unlock(&w->lock);
    w->fn(w->arg, jobs);
}

static void run_one(struct bns_worker *w, struct bns_list *jobs)
{
    struct bns_list *n = bns_list_pop(&w->queue);
    struct bns_job *j = BNS_CONTAINER(n, struct bns_job, node);

    pthread_mutex_unlock(&w->lock);
    j->run(j);
    bns_list_push(jobs, n);
}

bool bns_workers_held(struct bns_worker *w)
{
    return !bns_list_empty(&w->held);
}

void bns_workers_release(struct bns_worker *w)
{
    if (!bns_list_empty(&w->held))
        bns_ring_finish(w->e, w, &w->held);
}

/* The handler is back. Is there a next batch that will hand this one back? */
static void run_over(struct bns_worker *w, struct bns_list *jobs)
{
    bool next = false;

    bns_workers_release(w);
    if (w->hold) {
        pthread_mutex_lock(&w->lock);
        next = !bns_list_empty(&w->queue);
        pthread_mutex_unlock(&w->lock);
    }
    if (next)
        bns_list_splice(&w->held, jobs);
    else
        bns_ring_finish(w->e, w, jobs);
}

static void *thread(void *arg)
{
    struct bns_worker *w = arg;
    struct bns_list jobs;

    bns_list_init(&jobs);
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (bns_list_empty(&w->queue) && !w->stop) {
            w->waiting++;
            pthread_cond_wait(&w->cond, &w->lock);
            w->waiting--;
        }
        if (bns_list_empty(&w->queue)) {
            pthread_mutex_unlock(&w->lock);
            return NULL;
        }
        if (w->fn != NULL) {
            run_all(w, &jobs);
            run_over(w, &jobs);
        } else {
            run_one(w, &jobs);
            bns_ring_finish(w->e, w, &jobs);
        }
    }
}

static void join(struct bns_worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
    for (size_t i = 0; i < w->threads_count; i++)
        BNS_ASSERT(pthread_join(w->threads[i], NULL) == 0);
}

int bns_workers_start(struct bns_worker *w, const char *name, size_t threads)
{
    sigset_t all, old;
    char text[16];
    size_t len = strnlen(name, sizeof text - 1); /* the kernel's limit */
    int rv = 0;

    memcpy(text, name, len);
    text[len] = '\0';
    BNS_ASSERT(threads <= sizeof w->threads / sizeof w->threads[0]);
    (void)sigfillset(&all); /* cannot fail on a valid set */
    if (pthread_sigmask(SIG_SETMASK, &all, &old) != 0)
        return BNS_E_INTERNAL;
    while (rv == 0 && w->threads_count < threads) {
        rv = pthread_create(&w->threads[w->threads_count], NULL, thread, w);
        if (rv == 0)
            (void)pthread_setname_np(w->threads[w->threads_count++], text); /* only a name */
    }
    BNS_ASSERT(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    return rv == 0 ? BNS_OK : BNS_E_INTERNAL;
}

int bns_workers_new(struct bns_env *env, const char *name, bns_worker_fn *fn, void *arg,
                    struct bns_worker **out)
{
    struct bns_env_uv *e = bns_uv(env);
    struct bns_worker *w = bns_alloc_zero(env->alloc, sizeof *w);
    int rv;

    if (w == NULL)
        return BNS_E_NOMEM;
    w->e = e;
    w->fn = fn;
    w->arg = arg;
    bns_list_init(&w->queue);
    bns_list_init(&w->ready);
    bns_list_init(&w->finished);
    bns_list_init(&w->held);
    BNS_ASSERT(pthread_mutex_init(&w->lock, NULL) == 0);
    BNS_ASSERT(pthread_cond_init(&w->cond, NULL) == 0);
    e->workers++;
    rv = bns_workers_start(w, name, fn != NULL ? 1 : 2);
    if (rv != BNS_OK) {
        bns_workers_free(w);
        return rv;
    }
    *out = w;
    return BNS_OK;
}

void bns_workers_hold(struct bns_worker *w)
{
    BNS_ASSERT(w->submitted == 0); /* the thread reads it behind the lock of its first job */
    w->hold = true;
}

void bns_workers_submit(struct bns_worker *w, struct bns_job *j)
{
    bool wake;

    BNS_ASSERT(j->done != NULL);
    w->submitted++;
    pthread_mutex_lock(&w->lock);
    BNS_ASSERT(!w->stop);
    bns_list_push(&w->queue, &j->node);
    wake = w->waiting > 0; /* a busy thread looks at the queue before it waits */
    pthread_mutex_unlock(&w->lock);
    if (wake)
        pthread_cond_signal(&w->cond); /* unlocked, or it would wake only to wait for us */
}

void bns_workers_free(struct bns_worker *w)
{
    struct bns_env_uv *e;

    if (w == NULL)
        return;
    e = w->e;
    BNS_ASSERT(w->submitted == 0);
    join(w);
    pthread_mutex_lock(&e->ring.lock);
    bns_list_del(&w->ready);
    pthread_mutex_unlock(&e->ring.lock);
    (void)pthread_cond_destroy(&w->cond); /* nobody waits */
    (void)pthread_mutex_destroy(&w->lock);
    BNS_ASSERT(e->workers > 0);
    e->workers--;
    bns_free(e->env.alloc, w);
}
