/* check.c - what etcd refuses before it proposes.
 *
 * Two rules need more than a look at one field.
 *
 * Budget: a transaction may hold as many operations as the longest of its three lists, at most
 * txn_ops_max; a nested one gets what its parent has left. This bounds the depth as well, because
 * each level takes at least one.
 *
 * Intervals: on one path through the branches no key may be put twice, nor be put and deleted
 * (then and else of one nested transaction exclude each other). Keys put below a transaction and
 * ranges deleted below it travel upward as two sorted lists, merged pairwise: linear per merge, at
 * most txn_ops_max merges a level, so a 2 MiB request of tiny operations cannot cost more than
 * that. As in etcd, deletes of this level are known before the children are looked at, those of a
 * later sibling are not, and a range that ends in "\0" (all keys from here on) is compared as if it
 * were empty, so that it never collides.
 */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "base/slice.h"

#define PUT_COST 256

static const struct etcd_status empty_key = {3, "etcdserver: key is not provided"};
static const struct etcd_status value_given = {3, "etcdserver: value is provided"};
static const struct etcd_status lease_given = {3, "etcdserver: lease is provided"};
static const struct etcd_status bad_sort = {3, "etcdserver: invalid sort option"};
static const struct etcd_status too_many = {3, "etcdserver: too many operations in txn request"};
static const struct etcd_status no_body = {3, "etcdserver: key not found"};
static const struct etcd_status duplicate = {3, "etcdserver: duplicate key given in txn request"};
static const struct etcd_status no_memory = {8, "etcdserver: too many requests"};

static bool refuse(struct etcd_status *out, struct etcd_status why)
{
    *out = why;
    return false;
}

bool etcd_check_range(const Etcdserverpb__RangeRequest *r, struct etcd_status *out)
{
    if (r->key.len == 0)
        return refuse(out, empty_key);
    if ((int)r->sort_order < 0 || (int)r->sort_order > 2)
        return refuse(out, bad_sort);
    if ((int)r->sort_target < 0 || (int)r->sort_target > 4)
        return refuse(out, bad_sort);
    return true;
}

bool etcd_check_put(const Etcdserverpb__PutRequest *r, struct etcd_status *out)
{
    if (r->key.len == 0)
        return refuse(out, empty_key);
    if (r->ignore_value && r->value.len != 0)
        return refuse(out, value_given);
    if (r->ignore_lease && r->lease != 0)
        return refuse(out, lease_given);
    return true;
}

bool etcd_check_delete(const Etcdserverpb__DeleteRangeRequest *r, struct etcd_status *out)
{
    return r->key.len == 0 ? refuse(out, empty_key) : true;
}

static bool check_shape(const Etcdserverpb__TxnRequest *r, size_t budget, struct etcd_status *out);

static bool check_op(const Etcdserverpb__RequestOp *op, size_t budget, struct etcd_status *out)
{
    switch (op->request_case) {
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE:
        return etcd_check_range(op->request_range, out);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
        return etcd_check_put(op->request_put, out);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
        return etcd_check_delete(op->request_delete_range, out);
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN:
        return check_shape(op->request_txn, budget, out);
    default:
        return refuse(out, no_body);
    }
}

/* Recursion is bounded by the budget: a level that has a nested transaction costs one or more. */
static bool check_shape(const Etcdserverpb__TxnRequest *r, size_t budget, struct etcd_status *out)
{
    size_t ops = r->n_compare;

    ops = ops < r->n_success ? r->n_success : ops;
    ops = ops < r->n_failure ? r->n_failure : ops;
    if (ops > budget)
        return refuse(out, too_many);
    for (size_t i = 0; i < r->n_compare; i++) {
        if (r->compare[i]->key.len == 0)
            return refuse(out, empty_key);
    }
    for (size_t i = 0; i < r->n_success; i++) {
        if (!check_op(r->success[i], budget - ops, out))
            return false;
    }
    for (size_t i = 0; i < r->n_failure; i++) {
        if (!check_op(r->failure[i], budget - ops, out))
            return false;
    }
    return true;
}

/* ---- intervals ------------------------------------------------------------------------------ */

/* Keys as [key, key] (point), deletes as [from, to); open = the right end is past all keys. Sorted
 * by `from`; deletes are disjoint. */
struct span {
    struct bns_slice from;
    struct bns_slice to;
};

struct spans {
    struct span *at;
    size_t count;
};

struct sets {
    struct spans puts;
    struct spans dels;
};

static struct bns_slice slice_of(ProtobufCBinaryData d)
{
    return bns_slice(d.data, d.len);
}

static int span_cmp(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return bns_slice_cmp(x->from, y->from);
}

static void sets_free(const struct bns_alloc *a, struct sets *s)
{
    bns_free(a, s->puts.at);
    bns_free(a, s->dels.at);
    *s = (struct sets){{NULL, 0}, {NULL, 0}};
}

/* The smallest key above k is k followed by a zero byte: is `to` beyond that point? */
static bool point_below(struct bns_slice k, const struct span *d)
{
    if (d->to.ptr == NULL) /* the point d->from */
        return bns_slice_cmp(k, d->from) <= 0;
    return bns_slice_cmp(k, d->to) < 0;
}

/* Both sorted. Deletes may touch or overlap each other: kept by `from`, their ends never shrink
 * (see join), so one pass decides. */
static bool puts_hit_dels(const struct spans *puts, const struct spans *dels)
{
    size_t d = 0;

    for (size_t p = 0; p < puts->count; p++) {
        while (d < dels->count && !point_below(puts->at[p].from, &dels->at[d]))
            d++;
        if (d < dels->count && bns_slice_cmp(dels->at[d].from, puts->at[p].from) <= 0)
            return true;
    }
    return false;
}

/* Is a key of `a` also in `b`? */
static bool puts_meet(const struct spans *a, const struct spans *b)
{
    size_t j = 0;

    for (size_t i = 0; i < a->count; i++) {
        struct bns_slice key = a->at[i].from;
        while (j < b->count && bns_slice_cmp(b->at[j].from, key) < 0)
            j++;
        if (j == b->count)
            return false;
        if (bns_slice_eq(b->at[j].from, key))
            return true;
    }
    return false;
}

/* a reaches at least as far right as b. */
static bool reaches(const struct span *a, const struct span *b)
{
    if (b->to.ptr == NULL)
        return point_below(b->from, a);
    if (a->to.ptr == NULL)
        return bns_slice_cmp(b->to, a->from) <= 0;
    return bns_slice_cmp(a->to, b->to) >= 0;
}

/* *into = the sorted union; a span inside the one before it is left out (equal keys, and deletes
 * that add nothing), so that the right ends rise too. False: out of memory. */
static bool join(const struct bns_alloc *a, struct spans *into, const struct spans *from)
{
    size_t i = 0, j = 0, n = 0;
    struct span *out;

    if (from->count == 0)
        return true;
    out = bns_alloc_array(a, into->count + from->count, sizeof *out);
    if (out == NULL)
        return false;
    while (i < into->count || j < from->count) {
        const struct span *s;
        if (j == from->count || (i < into->count && span_cmp(&into->at[i], &from->at[j]) <= 0))
            s = &into->at[i++];
        else
            s = &from->at[j++];
        if (n == 0 || !reaches(&out[n - 1], s))
            out[n++] = *s;
    }
    bns_free(a, into->at);
    *into = (struct spans){out, n};
    return true;
}

static bool add_level(const struct bns_alloc *a, Etcdserverpb__RequestOp *const *ops, size_t n,
                      bool deletes, struct spans *out)
{
    struct spans none = {NULL, 0}, raw = {NULL, 0};
    bool ok;

    raw.at = bns_alloc_array(a, n + 1, sizeof *raw.at);
    if (raw.at == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        const Etcdserverpb__RequestOp *op = ops[i];
        struct span s = {{NULL, 0}, {NULL, 0}};
        if (deletes && op->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE) {
            s.from = slice_of(op->request_delete_range->key);
            s.to = slice_of(op->request_delete_range->range_end);
            s.to.ptr = s.to.len == 0 ? NULL : s.to.ptr;
            if (s.to.ptr != NULL && bns_slice_cmp(s.from, s.to) >= 0)
                continue; /* an empty interval, as "\0" is to etcd's check */
        } else if (!deletes && op->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT) {
            s.from = slice_of(op->request_put->key);
        } else {
            continue;
        }
        raw.at[raw.count++] = s;
    }
    if (raw.count > 1)
        qsort(raw.at, raw.count, sizeof *raw.at, span_cmp);
    ok = deletes ? join(a, &none, &raw) : true;
    *out = deletes ? none : raw;
    if (deletes || !ok)
        bns_free(a, raw.at);
    if (!ok)
        *out = (struct spans){NULL, 0};
    return ok;
}

static const struct etcd_status *collect(const struct bns_alloc *a,
                                         Etcdserverpb__RequestOp *const *ops, size_t n,
                                         struct sets *s);

/* One nested transaction: both branches against what its siblings and its level hold, then in. */
static const struct etcd_status *collect_child(const struct bns_alloc *a,
                                               const Etcdserverpb__TxnRequest *t, struct sets *s)
{
    struct sets yes = {{NULL, 0}, {NULL, 0}}, no = {{NULL, 0}, {NULL, 0}};
    const struct etcd_status *bad = collect(a, t->success, t->n_success, &yes);

    if (bad == NULL)
        bad = collect(a, t->failure, t->n_failure, &no);
    if (bad == NULL && (puts_meet(&yes.puts, &s->puts) || puts_hit_dels(&yes.puts, &s->dels)))
        bad = &duplicate;
    if (bad == NULL && (puts_meet(&no.puts, &s->puts) || puts_hit_dels(&no.puts, &s->dels)))
        bad = &duplicate;
    if (bad == NULL && (!join(a, &s->puts, &yes.puts) || !join(a, &s->puts, &no.puts) ||
                        !join(a, &s->dels, &yes.dels) || !join(a, &s->dels, &no.dels)))
        bad = &no_memory;
    sets_free(a, &yes);
    sets_free(a, &no);
    return bad;
}

static bool has_twins(const struct spans *s)
{
    for (size_t i = 1; i < s->count; i++) {
        if (bns_slice_eq(s->at[i - 1].from, s->at[i].from))
            return true;
    }
    return false;
}

static const struct etcd_status *collect(const struct bns_alloc *a,
                                         Etcdserverpb__RequestOp *const *ops, size_t n,
                                         struct sets *s)
{
    struct spans own = {NULL, 0};
    const struct etcd_status *bad = NULL;

    if (!add_level(a, ops, n, true, &s->dels))
        return &no_memory;
    for (size_t i = 0; i < n && bad == NULL; i++) {
        if (ops[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN)
            bad = collect_child(a, ops[i]->request_txn, s);
    }
    if (bad != NULL)
        return bad;
    if (!add_level(a, ops, n, false, &own))
        return &no_memory;
    if (has_twins(&own) || puts_meet(&own, &s->puts) || puts_hit_dels(&own, &s->dels))
        bad = &duplicate;
    else if (!join(a, &s->puts, &own))
        bad = &no_memory;
    bns_free(a, own.at);
    return bad;
}

static const struct etcd_status *check_branch(const struct bns_alloc *a,
                                              Etcdserverpb__RequestOp *const *ops, size_t n)
{
    struct sets s = {{NULL, 0}, {NULL, 0}};
    const struct etcd_status *bad = collect(a, ops, n, &s);

    sets_free(a, &s);
    return bad;
}

bool etcd_check_txn(const Etcdserverpb__TxnRequest *r, const struct etcd_limits *limits,
                    const struct bns_alloc *alloc, struct etcd_status *out)
{
    const struct etcd_status *bad;
    size_t budget = limits->txn_ops_max == 0 ? 128 : limits->txn_ops_max;

    if (!check_shape(r, budget, out))
        return false;
    bad = check_branch(alloc, r->success, r->n_success);
    if (bad == NULL)
        bad = check_branch(alloc, r->failure, r->n_failure);
    return bad == NULL ? true : refuse(out, *bad);
}

/* ---- what kind, and what it costs ----------------------------------------------------------- */

static bool all_ranges(Etcdserverpb__RequestOp *const *ops, size_t n, bool serializable)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i]->request_case != ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE)
            return false;
        if (serializable && !ops[i]->request_range->serializable)
            return false;
    }
    return true;
}

bool etcd_txn_readonly(const Etcdserverpb__TxnRequest *r)
{
    return all_ranges(r->success, r->n_success, false) &&
           all_ranges(r->failure, r->n_failure, false);
}

bool etcd_txn_serializable(const Etcdserverpb__TxnRequest *r)
{
    return all_ranges(r->success, r->n_success, true) && all_ranges(r->failure, r->n_failure, true);
}

uint64_t etcd_cost_put(const Etcdserverpb__PutRequest *r)
{
    return (uint64_t)r->key.len + r->value.len + PUT_COST;
}

static uint64_t cost_ops(Etcdserverpb__RequestOp *const *ops, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        if (ops[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT)
            sum += etcd_cost_put(ops[i]->request_put);
        else if (ops[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN)
            sum += etcd_cost_txn(ops[i]->request_txn);
    }
    return sum;
}

uint64_t etcd_cost_txn(const Etcdserverpb__TxnRequest *r)
{
    uint64_t yes = cost_ops(r->success, r->n_success), no = cost_ops(r->failure, r->n_failure);

    return yes > no ? yes : no;
}
