/* raft_world_conf.c - members in the Raft simulator: who changes them, and what must hold then.
 *
 * In some of the seeds the group begins with a few of the nodes, and now and then somebody asks a
 * node, mostly one that leads, to add, promote or remove members, one or several at once, or to
 * hand over. The nodes outside are up from the beginning and know of no configuration. The draws
 * have a stream of their own, and the other seeds are what they were before.
 *
 * Invariants, beside those of raft_world_check.c, whose majorities are those of the configuration
 * that was in force:
 *   in force everywhere      a node's configuration is that of the last CONF entry up to its commit
 *                            index, in the shadow log
 *   one change at a time     no log ever holds two CONF entries that its node does not know to be
 *                            committed (on this the proof in raft_conf.c rests)
 *   not before the no-op     a leader's change follows a committed entry of its own term
 *   who leads is a voter     at the end of every event, or about to hand over
 *   hand-over when level     TIMEOUT_NOW goes only to a node whose disk has the leader's whole log
 */
#include "proto/raft_msg.h"
#include "sim/raft_world_int.h"

/* ---- sets ----------------------------------------------------------------------------------- */

static uint8_t set_of(const uint64_t *ids, size_t n)
{
    unsigned set = 0;

    for (size_t i = 0; i < n; i++)
        set |= 1u << (ids[i] - 1);
    return (uint8_t)set;
}

struct rw_conf rw_conf_of(const struct bns_raft_conf *c)
{
    return (struct rw_conf){set_of(c->voters, c->voters_count),
                            set_of(c->voters_old, c->voters_old_count),
                            set_of(c->learners, c->learners_count)};
}

struct rw_conf rw_conf_entry(const struct bns_raft_entry *e)
{
    struct bns_raft_conf_entry c;

    if (bns_raft_change_decode(bns_rcbuf_slice(e->data), &c) != BNS_OK)
        return (struct rw_conf){0};
    return rw_conf_of(&c.conf);
}

static uint8_t expand(uint8_t set, uint64_t *ids)
{
    uint8_t n = 0;

    for (uint32_t i = 0; i < RW_NODES_MAX; i++)
        if ((set >> i & 1) != 0)
            ids[n++] = i + 1;
    return n;
}

void rw_conf_expand(struct rw_conf c, struct bns_raft_conf *out)
{
    memset(out, 0, sizeof *out);
    out->voters_count = expand(c.voters, out->voters);
    out->voters_old_count = expand(c.old, out->voters_old);
    out->learners_count = expand(c.learners, out->learners);
}

bool rw_conf_same(struct rw_conf a, struct rw_conf b)
{
    return a.voters == b.voters && a.old == b.old && a.learners == b.learners;
}

/* What a node with this disk has in force when it knows `upto` to be committed. */
struct rw_conf rw_conf_on(const struct rw_disk *d, uint64_t upto)
{
    for (uint64_t i = d->conf_top < upto ? d->conf_top : upto; i > d->base; i--)
        if (d->log[i].kind == BNS_RAFT_CONF)
            return rw_conf_entry(&d->log[i]);
    return d->base_conf;
}

static uint32_t count(uint32_t set)
{
    return (uint32_t)__builtin_popcount(set);
}

/* Are these nodes a majority, of both halves? */
bool rw_conf_majority(struct rw_conf c, uint32_t nodes)
{
    return count(nodes & c.voters) > count(c.voters) / 2 &&
           (c.old == 0 || count(nodes & c.old) > count(c.old) / 2);
}

static uint32_t members(struct rw_conf c)
{
    return (uint32_t)c.voters | c.old | c.learners;
}

bool rw_member(const struct rw_world *w, uint32_t i)
{
    return (members(w->shadow[w->shadow_last].conf) >> i & 1) != 0;
}

/* ---- who changes ---------------------------------------------------------------------------- */

/* Seeds with changes; those recorded before there were any are not among them. */
static bool changes_in(uint64_t seed)
{
    return (0xec40u >> (seed & 15) & 1) != 0;
}

void rw_conf_draw(struct rw_world *w)
{
    struct bns_prng *p = &w->member;
    uint32_t first;

    if (w->opt.nodes != 0 || w->opt.learners != 0 || !changes_in(w->opt.seed))
        return;
    w->nodes_count = (uint32_t)bns_prng_range(p, 4, 6);
    first = (uint32_t)bns_prng_range(p, 1, w->nodes_count);
    w->first = (struct rw_conf){.voters = (uint8_t)((1u << first) - 1)};
    w->swarm.change_every_ns = bns_prng_range(p, 50, bns_prng_chance(p, 0.5) ? 500 : 4000) * RW_MS;
    (void)rw_event_new(w, RW_CHANGE, 0, RW_SEC);
}

static struct rw_node *whom_to_ask(struct rw_world *w)
{
    uint32_t start = (uint32_t)bns_prng_below(&w->member, w->nodes_count);
    bool any = bns_prng_chance(&w->member, 0.1);

    for (uint32_t k = 0; k < w->nodes_count; k++) {
        struct rw_node *n = &w->nodes[(start + k) % w->nodes_count];
        if (n->raft == NULL || n->paused_until > w->now)
            continue;
        if (any || n->raft->role == BNS_RAFT_LEADER)
            return n;
    }
    return NULL;
}

static enum bns_raft_change_kind kind_for(struct rw_world *w, struct rw_conf c, uint32_t i)
{
    bool coin = bns_prng_chance(&w->member, 0.5);

    if (bns_prng_chance(&w->member, 0.05))
        return (enum bns_raft_change_kind)bns_prng_range(&w->member, 1, 4);
    if (((c.voters | c.old) >> i & 1) != 0)
        return BNS_RAFT_REMOVE;
    if ((c.learners >> i & 1) != 0)
        return coin || bns_prng_chance(&w->member, 0.5) ? BNS_RAFT_PROMOTE : BNS_RAFT_REMOVE;
    return coin ? BNS_RAFT_ADD_VOTER : BNS_RAFT_ADD_LEARNER;
}

static int change(struct rw_world *w, struct rw_node *n)
{
    struct bns_raft_change ch[4];
    struct rw_conf c = rw_conf_of(&n->raft->conf);
    uint32_t at = (uint32_t)bns_prng_below(&w->member, w->nodes_count);
    struct bns_raft_in in = {
        .kind = BNS_RAFT_IN_CHANGE, .changes = ch, .context = bns_slice_str("context")};

    in.changes_count = 1;
    if (bns_prng_chance(&w->member, 0.3))
        in.changes_count = (size_t)bns_prng_below(&w->member, 4); /* none: states it */
    if (n->i != at && bns_prng_chance(&w->member, 0.1))
        at = n->i; /* the leader itself */
    for (size_t i = 0; i < in.changes_count; i++, at++) {
        at %= w->nodes_count;
        ch[i] = (struct bns_raft_change){kind_for(w, c, at), at + 1};
        /* one voter alone makes dull seeds: most of them are not left so */
        if (ch[i].kind == BNS_RAFT_REMOVE && count(c.voters) <= 2 &&
            bns_prng_chance(&w->member, 0.8))
            ch[i].id = at == 0 ? w->nodes_count : at;
        for (size_t k = 0; k < i; k++)
            if (ch[k].id == ch[i].id)
                in.changes_count = i; /* ends the loop */
    }
    return rw_node_step(w, n, in);
}

/* Asks one node for one thing. */
void rw_conf_change(struct rw_world *w)
{
    struct rw_node *n = whom_to_ask(w);
    int rv = BNS_OK;

    if (w->healed)
        return;
    (void)rw_event_new(w, RW_CHANGE, 0,
                       1 + bns_prng_below(&w->member, 2 * w->swarm.change_every_ns));
    if (n == NULL)
        return;
    if (bns_prng_chance(&w->member, 0.25)) {
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_TRANSFER};
        in.peer = bns_prng_below(&w->member, w->nodes_count + 1);
        rv = rw_node_step(w, n, in);
        w->res->transfers += rv == BNS_OK;
    } else if (bns_prng_chance(&w->member, 0.1)) {
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_ROOM, .ok = n->raft->no_room};
        rv = rw_node_step(w, n, in);
    } else {
        rv = change(w, n);
        w->res->changes += rv == BNS_OK;
    }
    if (rv != BNS_OK && rv != BNS_E_BUSY && rv != BNS_E_NOTLEADER && rv != BNS_E_EXISTS &&
        rv != BNS_E_NOTFOUND && rv != BNS_E_INVALID)
        rw_fail(w, "a change was answered %s", bns_err_name(rv));
}

/* ---- checks --------------------------------------------------------------------------------- */

void rw_check_conf_entry(struct rw_world *w, struct rw_node *n, const struct bns_raft_entry *e)
{
    const struct bns_raft *r = n->raft;

    if (e->index <= n->conf_entry)
        n->conf_entry = 0; /* it was cut off */
    if (e->kind != BNS_RAFT_CONF)
        return;
    if (n->conf_entry > r->commit)
        rw_fail(w, "node %u: changes at index %llu and %llu, committed are %llu", n->i + 1,
                (unsigned long long)n->conf_entry, (unsigned long long)e->index,
                (unsigned long long)r->commit);
    n->conf_entry = e->index;
    if (r->role == BNS_RAFT_LEADER && e->term == r->term &&
        raft_log_term(&r->log, r->commit) != r->term)
        rw_fail(w, "leader %u of term %llu changes the configuration, but has committed nothing",
                n->i + 1, (unsigned long long)r->term);
}

/* After the commit index was checked. */
void rw_check_conf(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;
    const struct rw_committed *c = &w->shadow[r->commit];

    if (r->conf_index != n->seen_conf_index || r->commit == n->seen_commit) {
        n->seen_conf = rw_conf_of(&r->conf);
        n->seen_conf_index = r->conf_index;
    }
    if (!rw_conf_same(n->seen_conf, c->conf) && (c->conf_at != 0 || r->conf.voters_count != 0))
        rw_fail(w, "node %u: voters %x %x learners %x at index %llu, committed are %x %x %x",
                n->i + 1, n->seen_conf.voters, n->seen_conf.old, n->seen_conf.learners,
                (unsigned long long)r->commit, c->conf.voters, c->conf.old, c->conf.learners);
    if (r->role == BNS_RAFT_LEADER && r->transferee == 0 &&
        ((uint32_t)(n->seen_conf.voters | n->seen_conf.old) >> n->i & 1) == 0)
        rw_fail(w, "node %u leads, but is no voter at index %llu", n->i + 1,
                (unsigned long long)r->commit);
}

void rw_check_timeout_now(struct rw_world *w, struct rw_node *n, const struct bns_raft_msg *m)
{
    const struct rw_disk *d = &w->nodes[m->to - 1].disk;

    if (d->term > m->term || m->index <= d->base || m->index <= d->sm.index)
        return;
    if (m->index > d->last || d->chain[m->index] != n->chain[m->index])
        rw_fail(w, "leader %u hands over to node %u at index %llu, whose disk ends at %llu",
                n->i + 1, (uint32_t)m->to, (unsigned long long)m->index,
                (unsigned long long)d->last);
}
