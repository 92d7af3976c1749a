/* fuzz_http1.c - any bytes, as a request and as a response, whole and cut in two: no crash, and the
 * same events either way. The first byte chooses the cut. */
#include "base/crc32c.h"
#include "codec/http1.h"
#include "fuzz.h"

struct sum {
    uint32_t crc;
    uint32_t heads, ends;
    uint64_t bytes;
    int rv;
};

static void feed(struct bns_http1 *p, struct bns_slice in, struct sum *s)
{
    struct bns_http1_event ev;

    while ((s->rv = bns_http1_next(p, &in, &ev)) == BNS_OK) {
        s->crc = bns_crc32c(s->crc, ev.data.ptr, ev.data.len);
        s->bytes += ev.data.len;
        s->ends += ev.kind == BNS_HTTP1_END;
        if (ev.kind != BNS_HTTP1_HEAD)
            continue;
        s->heads++;
        for (size_t i = 0; i < ev.head->headers_count; i++)
            s->crc =
                bns_crc32c(s->crc, ev.head->headers[i].value.ptr, ev.head->headers[i].value.len);
    }
    BNS_ASSERT(s->rv != BNS_E_AGAIN || in.len == 0);
}

static struct sum run(enum bns_http1_kind kind, struct bns_slice in, size_t cut)
{
    struct sum s = {0};
    struct bns_http1 p;

    bns_http1_init(&p, kind, bns_alloc_libc(), NULL);
    feed(&p, bns_slice(in.ptr, cut), &s);
    if (s.rv == BNS_E_AGAIN)
        feed(&p, bns_slice_skip(in, cut), &s);
    bns_http1_free(&p);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    for (int kind = 0; kind < 2; kind++) {
        struct bns_slice in = bns_slice(data + 1, size - 1);
        struct sum a = run((enum bns_http1_kind)kind, in, in.len);
        struct sum b = run((enum bns_http1_kind)kind, in, data[0] % (in.len + 1));
        BNS_ASSERT(a.rv == b.rv);
        BNS_ASSERT(a.crc == b.crc);
        BNS_ASSERT(a.heads == b.heads);
        BNS_ASSERT(a.ends == b.ends);
        BNS_ASSERT(a.bytes == b.bytes);
    }
    return 0;
}
