/* test_log_crash.c - a log on a disk that fails: power cuts, kills and errors at every operation of
 * the file system; cuts and flips of every byte of its files. Compared with a model. */
#include "log_kit.h"

#define ROUNDS 3 /* seeds of a sweep */
/* Operations that there have to be, so that no sweep ends early unseen. */
#define LIFE_OPS 280
#define TRIMS_OPS 500
#define FOLLOWS_OPS 300

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

/* Truncates to before the model's last batches. */
static int cut_end(struct kit *k, struct kafka_log *log, size_t batches)
{
    size_t kept = k->count - batches;
    int rv;

    k->flushed = kept < k->flushed ? kept : k->flushed;
    rv = kafka_log_truncate(log, k->at[kept].first, NULL);
    if (rv == BNS_OK) {
        k->end = k->at[kept].first;
        k->count = k->flushed = kept;
        k->salt += 100;
    }
    return rv;
}

/* Removes old segments, moves the start, unlinks what was removed. */
static int cut_begin(struct kit *k, struct kafka_log *log)
{
    struct kafka_retention r = {.time_ms = -1,
                                .bytes = (int64_t)kafka_log_bytes(log) / 2,
                                .high_watermark = k->end,
                                .now_ms = KIT_TIME};
    uint32_t removed = 0;
    int rv = kafka_log_retain(log, &r, &removed, NULL);

    if (rv == BNS_OK) {
        k->begin = kafka_log_begin(log);
        rv = kafka_log_advance(log, k->at[k->count - 1].first, NULL);
    }
    return rv == BNS_OK ? kafka_log_purge(log, NULL) : rv;
}

static int restart(struct kit *k, struct kafka_log *log)
{
    int rv;

    k->restart = k->end + 7;
    k->flushed = 0;
    rv = kafka_log_restart(log, k->restart, KIT_TIME, NULL);
    if (rv == BNS_OK) {
        k->begin = k->end = k->restart;
        k->flushed = k->count;
        k->restart = 0;
    }
    return rv;
}

/* The same as life(), of a log that becomes shorter at both ends. */
static int trims(struct kit *k, struct bns_vfs *v, const struct kafka_log_cfg *cfg,
                 struct kafka_log **log)
{
    int rv = BNS_OK;

    for (int day = 0; rv == BNS_OK && day < 3; day++) {
        rv = kit_open(v, cfg, false, NULL, log);
        for (int part = 0; rv == BNS_OK && part < 3; part++) {
            for (int i = 0; rv == BNS_OK && i < 14; i++)
                rv = kit_append(k, *log, day);
            if (rv == BNS_OK && part != 1)
                rv = kit_flush(k, *log);
            if (rv == BNS_OK && part < 2)
                rv = cut_end(k, *log, part == 0 ? 10 : 3);
            if (rv == BNS_OK && part == 1)
                rv = cut_begin(k, *log);
        }
        if (rv == BNS_OK && day == 1)
            rv = restart(k, *log);
        if (rv == BNS_OK) {
            kafka_log_close(*log);
            *log = NULL;
        }
    }
    return rv;
}

/* A follower's, of a topic that is compacted: gaps, some of which are too wide for a segment, with
 * records behind them or none before. */
static int follows(struct kit *k, struct bns_vfs *v, const struct kafka_log_cfg *cfg,
                   struct kafka_log **log)
{
    int rv = BNS_OK;

    for (int day = 0; rv == BNS_OK && day < 3; day++) {
        rv = kit_open(v, cfg, false, NULL, log);
        for (int i = 0; rv == BNS_OK && i < 20; i++) {
            bool wide = i % 7 == 0;
            if (wide && i % 2 == 0)
                rv = kafka_log_roll(*log, KIT_TIME, NULL);
            if (rv == BNS_OK)
                rv = kit_follow(k, *log, k->end + (wide ? INT64_C(1) << 31 : i % 3 * 5));
            if (rv == BNS_OK && i % 4 == 3)
                rv = kit_flush(k, *log);
        }
        if (rv == BNS_OK) {
            kafka_log_close(*log);
            *log = NULL;
        }
    }
    return rv;
}

/* Is the log as long as the model says, when it has its first n batches? */
static bool ends_right(const struct kit *k, const struct kafka_log *log, size_t n)
{
    int64_t end = kafka_log_end(log), begin = kafka_log_begin(log);
    int64_t want = n == 0 ? 0 : k->at[n - 1].last + 1;

    if (k->restart > 0 && begin == end && (end == 0 || end == k->restart))
        return true; /* everything was dropped, and then the new segment made, or not */
    if (n < k->count + k->maybe && end == k->at[n].first && begin >= k->begin)
        return true; /* the gap before it was taken alone */
    return end == (want > k->begin ? want : k->begin) && begin >= k->begin;
}

/* After the failure: opens, compares, goes on. Then the power goes, with all that is not synced. */
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
    if (!ends_right(k, log, (size_t)n))
        fail_msg("operation %llu: [%lld, %lld) of %d batches", (unsigned long long)at,
                 (long long)kafka_log_begin(log), (long long)kafka_log_end(log), n);
    assert_true(kit_finds(k, log, (size_t)n, false));
    k->count = (size_t)n;
    k->maybe = false;
    k->end = kafka_log_end(log);
    for (int i = 0; i < 10; i++)
        assert_int_equal(kit_append(k, log, 5), BNS_OK);
    assert_int_equal(kit_compare(k, log), (int)k->count);
    assert_int_equal(kit_flush(k, log), BNS_OK);
    bns_vfs_mem_power_cut(v, NULL);
    kafka_log_close(log);
    bns_vfs_mem_power_on(v);
    log = kit_opened(v, cfg, false);
    assert_int_equal(kafka_log_end(log), k->end);
    assert_int_equal(kit_compare(k, log), (int)k->count);
    kafka_log_close(log);
}

typedef int life_fn(struct kit *k, struct bns_vfs *v, const struct kafka_log_cfg *cfg,
                    struct kafka_log **log);

/* The machine is up again, and nothing fails any more. */
static void mend(struct bns_vfs *v)
{
    bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
    if (bns_vfs_mem_is_off(v))
        bns_vfs_mem_power_on(v);
    bns_vfs_mem_drop_handles(v);
}

/* Asks for everything; whatever the log has been through, it comes back. */
static void probe(struct kafka_log *log)
{
    struct kafka_want want = {.below = INT64_MAX, .bytes_max = 300, .one_at_least = true};
    struct kafka_range range;
    struct kafka_found found;
    struct bns_buf b;

    if (log == NULL)
        return;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (want.offset = 0; want.offset <= kafka_log_end(log) && want.offset < 900;
         want.offset += 5) {
        bns_buf_clear(&b);
        if (kafka_log_read(log, &want, &range, NULL) == BNS_OK &&
            kafka_log_load(log, &range, &b, NULL) == BNS_OK)
            assert_int_equal(b.len, range.len);
    }
    for (size_t n = 0; n < 90; n += 20)
        if (kafka_log_offset_for_time(log, kit_time(n), &found, NULL) == BNS_OK)
            assert_true(found.offset >= kafka_log_begin(log));
    assert_true(kafka_log_segments(log) > 0);
    if (kafka_log_failed(log))
        assert_int_equal(kafka_log_flush(log, NULL), BNS_E_IO);
    bns_buf_free(&b);
}

static struct kafka_log_cfg cfg_of(life_fn *fn)
{
    struct kafka_log_cfg cfg = kit_cfg();

    cfg.compacted = fn == follows;
    return cfg;
}

/* A life with a failure of this kind at operation `at`; false: it ended before. */
static bool break_at(struct kit *k, struct bns_vfs *v, life_fn *fn, uint64_t at,
                     enum bns_vfs_mem_fault kind)
{
    struct kafka_log_cfg cfg = cfg_of(fn);
    struct kafka_log *log = NULL;
    bool fired;
    int rv;

    *k = (struct kit){0};
    bns_vfs_mem_fail_at(v, at, kind);
    rv = fn(k, v, &cfg, &log);
    fired = bns_vfs_mem_fired(v);
    assert_true(fired || rv == BNS_OK);
    probe(log);
    kafka_log_close(log);
    mend(v);
    return fired;
}

static void sweep(life_fn *fn, enum bns_vfs_mem_fault kind, uint32_t rounds, uint64_t ops_min)
{
    struct kafka_log_cfg cfg = cfg_of(fn);
    static struct kit k;
    bool fired = true;
    uint64_t at = 1;

    for (uint64_t seed = 1; seed <= rounds; seed++)
        for (at = 1, fired = true; fired; at++) {
            struct bns_vfs *v = kit_vfs(seed);
            fired = break_at(&k, v, fn, at, kind);
            check_after(&k, v, &cfg, at);
            bns_vfs_mem_free(v);
        }
    print_message("  %llu operations\n", (unsigned long long)at - 2);
    assert_true(at - 2 >= ops_min);
}

static void a_power_cut_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(life, BNS_VFAULT_POWER, ROUNDS, LIFE_OPS);
    sweep(trims, BNS_VFAULT_POWER, ROUNDS, TRIMS_OPS);
    sweep(follows, BNS_VFAULT_POWER, 1, FOLLOWS_OPS);
}

static void a_kill_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(life, BNS_VFAULT_KILL, 1, LIFE_OPS);
    sweep(trims, BNS_VFAULT_KILL, 1, TRIMS_OPS);
    sweep(follows, BNS_VFAULT_KILL, 1, FOLLOWS_OPS);
}

static void an_error_of_the_disk_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(life, BNS_VFAULT_EIO, 1, LIFE_OPS);
    sweep(trims, BNS_VFAULT_EIO, 1, TRIMS_OPS);
    sweep(follows, BNS_VFAULT_EIO, 1, FOLLOWS_OPS);
}

static void a_full_disk_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(life, BNS_VFAULT_NOSPACE, 1, LIFE_OPS);
    sweep(trims, BNS_VFAULT_NOSPACE, 1, TRIMS_OPS);
    sweep(follows, BNS_VFAULT_NOSPACE, 1, FOLLOWS_OPS);
}

static void a_short_write_keeps_every_flushed_batch(void **state)
{
    (void)state;
    sweep(life, BNS_VFAULT_SHORT, 1, LIFE_OPS);
}

/* The log is stopped somewhere, and its recovery fails at every operation: the next one mends it.
 */
static void a_recovery_that_fails_is_mended_by_the_next_one(void **state)
{
    static const enum bns_vfs_mem_fault kinds[] = {BNS_VFAULT_POWER, BNS_VFAULT_KILL,
                                                   BNS_VFAULT_EIO, BNS_VFAULT_NOSPACE};
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;
    uint64_t opens = 0, ops = 0;

    (void)state;
    for (uint64_t first = 5; first < LIFE_OPS; first += 29, opens++) {
        bool fired = true;
        for (uint64_t at = 1; fired; at++) {
            struct bns_vfs *v = kit_vfs(first + at);
            struct kafka_log *log = NULL;
            assert_true(break_at(&k, v, first % 2 == 0 ? life : trims, first, kinds[at % 2]));
            bns_vfs_mem_fail_at(v, at, kinds[(first + at / 2) % 4]);
            if (kit_open(v, &cfg, false, NULL, &log) == BNS_OK)
                kafka_log_close(log);
            fired = bns_vfs_mem_fired(v);
            mend(v);
            check_after(&k, v, &cfg, at);
            bns_vfs_mem_free(v);
            ops += fired;
        }
    }
    print_message("  %llu operations\n", (unsigned long long)ops);
    assert_true(ops > 12 * opens);
}

/* Without memory nothing is lost, and nothing leaks. */
static void an_allocation_that_fails_keeps_every_flushed_batch(void **state)
{
    life_fn *const fns[] = {life, trims};
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        bool fired = true;
        int at;
        for (at = 1; fired; at++) {
            struct bns_vfs *v = kit_vfs(1);
            struct bns_test_heap *h = bns_test_heap(at);
            struct kafka_log *log = NULL;
            int rv;
            k = (struct kit){0};
            kit_heap = bns_test_heap_alloc(h);
            rv = fns[i](&k, v, &cfg, &log);
            probe(log);
            kafka_log_close(log);
            kit_heap = NULL;
            assert_int_equal(bns_test_heap_close(h, &fired), 0);
            assert_true(fired || rv == BNS_OK);
            check_after(&k, v, &cfg, (uint64_t)at);
            bns_vfs_mem_free(v);
        }
        print_message("  %d allocations\n", at - 2);
        assert_true(at > 40);
    }
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
 * test: only what was said to be durable and is gone counts. */
static bool loses_flushed(uint32_t mutant, enum bns_vfs_mem_fault kind)
{
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;
    bool lost = false;

    cfg.mutant = mutant;
    for (uint64_t at = 1; !lost && at < 400; at++) {
        struct bns_vfs *v = kit_vfs(at);
        struct kafka_log *log = NULL;
        k = (struct kit){0};
        bns_vfs_mem_fail_at(v, at, kind);
        if (life(&k, v, &cfg, &log) == BNS_OK) /* it ends with the fault, or before */
            bns_vfs_mem_kill(v);
        kafka_log_close(log);
        mend(v);
        log = NULL;
        lost =
            kit_open(v, &cfg, false, NULL, &log) != BNS_OK || kit_compare(&k, log) < (int)k.flushed;
        if (!lost) { /* and now all that was found is durable, and what is flushed behind it */
            k.count = k.flushed = (size_t)kit_compare(&k, log);
            k.end = kafka_log_end(log);
            k.maybe = false;
            for (int32_t epoch = 0; epoch < 3; epoch++) /* a new one would sync the directory */
                if (kit_append(&k, log, epoch) == BNS_OK)
                    break;
            k.maybe = kit_flush(&k, log) != BNS_OK;
            bns_vfs_mem_power_cut(v, NULL);
            kafka_log_close(log);
            mend(v);
            log = NULL;
            lost = kit_open(v, &cfg, false, NULL, &log) != BNS_OK ||
                   kit_compare(&k, log) < (int)k.flushed;
        }
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
    return lost;
}

static void planted_bugs_are_found_by_the_sweep(void **state)
{
    (void)state;
    assert_true(loses_flushed(1, BNS_VFAULT_POWER)); /* a new segment, the old one not synced */
    assert_true(loses_flushed(2, BNS_VFAULT_POWER)); /* a flush that syncs nothing */
    assert_true(loses_flushed(3, BNS_VFAULT_KILL));  /* a recovery that does not sync bytes */
    assert_true(loses_flushed(4, BNS_VFAULT_KILL));  /* nor names */
    assert_false(loses_flushed(0, BNS_VFAULT_POWER));
    assert_false(loses_flushed(0, BNS_VFAULT_KILL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_keeps_every_flushed_batch),
        cmocka_unit_test(a_kill_keeps_every_flushed_batch),
        cmocka_unit_test(an_error_of_the_disk_keeps_every_flushed_batch),
        cmocka_unit_test(a_full_disk_keeps_every_flushed_batch),
        cmocka_unit_test(a_short_write_keeps_every_flushed_batch),
        cmocka_unit_test(an_allocation_that_fails_keeps_every_flushed_batch),
        cmocka_unit_test(a_recovery_that_fails_is_mended_by_the_next_one),
        cmocka_unit_test(a_full_disk_refuses_and_the_log_goes_on),
        cmocka_unit_test(a_sync_that_failed_fails_the_log),
        cmocka_unit_test(planted_bugs_are_found_by_the_sweep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
