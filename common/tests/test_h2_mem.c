/* test_h2_mem.c - the slabs that nghttp2's frame buffers are cut from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "io/h2.h"
#include "sim/heap.h"

#define FRAME 16394u /* what nghttp2 asks for */
#define COUNT 300u

static struct bns_env env_of(struct bns_test_heap *heap, bool sim)
{
    return (struct bns_env){.alloc = bns_test_heap_alloc(heap), .sim = sim};
}

/* Goal: no two buffers overlap, whatever order they come and go in; slabs go when they are empty.
 * Method: each buffer is filled with its number, and looked at before it goes. */
static void buffers_do_not_overlap_and_slabs_are_given_back(void **state)
{
    struct bns_test_heap *heap = bns_test_heap(0);
    struct bns_env env = env_of(heap, false);
    uint8_t *held[COUNT] = {0};
    struct bns_prng prng;
    struct bns_h2_mem m;
    nghttp2_mem mem;

    (void)state;
    bns_prng_seed(&prng, 7);
    bns_h2_mem_init(&m, &env, true, &mem);
    for (size_t step = 0; step < 20000; step++) {
        size_t i = (size_t)bns_prng_below(&prng, COUNT);

        if (held[i] == NULL) {
            held[i] = step % 2 == 0 ? mem.malloc(FRAME, mem.mem_user_data)
                                    : mem.realloc(NULL, FRAME, mem.mem_user_data);
            assert_non_null(held[i]);
            memset(held[i], (int)(i & 0xff), FRAME);
            continue;
        }
        for (size_t k = 0; k < FRAME; k += 409)
            assert_int_equal(held[i][k], i & 0xff);
        mem.free(held[i], mem.mem_user_data);
        held[i] = NULL;
    }
    for (size_t i = 0; i < COUNT; i++)
        mem.free(held[i], mem.mem_user_data); /* NULL is fine */
    assert_int_equal(bns_test_heap_blocks(heap), 1);
    bns_h2_mem_free(&m);
    assert_int_equal(bns_test_heap_close(heap, NULL), 0);
}

static void a_buffer_that_grows_leaves_its_slab(void **state)
{
    struct bns_test_heap *heap = bns_test_heap(0);
    struct bns_env env = env_of(heap, false);
    struct bns_h2_mem m;
    nghttp2_mem mem;
    uint8_t *p, *small;

    (void)state;
    bns_h2_mem_init(&m, &env, true, &mem);
    p = mem.malloc(FRAME, mem.mem_user_data);
    small = mem.calloc(10, 10, mem.mem_user_data);
    assert_non_null(p);
    assert_non_null(small);
    memset(p, 'x', FRAME);
    bns_test_heap_fail_at(heap, 1);
    assert_null(mem.realloc(p, 100000, mem.mem_user_data)); /* p is as it was */
    p = mem.realloc(p, 100000, mem.mem_user_data);
    assert_non_null(p);
    for (size_t i = 0; i < FRAME; i++)
        assert_int_equal(p[i], 'x');
    assert_null(mem.calloc(SIZE_MAX, 2, mem.mem_user_data));
    mem.free(small, mem.mem_user_data);
    mem.free(p, mem.mem_user_data);
    bns_h2_mem_free(&m);
    assert_int_equal(bns_test_heap_close(heap, NULL), 0);
}

/* Goal: one block a buffer where slabs would only cost: in the simulator, and for clients. */
static void clients_and_the_simulator_have_no_slabs(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bns_test_heap *heap = bns_test_heap(0);
        struct bns_env env = env_of(heap, i == 0);
        struct bns_h2_mem m;
        nghttp2_mem mem;
        void *p;

        bns_h2_mem_init(&m, &env, i == 0, &mem);
        p = mem.realloc(NULL, FRAME, mem.mem_user_data);
        assert_non_null(p);
        assert_in_range(bns_test_heap_in_use(heap), FRAME, 2 * FRAME);
        mem.free(p, mem.mem_user_data);
        bns_h2_mem_free(&m);
        assert_int_equal(bns_test_heap_close(heap, NULL), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_do_not_overlap_and_slabs_are_given_back),
        cmocka_unit_test(a_buffer_that_grows_leaves_its_slab),
        cmocka_unit_test(clients_and_the_simulator_have_no_slabs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
