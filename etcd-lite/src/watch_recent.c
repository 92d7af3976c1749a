/* watch_recent.c - a ring of the newest rows, so that whoever is a little behind needs no store.
 *
 * It holds all rows of every revision from `first` on: when a row leaves, the rest of its revision
 * counts as gone too. A revision that is larger than the ring leaves nothing that can be used. The
 * bytes are shared with the queue of the store and the cache.
 */
#include "watch_impl.h"

_Static_assert((ETCD_RECENT_ROWS & (ETCD_RECENT_ROWS - 1)) == 0, "a power of two");

static struct etcd_row *slot(const struct etcd_recent *r, size_t i)
{
    return &r->rows[(r->head + i) & (ETCD_RECENT_ROWS - 1)];
}

static void pop(struct etcd_recent *r)
{
    struct etcd_row *row = slot(r, 0);

    r->first = row->main + 1;
    r->bytes -= row->kv->len;
    bns_rcbuf_put(row->kv);
    r->head = (r->head + 1) & (ETCD_RECENT_ROWS - 1);
    r->count--;
}

int etcd_recent_begin(struct etcd_recent *r, const struct bns_alloc *a, int64_t first)
{
    while (r->count > 0)
        pop(r);
    r->head = 0;
    r->first = first;
    if (r->rows == NULL)
        r->rows = bns_alloc_array(a, ETCD_RECENT_ROWS, sizeof *r->rows);
    return r->rows == NULL ? BNS_E_NOMEM : BNS_OK;
}

void etcd_recent_free(struct etcd_recent *r, const struct bns_alloc *a)
{
    while (r->count > 0)
        pop(r);
    bns_free(a, r->rows);
    r->rows = NULL;
}

void etcd_recent_add(struct etcd_recent *r, const struct etcd_row *row)
{
    while (r->count == ETCD_RECENT_ROWS || (r->count > 0 && r->bytes > r->bytes_max))
        pop(r);
    *slot(r, r->count) = (struct etcd_row){row->main, row->sub, bns_rcbuf_get(row->kv)};
    r->count++;
    r->bytes += row->kv->len;
}

const struct etcd_row *etcd_recent_at(const struct etcd_recent *r, size_t i)
{
    BNS_ASSERT(i < r->count);
    return slot(r, i);
}

size_t etcd_recent_seek(const struct etcd_recent *r, int64_t main, uint32_t sub)
{
    size_t lo = 0, hi = r->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct etcd_row *row = slot(r, mid);
        if (row->main < main || (row->main == main && row->sub < sub))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct bns_rcbuf *etcd_recent_find(const struct etcd_recent *r, int64_t main, uint32_t sub)
{
    size_t i = etcd_recent_seek(r, main, sub);
    const struct etcd_row *row = i < r->count ? slot(r, i) : NULL;

    return row != NULL && row->main == main && row->sub == sub ? row->kv : NULL;
}
