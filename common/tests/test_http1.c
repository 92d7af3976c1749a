/* test_http1.c - the HTTP/1.1 parser: what it takes, what it refuses, and that cuts do not matter.
 *
 * Every case is a text and the trace of events it must give ("!status" for a refusal). Each is run
 * whole, cut at every byte, and byte by byte: the trace must be the same (DATA events are joined).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec/http1.h"
#include "sim/heap.h"

#define HOST "Host: a\r\n"

struct trace {
    struct bns_buf text;
    bool in_data;
};

static void trace_event(struct trace *t, enum bns_http1_kind kind, const struct bns_http1_event *ev)
{
    const struct bns_http1_head *h = ev->head;
    int rv = BNS_OK;

    if (t->in_data && ev->kind != BNS_HTTP1_DATA) {
        rv |= bns_buf_str(&t->text, "]");
        t->in_data = false;
    }
    if (ev->kind == BNS_HTTP1_HEAD && kind == BNS_HTTP1_REQUEST)
        rv |= bns_buf_fmt(&t->text, "%.*s %.*s", (int)h->method.len, (const char *)h->method.ptr,
                          (int)h->target.len, (const char *)h->target.ptr);
    else if (ev->kind == BNS_HTTP1_HEAD)
        rv |= bns_buf_fmt(&t->text, "%d %.*s", h->status, (int)h->reason.len,
                          (const char *)h->reason.ptr);
    if (ev->kind == BNS_HTTP1_HEAD) {
        rv |= bns_buf_fmt(&t->text, " 1.%u%s%s", h->minor, h->keep_alive ? " ka" : "",
                          h->expect_continue ? " expect" : "");
        for (size_t i = 0; i < h->headers_count; i++)
            rv |= bns_buf_fmt(&t->text, " %.*s=%.*s", (int)h->headers[i].name.len,
                              (const char *)h->headers[i].name.ptr, (int)h->headers[i].value.len,
                              (const char *)h->headers[i].value.ptr);
    }
    if (ev->kind == BNS_HTTP1_DATA) {
        assert_true(ev->data.len > 0);
        if (!t->in_data)
            rv |= bns_buf_str(&t->text, " [");
        t->in_data = true;
        rv |= bns_buf_add(&t->text, ev->data.ptr, ev->data.len);
    }
    if (ev->kind == BNS_HTTP1_END)
        rv |= bns_buf_str(&t->text, " end;");
    assert_int_equal(rv, BNS_OK);
}

/* Feeds one input; the error or BNS_E_AGAIN. */
static int feed(struct bns_http1 *p, struct trace *t, struct bns_slice in)
{
    struct bns_http1_event ev;
    int rv;

    while ((rv = bns_http1_next(p, &in, &ev)) == BNS_OK)
        trace_event(t, p->kind, &ev);
    if (rv == BNS_E_AGAIN)
        assert_int_equal(in.len, 0);
    return rv;
}

enum how { WHOLE, CUT_AT, BYTE_BY_BYTE };

struct run {
    enum bns_http1_kind kind;
    bool no_body;
    struct bns_slice in;
    enum how how;
    size_t at;
};

/* Runs the input and writes its trace, with "!status" or the verdict of end of file behind it. */
static void run(const struct run *r, const struct bns_alloc *alloc, struct trace *t)
{
    struct bns_http1 p;
    int rv = BNS_E_AGAIN;
    bool end = false;

    bns_http1_init(&p, r->kind, alloc, NULL);
    if (r->no_body)
        bns_http1_expect_no_body(&p);
    if (r->how == BYTE_BY_BYTE) {
        for (size_t i = 0; rv == BNS_E_AGAIN && i < r->in.len; i++)
            rv = feed(&p, t, bns_slice(r->in.ptr + i, 1));
    } else {
        size_t at = r->how == WHOLE ? r->in.len : r->at;
        rv = feed(&p, t, bns_slice(r->in.ptr, at));
        if (rv == BNS_E_AGAIN)
            rv = feed(&p, t, bns_slice_skip(r->in, at));
    }
    if (t->in_data)
        assert_int_equal(bns_buf_str(&t->text, "]"), BNS_OK);
    t->in_data = false;
    if (rv == BNS_E_AGAIN)
        rv = bns_http1_eof(&p, &end);
    if (rv == BNS_E_NOMEM)
        assert_int_equal(bns_buf_str(&t->text, "!nomem"), BNS_OK);
    else if (rv != BNS_OK)
        assert_int_equal(bns_buf_fmt(&t->text, "!%d", p.status_hint), BNS_OK);
    else if (end)
        assert_int_equal(bns_buf_str(&t->text, " eof;"), BNS_OK);
    assert_int_equal(bns_buf_byte(&t->text, 0), BNS_OK);
    bns_http1_free(&p);
}

static void check(const struct run *r, const char *want)
{
    struct trace t = {0};

    bns_buf_init(&t.text, bns_alloc_libc(), 1 << 20);
    run(r, bns_alloc_libc(), &t);
    if (strcmp((const char *)t.text.ptr, want) != 0)
        fail_msg("how %d at %zu of \"%.*s\":\n got  %s\n want %s", r->how, r->at, (int)r->in.len,
                 (const char *)r->in.ptr, (const char *)t.text.ptr, want);
    bns_buf_free(&t.text);
}

static void check_all_cuts(struct run r, const char *want)
{
    r.how = WHOLE;
    check(&r, want);
    r.how = BYTE_BY_BYTE;
    check(&r, want);
    r.how = CUT_AT;
    for (r.at = 0; r.at <= r.in.len; r.at++)
        check(&r, want);
}

static void requests_give_their_events_wherever_they_are_cut(void **state)
{
    static const struct {
        const char *in, *want;
    } t[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", "GET / 1.1 ka host=a end;"},
        {"\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "GET / 1.1 ka host=a end;"},
        {"\r\n", ""},
        {"", ""},
        {"GET / HTTP/1.0\r\n\r\n", "GET / 1.0 end;"},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
         "GET / 1.0 ka connection=Keep-Alive end;"},
        {"GET / HTTP/1.1\r\n" HOST "Connection: foo, Close\r\n\r\n",
         "GET / 1.1 host=a connection=foo, Close end;"},
        {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "OPTIONS * 1.1 ka host=a end;"},
        {"GET http://h/p HTTP/1.1\r\n" HOST "\r\n", "GET http://h/p 1.1 ka host=a end;"},
        {"CONNECT h:1 HTTP/1.1\r\n" HOST "\r\n", "CONNECT h:1 1.1 ka host=a end;"},
        {"GET /?q HTTP/1.1\r\n" HOST "X-Empty:\r\nX-Tab: \ta b\t \r\n\r\n",
         "GET /?q 1.1 ka host=a x-empty= x-tab=a b end;"},
        {"POST /a HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello",
         "POST /a 1.1 ka host=a content-length=5 [hello] end;"},
        {"POST /a HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 05\r\n\r\nhello",
         "POST /a 1.1 ka host=a content-length=5 content-length=05 [hello] end;"},
        {"PUT /a HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi",
         "PUT /a 1.1 ka expect host=a expect=100-Continue content-length=2 [hi] end;"},
        {"POST /a HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n"
         "3\r\nabc\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\nT: v\r\nU:\r\n\r\n",
         "POST /a 1.1 ka host=a transfer-encoding=Chunked [abc0123456789] end;"},
        {"GET /1 HTTP/1.1\r\n" HOST "\r\nPOST /2 HTTP/1.1\r\n" HOST
         "Content-Length: 1\r\n\r\nxGET /3 HTTP/1.1\r\n" HOST "\r\n",
         "GET /1 1.1 ka host=a end;POST /2 1.1 ka host=a content-length=1 [x] end;"
         "GET /3 1.1 ka host=a end;"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct run r = {.kind = BNS_HTTP1_REQUEST, .in = bns_slice_str(t[i].in)};
        check_all_cuts(r, t[i].want);
    }
}

static void bad_requests_are_refused_with_their_status(void **state)
{
    static const struct {
        const char *in;
        int status;
    } t[] = {
        {"\x16\x03\x01\x02", 400},
        {"GET / HTTP/1.1\n" HOST "\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\rb\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\nb\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "novalue\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400},
        {"GET  / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.1 \r\n" HOST "\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"GET\r\n\r\n", 400},
        {"GET  HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET http:// HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1,1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/x.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.x\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.11\r\n" HOST "\r\n", 400},
        {"GET /\r HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "X: a\x7f\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n" HOST "\tX: a\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 1x\r\n\r\n", 400},
        {"GET x HTTP/1.1\r\n" HOST "\r\n", 400},
        {"G@T / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /\x80 HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / http/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.2\r\n" HOST "\r\n", 505},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 10000000000000000000\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {"P / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", 400},
        {"P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"P / HTTP/1.1\r\n" HOST "Expect: gold\r\n\r\n", 417},
        {"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET / HTTP/1.1\r\nHos", 400}, /* closed in the middle */
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct run r = {.kind = BNS_HTTP1_REQUEST, .in = bns_slice_str(t[i].in)};
        char want[16];
        (void)snprintf(want, sizeof want, "!%d", t[i].status);
        check_all_cuts(r, want);
    }
}

static void bad_chunks_are_refused(void **state)
{
    static const struct {
        const char *body, *want;
    } t[] = {
        {"g\r\n", "!400"},
        {"\r\n", "!400"},
        {"-1\r\n", "!400"},
        {" 1\r\na\r\n", "!400"},
        {"1 \r\na\r\n", "!400"},
        {"1\na\r\n", "!400"},
        {"1\r\nab\r\n", " [a]!400"},
        {"1\r\na\n", " [a]!400"},
        {"1;\x01\r\n", "!400"},
        {"1000000000000000\r\n", "!400"}, /* sixteen digits */
        {"0\r\n folded: x\r\n\r\n", "!400"},
        {"0\r\nx: \x7f\r\n\r\n", "!400"},
        {"0\r\n\rx", "!400"},
        {"2\r\na", " [a]!400"}, /* closed in the middle */
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct run r = {.kind = BNS_HTTP1_REQUEST};
        char in[256];
        char want[256];
        (void)snprintf(in, sizeof in,
                       "P / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n%s", t[i].body);
        (void)snprintf(want, sizeof want, "P / 1.1 ka host=a transfer-encoding=chunked%s",
                       t[i].want);
        r.in = bns_slice_str(in);
        check_all_cuts(r, want);
    }
}

static void responses_end_where_their_framing_says(void **state)
{
    static const struct {
        bool no_body;
        const char *in, *want;
    } t[] = {
        {false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
         "200 OK 1.1 ka content-length=2 [hi] end;"},
        {false, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200  1.1 ka content-length=0 end;"},
        {false, "HTTP/1.1 200 OK\r\n\r\nto the end", "200 OK 1.1 [to the end] eof;"},
        {false, "HTTP/1.0 200 OK\r\n\r\n", "200 OK 1.0 eof;"},
        {false, "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content 1.1 ka end;"},
        {false, "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n",
         "304 x 1.1 ka content-length=9 end;"},
        {false, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
         "100 Continue 1.1 ka end;200 OK 1.1 ka content-length=1 [x] end;"},
        {true, "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
         "100 C 1.1 ka end;200 OK 1.1 ka content-length=9 end;"},
        {false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
         "200 OK 1.1 ka transfer-encoding=chunked [x] end;"},
        {false, "XTTP/1.1 200 OK\r\n\r\n", "!400"},
        {false, "HTTP/1.1\r\n\r\n", "!400"},
        {false, "HTTP/2.0 200 OK\r\n\r\n", "!505"},
        {false, "HTTP/1.1 2x0 OK\r\n\r\n", "!400"},
        {false, "HTTP/1.1 099 OK\r\n\r\n", "!400"},
        {false, "HTTP/1.1 200 \x7f\r\n\r\n", "!400"},
        {false, "HTTP/1.1 20 OK\r\n\r\n", "!400"},
        {false, "HTTP/1.1 600 OK\r\n\r\n", "!400"},
        {false, "HTTP/1.1 2000 OK\r\n\r\n", "!400"},
        {false, "HTTP/1.1 200 O\x01\r\n\r\n", "!400"},
        {false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
         "200 OK 1.1 ka content-length=5 [hi]!400"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct run r = {
            .kind = BNS_HTTP1_RESPONSE, .no_body = t[i].no_body, .in = bns_slice_str(t[i].in)};
        check_all_cuts(r, t[i].want);
    }
}

/* Sends `head`, then `n` times `fill`, and returns the verdict. */
static int flood(const char *head, const char *fill, size_t n, const char *tail, int *status)
{
    struct bns_http1_limits limits = {.body_bytes = 1000};
    struct bns_http1_event ev;
    struct bns_http1 p;
    int rv = BNS_E_AGAIN;

    bns_http1_init(&p, BNS_HTTP1_REQUEST, bns_alloc_libc(), &limits);
    for (size_t i = 0; i < n + 2 && (rv == BNS_E_AGAIN || rv == BNS_OK); i++) {
        struct bns_slice in = bns_slice_str(i == 0 ? head : i <= n ? fill : tail);
        while ((rv = bns_http1_next(&p, &in, &ev)) == BNS_OK)
            ;
    }
    assert_true(p.text.cap <= 8192 + 65536 + 4);
    *status = p.status_hint;
    bns_http1_free(&p);
    return rv;
}

static void limits_hold_at_the_last_byte(void **state)
{
    static const struct {
        const char *head, *fill;
        size_t n;
        const char *tail;
        int status; /* 0 = taken */
    } t[] = {
        {"GET /", "x", 8192 - 14, " HTTP/1.1\r\n" HOST "\r\n", 0},
        {"GET /", "x", 8192 - 13, " HTTP/1.1\r\n" HOST "\r\n", 414},
        {"GET /", "x", 100000, "", 414},
        {"GET / HTTP/1.1\r\n" HOST "X: ", "x", 65536 - 9 - 3 - 4, "\r\n\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST "X: ", "x", 65536 - 9 - 3 - 3, "\r\n\r\n", 431},
        {"GET / HTTP/1.1\r\n" HOST, "A: b\r\n", 99, "\r\n", 0},
        {"GET / HTTP/1.1\r\n" HOST, "A: b\r\n", 100, "\r\n", 431},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\n", "x", 1000, "", 0},
        {"P / HTTP/1.1\r\n" HOST "Content-Length: 1001\r\n\r\n", "x", 1, "", 413},
        {"P / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 1000,
         "0\r\n\r\n", 0},
        {"P / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 1001,
         "0\r\n\r\n", 413},
        {"P / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1;", "x", 1025, "\r\n", 431},
        {"P / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n", "a: b\r\n", 3000,
         "\r\n", 431},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        int status = 0;
        int rv = flood(t[i].head, t[i].fill, t[i].n, t[i].tail, &status);
        print_message("  case %zu\n", i);
        assert_int_equal(status, t[i].status);
        assert_int_equal(rv, status == 0 ? BNS_E_AGAIN : BNS_E_TOOBIG);
    }
}

static void head_survives_oom(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        struct run r = {.kind = BNS_HTTP1_REQUEST, .how = BYTE_BY_BYTE};
        struct trace t = {0};
        r.in = BNS_LIT("GET /a HTTP/1.1\r\n" HOST "A: b\r\nC: d\r\nE: f\r\n\r\n");
        bns_buf_init(&t.text, bns_alloc_libc(), 4096);
        run(&r, bns_test_heap_alloc(h), &t);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_string_equal((char *)t.text.ptr,
                            fired ? "!nomem" : "GET /a 1.1 ka host=a a=b c=d e=f end;");
        bns_buf_free(&t.text);
    }
}

static void what_is_written_is_read_back(void **state)
{
    struct bns_buf b;
    struct run r = {.kind = BNS_HTTP1_RESPONSE};

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 4096);
    assert_int_equal(bns_http1_put_status(&b, 404), BNS_OK);
    assert_int_equal(bns_http1_put_header(&b, "Transfer-Encoding", BNS_LIT("chunked")), BNS_OK);
    assert_int_equal(bns_http1_put_header(&b, "X", BNS_LIT("a\r\nB: c")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_header(&b, "X y", BNS_LIT("a")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_head_end(&b), BNS_OK);
    assert_int_equal(bns_http1_put_chunk(&b, BNS_LIT("hello ")), BNS_OK);
    assert_int_equal(bns_http1_put_chunk(&b, BNS_LIT("")), BNS_OK);
    assert_int_equal(bns_http1_put_chunk(&b, BNS_LIT("world, and more")), BNS_OK);
    assert_int_equal(bns_http1_put_last_chunk(&b), BNS_OK);
    r.in = bns_buf_slice(&b);
    check_all_cuts(r,
                   "404 Not Found 1.1 ka transfer-encoding=chunked [hello world, and more] end;");
    bns_buf_clear(&b);
    assert_int_equal(bns_http1_put_request(&b, "GET", BNS_LIT("/a b")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_request(&b, "GET", BNS_LIT("/ab")), BNS_OK);
    assert_memory_equal(b.ptr, "GET /ab HTTP/1.1\r\n", 18);
    bns_buf_free(&b);
}

static int write_nth(struct bns_buf *b, int n)
{
    switch (n) {
    case 0:
        return bns_http1_put_status(b, 200);
    case 1:
        return bns_http1_put_request(b, "GET", BNS_LIT("/path"));
    case 2:
        return bns_http1_put_header(b, "Name", BNS_LIT("value"));
    case 3:
        return bns_http1_put_head_end(b);
    case 4:
        return bns_http1_put_chunk(b, BNS_LIT("chunk data"));
    case 5:
        return bns_http1_put_last_chunk(b);
    case 6:
        return bns_url_decode(b, BNS_LIT("a%20b"), false);
    default:
        return bns_url_encode(b, BNS_LIT("a b"), "");
    }
}

/* Into a buffer of every size: the whole thing or not a byte. */
static void nothing_is_written_by_halves(void **state)
{
    (void)state;
    for (int n = 0; n < 8; n++) {
        struct bns_buf b;
        int rv = BNS_E_TOOBIG;
        for (size_t max = 0; rv != BNS_OK; max++) {
            bns_buf_init(&b, bns_alloc_libc(), max);
            rv = write_nth(&b, n);
            assert_true(rv == BNS_OK ? b.len > 0 : rv == BNS_E_TOOBIG && b.len == 0);
            bns_buf_free(&b);
        }
    }
}

static void writers_refuse_what_would_break_the_head(void **state)
{
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1000);
    assert_int_equal(bns_http1_put_request(&b, "", BNS_LIT("/")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_request(&b, "G T", BNS_LIT("/")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_request(&b, "GET", BNS_LIT("")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_request(&b, "GET", BNS_LIT("/\x7f")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_header(&b, "", BNS_LIT("x")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_header(&b, "A", BNS_LIT("x\x7f")), BNS_E_INVALID);
    assert_int_equal(bns_http1_put_header(&b, "A", BNS_LIT("tab\tis fine")), BNS_OK);
    assert_string_equal(bns_http1_reason(299), "Unknown");
    bns_buf_free(&b);
}

/* After a message the head can still be read; trim gives its memory back, only then. */
static void an_idle_parser_gives_its_memory_back(void **state)
{
    struct bns_test_heap *h = bns_test_heap(0);
    struct bns_slice in = BNS_LIT("GET /a HTTP/1.1\r\n" HOST "\r\nGET /b");
    struct bns_http1_event ev;
    struct bns_slice v;
    struct bns_http1 p;

    (void)state;
    bns_http1_init(&p, BNS_HTTP1_REQUEST, bns_test_heap_alloc(h), NULL);
    assert_true(bns_http1_idle(&p));
    assert_int_equal(bns_http1_next(&p, &in, &ev), BNS_OK);
    assert_false(bns_http1_idle(&p));
    bns_http1_trim(&p); /* not now */
    assert_int_equal(bns_http1_next(&p, &in, &ev), BNS_OK);
    assert_int_equal(ev.kind, BNS_HTTP1_END);
    assert_true(bns_http1_idle(&p));
    assert_true(bns_http1_find(&p.head, "host", &v));
    assert_true(bns_slice_eq(v, BNS_LIT("a")));
    assert_false(bns_http1_find(&p.head, "hos", &v));
    bns_http1_trim(&p);
    assert_int_equal(bns_test_heap_in_use(h), 0);
    assert_int_equal(bns_http1_next(&p, &in, &ev), BNS_E_AGAIN); /* and it goes on */
    assert_false(bns_http1_idle(&p));
    bns_http1_free(&p);
    assert_int_equal(bns_test_heap_close(h, NULL), 0);
}

static void targets_are_split_and_decoded(void **state)
{
    static const struct {
        const char *in, *path, *query;
    } t[] = {
        {"/a/b?c=d&e", "/a/b", "c=d&e"},
        {"/", "/", ""},
        {"*", "*", ""},
        {"http://h:1/p?q", "/p", "q"},
        {"http://h", "/", ""},
        {"http://h?x", "/", "x"},
        {"/a?", "/a", ""},
    };
    struct bns_slice q = BNS_LIT("&a=1&&b&=c&d=e=f");
    struct bns_slice n, v;
    struct bns_buf b;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        bns_http1_target(bns_slice_str(t[i].in), &n, &v);
        assert_true(bns_slice_eq(n, bns_slice_str(t[i].path)));
        assert_true(bns_slice_eq(v, bns_slice_str(t[i].query)));
    }
    bns_buf_init(&b, bns_alloc_libc(), 100);
    while (bns_query_next(&q, &n, &v))
        assert_int_equal(bns_buf_fmt(&b, "%.*s:%.*s,", (int)n.len, (const char *)n.ptr, (int)v.len,
                                     (const char *)v.ptr),
                         BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&b), BNS_LIT("a:1,b:,:c,d:e=f,")));
    bns_buf_clear(&b);
    assert_int_equal(bns_url_decode(&b, BNS_LIT("a%2Fb+c%20"), false), BNS_OK);
    assert_int_equal(bns_url_decode(&b, BNS_LIT("+"), true), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&b), BNS_LIT("a/b+c  ")));
    assert_int_equal(bns_url_decode(&b, BNS_LIT("x%00"), false), BNS_E_INVALID);
    assert_int_equal(bns_url_decode(&b, BNS_LIT("x%2"), false), BNS_E_INVALID);
    assert_int_equal(bns_url_decode(&b, BNS_LIT("x%zz"), false), BNS_E_INVALID);
    assert_int_equal(b.len, 7);
    bns_buf_clear(&b);
    assert_int_equal(bns_url_encode(&b, BNS_LIT("a/b c\xff~"), "/"), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&b), BNS_LIT("a/b%20c%FF~")));
    bns_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_give_their_events_wherever_they_are_cut),
        cmocka_unit_test(bad_requests_are_refused_with_their_status),
        cmocka_unit_test(bad_chunks_are_refused),
        cmocka_unit_test(responses_end_where_their_framing_says),
        cmocka_unit_test(limits_hold_at_the_last_byte),
        cmocka_unit_test(head_survives_oom),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(nothing_is_written_by_halves),
        cmocka_unit_test(writers_refuse_what_would_break_the_head),
        cmocka_unit_test(an_idle_parser_gives_its_memory_back),
        cmocka_unit_test(targets_are_split_and_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
