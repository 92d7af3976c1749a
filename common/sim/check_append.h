/* check_append.h - are transactions over lists strictly serializable? After Elle (VLDB 2020).
 *
 * A transaction appends to lists and reads whole lists; every element is appended once. So a read
 * tells the order of all writes before it, and from the longest reads follow the dependencies of
 * transactions: a cycle of them is a proof that no serial order exists.
 *
 * Anomalies, in the order in which they are looked for:
 *     internal            a transaction does not see its own appends or its own earlier read
 *     duplicate-elements  one read has an element twice
 *     phantom             a read has an element that nobody appended
 *     G1a                 a read has an element of a transaction that failed
 *     incompatible-order  two reads of a list, neither a prefix of the other; or the appends of one
 *                         transaction in another order
 *     G1b                 a read between two appends of one other transaction
 *     lost-append         acknowledged, and missing in a read that began later
 *     G0                  a cycle of writes (ww)
 *     G1c                 of writes and reads of them (ww, wr)
 *     G-single            with exactly one read that missed a write (rw): a lost update, read skew
 *     G2                  with more of them: write skew
 *     ...-realtime        the same, where "ended before the other began" closes the cycle
 *
 * Bounds: BNS_APPEND_TXNS_MAX transactions, BNS_APPEND_EDGES_MAX dependencies. Time: about
 * transactions x log + elements read + edges, and for G-single one search a rw edge of a cycle.
 */
#ifndef BNS_SIM_CHECK_APPEND_H
#define BNS_SIM_CHECK_APPEND_H

#include "sim/check.h"

#define BNS_APPEND_TXNS_MAX 1000000u
#define BNS_APPEND_EDGES_MAX 8000000u
#define BNS_APPEND_OPS_MAX 128u /* in one transaction */

struct bns_append_op {
    bool append;
    uint64_t key;
    uint64_t value;       /* append */
    const uint64_t *list; /* read: what it saw; borrowed; NULL is empty */
    size_t list_count;
};

struct bns_append_txn {
    uint64_t call, ret; /* ret: BNS_CHECK_OPEN unless it ended ok */
    int64_t process;
    enum bns_check_end end; /* the reads of others than BNS_CHECK_OK are not looked at */
    const struct bns_append_op *ops;
    size_t ops_count;
};

/* txns may be in any order. */
BNS_MUST_CHECK int bns_check_append(const struct bns_check_cfg *cfg,
                                    const struct bns_append_txn *txns, size_t count,
                                    struct bns_verdict *v);

#endif
