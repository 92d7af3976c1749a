/* test_vfs_mem.c - the memory file system keeps over a power cut what was synced, may lose all
 * else in units of sectors and entries, and fails as told.
 *
 * Method: small histories with known outcomes, a model over many seeds, a power cut at every call.
 * ctest: labels=threads timeout=120 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "sim/heap.h"
#include "sim/vfs_mem.h"

static struct bns_vfs *fresh(uint64_t seed)
{
    struct bns_vfs *v = NULL;
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &v), BNS_OK);
    return v;
}

static struct bns_file *opened(struct bns_vfs *v, const char *path, int flags)
{
    struct bns_file *f = NULL;
    assert_int_equal(bns_vfs_open(v, path, flags, &f, NULL), BNS_OK);
    return f;
}

static void put(struct bns_file *f, uint64_t off, const void *p, size_t n)
{
    struct bns_slice s = bns_slice(p, n);
    assert_int_equal(bns_file_write_at(f, off, &s, 1, NULL), BNS_OK);
}

static void sync_both(struct bns_vfs *v, struct bns_file *f, const char *dir)
{
    assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(v, dir, NULL), BNS_OK);
}

/* The contents of a file as text, "-" when it is not there. */
static const char *text(struct bns_vfs *v, const char *path)
{
    static char buf[256];
    struct bns_file *f;
    size_t got;

    if (bns_vfs_open(v, path, BNS_OPEN_READ, &f, NULL) != BNS_OK)
        return "-";
    assert_int_equal(bns_file_read_at(f, 0, buf, sizeof buf - 1, &got, NULL), BNS_OK);
    buf[got] = '\0';
    bns_file_close(f);
    return buf;
}

static void cycle(struct bns_vfs *v, struct bns_prng *prng)
{
    bns_vfs_mem_power_cut(v, prng);
    bns_vfs_mem_power_on(v);
}

static void what_is_written_is_read(void **state)
{
    struct bns_vfs *v = fresh(1);
    struct bns_file *f = opened(v, "/a", BNS_OPEN_CREATE);
    uint8_t big[10000];
    uint8_t back[10000];
    struct bns_slice two[2] = {BNS_LIT("hello "), BNS_LIT("world")};
    uint64_t size;
    size_t got;

    (void)state;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 7);
    put(f, 5000, big, sizeof big);
    assert_int_equal(bns_file_write_at(f, 100, two, 2, NULL), BNS_OK);
    assert_int_equal(bns_file_size(f, &size, NULL), BNS_OK);
    assert_int_equal(size, 15000);
    assert_int_equal(bns_file_read_at(f, 5000, back, sizeof back, &got, NULL), BNS_OK);
    assert_int_equal(got, sizeof back);
    assert_memory_equal(back, big, sizeof big);
    assert_int_equal(bns_file_read_at(f, 100, back, 11, &got, NULL), BNS_OK);
    assert_memory_equal(back, "hello world", 11);
    assert_int_equal(bns_file_read_at(f, 0, back, 100, &got, NULL), BNS_OK);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(back[i], 0);
    assert_int_equal(bns_file_read_at(f, 14990, back, 100, &got, NULL), BNS_OK);
    assert_int_equal(got, 10);
    assert_int_equal(bns_file_read_at(f, 15000, back, 100, &got, NULL), BNS_OK);
    assert_int_equal(got, 0);
    /* Cut off and grown again, the tail reads as zeros. */
    assert_int_equal(bns_file_truncate(f, 6000, NULL), BNS_OK);
    assert_int_equal(bns_file_truncate(f, 7000, NULL), BNS_OK);
    assert_int_equal(bns_file_read_at(f, 5999, back, 100, &got, NULL), BNS_OK);
    assert_int_equal(got, 100);
    assert_int_equal(back[0], big[999]);
    for (size_t i = 1; i < 100; i++)
        assert_int_equal(back[i], 0);
    bns_file_close(f);
    bns_vfs_mem_free(v);
}

static int join(void *arg, const char *name)
{
    char *s = arg;
    strncat(s, name, 100);
    strncat(s, " ", 2);
    return 0;
}

static void names_follow_the_rules(void **state)
{
    struct bns_vfs *v = fresh(1);
    char names[200] = "";
    struct bns_file *f;
    struct bns_file_stat st;

    (void)state;
    assert_int_equal(bns_vfs_mkdir(v, "/d", NULL), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(v, "d/", NULL), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(v, "/d/./e", NULL), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(v, "/x/y", NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_open(v, "/d/../q", BNS_OPEN_CREATE, &f, NULL), BNS_E_INVALID);
    assert_int_equal(bns_vfs_open(v, "", BNS_OPEN_CREATE, &f, NULL), BNS_E_INVALID);
    assert_int_equal(bns_vfs_open(v, "/d/q", BNS_OPEN_WRITE, &f, NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_open(v, "/d", BNS_OPEN_WRITE, &f, NULL), BNS_E_INVALID);
    bns_file_close(opened(v, "/d/b", BNS_OPEN_CREATE));
    bns_file_close(opened(v, "/d/a", BNS_OPEN_CREATE));
    assert_int_equal(bns_vfs_open(v, "/d/a", BNS_OPEN_CREATE | BNS_OPEN_EXCL, &f, NULL),
                     BNS_E_EXISTS);
    assert_int_equal(bns_vfs_list(v, "/d", join, names, NULL), BNS_OK);
    assert_string_equal(names, "a b e ");
    assert_int_equal(bns_vfs_remove(v, "/d", NULL), BNS_E_EXISTS);
    assert_int_equal(bns_vfs_rename(v, "/d", "/d/e/f", NULL), BNS_E_INVALID);
    assert_int_equal(bns_vfs_rename(v, "/d/a", "/d/e", NULL), BNS_E_EXISTS);
    assert_int_equal(bns_vfs_rename(v, "/d/a", "/d/e/z", NULL), BNS_OK);
    assert_int_equal(bns_vfs_rename(v, "/d/nix", "/d/e/z", NULL), BNS_E_NOTFOUND);
    assert_int_equal(bns_vfs_rename(v, "/d/b", "/d/e/z", NULL), BNS_OK);
    assert_int_equal(bns_vfs_stat(v, "/d/e", &st, NULL), BNS_OK);
    assert_true(st.is_dir);
    assert_int_equal(bns_vfs_remove(v, "/d/e/z", NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(v, "/d/e", NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(v, "/d", NULL), BNS_OK);
    assert_int_equal(bns_vfs_stat(v, "/d", &st, NULL), BNS_E_NOTFOUND);
    bns_vfs_mem_free(v);
}

static void a_lock_is_held_until_closed_or_cut(void **state)
{
    struct bns_vfs *v = fresh(1);
    struct bns_file *a;
    struct bns_file *b;

    (void)state;
    assert_int_equal(bns_vfs_lock(v, "/lock", &a, NULL), BNS_OK);
    assert_int_equal(bns_vfs_lock(v, "/lock", &b, NULL), BNS_E_BUSY);
    bns_file_close(a);
    assert_int_equal(bns_vfs_lock(v, "/lock", &a, NULL), BNS_OK);
    bns_vfs_mem_kill(v);
    assert_int_equal(bns_vfs_lock(v, "/lock", &b, NULL), BNS_E_OFF);
    bns_vfs_mem_power_on(v);
    assert_int_equal(bns_vfs_lock(v, "/lock", &b, NULL), BNS_OK);
    bns_file_close(a); /* the dead owner's handle gives nothing back */
    assert_int_equal(bns_vfs_lock(v, "/lock", &a, NULL), BNS_E_BUSY);
    bns_file_close(b);
    assert_int_equal(bns_vfs_mem_handles(v), 0);
    bns_vfs_mem_free(v);
}

/* What the worst cut leaves after each protocol; a missing step is a row of its own. */
static void only_synced_state_survives_the_worst_cut(void **state)
{
    static const struct {
        const char *name;
        bool sync_new, sync_dir_new, rename, sync_dir_rename;
        const char *tmp, *final;
    } t[] = {
        {"nothing synced", false, false, true, false, "-", "old"},
        {"data only", true, false, true, false, "-", "old"},
        {"entry only", false, true, false, false, "", "old"},
        {"no rename", true, true, false, false, "new", "old"},
        {"rename not synced", true, true, true, false, "new", "old"},
        {"rename synced", true, false, true, true, "-", "new"},
        {"rename synced, data not", false, false, true, true, "-", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_vfs *v = fresh(i);
        struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);

        print_message("  %s\n", t[i].name);
        put(f, 0, "old", 3);
        sync_both(v, f, "/");
        bns_file_close(f);
        f = opened(v, "/f.tmp", BNS_OPEN_CREATE);
        put(f, 0, "new", 3);
        if (t[i].sync_new)
            assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK);
        bns_file_close(f);
        if (t[i].sync_dir_new)
            assert_int_equal(bns_vfs_sync_dir(v, "/", NULL), BNS_OK);
        if (t[i].rename)
            assert_int_equal(bns_vfs_rename(v, "/f.tmp", "/f", NULL), BNS_OK);
        if (t[i].sync_dir_rename)
            assert_int_equal(bns_vfs_sync_dir(v, "/", NULL), BNS_OK);
        cycle(v, NULL);
        assert_string_equal(text(v, "/f.tmp"), t[i].tmp);
        assert_string_equal(text(v, "/f"), t[i].final);
        bns_vfs_mem_free(v);
    }
}

static void a_killed_process_leaves_its_writes(void **state)
{
    struct bns_vfs *v = fresh(1);
    struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);
    struct bns_slice s = BNS_LIT("x");
    uint64_t size;

    (void)state;
    put(f, 0, "kept", 4);
    bns_vfs_mem_kill(v);
    assert_int_equal(bns_file_size(f, &size, NULL), BNS_E_OFF);
    bns_vfs_mem_power_on(v);
    assert_int_equal(bns_file_write_at(f, 0, &s, 1, NULL), BNS_E_OFF);
    assert_int_equal(bns_file_sync(f, true, NULL), BNS_E_OFF);
    assert_string_equal(text(v, "/f"), "kept");
    bns_vfs_mem_drop_handles(v);
    assert_int_equal(bns_vfs_mem_handles(v), 0);
    bns_vfs_mem_free(v);
}

/* Over many seeds each of the two sectors of an unsynced write is seen both kept and lost, a
 * sector is never mixed, and a rename happens wholly or not at all. */
static void cuts_tear_at_sectors_and_renames_are_atomic(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct bns_vfs *v = fresh(seed);
        struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);
        uint8_t a[1024];
        uint8_t b[1024];
        struct bns_prng prng;
        bool renamed;
        size_t got;

        bns_prng_seed(&prng, seed);
        memset(a, 'a', sizeof a);
        memset(b, 'b', sizeof b);
        put(f, 0, a, sizeof a);
        sync_both(v, f, "/");
        put(f, 0, b, sizeof b);
        assert_int_equal(bns_vfs_rename(v, "/f", "/g", NULL), BNS_OK);
        cycle(v, &prng);
        bns_file_close(f);
        renamed = text(v, "/f")[0] == '-';
        assert_true(renamed != (text(v, "/g")[0] == '-'));
        f = opened(v, renamed ? "/g" : "/f", BNS_OPEN_READ);
        assert_int_equal(bns_file_read_at(f, 0, b, sizeof b, &got, NULL), BNS_OK);
        assert_int_equal(got, 1024);
        assert_memory_equal(b, b + 1, 511);
        assert_memory_equal(b + 512, b + 513, 511);
        seen |= 1u << ((b[0] == 'b') + 2 * (b[512] == 'b'));
        seen |= renamed ? 16u : 32u;
        bns_file_close(f);
        bns_vfs_mem_free(v);
    }
    assert_int_equal(seen, 63);
}

static void a_failed_sync_drops_what_was_dirty(void **state)
{
    bool dropped = false;

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct bns_vfs *v = fresh(seed);
        struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);

        put(f, 0, "one", 3);
        sync_both(v, f, "/");
        put(f, 0, "two", 3);
        bns_vfs_mem_fail_at(v, 1, BNS_VFAULT_EIO);
        assert_int_equal(bns_file_sync(f, true, NULL), BNS_E_IO);
        assert_true(bns_vfs_mem_fired(v));
        assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK); /* the lie of the page cache */
        bns_file_close(f);
        cycle(v, NULL);
        dropped |= strcmp(text(v, "/f"), "one") == 0;
        bns_vfs_mem_free(v);
    }
    assert_true(dropped);
}

static void calls_fail_as_armed(void **state)
{
    struct bns_vfs *v = fresh(3);
    struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);
    struct bns_slice s = BNS_LIT("zzzz");
    char buf[8];
    size_t got;
    struct bns_err err;

    (void)state;
    put(f, 0, "pppp", 4);
    sync_both(v, f, "/");
    bns_vfs_mem_fail_at(v, 2, BNS_VFAULT_EIO);
    assert_int_equal(bns_file_read_at(f, 0, buf, 4, &got, &err), BNS_OK);
    assert_int_equal(bns_file_read_at(f, 0, buf, 4, &got, &err), BNS_E_IO);
    assert_string_equal(err.text, "/f: read: input/output error");
    bns_vfs_mem_fail_on(v, BNS_VOP_WRITE, "f", 1, BNS_VFAULT_NOSPACE);
    assert_int_equal(bns_file_read_at(f, 0, buf, 4, &got, NULL), BNS_OK);
    assert_int_equal(bns_file_write_at(f, 0, &s, 1, NULL), BNS_E_NOSPACE);
    assert_int_equal(bns_file_write_at(f, 0, &s, 1, NULL), BNS_OK);
    bns_vfs_mem_fail_at(v, 1, BNS_VFAULT_SYNC_LOST);
    assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK);
    bns_file_close(f);
    cycle(v, NULL);
    assert_string_equal(text(v, "/f"), "pppp");
    f = opened(v, "/f", BNS_OPEN_READ);
    assert_int_equal(bns_file_write_at(f, 0, &s, 1, NULL), BNS_E_INVALID);
    assert_int_equal(bns_file_truncate(f, 0, NULL), BNS_E_INVALID);
    bns_file_close(f);
    assert_int_equal(bns_vfs_mem_stats(v).faults, 3);
    bns_vfs_mem_free(v);
}

static void bytes_rot_go_astray_and_come_back_stale(void **state)
{
    struct bns_vfs *v = fresh(3);
    struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);
    uint8_t page[1024];
    uint8_t buf[1024];
    size_t got;

    (void)state;
    bns_vfs_mem_config(v)->keep_old = true;
    memset(page, 'p', sizeof page);
    put(f, 0, page, sizeof page);
    sync_both(v, f, "/");
    bns_vfs_mem_fail_at(v, 1, BNS_VFAULT_MISDIRECT);
    put(f, 0, "zzzz", 4);
    assert_int_equal(bns_file_read_at(f, 0, buf, 1024, &got, NULL), BNS_OK);
    assert_memory_equal(buf, "pppp", 4);
    assert_memory_equal(buf + 512, "zzzz", 4);
    assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK);
    put(f, 512, "yyyy", 4);
    assert_int_equal(bns_file_sync(f, true, NULL), BNS_OK);
    bns_vfs_mem_fail_at(v, 1, BNS_VFAULT_STALE);
    assert_int_equal(bns_file_read_at(f, 512, buf, 4, &got, NULL), BNS_OK);
    assert_memory_equal(buf, "zzzz", 4);
    assert_int_equal(bns_file_read_at(f, 512, buf, 4, &got, NULL), BNS_OK);
    assert_memory_equal(buf, "yyyy", 4);
    assert_int_equal(bns_vfs_mem_flip(v, "/f", 513, 0x01), BNS_OK);
    assert_int_equal(bns_vfs_mem_flip(v, "/f", 1024, 0x01), BNS_E_INVALID);
    assert_int_equal(bns_vfs_mem_flip(v, "/g", 0, 0x01), BNS_E_NOTFOUND);
    cycle(v, NULL);
    bns_file_close(f);
    f = opened(v, "/f", BNS_OPEN_READ);
    assert_int_equal(bns_file_read_at(f, 512, buf, 4, &got, NULL), BNS_OK);
    assert_memory_equal(buf, "yxyy", 4);
    memcpy(page, "pppp", 4);
    bns_vfs_mem_fail_at(v, 1, BNS_VFAULT_FLIP);
    assert_int_equal(bns_file_read_at(f, 0, buf, 512, &got, NULL), BNS_OK);
    assert_int_not_equal(memcmp(buf, page, 512), 0);
    bns_file_close(f);
    bns_vfs_mem_free(v);
}

static void space_is_bounded_and_comes_back(void **state)
{
    struct bns_vfs *v = fresh(1);
    struct bns_file *f = opened(v, "/f", BNS_OPEN_CREATE);
    static uint8_t page[4096 * 5];
    struct bns_slice s = bns_slice(page, sizeof page);
    uint64_t room;

    (void)state;
    bns_vfs_mem_config(v)->capacity_bytes = 4 * 4096;
    assert_int_equal(bns_file_write_at(f, 0, &s, 1, NULL), BNS_E_NOSPACE);
    assert_int_equal(bns_vfs_free_bytes(v, "/", &room, NULL), BNS_OK);
    assert_int_equal(room, 0);
    bns_file_close(f);
    assert_int_equal(bns_vfs_remove(v, "/f", NULL), BNS_OK);
    assert_int_equal(bns_vfs_free_bytes(v, "/", &room, NULL), BNS_OK);
    assert_int_equal(room, 4 * 4096);
    cycle(v, NULL);
    bns_vfs_mem_free(v);
}

/* A node that appends numbered records of 600 bytes and acknowledges each after its sync. */
static int append_some(struct bns_vfs *v, unsigned *acked)
{
    struct bns_file *f = NULL;
    uint8_t rec[600];
    int rv = bns_vfs_mkdir(v, "/n", NULL);

    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(v, "/", NULL);
    if (rv == BNS_OK)
        rv = bns_vfs_open(v, "/n/log", BNS_OPEN_CREATE, &f, NULL);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(v, "/n", NULL);
    for (unsigned i = 0; rv == BNS_OK && i < 8; i++) {
        struct bns_slice s = bns_slice(rec, sizeof rec);
        memset(rec, (int)(i + 1), sizeof rec);
        rv = bns_file_write_at(f, i * sizeof rec, &s, 1, NULL);
        if (rv == BNS_OK)
            rv = bns_file_sync(f, true, NULL);
        if (rv == BNS_OK)
            *acked = i + 1;
    }
    bns_file_close(f);
    return rv;
}

static void no_acknowledged_record_is_lost_wherever_the_power_is_cut(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 20; run++) {
        bool fired = true;
        for (uint64_t n = 1; fired; n++) {
            struct bns_vfs *v = fresh(run * 1000 + n);
            unsigned acked = 0;
            uint8_t rec[600];
            size_t got;
            int rv;

            bns_vfs_mem_fail_at(v, n, BNS_VFAULT_POWER);
            rv = append_some(v, &acked);
            fired = bns_vfs_mem_fired(v);
            assert_int_equal(rv, fired ? BNS_E_OFF : BNS_OK);
            assert_int_equal(bns_vfs_mem_is_off(v), fired);
            assert_int_equal(bns_vfs_mem_handles(v), 0);
            bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
            bns_vfs_mem_power_on(v);
            for (unsigned i = 0; i < acked; i++) {
                struct bns_file *f = opened(v, "/n/log", BNS_OPEN_READ);
                assert_int_equal(bns_file_read_at(f, i * 600, rec, 600, &got, NULL), BNS_OK);
                assert_int_equal(got, 600);
                assert_int_equal(rec[0], i + 1);
                assert_memory_equal(rec, rec + 1, 599);
                bns_file_close(f);
            }
            bns_vfs_mem_free(v);
        }
    }
}

/* A long random history: the volatile view equals a plain model after every step, what was synced
 * is there after every cut, and the same seed gives the same digest. */
#define MODEL_BYTES 6000
static uint64_t random_history(uint64_t seed)
{
    struct bns_vfs *v = fresh(seed);
    struct bns_file *f = opened(v, "/m", BNS_OPEN_CREATE);
    static uint8_t now[MODEL_BYTES];
    static uint8_t buf[MODEL_BYTES];
    uint64_t digest = 0;
    struct bns_prng prng;

    bns_prng_seed(&prng, seed);
    memset(now, 0, sizeof now);
    put(f, 0, now, sizeof now);
    sync_both(v, f, "/");
    for (int i = 0; i < 200; i++) {
        uint64_t off = bns_prng_below(&prng, MODEL_BYTES);
        size_t len = (size_t)bns_prng_below(&prng, MODEL_BYTES - off) + 1;
        size_t got;

        memset(buf, i, len);
        put(f, off, buf, len);
        memset(now + off, i, len);
        if (bns_prng_chance(&prng, 0.2)) {
            bool synced = bns_prng_chance(&prng, 0.5);
            if (synced)
                assert_int_equal(bns_file_sync(f, false, NULL), BNS_OK);
            cycle(v, &prng);
            bns_file_close(f);
            f = opened(v, "/m", BNS_OPEN_WRITE);
            assert_int_equal(bns_file_read_at(f, 0, buf, sizeof buf, &got, NULL), BNS_OK);
            assert_int_equal(got, sizeof buf);
            if (synced)
                assert_memory_equal(buf, now, sizeof now);
            memcpy(now, buf, sizeof now);
            assert_true(bns_vfs_mem_digest(v, true) == bns_vfs_mem_digest(v, false));
        }
        assert_int_equal(bns_file_read_at(f, 0, buf, sizeof buf, &got, NULL), BNS_OK);
        assert_memory_equal(buf, now, sizeof now);
        digest = digest * 31 + bns_vfs_mem_digest(v, false) + bns_vfs_mem_digest(v, true);
    }
    bns_file_close(f);
    bns_vfs_mem_free(v);
    return digest;
}

static void random_histories_agree_with_the_model_and_repeat(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++)
        assert_true(random_history(seed) == random_history(seed));
    assert_true(random_history(1) != random_history(2));
}

/* Fails the n-th allocation of a small life, until one gets through. */
static void every_failed_allocation_is_survived(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *heap = bns_test_heap(fail_at);
        struct bns_vfs *v = NULL;
        struct bns_file *f = NULL;
        struct bns_slice s = BNS_LIT("bytes");
        char names[200] = "";
        int rv = bns_vfs_mem_new(bns_test_heap_alloc(heap), 1, &v);

        if (rv == BNS_OK)
            rv = bns_vfs_mkdir(v, "/d", NULL);
        if (rv == BNS_OK)
            rv = bns_vfs_open(v, "/d/f", BNS_OPEN_CREATE, &f, NULL);
        for (uint64_t at = 0; at < 100000 && rv == BNS_OK; at += 9999)
            rv = bns_file_write_at(f, at, &s, 1, NULL);
        if (rv == BNS_OK)
            rv = bns_vfs_rename(v, "/d/f", "/d/g", NULL);
        if (rv == BNS_OK)
            rv = bns_vfs_list(v, "/d", join, names, NULL);
        if (rv == BNS_OK)
            rv = bns_file_truncate(f, 10000, NULL);
        bns_file_close(f);
        bns_vfs_mem_free(v);
        assert_int_equal(bns_test_heap_close(heap, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

/* Two threads, two files, one file system; a third cuts nothing but counts. */
struct hand {
    struct bns_vfs *v;
    const char *path;
};

static void *write_much(void *arg)
{
    struct hand *h = arg;
    struct bns_file *f = opened(h->v, h->path, BNS_OPEN_CREATE);

    for (uint64_t i = 0; i < 2000; i++) {
        put(f, i * 8, &i, 8);
        if (i % 100 == 0)
            sync_both(h->v, f, "/");
    }
    sync_both(h->v, f, "/");
    bns_file_close(f);
    return NULL;
}

static void threads_may_share_it(void **state)
{
    struct bns_vfs *v = fresh(1);
    struct hand hands[2] = {{v, "/a"}, {v, "/b"}};
    pthread_t threads[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_much, &hands[i]), 0);
    while (bns_vfs_mem_stats(v).writes < 1000)
        assert_false(bns_vfs_mem_is_off(v));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(bns_vfs_mem_stats(v).written_bytes, 2 * 2000 * 8);
    cycle(v, NULL);
    for (int i = 0; i < 2; i++) {
        struct bns_file *f = opened(v, hands[i].path, BNS_OPEN_READ);
        uint64_t size;
        assert_int_equal(bns_file_size(f, &size, NULL), BNS_OK);
        assert_int_equal(size, 16000);
        bns_file_close(f);
    }
    bns_vfs_mem_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(names_follow_the_rules),
        cmocka_unit_test(a_lock_is_held_until_closed_or_cut),
        cmocka_unit_test(only_synced_state_survives_the_worst_cut),
        cmocka_unit_test(a_killed_process_leaves_its_writes),
        cmocka_unit_test(cuts_tear_at_sectors_and_renames_are_atomic),
        cmocka_unit_test(a_failed_sync_drops_what_was_dirty),
        cmocka_unit_test(calls_fail_as_armed),
        cmocka_unit_test(bytes_rot_go_astray_and_come_back_stale),
        cmocka_unit_test(space_is_bounded_and_comes_back),
        cmocka_unit_test(no_acknowledged_record_is_lost_wherever_the_power_is_cut),
        cmocka_unit_test(random_histories_agree_with_the_model_and_repeat),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(threads_may_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
