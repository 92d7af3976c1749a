/* exec.c - the operations that change the state. They have been checked: none can fail, but for
 * memory, and that ends the node.
 *
 * A transaction gets one main revision, begin + 1; each row it writes gets the next sub revision.
 * An operation sees what earlier ones of the same transaction wrote: once there is a row, "now" is
 * begin + 1. ignore_value and ignore_lease take from the state before the transaction, which is the
 * same thing, because no key may be written twice on one path (check.c).
 *
 * An operation takes its keys out of what the turn of the loop has left (apply_turns.c). When that
 * is nothing, BNS_E_AGAIN goes up to apply.c, and the same call is made again in the next turn:
 * what is done already is counted (x->done) and passed over, a delete goes on at x->cursor.
 */
#include "kv_impl.h"

#include "base/crc32c.h"

static int64_t now(const struct etcd_exec *x)
{
    return x->begin + (x->changes > 0);
}

uint64_t etcd_digest_row(uint64_t digest, const struct etcd_row *r)
{
    uint64_t crc = bns_crc32c(0, r->kv->bytes, r->kv->len);

    return bns_hash_u64(digest ^ (crc << 32 | r->sub), (uint64_t)r->main);
}

/* Takes over the reference. */
static int add_row(struct etcd_exec *x, struct bns_slice key, struct etcd_rev *rev,
                   struct bns_rcbuf *bytes)
{
    struct etcd_kv *kv = x->kv;
    int rv;

    if (bytes == NULL)
        return BNS_E_NOMEM;
    rev->main = x->begin + 1;
    rev->sub = x->changes;
    rev->size |= bytes->len;
    rv = etcd_index_add(&kv->index, key, rev);
    if (rv != BNS_OK) {
        bns_rcbuf_put(bytes);
        return rv;
    }
    if (!etcd_rev_dead(rev))
        etcd_cache_put(&kv->cache, rev->main, rev->sub, bytes);
    x->digest = etcd_digest_row(x->digest, &(struct etcd_row){rev->main, rev->sub, bytes});
    x->changes++;
    return etcd_kv_push_row(kv, rev->main, rev->sub, bytes);
}

/* The row as it was before the transaction; etcd_put_check made sure that it is in memory. */
static bool old_view(struct etcd_exec *x, const struct etcd_key *k, struct etcd_kvview *out)
{
    const struct etcd_rev *v = k == NULL ? NULL : etcd_key_alive_at(k, x->begin);
    struct bns_rcbuf *b = v == NULL ? NULL : etcd_eval_find(x->ev, v);

    return b != NULL && etcd_kvbytes_parse(bns_rcbuf_slice(b), out) == BNS_OK;
}

int etcd_exec_put(struct etcd_exec *x, const Etcdserverpb__PutRequest *r, bool nested)
{
    struct bns_slice key = etcd_bytes(r->key);
    struct etcd_key *k = etcd_index_first(&x->kv->index, key, bns_slice(NULL, 0));
    const struct etcd_rev *old = k == NULL ? NULL : etcd_key_alive_at(k, INT64_MAX);
    struct etcd_kvview before, v = {.key = key, .value = etcd_bytes(r->value), .lease = r->lease};
    bool leased = old != NULL && (old->size & ETCD_REV_LEASE) != 0;
    struct etcd_rev rev = {.size = 0};
    size_t at = 0;
    int rv;

    if ((r->ignore_value || r->ignore_lease) && !old_view(x, k, &before))
        return BNS_E_CORRUPT;
    if (r->ignore_value)
        v.value = before.value;
    if (r->ignore_lease)
        v.lease = before.lease;
    v.create = old == NULL ? x->begin + 1 : old->create;
    v.version = old == NULL ? 1 : old->version + 1;
    v.mod = x->begin + 1;
    if (x->p != NULL) {
        at = etcd_pending_part(x->p, ETCD_PART_PUT, nested);
        x->p->parts[at].header = x->begin + 1;
        if (r->prev_kv && old != NULL) {
            etcd_pending_row(x->p, old, NULL);
            x->p->parts[at].count = 1;
        }
    }
    rev.create = v.create;
    rev.version = v.version;
    rev.size = v.lease != 0 ? ETCD_REV_LEASE : 0;
    bns_counter_add(x->kv->m_put, 1);
    rv = add_row(x, key, &rev, etcd_kvbytes_make(x->kv->alloc, &v));
    if (rv == BNS_OK && v.lease != 0)
        rv = etcd_lease_attach(x->kv, key, v.lease);
    else if (rv == BNS_OK && leased)
        etcd_lessor_detach(&x->kv->leases.lessor, key);
    return rv;
}

/* A tombstone; key is the index's. */
static int bury(struct etcd_exec *x, struct bns_slice key, bool leased)
{
    struct etcd_kvview v = {.key = key};
    struct etcd_rev rev = {.version = 0};
    int rv = add_row(x, key, &rev, etcd_kvbytes_make(x->kv->alloc, &v));

    if (rv == BNS_OK && leased)
        etcd_lessor_detach(&x->kv->leases.lessor, key);
    return rv;
}

/* Keys that the turn has left; takes one. */
static bool take_key(struct etcd_exec *x)
{
    if (x->kv->apply.room == 0)
        return false;
    x->kv->apply.room--;
    return true;
}

static struct etcd_key *delete_begins(struct etcd_exec *x,
                                      const Etcdserverpb__DeleteRangeRequest *r, bool nested)
{
    struct bns_slice from = etcd_bytes(r->key);

    if (x->in_delete) { /* the key may be gone: it was dead, and a compaction came by */
        from = bns_buf_slice(&x->cursor);
    } else {
        x->part = x->p == NULL ? 0 : etcd_pending_part(x->p, ETCD_PART_DELETE, nested);
        x->deleted = 0;
    }
    x->in_delete = false;
    return etcd_index_first(&x->kv->index, from, etcd_bytes(r->range_end));
}

static int delete_pauses(struct etcd_exec *x, const struct etcd_key *k)
{
    struct bns_slice key = etcd_key_bytes(k);

    bns_buf_clear(&x->cursor);
    x->in_delete = true;
    return bns_buf_add(&x->cursor, key.ptr, key.len) == BNS_OK ? BNS_E_AGAIN : BNS_E_NOMEM;
}

int etcd_exec_delete(struct etcd_exec *x, const Etcdserverpb__DeleteRangeRequest *r, bool nested)
{
    struct bns_slice end = etcd_bytes(r->range_end);
    struct etcd_key *k = delete_begins(x, r, nested);
    int rv = BNS_OK;

    for (; k != NULL && rv == BNS_OK; k = etcd_index_next(k, end)) {
        const struct etcd_rev *old = etcd_key_alive_at(k, INT64_MAX);
        if (!take_key(x))
            return delete_pauses(x, k);
        if (old == NULL)
            continue;
        x->deleted++;
        if (x->p != NULL && r->prev_kv) {
            etcd_pending_row(x->p, old, NULL);
            x->p->parts[x->part].count++;
        }
        rv = bury(x, etcd_key_bytes(k), (old->size & ETCD_REV_LEASE) != 0);
    }
    bns_counter_add(x->kv->m_delete, (uint64_t)x->deleted);
    if (x->p != NULL) {
        x->p->parts[x->part].total = x->deleted;
        x->p->parts[x->part].header = now(x);
    }
    return rv;
}

int etcd_exec_bury(struct etcd_exec *x, struct bns_slice key)
{
    return take_key(x) ? bury(x, key, true) : BNS_E_AGAIN;
}

static int exec_leaf(struct etcd_exec *x, const Etcdserverpb__RequestOp *op)
{
    switch (op->request_case) {
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE:
        if (x->p != NULL) {
            int64_t rev = op->request_range->revision;
            etcd_range_resolve(x->kv, x->p, op->request_range, rev <= 0 ? now(x) : rev, now(x),
                               true);
        }
        return BNS_OK;
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
        return etcd_exec_put(x, op->request_put, true);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
        return etcd_exec_delete(x, op->request_delete_range, true);
    default: /* refused before it was proposed; from a lying peer it is nothing */
        if (x->p != NULL)
            (void)etcd_pending_part(x->p, ETCD_PART_NONE, false); /* failure is kept in p */
        return BNS_OK;
    }
}

static int exec_op(struct etcd_exec *x, const Etcdserverpb__RequestOp *op)
{
    int rv;

    if (op->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN)
        return etcd_exec_txn(x, op->request_txn, true);
    if (x->step++ < x->done)
        return BNS_OK; /* in an earlier turn */
    if (!x->in_delete && !take_key(x))
        return BNS_E_AGAIN;
    rv = exec_leaf(x, op);
    if (rv == BNS_OK)
        x->done = x->step;
    return rv;
}

int etcd_exec_txn(struct etcd_exec *x, const Etcdserverpb__TxnRequest *t, bool nested)
{
    bool yes = x->ev->path.ptr[x->ev->path_pos++] != 0;
    size_t n = yes ? t->n_success : t->n_failure;
    bool first = x->step++ >= x->done;
    int rv = BNS_OK;

    if (first)
        x->done = x->step;
    if (first && x->p != NULL) {
        size_t at = etcd_pending_part(x->p, ETCD_PART_TXN, nested);
        x->p->parts[at].succeeded = yes;
        x->p->parts[at].children = (uint32_t)n;
    }
    for (size_t i = 0; i < n && rv == BNS_OK; i++)
        rv = exec_op(x, yes ? t->success[i] : t->failure[i]);
    return rv;
}
