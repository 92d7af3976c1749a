/* slice.h - a borrowed view of bytes, and the comparisons everyone needs. Header only. */
#ifndef BNS_BASE_SLICE_H
#define BNS_BASE_SLICE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct bns_slice {
    const uint8_t *ptr; /* may be NULL only when len is 0 */
    size_t len;
};

#define BNS_LIT(s) ((struct bns_slice){(const uint8_t *)(s), sizeof(s) - 1})

static inline struct bns_slice bns_slice(const void *ptr, size_t len)
{
    return (struct bns_slice){ptr, len};
}

static inline struct bns_slice bns_slice_str(const char *s)
{
    return (struct bns_slice){(const uint8_t *)s, strlen(s)};
}

/* memcmp order, shorter first. */
static inline int bns_slice_cmp(struct bns_slice a, struct bns_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);
    return c != 0 ? c : (a.len > b.len) - (a.len < b.len);
}

static inline bool bns_slice_eq(struct bns_slice a, struct bns_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* The rest after the first n bytes (n is capped at len). */
static inline struct bns_slice bns_slice_skip(struct bns_slice s, size_t n)
{
    if (n > s.len)
        n = s.len;
    return (struct bns_slice){n == 0 ? s.ptr : s.ptr + n, s.len - n};
}

#endif
