/* wal_dir.c - see wal_dir.h.
 *
 * A member that starts without its log has forgotten what it voted for and what it acknowledged,
 * and a log under two members is nobody's. So a directory of its own has a lock, and an identity
 * file that says whose log it is (the format of the data directory's); and <data-dir>/wal-dir says
 * that there is one, and where.
 *
 *   says wal-dir   --wal-dir is      then
 *   nothing        not given         the log is in <data-dir>/wal
 *   nothing        W                 refused when <data-dir>/wal has a log: it is to be moved;
 *                                    W may be empty, or say that it is this member's
 *   W              W                 W says that it is this member's
 *   W              V                 it was moved: V has a log, and says that it is this member's
 *   W              not given         it was moved back: the same of <data-dir>/wal
 *
 * First W's identity is written, then wal-dir, then the log: a crash between them leads to the same
 * row again. A log that does not say whose it is (it was moved out of a data directory) is taken
 * once somebody has copied the data directory's identity file beside it.
 */
#include "wal_dir.h"

#include <stdio.h>

#include "identity.h"

#define NOTE "wal-dir"

static bool given(const char *text)
{
    return text != NULL && *text != '\0';
}

static int path_in(const char *dir, const char *name, char out[BNS_PATH_MAX], struct bns_err *err)
{
    int len = snprintf(out, BNS_PATH_MAX, "%s/%s", dir, name);

    if (len < 0 || len >= BNS_PATH_MAX - 32) /* segments and files beside have names, too */
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", dir);
    return BNS_OK;
}

/* ---- what is there --------------------------------------------------------------------------- */
static int on_name(void *arg, const char *name)
{
    size_t len = strlen(name);

    if (len > 4 && memcmp(name, "wal-", 4) == 0)
        *(bool *)arg = true;
    return 0;
}

static int has_log(struct bns_vfs *vfs, const char *dir, bool *out, struct bns_err *err)
{
    int rv;

    *out = false;
    rv = bns_vfs_list(vfs, dir, on_name, out, err);
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

enum owner { NOBODY, US, OTHERS };

static int owner_of(struct bns_vfs *vfs, const struct etcd_wal_dir *w, const char *dir,
                    enum owner *out, struct bns_err *err)
{
    struct etcd_identity is;
    int rv = etcd_identity_read(vfs, dir, &is, err);

    *out = NOBODY;
    if (rv == BNS_E_NOTFOUND)
        return BNS_OK;
    if (rv == BNS_OK)
        *out = is.cluster_id == w->cluster_id && is.member_id == w->member_id ? US : OTHERS;
    return rv;
}

/* ---- the note -------------------------------------------------------------------------------- */
/* Empty: the log is in the data directory. */
static int note_read(struct bns_vfs *vfs, const char *path, char out[BNS_PATH_MAX],
                     struct bns_err *err)
{
    struct bns_file *f = NULL;
    size_t got = 0;
    int rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &f, err);

    out[0] = '\0';
    if (rv == BNS_E_NOTFOUND)
        return BNS_OK;
    if (rv == BNS_OK)
        rv = bns_file_read_at(f, 0, out, BNS_PATH_MAX - 1, &got, err);
    bns_file_close(f);
    out[got] = '\0';
    if (rv == BNS_OK && (got < 2 || out[got - 1] != '\n' || strlen(out) != got))
        return bns_err_set(err, BNS_E_CORRUPT,
                           "%s: damaged: it holds the path of the log's "
                           "directory, and a line feed",
                           path);
    if (rv == BNS_OK)
        out[got - 1] = '\0';
    return rv;
}

static int note_write(struct bns_vfs *vfs, const struct etcd_wal_dir *w, const char *path,
                      struct bns_err *err)
{
    const struct bns_slice text[] = {bns_slice_str(w->wal_dir), BNS_LIT("\n")};
    char beside[BNS_PATH_MAX + 8];
    struct bns_file *f = NULL;
    int rv;

    (void)snprintf(beside, sizeof beside, "%s.tmp", path); /* fits: path_in() */
    rv = bns_vfs_open(vfs, beside, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, err);
    if (rv == BNS_OK)
        rv = bns_file_write_at(f, 0, text, 2, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    bns_file_close(f);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(vfs, beside, path, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(vfs, w->data_dir, err) : rv;
}

/* ---- in the data directory ------------------------------------------------------------------- */
static int inside(struct bns_vfs *vfs, const struct etcd_wal_dir *w, const char *dir,
                  const char *note_path, const char *note, struct bns_err *err)
{
    enum owner owner = NOBODY;
    bool log = false;
    int rv = bns_vfs_mkdir(vfs, dir, err);

    if (rv != BNS_OK || *note == '\0')
        return rv;
    rv = owner_of(vfs, w, dir, &owner, err);
    if (rv == BNS_OK)
        rv = has_log(vfs, dir, &log, err);
    if (rv != BNS_OK)
        return rv;
    if (owner != US || !log)
        return bns_err_set(err, BNS_E_INVALID,
                           "%s: the log of this member is in %s: start it with --wal-dir, or move "
                           "what is there to %s",
                           w->data_dir, note, dir);
    rv = bns_vfs_remove(vfs, note_path, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(vfs, w->data_dir, err) : rv;
}

/* ---- in one of its own ----------------------------------------------------------------------- */
static int sync_above(struct bns_vfs *vfs, char *path, struct bns_err *err)
{
    char *slash = strrchr(path, '/');
    int rv;

    if (slash == NULL || slash == path)
        return bns_vfs_sync_dir(vfs, slash == NULL ? "." : "/", err);
    *slash = '\0';
    rv = bns_vfs_sync_dir(vfs, path, err);
    *slash = '/';
    return rv;
}

/* With what is missing above it; durable, even if it was made before a crash. */
static int make_dirs(struct bns_vfs *vfs, const char *dir, struct bns_err *err)
{
    char part[BNS_PATH_MAX];
    size_t len = strlen(dir);

    memcpy(part, dir, len + 1);
    for (size_t i = 1; i <= len; i++) {
        struct bns_file_stat st;
        bool is;
        int rv = BNS_OK;

        if ((dir[i] != '/' && dir[i] != '\0') || dir[i - 1] == '/')
            continue;
        part[i] = '\0';
        is = bns_vfs_stat(vfs, part, &st, NULL) == BNS_OK && st.is_dir;
        if (!is)
            rv = bns_vfs_mkdir(vfs, part, err);
        if (rv == BNS_OK)
            rv = sync_above(vfs, part, err);
        if (rv != BNS_OK && !is) /* who may not read what lies above has not made this one */
            return rv;
        part[i] = dir[i];
    }
    return BNS_OK;
}

static int lock_it(struct bns_vfs *vfs, const char *dir, struct bns_file **lock,
                   struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = path_in(dir, "LOCK", path, err);

    if (rv == BNS_OK)
        rv = bns_vfs_lock(vfs, path, lock, err);
    if (rv == BNS_E_BUSY)
        bns_err_wrap(err, "--wal-dir in use; stop its owner or choose another directory");
    if (rv == BNS_E_NOTFOUND)
        bns_err_wrap(err, "--wal-dir: the log of this member was there, and is gone");
    return rv;
}

static int claim(struct bns_vfs *vfs, const struct etcd_wal_dir *w, const char *inner,
                 const char *note, struct bns_err *err)
{
    const struct etcd_identity mine = {.cluster_id = w->cluster_id, .member_id = w->member_id};
    struct etcd_identity is;
    enum owner owner = NOBODY;
    bool log = false, inner_log = false;
    int rv = owner_of(vfs, w, w->wal_dir, &owner, err);

    if (rv == BNS_OK)
        rv = has_log(vfs, w->wal_dir, &log, err);
    if (rv == BNS_OK)
        rv = has_log(vfs, inner, &inner_log, err);
    if (rv != BNS_OK)
        return rv;
    if (owner == OTHERS)
        return bns_err_set(err, BNS_E_INVALID, "--wal-dir %s: the log of another member is there",
                           w->wal_dir);
    if (owner == NOBODY && log)
        return bns_err_set(err, BNS_E_INVALID,
                           "--wal-dir %s: the log there does not say whose it is: if it is this "
                           "member's, copy %s/identity into that directory",
                           w->wal_dir, w->data_dir);
    if (*note == '\0' && inner_log)
        return bns_err_set(err, BNS_E_INVALID,
                           "--wal-dir %s: the log of this member is in %s: move what is there, and "
                           "copy %s/identity to it",
                           w->wal_dir, inner, w->data_dir);
    if (*note != '\0' && strcmp(note, w->wal_dir) != 0 && !log)
        return bns_err_set(err, BNS_E_INVALID,
                           "--wal-dir %s: the log of this member is in %s: use that, or move what "
                           "is there",
                           w->wal_dir, note);
    if (*note != '\0' && owner == NOBODY)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "--wal-dir %s: the log of this member was there, and is gone: restore "
                           "it, or, while other members run, remove this member's whole data "
                           "directory and let it catch up",
                           w->wal_dir);
    return owner == US ? BNS_OK : etcd_identity_check(vfs, w->wal_dir, &mine, &is, err);
}

int etcd_wal_dir_open(struct bns_vfs *vfs, const struct etcd_wal_dir *w, char out[BNS_PATH_MAX],
                      struct bns_file **lock, struct bns_err *err)
{
    char note_path[BNS_PATH_MAX], note[BNS_PATH_MAX], inner[BNS_PATH_MAX];
    int rv = path_in(w->data_dir, NOTE, note_path, err);

    *lock = NULL;
    if (rv == BNS_OK)
        rv = path_in(w->data_dir, "wal", inner, err);
    if (rv == BNS_OK)
        rv = note_read(vfs, note_path, note, err);
    if (rv != BNS_OK)
        return rv;
    if (!given(w->wal_dir) || strcmp(w->wal_dir, inner) == 0) {
        memcpy(out, inner, sizeof inner);
        return inside(vfs, w, inner, note_path, note, err);
    }
    if (strchr(w->wal_dir, '\n') != NULL || strlen(w->wal_dir) >= BNS_PATH_MAX - 32)
        return bns_err_set(err, BNS_E_INVALID,
                           "--wal-dir: the path is too long, or has a line "
                           "feed in it");
    memcpy(out, w->wal_dir, strlen(w->wal_dir) + 1);
    if (strcmp(note, w->wal_dir) != 0)
        rv = make_dirs(vfs, out, err);
    if (rv == BNS_OK)
        rv = lock_it(vfs, out, lock, err);
    if (rv == BNS_OK)
        rv = claim(vfs, w, inner, note, err);
    if (rv == BNS_OK && strcmp(note, w->wal_dir) != 0)
        rv = note_write(vfs, w, note_path, err);
    if (rv != BNS_OK) {
        bns_file_close(*lock); /* NULL is fine */
        *lock = NULL;
    }
    return rv;
}
