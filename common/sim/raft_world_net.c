/* raft_world_net.c - the network between the cores, and the faults of one seed.
 *
 * Swarm: each seed draws its own rates first, and many rates are zero in a given seed, so that the
 * faults that mask each other meet alone as well (Groce et al., "Swarm testing", 2012).
 * Network: each message has its own delay, so order is not kept; it may be lost, or come twice;
 * after the healing a link keeps the order. A link may be cut in one direction only, or clogged:
 * what is sent then arrives when the clog ends. Faults that a Raft core cannot survive by design (a
 * disk that forgets what it said was durable) are not drawn here: the WAL's tests own those. So
 * every seed must end live after the healing.
 */
#include "sim/raft_world_int.h"

static uint64_t delay(struct rw_world *w)
{
    double u = bns_prng_double(&w->net);
    uint64_t mean = w->healed ? RW_MS : w->swarm.delay_mean_ns;
    uint64_t low = w->healed ? RW_MS / 10 : w->swarm.delay_min_ns;

    /* a long tail without a logarithm: u^4 spreads from 0 to 5 times the mean */
    return low + (uint64_t)(u * u * u * u * 5 * (double)mean) + 1;
}

static void transmit(struct rw_world *w, struct rw_event *e)
{
    uint64_t at = w->now + delay(w);
    struct rw_link *l = &w->links[e->from][e->to];

    if (at < l->clog_until)
        at = l->clog_until + bns_prng_below(&w->net, RW_MS);
    if (w->healed) {
        if (at <= l->last_at)
            at = l->last_at + 1;
        l->last_at = at;
    }
    rw_schedule(w, e, at);
}

static struct rw_event *copy(struct rw_world *w, const struct rw_event *e)
{
    struct rw_event *c = rw_event_new(w, e->kind, e->to, UINT64_MAX);

    if (c == NULL)
        return NULL;
    c->from = e->from;
    c->msg = e->msg;
    if (e->msg.entries_count == 0)
        return c;
    c->entries = bns_alloc_array(&w->alloc, e->msg.entries_count, sizeof *c->entries);
    if (c->entries == NULL) {
        c->msg.entries_count = 0;
        rw_event_free(w, c);
        return NULL;
    }
    memcpy(c->entries, e->entries, e->msg.entries_count * sizeof *c->entries);
    c->msg.entries = c->entries;
    for (size_t i = 0; i < e->msg.entries_count; i++)
        if (c->entries[i].data != NULL)
            bns_rcbuf_get(c->entries[i].data);
    return c;
}

void rw_net_send(struct rw_world *w, struct rw_event *e)
{
    bool lost = w->links[e->from][e->to].cut;

    if (e->to >= w->nodes_count || e->to == e->from) {
        rw_fail(w, "node %u sends to %u", e->from + 1, e->to + 1);
        rw_event_free(w, e);
        return;
    }
    if (!w->healed) {
        lost = bns_prng_chance(&w->net, w->swarm.loss) || lost;
        if (!lost && bns_prng_chance(&w->net, w->swarm.dup)) {
            struct rw_event *twin = copy(w, e);
            if (twin != NULL)
                transmit(w, twin);
        }
    }
    if (lost)
        rw_event_free(w, e);
    else
        transmit(w, e);
}

static void stream_to(struct rw_world *w, struct rw_node *n, uint32_t to, uint64_t after)
{
    struct rw_event *e = rw_event_new(w, RW_STREAMED, to, after);

    if (e == NULL)
        return;
    e->flag = true;
    e->from = n->i;
    e->term = n->raft->term;
    e->snap = bns_alloc(&w->alloc, sizeof *e->snap);
    if (e->snap == NULL)
        rw_fail(w, "out of memory");
    else
        *e->snap = n->disk.sm;
}

/* Streams what n's disk holds; both ends hear of it. */
void rw_net_stream(struct rw_world *w, struct rw_node *n, uint32_t to)
{
    uint64_t ns = delay(w) + bns_prng_below(&w->net, 200 * RW_MS);
    bool ok = !w->links[n->i][to].cut && w->nodes[to].raft != NULL;
    struct rw_event *back;

    if (!w->healed && bns_prng_chance(&w->net, w->swarm.snap_loss))
        ok = false;
    back = rw_event_new(w, RW_STREAMED, n->i, ns + delay(w));
    if (back == NULL)
        return;
    back->from = to;
    back->msg.reject = !ok;
    back->term = n->disk.sm.index;
    if (!ok)
        return;
    stream_to(w, n, to, ns);
    if (!w->healed && bns_prng_chance(&w->net, w->swarm.dup))
        stream_to(w, n, to, ns + bns_prng_below(&w->net, 2 * RW_SEC));
}

/* ---- faults --------------------------------------------------------------------------------- */

static void partition(struct rw_world *w)
{
    uint32_t n = w->nodes_count;
    bool one_way = bns_prng_chance(&w->fault, w->swarm.one_way);
    uint64_t kind = bns_prng_below(&w->fault, 3);
    uint64_t side = bns_prng_below(&w->fault, 1u << n);
    uint32_t one = (uint32_t)bns_prng_below(&w->fault, n);

    if (kind == 0)
        side = 1u << one; /* isolate one */
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t b = 0; b < n; b++) {
            bool apart = (side >> a & 1) != (side >> b & 1);
            if (kind == 2 && (a == one || b == one))
                apart = false; /* a bridge: one node hears both sides */
            if (apart && (!one_way || (side >> a & 1) != 0))
                w->links[a][b].cut = true;
        }
    }
}

static void mend(struct rw_world *w)
{
    for (uint32_t a = 0; a < w->nodes_count; a++)
        for (uint32_t b = 0; b < w->nodes_count; b++)
            w->links[a][b].cut = false;
}

static uint32_t victim(struct rw_world *w)
{
    if (bns_prng_chance(&w->fault, w->swarm.crash_leader))
        for (uint32_t i = 0; i < w->nodes_count; i++)
            if (w->nodes[i].raft != NULL && w->nodes[i].raft->role == BNS_RAFT_LEADER)
                return i;
    return (uint32_t)bns_prng_below(&w->fault, w->nodes_count);
}

static void crash(struct rw_world *w, uint32_t i)
{
    if (w->nodes[i].raft == NULL)
        return;
    rw_node_crash(w, &w->nodes[i]);
    (void)rw_event_new(w, RW_RESTART, i, bns_prng_below(&w->fault, w->swarm.restart_ns) + 1);
}

void rw_fault(struct rw_world *w)
{
    const struct rw_swarm *s = &w->swarm;

    if (bns_prng_chance(&w->fault, s->crash))
        crash(w, victim(w));
    if (s->crash > 0 && bns_prng_chance(&w->fault, 0.002)) /* power of the whole house */
        for (uint32_t i = 0; i < w->nodes_count; i++)
            crash(w, i);
    if (bns_prng_chance(&w->fault, s->pause)) {
        struct rw_node *n = &w->nodes[victim(w)];
        n->paused_until = w->now + bns_prng_below(&w->fault, s->pause_ns);
    }
    if (bns_prng_chance(&w->fault, s->heal))
        mend(w);
    if (bns_prng_chance(&w->fault, s->partition))
        partition(w);
    if (bns_prng_chance(&w->fault, s->clog)) {
        uint64_t a = bns_prng_below(&w->fault, w->nodes_count);
        uint64_t b = bns_prng_below(&w->fault, w->nodes_count);
        w->links[a][b].clog_until = w->now + bns_prng_below(&w->fault, 5 * RW_SEC);
    }
    rw_schedule(w, &w->fault_ev, w->now + 1 + bns_prng_below(&w->fault, 2 * s->fault_every_ns));
}

/* Leaders that fall before they have done much leave logs that differ (Raft paper, figure 8). */
void rw_topple(struct rw_world *w, struct rw_node *n)
{
    uint64_t with = bns_prng_below(&w->plot, 1u << w->nodes_count) | 1u << n->i;

    if (w->healed)
        return;
    if (bns_prng_chance(&w->plot, 0.5)) {
        crash(w, n->i);
        return;
    }
    for (uint32_t a = 0; a < w->nodes_count; a++)
        for (uint32_t b = 0; b < w->nodes_count; b++)
            w->links[a][b].cut = (with >> a & 1) != (with >> b & 1);
}

void rw_heal(struct rw_world *w)
{
    bool house = bns_prng_chance(&w->fault, 0.5);

    w->healed = w->quiet = true;
    bns_heap_del(&w->heap, &w->fault_ev.node);
    mend(w);
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        struct rw_node *n = &w->nodes[i];
        for (uint32_t k = 0; k < w->nodes_count; k++)
            w->links[i][k].clog_until = 0;
        if (n->paused_until > w->awake_at)
            w->awake_at = n->paused_until;
        n->paused_until = 0;
        if (house) /* all lose power: what is not committed must still find a way */
            rw_node_crash(w, n);
    }
    for (uint32_t i = 0; i < w->nodes_count && !rw_failed(w); i++)
        if (w->nodes[i].raft == NULL)
            rw_node_boot(w, &w->nodes[i]);
}

/* ---- the swarm ------------------------------------------------------------------------------ */

/* Zero in half of the seeds, otherwise up to max. */
static double rate(struct rw_world *w, double max)
{
    double v = bns_prng_double(&w->fault) * max;
    return bns_prng_chance(&w->fault, 0.5) ? 0 : v;
}

void rw_swarm_draw(struct rw_world *w)
{
    struct bns_prng *p = &w->fault;
    struct rw_swarm *s = &w->swarm;
    bool stormy = bns_prng_chance(p, 0.3);

    s->clients = (uint32_t)bns_prng_range(p, 1, RW_CLIENTS_MAX);
    s->election_ns = bns_prng_range(p, 200, 1000) * RW_MS;
    s->delay_min_ns = bns_prng_range(p, 10, 5000) * 1000;
    s->delay_mean_ns = bns_prng_range(p, 1, s->election_ns / RW_MS / 8) * RW_MS;
    s->loss = rate(w, 0.3);
    s->dup = rate(w, 0.5);
    s->clog = rate(w, 0.1);
    s->slow_disk = rate(w, 0.05);
    s->torn = rate(w, 1.0);
    s->snap_loss = rate(w, 0.5);
    s->crash = rate(w, stormy ? 0.4 : 0.1);
    s->crash_leader = bns_prng_double(p);
    s->pause = rate(w, 0.1);
    s->partition = rate(w, 0.2);
    s->one_way = rate(w, 1.0);
    s->heal = 0.02 + bns_prng_double(p) * 0.3;
    s->disk_ns = bns_prng_range(p, 100, bns_prng_chance(p, 0.3) ? 50000 : 5000) * 1000;
    s->restart_ns = bns_prng_range(p, 10, bns_prng_chance(p, 0.5) ? 300 : 8000) * RW_MS;
    s->pause_ns = bns_prng_range(p, 100, 10000) * RW_MS;
    s->fault_every_ns = bns_prng_range(p, 50, 500) * RW_MS;
    s->think_ns = s->clients * bns_prng_range(p, 15, 120) * RW_MS;
    s->snap_every = bns_prng_range(p, 10, 300);
    s->trailing = bns_prng_range(p, 1, 100);
    s->drift_ppm = bns_prng_chance(p, 0.5) ? (int64_t)bns_prng_below(p, 100000) : 0;
    s->data_max = bns_prng_chance(p, 0.3) ? 4096 : 64;
    s->msg_bytes_max = (uint32_t)bns_prng_range(p, 200, 16384);
    s->inflight_msgs_max = (uint32_t)bns_prng_range(p, 1, 64);
    s->batch_max = bns_prng_chance(p, 0.3) ? 8 : 1;
    s->read_share = bns_prng_double(p) * 0.7;
    if (w->opt.seed % 4 == 0) { /* the others stay as they were when they were written down */
        s->topple = bns_prng_double(&w->plot);
        s->msg_bytes_max = (uint32_t)bns_prng_range(&w->plot, 200, 400);
        s->data_max = 64; /* larger ones would go one by one, each with a sync of its own */
    }
    for (uint32_t i = 0; i < w->nodes_count; i++)
        w->nodes[i].drift_ppm =
            s->drift_ppm == 0
                ? 0
                : (int64_t)bns_prng_below(p, (uint64_t)s->drift_ppm * 2) - s->drift_ppm;
}
