/* test_base_memory.c - buffers, arenas, maps and heaps when memory runs out; hash and PRNG. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/crc32c.h"
#include "base/heap.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/prng.h"
#include "base/rcbuf.h"
#include "base/varint.h"
#include "sim/heap.h"

/* ---- buf ------------------------------------------------------------------------------------- */
static void buffer_holds_exactly_its_bound(void **state)
{
    struct bns_buf b;

    (void)state;
    for (size_t max = 0; max < 300; max++) {
        bns_buf_init(&b, bns_alloc_libc(), max);
        for (size_t i = 0; i < max; i++)
            assert_int_equal(bns_buf_byte(&b, (uint8_t)i), BNS_OK);
        assert_int_equal(bns_buf_byte(&b, 0), BNS_E_TOOBIG);
        assert_int_equal(bns_buf_reserve(&b, SIZE_MAX), BNS_E_TOOBIG);
        assert_int_equal(bns_buf_add(&b, NULL, 0), BNS_OK);
        assert_int_equal(b.len, max);
        assert_true(b.cap <= max || max == 0);
        for (size_t i = 0; i < max; i++)
            assert_int_equal(b.ptr[i], (uint8_t)i);
        bns_buf_free(&b);
        assert_int_equal(b.len, 0);
    }
}

static void buffer_formats_and_consumes(void **state)
{
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 2000);
    assert_int_equal(bns_buf_fmt(&b, "%d-%s,", 5, "a"), BNS_OK);
    assert_int_equal(bns_buf_fmt(&b, "%0*d", 1000, 7), BNS_OK); /* longer than the stack buffer */
    assert_int_equal(b.len, 1004);
    assert_int_equal(b.ptr[1003], '7');
    assert_int_equal(bns_buf_fmt(&b, "%0*d", 1000, 7), BNS_E_TOOBIG);
    assert_int_equal(b.len, 1004);
    bns_buf_consume(&b, 4);
    assert_int_equal(b.len, 1000);
    assert_int_equal(b.ptr[0], '0');
    bns_buf_consume(&b, 0);
    bns_buf_consume(&b, 1000);
    assert_int_equal(b.len, 0);
    bns_buf_free(&b);
    bns_buf_consume(&b, 0); /* of an empty one */
}

static int fill_buffer(const struct bns_alloc *alloc)
{
    struct bns_buf b;
    int rv = BNS_OK;

    bns_buf_init(&b, alloc, 1 << 20);
    for (int i = 0; rv == BNS_OK && i < 2000; i++) {
        size_t before = b.len;
        rv = bns_buf_fmt(&b, "item %d ", i);
        assert_true(rv == BNS_OK || b.len == before);
    }
    bns_buf_free(&b);
    return rv;
}

/* ---- arena ----------------------------------------------------------------------------------- */
static int fill_arena(const struct bns_alloc *alloc)
{
    uint8_t first[100];
    struct bns_arena a;
    struct bns_prng p;
    int rv = BNS_OK;

    bns_prng_seed(&p, 3);
    bns_arena_init(&a, alloc, 1 << 20);
    bns_arena_lend(&a, first, sizeof first);
    for (int i = 0; rv == BNS_OK && i < 300; i++) {
        size_t n = (size_t)bns_prng_below(&p, i % 50 == 0 ? 100000 : 300);
        uint8_t *ptr = bns_arena_alloc(&a, n);
        if (ptr == NULL) {
            rv = BNS_E_NOMEM;
        } else {
            assert_int_equal((uintptr_t)ptr % 16, 0);
            memset(ptr, i, n);
        }
    }
    if (rv == BNS_OK && (bns_arena_str(&a, BNS_LIT("text")) == NULL))
        rv = BNS_E_NOMEM;
    bns_arena_free(&a);
    assert_int_equal(a.used, 0);
    if (rv == BNS_OK && bns_arena_alloc(&a, 5) == NULL) /* usable again */
        rv = BNS_E_NOMEM;
    bns_arena_free(&a);
    return rv;
}

static void arena_holds_exactly_its_bound(void **state)
{
    struct bns_arena a;
    char *text;

    (void)state;
    bns_arena_init(&a, bns_alloc_libc(), 64);
    assert_non_null(bns_arena_alloc(&a, 0));  /* takes 16 */
    assert_non_null(bns_arena_alloc(&a, 33)); /* takes 48 */
    assert_null(bns_arena_alloc(&a, 0));
    assert_null(bns_arena_alloc(&a, SIZE_MAX));
    assert_null(bns_arena_dup(&a, "", SIZE_MAX));
    bns_arena_free(&a);
    text = bns_arena_dup(&a, "a\0b", 3);
    assert_memory_equal(text, "a\0b\0", 4);
    assert_string_equal(bns_arena_str(&a, bns_slice(NULL, 0)), "");
    bns_arena_free(&a);
    bns_arena_init(&a, bns_alloc_libc(), 64);
    bns_arena_lend(&a, (uint8_t[8]){0}, 8); /* too small to be of use */
    assert_non_null(bns_arena_alloc(&a, 1));
    bns_arena_free(&a);
}

/* ---- sweeps ---------------------------------------------------------------------------------- */
static int fill_heap(const struct bns_alloc *alloc)
{
    static struct bns_heap_node n[200];
    struct bns_heap h;
    int rv = BNS_OK;

    memset(n, 0, sizeof n);
    bns_heap_init(&h, alloc);
    for (uint64_t i = 0; rv == BNS_OK && i < 200; i++) {
        rv = bns_heap_insert(&h, &n[i], 200 - i);
        assert_int_equal(h.count, rv == BNS_OK ? i + 1 : i);
        assert_int_equal(n[i].pos != 0, rv == BNS_OK);
    }
    bns_heap_free(&h);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(n[i].pos, 0);
    return rv;
}

static int use_rcbuf(const struct bns_alloc *alloc)
{
    struct bns_rcbuf *b = bns_rcbuf_copy(alloc, BNS_LIT("shared"));

    if (b == NULL)
        return BNS_E_NOMEM;
    bns_rcbuf_put(bns_rcbuf_get(b));
    assert_true(bns_slice_eq(bns_rcbuf_slice(b), BNS_LIT("shared")));
    bns_rcbuf_put(b);
    bns_rcbuf_put(NULL);
    return BNS_OK;
}

static void modules_survive_oom(void **state)
{
    static int (*const runs[])(const struct bns_alloc *) = {fill_buffer, fill_arena, fill_heap,
                                                            use_rcbuf};
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        bool fired = true;
        for (int fail_at = 1; fired; fail_at++) {
            struct bns_test_heap *h = bns_test_heap(fail_at);
            int rv = runs[i](bns_test_heap_alloc(h));
            assert_int_equal(bns_test_heap_close(h, &fired), 0);
            assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
        }
    }
}

/* Only the first table must be had: a map that cannot grow works on, slower. */
static void map_works_on_when_it_cannot_grow(void **state)
{
    static struct bns_hnode n[500];
    struct bns_test_heap *h = bns_test_heap(-1);
    struct bns_hmap m;

    (void)state;
    bns_hmap_init(&m, bns_test_heap_alloc(h));
    assert_int_equal(bns_hmap_insert(&m, &n[0], 1), BNS_E_NOMEM);
    assert_int_equal(m.count, 0);
    bns_test_heap_fail_at(h, -2);
    for (uint64_t i = 0; i < 500; i++)
        assert_int_equal(bns_hmap_insert(&m, &n[i], bns_hash_u64(0, i)), BNS_OK);
    assert_int_equal(m.slots_count, 8);
    for (uint64_t i = 0; i < 500; i++)
        assert_ptr_equal(bns_hmap_find(&m, bns_hash_u64(0, i)), &n[i]);
    bns_hmap_free(&m);
    assert_int_equal(bns_test_heap_close(h, NULL), 0);
}

/* Order of iteration: the same from two maps whose nodes lie at different addresses. */
static void map_order_does_not_depend_on_addresses(void **state)
{
    static struct bns_hnode a[300], b[300];
    struct bns_hmap ma, mb;
    struct bns_hnode *i, *k;

    (void)state;
    bns_hmap_init(&ma, bns_alloc_libc());
    bns_hmap_init(&mb, bns_alloc_libc());
    for (size_t n = 0; n < 300; n++) {
        assert_int_equal(bns_hmap_insert(&ma, &a[n], bns_hash_u64(1, n)), BNS_OK);
        assert_int_equal(bns_hmap_insert(&mb, &b[299 - n], bns_hash_u64(1, n)), BNS_OK);
    }
    for (i = bns_hmap_next(&ma, NULL), k = bns_hmap_next(&mb, NULL); i != NULL;
         i = bns_hmap_next(&ma, i), k = bns_hmap_next(&mb, k))
        assert_true(k != NULL && i->hash == k->hash);
    assert_null(k);
    bns_hmap_free(&ma);
    bns_hmap_free(&mb);
}

/* ---- list ------------------------------------------------------------------------------------ */
static void list_keeps_order(void **state)
{
    struct bns_list n[6], a, b;
    size_t i = 0;

    (void)state;
    bns_list_init(&a);
    bns_list_init(&b);
    assert_null(bns_list_pop(&a));
    for (i = 1; i < 4; i++)
        bns_list_push(&a, &n[i]);
    bns_list_push_front(&a, &n[0]);
    bns_list_push(&b, &n[4]);
    bns_list_push(&b, &n[5]);
    bns_list_splice(&a, &b);
    assert_true(bns_list_empty(&b));
    bns_list_splice(&a, &b); /* an empty one adds nothing */
    i = 0;
    BNS_LIST_EACH(e, &a)
    {
        assert_ptr_equal(e, &n[i++]);
        if (i == 3)
            bns_list_del(e);
    }
    assert_int_equal(i, 6);
    bns_list_del(&n[2]); /* a second time: no harm */
    for (i = 0; i < 6; i++) {
        if (i != 2)
            assert_ptr_equal(bns_list_pop(&a), &n[i]);
    }
    assert_true(bns_list_empty(&a));
}

/* ---- hash, crc, prng ------------------------------------------------------------------------- */
/* A flip of any input bit or seed bit changes about half of the output bits. */
static void hash_spreads_every_bit(void **state)
{
    uint8_t in[40];

    (void)state;
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 37);
    for (size_t len = 0; len <= sizeof in; len++) {
        uint64_t base = bns_hash(9, in, len);
        unsigned changed = 0;
        assert_true(len == 0 || base != bns_hash(9, in, len - 1));
        for (size_t bit = 0; bit < len * 8; bit++) {
            in[bit / 8] ^= (uint8_t)(1u << bit % 8);
            unsigned n = (unsigned)__builtin_popcountll(base ^ bns_hash(9, in, len));
            in[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_true(n >= 8);
            changed += n;
        }
        for (unsigned bit = 0; bit < 64; bit++)
            assert_true(__builtin_popcountll(base ^ bns_hash(9 ^ UINT64_C(1) << bit, in, len)) >=
                        8);
        if (len > 4)
            assert_in_range(changed / (len * 8), 28, 36);
    }
    for (unsigned bit = 0; bit < 64; bit++)
        assert_in_range(
            __builtin_popcountll(bns_hash_u64(1, 5) ^ bns_hash_u64(1, 5 ^ UINT64_C(1) << bit)), 12,
            52);
}

/* Bit by bit, as RFC 3720 defines it, against the library at every length and alignment. */
static void crc32c_equals_its_definition(void **state)
{
    uint8_t in[300];
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 11);
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)bns_prng_next(&p);
    for (size_t from = 0; from < 9; from++) {
        uint32_t crc = UINT32_MAX;
        for (size_t len = 0; from + len < sizeof in; len++) {
            assert_int_equal(bns_crc32c(0, in + from, len), ~crc);
            crc ^= in[from + len];
            for (int k = 0; k < 8; k++)
                crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        }
    }
}

static void prng_is_xoshiro256_starstar(void **state)
{
    struct bns_prng p, q;

    (void)state;
    bns_prng_seed(&p, 0); /* splitmix64's first outputs for seed 0 */
    assert_true(p.s[0] == UINT64_C(0xe220a8397b1dcdaf));
    assert_true(p.s[1] == UINT64_C(0x6e789e6aa1b965f4));
    assert_true(p.s[2] == UINT64_C(0x06c45d188009454f));
    assert_true(p.s[3] == UINT64_C(0xf88bb8a8724c81ec));
    p = (struct bns_prng){{1, 2, 3, 4}}; /* the reference code's outputs for this state */
    assert_true(bns_prng_next(&p) == 11520);
    assert_true(bns_prng_next(&p) == 0);
    assert_true(bns_prng_next(&p) == 1509978240);
    assert_true(bns_prng_next(&p) == UINT64_C(1215971899390074240));
    q = bns_prng_split(&p);
    assert_true(bns_prng_next(&p) != bns_prng_next(&q));
}

static void prng_draws_are_in_range_and_even(void **state)
{
    size_t count[7] = {0};
    size_t yes = 0;
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 4);
    for (int i = 0; i < 70000; i++) {
        uint64_t v = bns_prng_range(&p, 10, 16);
        double d = bns_prng_double(&p);
        assert_in_range(v, 10, 16);
        assert_true(d >= 0 && d < 1);
        count[v - 10]++;
        yes += bns_prng_chance(&p, 0.25);
        assert_int_equal(bns_prng_below(&p, 1), 0);
        assert_true(bns_prng_below(&p, (UINT64_C(1) << 63) + 1) <= UINT64_C(1) << 63);
    }
    for (size_t i = 0; i < 7; i++)
        assert_in_range(count[i], 9500, 10500);
    assert_in_range(yes, 17000, 18000);
    assert_false(bns_prng_chance(&p, 0));
    assert_true(bns_prng_chance(&p, 1));
    (void)bns_prng_range(&p, 0, UINT64_MAX); /* the whole range does not overflow */
}

static void fixed_width_integers_at_odd_addresses(void **state)
{
    uint8_t b[9] = {0};

    (void)state;
    bns_put_u64be(b + 1, UINT64_C(0x0102030405060708));
    assert_memory_equal(b + 1, "\1\2\3\4\5\6\7\10", 8);
    assert_int_equal(bns_get_u16be(b + 1), 0x0102);
    assert_int_equal(bns_get_u32be(b + 1), 0x01020304);
    assert_int_equal(bns_get_u16le(b + 1), 0x0201);
    assert_int_equal(bns_get_u32le(b + 1), 0x04030201);
    assert_true(bns_get_u64le(b + 1) == UINT64_C(0x0807060504030201));
    assert_true(bns_get_u64be(b + 1) == UINT64_C(0x0102030405060708));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_holds_exactly_its_bound),
        cmocka_unit_test(buffer_formats_and_consumes),
        cmocka_unit_test(arena_holds_exactly_its_bound),
        cmocka_unit_test(modules_survive_oom),
        cmocka_unit_test(map_works_on_when_it_cannot_grow),
        cmocka_unit_test(map_order_does_not_depend_on_addresses),
        cmocka_unit_test(list_keeps_order),
        cmocka_unit_test(hash_spreads_every_bit),
        cmocka_unit_test(crc32c_equals_its_definition),
        cmocka_unit_test(prng_is_xoshiro256_starstar),
        cmocka_unit_test(prng_draws_are_in_range_and_even),
        cmocka_unit_test(fixed_width_integers_at_odd_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
