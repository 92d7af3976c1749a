/* check_append_cycle.c - list-append: dependencies between transactions, and cycles of them.
 *
 * Edges between transactions that took effect (Adya 1999; Elle 2020):
 *     ww  a's element stands directly before b's; or a's is the last that was read and b's, which
 *         was acknowledged, was never read: it must come after
 *     wr  a's element is the last that b read
 *     rw  b's element is the first that a did not see
 *     rt  a ended before b began. Not all n^2 of them: only from the ends that no other end stands
 *         behind yet (the frontier), which is at most one a client
 * A cycle is named by what it needs: the kinds are tried from the gravest to the mildest, first
 * without real time. A G-single is one rw edge and a way back that has none.
 */
#include <stdlib.h>

#include "sim/check_append_int.h"
#include "sim/check_graph.h"

#define SHOWN_MAX 6       /* steps of a cycle that are told */
#define SINGLE_TRIES 4096 /* searches for a G-single; after that the cycle counts as G2 */

static uint32_t writer_at(const struct append_check *c, const struct append_list *l, size_t pos)
{
    return c->elems[c->order[l->order_first + pos]].txn;
}

static int add(struct bns_graph *g, uint32_t from, uint32_t to, uint32_t kind, size_t elem)
{
    return bns_graph_add(g, (struct bns_edge){from, to, kind, (uint32_t)elem});
}

/* Elements that were acknowledged and never read come after `from`'s state of the list. */
static int add_tail(const struct append_check *c, struct bns_graph *g, const struct append_list *l,
                    uint32_t from, uint32_t kind)
{
    int rv = BNS_OK;

    for (size_t i = l->elems_first; i < l->elems_first + l->elems_count && rv == BNS_OK; i++) {
        const struct append_elem *e = &c->elems[i];
        if (e->pos == 0 && c->txns[e->txn].end == BNS_CHECK_OK)
            rv = add(g, from, e->txn, kind, i);
    }
    return rv;
}

static int add_writes(const struct append_check *c, struct bns_graph *g)
{
    int rv = BNS_OK;

    for (size_t i = 0; i < c->lists_count; i++) {
        const struct append_list *l = &c->lists[i];
        for (size_t j = 1; j < l->order_count && rv == BNS_OK; j++)
            rv = add(g, writer_at(c, l, j - 1), writer_at(c, l, j), BNS_EDGE_WW,
                     c->order[l->order_first + j]);
        if (l->order_count > 0 && rv == BNS_OK)
            rv = add_tail(c, g, l, writer_at(c, l, l->order_count - 1), BNS_EDGE_WW);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

static int add_read(const struct append_check *c, struct bns_graph *g, uint32_t t, uint32_t op)
{
    const struct bns_append_txn *txn = &c->txns[t];
    const struct append_list *l = append_list_of(c, txn->ops[op].key);
    size_t seen = append_read_foreign(txn, op);
    int rv = BNS_OK;

    if (l == NULL)
        return BNS_OK;
    if (seen > 0)
        rv = add(g, writer_at(c, l, seen - 1), t, BNS_EDGE_WR, c->order[l->order_first + seen - 1]);
    if (rv != BNS_OK)
        return rv;
    if (seen < l->order_count)
        return add(g, t, writer_at(c, l, seen), BNS_EDGE_RW, c->order[l->order_first + seen]);
    return add_tail(c, g, l, t, BNS_EDGE_RW);
}

static int add_reads(const struct append_check *c, struct bns_graph *g)
{
    int rv = BNS_OK;

    for (uint32_t t = 0; t < c->txns_count; t++) {
        const struct bns_append_txn *txn = &c->txns[t];
        for (uint32_t i = 0; i < txn->ops_count && txn->end == BNS_CHECK_OK && rv == BNS_OK; i++) {
            if (!txn->ops[i].append)
                rv = add_read(c, g, t, i);
        }
    }
    return rv;
}

/* ---- real time ------------------------------------------------------------------------------- */

struct moment {
    uint64_t at;
    uint32_t txn;
    bool is_ret;
};

static int by_at(const void *a, const void *b)
{
    const struct moment *x = a;
    const struct moment *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* A transaction ended: the ends before its begin are behind it now. */
static uint32_t advance(const struct append_check *c, uint32_t *frontier, uint32_t count,
                        uint32_t txn)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (c->txns[frontier[i]].ret >= c->txns[txn].call)
            frontier[kept++] = frontier[i];
    }
    frontier[kept++] = txn;
    return kept;
}

static int add_realtime(const struct append_check *c, struct bns_graph *g)
{
    const struct bns_alloc *a = c->cfg->alloc;
    struct moment *m = bns_check_array(a, 2 * (size_t)c->txns_count, sizeof *m);
    uint32_t *frontier = bns_check_array(a, c->txns_count, sizeof *frontier);
    uint32_t front_count = 0;
    size_t n = 0;
    int rv = m == NULL || frontier == NULL ? BNS_E_NOMEM : BNS_OK;

    for (uint32_t t = 0; t < c->txns_count && rv == BNS_OK; t++) {
        if (!append_committed(c, t))
            continue;
        m[n++] = (struct moment){c->txns[t].call, t, false};
        if (c->txns[t].end == BNS_CHECK_OK)
            m[n++] = (struct moment){c->txns[t].ret, t, true};
    }
    if (rv == BNS_OK)
        qsort(m, n, sizeof m[0], by_at);
    for (size_t i = 0; i < n && rv == BNS_OK; i++) {
        if (m[i].is_ret)
            front_count = advance(c, frontier, front_count, m[i].txn);
        for (uint32_t j = 0; j < front_count && !m[i].is_ret && rv == BNS_OK; j++)
            rv = add(g, frontier[j], m[i].txn, BNS_EDGE_RT, 0);
    }
    bns_free(a, m);
    bns_free(a, frontier);
    return rv;
}

/* ---- cycles ---------------------------------------------------------------------------------- */

/* A cycle in the smallest component that has one. */
static void any_cycle(struct bns_graph *g, uint32_t mask, size_t *way, size_t *len)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t n = 0; n < g->nodes_count; n++) {
        uint32_t size = g->size[g->comp[n]];
        if (size > 1 && (best == UINT32_MAX || size < g->size[g->comp[best]]))
            best = n;
    }
    BNS_ASSERT(best != UINT32_MAX);
    if (!bns_graph_way(g, mask, best, best, way, len))
        BNS_ASSERT(false); /* a component of two nodes has a cycle through each */
}

/* One rw edge a -> b and a way back without. */
static bool single_cycle(struct bns_graph *g, uint32_t mask, size_t *way, size_t *len)
{
    uint32_t tries = 0;

    for (size_t i = 0; i < g->edges_count && tries < SINGLE_TRIES; i++) {
        const struct bns_edge *e = &g->edges[i];
        if (e->kind != BNS_EDGE_RW || g->comp[e->from] != g->comp[e->to])
            continue;
        tries++;
        if (!bns_graph_way(g, mask & ~(uint32_t)BNS_EDGE_RW, e->to, e->from, way, len))
            continue;
        way[(*len)++] = i;
        return true;
    }
    return false;
}

static const char *find_cycle(struct bns_graph *g, bool realtime, size_t *way, size_t *len)
{
    static const char *const names[2][4] = {
        {"G0", "G1c", "G-single", "G2"},
        {"G0-realtime", "G1c-realtime", "G-single-realtime", "G2-realtime"},
    };
    uint32_t mask = realtime ? BNS_EDGE_RT : 0;

    if (bns_graph_components(g, mask |= BNS_EDGE_WW)) {
        any_cycle(g, mask, way, len);
        return names[realtime][0];
    }
    if (bns_graph_components(g, mask |= BNS_EDGE_WR)) {
        any_cycle(g, mask, way, len);
        return names[realtime][1];
    }
    if (!bns_graph_components(g, mask |= BNS_EDGE_RW))
        return NULL;
    if (single_cycle(g, mask, way, len))
        return names[realtime][2];
    any_cycle(g, mask, way, len);
    return names[realtime][3];
}

static void tell_edge(const struct append_check *c, const struct bns_edge *e)
{
    const struct append_elem *el = &c->elems[e->why];
    unsigned long long from = c->txns[e->from].call + 1;
    unsigned long long to = c->txns[e->to].call + 1;

    bns_verdict_op(c->v, c->txns[e->from].call);
    bns_verdict_op(c->v, c->txns[e->to].call);
    if (e->kind == BNS_EDGE_RT) {
        bns_verdict_say(c->v, "line %llu had ended before line %llu began", from, to);
        return;
    }
    if (e->kind == BNS_EDGE_WW)
        bns_verdict_say(c->v, "line %llu appended to %s before line %llu appended %s", from,
                        bns_check_name(c->cfg, el->key).s, to, bns_check_name(c->cfg, el->value).s);
    else if (e->kind == BNS_EDGE_WR)
        bns_verdict_say(c->v, "line %llu read %s in %s, which line %llu appended", to,
                        bns_check_name(c->cfg, el->value).s, bns_check_name(c->cfg, el->key).s,
                        from);
    else
        bns_verdict_say(c->v, "line %llu read %s without %s, which line %llu appended", from,
                        bns_check_name(c->cfg, el->key).s, bns_check_name(c->cfg, el->value).s, to);
}

static int tell_cycle(const struct append_check *c, const struct bns_graph *g, const char *anomaly,
                      const size_t *way, size_t len)
{
    int rv = bns_verdict_anomaly(c->v, anomaly, "no order of these transactions is right: ");
    size_t told = 0;

    for (size_t i = 0; i < len; i++) {
        struct bns_edge e = g->edges[way[i]];
        while (e.kind == BNS_EDGE_RT && i + 1 < len && g->edges[way[i + 1]].kind == BNS_EDGE_RT)
            e.to = g->edges[way[++i]].to; /* before one that was before: before */
        if (told++ == SHOWN_MAX) {
            bns_verdict_say(c->v, "; and %zu more steps back to the first", len - i);
            break;
        }
        if (told > 1)
            bns_verdict_say(c->v, "; ");
        tell_edge(c, &e);
    }
    return rv;
}

int append_check_cycles(struct append_check *c)
{
    const struct bns_alloc *a = c->cfg->alloc;
    size_t *way = bns_check_array(a, (size_t)c->txns_count + 1, sizeof *way);
    const char *anomaly = NULL;
    struct bns_graph g;
    size_t len = 0;
    int rv = way == NULL ? BNS_E_NOMEM : BNS_OK;

    bns_graph_init(&g, a, c->txns_count, BNS_APPEND_EDGES_MAX);
    if (rv == BNS_OK)
        rv = add_writes(c, &g);
    if (rv == BNS_OK)
        rv = add_reads(c, &g);
    if (rv == BNS_OK && !c->cfg->no_realtime)
        rv = add_realtime(c, &g);
    if (rv == BNS_OK)
        rv = bns_graph_link(&g);
    if (rv == BNS_OK && bns_graph_components(&g, UINT32_MAX)) {
        anomaly = find_cycle(&g, false, way, &len);
        if (anomaly == NULL)
            anomaly = find_cycle(&g, true, way, &len);
        BNS_ASSERT(anomaly != NULL); /* the whole graph has a cycle */
        rv = tell_cycle(c, &g, anomaly, way, len);
    }
    bns_graph_free(&g);
    bns_free(a, way);
    return rv;
}
