/* grpc_gateway_out.c - answers of the gateway: from messages of a call to JSON over HTTP.
 *
 * What the handler sends is queued as bytes. bns_gateway_send() runs from the request's timer, when
 * something was queued or the client has taken what was written: it turns messages into JSON as
 * long as less than BNS_STREAM_LOW_MARK waits in the connection.
 *
 * Messages are never unpacked whole, and one turn makes at most TURN_BYTES of JSON: an answer of a
 * hundred MiB holds up nobody else, and costs the bytes that the handler gave and one piece.
 *
 * A method with one answer: the message waits for the status, then both are one HTTP answer; in
 * chunks when it is longer than a piece.
 * A stream: 200 and chunks go out with the first message. If an error comes before that, it is the
 * whole answer, with its own HTTP status.
 */
#include "io/grpc_gateway_impl.h"

#include <stdio.h>

#include "codec/http1.h"

#define PIECE_BYTES (32u * 1024) /* of JSON, in one write */
#define TURN_BYTES (256u * 1024) /* in one turn */
#define JSON "application/json"

int bns_grpc_gateway_status(int status)
{
    static const int of[] = {200, 499, 500, 400, 504, 404, 409, 403, 429,
                             400, 409, 400, 501, 500, 503, 500, 401};

    return status < 0 || (size_t)status >= sizeof of / sizeof of[0] ? 500 : of[status];
}

static bool streams(const struct bns_gateway_req *r)
{
    return r->kind == BNS_GRPC_SERVER_STREAM || r->kind == BNS_GRPC_BIDI;
}

/* ---- the sink -------------------------------------------------------------------------------- */
static void release(struct bns_gateway_req *r, struct bns_gateway_msg *m, int code)
{
    if (m->release != NULL)
        m->release(m->arg, code);
    bns_free(r->g->env->alloc, m);
}

void bns_gateway_drop(struct bns_gateway_req *r)
{
    while (r->head != NULL) {
        struct bns_gateway_msg *m = r->head;
        r->head = m->next;
        release(r, m, BNS_E_DROPPED);
    }
    r->tail = NULL;
    r->queued = 0;
}

/* All but the message that was written in part: a line that was begun is ended. */
static void drop_behind(struct bns_gateway_req *r)
{
    struct bns_gateway_msg *begun = r->walking ? r->head : NULL;

    if (begun != NULL) {
        r->head = begun->next;
        begun->next = NULL;
    }
    bns_gateway_drop(r);
    r->head = r->tail = begun;
    r->queued = begun == NULL ? 0 : begun->bytes;
}

static size_t sink_queued(void *arg)
{
    const struct bns_gateway_req *r = arg;

    return r->queued + bns_http_queued(r->q);
}

static int sink_send(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *fn,
                     void *release_arg)
{
    struct bns_gateway_req *r = arg;
    struct bns_gateway_msg *m;
    size_t bytes;

    if (r->finished)
        return BNS_E_OFF;
    if (__builtin_mul_overflow(n, sizeof v[0], &bytes))
        return BNS_E_TOOBIG;
    m = bns_alloc(r->g->env->alloc, sizeof *m + bytes);
    if (m == NULL)
        return BNS_E_NOMEM;
    *m = (struct bns_gateway_msg){.release = fn, .arg = release_arg, .count = n};
    for (size_t i = 0; i < n; i++) {
        m->v[i] = v[i];
        m->bytes += v[i].len;
    }
    if (r->head == NULL)
        r->head = m;
    else
        r->tail->next = m;
    r->tail = m;
    r->queued += m->bytes;
    if (sink_queued(r) >= BNS_STREAM_LOW_MARK)
        r->above = true;
    bns_gateway_later(r);
    return BNS_OK;
}

static void set_end(struct bns_gateway_req *r, int status, const char *text)
{
    size_t len = text == NULL ? 0 : strlen(text);

    r->finished = true;
    r->status = status;
    r->text = len == 0 ? NULL : bns_alloc(r->g->env->alloc, len + 1);
    if (r->text != NULL)
        memcpy(r->text, text, len + 1); /* without memory the code alone is told */
    bns_gateway_later(r);
}

static void sink_finish(void *arg, int status, const char *text, bool drop)
{
    struct bns_gateway_req *r = arg;

    if (r->finished)
        return;
    if (drop)
        drop_behind(r);
    set_end(r, status, text);
}

static void sink_read(void *arg, bool on)
{
    struct bns_gateway_req *r = arg;

    r->read_off = !on;
    if (on)
        bns_gateway_later(r);
    else if (!r->eof)
        bns_http_body_read(r->q, false);
}

static void sink_peer(void *arg, struct bns_net_addr *out)
{
    bns_http_peer(((struct bns_gateway_req *)arg)->q, out);
}

const struct bns_grpc_sink bns_gateway_sink = {.send = sink_send,
                                               .finish = sink_finish,
                                               .queued = sink_queued,
                                               .read = sink_read,
                                               .peer = sink_peer};

void bns_gateway_refuse(struct bns_gateway_req *r, int status, const char *text)
{
    if (r->finished)
        return;
    r->in_over = true;
    if (r->call != NULL)
        bns_grpc_local_fail(r->call, status, text);
    else
        set_end(r, status, text);
}

/* ---- JSON ------------------------------------------------------------------------------------ */
struct piece {
    const struct bns_alloc *alloc;
    struct bns_buf b;
};

static void put_piece(void *arg, int code)
{
    struct piece *p = arg;

    (void)code; /* sent or not: the bytes are not needed */
    bns_buf_free(&p->b);
    bns_free(p->alloc, p);
}

static struct piece *get_piece(struct bns_gateway_req *r)
{
    struct piece *p = bns_alloc_zero(r->g->env->alloc, sizeof *p);

    if (p != NULL) {
        p->alloc = r->g->env->alloc;
        bns_buf_init(&p->b, p->alloc, SIZE_MAX / 2);
    }
    return p;
}

static int put_string(struct bns_buf *out, const char *text)
{
    return bns_pb_json_string(out, bns_slice_str(text));
}

/* {"error":text,"message":text,"code":n}; of a stream {"error":{...}} and a line end. */
static int put_error(struct bns_buf *out, int status, const char *text, bool stream)
{
    int http = bns_grpc_gateway_status(status);
    int rv = bns_buf_str(out, "{\"error\":");

    if (!stream) {
        rv = rv == BNS_OK ? put_string(out, text) : rv;
        rv = rv == BNS_OK ? bns_buf_str(out, ",\"message\":") : rv;
        rv = rv == BNS_OK ? put_string(out, text) : rv;
        return rv == BNS_OK ? bns_buf_fmt(out, ",\"code\":%d}", status) : rv;
    }
    rv = rv == BNS_OK
             ? bns_buf_fmt(out, "{\"grpc_code\":%d,\"http_code\":%d,\"message\":", status, http)
             : rv;
    rv = rv == BNS_OK ? put_string(out, text) : rv;
    return rv == BNS_OK ? bns_buf_fmt(out, ",\"http_status\":\"%s\",\"code\":%d}}\n",
                                      bns_http1_reason(http), status)
                        : rv;
}

/* ---- sending --------------------------------------------------------------------------------- */
/* The end of r: a cut answer is never taken for a whole one. */
static void broken(struct bns_gateway_req *r)
{
    bns_http_abort(r->q);
    bns_gateway_close(r);
}

/* The whole answer; frees r. */
static void reply(struct bns_gateway_req *r, int http, struct piece *p)
{
    struct bns_slice s = bns_buf_slice(&p->b);

    if (bns_http_set_header(r->q, "Content-Type", BNS_LIT(JSON)) != BNS_OK) {
        put_piece(p, BNS_E_DROPPED);
        broken(r);
        return;
    }
    bns_http_reply_slices(r->q, http, &s, 1, put_piece, p);
    bns_gateway_close(r);
}

static void reply_error(struct bns_gateway_req *r, bool stream)
{
    struct piece *p = get_piece(r);

    if (p == NULL) {
        broken(r);
    } else if (put_error(&p->b, r->status, r->text == NULL ? "" : r->text, stream) != BNS_OK) {
        put_piece(p, BNS_E_NOMEM);
        broken(r);
    } else {
        reply(r, bns_grpc_gateway_status(r->status), p);
    }
}

static bool stream_begin(struct bns_gateway_req *r)
{
    if (r->begun)
        return true;
    if (bns_http_set_header(r->q, "Content-Type", BNS_LIT(JSON)) != BNS_OK ||
        bns_http_begin(r->q, 200, BNS_HTTP_CHUNKED) != BNS_OK)
        return false;
    r->begun = true;
    return true;
}

static bool write_piece(struct bns_gateway_req *r, struct piece *p)
{
    struct bns_slice s = bns_buf_slice(&p->b);

    if (bns_http_write(r->q, &s, 1, put_piece, p) == BNS_OK)
        return true;
    put_piece(p, BNS_E_DROPPED);
    return false;
}

/* The next piece of the first message as JSON; *whole: its last one. */
static int next_piece(struct bns_gateway_req *r, struct bns_buf *out, bool *whole)
{
    int rv = BNS_OK;

    if (!r->walking) {
        r->walking = true;
        bns_pb_json_walk_init(&r->walk, r->path->answer, r->head->v, r->head->count);
        if (streams(r))
            rv = bns_buf_str(out, "{\"result\":");
    }
    if (rv == BNS_OK)
        rv = bns_pb_json_walk_next(&r->walk, out, PIECE_BYTES);
    *whole = rv == BNS_OK;
    if (*whole && streams(r))
        rv = bns_buf_str(out, "}\n");
    return rv == BNS_E_AGAIN ? BNS_OK : rv;
}

static void pop(struct bns_gateway_req *r, int code)
{
    struct bns_gateway_msg *m = r->head;

    r->walking = false;
    r->head = m->next;
    if (r->head == NULL)
        r->tail = NULL;
    r->queued -= m->bytes;
    release(r, m, code);
}

static bool send_end(struct bns_gateway_req *r)
{
    struct piece *p;

    if (!r->begun && r->status != BNS_GRPC_OK) {
        reply_error(r, r->status != BNS_GRPC_DEADLINE_EXCEEDED);
        return false;
    }
    p = r->status == BNS_GRPC_OK ? NULL : get_piece(r);
    if (!stream_begin(r)) {
        if (p != NULL)
            put_piece(p, BNS_E_DROPPED);
        broken(r);
        return false;
    }
    if (p != NULL) {
        if (put_error(&p->b, r->status, r->text == NULL ? "" : r->text, true) == BNS_OK)
            (void)write_piece(r, p); /* gone or not, it ends here */
        else
            put_piece(p, BNS_E_NOMEM);
    }
    bns_http_end(r->q);
    bns_gateway_close(r);
    return false;
}

/* One piece. False: r is gone. */
static bool send_piece(struct bns_gateway_req *r, size_t *done)
{
    struct piece *p = get_piece(r);
    bool whole = false;

    if (p == NULL || next_piece(r, &p->b, &whole) != BNS_OK) {
        if (p != NULL)
            put_piece(p, BNS_E_NOMEM);
        broken(r);
        return false;
    }
    *done += p->b.len;
    if (whole)
        pop(r, BNS_OK);
    if (whole && !streams(r) && !r->begun) {
        reply(r, 200, p); /* short, so its length is known */
        return false;
    }
    if (!stream_begin(r)) {
        put_piece(p, BNS_E_DROPPED);
        broken(r);
        return false;
    }
    if (!write_piece(r, p)) {
        broken(r);
        return false;
    }
    return true;
}

/* What there is to send, as long as the client takes it. False: r is gone. */
static bool send_all(struct bns_gateway_req *r)
{
    size_t done = 0;

    while (r->head != NULL && done < TURN_BYTES && bns_http_queued(r->q) < BNS_STREAM_LOW_MARK) {
        if (!send_piece(r, &done))
            return false;
    }
    if (r->head == NULL && r->finished)
        return send_end(r);
    if (done >= TURN_BYTES)
        bns_gateway_later(r);
    return true;
}

bool bns_gateway_send(struct bns_gateway_req *r)
{
    if (bns_http_gone(r->q))
        return true; /* on_gone comes */
    if (r->call == NULL || !streams(r)) {
        if (!r->finished) /* the one message waits for the status */
            return true;
        if (r->status == BNS_GRPC_OK && r->head == NULL && !r->begun)
            r->status = BNS_GRPC_INTERNAL; /* a handler's mistake */
        if (r->status != BNS_GRPC_OK) {
            reply_error(r, false);
            return false;
        }
    }
    if (!send_all(r))
        return false;
    if (r->above && !r->finished && sink_queued(r) < BNS_STREAM_LOW_MARK) {
        r->above = false;
        bns_grpc_local_writable(r->call);
    }
    return true;
}
