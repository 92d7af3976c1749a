/* raft_status.c - what a driver may look at: a copy, nothing that it could change. */
#include "proto/raft_impl.h"

static void peer_status(const struct bns_raft *r, const struct raft_peer *p,
                        struct bns_raft_status *out)
{
    uint32_t at = out->peers_count++;

    out->peers[at].id = p->id;
    out->peers[at].match = p->match;
    out->peers[at].next = p->next;
    out->peers[at].state = (uint8_t)p->state;
    out->peers[at].learner = p->learner;
    out->peers[at].no_room = p->no_room;
    out->peers[at].recent_active = p->heard && r->now_ns - p->heard_ns < r->cfg.election_ns;
    out->peers[at].inflight = p->inflight;
    out->peers[at].heard_ns = p->heard ? r->now_ns - p->heard_ns : UINT64_MAX;
}

void bns_raft_status(const struct bns_raft *r, struct bns_raft_status *out)
{
    uint64_t last = raft_log_last(&r->log);

    *out = (struct bns_raft_status){
        .role = r->role,
        .id = r->cfg.id,
        .term = r->term,
        .vote = r->vote,
        .leader = r->leader,
        .commit = r->commit,
        .applied = r->applied,
        .first_index = r->log.snap_index + 1,
        .last_index = last,
        .durable_index = r->log.durable,
        .log_bytes = raft_log_bytes(&r->log, r->log.snap_index, last),
        .uncommitted_bytes = raft_log_bytes(&r->log, r->commit, last),
        .reads_waiting = (uint32_t)r->reads_count,
        .conf_index = r->conf_index,
        .leader_commit = r->leader_commit,
        .state_stored = !r->state_dirty && r->seq_state <= r->seq_durable,
        .transferee = r->transferee,
        .ready = r->role == BNS_RAFT_LEADER && r->commit >= r->term_start,
        .joint = r->conf.voters_old_count > 0,
        .conf_pending = r->conf_last > r->commit,
        .voter = bns_raft_conf_is_voter(&r->conf, r->cfg.id),
        .learner = bns_raft_conf_is_learner(&r->conf, r->cfg.id),
        .removed = r->left,
        .no_room = r->no_room,
        .leader_no_room = r->role == BNS_RAFT_LEADER ? r->no_room : r->leader_no_room,
    };
    for (size_t i = 0; i < r->peers_count; i++)
        if (!r->peers[i].leaving)
            peer_status(r, &r->peers[i], out);
}

const struct bns_raft_conf *bns_raft_conf(const struct bns_raft *r)
{
    return &r->conf;
}

uint64_t bns_raft_term_at(const struct bns_raft *r, uint64_t index)
{
    return raft_log_term(&r->log, index);
}
