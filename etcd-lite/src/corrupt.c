/* corrupt.c - rounds of comparing: one member hashes its data at a revision, asks the others for
 * theirs at the same one, and raises CORRUPT for those that differ from the quorum.
 *
 * Who and when: the leader every --corrupt-check-time, and after a compaction with
 * --experimental-compact-hash-check-enabled; each member once after its start with
 * --experimental-initial-corrupt-check (etcd's then ends; here it is the alarm that stops it from
 * answering, and the operator can still look at it).
 *
 * What is compared: HashKV leaves out what a compaction has dropped or will drop, so it depends on
 * the compacted revision, and answers with another one are left out of the round. A member that is
 * not yet at the revision says BNS_E_AGAIN and is asked again at the next ticks, TRIES times; one
 * that cannot be reached is left out. Without a quorum that agrees nobody can say who is wrong: the
 * alarm is then for member 0, as with etcd.
 *
 * Between members: method HASH, {1: revision} -> {2: hash, 3: compact revision, 4: hash revision},
 * the fields of HashKVResponse.
 */
#include "corrupt.h"

#include "codec/pb.h"
#include "server.h"

#define TRIES 5u
#define CALL_NS (60 * BNS_SEC) /* a hash reads the whole store */
#define ASKED_MAX 16u

struct member {
    struct etcd_corrupt_round *round;
    struct etcd_corrupt_vote vote;
    bool calling, again;
    uint32_t tries;
};

struct etcd_corrupt_round {
    struct etcd_server *s;
    int64_t revision;
    size_t count, calling;
    bool hashing;
    struct member members[ETCD_CORRUPT_MEMBERS_MAX]; /* [0] is this one */
};

/* ---- who is odd ----------------------------------------------------------------------------- */

static size_t alike(const struct etcd_corrupt_vote *votes, size_t count, size_t i)
{
    size_t n = 0;

    for (size_t k = 0; k < count; k++)
        n += votes[k].known && votes[k].compacted == votes[0].compacted &&
             votes[k].hash == votes[i].hash;
    return n;
}

size_t etcd_corrupt_judge(const struct etcd_corrupt_vote *votes, size_t count, size_t members,
                          uint64_t odd[ETCD_CORRUPT_MEMBERS_MAX])
{
    bool differ = false, agreed = false;
    uint32_t right = 0;
    size_t n = 0;

    BNS_ASSERT(count <= ETCD_CORRUPT_MEMBERS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (!votes[i].known || votes[i].compacted != votes[0].compacted)
            continue;
        differ = differ || votes[i].hash != votes[0].hash;
        if (alike(votes, count, i) < members / 2 + 1)
            continue;
        agreed = true;
        right = votes[i].hash;
    }
    if (!differ)
        return 0;
    for (size_t i = 0; i < count && agreed; i++) {
        if (votes[i].known && votes[i].compacted == votes[0].compacted && votes[i].hash != right)
            odd[n++] = votes[i].id;
    }
    if (!agreed)
        odd[n++] = 0;
    return n;
}

/* ---- hashes as they come -------------------------------------------------------------------- */

static int read_hash(struct bns_slice msg, struct etcd_corrupt_vote *v, int64_t *revision)
{
    struct bns_pb_field f = {0};

    v->hash = 0;
    v->compacted = 0;
    while (msg.len > 0) {
        int rv = bns_pb_next(&msg, &f);

        if (rv != BNS_OK)
            return rv;
        if (f.id >= 2 && f.id <= 4 && f.wire != 0)
            return BNS_E_PROTO;
        if (f.id == 2)
            v->hash = (uint32_t)f.u64;
        else if (f.id == 3)
            v->compacted = (int64_t)f.u64;
        else if (f.id == 4)
            *revision = (int64_t)f.u64;
    }
    return BNS_OK;
}

/* ---- a round -------------------------------------------------------------------------------- */

static void report(struct etcd_server *s, const struct etcd_corrupt_round *r, uint64_t id)
{
    bns_counter_add(s->corrupt.m_found, 1);
    BNS_LOG(s->env->log, BNS_LOG_ERROR, "corrupt", "a member's data differs: alarm CORRUPT",
            BNS_HEX("member", id), BNS_I64("revision", r->revision));
    if (!etcd_alarm_propose(s, id, ETCD_ALARM_CORRUPT, true))
        BNS_LOG(s->env->log, BNS_LOG_ERROR, "corrupt", "the alarm could not be proposed");
}

static void end_round(struct etcd_corrupt_round *r, bool judged)
{
    struct etcd_server *s = r->s;
    struct etcd_corrupt_vote votes[ETCD_CORRUPT_MEMBERS_MAX];
    uint64_t odd[ETCD_CORRUPT_MEMBERS_MAX];
    size_t n = 0;

    s->corrupt.round = NULL;
    for (size_t i = 0; i < r->count; i++)
        votes[i] = r->members[i].vote;
    if (judged) {
        bns_counter_add(s->corrupt.m_rounds, 1);
        n = etcd_corrupt_judge(votes, r->count, r->count, odd);
    }
    for (size_t i = 0; i < n; i++)
        report(s, r, odd[i]);
    bns_free(s->env->alloc, r);
}

static void check_end(struct etcd_corrupt_round *r)
{
    if (r->calling > 0)
        return;
    for (size_t i = 1; i < r->count && !r->s->stopping; i++) {
        if (r->members[i].again && r->members[i].tries < TRIES)
            return; /* the next tick asks */
    }
    end_round(r, !r->s->stopping);
}

static void on_answer(void *arg, int code, struct bns_slice payload)
{
    struct member *m = arg;
    struct etcd_corrupt_round *r = m->round;
    int64_t revision = 0;

    BNS_ASSERT(r->calling > 0);
    r->calling--;
    m->calling = false;
    m->again = code == BNS_E_AGAIN || code == BNS_E_OFF;
    if (code == BNS_OK)
        m->vote.known =
            read_hash(payload, &m->vote, &revision) == BNS_OK && revision == r->revision;
    if (m->vote.known && m->vote.compacted < r->members[0].vote.compacted)
        m->again = true; /* it has our compaction soon */
    check_end(r);
}

static void call(struct member *m)
{
    struct etcd_corrupt_round *r = m->round;
    struct etcd_server *s = r->s;
    struct bns_rpc_call_options o = {.method = ETCD_METHOD_HASH,
                                     .deadline_ns = bns_now_ns(s->env) + CALL_NS,
                                     .done = on_answer,
                                     .arg = m};
    struct bns_buf b;
    int rv;

    m->tries++;
    m->again = false;
    bns_buf_init(&b, s->env->alloc, 64);
    rv = bns_pb_put_i64(&b, 1, r->revision);
    m->calling = true;
    r->calling++;
    if (rv == BNS_OK)
        rv = bns_raft_node_call(s->node, m->vote.id, &o, bns_buf_slice(&b));
    if (rv != BNS_OK) {
        m->calling = false;
        r->calling--;
    }
    bns_buf_free(&b);
}

static void call_all(struct etcd_corrupt_round *r, bool first)
{
    r->calling++; /* an answer may come inside a call: not before all are out */
    for (size_t i = 1; i < r->count; i++) {
        struct member *m = &r->members[i];

        if (first || (m->again && m->tries < TRIES))
            call(m);
    }
    r->calling--;
    check_end(r);
}

/* The slices of an answer are short: one message. */
static int take_hash(struct etcd_answer *a, struct etcd_corrupt_vote *v, int64_t *revision)
{
    int rv = a->status == 0 ? BNS_OK : BNS_E_AGAIN;

    if (rv != BNS_OK)
        return rv;
    BNS_ASSERT(a->slices_count <= 2);
    rv = read_hash(a->slices_count == 2 ? a->slices[1] : bns_slice(NULL, 0), v, revision);
    a->release(a->release_arg, BNS_OK);
    return rv;
}

static void hashed_here(void *arg, struct etcd_answer *a)
{
    struct etcd_corrupt_round *r = arg;
    struct member *m = &r->members[0];
    int rv = take_hash(a, &m->vote, &r->revision);

    r->hashing = false;
    m->vote.known = rv == BNS_OK;
    if (rv != BNS_OK || r->s->stopping)
        end_round(r, false);
    else
        call_all(r, true);
}

static void begin(struct etcd_server *s)
{
    struct etcd_corrupt_round *r;
    struct bns_raft_status st;

    bns_raft_node_status(s->node, &st);
    if (st.peers_count == 0)
        return;
    r = bns_alloc_zero(s->env->alloc, sizeof *r);
    if (r == NULL)
        return; /* the next time */
    r->s = s;
    r->count = 1;
    r->members[0].vote.id = st.id;
    for (uint32_t i = 0; i < st.peers_count; i++) {
        if (st.peers[i].id != st.id)
            r->members[r->count++].vote.id = st.peers[i].id;
    }
    for (size_t i = 0; i < r->count; i++)
        r->members[i].round = r;
    s->corrupt.round = r;
    r->hashing = true;
    etcd_kv_hash(s->kv, 0, hashed_here, r);
}

static bool is_due(struct etcd_server *s)
{
    struct etcd_corrupt *c = &s->corrupt;
    const struct etcd_options *o = s->opt;
    uint64_t now = bns_now_ns(s->env);
    bool due = false;

    if (c->initial && s->leader != 0) {
        c->initial = false;
        due = true;
    }
    if (o->corrupt_check_ns > 0 && now >= c->next_ns) {
        c->next_ns = now + o->corrupt_check_ns;
        due = due || etcd_kv_lease_primary(s->kv);
    }
    if (o->compact_hash_check && now >= c->compact_next_ns) {
        int64_t compacted = etcd_kv_compacted(s->kv);

        c->compact_next_ns = now + o->compact_hash_check_ns;
        due = due || (etcd_kv_lease_primary(s->kv) && compacted != c->compacted);
        c->compacted = compacted;
    }
    return due;
}

void etcd_corrupt_tick(struct etcd_server *s)
{
    struct etcd_corrupt_round *r = s->corrupt.round;

    if (s->stopping || s->node == NULL)
        return;
    if (r != NULL && !r->hashing && r->calling == 0)
        call_all(r, false);
    else if (r == NULL && is_due(s))
        begin(s);
}

/* ---- asked by another member ---------------------------------------------------------------- */

struct asked {
    struct bns_list node;
    struct etcd_server *s;
    struct bns_rpc_request *r; /* NULL: told that we stop */
};

static void hashed_for(void *arg, struct etcd_answer *a)
{
    struct asked *q = arg;
    struct bns_slice body = bns_slice(NULL, 0);
    int code = a->status == 0 ? BNS_OK : a->status == 11 ? BNS_E_AGAIN : BNS_E_BUSY;

    if (code == BNS_OK && a->slices_count == 2)
        body = a->slices[1];
    if (q->r != NULL) {
        bns_rpc_reply(q->r, code, body);
        bns_list_del(&q->node);
        q->s->corrupt.asked_count--;
    }
    if (a->status == 0)
        a->release(a->release_arg, BNS_OK);
    bns_free(q->s->env->alloc, q);
}

void etcd_corrupt_request(struct etcd_server *s, struct bns_rpc_request *r,
                          struct bns_slice payload)
{
    struct asked *q = NULL;
    int64_t revision = 0;
    int rv = etcd_lease_field(payload, 1, &revision);

    if (rv == BNS_OK && revision <= 0)
        rv = BNS_E_PROTO;
    if (rv == BNS_OK && (s->stopping || s->corrupt.asked_count >= ASKED_MAX))
        rv = BNS_E_BUSY;
    if (rv == BNS_OK)
        q = bns_alloc_zero(s->env->alloc, sizeof *q);
    if (q == NULL) {
        bns_rpc_reply(r, rv == BNS_OK ? BNS_E_NOMEM : rv, bns_slice(NULL, 0));
        return;
    }
    q->s = s;
    q->r = r;
    bns_list_push(&s->corrupt.asked, &q->node);
    s->corrupt.asked_count++;
    etcd_kv_hash(s->kv, revision, hashed_for, q);
}

/* ---- start and stop ------------------------------------------------------------------------- */

void etcd_corrupt_init(struct etcd_server *s)
{
    struct bns_metrics *m = s->env->metrics;

    bns_list_init(&s->corrupt.asked);
    s->corrupt.initial = s->opt->initial_corrupt_check;
    s->corrupt.compacted = etcd_kv_compacted(s->kv);
    s->corrupt.next_ns = bns_now_ns(s->env) + s->opt->corrupt_check_ns;
    s->corrupt.compact_next_ns = bns_now_ns(s->env) + s->opt->compact_hash_check_ns;
    if (m == NULL)
        return;
    s->corrupt.m_rounds = bns_counter(m, "bns_etcd_hash_checks_total", NULL,
                                      "Rounds in which members' hashes were compared.");
    s->corrupt.m_found = bns_counter(m, "bns_etcd_hash_differences_total", NULL,
                                     "Members that were found to differ.");
}

void etcd_corrupt_stop(struct etcd_server *s)
{
    struct bns_list *n;
    struct etcd_corrupt_round *r = s->corrupt.round;

    while ((n = bns_list_pop(&s->corrupt.asked)) != NULL) {
        struct asked *q = BNS_CONTAINER(n, struct asked, node);

        bns_rpc_reply(q->r, BNS_E_SHUTDOWN, bns_slice(NULL, 0));
        q->r = NULL;
    }
    if (r != NULL && !r->hashing && r->calling == 0)
        end_round(r, false); /* else: by what it waits for */
}
