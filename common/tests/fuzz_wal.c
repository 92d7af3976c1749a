/* fuzz_wal.c - any bytes as the segments of a log: opened or refused, never a crash.
 *
 * Input: u8 flags, u8 share of the first segment (in 1/255), then the bytes of one or two segments.
 * With flag 1 the header's checksum, size and first lsn are made right; with flag 2 the checksums
 * of the records as well, as far as their lengths lead, so that the fuzzer gets behind them; with
 * flag 16 the file is one that was used before. What opens must pass visit before and open again
 * afterwards; what is refused must open after repair. */
#include "base/crc32c.h"
#include "store/wal_impl.h"
#include "store_env.h"
#include "tests/fuzz.h"

#define LSN_FIRST 7u

static void fix_records(uint8_t *p, size_t len, uint32_t salt)
{
    uint32_t prev = bns_get_u32le(p);
    uint64_t lsn = bns_get_u64le(p + 16);

    for (size_t off = WAL_HEADER_BYTES; len - off >= WAL_HEAD_BYTES;) {
        uint32_t body = bns_get_u32le(p + off + 24) % 512;
        if (bns_wal_framed(body) > len - off)
            return;
        bns_put_u32le(p + off + 24, body);
        bns_put_u64le(p + off + 8, lsn++);
        bns_put_u32le(p + off + 4, bns_crc32c(salt, p + off + WAL_HEAD_BYTES, body));
        bns_put_u32le(p + off + 32, prev);
        bns_put_u32le(p + off, bns_crc32c(salt, p + off + 4, WAL_HEAD_BYTES - 4));
        prev = bns_get_u32le(p + off);
        off += bns_wal_framed(body);
    }
}

static void put_segment(struct bns_vfs *v, uint8_t *p, size_t len, uint64_t lsn, uint8_t flags)
{
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX];
    struct bns_slice bytes = bns_slice(p, len);
    struct bns_file *f = NULL;
    int rv;

    if ((flags & 1) != 0 && len >= WAL_HEADER_BYTES) {
        struct bns_wal_header h = {.first_lsn = lsn, .prev_last_lsn = lsn - 1, .salt = 5};
        h.bytes = (uint32_t)len;
        h.flags = (flags & 16) != 0 ? WAL_SEGMENT_REUSED : 0;
        bns_wal_header_put(p, &h);
        if ((flags & 2) != 0)
            fix_records(p, len, h.salt);
    }
    bns_wal_name(name, lsn);
    bns_wal_path(path, "w", name);
    rv = bns_vfs_open(v, path, BNS_OPEN_CREATE, &f, NULL);
    BNS_ASSERT(rv == BNS_OK);
    rv = bns_file_write_at(f, 0, &bytes, 1, NULL);
    BNS_ASSERT(rv == BNS_OK);
    bns_file_close(f);
}

static int replay(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice payload)
{
    uint64_t *sum = arg;

    BNS_ASSERT(type >= BNS_WAL_ENTRY);
    BNS_ASSERT(type <= BNS_WAL_SNAPMARK);
    *sum += lsn + group + bns_crc32c(0, payload.ptr, payload.len);
    return BNS_OK;
}

static void closed(void *arg)
{
    *(bool *)arg = true;
}

static int open_and_close(struct bns_vfs *v, uint64_t *sum)
{
    struct bns_wal_config cfg = {.dir = "w", .segment_bytes_max = WAL_SEGMENT_MIN};
    struct bns_wal *w = NULL;
    struct bns_err err = {0};
    struct senv s;
    bool done = false;
    size_t leaked;
    int rv;

    senv_init(&s, v, 1, 0);
    *sum = 0;
    rv = bns_wal_open(&s.env, &cfg, replay, sum, &w, &err);
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CORRUPT || rv == BNS_E_UNSUPPORTED);
    if (rv == BNS_OK) {
        bns_wal_close(w, closed, &done);
        senv_pump(&s);
        BNS_ASSERT(done);
    }
    leaked = senv_free(&s, NULL);
    BNS_ASSERT(leaked == 0);
    return rv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct bns_vfs *v = NULL;
    uint64_t lost = 0, sum = 0, again = 0;
    uint8_t *copy;
    size_t first;
    int rv, seen;

    if (size < 3 || size > 1u << 18)
        return 0;
    copy = bns_alloc(alloc, size);
    BNS_ASSERT(copy != NULL);
    memcpy(copy, data, size);
    rv = bns_vfs_mem_new(alloc, 1, &v);
    BNS_ASSERT(rv == BNS_OK);
    rv = bns_vfs_mkdir(v, "w", NULL);
    BNS_ASSERT(rv == BNS_OK);
    first = (size - 2) * data[1] / 255 & ~(size_t)7;
    put_segment(v, copy + 2, first, LSN_FIRST, data[0]);
    if ((data[0] & 4) != 0)
        put_segment(v, copy + 2 + first, (size - 2 - first) & ~(size_t)7,
                    LSN_FIRST + 1 + (data[0] >> 5), data[0]);
    seen = bns_wal_visit(v, alloc, "w", NULL, NULL, NULL);
    rv = open_and_close(v, &sum);
    BNS_ASSERT(rv != BNS_OK || seen == BNS_OK);
    if (rv == BNS_OK) {
        rv = open_and_close(v, &again);
        BNS_ASSERT(rv == BNS_OK);
        BNS_ASSERT(sum == again);
    } else if (seen == BNS_E_CORRUPT) {
        rv = bns_wal_repair(v, alloc, "w", &lost, NULL);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_UNSUPPORTED);
        seen = bns_wal_visit(v, alloc, "w", NULL, NULL, NULL);
        BNS_ASSERT(rv != BNS_OK || seen == BNS_OK);
    }
    bns_vfs_mem_free(v);
    bns_free(alloc, copy);
    return 0;
}
