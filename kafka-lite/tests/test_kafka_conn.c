/* Connections: frames, order of answers, bounds, bad bytes. Goal: whatever a client does, each of
 * its requests gets one answer in order or its connection is closed, and memory stays bounded.
 * Method: a server in an env in memory, whose handlers answer when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conn_kit.h"

static void answers_leave_in_the_order_of_requests(void **state)
{
    struct kit k;
    struct kit_client c;

    (void)state;
    kit_open(&k, NULL);
    client_open(&k, &c);
    put_heartbeat(&c, 4, 10);
    put_heartbeat(&c, 0, 11);
    put_list_groups(&c, 12, "3");
    put_heartbeat(&c, 3, 13);
    client_flush(&c);
    kit_run(&k);
    assert_int_equal(k.parked_count, 3);
    kit_answer(&k, 2, 0);
    kit_answer(&k, 1, 27);
    kit_run(&k);
    assert_int_equal(client_next(&c, NULL), -1); /* the first is not answered */
    kit_answer(&k, 0, 25);
    kit_run(&k);
    for (int32_t id = 10; id < 14; id++)
        assert_int_equal(client_next(&c, NULL), id);
    assert_int_equal(kafka_server_requests(k.s), 0);
    assert_int_equal(kafka_server_inflight(k.s), 0);
    client_close(&c);
    kit_close(&k);
}

/* Cut at every byte, by the stream and by the sender. */
static void frames_may_come_in_pieces(void **state)
{
    struct kit k;
    struct kit_client c;

    (void)state;
    kit_open(&k, NULL);
    k.f.chunk = 1;
    client_open(&k, &c);
    for (int32_t i = 0; i < 20; i++)
        put_list_groups(&c, i, i % 2 == 0 ? "0" : "40");
    client_flush(&c);
    kit_run(&k);
    for (int32_t i = 0; i < 20; i++)
        assert_int_equal(client_next(&c, NULL), i);
    assert_non_null(c.s);
    client_close(&c);
    kit_close(&k);
}

static void decode_api_versions(struct bns_buf *body, int version,
                                void (*check)(const struct kafka_api_versions_response *r))
{
    const struct kafka_api *api = kafka_api(KAFKA_KEY_API_VERSIONS);
    struct kafka_form form = kafka_form(api, version);
    struct bns_slice in = bns_buf_slice(body);
    struct bns_arena a;
    void *r;

    bns_arena_init(&a, bns_alloc_libc(), 65536);
    assert_int_equal(kafka_decode(api->response, &form, &in, &a, &r, NULL), BNS_OK);
    assert_int_equal(in.len, 0);
    check(r);
    bns_arena_free(&a);
}

static void has_all(const struct kafka_api_versions_response *r)
{
    assert_int_equal(r->api_keys.count, sizeof kit_entries / sizeof kit_entries[0]);
    assert_int_equal(r->api_keys.at[2].api_key, KAFKA_KEY_API_VERSIONS);
    assert_int_equal(r->api_keys.at[2].max_version, 4);
}
static void is_fine(const struct kafka_api_versions_response *r)
{
    assert_int_equal(r->error_code, 0);
    has_all(r);
}
static void is_too_new(const struct kafka_api_versions_response *r)
{
    assert_int_equal(r->error_code, KAFKA_ERR_UNSUPPORTED_VERSION);
    has_all(r);
}
static void is_invalid(const struct kafka_api_versions_response *r)
{
    assert_int_equal(r->error_code, KAFKA_ERR_INVALID_REQUEST);
}

static void api_versions_is_answered_at_any_version(void **state)
{
    struct kit k;
    struct kit_client c;
    struct bns_buf body;
    struct kafka_api_versions_request m = {BNS_LIT("kafka-test"), BNS_LIT("1.0")};
    struct kafka_api_versions_request bad = {BNS_LIT("x\ny"), BNS_LIT("1.0")};

    (void)state;
    kit_open(&k, NULL);
    bns_buf_init(&body, bns_alloc_libc(), 65536);
    client_open(&k, &c);
    for (int v = 0; v <= 4; v++) {
        client_put(&c, KAFKA_KEY_API_VERSIONS, v, v, &m);
        client_flush(&c);
        kit_run(&k);
        assert_int_equal(client_next(&c, &body), v); /* the head has no tags at any version */
        decode_api_versions(&body, v, is_fine);
    }
    client_put(&c, KAFKA_KEY_API_VERSIONS, 4, 77, &m);
    c.out.ptr[7] = 9; /* version 9 */
    client_flush(&c);
    kit_run(&k);
    assert_int_equal(client_next(&c, &body), 77);
    decode_api_versions(&body, 0, is_too_new);
    client_put(&c, KAFKA_KEY_API_VERSIONS, 3, 78, &bad);
    client_flush(&c);
    kit_run(&k);
    assert_int_equal(client_next(&c, &body), 78);
    decode_api_versions(&body, 3, is_invalid);
    bns_buf_free(&body);
    client_close(&c);
    kit_close(&k);
}

/* Each closes the connection behind the answers of what came before, with one line in the log. */
static void bad_bytes_close_the_connection(void **state)
{
    static const struct {
        const char *name, *bytes;
        size_t len;
        const char *log;
    } t[] = {
        {"negative size", "\xff\xff\xff\xff", 4, "-1 bytes"},
        {"size above the limit", "\x06\x40\x00\x01", 4, "104857601 bytes"},
        {"no room for a head", "\0\0\0\x07", 4, "of 7 bytes"},
        {"unknown key", "\0\0\0\x0d\x03\xe7\0\x02\0\0\0\x01\0\x03qat", 17, "key 999 (unknown) v2"},
        {"a key that is not served", "\0\0\0\x0d\0\x03\0\x02\0\0\0\x01\0\x03qat", 17,
         "client \\\"qat\\\" asks for key 3 (Metadata) v2"},
        {"a version that is not served", "\0\0\0\x0d\0\x0c\0\x09\0\0\0\x01\0\x03qat", 17,
         "Heartbeat v9, served are 0 to 4"},
        {"a negative version of ApiVersions", "\0\0\0\x0d\0\x12\xff\xff\0\0\0\x01\0\x03qat", 17,
         "v-1"},
        {"client id longer than the frame",
         "\0\0\0\x0b\0\x0c\0\0\0\0\0\x01\x7f\xff"
         "a",
         15, "no request"},
        {"cut body", "\0\0\0\x0d\0\x0c\0\0\0\0\0\x01\0\x03qat", 17, "Heartbeat v0"},
        {"tags without end", "\0\0\0\x0e\0\x0c\0\x04\0\0\0\x01\0\x03qat\x7f", 18, "bad tags"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct kit k;
        struct kit_client c;

        print_message("  %s\n", t[i].name);
        kit_open(&k, NULL);
        client_open(&k, &c);
        put_heartbeat(&c, 1, 5);
        client_flush(&c);
        client_say(&c, t[i].bytes, t[i].len);
        put_heartbeat(&c, 1, 6); /* behind it nothing is taken any more */
        client_flush(&c);
        kit_run(&k);
        assert_int_equal(k.parked_count, 1);
        assert_non_null(c.s);
        assert_non_null(strstr(k.log, t[i].log));
        kit_answer(&k, 0, 0);
        kit_run(&k);
        assert_int_equal(client_next(&c, NULL), 5);
        assert_null(c.s);
        client_close(&c);
        kit_close(&k);
    }
}

static void too_many_requests_wait(void **state)
{
    struct kafka_server_cfg cfg;
    struct kit k;
    struct kit_client c;

    (void)state;
    kafka_server_cfg_default(&cfg);
    cfg.requests_max = 4;
    kit_open(&k, &cfg);
    client_open(&k, &c);
    for (int32_t i = 0; i < 100; i++)
        put_heartbeat(&c, 1, i);
    client_flush(&c);
    kit_run(&k);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(k.parked_count, i + 4 < 100 ? i + 4 : 100);
        kit_answer(&k, i, 0);
        kit_run(&k);
        assert_int_equal(client_next(&c, NULL), i);
    }
    client_close(&c);
    kit_close(&k);
}

/* A client that asks and asks and never reads: what waits for it has a bound. */
static void a_client_that_does_not_read_is_not_read_either(void **state)
{
    struct kit k;
    struct kit_client c;
    size_t most;

    (void)state;
    kit_open(&k, NULL);
    client_open(&k, &c);
    bns_stream_read(c.s, false);
    for (int32_t i = 0; i < 60; i++)
        put_list_groups(&c, i, "1000"); /* 137 KB each */
    client_flush(&c);
    kit_run(&k);
    most = bns_test_heap_in_use(k.heap);
    print_message("  %zu bytes are held\n", most);
    assert_true(most < 2u * 1024 * 1024);
    bns_stream_read(c.s, true);
    kit_run(&k);
    for (int32_t i = 0; i < 60; i++)
        assert_int_equal(client_next(&c, NULL), i);
    client_close(&c);
    kit_close(&k);
}

/* Above the bound of all connections no frame is begun; each goes on when there is room. */
static void requests_of_all_connections_have_a_bound(void **state)
{
    struct kafka_server_cfg cfg;
    struct kit k;
    struct kit_client c[8];
    size_t answered = 0;

    (void)state;
    kafka_server_cfg_default(&cfg);
    cfg.inflight_bytes_max = 60; /* two heartbeats of 30 bytes or so */
    kit_open(&k, &cfg);
    for (size_t i = 0; i < 8; i++) {
        client_open(&k, &c[i]);
        for (int32_t j = 0; j < 5; j++)
            put_heartbeat(&c[i], 1, j);
        client_flush(&c[i]);
    }
    kit_run(&k);
    while (answered < k.parked_count) {
        assert_true(k.parked_count - answered <= 4);
        kit_answer(&k, answered++, 0);
        kit_run(&k);
    }
    assert_int_equal(answered, 40);
    for (size_t i = 0; i < 8; i++) {
        for (int32_t j = 0; j < 5; j++)
            assert_int_equal(client_next(&c[i], NULL), j);
        client_close(&c[i]);
    }
    kit_close(&k);
}

static void a_claimed_length_allocates_nothing(void **state)
{
    struct kit k;
    struct kit_client c;
    size_t before;

    (void)state;
    kit_open(&k, NULL);
    client_open(&k, &c);
    before = bns_test_heap_in_use(k.heap);
    client_say(&c, "\x06\x40\0\0", 4);
    client_say(&c, "\0\x0c\0\0", 4);
    kit_run(&k);
    assert_true(bns_test_heap_in_use(k.heap) < before + 4096);
    fake_run(&k.f, k.f.now + 29 * BNS_SEC);
    assert_non_null(c.s);
    fake_run(&k.f, k.f.now + 2 * BNS_SEC); /* it stands still: given up */
    assert_null(c.s);
    assert_non_null(strstr(k.log, "4 bytes of a request of 104857600 came"));
    client_close(&c);
    kit_close(&k);
}

static void idle_connections_are_closed_but_not_parked_ones(void **state)
{
    struct kit k;
    struct kit_client idle, waits;

    (void)state;
    kit_open(&k, NULL);
    client_open(&k, &idle);
    client_open(&k, &waits);
    put_heartbeat(&waits, 1, 1);
    client_flush(&waits);
    fake_run(&k.f, k.f.now + 599 * BNS_SEC);
    assert_non_null(idle.s);
    k.f.now += 2 * BNS_SEC;
    kit_run(&k);
    fake_run(&k.f, k.f.now + 700 * BNS_SEC);
    assert_null(idle.s);
    assert_non_null(waits.s);
    kit_answer(&k, 0, 0);
    kit_run(&k);
    assert_int_equal(client_next(&waits, NULL), 1);
    client_close(&idle);
    client_close(&waits);
    kit_close(&k);
}

static void a_client_may_go_before_its_answer(void **state)
{
    struct kit k;
    struct kit_client c;

    (void)state;
    kit_open(&k, NULL);
    client_open(&k, &c);
    put_heartbeat(&c, 4, 1);
    put_heartbeat(&c, 4, 2);
    put_heartbeat(&c, 4, 3);
    client_flush(&c);
    kit_run(&k);
    kit_answer(&k, 1, 0); /* waits behind the first */
    bns_stream_reset(c.s);
    kit_run(&k);
    assert_int_equal(kafka_server_conns(k.s), 0);
    assert_int_equal(k.gone, 2);
    kit_answer(&k, 2, 0);
    assert_int_equal(kafka_server_requests(k.s), 1);
    client_close(&c);
    kit_close(&k);
}

static void a_drain_answers_what_is_under_way(void **state)
{
    struct kit k;
    struct kit_client c, idle;

    (void)state;
    kit_open(&k, NULL);
    client_open(&k, &c);
    client_open(&k, &idle);
    put_heartbeat(&c, 4, 1);
    client_flush(&c);
    kit_run(&k);
    kafka_server_drain(k.s);
    kit_run(&k);
    assert_null(idle.s);
    assert_true(kafka_server_busy(k.s));
    kit_answer(&k, 0, 0);
    kit_run(&k);
    assert_int_equal(client_next(&c, NULL), 1);
    assert_null(c.s);
    assert_false(kafka_server_busy(k.s));
    client_close(&c);
    client_close(&idle);
    kit_close(&k);
}

/* The 1st, 2nd, 3rd ... allocation fails: the connection ends, or all is answered. */
static void a_connection_survives_without_memory(void **state)
{
    (void)state;
    for (int at = 1; at < 40; at++) {
        struct kit k;
        struct kit_client c;

        kit_open(&k, NULL);
        client_open(&k, &c);
        put_heartbeat(&c, 4, 1);
        put_list_groups(&c, 2, "300");
        put_list_groups(&c, 3, "3");
        client_flush(&c);
        bns_test_heap_fail_at(k.heap, at);
        kit_run(&k);
        bns_test_heap_fail_at(k.heap, 0);
        if (k.parked_count == 1)
            kit_answer(&k, 0, 0);
        kit_run(&k);
        if (c.s != NULL) {
            for (int32_t i = 1; i < 4; i++)
                assert_int_equal(client_next(&c, NULL), i);
        }
        client_close(&c);
        kit_close(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_leave_in_the_order_of_requests),
        cmocka_unit_test(frames_may_come_in_pieces),
        cmocka_unit_test(api_versions_is_answered_at_any_version),
        cmocka_unit_test(bad_bytes_close_the_connection),
        cmocka_unit_test(too_many_requests_wait),
        cmocka_unit_test(a_client_that_does_not_read_is_not_read_either),
        cmocka_unit_test(requests_of_all_connections_have_a_bound),
        cmocka_unit_test(a_claimed_length_allocates_nothing),
        cmocka_unit_test(idle_connections_are_closed_but_not_parked_ones),
        cmocka_unit_test(a_client_may_go_before_its_answer),
        cmocka_unit_test(a_drain_answers_what_is_under_way),
        cmocka_unit_test(a_connection_survives_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
