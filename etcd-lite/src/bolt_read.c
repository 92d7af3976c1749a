/* bolt_read.c - reads a bbolt file that may say anything.
 *
 * The layout is described in bolt_write.c. Nothing in the file is believed:
 *   - a page id lies between the meta pages and the pages in use, and so do its overflow pages; the
 *     pages in use lie inside the file; a page names its own id and is a leaf or a branch
 *   - elements, keys and values lie inside their page. Memory is taken for one row at a time, of at
 *     most ETCD_BOLT_ROW_MAX, that the file was long enough for
 *   - a tree is at most DEPTH_MAX deep, and only its root may be empty
 *   - keys ascend strictly over the whole walk. So a page that is reached twice, by a cycle or not,
 *     gives a key that was given before: every walk ends, after at most one visit of each leaf
 *
 * A cursor holds the first page of every level above it, and the present row.
 */
#include "bolt.h"

#include "base/buf.h"
#include "base/varint.h"

#define DEPTH_MAX 24
#define PAGE_MIN 1024u
#define PAGE_MAX 65536u
#define INLINE_READ_MAX PAGE_MAX /* an inline bucket fills a quarter of a page at most */

struct etcd_bolt {
    const struct bns_alloc *alloc;
    struct bns_file *f;
    uint64_t bytes, pages, root;
    uint32_t page_bytes;
};

struct frame {
    uint64_t id;
    uint64_t bytes; /* of the page with its overflow */
    uint32_t count, at;
    bool leaf;
    uint8_t *page; /* its first page_bytes */
    size_t held;   /* of them */
};

struct etcd_bolt_cursor {
    struct etcd_bolt *b;
    struct frame frame[DEPTH_MAX];
    size_t depth; /* frames in use */
    bool buckets; /* over buckets: the values are buckets, and nothing else */
    bool any;
    uint64_t in_memory; /* the only frame is an inline bucket of so many bytes */
    struct bns_buf last, value;
};

static int corrupt(struct bns_err *err, uint64_t page, const char *what)
{
    return bns_err_set(err, BNS_E_CORRUPT, "bolt: page %llu: %s", (unsigned long long)page, what);
}

/* ---- the file ------------------------------------------------------------------------------- */

static int read_at(const struct etcd_bolt *b, uint64_t off, void *dst, size_t len,
                   struct bns_err *err)
{
    size_t got = 0;
    int rv;

    if (off > b->bytes || len > b->bytes - off)
        return bns_err_set(err, BNS_E_CORRUPT, "bolt: the file is cut short");
    rv = bns_file_read_at(b->f, off, dst, len, &got, err);
    if (rv == BNS_OK && got < len)
        rv = bns_err_set(err, BNS_E_CORRUPT, "bolt: the file is cut short");
    return rv;
}

/* A meta page at this offset? */
static bool meta_at(struct etcd_bolt *b, uint64_t off, uint64_t *txid)
{
    uint8_t page[BOLT_HEAD + BOLT_META_BYTES];
    const uint8_t *m = page + BOLT_HEAD;
    uint32_t size;

    if (read_at(b, off, page, sizeof page, NULL) != BNS_OK)
        return false;
    size = bns_get_u32le(m + 8);
    if (bns_get_u16le(page + 8) != BOLT_META || bns_get_u32le(m) != BOLT_MAGIC ||
        bns_get_u32le(m + 4) != BOLT_VERSION || bns_get_u64le(m + 56) != etcd_bolt_checksum(m) ||
        size < PAGE_MIN || size > PAGE_MAX || (size & (size - 1)) != 0 || (off != 0 && off != size))
        return false;
    *txid = bns_get_u64le(m + 48);
    b->page_bytes = size;
    b->root = bns_get_u64le(m + 16);
    b->pages = bns_get_u64le(m + 40);
    return true;
}

/* The valid meta page with the higher transaction: the other may be of an unfinished one. */
static int find_meta(struct etcd_bolt *b, struct bns_err *err)
{
    struct etcd_bolt best = *b;
    uint64_t best_tx = 0, tx = 0;
    bool found = meta_at(b, 0, &best_tx);

    if (found)
        best = *b;
    for (uint64_t off = PAGE_MIN; off <= PAGE_MAX; off *= 2) {
        if ((found && off != best.page_bytes) || !meta_at(b, off, &tx))
            continue;
        if (!found || tx > best_tx)
            best = *b;
        found = true;
        break;
    }
    if (!found)
        return bns_err_set(err, BNS_E_CORRUPT, "bolt: invalid database: no meta page is valid");
    *b = best;
    if (b->pages < 3 || b->pages > b->bytes / b->page_bytes)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "bolt: the file has %llu bytes, its meta page speaks of %llu pages",
                           (unsigned long long)b->bytes, (unsigned long long)b->pages);
    return BNS_OK;
}

int etcd_bolt_open(const struct bns_alloc *alloc, struct bns_file *f, uint64_t bytes,
                   struct etcd_bolt **out, struct bns_err *err)
{
    struct etcd_bolt *b = bns_alloc_zero(alloc, sizeof *b);
    int rv;

    if (b == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "bolt: no memory for a reader");
    b->alloc = alloc;
    b->f = f;
    b->bytes = bytes;
    rv = find_meta(b, err);
    if (rv == BNS_OK)
        *out = b;
    else
        bns_free(alloc, b);
    return rv;
}

void etcd_bolt_close(struct etcd_bolt *b)
{
    if (b != NULL)
        bns_free(b->alloc, b);
}

uint64_t etcd_bolt_bytes(const struct etcd_bolt *b)
{
    return b->pages * b->page_bytes;
}

/* ---- pages ---------------------------------------------------------------------------------- */

/* Bytes [off, off + len) of the page, in its first part or through `room`. */
static int view(struct etcd_bolt_cursor *c, const struct frame *f, uint64_t off, uint64_t len,
                struct bns_buf *room, const uint8_t **out, struct bns_err *err)
{
    int rv;

    if (off > f->bytes || len > f->bytes - off)
        return corrupt(err, f->id, "an element reaches beyond the page");
    if (off + len <= f->held) {
        *out = f->page + off;
        return BNS_OK;
    }
    if (c->in_memory > 0) /* held == bytes */
        return corrupt(err, f->id, "an inline bucket is cut short");
    if (len > ETCD_BOLT_ROW_MAX)
        return bns_err_set(err, BNS_E_TOOBIG, "bolt: page %llu: a row of %llu bytes is too large",
                           (unsigned long long)f->id, (unsigned long long)len);
    bns_buf_clear(room);
    rv = bns_buf_reserve(room, (size_t)len);
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "bolt: no memory for a row of %llu bytes",
                           (unsigned long long)len);
    rv = read_at(c->b, f->id * c->b->page_bytes + off, room->ptr, (size_t)len, err);
    if (rv == BNS_OK)
        room->len = (size_t)len;
    *out = room->ptr;
    return rv;
}

static int head(struct frame *f, size_t depth, struct bns_err *err)
{
    uint16_t flags = bns_get_u16le(f->page + 8);

    f->count = bns_get_u16le(f->page + 10);
    f->leaf = flags == BOLT_LEAF;
    f->at = 0;
    if (!f->leaf && flags != BOLT_BRANCH)
        return corrupt(err, f->id, "neither a leaf nor a branch");
    if (f->count == 0 && (depth > 0 || !f->leaf))
        return corrupt(err, f->id, "empty");
    if ((uint64_t)f->count * BOLT_HEAD + BOLT_HEAD > f->bytes)
        return corrupt(err, f->id, "more elements than have room");
    return BNS_OK;
}

static int push(struct etcd_bolt_cursor *c, uint64_t id, struct bns_err *err)
{
    struct etcd_bolt *b = c->b;
    struct frame *f = &c->frame[c->depth];
    uint64_t over;
    int rv;

    if (id < 2 || id >= b->pages)
        return corrupt(err, id, "there is no such page");
    if (c->depth == DEPTH_MAX)
        return corrupt(err, id, "the tree is too deep");
    f->id = id;
    f->held = b->page_bytes;
    if (f->page == NULL)
        f->page = bns_alloc(b->alloc, b->page_bytes);
    if (f->page == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "bolt: no memory for a page");
    rv = read_at(b, id * b->page_bytes, f->page, b->page_bytes, err);
    if (rv != BNS_OK)
        return rv;
    over = bns_get_u32le(f->page + 12);
    if (bns_get_u64le(f->page) != id)
        return corrupt(err, id, "names another id");
    if (over >= b->pages - id)
        return corrupt(err, id, "goes on beyond the last page");
    f->bytes = (over + 1) * b->page_bytes;
    rv = head(f, c->depth, err);
    if (rv == BNS_OK)
        c->depth++;
    return rv;
}

/* ---- cursors -------------------------------------------------------------------------------- */

static int cursor_new(struct etcd_bolt *b, struct etcd_bolt_cursor **out, struct bns_err *err)
{
    struct etcd_bolt_cursor *c = bns_alloc_zero(b->alloc, sizeof *c);

    if (c == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "bolt: no memory for a cursor");
    c->b = b;
    bns_buf_init(&c->last, b->alloc, ETCD_BOLT_ROW_MAX);
    bns_buf_init(&c->value, b->alloc, ETCD_BOLT_ROW_MAX);
    *out = c;
    return BNS_OK;
}

void etcd_bolt_cursor_close(struct etcd_bolt_cursor *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < DEPTH_MAX; i++)
        bns_free(c->b->alloc, c->frame[i].page);
    bns_buf_free(&c->last);
    bns_buf_free(&c->value);
    bns_free(c->b->alloc, c);
}

int etcd_bolt_buckets(struct etcd_bolt *b, struct etcd_bolt_cursor **out, struct bns_err *err)
{
    struct etcd_bolt_cursor *c = NULL;
    int rv = cursor_new(b, &c, err);

    if (rv == BNS_OK)
        rv = push(c, b->root, err);
    if (rv != BNS_OK) {
        etcd_bolt_cursor_close(c);
        return rv;
    }
    c->buckets = true;
    *out = c;
    return BNS_OK;
}

static int enter_inline(struct etcd_bolt_cursor *c, struct bns_slice value, struct bns_err *err)
{
    struct frame *f = &c->frame[0];
    struct bns_slice page = bns_slice_skip(value, BOLT_HEAD);

    if (page.len < BOLT_HEAD || page.len > INLINE_READ_MAX)
        return bns_err_set(err, BNS_E_CORRUPT, "bolt: an inline bucket of %zu bytes", page.len);
    f->page = bns_alloc(c->b->alloc, page.len);
    if (f->page == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "bolt: no memory for a page");
    memcpy(f->page, page.ptr, page.len);
    f->held = page.len;
    f->bytes = page.len;
    c->in_memory = page.len;
    c->depth = 1;
    if (bns_get_u16le(f->page + 8) != BOLT_LEAF)
        return corrupt(err, 0, "an inline bucket that is no leaf");
    return head(f, 0, err);
}

int etcd_bolt_rows(const struct etcd_bolt_cursor *at, struct etcd_bolt_cursor **out,
                   struct bns_err *err)
{
    struct bns_slice value = bns_buf_slice(&at->value);
    struct etcd_bolt_cursor *c = NULL;
    uint64_t root;
    int rv;

    BNS_ASSERT(at->buckets);
    BNS_ASSERT(value.len >= BOLT_HEAD); /* etcd_bolt_next() has looked */
    root = bns_get_u64le(value.ptr);
    rv = cursor_new(at->b, &c, err);
    if (rv == BNS_OK)
        rv = root == 0 ? enter_inline(c, value, err) : push(c, root, err);
    if (rv != BNS_OK) {
        etcd_bolt_cursor_close(c);
        return rv;
    }
    *out = c;
    return BNS_OK;
}

/* Goes down until the top frame is a leaf. */
static int descend(struct etcd_bolt_cursor *c, struct bns_err *err)
{
    while (c->depth > 0 && !c->frame[c->depth - 1].leaf) {
        struct frame *f = &c->frame[c->depth - 1];
        const uint8_t *e;
        int rv;

        if (f->at == f->count) {
            c->depth--;
            continue;
        }
        rv = view(c, f, BOLT_HEAD + (uint64_t)f->at * BOLT_HEAD, BOLT_HEAD, &c->value, &e, err);
        f->at++;
        if (rv == BNS_OK)
            rv = push(c, bns_get_u64le(e + 8), err);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

/* The key must lie behind the one before: it takes its place. */
static int check_order(struct etcd_bolt_cursor *c, const struct frame *f, struct bns_slice key,
                       struct bns_err *err)
{
    int rv;

    if (key.len == 0 || key.len > ETCD_BOLT_KEY_MAX)
        return corrupt(err, f->id, "a key without bytes, or with too many");
    if (c->any && bns_slice_cmp(bns_buf_slice(&c->last), key) >= 0)
        return corrupt(err, f->id, "keys do not ascend");
    c->any = true;
    bns_buf_clear(&c->last);
    rv = bns_buf_add(&c->last, key.ptr, key.len);
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "bolt: no memory for a key");
}

static int row(struct etcd_bolt_cursor *c, struct frame *f, struct bns_slice *key,
               struct bns_slice *value, struct bns_err *err)
{
    uint64_t at = BOLT_HEAD + (uint64_t)f->at * BOLT_HEAD;
    uint32_t flags, key_len, value_len;
    const uint8_t *e;
    uint64_t pos;
    int rv = view(c, f, at, BOLT_HEAD, &c->value, &e, err);

    if (rv != BNS_OK)
        return rv;
    flags = bns_get_u32le(e);
    pos = at + bns_get_u32le(e + 4);
    key_len = bns_get_u32le(e + 8);
    value_len = bns_get_u32le(e + 12);
    rv = view(c, f, pos, (uint64_t)key_len + value_len, &c->value, &e, err);
    if (rv == BNS_OK)
        rv = check_order(c, f, bns_slice(e, key_len), err);
    if (rv != BNS_OK)
        return rv;
    *key = bns_buf_slice(&c->last);
    *value = bns_slice(e + key_len, value_len);
    if (flags != (c->buckets ? BOLT_IS_BUCKET : 0))
        return corrupt(err, f->id,
                       c->buckets ? "a row beside the buckets" : "a bucket in a bucket");
    if (!c->buckets)
        return BNS_OK;
    if (value_len < BOLT_HEAD || value_len > INLINE_READ_MAX)
        return corrupt(err, f->id, "a bucket of a wrong length");
    if (e >= f->page && e < f->page + f->held) { /* keep it for etcd_bolt_rows() */
        bns_buf_clear(&c->value);
        rv = bns_buf_add(&c->value, value->ptr, value->len);
    } else {
        bns_buf_consume(&c->value, key_len);
    }
    *value = bns_buf_slice(&c->value);
    return rv == BNS_OK ? rv : bns_err_set(err, rv, "bolt: no memory for a bucket");
}

int etcd_bolt_next(struct etcd_bolt_cursor *c, struct bns_slice *key, struct bns_slice *value,
                   struct bns_err *err)
{
    while (c->depth > 0) {
        struct frame *f;
        int rv = descend(c, err);

        if (rv != BNS_OK)
            return rv;
        if (c->depth == 0)
            break;
        f = &c->frame[c->depth - 1];
        if (f->at < f->count) {
            rv = row(c, f, key, value, err);
            f->at++;
            return rv;
        }
        c->depth--;
    }
    return BNS_E_NOTFOUND;
}
