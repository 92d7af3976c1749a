/* check_lock.h - locks have one holder, leases live as long as they were promised.
 *
 * Times are of one clock that all clients share (virtual time; one machine). A server that answered
 * a grant or a keepalive did so no earlier than it was asked, so the lease lives at least until the
 * time it was asked plus the time to live: that is a lease's bound. A server's clock may run faster
 * by cfg->drift_ppm.
 *
 * Leases:
 *     early              seen gone before its bound, and nobody had asked to revoke it
 *     came-back          alive after it was seen gone, or after it was revoked
 *     late               seen alive cfg->slack_ns after it had to be gone
 *     ttl-above-granted  more time left than was granted
 * Locks. A holder holds from the end of its acquire to the begin of its release, of the revocation
 * of its lease, or to the bound of its lease, whichever is first:
 *     two-holders        two holders of a lock at one time
 *     same-token         two acquires of a lock got the same fencing token
 *     token-went-back    an acquire that began later got a smaller one
 *     stale-holder       a resource took a token older than one it had taken before
 * An acquire with an unknown outcome holds nothing; a release or a revocation with an unknown
 * outcome ends a hold: neither is ever a reason for an anomaly.
 *
 * Bounds: BNS_LOCK_OPS_MAX operations of each. Time: operations x log operations,
 * and operations of one lock or lease squared at worst.
 */
#ifndef BNS_SIM_CHECK_LOCK_H
#define BNS_SIM_CHECK_LOCK_H

#include "sim/check.h"

#define BNS_LOCK_OPS_MAX 1000000u

enum bns_lease_kind {
    BNS_LEASE_GRANT,
    BNS_LEASE_KEEPALIVE,
    BNS_LEASE_REVOKE,
    BNS_LEASE_LOOK /* time to live; or: is a key that hangs on it there? */
};

struct bns_lease_op {
    uint64_t call, ret; /* positions; ret: BNS_CHECK_OPEN unless it ended ok */
    uint64_t call_ns, ret_ns;
    enum bns_check_end end;
    enum bns_lease_kind kind;
    uint64_t lease;  /* granted once in a history */
    bool gone;       /* ok: keepalive, look: there is no such lease */
    uint64_t ttl_ns; /* ok: granted; of keepalive; left (look; UINT64_MAX: not told) */
};

enum bns_lock_kind { BNS_LOCK_ACQUIRE, BNS_LOCK_RELEASE, BNS_LOCK_USE };

struct bns_lock_op {
    uint64_t call, ret;
    uint64_t call_ns, ret_ns;
    enum bns_check_end end;
    enum bns_lock_kind kind;
    uint64_t lock;   /* use: the resource */
    int64_t process; /* that holds it */
    uint64_t token;  /* acquire, use: fencing token; 0: not told */
    uint64_t lease;  /* acquire: that it hangs on; 0: none, only a release ends it */
};

BNS_MUST_CHECK int bns_check_lease(const struct bns_check_cfg *cfg, const struct bns_lease_op *ops,
                                   size_t count, struct bns_verdict *v);
BNS_MUST_CHECK int bns_check_lock(const struct bns_check_cfg *cfg, const struct bns_lock_op *ops,
                                  size_t count, const struct bns_lease_op *leases,
                                  size_t leases_count, struct bns_verdict *v);

#endif
