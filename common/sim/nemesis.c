/* nemesis.c - swarm fault rates, the tick that strikes, and the healing.
 *
 * Swarm testing: each seed draws which kinds of fault it has at all (each with one chance in two)
 * and how often, so that some runs are violent in one way only and find what mixtures hide.
 *
 * Fault atlas: permanent damage (rot, lost syncs, misdirected writes, stale reads) strikes only the
 * first `victims` servers, a minority, so that every run must also end live. Crashes, power cuts
 * and
 * failed syncs may strike any server: what was acknowledged is on disk then.
 */
#include <stdio.h>

#include "sim/world_impl.h"

#define TICK_NS (100 * BNS_MS)

struct bns_world_config bns_world_calm(unsigned nodes)
{
    return (struct bns_world_config){
        .nodes = nodes,
        .net = {.delay_min_ns = 50 * BNS_US, .delay_mean_ns = 100 * BNS_US},
        .disk = {.read_ns = 50 * BNS_US, .write_ns = 10 * BNS_US, .sync_ns = 300 * BNS_US},
    };
}

static bool half(struct bns_prng *p)
{
    return bns_prng_chance(p, 0.5);
}

/* 0 in half of the seeds, else up to max. */
static double rate(struct bns_prng *p, double max)
{
    bool on = half(p);
    double v = bns_prng_double(p) * max;
    return on ? v : 0;
}

static void swarm_net(struct bns_prng *p, struct bns_world_net *net)
{
    net->delay_min_ns = half(p) ? 50 * BNS_US : bns_prng_below(p, 30 * BNS_MS);
    net->delay_mean_ns = half(p) ? 200 * BNS_US : bns_prng_range(p, BNS_MS, 100 * BNS_MS);
    net->loss = rate(p, 0.3);
    net->small = rate(p, 0.5);
}

static void swarm_disk(struct bns_prng *p, struct bns_world_disk *disk, bool damage)
{
    disk->read_ns = bns_prng_range(p, BNS_US, 200 * BNS_US);
    disk->write_ns = bns_prng_range(p, BNS_US, 50 * BNS_US);
    disk->sync_ns = bns_prng_range(p, 50 * BNS_US, 10 * BNS_MS);
    disk->slow = rate(p, 0.02);
    disk->slow_ns = bns_prng_range(p, 10 * BNS_MS, BNS_SEC);
    disk->read_eio = rate(p, 0.001);
    disk->write_eio = rate(p, 0.001);
    disk->sync_eio = rate(p, 0.003);
    disk->write_short = rate(p, 0.001);
    if (!damage)
        return;
    disk->rot = rate(p, 0.01);
    disk->sync_lost = rate(p, 0.2);
    disk->misdirect = rate(p, 0.005);
    disk->stale = rate(p, 0.005);
}

static void swarm_nemesis(struct bns_prng *p, struct bns_world_nemesis *n)
{
    n->partition = rate(p, 0.03);
    n->partition_end = 0.01 + bns_prng_double(p) * 0.09;
    n->one_way = rate(p, 0.6);
    n->clog = rate(p, 0.02);
    n->clog_max_ns = 5 * BNS_SEC;
    n->crash = rate(p, 0.02);
    n->crash_all = rate(p, 0.003);
    n->power_share = bns_prng_double(p);
    n->mid_job = bns_prng_double(p);
    n->down_max_ns = bns_prng_range(p, 10 * BNS_MS, 10 * BNS_SEC);
    n->pause = rate(p, 0.01);
    n->pause_max_ns = bns_prng_range(p, 10 * BNS_MS, 10 * BNS_SEC);
    n->jump = rate(p, 0.01);
    n->drift_max_ppm = half(p) ? 0 : (uint32_t)bns_prng_below(p, 100000);
    n->reset = rate(p, 0.02);
    n->half_open = rate(p, 0.5);
}

struct bns_world_config bns_world_swarm(uint64_t seed, unsigned nodes, unsigned servers,
                                        bool damage)
{
    struct bns_world_config c = bns_world_calm(nodes);
    struct bns_prng p;

    bns_prng_seed(&p, seed ^ UINT64_C(0x5a5a));
    c.servers = servers == 0 ? nodes : servers;
    c.victims = damage && c.servers > 0 ? (c.servers - 1) / 2 : 0;
    swarm_net(&p, &c.net);
    swarm_disk(&p, &c.disk, damage);
    swarm_nemesis(&p, &c.nemesis);
    return c;
}

/* ---- strikes --------------------------------------------------------------------------------- */

void bns_world_partition(struct bns_world *w, uint32_t side)
{
    for (unsigned a = 0; a < w->cfg.nodes; a++) {
        for (unsigned b = 0; b < w->cfg.nodes; b++)
            w->blocked[a][b] = ((side >> a) & 1) != ((side >> b) & 1);
    }
}

void bns_world_connect_all(struct bns_world *w)
{
    memset(w->blocked, 0, sizeof w->blocked);
    memset(w->clogged, 0, sizeof w->clogged);
    w->partitioned = false;
}

static void strike_partition(struct bns_world *w)
{
    const struct bns_world_nemesis *f = &w->cfg.nemesis;
    struct bns_prng *p = &w->prng_nemesis;
    bool one_way = bns_prng_chance(p, f->one_way);
    unsigned servers = w->cfg.servers;
    uint32_t side;

    switch (bns_prng_below(p, 3)) {
    case 0: /* one server alone */
        side = 1u << bns_prng_below(p, servers);
        break;
    case 1: /* any split, clients included */
        side = (uint32_t)bns_prng_next(p);
        break;
    default: /* a bridge: two halves that only one server can talk to */
        side = (uint32_t)bns_prng_next(p) | 1;
        break;
    }
    bns_world_note(w, "partition %x%s", side, one_way ? " one way" : "");
    sim_record(w, BNS_TRACE_FAULT, BNS_TRACE_NONE,
               &(struct bns_trace_event){
                   .peer = BNS_TRACE_NONE, .id = side, .bytes = one_way, .text = "partition"});
    bns_world_partition(w, side);
    for (unsigned a = 0; a < w->cfg.nodes; a++) {
        for (unsigned b = 0; b < w->cfg.nodes && one_way; b++) {
            if ((side >> a & 1) == 0)
                w->blocked[a][b] = false;
        }
    }
    if (bns_prng_chance(p, 0.3)) { /* the bridge */
        unsigned mid = (unsigned)bns_prng_below(p, servers);
        for (unsigned b = 0; b < w->cfg.nodes; b++)
            w->blocked[mid][b] = w->blocked[b][mid] = false;
    }
    w->partitioned = true;
}

static void restart_later(struct sim_event *e)
{
    bns_world_restart(e->ctx, (unsigned)e->n);
}

static void strike_crash(struct bns_world *w, unsigned id)
{
    const struct bns_world_nemesis *f = &w->cfg.nemesis;
    struct bns_prng *p = &w->prng_nemesis;
    uint64_t down = bns_prng_below(p, f->down_max_ns + 1);
    uint64_t soon = 0;

    if (!bns_prng_chance(p, f->power_share)) {
        bns_world_kill(w, id);
    } else if (bns_prng_chance(p, f->mid_job)) {
        soon = 20 * BNS_MS;
        bns_world_power_cut_soon(w, id, soon);
    } else {
        bns_world_power_cut(w, id);
    }
    sim_at(w, NULL, w->now + soon + BNS_MS + down, "restart", restart_later, w)->n = id;
}

static int pick_name(void *arg, const char *name)
{
    char *path = arg;
    size_t len = strlen(path);

    (void)snprintf(path + len, BNS_PATH_MAX - len, "/%s", name); /* cut is fine: not found then */
    return 1;
}

static int count_name(void *arg, const char *name)
{
    (void)name;
    ++*(uint64_t *)arg;
    return 0;
}

struct nth {
    uint64_t left;
    char *path;
};

static int nth_name(void *arg, const char *name)
{
    struct nth *n = arg;

    return n->left-- > 0 ? 0 : pick_name(n->path, name);
}

/* Flips one bit of one file of the victim's disk. */
static void strike_rot(struct bns_world *w, struct sim_node *n)
{
    struct bns_prng *p = &w->prng_nemesis;
    char path[BNS_PATH_MAX] = "";
    struct bns_file_stat st = {.is_dir = true};

    for (int depth = 0; depth < 8 && st.is_dir; depth++) {
        uint64_t count = 0;
        const char *dir = path[0] == '\0' ? "/" : path;
        struct nth pick = {.path = path};
        if (bns_vfs_list(n->vfs, dir, count_name, &count, NULL) != BNS_OK || count == 0)
            return;
        pick.left = bns_prng_below(p, count);
        if (bns_vfs_list(n->vfs, dir, nth_name, &pick, NULL) < 0 ||
            bns_vfs_stat(n->vfs, path, &st, NULL) != BNS_OK)
            return;
    }
    if (st.is_dir || st.size == 0)
        return;
    bns_world_note(w, "%s rot in %s", n->host, path);
    bns_world_record_event(w, BNS_TRACE_FAULT, n->id, 0, "disk: rot");
    if (bns_vfs_mem_flip(n->vfs, path, bns_prng_below(p, st.size),
                         (uint8_t)(1u << bns_prng_below(p, 8))) != BNS_OK)
        bns_world_note(w, "rot missed");
}

static void room_again(struct sim_event *e)
{
    struct bns_world *w = e->ctx;

    sim_node_disk(&w->nodes[e->n]);
    bns_world_record_event(w, BNS_TRACE_FAULT, (unsigned)e->n, 0, "disk: room again");
}

/* The disk is as full as it is, until later. */
static void strike_full(struct bns_world *w, struct sim_node *n)
{
    uint64_t ns = bns_prng_below(&w->prng_nemesis, w->cfg.nemesis.full_max_ns + 1);

    bns_world_note(w, "%s disk full", n->host);
    bns_world_record_event(w, BNS_TRACE_FAULT, n->id, 0, "disk: full");
    bns_vfs_mem_config(n->vfs)->capacity_bytes = bns_vfs_mem_stats(n->vfs).used_bytes + 1;
    sim_at(w, NULL, w->now + ns, "room", room_again, w)->n = n->id;
}

static void strike_server(struct bns_world *w, unsigned id)
{
    const struct bns_world_nemesis *f = &w->cfg.nemesis;
    struct bns_prng *p = &w->prng_nemesis;
    struct sim_node *n = &w->nodes[id];

    if (bns_prng_chance(p, f->crash))
        strike_crash(w, id);
    if (bns_prng_chance(p, f->pause))
        bns_world_pause(w, id, bns_prng_below(p, f->pause_max_ns + 1));
    if (bns_prng_chance(p, f->jump)) {
        bns_world_jump(w, id, (int64_t)bns_prng_below(p, 120001) - 60000);
        bns_world_record_event(w, BNS_TRACE_FAULT, id, 0, "clock: jump");
    }
    if (bns_prng_chance(p, f->reset))
        bns_world_reset_one(w, id, bns_prng_chance(p, f->half_open));
    if (f->full > 0 && bns_prng_chance(p, f->full))
        strike_full(w, n);
    if (f->oom > 0 && bns_prng_chance(p, f->oom)) {
        bns_test_heap_fail_at(n->heap, 1 + (int)bns_prng_below(p, 100));
        bns_world_record_event(w, BNS_TRACE_FAULT, id, 0, "memory: an allocation will fail");
    }
    if (id < w->cfg.victims && n->state == BNS_NODE_UP && bns_prng_chance(p, w->cfg.disk.rot))
        strike_rot(w, n);
    for (unsigned to = 0; to < w->cfg.nodes && f->clog > 0; to++) {
        if (to != id && bns_prng_chance(p, f->clog))
            bns_world_clog(w, id, to, bns_prng_below(p, f->clog_max_ns + 1));
    }
}

static void tick(struct sim_event *e)
{
    struct bns_world *w = e->ctx;
    const struct bns_world_nemesis *f = &w->cfg.nemesis;
    struct bns_prng *p = &w->prng_nemesis;

    w->tick = sim_at(w, NULL, w->now + TICK_NS, "tick", tick, w);
    if (!w->partitioned && bns_prng_chance(p, f->partition)) {
        strike_partition(w);
    } else if (w->partitioned && bns_prng_chance(p, f->partition_end)) {
        bns_world_record_event(w, BNS_TRACE_FAULT, BNS_TRACE_NONE, 0, "partition ends");
        bns_world_connect_all(w);
    }
    if (bns_prng_chance(p, f->crash_all)) {
        for (unsigned id = 0; id < w->cfg.servers; id++)
            strike_crash(w, id);
        return;
    }
    for (unsigned id = 0; id < w->cfg.servers; id++)
        strike_server(w, id);
}

void bns_world_nemesis(struct bns_world *w, bool on)
{
    uint32_t max = w->cfg.nemesis.drift_max_ppm;

    sim_cancel(w, w->tick);
    w->tick = NULL;
    if (!on)
        return;
    w->tick = sim_at(w, NULL, w->now + TICK_NS, "tick", tick, w);
    for (unsigned id = 0; id < w->cfg.servers && max > 0; id++)
        bns_world_drift(w, id,
                        (int32_t)bns_prng_below(&w->prng_nemesis, 2 * max + 1) - (int32_t)max);
}

void bns_world_heal(struct bns_world *w)
{
    struct bns_world_config calm = bns_world_calm(w->cfg.nodes);

    bns_world_note(w, "heal");
    bns_world_record_event(w, BNS_TRACE_FAULT, BNS_TRACE_NONE, 0, "heal");
    bns_world_nemesis(w, false);
    bns_world_connect_all(w);
    w->cfg.net = calm.net;
    calm.disk.capacity_bytes = 0;
    w->cfg.disk = calm.disk;
    for (unsigned id = 0; id < w->cfg.nodes; id++) {
        struct sim_node *n = &w->nodes[id];
        sim_node_disk(n);
        bns_vfs_mem_fail_at(n->vfs, 0, BNS_VFAULT_NONE);
        bns_test_heap_fail_at(n->heap, 0);
        n->cut_soon = false;
        bns_world_drift(w, id, 0);
        if (n->state == BNS_NODE_UP && n->paused_until > w->now)
            bns_world_pause(w, id, 0);
        bns_world_restart(w, id);
    }
}
