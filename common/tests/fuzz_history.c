/* fuzz_history.c - any bytes as a history: refused, or read, written, read again the same, paired
 * and given to the checker of every kind, without a crash. */
#include "base/alloc.h"
#include "fuzz.h"
#include "sim/check.h"

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

static void every_checker(struct bns_history *h)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};

    for (size_t i = 0; bns_check_kinds[i] != NULL; i++) {
        struct bns_verdict v;
        int rv;

        if (strcmp(bns_check_kinds[i], "register") == 0)
            continue; /* below, with a smaller budget */
        rv = bns_check_history(h, bns_check_kinds[i], &cfg, &v);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CONFLICT || rv == BNS_E_INVALID ||
                   rv == BNS_E_TOOBIG);
        BNS_ASSERT((rv == BNS_E_CONFLICT) == (v.anomaly != NULL));
        BNS_ASSERT(strlen(v.text) == v.text_len);
    }
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
    every_checker(h);
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
