/* vfs_mem.c - the memory file system's calls: handles, locks, power, injected
 * faults.
 *
 * Bytes live in vfs_mem_data.c, names in vfs_mem_names.c. Here each operation
 * has one shape:
 *
 *     enter   takes the lock, counts, asks for a fault (the armed one, then the
 * configured chances) body    does the work on names or bytes, as the fault
 * says leave   strikes with the power cut if it is one, fills the error text,
 * gives the lock back
 *
 * A power cut "in the middle" of a call strikes before or after its effect, as
 * drawn; the effect is volatile then, so the cut itself decides what is left of
 * it. Handles know the epoch they were opened in: a cut or kill takes their
 * inode away and they answer BNS_E_OFF for ever after.
 *
 * May fail: as configured, and no memory.
 */
#include "sim/vfs_mem_impl.h"

#include <pthread.h>

struct mem_fs {
    struct bns_vfs base;
    pthread_mutex_t lock;
    struct mem_names names;
    struct bns_list handles;
    size_t handles_count;
    bool off;
    struct {
        unsigned mask;
        char text[64];
        uint64_t n; /* matching operations until it strikes, 0 = not armed */
        enum bns_vfs_mem_fault kind;
        bool fired;
    } arm;
    struct bns_vfs_mem_stats stats;
};

struct mem_file {
    struct bns_file base;
    struct bns_list node;
    struct mem_fs *fs;
    struct mem_inode *ino; /* NULL: the power was cut since */
    bool writable;
    bool holds_lock;
    char path[BNS_PATH_MAX];
};

static struct mem_fs *fs_of(struct bns_vfs *v)
{
    return BNS_CONTAINER(v, struct mem_fs, base);
}

static struct mem_file *file_of(struct bns_file *f)
{
    return BNS_CONTAINER(f, struct mem_file, base);
}

/* ---- power
 * -------------------------------------------------------------------------------------
 */

static void handles_stale(struct mem_fs *fs)
{
    BNS_LIST_EACH(n, &fs->handles)
    {
        struct mem_file *f = BNS_CONTAINER(n, struct mem_file, node);
        if (f->ino == NULL)
            continue;
        if (f->holds_lock)
            f->ino->locked = false;
        mem_inode_drop(&fs->names, f->ino);
        f->ino = NULL;
    }
}

static void cut_locked(struct mem_fs *fs, struct bns_prng *prng)
{
    struct mem_cut cut = {.prng = prng};

    if (prng != NULL) {
        uint64_t shape = bns_prng_below(prng, 5);
        double share = bns_prng_double(prng);
        cut.prefix = shape == 4;
        cut.survive = shape == 0 ? 0 : shape == 1 ? 1 : shape == 2 ? 0.5 : share;
    }
    handles_stale(fs);
    mem_names_cut(&fs->names, &cut);
    fs->off = true;
    fs->stats.cuts++;
}

static void kill_locked(struct mem_fs *fs)
{
    handles_stale(fs);
    fs->off = true;
}

/* ---- the frame of an operation
 * ----------------------------------------------------------------- */

static bool draw(struct mem_fs *fs, double chance)
{
    return chance > 0 && bns_prng_chance(&fs->names.store.prng, chance);
}

static enum bns_vfs_mem_fault chances(struct mem_fs *fs, enum bns_vfs_mem_op op)
{
    const struct bns_vfs_mem_config *c = &fs->names.store.cfg;

    switch (op) {
    case BNS_VOP_READ:
        return draw(fs, c->read_eio) ? BNS_VFAULT_EIO
               : draw(fs, c->stale)  ? BNS_VFAULT_STALE
               : draw(fs, c->flip)   ? BNS_VFAULT_FLIP
                                     : BNS_VFAULT_NONE;
    case BNS_VOP_WRITE:
        return draw(fs, c->write_eio)     ? BNS_VFAULT_EIO
               : draw(fs, c->write_short) ? BNS_VFAULT_SHORT
               : draw(fs, c->misdirect)   ? BNS_VFAULT_MISDIRECT
                                          : BNS_VFAULT_NONE;
    case BNS_VOP_SYNC:
        return draw(fs, c->sync_eio)    ? BNS_VFAULT_EIO
               : draw(fs, c->sync_lost) ? BNS_VFAULT_SYNC_LOST
                                        : BNS_VFAULT_NONE;
    default:
        return draw(fs, c->meta_eio) ? BNS_VFAULT_EIO : BNS_VFAULT_NONE;
    }
}

static enum bns_vfs_mem_fault next_fault(struct mem_fs *fs, const struct bns_vfs_mem_event *ev)
{
    if (fs->arm.n > 0 && (fs->arm.mask & ev->op) != 0 && strstr(ev->path, fs->arm.text) != NULL &&
        --fs->arm.n == 0) {
        fs->arm.fired = true;
        return fs->arm.kind;
    }
    return chances(fs, ev->op);
}

/* Takes the lock. On error the body must not run, but leave() must. */
static int enter(struct mem_fs *fs, struct bns_vfs_mem_event *ev)
{
    const unsigned space =
        BNS_VOP_OPEN | BNS_VOP_MKDIR | BNS_VOP_WRITE | BNS_VOP_SYNC | BNS_VOP_TRUNCATE;

    pthread_mutex_lock(&fs->lock);
    if (fs->off)
        return BNS_E_OFF;
    fs->stats.ops++;
    ev->fault = next_fault(fs, ev);
    if (ev->fault != BNS_VFAULT_NONE)
        fs->stats.faults++;
    if (fs->names.store.cfg.hook != NULL)
        fs->names.store.cfg.hook(fs->names.store.cfg.hook_arg, ev);
    switch (ev->fault) {
    case BNS_VFAULT_POWER:
    case BNS_VFAULT_KILL:
        fs->stats.faults--;
        if (bns_prng_chance(&fs->names.store.prng, 0.5))
            return BNS_OK; /* the effect first; leave() strikes */
        return BNS_E_OFF;
    case BNS_VFAULT_EIO:
        return (ev->op & (BNS_VOP_WRITE | BNS_VOP_SYNC)) != 0 ? BNS_OK : BNS_E_IO;
    case BNS_VFAULT_NOSPACE:
        return (ev->op & space) != 0 ? BNS_E_NOSPACE : BNS_OK;
    default:
        return BNS_OK;
    }
}

static const char *op_name(enum bns_vfs_mem_op op)
{
    static const char *const names[] = {"open",     "remove", "rename", "mkdir",
                                        "sync_dir", "list",   "stat",   "lock",
                                        "read",     "write",  "sync",   "truncate"};
    return names[__builtin_ctz(op)];
}

static int leave(struct mem_fs *fs, const struct bns_vfs_mem_event *ev, int rv, struct bns_err *err)
{
    if (ev->fault == BNS_VFAULT_POWER || ev->fault == BNS_VFAULT_KILL) {
        rv = BNS_E_OFF;
        if (ev->fault == BNS_VFAULT_POWER)
            cut_locked(fs, &fs->names.store.prng);
        else
            kill_locked(fs);
    }
    pthread_mutex_unlock(&fs->lock);
    if (rv != BNS_OK)
        (void)bns_err_set(err, rv, "%s: %s: %s", ev->path, op_name(ev->op),
                          bns_err_default_text(rv)); /* returns rv */
    return rv;
}

/* ---- files
 * -------------------------------------------------------------------------------------
 */

static int enter_file(struct mem_file *f, struct bns_vfs_mem_event *ev)
{
    int rv = enter(f->fs, ev);

    return rv == BNS_OK && f->ino == NULL ? BNS_E_OFF : rv;
}

static int file_read_at(struct bns_file *file, uint64_t off, void *dst, size_t len, size_t *got,
                        struct bns_err *err)
{
    struct mem_file *f = file_of(file);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_READ, .path = f->path, .off = off, .len = len};
    int rv = enter_file(f, &ev);

    *got = 0;
    if (rv == BNS_OK) {
        struct bns_prng *prng = &f->fs->names.store.prng;
        if (ev.fault == BNS_VFAULT_FLIP && off < f->ino->vol_size && len > 0) {
            uint64_t n = f->ino->vol_size - off < len ? f->ino->vol_size - off : len;
            uint64_t at = off + bns_prng_below(prng, n);
            mem_data_flip(f->ino, at, (uint8_t)(1u << bns_prng_below(prng, 8)));
        }
        *got = mem_data_read(f->ino, off, dst, len, ev.fault == BNS_VFAULT_STALE);
        f->fs->stats.reads++;
        f->fs->stats.read_bytes += *got;
    }
    return leave(f->fs, &ev, rv, err);
}

/* Where a misdirected write goes: another sector of the file, if there is one.
 */
static uint64_t misdirect(struct mem_file *f, uint64_t off)
{
    uint64_t sectors = f->ino->vol_size / BNS_VFS_SECTOR;
    uint64_t to;

    if (sectors < 2)
        return off;
    to = bns_prng_below(&f->fs->names.store.prng, sectors);
    if (to == off / BNS_VFS_SECTOR)
        to = (to + 1) % sectors;
    return to * BNS_VFS_SECTOR + off % BNS_VFS_SECTOR;
}

static int write_slices(struct mem_file *f, const struct bns_vfs_mem_event *ev,
                        const struct bns_slice *v, size_t n)
{
    bool cut = ev->fault == BNS_VFAULT_EIO || ev->fault == BNS_VFAULT_SHORT;
    uint64_t off = ev->fault == BNS_VFAULT_MISDIRECT ? misdirect(f, ev->off) : ev->off;
    uint64_t room = UINT64_MAX;

    if (!f->writable)
        return BNS_E_INVALID;
    if (cut)
        room = bns_prng_below(&f->fs->names.store.prng, ev->len + 1);
    for (size_t i = 0; i < n; i++) {
        struct bns_slice s = v[i];
        size_t done;
        int rv;

        if (s.len > room)
            s.len = (size_t)room;
        rv = mem_data_write(&f->fs->names.store, f->ino, off, s, &done);
        f->fs->stats.written_bytes += done;
        if (rv != BNS_OK)
            return rv;
        off += s.len;
        room -= s.len;
    }
    if (!cut)
        return BNS_OK;
    return ev->fault == BNS_VFAULT_EIO ? BNS_E_IO : BNS_E_NOSPACE;
}

static int file_write_at(struct bns_file *file, uint64_t off, const struct bns_slice *v, size_t n,
                         struct bns_err *err)
{
    struct mem_file *f = file_of(file);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_WRITE, .path = f->path, .off = off};
    int rv;

    for (size_t i = 0; i < n; i++)
        ev.len += v[i].len;
    rv = enter_file(f, &ev);
    if (rv == BNS_OK) {
        f->fs->stats.writes++;
        rv = write_slices(f, &ev, v, n);
    }
    return leave(f->fs, &ev, rv, err);
}

static int file_sync(struct bns_file *file, bool data_only, struct bns_err *err)
{
    struct mem_file *f = file_of(file);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_SYNC, .path = f->path, .len = data_only};
    int rv = enter_file(f, &ev);

    if (rv == BNS_OK) {
        f->fs->stats.syncs++;
        if (ev.fault == BNS_VFAULT_EIO) {
            mem_data_sync_failed(&f->fs->names.store, f->ino);
            rv = BNS_E_IO;
        } else if (ev.fault != BNS_VFAULT_SYNC_LOST) {
            mem_data_sync(&f->fs->names.store, f->ino);
        }
    }
    return leave(f->fs, &ev, rv, err);
}

static int file_truncate(struct bns_file *file, uint64_t size, struct bns_err *err)
{
    struct mem_file *f = file_of(file);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_TRUNCATE, .path = f->path, .len = size};
    int rv = enter_file(f, &ev);

    if (rv == BNS_OK && !f->writable)
        rv = BNS_E_INVALID;
    if (rv == BNS_OK)
        rv = mem_data_truncate(&f->fs->names.store, f->ino, size);
    return leave(f->fs, &ev, rv, err);
}

static int file_size(struct bns_file *file, uint64_t *out, struct bns_err *err)
{
    struct mem_file *f = file_of(file);
    int rv;

    pthread_mutex_lock(&f->fs->lock);
    rv = f->fs->off || f->ino == NULL ? BNS_E_OFF : BNS_OK;
    *out = rv == BNS_OK ? f->ino->vol_size : 0;
    pthread_mutex_unlock(&f->fs->lock);
    return rv == BNS_OK ? BNS_OK : bns_err_set(err, rv, "%s: size: power is off", f->path);
}

static void handle_free(struct mem_file *f)
{
    struct mem_fs *fs = f->fs;

    if (f->ino != NULL) {
        if (f->holds_lock)
            f->ino->locked = false;
        mem_inode_drop(&fs->names, f->ino);
    }
    bns_list_del(&f->node);
    fs->handles_count--;
    bns_free(fs->names.store.alloc, f);
}

static void file_close(struct bns_file *file)
{
    struct mem_fs *fs = file_of(file)->fs;

    pthread_mutex_lock(&fs->lock);
    handle_free(file_of(file));
    pthread_mutex_unlock(&fs->lock);
}

static const struct bns_file_ops file_ops = {
    .read_at = file_read_at,
    .write_at = file_write_at,
    .sync = file_sync,
    .truncate = file_truncate,
    .size = file_size,
    .close = file_close,
};

/* ---- names
 * -------------------------------------------------------------------------------------
 */

static int handle_new(struct mem_fs *fs, const char *path, struct mem_inode *ino, bool writable,
                      struct mem_file **out)
{
    struct mem_file *f = bns_alloc_zero(fs->names.store.alloc, sizeof *f);

    if (f == NULL)
        return BNS_E_NOMEM;
    f->base.ops = &file_ops;
    f->fs = fs;
    f->ino = ino;
    f->writable = writable;
    memcpy(f->path, path, strlen(path) + 1);
    mem_inode_use(&fs->names, ino);
    bns_list_push(&fs->handles, &f->node);
    fs->handles_count++;
    *out = f;
    return BNS_OK;
}

/* Finds or creates the file of path. */
static int open_locked(struct mem_fs *fs, const char *path, int flags, struct mem_file **out)
{
    struct mem_place at;
    struct mem_inode *ino;
    bool create = (flags & BNS_OPEN_CREATE) != 0;
    int rv = mem_names_find(&fs->names, path, &at);

    if (rv != BNS_OK)
        return rv;
    ino = at.ino;
    if (ino == NULL && !create)
        return BNS_E_NOTFOUND;
    if (ino != NULL && create && (flags & BNS_OPEN_EXCL) != 0)
        return BNS_E_EXISTS;
    if (ino != NULL && ino->is_dir)
        return BNS_E_INVALID;
    if (ino == NULL)
        rv = mem_names_create(&fs->names, &at, false, &ino);
    if (rv == BNS_OK && (flags & BNS_OPEN_TRUNC) != 0)
        rv = mem_data_truncate(&fs->names.store, ino, 0);
    if (rv != BNS_OK)
        return rv;
    return handle_new(fs, path, ino, (flags & (BNS_OPEN_WRITE | BNS_OPEN_CREATE)) != 0, out);
}

/* Leaves an operation that made a handle, which nobody gets when it failed
 * after all. */
static int leave_open(struct mem_fs *fs, const struct bns_vfs_mem_event *ev, int rv,
                      struct mem_file *f, struct bns_file **out, struct bns_err *err)
{
    rv = leave(fs, ev, rv, err);
    *out = NULL;
    if (rv == BNS_OK)
        *out = &f->base;
    else if (f != NULL)
        file_close(&f->base);
    return rv;
}

static int vfs_open(struct bns_vfs *v, const char *path, int flags, struct bns_file **out,
                    struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_OPEN, .path = path, .len = (uint64_t)flags};
    struct mem_file *f = NULL;
    int rv = enter(fs, &ev);

    if (rv == BNS_E_NOSPACE && (flags & BNS_OPEN_CREATE) == 0)
        rv = BNS_OK;
    if (rv == BNS_OK) {
        fs->stats.opens++;
        rv = open_locked(fs, path, flags, &f);
    }
    return leave_open(fs, &ev, rv, f, out, err);
}

static int lock_locked(struct mem_fs *fs, const char *path, struct mem_file **out)
{
    size_t done;
    int rv = open_locked(fs, path, BNS_OPEN_CREATE, out);

    if (rv != BNS_OK)
        return rv;
    if ((*out)->ino->locked)
        return BNS_E_BUSY;
    (*out)->ino->locked = true;
    (*out)->holds_lock = true;
    return mem_data_write(&fs->names.store, (*out)->ino, 0, BNS_LIT("1\n"), &done);
}

static int vfs_lock(struct bns_vfs *v, const char *path, struct bns_file **out, struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_LOCK, .path = path};
    struct mem_file *f = NULL;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = lock_locked(fs, path, &f);
    return leave_open(fs, &ev, rv, f, out, err);
}

static int vfs_remove(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_REMOVE, .path = path};
    struct mem_place at;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = mem_names_find(&fs->names, path, &at);
    if (rv == BNS_OK)
        rv = mem_names_remove(&fs->names, &at);
    return leave(fs, &ev, rv, err);
}

static int vfs_rename(struct bns_vfs *v, const char *from, const char *to, struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_RENAME, .path = from};
    struct mem_place a;
    struct mem_place b;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = mem_names_find(&fs->names, from, &a);
    if (rv == BNS_OK)
        rv = mem_names_find(&fs->names, to, &b);
    if (rv == BNS_OK)
        rv = mem_names_rename(&fs->names, &a, &b);
    return leave(fs, &ev, rv, err);
}

static int vfs_mkdir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_MKDIR, .path = path};
    struct mem_place at;
    struct mem_inode *ino;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = mem_names_find(&fs->names, path, &at);
    if (rv == BNS_OK && at.ino == NULL)
        rv = mem_names_create(&fs->names, &at, true, &ino);
    else if (rv == BNS_OK && !at.ino->is_dir)
        rv = BNS_E_EXISTS;
    return leave(fs, &ev, rv, err);
}

/* Finds what must exist. */
static int find_there(struct mem_fs *fs, const char *path, bool is_dir, struct mem_place *at)
{
    int rv = mem_names_find(&fs->names, path, at);

    if (rv == BNS_OK && at->ino == NULL)
        return BNS_E_NOTFOUND;
    return rv == BNS_OK && is_dir && !at->ino->is_dir ? BNS_E_INVALID : rv;
}

static int vfs_sync_dir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_SYNC_DIR, .path = path};
    struct mem_place at;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = find_there(fs, path, true, &at);
    if (rv == BNS_OK) {
        fs->stats.dir_syncs++;
        if (ev.fault != BNS_VFAULT_SYNC_LOST)
            mem_names_sync(&fs->names, at.ino);
    }
    return leave(fs, &ev, rv, err);
}

/* All names of a directory, each with its NUL, one behind the other. */
static int names_copy(struct mem_fs *fs, const struct mem_dir *d, char **out)
{
    size_t len = 1;
    char *p;

    for (size_t i = 0; i < d->count; i++)
        len += strlen(d->entries[i].name) + 1;
    *out = p = bns_alloc(fs->names.store.alloc, len);
    if (p == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < d->count; i++) {
        size_t n = strlen(d->entries[i].name) + 1;
        memcpy(p, d->entries[i].name, n);
        p += n;
    }
    *p = '\0';
    return BNS_OK;
}

static int vfs_list(struct bns_vfs *v, const char *path, bns_list_fn *fn, void *arg,
                    struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_LIST, .path = path};
    struct mem_place at;
    char *names = NULL;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = find_there(fs, path, true, &at);
    if (rv == BNS_OK)
        rv = names_copy(fs, &at.ino->vol, &names);
    rv = leave(fs, &ev, rv, err);
    for (const char *p = names; rv == BNS_OK && p != NULL && *p != '\0'; p += strlen(p) + 1)
        rv = fn(arg, p); /* without the lock: it may remove what it sees */
    bns_free(fs->names.store.alloc, names);
    return rv;
}

static int vfs_stat(struct bns_vfs *v, const char *path, struct bns_file_stat *out,
                    struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_event ev = {.op = BNS_VOP_STAT, .path = path};
    struct mem_place at;
    int rv = enter(fs, &ev);

    if (rv == BNS_OK)
        rv = find_there(fs, path, false, &at);
    if (rv == BNS_OK)
        *out = (struct bns_file_stat){.size = at.ino->vol_size,
                                      .allocated = at.ino->blocks_count * MEM_BLOCK_BYTES,
                                      .is_dir = at.ino->is_dir};
    return leave(fs, &ev, rv, err);
}

static int vfs_free_bytes(struct bns_vfs *v, const char *path, uint64_t *out, struct bns_err *err)
{
    struct mem_fs *fs = fs_of(v);
    struct mem_place at;
    int rv;

    pthread_mutex_lock(&fs->lock);
    rv = fs->off ? BNS_E_OFF : find_there(fs, path, false, &at);
    if (rv == BNS_OK) {
        uint64_t used = fs->names.store.used_bytes;
        uint64_t capacity = fs->names.store.cfg.capacity_bytes;
        *out = capacity == 0 ? UINT64_C(1) << 40 : capacity > used ? capacity - used : 0;
    }
    pthread_mutex_unlock(&fs->lock);
    return rv == BNS_OK ? BNS_OK : bns_err_set(err, rv, "%s: free space unknown", path);
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

/* ---- public
 * ------------------------------------------------------------------------------------
 */

int bns_vfs_mem_new(const struct bns_alloc *alloc, uint64_t seed, struct bns_vfs **out)
{
    struct mem_fs *fs = bns_alloc_zero(alloc, sizeof *fs);

    if (fs == NULL)
        return BNS_E_NOMEM;
    fs->base.ops = &vfs_ops;
    fs->names.store.alloc = alloc;
    fs->names.store.cfg.writeback = 0.1;
    bns_prng_seed(&fs->names.store.prng, seed);
    bns_list_init(&fs->handles);
    if (mem_names_init(&fs->names) != BNS_OK) {
        bns_free(alloc, fs);
        return BNS_E_NOMEM;
    }
    pthread_mutex_init(&fs->lock, NULL);
    *out = &fs->base;
    return BNS_OK;
}

void bns_vfs_mem_free(struct bns_vfs *v)
{
    struct mem_fs *fs;

    if (v == NULL)
        return;
    fs = fs_of(v);
    BNS_LIST_EACH(n, &fs->handles)
    handle_free(BNS_CONTAINER(n, struct mem_file, node));
    mem_names_free(&fs->names);
    BNS_ASSERT(fs->names.store.used_bytes == 0);
    pthread_mutex_destroy(&fs->lock);
    bns_free(fs->names.store.alloc, fs);
}

struct bns_vfs_mem_config *bns_vfs_mem_config(struct bns_vfs *v)
{
    return &fs_of(v)->names.store.cfg;
}

struct bns_vfs_mem_stats bns_vfs_mem_stats(struct bns_vfs *v)
{
    struct mem_fs *fs = fs_of(v);
    struct bns_vfs_mem_stats s;

    pthread_mutex_lock(&fs->lock);
    s = fs->stats;
    s.sectors_lost = fs->names.store.sectors_lost;
    s.entries_lost = fs->names.entries_lost;
    s.used_bytes = fs->names.store.used_bytes;
    pthread_mutex_unlock(&fs->lock);
    return s;
}

void bns_vfs_mem_fail_on(struct bns_vfs *v, unsigned mask, const char *text, uint64_t n,
                         enum bns_vfs_mem_fault kind)
{
    struct mem_fs *fs = fs_of(v);
    size_t len = text == NULL ? 0 : strlen(text);

    BNS_ASSERT(len < sizeof fs->arm.text);
    pthread_mutex_lock(&fs->lock);
    fs->arm.mask = mask;
    if (len > 0)
        memcpy(fs->arm.text, text, len);
    fs->arm.text[len] = '\0';
    fs->arm.n = kind == BNS_VFAULT_NONE ? 0 : n;
    fs->arm.kind = kind;
    fs->arm.fired = false;
    pthread_mutex_unlock(&fs->lock);
}

void bns_vfs_mem_fail_at(struct bns_vfs *v, uint64_t n, enum bns_vfs_mem_fault kind)
{
    bns_vfs_mem_fail_on(v, BNS_VOP_ALL, NULL, n, kind);
}

bool bns_vfs_mem_fired(struct bns_vfs *v)
{
    return fs_of(v)->arm.fired;
}

void bns_vfs_mem_power_cut(struct bns_vfs *v, struct bns_prng *prng)
{
    struct mem_fs *fs = fs_of(v);

    pthread_mutex_lock(&fs->lock);
    cut_locked(fs, prng);
    pthread_mutex_unlock(&fs->lock);
}

void bns_vfs_mem_kill(struct bns_vfs *v)
{
    struct mem_fs *fs = fs_of(v);

    pthread_mutex_lock(&fs->lock);
    kill_locked(fs);
    pthread_mutex_unlock(&fs->lock);
}

void bns_vfs_mem_power_on(struct bns_vfs *v)
{
    struct mem_fs *fs = fs_of(v);

    pthread_mutex_lock(&fs->lock);
    fs->off = false;
    pthread_mutex_unlock(&fs->lock);
}

bool bns_vfs_mem_is_off(struct bns_vfs *v)
{
    return fs_of(v)->off;
}

size_t bns_vfs_mem_handles(struct bns_vfs *v)
{
    return fs_of(v)->handles_count;
}

void bns_vfs_mem_drop_handles(struct bns_vfs *v)
{
    struct mem_fs *fs = fs_of(v);

    pthread_mutex_lock(&fs->lock);
    BNS_LIST_EACH(n, &fs->handles)
    {
        struct mem_file *f = BNS_CONTAINER(n, struct mem_file, node);
        if (f->ino == NULL)
            handle_free(f);
    }
    pthread_mutex_unlock(&fs->lock);
}

int bns_vfs_mem_flip(struct bns_vfs *v, const char *path, uint64_t off, uint8_t mask)
{
    struct mem_fs *fs = fs_of(v);
    struct mem_place at;
    int rv;

    pthread_mutex_lock(&fs->lock);
    rv = find_there(fs, path, false, &at);
    if (rv == BNS_OK && (at.ino->is_dir || off >= at.ino->vol_size))
        rv = BNS_E_INVALID;
    if (rv == BNS_OK)
        mem_data_flip(at.ino, off, mask);
    pthread_mutex_unlock(&fs->lock);
    return rv;
}

uint64_t bns_vfs_mem_digest(struct bns_vfs *v, bool durable)
{
    struct mem_fs *fs = fs_of(v);
    uint64_t h;

    pthread_mutex_lock(&fs->lock);
    h = mem_names_hash(&fs->names, durable);
    pthread_mutex_unlock(&fs->lock);
    return h;
}
