/* test_log_mend.c - what is left of a log after a stop in the wrong moment, an error in the wrong
 * place and bytes of the wrong kind: one test for each defect that was found in it. */
#include "log_kit.h"

#include "base/crc32c.h"
#include "base/varint.h"

static struct kit k;

static void any(int rv) /* what a call says is not the point: that it comes back is */
{
    (void)rv;
}

static void fill(struct kafka_log *log, size_t batches)
{
    for (size_t i = 0; i < batches; i++)
        assert_int_equal(kit_append(&k, log, 0), BNS_OK);
}

static void stop(struct kafka_log *log, struct bns_vfs *v, bool power)
{
    if (power)
        bns_vfs_mem_power_cut(v, NULL); /* nothing that was not synced survives */
    else
        bns_vfs_mem_kill(v);
    kafka_log_close(log);
    bns_vfs_mem_power_on(v);
}

static bool exists(struct bns_vfs *v, const char *name)
{
    struct bns_file_stat st;
    char path[BNS_PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", KIT_DIR, name);
    return bns_vfs_stat(v, path, &st, NULL) == BNS_OK;
}

/* ---- durable after an open ------------------------------------------------------------------- */

static void what_a_kill_left_is_durable_once_it_is_opened(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);

    (void)state;
    bns_vfs_mem_config(v)->writeback = 0;
    k = (struct kit){0};
    fill(log, 7);
    stop(log, v, false);
    log = kit_opened(v, &cfg, false);
    assert_int_equal(kafka_log_end(log), k.end);
    assert_int_equal(kafka_log_flushed(log), k.end);
    stop(log, v, true);
    log = kit_opened(v, &cfg, false);
    assert_int_equal(kit_compare(&k, log), 7);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* A sync that failed may leave bytes in the cache that pass for written: see recover.c. */
static void what_a_failed_sync_left_is_durable_once_it_is_opened(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    int kept = 0;

    (void)state;
    for (uint64_t seed = 1; seed < 30; seed++) {
        struct bns_vfs *v = kit_vfs(seed);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        struct kafka_log_start start = {
            .vfs = v, .alloc = bns_alloc_libc(), .dir = KIT_DIR, .cfg = &cfg};
        int n;
        bns_vfs_mem_config(v)->writeback = 0;
        k = (struct kit){0};
        fill(log, 3);
        assert_int_equal(kit_flush(&k, log), BNS_OK);
        start.recovery_point = kafka_log_flushed(log);
        fill(log, 4);
        bns_vfs_mem_fail_on(v, BNS_VOP_SYNC, NULL, 1, BNS_VFAULT_EIO);
        assert_int_equal(kit_flush(&k, log), BNS_E_IO);
        stop(log, v, false);
        assert_int_equal(kafka_log_open(&start, NULL, &log, NULL), BNS_OK);
        assert_int_equal(kafka_log_flushed(log), kafka_log_end(log));
        n = kit_compare(&k, log);
        kept += n == 7;
        stop(log, v, true);
        log = kit_opened(v, &cfg, false);
        assert_int_equal(kit_compare(&k, log), n);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
    assert_true(kept > 3);
}

/* Killed between the making of a file, or its renaming, and the sync of the directory. */
static void names_that_a_kill_left_are_durable_once_they_are_opened(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct bns_vfs *v = kit_vfs(seed);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        int rv = BNS_OK;
        bns_vfs_mem_config(v)->writeback = 0;
        k = (struct kit){0};
        fill(log, 5);
        bns_vfs_mem_fail_on(v, BNS_VOP_SYNC_DIR, NULL, 1, BNS_VFAULT_KILL);
        while (rv == BNS_OK)
            rv = kit_append(&k, log, 0);
        k.maybe = false;
        kafka_log_close(log);
        bns_vfs_mem_power_on(v);
        log = kit_opened(v, &cfg, false);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        fill(log, 5);
        assert_int_equal(kit_flush(&k, log), BNS_OK);
        stop(log, v, true);
        log = kit_opened(v, &cfg, false);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

/* ---- empty segments -------------------------------------------------------------------------- */

static void a_new_segment_that_found_no_room_leaves_no_file(void **state)
{
    static const char *const names[] = {".log", ".index", ".timeindex"};
    struct kafka_log_cfg cfg = kit_cfg();

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct bns_vfs *v = kit_vfs(i + 1);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        char name[64];
        k = (struct kit){0};
        fill(log, 3);
        (void)snprintf(name, sizeof name, "%020lld.log", (long long)k.end);
        bns_vfs_mem_fail_on(v, BNS_VOP_OPEN, names[i], 1, BNS_VFAULT_NOSPACE);
        assert_int_equal(kafka_log_roll(log, KIT_TIME, NULL), BNS_E_NOSPACE);
        assert_false(kafka_log_failed(log));
        assert_false(exists(v, name));
        fill(log, 3);
        assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
        kafka_log_close(log);
        log = kit_opened(v, &cfg, true);
        assert_int_equal(kafka_log_end(log), k.end);
        assert_int_equal(kit_compare(&k, log), 6);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

static void an_empty_segment_inside_another_one_is_not_the_active_one(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();

    (void)state;
    for (int clean = 0; clean < 2; clean++) {
        struct bns_vfs *v = kit_vfs(1);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        struct kafka_log_report report;
        struct bns_file *f = NULL;
        char path[BNS_PATH_MAX];
        k = (struct kit){0};
        fill(log, 6);
        assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
        kafka_log_close(log);
        (void)snprintf(path, sizeof path, "%s/%020lld.log", KIT_DIR, (long long)k.at[3].first);
        assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_CREATE, &f, NULL), BNS_OK);
        bns_file_close(f);
        assert_int_equal(kit_open(v, &cfg, clean == 1, &report, &log), BNS_OK);
        assert_int_equal(report.segments_dropped, 1);
        assert_int_equal(kafka_log_end(log), k.end);
        fill(log, 3);
        assert_int_equal(kit_compare(&k, log), 9);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

static void an_empty_older_segment_does_not_stop_retention(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_retention r = {.time_ms = 1000, .bytes = -1, .now_ms = KIT_TIME * 2};
    struct bns_file *f = NULL;
    uint32_t removed = 0;

    (void)state;
    assert_int_equal(kafka_log_restart(log, 10, KIT_TIME, NULL), BNS_OK);
    k = (struct kit){.end = 10};
    fill(log, 40);
    assert_int_equal(kit_flush(&k, log), BNS_OK);
    kafka_log_close(log);
    assert_int_equal(
        bns_vfs_open(v, KIT_DIR "/00000000000000000003.log", BNS_OPEN_CREATE, &f, NULL), BNS_OK);
    bns_file_close(f);
    log = kit_opened(v, &cfg, false);
    assert_int_equal(kafka_log_begin(log), 3);
    assert_int_equal(kit_compare(&k, log), 40);
    r.high_watermark = k.end;
    assert_int_equal(kafka_log_retain(log, &r, &removed, NULL), BNS_OK);
    assert_true(removed > 3);
    assert_int_equal(kafka_log_begin(log), k.end);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* ---- errors in the wrong place --------------------------------------------------------------- */

/* A restart that fails at any operation leaves a log that answers, and refuses to be written. */
static void a_restart_that_fails_leaves_a_log_that_answers(void **state)
{
    static const enum bns_vfs_mem_fault kinds[] = {BNS_VFAULT_EIO, BNS_VFAULT_NOSPACE,
                                                   BNS_VFAULT_POWER};
    struct kafka_log_cfg cfg = kit_cfg();
    uint64_t at = 1;

    (void)state;
    for (size_t i = 0; i < 3; i++, assert_true(at > 10)) {
        bool fired = true;
        for (at = 1; fired; at++) {
            struct bns_vfs *v = kit_vfs(at);
            struct kafka_log *log = kit_opened(v, &cfg, false);
            struct kafka_want want = {.below = INT64_MAX, .bytes_max = 100};
            struct kafka_range range;
            struct kafka_found found;
            k = (struct kit){0};
            fill(log, 30);
            bns_vfs_mem_fail_at(v, at, kinds[i]);
            any(kafka_log_restart(log, 5000, KIT_TIME, NULL));
            fired = bns_vfs_mem_fired(v);
            assert_true(kafka_log_segments(log) > 0);
            for (want.offset = 0; want.offset < k.end; want.offset += 7)
                any(kafka_log_read(log, &want, &range, NULL));
            any(kafka_log_offset_for_time(log, KIT_TIME, &found, NULL));
            assert_true(kafka_log_bytes(log) < 1 << 20);
            if (!kafka_log_failed(log))
                assert_int_equal(kafka_log_end(log), 5000);
            else
                assert_int_equal(kit_append(&k, log, 0), BNS_E_IO);
            kafka_log_close(log);
            bns_vfs_mem_free(v);
        }
    }
}

/* Look-ups whose damaged index cannot be made anew fail, and go on when the disk does. */
static void an_index_that_could_not_be_made_anew_is_tried_again(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    bool fired = true;
    uint64_t at;

    (void)state;
    for (at = 1; fired; at++) {
        struct bns_vfs *v = kit_vfs(at);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        struct kafka_found found;
        k = (struct kit){0};
        fill(log, 60);
        assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
        assert_int_equal(kit_append(&k, log, 0), BNS_OK);
        for (int i = 0; i < 8; i++)
            assert_int_equal(bns_vfs_mem_flip(v, KIT_DIR "/00000000000000000000.index",
                                              (uint64_t)(i * 8 + 7), 3),
                             BNS_OK);
        bns_vfs_mem_fail_at(v, at, BNS_VFAULT_EIO);
        any(kafka_log_offset_for_time(log, k.at[20].max_time, &found, NULL));
        any(kafka_log_offset_for_time(log, k.at[5].max_time, &found, NULL));
        fired = bns_vfs_mem_fired(v);
        bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
        assert_true(kit_finds(&k, log, k.count, false));
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        assert_int_equal(kafka_log_flush(log, NULL), BNS_OK);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
    assert_true(at > 10);
}

/* The active segment's index rots; what is not synced yet is synced all the same. */
static void a_log_whose_index_cannot_be_mended_is_flushed(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    bool fired = true;
    uint64_t at;

    (void)state;
    cfg.segment_bytes = 1 << 20;
    for (at = 1; fired; at++) {
        struct bns_vfs *v = kit_vfs(at);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        struct kafka_found found;
        k = (struct kit){0};
        fill(log, 30);
        assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
        fill(log, 2);
        for (int i = 0; i < 8; i++)
            assert_int_equal(bns_vfs_mem_flip(v, KIT_DIR "/00000000000000000000.index",
                                              (uint64_t)(i * 8 + 7), 3),
                             BNS_OK);
        bns_vfs_mem_fail_at(v, at, BNS_VFAULT_EIO);
        any(kafka_log_offset_for_time(log, k.at[5].max_time, &found, NULL));
        fired = bns_vfs_mem_fired(v);
        bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
        assert_int_equal(kit_flush(&k, log), BNS_OK);
        stop(log, v, true);
        log = kit_opened(v, &cfg, false);
        assert_int_equal(kit_compare(&k, log), 32);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
    assert_true(at > 3);
}

/* ---- gaps between offsets -------------------------------------------------------------------- */

static void a_topic_that_is_not_compacted_any_more_keeps_its_batches(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log_report report;
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log;

    (void)state;
    cfg.compacted = true;
    log = kit_opened(v, &cfg, false);
    k = (struct kit){0};
    for (int i = 0; i < 60; i++)
        assert_int_equal(kit_follow(&k, log, k.end + i % 3 * 5), BNS_OK);
    assert_int_equal(kit_follow(&k, log, k.end), BNS_OK);
    assert_true(kafka_log_segments(log) > 3);
    assert_int_equal(kit_flush(&k, log), BNS_OK);
    stop(log, v, true);
    cfg.compacted = false;
    assert_int_equal(kit_open(v, &cfg, false, &report, &log), BNS_OK);
    assert_int_equal(report.bytes_cut, 0);
    assert_int_equal(kit_compare(&k, log), 61);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* Nothing follows the last batch: that its offset is right is known only up to the recovery point.
 */
static void a_last_batch_behind_a_gap_is_kept_before_the_recovery_point(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();

    (void)state;
    for (int known = 0; known < 2; known++) {
        struct bns_vfs *v = kit_vfs(1);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        struct kafka_log_start start = {
            .vfs = v, .alloc = bns_alloc_libc(), .dir = KIT_DIR, .cfg = &cfg};
        k = (struct kit){0};
        fill(log, 3);
        assert_int_equal(kit_follow(&k, log, k.end + 9), BNS_OK);
        assert_int_equal(kit_flush(&k, log), BNS_OK);
        start.recovery_point = known == 1 ? kafka_log_flushed(log) : 0;
        stop(log, v, false);
        assert_int_equal(kafka_log_open(&start, NULL, &log, NULL), BNS_OK);
        assert_int_equal(kit_compare(&k, log), 3 + known);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

static void offsets_far_apart_are_kept_in_segments_of_their_own(void **state)
{
    static const int64_t jumps[] = {INT64_C(1) << 31, INT32_MAX, INT64_C(1) << 33, 5};
    struct kafka_log_cfg cfg = kit_cfg();

    (void)state;
    cfg.compacted = true;
    for (int filled = 0; filled < 2; filled++) {
        struct bns_vfs *v = kit_vfs(1);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        k = (struct kit){0};
        if (filled == 1)
            fill(log, 3);
        for (size_t i = 0; i < 8; i++)
            assert_int_equal(kit_follow(&k, log, k.end + jumps[i % 4]), BNS_OK);
        fill(log, 3);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        assert_true(kit_finds(&k, log, k.count, false));
        assert_int_equal(kit_flush(&k, log), BNS_OK);
        stop(log, v, true);
        log = kit_opened(v, &cfg, false);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        assert_int_equal(kafka_log_begin(log), filled == 1 ? 0 : k.at[0].first);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

static void batches_too_far_apart_for_one_segment_are_refused(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_append how = {.follow = true};
    struct kafka_appended out;
    struct bns_buf b;
    size_t second;

    (void)state;
    k = (struct kit){0};
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(0, &b);
    second = b.len;
    kit_make(0, &b);
    kafka_batch_place(b.ptr + second, INT64_C(1) << 31, 0);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_TOOBIG);
    kafka_batch_place(b.ptr + second, INT32_MAX, 0);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    assert_int_equal(kafka_log_end(log), INT64_C(1) << 31);
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* ---- bytes of producers ---------------------------------------------------------------------- */

static void sum_again(struct bns_buf *b)
{
    bns_put_u32be(b->ptr + 17, bns_crc32c(0, b->ptr + 21, b->len - 21));
}

static void a_producer_appends_exactly_one_batch(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_append how = {.leader_epoch = 0};
    struct kafka_appended out;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(0, &b);
    kit_make(1, &b);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_INVALID);
    assert_int_equal(kafka_log_end(log), 0);
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

static void times_and_codecs_of_a_producer_are_checked(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_append how = {.leader_epoch = 0};
    struct kafka_appended out;
    struct kafka_found found;
    struct kafka_batch got;
    struct bns_slice in;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(1, &b); /* two records, the second a millisecond earlier */
    bns_put_u64be(b.ptr + 27, (uint64_t)INT64_MIN);
    sum_again(&b);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CORRUPT);
    how.follow = true; /* what a leader took is taken, and looked up without harm */
    kafka_batch_place(b.ptr, 0, 0);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    any(kafka_log_offset_for_time(log, 0, &found, NULL));
    for (uint8_t codec = 5; codec < 8; codec++)
        for (int follow = 0; follow < 2; follow++) {
            bns_buf_clear(&b);
            kit_make(1, &b);
            b.ptr[22] = codec;
            sum_again(&b);
            kafka_batch_place(b.ptr, kafka_log_end(log), 0);
            how.follow = follow == 1;
            assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CORRUPT);
        }
    how.follow = false;
    bns_buf_clear(&b);
    kit_make(1, &b);
    bns_put_u64be(b.ptr + 35, (uint64_t)KIT_TIME * 2); /* the head says what no record has */
    b.ptr[22] = KAFKA_ATTR_APPEND_TIME;
    sum_again(&b);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    assert_int_equal(out.max_time, kit_time(1));
    in = bns_buf_slice(&b);
    assert_int_equal(kafka_batch_next(&in, &got, NULL), BNS_OK);
    assert_true(kafka_batch_crc_ok(&got));
    assert_int_equal(got.attributes, 0);
    assert_int_equal(got.max_timestamp, kit_time(1));
    assert_int_equal(kafka_log_offset_for_time(log, kit_time(1) + 1, &found, NULL), BNS_E_NOTFOUND);
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* ---- epochs, times, indexes ------------------------------------------------------------------ */

static void an_epochs_end_is_answered_as_kafka_does(void **state)
{
    static const struct {
        int32_t asked, epoch;
        int64_t end;
    } table[] = {{-1, -1, -1}, {0, 0, 0}, {2, 2, 0}, {3, 3, 2}, {4, 3, 2}, {5, 5, 4}, {6, -1, -1}};
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_log_start start = {
        .vfs = v, .alloc = bns_alloc_libc(), .dir = KIT_DIR, .cfg = &cfg, .log_start = 3};

    (void)state;
    assert_int_equal(kafka_log_epoch_end(log, 0).epoch, -1);
    k = (struct kit){0};
    k.count = 1; /* batches of two records */
    assert_int_equal(kit_append(&k, log, 3), BNS_OK);
    k.count = 4;
    assert_int_equal(kit_append(&k, log, 5), BNS_OK);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct kafka_epoch e = kafka_log_epoch_end(log, table[i].asked);
        assert_int_equal(e.epoch, table[i].epoch);
        assert_int_equal(e.start, table[i].end);
    }
    assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
    kafka_log_close(log);
    assert_int_equal(kafka_log_open(&start, NULL, &log, NULL), BNS_OK);
    assert_int_equal(kafka_log_epoch_end(log, 3).epoch, 3); /* older than all that are left */
    assert_int_equal(kafka_log_epoch_end(log, 3).start, 3);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

static void a_log_without_timestamps_does_not_roll_at_every_start(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_batch like = {.producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
    struct kafka_append how = {.now_ms = KIT_TIME};
    struct kafka_record r = {.key = BNS_LIT("key")};
    struct kafka_appended out;
    struct kafka_batch_writer w;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (int i = 0; i < 8; i++) {
        struct kafka_log *log = kit_opened(v, &cfg, i % 2 == 0);
        bns_buf_clear(&b);
        assert_int_equal(kafka_batch_begin(&w, &b), BNS_OK);
        assert_int_equal(kafka_batch_add(&w, -1, &r), BNS_OK);
        kafka_batch_end(&w, &like);
        assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
        assert_int_equal(out.max_time, -1);
        assert_int_equal(kafka_log_segments(log), 1);
        assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
        kafka_log_close(log);
    }
    bns_buf_free(&b);
    bns_vfs_mem_free(v);
}

static void an_older_index_that_is_made_anew_is_kept(void **state)
{
    static const char *const names[] = {KIT_DIR "/00000000000000000000.index",
                                        KIT_DIR "/00000000000000000000.timeindex"};
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_want want = {.below = INT64_MAX, .bytes_max = 100};
    struct kafka_range range;
    uint64_t digest;

    (void)state;
    k = (struct kit){0};
    fill(log, 60);
    assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
    kafka_log_close(log);
    digest = bns_vfs_mem_digest(v, false);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(bns_vfs_remove(v, names[i], NULL), BNS_OK);
        log = kit_opened(v, &cfg, true);
        assert_int_equal(kafka_log_read(log, &want, &range, NULL), BNS_OK);
        kafka_log_close(log);
        assert_int_equal(bns_vfs_mem_digest(v, false), digest); /* all files, byte by byte */
    }
    bns_vfs_mem_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_kill_left_is_durable_once_it_is_opened),
        cmocka_unit_test(what_a_failed_sync_left_is_durable_once_it_is_opened),
        cmocka_unit_test(names_that_a_kill_left_are_durable_once_they_are_opened),
        cmocka_unit_test(a_new_segment_that_found_no_room_leaves_no_file),
        cmocka_unit_test(an_empty_segment_inside_another_one_is_not_the_active_one),
        cmocka_unit_test(an_empty_older_segment_does_not_stop_retention),
        cmocka_unit_test(a_restart_that_fails_leaves_a_log_that_answers),
        cmocka_unit_test(an_index_that_could_not_be_made_anew_is_tried_again),
        cmocka_unit_test(a_log_whose_index_cannot_be_mended_is_flushed),
        cmocka_unit_test(a_topic_that_is_not_compacted_any_more_keeps_its_batches),
        cmocka_unit_test(a_last_batch_behind_a_gap_is_kept_before_the_recovery_point),
        cmocka_unit_test(offsets_far_apart_are_kept_in_segments_of_their_own),
        cmocka_unit_test(batches_too_far_apart_for_one_segment_are_refused),
        cmocka_unit_test(a_producer_appends_exactly_one_batch),
        cmocka_unit_test(times_and_codecs_of_a_producer_are_checked),
        cmocka_unit_test(an_epochs_end_is_answered_as_kafka_does),
        cmocka_unit_test(a_log_without_timestamps_does_not_roll_at_every_start),
        cmocka_unit_test(an_older_index_that_is_made_anew_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
