/* buf.c - a growing byte buffer with an explicit bound.
 *
 * Invariants: len <= cap <= max; ptr is NULL exactly when cap is 0. The capacity doubles, so n
 * appends cost O(n). An append that fails leaves pointer, length and contents as they were.
 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

#define CAP_MIN 64u

void bns_buf_init(struct bns_buf *b, const struct bns_alloc *alloc, size_t max)
{
    BNS_ASSERT(alloc != NULL);
    *b = (struct bns_buf){.alloc = alloc, .max = max};
}

void bns_buf_free(struct bns_buf *b)
{
    if (b->ptr != NULL)
        bns_free(b->alloc, b->ptr);
    b->ptr = NULL;
    b->len = 0;
    b->cap = 0;
}

void bns_buf_clear(struct bns_buf *b)
{
    b->len = 0;
}

void bns_buf_consume(struct bns_buf *b, size_t n)
{
    BNS_ASSERT(n <= b->len);
    if (n == 0)
        return;
    if (n < b->len)
        memmove(b->ptr, b->ptr + n, b->len - n);
    b->len -= n;
}

int bns_buf_reserve(struct bns_buf *b, size_t more)
{
    size_t need;
    size_t cap;
    void *ptr;

    if (__builtin_add_overflow(b->len, more, &need) || need > b->max)
        return BNS_E_TOOBIG;
    if (need <= b->cap)
        return BNS_OK;
    cap = b->cap < CAP_MIN / 2 ? CAP_MIN : b->cap > b->max / 2 ? b->max : b->cap * 2;
    if (cap < need)
        cap = need;
    if (cap > b->max)
        cap = b->max;
    ptr = bns_resize(b->alloc, b->ptr, cap);
    if (ptr == NULL)
        return BNS_E_NOMEM;
    b->ptr = ptr;
    b->cap = cap;
    return BNS_OK;
}

int bns_buf_add(struct bns_buf *b, const void *ptr, size_t len)
{
    int rv = bns_buf_reserve(b, len);

    if (rv != BNS_OK)
        return rv;
    if (len > 0)
        memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
    return BNS_OK;
}

int bns_buf_str(struct bns_buf *b, const char *s)
{
    return bns_buf_add(b, s, strlen(s));
}

int bns_buf_byte(struct bns_buf *b, uint8_t byte)
{
    return bns_buf_add(b, &byte, 1);
}

int bns_buf_fmt(struct bns_buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap;
    int n;
    int rv;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0)
        return BNS_E_INVALID;
    if ((size_t)n < sizeof small)
        return bns_buf_add(b, small, (size_t)n);

    /* The terminator needs a byte of room too; it may exceed `max` by that one byte only for a
     * text that exactly fills the buffer, which is refused. */
    rv = bns_buf_reserve(b, (size_t)n + 1);
    if (rv != BNS_OK)
        return rv;
    va_start(ap, fmt);
    n = vsnprintf((char *)b->ptr + b->len, b->cap - b->len, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return BNS_OK;
}
