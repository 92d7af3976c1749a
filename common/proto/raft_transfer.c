/* raft_transfer.c - a leader hands over (thesis 3.10), when it is told to, when its log has no room
 * on the disk, and when it is no voter any more.
 *
 * To a peer:  from now on no proposals are taken, so that there is an end to catch up with. When
 *             `match` is the last entry, TIMEOUT_NOW tells the peer to campaign at once, without a
 *             pre-vote; its vote requests carry FLAG_TRANSFER, and who gets one does not cling to
 *             the leader that it hears. Told again each heartbeat interval, as the message may be
 *             lost. After one election timeout without success the leader takes proposals again.
 *             A peer that lags is brought up to date first: told too early it would lose the
 *             election, and the group its leader for nothing.
 * No room:    IN_ROOM tells whether the log has room here; heartbeat answers tell it of the others.
 *             A leader without room picks the most advanced voter that has room and was heard of
 *             lately, at most once an election timeout. Nobody has room: it keeps its place, and
 *             its proposals are refused by its driver.
 * Removed:    a leader that is no voter of the committed configuration hands over in the same way
 *             to the most advanced voter, and steps down, with or without success, an election
 *             timeout later at the latest. TIMEOUT_NOW carries the commit index: the successor of
 *             a group of two that becomes one must know that its predecessor is out.
 */
#include "proto/raft_impl.h"

static bool fit(const struct bns_raft *r, const struct raft_peer *p, bool with_room)
{
    if (p == r->self || p->leaving || !bns_raft_conf_is_voter(&r->conf, p->id))
        return false;
    if (with_room && p->no_room)
        return false;
    return p->heard && r->now_ns - p->heard_ns < r->cfg.election_ns;
}

/* The most advanced voter; NULL = none was heard of lately. */
static struct raft_peer *best(struct bns_raft *r, bool with_room)
{
    struct raft_peer *b = NULL;

    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        if (fit(r, p, with_room) && (b == NULL || p->match > b->match))
            b = p;
    }
    return b;
}

static void start(struct bns_raft *r, uint64_t id)
{
    r->transferee = id;
    r->transfer_end = r->now_ns + r->cfg.election_ns;
    r->transfer_next = r->transfer_end;
    r->timeout_now = true;
}

int raft_transfer_in(struct bns_raft *r, uint64_t id)
{
    struct raft_peer *p;

    if (r->role != BNS_RAFT_LEADER)
        return BNS_E_NOTLEADER;
    if (id == r->cfg.id || (id != 0 && id == r->transferee))
        return BNS_OK;
    p = id == 0 ? best(r, false) : raft_peer_find(r, id);
    if (p == NULL || p->leaving)
        return BNS_E_NOTFOUND;
    if (!bns_raft_conf_is_voter(&r->conf, p->id))
        return BNS_E_INVALID;
    if (r->transferee != 0)
        return r->transferee == p->id ? BNS_OK : BNS_E_BUSY;
    start(r, p->id);
    return BNS_OK;
}

void raft_transfer_stop(struct bns_raft *r)
{
    r->transferee = 0;
    r->timeout_now = false;
}

void raft_transfer_timer(struct bns_raft *r)
{
    if (r->transferee != 0 && r->now_ns >= r->transfer_end) {
        raft_transfer_stop(r);
        if (!bns_raft_conf_is_voter(&r->conf, r->cfg.id) && !BNS_MUTANT(r, 48)) {
            raft_become_follower(r, r->term, 0);
            return;
        }
    }
    r->timeout_now = r->transferee != 0;
    if (r->transferee != 0 || !r->no_room || r->now_ns < r->transfer_next ||
        r->commit < r->term_start)
        return;
    if (best(r, true) != NULL)
        start(r, best(r, true)->id);
}

static void tell(const struct bns_raft *r, uint64_t to, struct bns_raft_msg *m)
{
    m->type = BNS_RAFT_MSG_TIMEOUT_NOW;
    m->to = to;
    m->term = r->term;
    m->index = raft_log_last(&r->log);
    m->log_term = raft_log_term(&r->log, m->index);
    raft_tell_commit(r, m);
}

void raft_hand_over(struct bns_raft *r)
{
    struct raft_peer *p = raft_peer_find(r, r->transferee);

    if (p != NULL && !p->leaving && bns_raft_conf_is_voter(&r->conf, p->id))
        return; /* under way */
    p = best(r, false);
    if (p == NULL)
        raft_become_follower(r, r->term, 0);
    else
        start(r, p->id);
}

/* Only the leader that we follow may tell so. */
void raft_recv_timeout_now(struct bns_raft *r, const struct bns_raft_msg *m)
{
    if (r->role != BNS_RAFT_FOLLOWER || m->term != r->term || r->leader != m->from)
        return;
    raft_learn_commit(r, m);
    raft_campaign(r, true);
}

bool raft_next_transfer(struct bns_raft *r, struct bns_raft_out *out)
{
    struct raft_peer *p;

    if (!r->timeout_now)
        return false;
    p = raft_peer_find(r, r->transferee);
    if (p == NULL || p->leaving || !bns_raft_conf_is_voter(&r->conf, p->id)) {
        raft_transfer_stop(r); /* removed meanwhile */
        return false;
    }
    if (p->match != raft_log_last(&r->log) && !BNS_MUTANT(r, 49))
        return false;
    r->timeout_now = false;
    raft_send_init(r, out, BNS_RAFT_MSG_TIMEOUT_NOW, p->id);
    tell(r, p->id, &out->msg);
    return true;
}
