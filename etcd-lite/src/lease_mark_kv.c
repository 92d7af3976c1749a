/* lease_mark_kv.c - checkpoints of leases in the replicated store: proposed, applied, loaded.
 *
 * One entry holds up to BATCH checkpoints; the leader proposes one a turn, a turn each TURN_NS: at
 * most 2,000 leases a second. With more, the oldest are first, and the time between two of a lease
 * grows. What takes checkpoints back, because renewals wait, goes at once, a batch a loop turn.
 *
 * The state is the row id -> seconds of the bucket LEASES (kv_bucket.c), and `saved` in the lessor.
 * SAVED_MAX leases have one; the others begin with their TTL under a new leader. Every member
 * decides that alike, by its own count.
 *
 * In the log: InternalRaftRequest{lease_checkpoint{checkpoints{ID, remaining_TTL, granted_index}*},
 * only_in_term}; remaining_TTL 0 takes it back. etcd's message, and lease.c's two conditions.
 */
#include "base/varint.h"
#include "codec/pb.h"
#include "kv_impl.h"

#define BATCH 1000u
#define TURN_NS (500 * BNS_MS)
#define RETRY_NS (3 * BNS_SEC)
#define AGAIN_NS (50 * BNS_MS)
#define HAND_OVER_MAX 16u /* entries */
#define SAVED_MAX 500000u

/* ---- entries out ----------------------------------------------------------------------------- */

struct batch {
    struct etcd_kv *kv;
    struct bns_buf b; /* a LeaseCheckpointRequest */
    uint32_t count;
    bool failed;
};

static void batch_init(struct batch *x, struct etcd_kv *kv)
{
    *x = (struct batch){.kv = kv};
    bns_buf_init(&x->b, kv->alloc, SIZE_MAX / 2);
}

static void batch_add(struct batch *x, const struct etcd_lease *e, int64_t seconds)
{
    size_t len = bns_pb_len_u64(1, (uint64_t)e->id) + bns_pb_len_u64(2, (uint64_t)seconds) +
                 bns_pb_len_u64(20001, e->index);
    int rv = bns_pb_put_len(&x->b, 1, len);

    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&x->b, 1, e->id);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&x->b, 2, seconds);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&x->b, 20001, e->index);
    x->failed = x->failed || rv != BNS_OK;
    x->count++;
}

/* Proposes what is in it, if anything; it is empty then. False: not taken. */
static bool batch_propose(struct batch *x)
{
    struct etcd_leases *s = &x->kv->leases;
    struct bns_rcbuf *entry = NULL;
    struct bns_buf out;
    int rv = x->failed ? BNS_E_NOMEM : BNS_OK;

    if (x->count == 0)
        return true;
    bns_buf_init(&out, x->kv->alloc, SIZE_MAX / 2);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(&out, ETCD_OP_LEASE_CHECKPOINT, bns_buf_slice(&x->b));
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&out, 20000, s->term);
    if (rv == BNS_OK)
        entry = bns_rcbuf_copy(x->kv->alloc, bns_buf_slice(&out));
    rv = entry == NULL ? BNS_E_NOMEM : s->hooks.propose(s->hooks.arg, entry);
    if (rv != BNS_OK)
        BNS_LOG(x->kv->env->log, BNS_LOG_DEBUG, "lease", "checkpoints not proposed",
                BNS_U64("leases", x->count));
    bns_rcbuf_put(entry);
    bns_buf_free(&out);
    bns_buf_free(&x->b);
    bns_counter_add(s->m_marked, rv == BNS_OK ? x->count : 0);
    batch_init(x, x->kv);
    return rv == BNS_OK;
}

/* ---- the leader's turns ---------------------------------------------------------------------- */

void etcd_lease_marks_arm(struct etcd_kv *kv)
{
    struct etcd_leases *s = &kv->leases;
    uint64_t at = etcd_lessor_mark_deadline(&s->lessor);

    if (at < s->mark_turn_ns)
        at = s->mark_turn_ns;
    if (s->lessor.primary && !bns_list_empty(&s->lessor.clears)) {
        const struct etcd_lease *e = BNS_CONTAINER(s->lessor.clears.next, struct etcd_lease, clear);
        at = e->clear_ns < at ? e->clear_ns : at;
    }
    if (kv->stopping || kv->dead || s->hooks.propose == NULL || at == BNS_NEVER) {
        bns_timer_stop(kv->env, &s->mark_timer);
        s->mark_armed_ns = BNS_NEVER;
    } else if (s->mark_armed_ns != at) {
        s->mark_armed_ns = at;
        bns_timer_start(kv->env, &s->mark_timer, at);
    }
}

static void propose_clears(struct etcd_kv *kv, uint64_t now)
{
    struct etcd_lessor *l = &kv->leases.lessor;
    struct bns_list taken, *n;
    struct batch x;

    batch_init(&x, kv);
    bns_list_init(&taken);
    while (x.count < BATCH && (n = bns_list_pop(&l->clears)) != NULL) {
        struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, clear);

        e->clear_ns = now;
        batch_add(&x, e, 0);
        bns_list_push(&taken, n);
    }
    if (batch_propose(&x)) {
        while ((n = bns_list_pop(&taken)) != NULL)
            BNS_CONTAINER(n, struct etcd_lease, clear)->clears_out++;
        return;
    }
    BNS_LIST_EACH(it, &taken)
    {
        BNS_CONTAINER(it, struct etcd_lease, clear)->clear_ns = now + AGAIN_NS;
    }
    bns_list_splice(&l->clears, &taken);
}

static void on_timer(void *arg)
{
    struct etcd_kv *kv = arg;
    struct etcd_leases *s = &kv->leases;
    uint64_t now = bns_now_ns(kv->env);
    struct etcd_lease *e;
    int64_t seconds;
    struct batch x;

    s->mark_armed_ns = BNS_NEVER;
    if (!s->lessor.primary || kv->dead)
        return;
    propose_clears(kv, now);
    if (now >= s->mark_turn_ns) {
        batch_init(&x, kv);
        while (x.count < BATCH && (e = etcd_lessor_mark(&s->lessor, now, &seconds)) != NULL)
            batch_add(&x, e, seconds);
        if (x.count > 0)
            s->mark_turn_ns = now + TURN_NS;
        (void)batch_propose(&x); /* not taken: the next one says it */
    }
    etcd_lease_marks_arm(kv);
}

/* Again when it has been asked for long ago: it may have been lost. */
void etcd_lease_clear_soon(struct etcd_kv *kv, struct etcd_lease *e)
{
    uint64_t now = bns_now_ns(kv->env);

    BNS_ASSERT(kv->leases.lessor.primary);
    if (e->clearing && (!bns_list_empty(&e->clear) || now < e->clear_ns + RETRY_NS))
        return;
    e->clearing = true;
    e->clear_ns = now;
    bns_list_push(&kv->leases.lessor.clears, &e->clear);
    etcd_lease_marks_arm(kv);
}

void etcd_kv_lease_hand_over(struct etcd_kv *kv)
{
    struct etcd_leases *s = &kv->leases;
    uint64_t now = bns_now_ns(kv->env);
    struct etcd_lease *e = NULL;
    int64_t seconds;
    struct batch x;

    if (s->hooks.propose == NULL)
        return;
    batch_init(&x, kv);
    for (uint32_t n = 0; n < HAND_OVER_MAX * BATCH; n++) {
        e = etcd_lessor_mark_next(&s->lessor, now, e, &seconds);
        if (e == NULL)
            break;
        batch_add(&x, e, seconds);
        if (x.count == BATCH && !batch_propose(&x))
            break;
    }
    (void)batch_propose(&x); /* not taken: the next leader gives more */
    bns_buf_free(&x.b);
}

/* ---- entries in ------------------------------------------------------------------------------ */

static struct bns_slice key_of(const struct etcd_lease *e, uint8_t space[8])
{
    bns_put_u64be(space, (uint64_t)e->id);
    return bns_slice(space, 8);
}

int etcd_lease_mark_drop(struct etcd_kv *kv, const struct etcd_lease *e)
{
    uint8_t key[8];

    return e->saved == 0 ? BNS_OK : etcd_bucket_del(kv, ETCD_BUCKET_LEASES, key_of(e, key));
}

static int apply_one(struct etcd_kv *kv, const Etcdserverpb__LeaseCheckpoint *c)
{
    struct etcd_lessor *l = &kv->leases.lessor;
    struct etcd_lease *e = etcd_lessor_find(l, c->id);
    uint64_t now = bns_now_ns(kv->env);
    uint8_t key[8], value[8];
    int rv;

    if (e == NULL || e->index != c->granted_index || c->remaining_ttl < 0 ||
        c->remaining_ttl > e->ttl)
        return BNS_OK;
    if (c->remaining_ttl == 0) {
        rv = etcd_lease_mark_drop(kv, e);
        if (rv == BNS_OK)
            etcd_lessor_saved(l, e, 0, now);
        return rv;
    }
    if (e->saved == 0 && l->saved_count >= SAVED_MAX)
        return BNS_OK;
    bns_put_u64le(value, (uint64_t)c->remaining_ttl);
    rv = etcd_bucket_put(kv, ETCD_BUCKET_LEASES, key_of(e, key), bns_slice(value, 8));
    if (rv == BNS_E_TOOBIG) /* every member alike: it has none */
        return BNS_OK;
    if (rv == BNS_OK)
        etcd_lessor_saved(l, e, c->remaining_ttl, now);
    return rv;
}

int etcd_lease_mark_apply(struct etcd_kv *kv, uint64_t term,
                          const Etcdserverpb__InternalRaftRequest *r)
{
    int rv = BNS_OK;

    if (r->only_in_term != term) /* said by a clock that no longer counts */
        return BNS_OK;
    for (size_t i = 0; i < r->lease_checkpoint->n_checkpoints && rv == BNS_OK; i++)
        rv = apply_one(kv, r->lease_checkpoint->checkpoints[i]);
    etcd_lease_marks_arm(kv);
    return rv;
}

/* ---- the store ------------------------------------------------------------------------------- */

void etcd_lease_marks_init(struct etcd_kv *kv)
{
    bns_timer_init(&kv->leases.mark_timer, on_timer, kv);
    kv->leases.mark_armed_ns = BNS_NEVER;
}

/* The buckets and the leases are there. */
int etcd_lease_marks_loaded(struct etcd_kv *kv, struct bns_err *err)
{
    const struct etcd_bucket_row *r = NULL;

    while ((r = etcd_bucket_next(kv, ETCD_BUCKET_LEASES, r)) != NULL) {
        struct bns_slice key = etcd_bucket_key(r), value = etcd_bucket_value(r);
        struct etcd_lease *e = NULL;
        uint64_t seconds = 0;

        if (key.len == 8 && value.len == 8) {
            e = etcd_lessor_find(&kv->leases.lessor, (int64_t)bns_get_u64be(key.ptr));
            seconds = bns_get_u64le(value.ptr);
        }
        if (e == NULL || seconds == 0 || seconds > (uint64_t)e->ttl)
            return bns_err_set(err, BNS_E_CORRUPT, "a checkpoint of a lease that does not exist");
        etcd_lessor_saved(&kv->leases.lessor, e, (int64_t)seconds, 0);
    }
    return BNS_OK;
}
