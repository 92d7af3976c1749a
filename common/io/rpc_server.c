/* rpc_server.c - the accepting side of the internal RPC: handlers, requests, answers.
 *
 * A request is an object of its own: it knows its connection until that dies, and lives until its
 * handler has answered it. The answer to a dead or cancelled one is dropped.
 *
 * Bounds: CONNS_MAX connections, REQUESTS_MAX open requests on each (BNS_E_BUSY above).
 */
#include "io/rpc_int.h"

#define CONNS_MAX 1024u
#define REQUESTS_MAX 4096u

struct server_conn {
    struct bns_rpc_server *s;
    struct bns_rpc_conn *c;
    struct bns_list node;     /* s->conns */
    struct bns_list requests; /* struct bns_rpc_request */
    size_t requests_count;
    uint64_t from;
};

struct bns_rpc_server {
    struct bns_env *env;
    struct bns_rpc_identity me;
    const struct bns_rpc_handler *h;
    bns_rpc_stream_fn *on_stream;
    bns_rpc_http_fn *on_http;
    void *http_arg;
    void *arg;
    struct bns_tls_listener *listener;
    struct bns_list conns;
    size_t conns_count;
    struct bns_gauge *inflight;
    uint64_t warned_ns;
};

struct bns_rpc_request {
    struct bns_env *env;
    struct server_conn *conn; /* NULL: gone or cancelled */
    struct bns_list node;
    uint64_t id;
    uint16_t method;
};

static void inflight_add(struct bns_rpc_server *s, double d)
{
    if (s->inflight != NULL)
        bns_gauge_set(s->inflight, s->inflight->value + d);
}

static void request_part(struct bns_rpc_request *r)
{
    struct server_conn *sc = r->conn;

    BNS_ASSERT(sc != NULL);
    r->conn = NULL;
    bns_list_del(&r->node);
    sc->requests_count--;
    inflight_add(sc->s, -1);
}

/* The connection object is not touched: it frees itself. */
static void conn_free(struct server_conn *sc)
{
    while (!bns_list_empty(&sc->requests))
        request_part(BNS_CONTAINER(sc->requests.next, struct bns_rpc_request, node));
    bns_list_del(&sc->node);
    sc->s->conns_count--;
    bns_free(sc->s->env->alloc, sc);
}

static int on_hello(void *owner, const struct bns_hello *h, struct bns_err *err)
{
    struct server_conn *sc = owner;

    sc->from = h->node_id;
    if (h->node_id == sc->s->me.node_id && h->node_id != 0)
        return bns_err_set(err, BNS_E_PROTO, "node id %016llx is our own",
                           (unsigned long long)h->node_id);
    return BNS_OK;
}

static int on_open(struct server_conn *sc, const struct bns_frame *f)
{
    struct bns_rpc_server *s = sc->s;
    struct bns_frame no = {.kind = BNS_FRAME_RESPONSE, .method = f->method, .id = f->id};
    struct bns_rpc_stream *st = NULL;

    no.aux = (uint32_t)-BNS_E_UNSUPPORTED;
    if (s->on_stream == NULL)
        return bns_rpc_conn_send_copy(sc->c, &no);
    no.aux = (uint32_t)-BNS_E_BUSY;
    st = bns_rpc_stream_new(sc->c, f->id, f->method);
    if (st == NULL)
        return bns_rpc_conn_send_copy(sc->c, &no);
    bns_rpc_stream_opened(st, s->on_stream, s->arg, sc->from, f->payload);
    return BNS_OK;
}

static int on_request(struct server_conn *sc, const struct bns_frame *f)
{
    struct bns_rpc_server *s = sc->s;
    struct bns_frame no = {.kind = BNS_FRAME_RESPONSE, .method = f->method, .id = f->id};
    struct bns_rpc_request *r;

    no.aux = (uint32_t)-BNS_E_UNSUPPORTED;
    if (s->h->on_request == NULL)
        return bns_rpc_conn_send_copy(sc->c, &no);
    no.aux = (uint32_t)-BNS_E_BUSY;
    if (sc->requests_count >= REQUESTS_MAX)
        return bns_rpc_conn_send_copy(sc->c, &no);
    r = bns_alloc(s->env->alloc, sizeof *r);
    if (r == NULL)
        return bns_rpc_conn_send_copy(sc->c, &no);
    *r = (struct bns_rpc_request){.env = s->env, .conn = sc, .id = f->id, .method = f->method};
    bns_list_push(&sc->requests, &r->node);
    sc->requests_count++;
    inflight_add(s, 1);
    s->h->on_request(s->arg, r, sc->from, f->method, f->payload);
    return BNS_OK;
}

static void on_cancel(struct server_conn *sc, uint64_t id)
{
    BNS_LIST_EACH(n, &sc->requests)
    {
        struct bns_rpc_request *r = BNS_CONTAINER(n, struct bns_rpc_request, node);
        if (r->id == id) {
            request_part(r);
            return;
        }
    }
}

static int on_frame(void *owner, const struct bns_frame *f)
{
    struct server_conn *sc = owner;
    struct bns_rpc_server *s = sc->s;

    switch (f->kind) {
    case BNS_FRAME_ONE_WAY:
        if (s->h->on_oneway != NULL)
            s->h->on_oneway(s->arg, sc->from, f->method, f->payload);
        return BNS_OK;
    case BNS_FRAME_REQUEST:
        return (f->method & BNS_RPC_STREAM_BIT) != 0 ? on_open(sc, f) : on_request(sc, f);
    case BNS_FRAME_CANCEL:
        on_cancel(sc, f->id);
        return BNS_OK;
    default:
        return BNS_E_PROTO;
    }
}

static void on_dead(void *owner, int code)
{
    (void)code; /* the dialler tries again, if it lives */
    conn_free(owner);
}

static bool on_http(void *owner, struct bns_stream *stream, struct bns_slice read_so_far)
{
    struct server_conn *sc = owner;
    struct bns_rpc_server *s = sc->s;

    if (s->on_http == NULL)
        return false;
    conn_free(sc);
    s->on_http(s->http_arg, stream, read_so_far);
    return true;
}

static const struct bns_rpc_conn_ops conn_ops = {on_hello, on_frame, on_dead, on_http};

void bns_rpc_server_adopt(struct bns_rpc_server *s, struct bns_stream *stream,
                          struct bns_slice read_so_far)
{
    const struct bns_alloc *a = s->env->alloc;
    struct server_conn *sc = NULL;
    struct bns_rpc_conn *c = NULL;

    if (s->conns_count < CONNS_MAX) {
        sc = bns_alloc_zero(a, sizeof *sc);
        c = bns_alloc_zero(a, sizeof *c);
    }
    if (sc == NULL || c == NULL) {
        bns_free(a, sc);
        bns_free(a, c);
        bns_stream_refuse(stream);
        return;
    }
    sc->s = s;
    sc->c = c;
    bns_list_init(&sc->requests);
    bns_list_push(&s->conns, &sc->node);
    s->conns_count++;
    c->env = s->env;
    c->me = s->me;
    c->ops = &conn_ops;
    c->owner = sc;
    c->warned_ns = &s->warned_ns;
    c->queue_max = BNS_RPC_QUEUE_MAX;
    c->stream = stream;
    bns_rpc_conn_init(c);
    bns_rpc_conn_start(c, read_so_far);
}

static void on_accept(void *arg, struct bns_stream *stream)
{
    bns_rpc_server_adopt(arg, stream, bns_slice(NULL, 0));
}

int bns_rpc_server_new(struct bns_env *env, const struct bns_rpc_identity *id,
                       const struct bns_rpc_handler *h, void *arg, struct bns_rpc_server **out)
{
    struct bns_rpc_server *s = bns_alloc_zero(env->alloc, sizeof *s);

    if (s == NULL)
        return BNS_E_NOMEM;
    s->env = env;
    s->me = *id;
    s->h = h;
    s->arg = arg;
    bns_list_init(&s->conns);
    if (env->metrics != NULL)
        s->inflight = bns_gauge(env->metrics, "rpc_inflight", NULL,
                                "requests of other nodes that are not answered yet");
    *out = s;
    return BNS_OK;
}

void bns_rpc_server_streams(struct bns_rpc_server *s, bns_rpc_stream_fn *fn)
{
    s->on_stream = fn;
}

void bns_rpc_server_http(struct bns_rpc_server *s, bns_rpc_http_fn *fn, void *arg)
{
    s->on_http = fn;
    s->http_arg = arg;
}

int bns_rpc_server_listen_tls(struct bns_rpc_server *s, struct bns_tls *tls, const char *host,
                              uint16_t port, uint16_t *out_port, struct bns_err *err)
{
    const struct bns_tls_listen_options o = {.host = host, .port = port, .fn = on_accept, .arg = s};
    int rv;

    BNS_ASSERT(s->listener == NULL);
    rv = bns_tls_listen(s->env, tls, &o, &s->listener, err);
    if (rv == BNS_OK && out_port != NULL)
        *out_port = bns_tls_listener_port(s->listener);
    return rv;
}

int bns_rpc_server_listen(struct bns_rpc_server *s, const char *host, uint16_t port,
                          uint16_t *out_port, struct bns_err *err)
{
    return bns_rpc_server_listen_tls(s, NULL, host, port, out_port, err);
}

void bns_rpc_server_free(struct bns_rpc_server *s)
{
    if (s == NULL)
        return;
    bns_tls_listener_close(s->listener);
    while (!bns_list_empty(&s->conns)) {
        struct server_conn *sc = BNS_CONTAINER(s->conns.next, struct server_conn, node);
        bns_rpc_conn_drop(sc->c, false);
        conn_free(sc);
    }
    bns_free(s->env->alloc, s);
}

void bns_rpc_reply(struct bns_rpc_request *r, int code, struct bns_slice payload)
{
    struct server_conn *sc = r->conn;
    struct bns_frame f = {.kind = BNS_FRAME_RESPONSE,
                          .method = r->method,
                          .aux = (uint32_t)-code,
                          .id = r->id,
                          .payload = payload};

    BNS_ASSERT(code <= 0);
    if (sc != NULL) {
        request_part(r);
        if (bns_rpc_conn_send_copy(sc->c, &f) != BNS_OK)
            bns_rpc_conn_break(sc->c); /* or the asker would wait for nothing */
    }
    bns_free(r->env->alloc, r);
}
