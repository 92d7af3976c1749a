/* lin.h - is a history of concurrent operations linearizable?
 *
 * Each key is an object of its own (linearizability is local), checked by a depth-first search for
 * an order of its operations that respects real time and the sequential model.
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
};

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

#endif
