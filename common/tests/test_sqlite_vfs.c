/* test_sqlite_vfs.c - SQLite on our VFS: it works, it survives, its errors are ours.
 *
 * Method: rows k = 1, 2, 3 ... are committed one transaction each, in WAL mode with exclusive
 * locking, with checkpoints in between. After a crash the table must hold exactly 1..n, with n at
 * least what was acknowledged (synchronous=FULL), and integrity_check must be content. */
/* ctest: timeout=300 */
#include "store/sqlite_vfs.h"
#include "store/vfs_posix.h"
#include "store_env.h"

#include <unistd.h>

#define ROWS 12

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int one_value(void *arg, int n, char **values, char **names)
{
    (void)names;
    if (n > 0 && values[0] != NULL)
        (void)snprintf(arg, 64, "%s", values[0]);
    return 0;
}

static int query(sqlite3 *db, const char *sql, char *out)
{
    out[0] = '\0';
    return sqlite3_exec(db, sql, one_value, out, NULL);
}

/* sync: a value of PRAGMA synchronous, or "DELETE": a rollback journal with synchronous=FULL. */
static int open_db(struct bns_sqlite_vfs *v, const char *path, const char *sync, sqlite3 **db)
{
    bool journal = strcmp(sync, "DELETE") == 0;
    char sql[128];
    int rc = sqlite3_open_v2(path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                             bns_sqlite_vfs_name(v));

    if (rc == SQLITE_OK)
        rc = run(*db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA auto_vacuum=INCREMENTAL");
    if (rc == SQLITE_OK)
        rc = run(*db, journal ? "PRAGMA journal_mode=DELETE"
                              : "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
    (void)snprintf(sql, sizeof sql, "PRAGMA synchronous=%s", journal ? "FULL" : sync);
    if (rc == SQLITE_OK)
        rc = run(*db, sql);
    if (rc == SQLITE_OK)
        rc = run(*db, "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v BLOB)");
    return rc;
}

/* Commits rows after those that are there; returns the last one that SQLite acknowledged. */
static int add_rows(sqlite3 *db, int from, int to)
{
    char sql[128];

    for (int k = from; k <= to; k++) {
        (void)snprintf(sql, sizeof sql, "INSERT INTO t VALUES(%d, randomblob(1500))", k);
        if (run(db, sql) != SQLITE_OK)
            return k - 1;
        if (k % 4 == 0 && run(db, "PRAGMA wal_checkpoint(TRUNCATE)") != SQLITE_OK)
            return k;
    }
    return to;
}

/* The table must hold 1..n: returns n, or -1 and a text. */
static int check_rows(sqlite3 *db, const char **bad)
{
    char max[64], count[64], ok[64];

    *bad = NULL;
    if (query(db, "PRAGMA integrity_check", ok) != SQLITE_OK || strcmp(ok, "ok") != 0)
        *bad = "integrity check failed";
    else if (query(db, "SELECT coalesce(max(k), 0) FROM t", max) != SQLITE_OK ||
             query(db, "SELECT count(*) FROM t", count) != SQLITE_OK)
        *bad = "the table cannot be read";
    else if (strcmp(max, count) != 0)
        *bad = "a row is missing";
    return *bad == NULL ? (int)strtol(max, NULL, 10) : -1;
}

/* Rows, a transaction rolled back, a vacuum, a reopen; on the memory VFS and on the real one. */
static void database_works(void **state)
{
    char tmpl[] = "/tmp/bns-sqlite-XXXXXX", path[64], text[64];
    struct bns_vfs *posix = bns_vfs_posix(bns_alloc_libc());
    (void)state;

    assert_non_null(mkdtemp(tmpl));
    for (int kind = 0; kind < 2; kind++) {
        struct bns_vfs *mem = NULL;
        struct bns_sqlite_vfs *v = NULL;
        struct senv s;
        sqlite3 *db = NULL;
        const char *bad;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &mem), BNS_OK);
        (void)snprintf(path, sizeof path, "%s/db", kind == 0 ? "d" : tmpl);
        senv_init(&s, kind == 0 ? mem : posix, 1, 0);
        assert_int_equal(bns_vfs_mkdir(s.env.vfs, kind == 0 ? "d" : tmpl, NULL), BNS_OK);
        for (int round = 0; round < 3; round++) {
            assert_int_equal(bns_sqlite_vfs_new(&s.env, &v, NULL), BNS_OK);
            assert_int_equal(open_db(v, path, "FULL", &db), SQLITE_OK);
            assert_int_equal(check_rows(db, &bad), round * ROWS);
            assert_int_equal(add_rows(db, round * ROWS + 1, (round + 1) * ROWS),
                             (round + 1) * ROWS);
            assert_int_equal(run(db, "BEGIN; DELETE FROM t; ROLLBACK"), SQLITE_OK);
            assert_int_equal(check_rows(db, &bad), (round + 1) * ROWS);
            assert_int_equal(query(db, "SELECT strftime('%Y', 'now')", text), SQLITE_OK);
            assert_string_equal(text, "2023"); /* the env's clock, not the machine's */
            assert_int_equal(sqlite3_close(db), SQLITE_OK);
            bns_sqlite_vfs_free(v);
        }
        assert_int_equal(bns_vfs_remove(s.env.vfs, path, NULL), BNS_OK);
        assert_int_equal(senv_free(&s, NULL), 0);
        assert_int_equal(bns_vfs_mem_handles(mem), 0);
        bns_vfs_mem_free(mem);
    }
    assert_int_equal(rmdir(tmpl), 0); /* nothing was left: journals and WAL are gone */
    bns_vfs_posix_free(posix);
}

/* The same seed writes the same bytes: SQLite's random salts come from the env. */
static void same_seed_same_bytes(void **state)
{
    uint64_t digest[3];
    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        struct bns_vfs *mem = NULL;
        struct bns_sqlite_vfs *v = NULL;
        struct senv s;
        sqlite3 *db = NULL;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &mem), BNS_OK);
        senv_init(&s, mem, i / 2, 0);
        assert_int_equal(bns_sqlite_vfs_new(&s.env, &v, NULL), BNS_OK);
        assert_int_equal(open_db(v, "db", "FULL", &db), SQLITE_OK);
        assert_int_equal(add_rows(db, 1, 6), 6);
        digest[i] = bns_vfs_mem_digest(mem, false);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        bns_sqlite_vfs_free(v);
        assert_int_equal(senv_free(&s, NULL), 0);
        bns_vfs_mem_free(mem);
    }
    assert_true(digest[0] == digest[1]);
    assert_true(digest[0] != digest[2]);
}

/* A sort that spills, a temporary table: files without a name, removed when closed. */
static void temporary_files_are_removed(void **state)
{
    struct bns_vfs *mem = NULL;
    struct bns_sqlite_vfs *v = NULL;
    struct senv s;
    sqlite3 *db = NULL;
    struct bns_file_stat st;
    char text[64];
    (void)state;

    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &mem), BNS_OK);
    senv_init(&s, mem, 1, 0);
    assert_int_equal(bns_sqlite_vfs_new(&s.env, &v, NULL), BNS_OK);
    assert_int_equal(open_db(v, "db", "FULL", &db), SQLITE_OK);
    assert_int_equal(run(db, "PRAGMA temp_store=FILE; PRAGMA cache_size=5; "
                             "CREATE TEMP TABLE u(x); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL "
                             "SELECT i + 1 FROM c WHERE i < 3000) INSERT INTO u SELECT "
                             "randomblob(200) FROM c"),
                     SQLITE_OK);
    assert_int_equal(query(db, "SELECT count(*) FROM (SELECT x FROM u ORDER BY x)", text),
                     SQLITE_OK);
    assert_string_equal(text, "3000");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(bns_vfs_stat(mem, "./sqlite-1.tmp", &st, NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_mem_handles(mem), 0);
    bns_sqlite_vfs_free(v);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(mem);
}

/* Fault `fault` at operation `at`, then a power cut, then recovery. NULL = all well. */
static const char *crash_run(enum bns_vfs_mem_fault fault, uint64_t at, uint64_t seed,
                             const char *sync, bool *fired)
{
    struct bns_vfs *mem = NULL;
    struct bns_prng cut;
    const char *bad = NULL;
    int acked = 0;

    bns_prng_seed(&cut, seed ^ at << 16);
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &mem), BNS_OK);
    for (int life = 0; life < 3 && bad == NULL; life++) {
        struct bns_sqlite_vfs *v = NULL;
        sqlite3 *db = NULL;
        struct senv s;
        int rc, rows = 0;

        senv_init(&s, mem, seed + (uint64_t)life, 0);
        assert_int_equal(bns_sqlite_vfs_new(&s.env, &v, NULL), BNS_OK);
        if (life == 0)
            bns_vfs_mem_fail_at(mem, at, fault);
        rc = open_db(v, "db", sync, &db);
        if (rc == SQLITE_OK && life > 0) {
            rows = check_rows(db, &bad);
            if (bad == NULL && rows < acked && strcmp(sync, "NORMAL") != 0)
                bad = "an acknowledged row is lost";
        }
        if (rc == SQLITE_OK && bad == NULL)
            acked = add_rows(db, rows + 1, rows + ROWS);
        else if (rc != SQLITE_OK && life > 0)
            bad = "the database does not open";
        if (life == 0)
            *fired = bns_vfs_mem_fired(mem);
        bns_vfs_mem_fail_at(mem, 0, BNS_VFAULT_NONE);
        bns_vfs_mem_power_cut(mem, &cut);
        (void)sqlite3_close(db); /* every call of it answers OFF */
        bns_vfs_mem_drop_handles(mem);
        bns_vfs_mem_power_on(mem);
        bns_sqlite_vfs_free(v);
        (void)senv_free(&s, NULL);
    }
    bns_vfs_mem_free(mem);
    return bad;
}

static void sweep(enum bns_vfs_mem_fault fault, const char *sync, uint64_t seeds)
{
    uint64_t runs = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        bool fired = true;
        for (uint64_t at = 1; fired; at++, runs++) {
            const char *bad = crash_run(fault, at, seed, sync, &fired);
            if (bad != NULL)
                fail_msg("fault=%d sync=%s seed=%llu at=%llu: %s", (int)fault, sync,
                         (unsigned long long)seed, (unsigned long long)at, bad);
        }
    }
    print_message("  %s: %llu runs\n", sync, (unsigned long long)runs);
}

/* FULL keeps every acknowledged row; NORMAL may lose the last ones, never one in the middle. */
static void power_cut_at_every_operation(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_POWER, "FULL", 4);
    sweep(BNS_VFAULT_POWER, "NORMAL", 4);
    sweep(BNS_VFAULT_POWER, "DELETE", 2);
    sweep(BNS_VFAULT_KILL, "FULL", 1);
}

/* The sweep is able to fail: without syncs rows are lost. */
static void database_without_syncs_is_caught(void **state)
{
    bool fired = true, found = false;
    (void)state;
    for (uint64_t at = 1; fired && !found; at++)
        found = crash_run(BNS_VFAULT_POWER, at, 1, "OFF", &fired) != NULL;
    assert_true(found);
}

/* One call fails: SQLite reports it, and what was acknowledged before is there afterwards. */
static void error_at_every_operation(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_EIO, "FULL", 1);
    sweep(BNS_VFAULT_NOSPACE, "FULL", 1);
    sweep(BNS_VFAULT_EIO, "DELETE", 1);
}

/* SQLite's numbers become our codes, with the text of the VFS. */
/* The n-th sync fails, and with it what it should have written may be gone from the page cache.
 * The connection is closed in good order, which lets SQLite checkpoint once more: it must not build
 * on the bytes that the failed sync lost. The next life finds the page cache as it was left, and
 * ends with a power cut in one of its calls. Returns NULL or what is wrong with the last life. */
static const char *sync_failure_run(uint64_t seed, uint64_t at, bool *fired)
{
    struct bns_vfs *mem = NULL;
    struct bns_prng cut;
    const char *bad = NULL;
    int kept = 0;

    bns_prng_seed(&cut, seed << 8 ^ at);
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &mem), BNS_OK);
    for (int life = 0; life < 3 && bad == NULL; life++) {
        struct bns_sqlite_vfs *v = NULL;
        struct senv s;
        sqlite3 *db = NULL;

        senv_init(&s, mem, seed, 0);
        assert_int_equal(bns_sqlite_vfs_new(&s.env, &v, NULL), BNS_OK);
        if (life == 0)
            bns_vfs_mem_fail_on(mem, BNS_VOP_SYNC, "db", at, BNS_VFAULT_EIO);
        if (life == 1)
            bns_vfs_mem_fail_at(mem, 1 + bns_prng_below(&cut, 40), BNS_VFAULT_POWER);
        if (open_db(v, "db", "NORMAL", &db) == SQLITE_OK && life == 0)
            kept = add_rows(db, 1, ROWS) / 4 * 4; /* those of the last good checkpoint, at least */
        if (life == 1 && db != NULL)
            (void)run(db, "PRAGMA wal_checkpoint(TRUNCATE)"); /* the power goes at some point */
        if (life == 0)
            *fired = bns_vfs_mem_fired(mem);
        else if (life == 2 && check_rows(db, &bad) < kept - 4 && bad == NULL)
            bad = "a row that was checkpointed is lost";
        if (life == 1) {
            bns_vfs_mem_fail_at(mem, 0, BNS_VFAULT_NONE);
            bns_vfs_mem_power_cut(mem, &cut);
        }
        (void)sqlite3_close(db); /* with a failed sync behind it the answer does not matter */
        bns_vfs_mem_drop_handles(mem);
        bns_vfs_mem_power_on(mem);
        bns_sqlite_vfs_free(v);
        (void)senv_free(&s, NULL);
    }
    bns_vfs_mem_free(mem);
    return bad;
}

static void a_failed_sync_is_not_repeated(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        bool fired = true;
        for (uint64_t at = 1; fired; at++) {
            const char *bad = sync_failure_run(seed, at, &fired);
            if (bad != NULL)
                fail_msg("seed=%llu sync %llu: %s", (unsigned long long)seed,
                         (unsigned long long)at, bad);
        }
    }
}

static void errors_are_mapped(void **state)
{
    struct bns_vfs *mem = NULL;
    struct bns_sqlite_vfs *v = NULL;
    struct bns_err err = {0};
    struct senv s;
    sqlite3 *db = NULL;
    (void)state;

    assert_int_equal(bns_sqlite_err(NULL, SQLITE_OK, "x", &err), BNS_OK);
    assert_int_equal(bns_sqlite_err(NULL, SQLITE_NOMEM, "x", &err), BNS_E_NOMEM);
    assert_int_equal(bns_sqlite_err(NULL, SQLITE_NOTADB, "x", &err), BNS_E_CORRUPT);
    assert_int_equal(bns_sqlite_err(NULL, SQLITE_BUSY, "x", &err), BNS_E_BUSY);
    assert_int_equal(bns_sqlite_err(NULL, SQLITE_MISUSE, "x", &err), BNS_E_INTERNAL);
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &mem), BNS_OK);
    senv_init(&s, mem, 1, 0);
    assert_int_equal(bns_sqlite_vfs_new(&s.env, &v, NULL), BNS_OK);
    assert_int_equal(open_db(v, "db", "FULL", &db), SQLITE_OK);
    bns_vfs_mem_fail_on(mem, BNS_VOP_WRITE, "db", 1, BNS_VFAULT_EIO);
    assert_int_equal(bns_sqlite_err(db, run(db, "INSERT INTO t VALUES(1, 2)"), "put", &err),
                     BNS_E_IO);
    assert_non_null(strstr(err.text, "put: disk I/O error: db-wal"));
    bns_vfs_mem_fail_on(mem, BNS_VOP_WRITE, "db", 1, BNS_VFAULT_NOSPACE);
    assert_int_equal(bns_sqlite_err(db, run(db, "INSERT INTO t VALUES(2, 2)"), "put", &err),
                     BNS_E_NOSPACE);
    bns_vfs_mem_power_cut(mem, NULL);
    assert_int_equal(bns_sqlite_err(db, run(db, "INSERT INTO t VALUES(3, 2)"), "put", &err),
                     BNS_E_OFF);
    (void)sqlite3_close(db);
    bns_vfs_mem_drop_handles(mem);
    bns_sqlite_vfs_free(v);
    bns_sqlite_vfs_free(NULL);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(mem);
}

/* ---- the methods one by one ------------------------------------------------------------------ */

struct direct {
    struct bns_vfs *mem;
    struct bns_sqlite_vfs *v;
    struct senv s;
    sqlite3_vfs *sv;
    sqlite3_file *f;
};

static void direct_open(struct direct *d)
{
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &d->mem), BNS_OK);
    senv_init(&d->s, d->mem, 1, 0);
    assert_int_equal(bns_sqlite_vfs_new(&d->s.env, &d->v, NULL), BNS_OK);
    d->sv = sqlite3_vfs_find(bns_sqlite_vfs_name(d->v));
    assert_non_null(d->sv);
    d->f = calloc(1, (size_t)d->sv->szOsFile);
}

static void direct_close(struct direct *d)
{
    free(d->f);
    bns_sqlite_vfs_free(d->v);
    assert_int_equal(senv_free(&d->s, NULL), 0);
    assert_int_equal(bns_vfs_mem_handles(d->mem), 0);
    bns_vfs_mem_free(d->mem);
}

static int open_file(struct direct *d, const char *name, int flags)
{
    int out = 0;
    return d->sv->xOpen(d->sv, name, d->f, flags | SQLITE_OPEN_MAIN_DB, &out);
}

/* Names: what SQLite must hear when a file is missing, there, too long, or the disk fails. */
static void name_calls_answer_as_sqlite_expects(void **state)
{
    const int create = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    struct direct d = {0};
    char longer[700], full[512], text[64] = "";
    int yes = 7;
    (void)state;

    direct_open(&d);
    memset(longer, 'a', sizeof longer);
    longer[699] = '\0';
    assert_int_equal(open_file(&d, longer, create), SQLITE_CANTOPEN);
    assert_int_equal(d.sv->xFullPathname(d.sv, longer, 512, full), SQLITE_CANTOPEN);
    assert_int_equal(open_file(&d, "/none", SQLITE_OPEN_READWRITE), SQLITE_CANTOPEN);
    assert_int_equal(open_file(&d, "none", SQLITE_OPEN_READONLY), SQLITE_CANTOPEN);
    assert_int_equal(open_file(&d, "db", create), SQLITE_OK);
    assert_int_equal(d.f->pMethods->xClose(d.f), SQLITE_OK);
    assert_int_equal(open_file(&d, "db", create | SQLITE_OPEN_EXCLUSIVE), SQLITE_CANTOPEN);
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(open_file(&d, "db", create), SQLITE_IOERR);
    assert_true(d.sv->xGetLastError(d.sv, sizeof text, text) == BNS_E_IO);
    assert_non_null(strstr(text, "db"));
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_NOSPACE);
    assert_int_equal(open_file(&d, "new", create), SQLITE_FULL);
    assert_int_equal(d.sv->xAccess(d.sv, "db", SQLITE_ACCESS_EXISTS, &yes), SQLITE_OK);
    assert_int_equal(yes, 0); /* empty */
    assert_int_equal(d.sv->xAccess(d.sv, "db", SQLITE_ACCESS_READWRITE, &yes), SQLITE_OK);
    assert_int_equal(yes, 1);
    assert_int_equal(d.sv->xAccess(d.sv, "none", SQLITE_ACCESS_READWRITE, &yes), SQLITE_OK);
    assert_int_equal(yes, 0);
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(d.sv->xAccess(d.sv, "db", SQLITE_ACCESS_EXISTS, &yes), SQLITE_IOERR_ACCESS);
    assert_int_equal(d.sv->xDelete(d.sv, "none", 1), SQLITE_IOERR_DELETE_NOENT);
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(d.sv->xDelete(d.sv, "db", 1), SQLITE_IOERR_DELETE);
    bns_vfs_mem_fail_at(d.mem, 2, BNS_VFAULT_EIO);
    assert_int_equal(d.sv->xDelete(d.sv, "db", 1), SQLITE_IOERR_DIR_FSYNC);
    direct_close(&d);
}

/* Each method of an open file fails once, with the code that names the call. */
static void file_calls_name_what_failed(void **state)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_DELETEONCLOSE;
    const sqlite3_io_methods *m;
    struct direct d = {0};
    sqlite3_int64 size = 0;
    char buf[8] = "1234567";
    int held = 9;
    (void)state;

    direct_open(&d);
    assert_int_equal(open_file(&d, "/db", flags), SQLITE_OK);
    m = d.f->pMethods;
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(m->xWrite(d.f, buf, 4, 0), SQLITE_IOERR_WRITE);
    assert_int_equal(m->xWrite(d.f, buf, 4, 0), SQLITE_OK);
    assert_int_equal(m->xRead(d.f, buf, 8, 0), SQLITE_IOERR_SHORT_READ);
    assert_memory_equal(buf, "1234\0\0\0\0", 8);
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(m->xRead(d.f, buf, 8, 0), SQLITE_IOERR_READ);
    assert_int_equal(m->xSync(d.f, SQLITE_SYNC_DATAONLY), SQLITE_OK);
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(m->xTruncate(d.f, 2), SQLITE_IOERR_TRUNCATE);
    assert_int_equal(m->xTruncate(d.f, 2), SQLITE_OK);
    assert_int_equal(m->xFileSize(d.f, &size), SQLITE_OK);
    assert_int_equal(size, 2);
    assert_int_equal(m->xLock(d.f, SQLITE_LOCK_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(m->xCheckReservedLock(d.f, &held), SQLITE_OK);
    assert_int_equal(held, 0);
    assert_int_equal(m->xUnlock(d.f, SQLITE_LOCK_NONE), SQLITE_OK);
    bns_vfs_mem_power_cut(d.mem, NULL);
    assert_int_equal(m->xFileSize(d.f, &size), SQLITE_IOERR_FSTAT);
    bns_vfs_mem_power_on(d.mem);
    bns_vfs_mem_fail_at(d.mem, 1, BNS_VFAULT_EIO);
    assert_int_equal(m->xClose(d.f), SQLITE_IOERR_DELETE);
    direct_close(&d);
}

/* A failed sync, of a file or of its directory, is the last thing that changes anything. */
static void nothing_changes_after_a_failed_sync(void **state)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    const int codes[] = {SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC};
    (void)state;

    for (unsigned i = 0; i < 2; i++) {
        const sqlite3_io_methods *m;
        struct direct d = {0};
        char buf[4] = "123";

        direct_open(&d);
        assert_int_equal(open_file(&d, "/db", flags), SQLITE_OK);
        m = d.f->pMethods;
        assert_int_equal(m->xWrite(d.f, buf, 4, 0), SQLITE_OK);
        bns_vfs_mem_fail_at(d.mem, i + 1, BNS_VFAULT_EIO);
        assert_int_equal(m->xSync(d.f, SQLITE_SYNC_NORMAL), codes[i]);
        assert_int_equal(m->xSync(d.f, SQLITE_SYNC_NORMAL), SQLITE_IOERR_FSYNC);
        assert_int_equal(m->xWrite(d.f, buf, 4, 0), SQLITE_IOERR_WRITE);
        assert_int_equal(m->xTruncate(d.f, 0), SQLITE_IOERR_TRUNCATE);
        assert_int_equal(d.sv->xDelete(d.sv, "/db", 1), SQLITE_IOERR_DELETE);
        assert_int_equal(m->xRead(d.f, buf, 4, 0), SQLITE_OK);
        assert_int_equal(m->xClose(d.f), SQLITE_OK);
        direct_close(&d);
    }
}

/* Time, sleep and randomness come from the env: nothing waits, the same seed gives the same. */
static void clock_and_randomness_are_the_envs(void **state)
{
    struct direct d[2] = {0};
    char random[2][32];
    sqlite3_int64 ms = 0;
    double days = 0;
    (void)state;

    for (int i = 0; i < 2; i++) {
        direct_open(&d[i]);
        assert_int_equal(d[i].sv->xRandomness(d[i].sv, 32, random[i]), 32);
        assert_int_equal(d[i].sv->xSleep(d[i].sv, 5000000), 5000000);
        assert_int_equal(d[i].sv->xCurrentTimeInt64(d[i].sv, &ms), SQLITE_OK);
        assert_int_equal(d[i].sv->xCurrentTime(d[i].sv, &days), SQLITE_OK);
        assert_true(ms == INT64_C(210866760000000) + bns_wall_ms(&d[i].s.env));
        assert_true(days > 2460000 && days < 2470000);
    }
    assert_memory_equal(random[0], random[1], 32);
    assert_string_not_equal(bns_sqlite_vfs_name(d[0].v), bns_sqlite_vfs_name(d[1].v));
    direct_close(&d[0]);
    direct_close(&d[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(database_works),
        cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(temporary_files_are_removed),
        cmocka_unit_test(power_cut_at_every_operation),
        cmocka_unit_test(database_without_syncs_is_caught),
        cmocka_unit_test(error_at_every_operation),
        cmocka_unit_test(a_failed_sync_is_not_repeated),
        cmocka_unit_test(errors_are_mapped),
        cmocka_unit_test(name_calls_answer_as_sqlite_expects),
        cmocka_unit_test(file_calls_name_what_failed),
        cmocka_unit_test(nothing_changes_after_a_failed_sync),
        cmocka_unit_test(clock_and_randomness_are_the_envs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
