/* index.c - the sparse indexes of a segment. */
#include "log/index.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/varint.h"

#define ENTRY_MAX KAFKA_TIME_ENTRY

int kafka_home_path(const struct kafka_home *d, int64_t base, const char *suffix, char *to,
                    struct bns_err *err)
{
    int n = snprintf(to, BNS_PATH_MAX, "%s/%020" PRId64 "%s", d->path, base, suffix);

    if (n < 0 || n >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of a log too long", d->path);
    return BNS_OK;
}

static bool of_times(const struct kafka_index *ix)
{
    return ix->entry_bytes == KAFKA_TIME_ENTRY;
}

static struct kafka_entry none(const struct kafka_index *ix)
{
    return of_times(ix) ? (struct kafka_entry){-1, ix->base} : (struct kafka_entry){ix->base, 0};
}

static struct kafka_entry decode(const struct kafka_index *ix, const uint8_t *p)
{
    if (of_times(ix))
        return (struct kafka_entry){(int64_t)bns_get_u64be(p),
                                    ix->base + (int32_t)bns_get_u32be(p + 8)};
    return (struct kafka_entry){ix->base + (int32_t)bns_get_u32be(p),
                                (int32_t)bns_get_u32be(p + 4)};
}

static void encode(const struct kafka_index *ix, struct kafka_entry e, uint8_t *p)
{
    if (of_times(ix)) {
        bns_put_u64be(p, (uint64_t)e.key);
        bns_put_u32be(p + 8, (uint32_t)(e.value - ix->base));
    } else {
        bns_put_u32be(p, (uint32_t)(e.key - ix->base));
        bns_put_u32be(p + 4, (uint32_t)e.value);
    }
}

int kafka_index_get(struct kafka_index *ix, uint32_t i, struct kafka_entry *out,
                    struct bns_err *err)
{
    uint8_t b[ENTRY_MAX];
    size_t got = 0;
    int rv;

    BNS_ASSERT(i < ix->count);
    if (i >= ix->stored) {
        *out = decode(ix, ix->pending + (size_t)(i - ix->stored) * ix->entry_bytes);
        return BNS_OK;
    }
    rv = bns_file_read_at(ix->file, (uint64_t)i * ix->entry_bytes, b, ix->entry_bytes, &got, err);
    if (rv != BNS_OK)
        return rv;
    if (got != ix->entry_bytes)
        return bns_err_set(err, BNS_E_CORRUPT, "%s: an index became shorter", ix->dir->path);
    *out = decode(ix, b);
    return BNS_OK;
}

/* The last entry; it has to be greater than the one before, which zeros of a file that was made
 * long beforehand are not. */
static int read_last(struct kafka_index *ix, struct bns_err *err)
{
    struct kafka_entry before = none(ix);
    int rv = BNS_OK;

    ix->last = before;
    if (ix->count == 0)
        return BNS_OK;
    if (ix->count > 1)
        rv = kafka_index_get(ix, ix->count - 2, &before, err);
    if (rv == BNS_OK)
        rv = kafka_index_get(ix, ix->count - 1, &ix->last, err);
    if (rv == BNS_OK && (ix->last.key <= before.key || ix->last.value <= before.value) &&
        (ix->count > 1 || !of_times(ix) || ix->last.key < 0 || ix->last.value < ix->base))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: the last entry of an index is not the greatest",
                         ix->dir->path);
    return rv;
}

int kafka_index_open(struct kafka_index *ix, const struct kafka_home *dir, int64_t base,
                     uint32_t entry_bytes, int flags, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    uint64_t size = 0;
    int open = (flags & KAFKA_INDEX_MAKE) != 0 ? BNS_OPEN_CREATE : BNS_OPEN_WRITE;
    int rv;

    *ix = (struct kafka_index){.dir = dir, .base = base, .entry_bytes = entry_bytes};
    if ((flags & KAFKA_INDEX_EMPTY) != 0)
        open |= BNS_OPEN_TRUNC;
    rv = kafka_home_path(dir, base, of_times(ix) ? ".timeindex" : ".index", path, err);
    if (rv == BNS_OK)
        rv = bns_vfs_open(dir->vfs, path, open, &ix->file, err);
    if (rv == BNS_OK)
        rv = bns_file_size(ix->file, &size, err);
    if (rv == BNS_OK && (size % entry_bytes != 0 || size / entry_bytes > INT32_MAX))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: %" PRIu64 " bytes are no entries", path, size);
    if (rv != BNS_OK)
        goto fail;
    ix->count = ix->stored = (uint32_t)(size / entry_bytes);
    ix->dirty = (flags & KAFKA_INDEX_EMPTY) != 0;
    rv = read_last(ix, err);
    if (rv == BNS_OK)
        return BNS_OK;

fail:
    kafka_index_close(ix);
    return rv;
}

void kafka_index_close(struct kafka_index *ix)
{
    bns_file_close(ix->file);
    if (ix->pending != NULL)
        bns_free(ix->dir->alloc, ix->pending);
    ix->file = NULL;
    ix->pending = NULL;
    ix->count = ix->stored;
}

int kafka_index_find(struct kafka_index *ix, int64_t key, bool by_value, uint32_t *out,
                     struct bns_err *err)
{
    uint32_t low = 0, high = ix->count; /* entries before low are <= key, from high on > key */
    struct kafka_entry e;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int rv = kafka_index_get(ix, mid, &e, err);
        if (rv != BNS_OK)
            return rv;
        if ((by_value ? e.value : e.key) <= key)
            low = mid + 1;
        else
            high = mid;
    }
    *out = low;
    return BNS_OK;
}

int kafka_index_add(struct kafka_index *ix, struct kafka_entry e, struct bns_err *err)
{
    size_t bytes = (size_t)KAFKA_INDEX_PENDING * ix->entry_bytes;
    uint32_t waiting = ix->count - ix->stored;
    int rv;

    if (ix->count > 0 ? e.key <= ix->last.key || e.value <= ix->last.value
                      : of_times(ix) && e.key < 0)
        return BNS_OK;
    if (waiting == KAFKA_INDEX_PENDING) {
        rv = kafka_index_store(ix, err);
        if (rv != BNS_OK)
            return rv;
        waiting = 0;
    }
    if (ix->pending == NULL) {
        ix->pending = bns_alloc(ix->dir->alloc, bytes);
        if (ix->pending == NULL)
            return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for an index", ix->dir->path);
    }
    encode(ix, e, ix->pending + (size_t)waiting * ix->entry_bytes);
    ix->count++;
    ix->last = e;
    return BNS_OK;
}

int kafka_index_store(struct kafka_index *ix, struct bns_err *err)
{
    struct bns_slice v = {ix->pending, (size_t)(ix->count - ix->stored) * ix->entry_bytes};
    int rv;

    if (v.len == 0)
        return BNS_OK;
    ix->dirty = true;
    rv = bns_file_write_at(ix->file, (uint64_t)ix->stored * ix->entry_bytes, &v, 1, err);
    if (rv == BNS_OK)
        ix->stored = ix->count;
    return rv;
}

int kafka_index_sync(struct kafka_index *ix, struct bns_err *err)
{
    int rv = kafka_index_store(ix, err);

    if (rv == BNS_OK && ix->dirty)
        rv = bns_file_sync(ix->file, true, err);
    if (rv == BNS_OK)
        ix->dirty = false;
    return rv;
}

int kafka_index_cut(struct kafka_index *ix, uint32_t count, struct bns_err *err)
{
    int rv = BNS_OK;

    BNS_ASSERT(count <= ix->count);
    if (count < ix->stored) {
        ix->dirty = true;
        rv = bns_file_truncate(ix->file, (uint64_t)count * ix->entry_bytes, err);
        if (rv != BNS_OK)
            return rv;
        ix->stored = count;
    }
    ix->count = count;
    return read_last(ix, err);
}
