/* check_bank.c - bank: single reads, reads beside each other, reads against transfers.
 *
 * The last is a sweep over the calls and returns in order. R0 is the read that began first. A
 * transfer that had returned before R0 was called is in R0. Of the others
 *     sure      called after R0 had returned, and returned ok before read R was called: in R
 *     possible  called before R returned, and not sure: in R or not
 * so that each balance of R lies between
 *     R0 + sure + all possible losses   and   R0 + sure + all possible gains.
 * Gains and losses are summed apart, for those that began and for those that are sure; the second
 * pair is copied when R is called.
 *
 * Invariants: gains only grow, losses only shrink; sums stay far from overflow because money and
 * operations are bounded.
 */
#include "sim/check_bank.h"

#include <stdlib.h>

struct sums {
    int64_t gain, loss;
};

struct check {
    const struct bns_check_cfg *cfg;
    const struct bns_bank_op *ops;
    size_t count;
    struct bns_verdict *v;
    const struct bns_bank_op **reads; /* that ended ok, by call */
    size_t reads_count;
    struct bns_bank_account *first; /* of reads[0], by id */
    size_t first_count;
    struct sums *began, *sure; /* one an account */
    struct sums **at_call;     /* one an operation: `sure` when that read was called */
};

_Static_assert(BNS_BANK_MONEY_MAX <= INT64_MAX / 8 / BNS_BANK_ACCOUNTS_MAX, "a total fits");

static unsigned long long line(uint64_t call)
{
    return (unsigned long long)call + 1;
}

static int by_id(const void *a, const void *b)
{
    const struct bns_bank_account *x = a;
    const struct bns_bank_account *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_call(const void *a, const void *b)
{
    const struct bns_bank_op *x = *(const struct bns_bank_op *const *)a;
    const struct bns_bank_op *y = *(const struct bns_bank_op *const *)b;
    return (x->call > y->call) - (x->call < y->call);
}

static struct bns_bank_account *account(const struct check *c, uint64_t id)
{
    struct bns_bank_account want = {.id = id};
    return bsearch(&want, c->first, c->first_count, sizeof want, by_id);
}

static int validate(struct check *c)
{
    int64_t moved = 0;

    for (size_t i = 0; i < c->count; i++) {
        const struct bns_bank_op *op = &c->ops[i];
        if (op->end == BNS_CHECK_OK && op->ret <= op->call)
            return bns_verdict_senseless(c->v, "line %llu ended before it began", line(op->call));
        if (op->transfer && (op->amount < 0 || op->amount > BNS_BANK_MONEY_MAX))
            return bns_verdict_senseless(c->v, "line %llu: an amount out of range", line(op->call));
        if (op->transfer)
            moved += op->amount;
        if (moved > INT64_MAX / 4)
            return BNS_E_TOOBIG;
        if (!op->transfer && op->end == BNS_CHECK_OK)
            c->reads[c->reads_count++] = op;
        if (op->accounts_count > BNS_BANK_ACCOUNTS_MAX)
            return BNS_E_TOOBIG;
        for (size_t j = 0; j < op->accounts_count; j++) {
            int64_t b = op->accounts[j].balance;
            if (b < -BNS_BANK_MONEY_MAX || b > BNS_BANK_MONEY_MAX)
                return bns_verdict_senseless(c->v, "line %llu: a balance out of range",
                                             line(op->call));
        }
    }
    qsort(c->reads, c->reads_count, sizeof c->reads[0], by_call);
    return BNS_OK;
}

/* ---- single reads ---------------------------------------------------------------------------- */

static int take_first(struct check *c)
{
    const struct bns_bank_op *r = c->reads[0];

    c->first_count = r->accounts_count;
    c->first = bns_check_array(c->cfg->alloc, r->accounts_count, sizeof *c->first);
    if (c->first == NULL)
        return BNS_E_NOMEM;
    if (r->accounts_count > 0)
        memcpy(c->first, r->accounts, r->accounts_count * sizeof *c->first);
    qsort(c->first, c->first_count, sizeof *c->first, by_id);
    for (size_t i = 1; i < c->first_count; i++) {
        if (c->first[i].id == c->first[i - 1].id) {
            bns_verdict_op(c->v, r->call);
            return bns_verdict_anomaly(c->v, "other-accounts",
                                       "the read of line %llu shows account %s twice",
                                       line(r->call), bns_check_name(c->cfg, c->first[i].id).s);
        }
    }
    return BNS_OK;
}

/* Same accounts as the first read: as many, each known, none twice. */
static int check_accounts(struct check *c, const struct bns_bank_op *r, bool *seen)
{
    bool same = r->accounts_count == c->first_count;

    memset(seen, 0, c->first_count * sizeof *seen);
    for (size_t i = 0; i < r->accounts_count && same; i++) {
        const struct bns_bank_account *a = account(c, r->accounts[i].id);
        same = a != NULL && !seen[a - c->first];
        if (same)
            seen[a - c->first] = true;
    }
    if (same)
        return BNS_OK;
    bns_verdict_op(c->v, c->reads[0]->call);
    bns_verdict_op(c->v, r->call);
    return bns_verdict_anomaly(c->v, "other-accounts",
                               "the read of line %llu shows %zu accounts, not the %zu of line %llu",
                               line(r->call), r->accounts_count, c->first_count,
                               line(c->reads[0]->call));
}

static int check_read(struct check *c, const struct bns_bank_op *r, int64_t total, bool *seen)
{
    int64_t sum = 0;
    int rv = check_accounts(c, r, seen);

    for (size_t i = 0; i < r->accounts_count && rv == BNS_OK; i++) {
        sum += r->accounts[i].balance;
        if (r->accounts[i].balance >= 0 || c->cfg->negative_ok)
            continue;
        bns_verdict_op(c->v, r->call);
        rv = bns_verdict_anomaly(c->v, "negative-balance",
                                 "the read of line %llu shows account %s at %lld", line(r->call),
                                 bns_check_name(c->cfg, r->accounts[i].id).s,
                                 (long long)r->accounts[i].balance);
    }
    if (rv != BNS_OK || sum == total)
        return rv;
    bns_verdict_op(c->v, r->call);
    return bns_verdict_anomaly(c->v, "wrong-total",
                               "the balances in the read of line %llu add up to %lld, not to %lld",
                               line(r->call), (long long)sum, (long long)total);
}

static int check_reads(struct check *c)
{
    bool *seen = bns_check_array(c->cfg->alloc, c->first_count, sizeof *seen);
    int64_t total = c->cfg->total_known ? c->cfg->total : 0;
    int rv = seen == NULL ? BNS_E_NOMEM : BNS_OK;

    for (size_t i = 0; i < c->first_count && !c->cfg->total_known; i++)
        total += c->first[i].balance;
    for (size_t i = 0; i < c->reads_count && rv == BNS_OK; i++)
        rv = check_read(c, c->reads[i], total, seen);
    bns_free(c->cfg->alloc, seen);
    return rv;
}

/* ---- reads beside each other ----------------------------------------------------------------- */

static int by_rev(const void *a, const void *b)
{
    const struct bns_bank_op *x = *(const struct bns_bank_op *const *)a;
    const struct bns_bank_op *y = *(const struct bns_bank_op *const *)b;

    if (x->rev != y->rev)
        return x->rev < y->rev ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static bool same_state(const struct bns_bank_op *a, const struct bns_bank_op *b)
{
    for (size_t i = 0; i < a->accounts_count; i++) {
        size_t j = 0;
        while (j < b->accounts_count && b->accounts[j].id != a->accounts[i].id)
            j++;
        if (j == b->accounts_count || a->accounts[i].balance != b->accounts[j].balance)
            return false;
    }
    return true;
}

static int check_revisions(struct check *c)
{
    const struct bns_bank_op **s = bns_check_array(c->cfg->alloc, c->reads_count, sizeof *s);
    const struct bns_bank_op *ended = NULL; /* first to end among those with larger revisions */
    int rv = s == NULL ? BNS_E_NOMEM : BNS_OK;
    size_t n = 0;

    for (size_t i = 0; i < c->reads_count && rv == BNS_OK; i++) {
        if (c->reads[i]->rev != 0)
            s[n++] = c->reads[i];
    }
    if (rv == BNS_OK)
        qsort(s, n, sizeof s[0], by_rev);
    for (size_t i = n; i-- > 0 && rv == BNS_OK;) {
        const struct bns_bank_op *next = i + 1 < n ? s[i + 1] : NULL;
        if (next != NULL && next->rev == s[i]->rev && !same_state(s[i], next)) {
            bns_verdict_op(c->v, s[i]->call);
            bns_verdict_op(c->v, next->call);
            rv = bns_verdict_anomaly(c->v, "two-states",
                                     "the reads of lines %llu and %llu show revision %llu, and "
                                     "different balances",
                                     line(s[i]->call), line(next->call),
                                     (unsigned long long)s[i]->rev);
        } else if (ended != NULL && ended->rev > s[i]->rev && ended->ret < s[i]->call) {
            bns_verdict_op(c->v, ended->call);
            bns_verdict_op(c->v, s[i]->call);
            rv = bns_verdict_anomaly(c->v, "revision-went-back",
                                     "the read of line %llu shows revision %llu; that of line "
                                     "%llu began later and shows revision %llu",
                                     line(ended->call), (unsigned long long)ended->rev,
                                     line(s[i]->call), (unsigned long long)s[i]->rev);
        }
        if (ended == NULL || s[i]->ret < ended->ret)
            ended = s[i];
    }
    bns_free(c->cfg->alloc, s);
    return rv;
}

/* ---- reads against transfers ----------------------------------------------------------------- */

static void book(const struct check *c, struct sums *s, const struct bns_bank_op *op)
{
    const struct bns_bank_account *from = account(c, op->from);
    const struct bns_bank_account *to = account(c, op->to);

    if (op->from == op->to)
        return;
    if (from != NULL)
        s[from - c->first].loss -= op->amount;
    if (to != NULL)
        s[to - c->first].gain += op->amount;
}

static int judge(struct check *c, const struct bns_bank_op *r, const struct sums *sure)
{
    for (size_t i = 0; i < r->accounts_count; i++) {
        const struct bns_bank_account *a = account(c, r->accounts[i].id);
        size_t n = (size_t)(a - c->first);
        int64_t lo = a->balance + sure[n].gain + c->began[n].loss;
        int64_t hi = a->balance + sure[n].loss + c->began[n].gain;

        if (r->accounts[i].balance >= lo && r->accounts[i].balance <= hi)
            continue;
        bns_verdict_op(c->v, c->reads[0]->call);
        bns_verdict_op(c->v, r->call);
        return bns_verdict_anomaly(
            c->v, "impossible-balance",
            "the read of line %llu shows account %s at %lld; from the read of line %llu and the "
            "transfers since, it must lie between %lld and %lld",
            line(r->call), bns_check_name(c->cfg, a->id).s, (long long)r->accounts[i].balance,
            line(c->reads[0]->call), (long long)lo, (long long)hi);
    }
    return BNS_OK;
}

struct moment {
    uint64_t at;
    size_t op;
    bool is_ret;
};

static int by_at(const void *a, const void *b)
{
    const struct moment *x = a;
    const struct moment *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

static int step_read(struct check *c, const struct moment *m)
{
    const struct bns_bank_op *op = &c->ops[m->op];
    size_t bytes = c->first_count * sizeof(struct sums);
    int rv;

    if (op->call <= c->reads[0]->ret)
        return BNS_OK; /* it may have seen less than the first one */
    if (m->is_ret) {
        rv = judge(c, op, c->at_call[m->op]);
        bns_free(c->cfg->alloc, c->at_call[m->op]);
        c->at_call[m->op] = NULL;
        return rv;
    }
    c->at_call[m->op] = bns_check_array(c->cfg->alloc, c->first_count, sizeof(struct sums));
    if (c->at_call[m->op] == NULL)
        return BNS_E_NOMEM;
    memcpy(c->at_call[m->op], c->sure, bytes);
    return BNS_OK;
}

static int step(struct check *c, const struct moment *m)
{
    const struct bns_bank_op *op = &c->ops[m->op];
    const struct bns_bank_op *first = c->reads[0];

    if (!op->transfer)
        return step_read(c, m);
    if (op->end == BNS_CHECK_OK && op->ret < first->call)
        return BNS_OK; /* the first read has it */
    if (!m->is_ret)
        book(c, c->began, op);
    else if (op->call > first->ret)
        book(c, c->sure, op);
    return BNS_OK;
}

static int sweep(struct check *c)
{
    const struct bns_alloc *a = c->cfg->alloc;
    struct moment *m = bns_check_array(a, 2 * c->count, sizeof *m);
    size_t n = 0;
    int rv = BNS_E_NOMEM;

    c->began = bns_check_array(a, c->first_count, sizeof *c->began);
    c->sure = bns_check_array(a, c->first_count, sizeof *c->sure);
    c->at_call = bns_check_array(a, c->count, sizeof *c->at_call);
    if (m == NULL || c->began == NULL || c->sure == NULL || c->at_call == NULL)
        goto out;
    for (size_t i = 0; i < c->count; i++) {
        const struct bns_bank_op *op = &c->ops[i];
        if (op->end == BNS_CHECK_FAILED || (!op->transfer && op->end != BNS_CHECK_OK))
            continue;
        m[n++] = (struct moment){op->call, i, false};
        if (op->end == BNS_CHECK_OK)
            m[n++] = (struct moment){op->ret, i, true};
    }
    qsort(m, n, sizeof m[0], by_at);
    rv = BNS_OK;
    for (size_t i = 0; i < n && rv == BNS_OK; i++)
        rv = step(c, &m[i]);
out:
    for (size_t i = 0; i < c->count && c->at_call != NULL; i++)
        bns_free(a, c->at_call[i]);
    bns_free(a, c->at_call);
    bns_free(a, c->began);
    bns_free(a, c->sure);
    bns_free(a, m);
    return rv;
}

int bns_check_bank(const struct bns_check_cfg *cfg, const struct bns_bank_op *ops, size_t count,
                   struct bns_verdict *v)
{
    struct check c = {.cfg = cfg, .ops = ops, .count = count, .v = v};
    int rv;

    bns_verdict_clear(v);
    v->checked = count;
    if (count > BNS_BANK_OPS_MAX)
        return BNS_E_TOOBIG;
    c.reads = bns_check_array(cfg->alloc, count, sizeof *c.reads);
    rv = c.reads == NULL ? BNS_E_NOMEM : validate(&c);
    if (rv == BNS_OK && c.reads_count > 0) {
        rv = take_first(&c);
        if (rv == BNS_OK)
            rv = check_reads(&c);
        if (rv == BNS_OK && !cfg->no_realtime)
            rv = check_revisions(&c);
        if (rv == BNS_OK && !cfg->no_realtime)
            rv = sweep(&c);
    }
    bns_free(cfg->alloc, c.reads);
    bns_free(cfg->alloc, c.first);
    return rv;
}
