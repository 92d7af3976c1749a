/* arena.c - bump allocation in blocks that are released together.
 *
 * Layout: blocks form a list, newest first; each starts with a 16-byte header. Only the newest
 * block is bumped; a request that does not fit opens a new block. Block sizes double from 1 KiB
 * to 64 KiB, and a larger request gets a block of its own size.
 * Invariant: used <= max, where used counts requests rounded up to 16.
 */
#include "base/arena.h"

#include "base/err.h"

#define ALIGN 16u
#define BLOCK_MIN ((size_t)1024)
#define BLOCK_MAX ((size_t)64 * 1024)

struct bns_arena_block {
    struct bns_arena_block *next;
    size_t bytes; /* of the payload */
};
_Static_assert(sizeof(struct bns_arena_block) == ALIGN, "the payload must stay aligned");

void bns_arena_init(struct bns_arena *a, const struct bns_alloc *alloc, size_t max)
{
    BNS_ASSERT(alloc != NULL);
    *a = (struct bns_arena){.alloc = alloc, .max = max};
}

void bns_arena_lend(struct bns_arena *a, void *ptr, size_t len)
{
    size_t skip = (ALIGN - ((uintptr_t)ptr & (ALIGN - 1))) & (ALIGN - 1);

    BNS_ASSERT(a->blocks == NULL);
    BNS_ASSERT(a->used == 0);
    if (len < skip + ALIGN)
        return;
    a->next = (uint8_t *)ptr + skip;
    a->left = (len - skip) & ~(size_t)(ALIGN - 1);
}

void bns_arena_free(struct bns_arena *a)
{
    struct bns_arena_block *b = a->blocks;

    while (b != NULL) {
        struct bns_arena_block *next = b->next;
        bns_free(a->alloc, b);
        b = next;
    }
    a->blocks = NULL;
    a->next = NULL;
    a->left = 0;
    a->used = 0;
}

static bool grow(struct bns_arena *a, size_t n)
{
    size_t bytes = a->blocks == NULL ? BLOCK_MIN : a->blocks->bytes * 2;
    struct bns_arena_block *b;

    if (bytes > BLOCK_MAX)
        bytes = BLOCK_MAX;
    if (bytes < n)
        bytes = n;
    b = bns_alloc(a->alloc, sizeof *b + bytes);
    if (b == NULL)
        return false;
    b->next = a->blocks;
    b->bytes = bytes;
    a->blocks = b;
    a->next = (uint8_t *)(b + 1);
    a->left = bytes;
    return true;
}

void *bns_arena_alloc(struct bns_arena *a, size_t n)
{
    void *ptr;

    if (n > SIZE_MAX / 2)
        return NULL;
    n = n == 0 ? ALIGN : (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (n > a->max - a->used)
        return NULL;
    if (n > a->left && !grow(a, n))
        return NULL;
    ptr = a->next;
    a->next += n;
    a->left -= n;
    a->used += n;
    BNS_ASSERT(a->used <= a->max);
    return ptr;
}

void *bns_arena_dup(struct bns_arena *a, const void *ptr, size_t len)
{
    uint8_t *copy = len == SIZE_MAX ? NULL : bns_arena_alloc(a, len + 1);

    if (copy == NULL)
        return NULL;
    if (len > 0)
        memcpy(copy, ptr, len);
    copy[len] = 0;
    return copy;
}

char *bns_arena_str(struct bns_arena *a, struct bns_slice s)
{
    return bns_arena_dup(a, s.ptr, s.len);
}
