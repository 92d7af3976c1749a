/* check_register.c - histories of registers into the search for a linear order.
 *
 * Keys whose answers all tell the revision where they stand are decided by it (lin_revision.c). For
 * the others there is a search.
 *
 * Operations whose outcome nobody knows make that search long: each may have happened at any later
 * time, or never. Two things shorten it, and neither changes the verdict:
 *
 *   - a write whose value nobody else writes, and which some read shows, did happen, before that
 *     read returned: it is as good as answered just before
 *   - of the others it is first assumed that they never happened, which is one of the things they
 *     may do: if the rest is linearizable, so is the whole. Only if not, they are put back, the
 *     deletes first
 *
 * Positions are multiplied by SPREAD, so that there is room for the ends that are put in.
 */
#include <stdlib.h>

#include "sim/check_read.h"

#define VISITED_MAX (20u * 1000 * 1000)
#define VISITED_FIRST (2u * 1000 * 1000) /* with some operations left out */
#define SPREAD 1024u

struct sight {       /* of one value */
    uint32_t writes; /* operations that write it */
    size_t op;       /* the last of them */
    uint64_t before; /* return of the first read that shows it; 0: none */
    uint64_t rev;    /* that it told; 0: none */
};

struct part {
    const struct bns_check_cfg *cfg;
    struct bns_lin_op *ops;
    size_t count;
    const struct bns_lin_model *model;
};

static bool writes(const struct bns_lin_op *op)
{
    return op->f == BNS_LIN_PUT || op->f == BNS_LIN_CAS;
}

static int by_ret(const void *a, const void *b)
{
    const struct bns_lin_op *x = a;
    const struct bns_lin_op *y = b;

    if (x->ret != y->ret)
        return x->ret < y->ret ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

static void note_sights(const struct part *p, struct sight *sights)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct bns_lin_op *op = &p->ops[i];
        struct sight *s = &sights[op->value];

        if (writes(op)) {
            s->writes++;
            s->op = i;
        } else if (op->f == BNS_LIN_GET && op->value != BNS_LIN_NIL && s->before == 0) {
            s->before = op->ret; /* they come in the order of their returns */
            s->rev = op->rev;
        }
    }
}

/* Ends the open writes that somebody saw. */
static int settle(struct part *p)
{
    const struct bns_alloc *a = p->cfg->alloc;
    struct sight *sights;
    uint32_t *used; /* ends put in before each position */
    uint64_t top = 0, end = 0;

    for (size_t i = 0; i < p->count; i++) {
        const struct bns_lin_op *op = &p->ops[i];
        top = op->value > top ? op->value : top;
        end = op->ret != BNS_LIN_OPEN && op->ret > end ? op->ret : end;
    }
    sights = bns_check_array(a, (size_t)top + 1, sizeof *sights);
    used = bns_check_array(a, (size_t)end + 1, sizeof *used);
    if (sights == NULL || used == NULL) {
        bns_free(a, sights);
        bns_free(a, used);
        return BNS_E_NOMEM;
    }
    qsort(p->ops, p->count, sizeof p->ops[0], by_ret);
    note_sights(p, sights);
    for (size_t i = 0; i < p->count; i++) {
        struct bns_lin_op *op = &p->ops[i];
        const struct sight *s = &sights[op->value];
        bool seen = op->ret == BNS_LIN_OPEN && writes(op) && s->writes == 1 && s->before != 0;

        if (op->ret != BNS_LIN_OPEN)
            op->ret *= SPREAD;
        op->call *= SPREAD;
        if (!seen || s->before * SPREAD <= op->call + SPREAD)
            continue; /* unseen; or seen before it was asked, which the search will find */
        if (used[s->before] == SPREAD - 1)
            continue;
        op->ret = s->before * SPREAD - ++used[s->before];
        op->rev = s->rev;
        op->failed = false;
    }
    bns_free(a, sights);
    bns_free(a, used);
    return BNS_OK;
}

/* Moves the open operations (but deletes, with keep_deletes) behind the others; how many others. */
static size_t without_open(struct part *p, bool keep_deletes)
{
    size_t n = 0;

    for (size_t i = 0; i < p->count; i++) {
        struct bns_lin_op op = p->ops[i];

        if (op.ret == BNS_LIN_OPEN && (writes(&op) || !keep_deletes))
            continue;
        p->ops[i] = p->ops[n];
        p->ops[n++] = op;
    }
    return n;
}

static int search(struct part *p, struct bns_lin_result *res)
{
    size_t n = without_open(p, false);
    int rv;

    if (n == p->count)
        return bns_lin_check(p->cfg->alloc, p->model, p->ops, n, VISITED_MAX, res);
    rv = bns_lin_check(p->cfg->alloc, p->model, p->ops, n, VISITED_FIRST, res);
    if (rv == BNS_E_CONFLICT || rv == BNS_E_TOOBIG) {
        n = without_open(p, true);
        rv = bns_lin_check(p->cfg->alloc, p->model, p->ops, n, VISITED_FIRST, res);
    }
    if (rv == BNS_E_CONFLICT || rv == BNS_E_TOOBIG)
        rv = bns_lin_check(p->cfg->alloc, p->model, p->ops, p->count, VISITED_MAX, res);
    return rv;
}

/* By revisions alone; p->count is then how many operations are left. */
static int decide(struct check_reader *r, struct part *p)
{
    struct bns_lin_result res = {0};
    size_t left = p->count;
    int rv;

    if (p->model != &bns_lin_kv)
        return BNS_OK;
    rv = bns_lin_by_revision(r->cfg.alloc, p->ops, p->count, NULL, &left, &res);
    if (rv == BNS_OK)
        p->count = left;
    if (rv != BNS_E_CONFLICT)
        return rv;
    bns_verdict_op(r->v, p->ops[res.op].call); /* without facts it is always an operation */
    return bns_verdict_anomaly(r->v, "not-linearizable", "line %llu, at revision %llu: %s",
                               (unsigned long long)p->ops[res.op].call + 1,
                               (unsigned long long)res.rev, res.why);
}

/* Revisions, where they are told, are part of what must fit: those of each key, then of the whole
 * store. */
static int check(struct check_reader *r, struct part *p)
{
    struct bns_lin_result res = {0};
    int rv = bns_lin_revisions(r->cfg.alloc, p->ops, p->count, &res);

    if (rv == BNS_E_CONFLICT) {
        bns_verdict_op(r->v, p->ops[res.op].call);
        return bns_verdict_anomaly(r->v, "revision-order",
                                   "the revision of line %llu does not follow real time, or two "
                                   "changes have it",
                                   (unsigned long long)p->ops[res.op].call + 1);
    }
    if (rv == BNS_OK)
        rv = decide(r, p);
    if (rv == BNS_OK)
        rv = settle(p);
    if (rv != BNS_OK)
        return rv;
    rv = search(p, &res);
    if (rv != BNS_E_CONFLICT)
        return rv;
    bns_verdict_op(r->v, p->ops[res.op].call / SPREAD);
    return bns_verdict_anomaly(r->v, "not-linearizable",
                               "the operation of line %llu fits nowhere behind %zu operations of "
                               "its key",
                               (unsigned long long)(p->ops[res.op].call / SPREAD) + 1, res.prefix);
}

int check_read_register(struct check_reader *r)
{
    struct part p = {.cfg = &r->cfg, .model = &bns_lin_register};
    struct bns_err err = {0};
    int rv = bns_history_ops(r->h, &p.ops, &p.count, &err);

    if (rv != BNS_OK) {
        bns_verdict_say(r->v, "%s", err.text);
        return rv;
    }
    r->v->checked = p.count;
    for (size_t i = 0; i < p.count; i++) {
        if (p.ops[i].by_rev || p.ops[i].rev != 0)
            p.model = &bns_lin_kv;
    }
    rv = check(r, &p);
    bns_free(bns_history_alloc(r->h), p.ops);
    return rv;
}
