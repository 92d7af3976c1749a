/* fuzz_trace.c - any bytes as a trace file: refused, or written and read again the same. */
#include "base/alloc.h"
#include "fuzz.h"
#include "sim/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bns_alloc *a = bns_alloc_libc();
    struct bns_trace *t = NULL;
    struct bns_trace *back = NULL;
    struct bns_buf one;
    struct bns_buf two;

    if (size > 65536 || bns_trace_parse(a, bns_slice(data, size), &t, NULL) != BNS_OK)
        return 0;
    bns_buf_init(&one, a, 1u << 24);
    bns_buf_init(&two, a, 1u << 24);
    if (bns_trace_write(t, &one) == BNS_OK) {
        BNS_ASSERT(bns_trace_parse(a, bns_buf_slice(&one), &back, NULL) == BNS_OK);
        BNS_ASSERT(bns_trace_write(back, &two) == BNS_OK);
        BNS_ASSERT(bns_slice_eq(bns_buf_slice(&one), bns_buf_slice(&two)));
    }
    bns_buf_free(&one);
    bns_buf_free(&two);
    bns_trace_free(t);
    bns_trace_free(back);
    return 0;
}
