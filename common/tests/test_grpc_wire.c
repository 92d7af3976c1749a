/* test_grpc_wire.c - the gRPC server against peers that are rude, broken or hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "grpc_raw.h"

#define MSG "\0\0\0\0\5hello"
static const struct bns_slice one_message = {(const uint8_t *)MSG, 10};

static void open_raw(struct kit *k, struct raw *r, struct bns_buf *b,
                     const struct bns_grpc_config *cfg)
{
    kit_open(k, cfg);
    raw_dial(r, k);
    bns_buf_init(b, bns_alloc_libc(), 64u << 20);
}

static void close_raw(struct kit *k, struct raw *r, struct bns_buf *b)
{
    raw_free(r);
    bns_buf_free(b);
    assert_int_equal(kit_close(k, NULL), 0);
}

/* Goal: clients that wait for the server's SETTINGS before they speak are served. */
static void settings_come_before_any_byte_of_the_client(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    assert_int_equal(r.frames[SETTINGS], 1);
    put_hello(&b);
    put_request(&b, 1, "/bns.Echo/Unary", one_message);
    raw_flush(&r, &b);
    assert_int_equal(r.frames[DATA], 1); /* no empty DATA after it */
    assert_int_equal(r.frames[HEADERS], 2);
    assert_int_equal(r.ended, 1);
    assert_int_equal(r.frames[RST_STREAM], 0);
    close_raw(&k, &r, &b);
}

/* Goal: "no answer begun" is one HEADERS frame; answers that are not gRPC are HTTP statuses. */
static void errors_are_trailers_only(void **state)
{
    static const struct {
        const char *method, *path, *type, *want;
    } t[] = {
        {"POST", "/bns.Echo/Nope", "application/grpc", "unknown method Nope"},
        {"POST", "/bns.Echo/Nope", "application/grpc+proto", "unknown method Nope"},
        {"POST", "/bns.Echo/Unary", "application/json", "415"},
        {"POST", "/bns.Echo/Unary", "application/grpcx", "415"},
        {"POST", "/bns.Echo/Unary", NULL, "415"},
        {"GET", "/bns.Echo/Unary", "application/grpc", "405"},
    };
    struct kit k;
    struct raw r;
    struct bns_buf b, h;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    bns_buf_init(&h, bns_alloc_libc(), 4096);
    put_hello(&b);
    put_frame(&b, SETTINGS, 0, 0, bns_slice("\0\1\0\0\0\0", 6)); /* no HPACK table: all literal */
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        bns_buf_clear(&h);
        put_request_fields(&h, t[i].method, t[i].path, t[i].type);
        put_frame(&b, HEADERS, 5, 1 + 2 * i, bns_buf_slice(&h));
        raw_flush(&r, &b);
        print_message("  %s %s\n", t[i].path, t[i].type == NULL ? "-" : t[i].type);
        assert_int_equal(r.frames[HEADERS], i + 1);
        assert_int_equal(r.ended, i + 1);
        assert_int_equal(r.frames[DATA], 0);
        /* Texts leave Huffman-coded, so look at lengths. */
        assert_true(strlen(t[i].want) > 3 ? r.headers.len > 30 : r.headers.len < 8);
    }
    assert_int_equal(k.started, 0);
    bns_buf_free(&h);
    close_raw(&k, &r, &b);
}

/* Goal: flag 1 without an encoding we know is 12, and the call ends. */
static void compressed_messages_are_refused(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    put_hello(&b);
    put_request(&b, 1, "/bns.Echo/Unary", bns_slice("\1\0\0\0\2ab", 7));
    put_request(&b, 3, "/bns.Echo/Unary", bns_slice("\7\0\0\0\2ab", 7)); /* no such flag */
    put_request(&b, 5, "/bns.Echo/Unary", bns_slice("\0\0\0\0\5ab", 7)); /* cut short */
    put_request(&b, 7, "/bns.Echo/Unary", bns_slice("\0\xff\xff\xff\xff", 5));
    raw_flush(&r, &b);
    assert_int_equal(r.ended, 4);
    assert_int_equal(k.messages, 0);
    assert_int_equal(k.ends[BNS_GRPC_END_RESET], 4);
    close_raw(&k, &r, &b);
}

struct http1 {
    struct bns_stream *s;
    char got[64];
    size_t len;
};

static void http1_close(void *arg, int code)
{
    (void)arg;
    (void)code;
}

static void on_http1(void *arg, struct bns_stream *s, struct bns_slice read_so_far)
{
    static const struct bns_stream_events ev = {.on_close = http1_close};
    struct http1 *h = arg;

    h->s = s;
    h->len = read_so_far.len;
    memcpy(h->got, read_so_far.ptr, read_so_far.len);
    bns_stream_set_events(s, &ev, h);
    bns_stream_reset(s);
}

/* Goal: one port, two protocols, told apart by the first bytes however they are cut. */
static void http1_is_handed_over_with_all_its_bytes(void **state)
{
    static const char *const said[] = {"GET /health HTTP/1.1\r\n",
                                       "PRI * HTTP/1.1\r\n",
                                       "PUT / ",
                                       "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
                                       "x",
                                       NULL};

    (void)state;
    for (size_t i = 0; said[i] != NULL; i++) {
        for (size_t cut = 1; cut <= strlen(said[i]); cut++) {
            struct http1 h = {.s = NULL};
            struct bns_grpc_config cfg = {.on_http1 = on_http1, .arg = &h};
            struct kit k;
            struct raw r;
            struct bns_buf b;

            open_raw(&k, &r, &b, &cfg);
            k.f.chunk = cut;
            raw_send(&r, said[i], strlen(said[i]));
            fake_run_for(&k.f, BNS_MS);
            assert_non_null(h.s);
            assert_memory_equal(h.got, said[i], h.len);
            assert_int_equal(r.bytes, 0);
            close_raw(&k, &r, &b);
        }
    }
}

static void http2_on_a_shared_port(void **state)
{
    struct http1 h = {.s = NULL};
    struct bns_grpc_config cfg = {.on_http1 = on_http1, .arg = &h};

    (void)state;
    for (size_t cut = 1; cut < 60; cut++) {
        struct kit k;
        struct raw r;
        struct bns_buf b;

        open_raw(&k, &r, &b, &cfg);
        assert_int_equal(r.bytes, 0);
        k.f.chunk = cut;
        put_hello(&b);
        put_request(&b, 1, "/bns.Echo/Unary", one_message);
        raw_flush(&r, &b);
        assert_int_equal(r.ended, 1);
        close_raw(&k, &r, &b);
    }
    assert_null(h.s);
}

/* Goal: whoever says nothing, or half of a preface, is dropped after 10 s. */
static void silent_connections_are_dropped(void **state)
{
    static const size_t said[] = {0, 1, 10, 23, 24};
    struct http1 h;

    (void)state;
    for (size_t i = 0; i < 2 * sizeof said / sizeof said[0]; i++) {
        struct bns_grpc_config cfg = {.on_http1 = i % 2 == 0 ? on_http1 : NULL, .arg = &h};
        struct kit k;
        struct raw r;
        struct bns_buf b;

        open_raw(&k, &r, &b, &cfg);
        raw_send(&r, PREFACE, said[i / 2]);
        fake_run_for(&k.f, 9 * BNS_SEC);
        assert_false(r.closed);
        fake_run_for(&k.f, 2 * BNS_SEC);
        assert_true(r.closed);
        close_raw(&k, &r, &b);
    }
}

/* Goal: 20,000 resets in a burst are taken, more end the connection. */
static void reset_flood_is_ended(void **state)
{
    struct bns_grpc_config cfg = {.reset_burst = 500, .reset_rate = 100};
    uint8_t cancel[4] = {0, 0, 0, 8};
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, &cfg);
    put_hello(&b);
    for (uint32_t i = 0; i < 500; i++) {
        put_request(&b, 1 + 2 * i, "/bns.Echo/Unary", bns_slice("\0", 1));
        put_frame(&b, RST_STREAM, 0, 1 + 2 * i, bns_slice(cancel, 4));
    }
    raw_flush(&r, &b);
    assert_int_equal(r.frames[GOAWAY], 0);
    fake_run_for(&k.f, BNS_SEC); /* 100 more tokens */
    for (uint32_t i = 500; i < 650; i++) {
        put_request(&b, 1 + 2 * i, "/bns.Echo/Unary", bns_slice("\0", 1));
        put_frame(&b, RST_STREAM, 0, 1 + 2 * i, bns_slice(cancel, 4));
    }
    raw_flush(&r, &b);
    assert_int_equal(r.frames[GOAWAY], 1);
    assert_int_equal(r.goaway_code, 11); /* ENHANCE_YOUR_CALM */
    assert_string_equal(r.goaway_text, "too_many_resets");
    assert_true(r.closed);
    close_raw(&k, &r, &b);
}

static void put_pings(struct bns_buf *b, int n)
{
    for (int i = 0; i < n; i++)
        put_frame(b, PING, 0, 0, bns_slice("\2\4\20\20\11\16\7\7", 8));
}

/* Goal: pings are answered at once; only above 100 in 10 s without an answer of ours they count. */
static void ping_strikes(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    put_hello(&b);
    put_pings(&b, 100);
    raw_flush(&r, &b);
    assert_int_equal(r.acks, 100);
    fake_run_for(&k.f, 11 * BNS_SEC);
    put_pings(&b, 100); /* a new window */
    raw_flush(&r, &b);
    assert_int_equal(r.acks, 200);
    for (uint32_t i = 0; i < 20; i++) { /* each answer forgives */
        put_request(&b, 1 + 2 * i, "/bns.Echo/Unary", one_message);
        raw_flush(&r, &b);
        put_pings(&b, 60);
        raw_flush(&r, &b);
    }
    assert_int_equal(r.acks, 1400);
    assert_int_equal(r.frames[GOAWAY], 0);
    put_pings(&b, 41);
    raw_flush(&r, &b);
    assert_int_equal(r.frames[GOAWAY], 1);
    assert_int_equal(r.goaway_code, 11);
    assert_string_equal(r.goaway_text, "too_many_pings");
    assert_true(r.closed);
    close_raw(&k, &r, &b);
}

/* Goal: a header list above 16 KiB resets its stream, and only that. */
static void long_header_lists_are_refused(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b, h;
    char value[101] = "";

    (void)state;
    memset(value, 'v', 100);
    open_raw(&k, &r, &b, NULL);
    bns_buf_init(&h, bns_alloc_libc(), 1u << 20);
    put_request_fields(&h, "POST", "/bns.Echo/Unary", "application/grpc");
    for (int i = 0; i < 120; i++)
        put_field(&h, "name", value); /* 136 bytes each, as RFC 9113 counts */
    put_hello(&b);
    put_frame(&b, HEADERS, 4, 1, bns_buf_slice(&h));
    put_frame(&b, DATA, 1, 1, one_message);
    raw_flush(&r, &b);
    assert_int_equal(r.frames[RST_STREAM], 1);
    assert_int_equal(r.rst_id, 1);
    put_request(&b, 3, "/bns.Echo/Unary", one_message);
    raw_flush(&r, &b);
    assert_int_equal(r.ended, 1);
    assert_false(r.closed);
    bns_buf_free(&h);
    close_raw(&k, &r, &b);
}

/* Goal: an HPACK bomb (one large field put into the table, then named by one byte each) costs no
 * more memory than its limit. */
static void hpack_bomb_is_bounded(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b, h;
    char value[4000];

    (void)state;
    memset(value, 'v', sizeof value);
    open_raw(&k, &r, &b, NULL);
    bns_buf_init(&h, bns_alloc_libc(), 1u << 20);
    put_hello(&b);
    for (uint32_t i = 0; i < 100; i++) {
        bns_buf_clear(&h);
        put_request_fields(&h, "POST", "/bns.Echo/Unary", "application/grpc");
        assert_int_equal(bns_buf_add(&h, "\x40\1n\x7f\xa1\x1e", 6), BNS_OK); /* 127 + 3873 */
        assert_int_equal(bns_buf_add(&h, value, sizeof value), BNS_OK);
        while (h.len < 16000)
            assert_int_equal(bns_buf_byte(&h, 0xbe), BNS_OK); /* index 62: the newest */
        put_frame(&b, HEADERS, 5, 1 + 2 * i, bns_buf_slice(&h));
    }
    raw_flush(&r, &b);
    assert_int_equal(r.frames[RST_STREAM], 100);
    assert_true(bns_test_heap_peak(k.heap) < 1024u * 1024);
    put_request(&b, 1001, "/bns.Echo/Unary", one_message);
    raw_flush(&r, &b);
    assert_int_equal(r.ended, 1);
    bns_buf_free(&h);
    close_raw(&k, &r, &b);
}

/* Goal: a client that asks and asks and never reads its socket costs bounded memory. */
static void never_reading_is_bounded(void **state)
{
    static uint8_t body[5 + 50000];
    struct kit k;
    struct raw r;
    struct bns_buf b;
    size_t peak;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    k.f.window = 64u * 1024;
    bns_stream_read(r.s, false);
    bns_put_u32be(body + 1, sizeof body - 5);
    put_hello(&b);
    put_frame(&b, SETTINGS, 0, 0, bns_slice("\0\4\x7f\xff\xff\xff", 6));
    put_frame(&b, WINDOW_UPDATE, 0, 0, bns_slice("\x7f\xfe\0\0", 4));
    raw_flush(&r, &b);
    for (uint32_t i = 0; i < 2000; i++) {
        put_request(&b, 1 + 2 * i, "/bns.Echo/Unary", one_message);
        b.len -= 9 + 10; /* without its DATA */
        for (size_t at = 0; at < sizeof body; at += 16384)
            put_frame(&b, DATA, at + 16384 >= sizeof body, 1 + 2 * i,
                      bns_slice(body + at, at + 16384 < sizeof body ? 16384 : sizeof body - at));
        raw_flush(&r, &b); /* 100 MB in all, answered with as much */
    }
    peak = bns_test_heap_peak(k.heap);
    print_message("  peak %zu bytes, %u answered\n", peak, k.messages);
    assert_true(peak < 3u * 1024 * 1024);
    assert_true(k.messages < 2000);
    assert_false(r.closed);
    bns_stream_read(r.s, true);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(k.messages, 2000); /* and goes on when it reads */
    assert_int_equal(r.ended, 2000);
    close_raw(&k, &r, &b);
}

/* Each call may send a large message; a connection may not keep many of them half sent. */
static void half_sent_messages_are_bounded(void **state)
{
    static uint8_t part[16384];
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    put_hello(&b);
    raw_flush(&r, &b);
    for (uint32_t i = 0; i < 100; i++) {
        put_request(&b, 1 + 2 * i, "/bns.Echo/Unary", bns_slice("\0\0\x3f\xff\xff", 5));
        b.ptr[b.len - 5 - 9 + 4] = 0; /* not the end of the stream */
        for (unsigned at = 0; at < 2u << 20; at += sizeof part)
            put_frame(&b, DATA, 0, 1 + 2 * i, bns_slice(part, sizeof part));
        raw_flush(&r, &b);
    }
    print_message("  peak %zu bytes\n", bns_test_heap_peak(k.heap));
    assert_true(bns_test_heap_peak(k.heap) < 140u << 20);
    assert_int_equal(k.messages, 0);
    assert_true(r.ended > 60); /* refused, the connection goes on */
    assert_false(r.closed);
    put_request(&b, 1001, "/bns.Echo/Unary", one_message);
    raw_flush(&r, &b);
    assert_int_equal(k.messages, 1);
    close_raw(&k, &r, &b);
}

static void put_session(struct bns_buf *b)
{
    put_hello(b);
    put_request(b, 1, "/bns.Echo/Unary", one_message);
    put_pings(b, 1);
    put_request(b, 3, "/bns.Echo/ClientStream", bns_slice("\0\0\0\0\1a\0\0\0\0\0", 11));
    put_request(b, 5, "/bns.Echo/Bidi", one_message);
    put_frame(b, GOAWAY, 0, 0, bns_slice("\0\0\0\0\0\0\0\0", 8));
}

/* Goal: a session may be cut at every byte, and any byte of it may be any other: the server ends
 * the connection or goes on, and nothing is left over. */
static void cut_and_flipped_sessions(void **state)
{
    struct bns_buf whole;

    (void)state;
    bns_buf_init(&whole, bns_alloc_libc(), 1u << 20);
    put_session(&whole);
    for (size_t i = 0; i < 5 * whole.len; i++) {
        static const uint8_t flips[] = {0, 1, 0x80, 0xff, 0x10};
        size_t at = i % whole.len, len = i < whole.len ? at : whole.len;
        uint8_t flip = flips[i / whole.len];
        struct kit k;
        struct raw r;
        struct bns_buf b;

        open_raw(&k, &r, &b, NULL);
        whole.ptr[at] ^= flip;
        raw_send(&r, whole.ptr, len);
        whole.ptr[at] ^= flip;
        fake_run_for(&k.f, BNS_SEC);
        close_raw(&k, &r, &b);
    }
    print_message("  %zu runs\n", 5 * whole.len);
    bns_buf_free(&whole);
}

/* Goal: a client that closes its writing half, or its connection, ends its calls. */
static void closed_connections_end_calls(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    put_hello(&b);
    put_request(&b, 1, "/bns.Echo/Hang", one_message);
    raw_flush(&r, &b);
    assert_int_equal(k.held_count, 1);
    bns_stream_reset(r.s);
    fake_run_for(&k.f, BNS_MS);
    assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 1);
    assert_int_equal(bns_grpc_send_copy(k.held[0], BNS_LIT("late")), BNS_E_OFF);
    close_raw(&k, &r, &b);
}

/* Goal: two GOAWAYs: the first says "no new ones, please", the second which ones were taken. */
static void drain_names_the_last_stream(void **state)
{
    struct kit k;
    struct raw r;
    struct bns_buf b;

    (void)state;
    open_raw(&k, &r, &b, NULL);
    put_hello(&b);
    put_request(&b, 1, "/bns.Echo/Hang", one_message);
    raw_flush(&r, &b);
    bns_grpc_server_drain(k.server, NULL, 7 * BNS_SEC, NULL, NULL);
    fake_run_for(&k.f, BNS_MS);
    assert_int_equal(r.frames[GOAWAY], 1);
    assert_int_equal(r.goaway_id, 0x7fffffff);
    assert_int_equal(r.goaway_code, 0);
    put_request(&b, 3, "/bns.Echo/Unary", one_message); /* was on its way: still served */
    put_frame(&b, PING, 1, 0, BNS_LIT("bnsdrain"));
    raw_flush(&r, &b);
    assert_int_equal(r.ended, 1);
    assert_int_equal(r.frames[GOAWAY], 2);
    assert_int_equal(r.goaway_id, 3);
    put_request(&b, 5, "/bns.Echo/Unary", one_message); /* too late: as if never sent */
    raw_flush(&r, &b);
    assert_int_equal(k.started, 2);
    kit_finish_held(&k, BNS_GRPC_OK);
    fake_run_for(&k.f, BNS_MS);
    assert_int_equal(r.ended, 2);
    assert_true(r.closed);
    close_raw(&k, &r, &b);
}

struct rest {
    struct raw *r;
    const uint8_t *ptr;
    size_t len;
};

static void send_rest(void *arg)
{
    struct rest *rest = arg;

    raw_send(rest->r, rest->ptr, rest->len);
    rest->len = 0;
}

/* Goal: a call that a drain ends between two of its headers never begins. The others come in the
 * same turn, before the server has told anybody. */
static void a_drain_ends_half_a_request(void **state)
{
    for (size_t cut = 10, len = 10; cut <= len; cut++) { /* from its first header on */
        struct kit k;
        struct raw r;
        struct bns_buf b;
        struct rest rest = {.r = &r};

        (void)state;
        open_raw(&k, &r, &b, NULL);
        put_hello(&b);
        put_request(&b, 1, "/bns.Echo/Hang", one_message);
        raw_flush(&r, &b);
        put_request(&b, 3, "/bns.Echo/Hang", one_message);
        len = 9 + (bns_get_u32be(b.ptr) >> 8); /* of HEADERS */
        raw_send(&r, b.ptr, cut);
        fake_run_for(&k.f, BNS_MS);
        assert_int_equal(k.started, 1 + (cut == len));
        rest.ptr = b.ptr + cut;
        rest.len = b.len - cut;
        k.ended = send_rest;
        k.ended_arg = &rest;
        bns_grpc_server_drain(k.server, "server stopped", BNS_MS, NULL, NULL);
        fake_run_for(&k.f, 2 * BNS_SEC);
        assert_int_equal(rest.len, 0);
        assert_int_equal(k.started, 1 + (cut == len));
        assert_int_equal(k.ends[BNS_GRPC_END_CLOSED], 1 + (cut == len));
        assert_true(r.closed);
        kit_finish_held(&k, BNS_GRPC_OK);
        close_raw(&k, &r, &b);
    }
}

/* Goal: an idle connection costs at most 28 KiB (16 of them are the frame buffer that nghttp2
 * always keeps), one more open call at most 2 KiB, and 65,536 calls are the most. */
static void idle_connections_and_calls_are_small(void **state)
{
    enum { CONNS = 50 };
    static struct raw r[CONNS];
    struct bns_buf b, h;
    struct kit k;
    size_t before, idle;

    (void)state;
    kit_open(&k, NULL);
    bns_buf_init(&b, bns_alloc_libc(), 64u << 20);
    bns_buf_init(&h, bns_alloc_libc(), 4096);
    put_request_fields(&h, "POST", "/bns.Echo/Bidi", "application/grpc");
    before = bns_test_heap_in_use(k.heap);
    for (int i = 0; i < CONNS; i++) {
        raw_dial(&r[i], &k);
        put_hello(&b);
        put_request(&b, 1, "/bns.Echo/Unary", one_message);
        raw_flush(&r[i], &b);
        assert_int_equal(r[i].ended, 1);
    }
    idle = bns_test_heap_in_use(k.heap);
    print_message("  %zu bytes a connection\n", (idle - before) / CONNS);
    assert_true((idle - before) / CONNS < 28 * 1024);
    for (uint32_t i = 1; i <= 65537; i++)
        put_frame(&b, HEADERS, 4, 1 + 2 * i, bns_buf_slice(&h));
    raw_flush(&r[0], &b);
    fake_run_for(&k.f, BNS_SEC);
    assert_int_equal(k.started, 65536 + CONNS);
    assert_int_equal(r[0].frames[RST_STREAM], 1);
    assert_int_equal(r[0].rst_code, 7); /* REFUSED_STREAM */
    print_message("  %zu bytes a call\n", (bns_test_heap_in_use(k.heap) - idle) / 65536);
    assert_true((bns_test_heap_in_use(k.heap) - idle) / 65536 < 2048);
    for (int i = 0; i < CONNS; i++)
        raw_free(&r[i]);
    bns_buf_free(&b);
    bns_buf_free(&h);
    assert_int_equal(kit_close(&k, NULL), 0);
}

static void connection_limit(void **state)
{
    struct bns_grpc_config cfg = {.connections_max = 2};
    struct raw a, b, c;
    struct kit k;

    (void)state;
    kit_open(&k, &cfg);
    raw_dial(&a, &k);
    raw_dial(&b, &k);
    raw_dial(&c, &k);
    assert_false(a.closed);
    assert_false(b.closed);
    assert_true(c.closed);
    raw_free(&a);
    raw_free(&c);
    raw_dial(&c, &k);
    assert_false(c.closed);
    raw_free(&b);
    raw_free(&c);
    assert_int_equal(kit_close(&k, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_come_before_any_byte_of_the_client),
        cmocka_unit_test(errors_are_trailers_only),
        cmocka_unit_test(compressed_messages_are_refused),
        cmocka_unit_test(http1_is_handed_over_with_all_its_bytes),
        cmocka_unit_test(http2_on_a_shared_port),
        cmocka_unit_test(silent_connections_are_dropped),
        cmocka_unit_test(reset_flood_is_ended),
        cmocka_unit_test(ping_strikes),
        cmocka_unit_test(long_header_lists_are_refused),
        cmocka_unit_test(hpack_bomb_is_bounded),
        cmocka_unit_test(never_reading_is_bounded),
        cmocka_unit_test(half_sent_messages_are_bounded),
        cmocka_unit_test(cut_and_flipped_sessions),
        cmocka_unit_test(closed_connections_end_calls),
        cmocka_unit_test(drain_names_the_last_stream),
        cmocka_unit_test(a_drain_ends_half_a_request),
        cmocka_unit_test(idle_connections_and_calls_are_small),
        cmocka_unit_test(connection_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
