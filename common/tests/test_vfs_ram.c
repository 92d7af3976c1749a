/* Goal:   the file system in memory keeps the contract of vfs.h: what is written is read, holes are
 *         zeros, names behave, room is bounded, no memory is lost on any path.
 * Method: tables, a model of one file under random calls, a sweep over failing allocations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "sim/heap.h"
#include "store/vfs_ram.h"

#define MODEL_BYTES (300u * 1024)

static struct bns_file *open_file(struct bns_vfs *v, const char *path, int flags)
{
    struct bns_file *f = NULL;

    assert_int_equal(bns_vfs_open(v, path, flags, &f, NULL), BNS_OK);
    return f;
}

static int put(struct bns_file *f, uint64_t off, const void *p, size_t n)
{
    const struct bns_slice s = bns_slice(p, n);

    return bns_file_write_at(f, off, &s, 1, NULL);
}

static void random_calls_agree_with_a_model(void **state)
{
    struct bns_vfs *v = bns_vfs_ram(bns_alloc_libc(), 0);
    struct bns_file *f = open_file(v, "/a", BNS_OPEN_CREATE);
    uint8_t *model = calloc(1, MODEL_BYTES), *got = malloc(MODEL_BYTES);
    struct bns_prng r;
    uint64_t size = 0, said = 0;
    (void)state;

    bns_prng_seed(&r, 7);
    for (int i = 0; i < 3000; i++) {
        uint64_t off = bns_prng_below(&r, MODEL_BYTES);
        size_t len = (size_t)bns_prng_below(&r, MODEL_BYTES - off);
        uint8_t fill = (uint8_t)bns_prng_next(&r);

        if (i % 10 == 0) {
            assert_int_equal(bns_file_truncate(f, off, NULL), BNS_OK);
            if (off < size)
                memset(model + off, 0, (size_t)(size - off));
            size = off;
        } else if (i % 3 == 0) {
            memset(model + off, fill, len);
            assert_int_equal(put(f, off, model + off, len), BNS_OK);
            size = len > 0 && off + len > size ? off + len : size;
        } else {
            size_t n = 0, want = off >= size ? 0 : (size_t)(size - off);

            assert_int_equal(f->ops->read_at(f, off, got, len, &n, NULL), BNS_OK);
            assert_int_equal(n, len < want ? len : want);
            assert_memory_equal(got, model + off, n);
        }
        assert_int_equal(bns_file_size(f, &said, NULL), BNS_OK);
        assert_true(said == size);
    }
    bns_file_close(f);
    bns_vfs_ram_free(v);
    free(model);
    free(got);
}

static int collect(void *arg, const char *name)
{
    char *all = arg;

    size_t at = strlen(all);

    (void)snprintf(all + at, 100 - at, "%s ", name); /* fits */
    return 0;
}

static void names_behave(void **state)
{
    struct bns_vfs *v = bns_vfs_ram(bns_alloc_libc(), 0);
    struct bns_file *f, *g = NULL;
    struct bns_file_stat st;
    char all[100] = "", two[2];
    size_t n = 0;
    (void)state;

    assert_int_equal(bns_vfs_open(v, "/d/a", BNS_OPEN_WRITE, &g, NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_mkdir(v, "/d", NULL), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(v, "/d", NULL), BNS_OK);
    f = open_file(v, "/d/a", BNS_OPEN_CREATE | BNS_OPEN_EXCL);
    assert_int_equal(bns_vfs_open(v, "/d/a", BNS_OPEN_CREATE | BNS_OPEN_EXCL, &g, NULL),
                     BNS_E_EXISTS);
    assert_int_equal(bns_vfs_open(v, "/d", BNS_OPEN_WRITE, &g, NULL), BNS_E_IO);
    assert_int_equal(put(f, 0, "xy", 2), BNS_OK);
    bns_file_close(open_file(v, "/d/b", BNS_OPEN_CREATE));
    bns_file_close(open_file(v, "/d/sub/deep", BNS_OPEN_CREATE));
    bns_file_close(open_file(v, "/other", BNS_OPEN_CREATE));
    assert_int_equal(bns_vfs_list(v, "/d", collect, all, NULL), BNS_OK);
    assert_string_equal(all, "a b ");
    assert_int_equal(bns_vfs_list(v, "/nothing", collect, all, NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_remove(v, "/d", NULL), BNS_E_EXISTS);
    assert_int_equal(bns_vfs_rename(v, "/d/a", "/d/b", NULL), BNS_OK);
    assert_int_equal(bns_vfs_stat(v, "/d/a", &st, NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_stat(v, "/d/b", &st, NULL), BNS_OK);
    assert_true(st.size == 2 && !st.is_dir);
    assert_int_equal(bns_vfs_remove(v, "/d/b", NULL), BNS_OK); /* f still holds it */
    assert_int_equal(bns_vfs_remove(v, "/d/b", NULL), BNS_E_NOTFOUND);
    assert_int_equal(f->ops->read_at(f, 0, two, 2, &n, NULL), BNS_OK);
    assert_memory_equal(two, "xy", 2);
    bns_file_close(f);
    assert_true(bns_vfs_ram_used(v) == 0);
    bns_vfs_ram_free(v);
}

static void a_lock_is_held_until_it_is_closed(void **state)
{
    struct bns_vfs *v = bns_vfs_ram(bns_alloc_libc(), 0);
    struct bns_file *a = NULL, *b = NULL;
    (void)state;

    assert_int_equal(bns_vfs_lock(v, "/lock", &a, NULL), BNS_OK);
    assert_int_equal(bns_vfs_lock(v, "/lock", &b, NULL), BNS_E_BUSY);
    bns_file_close(a);
    assert_int_equal(bns_vfs_lock(v, "/lock", &b, NULL), BNS_OK);
    bns_file_close(b);
    bns_vfs_ram_free(v);
}

static void room_is_bounded_and_comes_back(void **state)
{
    struct bns_vfs *v = bns_vfs_ram(bns_alloc_libc(), 128 * 1024);
    struct bns_file *f = open_file(v, "/a", BNS_OPEN_CREATE);
    uint64_t left = 0;
    (void)state;

    assert_int_equal(bns_file_truncate(f, 1 << 30, NULL), BNS_OK); /* a hole costs nothing */
    assert_int_equal(put(f, 0, "a", 1), BNS_OK);
    assert_int_equal(put(f, 1 << 20, "b", 1), BNS_OK);
    assert_int_equal(put(f, 1 << 21, "c", 1), BNS_E_NOSPACE);
    assert_int_equal(bns_vfs_free_bytes(v, "/", &left, NULL), BNS_OK);
    assert_true(left == 0);
    assert_int_equal(bns_file_truncate(f, 10, NULL), BNS_OK);
    assert_int_equal(put(f, 1 << 21, "c", 1), BNS_OK);
    assert_int_equal(put(f, UINT64_MAX - 1, "c", 1), BNS_E_NOSPACE);
    bns_file_close(f);
    f = open_file(v, "/a", BNS_OPEN_READ);
    assert_int_equal(put(f, 0, "z", 1), BNS_E_FORBIDDEN);
    bns_file_close(f);
    bns_vfs_ram_free(v);
}

static int story(const struct bns_alloc *a)
{
    struct bns_vfs *v = bns_vfs_ram(a, 0);
    struct bns_file *f = NULL;
    int rv = v == NULL ? BNS_E_NOMEM : bns_vfs_mkdir(v, "/d", NULL);

    if (rv == BNS_OK)
        rv = bns_vfs_open(v, "/d/a", BNS_OPEN_CREATE, &f, NULL);
    if (rv == BNS_OK)
        rv = put(f, 1 << 20, "x", 1);
    bns_file_close(f);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(v, "/d/a", "/d/b", NULL);
    bns_vfs_ram_free(v);
    return rv;
}

static void it_survives_want_of_memory(void **state)
{
    bool fired = true;
    (void)state;

    for (int n = 1; fired; n++) {
        struct bns_test_heap *h = bns_test_heap(n);
        int rv = story(bns_test_heap_alloc(h));

        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_calls_agree_with_a_model),
        cmocka_unit_test(names_behave),
        cmocka_unit_test(a_lock_is_held_until_it_is_closed),
        cmocka_unit_test(room_is_bounded_and_comes_back),
        cmocka_unit_test(it_survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
