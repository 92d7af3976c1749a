/* raft_leader.c - replication as the leader sees it: progress of each peer, commit, check-quorum.
 *
 * Progress of a peer (after etcd-io/raft)
 *   PROBE      where its log agrees with ours is not known: one append at a time, the next when it
 *              was answered or when a heartbeat was (`paused` in between). Only an answer that
 *              brings `match` forward ends it: repeated ones must not open a window each
 *   REPLICATE  its log agrees up to `match`; appends are sent ahead up to inflight_msgs_max
 *              messages and inflight_bytes_max bytes behind `match`
 *   SNAPSHOT   what it needs is no longer in the log; the driver streams a snapshot, nothing else
 *              is sent until the peer has installed it (SNAPSHOT_RESP), the stream failed, or
 *              nothing was heard about it for two election timeouts after the stream ended
 * A lost append shows either because the next one is refused (its previous entry is missing), or,
 * when it was the last, because a heartbeat is answered while `match` stands still: then an empty
 * append (`poke`) asks. So there are no retransmission timers.
 *
 * Back-off: a refusal carries hint_index and hint_term, the last entry of the follower that could
 * agree. The leader takes its own last entry at or before hint_index with a term <= hint_term. Each
 * exchange skips at least one whole term of one of the two logs (thesis, end of 3.5).
 *
 * Commit: the median of `match`, counting ourselves only up to what is durable here, and only when
 * that entry is of our own term (Raft paper, 5.4.2 and figure 8). Followers are told at once, by a
 * heartbeat that wants no answer, unless an append is on its way anyway.
 *
 * Check-quorum: the newest time at which a quorum had been heard; older than election_ns: step
 * down.
 */
#include "proto/raft_impl.h"

static uint64_t heard_of(const void *arg, uint64_t id)
{
    const struct bns_raft *r = arg;
    if (id == r->cfg.id)
        return UINT64_MAX;
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return r->peers[i].heard_ns;
    return 0;
}

static uint64_t match_of(const void *arg, uint64_t id)
{
    const struct bns_raft *r = arg;
    if (id == r->cfg.id)
        return BNS_MUTANT(r, 9) ? raft_log_last(&r->log) : r->log.durable;
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return r->peers[i].match;
    return 0;
}

static uint64_t quorum_deadline(const struct bns_raft *r)
{
    uint64_t heard = bns_quorum_reached(&r->conf, heard_of, r);
    return heard == UINT64_MAX ? UINT64_MAX : heard + r->cfg.election_ns;
}

uint64_t raft_leader_deadline(const struct bns_raft *r)
{
    uint64_t at = quorum_deadline(r);
    if (r->peers_count > (r->self != NULL)) {
        at = r->beat_at < at ? r->beat_at : at;
        at = r->chores_at < at ? r->chores_at : at;
    }
    return at;
}

void raft_leader_append(struct bns_raft *r, uint8_t kind, struct bns_rcbuf *data)
{
    struct bns_raft_entry e = {
        .index = raft_log_last(&r->log) + 1, .term = r->term, .kind = kind, .data = data};

    BNS_ASSERT(r->role == BNS_RAFT_LEADER);
    raft_log_append(&r->log, &e);
    raft_conf_appended(r, &e);
}

void raft_become_leader(struct bns_raft *r)
{
    uint64_t last = raft_log_last(&r->log);

    r->role = BNS_RAFT_LEADER;
    raft_set_leader(r, r->cfg.id);
    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        bool learner = p->learner;
        uint64_t match = BNS_MUTANT(r, 17) && p->match <= last ? p->match : 0;
        *p = (struct raft_peer){.id = p->id,
                                .learner = learner,
                                .match = match,
                                .next = last + 1,
                                .heard_ns = r->now_ns};
    }
    r->beat_at = r->chores_at = r->now_ns + r->cfg.heartbeat_ns;
    r->transfer_next = r->now_ns;
    r->read_done = r->read_round;
    r->term_start = last + 1;
    if (BNS_MUTANT(r, 2)) {
        r->term_start = r->commit;
        return;
    }
    raft_leader_append(r, BNS_RAFT_NOOP, NULL);
}

/* What has a time of its own. Each round of reads puts the next heartbeats off; this must not wait
 * for them. */
static bool has_chores(const struct bns_raft *r)
{
    bool leaving = false;

    for (size_t i = 0; i < r->peers_count; i++)
        leaving |= r->peers[i].leaving;
    return leaving || r->transferee != 0 || r->no_room;
}

static void beat_all(struct bns_raft *r)
{
    for (size_t i = 0; i < r->peers_count; i++)
        r->peers[i].beat = &r->peers[i] != r->self;
    r->beat_at = r->now_ns + r->cfg.heartbeat_ns;
    if (!has_chores(r))
        r->chores_at = r->beat_at;
}

void raft_leader_timer(struct bns_raft *r)
{
    if (r->now_ns >= quorum_deadline(r)) {
        raft_become_follower(r, r->term, 0);
        return;
    }
    if (r->now_ns >= r->chores_at) {
        r->chores_at = r->now_ns + r->cfg.heartbeat_ns;
        raft_peers_purge(r, false);
        raft_transfer_timer(r);
    }
    if (r->role != BNS_RAFT_LEADER || r->now_ns < r->beat_at)
        return; /* no leader: removed, and the time to hand over is up */
    if (raft_read_round_wanted(r, true))
        r->read_round++; /* the round that answers who came since the last one began */
    beat_all(r);
}

/* Who counts: the voters. */
static const struct bns_raft_conf *counted(const struct bns_raft *r, struct bns_raft_conf *all)
{
    if (!BNS_MUTANT(r, 47))
        return &r->conf;
    *all = r->conf;
    for (size_t i = 0; i < r->conf.learners_count && all->voters_count < BNS_RAFT_PEERS_MAX; i++)
        all->voters[all->voters_count++] = r->conf.learners[i];
    return all;
}

/* A commit may put a configuration in force that asks fewer: what they have is looked at again.
 * One turn more a configuration, of which a log holds at most one that is not committed. */
void raft_maybe_commit(struct bns_raft *r)
{
    struct bns_raft_conf all;
    uint64_t in_force;

    do {
        uint64_t index = bns_quorum_reached(counted(r, &all), match_of, r);

        in_force = r->conf_index;
        if (index > raft_log_last(&r->log) || index <= r->commit)
            return;
        if (raft_log_term(&r->log, index) != r->term && !BNS_MUTANT(r, 1))
            return;
        raft_commit_to(r, index);
        raft_reads_check(r);
    } while (r->conf_index != in_force);
}

/* ---- progress ------------------------------------------------------------------------------- */

static void probe(struct raft_peer *p, uint64_t next, bool paused)
{
    p->state = RAFT_PROBE;
    p->next = next;
    p->paused = paused;
    p->inflight = 0;
    p->poke = false;
    p->snap_want = p->snap_sent = false;
}

static void matched(struct bns_raft *r, struct raft_peer *p, uint64_t index)
{
    bool agrees = index + 1 >= p->next; /* where a probe had asked */
    bool news = index > p->match;

    if (p->inflight > 0)
        p->inflight--;
    if (news)
        p->match = index;
    if (p->next <= p->match)
        p->next = p->match + 1;
    if (p->match + 1 == p->next)
        p->inflight = 0;
    if (p->state == RAFT_PROBE && agrees && (news || p->next > raft_log_last(&r->log))) {
        p->state = RAFT_REPLICATE;
        p->next = p->match + 1;
        p->paused = false;
        p->inflight = 0;
    }
    raft_maybe_commit(r);
}

/* m->index is the previous entry of the append that was refused. */
static void refused(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m)
{
    uint64_t next;

    if (m->index <= p->match)
        return; /* late: it has agreed on more since */
    if (p->state == RAFT_PROBE && m->index + 1 != p->next)
        return; /* the answer to an earlier probe */
    if (p->state == RAFT_SNAPSHOT)
        return;
    next = m->hint_index < m->index ? m->hint_index : m->index - 1;
    next = raft_log_search(&r->log, next, m->hint_term) + 1;
    if (m->hint_index < r->log.snap_index)
        next = m->hint_index + 1; /* only a snapshot can help */
    if (next >= m->index + 1)
        next = m->index;
    if (next <= p->match)
        next = p->match + 1;
    probe(p, next, false);
}

void raft_recv_append_resp(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m)
{
    if (m->reject)
        refused(r, p, m);
    else if (p->state != RAFT_SNAPSHOT)
        matched(r, p, m->index);
    else if (m->index >= r->log.snap_index && m->index > p->match) {
        probe(p, m->index + 1, false); /* it got there without the snapshot */
        matched(r, p, m->index);
    }
}

void raft_recv_heartbeat_resp(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m)
{
    if (p->state == RAFT_PROBE) {
        p->paused = false;
    } else if (p->state == RAFT_REPLICATE) {
        p->poke = p->match == p->match_seen && p->match + 1 < p->next;
    } else if ((m->flags & BNS_RAFT_FLAG_INSTALLING) != 0) {
        p->snap_wait_ns = r->now_ns + 2 * r->cfg.election_ns;
    } else if (p->snap_sent && r->now_ns >= p->snap_wait_ns) {
        probe(p, p->match + 1, false);
    }
    p->no_room = (m->flags & BNS_RAFT_FLAG_NO_ROOM) != 0;
    p->match_seen = p->match;
    if (m->read_ctx > p->read_ack && m->read_ctx <= r->read_round)
        p->read_ack = m->read_ctx;
    raft_reads_check(r);
}

void raft_recv_snapshot_resp(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m)
{
    if (m->reject) {
        if (p->state == RAFT_SNAPSHOT)
            probe(p, p->match + 1, true);
        return;
    }
    if (m->index > p->match)
        p->match = m->index;
    if (p->state == RAFT_SNAPSHOT)
        probe(p, p->match + 1, false);
    raft_maybe_commit(r);
}

void raft_snapshot_sent(struct bns_raft *r, const struct bns_raft_in *in)
{
    struct raft_peer *p = raft_peer_find(r, in->peer);

    if (p == NULL || r->role != BNS_RAFT_LEADER || p->state != RAFT_SNAPSHOT)
        return; /* a removed peer's stream may end late */
    if (!in->ok) {
        probe(p, p->match + 1, true);
        return;
    }
    p->snap_sent = true;
    p->snap_wait_ns = r->now_ns + 2 * r->cfg.election_ns;
}

void raft_unreachable(struct bns_raft *r, uint64_t id)
{
    struct raft_peer *p = raft_peer_find(r, id);

    if (p != NULL && r->role == BNS_RAFT_LEADER && p->state == RAFT_REPLICATE)
        probe(p, p->match + 1, true);
}

/* ---- outputs -------------------------------------------------------------------------------- */

static bool next_beat(struct bns_raft *r, struct raft_peer *p, struct bns_raft_out *out)
{
    uint64_t commit = p->match < r->commit ? p->match : r->commit;
    bool more = p->state == RAFT_REPLICATE && p->next <= raft_log_last(&r->log);

    if (BNS_MUTANT(r, 18))
        commit = r->commit;
    if (!p->beat && (p->commit_sent >= commit || more))
        return false;
    raft_send_init(r, out, BNS_RAFT_MSG_HEARTBEAT, p->id);
    out->msg.commit = commit;
    if (p->beat)
        out->msg.read_ctx = r->read_round;
    else
        out->msg.flags = BNS_RAFT_FLAG_QUIET;
    if (r->no_room)
        out->msg.flags |= BNS_RAFT_FLAG_NO_ROOM;
    p->beat = false;
    if (commit > p->commit_sent)
        p->commit_sent = commit;
    return true;
}

static void want_snapshot(struct raft_peer *p)
{
    if (!p->heard) { /* it may be down: wait until it answers a heartbeat */
        p->paused = true;
        return;
    }
    p->state = RAFT_SNAPSHOT;
    p->snap_want = true;
    p->snap_sent = false;
    p->inflight = 0;
}

static void fill_append(struct bns_raft *r, struct raft_peer *p, struct bns_raft_out *out,
                        bool full)
{
    uint64_t last = raft_log_last(&r->log);
    uint64_t room = r->cfg.msg_bytes_max;
    uint64_t told;

    raft_send_init(r, out, BNS_RAFT_MSG_APPEND, p->id);
    out->msg.index = p->next - 1;
    out->msg.log_term = raft_log_term(&r->log, p->next - 1);
    out->msg.commit = r->commit;
    if (full && p->next <= last) {
        out->msg.entries = raft_log_at(&r->log, p->next);
        out->msg.entries_count = raft_log_fit(&r->log, p->next, last, room);
    }
    told = p->next - 1 + out->msg.entries_count;
    if (told > r->commit)
        told = r->commit;
    if (p->state == RAFT_REPLICATE) {
        p->next += out->msg.entries_count;
        p->inflight += full; /* a poke does not wait for room */
    }                        /* a probe stays where it is until it is answered */
    if (told > p->commit_sent)
        p->commit_sent = told;
}

static bool next_append(struct bns_raft *r, struct raft_peer *p, struct bns_raft_out *out)
{
    bool has = p->next <= raft_log_last(&r->log);
    bool full = true;

    if (p->state == RAFT_PROBE) {
        if (p->paused)
            return false;
    } else if (p->state == RAFT_REPLICATE) {
        bool room =
            p->inflight < r->cfg.inflight_msgs_max &&
            raft_log_bytes(&r->log, p->match < r->log.snap_index ? r->log.snap_index : p->match,
                           p->next - 1) < r->cfg.inflight_bytes_max;
        if (!p->poke && !(has && room))
            return false;
        full = !p->poke; /* a poke only asks */
    } else {
        return false;
    }
    if (p->next - 1 < r->log.snap_index) {
        want_snapshot(p);
        return false;
    }
    fill_append(r, p, out, full);
    p->poke = false;
    p->paused = p->state == RAFT_PROBE;
    return true;
}

static bool next_snapshot(struct bns_raft *r, struct raft_peer *p, struct bns_raft_out *out)
{
    if (!p->snap_want)
        return false;
    p->snap_want = false;
    out->kind = BNS_RAFT_OUT_SEND_SNAPSHOT;
    out->peer = p->id;
    out->index = r->log.snap_index;
    out->term = r->term;
    return true;
}

bool raft_next_leader(struct bns_raft *r, struct bns_raft_out *out)
{
    if (raft_read_round_wanted(r, false)) {
        r->read_round++;
        beat_all(r);
        raft_reads_check(r); /* with one voter that was all */
    }
    if (raft_next_transfer(r, out))
        return true;
    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        if (p == r->self)
            continue;
        if (next_beat(r, p, out) || next_append(r, p, out) || next_snapshot(r, p, out))
            return true;
    }
    return false;
}
