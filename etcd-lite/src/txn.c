/* txn.c - what decides a transaction: compares, and whether every operation would work.
 *
 * As etcd: all compares, those of nested transactions on the chosen path too, look at the state
 * before the transaction. Compares of version, create and mod revision need the index only; VALUE
 * and LEASE need rows, and so do ignore_value and ignore_lease. Rows that are not in memory are
 * noted as missing; the caller has them read and evaluates again from the start, which is allowed
 * because evaluation changes nothing.
 */
#include "kv_impl.h"

#include <stdio.h>
#include <stdlib.h>

#define RETRY_NS (20 * BNS_MS)

#define C_VERSION ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION
#define C_CREATE ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE
#define C_MOD ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD
#define C_VALUE ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE
#define C_LEASE ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE
#define OP_TXN ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN

void etcd_eval_init(struct etcd_eval *ev, struct etcd_kv *kv)
{
    *ev = (struct etcd_eval){.kv = kv};
    bns_buf_init(&ev->path, kv->alloc, SIZE_MAX);
}

void etcd_eval_reset(struct etcd_eval *ev)
{
    for (size_t i = 0; i < ev->count; i++)
        bns_rcbuf_put(ev->have[i].kv);
    ev->count = 0;
    ev->sorted = 0;
    ev->path_pos = 0;
    bns_buf_clear(&ev->path);
}

void etcd_eval_free(struct etcd_eval *ev)
{
    etcd_eval_reset(ev);
    bns_free(ev->kv->alloc, ev->have);
    ev->have = NULL;
    ev->cap = 0;
    bns_buf_free(&ev->path);
}

static int row_cmp(const void *a, const void *b)
{
    const struct etcd_row *x = a, *y = b;

    if (x->main != y->main)
        return x->main < y->main ? -1 : 1;
    return (x->sub > y->sub) - (x->sub < y->sub);
}

struct bns_rcbuf *etcd_eval_find(const struct etcd_eval *ev, const struct etcd_rev *r)
{
    struct etcd_row key = {r->main, r->sub, NULL};
    struct etcd_row *found = NULL;

    if (ev->sorted > 0)
        found = bsearch(&key, ev->have, ev->sorted, sizeof *ev->have, row_cmp);
    return found == NULL ? NULL : found->kv;
}

/* Takes over the reference. False: no memory. */
static bool note(struct etcd_eval *ev, const struct etcd_rev *r, struct bns_rcbuf *b)
{
    if (ev->count == ev->cap) {
        size_t cap = ev->cap == 0 ? 8 : ev->cap * 2;
        struct etcd_row *have = bns_resize(ev->kv->alloc, ev->have, cap * sizeof *have);
        if (have == NULL) {
            bns_rcbuf_put(b);
            return false;
        }
        ev->have = have;
        ev->cap = cap;
    }
    ev->have[ev->count++] = (struct etcd_row){r->main, r->sub, b};
    return true;
}

/* The row's bytes, borrowed for the moment. Not in memory: noted, *step = MISSING (or NOMEM),
 * NULL. */
static struct bns_rcbuf *row_of(struct etcd_eval *ev, const struct etcd_rev *r,
                                enum etcd_step *step)
{
    struct bns_rcbuf *b = etcd_eval_find(ev, r);

    if (b == NULL)
        b = etcd_cache_get(&ev->kv->cache, r->main, r->sub);
    if (b != NULL)
        return b;
    if (!note(ev, r, NULL))
        *step = ETCD_NOMEM;
    else if (*step == ETCD_GO)
        *step = ETCD_MISSING;
    return NULL;
}

/* Sorts what was read in; drops twins. */
static void settle(struct etcd_eval *ev)
{
    size_t n = 0;

    if (ev->count > 1)
        qsort(ev->have, ev->count, sizeof *ev->have, row_cmp);
    for (size_t i = 0; i < ev->count; i++) {
        if (ev->have[i].kv == NULL)
            continue;
        if (n > 0 && row_cmp(&ev->have[n - 1], &ev->have[i]) == 0)
            bns_rcbuf_put(ev->have[i].kv);
        else
            ev->have[n++] = ev->have[i];
    }
    ev->count = n;
    ev->sorted = n;
}

/* The worker had no memory: the rest is asked for again, not at once. Meanwhile it counts as a job,
 * so a drain waits for it. */
static void on_retry(void *arg)
{
    struct etcd_eval *ev = arg;

    if (ev->kv->dead)
        return;
    ev->kv->jobs--;
    etcd_kv_submit(ev->kv, &ev->job);
}

/* A row that the index names and the store does not have will not come by asking again: what this
 * member would answer or apply is no longer what the others do. */
static bool all_there(struct etcd_kv *kv, const struct etcd_store_job *j)
{
    for (size_t i = 0; i < j->rows_count; i++) {
        if (j->rows[i].kv != NULL)
            continue;
        (void)snprintf(kv->fatal_text, sizeof kv->fatal_text,
                       "row %lld/%u of the key index is not in the store", /* fits */
                       (long long)j->rows[i].main, j->rows[i].sub);
        etcd_kv_fatal(kv, BNS_E_CORRUPT, kv->fatal_text);
        return false;
    }
    return true;
}

static void fetched(struct etcd_store_job *j)
{
    struct etcd_eval *ev = BNS_CONTAINER(j, struct etcd_eval, job);
    struct etcd_kv *kv = ev->kv;

    if (!etcd_kv_job_over(kv, j))
        return;
    if (j->code == BNS_E_NOMEM) {
        kv->jobs++;
        bns_timer_init(&ev->retry, on_retry, ev);
        bns_timer_start(kv->env, &ev->retry, bns_now_ns(kv->env) + RETRY_NS);
    } else if (j->pos < j->rows_count) {
        etcd_kv_submit(kv, j);
    } else if (all_there(kv, j)) {
        settle(ev);
        ev->resume(ev);
    }
}

void etcd_eval_fetch(struct etcd_eval *ev)
{
    BNS_ASSERT(ev->count > ev->sorted);
    etcd_kv_flush(ev->kv); /* rows that are looked for go first */
    ev->job = (struct etcd_store_job){
        .kind = ETCD_STORE_READ, .done = fetched, .rows = ev->have, .rows_count = ev->count};
    etcd_kv_submit(ev->kv, &ev->job);
}

/* ---- compares ------------------------------------------------------------------------------- */

static bool result_holds(const Etcdserverpb__Compare *c, int order)
{
    switch ((int)c->result) {
    case ETCDSERVERPB__COMPARE__COMPARE_RESULT__EQUAL:
        return order == 0;
    case ETCDSERVERPB__COMPARE__COMPARE_RESULT__NOT_EQUAL:
        return order != 0;
    case ETCDSERVERPB__COMPARE__COMPARE_RESULT__GREATER:
        return order > 0;
    case ETCDSERVERPB__COMPARE__COMPARE_RESULT__LESS:
        return order < 0;
    default:
        return true;
    }
}

static int int_order(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* A target without the operand of its kind compares with zero, as in etcd. */
static int64_t operand(const Etcdserverpb__Compare *c)
{
    switch ((int)c->target) {
    case C_VERSION:
        return c->target_union_case == ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION ? c->version : 0;
    case C_CREATE:
        return c->target_union_case == ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION
                   ? c->create_revision
                   : 0;
    case C_MOD:
        return c->target_union_case == ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION
                   ? c->mod_revision
                   : 0;
    case C_LEASE:
        return c->target_union_case == ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE ? c->lease : 0;
    default:
        return 0;
    }
}

static struct bns_slice value_operand(const Etcdserverpb__Compare *c)
{
    if (c->target_union_case != ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE)
        return bns_slice(NULL, 0);
    return etcd_bytes(c->value);
}

/* One key. v NULL = no such key. */
static bool key_holds(struct etcd_eval *ev, const Etcdserverpb__Compare *c,
                      const struct etcd_rev *v, enum etcd_step *step)
{
    struct etcd_kvview view = {.key = {NULL, 0}};

    switch ((int)c->target) {
    case C_VERSION:
        return result_holds(c, int_order(v == NULL ? 0 : v->version, operand(c)));
    case C_CREATE:
        return result_holds(c, int_order(v == NULL ? 0 : v->create, operand(c)));
    case C_MOD:
        return result_holds(c, int_order(v == NULL ? 0 : v->main, operand(c)));
    case C_VALUE:
    case C_LEASE:
        if (v == NULL && (int)c->target == C_VALUE)
            return false; /* also NOT_EQUAL: there is no way to say "missing" */
        if (v != NULL && ((int)c->target == C_VALUE || (v->size & ETCD_REV_LEASE) != 0)) {
            struct bns_rcbuf *b = row_of(ev, v, step);
            if (b == NULL || etcd_kvbytes_parse(bns_rcbuf_slice(b), &view) != BNS_OK)
                return true; /* missing: decided in the next round */
        }
        if ((int)c->target == C_LEASE)
            return result_holds(c, int_order(view.lease, operand(c)));
        return result_holds(c, bns_slice_cmp(view.value, value_operand(c)));
    default:
        return result_holds(c, 0);
    }
}

static bool needs_rows(const Etcdserverpb__Compare *c)
{
    return (int)c->target == C_VALUE || (int)c->target == C_LEASE;
}

static bool compare_holds(struct etcd_eval *ev, const Etcdserverpb__Compare *c, int64_t rev,
                          enum etcd_step *step)
{
    struct bns_slice end = etcd_bytes(c->range_end);
    struct etcd_key *k = etcd_index_first(&ev->kv->index, etcd_bytes(c->key), end);
    bool any = false;

    for (; k != NULL; k = etcd_index_next(k, end)) {
        const struct etcd_rev *v = etcd_key_alive_at(k, rev);
        if (v == NULL)
            continue;
        any = true;
        if (!key_holds(ev, c, v, step))
            return false;
    }
    return any ? true : key_holds(ev, c, NULL, step);
}

/* Cheap compares first: when one fails no row has to be read. */
static bool all_hold(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t, int64_t rev,
                     enum etcd_step *step)
{
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < t->n_compare; i++) {
            if (i > 0 && BNS_MUTANT(ev->kv->env, ETCD_MUTANT_TXN_FIRST))
                break;
            if (needs_rows(t->compare[i]) == (pass == 1) &&
                !compare_holds(ev, t->compare[i], rev, step))
                return false;
        }
    }
    return true;
}

static enum etcd_step walk_path(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t,
                                int64_t rev)
{
    enum etcd_step step = ETCD_GO;
    bool yes = all_hold(ev, t, rev, &step);
    size_t n = yes ? t->n_success : t->n_failure;

    /* a compare that is known to fail decides, whatever is missing of the others */
    if (step == ETCD_NOMEM || (step == ETCD_MISSING && yes))
        return step;
    if (bns_buf_byte(&ev->path, yes) != BNS_OK)
        return ETCD_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const Etcdserverpb__RequestOp *op = yes ? t->success[i] : t->failure[i];
        if (op->request_case != OP_TXN)
            continue;
        step = walk_path(ev, op->request_txn, rev);
        if (step != ETCD_GO)
            return step;
    }
    return ETCD_GO;
}

/* Noted rows that turned out not to matter are forgotten. */
static void forget_missing(struct etcd_eval *ev)
{
    while (ev->count > ev->sorted)
        bns_rcbuf_put(ev->have[--ev->count].kv);
}

enum etcd_step etcd_txn_path(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t, int64_t rev)
{
    enum etcd_step step;

    bns_buf_clear(&ev->path);
    forget_missing(ev);
    if (BNS_MUTANT(ev->kv->env, ETCD_MUTANT_TXN_OLD))
        rev--;
    step = walk_path(ev, t, rev);
    if (step != ETCD_MISSING)
        forget_missing(ev);
    return step;
}

/* ---- would it work? ------------------------------------------------------------------------- */

/* Keeps a row at hand until the operation runs: the cache may have dropped it by then. */
static enum etcd_step pin(struct etcd_eval *ev, const struct etcd_rev *v)
{
    enum etcd_step step = ETCD_GO;
    struct bns_rcbuf *b = row_of(ev, v, &step);

    if (b == NULL || etcd_eval_find(ev, v) != NULL)
        return step;
    return note(ev, v, bns_rcbuf_get(b)) ? ETCD_GO : ETCD_NOMEM;
}

static enum etcd_step put_check(struct etcd_eval *ev, const Etcdserverpb__PutRequest *r,
                                int64_t rev, struct etcd_status *why)
{
    enum etcd_step step = ETCD_GO;

    if (r->ignore_value || r->ignore_lease) {
        struct etcd_key *k =
            etcd_index_first(&ev->kv->index, etcd_bytes(r->key), bns_slice(NULL, 0));
        const struct etcd_rev *v = k == NULL ? NULL : etcd_key_alive_at(k, rev);
        if (v == NULL) {
            *why = etcd_no_key;
            return ETCD_REFUSED;
        }
        step = pin(ev, v);
        if (step == ETCD_NOMEM)
            return step;
    }
    if (r->lease != 0 && !etcd_kv_lease_exists(ev->kv, r->lease)) {
        *why = etcd_no_lease;
        return ETCD_REFUSED;
    }
    return step;
}

enum etcd_step etcd_put_check(struct etcd_eval *ev, const Etcdserverpb__PutRequest *r, int64_t rev,
                              struct etcd_status *why)
{
    enum etcd_step step;

    forget_missing(ev);
    if (r->lease != 0 && !etcd_kv_lease_exists(ev->kv, r->lease)) {
        *why = etcd_no_lease; /* alone, etcd looks at the lease first; in a txn at the key */
        return ETCD_REFUSED;
    }
    step = put_check(ev, r, rev, why);
    if (step == ETCD_GO)
        settle(ev);
    return step;
}

static enum etcd_step range_check(const struct etcd_kv *kv, const Etcdserverpb__RangeRequest *r,
                                  int64_t rev, struct etcd_status *why)
{
    if (r->revision == 0)
        return ETCD_GO;
    if (r->revision > rev) {
        *why = etcd_future;
        return ETCD_REFUSED;
    }
    if (r->revision < kv->now.compact_scheduled) { /* a negative one too, as in etcd */
        *why = etcd_compacted;
        return ETCD_REFUSED;
    }
    return ETCD_GO;
}

/* All puts of the path, then all ranges of it, in order: as etcd does, so that the same error wins.
 * A refusal wins over a missing row. */
static enum etcd_step check_ops(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t, bool puts,
                                int64_t rev, struct etcd_status *why)
{
    bool yes = ev->path.ptr[ev->path_pos++] != 0;
    size_t n = yes ? t->n_success : t->n_failure;
    enum etcd_step worst = ETCD_GO;

    for (size_t i = 0; i < n; i++) {
        const Etcdserverpb__RequestOp *op = yes ? t->success[i] : t->failure[i];
        enum etcd_step step = ETCD_GO;
        if (puts && op->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT)
            step = put_check(ev, op->request_put, rev, why);
        else if (!puts && op->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE)
            step = range_check(ev->kv, op->request_range, rev, why);
        else if (op->request_case == OP_TXN)
            step = check_ops(ev, op->request_txn, puts, rev, why);
        if (step == ETCD_REFUSED || step == ETCD_NOMEM)
            return step;
        if (step == ETCD_MISSING)
            worst = step;
    }
    return worst;
}

enum etcd_step etcd_txn_check(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t, int64_t rev,
                              struct etcd_status *why)
{
    enum etcd_step puts, ranges;

    ev->path_pos = 0;
    puts = check_ops(ev, t, true, rev, why);
    if (puts == ETCD_REFUSED || puts == ETCD_NOMEM)
        return puts;
    ev->path_pos = 0;
    ranges = check_ops(ev, t, false, rev, why);
    if (ranges != ETCD_GO || puts != ETCD_GO)
        return ranges != ETCD_GO ? ranges : puts;
    ev->path_pos = 0;
    settle(ev);
    return ETCD_GO;
}
