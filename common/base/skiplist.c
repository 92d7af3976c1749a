/* skiplist.c - intrusive ordered map on byte keys (W. Pugh, "Skip Lists", CACM 33(6), 1990).
 *
 * Each node carries links for levels 0..levels-1; level 0 links all nodes in memcmp order, and a
 * node reaches one level higher with probability 1/4. A search goes right while the next key is
 * smaller, then one level down. Nothing here allocates; only a duplicate key is refused.
 */
#include "base/skiplist.h"

void bns_skip_init(struct bns_skiplist *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    bns_prng_seed(&s->prng, seed);
    s->levels = 1;
}

uint8_t bns_skip_draw_levels(struct bns_skiplist *s)
{
    uint64_t bits = bns_prng_next(&s->prng);
    uint8_t levels = 1;

    while (levels < BNS_SKIP_LEVELS_MAX && (bits & 3) == 0) {
        levels++;
        bits >>= 2;
    }
    return levels;
}

static int compare(const struct bns_skip_node *n, struct bns_slice key)
{
    return bns_slice_cmp((struct bns_slice){n->key, n->key_len}, key);
}

/* Fills links[level] with the array of links whose entry `level` is the first one >= key. */
static struct bns_skip_node *search(const struct bns_skiplist *s, struct bns_slice key,
                                    struct bns_skip_node **links[BNS_SKIP_LEVELS_MAX])
{
    struct bns_skip_node *const *at = s->head;
    struct bns_skip_node *seen = NULL; /* known to be >= key: need not be compared again */

    for (size_t level = s->levels; level-- > 0;) {
        while (at[level] != NULL && at[level] != seen && compare(at[level], key) < 0)
            at = at[level]->next;
        seen = at[level];
        if (links != NULL)
            links[level] = (struct bns_skip_node **)(uintptr_t)at;
    }
    return at[0];
}

int bns_skip_insert(struct bns_skiplist *s, struct bns_skip_node *n)
{
    struct bns_skip_node **links[BNS_SKIP_LEVELS_MAX];
    struct bns_slice key = {n->key, n->key_len};
    struct bns_skip_node *at;

    BNS_ASSERT(n->levels >= 1);
    BNS_ASSERT(n->levels <= BNS_SKIP_LEVELS_MAX);
    at = search(s, key, links);
    if (at != NULL && compare(at, key) == 0)
        return BNS_E_EXISTS;
    while (s->levels < n->levels) {
        s->head[s->levels] = NULL;
        links[s->levels] = s->head;
        s->levels++;
    }
    for (size_t level = 0; level < n->levels; level++) {
        n->next[level] = links[level][level];
        links[level][level] = n;
    }
    s->count++;
    return BNS_OK;
}

void bns_skip_tail_init(struct bns_skiplist *s, struct bns_skip_tail *tail)
{
    BNS_ASSERT(s->count == 0);
    for (size_t level = 0; level < BNS_SKIP_LEVELS_MAX; level++) {
        s->head[level] = NULL;
        tail->links[level] = &s->head[level];
    }
    s->levels = 1;
}

void bns_skip_append(struct bns_skiplist *s, struct bns_skip_tail *tail, struct bns_skip_node *n)
{
    BNS_ASSERT(n->levels >= 1);
    BNS_ASSERT(n->levels <= BNS_SKIP_LEVELS_MAX);
    for (size_t level = 0; level < n->levels; level++) {
        n->next[level] = NULL;
        *tail->links[level] = n;
        tail->links[level] = &n->next[level];
    }
    if (s->levels < n->levels)
        s->levels = n->levels;
    s->count++;
}

struct bns_skip_node *bns_skip_seek(const struct bns_skiplist *s, struct bns_slice key)
{
    return search(s, key, NULL);
}

struct bns_skip_node *bns_skip_find(const struct bns_skiplist *s, struct bns_slice key)
{
    struct bns_skip_node *n = search(s, key, NULL);
    return n != NULL && compare(n, key) == 0 ? n : NULL;
}

struct bns_skip_node *bns_skip_del(struct bns_skiplist *s, struct bns_slice key)
{
    struct bns_skip_node **links[BNS_SKIP_LEVELS_MAX];
    struct bns_skip_node *n = search(s, key, links);

    if (n == NULL || compare(n, key) != 0)
        return NULL;
    for (size_t level = 0; level < n->levels; level++) {
        BNS_ASSERT(links[level][level] == n);
        links[level][level] = n->next[level];
    }
    while (s->levels > 1 && s->head[s->levels - 1] == NULL)
        s->levels--;
    BNS_ASSERT(s->count > 0);
    s->count--;
    return n;
}
