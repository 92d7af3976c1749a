/* index.h - the key index: every key, and of each the revisions that the store still holds.
 *
 * Thread: the loop. Memory: 32 bytes a revision, about 60 bytes and the key itself a key.
 * Errors: BNS_E_NOMEM from etcd_index_add only, which then changed nothing.
 */
#ifndef ETCD_INDEX_H
#define ETCD_INDEX_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/list.h"
#include "base/skiplist.h"
#include "base/slice.h"

/* One stored row, without its bytes. */
struct etcd_rev {
    int64_t main;
    int64_t create;  /* main revision of the put that began this life of the key */
    int64_t version; /* 1 = created; 0 = tombstone */
    uint32_t sub;
    uint32_t size; /* stored bytes | ETCD_REV_LEASE */
};
#define ETCD_REV_LEASE 0x80000000u
_Static_assert(sizeof(struct etcd_rev) == 32, "32 bytes a revision");

struct etcd_key {
    struct etcd_rev *revs; /* ascending by (main, sub) */
    uint32_t count;        /* > 0 */
    uint32_t cap;
    struct bns_skip_node skip; /* last; the key's bytes follow its links */
};

/* While it is being loaded (index_load.c). */
struct etcd_index_load {
    struct bns_skip_node **slots; /* NULL: it is not */
    size_t slots_count, count;
    uint64_t seed;
};

struct etcd_index {
    const struct bns_alloc *alloc;
    struct bns_skiplist list;
    struct etcd_index_load load;
    uint64_t alive; /* keys whose newest revision is not a tombstone */
    uint64_t revs;
    uint64_t bytes; /* of the stored rows */
};

void etcd_index_init(struct etcd_index *ix, const struct bns_alloc *alloc, uint64_t seed);
void etcd_index_free(struct etcd_index *ix); /* leaves an empty index */

/* rev is newer than all of the key's. */
BNS_MUST_CHECK int etcd_index_add(struct etcd_index *ix, struct bns_slice key,
                                  const struct etcd_rev *rev);

/* Many rows into an empty index at once: between begin and end, etcd_index_add takes no time that
 * grows with the number of keys; of the rest only etcd_index_free and, for one key, _first may be
 * called. BNS_E_NOMEM: begin changed nothing; after end the index is still being loaded. */
BNS_MUST_CHECK int etcd_index_load_begin(struct etcd_index *ix, uint64_t seed);
BNS_MUST_CHECK int etcd_index_load_end(struct etcd_index *ix);
/* For etcd_index_add alone. */
struct etcd_key *etcd_index_load_find(const struct etcd_index *ix, struct bns_slice key);
void etcd_index_load_put(struct etcd_index *ix, struct etcd_key *k);

static inline struct bns_slice etcd_key_bytes(const struct etcd_key *k)
{
    return bns_slice(k->skip.key, k->skip.key_len);
}
static inline bool etcd_rev_dead(const struct etcd_rev *r)
{
    return r->version == 0;
}
static inline uint32_t etcd_rev_bytes(const struct etcd_rev *r)
{
    return r->size & ~ETCD_REV_LEASE;
}

/* The newest revision of k at main or before, NULL when there is none. May be a tombstone. */
const struct etcd_rev *etcd_key_at(const struct etcd_key *k, int64_t main);
/* As above, and NULL for a tombstone. */
const struct etcd_rev *etcd_key_alive_at(const struct etcd_key *k, int64_t main);

/* A range as requests give it: end empty = the key alone; end "\0" = all keys from key on; else
 * [key, end). Walk: for (k = etcd_index_first(..); k != NULL; k = etcd_index_next(k, key, end)). */
struct etcd_key *etcd_index_first(const struct etcd_index *ix, struct bns_slice key,
                                  struct bns_slice end);
struct etcd_key *etcd_index_next(const struct etcd_key *k, struct bns_slice end);
struct etcd_key *etcd_index_seek(const struct etcd_index *ix, struct bns_slice key); /* >= key */

/* Compaction at main `at`, for one key: drop() is told each row that goes. The key itself goes (and
 * k is freed) when nothing is left. Kept: everything above `at`, the newest at or below it unless
 * that is a tombstone from before `at`. */
void etcd_index_compact(struct etcd_index *ix, struct etcd_key *k, int64_t at,
                        void (*drop)(void *arg, const struct etcd_rev *rev), void *arg);

#endif
