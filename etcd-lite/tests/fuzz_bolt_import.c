/* fuzz_bolt_import.c - any bytes as a snapshot that is restored: rows for the store, or refused.
 *
 * The first byte chooses as in fuzz_bolt.c: with bit 0 set the meta pages get right checksums. What
 * is taken must be what the store can hold: revisions ascend, rows say what their revisions say. */
#include "base/varint.h"
#include "kvbytes.h"
#include "restore_int.h"
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

static void check_rows(struct etcd_store_job *j, struct etcd_row *before)
{
    for (size_t i = 0; i < j->rows_count; i++) {
        struct etcd_row *r = &j->rows[i];
        struct etcd_kvview v;

        if (r->main > 0) {
            BNS_ASSERT(r->main > before->main || (r->main == before->main && r->sub > before->sub));
            BNS_ASSERT(etcd_kvbytes_parse(bns_rcbuf_slice(r->kv), &v) == BNS_OK);
            BNS_ASSERT(v.mod == 0 || v.mod == r->main);
            *before = *r;
        }
        bns_rcbuf_put(r->kv);
    }
    for (size_t i = 0; i < j->leases_count; i++)
        BNS_ASSERT(j->leases[i].id != 0 && j->leases[i].ttl > 0);
}

static void import(struct bns_file *f, uint64_t bytes)
{
    static struct etcd_row rows[RESTORE_ROWS];
    static struct etcd_lease_row leases[RESTORE_ROWS];
    struct etcd_row before = {.main = 0};
    struct etcd_store_job j = {.finished = false};
    struct etcd_import im;
    struct bns_err err;
    int rv = etcd_import_open(&im, bns_alloc_libc(), f, bytes, &err);

    while (rv == BNS_OK && !j.finished) {
        j = (struct etcd_store_job){
            .rows = rows, .rows_cap = RESTORE_ROWS, .leases = leases, .leases_cap = RESTORE_ROWS};
        rv = etcd_import_batch(&im, &j, &err);
        check_rows(&j, &before);
    }
    BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CORRUPT || rv == BNS_E_TOOBIG);
    BNS_ASSERT(rv != BNS_OK || im.revision >= im.main);
    etcd_import_close(&im);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct bns_vfs *vfs = NULL;
    struct bns_file *f = NULL;
    struct bns_slice bytes;
    struct bns_err err;
    uint8_t *copy;

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
    import(f, bytes.len);
    bns_file_close(f);
    bns_vfs_mem_free(vfs);
    bns_free(alloc, copy);
    return 0;
}
