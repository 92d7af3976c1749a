/* test_frame.c - frames of the internal protocol: round trip, cuts, flips, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/varint.h"
#include "codec/frame.h"
#include "sim/heap.h"

static const struct bns_frame frames[] = {
    {BNS_FRAME_HELLO, 0, 0, 0, {(const uint8_t *)"hello", 5}},
    {BNS_FRAME_PING, 0, 0, 7, {NULL, 0}},
    {BNS_FRAME_REQUEST, 0xabcd, 0x01020304, UINT64_MAX, {(const uint8_t *)"payload of it", 13}},
};
#define FRAMES (sizeof frames / sizeof frames[0])

static void make(struct bns_buf *b)
{
    bns_buf_init(b, bns_alloc_libc(), 4096);
    for (size_t i = 0; i < FRAMES; i++)
        assert_int_equal(bns_frame_encode(&frames[i], b), BNS_OK);
}

/* Feeds one piece, wiped afterwards; checks every frame that comes out. */
static int feed(struct bns_frame_reader *r, struct bns_slice piece, size_t *seen)
{
    static uint8_t copy[4096];
    struct bns_frame f;
    struct bns_slice in;
    int rv;

    if (piece.len > 0)
        memcpy(copy, piece.ptr, piece.len);
    in = bns_slice(copy, piece.len);
    while ((rv = bns_frame_next(r, &in, &f)) == BNS_OK) {
        const struct bns_frame *want = &frames[*seen];
        assert_true(*seen < FRAMES);
        assert_int_equal(f.kind, want->kind);
        assert_int_equal(f.method, want->method);
        assert_int_equal(f.aux, want->aux);
        assert_true(f.id == want->id);
        assert_true(bns_slice_eq(f.payload, want->payload));
        (*seen)++;
    }
    memset(copy, 0xee, sizeof copy);
    return rv;
}

static void the_layout_is_as_documented(void **state)
{
    uint8_t head[BNS_FRAME_HEAD_BYTES];
    struct bns_slice v[] = {BNS_LIT("pay"), BNS_LIT(""), BNS_LIT("load of it")};
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 100);
    assert_int_equal(bns_frame_head(&frames[2], v, 3, head), BNS_OK);
    assert_int_equal(bns_frame_encode(&frames[2], &b), BNS_OK);
    assert_memory_equal(b.ptr, head, sizeof head);
    assert_int_equal(bns_get_u32le(head), 20 + 13);
    assert_int_equal(bns_get_u32le(head + 4), bns_crc32c(0, b.ptr + 8, b.len - 8));
    assert_memory_equal(head + 8, "\x01\x00\xcd\xab\x04\x03\x02\x01", 8);
    bns_buf_free(&b);
}

static void frames_are_the_same_wherever_the_stream_is_cut(void **state)
{
    struct bns_buf b;

    (void)state;
    make(&b);
    for (size_t step = 1; step <= b.len; step++) {
        struct bns_frame_reader r;
        size_t seen = 0;
        bns_frame_reader_init(&r, bns_alloc_libc(), 13);
        for (size_t at = 0; at < b.len; at += step) {
            size_t n = b.len - at < step ? b.len - at : step;
            assert_int_equal(feed(&r, bns_slice(b.ptr + at, n), &seen), BNS_E_AGAIN);
        }
        assert_int_equal(seen, FRAMES);
        bns_frame_reader_free(&r);
    }
    bns_buf_free(&b);
}

/* A flipped bit never yields a wrong frame: it is refused, or (in a length) more input is waited
 * for. */
static void every_flipped_bit_is_noticed(void **state)
{
    struct bns_buf b;

    (void)state;
    make(&b);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        for (size_t step = 1; step <= b.len; step += b.len - 1) {
            struct bns_frame_reader r;
            size_t seen = 0;
            int rv = BNS_E_AGAIN;
            b.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bns_frame_reader_init(&r, bns_alloc_libc(), 1000);
            for (size_t at = 0; rv == BNS_E_AGAIN && at < b.len; at += step) {
                size_t n = b.len - at < step ? b.len - at : step;
                rv = feed(&r, bns_slice(b.ptr + at, n), &seen);
            }
            assert_true(seen < FRAMES);
            assert_true(rv == BNS_E_CORRUPT || rv == BNS_E_PROTO || rv == BNS_E_TOOBIG ||
                        (rv == BNS_E_AGAIN && r.part.len > 0));
            bns_frame_reader_free(&r);
            b.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    bns_buf_free(&b);
}

static void a_frame_over_the_limit_allocates_nothing(void **state)
{
    struct bns_test_heap *h = bns_test_heap(0);
    struct bns_frame_reader r;
    struct bns_frame f;
    struct bns_slice in = BNS_LIT("\x50\x00\x00\x00");

    (void)state;
    bns_frame_reader_init(&r, bns_test_heap_alloc(h), 59);
    assert_int_equal(bns_frame_next(&r, &in, &f), BNS_E_TOOBIG);
    assert_int_equal(bns_frame_next(&r, &in, &f), BNS_E_TOOBIG);
    bns_frame_reader_free(&r);
    bns_frame_reader_init(&r, bns_test_heap_alloc(h), 60);
    assert_int_equal(bns_frame_next(&r, &in, &f), BNS_E_AGAIN);
    bns_frame_reader_free(&r);
    bns_frame_reader_init(&r, bns_test_heap_alloc(h), BNS_FRAME_PAYLOAD_MAX);
    in = BNS_LIT("\x13\x00\x00\x00"); /* shorter than a head */
    assert_int_equal(bns_frame_next(&r, &in, &f), BNS_E_PROTO);
    bns_frame_reader_free(&r);
    assert_int_equal(bns_test_heap_close(h, NULL), 0);
}

static void too_long_payloads_are_not_encoded(void **state)
{
    uint8_t head[BNS_FRAME_HEAD_BYTES];
    struct bns_slice v[] = {{NULL, BNS_FRAME_PAYLOAD_MAX}, {NULL, 1}};
    struct bns_slice w[] = {{NULL, SIZE_MAX}, {NULL, 2}};

    (void)state;
    assert_int_equal(bns_frame_head(&frames[0], v, 2, head), BNS_E_TOOBIG);
    assert_int_equal(bns_frame_head(&frames[0], w, 2, head), BNS_E_TOOBIG);
}

static void reader_survives_oom(void **state)
{
    struct bns_buf b;
    bool fired = true;

    (void)state;
    make(&b);
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        struct bns_frame_reader r;
        size_t seen = 0;
        int rv = BNS_E_AGAIN;
        bns_frame_reader_init(&r, bns_test_heap_alloc(h), 1000);
        for (size_t at = 0; rv == BNS_E_AGAIN && at < b.len; at++)
            rv = feed(&r, bns_slice(b.ptr + at, 1), &seen);
        bns_frame_reader_free(&r);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_E_AGAIN);
    }
    bns_buf_free(&b);
}

static void hello_round_trip_and_refusals(void **state)
{
    struct bns_hello h = {1, 3, "0123456789abcde", 42, 7, 0x8000000000000001};
    struct bns_hello back;
    struct bns_err err;
    uint8_t bytes[BNS_HELLO_BYTES + 4] = {0};

    (void)state;
    bns_hello_encode(&h, bytes);
    assert_int_equal(bns_hello_decode(bns_slice(bytes, sizeof bytes), &back, &err), BNS_OK);
    assert_int_equal(back.ver_min, 1);
    assert_int_equal(back.ver_max, 3);
    assert_memory_equal(back.cluster_id, h.cluster_id, 16);
    assert_true(back.node_id == 42 && back.incarnation == 7 && back.features == h.features);
    for (size_t n = 0; n < BNS_HELLO_BYTES; n++)
        assert_int_equal(bns_hello_decode(bns_slice(bytes, n), &back, &err), BNS_E_PROTO);
    bytes[4] = 2;
    assert_int_equal(bns_hello_decode(bns_slice(bytes, sizeof bytes), &back, &err), BNS_E_PROTO);
    assert_string_equal(err.text, "hello: the peer speaks versions 2 to 3, this node speaks 1");
    bytes[0] = 'X';
    assert_int_equal(bns_hello_decode(bns_slice(bytes, sizeof bytes), &back, &err), BNS_E_PROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_layout_is_as_documented),
        cmocka_unit_test(frames_are_the_same_wherever_the_stream_is_cut),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(a_frame_over_the_limit_allocates_nothing),
        cmocka_unit_test(too_long_payloads_are_not_encoded),
        cmocka_unit_test(reader_survives_oom),
        cmocka_unit_test(hello_round_trip_and_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
