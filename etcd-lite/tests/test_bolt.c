/* test_bolt.c - what is written is read again, and what is damaged is refused.
 *
 * Files of many shapes (empty buckets, inline ones, trees of several levels, values of many pages)
 * go through writer and reader. Then one small file is damaged in every byte, and cut at every
 * byte: reading ends, with rows or with an error, and never reads outside (sanitizers). Allocations
 * and file calls fail one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/varint.h"
#include "bolt.h"
#include "sim/heap.h"
#include "sim/vfs_mem.h"

struct shape {
    const char *name;
    uint32_t rows, key_bytes, value_bytes;
};

static uint8_t *filler;
#define FILLER (3u * 1024 * 1024)

static struct bns_slice key_of(uint8_t *room, uint32_t i, uint32_t len)
{
    memset(room, 'k', len);
    bns_put_u32be(room, i);
    return bns_slice(room, len);
}

static struct bns_slice value_of(uint32_t i, uint32_t len)
{
    return bns_slice(filler + i % 1000, len == 0 ? 0 : len - (len > 20 ? i % 20 : 0));
}

static int write_bucket(struct etcd_bolt_writer *w, const struct shape *s, const char *name,
                        struct bns_err *err)
{
    static uint8_t room[ETCD_BOLT_KEY_MAX + 1];
    int rv = etcd_bolt_begin(w, bns_slice_str(name), err);

    for (uint32_t i = 0; rv == BNS_OK && i < s->rows; i++)
        rv = etcd_bolt_put(w, key_of(room, i, s->key_bytes), value_of(i, s->value_bytes), err);
    return rv == BNS_OK ? etcd_bolt_end(w, err) : rv;
}

static int write_file(const struct bns_alloc *a, struct bns_file *f, const struct shape *s,
                      uint64_t *bytes, struct bns_err *err)
{
    struct shape few = {"few", 3, 8, 20};
    struct etcd_bolt_writer *w = NULL;
    int rv = etcd_bolt_writer_new(a, f, &w, err);

    if (rv == BNS_OK)
        rv = write_bucket(w, &(struct shape){"none", 0, 0, 0}, "alarm", err);
    if (rv == BNS_OK)
        rv = write_bucket(w, s, "key", err);
    if (rv == BNS_OK)
        rv = write_bucket(w, &few, "meta", err);
    if (rv == BNS_OK)
        rv = etcd_bolt_finish(w, bytes, err);
    etcd_bolt_writer_free(w);
    return rv;
}

/* Reads all; *rows of the bucket "key". */
static int read_file(const struct bns_alloc *a, struct bns_file *f, uint64_t bytes,
                     const struct shape *s, uint32_t *rows, struct bns_err *err)
{
    static uint8_t room[ETCD_BOLT_KEY_MAX + 1];
    struct etcd_bolt_cursor *top = NULL, *c = NULL;
    struct etcd_bolt *b = NULL;
    struct bns_slice name, k, v;
    int rv = etcd_bolt_open(a, f, bytes, &b, err);

    *rows = 0;
    if (rv == BNS_OK)
        rv = etcd_bolt_buckets(b, &top, err);
    while (rv == BNS_OK && (rv = etcd_bolt_next(top, &name, &v, err)) == BNS_OK) {
        bool key = bns_slice_eq(name, BNS_LIT("key"));

        rv = etcd_bolt_rows(top, &c, err);
        while (rv == BNS_OK && (rv = etcd_bolt_next(c, &k, &v, err)) == BNS_OK) {
            if (key && s != NULL) {
                assert_true(bns_slice_eq(k, key_of(room, *rows, s->key_bytes)));
                assert_true(bns_slice_eq(v, value_of(*rows, s->value_bytes)));
            }
            *rows += key;
        }
        etcd_bolt_cursor_close(c);
        c = NULL;
        rv = rv == BNS_E_NOTFOUND ? BNS_OK : rv;
    }
    etcd_bolt_cursor_close(top);
    etcd_bolt_close(b);
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

static const struct shape shapes[] = {
    {"no row", 0, 17, 0},
    {"one row, empty value", 1, 17, 0},
    {"inline", 20, 17, 10},
    {"one leaf", 60, 17, 20},
    {"two levels", 3000, 17, 100},
    {"three levels", 90000, 17, 30},
    {"rows as large as a page", 300, 17, 4047},
    {"rows a byte larger", 300, 17, 4070},
    {"values of many pages", 5, 17, 1600000},
    {"one row of a whole page and more", 1, 17, 9000},
    {"long keys", 100, 3000, 10},
    {"keys of the greatest length", 70, ETCD_BOLT_KEY_MAX, 5},
};

static void what_is_written_is_read(void **state)
{
    const struct bns_alloc *a = bns_alloc_libc();

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct bns_vfs *v = NULL;
        struct bns_file *f = NULL;
        struct bns_err err = {0};
        uint64_t bytes = 0, size = 0;
        uint32_t rows;

        print_message("  %s\n", shapes[i].name);
        assert_int_equal(bns_vfs_mem_new(a, 1, &v), BNS_OK);
        assert_int_equal(bns_vfs_open(v, "f", BNS_OPEN_CREATE, &f, &err), BNS_OK);
        assert_int_equal(write_file(a, f, &shapes[i], &bytes, &err), BNS_OK);
        assert_int_equal(bns_file_size(f, &size, &err), BNS_OK);
        assert_int_equal(size, bytes);
        assert_int_equal(bytes % ETCD_BOLT_PAGE, 0);
        if (read_file(a, f, bytes, &shapes[i], &rows, &err) != BNS_OK)
            fail_msg("%s", err.text);
        assert_int_equal(rows, shapes[i].rows);
        bns_file_close(f);
        bns_vfs_mem_free(v);
    }
}

/* A small file with two levels, in memory. */
static uint8_t *small_file(const struct shape *s, uint64_t *bytes)
{
    const struct bns_alloc *a = bns_alloc_libc();
    struct bns_vfs *v = NULL;
    struct bns_file *f = NULL;
    struct bns_err err = {0};
    uint8_t *all;
    size_t got;

    assert_int_equal(bns_vfs_mem_new(a, 1, &v), BNS_OK);
    assert_int_equal(bns_vfs_open(v, "f", BNS_OPEN_CREATE, &f, &err), BNS_OK);
    assert_int_equal(write_file(a, f, s, bytes, &err), BNS_OK);
    all = malloc(*bytes);
    assert_int_equal(bns_file_read_at(f, 0, all, *bytes, &got, &err), BNS_OK);
    assert_int_equal(got, *bytes);
    bns_file_close(f);
    bns_vfs_mem_free(v);
    return all;
}

static int read_bytes(struct bns_vfs *v, const uint8_t *p, uint64_t len, uint32_t *rows)
{
    struct bns_slice all = bns_slice(p, len);
    struct bns_file *f = NULL;
    struct bns_err err = {0};
    int rv;

    assert_int_equal(bns_vfs_open(v, "f", BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, &err), BNS_OK);
    assert_int_equal(bns_file_write_at(f, 0, &all, 1, &err), BNS_OK);
    rv = read_file(bns_alloc_libc(), f, len, NULL, rows, &err);
    bns_file_close(f);
    assert_true(rv == BNS_OK || rv == BNS_E_CORRUPT || rv == BNS_E_TOOBIG);
    return rv;
}

static void damage_is_refused_or_harmless(void **state)
{
    static const struct shape s = {"two levels", 150, 17, 40};
    struct bns_vfs *v = NULL;
    uint32_t rows, refused = 0;
    uint64_t bytes;
    uint8_t *all = small_file(&s, &bytes);

    (void)state;
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &v), BNS_OK);
    for (uint64_t i = 0; i < bytes; i++) {
        for (int bit = 0; bit < 8; bit += 7) {
            all[i] ^= (uint8_t)(1 << bit);
            refused += read_bytes(v, all, bytes, &rows) != BNS_OK;
            all[i] ^= (uint8_t)(1 << bit);
        }
    }
    print_message("  %u of %llu refused\n", refused, (unsigned long long)bytes * 2);
    assert_true(refused > bytes / 20); /* most bytes are values, or padding */
    for (uint64_t cut = 0; cut < bytes; cut++)
        assert_int_equal(read_bytes(v, all, cut, &rows), BNS_E_CORRUPT);
    assert_int_equal(read_bytes(v, all, bytes, &rows), BNS_OK);
    assert_int_equal(rows, s.rows);
    bns_vfs_mem_free(v);
    free(all);
}

/* Where the bucket "key" has its root, and sets it. */
static void set_root(uint8_t *all, uint64_t root)
{
    uint8_t *page = all + bns_get_u64le(all + BOLT_HEAD + 16) * ETCD_BOLT_PAGE;
    uint8_t *e = page + 2 * BOLT_HEAD; /* the second element: "key" */

    bns_put_u64le(e + bns_get_u32le(e + 4) + 3, root);
}

static void cycles_end(void **state)
{
    static const struct shape s = {"three levels", 40000, 17, 1};
    const uint8_t *page;
    struct bns_vfs *v = NULL;
    uint64_t bytes, pages;
    uint32_t rows;
    uint8_t *all = small_file(&s, &bytes);

    (void)state;
    pages = bytes / ETCD_BOLT_PAGE;
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &v), BNS_OK);
    for (uint64_t id = 0; id < pages; id++) { /* each branch points at itself, at the first leaf */
        page = all + id * ETCD_BOLT_PAGE;
        if (bns_get_u16le(page + 8) != BOLT_BRANCH)
            continue;
        for (uint64_t to = 2; to <= id; to += id - 2) {
            uint8_t *e = all + id * ETCD_BOLT_PAGE + 2 * BOLT_HEAD;
            uint64_t was = bns_get_u64le(e + 8);

            bns_put_u64le(e + 8, to);
            assert_int_equal(read_bytes(v, all, bytes, &rows), BNS_E_CORRUPT);
            bns_put_u64le(e + 8, was);
        }
    }
    for (uint64_t to = 1; to <= pages; to += pages - 1) { /* meta page; behind the end */
        set_root(all, to);
        assert_int_equal(read_bytes(v, all, bytes, &rows), BNS_E_CORRUPT);
    }
    bns_vfs_mem_free(v);
    free(all);
}

static void survives_every_failed_allocation(void **state)
{
    static const struct shape s = {"mixed", 200, 17, 4070};
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        const struct bns_alloc *a = bns_test_heap_alloc(h);
        struct bns_vfs *v = NULL;
        struct bns_file *f = NULL;
        struct bns_err err = {0};
        uint64_t bytes = 0;
        uint32_t rows = 0;
        int rv;

        assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &v), BNS_OK);
        assert_int_equal(bns_vfs_open(v, "f", BNS_OPEN_CREATE, &f, &err), BNS_OK);
        rv = write_file(a, f, &s, &bytes, &err);
        if (rv == BNS_OK)
            rv = read_file(a, f, bytes, &s, &rows, &err);
        bns_file_close(f);
        bns_vfs_mem_free(v);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

static void every_failed_file_call_is_reported(void **state)
{
    static const struct shape s = {"mixed", 200, 17, 4070};
    bool fired = true;

    (void)state;
    for (uint64_t n = 1; fired; n++) {
        const struct bns_alloc *a = bns_alloc_libc();
        struct bns_vfs *v = NULL;
        struct bns_file *f = NULL;
        struct bns_err err = {0};
        uint64_t bytes = 0;
        uint32_t rows = 0;
        int rv;

        assert_int_equal(bns_vfs_mem_new(a, 1, &v), BNS_OK);
        assert_int_equal(bns_vfs_open(v, "f", BNS_OPEN_CREATE, &f, &err), BNS_OK);
        bns_vfs_mem_fail_at(v, n, BNS_VFAULT_EIO);
        rv = write_file(a, f, &s, &bytes, &err);
        if (rv == BNS_OK)
            rv = read_file(a, f, bytes, &s, &rows, &err);
        fired = rv != BNS_OK;
        assert_true(rv == BNS_OK || rv == BNS_E_IO || rv == BNS_E_CORRUPT);
        bns_file_close(f);
        bns_vfs_mem_free(v);
        assert_true(n < 100000);
    }
}

static void keys_that_bbolt_cannot_hold_are_refused(void **state)
{
    static uint8_t room[ETCD_BOLT_KEY_MAX + 1];
    const struct bns_alloc *a = bns_alloc_libc();
    struct etcd_bolt_writer *w = NULL;
    struct bns_vfs *v = NULL;
    struct bns_file *f = NULL;
    struct bns_err err = {0};

    (void)state;
    assert_int_equal(bns_vfs_mem_new(a, 1, &v), BNS_OK);
    assert_int_equal(bns_vfs_open(v, "f", BNS_OPEN_CREATE, &f, &err), BNS_OK);
    assert_int_equal(etcd_bolt_writer_new(a, f, &w, &err), BNS_OK);
    assert_int_equal(etcd_bolt_begin(w, BNS_LIT("b"), &err), BNS_OK);
    assert_int_equal(etcd_bolt_put(w, bns_slice(room, 0), BNS_LIT("x"), &err), BNS_E_TOOBIG);
    assert_int_equal(etcd_bolt_put(w, bns_slice(room, sizeof room), BNS_LIT("x"), &err),
                     BNS_E_TOOBIG);
    etcd_bolt_writer_free(w);
    bns_file_close(f);
    bns_vfs_mem_free(v);
}

static int make_filler(void **state)
{
    (void)state;
    filler = malloc(FILLER);
    for (uint32_t i = 0; i < FILLER; i++)
        filler[i] = (uint8_t)(i * 2654435761u >> 13);
    return 0;
}

static int drop_filler(void **state)
{
    (void)state;
    free(filler);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(damage_is_refused_or_harmless),
        cmocka_unit_test(cycles_end),
        cmocka_unit_test(survives_every_failed_allocation),
        cmocka_unit_test(every_failed_file_call_is_reported),
        cmocka_unit_test(keys_that_bbolt_cannot_hold_are_refused),
    };

    return cmocka_run_group_tests(tests, make_filler, drop_filler);
}
