/* lease_kv.h - leases as a part of the replicated store, as the server sees them.
 *
 * Thread: the loop, as kv.h.
 */
#ifndef ETCD_LEASE_KV_H
#define ETCD_LEASE_KV_H

#include "kv.h"
#include "lease.h"

/* The text of LeaseGrant's and LeaseRevoke's errors, for checks before a proposal. */
#define ETCD_TEXT_LEASE_TTL "etcdserver: too large lease TTL"

/* The planted bug: a follower runs the clock too, from its own election on, and proposes. */
#define ETCD_MUTANT_FOLLOWER_CLOCK 25
/* ... a follower answers a renewal by itself: no clock hears of it. */
#define ETCD_MUTANT_RENEWED_HERE 136

/* How the clock of a leader acts. Both set once, before the first entry is applied. */
struct etcd_lease_hooks {
    uint64_t extend_ns; /* a new leader's gift on top of the TTL: the election timeout */
    /* Proposes entry (borrowed). A failure is made good by the next try. Never inside
     * etcd_kv_lease_* nor apply. */
    int (*propose)(void *arg, struct bns_rcbuf *entry);
    void *arg;
    bool no_checkpoints; /* a new leader gives full TTLs again */
};
void etcd_kv_leases_on(struct etcd_kv *kv, const struct etcd_lease_hooks *hooks);

/* TTLs below this are raised to it: ceil(1.5 x election timeout), computed in whole ticks as etcd
 * does. Seconds. */
int64_t etcd_lease_ttl_min(uint64_t election_ms, uint64_t heartbeat_ms);

size_t etcd_kv_leases(const struct etcd_kv *kv);
bool etcd_kv_lease_exists(const struct etcd_kv *kv, int64_t id);
/* The clock runs here: this member leads, as far as it knows. */
bool etcd_kv_lease_primary(const struct etcd_kv *kv);
/* Another member may lead soon: what is left of the leases goes into the log, as many as fit a few
 * entries. Nothing happens where the clock does not run. Calls propose. */
void etcd_kv_lease_hand_over(struct etcd_kv *kv);
/* The caller has had this member's leadership confirmed since the request arrived. BNS_OK: *ttl
 * seconds from now on. BNS_E_NOTFOUND. BNS_E_NOTLEADER. BNS_E_AGAIN: it is being revoked, or
 * its checkpoint has to be taken back before: w->fn will tell (it is set; etcd_lessor_unwait(w) to
 * give up). */
BNS_MUST_CHECK int etcd_kv_lease_renew(struct etcd_kv *kv, int64_t id, struct etcd_lease_wait *w,
                                       int64_t *ttl);
/* TimeToLive. The keys of a lease are looked at in turns of the loop when they are many, and are
 * those of one revision: applies wait meanwhile, and this waits for an entry that is open. */
struct etcd_lease_look {
    int64_t id;
    bool keys;
    struct bns_buf *out; /* gets LeaseTimeToLiveResponse without its header */
    /* Once, perhaps inside etcd_kv_lease_look(): BNS_OK, BNS_E_NOTFOUND, NOTLEADER, NOMEM, TOOBIG.
     */
    void (*fn)(struct etcd_lease_look *l, int code);
    struct bns_list node; /* the rest is the store's */
    const struct etcd_lease_key *at;
    bool begun;
};
void etcd_kv_lease_look(struct etcd_kv *kv, struct etcd_lease_look *l);
void etcd_kv_lease_unlook(struct etcd_kv *kv, struct etcd_lease_look *l); /* fn will not run */
/* Appends LeaseLeasesResponse without its header: first the lease that ends first where the clock
 * runs, else by id. BNS_E_NOMEM, TOOBIG. */
BNS_MUST_CHECK int etcd_kv_lease_list(struct etcd_kv *kv, struct bns_buf *out);
/* Equal on all members that applied the same entries: ids, TTLs, keys. For tests and checks. */
uint64_t etcd_kv_lease_digest(const struct etcd_kv *kv);

#endif
