/* restore_import.c - the rows of a snapshot, as the revision store wants them.
 *
 * The buckets are described in bolt_export.c. What matters to a new cluster is taken: keys, leases,
 * users and roles, how far the history is compacted. Buckets that it does not know it passes over,
 * as etcd does. The rest is checked as far as one row can say it; that the rows make sense together
 * is seen when the new store is opened.
 */
#include <stdio.h>

#include "base/varint.h"
#include "codec/crypto.h"
#include "codec/pb.h"
#include "kv_bucket.h"
#include "kv_impl.h"
#include "restore_int.h"

#define SECTOR 512u /* a snapshot with its digest is 32 bytes longer than a multiple of this */
#define READ_BYTES (128u * 1024)

/* ---- the file ------------------------------------------------------------------------------- */

static int digest_of(struct bns_file *f, uint64_t bytes, uint8_t out[BNS_SHA256_BYTES],
                     struct bns_err *err)
{
    static _Thread_local uint8_t chunk[READ_BYTES];
    struct bns_sha256 *h = NULL;
    int rv = bns_sha256_new(&h);

    for (uint64_t at = 0; rv == BNS_OK && at < bytes;) {
        size_t want = bytes - at < sizeof chunk ? (size_t)(bytes - at) : sizeof chunk, got = 0;

        rv = bns_file_read_at(f, at, chunk, want, &got, err);
        if (rv == BNS_OK && got != want)
            rv = bns_err_set(err, BNS_E_IO, "the snapshot is being changed");
        if (rv == BNS_OK)
            rv = bns_sha256_add(h, bns_slice(chunk, got));
        at += got;
    }
    if (rv == BNS_OK)
        rv = bns_sha256_end(h, out);
    bns_sha256_free(h);
    return rv;
}

/* As Go prints a slice of bytes. */
static void print_digest(char *dst, size_t cap, const uint8_t *d)
{
    size_t at = 0;

    for (size_t i = 0; i < BNS_SHA256_BYTES && at < cap; i++)
        at += (size_t)snprintf(dst + at, cap - at, "%s%u", i == 0 ? "[" : " ", d[i]);
    if (at < cap)
        (void)snprintf(dst + at, cap - at, "]"); /* cap is enough */
}

static int check_digest(struct bns_file *f, uint64_t bytes, char *wide, struct bns_err *err)
{
    uint8_t is[BNS_SHA256_BYTES], said[BNS_SHA256_BYTES];
    char a[160], b[160];
    size_t got = 0;
    int rv = bns_file_read_at(f, bytes, said, sizeof said, &got, err);

    if (rv == BNS_OK && got != sizeof said)
        rv = bns_err_set(err, BNS_E_IO, "the snapshot is being changed");
    if (rv == BNS_OK)
        rv = digest_of(f, bytes, is, err);
    if (rv != BNS_OK || memcmp(is, said, sizeof is) == 0)
        return rv;
    print_digest(a, sizeof a, said);
    print_digest(b, sizeof b, is);
    if (wide != NULL)
        (void)snprintf(wide, ETCD_RESTORE_TEXT_MAX, "expected sha256 %s, got %s", a, b); /* fits */
    return bns_err_set(err, BNS_E_CORRUPT, "expected sha256 %s, got %s", a, b);
}

int etcd_snapshot_open(struct bns_vfs *vfs, const struct etcd_restore_config *cfg,
                       struct bns_file **out, uint64_t *bytes, struct bns_err *err)
{
    const char *file = cfg->file;
    struct bns_file *f = NULL;
    uint64_t size = 0;
    bool has;
    int rv = bns_vfs_open(vfs, file, BNS_OPEN_READ, &f, err);

    if (rv == BNS_E_NOTFOUND)
        return bns_err_set(err, rv, "open %s: no such file or directory", file);
    if (rv == BNS_OK)
        rv = bns_file_size(f, &size, err);
    has = size % SECTOR == BNS_SHA256_BYTES;
    *bytes = has ? size - BNS_SHA256_BYTES : size;
    if (rv == BNS_OK && size < BNS_SHA256_BYTES)
        rv = bns_err_set(err, BNS_E_CORRUPT, "seek %s: invalid argument", file);
    if (rv == BNS_OK && !has && !cfg->skip_hash)
        rv = bns_err_set(err, BNS_E_CORRUPT, "snapshot missing hash but --skip-hash-check=false");
    if (rv == BNS_OK && !cfg->skip_hash)
        rv = check_digest(f, *bytes, cfg->wide, err);
    if (rv != BNS_OK) {
        bns_file_close(f);
        return rv;
    }
    *out = f;
    return BNS_OK;
}

/* ---- rows ----------------------------------------------------------------------------------- */

enum kind { OTHER, AUTH, ROLES, USERS, KEYS, LEASES, META };

static enum kind kind_of(struct bns_slice name)
{
    static const struct {
        const char *name;
        enum kind kind;
    } known[] = {{"auth", AUTH}, {"authRoles", ROLES}, {"authUsers", USERS},
                 {"key", KEYS},  {"lease", LEASES},    {"meta", META}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (bns_slice_eq(name, bns_slice_str(known[i].name)))
            return known[i].kind;
    }
    return OTHER;
}

static int bad(struct bns_err *err, const char *what)
{
    return bns_err_set(err, BNS_E_CORRUPT, "the snapshot is damaged: %s", what);
}

/* The reference is taken over. */
static int push_row(struct etcd_import *im, struct etcd_store_job *j, int64_t main, uint32_t sub,
                    struct bns_rcbuf *kv, struct bns_err *err)
{
    struct etcd_row *r = &j->rows[j->rows_count];

    if (kv == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "out of memory");
    BNS_ASSERT(j->rows_count < j->rows_cap);
    *r = (struct etcd_row){main, sub, kv};
    j->rows_count++;
    im->digest = etcd_digest_row(im->digest, r);
    im->batch_bytes += kv->len;
    return BNS_OK;
}

/* A row of a small table, as kv_bucket.c keeps them. */
static int push_small(struct etcd_import *im, struct etcd_store_job *j, enum etcd_bucket b,
                      struct bns_slice key, struct bns_slice value, struct bns_err *err)
{
    struct bns_rcbuf *row = bns_rcbuf_new(im->alloc, 5 + key.len + value.len);

    if (im->slot >= ETCD_BUCKET_ROWS_MAX) {
        bns_rcbuf_put(row);
        return bns_err_set(err, BNS_E_TOOBIG, "more than %u users and roles", ETCD_BUCKET_ROWS_MAX);
    }
    if (row != NULL) {
        bns_put_u32le(row->bytes, (uint32_t)key.len);
        row->bytes[4] = (uint8_t)b;
        memcpy(row->bytes + 5, key.ptr, key.len);
        if (value.len > 0)
            memcpy(row->bytes + 5 + key.len, value.ptr, value.len);
    }
    return push_row(im, j, 0, ETCD_BUCKET_SUB + im->slot++, row, err);
}

static int on_auth(struct etcd_import *im, struct etcd_store_job *j, struct bns_slice key,
                   struct bns_slice value, struct bns_err *err)
{
    if (bns_slice_eq(key, BNS_LIT("authEnabled"))) {
        if (value.len != 1 || value.ptr[0] > 1)
            return bad(err, "authEnabled is no flag");
        return push_small(im, j, ETCD_BUCKET_AUTH, BNS_LIT("enabled"), value, err);
    }
    if (bns_slice_eq(key, BNS_LIT("authRevision"))) {
        if (value.len != 8)
            return bad(err, "authRevision is no number");
        return push_small(im, j, ETCD_BUCKET_AUTH, BNS_LIT("revision"), value, err);
    }
    return BNS_OK;
}

/* main, '_', sub, and 't' behind a deletion. */
static int on_key(struct etcd_import *im, struct etcd_store_job *j, struct bns_slice key,
                  struct bns_slice value, struct bns_err *err)
{
    struct etcd_kvview v;
    uint64_t main, sub;
    bool dead = key.len == 18;

    if ((key.len != 17 && !dead) || key.ptr[8] != '_' || (dead && key.ptr[17] != 't'))
        return bad(err, "a key of the bucket \"key\" is no revision");
    main = bns_get_u64be(key.ptr);
    sub = bns_get_u64be(key.ptr + 9);
    if (main < 1 || main > INT64_MAX / 2 || sub > UINT32_MAX)
        return bad(err, "a revision is out of range");
    if (main == (uint64_t)im->main && sub == im->sub)
        return bad(err, "a revision comes twice");
    im->main = (int64_t)main;
    im->sub = (uint32_t)sub;
    if (im->main > im->revision)
        im->revision = im->main;
    if (value.len == 0)
        return BNS_OK; /* what --bump-revision leaves: a revision without a key */
    if (etcd_kvbytes_parse(value, &v) != BNS_OK || v.key.len == 0 || dead != (v.mod == 0) ||
        (!dead && (v.mod != im->main || v.create < 1 || v.create > v.mod || v.version < 1)))
        return bad(err, "a row is not what its revision says");
    return push_row(im, j, im->main, im->sub, bns_rcbuf_copy(im->alloc, value), err);
}

static int on_lease(struct etcd_import *im, struct etcd_store_job *j, struct bns_slice key,
                    struct bns_slice value, struct bns_err *err)
{
    struct bns_pb_field f = {0};
    int64_t id = 0, ttl = 0;
    uint64_t left = 0;
    uint8_t seconds[8];

    while (value.len > 0) {
        if (bns_pb_next(&value, &f) != BNS_OK)
            return bad(err, "a lease is malformed");
        if (f.id == 1 && f.wire == 0)
            id = (int64_t)f.u64;
        else if (f.id == 2 && f.wire == 0)
            ttl = (int64_t)f.u64;
        else if (f.id == 3 && f.wire == 0)
            left = f.u64;
    }
    if (key.len != 8 || (uint64_t)id != bns_get_u64be(key.ptr) || id == 0 || ttl < 1 ||
        ttl > ETCD_LEASE_TTL_MAX)
        return bad(err, "a lease is not what its id says");
    BNS_ASSERT(j->leases_count < j->leases_cap);
    j->leases[j->leases_count++] = (struct etcd_lease_row){id, ttl, im->index};
    if (left == 0 || left > (uint64_t)ttl)
        return BNS_OK; /* it begins with its whole TTL */
    bns_put_u64le(seconds, left);
    return push_small(im, j, ETCD_BUCKET_LEASES, key, bns_slice(seconds, sizeof seconds), err);
}

static int on_meta(struct etcd_import *im, struct bns_slice key, struct bns_slice value,
                   struct bns_err *err)
{
    int64_t *to = bns_slice_eq(key, BNS_LIT("scheduledCompactRev"))  ? &im->scheduled
                  : bns_slice_eq(key, BNS_LIT("finishedCompactRev")) ? &im->finished
                                                                     : NULL;
    uint64_t v;

    if (to == NULL)
        return BNS_OK;
    if (value.len != 17)
        return bad(err, "a compacted revision is malformed");
    v = bns_get_u64be(value.ptr);
    if (v > INT64_MAX / 2)
        return bad(err, "a compacted revision is out of range");
    *to = (int64_t)v;
    return BNS_OK;
}

static int on_row(struct etcd_import *im, struct etcd_store_job *j, struct bns_slice key,
                  struct bns_slice value, struct bns_err *err)
{
    switch ((enum kind)im->kind) {
    case AUTH:
        return on_auth(im, j, key, value, err);
    case ROLES:
        return push_small(im, j, ETCD_BUCKET_ROLES, key, value, err);
    case USERS:
        return push_small(im, j, ETCD_BUCKET_USERS, key, value, err);
    case KEYS:
        return on_key(im, j, key, value, err);
    case LEASES:
        return on_lease(im, j, key, value, err);
    case META:
        return on_meta(im, key, value, err);
    case OTHER:
        break;
    }
    return BNS_OK;
}

/* ---- batches -------------------------------------------------------------------------------- */

int etcd_import_open(struct etcd_import *im, const struct bns_alloc *alloc, struct bns_file *f,
                     uint64_t bytes, struct bns_err *err)
{
    int rv;

    *im = (struct etcd_import){
        .alloc = alloc, .revision = 1, .scheduled = -1, .finished = -1, .main = 0};
    rv = etcd_bolt_open(alloc, f, bytes, &im->bolt, err);
    return rv == BNS_OK ? etcd_bolt_buckets(im->bolt, &im->top, err) : rv;
}

void etcd_import_close(struct etcd_import *im)
{
    etcd_bolt_cursor_close(im->rows);
    etcd_bolt_cursor_close(im->top);
    etcd_bolt_close(im->bolt);
    im->rows = NULL;
    im->top = NULL;
    im->bolt = NULL;
}

static int over(struct etcd_import *im, struct etcd_store_job *j, struct bns_err *err)
{
    j->finished = true;
    if (!im->seen_keys)
        return bad(err, "it has no bucket \"key\"");
    if (im->finished > im->scheduled)
        im->scheduled = im->finished;
    if (im->scheduled > im->revision)
        im->revision = im->scheduled; /* all that was there was deleted, and compacted */
    return BNS_OK;
}

static int next_bucket(struct etcd_import *im, struct etcd_store_job *j, struct bns_err *err)
{
    struct bns_slice name, value;
    int rv = etcd_bolt_next(im->top, &name, &value, err);

    if (rv == BNS_E_NOTFOUND)
        return over(im, j, err);
    if (rv != BNS_OK)
        return rv;
    im->kind = (int)kind_of(name);
    im->seen_keys = im->seen_keys || im->kind == KEYS;
    return etcd_bolt_rows(im->top, &im->rows, err);
}

int etcd_import_batch(struct etcd_import *im, struct etcd_store_job *j, struct bns_err *err)
{
    int rv = BNS_OK;

    im->batch_bytes = 0;
    j->finished = false;
    while (rv == BNS_OK && !j->finished && j->rows_count < j->rows_cap &&
           j->leases_count < j->leases_cap && im->batch_bytes < RESTORE_BYTES) {
        struct bns_slice key, value;

        if (im->rows == NULL) {
            rv = next_bucket(im, j, err);
            continue;
        }
        rv = etcd_bolt_next(im->rows, &key, &value, err);
        if (rv == BNS_OK) {
            rv = on_row(im, j, key, value, err);
        } else if (rv == BNS_E_NOTFOUND) {
            etcd_bolt_cursor_close(im->rows);
            im->rows = NULL;
            rv = BNS_OK;
        }
    }
    return rv;
}
