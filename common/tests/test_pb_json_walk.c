/* test_pb_json_walk.c - JSON in pieces: the walk over packed bytes, and values cut out of a stream.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec/pb_json_cut.h"
#include "pb_json_trip.h"
#include "pb_test.pb-c.h"
#include "sim/heap.h"

static void random_messages_come_back(void **state)
{
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 1);
    for (int i = 0; i < 2000; i++) {
        pb_json_trip(&bns__test__all__descriptor, &p);
        pb_json_trip(&bns__test__inner__descriptor, &p);
    }
}

static const struct {
    const char *name, *bytes;
    size_t len;
    int rv;
    const char *json;
} walk_table[] = {
    {"nothing", "", 0, BNS_OK, "{}"},
    {"a zero is left out", "\x08\x00\x20\x05", 4, BNS_OK, "{\"i64\":\"5\"}"},
    {"unknown fields", "\xf8\x3f\x01\x20\x05", 5, BNS_OK, "{\"i64\":\"5\"}"},
    {"a list of messages", "\xba\x01\x00\xba\x01\x02\x10\x07", 8, BNS_OK,
     "{\"inners\":[{},{\"number\":\"7\"}]}"},
    {"a packed list", "\x92\x01\x02\x01\x02\x08\x03", 7, BNS_OK, "{\"nums\":[1,2],\"i32\":3}"},
    {"an empty packed list", "\x92\x01\x00\x08\x03", 5, BNS_OK, "{\"i32\":3}"},
    {"an empty bytes in a list", "\xb2\x01\x00", 3, BNS_OK, "{\"blobs\":[\"\"]}"},
    {"a oneof keeps its zero", "\xc8\x01\x00", 3, BNS_OK, "{\"pick_number\":\"0\"}"},
    {"a field twice", "\x08\x01\x08\x02", 4, BNS_E_PROTO, NULL},
    {"a list in two parts", "\xb2\x01\x00\x08\x01\xb2\x01\x00", 8, BNS_E_PROTO, NULL},
    {"cut in the tag", "\xb2", 1, BNS_E_PROTO, NULL},
    {"cut in the length", "\xb2\x01", 2, BNS_E_PROTO, NULL},
    {"cut in the bytes", "\xb2\x01\x02x", 4, BNS_E_PROTO, NULL},
    {"cut in a fixed one", "\x1d\x01\x02", 3, BNS_E_PROTO, NULL},
    {"a group", "\x0b\x0c", 2, BNS_E_PROTO, NULL},
    {"field 0", "\x00\x01", 2, BNS_E_PROTO, NULL},
    {"a length of 2^63", "\xb2\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12, BNS_E_PROTO, NULL},
};

static void walks(void **state)
{
    struct bns_prng p;
    struct bns_buf out;

    (void)state;
    bns_prng_seed(&p, 2);
    bns_buf_init(&out, bns_alloc_libc(), 1u << 20);
    for (size_t i = 0; i < sizeof walk_table / sizeof walk_table[0]; i++) {
        print_message("  %s\n", walk_table[i].name);
        for (int k = 0; k < 20; k++) {
            struct bns_slice in = bns_slice(walk_table[i].bytes, walk_table[i].len);

            bns_buf_clear(&out);
            assert_int_equal(pb_json_walked(&bns__test__all__descriptor, in, &p, &out),
                             walk_table[i].rv);
            assert_int_equal(bns_buf_byte(&out, 0), BNS_OK);
            if (walk_table[i].json != NULL)
                assert_string_equal((char *)out.ptr, walk_table[i].json);
        }
    }
    bns_buf_free(&out);
}

static const struct {
    const char *in;
    const char *values[4]; /* until NULL */
    int end;
} cut_table[] = {
    {"", {NULL}, BNS_E_NOTFOUND},
    {" \r\n\t", {NULL}, BNS_E_NOTFOUND},
    {"{}", {"{}"}, BNS_E_NOTFOUND},
    {" {\"a\":[1,{}]}\n[2]", {"{\"a\":[1,{}]}", "[2]"}, BNS_E_NOTFOUND},
    {"{\"}\":\"\\\"}\"}{}", {"{\"}\":\"\\\"}\"}", "{}"}, BNS_E_NOTFOUND},
    {"\"a\\\\\"\"b\"", {"\"a\\\\\"", "\"b\""}, BNS_E_NOTFOUND},
    {"1 2", {"1"}, BNS_OK},
    {"null{}", {"null", "{}"}, BNS_E_NOTFOUND},
    {"}", {NULL}, BNS_OK},
    {"{\"a", {NULL}, BNS_E_PROTO},
    {"{}[", {"{}"}, BNS_E_PROTO},
};

static void values_are_cut_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cut_table / sizeof cut_table[0]; i++) {
        for (size_t part = 1; part < 4; part++) {
            struct bns_json_cut c;
            struct bns_slice all = bns_slice_str(cut_table[i].in);
            size_t found = 0;

            bns_json_cut_init(&c, bns_alloc_libc(), 100, 100);
            while (all.len > 0) {
                struct bns_slice in = bns_slice(all.ptr, all.len < part ? all.len : part);

                all = bns_slice_skip(all, in.len);
                while (in.len > 0 && bns_json_cut_next(&c, &in) == BNS_OK) {
                    const char *want = cut_table[i].values[found++];
                    assert_non_null(want);
                    assert_true(bns_slice_eq(bns_buf_slice(&c.text), bns_slice_str(want)));
                    bns_json_cut_reset(&c);
                }
            }
            assert_true(found == 4 || cut_table[i].values[found] == NULL);
            assert_int_equal(bns_json_cut_end(&c), cut_table[i].end);
            bns_json_cut_free(&c);
        }
    }
}

static void cuts_are_bounded(void **state)
{
    struct bns_json_cut c;
    struct bns_slice in = BNS_LIT("{\"0123456789\":1}");

    (void)state;
    bns_json_cut_init(&c, bns_alloc_libc(), 16, 3);
    assert_int_equal(bns_json_cut_next(&c, &in), BNS_OK);
    bns_json_cut_free(&c);
    bns_json_cut_init(&c, bns_alloc_libc(), 15, 3);
    in = BNS_LIT("{\"0123456789\":1}");
    assert_int_equal(bns_json_cut_next(&c, &in), BNS_E_TOOBIG);
    bns_json_cut_free(&c);
    bns_json_cut_init(&c, bns_alloc_libc(), 100, 3);
    in = BNS_LIT("[1,2,\",,,\"]");
    assert_int_equal(bns_json_cut_next(&c, &in), BNS_OK);
    bns_json_cut_reset(&c);
    in = BNS_LIT("[1,2,3,4]");
    assert_int_equal(bns_json_cut_next(&c, &in), BNS_E_TOOBIG);
    bns_json_cut_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_messages_come_back),
        cmocka_unit_test(walks),
        cmocka_unit_test(values_are_cut_out),
        cmocka_unit_test(cuts_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
