/* raft_world_check.c - the invariants, each incremental, so that all run after every event.
 *
 * The trick is the chain: chain(i) = mix(chain(i - 1), term, kind, data of entry i). Two logs with
 * the same chain at i are the same up to i, so one comparison checks a whole prefix.
 *
 *   one leader a term        leaders[term] is set once
 *   log matching             (index, term) -> chain is a function: a table over all logs of all
 *   time leader completeness      a new leader of term T has the chain of everything that leaders
 *                            of terms <= T have committed
 *   committed never changes  a node's chain at its commit index is the shadow log's; only a leader
 *                            may lengthen the shadow log
 *   durable on a majority    when the shadow log grows, the disks of a majority hold that chain
 *   safe for ever            no disk that lacks it would win an election against the other disks
 *   applied <= commit        each APPLY follows the previous, is committed, and durable here
 *   equal digests            the state machine's own digest is the shadow's chain at that index
 *   terms and votes          never go back while up; after a restart not behind what was promised;
 *                            no two votes in one term ever leave a node
 *   bounds                   memory of the world, uncommitted bytes, waiting answers
 *   reads, acked writes      raft_world.c, where clients get their answers
 */
#include "base/varint.h"
#include "sim/raft_world_int.h"

uint64_t rw_op(const struct bns_raft_entry *e)
{
    return e->kind != BNS_RAFT_NORMAL || e->data == NULL || e->data->len < 8
               ? 0
               : bns_get_u64le(e->data->bytes);
}

uint64_t rw_chain(uint64_t prev, const struct bns_raft_entry *e)
{
    uint64_t h = rw_mix(prev, e->term * 4 + e->kind);

    for (size_t i = 0; e->kind == BNS_RAFT_CONF && i < e->data->len; i++)
        h = rw_mix(h, e->data->bytes[i]);
    return rw_mix(h, e->data == NULL ? 0 : rw_op(e) ^ ((uint64_t)e->data->len << 48));
}

static size_t slot_of(const struct rw_slot *slots, size_t cap, uint64_t index, uint64_t term)
{
    size_t at = (size_t)rw_mix(rw_mix(7, index), term) & (cap - 1);
    while (slots[at].index != 0 && (slots[at].index != index || slots[at].term != term))
        at = (at + 1) & (cap - 1);
    return at;
}

static bool slots_room(struct rw_world *w)
{
    size_t cap = w->slots_cap == 0 ? 4096 : w->slots_cap * 2;
    struct rw_slot *slots;

    if (w->slots_used * 2 < w->slots_cap)
        return true;
    slots = bns_alloc_zero(&w->alloc, cap * sizeof *slots);
    if (slots == NULL)
        return false;
    for (size_t i = 0; i < w->slots_cap; i++)
        if (w->slots[i].index != 0)
            slots[slot_of(slots, cap, w->slots[i].index, w->slots[i].term)] = w->slots[i];
    bns_free(&w->alloc, w->slots);
    w->slots = slots;
    w->slots_cap = cap;
    return true;
}

/* An only voter leads as soon as it campaigns. When the power goes before that term is on its disk,
 * nothing of it has left the node, and the same term may come again, with other entries. */
static bool only_voter(const struct rw_node *n)
{
    struct rw_conf c = rw_conf_of(&n->raft->conf);
    return n->raft->role == BNS_RAFT_LEADER && c.old == 0 && c.voters == 1u << n->i;
}

static bool entry_lost(const struct rw_world *w, const struct rw_slot *s)
{
    const struct rw_node *n = &w->nodes[s->node];
    const struct rw_disk *d = &n->disk;
    bool kept = s->index <= d->base || (s->index <= d->last && d->chain[s->index] == s->chain);

    return s->alone && n->life != s->life && !kept;
}

static bool leadership_lost(const struct rw_world *w, uint32_t i, uint64_t term)
{
    const struct rw_node *n = &w->nodes[i];
    bool on_disk = n->disk.term > term || (n->disk.term == term && n->disk.vote == i + 1);
    bool in_memory = n->raft != NULL && n->raft->term >= term && n->raft->vote == i + 1;

    return !on_disk && !in_memory;
}

/* An entry that n just appended; n->chain below it is right. */
void rw_check_entry(struct rw_world *w, struct rw_node *n, const struct bns_raft_entry *e)
{
    uint64_t chain = rw_chain(n->chain[e->index - 1], e);
    struct rw_slot *s;

    n->chain[e->index] = chain;
    rw_check_conf_entry(w, n, e);
    if (!slots_room(w)) {
        rw_fail(w, "out of memory in the table of entries");
        return;
    }
    s = &w->slots[slot_of(w->slots, w->slots_cap, e->index, e->term)];
    if (s->index == 0) {
        *s = (struct rw_slot){e->index, e->term, chain, n->i, n->life, only_voter(n)};
        w->slots_used++;
    } else if (s->chain != chain && entry_lost(w, s)) {
        *s = (struct rw_slot){e->index, e->term, chain, n->i, n->life, only_voter(n)};
    } else if (s->chain != chain) {
        rw_fail(w, "log matching: node %u has another prefix below index %llu term %llu", n->i + 1,
                (unsigned long long)e->index, (unsigned long long)e->term);
    }
}

static void check_leader(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;
    uint64_t known = w->shadow_last;

    if (r->term >= RW_TERMS_MAX) {
        rw_fail(w, "term %llu: far too many elections", (unsigned long long)r->term);
        return;
    }
    w->res->elections++;
    if (!w->healed && bns_prng_chance(&w->plot, w->swarm.topple))
        (void)rw_event_new(
            w, RW_TOPPLE, n->i,
            bns_prng_below(&w->plot, 6 * w->swarm.delay_mean_ns + 2 * w->swarm.disk_ns));
    if (w->leaders[r->term] != 0 && w->leaders[r->term] != n->i + 1 &&
        !leadership_lost(w, w->leaders[r->term] - 1u, r->term)) {
        rw_fail(w, "two leaders in term %llu: nodes %u and %u", (unsigned long long)r->term,
                w->leaders[r->term], n->i + 1);
        return;
    }
    w->leaders[r->term] = (uint8_t)(n->i + 1);
    while (known > 0 && w->shadow[known].leader_term > r->term)
        known--;
    if (known == 0 || known < r->log.snap_index)
        return;
    if (raft_log_last(&r->log) < known || n->chain[known] != w->shadow[known].chain)
        rw_fail(w, "leader completeness: leader %u of term %llu lacks committed index %llu",
                n->i + 1, (unsigned long long)r->term, (unsigned long long)known);
}

/* The nodes whose disks hold it. */
static uint32_t durable_on(const struct rw_world *w, uint64_t index, uint64_t chain)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        const struct rw_disk *d = &w->nodes[i].disk;
        if (index <= d->base || index <= d->sm.index ||
            (index <= d->last && d->chain[index] == chain))
            set |= 1u << i;
    }
    return set;
}

/* Thesis 3.6.1, on what the disks hold. */
static bool would_vote(const struct rw_disk *voter, const struct rw_disk *cand)
{
    uint64_t vt = voter->last == voter->base ? voter->base_term : voter->log[voter->last].term;
    uint64_t ct = cand->last == cand->base ? cand->base_term : cand->log[cand->last].term;
    return ct > vt || (ct == vt && cand->last >= voter->last);
}

/* What is committed must be in every log that could win an election from now on: checked when it
 * is committed, not when the unlucky election comes. */
static void check_electable(struct rw_world *w, uint64_t index, uint64_t chain)
{
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        const struct rw_disk *d = &w->nodes[i].disk;
        struct rw_conf c;
        uint32_t votes = 0;
        if (index <= d->base || index <= d->sm.index || d->chain == NULL ||
            (index <= d->last && d->chain[index] == chain))
            continue;
        c = rw_conf_on(d, d->commit);
        for (uint32_t k = 0; k < w->nodes_count; k++)
            if (w->nodes[k].disk.chain == NULL || would_vote(&w->nodes[k].disk, d))
                votes |= 1u << k;
        if (((uint32_t)(c.voters | c.old) >> i & 1) != 0 && rw_conf_majority(c, votes))
            rw_fail(w, "index %llu was committed, but node %u would win an election without it",
                    (unsigned long long)index, i + 1);
    }
}

/* Of the configuration that was in force before. The event may have brought another: then what lies
 * behind that one may count by it, if that one itself counts by the one before. */
static bool committed_by_majority(struct rw_world *w, struct rw_node *n)
{
    uint64_t at = n->raft->commit;
    uint32_t disks = durable_on(w, at, n->chain[at]);
    const struct rw_committed *c = &w->shadow[at];

    if (rw_conf_majority(n->seen_conf, disks))
        return true;
    return c->conf_at > n->seen_conf_index &&
           rw_conf_majority(n->seen_conf, durable_on(w, c->conf_at, n->chain[c->conf_at])) &&
           rw_conf_majority(c->conf, disks);
}

static void shadow_grow(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;

    if (r->role != BNS_RAFT_LEADER && !n->led) {
        rw_fail(w, "node %u committed index %llu, which no leader has committed (%llu)", n->i + 1,
                (unsigned long long)r->commit, (unsigned long long)w->shadow_last);
        return;
    }
    w->shadow = rw_grow(w, w->shadow, &w->shadow_cap, (size_t)r->commit + 1, sizeof *w->shadow);
    if (rw_failed(w))
        return;
    for (uint64_t i = w->shadow_last + 1; i <= r->commit; i++) {
        const struct bns_raft_entry *e = raft_log_at(&r->log, i);
        w->shadow[i] = (struct rw_committed){e->term,
                                             n->chain[i],
                                             rw_op(e),
                                             r->term,
                                             w->shadow[i - 1].conf_at,
                                             w->shadow[i - 1].conf};
        if (e->kind == BNS_RAFT_CONF) {
            w->shadow[i].conf_at = i;
            w->shadow[i].conf = rw_conf_entry(e);
        }
    }
    w->shadow_last = r->commit;
    w->res->committed = r->commit;
    if (!committed_by_majority(w, n))
        rw_fail(w, "leader %u committed index %llu, which no majority of disks holds", n->i + 1,
                (unsigned long long)r->commit);
    else
        check_electable(w, r->commit, n->chain[r->commit]);
}

static void check_commit(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;

    if (r->commit < n->seen_commit || r->commit > raft_log_last(&r->log)) {
        rw_fail(w, "commit of node %u: %llu, was %llu, log ends at %llu", n->i + 1,
                (unsigned long long)r->commit, (unsigned long long)n->seen_commit,
                (unsigned long long)raft_log_last(&r->log));
        return;
    }
    if (r->commit == n->seen_commit)
        return;
    n->seen_commit = r->commit;
    if (r->commit > w->shadow_last)
        shadow_grow(w, n);
    if (!rw_failed(w) && n->chain[r->commit] != w->shadow[r->commit].chain)
        rw_fail(w, "committed entries differ: node %u at or below index %llu", n->i + 1,
                (unsigned long long)r->commit);
}

static void check_bounds(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;

    if (w->memory > RW_MEMORY_MAX)
        rw_fail(w, "memory: %llu bytes", (unsigned long long)w->memory);
    if (r->reads_count > r->cfg.reads_max || r->resp_sent != r->resp_count)
        rw_fail(w, "queues of node %u: %zu reads, %zu of %zu answers handed out", n->i + 1,
                r->reads_count, r->resp_sent, r->resp_count);
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].inflight > r->cfg.inflight_msgs_max + 1)
            rw_fail(w, "node %u has %u appends in flight", n->i + 1, r->peers[i].inflight);
}

void rw_check_node(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;

    if (r->term < n->seen_term) {
        rw_fail(w, "term of node %u went back to %llu", n->i + 1, (unsigned long long)r->term);
        return;
    }
    if (r->role == BNS_RAFT_LEADER && (n->seen_role != BNS_RAFT_LEADER || r->term != n->seen_term))
        check_leader(w, n);
    /* a leader that commits its own removal steps down in the same event */
    n->led = n->seen_role == BNS_RAFT_LEADER && n->seen_term == r->term;
    n->seen_term = r->term;
    n->seen_role = r->role;
    if (!rw_failed(w))
        check_commit(w, n);
    if (!rw_failed(w))
        rw_check_conf(w, n);
    if (!rw_failed(w))
        check_bounds(w, n);
    if (r->applied > r->apply_sent || r->apply_sent > r->commit)
        rw_fail(w, "node %u applied %llu, handed out %llu, committed %llu", n->i + 1,
                (unsigned long long)r->applied, (unsigned long long)r->apply_sent,
                (unsigned long long)r->commit);
}

void rw_check_boot(struct rw_world *w, struct rw_node *n)
{
    const struct bns_raft *r = n->raft;

    if (r->term < n->promised_term)
        rw_fail(w, "node %u restarted in term %llu after answering in term %llu", n->i + 1,
                (unsigned long long)r->term, (unsigned long long)n->promised_term);
    if (n->sm.index > w->shadow_last ||
        (n->sm.index > 0 && n->sm.digest != w->shadow[n->sm.index].chain))
        rw_fail(w, "node %u restarted with a state that is not that of index %llu", n->i + 1,
                (unsigned long long)n->sm.index);
    n->seen_term = r->term;
    n->seen_role = BNS_RAFT_FOLLOWER;
    n->seen_commit = 0;
    n->seen_conf = rw_conf_of(&r->conf);
    n->seen_conf_index = r->conf_index;
    n->conf_entry = 0;
}

void rw_check_apply(struct rw_world *w, struct rw_node *n, const struct bns_raft_entry *e)
{
    struct rw_sm *sm = &n->sm;

    if (e->index != sm->index + 1 || e->index > n->raft->commit || e->index > w->shadow_last) {
        rw_fail(w, "node %u applies index %llu after %llu, committed are %llu", n->i + 1,
                (unsigned long long)e->index, (unsigned long long)sm->index,
                (unsigned long long)n->raft->commit);
        return;
    }
    if (e->index > n->raft->log.durable || e->index > n->disk.last) {
        rw_fail(w, "node %u applies index %llu, but its disk ends at %llu", n->i + 1,
                (unsigned long long)e->index, (unsigned long long)n->disk.last);
        return;
    }
    sm->index = e->index;
    sm->term = e->term;
    sm->digest = rw_chain(sm->digest, e);
    if (e->kind == BNS_RAFT_CONF)
        sm->conf = rw_conf_entry(e);
    if (rw_op(e) != 0)
        sm->keys[(rw_op(e) >> 4) % RW_KEYS] = rw_op(e);
    if (sm->digest != w->shadow[e->index].chain)
        rw_fail(w, "digest of node %u differs at index %llu", n->i + 1,
                (unsigned long long)e->index);
}

/* At the moment when a message really leaves: its promise must hold from now on. */
void rw_check_sent(struct rw_world *w, struct rw_node *n, const struct bns_raft_msg *m)
{
    bool vote = (m->type == BNS_RAFT_MSG_VOTE_RESP && !m->reject) || m->type == BNS_RAFT_MSG_VOTE;
    uint64_t whom = m->type == BNS_RAFT_MSG_VOTE ? m->from : m->to;
    uint8_t *voted;

    if (m->type == BNS_RAFT_MSG_TIMEOUT_NOW)
        rw_check_timeout_now(w, n, m);
    if (m->type != BNS_RAFT_MSG_VOTE && m->type != BNS_RAFT_MSG_VOTE_RESP &&
        m->type != BNS_RAFT_MSG_APPEND_RESP)
        return;
    if (m->term > n->promised_term)
        n->promised_term = m->term;
    if (!vote || m->term >= RW_TERMS_MAX)
        return;
    voted = &w->votes[m->term * RW_NODES_MAX + n->i];
    if (*voted != 0 && *voted != whom)
        rw_fail(w, "node %u voted for %u and for %llu in term %llu", n->i + 1, *voted,
                (unsigned long long)whom, (unsigned long long)m->term);
    *voted = (uint8_t)whom;
}

bool rw_converged(struct rw_world *w)
{
    const struct rw_node *leader = NULL;

    for (uint32_t i = 0; i < w->nodes_count; i++) {
        const struct rw_node *n = &w->nodes[i];
        if (!rw_member(w, i))
            continue;
        if (n->raft == NULL || n->raft->leader == 0)
            return false;
        if (n->raft->role == BNS_RAFT_LEADER) {
            if (leader != NULL)
                return false;
            leader = n;
        }
    }
    if (leader == NULL || leader->raft->conf.voters_old_count > 0)
        return false;
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        const struct rw_node *n = &w->nodes[i];
        const struct bns_raft *r = n->raft;
        if (!rw_member(w, i))
            continue;
        if (r->term != leader->raft->term || r->leader != leader->i + 1)
            return false;
        if (raft_log_last(&r->log) != raft_log_last(&leader->raft->log) ||
            r->commit != raft_log_last(&r->log) || n->sm.index != r->commit)
            return false;
        if (n->sm.digest != leader->sm.digest ||
            memcmp(n->sm.keys, leader->sm.keys, sizeof n->sm.keys) != 0)
            return false;
    }
    return true;
}
