/* auth_range.c - permissions as merged intervals.
 *
 * The permissions of all roles of a user are put together: [a, b) of one role and [b, c) of another
 * allow [a, c). So each becomes a span [from, to); they are sorted, and those that overlap or touch
 * are joined. One key k is [k, k0), where k0 is k with a zero byte behind, the next key there is.
 * After that a request is allowed when the one span that begins at or before it reaches its end: a
 * binary search.
 */
#include "auth_range.h"

#include <stdlib.h>

static bool is_open(struct bns_slice end)
{
    return end.len == 1 && end.ptr[0] == 0;
}

/* Are the ends of spans in order? NULL is behind all keys. */
static int end_cmp(struct bns_slice a, struct bns_slice b)
{
    if (a.ptr == NULL || b.ptr == NULL)
        return (a.ptr == NULL) - (b.ptr == NULL);
    return bns_slice_cmp(a, b);
}

static int grow(struct etcd_spans *s, struct bns_arena *arena)
{
    size_t cap = s->cap == 0 ? 8 : s->cap * 2;
    struct etcd_span *at = bns_arena_alloc(arena, cap * sizeof *at);

    if (at == NULL)
        return BNS_E_NOMEM;
    if (s->count > 0)
        memcpy(at, s->at, s->count * sizeof *at);
    s->at = at;
    s->cap = cap;
    return BNS_OK;
}

int etcd_spans_add(struct etcd_spans *s, struct bns_arena *arena, struct bns_slice key,
                   struct bns_slice range_end)
{
    const uint8_t *from;
    struct bns_slice to = {NULL, 0};

    if (range_end.len > 0 && !is_open(range_end) && bns_slice_cmp(key, range_end) >= 0)
        return BNS_OK;
    if (s->count == s->cap && grow(s, arena) != BNS_OK)
        return BNS_E_NOMEM;
    from = bns_arena_dup(arena, key.len == 0 ? (const void *)"" : key.ptr, key.len);
    if (from == NULL)
        return BNS_E_NOMEM;
    if (range_end.len == 0) {
        to = bns_slice(from, key.len + 1); /* the copy has a zero byte behind */
    } else if (!is_open(range_end)) {
        to = bns_slice(bns_arena_dup(arena, range_end.ptr, range_end.len), range_end.len);
        if (to.ptr == NULL)
            return BNS_E_NOMEM;
    }
    s->at[s->count++] = (struct etcd_span){bns_slice(from, key.len), to};
    return BNS_OK;
}

static int by_from(const void *a, const void *b)
{
    const struct etcd_span *x = a, *y = b;

    return bns_slice_cmp(x->from, y->from);
}

void etcd_spans_merge(struct etcd_spans *s)
{
    size_t n = 0;

    if (s->count == 0)
        return;
    qsort(s->at, s->count, sizeof *s->at, by_from);
    for (size_t i = 1; i < s->count; i++) {
        struct etcd_span *last = &s->at[n];

        if (last->to.ptr == NULL || bns_slice_cmp(s->at[i].from, last->to) <= 0) {
            if (end_cmp(last->to, s->at[i].to) < 0)
                last->to = s->at[i].to;
        } else {
            s->at[++n] = s->at[i];
        }
    }
    s->count = n + 1;
}

const struct etcd_span *etcd_spans_find(const struct etcd_spans *s, struct bns_slice key)
{
    size_t lo = 0, hi = s->count;
    const struct etcd_span *f;

    while (lo < hi) { /* the first that begins behind key */
        size_t mid = lo + (hi - lo) / 2;

        if (bns_slice_cmp(s->at[mid].from, key) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NULL;
    f = &s->at[lo - 1];
    return f->to.ptr == NULL || bns_slice_cmp(key, f->to) < 0 ? f : NULL;
}

bool etcd_spans_cover(const struct etcd_spans *s, struct bns_slice key, struct bns_slice range_end)
{
    const struct etcd_span *f = etcd_spans_find(s, key);

    if (f == NULL || f->to.ptr == NULL)
        return f != NULL;
    if (is_open(range_end))
        return false;
    return range_end.len == 0 || bns_slice_cmp(range_end, f->to) <= 0;
}
