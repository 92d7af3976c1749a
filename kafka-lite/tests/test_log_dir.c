/* test_log_dir.c - a log directory: partitions come, are written in groups, read, and go. */
#include "dir_kit.h"

static void end(struct dirkit *k)
{
    bool fired;

    assert_int_equal(senv_free(&k->s, &fired), 0);
}

/* Even rounds end in a clean stop, odd ones in a kill: nothing that was answered is gone. */
static void partitions_go_on_after_clean_stops_and_kills(void **state)
{
    struct bns_vfs *v = kit_vfs(1);
    size_t n = 0;

    (void)state;
    for (int round = 0; round < 8; round++) {
        static struct dirkit k;
        dk_init(&k, v, (uint64_t)round, 0);
        assert_int_equal(dk_open(&k), BNS_OK);
        assert_int_equal(kafka_dir_count(k.d), round == 0 ? 0 : 3);
        for (int i = 0; i < 3; i++) {
            struct kafka_part *p;
            struct kafka_uuid id = dk_id((uint8_t)(i / 2 + 1));
            int64_t base = 0;
            if (round == 0)
                assert_int_equal(dk_create(&k, i < 2 ? "one" : "two.x_y-z", i % 2, id.bytes[15]),
                                 0);
            p = dk_part(&k, i < 2 ? "one" : "two.x_y-z", i % 2);
            assert_non_null(p);
            assert_ptr_equal(kafka_dir_find_id(k.d, &id, i % 2), p);
            assert_int_equal(dk_count(&k, p, 0), n);
            for (size_t m = n; m < n + 9; m++)
                assert_int_equal(dk_append(&k, p, m, &base), 0);
            assert_int_equal(kafka_part_view(p)->end,
                             base + kit_records(n + 8)); /* the view came with the answer */
            assert_int_equal(kafka_part_view(p)->flushed, kafka_part_view(p)->end);
            assert_int_equal(dk_count(&k, p, 0), n + 9);
        }
        n += 9;
        if (round % 2 == 0) {
            assert_int_equal(dk_close(&k), BNS_OK);
        } else {
            bns_vfs_mem_kill(v);
            senv_check(&k.s);
        }
        end(&k);
        bns_vfs_mem_power_on(v);
        bns_vfs_mem_drop_handles(v);
    }
    bns_vfs_mem_free(v);
}

/* Ten appends to each of two partitions in one group: one sync each, all answered, in order. */
static void a_group_costs_one_sync_a_partition(void **state)
{
    static struct kafka_op_append op[20];
    static struct bns_buf b[20];
    struct bns_vfs *v = kit_vfs(2);
    static struct dirkit k;
    uint64_t syncs;
    int done = 0;

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    k.part.log.segment_bytes = 1 << 20;
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    assert_int_equal(dk_create(&k, "t", 1, 1), 0);
    for (size_t i = 0; i < 2; i++) { /* the epoch is durable from here on */
        int64_t base;
        assert_int_equal(dk_append(&k, dk_part(&k, "t", (int32_t)i), 0, &base), 0);
    }
    syncs = bns_vfs_mem_stats(v).syncs;
    k.advanced = 0;
    for (size_t i = 0; i < 20; i++) {
        bns_buf_init(&b[i], bns_alloc_libc(), 1 << 20);
        kit_make(1 + i / 2, &b[i]);
        op[i] = (struct kafka_op_append){.op = {.done = dk_done, .arg = &done},
                                         .bytes = b[i].ptr,
                                         .len = b[i].len,
                                         .sync = true};
        assert_int_equal(kafka_part_append(dk_part(&k, "t", i % 2), &op[i]), BNS_OK);
    }
    assert_int_equal(kafka_dir_ops(k.d), 20);
    senv_pump(&k.s);
    assert_int_equal(done, 20);
    assert_int_equal(bns_vfs_mem_stats(v).syncs - syncs, 2);
    assert_int_equal(k.advanced, 2);
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(op[i].op.error, 0);
        assert_int_equal(op[i].base, i < 2 ? kit_records(0) : op[i - 2].base + kit_records(i / 2));
        bns_buf_free(&b[i]);
    }
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

/* A topic of the same name is another one: neither records nor offsets of the old one are its. */
static void a_namesake_of_a_deleted_partition_is_empty(void **state)
{
    struct bns_vfs *v = kit_vfs(3);

    (void)state;
    for (int how = 0; how < 3; how++) { /* goes on; after a clean stop; after a kill */
        static struct dirkit k;
        struct kafka_part *p;
        int64_t base = 0;
        dk_init(&k, v, 1, 0);
        assert_int_equal(dk_open(&k), BNS_OK);
        assert_int_equal(dk_create(&k, "t", 0, 1), 0);
        p = dk_part(&k, "t", 0);
        for (size_t n = 0; n < 30; n++)
            assert_int_equal(dk_append(&k, p, n, &base), 0);
        assert_int_equal(dk_delete_records(&k, p, base), 0);
        assert_int_equal(kafka_part_view(p)->begin, base);
        assert_int_equal(dk_delete(&k, p), 0);
        assert_null(dk_part(&k, "t", 0));
        if (how > 0) {
            if (how == 1) {
                assert_int_equal(dk_close(&k), BNS_OK);
            } else {
                bns_vfs_mem_kill(v);
                senv_check(&k.s);
            }
            end(&k);
            bns_vfs_mem_power_on(v);
            bns_vfs_mem_drop_handles(v);
            dk_init(&k, v, 2, 0);
            assert_int_equal(dk_open(&k), BNS_OK);
            assert_int_equal(kafka_dir_count(k.d), 0);
        }
        assert_int_equal(dk_create(&k, "t", 0, 2), 0);
        p = dk_part(&k, "t", 0);
        assert_int_equal(kafka_part_view(p)->begin, 0);
        assert_int_equal(dk_append(&k, p, 7, &base), 0);
        assert_int_equal(base, 0);
        assert_int_equal(dk_close(&k), BNS_OK);
        end(&k);
        dk_init(&k, v, 3, 0);
        assert_int_equal(dk_open(&k), BNS_OK);
        assert_int_equal(dk_count(&k, dk_part(&k, "t", 0), 7), 1);
        assert_int_equal(dk_delete(&k, dk_part(&k, "t", 0)), 0);
        assert_int_equal(dk_close(&k), BNS_OK);
        end(&k);
    }
    bns_vfs_mem_free(v);
}

static int take_name(void *arg, const char *name)
{
    *(int *)arg += strstr(name, "-delete") != NULL;
    return 0;
}

static void the_files_of_a_deleted_partition_are_unlinked(void **state)
{
    struct bns_vfs *v = kit_vfs(4);
    static struct dirkit k;
    struct kafka_part *p;
    int64_t base;
    int left = 0;

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    p = dk_part(&k, "t", 0);
    for (size_t n = 0; n < 600; n++) /* more than one step unlinks */
        assert_int_equal(dk_append(&k, p, n, &base), 0);
    assert_true(kafka_part_view(p)->segments > 30);
    assert_int_equal(dk_delete(&k, p), 0);
    assert_int_equal(bns_vfs_list(v, DIR_PATH, take_name, &left, NULL), BNS_OK);
    assert_int_equal(left, 0);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

static void set_timestamp(struct bns_buf *b, int64_t by)
{
    struct kafka_batch like = {.producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
    struct kafka_record r = {.key = bns_slice("k", 1), .value = bns_slice("v", 1)};
    struct kafka_batch_writer w;

    bns_buf_clear(b);
    assert_int_equal(kafka_batch_begin(&w, b), BNS_OK);
    assert_int_equal(kafka_batch_add(&w, KIT_TIME, &r), BNS_OK);
    assert_int_equal(kafka_batch_add(&w, KIT_TIME + by, &r), BNS_OK);
    kafka_batch_end(&w, &like);
}

static void make(struct bns_buf *b, int16_t attributes, bool key)
{
    struct kafka_batch like = {
        .producer_id = -1, .producer_epoch = -1, .base_sequence = -1, .attributes = attributes};
    struct kafka_record r = {.value = bns_slice("v", 1)};
    struct kafka_batch_writer w;

    bns_buf_clear(b);
    assert_int_equal(kafka_batch_begin(&w, b), BNS_OK);
    r.key = key ? bns_slice("k", 1) : r.key;
    assert_int_equal(kafka_batch_add(&w, KIT_TIME, &r), BNS_OK);
    kafka_batch_end(&w, &like);
}

/* Each kind of batch that is refused, the error it has, and that nothing was appended. */
static void what_a_broker_refuses_has_kafkas_error(void **state)
{
    struct bns_vfs *v = kit_vfs(5);
    struct kafka_op_append op;
    static struct dirkit k;
    struct kafka_part *p;
    struct bns_buf b;
    int64_t base;

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    k.part.batch_bytes_max = 1500;
    k.part.log.segment_bytes = 1000;
    k.part.compact = true;
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    p = dk_part(&k, "t", 0);
    assert_int_equal(dk_append(&k, p, 0, &base), 0);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
#define REFUSED(number, record)                                                                    \
    do {                                                                                           \
        op = (struct kafka_op_append){.leader_epoch = 0, .sync = true};                            \
        assert_int_equal(dk_append_bytes(&k, p, &b, &op), number);                                 \
        assert_int_equal(op.base, -1);                                                             \
        assert_int_equal(op.bad_record, record);                                                   \
    } while (0)
    kit_make(1, &b);
    b.ptr[b.len - 1] ^= 1;
    REFUSED(2, -1);
    b.len = 60;
    REFUSED(2, -1);
    b.len = 0;
    REFUSED(2, -1);
    kit_make(1, &b);
    kit_make(2, &b);
    REFUSED(87, -1); /* two batches */
    make(&b, KAFKA_ATTR_CONTROL | KAFKA_ATTR_TRANSACTIONAL, true);
    REFUSED(87, -1);
    make(&b, KAFKA_ATTR_TRANSACTIONAL, true);
    REFUSED(48, -1);
    make(&b, 0, false);
    REFUSED(87, 0); /* no key */
    set_timestamp(&b, 3600001 + 1000);
    REFUSED(32, 1);
    bns_buf_clear(&b);
    {
        struct kafka_batch like = {.producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
        static const uint8_t bytes[1300];
        struct kafka_record r = {.key = bns_slice(bytes, 1), .value = bns_slice(bytes, 1200)};
        struct kafka_batch_writer w;
        assert_int_equal(kafka_batch_begin(&w, &b), BNS_OK);
        assert_int_equal(kafka_batch_add(&w, KIT_TIME, &r), BNS_OK);
        kafka_batch_end(&w, &like);
        REFUSED(18, -1);
        bns_buf_clear(&b);
        assert_int_equal(kafka_batch_begin(&w, &b), BNS_OK);
        assert_int_equal(kafka_batch_add(&w, KIT_TIME, &r), BNS_OK);
        assert_int_equal(kafka_batch_add(&w, KIT_TIME, &r), BNS_OK);
        kafka_batch_end(&w, &like);
        REFUSED(10, -1);
    }
    assert_int_equal(dk_count(&k, p, 0), 1);
    bns_buf_free(&b);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

static void reads_stay_within_begin_and_high_watermark(void **state)
{
    struct bns_vfs *v = kit_vfs(6);
    static struct dirkit k;
    struct kafka_part *p;
    struct bns_buf b;
    int64_t base;

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    p = dk_part(&k, "t", 0);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    assert_int_equal(dk_read(&k, p, 0, 100, &b), 0);
    assert_int_equal(b.len, 0);
    assert_int_equal(dk_read(&k, p, 1, 100, &b), 1);
    for (size_t n = 0; n < 10; n++)
        assert_int_equal(dk_append(&k, p, n, &base), 0);
    assert_int_equal(dk_delete_records(&k, p, kafka_part_view(p)->end + 1), 1);
    assert_int_equal(dk_delete_records(&k, p, 5), 0);
    assert_int_equal(dk_read(&k, p, 4, 100, &b), 1);
    assert_int_equal(dk_read(&k, p, 5, 1, &b), 0);
    assert_true(b.len > 1); /* one at least */
    bns_buf_clear(&b);
    assert_int_equal(dk_delete_records(&k, p, -1), 0);
    assert_int_equal(kafka_part_view(p)->begin, kafka_part_view(p)->end);
    bns_buf_free(&b);
    bns_vfs_mem_kill(v); /* what was deleted stays deleted */
    senv_check(&k.s);
    end(&k);
    bns_vfs_mem_power_on(v);
    bns_vfs_mem_drop_handles(v);
    dk_init(&k, v, 2, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    p = dk_part(&k, "t", 0);
    assert_int_equal(kafka_part_view(p)->begin, kafka_part_view(p)->end);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

static void a_directory_belongs_to_one_cluster_node_and_process(void **state)
{
    struct bns_vfs *v = kit_vfs(7);
    static struct dirkit k, other;
    char id[64];

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    (void)snprintf(id, sizeof id, "%s", kafka_dir_meta(k.d)->cluster_id);
    assert_int_equal(strlen(id), 22);
    dk_init(&other, v, 2, 0);
    assert_int_equal(dk_open(&other), BNS_E_BUSY);
    assert_int_equal(dk_close(&other), BNS_OK);
    end(&other);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    for (int i = 0; i < 3; i++) {
        dk_init(&k, v, 3, 0);
        k.cfg.cluster_id = i == 0 ? "another" : i == 1 ? id : "";
        k.cfg.node_id = i == 2 ? 2 : 1;
        assert_int_equal(dk_open(&k), i == 1 ? BNS_OK : BNS_E_CONFLICT);
        (void)(dk_close(&k) == BNS_OK);
        end(&k);
    }
    bns_vfs_mem_free(v);
}

/* After a failed sync: 56 for what it covered and for what follows; reads go on; no clean stop. */
static void a_failed_sync_fails_the_directory(void **state)
{
    struct bns_vfs *v = kit_vfs(8);
    static struct dirkit k;
    int64_t base;

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    assert_int_equal(dk_create(&k, "u", 0, 2), 0);
    assert_int_equal(dk_append(&k, dk_part(&k, "t", 0), 0, &base), 0);
    bns_vfs_mem_fail_on(v, BNS_VOP_SYNC, "t-0", 1, BNS_VFAULT_EIO);
    assert_int_equal(dk_append(&k, dk_part(&k, "t", 0), 1, &base), 56);
    assert_true(kafka_dir_failed(k.d));
    assert_string_not_equal(kafka_dir_why(k.d), "");
    assert_int_equal(k.failed, 1);
    assert_int_equal(dk_append(&k, dk_part(&k, "u", 0), 0, &base), 56);
    assert_int_equal(dk_create(&k, "w", 0, 3), 56);
    assert_int_equal(dk_count(&k, dk_part(&k, "t", 0), 0), 1);
    assert_int_not_equal(dk_close(&k), BNS_OK);
    end(&k);
    dk_init(&k, v, 2, 0);
    assert_int_equal(dk_open(&k), BNS_OK); /* a start recovers it */
    assert_in_range(dk_count(&k, dk_part(&k, "t", 0), 0), 1, 2);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

static void a_full_disk_refuses_and_then_goes_on(void **state)
{
    struct bns_vfs *v = kit_vfs(9);
    static struct dirkit k;
    int64_t base;

    (void)state;
    dk_init(&k, v, 1, 0);
    assert_int_equal(dk_open(&k), BNS_OK);
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    assert_int_equal(dk_append(&k, dk_part(&k, "t", 0), 0, &base), 0);
    bns_vfs_mem_fail_on(v, BNS_VOP_WRITE, "t-0", 1, BNS_VFAULT_SHORT);
    assert_int_equal(dk_append(&k, dk_part(&k, "t", 0), 1, &base), 56);
    assert_false(kafka_dir_failed(k.d));
    assert_int_equal(dk_append(&k, dk_part(&k, "t", 0), 1, &base), 0);
    assert_int_equal(dk_count(&k, dk_part(&k, "t", 0), 0), 2);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

static void bounds_and_a_stop_refuse_operations(void **state)
{
    struct bns_vfs *v = kit_vfs(10);
    static struct kafka_op_append op[4];
    static struct dirkit k;
    struct kafka_part *p;
    struct bns_buf b;
    int done = 0;

    (void)state;
    dk_init(&k, v, 1, 0);
    k.cfg.ops_max = 3;
    assert_int_equal(dk_open(&k), BNS_OK);
    assert_int_equal(dk_create(&k, "t", 0, 1), 0);
    assert_int_equal(dk_create(&k, "t", 0, 1), DK_REFUSED(BNS_E_EXISTS));
    assert_int_equal(dk_create(&k, "t/..", 0, 1), DK_REFUSED(BNS_E_INVALID));
    p = dk_part(&k, "t", 0);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(0, &b);
    for (int i = 0; i < 4; i++) {
        op[i] = (struct kafka_op_append){
            .op = {.done = dk_done, .arg = &done}, .bytes = b.ptr, .len = b.len, .sync = true};
        assert_int_equal(kafka_part_append(p, &op[i]), i < 3 ? BNS_OK : BNS_E_BUSY);
    }
    kafka_dir_close(k.d, dk_closed, &k); /* waits for these */
    assert_int_equal(kafka_part_append(p, &op[3]), BNS_E_SHUTDOWN);
    senv_pump(&k.s);
    assert_int_equal(done, 3);
    assert_int_equal(k.closed, 1);
    assert_int_equal(k.code, BNS_OK);
    bns_buf_free(&b);
    end(&k);
    bns_vfs_mem_free(v);
}

static void retention_removes_what_is_too_old(void **state)
{
    struct bns_vfs *v = kit_vfs(11);
    static struct dirkit k;
    struct kafka_part *p;
    uint64_t before;
    int64_t base;

    (void)state;
    dk_init(&k, v, 1, 0);
    k.part.retention_bytes = 5000;
    assert_int_equal(dk_open(&k), BNS_OK);
    for (int32_t i = 0; i < 70; i++) /* more partitions than one step looks at */
        assert_int_equal(dk_create(&k, "t", i, 1), 0);
    for (int32_t i = 0; i < 70; i += 69)
        for (size_t n = 0; n < 60; n++)
            assert_int_equal(dk_append(&k, dk_part(&k, "t", i), n, &base), 0);
    before = kafka_part_view(dk_part(&k, "t", 69))->bytes;
    k.advanced = 0;
    senv_advance(&k.s, 301 * BNS_SEC);
    assert_int_equal(k.advanced, 2);
    p = dk_part(&k, "t", 69);
    assert_true(before > 7000 && kafka_part_view(p)->bytes < 7000);
    assert_true(kafka_part_view(p)->begin > 0);
    assert_int_equal(dk_close(&k), BNS_OK);
    end(&k);
    bns_vfs_mem_free(v);
}

/* The n-th allocation fails, for every n: errors, no leak, and what was answered is there. */
static void memory_may_run_out_anywhere(void **state)
{
    bool fired = true;

    (void)state;
    for (int at = 1; fired; at++) {
        struct bns_vfs *v = kit_vfs(12);
        static struct dirkit k;
        int64_t base;
        int there = 0;
        dk_init(&k, v, 1, at);
        if (dk_open(&k) == BNS_OK) {
            int made = dk_create(&k, "t", 0, 1);
            struct kafka_part *p = dk_part(&k, "t", 0);
            assert_true((made == 0) == (p != NULL));
            for (size_t n = 0; p != NULL && n < 12; n++)
                there += dk_append(&k, p, (size_t)there, &base) == 0;
        }
        if (k.d != NULL)
            (void)(dk_close(&k) == BNS_OK);
        assert_int_equal(senv_free(&k.s, &fired), 0);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        dk_init(&k, v, 2, 0);
        assert_int_equal(dk_open(&k), BNS_OK);
        if (dk_part(&k, "t", 0) != NULL)
            assert_true(dk_count(&k, dk_part(&k, "t", 0), 0) >= there);
        else
            assert_int_equal(there, 0);
        assert_int_equal(dk_close(&k), BNS_OK);
        end(&k);
        bns_vfs_mem_free(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partitions_go_on_after_clean_stops_and_kills),
        cmocka_unit_test(a_group_costs_one_sync_a_partition),
        cmocka_unit_test(a_namesake_of_a_deleted_partition_is_empty),
        cmocka_unit_test(the_files_of_a_deleted_partition_are_unlinked),
        cmocka_unit_test(what_a_broker_refuses_has_kafkas_error),
        cmocka_unit_test(reads_stay_within_begin_and_high_watermark),
        cmocka_unit_test(a_directory_belongs_to_one_cluster_node_and_process),
        cmocka_unit_test(a_failed_sync_fails_the_directory),
        cmocka_unit_test(a_full_disk_refuses_and_then_goes_on),
        cmocka_unit_test(bounds_and_a_stop_refuse_operations),
        cmocka_unit_test(retention_removes_what_is_too_old),
        cmocka_unit_test(memory_may_run_out_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
