/* test_base.c - the small modules of base, one claim a test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "base/heap.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/skiplist.h"
#include "base/time.h"
#include "base/varint.h"
#include "sim/heap.h"

/* The check value of the polynomial, and a crc in two parts equals the crc of the whole. */
static void crc32c_has_the_castagnoli_check_value(void **state)
{
    (void)state;
    assert_int_equal(bns_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(bns_crc32c(bns_crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(bns_crc32c(0, "", 0), 0);
}

/* Every accepted and every rejected varint shape, as data. */
static void varint_shapes(void **state)
{
    static const struct {
        const char *name, *in;
        size_t len;
        int rv;
        uint64_t out;
    } t[] = {
        {"zero", "\x00", 1, BNS_OK, 0},
        {"zero, long form", "\x80\x00", 2, BNS_OK, 0},
        {"two bytes", "\x96\x01", 2, BNS_OK, 150},
        {"max", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, BNS_OK, UINT64_MAX},
        {"empty", "", 0, BNS_E_CORRUPT, 0},
        {"cut short", "\x80", 1, BNS_E_CORRUPT, 0},
        {"65 bits", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, BNS_E_CORRUPT, 0},
        {"eleven bytes", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, BNS_E_CORRUPT, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_slice c = bns_slice(t[i].in, t[i].len);
        uint64_t v = 0;
        print_message("  %s\n", t[i].name);
        assert_int_equal(bns_varint_get(&c, &v), t[i].rv);
        assert_true(v == t[i].out);
        assert_int_equal(c.len, t[i].rv == BNS_OK ? 0 : t[i].len);
    }
}

static void varint_lengths_and_zigzag(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint8_t dst[BNS_VARINT_MAX];
        uint64_t v = UINT64_C(1) << bit;
        uint64_t back;
        for (uint64_t d = 0; d < 2; d++) {
            size_t n = bns_varint_put(dst, v - d);
            struct bns_slice s = bns_slice(dst, n);
            assert_int_equal(n, bns_varint_len(v - d));
            assert_int_equal(bns_varint_get(&s, &back), BNS_OK);
            assert_true(back == v - d);
        }
        assert_true(bns_unzigzag(bns_zigzag((int64_t)v)) == (int64_t)v);
    }
    assert_true(bns_zigzag(-1) == 1);
    assert_true(bns_zigzag(1) == 2);
    assert_true(bns_zigzag(INT64_MIN) == UINT64_MAX);
}

static void heap_gives_keys_in_order_and_ties_first_in_first_out(void **state)
{
    struct bns_heap_node n[500];
    struct bns_heap h;
    struct bns_prng p;
    const struct bns_heap_node *last = NULL;

    (void)state;
    bns_prng_seed(&p, 7);
    bns_heap_init(&h, bns_alloc_libc());
    for (size_t i = 0; i < 500; i++) {
        n[i].pos = 0;
        assert_int_equal(bns_heap_insert(&h, &n[i], bns_prng_below(&p, 50)), BNS_OK);
    }
    for (size_t i = 0; i < 500; i += 3)
        bns_heap_del(&h, &n[i]);
    bns_heap_del(&h, &n[0]); /* a second time: no-op */
    while (h.count > 0) {
        struct bns_heap_node *m = bns_heap_min(&h);
        assert_true(last == NULL || last->key < m->key ||
                    (last->key == m->key && last->seq < m->seq));
        last = m;
        bns_heap_del(&h, m);
    }
    assert_null(bns_heap_min(&h));
    bns_heap_free(&h);
}

struct scanned {
    struct bns_hnode *nodes;
    unsigned times[3000];
};

static void note_scanned(void *arg, struct bns_hnode *n)
{
    struct scanned *s = arg;

    s->times[n - s->nodes]++;
}

/* It grows after each step while it is being gone through, then shrinks to one. */
static void hmap_scan_tells_each_that_stays_once(void **state)
{
    static struct bns_hnode n[3000];
    static struct scanned s;
    struct bns_hmap m;
    uint64_t cursor = 0;
    unsigned there = 100, steps = 0;
    (void)state;

    memset(&s, 0, sizeof s);
    s.nodes = n;
    bns_hmap_init(&m, bns_alloc_libc());
    assert_int_equal(bns_hmap_scan(&m, 0, note_scanned, &s), 0); /* empty */
    for (unsigned i = 0; i < there; i++)
        assert_int_equal(bns_hmap_insert(&m, &n[i], bns_hash_u64(7, i)), BNS_OK);
    do {
        cursor = bns_hmap_scan(&m, cursor, note_scanned, &s);
        for (unsigned i = 0; i < 40 && there < 3000; i++, there++)
            assert_int_equal(bns_hmap_insert(&m, &n[there], bns_hash_u64(7, there)), BNS_OK);
        steps++;
    } while (cursor != 0);
    assert_true(steps <= m.slots_count);
    for (unsigned i = 0; i < 3000; i++)
        assert_true(i < 100 ? s.times[i] == 1 : s.times[i] <= 1);
    for (unsigned i = 1; i < 3000; i++)
        bns_hmap_del(&m, &n[i]);
    memset(s.times, 0, sizeof s.times);
    while ((cursor = bns_hmap_scan(&m, cursor, note_scanned, &s)) != 0)
        ;
    assert_int_equal(s.times[0], 1);
    bns_hmap_free(&m);
}

static void hmap_holds_what_was_put_and_nothing_else(void **state)
{
    static struct bns_hnode n[1000];
    struct bns_hmap m;
    size_t seen = 0;

    (void)state;
    bns_hmap_init(&m, bns_alloc_libc());
    assert_null(bns_hmap_find(&m, 1));
    assert_null(bns_hmap_next(&m, NULL));
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(bns_hmap_insert(&m, &n[i], bns_hash_u64(3, i / 2)), BNS_OK);
    for (uint64_t i = 0; i < 500; i++) {
        struct bns_hnode *a = bns_hmap_find(&m, bns_hash_u64(3, i));
        assert_non_null(a);
        a = bns_hmap_find_next(a);
        assert_non_null(a); /* two of each */
        assert_null(bns_hmap_find_next(a));
    }
    for (struct bns_hnode *i = bns_hmap_next(&m, NULL); i != NULL; i = bns_hmap_next(&m, i))
        seen++;
    assert_int_equal(seen, 1000);
    for (size_t i = 0; i < 1000; i++)
        bns_hmap_del(&m, &n[i]);
    assert_int_equal(m.count, 0);
    bns_hmap_free(&m);
}

struct item {
    char key[8];
    struct bns_skip_node skip;
};

static void skiplist_is_ordered_under_inserts_and_deletes(void **state)
{
    static bool there[1000];
    struct bns_skiplist s;
    struct bns_prng p;
    size_t want = 0;

    (void)state;
    bns_skip_init(&s, 1);
    bns_prng_seed(&p, 2);
    memset(there, 0, sizeof there);
    for (int step = 0; step < 20000; step++) {
        size_t k = (size_t)bns_prng_below(&p, 1000);
        char key[32];
        struct bns_slice ks;
        (void)snprintf(key, sizeof key, "%04zu", k);
        ks = bns_slice_str(key);
        if (bns_prng_chance(&p, 0.5)) {
            uint8_t levels = bns_skip_draw_levels(&s);
            struct item *it = malloc(bns_skip_node_bytes(offsetof(struct item, skip), levels));
            assert_non_null(it);
            memcpy(it->key, key, 5);
            it->skip.key = (const uint8_t *)it->key;
            it->skip.key_len = 4;
            it->skip.levels = levels;
            int rv = bns_skip_insert(&s, &it->skip);
            assert_int_equal(rv, there[k] ? BNS_E_EXISTS : BNS_OK);
            want += there[k] ? 0 : 1;
            there[k] = true;
            if (rv != BNS_OK)
                free(it);
        } else {
            struct bns_skip_node *n = bns_skip_del(&s, ks);
            assert_int_equal(n != NULL, there[k]);
            want -= there[k] ? 1 : 0;
            there[k] = false;
            if (n != NULL)
                free(BNS_CONTAINER(n, struct item, skip));
        }
        assert_int_equal(bns_skip_find(&s, ks) != NULL, there[k]);
        assert_int_equal(s.count, want);
    }
    for (size_t k = 0; k < 1000; k++) {
        char key[32];
        (void)snprintf(key, sizeof key, "%04zu", k);
        struct bns_skip_node *n = bns_skip_seek(&s, bns_slice_str(key));
        size_t next = k;
        while (next < 1000 && !there[next])
            next++;
        assert_int_equal(n != NULL, next < 1000);
        if (n != NULL) {
            (void)snprintf(key, sizeof key, "%04zu", next);
            assert_memory_equal(n->key, key, 4);
        }
    }
    for (struct bns_skip_node *n = bns_skip_first(&s); n != NULL;) {
        struct bns_skip_node *next = bns_skip_next(n);
        assert_true(next == NULL || memcmp(n->key, next->key, 4) < 0);
        free(BNS_CONTAINER(n, struct item, skip));
        n = next;
    }
}

static void test_heap_fails_the_planned_call_and_counts_leaks(void **state)
{
    struct bns_test_heap *h = bns_test_heap(2);
    const struct bns_alloc *a = bns_test_heap_alloc(h);
    bool fired = false;
    void *p = bns_alloc(a, 10);

    (void)state;
    assert_non_null(p);
    assert_null(bns_resize(a, p, 20));
    p = bns_resize(a, p, 30);
    assert_non_null(p);
    assert_int_equal(bns_test_heap_in_use(h), 30);
    assert_int_equal(bns_test_heap_peak(h), 40);
    bns_test_heap_limit(h, 50);
    assert_null(bns_alloc(a, 21));
    bns_test_heap_free_all(h);
    assert_int_equal(bns_test_heap_blocks(h), 0);
    p = bns_alloc(a, 7);
    assert_non_null(p);
    assert_int_equal(bns_test_heap_close(h, &fired), 7);
    assert_true(fired);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_has_the_castagnoli_check_value),
        cmocka_unit_test(varint_shapes),
        cmocka_unit_test(varint_lengths_and_zigzag),
        cmocka_unit_test(heap_gives_keys_in_order_and_ties_first_in_first_out),
        cmocka_unit_test(hmap_holds_what_was_put_and_nothing_else),
        cmocka_unit_test(hmap_scan_tells_each_that_stays_once),
        cmocka_unit_test(skiplist_is_ordered_under_inserts_and_deletes),
        cmocka_unit_test(test_heap_fails_the_planned_call_and_counts_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
