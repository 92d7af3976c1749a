/* raft_world_node.c - the driver of one core: its disk, its state machine, its clock.
 *
 * Disk: PERSISTs queue up; one sync takes all that is queued (group commit) and takes a while; then
 * all of it is durable at once and STORED is stepped with the newest number. A power cut loses what
 * is not durable, except that a prefix of the PERSISTs in flight may have made it (each is atomic,
 * as the WAL's batches are).
 * State machine: applies at once, tells so later; makes itself durable every `snap_every` entries.
 * Install: staged at RECEIVED, durable and in force when RW_INSTALLED fires.
 * Clock: runs at its own speed; starts anywhere.
 */
#include "sim/raft_world_int.h"

static void drain(struct rw_world *w, struct rw_node *n);

static uint64_t local_now(const struct rw_world *w, const struct rw_node *n)
{
    uint64_t dt = w->now - n->booted_at;
    return n->booted_local + dt + (uint64_t)((int64_t)dt * n->drift_ppm / 1000000);
}

static uint64_t world_time(const struct rw_node *n, uint64_t local)
{
    uint64_t dt = local <= n->booted_local ? 0 : local - n->booted_local;
    return n->booted_at + dt * 1000000 / (uint64_t)(1000000 + n->drift_ppm) + 2;
}

/* Timers are lazy: one that fires too early is set again. */
static void timer_set(struct rw_world *w, struct rw_node *n)
{
    uint64_t d = bns_raft_deadline(n->raft);
    uint64_t at;

    if (d == UINT64_MAX)
        return;
    at = world_time(n, d);
    if (at < w->now)
        at = w->now;
    if (n->timer.node.pos != 0 && n->timer.node.key <= at)
        return;
    bns_heap_del(&w->heap, &n->timer.node);
    rw_schedule(w, &n->timer, at);
}

/* ---- disk ----------------------------------------------------------------------------------- */

static void write_free(struct rw_world *w, struct rw_write *q)
{
    for (size_t i = 0; i < q->count; i++)
        bns_rcbuf_put(q->entries[i].data);
    bns_free(&w->alloc, q->entries);
    bns_free(&w->alloc, q);
}

static void disk_room(struct rw_world *w, struct rw_disk *d, uint64_t index)
{
    size_t old = d->cap;
    size_t cap = d->cap;

    if (index < old)
        return;
    d->chain = rw_grow(w, d->chain, &cap, (size_t)index + 1, sizeof *d->chain);
    d->log = rw_grow(w, d->log, &d->cap, (size_t)index + 1, sizeof *d->log);
    if (d->log != NULL)
        memset(d->log + old, 0, (d->cap - old) * sizeof *d->log);
}

static void disk_cut(struct rw_disk *d, uint64_t from)
{
    for (uint64_t i = from > d->base ? from : d->base + 1; i <= d->last; i++) {
        bns_rcbuf_put(d->log[i].data);
        d->log[i].data = NULL;
    }
    if (d->last >= from)
        d->last = from - 1;
    if (d->conf_top > d->last) /* the one before it, if there is one */
        for (d->conf_top = d->last; d->conf_top > d->base;)
            if (d->log[d->conf_top].kind == BNS_RAFT_CONF || --d->conf_top == d->base)
                break;
}

static void disk_write(struct rw_world *w, struct rw_disk *d, const struct rw_write *q)
{
    if (q->has_state) {
        d->term = q->term;
        d->vote = q->vote;
        d->commit = q->commit;
    }
    if (q->has_snap) {
        disk_cut(d, d->base + 1);
        disk_room(w, d, q->snap.index);
        d->base = d->last = q->snap.index;
        d->base_term = q->snap.term;
        d->base_conf = q->snap.conf;
        if (!rw_failed(w))
            d->chain[d->base] = q->snap.digest;
    }
    if (q->truncate_from != 0)
        disk_cut(d, q->truncate_from);
    if (q->count == 0 || rw_failed(w))
        return;
    if (q->first != d->last + 1) {
        rw_fail(w, "PERSIST begins at %llu, the disk ends at %llu", (unsigned long long)q->first,
                (unsigned long long)d->last);
        return;
    }
    disk_room(w, d, q->first + q->count - 1);
    for (size_t i = 0; i < q->count && !rw_failed(w); i++) {
        d->last++;
        d->log[d->last] = q->entries[i];
        if (q->entries[i].kind == BNS_RAFT_CONF)
            d->conf_top = d->last;
        if (q->entries[i].data != NULL)
            bns_rcbuf_get(q->entries[i].data);
        d->chain[d->last] = rw_chain(d->chain[d->last - 1], &q->entries[i]);
    }
}

static uint64_t disk_delay(struct rw_world *w)
{
    uint64_t ns = w->swarm.disk_ns / 2 + bns_prng_below(&w->disk, w->swarm.disk_ns);
    if (!w->healed && bns_prng_chance(&w->disk, w->swarm.slow_disk))
        ns += bns_prng_below(&w->disk, RW_SEC);
    return ns;
}

static void disk_start(struct rw_world *w, struct rw_node *n)
{
    struct rw_write *q = n->disk.queue;

    if (q == NULL || n->disk.flight_seq != 0)
        return;
    while (q->next != NULL)
        q = q->next;
    n->disk.flight_seq = q->seq;
    (void)rw_event_new(w, RW_DISK, n->i, disk_delay(w));
}

/* Makes the oldest queued writes up to seq durable. */
static void disk_sync(struct rw_world *w, struct rw_node *n, uint64_t seq)
{
    struct rw_disk *d = &n->disk;

    while (d->queue != NULL && d->queue->seq <= seq) {
        struct rw_write *q = d->queue;
        d->queue = q->next;
        disk_write(w, d, q);
        write_free(w, q);
    }
    if (d->queue == NULL)
        d->queue_tail = &d->queue;
}

static void persist(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o)
{
    struct rw_write *q = bns_alloc_zero(&w->alloc, sizeof *q);
    size_t cap = n->chain_cap;

    if (q == NULL) {
        rw_fail(w, "out of memory");
        return;
    }
    q->seq = o->seq;
    q->truncate_from = o->truncate_from;
    q->has_state = o->has_state;
    q->term = o->term;
    q->vote = o->vote;
    q->commit = o->commit;
    if (o->snap != NULL) {
        q->has_snap = true;
        q->snap = n->sm; /* installed before the log is cut */
        q->snap.term = o->snap->term;
        if (n->sm.index != o->snap->index)
            rw_fail(w, "node %u cuts its log at %llu, its state is at %llu", n->i + 1,
                    (unsigned long long)o->snap->index, (unsigned long long)n->sm.index);
    }
    n->chain =
        rw_grow(w, n->chain, &cap, (size_t)raft_log_last(&n->raft->log) + 1, sizeof *n->chain);
    n->chain_cap = cap;
    if (q->has_snap && !rw_failed(w))
        n->chain[o->snap->index] = n->sm.digest;
    if (o->entries_count > 0 && !rw_failed(w)) {
        q->entries = bns_alloc_array(&w->alloc, o->entries_count, sizeof *q->entries);
        q->first = o->entries[0].index;
        for (size_t i = 0; q->entries != NULL && i < o->entries_count && !rw_failed(w); i++) {
            q->entries[q->count++] = o->entries[i];
            if (o->entries[i].data != NULL)
                bns_rcbuf_get(o->entries[i].data);
            rw_check_entry(w, n, &o->entries[i]);
        }
    }
    *n->disk.queue_tail = q;
    n->disk.queue_tail = &q->next;
}

/* ---- outputs -------------------------------------------------------------------------------- */

static struct rw_event *message(struct rw_world *w, struct rw_node *n, const struct bns_raft_msg *m)
{
    struct rw_event *e = rw_event_new(w, RW_DELIVER, (uint32_t)m->to - 1, UINT64_MAX);

    if (e == NULL)
        return NULL;
    e->from = n->i;
    e->from_life = n->life;
    e->msg = *m;
    e->msg.entries = NULL;
    if (m->entries_count > 0) {
        e->entries = bns_alloc_array(&w->alloc, m->entries_count, sizeof *e->entries);
        if (e->entries == NULL) {
            rw_fail(w, "out of memory");
            rw_event_free(w, e);
            return NULL;
        }
        memcpy(e->entries, m->entries, m->entries_count * sizeof *e->entries);
        for (size_t i = 0; i < m->entries_count; i++)
            if (e->entries[i].data != NULL)
                bns_rcbuf_get(e->entries[i].data);
        e->msg.entries = e->entries;
    }
    return e;
}

static void leave(struct rw_world *w, struct rw_node *n, struct rw_event *e)
{
    rw_check_sent(w, n, &e->msg);
    rw_net_send(w, e);
}

static void send(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o)
{
    struct rw_event *e = message(w, n, &o->msg);

    if (e == NULL)
        return;
    if (o->after_seq <= n->stored_seq || BNS_MUTANT(&w->opt, 3)) {
        leave(w, n, e);
        return;
    }
    n->held = rw_grow(w, n->held, &n->held_cap, n->held_count + 1, sizeof *n->held);
    if (n->held != NULL)
        n->held[n->held_count++] = (struct rw_held){o->after_seq, e};
}

static void release(struct rw_world *w, struct rw_node *n)
{
    size_t keep = 0;

    for (size_t i = 0; i < n->held_count; i++) {
        if (n->held[i].after_seq <= n->stored_seq)
            leave(w, n, n->held[i].ev);
        else
            n->held[keep++] = n->held[i];
    }
    n->held_count = keep;
}

static void apply(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o)
{
    if (n->applying) {
        rw_fail(w, "node %u: two APPLY at once", n->i + 1);
        return;
    }
    for (size_t i = 0; i < o->entries_count && !rw_failed(w); i++) {
        rw_check_apply(w, n, &o->entries[i]);
        if (rw_op(&o->entries[i]) != 0)
            rw_client_applied(w, n, rw_op(&o->entries[i]));
    }
    n->applying = true;
    (void)rw_event_new(w, RW_APPLIED, n->i, bns_prng_below(&w->disk, RW_MS));
    rw_client_applied(w, n, 0); /* reads that waited for this index */
}

static void install(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o)
{
    if (n->staged.index != o->snap->index || n->installing) {
        rw_fail(w, "node %u: INSTALL of what was not received", n->i + 1);
        return;
    }
    n->installing = true;
    (void)rw_event_new(w, RW_INSTALLED, n->i, disk_delay(w));
}

static void honour(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o)
{
    switch (o->kind) {
    case BNS_RAFT_OUT_PERSIST:
        persist(w, n, o);
        break;
    case BNS_RAFT_OUT_SEND:
        send(w, n, o);
        break;
    case BNS_RAFT_OUT_APPLY:
        rw_check_node(w, n); /* the shadow log must have it first */
        if (!rw_failed(w))
            apply(w, n, o);
        break;
    case BNS_RAFT_OUT_READ_OK:
    case BNS_RAFT_OUT_READ_FAIL:
        rw_client_read(w, n, o);
        break;
    case BNS_RAFT_OUT_SEND_SNAPSHOT:
        rw_net_stream(w, n, (uint32_t)o->peer - 1);
        break;
    case BNS_RAFT_OUT_INSTALL:
        install(w, n, o);
        break;
    case BNS_RAFT_OUT_ROLE:
        break;
    }
}

static void drain(struct rw_world *w, struct rw_node *n)
{
    struct bns_raft_out o;

    while (!rw_failed(w) && bns_raft_next(n->raft, &o))
        honour(w, n, &o);
    if (rw_failed(w))
        return;
    disk_start(w, n);
    rw_check_node(w, n);
    timer_set(w, n);
}

int rw_node_step(struct rw_world *w, struct rw_node *n, struct bns_raft_in in)
{
    int rv = bns_raft_step(n->raft, local_now(w, n), &in);
    drain(w, n);
    return rv;
}

/* ---- life and death ------------------------------------------------------------------------- */

static void boot_chain(struct rw_world *w, struct rw_node *n, bool anew)
{
    struct rw_disk *d = &n->disk;
    uint64_t top = d->last > d->sm.index ? d->last : d->sm.index;

    n->chain = rw_grow(w, n->chain, &n->chain_cap, (size_t)top + 1, sizeof *n->chain);
    if (rw_failed(w))
        return;
    if (anew)
        n->chain[d->sm.index] = d->sm.digest;
    else if (d->last >= d->base)
        memcpy(n->chain + d->base, d->chain + d->base,
               (size_t)(d->last - d->base + 1) * sizeof *n->chain);
}

void rw_node_boot(struct rw_world *w, struct rw_node *n)
{
    struct rw_disk *d = &n->disk;
    const struct rw_swarm *s = &w->swarm;
    struct bns_raft_boot boot = {.term = d->term, .vote = d->vote, .applied = d->sm.index};
    struct bns_raft_config cfg = {.id = n->i + 1,
                                  .election_ns = s->election_ns,
                                  .heartbeat_ns = s->election_ns / 10,
                                  .msg_bytes_max = s->msg_bytes_max,
                                  .inflight_msgs_max = s->inflight_msgs_max,
                                  .inflight_bytes_max = s->msg_bytes_max * 8,
                                  .apply_bytes_max = s->msg_bytes_max,
                                  .uncommitted_bytes_max = 64u << 10,
                                  .trailing_entries = s->trailing,
                                  .reads_max = 64,
                                  .mutant = w->opt.mutant};
    bool holds = d->sm.index >= d->base && d->sm.index <= d->last &&
                 (d->sm.index == d->base ? d->base_term : d->log[d->sm.index].term) == d->sm.term;
    int rv;

    disk_room(w, d, d->last + 1);
    if (rw_failed(w))
        return;
    if (d->base == 0)
        d->chain[0] = 0;
    cfg.seed = bns_prng_next(&w->fault);
    if (holds) {
        boot.snap.index = d->base;
        boot.snap.term = d->base_term;
        boot.entries = d->log + d->base + 1;
        boot.entries_count = (size_t)(d->last - d->base);
    } else { /* an install whose PERSIST got lost: the log starts anew at the state */
        disk_cut(d, d->base + 1);
        disk_room(w, d, d->sm.index + 1);
        d->base = d->last = boot.snap.index = d->sm.index;
        d->base_term = boot.snap.term = d->sm.term;
        d->base_conf = d->sm.conf;
        d->chain[d->base] = d->sm.digest;
    }
    boot.commit = d->commit > d->last ? d->last : d->commit;
    if (boot.term < boot.snap.term)
        boot.term = boot.snap.term;
    rw_conf_expand(d->base_conf, &boot.snap.conf);
    n->life++;
    n->booted_at = w->now;
    n->booted_local = RW_SEC + bns_prng_below(&w->fault, 100 * RW_SEC);
    n->sm = d->sm;
    n->applying = n->snapping = n->installing = false;
    n->stored_seq = 0;
    n->timer.kind = RW_TIMER;
    n->timer.to = n->i;
    n->timer.life = n->life;
    boot_chain(w, n, !holds);
    rv = bns_raft_init(&n->raft, &cfg, &boot, &w->alloc, n->booted_local);
    if (rv != BNS_OK) {
        n->raft = NULL;
        rw_fail(w, "node %u cannot start: %s", n->i + 1, bns_err_name(rv));
        return;
    }
    rw_check_boot(w, n);
    if (!rw_failed(w))
        drain(w, n);
}

void rw_node_crash(struct rw_world *w, struct rw_node *n)
{
    struct rw_disk *d = &n->disk;

    if (n->raft == NULL)
        return;
    w->res->crashes++;
    bns_raft_close(n->raft);
    n->raft = NULL;
    n->paused_until = 0;
    bns_heap_del(&w->heap, &n->timer.node);
    for (size_t i = 0; i < n->held_count; i++)
        rw_event_free(w, n->held[i].ev);
    n->held_count = 0;
    if (d->flight_seq != 0 && bns_prng_chance(&w->disk, w->swarm.torn)) {
        uint64_t first = d->queue->seq; /* a prefix of what was in flight made it */
        disk_sync(w, n, first + bns_prng_below(&w->disk, d->flight_seq - first + 1));
    }
    while (d->queue != NULL) {
        struct rw_write *q = d->queue;
        d->queue = q->next;
        write_free(w, q);
    }
    d->queue_tail = &d->queue;
    d->flight_seq = 0;
}

void rw_node_free(struct rw_world *w, struct rw_node *n)
{
    rw_node_crash(w, n);
    disk_cut(&n->disk, n->disk.base + 1);
    bns_free(&w->alloc, n->disk.log);
    bns_free(&w->alloc, n->disk.chain);
    bns_free(&w->alloc, n->chain);
    bns_free(&w->alloc, n->held);
}

/* ---- events --------------------------------------------------------------------------------- */

static void snapped(struct rw_world *w, struct rw_node *n, const struct rw_sm *sm)
{
    struct rw_disk *d = &n->disk;
    uint64_t base;

    n->snapping = false;
    if (sm->index <= d->sm.index || n->installing)
        return;
    d->sm = *sm;
    w->res->snapshots++;
    rw_node_step(w, n,
                 (struct bns_raft_in){.kind = BNS_RAFT_IN_SNAPSHOT_TAKEN, .index = sm->index});
    if (rw_failed(w))
        return;
    base = n->raft->log.snap_index; /* the disk forgets what the core forgot */
    if (base > d->base && base <= d->last) {
        uint64_t term = d->log[base].term;
        d->base_conf = rw_conf_on(d, base);
        for (uint64_t i = d->base + 1; i <= base; i++) {
            bns_rcbuf_put(d->log[i].data);
            d->log[i].data = NULL;
        }
        d->base = base;
        d->base_term = term;
    }
}

static void applied(struct rw_world *w, struct rw_node *n)
{
    struct rw_sm sm = n->sm; /* before the next APPLY */
    struct rw_event *e;

    n->applying = false;
    rw_node_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = sm.index});
    if (rw_failed(w) || n->snapping || n->installing ||
        sm.index < n->disk.sm.index + w->swarm.snap_every)
        return;
    e = rw_event_new(w, RW_SNAPPED, n->i, disk_delay(w));
    if (e == NULL)
        return;
    e->snap = bns_alloc(&w->alloc, sizeof *e->snap);
    if (e->snap == NULL)
        return;
    *e->snap = sm;
    n->snapping = true;
}

static void installed(struct rw_world *w, struct rw_node *n)
{
    if (n->applying) { /* the batch that is with the state machine comes first */
        (void)rw_event_new(w, RW_INSTALLED, n->i, RW_MS);
        return;
    }
    n->installing = false;
    n->sm = n->disk.sm = n->staged;
    rw_node_step(w, n,
                 (struct bns_raft_in){.kind = BNS_RAFT_IN_INSTALLED, .index = n->staged.index});
    if (!rw_failed(w))
        rw_client_applied(w, n, 0);
}

static void streamed(struct rw_world *w, struct rw_node *n, struct rw_event *e)
{
    struct bns_raft_snapmeta meta = {.index = e->snap->index, .term = e->snap->term};
    struct bns_raft_in in = {
        .kind = BNS_RAFT_IN_SNAPSHOT_RECEIVED, .snap = &meta, .peer = e->from + 1, .term = e->term};
    int rv;

    if (n->installing)
        return;
    n->staged = *e->snap;
    rw_conf_expand(e->snap->conf, &meta.conf);
    rv = rw_node_step(w, n, in);
    if (rv != BNS_OK)
        rw_fail(w, "node %u refuses a snapshot: %s", n->i + 1, bns_err_name(rv));
}

static void disk_done(struct rw_world *w, struct rw_node *n)
{
    uint64_t seq = n->disk.flight_seq;

    n->disk.flight_seq = 0;
    disk_sync(w, n, seq);
    if (rw_failed(w))
        return;
    n->stored_seq = seq;
    release(w, n);
    rw_node_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = seq});
}

/* An event for a node that is up, in its present life, and not paused. */
void rw_node_event(struct rw_world *w, struct rw_node *n, struct rw_event *e)
{
    int rv = BNS_OK;

    switch (e->kind) {
    case RW_TIMER:
        if (bns_raft_deadline(n->raft) <= local_now(w, n))
            rv = rw_node_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_TIMER});
        else
            timer_set(w, n);
        break;
    case RW_DELIVER:
        w->res->messages++;
        rv = rw_node_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = &e->msg});
        break;
    case RW_DISK:
        disk_done(w, n);
        break;
    case RW_APPLIED:
        applied(w, n);
        break;
    case RW_SNAPPED:
        snapped(w, n, e->snap);
        break;
    case RW_STREAMED:
        if (e->flag) /* at the receiver: it is here; at the sender: how it went */
            streamed(w, n, e);
        else
            rv = rw_node_step(w, n,
                              (struct bns_raft_in){.kind = BNS_RAFT_IN_SNAPSHOT_SENT,
                                                   .peer = e->from + 1,
                                                   .ok = e->msg.reject == false,
                                                   .index = e->term});
        break;
    case RW_INSTALLED:
        installed(w, n);
        break;
    default:
        BNS_ASSERT(false);
    }
    if (rv != BNS_OK)
        rw_fail(w, "node %u: honest input refused: %s (event %d, message %u)", n->i + 1,
                bns_err_name(rv), (int)e->kind, e->msg.type);
}
