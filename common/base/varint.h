/* varint.h - protobuf varints, zigzag, and fixed-width integers at any address. */
#ifndef BNS_BASE_VARINT_H
#define BNS_BASE_VARINT_H

#include "base/err.h"
#include "base/slice.h"

#define BNS_VARINT_MAX 10

/* Reads one varint and moves the slice past it. BNS_E_CORRUPT: cut short, or more than 10 bytes, or
 * over 64 bits; the slice is then unchanged. */
BNS_MUST_CHECK int bns_varint_get(struct bns_slice *s, uint64_t *out);
size_t bns_varint_put(uint8_t *dst, uint64_t v); /* dst has BNS_VARINT_MAX bytes; bytes written */
size_t bns_varint_len(uint64_t v);

static inline uint64_t bns_zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}
static inline int64_t bns_unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

#define BNS_FIXED(bits, order, conv)                                                               \
    static inline uint##bits##_t bns_get_u##bits##order(const void *p)                             \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof v);                                                                   \
        return conv(v);                                                                            \
    }                                                                                              \
    static inline void bns_put_u##bits##order(void *p, uint##bits##_t v)                           \
    {                                                                                              \
        v = conv(v);                                                                               \
        memcpy(p, &v, sizeof v);                                                                   \
    }
#define BNS_SAME(v) (v)
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian machines are supported"
#endif
BNS_FIXED(16, le, BNS_SAME)
BNS_FIXED(32, le, BNS_SAME)
BNS_FIXED(64, le, BNS_SAME)
BNS_FIXED(16, be, __builtin_bswap16)
BNS_FIXED(32, be, __builtin_bswap32)
BNS_FIXED(64, be, __builtin_bswap64)
#undef BNS_SAME
#undef BNS_FIXED

#endif
