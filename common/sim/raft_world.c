/* raft_world.c - the world of the Raft simulator: events, clients, one run.
 *
 * One heap of events ordered by (virtual ns, sequence). Randomness is split by concern (network,
 * disk, load, faults), so that a further draw in one does not shift the others. Every event is
 * folded into the run's hash.
 *
 * Clients: each has one operation at a time, through a random node; it is answered when that node
 * has applied it, or given up after a timeout (it may still happen). A read must see at least what
 * any client saw before it began: acked_index is the highest index whose effect any client has
 * seen, through an acknowledged write or a finished read; a read that begins notes it as its floor,
 * and a read index below the floor is a stale read.
 *
 * After the faults: everything is healed, half of the seeds lose power everywhere once more, no
 * client writes. The group must agree on a leader within 10 election timeouts, commit and apply all
 * that is in the log (only a no-op can do that), and then answer a write and a read of each client.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/varint.h"
#include "sim/raft_world_int.h"

#define CLIENT_TIMEOUT (3 * RW_SEC)

/* ---- memory: counted, so that a bound can be checked ---------------------------------------- */

static void *count_resize(void *ctx, void *ptr, size_t n)
{
    struct rw_world *w = ctx;
    const struct bns_alloc *a = bns_alloc_libc();
    uint64_t *p = ptr == NULL ? NULL : (uint64_t *)ptr - 2;
    uint64_t old = p == NULL ? 0 : p[0];
    uint64_t *q = bns_resize(a, p, n + 16);

    if (q == NULL)
        return NULL;
    q[0] = n;
    w->memory += n - old;
    if (w->memory > w->memory_max)
        w->memory_max = w->memory;
    return q + 2;
}

static void *count_alloc(void *ctx, size_t n)
{
    return count_resize(ctx, NULL, n);
}

static void count_release(void *ctx, void *ptr)
{
    struct rw_world *w = ctx;
    uint64_t *p = ptr == NULL ? NULL : (uint64_t *)ptr - 2;

    if (p == NULL)
        return;
    w->memory -= p[0];
    bns_free(bns_alloc_libc(), p);
}

/* Doubles until `want` elements fit; on failure marks the world and returns what was there. */
void *rw_grow(struct rw_world *w, void *ptr, size_t *cap, size_t want, size_t size)
{
    size_t n = *cap == 0 ? 64 : *cap;
    void *p;

    if (want <= *cap)
        return ptr;
    while (n < want)
        n *= 2;
    p = bns_resize(&w->alloc, ptr, n * size);
    if (p == NULL) {
        rw_fail(w, "out of memory");
        return ptr;
    }
    *cap = n;
    return p;
}

bool rw_failed(const struct rw_world *w)
{
    return !w->res->ok;
}

void rw_fail(struct rw_world *w, const char *fmt, ...)
{
    va_list ap;

    if (!w->res->ok)
        return; /* the first is the cause */
    w->res->ok = false;
    va_start(ap, fmt);
    (void)vsnprintf(w->res->bad, sizeof w->res->bad, fmt, ap); /* cut when too long */
    va_end(ap);
}

/* ---- events --------------------------------------------------------------------------------- */

void rw_schedule(struct rw_world *w, struct rw_event *e, uint64_t at)
{
    if (bns_heap_insert(&w->heap, &e->node, at) != BNS_OK)
        rw_fail(w, "out of memory");
}

/* after_ns UINT64_MAX: not scheduled yet. */
struct rw_event *rw_event_new(struct rw_world *w, enum rw_event_kind kind, uint32_t to,
                              uint64_t after_ns)
{
    struct rw_event *e = w->free_events;

    if (e != NULL)
        w->free_events = e->next_free;
    else
        e = bns_alloc(&w->alloc, sizeof *e);
    if (e == NULL) {
        rw_fail(w, "out of memory");
        return NULL;
    }
    memset(e, 0, sizeof *e);
    e->kind = kind;
    e->to = to;
    if (to < w->nodes_count)
        e->life = w->nodes[to].life;
    if (after_ns != UINT64_MAX)
        rw_schedule(w, e, w->now + after_ns);
    return e;
}

void rw_event_free(struct rw_world *w, struct rw_event *e)
{
    if (e->kind == RW_TIMER || e->kind == RW_CLIENT || e->kind == RW_FAULT)
        return; /* embedded */
    for (size_t i = 0; i < e->msg.entries_count && e->entries != NULL; i++)
        bns_rcbuf_put(e->entries[i].data);
    bns_free(&w->alloc, e->entries);
    bns_free(&w->alloc, e->snap);
    e->next_free = w->free_events;
    w->free_events = e;
}

/* ---- clients -------------------------------------------------------------------------------- */

static void client_idle(struct rw_world *w, struct rw_client *c, bool well)
{
    uint64_t think = w->healed ? 20 * RW_MS : w->swarm.think_ns;

    c->state = RW_IDLE;
    c->op = 0;
    if (well)
        c->done++;
    bns_heap_del(&w->heap, &c->ev.node);
    rw_schedule(w, &c->ev, w->now + 1 + bns_prng_below(&w->load, 2 * think));
}

static struct bns_rcbuf *payload(struct rw_world *w, uint64_t op)
{
    size_t len = 8 + (size_t)bns_prng_below(&w->load, w->swarm.data_max);
    struct bns_rcbuf *b = bns_rcbuf_new(&w->alloc, len);

    if (b == NULL)
        rw_fail(w, "out of memory");
    else
        bns_put_u64le(b->bytes, op);
    return b;
}

static uint64_t new_op(struct rw_world *w, const struct rw_client *c)
{
    return ++w->ops << 4 | c->i;
}

static int client_write(struct rw_world *w, struct rw_client *c, struct rw_node *n)
{
    struct bns_rcbuf *data[8] = {NULL};
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = data};
    int rv;

    in.data_count = 1 + (size_t)bns_prng_below(&w->load, w->swarm.batch_max);
    if (w->healed) /* with one entry a round trip, some worlds cannot take everyone's batches */
        in.data_count = 1;
    for (size_t i = 0; i < in.data_count; i++) {
        data[i] = payload(w, i == 0 ? c->op : new_op(w, c));
        if (data[i] == NULL)
            in.data_count = i;
    }
    c->state = RW_WRITING;
    rv = rw_node_step(w, n, in);
    for (size_t i = 0; i < in.data_count; i++)
        bns_rcbuf_put(data[i]);
    if (rv != BNS_OK && rv != BNS_E_BUSY && rv != BNS_E_NOTLEADER)
        rw_fail(w, "PROPOSE answered %s", bns_err_name(rv));
    return rv;
}

/* The request is on its way from now on: a paused node finds it when it wakes up. */
static void client_start(struct rw_world *w, struct rw_client *c)
{
    uint32_t to = (uint32_t)bns_prng_below(&w->load, w->nodes_count);
    struct rw_event *e;

    while (w->healed && !rw_member(w, to)) /* who was removed serves nobody */
        to = (to + 1) % w->nodes_count;
    e = rw_event_new(w, RW_REQUEST, to, bns_prng_below(&w->load, 2 * RW_MS));
    if (e == NULL)
        return;
    c->read = bns_prng_chance(&w->load, w->swarm.read_share);
    if (w->healed)
        c->read = (c->done & 1) != 0;
    c->op = new_op(w, c);
    c->state = RW_SENT;
    c->read_index = 0;
    c->floor = w->acked_index;
    e->from = c->i;
    e->term = c->op;
    rw_schedule(w, &c->ev, w->now + CLIENT_TIMEOUT);
}

void rw_client_request(struct rw_world *w, struct rw_node *n, const struct rw_event *e)
{
    struct rw_client *c = &w->clients[e->from];
    int rv;

    if (c->op != e->term || c->state != RW_SENT)
        return; /* given up meanwhile */
    c->node = n->i;
    c->life = n->life;
    if (n->raft == NULL) {
        client_idle(w, c, false);
        return;
    }
    if (c->read) {
        c->state = RW_READING;
        rv = rw_node_step(w, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_READ, .cookie = c->op});
        if (rv != BNS_OK && rv != BNS_E_BUSY)
            rw_fail(w, "READ answered %s", bns_err_name(rv));
    } else {
        rv = client_write(w, c, n);
    }
    if (rv != BNS_OK && !rw_failed(w))
        client_idle(w, c, false);
}

static void client_event(struct rw_world *w, struct rw_client *c)
{
    if (c->state != RW_IDLE) {
        client_idle(w, c, false); /* timeout: the outcome stays unknown */
        return;
    }
    if (w->quiet) {
        rw_schedule(w, &c->ev, w->now + 50 * RW_MS);
        return;
    }
    client_start(w, c);
}

static void seen(struct rw_world *w, uint64_t index)
{
    if (index > w->acked_index)
        w->acked_index = index;
}

/* n has applied op (0: some index): whose answer was that? */
void rw_client_applied(struct rw_world *w, struct rw_node *n, uint64_t op)
{
    struct rw_client *c = &w->clients[op & 15];

    if (op != 0) {
        if (c->op != op || c->state != RW_WRITING || c->node != n->i || c->life != n->life)
            return;
        w->res->writes++;
        seen(w, n->sm.index);
        client_idle(w, c, true);
        return;
    }
    for (uint32_t i = 0; i < w->swarm.clients; i++) {
        c = &w->clients[i];
        if (c->state != RW_READING || c->read_index == 0 || c->node != n->i || c->life != n->life ||
            n->sm.index + 1 < c->read_index)
            continue;
        w->res->reads++;
        seen(w, n->sm.index);
        client_idle(w, c, true);
    }
}

void rw_client_read(struct rw_world *w, struct rw_node *n, const struct bns_raft_out *o)
{
    struct rw_client *c = &w->clients[o->cookie & 15];

    if (c->op != o->cookie || c->state != RW_READING || c->life != n->life)
        return; /* given up */
    if (o->kind == BNS_RAFT_OUT_READ_FAIL) {
        client_idle(w, c, false);
        return;
    }
    if (o->index < c->floor) {
        rw_fail(w, "stale read: node %u answers index %llu, index %llu was seen before", n->i + 1,
                (unsigned long long)o->index, (unsigned long long)c->floor);
        return;
    }
    if (c->read_index != 0)
        rw_fail(w, "node %u answered a read twice", n->i + 1);
    c->read_index = o->index + 1;
    rw_client_applied(w, n, 0);
}

/* ---- the run -------------------------------------------------------------------------------- */

static void trace(struct rw_world *w, const struct rw_event *e)
{
    const struct bns_raft_msg *m = &e->msg;
    static const char *const names[] = {"timer",    "deliver",   "disk",    "applied", "snapped",
                                        "streamed", "installed", "restart", "request", "client",
                                        "fault",    "topple",    "change"};

    (void)fprintf(stderr, "%10.3f ms %s to %u", (double)w->now / 1e6, names[e->kind], e->to + 1);
    if (e->kind == RW_DELIVER)
        (void)fprintf(stderr, " from %u type %u term %llu index %llu/%llu +%zu commit %llu%s",
                      e->from + 1, m->type, (unsigned long long)m->term,
                      (unsigned long long)m->index, (unsigned long long)m->log_term,
                      m->entries_count, (unsigned long long)m->commit, m->reject ? " reject" : "");
    (void)fputc('\n', stderr);
    for (uint32_t i = 0; i < w->nodes_count && e->kind != RW_CLIENT; i++) {
        const struct bns_raft *r = w->nodes[i].raft;
        if (i == e->to && r != NULL)
            (void)fprintf(stderr,
                          "             role %d term %llu vote %llu log %llu..%llu durable %llu "
                          "commit %llu applied %llu\n",
                          (int)r->role, (unsigned long long)r->term, (unsigned long long)r->vote,
                          (unsigned long long)r->log.snap_index,
                          (unsigned long long)raft_log_last(&r->log),
                          (unsigned long long)r->log.durable, (unsigned long long)r->commit,
                          (unsigned long long)r->applied);
    }
}

static void fold(struct rw_world *w, const struct rw_event *e)
{
    uint64_t h = w->res->hash;

    h = rw_mix(h, w->now);
    h = rw_mix(h, (uint64_t)e->kind << 32 | e->to);
    if (e->kind == RW_DELIVER) {
        h = rw_mix(h, (uint64_t)e->msg.type << 32 | e->from);
        h = rw_mix(h, e->msg.term ^ e->msg.index << 20 ^ e->msg.commit << 40);
    }
    w->res->hash = h;
}

static void node_event(struct rw_world *w, struct rw_event *e)
{
    struct rw_node *n = &w->nodes[e->to];
    bool from_outside =
        e->kind == RW_DELIVER || (e->kind == RW_STREAMED && e->flag) || e->kind == RW_REQUEST;

    if (e->kind == RW_RESTART) {
        if (n->raft == NULL)
            rw_node_boot(w, n);
    } else if (n->raft == NULL && e->kind == RW_REQUEST) {
        rw_client_request(w, n, e);
    } else if (n->raft == NULL || (!from_outside && e->life != n->life)) {
        /* void */
    } else if (e->kind == RW_TOPPLE) {
        rw_topple(w, n);
    } else if (n->paused_until > w->now) {
        rw_schedule(w, e, n->paused_until);
        return;
    } else if (e->kind == RW_REQUEST) {
        rw_client_request(w, n, e);
    } else {
        rw_node_event(w, n, e);
    }
    rw_event_free(w, e);
}

/* One event; false when there is none, or something was violated. */
static bool tick(struct rw_world *w)
{
    struct bns_heap_node *h = bns_heap_min(&w->heap);
    struct rw_event *e;

    if (h == NULL || rw_failed(w))
        return false;
    e = BNS_CONTAINER(h, struct rw_event, node);
    bns_heap_del(&w->heap, h);
    w->now = h->key;
    w->res->events++;
    fold(w, e);
    if (w->opt.trace)
        trace(w, e);
    if (e->kind == RW_FAULT)
        rw_fault(w);
    else if (e->kind == RW_CLIENT)
        client_event(w, &w->clients[e->to]);
    else if (e->kind == RW_CHANGE) {
        rw_conf_change(w);
        rw_event_free(w, e);
    } else
        node_event(w, e);
    return !rw_failed(w);
}

static bool one_leader(struct rw_world *w)
{
    uint64_t leader = UINT64_MAX;

    for (uint32_t i = 0; i < w->nodes_count; i++) {
        if (!rw_member(w, i))
            continue;
        if (w->nodes[i].raft == NULL || w->nodes[i].raft->leader == 0)
            return false;
        if (leader != UINT64_MAX && w->nodes[i].raft->leader != leader)
            return false;
        leader = w->nodes[i].raft->leader;
    }
    return leader != 0 && w->nodes[leader - 1].raft->role == BNS_RAFT_LEADER;
}

static bool all_served(struct rw_world *w)
{
    for (uint32_t i = 0; i < w->swarm.clients; i++)
        if (w->clients[i].done < 2)
            return false;
    return true;
}

static void until(struct rw_world *w, bool (*reached)(struct rw_world *), uint64_t within,
                  const char *what)
{
    uint64_t end = (w->now > w->awake_at ? w->now : w->awake_at) + within;

    while (!reached(w)) {
        for (int i = 0; i < 16; i++)
            if (!tick(w))
                return;
        if (w->now > end) {
            rw_fail(w, "no progress: %s within %llu ms after the faults stopped", what,
                    (unsigned long long)(within / RW_MS));
            return;
        }
    }
}

static void progress(struct rw_world *w)
{
    uint64_t timeouts = 20 * w->swarm.election_ns; /* 10 of the longest */

    rw_heal(w);
    until(w, one_leader, timeouts, "no leader that all know");
    until(w, rw_converged, timeouts + 10 * RW_SEC, "logs and states differ");
    if (rw_failed(w))
        return;
    w->quiet = false;
    for (uint32_t i = 0; i < w->swarm.clients; i++)
        w->clients[i].done = 0;
    until(w, all_served, 2 * CLIENT_TIMEOUT + timeouts, "a client was not answered");
    w->quiet = true;
    until(w, rw_converged, timeouts + CLIENT_TIMEOUT, "logs and states differ at the end");
}

static bool world_open(struct rw_world *w)
{
    struct bns_prng root;

    bns_prng_seed(&root, w->opt.seed);
    w->net = bns_prng_split(&root);
    w->disk = bns_prng_split(&root);
    w->load = bns_prng_split(&root);
    w->fault = bns_prng_split(&root);
    w->plot = bns_prng_split(&root);
    w->member = bns_prng_split(&root);
    bns_heap_init(&w->heap, &w->alloc);
    w->leaders = bns_alloc_zero(&w->alloc, RW_TERMS_MAX);
    w->votes = bns_alloc_zero(&w->alloc, (size_t)RW_TERMS_MAX * RW_NODES_MAX);
    w->shadow = rw_grow(w, NULL, &w->shadow_cap, 1, sizeof *w->shadow);
    if (w->leaders == NULL || w->votes == NULL || rw_failed(w)) {
        rw_fail(w, "out of memory");
        return false;
    }
    memset(w->shadow, 0, sizeof *w->shadow);
    rw_swarm_draw(w);
    rw_conf_draw(w);
    w->shadow[0].conf = w->first;
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        struct rw_conf c = w->first;
        w->nodes[i].i = i;
        if (((uint32_t)(c.voters | c.learners) >> i & 1) != 0)
            w->nodes[i].disk.base_conf = w->nodes[i].disk.sm.conf = c;
        w->nodes[i].disk.queue_tail = &w->nodes[i].disk.queue;
    }
    for (uint32_t i = 0; i < w->nodes_count; i++)
        (void)rw_event_new(w, RW_RESTART, i, 1 + bns_prng_below(&w->fault, RW_SEC));
    for (uint32_t i = 0; i < w->swarm.clients; i++) {
        w->clients[i].i = i;
        w->clients[i].ev = (struct rw_event){.kind = RW_CLIENT, .to = i};
        rw_schedule(w, &w->clients[i].ev, bns_prng_below(&w->load, RW_SEC));
    }
    w->fault_ev.kind = RW_FAULT;
    rw_schedule(w, &w->fault_ev, RW_SEC);
    return !rw_failed(w);
}

static void world_close(struct rw_world *w)
{
    struct bns_heap_node *h;

    while ((h = bns_heap_min(&w->heap)) != NULL) {
        bns_heap_del(&w->heap, h);
        rw_event_free(w, BNS_CONTAINER(h, struct rw_event, node));
    }
    for (uint32_t i = 0; i < w->nodes_count; i++)
        rw_node_free(w, &w->nodes[i]);
    while (w->free_events != NULL) {
        struct rw_event *e = w->free_events;
        w->free_events = e->next_free;
        bns_free(&w->alloc, e);
    }
    bns_heap_free(&w->heap);
    bns_free(&w->alloc, w->leaders);
    bns_free(&w->alloc, w->votes);
    bns_free(&w->alloc, w->shadow);
    bns_free(&w->alloc, w->slots);
}

bool bns_raft_world_run(const struct bns_raft_world_options *opt,
                        struct bns_raft_world_result *result)
{
    const struct bns_alloc *a = bns_alloc_libc();
    struct rw_world *w = bns_alloc_zero(a, sizeof *w);
    uint64_t leaked;

    *result = (struct bns_raft_world_result){.ok = true};
    if (w == NULL) {
        result->ok = false;
        return false;
    }
    w->alloc = (struct bns_alloc){count_alloc, count_resize, count_release, w};
    w->opt = *opt;
    w->res = result;
    w->nodes_count = opt->nodes == 0 ? 5 : opt->nodes;
    BNS_ASSERT(w->nodes_count <= RW_NODES_MAX);
    BNS_ASSERT(opt->learners < w->nodes_count);
    w->first.voters = (uint8_t)((1u << (w->nodes_count - opt->learners)) - 1);
    w->first.learners = (uint8_t)(((1u << w->nodes_count) - 1) & ~w->first.voters);
    if (w->opt.duration_ns == 0)
        w->opt.duration_ns = 60 * RW_SEC;
    if (world_open(w)) {
        while (w->now < w->opt.duration_ns && tick(w))
            continue;
        if (!rw_failed(w))
            progress(w);
    }
    result->now_ns = w->now;
    world_close(w);
    leaked = w->memory;
    if (leaked != 0)
        rw_fail(w, "%llu bytes leaked", (unsigned long long)leaked);
    bns_free(a, w);
    return result->ok;
}
