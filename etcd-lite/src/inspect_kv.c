/* inspect_kv.c - the key index, the leases and the watches, page by page.
 *
 * Bounds: a page of the index walks at most `limit` keys and REVS_MAX of their revisions (a key
 * with more than KEY_REVS_MAX is estimated from its newest ones, and says so). Leases and streams
 * lie in hash maps: their pages go by slots (bns_hmap_scan), at most SLOTS_MAX a page, since a map
 * that was large once stays so. A page of watches has at most WATCHES_MAX of them.
 */
#include "inspect.h"

#include "codec/base64.h"
#include "kv_impl.h"
#include "watch_impl.h"

#define KEY_REVS_MAX 1024u
#define REVS_MAX 262144u
#define SLOTS_MAX 65536u
#define WATCHES_MAX 10000u

typedef unsigned long long ull;

int etcd_inspect_bytes(struct bns_buf *out, const char *name, struct bns_slice v)
{
    bool cut = v.len > ETCD_INSPECT_KEY_MAX;
    int rv = bns_buf_fmt(out, "\"%s\":\"", name);

    if (rv == BNS_OK)
        rv = bns_base64_encode(out, bns_slice(v.ptr, cut ? ETCD_INSPECT_KEY_MAX : v.len), true);
    if (rv == BNS_OK)
        rv = bns_buf_byte(out, '"');
    return rv == BNS_OK && cut ? bns_buf_fmt(out, ",\"%s_len\":%zu", name, v.len) : rv;
}

int etcd_inspect_text(struct bns_buf *out, struct bns_slice text)
{
    int rv = bns_buf_byte(out, '"');

    for (size_t i = 0; rv == BNS_OK && i < text.len; i++) {
        uint8_t c = text.ptr[i];

        if (c == '"' || c == '\\')
            rv = bns_buf_fmt(out, "\\%c", c);
        else if (c < 0x20)
            rv = bns_buf_fmt(out, "\\u%04x", c);
        else
            rv = bns_buf_byte(out, c);
    }
    return rv == BNS_OK ? bns_buf_byte(out, '"') : rv;
}

/* ---- the index ------------------------------------------------------------------------------ */

struct large {
    const struct etcd_key *key;
    uint64_t bytes;
};

struct walk {
    struct large top[ETCD_INSPECT_TOP_MAX];
    uint32_t top_count, top_cap;
    uint64_t keys, revs;
    const struct etcd_key *next; /* where the next page begins; NULL: none */
};

/* Of all revisions that the store holds; an estimate beyond KEY_REVS_MAX of them. */
static uint64_t key_bytes(const struct etcd_key *k)
{
    uint32_t looked = k->count < KEY_REVS_MAX ? k->count : KEY_REVS_MAX;
    uint64_t sum = 0;

    for (uint32_t i = k->count - looked; i < k->count; i++)
        sum += etcd_rev_bytes(&k->revs[i]);
    return looked < k->count ? sum / looked * k->count : sum;
}

static void keep_large(struct walk *w, const struct etcd_key *k)
{
    struct large is = {k, key_bytes(k)};
    uint32_t i = w->top_count;

    if (w->top_count < w->top_cap)
        w->top_count++;
    else if (w->top_cap == 0 || w->top[--i].bytes >= is.bytes)
        return;
    for (; i > 0 && w->top[i - 1].bytes < is.bytes; i--)
        w->top[i] = w->top[i - 1];
    w->top[i] = is;
}

static void walk_page(const struct etcd_kv *kv, const struct etcd_inspect_page *p, struct walk *w)
{
    static const struct bns_slice all = {(const uint8_t *)"", 1};
    const struct etcd_key *k = p->from.len == 0 ? etcd_index_first(&kv->index, all, all)
                                                : etcd_index_seek(&kv->index, p->from);

    w->top_cap = p->top;
    while (k != NULL && w->keys < p->limit && w->revs < REVS_MAX) {
        keep_large(w, k);
        w->keys++;
        w->revs += k->count < KEY_REVS_MAX ? k->count : KEY_REVS_MAX;
        k = etcd_index_next(k, all);
    }
    w->next = k;
}

static int put_key(const struct large *is, struct bns_buf *out)
{
    const struct etcd_rev *newest = &is->key->revs[is->key->count - 1];
    int rv = bns_buf_byte(out, '{');

    if (rv == BNS_OK)
        rv = etcd_inspect_bytes(out, "key", etcd_key_bytes(is->key));
    if (rv != BNS_OK)
        return rv;
    return bns_buf_fmt(out,
                       ",\"bytes\":%llu,\"estimated\":%s,\"revisions\":%u,\"create_revision\":%lld,"
                       "\"mod_revision\":%lld,\"version\":%lld,\"deleted\":%s,\"leased\":%s}",
                       (ull)is->bytes, is->key->count > KEY_REVS_MAX ? "true" : "false",
                       is->key->count, (long long)newest->create, (long long)newest->main,
                       (long long)newest->version, etcd_rev_dead(newest) ? "true" : "false",
                       (newest->size & ETCD_REV_LEASE) != 0 ? "true" : "false");
}

/* Where the next page begins. It has to fit into a URL: of a key that is too long for one it is
 * what fits, and when that is where this page began, what comes behind all keys that begin so. */
static int put_next(const struct etcd_key *k, struct bns_slice from, struct bns_buf *out)
{
    struct bns_slice key = etcd_key_bytes(k);
    uint8_t cut[ETCD_INSPECT_KEY_MAX];
    size_t len = key.len < sizeof cut ? key.len : sizeof cut;
    int rv;

    memcpy(cut, key.ptr, len);
    if (key.len > sizeof cut && bns_slice_cmp(bns_slice(cut, len), from) <= 0) {
        while (len > 0 && cut[len - 1] == 0xff)
            len--;
        if (len == 0)
            return BNS_OK; /* nothing comes behind these */
        cut[len - 1]++;
    }
    rv = etcd_inspect_bytes(out, "next", bns_slice(cut, len));
    return rv == BNS_OK ? bns_buf_byte(out, ',') : rv;
}

int etcd_inspect_index(const struct etcd_kv *kv, const struct etcd_inspect_page *p,
                       struct bns_buf *out)
{
    struct walk w = {.keys = 0};
    int rv;

    BNS_ASSERT(p->top <= ETCD_INSPECT_TOP_MAX);
    walk_page(kv, p, &w);
    rv = bns_buf_fmt(out,
                     "{\"revision\":%lld,\"compacted\":%lld,\"keys\":%llu,\"alive\":%llu,"
                     "\"revisions\":%llu,\"bytes\":%llu,\"depth\":%u,\"looked_at\":%llu,",
                     (long long)kv->now.revision, (long long)kv->now.compact_scheduled,
                     (ull)kv->index.list.count, (ull)kv->index.alive, (ull)kv->index.revs,
                     (ull)kv->index.bytes, kv->index.list.levels, (ull)w.keys);
    if (rv == BNS_OK && w.next != NULL)
        rv = put_next(w.next, p->from, out);
    if (rv == BNS_OK)
        rv = bns_buf_str(out, "\"largest\":[");
    for (uint32_t i = 0; rv == BNS_OK && i < w.top_count; i++) {
        if (i > 0)
            rv = bns_buf_byte(out, ',');
        if (rv == BNS_OK)
            rv = put_key(&w.top[i], out);
    }
    return rv == BNS_OK ? bns_buf_str(out, "]}") : rv;
}

/* ---- pages of hash maps --------------------------------------------------------------------- */

struct scan {
    const struct etcd_kv *kv;
    struct bns_buf *out;
    uint64_t now_ns;
    uint32_t count;   /* so far, of this page */
    uint32_t watches; /* likewise, of all streams */
    uint32_t top;
    int rv;
};

/* Appends "next":..., "name":[...]}, the elements by fn. */
static int scan_page(struct scan *s, const struct bns_hmap *m, const struct etcd_inspect_page *p,
                     const char *name, void (*fn)(void *arg, struct bns_hnode *n))
{
    uint64_t cursor = p->cursor;
    uint32_t slots = 0;
    int rv = bns_buf_fmt(s->out, "\"%s\":[", name);

    s->top = p->top;
    s->rv = rv;
    do {
        cursor = bns_hmap_scan(m, cursor, fn, s);
    } while (cursor != 0 && s->rv == BNS_OK && s->count < p->limit && ++slots < SLOTS_MAX &&
             s->watches < WATCHES_MAX);
    rv = s->rv;
    if (rv == BNS_OK)
        rv = bns_buf_byte(s->out, ']');
    if (rv == BNS_OK && cursor != 0)
        rv = bns_buf_fmt(s->out, ",\"next\":\"%llu\"", (ull)cursor);
    return rv == BNS_OK ? bns_buf_byte(s->out, '}') : rv;
}

/* ---- leases --------------------------------------------------------------------------------- */

static void put_lease(void *arg, struct bns_hnode *n)
{
    const struct etcd_lease *e = BNS_CONTAINER(n, struct etcd_lease, node);
    struct scan *s = arg;

    if (s->rv == BNS_OK)
        s->rv = bns_buf_fmt(s->out,
                            "%s{\"id\":\"%llx\",\"ttl\":%lld,\"keys\":%zu,\"checkpoint\":%lld,"
                            "\"revoking\":%s",
                            s->count++ == 0 ? "" : ",", (ull)e->id, (long long)e->ttl,
                            e->keys_count, (long long)e->saved, e->revoking ? "true" : "false");
    if (s->rv == BNS_OK && s->kv->leases.lessor.primary)
        s->rv = bns_buf_fmt(s->out, ",\"remaining\":%lld",
                            (long long)etcd_lease_remaining(e, s->now_ns));
    if (s->rv == BNS_OK)
        s->rv = bns_buf_byte(s->out, '}');
}

int etcd_inspect_leases(const struct etcd_kv *kv, const struct etcd_inspect_page *p,
                        uint64_t now_ns, struct bns_buf *out)
{
    const struct etcd_lessor *l = &kv->leases.lessor;
    struct scan s = {.kv = kv, .out = out, .now_ns = now_ns};
    int rv =
        bns_buf_fmt(out, "{\"count\":%zu,\"keys\":%zu,\"checkpoints\":%zu,\"clock_runs_here\":%s,",
                    l->leases.count, l->keys.count, l->saved_count, l->primary ? "true" : "false");

    return rv == BNS_OK ? scan_page(&s, &l->leases, p, "leases", put_lease) : rv;
}

/* ---- watches -------------------------------------------------------------------------------- */

static int64_t behind_by(const struct etcd_watch *w)
{
    int64_t by = w->stream->hub->revision + 1 - w->next;

    return w->behind && by > 0 ? by : 0;
}

static int put_watch_of(struct bns_buf *out, const struct etcd_watch *w, bool first)
{
    int rv = bns_buf_fmt(out, "%s{\"id\":%lld,\"next_revision\":%lld,\"behind_by\":%lld",
                         first ? "" : ",", (long long)w->id, (long long)w->next,
                         (long long)behind_by(w));

    if (rv == BNS_OK && w->target != NULL)
        rv = bns_buf_byte(out, ',');
    if (rv == BNS_OK && w->target != NULL)
        rv = etcd_inspect_bytes(out, "key", w->target->key);
    if (rv == BNS_OK && w->target != NULL && w->target->range)
        rv = bns_buf_byte(out, ',');
    if (rv == BNS_OK && w->target != NULL && w->target->range)
        rv = etcd_inspect_bytes(out, "range_end",
                                w->target->open ? bns_slice("", 1) : w->target->end);
    return rv == BNS_OK ? bns_buf_byte(out, '}') : rv;
}

static void put_watch(void *arg, struct bns_hnode *n)
{
    struct scan *s = arg;

    if (s->rv == BNS_OK)
        s->rv = put_watch_of(s->out, BNS_CONTAINER(n, struct etcd_watch, by_id), s->count++ == 0);
}

/* A stream without its watches and without the closing brace. */
static int put_stream_head(struct bns_buf *out, const struct etcd_watch_stream *t)
{
    struct bns_net_addr to = {.port = 0};

    if (t->out->peer != NULL)
        t->out->peer(t->arg, &to);
    return bns_buf_fmt(out,
                       "{\"stream\":%llu,\"client\":\"%s%s%.0u\",\"watches\":%zu,\"behind\":%zu,"
                       "\"queued_bytes\":%zu,",
                       (ull)t->number, to.port == 0 ? "this member" : to.host,
                       to.port == 0 ? "" : ":", to.port, t->watches.count, t->behind,
                       t->out->queued(t->arg));
}

static void put_stream(void *arg, struct bns_hnode *n)
{
    const struct etcd_watch_stream *t = BNS_CONTAINER(n, struct etcd_watch_stream, by_number);
    struct scan *s = arg;
    uint32_t shown = 0;

    if (s->rv == BNS_OK && s->count++ > 0)
        s->rv = bns_buf_byte(s->out, ',');
    if (s->rv == BNS_OK)
        s->rv = put_stream_head(s->out, t);
    if (s->rv == BNS_OK)
        s->rv = bns_buf_str(s->out, "\"some\":[");
    BNS_LIST_EACH(i, &t->all)
    {
        if (s->rv != BNS_OK || shown == s->top || s->watches >= WATCHES_MAX)
            break;
        s->rv = put_watch_of(s->out, BNS_CONTAINER(i, struct etcd_watch, all), shown++ == 0);
        s->watches++;
    }
    if (s->rv == BNS_OK)
        s->rv = bns_buf_str(s->out, "]}");
}

static const struct etcd_watch_stream *find_stream(const struct etcd_watch_hub *h, uint64_t number)
{
    struct bns_hnode *n = bns_hmap_find(&h->numbered, bns_hash_u64(h->index.seed, number));

    while (n != NULL && BNS_CONTAINER(n, struct etcd_watch_stream, by_number)->number != number)
        n = bns_hmap_find_next(n);
    return n == NULL ? NULL : BNS_CONTAINER(n, struct etcd_watch_stream, by_number);
}

int etcd_inspect_watchers(const struct etcd_kv *kv, const struct etcd_inspect_page *p,
                          struct bns_buf *out)
{
    const struct etcd_watch_hub *h = kv->watch;
    const struct etcd_watch_stream *t = p->stream == 0 ? NULL : find_stream(h, p->stream);
    struct scan s = {.kv = kv, .out = out};
    int rv;

    if (t != NULL) {
        rv = put_stream_head(out, t);
        return rv == BNS_OK ? scan_page(&s, &t->watches, p, "watchers", put_watch) : rv;
    }
    if (p->stream != 0)
        return BNS_E_NOTFOUND;
    rv = bns_buf_fmt(out,
                     "{\"revision\":%lld,\"count\":%zu,\"watches\":%zu,\"behind\":%zu,"
                     "\"queued_bytes\":%llu,\"reads_under_way\":%zu,\"events_sent\":%llu,",
                     (long long)h->revision, h->streams_count, h->watches, h->behind,
                     (ull)h->queued, h->flying_count, (ull)h->events);
    return rv == BNS_OK ? scan_page(&s, &h->numbered, p, "streams", put_stream) : rv;
}
