/* heap.c - intrusive binary min-heap on (key, seq).
 *
 * nodes[pos - 1] holds the node whose pos is `pos`; the parent of pos is pos / 2. A node knows its
 * place, so that a timer is removed in O(log n). seq grows with each insert: equal keys leave in
 * the order they came. Only insert can fail, and only when the array must grow.
 */
#include "base/heap.h"

#define CAP_MIN 16u

void bns_heap_init(struct bns_heap *h, const struct bns_alloc *alloc)
{
    BNS_ASSERT(alloc != NULL);
    *h = (struct bns_heap){.alloc = alloc};
}

void bns_heap_free(struct bns_heap *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->nodes[i]->pos = 0;
    if (h->nodes != NULL)
        bns_free(h->alloc, h->nodes);
    h->nodes = NULL;
    h->count = 0;
    h->cap = 0;
}

static bool before(const struct bns_heap_node *a, const struct bns_heap_node *b)
{
    return a->key != b->key ? a->key < b->key : a->seq < b->seq;
}

static void place(struct bns_heap *h, struct bns_heap_node *n, size_t pos)
{
    h->nodes[pos - 1] = n;
    n->pos = pos;
}

static void sift_up(struct bns_heap *h, struct bns_heap_node *n, size_t pos)
{
    while (pos > 1 && before(n, h->nodes[pos / 2 - 1])) {
        place(h, h->nodes[pos / 2 - 1], pos);
        pos /= 2;
    }
    place(h, n, pos);
}

static void sift_down(struct bns_heap *h, struct bns_heap_node *n, size_t pos)
{
    for (;;) {
        size_t child = pos * 2;
        if (child > h->count)
            break;
        if (child < h->count && before(h->nodes[child], h->nodes[child - 1]))
            child++;
        if (!before(h->nodes[child - 1], n))
            break;
        place(h, h->nodes[child - 1], pos);
        pos = child;
    }
    place(h, n, pos);
}

int bns_heap_insert(struct bns_heap *h, struct bns_heap_node *n, uint64_t key)
{
    BNS_ASSERT(n->pos == 0);
    if (h->count == h->cap) {
        size_t cap = h->cap == 0 ? CAP_MIN : h->cap * 2;
        size_t bytes;
        void *nodes;

        if (__builtin_mul_overflow(cap, sizeof(struct bns_heap_node *), &bytes))
            return BNS_E_NOMEM;
        nodes = bns_resize(h->alloc, h->nodes, bytes);
        if (nodes == NULL)
            return BNS_E_NOMEM;
        h->nodes = nodes;
        h->cap = cap;
    }
    n->key = key;
    n->seq = h->seq++;
    h->count++;
    sift_up(h, n, h->count);
    return BNS_OK;
}

void bns_heap_del(struct bns_heap *h, struct bns_heap_node *n)
{
    size_t pos = n->pos;
    struct bns_heap_node *last;

    if (pos == 0)
        return;
    BNS_ASSERT(pos <= h->count);
    BNS_ASSERT(h->nodes[pos - 1] == n);
    n->pos = 0;
    last = h->nodes[h->count - 1];
    h->count--;
    if (last == n)
        return;
    if (pos > 1 && before(last, h->nodes[pos / 2 - 1]))
        sift_up(h, last, pos);
    else
        sift_down(h, last, pos);
}

struct bns_heap_node *bns_heap_min(const struct bns_heap *h)
{
    return h->count == 0 ? NULL : h->nodes[0];
}
