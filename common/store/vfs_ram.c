/* vfs_ram.c - files as arrays of chunks, made when they are first written to; what was never
 * written reads as zeros, and costs nothing.
 *
 * Nodes stand in one list: a daemon has a dozen files. A file that is removed or replaced while it
 * is open lives until its last handle is closed, as with POSIX.
 */
#include "store/vfs_ram.h"

#include <pthread.h>
#include <stdio.h>

#include "base/list.h"

#define CHUNK_BYTES ((size_t)64 * 1024)
#define CAPACITY (UINT64_C(64) << 30)
#define SIZE_LIMIT (UINT64_C(1) << 42)

struct ram {
    struct bns_vfs vfs;
    const struct bns_alloc *alloc;
    pthread_mutex_t lock;
    struct bns_list nodes; /* by name: sorted */
    uint64_t capacity, used;
};

struct node {
    struct bns_list list;
    bool is_dir, linked, locked;
    uint32_t handles;
    uint64_t size;
    uint8_t **chunks;
    size_t chunks_count;
    char path[BNS_PATH_MAX];
};

struct handle {
    struct bns_file file;
    struct ram *fs;
    struct node *node;
    bool writes, holds_lock;
};

static struct ram *ram_of(struct bns_vfs *v)
{
    return BNS_CONTAINER(v, struct ram, vfs);
}

static struct handle *handle_of(struct bns_file *f)
{
    return BNS_CONTAINER(f, struct handle, file);
}

static void enter(struct ram *fs)
{
    int rc = pthread_mutex_lock(&fs->lock);

    BNS_ASSERT(rc == 0);
}

static int leave(struct ram *fs, int rv)
{
    int rc = pthread_mutex_unlock(&fs->lock);

    BNS_ASSERT(rc == 0);
    return rv;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static struct node *find(struct ram *fs, const char *path)
{
    BNS_LIST_EACH(n, &fs->nodes)
    {
        struct node *x = BNS_CONTAINER(n, struct node, list);

        if (strcmp(x->path, path) == 0)
            return x;
    }
    return NULL;
}

/* The first node below a directory behind `after` (NULL: from the beginning). */
static struct node *below(struct ram *fs, const char *dir, const char *after)
{
    size_t len = strlen(dir);

    BNS_LIST_EACH(n, &fs->nodes)
    {
        struct node *x = BNS_CONTAINER(n, struct node, list);

        if (strncmp(x->path, dir, len) == 0 && x->path[len] == '/' &&
            (after == NULL || strcmp(x->path, after) > 0))
            return x;
    }
    return NULL;
}

static void link_node(struct ram *fs, struct node *x)
{
    struct bns_list *at = fs->nodes.next;

    while (at != &fs->nodes && strcmp(BNS_CONTAINER(at, struct node, list)->path, x->path) < 0)
        at = at->next;
    bns_list_push(at, &x->list); /* before it */
    x->linked = true;
}

static int node_new(struct ram *fs, const char *path, bool is_dir, struct node **out,
                    struct bns_err *err)
{
    struct node *x;

    if (strlen(path) >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", path);
    x = bns_alloc_zero(fs->alloc, sizeof *x);
    if (x == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: out of memory", path);
    memcpy(x->path, path, strlen(path) + 1);
    x->is_dir = is_dir;
    bns_list_init(&x->list);
    link_node(fs, x);
    *out = x;
    return BNS_OK;
}

static void drop_chunks(struct ram *fs, struct node *x, size_t from)
{
    for (size_t i = from; i < x->chunks_count; i++) {
        if (x->chunks[i] == NULL)
            continue;
        bns_free(fs->alloc, x->chunks[i]);
        x->chunks[i] = NULL;
        fs->used -= CHUNK_BYTES;
    }
}

/* Gone once nobody names or holds it. */
static void settle(struct ram *fs, struct node *x)
{
    if (x->linked || x->handles > 0)
        return;
    drop_chunks(fs, x, 0);
    bns_free(fs->alloc, x->chunks);
    bns_free(fs->alloc, x);
}

static void unlink_node(struct ram *fs, struct node *x)
{
    bns_list_del(&x->list);
    x->linked = false;
    settle(fs, x);
}

/* ---- files ---------------------------------------------------------------------------------- */

static int read_at(struct bns_file *f, uint64_t off, void *dst, size_t len, size_t *got,
                   struct bns_err *err)
{
    struct handle *h = handle_of(f);
    struct node *x = h->node;
    uint8_t *to = dst;
    size_t n;

    (void)err;
    enter(h->fs);
    n = off >= x->size ? 0 : len < x->size - off ? len : (size_t)(x->size - off);
    *got = n;
    while (n > 0) {
        size_t i = (size_t)(off / CHUNK_BYTES), at = (size_t)(off % CHUNK_BYTES);
        size_t part = n < CHUNK_BYTES - at ? n : CHUNK_BYTES - at;

        if (i < x->chunks_count && x->chunks[i] != NULL)
            memcpy(to, x->chunks[i] + at, part);
        else
            memset(to, 0, part);
        to += part;
        off += part;
        n -= part;
    }
    return leave(h->fs, BNS_OK);
}

static int grow(struct ram *fs, struct node *x, size_t index)
{
    size_t count = x->chunks_count == 0 ? 4 : x->chunks_count;
    uint8_t **chunks;

    while (count <= index)
        count *= 2;
    if (count == x->chunks_count)
        return BNS_OK;
    chunks = bns_resize(fs->alloc, x->chunks, count * sizeof *chunks);
    if (chunks == NULL)
        return BNS_E_NOMEM;
    for (size_t i = x->chunks_count; i < count; i++)
        chunks[i] = NULL;
    x->chunks = chunks;
    x->chunks_count = count;
    return BNS_OK;
}

/* The chunk, made when it is not there. */
static int chunk(struct ram *fs, struct node *x, size_t i, uint8_t **out)
{
    int rv = i < x->chunks_count ? BNS_OK : grow(fs, x, i);

    if (rv != BNS_OK)
        return rv;
    if (x->chunks[i] == NULL) {
        if (fs->capacity - fs->used < CHUNK_BYTES)
            return BNS_E_NOSPACE;
        x->chunks[i] = bns_alloc_zero(fs->alloc, CHUNK_BYTES);
        if (x->chunks[i] == NULL)
            return BNS_E_NOMEM;
        fs->used += CHUNK_BYTES;
    }
    *out = x->chunks[i];
    return BNS_OK;
}

static int put(struct ram *fs, struct node *x, uint64_t off, struct bns_slice s)
{
    while (s.len > 0) {
        size_t at = (size_t)(off % CHUNK_BYTES);
        size_t part = s.len < CHUNK_BYTES - at ? s.len : CHUNK_BYTES - at;
        uint8_t *to = NULL;
        int rv = chunk(fs, x, (size_t)(off / CHUNK_BYTES), &to);

        if (rv != BNS_OK)
            return rv;
        memcpy(to + at, s.ptr, part);
        off += part;
        if (off > x->size)
            x->size = off;
        s = bns_slice(s.ptr + part, s.len - part);
    }
    return BNS_OK;
}

static int write_at(struct bns_file *f, uint64_t off, const struct bns_slice *v, size_t n,
                    struct bns_err *err)
{
    struct handle *h = handle_of(f);
    int rv = h->writes ? BNS_OK : BNS_E_FORBIDDEN;

    enter(h->fs);
    for (size_t i = 0; i < n && rv == BNS_OK; i++) {
        rv = off > SIZE_LIMIT || v[i].len > SIZE_LIMIT ? BNS_E_NOSPACE
                                                       : put(h->fs, h->node, off, v[i]);
        off += v[i].len;
    }
    if (rv != BNS_OK)
        rv = bns_err_set(err, rv, "%s: write: %s", h->node->path, bns_err_default_text(rv));
    return leave(h->fs, rv);
}

static int sync_file(struct bns_file *f, bool data_only, struct bns_err *err)
{
    (void)f;
    (void)data_only;
    (void)err;
    return BNS_OK; /* there is nothing that it could be safe from */
}

static int truncate_file(struct bns_file *f, uint64_t size, struct bns_err *err)
{
    struct handle *h = handle_of(f);
    struct node *x = h->node;
    size_t last = (size_t)(size / CHUNK_BYTES), in = (size_t)(size % CHUNK_BYTES);

    if (size > SIZE_LIMIT)
        return bns_err_set(err, BNS_E_NOSPACE, "%s: truncate: too large", x->path);
    enter(h->fs);
    if (size < x->size) { /* what is cut reads as zeros when the file grows again */
        drop_chunks(h->fs, x, last + (in > 0 ? 1 : 0));
        if (in > 0 && last < x->chunks_count && x->chunks[last] != NULL)
            memset(x->chunks[last] + in, 0, CHUNK_BYTES - in);
    }
    x->size = size;
    return leave(h->fs, BNS_OK);
}

static int file_size(struct bns_file *f, uint64_t *out, struct bns_err *err)
{
    struct handle *h = handle_of(f);

    (void)err;
    enter(h->fs);
    *out = h->node->size;
    return leave(h->fs, BNS_OK);
}

static void close_file(struct bns_file *f)
{
    struct handle *h = handle_of(f);
    struct ram *fs = h->fs;

    enter(fs);
    BNS_ASSERT(h->node->handles > 0);
    h->node->handles--;
    if (h->holds_lock)
        h->node->locked = false;
    settle(fs, h->node);
    bns_free(fs->alloc, h);
    (void)leave(fs, BNS_OK);
}

static const struct bns_file_ops file_ops = {
    .read_at = read_at,
    .write_at = write_at,
    .sync = sync_file,
    .truncate = truncate_file,
    .size = file_size,
    .close = close_file,
};

/* ---- the file system ------------------------------------------------------------------------ */

static int open_node(struct ram *fs, const char *path, int flags, struct node **out,
                     struct bns_err *err)
{
    struct node *x = find(fs, path);

    if (x != NULL && x->is_dir)
        return bns_err_set(err, BNS_E_IO, "%s: open: is a directory", path);
    if (x != NULL && (flags & BNS_OPEN_CREATE) != 0 && (flags & BNS_OPEN_EXCL) != 0)
        return bns_err_set(err, BNS_E_EXISTS, "%s: open: exists", path);
    if (x == NULL && (flags & BNS_OPEN_CREATE) == 0)
        return bns_err_set(err, BNS_E_NOTFOUND, "%s: open: no such file", path);
    if (x == NULL) {
        int rv = node_new(fs, path, false, &x, err);

        if (rv != BNS_OK)
            return rv;
    }
    if ((flags & BNS_OPEN_TRUNC) != 0) {
        drop_chunks(fs, x, 0);
        x->size = 0;
    }
    *out = x;
    return BNS_OK;
}

static int ram_open(struct bns_vfs *v, const char *path, int flags, struct bns_file **out,
                    struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    struct handle *h = bns_alloc_zero(fs->alloc, sizeof *h);
    struct node *x = NULL;
    int rv;

    if (h == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: open: out of memory", path);
    enter(fs);
    rv = open_node(fs, path, flags, &x, err);
    if (rv != BNS_OK) {
        bns_free(fs->alloc, h);
        return leave(fs, rv);
    }
    h->file.ops = &file_ops;
    h->fs = fs;
    h->node = x;
    h->writes = (flags & (BNS_OPEN_WRITE | BNS_OPEN_CREATE)) != 0;
    x->handles++;
    *out = &h->file;
    return leave(fs, BNS_OK);
}

static int ram_remove(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    struct node *x;
    int rv = BNS_OK;

    enter(fs);
    x = find(fs, path);
    if (x == NULL)
        rv = bns_err_set(err, BNS_E_NOTFOUND, "%s: remove: no such file", path);
    else if (x->is_dir && below(fs, path, NULL) != NULL)
        rv = bns_err_set(err, BNS_E_EXISTS, "%s: remove: not empty", path);
    else
        unlink_node(fs, x);
    return leave(fs, rv);
}

static int ram_rename(struct bns_vfs *v, const char *from, const char *to, struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    struct node *x, *old;
    int rv = BNS_OK;

    enter(fs);
    x = find(fs, from);
    old = find(fs, to);
    if (x == NULL)
        rv = bns_err_set(err, BNS_E_NOTFOUND, "%s: rename: no such file", from);
    else if (x->is_dir || (old != NULL && old->is_dir))
        rv = bns_err_set(err, BNS_E_IO, "%s: rename: is a directory", from);
    else if (strlen(to) >= BNS_PATH_MAX)
        rv = bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", to);
    if (rv == BNS_OK && x != old) {
        if (old != NULL)
            unlink_node(fs, old);
        bns_list_del(&x->list);
        memcpy(x->path, to, strlen(to) + 1);
        link_node(fs, x);
    }
    return leave(fs, rv);
}

static int ram_mkdir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    struct node *x;
    int rv = BNS_OK;

    enter(fs);
    x = find(fs, path);
    if (x == NULL)
        rv = node_new(fs, path, true, &x, err);
    else if (!x->is_dir)
        rv = bns_err_set(err, BNS_E_EXISTS, "%s: mkdir: a file is there", path);
    return leave(fs, rv);
}

static int ram_sync_dir(struct bns_vfs *v, const char *path, struct bns_err *err)
{
    (void)v;
    (void)path;
    (void)err;
    return BNS_OK;
}

/* Names directly below; fn may change what is there: each step looks from the last name on. */
static int ram_list(struct bns_vfs *v, const char *path, bns_list_fn *fn, void *arg,
                    struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    char after[BNS_PATH_MAX] = "";
    size_t len = strlen(path);
    const struct node *x;
    int rv = BNS_OK;

    enter(fs);
    x = find(fs, path);
    if ((x == NULL || !x->is_dir) && below(fs, path, NULL) == NULL)
        return leave(fs, bns_err_set(err, BNS_E_NOTFOUND, "%s: list: no such directory", path));
    while (rv == BNS_OK && (x = below(fs, path, after[0] == 0 ? NULL : after)) != NULL) {
        memcpy(after, x->path, sizeof after);
        if (strchr(after + len + 1, '/') != NULL)
            continue;
        (void)leave(fs, BNS_OK);
        rv = fn(arg, after + len + 1);
        enter(fs);
    }
    return leave(fs, rv);
}

static int ram_stat(struct bns_vfs *v, const char *path, struct bns_file_stat *out,
                    struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    const struct node *x;
    int rv = BNS_OK;

    enter(fs);
    x = find(fs, path);
    *out = (struct bns_file_stat){.is_dir = true};
    if (x != NULL) {
        out->is_dir = x->is_dir;
        out->size = x->size;
        for (size_t i = 0; i < x->chunks_count; i++)
            out->allocated += x->chunks[i] != NULL ? CHUNK_BYTES : 0;
    } else if (below(fs, path, NULL) == NULL) {
        rv = bns_err_set(err, BNS_E_NOTFOUND, "%s: stat: no such file", path);
    }
    return leave(fs, rv);
}

static int ram_lock(struct bns_vfs *v, const char *path, struct bns_file **out, struct bns_err *err)
{
    struct ram *fs = ram_of(v);
    struct bns_file *f = NULL;
    int rv = ram_open(v, path, BNS_OPEN_CREATE, &f, err);
    bool busy;

    if (rv != BNS_OK)
        return rv;
    enter(fs);
    busy = handle_of(f)->node->locked;
    if (!busy) {
        handle_of(f)->node->locked = true;
        handle_of(f)->holds_lock = true;
    }
    (void)leave(fs, BNS_OK);
    if (busy) {
        close_file(f);
        return bns_err_set(err, BNS_E_BUSY, "%s: locked", path);
    }
    *out = f;
    return BNS_OK;
}

static int ram_free_bytes(struct bns_vfs *v, const char *path, uint64_t *out, struct bns_err *err)
{
    struct ram *fs = ram_of(v);

    (void)path;
    (void)err;
    enter(fs);
    *out = fs->capacity - fs->used;
    return leave(fs, BNS_OK);
}

static const struct bns_vfs_ops ram_ops = {
    .open = ram_open,
    .remove = ram_remove,
    .rename = ram_rename,
    .mkdir = ram_mkdir,
    .sync_dir = ram_sync_dir,
    .list = ram_list,
    .stat = ram_stat,
    .lock = ram_lock,
    .free_bytes = ram_free_bytes,
};

struct bns_vfs *bns_vfs_ram(const struct bns_alloc *alloc, uint64_t capacity_bytes)
{
    struct ram *fs = bns_alloc_zero(alloc, sizeof *fs);

    if (fs == NULL)
        return NULL;
    if (pthread_mutex_init(&fs->lock, NULL) != 0) {
        bns_free(alloc, fs);
        return NULL;
    }
    fs->vfs.ops = &ram_ops;
    fs->alloc = alloc;
    fs->capacity = capacity_bytes == 0 ? CAPACITY : capacity_bytes;
    bns_list_init(&fs->nodes);
    return &fs->vfs;
}

void bns_vfs_ram_free(struct bns_vfs *vfs)
{
    struct ram *fs;

    if (vfs == NULL)
        return;
    fs = ram_of(vfs);
    while (!bns_list_empty(&fs->nodes)) {
        struct node *x = BNS_CONTAINER(fs->nodes.next, struct node, list);

        BNS_ASSERT(x->handles == 0);
        unlink_node(fs, x);
    }
    BNS_ASSERT(fs->used == 0);
    (void)pthread_mutex_destroy(&fs->lock); /* nobody holds it */
    bns_free(fs->alloc, fs);
}

uint64_t bns_vfs_ram_used(struct bns_vfs *vfs)
{
    struct ram *fs = ram_of(vfs);
    uint64_t used;

    enter(fs);
    used = fs->used;
    (void)leave(fs, BNS_OK);
    return used;
}
