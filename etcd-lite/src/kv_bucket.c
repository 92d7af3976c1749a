/* kv_bucket.c - small replicated tables, kept as rows of revision 0.
 *
 * In the store a row is (0, ETCD_BUCKET_SUB + slot): revision 0 has no keys, so index, HashKV,
 * watches and compaction pass it over, and snapshots carry it like any other row. A key keeps its
 * slot while it exists; a new one gets the lowest that is free, which depends on nothing but the
 * log, so members agree. A row without bytes is one that goes.
 *
 * The last ETCD_BUCKET_RESERVE slots are not for what clients make as they please (users, roles,
 * checkpoints of leases): however many of those there are, members, alarms and the two rows of auth
 * find a place.
 */
#include "kv_bucket.h"

#include <stddef.h>

#include "base/varint.h"
#include "kv_impl.h"

#define HEAD 5u /* key length u32, bucket u8 */
#define WORDS_MIN 4u
#define SEEK_BYTES 255u /* of a key: told apart without memory */

static struct etcd_bucket_row *row_of(const struct bns_skip_node *n)
{
    return n == NULL ? NULL : BNS_CONTAINER(n, struct etcd_bucket_row, skip);
}

struct bns_slice etcd_bucket_key(const struct etcd_bucket_row *r)
{
    return bns_slice(r->bytes->bytes + HEAD, bns_get_u32le(r->bytes->bytes));
}

struct bns_slice etcd_bucket_value(const struct etcd_bucket_row *r)
{
    size_t at = HEAD + bns_get_u32le(r->bytes->bytes);

    return bns_slice(r->bytes->bytes + at, r->bytes->len - at);
}

static struct bns_rcbuf *encode(const struct etcd_kv *kv, enum etcd_bucket b, struct bns_slice key,
                                struct bns_slice value)
{
    struct bns_rcbuf *out = bns_rcbuf_new(kv->alloc, HEAD + key.len + value.len);

    if (out == NULL)
        return NULL;
    bns_put_u32le(out->bytes, (uint32_t)key.len);
    out->bytes[4] = (uint8_t)b;
    if (key.len > 0)
        memcpy(out->bytes + HEAD, key.ptr, key.len);
    if (value.len > 0)
        memcpy(out->bytes + HEAD + key.len, value.ptr, value.len);
    return out;
}

/* ---- slots ---------------------------------------------------------------------------------- */

/* Room for the bit of a slot. */
static int make_words(struct etcd_kv *kv, uint32_t slot)
{
    struct etcd_buckets *t = &kv->buckets;
    size_t words = t->taken_words == 0 ? WORDS_MIN : t->taken_words;
    uint64_t *taken;

    while (words * 64 <= slot)
        words *= 2;
    if (words == t->taken_words)
        return BNS_OK;
    taken = bns_resize(kv->alloc, t->taken, words * sizeof *taken);
    if (taken == NULL)
        return BNS_E_NOMEM;
    memset(taken + t->taken_words, 0, (words - t->taken_words) * sizeof *taken);
    t->taken = taken;
    t->taken_words = words;
    return BNS_OK;
}

static bool is_taken(const struct etcd_buckets *t, uint32_t slot)
{
    return slot / 64 < t->taken_words && (t->taken[slot / 64] >> slot % 64 & 1) != 0;
}

/* Below low_word there is none. */
static uint32_t lowest_free(struct etcd_buckets *t)
{
    for (size_t w = t->low_word; w < t->taken_words; w++) {
        uint32_t bit = 0;

        t->low_word = w;
        if (t->taken[w] == UINT64_MAX)
            continue;
        while ((t->taken[w] >> bit & 1) != 0)
            bit++;
        return (uint32_t)(w * 64) + bit;
    }
    return (uint32_t)(t->taken_words * 64);
}

static void set_free(struct etcd_buckets *t, uint32_t slot)
{
    t->taken[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    if (slot / 64 < t->low_word)
        t->low_word = slot / 64;
}

static uint32_t slots_for(enum etcd_bucket b)
{
    bool many = b == ETCD_BUCKET_USERS || b == ETCD_BUCKET_ROLES || b == ETCD_BUCKET_LEASES;

    return many ? ETCD_BUCKET_ROWS_MAX - ETCD_BUCKET_RESERVE : ETCD_BUCKET_ROWS_MAX;
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void set_bytes(struct etcd_bucket_row *r, struct bns_rcbuf *bytes)
{
    bns_rcbuf_put(r->bytes);
    r->bytes = bytes;
    r->skip.key = bytes->bytes + HEAD - 1;
    r->skip.key_len = 1 + bns_get_u32le(bytes->bytes);
}

/* A new row in a free slot; the reference is taken over when it works. */
static int insert(struct etcd_kv *kv, uint32_t slot, struct bns_rcbuf *bytes)
{
    struct etcd_buckets *t = &kv->buckets;
    uint8_t levels = bns_skip_draw_levels(&t->rows);
    struct etcd_bucket_row *r;
    int rv;

    if (make_words(kv, slot) != BNS_OK)
        return BNS_E_NOMEM;
    r = bns_alloc(kv->alloc, bns_skip_node_bytes(offsetof(struct etcd_bucket_row, skip), levels));
    if (r == NULL)
        return BNS_E_NOMEM;
    r->bytes = NULL;
    r->slot = slot;
    r->skip.levels = levels;
    set_bytes(r, bytes);
    rv = bns_skip_insert(&t->rows, &r->skip);
    if (rv != BNS_OK) {
        bns_free(kv->alloc, r);
        return rv;
    }
    t->taken[slot / 64] |= UINT64_C(1) << slot % 64;
    return BNS_OK;
}

static const struct etcd_bucket_row *find(const struct etcd_kv *kv, const struct bns_rcbuf *name)
{
    return row_of(bns_skip_find(&kv->buckets.rows,
                                bns_slice(name->bytes + HEAD - 1, 1 + bns_get_u32le(name->bytes))));
}

static int to_store(struct etcd_kv *kv, uint32_t slot, struct bns_rcbuf *bytes)
{
    struct etcd_row row = {0, ETCD_BUCKET_SUB + slot, bytes};

    kv->now.digest = etcd_digest_row(kv->now.digest, &row);
    return etcd_kv_push_row(kv, row.main, row.sub, bytes);
}

int etcd_bucket_put(struct etcd_kv *kv, enum etcd_bucket b, struct bns_slice key,
                    struct bns_slice value)
{
    struct bns_rcbuf *bytes = encode(kv, b, key, value);
    struct etcd_bucket_row *r;
    uint32_t slot;

    if (bytes == NULL)
        return BNS_E_NOMEM;
    r = (struct etcd_bucket_row *)find(kv, bytes);
    slot = r != NULL ? r->slot : lowest_free(&kv->buckets);
    if (r != NULL) {
        set_bytes(r, bytes);
    } else {
        int rv = slot < slots_for(b) ? insert(kv, slot, bytes) : BNS_E_TOOBIG;

        if (rv != BNS_OK) {
            bns_rcbuf_put(bytes);
            return rv;
        }
    }
    return to_store(kv, slot, bns_rcbuf_get(bytes));
}

bool etcd_bucket_room(struct etcd_kv *kv, enum etcd_bucket b, uint32_t rows)
{
    uint32_t at = lowest_free(&kv->buckets);

    for (; rows > 0 && at < slots_for(b); at++)
        rows -= !is_taken(&kv->buckets, at);
    return rows == 0;
}

int etcd_bucket_del(struct etcd_kv *kv, enum etcd_bucket b, struct bns_slice key)
{
    struct bns_rcbuf *name = encode(kv, b, key, bns_slice(NULL, 0));
    struct bns_rcbuf *nothing = bns_rcbuf_new(kv->alloc, 0);
    struct etcd_bucket_row *r = name == NULL ? NULL : (struct etcd_bucket_row *)find(kv, name);
    uint32_t slot;

    if (name == NULL || nothing == NULL || r == NULL) {
        int rv = name == NULL || nothing == NULL ? BNS_E_NOMEM : BNS_OK;

        bns_rcbuf_put(name);
        bns_rcbuf_put(nothing);
        return rv;
    }
    slot = r->slot;
    BNS_ASSERT(bns_skip_del(&kv->buckets.rows, bns_slice(r->skip.key, r->skip.key_len)) != NULL);
    set_free(&kv->buckets, slot);
    bns_rcbuf_put(r->bytes);
    bns_free(kv->alloc, r);
    bns_rcbuf_put(name);
    return to_store(kv, slot, nothing);
}

struct bns_slice etcd_bucket_get(const struct etcd_kv *kv, enum etcd_bucket b, struct bns_slice key)
{
    uint8_t name[1 + SEEK_BYTES] = {(uint8_t)b};
    size_t len = key.len < SEEK_BYTES ? key.len : SEEK_BYTES;
    const struct etcd_bucket_row *r;

    if (len > 0)
        memcpy(name + 1, key.ptr, len);
    r = row_of(bns_skip_seek(&kv->buckets.rows, bns_slice(name, 1 + len)));
    while (r != NULL && r->skip.key[0] == name[0]) { /* more than once only for very long keys */
        int c = bns_slice_cmp(etcd_bucket_key(r), key);

        if (c >= 0)
            return c == 0 ? etcd_bucket_value(r) : bns_slice(NULL, 0);
        r = row_of(bns_skip_next(&r->skip));
    }
    return bns_slice(NULL, 0);
}

const struct etcd_bucket_row *etcd_bucket_next(const struct etcd_kv *kv, enum etcd_bucket b,
                                               const struct etcd_bucket_row *after)
{
    const uint8_t first = (uint8_t)b;
    const struct etcd_bucket_row *r =
        after == NULL ? row_of(bns_skip_seek(&kv->buckets.rows, bns_slice(&first, 1)))
                      : row_of(bns_skip_next(&after->skip));

    return r == NULL || r->skip.key[0] != first ? NULL : r;
}

/* ---- the store's ---------------------------------------------------------------------------- */

void etcd_buckets_init(struct etcd_kv *kv)
{
    bns_skip_init(&kv->buckets.rows, kv->seed);
}

int etcd_buckets_row(struct etcd_kv *kv, uint32_t sub, struct bns_slice bytes)
{
    uint32_t slot = sub - ETCD_BUCKET_SUB;
    struct bns_rcbuf *copy;
    int rv;

    if (sub < ETCD_BUCKET_SUB)
        return BNS_OK; /* what members said of themselves before there were buckets: said again */
    if (slot >= ETCD_BUCKET_ROWS_MAX || is_taken(&kv->buckets, slot) || bytes.len < HEAD ||
        bns_get_u32le(bytes.ptr) > bytes.len - HEAD)
        return BNS_E_CORRUPT;
    copy = bns_rcbuf_copy(kv->alloc, bytes);
    if (copy == NULL)
        return BNS_E_NOMEM;
    rv = insert(kv, slot, copy);
    if (rv != BNS_OK)
        bns_rcbuf_put(copy);
    return rv == BNS_E_EXISTS ? BNS_E_CORRUPT : rv;
}

void etcd_buckets_clear(struct etcd_kv *kv)
{
    struct bns_skip_node *n = bns_skip_first(&kv->buckets.rows);

    while (n != NULL) {
        struct etcd_bucket_row *r = row_of(n);

        n = bns_skip_next(n);
        bns_rcbuf_put(r->bytes);
        bns_free(kv->alloc, r);
    }
    bns_free(kv->alloc, kv->buckets.taken);
    kv->buckets.taken = NULL;
    kv->buckets.taken_words = 0;
    kv->buckets.low_word = 0;
    etcd_buckets_init(kv);
}
