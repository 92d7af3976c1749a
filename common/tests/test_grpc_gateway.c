/* test_grpc_gateway.c - gRPC methods as JSON over HTTP/1.1.
 *
 * Method: the echo service of grpc_kit.h behind a gateway, on virtual time, with plain streams as
 * clients; each exchange runs with whole reads and again cut at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway_kit.h"

static void gate_open(struct gate *t, size_t chunk)
{
    assert_int_equal(gate_try(t, 0), BNS_OK);
    t->k.f.chunk = chunk;
}

static void gate_done(struct gate *t)
{
    assert_int_equal(gate_close(t, NULL), 0);
}

/* Status and body of the first answer; chunks are put together. */
static int answer(struct gate_client *c, struct bns_buf *body)
{
    struct bns_http1 p;
    struct bns_http1_event ev = {.kind = BNS_HTTP1_END};
    struct bns_slice in = bns_buf_slice(&c->got);
    int status = 0;

    bns_buf_clear(body);
    bns_http1_init(&p, BNS_HTTP1_RESPONSE, bns_alloc_libc(), NULL);
    while (bns_http1_next(&p, &in, &ev) == BNS_OK && ev.kind != BNS_HTTP1_END) {
        if (ev.kind == BNS_HTTP1_HEAD)
            status = ev.head->status;
        else
            assert_int_equal(bns_buf_add(body, ev.data.ptr, ev.data.len), BNS_OK);
    }
    if (ev.kind != BNS_HTTP1_END)
        status = -status; /* not whole */
    bns_http1_free(&p);
    assert_int_equal(bns_buf_byte(body, 0), BNS_OK);
    return status;
}

#define ERROR(text, code) "{\"error\":\"" text "\",\"message\":\"" text "\",\"code\":" #code "}"
#define STREAM_ERROR(text, code, http, name)                                                       \
    "{\"error\":{\"grpc_code\":" #code ",\"http_code\":" #http ",\"message\":\"" text              \
    "\",\"http_status\":\"" name "\",\"code\":" #code "}}\n"
#define CAFE STREAM_ERROR("caf\303\251 100%\\n", 10, 409, "Conflict")

static const struct {
    const char *name, *path, *body;
    int status;
    const char *answer;
} exchange_table[] = {
    {"unary", "/v3/unary", "{\"i64\":\"5\",\"text\":\"a\"}", 200, "{\"i64\":\"5\",\"text\":\"a\"}"},
    {"a path of older releases", "/v2/unary", "{\"i32\":5}", 200, "{\"i32\":5}"},
    {"empty body", "/v3/unary", "", 200, "{}"},
    {"null", "/v3/unary", " null ", 200, "{}"},
    {"zeros are left out", "/v3/unary", "{\"i64\":0,\"text\":\"\",\"nums\":[]}", 200, "{}"},
    {"lists", "/v3/unary", "{\"nums\":[1,2],\"texts\":[\"a\"],\"inners\":[{},{\"name\":\"x\"}]}",
     200, "{\"nums\":[1,2],\"texts\":[\"a\"],\"inners\":[{},{\"name\":\"x\"}]}"},
    {"only the first value counts", "/v3/unary", "{\"i32\":5}{\"i32\":6} }}", 200, "{\"i32\":5}"},
    {"cut short", "/v3/unary", "{\"i32\":5", 400, ERROR("unexpected EOF", 3)},
    {"a list", "/v3/unary", "[]", 400, ERROR("bns.test.All: a JSON object is expected", 3)},
    {"a number", "/v3/unary", "5", 400,
     ERROR("invalid JSON at line 1 column 1: '[' or '{' expected near '5'", 3)},
    {"bad base64", "/v3/unary", "{\"blob\":\"!\"}", 400, ERROR("bns.test.All.blob: not base64", 3)},
    {"not registered", "/v3/none", "{}", 501,
     ERROR("unknown method None for service bns.Echo", 12)},
    {"no such service", "/v3/nobody", "{}", 501, ERROR("unknown service bns.Nobody", 12)},
    {"no such path", "/v3/unaryx", "{}", 404, "Not Found\n"},
    {"no such path of old", "/v2/x", "{}", 404, "Not Found\n"},
    {"a stream", "/v3/many", "{\"name\":\"xC\"}", 200,
     "{\"result\":{\"name\":\"xC\"}}\n{\"result\":{\"name\":\"xC\"}}\n"
     "{\"result\":{\"name\":\"xC\"}}\n"},
    {"an empty stream", "/v3/many", "", 200, ""},
    {"a stream both ways", "/v3/bidi", "{\"i32\":1}{\"i32\":2}\n{\"i32\":3}", 200,
     "{\"result\":{\"i32\":1}}\n{\"result\":{\"i32\":2}}\n{\"result\":{\"i32\":3}}\n" CAFE},
    {"no value at all", "/v3/bidi", " \n", 409, CAFE},
    {"a bad first value", "/v3/bidi", "{\"i32\":\"x\"}", 400,
     ERROR("bns.test.All.i32: not an integer", 3)},
    {"a bad second value ends the input", "/v3/bidi", "{\"i32\":1}{\"i32\":true}{\"i32\":3}", 200,
     "{\"result\":{\"i32\":1}}\n" CAFE},
    {"a second value cut short", "/v3/bidi", "{\"i32\":1}{\"i32\":", 200,
     "{\"result\":{\"i32\":1}}\n" CAFE},
};
#define EXCHANGES (sizeof exchange_table / sizeof exchange_table[0])

static void exchanges(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * EXCHANGES; i++) {
        struct gate t;
        struct gate_client c;
        struct bns_buf body;

        print_message("  %s\n", exchange_table[i / 2].name);
        gate_open(&t, i % 2 == 0 ? 64u * 1024 : 1);
        bns_buf_init(&body, bns_alloc_libc(), 1u << 20);
        gate_dial(&t, &c);
        gate_post(&c, exchange_table[i / 2].path, bns_slice_str(exchange_table[i / 2].body));
        fake_run_for(&t.k.f, BNS_MS);
        assert_int_equal(answer(&c, &body), exchange_table[i / 2].status);
        assert_string_equal((char *)body.ptr, exchange_table[i / 2].answer);
        gate_end(&t, &c);
        bns_buf_free(&body);
        gate_done(&t);
    }
}

/* A whole exchange of one client; the body in `body`. */
static int post(struct gate *t, const char *path, struct bns_slice text, struct bns_buf *body)
{
    struct gate_client c;
    int status;

    gate_dial(t, &c);
    gate_post(&c, path, text);
    fake_run_for(&t->k.f, BNS_SEC);
    status = answer(&c, body);
    gate_end(t, &c);
    return status;
}

static void repeat(struct bns_buf *b, const char *text, size_t n)
{
    while (n-- > 0)
        assert_int_equal(bns_buf_str(b, text), BNS_OK);
}

static void values_over_the_limits_are_refused(void **state)
{
    static const char kib[1025] = {[0 ... 1023] = 'x'};
    struct gate t;
    struct bns_buf body, big;

    (void)state;
    gate_open(&t, 64u * 1024);
    bns_buf_init(&body, bns_alloc_libc(), 1u << 20);
    bns_buf_init(&big, bns_alloc_libc(), 64u << 20);
    repeat(&big, "{\"inners\":[{}", 1);
    repeat(&big, ",{}", 600);
    repeat(&big, "]}", 1);
    assert_int_equal(post(&t, "/v3/unary", bns_buf_slice(&big), &body), 400);
    assert_string_equal((char *)body.ptr,
                        ERROR("a JSON value may have 8454144 bytes and 1000 elements", 3));
    bns_buf_clear(&big);
    repeat(&big, "{\"children\":[", 100);
    assert_int_equal(post(&t, "/v3/many", bns_buf_slice(&big), &body), 400);
    repeat(&big, "]}", 100);
    assert_int_equal(post(&t, "/v3/many", bns_buf_slice(&big), &body), 400);
    assert_non_null(strstr((char *)body.ptr, "nested deeper than 64"));
    /* a message over the method's limit is the method's question */
    bns_buf_clear(&big);
    repeat(&big, "{\"text\":\"", 1);
    repeat(&big, kib, 4200);
    repeat(&big, "\"}", 1);
    assert_int_equal(post(&t, "/v3/unary", bns_buf_slice(&big), &body), 429);
    assert_string_equal((char *)body.ptr,
                        ERROR("grpc: received message larger than max (4300805 vs. 4194304)", 8));
    bns_buf_free(&big);
    bns_buf_free(&body);
    gate_done(&t);
}

static void other_methods_are_not_allowed(void **state)
{
    struct gate t;
    struct gate_client c;
    struct bns_buf body;

    (void)state;
    gate_open(&t, 64u * 1024);
    bns_buf_init(&body, bns_alloc_libc(), 1u << 20);
    gate_dial(&t, &c);
    gate_say(&c, BNS_LIT("GET /v3/unary HTTP/1.1\r\nHost: x\r\n\r\n"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(answer(&c, &body), 405);
    gate_end(&t, &c);
    bns_buf_free(&body);
    gate_done(&t);
}

#define STREAM(path, more)                                                                         \
    BNS_LIT("POST " path " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" more "\r\n")

static bool has(const struct gate_client *c, const char *text)
{
    return memmem(c->got.ptr, c->got.len, text, strlen(text)) != NULL;
}

static void a_stream_answers_before_its_body_ends(void **state)
{
    struct gate t;
    struct gate_client c;

    (void)state;
    gate_open(&t, 64u * 1024);
    gate_dial(&t, &c);
    gate_say(&c, STREAM("/v3/bidi", ""));
    gate_say(&c, BNS_LIT("e\r\n{\"i32\":1}{\"i32\r\n"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_true(has(&c, "{\"result\":{\"i32\":1}}\n"));
    fake_run_for(&t.k.f, 600 * BNS_SEC); /* a stream may be silent */
    gate_say(&c, BNS_LIT("4\r\n\":2}\r\n"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_true(has(&c, "{\"result\":{\"i32\":2}}\n"));
    assert_int_equal(t.k.half_closed, 0);
    gate_say(&c, BNS_LIT("0\r\n\r\n"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(t.k.half_closed, 1);
    assert_true(has(&c, CAFE));
    assert_int_equal(t.k.ends[BNS_GRPC_END_DONE], 1);
    gate_end(&t, &c);
    gate_done(&t);
}

static void a_client_that_hangs_up_cancels(void **state)
{
    struct gate t;
    struct gate_client c;

    (void)state;
    gate_open(&t, 64u * 1024);
    gate_dial(&t, &c);
    gate_post(&c, "/v3/hang", BNS_LIT("{}"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(t.k.held_count, 1);
    assert_true(bns_grpc_is_local(t.k.held[0]));
    gate_end(&t, &c);
    assert_int_equal(t.k.ends[BNS_GRPC_END_RESET], 1);
    assert_int_equal(bns_grpc_send_copy(t.k.held[0], BNS_LIT("x")), BNS_E_OFF);
    gate_done(&t);
}

static void a_handler_sees_metadata_and_no_more(void **state)
{
    struct gate t;
    struct gate_client c;
    struct bns_slice v;

    (void)state;
    gate_open(&t, 64u * 1024);
    gate_dial(&t, &c);
    gate_post(&c, "/v3/hang", BNS_LIT("{}"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_true(bns_grpc_metadata(t.k.held[0], "colour", &v));
    assert_true(bns_slice_eq(v, BNS_LIT("red")));
    assert_true(bns_grpc_metadata(t.k.held[0], "authorization", &v));
    assert_true(bns_slice_eq(v, BNS_LIT("me")));
    assert_false(bns_grpc_metadata(t.k.held[0], "host", &v));
    assert_true(bns_grpc_deadline(t.k.held[0]) == BNS_NEVER);
    gate_end(&t, &c);
    gate_done(&t);
}

static void a_deadline_ends_the_call(void **state)
{
    struct gate t;
    struct gate_client c;
    struct bns_buf body;

    (void)state;
    gate_open(&t, 64u * 1024);
    bns_buf_init(&body, bns_alloc_libc(), 1u << 20);
    gate_dial(&t, &c);
    gate_say(&c, STREAM("/v3/hang", "Grpc-Timeout: 2S\r\n"));
    gate_say(&c, BNS_LIT("2\r\n{}\r\n0\r\n\r\n"));
    fake_run_for(&t.k.f, 1900 * BNS_MS);
    assert_int_equal(c.got.len, 0);
    fake_run_for(&t.k.f, 200 * BNS_MS);
    assert_int_equal(answer(&c, &body), 504);
    assert_string_equal((char *)body.ptr, ERROR("context deadline exceeded", 4));
    assert_int_equal(t.k.ends[BNS_GRPC_END_DEADLINE], 1);
    kit_finish_held(&t.k, BNS_GRPC_OK); /* too late, and dropped */
    gate_end(&t, &c);
    gate_dial(&t, &c);
    gate_say(&c, STREAM("/v3/hang", "Grpc-Timeout: soon\r\n"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(answer(&c, &body), 400);
    assert_string_equal((char *)body.ptr, ERROR("invalid grpc-timeout: soon", 3));
    gate_end(&t, &c);
    bns_buf_free(&body);
    gate_done(&t);
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

static void a_drain_waits_for_calls_and_then_ends_them(void **state)
{
    struct gate t;
    struct gate_client c;
    struct bns_buf body;
    bool drained = false;

    (void)state;
    gate_open(&t, 64u * 1024);
    bns_buf_init(&body, bns_alloc_libc(), 1u << 20);
    gate_dial(&t, &c);
    gate_post(&c, "/v3/hang", BNS_LIT("{}"));
    fake_run_for(&t.k.f, BNS_MS);
    bns_grpc_server_drain(t.k.server, "going", BNS_SEC, set_true, &drained);
    assert_int_equal(post(&t, "/v3/unary", BNS_LIT("{}"), &body), 503); /* new ones are refused */
    assert_string_equal((char *)body.ptr, ERROR("going", 14));
    fake_run_for(&t.k.f, BNS_SEC);
    assert_true(drained);
    assert_int_equal(answer(&c, &body), 503);
    assert_int_equal(t.k.ends[BNS_GRPC_END_CLOSED], 1);
    gate_end(&t, &c);
    bns_buf_free(&body);
    gate_done(&t);
}

static void fill_block(struct kit *k)
{
    static const uint8_t head[] = {0x0a, 0xfc, 0xff, 0x01}; /* Inner.name, 32,764 bytes */

    memset(k->block, 'x', sizeof k->block);
    memcpy(k->block, head, sizeof head);
}

static void a_reader_that_stops_holds_the_handler(void **state)
{
    struct gate t;
    struct gate_client c;

    (void)state;
    gate_open(&t, 64u * 1024);
    fill_block(&t.k);
    t.k.flood_bytes = 400u * FLOOD_MSG;
    gate_dial(&t, &c);
    bns_stream_read(c.s, false);
    gate_post(&c, "/v3/flood", BNS_LIT("{}"));
    fake_run_for(&t.k.f, 20 * BNS_SEC);
    assert_true(t.k.flood_bytes > 300u * FLOOD_MSG);
    assert_true(t.k.queued_max < 300u * 1024);
    bns_stream_read(c.s, true);
    fake_run_for(&t.k.f, 20 * BNS_SEC);
    assert_int_equal(t.k.flood_bytes, 0);
    assert_int_equal(t.k.released, 400);
    assert_true(c.got.len > 400u * (FLOOD_MSG - 4));
    assert_true(has(&c, "}}\n\r\n0\r\n\r\n"));
    gate_end(&t, &c);
    gate_done(&t);
}

static void a_handler_that_takes_nothing_holds_the_client(void **state)
{
    static const struct bns_slice value = {(const uint8_t *)"c\r\n{\"name\":\"a\"}\r\n", 17};
    struct gate t;
    struct gate_client c;

    (void)state;
    gate_open(&t, 64u * 1024);
    t.k.pause = true;
    gate_dial(&t, &c);
    gate_say(&c, STREAM("/v3/sum", ""));
    for (size_t i = 0; i < 10; i++)
        gate_say(&c, value);
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(t.k.started, 1);
    assert_int_equal(t.k.messages, 0);
    bns_grpc_read(t.k.held[0], true);
    t.k.held_count = 0;
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(t.k.messages, 10);
    gate_say(&c, BNS_LIT("0\r\n\r\n"));
    fake_run_for(&t.k.f, BNS_MS);
    assert_int_equal(t.k.half_closed, 1);
    gate_end(&t, &c);
    gate_done(&t);
}

static unsigned admit_after;

static enum bns_grpc_admission admit(void *arg, struct bns_grpc_call *c, struct bns_slice path,
                                     uint64_t first_asked_ns, struct bns_grpc_refusal *why)
{
    (void)arg;
    (void)c;
    (void)path;
    (void)first_asked_ns;
    if (admit_after == 0) {
        *why = (struct bns_grpc_refusal){BNS_GRPC_UNAUTHENTICATED, "who are you"};
        return BNS_GRPC_REFUSE;
    }
    return --admit_after == 0 ? BNS_GRPC_ADMIT : BNS_GRPC_HOLD;
}

static void a_call_that_is_held_gets_its_message_later(void **state)
{
    static const struct {
        const char *path, *body;
        unsigned after;
        int status;
        const char *answer;
    } t[] = {
        {"/v3/unary", "{\"i32\":1}", 5, 200, "{\"i32\":1}"},
        {"/v3/unary", "", 2, 200, "{}"},
        {"/v3/bidi", "{\"i32\":1}{\"i32\":2}", 5, 200,
         "{\"result\":{\"i32\":1}}\n{\"result\":{\"i32\":2}}\n" CAFE},
        {"/v3/bidi", "", 5, 409, CAFE},
        {"/v3/unary", "{}", 0, 401, ERROR("who are you", 16)},
        {"/v3/many", "{}", 0, 401, STREAM_ERROR("who are you", 16, 401, "Unauthorized")},
    };

    (void)state;
    gate_config.admit = admit;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gate g;
        struct bns_buf body;

        gate_open(&g, 64u * 1024);
        bns_buf_init(&body, bns_alloc_libc(), 1u << 20);
        admit_after = t[i].after;
        assert_int_equal(post(&g, t[i].path, bns_slice_str(t[i].body), &body), t[i].status);
        assert_string_equal((char *)body.ptr, t[i].answer);
        bns_buf_free(&body);
        gate_done(&g);
    }
    gate_config.admit = NULL;
}

/* The answer of a unary call, longer than a piece: chunks, and memory for a few of them only. */
static void a_long_answer_goes_out_in_pieces(void **state)
{
    struct gate t;
    struct gate_client c;
    struct bns_buf text, body;

    (void)state;
    gate_open(&t, 64u * 1024);
    bns_buf_init(&text, bns_alloc_libc(), 8u << 20);
    bns_buf_init(&body, bns_alloc_libc(), 8u << 20);
    assert_int_equal(bns_buf_str(&text, "{\"texts\":["), BNS_OK);
    for (size_t i = 0; i < 400; i++)
        assert_int_equal(bns_buf_fmt(&text, "%s\"%04000zu\"", i == 0 ? "" : ",", i), BNS_OK);
    assert_int_equal(bns_buf_str(&text, "]}"), BNS_OK);
    gate_dial(&t, &c);
    gate_post(&c, "/v3/unary", bns_buf_slice(&text));
    fake_run_for(&t.k.f, BNS_SEC);
    assert_int_equal(answer(&c, &body), 200);
    assert_true(has(&c, "Transfer-Encoding: chunked"));
    assert_int_equal(bns_buf_byte(&text, 0), BNS_OK);
    assert_string_equal((char *)body.ptr, (char *)text.ptr);
    gate_end(&t, &c);
    bns_buf_free(&text);
    bns_buf_free(&body);
    gate_done(&t);
}

/* Fails the 1st, 2nd, ... allocation: nothing leaks, and whoever got an answer got a whole one. */
static void calls_survive_oom(void **state)
{
    static const char *const paths[] = {"/v3/unary", "/v3/bidi", "/v3/many"};
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct gate t;
        struct gate_client c;
        int rv = gate_try(&t, fail_at);

        for (size_t i = 0; rv == BNS_OK && i < 3; i++) {
            gate_dial(&t, &c);
            gate_post(&c, paths[i], BNS_LIT("{\"name\":\"xC\",\"i32\":1}"));
            fake_run_for(&t.k.f, BNS_SEC);
            assert_true(c.got.len > 0 || c.closed);
            gate_end(&t, &c);
        }
        assert_int_equal(gate_close(&t, &fired), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exchanges),
        cmocka_unit_test(values_over_the_limits_are_refused),
        cmocka_unit_test(other_methods_are_not_allowed),
        cmocka_unit_test(a_stream_answers_before_its_body_ends),
        cmocka_unit_test(a_client_that_hangs_up_cancels),
        cmocka_unit_test(a_handler_sees_metadata_and_no_more),
        cmocka_unit_test(a_deadline_ends_the_call),
        cmocka_unit_test(a_drain_waits_for_calls_and_then_ends_them),
        cmocka_unit_test(a_reader_that_stops_holds_the_handler),
        cmocka_unit_test(a_handler_that_takes_nothing_holds_the_client),
        cmocka_unit_test(a_call_that_is_held_gets_its_message_later),
        cmocka_unit_test(a_long_answer_goes_out_in_pieces),
        cmocka_unit_test(calls_survive_oom),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
