/* peers.h - who is there? A process registers its name under a prefix, bound to a lease, and all
 * watch the prefix.
 *
 *     struct bns_etcd_member   one registration: a lease of its own, the key PREFIX + name. When
 *                              the lease is lost it registers anew, by itself, while it is open.
 *     struct bns_etcd_peers    the names under the prefix with their values, kept up to date
 *
 * A name that another process holds is waited for: it is free when that one's lease has ended. So
 * two processes with one name are never registered both, and a restart takes as long as the time to
 * live of the lease it has left behind.
 * A registration is no lock: between on_down() of a peer and its own noticing, both sides may act.
 * `revision` (that created the key) tells one registration of a name from the next.
 *
 * Thread: the env's loop. Objects may be closed in their callbacks, the client not freed.
 * Bounds: BNS_ETCD_PEERS_MAX names are kept; what is more is told neither up nor down, and logged.
 */
#ifndef BNS_CLIENT_ETCD_PEERS_H
#define BNS_CLIENT_ETCD_PEERS_H

#include "client/etcd/etcd.h"

#define BNS_ETCD_PEERS_MAX 4096u

struct bns_etcd_member;

struct bns_etcd_member_handler {
    void (*on_up)(void *arg, int64_t revision); /* registered, the first time or anew */
    /* Its registration is lost, or the servers refuse one; it goes on trying. May be NULL. */
    void (*on_down)(void *arg, int status, const char *text);
};
struct bns_etcd_member_options {
    struct bns_slice prefix, name, value; /* copied */
    int64_t ttl_s;
    const struct bns_etcd_member_handler *handler; /* borrowed */
    void *arg;
};
BNS_MUST_CHECK int bns_etcd_member_open(struct bns_etcd *c, const struct bns_etcd_member_options *o,
                                        struct bns_etcd_member **out);
/* Asks, without waiting, for the end of the lease: the others see it go. NULL is fine. */
void bns_etcd_member_close(struct bns_etcd_member *m);

struct bns_etcd_peers;

struct bns_etcd_peers_handler {
    /* There now, or with another value, or as another registration of that name. */
    void (*on_peer)(void *arg, struct bns_slice name, struct bns_slice value, int64_t revision);
    void (*on_gone)(void *arg, struct bns_slice name);
    void (*on_synced)(void *arg); /* once: all that were there have been told; may be NULL */
    void (*on_end)(void *arg, int status, const char *text); /* last: no permission */
};
BNS_MUST_CHECK int bns_etcd_peers_open(struct bns_etcd *c, struct bns_slice prefix,
                                       const struct bns_etcd_peers_handler *h, void *arg,
                                       struct bns_etcd_peers **out);
size_t bns_etcd_peers_count(const struct bns_etcd_peers *p);
void bns_etcd_peers_close(struct bns_etcd_peers *p); /* NULL is fine */

#endif
