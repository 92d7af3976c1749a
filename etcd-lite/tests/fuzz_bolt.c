/* fuzz_bolt.c - any bytes as a bbolt file: read or refused, never a crash, always an end.
 *
 * The first byte chooses: with bit 0 set, the checksums of both meta pages are made right first, so
 * that the fuzzer gets behind them. */
#include "base/varint.h"
#include "bolt.h"
#include "sim/vfs_mem.h"
#include "tests/fuzz.h"

static void fix(uint8_t *p, size_t len)
{
    uint32_t size;

    if (len < BOLT_HEAD + BOLT_META_BYTES)
        return;
    size = bns_get_u32le(p + BOLT_HEAD + 8);
    bns_put_u64le(p + BOLT_HEAD + 56, etcd_bolt_checksum(p + BOLT_HEAD));
    if (size < len && len - size >= BOLT_HEAD + BOLT_META_BYTES)
        bns_put_u64le(p + size + BOLT_HEAD + 56, etcd_bolt_checksum(p + size + BOLT_HEAD));
}

/* Touches what it is given: the sanitizers look. */
static void read_rows(const struct etcd_bolt_cursor *top, uint64_t *total)
{
    struct etcd_bolt_cursor *c = NULL;
    struct bns_slice k, v;
    struct bns_err err;
    int rv = etcd_bolt_rows(top, &c, &err);

    while (rv == BNS_OK && (rv = etcd_bolt_next(c, &k, &v, &err)) == BNS_OK) {
        for (size_t i = 0; i < v.len; i += 512)
            *total += v.ptr[i];
    }
    BNS_ASSERT(rv == BNS_E_NOTFOUND || rv == BNS_E_CORRUPT || rv == BNS_E_TOOBIG);
    etcd_bolt_cursor_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct etcd_bolt_cursor *top = NULL;
    struct bns_slice bytes, k, v;
    struct etcd_bolt *b = NULL;
    struct bns_file *f = NULL;
    struct bns_vfs *vfs = NULL;
    struct bns_err err;
    uint64_t sum = 0;
    uint8_t *copy;
    int rv;

    if (size < 2 || size > 1u << 18)
        return 0;
    copy = bns_alloc(alloc, size);
    BNS_ASSERT(copy != NULL);
    memcpy(copy, data, size);
    if ((data[0] & 1) != 0)
        fix(copy + 1, size - 1);
    bytes = bns_slice(copy + 1, size - 1);
    BNS_ASSERT(bns_vfs_mem_new(alloc, 1, &vfs) == BNS_OK);
    BNS_ASSERT(bns_vfs_open(vfs, "b", BNS_OPEN_CREATE, &f, &err) == BNS_OK);
    BNS_ASSERT(bns_file_write_at(f, 0, &bytes, 1, &err) == BNS_OK);
    rv = etcd_bolt_open(alloc, f, bytes.len, &b, &err);
    if (rv == BNS_OK)
        rv = etcd_bolt_buckets(b, &top, &err);
    while (rv == BNS_OK && (rv = etcd_bolt_next(top, &k, &v, &err)) == BNS_OK)
        read_rows(top, &sum);
    BNS_ASSERT(rv == BNS_E_NOTFOUND || rv == BNS_E_CORRUPT || rv == BNS_E_TOOBIG);
    etcd_bolt_cursor_close(top);
    etcd_bolt_close(b);
    bns_file_close(f);
    bns_vfs_mem_free(vfs);
    bns_free(alloc, copy);
    return 0;
}
