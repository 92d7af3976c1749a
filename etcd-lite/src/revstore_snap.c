/* revstore_snap.c - snapshots of the store, out and in.
 *
 * Out: SQLite's online backup on the store's own connection, a slice of pages a job. Writes of this
 * connection between two slices are carried over by SQLite itself, so the copy is the store as it
 * stands when the last slice runs; the meta row is in it and says at which index that was. The
 * finished file is read in chunks as plain bytes.
 *
 * In: chunks go into install.db. At the end it is synced, opened, checked (SQLite's quick_check,
 * the meta row, its index), closed, and renamed to kv-<n+1>.db; the rename, made durable by syncing
 * the directory, is the switch: before it the old file is the store, after it the new one. A number
 * of its own keeps the old file's WAL away from the new file.
 */
#include "revstore_impl.h"

#include <stdio.h>

#include "bolt_export.h"

#define SLICE_PAGES 64 /* 256 KiB a job */

static int copy_error(struct etcd_backup *b, int rc, struct bns_err *err)
{
    return bns_sqlite_err(b->db, rc, "copy the store", err);
}

static void backup_free(struct etcd_store *s, struct etcd_backup *b)
{
    char path[BNS_PATH_MAX];

    etcd_export_free(b->bolt);
    if (b->copy != NULL)
        sqlite3_backup_finish(b->copy);
    if (b->db != NULL)
        sqlite3_close(b->db);
    bns_file_close(b->file);
    bns_list_del(&b->node);
    if (!b->exported && etcd_store_path(s, path, b->name, NULL) == BNS_OK &&
        bns_vfs_remove(s->vfs, path, NULL) != BNS_OK)
        path[0] = 0; /* left for the next open, which removes it */
    bns_free(s->alloc, b);
}

static int backup_open(struct etcd_store *s, struct etcd_store_job *j)
{
    struct etcd_backup *b = bns_alloc_zero(s->alloc, sizeof *b);
    int rv;

    if (b == NULL)
        return bns_err_set(&j->err, BNS_E_NOMEM, "no memory for a snapshot");
    bns_list_push(&s->open, &b->node);
    snprintf(b->name, sizeof b->name, "snap-%llu.db", (unsigned long long)++s->backups);
    rv = etcd_store_db_open(s, b->name, &b->db, &j->err);
    if (rv == BNS_OK)
        rv = etcd_store_exec(b->db, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", &j->err);
    if (rv == BNS_OK) {
        b->copy = sqlite3_backup_init(b->db, "main", s->db, "main");
        if (b->copy == NULL)
            rv = copy_error(b, sqlite3_errcode(b->db), &j->err);
    }
    if (rv != BNS_OK) {
        backup_free(s, b);
        return rv;
    }
    j->backup = b;
    return BNS_OK;
}

static int backup_finish(struct etcd_store *s, struct etcd_store_job *j)
{
    struct etcd_backup *b = j->backup;
    char path[BNS_PATH_MAX];
    int rv;
    int rc = sqlite3_backup_finish(b->copy);

    b->copy = NULL;
    if (rc == SQLITE_OK)
        rc = sqlite3_close(b->db);
    if (rc != SQLITE_OK)
        return copy_error(b, rc, &j->err);
    b->db = NULL;
    rv = etcd_store_path(s, path, b->name, &j->err);
    if (rv == BNS_OK)
        rv = bns_vfs_open(s->vfs, path, BNS_OPEN_READ, &b->file, &j->err);
    if (rv == BNS_OK)
        rv = bns_file_size(b->file, &j->bytes, &j->err);
    j->meta = s->meta;
    j->finished = rv == BNS_OK;
    return rv;
}

static int backup_step(struct etcd_store *s, struct etcd_store_job *j)
{
    int rc;
    int rv = etcd_store_commit(s, &j->err);

    if (rv != BNS_OK) {
        s->bad = rv; /* not the snapshot's trouble but the store's */
        s->bad_err = j->err;
        return rv;
    }
    rc = sqlite3_backup_step(j->backup->copy, SLICE_PAGES);
    if (rc == SQLITE_OK)
        return BNS_OK;
    if (rc != SQLITE_DONE)
        return copy_error(j->backup, rc, &j->err);
    return backup_finish(s, j);
}

static int backup_read(struct etcd_store_job *j)
{
    size_t got = 0;
    int rv = bns_file_read_at(j->backup->file, j->off, j->buf, j->len, &got, &j->err);

    j->len = got;
    return rv;
}

/* ---- for clients ---------------------------------------------------------------------------- */

static int bolt_begin(struct etcd_store *s, struct etcd_store_job *j)
{
    struct etcd_backup *b = j->backup;
    char path[BNS_PATH_MAX], name[48];
    int rv;

    bns_file_close(b->file);
    b->file = NULL;
    (void)snprintf(name, sizeof name, "%s.bolt", b->name); /* b->name is shorter */
    rv = etcd_store_path(s, path, name, &j->err);
    if (rv == BNS_OK)
        rv = etcd_store_db_open(s, b->name, &b->db, &j->err);
    if (rv == BNS_OK)
        rv = etcd_export_new(s->vfs, s->alloc, path, b->db, j->members, &b->bolt, &j->err);
    return rv;
}

/* The copy is turned over; then it goes. */
static int bolt_step(struct etcd_store *s, struct etcd_store_job *j)
{
    struct etcd_backup *b = j->backup;
    char path[BNS_PATH_MAX];
    bool finished = false;
    int rv = b->bolt == NULL ? bolt_begin(s, j) : BNS_OK;

    if (rv == BNS_OK)
        rv = etcd_export_step(b->bolt, &finished, &j->err);
    if (rv != BNS_OK || !finished)
        return rv;
    if (sqlite3_close(b->db) != SQLITE_OK)
        BNS_ASSERT(false);
    b->db = NULL;
    rv = etcd_store_path(s, path, b->name, &j->err);
    if (rv == BNS_OK)
        rv = bns_vfs_remove(s->vfs, path, &j->err);
    b->exported = rv == BNS_OK;
    j->bytes = etcd_export_bytes(b->bolt);
    j->finished = rv == BNS_OK;
    return rv;
}

/* ---- in ------------------------------------------------------------------------------------- */

static int install_open(struct etcd_store *s, struct etcd_store_job *j)
{
    char path[BNS_PATH_MAX];
    int rv = etcd_store_path(s, path, "install.db", &j->err);

    bns_file_close(s->install);
    s->install = NULL;
    if (rv == BNS_OK)
        rv = bns_vfs_open(s->vfs, path, BNS_OPEN_WRITE | BNS_OPEN_CREATE | BNS_OPEN_TRUNC,
                          &s->install, &j->err);
    return rv;
}

static void install_abort(struct etcd_store *s)
{
    char path[BNS_PATH_MAX];

    bns_file_close(s->install);
    s->install = NULL;
    if (etcd_store_path(s, path, "install.db", NULL) == BNS_OK &&
        bns_vfs_remove(s->vfs, path, NULL) != BNS_OK)
        path[0] = 0; /* the next install truncates it, the next open removes it */
}

static int quick_check(sqlite3 *db, struct bns_err *err)
{
    sqlite3_stmt *st = NULL;
    int rv = BNS_OK;
    int rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc != SQLITE_ROW)
        rv = bns_sqlite_err(db, rc, "quick_check", err);
    else if (strcmp((const char *)sqlite3_column_text(st, 0), "ok") != 0)
        rv = bns_err_set(err, BNS_E_CORRUPT, "%.200s", (const char *)sqlite3_column_text(st, 0));
    sqlite3_finalize(st);
    return rv;
}

/* Whole, ours, and at the index that was announced? */
static int verify(struct etcd_store *s, struct etcd_store_job *j)
{
    struct etcd_meta meta = s->meta;
    sqlite3 *db = NULL;
    int rv = etcd_store_db_open(s, "install.db", &db, &j->err);

    if (rv == BNS_OK)
        rv = etcd_store_exec(db, "PRAGMA locking_mode=EXCLUSIVE", &j->err);
    if (rv == BNS_OK)
        rv = quick_check(db, &j->err);
    if (rv == BNS_OK)
        rv = etcd_store_meta_read(db, &meta, &j->err);
    if (rv == BNS_OK && (meta.applied != j->meta.applied || meta.term != j->meta.term))
        rv = bns_err_set(&j->err, BNS_E_CORRUPT, "the snapshot stands at index %llu, not %llu",
                         (unsigned long long)meta.applied, (unsigned long long)j->meta.applied);
    if (db != NULL && sqlite3_close(db) != SQLITE_OK)
        BNS_ASSERT(false);
    return rv;
}

/* From here on a failure leaves no store to go on with: it ends the node. */
static int switch_over(struct etcd_store *s, struct etcd_store_job *j)
{
    char from[BNS_PATH_MAX], to[BNS_PATH_MAX], name[48];
    struct bns_raft_conf conf = j->meta.conf;
    int rv;

    snprintf(name, sizeof name, "kv-%llu.db", (unsigned long long)s->number + 1);
    rv = etcd_store_path(s, from, "install.db", &j->err);
    if (rv == BNS_OK)
        rv = etcd_store_path(s, to, name, &j->err);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(s->vfs, from, to, &j->err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(s->vfs, s->dir, &j->err);
    etcd_store_detach(s);
    if (rv == BNS_OK) {
        s->number++;
        rv = etcd_store_attach(s, name, &j->err);
    }
    if (rv == BNS_OK)
        rv = etcd_store_clean(s, &j->err);
    s->meta.conf = conf.voters_count > 0 ? conf : s->meta.conf;
    j->meta = s->meta;
    return rv;
}

static int install_end(struct etcd_store *s, struct etcd_store_job *j)
{
    int rv = etcd_store_commit(s, &j->err);

    if (rv == BNS_OK && s->install == NULL)
        return bns_err_set(&j->err, BNS_E_INVALID, "no snapshot is being installed");
    if (rv == BNS_OK) {
        rv = bns_file_sync(s->install, false, &j->err);
        bns_file_close(s->install);
        s->install = NULL;
        if (rv == BNS_OK)
            rv = verify(s, j);
        if (rv != BNS_OK) {
            install_abort(s);
            return rv;
        }
        rv = switch_over(s, j);
    }
    if (rv != BNS_OK) {
        s->bad = rv;
        s->bad_err = j->err;
    }
    return rv;
}

int etcd_store_snap_job(struct etcd_store *s, struct etcd_store_job *j)
{
    switch (j->kind) {
    case ETCD_STORE_BACKUP_OPEN:
        return backup_open(s, j);
    case ETCD_STORE_BACKUP_STEP:
        return backup_step(s, j);
    case ETCD_STORE_BACKUP_READ:
        return backup_read(j);
    case ETCD_STORE_BACKUP_BOLT:
        return bolt_step(s, j);
    case ETCD_STORE_BACKUP_BLOB:
        return etcd_export_read(j->backup->bolt, j->buf, &j->len, &j->err);
    case ETCD_STORE_BACKUP_CLOSE:
        backup_free(s, j->backup);
        return BNS_OK;
    case ETCD_STORE_INSTALL_OPEN:
        return install_open(s, j);
    case ETCD_STORE_INSTALL_WRITE:
        if (s->install == NULL)
            return bns_err_set(&j->err, BNS_E_INVALID, "no snapshot is being installed");
        return bns_file_write_at(s->install, j->off, &j->data, 1, &j->err);
    case ETCD_STORE_INSTALL_END:
        return install_end(s, j);
    default:
        BNS_ASSERT(j->kind == ETCD_STORE_INSTALL_ABORT);
        install_abort(s);
        return BNS_OK;
    }
}

void etcd_store_snap_died(struct etcd_store *s)
{
    while (!bns_list_empty(&s->open))
        backup_free(s, BNS_CONTAINER(s->open.next, struct etcd_backup, node));
}
