/* world.c - the event heap, the run loop, births and deaths, the trace.
 *
 * One event is one turn of one node's loop, or something that happens to the world. step() takes
 * the earliest, moves the clock to it, runs it, and then buries the node if it died in it (fatal,
 * or the power went inside a VFS call): its events, timers, work and connections are dropped, its
 * heap is freed whole, its disk keeps what a cut or kill leaves. While a node's own code is on the
 * stack nothing of it is freed: it unwinds with env calls that do nothing.
 *
 * A paused node's events are set aside in order and run, in that order, when it goes on.
 *
 * The trace hash takes (time, node, event name) of every event, every VFS operation, and length
 * and checksum of every segment delivered.
 *
 * Invariants: time never runs backwards; an event of a node runs only while the node is up.
 * May fail:   new(): no memory. Later lack of memory asserts.
 */
#include <stdarg.h>
#include <stdio.h>

#include "sim/world_impl.h"

/* ---- events ---------------------------------------------------------------------------------- */

struct sim_event *sim_at(struct bns_world *w, struct sim_node *n, uint64_t at, const char *name,
                         void (*fn)(struct sim_event *e), void *ctx)
{
    struct sim_event *e = bns_alloc_zero(w->alloc, sizeof *e);

    BNS_ASSERT(e != NULL);
    BNS_ASSERT(n == NULL || n->state == BNS_NODE_UP);
    e->node = n;
    e->name = name;
    e->fn = fn;
    e->ctx = ctx;
    bns_list_init(&e->link);
    if (n != NULL)
        bns_list_push(&n->events, &e->link);
    int rv = bns_heap_insert(&w->heap, &e->heap, at < w->now ? w->now : at);
    BNS_ASSERT(rv == BNS_OK);
    return e;
}

void sim_cancel(struct bns_world *w, struct sim_event *e)
{
    if (e == NULL)
        return;
    bns_heap_del(&w->heap, &e->heap);
    bns_list_del(&e->link);
    bns_free(w->alloc, e);
}

uint64_t sim_exp(struct bns_prng *p, uint64_t mean)
{
    /* -ln(u) without libm: the sum of halvings of a geometric draw and a uniform rest. Mean 1.5. */
    uint64_t halves = 0;

    if (mean == 0)
        return 0;
    while (halves < 20 && bns_prng_chance(p, 0.5))
        halves++;
    return (uint64_t)((double)mean * ((double)halves + bns_prng_double(p)) / 1.5);
}

/* ---- trace ----------------------------------------------------------------------------------- */

void sim_mix(struct bns_world *w, uint64_t v)
{
    w->hash = (w->hash ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    w->hash ^= w->hash >> 29;
}

static void trace_event(struct bns_world *w, const struct sim_event *e)
{
    char line[128];

    sim_mix(w, w->now);
    sim_mix(w, e->node == NULL ? 0 : e->node->id + 1);
    for (const char *p = e->name; *p != '\0'; p++)
        sim_mix(w, (uint64_t)*p);
    if (w->trace == NULL)
        return;
    (void)snprintf(line, sizeof line, "%12.6f %s %s", (double)w->now / 1e6, /* cut is fine */
                   e->node == NULL ? "-" : e->node->host, e->name);
    w->trace(w->trace_arg, line);
}

void bns_world_note(struct bns_world *w, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (int i = 0; i < n && i < (int)sizeof text - 1; i++)
        sim_mix(w, (uint64_t)text[i]);
    sim_say(w, "%s", text);
    bns_world_record_event(w, BNS_TRACE_NOTE, BNS_TRACE_NONE, 0, text);
}

void sim_say(struct bns_world *w, const char *fmt, ...)
{
    char line[300];
    va_list ap;
    int n;

    if (w->trace == NULL)
        return;
    n = snprintf(line, sizeof line, "%12.6f # ", (double)w->now / 1e6); /* fits */
    va_start(ap, fmt);
    (void)vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap); /* cut is fine */
    va_end(ap);
    w->trace(w->trace_arg, line);
}

void bns_world_record(struct bns_world *w, struct bns_trace *t)
{
    w->record = t;
    for (unsigned i = 0; i < w->cfg.nodes && t != NULL; i++)
        bns_trace_node(t, w->nodes[i].host, i < w->cfg.servers);
}

void sim_record(struct bns_world *w, enum bns_trace_kind kind, unsigned node,
                const struct bns_trace_event *more)
{
    struct bns_trace_event ev = *more;

    ev.t = w->now;
    ev.kind = kind;
    ev.node = node;
    bns_trace_add(w->record, &ev);
}

void bns_world_record_event(struct bns_world *w, enum bns_trace_kind kind, unsigned node,
                            uint64_t id, const char *text)
{
    sim_record(w, kind, node,
               &(struct bns_trace_event){.peer = BNS_TRACE_NONE, .id = id, .text = text});
}

void bns_world_trace(struct bns_world *w, void (*line)(void *arg, const char *text), void *arg)
{
    w->trace = line;
    w->trace_arg = arg;
}

uint64_t bns_world_trace_hash(const struct bns_world *w)
{
    return w->hash;
}

uint64_t bns_world_events(const struct bns_world *w)
{
    return w->events;
}

/* ---- running --------------------------------------------------------------------------------- */

void sim_reap(struct sim_node *n)
{
    if (n->state != BNS_NODE_UP)
        return;
    if (bns_vfs_mem_is_off(n->vfs) && !n->dying) {
        n->dying = true;
        n->want_power = true;
    }
    if (n->dying)
        sim_node_die(n, n->want_power, n->exit_code, n->exit_text);
}

static bool stalled(struct bns_world *w, struct sim_event *e)
{
    if (e->node == NULL || (e->node->paused_until <= w->now && bns_list_empty(&e->node->stalled)))
        return false; /* behind stalled ones an event waits too, to keep the order */
    bns_list_del(&e->link);
    bns_list_push(&e->node->stalled, &e->link);
    return true;
}

bool bns_world_step(struct bns_world *w)
{
    struct bns_heap_node *min = bns_heap_min(&w->heap);
    struct sim_event *e;
    struct sim_node *n;

    if (min == NULL)
        return false;
    e = BNS_CONTAINER(min, struct sim_event, heap);
    BNS_ASSERT(min->key >= w->now);
    w->now = min->key;
    bns_heap_del(&w->heap, min);
    if (stalled(w, e))
        return true;
    w->events++;
    trace_event(w, e);
    n = e->node;
    bns_list_del(&e->link);
    w->current = n;
    e->fn(e);
    w->current = NULL;
    bns_free(w->alloc, e);
    if (n != NULL)
        sim_reap(n);
    return true;
}

const char *bns_world_run(struct bns_world *w, uint64_t until_ns, bns_world_check *check, void *arg)
{
    for (;;) {
        struct bns_heap_node *min = bns_heap_min(&w->heap);
        const char *bad;

        if (min == NULL || min->key > until_ns)
            break;
        (void)bns_world_step(w); /* there is an event */
        bad = check == NULL ? NULL : check(w, arg);
        if (bad != NULL)
            return bad;
    }
    if (w->now < until_ns)
        w->now = until_ns;
    return NULL;
}

uint64_t bns_world_now(const struct bns_world *w)
{
    return w->now;
}

struct harness {
    bns_world_fn *fn;
    void *arg;
    struct bns_world *w;
};

static void run_harness(struct sim_event *e)
{
    struct harness h = *(struct harness *)e->ctx;

    bns_free(h.w->alloc, e->ctx);
    h.fn(h.w, h.arg);
}

void bns_world_at(struct bns_world *w, uint64_t ns, bns_world_fn *fn, void *arg)
{
    struct harness *h = bns_alloc(w->alloc, sizeof *h);

    BNS_ASSERT(h != NULL);
    *h = (struct harness){fn, arg, w};
    (void)sim_at(w, NULL, ns, "harness", run_harness, h);
}

bool bns_world_call(struct bns_world *w, unsigned id, void (*fn)(struct bns_env *env, void *arg),
                    void *arg)
{
    struct sim_node *n = &w->nodes[id];
    struct sim_node *outer = w->current;

    if (!sim_live(n) || n->paused_until > w->now)
        return false;
    sim_mix(w, id + 1000);
    w->current = n;
    fn(&n->env, arg);
    w->current = outer;
    if (outer != n)
        sim_reap(n);
    return true;
}

/* ---- nodes from outside ---------------------------------------------------------------------- */

static struct sim_node *node_at(const struct bns_world *w, unsigned id)
{
    BNS_ASSERT(id < w->cfg.nodes);
    return (struct sim_node *)&w->nodes[id];
}

void bns_world_start(struct bns_world *w, unsigned id, const struct bns_node_main *main)
{
    struct sim_node *n = node_at(w, id);

    if (n->state == BNS_NODE_UP)
        return;
    n->main = *main;
    sim_node_start(n);
}

void bns_world_restart(struct bns_world *w, unsigned id)
{
    struct sim_node *n = node_at(w, id);

    if (n->state != BNS_NODE_UP && n->main.start != NULL)
        sim_node_start(n);
}

static void strike(struct sim_node *n, bool power)
{
    if (n->state != BNS_NODE_UP)
        return;
    n->dying = true;
    n->want_power |= power;
    n->exit_code = 0;
    n->exit_text[0] = '\0';
    if (n->w->current != n)
        sim_reap(n);
}

void bns_world_kill(struct bns_world *w, unsigned id)
{
    strike(node_at(w, id), false);
}

void bns_world_retire(struct bns_world *w, unsigned id)
{
    struct sim_node *n = node_at(w, id);

    bns_world_kill(w, id);
    n->main.start = NULL; /* died stays: the kill may be under way */
}

void bns_world_power_cut(struct bns_world *w, unsigned id)
{
    struct sim_node *n = node_at(w, id);

    if (n->state == BNS_NODE_DEAD) { /* the machine is there, the process is not */
        bns_vfs_mem_power_cut(n->vfs, &w->prng_disk);
        n->state = BNS_NODE_OFF;
    }
    strike(n, true);
}

static void cut_late(struct sim_event *e)
{
    struct sim_node *n = e->node;

    if (!n->cut_soon)
        return;
    bns_vfs_mem_fail_at(n->vfs, 0, BNS_VFAULT_NONE);
    strike(n, true);
}

void bns_world_power_cut_soon(struct bns_world *w, unsigned id, uint64_t within_ns)
{
    struct sim_node *n = node_at(w, id);

    if (n->state != BNS_NODE_UP || n->cut_soon)
        return;
    n->cut_soon = true;
    bns_vfs_mem_fail_at(n->vfs, 1 + bns_prng_below(&w->prng_nemesis, 12), BNS_VFAULT_POWER);
    (void)sim_at(w, n, w->now + within_ns, "cut", cut_late, NULL);
}

static void resume(struct sim_event *e)
{
    struct bns_world *w = e->ctx;
    struct sim_node *n = &w->nodes[e->n];

    if (n->paused_until > w->now)
        return; /* paused again meanwhile */
    if (n->state == BNS_NODE_UP)
        bns_world_record_event(w, BNS_TRACE_RESUME, n->id, 0, "");
    BNS_LIST_EACH(l, &n->stalled)
    {
        struct sim_event *late = BNS_CONTAINER(l, struct sim_event, link);
        int rv = bns_heap_insert(&w->heap, &late->heap, w->now);
        BNS_ASSERT(rv == BNS_OK);
    }
    bns_list_splice(&n->events, &n->stalled);
}

void bns_world_pause(struct bns_world *w, unsigned id, uint64_t ns)
{
    struct sim_node *n = node_at(w, id);

    if (n->state != BNS_NODE_UP)
        return;
    n->paused_until = w->now + ns;
    bns_world_record_event(w, BNS_TRACE_PAUSE, id, 0, "");
    sim_at(w, NULL, n->paused_until, "resume", resume, w)->n = id;
}

enum bns_node_state bns_world_state(const struct bns_world *w, unsigned id)
{
    return node_at(w, id)->state;
}

int bns_world_exit_code(const struct bns_world *w, unsigned id)
{
    return node_at(w, id)->exit_code;
}

struct bns_env *bns_world_env(struct bns_world *w, unsigned id)
{
    return &node_at(w, id)->env;
}

struct bns_vfs *bns_world_vfs(struct bns_world *w, unsigned id)
{
    return node_at(w, id)->vfs;
}

struct bns_test_heap *bns_world_heap(struct bns_world *w, unsigned id)
{
    return node_at(w, id)->heap;
}

size_t bns_world_timers(const struct bns_world *w, unsigned id)
{
    return node_at(w, id)->timers.count;
}

const char *bns_world_host(const struct bns_world *w, unsigned id)
{
    return node_at(w, id)->host;
}

struct bns_prng *bns_world_prng(struct bns_world *w)
{
    return &w->prng_work;
}

void bns_world_drift(struct bns_world *w, unsigned id, int32_t ppm)
{
    struct sim_node *n = node_at(w, id);

    sim_clock_set(n, sim_local_ns(n), ppm);
    sim_node_wake(n);
}

void bns_world_jump(struct bns_world *w, unsigned id, int64_t ms)
{
    node_at(w, id)->clock.wall_offset_ns += ms * (int64_t)BNS_MS;
}

/* ---- birth and end of a world ---------------------------------------------------------------- */

int bns_world_new(uint64_t seed, const struct bns_world_config *cfg, struct bns_world **out)
{
    struct bns_world *w = bns_alloc_zero(bns_alloc_libc(), sizeof *w);
    struct bns_prng root;

    BNS_ASSERT(cfg->nodes > 0);
    BNS_ASSERT(cfg->nodes <= BNS_WORLD_NODES_MAX);
    if (w == NULL)
        return BNS_E_NOMEM;
    w->alloc = bns_alloc_libc();
    w->cfg = *cfg;
    if (w->cfg.servers == 0)
        w->cfg.servers = cfg->nodes;
    w->hash = seed;
    bns_heap_init(&w->heap, w->alloc);
    bns_list_init(&w->links);
    bns_prng_seed(&root, seed);
    w->prng_net = bns_prng_split(&root);
    w->prng_disk = bns_prng_split(&root);
    w->prng_sched = bns_prng_split(&root);
    w->prng_nemesis = bns_prng_split(&root);
    w->prng_work = bns_prng_split(&root);
    for (unsigned i = 0; i < cfg->nodes; i++)
        sim_node_init(w, i, bns_prng_next(&root));
    *out = w;
    return BNS_OK;
}

void bns_world_free(struct bns_world *w)
{
    struct bns_heap_node *min;

    if (w == NULL)
        return;
    for (unsigned i = 0; i < w->cfg.nodes; i++)
        sim_node_free(&w->nodes[i]);
    sim_net_free(w);
    while ((min = bns_heap_min(&w->heap)) != NULL) {
        struct sim_event *e = BNS_CONTAINER(min, struct sim_event, heap);
        if (e->fn == run_harness)
            bns_free(w->alloc, e->ctx);
        sim_cancel(w, e);
    }
    bns_heap_free(&w->heap);
    bns_free(w->alloc, w);
}
