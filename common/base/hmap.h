/* hmap.h - intrusive hash map, chained, grown by doubling. The caller compares keys.
 *
 * Hashes are seeded: pass a hash made with bns_hash(seed, ...) so that peers cannot aim collisions.
 * Errors: insert returns BNS_E_NOMEM only for the very first table; failed growth is harmless.
 * Order:  iteration order is a function of the hashes and insertions, never of addresses.
 */
#ifndef BNS_BASE_HMAP_H
#define BNS_BASE_HMAP_H

#include "base/alloc.h"
#include "base/err.h"

struct bns_hnode {
    struct bns_hnode *next;
    uint64_t hash;
};

struct bns_hmap {
    const struct bns_alloc *alloc;
    struct bns_hnode **slots;
    size_t slots_count; /* 0 or a power of two */
    size_t count;
};

uint64_t bns_hash(uint64_t seed, const void *ptr, size_t len);
uint64_t bns_hash_u64(uint64_t seed, uint64_t v);

void bns_hmap_init(struct bns_hmap *m, const struct bns_alloc *alloc);
void bns_hmap_free(struct bns_hmap *m); /* the table only; nodes are the caller's */
BNS_MUST_CHECK int bns_hmap_insert(struct bns_hmap *m, struct bns_hnode *n, uint64_t hash);
void bns_hmap_del(struct bns_hmap *m, struct bns_hnode *n); /* n must be in the map */

/* First and next node whose hash is `hash`. */
struct bns_hnode *bns_hmap_find(const struct bns_hmap *m, uint64_t hash);
struct bns_hnode *bns_hmap_find_next(const struct bns_hnode *n);

/* An iteration that may pause while the map changes: calls fn for the nodes of one slot and returns
 * the cursor of the next one. Begins with 0; 0 is returned at the end. Every node that stays in the
 * map from the first call to the last is told exactly once, however the map grows meanwhile; one
 * that comes or goes is told once or not at all. fn must not change the map. */
uint64_t bns_hmap_scan(const struct bns_hmap *m, uint64_t cursor,
                       void (*fn)(void *arg, struct bns_hnode *n), void *arg);

/* Iteration: NULL gives the first; the node returned last may be removed before the next call only
 * if its successor was fetched first. */
struct bns_hnode *bns_hmap_next(const struct bns_hmap *m, const struct bns_hnode *n);

#endif
