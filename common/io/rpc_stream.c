/* rpc_stream.c - streams on a connection of the internal RPC, the same for both of its sides.
 *
 *   dialler                         server
 *   REQUEST method|0x8000 id  --->             opens; the payload goes to on_stream
 *   DATA id                  <--->             at most BNS_RPC_WINDOW bytes not acknowledged
 *   CREDIT id, aux = bytes   <--->             so many have been dealt with
 *   END id                   <--->             no more from this side
 *   CANCEL id                 --->             ends it
 *                            <---  RESPONSE id ends it; aux = status
 *
 * Back-pressure is the receiver's: it acknowledges what it has dealt with (written to disk, say),
 * and credits go back a quarter of a window at a time. Who sends more than it may, or gives more
 * credit than was used, has its connection closed (BNS_E_PROTO). Frames for a stream that is over
 * are late, not wrong, and are dropped.
 *
 * Callbacks may close the stream or end the connection, so nothing here touches a stream after it
 * called out.
 *
 * Bounds: STREAMS_MAX a connection; a window each way a stream, of which the sender's part waits in
 *         the queue of the connection (BNS_E_BUSY when that is full) and the receiver's is with its
 *         owner.
 */
#include "io/rpc_int.h"

#define STREAMS_MAX 256u
#define CREDIT_STEP (BNS_RPC_WINDOW / 4)

struct bns_rpc_stream {
    struct bns_rpc_conn *c;
    struct bns_list node; /* c->streams */
    struct bns_rpc_stream_events ev;
    void *arg;
    uint64_t id;
    uint64_t pass; /* of the waking in which it was set to wait */
    size_t room;   /* bytes we may send */
    size_t left;   /* bytes the other side may send */
    size_t held;   /* bytes the owner has not acknowledged */
    size_t credit; /* acknowledged, not yet told */
    uint16_t method;
    bool waits; /* for on_writable */
    bool ended; /* by us */
    bool end_seen;
};

static struct bns_rpc_stream *find(struct bns_rpc_conn *c, uint64_t id)
{
    BNS_LIST_EACH(n, &c->streams)
    {
        struct bns_rpc_stream *s = BNS_CONTAINER(n, struct bns_rpc_stream, node);
        if (s->id == id)
            return s;
    }
    return NULL;
}

struct bns_rpc_stream *bns_rpc_stream_new(struct bns_rpc_conn *c, uint64_t id, uint16_t method)
{
    struct bns_rpc_stream *s;

    if (c->streams_count >= STREAMS_MAX || find(c, id) != NULL)
        return NULL;
    s = bns_alloc_zero(c->env->alloc, sizeof *s);
    if (s == NULL)
        return NULL;
    s->c = c;
    s->id = id;
    s->method = method;
    s->room = BNS_RPC_WINDOW;
    s->left = BNS_RPC_WINDOW;
    bns_list_push(&c->streams, &s->node);
    c->streams_count++;
    return s;
}

void bns_rpc_stream_forget(struct bns_rpc_stream *s)
{
    bns_list_del(&s->node);
    s->c->streams_count--;
    bns_free(s->c->env->alloc, s);
}

static void finish(struct bns_rpc_stream *s, int code)
{
    struct bns_rpc_stream_events ev = s->ev;
    void *arg = s->arg;

    bns_rpc_stream_forget(s);
    if (ev.on_close != NULL)
        ev.on_close(arg, code);
}

void bns_rpc_stream_accept(struct bns_rpc_stream *s, const struct bns_rpc_stream_events *ev,
                           void *arg)
{
    BNS_ASSERT(ev->on_data != NULL);
    BNS_ASSERT(ev->on_close != NULL);
    s->ev = *ev;
    s->arg = arg;
}

void bns_rpc_stream_opened(struct bns_rpc_stream *s, bns_rpc_stream_fn *fn, void *arg,
                           uint64_t from, struct bns_slice payload)
{
    struct bns_rpc_conn *c = s->c;
    uint64_t id = s->id;

    fn(arg, s, from, s->method, payload);
    if (c->dead)
        return;
    s = find(c, id);
    BNS_ASSERT(s == NULL || s->ev.on_close != NULL); /* the contract of bns_rpc_stream_fn */
}

/* ---- frames that come in -------------------------------------------------------------------- */
static int got_data(struct bns_rpc_stream *s, struct bns_slice data)
{
    if (s->end_seen || data.len > s->left)
        return BNS_E_PROTO;
    s->left -= data.len;
    s->held += data.len;
    s->ev.on_data(s->arg, data);
    return BNS_OK;
}

static int got_end(struct bns_rpc_stream *s)
{
    if (s->end_seen)
        return BNS_E_PROTO;
    s->end_seen = true;
    if (s->ev.on_end != NULL)
        s->ev.on_end(s->arg);
    return BNS_OK;
}

static int got_credit(struct bns_rpc_stream *s, uint32_t bytes)
{
    if (bytes > BNS_RPC_WINDOW - s->room)
        return BNS_E_PROTO;
    s->room += bytes;
    if (!s->waits || s->room < CREDIT_STEP)
        return BNS_OK;
    s->waits = false;
    if (s->ev.on_writable != NULL)
        s->ev.on_writable(s->arg);
    return BNS_OK;
}

int bns_rpc_streams_frame(struct bns_rpc_conn *c, const struct bns_frame *f, bool *found)
{
    struct bns_rpc_stream *s = find(c, f->id);

    *found = s != NULL;
    if (s == NULL)
        return BNS_OK;
    switch (f->kind) {
    case BNS_FRAME_DATA:
        return got_data(s, f->payload);
    case BNS_FRAME_END:
        return got_end(s);
    case BNS_FRAME_CREDIT:
        return got_credit(s, f->aux);
    case BNS_FRAME_CANCEL:
        if (c->dials)
            return BNS_E_PROTO;
        finish(s, BNS_E_CANCELED);
        return BNS_OK;
    default:
        BNS_ASSERT(f->kind == BNS_FRAME_RESPONSE);
        if (!c->dials)
            return BNS_E_PROTO;
        finish(s, f->aux <= 127 ? -(int)f->aux : BNS_E_INTERNAL);
        return BNS_OK;
    }
}

/* The queue of the connection has room again. A stream that is set to wait once more by its own
 * on_writable has this pass's number and is not called twice. */
void bns_rpc_streams_wake(struct bns_rpc_conn *c)
{
    struct bns_rpc_stream *s;

    c->streams_pass++;
    do {
        s = NULL;
        BNS_LIST_EACH(n, &c->streams)
        {
            struct bns_rpc_stream *t = BNS_CONTAINER(n, struct bns_rpc_stream, node);
            if (t->waits && t->room >= CREDIT_STEP && t->pass != c->streams_pass) {
                s = t;
                break;
            }
        }
        if (s != NULL) {
            s->waits = false;
            if (s->ev.on_writable != NULL)
                s->ev.on_writable(s->arg);
        }
    } while (s != NULL && !c->dead);
}

void bns_rpc_streams_end(struct bns_rpc_conn *c, int code)
{
    while (!bns_list_empty(&c->streams))
        finish(BNS_CONTAINER(c->streams.next, struct bns_rpc_stream, node), code);
}

/* ---- what the owner says --------------------------------------------------------------------- */
int bns_rpc_stream_write(struct bns_rpc_stream *s, const struct bns_slice *v, size_t n,
                         bns_release_fn *release, void *arg)
{
    struct bns_rpc_conn *c = s->c;
    struct bns_frame f = {.kind = BNS_FRAME_DATA, .method = s->method, .id = s->id};
    size_t bytes = 0, queued = bns_stream_queued(c->stream);
    int rv;

    if (s->ended)
        return BNS_E_OFF;
    for (size_t i = 0; i < n; i++) {
        if (__builtin_add_overflow(bytes, v[i].len, &bytes) || bytes > BNS_RPC_WINDOW)
            return BNS_E_TOOBIG;
    }
    if (bytes > s->room || (queued > 0 && queued + bytes > c->queue_max)) {
        s->waits = true;
        s->pass = c->streams_pass;
        return BNS_E_BUSY;
    }
    rv = bns_rpc_conn_send(c, &f, v, n, release, arg);
    if (rv == BNS_OK)
        s->room -= bytes;
    return rv;
}

/* A word that must not be lost; without memory for it the connection goes. */
static void say(struct bns_rpc_stream *s, uint8_t kind, uint32_t aux)
{
    struct bns_frame f = {.kind = kind, .method = s->method, .aux = aux, .id = s->id};

    if (bns_rpc_conn_send_copy(s->c, &f) != BNS_OK)
        bns_rpc_conn_break(s->c);
}

void bns_rpc_stream_ack(struct bns_rpc_stream *s, size_t bytes)
{
    BNS_ASSERT(bytes <= s->held);
    s->held -= bytes;
    s->credit += bytes;
    if (s->credit < CREDIT_STEP || s->end_seen)
        return;
    say(s, BNS_FRAME_CREDIT, (uint32_t)s->credit);
    s->left += s->credit;
    s->credit = 0;
}

void bns_rpc_stream_end(struct bns_rpc_stream *s)
{
    if (s->ended)
        return;
    s->ended = true;
    s->waits = false;
    say(s, BNS_FRAME_END, 0);
}

void bns_rpc_stream_close(struct bns_rpc_stream *s, int code)
{
    BNS_ASSERT(code <= 0);
    if (s->c->dials)
        say(s, BNS_FRAME_CANCEL, 0);
    else
        say(s, BNS_FRAME_RESPONSE, (uint32_t)-code);
    bns_rpc_stream_forget(s);
}
