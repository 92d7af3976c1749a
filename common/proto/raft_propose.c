/* raft_propose.c - commands on their way into the log: a leader appends, a follower forwards.
 *
 * A leader takes what it can keep in memory (uncommitted_bytes_max), and nothing while it hands
 * over; a follower what it can forward. Whoever proposed hears of the outcome when its own state
 * machine applies the entry.
 */
#include "proto/raft_impl.h"

uint64_t raft_entry_cost(const struct bns_rcbuf *data)
{
    return BNS_RAFT_ENTRY_OVERHEAD + (data == NULL ? 0 : data->len);
}

/* What a leader must keep in memory, whatever the others have committed: its own disk may be full,
 * its state machine slow, and a quorum without it goes on. */
uint64_t raft_held_bytes(const struct bns_raft *r)
{
    return raft_log_bytes(&r->log, r->applied, raft_log_last(&r->log));
}

int raft_propose(struct bns_raft *r, const struct bns_raft_in *in)
{
    uint8_t kind = BNS_RAFT_FAMILY_KIND(in->family);
    uint64_t bytes = 0;
    uint64_t held;
    int rv;

    BNS_ASSERT(in->family < BNS_RAFT_FAMILIES);
    for (size_t i = 0; i < in->data_count; i++) {
        if (raft_entry_cost(in->data[i]) > BNS_RAFT_ENTRY_BYTES_MAX)
            return BNS_E_TOOBIG;
        bytes += raft_entry_cost(in->data[i]);
    }
    if (r->leader == 0)
        return BNS_E_NOTLEADER;
    if (r->transferee != 0)
        return BNS_E_BUSY; /* leading, and handing over */
    held = r->role == BNS_RAFT_LEADER ? raft_held_bytes(r) : r->fwd_bytes;
    if (held > 0 && held + bytes > r->cfg.uncommitted_bytes_max)
        return BNS_E_BUSY;
    rv = raft_reserve(r, in->data_count);
    if (rv == BNS_OK && r->role != BNS_RAFT_LEADER)
        rv = raft_reserve_forward(r, in->data_count);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < in->data_count; i++) {
        if (r->role == BNS_RAFT_LEADER)
            raft_leader_append(r, kind, in->data[i]);
        else
            raft_forward(r, kind, in->data[i]);
    }
    return BNS_OK;
}

/* A follower forwards commands, nothing else. */
int raft_check_propose(const struct bns_raft_msg *m)
{
    for (size_t i = 0; i < m->entries_count; i++)
        if ((m->entries[i].kind & 15) != BNS_RAFT_NORMAL)
            return BNS_E_PROTO;
    return BNS_OK;
}

/* Proposals that a follower forwarded. What does not fit is dropped: the proposer has a deadline,
 * and hears from its own node when that applied the entry. */
void raft_recv_propose(struct bns_raft *r, const struct bns_raft_msg *m)
{
    if (r->role != BNS_RAFT_LEADER || r->transferee != 0)
        return;
    for (size_t i = 0; i < m->entries_count; i++) {
        uint64_t held = raft_held_bytes(r);
        struct bns_rcbuf *data = m->entries[i].data;
        if (held > 0 && held + raft_entry_cost(data) > r->cfg.uncommitted_bytes_max)
            return;
        raft_leader_append(r, m->entries[i].kind, data);
    }
}
