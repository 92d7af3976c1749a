/* test_snapfile.c - snapshot files: whole or absent, never wrong. On the memory VFS. */
#include "base/varint.h"
#include "store/snapfile.h"
#include "store_env.h"

#define CHUNKS 5

static const size_t chunk_len[CHUNKS] = {0, 1, 700, 13, 2048};

static struct bns_vfs *vfs_new(uint64_t seed)
{
    struct bns_vfs *v = NULL;
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &v), BNS_OK);
    return v;
}

static void fill(uint8_t *dst, size_t len, uint8_t salt)
{
    for (size_t i = 0; i < len; i++)
        dst[i] = (uint8_t)(i * 31 + salt);
}

/* Writes a small snapshot "d/s" whose content depends on `salt`. */
static int save(struct bns_vfs *v, const struct bns_alloc *a, uint8_t salt, uint32_t mutant,
                struct bns_err *err)
{
    struct bns_snap_writer *w = NULL;
    uint8_t buf[4096];
    int rv;

    fill(buf, 100, salt);
    rv = bns_snap_create(v, a, "d/s", bns_slice(buf, 100), &w, err);
    if (rv != BNS_OK)
        return rv;
    bns_snap_set_mutant(w, mutant);
    for (size_t i = 0; i < CHUNKS; i++) {
        fill(buf, chunk_len[i], (uint8_t)(salt + i));
        rv = bns_snap_write(w, bns_slice(buf, chunk_len[i]), err);
        if (rv != BNS_OK) {
            bns_snap_abort(w);
            return rv;
        }
    }
    return bns_snap_commit(w, NULL, err);
}

/* Reads "d/s" whole. Returns its code; *salt: whose content it is; 255 and OK never happens. */
static int load(struct bns_vfs *v, const struct bns_alloc *a, uint8_t *salt, struct bns_err *err)
{
    struct bns_snap_reader *r = NULL;
    static uint8_t buf[BNS_SNAP_CHUNK_MAX];
    uint8_t want[4096];
    int rv = bns_snap_open(v, a, "d/s", &r, err);

    if (rv != BNS_OK)
        return rv;
    *salt = bns_snap_meta(r).ptr[0];
    fill(want, 100, *salt);
    assert_int_equal(bns_snap_meta(r).len, 100);
    assert_memory_equal(bns_snap_meta(r).ptr, want, 100);
    for (size_t i = 0; i < CHUNKS && rv == BNS_OK; i++) {
        size_t len = 0;
        rv = bns_snap_read(r, i, buf, &len, err);
        if (rv != BNS_OK)
            break;
        fill(want, chunk_len[i], (uint8_t)(*salt + i));
        assert_int_equal(len, chunk_len[i]);
        assert_memory_equal(buf, want, len);
    }
    bns_snap_close(r);
    return rv;
}

/* What went in comes out: no chunks, empty chunks, the largest chunk, 1,000 chunks. */
static void round_trip(void **state)
{
    static const struct {
        size_t chunks, len, meta;
    } t[] = {{0, 0, 0},
             {1, 0, 1},
             {3, 7, 8},
             {2, BNS_SNAP_CHUNK_MAX, BNS_SNAP_META_MAX},
             {1000, 100, 33}};
    uint8_t *buf = malloc(BNS_SNAP_CHUNK_MAX), *got = malloc(BNS_SNAP_CHUNK_MAX);
    (void)state;

    for (size_t k = 0; k < sizeof t / sizeof t[0]; k++) {
        struct bns_vfs *v = vfs_new(1);
        struct bns_snap_writer *w = NULL;
        struct bns_snap_reader *r = NULL;
        struct bns_snap_info wrote, read;
        struct bns_err err;
        size_t len = 99;

        fill(buf, BNS_SNAP_CHUNK_MAX, (uint8_t)k);
        assert_int_equal(
            bns_snap_create(v, bns_alloc_libc(), "snap", bns_slice(buf, t[k].meta), &w, &err),
            BNS_OK);
        for (size_t i = 0; i < t[k].chunks; i++)
            assert_int_equal(bns_snap_write(w, bns_slice(buf, t[k].len), &err), BNS_OK);
        assert_int_equal(bns_snap_commit(w, &wrote, &err), BNS_OK);
        assert_int_equal(bns_snap_open(v, bns_alloc_libc(), "snap", &r, &err), BNS_OK);
        bns_snap_info(r, &read);
        assert_int_equal(read.chunks, t[k].chunks);
        assert_int_equal(read.bytes, t[k].chunks * t[k].len);
        assert_int_equal(read.crc, wrote.crc);
        assert_int_equal(bns_snap_meta(r).len, t[k].meta);
        for (size_t i = t[k].chunks; i > 0; i--) { /* any order */
            assert_int_equal(bns_snap_read(r, i - 1, got, &len, &err), BNS_OK);
            assert_int_equal(len, t[k].len);
            assert_memory_equal(got, buf, len);
        }
        assert_int_equal(bns_snap_read(r, t[k].chunks, got, &len, &err), BNS_E_INVALID);
        bns_snap_close(r);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
    }
    free(buf);
    free(got);
}

static int count_name(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
    return BNS_OK;
}

/* An aborted snapshot leaves nothing, the former one stays. */
static void abort_leaves_the_former(void **state)
{
    struct bns_vfs *v = vfs_new(2);
    struct bns_snap_writer *w = NULL;
    uint8_t salt = 0;
    int files = 0;
    (void)state;

    assert_int_equal(bns_vfs_mkdir(v, "d", NULL), BNS_OK);
    assert_int_equal(save(v, bns_alloc_libc(), 1, 0, NULL), BNS_OK);
    assert_int_equal(bns_snap_create(v, bns_alloc_libc(), "d/s", BNS_LIT("x"), &w, NULL), BNS_OK);
    assert_int_equal(bns_snap_write(w, BNS_LIT("abc"), NULL), BNS_OK);
    bns_snap_abort(w);
    bns_snap_abort(NULL);
    assert_int_equal(load(v, bns_alloc_libc(), &salt, NULL), BNS_OK);
    assert_int_equal(salt, 1);
    assert_int_equal(bns_vfs_list(v, "d", count_name, &files, NULL), BNS_OK);
    assert_int_equal(files, 1);
    bns_vfs_mem_free(v);
}

static uint64_t size_of(struct bns_vfs *v)
{
    struct bns_file_stat st;
    assert_int_equal(bns_vfs_stat(v, "d/s", &st, NULL), BNS_OK);
    return st.size;
}

/* Each byte flipped: refused, or (padding) harmless; wrong content is never returned. */
static void flip_of_every_byte_is_detected_or_harmless(void **state)
{
    uint64_t size = 1, detected = 0;
    (void)state;

    for (uint64_t off = 0; off < size; off++) {
        struct bns_vfs *v = vfs_new(3);
        struct bns_err err = {0};
        uint8_t salt = 0;
        int rv;

        assert_int_equal(bns_vfs_mkdir(v, "d", NULL), BNS_OK);
        assert_int_equal(save(v, bns_alloc_libc(), 9, 0, NULL), BNS_OK);
        size = size_of(v);
        assert_int_equal(bns_vfs_mem_flip(v, "d/s", off, (uint8_t)(1u << off % 8)), BNS_OK);
        rv = load(v, bns_alloc_libc(), &salt, &err); /* asserts the content when OK */
        assert_true(rv == BNS_OK || rv == BNS_E_CORRUPT);
        if (rv != BNS_OK) {
            assert_non_null(strstr(err.text, "d/s: offset "));
            detected++;
        }
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
    }
    print_message("  %llu of %llu bytes\n", (unsigned long long)detected, (unsigned long long)size);
    assert_true(detected + 40 > size); /* all but the padding */
}

/* Cut at each byte, or grown: refused at open. */
static void cut_at_every_byte_is_refused(void **state)
{
    struct bns_vfs *v = vfs_new(4);
    struct bns_file *f = NULL;
    uint8_t salt;
    (void)state;

    assert_int_equal(bns_vfs_mkdir(v, "d", NULL), BNS_OK);
    assert_int_equal(save(v, bns_alloc_libc(), 9, 0, NULL), BNS_OK);
    assert_int_equal(bns_vfs_open(v, "d/s", BNS_OPEN_WRITE, &f, NULL), BNS_OK);
    assert_int_equal(bns_file_truncate(f, size_of(v) + 8, NULL), BNS_OK);
    assert_int_equal(load(v, bns_alloc_libc(), &salt, NULL), BNS_E_CORRUPT);
    for (uint64_t cut = size_of(v) - 9; cut > 0; cut--) {
        assert_int_equal(bns_file_truncate(f, cut - 1, NULL), BNS_OK);
        assert_int_equal(load(v, bns_alloc_libc(), &salt, NULL), BNS_E_CORRUPT);
    }
    bns_file_close(f);
    bns_vfs_mem_free(v);
}

/* Replaces snapshot 1 by 2 with a fault at operation `at`. NULL = all well. */
static const char *crash_run(enum bns_vfs_mem_fault fault, uint64_t at, uint64_t seed,
                             uint32_t mutant, bool *fired)
{
    struct bns_vfs *v = vfs_new(seed);
    struct bns_prng cut;
    const char *bad = NULL;
    uint8_t salt = 0;
    int saved, loaded;

    bns_prng_seed(&cut, seed);
    assert_int_equal(bns_vfs_mkdir(v, "d", NULL), BNS_OK);
    assert_int_equal(save(v, bns_alloc_libc(), 1, 0, NULL), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(v, ".", NULL), BNS_OK);
    bns_vfs_mem_fail_at(v, at, fault);
    saved = save(v, bns_alloc_libc(), 2, mutant, NULL);
    *fired = bns_vfs_mem_fired(v);
    bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
    if (bns_vfs_mem_handles(v) != 0)
        bad = "a handle leaked";
    bns_vfs_mem_power_cut(v, &cut);
    bns_vfs_mem_power_on(v);
    loaded = load(v, bns_alloc_libc(), &salt, NULL);
    if (loaded != BNS_OK)
        bad = "no snapshot survived";
    else if (saved == BNS_OK && salt != 2)
        bad = "a committed snapshot is lost";
    bns_vfs_mem_free(v);
    return bad;
}

static void sweep(enum bns_vfs_mem_fault fault, uint64_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        bool fired = true;
        for (uint64_t at = 1; fired; at++) {
            const char *bad = crash_run(fault, at, seed, 0, &fired);
            if (bad != NULL)
                fail_msg("fault=%d seed=%llu at=%llu: %s", (int)fault, (unsigned long long)seed,
                         (unsigned long long)at, bad);
        }
    }
}

/* Power cut, kill, or an error in each VFS call, then a power cut: the former or the new, whole. */
static void whole_or_absent_at_every_operation(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_POWER, 50);
    sweep(BNS_VFAULT_KILL, 10);
    sweep(BNS_VFAULT_EIO, 10);
    sweep(BNS_VFAULT_NOSPACE, 10);
    sweep(BNS_VFAULT_SHORT, 10);
}

/* The sweep is able to fail: without the sync of the directory a committed snapshot is lost. */
static void planted_bug_is_caught(void **state)
{
    bool found = false, fired;
    (void)state;
    for (uint64_t seed = 1; seed <= 50 && !found; seed++)
        found = crash_run(BNS_VFAULT_NONE, 0, seed, 15, &fired) != NULL;
    assert_true(found);
}

/* The n-th allocation fails, in the writer and in the reader: an error, no leak. */
static void allocation_fails_at_every_call(void **state)
{
    bool fired = true;
    (void)state;
    for (int at = 1; fired; at++) {
        struct bns_vfs *v = vfs_new(5);
        struct bns_test_heap *h = bns_test_heap(at);
        uint8_t salt;
        int rv;

        assert_int_equal(bns_vfs_mkdir(v, "d", NULL), BNS_OK);
        rv = save(v, bns_test_heap_alloc(h), 1, 0, NULL);
        if (rv == BNS_OK)
            rv = load(v, bns_test_heap_alloc(h), &salt, NULL);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
    }
}

/* Each VFS call of a read fails: an error, no leak, no wrong content. */
static void read_errors_are_returned(void **state)
{
    bool fired = true;
    struct bns_vfs *v = vfs_new(6);
    (void)state;

    assert_int_equal(bns_vfs_mkdir(v, "d", NULL), BNS_OK);
    assert_int_equal(save(v, bns_alloc_libc(), 1, 0, NULL), BNS_OK);
    for (uint64_t at = 1; fired; at++) {
        uint8_t salt;
        int rv;
        bns_vfs_mem_fail_at(v, at, BNS_VFAULT_EIO);
        rv = load(v, bns_alloc_libc(), &salt, NULL);
        fired = bns_vfs_mem_fired(v);
        assert_int_equal(rv, fired ? BNS_E_IO : BNS_OK);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
    }
    bns_vfs_mem_free(v);
}

/* Paths that leave no room for ".tmp", and files that are not there. */
static void bad_paths_are_refused(void **state)
{
    struct bns_vfs *v = vfs_new(7);
    struct bns_snap_writer *w = NULL;
    struct bns_snap_reader *r = NULL;
    char path[600];
    (void)state;

    memset(path, 'a', sizeof path);
    path[508] = '\0';
    assert_int_equal(bns_snap_create(v, bns_alloc_libc(), path, BNS_LIT(""), &w, NULL),
                     BNS_E_INVALID);
    path[508] = 'a';
    path[599] = '\0';
    assert_int_equal(bns_snap_open(v, bns_alloc_libc(), path, &r, NULL), BNS_E_INVALID);
    assert_int_equal(bns_snap_open(v, bns_alloc_libc(), "none", &r, NULL), BNS_E_NOTFOUND);
    bns_snap_close(NULL);
    bns_vfs_mem_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(abort_leaves_the_former),
        cmocka_unit_test(flip_of_every_byte_is_detected_or_harmless),
        cmocka_unit_test(cut_at_every_byte_is_refused),
        cmocka_unit_test(whole_or_absent_at_every_operation),
        cmocka_unit_test(planted_bug_is_caught),
        cmocka_unit_test(allocation_fails_at_every_call),
        cmocka_unit_test(read_errors_are_returned),
        cmocka_unit_test(bad_paths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
