/* http_fetch.c - the HTTP client: one request, one connection, one deadline.
 *
 * For probes, tests and tools, not for load: the connection is closed after the answer. Interim
 * answers (1xx) are skipped. An answer without a length ends with the connection.
 *
 * Life: the object belongs to its stream and is freed in on_close; `over` says that the caller has
 * been told (or has cancelled) and is not to be called again.
 */
#include "io/http.h"

struct bns_http_fetch {
    struct bns_env *env;
    struct bns_stream *stream;
    struct bns_http1 parser;
    struct bns_timer timer;
    struct bns_buf request;
    struct bns_buf body;
    bns_http_done_fn *done;
    void *arg;
    const struct bns_http1_head *head; /* of the final answer */
    bool over;
};

static void tell(struct bns_http_fetch *f, int code)
{
    struct bns_http_answer a = {.body = bns_buf_slice(&f->body), .head = f->head};

    if (f->over)
        return;
    f->over = true;
    bns_timer_stop(f->env, &f->timer);
    if (code == BNS_OK)
        a.status = f->head->status;
    f->done(f->arg, code, code == BNS_OK ? &a : NULL);
}

static void on_open(void *arg)
{
    struct bns_http_fetch *f = arg;
    struct bns_slice all = bns_buf_slice(&f->request);

    if (!f->over && bns_stream_write(f->stream, &all, 1, NULL, NULL) != BNS_OK) {
        tell(f, BNS_E_NOMEM);
        bns_stream_reset(f->stream);
    }
}

/* BNS_E_AGAIN: more is needed; BNS_OK: the answer is complete. */
static int take(struct bns_http_fetch *f, struct bns_slice *in)
{
    struct bns_http1_event ev;
    int rv;

    for (;;) {
        rv = bns_http1_next(&f->parser, in, &ev);
        if (rv != BNS_OK)
            return rv;
        if (ev.kind == BNS_HTTP1_HEAD && ev.head->status >= 200)
            f->head = ev.head;
        if (ev.kind == BNS_HTTP1_DATA)
            rv = bns_buf_add(&f->body, ev.data.ptr, ev.data.len);
        if (rv != BNS_OK || (ev.kind == BNS_HTTP1_END && f->head != NULL))
            return rv;
    }
}

static void on_data(void *arg, struct bns_slice data)
{
    struct bns_http_fetch *f = arg;
    int rv;

    if (f->over)
        return;
    rv = take(f, &data);
    if (rv == BNS_E_AGAIN)
        return;
    tell(f, rv);
    bns_stream_reset(f->stream);
}

static void ended(struct bns_http_fetch *f, int code)
{
    bool whole = false;
    int rv;

    if (f->over)
        return;
    rv = bns_http1_eof(&f->parser, &whole);
    if (rv == BNS_OK && whole && f->head != NULL)
        tell(f, BNS_OK);
    else
        tell(f, code == BNS_OK ? BNS_E_DROPPED : code);
}

static void on_eof(void *arg)
{
    struct bns_http_fetch *f = arg;

    ended(f, BNS_E_DROPPED);
    bns_stream_close(f->stream);
}

static void on_close(void *arg, int code)
{
    struct bns_http_fetch *f = arg;

    ended(f, code);
    bns_timer_stop(f->env, &f->timer);
    bns_http1_free(&f->parser);
    bns_buf_free(&f->request);
    bns_buf_free(&f->body);
    bns_free(f->env->alloc, f);
}

static void on_timer(void *arg)
{
    struct bns_http_fetch *f = arg;

    tell(f, BNS_E_TIMEOUT);
    bns_stream_reset(f->stream);
}

static int put_request(struct bns_buf *b, const struct bns_http_fetch_opts *o)
{
    const char *method = o->method != NULL ? o->method : "GET";
    bool v6 = strchr(o->host, ':') != NULL;
    int rv = bns_http1_put_request(b, method, bns_slice_str(o->target != NULL ? o->target : "/"));

    if (rv == BNS_OK)
        rv = bns_buf_fmt(b, "Host: %s%s%s:%u\r\nConnection: close\r\n", v6 ? "[" : "", o->host,
                         v6 ? "]" : "", (unsigned)o->port);
    if (rv == BNS_OK &&
        (o->body.len > 0 || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0))
        rv = bns_buf_fmt(b, "Content-Length: %zu\r\n", o->body.len);
    for (size_t i = 0; rv == BNS_OK && i < o->headers_count; i++) {
        char name[256];
        if (o->headers[i].name.len >= sizeof name)
            return BNS_E_INVALID;
        memcpy(name, o->headers[i].name.ptr, o->headers[i].name.len);
        name[o->headers[i].name.len] = '\0';
        rv = bns_http1_put_header(b, name, o->headers[i].value);
    }
    if (rv == BNS_OK)
        rv = bns_http1_put_head_end(b);
    return rv == BNS_OK ? bns_buf_add(b, o->body.ptr, o->body.len) : rv;
}

int bns_http_fetch(struct bns_env *env, const struct bns_http_fetch_opts *o, bns_http_done_fn *done,
                   void *arg, struct bns_http_fetch **out, struct bns_err *err)
{
    static const struct bns_stream_events events = {
        .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_close = on_close};
    uint64_t timeout = o->timeout_ns != 0 ? o->timeout_ns : 10 * BNS_SEC;
    struct bns_http_fetch *f = bns_alloc_zero(env->alloc, sizeof *f);
    struct bns_http1_limits limits = {.body_bytes = o->body_bytes_max != 0 ? o->body_bytes_max
                                                                           : 16u * 1024 * 1024};
    const struct bns_tls_dial d = {
        .host = o->host, .port = o->port, .server_name = o->server_name, .alpn = "http/1.1"};
    int rv;

    if (f == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a request");
    f->env = env;
    f->done = done;
    f->arg = arg;
    bns_timer_init(&f->timer, on_timer, f);
    bns_http1_init(&f->parser, BNS_HTTP1_RESPONSE, env->alloc, &limits);
    bns_buf_init(&f->request, env->alloc, 64u * 1024 + o->body.len);
    bns_buf_init(&f->body, env->alloc, SIZE_MAX / 2);
    if (o->method != NULL && strcmp(o->method, "HEAD") == 0)
        bns_http1_expect_no_body(&f->parser);
    rv = put_request(&f->request, o);
    if (rv != BNS_OK) {
        (void)bns_err_set(err, rv, "cannot write the request to %s", o->host);
        goto fail;
    }
    rv = bns_tls_connect(env, o->tls, &d, &events, f, &f->stream, err);
    if (rv != BNS_OK)
        goto fail;
    bns_timer_start(env, &f->timer, bns_now_ns(env) + timeout);
    if (out != NULL)
        *out = f;
    return BNS_OK;

fail:
    bns_http1_free(&f->parser);
    bns_buf_free(&f->request);
    bns_buf_free(&f->body);
    bns_free(env->alloc, f);
    return rv;
}

void bns_http_fetch_cancel(struct bns_http_fetch *f)
{
    BNS_ASSERT(!f->over);
    f->over = true;
    bns_timer_stop(f->env, &f->timer);
    bns_stream_reset(f->stream);
}
