/* rcbuf.h - immutable bytes with a reference count: one copy shared by log, WAL, network, apply.
 *
 * Thread: get and put on the owning loop only; other threads may read the bytes while a reference
 * is held for them. Header only.
 */
#ifndef BNS_BASE_RCBUF_H
#define BNS_BASE_RCBUF_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/slice.h"

struct bns_rcbuf {
    const struct bns_alloc *alloc;
    uint32_t refs;
    uint32_t len;
    uint8_t bytes[];
};

/* One reference, bytes not yet set. NULL when out of memory. */
static inline struct bns_rcbuf *bns_rcbuf_new(const struct bns_alloc *a, size_t len)
{
    struct bns_rcbuf *b;
    if (len > UINT32_MAX)
        return NULL;
    b = bns_alloc(a, sizeof *b + len);
    if (b != NULL) {
        b->alloc = a;
        b->refs = 1;
        b->len = (uint32_t)len;
    }
    return b;
}

static inline struct bns_rcbuf *bns_rcbuf_copy(const struct bns_alloc *a, struct bns_slice s)
{
    struct bns_rcbuf *b = bns_rcbuf_new(a, s.len);
    if (b != NULL && s.len > 0)
        memcpy(b->bytes, s.ptr, s.len);
    return b;
}

static inline struct bns_rcbuf *bns_rcbuf_get(struct bns_rcbuf *b)
{
    b->refs++;
    return b;
}

static inline void bns_rcbuf_put(struct bns_rcbuf *b) /* NULL is fine */
{
    if (b != NULL && --b->refs == 0)
        bns_free(b->alloc, b);
}

static inline struct bns_slice bns_rcbuf_slice(const struct bns_rcbuf *b)
{
    return b == NULL ? bns_slice(NULL, 0) : bns_slice(b->bytes, b->len);
}

#endif
