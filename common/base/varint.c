/* varint.c - protobuf varints: seven bits a byte, least significant first, high bit = more follow.
 *
 * A 64-bit value takes at most ten bytes, of which the tenth may only hold 0 or 1. Forms that are
 * longer than needed are legal protobuf and accepted.
 */
#include "base/varint.h"

int bns_varint_get(struct bns_slice *s, uint64_t *out)
{
    size_t n = s->len < BNS_VARINT_MAX ? s->len : BNS_VARINT_MAX;
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++) {
        uint8_t byte = s->ptr[i];
        if (i == BNS_VARINT_MAX - 1 && byte > 1)
            return BNS_E_CORRUPT;
        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out = v;
            *s = bns_slice_skip(*s, i + 1);
            return BNS_OK;
        }
    }
    return BNS_E_CORRUPT;
}

size_t bns_varint_put(uint8_t *dst, uint64_t v)
{
    size_t n = 0;

    while (v >= 0x80) {
        dst[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    dst[n++] = (uint8_t)v;
    return n;
}

size_t bns_varint_len(uint64_t v)
{
    return (size_t)(63 - __builtin_clzll(v | 1)) / 7 + 1;
}
