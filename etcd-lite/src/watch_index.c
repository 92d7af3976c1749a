/* watch_index.c - from a key to the watches that it concerns, without looking at the others.
 *
 * Watches on the same key or the same range share a target. Targets of single keys are in a hash
 * map. Targets of ranges are in a treap ordered by (key, end), each node knowing the furthest end
 * below it (an interval tree: Cormen et al., chapter 14.3): a search leaves out every subtree whose
 * ends lie at or before the key, so k hits cost O(k + log n).
 *
 * Depth: priorities are random, so recursion goes about 2 log2(n) deep, whatever the ranges are:
 * 50 for a million.
 */
#include "watch_impl.h"

void etcd_watch_index_init(struct etcd_watch_index *ix, const struct bns_alloc *a, uint64_t seed)
{
    *ix = (struct etcd_watch_index){.alloc = a, .seed = seed};
    bns_hmap_init(&ix->keys, a);
    bns_prng_seed(&ix->prng, seed);
}

void etcd_watch_index_free(struct etcd_watch_index *ix)
{
    BNS_ASSERT(ix->keys.count == 0);
    BNS_ASSERT(ix->ranges == NULL);
    bns_hmap_free(&ix->keys);
}

/* ---- the treap ------------------------------------------------------------------------------ */

static int end_cmp(const struct etcd_watch_target *a, const struct etcd_watch_target *b)
{
    if (a->open || b->open)
        return (int)a->open - (int)b->open;
    return bns_slice_cmp(a->end, b->end);
}

static int order(const struct etcd_watch_target *a, const struct etcd_watch_target *b)
{
    int c = bns_slice_cmp(a->key, b->key);

    return c != 0 ? c : end_cmp(a, b);
}

static void pull(struct etcd_watch_target *t)
{
    t->top = t;
    if (t->left != NULL && end_cmp(t->left->top, t->top) > 0)
        t->top = t->left->top;
    if (t->right != NULL && end_cmp(t->right->top, t->top) > 0)
        t->top = t->right->top;
}

/* Everything before n to *left, everything behind it to *right. */
static void split(struct etcd_watch_target *t, const struct etcd_watch_target *n,
                  struct etcd_watch_target **left, struct etcd_watch_target **right)
{
    if (t == NULL) {
        *left = NULL;
        *right = NULL;
        return;
    }
    if (order(t, n) < 0) {
        split(t->right, n, &t->right, right);
        *left = t;
    } else {
        split(t->left, n, left, &t->left);
        *right = t;
    }
    pull(t);
}

static struct etcd_watch_target *merge(struct etcd_watch_target *left,
                                       struct etcd_watch_target *right)
{
    if (left == NULL || right == NULL)
        return left == NULL ? right : left;
    if (left->prio > right->prio) {
        left->right = merge(left->right, right);
        pull(left);
        return left;
    }
    right->left = merge(left, right->left);
    pull(right);
    return right;
}

static struct etcd_watch_target *insert(struct etcd_watch_target *t, struct etcd_watch_target *n)
{
    if (t == NULL || n->prio > t->prio) {
        split(t, n, &n->left, &n->right);
        pull(n);
        return n;
    }
    if (order(n, t) < 0)
        t->left = insert(t->left, n);
    else
        t->right = insert(t->right, n);
    pull(t);
    return t;
}

static struct etcd_watch_target *take_out(struct etcd_watch_target *t,
                                          const struct etcd_watch_target *n)
{
    BNS_ASSERT(t != NULL);
    if (t == n)
        return merge(t->left, t->right);
    if (order(n, t) < 0)
        t->left = take_out(t->left, n);
    else
        t->right = take_out(t->right, n);
    pull(t);
    return t;
}

static bool ends_behind(const struct etcd_watch_target *t, struct bns_slice key)
{
    return t->open || bns_slice_cmp(key, t->end) < 0;
}

static void search(struct etcd_watch_target *t, struct bns_slice key,
                   void (*fn)(void *arg, struct etcd_watch_target *t), void *arg)
{
    if (t == NULL || !ends_behind(t->top, key))
        return;
    search(t->left, key, fn, arg);
    if (bns_slice_cmp(t->key, key) > 0)
        return;
    if (ends_behind(t, key))
        fn(arg, t);
    search(t->right, key, fn, arg);
}

/* ---- targets -------------------------------------------------------------------------------- */

static struct etcd_watch_target *find_key(const struct etcd_watch_index *ix, struct bns_slice key,
                                          uint64_t hash)
{
    struct bns_hnode *n = ix->keys.count == 0 ? NULL : bns_hmap_find(&ix->keys, hash);

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct etcd_watch_target *t = BNS_CONTAINER(n, struct etcd_watch_target, node);
        if (bns_slice_eq(t->key, key))
            return t;
    }
    return NULL;
}

static struct etcd_watch_target *find_range(const struct etcd_watch_index *ix,
                                            const struct etcd_watch_target *like)
{
    struct etcd_watch_target *t = ix->ranges;

    while (t != NULL) {
        int c = order(like, t);
        if (c == 0)
            return t;
        t = c < 0 ? t->left : t->right;
    }
    return NULL;
}

static struct etcd_watch_target *make(struct etcd_watch_index *ix,
                                      const struct etcd_watch_target *like)
{
    struct etcd_watch_target *t = bns_alloc(ix->alloc, sizeof *t + like->key.len + like->end.len);
    uint8_t *bytes;

    if (t == NULL)
        return NULL;
    *t = *like;
    bytes = (uint8_t *)(t + 1);
    if (like->key.len > 0)
        memcpy(bytes, like->key.ptr, like->key.len);
    if (like->end.len > 0)
        memcpy(bytes + like->key.len, like->end.ptr, like->end.len);
    t->key.ptr = bytes;
    t->end.ptr = bytes + like->key.len;
    t->top = t;
    bns_list_init(&t->watches);
    bns_list_init(&t->waiting);
    return t;
}

struct etcd_watch_target *etcd_watch_target(struct etcd_watch_index *ix, struct bns_slice key,
                                            struct bns_slice end)
{
    struct etcd_watch_target like = {.key = key, .end = end, .range = end.len > 0};
    uint64_t hash = bns_hash(ix->seed, key.ptr, key.len);
    struct etcd_watch_target *t;

    like.open = end.len == 1 && end.ptr[0] == 0;
    t = like.range ? find_range(ix, &like) : find_key(ix, key, hash);
    if (t != NULL)
        return t;
    t = make(ix, &like);
    if (t == NULL)
        return NULL;
    if (t->range) {
        t->prio = bns_prng_next(&ix->prng);
        ix->ranges = insert(ix->ranges, t);
    } else if (bns_hmap_insert(&ix->keys, &t->node, hash) != BNS_OK) {
        bns_free(ix->alloc, t);
        return NULL;
    }
    return t;
}

void etcd_watch_target_drop(struct etcd_watch_index *ix, struct etcd_watch_target *t)
{
    BNS_ASSERT(bns_list_empty(&t->watches));
    BNS_ASSERT(bns_list_empty(&t->waiting));
    if (t->range)
        ix->ranges = take_out(ix->ranges, t);
    else
        bns_hmap_del(&ix->keys, &t->node);
    bns_free(ix->alloc, t);
}

bool etcd_watch_target_has(const struct etcd_watch_target *t, struct bns_slice key)
{
    int c = bns_slice_cmp(t->key, key);

    return t->range ? c <= 0 && ends_behind(t, key) : c == 0;
}

void etcd_watch_index_find(const struct etcd_watch_index *ix, struct bns_slice key,
                           void (*fn)(void *arg, struct etcd_watch_target *t), void *arg)
{
    struct etcd_watch_target *t = NULL;

    if (ix->keys.count > 0)
        t = find_key(ix, key, bns_hash(ix->seed, key.ptr, key.len));
    if (t != NULL)
        fn(arg, t);
    search(ix->ranges, key, fn, arg);
}
