/* http_answer.c - what a handler may ask of a request, and its answer.
 *
 * The head of an answer is built in one buffer of the server and copied, with a small body, into
 * one block that lives until it is sent: one allocation and one write an answer. Framing:
 * Content-Length where the length is known, chunks for HTTP/1.1, the end of the connection for
 * HTTP/1.0. HEAD, 204 and 304 have the head of their answer and nothing more.
 *
 * After an error in the middle of an answer (out of memory) the connection is reset: a peer must
 * never take a cut answer for a whole one.
 */
#include "io/http_int.h"

#include <stdio.h>

/* ---- the request ----------------------------------------------------------------------------- */
struct bns_slice bns_http_method(const struct bns_http_req *q)
{
    return q->parser.head.method;
}

struct bns_slice bns_http_path(const struct bns_http_req *q)
{
    return q->path;
}

struct bns_slice bns_http_query(const struct bns_http_req *q)
{
    return q->query;
}

bool bns_http_header(const struct bns_http_req *q, const char *name, struct bns_slice *out)
{
    return bns_http1_find(&q->parser.head, name, out);
}

const struct bns_http1_header *bns_http_headers(const struct bns_http_req *q, size_t *count)
{
    *count = q->parser.head.headers_count;
    return q->parser.head.headers;
}

bool bns_http_secure(const struct bns_http_req *q)
{
    return q->c != NULL && bns_tls_is(q->c->stream);
}

int bns_http_param(const struct bns_http_req *q, const char *name, struct bns_buf *out)
{
    struct bns_slice rest = q->query, n, v;

    while (bns_query_next(&rest, &n, &v)) {
        if (bns_slice_eq(n, bns_slice_str(name)))
            return bns_url_decode(out, v, true);
    }
    return BNS_E_NOTFOUND;
}

struct bns_slice bns_http_body(const struct bns_http_req *q)
{
    return bns_buf_slice(&q->body);
}

void bns_http_peer(const struct bns_http_req *q, struct bns_net_addr *out)
{
    memset(out, 0, sizeof *out);
    if (q->c != NULL)
        bns_stream_peer(q->c->stream, out);
}

bool bns_http_gone(const struct bns_http_req *q)
{
    return q->c == NULL || q->c->closing;
}

void bns_http_on_body(struct bns_http_req *q, void (*fn)(void *arg, struct bns_slice data),
                      void *arg)
{
    BNS_ASSERT(q->on_body == NULL);
    q->on_body = fn;
    q->on_body_arg = arg;
}

void bns_http_on_writable(struct bns_http_req *q, void (*fn)(void *arg), void *arg)
{
    q->on_writable = fn;
    q->on_writable_arg = arg;
}

void bns_http_on_gone(struct bns_http_req *q, void (*fn)(void *arg), void *arg)
{
    q->on_gone = fn;
    q->on_gone_arg = arg;
}

int bns_http_set_header(struct bns_http_req *q, const char *name, struct bns_slice value)
{
    return bns_http1_put_header(&q->extra, name, value);
}

/* ---- the head -------------------------------------------------------------------------------- */
/* IMF-fixdate of RFC 9110, section 5.6.7. Days since 1970-01-01 to a date as in Howard Hinnant's
 * "chrono-compatible low-level date algorithms". */
static void make_date(struct bns_http_server *s)
{
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t now_s = bns_wall_ms(s->env) / 1000;
    int64_t day, sec, era, doe, yoe, doy, mp, month;

    if (now_s == s->date_s || now_s < 0)
        return;
    s->date_s = now_s;
    day = now_s / 86400;
    sec = now_s % 86400;
    era = (day + 719468) / 146097;
    doe = (day + 719468) % 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    month = mp < 10 ? mp + 3 : mp - 9;
    (void)snprintf(s->date, sizeof s->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                   days + day % 7 * 3, (int)(doy - (153 * mp + 2) / 5 + 1),
                   months + (month - 1) * 3, (int)(yoe + era * 400 + (month <= 2)),
                   (int)(sec / 3600), (int)(sec / 60 % 60),
                   (int)(sec % 60)); /* 29 bytes in this era */
}

static int put_framing(struct bns_http_req *q, struct bns_buf *b, int status, uint64_t length)
{
    q->length = length;
    if (status < 200 || status == 204 || status == 304) {
        q->bodiless = true;
        return BNS_OK;
    }
    if (length != BNS_HTTP_CHUNKED)
        return bns_buf_fmt(b, "Content-Length: %llu\r\n", (unsigned long long)length);
    if (q->parser.head.minor > 0) {
        q->framed = true;
        return bns_buf_str(b, "Transfer-Encoding: chunked\r\n");
    }
    q->close = true; /* the end of the connection is the end of the body */
    return BNS_OK;
}

static int put_head(struct bns_http_req *q, int status, const char *content_type, uint64_t length)
{
    struct bns_http_server *s = q->c->s;
    struct bns_buf *b = &s->scratch;
    int rv;

    make_date(s);
    bns_buf_clear(b);
    rv = bns_http1_put_status(b, status);
    if (rv == BNS_OK && s->date_s >= 0)
        rv = bns_buf_fmt(b, "Date: %s\r\n", s->date);
    if (rv == BNS_OK && s->cfg.server_name != NULL)
        rv = bns_http1_put_header(b, "Server", bns_slice_str(s->cfg.server_name));
    if (rv == BNS_OK && content_type != NULL)
        rv = bns_http1_put_header(b, "Content-Type", bns_slice_str(content_type));
    if (rv == BNS_OK)
        rv = put_framing(q, b, status, length);
    if (rv == BNS_OK && q->extra.len > 0)
        rv = bns_buf_add(b, q->extra.ptr, q->extra.len);
    if (s->draining || !q->body_done)
        q->close = true; /* the rest of the message will not be read */
    if (rv == BNS_OK && q->close)
        rv = bns_buf_str(b, "Connection: close\r\n");
    else if (rv == BNS_OK && q->parser.head.minor == 0)
        rv = bns_buf_str(b, "Connection: keep-alive\r\n");
    return rv == BNS_OK ? bns_http1_put_head_end(b) : rv;
}

static void count(struct bns_http_server *s, int status)
{
    static const char *const labels[] = {
        "", "code=\"1xx\"", "code=\"2xx\"", "code=\"3xx\"", "code=\"4xx\"", "code=\"5xx\""};
    int i = status / 100;

    if (s->env->metrics == NULL || i < 1 || i > 5)
        return;
    if (s->answers[i] == NULL)
        s->answers[i] = bns_counter(s->env->metrics, "http_requests_total", labels[i],
                                    "requests answered, by class of status");
    if (s->answers[i] != NULL)
        bns_counter_add(s->answers[i], 1);
}

static void put_block(void *arg, int code)
{
    (void)code; /* the peer is gone or not: the block is not needed */
    bns_rcbuf_put(arg);
}

/* scratch and a copy of `body` as one write. */
static int send_block(struct bns_http_conn *c, struct bns_slice head, struct bns_slice body)
{
    struct bns_rcbuf *b = bns_rcbuf_new(c->env->alloc, head.len + body.len);
    struct bns_slice all;
    int rv;

    if (b == NULL)
        return BNS_E_NOMEM;
    memcpy(b->bytes, head.ptr, head.len);
    if (body.len > 0)
        memcpy(b->bytes + head.len, body.ptr, body.len);
    all = bns_rcbuf_slice(b);
    rv = bns_stream_write(c->stream, &all, 1, put_block, b);
    if (rv != BNS_OK)
        bns_rcbuf_put(b);
    else
        c->sent += all.len;
    return rv;
}

/* Sends the head, with the body behind it when there is one to copy. */
static int begin(struct bns_http_req *q, int status, const char *content_type, uint64_t length,
                 struct bns_slice body)
{
    int rv;

    BNS_ASSERT(q->handled);
    BNS_ASSERT(!q->begun);
    BNS_ASSERT(!q->ended);
    q->begun = true;
    if (bns_http_gone(q))
        return BNS_E_OFF;
    rv = put_head(q, status, content_type, length);
    if (rv == BNS_OK)
        rv = send_block(q->c, bns_buf_slice(&q->c->s->scratch),
                        q->bodiless ? bns_slice(NULL, 0) : body);
    if (rv != BNS_OK)
        bns_http_conn_close(q->c, true);
    else
        count(q->c->s, status);
    return rv;
}

void bns_http_reply(struct bns_http_req *q, int status, const char *content_type,
                    struct bns_slice body)
{
    if (begin(q, status, content_type, body.len, body) != BNS_OK) {
        /* the connection is gone or going: on_gone is not for one who has answered */
    }
    bns_http_settle(q);
}

void bns_http_reply_text(struct bns_http_req *q, int status, const char *text)
{
    bns_http_reply(q, status, "text/plain; charset=utf-8", bns_slice_str(text));
}

int bns_http_begin(struct bns_http_req *q, int status, uint64_t length)
{
    return begin(q, status, NULL, length, bns_slice(NULL, 0));
}

/* ---- the body -------------------------------------------------------------------------------- */
static int put_bytes(struct bns_http_req *q, const struct bns_slice *v, size_t n, size_t bytes,
                     bns_release_fn *release, void *arg)
{
    struct bns_http_conn *c = q->c;
    struct bns_slice crlf = BNS_LIT("\r\n");
    int rv = BNS_OK;

    if (q->framed && bytes > 0) {
        bns_buf_clear(&c->s->scratch);
        rv = bns_http1_put_chunk_head(&c->s->scratch, bytes);
        if (rv == BNS_OK)
            rv = send_block(c, bns_buf_slice(&c->s->scratch), bns_slice(NULL, 0));
    }
    if (rv == BNS_OK && q->framed && bytes > 0) /* first, so that an error is told before release */
        rv = bns_stream_write(c->stream, v, n, NULL, NULL);
    if (rv == BNS_OK)
        rv = q->framed && bytes > 0 ? bns_stream_write(c->stream, &crlf, 1, release, arg)
                                    : bns_stream_write(c->stream, v, n, release, arg);
    if (rv == BNS_OK)
        c->sent += bytes + (q->framed && bytes > 0 ? crlf.len : 0);
    return rv;
}

int bns_http_write(struct bns_http_req *q, const struct bns_slice *v, size_t n,
                   bns_release_fn *release, void *arg)
{
    size_t bytes = 0;
    int rv;

    BNS_ASSERT(q->begun);
    BNS_ASSERT(!q->ended);
    if (bns_http_gone(q))
        return BNS_E_OFF;
    for (size_t i = 0; i < n; i++)
        bytes += v[i].len;
    if (q->length != BNS_HTTP_CHUNKED && bytes > q->length - q->written)
        return BNS_E_INVALID;
    q->written += bytes;
    if (q->bodiless)
        n = 0; /* only the release */
    rv = put_bytes(q, v, n, q->bodiless ? 0 : bytes, release, arg);
    if (rv != BNS_OK)
        bns_http_conn_close(q->c, true);
    return rv;
}

size_t bns_http_queued(const struct bns_http_req *q)
{
    return bns_http_gone(q) ? 0 : bns_stream_queued(q->c->stream);
}

void bns_http_reply_slices(struct bns_http_req *q, int status, const struct bns_slice *v, size_t n,
                           bns_release_fn *release, void *arg)
{
    uint64_t bytes = 0;
    int rv;

    for (size_t i = 0; i < n; i++)
        bytes += v[i].len;
    rv = bns_http_begin(q, status, bytes);
    if (rv == BNS_OK)
        rv = bns_http_write(q, v, n, release, arg);
    if (rv != BNS_OK && release != NULL)
        release(arg, BNS_E_DROPPED);
    bns_http_settle(q);
}

void bns_http_end(struct bns_http_req *q)
{
    struct bns_slice last = BNS_LIT("0\r\n\r\n");
    bool cut = q->length != BNS_HTTP_CHUNKED && q->written < q->length && !q->bodiless;

    BNS_ASSERT(q->begun);
    if (!bns_http_gone(q)) {
        if (cut || (q->framed && !q->bodiless &&
                    bns_stream_write(q->c->stream, &last, 1, NULL, NULL) != BNS_OK))
            bns_http_conn_close(q->c, true);
        else if (q->framed && !q->bodiless)
            q->c->sent += last.len;
    }
    bns_http_settle(q);
}

void bns_http_abort(struct bns_http_req *q)
{
    if (!bns_http_gone(q))
        bns_http_conn_close(q->c, true);
    bns_http_settle(q);
}
