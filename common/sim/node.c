/* node.c - the env of a simulated node: clock, timers, tasks, workers, pool; its birth and death.
 *
 * Clocks: each node has a monotonic clock that starts at a random value at power-on and runs at its
 * own rate; timers are kept in that clock, and one wake event stands in the world's heap for the
 * earliest. The wall clock follows the same rate and may jump.
 *
 * Workers: a handler runs as one event, at one virtual instant, with all jobs queued then, some
 * microseconds after the worker became free; what its VFS calls cost is added up by the disk model
 * and its completions come that much later. So a power cut between the two finds work that is
 * durable and not yet acknowledged. A cut inside a VFS call makes every later call answer OFF; the
 * node is buried when the handler returns. Pool jobs run the same way, each for itself.
 *
 * May fail: no memory from the node's own heap (its test heap may be told to fail).
 */
#include <stdio.h>

#include "sim/world_impl.h"

#define TURN_NS 1000u /* the least that one turn of a loop takes */

struct bns_worker {
    struct bns_list node;
    struct sim_node *n;
    bns_worker_fn *fn;
    void *arg;
    struct bns_list queue;
    struct bns_list batch; /* done callbacks to come */
    bool busy;
};

/* ---- clock ----------------------------------------------------------------------------------- */

uint64_t sim_local_ns(const struct sim_node *n)
{
    const struct sim_clock *c = &n->clock;
    uint64_t d = n->w->now - c->base_global;
    __int128 skew = (__int128)d * c->ppm / 1000000;

    return c->base_local + (uint64_t)((__int128)d + skew);
}

/* The first global instant at which the local clock is at or behind `local`. */
static uint64_t global_ns(const struct sim_node *n, uint64_t local)
{
    const struct sim_clock *c = &n->clock;
    unsigned __int128 d;

    if (local <= c->base_local)
        return c->base_global;
    d = (unsigned __int128)(local - c->base_local) * 1000000;
    d = d / (unsigned __int128)(1000000 + c->ppm) + 1;
    return d > UINT64_MAX / 2 ? UINT64_MAX : c->base_global + (uint64_t)d;
}

void sim_clock_set(struct sim_node *n, uint64_t local_ns, int64_t ppm)
{
    BNS_ASSERT(ppm > -500000);
    BNS_ASSERT(ppm < 500000);
    /* Wall time goes on from where it is. */
    n->clock.wall_offset_ns += (int64_t)sim_local_ns(n) - (int64_t)local_ns;
    n->clock.base_global = n->w->now;
    n->clock.base_local = local_ns;
    n->clock.ppm = ppm;
}

static uint64_t env_now_ns(struct bns_env *e)
{
    return sim_local_ns(sim_node_of(e));
}

static int64_t env_wall_ms(struct bns_env *e)
{
    struct sim_node *n = sim_node_of(e);

    return BNS_WORLD_WALL_MS +
           ((int64_t)sim_local_ns(n) + n->clock.wall_offset_ns) / (int64_t)BNS_MS;
}

static int env_entropy(struct bns_env *e, void *dst, size_t len)
{
    uint8_t *p = dst;

    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)bns_prng_next(&sim_node_of(e)->entropy);
    return BNS_OK;
}

/* ---- timers ---------------------------------------------------------------------------------- */

/* Runs what is due. A timer that a callback starts anew waits for the next turn. */
static void run_timers(struct sim_event *e)
{
    struct sim_node *n = e->node;
    uint64_t seq = n->timers.seq;
    uint64_t now = sim_local_ns(n);
    struct bns_heap_node *min;

    n->wake = NULL;
    while (sim_live(n) && (min = bns_heap_min(&n->timers)) != NULL && min->key <= now &&
           min->seq < seq) {
        struct bns_timer *t = BNS_CONTAINER(min, struct bns_timer, node);
        bns_heap_del(&n->timers, min);
        t->fn(t->arg);
    }
    if (sim_live(n))
        sim_node_wake(n);
}

void sim_node_wake(struct sim_node *n)
{
    struct bns_heap_node *min = bns_heap_min(&n->timers);
    uint64_t at;

    if (!sim_live(n))
        return;
    if (min == NULL || min->key == BNS_NEVER) {
        sim_cancel(n->w, n->wake);
        n->wake = NULL;
        return;
    }
    at = global_ns(n, min->key);
    if (at < n->w->now + TURN_NS)
        at = n->w->now + TURN_NS;
    if (n->wake != NULL && n->wake->heap.key == at)
        return;
    sim_cancel(n->w, n->wake);
    n->wake = sim_at(n->w, n, at, "timer", run_timers, NULL);
}

static void env_timer_start(struct bns_env *e, struct bns_timer *t, uint64_t deadline_ns)
{
    struct sim_node *n = sim_node_of(e);
    int rv;

    if (!sim_live(n))
        return;
    bns_heap_del(&n->timers, &t->node);
    rv = bns_heap_insert(&n->timers, &t->node, deadline_ns);
    BNS_ASSERT(rv == BNS_OK);
    sim_node_wake(n);
}

static void env_timer_stop(struct bns_env *e, struct bns_timer *t)
{
    struct sim_node *n = sim_node_of(e);

    if (!sim_live(n))
        return;
    bns_heap_del(&n->timers, &t->node);
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static void run_tasks(struct sim_event *e)
{
    struct sim_node *n = e->node;
    struct bns_list now;
    struct bns_list *l;

    n->turn = NULL;
    bns_list_init(&now);
    bns_list_splice(&now, &n->tasks);
    while (sim_live(n) && (l = bns_list_pop(&now)) != NULL) {
        struct bns_task *t = BNS_CONTAINER(l, struct bns_task, node);
        t->fn(t);
    }
}

static void env_post(struct bns_env *e, struct bns_task *t)
{
    struct sim_node *n = sim_node_of(e);
    struct bns_world *w = n->w;

    if (!sim_live(n))
        return;
    bns_list_push(&n->tasks, &t->node);
    if (n->turn == NULL)
        n->turn = sim_at(w, n, w->now + TURN_NS + bns_prng_below(&w->prng_sched, 5 * BNS_US),
                         "turn", run_tasks, NULL);
}

/* ---- workers --------------------------------------------------------------------------------- */

/* What the VFS calls since `before` take. */
static uint64_t disk_ns(struct sim_node *n, const struct bns_vfs_mem_stats *before)
{
    struct bns_vfs_mem_stats after = bns_vfs_mem_stats(n->vfs);
    const struct bns_world_disk *d = &n->w->cfg.disk;
    struct bns_prng *p = &n->w->prng_disk;
    uint64_t ns = TURN_NS;

    ns += sim_exp(p, d->read_ns * (after.reads - before->reads));
    ns += sim_exp(p, d->write_ns * (after.writes - before->writes));
    for (uint64_t i = before->syncs + before->dir_syncs; i < after.syncs + after.dir_syncs; i++)
        ns += d->sync_ns / 2 + sim_exp(p, d->sync_ns / 2);
    if (d->slow > 0 && after.ops != before->ops && bns_prng_chance(p, d->slow))
        ns += bns_prng_below(p, d->slow_ns + 1);
    return ns;
}

static void worker_kick(struct bns_worker *wk);

static void worker_done(struct sim_event *e)
{
    struct bns_worker *wk = e->ctx;
    struct sim_node *n = wk->n;
    struct bns_list batch;
    struct bns_list *l;

    wk->busy = false;
    bns_list_init(&batch);
    bns_list_splice(&batch, &wk->batch);
    worker_kick(wk); /* before the callbacks: the last one may free the worker */
    while (sim_live(n) && (l = bns_list_pop(&batch)) != NULL) {
        struct bns_job *j = BNS_CONTAINER(l, struct bns_job, node);
        j->done(j);
    }
}

static void worker_run(struct sim_event *e)
{
    struct bns_worker *wk = e->ctx;
    struct sim_node *n = wk->n;
    struct bns_vfs_mem_stats before = bns_vfs_mem_stats(n->vfs);

    bns_list_splice(&wk->batch, &wk->queue);
    wk->fn(wk->arg, &wk->batch);
    if (sim_live(n) && !bns_vfs_mem_is_off(n->vfs))
        (void)sim_at(n->w, n, n->w->now + disk_ns(n, &before), "done", worker_done, wk);
}

static void worker_kick(struct bns_worker *wk)
{
    struct bns_world *w = wk->n->w;

    if (wk->busy || bns_list_empty(&wk->queue))
        return;
    wk->busy = true;
    (void)sim_at(w, wk->n, w->now + TURN_NS + bns_prng_below(&w->prng_sched, 30 * BNS_US), "work",
                 worker_run, wk);
}

static int env_worker_new(struct bns_env *e, const char *name, bns_worker_fn *fn, void *arg,
                          struct bns_worker **out)
{
    struct sim_node *n = sim_node_of(e);
    struct bns_worker *wk = bns_alloc_zero(e->alloc, sizeof *wk);

    (void)name; /* threads have names, virtual ones do not */
    if (wk == NULL)
        return BNS_E_NOMEM;
    wk->n = n;
    wk->fn = fn;
    wk->arg = arg;
    bns_list_init(&wk->queue);
    bns_list_init(&wk->batch);
    bns_list_push(&n->workers, &wk->node);
    *out = wk;
    return BNS_OK;
}

static void env_worker_submit(struct bns_worker *wk, struct bns_job *j)
{
    BNS_ASSERT(j->done != NULL);
    if (!sim_live(wk->n))
        return;
    bns_list_push(&wk->queue, &j->node);
    worker_kick(wk);
}

static void env_worker_free(struct bns_worker *wk)
{
    if (wk == NULL || !sim_live(wk->n))
        return; /* a dying node's memory goes as a whole */
    BNS_ASSERT(!wk->busy);
    BNS_ASSERT(bns_list_empty(&wk->queue));
    bns_list_del(&wk->node);
    bns_free(wk->n->env.alloc, wk);
}

static void pool_done(struct sim_event *e)
{
    struct bns_job *j = e->ctx;

    j->done(j);
}

static void pool_run(struct sim_event *e)
{
    struct sim_node *n = e->node;
    struct bns_job *j = e->ctx;
    struct bns_vfs_mem_stats before = bns_vfs_mem_stats(n->vfs);

    j->run(j);
    if (sim_live(n) && !bns_vfs_mem_is_off(n->vfs))
        (void)sim_at(n->w, n, n->w->now + disk_ns(n, &before), "done", pool_done, j);
}

static void env_pool_submit(struct bns_env *e, struct bns_job *j)
{
    struct sim_node *n = sim_node_of(e);
    struct bns_world *w = n->w;

    BNS_ASSERT(j->run != NULL);
    BNS_ASSERT(j->done != NULL);
    if (!sim_live(n))
        return;
    (void)sim_at(w, n, w->now + TURN_NS + bns_prng_below(&w->prng_sched, 100 * BNS_US), "pool",
                 pool_run, j);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void env_fatal(struct bns_env *e, int exit_code, const char *text)
{
    struct sim_node *n = sim_node_of(e);

    if (!sim_live(n))
        return;
    n->dying = true;
    if (bns_vfs_mem_is_off(n->vfs)) { /* the power went, this is how the code says so */
        n->want_power = true;
        return;
    }
    n->exit_code = exit_code;
    (void)snprintf(n->exit_text, sizeof n->exit_text, "%s", text); /* cut is fine */
    bns_world_note(n->w, "%s fatal %d: %s", n->host, exit_code, text);
    bns_vfs_mem_kill(n->vfs);
}

static const struct bns_env_ops env_ops = {
    .now_ns = env_now_ns,
    .wall_ms = env_wall_ms,
    .entropy = env_entropy,
    .timer_start = env_timer_start,
    .timer_stop = env_timer_stop,
    .post = env_post,
    .worker_new = env_worker_new,
    .worker_submit = env_worker_submit,
    .worker_free = env_worker_free,
    .pool_submit = env_pool_submit,
    .listen = sim_listen,
    .listener_port = sim_listener_port,
    .listener_close = sim_listener_close,
    .connect = sim_connect,
    .fatal = env_fatal,
};

static const char *const fault_names[] = {
    [BNS_VFAULT_NONE] = "",
    [BNS_VFAULT_EIO] = "disk: I/O error",
    [BNS_VFAULT_NOSPACE] = "disk: no space",
    [BNS_VFAULT_SHORT] = "disk: short write",
    [BNS_VFAULT_POWER] = "power cut in the middle of a call",
    [BNS_VFAULT_KILL] = "killed in the middle of a call",
    [BNS_VFAULT_SYNC_LOST] = "disk: lost sync",
    [BNS_VFAULT_MISDIRECT] = "disk: misdirected write",
    [BNS_VFAULT_STALE] = "disk: stale read",
    [BNS_VFAULT_FLIP] = "disk: rotten bit",
};

static void vfs_hook(void *arg, const struct bns_vfs_mem_event *ev)
{
    struct sim_node *n = arg;

    sim_mix(n->w, ev->op);
    sim_mix(n->w, ev->off ^ (ev->len << 32) ^ ((uint64_t)ev->fault << 60));
    if (ev->op == BNS_VOP_SYNC && n->w->record != NULL)
        bns_world_record_event(n->w, BNS_TRACE_FSYNC, n->id, 0, ev->path);
    if (ev->fault == BNS_VFAULT_NONE)
        return;
    sim_say(n->w, "%s disk fault %d in operation %d on %s", n->host, (int)ev->fault, (int)ev->op,
            ev->path);
    bns_world_record_event(n->w, BNS_TRACE_FAULT, n->id, 0, fault_names[ev->fault]);
}

void sim_node_init(struct bns_world *w, unsigned id, uint64_t seed)
{
    struct sim_node *n = &w->nodes[id];
    int rv;

    n->w = w;
    n->id = id;
    (void)snprintf(n->host, sizeof n->host, "10.0.0.%u", id + 1); /* fits */
    bns_prng_seed(&n->entropy, seed);
    n->heap = bns_test_heap(0);
    BNS_ASSERT(n->heap != NULL);
    rv = bns_vfs_mem_new(w->alloc, bns_prng_next(&n->entropy), &n->vfs);
    BNS_ASSERT(rv == BNS_OK);
    bns_vfs_mem_config(n->vfs)->hook = vfs_hook;
    bns_vfs_mem_config(n->vfs)->hook_arg = n;
    bns_heap_init(&n->timers, w->alloc);
    bns_list_init(&n->tasks);
    bns_list_init(&n->events);
    bns_list_init(&n->stalled);
    bns_list_init(&n->workers);
    bns_list_init(&n->streams);
    bns_list_init(&n->listeners);
    sim_node_disk(n);
}

void sim_node_disk(struct sim_node *n)
{
    struct bns_vfs_mem_config *c = bns_vfs_mem_config(n->vfs);
    const struct bns_world_disk *d = &n->w->cfg.disk;
    bool server = n->id < n->w->cfg.servers;
    bool victim = n->id < n->w->cfg.victims;

    c->capacity_bytes = server ? d->capacity_bytes : 0;
    c->read_eio = server ? d->read_eio : 0;
    c->write_eio = server ? d->write_eio : 0;
    c->sync_eio = server ? d->sync_eio : 0;
    c->write_short = server ? d->write_short : 0;
    c->sync_lost = victim ? d->sync_lost : 0;
    c->misdirect = victim ? d->misdirect : 0;
    c->stale = victim ? d->stale : 0;
    c->keep_old = c->stale > 0;
}

static void run_start(struct sim_event *e)
{
    struct sim_node *n = e->node;
    int rv;

    bns_world_record_event(n->w, BNS_TRACE_START, n->id, 0, "");
    rv = n->main.start(&n->env, n->id, n->main.arg);

    if (rv != BNS_OK && sim_live(n) && !bns_vfs_mem_is_off(n->vfs))
        bns_fatal(&n->env, 1, bns_err_name(rv));
}

void sim_node_start(struct sim_node *n)
{
    struct bns_world *w = n->w;

    BNS_ASSERT(n->state != BNS_NODE_UP);
    BNS_ASSERT(n->main.start != NULL);
    if (n->state == BNS_NODE_OFF) /* a machine that boots counts from anew */
        sim_clock_set(n, BNS_SEC + bns_prng_below(&n->entropy, 1000 * BNS_SEC), n->clock.ppm);
    n->state = BNS_NODE_UP;
    n->dying = false;
    n->want_power = false;
    n->cut_soon = false;
    n->exit_code = 0;
    n->exit_text[0] = '\0';
    n->paused_until = 0;
    n->port_next = 32768;
    bns_vfs_mem_power_on(n->vfs);
    n->env = (struct bns_env){.ops = &env_ops,
                              .alloc = bns_test_heap_alloc(n->heap),
                              .vfs = n->vfs,
                              .prng = bns_prng_split(&n->entropy),
                              .mutant = w->cfg.mutant,
                              .sim = true};
    (void)sim_at(w, n, w->now + TURN_NS, "start", run_start, NULL);
}

void sim_node_drop_work(struct sim_node *n)
{
    struct bns_heap_node *min;

    while ((min = bns_heap_min(&n->timers)) != NULL)
        bns_heap_del(&n->timers, min);
    BNS_LIST_EACH(l, &n->events)
    sim_cancel(n->w, BNS_CONTAINER(l, struct sim_event, link));
    BNS_LIST_EACH(l, &n->stalled)
    sim_cancel(n->w, BNS_CONTAINER(l, struct sim_event, link));
    n->wake = NULL;
    n->turn = NULL;
    bns_list_init(&n->tasks);
    bns_list_init(&n->workers);
}

static void run_restart(struct sim_event *e)
{
    struct bns_world *w = e->ctx;

    bns_world_restart(w, (unsigned)e->n);
}

void sim_node_die(struct sim_node *n, bool power, int code, const char *text)
{
    struct bns_world *w = n->w;
    bool by_itself = code != 0;

    bns_world_note(w, "%s %s", n->host, power ? "loses power" : "dies");
    bns_world_record_event(w, BNS_TRACE_CRASH, n->id, (uint64_t)code,
                           power ? "no power" : (by_itself ? text : "killed"));
    n->dying = true;
    sim_net_node_died(n, power);
    sim_node_drop_work(n);
    if (!bns_vfs_mem_is_off(n->vfs)) {
        if (power)
            bns_vfs_mem_power_cut(n->vfs, &w->prng_disk);
        else
            bns_vfs_mem_kill(n->vfs);
    }
    bns_vfs_mem_fail_at(n->vfs, 0, BNS_VFAULT_NONE);
    n->state = power ? BNS_NODE_OFF : BNS_NODE_DEAD;
    if (n->main.died != NULL)
        n->main.died(n->id, code, text, n->main.arg);
    bns_vfs_mem_drop_handles(n->vfs); /* died() may have closed some: SQLite's */
    bns_test_heap_free_all(n->heap);
    n->dying = false;
    if (by_itself && n->main.restart_ns > 0)
        sim_at(w, NULL, w->now + n->main.restart_ns, "restart", run_restart, w)->n = n->id;
}

void sim_node_free(struct sim_node *n)
{
    if (n->state == BNS_NODE_UP) {
        n->main.died = NULL;
        sim_node_die(n, false, 0, "");
    }
    bns_heap_free(&n->timers);
    bns_vfs_mem_free(n->vfs);
    (void)bns_test_heap_close(n->heap, NULL); /* empty since the node died */
}
