/* check_append_int.h - what check_append.c found out, for check_append_cycle.c to look for cycles.
 * */
#ifndef BNS_SIM_CHECK_APPEND_INT_H
#define BNS_SIM_CHECK_APPEND_INT_H

#include "sim/check_append.h"

struct append_elem { /* one append of one transaction */
    uint64_t key, value;
    uint32_t txn, op;
    uint32_t pos;  /* 1-based position in the version order; 0: no read shows it */
    uint32_t mark; /* scratch: the last read in which it was seen */
};

struct append_list { /* one key */
    uint64_t key;
    size_t elems_first, elems_count;     /* its elements: a range of elems */
    const struct bns_append_op *longest; /* read; NULL: nobody read it */
    uint32_t longest_txn;
    uint32_t last_txn;  /* the read that began last */
    uint64_t last_call; /* of that */
    size_t order_first; /* its version order: order[order_first ..) */
    size_t order_count;
};

struct append_check {
    const struct bns_check_cfg *cfg;
    const struct bns_append_txn *txns;
    uint32_t txns_count;
    struct bns_verdict *v;
    struct append_elem *elems; /* by key, value */
    size_t elems_count;
    struct append_list *lists; /* by key */
    size_t lists_count;
    uint32_t *order; /* numbers of elements */
    uint32_t reads_seen;
};

/* The element, or list; NULL when there is none. */
struct append_elem *append_elem_of(const struct append_check *c, uint64_t key, uint64_t value);
struct append_list *append_list_of(const struct append_check *c, uint64_t key);

/* How many elements a read saw that the transaction did not append itself before. */
size_t append_read_foreign(const struct bns_append_txn *t, uint32_t op);
/* Did it take effect: ok, or unknown and one of its elements was read? */
bool append_committed(const struct append_check *c, uint32_t txn);

BNS_MUST_CHECK int append_check_cycles(struct append_check *c);

#endif
