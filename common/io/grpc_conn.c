/* grpc_conn.c - one connection of a gRPC server: greeting, keepalive, drain.
 *
 * Greeting: SETTINGS go out at once when the port speaks only HTTP/2 (clients wait for them before
 *           they send a request). When it also speaks HTTP/1.1 they go out as soon as the first
 *           bytes can only be the preface "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": an HTTP/1.1 client
 *           must not be sent frames. Other bytes: the stream is handed to on_http1.
 * Timer:    one a connection, set for the next thing that can be due, and checked then: bytes that
 *           come in only note the time. Due are: the greeting (10 s: a JVM on a loaded machine has
 *           been seen to take over a second to acknowledge SETTINGS), the keepalive PING, its
 *           answer, and the round trip of a drain.
 * Drain:    GOAWAY(2^31-1) and PING; at its acknowledgement (or 1 s later) GOAWAY with the last id
 *           that was taken; closed when the last call is through.
 */
#include "io/grpc_impl.h"

#define DRAIN_TRIP_NS (1 * BNS_SEC)

static const uint8_t drain_ping[8] = {'b', 'n', 's', 'd', 'r', 'a', 'i', 'n'};
static const char preface[] = NGHTTP2_CLIENT_MAGIC;

static struct bns_grpc_conn *conn_of(struct bns_h2 *h)
{
    return (struct bns_grpc_conn *)(void *)h;
}

static void arm(struct bns_grpc_conn *c)
{
    struct bns_grpc_server *s = c->server;
    uint64_t due;

    if (s == NULL)
        return;
    if (c->state != BNS_GRPC_UP)
        due = c->since_ns + BNS_GRPC_HANDSHAKE_NS;
    else if (c->draining && !c->goaway_sent)
        due = c->since_ns + DRAIN_TRIP_NS;
    else if (c->pinged_ns != 0)
        due = c->pinged_ns + s->cfg.keepalive_timeout_ns;
    else
        due = c->h.recv_ns + s->cfg.keepalive_ns;
    bns_timer_start(s->env, &c->timer, due);
}

static void last_goaway(struct bns_grpc_conn *c)
{
    nghttp2_session *session = c->h.session;

    if (c->goaway_sent || session == NULL)
        return;
    c->goaway_sent = true;
    (void)nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(session), NGHTTP2_NO_ERROR,
                                NULL, 0); /* no memory: closed without */
    bns_h2_kick(&c->h);
    bns_grpc_conn_idle(c);
}

static void on_timer(void *arg)
{
    struct bns_grpc_conn *c = arg;
    struct bns_grpc_server *s = c->server;
    uint64_t now = bns_now_ns(s->env);

    if (c->state != BNS_GRPC_UP) {
        bns_h2_abort(&c->h); /* it never said what it is */
        return;
    }
    if (c->draining && !c->goaway_sent) {
        last_goaway(c);
    } else if (c->pinged_ns != 0 && c->h.recv_ns < c->pinged_ns) {
        bns_h2_abort(&c->h);
        return;
    } else {
        c->pinged_ns = 0;
        if (now >= c->h.recv_ns + s->cfg.keepalive_ns &&
            nghttp2_submit_ping(c->h.session, NGHTTP2_FLAG_NONE, NULL) == 0) {
            c->pinged_ns = now;
            bns_h2_kick(&c->h);
        }
    }
    arm(c);
}

static void on_control(struct bns_h2 *h, const nghttp2_frame *f)
{
    struct bns_grpc_conn *c = conn_of(h);
    bool ack = (f->hd.flags & NGHTTP2_FLAG_ACK) != 0;

    if (f->hd.type == NGHTTP2_SETTINGS && ack && c->state == BNS_GRPC_GREETING) {
        c->state = BNS_GRPC_UP;
        arm(c);
    }
    if (f->hd.type == NGHTTP2_PING && ack && c->draining &&
        memcmp(f->ping.opaque_data, drain_ping, sizeof drain_ping) == 0)
        last_goaway(c);
}

static void on_gone(struct bns_h2 *h, int code)
{
    struct bns_grpc_conn *c = conn_of(h);
    struct bns_grpc_server *s = c->server;
    struct bns_env *env = h->hub->env;

    (void)code;
    if (s != NULL) {
        bns_timer_stop(env, &c->timer);
        bns_list_del(&c->node);
    }
    bns_free(env->alloc, c);
    if (s != NULL)
        bns_grpc_conn_gone(s);
}

const struct bns_h2_role bns_grpc_role = {
    .begin = bns_grpc_call_begin,
    .header = bns_grpc_call_header,
    .headers_end = bns_grpc_call_headers_end,
    .message = bns_grpc_call_message,
    .bad = bns_grpc_call_bad,
    .half_close = bns_grpc_call_half_close,
    .last = bns_grpc_call_last,
    .ended = bns_grpc_call_sent,
    .writable = bns_grpc_call_writable,
    .wake = bns_grpc_call_wake,
    .closed = bns_grpc_call_closed,
    .control = on_control,
    .gone = on_gone,
};

/* Our SETTINGS, before anything else. */
static void greet(struct bns_grpc_conn *c)
{
    nghttp2_settings_entry v[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->server->cfg.streams_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, BNS_H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, BNS_H2_HEADER_LIST_MAX},
    };

    c->state = BNS_GRPC_GREETING;
    if (bns_h2_start(&c->h, v, sizeof v / sizeof v[0]) != BNS_OK) {
        bns_h2_abort(&c->h);
        return;
    }
    bns_h2_pump(&c->h);
}

/* The stream goes to the HTTP/1.1 server; this connection is forgotten. */
static void hand_over(struct bns_grpc_conn *c, struct bns_slice data)
{
    struct bns_grpc_server *s = c->server;
    struct bns_h2_hub *hub = c->h.hub;

    bns_timer_stop(s->env, &c->timer);
    bns_list_del(&c->node);
    s->cfg.on_http1(s->cfg.arg, c->h.stream, data);
    bns_free(s->env->alloc, c);
    bns_grpc_conn_gone(s);
    bns_h2_hub_put(hub);
}

/* Not HTTP/2: `old` bytes were seen before `data`. */
static void other(struct bns_grpc_conn *c, size_t old, struct bns_slice data)
{
    struct bns_buf b;

    if (c->server->cfg.on_http1 == NULL || c->server->draining ||
        (old == 0 &&
         bns_tls_misdirected(c->server->env, c->h.stream, data, &c->server->tls_log_ns))) {
        bns_h2_abort(&c->h);
        return;
    }
    if (old == 0) {
        hand_over(c, data);
        return;
    }
    bns_buf_init(&b, c->server->env->alloc, old + data.len);
    if (bns_buf_add(&b, c->sniff, old) == BNS_OK && bns_buf_add(&b, data.ptr, data.len) == BNS_OK)
        hand_over(c, bns_buf_slice(&b));
    else
        bns_h2_abort(&c->h);
    bns_buf_free(&b);
}

/* Collects bytes until they are, or cannot be, the preface. */
static void sniff(struct bns_grpc_conn *c, struct bns_slice data)
{
    size_t old = c->sniffed, room = sizeof c->sniff - old;
    size_t n = data.len < room ? data.len : room;

    if (n == 0 || memcmp(preface + old, data.ptr, n) != 0) {
        if (n > 0)
            other(c, old, data);
        return;
    }
    memcpy(c->sniff + old, data.ptr, n);
    c->sniffed = (uint8_t)(old + n);
    if (c->sniffed < sizeof c->sniff)
        return;
    greet(c);
    bns_h2_feed(&c->h, bns_slice(c->sniff, c->sniffed));
    if (n < data.len)
        bns_h2_feed(&c->h, bns_slice_skip(data, n));
}

static void on_data(void *arg, struct bns_slice data)
{
    struct bns_grpc_conn *c = arg;

    if (c->state == BNS_GRPC_SNIFF)
        sniff(c, data);
    else
        bns_h2_feed(&c->h, data);
}

void bns_grpc_conn_accept(struct bns_grpc_server *s, struct bns_stream *stream,
                          struct bns_slice data)
{
    struct bns_stream_events ev = bns_h2_events;
    struct bns_grpc_conn *c = NULL;

    if (s->conns_count < s->cfg.connections_max && !s->draining)
        c = bns_alloc_zero(s->env->alloc, sizeof *c);
    if (c == NULL) {
        bns_stream_refuse(stream);
        return;
    }
    ev.on_data = on_data;
    bns_h2_init(&c->h, s->hub, stream);
    c->h.open = true;
    c->server = s;
    c->since_ns = bns_now_ns(s->env);
    bns_timer_init(&c->timer, on_timer, c);
    bns_list_push(&s->conns, &c->node);
    s->conns_count++;
    bns_gauge_set(s->conns_gauge, (double)s->conns_count);
    arm(c);
    bns_stream_set_events(stream, &ev, &c->h);
    if (s->cfg.on_http1 == NULL)
        greet(c);
    if (data.len > 0)
        on_data(c, data);
}

/* ---- drain --------------------------------------------------------------------------------- */
void bns_grpc_conn_drain(struct bns_grpc_conn *c)
{
    nghttp2_session *session = c->h.session;

    if (c->draining)
        return;
    c->draining = true;
    if (session == NULL) { /* still sniffing */
        bns_h2_abort(&c->h);
        return;
    }
    c->since_ns = bns_now_ns(c->server->env);
    if (nghttp2_submit_shutdown_notice(session) != 0 ||
        nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, drain_ping) != 0) {
        bns_h2_abort(&c->h);
        return;
    }
    bns_h2_kick(&c->h);
    arm(c);
}

void bns_grpc_conn_idle(struct bns_grpc_conn *c)
{
    if (c->draining && c->goaway_sent && c->h.streams_count == 0 && !c->h.lost)
        bns_h2_close(&c->h);
}
