/* check_graph.c - strongly connected components by Tarjan (1972), ways by breadth-first search.
 *
 * Tarjan's algorithm is written without recursion: `next` keeps for each node on the way down which
 * edge comes next. index 0 = not visited; a node that is done has index DONE.
 *
 * Invariants: after linking, the edges of node n are edges[first[n] .. first[n + 1]); `via` is
 * clear             between searches, so a search costs what it visits.
 */
#include "sim/check_graph.h"

#include <stdlib.h>

#define DONE UINT32_MAX
#define NO_EDGE SIZE_MAX

void bns_graph_init(struct bns_graph *g, const struct bns_alloc *alloc, uint32_t nodes_count,
                    size_t edges_max)
{
    *g = (struct bns_graph){.alloc = alloc, .nodes_count = nodes_count, .edges_max = edges_max};
}

void bns_graph_free(struct bns_graph *g)
{
    bns_free(g->alloc, g->edges);
    bns_free(g->alloc, g->first);
    bns_free(g->alloc, g->comp);
    bns_free(g->alloc, g->size);
    bns_free(g->alloc, g->stack);
    bns_free(g->alloc, g->index);
    bns_free(g->alloc, g->low);
    bns_free(g->alloc, g->next);
    bns_free(g->alloc, g->via);
}

int bns_graph_add(struct bns_graph *g, struct bns_edge e)
{
    BNS_ASSERT(e.from < g->nodes_count);
    BNS_ASSERT(e.to < g->nodes_count);
    if (e.from == e.to)
        return BNS_OK;
    if (g->edges_count == g->edges_max)
        return BNS_E_TOOBIG;
    if (g->edges_count == g->edges_cap) {
        size_t cap = g->edges_cap == 0 ? 256 : g->edges_cap * 2;
        struct bns_edge *more = bns_resize(g->alloc, g->edges, cap * sizeof *more);
        if (more == NULL)
            return BNS_E_NOMEM;
        g->edges = more;
        g->edges_cap = cap;
    }
    g->edges[g->edges_count++] = e;
    return BNS_OK;
}

static int by_from(const void *a, const void *b)
{
    const struct bns_edge *x = a;
    const struct bns_edge *y = b;

    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    if (x->to != y->to)
        return x->to < y->to ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->why > y->why) - (x->why < y->why);
}

int bns_graph_link(struct bns_graph *g)
{
    size_t n = (size_t)g->nodes_count + 1;
    size_t e = 0;

    g->first = bns_alloc_array(g->alloc, n, sizeof *g->first);
    g->comp = bns_alloc_array(g->alloc, n, sizeof *g->comp);
    g->size = bns_alloc_array(g->alloc, n, sizeof *g->size);
    g->stack = bns_alloc_array(g->alloc, 2 * n, sizeof *g->stack);
    g->index = bns_alloc_array(g->alloc, n, sizeof *g->index);
    g->low = bns_alloc_array(g->alloc, n, sizeof *g->low);
    g->next = bns_alloc_array(g->alloc, n, sizeof *g->next);
    g->via = bns_alloc_array(g->alloc, n, sizeof *g->via);
    if (g->first == NULL || g->comp == NULL || g->size == NULL || g->stack == NULL)
        return BNS_E_NOMEM;
    if (g->index == NULL || g->low == NULL || g->next == NULL || g->via == NULL)
        return BNS_E_NOMEM;
    if (g->edges_count > 0)
        qsort(g->edges, g->edges_count, sizeof g->edges[0], by_from);
    for (size_t node = 0; node < n; node++) {
        g->via[node] = NO_EDGE;
        while (e < g->edges_count && g->edges[e].from < node)
            e++;
        g->first[node] = e;
    }
    return BNS_OK;
}

struct tarjan {
    struct bns_graph *g;
    uint32_t mask;
    uint32_t counter;
    uint32_t open_count; /* nodes without a component yet: in stack[0..) */
    uint32_t path_count; /* the way down: in stack[nodes_count + 1..) */
};

static void enter(struct tarjan *t, uint32_t node)
{
    struct bns_graph *g = t->g;

    g->index[node] = g->low[node] = ++t->counter;
    g->next[node] = g->first[node];
    g->stack[t->open_count++] = node;
    g->stack[g->nodes_count + 1 + t->path_count++] = node;
}

/* All edges of the node are done: it closes a component when nothing below it reaches above it. */
static void leave(struct tarjan *t, uint32_t node)
{
    struct bns_graph *g = t->g;
    uint32_t count = 0;
    uint32_t low = g->low[node];
    uint32_t member;

    t->path_count--;
    if (low == g->index[node]) {
        do {
            member = g->stack[--t->open_count];
            g->comp[member] = g->comps_count;
            g->index[member] = DONE;
            count++;
        } while (member != node);
        g->size[g->comps_count++] = count;
        return;
    }
    member = g->stack[g->nodes_count + t->path_count]; /* the node above it on the way */
    if (low < g->low[member])
        g->low[member] = low;
}

static void visit(struct tarjan *t, uint32_t root)
{
    struct bns_graph *g = t->g;

    enter(t, root);
    while (t->path_count > 0) {
        uint32_t node = g->stack[g->nodes_count + t->path_count];
        const struct bns_edge *e;

        if (g->next[node] == g->first[node + 1]) {
            leave(t, node);
            continue;
        }
        e = &g->edges[g->next[node]++];
        if ((e->kind & t->mask) == 0 || g->index[e->to] == DONE)
            continue;
        if (g->index[e->to] == 0)
            enter(t, e->to);
        else if (g->index[e->to] < g->low[node])
            g->low[node] = g->index[e->to];
    }
}

bool bns_graph_components(struct bns_graph *g, uint32_t mask)
{
    struct tarjan t = {.g = g, .mask = mask};

    BNS_ASSERT(g->first != NULL);
    memset(g->index, 0, g->nodes_count * sizeof g->index[0]);
    g->comps_count = 0;
    for (uint32_t node = 0; node < g->nodes_count; node++) {
        if (g->index[node] == 0)
            visit(&t, node);
    }
    return g->comps_count < g->nodes_count;
}

bool bns_graph_way(struct bns_graph *g, uint32_t mask, uint32_t a, uint32_t b, size_t *way,
                   size_t *len)
{
    uint32_t head = 0, tail = 0;
    bool found;

    g->stack[tail++] = a;
    while (head < tail && g->via[b] == NO_EDGE) {
        uint32_t node = g->stack[head++];
        for (size_t i = g->first[node]; i < g->first[node + 1]; i++) {
            const struct bns_edge *e = &g->edges[i];
            if ((e->kind & mask) == 0 || g->comp[e->to] != g->comp[a] || g->via[e->to] != NO_EDGE)
                continue;
            g->via[e->to] = i;
            if (e->to != a)
                g->stack[tail++] = e->to;
        }
    }
    *len = 0;
    found = g->via[b] != NO_EDGE;
    for (uint32_t node = b; found && (*len == 0 || node != a); node = g->edges[way[*len - 1]].from)
        way[(*len)++] = g->via[node];
    while (tail > 0)
        g->via[g->stack[--tail]] = NO_EDGE;
    for (size_t i = 0; i < *len / 2; i++) {
        size_t swap = way[i];
        way[i] = way[*len - 1 - i];
        way[*len - 1 - i] = swap;
    }
    return found;
}
