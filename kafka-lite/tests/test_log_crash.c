/* test_log_crash.c - a log on a disk that fails: power cuts, kills and errors at every operation of
 * the file system; cuts and flips of every byte of its files. Compared with a model. */
#include "log_kit.h"

#define ROUNDS 3 /* seeds of every sweep */

/* Appends, flushes, rolls, truncates, retains, stops and starts again, until something fails. The
 * model keeps what must be there. */
static int life(struct kit *k, struct bns_vfs *v, const struct kafka_log_cfg *cfg,
                struct kafka_log **log)
{
    bool clean = false;
    int rv = BNS_OK;

    for (int day = 0; rv == BNS_OK && day < 3; day++) {
        rv = kit_open(v, cfg, clean, NULL, log);
        for (int i = 0; rv == BNS_OK && i < 30; i++) {
            rv = kit_append(k, *log, day);
            if (rv == BNS_OK && i % 4 == 3)
                rv = kit_flush(k, *log);
        }
        clean = day == 1;
        if (rv == BNS_OK && clean) {
            rv = kafka_log_seal(*log, NULL);
            k->flushed = rv == BNS_OK ? k->count : k->flushed;
        }
        if (rv == BNS_OK) {
            kafka_log_close(*log);
            *log = NULL;
        }
    }
    return rv;
}

/* After the failure: opens, compares, goes on. */
static void check_after(struct kit *k, struct bns_vfs *v, const struct kafka_log_cfg *cfg,
                        uint64_t at)
{
    struct kafka_log *log = NULL;
    int rv = kit_open(v, cfg, false, NULL, &log), n;

    if (rv != BNS_OK)
        fail_msg("operation %llu: the log does not open: %d", (unsigned long long)at, rv);
    n = kit_compare(k, log);
    if (n < (int)k->flushed)
        fail_msg("operation %llu: %d batches are there, %zu were flushed, %zu appended",
                 (unsigned long long)at, n, k->flushed, k->count);
    assert_true(kit_finds(k, log, (size_t)n));
    k->count = (size_t)n;
    k->maybe = false;
    k->end = n == 0 ? 0 : k->at[n - 1].last + 1;
    assert_int_equal(kafka_log_end(log), k->end);
    for (int i = 0; i < 10; i++)
        assert_int_equal(kit_append(k, log, 5), BNS_OK);
    assert_int_equal(kit_compare(k, log), (int)k->count);
    kafka_log_close(log);
}

/* One failure of this kind at operation `at`; false: the life ended before. */
static bool run(enum bns_vfs_mem_fault kind, uint64_t at, uint64_t seed,
                const struct kafka_log_cfg *cfg)
{
    struct bns_vfs *v = kit_vfs(seed);
    struct kafka_log *log = NULL;
    static struct kit k;
    bool fired;
    int rv;

    k = (struct kit){0};
    bns_vfs_mem_fail_at(v, at, kind);
    rv = life(&k, v, cfg, &log);
    fired = bns_vfs_mem_fired(v);
    assert_true(fired || rv == BNS_OK);
    kafka_log_close(log);
    bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
    if (bns_vfs_mem_is_off(v))
        bns_vfs_mem_power_on(v);
    bns_vfs_mem_drop_handles(v);
    check_after(&k, v, cfg, at);
    bns_vfs_mem_free(v);
    return fired;
}

static void sweep(enum bns_vfs_mem_fault kind, uint32_t rounds)
{
    struct kafka_log_cfg cfg = kit_cfg();
    uint64_t at = 1;

    for (uint64_t seed = 1; seed <= rounds; seed++)
        for (at = 1; run(kind, at, seed, &cfg); at++)
            ;
    print_message("  %llu operations\n", (unsigned long long)at - 1);
}

static void a_power_cut_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_POWER, ROUNDS);
}

static void a_kill_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_KILL, 1);
}

static void an_error_of_the_disk_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_EIO, 1);
}

static void a_full_disk_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_NOSPACE, 1);
}

static void a_short_write_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(BNS_VFAULT_SHORT, 1);
}

/* An append that found no room has left nothing behind, and the next one finds its place. */
static void a_full_disk_refuses_and_the_log_goes_on(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;
    uint64_t at;

    (void)state;
    for (at = 1;; at++) {
        struct bns_vfs *v = kit_vfs(at);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        uint32_t refused = 0;
        bool fired;
        k = (struct kit){0};
        bns_vfs_mem_fail_on(v, BNS_VOP_WRITE | BNS_VOP_OPEN, NULL, at,
                            at % 2 == 0 ? BNS_VFAULT_NOSPACE : BNS_VFAULT_SHORT);
        for (int i = 0; i < 40; i++)
            refused += kit_append(&k, log, i / 10) != BNS_OK;
        fired = bns_vfs_mem_fired(v);
        assert_true(refused <= 1);
        assert_false(kafka_log_failed(log));
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        assert_int_equal(kit_flush(&k, log), BNS_OK);
        bns_vfs_mem_power_cut(v, NULL);
        kafka_log_close(log);
        bns_vfs_mem_power_on(v);
        check_after(&k, v, &cfg, at);
        bns_vfs_mem_free(v);
        if (!fired)
            break;
    }
    assert_true(at > 40);
}

static void a_sync_that_failed_fails_the_log(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    static struct kit k;

    (void)state;
    k = (struct kit){0};
    assert_int_equal(kit_append(&k, log, 0), BNS_OK);
    bns_vfs_mem_fail_on(v, BNS_VOP_SYNC, NULL, 1, BNS_VFAULT_EIO);
    assert_int_equal(kit_flush(&k, log), BNS_E_IO);
    assert_true(kafka_log_failed(log));
    assert_int_equal(kit_flush(&k, log), BNS_E_IO);
    assert_int_equal(kit_append(&k, log, 0), BNS_E_IO);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* ---- planted bugs ---------------------------------------------------------------------------- */

/* Is a bug of the log seen by the same sweep? Without check_after's assertions, which would end the
 * test: only what was flushed and is gone counts. */
static bool loses_flushed(uint32_t mutant)
{
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;
    bool lost = false;

    cfg.mutant = mutant;
    for (uint64_t at = 1; !lost && at < 400; at++) {
        struct bns_vfs *v = kit_vfs(at);
        struct kafka_log *log = NULL;
        k = (struct kit){0};
        bns_vfs_mem_fail_at(v, at, BNS_VFAULT_POWER);
        (void)life(&k, v, &cfg, &log); /* it ends with the power */
        kafka_log_close(log);
        bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
        if (bns_vfs_mem_is_off(v))
            bns_vfs_mem_power_on(v);
        bns_vfs_mem_drop_handles(v);
        log = NULL;
        lost =
            kit_open(v, &cfg, false, NULL, &log) != BNS_OK || kit_compare(&k, log) < (int)k.flushed;
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
    return lost;
}

static void planted_bugs_are_found_by_the_sweep(void **state)
{
    (void)state;
    assert_true(loses_flushed(1));  /* a new segment before the old one is synced */
    assert_true(loses_flushed(2));  /* a flush that syncs nothing */
    assert_false(loses_flushed(0)); /* none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_keeps_every_flushed_batch),
        cmocka_unit_test(a_kill_keeps_every_flushed_batch),
        cmocka_unit_test(an_error_of_the_disk_keeps_every_flushed_batch),
        cmocka_unit_test(a_full_disk_keeps_every_flushed_batch),
        cmocka_unit_test(a_short_write_keeps_every_flushed_batch),
        cmocka_unit_test(a_full_disk_refuses_and_the_log_goes_on),
        cmocka_unit_test(a_sync_that_failed_fails_the_log),
        cmocka_unit_test(planted_bugs_are_found_by_the_sweep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
