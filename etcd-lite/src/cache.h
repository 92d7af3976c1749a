/* cache.h - recent KeyValue bytes by revision, so that hot reads, prev_kv and compares do not wait
 * for the store. Least recently used goes first; bounded by bytes.
 *
 * Thread: the loop. Memory: holds one reference a buffer. Errors: none; without memory it forgets.
 */
#ifndef ETCD_CACHE_H
#define ETCD_CACHE_H

#include "base/hmap.h"
#include "base/list.h"
#include "base/rcbuf.h"

struct etcd_cache {
    const struct bns_alloc *alloc;
    struct bns_hmap map;
    struct bns_list lru; /* oldest first */
    uint64_t bytes, bytes_max;
    uint64_t hits, misses;
    uint64_t seed;
};

void etcd_cache_init(struct etcd_cache *c, const struct bns_alloc *alloc, uint64_t seed,
                     uint64_t bytes_max);
void etcd_cache_clear(struct etcd_cache *c); /* empty and usable */
/* Takes a reference of its own. Buffers over 1/16 of bytes_max are not kept. */
void etcd_cache_put(struct etcd_cache *c, int64_t main, uint32_t sub, struct bns_rcbuf *kv);
struct bns_rcbuf *etcd_cache_get(struct etcd_cache *c, int64_t main, uint32_t sub); /* borrowed */

#endif
