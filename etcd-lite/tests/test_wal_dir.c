/* test_wal_dir.c - the log in a directory of its own: a member never starts without its log, or
 * with another's.
 *
 * Method: every row of the table at the top of wal_dir.c in a file system in memory, whose every
 * call fails once, or loses its power. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "identity.h"
#include "sim/vfs_mem.h"
#include "wal_dir.h"

static struct bns_vfs *begin(void)
{
    struct bns_vfs *vfs = NULL;

    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &vfs), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(vfs, "d", NULL), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(vfs, ".", NULL), BNS_OK);
    return vfs;
}

static void put(struct bns_vfs *vfs, const char *path, const char *text)
{
    const struct bns_slice v = bns_slice_str(text);
    struct bns_file *f = NULL;

    assert_int_equal(bns_vfs_open(vfs, path, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, NULL), BNS_OK);
    assert_int_equal(bns_file_write_at(f, 0, &v, 1, NULL), BNS_OK);
    assert_int_equal(bns_file_sync(f, false, NULL), BNS_OK);
    bns_file_close(f);
}

static bool there(struct bns_vfs *vfs, const char *path)
{
    struct bns_file_stat st;

    return bns_vfs_stat(vfs, path, &st, NULL) == BNS_OK;
}

/* The log, as far as this module looks at it. */
static void log_at(struct bns_vfs *vfs, const char *dir)
{
    char path[64];

    (void)snprintf(path, sizeof path, "%s/wal-0000000000000001.log", dir);
    put(vfs, path, "x");
    assert_int_equal(bns_vfs_sync_dir(vfs, dir, NULL), BNS_OK);
}

static void move(struct bns_vfs *vfs, const char *from, const char *to, const char *name)
{
    char a[64], b[64];

    (void)snprintf(a, sizeof a, "%s/%s", from, name);
    (void)snprintf(b, sizeof b, "%s/%s", to, name);
    assert_int_equal(bns_vfs_rename(vfs, a, b, NULL), BNS_OK);
}

static void move_log(struct bns_vfs *vfs, const char *from, const char *to)
{
    assert_int_equal(bns_vfs_mkdir(vfs, to, NULL), BNS_OK);
    move(vfs, from, to, "wal-0000000000000001.log");
}

static const char identity[] = "etcd-lite format 1\ncluster 0000000000000001\nmember "
                               "0000000000000002\n";

/* NULL: it is opened, at this path; and it is unlocked again. */
static void opens(struct bns_vfs *vfs, const char *wal_dir, uint64_t member, const char *refusal)
{
    const struct etcd_wal_dir w = {
        .data_dir = "d", .wal_dir = wal_dir, .cluster_id = 1, .member_id = member};
    struct bns_file *lock = NULL;
    struct bns_err err = {0};
    char dir[BNS_PATH_MAX];
    int rv = etcd_wal_dir_open(vfs, &w, dir, &lock, &err);

    if (refusal == NULL) {
        if (rv != BNS_OK)
            fail_msg("%s", err.text);
        assert_string_equal(dir, wal_dir == NULL || *wal_dir == '\0' ? "d/wal" : wal_dir);
        assert_true(there(vfs, dir));
    } else {
        assert_int_not_equal(rv, BNS_OK);
        if (strstr(err.text, refusal) == NULL)
            fail_msg("%s\ninstead of: %s", err.text, refusal);
        assert_null(lock);
    }
    bns_file_close(lock);
}

static void a_first_start_takes_an_empty_directory(void **state)
{
    static const char *const dirs[] = {NULL, "", "w", "w/deep/er", "d/wal", "d/member/wal"};
    (void)state;

    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        struct bns_vfs *vfs = begin();

        opens(vfs, dirs[i], 2, NULL);
        opens(vfs, dirs[i], 2, NULL); /* a crash before the log was there */
        log_at(vfs, dirs[i] == NULL || *dirs[i] == '\0' ? "d/wal" : dirs[i]);
        opens(vfs, dirs[i], 2, NULL);
        assert_int_equal(there(vfs, "d/wal-dir"), i == 2 || i == 3 || i == 5);
        bns_vfs_mem_free(vfs);
    }
}

static void a_member_does_not_start_without_its_log(void **state)
{
    struct bns_vfs *vfs = begin();
    (void)state;

    opens(vfs, NULL, 2, NULL);
    log_at(vfs, "d/wal");
    opens(vfs, "w", 2, "--wal-dir w: the log of this member is in d/wal: move what is there");
    opens(vfs, NULL, 2, NULL);
    bns_vfs_mem_free(vfs);

    vfs = begin();
    opens(vfs, "w", 2, NULL);
    log_at(vfs, "w");
    opens(vfs, NULL, 2, "d: the log of this member is in w: start it with --wal-dir");
    opens(vfs, "d/wal", 2, "d: the log of this member is in w: start it with --wal-dir");
    opens(vfs, "v", 2, "--wal-dir v: the log of this member is in w: use that, or move");
    opens(vfs, "w", 2, NULL);
    move_log(vfs, "w", "gone");
    move(vfs, "w", "gone", "identity");
    opens(vfs, "w", 2, "--wal-dir w: the log of this member was there, and is gone");
    assert_int_equal(bns_vfs_remove(vfs, "w/LOCK", NULL), BNS_OK);
    assert_int_equal(bns_vfs_remove(vfs, "w", NULL), BNS_OK);
    opens(vfs, "w", 2, "--wal-dir: the log of this member was there, and is gone");
    bns_vfs_mem_free(vfs);
}

static void a_log_may_be_moved(void **state)
{
    struct bns_vfs *vfs = begin();
    (void)state;

    opens(vfs, NULL, 2, NULL);
    log_at(vfs, "d/wal");
    move_log(vfs, "d/wal", "w");
    opens(vfs, "w", 2, "does not say whose it is: if it is this member's, copy d/identity");
    put(vfs, "w/identity", identity);
    opens(vfs, "w", 2, NULL);
    move_log(vfs, "w", "v");
    opens(vfs, "v", 2, "does not say whose it is");
    move(vfs, "w", "v", "identity");
    opens(vfs, "v", 2, NULL);
    opens(vfs, "w", 2, "the log of this member is in v");
    move_log(vfs, "v", "d/wal");
    opens(vfs, NULL, 2, "the log of this member is in v");
    move(vfs, "v", "d/wal", "identity");
    opens(vfs, NULL, 2, NULL);
    assert_false(there(vfs, "d/wal-dir"));
    opens(vfs, NULL, 2, NULL);
    bns_vfs_mem_free(vfs);
}

static void a_log_has_one_member_and_one_process(void **state)
{
    const struct etcd_wal_dir w = {
        .data_dir = "d", .wal_dir = "w", .cluster_id = 1, .member_id = 2};
    struct bns_file *lock = NULL;
    struct bns_vfs *vfs = begin();
    char dir[BNS_PATH_MAX];
    (void)state;

    assert_int_equal(etcd_wal_dir_open(vfs, &w, dir, &lock, NULL), BNS_OK);
    opens(vfs, "w", 2, "--wal-dir in use");
    bns_file_close(lock);
    opens(vfs, "w", 3, "--wal-dir w: the log of another member is there");
    log_at(vfs, "w");
    opens(vfs, "w", 3, "--wal-dir w: the log of another member is there");
    opens(vfs, "w", 2, NULL);
    bns_vfs_mem_free(vfs);
}

static void damage_is_named(void **state)
{
    static const char *const notes[] = {"", "\n", "w", "w\n\n"};
    (void)state;

    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        struct bns_vfs *vfs = begin();

        put(vfs, "d/wal-dir", notes[i]);
        opens(vfs, "w", 2, i < 3 ? "d/wal-dir: damaged" : "");
        bns_vfs_mem_free(vfs);
    }
}

/* Goal: whichever call fails, or is the last before the power goes: the same start goes well, and a
 * start that names another place never finds the log that this one has written missing. */
static void no_failure_loses_the_place(void **state)
{
    (void)state;

    for (size_t way = 0; way < 2; way++) {
        bool fired = true;

        for (uint64_t n = 1; fired; n++) {
            const struct etcd_wal_dir w = {
                .data_dir = "d", .wal_dir = "w/x", .cluster_id = 1, .member_id = 2};
            struct bns_vfs *vfs = begin();
            struct bns_file *lock = NULL;
            char dir[BNS_PATH_MAX];
            int rv;

            bns_vfs_mem_fail_at(vfs, n, way == 0 ? BNS_VFAULT_EIO : BNS_VFAULT_POWER);
            rv = etcd_wal_dir_open(vfs, &w, dir, &lock, NULL);
            fired = bns_vfs_mem_fired(vfs);
            assert_true(fired || rv == BNS_OK);
            bns_vfs_mem_fail_at(vfs, 0, BNS_VFAULT_NONE);
            bns_file_close(lock);
            if (way == 1) {
                if (!bns_vfs_mem_is_off(vfs))
                    bns_vfs_mem_power_cut(vfs, NULL);
                bns_vfs_mem_power_on(vfs);
            }
            if (rv == BNS_OK) { /* a log may have been written since */
                opens(vfs, NULL, 2, "the log of this member is in w/x");
                opens(vfs, "v", 2, "the log of this member is in w/x");
            }
            opens(vfs, "w/x", 2, NULL);
            bns_vfs_mem_free(vfs);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_start_takes_an_empty_directory),
        cmocka_unit_test(a_member_does_not_start_without_its_log),
        cmocka_unit_test(a_log_may_be_moved),
        cmocka_unit_test(a_log_has_one_member_and_one_process),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(no_failure_loses_the_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
