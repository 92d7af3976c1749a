/* timer.c - the timers of one loop: our heap, and one timer of libuv set for its minimum.
 *
 * The heap is intrusive and breaks ties by insertion order, so equal deadlines fire in the order in
 * which they were started, as in the simulator. Starting and stopping touch the heap only; libuv
 * is told once a turn, before it polls. libuv counts milliseconds, so a timer fires up to 1 ms
 * late, and never early: a deadline is rounded up, and what is not due yet stays in the heap.
 *
 * A timer that is started while timers fire waits for the next turn, even when its deadline has
 * passed: the sequence number tells the old ones from the new ones, so no callback can starve the
 * sockets. A deadline in the past counts as now, so it cannot get before timers that are due.
 */
#include "io/loop.h"

static void fire(uv_timer_t *u)
{
    struct bns_env_uv *e = u->data;
    uint64_t seq_end = e->timers.seq;

    e->now_known = false;
    bns_loop_enter(e);
    e->timer_armed = BNS_NEVER;
    for (;;) {
        struct bns_heap_node *n = bns_heap_min(&e->timers);
        struct bns_timer *t;

        if (n == NULL || n->key > e->now_ns || n->seq >= seq_end)
            break;
        bns_heap_del(&e->timers, n);
        t = BNS_CONTAINER(n, struct bns_timer, node);
        t->fn(t->arg);
    }
}

int bns_timers_init(struct bns_env_uv *e)
{
    bns_heap_init(&e->timers, e->env.alloc);
    e->timer_armed = BNS_NEVER;
    e->timer.data = e;
    return uv_timer_init(&e->loop, &e->timer);
}

void bns_timers_arm(struct bns_env_uv *e)
{
    struct bns_heap_node *n = bns_heap_min(&e->timers);
    uint64_t key = n == NULL ? BNS_NEVER : n->key;
    uint64_t due_ms, now_ms;

    if (key == e->timer_armed)
        return;
    e->timer_armed = key;
    if (key == BNS_NEVER) {
        (void)uv_timer_stop(&e->timer); /* cannot fail */
        return;
    }
    due_ms = key / BNS_MS + (key % BNS_MS != 0);
    now_ms = uv_now(&e->loop);
    (void)uv_timer_start(&e->timer, fire, due_ms > now_ms ? due_ms - now_ms : 0, 0); /* ditto */
}

void bns_timers_start(struct bns_env *env, struct bns_timer *t, uint64_t deadline_ns)
{
    struct bns_env_uv *e = bns_uv(env);

    BNS_ASSERT(t->fn != NULL);
    bns_heap_del(&e->timers, &t->node);
    if (deadline_ns == BNS_NEVER)
        return;
    if (deadline_ns < bns_loop_now(env))
        deadline_ns = e->now_ns; /* behind all that are due already */
    if (bns_heap_insert(&e->timers, &t->node, deadline_ns) != BNS_OK)
        bns_fatal(env, 1, "no memory for a timer");
}

void bns_timers_stop(struct bns_env *env, struct bns_timer *t)
{
    bns_heap_del(&bns_uv(env)->timers, &t->node);
}
