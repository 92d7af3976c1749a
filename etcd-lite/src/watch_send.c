/* watch_send.c - events and notes to the bytes of a WatchResponse.
 *
 *   WatchResponse{1:header 2:watch_id 3:created 4:canceled 5:compact_revision 6:cancel_reason
 *                 7:fragment 11:events*}     Event{1:type 2:kv 3:prev_kv}
 *
 * A KeyValue is sent as it is stored; of a tombstone only the key is stored, so mod_revision is put
 * behind it. The header is encoded once a revision, a short list of events once a batch: for ten
 * thousand watches on one key, a response is two copies of a few dozen bytes. Long responses are
 * slices of the stored buffers, with small pieces between them in one block of memory.
 */
#include "watch_impl.h"

enum { TAG_HEADER = 0x0a, TAG_ID = 0x10, TAG_CREATED = 0x18, TAG_CANCELED = 0x20 };
enum { TAG_COMPACT = 0x28, TAG_REASON = 0x32, TAG_FRAGMENT = 0x38, TAG_EVENT = 0x5a };
enum { TAG_TYPE = 0x08, TAG_KV = 0x12, TAG_PREV = 0x1a, TAG_MOD = 0x18 };

#define QUEUE_TIGHT (64u * 1024) /* as much as makes gRPC say later that it is writable */
#define TIGHT_NS (25 * BNS_MS)
#define NOTE_MAX (ETCD_WATCH_HEAD_MAX + 256)
#define PIECE_MAX 64u   /* bytes around the buffers of one event: tags, lengths, a revision */
#define INLINE_MAX 512u /* a shorter KeyValue is copied, a longer one becomes a slice */

static uint8_t *put_int(uint8_t *p, uint8_t tag, uint64_t v)
{
    if (v == 0)
        return p;
    *p++ = tag;
    return p + bns_varint_put(p, v);
}

static uint8_t *put_bytes(uint8_t *p, struct bns_slice s)
{
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return p + s.len;
}

struct bns_slice etcd_watch_head(struct etcd_watch_hub *h)
{
    int64_t rev = h->kv->now.revision;
    uint64_t term = h->cfg.raft_term == NULL ? 0 : *h->cfg.raft_term;
    uint8_t *p = h->head + 2; /* tag and length: the content is shorter than 128 bytes */

    if (h->head_revision == rev && h->head_term == term)
        return bns_slice(h->head, h->head_len);
    _Static_assert(ETCD_WATCH_HEAD_MAX >= 2 + 4 * (1 + BNS_VARINT_MAX), "room for four numbers");
    p = put_int(p, 0x08, h->cfg.cluster_id);
    p = put_int(p, 0x10, h->cfg.member_id);
    p = put_int(p, 0x18, (uint64_t)rev);
    p = put_int(p, 0x20, term);
    h->head[0] = TAG_HEADER;
    h->head[1] = (uint8_t)(p - h->head - 2);
    h->head_len = (size_t)(p - h->head);
    h->head_revision = rev;
    h->head_term = term;
    return bns_slice(h->head, h->head_len);
}

/* Looks how much the transport has queued. When all streams together have queued too much, each may
 * have its share of the bound, however many they are; one that has queued nothing always goes on,
 * so a client that reads is served. The transport does not tell when so little has been taken:
 * those are looked at again by a timer. */
bool etcd_watch_blocked(struct etcd_watch_stream *s)
{
    struct etcd_watch_hub *h = s->hub;
    size_t queued = s->out->queued(s->arg);
    size_t max = h->cfg.queue_bytes;
    bool tight;

    h->queued += queued - s->queued;
    s->queued = queued;
    tight = h->queued > h->cfg.queue_all_bytes;
    if (tight && max > QUEUE_TIGHT)
        max = QUEUE_TIGHT;
    if (tight && max > h->cfg.queue_all_bytes / h->streams_count)
        max = (size_t)(h->cfg.queue_all_bytes / h->streams_count) + 1;
    if (queued < max)
        return false;
    if (queued < QUEUE_TIGHT && h->tight.node.pos == 0 && !h->kv->stopping)
        bns_timer_start(h->kv->env, &h->tight, bns_now_ns(h->kv->env) + TIGHT_NS);
    return true;
}

void etcd_watch_tight(void *arg)
{
    struct etcd_watch_hub *h = arg;

    BNS_LIST_EACH(n, &h->streams)
    {
        struct etcd_watch_stream *s = BNS_CONTAINER(n, struct etcd_watch_stream, node);

        if (bns_list_empty(&s->blocked) || etcd_watch_blocked(s))
            continue;
        bns_list_splice(&h->queue, &s->blocked);
        etcd_watch_kick(h);
    }
}

bool etcd_watch_send_note(struct etcd_watch_stream *s, const struct etcd_watch_note *n)
{
    uint8_t buf[NOTE_MAX];
    struct bns_slice reason = bns_slice_str(n->reason == NULL ? "" : n->reason);
    uint8_t *p = put_bytes(buf, etcd_watch_head(s->hub));
    int rv;

    BNS_ASSERT(reason.len < 128);
    p = put_int(p, TAG_ID, (uint64_t)n->id);
    p = put_int(p, TAG_CREATED, n->created);
    p = put_int(p, TAG_CANCELED, n->canceled);
    p = put_int(p, TAG_COMPACT, (uint64_t)n->compact_revision);
    if (reason.len > 0) {
        *p++ = TAG_REASON;
        *p++ = (uint8_t)reason.len;
        p = put_bytes(p, reason);
    }
    BNS_ASSERT((size_t)(p - buf) <= sizeof buf);
    rv = s->failed ? BNS_E_OFF : s->out->send_copy(s->arg, bns_slice(buf, (size_t)(p - buf)));
    if (rv != BNS_OK && rv != BNS_E_OFF)
        etcd_watch_fail(s, 8, "etcdserver: too many requests");
    return rv == BNS_OK;
}

/* ---- events --------------------------------------------------------------------------------- */

/* Lengths of one event's parts. */
struct shape {
    size_t kv, prev, event; /* contents; prev 0: none */
    size_t total;           /* as a field of the response */
};

static size_t field_len(size_t content)
{
    return 1 + bns_varint_len(content) + content;
}

static struct shape measure(const struct etcd_watch_event *e, bool prev)
{
    struct shape s = {.kv = e->kv->len};

    if (e->dead)
        s.kv += 1 + bns_varint_len((uint64_t)e->main);
    if (prev && e->prev != NULL)
        s.prev = e->prev->len;
    s.event = (e->dead ? 2u : 0u) + field_len(s.kv) + (s.prev > 0 ? field_len(s.prev) : 0);
    s.total = field_len(s.event);
    return s;
}

/* A response being written: small pieces go one behind the other into `p`, longer buffers become
 * slices between them. */
struct writer {
    uint8_t *p, *start;       /* of the piece that is open */
    struct bns_slice *slices; /* NULL: all is copied */
    size_t slices_count;
    struct bns_rcbuf **refs;
    size_t refs_count;
};

static void close_piece(struct writer *w)
{
    if (w->p > w->start)
        w->slices[w->slices_count++] = bns_slice(w->start, (size_t)(w->p - w->start));
    w->start = w->p;
}

static bool is_sliced(const struct bns_rcbuf *b)
{
    return b->len > INLINE_MAX;
}

static void write_buf(struct writer *w, struct bns_rcbuf *b)
{
    if (w->slices == NULL || !is_sliced(b)) {
        w->p = put_bytes(w->p, bns_rcbuf_slice(b));
        return;
    }
    close_piece(w);
    w->slices[w->slices_count++] = bns_rcbuf_slice(b);
    w->refs[w->refs_count++] = bns_rcbuf_get(b);
}

static void write_len(struct writer *w, uint8_t tag, size_t len)
{
    *w->p++ = tag;
    w->p += bns_varint_put(w->p, len);
}

static void write_event(struct writer *w, const struct etcd_watch_event *e, bool prev)
{
    struct shape s = measure(e, prev);

    write_len(w, TAG_EVENT, s.event);
    w->p = put_int(w->p, TAG_TYPE, e->dead);
    write_len(w, TAG_KV, s.kv);
    write_buf(w, e->kv);
    if (e->dead)
        w->p = put_int(w->p, TAG_MOD, (uint64_t)e->main);
    if (s.prev > 0) {
        write_len(w, TAG_PREV, s.prev);
        write_buf(w, e->prev);
    }
}

static bool wants(const struct etcd_watch *w, const struct etcd_watch_event *e)
{
    return e->main >= w->next && !(e->dead ? w->no_delete : w->no_put);
}

/* What precedes the events; returns its end. buf has NOTE_MAX bytes. */
static uint8_t *begin(struct etcd_watch *w, uint8_t *buf, bool fragment)
{
    uint8_t *p = put_bytes(buf, etcd_watch_head(w->stream->hub));

    p = put_int(p, TAG_ID, (uint64_t)w->id);
    return put_int(p, TAG_FRAGMENT, fragment);
}

/* All events of a batch, short and wanted by all: encoded once. */
static int send_body(struct etcd_watch_batch *b, struct etcd_watch *w, size_t len)
{
    uint8_t buf[NOTE_MAX + ETCD_WATCH_COPY_MAX];
    uint8_t *body = b->body[w->prev_kv];
    uint8_t *p = begin(w, buf, false);

    if (b->body_len[w->prev_kv] == 0) {
        struct writer x = {.p = body, .start = body};
        for (size_t i = 0; i < b->count; i++)
            write_event(&x, &b->events[i], w->prev_kv);
        b->body_len[w->prev_kv] = (size_t)(x.p - body);
    }
    BNS_ASSERT(b->body_len[w->prev_kv] == len);
    p = put_bytes(p, bns_slice(body, len));
    return w->stream->out->send_copy(w->stream->arg, bns_slice(buf, (size_t)(p - buf)));
}

/* A long response: slices, references, small pieces, in one block. */
struct message {
    const struct bns_alloc *alloc;
    size_t refs_count;
    struct bns_rcbuf *refs[];
};

static void release(void *arg, int code)
{
    struct message *m = arg;

    (void)code; /* sent or not: the buffers are not needed any more */
    for (size_t i = 0; i < m->refs_count; i++)
        bns_rcbuf_put(m->refs[i]);
    bns_free(m->alloc, m);
}

struct span {
    size_t first, last; /* events [first, last) of the batch */
    size_t count;       /* of them are wanted */
    size_t bytes;       /* with their tags */
    size_t copied;      /* of these not in slices */
    size_t slices;
};

static void widen(struct span *s, const struct etcd_watch_event *e, const struct shape *shape,
                  bool prev)
{
    size_t sliced = 0;

    if (is_sliced(e->kv)) {
        sliced += e->kv->len;
        s->slices++;
    }
    if (prev && shape->prev > 0 && is_sliced(e->prev)) {
        sliced += e->prev->len;
        s->slices++;
    }
    s->count++;
    s->bytes += shape->total;
    s->copied += shape->total - sliced;
}

static int send_span(struct etcd_watch_batch *b, struct etcd_watch *w, const struct span *s,
                     bool fragment)
{
    const struct bns_alloc *a = w->stream->hub->kv->alloc;
    size_t slices_max = 2 * s->slices + 1;
    size_t fixed = sizeof(struct message) + s->slices * sizeof(struct bns_rcbuf *);
    size_t bytes = fixed + slices_max * sizeof(struct bns_slice) + NOTE_MAX + s->copied + PIECE_MAX;
    struct message *m = bns_alloc(a, bytes);
    struct writer x = {0};
    int rv;

    if (m == NULL)
        return BNS_E_NOMEM;
    m->alloc = a;
    x.refs = m->refs;
    x.slices = (struct bns_slice *)(void *)((uint8_t *)m + fixed);
    x.start = (uint8_t *)(x.slices + slices_max);
    x.p = begin(w, x.start, fragment);
    for (size_t i = s->first; i < s->last; i++) {
        if (wants(w, &b->events[i]))
            write_event(&x, &b->events[i], w->prev_kv);
    }
    close_piece(&x);
    BNS_ASSERT(x.p <= (uint8_t *)m + bytes);
    BNS_ASSERT(x.slices_count <= slices_max);
    m->refs_count = x.refs_count;
    rv = w->stream->out->send(w->stream->arg, x.slices, x.slices_count, release, m);
    if (rv != BNS_OK)
        release(m, rv);
    return rv;
}

/* The events from `first` on that go into one response: all, or as many as a fragment takes. */
static struct span choose(struct etcd_watch_batch *b, struct etcd_watch *w, size_t first)
{
    size_t max = w->fragment ? w->stream->hub->cfg.fragment_bytes : SIZE_MAX;
    struct span s = {.first = first, .last = first};

    for (; s.last < b->count; s.last++) {
        const struct etcd_watch_event *e = &b->events[s.last];
        struct shape shape;
        if (!wants(w, e))
            continue;
        shape = measure(e, w->prev_kv);
        if (s.count > 0 && s.bytes + shape.total + ETCD_WATCH_HEAD_MAX >= max)
            break;
        widen(&s, e, &shape, w->prev_kv);
    }
    return s;
}

static void count_events(struct etcd_watch_hub *h, size_t n)
{
    h->events += n;
    bns_counter_add(h->m_events, n);
}

int etcd_watch_send_events(struct etcd_watch_batch *b, struct etcd_watch *w)
{
    struct etcd_watch_hub *h = w->stream->hub;
    struct span s = choose(b, w, 0);
    int rv = BNS_OK;

    if (s.count == 0)
        return BNS_OK;
    if (s.count == b->count && s.bytes <= ETCD_WATCH_COPY_MAX) {
        rv = send_body(b, w, s.bytes);
        count_events(h, rv == BNS_OK ? s.count : 0);
        return rv;
    }
    while (rv == BNS_OK && s.count > 0) {
        struct span rest = choose(b, w, s.last);
        rv = send_span(b, w, &s, rest.count > 0);
        count_events(h, rv == BNS_OK ? s.count : 0);
        if (rv == BNS_E_NOMEM && s.first > 0) { /* a part is out: it cannot be said again */
            etcd_watch_fail(w->stream, 8, "etcdserver: too many requests");
            return BNS_E_OFF;
        }
        s = rest;
    }
    return rv;
}
