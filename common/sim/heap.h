/* heap.h - the test heap: counts, fails the n-th allocation, is freed whole.
 *
 * Two uses. A sweep makes one a run, with fail_at = 1, 2, 3 ... until a run gets through: every
 * out-of-memory path has then run, and close() tells what leaked. The simulator gives one to each
 * node: a node that loses power is forgotten by bns_test_heap_free_all().
 *
 * Thread:  one. Memory: from libc; every block is filled with 0xa5, so that a read of memory never
 *          written is the same in every run.
 * Errors:  releasing a pointer that is not a live block of this heap asserts.
 */
#ifndef BNS_SIM_HEAP_H
#define BNS_SIM_HEAP_H

#include "base/alloc.h"
#include "base/err.h"

struct bns_test_heap;

/* fail_at > 0: that allocation (1 = the first) fails, once; < 0: that one and all after it; 0:
 * none. NULL only when libc has no memory. */
struct bns_test_heap *bns_test_heap(int fail_at);

/* Releases everything; returns the bytes that were still in use. `fired` (may be NULL): whether the
 * planned failure happened. NULL is fine. */
size_t bns_test_heap_close(struct bns_test_heap *h, bool *fired);

const struct bns_alloc *bns_test_heap_alloc(struct bns_test_heap *h);
void bns_test_heap_free_all(struct bns_test_heap *h); /* every live block; h stays usable */
void bns_test_heap_fail_at(struct bns_test_heap *h, int fail_at); /* counted from now on */
void bns_test_heap_limit(struct bns_test_heap *h,
                         size_t bytes_max);                  /* more in use: NULL; 0 = none */
size_t bns_test_heap_in_use(const struct bns_test_heap *h);  /* bytes */
size_t bns_test_heap_peak(const struct bns_test_heap *h);    /* bytes */
size_t bns_test_heap_blocks(const struct bns_test_heap *h);  /* live blocks */
uint64_t bns_test_heap_calls(const struct bns_test_heap *h); /* allocations asked for */

#endif
