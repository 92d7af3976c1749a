/* vfs.h - the only door to files. Explicit offsets, no seek.
 *
 * Thread:  every call may block and is made from jobs (workers, pool) or at start-up. One file is
 *          used by one thread at a time; a vfs may be used by several.
 * Errors:  BNS_E_IO (text has path, call and errno), BNS_E_NOSPACE, BNS_E_NOTFOUND, BNS_E_EXISTS,
 *          BNS_E_BUSY (locked), BNS_E_NOMEM, BNS_E_OFF (simulated power cut).
 * Paths:   '/'-separated, at most 511 bytes.
 */
#ifndef BNS_STORE_VFS_H
#define BNS_STORE_VFS_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/slice.h"

#define BNS_PATH_MAX 512

enum bns_open_flags {
    BNS_OPEN_READ = 0,
    BNS_OPEN_WRITE = 1,  /* read and write */
    BNS_OPEN_CREATE = 2, /* create when missing (implies WRITE) */
    BNS_OPEN_EXCL = 4,   /* with CREATE: BNS_E_EXISTS when there */
    BNS_OPEN_TRUNC = 8,
};

struct bns_file_stat {
    uint64_t size;
    uint64_t allocated; /* bytes on disk */
    bool is_dir;
};

struct bns_file;
struct bns_vfs;

struct bns_file_ops {
    int (*read_at)(struct bns_file *f, uint64_t off, void *dst, size_t len, size_t *got,
                   struct bns_err *err);
    int (*write_at)(struct bns_file *f, uint64_t off, const struct bns_slice *v, size_t n,
                    struct bns_err *err);
    int (*sync)(struct bns_file *f, bool data_only, struct bns_err *err);
    int (*truncate)(struct bns_file *f, uint64_t size, struct bns_err *err);
    int (*size)(struct bns_file *f, uint64_t *out, struct bns_err *err);
    void (*close)(struct bns_file *f);
    void (*write_behind)(struct bns_file *f); /* may be NULL */
};

struct bns_file {
    const struct bns_file_ops *ops;
};

typedef int bns_list_fn(void *arg, const char *name); /* non-zero stops and is returned */

struct bns_vfs_ops {
    int (*open)(struct bns_vfs *v, const char *path, int flags, struct bns_file **out,
                struct bns_err *err);
    int (*remove)(struct bns_vfs *v, const char *path, struct bns_err *err);
    int (*rename)(struct bns_vfs *v, const char *from, const char *to, struct bns_err *err);
    int (*mkdir)(struct bns_vfs *v, const char *path, struct bns_err *err);
    int (*sync_dir)(struct bns_vfs *v, const char *path, struct bns_err *err);
    int (*list)(struct bns_vfs *v, const char *path, bns_list_fn *fn, void *arg,
                struct bns_err *err);
    int (*stat)(struct bns_vfs *v, const char *path, struct bns_file_stat *out,
                struct bns_err *err);
    int (*lock)(struct bns_vfs *v, const char *path, struct bns_file **out, struct bns_err *err);
    int (*free_bytes)(struct bns_vfs *v, const char *path, uint64_t *out, struct bns_err *err);
};

struct bns_vfs {
    const struct bns_vfs_ops *ops;
};

#define BNS_VFS_CALL BNS_MUST_CHECK static inline int

BNS_VFS_CALL bns_vfs_open(struct bns_vfs *v, const char *path, int flags, struct bns_file **out,
                          struct bns_err *err)
{
    return v->ops->open(v, path, flags, out, err);
}
/* Files and empty directories. */
BNS_VFS_CALL bns_vfs_remove(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    return v->ops->remove(v, path, err);
}
/* Replaces `to`. Durable only after sync_dir of the directory. */
BNS_VFS_CALL bns_vfs_rename(struct bns_vfs *v, const char *from, const char *to,
                            struct bns_err *err)
{
    return v->ops->rename(v, from, to, err);
}
/* Mode 0700; OK when it is there. */
BNS_VFS_CALL bns_vfs_mkdir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    return v->ops->mkdir(v, path, err);
}
BNS_VFS_CALL bns_vfs_sync_dir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    return v->ops->sync_dir(v, path, err);
}
/* Names without "." and "..", sorted by bytes. */
BNS_VFS_CALL bns_vfs_list(struct bns_vfs *v, const char *path, bns_list_fn *fn, void *arg,
                          struct bns_err *err)
{
    return v->ops->list(v, path, fn, arg, err);
}
BNS_VFS_CALL bns_vfs_stat(struct bns_vfs *v, const char *path, struct bns_file_stat *out,
                          struct bns_err *err)
{
    return v->ops->stat(v, path, out, err);
}
/* Creates and locks a file for this process (pid written into it); held until closed.
 * BNS_E_BUSY. */
BNS_VFS_CALL bns_vfs_lock(struct bns_vfs *v, const char *path, struct bns_file **out,
                          struct bns_err *err)
{
    return v->ops->lock(v, path, out, err);
}
BNS_VFS_CALL bns_vfs_free_bytes(struct bns_vfs *v, const char *path, uint64_t *out,
                                struct bns_err *err)
{
    return v->ops->free_bytes(v, path, out, err);
}
/* Reads up to len bytes; *got < len only at end of file. */
BNS_VFS_CALL bns_file_read_at(struct bns_file *f, uint64_t off, void *dst, size_t len, size_t *got,
                              struct bns_err *err)
{
    return f->ops->read_at(f, off, dst, len, got, err);
}
/* Writes all slices one behind the other, or fails. */
BNS_VFS_CALL bns_file_write_at(struct bns_file *f, uint64_t off, const struct bns_slice *v,
                               size_t n, struct bns_err *err)
{
    return f->ops->write_at(f, off, v, n, err);
}
/* fdatasync when data_only, else fsync. An error means: the bytes are lost, never retry. */
BNS_VFS_CALL bns_file_sync(struct bns_file *f, bool data_only, struct bns_err *err)
{
    return f->ops->sync(f, data_only, err);
}
/* A hint: what was written is going to be synced, the disk may begin with it. Promises nothing,
 * waits for nothing; errors are the next sync's. */
static inline void bns_file_write_behind(struct bns_file *f)
{
    if (f->ops->write_behind != NULL)
        f->ops->write_behind(f);
}
BNS_VFS_CALL bns_file_truncate(struct bns_file *f, uint64_t size, struct bns_err *err)
{
    return f->ops->truncate(f, size, err);
}
BNS_VFS_CALL bns_file_size(struct bns_file *f, uint64_t *out, struct bns_err *err)
{
    return f->ops->size(f, out, err);
}
static inline void bns_file_close(struct bns_file *f) /* NULL is fine */
{
    if (f != NULL)
        f->ops->close(f);
}

#endif
