/* base64.c - RFC 4648.
 *
 * Decoding gathers six bits a character and lets a byte go whenever eight are there. A rest of six
 * bits (one lone character) is impossible; other left-over bits must be zero, so that two different
 * texts never mean the same bytes by accident of a broken encoder.
 */
#include "codec/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int bns_base64_encode(struct bns_buf *out, struct bns_slice in, bool pad)
{
    size_t rest = in.len % 3;
    uint8_t *dst;
    size_t i = 0;
    int rv;

    if (in.len > SIZE_MAX / 2)
        return BNS_E_TOOBIG;
    rv = bns_buf_reserve(out, in.len / 3 * 4 + (rest == 0 ? 0 : pad ? 4 : rest + 1));
    if (rv != BNS_OK || in.len == 0)
        return rv;
    dst = out->ptr + out->len;
    for (; i + 3 <= in.len; i += 3) {
        uint32_t v = (uint32_t)in.ptr[i] << 16 | (uint32_t)in.ptr[i + 1] << 8 | in.ptr[i + 2];
        *dst++ = (uint8_t)alphabet[v >> 18];
        *dst++ = (uint8_t)alphabet[v >> 12 & 63];
        *dst++ = (uint8_t)alphabet[v >> 6 & 63];
        *dst++ = (uint8_t)alphabet[v & 63];
    }
    if (rest > 0) {
        uint32_t v = (uint32_t)in.ptr[i] << 16;
        if (rest == 2)
            v |= (uint32_t)in.ptr[i + 1] << 8;
        *dst++ = (uint8_t)alphabet[v >> 18];
        *dst++ = (uint8_t)alphabet[v >> 12 & 63];
        if (rest == 2)
            *dst++ = (uint8_t)alphabet[v >> 6 & 63];
        for (size_t n = rest; pad && n < 3; n++)
            *dst++ = '=';
    }
    out->len = (size_t)(dst - out->ptr);
    return BNS_OK;
}

/* 0..63, or 64 for a byte of neither alphabet. */
static uint32_t value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    if (c == '+' || c == '-')
        return 62;
    if (c == '/' || c == '_')
        return 63;
    return 64;
}

int bns_base64_decode(struct bns_buf *out, struct bns_slice in)
{
    size_t start = out->len;
    size_t pads = 0;
    uint32_t acc = 0;
    uint32_t bits = 0;
    int rv;

    while (pads < 2 && in.len > 0 && in.ptr[in.len - 1] == '=') {
        in.len--;
        pads++;
    }
    if (in.len % 4 == 1 || (pads > 0 && (in.len + pads) % 4 != 0))
        return BNS_E_INVALID;
    rv = bns_buf_reserve(out, in.len / 4 * 3 + in.len % 4);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < in.len; i++) {
        uint32_t v = value(in.ptr[i]);
        if (v > 63)
            goto fail;
        acc = acc << 6 | v;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out->ptr[out->len++] = (uint8_t)(acc >> bits);
            acc &= (1u << bits) - 1;
        }
    }
    if (acc != 0)
        goto fail;
    return BNS_OK;

fail:
    out->len = start;
    return BNS_E_INVALID;
}
