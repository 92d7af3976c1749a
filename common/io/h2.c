/* h2.c - the connection that carries gRPC, on nghttp2 (RFC 9113).
 *
 * Driving: bytes of the peer go into nghttp2 as they come (bns_h2_feed); whatever our side has to
 *          say is collected by the pump into one write (h2_batch.c). A connection that something
 *          was queued on is put on the hub's dirty list and pumped once, in the next turn; one that
 *          is being fed is pumped when the feed is over. Large payloads never enter nghttp2: the
 *          data callbacks only count, and send_data borrows the slices of the message.
 *
 * Bounds:  transport  above BNS_H2_TRANSPORT_MAX unsent bytes neither pumped nor read
 *          budget     above hub->queued_max queued bytes nothing more is delivered to handlers:
 *                     their input stays unconsumed, so flow control stops the peer
 *          headers    16 KiB a list, counted as RFC 9113 6.5.2; nghttp2 bounds CONTINUATION, its
 *                     HPACK table (4 KiB), unacknowledged SETTINGS and PING
 *          floods     resets take tokens (burst and rate, by the env's clock, so that a simulated
 *                     run repeats); PINGs count against a window that each HEADERS or DATA of ours
 *                     begins anew. Either ends in GOAWAY ENHANCE_YOUR_CALM
 *
 * Entry:   nghttp2 must not be entered twice: `busy` marks that we are inside; calls made there
 *          only queue, and the outermost frame pumps.
 * Fails:   memory running out inside nghttp2, and a transport that refuses a write, end the
 *          connection; the peer sees a reset.
 */
#include "io/h2.h"

#define PUMP_ROUNDS 16

static void lose(struct bns_h2 *h);

/* ---- callbacks of nghttp2 ------------------------------------------------------------------ */
static struct bns_slice rc_slice(nghttp2_rcbuf *b)
{
    nghttp2_vec v = nghttp2_rcbuf_get_buf(b);
    return bns_slice(v.base, v.len);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    struct bns_h2 *h = arg;

    (void)session;
    if (!h->hub->server || f->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    return h->hub->role->begin(h, f->hd.stream_id) == BNS_OK
               ? 0
               : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *f, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *arg)
{
    struct bns_h2 *h = arg;
    struct bns_h2_stream *s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
    struct bns_slice n = rc_slice(name), v = rc_slice(value);

    (void)flags;
    if (s == NULL || f->hd.type != NGHTTP2_HEADERS)
        return 0;
    s->header_bytes += n.len + v.len + 32;
    if (s->header_bytes > BNS_H2_HEADER_LIST_MAX)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return h->hub->role->header(s, f->headers.cat, n, v) == BNS_OK
               ? 0
               : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* A bucket of hub->reset_burst tokens, refilled by reset_rate a second. */
static bool reset_allowed(struct bns_h2 *h)
{
    uint64_t now = bns_now_ns(h->hub->env), gain;

    gain = (now - h->reset_ns) / BNS_MS * h->hub->reset_rate / 1000;
    if (gain > 0) {
        h->reset_tokens += gain;
        h->reset_ns = now;
        if (h->reset_tokens > h->hub->reset_burst)
            h->reset_tokens = h->hub->reset_burst;
    }
    if (h->reset_tokens == 0)
        return false;
    h->reset_tokens--;
    return true;
}

static void flooded(struct bns_h2 *h, const char *text)
{
    if (h->closing)
        return; /* the rest of the same flood */
    bns_counter_add(h->hub->floods, 1);
    bns_h2_refuse(h, NGHTTP2_ENHANCE_YOUR_CALM, text);
}

static void count_ping(struct bns_h2 *h)
{
    uint64_t now = bns_now_ns(h->hub->env);

    if (h->pings == 0 || now - h->ping_ns > BNS_H2_PING_WINDOW_NS) {
        h->ping_ns = now;
        h->pings = 0;
    }
    if (++h->pings > BNS_H2_PINGS_MAX)
        flooded(h, "too_many_pings");
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    struct bns_h2 *h = arg;
    struct bns_h2_stream *s;

    if (h->doomed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    switch (f->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
        if (s == NULL)
            return 0;
        if (f->hd.type == NGHTTP2_HEADERS)
            h->hub->role->headers_end(s, f->headers.cat,
                                      (f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0);
        if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && s->h != NULL)
            bns_h2_stream_eof(s);
        return 0;
    case NGHTTP2_RST_STREAM:
        if (h->hub->server && !reset_allowed(h))
            flooded(h, "too_many_resets");
        return 0;
    case NGHTTP2_PING:
        if (h->hub->server && (f->hd.flags & NGHTTP2_FLAG_ACK) == 0)
            count_ping(h);
        break;
    default:
        break;
    }
    if (h->hub->role->control != NULL)
        h->hub->role->control(h, f);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *arg)
{
    struct bns_h2 *h = arg;
    struct bns_h2_stream *s = nghttp2_session_get_stream_user_data(session, id);

    (void)flags;
    if (h->doomed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (s != NULL) {
        bns_h2_stream_data(s, bns_slice(data, len));
        return 0;
    }
    return nghttp2_session_consume(session, id, len) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    struct bns_h2 *h = arg;
    struct bns_h2_stream *s;

    if (f->hd.type == NGHTTP2_RST_STREAM && h->hub->server &&
        f->rst_stream.error_code != NGHTTP2_NO_ERROR &&
        f->rst_stream.error_code != NGHTTP2_REFUSED_STREAM && !reset_allowed(h))
        flooded(h, "too_many_resets"); /* resets that the peer makes us send cost the same */
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA)
        return 0;
    h->pings = 0;
    if ((f->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    s = nghttp2_session_get_stream_user_data(session, f->hd.stream_id);
    if (s != NULL) {
        s->sent = true;
        h->hub->role->ended(s);
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct bns_h2 *h = arg;
    struct bns_h2_stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (s == NULL)
        return 0;
    (void)nghttp2_session_set_stream_user_data(session, id, NULL); /* the stream exists */
    h->hub->role->closed(s, code);
    return 0;
}

/* ---- the hub ------------------------------------------------------------------------------- */
static void on_flush(struct bns_task *t)
{
    struct bns_h2_hub *hub = BNS_CONTAINER(t, struct bns_h2_hub, flush);
    struct bns_list now;
    struct bns_list *n;

    hub->posted = false;
    bns_list_init(&now);
    bns_list_splice(&now, &hub->dirty);
    while ((n = bns_list_pop(&now)) != NULL)
        bns_h2_pump(BNS_CONTAINER(n, struct bns_h2, dirty));
    bns_h2_hub_put(hub);
}

int bns_h2_hub_new(struct bns_env *env, const struct bns_h2_role *role, bool server,
                   struct bns_h2_hub **out)
{
    struct bns_h2_hub *hub = bns_alloc_zero(env->alloc, sizeof *hub);
    const char *side = server ? "side=\"server\"" : "side=\"client\"";

    if (hub == NULL)
        return BNS_E_NOMEM;
    hub->env = env;
    hub->role = role;
    hub->server = server;
    hub->refs = 1;
    hub->queued_max = UINT32_MAX;
    bns_h2_mem_init(&hub->memory, env, server, &hub->mem);
    bns_list_init(&hub->dirty);
    hub->flush.fn = on_flush;
    if (env->metrics != NULL) {
        hub->bytes_in = bns_counter(env->metrics, "bns_h2_received_bytes_total", side,
                                    "Bytes taken from HTTP/2 connections.");
        hub->bytes_out = bns_counter(env->metrics, "bns_h2_sent_bytes_total", side,
                                     "Bytes given to HTTP/2 connections.");
        hub->floods = bns_counter(env->metrics, "bns_h2_floods_total", side,
                                  "Connections ended because of too many PINGs or resets.");
    }
    *out = hub;
    return BNS_OK;
}

void bns_h2_hub_put(struct bns_h2_hub *hub)
{
    BNS_ASSERT(hub->refs > 0);
    if (--hub->refs > 0)
        return;
    BNS_ASSERT(bns_list_empty(&hub->dirty));
    bns_h2_batch_pool_free(hub);
    bns_h2_msg_pool_free(hub);
    bns_h2_mem_free(&hub->memory);
    bns_free(hub->env->alloc, hub);
}

/* ---- the connection ------------------------------------------------------------------------ */
static void on_stream_open(void *arg)
{
    struct bns_h2 *h = arg;

    h->open = true;
    if (h->hub->role->open != NULL)
        h->hub->role->open(h);
    bns_h2_pump(h);
}

static void on_stream_data(void *arg, struct bns_slice data)
{
    bns_h2_feed(arg, data);
}

static void on_stream_writable(void *arg)
{
    struct bns_h2 *h = arg;

    if (h->blocked) {
        h->blocked = false;
        bns_stream_read(h->stream, true);
    }
    bns_h2_kick(h);
}

static void on_transport_close(void *arg, int code)
{
    struct bns_h2 *h = arg;
    struct bns_h2_hub *hub = h->hub;

    BNS_ASSERT(!h->busy);
    h->code = code;
    lose(h);
    h->stream = NULL;
    hub->role->gone(h, code); /* frees h */
    bns_h2_hub_put(hub);
}

const struct bns_stream_events bns_h2_events = {
    .on_open = on_stream_open,
    .on_data = on_stream_data,
    .on_writable = on_stream_writable,
    .on_close = on_transport_close,
};

void bns_h2_init(struct bns_h2 *h, struct bns_h2_hub *hub, struct bns_stream *stream)
{
    *h = (struct bns_h2){.hub = hub, .stream = stream};
    bns_list_init(&h->dirty);
    bns_list_init(&h->streams);
    bns_list_init(&h->wake);
    h->recv_ns = bns_now_ns(hub->env);
    h->reset_ns = h->recv_ns;
    h->reset_tokens = hub->reset_burst;
    hub->refs++;
}

/* Callbacks and options are copied into the session. nghttp2 has only libc's memory for them, so
 * they are made for each connection and live no longer than this call: a simulated node may die at
 * any time, and only its own allocator is freed. */
static int new_session(struct bns_h2 *h)
{
    struct bns_h2_hub *hub = h->hub;
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    int rv = NGHTTP2_ERR_NOMEM;

    if (nghttp2_session_callbacks_new(&cb) != 0 || nghttp2_option_new(&option) != 0)
        goto out;
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(cb, bns_h2_send_data);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    /* Clients put a whole URL into :authority (etcdctl --cluster does), which nghttp2 would refuse;
     * what a call needs of its headers is checked where it is used. */
    if (hub->server)
        nghttp2_option_set_no_http_messaging(option, 1);
    /* Counted here instead, on the env's clock. */
    nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX / 2, UINT64_MAX / 2);
    if (hub->server)
        rv = nghttp2_session_server_new3(&h->session, cb, h, option, &hub->mem);
    else
        rv = nghttp2_session_client_new3(&h->session, cb, h, option, &hub->mem);
out:
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(option);
    return rv == 0 ? BNS_OK : BNS_E_NOMEM;
}

int bns_h2_start(struct bns_h2 *h, const nghttp2_settings_entry *v, size_t n)
{
    int rv;

    BNS_ASSERT(h->session == NULL);
    if (new_session(h) != BNS_OK)
        return BNS_E_NOMEM;
    rv = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, v, n);
    if (rv == 0)
        rv = nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0,
                                                   BNS_H2_CONN_WINDOW);
    if (rv == 0)
        return BNS_OK;
    nghttp2_session_del(h->session);
    h->session = NULL;
    return BNS_E_NOMEM;
}

/* The session is of no use any more: its streams end, the transport is reset. */
static void lose(struct bns_h2 *h)
{
    BNS_ASSERT(!h->busy);
    bns_list_del(&h->dirty);
    h->closing = true;
    h->lost = true;
    h->busy = true; /* what the handlers queue now goes nowhere */
    while (!bns_list_empty(&h->streams)) {
        struct bns_h2_stream *s = BNS_CONTAINER(h->streams.next, struct bns_h2_stream, node);
        h->hub->role->closed(s, NGHTTP2_INTERNAL_ERROR);
    }
    h->busy = false;
    bns_list_del(&h->dirty);
    bns_h2_batch_drop(h);
    nghttp2_session_del(h->session);
    h->session = NULL;
}

void bns_h2_abort(struct bns_h2 *h)
{
    if (h->busy) {
        h->doomed = true;
        return;
    }
    lose(h);
    if (h->closed)
        return;
    h->closed = true;
    bns_stream_reset(h->stream);
}

void bns_h2_doom(struct bns_h2 *h)
{
    h->doomed = true;
    bns_h2_kick(h);
}

void bns_h2_feed(struct bns_h2 *h, struct bns_slice data)
{
    ssize_t n;

    if (h->session == NULL || h->closed)
        return;
    BNS_ASSERT(!h->busy);
    bns_counter_add(h->hub->bytes_in, data.len);
    h->recv_ns = bns_now_ns(h->hub->env);
    h->busy = true;
    n = nghttp2_session_mem_recv(h->session, data.ptr, data.len);
    h->busy = false;
    if (h->doomed || (n < 0 && nghttp2_is_fatal((int)n))) {
        bns_h2_abort(h); /* not HTTP/2, a flood, or no memory */
        return;
    }
    bns_h2_pump(h);
}

void bns_h2_kick(struct bns_h2 *h)
{
    struct bns_h2_hub *hub = h->hub;

    if (h->busy || h->session == NULL || !bns_list_empty(&h->dirty))
        return;
    if (!hub->posted) {
        hub->posted = true;
        hub->refs++; /* the task's */
        bns_post(hub->env, &hub->flush);
    }
    bns_list_push(&hub->dirty, &h->dirty);
}

/* Takes what nghttp2 has to say, as long as the transport wants it. */
static int collect(struct bns_h2 *h)
{
    while (bns_h2_batch_bytes(h) + bns_stream_queued(h->stream) < BNS_H2_TRANSPORT_MAX) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(h->session, &p);

        if (n < 0)
            return BNS_E_NOMEM;
        if (n == 0)
            return BNS_OK;
        if (bns_h2_batch_copy(h, p, (size_t)n) != BNS_OK)
            return BNS_E_NOMEM;
    }
    h->blocked = true;
    return BNS_OK;
}

/* Calls the handlers that wait for room; false when none did. */
static bool wake_streams(struct bns_h2 *h)
{
    struct bns_list now;
    struct bns_list *n;

    if (h->over && h->queued <= h->hub->queued_max / 2) {
        h->over = false;
        BNS_LIST_EACH(i, &h->streams)
        {
            bns_h2_stream_wake(BNS_CONTAINER(i, struct bns_h2_stream, node));
        }
    }
    if (bns_list_empty(&h->wake))
        return false;
    bns_list_init(&now);
    bns_list_splice(&now, &h->wake);
    while ((n = bns_list_pop(&now)) != NULL) {
        if (!h->doomed)
            h->hub->role->wake(BNS_CONTAINER(n, struct bns_h2_stream, wake));
    }
    return true;
}

void bns_h2_pump(struct bns_h2 *h)
{
    int rv = BNS_OK;
    bool more = true;

    if (h->busy || h->session == NULL || h->closed || !h->open)
        return;
    bns_list_del(&h->dirty);
    h->busy = true;
    for (int i = 0; more && i < PUMP_ROUNDS && rv == BNS_OK && !h->blocked && !h->doomed; i++) {
        rv = collect(h);
        more = rv == BNS_OK && wake_streams(h);
    }
    if (rv == BNS_OK)
        rv = bns_h2_batch_flush(h);
    h->busy = false;
    if (rv != BNS_OK || h->doomed) {
        bns_h2_abort(h);
        return;
    }
    if (h->blocked && bns_stream_queued(h->stream) < BNS_STREAM_LOW_MARK)
        h->blocked = false; /* it has gone out at once: no on_writable will come */
    else if (h->blocked)
        bns_stream_read(h->stream, false);
    if (!h->blocked && more)
        bns_h2_kick(h);
    if (nghttp2_session_want_write(h->session) == 0 &&
        (h->closing || nghttp2_session_want_read(h->session) == 0)) {
        h->closed = true;
        bns_stream_close(h->stream);
    }
}

void bns_h2_close(struct bns_h2 *h)
{
    if (h->session == NULL && !h->closed) {
        h->closed = true;
        bns_stream_close(h->stream);
        return;
    }
    h->closing = true;
    bns_h2_kick(h);
}

void bns_h2_refuse(struct bns_h2 *h, uint32_t code, const char *text)
{
    if (h->closing || h->session == NULL)
        return;
    (void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(h->session), code,
                                (const uint8_t *)text, strlen(text)); /* else closed without */
    bns_h2_close(h);
    if (h->blocked)
        bns_h2_doom(h); /* it does not read, so it need not be told */
}
