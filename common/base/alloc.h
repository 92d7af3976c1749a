/* alloc.h - the allocator that everything below a daemon uses.
 *
 * Production passes bns_alloc_libc(); tests pass a heap that counts, fails the n-th call and is
 * freed whole when a simulated node dies. Header only, so cores may use it.
 *
 * Thread: an allocator belongs to one loop, but for bns_alloc_libc(), which any thread may use.
 * Errors: NULL when out of memory.
 */
#ifndef BNS_BASE_ALLOC_H
#define BNS_BASE_ALLOC_H

#include <stddef.h>
#include <string.h>

struct bns_alloc {
    void *(*alloc)(void *ctx, size_t n);
    void *(*resize)(void *ctx, void *ptr, size_t n); /* like realloc; ptr may be NULL */
    void (*release)(void *ctx, void *ptr);           /* ptr may be NULL */
    void *ctx;
};

const struct bns_alloc *bns_alloc_libc(void);

static inline void *bns_alloc(const struct bns_alloc *a, size_t n)
{
    return a->alloc(a->ctx, n);
}

static inline void *bns_alloc_zero(const struct bns_alloc *a, size_t n)
{
    void *p = a->alloc(a->ctx, n);
    return p == NULL ? NULL : memset(p, 0, n);
}

/* NULL when count * size overflows. */
static inline void *bns_alloc_array(const struct bns_alloc *a, size_t count, size_t size)
{
    size_t n;
    return __builtin_mul_overflow(count, size, &n) ? NULL : a->alloc(a->ctx, n);
}

static inline void *bns_resize(const struct bns_alloc *a, void *ptr, size_t n)
{
    return a->resize(a->ctx, ptr, n);
}

static inline void bns_free(const struct bns_alloc *a, void *ptr)
{
    a->release(a->ctx, ptr);
}

#endif
