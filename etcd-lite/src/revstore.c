/* revstore.c - opening and closing the revision store.
 *
 * Schema, format 1:
 *   rev(main, sub, kv, PRIMARY KEY(main, sub)) WITHOUT ROWID    kv = KeyValue bytes (kvbytes.h)
 *   lease(id PRIMARY KEY, ttl, granted)                  seconds; index of the entry
 *   meta(id = 1, format, applied, term, revision, compact_scheduled, compact_finished, digest,
 *        conf)
 *
 * Settings, in an order that matters: exclusive locking before anything touches a file in WAL mode
 * (then SQLite keeps its WAL index in the heap and needs no shared memory), auto_vacuum before the
 * first table (it cannot be added later). Between checkpoints the WAL is not synced; what a power
 * cut leaves of it is a prefix of its transactions, so rows and applied index always agree.
 *
 * Open makes what it found durable before it reports it: after a kill -9 the WAL's tail may be in
 * the page cache only, and a Raft log that was cut on the strength of it would be gone for good
 * after a power cut.
 */
#include "revstore_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/varint.h"

#define WAL_PAGES_MAX 4096 /* SQLite checkpoints by itself beyond this: 16 MiB */

static const char *const stmt_sql[ETCD_STMTS] = {
    [ETCD_STMT_BEGIN] = "BEGIN",
    [ETCD_STMT_COMMIT] = "COMMIT",
    [ETCD_STMT_PUT] = "INSERT INTO rev(main, sub, kv) VALUES(?1, ?2, ?3)",
    [ETCD_STMT_GET] = "SELECT kv FROM rev WHERE main = ?1 AND sub = ?2",
    [ETCD_STMT_DELETE] = "DELETE FROM rev WHERE main = ?1 AND sub = ?2",
    [ETCD_STMT_SCAN] = "SELECT main, sub, kv FROM rev WHERE (main, sub) > (?1, ?2) "
                       "ORDER BY main, sub LIMIT ?3",
    [ETCD_STMT_LEASE_PUT] = "INSERT INTO lease(id, ttl, granted) VALUES(?1, ?2, ?3)",
    [ETCD_STMT_LEASE_DELETE] = "DELETE FROM lease WHERE id = ?1",
    [ETCD_STMT_LEASES] = "SELECT id, ttl, granted FROM lease WHERE id > ?1 ORDER BY id LIMIT ?2",
    [ETCD_STMT_META] = "UPDATE meta SET applied = ?1, term = ?2, revision = ?3, "
                       "compact_scheduled = ?4, compact_finished = ?5, digest = ?6, conf = ?7 "
                       "WHERE id = 1",
    [ETCD_STMT_PAGES] = "PRAGMA page_count",
    [ETCD_STMT_FREE] = "PRAGMA freelist_count",
    [ETCD_STMT_VACUUM] = "PRAGMA incremental_vacuum", /* a page a step */
};

int etcd_store_path(const struct etcd_store *s, char *dst, const char *name, struct bns_err *err)
{
    int n = snprintf(dst, BNS_PATH_MAX, "%s/%s", s->dir, name);

    if (n < 0 || n >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%s/%s: the path is too long", s->dir, name);
    return BNS_OK;
}

int etcd_store_exec(sqlite3 *db, const char *sql, struct bns_err *err)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    char what[32]; /* its beginning: the reason must have room in the error */

    if (rc == SQLITE_OK)
        return BNS_OK;
    (void)snprintf(what, sizeof what, "%s", sql); /* cut when long */
    return bns_sqlite_err(db, rc, what, err);
}

int etcd_store_db_open(struct etcd_store *s, const char *name, sqlite3 **out, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = etcd_store_path(s, path, name, err);
    int rc;

    *out = NULL;
    if (rv != BNS_OK)
        return rv;
    rc = sqlite3_open_v2(path, out,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                             SQLITE_OPEN_PRIVATECACHE,
                         bns_sqlite_vfs_name(s->svfs));
    /* After a failed sync or write the page cache may no longer hold what SQLite believes it wrote:
     * a checkpoint at close would copy that into the database. The next open recovers the WAL. */
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(*out, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (rc != SQLITE_OK) {
        rv = bns_sqlite_err(*out, rc, "open", err);
        sqlite3_close(*out);
        *out = NULL;
        bns_err_wrap(err, "%s", path);
    }
    return rv;
}

/* ---- the row of meta ------------------------------------------------------------------------ */

static void conf_get(const uint8_t *p, size_t len, struct bns_raft_conf *out)
{
    uint64_t *to[3] = {out->voters, out->voters_old, out->learners};
    uint8_t *count[3] = {&out->voters_count, &out->voters_old_count, &out->learners_count};

    *out = (struct bns_raft_conf){.voters_count = 0};
    for (int i = 0; i < 3; i++) {
        uint64_t n = len < 8 ? 0 : bns_get_u64le(p);
        if (len < 8 || n > BNS_RAFT_PEERS_MAX || len - 8 < n * 8)
            return;
        p += 8;
        len -= 8;
        *count[i] = (uint8_t)n;
        for (uint64_t k = 0; k < n; k++, p += 8, len -= 8)
            to[i][k] = bns_get_u64le(p);
    }
}

int etcd_store_meta_read(sqlite3 *db, struct etcd_meta *out, struct bns_err *err)
{
    static const char sql[] = "SELECT format, applied, term, revision, compact_scheduled, "
                              "compact_finished, digest, conf FROM meta WHERE id = 1";
    sqlite3_stmt *st = NULL;
    int rv = BNS_OK;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_DONE || rc == SQLITE_ERROR) {
        rv = bns_err_set(err, BNS_E_CORRUPT, "not a store of etcd-lite: no meta row");
    } else if (rc != SQLITE_ROW) {
        rv = bns_sqlite_err(db, rc, "read meta", err);
    } else if (sqlite3_column_int64(st, 0) > ETCD_STORE_FORMAT) {
        rv = bns_err_set(err, BNS_E_UNSUPPORTED,
                         "store format %lld is newer than %d: use the program that wrote it",
                         (long long)sqlite3_column_int64(st, 0), ETCD_STORE_FORMAT);
    } else {
        out->applied = (uint64_t)sqlite3_column_int64(st, 1);
        out->term = (uint64_t)sqlite3_column_int64(st, 2);
        out->revision = sqlite3_column_int64(st, 3);
        out->compact_scheduled = sqlite3_column_int64(st, 4);
        out->compact_finished = sqlite3_column_int64(st, 5);
        out->digest = (uint64_t)sqlite3_column_int64(st, 6);
        conf_get(sqlite3_column_blob(st, 7), (size_t)sqlite3_column_bytes(st, 7), &out->conf);
    }
    sqlite3_finalize(st);
    return rv;
}

/* ---- one database file ---------------------------------------------------------------------- */

static int create_schema(sqlite3 *db, struct bns_err *err)
{
    return etcd_store_exec(
        db,
        "BEGIN;"
        "CREATE TABLE IF NOT EXISTS rev(main INTEGER NOT NULL, sub INTEGER NOT NULL, "
        "kv BLOB NOT NULL, PRIMARY KEY(main, sub)) WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS lease(id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL, "
        "granted INTEGER NOT NULL);"
        "CREATE TABLE IF NOT EXISTS meta(id INTEGER PRIMARY KEY CHECK(id = 1), "
        "format INTEGER NOT NULL, applied INTEGER NOT NULL, term INTEGER NOT NULL, "
        "revision INTEGER NOT NULL, compact_scheduled INTEGER NOT NULL, "
        "compact_finished INTEGER NOT NULL, digest INTEGER NOT NULL, conf BLOB NOT NULL);"
        "INSERT OR IGNORE INTO meta VALUES(1, 1, 0, 0, 1, -1, -1, 0, x'');"
        "COMMIT",
        err);
}

static int settings(struct etcd_store *s, struct bns_err *err)
{
    char sql[128];
    int rv = etcd_store_exec(s->db,
                             "PRAGMA locking_mode=EXCLUSIVE;"
                             "PRAGMA journal_mode=WAL;"
                             "PRAGMA synchronous=NORMAL;"
                             "PRAGMA temp_store=MEMORY;"
                             "PRAGMA cache_size=-1024;"
                             "PRAGMA mmap_size=0",
                             err);
    if (rv != BNS_OK)
        return rv;
    snprintf(sql, sizeof sql, "PRAGMA wal_autocheckpoint=%d; PRAGMA journal_size_limit=%d",
             WAL_PAGES_MAX, WAL_PAGES_MAX * 4096);
    return etcd_store_exec(s->db, sql, err);
}

/* A new file, made aside without SQLite's syncs (a dozen of them), synced once as a whole and named
 * when it is complete. Leftovers of a crash begin with "install." and go at the next open. */
static int create_file(struct etcd_store *s, const char *name, struct bns_err *err)
{
    static const char tmp[] = "install.new.db";
    char from[BNS_PATH_MAX], to[BNS_PATH_MAX];
    struct bns_file *f = NULL;
    sqlite3 *db = NULL;
    int rv = etcd_store_db_open(s, tmp, &db, err);

    if (rv == BNS_OK)
        rv = etcd_store_exec(db,
                             "PRAGMA locking_mode=EXCLUSIVE;"
                             "PRAGMA journal_mode=MEMORY;"
                             "PRAGMA synchronous=OFF;"
                             "PRAGMA auto_vacuum=INCREMENTAL",
                             err);
    if (rv == BNS_OK)
        rv = create_schema(db, err);
    if (rv == BNS_OK)
        rv = etcd_store_exec(db, "PRAGMA journal_mode=WAL", err);
    if (sqlite3_close(db) != SQLITE_OK)
        BNS_ASSERT(false);
    if (rv == BNS_OK)
        rv = etcd_store_path(s, from, tmp, err);
    if (rv == BNS_OK)
        rv = etcd_store_path(s, to, name, err);
    if (rv == BNS_OK)
        rv = bns_vfs_open(s->vfs, from, BNS_OPEN_WRITE, &f, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    bns_file_close(f);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(s->vfs, from, to, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(s->vfs, s->dir, err) : rv;
}

static int prepare_all(struct etcd_store *s, struct bns_err *err)
{
    for (int i = 0; i < ETCD_STMTS; i++) {
        int rc = sqlite3_prepare_v3(s->db, stmt_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->stmt[i],
                                    NULL);
        if (rc != SQLITE_OK)
            return bns_sqlite_err(s->db, rc, stmt_sql[i], err);
    }
    return BNS_OK;
}

static int int_of(struct etcd_store *s, enum etcd_stmt which, uint64_t *out, struct bns_err *err)
{
    int rc = sqlite3_step(s->stmt[which]);
    int rv = BNS_OK;

    if (rc == SQLITE_ROW)
        *out = (uint64_t)sqlite3_column_int64(s->stmt[which], 0);
    else
        rv = bns_sqlite_err(s->db, rc, stmt_sql[which], err);
    sqlite3_reset(s->stmt[which]);
    return rv;
}

int etcd_store_stat(struct etcd_store *s, struct bns_err *err)
{
    uint64_t pages = 0, unused = 0;
    int rv = int_of(s, ETCD_STMT_PAGES, &pages, err);

    if (rv == BNS_OK)
        rv = int_of(s, ETCD_STMT_FREE, &unused, err);
    s->db_bytes = pages * s->page_bytes;
    s->db_bytes_used = (pages - unused) * s->page_bytes;
    return rv;
}

int etcd_store_commit(struct etcd_store *s, struct bns_err *err)
{
    int rc;

    if (!s->in_tx)
        return BNS_OK;
    rc = sqlite3_step(s->stmt[ETCD_STMT_COMMIT]);
    sqlite3_reset(s->stmt[ETCD_STMT_COMMIT]);
    if (rc != SQLITE_DONE)
        return bns_sqlite_err(s->db, rc, "commit", err);
    s->in_tx = false;
    return BNS_OK;
}

/* Syncs the WAL, moves it into the file, syncs the file. */
int etcd_store_checkpoint(struct etcd_store *s, struct bns_err *err)
{
    int rv = etcd_store_commit(s, err);
    int rc;

    if (rv != BNS_OK)
        return rv;
    rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
    return rc == SQLITE_OK ? BNS_OK : bns_sqlite_err(s->db, rc, "checkpoint", err);
}

/* Rows above the revision are of an entry that did not end (apply_turns.c). */
static int drop_unfinished(struct etcd_store *s, struct bns_err *err)
{
    char sql[64];

    if (BNS_MUTANT(s->env, ETCD_MUTANT_HALF_KEPT))
        return BNS_OK;
    (void)snprintf(sql, sizeof sql, "DELETE FROM rev WHERE main > %lld", /* fits */
                   (long long)s->meta.revision);
    return etcd_store_exec(s->db, sql, err);
}

int etcd_store_attach(struct etcd_store *s, const char *name, struct bns_err *err)
{
    sqlite3_stmt *st = NULL;
    int rv = etcd_store_db_open(s, name, &s->db, err);

    if (rv == BNS_OK)
        rv = settings(s, err);
    if (rv == BNS_OK)
        rv = create_schema(s->db, err);
    if (rv == BNS_OK)
        rv = etcd_store_meta_read(s->db, &s->meta, err);
    if (rv == BNS_OK)
        rv = drop_unfinished(s, err);
    if (rv == BNS_OK)
        rv = prepare_all(s, err);
    if (rv == BNS_OK)
        rv = etcd_store_checkpoint(s, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(s->vfs, s->dir, err);
    s->page_bytes = 4096;
    if (rv == BNS_OK && sqlite3_prepare_v2(s->db, "PRAGMA page_size", -1, &st, NULL) == SQLITE_OK &&
        sqlite3_step(st) == SQLITE_ROW)
        s->page_bytes = (uint32_t)sqlite3_column_int(st, 0);
    sqlite3_finalize(st);
    if (rv == BNS_OK)
        rv = etcd_store_stat(s, err);
    return rv == BNS_OK ? rv : (bns_err_wrap(err, "%s/%s", s->dir, name), rv);
}

void etcd_store_detach(struct etcd_store *s)
{
    for (int i = 0; i < ETCD_STMTS; i++) {
        sqlite3_finalize(s->stmt[i]);
        s->stmt[i] = NULL;
    }
    if (s->db != NULL && sqlite3_close(s->db) != SQLITE_OK)
        BNS_ASSERT(false);
    s->db = NULL;
    s->in_tx = false;
}

/* ---- the directory -------------------------------------------------------------------------- */

struct listing {
    struct etcd_store *s;
    struct bns_err *err;
    bool clean;
    int rv;
};

static bool store_number(const char *name, uint64_t *out, const char **rest)
{
    char *end;

    if (strncmp(name, "kv-", 3) != 0 || name[3] < '1' || name[3] > '9')
        return false;
    *out = strtoull(name + 3, &end, 10);
    *rest = end;
    return true;
}

static int each_name(void *arg, const char *name)
{
    struct listing *l = arg;
    char path[BNS_PATH_MAX];
    const char *rest = "";
    uint64_t n = 0;
    bool ours = store_number(name, &n, &rest);

    if (!l->clean) {
        if (ours && strcmp(rest, ".db") == 0 && n > l->s->number)
            l->s->number = n;
        return 0;
    }
    if (ours ? n == l->s->number
             : strncmp(name, "snap-", 5) != 0 && strncmp(name, "install.", 8) != 0)
        return 0;
    l->rv = etcd_store_path(l->s, path, name, l->err);
    if (l->rv == BNS_OK)
        l->rv = bns_vfs_remove(l->s->vfs, path, l->err);
    return l->rv == BNS_OK ? 0 : 1;
}

/* Removes what does not belong to the current file. */
int etcd_store_clean(struct etcd_store *s, struct bns_err *err)
{
    struct listing l = {.s = s, .err = err, .clean = true, .rv = BNS_OK};
    int rv = bns_vfs_list(s->vfs, s->dir, each_name, &l, err);

    return l.rv != BNS_OK ? l.rv : rv < 0 ? rv : BNS_OK;
}

static int find_number(struct etcd_store *s, struct bns_err *err)
{
    struct listing l = {.s = s, .err = err, .clean = false, .rv = BNS_OK};

    s->number = 0;
    return bns_vfs_list(s->vfs, s->dir, each_name, &l, err);
}

static int read_rows(struct etcd_store *s, etcd_store_row_fn *fn, void *arg, struct bns_err *err)
{
    sqlite3_stmt *st = NULL;
    int rv = BNS_OK;
    int rc = sqlite3_prepare_v2(s->db, "SELECT main, sub, kv FROM rev ORDER BY main, sub", -1, &st,
                                NULL);

    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
            break;
        rv = fn(arg, sqlite3_column_int64(st, 0), (uint32_t)sqlite3_column_int64(st, 1),
                bns_slice(sqlite3_column_blob(st, 2), (size_t)sqlite3_column_bytes(st, 2)));
        if (rv != BNS_OK) {
            bns_err_set(err, rv, "%s/kv-%llu.db: row (%lld, %lld) cannot be indexed", s->dir,
                        (unsigned long long)s->number, (long long)sqlite3_column_int64(st, 0),
                        (long long)sqlite3_column_int64(st, 1));
            break;
        }
    }
    if (rv == BNS_OK && rc != SQLITE_DONE)
        rv = bns_sqlite_err(s->db, rc, "scan", err);
    sqlite3_finalize(st);
    return rv;
}

int etcd_store_leases(struct etcd_store *s, int (*fn)(void *arg, const struct etcd_lease_row *r),
                      void *arg, struct bns_err *err)
{
    sqlite3_stmt *st = s->stmt[ETCD_STMT_LEASES];
    int rv = BNS_OK, rc = SQLITE_DONE;

    sqlite3_bind_int64(st, 1, INT64_MIN);
    sqlite3_bind_int64(st, 2, -1); /* all */
    while (rv == BNS_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct etcd_lease_row r = {sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 1),
                                   (uint64_t)sqlite3_column_int64(st, 2)};
        rv = fn(arg, &r);
    }
    if (rv != BNS_OK)
        bns_err_set(err, rv, "%s/kv-%llu.db: the leases cannot be loaded", s->dir,
                    (unsigned long long)s->number);
    else if (rc != SQLITE_DONE)
        rv = bns_sqlite_err(s->db, rc, "scan leases", err);
    sqlite3_reset(st);
    return rv;
}

int etcd_store_open(struct bns_env *env, const char *dir, etcd_store_row_fn *fn, void *arg,
                    struct etcd_store **out, struct etcd_meta *meta, struct bns_err *err)
{
    char name[48];
    bool fresh;
    struct etcd_store *s = bns_alloc_zero(env->alloc, sizeof *s);
    int rv;

    if (s == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a store", dir);
    s->env = env;
    bns_list_init(&s->open);
    s->vfs = env->vfs;
    s->alloc = env->sim ? env->alloc : bns_alloc_libc();
    if (strlen(dir) >= sizeof s->dir) {
        rv = bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", dir);
        goto fail;
    }
    memcpy(s->dir, dir, strlen(dir) + 1);
    rv = bns_sqlite_vfs_new(env, &s->svfs, err);
    if (rv == BNS_OK)
        rv = find_number(s, err);
    if (rv != BNS_OK)
        goto fail;
    fresh = s->number == 0;
    if (fresh)
        s->number = 1;
    rv = etcd_store_clean(s, err);
    if (rv != BNS_OK)
        goto fail;
    snprintf(name, sizeof name, "kv-%llu.db", (unsigned long long)s->number);
    if (fresh)
        rv = create_file(s, name, err);
    if (rv == BNS_OK)
        rv = etcd_store_attach(s, name, err);
    if (rv == BNS_OK)
        rv = read_rows(s, fn, arg, err);
    if (rv == BNS_OK)
        rv = bns_worker_new(env, "store", etcd_store_handle, s, &s->worker);
    if (rv != BNS_OK)
        goto fail;
    *meta = s->meta;
    *out = s;
    return BNS_OK;

fail:
    etcd_store_close(s);
    return rv;
}

void etcd_store_close(struct etcd_store *s)
{
    const struct bns_alloc *a;

    if (s == NULL)
        return;
    a = s->env->alloc;
    if (s->worker != NULL)
        bns_worker_free(s->env, s->worker);
    BNS_ASSERT(bns_list_empty(&s->open));
    bns_file_close(s->install);
    etcd_store_detach(s);
    bns_sqlite_vfs_free(s->svfs);
    bns_free(a, s);
}

void etcd_store_died(struct etcd_store *s)
{
    if (s == NULL)
        return;
    etcd_store_snap_died(s);
    bns_file_close(s->install);
    s->install = NULL;
    etcd_store_detach(s);
    bns_sqlite_vfs_free(s->svfs);
    s->svfs = NULL;
}

uint64_t etcd_store_db_bytes(const struct etcd_store *s, uint64_t *used)
{
    *used = s->db_bytes_used;
    return s->db_bytes;
}

const struct bns_alloc *etcd_store_alloc(const struct etcd_store *s)
{
    return s->alloc;
}
