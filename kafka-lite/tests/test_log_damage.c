/* test_log_damage.c - a small log whose files are cut and flipped at every byte: what is served
 * afterwards is what was appended, or an error. */
#include "log_kit.h"

#define BATCHES 24

static void path_of(char *to, const char *name)
{
    (void)snprintf(to, BNS_PATH_MAX, "%s/%s", KIT_DIR, name);
}

/* A log of one segment, with several entries in each index; stopped cleanly. */
static struct bns_vfs *small(struct kit *k)
{
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log;

    cfg.segment_bytes = 1 << 20;
    cfg.index_interval = 300;
    log = kit_opened(v, &cfg, false);
    *k = (struct kit){0};
    for (int i = 0; i < BATCHES; i++)
        assert_int_equal(kit_append(k, log, 0), BNS_OK);
    assert_int_equal(kafka_log_seal(log, NULL), BNS_OK);
    kafka_log_close(log);
    return v;
}

static uint64_t size_of(struct bns_vfs *v, const char *path)
{
    struct bns_file_stat st = {0};

    assert_int_equal(bns_vfs_stat(v, path, &st, NULL), BNS_OK);
    return st.size;
}

static void cut_file(struct bns_vfs *v, const char *path, uint64_t size)
{
    struct bns_file *f = NULL;

    assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_WRITE, &f, NULL), BNS_OK);
    assert_int_equal(bns_file_truncate(f, size, NULL), BNS_OK);
    bns_file_close(f);
}

/* What is there is the model's, and complete when `all`. */
static void check(struct bns_vfs *v, const struct kit *k, bool clean, bool all)
{
    struct kafka_log_cfg cfg = kit_cfg();
    struct kafka_log *log = NULL;
    int rv = kit_open(v, &cfg, clean, NULL, &log), n;

    if (rv == BNS_E_CORRUPT && !all)
        return; /* said, not served */
    assert_int_equal(rv, BNS_OK);
    if (all || !clean) {
        n = kit_compare(k, log);
        assert_true(n >= 0 && (!all || n == (int)k->count));
        assert_true(kit_finds(k, log, (size_t)n, false));
    }
    kafka_log_close(log);
}

static const char *const indexes[] = {"00000000000000000000.index",
                                      "00000000000000000000.timeindex"};

static void a_damaged_index_changes_no_answer(void **state)
{
    static struct kit k;
    char path[BNS_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bns_vfs *v = small(&k);
        uint64_t size;
        path_of(path, indexes[i]);
        size = size_of(v, path);
        assert_true(size >= 40);
        for (uint64_t at = 0; at < size; at++)
            for (unsigned bit = 0; bit < 8; bit++) {
                struct bns_vfs *w = small(&k);
                assert_int_equal(bns_vfs_mem_flip(w, path, at, (uint8_t)(1u << bit)), BNS_OK);
                check(w, &k, true, true);
                bns_vfs_mem_free(w);
            }
        bns_vfs_mem_free(v);
    }
}

static void an_index_that_is_cut_or_gone_changes_no_answer(void **state)
{
    static struct kit k;
    char path[BNS_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint64_t size = 1;
        path_of(path, indexes[i]);
        for (uint64_t at = 0; at < size; at++) {
            struct bns_vfs *v = small(&k);
            size = size_of(v, path);
            cut_file(v, path, at);
            check(v, &k, true, true);
            bns_vfs_mem_free(v);
        }
        struct bns_vfs *v = small(&k);
        assert_int_equal(bns_vfs_remove(v, path, NULL), BNS_OK);
        check(v, &k, true, true);
        cut_file(v, path, 10 << 20); /* as Kafka makes them beforehand: zeros behind the end */
        check(v, &k, true, true);
        bns_vfs_mem_free(v);
    }
}

static void a_log_that_is_cut_ends_with_a_whole_batch(void **state)
{
    static struct kit k;
    char path[BNS_PATH_MAX];
    uint64_t size = 1;

    (void)state;
    path_of(path, "00000000000000000000.log");
    for (uint64_t at = 0; at < size; at++)
        for (int clean = 0; clean < 2; clean++) {
            struct bns_vfs *v = small(&k);
            struct kafka_log_cfg cfg = kit_cfg();
            struct kafka_log *log = NULL;
            size = size_of(v, path);
            cut_file(v, path, at);
            assert_int_equal(kit_open(v, &cfg, clean == 1, NULL, &log), BNS_OK);
            assert_true(kit_compare(&k, log) >= 0);
            assert_true(kafka_log_bytes(log) <= at);
            kafka_log_close(log);
            bns_vfs_mem_free(v);
        }
}

/* The epoch in a batch is outside its CRC: Kafka's format has no way to see that it is wrong. */
static void a_flipped_byte_of_the_log_ends_it_there(void **state)
{
    static struct kit k;
    char path[BNS_PATH_MAX];
    uint64_t size, batch_at = 0, next_at = 0;
    size_t batch = 0;
    struct bns_vfs *v = small(&k);
    struct bns_buf b;

    (void)state;
    path_of(path, "00000000000000000000.log");
    size = size_of(v, path);
    bns_vfs_mem_free(v);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (uint64_t at = 0; at < size; at++) {
        struct kafka_log_cfg cfg = kit_cfg();
        struct kafka_log *log = NULL;
        if (at == next_at) {
            batch_at = at;
            bns_buf_clear(&b);
            kit_make(batch++, &b);
            next_at += b.len;
        }
        if (at - batch_at >= 12 && at - batch_at < 16)
            continue;
        v = small(&k);
        assert_int_equal(bns_vfs_mem_flip(v, path, at, (uint8_t)(1u << (at % 8))), BNS_OK);
        assert_int_equal(kit_open(v, &cfg, false, NULL, &log), BNS_OK);
        assert_int_equal(kit_compare(&k, log), (int)batch - 1);
        assert_int_equal(kafka_log_bytes(log), batch_at);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
    bns_buf_free(&b);
}

/* After a clean stop nothing is summed until a time is looked for. */
static void a_flipped_byte_under_a_clean_start_is_served_right_or_refused(void **state)
{
    static struct kit k;
    char path[BNS_PATH_MAX];
    struct bns_vfs *v = small(&k);
    struct bns_buf b;
    uint64_t at = 0;
    uint32_t refused = 0;

    (void)state;
    path_of(path, "00000000000000000000.log");
    bns_vfs_mem_free(v);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (size_t batch = 0; batch < BATCHES; batch++, at += b.len) {
        bns_buf_clear(&b);
        kit_make(batch, &b);
        for (uint64_t in = KAFKA_BATCH_HEAD; in < b.len; in += 3) {
            struct kafka_log_cfg cfg = kit_cfg();
            struct kafka_log *log;
            struct kafka_found found;
            v = small(&k);
            assert_int_equal(bns_vfs_mem_flip(v, path, at + in, (uint8_t)(1u << (in % 8))), BNS_OK);
            log = kit_opened(v, &cfg, true);
            assert_true(kit_finds(&k, log, k.count, true));
            refused +=
                kafka_log_offset_for_time(log, k.at[batch].max_time, &found, NULL) == BNS_E_CORRUPT;
            kafka_log_close(log);
            bns_vfs_mem_free(v);
        }
    }
    assert_true(refused > 100);
    bns_buf_free(&b);
}

static void damaged_epochs_are_made_anew(void **state)
{
    static struct kit k;
    char path[BNS_PATH_MAX];
    uint64_t size = 1;

    (void)state;
    path_of(path, "leader-epoch-checkpoint");
    for (uint64_t at = 0; at < size; at++) {
        struct bns_vfs *v = small(&k);
        struct kafka_log_cfg cfg = kit_cfg();
        struct kafka_log *log;
        size = size_of(v, path);
        cut_file(v, path, at);
        log = kit_opened(v, &cfg, true);
        if (at + 1 < size) /* the last byte is a line's end, which may be missing */
            assert_int_equal(kafka_log_epoch_end(log, 0).epoch, 0);
        assert_int_equal(kafka_log_epoch_end(log, 0).start, k.end);
        kafka_log_close(log);
        bns_vfs_mem_free(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_index_changes_no_answer),
        cmocka_unit_test(an_index_that_is_cut_or_gone_changes_no_answer),
        cmocka_unit_test(a_log_that_is_cut_ends_with_a_whole_batch),
        cmocka_unit_test(a_flipped_byte_of_the_log_ends_it_there),
        cmocka_unit_test(a_flipped_byte_under_a_clean_start_is_served_right_or_refused),
        cmocka_unit_test(damaged_epochs_are_made_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
