/* grpc_client.c - a gRPC client: one connection that is dialled when it is needed.
 *
 * Connections: calls go to `current`. A connection that is lost, was told GOAWAY or has used up its
 *          stream ids is no longer current; its open calls go on, and it closes after the last.
 * Ends:    a call that ended waits in `ended` until a task of the client, in a later turn, calls
 *          its on_status. So on_status runs with nothing of this module on the stack, and may start
 *          calls or free the client.
 * Life:    the struct stays, empty, while its task is posted.
 */
#include "io/grpc_client.h"

#include <stdio.h>

static struct bns_grpc_cconn *conn_of(struct bns_h2 *h)
{
    return (struct bns_grpc_cconn *)(void *)h;
}

static void put(struct bns_grpc_client *c)
{
    BNS_ASSERT(c->refs > 0);
    if (--c->refs > 0)
        return;
    BNS_ASSERT(bns_list_empty(&c->ended));
    bns_grpc_ccall_pool_free(c);
    if (c->hub != NULL)
        bns_h2_hub_put(c->hub);
    bns_free(c->env->alloc, c);
}

static void deliver_all(struct bns_grpc_client *c)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&c->ended)) != NULL)
        bns_grpc_ccall_deliver(BNS_CONTAINER(n, struct bns_grpc_ccall, node));
}

static void on_tell(struct bns_task *t)
{
    struct bns_grpc_client *c = BNS_CONTAINER(t, struct bns_grpc_client, tell);

    t->fn = NULL; /* may be posted again */
    deliver_all(c);
    put(c);
}

void bns_grpc_client_ended(struct bns_grpc_client *c, struct bns_grpc_ccall *call)
{
    bns_list_push(&c->ended, &call->node);
    if (c->freed || c->tell.fn != NULL)
        return;
    c->tell.fn = on_tell;
    c->refs++;
    bns_post(c->env, &c->tell);
}

int bns_grpc_client_new(struct bns_env *env, const char *host, uint16_t port,
                        struct bns_grpc_client **out, struct bns_err *err)
{
    struct bns_grpc_client *c;
    int rv;

    if (strlen(host) >= sizeof c->host)
        return bns_err_set(err, BNS_E_INVALID, "%s: host is longer than %zu bytes", host,
                           sizeof c->host - 1);
    c = bns_alloc_zero(env->alloc, sizeof *c);
    if (c == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s:%u: no memory for a client", host, port);
    c->env = env;
    c->port = port;
    c->refs = 1;
    (void)snprintf(c->host, sizeof c->host, "%s", host); /* fits */
    (void)snprintf(c->authority, sizeof c->authority, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
                   port); /* fits */
    bns_list_init(&c->conns);
    bns_list_init(&c->ended);
    rv = bns_h2_hub_new(env, &bns_grpc_client_role, false, &c->hub);
    if (rv != BNS_OK) {
        put(c);
        return bns_err_set(err, rv, "%s:%u: no memory for a client", host, port);
    }
    *out = c;
    return BNS_OK;
}

void bns_grpc_client_free(struct bns_grpc_client *c)
{
    struct bns_list *n;

    if (c == NULL)
        return;
    c->freed = true;
    c->current = NULL;
    while ((n = bns_list_pop(&c->conns)) != NULL) {
        struct bns_grpc_cconn *conn = BNS_CONTAINER(n, struct bns_grpc_cconn, node);
        BNS_ASSERT(!conn->h.busy);
        bns_h2_abort(&conn->h);
        conn->client = NULL;
    }
    deliver_all(c);
    put(c);
}

int bns_grpc_client_tls(struct bns_grpc_client *c, struct bns_tls *tls, const char *server_name)
{
    size_t len = server_name == NULL ? 0 : strlen(server_name);

    BNS_ASSERT(c->current == NULL);
    if (len >= sizeof c->server_name)
        return BNS_E_INVALID;
    if (len > 0)
        memcpy(c->server_name, server_name, len);
    c->server_name[len] = '\0';
    c->tls = tls;
    return BNS_OK;
}

/* ---- connections --------------------------------------------------------------------------- */
static int dial(struct bns_grpc_client *c, struct bns_grpc_cconn **out)
{
    static const nghttp2_settings_entry v[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, BNS_H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, BNS_H2_HEADER_LIST_MAX},
    };
    const struct bns_tls_dial d = {
        .host = c->host,
        .port = c->port,
        .server_name = c->server_name[0] == '\0' ? NULL : c->server_name,
        .alpn = "h2",
    };
    struct bns_grpc_cconn *conn = bns_alloc_zero(c->env->alloc, sizeof *conn);
    int rv;

    if (conn == NULL)
        return BNS_E_NOMEM;
    bns_h2_init(&conn->h, c->hub, NULL);
    conn->client = c;
    rv = bns_h2_start(&conn->h, v, sizeof v / sizeof v[0]);
    if (rv != BNS_OK)
        goto fail;
    rv = bns_tls_connect(c->env, c->tls, &d, &bns_h2_events, &conn->h, &conn->h.stream, NULL);
    if (rv != BNS_OK)
        goto fail;
    conn->dial_ns = bns_now_ns(c->env);
    bns_list_push(&c->conns, &conn->node);
    c->current = conn;
    *out = conn;
    return BNS_OK;

fail:
    if (conn->h.session != NULL)
        nghttp2_session_del(conn->h.session);
    bns_h2_hub_put(c->hub);
    bns_free(c->env->alloc, conn);
    return rv;
}

int bns_grpc_client_conn(struct bns_grpc_client *c, struct bns_grpc_cconn **out)
{
    struct bns_grpc_cconn *conn = c->current;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    if (conn != NULL && !conn->h.closing && !conn->h.closed && !conn->h.doomed &&
        nghttp2_session_check_request_allowed(conn->h.session) != 0) {
        *out = conn;
        return BNS_OK;
    }
    if (conn != NULL && !conn->h.closed && conn->h.session != NULL && conn->h.streams_count == 0)
        bns_h2_close(&conn->h);
    c->current = NULL;
    return dial(c, out);
}

bool bns_grpc_client_connected(const struct bns_grpc_client *c)
{
    return c->current != NULL && c->current->was_open && !c->current->h.closed;
}

uint64_t bns_grpc_client_dialling_ns(const struct bns_grpc_client *c)
{
    return c->current == NULL || c->current->was_open || c->current->h.closed ? 0
                                                                              : c->current->dial_ns;
}

uint64_t bns_grpc_client_heard_ns(const struct bns_grpc_client *c)
{
    return c->current == NULL ? 0 : c->current->h.recv_ns;
}

static void on_open(struct bns_h2 *h)
{
    conn_of(h)->was_open = true;
}

static void on_control(struct bns_h2 *h, const nghttp2_frame *f)
{
    struct bns_grpc_cconn *conn = conn_of(h);

    if (f->hd.type == NGHTTP2_GOAWAY && conn->client != NULL && conn->client->current == conn)
        conn->client->current = NULL; /* nghttp2 refuses what came too late, and closes when idle */
}

static void on_gone(struct bns_h2 *h, int code)
{
    struct bns_grpc_cconn *conn = conn_of(h);
    struct bns_grpc_client *c = conn->client;

    (void)code; /* the calls have been told */
    if (c != NULL) {
        bns_list_del(&conn->node);
        if (c->current == conn)
            c->current = NULL;
    }
    bns_free(h->hub->env->alloc, conn);
}

static void on_wake(struct bns_h2_stream *s)
{
    bns_h2_stream_woken(s);
}

const struct bns_h2_role bns_grpc_client_role = {
    .header = bns_grpc_ccall_header,
    .headers_end = bns_grpc_ccall_headers_end,
    .message = bns_grpc_ccall_message,
    .bad = bns_grpc_ccall_bad,
    .half_close = bns_grpc_ccall_eof,
    .last = bns_grpc_ccall_last,
    .ended = bns_grpc_ccall_sent,
    .writable = bns_grpc_ccall_writable,
    .wake = on_wake,
    .closed = bns_grpc_ccall_closed,
    .control = on_control,
    .open = on_open,
    .gone = on_gone,
};
