/* raft_read.c - linearizable reads without writing to the log (ReadIndex, thesis 6.4).
 *
 * Leader:   a read may see everything committed when it arrived. The leader notes its commit index
 *           (at least its own no-op: before that one is committed it does not know what its
 *           predecessors committed) and proves that it still leads: a heartbeat round that BEGAN
 *           after the read arrived is answered by a quorum. Rounds have numbers; heartbeats carry
 *           the newest, answers echo it. A read that arrives needs round read_round + 1. While a
 *           round is on its way nothing new starts, so one round serves all reads that piled up
 *           during the last one: its cost does not grow with the number of reads.
 * Follower: sends READ with a number of its own, one at a time, and the answer to number n serves
 *           all reads that arrived before n was sent. Asked again every 500 ms with a new number.
 *           The numbers start at a random point, so that an answer meant for an earlier life of
 *           this node (same term, same leader) is not taken for one to this life.
 * Loss of the leader, or of leadership: READ_FAIL for everything that still waits.
 *
 * The queue is first in, first out; [0, reads_ok) is confirmed, the next reads_fail have failed,
 * the rest waits, with growing round numbers. For each peer the leader keeps at most two questions:
 * the one that is in its round and the newest behind it, whose answer serves those between.
 */
#include "proto/raft_impl.h"

static struct raft_read *read_at(const struct bns_raft *r, size_t i)
{
    return &r->reads[r->reads_head + i];
}

/* The first that waits. */
static size_t waiting(const struct bns_raft *r)
{
    return r->reads_ok + r->reads_fail;
}

static uint64_t safe_index(const struct bns_raft *r)
{
    return r->commit > r->term_start ? r->commit : r->term_start;
}

void raft_read_add(struct bns_raft *r, uint64_t cookie)
{
    struct raft_read *q = read_at(r, r->reads_count++);
    uint64_t round = r->read_round + 1;

    if (BNS_MUTANT(r, 19) && r->read_round > 0 && r->read_round > r->read_done)
        round = r->read_round; /* joins a round that began before it */
    *q = (struct raft_read){.cookie = cookie, .round = round};
    if (r->role == BNS_RAFT_LEADER)
        q->index = BNS_MUTANT(r, 11) ? r->commit : safe_index(r);
    else if (r->leader == 0)
        raft_reads_fail(r); /* nobody to ask */
    if (r->role == BNS_RAFT_LEADER && BNS_MUTANT(r, 10) && r->commit >= r->term_start)
        r->reads_ok = r->reads_count;
}

void raft_reads_fail(struct bns_raft *r)
{
    r->reads_fail = r->reads_count - r->reads_ok;
    r->read_done = r->read_round;
}

/* Confirms all waiting reads up to `round`; a follower learns the index only now. */
static void confirm(struct bns_raft *r, uint64_t round, uint64_t index)
{
    if (r->reads_fail > 0)
        return; /* first the failed ones are handed out; the drain comes by here again */
    while (r->reads_ok < r->reads_count && read_at(r, r->reads_ok)->round <= round) {
        struct raft_read *q = read_at(r, r->reads_ok++);
        if (index > q->index)
            q->index = index;
    }
}

static uint64_t ack_of(const void *arg, uint64_t id)
{
    const struct bns_raft *r = arg;
    if (id == r->cfg.id)
        return r->read_round;
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return r->peers[i].read_ack;
    return 0;
}

void raft_reads_check(struct bns_raft *r)
{
    uint64_t done = bns_quorum_reached(&r->conf, ack_of, r);

    BNS_ASSERT(r->role == BNS_RAFT_LEADER);
    if (done > r->read_done)
        r->read_done = done;
    if (r->commit >= r->term_start || BNS_MUTANT(r, 11))
        confirm(r, r->read_done, 0);
}

/* Does somebody wait for a round that has not begun? Between heartbeats one round at a time. */
bool raft_read_round_wanted(const struct bns_raft *r, bool heartbeat)
{
    if (!heartbeat && r->read_round != r->read_done)
        return false;
    if (r->reads_count > waiting(r) && read_at(r, r->reads_count - 1)->round > r->read_round)
        return true;
    for (size_t i = 0; i < r->peers_count; i++)
        for (size_t k = 0; k < 2; k++)
            if (r->peers[i].reads[k].ctx != 0 && r->peers[i].reads[k].round > r->read_round)
                return true;
    return false;
}

void raft_recv_read(struct bns_raft *r, struct raft_peer *p, const struct bns_raft_msg *m)
{
    struct raft_remote_read q = {
        .ctx = m->read_ctx, .round = r->read_round + 1, .index = safe_index(r)};

    if (BNS_MUTANT(r, 11))
        q.index = r->commit;
    if (p->reads[0].ctx == 0)
        p->reads[0] = q;
    else
        p->reads[1] = q;
}

void raft_recv_read_resp(struct bns_raft *r, const struct bns_raft_msg *m)
{
    if (r->role != BNS_RAFT_FOLLOWER || m->from != r->leader)
        return;
    if (m->read_ctx <= r->read_done || m->read_ctx > r->read_round)
        return; /* late, or never asked */
    r->read_done = m->read_ctx;
    confirm(r, m->read_ctx, m->index);
}

void raft_read_timer(struct bns_raft *r)
{
    if (r->role == BNS_RAFT_FOLLOWER && r->read_round != r->read_done &&
        r->now_ns >= r->read_retry_at)
        r->read_done = r->read_round; /* given up: the next drain asks with a new number */
}

/* Leader: answers to followers whose round is done. */
static bool next_read_resp(struct bns_raft *r, struct bns_raft_out *out)
{
    if (r->commit < r->term_start && !BNS_MUTANT(r, 11))
        return false;
    for (size_t i = 0; i < r->peers_count; i++) {
        struct raft_peer *p = &r->peers[i];
        struct raft_remote_read q = p->reads[0];
        if (q.ctx == 0 || (q.round > r->read_done && !BNS_MUTANT(r, 10)))
            continue;
        p->reads[0] = p->reads[1];
        p->reads[1].ctx = 0;
        raft_send_init(r, out, BNS_RAFT_MSG_READ_RESP, p->id);
        out->msg.read_ctx = q.ctx;
        out->msg.index = q.index;
        return true;
    }
    return false;
}

bool raft_next_read_msg(struct bns_raft *r, struct bns_raft_out *out)
{
    if (r->role == BNS_RAFT_LEADER)
        return next_read_resp(r, out);
    if (r->role != BNS_RAFT_FOLLOWER || r->leader == 0 || r->read_round != r->read_done)
        return false;
    if (r->reads_count == waiting(r))
        return false;
    r->read_round++;
    /* who asked with an earlier number, and got no answer, is served by this one as well */
    r->read_retry_at = r->now_ns + RAFT_READ_RETRY_NS;
    raft_send_init(r, out, BNS_RAFT_MSG_READ, r->leader);
    out->msg.read_ctx = r->read_round;
    return true;
}

bool raft_next_read_done(struct bns_raft *r, struct bns_raft_out *out)
{
    struct raft_read q;

    if (r->reads_ok == 0 && r->reads_fail == 0)
        return false;
    q = *read_at(r, 0);
    r->reads_head++;
    r->reads_count--;
    out->cookie = q.cookie;
    if (r->reads_ok > 0) {
        r->reads_ok--;
        out->kind = BNS_RAFT_OUT_READ_OK;
        out->index = q.index;
    } else {
        r->reads_fail--;
        out->kind = BNS_RAFT_OUT_READ_FAIL;
        out->code = BNS_E_NOTLEADER;
        if (r->reads_fail == 0 && r->role == BNS_RAFT_LEADER)
            raft_reads_check(r);
    }
    if (r->reads_count == 0)
        r->reads_head = 0;
    return true;
}
