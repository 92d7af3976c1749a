/* heap.c - the test heap.
 *
 * Every block is preceded by a 48-byte header: its links in the list of live blocks, its size, a
 * mark that is wiped on release (so a second release asserts), and the heap it belongs to. The mark
 * is repeated right behind the payload, to catch writes past the end also without a sanitizer.
 */
#include "sim/heap.h"

#include <stdlib.h>

#include "base/list.h"

#define MARK UINT64_C(0xb10c4a11ed0b75e5)
#define FILL 0xa5

struct block {
    struct bns_list node;
    size_t bytes;
    struct bns_test_heap *heap;
    uint64_t mark;
    uint64_t pad;
};
_Static_assert(sizeof(struct block) == 48, "the payload must stay aligned to 16");

struct bns_test_heap {
    struct bns_alloc alloc;
    struct bns_list blocks;
    size_t blocks_count;
    size_t in_use;
    size_t peak;
    size_t bytes_max;
    uint64_t calls;
    int countdown; /* > 0: that many allocations until the planned failure */
    bool sticky;
    bool fired;
};

/* Whether this allocation is the one that must fail. */
static bool must_fail(struct bns_test_heap *h, size_t extra)
{
    h->calls++;
    if (h->countdown > 0) {
        h->countdown--;
        if (h->countdown == 0) {
            h->fired = true;
            return true;
        }
    } else if (h->fired && h->sticky) {
        return true;
    }
    return h->bytes_max != 0 && extra > h->bytes_max - h->in_use;
}

static void *heap_alloc(void *ctx, size_t n)
{
    struct bns_test_heap *h = ctx;
    const uint64_t mark = MARK;
    struct block *b;

    if (n > SIZE_MAX / 2 || must_fail(h, n))
        return NULL;
    b = malloc(sizeof *b + n + sizeof mark);
    if (b == NULL)
        return NULL;
    *b = (struct block){.bytes = n, .heap = h, .mark = mark};
    memset(b + 1, FILL, n);
    memcpy((uint8_t *)(b + 1) + n, &mark, sizeof mark);
    bns_list_push(&h->blocks, &b->node);
    h->blocks_count++;
    h->in_use += n;
    if (h->in_use > h->peak)
        h->peak = h->in_use;
    return b + 1;
}

static struct block *block_of(struct bns_test_heap *h, void *ptr)
{
    struct block *b = (struct block *)ptr - 1;
    uint64_t mark;

    BNS_ASSERT(b->mark == MARK); /* not ours, or released before */
    BNS_ASSERT(b->heap == h);
    memcpy(&mark, (uint8_t *)ptr + b->bytes, sizeof mark);
    BNS_ASSERT(mark == MARK); /* somebody wrote past the end */
    return b;
}

static void heap_release(void *ctx, void *ptr)
{
    struct bns_test_heap *h = ctx;
    struct block *b;

    if (ptr == NULL)
        return;
    b = block_of(h, ptr);
    BNS_ASSERT(h->in_use >= b->bytes);
    h->in_use -= b->bytes;
    h->blocks_count--;
    bns_list_del(&b->node);
    b->mark = 0;
    free(b);
}

/* Always moves the block, so that a pointer kept across a resize is found out. */
static void *heap_resize(void *ctx, void *ptr, size_t n)
{
    struct bns_test_heap *h = ctx;
    struct block *b;
    void *copy;

    if (ptr == NULL)
        return heap_alloc(ctx, n);
    b = block_of(h, ptr);
    copy = heap_alloc(ctx, n);
    if (copy == NULL)
        return NULL;
    memcpy(copy, ptr, n < b->bytes ? n : b->bytes);
    heap_release(ctx, ptr);
    return copy;
}

struct bns_test_heap *bns_test_heap(int fail_at)
{
    struct bns_test_heap *h = calloc(1, sizeof *h);

    if (h == NULL)
        return NULL;
    h->alloc = (struct bns_alloc){heap_alloc, heap_resize, heap_release, h};
    bns_list_init(&h->blocks);
    bns_test_heap_fail_at(h, fail_at);
    return h;
}

void bns_test_heap_fail_at(struct bns_test_heap *h, int fail_at)
{
    h->sticky = fail_at < 0;
    h->countdown = fail_at < 0 ? -fail_at : fail_at;
    h->fired = false;
}

void bns_test_heap_limit(struct bns_test_heap *h, size_t bytes_max)
{
    BNS_ASSERT(bytes_max == 0 || bytes_max >= h->in_use);
    h->bytes_max = bytes_max;
}

void bns_test_heap_free_all(struct bns_test_heap *h)
{
    while (!bns_list_empty(&h->blocks)) {
        struct block *b = BNS_CONTAINER(h->blocks.next, struct block, node);
        heap_release(h, b + 1);
    }
    BNS_ASSERT(h->in_use == 0);
    BNS_ASSERT(h->blocks_count == 0);
}

size_t bns_test_heap_close(struct bns_test_heap *h, bool *fired)
{
    size_t leaked;

    if (h == NULL)
        return 0;
    leaked = h->in_use;
    if (fired != NULL)
        *fired = h->fired;
    bns_test_heap_free_all(h);
    free(h);
    return leaked;
}

const struct bns_alloc *bns_test_heap_alloc(struct bns_test_heap *h)
{
    return &h->alloc;
}

size_t bns_test_heap_in_use(const struct bns_test_heap *h)
{
    return h->in_use;
}

size_t bns_test_heap_peak(const struct bns_test_heap *h)
{
    return h->peak;
}

size_t bns_test_heap_blocks(const struct bns_test_heap *h)
{
    return h->blocks_count;
}

uint64_t bns_test_heap_calls(const struct bns_test_heap *h)
{
    return h->calls;
}
