/* lock.h - locks and elections, as recipes on keys, leases and watches.
 *
 * Recipe:    a candidate puts NAME/<its lease in hex> and waits for its turn: it holds when no key
 *            under NAME/ was created before its own. Each waits for the one created just before
 *            it, so an end wakes one candidate. etcdctl, etcd's Go client and the server's own
 *            v3lock do the same: all of them can be mixed.
 * Not safe alone: whoever holds a lock may be paused beyond the life of its lease, and wake up
 *            believing that it holds. The token is the revision that created its key, and grows
 *            from holder to holder: send it along with every effect, and let the resource refuse
 *            one that is older than what it has seen; or make the effect a transaction of etcd
 *            with the comparison "create revision of the lock's key = token".
 * Loss:      the key is watched while it is held: on_lost tells that it has gone, whoever deleted
 *            it. When the lease is lost its own on_lost may come first: stop at either.
 * Thread:    the env's loop. A lock may be closed in any of its callbacks, the client not freed.
 */
#ifndef BNS_CLIENT_ETCD_LOCK_H
#define BNS_CLIENT_ETCD_LOCK_H

#include "client/etcd/etcd.h"

struct bns_etcd_lock;

struct bns_etcd_lock_handler {
    /* It is held, and was at the last moment of which a server could tell: its own key was read
     * again at the end. */
    void (*on_held)(void *arg, struct bns_slice key, int64_t token);
    /* Last; the lock is gone. It cannot be had (permission, no such lease), or not any more. */
    void (*on_lost)(void *arg, int status, const char *text);
};

struct bns_etcd_lock_options {
    struct bns_slice name;
    struct bns_slice value; /* of the key; what a leader says of itself. May be of 0 bytes */
    int64_t lease;          /* kept alive by its owner (lease.h) */
    const struct bns_etcd_lock_handler *handler; /* borrowed */
    void *arg;
};
/* Waits for as long as it takes, over lost connections and leaders. */
BNS_MUST_CHECK int bns_etcd_lock_open(struct bns_etcd *c, const struct bns_etcd_lock_options *o,
                                      struct bns_etcd_lock **out);
struct bns_slice bns_etcd_lock_key(const struct bns_etcd_lock *l);
int64_t bns_etcd_lock_token(const struct bns_etcd_lock *l); /* 0: not held */
/* A new value, if it is still held: done gets a TxnResponse that says so by `succeeded`. */
BNS_MUST_CHECK int bns_etcd_lock_proclaim(struct bns_etcd_lock *l, struct bns_slice value,
                                          bns_etcd_done *done, void *arg);
/* No callback any more but done (may be NULL), once: its key is deleted, after the put of it if
 * that is under way. If done tells a failure, or status 10 because an earlier put may still be
 * on its way, only the end of the lease surely ends the lock. Before the same lease asks for the
 * same lock again, wait for done: the key has the same name, and a late deletion would take the
 * new one. Without memory done runs within this call. `l` is gone for its owner; the client may
 * be freed: then done tells 1. NULL is fine. */
void bns_etcd_lock_close(struct bns_etcd_lock *l, bns_etcd_done *done, void *arg);

/* ---- who leads? ------------------------------------------------------------------------------ */
struct bns_etcd_observe;

struct bns_etcd_observe_handler {
    /* Leads now, or has changed its value. kv is borrowed. Leaders that came and went between two
     * looks may be left out. */
    void (*on_leader)(void *arg, const Etcdserverpb__KeyValue *kv);
    void (*on_none)(void *arg); /* nobody does; may be NULL */
    void (*on_end)(void *arg, int status, const char *text);
};
BNS_MUST_CHECK int bns_etcd_observe_open(struct bns_etcd *c, struct bns_slice name,
                                         const struct bns_etcd_observe_handler *h, void *arg,
                                         struct bns_etcd_observe **out);
void bns_etcd_observe_close(struct bns_etcd_observe *o); /* NULL is fine */

#endif
