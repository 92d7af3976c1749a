/* restore_status.c - what a snapshot holds: etcd-lite snapshot status.
 *
 * Every row is read, so a file that passes is whole. The numbers are those of etcdutl 3.6: a
 * CRC-32C over names of buckets, keys and values; the last revision; how many keys are alive there;
 * the bytes in use; which etcd's form it has. (etcdctl 3.4 counts the rows of all buckets instead.)
 */
#include <stdio.h>

#include "base/crc32c.h"
#include "base/hmap.h"
#include "base/varint.h"
#include "kvbytes.h"
#include "restore_int.h"

struct seen {
    struct bns_hnode node;
    size_t len;
    uint8_t key[];
};

struct count {
    const struct bns_alloc *alloc;
    struct etcd_snapshot_status *out;
    struct bns_hmap seen;
};

static struct seen *find(const struct count *c, struct bns_slice key, uint64_t hash)
{
    struct bns_hnode *n = bns_hmap_find(&c->seen, hash);

    while (n != NULL) {
        struct seen *s = BNS_CONTAINER(n, struct seen, node);

        if (bns_slice_eq(bns_slice(s->key, s->len), key))
            return s;
        n = bns_hmap_find_next(n);
    }
    return NULL;
}

static int note_key(struct count *c, struct bns_slice key, bool dead, struct bns_err *err)
{
    uint64_t hash = bns_hash(1, key.ptr, key.len);
    struct seen *s = find(c, key, hash);

    if (dead && s != NULL) {
        bns_hmap_del(&c->seen, &s->node);
        bns_free(c->alloc, s);
    }
    if (dead || s != NULL)
        return BNS_OK;
    s = bns_alloc(c->alloc, sizeof *s + key.len);
    if (s != NULL) {
        s->len = key.len;
        if (key.len > 0)
            memcpy(s->key, key.ptr, key.len);
        if (bns_hmap_insert(&c->seen, &s->node, hash) == BNS_OK)
            return BNS_OK;
        bns_free(c->alloc, s);
    }
    return bns_err_set(err, BNS_E_NOMEM, "out of memory");
}

static int note_row(struct count *c, struct bns_slice key, struct bns_slice value,
                    struct bns_err *err)
{
    struct etcd_kvview v;

    if (key.len != 17 && key.len != 18)
        return bns_err_set(err, BNS_E_CORRUPT, "cannot parse revision key of %zu bytes", key.len);
    c->out->revision = (int64_t)bns_get_u64be(key.ptr);
    if (etcd_kvbytes_parse(value, &v) != BNS_OK)
        return bns_err_set(err, BNS_E_CORRUPT, "cannot unmarshal value, revision %lld",
                           (long long)c->out->revision);
    return note_key(c, v.key, key.len == 18, err);
}

static void note_version(struct etcd_snapshot_status *out, struct bns_slice key,
                         struct bns_slice value)
{
    if (bns_slice_eq(key, BNS_LIT("storageVersion")) && value.len < sizeof out->version) {
        memcpy(out->version, value.ptr, value.len);
        out->version[value.len] = 0;
    }
}

static int count_bucket(struct count *c, const struct etcd_bolt_cursor *top, struct bns_slice name,
                        struct bns_err *err)
{
    bool keys = bns_slice_eq(name, BNS_LIT("key")), meta = bns_slice_eq(name, BNS_LIT("meta"));
    struct etcd_snapshot_status *out = c->out;
    struct etcd_bolt_cursor *rows = NULL;
    struct bns_slice key, value;
    int rv;

    out->hash = bns_crc32c(out->hash, name.ptr, name.len);
    rv = etcd_bolt_rows(top, &rows, err);
    while (rv == BNS_OK && (rv = etcd_bolt_next(rows, &key, &value, err)) == BNS_OK) {
        out->hash = bns_crc32c(out->hash, key.ptr, key.len);
        out->hash = bns_crc32c(out->hash, value.ptr, value.len);
        if (meta)
            note_version(out, key, value);
        if (keys)
            rv = note_row(c, key, value, err);
    }
    etcd_bolt_cursor_close(rows);
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

static void forget(struct count *c)
{
    struct bns_hnode *n = bns_hmap_next(&c->seen, NULL);

    while (n != NULL) {
        struct seen *s = BNS_CONTAINER(n, struct seen, node);

        n = bns_hmap_next(&c->seen, n);
        bns_free(c->alloc, s);
    }
    bns_hmap_free(&c->seen);
}

static int count_all(struct count *c, struct bns_file *f, struct bns_err *err)
{
    struct etcd_bolt_cursor *top = NULL;
    struct bns_slice name, value;
    struct etcd_bolt *b = NULL;
    uint64_t size = 0;
    int rv = bns_file_size(f, &size, err);

    if (rv == BNS_OK)
        rv = etcd_bolt_open(c->alloc, f, size, &b, err);
    if (rv == BNS_OK)
        rv = etcd_bolt_buckets(b, &top, err);
    while (rv == BNS_OK && (rv = etcd_bolt_next(top, &name, &value, err)) == BNS_OK)
        rv = count_bucket(c, top, name, err);
    if (b != NULL)
        c->out->bytes = etcd_bolt_bytes(b);
    etcd_bolt_cursor_close(top);
    etcd_bolt_close(b);
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

int etcd_snapshot_status(struct bns_vfs *vfs, const struct bns_alloc *alloc, const char *file,
                         struct etcd_snapshot_status *out, struct bns_err *err)
{
    struct count c = {.alloc = alloc, .out = out};
    struct bns_file *f = NULL;
    struct bns_err why = {0};
    int rv = bns_vfs_open(vfs, file, BNS_OPEN_READ, &f, err);

    if (rv == BNS_E_NOTFOUND)
        return bns_err_set(err, rv, "stat %s: no such file or directory", file);
    if (rv != BNS_OK)
        return rv;
    *out = (struct etcd_snapshot_status){0};
    bns_hmap_init(&c.seen, alloc);
    rv = count_all(&c, f, &why);
    out->keys = c.seen.count;
    forget(&c);
    bns_file_close(f);
    if (rv == BNS_E_CORRUPT)
        return bns_err_set(err, rv, "snapshot file integrity check failed. 1 errors found.\n%.180s",
                           why.text);
    if (rv != BNS_OK && err != NULL)
        *err = why;
    return rv;
}
