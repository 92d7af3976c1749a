/* bolt_export.c - from the revision store's tables to etcd's buckets.
 *
 *   alarm            AlarmMember -> nothing
 *   auth             authEnabled -> one byte, authRevision -> u64 (big-endian, as all below)
 *   authRoles        name -> Role             authUsers   name -> User
 *   cluster          clusterVersion -> "3.6.0"
 *   key              u64 main, '_', u64 sub, and 't' behind a deletion -> KeyValue
 *   lease            u64 id -> Lease{1: ID, 2: TTL, 3: what is left of it, if the log said so}
 *   members          id in hexadecimal -> JSON   members_removed   the same -> "removed"
 *   meta             consistent_index, term -> u64; confState -> JSON; scheduledCompactRev,
 *                    finishedCompactRev -> a key of `key`; storageVersion -> "3.6.0"
 *
 * Decoded from files that etcd 3.4.23 and 3.6.4 wrote.
 *
 * bbolt wants rows in order. Those of keys lie in order; the small tables (kv_bucket.c) lie by
 * slot, so they are first copied into a table `b` of the copy, by (bucket, key). Every step is a
 * bounded number of rows of one query.
 */
#include "bolt_export.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/varint.h"
#include "bolt.h"
#include "codec/crypto.h"
#include "codec/pb.h"
#include "kv_bucket.h"
#include "kvbytes.h"
#include "revstore_impl.h"

#define SLICE_ROWS 256u
#define SLICE_BYTES (512u * 1024)
#define TEXT_MAX (256u * 1024)
#define BUCKET_HEAD 5u /* of a row: kv_bucket.c */
#define BUCKET_ATTRIBUTES 9

struct etcd_export {
    struct bns_vfs *vfs;
    const struct bns_alloc *alloc;
    char path[BNS_PATH_MAX];
    struct bns_file *file;
    struct etcd_bolt_writer *writer;
    sqlite3 *db;
    sqlite3_stmt *rows; /* of the present part */
    sqlite3_stmt *put, *get;
    size_t part;
    struct bns_slice members; /* as they are told from outside */
    struct etcd_meta meta;
    struct bns_buf text;
    struct bns_sha256 *sha;
    uint64_t bytes, at;
    bool told; /* the digest */
};

/* ---- statements ----------------------------------------------------------------------------- */

static int sql_error(const struct etcd_export *x, int rc, const char *what, struct bns_err *err)
{
    return bns_sqlite_err(x->db, rc, what, err);
}

static int prepare(struct etcd_export *x, const char *sql, sqlite3_stmt **out, struct bns_err *err)
{
    int rc = sqlite3_prepare_v2(x->db, sql, -1, out, NULL);

    return rc == SQLITE_OK ? BNS_OK : sql_error(x, rc, "prepare a query of the copy", err);
}

static struct bns_slice blob(sqlite3_stmt *st, int column)
{
    const void *p = sqlite3_column_blob(st, column);

    return bns_slice(p, (size_t)sqlite3_column_bytes(st, column));
}

static int put(struct etcd_export *x, struct bns_slice key, struct bns_slice value,
               struct bns_err *err)
{
    return etcd_bolt_put(x->writer, key, value, err);
}

/* A value of a small table; an empty slice when there is none. Borrowed until the next call. */
static struct bns_slice look_up(struct etcd_export *x, int bucket, struct bns_slice key)
{
    sqlite3_reset(x->get);
    sqlite3_bind_int(x->get, 1, bucket);
    sqlite3_bind_blob(x->get, 2, key.ptr, (int)key.len, SQLITE_TRANSIENT);
    return sqlite3_step(x->get) == SQLITE_ROW ? blob(x->get, 0) : bns_slice(NULL, 0);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static int put_small(struct etcd_export *x, int bucket, struct bns_slice key,
                     struct bns_slice value, struct bns_err *err)
{
    int rc;

    sqlite3_bind_int(x->put, 1, bucket);
    sqlite3_bind_blob(x->put, 2, key.ptr, (int)key.len, SQLITE_STATIC);
    sqlite3_bind_blob(x->put, 3, value.ptr, (int)value.len, SQLITE_STATIC);
    rc = sqlite3_step(x->put);
    sqlite3_reset(x->put);
    sqlite3_clear_bindings(x->put);
    return rc == SQLITE_DONE ? BNS_OK : sql_error(x, rc, "sort a small table", err);
}

/* A row of revision 0: of a small table, or older than those. */
static int row_copy(struct etcd_export *x, struct bns_err *err)
{
    struct bns_slice r = blob(x->rows, 0);
    uint32_t key_len = r.len < BUCKET_HEAD ? 0 : bns_get_u32le(r.ptr);

    if (r.len < BUCKET_HEAD || key_len > r.len - BUCKET_HEAD)
        return bns_err_set(err, BNS_E_CORRUPT, "a row of a small table is malformed");
    return put_small(x, r.ptr[4], bns_slice(r.ptr + BUCKET_HEAD, key_len),
                     bns_slice_skip(r, BUCKET_HEAD + key_len), err);
}

static int row_same(struct etcd_export *x, struct bns_err *err)
{
    return put(x, blob(x->rows, 0), blob(x->rows, 1), err);
}

static int row_alarm(struct etcd_export *x, struct bns_err *err)
{
    return put(x, blob(x->rows, 0), bns_slice(NULL, 0), err);
}

static int row_key(struct etcd_export *x, struct bns_err *err)
{
    struct bns_slice kv = blob(x->rows, 2);
    struct etcd_kvview v;
    uint8_t key[18];

    if (etcd_kvbytes_parse(kv, &v) != BNS_OK)
        return bns_err_set(err, BNS_E_CORRUPT, "the row of revision %lld is malformed",
                           (long long)sqlite3_column_int64(x->rows, 0));
    bns_put_u64be(key, (uint64_t)sqlite3_column_int64(x->rows, 0));
    key[8] = '_';
    bns_put_u64be(key + 9, (uint64_t)sqlite3_column_int64(x->rows, 1));
    key[17] = 't';
    return put(x, bns_slice(key, v.mod == 0 ? 18 : 17), kv, err);
}

static int row_lease(struct etcd_export *x, struct bns_err *err)
{
    int64_t id = sqlite3_column_int64(x->rows, 0), ttl = sqlite3_column_int64(x->rows, 1);
    struct bns_slice left;
    uint8_t key[8];
    int rv;

    bns_put_u64be(key, (uint64_t)id);
    left = look_up(x, ETCD_BUCKET_LEASES, bns_slice(key, sizeof key));
    bns_buf_clear(&x->text);
    rv = bns_pb_put_i64(&x->text, 1, id);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&x->text, 2, ttl);
    if (rv == BNS_OK && left.len == 8)
        rv = bns_pb_put_u64(&x->text, 3, bns_get_u64le(left.ptr));
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "no memory for a lease");
    return put(x, bns_slice(key, sizeof key), bns_buf_slice(&x->text), err);
}

/* ---- who the members are, when no entry of the log has said so ------------------------------ */

static bool is_learner(struct bns_slice member)
{
    struct bns_pb_field f = {0};
    bool out = false;

    while (member.len > 0 && bns_pb_next(&member, &f) == BNS_OK) {
        if (f.id == 5)
            out = f.u64 != 0;
    }
    return out;
}

/* The next of x->members; false at the end. */
static bool next_member(struct bns_slice *rest, struct bns_slice *member, uint64_t *id)
{
    struct bns_pb_field f = {0}, g = {0};
    struct bns_slice m;

    if (rest->len == 0 || bns_pb_next(rest, &f) != BNS_OK || f.id != 2 || f.wire != 2)
        return false;
    *member = m = f.bytes;
    *id = 0;
    while (m.len > 0 && bns_pb_next(&m, &g) == BNS_OK) {
        if (g.id == 1)
            *id = g.u64;
    }
    return true;
}

/* Behind the copy of the small tables: those of the flags, when there are none. */
static int all_members(struct etcd_export *x, struct bns_err *err)
{
    struct bns_slice rest = x->members, member;
    sqlite3_stmt *any = NULL;
    uint8_t key[8];
    uint64_t id;
    int rv = prepare(x, "SELECT 1 FROM b WHERE bucket = 5", &any, err);
    bool known = rv == BNS_OK && sqlite3_step(any) == SQLITE_ROW;

    sqlite3_finalize(any);
    while (rv == BNS_OK && !known && next_member(&rest, &member, &id)) {
        bns_put_u64be(key, id);
        rv = put_small(x, ETCD_BUCKET_MEMBERS, bns_slice(key, sizeof key), member, err);
    }
    return rv;
}
_Static_assert(ETCD_BUCKET_MEMBERS == 5, "as in the query");

/* ---- members, as JSON ----------------------------------------------------------------------- */

/* As Go's encoder does: what could end a script element or a string is escaped. */
static int json_text(struct bns_buf *b, struct bns_slice s)
{
    int rv = bns_buf_byte(b, '"');

    for (size_t i = 0; rv == BNS_OK && i < s.len; i++) {
        uint8_t c = s.ptr[i];

        if (c == '"' || c == '\\')
            rv = bns_buf_fmt(b, "\\%c", c);
        else if (c < 0x20 || c == '<' || c == '>' || c == '&')
            rv = bns_buf_fmt(b, "\\u%04x", c);
        else
            rv = bns_buf_byte(b, c);
    }
    return rv == BNS_OK ? bns_buf_byte(b, '"') : rv;
}

/* ,"name":["a","b"] of the texts in a field of a message; nothing when there are none. */
static int json_texts(struct bns_buf *b, const char *name, struct bns_slice msg, uint32_t field)
{
    struct bns_pb_field f = {0};
    bool any = false;
    int rv = BNS_OK;

    while (rv == BNS_OK && msg.len > 0 && bns_pb_next(&msg, &f) == BNS_OK) {
        if (f.id != field)
            continue;
        rv = any ? bns_buf_byte(b, ',') : bns_buf_fmt(b, ",\"%s\":[", name);
        any = true;
        if (rv == BNS_OK)
            rv = json_text(b, f.bytes);
    }
    return rv == BNS_OK && any ? bns_buf_byte(b, ']') : rv;
}

static struct bns_slice bytes_field(struct bns_slice msg, uint32_t field)
{
    struct bns_slice out = bns_slice(NULL, 0);
    struct bns_pb_field f = {0};

    while (msg.len > 0 && bns_pb_next(&msg, &f) == BNS_OK) {
        if (f.id == field && f.wire == 2)
            out = f.bytes;
    }
    return out;
}

static int hex_key(struct etcd_export *x, char out[24], uint64_t *id, struct bns_err *err)
{
    struct bns_slice key = blob(x->rows, 0);

    if (key.len != 8)
        return bns_err_set(err, BNS_E_CORRUPT, "the id of a member has %zu bytes", key.len);
    *id = bns_get_u64be(key.ptr);
    (void)snprintf(out, 24, "%" PRIx64, *id); /* 16 digits at most */
    return BNS_OK;
}

static int row_member(struct etcd_export *x, struct bns_err *err)
{
    struct bns_slice member = blob(x->rows, 1);
    struct bns_slice attr = bytes_field(look_up(x, BUCKET_ATTRIBUTES, blob(x->rows, 0)), 2);
    struct bns_slice name = bytes_field(attr, 1);
    struct bns_buf *b = &x->text;
    char key[24];
    uint64_t id;
    int rv = hex_key(x, key, &id, err);

    if (rv != BNS_OK)
        return rv;
    if (name.len == 0)
        name = bytes_field(member, 2);
    bns_buf_clear(b);
    rv = bns_buf_fmt(b, "{\"id\":%" PRIu64, id);
    if (rv == BNS_OK)
        rv = json_texts(b, "peerURLs", member, 3);
    if (rv == BNS_OK && is_learner(member))
        rv = bns_buf_str(b, ",\"isLearner\":true");
    if (rv == BNS_OK && name.len > 0)
        rv = bns_buf_str(b, ",\"name\":");
    if (rv == BNS_OK && name.len > 0)
        rv = json_text(b, name);
    if (rv == BNS_OK)
        rv = json_texts(b, "clientURLs", attr, 2);
    if (rv == BNS_OK)
        rv = bns_buf_byte(b, '}');
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "no memory for a member");
    return put(x, bns_slice_str(key), bns_buf_slice(b), err);
}

static int row_removed(struct etcd_export *x, struct bns_err *err)
{
    char key[24];
    uint64_t id;
    int rv = hex_key(x, key, &id, err);

    return rv == BNS_OK ? put(x, bns_slice_str(key), BNS_LIT("removed"), err) : rv;
}

/* ---- buckets of few rows -------------------------------------------------------------------- */

static int put_u64(struct etcd_export *x, const char *key, uint64_t v, struct bns_err *err)
{
    uint8_t be[8];

    bns_put_u64be(be, v);
    return put(x, bns_slice_str(key), bns_slice(be, sizeof be), err);
}

/* A fresh etcd stands at revision 1 of its users, and does not say that they are not asked for. */
static int all_auth(struct etcd_export *x, struct bns_err *err)
{
    struct bns_slice v = look_up(x, ETCD_BUCKET_AUTH, BNS_LIT("enabled"));
    int rv = v.len == 1 ? put(x, BNS_LIT("authEnabled"), v, err) : BNS_OK;

    if (rv != BNS_OK)
        return rv;
    v = look_up(x, ETCD_BUCKET_AUTH, BNS_LIT("revision"));
    return v.len == 8 ? put(x, BNS_LIT("authRevision"), v, err)
                      : put_u64(x, "authRevision", 1, err);
}

static int all_cluster(struct etcd_export *x, struct bns_err *err)
{
    return put(x, BNS_LIT("clusterVersion"), BNS_LIT(ETCD_STORAGE_VERSION), err);
}

static int json_ids(struct bns_buf *b, const char *name, const uint64_t *ids, size_t count)
{
    int rv = count == 0 ? BNS_OK : bns_buf_fmt(b, "\"%s\":[", name);

    for (size_t i = 0; rv == BNS_OK && i < count; i++)
        rv = bns_buf_fmt(b, "%s%" PRIu64, i == 0 ? "" : ",", ids[i]);
    return rv == BNS_OK && count > 0 ? bns_buf_str(b, "],") : rv;
}

/* Without an entry that changed it: all that are no learners. */
static void conf_of(const struct etcd_export *x, struct bns_raft_conf *out)
{
    struct bns_slice rest = x->members, member;
    uint64_t id;

    *out = x->meta.conf;
    if (out->voters_count > 0)
        return;
    while (out->voters_count < BNS_RAFT_PEERS_MAX && next_member(&rest, &member, &id)) {
        if (!is_learner(member))
            out->voters[out->voters_count++] = id;
    }
}

static int put_conf(struct etcd_export *x, struct bns_err *err)
{
    struct bns_raft_conf conf;
    const struct bns_raft_conf *c = &conf;
    struct bns_buf *b = &x->text;
    int rv;

    conf_of(x, &conf);
    bns_buf_clear(b);
    rv = bns_buf_byte(b, '{');
    if (rv == BNS_OK)
        rv = json_ids(b, "voters", c->voters, c->voters_count);
    if (rv == BNS_OK)
        rv = json_ids(b, "learners", c->learners, c->learners_count);
    if (rv == BNS_OK)
        rv = json_ids(b, "voters_outgoing", c->voters_old, c->voters_old_count);
    if (rv == BNS_OK)
        rv = bns_buf_fmt(b, "\"auto_leave\":%s}", c->voters_old_count > 0 ? "true" : "false");
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "no memory for the configuration");
    return put(x, BNS_LIT("confState"), bns_buf_slice(b), err);
}

static int put_revision(struct etcd_export *x, const char *key, int64_t rev, struct bns_err *err)
{
    uint8_t bytes[17] = {0};

    if (rev < 0)
        return BNS_OK; /* never */
    bns_put_u64be(bytes, (uint64_t)rev);
    bytes[8] = '_';
    return put(x, bns_slice_str(key), bns_slice(bytes, sizeof bytes), err);
}

static int all_meta(struct etcd_export *x, struct bns_err *err)
{
    int rv = put_conf(x, err);

    if (rv == BNS_OK)
        rv = put_u64(x, "consistent_index", x->meta.applied, err);
    if (rv == BNS_OK)
        rv = put_revision(x, "finishedCompactRev", x->meta.compact_finished, err);
    if (rv == BNS_OK)
        rv = put_revision(x, "scheduledCompactRev", x->meta.compact_scheduled, err);
    if (rv == BNS_OK)
        rv = put(x, BNS_LIT("storageVersion"), BNS_LIT(ETCD_STORAGE_VERSION), err);
    return rv == BNS_OK ? put_u64(x, "term", x->meta.term, err) : rv;
}

/* ---- the parts, in bbolt's order ------------------------------------------------------------ */

#define SMALL "SELECT key, value FROM b WHERE bucket = ?1 ORDER BY key"

struct part {
    const char *begin; /* the bucket that begins; NULL: none, or the one before goes on */
    const char *sql;
    int bucket;
    int (*row)(struct etcd_export *x, struct bns_err *err);
    int (*all)(struct etcd_export *x, struct bns_err *err); /* instead of a query */
    bool end;                                               /* of the bucket */
};

static const struct part parts[] = {
    {NULL, "SELECT kv FROM rev WHERE main = 0 AND sub >= 65536", 0, row_copy, NULL, false},
    {NULL, NULL, 0, NULL, all_members, false},
    {"alarm", SMALL, ETCD_BUCKET_ALARMS, row_alarm, NULL, true},
    {"auth", NULL, 0, NULL, all_auth, true},
    {"authRoles", SMALL, ETCD_BUCKET_ROLES, row_same, NULL, true},
    {"authUsers", SMALL, ETCD_BUCKET_USERS, row_same, NULL, true},
    {"cluster", NULL, 0, NULL, all_cluster, true},
    {"key",
     "SELECT main, sub, kv FROM rev WHERE main > 0 AND "
     "main <= (SELECT revision FROM meta) ORDER BY main, sub",
     0, row_key, NULL, true},
    {"lease", "SELECT id, ttl FROM lease WHERE id >= 0 ORDER BY id", 0, row_lease, NULL, false},
    {NULL, "SELECT id, ttl FROM lease WHERE id < 0 ORDER BY id", 0, row_lease, NULL, true},
    {"members", SMALL, ETCD_BUCKET_MEMBERS, row_member, NULL, true},
    {"members_removed", SMALL, ETCD_BUCKET_REMOVED, row_removed, NULL, true},
    {"meta", NULL, 0, NULL, all_meta, true},
};
#define PARTS (sizeof parts / sizeof parts[0])
_Static_assert(ETCD_BUCKET_SUB == 65536, "as in the first query");

int etcd_export_new(struct bns_vfs *vfs, const struct bns_alloc *alloc, const char *path,
                    sqlite3 *db, struct bns_slice members, struct etcd_export **out,
                    struct bns_err *err)
{
    struct etcd_export *x = bns_alloc_zero(alloc, sizeof *x);
    int rc, rv;

    if (x == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a snapshot");
    x->vfs = vfs;
    x->alloc = alloc;
    x->db = db;
    x->members = members;
    bns_buf_init(&x->text, alloc, TEXT_MAX);
    BNS_ASSERT(strlen(path) < sizeof x->path);
    memcpy(x->path, path, strlen(path) + 1);
    rv = bns_vfs_open(vfs, path, BNS_OPEN_WRITE | BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &x->file, err);
    if (rv == BNS_OK)
        rv = etcd_bolt_writer_new(alloc, x->file, &x->writer, err);
    if (rv == BNS_OK && bns_sha256_new(&x->sha) != BNS_OK)
        rv = bns_err_set(err, BNS_E_INTERNAL, "SHA-256 is not available");
    if (rv == BNS_OK) {
        rc = sqlite3_exec(db,
                          "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF;"
                          "PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY;"
                          "PRAGMA cache_size=-1024;"
                          "CREATE TABLE b(bucket, key, value, PRIMARY KEY(bucket, key)) "
                          "WITHOUT ROWID",
                          NULL, NULL, NULL);
        rv = rc == SQLITE_OK ? BNS_OK : sql_error(x, rc, "prepare the copy", err);
    }
    if (rv == BNS_OK)
        rv = etcd_store_meta_read(db, &x->meta, err);
    if (rv == BNS_OK)
        rv = prepare(x, "INSERT INTO b VALUES(?1, ?2, ?3)", &x->put, err);
    if (rv == BNS_OK)
        rv = prepare(x, "SELECT value FROM b WHERE bucket = ?1 AND key = ?2", &x->get, err);
    if (rv != BNS_OK) {
        etcd_export_free(x);
        return rv;
    }
    *out = x;
    return BNS_OK;
}

static void finalize(struct etcd_export *x)
{
    sqlite3_finalize(x->rows);
    sqlite3_finalize(x->put);
    sqlite3_finalize(x->get);
    x->rows = x->put = x->get = NULL;
}

void etcd_export_free(struct etcd_export *x)
{
    if (x == NULL)
        return;
    finalize(x);
    etcd_bolt_writer_free(x->writer);
    bns_sha256_free(x->sha);
    bns_buf_free(&x->text);
    if (x->file != NULL) {
        bns_file_close(x->file);
        if (bns_vfs_remove(x->vfs, x->path, NULL) != BNS_OK)
            x->path[0] = 0; /* left for the next open of the store, which removes it */
    }
    bns_free(x->alloc, x);
}

/* Up to a slice of rows of the part's query; *over: it has no more. */
static int part_rows(struct etcd_export *x, const struct part *p, bool *over, struct bns_err *err)
{
    size_t rows = 0, bytes = 0;
    int rv = BNS_OK, rc = SQLITE_ROW;

    if (x->rows == NULL) {
        rv = prepare(x, p->sql, &x->rows, err);
        if (rv == BNS_OK && p->bucket != 0)
            sqlite3_bind_int(x->rows, 1, p->bucket);
    }
    while (rv == BNS_OK && rows < SLICE_ROWS && bytes < SLICE_BYTES) {
        rc = sqlite3_step(x->rows);
        if (rc != SQLITE_ROW)
            break;
        rows++;
        bytes += (size_t)sqlite3_column_bytes(x->rows, sqlite3_column_count(x->rows) - 1);
        rv = p->row(x, err);
    }
    if (rv == BNS_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
        rv = sql_error(x, rc, "read the copy", err);
    *over = rc == SQLITE_DONE;
    if (*over || rv != BNS_OK) {
        sqlite3_finalize(x->rows);
        x->rows = NULL;
    }
    return rv;
}

int etcd_export_step(struct etcd_export *x, bool *finished, struct bns_err *err)
{
    const struct part *p = &parts[x->part];
    bool over = true;
    int rv = BNS_OK;

    *finished = false;
    if (x->rows == NULL && p->begin != NULL)
        rv = etcd_bolt_begin(x->writer, bns_slice_str(p->begin), err);
    if (rv == BNS_OK)
        rv = p->all != NULL ? p->all(x, err) : part_rows(x, p, &over, err);
    if (rv != BNS_OK || !over)
        return rv;
    if (p->end)
        rv = etcd_bolt_end(x->writer, err);
    if (rv != BNS_OK || ++x->part < PARTS)
        return rv;
    rv = etcd_bolt_finish(x->writer, &x->bytes, err);
    etcd_bolt_writer_free(x->writer);
    x->writer = NULL;
    finalize(x);
    x->db = NULL;
    *finished = rv == BNS_OK;
    return rv;
}

uint64_t etcd_export_bytes(const struct etcd_export *x)
{
    return x->bytes;
}

int etcd_export_read(struct etcd_export *x, uint8_t *buf, size_t *len, struct bns_err *err)
{
    uint64_t left = x->bytes - x->at;
    size_t want = *len < left ? *len : (size_t)left, got = 0;
    int rv;

    if (left == 0) {
        BNS_ASSERT(!x->told);
        x->told = true;
        *len = BNS_SHA256_BYTES;
        return bns_sha256_end(x->sha, buf) == BNS_OK
                   ? BNS_OK
                   : bns_err_set(err, BNS_E_INTERNAL, "SHA-256 failed");
    }
    rv = bns_file_read_at(x->file, x->at, buf, want, &got, err);
    if (rv == BNS_OK && got != want)
        rv = bns_err_set(err, BNS_E_IO, "%s: cut short", x->path);
    if (rv == BNS_OK && bns_sha256_add(x->sha, bns_slice(buf, got)) != BNS_OK)
        rv = bns_err_set(err, BNS_E_INTERNAL, "SHA-256 failed");
    x->at += got;
    *len = got;
    return rv;
}
