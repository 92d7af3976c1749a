/* fuzz_history.c - any bytes as a history: refused, or read, written, read again the same, paired
 * and checked, without a crash. */
#include "base/alloc.h"
#include "fuzz.h"
#include "sim/history.h"

/* What was written is what is read. */
static void round_trip(struct bns_history *h)
{
    const struct bns_alloc *a = bns_alloc_libc();
    struct bns_history *back = NULL;
    struct bns_buf one;
    struct bns_buf two;

    bns_buf_init(&one, a, 1u << 24);
    bns_buf_init(&two, a, 1u << 24);
    if (bns_history_new(a, &back) == BNS_OK && bns_history_write(h, &one) == BNS_OK) {
        BNS_ASSERT(bns_history_parse(back, bns_buf_slice(&one), NULL) == BNS_OK);
        BNS_ASSERT(bns_history_write(back, &two) == BNS_OK);
        BNS_ASSERT(bns_slice_eq(bns_buf_slice(&one), bns_buf_slice(&two)));
    }
    bns_history_free(back);
    bns_buf_free(&one);
    bns_buf_free(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bns_alloc *a = bns_alloc_libc();
    struct bns_history *h = NULL;
    struct bns_lin_op *ops = NULL;
    size_t count = 0;

    if (size > 65536 || bns_history_new(a, &h) != BNS_OK)
        return 0;
    if (bns_history_parse(h, bns_slice(data, size), NULL) == BNS_OK)
        round_trip(h);
    if (bns_history_ops(h, &ops, &count, NULL) == BNS_OK) {
        struct bns_lin_result res;
        int rv = bns_lin_check(a, &bns_lin_register, ops, count, 2000, &res);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CONFLICT || rv == BNS_E_TOOBIG);
        rv = bns_lin_check(a, &bns_lin_kv, ops, count, 2000, &res);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CONFLICT || rv == BNS_E_TOOBIG);
        rv = bns_lin_revisions(a, ops, count, &res);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CONFLICT);
    }
    bns_free(a, ops);
    bns_history_free(h);
    return 0;
}
