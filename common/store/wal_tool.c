/* wal_tool.c - looks at a log, or cuts it, without opening it for writing.
 *
 * visit judges with the same code and rules as a start (wal_open.c), so that "verify" says what the
 * next start will say. repair gives up everything from the first invalid record on: later segments
 * are removed first, newest first, and the damaged one is cut last, so that a repair that is
 * interrupted leaves a log that still says it is corrupt.
 */
#include <string.h>

#include "store/wal_impl.h"

struct visit {
    const struct bns_wal_reader *reader;
    bns_wal_visit_fn *fn;
    void *arg;
};

static int on_record(void *arg, uint32_t off, const struct bns_wal_head *h,
                     struct bns_slice payload)
{
    struct visit *v = arg;

    return v->fn(v->arg, v->reader->name, off, h->lsn, h->group, h->type, payload);
}

int bns_wal_visit(struct bns_vfs *vfs, const struct bns_alloc *alloc, const char *dir,
                  bns_wal_visit_fn *fn, void *arg, struct bns_err *err)
{
    struct bns_wal_reader r;
    struct visit v = {.reader = &r, .fn = fn, .arg = arg};
    int rv = bns_wal_reader_open(&r, vfs, alloc, dir, err);

    for (size_t i = 0; rv == BNS_OK && i < r.count; i++) {
        struct bns_wal_walk walk;
        rv = bns_wal_reader_load(&r, i, err);
        if (rv == BNS_OK)
            rv = bns_wal_walk(&r, &walk, false, fn == NULL ? NULL : on_record, &v);
        if (rv == BNS_OK)
            rv = bns_wal_judge(&r, &walk, i, err);
    }
    bns_wal_reader_close(&r);
    return rv;
}

/* ---- repair ---------------------------------------------------------------------------------- */

static int open_segment(struct bns_wal_reader *r, size_t i, struct bns_file **out,
                        struct bns_err *err)
{
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX];

    bns_wal_name(name, r->lsns[i]);
    bns_wal_path(path, r->dir, name);
    return bns_vfs_open(r->vfs, path, BNS_OPEN_WRITE, out, err);
}

/* A segment whose header is whole but whose file has another size gets the size back; what is
 * missing becomes zeros, which the walk then judges. *fixed tells whether it was so. */
static int fix_size(struct bns_wal_reader *r, size_t i, bool *fixed, struct bns_err *err)
{
    uint8_t bytes[WAL_HEADER_BYTES];
    struct bns_wal_header h;
    struct bns_file *f = NULL;
    uint64_t size = 0;
    size_t got = 0;
    int rv = open_segment(r, i, &f, err);

    *fixed = false;
    if (rv != BNS_OK)
        return rv;
    rv = bns_file_size(f, &size, err);
    if (rv == BNS_OK)
        rv = bns_file_read_at(f, 0, bytes, sizeof bytes, &got, err);
    if (rv != BNS_OK || got != sizeof bytes || bns_wal_header_get(bytes, &h) != BNS_OK)
        goto out;
    if (h.bytes == size || h.first_lsn != r->lsns[i])
        goto out;
    rv = bns_file_truncate(f, h.bytes, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    *fixed = rv == BNS_OK;
out:
    bns_file_close(f);
    return rv;
}

static int remove_from(struct bns_wal_reader *r, size_t first, uint64_t *lost, struct bns_err *err)
{
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX];

    for (size_t i = r->count; i > first; i--) {
        struct bns_file_stat st = {0};
        int rv;
        bns_wal_name(name, r->lsns[i - 1]);
        bns_wal_path(path, r->dir, name);
        rv = bns_vfs_stat(r->vfs, path, &st, err);
        if (rv == BNS_OK)
            rv = bns_vfs_remove(r->vfs, path, err);
        if (rv == BNS_OK)
            rv = bns_vfs_sync_dir(r->vfs, r->dir, err);
        if (rv != BNS_OK)
            return rv;
        *lost += st.size;
    }
    return BNS_OK;
}

/* Segment i is loaded and walked: everything behind its last whole batch goes. */
static int cut(struct bns_wal_reader *r, size_t i, const struct bns_wal_walk *walk, uint64_t *lost,
               struct bns_err *err)
{
    uint32_t end = walk->dirt_end;
    struct bns_file *f = NULL;
    int rv = remove_from(r, i + 1, lost, err);

    if (rv == BNS_OK)
        rv = open_segment(r, i, &f, err);
    if (rv != BNS_OK)
        return rv;
    while (end > walk->batch_off && r->buf[end - 1] == 0)
        end--; /* for the count */
    *lost += end - walk->batch_off;
    rv = bns_wal_zero(f, r->buf, walk->batch_off, end, err);
    bns_file_close(f);
    return rv;
}

/* Judges segment i; a damaged one is cut and *stop set. */
static int repair_one(struct bns_wal_reader *r, size_t i, bool *stop, uint64_t *lost,
                      struct bns_err *err)
{
    struct bns_wal_walk walk;
    bool fixed;
    int rv = fix_size(r, i, &fixed, err);

    if (rv != BNS_OK)
        return rv;
    rv = bns_wal_reader_load(r, i, err);
    if (rv == BNS_E_CORRUPT) {
        *stop = true;
        return remove_from(r, i, lost, err);
    }
    if (rv == BNS_OK)
        rv = bns_wal_walk(r, &walk, false, NULL, NULL);
    if (rv == BNS_OK)
        rv = bns_wal_judge(r, &walk, i, err);
    if (rv != BNS_E_CORRUPT)
        return rv;
    *stop = true;
    if (walk.batch_off == WAL_HEADER_BYTES)
        return remove_from(r, i, lost, err); /* a segment cannot be without its checkpoint */
    return cut(r, i, &walk, lost, err);
}

int bns_wal_repair(struct bns_vfs *vfs, const struct bns_alloc *alloc, const char *dir,
                   uint64_t *lost_bytes, struct bns_err *err)
{
    struct bns_wal_reader r;
    bool stop = false;
    int rv = bns_wal_reader_open(&r, vfs, alloc, dir, err);

    *lost_bytes = 0;
    for (size_t i = 0; rv == BNS_OK && !stop && i < r.count; i++)
        rv = repair_one(&r, i, &stop, lost_bytes, err);
    bns_wal_reader_close(&r);
    return rv;
}
