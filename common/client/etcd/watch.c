/* watch.c - see watch.h.
 *
 * One gRPC stream a watch; all streams of a client share its connection. `next` is all there is to
 * remember: the lowest revision of which no event was told yet. It moves with events, with the
 * answer that creates a watch "from now", and with progress.
 *
 * Fragments are asked for: without them a server that catches up puts a thousand revisions into one
 * response, of any size. A fragment may end in the middle of a revision. The events of its last
 * revision are held until the next fragment shows that they were all; so each call of on_events has
 * whole revisions, and a resumption at `next` neither splits nor repeats one. What is held are
 * decoded messages in an arena; when a later revision begins, its message is decoded once more into
 * an arena of its own, and the old one goes. What is held are events of one revision, in an array
 * that doubles: a revision of n events in any number of fragments costs O(n), in time and memory.
 * A revision larger than HELD_MAX, or a message that gRPC refuses for its size, ends the watch: it
 * would be as large the next time.
 */
#include "client/etcd/watch.h"

#include "client/etcd/etcd_int.h"

#define TICK_NS (5 * BNS_SEC)
#define MISSED_MAX 3u
#define HELD_MAX BNS_ETCD_ANSWER_MAX /* bytes of messages */

struct bns_etcd_watch {
    struct bns_etcd *c;
    struct bns_etcd_stream *stream; /* NULL: between two */
    struct bns_timer timer; /* with a stream: the next look at its silence; without: retry */
    const struct bns_etcd_watch_handler *h;
    void *arg;
    Etcdserverpb__WatchCreateRequest req;
    Etcdserverpb__ResponseHeader header; /* of the last message */
    int64_t next;                        /* 0: not known yet */
    unsigned tries, missed;
    bool trust, created, here; /* created: once; here: on this stream */
    bool heard, busy, closed;
    bool off;              /* the owner reads nothing */
    bool wanted;           /* the owner has asked for progress */
    struct bns_arena held; /* events of a revision of which more is to come */
    Etcdserverpb__Event **events;
    size_t events_count, events_room, held_bytes;
    uint8_t bytes[]; /* key and end */
};

static void reopen(struct bns_etcd_watch *w);

static void drop_held(struct bns_etcd_watch *w)
{
    bns_arena_free(&w->held);
    bns_free(w->c->env->alloc, w->events);
    w->events = NULL;
    w->events_count = w->events_room = w->held_bytes = 0;
}

static void free_watch(struct bns_etcd_watch *w)
{
    bns_timer_stop(w->c->env, &w->timer);
    if (w->stream != NULL)
        bns_etcd_stream_close(w->stream);
    drop_held(w);
    bns_free(w->c->env->alloc, w);
}

/* A callback has returned: what it has closed goes. */
static bool gone(struct bns_etcd_watch *w)
{
    bool closed = w->closed;

    w->busy = false;
    if (closed)
        free_watch(w);
    return closed;
}

static void finish(struct bns_etcd_watch *w, int status, const char *text, int64_t compacted)
{
    const struct bns_etcd_watch_handler *h = w->h;
    void *arg = w->arg;

    w->busy = true; /* a close from inside does no harm */
    h->on_end(arg, status, text, compacted);
    free_watch(w);
}

static void ask(struct bns_etcd_watch *w)
{
    Etcdserverpb__WatchRequest req = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;

    req.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    req.progress_request = &progress;
    if (w->stream != NULL) {
        int rv = bns_etcd_stream_send(w->stream, &req.base);
        (void)rv; /* if not, the next look asks again */
    }
}

static void on_timer(void *arg)
{
    struct bns_etcd_watch *w = arg;

    if (w->stream == NULL) {
        reopen(w);
        return;
    }
    bns_timer_start(w->c->env, &w->timer, bns_now_ns(w->c->env) + TICK_NS);
    w->missed = w->heard || w->off ? 0 : w->missed + 1;
    if (w->missed >= MISSED_MAX)
        bns_etcd_stream_suspect(w->stream);
    else if (!w->heard && !w->off)
        ask(w);
    w->heard = false;
}

/* ---- what a server says ---------------------------------------------------------------------- */

static int64_t revision_of(const Etcdserverpb__WatchResponse *r)
{
    return r->header == NULL ? 0 : r->header->revision;
}

/* False: the watch is gone. */
static bool created(struct bns_etcd_watch *w, const Etcdserverpb__WatchResponse *r)
{
    w->tries = 0;
    w->here = true;
    if (w->next == 0)
        w->next = revision_of(r) + 1;
    if (w->created)
        return true;
    w->created = true;
    if (w->h->on_created == NULL)
        return true;
    w->busy = true;
    w->h->on_created(w->arg, revision_of(r));
    return !gone(w);
}

/* The token was too old, or a server that does not know it yet: a new one, and again. */
static bool token_helps(struct bns_etcd_watch *w, const char *reason)
{
    return w->c->user != NULL && w->stream != NULL &&
           strstr(reason, "etcdserver: invalid auth token") != NULL &&
           bns_etcd_token_bad(w->c, w->stream->token_gen, BNS_GRPC_UNAUTHENTICATED, reason);
}

static void later(struct bns_etcd_watch *w)
{
    bns_timer_start(w->c->env, &w->timer,
                    bns_now_ns(w->c->env) + bns_etcd_backoff_ns(w->c, ++w->tries));
}

static void canceled(struct bns_etcd_watch *w, const Etcdserverpb__WatchResponse *r)
{
    const char *reason = r->cancel_reason == NULL ? "" : r->cancel_reason;

    if (r->compact_revision > 0) {
        finish(w, BNS_GRPC_OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted",
               r->compact_revision);
    } else if (token_helps(w, reason)) {
        bns_etcd_stream_close(w->stream);
        w->stream = NULL;
        later(w);
    } else {
        finish(w,
               strstr(reason, "permission denied") != NULL ? BNS_GRPC_PERMISSION_DENIED
                                                           : BNS_GRPC_CANCELLED,
               reason[0] == '\0' ? "etcdserver: watch canceled" : reason, 0);
    }
}

/* False: the watch is gone. */
static bool events(struct bns_etcd_watch *w, Etcdserverpb__WatchResponse *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->n_events; i++) {
        const Etcdserverpb__KeyValue *kv = r->events[i]->kv;

        if (kv != NULL && kv->mod_revision >= w->next)
            r->events[kept++] = r->events[i];
    }
    r->n_events = kept;
    if (kept == 0)
        return true;
    w->next = r->events[kept - 1]->kv->mod_revision + 1;
    w->busy = true;
    w->h->on_events(w->arg, r);
    return !gone(w);
}

static int64_t mod_of(const Etcdserverpb__Event *e)
{
    return e->kv == NULL ? 0 : e->kv->mod_revision;
}

/* Room for `count` events. */
static bool room(struct bns_etcd_watch *w, size_t count)
{
    size_t want = w->events_room == 0 ? 16 : w->events_room;
    Etcdserverpb__Event **all;

    if (count <= w->events_room)
        return true;
    while (want < count)
        want *= 2; /* count is bounded by the bytes of messages that are held */
    all = bns_resize(w->c->env->alloc, w->events, want * sizeof *all);
    if (all == NULL)
        return false;
    w->events = all;
    w->events_room = want;
    return true;
}

/* Decodes the message into the arena of what is held, behind the events that are held already. */
static Etcdserverpb__WatchResponse *hold(struct bns_etcd_watch *w, struct bns_slice msg)
{
    Etcdserverpb__WatchResponse *r;
    ProtobufCMessage *m;

    if (bns_etcd_unpack(BNS_ETCD_WATCH, msg, &w->held, &m) != BNS_OK)
        return NULL;
    r = (void *)m;
    if (!room(w, w->events_count + r->n_events))
        return NULL;
    if (r->n_events > 0)
        memcpy(w->events + w->events_count, r->events, r->n_events * sizeof *r->events);
    w->held_bytes += msg.len;
    w->events_count += r->n_events;
    r->events = w->events;
    r->n_events = w->events_count;
    return r;
}

/* From the last revision that was told, on another stream. */
static void once_more(struct bns_etcd_watch *w)
{
    bns_etcd_stream_close(w->stream);
    w->stream = NULL;
    later(w);
}

/* A fragment, or what comes behind one: tells the revisions that are whole, holds the rest. */
static void piece(struct bns_etcd_watch *w, struct bns_slice msg)
{
    size_t before = w->events_count, count, cut, skip = 0;
    Etcdserverpb__WatchResponse *r = hold(w, msg);
    int64_t last;

    if (r == NULL) {
        if (w->events_count > 0 && w->held_bytes + msg.len > HELD_MAX) /* as many the next time */
            finish(w, BNS_GRPC_RESOURCE_EXHAUSTED, "the events of one revision are too large", 0);
        else
            once_more(w);
        return;
    }
    count = cut = r->n_events;
    last = count == 0 ? 0 : mod_of(r->events[count - 1]);
    while (r->fragment && cut > before && mod_of(r->events[cut - 1]) == last)
        cut--;
    if (r->fragment && cut == before && before > 0 && mod_of(r->events[0]) == last)
        cut = 0; /* what was held is of one revision: that of this message */
    r->n_events = cut;
    if (cut > 0 && !events(w, r))
        return;
    if (cut == count) {
        drop_held(w);
    } else if (cut > 0) { /* the rest lies in this message */
        drop_held(w);
        r = hold(w, msg);
        if (r == NULL) {
            once_more(w);
            return;
        }
        while (skip < w->events_count && mod_of(w->events[skip]) < last)
            skip++;
        w->events_count -= skip;
        memmove(w->events, w->events + skip, w->events_count * sizeof *w->events);
    } else if (w->held_bytes > HELD_MAX) {
        finish(w, BNS_GRPC_RESOURCE_EXHAUSTED, "the events of one revision are too large", 0);
    }
}

static void progress(struct bns_etcd_watch *w, const Etcdserverpb__WatchResponse *r)
{
    int64_t revision = revision_of(r);

    if (!w->here || revision + 1 < w->next || w->events_count > 0 ||
        (r->watch_id == -1 && !w->trust && !w->wanted))
        return;
    if (r->watch_id != -1 || w->trust)
        w->next = revision + 1;
    w->wanted = false;
    if (w->h->on_progress == NULL)
        return;
    w->busy = true;
    w->h->on_progress(w->arg, revision);
    (void)gone(w);
}

static void on_message(void *arg, struct bns_slice msg)
{
    struct bns_etcd_watch *w = arg;
    Etcdserverpb__WatchResponse *r;
    ProtobufCMessage *m;
    struct bns_arena arena;
    uint8_t space[2048];

    w->heard = true;
    bns_arena_init(&arena, w->c->env->alloc, 4u * BNS_ETCD_ANSWER_MAX);
    bns_arena_lend(&arena, space, sizeof space);
    if (bns_etcd_unpack(BNS_ETCD_WATCH, msg, &arena, &m) != BNS_OK) {
        once_more(w); /* no memory, or not etcd */
        bns_arena_free(&arena);
        return;
    }
    r = (void *)m;
    etcdserverpb__response_header__init(&w->header);
    if (r->header != NULL) {
        w->header = *r->header;
        w->header.base.n_unknown_fields = 0; /* these lie in the arena */
        w->header.base.unknown_fields = NULL;
    }
    if (r->canceled)
        canceled(w, r);
    else if (r->created)
        (void)created(w, r);
    else if (r->n_events > 0 && (r->fragment || w->events_count > 0))
        piece(w, msg);
    else if (r->n_events > 0)
        (void)events(w, r);
    else
        progress(w, r);
    bns_arena_free(&arena);
}

static void on_end(void *arg, int status, const char *text)
{
    struct bns_etcd_watch *w = arg;
    bool large = status == BNS_GRPC_RESOURCE_EXHAUSTED && strstr(text, "larger than max") != NULL;
    bool passes = status == BNS_GRPC_UNAVAILABLE || status == BNS_GRPC_INTERNAL ||
                  (status == BNS_GRPC_RESOURCE_EXHAUSTED && !large) || status == BNS_GRPC_OK ||
                  status == BNS_GRPC_DEADLINE_EXCEEDED ||
                  (status == BNS_GRPC_UNAUTHENTICATED && w->c->user != NULL);

    w->stream = NULL;
    if (passes)
        later(w);
    else
        finish(w, status, text, 0);
}

static const struct bns_etcd_stream_handler handler = {.on_message = on_message, .on_end = on_end};

static void reopen(struct bns_etcd_watch *w)
{
    Etcdserverpb__WatchRequest req = ETCDSERVERPB__WATCH_REQUEST__INIT;
    const struct bns_etcd_stream_options o = {
        .method = BNS_ETCD_WATCH, .first = &req.base, .handler = &handler, .arg = w};

    w->req.has_start_revision = w->next > 0;
    w->req.start_revision = w->next;
    req.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    req.create_request = &w->req;
    w->heard = w->here = false;
    w->missed = 0;
    drop_held(w);
    if (bns_etcd_stream_open(w->c, &o, &w->stream) == BNS_OK) {
        bns_etcd_stream_read(w->stream, !w->off);
        bns_timer_start(w->c->env, &w->timer, bns_now_ns(w->c->env) + TICK_NS);
    } else {
        w->stream = NULL;
        later(w);
    }
}

int bns_etcd_watch_open(struct bns_etcd *c, const struct bns_etcd_watch_options *o,
                        struct bns_etcd_watch **out)
{
    static Etcdserverpb__WatchCreateRequest__FilterType filters[] = {
        ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT,
        ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE};
    struct bns_etcd_watch *w;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    w = bns_alloc_zero(c->env->alloc, sizeof *w + o->key.len + o->end.len);
    if (w == NULL)
        return BNS_E_NOMEM;
    w->c = c;
    w->h = o->handler;
    w->arg = o->arg;
    w->next = o->start_revision;
    w->trust = o->trust_progress;
    bns_timer_init(&w->timer, on_timer, w);
    bns_arena_init(&w->held, c->env->alloc, 8u * BNS_ETCD_ANSWER_MAX);
    etcdserverpb__watch_create_request__init(&w->req);
    etcdserverpb__response_header__init(&w->header);
    w->req.has_fragment = w->req.fragment = true;
    if (o->key.len > 0)
        memcpy(w->bytes, o->key.ptr, o->key.len);
    w->req.has_key = true;
    w->req.key = (ProtobufCBinaryData){o->key.len, w->bytes};
    w->req.has_range_end = o->end.len > 0;
    if (o->end.len > 0)
        memcpy(w->bytes + o->key.len, o->end.ptr, o->end.len);
    w->req.range_end = (ProtobufCBinaryData){o->end.len, w->bytes + o->key.len};
    w->req.has_prev_kv = w->req.prev_kv = o->prev_kv;
    w->req.has_progress_notify = w->req.progress_notify = o->progress_notify;
    w->req.n_filters = (size_t)o->no_put + (size_t)o->no_delete;
    w->req.filters = filters + (o->no_put ? 0 : 1);
    reopen(w);
    *out = w;
    return BNS_OK;
}

int64_t bns_etcd_watch_next(const struct bns_etcd_watch *w)
{
    return w->next;
}

const Etcdserverpb__ResponseHeader *bns_etcd_watch_header(const struct bns_etcd_watch *w)
{
    return &w->header;
}

void bns_etcd_watch_ask(struct bns_etcd_watch *w)
{
    w->wanted = true;
    ask(w);
}

void bns_etcd_watch_read(struct bns_etcd_watch *w, bool on)
{
    w->off = !on;
    w->heard = true; /* silence is reckoned anew */
    if (w->stream != NULL)
        bns_etcd_stream_read(w->stream, on);
}

void bns_etcd_watch_close(struct bns_etcd_watch *w)
{
    if (w == NULL)
        return;
    w->closed = true;
    if (!w->busy)
        free_watch(w);
}
