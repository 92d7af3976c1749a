/* check_lock.c - locks: the holds of each, and the fencing tokens.
 *
 * The bound of every lease is found first (check_lease.c looks at the leases themselves), then each
 * acquire becomes a hold: an interval of time in which its process holds the lock for certain.
 * Holds of one lock are sorted by their begin; two overlap when one begins before the end of an
 * earlier one. Tokens are compared with the largest of all that ended before the acquire began.
 */
#include "sim/check_lock.h"

#include <stdlib.h>

struct end { /* of a lease */
    uint64_t lease;
    uint64_t bound_ns;  /* it lives until then, unless */
    uint64_t revoke_ns; /* somebody asked to revoke it */
};

struct hold {
    const struct bns_lock_op *op;
    uint64_t end_ns;
};

struct check {
    const struct bns_check_cfg *cfg;
    struct bns_verdict *v;
    struct end *ends; /* by lease */
    size_t ends_count;
    const struct bns_lock_op **ops; /* by lock, call */
    size_t count;
    struct hold *holds;              /* of one lock, by begin */
    const struct bns_lock_op **done; /* of one lock: with tokens, by ret */
};

static unsigned long long line(const struct bns_lock_op *op)
{
    return (unsigned long long)op->call + 1;
}

static int by_lease(const void *a, const void *b)
{
    const struct end *x = a;
    const struct end *y = b;
    return (x->lease > y->lease) - (x->lease < y->lease);
}

static int by_lock(const void *a, const void *b)
{
    const struct bns_lock_op *x = *(const struct bns_lock_op *const *)a;
    const struct bns_lock_op *y = *(const struct bns_lock_op *const *)b;

    if ((x->kind == BNS_LOCK_USE) != (y->kind == BNS_LOCK_USE))
        return x->kind == BNS_LOCK_USE ? 1 : -1;
    if (x->lock != y->lock)
        return x->lock < y->lock ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static int by_ret(const void *a, const void *b)
{
    const struct bns_lock_op *x = *(const struct bns_lock_op *const *)a;
    const struct bns_lock_op *y = *(const struct bns_lock_op *const *)b;
    return (x->ret > y->ret) - (x->ret < y->ret);
}

static int by_token(const void *a, const void *b)
{
    const struct bns_lock_op *x = *(const struct bns_lock_op *const *)a;
    const struct bns_lock_op *y = *(const struct bns_lock_op *const *)b;

    if (x->token != y->token)
        return x->token < y->token ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static int by_begin(const void *a, const void *b)
{
    const struct bns_lock_op *x = ((const struct hold *)a)->op;
    const struct bns_lock_op *y = ((const struct hold *)b)->op;

    if (x->ret_ns != y->ret_ns)
        return x->ret_ns < y->ret_ns ? -1 : 1;
    return (x->ret > y->ret) - (x->ret < y->ret);
}

static void find_ends(struct check *c, const struct bns_lease_op *ops, size_t count)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        const struct bns_lease_op *op = &ops[i];
        struct end e = {op->lease, 0, UINT64_MAX};
        uint64_t sure = op->ttl_ns - op->ttl_ns / 1000000 * c->cfg->drift_ppm;

        if (op->kind == BNS_LEASE_REVOKE && op->end != BNS_CHECK_FAILED)
            e.revoke_ns = op->call_ns;
        else if ((op->kind == BNS_LEASE_GRANT || op->kind == BNS_LEASE_KEEPALIVE) && !op->gone &&
                 op->end == BNS_CHECK_OK && __builtin_add_overflow(op->call_ns, sure, &e.bound_ns))
            e.bound_ns = UINT64_MAX;
        c->ends[c->ends_count++] = e;
    }
    qsort(c->ends, c->ends_count, sizeof c->ends[0], by_lease);
    for (size_t i = 0; i < c->ends_count; i++) { /* one a lease */
        const struct end *e = &c->ends[i];
        if (n > 0 && c->ends[n - 1].lease == e->lease) {
            struct end *k = &c->ends[n - 1];
            k->bound_ns = e->bound_ns > k->bound_ns ? e->bound_ns : k->bound_ns;
            k->revoke_ns = e->revoke_ns < k->revoke_ns ? e->revoke_ns : k->revoke_ns;
        } else {
            c->ends[n++] = *e;
        }
    }
    c->ends_count = n;
}

/* Until when is the acquire ops[i] of this lock in force for certain? */
static uint64_t hold_end(const struct check *c, const struct bns_lock_op **ops, size_t i, size_t n)
{
    struct end want = {.lease = ops[i]->lease};
    const struct end *e = NULL;
    uint64_t end = UINT64_MAX;

    if (ops[i]->lease != 0) {
        e = bsearch(&want, c->ends, c->ends_count, sizeof want, by_lease);
        end = e == NULL ? 0 : e->bound_ns; /* a lease nobody knows holds nothing for certain */
        if (e != NULL && e->revoke_ns < end)
            end = e->revoke_ns;
    }
    for (size_t j = i + 1; j < n; j++) {
        const struct bns_lock_op *r = ops[j];
        if (r->kind == BNS_LOCK_RELEASE && r->process == ops[i]->process &&
            r->end != BNS_CHECK_FAILED)
            return r->call_ns < end ? r->call_ns : end;
    }
    return end;
}

static int check_holds(struct check *c, const struct bns_lock_op **ops, size_t n)
{
    const struct hold *longest = NULL;
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        struct hold h = {ops[i], 0};
        if (ops[i]->kind != BNS_LOCK_ACQUIRE || ops[i]->end != BNS_CHECK_OK)
            continue;
        h.end_ns = hold_end(c, ops, i, n);
        if (h.end_ns > ops[i]->ret_ns)
            c->holds[count++] = h;
    }
    qsort(c->holds, count, sizeof c->holds[0], by_begin);
    for (size_t i = 0; i < count; i++) {
        const struct hold *h = &c->holds[i];
        if (longest != NULL && h->op->ret_ns < longest->end_ns) {
            bns_verdict_op(c->v, longest->op->call);
            bns_verdict_op(c->v, h->op->call);
            return bns_verdict_anomaly(
                c->v, "two-holders",
                "lock %s: process %lld holds it from %llu ms (line %llu) to %llu ms at least; "
                "process %lld got it at %llu ms (line %llu)",
                bns_check_name(c->cfg, h->op->lock).s, (long long)longest->op->process,
                (unsigned long long)(longest->op->ret_ns / 1000000), line(longest->op),
                (unsigned long long)(longest->end_ns / 1000000), (long long)h->op->process,
                (unsigned long long)(h->op->ret_ns / 1000000), line(h->op));
        }
        if (longest == NULL || h->end_ns > longest->end_ns)
            longest = h;
    }
    return BNS_OK;
}

/* done[0..count): acquires of one lock, by token. */
static int check_same(struct check *c, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const struct bns_lock_op *a = c->done[i - 1];
        const struct bns_lock_op *b = c->done[i];
        if (a->token != b->token)
            continue;
        bns_verdict_op(c->v, a->call);
        bns_verdict_op(c->v, b->call);
        return bns_verdict_anomaly(
            c->v, "same-token", "lock %s: lines %llu and %llu both got token %llu",
            bns_check_name(c->cfg, a->lock).s, line(a), line(b), (unsigned long long)a->token);
    }
    return BNS_OK;
}

/* ops: of one lock or resource, by call. Tokens never go back in real time. */
static int check_tokens(struct check *c, const struct bns_lock_op **ops, size_t n)
{
    const struct bns_lock_op *top = NULL; /* largest of those that ended already */
    bool use = n > 0 && ops[0]->kind == BNS_LOCK_USE;
    size_t count = 0, ended = 0;
    int rv;

    for (size_t i = 0; i < n; i++) {
        if (ops[i]->kind != BNS_LOCK_RELEASE && ops[i]->end == BNS_CHECK_OK && ops[i]->token != 0)
            c->done[count++] = ops[i];
    }
    qsort(c->done, count, sizeof c->done[0], by_token);
    rv = use ? BNS_OK : check_same(c, count);
    if (rv != BNS_OK)
        return rv;
    qsort(c->done, count, sizeof c->done[0], by_ret);
    for (size_t i = 0; i < n; i++) {
        const struct bns_lock_op *op = ops[i];
        if (op->kind == BNS_LOCK_RELEASE || op->end != BNS_CHECK_OK || op->token == 0)
            continue;
        for (; ended < count && c->done[ended]->ret < op->call; ended++) {
            if (top == NULL || c->done[ended]->token > top->token)
                top = c->done[ended];
        }
        if (top == NULL || op->token > top->token || (use && op->token == top->token))
            continue;
        bns_verdict_op(c->v, top->call);
        bns_verdict_op(c->v, op->call);
        return bns_verdict_anomaly(c->v, use ? "stale-holder" : "token-went-back",
                                   "%s %s: line %llu %s token %llu; line %llu began after that had "
                                   "ended, and %s %llu",
                                   use ? "resource" : "lock", bns_check_name(c->cfg, op->lock).s,
                                   line(top), use ? "took" : "got", (unsigned long long)top->token,
                                   line(op), use ? "took" : "got", (unsigned long long)op->token);
    }
    return BNS_OK;
}

int bns_check_lock(const struct bns_check_cfg *cfg, const struct bns_lock_op *ops, size_t count,
                   const struct bns_lease_op *leases, size_t leases_count, struct bns_verdict *v)
{
    struct check c = {.cfg = cfg, .v = v, .count = count};
    int rv = BNS_E_NOMEM;

    bns_verdict_clear(v);
    v->checked = count + leases_count;
    if (count > BNS_LOCK_OPS_MAX || leases_count > BNS_LOCK_OPS_MAX)
        return BNS_E_TOOBIG;
    c.ends = bns_check_array(cfg->alloc, leases_count, sizeof *c.ends);
    c.ops = bns_check_array(cfg->alloc, count, sizeof *c.ops);
    c.holds = bns_check_array(cfg->alloc, count, sizeof *c.holds);
    c.done = bns_check_array(cfg->alloc, count, sizeof *c.done);
    if (c.ends == NULL || c.ops == NULL || c.holds == NULL || c.done == NULL)
        goto out;
    find_ends(&c, leases, leases_count);
    for (size_t i = 0; i < count; i++)
        c.ops[i] = &ops[i];
    qsort(c.ops, count, sizeof c.ops[0], by_lock);
    rv = BNS_OK;
    for (size_t i = 0, n; i < count && rv == BNS_OK; i += n) {
        const struct bns_lock_op *first = c.ops[i];
        n = 1;
        while (i + n < count && c.ops[i + n]->lock == first->lock &&
               (c.ops[i + n]->kind == BNS_LOCK_USE) == (first->kind == BNS_LOCK_USE))
            n++;
        rv = check_holds(&c, &c.ops[i], n);
        if (rv == BNS_OK)
            rv = check_tokens(&c, &c.ops[i], n);
    }
out:
    bns_free(cfg->alloc, c.ends);
    bns_free(cfg->alloc, c.ops);
    bns_free(cfg->alloc, c.holds);
    bns_free(cfg->alloc, c.done);
    return rv;
}
