/* raft_follower.c - what a leader makes a follower do: append, learn the commit index, install a
 * snapshot; and the proposals that a follower hands on to its leader.
 *
 * Append (Raft paper, figure 2): the previous entry must be there with the term named. Entries that
 * are there already are skipped, never cut: a delayed, shorter append must not shorten the log. The
 * first entry that differs cuts the log from there. What is committed is equal everywhere, so an
 * append that begins before our commit index is looked at from the commit index on, and one that
 * contradicts a committed entry comes from a liar: BNS_E_PROTO.
 *
 * Refusal: hint_index is our last entry at or before the previous one with a term <= its term.
 *
 * Snapshot: the driver receives the stream and steps SNAPSHOT_RECEIVED. Stale ones (nothing in them
 * that is not committed here) are refused by answering how far we are. Otherwise INSTALL goes out,
 * nothing is applied meanwhile, and only INSTALLED changes the log: it is kept when it holds the
 * snapshot's last entry, and started anew behind the snapshot when not. A crash in between leaves
 * a state machine that is ahead of the log, which the boot rule in raft.h covers.
 */
#include "proto/raft_impl.h"

int raft_check_append(const struct bns_raft *r, const struct bns_raft_msg *m)
{
    uint64_t term = m->log_term;

    if ((m->index == 0) != (m->log_term == 0))
        return BNS_E_PROTO;
    if (m->term < r->term)
        return BNS_OK; /* will be answered with our term, not looked at */
    if (m->term == r->term && r->leader != 0 && r->leader != m->from)
        return BNS_E_PROTO; /* two leaders in one term cannot be */
    for (size_t i = 0; i < m->entries_count; i++) {
        const struct bns_raft_entry *e = &m->entries[i];
        if (e->index != m->index + 1 + i || e->term < term || e->term > m->term || e->term == 0)
            return BNS_E_PROTO;
        if (!raft_kind_valid(e))
            return BNS_E_PROTO;
        if (e->index <= r->commit && e->index > r->log.snap_index &&
            raft_log_term(&r->log, e->index) != e->term && !BNS_MUTANT(r, 7) && !BNS_MUTANT(r, 8))
            return BNS_E_PROTO; /* contradicts what is committed */
        term = e->term;
    }
    return BNS_OK;
}

static void refuse(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct bns_raft_msg a = {.type = BNS_RAFT_MSG_APPEND_RESP,
                             .to = m->from,
                             .term = r->term,
                             .reject = true,
                             .index = m->index};

    a.hint_index = raft_log_search(&r->log, m->index, m->log_term);
    a.hint_term = raft_log_term(&r->log, a.hint_index);
    raft_reply(r, &a);
}

/* Adds what is new from entries[skip..]. */
static void take_entries(struct bns_raft *r, const struct bns_raft_msg *m, size_t skip)
{
    if (BNS_MUTANT(r, 8) && m->index + 1 <= raft_log_last(&r->log) &&
        m->index >= r->log.snap_index && m->entries_count > 0) {
        skip = 0;
        raft_log_truncate(&r->log, m->index + 1);
        raft_conf_truncated(r, m->index + 1);
    }
    for (size_t i = skip; i < m->entries_count; i++) {
        const struct bns_raft_entry *e = &m->entries[i];
        if (e->index <= raft_log_last(&r->log)) {
            if (raft_log_term(&r->log, e->index) == e->term || BNS_MUTANT(r, 7))
                continue;
            raft_log_truncate(&r->log, e->index);
            raft_conf_truncated(r, e->index);
        }
        raft_log_append(&r->log, e);
        raft_conf_appended(r, e);
    }
}

void raft_recv_append(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct bns_raft_msg a = {.type = BNS_RAFT_MSG_APPEND_RESP, .to = m->from, .term = r->term};
    uint64_t last_new = m->index + m->entries_count;
    size_t skip = 0;

    BNS_ASSERT(r->role == BNS_RAFT_FOLLOWER);
    if (m->index < r->commit) {
        skip = (size_t)(r->commit - m->index);
        if (skip > m->entries_count)
            skip = m->entries_count;
    } else if (m->index > raft_log_last(&r->log) ||
               raft_log_term(&r->log, m->index) != m->log_term) {
        refuse(r, m);
        return;
    }
    if (skip < m->entries_count &&
        raft_log_bytes(&r->log, r->applied, r->commit) > 2 * r->cfg.uncommitted_bytes_max)
        return; /* too much is committed and not applied. No answer: the leader tries again at its
                 * heartbeats, where an answer at once would make it send at once */
    take_entries(r, m, skip);
    if (last_new < r->commit)
        last_new = r->commit; /* that much agrees for certain */
    raft_leader_says(r, m->commit);
    raft_commit_to(r, m->commit < last_new ? m->commit : last_new);
    a.index = last_new;
    raft_reply(r, &a);
}

void raft_recv_heartbeat(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct bns_raft_msg a = {.type = BNS_RAFT_MSG_HEARTBEAT_RESP,
                             .to = m->from,
                             .term = r->term,
                             .read_ctx = m->read_ctx};
    uint64_t last = raft_log_last(&r->log);

    r->leader_no_room = (m->flags & BNS_RAFT_FLAG_NO_ROOM) != 0;
    raft_leader_says(r, m->commit);
    raft_commit_to(r, m->commit < last ? m->commit : last);
    if ((m->flags & BNS_RAFT_FLAG_QUIET) != 0)
        return;
    if (r->installing)
        a.flags = BNS_RAFT_FLAG_INSTALLING;
    if (r->no_room)
        a.flags |= BNS_RAFT_FLAG_NO_ROOM;
    raft_reply(r, &a);
}

/* ---- snapshots ------------------------------------------------------------------------------ */

static void answer_snapshot(struct bns_raft *r, uint64_t to, uint64_t index)
{
    struct bns_raft_msg a = {
        .type = BNS_RAFT_MSG_SNAPSHOT_RESP, .to = to, .term = r->term, .index = index};
    raft_reply(r, &a);
}

int raft_snapshot_received(struct bns_raft *r, const struct bns_raft_in *in)
{
    const struct bns_raft_snapmeta *s = in->snap;

    if (in->peer == r->cfg.id || in->peer == 0)
        return BNS_E_PROTO;
    if (s->index == 0 || s->term == 0 || s->term > in->term || s->index > RAFT_NUMBER_MAX)
        return BNS_E_PROTO;
    if (in->term > RAFT_NUMBER_MAX || !bns_raft_conf_valid(&s->conf))
        return BNS_E_PROTO;
    if (in->term < r->term)
        return BNS_OK; /* of a leader of the past */
    if (in->term == r->term && r->leader != 0 && r->leader != in->peer)
        return BNS_E_PROTO;
    raft_become_follower(r, in->term, in->peer);
    if (r->installing)
        return BNS_OK; /* one at a time; the leader will send it again if it is needed */
    if (s->index <= r->commit && !BNS_MUTANT(r, 12)) {
        answer_snapshot(r, in->peer, r->commit);
        return BNS_OK;
    }
    r->installing = r->install_want = true;
    r->inst = *s;
    r->inst_peer = in->peer;
    return BNS_OK;
}

void raft_installed(struct bns_raft *r, uint64_t index)
{
    uint64_t term = r->inst.term;

    BNS_ASSERT(r->installing);
    BNS_ASSERT(index == r->inst.index);
    r->installing = r->install_want = false;
    if (BNS_MUTANT(r, 13))
        term = r->log.snap_term;
    if (index <= raft_log_last(&r->log) && raft_log_term(&r->log, index) == term &&
        !BNS_MUTANT(r, 12)) {
        raft_commit_to(r, index); /* the log has it: keep what is behind */
    } else {
        raft_log_reset(&r->log, index, term);
        r->commit = index;
        raft_conf_reset(r, &r->inst);
    }
    if (index > r->applied || BNS_MUTANT(r, 12))
        r->applied = index;
    r->apply_sent = r->applied;
    if (r->role == BNS_RAFT_FOLLOWER)
        answer_snapshot(r, r->inst_peer, index);
}

/* What was handed out behind the applied index was thrown away when the installation began: it is
 * handed out again. The leader probes, and sends a snapshot again. */
void raft_install_failed(struct bns_raft *r, uint64_t index)
{
    struct bns_raft_msg a = {
        .type = BNS_RAFT_MSG_SNAPSHOT_RESP, .to = r->inst_peer, .term = r->term, .reject = true};

    BNS_ASSERT(r->installing);
    BNS_ASSERT(index == r->inst.index);
    r->installing = r->install_want = false;
    r->apply_sent = r->applied;
    if (r->role == BNS_RAFT_FOLLOWER)
        raft_reply(r, &a);
}

/* ---- proposals on their way to the leader --------------------------------------------------- */

void raft_forward(struct bns_raft *r, uint8_t kind, struct bns_rcbuf *data)
{
    BNS_ASSERT(r->fwd_count < r->fwd_cap);
    r->fwd[r->fwd_count++] =
        (struct bns_raft_entry){.kind = kind, .data = data == NULL ? NULL : bns_rcbuf_get(data)};
    r->fwd_bytes += BNS_RAFT_ENTRY_OVERHEAD + (data == NULL ? 0 : data->len);
}

/* Lets go of the first n. */
void raft_forward_drop(struct bns_raft *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct bns_rcbuf *data = r->fwd[i].data;
        r->fwd_bytes -= BNS_RAFT_ENTRY_OVERHEAD + (data == NULL ? 0 : data->len);
        bns_rcbuf_put(data);
    }
    r->fwd_count -= n;
    r->fwd_sent -= r->fwd_sent < n ? r->fwd_sent : n;
    if (r->fwd_count > 0 && n > 0)
        memmove(r->fwd, r->fwd + n, r->fwd_count * sizeof *r->fwd);
}

bool raft_next_forward(struct bns_raft *r, struct bns_raft_out *out)
{
    size_t n = 0;
    uint64_t bytes = 0;

    if (r->fwd_sent == r->fwd_count || r->leader == 0 || r->leader == r->cfg.id)
        return false;
    for (size_t i = r->fwd_sent; i < r->fwd_count && n < RAFT_MSG_ENTRIES; i++, n++) {
        bytes += BNS_RAFT_ENTRY_OVERHEAD + (r->fwd[i].data == NULL ? 0 : r->fwd[i].data->len);
        if (n > 0 && bytes > r->cfg.msg_bytes_max)
            break;
    }
    raft_send_init(r, out, BNS_RAFT_MSG_PROPOSE, r->leader);
    out->msg.entries = r->fwd + r->fwd_sent;
    out->msg.entries_count = n;
    r->fwd_sent += n;
    return true;
}
