/* fuzz_grpc_msg.c - any bytes as gRPC framing, whole and cut in two: the same messages; any text as
 * timeout, status text and base64. The first byte chooses the cut. */
#include "base/crc32c.h"
#include "codec/base64.h"
#include "codec/grpc_msg.h"
#include "fuzz.h"

static int feed(struct bns_grpc_split *s, struct bns_slice in, uint32_t *crc)
{
    struct bns_grpc_msg m;
    int rv;

    while ((rv = bns_grpc_split_next(s, &in, &m)) == BNS_OK) {
        BNS_ASSERT(m.bytes.len <= 4096);
        *crc = bns_crc32c(*crc ^ (m.compressed ? 1 : 0), m.bytes.ptr, m.bytes.len) + 1;
    }
    BNS_ASSERT(rv != BNS_E_AGAIN || in.len == 0);
    return rv;
}

static int run(struct bns_slice in, size_t cut, uint32_t *crc)
{
    struct bns_grpc_split s;
    int rv;

    bns_grpc_split_init(&s, bns_alloc_libc(), 4096);
    rv = feed(&s, bns_slice(in.ptr, cut), crc);
    if (rv == BNS_E_AGAIN)
        rv = feed(&s, bns_slice_skip(in, cut), crc);
    bns_grpc_split_free(&s);
    return rv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_slice in = bns_slice(data, size);
    struct bns_buf a, b;
    uint32_t x = 0, y = 0;
    uint64_t ns;

    if (size == 0)
        return 0;
    in = bns_slice_skip(in, 1);
    BNS_ASSERT(run(in, in.len, &x) == run(in, data[0] % (in.len + 1), &y));
    BNS_ASSERT(x == y);
    if (bns_grpc_timeout_parse(in, &ns) == BNS_OK && ns < UINT64_MAX / 2) {
        char text[BNS_GRPC_TIMEOUT_BYTES];
        uint64_t back;
        bns_grpc_timeout_format(ns, text);
        BNS_ASSERT(bns_grpc_timeout_parse(bns_slice_str(text), &back) == BNS_OK);
        BNS_ASSERT(back >= ns);
    }
    bns_buf_init(&a, bns_alloc_libc(), 1 << 20);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    BNS_ASSERT(bns_grpc_percent_encode(&a, in) == BNS_OK);
    BNS_ASSERT(bns_grpc_percent_decode(&b, bns_buf_slice(&a)) == BNS_OK);
    BNS_ASSERT(bns_slice_eq(bns_buf_slice(&b), in));
    bns_buf_clear(&a);
    if (bns_base64_decode(&a, in) == BNS_OK) {
        bns_buf_clear(&b);
        BNS_ASSERT(bns_base64_encode(&b, bns_buf_slice(&a), false) == BNS_OK);
        BNS_ASSERT(b.len <= in.len);
    }
    bns_buf_free(&a);
    bns_buf_free(&b);
    return 0;
}
