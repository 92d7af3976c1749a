/* raft_election.c - terms, pre-vote, votes, and when a node asks for them (thesis 3.4, 9.6).
 *
 * A node that has not heard from a leader for 1x..2x election_ns asks all voters whether they WOULD
 * vote for it (pre-vote); nobody changes a term for that. Only when a majority would, it raises its
 * term, votes for itself and asks for real. So a node that comes back from a partition does not
 * depose a leader that the others hear.
 *
 * Stickiness: who has heard from a leader within election_ns neither answers a pre-vote nor a vote
 * of a higher term. A leader is in the same position while a quorum answers it (check-quorum makes
 * it step down otherwise). Both together need one more rule, or a peer with a higher term and a
 * leader with a lower one would ignore each other for ever: whoever gets a heartbeat or an append
 * of a lower term answers with its own (recv_old_term in raft.c).
 *
 * Requests are repeated each heartbeat interval to those that have not answered, so a lost packet
 * or a peer that was not up yet costs 100 ms and not another election.
 *
 * Bootstrap: on an empty log the voter with the lowest id campaigns at once (bns_raft_init sets its
 * first deadline to now); the others wait for their ordinary timeout.
 */
#include "proto/raft_impl.h"

bool raft_electable(const struct bns_raft *r)
{
    return r->self != NULL && bns_raft_conf_is_voter(&r->conf, r->cfg.id);
}

void raft_election_reset(struct bns_raft *r)
{
    r->election_at = r->now_ns + r->cfg.election_ns + bns_prng_below(&r->prng, r->cfg.election_ns);
}

/* Reads and proposals that were on their way to the old leader are lost with it. */
void raft_set_leader(struct bns_raft *r, uint64_t leader)
{
    if (r->leader == leader)
        return;
    r->leader = leader;
    r->leader_commit = 0;
    raft_reads_fail(r);
    if (r->fwd_count > r->fwd_sent) {
        /* those handed out are borrowed by the driver; the others go now */
        struct bns_raft_entry *e = r->fwd + r->fwd_sent;
        for (size_t i = 0; i < r->fwd_count - r->fwd_sent; i++) {
            r->fwd_bytes -= BNS_RAFT_ENTRY_OVERHEAD + (e[i].data == NULL ? 0 : e[i].data->len);
            bns_rcbuf_put(e[i].data);
        }
        r->fwd_count = r->fwd_sent;
    }
}

void raft_become_follower(struct bns_raft *r, uint64_t term, uint64_t leader)
{
    BNS_ASSERT(term >= r->term);
    if (term > r->term) {
        r->term = term;
        r->vote = 0;
        r->state_dirty = true;
        raft_set_leader(r, 0);
    }
    r->role = BNS_RAFT_FOLLOWER;
    r->leader_no_room = false;
    raft_transfer_stop(r);
    raft_peers_purge(r, true);
    for (size_t i = 0; i < r->peers_count; i++) {
        r->peers[i].vote_want = false;
        r->peers[i].beat = false;
        r->peers[i].snap_want = false;
    }
    raft_set_leader(r, leader);
    if (leader != 0)
        r->leader_ns = r->now_ns;
    raft_election_reset(r);
}

bool raft_sticks(const struct bns_raft *r)
{
    if (r->role == BNS_RAFT_LEADER)
        return true; /* check-quorum deposes it when that is not so */
    return r->leader != 0 && r->now_ns < r->leader_ns + r->cfg.election_ns;
}

static uint64_t vote_of(const void *arg, uint64_t id)
{
    const struct bns_raft *r = arg;
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return r->peers[i].vote;
    return BNS_VOTE_NONE;
}

static void ask_all(struct bns_raft *r)
{
    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        p->vote = p == r->self ? BNS_VOTE_YES : BNS_VOTE_NONE;
        p->vote_want = p != r->self && !p->learner;
    }
    r->resend_at = r->now_ns + r->cfg.heartbeat_ns;
    raft_election_reset(r);
}

/* The real election, after the pre-vote was won. */
static void become_candidate(struct bns_raft *r)
{
    r->role = BNS_RAFT_CANDIDATE;
    r->term++;
    r->vote = r->cfg.id;
    r->state_dirty = true;
    ask_all(r);
    if (bns_quorum_votes(&r->conf, vote_of, r) == BNS_QUORUM_WON)
        raft_become_leader(r);
}

void raft_campaign(struct bns_raft *r, bool forced)
{
    if (!raft_electable(r) || r->role == BNS_RAFT_LEADER || r->installing)
        return;
    raft_set_leader(r, 0);
    r->transfer = forced;
    if (forced) {
        become_candidate(r);
        return;
    }
    r->role = BNS_RAFT_PRE_CANDIDATE;
    ask_all(r);
    if (bns_quorum_votes(&r->conf, vote_of, r) == BNS_QUORUM_WON)
        become_candidate(r);
}

void raft_election_timer(struct bns_raft *r)
{
    if (r->now_ns >= r->election_at) {
        if (r->installing || r->seq_state > r->seq_durable)
            raft_election_reset(r); /* a term that the disk has not taken yet is enough */
        else if (raft_electable(r))
            raft_campaign(r, false);
        else
            raft_set_leader(r, 0); /* who may not campaign waits, and says that there is none */
        return;
    }
    if (r->role == BNS_RAFT_FOLLOWER || r->now_ns < r->resend_at)
        return;
    r->resend_at = r->now_ns + r->cfg.heartbeat_ns;
    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        p->vote_want = p->vote == BNS_VOTE_NONE && p != r->self && !p->learner;
    }
}

/* Thesis 3.6.1: the later last term wins, then the longer log. */
static bool up_to_date(const struct bns_raft *r, const struct bns_raft_msg *m)
{
    uint64_t last = raft_log_last(&r->log);
    uint64_t term = raft_log_term(&r->log, last);

    if (BNS_MUTANT(r, 6))
        return true;
    return m->log_term > term || (m->log_term == term && m->index >= last);
}

static void recv_prevote(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct bns_raft_msg a = {.type = BNS_RAFT_MSG_PREVOTE_RESP, .to = m->from, .term = m->term};

    if (raft_sticks(r))
        return;
    if (m->term <= r->term || !up_to_date(r, m)) {
        a.reject = true;
        a.term = r->term;
    }
    raft_tell_commit(r, &a);
    raft_reply(r, &a);
}

void raft_recv_vote(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct bns_raft_msg a = {.type = BNS_RAFT_MSG_VOTE_RESP, .to = m->from, .term = r->term};
    bool free_vote;

    raft_learn_commit(r, m);
    raft_tell_commit(r, &a);
    if (m->type == BNS_RAFT_MSG_PREVOTE) {
        recv_prevote(r, m);
        return;
    }
    BNS_ASSERT(m->term == r->term);
    free_vote = r->vote == m->from || (r->vote == 0 && r->leader == 0);
    if (BNS_MUTANT(r, 16))
        free_vote = true;
    if (!free_vote || !up_to_date(r, m)) {
        a.reject = true;
        raft_reply(r, &a);
        return;
    }
    if (r->vote != m->from) {
        r->vote = m->from;
        r->state_dirty = true;
    }
    raft_election_reset(r);
    raft_reply(r, &a);
}

void raft_recv_vote_resp(struct bns_raft *r, const struct bns_raft_msg *m)
{
    bool pre = m->type == BNS_RAFT_MSG_PREVOTE_RESP;
    struct raft_peer *p;

    raft_learn_commit(r, m);
    p = raft_peer_find(r, m->from); /* only now: the peers may be others */
    if (r->role != BNS_RAFT_FOLLOWER && r->role != BNS_RAFT_LEADER && !raft_electable(r))
        raft_become_follower(r, r->term, 0); /* and we may be out */
    if (p == NULL)
        return;
    if (pre && m->reject && m->term > r->term) {
        raft_become_follower(r, m->term, 0); /* it lives in a later term: try again from there */
        return;
    }
    if (r->role != (pre ? BNS_RAFT_PRE_CANDIDATE : BNS_RAFT_CANDIDATE))
        return;
    if (pre && !m->reject && m->term != r->term + 1)
        return; /* of an earlier campaign */
    if (p->vote == BNS_VOTE_NONE)
        p->vote = m->reject ? BNS_VOTE_NO : BNS_VOTE_YES;
    p->vote_want = false;

    switch (bns_quorum_votes(&r->conf, vote_of, r)) {
    case BNS_QUORUM_WON:
        if (pre)
            become_candidate(r);
        else
            raft_become_leader(r);
        break;
    case BNS_QUORUM_LOST:
        raft_become_follower(r, r->term, 0);
        break;
    case BNS_QUORUM_PENDING:
        break;
    }
}

bool raft_next_vote(struct bns_raft *r, struct bns_raft_out *out)
{
    bool pre = r->role == BNS_RAFT_PRE_CANDIDATE;

    if (!pre && r->role != BNS_RAFT_CANDIDATE)
        return false;
    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        if (!p->vote_want)
            continue;
        p->vote_want = false;
        raft_send_init(r, out, pre ? BNS_RAFT_MSG_PREVOTE : BNS_RAFT_MSG_VOTE, p->id);
        out->msg.index = raft_log_last(&r->log);
        out->msg.log_term = raft_log_term(&r->log, out->msg.index);
        raft_tell_commit(r, &out->msg);
        if (pre) {
            out->msg.term = r->term + 1;
            out->msg.flags = BNS_RAFT_FLAG_PREVOTE;
        } else if (r->transfer) {
            out->msg.flags = BNS_RAFT_FLAG_TRANSFER;
        }
        return true;
    }
    return false;
}
