/* test_log.c - one partition's log: append, roll, read, find, truncate, retain, reopen. */
#include "log_kit.h"

static void fill(struct kit *k, struct kafka_log *log, size_t batches)
{
    for (size_t i = 0; i < batches; i++)
        assert_int_equal(kit_append(k, log, (int32_t)(k->count / 20)), BNS_OK);
}

static void batches_are_read_back_at_their_offsets(void **state)
{
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log = kit_opened(v, &cfg, false);
    static struct kit k;

    (void)state;
    k = (struct kit){0};
    fill(&k, log, 100);
    assert_true(kafka_log_segments(log) > 5);
    assert_int_equal(kit_compare(&k, log), 100);
    assert_true(kit_finds(&k, log, 100, false));
    kafka_log_close(log);
    assert_int_equal(bns_vfs_mem_handles(v), 0);
    bns_vfs_mem_free(v);
}

static void a_log_goes_on_after_a_clean_stop_and_after_a_kill(void **state)
{
    struct bns_vfs *v = kit_vfs(2);
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;

    (void)state;
    k = (struct kit){0};
    for (int round = 0; round < 12; round++) {
        struct kafka_log *log = kit_opened(v, &cfg, round > 0 && round % 2 == 0);
        assert_int_equal(kafka_log_end(log), k.end);
        assert_string_equal(kafka_log_topic_id(log), KIT_TOPIC);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        fill(&k, log, 7);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        assert_true(kit_finds(&k, log, k.count, false));
        if (round % 2 == 1)
            assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
        kafka_log_close(log);
    }
    bns_vfs_mem_free(v);
}

static void a_range_is_whole_batches_and_not_too_long(void **state)
{
    struct bns_vfs *v = kit_vfs(3);
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log = kit_opened(v, &cfg, false);
    static struct kit k;

    (void)state;
    k = (struct kit){0};
    fill(&k, log, 60);
    for (uint32_t max = 0; max < 1500; max += 37)
        for (int64_t offset = 0; offset <= k.end; offset += 3)
            for (int64_t below = 0; below <= k.end; below += 11) {
                struct kafka_want want = {.offset = offset, .below = below, .bytes_max = max};
                struct kafka_range r = {0};
                struct bns_buf b;
                struct bns_slice in;
                struct kafka_batch batch;
                bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
                want.one_at_least = max % 2 == 0;
                assert_int_equal(kafka_log_read(log, &want, &r, NULL), BNS_OK);
                assert_int_equal(kafka_log_load(log, &r, &b, NULL), BNS_OK);
                assert_int_equal(b.len, r.len);
                assert_true(r.len <= max || (want.one_at_least && r.len == r.first_bytes));
                in = bns_buf_slice(&b);
                while (in.len > 0) {
                    assert_int_equal(kafka_batch_next(&in, &batch, NULL), BNS_OK);
                    assert_true(batch.base_offset < below);
                    assert_true(kafka_batch_last_offset(&batch) >= offset);
                    /* a batch that the mark lies in is not served */
                    assert_true(kafka_batch_last_offset(&batch) < below);
                }
                bns_buf_free(&b);
            }
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

static void offsets_out_of_range_are_refused(void **state)
{
    struct bns_vfs *v = kit_vfs(4);
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_want want = {.offset = -1, .below = INT64_MAX, .bytes_max = 100};
    struct kafka_range r;
    static struct kit k;

    (void)state;
    k = (struct kit){0};
    fill(&k, log, 10);
    assert_int_equal(kafka_log_read(log, &want, &r, NULL), BNS_E_NOTFOUND);
    want.offset = k.end + 1;
    assert_int_equal(kafka_log_read(log, &want, &r, NULL), BNS_E_NOTFOUND);
    want.offset = k.end;
    assert_int_equal(kafka_log_read(log, &want, &r, NULL), BNS_OK);
    assert_int_equal(r.len, 0);
    assert_int_equal(kafka_log_advance(log, k.end + 1, NULL), BNS_E_NOTFOUND);
    assert_int_equal(kafka_log_advance(log, 3, NULL), BNS_OK);
    want.offset = 2;
    assert_int_equal(kafka_log_read(log, &want, &r, NULL), BNS_E_NOTFOUND);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

/* Every kind of bytes that an append has to refuse, and that it changed nothing. */
static void what_is_no_batch_is_refused(void **state)
{
    struct bns_vfs *v = kit_vfs(5);
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_append how = {.leader_epoch = 1, .now_ms = KIT_TIME};
    struct kafka_appended out;
    struct bns_buf b;
    static struct kit k;
    static uint8_t big[3000];

    (void)state;
    k = (struct kit){0};
    fill(&k, log, 3);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (size_t cut = 0; cut < 60; cut++) {
        bns_buf_clear(&b);
        kit_make(3, &b);
        assert_int_equal(kafka_log_append(log, b.ptr, cut, &how, &out, NULL), BNS_E_CORRUPT);
    }
    for (size_t at = 8; at < b.len; at++) {
        if (at >= 12 && at < 16)
            continue; /* the epoch is not the producer's to say */
        b.ptr[at] ^= 0x10;
        assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CORRUPT);
        b.ptr[at] ^= 0x10;
    }
    assert_int_equal(kafka_log_append(log, big, sizeof big, &how, &out, NULL), BNS_E_TOOBIG);
    assert_int_equal(kit_compare(&k, log), 3);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    how.leader_epoch = 0;
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CONFLICT);
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

static void a_follower_takes_offsets_as_they_are(void **state)
{
    struct bns_vfs *v = kit_vfs(6);
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_append how = {.follow = true};
    struct kafka_appended out;
    struct bns_buf b;

    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(2, &b); /* three records */
    kafka_batch_place(b.ptr, 0, 7);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CONFLICT);
    kafka_batch_place(b.ptr, 2, 7);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CONFLICT);
    kafka_batch_place(b.ptr, 3, 6);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_E_CONFLICT);
    kafka_batch_place(b.ptr, 3, 9);
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    assert_int_equal(kafka_log_epoch_end(log, 7).start, 3);
    assert_int_equal(kafka_log_epoch_end(log, 8).epoch, 7);
    assert_int_equal(kafka_log_epoch_end(log, 9).start, 6);
    assert_int_equal(kafka_log_epoch_end(log, 6).start, 0);
    assert_int_equal(kafka_log_epoch_end(log, 10).epoch, -1);
    kafka_batch_place(b.ptr, 50, 9); /* a gap: the leader's topic was compacted once */
    assert_int_equal(kafka_log_append(log, b.ptr, b.len, &how, &out, NULL), BNS_OK);
    assert_int_equal(kafka_log_end(log), 53);
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

static void truncation_leaves_whole_batches_before_the_offset(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    static struct kit k;
    int kept;

    (void)state;
    for (int64_t at = 0; at <= 80; at++) {
        struct bns_vfs *v = kit_vfs(7);
        struct kafka_log *log = kit_opened(v, &cfg, false);
        k = (struct kit){0};
        fill(&k, log, 40);
        if (at >= k.end) /* then nothing is truncated, and nothing made durable */
            assert_int_equal(kafka_log_flush(log, NULL), BNS_OK);
        assert_int_equal(kafka_log_truncate(log, at, NULL), BNS_OK);
        while (k.count > 0 && k.at[k.count - 1].last >= at)
            k.count--;
        k.end = k.count == 0 ? 0 : k.at[k.count - 1].last + 1;
        assert_int_equal(kafka_log_end(log), k.end);
        assert_int_equal(kit_compare(&k, log), (int)k.count);
        kept = (int)k.count;
        fill(&k, log, 10);
        assert_true(kit_finds(&k, log, k.count, false));
        bns_vfs_mem_power_cut(v, NULL); /* durable without a flush */
        kafka_log_close(log);
        bns_vfs_mem_power_on(v);
        log = kit_opened(v, &cfg, false);
        assert_true(kit_compare(&k, log) >= kept);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

static void retention_removes_the_oldest_segments(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(8);
    struct kafka_log *log = kit_opened(v, &cfg, false);
    struct kafka_retention r = {.time_ms = -1, .bytes = -1, .now_ms = KIT_TIME + 100 * 1000};
    static struct kit k;
    uint32_t removed = 0;
    size_t before;

    (void)state;
    k = (struct kit){0};
    fill(&k, log, 100);
    r.bytes = 0;
    assert_int_equal(kafka_log_retain(log, &r, &removed, NULL), BNS_OK);
    assert_int_equal(removed, 0); /* nothing is below the high watermark */
    r.high_watermark = k.end;
    before = kafka_log_segments(log);
    r.bytes = (int64_t)kafka_log_bytes(log) - 2500;
    assert_int_equal(kafka_log_retain(log, &r, &removed, NULL), BNS_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(kafka_log_segments(log), before - 1);
    assert_true(kafka_log_begin(log) > 0);
    r.bytes = -1;
    r.time_ms = 50 * 1000;
    assert_int_equal(kafka_log_retain(log, &r, &removed, NULL), BNS_OK);
    assert_true(removed > 1);
    assert_true(kafka_log_begin(log) <= k.at[50].last);
    assert_int_equal(kit_compare(&k, log), 100);
    r.time_ms = -1;
    assert_int_equal(kafka_log_advance(log, k.end - 1, NULL), BNS_OK);
    assert_int_equal(kafka_log_retain(log, &r, &removed, NULL), BNS_OK);
    assert_int_equal(kafka_log_begin(log), k.end - 1);
    assert_int_equal(kafka_log_segments(log), 1);
    assert_int_equal(kafka_log_purge(log, NULL), BNS_OK);
    r.bytes = 0;
    assert_int_equal(kafka_log_retain(log, &r, &removed, NULL), BNS_OK);
    assert_int_equal(removed, 1); /* the active one: a new one takes its place first */
    assert_int_equal(kafka_log_begin(log), k.end);
    assert_int_equal(kafka_log_bytes(log), 0);
    kafka_log_close(log);
    log = kit_opened(v, &cfg, false);
    assert_int_equal(kafka_log_end(log), k.end);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

static void another_topic_id_is_refused(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(9);
    struct kafka_log_start start = {.vfs = v,
                                    .alloc = bns_alloc_libc(),
                                    .dir = KIT_DIR,
                                    .cfg = &cfg,
                                    .topic_id = "AAAAAAAAAAAAAAAAAAAAAg"};
    struct kafka_log *log = kit_opened(v, &cfg, false);

    (void)state;
    kafka_log_close(log);
    assert_int_equal(kafka_log_open(&start, NULL, &log, NULL), BNS_E_CONFLICT);
    bns_vfs_mem_free(v);
}

static void segments_roll_by_time_and_by_full_index(void **state)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct bns_vfs *v = kit_vfs(10);
    struct kafka_log *log;
    static struct kit k;

    (void)state;
    cfg.segment_bytes = 1 << 20;
    cfg.segment_ms = 9999; /* ten batches, a second apart */
    log = kit_opened(v, &cfg, false);
    k = (struct kit){0};
    fill(&k, log, 40);
    assert_int_equal(kafka_log_segments(log), 4);
    cfg.segment_ms = INT64_MAX;
    cfg.index_bytes = 8 * 5;
    kafka_log_close(log);
    log = kit_opened(v, &cfg, false);
    fill(&k, log, 40);
    assert_true(kafka_log_segments(log) > 6);
    assert_int_equal(kit_compare(&k, log), 80);
    kafka_log_close(log);
    bns_vfs_mem_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_read_back_at_their_offsets),
        cmocka_unit_test(a_log_goes_on_after_a_clean_stop_and_after_a_kill),
        cmocka_unit_test(a_range_is_whole_batches_and_not_too_long),
        cmocka_unit_test(offsets_out_of_range_are_refused),
        cmocka_unit_test(what_is_no_batch_is_refused),
        cmocka_unit_test(a_follower_takes_offsets_as_they_are),
        cmocka_unit_test(truncation_leaves_whole_batches_before_the_offset),
        cmocka_unit_test(retention_removes_the_oldest_segments),
        cmocka_unit_test(another_topic_id_is_refused),
        cmocka_unit_test(segments_roll_by_time_and_by_full_index),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
