/* test_batch.c - record batches: made, read, damaged. */
#include "batch_random.h"

#include "base/varint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct bns_buf new_buf(void)
{
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    return b;
}

static void what_is_written_is_read(void **state)
{
    struct bns_buf b = new_buf(), headers = new_buf();
    struct kafka_batch like = {.base_offset = 7,
                               .leader_epoch = 3,
                               .producer_id = 11,
                               .producer_epoch = 1,
                               .base_sequence = 5},
                       got;
    struct kafka_record r = {.key = BNS_LIT("k"), .value = BNS_LIT("value")}, back;
    struct kafka_batch_writer w;
    struct bns_slice in, key, value;

    (void)state;
    assert_int_equal(kafka_header_add(&headers, BNS_LIT("h"), bns_slice(NULL, 0)), BNS_OK);
    assert_int_equal(kafka_batch_begin(&w, &b), BNS_OK);
    assert_int_equal(kafka_batch_add(&w, 1000, &r), BNS_OK);
    r = (struct kafka_record){
        .value = BNS_LIT(""), .headers_count = 1, .headers = bns_buf_slice(&headers)};
    assert_int_equal(kafka_batch_add(&w, 900, &r), BNS_OK);
    kafka_batch_end(&w, &like);
    in = bns_buf_slice(&b);
    assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_OK);
    assert_int_equal(in.len, 0);
    assert_true(kafka_batch_crc_ok(&got));
    assert_int_equal(got.base_offset, 7);
    assert_int_equal(kafka_batch_last_offset(&got), 8);
    assert_int_equal(got.leader_epoch, 3);
    assert_int_equal(got.producer_id, 11);
    assert_int_equal(got.producer_epoch, 1);
    assert_int_equal(got.base_sequence, 5);
    assert_int_equal(got.base_timestamp, 1000);
    assert_int_equal(got.max_timestamp, 1000);
    assert_int_equal(got.count, 2);
    assert_int_equal(kafka_records_check(&got, NULL), BNS_OK);
    in = got.records;
    assert_int_equal(kafka_record_next(&in, &back, NULL), BNS_OK);
    assert_true(bns_slice_eq(back.key, BNS_LIT("k")));
    assert_true(bns_slice_eq(back.value, BNS_LIT("value")));
    assert_int_equal(kafka_record_next(&in, &back, NULL), BNS_OK);
    assert_null(back.key.ptr);
    assert_non_null(back.value.ptr);
    assert_int_equal(back.timestamp_delta, -100);
    assert_int_equal(back.offset_delta, 1);
    assert_int_equal(kafka_header_next(&back.headers, &key, &value), BNS_OK);
    assert_true(bns_slice_eq(key, BNS_LIT("h")));
    assert_null(value.ptr);
    assert_int_equal(kafka_header_next(&back.headers, &key, &value), BNS_E_NOTFOUND);
    assert_int_equal(kafka_record_next(&in, &back, NULL), BNS_E_NOTFOUND);
    bns_buf_free(&b);
    bns_buf_free(&headers);
}

static void a_broker_may_place_a_batch_without_a_new_crc(void **state)
{
    struct bns_buf b = new_buf();
    struct bns_slice in;
    struct kafka_batch got;
    struct bns_prng g;

    (void)state;
    bns_prng_seed(&g, 5);
    random_batch(&g, &b);
    kafka_batch_place(b.ptr, 123456789012, 42);
    in = bns_buf_slice(&b);
    assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_OK);
    assert_int_equal(got.base_offset, 123456789012);
    assert_int_equal(got.leader_epoch, 42);
    assert_true(kafka_batch_crc_ok(&got));
    kafka_batch_append_time(b.ptr, 99);
    in = bns_buf_slice(&b);
    assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_OK);
    assert_true(kafka_batch_crc_ok(&got));
    assert_int_equal(got.max_timestamp, 99);
    assert_true((got.attributes & KAFKA_ATTR_APPEND_TIME) != 0);
    bns_buf_free(&b);
}

static void a_batch_cut_anywhere_is_not_there_yet(void **state)
{
    struct bns_buf b = new_buf();
    struct kafka_batch got;
    struct bns_prng g;

    (void)state;
    bns_prng_seed(&g, 6);
    random_batch(&g, &b);
    for (size_t n = 0; n < b.len; n++) {
        uint8_t *copy = malloc(n + 1);
        struct bns_slice in;
        assert_non_null(copy);
        memcpy(copy, b.ptr, n);
        in = bns_slice(copy, n);
        assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_E_AGAIN);
        free(copy);
    }
    bns_buf_free(&b);
}

/* Outside the crc lie the offset, the length, the epoch and the magic: one of them is an error, or
 * another place of the batch. */
static void a_flipped_bit_is_found(void **state)
{
    struct bns_buf b = new_buf();
    struct kafka_batch got;
    struct bns_prng g;

    (void)state;
    bns_prng_seed(&g, 7);
    random_batch(&g, &b);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        struct bns_slice in = bns_buf_slice(&b);
        int rv;
        b.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        rv = kafka_batch_next(&in, &got, NULL);
        if (rv == BNS_OK)
            assert_true(!kafka_batch_crc_ok(&got) || bit / 8 < 8 ||
                        (bit / 8 >= 12 && bit / 8 < 16));
        b.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    bns_buf_free(&b);
}

/* With a right CRC: what a producer may have got wrong itself. */
static void records_that_do_not_fit_their_batch_are_refused(void **state)
{
    static const struct {
        size_t at, len;
        uint32_t value;
        const char *says;
    } t[] = {
        {57, 4, 3, "3 records whose last has offset delta 1"},
        {57, 4, 1, "more than 1 records"},
        {57, 4, 0xffffffff, "-1 records"},
        {23, 4, 0, "2 records whose last has offset delta 0"},
        {23, 4, 0x80000000, "offset delta -2147483648"},
        {61, 1, 0x7f, "not whole"},
        {61, 1, 4, "not whole"},
        {8, 4, 10, "a batch of 10 bytes"},
        {16, 1, 1, "magic 1"},
        {0, 4, 0x80000000, "at offset -"},
    };
    struct kafka_record r = {.key = BNS_LIT("k"), .value = BNS_LIT("v")};
    struct kafka_batch like = {0}, got;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_buf b = new_buf();
        struct kafka_batch_writer w;
        struct bns_err err = {0};
        struct bns_slice in;
        int rv;

        assert_int_equal(kafka_batch_begin(&w, &b), BNS_OK);
        assert_int_equal(kafka_batch_add(&w, 1, &r), BNS_OK);
        assert_int_equal(kafka_batch_add(&w, 1, &r), BNS_OK);
        kafka_batch_end(&w, &like);
        if (t[i].len == 1)
            b.ptr[t[i].at] = (uint8_t)t[i].value;
        else
            bns_put_u32be(b.ptr + t[i].at, t[i].value);
        in = bns_buf_slice(&b);
        rv = kafka_batch_next(&in, &got, &err);
        if (rv == BNS_OK)
            rv = kafka_records_check(&got, &err);
        assert_int_equal(rv, BNS_E_CORRUPT);
        if (strstr(err.text, t[i].says) == NULL)
            fail_msg("row %zu: '%s'", i, err.text);
        bns_buf_free(&b);
    }
}

static void random_batches_are_read_back(void **state)
{
    struct bns_prng g;

    (void)state;
    bns_prng_seed(&g, 8);
    for (int n = 0; n < 500; n++) {
        struct bns_buf b = new_buf();
        struct bns_slice in;
        struct kafka_batch got;

        random_batch(&g, &b);
        random_batch(&g, &b);
        in = bns_buf_slice(&b);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_OK);
            assert_true(kafka_batch_crc_ok(&got));
            assert_int_equal(kafka_records_check(&got, NULL), BNS_OK);
        }
        assert_int_equal(in.len, 0);
        bns_buf_free(&b);
    }
}

static void a_full_buffer_leaves_the_batch_as_it_was(void **state)
{
    struct kafka_record r = {.key = BNS_LIT("key"), .value = BNS_LIT("a value of some length")};
    struct kafka_batch like = {0}, got;
    struct kafka_batch_writer w;
    struct bns_slice in;
    struct bns_buf b;
    int n = 0;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 300);
    assert_int_equal(kafka_batch_begin(&w, &b), BNS_OK);
    while (kafka_batch_add(&w, n, &r) == BNS_OK)
        n++;
    assert_true(n > 2 && n < 10);
    kafka_batch_end(&w, &like);
    in = bns_buf_slice(&b);
    assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_OK);
    assert_int_equal(got.count, n);
    assert_int_equal(kafka_records_check(&got, NULL), BNS_OK);
    bns_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_broker_may_place_a_batch_without_a_new_crc),
        cmocka_unit_test(a_batch_cut_anywhere_is_not_there_yet),
        cmocka_unit_test(a_flipped_bit_is_found),
        cmocka_unit_test(records_that_do_not_fit_their_batch_are_refused),
        cmocka_unit_test(random_batches_are_read_back),
        cmocka_unit_test(a_full_buffer_leaves_the_batch_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
