/* grpc_msg.c - gRPC's message framing, timeouts and status texts (gRPC "PROTOCOL-HTTP2").
 *
 * A message is u8 compressed | u32 length, big-endian | bytes, and DATA frames cut that stream
 * anywhere. The splitter holds the prefix in five bytes of its own. A message that lies whole in
 * one input is given out where it lies; else its bytes gather in `body`, whose memory follows what
 * has really arrived (doubling), never what the prefix promises.
 */
#include "codec/grpc_msg.h"

#include <stdio.h>

#include "base/time.h"
#include "base/varint.h"

#define BODY_KEPT_MAX ((size_t)64 * 1024) /* larger buffers are not kept between messages */

void bns_grpc_split_init(struct bns_grpc_split *s, const struct bns_alloc *alloc,
                         uint32_t bytes_max)
{
    *s = (struct bns_grpc_split){.bytes_max = bytes_max};
    bns_buf_init(&s->body, alloc, bytes_max);
}

void bns_grpc_split_free(struct bns_grpc_split *s)
{
    bns_buf_free(&s->body);
    s->head_len = 0;
}

static void take(struct bns_slice *in, size_t n)
{
    *in = bns_slice_skip(*in, n);
}

/* Collects the prefix. BNS_OK once it is whole and good. */
static int read_prefix(struct bns_grpc_split *s, struct bns_slice *in)
{
    while (s->head_len < BNS_GRPC_PREFIX_BYTES) {
        if (in->len == 0)
            return BNS_E_AGAIN;
        s->head[s->head_len++] = in->ptr[0];
        take(in, 1);
    }
    if (s->head[0] > 1)
        return BNS_E_PROTO;
    s->want = bns_get_u32be(s->head + 1);
    return s->want > s->bytes_max ? BNS_E_TOOBIG : BNS_OK;
}

static void give(struct bns_grpc_split *s, struct bns_slice bytes, struct bns_grpc_msg *out)
{
    out->compressed = s->head[0] == 1;
    out->bytes = bytes;
    s->head_len = 0;
}

int bns_grpc_split_next(struct bns_grpc_split *s, struct bns_slice *in, struct bns_grpc_msg *out)
{
    size_t n;
    int rv;

    if (s->failed != BNS_OK)
        return s->failed;
    if (s->head_len == 0 && s->body.len > 0) { /* the message given out last is done with */
        bns_buf_clear(&s->body);
        if (s->body.cap > BODY_KEPT_MAX)
            bns_buf_free(&s->body);
    }
    if (s->head_len < BNS_GRPC_PREFIX_BYTES) {
        rv = read_prefix(s, in);
        if (rv == BNS_E_AGAIN)
            return rv;
        if (rv != BNS_OK)
            goto fail;
    }
    if (s->body.len == 0 && in->len >= s->want) {
        give(s, (struct bns_slice){in->ptr, s->want}, out);
        take(in, s->want);
        return BNS_OK;
    }
    n = s->want - s->body.len < in->len ? s->want - s->body.len : in->len;
    rv = bns_buf_add(&s->body, in->ptr, n);
    if (rv != BNS_OK)
        goto fail;
    take(in, n);
    if (s->body.len < s->want)
        return BNS_E_AGAIN;
    give(s, bns_buf_slice(&s->body), out);
    return BNS_OK;

fail:
    s->failed = rv;
    bns_buf_free(&s->body);
    return rv;
}

bool bns_grpc_split_idle(const struct bns_grpc_split *s)
{
    return s->head_len == 0 && s->failed == BNS_OK;
}

void bns_grpc_prefix(uint8_t dst[BNS_GRPC_PREFIX_BYTES], bool compressed, uint32_t len)
{
    dst[0] = compressed ? 1 : 0;
    bns_put_u32be(dst + 1, len);
}

static const struct {
    char unit;
    uint64_t ns;
} units[] = {
    {'n', 1},       {'u', BNS_US},       {'m', BNS_MS},
    {'S', BNS_SEC}, {'M', 60 * BNS_SEC}, {'H', 3600 * BNS_SEC},
};
#define UNITS (sizeof units / sizeof units[0])

int bns_grpc_timeout_parse(struct bns_slice text, uint64_t *out_ns)
{
    uint64_t v = 0;

    if (text.len < 2 || text.len > 9)
        return BNS_E_INVALID;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return BNS_E_INVALID;
        v = v * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    for (size_t i = 0; i < UNITS; i++) {
        if (text.ptr[text.len - 1] != (uint8_t)units[i].unit)
            continue;
        if (__builtin_mul_overflow(v, units[i].ns, out_ns))
            *out_ns = BNS_NEVER - 1;
        return BNS_OK;
    }
    return BNS_E_INVALID;
}

void bns_grpc_timeout_format(uint64_t ns, char dst[BNS_GRPC_TIMEOUT_BYTES])
{
    char text[32];

    for (size_t i = 0; i < UNITS; i++) {
        uint64_t v = ns / units[i].ns + (ns % units[i].ns != 0 ? 1 : 0);
        if (v > 99999999)
            continue;
        (void)snprintf(text, sizeof text, "%llu%c", (unsigned long long)v, units[i].unit);
        memcpy(dst, text, strlen(text) + 1); /* at most 8 digits, a unit, a NUL */
        return;
    }
    BNS_ASSERT(false); /* 2^64 ns are 5,124,096 hours: the last unit always fits */
}

static bool plain(uint8_t c)
{
    return c >= 0x20 && c <= 0x7e && c != '%';
}

int bns_grpc_percent_encode(struct bns_buf *out, struct bns_slice text)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t bytes = 0;
    uint8_t *dst;
    int rv;

    for (size_t i = 0; i < text.len; i++)
        bytes += plain(text.ptr[i]) ? 1 : 3;
    rv = bns_buf_reserve(out, bytes);
    if (rv != BNS_OK || bytes == 0)
        return rv;
    dst = out->ptr + out->len;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (plain(c)) {
            *dst++ = c;
        } else {
            *dst++ = '%';
            *dst++ = (uint8_t)hex[c >> 4];
            *dst++ = (uint8_t)hex[c & 15];
        }
    }
    out->len += bytes;
    return BNS_OK;
}

/* 0..15, or -1. */
static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int bns_grpc_percent_decode(struct bns_buf *out, struct bns_slice text)
{
    int rv = bns_buf_reserve(out, text.len);
    uint8_t *dst;

    if (rv != BNS_OK || text.len == 0)
        return rv;
    dst = out->ptr + out->len;
    for (size_t i = 0; i < text.len; i++) {
        bool two = text.ptr[i] == '%' && text.len - i > 2;
        if (two && hex_value(text.ptr[i + 1]) >= 0 && hex_value(text.ptr[i + 2]) >= 0) {
            *dst++ = (uint8_t)(hex_value(text.ptr[i + 1]) * 16 + hex_value(text.ptr[i + 2]));
            i += 2;
        } else {
            *dst++ = text.ptr[i];
        }
    }
    out->len = (size_t)(dst - out->ptr);
    return BNS_OK;
}
