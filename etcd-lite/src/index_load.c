/* index_load.c - filling the key index from a store: a hash table first, then one sort.
 *
 * Rows come in commit order, so their keys come in any order, and a search in the ordered map costs
 * a cache miss or two a level: more than all other work of a start. While it is loading, keys hang
 * in a hash table instead (chained through the lowest of their own links, so that it costs a slot
 * each), and at the end they are sorted once and linked in order.
 *
 * The sort compares numbers, not keys: after the prefix that all keys of a run have in common, the
 * next seven bytes and how many are left there (eight: more) make one. Runs that are equal in it
 * are sorted by what follows, to a depth of SORT_DEPTH_MAX; beyond that by whole keys.
 *
 * What may fail: memory, at the begin and at the end. A table that cannot grow only has longer
 * chains. The levels of a key are drawn when it is added, so the map is the one that insertion in
 * the same order gives.
 */
#include "index.h"

#include <stdlib.h>

#include "base/hmap.h"

#define SLOTS_MIN 1024u
#define SORT_DEPTH_MAX 16u
#define WORD_BYTES 7u

struct item {
    uint64_t word;
    struct etcd_key *k;
};

static struct etcd_key *key_of(struct bns_skip_node *n)
{
    return n == NULL ? NULL : BNS_CONTAINER(n, struct etcd_key, skip);
}

static struct bns_skip_node **slot_of(const struct etcd_index_load *l, struct bns_slice key)
{
    return &l->slots[bns_hash(l->seed, key.ptr, key.len) & (l->slots_count - 1)];
}

int etcd_index_load_begin(struct etcd_index *ix, uint64_t seed)
{
    struct etcd_index_load *l = &ix->load;

    BNS_ASSERT(ix->list.count == 0);
    BNS_ASSERT(l->slots == NULL);
    *l = (struct etcd_index_load){.seed = seed, .slots_count = SLOTS_MIN};
    l->slots = bns_alloc_zero(ix->alloc, SLOTS_MIN * sizeof(struct bns_skip_node *));
    return l->slots == NULL ? BNS_E_NOMEM : BNS_OK;
}

struct etcd_key *etcd_index_load_find(const struct etcd_index *ix, struct bns_slice key)
{
    struct bns_skip_node *n = *slot_of(&ix->load, key);

    while (n != NULL && bns_slice_cmp(bns_slice(n->key, n->key_len), key) != 0)
        n = n->next[0];
    return key_of(n);
}

static void hang(struct etcd_index_load *l, struct bns_skip_node *n)
{
    struct bns_skip_node **slot = slot_of(l, bns_slice(n->key, n->key_len));

    n->next[0] = *slot;
    *slot = n;
}

static void grow(struct etcd_index *ix)
{
    struct etcd_index_load *l = &ix->load;
    struct etcd_index_load old = *l;
    struct bns_skip_node **slots;

    if (l->slots_count > SIZE_MAX / 4 / sizeof *slots)
        return;
    slots = bns_alloc_zero(ix->alloc, l->slots_count * 2 * sizeof *slots);
    if (slots == NULL)
        return;
    l->slots = slots;
    l->slots_count *= 2;
    for (size_t i = 0; i < old.slots_count; i++) {
        struct bns_skip_node *n = old.slots[i];
        while (n != NULL) {
            struct bns_skip_node *next = n->next[0];
            hang(l, n);
            n = next;
        }
    }
    bns_free(ix->alloc, old.slots);
}

void etcd_index_load_put(struct etcd_index *ix, struct etcd_key *k)
{
    if (ix->load.count == ix->load.slots_count)
        grow(ix);
    hang(&ix->load, &k->skip);
    ix->load.count++;
}

/* ---- the sort -------------------------------------------------------------------------------- */

static size_t common_prefix(const struct item *v, size_t n)
{
    struct bns_slice first = etcd_key_bytes(v[0].k);
    size_t len = first.len;

    for (size_t i = 1; i < n && len > 0; i++) {
        struct bns_slice key = etcd_key_bytes(v[i].k);
        size_t same = 0;

        while (same < len && same < key.len && key.ptr[same] == first.ptr[same])
            same++;
        len = same;
    }
    return len;
}

static uint64_t word_at(struct bns_slice key, size_t at)
{
    size_t left = key.len - at;
    uint64_t word = 0;

    for (size_t i = 0; i < WORD_BYTES; i++)
        word = word << 8 | (i < left ? key.ptr[at + i] : 0u);
    return word << 8 | (left > WORD_BYTES ? WORD_BYTES + 1 : left);
}

static int by_word(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return (x->word > y->word) - (x->word < y->word);
}

static int by_key(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return bns_slice_cmp(etcd_key_bytes(x->k), etcd_key_bytes(y->k));
}

/* Recursion: SORT_DEPTH_MAX. */
static void sort(struct item *v, size_t n, unsigned depth)
{
    size_t at;

    if (depth == SORT_DEPTH_MAX) {
        qsort(v, n, sizeof *v, by_key);
        return;
    }
    at = common_prefix(v, n);
    for (size_t i = 0; i < n; i++)
        v[i].word = word_at(etcd_key_bytes(v[i].k), at);
    qsort(v, n, sizeof *v, by_word);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && v[end].word == v[i].word; end++)
            continue;
        if (end - i > 1)
            sort(v + i, end - i, depth + 1);
    }
}

int etcd_index_load_end(struct etcd_index *ix)
{
    struct etcd_index_load *l = &ix->load;
    struct bns_skip_tail tail;
    struct item *v = NULL;
    size_t n = 0;

    BNS_ASSERT(l->slots != NULL);
    if (l->count > 0) {
        v = bns_alloc_array(ix->alloc, l->count, sizeof *v);
        if (v == NULL)
            return BNS_E_NOMEM;
    }
    for (size_t i = 0; i < l->slots_count; i++)
        for (struct bns_skip_node *k = l->slots[i]; k != NULL; k = k->next[0])
            v[n++].k = key_of(k);
    BNS_ASSERT(n == l->count);
    bns_free(ix->alloc, l->slots);
    *l = (struct etcd_index_load){.slots = NULL};
    if (n > 1)
        sort(v, n, 0);
    bns_skip_tail_init(&ix->list, &tail);
    for (size_t i = 0; i < n; i++)
        bns_skip_append(&ix->list, &tail, &v[i].k->skip);
    bns_free(ix->alloc, v);
    return BNS_OK;
}
