/* grpc_ccall.c - one call of the gRPC client.
 *
 * End:     a call ends once: by trailers, a reset, the loss of the connection, its deadline,
 *          cancel, or a response that is not gRPC. From then on input is dropped and the queue is
 *          empty; the stream is taken apart when on_status is delivered (grpc_client.c), because
 *          the end may come from inside the delivery of a message.
 * Status:  grpc-status of the trailers; without one the HTTP status or the HTTP/2 error code is
 *          translated as gRPC's documents "http-grpc-status-mapping" and PROTOCOL-HTTP2 "Errors".
 */
#include "io/grpc_client.h"

#include <stdio.h>

#define POOL_MAX 256u
#define MD_MAX 64u

#define NV(n, v)                                                                                   \
    {                                                                                              \
        (uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), sizeof(n) - 1, sizeof(v) - 1,        \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                           \
    }

static struct bns_grpc_ccall *call_of(struct bns_h2_stream *s)
{
    return (struct bns_grpc_ccall *)(void *)s;
}

/* ---- the end ------------------------------------------------------------------------------- */
static void end_call(struct bns_grpc_ccall *c, int status, const char *text)
{
    if (c->ended)
        return;
    c->ended = true;
    c->status = status;
    if (text != c->message)
        c->message = bns_arena_dup(&c->arena, text, strlen(text));
    bns_timer_stop(c->client->env, &c->timer);
    if (c->s.h != NULL) {
        bns_h2_stream_clear(&c->s);
        bns_h2_stream_deaf(&c->s);
    }
    bns_grpc_client_ended(c->client, c);
}

/* Ends the call before its stream has ended. */
static void break_off(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct bns_h2 *h = c->s.h;

    if (c->ended)
        return;
    if (h != NULL && h->session != NULL && !(c->s.sent && c->s.remote_end)) {
        if (nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, c->s.id, NGHTTP2_CANCEL) != 0)
            bns_h2_doom(h);
        bns_h2_kick(h);
    }
    end_call(c, status, text);
}

/* Takes the call off its connection; no event comes any more. */
static void detach(struct bns_grpc_ccall *c)
{
    struct bns_h2 *h = c->s.h;

    if (h == NULL)
        return;
    if (h->session != NULL)
        (void)nghttp2_session_set_stream_user_data(h->session, c->s.id, NULL); /* gone: fine */
    bns_h2_stream_close(&c->s);
    bns_h2_kick(h); /* it may be the last of a connection that waits to close */
}

static void free_call(struct bns_grpc_ccall *c)
{
    struct bns_grpc_client *client = c->client;

    bns_timer_stop(client->env, &c->timer);
    bns_arena_free(&c->arena);
    if (client->pool_count >= POOL_MAX) {
        bns_free(client->env->alloc, c);
        return;
    }
    c->next = client->pool;
    client->pool = c;
    client->pool_count++;
}

void bns_grpc_ccall_pool_free(struct bns_grpc_client *client)
{
    while (client->pool != NULL) {
        struct bns_grpc_ccall *c = client->pool;
        client->pool = c->next;
        bns_free(client->env->alloc, c);
    }
    client->pool_count = 0;
}

void bns_grpc_ccall_deliver(struct bns_grpc_ccall *c)
{
    BNS_ASSERT(c->ended);
    detach(c);
    c->handler->on_status(c, c->status, c->message == NULL ? "" : c->message);
    free_call(c);
}

static void on_deadline(void *arg)
{
    struct bns_grpc_ccall *c = arg;

    if (c->s.h != NULL)
        c->unsent = !((const struct bns_grpc_cconn *)(const void *)c->s.h)->was_open;
    break_off(c, BNS_GRPC_DEADLINE_EXCEEDED, "deadline exceeded");
}

/* ---- the response -------------------------------------------------------------------------- */
static int small_number(struct bns_slice v)
{
    int n = 0;

    if (v.len == 0 || v.len > 3)
        return -1;
    for (size_t i = 0; i < v.len; i++) {
        if (v.ptr[i] < '0' || v.ptr[i] > '9')
            return -1;
        n = n * 10 + (v.ptr[i] - '0');
    }
    return n;
}

#define IS(name, lit) bns_slice_eq((name), BNS_LIT(lit))

int bns_grpc_ccall_header(struct bns_h2_stream *s, nghttp2_headers_category cat,
                          struct bns_slice name, struct bns_slice value)
{
    struct bns_grpc_ccall *c = call_of(s);

    (void)cat;
    if (c->ended)
        return BNS_OK;
    if (IS(name, ":status")) {
        c->http_status = small_number(value);
        return BNS_OK;
    }
    if (IS(name, "grpc-status")) {
        c->status = small_number(value);
        if (c->status < 0 || c->status >= BNS_GRPC_CODES)
            c->status = BNS_GRPC_UNKNOWN;
        return BNS_OK;
    }
    if (IS(name, "grpc-message")) {
        c->message = bns_grpc_decode_text(&c->arena, value);
        return c->message == NULL ? BNS_E_NOMEM : BNS_OK;
    }
    if (name.ptr[0] == ':')
        return BNS_OK;
    return bns_grpc_field_add(&c->arena, &c->fields, name, value, &c->bad_md);
}

static int status_of_http(int http)
{
    switch (http) {
    case 400:
        return BNS_GRPC_INTERNAL;
    case 401:
        return BNS_GRPC_UNAUTHENTICATED;
    case 403:
        return BNS_GRPC_PERMISSION_DENIED;
    case 404:
        return BNS_GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return BNS_GRPC_UNAVAILABLE;
    default:
        return BNS_GRPC_UNKNOWN;
    }
}

void bns_grpc_ccall_headers_end(struct bns_h2_stream *s, nghttp2_headers_category cat, bool end)
{
    struct bns_grpc_ccall *c = call_of(s);
    struct bns_slice type;
    char text[64];

    if (c->ended || cat != NGHTTP2_HCAT_RESPONSE || (c->http_status >= 100 && c->http_status < 200))
        return;
    if (c->http_status != 200) {
        (void)snprintf(text, sizeof text, "the server answered with HTTP status %d",
                       c->http_status); /* fits */
        break_off(c, status_of_http(c->http_status), text);
        return;
    }
    if (!bns_grpc_field_get(c->fields, "content-type", &type) || type.len < 16 ||
        memcmp(type.ptr, "application/grpc", 16) != 0) {
        break_off(c, BNS_GRPC_UNKNOWN, "the server's answer is not gRPC");
        return;
    }
    if (!end && c->handler->on_open != NULL)
        c->handler->on_open(c);
}

void bns_grpc_ccall_message(struct bns_h2_stream *s, struct bns_slice msg)
{
    struct bns_grpc_ccall *c = call_of(s);

    c->handler->on_message(c, msg);
}

void bns_grpc_ccall_bad(struct bns_h2_stream *s, int status, const char *text)
{
    break_off(call_of(s), status, text);
}

void bns_grpc_ccall_eof(struct bns_h2_stream *s)
{
    struct bns_grpc_ccall *c = call_of(s);

    if (c->status < 0)
        break_off(c, BNS_GRPC_INTERNAL, "the server ended the stream without a status");
    else
        break_off(c, c->status, c->message == NULL ? "" : c->message);
}

int bns_grpc_ccall_last(struct bns_h2_stream *s, uint32_t *data_flags)
{
    (void)s;
    *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    return BNS_OK;
}

void bns_grpc_ccall_sent(struct bns_h2_stream *s)
{
    BNS_ASSERT(s->end);
}

void bns_grpc_ccall_writable(struct bns_h2_stream *s)
{
    struct bns_grpc_ccall *c = call_of(s);

    if (!c->ended && c->handler->on_writable != NULL)
        c->handler->on_writable(c);
}

static void end_by_reset(struct bns_grpc_ccall *c, uint32_t code)
{
    char text[80];
    int status = BNS_GRPC_INTERNAL;

    switch (code) {
    case NGHTTP2_REFUSED_STREAM:
        status = BNS_GRPC_UNAVAILABLE;
        break;
    case NGHTTP2_CANCEL:
        status = BNS_GRPC_CANCELLED;
        break;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        status = BNS_GRPC_RESOURCE_EXHAUSTED;
        break;
    case NGHTTP2_INADEQUATE_SECURITY:
        status = BNS_GRPC_PERMISSION_DENIED;
        break;
    default:
        break;
    }
    (void)snprintf(text, sizeof text, "the server reset the stream: %s",
                   nghttp2_http2_strerror(code)); /* fits */
    end_call(c, status, text);
}

void bns_grpc_ccall_closed(struct bns_h2_stream *s, uint32_t code)
{
    struct bns_grpc_ccall *c = call_of(s);
    struct bns_grpc_cconn *conn = (struct bns_grpc_cconn *)(void *)s->h;
    bool lost = s->h->lost, was_open = conn->was_open;
    int why = s->h->code;
    char text[192];

    bns_h2_stream_close(s);
    if (c->ended)
        return;
    c->unsent = !was_open || (!lost && code == NGHTTP2_REFUSED_STREAM);
    if (c->client->freed) {
        end_call(c, BNS_GRPC_CANCELLED, "the client was closed");
    } else if (lost) {
        (void)snprintf(text, sizeof text, "%s %s: %s",
                       was_open ? "lost the connection to" : "cannot connect to",
                       c->client->authority, bns_err_default_text(why)); /* fits */
        end_call(c, BNS_GRPC_UNAVAILABLE, text);
    } else if (c->status >= 0) {
        end_call(c, c->status, c->message == NULL ? "" : c->message);
    } else {
        end_by_reset(c, code);
    }
}

/* ---- the request --------------------------------------------------------------------------- */
static struct bns_grpc_ccall *new_call(struct bns_grpc_client *client)
{
    struct bns_grpc_ccall *c = client->pool;

    if (c != NULL) {
        client->pool = c->next;
        client->pool_count--;
    } else {
        c = bns_alloc(client->env->alloc, sizeof *c);
        if (c == NULL)
            return NULL;
    }
    memset(c, 0, offsetof(struct bns_grpc_ccall, space));
    c->client = client;
    c->status = -1;
    bns_list_init(&c->node);
    bns_arena_init(&c->arena, client->env->alloc, BNS_GRPC_ARENA_MAX);
    bns_arena_lend(&c->arena, c->space, sizeof c->space);
    bns_timer_init(&c->timer, on_deadline, c);
    return c;
}

static nghttp2_nv nv_of(struct bns_slice name, struct bns_slice value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.ptr, (uint8_t *)(uintptr_t)value.ptr, name.len,
                        value.len, NGHTTP2_NV_FLAG_NONE}; /* nghttp2 copies */
}

static int submit(struct bns_grpc_ccall *c, struct bns_h2 *h, const struct bns_grpc_call_options *o)
{
    static const nghttp2_nv fixed[] = {
        NV(":method", "POST"),  NV(":scheme", "http"),
        NV(":scheme", "https"), NV("content-type", "application/grpc"),
        NV("te", "trailers"),   NV("user-agent", "grpc-c-bonsai/" BNS_VERSION)};
    const size_t fixed_count = sizeof fixed / sizeof fixed[0];
    nghttp2_nv nv[MD_MAX + 8];
    nghttp2_data_provider p = bns_h2_stream_provider(&c->s);
    char timeout[BNS_GRPC_TIMEOUT_BYTES];
    uint64_t now = bns_now_ns(c->client->env);
    size_t n = 0;

    nv[n++] = fixed[0];
    nv[n++] = fixed[c->client->tls == NULL ? 1 : 2];
    nv[n++] = nv_of(BNS_LIT(":path"), bns_slice_str(o->path));
    nv[n++] = nv_of(BNS_LIT(":authority"), bns_slice_str(c->client->authority));
    for (size_t i = 3; i < fixed_count; i++)
        nv[n++] = fixed[i];
    if (o->deadline_ns != 0 && o->deadline_ns != BNS_NEVER) {
        bns_grpc_timeout_format(o->deadline_ns > now ? o->deadline_ns - now : 1, timeout);
        nv[n++] = nv_of(BNS_LIT("grpc-timeout"), bns_slice_str(timeout));
    }
    for (size_t i = 0; i < o->md_count; i++) {
        struct bns_slice v;
        if (bns_grpc_value(&c->arena, &o->md[i], &v) != BNS_OK)
            return BNS_E_NOMEM;
        nv[n++] = nv_of(o->md[i].name, v);
    }
    c->s.id = nghttp2_submit_request(h->session, NULL, nv, n, &p, &c->s);
    return c->s.id > 0 ? BNS_OK : BNS_E_NOMEM;
}

int bns_grpc_call_start(struct bns_grpc_client *client, const struct bns_grpc_call_options *o,
                        const struct bns_grpc_client_handler *h, void *arg,
                        struct bns_grpc_ccall **out)
{
    struct bns_grpc_cconn *conn;
    struct bns_grpc_ccall *c;
    int rv;

    BNS_ASSERT(h->on_message != NULL);
    BNS_ASSERT(h->on_status != NULL);
    if (o->md_count > MD_MAX)
        return BNS_E_TOOBIG;
    rv = bns_grpc_client_conn(client, &conn);
    if (rv != BNS_OK)
        return rv;
    c = new_call(client);
    if (c == NULL)
        return BNS_E_NOMEM;
    c->handler = h;
    c->arg = arg;
    bns_h2_stream_open(&c->s, &conn->h, 0, BNS_GRPC_CLIENT_MSG_MAX);
    c->s.submitted = true;
    rv = submit(c, &conn->h, o);
    if (rv != BNS_OK) {
        bns_h2_stream_close(&c->s);
        free_call(c);
        return rv;
    }
    if (o->deadline_ns != 0 && o->deadline_ns != BNS_NEVER)
        bns_timer_start(client->env, &c->timer, o->deadline_ns);
    bns_h2_kick(&conn->h);
    *out = c;
    return BNS_OK;
}

int bns_grpc_unary(struct bns_grpc_client *client, const struct bns_grpc_call_options *o,
                   struct bns_slice request, const struct bns_grpc_client_handler *h, void *arg)
{
    struct bns_grpc_ccall *c;
    int rv = bns_grpc_call_start(client, o, h, arg, &c);

    if (rv != BNS_OK)
        return rv;
    rv = bns_h2_stream_copy(&c->s, request);
    if (rv != BNS_OK) { /* as if it had never been started */
        break_off(c, BNS_GRPC_CANCELLED, "");
        bns_list_del(&c->node);
        detach(c);
        free_call(c);
        return rv;
    }
    bns_h2_stream_end(&c->s);
    return BNS_OK;
}

/* ---- what owners call ---------------------------------------------------------------------- */
void *bns_grpc_ccall_arg(const struct bns_grpc_ccall *c)
{
    return c->arg;
}

bool bns_grpc_ccall_trailer(const struct bns_grpc_ccall *c, const char *name, struct bns_slice *out)
{
    return bns_grpc_field_get(c->fields, name, out);
}

bool bns_grpc_ccall_unsent(const struct bns_grpc_ccall *c)
{
    return c->unsent;
}

int bns_grpc_ccall_send(struct bns_grpc_ccall *c, const struct bns_slice *v, size_t n,
                        bns_release_fn *release, void *arg)
{
    return c->ended ? BNS_E_OFF : bns_h2_stream_send(&c->s, v, n, release, arg);
}

int bns_grpc_ccall_send_copy(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    return c->ended ? BNS_E_OFF : bns_h2_stream_copy(&c->s, msg);
}

size_t bns_grpc_ccall_queued(const struct bns_grpc_ccall *c)
{
    return c->s.queued;
}

void bns_grpc_ccall_half_close(struct bns_grpc_ccall *c)
{
    if (!c->ended && !c->s.end)
        bns_h2_stream_end(&c->s);
}

void bns_grpc_ccall_read(struct bns_grpc_ccall *c, bool on)
{
    if (!c->ended)
        bns_h2_stream_read(&c->s, on);
}

void bns_grpc_ccall_cancel(struct bns_grpc_ccall *c)
{
    break_off(c, BNS_GRPC_CANCELLED, "the call was cancelled");
}
