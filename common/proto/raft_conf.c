/* raft_conf.c - who belongs to the group: changes of the configuration, one at a time.
 *
 * Entry of kind CONF: the resulting configuration (raft_msg.c has the bytes), the changes that led
 *   to it, and bytes of the application. Because it holds the result, nobody has to compute it.
 *
 * When is it in force? Once it is committed, at every node when that node knows so. Not when it is
 *   appended, as in the thesis (4.1), for two reasons. An administrator who adds the second member
 *   to a group of one is told so before he starts it: in the thesis' way the new majority of two
 *   would have to commit the entry, and the group would stand still until then. And what is
 *   committed is never cut off: there is no configuration to roll back when the log is truncated.
 *   etcd-io/raft waits until the entry is applied, which is the same with a slower clock.
 *
 * Why that is safe. Let C(1), C(2), ... be the configurations in log order.
 *   (a) A leader appends C(i) only when it knows all earlier CONF entries to be committed
 *       (conf_last <= commit). Every APPEND carries the commit index, a node takes it over in the
 *       step that takes the entries, and the PERSIST with these entries has it, too. So whoever has
 *       C(i) in its log, even after a power cut, knows that C(i-1) is committed: it is in force
 *       there. Therefore a log holds at most one CONF entry that is not known to be committed.
 *   (b) C(i) is committed by a majority of C(i-1), and majorities of C(i-1) and C(i) meet: one
 *       voter at a time, or joint (C(i) then needs both majorities).
 *   (c) A candidate that lacks C(i) after C(i) was committed has at most C(i-1) in force. If it is
 *       C(i-1): a majority of C(i-1) has C(i), and its log check refuses. If it is C(k), k < i-1:
 *       it lacks C(k+2), by (a), which a majority of C(k+1) has, which meets those of C(k).
 *   So whoever is elected after C(i) was committed has C(i) in its log and C(i-1) or C(i) in force,
 *   and any two such majorities meet: two leaders of one term, or a leader without a committed
 *   entry, cannot be.
 *
 * Rules of the leader: no change before an entry of its own term is committed (the rule that the
 *   published single-server algorithm lacked in 2015; here (a) alone would do, but then a leader
 *   that nobody follows any more would take changes); none while another is under way, joint ones
 *   included; none that leaves no voter; at most BNS_RAFT_PEERS_MAX members, both halves counted.
 *
 * Joint (thesis 4.3): more than one voter changes. The first entry has voters and voters_old; once
 *   it is in force both majorities are asked for everything. The leader, whoever it is by then,
 *   appends the second entry as soon as it has committed the first (raft_conf_follow_up). Its data
 *   are made beforehand (raft_conf_reserve), so that no step fails in the middle.
 *
 * Learners get the log and never count: quorum.c looks at the voters only.
 *
 * Removed. A leader stops sending to who is no member, and so would never tell a removed follower
 *   that its removal is committed. It goes on sending for five election timeouts (`leaving`). A
 *   removed leader leads until the entry is committed, then it hands over (raft_transfer.c). A
 *   removed node that was not told keeps asking for pre-votes: nobody changes a term for that, and
 *   who hears from a leader does not answer at all.
 *   raft_learn_commit() is what lets the others go on when it is the removed one that is ahead.
 *
 * Strangers. A node may get its new leader's append before it knows that it is a member, or be
 *   asked for its vote by a member that it does not know of (thesis 4.1): votes, appends and
 *   heartbeats are taken from anyone. Answers and requests only from members.
 *
 * Snapshots and restart: a snapshot's configuration is the one at its index; when the log starts
 *   anew behind it, that one is in force. At a start the CONF entries up to the commit index that
 *   the disk kept are gone through. That commit index may be older than what was known before the
 *   power cut, and the configuration in force so, too: by (a) by one step at most.
 */
#include "proto/raft_impl.h"
#include "proto/raft_msg.h"

#define LEAVE_TIMEOUTS 5u

bool raft_is_member(const struct bns_raft_conf *c, uint64_t id)
{
    return bns_raft_conf_is_voter(c, id) || bns_raft_conf_is_learner(c, id);
}

/* Kinds that may be in a log: commands of any family, no-ops, configurations that are whole. */
bool raft_kind_valid(const struct bns_raft_entry *e)
{
    struct bns_raft_conf_entry c;

    if (e->kind == BNS_RAFT_CONF)
        return e->data != NULL && bns_raft_change_decode(bns_rcbuf_slice(e->data), &c) == BNS_OK;
    return e->kind == BNS_RAFT_NOOP || (e->kind & 15) == BNS_RAFT_NORMAL;
}

/* ---- peers ---------------------------------------------------------------------------------- */

static const struct raft_peer *find_in(const struct raft_peer *set, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++)
        if (set[i].id == id)
            return &set[i];
    return NULL;
}

static void insert(struct bns_raft *r, const struct raft_peer *p)
{
    size_t at = r->peers_count++;

    BNS_ASSERT(at < BNS_RAFT_PEERS_MAX);
    for (; at > 0 && r->peers[at - 1].id > p->id; at--)
        r->peers[at] = r->peers[at - 1];
    r->peers[at] = *p;
}

/* The members of the configuration in force; who stays keeps its progress. Pointers into peers are
 * void afterwards. */
static void peers_build(struct bns_raft *r)
{
    struct raft_peer old[BNS_RAFT_PEERS_MAX];
    uint64_t ids[BNS_RAFT_PEERS_MAX];
    size_t old_count = r->peers_count;
    size_t count = bns_raft_conf_members(&r->conf, ids);

    memcpy(old, r->peers, sizeof old);
    r->peers_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct raft_peer *was = find_in(old, old_count, ids[i]);
        struct raft_peer p = {.id = ids[i],
                              .next = raft_log_last(&r->log) + 1,
                              .heard_ns = r->now_ns,
                              .beat = r->role == BNS_RAFT_LEADER && ids[i] != r->cfg.id};
        if (was != NULL)
            p = *was;
        p.learner = bns_raft_conf_is_learner(&r->conf, ids[i]);
        p.leaving = false;
        insert(r, &p);
    }
    for (size_t i = 0; i < old_count && r->role == BNS_RAFT_LEADER; i++) {
        struct raft_peer p = old[i];
        if (raft_is_member(&r->conf, p.id) || p.id == r->cfg.id ||
            r->peers_count == BNS_RAFT_PEERS_MAX)
            continue;
        if (!p.leaving)
            p.leave_ns = r->now_ns + LEAVE_TIMEOUTS * r->cfg.election_ns;
        p.leaving = true;
        insert(r, &p);
    }
    r->self = raft_peer_find(r, r->cfg.id);
}

/* Forgets those that are leaving: all, or whose time is over. */
void raft_peers_purge(struct bns_raft *r, bool all)
{
    size_t keep = 0;

    for (size_t i = 0; i < r->peers_count; i++) {
        const struct raft_peer *p = &r->peers[i];
        if (!p->leaving || (!all && r->now_ns < p->leave_ns))
            r->peers[keep++] = *p;
    }
    if (keep == r->peers_count)
        return;
    r->peers_count = keep;
    r->self = raft_peer_find(r, r->cfg.id);
}

bool bns_raft_talks_to(const struct bns_raft *r, uint64_t id)
{
    return find_in(r->peers, r->peers_count, id) != NULL;
}

/* ---- in force ------------------------------------------------------------------------------- */

static void in_force(struct bns_raft *r, const struct bns_raft_conf *c, uint64_t index,
                     bool removes_us)
{
    bool was = raft_is_member(&r->conf, r->cfg.id);

    if (raft_is_member(c, r->cfg.id))
        r->left = false;
    else if (was || removes_us)
        r->left = true;
    r->conf = *c;
    r->conf_index = index;
    bns_rcbuf_put(r->leave);
    r->leave = NULL;
}

static void take(struct bns_raft *r, const struct bns_raft_entry *e)
{
    struct bns_raft_conf_entry c;
    bool removes_us = false;
    int rv = bns_raft_change_decode(bns_rcbuf_slice(e->data), &c);

    BNS_ASSERT(rv == BNS_OK); /* raft_kind_valid() let it in */
    for (size_t i = 0; i < c.changes_count; i++)
        removes_us |= c.changes[i].kind == BNS_RAFT_REMOVE && c.changes[i].id == r->cfg.id;
    in_force(r, &c.conf, e->index, removes_us);
}

static bool take_range(struct bns_raft *r, uint64_t after, uint64_t to)
{
    bool any = false;

    if (after < r->log.snap_index)
        after = r->log.snap_index;
    for (uint64_t i = after + 1; i <= to; i++) {
        const struct bns_raft_entry *e = raft_log_at(&r->log, i);
        if (e->kind != BNS_RAFT_CONF)
            continue;
        take(r, e);
        any = true;
    }
    return any;
}

/* That it is committed goes to disk before anybody is told: who is removed may leave for ever when
 * it hears so, and a restart without it here would need that one's vote again. */
void raft_conf_committed(struct bns_raft *r, uint64_t before)
{
    if (r->conf_last <= before || !take_range(r, before, r->commit))
        return;
    r->state_dirty = true;
    peers_build(r);
}

void raft_conf_appended(struct bns_raft *r, const struct bns_raft_entry *e)
{
    if (e->kind == BNS_RAFT_CONF)
        r->conf_last = e->index;
}

/* A leader that commits its own removal and dies leaves a log that may be longer than that of its
 * successors. They ask for its vote as long as they do not know that it is out, and it can neither
 * grant it nor lead. So vote requests and answers tell the commit index and its term: who has that
 * entry has the same log up to it (log matching), and knows now that it is committed. Taken only
 * when a change is pending here; otherwise the next leader tells soon enough. */
void raft_tell_commit(const struct bns_raft *r, struct bns_raft_msg *m)
{
    m->commit = r->commit;
    m->hint_term = raft_log_term(&r->log, r->commit);
}

void raft_learn_commit(struct bns_raft *r, const struct bns_raft_msg *m)
{
    if (r->conf_last <= r->commit || m->commit <= r->commit || r->role == BNS_RAFT_LEADER)
        return;
    if (m->commit <= raft_log_last(&r->log) && raft_log_term(&r->log, m->commit) == m->hint_term)
        raft_commit_to(r, m->commit);
}

/* Only what is not committed was cut. */
void raft_conf_truncated(struct bns_raft *r, uint64_t from)
{
    if (r->conf_last < from)
        return;
    r->conf_last = r->conf_index;
    for (uint64_t i = r->commit + 1; i < from; i++)
        raft_conf_appended(r, raft_log_at(&r->log, i));
}

void raft_conf_reset(struct bns_raft *r, const struct bns_raft_snapmeta *s)
{
    in_force(r, &s->conf, s->index, false);
    r->cut_conf = s->conf;
    r->conf_last = s->index;
    peers_build(r);
}

int raft_conf_boot(struct bns_raft *r)
{
    uint64_t last = raft_log_last(&r->log);

    r->conf_index = r->conf_last = r->log.snap_index;
    for (uint64_t i = r->log.snap_index + 1; i <= last; i++) {
        const struct bns_raft_entry *e = raft_log_at(&r->log, i);
        if (!raft_kind_valid(e))
            return BNS_E_CORRUPT;
        raft_conf_appended(r, e);
    }
    (void)take_range(r, r->log.snap_index, r->commit); /* the peers are built in any case */
    peers_build(r);
    return BNS_OK;
}

/* ---- changes -------------------------------------------------------------------------------- */

static void del_id(uint64_t *ids, uint8_t *count, uint64_t id)
{
    size_t keep = 0;

    for (size_t i = 0; i < *count; i++)
        if (ids[i] != id)
            ids[keep++] = ids[i];
    *count = (uint8_t)keep;
}

static int add_id(uint64_t *ids, uint8_t *count, uint64_t id)
{
    size_t at = *count;

    if (at == BNS_RAFT_PEERS_MAX)
        return BNS_E_TOOBIG;
    for (; at > 0 && ids[at - 1] > id; at--)
        ids[at] = ids[at - 1];
    ids[at] = id;
    (*count)++;
    return BNS_OK;
}

/* One change on top of those before it; `was` is the configuration before all of them. */
static int change_one(const struct bns_raft_conf *was, struct bns_raft_conf *c,
                      const struct bns_raft_change *ch)
{
    bool voter = bns_raft_conf_is_voter(was, ch->id);
    bool learner = bns_raft_conf_is_learner(was, ch->id);

    switch (ch->kind) {
    case BNS_RAFT_PROMOTE:
    case BNS_RAFT_ADD_VOTER:
        if (voter)
            return BNS_E_EXISTS;
        if (ch->kind == BNS_RAFT_PROMOTE && !learner)
            return BNS_E_NOTFOUND;
        del_id(c->learners, &c->learners_count, ch->id);
        return add_id(c->voters, &c->voters_count, ch->id);
    case BNS_RAFT_ADD_LEARNER:
        if (voter || learner)
            return BNS_E_EXISTS;
        return add_id(c->learners, &c->learners_count, ch->id);
    case BNS_RAFT_REMOVE:
        if (!voter && !learner)
            return BNS_E_NOTFOUND;
        del_id(c->voters, &c->voters_count, ch->id);
        del_id(c->learners, &c->learners_count, ch->id);
        return BNS_OK;
    }
    return BNS_E_INVALID;
}

/* The configuration that the changes lead to: joint when more than one voter comes or goes. */
static int change_all(const struct bns_raft_conf *was, const struct bns_raft_change *ch, size_t n,
                      struct bns_raft_conf *out)
{
    size_t moved = 0;

    *out = *was;
    if (n > BNS_RAFT_PEERS_MAX)
        return BNS_E_TOOBIG;
    for (size_t i = 0; i < n; i++) {
        int rv;
        if (ch[i].id == 0)
            return BNS_E_INVALID;
        for (size_t k = 0; k < i; k++)
            if (ch[k].id == ch[i].id)
                return BNS_E_INVALID;
        rv = change_one(was, out, &ch[i]);
        if (rv != BNS_OK)
            return rv;
        moved += bns_raft_conf_is_voter(was, ch[i].id) != bns_raft_conf_is_voter(out, ch[i].id);
    }
    if (out->voters_count == 0)
        return BNS_E_INVALID;
    if (moved > 1) {
        memcpy(out->voters_old, was->voters, sizeof out->voters_old);
        out->voters_old_count = was->voters_count;
    }
    return bns_raft_conf_valid(out) ? BNS_OK : BNS_E_TOOBIG;
}

static int check_change(const struct bns_raft *r)
{
    bool pending = r->conf_last > r->commit || r->conf.voters_old_count > 0;

    if (r->role != BNS_RAFT_LEADER)
        return BNS_E_NOTLEADER;
    if (r->transferee != 0)
        return BNS_E_BUSY;
    if (pending && !BNS_MUTANT(r, 46))
        return BNS_E_BUSY;
    return r->commit < r->term_start && !BNS_MUTANT(r, 45) ? BNS_E_BUSY : BNS_OK;
}

int raft_change(struct bns_raft *r, const struct bns_raft_in *in)
{
    struct bns_raft_conf_entry c = {.changes_count = in->changes_count, .context = in->context};
    struct bns_rcbuf *data = NULL;
    uint64_t held;
    int rv = check_change(r);

    if (rv == BNS_OK && in->context.len > BNS_RAFT_CONTEXT_BYTES_MAX)
        rv = BNS_E_TOOBIG;
    if (rv == BNS_OK)
        rv = change_all(&r->conf, in->changes, in->changes_count, &c.conf);
    if (rv != BNS_OK)
        return rv;
    if (in->changes_count > 0)
        memcpy(c.changes, in->changes, in->changes_count * sizeof c.changes[0]);
    rv = bns_raft_change_encode(r->alloc, &c, &data);
    if (rv == BNS_OK)
        rv = raft_reserve(r, 1);
    held = raft_held_bytes(r);
    if (rv == BNS_OK && held > 0 && held + raft_entry_cost(data) > r->cfg.uncommitted_bytes_max)
        rv = BNS_E_BUSY;
    if (rv == BNS_OK)
        raft_leader_append(r, BNS_RAFT_CONF, data);
    bns_rcbuf_put(data);
    return rv;
}

/* What a later step in a joint configuration may need: the entry that ends it. */
int raft_conf_reserve(struct bns_raft *r)
{
    struct bns_raft_conf_entry c = {.conf = r->conf};

    if (r->conf.voters_old_count == 0 || r->leave != NULL)
        return BNS_OK;
    c.conf.voters_old_count = 0;
    memset(c.conf.voters_old, 0, sizeof c.conf.voters_old);
    return bns_raft_change_encode(r->alloc, &c, &r->leave);
}

/* Last in a step: what the configuration in force asks of its leader. */
void raft_conf_follow_up(struct bns_raft *r)
{
    if (r->role != BNS_RAFT_LEADER || r->conf_last > r->commit || r->commit < r->term_start)
        return;
    if (r->conf.voters_old_count > 0 && r->leave != NULL)
        raft_leader_append(r, BNS_RAFT_CONF, r->leave); /* NULL: made before the next step */
    else if (!bns_raft_conf_is_voter(&r->conf, r->cfg.id) && !BNS_MUTANT(r, 48))
        raft_hand_over(r);
}
