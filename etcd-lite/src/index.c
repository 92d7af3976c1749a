/* index.c - the key index: an ordered map (skip list) from key to its revisions.
 *
 * etcd keeps generations (create .. tombstone) as separate lists. Here the generation is folded
 * into each revision: `create` and `version` say which life of the key it belongs to, so that a
 * read at any revision, a min/max filter, a sort and a compare of version, create or mod revision
 * need no row of the store. Rows are in commit order, so the list of a key only grows at its end
 * and a binary search finds the newest one at or before a revision.
 *
 * Invariants: revs ascend by (main, sub); a key in the map has at least one; `alive` counts the
 * keys whose last one is not a tombstone.
 */
#include "index.h"

#include <stddef.h>

#define REVS_MIN 1u

static struct etcd_key *key_of(struct bns_skip_node *n)
{
    return n == NULL ? NULL : BNS_CONTAINER(n, struct etcd_key, skip);
}

void etcd_index_init(struct etcd_index *ix, const struct bns_alloc *alloc, uint64_t seed)
{
    *ix = (struct etcd_index){.alloc = alloc};
    bns_skip_init(&ix->list, seed);
}

static void key_free(struct etcd_index *ix, struct etcd_key *k)
{
    bns_free(ix->alloc, k->revs);
    bns_free(ix->alloc, k);
}

static void keys_free(struct etcd_index *ix, struct bns_skip_node *n)
{
    while (n != NULL) {
        struct bns_skip_node *next = bns_skip_next(n);
        key_free(ix, key_of(n));
        n = next;
    }
}

void etcd_index_free(struct etcd_index *ix)
{
    struct bns_prng prng = ix->list.prng;

    if (ix->alloc == NULL)
        return;
    keys_free(ix, bns_skip_first(&ix->list));
    for (size_t i = 0; ix->load.slots != NULL && i < ix->load.slots_count; i++)
        keys_free(ix, ix->load.slots[i]);
    bns_free(ix->alloc, ix->load.slots);
    etcd_index_init(ix, ix->alloc, 0);
    ix->list.prng = prng;
}

static struct etcd_key *key_new(struct etcd_index *ix, struct bns_slice key)
{
    uint8_t levels = bns_skip_draw_levels(&ix->list);
    size_t fixed = bns_skip_node_bytes(offsetof(struct etcd_key, skip), levels);
    struct etcd_key *k;
    uint8_t *bytes;

    if (key.len > UINT32_MAX)
        return NULL;
    k = bns_alloc(ix->alloc, fixed + key.len);
    if (k == NULL)
        return NULL;
    bytes = (uint8_t *)k + fixed;
    if (key.len > 0)
        memcpy(bytes, key.ptr, key.len);
    k->count = 0;
    k->cap = REVS_MIN;
    k->skip.key = bytes;
    k->skip.key_len = (uint32_t)key.len;
    k->skip.levels = levels;
    k->revs = bns_alloc_array(ix->alloc, k->cap, sizeof *k->revs);
    if (k->revs == NULL) {
        bns_free(ix->alloc, k);
        return NULL;
    }
    return k;
}

static int make_room(struct etcd_index *ix, struct etcd_key *k)
{
    uint32_t cap = k->cap < 4 ? k->cap + 1 : k->cap + k->cap / 2;
    struct etcd_rev *revs;

    if (k->count < k->cap)
        return BNS_OK;
    if (cap <= k->cap)
        return BNS_E_NOMEM;
    revs = bns_resize(ix->alloc, k->revs, (size_t)cap * sizeof *revs);
    if (revs == NULL)
        return BNS_E_NOMEM;
    k->revs = revs;
    k->cap = cap;
    return BNS_OK;
}

static struct etcd_key *find(const struct etcd_index *ix, struct bns_slice key)
{
    return ix->load.slots != NULL ? etcd_index_load_find(ix, key)
                                  : key_of(bns_skip_find(&ix->list, key));
}

int etcd_index_add(struct etcd_index *ix, struct bns_slice key, const struct etcd_rev *rev)
{
    struct etcd_key *k = find(ix, key);
    bool was_alive;

    if (k == NULL) {
        k = key_new(ix, key);
        if (k == NULL)
            return BNS_E_NOMEM;
        if (ix->load.slots != NULL)
            etcd_index_load_put(ix, k);
        else if (bns_skip_insert(&ix->list, &k->skip) != BNS_OK)
            BNS_ASSERT(false);
    } else if (make_room(ix, k) != BNS_OK) {
        return BNS_E_NOMEM;
    }
    BNS_DCHECK(k->count == 0 || k->revs[k->count - 1].main < rev->main ||
               (k->revs[k->count - 1].main == rev->main && k->revs[k->count - 1].sub < rev->sub));
    was_alive = k->count > 0 && !etcd_rev_dead(&k->revs[k->count - 1]);
    k->revs[k->count++] = *rev;
    ix->revs++;
    ix->bytes += etcd_rev_bytes(rev);
    ix->alive += (uint64_t)!etcd_rev_dead(rev) - (uint64_t)was_alive;
    return BNS_OK;
}

const struct etcd_rev *etcd_key_at(const struct etcd_key *k, int64_t main)
{
    uint32_t lo = 0, hi = k->count;

    if (hi > 0 && k->revs[hi - 1].main <= main)
        return &k->revs[hi - 1]; /* the usual case: now */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (k->revs[mid].main <= main)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo == 0 ? NULL : &k->revs[lo - 1];
}

const struct etcd_rev *etcd_key_alive_at(const struct etcd_key *k, int64_t main)
{
    const struct etcd_rev *r = etcd_key_at(k, main);

    return r == NULL || etcd_rev_dead(r) ? NULL : r;
}

static bool end_is_open(struct bns_slice end)
{
    return end.len == 1 && end.ptr[0] == 0;
}

struct etcd_key *etcd_index_seek(const struct etcd_index *ix, struct bns_slice key)
{
    return key_of(bns_skip_seek(&ix->list, key));
}

struct etcd_key *etcd_index_first(const struct etcd_index *ix, struct bns_slice key,
                                  struct bns_slice end)
{
    struct etcd_key *k;

    if (end.len == 0)
        return find(ix, key);
    k = etcd_index_seek(ix, key);
    if (k == NULL || end_is_open(end) || bns_slice_cmp(etcd_key_bytes(k), end) < 0)
        return k;
    return NULL;
}

struct etcd_key *etcd_index_next(const struct etcd_key *k, struct bns_slice end)
{
    struct etcd_key *next;

    if (end.len == 0)
        return NULL;
    next = key_of(bns_skip_next(&k->skip));
    if (next == NULL || end_is_open(end) || bns_slice_cmp(etcd_key_bytes(next), end) < 0)
        return next;
    return NULL;
}

void etcd_index_compact(struct etcd_index *ix, struct etcd_key *k, int64_t at,
                        void (*drop)(void *arg, const struct etcd_rev *rev), void *arg)
{
    const struct etcd_rev *keep = etcd_key_at(k, at);
    uint32_t gone;

    if (keep == NULL)
        return;
    gone = (uint32_t)(keep - k->revs);
    if (etcd_rev_dead(keep) && keep->main < at)
        gone++;
    for (uint32_t i = 0; i < gone; i++) {
        ix->bytes -= etcd_rev_bytes(&k->revs[i]);
        drop(arg, &k->revs[i]);
    }
    ix->revs -= gone;
    k->count -= gone;
    memmove(k->revs, k->revs + gone, (size_t)k->count * sizeof *k->revs);
    if (k->count == 0) {
        struct bns_skip_node *n = bns_skip_del(&ix->list, etcd_key_bytes(k));
        BNS_ASSERT(n == &k->skip);
        key_free(ix, k);
        return;
    }
    if (k->cap > 2 * k->count) { /* give back; if that fails the larger block stays */
        struct etcd_rev *revs = bns_resize(ix->alloc, k->revs, (size_t)k->count * sizeof *revs);
        if (revs != NULL) {
            k->revs = revs;
            k->cap = k->count;
        }
    }
}
