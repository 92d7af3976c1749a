/* h2_stream.c - one gRPC stream: the queue of messages that go out, the delivery of those that
 * come in.
 *
 * Out:  messages wait in a list. nghttp2's data provider only says how many bytes are ready (at
 *       most 16 KiB a frame, so streams take turns); send_data then puts the frame header and the
 *       slices into the connection's batch. An empty queue defers the provider until the next send
 *       resumes it. `end` with an empty queue calls role->last, where a server submits trailers and
 *       a client sets END_STREAM.
 * In:   DATA goes through the splitter straight to the handler, and is then given back to flow
 *       control. While the handler takes nothing (paused) or the connection is over its budget,
 *       DATA is kept in `held`, not given back, so that at most one stream window is held. Bytes of
 *       a message that is not complete are given back as they come: a message may be larger than
 *       the window, and its size is bounded by the splitter.
 * Invariant: bytes in `held` are exactly those not yet consumed.
 */
#include "io/h2.h"

#include <stdio.h>

#define MSG_POOL_MAX 1024u

/* ---- messages ------------------------------------------------------------------------------ */
static struct bns_h2_msg *msg_new(struct bns_h2_hub *hub, size_t space)
{
    bool pooled = space <= BNS_H2_MSG_INLINE;
    struct bns_h2_msg *m;

    if (pooled && hub->msgs != NULL) {
        m = hub->msgs;
        hub->msgs = m->next;
        hub->msgs_count--;
    } else {
        m = bns_alloc(hub->env->alloc, sizeof *m + (pooled ? BNS_H2_MSG_INLINE : space));
        if (m == NULL)
            return NULL;
    }
    m->next = NULL;
    m->refs = 1;
    m->pooled = pooled;
    m->release = NULL;
    m->arg = NULL;
    m->v = (struct bns_slice *)(void *)m->space;
    return m;
}

void bns_h2_msg_put(struct bns_h2_hub *hub, struct bns_h2_msg *m, int code)
{
    BNS_ASSERT(m->refs > 0);
    if (--m->refs > 0)
        return;
    if (m->release != NULL)
        m->release(m->arg, code);
    if (m->pooled && hub->msgs_count < MSG_POOL_MAX) {
        m->next = hub->msgs;
        hub->msgs = m;
        hub->msgs_count++;
    } else {
        bns_free(hub->env->alloc, m);
    }
}

void bns_h2_msg_pool_free(struct bns_h2_hub *hub)
{
    while (hub->msgs != NULL) {
        struct bns_h2_msg *m = hub->msgs;
        hub->msgs = m->next;
        bns_free(hub->env->alloc, m);
    }
    hub->msgs_count = 0;
}

/* The provider is asked again. */
static void resume(struct bns_h2_stream *s)
{
    if (!s->deferred)
        return;
    s->deferred = false;
    if (nghttp2_session_resume_data(s->h->session, s->id) == NGHTTP2_ERR_NOMEM)
        bns_h2_doom(s->h);
}

static void queue(struct bns_h2_stream *s, struct bns_h2_msg *m)
{
    struct bns_h2 *h = s->h;

    if (s->head == NULL)
        s->head = m;
    else
        s->tail->next = m;
    s->tail = m;
    s->queued += m->bytes;
    h->queued += m->bytes;
    if (s->queued >= BNS_H2_WRITABLE)
        s->above = true;
    if (h->queued > h->hub->queued_max)
        h->over = true;
    resume(s);
    bns_h2_kick(h);
}

int bns_h2_stream_send(struct bns_h2_stream *s, const struct bns_slice *v, size_t n,
                       bns_release_fn *release, void *arg)
{
    size_t len = 0, space;
    struct bns_h2_msg *m;

    if (s->h == NULL || s->h->session == NULL)
        return BNS_E_OFF;
    BNS_ASSERT(!s->end);
    for (size_t i = 0; i < n; i++)
        len += v[i].len;
    if (len > UINT32_MAX || __builtin_mul_overflow(n + 1, sizeof *v, &space))
        return BNS_E_TOOBIG;
    m = msg_new(s->h->hub, space);
    if (m == NULL)
        return BNS_E_NOMEM;
    bns_grpc_prefix(m->prefix, false, (uint32_t)len);
    m->release = release;
    m->arg = arg;
    m->bytes = len + BNS_GRPC_PREFIX_BYTES;
    m->v[0] = bns_slice(m->prefix, BNS_GRPC_PREFIX_BYTES);
    m->count = 1;
    for (size_t i = 0; i < n; i++) {
        if (v[i].len > 0)
            m->v[m->count++] = v[i];
    }
    queue(s, m);
    return BNS_OK;
}

int bns_h2_stream_copy(struct bns_h2_stream *s, struct bns_slice msg)
{
    struct bns_h2_msg *m;

    if (s->h == NULL || s->h->session == NULL)
        return BNS_E_OFF;
    BNS_ASSERT(!s->end);
    if (msg.len > UINT32_MAX)
        return BNS_E_TOOBIG;
    m = msg_new(s->h->hub, 2 * sizeof *m->v + msg.len);
    if (m == NULL)
        return BNS_E_NOMEM;
    bns_grpc_prefix(m->prefix, false, (uint32_t)msg.len);
    m->bytes = msg.len + BNS_GRPC_PREFIX_BYTES;
    m->v[0] = bns_slice(m->prefix, BNS_GRPC_PREFIX_BYTES);
    m->count = 1;
    if (msg.len > 0) {
        memcpy(m->space + 2 * sizeof *m->v, msg.ptr, msg.len);
        m->v[m->count++] = bns_slice(m->space + 2 * sizeof *m->v, msg.len);
    }
    queue(s, m);
    return BNS_OK;
}

void bns_h2_stream_clear(struct bns_h2_stream *s)
{
    struct bns_h2 *h = s->h;

    while (s->head != NULL) {
        struct bns_h2_msg *m = s->head;
        s->head = m->next;
        bns_h2_msg_put(h->hub, m, BNS_E_DROPPED);
    }
    s->tail = NULL;
    s->at_slice = 0;
    s->at_byte = 0;
    h->queued -= s->queued;
    s->queued = 0;
}

void bns_h2_stream_end(struct bns_h2_stream *s)
{
    s->end = true;
    if (s->h == NULL || s->h->session == NULL)
        return;
    resume(s);
    bns_h2_kick(s->h);
}

/* ---- DATA out ------------------------------------------------------------------------------ */
/* tidy: params: implements nghttp2_data_source_read_callback */
static ssize_t provide(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                       uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct bns_h2_stream *s = source->ptr;
    struct bns_h2 *h = arg;

    (void)session;
    (void)buf;
    BNS_ASSERT(s->h == h);
    BNS_ASSERT(s->id == id);
    if (s->queued == 0 && !s->end) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->queued > len)
        return (ssize_t)len;
    if (s->end && h->hub->role->last(s, flags) != BNS_OK)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return (ssize_t)s->queued;
}

nghttp2_data_provider bns_h2_stream_provider(struct bns_h2_stream *s)
{
    return (nghttp2_data_provider){.source.ptr = s, .read_callback = provide};
}

/* Moves `len` bytes of the head message into the batch; returns how many it had. */
static int send_some(struct bns_h2_stream *s, size_t *len)
{
    struct bns_h2 *h = s->h;
    struct bns_h2_msg *m = s->head;
    int rv = BNS_OK;

    while (*len > 0 && s->at_slice < m->count && rv == BNS_OK) {
        struct bns_slice v = bns_slice_skip(m->v[s->at_slice], s->at_byte);
        if (v.len > *len)
            v.len = *len;
        if (v.len <= BNS_H2_COPY_MAX)
            rv = bns_h2_batch_copy(h, v.ptr, v.len);
        else
            rv = bns_h2_batch_borrow(h, v, m);
        s->at_byte += v.len;
        *len -= v.len;
        if (s->at_byte == m->v[s->at_slice].len) {
            s->at_slice++;
            s->at_byte = 0;
        }
    }
    if (s->at_slice == m->count) {
        s->head = m->next;
        if (s->head == NULL)
            s->tail = NULL;
        s->at_slice = 0;
        bns_h2_msg_put(h->hub, m, BNS_OK);
    }
    return rv;
}

int bns_h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd,
                     size_t length, nghttp2_data_source *source, void *arg)
{
    struct bns_h2_stream *s = source->ptr;
    struct bns_h2 *h = arg;
    size_t left = length;

    (void)session;
    (void)frame; /* never padded: there is no select_padding callback */
    BNS_ASSERT(length <= s->queued);
    if (bns_h2_batch_copy(h, framehd, 9) != BNS_OK)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->queued -= length;
    h->queued -= length;
    while (left > 0) {
        BNS_ASSERT(s->head != NULL);
        if (send_some(s, &left) != BNS_OK)
            return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (s->above && s->queued < BNS_H2_WRITABLE)
        bns_h2_stream_wake(s);
    return 0;
}

/* ---- DATA in ------------------------------------------------------------------------------- */
static void consume(struct bns_h2_stream *s, size_t n)
{
    if (n > 0 && s->h != NULL && s->h->session != NULL &&
        nghttp2_session_consume(s->h->session, s->id, n) == NGHTTP2_ERR_NOMEM)
        bns_h2_doom(s->h); /* without its window the peer would stall */
}

static bool stopped(const struct bns_h2_stream *s)
{
    return s->paused || (s->h != NULL && (s->h->over || s->h->doomed));
}

static void split_failed(struct bns_h2_stream *s, int code)
{
    char text[96];
    uint32_t len;

    switch (code) {
    case BNS_E_TOOBIG:
        len = bns_get_u32be(s->split.head + 1);
        (void)snprintf(text, sizeof text, "grpc: received message larger than max (%u vs. %u)", len,
                       s->split.bytes_max); /* fits */
        s->h->hub->role->bad(s, 8, text);
        break;
    case BNS_E_NOMEM:
        s->h->hub->role->bad(s, 8, "grpc: no memory for the message");
        break;
    default:
        s->h->hub->role->bad(s, 13, "grpc: received unexpected payload format");
        break;
    }
}

static void count_partial(struct bns_h2_stream *s)
{
    size_t now = bns_grpc_split_idle(&s->split) ? 0 : s->split.body.len;

    s->h->partial += now - s->partial;
    s->partial = now;
    if (s->h->partial > BNS_H2_PARTIAL_MAX && s->h->partial > now)
        s->h->hub->role->bad(s, 8, "grpc: too many messages received in part");
}

/* Delivers messages of *data until it is used up or the handler stops. */
static void feed(struct bns_h2_stream *s, struct bns_slice *data)
{
    s->feeding = true;
    while (s->h != NULL && !s->deaf && !stopped(s)) {
        struct bns_grpc_msg m;
        int rv = bns_grpc_split_next(&s->split, data, &m);

        if (rv == BNS_E_AGAIN)
            break;
        if (rv != BNS_OK)
            split_failed(s, rv);
        else if (m.compressed)
            s->h->hub->role->bad(s, 12, "grpc: compressed message with an encoding not supported");
        else
            s->h->hub->role->message(s, m.bytes);
    }
    s->feeding = false;
    if (s->h != NULL && !s->deaf)
        count_partial(s);
}

static void tell_half_close(struct bns_h2_stream *s)
{
    if (!s->remote_end || s->half_told || s->deaf || s->held.len > 0 || stopped(s))
        return;
    s->half_told = true;
    if (!bns_grpc_split_idle(&s->split))
        s->h->hub->role->bad(s, 13, "grpc: the stream ended inside a message");
    else
        s->h->hub->role->half_close(s);
}

void bns_h2_stream_data(struct bns_h2_stream *s, struct bns_slice data)
{
    size_t len = data.len;

    if (!s->deaf && s->held.len == 0 && !stopped(s))
        feed(s, &data);
    if (s->deaf || s->h == NULL) {
        consume(s, len);
        return;
    }
    consume(s, len - data.len);
    if (data.len == 0)
        return;
    if (bns_buf_add(&s->held, data.ptr, data.len) != BNS_OK) {
        consume(s, data.len);
        s->h->hub->role->bad(s, 8, "grpc: no memory for the message");
    }
}

/* Gives what was held to a handler that reads again. */
static void unhold(struct bns_h2_stream *s)
{
    struct bns_slice data = bns_buf_slice(&s->held);
    size_t len = data.len;

    if (s->feeding || s->deaf || len == 0 || stopped(s))
        return;
    feed(s, &data);
    if (s->h == NULL || s->deaf)
        return; /* `held` is gone, and given back */
    bns_buf_consume(&s->held, len - data.len);
    consume(s, len - data.len);
    if (s->held.len == 0)
        bns_buf_free(&s->held);
}

void bns_h2_stream_eof(struct bns_h2_stream *s)
{
    s->remote_end = true;
    tell_half_close(s);
}

void bns_h2_stream_read(struct bns_h2_stream *s, bool on)
{
    s->paused = !on;
    if (on)
        bns_h2_stream_wake(s);
}

void bns_h2_stream_deaf(struct bns_h2_stream *s)
{
    size_t len = s->held.len;

    s->deaf = true;
    if (s->h != NULL)
        s->h->partial -= s->partial;
    s->partial = 0;
    if (s->feeding) {
        s->held.len = 0; /* its bytes may be in the hands of the handler */
    } else {
        bns_buf_free(&s->held);
        bns_grpc_split_free(&s->split);
    }
    consume(s, len);
}

/* ---- life ---------------------------------------------------------------------------------- */
void bns_h2_stream_wake(struct bns_h2_stream *s)
{
    if (s->h == NULL || !bns_list_empty(&s->wake))
        return;
    bns_list_push(&s->h->wake, &s->wake);
    bns_h2_kick(s->h);
}

void bns_h2_stream_woken(struct bns_h2_stream *s)
{
    unhold(s);
    if (s->h != NULL)
        tell_half_close(s);
    if (s->h == NULL || !s->above || s->queued >= BNS_H2_WRITABLE)
        return;
    s->above = false;
    s->h->hub->role->writable(s);
}

void bns_h2_stream_open(struct bns_h2_stream *s, struct bns_h2 *h, int32_t id, uint32_t msg_max)
{
    *s = (struct bns_h2_stream){.h = h, .id = id};
    bns_list_push(&h->streams, &s->node);
    bns_list_init(&s->wake);
    h->streams_count++;
    bns_grpc_split_init(&s->split, h->hub->env->alloc, msg_max);
    bns_buf_init(&s->held, h->hub->env->alloc, BNS_H2_CONN_WINDOW);
}

void bns_h2_stream_close(struct bns_h2_stream *s)
{
    struct bns_h2 *h = s->h;

    BNS_ASSERT(h != NULL);
    BNS_ASSERT(!s->feeding);
    h->partial -= s->partial;
    bns_h2_stream_clear(s);
    if (s->held.len > 0 && /* the stream is gone, its bytes still count for the connection */
        nghttp2_session_consume_connection(h->session, s->held.len) == NGHTTP2_ERR_NOMEM)
        bns_h2_doom(h);
    bns_buf_free(&s->held);
    bns_grpc_split_free(&s->split);
    bns_list_del(&s->node);
    bns_list_del(&s->wake);
    h->streams_count--;
    s->h = NULL;
}
