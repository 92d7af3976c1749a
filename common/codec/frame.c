/* frame.c - frames of the internal node-to-node protocol (layout in frame.h).
 *
 * Order of the checks: length first (before a byte is stored), then version and kind as soon as the
 * head is there, then the checksum over head and payload. What fails is final: a byte stream that
 * has lost its place cannot find it again.
 */
#include "codec/frame.h"

#include "base/crc32c.h"
#include "base/varint.h"

#define LEN_MIN (BNS_FRAME_HEAD_BYTES - 4) /* the value of `len` in a frame without payload */
#define PART_KEPT_MAX ((size_t)64 * 1024)

int bns_frame_head(const struct bns_frame *f, const struct bns_slice *v, size_t n,
                   uint8_t dst[BNS_FRAME_HEAD_BYTES])
{
    size_t len = 0;
    uint32_t crc;

    BNS_ASSERT(f->kind <= BNS_FRAME_HELLO);
    for (size_t i = 0; i < n; i++) {
        if (__builtin_add_overflow(len, v[i].len, &len) || len > BNS_FRAME_PAYLOAD_MAX)
            return BNS_E_TOOBIG;
    }
    bns_put_u32le(dst, LEN_MIN + (uint32_t)len);
    dst[8] = BNS_FRAME_VERSION;
    dst[9] = f->kind;
    bns_put_u16le(dst + 10, f->method);
    bns_put_u32le(dst + 12, f->aux);
    bns_put_u64le(dst + 16, f->id);
    crc = bns_crc32c(0, dst + 8, BNS_FRAME_HEAD_BYTES - 8);
    for (size_t i = 0; i < n; i++)
        crc = bns_crc32c(crc, v[i].ptr, v[i].len);
    bns_put_u32le(dst + 4, crc);
    return BNS_OK;
}

int bns_frame_encode(const struct bns_frame *f, struct bns_buf *out)
{
    uint8_t head[BNS_FRAME_HEAD_BYTES];
    int rv = bns_frame_head(f, &f->payload, 1, head);

    if (rv != BNS_OK)
        return rv;
    rv = bns_buf_reserve(out, sizeof head + f->payload.len);
    if (rv != BNS_OK)
        return rv;
    memcpy(out->ptr + out->len, head, sizeof head);
    if (f->payload.len > 0)
        memcpy(out->ptr + out->len + sizeof head, f->payload.ptr, f->payload.len);
    out->len += sizeof head + f->payload.len;
    return BNS_OK;
}

void bns_frame_reader_init(struct bns_frame_reader *r, const struct bns_alloc *alloc,
                           uint32_t payload_max)
{
    *r = (struct bns_frame_reader){0};
    bns_buf_init(&r->part, alloc, 0);
    bns_frame_reader_limit(r, payload_max);
}

void bns_frame_reader_limit(struct bns_frame_reader *r, uint32_t payload_max)
{
    BNS_ASSERT(payload_max <= BNS_FRAME_PAYLOAD_MAX);
    r->payload_max = payload_max;
    r->part.max = (size_t)BNS_FRAME_HEAD_BYTES + payload_max;
}

void bns_frame_reader_free(struct bns_frame_reader *r)
{
    bns_buf_free(&r->part);
}

/* What the first bytes of a frame tell. BNS_E_AGAIN when they do not tell its length yet. */
static int check(const struct bns_frame_reader *r, struct bns_slice s, size_t *total)
{
    uint32_t len;

    if (s.len < 4)
        return BNS_E_AGAIN;
    len = bns_get_u32le(s.ptr);
    if (len < LEN_MIN)
        return BNS_E_PROTO;
    if (len - LEN_MIN > r->payload_max)
        return BNS_E_TOOBIG;
    if (s.len > 8 && s.ptr[8] != BNS_FRAME_VERSION)
        return BNS_E_PROTO;
    if (s.len > 9 && s.ptr[9] > BNS_FRAME_HELLO)
        return BNS_E_PROTO;
    *total = (size_t)len + 4;
    return BNS_OK;
}

static int parse(struct bns_slice s, struct bns_frame *out)
{
    if (bns_crc32c(0, s.ptr + 8, s.len - 8) != bns_get_u32le(s.ptr + 4))
        return BNS_E_CORRUPT;
    out->kind = s.ptr[9];
    out->method = bns_get_u16le(s.ptr + 10);
    out->aux = bns_get_u32le(s.ptr + 12);
    out->id = bns_get_u64le(s.ptr + 16);
    out->payload = bns_slice_skip(s, BNS_FRAME_HEAD_BYTES);
    return BNS_OK;
}

/* Moves up to n bytes from *in behind what is collected. */
static int gather(struct bns_frame_reader *r, struct bns_slice *in, size_t n)
{
    int rv;

    if (n > in->len)
        n = in->len;
    rv = bns_buf_add(&r->part, in->ptr, n);
    if (rv == BNS_OK)
        *in = bns_slice_skip(*in, n);
    return rv;
}

/* The frame that began in an earlier input. */
static int next_in_parts(struct bns_frame_reader *r, struct bns_slice *in, struct bns_frame *out)
{
    size_t total = 0;
    int rv;

    for (;;) {
        rv = check(r, bns_buf_slice(&r->part), &total);
        if (rv != BNS_OK && rv != BNS_E_AGAIN)
            return rv;
        if (rv == BNS_OK && r->part.len == total)
            break;
        if (in->len == 0)
            return BNS_E_AGAIN;
        /* First the head, so that it is checked before room for the payload is made. */
        if (r->part.len < 4)
            rv = gather(r, in, 4 - r->part.len);
        else if (r->part.len < BNS_FRAME_HEAD_BYTES)
            rv = gather(r, in, BNS_FRAME_HEAD_BYTES - r->part.len);
        else
            rv = gather(r, in, total - r->part.len);
        if (rv != BNS_OK)
            return rv;
    }
    r->taken = true;
    return parse(bns_buf_slice(&r->part), out);
}

int bns_frame_next(struct bns_frame_reader *r, struct bns_slice *in, struct bns_frame *out)
{
    size_t total = 0;
    int rv;

    if (r->failed != BNS_OK)
        return r->failed;
    if (r->taken) {
        r->taken = false;
        bns_buf_clear(&r->part);
        if (r->part.cap > PART_KEPT_MAX)
            bns_buf_free(&r->part);
    }
    if (r->part.len == 0) {
        rv = check(r, *in, &total);
        if (rv == BNS_OK && in->len >= total) {
            rv = parse((struct bns_slice){in->ptr, total}, out);
            *in = bns_slice_skip(*in, total);
            goto done;
        }
        if (rv != BNS_OK && rv != BNS_E_AGAIN)
            goto done;
        if (in->len == 0)
            return BNS_E_AGAIN;
    }
    rv = next_in_parts(r, in, out);

done:
    if (rv != BNS_OK && rv != BNS_E_AGAIN) {
        r->failed = rv;
        bns_buf_free(&r->part);
    }
    return rv;
}

void bns_hello_encode(const struct bns_hello *h, uint8_t dst[BNS_HELLO_BYTES])
{
    memcpy(dst, "BNSR", 4);
    dst[4] = h->ver_min;
    dst[5] = h->ver_max;
    bns_put_u16le(dst + 6, 0);
    memcpy(dst + 8, h->cluster_id, 16);
    bns_put_u64le(dst + 24, h->node_id);
    bns_put_u64le(dst + 32, h->incarnation);
    bns_put_u64le(dst + 40, h->features);
}

int bns_hello_decode(struct bns_slice in, struct bns_hello *out, struct bns_err *err)
{
    if (in.len < BNS_HELLO_BYTES)
        return bns_err_set(err, BNS_E_PROTO, "hello: %zu bytes, at least %u expected", in.len,
                           BNS_HELLO_BYTES);
    if (memcmp(in.ptr, "BNSR", 4) != 0)
        return bns_err_set(err, BNS_E_PROTO, "hello: wrong magic: the peer is not a bonsai node");
    if (in.ptr[4] > BNS_FRAME_VERSION || in.ptr[5] < BNS_FRAME_VERSION)
        return bns_err_set(err, BNS_E_PROTO,
                           "hello: the peer speaks versions %u to %u, this node speaks %d",
                           in.ptr[4], in.ptr[5], BNS_FRAME_VERSION);
    out->ver_min = in.ptr[4];
    out->ver_max = in.ptr[5];
    memcpy(out->cluster_id, in.ptr + 8, 16);
    out->node_id = bns_get_u64le(in.ptr + 24);
    out->incarnation = bns_get_u64le(in.ptr + 32);
    out->features = bns_get_u64le(in.ptr + 40);
    return BNS_OK;
}
