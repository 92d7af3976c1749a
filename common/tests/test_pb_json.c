/* test_pb_json.c - protobuf as JSON: every type both ways, the lenient inputs, the refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec/pb.h"
#include "codec/pb_json.h"
#include "pb_test.pb-c.h"
#include "sim/heap.h"

static const ProtobufCMessageDescriptor *const all = &bns__test__all__descriptor;

/* JSON in, and the JSON that the message then gives. */
static const struct {
    const char *in, *out;
} same[] = {
    {"", "{}"},
    {"{}", "{}"},
    {"{\"i32\":-7,\"s32\":\"8\",\"sf32\":-2147483648}",
     "{\"i32\":-7,\"s32\":8,\"sf32\":-2147483648}"},
    {"{\"i64\":-9223372036854775808,\"s64\":\"9223372036854775807\",\"sf64\":1}",
     "{\"i64\":\"-9223372036854775808\",\"s64\":\"9223372036854775807\",\"sf64\":\"1\"}"},
    {"{\"u32\":4294967295,\"f32\":\"1\",\"u64\":\"18446744073709551615\",\"f64\":5}",
     "{\"u32\":4294967295,\"f32\":1,\"u64\":\"18446744073709551615\",\"f64\":\"5\"}"},
    {"{\"u64\":18446744073709551615,\"text\":\"-\\\"9999999999999999999\",\"f64\":1}",
     "{\"u64\":\"18446744073709551615\",\"f64\":\"1\",\"text\":\"-\\\"9999999999999999999\"}"},
    {"{\"flt\":0.5,\"dbl\":\"1e3\"}", "{\"flt\":0.5,\"dbl\":1000}"},
    {"{\"flt\":\"NaN\",\"dbl\":\"-Infinity\"}", "{\"flt\":\"NaN\",\"dbl\":\"-Infinity\"}"},
    {"{\"flt\":0.1,\"dbl\":0.1}", "{\"flt\":0.1,\"dbl\":0.1}"},
    {"{\"flt\":16777217,\"dbl\":0.30000000000000004}",
     "{\"flt\":16777216,\"dbl\":0.30000000000000004}"},
    {"{\"flt\":-0.0,\"dbl\":\"-0.\"}", "{\"flt\":-0.0,\"dbl\":-0.0}"},
    {"{\"flag\":true,\"colour\":\"BLUE\"}", "{\"flag\":true,\"colour\":\"BLUE\"}"},
    {"{\"colour\":1}", "{\"colour\":\"RED\"}"},
    {"{\"colour\":77}", "{\"colour\":77}"},
    {"{\"text\":\"a\\\"\\\\\\n\\u0001\\u00e9\"}", "{\"text\":\"a\\\"\\\\\\n\\u0001\xc3\xa9\"}"},
    {"{\"blob\":\"Zm9v\"}", "{\"blob\":\"Zm9v\"}"},
    {"{\"blob\":\"-_8\"}", "{\"blob\":\"+/8=\"}"},
    {"{\"inner\":{}}", "{\"inner\":{}}"},
    {"{\"inner\":{\"name\":\"x\",\"children\":[{},{\"number\":\"3\"}]}}",
     "{\"inner\":{\"name\":\"x\",\"children\":[{},{\"number\":\"3\"}]}}"},
    {"{\"nums\":[1,0,\"-1\"],\"packed_fixed\":[],\"packedZigzag\":[-1]}",
     "{\"nums\":[1,0,-1],\"packed_zigzag\":[\"-1\"]}"},
    {"{\"texts\":[\"\",\"b\"],\"blobs\":[\"\",\"YQ\"],\"colours\":[0,\"RED\"]}",
     "{\"texts\":[\"\",\"b\"],\"blobs\":[\"\",\"YQ==\"],\"colours\":[\"NONE\",\"RED\"]}"},
    {"{\"pick_number\":0}", "{\"pick_number\":\"0\"}"}, /* a oneof keeps its zero */
    {"{\"pickText\":\"\"}", "{\"pick_text\":\"\"}"},
    {"{\"pick_inner\":{}}", "{\"pick_inner\":{}}"},
    {"{\"twoPartName\":1}", "{\"two_part_name\":\"1\"}"},
    {"{\"two_part_name\":1}", "{\"two_part_name\":\"1\"}"},
    {"{\"i32\":0,\"text\":\"\",\"blob\":\"\",\"flag\":false,\"colour\":0,\"dbl\":0}", "{}"},
    {"{\"i32\":null,\"inner\":null,\"nums\":null}", "{}"},
    {"{\"unknown\":{\"a\":[1]},\"i32\":1}", "{\"i32\":1}"},
};
#define SAME (sizeof same / sizeof same[0])

static int convert(const char *in, const struct bns_alloc *alloc, struct bns_buf *out,
                   struct bns_err *err)
{
    ProtobufCMessage *msg = NULL;
    struct bns_arena a;
    int rv;

    bns_arena_init(&a, alloc, 1 << 20);
    rv = bns_pb_from_json(all, bns_slice_str(in), 10000, &a, &msg, err);
    if (rv == BNS_OK)
        rv = bns_pb_to_json(msg, out);
    bns_arena_free(&a);
    return rv;
}

static void json_goes_in_and_comes_out(void **state)
{
    struct bns_err err;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 10000);
    for (size_t i = 0; i < SAME; i++) {
        print_message("  %s\n", same[i].in);
        bns_buf_clear(&b);
        assert_int_equal(convert(same[i].in, bns_alloc_libc(), &b, &err), BNS_OK);
        assert_int_equal(bns_buf_byte(&b, 0), BNS_OK);
        assert_string_equal((char *)b.ptr, same[i].out);
    }
    bns_buf_free(&b);
}

static void refusals_name_the_field(void **state)
{
    static const struct {
        const char *in, *text;
    } t[] = {
        {"[]", "bns.test.All: a JSON object is expected"},
        {"{\"i32\":2147483648}", "bns.test.All.i32: integer out of range"},
        {"{\"i32\":\"-2147483649\"}", "bns.test.All.i32: integer out of range"},
        {"{\"i32\":1.5}", "bns.test.All.i32: not an integer"},
        {"{\"i32\":\"\"}", "bns.test.All.i32: not an integer"},
        {"{\"i32\":\" 1\"}", "bns.test.All.i32: not an integer"},
        {"{\"i32\":\"-\"}", "bns.test.All.i32: not an integer"},
        {"{\"i32\":true}", "bns.test.All.i32: not an integer"},
        {"{\"u32\":-1}", "bns.test.All.u32: integer out of range"},
        {"{\"u64\":\"18446744073709551616\"}", "bns.test.All.u64: not an integer"},
        {"{\"i64\":9223372036854775808}", "bns.test.All.i64: integer out of range"},
        {"{\"u64\":18446744073709551616}", "bns.test.All.u64: not an integer"},
        {"{\"i64\":\"9223372036854775808\"}", "bns.test.All.i64: integer out of range"},
        {"{\"flt\":1e39}", "bns.test.All.flt: number out of range"},
        {"{\"dbl\":\"0x10\"}", "bns.test.All.dbl: not a number"},
        {"{\"dbl\":\"\"}", "bns.test.All.dbl: not a number"},
        {"{\"dbl\":\"1e\"}", "bns.test.All.dbl: not a number"},
        {"{\"dbl\":[]}", "bns.test.All.dbl: not a number"},
        {"{\"nums\":[1,null]}", "bns.test.All.nums: not an integer"},
        {"{\"u32\":4294967296}", "bns.test.All.u32: integer out of range"},
        {"{\"i32\":\"1x\"}", "bns.test.All.i32: not an integer"},
        {"{\"colour\":2147483648}", "bns.test.All.colour: number out of range"},
        {"{\"colour\":1.5}", "bns.test.All.colour: neither a name nor a number"},
        {"{\"flag\":1}", "bns.test.All.flag: neither true nor false"},
        {"{\"colour\":\"GREEN\"}", "bns.test.All.colour: unknown name"},
        {"{\"text\":1}", "bns.test.All.text: not a string"},
        {"{\"blob\":\"?\"}", "bns.test.All.blob: not base64"},
        {"{\"blob\":7}", "bns.test.All.blob: not a base64 string"},
        {"{\"inner\":[]}", "bns.test.All.inner: not an object"},
        {"{\"inner\":{\"number\":{}}}", "bns.test.Inner.number: not an integer"},
        {"{\"nums\":1}", "bns.test.All.nums: not a list"},
        {"{\"pick_number\":1,\"pick_text\":\"x\"}",
         "bns.test.All.pick_text: another member of the same oneof is set"},
        {"{\"inner\":{},\"i32\":\"x\"}", "bns.test.All.i32: not an integer"},
    };
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 10000);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_err err = {0};
        assert_int_equal(convert(t[i].in, bns_alloc_libc(), &b, &err), BNS_E_INVALID);
        assert_string_equal(err.text, t[i].text);
    }
    for (size_t i = 0; i < 3; i++) {
        static const char *const bad[] = {"{\"i32\":}", "{\"text\":\"\xff\"}", "{} x"};
        struct bns_err err = {0};
        assert_int_equal(convert(bad[i], bns_alloc_libc(), &b, &err), BNS_E_INVALID);
        assert_memory_equal(err.text, "invalid JSON at line 1", 22);
    }
    assert_int_equal(b.len, 0);
    bns_buf_free(&b);
}

static void size_and_depth_are_bounded(void **state)
{
    struct bns_err err;
    struct bns_buf in, out;

    (void)state;
    bns_buf_init(&in, bns_alloc_libc(), 100000);
    bns_buf_init(&out, bns_alloc_libc(), 100000);
    for (int depth = 63; depth <= 64; depth++) { /* the outermost message counts too */
        bns_buf_clear(&in);
        assert_int_equal(bns_buf_str(&in, "{\"inner\":{"), BNS_OK);
        for (int i = 1; i < depth; i++)
            assert_int_equal(bns_buf_str(&in, "\"children\":[{"), BNS_OK);
        for (int i = 1; i < depth; i++)
            assert_int_equal(bns_buf_str(&in, "}]"), BNS_OK);
        assert_int_equal(bns_buf_add(&in, "}}\0", 3), BNS_OK);
        assert_int_equal(convert((char *)in.ptr, bns_alloc_libc(), &out, &err),
                         depth == 63 ? BNS_OK : BNS_E_TOOBIG);
    }
    bns_buf_clear(&in);
    for (int i = 0; i < 9990; i++)
        assert_int_equal(bns_buf_byte(&in, '['), BNS_OK);
    assert_int_equal(bns_buf_byte(&in, 0), BNS_OK);
    assert_int_equal(convert((char *)in.ptr, bns_alloc_libc(), &out, &err), BNS_E_INVALID);
    in.len--;
    for (int i = 0; i < 11; i++)
        assert_int_equal(bns_buf_byte(&in, ' '), BNS_OK);
    assert_int_equal(bns_buf_byte(&in, 0), BNS_OK);
    assert_int_equal(convert((char *)in.ptr, bns_alloc_libc(), &out, &err), BNS_E_TOOBIG);
    bns_buf_free(&in);
    bns_buf_free(&out);
}

static void conversion_survives_oom(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAME; i++) {
        bool fired = true;
        for (int fail_at = 1; fired; fail_at++) {
            struct bns_test_heap *h = bns_test_heap(fail_at);
            struct bns_buf b;
            int rv;
            bns_buf_init(&b, bns_test_heap_alloc(h), 10000);
            rv = convert(same[i].in, bns_test_heap_alloc(h), &b, NULL);
            assert_true(rv == BNS_OK || b.len == 0);
            bns_buf_free(&b);
            assert_int_equal(bns_test_heap_close(h, &fired), 0);
            assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
        }
    }
}

/* Into a buffer of every size: the whole text or not a byte. */
static void json_is_not_written_by_halves(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAME; i++) {
        struct bns_err err;
        size_t len = strlen(same[i].out);
        for (size_t max = 0; max <= len; max++) {
            struct bns_buf b;
            bns_buf_init(&b, bns_alloc_libc(), max);
            assert_int_equal(convert(same[i].in, bns_alloc_libc(), &b, &err),
                             max == len ? BNS_OK : BNS_E_TOOBIG);
            assert_int_equal(b.len, max == len ? len : 0);
            bns_buf_free(&b);
        }
    }
}

/* An arena of every size: no memory, or all of it. */
static void a_full_arena_is_no_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAME; i++) {
        int rv = BNS_E_NOMEM;
        for (size_t max = 0; rv == BNS_E_NOMEM; max += 16) {
            ProtobufCMessage *msg = NULL;
            struct bns_arena a;
            bns_arena_init(&a, bns_alloc_libc(), max);
            rv = bns_pb_from_json(all, bns_slice_str(same[i].in), 10000, &a, &msg, NULL);
            bns_arena_free(&a);
        }
        assert_int_equal(rv, BNS_OK);
    }
}

/* The bytes that Google's protoc makes of the same message (protoc --encode=bns.test.All). */
static void json_packs_to_what_protoc_encodes(void **state)
{
    static const char want[] =
        "08f9ffffffffffffffff01100f1df7ffffff20f6ffffffffffffffff0128ffffffffffff"
        "ffffff0131f4ffffffffffffff38ffffffff0f450e00000048ffffffffffffffffff0151"
        "10000000000000005dcdcccc3d619a9999999999b93f680170feffffffffffffffff017a"
        "0368c3a982010200ff8a01150a016e10ffffffffffffffffff011a030a01631a00900101"
        "9001ffffffffffffffffff019a01080700000008000000a2010301d804aa0100aa010162"
        "b2010178ba01021005c00101c00100d2010170e00163";
    static const char json[] =
        "{\"i32\":-7,\"s32\":-8,\"sf32\":-9,\"i64\":-10,\"s64\":\"-9223372036854775808\","
        "\"sf64\":-12,\"u32\":4294967295,\"f32\":14,\"u64\":18446744073709551615,\"f64\":16,"
        "\"flt\":0.1,\"dbl\":0.1,\"flag\":true,\"colour\":\"BLUE\",\"text\":\"h\\u00e9\","
        "\"blob\":\"AP8=\",\"inner\":{\"name\":\"n\",\"number\":-1,\"children\":[{\"name\":\"c\"},"
        "{}]},\"nums\":[1,-1],\"packed_fixed\":[7,8],\"packed_zigzag\":[-1,300],"
        "\"texts\":[\"\",\"b\"],\"blobs\":[\"eA==\"],\"inners\":[{\"number\":5}],"
        "\"colours\":[\"RED\",\"NONE\"],\"pick_text\":\"p\",\"two_part_name\":99}";
    ProtobufCMessage *msg = NULL;
    struct bns_slice out = {NULL, 0};
    struct bns_arena a;
    struct bns_buf hex;

    (void)state;
    bns_arena_init(&a, bns_alloc_libc(), 1 << 20);
    bns_buf_init(&hex, bns_alloc_libc(), 4096);
    assert_int_equal(bns_pb_from_json(all, BNS_LIT(json), 10000, &a, &msg, NULL), BNS_OK);
    assert_int_equal(bns_pb_pack_arena(msg, &a, &out), BNS_OK);
    for (size_t i = 0; i < out.len; i++)
        assert_int_equal(bns_buf_fmt(&hex, "%02x", out.ptr[i]), BNS_OK);
    assert_int_equal(bns_buf_byte(&hex, 0), BNS_OK);
    assert_string_equal((char *)hex.ptr, want);
    bns_buf_free(&hex);
    bns_arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_goes_in_and_comes_out),
        cmocka_unit_test(refusals_name_the_field),
        cmocka_unit_test(size_and_depth_are_bounded),
        cmocka_unit_test(conversion_survives_oom),
        cmocka_unit_test(json_is_not_written_by_halves),
        cmocka_unit_test(a_full_arena_is_no_memory),
        cmocka_unit_test(json_packs_to_what_protoc_encodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
