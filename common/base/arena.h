/* arena.h - memory that is freed all at once: one arena a request.
 *
 * Memory: blocks come from `alloc`; the first block may be lent by the caller. Alignment 16.
 * Errors: NULL when out of memory or past `max` bytes in total.
 */
#ifndef BNS_BASE_ARENA_H
#define BNS_BASE_ARENA_H

#include "base/alloc.h"
#include "base/slice.h"

struct bns_arena_block;

struct bns_arena {
    const struct bns_alloc *alloc;
    struct bns_arena_block *blocks;
    uint8_t *next;
    size_t left;
    size_t used; /* bytes handed out */
    size_t max;
};

void bns_arena_init(struct bns_arena *a, const struct bns_alloc *alloc, size_t max);
/* Uses the caller's bytes first; right after init only. They are not released by the arena, and
 * must outlive it or its next bns_arena_free(). */
void bns_arena_lend(struct bns_arena *a, void *ptr, size_t len);
void bns_arena_free(struct bns_arena *a); /* releases all; the arena is empty and usable */
void *bns_arena_alloc(struct bns_arena *a, size_t n);
void *bns_arena_dup(struct bns_arena *a, const void *ptr, size_t len); /* copy, with a NUL behind */
char *bns_arena_str(struct bns_arena *a, struct bns_slice s);          /* copy as a C string */

#endif
