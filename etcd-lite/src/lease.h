/* lease.h - the lessor: which leases exist, which keys hang on each, and when each is due.
 *
 * A plain data structure; time is an argument. The replicated part (id, ttl, keys) is changed by
 * applied entries and is the same on every member. The clock part (due times) exists on the leader
 * alone: etcd_lessor_promote() starts it, etcd_lessor_demote() ends it.
 *
 * Thread: the loop. Time: nanoseconds of the env's monotonic clock. TTLs: seconds.
 * Memory: about 130 bytes a lease, 64 a key on a lease; key bytes are borrowed from the key index.
 * Errors: BNS_E_NOMEM from grant and attach, which then changed nothing.
 */
#ifndef ETCD_LEASE_H
#define ETCD_LEASE_H

#include "base/env.h"
#include "base/hmap.h"

#define ETCD_LEASE_TTL_MAX INT64_C(9000000000) /* seconds, as in etcd */

struct etcd_lease {
    struct bns_hnode node;
    struct bns_heap_node due; /* key: when the lease expires; BNS_NEVER without a clock */
    int64_t id;
    uint64_t index;        /* Raft's, of the entry that granted it */
    int64_t ttl;           /* granted; 0 = only named by a key's row so far (while loading) */
    struct bns_list keys;  /* struct etcd_lease_key */
    struct bns_list waits; /* struct etcd_lease_wait */
    size_t keys_count;
    bool revoking; /* expired, the revocation is proposed: it cannot be renewed any more */
    bool proposed; /* ... and was taken at least once in this term */
};

/* Someone who waits for the end of a lease that is being revoked. */
struct etcd_lease_wait {
    struct bns_list node;
    /* Once: BNS_E_NOTFOUND = revoked, BNS_E_NOTLEADER = this member's clock was stopped first. */
    void (*fn)(struct etcd_lease_wait *w, int code);
};

struct etcd_lessor {
    const struct bns_alloc *alloc;
    uint64_t seed;
    struct bns_hmap leases; /* struct etcd_lease, by id */
    struct bns_hmap keys;   /* struct etcd_lease_key, by key */
    struct bns_heap due;    /* every lease */
    bool primary;           /* the clock runs here */
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
void etcd_lessor_demote(struct etcd_lessor *l); /* no lease is due; waits are told NOTLEADER */
/* The full TTL from now on. False: it is being revoked. Only while primary. */
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
/* Whole seconds left, rounded down, not below 0. */
int64_t etcd_lease_remaining(const struct etcd_lease *e, uint64_t now_ns);

#endif
