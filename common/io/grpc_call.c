/* grpc_call.c - one call on the server, from its HEADERS to its last trailer.
 *
 * States:  a call is `started` once its method is known and may run, `told` once a function of the
 *          handler was called with it; `finished` when the handler said so; `ended` when on_end ran
 *          (or must not: the handler was never told); detached (neither s.h nor sink)
 *          when its stream is gone. It is freed when it is finished, ended and detached.
 * Local:   a call that came another way (grpc_local.h) has a sink instead of a stream; the handler
 *          sees no difference.
 * Waiting: while the connection is over its byte budget a new call is not started; its input is
 *          held unconsumed. At most BNS_GRPC_HELD_MAX wait, the next are refused (safe to retry).
 * Deadline: status 4 goes out when it passes, whatever the handler does; see grpc.h, "Life".
 * Cardinality: unary and server-stream methods take exactly one message; none or two is status 12.
 * Memory:  call, arena and metadata are one block, recycled by the server.
 */
#include "io/grpc_impl.h"

#include <stdio.h>

#define POOL_MAX 256u

static struct bns_grpc_call *call_of(struct bns_h2_stream *s)
{
    return (struct bns_grpc_call *)(void *)s;
}

static struct bns_grpc_conn *conn_of(struct bns_h2 *h)
{
    return (struct bns_grpc_conn *)(void *)h;
}

/* ---- life ---------------------------------------------------------------------------------- */
static bool attached(const struct bns_grpc_call *c)
{
    return c->s.h != NULL || c->sink != NULL;
}

static void maybe_free(struct bns_grpc_call *c)
{
    struct bns_grpc_server *s = c->server;

    if (c->depth > 0 || !c->ended || !c->finished || attached(c))
        return;
    bns_arena_free(&c->arena);
    if (s != NULL)
        bns_list_del(&c->node);
    if (s == NULL || s->pool_count >= POOL_MAX) {
        bns_free(c->alloc, c);
        return;
    }
    c->next = s->pool;
    s->pool = c;
    s->pool_count++;
}

void bns_grpc_call_pool_free(struct bns_grpc_server *s)
{
    while (s->pool != NULL) {
        struct bns_grpc_call *c = s->pool;
        s->pool = c->next;
        bns_free(c->alloc, c);
    }
    s->pool_count = 0;
}

void bns_grpc_call_leave(struct bns_grpc_call *c)
{
    BNS_ASSERT(c->depth > 0);
    c->depth--;
    maybe_free(c);
}

static void tell_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    BNS_ASSERT(!c->ended);
    c->ended = true;
    bns_timer_stop(c->env, &c->timer);
    bns_grpc_unhold(c);
    if (!c->told) { /* the handler does not know the call: it owes no finish */
        c->finished = true;
        return;
    }
    c->depth++;
    if (c->handler->on_end != NULL)
        c->handler->on_end(c, why);
    c->depth--;
}

static void count(struct bns_grpc_call *c, int status)
{
    if (c->counted || c->server == NULL)
        return;
    c->counted = true;
    bns_grpc_count(c->server, c->method, status, c->began_ns);
}

/* The last resort when there is no memory for an answer. */
static void reset(struct bns_grpc_call *c, uint32_t code)
{
    bns_h2_stream_deaf(&c->s); /* what came with the message that failed is not delivered */
    if (nghttp2_submit_rst_stream(c->s.h->session, NGHTTP2_FLAG_NONE, c->s.id, code) != 0)
        bns_h2_doom(c->s.h);
    bns_h2_kick(c->s.h);
}

/* Sends the trailers that were built, after what is queued. */
static void send_trailers(struct bns_grpc_call *c)
{
    int rv = BNS_OK;

    bns_h2_stream_deaf(&c->s);
    if (c->s.submitted)
        bns_h2_stream_end(&c->s);
    else
        rv = bns_grpc_submit_only(c);
    if (rv != BNS_OK)
        reset(c, NGHTTP2_INTERNAL_ERROR);
    bns_h2_kick(c->s.h);
}

static void fail_stream(struct bns_grpc_call *c, int status, const char *text)
{
    bns_h2_stream_clear(&c->s);
    bns_h2_stream_deaf(&c->s);
    if (bns_grpc_trailers(c, status, text, NULL, 0) == BNS_OK)
        send_trailers(c);
    else
        reset(c, NGHTTP2_INTERNAL_ERROR);
}

void bns_grpc_call_fail(struct bns_grpc_call *c, int status, const char *text,
                        enum bns_grpc_end why)
{
    if (c->ended || c->finished || !attached(c))
        return;
    if (c->sink != NULL) {
        c->status = status;
        c->sink->finish(c->sink_arg, status, text, true);
    } else {
        fail_stream(c, status, text);
    }
    tell_end(c, why);
    maybe_free(c);
}

static void on_deadline(void *arg)
{
    bns_grpc_call_fail(arg, BNS_GRPC_DEADLINE_EXCEEDED, "context deadline exceeded",
                       BNS_GRPC_END_DEADLINE);
}

/* ---- the request --------------------------------------------------------------------------- */
struct bns_grpc_call *bns_grpc_call_new(struct bns_grpc_server *s)
{
    struct bns_grpc_call *c = s->pool;

    if (c != NULL) {
        s->pool = c->next;
        s->pool_count--;
    } else {
        c = bns_alloc(s->env->alloc, sizeof *c);
        if (c == NULL)
            return NULL;
    }
    memset(c, 0, offsetof(struct bns_grpc_call, space));
    c->server = s;
    c->alloc = s->env->alloc;
    c->env = s->env;
    c->deadline = BNS_NEVER;
    bns_arena_init(&c->arena, c->alloc, BNS_GRPC_ARENA_MAX);
    bns_arena_lend(&c->arena, c->space, sizeof c->space);
    bns_timer_init(&c->timer, on_deadline, c);
    bns_list_push(&s->calls, &c->node);
    return c;
}

int bns_grpc_call_begin(struct bns_h2 *h, int32_t id)
{
    struct bns_grpc_server *s = conn_of(h)->server;
    struct bns_grpc_call *c;

    if (s == NULL || h->closing)
        return BNS_E_SHUTDOWN;
    c = bns_grpc_call_new(s);
    if (c == NULL)
        return BNS_E_NOMEM;
    bns_h2_stream_open(&c->s, h, id, BNS_GRPC_MSG_MAX);
    (void)nghttp2_session_set_stream_user_data(h->session, id, &c->s); /* the stream exists */
    return BNS_OK;
}

static int keep(struct bns_grpc_call *c, struct bns_slice *dst, struct bns_slice v)
{
    void *p = bns_arena_dup(&c->arena, v.len == 0 ? (const void *)"" : v.ptr, v.len);

    *dst = bns_slice(p, v.len);
    return p == NULL ? BNS_E_NOMEM : BNS_OK;
}

static int set_timeout(struct bns_grpc_call *c, struct bns_slice v)
{
    uint64_t ns, now = bns_now_ns(c->env);

    if (bns_grpc_timeout_parse(v, &ns) != BNS_OK)
        c->bad_md = true;
    else
        c->deadline = ns > BNS_NEVER - 1 - now ? BNS_NEVER : now + ns;
    return BNS_OK;
}

#define IS(name, lit) bns_slice_eq((name), BNS_LIT(lit))

int bns_grpc_call_header(struct bns_h2_stream *s, nghttp2_headers_category cat,
                         struct bns_slice name, struct bns_slice value)
{
    struct bns_grpc_call *c = call_of(s);

    if (cat != NGHTTP2_HCAT_REQUEST || name.len == 0)
        return BNS_OK; /* trailers of a request mean nothing in gRPC */
    if (name.ptr[0] == ':') {
        if (IS(name, ":path"))
            return keep(c, &c->path, value);
        if (IS(name, ":method"))
            c->post = IS(value, "POST");
        return BNS_OK;
    }
    if (IS(name, "content-type"))
        return keep(c, &c->type, value);
    if (IS(name, "te") || IS(name, "grpc-accept-encoding") || IS(name, "grpc-encoding"))
        return BNS_OK;
    if (IS(name, "grpc-timeout"))
        return set_timeout(c, value);
    return bns_grpc_field_add(&c->arena, &c->fields, name, value, &c->bad_md);
}

static bool is_grpc(struct bns_slice type)
{
    static const char want[] = "application/grpc";
    size_t n = sizeof want - 1;

    if (type.len < n || memcmp(type.ptr, want, n) != 0)
        return false;
    return type.len == n || type.ptr[n] == '+' || type.ptr[n] == ';';
}

static void refuse_http(struct bns_grpc_call *c, const char *status)
{
    bns_h2_stream_deaf(&c->s);
    c->counted = true; /* not a call */
    if (bns_grpc_submit_http(c, status) != BNS_OK)
        reset(c, NGHTTP2_INTERNAL_ERROR);
    tell_end(c, BNS_GRPC_END_RESET);
}

static void refuse_unknown(struct bns_grpc_call *c)
{
    char text[512];
    struct bns_slice path = c->path, service, method;
    size_t cut = path.len;

    while (cut > 0 && path.ptr[cut - 1] != '/')
        cut--;
    if (cut < 2 || path.ptr[0] != '/') {
        (void)snprintf(text, sizeof text, "malformed method name: \"%.*s\"",
                       (int)(path.len < 400 ? path.len : 400), (const char *)path.ptr); /* cut */
        bns_grpc_call_fail(c, BNS_GRPC_UNIMPLEMENTED, text, BNS_GRPC_END_RESET);
        return;
    }
    service = bns_slice(path.ptr + 1, cut - 2);
    method = bns_slice_skip(path, cut);
    if (bns_grpc_has_service(c->server, service))
        (void)snprintf(text, sizeof text, "unknown method %.*s for service %.*s",
                       (int)(method.len < 200 ? method.len : 200), (const char *)method.ptr,
                       (int)(service.len < 200 ? service.len : 200),
                       (const char *)service.ptr); /* cut */
    else
        (void)snprintf(text, sizeof text, "unknown service %.*s",
                       (int)(service.len < 400 ? service.len : 400),
                       (const char *)service.ptr); /* cut */
    bns_grpc_call_fail(c, BNS_GRPC_UNIMPLEMENTED, text, BNS_GRPC_END_RESET);
}

bool bns_grpc_call_prepare(struct bns_grpc_call *c)
{
    c->method = bns_grpc_find(c->server, c->path);
    if (c->method == NULL) {
        refuse_unknown(c);
        return false;
    }
    c->handler = &c->method->m->handler;
    c->handler_arg = c->method->m->arg;
    if (c->bad_md)
        bns_grpc_call_fail(c, BNS_GRPC_INTERNAL, "malformed grpc-timeout or binary metadata",
                           BNS_GRPC_END_RESET);
    return !c->bad_md;
}

/* Whether one more call of this method is allowed on the connection. */
static bool stream_allowed(const struct bns_grpc_call *c)
{
    uint32_t n = 0;

    if (c->method->m->streams_max == 0)
        return true;
    BNS_LIST_EACH(i, &c->s.h->streams)
    {
        struct bns_grpc_call *o = call_of(BNS_CONTAINER(i, struct bns_h2_stream, node));
        n += o != c && o->method == c->method;
    }
    return n < c->method->m->streams_max;
}

void bns_grpc_call_run(struct bns_grpc_call *c)
{
    if (bns_grpc_admitted(c))
        bns_grpc_call_begin_handler(c);
}

void bns_grpc_call_begin_handler(struct bns_grpc_call *c)
{
    c->started = true;
    bns_counter_add(c->method->started, 1);
    if (c->method->seconds != NULL)
        c->began_ns = bns_now_ns(c->env);
    if (c->handler->on_start == NULL)
        return;
    c->told = true;
    c->depth++;
    c->handler->on_start(c);
    bns_grpc_call_leave(c);
}

/* Not taken: HTTP/2's way to say that it may be tried again. */
static void refuse_stream(struct bns_grpc_call *c)
{
    reset(c, NGHTTP2_REFUSED_STREAM);
    tell_end(c, BNS_GRPC_END_RESET);
}

/* The connection is over its budget: the call waits, or is turned away for a retry. */
static void wait_for_room(struct bns_grpc_call *c)
{
    struct bns_grpc_conn *conn = conn_of(c->s.h);

    if (conn->waiting >= BNS_GRPC_HELD_MAX) {
        refuse_stream(c);
        return;
    }
    conn->waiting++;
    c->waiting = true;
    c->s.paused = true;
}

void bns_grpc_call_headers_end(struct bns_h2_stream *s, nghttp2_headers_category cat, bool end)
{
    struct bns_grpc_call *c = call_of(s);

    (void)end;
    if (cat != NGHTTP2_HCAT_REQUEST || c->ended) /* ended: by a drain, between two of its headers */
        return;
    if (s->h->streams_count > BNS_GRPC_CALLS_MAX) {
        refuse_stream(c);
        return;
    }
    if (!c->post) {
        refuse_http(c, "405");
        return;
    }
    if (!is_grpc(c->type)) {
        refuse_http(c, "415");
        return;
    }
    if (!bns_grpc_call_prepare(c))
        return;
    if (c->method->m->msg_bytes_max != 0) {
        s->split.bytes_max = c->method->m->msg_bytes_max;
        s->split.body.max = c->method->m->msg_bytes_max;
    }
    if (!stream_allowed(c)) {
        bns_grpc_call_fail(c, BNS_GRPC_RESOURCE_EXHAUSTED,
                           "too many calls of this method on this connection", BNS_GRPC_END_RESET);
        return;
    }
    if (c->deadline != BNS_NEVER)
        bns_timer_start(c->env, &c->timer, c->deadline);
    if (s->h->over)
        wait_for_room(c);
    else
        bns_grpc_call_run(c);
}

/* ---- events of the stream ------------------------------------------------------------------ */
static bool one_message(const struct bns_grpc_call *c)
{
    return c->method->m->kind == BNS_GRPC_UNARY || c->method->m->kind == BNS_GRPC_SERVER_STREAM;
}

void bns_grpc_call_message(struct bns_h2_stream *s, struct bns_slice msg)
{
    struct bns_grpc_call *c = call_of(s);

    BNS_ASSERT(c->started);
    BNS_ASSERT(!c->finished && !c->ended);
    c->messages++;
    bns_counter_add(c->method->received, 1);
    if (one_message(c) && c->messages > 1) {
        bns_grpc_call_fail(c, BNS_GRPC_UNIMPLEMENTED,
                           "more than one request message for a method that takes one",
                           BNS_GRPC_END_RESET);
        return;
    }
    c->told = true;
    c->depth++;
    c->handler->on_message(c, msg);
    bns_grpc_call_leave(c);
}

void bns_grpc_call_bad(struct bns_h2_stream *s, int status, const char *text)
{
    bns_grpc_call_fail(call_of(s), status, text, BNS_GRPC_END_RESET);
}

void bns_grpc_call_half_close(struct bns_h2_stream *s)
{
    struct bns_grpc_call *c = call_of(s);

    BNS_ASSERT(!c->finished && !c->ended);
    if (one_message(c) && c->messages == 0) {
        bns_grpc_call_fail(c, BNS_GRPC_UNIMPLEMENTED, "no request message", BNS_GRPC_END_RESET);
        return;
    }
    if (c->handler->on_half_close == NULL)
        return;
    c->told = true;
    c->depth++;
    c->handler->on_half_close(c);
    bns_grpc_call_leave(c);
}

int bns_grpc_call_last(struct bns_h2_stream *s, uint32_t *data_flags)
{
    struct bns_grpc_call *c = call_of(s);

    *data_flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return nghttp2_submit_trailer(s->h->session, s->id, c->trailers, c->trailers_count) == 0
               ? BNS_OK
               : BNS_E_NOMEM;
}

void bns_grpc_call_sent(struct bns_h2_stream *s)
{
    struct bns_grpc_call *c = call_of(s);

    count(c, c->status);
    /* Without this a client whose half is open would keep flow-control state for ever. */
    if (!s->remote_end)
        reset(c, NGHTTP2_NO_ERROR);
}

void bns_grpc_call_writable(struct bns_h2_stream *s)
{
    struct bns_grpc_call *c = call_of(s);

    if (!c->started || c->ended || c->finished || c->handler->on_writable == NULL)
        return;
    c->depth++;
    c->handler->on_writable(c);
    bns_grpc_call_leave(c);
}

static void no_longer_waiting(struct bns_grpc_call *c)
{
    if (!c->waiting)
        return;
    c->waiting = false;
    conn_of(c->s.h)->waiting--;
}

void bns_grpc_call_wake(struct bns_h2_stream *s)
{
    struct bns_grpc_call *c = call_of(s);

    if (c->waiting && !c->ended) {
        if (s->h->over)
            return;
        no_longer_waiting(c);
        s->paused = false;
        bns_grpc_call_run(c);
    }
    bns_h2_stream_woken(s);
}

void bns_grpc_call_detached(struct bns_grpc_call *c, int status, enum bns_grpc_end why)
{
    bns_timer_stop(c->env, &c->timer);
    count(c, status);
    if (!c->ended)
        tell_end(c, c->finished ? BNS_GRPC_END_DONE : why);
    maybe_free(c);
}

void bns_grpc_call_closed(struct bns_h2_stream *s, uint32_t code)
{
    struct bns_grpc_call *c = call_of(s);
    struct bns_grpc_conn *conn = conn_of(s->h);
    bool lost = s->h->lost;

    (void)code;
    no_longer_waiting(c);
    bns_h2_stream_close(s);
    bns_grpc_call_detached(c, lost ? BNS_GRPC_UNAVAILABLE : BNS_GRPC_CANCELLED,
                           lost ? BNS_GRPC_END_CLOSED : BNS_GRPC_END_RESET);
    bns_grpc_conn_idle(conn);
}

/* ---- what handlers call -------------------------------------------------------------------- */
bool bns_grpc_over(const struct bns_grpc_call *c)
{
    if (c->sink != NULL)
        return c->server != NULL && c->sink->queued(c->sink_arg) > c->server->cfg.queued_bytes_max;
    return c->s.h != NULL && c->s.h->over;
}

void *bns_grpc_arg(const struct bns_grpc_call *c)
{
    return c->handler_arg;
}

void bns_grpc_set_ctx(struct bns_grpc_call *c, void *ctx)
{
    c->ctx = ctx;
}

void *bns_grpc_ctx(const struct bns_grpc_call *c)
{
    return c->ctx;
}

struct bns_arena *bns_grpc_arena(struct bns_grpc_call *c)
{
    return &c->arena;
}

uint64_t bns_grpc_deadline(const struct bns_grpc_call *c)
{
    return c->deadline;
}

bool bns_grpc_metadata(const struct bns_grpc_call *c, const char *name, struct bns_slice *out)
{
    return bns_grpc_field_get(c->fields, name, out);
}

bool bns_grpc_peer_cn(const struct bns_grpc_call *c, char *out, size_t out_len)
{
    return c->s.h != NULL && c->s.h->stream != NULL &&
           bns_tls_peer_cn(c->s.h->stream, out, out_len);
}

void bns_grpc_peer(const struct bns_grpc_call *c, struct bns_net_addr *out)
{
    *out = (struct bns_net_addr){.port = 0};
    if (c->sink != NULL)
        c->sink->peer(c->sink_arg, out);
    else if (c->s.h != NULL && c->s.h->stream != NULL)
        bns_stream_peer(c->s.h->stream, out);
}

size_t bns_grpc_queued(const struct bns_grpc_call *c)
{
    return c->sink != NULL ? c->sink->queued(c->sink_arg) : c->s.queued;
}

void bns_grpc_read(struct bns_grpc_call *c, bool on)
{
    if (!c->ended && c->sink != NULL)
        c->sink->read(c->sink_arg, on);
    else if (!c->ended && c->s.h != NULL)
        bns_h2_stream_read(&c->s, on);
}

/* Response headers go out with the first message. */
static int open_response(struct bns_grpc_call *c)
{
    BNS_ASSERT(!c->finished);
    if (c->ended || !attached(c) || c->server == NULL)
        return BNS_E_OFF;
    return c->sink != NULL || c->s.submitted ? BNS_OK : bns_grpc_submit_headers(c);
}

int bns_grpc_send(struct bns_grpc_call *c, const struct bns_slice *v, size_t n,
                  bns_release_fn *release, void *arg)
{
    int rv = open_response(c);

    if (rv == BNS_OK)
        rv = c->sink != NULL ? c->sink->send(c->sink_arg, v, n, release, arg)
                             : bns_h2_stream_send(&c->s, v, n, release, arg);
    if (rv == BNS_OK)
        bns_counter_add(c->method->sent, 1);
    return rv;
}

int bns_grpc_send_copy(struct bns_grpc_call *c, struct bns_slice msg)
{
    int rv = open_response(c);

    if (rv == BNS_OK)
        rv = c->sink != NULL ? bns_grpc_local_copy(c, msg) : bns_h2_stream_copy(&c->s, msg);
    if (rv == BNS_OK)
        bns_counter_add(c->method->sent, 1);
    return rv;
}

void bns_grpc_finish(struct bns_grpc_call *c, int status, const char *text,
                     const struct bns_grpc_md *trailers, size_t trailers_count)
{
    int rv = BNS_OK;

    BNS_ASSERT(c->started);
    BNS_ASSERT(!c->finished);
    c->finished = true;
    if (c->ended || !attached(c)) {
        maybe_free(c);
        return;
    }
    bns_timer_stop(c->env, &c->timer);
    if (c->sink != NULL) {
        c->status = status;
        c->sink->finish(c->sink_arg, status, text, false);
        return;
    }
    rv = bns_grpc_trailers(c, status, text, trailers, trailers_count);
    if (rv == BNS_OK && status == BNS_GRPC_OK && !c->s.submitted)
        rv = bns_grpc_submit_headers(c);
    if (rv == BNS_OK)
        send_trailers(c);
    else
        reset(c, NGHTTP2_INTERNAL_ERROR);
}
