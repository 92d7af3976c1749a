/* buf.h - a growing byte buffer with an explicit bound.
 *
 * Memory: owned by the buffer, from the allocator given at init; bns_buf_free() releases it.
 * Errors: every append returns BNS_E_NOMEM or BNS_E_TOOBIG (over `max`) and then changes nothing.
 */
#ifndef BNS_BASE_BUF_H
#define BNS_BASE_BUF_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/slice.h"

struct bns_buf {
    const struct bns_alloc *alloc;
    uint8_t *ptr;
    size_t len;
    size_t cap;
    size_t max;
};

void bns_buf_init(struct bns_buf *b, const struct bns_alloc *alloc, size_t max);
void bns_buf_free(struct bns_buf *b);              /* leaves an empty, usable buffer */
void bns_buf_clear(struct bns_buf *b);             /* keeps the memory */
void bns_buf_consume(struct bns_buf *b, size_t n); /* drops the first n <= len bytes */
/* Makes room for `more` bytes at ptr + len. */
BNS_MUST_CHECK int bns_buf_reserve(struct bns_buf *b, size_t more);
BNS_MUST_CHECK int bns_buf_add(struct bns_buf *b, const void *ptr, size_t len);
BNS_MUST_CHECK int bns_buf_str(struct bns_buf *b, const char *s);
BNS_MUST_CHECK int bns_buf_byte(struct bns_buf *b, uint8_t byte);
BNS_MUST_CHECK int bns_buf_fmt(struct bns_buf *b, const char *fmt, ...) BNS_PRINTF(2, 3);

static inline struct bns_slice bns_buf_slice(const struct bns_buf *b)
{
    return bns_slice(b->ptr, b->len);
}

#endif
