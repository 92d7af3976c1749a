/* check_append.c - list-append: the order of versions, and what is wrong with single reads.
 *
 *   1 every append becomes an element, sorted by key and value, so that a read's element names its
 *     writer
 *   2 the longest read of a key is its version order; all other reads must be prefixes of it, so
 *     only the longest is looked at element by element (and a read that is no prefix, to say why)
 *   3 what the order means for single transactions: intermediate and lost appends
 *   4 dependencies and their cycles: check_append_cycle.c
 *
 * Invariants: lists and elems are sorted; order holds each element at most once.
 */
#include <stdlib.h>

#include "sim/check_append_int.h"

static int by_key_value(const void *a, const void *b)
{
    const struct append_elem *x = a;
    const struct append_elem *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static int list_by_key(const void *a, const void *b)
{
    const struct append_list *x = a;
    const struct append_list *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

struct append_elem *append_elem_of(const struct append_check *c, uint64_t key, uint64_t value)
{
    struct append_elem e = {.key = key, .value = value};
    return bsearch(&e, c->elems, c->elems_count, sizeof e, by_key_value);
}

struct append_list *append_list_of(const struct append_check *c, uint64_t key)
{
    struct append_list l = {.key = key};
    return bsearch(&l, c->lists, c->lists_count, sizeof l, list_by_key);
}

static unsigned long long line(const struct append_check *c, uint32_t txn)
{
    return (unsigned long long)c->txns[txn].call + 1;
}

static struct bns_check_name name(const struct append_check *c, uint64_t id)
{
    return bns_check_name(c->cfg, id);
}

/* ---- 1 elements ------------------------------------------------------------------------------ */

static int collect(struct append_check *c)
{
    size_t n = 0;

    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        if (txn->ops_count > BNS_APPEND_OPS_MAX)
            return BNS_E_TOOBIG;
        if (txn->end == BNS_CHECK_OK && txn->ret <= txn->call)
            return bns_verdict_senseless(c->v, "line %llu ended before it began", line(c, t));
        for (size_t i = 0; i < txn->ops_count; i++)
            n += txn->ops[i].append;
    }
    if (n > UINT32_MAX / 2)
        return BNS_E_TOOBIG;
    c->elems = bns_check_array(c->cfg->alloc, n, sizeof *c->elems);
    c->lists = bns_check_array(c->cfg->alloc, n, sizeof *c->lists);
    if (c->elems == NULL || c->lists == NULL)
        return BNS_E_NOMEM;
    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        for (uint32_t i = 0; i < txn->ops_count; i++) {
            const struct bns_append_op *op = &txn->ops[i];
            if (op->append)
                c->elems[c->elems_count++] =
                    (struct append_elem){.key = op->key, .value = op->value, .txn = t, .op = i};
        }
    }
    qsort(c->elems, c->elems_count, sizeof c->elems[0], by_key_value);
    return BNS_OK;
}

static int group(struct append_check *c)
{
    for (size_t i = 0; i < c->elems_count; i++) {
        const struct append_elem *e = &c->elems[i];
        if (i > 0 && by_key_value(e, e - 1) == 0)
            return bns_verdict_senseless(c->v, "lines %llu and %llu append %s to %s: twice",
                                         line(c, e[-1].txn), line(c, e->txn), name(c, e->value).s,
                                         name(c, e->key).s);
        if (i == 0 || e->key != e[-1].key)
            c->lists[c->lists_count++] = (struct append_list){.key = e->key, .elems_first = i};
        c->lists[c->lists_count - 1].elems_count++;
    }
    return BNS_OK;
}

/* ---- inside one transaction ------------------------------------------------------------------ */

size_t append_read_foreign(const struct bns_append_txn *t, uint32_t op)
{
    size_t own = 0;

    for (uint32_t i = 0; i < op; i++)
        own += t->ops[i].append && t->ops[i].key == t->ops[op].key;
    return t->ops[op].list_count - own;
}

/* Walks back from read `op`: own appends, last first, must be the end of the list, and an earlier
 * read must be all that stands before them. */
static bool is_internally_right(const struct bns_append_txn *t, uint32_t op)
{
    const struct bns_append_op *read = &t->ops[op];
    size_t left = read->list_count;

    for (uint32_t i = op; i-- > 0;) {
        const struct bns_append_op *o = &t->ops[i];
        if (o->key != read->key)
            continue;
        if (!o->append)
            return left == o->list_count &&
                   (left == 0 || memcmp(read->list, o->list, left * sizeof o->list[0]) == 0);
        if (left == 0 || read->list[left - 1] != o->value)
            return false;
        left--;
    }
    return true;
}

static int check_internal(struct append_check *c)
{
    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        for (uint32_t i = 0; i < txn->ops_count && txn->end == BNS_CHECK_OK; i++) {
            if (txn->ops[i].append || is_internally_right(txn, i))
                continue;
            bns_verdict_op(c->v, txn->call);
            return bns_verdict_anomaly(
                c->v, "internal",
                "the transaction of line %llu read %s (its operation %u) and did not see there "
                "what it had read and appended itself before",
                line(c, t), name(c, txn->ops[i].key).s, i + 1);
        }
    }
    return BNS_OK;
}

/* ---- 2 the order of versions ----------------------------------------------------------------- */

/* Is every element of a read one that may be there, and there once? */
static int check_elements(struct append_check *c, uint32_t txn, const struct bns_append_op *read)
{
    c->reads_seen++;
    for (size_t i = 0; i < read->list_count; i++) {
        struct append_elem *e = append_elem_of(c, read->key, read->list[i]);

        bns_verdict_op(c->v, c->txns[txn].call);
        if (e == NULL)
            return bns_verdict_anomaly(c->v, "phantom",
                                       "the transaction of line %llu read %s in %s, which nobody "
                                       "appended there",
                                       line(c, txn), name(c, read->list[i]).s,
                                       name(c, read->key).s);
        bns_verdict_op(c->v, c->txns[e->txn].call);
        if (e->mark == c->reads_seen)
            return bns_verdict_anomaly(c->v, "duplicate-elements",
                                       "the transaction of line %llu read %s twice in %s; line "
                                       "%llu appended it once",
                                       line(c, txn), name(c, e->value).s, name(c, e->key).s,
                                       line(c, e->txn));
        if (c->txns[e->txn].end == BNS_CHECK_FAILED)
            return bns_verdict_anomaly(c->v, "G1a",
                                       "the transaction of line %llu read %s in %s, which line "
                                       "%llu appended and which failed",
                                       line(c, txn), name(c, e->value).s, name(c, e->key).s,
                                       line(c, e->txn));
        e->mark = c->reads_seen;
        c->v->ops_count = 0;
    }
    c->v->ops_count = 0;
    return BNS_OK;
}

static int find_longest(struct append_check *c)
{
    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        for (size_t i = 0; i < txn->ops_count && txn->end == BNS_CHECK_OK; i++) {
            const struct bns_append_op *op = &txn->ops[i];
            struct append_list *l = op->append ? NULL : append_list_of(c, op->key);
            int rv = BNS_OK;

            if (!op->append && l == NULL)
                rv = check_elements(c, t, op); /* any element there is a phantom */
            if (rv != BNS_OK)
                return rv;
            if (l == NULL)
                continue;
            if (l->longest == NULL || op->list_count > l->longest->list_count) {
                l->longest = op;
                l->longest_txn = t;
            }
            if (txn->call >= l->last_call) {
                l->last_call = txn->call;
                l->last_txn = t;
            }
        }
    }
    return BNS_OK;
}

/* The longest reads become the version orders. */
static int make_orders(struct append_check *c)
{
    size_t n = 0;

    c->order = bns_check_array(c->cfg->alloc, c->elems_count, sizeof *c->order);
    if (c->order == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < c->lists_count; i++) {
        struct append_list *l = &c->lists[i];
        int rv = l->longest == NULL ? BNS_OK : check_elements(c, l->longest_txn, l->longest);

        if (rv != BNS_OK)
            return rv;
        l->order_first = n;
        l->order_count = l->longest == NULL ? 0 : l->longest->list_count;
        for (size_t j = 0; j < l->order_count; j++) {
            struct append_elem *e = append_elem_of(c, l->key, l->longest->list[j]);
            e->pos = (uint32_t)j + 1;
            c->order[n++] = (uint32_t)(e - c->elems);
        }
    }
    return BNS_OK;
}

static int check_prefix(struct append_check *c, uint32_t txn, const struct bns_append_op *read)
{
    const struct append_list *l = append_list_of(c, read->key);
    size_t i = 0;
    int rv;

    if (read->list_count == 0 || read == l->longest)
        return BNS_OK;
    if (memcmp(read->list, l->longest->list, read->list_count * sizeof read->list[0]) == 0)
        return BNS_OK;
    rv = check_elements(c, txn, read);
    if (rv != BNS_OK)
        return rv;
    while (read->list[i] == l->longest->list[i])
        i++;
    bns_verdict_op(c->v, c->txns[txn].call);
    bns_verdict_op(c->v, c->txns[l->longest_txn].call);
    return bns_verdict_anomaly(c->v, "incompatible-order",
                               "two reads of %s cannot both be right: its element %zu is %s in the "
                               "transaction of line %llu and %s in that of line %llu",
                               name(c, read->key).s, i + 1, name(c, read->list[i]).s, line(c, txn),
                               name(c, l->longest->list[i]).s, line(c, l->longest_txn));
}

/* The appends of one transaction keep their order. */
static int check_own_order(struct append_check *c, const struct append_list *l)
{
    for (size_t j = 1; j < l->order_count; j++) {
        const struct append_elem *a = &c->elems[c->order[l->order_first + j - 1]];
        const struct append_elem *b = &c->elems[c->order[l->order_first + j]];
        if (a->txn != b->txn || a->op < b->op)
            continue;
        bns_verdict_op(c->v, c->txns[a->txn].call);
        bns_verdict_op(c->v, c->txns[l->longest_txn].call);
        return bns_verdict_anomaly(
            c->v, "incompatible-order",
            "the transaction of line %llu appended %s and then %s to %s; line %llu read them in "
            "the other order",
            line(c, a->txn), name(c, b->value).s, name(c, a->value).s, name(c, a->key).s,
            line(c, l->longest_txn));
    }
    return BNS_OK;
}

static int check_orders(struct append_check *c)
{
    int rv = BNS_OK;

    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        for (size_t i = 0; i < txn->ops_count && txn->end == BNS_CHECK_OK && rv == BNS_OK; i++) {
            if (!txn->ops[i].append)
                rv = check_prefix(c, t, &txn->ops[i]);
        }
    }
    for (size_t i = 0; i < c->lists_count && rv == BNS_OK; i++)
        rv = check_own_order(c, &c->lists[i]);
    return rv;
}

/* ---- 3 intermediate reads, lost appends ------------------------------------------------------ */

/* The transaction that appended e appended to that list again. */
static bool is_intermediate(const struct append_check *c, const struct append_elem *e)
{
    const struct bns_append_txn *t = &c->txns[e->txn];

    for (size_t i = e->op + 1; i < t->ops_count; i++) {
        if (t->ops[i].append && t->ops[i].key == e->key)
            return true;
    }
    return false;
}

static int check_intermediate(struct append_check *c)
{
    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        for (uint32_t i = 0; i < txn->ops_count && txn->end == BNS_CHECK_OK; i++) {
            const struct bns_append_op *op = &txn->ops[i];
            size_t seen = op->append ? 0 : append_read_foreign(txn, i);
            const struct append_elem *e =
                seen == 0 ? NULL : append_elem_of(c, op->key, op->list[seen - 1]);

            if (e != NULL && e->txn == t) {
                bns_verdict_op(c->v, txn->call);
                return bns_verdict_anomaly(
                    c->v, "internal",
                    "the transaction of line %llu read %s in %s before it appended it", line(c, t),
                    name(c, e->value).s, name(c, e->key).s);
            }
            if (e == NULL || !is_intermediate(c, e))
                continue;
            bns_verdict_op(c->v, txn->call);
            bns_verdict_op(c->v, c->txns[e->txn].call);
            return bns_verdict_anomaly(c->v, "G1b",
                                       "the transaction of line %llu read %s up to %s, in the "
                                       "middle of the appends of line %llu",
                                       line(c, t), name(c, e->key).s, name(c, e->value).s,
                                       line(c, e->txn));
        }
    }
    return BNS_OK;
}

static int check_lost(struct append_check *c)
{
    for (size_t i = 0; i < c->elems_count && !c->cfg->no_realtime; i++) {
        const struct append_elem *e = &c->elems[i];
        const struct append_list *l = append_list_of(c, e->key);
        const struct bns_append_txn *t = &c->txns[e->txn];

        if (e->pos != 0 || t->end != BNS_CHECK_OK || l->longest == NULL || l->last_call < t->ret)
            continue;
        bns_verdict_op(c->v, t->call);
        bns_verdict_op(c->v, c->txns[l->last_txn].call);
        return bns_verdict_anomaly(c->v, "lost-append",
                                   "line %llu appended %s to %s and was told so; line %llu began "
                                   "after that and did not read it, and nobody ever did",
                                   line(c, e->txn), name(c, e->value).s, name(c, e->key).s,
                                   line(c, l->last_txn));
    }
    return BNS_OK;
}

bool append_committed(const struct append_check *c, uint32_t txn)
{
    const struct bns_append_txn *t = &c->txns[txn];

    for (size_t i = 0; i < t->ops_count && t->end == BNS_CHECK_INFO; i++) {
        const struct append_elem *e = NULL;
        if (t->ops[i].append)
            e = append_elem_of(c, t->ops[i].key, t->ops[i].value);
        if (e != NULL && e->pos != 0)
            return true;
    }
    return t->end == BNS_CHECK_OK;
}

int bns_check_append(const struct bns_check_cfg *cfg, const struct bns_append_txn *txns,
                     size_t count, struct bns_verdict *v)
{
    struct append_check c = {.cfg = cfg, .txns = txns, .txns_count = (uint32_t)count, .v = v};
    int rv;

    bns_verdict_clear(v);
    if (count > BNS_APPEND_TXNS_MAX)
        return BNS_E_TOOBIG;
    rv = collect(&c);
    if (rv == BNS_OK)
        rv = group(&c);
    if (rv == BNS_OK)
        rv = check_internal(&c);
    if (rv == BNS_OK)
        rv = find_longest(&c);
    if (rv == BNS_OK)
        rv = make_orders(&c);
    if (rv == BNS_OK)
        rv = check_orders(&c);
    if (rv == BNS_OK)
        rv = check_intermediate(&c);
    if (rv == BNS_OK)
        rv = check_lost(&c);
    if (rv == BNS_OK)
        rv = append_check_cycles(&c);
    v->checked = count;
    bns_free(cfg->alloc, c.elems);
    bns_free(cfg->alloc, c.lists);
    bns_free(cfg->alloc, c.order);
    return rv;
}
