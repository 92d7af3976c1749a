/* test_pb.c - the guard before unpack, proto3's way of packing, messages by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/varint.h"
#include "codec/pb.h"
#include "pb_test.pb-c.h"
#include "sim/heap.h"

static const ProtobufCMessageDescriptor *const all = &bns__test__all__descriptor;

/* A message that uses every kind of field once, nested three deep. */
static struct bns_slice make_all(struct bns_arena *a)
{
    static const char *const texts[] = {"one", "", "thr\xc3\xa9\x65"};
    static int32_t nums[] = {1, -1, INT32_MIN};
    static uint32_t fixed[] = {7, UINT32_MAX};
    static int64_t zigzag[] = {-1, INT64_MIN, 0};
    static ProtobufCBinaryData blobs[] = {{2, (uint8_t *)"\0\xff"}, {0, NULL}};
    static Bns__Test__Colour colours[] = {BNS__TEST__COLOUR__BLUE, BNS__TEST__COLOUR__RED};
    Bns__Test__Inner leaf = BNS__TEST__INNER__INIT;
    Bns__Test__Inner inner = BNS__TEST__INNER__INIT;
    Bns__Test__Inner *leaves[] = {&leaf, &leaf};
    Bns__Test__Inner *inners[] = {&inner, &leaf};
    Bns__Test__All m = BNS__TEST__ALL__INIT;
    struct bns_slice out;

    leaf.name = (char *)"leaf";
    leaf.has_number = 1;
    leaf.number = -5;
    inner.children = leaves;
    inner.n_children = 2;
    m.has_i32 = m.has_s64 = m.has_u64 = m.has_f32 = m.has_dbl = m.has_flag = m.has_colour = 1;
    m.i32 = -7;
    m.s64 = INT64_MIN;
    m.u64 = UINT64_MAX;
    m.f32 = 9;
    m.dbl = 0.5;
    m.flag = 1;
    m.colour = BNS__TEST__COLOUR__BLUE;
    m.text = (char *)"text";
    m.has_blob = 1;
    m.blob = (ProtobufCBinaryData){3, (uint8_t *)"a\0b"};
    m.inner = &inner;
    m.n_nums = 3;
    m.nums = nums;
    m.n_packed_fixed = 2;
    m.packed_fixed = fixed;
    m.n_packed_zigzag = 3;
    m.packed_zigzag = zigzag;
    m.n_texts = 3;
    m.texts = (char **)(uintptr_t)texts;
    m.n_blobs = 2;
    m.blobs = blobs;
    m.n_inners = 2;
    m.inners = inners;
    m.n_colours = 2;
    m.colours = colours;
    m.choice_case = BNS__TEST__ALL__CHOICE_PICK_INNER;
    m.pick_inner = &leaf;
    assert_int_equal(bns_pb_pack_arena(&m.base, a, &out), BNS_OK);
    return out;
}

static void what_is_packed_is_unpacked_and_packs_the_same(void **state)
{
    struct bns_arena a;
    ProtobufCMessage *msg = NULL;
    struct bns_slice in, again;
    const Bns__Test__All *m;
    struct bns_err err;

    (void)state;
    bns_arena_init(&a, bns_alloc_libc(), 1 << 20);
    in = make_all(&a);
    assert_int_equal(bns_pb_unpack(all, in, &a, NULL, &msg, &err), BNS_OK);
    m = (const Bns__Test__All *)msg;
    assert_int_equal(m->i32, -7);
    assert_int_equal(m->n_inners, 2);
    assert_string_equal(m->inners[0]->children[1]->name, "leaf");
    assert_int_equal(m->blob.len, 3);
    assert_int_equal(bns_pb_pack_arena(msg, &a, &again), BNS_OK);
    assert_true(bns_slice_eq(in, again));
    bns_arena_free(&a);
}

/* Every prefix and every flipped byte: the guard's yes means that protobuf-c says yes too. */
static void the_guard_never_lets_a_bad_message_through(void **state)
{
    struct bns_arena a, b;
    struct bns_slice in;
    uint8_t copy[1024];
    size_t taken = 0;

    (void)state;
    bns_arena_init(&a, bns_alloc_libc(), 1 << 20);
    bns_arena_init(&b, bns_alloc_libc(), 1 << 20);
    in = make_all(&a);
    assert_true(in.len < sizeof copy);
    for (size_t at = 0; at < in.len; at++) {
        ProtobufCMessage *msg;
        int rv = bns_pb_unpack(all, bns_slice(in.ptr, at), &b, NULL, &msg, NULL);
        assert_true(rv == BNS_OK || rv == BNS_E_PROTO);
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(copy, in.ptr, in.len);
            copy[at] ^= (uint8_t)(1u << bit);
            bns_arena_free(&b);
            rv = bns_pb_guard(all, bns_slice(copy, in.len), NULL, NULL);
            taken += rv == BNS_OK;
            if (rv == BNS_OK)
                assert_int_equal(bns_pb_unpack(all, bns_slice(copy, in.len), &b, NULL, &msg, NULL),
                                 BNS_OK);
        }
    }
    assert_true(taken > 0);
    bns_arena_free(&a);
    bns_arena_free(&b);
}

static void refusals_name_the_field(void **state)
{
    static const struct {
        const char *in;
        size_t len;
        const char *text;
    } t[] = {
        {"\x7a\x02\xc3\x28", 4, "bns.test.All.text: string is not valid UTF-8"},
        {"\x7a\x03"
         "a\0b",
         5, "bns.test.All.text: string holds a NUL"},
        {"\x8a\x01\x04\x0a\x02\xff\xff", 7, "bns.test.Inner.name: string is not valid UTF-8"},
        {"\x08", 1, "bns.test.All: malformed field"},
        {"\x0d\x01\x02\x03\x04", 5, "bns.test.All.i32: wrong wire type"},
        {"\x7a\x05"
         "abc",
         5, "bns.test.All: malformed field"},
        {"\x9a\x01\x03\x01\x02\x03", 6, "bns.test.All.packed_fixed: packed list is cut short"},
        {"\xa2\x01\x01\x80", 4, "bns.test.All.packed_zigzag: bad varint in a packed list"},
        {"\x00\x00", 2, "bns.test.All: malformed field"},
        {"\x88\x80\x80\x80\x80\x00\x01", 7, "bns.test.All: malformed field"}, /* a tag of six */
        {"\x7a\x81\x80\x80\x80\x80\x00x", 8, "bns.test.All: malformed field"},
        {"\x0b\x0c", 2, "bns.test.All: malformed field"}, /* a group */
        {"\x8a\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "bns.test.All: malformed field"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_err err = {0};
        assert_int_equal(bns_pb_guard(all, bns_slice(t[i].in, t[i].len), NULL, &err), BNS_E_PROTO);
        assert_string_equal(err.text, t[i].text);
    }
}

static void required_and_unknown_fields(void **state)
{
    const ProtobufCMessageDescriptor *strict = &bns__test__strict__descriptor;
    struct bns_pb_limits no_unknown = {.refuse_unknown = true};
    struct bns_err err;

    (void)state;
    assert_int_equal(bns_pb_guard(strict, BNS_LIT(""), NULL, &err), BNS_E_PROTO);
    assert_string_equal(err.text, "bns.test.Strict.id: required field is missing");
    assert_int_equal(bns_pb_guard(strict, BNS_LIT("\x08\x00"), NULL, &err), BNS_OK);
    assert_int_equal(bns_pb_guard(strict, BNS_LIT("\x08\x00\x18\x01"), NULL, &err), BNS_OK);
    assert_int_equal(bns_pb_guard(strict, BNS_LIT("\x08\x00\x18\x01"), &no_unknown, &err),
                     BNS_E_PROTO);
    assert_string_equal(err.text, "bns.test.Strict: unknown field 3");
}

/* Inner nested `depth` times in an All, smallest encoding. */
static void nest(struct bns_buf *b, uint32_t depth)
{
    uint8_t bytes[8192];
    size_t start = sizeof bytes;

    for (uint32_t i = 1; i < depth; i++) { /* from the innermost outwards */
        uint8_t head[BNS_VARINT_MAX + 2];
        uint32_t field = i == depth - 1 ? 17 : 3;
        size_t n = bns_varint_put(head, field << 3 | 2);
        n += bns_varint_put(head + n, sizeof bytes - start);
        start -= n;
        memcpy(bytes + start, head, n);
    }
    bns_buf_clear(b);
    assert_int_equal(bns_buf_add(b, bytes + start, sizeof bytes - start), BNS_OK);
}

static void limits_hold(void **state)
{
    struct bns_pb_limits l = {.bytes = 10, .elements = 4};
    struct bns_err err;
    struct bns_buf b;

    (void)state;
    assert_int_equal(bns_pb_guard(all, BNS_LIT("\x7a\x09 12345678"), &l, &err), BNS_E_TOOBIG);
    assert_int_equal(bns_pb_guard(all, BNS_LIT("\x7a\x08 1234567"), &l, &err), BNS_OK);
    assert_int_equal(bns_pb_guard(all, BNS_LIT("\x92\x01\x03\x01\x02\x03"), &l, &err), BNS_OK);
    assert_int_equal(bns_pb_guard(all, BNS_LIT("\x92\x01\x04\x01\x02\x03\x04"), &l, &err),
                     BNS_E_TOOBIG);
    l.bytes = 100;
    assert_int_equal(bns_pb_guard(all, BNS_LIT("\x9a\x01\x10xxxxxxxxxxxxxxxx"), &l, &err),
                     BNS_E_TOOBIG);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 16);
    nest(&b, 64);
    assert_int_equal(bns_pb_guard(all, bns_buf_slice(&b), NULL, &err), BNS_OK);
    nest(&b, 65);
    assert_int_equal(bns_pb_guard(all, bns_buf_slice(&b), NULL, &err), BNS_E_TOOBIG);
    assert_string_equal(err.text, "bns.test.Inner: messages are nested too deep");
    l = (struct bns_pb_limits){.depth = 1000};
    nest(&b, 1000);
    assert_int_equal(bns_pb_guard(all, bns_buf_slice(&b), &l, &err), BNS_OK);
    nest(&b, 1001);
    assert_int_equal(bns_pb_guard(all, bns_buf_slice(&b), &l, &err), BNS_E_TOOBIG);
    bns_buf_free(&b);
}

static void unpack_survives_oom_and_a_full_arena(void **state)
{
    struct bns_arena lib;
    struct bns_slice in;
    bool fired = true;

    (void)state;
    bns_arena_init(&lib, bns_alloc_libc(), 1 << 20);
    in = make_all(&lib);
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        ProtobufCMessage *msg = NULL;
        struct bns_arena a;
        bns_arena_init(&a, bns_test_heap_alloc(h), 1 << 20);
        int rv = bns_pb_unpack(all, in, &a, NULL, &msg, NULL);
        bns_arena_free(&a);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
    for (size_t max = 0, done = 0; done == 0; max += 16) { /* every allocation meets the bound */
        ProtobufCMessage *msg = NULL;
        struct bns_arena a;
        bns_arena_init(&a, bns_alloc_libc(), max);
        int rv = bns_pb_unpack(all, in, &a, NULL, &msg, NULL);
        assert_true(rv == BNS_OK || rv == BNS_E_NOMEM);
        done = rv == BNS_OK;
        bns_arena_free(&a);
    }
    bns_arena_free(&lib);
}

static void zeros_are_dropped_but_not_from_a_oneof(void **state)
{
    Bns__Test__Inner inner = BNS__TEST__INNER__INIT;
    Bns__Test__Inner *list[] = {&inner};
    Bns__Test__All m = BNS__TEST__ALL__INIT;
    struct bns_buf b;

    (void)state;
    inner.has_number = 1;
    inner.name = (char *)"";
    m.has_i32 = m.has_f64 = m.has_dbl = m.has_flag = m.has_blob = m.has_colour = m.has_flt = 1;
    m.text = (char *)"";
    m.inner = &inner;
    m.inners = list;
    m.n_inners = 1;
    m.choice_case = BNS__TEST__ALL__CHOICE_PICK_NUMBER;
    bns_pb_drop_zeros(&m.base);
    bns_buf_init(&b, bns_alloc_libc(), 100);
    assert_int_equal(bns_pb_pack(&m.base, &b), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&b),
                             BNS_LIT("\x8a\x01\x00\xba\x01\x00\xc8\x01\x00"))); /* 17, 23, 25 */
    m.dbl = -0.0;
    m.has_dbl = 1;
    bns_pb_drop_zeros(&m.base);
    assert_int_equal(m.has_dbl, 1);
    bns_buf_free(&b);
}

/* Fields written by hand are what protobuf-c would have written. */
static void fields_by_hand_equal_packed_ones(void **state)
{
    Bns__Test__All m = BNS__TEST__ALL__INIT;
    struct bns_buf a, b;
    struct bns_pb_field f;
    struct bns_slice in;
    size_t count = 0;

    (void)state;
    bns_buf_init(&a, bns_alloc_libc(), 1000);
    bns_buf_init(&b, bns_alloc_libc(), 1000);
    m.has_i32 = m.has_s64 = m.has_u64 = m.has_f64 = 1;
    m.i32 = -3;
    m.s64 = -300;
    m.u64 = 1u << 20;
    m.f64 = 5;
    m.text = (char *)"hello";
    assert_int_equal(bns_pb_pack(&m.base, &a), BNS_OK);
    assert_int_equal(bns_pb_put_i64(&b, 1, -3), BNS_OK);
    assert_int_equal(bns_pb_put_i64(&b, 4, 0), BNS_OK);
    assert_int_equal(bns_pb_put_s64(&b, 5, -300), BNS_OK);
    assert_int_equal(bns_pb_put_u64(&b, 9, 1u << 20), BNS_OK);
    assert_int_equal(bns_pb_put_fixed64(&b, 10, 5), BNS_OK);
    assert_int_equal(bns_pb_put_fixed64(&b, 6, 0), BNS_OK);
    assert_int_equal(bns_pb_put_bytes(&b, 15, BNS_LIT("hello")), BNS_OK);
    assert_int_equal(bns_pb_put_bytes(&b, 16, BNS_LIT("")), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&a), bns_buf_slice(&b)));
    for (in = bns_buf_slice(&b); in.len > 0; count++)
        assert_int_equal(bns_pb_next(&in, &f), BNS_OK);
    assert_int_equal(count, 5);
    assert_int_equal(f.id, 15);
    assert_true(bns_slice_eq(f.bytes, BNS_LIT("hello")));
    bns_buf_clear(&b);
    assert_int_equal(bns_pb_put_bytes_always(&b, 17, BNS_LIT("")), BNS_OK);
    assert_int_equal(b.len, bns_pb_len_bytes(17, 0));
    bns_buf_clear(&b);
    assert_int_equal(bns_pb_put_u64(&b, 536870911, UINT64_MAX), BNS_OK);
    assert_int_equal(b.len, bns_pb_len_u64(536870911, UINT64_MAX));
    assert_int_equal(bns_pb_len_u64(1, 0), 0);
    b.max = b.len + 5; /* nothing of a field that does not fit */
    size_t len = b.len;
    assert_int_equal(bns_pb_put_bytes(&b, 1, BNS_LIT("12345")), BNS_E_TOOBIG);
    assert_int_equal(b.len, len);
    bns_buf_free(&a);
    bns_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_is_unpacked_and_packs_the_same),
        cmocka_unit_test(the_guard_never_lets_a_bad_message_through),
        cmocka_unit_test(refusals_name_the_field),
        cmocka_unit_test(required_and_unknown_fields),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(unpack_survives_oom_and_a_full_arena),
        cmocka_unit_test(zeros_are_dropped_but_not_from_a_oneof),
        cmocka_unit_test(fields_by_hand_equal_packed_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
