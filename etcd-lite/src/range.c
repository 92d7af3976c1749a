/* range.c - Range: from a request to the list of rows that answer it, on the index alone.
 *
 * As etcd: `count` is the number of keys in the range at that revision, before limit and filters.
 * With a sort order or a min/max filter the limit applies after sorting and filtering. Without them
 * it applies to the keys in order, one more being taken to know `more`, and a sort target other
 * than KEY then sorts (ascending) only what was taken. Equal sort keys stay in key order.
 * keys_only answers are made from the index; only sorting by VALUE needs rows before it can cut.
 */
#include "kv_impl.h"

#include <stdlib.h>

#define R_NONE ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__NONE
#define R_DESCEND ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND
#define T_KEY ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__KEY
#define T_VERSION ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VERSION
#define T_CREATE ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__CREATE
#define T_MOD ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__MOD
#define T_VALUE ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE

struct hit {
    const struct etcd_key *key;
    const struct etcd_rev *rev;
    int64_t sort;
    size_t seq;
};

struct hits {
    const struct bns_alloc *alloc;
    struct hit *at;
    size_t count, cap;
    struct hit inside[4];
};

int64_t etcd_range_revision(const struct etcd_kv *kv, int64_t wanted, int64_t now,
                            struct etcd_status *why)
{
    if (wanted > now) {
        *why = etcd_future;
        return 0;
    }
    if (wanted <= 0)
        return now;
    if (wanted < kv->now.compact_scheduled) {
        *why = etcd_compacted;
        return 0;
    }
    return wanted;
}

static bool filters(const Etcdserverpb__RangeRequest *r)
{
    return r->min_mod_revision != 0 || r->max_mod_revision != 0 || r->min_create_revision != 0 ||
           r->max_create_revision != 0;
}

static bool passes(const Etcdserverpb__RangeRequest *r, const struct etcd_rev *v)
{
    if (r->max_mod_revision != 0 && v->main > r->max_mod_revision)
        return false;
    if (r->min_mod_revision != 0 && v->main < r->min_mod_revision)
        return false;
    if (r->max_create_revision != 0 && v->create > r->max_create_revision)
        return false;
    return r->min_create_revision == 0 || v->create >= r->min_create_revision;
}

static bool hit_add(struct hits *h, const struct etcd_key *k, const struct etcd_rev *v,
                    int64_t sort)
{
    if (h->count == h->cap) {
        size_t cap = h->cap * 2;
        struct hit *at = h->at == h->inside ? bns_alloc_array(h->alloc, cap, sizeof *at)
                                            : bns_resize(h->alloc, h->at, cap * sizeof *at);
        if (at == NULL)
            return false;
        if (h->at == h->inside)
            memcpy(at, h->inside, sizeof h->inside);
        h->at = at;
        h->cap = cap;
    }
    h->at[h->count] = (struct hit){k, v, sort, h->count};
    h->count++;
    return true;
}

static int64_t sort_key(const Etcdserverpb__RangeRequest *r, const struct etcd_rev *v)
{
    switch ((int)r->sort_target) {
    case T_VERSION:
        return v->version;
    case T_CREATE:
        return v->create;
    case T_MOD:
        return v->main;
    default:
        return 0;
    }
}

static int ascending(const void *a, const void *b)
{
    const struct hit *x = a, *y = b;
    int c = (x->sort > y->sort) - (x->sort < y->sort);
    return c != 0 ? c : (x->seq > y->seq) - (x->seq < y->seq);
}

static int descending(const void *a, const void *b)
{
    const struct hit *x = a, *y = b;
    int c = (x->sort < y->sort) - (x->sort > y->sort);
    return c != 0 ? c : (x->seq > y->seq) - (x->seq < y->seq);
}

static void sort_hits(const Etcdserverpb__RangeRequest *r, struct hits *h)
{
    bool down = (int)r->sort_order == R_DESCEND;

    if ((int)r->sort_target == T_KEY) {
        for (size_t i = 0; down && i < h->count / 2; i++) {
            struct hit t = h->at[i];
            h->at[i] = h->at[h->count - 1 - i];
            h->at[h->count - 1 - i] = t;
        }
        return;
    }
    qsort(h->at, h->count, sizeof *h->at, down ? descending : ascending);
}

/* Walks the range; false: no memory. */
static bool collect(struct etcd_kv *kv, const Etcdserverpb__RangeRequest *r, int64_t rev,
                    struct hits *h, int64_t *total)
{
    struct bns_slice end = etcd_bytes(r->range_end);
    bool custom = (int)r->sort_order != R_NONE || filters(r);
    uint64_t limit = custom || r->limit <= 0 ? UINT64_MAX : (uint64_t)r->limit + 1;
    struct etcd_key *k = etcd_index_first(&kv->index, etcd_bytes(r->key), end);

    for (; k != NULL; k = etcd_index_next(k, end)) {
        const struct etcd_rev *v = etcd_key_alive_at(k, rev);
        if (v == NULL)
            continue;
        if (*total == 64 && BNS_MUTANT(kv->env, ETCD_MUTANT_RANGE_BORDER)) {
            k = etcd_index_next(k, end);
            if (k == NULL)
                break;
        }
        ++*total;
        if (r->count_only || h->count >= limit || !passes(r, v))
            continue;
        if (!hit_add(h, k, v, sort_key(r, v)))
            return false;
    }
    return true;
}

/* A KeyValue without its value, from what the index knows. */
static struct bns_rcbuf *key_only(struct etcd_kv *kv, const struct hit *h)
{
    struct etcd_kvview v = {.key = etcd_key_bytes(h->key),
                            .create = h->rev->create,
                            .mod = h->rev->main,
                            .version = h->rev->version};

    return etcd_kvbytes_make(kv->alloc, &v);
}

static void add_rows(struct etcd_kv *kv, struct etcd_pending *p, const struct hits *h, size_t count,
                     bool keys_only)
{
    for (size_t i = 0; i < count && !p->failed; i++) {
        struct bns_rcbuf *b = NULL;
        if (keys_only && (h->at[i].rev->size & ETCD_REV_LEASE) == 0) {
            b = key_only(kv, &h->at[i]);
            p->failed = b == NULL;
        }
        if (!p->failed)
            etcd_pending_row(p, h->at[i].rev, b);
    }
}

void etcd_range_resolve(struct etcd_kv *kv, struct etcd_pending *p,
                        const Etcdserverpb__RangeRequest *r, int64_t rev, int64_t header,
                        bool nested)
{
    struct hits h = {.alloc = kv->alloc, .cap = 4};
    size_t at = etcd_pending_part(p, ETCD_PART_RANGE, nested);
    bool by_value = (int)r->sort_target == T_VALUE;
    int64_t total = 0;
    size_t count;

    h.at = h.inside;
    bns_counter_add(kv->m_range, 1);
    if (p->failed || !collect(kv, r, rev, &h, &total)) {
        p->failed = true;
        goto out;
    }
    if (!by_value && ((int)r->sort_order != R_NONE || (int)r->sort_target != T_KEY))
        sort_hits(r, &h);
    count = h.count;
    p->parts[at].total = total;
    p->parts[at].header = header;
    p->parts[at].by_value = by_value;
    p->parts[at].descending = (int)r->sort_order == R_DESCEND;
    p->parts[at].limit = r->limit;
    p->parts[at].strip = r->keys_only;
    if (!by_value && r->limit > 0 && count > (uint64_t)r->limit) {
        count = (size_t)r->limit;
        p->parts[at].more = true;
    }
    p->parts[at].count = count;
    add_rows(kv, p, &h, count, r->keys_only && !by_value);

out:
    if (h.at != h.inside)
        bns_free(kv->alloc, h.at);
}

/* ---- reads of clients ----------------------------------------------------------------------- */

/* A read-only txn while it is evaluated, or any read that waits for its turn. */
struct read {
    struct bns_list node; /* kv->reads */
    struct etcd_kv *kv;
    const Etcdserverpb__RangeRequest *range;
    const Etcdserverpb__TxnRequest *txn;
    etcd_done *done;
    void *arg;
    struct etcd_eval eval; /* of a txn */
};

static void read_range(struct etcd_kv *kv, const Etcdserverpb__RangeRequest *req, etcd_done *done,
                       void *arg)
{
    struct etcd_status why = etcd_ok;
    int64_t rev = etcd_range_revision(kv, req->revision, kv->now.revision, &why);
    struct etcd_pending *p;

    if (rev == 0) {
        etcd_refuse(done, arg, why);
        return;
    }
    p = etcd_pending_new(kv);
    if (p == NULL) {
        etcd_refuse(done, arg, etcd_no_memory);
        return;
    }
    p->done = done;
    p->arg = arg;
    p->revision = kv->now.revision;
    etcd_range_resolve(kv, p, req, rev, 0, false);
    etcd_pending_run(p);
}

static void read_free(struct read *r)
{
    etcd_eval_free(&r->eval);
    bns_free(r->kv->alloc, r);
}

/* All compares are decided: the ranges of the chosen branch are resolved at this same revision. */
static void txn_resolve(struct read *r)
{
    struct etcd_kv *kv = r->kv;
    const Etcdserverpb__TxnRequest *t = r->txn;
    bool yes = r->eval.path.ptr[0] != 0;
    size_t n = yes ? t->n_success : t->n_failure;
    struct etcd_pending *p = etcd_pending_new(kv);
    etcd_done *done = r->done;
    void *arg = r->arg;
    size_t at;

    read_free(r);
    if (p == NULL) {
        etcd_refuse(done, arg, etcd_no_memory);
        return;
    }
    p->done = done;
    p->arg = arg;
    p->revision = kv->now.revision;
    at = etcd_pending_part(p, ETCD_PART_TXN, false);
    p->parts[at].succeeded = yes;
    p->parts[at].children = (uint32_t)n;
    for (size_t i = 0; i < n && !p->failed; i++) {
        const Etcdserverpb__RequestOp *op = yes ? t->success[i] : t->failure[i];
        int64_t rev = op->request_range->revision;
        etcd_range_resolve(kv, p, op->request_range, rev <= 0 ? kv->now.revision : rev,
                           kv->now.revision, true);
    }
    etcd_pending_run(p);
}

static void txn_step(struct etcd_eval *ev)
{
    struct read *r = BNS_CONTAINER(ev, struct read, eval);
    struct etcd_status why = etcd_no_memory;
    int64_t now = r->kv->now.revision;
    etcd_done *done = r->done;
    void *arg = r->arg;
    enum etcd_step step;

    if (r->kv->install.active) { /* the state is being replaced: begin again behind it */
        etcd_eval_reset(ev);
        bns_list_push(&r->kv->reads, &r->node);
        return;
    }
    step = etcd_txn_path(ev, r->txn, now);
    if (step == ETCD_GO)
        step = etcd_txn_check(ev, r->txn, now, &why);
    if (step == ETCD_MISSING) {
        etcd_eval_fetch(ev);
    } else if (step == ETCD_GO) {
        txn_resolve(r);
    } else {
        read_free(r);
        etcd_refuse(done, arg, why);
    }
}

static void read_start(struct read *r)
{
    const Etcdserverpb__RangeRequest *range = r->range;
    struct etcd_kv *kv = r->kv;
    etcd_done *done = r->done;
    void *arg = r->arg;

    if (r->txn != NULL) {
        txn_step(&r->eval);
        return;
    }
    read_free(r);
    read_range(kv, range, done, arg);
}

bool etcd_kv_reads_wait(const struct etcd_kv *kv)
{
    return kv->install.active || kv->reading_bytes >= kv->read_bytes;
}

static struct read *read_new(struct etcd_kv *kv, etcd_done *done, void *arg)
{
    struct read *r = bns_alloc_zero(kv->alloc, sizeof *r);

    if (r == NULL) {
        etcd_refuse(done, arg, etcd_no_memory);
        return NULL;
    }
    r->kv = kv;
    r->done = done;
    r->arg = arg;
    bns_list_init(&r->node);
    etcd_eval_init(&r->eval, kv);
    r->eval.resume = txn_step;
    return r;
}

void etcd_kv_range(struct etcd_kv *kv, const Etcdserverpb__RangeRequest *req, etcd_done *done,
                   void *arg)
{
    struct read *r;

    if (kv->dead || kv->stopping) {
        etcd_refuse(done, arg, etcd_stopped);
    } else if (etcd_kv_alarmed(kv, ETCD_ALARM_CORRUPT)) {
        etcd_refuse(done, arg, etcd_damaged);
    } else if (!etcd_kv_reads_wait(kv)) {
        read_range(kv, req, done, arg);
    } else {
        r = read_new(kv, done, arg);
        if (r == NULL)
            return;
        r->range = req;
        bns_list_push(&kv->reads, &r->node);
    }
}

void etcd_kv_txn_readonly(struct etcd_kv *kv, const Etcdserverpb__TxnRequest *req, etcd_done *done,
                          void *arg)
{
    struct read *r;

    BNS_ASSERT(etcd_txn_readonly(req));
    if (kv->dead || kv->stopping || etcd_kv_alarmed(kv, ETCD_ALARM_CORRUPT)) {
        etcd_refuse(done, arg, kv->dead || kv->stopping ? etcd_stopped : etcd_damaged);
        return;
    }
    r = read_new(kv, done, arg);
    if (r == NULL)
        return;
    bns_counter_add(kv->m_txn, 1);
    r->txn = req;
    if (etcd_kv_reads_wait(kv))
        bns_list_push(&kv->reads, &r->node);
    else
        read_start(r);
}

void etcd_reads_pump(struct etcd_kv *kv)
{
    if (kv->pumping)
        return;
    kv->pumping = true;
    while (!etcd_kv_reads_wait(kv) && !bns_list_empty(&kv->reads)) {
        struct read *r = BNS_CONTAINER(bns_list_pop(&kv->reads), struct read, node);
        read_start(r);
    }
    kv->pumping = false;
}

void etcd_reads_refuse(struct etcd_kv *kv)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&kv->reads)) != NULL) {
        struct read *r = BNS_CONTAINER(n, struct read, node);
        etcd_done *done = r->done;
        void *arg = r->arg;
        read_free(r);
        etcd_refuse(done, arg, etcd_stopped);
    }
}
