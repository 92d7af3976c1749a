/* snapfile.c - snapshot files: whole or absent, every byte read is verified.
 *
 * Layout, little-endian, every part aligned to 8 and padded with zeros:
 *
 *   header, 32 bytes   0 u32 crc32c of bytes 4..31   4 u32 version = 1   8 char magic "BNSSNAP\1"
 *                     16 u32 meta_len   20 u32 crc32c of meta   24 zeros
 *   meta               the owner's bytes, at most 64 KiB
 *   chunk, any number  0 u32 crc32c of bytes 4..23   4 u32 crc32c of the body   8 u32 len
 *                     12 u32 zero   16 u64 number, from 0; then len bytes, at most 256 KiB
 *   index              u64 offset of each chunk
 *   footer, 56 bytes   0 u32 crc32c of bytes 4..55   4 u32 crc32c of the index
 *                      8 char magic "BNSSEND\1"   16 u64 chunks   24 u64 bytes of all chunks
 *                     32 u64 offset of the index   40 u32 crc32c of all chunks' bytes, in order
 *                     44 zeros
 *
 * The writer works on <path>.tmp; commit syncs it, renames it and syncs the directory, in this
 * order: a crash leaves the former file or the new one, and at worst a .tmp that the next create
 * overwrites. A chunk's number stands in its head, so that a well-formed chunk in the wrong place
 * is found out.
 */
#include "store/snapfile.h"

#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/env.h"
#include "base/varint.h"

#define HEADER_BYTES 32u
#define CHUNK_HEAD_BYTES 24u
#define FOOTER_BYTES 56u
#define MUTANT_NO_DIR_SYNC 15

static const uint8_t magic_head[8] = {'B', 'N', 'S', 'S', 'N', 'A', 'P', 1};
static const uint8_t magic_foot[8] = {'B', 'N', 'S', 'S', 'E', 'N', 'D', 1};
static const uint8_t zeros[8];

struct bns_snap_writer {
    struct bns_vfs *vfs;
    const struct bns_alloc *alloc;
    struct bns_file *file;
    uint64_t off;
    uint64_t *index;
    size_t index_cap;
    struct bns_snap_info info;
    uint32_t mutant;
    char path[BNS_PATH_MAX], tmp[BNS_PATH_MAX];
};

struct bns_snap_reader {
    const struct bns_alloc *alloc;
    struct bns_file *file;
    uint64_t *index; /* info.chunks offsets and, behind them, where the index begins */
    struct bns_snap_info info;
    uint8_t *meta;
    uint32_t meta_len;
    char path[BNS_PATH_MAX];
};

static uint64_t padded(uint64_t len)
{
    return (len + 7) & ~UINT64_C(7);
}

/* ---- writing --------------------------------------------------------------------------------- */

static int put(struct bns_snap_writer *w, struct bns_slice head, struct bns_slice body,
               struct bns_err *err)
{
    struct bns_slice v[3] = {head, body, bns_slice(zeros, (size_t)(padded(body.len) - body.len))};
    int rv = bns_file_write_at(w->file, w->off, v, 3, err);

    if (rv == BNS_OK)
        w->off += head.len + padded(body.len);
    return rv;
}

static void writer_free(struct bns_snap_writer *w)
{
    bns_file_close(w->file);
    bns_free(w->alloc, w->index);
    bns_free(w->alloc, w);
}

int bns_snap_create(struct bns_vfs *vfs, const struct bns_alloc *alloc, const char *path,
                    struct bns_slice meta, struct bns_snap_writer **out, struct bns_err *err)
{
    uint8_t head[HEADER_BYTES] = {0};
    struct bns_snap_writer *w;
    int rv;

    BNS_ASSERT(meta.len <= BNS_SNAP_META_MAX);
    if (strlen(path) + 5 > BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of a snapshot too long", path);
    w = bns_alloc_zero(alloc, sizeof *w);
    if (w == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a snapshot", path);
    w->vfs = vfs;
    w->alloc = alloc;
    (void)snprintf(w->path, sizeof w->path, "%s", path); /* length checked above */
    (void)snprintf(w->tmp, sizeof w->tmp, "%.*s.tmp", BNS_PATH_MAX - 5, path);
    rv = bns_vfs_open(vfs, w->tmp, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &w->file, err);
    if (rv != BNS_OK)
        goto fail;
    bns_put_u32le(head + 4, 1);
    memcpy(head + 8, magic_head, sizeof magic_head);
    bns_put_u32le(head + 16, (uint32_t)meta.len);
    bns_put_u32le(head + 20, bns_crc32c(0, meta.ptr, meta.len));
    bns_put_u32le(head, bns_crc32c(0, head + 4, HEADER_BYTES - 4));
    rv = put(w, bns_slice(head, sizeof head), meta, err);
    if (rv != BNS_OK)
        goto fail;
    *out = w;
    return BNS_OK;

fail:
    bns_snap_abort(w);
    return rv;
}

void bns_snap_set_mutant(struct bns_snap_writer *w, uint32_t mutant)
{
    w->mutant = mutant;
}

static int index_reserve(struct bns_snap_writer *w, struct bns_err *err)
{
    size_t cap = w->index_cap == 0 ? 64 : w->index_cap * 2;
    uint64_t *index;

    if (w->info.chunks < w->index_cap)
        return BNS_OK;
    index = bns_resize(w->alloc, w->index, cap * sizeof *index);
    if (index == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for the index", w->path);
    w->index = index;
    w->index_cap = cap;
    return BNS_OK;
}

int bns_snap_write(struct bns_snap_writer *w, struct bns_slice chunk, struct bns_err *err)
{
    uint8_t head[CHUNK_HEAD_BYTES] = {0};
    uint64_t at = w->off;
    int rv = index_reserve(w, err);

    BNS_ASSERT(chunk.len <= BNS_SNAP_CHUNK_MAX);
    if (rv != BNS_OK)
        return rv;
    bns_put_u32le(head + 4, bns_crc32c(0, chunk.ptr, chunk.len));
    bns_put_u32le(head + 8, (uint32_t)chunk.len);
    bns_put_u64le(head + 16, w->info.chunks);
    bns_put_u32le(head, bns_crc32c(0, head + 4, sizeof head - 4));
    rv = put(w, bns_slice(head, sizeof head), chunk, err);
    if (rv != BNS_OK)
        return rv;
    bns_put_u64le(&w->index[w->info.chunks], at);
    w->info.chunks++;
    w->info.bytes += chunk.len;
    w->info.crc = bns_crc32c(w->info.crc, chunk.ptr, chunk.len);
    return BNS_OK;
}

static int sync_parent(struct bns_snap_writer *w, struct bns_err *err)
{
    char dir[BNS_PATH_MAX];
    const char *slash = strrchr(w->path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - w->path);

    if (slash == NULL)
        return bns_vfs_sync_dir(w->vfs, ".", err);
    if (len == 0)
        len = 1; /* the root */
    memcpy(dir, w->path, len);
    dir[len] = '\0';
    return bns_vfs_sync_dir(w->vfs, dir, err);
}

int bns_snap_commit(struct bns_snap_writer *w, struct bns_snap_info *info, struct bns_err *err)
{
    uint8_t foot[FOOTER_BYTES] = {0};
    struct bns_slice index = bns_slice(w->index, (size_t)w->info.chunks * 8);
    int rv;

    bns_put_u32le(foot + 4, bns_crc32c(0, index.ptr, index.len));
    memcpy(foot + 8, magic_foot, sizeof magic_foot);
    bns_put_u64le(foot + 16, w->info.chunks);
    bns_put_u64le(foot + 24, w->info.bytes);
    bns_put_u64le(foot + 32, w->off);
    bns_put_u32le(foot + 40, w->info.crc);
    bns_put_u32le(foot, bns_crc32c(0, foot + 4, sizeof foot - 4));
    rv = put(w, index, bns_slice(foot, sizeof foot), err);
    if (rv == BNS_OK)
        rv = bns_file_sync(w->file, false, err);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(w->vfs, w->tmp, w->path, err);
    if (rv != BNS_OK) {
        bns_snap_abort(w);
        return rv;
    }
    if (!BNS_MUTANT(w, MUTANT_NO_DIR_SYNC))
        rv = sync_parent(w, err);
    if (rv == BNS_OK && info != NULL)
        *info = w->info;
    writer_free(w);
    return rv;
}

void bns_snap_abort(struct bns_snap_writer *w)
{
    struct bns_vfs *vfs;
    char tmp[BNS_PATH_MAX];

    if (w == NULL)
        return;
    vfs = w->vfs;
    memcpy(tmp, w->tmp, sizeof tmp);
    writer_free(w);
    if (bns_vfs_remove(vfs, tmp, NULL) != BNS_OK)
        return; /* harmless: the next create of this path overwrites it */
}

/* ---- reading --------------------------------------------------------------------------------- */

static int corrupt(const struct bns_snap_reader *r, uint64_t off, const char *what,
                   struct bns_err *err)
{
    return bns_err_set(err, BNS_E_CORRUPT, "%s: offset %llu: %s", r->path, (unsigned long long)off,
                       what);
}

static int get(struct bns_snap_reader *r, uint64_t off, void *dst, size_t len, struct bns_err *err)
{
    size_t got = 0;
    int rv = bns_file_read_at(r->file, off, dst, len, &got, err);

    if (rv == BNS_OK && got != len)
        rv = corrupt(r, off, "the file ends too early", err);
    return rv;
}

static int read_meta(struct bns_snap_reader *r, uint64_t size, uint64_t *end, struct bns_err *err)
{
    uint8_t head[HEADER_BYTES];
    int rv = get(r, 0, head, sizeof head, err);

    if (rv != BNS_OK)
        return rv;
    if (bns_get_u32le(head) != bns_crc32c(0, head + 4, sizeof head - 4) ||
        memcmp(head + 8, magic_head, sizeof magic_head) != 0)
        return corrupt(r, 0, "the header fails its checksum", err);
    if (bns_get_u32le(head + 4) != 1)
        return bns_err_set(err, BNS_E_UNSUPPORTED,
                           "%s: format version %u is newer than this program", r->path,
                           bns_get_u32le(head + 4));
    r->meta_len = bns_get_u32le(head + 16);
    if (r->meta_len > BNS_SNAP_META_MAX || HEADER_BYTES + padded(r->meta_len) > size)
        return corrupt(r, 16, "the length of the metadata is impossible", err);
    r->meta = bns_alloc(r->alloc, (size_t)r->meta_len + 1);
    if (r->meta == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for the metadata", r->path);
    rv = get(r, HEADER_BYTES, r->meta, r->meta_len, err);
    if (rv == BNS_OK && bns_get_u32le(head + 20) != bns_crc32c(0, r->meta, r->meta_len))
        rv = corrupt(r, HEADER_BYTES, "the metadata fails its checksum", err);
    *end = HEADER_BYTES + padded(r->meta_len);
    return rv;
}

/* The offsets must walk from `begin` to the index in steps that a chunk can have. */
static int check_index(struct bns_snap_reader *r, uint64_t begin, uint64_t index_off,
                       struct bns_err *err)
{
    uint64_t expect_min = begin;

    for (uint64_t i = 0; i <= r->info.chunks; i++) {
        uint64_t at = i < r->info.chunks ? bns_get_u64le(&r->index[i]) : index_off;
        bool ok = i == 0 ? at == begin
                         : at >= expect_min && at - expect_min <= BNS_SNAP_CHUNK_MAX && at % 8 == 0;
        if (!ok)
            return corrupt(r, index_off, "the index is malformed", err);
        r->index[i] = at;
        expect_min = at + CHUNK_HEAD_BYTES;
    }
    return BNS_OK;
}

static int read_index(struct bns_snap_reader *r, uint64_t size, uint64_t begin, struct bns_err *err)
{
    uint8_t foot[FOOTER_BYTES];
    uint64_t foot_off, index_off, index_len;
    int rv;

    if (size < begin + FOOTER_BYTES)
        return corrupt(r, size, "the file ends too early", err);
    foot_off = size - FOOTER_BYTES;
    rv = get(r, foot_off, foot, sizeof foot, err);
    if (rv != BNS_OK)
        return rv;
    if (bns_get_u32le(foot) != bns_crc32c(0, foot + 4, sizeof foot - 4) ||
        memcmp(foot + 8, magic_foot, sizeof magic_foot) != 0)
        return corrupt(r, foot_off, "the footer fails its checksum", err);
    r->info.chunks = bns_get_u64le(foot + 16);
    r->info.bytes = bns_get_u64le(foot + 24);
    r->info.crc = bns_get_u32le(foot + 40);
    index_off = bns_get_u64le(foot + 32);
    if (index_off > foot_off || index_off < begin || r->info.chunks != (foot_off - index_off) / 8 ||
        (foot_off - index_off) % 8 != 0)
        return corrupt(r, foot_off, "the footer names an impossible index", err);
    index_len = foot_off - index_off;
    r->index = bns_alloc(r->alloc, (size_t)index_len + 8);
    if (r->index == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for the index", r->path);
    rv = get(r, index_off, r->index, (size_t)index_len, err);
    if (rv == BNS_OK && bns_get_u32le(foot + 4) != bns_crc32c(0, r->index, (size_t)index_len))
        rv = corrupt(r, index_off, "the index fails its checksum", err);
    return rv == BNS_OK ? check_index(r, begin, index_off, err) : rv;
}

int bns_snap_open(struct bns_vfs *vfs, const struct bns_alloc *alloc, const char *path,
                  struct bns_snap_reader **out, struct bns_err *err)
{
    struct bns_snap_reader *r;
    uint64_t size = 0, begin = 0;
    int rv;

    if (strlen(path) >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of a snapshot too long", path);
    r = bns_alloc_zero(alloc, sizeof *r);
    if (r == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a snapshot", path);
    r->alloc = alloc;
    (void)snprintf(r->path, sizeof r->path, "%s", path); /* length checked above */
    rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &r->file, err);
    if (rv == BNS_OK)
        rv = bns_file_size(r->file, &size, err);
    if (rv == BNS_OK)
        rv = read_meta(r, size, &begin, err);
    if (rv == BNS_OK)
        rv = read_index(r, size, begin, err);
    if (rv != BNS_OK) {
        bns_snap_close(r);
        return rv;
    }
    *out = r;
    return BNS_OK;
}

struct bns_slice bns_snap_meta(const struct bns_snap_reader *r)
{
    return bns_slice(r->meta, r->meta_len);
}

void bns_snap_info(const struct bns_snap_reader *r, struct bns_snap_info *out)
{
    *out = r->info;
}

int bns_snap_read(struct bns_snap_reader *r, uint64_t no, void *dst, size_t *len,
                  struct bns_err *err)
{
    uint8_t head[CHUNK_HEAD_BYTES];
    uint64_t at;
    uint32_t n;
    int rv;

    if (no >= r->info.chunks)
        return bns_err_set(err, BNS_E_INVALID, "%s: chunk %llu of %llu", r->path,
                           (unsigned long long)no, (unsigned long long)r->info.chunks);
    at = r->index[no];
    rv = get(r, at, head, sizeof head, err);
    if (rv != BNS_OK)
        return rv;
    if (bns_get_u32le(head) != bns_crc32c(0, head + 4, sizeof head - 4) ||
        bns_get_u64le(head + 16) != no)
        return corrupt(r, at, "a chunk's head fails its checksum", err);
    n = bns_get_u32le(head + 8);
    if (n > BNS_SNAP_CHUNK_MAX || at + CHUNK_HEAD_BYTES + padded(n) != r->index[no + 1])
        return corrupt(r, at, "a chunk has an impossible length", err);
    rv = get(r, at + CHUNK_HEAD_BYTES, dst, n, err);
    if (rv == BNS_OK && bns_get_u32le(head + 4) != bns_crc32c(0, dst, n))
        rv = corrupt(r, at + CHUNK_HEAD_BYTES, "a chunk fails its checksum", err);
    *len = n;
    return rv;
}

void bns_snap_close(struct bns_snap_reader *r)
{
    if (r == NULL)
        return;
    bns_file_close(r->file);
    bns_free(r->alloc, r->index);
    bns_free(r->alloc, r->meta);
    bns_free(r->alloc, r);
}
