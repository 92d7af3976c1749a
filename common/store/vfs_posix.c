/* vfs_posix.c - the VFS on the real file system: thin, complete, honest about errors.
 *
 * Every call loops over EINTR and over partial transfers, so that a caller sees all or an error.
 * Errors carry "<path>: <call>: <text of errno>" and map to our codes:
 *
 *   ENOENT, ENOTDIR -> NOTFOUND    EEXIST, ENOTEMPTY -> EXISTS    ENOSPC, EDQUOT, EFBIG -> NOSPACE
 *   ENOMEM -> NOMEM                EACCES, EPERM, EROFS -> FORBIDDEN   all others -> IO
 *
 * Locks: flock(2) on a file that also holds the owner's pid. flock belongs to the open file
 * description, so a second open in the same process is refused too (fcntl locks would not), and the
 * kernel drops it when the process dies, however it dies. The file is never removed: removing it
 * would let two processes lock two different inodes under one name.
 *
 * Sync: a failed fdatasync may have marked the dirty pages clean, so it is reported once and never
 * retried here; the owner of the file must treat its unsynced bytes as lost.
 */
#include "store/vfs_posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/list.h"

#define IOV_BATCH 256 /* 4 KiB of stack; below IOV_MAX everywhere */

struct posix_vfs {
    struct bns_vfs vfs;
    const struct bns_alloc *alloc;
};

struct posix_file {
    struct bns_file file;
    const struct bns_alloc *alloc;
    int fd;
    char path[]; /* for error texts */
};

struct name_list {
    const struct bns_alloc *alloc;
    char **names;
    size_t count, cap;
};

static int code_of(int e)
{
    switch (e) {
    case ENOENT:
    case ENOTDIR:
        return BNS_E_NOTFOUND;
    case EEXIST:
    case ENOTEMPTY:
        return BNS_E_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return BNS_E_NOSPACE;
    case ENOMEM:
        return BNS_E_NOMEM;
    case EACCES:
    case EPERM:
    case EROFS:
        return BNS_E_FORBIDDEN;
    default:
        return BNS_E_IO;
    }
}

static int fail_errno(struct bns_err *err, const char *path, const char *call)
{
    int e = errno;
    char text[64];

    return bns_err_set(err, code_of(e), "%s: %s: %s", path, call, strerror_r(e, text, sizeof text));
}

static struct posix_file *file_of(struct bns_file *f)
{
    BNS_ASSERT(f != NULL);
    return BNS_CONTAINER(f, struct posix_file, file);
}

static struct posix_vfs *vfs_of(struct bns_vfs *v)
{
    BNS_ASSERT(v != NULL);
    return BNS_CONTAINER(v, struct posix_vfs, vfs);
}

/* ---- files ----------------------------------------------------------------------------------- */

static int file_read_at(struct bns_file *f, uint64_t off, void *dst, size_t len, size_t *got,
                        struct bns_err *err)
{
    struct posix_file *p = file_of(f);
    size_t done = 0;

    if (off > (uint64_t)INT64_MAX - len)
        return bns_err_set(err, BNS_E_INVALID, "%s: read beyond the largest offset", p->path);
    while (done < len) {
        ssize_t n = pread(p->fd, (char *)dst + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, p->path, "pread");
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *got = done;
    return BNS_OK;
}

/* Drops the first n bytes of iov[*first..count). */
static void iov_advance(struct iovec *iov, size_t *first, size_t count, size_t n)
{
    while (*first < count && n >= iov[*first].iov_len) {
        n -= iov[*first].iov_len;
        ++*first;
    }
    if (n > 0) {
        BNS_ASSERT(*first < count);
        iov[*first].iov_base = (char *)iov[*first].iov_base + n;
        iov[*first].iov_len -= n;
    }
}

static int write_batch(struct posix_file *p, uint64_t *off, struct iovec *iov, size_t count,
                       struct bns_err *err)
{
    size_t first = 0;

    iov_advance(iov, &first, count, 0); /* skips leading empty slices */
    while (first < count) {
        ssize_t n = pwritev(p->fd, iov + first, (int)(count - first), (off_t)*off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, p->path, "pwritev");
        if (n == 0)
            return bns_err_set(err, BNS_E_IO, "%s: pwritev wrote nothing", p->path);
        *off += (uint64_t)n;
        iov_advance(iov, &first, count, (size_t)n);
    }
    return BNS_OK;
}

static int file_write_at(struct bns_file *f, uint64_t off, const struct bns_slice *v, size_t n,
                         struct bns_err *err)
{
    struct posix_file *p = file_of(f);
    struct iovec iov[IOV_BATCH];

    if (off > (uint64_t)INT64_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%s: write beyond the largest offset", p->path);
    while (n > 0) {
        size_t count = n < IOV_BATCH ? n : IOV_BATCH;
        int rv;

        for (size_t i = 0; i < count; i++) {
            iov[i].iov_base = (void *)(uintptr_t)v[i].ptr;
            iov[i].iov_len = v[i].len;
        }
        rv = write_batch(p, &off, iov, count, err);
        if (rv != BNS_OK)
            return rv;
        v += count;
        n -= count;
    }
    return BNS_OK;
}

static int file_sync(struct bns_file *f, bool data_only, struct bns_err *err)
{
    struct posix_file *p = file_of(f);
    int rv;

    do
        rv = data_only ? fdatasync(p->fd) : fsync(p->fd);
    while (rv != 0 && errno == EINTR);
    return rv == 0 ? BNS_OK : fail_errno(err, p->path, data_only ? "fdatasync" : "fsync");
}

static void file_write_behind(struct bns_file *f)
{
    /* Only starts the writes. It neither waits nor looks at errors, which the sync will report; a
     * file system that cannot do it leaves all to the sync. */
    (void)sync_file_range(file_of(f)->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int file_truncate(struct bns_file *f, uint64_t size, struct bns_err *err)
{
    struct posix_file *p = file_of(f);
    int rv;

    if (size > (uint64_t)INT64_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%s: size beyond the largest offset", p->path);
    do
        rv = ftruncate(p->fd, (off_t)size);
    while (rv != 0 && errno == EINTR);
    return rv == 0 ? BNS_OK : fail_errno(err, p->path, "ftruncate");
}

static int file_size(struct bns_file *f, uint64_t *out, struct bns_err *err)
{
    struct posix_file *p = file_of(f);
    struct stat st;

    if (fstat(p->fd, &st) != 0)
        return fail_errno(err, p->path, "fstat");
    *out = (uint64_t)st.st_size;
    return BNS_OK;
}

static void file_close(struct bns_file *f)
{
    struct posix_file *p = file_of(f);

    /* Synced bytes are safe whatever close answers, unsynced ones were never promised. */
    (void)close(p->fd);
    bns_free(p->alloc, p);
}

static const struct bns_file_ops file_ops = {
    .read_at = file_read_at,
    .write_at = file_write_at,
    .sync = file_sync,
    .truncate = file_truncate,
    .size = file_size,
    .close = file_close,
    .write_behind = file_write_behind,
};

/* ---- names ----------------------------------------------------------------------------------- */

static int fd_open(const char *path, int flags)
{
    int fd;

    do
        fd = open(path, flags | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int vfs_open(struct bns_vfs *v, const char *path, int flags, struct bns_file **out,
                    struct bns_err *err)
{
    struct posix_vfs *p = vfs_of(v);
    size_t len = strlen(path);
    struct posix_file *f;
    int os_flags = O_RDONLY;

    if (len >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path longer than %d bytes", path,
                           BNS_PATH_MAX - 1);
    f = bns_alloc(p->alloc, sizeof *f + len + 1);
    if (f == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a file", path);
    if ((flags & (BNS_OPEN_WRITE | BNS_OPEN_CREATE | BNS_OPEN_TRUNC)) != 0)
        os_flags = O_RDWR;
    if ((flags & BNS_OPEN_CREATE) != 0)
        os_flags |= O_CREAT;
    if ((flags & BNS_OPEN_EXCL) != 0)
        os_flags |= O_EXCL;
    if ((flags & BNS_OPEN_TRUNC) != 0)
        os_flags |= O_TRUNC;
    f->file.ops = &file_ops;
    f->alloc = p->alloc;
    memcpy(f->path, path, len + 1);
    f->fd = fd_open(path, os_flags);
    if (f->fd < 0) {
        int rv = fail_errno(err, path, "open");
        bns_free(p->alloc, f);
        return rv;
    }
    *out = &f->file;
    return BNS_OK;
}

static int vfs_remove(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    (void)v;
    return remove(path) == 0 ? BNS_OK : fail_errno(err, path, "remove");
}

static int vfs_rename(struct bns_vfs *v, const char *from, const char *to, struct bns_err *err)
{
    (void)v;
    return rename(from, to) == 0 ? BNS_OK : fail_errno(err, from, "rename");
}

static int vfs_mkdir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    struct stat st;

    (void)v;
    if (mkdir(path, 0700) == 0)
        return BNS_OK;
    if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return BNS_OK;
    return fail_errno(err, path, "mkdir");
}

static int vfs_sync_dir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    int fd = fd_open(path, O_RDONLY | O_DIRECTORY);
    int rv;

    (void)v;
    if (fd < 0)
        return fail_errno(err, path, "open directory");
    do
        rv = fsync(fd);
    while (rv != 0 && errno == EINTR);
    rv = rv == 0 ? BNS_OK : fail_errno(err, path, "fsync of the directory");
    (void)close(fd); /* a read-only descriptor */
    return rv;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int name_add(struct name_list *l, const char *name)
{
    size_t len = strlen(name) + 1;
    char *copy;

    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 16 : l->cap * 2;
        char **names = bns_resize(l->alloc, l->names, cap * sizeof *names);
        if (names == NULL)
            return BNS_E_NOMEM;
        l->names = names;
        l->cap = cap;
    }
    copy = bns_alloc(l->alloc, len);
    if (copy == NULL)
        return BNS_E_NOMEM;
    memcpy(copy, name, len);
    l->names[l->count++] = copy;
    return BNS_OK;
}

static void name_list_free(struct name_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        bns_free(l->alloc, l->names[i]);
    bns_free(l->alloc, l->names);
}

static int name_list_read(struct name_list *l, const char *path, struct bns_err *err)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    int rv = BNS_OK;

    if (dir == NULL)
        return fail_errno(err, path, "opendir");
    for (;;) {
        errno = 0;
        e = readdir(dir);
        if (e == NULL)
            break;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        rv = name_add(l, e->d_name);
        if (rv != BNS_OK) {
            rv = bns_err_set(err, rv, "%s: no memory for its names", path);
            goto out;
        }
    }
    if (errno != 0)
        rv = fail_errno(err, path, "readdir");
out:
    (void)closedir(dir);
    return rv;
}

static int vfs_list(struct bns_vfs *v, const char *path, bns_list_fn *fn, void *arg,
                    struct bns_err *err)
{
    struct name_list l = {.alloc = vfs_of(v)->alloc};
    int rv = name_list_read(&l, path, err);

    if (rv == BNS_OK && l.count > 1)
        qsort(l.names, l.count, sizeof *l.names, name_compare);
    for (size_t i = 0; rv == BNS_OK && i < l.count; i++)
        rv = fn(arg, l.names[i]);
    name_list_free(&l);
    return rv;
}

static int vfs_stat(struct bns_vfs *v, const char *path, struct bns_file_stat *out,
                    struct bns_err *err)
{
    struct stat st;

    (void)v;
    if (stat(path, &st) != 0)
        return fail_errno(err, path, "stat");
    out->size = (uint64_t)st.st_size;
    out->allocated = (uint64_t)st.st_blocks * 512;
    out->is_dir = S_ISDIR(st.st_mode);
    return BNS_OK;
}

static int write_pid(struct posix_file *p, struct bns_err *err)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    struct bns_slice v = bns_slice(text, (size_t)n);
    int rv = file_truncate(&p->file, 0, err);

    return rv == BNS_OK ? file_write_at(&p->file, 0, &v, 1, err) : rv;
}

static int vfs_lock(struct bns_vfs *v, const char *path, struct bns_file **out, struct bns_err *err)
{
    struct bns_file *f = NULL;
    struct posix_file *p;
    char holder[24] = "";
    int rv = vfs_open(v, path, BNS_OPEN_CREATE, &f, err);

    if (rv != BNS_OK)
        return rv;
    p = file_of(f);
    do
        rv = flock(p->fd, LOCK_EX | LOCK_NB);
    while (rv != 0 && errno == EINTR);
    if (rv != 0 && errno == EWOULDBLOCK) {
        size_t got = 0;
        if (file_read_at(f, 0, holder, sizeof holder - 1, &got, NULL) != BNS_OK)
            got = 0; /* the text then names no pid */
        holder[got] = '\0';
        holder[strcspn(holder, "\n")] = '\0';
        rv = bns_err_set(err, BNS_E_BUSY, "%s: locked by another process (pid %s)", path,
                         holder[0] == '\0' ? "unknown" : holder);
        goto fail;
    }
    if (rv != 0) {
        rv = fail_errno(err, path, "flock");
        goto fail;
    }
    rv = write_pid(p, err);
    if (rv != BNS_OK)
        goto fail;
    *out = f;
    return BNS_OK;

fail:
    file_close(f);
    return rv;
}

static int vfs_free_bytes(struct bns_vfs *v, const char *path, uint64_t *out, struct bns_err *err)
{
    struct statvfs st;

    (void)v;
    if (statvfs(path, &st) != 0)
        return fail_errno(err, path, "statvfs");
    *out = (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
    return BNS_OK;
}

static const struct bns_vfs_ops vfs_ops = {
    .open = vfs_open,
    .remove = vfs_remove,
    .rename = vfs_rename,
    .mkdir = vfs_mkdir,
    .sync_dir = vfs_sync_dir,
    .list = vfs_list,
    .stat = vfs_stat,
    .lock = vfs_lock,
    .free_bytes = vfs_free_bytes,
};

struct bns_vfs *bns_vfs_posix(const struct bns_alloc *alloc)
{
    struct posix_vfs *p = bns_alloc(alloc, sizeof *p);

    if (p == NULL)
        return NULL;
    p->vfs.ops = &vfs_ops;
    p->alloc = alloc;
    return &p->vfs;
}

void bns_vfs_posix_free(struct bns_vfs *vfs)
{
    if (vfs != NULL)
        bns_free(vfs_of(vfs)->alloc, vfs_of(vfs));
}
