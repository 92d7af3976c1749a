/* alloc.c - the libc allocator behind struct bns_alloc.
 *
 * A request for 0 bytes yields a pointer that may be released: callers never have to tell an
 * empty object from a failed allocation.
 */
#include "base/alloc.h"

#include <stdlib.h>

static void *libc_alloc(void *ctx, size_t n)
{
    (void)ctx;
    return malloc(n == 0 ? 1 : n);
}

static void *libc_resize(void *ctx, void *ptr, size_t n)
{
    (void)ctx;
    return realloc(ptr, n == 0 ? 1 : n);
}

static void libc_release(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

const struct bns_alloc *bns_alloc_libc(void)
{
    static const struct bns_alloc libc = {libc_alloc, libc_resize, libc_release, NULL};
    return &libc;
}
