/* lin.h - is a history of concurrent operations linearizable?
 *
 * Each key is an object of its own (linearizability is local), checked by a depth-first search for
 * an order of its operations that respects real time and the sequential model. Where answers tell
 * the revision of the store, the order is known and nothing has to be searched (lin_revision.c).
 *
 * Thread:  any; no state outside the call. Memory: from the allocator given, all back at the end.
 * Errors:  BNS_E_CONFLICT not linearizable (the result says where), BNS_E_TOOBIG the budget of
 *          visited configurations ran out (nothing is known), BNS_E_NOMEM, BNS_E_INVALID (ret
 *          before call).
 */
#ifndef BNS_SIM_LIN_H
#define BNS_SIM_LIN_H

#include "base/alloc.h"
#include "base/err.h"

#define BNS_LIN_OPEN UINT64_MAX /* never returned, or returned without saying what happened */
#define BNS_LIN_NIL UINT64_C(0) /* the value of a key that is not there */

enum bns_lin_f { BNS_LIN_GET, BNS_LIN_PUT, BNS_LIN_CAS, BNS_LIN_DELETE };

struct bns_lin_op {
    uint64_t call; /* positions in the history: all different */
    uint64_t ret;  /* BNS_LIN_OPEN: it may take effect at any later time, or never */
    uint64_t key;
    enum bns_lin_f f;
    uint64_t
        value; /* get: what it saw; put and cas: what it writes. Ids; equal ids, equal values */
    uint64_t expect; /* cas: the value compared with (or the revision, when `by_rev`) */
    uint64_t rev;    /* revision: get: of the last change, put/cas/delete: its own; 0 = not told */
    bool by_rev;     /* cas compares the revision */
    bool failed;     /* cas or delete returned that it changed nothing: it did not match */
    /* What else the answer told. */
    uint64_t at;    /* revision of the store, where nothing was changed; 0 = not told */
    bool was_known; /* put, cas, delete: the answer shows what was there: */
    uint64_t was_value, was_rev; /* (rev 0: not told) before the change, or why there was none */
};

struct bns_lin_state { /* of one key */
    uint64_t value;
    uint64_t rev; /* of the last change; or a lower bound of it, not reached */
    uint64_t rev_known;
};

struct bns_lin_model {
    struct bns_lin_state first;
    /* Can op happen in state *s, with the result it had (any result when it is open)? If so, *s
     * becomes the state after it. */
    bool (*step)(struct bns_lin_state *s, const struct bns_lin_op *op);
};

extern const struct bns_lin_model bns_lin_register; /* values; revisions are not looked at */
extern const struct bns_lin_model bns_lin_kv;       /* values and revisions, as etcd gives them */

struct bns_lin_result {
    uint64_t key;
    size_t op;        /* index of an operation that fits nowhere behind the longest good prefix */
    size_t prefix;    /* how many operations of the key that prefix has */
    uint64_t visited; /* configurations, of all keys */
    uint64_t rev;     /* bns_lin_by_revision: where it is wrong, and how */
    const char *why;
};

/* A change that somebody saw (a watch did, say). */
struct bns_lin_fact {
    uint64_t key, rev;
    uint64_t value;  /* BNS_LIN_NIL: deleted */
    uint64_t before; /* it was seen before this position; BNS_LIN_OPEN: nobody knows when */
};
struct bns_lin_facts {
    const struct bns_lin_fact *list;
    size_t count;
};
#define BNS_LIN_NO_OP SIZE_MAX /* res->op: no operation is to blame, but a fact */

/* visited_max: budget for all keys together; 0 = 1 million. ops may be in any order. res may be
 * NULL. */
BNS_MUST_CHECK int bns_lin_check(const struct bns_alloc *alloc, const struct bns_lin_model *m,
                                 const struct bns_lin_op *ops, size_t count, uint64_t visited_max,
                                 struct bns_lin_result *res);

/* What a store-wide revision adds to single keys: no two successful changes have the same one, and
 * it never goes back in real time (an operation called after another returned has no smaller one).
 * Operations with rev 0 or open are left out; gets, whose rev is that of a change, are held only
 * against later changes. Same errors. */
BNS_MUST_CHECK int bns_lin_revisions(const struct bns_alloc *alloc, const struct bns_lin_op *ops,
                                     size_t count, struct bns_lin_result *res);

/* Decides by revisions, without a search, every key whose answers all tell where they stand: `rev`
 * of changes, `at` of the others. Time: n log n. What was changed at a revision must have been
 * written once, each answer must show what its revision holds, revisions must follow real time over
 * all keys. On BNS_OK the operations of keys that are not decided (an answer tells too little, or
 * one value has several writers) stand in ops[0 .. *left), to be searched. BNS_E_CONFLICT as above:
 * then ops are as they were. facts may be NULL; no two of a key have the same revision. */
BNS_MUST_CHECK int bns_lin_by_revision(const struct bns_alloc *alloc, struct bns_lin_op *ops,
                                       size_t count, const struct bns_lin_facts *facts,
                                       size_t *left, struct bns_lin_result *res);

#endif
