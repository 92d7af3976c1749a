/* test_watch_index.c - which targets a key concerns, against looking at all of them.
 *
 * Random keys and ranges come and go; after each change random keys are looked up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/heap.h"
#include "watch_impl.h"

#define TARGETS 300

static struct etcd_watch_target *all[TARGETS];
static size_t count, hits;

static void draw_key(struct bns_prng *p, uint8_t *out, size_t *len)
{
    *len = bns_prng_below(p, 4);
    for (size_t i = 0; i < *len; i++)
        out[i] = (uint8_t)(bns_prng_below(p, 4) * 85); /* 0, 85, 170, 255 */
}

static void hit(void *arg, struct etcd_watch_target *t)
{
    (void)arg;
    hits++;
    for (size_t i = 0; i < count; i++) {
        if (all[i] == t)
            return;
    }
    fail_msg("a target that is not there");
}

static void look_up(struct etcd_watch_index *ix, struct bns_prng *p)
{
    uint8_t key[4];
    size_t len, expect = 0;

    draw_key(p, key, &len);
    for (size_t i = 0; i < count; i++)
        expect += etcd_watch_target_has(all[i], bns_slice(key, len));
    hits = 0;
    etcd_watch_index_find(ix, bns_slice(key, len), hit, NULL);
    assert_int_equal(hits, expect);
}

static bool add(struct etcd_watch_index *ix, struct bns_prng *p)
{
    uint8_t key[4], end[4];
    size_t key_len, end_len;
    struct etcd_watch_target *t;

    draw_key(p, key, &key_len);
    draw_key(p, end, &end_len);
    if (end_len > 0 && !(end_len == 1 && end[0] == 0) &&
        bns_slice_cmp(bns_slice(key, key_len), bns_slice(end, end_len)) >= 0)
        return true; /* refused before */
    t = etcd_watch_target(ix, bns_slice(key, key_len), bns_slice(end, end_len));
    if (t == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (all[i] == t)
            return true; /* shared */
    }
    all[count++] = t;
    assert_true(bns_slice_eq(t->key, bns_slice(key, key_len)));
    return true;
}

static void finds_what_a_scan_finds(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct etcd_watch_index ix;
        struct bns_prng p;

        bns_prng_seed(&p, seed);
        etcd_watch_index_init(&ix, bns_alloc_libc(), seed);
        count = 0;
        for (int i = 0; i < 2000; i++) {
            if (count < TARGETS && bns_prng_below(&p, 5) < 3) {
                assert_true(add(&ix, &p));
            } else if (count > 0) {
                size_t n = bns_prng_below(&p, count);
                etcd_watch_target_drop(&ix, all[n]);
                all[n] = all[--count];
            }
            look_up(&ix, &p);
        }
        while (count > 0)
            etcd_watch_target_drop(&ix, all[--count]);
        etcd_watch_index_free(&ix);
    }
}

static void without_memory_nothing_changes(void **state)
{
    bool fired = true;

    (void)state;
    for (int n = 1; fired; n++) {
        struct bns_test_heap *h = bns_test_heap(n);
        struct etcd_watch_index ix;
        struct bns_prng p;

        bns_prng_seed(&p, 3);
        etcd_watch_index_init(&ix, bns_test_heap_alloc(h), 3);
        count = 0;
        for (int i = 0; i < 60; i++) {
            (void)add(&ix, &p);
            look_up(&ix, &p);
        }
        while (count > 0)
            etcd_watch_target_drop(&ix, all[--count]);
        etcd_watch_index_free(&ix);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_a_scan_finds),
        cmocka_unit_test(without_memory_nothing_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
