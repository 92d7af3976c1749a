/* vfs_mem_names.c - directories of the memory file system: what is visible,
 * what is durable.
 *
 * Each directory has two sorted tables of entries: `vol`, which every call
 * sees, and `dur`, which a power cut leaves. A create, remove or rename changes
 * `vol` at once and queues a change: one effect (directory, name, inode or
 * none), two for a rename. sync_dir of a directory applies to `dur` every
 * queued change that touches it; where one of these is a rename between two
 * directories, everything queued is applied, so that effects on a name keep
 * their order.
 *
 * A power cut applies some of what is still queued, in order: a prefix (a
 * journalled file system), or each change or not (what POSIX allows; drawn per
 * cut, unless the config says ordered). Then vol = dur everywhere, and inodes
 * that no table reaches are freed with their contents.
 *
 * Invariants: an inode's refs = entries in vol and dur tables + effects that
 * name it (as directory or as target) + handles; its blocks count as used while
 * a vol table or handle has it. May fail:   no memory (nothing has changed
 * then).
 */
#include "sim/vfs_mem_impl.h"

/* ---- inodes
 * ------------------------------------------------------------------------------------
 */

static struct mem_inode *inode_new(struct mem_names *t, bool is_dir)
{
    struct mem_inode *ino = bns_alloc_zero(t->store.alloc, sizeof *ino);

    if (ino == NULL)
        return NULL;
    ino->is_dir = is_dir;
    bns_list_init(&ino->dirty);
    bns_list_push(&t->inodes, &ino->node);
    return ino;
}

static void inode_unref(struct mem_names *t, struct mem_inode *ino);

static void dir_clear(struct mem_names *t, struct mem_dir *d, bool users)
{
    for (size_t i = 0; i < d->count; i++) {
        if (users)
            mem_inode_drop(t, d->entries[i].ino);
        else
            inode_unref(t, d->entries[i].ino);
        bns_free(t->store.alloc, d->entries[i].name);
    }
    d->count = 0;
}

static void inode_free(struct mem_names *t, struct mem_inode *ino)
{
    dir_clear(t, &ino->vol, true);
    dir_clear(t, &ino->dur, false);
    bns_free(t->store.alloc, ino->vol.entries);
    bns_free(t->store.alloc, ino->dur.entries);
    mem_data_free(&t->store, ino);
    bns_list_del(&ino->node);
    bns_free(t->store.alloc, ino);
}

static void inode_unref(struct mem_names *t, struct mem_inode *ino)
{
    BNS_ASSERT(ino->refs > 0);
    if (--ino->refs == 0)
        inode_free(t, ino);
}

void mem_inode_use(struct mem_names *t, struct mem_inode *ino)
{
    ino->refs++;
    if (ino->users++ == 0)
        t->store.used_bytes += ino->blocks_count * MEM_BLOCK_BYTES;
}

void mem_inode_drop(struct mem_names *t, struct mem_inode *ino)
{
    BNS_ASSERT(ino->users > 0);
    if (--ino->users == 0)
        t->store.used_bytes -= ino->blocks_count * MEM_BLOCK_BYTES;
    inode_unref(t, ino);
}

/* ---- tables
 * ------------------------------------------------------------------------------------
 */

/* The place of name, or the one where it would go. */
static size_t dir_search(const struct mem_dir *d, const char *name, bool *found)
{
    size_t lo = 0;
    size_t hi = d->count;

    *found = false;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, d->entries[mid].name);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static struct mem_inode *dir_get(const struct mem_dir *d, const char *name)
{
    bool found;
    size_t i = dir_search(d, name, &found);
    return found ? d->entries[i].ino : NULL;
}

static char *name_copy(struct mem_names *t, const char *name)
{
    size_t n = strlen(name) + 1;
    char *p = bns_alloc(t->store.alloc, n);
    return p == NULL ? NULL : memcpy(p, name, n);
}

static int dir_reserve(struct mem_names *t, struct mem_dir *d)
{
    size_t cap = d->cap == 0 ? 8 : d->cap * 2;
    struct mem_entry *p;

    if (d->count < d->cap)
        return BNS_OK;
    p = bns_resize(t->store.alloc, d->entries, cap * sizeof *p);
    if (p == NULL)
        return BNS_E_NOMEM;
    d->entries = p;
    d->cap = cap;
    return BNS_OK;
}

/* Sets or (ino NULL) removes an entry. `users` says that it is a volatile
 * table. */
static int dir_put(struct mem_names *t, struct mem_dir *d, const char *name, struct mem_inode *ino,
                   bool users)
{
    bool found;
    size_t i = dir_search(d, name, &found);
    struct mem_inode *was = found ? d->entries[i].ino : NULL;

    if (!found && ino == NULL)
        return BNS_OK;
    if (!found) {
        char *copy = name_copy(t, name);
        if (copy == NULL || dir_reserve(t, d) != BNS_OK) {
            bns_free(t->store.alloc, copy);
            return BNS_E_NOMEM;
        }
        memmove(d->entries + i + 1, d->entries + i, (d->count - i) * sizeof d->entries[0]);
        d->entries[i].name = copy;
        d->count++;
    }
    if (ino != NULL) {
        d->entries[i].ino = ino;
        if (users)
            mem_inode_use(t, ino);
        else
            ino->refs++;
    } else {
        bns_free(t->store.alloc, d->entries[i].name);
        d->count--;
        memmove(d->entries + i, d->entries + i + 1, (d->count - i) * sizeof d->entries[0]);
    }
    if (was != NULL && users)
        mem_inode_drop(t, was);
    else if (was != NULL)
        inode_unref(t, was);
    return BNS_OK;
}

/* ---- paths
 * -------------------------------------------------------------------------------------
 */

/* The next component of *path into name; false at the end. Overlong ones cannot
 * be: paths are. */
static bool component(const char **path, char *name)
{
    const char *p = *path;
    size_t n;

    do {
        while (*p == '/')
            p++;
        n = strcspn(p, "/");
        memcpy(name, p, n);
        name[n] = '\0';
        p += n;
    } while (n == 1 && name[0] == '.');
    *path = p;
    return n > 0;
}

int mem_names_find(struct mem_names *t, const char *path, struct mem_place *out)
{
    char next[BNS_PATH_MAX];

    if (path[0] == '\0' || strnlen(path, BNS_PATH_MAX) == BNS_PATH_MAX)
        return BNS_E_INVALID;
    out->dir = NULL;
    out->ino = t->root;
    out->name[0] = '\0';
    while (component(&path, next)) {
        if (strcmp(next, "..") == 0)
            return BNS_E_INVALID;
        if (out->ino == NULL || !out->ino->is_dir)
            return BNS_E_NOTFOUND;
        out->dir = out->ino;
        out->ino = dir_get(&out->dir->vol, next);
        memcpy(out->name, next, sizeof next);
    }
    return BNS_OK;
}

/* ---- changes
 * -----------------------------------------------------------------------------------
 */

static void change_free(struct mem_names *t, struct mem_change *c)
{
    for (size_t i = 0; i < c->effects_count; i++) {
        if (c->effects[i].ino != NULL)
            inode_unref(t, c->effects[i].ino);
        inode_unref(t, c->effects[i].dir);
        bns_free(t->store.alloc, c->effects[i].name);
    }
    bns_list_del(&c->node);
    bns_free(t->store.alloc, c);
}

static int change_add(struct mem_names *t, struct mem_change *c, struct mem_inode *dir,
                      const char *name, struct mem_inode *ino)
{
    char *copy = name_copy(t, name);

    if (copy == NULL)
        return BNS_E_NOMEM;
    dir->refs++;
    if (ino != NULL)
        ino->refs++;
    c->effects[c->effects_count++] = (struct mem_effect){dir, copy, ino};
    return BNS_OK;
}

/* Makes the change visible. The entry that appears goes first: it is the one
 * that may fail. */
static int change_show(struct mem_names *t, struct mem_change *c)
{
    int rv = BNS_OK;

    for (size_t i = c->effects_count; i-- > 0 && rv == BNS_OK;)
        rv = dir_put(t, &c->effects[i].dir->vol, c->effects[i].name, c->effects[i].ino, true);
    return rv;
}

/* Queues and shows a change of `from` to nothing (when not NULL) and of `to` to
 * ino. */
static int change_make(struct mem_names *t, const struct mem_place *from,
                       const struct mem_place *to, struct mem_inode *ino)
{
    struct mem_change *c = bns_alloc_zero(t->store.alloc, sizeof *c);
    int rv = BNS_OK;

    if (c == NULL)
        return BNS_E_NOMEM;
    bns_list_init(&c->node);
    if (from != NULL)
        rv = change_add(t, c, from->dir, from->name, NULL);
    if (rv == BNS_OK)
        rv = change_add(t, c, to->dir, to->name, ino);
    if (rv == BNS_OK)
        rv = change_show(t, c);
    if (rv != BNS_OK) {
        change_free(t, c);
        return rv;
    }
    bns_list_push(&t->pending, &c->node);
    return BNS_OK;
}

static void change_commit(struct mem_names *t, struct mem_change *c)
{
    for (size_t i = 0; i < c->effects_count; i++) {
        struct mem_effect *e = &c->effects[i];
        int rv = dir_put(t, &e->dir->dur, e->name, e->ino, false);
        BNS_ASSERT(rv == BNS_OK); /* a test bed that is out of memory here cannot go on */
    }
    change_free(t, c);
}

int mem_names_create(struct mem_names *t, const struct mem_place *at, bool is_dir,
                     struct mem_inode **out)
{
    struct mem_inode *ino = inode_new(t, is_dir);
    int rv;

    BNS_ASSERT(at->dir != NULL);
    BNS_ASSERT(at->ino == NULL);
    if (ino == NULL)
        return BNS_E_NOMEM;
    ino->refs = 1;
    rv = change_make(t, NULL, at, ino);
    if (rv == BNS_OK)
        *out = ino;
    inode_unref(t, ino);
    return rv;
}

int mem_names_remove(struct mem_names *t, const struct mem_place *at)
{
    if (at->ino == NULL)
        return BNS_E_NOTFOUND;
    if (at->dir == NULL)
        return BNS_E_INVALID;
    if (at->ino->is_dir && at->ino->vol.count > 0)
        return BNS_E_EXISTS;
    return change_make(t, NULL, at, NULL);
}

/* Is `ino` the directory `dir` or somewhere above it? */
static bool is_above(const struct mem_inode *ino, const struct mem_inode *dir, int depth)
{
    if (ino == dir)
        return true;
    for (size_t i = 0; i < ino->vol.count && depth < BNS_PATH_MAX; i++) {
        if (ino->vol.entries[i].ino->is_dir && is_above(ino->vol.entries[i].ino, dir, depth + 1))
            return true;
    }
    return false;
}

int mem_names_rename(struct mem_names *t, const struct mem_place *from, const struct mem_place *to)
{
    if (from->ino == NULL)
        return BNS_E_NOTFOUND;
    if (from->dir == NULL || to->dir == NULL)
        return BNS_E_INVALID;
    if (from->ino == to->ino)
        return BNS_OK;
    if (from->ino->is_dir && is_above(from->ino, to->dir, 0))
        return BNS_E_INVALID;
    if (to->ino != NULL && (to->ino->is_dir != from->ino->is_dir || to->ino->vol.count > 0))
        return BNS_E_EXISTS;
    return change_make(t, from, to, from->ino);
}

/* ---- durability
 * --------------------------------------------------------------------------------
 */

static bool touches(const struct mem_change *c, const struct mem_inode *dir)
{
    return c->effects[0].dir == dir || (c->effects_count == 2 && c->effects[1].dir == dir);
}

void mem_names_sync(struct mem_names *t, struct mem_inode *dir)
{
    bool all = false;

    BNS_LIST_EACH(n, &t->pending)
    {
        const struct mem_change *c = BNS_CONTAINER(n, struct mem_change, node);
        all |= touches(c, dir) && c->effects_count == 2 && c->effects[0].dir != c->effects[1].dir;
    }
    dir->refs++; /* the last change that names it may go */
    BNS_LIST_EACH(n, &t->pending)
    {
        struct mem_change *c = BNS_CONTAINER(n, struct mem_change, node);
        if (all || touches(c, dir))
            change_commit(t, c);
    }
    inode_unref(t, dir);
}

/* vol = dur in every directory. Entries keep their inodes alive, so `dur` goes
 * first. */
static void reset_dirs(struct mem_names *t)
{
    BNS_LIST_EACH(n, &t->inodes)
    {
        struct mem_inode *ino = BNS_CONTAINER(n, struct mem_inode, node);
        ino->refs++; /* nothing is freed while tables change */
    }
    BNS_LIST_EACH(n, &t->inodes)
    {
        struct mem_inode *ino = BNS_CONTAINER(n, struct mem_inode, node);
        dir_clear(t, &ino->vol, true);
        for (size_t i = 0; i < ino->dur.count; i++) {
            int rv = dir_put(t, &ino->vol, ino->dur.entries[i].name, ino->dur.entries[i].ino, true);
            BNS_ASSERT(rv == BNS_OK);
        }
    }
    BNS_LIST_EACH(n, &t->inodes)
    {
        struct mem_inode *ino = BNS_CONTAINER(n, struct mem_inode, node);
        ino->locked = false;
    }
    /* Unreferencing may free inodes ahead of the cursor: the list is walked from
   * its head, each visited inode moving to another list. */
    struct bns_list kept;
    bns_list_init(&kept);
    for (struct bns_list *n = bns_list_pop(&t->inodes); n != NULL; n = bns_list_pop(&t->inodes)) {
        bns_list_push(&kept, n);
        inode_unref(t, BNS_CONTAINER(n, struct mem_inode, node));
    }
    bns_list_splice(&t->inodes, &kept);
}

void mem_names_cut(struct mem_names *t, const struct mem_cut *cut)
{
    bool prefix =
        cut->prng != NULL && (t->store.cfg.ordered_dirs || bns_prng_chance(cut->prng, 0.5));
    uint64_t count = 0;
    uint64_t limit = 0;
    uint64_t at = 0;

    BNS_LIST_EACH(n, &t->pending)
    count++;
    if (prefix)
        limit = bns_prng_below(cut->prng, count + 1);
    BNS_LIST_EACH(n, &t->pending)
    {
        struct mem_change *c = BNS_CONTAINER(n, struct mem_change, node);
        bool live =
            cut->prng != NULL && (prefix ? at < limit : bns_prng_chance(cut->prng, cut->survive));

        at++;
        if (live) {
            change_commit(t, c);
        } else {
            t->entries_lost++;
            change_free(t, c);
        }
    }
    BNS_LIST_EACH(n, &t->inodes)
    {
        struct mem_inode *ino = BNS_CONTAINER(n, struct mem_inode, node);
        if (!ino->is_dir)
            mem_data_cut(&t->store, ino, cut);
    }
    reset_dirs(t);
}

/* ---- whole
 * -------------------------------------------------------------------------------------
 */

static uint64_t hash_tree(const struct mem_inode *ino, bool durable, uint64_t h, int depth)
{
    const struct mem_dir *d = durable ? &ino->dur : &ino->vol;

    for (size_t i = 0; i < d->count && depth < BNS_PATH_MAX; i++) {
        const struct mem_inode *sub = d->entries[i].ino;
        h = mem_hash(h, d->entries[i].name, strlen(d->entries[i].name) + 1);
        h = sub->is_dir ? hash_tree(sub, durable, h, depth + 1) : mem_data_hash(sub, durable, h);
        h = mem_hash(h, sub->is_dir ? "d" : "f", 1);
    }
    return h;
}

uint64_t mem_names_hash(const struct mem_names *t, bool durable)
{
    return hash_tree(t->root, durable, UINT64_C(0xcbf29ce484222325), 0);
}

int mem_names_init(struct mem_names *t)
{
    bns_list_init(&t->inodes);
    bns_list_init(&t->pending);
    t->root = inode_new(t, true);
    if (t->root == NULL)
        return BNS_E_NOMEM;
    t->root->refs = 1;
    t->root->users = 1;
    return BNS_OK;
}

void mem_names_free(struct mem_names *t)
{
    BNS_LIST_EACH(n, &t->pending)
    change_free(t, BNS_CONTAINER(n, struct mem_change, node));
    if (t->root != NULL)
        inode_unref(t, t->root);
    BNS_ASSERT(bns_list_empty(&t->inodes));
}
