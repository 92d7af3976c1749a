/* kv_bucket.h - small tables beside the keys: users, roles, alarms, members, whatever every member
 * must agree on and no client reads as a key.
 *
 * What is put here by an applied entry is durable and in snapshots as the keys are, is part of the
 * digest, and is all in memory: whoever fills a bucket bounds it.
 *
 * Thread: the loop. Memory: slices borrow, until the bucket changes.
 * Errors: BNS_E_NOMEM; BNS_E_TOOBIG (every member alike): all slots that this bucket may have are
 *         taken. Whoever puts makes an answer of it: an apply does not fail for that.
 */
#ifndef ETCD_KV_BUCKET_H
#define ETCD_KV_BUCKET_H

#include "base/rcbuf.h"
#include "base/skiplist.h"

struct etcd_kv;

/* On disk: never change a number. */
enum etcd_bucket {
    ETCD_BUCKET_AUTH = 1,  /* "enabled", "revision" */
    ETCD_BUCKET_USERS = 2, /* name -> User */
    ETCD_BUCKET_ROLES = 3, /* name -> Role */
    ETCD_BUCKET_ALARMS = 4,
    ETCD_BUCKET_MEMBERS = 5, /* id -> Member */
    ETCD_BUCKET_REMOVED = 6, /* id of a removed member: it never comes back */
    ETCD_BUCKET_CLUSTER = 7,
    ETCD_BUCKET_LEASES = 8,     /* id -> what is left of its TTL */
    ETCD_BUCKET_ATTRIBUTES = 9, /* id -> ClusterMemberAttrSetRequest: what it says of itself */
};

#define ETCD_BUCKET_ROWS_MAX (1u << 20) /* in all buckets */
#define ETCD_BUCKET_RESERVE (1u << 16)  /* ... of which users, roles and leases get none */

struct etcd_bucket_row {
    struct bns_rcbuf *bytes; /* key length u32, bucket u8, key, value */
    uint32_t slot;
    struct bns_skip_node skip; /* by bucket and key */
};

struct etcd_buckets {
    struct bns_skiplist rows;
    uint64_t *taken; /* a bit a slot */
    size_t taken_words;
    size_t low_word; /* all words before it are full */
};

/* The value; ptr NULL = there is none (an empty value has a ptr). */
struct bns_slice etcd_bucket_get(const struct etcd_kv *kv, enum etcd_bucket b,
                                 struct bns_slice key);
BNS_MUST_CHECK int etcd_bucket_put(struct etcd_kv *kv, enum etcd_bucket b, struct bns_slice key,
                                   struct bns_slice value);
/* Are there slots for so many new rows? */
bool etcd_bucket_room(struct etcd_kv *kv, enum etcd_bucket b, uint32_t rows);
/* A key that is not there is fine. */
BNS_MUST_CHECK int etcd_bucket_del(struct etcd_kv *kv, enum etcd_bucket b, struct bns_slice key);
/* In key order: the first for NULL; NULL at the end. */
const struct etcd_bucket_row *etcd_bucket_next(const struct etcd_kv *kv, enum etcd_bucket b,
                                               const struct etcd_bucket_row *after);
struct bns_slice etcd_bucket_key(const struct etcd_bucket_row *r);
struct bns_slice etcd_bucket_value(const struct etcd_bucket_row *r);

/* For the store: a row as it was found; all go. */
void etcd_buckets_init(struct etcd_kv *kv);
BNS_MUST_CHECK int etcd_buckets_row(struct etcd_kv *kv, uint32_t sub, struct bns_slice bytes);
void etcd_buckets_clear(struct etcd_kv *kv);
#define ETCD_BUCKET_SUB (1u << 16) /* rows (0, sub) from here on are the buckets' */

#endif
