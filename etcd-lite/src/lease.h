/* lease.h - the lessor: which leases exist, which keys hang on each, and when each is due.
 *
 * A plain data structure; time is an argument. The replicated part (id, ttl, keys) is changed by
 * applied entries and is the same on every member. The clock part (due times) exists on the leader
 * alone: etcd_lessor_promote() starts it, etcd_lessor_demote() ends it.
 *
 * Thread: the loop. Time: nanoseconds of the env's monotonic clock. TTLs: seconds.
 * Memory: about 200 bytes a lease, 64 a key on a lease; key bytes are borrowed from the key index.
 * Errors: BNS_E_NOMEM from grant and attach, which then changed nothing.
 */
#ifndef ETCD_LEASE_H
#define ETCD_LEASE_H

#include "base/env.h"
#include "base/hmap.h"

#define ETCD_LEASE_TTL_MAX INT64_C(9000000000) /* seconds, as in etcd */
#define ETCD_LEASE_MARK_MIN 10                 /* seconds: shorter TTLs have no checkpoints */
#define ETCD_LEASE_MARK_STEP 60                /* seconds: between two of a lease, at most */

/* Planted bugs (BNS_MUTANT). */
#define ETCD_MUTANT_MARK_LONG 62  /* a checkpoint says the TTL, not what is left of it */
#define ETCD_MUTANT_MARK_SHORT 63 /* a renewal is answered though the checkpoint still stands */
#define ETCD_MUTANT_INHERITED 137 /* a new leader's clock does not run for the leases it finds */
#define ETCD_MUTANT_MARK_EARLY 64 /* a new leader trusts a checkpoint before it has applied all */

struct etcd_lease {
    struct bns_hnode node;
    struct bns_heap_node due;  /* key: when the lease expires; BNS_NEVER without a clock */
    struct bns_heap_node mark; /* key: not before this a checkpoint is due; likewise */
    int64_t id;
    uint64_t index;              /* Raft's, of the entry that granted it */
    int64_t ttl;                 /* granted; 0 = only named by a key's row so far (while loading) */
    struct etcd_lease_key *keys; /* in order (lease_keys.h) */
    struct bns_list waits;       /* struct etcd_lease_wait */
    size_t keys_count;
    int64_t saved;     /* seconds: the checkpoint that the log holds; 0 = none */
    int64_t last;      /* ... and with what this leader has proposed; 0: none, so the TTL counts */
    bool clearing;     /* a renewal waits until it is taken back */
    uint64_t clear_ns; /* ... which was asked for then */
    uint32_t clears_out;   /* ... and proposed in this term, but not applied: nothing new is said */
    struct bns_list clear; /* lessor.clears: to be proposed */
    bool revoking;         /* expired, the revocation is proposed: it cannot be renewed any more */
    bool proposed;         /* ... and was taken at least once in this term */
};

/* Someone who waits for the end of a lease that is being revoked, or of its checkpoint. */
struct etcd_lease_wait {
    struct bns_list node;
    /* Once: BNS_E_NOTFOUND = revoked, BNS_E_NOTLEADER = this member's clock was stopped first,
     * BNS_OK = no checkpoint is in the way any more: ask again. */
    void (*fn)(struct etcd_lease_wait *w, int code);
};

struct etcd_lessor {
    const struct bns_alloc *alloc;
    uint64_t seed;
    struct bns_hmap leases; /* struct etcd_lease, by id */
    struct bns_hmap keys;   /* struct etcd_lease_key, by key */
    struct bns_heap due;    /* every lease */
    struct bns_heap marks;  /* every lease */
    struct bns_list clears; /* struct etcd_lease: whose checkpoint is to be taken back */
    size_t saved_count;     /* leases with a checkpoint in the log */
    bool primary;           /* the clock runs here */
    bool marking;           /* ... and checkpoints are written */
    bool settled;           /* all that was committed before this term is applied */
    uint64_t promoted_ns, extend_ns;
    uint32_t mutant; /* planted bug, 0: none */
};

void etcd_lessor_init(struct etcd_lessor *l, const struct bns_alloc *alloc, uint64_t seed);
/* Forgets all leases; waits are told NOTLEADER. Also the end of a lessor. */
void etcd_lessor_clear(struct etcd_lessor *l);

struct etcd_lease *etcd_lessor_find(const struct etcd_lessor *l, int64_t id); /* NULL: none */
/* id is not 0, ttl > 0. BNS_E_EXISTS. A lease known from its keys only becomes a granted one. */
BNS_MUST_CHECK int etcd_lessor_grant(struct etcd_lessor *l, int64_t id, int64_t ttl, uint64_t index,
                                     uint64_t now_ns);
/* The lease has no key any more. Its waits are told NOTFOUND. */
void etcd_lessor_revoke(struct etcd_lessor *l, struct etcd_lease *e);

/* Hangs key on the lease, off another one when it hung there. The bytes stay where they are while
 * it hangs. A lease that is not there comes to be without a TTL: see etcd_lessor_settled(). */
BNS_MUST_CHECK int etcd_lessor_attach(struct etcd_lessor *l, int64_t id, struct bns_slice key);
void etcd_lessor_detach(struct etcd_lessor *l, struct bns_slice key); /* no-op when on no lease */
int64_t etcd_lessor_of(const struct etcd_lessor *l, struct bns_slice key); /* 0: none */
/* After loading: every key hangs on a lease that was granted. */
bool etcd_lessor_settled(const struct etcd_lessor *l);
/* The lease's keys in ascending order, n = keys_count of them. */
void etcd_lease_keys(const struct etcd_lease *e, struct bns_slice *out);

/* Every lease gets its full TTL and extend_ns from now on; when very many would then end at once
 * they are spread, later, never earlier. */
void etcd_lessor_promote(struct etcd_lessor *l, uint64_t now_ns, uint64_t extend_ns);
/* An entry of the new leader's own term is applied: leases with a checkpoint get what is left and
 * extend_ns, from the promotion on, instead. */
void etcd_lessor_settle(struct etcd_lessor *l);
void etcd_lessor_demote(struct etcd_lessor *l); /* no lease is due; waits are told NOTLEADER */
/* The full TTL from now on. False: it is being revoked, or it has it but may not be told so before
 * its checkpoint is taken back (!e->revoking). Only while primary. */
BNS_MUST_CHECK bool etcd_lessor_renew(struct etcd_lessor *l, struct etcd_lease *e, uint64_t now_ns);
void etcd_lessor_wait(struct etcd_lease *e, struct etcd_lease_wait *w);
void etcd_lessor_unwait(struct etcd_lease_wait *w); /* fn will not run */
/* A lease that is due, now being revoked; comes again after retry_ns if it still is there. NULL:
 * none is due. */
struct etcd_lease *etcd_lessor_expired(struct etcd_lessor *l, uint64_t now_ns, uint64_t retry_ns);
/* Whether the revocation of a lease that expired() gave was taken. What nobody took cannot happen:
 * the lease may be renewed until it is tried again. */
void etcd_lessor_proposed(struct etcd_lease *e, bool taken);
uint64_t etcd_lessor_deadline(const struct etcd_lessor *l); /* of the next one; BNS_NEVER */

/* ---- checkpoints (lease_mark.c) -------------------------------------------------------------- */
/* The next lease that is due for a checkpoint, of *seconds; it counts as proposed. NULL: none. */
struct etcd_lease *etcd_lessor_mark(struct etcd_lessor *l, uint64_t now_ns, int64_t *seconds);
/* To hand over: likewise, any lease after this one (NULL: the first) that has lost a second since
 * its last checkpoint. */
struct etcd_lease *etcd_lessor_mark_next(struct etcd_lessor *l, uint64_t now_ns,
                                         struct etcd_lease *after, int64_t *seconds);
uint64_t etcd_lessor_mark_deadline(const struct etcd_lessor *l); /* BNS_NEVER */
/* What an entry says is left of it: 0 = nothing is said. Waits are told BNS_OK then. */
void etcd_lessor_saved(struct etcd_lessor *l, struct etcd_lease *e, int64_t seconds,
                       uint64_t now_ns);
/* For lease.c: a lease is to be looked at from now on, or no more. */
void etcd_lessor_mark_set(struct etcd_lessor *l, struct etcd_lease *e, uint64_t at_ns);
uint64_t etcd_lease_mark_at(const struct etcd_lease *e); /* by its due time */

/* Whole seconds left, rounded down, not below 0. */
int64_t etcd_lease_remaining(const struct etcd_lease *e, uint64_t now_ns);

#endif
