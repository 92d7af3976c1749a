/* test_http.c - the HTTP/1.1 server and client: framing, keep-alive, limits, times, bad clients.
 *
 * Method: server and plain streams in one fake env, on virtual time; each exchange runs with whole
 * reads and again cut at every byte, and must come out the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "io/http.h"
#include "sim/heap.h"

#include "fake_env.h"

struct rig {
    struct bns_test_heap *heap;
    struct fake_env f;
    struct bns_http_server *s;
    uint16_t port;
    struct bns_http_req *held[8];
    size_t held_count;
    size_t gone;
    size_t streamed;
    bool stream_end;
    size_t released;
    int release_code;
    bool drained;
    /* the client's answer */
    size_t dones;
    int code;
    int status;
    char body[64];
};

struct client {
    struct bns_stream *s;
    struct bns_buf got;
    bool closed;
    int code;
};

static void hello(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply_text(q, 200, "hello");
}

static void echo(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply(q, 200, NULL, bns_http_body(q));
}

static void param(void *arg, struct bns_http_req *q)
{
    struct rig *r = arg;
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, r->f.env.alloc, 100);
    rv = bns_http_param(q, "name", &b);
    if (rv == BNS_OK)
        bns_http_reply(q, 200, NULL, bns_buf_slice(&b));
    else
        bns_http_reply_text(q, rv == BNS_E_NOTFOUND ? 404 : 400, "");
    bns_buf_free(&b);
}

static void chunks_now(void *arg, struct bns_http_req *q)
{
    struct bns_slice v[2] = {BNS_LIT("one"), BNS_LIT("two")};

    (void)arg;
    if (bns_http_set_header(q, "X-Kind", BNS_LIT("stream")) == BNS_OK &&
        bns_http_begin(q, 200, BNS_HTTP_CHUNKED) == BNS_OK &&
        bns_http_write(q, v, 2, NULL, NULL) == BNS_OK &&
        bns_http_write(q, v, 1, NULL, NULL) == BNS_OK)
        bns_http_end(q);
    else
        bns_http_abort(q);
}

static void on_gone(void *arg)
{
    ((struct rig *)arg)->gone++;
}

static void hold(void *arg, struct bns_http_req *q)
{
    struct rig *r = arg;

    assert_true(r->held_count < 8);
    bns_http_on_gone(q, on_gone, r);
    r->held[r->held_count++] = q;
}

static void upload_data(void *arg, struct bns_slice data)
{
    struct rig *r = arg;

    r->streamed += data.len;
    if (data.len == 0) {
        r->stream_end = true;
        bns_http_reply_text(r->held[--r->held_count], 201, "stored");
    }
}

static void upload(void *arg, struct bns_http_req *q)
{
    hold(arg, q);
    bns_http_on_body(q, upload_data, arg);
}

static void released(void *arg, int code)
{
    struct rig *r = arg;

    r->released++;
    r->release_code = code;
}

static void slices(void *arg, struct bns_http_req *q)
{
    struct bns_slice v[2] = {BNS_LIT("left"), BNS_LIT("right")};

    bns_http_reply_slices(q, 200, v, 2, released, arg);
}

static struct bns_http_route routes[] = {
    {.method = "GET", .path = "/hello", .fn = hello},
    {.method = "POST", .path = "/echo", .fn = echo, .body_bytes_max = 100},
    {.method = "GET", .path = "/param", .fn = param},
    {.method = "GET", .path = "/chunks", .fn = chunks_now},
    {.method = "GET", .path = "/hold", .fn = hold},
    {.method = "GET", .path = "/slices", .fn = slices},
    {.method = "PUT",
     .path = "/up",
     .fn = upload,
     .prefix = true,
     .stream = true,
     .body_bytes_max = 1u << 30},
    {.method = "*", .path = "/v1/", .fn = hello, .prefix = true},
};

static void rig_start(struct rig *r, size_t chunk)
{
    static const struct bns_http_config cfg = {.connections_max = 3};

    memset(r, 0, sizeof *r);
    r->heap = bns_test_heap(0);
    fake_init(&r->f, bns_test_heap_alloc(r->heap));
    r->f.chunk = chunk;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        routes[i].arg = r;
    assert_int_equal(bns_http_server_new(&r->f.env, &cfg, &r->s), BNS_OK);
    assert_int_equal(bns_http_server_routes(r->s, routes, sizeof routes / sizeof routes[0]), 0);
    assert_int_equal(bns_http_server_listen(r->s, "127.0.0.1", 0, &r->port, NULL), BNS_OK);
}

static void rig_end(struct rig *r)
{
    bns_http_server_free(r->s);
    fake_free(&r->f);
    for (size_t i = 0; i < r->held_count; i++)
        bns_http_reply_text(r->held[i], 200, "nobody is there");
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

static void client_data(void *arg, struct bns_slice data)
{
    struct client *c = arg;
    assert_int_equal(bns_buf_add(&c->got, data.ptr, data.len), BNS_OK);
}
static void client_closed(void *arg, int code)
{
    struct client *c = arg;

    c->closed = true;
    c->code = code;
}
static const struct bns_stream_events client_events = {.on_data = client_data,
                                                       .on_close = client_closed};

static void client_dial(struct rig *r, struct client *c)
{
    *c = (struct client){.s = NULL};
    bns_buf_init(&c->got, bns_alloc_libc(), 64u << 20);
    assert_int_equal(
        bns_net_connect(&r->f.env, "127.0.0.1", r->port, &client_events, c, &c->s, NULL), BNS_OK);
}

static int client_try(struct client *c, const char *text)
{
    struct bns_slice v = bns_slice_str(text);
    return bns_stream_write(c->s, &v, 1, NULL, NULL);
}

static void client_say(struct client *c, const char *text)
{
    assert_int_equal(client_try(c, text), BNS_OK);
}

static void client_end(struct rig *r, struct client *c)
{
    if (!c->closed)
        bns_stream_reset(c->s);
    fake_run_for(&r->f, 0);
    bns_buf_free(&c->got);
}

/* The Date line differs; the rest is compared whole. */
static const char *text_of(struct client *c)
{
    char *t, *d;

    assert_int_equal(bns_buf_byte(&c->got, 0), BNS_OK);
    c->got.len--;
    t = (char *)c->got.ptr;
    while ((d = strstr(t, "Date: ")) != NULL)
        memmove(d, strchr(d, '\n') + 1, strlen(strchr(d, '\n') + 1) + 1);
    return t;
}

#define OK_HELLO                                                                                   \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n"
#define GET "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
#define ERR(code, why, len, text)                                                                  \
    "HTTP/1.1 " code " " why "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: " len \
    "\r\nConnection: close\r\n\r\n" text

static const struct {
    const char *name, *in, *out;
    bool closes;
} exchange_table[] = {
    {"plain", GET, OK_HELLO "\r\nhello", false},
    {"keep-alive, twice", GET GET, OK_HELLO "\r\nhello" OK_HELLO "\r\nhello", false},
    {"close asked", "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
     OK_HELLO "Connection: close\r\n\r\nhello", true},
    {"nothing after close", "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" GET,
     OK_HELLO "Connection: close\r\n\r\nhello", true},
    {"HTTP/1.0", "GET /hello HTTP/1.0\r\n\r\n", OK_HELLO "Connection: close\r\n\r\nhello", true},
    {"HTTP/1.0 kept", "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     OK_HELLO "Connection: keep-alive\r\n\r\nhello", false},
    {"HEAD", "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n" GET, OK_HELLO "\r\n" OK_HELLO "\r\nhello",
     false},
    {"body", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" GET,
     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" OK_HELLO "\r\nhello", false},
    {"chunked body",
     "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
     "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" GET,
     "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" OK_HELLO "\r\nhello", false},
    {"100-continue",
     "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nz",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz", false},
    {"expect of too much",
     "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n",
     ERR("413", "Content Too Large", "21", "the body is too long\n"), true},
    {"body of 101 bytes", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n",
     ERR("413", "Content Too Large", "21", "the body is too long\n"), true},
    {"chunks of 101 bytes",
     "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n",
     ERR("413", "Content Too Large", "17", "body is too long\n"), true},
    {"answer in chunks", "GET /chunks HTTP/1.1\r\nHost: x\r\n\r\n" GET,
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Kind: stream\r\n\r\n"
     "6\r\nonetwo\r\n3\r\none\r\n0\r\n\r\n" OK_HELLO "\r\nhello",
     false},
    {"answer in chunks to 1.0", "GET /chunks HTTP/1.0\r\n\r\n",
     "HTTP/1.1 200 OK\r\nX-Kind: stream\r\nConnection: close\r\n\r\nonetwoone", true},
    {"HEAD of chunks", "HEAD /chunks HTTP/1.1\r\nHost: x\r\n\r\n" GET,
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Kind: stream\r\n\r\n" OK_HELLO "\r\nhello",
     false},
    {"slices", "GET /slices HTTP/1.1\r\nHost: x\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nleftright", false},
    {"query", "GET /param?a=1&name=J%C3%B6+x&name=2 HTTP/1.1\r\nHost: x\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nJ\xc3\xb6 x", false},
    {"prefix", "DELETE /v1/x/y HTTP/1.1\r\nHost: x\r\n\r\n", OK_HELLO "\r\nhello", false},
    {"not found", "GET /hell HTTP/1.1\r\nHost: x\r\n\r\n" GET,
     "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
     "Content-Length: 10\r\n\r\nnot found\n" OK_HELLO "\r\nhello",
     false},
    {"not allowed", "PUT /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab" GET,
     "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"
     "Content-Length: 19\r\nAllow: GET\r\n\r\nmethod not allowed\n" OK_HELLO "\r\nhello",
     false},
    {"streamed body", "PUT /up HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd",
     "HTTP/1.1 201 Created\r\nContent-Type: text/plain; charset=utf-8\r\n"
     "Content-Length: 6\r\n\r\nstored",
     false},
};
#define EXCHANGES (sizeof exchange_table / sizeof exchange_table[0])

static void exchanges(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * EXCHANGES; i++) {
        struct rig r;
        struct client c;

        print_message("  %s\n", exchange_table[i / 2].name);
        rig_start(&r, i % 2 == 0 ? 64u * 1024 : 1);
        client_dial(&r, &c);
        client_say(&c, exchange_table[i / 2].in);
        fake_run_for(&r.f, BNS_MS);
        assert_string_equal(text_of(&c), exchange_table[i / 2].out);
        assert_int_equal(c.closed, exchange_table[i / 2].closes);
        client_end(&r, &c);
        rig_end(&r);
    }
}

/* What is no HTTP gets the right status and the end; the exact text is the parser's. */
static void bad_requests_are_answered_and_closed(void **state)
{
    static char long_line[9000], long_head[70000];
    const struct {
        const char *name, *in, *status;
    } t[] = {
        {"garbage", "\x16\x03\x01 hello\r\n\r\n", "HTTP/1.1 400 "},
        {"no host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"two lengths",
         "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
         "HTTP/1.1 400 "},
        {"smuggling",
         "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         "HTTP/1.1 400 "},
        {"long line", long_line, "HTTP/1.1 414 "},
        {"long head", long_head, "HTTP/1.1 431 "},
        {"bad chunk", "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
         "HTTP/1.1 400 "},
    };

    (void)state;
    memset(long_line, 'a', sizeof long_line - 1);
    memcpy(long_line, "GET /", 5);
    (void)snprintf(long_head, sizeof long_head, "GET / HTTP/1.1\r\nHost: x\r\n");
    for (size_t n = strlen(long_head); n + 1010 < sizeof long_head; n += 1000) {
        memset(long_head + n, 'b', 1000);
        memcpy(long_head + n, "X: ", 3);
        memcpy(long_head + n + 998, "\r\n", 2);
    }
    for (size_t i = 0; i < 2 * sizeof t / sizeof t[0]; i++) {
        struct rig r;
        struct client c;

        print_message("  %s\n", t[i / 2].name);
        rig_start(&r, i % 2 == 0 ? 64u * 1024 : 7);
        client_dial(&r, &c);
        client_say(&c, t[i / 2].in);
        fake_run_for(&r.f, BNS_MS);
        assert_memory_equal(text_of(&c), t[i / 2].status, strlen(t[i / 2].status));
        assert_non_null(strstr(text_of(&c), "Connection: close\r\n"));
        assert_true(c.closed);
        client_end(&r, &c);
        rig_end(&r);
    }
}

static void a_pipelined_request_waits_for_the_answer_before_it(void **state)
{
    struct rig r;
    struct client c;

    (void)state;
    rig_start(&r, 5);
    client_dial(&r, &c);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" GET);
    fake_run_for(&r.f, 100 * BNS_SEC); /* a handler may take its time */
    assert_int_equal(r.held_count, 1);
    assert_int_equal(c.got.len, 0);
    bns_http_reply_text(r.held[--r.held_count], 200, "first");
    fake_run_for(&r.f, BNS_MS);
    assert_string_equal(text_of(&c), OK_HELLO "\r\nfirst" OK_HELLO "\r\nhello");
    client_end(&r, &c);
    rig_end(&r);
}

static void a_flood_of_pipelined_requests_is_held_back(void **state)
{
    struct rig r;
    struct client c;
    static char flood[sizeof GET * 40000];
    size_t before;

    (void)state;
    for (size_t i = 0; i < 40000; i++)
        memcpy(flood + i * (sizeof GET - 1), GET, sizeof GET);
    rig_start(&r, 64u * 1024);
    client_dial(&r, &c);
    before = bns_test_heap_in_use(r.heap);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    client_say(&c, flood);
    fake_run_for(&r.f, BNS_SEC);
    assert_true(bns_test_heap_in_use(r.heap) - before < 1u << 20);
    bns_http_reply_text(r.held[--r.held_count], 200, "first");
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(c.got.len % 40001, 0); /* the same answer, 40,001 times */
    client_end(&r, &c);
    rig_end(&r);
}

static void a_client_that_goes_away_is_told_to_the_handler(void **state)
{
    struct rig r;
    struct client c;

    (void)state;
    rig_start(&r, 64);
    client_dial(&r, &c);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_run_for(&r.f, BNS_MS);
    bns_stream_reset(c.s);
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.gone, 1);
    assert_true(bns_http_gone(r.held[0]));
    assert_int_equal(bns_http_begin(r.held[0], 200, BNS_HTTP_CHUNKED), BNS_E_OFF);
    bns_http_end(r.held[--r.held_count]);
    client_dial(&r, &c); /* and one that the server drops with a request open */
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_run_for(&r.f, BNS_MS);
    bns_http_server_free(r.s);
    r.s = NULL;
    assert_int_equal(r.gone, 2);
    client_end(&r, &c);
    rig_end(&r);
}

static void slow_clients_are_closed_in_time(void **state)
{
    static const struct {
        const char *name, *in;
        uint64_t alive_ns, dead_ns;
        const char *out;
    } t[] = {
        {"says nothing", "", 59 * BNS_SEC, 61 * BNS_SEC, ""},
        {"half a head", "GET /he", 9 * BNS_SEC, 11 * BNS_SEC, "HTTP/1.1 408 "},
        {"half a body", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na",
         29 * BNS_SEC, 31 * BNS_SEC, "HTTP/1.1 408 "},
        {"half a streamed body", "PUT /up HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na",
         29 * BNS_SEC, 31 * BNS_SEC, ""},
        {"idle after one", GET, 59 * BNS_SEC, 61 * BNS_SEC, "HTTP/1.1 200 "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct rig r;
        struct client c;

        print_message("  %s\n", t[i].name);
        rig_start(&r, 64);
        client_dial(&r, &c);
        client_say(&c, t[i].in);
        fake_run_for(&r.f, t[i].alive_ns);
        assert_false(c.closed);
        fake_run_for(&r.f, t[i].dead_ns - t[i].alive_ns);
        assert_true(c.closed);
        assert_memory_equal(text_of(&c), t[i].out, strlen(t[i].out));
        client_end(&r, &c);
        rig_end(&r);
    }
}

/* A reader of the answer that stops: the server gives up after two looks, the bytes are
 * released. */
static void an_answer_that_nobody_reads_is_dropped(void **state)
{
    struct rig r;
    struct client c;
    static uint8_t big[4u << 20];
    struct bns_slice v = bns_slice(big, sizeof big);

    (void)state;
    rig_start(&r, 64u * 1024);
    client_dial(&r, &c);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_run_for(&r.f, BNS_MS);
    bns_stream_read(c.s, false);
    assert_int_equal(bns_http_begin(r.held[0], 200, sizeof big), BNS_OK);
    assert_int_equal(bns_http_write(r.held[0], &v, 1, released, &r), BNS_OK);
    fake_run_for(&r.f, 20 * BNS_SEC);
    assert_false(c.closed);
    fake_run_for(&r.f, 80 * BNS_SEC);
    assert_true(c.closed);
    assert_int_equal(r.released, 1);
    assert_int_equal(r.release_code, BNS_E_DROPPED);
    assert_int_equal(r.gone, 1);
    bns_http_end(r.held[--r.held_count]);
    client_end(&r, &c);
    rig_end(&r);
}

static void a_held_body_keeps_memory_bounded(void **state)
{
    struct rig r;
    struct client c;
    static char body[8u << 20];
    size_t before;

    (void)state;
    memset(body, 'x', sizeof body - 1);
    rig_start(&r, 64u * 1024);
    client_dial(&r, &c);
    before = bns_test_heap_in_use(r.heap);
    client_say(&c, "PUT /up/x HTTP/1.1\r\nHost: x\r\nContent-Length: 8388607\r\n\r\n");
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(r.held_count, 1);
    bns_http_body_read(r.held[0], false);
    client_say(&c, body);
    fake_run_for(&r.f, 50 * BNS_SEC);
    assert_int_equal(r.streamed, 0);
    assert_false(c.closed); /* it is us who wait */
    assert_true(bns_test_heap_in_use(r.heap) - before < 1u << 20);
    bns_http_body_read(r.held[0], true);
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(r.streamed, sizeof body - 1);
    assert_true(r.stream_end);
    assert_memory_equal(text_of(&c), "HTTP/1.1 201", 12);
    client_end(&r, &c);
    rig_end(&r);
}

static void a_cut_answer_resets_the_connection(void **state)
{
    struct rig r;
    struct client c;
    struct bns_slice v = BNS_LIT("abc");

    (void)state;
    rig_start(&r, 64);
    client_dial(&r, &c);
    client_say(&c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_run_for(&r.f, BNS_MS);
    assert_int_equal(bns_http_begin(r.held[0], 200, 5), BNS_OK);
    assert_int_equal(bns_http_write(r.held[0], &v, 1, NULL, NULL), BNS_OK);
    assert_int_equal(bns_http_write(r.held[0], &v, 1, NULL, NULL), BNS_E_INVALID);
    bns_http_end(r.held[--r.held_count]); /* 3 of 5 bytes */
    fake_run_for(&r.f, BNS_MS);
    assert_true(c.closed);
    assert_int_equal(c.code, BNS_E_DROPPED);
    client_end(&r, &c);
    rig_end(&r);
}

static void more_connections_than_the_limit_are_reset(void **state)
{
    struct rig r;
    struct client c[4];

    (void)state;
    rig_start(&r, 64);
    for (size_t i = 0; i < 4; i++)
        client_dial(&r, &c[i]);
    fake_run_for(&r.f, BNS_MS);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(c[i].closed, i == 3);
    for (size_t i = 0; i < 4; i++)
        client_end(&r, &c[i]);
    rig_end(&r);
}

static void drained(void *arg)
{
    ((struct rig *)arg)->drained = true;
}

static void drain_lets_open_requests_finish(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct rig r;
        struct client idle, busy;

        rig_start(&r, 64);
        client_dial(&r, &idle);
        client_dial(&r, &busy);
        client_say(&idle, GET);
        client_say(&busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        fake_run_for(&r.f, BNS_MS);
        bns_http_server_drain(r.s, 5 * BNS_SEC, drained, &r);
        fake_run_for(&r.f, BNS_SEC);
        assert_true(idle.closed);
        assert_false(busy.closed);
        assert_false(r.drained);
        if (late == 0)
            bns_http_reply_text(r.held[--r.held_count], 200, "first");
        fake_run_for(&r.f, 5 * BNS_SEC);
        assert_true(busy.closed);
        assert_true(r.drained);
        assert_int_equal(r.gone, late);
        if (late == 0)
            assert_string_equal(text_of(&busy), OK_HELLO "Connection: close\r\n\r\nfirst");
        client_end(&r, &idle);
        client_end(&r, &busy);
        rig_end(&r);
    }
}

/* The sniffing front hands over what it has read. */
static void adopt_accept(void *arg, struct bns_stream *s)
{
    struct rig *r = arg;
    bns_http_server_adopt(r->s, s, BNS_LIT("GET /he"));
}

static void an_adopted_connection_starts_with_the_bytes_already_read(void **state)
{
    struct rig r;
    struct client c;
    struct bns_listener *l;

    (void)state;
    rig_start(&r, 1);
    assert_int_equal(bns_net_listen(&r.f.env, "h", 0, adopt_accept, &r, &l, NULL), BNS_OK);
    r.port = bns_listener_port(&r.f.env, l);
    client_dial(&r, &c);
    client_say(&c, "llo HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_run_for(&r.f, BNS_MS);
    assert_string_equal(text_of(&c), OK_HELLO "\r\nhello");
    client_end(&r, &c);
    bns_listener_close(&r.f.env, l);
    rig_end(&r);
}

static void dates_are_right(void **state)
{
    struct rig r;
    struct client c;

    (void)state;
    rig_start(&r, 64);
    client_dial(&r, &c);
    client_say(&c, GET);
    fake_run_for(&r.f, BNS_MS);
    /* the fake wall clock stands at 1,700,000,001 s */
    assert_int_equal(bns_buf_byte(&c.got, 0), BNS_OK);
    assert_non_null(strstr((char *)c.got.ptr, "\r\nDate: Tue, 14 Nov 2023 22:13:21 GMT\r\n"));
    client_end(&r, &c);
    rig_end(&r);
}

/* ---- the client ------------------------------------------------------------------------------ */
static void fetched(void *arg, int code, const struct bns_http_answer *a)
{
    struct rig *r = arg;

    r->dones++;
    r->code = code;
    r->status = a != NULL ? a->status : 0;
    r->body[0] = '\0';
    if (a != NULL)
        (void)snprintf(r->body, sizeof r->body, "%.*s", (int)a->body.len,
                       (const char *)a->body.ptr);
}

static void the_client_gets_answers_of_every_framing(void **state)
{
    static const struct {
        const char *method, *target, *body;
        int status;
        const char *answer;
    } t[] = {
        {NULL, "/hello", "", 200, "hello"},       {"HEAD", "/hello", "", 200, ""},
        {"POST", "/echo", "abc", 200, "abc"},     {"GET", "/chunks", "", 200, "onetwoone"},
        {"GET", "/none", "", 404, "not found\n"},
    };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof t / sizeof t[0]; i++) {
        struct rig r;
        struct bns_http_fetch_opts o = {.host = "127.0.0.1",
                                        .method = t[i / 2].method,
                                        .target = t[i / 2].target,
                                        .body = bns_slice_str(t[i / 2].body)};

        rig_start(&r, i % 2 == 0 ? 1000 : 1);
        o.port = r.port;
        assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL), BNS_OK);
        assert_int_equal(r.dones, 0);
        fake_run_for(&r.f, BNS_MS);
        assert_int_equal(r.dones, 1);
        assert_int_equal(r.code, BNS_OK);
        assert_int_equal(r.status, t[i / 2].status);
        assert_string_equal(r.body, t[i / 2].answer);
        rig_end(&r);
    }
}

static void the_client_names_its_failures(void **state)
{
    struct rig r;
    struct bns_http_fetch *f;
    struct bns_http_fetch_opts o = {.host = "127.0.0.1", .target = "/hold"};

    (void)state;
    rig_start(&r, 64);
    o.port = r.port;
    assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL), BNS_OK);
    fake_run_for(&r.f, 11 * BNS_SEC);
    assert_int_equal(r.code, BNS_E_TIMEOUT);
    assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL), BNS_OK);
    fake_run_for(&r.f, BNS_SEC);
    bns_http_abort(r.held[--r.held_count]);
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(r.code, BNS_E_DROPPED);
    assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, &f, NULL), BNS_OK);
    fake_run_for(&r.f, BNS_SEC);
    bns_http_fetch_cancel(f);
    fake_run_for(&r.f, 20 * BNS_SEC);
    assert_int_equal(r.dones, 2);
    o.target = "/hello";
    o.body_bytes_max = 4;
    assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL), BNS_OK);
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(r.code, BNS_E_TOOBIG);
    o.port = 1;
    assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL), BNS_OK);
    fake_run_for(&r.f, BNS_SEC);
    assert_int_equal(r.code, BNS_E_DROPPED);
    assert_int_equal(r.dones, 4);
    o.target = "/a b";
    assert_int_equal(bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL), BNS_E_INVALID);
    rig_end(&r);
}

/* ---- out of memory --------------------------------------------------------------------------- */
static void every_allocation_may_fail(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct rig r;
        struct client c;
        struct bns_http_fetch_opts o = {.host = "127.0.0.1", .target = "/chunks"};
        size_t asked = 0;

        memset(&r, 0, sizeof r);
        r.heap = bns_test_heap(fail_at);
        fake_init(&r.f, bns_test_heap_alloc(r.heap));
        r.f.own = bns_alloc_libc();
        r.f.timers.alloc = bns_alloc_libc();
        for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
            routes[i].arg = &r;
        if (bns_http_server_new(&r.f.env, NULL, &r.s) == BNS_OK &&
            bns_http_server_listen(r.s, "h", 0, &r.port, NULL) == BNS_OK) {
            assert_int_equal(bns_http_server_routes(r.s, routes, 8), BNS_OK);
            client_dial(&r, &c);
            (void)client_try(&c, /* refused when the server had no memory for the connection */
                             "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                             "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
                             "PUT /hello HTTP/1.1\r\nHost: x\r\n\r\n");
            o.port = r.port;
            asked = bns_http_fetch(&r.f.env, &o, fetched, &r, NULL, NULL) == BNS_OK;
            fake_run_for(&r.f, BNS_SEC);
            assert_int_equal(r.dones, asked);
            client_end(&r, &c);
        }
        bns_http_server_free(r.s);
        fake_free(&r.f);
        assert_int_equal(bns_test_heap_close(r.heap, &fired), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exchanges),
        cmocka_unit_test(bad_requests_are_answered_and_closed),
        cmocka_unit_test(a_pipelined_request_waits_for_the_answer_before_it),
        cmocka_unit_test(a_flood_of_pipelined_requests_is_held_back),
        cmocka_unit_test(a_client_that_goes_away_is_told_to_the_handler),
        cmocka_unit_test(slow_clients_are_closed_in_time),
        cmocka_unit_test(an_answer_that_nobody_reads_is_dropped),
        cmocka_unit_test(a_held_body_keeps_memory_bounded),
        cmocka_unit_test(a_cut_answer_resets_the_connection),
        cmocka_unit_test(more_connections_than_the_limit_are_reset),
        cmocka_unit_test(drain_lets_open_requests_finish),
        cmocka_unit_test(an_adopted_connection_starts_with_the_bytes_already_read),
        cmocka_unit_test(dates_are_right),
        cmocka_unit_test(the_client_gets_answers_of_every_framing),
        cmocka_unit_test(the_client_names_its_failures),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
