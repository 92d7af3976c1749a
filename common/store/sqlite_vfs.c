/* sqlite_vfs.c - an sqlite3_vfs over struct bns_vfs.
 *
 * What SQLite needs of a disk, and how it gets it here:
 *
 *   xSync            bns_file_sync; a file opened with CREATE also has its directory synced at its
 *                    first sync, so that a journal that is synced is a journal that is found.
 *                    After a failed sync nobody knows which pages are on disk, or even still in
 *                    the page cache: from then on the VFS refuses every write, sync, truncation
 *                    and removal. SQLite would otherwise checkpoint once more when it is closed,
 *                    copy what is left of its WAL into the database, and delete the WAL
 *   xOpen            the bytes of a WAL that is there are written again: see rewrite()
 *   xDelete          remove, then sync of the directory when SQLite asks for it
 *   xRead            a short read is filled with zeros and reported as SHORT_READ
 *   xLock ...        always granted: exclusive mode, one connection a file (see the header)
 *   sectors          512 bytes; writing a sector does not damage its neighbours (POWERSAFE), which
 *                    is what the simulated disk keeps and real ones do
 *
 * Errors: NOSPACE becomes SQLITE_FULL, NOMEM SQLITE_NOMEM, all else SQLITE_IOERR_<call>. The last
 * error's code and text stay in the VFS, where bns_sqlite_err() finds them again: SQLite itself
 * only keeps a number.
 */
#include "store/sqlite_vfs.h"

#include <stdio.h>
#include <string.h>

#include "base/prng.h"
#include "base/varint.h"

#define NAME_BYTES 24
#define REWRITE_BYTES 65536
#define UNIX_EPOCH_MS INT64_C(210866760000000) /* in milliseconds of the Julian day */

struct bns_sqlite_vfs {
    sqlite3_vfs base;
    struct bns_vfs *vfs;
    struct bns_prng prng;
    int64_t wall_ms;
    uint64_t temp_no;
    bool unsafe; /* a sync failed: nothing may change any more */
    struct bns_err last;
    char name[NAME_BYTES];
    char dir[BNS_PATH_MAX]; /* of the main database opened last */
};

struct file {
    sqlite3_file base;
    struct bns_sqlite_vfs *v;
    struct bns_file *f;
    bool sync_dir; /* at the next sync */
    bool delete_on_close;
    char path[BNS_PATH_MAX];
};

static struct file *file_of(sqlite3_file *f)
{
    return (struct file *)(void *)f; /* base is the first member */
}

static struct bns_sqlite_vfs *vfs_of(sqlite3_vfs *v)
{
    return v->pAppData;
}

/* Remembers the error; rc_io is what SQLite calls it when it is none of the special ones. */
static int fail(struct bns_sqlite_vfs *v, int code, int rc_io)
{
    v->last.code = code;
    if (code == BNS_E_NOSPACE)
        return SQLITE_FULL;
    return code == BNS_E_NOMEM ? SQLITE_NOMEM : rc_io;
}

static int sync_failed(struct bns_sqlite_vfs *v, int code, int rc_io)
{
    v->unsafe = true;
    return fail(v, code == BNS_E_OFF ? code : BNS_E_IO, rc_io);
}

static void parent_of(const char *path, char *dir)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path);

    if (slash == NULL) {
        memcpy(dir, ".", 2);
        return;
    }
    if (len == 0)
        len = 1; /* the root */
    memcpy(dir, path, len);
    dir[len] = '\0';
}

/* ---- files ----------------------------------------------------------------------------------- */

static int file_close(sqlite3_file *sf)
{
    struct file *p = file_of(sf);
    int rv = BNS_OK;

    bns_file_close(p->f);
    if (p->delete_on_close)
        rv = bns_vfs_remove(p->v->vfs, p->path, &p->v->last);
    return rv == BNS_OK ? SQLITE_OK : fail(p->v, rv, SQLITE_IOERR_DELETE);
}

static int file_read(sqlite3_file *sf, void *dst, int len, sqlite3_int64 off)
{
    struct file *p = file_of(sf);
    size_t got = 0, want = (size_t)len;
    int rv = bns_file_read_at(p->f, (uint64_t)off, dst, want, &got, &p->v->last);

    if (rv != BNS_OK)
        return fail(p->v, rv, SQLITE_IOERR_READ);
    if (got == want)
        return SQLITE_OK;
    memset((char *)dst + got, 0, want - got);
    return SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *sf, const void *src, int len, sqlite3_int64 off)
{
    struct file *p = file_of(sf);
    struct bns_slice v = bns_slice(src, (size_t)len);
    int rv;

    if (p->v->unsafe)
        return SQLITE_IOERR_WRITE;
    rv = bns_file_write_at(p->f, (uint64_t)off, &v, 1, &p->v->last);
    return rv == BNS_OK ? SQLITE_OK : fail(p->v, rv, SQLITE_IOERR_WRITE);
}

static int file_truncate(sqlite3_file *sf, sqlite3_int64 size)
{
    struct file *p = file_of(sf);
    int rv;

    if (p->v->unsafe)
        return SQLITE_IOERR_TRUNCATE;
    rv = bns_file_truncate(p->f, (uint64_t)size, &p->v->last);
    return rv == BNS_OK ? SQLITE_OK : fail(p->v, rv, SQLITE_IOERR_TRUNCATE);
}

static int file_sync(sqlite3_file *sf, int flags)
{
    struct file *p = file_of(sf);
    bool data_only = (flags & SQLITE_SYNC_DATAONLY) != 0;
    char dir[BNS_PATH_MAX];
    int rv;

    if (p->v->unsafe)
        return SQLITE_IOERR_FSYNC;
    rv = bns_file_sync(p->f, data_only, &p->v->last);
    if (rv != BNS_OK)
        return sync_failed(p->v, rv, SQLITE_IOERR_FSYNC);
    if (!p->sync_dir)
        return SQLITE_OK;
    parent_of(p->path, dir);
    rv = bns_vfs_sync_dir(p->v->vfs, dir, &p->v->last);
    if (rv != BNS_OK)
        return sync_failed(p->v, rv, SQLITE_IOERR_DIR_FSYNC);
    p->sync_dir = false;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *sf, sqlite3_int64 *size)
{
    struct file *p = file_of(sf);
    uint64_t n = 0;
    int rv = bns_file_size(p->f, &n, &p->v->last);

    *size = (sqlite3_int64)n;
    return rv == BNS_OK ? SQLITE_OK : fail(p->v, rv, SQLITE_IOERR_FSTAT);
}

static int file_lock(sqlite3_file *sf, int level)
{
    (void)sf;
    (void)level;
    return SQLITE_OK;
}

static int file_check_lock(sqlite3_file *sf, int *out)
{
    (void)sf;
    *out = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *sf, int op, void *arg)
{
    (void)sf;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *sf)
{
    (void)sf;
    return 512;
}

static int file_characteristics(sqlite3_file *sf)
{
    (void)sf;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 1, /* no shared memory, no memory mapping */
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_check_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
};

/* ---- names ----------------------------------------------------------------------------------- */

static int flags_of(int flags)
{
    int ours = BNS_OPEN_READ;

    if ((flags & SQLITE_OPEN_READWRITE) != 0)
        ours |= BNS_OPEN_WRITE;
    if ((flags & SQLITE_OPEN_CREATE) != 0)
        ours |= BNS_OPEN_CREATE;
    if ((flags & SQLITE_OPEN_EXCLUSIVE) != 0)
        ours |= BNS_OPEN_EXCL;
    return ours;
}

/* Writes the bytes of a file again, so that the next sync has something to do. After a failed sync
 * in a former life the page cache may show bytes that the disk never got, marked as clean: SQLite
 * would find them valid, build on them, and lose them with the next power cut. */
static int rewrite(struct bns_sqlite_vfs *v, struct bns_file *f)
{
    uint8_t *buf = sqlite3_malloc(REWRITE_BYTES);
    size_t got = REWRITE_BYTES;
    int rv = buf == NULL ? BNS_E_NOMEM : BNS_OK;

    for (uint64_t off = 0; rv == BNS_OK && got == REWRITE_BYTES; off += got) {
        struct bns_slice piece;

        rv = bns_file_read_at(f, off, buf, REWRITE_BYTES, &got, &v->last);
        piece = bns_slice(buf, got);
        if (rv == BNS_OK && got > 0)
            rv = bns_file_write_at(f, off, &piece, 1, &v->last);
    }
    sqlite3_free(buf);
    return rv;
}

static int vfs_open(sqlite3_vfs *sv, sqlite3_filename name, sqlite3_file *sf, int flags,
                    int *out_flags)
{
    struct bns_sqlite_vfs *v = vfs_of(sv);
    struct file *p = file_of(sf);
    int n, rv;

    p->base.pMethods = NULL; /* xClose is not called for a file that did not open */
    p->v = v;
    if (name == NULL)
        n = snprintf(p->path, sizeof p->path, "%s/sqlite-%llu.tmp", v->dir,
                     (unsigned long long)++v->temp_no);
    else
        n = snprintf(p->path, sizeof p->path, "%s", name);
    if (n < 0 || (size_t)n >= sizeof p->path)
        return SQLITE_CANTOPEN;
    rv = bns_vfs_open(v->vfs, p->path, flags_of(flags), &p->f, &v->last);
    if (rv == BNS_E_NOTFOUND || rv == BNS_E_EXISTS)
        return SQLITE_CANTOPEN;
    if (rv != BNS_OK)
        return fail(v, rv, SQLITE_IOERR);
    if ((flags & SQLITE_OPEN_WAL) != 0)
        rv = rewrite(v, p->f);
    if (rv != BNS_OK) {
        bns_file_close(p->f);
        return fail(v, rv, SQLITE_IOERR);
    }
    p->sync_dir = (flags & SQLITE_OPEN_CREATE) != 0;
    p->delete_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
    if ((flags & SQLITE_OPEN_MAIN_DB) != 0)
        parent_of(p->path, v->dir);
    if (out_flags != NULL)
        *out_flags = flags;
    p->base.pMethods = &file_methods;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *sv, const char *name, int sync_dir)
{
    struct bns_sqlite_vfs *v = vfs_of(sv);
    char dir[BNS_PATH_MAX];
    int rv;

    if (v->unsafe)
        return SQLITE_IOERR_DELETE;
    rv = bns_vfs_remove(v->vfs, name, &v->last);
    if (rv == BNS_E_NOTFOUND)
        return SQLITE_IOERR_DELETE_NOENT;
    if (rv != BNS_OK)
        return fail(v, rv, SQLITE_IOERR_DELETE);
    if (sync_dir == 0)
        return SQLITE_OK;
    parent_of(name, dir);
    rv = bns_vfs_sync_dir(v->vfs, dir, &v->last);
    return rv == BNS_OK ? SQLITE_OK : sync_failed(v, rv, SQLITE_IOERR_DIR_FSYNC);
}

/* As SQLite's own VFS does: an empty file does not "exist" (an empty journal is no journal). */
static int vfs_access(sqlite3_vfs *sv, const char *name, int flags, int *out)
{
    struct bns_sqlite_vfs *v = vfs_of(sv);
    struct bns_file_stat st = {0};
    int rv = bns_vfs_stat(v->vfs, name, &st, &v->last);

    *out = 0;
    if (rv == BNS_E_NOTFOUND)
        return SQLITE_OK;
    if (rv != BNS_OK)
        return fail(v, rv, SQLITE_IOERR_ACCESS);
    *out = flags != SQLITE_ACCESS_EXISTS || st.is_dir || st.size > 0;
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *sv, const char *name, int len, char *dst)
{
    int n = snprintf(dst, (size_t)len, "%s", name);

    (void)sv;
    return n < 0 || n >= len ? SQLITE_CANTOPEN : SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *sv, int len, char *dst)
{
    struct bns_sqlite_vfs *v = vfs_of(sv);

    for (int i = 0; i < len; i++)
        dst[i] = (char)(bns_prng_next(&v->prng) & 0xff);
    return len;
}

static int vfs_sleep(sqlite3_vfs *sv, int us)
{
    (void)sv;
    return us;
}

static int vfs_time_ms(sqlite3_vfs *sv, sqlite3_int64 *out)
{
    *out = vfs_of(sv)->wall_ms + UNIX_EPOCH_MS;
    return SQLITE_OK;
}

static int vfs_time(sqlite3_vfs *sv, double *out)
{
    *out = (double)(vfs_of(sv)->wall_ms + UNIX_EPOCH_MS) / 86400000.0;
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *sv, int len, char *dst)
{
    if (len > 0)
        (void)snprintf(dst, (size_t)len, "%s", vfs_of(sv)->last.text); /* cut when long */
    return vfs_of(sv)->last.code;
}

/* ---- registration ---------------------------------------------------------------------------- */

static int seed(struct bns_sqlite_vfs *v, struct bns_env *env)
{
    uint8_t bytes[8];
    int rv = bns_entropy(env, bytes, sizeof bytes);

    if (rv != BNS_OK)
        return rv;
    bns_prng_seed(&v->prng, bns_get_u64le(bytes));
    if (env->sim) /* zero would mean: seed from the default VFS again */
        (void)sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED,
                                   (int)(bns_prng_next(&v->prng) >> 33 | 1), NULL);
    return BNS_OK;
}

int bns_sqlite_vfs_new(struct bns_env *env, struct bns_sqlite_vfs **out, struct bns_err *err)
{
    struct bns_sqlite_vfs *v;
    unsigned n = 0;
    int rv;

    if (sqlite3_initialize() != SQLITE_OK)
        return bns_err_set(err, BNS_E_INTERNAL, "sqlite does not initialise");
    v = sqlite3_malloc64(sizeof *v);
    if (v == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a sqlite vfs");
    memset(v, 0, sizeof *v);
    v->vfs = env->vfs;
    v->wall_ms = bns_wall_ms(env);
    memcpy(v->dir, ".", 2);
    rv = seed(v, env);
    if (rv != BNS_OK) {
        sqlite3_free(v);
        return bns_err_set(err, rv, "no entropy for a sqlite vfs");
    }
    do
        (void)snprintf(v->name, sizeof v->name, "bns-%u", n++); /* at most 14 bytes */
    while (sqlite3_vfs_find(v->name) != NULL);
    v->base = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct file),
        .mxPathname = BNS_PATH_MAX - 1,
        .zName = v->name,
        .pAppData = v,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time_ms,
    };
    rv = sqlite3_vfs_register(&v->base, 0);
    BNS_ASSERT(rv == SQLITE_OK); /* it only fails when sqlite is not initialised */
    *out = v;
    return BNS_OK;
}

void bns_sqlite_vfs_free(struct bns_sqlite_vfs *v)
{
    int rc;

    if (v == NULL)
        return;
    rc = sqlite3_vfs_unregister(&v->base);
    BNS_ASSERT(rc == SQLITE_OK);
    sqlite3_free(v);
}

const char *bns_sqlite_vfs_name(const struct bns_sqlite_vfs *v)
{
    return v->name;
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* The VFS of a connection when it is one of ours, else NULL. */
static const struct bns_sqlite_vfs *vfs_behind(sqlite3 *db)
{
    sqlite3_vfs *sv = NULL;

    if (db == NULL)
        return NULL;
    if (sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &sv) != SQLITE_OK)
        return NULL;
    return sv != NULL && sv->xOpen == vfs_open ? vfs_of(sv) : NULL;
}

static int code_of(int rc, const struct bns_sqlite_vfs *v)
{
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return BNS_E_NOMEM;
    case SQLITE_FULL:
        return BNS_E_NOSPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return BNS_E_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return BNS_E_BUSY;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        return v != NULL && v->last.code == BNS_E_OFF ? BNS_E_OFF : BNS_E_IO;
    default:
        return BNS_E_INTERNAL;
    }
}

int bns_sqlite_err(sqlite3 *db, int rc, const char *what, struct bns_err *err)
{
    const struct bns_sqlite_vfs *v = vfs_behind(db);
    const char *msg = db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db);
    int code = code_of(rc, v);

    if (rc == SQLITE_OK)
        return BNS_OK;
    if ((code == BNS_E_IO || code == BNS_E_NOSPACE) && v != NULL && v->last.code != BNS_OK)
        return bns_err_set(err, code, "%s: %s: %s", what, msg, v->last.text);
    return bns_err_set(err, code, "%s: %s (sqlite %d)", what, msg, rc);
}
