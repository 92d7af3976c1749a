/* skiplist.h - intrusive ordered map on byte keys: the key index of etcd-lite, range scans.
 *
 * Deterministic: levels come from the PRNG seed given at init.
 * Cost:   O(log n) find, insert, delete; 8 bytes a level, 1.33 levels a node on average.
 */
#ifndef BNS_BASE_SKIPLIST_H
#define BNS_BASE_SKIPLIST_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/prng.h"
#include "base/slice.h"

#define BNS_SKIP_LEVELS_MAX 16

/* Put this as the LAST member of a node that was allocated with bns_skip_node_bytes(). */
struct bns_skip_node {
    uint32_t key_len;
    uint8_t levels;
    const uint8_t *key;           /* owned by the caller, unchanged while in the list */
    struct bns_skip_node *next[]; /* `levels` links */
};

struct bns_skiplist {
    struct bns_skip_node *head[BNS_SKIP_LEVELS_MAX];
    struct bns_prng prng;
    size_t count;
    uint8_t levels;
};

void bns_skip_init(struct bns_skiplist *s, uint64_t seed);
uint8_t bns_skip_draw_levels(struct bns_skiplist *s); /* for the node about to be allocated */
/* `offset` = offsetof(struct outer, skip); gives the bytes to allocate for the outer struct. */
static inline size_t bns_skip_node_bytes(size_t offset, uint8_t levels)
{
    return offset + sizeof(struct bns_skip_node) + levels * sizeof(struct bns_skip_node *);
}

/* n->key, key_len, levels are set. BNS_E_EXISTS when the key is there (nothing changed). */
BNS_MUST_CHECK int bns_skip_insert(struct bns_skiplist *s, struct bns_skip_node *n);
/* Building it in order, at a constant cost a node: tail is that of a list which nothing else
 * changes meanwhile, and n comes after all that are in it. */
struct bns_skip_tail {
    struct bns_skip_node **links[BNS_SKIP_LEVELS_MAX]; /* the last link of each level */
};
void bns_skip_tail_init(struct bns_skiplist *s, struct bns_skip_tail *tail); /* s is empty */
void bns_skip_append(struct bns_skiplist *s, struct bns_skip_tail *tail, struct bns_skip_node *n);
struct bns_skip_node *bns_skip_find(const struct bns_skiplist *s, struct bns_slice key);
struct bns_skip_node *bns_skip_seek(const struct bns_skiplist *s,
                                    struct bns_slice key); /* first >= key */
static inline struct bns_skip_node *bns_skip_first(const struct bns_skiplist *s)
{
    return s->head[0];
}
static inline struct bns_skip_node *bns_skip_next(const struct bns_skip_node *n)
{
    return n->next[0];
}
struct bns_skip_node *bns_skip_del(struct bns_skiplist *s,
                                   struct bns_slice key); /* the removed node or NULL */

#endif
