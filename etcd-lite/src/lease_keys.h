/* lease_keys.h - the keys on one lease, in order: a treap.
 *
 * Thread: the loop. Memory: two pointers a key; nothing is allocated, so nothing can fail.
 * Cost: O(log n) for each call but etcd_lease_keys(), which is O(n).
 */
#ifndef ETCD_LEASE_KEYS_H
#define ETCD_LEASE_KEYS_H

#include "base/hmap.h"
#include "base/slice.h"

struct etcd_lease;

struct etcd_lease_key {
    struct bns_hnode node; /* lessor.keys; its hash is the priority here */
    struct etcd_lease_key *left, *right;
    struct etcd_lease *lease;
    struct bns_slice key; /* the index's bytes */
};

/* `root` is NULL when there are none. The key is not among them; it is among them. */
void etcd_lease_keys_add(struct etcd_lease_key **root, struct etcd_lease_key *k);
void etcd_lease_keys_del(struct etcd_lease_key **root, struct etcd_lease_key *k);
/* The first that is not below `from`; NULL: none. */
const struct etcd_lease_key *etcd_lease_keys_seek(const struct etcd_lease_key *root,
                                                  struct bns_slice from);
/* The first of those above `k`, of all when k is NULL. NULL: none. */
const struct etcd_lease_key *etcd_lease_keys_after(const struct etcd_lease_key *root,
                                                   const struct etcd_lease_key *k);

#endif
