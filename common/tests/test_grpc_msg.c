/* test_grpc_msg.c - gRPC framing, timeouts, status texts; base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/time.h"
#include "codec/base64.h"
#include "codec/grpc_msg.h"
#include "sim/heap.h"

/* Three messages: 3 bytes, none, 700 bytes compressed. */
static void make_stream(struct bns_buf *b)
{
    static const uint32_t lens[] = {3, 0, 700};
    for (size_t i = 0; i < 3; i++) {
        uint8_t prefix[BNS_GRPC_PREFIX_BYTES];
        bns_grpc_prefix(prefix, i == 2, lens[i]);
        assert_int_equal(bns_buf_add(b, prefix, sizeof prefix), BNS_OK);
        for (uint32_t k = 0; k < lens[i]; k++)
            assert_int_equal(bns_buf_byte(b, (uint8_t)(k * 7 + i)), BNS_OK);
    }
}

/* Feeds one piece, whose memory is overwritten afterwards; counts and checks the messages. */
static int feed(struct bns_grpc_split *s, struct bns_slice piece, size_t *seen)
{
    static const uint32_t lens[] = {3, 0, 700};
    static uint8_t copy[4096];
    struct bns_slice in;
    struct bns_grpc_msg m;
    int rv;

    if (piece.len > 0)
        memcpy(copy, piece.ptr, piece.len);
    in = bns_slice(copy, piece.len);
    while ((rv = bns_grpc_split_next(s, &in, &m)) == BNS_OK) {
        assert_true(*seen < 3);
        assert_int_equal(m.bytes.len, lens[*seen]);
        assert_int_equal(m.compressed, *seen == 2);
        for (size_t k = 0; k < m.bytes.len; k++)
            assert_int_equal(m.bytes.ptr[k], (uint8_t)(k * 7 + *seen));
        (*seen)++;
    }
    memset(copy, 0xee, sizeof copy);
    return rv;
}

static void messages_are_the_same_wherever_data_is_cut(void **state)
{
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 4096);
    make_stream(&b);
    for (size_t step = 1; step <= b.len; step++) {
        struct bns_grpc_split s;
        size_t seen = 0;
        bns_grpc_split_init(&s, bns_alloc_libc(), 700);
        for (size_t at = 0; at < b.len; at += step) {
            size_t n = b.len - at < step ? b.len - at : step;
            assert_int_equal(feed(&s, bns_slice(b.ptr + at, n), &seen), BNS_E_AGAIN);
        }
        assert_int_equal(seen, 3);
        assert_true(bns_grpc_split_idle(&s));
        bns_grpc_split_free(&s);
    }
    for (size_t cut = 0; cut < b.len; cut++) { /* ends inside a message, or between two */
        struct bns_grpc_split s;
        size_t seen = 0;
        bns_grpc_split_init(&s, bns_alloc_libc(), 700);
        assert_int_equal(feed(&s, bns_slice(b.ptr, cut), &seen), BNS_E_AGAIN);
        assert_int_equal(bns_grpc_split_idle(&s), cut == 0 || cut == 8 || cut == 13);
        bns_grpc_split_free(&s);
    }
    bns_buf_free(&b);
}

static void a_message_over_the_limit_allocates_nothing(void **state)
{
    struct bns_test_heap *h = bns_test_heap(0);
    struct bns_grpc_split s;
    struct bns_grpc_msg m;
    struct bns_slice in = BNS_LIT("\x00\x00\x00\x02\xbd");

    (void)state;
    bns_grpc_split_init(&s, bns_test_heap_alloc(h), 700);
    assert_int_equal(bns_grpc_split_next(&s, &in, &m), BNS_E_TOOBIG);
    assert_int_equal(bns_test_heap_calls(h), 0);
    in = BNS_LIT("\x00\x00\x00\x00\x00");
    assert_int_equal(bns_grpc_split_next(&s, &in, &m), BNS_E_TOOBIG); /* final */
    assert_false(bns_grpc_split_idle(&s));
    bns_grpc_split_free(&s);
    bns_grpc_split_init(&s, bns_test_heap_alloc(h), 700);
    in = BNS_LIT("\x02");
    assert_int_equal(bns_grpc_split_next(&s, &in, &m), BNS_E_AGAIN);
    in = BNS_LIT("\x00\x00\x00\x00");
    assert_int_equal(bns_grpc_split_next(&s, &in, &m), BNS_E_PROTO);
    bns_grpc_split_free(&s);
    /* A prefix that promises much costs only what has arrived. */
    bns_grpc_split_init(&s, bns_test_heap_alloc(h), 128u << 20);
    in = BNS_LIT("\x00\x08\x00\x00\x00only this");
    assert_int_equal(bns_grpc_split_next(&s, &in, &m), BNS_E_AGAIN);
    assert_true(bns_test_heap_in_use(h) <= 64);
    bns_grpc_split_free(&s);
    assert_int_equal(bns_test_heap_close(h, NULL), 0);
}

static void splitter_survives_oom(void **state)
{
    bool fired = true;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 4096);
    make_stream(&b);
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        struct bns_grpc_split s;
        size_t seen = 0;
        int rv = BNS_E_AGAIN;
        bns_grpc_split_init(&s, bns_test_heap_alloc(h), 700);
        for (size_t at = 0; rv == BNS_E_AGAIN && at < b.len; at++)
            rv = feed(&s, bns_slice(b.ptr + at, 1), &seen);
        bns_grpc_split_free(&s);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_E_AGAIN);
    }
    bns_buf_free(&b);
}

static void timeouts(void **state)
{
    static const struct {
        const char *in;
        int rv;
        uint64_t ns;
    } t[] = {
        {"1n", BNS_OK, 1},
        {"99999999n", BNS_OK, 99999999},
        {"5u", BNS_OK, 5 * BNS_US},
        {"250m", BNS_OK, 250 * BNS_MS},
        {"10S", BNS_OK, 10 * BNS_SEC},
        {"2M", BNS_OK, 120 * BNS_SEC},
        {"1H", BNS_OK, 3600 * BNS_SEC},
        {"99999999H", BNS_OK, BNS_NEVER - 1},
        {"0S", BNS_OK, 0},
        {"100000000n", BNS_E_INVALID, 0},
        {"", BNS_E_INVALID, 0},
        {"S", BNS_E_INVALID, 0},
        {"1", BNS_E_INVALID, 0},
        {"1s", BNS_E_INVALID, 0},
        {"-1S", BNS_E_INVALID, 0},
        {"1 S", BNS_E_INVALID, 0},
    };
    static const struct {
        uint64_t ns;
        const char *out;
    } f[] = {
        {0, "0n"},
        {1, "1n"},
        {99999999, "99999999n"},
        {100000000, "100000u"},
        {100000001, "100001u"},
        {5 * BNS_SEC, "5000000u"},
        {UINT64_MAX, "5124096H"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint64_t ns = 0;
        assert_int_equal(bns_grpc_timeout_parse(bns_slice_str(t[i].in), &ns), t[i].rv);
        assert_true(ns == t[i].ns);
    }
    for (size_t i = 0; i < sizeof f / sizeof f[0]; i++) {
        char text[BNS_GRPC_TIMEOUT_BYTES];
        bns_grpc_timeout_format(f[i].ns, text);
        assert_string_equal(text, f[i].out);
    }
}

static void percent_coding(void **state)
{
    struct bns_buf b;
    struct bns_slice text = bns_slice("a%b\n\xc3\xa9~ \x7f", 10);

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 64);
    assert_int_equal(bns_grpc_percent_encode(&b, text), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&b), BNS_LIT("a%25b%0A%C3%A9~ %7F%00")));
    bns_buf_clear(&b);
    assert_int_equal(bns_grpc_percent_decode(&b, BNS_LIT("a%25b%0a%C3%A9%zz%4")), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&b), BNS_LIT("a%b\n\xc3\xa9%zz%4")));
    bns_buf_free(&b);
}

static void base64_shapes(void **state)
{
    static const struct {
        const char *in, *padded, *plain;
    } t[] = {
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foob", "Zm9vYg==", "Zm9vYg"},
        {"\xfb\xff\xbf", "+/+/", "+/+/"},
    };
    static const char *const bad[] = {"Z",    "Zg=",  "Zg===", "Z===", "Zm9v=", "Zm 9",
                                      "Zh==", "Zm9=", "Zm9vY", "=",    "====",  "Zg\n=="};
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 64);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        bns_buf_clear(&b);
        assert_int_equal(bns_base64_encode(&b, bns_slice_str(t[i].in), true), BNS_OK);
        assert_true(bns_slice_eq(bns_buf_slice(&b), bns_slice_str(t[i].padded)));
        bns_buf_clear(&b);
        assert_int_equal(bns_base64_encode(&b, bns_slice_str(t[i].in), false), BNS_OK);
        assert_true(bns_slice_eq(bns_buf_slice(&b), bns_slice_str(t[i].plain)));
        bns_buf_clear(&b);
        assert_int_equal(bns_base64_decode(&b, bns_slice_str(t[i].padded)), BNS_OK);
        assert_int_equal(bns_base64_decode(&b, bns_slice_str(t[i].plain)), BNS_OK);
        assert_int_equal(b.len, 2 * strlen(t[i].in));
        if (b.len > 0)
            assert_memory_equal(b.ptr, t[i].in, strlen(t[i].in));
    }
    bns_buf_clear(&b);
    assert_int_equal(bns_base64_decode(&b, BNS_LIT("-_-_")), BNS_OK); /* URL-safe */
    assert_true(bns_slice_eq(bns_buf_slice(&b), BNS_LIT("\xfb\xff\xbf")));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        print_message("  %s\n", bad[i]);
        assert_int_equal(bns_base64_decode(&b, bns_slice_str(bad[i])), BNS_E_INVALID);
        assert_int_equal(b.len, 3);
    }
    bns_buf_free(&b);
}

/* Into a buffer of every size: the whole text or not a byte. */
static void nothing_is_written_by_halves(void **state)
{
    (void)state;
    for (size_t max = 0; max < 20; max++) {
        for (int n = 0; n < 4; n++) {
            struct bns_buf b;
            int rv;
            bns_buf_init(&b, bns_alloc_libc(), max);
            if (n == 0)
                rv = bns_base64_encode(&b, BNS_LIT("1234567"), max % 2 == 0);
            else if (n == 1)
                rv = bns_base64_decode(&b, BNS_LIT("MTIzNDU2Nw"));
            else if (n == 2)
                rv = bns_grpc_percent_encode(&b, BNS_LIT("50% off"));
            else
                rv = bns_grpc_percent_decode(&b, BNS_LIT("50%25 off"));
            assert_true(rv == BNS_OK ? b.len > 0 : rv == BNS_E_TOOBIG && b.len == 0);
            bns_buf_free(&b);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_the_same_wherever_data_is_cut),
        cmocka_unit_test(a_message_over_the_limit_allocates_nothing),
        cmocka_unit_test(splitter_survives_oom),
        cmocka_unit_test(timeouts),
        cmocka_unit_test(percent_coding),
        cmocka_unit_test(base64_shapes),
        cmocka_unit_test(nothing_is_written_by_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
