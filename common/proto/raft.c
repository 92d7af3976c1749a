/* raft.c - the Raft core: construction, dispatch of inputs, order of outputs.
 *
 * Files in reading order: raft.c (here), raft_log.c (entries in memory), raft_election.c,
 * raft_leader.c (progress of peers, commit), raft_follower.c (appends, snapshots, forwarding),
 * raft_propose.c (proposals), raft_read.c (ReadIndex), raft_conf.c (changes of the configuration),
 * raft_transfer.c (handing over), quorum.c (majorities), raft_msg.c (bytes).
 *
 * How a step works
 *   1. The input is checked. A peer's nonsense ends here with BNS_E_PROTO.
 *   2. Everything that the step may need is reserved: log slots, one read, answers. Out of memory
 *      ends here. From now on nothing can fail, so a step happens whole or not at all.
 *   3. The state changes: term, vote, log, progress of peers, commit index.
 *   4. next() derives the outputs from the state: entries above `handed` make a PERSIST, peers
 *      whose next index is in the log get an append, entries between apply_sent and commit are
 *      applied. Only answers to peers wait in a queue. So several steps may precede one drain, and
 *      what they caused comes out batched; and no output has to be stored, copied or freed.
 *
 * Order of outputs in a drain: ROLE, PERSIST, answers, votes, forwarded proposals and reads, then
 *   the leader's heartbeats and appends, INSTALL, APPLY, READ_OK and READ_FAIL. A PERSIST precedes
 *   each message that promises what it holds; such a message has after_seq.
 *
 * What must be durable before what is said (thesis 3.8, 10.2.1)
 *   votes, vote requests, append answers     all PERSISTs so far
 *   heartbeats, appends, heartbeat answers   the PERSIST that changed term or configuration last
 *   the leader's own entries                 nothing: it counts itself only when STORED arrived
 *   APPLY                                    only what is committed AND durable here
 *
 * Invariants: applied <= apply_sent <= commit <= last; snap_index <= applied; term, vote and the
 * configuration in force change only together with state_dirty; a leader never cuts its log;
 * nothing <= commit is ever cut.
 *
 * Deliberately missing: leases, priorities, witnesses.
 */
#include "proto/raft_impl.h"

static void set_defaults(struct bns_raft_config *c)
{
    if (c->election_ns == 0)
        c->election_ns = 1000ull * 1000 * 1000;
    if (c->heartbeat_ns == 0)
        c->heartbeat_ns = 100ull * 1000 * 1000;
    if (c->inflight_msgs_max == 0)
        c->inflight_msgs_max = 256;
    if (c->inflight_bytes_max == 0)
        c->inflight_bytes_max = 4u << 20;
    if (c->msg_bytes_max == 0)
        c->msg_bytes_max = 1u << 20;
    if (c->uncommitted_bytes_max == 0)
        c->uncommitted_bytes_max = 64ull << 20;
    if (c->apply_bytes_max == 0)
        c->apply_bytes_max = 1u << 20;
    if (c->trailing_entries == 0)
        c->trailing_entries = 5000;
    if (c->trailing_bytes == 0)
        c->trailing_bytes = 16ull << 20;
    if (c->reads_max == 0)
        c->reads_max = 65536;
}

static int check_config(const struct bns_raft_config *c, const struct bns_raft_boot *b)
{
    const struct bns_raft_conf *k = &b->snap.conf;
    bool joins = k->voters_count == 0 && k->voters_old_count == 0 && k->learners_count == 0;

    if (c->id == 0 || (!joins && !bns_raft_conf_valid(k)))
        return BNS_E_INVALID;
    return c->heartbeat_ns < c->election_ns ? BNS_OK : BNS_E_INVALID;
}

/* What the disk kept must fit together: the caller may have mixed up files. */
static int check_boot(const struct bns_raft_boot *b)
{
    uint64_t term = b->snap.term;
    uint64_t last = b->snap.index + b->entries_count;

    for (size_t i = 0; i < b->entries_count; i++) {
        const struct bns_raft_entry *e = &b->entries[i];
        if (e->index != b->snap.index + 1 + i || e->term < term || e->term == 0)
            return BNS_E_CORRUPT;
        term = e->term;
    }
    if (term > b->term || (b->snap.index > 0) != (b->snap.term > 0))
        return BNS_E_CORRUPT;
    if (b->applied < b->snap.index || b->applied > last || b->commit > last)
        return BNS_E_CORRUPT;
    return BNS_OK;
}

static void init_boot(struct bns_raft *r, const struct bns_raft_boot *b)
{
    r->term = b->term;
    r->vote = b->vote;
    if (BNS_MUTANT(r, 4))
        r->vote = 0;
    for (size_t i = 0; i < b->entries_count; i++)
        raft_log_append(&r->log, &b->entries[i]);
    r->log.handed = r->log.durable = raft_log_last(&r->log);
    if (BNS_MUTANT(r, 5)) {
        r->term = raft_log_term(&r->log, raft_log_last(&r->log));
        r->vote = 0;
    }
    r->applied = r->apply_sent = b->applied;
    r->commit = b->commit > b->applied ? b->commit : b->applied;
    r->commit_handed = b->commit;
}

int bns_raft_init(struct bns_raft **out, const struct bns_raft_config *cfg,
                  const struct bns_raft_boot *boot, const struct bns_alloc *alloc, uint64_t now_ns)
{
    struct bns_raft_config c = *cfg;
    struct bns_raft *r;
    int rv;

    set_defaults(&c);
    rv = check_config(&c, boot);
    if (rv == BNS_OK)
        rv = check_boot(boot);
    if (rv != BNS_OK)
        return rv;

    r = bns_alloc_zero(alloc, sizeof *r);
    if (r == NULL)
        return BNS_E_NOMEM;
    r->alloc = alloc;
    r->cfg = c;
    r->mutant = c.mutant;
    r->conf = boot->snap.conf;
    r->now_ns = now_ns;
    bns_prng_seed(&r->prng, c.seed ^ (c.id * 0x9e3779b97f4a7c15ull) ^ c.group);
    /* A new incarnation must not mistake an answer to the old one for its own. */
    r->read_round = r->read_done = bns_prng_next(&r->prng) >> 16;
    raft_log_init(&r->log, alloc, boot->snap.index, boot->snap.term);
    rv = raft_log_reserve(&r->log, boot->entries_count);
    if (rv != BNS_OK) {
        bns_raft_close(r);
        return rv;
    }
    init_boot(r, boot);
    rv = raft_conf_boot(r);
    if (rv != BNS_OK) {
        bns_raft_close(r);
        return rv;
    }
    raft_become_follower(r, r->term, 0);
    r->told.role = BNS_RAFT_FOLLOWER;
    r->told.term = r->term;
    if (raft_electable(r) &&
        (r->conf.voters_count + r->conf.voters_old_count == 1 ||
         (r->term == 0 && raft_log_last(&r->log) == 0 && r->conf.voters[0] == c.id)))
        r->election_at = now_ns; /* nobody else can be leader, or it is bootstrap */
    *out = r;
    return BNS_OK;
}

void bns_raft_close(struct bns_raft *r)
{
    if (r == NULL)
        return;
    raft_forward_drop(r, r->fwd_count);
    bns_free(r->alloc, r->fwd);
    bns_free(r->alloc, r->resp);
    bns_free(r->alloc, r->reads);
    bns_rcbuf_put(r->leave);
    raft_log_close(&r->log);
    bns_free(r->alloc, r);
}

struct raft_peer *raft_peer_find(struct bns_raft *r, uint64_t id)
{
    for (size_t i = 0; i < r->peers_count; i++)
        if (r->peers[i].id == id)
            return &r->peers[i];
    return NULL;
}

/* ---- reserve: the only part of a step that can fail for want of memory ---------------------- */

/* Room for `more` elements of `size` behind `count` in a growing array. */
static int grow(const struct bns_alloc *a, void **ptr, size_t *cap, size_t want, size_t size)
{
    size_t n = *cap == 0 ? 8 : *cap;
    void *p;

    if (want <= *cap)
        return BNS_OK;
    while (n < want)
        n *= 2;
    p = bns_resize(a, *ptr, n * size);
    if (p == NULL)
        return BNS_E_NOMEM;
    *ptr = p;
    *cap = n;
    return BNS_OK;
}

static int reserve_read(struct bns_raft *r)
{
    if (r->reads_count >= r->cfg.reads_max)
        return BNS_E_BUSY;
    if (r->reads_head > 0 && r->reads_head + r->reads_count == r->reads_cap) {
        memmove(r->reads, r->reads + r->reads_head, r->reads_count * sizeof *r->reads);
        r->reads_head = 0;
    }
    return grow(r->alloc, (void **)&r->reads, &r->reads_cap, r->reads_head + r->reads_count + 1,
                sizeof *r->reads);
}

/* Two log slots more than asked for: any step may end in an election, and that appends a no-op, or
 * in the end of a joint configuration. Two answers: one of them when a removed leader ends. */
int raft_reserve(struct bns_raft *r, size_t entries)
{
    int rv;

    BNS_ASSERT(r->resp_count < RAFT_STEPS_PER_DRAIN);
    rv = raft_log_reserve(&r->log, entries + 2);
    if (rv == BNS_OK)
        rv = raft_conf_reserve(r);
    if (rv != BNS_OK)
        return rv;
    return grow(r->alloc, (void **)&r->resp, &r->resp_cap, r->resp_count + 2, sizeof *r->resp);
}

int raft_reserve_forward(struct bns_raft *r, size_t more)
{
    return grow(r->alloc, (void **)&r->fwd, &r->fwd_cap, r->fwd_count + more, sizeof *r->fwd);
}

void raft_reply(struct bns_raft *r, const struct bns_raft_msg *m)
{
    BNS_ASSERT(r->resp_count < r->resp_cap);
    r->resp[r->resp_count] = *m;
    r->resp[r->resp_count].group = r->cfg.group;
    r->resp[r->resp_count].from = r->cfg.id;
    r->resp_count++;
}

/* Lets go of what the outputs of the last drain borrowed. */
static void forget_sent(struct bns_raft *r)
{
    if (r->resp_sent == r->resp_count)
        r->resp_sent = r->resp_count = 0;
    if (r->fwd_sent > 0)
        raft_forward_drop(r, r->fwd_sent);
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* A candidate or leader that has become one since we last heard of the members. */
static bool from_anyone(uint8_t type)
{
    return type == BNS_RAFT_MSG_PREVOTE || type == BNS_RAFT_MSG_VOTE ||
           type == BNS_RAFT_MSG_APPEND || type == BNS_RAFT_MSG_HEARTBEAT;
}

/* What no honest peer of this group sends. */
static int check_msg(struct bns_raft *r, const struct bns_raft_msg *m)
{
    if (m->group != r->cfg.group || m->to != r->cfg.id || m->from == r->cfg.id)
        return BNS_E_PROTO;
    if (m->from == 0)
        return BNS_E_PROTO;
    if (m->term > RAFT_NUMBER_MAX || m->index > RAFT_NUMBER_MAX || m->log_term > m->term)
        return BNS_E_PROTO;
    if (m->entries_count > RAFT_MSG_ENTRIES || m->read_ctx > RAFT_NUMBER_MAX)
        return BNS_E_PROTO;
    if (m->type < BNS_RAFT_MSG_PREVOTE || m->type > BNS_RAFT_MSG_LAST)
        return BNS_E_PROTO;
    for (size_t i = 0; i < m->entries_count; i++)
        if (m->entries[i].data != NULL && m->entries[i].data->len > BNS_RAFT_ENTRY_BYTES_MAX)
            return BNS_E_PROTO;

    switch (m->type) {
    case BNS_RAFT_MSG_APPEND:
        return raft_check_append(r, m);
    case BNS_RAFT_MSG_HEARTBEAT: /* two leaders in one term cannot be */
        return m->term == r->term && r->leader != 0 && r->leader != m->from ? BNS_E_PROTO : BNS_OK;
    case BNS_RAFT_MSG_APPEND_RESP:
    case BNS_RAFT_MSG_SNAPSHOT_RESP: /* nobody can have matched what is not in our log */
        return r->role == BNS_RAFT_LEADER && m->term == r->term && m->index > raft_log_last(&r->log)
                   ? BNS_E_PROTO
                   : BNS_OK;
    case BNS_RAFT_MSG_PREVOTE:
    case BNS_RAFT_MSG_VOTE:
        return m->term == 0 ? BNS_E_PROTO : BNS_OK;
    case BNS_RAFT_MSG_PROPOSE:
        return raft_check_propose(m);
    case BNS_RAFT_MSG_READ:
        return m->read_ctx == 0 ? BNS_E_PROTO : BNS_OK;
    default:
        return BNS_OK;
    }
}

/* A leader or candidate of the past. Telling it our term is what frees a peer that is stuck: with
 * pre-vote and stickiness it may have a higher term than a live leader, and then only such an
 * answer makes the leader step down and pulls the peer back in. */
static void recv_old_term(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct bns_raft_msg a = {.to = m->from, .term = r->term, .reject = true};

    switch (m->type) {
    case BNS_RAFT_MSG_APPEND:
    case BNS_RAFT_MSG_HEARTBEAT:
        if ((m->flags & BNS_RAFT_FLAG_QUIET) != 0)
            return;
        a.type = BNS_RAFT_MSG_APPEND_RESP;
        break;
    case BNS_RAFT_MSG_VOTE:
        a.type = BNS_RAFT_MSG_VOTE_RESP;
        break;
    default:
        return;
    }
    raft_reply(r, &a);
}

/* True when m is to be looked at in our (possibly new) term. */
static bool recv_term(struct bns_raft *r, const struct bns_raft_msg *m)
{
    bool from_leader = m->type == BNS_RAFT_MSG_APPEND || m->type == BNS_RAFT_MSG_HEARTBEAT;

    if (m->type == BNS_RAFT_MSG_PREVOTE || m->type == BNS_RAFT_MSG_PREVOTE_RESP)
        return true; /* they speak of a term that nobody is in yet */
    if (m->term < r->term) {
        recv_old_term(r, m);
        return false;
    }
    if (m->term > r->term) {
        if (m->type == BNS_RAFT_MSG_VOTE && (m->flags & BNS_RAFT_FLAG_TRANSFER) == 0 &&
            raft_sticks(r))
            return false; /* a live leader is not to be disturbed */
        raft_become_follower(r, m->term, from_leader ? m->from : 0);
        return true;
    }
    if (from_leader && r->role != BNS_RAFT_LEADER)
        raft_become_follower(r, m->term, m->from);
    return true;
}

/* Answers to a leader count only from its own term and only while it leads. */
static void recv_by_leader(struct bns_raft *r, const struct bns_raft_msg *m)
{
    struct raft_peer *p = raft_peer_find(r, m->from);

    if (r->role != BNS_RAFT_LEADER)
        return;
    if (m->type == BNS_RAFT_MSG_READ) {
        raft_recv_read(r, p, m);
        return;
    }
    p->heard_ns = r->now_ns;
    p->heard = true;
    if (m->type == BNS_RAFT_MSG_APPEND_RESP)
        raft_recv_append_resp(r, p, m);
    else if (m->type == BNS_RAFT_MSG_HEARTBEAT_RESP)
        raft_recv_heartbeat_resp(r, p, m);
    else
        raft_recv_snapshot_resp(r, p, m);
}

static int recv(struct bns_raft *r, const struct bns_raft_msg *m)
{
    int rv = check_msg(r, m);
    if (rv == BNS_OK && raft_peer_find(r, m->from) == NULL && !from_anyone(m->type))
        return BNS_OK; /* no member any more, or not yet */
    if (rv == BNS_OK)
        rv = raft_reserve(r, m->entries_count);
    if (rv != BNS_OK)
        return rv;
    if (m->type == BNS_RAFT_MSG_PROPOSE) {
        raft_recv_propose(r, m);
        return BNS_OK;
    }
    if (!recv_term(r, m))
        return BNS_OK;

    switch (m->type) {
    case BNS_RAFT_MSG_PREVOTE:
    case BNS_RAFT_MSG_VOTE:
        raft_recv_vote(r, m);
        break;
    case BNS_RAFT_MSG_PREVOTE_RESP:
    case BNS_RAFT_MSG_VOTE_RESP:
        raft_recv_vote_resp(r, m);
        break;
    case BNS_RAFT_MSG_APPEND:
        raft_recv_append(r, m);
        break;
    case BNS_RAFT_MSG_HEARTBEAT:
        raft_recv_heartbeat(r, m);
        break;
    case BNS_RAFT_MSG_READ_RESP:
        raft_recv_read_resp(r, m);
        break;
    case BNS_RAFT_MSG_TIMEOUT_NOW:
        raft_recv_timeout_now(r, m);
        break;
    default:
        recv_by_leader(r, m);
        break;
    }
    raft_conf_follow_up(r);
    return BNS_OK;
}

static int read_in(struct bns_raft *r, uint64_t cookie)
{
    int rv = reserve_read(r);
    if (rv == BNS_OK)
        raft_read_add(r, cookie);
    return rv;
}

static void timer(struct bns_raft *r)
{
    if (r->role == BNS_RAFT_LEADER)
        raft_leader_timer(r);
    else
        raft_election_timer(r);
    raft_read_timer(r);
}

static void stored(struct bns_raft *r, uint64_t seq)
{
    BNS_ASSERT(seq <= r->seq);
    if (seq <= r->seq_durable)
        return;
    r->seq_durable = seq;
    if (BNS_MUTANT(r, 21))
        seq = r->seq; /* takes all writes in flight for done */
    raft_log_stored(&r->log, seq);
    if (r->role == BNS_RAFT_LEADER)
        raft_maybe_commit(r);
}

static void applied(struct bns_raft *r, uint64_t index)
{
    BNS_ASSERT(index <= r->apply_sent);
    if (index > r->applied)
        r->applied = index;
}

/* Keeps some entries behind the snapshot, so that a follower that is only a little late needs no
 * snapshot: up to trailing_entries, and up to trailing_bytes. */
static void snapshot_taken(struct bns_raft *r, uint64_t index)
{
    struct raft_log *l = &r->log;
    uint64_t keep;

    BNS_ASSERT(index <= r->applied);
    if (index <= l->snap_index)
        return;
    keep = index - l->snap_index;
    if (keep > r->cfg.trailing_entries)
        keep = r->cfg.trailing_entries;
    if (raft_log_bytes(l, index - keep, index) > r->cfg.trailing_bytes) {
        uint64_t lo = 0; /* the most entries that fit: binary search over the running sums */
        while (lo < keep) {
            uint64_t mid = lo + (keep - lo + 1) / 2;
            if (raft_log_bytes(l, index - mid, index) <= r->cfg.trailing_bytes)
                lo = mid;
            else
                keep = mid - 1;
        }
    }
    index -= keep;
    /* an installed snapshot may be ahead of the writes in flight: those entries stay */
    raft_log_trim(l, index < l->durable ? index : l->durable);
}

int bns_raft_step(struct bns_raft *r, uint64_t now_ns, const struct bns_raft_in *in)
{
    int rv;

    BNS_ASSERT(now_ns >= r->now_ns);
    r->now_ns = now_ns;
    forget_sent(r);

    switch (in->kind) { /* these reserve for themselves */
    case BNS_RAFT_IN_RECV:
        return recv(r, in->msg);
    case BNS_RAFT_IN_PROPOSE:
        return raft_propose(r, in);
    case BNS_RAFT_IN_CHANGE:
        return raft_change(r, in);
    case BNS_RAFT_IN_READ:
        return read_in(r, in->cookie);
    default:
        break;
    }
    rv = raft_reserve(r, 0);
    if (rv != BNS_OK)
        return rv;
    switch (in->kind) {
    case BNS_RAFT_IN_TIMER:
        timer(r);
        break;
    case BNS_RAFT_IN_STORED:
        stored(r, in->seq);
        break;
    case BNS_RAFT_IN_APPLIED:
        applied(r, in->index);
        break;
    case BNS_RAFT_IN_SNAPSHOT_TAKEN:
        snapshot_taken(r, in->index);
        break;
    case BNS_RAFT_IN_SNAPSHOT_SENT:
        raft_snapshot_sent(r, in);
        break;
    case BNS_RAFT_IN_SNAPSHOT_RECEIVED:
        return raft_snapshot_received(r, in);
    case BNS_RAFT_IN_INSTALLED:
        raft_installed(r, in->index);
        break;
    case BNS_RAFT_IN_INSTALL_FAILED:
        raft_install_failed(r, in->index);
        break;
    case BNS_RAFT_IN_UNREACHABLE:
        raft_unreachable(r, in->peer);
        break;
    case BNS_RAFT_IN_CAMPAIGN:
        raft_campaign(r, true);
        break;
    case BNS_RAFT_IN_TRANSFER:
        return raft_transfer_in(r, in->peer);
    case BNS_RAFT_IN_ROOM:
        r->no_room = !in->ok;
        break;
    default:
        BNS_ASSERT(false);
    }
    raft_conf_follow_up(r);
    return BNS_OK;
}

/* May build the peers anew: pointers to them are void. */
void raft_commit_to(struct bns_raft *r, uint64_t index)
{
    uint64_t before = r->commit;

    BNS_ASSERT(index <= raft_log_last(&r->log));
    if (index <= before)
        return;
    r->commit = index;
    raft_conf_committed(r, before);
}

/* ---- outputs -------------------------------------------------------------------------------- */

/* The PERSIST that a message of this kind has to wait for. */
static uint64_t wait_for(const struct bns_raft *r, uint8_t type)
{
    uint64_t seq;

    switch (type) {
    case BNS_RAFT_MSG_VOTE:
    case BNS_RAFT_MSG_VOTE_RESP:
    case BNS_RAFT_MSG_APPEND_RESP:
    case BNS_RAFT_MSG_SNAPSHOT_RESP:
        seq = r->seq;
        break;
    case BNS_RAFT_MSG_APPEND:
    case BNS_RAFT_MSG_HEARTBEAT:
    case BNS_RAFT_MSG_HEARTBEAT_RESP:
    case BNS_RAFT_MSG_PREVOTE_RESP:
        seq = r->seq_state;
        break;
    default:
        return 0;
    }
    return seq > r->seq_durable ? seq : 0;
}

void raft_send_init(struct bns_raft *r, struct bns_raft_out *out, uint8_t type, uint64_t to)
{
    out->kind = BNS_RAFT_OUT_SEND;
    out->after_seq = wait_for(r, type);
    out->msg.type = type;
    out->msg.group = r->cfg.group;
    out->msg.from = r->cfg.id;
    out->msg.to = to;
    out->msg.term = r->term;
}

static bool next_role(struct bns_raft *r, struct bns_raft_out *out)
{
    if (r->told.role == r->role && r->told.term == r->term && r->told.leader == r->leader)
        return false;
    r->told.role = r->role;
    r->told.term = r->term;
    r->told.leader = r->leader;
    out->kind = BNS_RAFT_OUT_ROLE;
    out->role = r->role;
    out->term = r->term;
    out->leader = r->leader;
    return true;
}

static bool next_persist(struct bns_raft *r, struct bns_raft_out *out)
{
    struct raft_log *l = &r->log;
    uint64_t last = raft_log_last(l);

    if (!r->state_dirty && l->handed == last && l->truncate_from == 0 && !l->cut)
        return false;
    out->kind = BNS_RAFT_OUT_PERSIST;
    out->seq = ++r->seq;
    /* The commit index rides along when there is something to write anyway. */
    out->has_state = r->state_dirty || r->commit != r->commit_handed;
    out->term = r->term;
    out->vote = r->vote;
    out->commit = r->commit;
    r->commit_handed = r->commit;
    if (r->state_dirty)
        r->seq_state = r->seq;
    r->state_dirty = false;
    out->truncate_from = l->truncate_from;
    l->truncate_from = 0;
    if (l->cut) {
        r->snap_out = (struct bns_raft_snapmeta){l->snap_index, l->snap_term, r->cut_conf};
        out->snap = &r->snap_out;
        l->cut = false;
    }
    if (l->handed < last) {
        out->entries = raft_log_at(l, l->handed + 1);
        out->entries_count = (size_t)(last - l->handed);
        for (uint64_t i = l->handed + 1; i <= last; i++)
            l->slots[l->head + (i - l->snap_index - 1)].seq = r->seq;
        l->handed = last;
    }
    return true;
}

static bool next_resp(struct bns_raft *r, struct bns_raft_out *out)
{
    if (r->resp_sent == r->resp_count)
        return false;
    out->kind = BNS_RAFT_OUT_SEND;
    out->msg = r->resp[r->resp_sent++];
    out->after_seq = wait_for(r, out->msg.type);
    return true;
}

static bool next_install(struct bns_raft *r, struct bns_raft_out *out)
{
    if (!r->install_want)
        return false;
    r->install_want = false;
    out->kind = BNS_RAFT_OUT_INSTALL;
    out->snap = &r->inst;
    out->index = r->inst.index;
    out->peer = r->inst_peer;
    return true;
}

/* One batch at a time: the next when the driver has applied this one. */
static bool next_apply(struct bns_raft *r, struct bns_raft_out *out)
{
    uint64_t to = r->commit < r->log.durable ? r->commit : r->log.durable;

    if (BNS_MUTANT(r, 9))
        to = r->commit;
    if (r->installing || r->apply_sent != r->applied || r->apply_sent >= to)
        return false;
    out->kind = BNS_RAFT_OUT_APPLY;
    out->entries = raft_log_at(&r->log, r->apply_sent + 1);
    out->entries_count = raft_log_fit(&r->log, r->apply_sent + 1, to, r->cfg.apply_bytes_max);
    r->apply_sent += out->entries_count;
    out->index = r->apply_sent;
    return true;
}

bool bns_raft_next(struct bns_raft *r, struct bns_raft_out *out)
{
    memset(out, 0, sizeof *out);
    return next_role(r, out) || next_persist(r, out) || next_resp(r, out) ||
           raft_next_vote(r, out) || raft_next_forward(r, out) || raft_next_read_msg(r, out) ||
           (r->role == BNS_RAFT_LEADER && raft_next_leader(r, out)) || next_install(r, out) ||
           next_apply(r, out) || raft_next_read_done(r, out);
}

uint64_t bns_raft_deadline(const struct bns_raft *r)
{
    uint64_t at;

    if (r->role == BNS_RAFT_LEADER)
        return raft_leader_deadline(r);
    at = raft_electable(r) || r->leader != 0 ? r->election_at : UINT64_MAX;
    if (r->role != BNS_RAFT_FOLLOWER && r->resend_at < at)
        at = r->resend_at;
    if (r->read_round != r->read_done && r->reads_count > 0 && r->read_retry_at < at)
        at = r->read_retry_at;
    return at;
}
