/* lease.h - a lease that is kept alive, and whose loss is told in time.
 *
 * The server promises a lease its TTL from the moment at which it takes the grant or a keepalive;
 * so it surely lives until TTL after the moment at which that was *sent*. That moment is what is
 * reckoned with here: when it comes without a newer keepalive acknowledged, the lease counts as
 * lost, and whoever relies on it must stop, even though the server may hold it a little longer.
 * A keepalive goes out every third of the TTL; one that is not answered for as long goes to
 * another endpoint.
 *
 * Thread: the env's loop. A lease may be closed in any of its callbacks, the client not freed.
 * Errors: on_lost comes at most once, last, with a server's text or "the lease was not renewed in
 *         time".
 */
#ifndef BNS_CLIENT_ETCD_LEASE_H
#define BNS_CLIENT_ETCD_LEASE_H

#include "client/etcd/etcd.h"

struct bns_etcd_lease;

struct bns_etcd_lease_handler {
    void (*on_granted)(void *arg, int64_t id, int64_t ttl_s); /* may be NULL */
    void (*on_kept)(void *arg, int64_t ttl_s);                /* each keepalive; may be NULL */
    /* Never granted (after the client's default timeout), expired, revoked, or not renewed. With an
     * id of the owner a grant whose outcome is not known is not asked for again. */
    void (*on_lost)(void *arg, int status, const char *text);
};

struct bns_etcd_lease_options {
    int64_t ttl_s; /* seconds; servers raise what is too small */
    int64_t id;    /* 0: one is picked here, at random */
    bool granted;  /* the lease exists: only keep it alive, from the first answer on */
    const struct bns_etcd_lease_handler *handler; /* borrowed */
    void *arg;
};
BNS_MUST_CHECK int bns_etcd_lease_open(struct bns_etcd *c, const struct bns_etcd_lease_options *o,
                                       struct bns_etcd_lease **out);
int64_t bns_etcd_lease_id(const struct bns_etcd_lease *l); /* 0: not granted yet */
/* It surely lives until then, by the env's clock; 0: not granted yet. */
uint64_t bns_etcd_lease_until_ns(const struct bns_etcd_lease *l);
/* No callback any more. `revoke`: asks for its end, once, without waiting; else it runs out.
 * NULL is fine. */
void bns_etcd_lease_close(struct bns_etcd_lease *l, bool revoke);

#endif
