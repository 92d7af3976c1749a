/* heap.h - intrusive binary min-heap on (key, seq): timers, event queues.
 *
 * Ties are broken by insertion order, so a run is the same every time.
 */
#ifndef BNS_BASE_HEAP_H
#define BNS_BASE_HEAP_H

#include "base/alloc.h"
#include "base/err.h"

struct bns_heap_node {
    uint64_t key;
    uint64_t seq;
    size_t pos; /* 1-based place in the heap, 0 = not in a heap */
};

struct bns_heap {
    const struct bns_alloc *alloc;
    struct bns_heap_node **nodes;
    size_t count;
    size_t cap;
    uint64_t seq;
};

void bns_heap_init(struct bns_heap *h, const struct bns_alloc *alloc);
void bns_heap_free(struct bns_heap *h);
BNS_MUST_CHECK int bns_heap_insert(struct bns_heap *h, struct bns_heap_node *n, uint64_t key);
void bns_heap_del(struct bns_heap *h, struct bns_heap_node *n); /* no-op when not in a heap */
struct bns_heap_node *bns_heap_min(const struct bns_heap *h);   /* NULL when empty */

#endif
