/* check_lease.c - leases: the operations of each by themselves, sorted by lease and call.
 *
 * For one lease: the renewal (grant, keepalive answered with time left) with the largest bound, and
 * the last that began; the first revocation asked for, and the first that was acknowledged. Each
 * sight of the lease being gone is held against them.
 *
 * Late is the other way round: the latest end that anybody could have given the lease is, for each
 * renewal that was tried, its answer plus the time to live; an unanswered one gives it any end.
 */
#include "sim/check_lock.h"

#include <stdlib.h>

struct check {
    const struct bns_check_cfg *cfg;
    struct bns_verdict *v;
    const struct bns_lease_op **ops; /* by lease, call */
};

struct known { /* of one lease */
    const struct bns_lease_op *grant;
    const struct bns_lease_op *longest; /* renewal with the largest bound */
    const struct bns_lease_op *latest;  /* alive: the one that began last */
    const struct bns_lease_op *revoke;  /* asked for first */
    const struct bns_lease_op *revoked; /* acknowledged first */
};

static int by_lease(const void *a, const void *b)
{
    const struct bns_lease_op *x = *(const struct bns_lease_op *const *)a;
    const struct bns_lease_op *y = *(const struct bns_lease_op *const *)b;

    if (x->lease != y->lease)
        return x->lease < y->lease ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static unsigned long long line(const struct bns_lease_op *op)
{
    return (unsigned long long)op->call + 1;
}

static bool renews(const struct bns_lease_op *op)
{
    return op->kind == BNS_LEASE_GRANT || op->kind == BNS_LEASE_KEEPALIVE;
}

static bool shows_alive(const struct bns_lease_op *op)
{
    return op->end == BNS_CHECK_OK && op->kind != BNS_LEASE_REVOKE && !op->gone;
}

static uint64_t add_time(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* It lives at least until then. */
static uint64_t bound(const struct bns_check_cfg *cfg, const struct bns_lease_op *op)
{
    return add_time(op->call_ns, op->ttl_ns - op->ttl_ns / 1000000 * cfg->drift_ppm);
}

static struct known know(const struct check *c, const struct bns_lease_op **ops, size_t n)
{
    struct known k = {0};

    for (size_t i = 0; i < n; i++) {
        const struct bns_lease_op *op = ops[i];
        if (op->kind == BNS_LEASE_GRANT)
            k.grant = op;
        if (op->kind == BNS_LEASE_REVOKE && op->end != BNS_CHECK_FAILED && k.revoke == NULL)
            k.revoke = op;
        if (op->kind == BNS_LEASE_REVOKE && op->end == BNS_CHECK_OK &&
            (k.revoked == NULL || op->ret < k.revoked->ret))
            k.revoked = op;
        if (!shows_alive(op))
            continue;
        k.latest = op;
        if (renews(op) && (k.longest == NULL || bound(c->cfg, op) > bound(c->cfg, k.longest)))
            k.longest = op;
    }
    return k;
}

static int anomaly(struct check *c, const char *what, const struct bns_lease_op *a,
                   const struct bns_lease_op *b, const char *text)
{
    bns_verdict_op(c->v, a->call);
    bns_verdict_op(c->v, b->call);
    return bns_verdict_anomaly(c->v, what, "lease %s: line %llu %s line %llu",
                               bns_check_name(c->cfg, a->lease).s, line(a), text, line(b));
}

static int judge_gone(struct check *c, const struct known *k, const struct bns_lease_op *gone)
{
    if (k->latest != NULL && k->latest->call > gone->ret)
        return anomaly(c, "came-back", gone, k->latest, "sees it gone, and it is alive in");
    if (k->revoke != NULL && k->revoke->call < gone->ret)
        return BNS_OK;
    if (k->longest == NULL || gone->ret_ns >= bound(c->cfg, k->longest))
        return BNS_OK;
    bns_verdict_op(c->v, k->longest->call);
    bns_verdict_op(c->v, gone->call);
    return bns_verdict_anomaly(
        c->v, "early",
        "lease %s: line %llu sees it gone at %llu ms; line %llu gave it %llu ms from %llu ms on",
        bns_check_name(c->cfg, gone->lease).s, line(gone),
        (unsigned long long)(gone->ret_ns / 1000000), line(k->longest),
        (unsigned long long)(k->longest->ttl_ns / 1000000),
        (unsigned long long)(k->longest->call_ns / 1000000));
}

/* Alive at ops[i]: could it be? */
static int judge_late(struct check *c, const struct bns_lease_op **ops, size_t i, size_t n)
{
    const struct bns_lease_op *longest = NULL;
    uint64_t end = 0;

    if (ops[i]->kind == BNS_LEASE_GRANT || (i + 1 < n && ops[i + 1]->call < ops[i]->ret))
        return BNS_OK; /* another may have renewed it meanwhile */
    for (size_t j = 0; j < i; j++) {
        const struct bns_lease_op *op = ops[j];
        uint64_t until = UINT64_MAX;
        if (!renews(op) || op->end == BNS_CHECK_FAILED || (op->end == BNS_CHECK_OK && op->gone))
            continue;
        if (op->end == BNS_CHECK_OK)
            until = add_time(op->ret_ns, op->ttl_ns);
        if (until >= end) {
            end = until;
            longest = op;
        }
    }
    if (longest == NULL || add_time(end, c->cfg->slack_ns) >= ops[i]->call_ns)
        return BNS_OK;
    return anomaly(c, "late", ops[i], longest,
                   "sees it alive long after the end that was given by");
}

static int judge_lease(struct check *c, const struct bns_lease_op **ops, size_t n)
{
    struct known k = know(c, ops, n);
    int rv = BNS_OK;

    if (k.revoked != NULL && k.latest != NULL && k.latest->call > k.revoked->ret)
        return anomaly(c, "came-back", k.revoked, k.latest, "revoked it, and it is alive in");
    for (size_t i = 0; i < n && rv == BNS_OK; i++) {
        const struct bns_lease_op *op = ops[i];
        if (op->end != BNS_CHECK_OK || op->kind == BNS_LEASE_REVOKE)
            continue;
        if (op->gone)
            rv = judge_gone(c, &k, op);
        else if (op->kind == BNS_LEASE_LOOK && op->ttl_ns != UINT64_MAX && k.grant != NULL &&
                 k.grant->end == BNS_CHECK_OK && op->ttl_ns > k.grant->ttl_ns)
            rv =
                anomaly(c, "ttl-above-granted", op, k.grant, "sees more time left than granted by");
        else if (c->cfg->slack_ns > 0)
            rv = judge_late(c, ops, i, n);
    }
    return rv;
}

int bns_check_lease(const struct bns_check_cfg *cfg, const struct bns_lease_op *ops, size_t count,
                    struct bns_verdict *v)
{
    struct check c = {.cfg = cfg, .v = v};
    int rv = BNS_OK;

    bns_verdict_clear(v);
    v->checked = count;
    if (count > BNS_LOCK_OPS_MAX)
        return BNS_E_TOOBIG;
    c.ops = bns_check_array(cfg->alloc, count, sizeof *c.ops);
    if (c.ops == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        c.ops[i] = &ops[i];
    qsort(c.ops, count, sizeof c.ops[0], by_lease);
    for (size_t i = 1; i < count && rv == BNS_OK; i++) {
        if (c.ops[i]->kind == BNS_LEASE_GRANT && c.ops[i]->lease == c.ops[i - 1]->lease)
            rv = bns_verdict_senseless(v, "line %llu grants lease %s, which was known before",
                                       line(c.ops[i]), bns_check_name(cfg, c.ops[i]->lease).s);
    }
    for (size_t i = 0, n; i < count && rv == BNS_OK; i += n) {
        n = 1;
        while (i + n < count && c.ops[i + n]->lease == c.ops[i]->lease)
            n++;
        rv = judge_lease(&c, &c.ops[i], n);
    }
    bns_free(cfg->alloc, c.ops);
    return rv;
}
