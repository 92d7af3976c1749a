/* check_graph.h - the dependency graph of transactions, and its cycles.
 *
 * Nodes are numbers 0..nodes_count-1, edges are added in any order, then bns_graph_link() once.
 *
 * Thread: one a graph. Memory: from the allocator given. Errors: BNS_E_NOMEM, BNS_E_TOOBIG.
 */
#ifndef BNS_SIM_CHECK_GRAPH_H
#define BNS_SIM_CHECK_GRAPH_H

#include "base/alloc.h"
#include "base/err.h"

enum bns_edge_kind { BNS_EDGE_WW = 1, BNS_EDGE_WR = 2, BNS_EDGE_RW = 4, BNS_EDGE_RT = 8 };

struct bns_edge {
    uint32_t from, to;
    uint32_t kind;
    uint32_t why; /* the caller's: what made it */
};

struct bns_graph {
    const struct bns_alloc *alloc;
    uint32_t nodes_count;
    size_t edges_max;
    struct bns_edge *edges; /* sorted by from once linked */
    size_t edges_count, edges_cap;
    size_t *first;  /* of a node's edges; nodes_count + 1 entries */
    uint32_t *comp; /* component of each node, of the last bns_graph_components() */
    uint32_t *size; /* nodes of each component */
    uint32_t comps_count;
    /* scratch */
    uint32_t *stack, *index, *low;
    size_t *next;
    size_t *via; /* edge by which a search came */
};

void bns_graph_init(struct bns_graph *g, const struct bns_alloc *alloc, uint32_t nodes_count,
                    size_t edges_max);
void bns_graph_free(struct bns_graph *g);
BNS_MUST_CHECK int bns_graph_add(struct bns_graph *g, struct bns_edge e); /* loops are left out */
BNS_MUST_CHECK int bns_graph_link(struct bns_graph *g);

/* Strongly connected components by the edges whose kind is in `mask`; true when one has more than
 * one node, that is when there is a cycle. */
bool bns_graph_components(struct bns_graph *g, uint32_t mask);

/* The shortest way from node a to node b by edges in `mask` inside a's component, at least one edge
 * long (so a == b is a cycle): edge numbers in way[0..*len), at most nodes_count. False: none. */
bool bns_graph_way(struct bns_graph *g, uint32_t mask, uint32_t a, uint32_t b, size_t *way,
                   size_t *len);

#endif
