/* fuzz_frame.c - any bytes as frames and as HELLO, whole and cut in two: the same frames. The
 * checksum is repaired first, else nearly every input would end there. */
#include "base/crc32c.h"
#include "base/varint.h"
#include "codec/frame.h"
#include "fuzz.h"

static int feed(struct bns_frame_reader *r, struct bns_slice in, uint32_t *crc)
{
    struct bns_frame f;
    struct bns_hello h;
    int rv;

    while ((rv = bns_frame_next(r, &in, &f)) == BNS_OK) {
        BNS_ASSERT(f.payload.len <= 65536);
        *crc = bns_crc32c(*crc ^ f.kind, f.payload.ptr, f.payload.len) + f.aux;
        if (bns_hello_decode(f.payload, &h, NULL) == BNS_OK)
            BNS_ASSERT(h.ver_min <= BNS_FRAME_VERSION);
    }
    BNS_ASSERT(rv != BNS_E_AGAIN || in.len == 0);
    return rv;
}

static int run(struct bns_slice in, size_t cut, uint32_t *crc)
{
    struct bns_frame_reader r;
    int rv;

    bns_frame_reader_init(&r, bns_alloc_libc(), 65536);
    rv = feed(&r, bns_slice(in.ptr, cut), crc);
    if (rv == BNS_E_AGAIN)
        rv = feed(&r, bns_slice_skip(in, cut), crc);
    bns_frame_reader_free(&r);
    return rv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_buf b;
    struct bns_slice in;
    uint32_t x = 0, y = 0;

    if (size == 0)
        return 0;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    BNS_ASSERT(bns_buf_add(&b, data + 1, size - 1) == BNS_OK);
    for (size_t at = 0; b.len - at >= BNS_FRAME_HEAD_BYTES;) {
        size_t n = (size_t)bns_get_u32le(b.ptr + at) + 4;
        if (n < BNS_FRAME_HEAD_BYTES || n > b.len - at)
            break;
        bns_put_u32le(b.ptr + at + 4, bns_crc32c(0, b.ptr + at + 8, n - 8));
        at += n;
    }
    in = bns_buf_slice(&b);
    BNS_ASSERT(run(in, in.len, &x) == run(in, data[0] % (in.len + 1), &y));
    BNS_ASSERT(x == y);
    bns_buf_free(&b);
    return 0;
}
