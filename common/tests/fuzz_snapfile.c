/* fuzz_snapfile.c - any bytes as a snapshot file: refused or read, never a crash.
 *
 * The first byte chooses: with bit 0 set, the checksums of header, footer and index are made right
 * first, so that the fuzzer gets behind them. */
#include "base/crc32c.h"
#include "base/varint.h"
#include "sim/vfs_mem.h"
#include "store/snapfile.h"
#include "tests/fuzz.h"

static void fix(uint8_t *p, size_t len)
{
    size_t foot = len - 56;
    uint64_t index = bns_get_u64le(p + foot + 32);
    uint32_t meta = bns_get_u32le(p + 16);

    if (meta <= len - 32)
        bns_put_u32le(p + 20, bns_crc32c(0, p + 32, meta));
    bns_put_u32le(p, bns_crc32c(0, p + 4, 28));
    if (index <= foot)
        bns_put_u32le(p + foot + 4, bns_crc32c(0, p + index, foot - (size_t)index));
    bns_put_u32le(p + foot, bns_crc32c(0, p + foot + 4, 52));
}

static void read_all(struct bns_snap_reader *r)
{
    static uint8_t chunk[BNS_SNAP_CHUNK_MAX];
    struct bns_snap_info info;
    struct bns_err err;

    bns_snap_info(r, &info);
    BNS_ASSERT(bns_snap_meta(r).len <= BNS_SNAP_META_MAX);
    for (uint64_t i = 0; i < info.chunks; i++) {
        size_t len = 0;
        int rv = bns_snap_read(r, i, chunk, &len, &err);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CORRUPT);
        BNS_ASSERT(rv != BNS_OK || len <= sizeof chunk);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct bns_snap_reader *r = NULL;
    struct bns_file *f = NULL;
    struct bns_vfs *v = NULL;
    struct bns_slice bytes;
    struct bns_err err;
    uint8_t *copy;
    int rv;

    if (size < 1 || size > 1u << 20)
        return 0;
    copy = bns_alloc(alloc, size);
    BNS_ASSERT(copy != NULL);
    memcpy(copy, data, size);
    if ((data[0] & 1) != 0 && size - 1 >= 88)
        fix(copy + 1, size - 1);
    bytes = bns_slice(copy + 1, size - 1);
    rv = bns_vfs_mem_new(alloc, 1, &v);
    BNS_ASSERT(rv == BNS_OK);
    rv = bns_vfs_open(v, "s", BNS_OPEN_CREATE, &f, &err);
    BNS_ASSERT(rv == BNS_OK);
    rv = bns_file_write_at(f, 0, &bytes, 1, &err);
    BNS_ASSERT(rv == BNS_OK);
    bns_file_close(f);
    rv = bns_snap_open(v, alloc, "s", &r, &err);
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CORRUPT || rv == BNS_E_UNSUPPORTED);
    if (rv == BNS_OK)
        read_all(r);
    bns_snap_close(r);
    bns_vfs_mem_free(v);
    bns_free(alloc, copy);
    return 0;
}
