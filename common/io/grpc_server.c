/* grpc_server.c - the server object: methods, listeners, drain, metrics.
 *
 * The files in reading order: h2.h (what server and client share), h2.c (connection), h2_batch.c
 * (one write a turn), h2_stream.c (messages out and in), grpc_server.c, grpc_conn.c (greeting,
 * keepalive, drain of one connection), grpc_call.c (one call), grpc_reply.c (headers, trailers).
 *
 * Methods: a hash map from the whole path; the hash is seeded, so peers cannot aim collisions.
 * Drain:   listeners close at once; each connection says GOAWAY (grpc_conn.c); at the time limit
 *          the calls left end with status 14 and the caller's text, 1 s later connections are
 *          dropped.
 * Metrics: the names that dashboards of gRPC servers use.
 */
#include "io/grpc_impl.h"

#include <stdio.h>
#include <sys/resource.h>

#define DROP_NS (1 * BNS_SEC)
#define FILES_KEPT 64u /* descriptors left to others */

static uint32_t connections_by_limit(const struct bns_env *env)
{
    struct rlimit r;

    if (env->sim || getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur > UINT32_MAX)
        return 16384;
    return r.rlim_cur > 2 * FILES_KEPT ? (uint32_t)r.rlim_cur - FILES_KEPT : FILES_KEPT;
}

static void defaults(struct bns_grpc_config *c, const struct bns_env *env)
{
    if (c->streams_max == 0)
        c->streams_max = UINT32_MAX;
    if (c->queued_bytes_max == 0)
        c->queued_bytes_max = 16u * 1024 * 1024;
    if (c->connections_max == 0)
        c->connections_max = connections_by_limit(env);
    if (c->reset_burst == 0)
        c->reset_burst = 20000;
    if (c->reset_rate == 0)
        c->reset_rate = 5000;
    if (c->keepalive_ns == 0)
        c->keepalive_ns = 2 * 3600 * BNS_SEC;
    if (c->keepalive_timeout_ns == 0)
        c->keepalive_timeout_ns = 20 * BNS_SEC;
}

static void on_drain_timer(void *arg);

int bns_grpc_server_new(struct bns_env *env, const struct bns_grpc_config *cfg,
                        struct bns_grpc_server **out)
{
    struct bns_grpc_server *s = bns_alloc_zero(env->alloc, sizeof *s);
    int rv;

    if (s == NULL)
        return BNS_E_NOMEM;
    s->env = env;
    if (cfg != NULL)
        s->cfg = *cfg;
    defaults(&s->cfg, env);
    bns_hmap_init(&s->methods, env->alloc);
    bns_list_init(&s->listeners);
    bns_list_init(&s->conns);
    bns_list_init(&s->calls);
    bns_timer_init(&s->drain_timer, on_drain_timer, s);
    bns_grpc_hold_init(s);
    rv = bns_entropy(env, &s->seed, sizeof s->seed);
    if (rv != BNS_OK)
        goto fail;
    rv = bns_h2_hub_new(env, &bns_grpc_role, true, &s->hub);
    if (rv != BNS_OK)
        goto fail;
    s->hub->reset_burst = s->cfg.reset_burst;
    s->hub->reset_rate = s->cfg.reset_rate;
    s->hub->queued_max = s->cfg.queued_bytes_max;
    if (env->metrics != NULL)
        s->conns_gauge = bns_gauge(env->metrics, "bns_grpc_connections", NULL,
                                   "Open connections of the gRPC server.");
    *out = s;
    return BNS_OK;

fail:
    bns_grpc_server_free(s);
    return rv;
}

/* ---- methods ------------------------------------------------------------------------------- */
struct bns_grpc_entry *bns_grpc_find(struct bns_grpc_server *s, struct bns_slice path)
{
    uint64_t hash = bns_hash(s->seed, path.ptr, path.len);

    for (struct bns_hnode *n = bns_hmap_find(&s->methods, hash); n != NULL;
         n = bns_hmap_find_next(n)) {
        struct bns_grpc_entry *e = BNS_CONTAINER(n, struct bns_grpc_entry, node);
        if (bns_slice_eq(e->path, path))
            return e;
    }
    return NULL;
}

/* "/pkg.Service/Method" -> "pkg.Service", "Method". */
static void split_path(struct bns_slice path, struct bns_slice *service, struct bns_slice *method)
{
    size_t cut = path.len;

    while (cut > 0 && path.ptr[cut - 1] != '/')
        cut--;
    BNS_ASSERT(cut >= 2);
    *service = bns_slice(path.ptr + 1, cut - 2);
    *method = bns_slice_skip(path, cut);
}

bool bns_grpc_has_service(const struct bns_grpc_server *s, struct bns_slice service)
{
    for (const struct bns_grpc_table *t = s->tables; t != NULL; t = t->next) {
        for (size_t i = 0; i < t->count; i++) {
            struct bns_slice has, method;
            split_path(t->entries[i].path, &has, &method);
            if (bns_slice_eq(has, service))
                return true;
        }
    }
    return false;
}

static bool method_labels(const struct bns_grpc_entry *e, const char *code, char labels[512])
{
    static const char *const kinds[] = {"unary", "client_stream", "server_stream", "bidi_stream"};
    struct bns_slice service, method;
    int n;

    split_path(e->path, &service, &method);
    n = snprintf(labels, 512, "%s%s%sgrpc_method=\"%.*s\",grpc_service=\"%.*s\",grpc_type=\"%s\"",
                 code == NULL ? "" : "grpc_code=\"", code == NULL ? "" : code,
                 code == NULL ? "" : "\",", (int)method.len, (const char *)method.ptr,
                 (int)service.len, (const char *)service.ptr, kinds[e->m->kind]);
    return n >= 0 && n < 512;
}

static struct bns_counter *method_counter(struct bns_grpc_server *s, const struct bns_grpc_entry *e,
                                          const char *name, const char *code, const char *help)
{
    char labels[512];

    if (s->env->metrics == NULL || !method_labels(e, code, labels))
        return NULL;
    return bns_counter(s->env->metrics, name, labels, help);
}

static struct bns_hist *method_seconds(struct bns_grpc_server *s, const struct bns_grpc_entry *e)
{
    char labels[512];

    if (!s->cfg.handling_seconds || s->env->metrics == NULL || !method_labels(e, NULL, labels))
        return NULL;
    return bns_hist_plain(s->env->metrics, "grpc_server_handling_seconds", labels,
                          "Histogram of response latency (seconds) of gRPC that had been "
                          "application-level handled by the server.");
}

void bns_grpc_count(struct bns_grpc_server *s, struct bns_grpc_entry *e, int status,
                    uint64_t began_ns)
{
    static const char *const names[BNS_GRPC_CODES] = {
        "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
        "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
        "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
        "DataLoss", "Unauthenticated"};

    if (e == NULL)
        return;
    if (e->handled[status] == NULL)
        e->handled[status] = method_counter(s, e, "grpc_server_handled_total", names[status],
                                            "RPCs completed on the server, by status.");
    bns_counter_add(e->handled[status], 1);
    if (began_ns != 0)
        bns_hist_observe(e->seconds, (double)(bns_now_ns(s->env) - began_ns) / 1e9);
}

static void free_table(struct bns_grpc_server *s, struct bns_grpc_table *t, size_t inserted)
{
    for (size_t i = 0; i < inserted; i++)
        bns_hmap_del(&s->methods, &t->entries[i].node);
    bns_free(s->env->alloc, t);
}

int bns_grpc_server_methods(struct bns_grpc_server *s, const struct bns_grpc_method *m, size_t n)
{
    struct bns_grpc_table *t;
    size_t i;
    int rv = BNS_OK;

    BNS_ASSERT(n > 0);
    t = bns_alloc_zero(s->env->alloc, sizeof *t + n * sizeof t->entries[0]);
    if (t == NULL)
        return BNS_E_NOMEM;
    t->count = n;
    for (i = 0; i < n; i++) {
        struct bns_grpc_entry *e = &t->entries[i];

        BNS_ASSERT(m[i].handler.on_message != NULL);
        e->m = &m[i];
        e->path = bns_slice_str(m[i].path);
        rv = bns_grpc_find(s, e->path) != NULL
                 ? BNS_E_EXISTS
                 : bns_hmap_insert(&s->methods, &e->node,
                                   bns_hash(s->seed, e->path.ptr, e->path.len));
        if (rv != BNS_OK)
            goto fail;
        e->started =
            method_counter(s, e, "grpc_server_started_total", NULL, "RPCs started on the server.");
        e->received = method_counter(s, e, "grpc_server_msg_received_total", NULL,
                                     "Messages received on the server.");
        e->sent = method_counter(s, e, "grpc_server_msg_sent_total", NULL,
                                 "Messages sent by the server.");
        e->seconds = method_seconds(s, e);
    }
    t->next = s->tables;
    s->tables = t;
    return BNS_OK;

fail:
    free_table(s, t, i);
    return rv;
}

/* ---- connections --------------------------------------------------------------------------- */
static void on_accept(void *arg, struct bns_stream *stream)
{
    bns_grpc_conn_accept(arg, stream, bns_slice(NULL, 0));
}

int bns_grpc_server_listen_tls(struct bns_grpc_server *s, struct bns_tls *tls, const char *host,
                               uint16_t port, uint16_t *out_port, struct bns_err *err)
{
    const struct bns_tls_listen_options o = {
        .host = host, .port = port, .alpn_http = true, .fn = on_accept, .arg = s};
    struct bns_grpc_listen *l = bns_alloc_zero(s->env->alloc, sizeof *l);
    int rv;

    if (l == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s:%u: no memory for a listener", host, port);
    rv = bns_tls_listen(s->env, tls, &o, &l->listener, err);
    if (rv != BNS_OK) {
        bns_free(s->env->alloc, l);
        return rv;
    }
    bns_list_push(&s->listeners, &l->node);
    if (out_port != NULL)
        *out_port = bns_tls_listener_port(l->listener);
    return BNS_OK;
}

int bns_grpc_server_listen(struct bns_grpc_server *s, const char *host, uint16_t port,
                           uint16_t *out_port, struct bns_err *err)
{
    return bns_grpc_server_listen_tls(s, NULL, host, port, out_port, err);
}

void bns_grpc_server_adopt(struct bns_grpc_server *s, struct bns_stream *stream,
                           struct bns_slice read_so_far)
{
    bns_grpc_conn_accept(s, stream, read_so_far);
}

static void close_listeners(struct bns_grpc_server *s)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&s->listeners)) != NULL) {
        struct bns_grpc_listen *l = BNS_CONTAINER(n, struct bns_grpc_listen, node);
        bns_tls_listener_close(l->listener);
        bns_free(s->env->alloc, l);
    }
}

/* ---- drain and end ------------------------------------------------------------------------- */
static void drained(struct bns_grpc_server *s)
{
    void (*done)(void *arg) = s->drain_done;

    bns_timer_stop(s->env, &s->drain_timer);
    bns_timer_stop(s->env, &s->hold_timer);
    s->drain_done = NULL;
    if (done != NULL)
        done(s->drain_arg); /* may free s */
}

void bns_grpc_conn_gone(struct bns_grpc_server *s)
{
    BNS_ASSERT(s->conns_count > 0);
    s->conns_count--;
    bns_gauge_set(s->conns_gauge, (double)s->conns_count);
    if (s->draining && s->conns_count + s->locals == 0)
        drained(s);
}

void bns_grpc_local_gone(struct bns_grpc_server *s)
{
    BNS_ASSERT(s->locals > 0);
    s->locals--;
    if (s->draining && s->conns_count + s->locals == 0)
        bns_timer_start(s->env, &s->drain_timer, bns_now_ns(s->env));
}

static void abort_conns(struct bns_grpc_server *s)
{
    BNS_LIST_EACH(n, &s->conns)
    {
        bns_h2_abort(&BNS_CONTAINER(n, struct bns_grpc_conn, node)->h);
    }
}

static void fail_call(struct bns_grpc_server *s, struct bns_h2_stream *stream)
{
    bns_grpc_call_fail((struct bns_grpc_call *)(void *)stream, BNS_GRPC_UNAVAILABLE, s->drain_text,
                       BNS_GRPC_END_CLOSED);
}

/* Those with a sink; it closes them later. A handler may end other calls in its on_end: so the list
 * is looked at from its start each time. */
static void fail_locals(struct bns_grpc_server *s, const char *text)
{
    struct bns_list *n = s->calls.next;

    while (n != &s->calls) {
        struct bns_grpc_call *c = BNS_CONTAINER(n, struct bns_grpc_call, node);
        bool open = c->sink != NULL && !c->ended && !c->finished;

        if (open)
            bns_grpc_call_fail(c, BNS_GRPC_UNAVAILABLE, text, BNS_GRPC_END_CLOSED);
        n = open ? s->calls.next : n->next;
    }
}

static void on_drain_timer(void *arg)
{
    struct bns_grpc_server *s = arg;

    if (s->conns_count + s->locals == 0) {
        drained(s);
        return;
    }
    if (s->expired) {
        abort_conns(s);
        return;
    }
    s->expired = true;
    fail_locals(s, s->drain_text);
    BNS_LIST_EACH(n, &s->conns)
    {
        struct bns_grpc_conn *c = BNS_CONTAINER(n, struct bns_grpc_conn, node);
        BNS_LIST_EACH(i, &c->h.streams)
        {
            fail_call(s, BNS_CONTAINER(i, struct bns_h2_stream, node));
        }
    }
    bns_timer_start(s->env, &s->drain_timer, bns_now_ns(s->env) + DROP_NS);
}

void bns_grpc_server_drain(struct bns_grpc_server *s, const char *status_text, uint64_t timeout_ns,
                           void (*done)(void *arg), void *arg)
{
    uint64_t now = bns_now_ns(s->env);

    BNS_ASSERT(!s->draining);
    s->draining = true;
    s->drain_done = done;
    s->drain_arg = arg;
    (void)snprintf(s->drain_text, sizeof s->drain_text, "%s",
                   status_text == NULL ? "server is shutting down" : status_text); /* cut */
    close_listeners(s);
    BNS_LIST_EACH(n, &s->conns)
    {
        bns_grpc_conn_drain(BNS_CONTAINER(n, struct bns_grpc_conn, node));
    }
    bns_timer_start(s->env, &s->drain_timer,
                    s->conns_count + s->locals == 0 ? now : now + timeout_ns);
}

void bns_grpc_server_free(struct bns_grpc_server *s)
{
    struct bns_list *n;

    if (s == NULL)
        return;
    close_listeners(s);
    bns_timer_stop(s->env, &s->drain_timer);
    fail_locals(s, "the server was closed");
    bns_timer_stop(s->env, &s->hold_timer);
    while ((n = bns_list_pop(&s->calls)) != NULL) {
        bns_grpc_unhold(BNS_CONTAINER(n, struct bns_grpc_call, node));
        BNS_CONTAINER(n, struct bns_grpc_call, node)->server = NULL;
    }
    while ((n = bns_list_pop(&s->conns)) != NULL) {
        struct bns_grpc_conn *c = BNS_CONTAINER(n, struct bns_grpc_conn, node);
        bns_timer_stop(s->env, &c->timer);
        c->server = NULL;
        bns_h2_abort(&c->h);
    }
    bns_grpc_call_pool_free(s);
    while (s->tables != NULL) {
        struct bns_grpc_table *t = s->tables;
        s->tables = t->next;
        free_table(s, t, t->count);
    }
    bns_hmap_free(&s->methods);
    if (s->hub != NULL)
        bns_h2_hub_put(s->hub);
    bns_free(s->env->alloc, s);
}
