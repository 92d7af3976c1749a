/* test_tls.c - TLS streams: what they carry, and whom they bound.
 *
 * Method: both ends in one env in memory, on virtual time, with certificates made here. The bytes
 * between them come whole, in sevens and one by one. Clients that no library of ours would make
 * (half a handshake, renegotiation, a cut connection) are OpenSSL alone, or bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "tls_rig.h"

/* ---- what they carry ------------------------------------------------------------------------- */
static void client_released(void *arg, int code)
{
    struct client *c = arg;

    assert_int_equal(code, BNS_OK);
    c->released++;
}

/* Goal: bytes arrive in order and once, both ways, however the connection cuts them. */
static void bytes_travel_both_ways(void **state)
{
    static const struct {
        enum bns_tls_version version;
        size_t chunk, bytes;
    } t[] = {
        {BNS_TLS_1_2, 65536, 300000}, {BNS_TLS_1_3, 65536, 300000}, {BNS_TLS_1_2, 7, 40000},
        {BNS_TLS_1_3, 7, 40000},      {BNS_TLS_1_2, 1, 20000},      {BNS_TLS_1_3, 1, 20000},
    };
    static uint8_t bytes[300000];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_tls_config d = {
            .name = "d", .dial = true, .ca_file = "ca.pem", .version_max = t[i].version};
        struct rig r;
        struct client c = {0};
        size_t writes = 0, at = 0;

        print_message("  version %d, %zu at once\n", (int)t[i].version, t[i].chunk);
        assert_int_equal(rig_start(&r, 0, NULL, &d), BNS_OK);
        r.k.f.chunk = t[i].chunk;
        client_dial(&r, &c);
        while (at < t[i].bytes) { /* before it is open: they wait */
            size_t n = 1 + at % 977;
            struct bns_slice v[2] = {
                bns_slice(bytes + at, n < t[i].bytes - at ? n : t[i].bytes - at),
                bns_slice(NULL, 0)};

            assert_int_equal(bns_stream_write(c.s, v, 2, client_released, &c), BNS_OK);
            at += v[0].len;
            writes++;
        }
        assert_int_equal(bns_stream_queued(c.s), t[i].bytes);
        fake_run_for(&r.k.f, BNS_SEC);
        assert_int_equal(c.released, writes);
        assert_int_equal(c.got.len, t[i].bytes);
        assert_memory_equal(c.got.ptr, bytes, t[i].bytes);
        assert_int_equal(c.opened, 1);
        bns_stream_close(c.s);
        fake_run_for(&r.k.f, BNS_SEC);
        assert_int_equal(c.code, BNS_OK);
        assert_true(r.server_eof);
        assert_int_equal(r.server_code, BNS_OK);
        client_end(&r, &c);
        (void)rig_end(&r);
    }
}

static SSL_CTX *raw_ctx(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_set_min_proto_version(ctx, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(ctx, version), 1);
    return ctx;
}

/* Goal: many small writes of a turn make few records: at most one for each 16 KiB. */
static void writes_of_a_turn_share_records(void **state)
{
    SSL_CTX *ctx = raw_ctx(TLS1_2_VERSION);
    struct bns_slice v = BNS_LIT("a hundred bytes, more or less, which is what small answers have: "
                                 "status, a header, few words.....");
    struct kit_raw raw;
    struct rig r;

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    kit_raw_dial(&raw, &r.k.f.env, r.port, ctx);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(r.accepted, 1);
    raw.records = 0;
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(bns_stream_write(r.server, &v, 1, NULL, NULL), BNS_OK);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(raw.got.len, 1000 * v.len);
    assert_in_range(raw.records, 1, 1000 * v.len / 16384 + 1);
    bns_stream_close(r.server);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_true(raw.eof); /* close_notify */
    kit_raw_free(&raw);
    (void)rig_end(&r);
    SSL_CTX_free(ctx);
}

/* Goal: a reader that stops costs what was queued, once, and is told everything when it goes on. */
static void a_reader_that_stops_holds_the_writer_back(void **state)
{
    static uint8_t bytes[8u * 1024 * 1024];
    struct bns_slice v = bns_slice(bytes, sizeof bytes);
    struct rig r;
    struct client c = {0};

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i / 3 + i / 65537);
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    r.mute = true;
    client_dial(&r, &c);
    fake_run_for(&r.k.f, BNS_SEC);
    bns_stream_read(c.s, false);
    assert_int_equal(bns_stream_write(r.server, &v, 1, client_released, &c), BNS_OK);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(c.got.len, 0);
    assert_int_equal(c.released, 0);
    assert_true(bns_stream_queued(r.server) > sizeof bytes - 1024 * 1024);
    assert_true(bns_test_heap_in_use(r.heap) < 1024 * 1024); /* not a second copy of it */
    bns_stream_read(c.s, true);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(c.got.len, sizeof bytes);
    assert_memory_equal(c.got.ptr, bytes, sizeof bytes);
    assert_int_equal(c.released, 1);
    client_end(&r, &c);
    (void)rig_end(&r);
}

/* Goal: what is queued at close is sent first; nothing is told after close but the end. */
static void a_close_sends_what_is_queued(void **state)
{
    static uint8_t bytes[1024 * 1024];
    struct bns_slice v = bns_slice(bytes, sizeof bytes);
    struct rig r;
    struct client c = {0};

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    r.mute = true;
    client_dial(&r, &c);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(bns_stream_write(r.server, &v, 1, client_released, &c), BNS_OK);
    bns_stream_close(r.server);
    bns_stream_close(r.server);
    assert_int_equal(bns_stream_write(r.server, &v, 1, NULL, NULL), BNS_E_OFF);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(c.got.len, sizeof bytes);
    assert_true(c.eof);
    assert_int_equal(c.code, BNS_OK);
    assert_int_equal(r.server_code, BNS_OK);
    client_end(&r, &c);
    (void)rig_end(&r);
}

/* Goal: a peer that takes nothing does not keep a closed stream for ever. */
static void a_close_that_is_not_taken_times_out(void **state)
{
    static uint8_t bytes[4 * 1024 * 1024];
    struct bns_slice v = bns_slice(bytes, sizeof bytes);
    struct rig r;
    struct client c = {0};

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    r.mute = true;
    client_dial(&r, &c);
    fake_run_for(&r.k.f, BNS_SEC);
    bns_stream_read(c.s, false);
    assert_int_equal(bns_stream_write(r.server, &v, 1, NULL, NULL), BNS_OK);
    bns_stream_close(r.server);
    fake_run_for(&r.k.f, 5 * BNS_SEC);
    assert_int_equal(r.ended, 0);
    fake_run_for(&r.k.f, 10 * BNS_SEC);
    assert_int_equal(r.ended, 1);
    assert_int_equal(r.server_code, BNS_E_TIMEOUT);
    client_end(&r, &c);
    (void)rig_end(&r);
}

/* Goal: an owner may close or reset in any of its callbacks. */
static void owners_may_leave_in_their_callbacks(void **state)
{
    (void)state;
    for (size_t at = 1; at <= 5; at += 4) {
        struct rig r;
        struct client c = {.hello = "hello", .close_at = at};

        assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
        r.k.f.chunk = 64u * 1024;
        client_dial(&r, &c);
        fake_run_for(&r.k.f, BNS_SEC);
        assert_int_equal(c.got.len, 5);
        assert_int_equal(c.closed, 1);
        assert_int_equal(c.code, BNS_OK);
        client_end(&r, &c);
        client_dial(&r, &c); /* and before it is open */
        bns_stream_close(c.s);
        fake_run_for(&r.k.f, BNS_SEC);
        assert_int_equal(c.opened, 0);
        assert_int_equal(c.code, BNS_OK);
        client_end(&r, &c);
        (void)rig_end(&r);
    }
}

/* ---- bad clients ----------------------------------------------------------------------------- */
static void plain_text_on_a_tls_port_is_told_so(void **state)
{
    static const struct {
        const char *sent;
        bool answered;
    } t[] = {
        {"GET / HTTP/1.1\r\n\r\n", true},
        {"POST /v3/kv/put HTTP/1.1\r\n", true},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
        {"SSH-2.0-x\r\n", false},
        {"\x80\x2e\x01\x03\x01", false}, /* SSL 2 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct kit_raw raw;
        struct rig r;

        assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
        kit_raw_dial(&raw, &r.k.f.env, r.port, NULL);
        kit_raw_send(&raw, t[i].sent, strlen(t[i].sent));
        fake_run_for(&r.k.f, BNS_SEC);
        assert_true(raw.closed);
        assert_int_equal(raw.got.len > 0, t[i].answered);
        if (t[i].answered)
            assert_memory_equal(raw.got.ptr, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent", 39);
        assert_non_null(strstr(r.k.said, "dial https://"));
        assert_int_equal(handshakes(&r, "s", "accepted", "plain"), 1);
        assert_int_equal(r.accepted, 0);
        kit_raw_free(&raw);
        (void)rig_end(&r);
    }
}

/* Goal: those who only open connections push out one another, and are gone after the time limit. */
static void half_finished_handshakes_are_bounded(void **state)
{
    enum { CROWD = BNS_TLS_HANDSHAKES_MAX + 100 };
    static struct kit_raw crowd[CROWD];
    struct rig r;
    struct client c;
    size_t base, each, gone = 0;

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    fake_run_for(&r.k.f, BNS_SEC / 4);
    base = bns_test_heap_in_use(r.heap);
    for (size_t i = 0; i < CROWD; i++) {
        kit_raw_dial(&crowd[i], &r.k.f.env, r.port, NULL);
        if (i % 2 == 0)
            kit_raw_send(&crowd[i], "\x16\x03\x01\x02\x00\x01\x00", 7); /* the begin of a hello */
    }
    fake_run_for(&r.k.f, BNS_SEC / 4);
    for (size_t i = 0; i < CROWD; i++)
        gone += crowd[i].closed;
    assert_int_equal(gone, 100);
    assert_true(crowd[0].closed);
    assert_int_equal(handshakes(&r, "s", "accepted", "evicted"), 100);
    each = (bns_test_heap_in_use(r.heap) - base) / BNS_TLS_HANDSHAKES_MAX;
    print_message("  a half-finished handshake takes %zu bytes, and OpenSSL's\n", each);
    assert_true(each < 1024);
    serve_once(&r, &c);
    client_end(&r, &c);
    fake_run_for(&r.k.f, 2 * BNS_TLS_HANDSHAKE_NS);
    for (size_t i = 0; i < CROWD; i++) {
        assert_true(crowd[i].closed);
        kit_raw_free(&crowd[i]);
    }
    assert_int_equal(handshakes(&r, "s", "accepted", "timeout"), BNS_TLS_HANDSHAKES_MAX - 1);
    assert_true(bns_test_heap_in_use(r.heap) <= base + 4096);
    (void)rig_end(&r);
}

static void renegotiation_is_refused(void **state)
{
    SSL_CTX *ctx = raw_ctx(TLS1_2_VERSION);
    struct kit_raw raw;
    struct rig r;

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    kit_raw_dial(&raw, &r.k.f.env, r.port, ctx);
    fake_run_for(&r.k.f, BNS_SEC);
    kit_raw_write(&raw, "one");
    fake_run_for(&r.k.f, BNS_SEC);
    assert_int_equal(raw.got.len, 3);
    assert_int_equal(SSL_renegotiate(raw.ssl), 1);
    (void)SSL_do_handshake(raw.ssl);
    kit_raw_pump(&raw);
    fake_run_for(&r.k.f, BNS_SEC);
    assert_true(raw.closed);
    assert_int_equal(r.server_code, BNS_E_PROTO);
    assert_int_equal(
        bns_counter(r.metrics, "bns_tls_renegotiations_total", "name=\"s\"", "")->value, 1);
    kit_raw_free(&raw);
    (void)rig_end(&r);
    SSL_CTX_free(ctx);
}

static void a_flood_of_key_updates_is_refused(void **state)
{
    SSL_CTX *ctx = raw_ctx(TLS1_3_VERSION);
    struct kit_raw raw;
    struct rig r;
    size_t sent = 0;

    (void)state;
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    kit_raw_dial(&raw, &r.k.f.env, r.port, ctx);
    fake_run_for(&r.k.f, BNS_SEC);
    for (size_t i = 0; i < 200; i++) { /* with data between them: as many as one likes */
        assert_int_equal(SSL_key_update(raw.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        kit_raw_write(&raw, "x");
        fake_run_for(&r.k.f, BNS_MS);
    }
    assert_int_equal(raw.got.len, 200);
    while (!raw.closed && sent < 1000) {
        assert_int_equal(SSL_key_update(raw.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        (void)SSL_do_handshake(raw.ssl);
        kit_raw_pump(&raw);
        fake_run_for(&r.k.f, BNS_MS);
        sent++;
    }
    assert_true(raw.closed);
    assert_in_range(sent, 8, 128);
    kit_raw_free(&raw);
    (void)rig_end(&r);
    SSL_CTX_free(ctx);
}

/* Goal: an end without close_notify is told as a cut, one with it as an end. */
static void a_cut_connection_is_told_from_an_end(void **state)
{
    (void)state;
    for (int notify = 0; notify < 2; notify++) {
        SSL_CTX *ctx = raw_ctx(TLS1_3_VERSION);
        struct kit_raw raw;
        struct rig r;

        assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
        kit_raw_dial(&raw, &r.k.f.env, r.port, ctx);
        fake_run_for(&r.k.f, BNS_SEC);
        if (notify == 1) {
            (void)SSL_shutdown(raw.ssl);
            kit_raw_pump(&raw);
        }
        bns_stream_close(raw.s);
        fake_run_for(&r.k.f, BNS_SEC);
        assert_int_equal(r.ended, 1);
        assert_int_equal(r.server_eof, notify == 1);
        assert_int_equal(r.server_code, notify == 1 ? BNS_OK : BNS_E_DROPPED);
        kit_raw_free(&raw);
        (void)rig_end(&r);
        SSL_CTX_free(ctx);
    }
}

/* Goal: no byte of a handshake can be wrong, or missing, and hurt. Method: a recorded ClientHello
 * with each byte flipped, and cut at each byte. */
static void every_byte_of_a_hello_may_be_wrong_or_missing(void **state)
{
    SSL_CTX *ctx = raw_ctx(TLS1_3_VERSION);
    SSL *ssl = SSL_new(ctx);
    BIO *out = BIO_new(BIO_s_mem());
    char *hello = NULL;
    size_t len;
    struct rig r;

    (void)state;
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
    SSL_set_connect_state(ssl);
    (void)SSL_do_handshake(ssl);
    len = (size_t)BIO_get_mem_data(out, &hello);
    assert_in_range(len, 100, 2000);
    assert_int_equal(rig_start(&r, 0, NULL, NULL), BNS_OK);
    for (size_t i = 0; i < 2 * len; i++) {
        struct kit_raw raw;

        kit_raw_dial(&raw, &r.k.f.env, r.port, NULL);
        if (i < len)
            hello[i] ^= 0x20;
        kit_raw_send(&raw, hello, i < len ? len : i - len);
        if (i < len)
            hello[i] ^= 0x20;
        fake_run_for(&r.k.f, BNS_MS);
        if (!raw.closed)
            bns_stream_close(raw.s);
        fake_run_for(&r.k.f, BNS_MS);
        assert_true(raw.closed);
        kit_raw_free(&raw);
    }
    assert_int_equal(r.accepted, 0);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    (void)rig_end(&r);
}

/* ---- out of memory --------------------------------------------------------------------------- */
static void every_allocation_may_fail(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct rig r;
        struct client c = {.hello = "hello"};

        if (rig_start(&r, fail_at, NULL, NULL) == BNS_OK &&
            client_dial_as(&r, &c, r.dial, NULL) == BNS_OK) {
            fake_run_for(&r.k.f, 2 * BNS_SEC);
            if (c.got.len != 5 && c.closed != 1)
                fail_msg("nobody is told after allocation %d failed: %s", fail_at, r.k.said);
            if (c.closed == 0) {
                r.mute = true; /* input that waits */
                bns_stream_read(r.server, false);
                client_open(&c);
                fake_run_for(&r.k.f, BNS_SEC);
            }
            client_end(&r, &c);
        }
        fired = rig_end(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_travel_both_ways),
        cmocka_unit_test(writes_of_a_turn_share_records),
        cmocka_unit_test(a_reader_that_stops_holds_the_writer_back),
        cmocka_unit_test(a_close_sends_what_is_queued),
        cmocka_unit_test(a_close_that_is_not_taken_times_out),
        cmocka_unit_test(owners_may_leave_in_their_callbacks),
        cmocka_unit_test(plain_text_on_a_tls_port_is_told_so),
        cmocka_unit_test(half_finished_handshakes_are_bounded),
        cmocka_unit_test(renegotiation_is_refused),
        cmocka_unit_test(a_flood_of_key_updates_is_refused),
        cmocka_unit_test(a_cut_connection_is_told_from_an_end),
        cmocka_unit_test(every_byte_of_a_hello_may_be_wrong_or_missing),
        cmocka_unit_test(every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
