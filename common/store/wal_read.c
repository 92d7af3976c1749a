/* wal_read.c - reads the segments of a log one by one and judges where each ends.
 *
 * Used by bns_wal_open() and by the offline tools. A segment is read whole: it is at most a few
 * times 16 MiB, its size is checked against its header first, and the walk over bytes in memory is
 * the same code that the fuzzer drives. The rules of the judgement are at the top of wal_open.c.
 */
#include <string.h>

#include "store/wal_impl.h"

#define ZERO_BYTES (64u * 1024)

static int push_u64(const struct bns_alloc *alloc, uint64_t **list, size_t *count, size_t *cap,
                    uint64_t v)
{
    if (*count == *cap) {
        size_t more = *cap == 0 ? 16 : *cap * 2;
        uint64_t *p = bns_resize(alloc, *list, more * sizeof *p);
        if (p == NULL)
            return BNS_E_NOMEM;
        *list = p;
        *cap = more;
    }
    (*list)[(*count)++] = v;
    return BNS_OK;
}

/* "wal-<decimal>.tmp", as bns_wal_spare_path() writes it. */
static bool spare_parse(const char *name, uint64_t *no)
{
    size_t len = strlen(name);

    if (len < 9 || len > 27 || memcmp(name, "wal-", 4) != 0 || strcmp(name + len - 4, ".tmp") != 0)
        return false;
    *no = 0;
    for (size_t i = 4; i < len - 4; i++) {
        if (name[i] < '0' || name[i] > '9')
            return false;
        if (__builtin_mul_overflow(*no, 10u, no) ||
            __builtin_add_overflow(*no, (uint64_t)(name[i] - '0'), no))
            return false;
    }
    return true;
}

static int on_name(void *arg, const char *name)
{
    struct bns_wal_reader *r = arg;
    uint64_t v;

    if (bns_wal_name_parse(name, &v))
        return push_u64(r->alloc, &r->lsns, &r->count, &r->cap, v);
    if (spare_parse(name, &v))
        return push_u64(r->alloc, &r->spares, &r->spares_count, &r->spares_cap, v);
    return BNS_OK; /* not ours */
}

int bns_wal_reader_open(struct bns_wal_reader *r, struct bns_vfs *vfs,
                        const struct bns_alloc *alloc, const char *dir, struct bns_err *err)
{
    int rv;

    *r = (struct bns_wal_reader){.vfs = vfs, .alloc = alloc, .dir = dir};
    if (strlen(dir) > WAL_DIR_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of the log longer than %d bytes",
                           dir, WAL_DIR_MAX);
    rv = bns_vfs_list(vfs, dir, on_name, r, err); /* sorted by name is sorted by lsn */
    if (rv == BNS_E_NOMEM)
        rv = bns_err_set(err, rv, "%s: no memory for the list of segments", dir);
    return rv;
}

void bns_wal_reader_close(struct bns_wal_reader *r)
{
    bns_free(r->alloc, r->lsns);
    bns_free(r->alloc, r->spares);
    bns_free(r->alloc, r->buf);
}

int bns_wal_corrupt(const struct bns_wal_reader *r, uint64_t off, uint64_t lsn, const char *what,
                    struct bns_err *err)
{
    return bns_err_set(err, BNS_E_CORRUPT,
                       "%s: offset %llu, lsn %llu: %s; copy the directory, then run: "
                       "bonsai wal repair %s",
                       r->name, (unsigned long long)off, (unsigned long long)lsn, what, r->dir);
}

static int buf_reserve(struct bns_wal_reader *r, size_t bytes, struct bns_err *err)
{
    if (r->buf_cap >= bytes)
        return BNS_OK;
    bns_free(r->alloc, r->buf);
    r->buf_cap = 0;
    r->buf = bns_alloc(r->alloc, bytes);
    if (r->buf == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory to read %zu bytes", r->name, bytes);
    r->buf_cap = bytes;
    return BNS_OK;
}

static int check_header(struct bns_wal_reader *r, size_t i, uint64_t size, struct bns_err *err)
{
    uint64_t lsn = r->lsns[i];
    int rv = bns_wal_header_get(r->buf, &r->header);

    if (rv == BNS_E_UNSUPPORTED)
        return bns_err_set(err, rv,
                           "%s/%s: the log has format version %u, this program has version %u: "
                           "start the program that wrote it",
                           r->dir, r->name, bns_get_u32le(r->buf + 4), WAL_VERSION);
    if (rv != BNS_OK)
        return bns_wal_corrupt(r, 0, lsn, "the segment header fails its checksum", err);
    if (r->header.first_lsn != lsn)
        return bns_wal_corrupt(r, 0, lsn, "the header is that of another segment", err);
    if (r->know_log_id && memcmp(r->log_id, r->header.log_id, sizeof r->log_id) != 0)
        return bns_wal_corrupt(r, 0, lsn, "the segment belongs to another log", err);
    if (size != r->header.bytes)
        return bns_wal_corrupt(r, size, lsn, "the file does not have the size in its header", err);
    memcpy(r->log_id, r->header.log_id, sizeof r->log_id);
    r->know_log_id = true;
    return BNS_OK;
}

static int load_file(struct bns_wal_reader *r, size_t i, struct bns_file *f, struct bns_err *err)
{
    uint64_t size = 0;
    size_t got = 0;
    int rv = bns_file_size(f, &size, err);

    if (rv != BNS_OK)
        return rv;
    if (size < WAL_HEADER_BYTES || size > WAL_SEGMENT_LIMIT)
        return bns_wal_corrupt(r, 0, r->lsns[i], "the file cannot be a segment of that size", err);
    rv = buf_reserve(r, (size_t)size, err);
    if (rv == BNS_OK)
        rv = bns_file_read_at(f, 0, r->buf, (size_t)size, &got, err);
    if (rv != BNS_OK)
        return rv;
    if (got != size)
        return bns_err_set(err, BNS_E_IO, "%s/%s: read ended early", r->dir, r->name);
    return check_header(r, i, size, err);
}

int bns_wal_reader_load(struct bns_wal_reader *r, size_t i, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    struct bns_file *f = NULL;
    int rv;

    BNS_ASSERT(i < r->count);
    bns_wal_name(r->name, r->lsns[i]);
    bns_wal_path(path, r->dir, r->name);
    rv = bns_vfs_open(r->vfs, path, BNS_OPEN_READ, &f, err);
    if (rv != BNS_OK)
        return rv;
    rv = load_file(r, i, f, err);
    bns_file_close(f);
    return rv;
}

/* Delivers the whole batch that starts at `from`, whose records were just verified. */
static int deliver(struct bns_wal_scan from, uint32_t end, bns_wal_walk_fn *fn, void *arg)
{
    from.skip_body = true;
    while (from.off < end) {
        struct bns_wal_head h;
        struct bns_slice payload;
        uint32_t off = from.off;
        bool ok = bns_wal_scan_next(&from, &h, &payload);
        int rv;

        BNS_ASSERT(ok);
        rv = fn(arg, off, &h, payload);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

int bns_wal_walk(const struct bns_wal_reader *r, struct bns_wal_walk *walk, bool skip_body,
                 bns_wal_walk_fn *fn, void *arg)
{
    struct bns_wal_scan *s = &walk->scan, batch;
    struct bns_wal_head h;
    struct bns_slice payload;

    bns_wal_scan_init(s, r->buf, &r->header);
    s->skip_body = skip_body;
    batch = *s;
    walk->durable_max = r->header.prev_last_lsn;
    while (bns_wal_scan_next(s, &h, &payload)) {
        if (h.durable > walk->durable_max)
            walk->durable_max = h.durable;
        if ((h.flags & WAL_FLAG_CONTINUES) != 0)
            continue;
        if (fn != NULL) {
            int rv = deliver(batch, s->off, fn, arg);
            if (rv != BNS_OK)
                return rv;
        }
        batch = *s;
    }
    walk->batch_off = batch.off;
    walk->batch_prev_crc = batch.prev_crc;
    walk->batch_lsn = batch.lsn;
    return BNS_OK;
}

int bns_wal_judge(const struct bns_wal_reader *r, struct bns_wal_walk *walk, size_t i,
                  struct bns_err *err)
{
    const struct bns_wal_scan *s = &walk->scan;
    struct bns_wal_scan rest = *s;
    uint64_t proof = 0;

    walk->dirt_end = rest.off = walk->batch_off;
    if (i + 1 < r->count && walk->batch_lsn == r->lsns[i + 1])
        return BNS_OK;
    walk->dirt_end = bns_wal_scan_dirt(&rest);
    if (i + 1 < r->count) { /* rule 3 */
        return bns_wal_corrupt(r, s->off, s->lsn, "the segment ends before the next one begins",
                               err);
    }
    if (bns_wal_scan_proof(s, s->lsn, &proof)) /* rule 1 */
        return bns_wal_corrupt(r, s->off, s->lsn,
                               "the record is damaged, and a later one proves it was durable", err);
    if (walk->batch_off == WAL_HEADER_BYTES) /* rule 3 */
        return bns_wal_corrupt(r, s->off, s->lsn, "the segment has lost its checkpoint", err);
    return BNS_OK; /* rule 2: torn when dirt_end > batch_off */
}

int bns_wal_zero(struct bns_file *f, const uint8_t *buf, uint32_t off, uint32_t end,
                 struct bns_err *err)
{
    static const uint8_t zeros[ZERO_BYTES];

    while (end > off && buf[end - 1] == 0)
        end--;
    while (off < end) {
        uint32_t len = end - off < ZERO_BYTES ? end - off : ZERO_BYTES;
        struct bns_slice v = bns_slice(zeros, len);
        int rv = bns_file_write_at(f, off, &v, 1, err);
        if (rv != BNS_OK)
            return rv;
        off += len;
    }
    return bns_file_sync(f, true, err);
}
