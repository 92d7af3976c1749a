/* cache.c - a hash map by (main, sub) and a list by last use. Rows never change, so nothing is ever
 * invalidated: a compacted revision is not asked for and ages out. */
#include "cache.h"

#define ENTRY_COST 96 /* the entry, its slot, the buffer's head */

struct entry {
    struct bns_hnode node;
    struct bns_list lru;
    int64_t main;
    uint32_t sub;
    struct bns_rcbuf *kv;
};

static uint64_t cost(const struct entry *e)
{
    return (uint64_t)e->kv->len + ENTRY_COST;
}

static uint64_t hash_of(const struct etcd_cache *c, int64_t main, uint32_t sub)
{
    return bns_hash_u64(c->seed ^ sub, (uint64_t)main);
}

void etcd_cache_init(struct etcd_cache *c, const struct bns_alloc *alloc, uint64_t seed,
                     uint64_t bytes_max)
{
    *c = (struct etcd_cache){.alloc = alloc, .seed = seed, .bytes_max = bytes_max};
    bns_hmap_init(&c->map, alloc);
    bns_list_init(&c->lru);
}

static void drop(struct etcd_cache *c, struct entry *e)
{
    c->bytes -= cost(e);
    bns_hmap_del(&c->map, &e->node);
    bns_list_del(&e->lru);
    bns_rcbuf_put(e->kv);
    bns_free(c->alloc, e);
}

void etcd_cache_clear(struct etcd_cache *c)
{
    if (c->alloc == NULL)
        return;
    while (!bns_list_empty(&c->lru))
        drop(c, BNS_CONTAINER(c->lru.next, struct entry, lru));
    BNS_ASSERT(c->bytes == 0);
    bns_hmap_free(&c->map);
}

static struct entry *find(struct etcd_cache *c, int64_t main, uint32_t sub)
{
    struct bns_hnode *n = bns_hmap_find(&c->map, hash_of(c, main, sub));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct entry *e = BNS_CONTAINER(n, struct entry, node);
        if (e->main == main && e->sub == sub)
            return e;
    }
    return NULL;
}

void etcd_cache_put(struct etcd_cache *c, int64_t main, uint32_t sub, struct bns_rcbuf *kv)
{
    struct entry *e;

    if (kv->len > c->bytes_max / 16 || find(c, main, sub) != NULL)
        return;
    e = bns_alloc(c->alloc, sizeof *e);
    if (e == NULL)
        return;
    *e = (struct entry){.main = main, .sub = sub, .kv = kv};
    if (bns_hmap_insert(&c->map, &e->node, hash_of(c, main, sub)) != BNS_OK) {
        bns_free(c->alloc, e);
        return;
    }
    (void)bns_rcbuf_get(kv); /* the entry's own */
    bns_list_push(&c->lru, &e->lru);
    c->bytes += cost(e);
    while (c->bytes > c->bytes_max)
        drop(c, BNS_CONTAINER(c->lru.next, struct entry, lru));
}

struct bns_rcbuf *etcd_cache_get(struct etcd_cache *c, int64_t main, uint32_t sub)
{
    struct entry *e = c->map.count == 0 ? NULL : find(c, main, sub);

    if (e == NULL) {
        c->misses++;
        return NULL;
    }
    c->hits++;
    bns_list_del(&e->lru);
    bns_list_push(&c->lru, &e->lru);
    return e->kv;
}
