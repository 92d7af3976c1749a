/* http_server.c - connections of the HTTP/1.1 server: parse, route, hold back, time out.
 *
 * One request at a time a connection. The parse loop (run) feeds the parser until the input is used
 * up or must wait: for the answer to a request that is complete (pipelining), or for a handler that
 * holds the body back. What arrives meanwhile is kept in `pend`; when that has PEND_BYTES, reading
 * stops and the peer's window fills. The loop goes on by a timer of zero length, never inside the
 * handler's call, so handlers do not nest.
 *
 * A request object holds the parser and its buffers. It is made when the first byte of a message
 * comes and goes back to a small cache when it is answered: an idle connection has none. When the
 * connection is lost while a handler has the request, it stays until the handler ends it.
 *
 * Ends:  a message that is no HTTP, too long or too slow is answered (400, 408, 413, 431, 501...)
 *        and the connection closed, since nobody knows where the next message begins. So is one
 *        whose handler answered before the body was read.
 * Times: head_ns from the first byte of a message to the end of its head; stall_ns without a byte
 *        of the body, or without the peer taking a byte of the answer; idle_ns between messages.
 */
#include "io/http_int.h"

#include <stdio.h>

#define PEND_BYTES (64u * 1024)
#define CACHE_MAX 64u
#define BODY_MAX_DEFAULT (1024u * 1024)

/* ---- requests -------------------------------------------------------------------------------- */
static struct bns_http_req *req_get(struct bns_http_conn *c)
{
    struct bns_http_server *s = c->s;
    struct bns_list *n = bns_list_pop(&s->cache);
    struct bns_http_req *q;

    if (n != NULL) {
        s->cache_count--;
        q = BNS_CONTAINER(n, struct bns_http_req, node);
    } else {
        q = bns_alloc_zero(s->env->alloc, sizeof *q);
        if (q == NULL)
            return NULL;
        bns_http1_init(&q->parser, BNS_HTTP1_REQUEST, s->env->alloc, NULL);
        bns_buf_init(&q->body, s->env->alloc, SIZE_MAX / 2);
        bns_buf_init(&q->extra, s->env->alloc, 64u * 1024);
    }
    q->env = c->env;
    q->c = c;
    return q;
}

static void req_free(struct bns_http_req *q)
{
    bns_http1_free(&q->parser);
    bns_buf_free(&q->body);
    bns_buf_free(&q->extra);
    bns_free(q->env->alloc, q);
}

/* Back to the cache when its parser stands between two messages. */
static void req_put(struct bns_http_server *s, struct bns_http_req *q)
{
    if (!q->body_done || s->cache_count >= CACHE_MAX) {
        req_free(q);
        return;
    }
    if (q->body.cap > PEND_BYTES)
        bns_buf_free(&q->body);
    bns_buf_clear(&q->body);
    bns_buf_clear(&q->extra);
    q->parser.limits.body_bytes = 0;
    memset((char *)q + offsetof(struct bns_http_req, c), 0,
           sizeof *q - offsetof(struct bns_http_req, c));
    bns_list_push(&s->cache, &q->node);
    s->cache_count++;
}

/* ---- the end of a connection ----------------------------------------------------------------- */
static void drain_check(struct bns_http_server *s)
{
    if (s->draining && s->conns_count == 0)
        bns_timer_start(s->env, &s->drain_timer, bns_now_ns(s->env));
}

void bns_http_conn_close(struct bns_http_conn *c, bool now)
{
    c->closing = true;
    bns_timer_stop(c->env, &c->timer);
    bns_timer_stop(c->env, &c->resume);
    if (now)
        bns_stream_reset(c->stream);
    else
        bns_stream_close(c->stream);
}

/* The handler, if one has the request, keeps it. */
static void part(struct bns_http_conn *c)
{
    struct bns_http_req *q = c->q;

    c->q = NULL;
    if (q == NULL)
        return;
    q->c = NULL;
    if (!q->handled || q->ended)
        req_free(q);
    else if (q->on_gone != NULL)
        q->on_gone(q->on_gone_arg); /* may end it */
}

static void on_close(void *arg, int code)
{
    struct bns_http_conn *c = arg;
    struct bns_http_server *s = c->s;

    (void)code; /* whoever waits for an answer is told by part() */
    c->closing = true;
    bns_timer_stop(c->env, &c->timer);
    bns_timer_stop(c->env, &c->resume);
    if (s != NULL) {
        bns_list_del(&c->node);
        s->conns_count--;
        drain_check(s);
    }
    part(c);
    bns_buf_free(&c->pend);
    bns_free(c->env->alloc, c);
}

/* ---- reading --------------------------------------------------------------------------------- */
static void arm(struct bns_http_conn *c, uint64_t ns)
{
    bns_timer_start(c->env, &c->timer, bns_now_ns(c->env) + ns);
}

/* Answers a message that cannot be handled, and closes. */
static void refuse(struct bns_http_req *q, int status, const char *why)
{
    char text[128];

    (void)snprintf(text, sizeof text, "%s\n", why); /* a constant text, it fits */
    q->handled = true;
    q->close = true;
    bns_http_reply_text(q, status, text);
}

static void handle(struct bns_http_conn *c, struct bns_http_req *q)
{
    const struct bns_http_config *cfg = &c->s->cfg;

    q->handled = true;
    if (cfg->before == NULL || !cfg->before(cfg->before_arg, q))
        q->route->fn(q->route->arg, q);
}

static void got_head(struct bns_http_conn *c, struct bns_http_req *q,
                     const struct bns_http1_head *h)
{
    uint64_t body_max;

    q->head_seen = true;
    bns_http1_target(h->target, &q->path, &q->query);
    q->route = bns_http_find_route(c->s, h->method, q->path);
    q->bodiless = bns_slice_eq(h->method, BNS_LIT("HEAD"));
    q->close = !h->keep_alive || c->s->draining;
    body_max = q->route->body_bytes_max != 0 ? q->route->body_bytes_max : BODY_MAX_DEFAULT;
    if (h->has_length && h->length > body_max) {
        refuse(q, 413, "the body is too long");
        return;
    }
    q->parser.limits.body_bytes = body_max; /* chunks are counted by the parser */
    arm(c, c->s->cfg.stall_ns);
    if (h->expect_continue && (h->chunked || h->length > 0)) {
        struct bns_slice go = BNS_LIT("HTTP/1.1 100 Continue\r\n\r\n");
        if (bns_stream_write(c->stream, &go, 1, NULL, NULL) == BNS_OK)
            c->sent += go.len;
    }
    if (q->route->stream)
        handle(c, q);
}

static void got_data(struct bns_http_conn *c, struct bns_http_req *q, struct bns_slice data)
{
    arm(c, c->s->cfg.stall_ns);
    if (!q->route->stream) {
        if (bns_buf_add(&q->body, data.ptr, data.len) != BNS_OK)
            refuse(q, 503, "no memory for the body");
    } else if (q->on_body != NULL) {
        q->on_body(q->on_body_arg, data);
    }
}

static void got_end(struct bns_http_conn *c, struct bns_http_req *q)
{
    q->body_done = true;
    if (!q->route->stream) {
        handle(c, q);
    } else if (q->on_body != NULL) {
        q->on_body(q->on_body_arg, bns_slice(NULL, 0));
    }
}

/* The request was answered: makes room for the next one. */
static void finish(struct bns_http_conn *c)
{
    struct bns_http_req *q = c->q;
    bool close = q->close || !q->body_done || c->s->draining;

    c->q = NULL;
    q->c = NULL;
    req_put(c->s, q);
    if (close)
        bns_http_conn_close(c, false);
    else
        arm(c, c->s->cfg.idle_ns);
}

static bool must_wait(const struct bns_http_req *q)
{
    return q->body_done || q->body_off;
}

static void step(struct bns_http_conn *c, struct bns_http_req *q, struct bns_slice *in, bool *more)
{
    struct bns_http1_event ev;
    int rv = bns_http1_next(&q->parser, in, &ev);

    *more = rv != BNS_E_AGAIN;
    if (rv == BNS_E_AGAIN)
        return;
    if (rv != BNS_OK) {
        if (!q->handled)
            refuse(q, q->parser.status_hint != 0 ? q->parser.status_hint : 400,
                   q->parser.why != NULL ? q->parser.why : "bad request");
        else
            bns_http_conn_close(c, true); /* a streamed body that went wrong */
        return;
    }
    if (ev.kind == BNS_HTTP1_HEAD)
        got_head(c, q, ev.head);
    else if (ev.kind == BNS_HTTP1_DATA)
        got_data(c, q, ev.data);
    else
        got_end(c, q);
}

/* Returns what must wait. */
static struct bns_slice run(struct bns_http_conn *c, struct bns_slice in)
{
    bool more = true;

    BNS_ASSERT(!c->running);
    c->running = true;
    while (more && !c->closing) {
        if (c->q == NULL) {
            if (in.len == 0)
                break;
            c->q = req_get(c);
            if (c->q == NULL) {
                bns_http_conn_close(c, true);
                break;
            }
            arm(c, c->s->cfg.head_ns);
        }
        if (must_wait(c->q))
            break;
        step(c, c->q, &in, &more);
        if (!c->closing && c->q->ended)
            finish(c);
    }
    c->running = false;
    return in;
}

static void stash(struct bns_http_conn *c, struct bns_slice rest)
{
    if (c->closing || rest.len == 0)
        return;
    if (bns_buf_add(&c->pend, rest.ptr, rest.len) != BNS_OK) {
        bns_http_conn_close(c, true);
        return;
    }
    if (c->pend.len >= PEND_BYTES && !c->unread) {
        c->unread = true;
        bns_stream_read(c->stream, false);
    }
}

static void on_data(void *arg, struct bns_slice data)
{
    struct bns_http_conn *c = arg;

    if (c->closing)
        return;
    if (c->pend.len > 0 || (c->q != NULL && must_wait(c->q)))
        stash(c, data);
    else
        stash(c, run(c, data));
}

static void on_resume(void *arg)
{
    struct bns_http_conn *c = arg;
    struct bns_slice rest;

    if (c->closing)
        return;
    rest = run(c, bns_buf_slice(&c->pend));
    if (c->closing)
        return;
    bns_buf_consume(&c->pend, c->pend.len - rest.len);
    if (c->pend.len == 0)
        bns_buf_free(&c->pend);
    if (c->unread && c->pend.len < PEND_BYTES) {
        c->unread = false;
        bns_stream_read(c->stream, true);
    }
}

static void resume_later(struct bns_http_conn *c)
{
    if (!c->running && !c->closing)
        bns_timer_start(c->env, &c->resume, bns_now_ns(c->env));
}

void bns_http_settle(struct bns_http_req *q)
{
    struct bns_http_conn *c = q->c;

    q->ended = true;
    if (c == NULL) {
        req_free(q);
        return;
    }
    if (c->running || c->closing)
        return; /* the loop, or on_close, does it */
    finish(c);
    if (c->pend.len > 0)
        resume_later(c);
}

void bns_http_body_read(struct bns_http_req *q, bool on)
{
    q->body_off = !on;
    if (on && q->c != NULL && !q->body_done)
        resume_later(q->c);
}

static void on_writable(void *arg)
{
    struct bns_http_conn *c = arg;
    struct bns_http_req *q = c->q;

    if (!c->closing && q != NULL && q->handled && !q->ended && q->on_writable != NULL)
        q->on_writable(q->on_writable_arg);
}

static void on_timer(void *arg)
{
    struct bns_http_conn *c = arg;
    struct bns_http_req *q = c->q;
    size_t queued = bns_stream_queued(c->stream);
    uint64_t taken = c->sent > queued ? c->sent - queued : 0;

    if (q == NULL) {
        bns_http_conn_close(c, false);
    } else if (!q->body_done && !q->body_off && !q->handled) {
        refuse(q, 408, "the request came too slowly");
    } else if (!q->body_done && !q->body_off && !q->begun) {
        bns_http_conn_close(c, true); /* a streamed body stopped; the handler learns it */
    } else if (queued > 0 && taken == c->taken_last) {
        bns_http_conn_close(c, true); /* nobody reads the answer */
    } else {
        c->taken_last = queued > 0 ? taken : UINT64_MAX;
        arm(c, c->s->cfg.stall_ns);
    }
}

static const struct bns_stream_events events = {
    .on_data = on_data, .on_writable = on_writable, .on_close = on_close};

void bns_http_server_adopt(struct bns_http_server *s, struct bns_stream *stream,
                           struct bns_slice read_so_far)
{
    struct bns_http_conn *c = NULL;

    if (s->conns_count < s->cfg.connections_max && !s->draining)
        c = bns_alloc_zero(s->env->alloc, sizeof *c);
    if (c == NULL) {
        bns_stream_refuse(stream);
        return;
    }
    c->s = s;
    c->env = s->env;
    c->stream = stream;
    c->taken_last = UINT64_MAX;
    bns_buf_init(&c->pend, s->env->alloc, 16 * PEND_BYTES);
    bns_timer_init(&c->timer, on_timer, c);
    bns_timer_init(&c->resume, on_resume, c);
    bns_list_push(&s->conns, &c->node);
    s->conns_count++;
    bns_stream_set_events(stream, &events, c);
    arm(c, s->cfg.idle_ns);
    if (read_so_far.len > 0)
        on_data(c, read_so_far);
}

/* ---- the server ------------------------------------------------------------------------------ */
static void on_accept(void *arg, struct bns_stream *stream)
{
    bns_http_server_adopt(arg, stream, bns_slice(NULL, 0));
}

static void on_drain_timer(void *arg)
{
    struct bns_http_server *s = arg;

    if (s->conns_count > 0) { /* out of time */
        BNS_LIST_EACH(n, &s->conns)
        bns_http_conn_close(BNS_CONTAINER(n, struct bns_http_conn, node), true);
        return; /* the last on_close comes back here */
    }
    if (s->drained != NULL)
        s->drained(s->drained_arg);
}

int bns_http_server_new(struct bns_env *env, const struct bns_http_config *cfg,
                        struct bns_http_server **out)
{
    struct bns_http_server *s = bns_alloc_zero(env->alloc, sizeof *s);

    if (s == NULL)
        return BNS_E_NOMEM;
    s->env = env;
    if (cfg != NULL)
        s->cfg = *cfg;
    if (s->cfg.connections_max == 0)
        s->cfg.connections_max = 4096;
    if (s->cfg.head_ns == 0)
        s->cfg.head_ns = 10 * BNS_SEC;
    if (s->cfg.idle_ns == 0)
        s->cfg.idle_ns = 60 * BNS_SEC;
    if (s->cfg.stall_ns == 0)
        s->cfg.stall_ns = 30 * BNS_SEC;
    s->date_s = -1;
    bns_list_init(&s->conns);
    bns_list_init(&s->cache);
    bns_buf_init(&s->scratch, env->alloc, 256u * 1024);
    bns_timer_init(&s->drain_timer, on_drain_timer, s);
    *out = s;
    return BNS_OK;
}

int bns_http_server_routes(struct bns_http_server *s, const struct bns_http_route *routes, size_t n)
{
    if (s->tables_count == sizeof s->tables / sizeof s->tables[0])
        return BNS_E_NOMEM;
    s->tables[s->tables_count].v = routes;
    s->tables[s->tables_count++].n = n;
    return BNS_OK;
}

int bns_http_server_listen_tls(struct bns_http_server *s, struct bns_tls *tls, const char *host,
                               uint16_t port, uint16_t *out_port, struct bns_err *err)
{
    const struct bns_tls_listen_options o = {
        .host = host, .port = port, .alpn_http = true, .fn = on_accept, .arg = s};
    struct bns_tls_listener *l = NULL;
    int rv;

    BNS_ASSERT(s->listeners_count < BNS_HTTP_LISTENERS_MAX);
    rv = bns_tls_listen(s->env, tls, &o, &l, err);
    if (rv != BNS_OK)
        return rv;
    s->listeners[s->listeners_count++] = l;
    if (out_port != NULL)
        *out_port = bns_tls_listener_port(l);
    return BNS_OK;
}

int bns_http_server_listen(struct bns_http_server *s, const char *host, uint16_t port,
                           uint16_t *out_port, struct bns_err *err)
{
    return bns_http_server_listen_tls(s, NULL, host, port, out_port, err);
}

static void close_listeners(struct bns_http_server *s)
{
    while (s->listeners_count > 0)
        bns_tls_listener_close(s->listeners[--s->listeners_count]);
}

void bns_http_server_drain(struct bns_http_server *s, uint64_t timeout_ns, void (*done)(void *arg),
                           void *arg)
{
    BNS_ASSERT(!s->draining);
    s->draining = true;
    s->drained = done;
    s->drained_arg = arg;
    close_listeners(s);
    bns_timer_start(s->env, &s->drain_timer, bns_now_ns(s->env) + timeout_ns);
    BNS_LIST_EACH(n, &s->conns)
    {
        struct bns_http_conn *c = BNS_CONTAINER(n, struct bns_http_conn, node);
        if (c->q == NULL && !c->closing)
            bns_http_conn_close(c, false);
    }
    drain_check(s);
}

void bns_http_server_free(struct bns_http_server *s)
{
    struct bns_list *n;

    if (s == NULL)
        return;
    close_listeners(s);
    bns_timer_stop(s->env, &s->drain_timer);
    while ((n = bns_list_pop(&s->conns)) != NULL) {
        struct bns_http_conn *c = BNS_CONTAINER(n, struct bns_http_conn, node);
        BNS_ASSERT(!c->running); /* not from a handler */
        bns_http_conn_close(c, true);
        c->s = NULL;
        part(c);
    }
    while ((n = bns_list_pop(&s->cache)) != NULL)
        req_free(BNS_CONTAINER(n, struct bns_http_req, node));
    bns_buf_free(&s->scratch);
    bns_free(s->env->alloc, s);
}
