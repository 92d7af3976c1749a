/* bolt_write.c - writes a bbolt file from sorted rows, front to back.
 *
 * The format (all numbers little-endian, pages of 4,096 bytes, a page may go on over `overflow`
 * further ones):
 *   page     u64 id, u16 flags (1 branch, 2 leaf, 4 meta, 16 freelist), u16 count, u32 overflow,
 *            then `count` elements, then what they point at
 *   meta     (pages 0 and 1; the valid one with the higher txid counts) u32 magic, u32 version 2,
 *            u32 page size, u32 flags, u64 root page, u64 sequence, u64 freelist page (all ones:
 *            not stored, found by walking the tree, as etcd has it), u64 pages in use, u64 txid,
 *            u64 FNV-1a of these 56 bytes
 *   leaf     u32 flags (1: the value is a bucket), u32 pos (counted from the element itself), u32
 *            key bytes, u32 value bytes; the value follows the key
 *   branch   u32 pos, u32 key bytes, u64 page; the key is the first one below that page
 *   bucket   as a value: u64 root page, u64 sequence. Root 0: the bucket is inline, its only leaf
 *            follows as a page with id 0; so are buckets of at most a quarter of a page
 * The root page of the file is a tree of buckets, each bucket a tree of rows.
 *
 * A tree is built from the bottom: one page a level is being filled; when the next element has no
 * room it is written, at the end of the file, and its first key goes one level up. So pages are
 * written in the order of their ids, none is left out (no free page), and the memory is a page a
 * level. Only the two meta pages are written at the end.
 *
 * A row that is larger than a page gets a leaf of its own with overflow pages, written without a
 * copy.
 */
#include "bolt.h"

#include "base/buf.h"
#include "base/varint.h"

#define LEVELS_MAX 24
#define OUT_BYTES (64u * 1024)
#define INLINE_MAX (ETCD_BOLT_PAGE / 4)
#define NODE_BYTES_MAX (4u * 1024 * 1024)
#define COUNT_MAX 0xFFFFu

/* A page being filled. */
struct node {
    struct bns_buf elems; /* 16 bytes each, as in the file; pos counts from the first of `data` */
    struct bns_buf data;
    uint32_t count;
    uint32_t key_len; /* of the first */
    uint64_t pages;   /* written on this level so far */
    uint64_t single;  /* the last of them */
};

struct tree {
    struct node level[LEVELS_MAX]; /* 0: leaves */
};

struct etcd_bolt_writer {
    const struct bns_alloc *alloc;
    struct bns_file *f;
    uint64_t page; /* the next id */
    uint64_t off;  /* of the first byte in `out` */
    struct bns_buf out;
    struct tree root, bucket;
    struct bns_buf name; /* of the open bucket */
    struct bns_buf last; /* the key before, BNS_CHECKS or not: order is what readers rely on */
    bool open, any;
    int failed;
};

uint64_t etcd_bolt_checksum(const uint8_t *meta)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < BOLT_META_BYTES - 8; i++)
        h = (h ^ meta[i]) * UINT64_C(1099511628211);
    return h;
}

/* ---- bytes to the file ---------------------------------------------------------------------- */

static int flush(struct etcd_bolt_writer *w, struct bns_err *err)
{
    struct bns_slice v = bns_buf_slice(&w->out);
    int rv = v.len == 0 ? BNS_OK : bns_file_write_at(w->f, w->off, &v, 1, err);

    w->off += v.len;
    bns_buf_clear(&w->out);
    return rv;
}

static int append(struct etcd_bolt_writer *w, const void *ptr, size_t len, struct bns_err *err)
{
    int rv = BNS_OK;

    if (w->out.len + len > OUT_BYTES)
        rv = flush(w, err);
    if (rv == BNS_OK && len > OUT_BYTES) {
        struct bns_slice v = bns_slice(ptr, len);

        rv = bns_file_write_at(w->f, w->off, &v, 1, err);
        w->off += len;
        return rv;
    }
    if (rv == BNS_OK && bns_buf_add(&w->out, ptr, len) != BNS_OK)
        rv = bns_err_set(err, BNS_E_NOMEM, "bolt: out of memory");
    return rv;
}

static int pad(struct etcd_bolt_writer *w, uint64_t len, struct bns_err *err)
{
    static const uint8_t zeros[ETCD_BOLT_PAGE];

    return append(w, zeros,
                  (size_t)(len % ETCD_BOLT_PAGE == 0 ? 0 : ETCD_BOLT_PAGE - len % ETCD_BOLT_PAGE),
                  err);
}

static void head_put(uint8_t *p, uint64_t id, uint32_t flags, uint32_t count, uint64_t bytes)
{
    bns_put_u64le(p, id);
    bns_put_u16le(p + 8, (uint16_t)flags);
    bns_put_u16le(p + 10, (uint16_t)count);
    bns_put_u32le(p + 12, bytes == 0 ? 0 : (uint32_t)((bytes - 1) / ETCD_BOLT_PAGE));
}

static void leaf_put(uint8_t *p, uint32_t flags, uint64_t pos, struct bns_slice key, size_t vlen)
{
    bns_put_u32le(p, flags);
    bns_put_u32le(p + 4, (uint32_t)pos);
    bns_put_u32le(p + 8, (uint32_t)key.len);
    bns_put_u32le(p + 12, (uint32_t)vlen);
}

/* ---- trees ---------------------------------------------------------------------------------- */

static void tree_init(struct etcd_bolt_writer *w, struct tree *t)
{
    for (size_t i = 0; i < LEVELS_MAX; i++) {
        t->level[i] = (struct node){.count = 0};
        bns_buf_init(&t->level[i].elems, w->alloc, NODE_BYTES_MAX);
        bns_buf_init(&t->level[i].data, w->alloc, NODE_BYTES_MAX);
    }
}

static void tree_free(struct tree *t)
{
    for (size_t i = 0; i < LEVELS_MAX; i++) {
        bns_buf_free(&t->level[i].elems);
        bns_buf_free(&t->level[i].data);
    }
}

static void tree_reset(struct tree *t)
{
    for (size_t i = 0; i < LEVELS_MAX; i++) {
        bns_buf_clear(&t->level[i].elems);
        bns_buf_clear(&t->level[i].data);
        t->level[i].count = 0;
        t->level[i].pages = 0;
    }
}

static uint64_t node_bytes(const struct node *n)
{
    return BOLT_HEAD + n->elems.len + n->data.len;
}

/* In the file an element counts `pos` from itself, and the data begin behind the last element. */
static void settle(struct node *n, bool leaf)
{
    for (uint32_t i = 0; i < n->count; i++) {
        uint8_t *pos = n->elems.ptr + (size_t)i * BOLT_HEAD + (leaf ? 4 : 0);

        bns_put_u32le(pos, bns_get_u32le(pos) + (n->count - i) * BOLT_HEAD);
    }
}

/* Writes the page being filled and empties it; its id is n->single. */
static int page_out(struct etcd_bolt_writer *w, struct node *n, bool leaf, struct bns_err *err)
{
    uint64_t bytes = node_bytes(n);
    uint8_t head[BOLT_HEAD];
    int rv;

    settle(n, leaf);
    n->single = w->page;
    head_put(head, w->page, leaf ? BOLT_LEAF : BOLT_BRANCH, n->count, bytes);
    w->page += (bytes + ETCD_BOLT_PAGE - 1) / ETCD_BOLT_PAGE;
    rv = append(w, head, sizeof head, err);
    if (rv == BNS_OK)
        rv = append(w, n->elems.ptr, n->elems.len, err);
    if (rv == BNS_OK)
        rv = append(w, n->data.ptr, n->data.len, err);
    if (rv == BNS_OK)
        rv = pad(w, bytes, err);
    n->pages++;
    n->count = 0;
    bns_buf_clear(&n->elems);
    bns_buf_clear(&n->data);
    return rv;
}

/* Takes an element that is to point at the end of `data`, and the bytes that go there. */
static int node_add(struct node *n, const uint8_t *elem, struct bns_slice a, struct bns_slice b)
{
    int rv = bns_buf_reserve(&n->elems, BOLT_HEAD);

    if (rv == BNS_OK)
        rv = bns_buf_reserve(&n->data, a.len + b.len);
    if (rv == BNS_OK)
        rv = bns_buf_add(&n->elems, elem, BOLT_HEAD);
    if (rv == BNS_OK)
        rv = bns_buf_add(&n->data, a.ptr, a.len);
    if (rv == BNS_OK)
        rv = bns_buf_add(&n->data, b.ptr, b.len);
    if (rv == BNS_OK && n->count++ == 0)
        n->key_len = (uint32_t)a.len;
    return rv;
}

/* The page `id`, whose first key is `key`, becomes a child on `level`. Recursion goes up a tree of
 * at most LEVELS_MAX levels. A branch page takes at least two children, however long the keys. */
static int add_child(struct etcd_bolt_writer *w, struct tree *t, size_t level, struct bns_slice key,
                     uint64_t id, struct bns_err *err);

static int node_out(struct etcd_bolt_writer *w, struct tree *t, size_t level, struct bns_err *err)
{
    struct node *n = &t->level[level];
    struct bns_buf first;
    int rv;

    bns_buf_init(&first, w->alloc, ETCD_BOLT_KEY_MAX);
    rv = bns_buf_add(&first, n->data.ptr, n->key_len);
    if (rv != BNS_OK) {
        bns_buf_free(&first);
        return bns_err_set(err, rv, "bolt: no memory for a key");
    }
    rv = page_out(w, n, level == 0, err);
    if (rv == BNS_OK)
        rv = add_child(w, t, level + 1, bns_buf_slice(&first), n->single, err);
    bns_buf_free(&first);
    return rv;
}

static int add_child(struct etcd_bolt_writer *w, struct tree *t, size_t level, struct bns_slice key,
                     uint64_t id, struct bns_err *err)
{
    struct node *n = &t->level[level];
    uint8_t elem[BOLT_HEAD];
    int rv = BNS_OK;

    BNS_ASSERT(level < LEVELS_MAX);
    if (n->count >= 2 &&
        (n->count == COUNT_MAX || node_bytes(n) + BOLT_HEAD + key.len > ETCD_BOLT_PAGE))
        rv = node_out(w, t, level, err);
    if (rv != BNS_OK)
        return rv;
    bns_put_u32le(elem, (uint32_t)n->data.len);
    bns_put_u32le(elem + 4, (uint32_t)key.len);
    bns_put_u64le(elem + 8, id);
    rv = node_add(n, elem, key, bns_slice(NULL, 0));
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "bolt: no memory for a branch page");
}

/* One row that is larger than a page, as a leaf of its own. */
static int large_row(struct etcd_bolt_writer *w, struct tree *t, uint32_t flags,
                     struct bns_slice key, struct bns_slice value, struct bns_err *err)
{
    uint64_t bytes = 2 * BOLT_HEAD + key.len + value.len;
    uint64_t id = w->page;
    uint8_t head[2 * BOLT_HEAD];
    int rv;

    head_put(head, id, BOLT_LEAF, 1, bytes);
    leaf_put(head + BOLT_HEAD, flags, BOLT_HEAD, key, value.len);
    w->page += (bytes + ETCD_BOLT_PAGE - 1) / ETCD_BOLT_PAGE;
    t->level[0].pages++;
    rv = append(w, head, sizeof head, err);
    if (rv == BNS_OK)
        rv = append(w, key.ptr, key.len, err);
    if (rv == BNS_OK)
        rv = append(w, value.ptr, value.len, err);
    if (rv == BNS_OK)
        rv = pad(w, bytes, err);
    return rv == BNS_OK ? add_child(w, t, 1, key, id, err) : rv;
}

static int add_row(struct etcd_bolt_writer *w, struct tree *t, uint32_t flags, struct bns_slice key,
                   struct bns_slice value, struct bns_err *err)
{
    struct node *n = &t->level[0];
    uint64_t more = BOLT_HEAD + key.len + value.len;
    uint8_t elem[BOLT_HEAD];
    int rv = BNS_OK;

    if (n->count > 0 && node_bytes(n) + more > ETCD_BOLT_PAGE)
        rv = node_out(w, t, 0, err);
    if (rv != BNS_OK)
        return rv;
    if (BOLT_HEAD + more > ETCD_BOLT_PAGE)
        return large_row(w, t, flags, key, value, err);
    leaf_put(elem, flags, n->data.len, key, value.len);
    rv = node_add(n, elem, key, value);
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "bolt: no memory for a leaf page");
}

/* Writes what is being filled, level by level; the page that stands alone on its level is the
 * root. */
static int tree_out(struct etcd_bolt_writer *w, struct tree *t, uint64_t *root, struct bns_err *err)
{
    for (size_t level = 0;; level++) {
        struct node *n = &t->level[level];
        int rv;

        BNS_ASSERT(level < LEVELS_MAX);
        if (n->pages == 0 && (level == 0 || n->count > 1)) { /* one page: nothing is above it */
            rv = page_out(w, n, level == 0, err);
            *root = n->single;
            return rv;
        }
        if (n->pages == 0) { /* one child: it is the root itself */
            *root = bns_get_u64le(n->elems.ptr + 8);
            return BNS_OK;
        }
        rv = n->count > 0 ? node_out(w, t, level, err) : BNS_OK;
        if (rv != BNS_OK)
            return rv;
    }
}

/* ---- the writer ----------------------------------------------------------------------------- */

int etcd_bolt_writer_new(const struct bns_alloc *alloc, struct bns_file *f,
                         struct etcd_bolt_writer **out, struct bns_err *err)
{
    struct etcd_bolt_writer *w = bns_alloc_zero(alloc, sizeof *w);

    if (w == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "bolt: no memory for a writer");
    w->alloc = alloc;
    w->f = f;
    w->page = 2;
    w->off = 2 * ETCD_BOLT_PAGE;
    bns_buf_init(&w->out, alloc, OUT_BYTES);
    bns_buf_init(&w->name, alloc, ETCD_BOLT_KEY_MAX);
    bns_buf_init(&w->last, alloc, ETCD_BOLT_KEY_MAX);
    tree_init(w, &w->root);
    tree_init(w, &w->bucket);
    *out = w;
    return BNS_OK;
}

void etcd_bolt_writer_free(struct etcd_bolt_writer *w)
{
    if (w == NULL)
        return;
    tree_free(&w->root);
    tree_free(&w->bucket);
    bns_buf_free(&w->out);
    bns_buf_free(&w->name);
    bns_buf_free(&w->last);
    bns_free(w->alloc, w);
}

static int remember(struct bns_buf *b, struct bns_slice s, struct bns_err *err)
{
    int rv;

    bns_buf_clear(b);
    rv = bns_buf_add(b, s.ptr, s.len);
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "bolt: no room for a key of %zu bytes", s.len);
}

int etcd_bolt_begin(struct etcd_bolt_writer *w, struct bns_slice bucket, struct bns_err *err)
{
    BNS_ASSERT(!w->open);
    BNS_ASSERT(bns_slice_cmp(bns_buf_slice(&w->name), bucket) < 0);
    w->open = true;
    w->any = false;
    tree_reset(&w->bucket);
    return remember(&w->name, bucket, err);
}

int etcd_bolt_put(struct etcd_bolt_writer *w, struct bns_slice key, struct bns_slice value,
                  struct bns_err *err)
{
    int rv;

    BNS_ASSERT(w->open);
    if (key.len == 0 || key.len > ETCD_BOLT_KEY_MAX || value.len > INT32_MAX - 65536)
        return bns_err_set(err, BNS_E_TOOBIG,
                           "bolt: a key of %zu bytes with a value of %zu bytes cannot be stored",
                           key.len, value.len);
    BNS_ASSERT(!w->any || bns_slice_cmp(bns_buf_slice(&w->last), key) < 0);
    w->any = true;
    rv = remember(&w->last, key, err);
    return rv == BNS_OK ? add_row(w, &w->bucket, 0, key, value, err) : rv;
}

int etcd_bolt_end(struct etcd_bolt_writer *w, struct bns_err *err)
{
    struct node *n = &w->bucket.level[0];
    uint8_t value[BOLT_HEAD + INLINE_MAX] = {0};
    struct bns_slice v = bns_slice(value, BOLT_HEAD);
    uint64_t root = 0;
    int rv = BNS_OK;

    BNS_ASSERT(w->open);
    w->open = false;
    if (n->pages == 0 && node_bytes(n) <= INLINE_MAX) {
        settle(n, true);
        head_put(value + BOLT_HEAD, 0, BOLT_LEAF, n->count, 0);
        if (n->count > 0) {
            memcpy(value + 2 * BOLT_HEAD, n->elems.ptr, n->elems.len);
            memcpy(value + 2 * BOLT_HEAD + n->elems.len, n->data.ptr, n->data.len);
        }
        v.len += node_bytes(n);
    } else {
        rv = tree_out(w, &w->bucket, &root, err);
        bns_put_u64le(value, root);
    }
    return rv == BNS_OK ? add_row(w, &w->root, BOLT_IS_BUCKET, bns_buf_slice(&w->name), v, err)
                        : rv;
}

int etcd_bolt_finish(struct etcd_bolt_writer *w, uint64_t *bytes, struct bns_err *err)
{
    uint8_t pages[2 * ETCD_BOLT_PAGE] = {0};
    struct bns_slice v = bns_slice(pages, sizeof pages);
    uint64_t root = 0;
    int rv;

    BNS_ASSERT(!w->open);
    rv = tree_out(w, &w->root, &root, err);
    if (rv == BNS_OK)
        rv = flush(w, err);
    if (rv != BNS_OK)
        return rv;
    BNS_ASSERT(w->off == w->page * ETCD_BOLT_PAGE);
    for (uint64_t i = 0; i < 2; i++) {
        uint8_t *page = pages + i * ETCD_BOLT_PAGE;
        uint8_t *meta = page + BOLT_HEAD;

        head_put(page, i, BOLT_META, 0, 0);
        bns_put_u32le(meta, BOLT_MAGIC);
        bns_put_u32le(meta + 4, BOLT_VERSION);
        bns_put_u32le(meta + 8, ETCD_BOLT_PAGE);
        bns_put_u64le(meta + 16, root);
        bns_put_u64le(meta + 32, BOLT_NO_FREELIST);
        bns_put_u64le(meta + 40, w->page);
        bns_put_u64le(meta + 48,
                      2 - i); /* a transaction writes the page of its number's last bit */
        bns_put_u64le(meta + 56, etcd_bolt_checksum(meta));
    }
    *bytes = w->off;
    return bns_file_write_at(w->f, 0, &v, 1, err);
}
