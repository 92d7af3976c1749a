/* test_index_load.c - an index that was loaded is the one that inserting the same rows gives.
 *
 * The rows go into two indexes of one seed, one of them between begin and end of a load: keys,
 * their order, levels and revisions must be equal. Keys are made to hurt the sort: prefixes of each
 * other, zero bytes, differences behind long common parts, deeper than it recurses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "index.h"
#include "sim/heap.h"

#define KEY_BYTES_MAX 512

enum shape { NONE, ONE, SHORT, ZEROS, PATHS, STAIRS, DEEP, SHAPES };
static const char *const shape_names[SHAPES] = {"none",  "one",    "short", "zeros",
                                                "paths", "stairs", "deep"};

static size_t draw_key(struct bns_prng *p, enum shape shape, uint8_t *out)
{
    size_t len = 0;

    switch (shape) {
    case SHORT: /* all bytes, up to three of them */
        len = 1 + bns_prng_below(p, 3);
        for (size_t i = 0; i < len; i++)
            out[i] = (uint8_t)bns_prng_below(p, 256);
        break;
    case ZEROS: /* nothing but 0 and 1, around the length of a word */
        len = 1 + bns_prng_below(p, 18);
        for (size_t i = 0; i < len; i++)
            out[i] = (uint8_t)(bns_prng_below(p, 8) == 0);
        break;
    case PATHS:
        len = (size_t)snprintf((char *)out, KEY_BYTES_MAX, "/registry/%s/ns-%02u/name-%u",
                               bns_prng_below(p, 2) == 0 ? "pods" : "services",
                               (unsigned)bns_prng_below(p, 20), (unsigned)bns_prng_below(p, 5000));
        break;
    case STAIRS: /* each one the beginning of the next */
        len = 1 + bns_prng_below(p, KEY_BYTES_MAX);
        memset(out, 'a', len);
        break;
    case DEEP: /* a choice every eight bytes: a level of the sort each */
        len = 400;
        memset(out, 'a', len);
        for (size_t i = 7; i < len && bns_prng_below(p, 40) != 0; i += 8)
            out[i] = (uint8_t)('b' + bns_prng_below(p, 20) / 19);
        break;
    default:
        out[len++] = 'x';
        break;
    }
    return len;
}

static bool fill(struct etcd_index *ix, enum shape shape, size_t rows)
{
    struct bns_prng p;

    bns_prng_seed(&p, 7);
    for (size_t i = 0; i < rows; i++) {
        uint8_t key[KEY_BYTES_MAX + 64];
        size_t len = draw_key(&p, shape, key);
        struct etcd_rev r = {.main = (int64_t)i + 2,
                             .create = (int64_t)i + 2,
                             .version = bns_prng_below(&p, 5) != 0,
                             .size = (uint32_t)(len + i % 100)};
        if (etcd_index_add(ix, bns_slice(key, len), &r) != BNS_OK)
            return false;
        assert_non_null(etcd_index_first(ix, bns_slice(key, len), bns_slice(NULL, 0)));
    }
    return true;
}

static void assert_same(const struct etcd_index *a, const struct etcd_index *b)
{
    static const uint8_t all[] = {0};
    struct bns_slice end = bns_slice(all, 1);
    struct etcd_key *x = etcd_index_first(a, bns_slice("", 0), end);
    struct etcd_key *y = etcd_index_first(b, bns_slice("", 0), end);

    for (; x != NULL && y != NULL; x = etcd_index_next(x, end), y = etcd_index_next(y, end)) {
        assert_int_equal(bns_slice_cmp(etcd_key_bytes(x), etcd_key_bytes(y)), 0);
        assert_int_equal(x->skip.levels, y->skip.levels);
        assert_int_equal(x->count, y->count);
        assert_memory_equal(x->revs, y->revs, x->count * sizeof *x->revs);
        assert_ptr_equal(etcd_index_first(b, etcd_key_bytes(y), bns_slice("", 0)), y);
    }
    assert_null(x);
    assert_null(y);
    assert_int_equal(a->list.count, b->list.count);
    assert_int_equal(a->list.levels, b->list.levels);
    assert_true(a->alive == b->alive && a->revs == b->revs && a->bytes == b->bytes);
}

static void loaded_is_what_inserting_gives(void **state)
{
    static const size_t rows[SHAPES] = {0, 1, 20000, 20000, 30000, 3000, 4000};

    (void)state;
    for (enum shape s = NONE; s < SHAPES; s++) {
        struct bns_test_heap *h = bns_test_heap(0);
        struct etcd_index a, b;

        print_message("  %s\n", shape_names[s]);
        etcd_index_init(&a, bns_test_heap_alloc(h), 5);
        etcd_index_init(&b, bns_test_heap_alloc(h), 5);
        assert_true(fill(&a, s, rows[s]));
        assert_int_equal(etcd_index_load_begin(&b, 9), BNS_OK);
        assert_true(fill(&b, s, rows[s]));
        assert_int_equal(etcd_index_load_end(&b), BNS_OK);
        assert_same(&a, &b);
        for (int64_t more = 0; more < 50; more++) { /* and it goes on as an index does */
            struct etcd_rev r = {.main = 1 << 20 | more, .create = 1 << 20, .version = more + 1};
            uint8_t key[] = {(uint8_t)(more * 5)};
            assert_int_equal(etcd_index_add(&a, bns_slice(key, 1), &r), BNS_OK);
            assert_int_equal(etcd_index_add(&b, bns_slice(key, 1), &r), BNS_OK);
        }
        assert_same(&a, &b);
        etcd_index_free(&a);
        etcd_index_free(&b);
        assert_int_equal(bns_test_heap_close(h, NULL), 0);
    }
}

/* Whatever allocation fails: nothing leaks, whether the load is given up or ended later, and a
 * table that cannot grow is no failure. */
static void without_memory_nothing_leaks(void **state)
{
    bool fired = true;
    int failed = 0, survived = 0;

    (void)state;
    for (int n = 1; fired; n += n < 20 ? 1 : 97) {
        struct bns_test_heap *h = bns_test_heap(n);
        struct etcd_index ix;
        bool whole;

        etcd_index_init(&ix, bns_test_heap_alloc(h), 5);
        whole = etcd_index_load_begin(&ix, 9) == BNS_OK && fill(&ix, PATHS, 3000);
        if (whole && etcd_index_load_end(&ix) != BNS_OK) {
            whole = false;
            assert_int_equal(etcd_index_load_end(&ix), BNS_OK); /* as if nothing had been */
        }
        etcd_index_free(&ix);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        failed += fired && !whole;
        survived += whole;
    }
    assert_true(failed > 50);
    assert_true(survived >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_is_what_inserting_gives),
        cmocka_unit_test(without_memory_nothing_leaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
