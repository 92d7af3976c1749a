/* test_log_producers.c - sequences of idempotent producers: every rule as a row, snapshots cut and
 * flipped at every byte, and a directory that knows them again after each kind of stop. */
#include "dir_kit.h"
#include "log/producers.h"

static struct kafka_batch batch(int64_t id, int16_t epoch, int32_t sequence, int32_t count)
{
    return (struct kafka_batch){.producer_id = id,
                                .producer_epoch = epoch,
                                .base_sequence = sequence,
                                .last_offset_delta = count - 1,
                                .count = count,
                                .max_timestamp = KIT_TIME};
}

static void add(struct kafka_producers *s, struct kafka_batch b, int64_t offset)
{
    b.base_offset = offset;
    assert_int_equal(kafka_producers_prepare(s, b.producer_id), BNS_OK);
    kafka_producers_add(s, &b);
}

static void every_rule_of_sequences(void **state)
{
    enum {
        OK = KAFKA_SEQ_OK,
        DUP = KAFKA_SEQ_DUPLICATE,
        LOST = KAFKA_SEQ_OUT_OF_ORDER,
        OVER = KAFKA_SEQ_FENCED
    };
    /* known: producer 7, epoch 3, seven batches of ten records from sequence 0 at offset 100 on */
    static const struct {
        const char *name;
        int64_t id;
        int epoch, sequence, count, verdict;
        int64_t base; /* of a duplicate */
    } t[] = {
        {"the next one", 7, 3, 70, 10, OK, 0},
        {"of another length", 7, 3, 70, 3, OK, 0},
        {"a gap", 7, 3, 71, 10, LOST, 0},
        {"the last again", 7, 3, 60, 10, DUP, 160},
        {"the fifth but last again", 7, 3, 20, 10, DUP, 120},
        {"the sixth but last again", 7, 3, 10, 10, LOST, 0},
        {"the last again, longer", 7, 3, 60, 11, LOST, 0},
        {"the last again, shorter", 7, 3, 60, 9, LOST, 0},
        {"from the beginning", 7, 3, 0, 1, LOST, 0},
        {"an epoch that is over", 7, 2, 70, 10, OVER, 0},
        {"a new epoch", 7, 4, 0, 10, OK, 0},
        {"a new epoch in the middle", 7, 4, 70, 10, LOST, 0},
        {"an unknown producer", 8, 0, 0, 1, OK, 0},
        {"an unknown producer in the middle", 8, 5, 4711, 1, OK, 0},
    };
    struct kafka_producers s;

    (void)state;
    kafka_producers_init(&s, bns_alloc_libc(), 100);
    for (int i = 0; i < 7; i++)
        add(&s, batch(7, 3, i * 10, 10), 100 + i * 10);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct kafka_batch b = batch(t[i].id, (int16_t)t[i].epoch, t[i].sequence, t[i].count);
        struct kafka_sequence was = {0};
        print_message("  %s\n", t[i].name);
        assert_int_equal(kafka_producers_check(&s, &b, &was), t[i].verdict);
        if (t[i].verdict == DUP)
            assert_int_equal(was.last_offset - was.offset_delta, t[i].base);
    }
    kafka_producers_free(&s);
}

static void sequences_go_round_behind_the_greatest(void **state)
{
    struct kafka_producers s;
    struct kafka_sequence was;
    struct kafka_batch b = batch(1, 0, INT32_MAX - 1, 5); /* MAX - 1, MAX, 0, 1, 2 */

    (void)state;
    kafka_producers_init(&s, bns_alloc_libc(), 100);
    add(&s, b, 0);
    assert_int_equal(kafka_producers_find(&s, 1)->batches[0].last, 2);
    assert_int_equal(kafka_producers_check(&s, &b, &was), KAFKA_SEQ_DUPLICATE);
    b = batch(1, 0, 3, INT32_MAX - 2);
    assert_int_equal(kafka_producers_check(&s, &b, &was), KAFKA_SEQ_OK);
    add(&s, b, 5);
    assert_int_equal(kafka_producers_find(&s, 1)->batches[1].last, INT32_MAX);
    b = batch(1, 0, 0, 1);
    assert_int_equal(kafka_producers_check(&s, &b, &was), KAFKA_SEQ_OK);
    kafka_producers_free(&s);
}

static void the_least_recent_is_forgotten_when_there_are_too_many(void **state)
{
    struct kafka_producers s;

    (void)state;
    kafka_producers_init(&s, bns_alloc_libc(), 3);
    for (int id = 1; id <= 3; id++)
        add(&s, batch(id, 0, 0, 1), id);
    add(&s, batch(1, 0, 1, 1), 4);
    add(&s, batch(4, 0, 0, 1), 5);
    assert_int_equal(kafka_producers_count(&s), 3);
    assert_null(kafka_producers_find(&s, 2));
    assert_non_null(kafka_producers_find(&s, 1));
    kafka_producers_expire(&s, KIT_TIME + 9, 10);
    assert_int_equal(kafka_producers_count(&s), 3);
    kafka_producers_expire(&s, KIT_TIME + 10, 10);
    assert_int_equal(kafka_producers_count(&s), 0);
    kafka_producers_free(&s);
}

static void a_transaction_holds_the_stable_offset(void **state)
{
    struct kafka_producers s;
    struct kafka_batch b = batch(1, 0, 0, 1), end = batch(1, 0, -1, 1);

    (void)state;
    kafka_producers_init(&s, bns_alloc_libc(), 100);
    assert_int_equal(kafka_producers_first_open(&s), INT64_MAX);
    b.attributes = KAFKA_ATTR_TRANSACTIONAL;
    add(&s, b, 40);
    b.base_sequence = 1;
    add(&s, b, 41);
    assert_int_equal(kafka_producers_first_open(&s), 40);
    end.attributes = KAFKA_ATTR_TRANSACTIONAL | KAFKA_ATTR_CONTROL;
    add(&s, end, 42);
    assert_int_equal(kafka_producers_first_open(&s), INT64_MAX);
    b.base_sequence = 2; /* a marker takes no sequence */
    assert_int_equal(kafka_producers_check(&s, &b, &(struct kafka_sequence){0}), KAFKA_SEQ_OK);
    kafka_producers_free(&s);
}

static void snapshots_are_read_back_and_damage_is_found_out(void **state)
{
    struct kafka_producers s, back;
    struct bns_buf b;

    (void)state;
    kafka_producers_init(&s, bns_alloc_libc(), 100);
    kafka_producers_init(&back, bns_alloc_libc(), 100);
    for (int id = 0; id < 5; id++)
        for (int i = 0; i < 7; i++)
            add(&s, batch(1000 + id, (int16_t)id, i * 3, 3), id * 100 + i * 3);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    assert_int_equal(kafka_producers_encode(&s, &b), BNS_OK);
    assert_int_equal(b.len, 10 + 5 * 46);
    assert_int_equal(kafka_producers_decode(&back, bns_buf_slice(&b), NULL), BNS_OK);
    for (int id = 0; id < 5; id++) {
        const struct kafka_producer *p = kafka_producers_find(&back, 1000 + id);
        assert_int_equal(p->epoch, id);
        assert_int_equal(p->count, 1);
        assert_int_equal(p->batches[0].last, 20);
        assert_int_equal(p->batches[0].last_offset, id * 100 + 20);
        assert_int_equal(p->txn_start, -1);
    }
    kafka_producers_free(&back);
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(kafka_producers_decode(&back, bns_slice(b.ptr, len), NULL), BNS_E_CORRUPT);
    for (size_t at = 0; at < b.len; at++) {
        b.ptr[at] ^= 4;
        assert_int_equal(kafka_producers_decode(&back, bns_buf_slice(&b), NULL), BNS_E_CORRUPT);
        assert_int_equal(kafka_producers_count(&back), 0);
        b.ptr[at] ^= 4;
    }
    bns_buf_free(&b);
    kafka_producers_free(&s);
}

/* ---- in a directory -------------------------------------------------------------------------- */

static void end(struct dirkit *k)
{
    bool fired;

    assert_int_equal(senv_free(&k->s, &fired), 0);
}

static int send(struct dirkit *k, struct kafka_part *p, int16_t epoch, int32_t sequence,
                struct kafka_op_append *op)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    dk_make_from(9, epoch, sequence, (size_t)sequence, &b);
    *op = (struct kafka_op_append){.sync = true};
    rv = dk_append_bytes(k, p, &b, op);
    bns_buf_free(&b);
    return rv;
}

/* After a clean stop, after a kill, after the snapshots are gone or damaged: the last batch is a
 * duplicate, the next one is accepted, a gap is refused. */
static void a_directory_knows_its_producers_again(void **state)
{
    enum { CLEAN, KILLED, NO_SNAPSHOTS, DAMAGED, KINDS };
    struct bns_vfs *v = kit_vfs(1);
    struct kafka_op_append op;
    static struct dirkit k;
    int32_t next = 0;
    int64_t base = 0;

    (void)state;
    for (int round = 0; round < 3 * KINDS; round++) {
        struct kafka_part *p;
        dk_init(&k, v, (uint64_t)round, 0);
        assert_int_equal(dk_open(&k), BNS_OK);
        if (round == 0)
            assert_int_equal(dk_create(&k, "t", 0, 1), 0);
        p = dk_part(&k, "t", 0);
        if (round > 0) {
            assert_int_equal(kafka_part_view(p)->producers, 1);
            assert_int_equal(send(&k, p, 1, next + 1, &op), 45);
            assert_int_equal(op.base, -1);
            assert_int_equal(send(&k, p, 0, next, &op), 47);
            assert_int_equal(send(&k, p, 1, next - 1, &op), 0);
            assert_true(op.duplicate);
            assert_int_equal(op.base, base);
            assert_int_equal(kafka_part_view(p)->end, base + 1);
        }
        for (int i = 0; i < 37; i++, next++) {
            assert_int_equal(send(&k, p, 1, next, &op), 0);
            assert_false(op.duplicate);
            base = op.base;
            assert_int_equal(base, next);
        }
        for (int i = 1; i <= 5; i++) {
            assert_int_equal(send(&k, p, 1, next - i, &op), 0);
            assert_int_equal(op.base, base - i + 1);
        }
        assert_int_equal(send(&k, p, 1, next - 6, &op), 45);
        if (round % KINDS == CLEAN) {
            assert_int_equal(dk_close(&k), BNS_OK);
        } else {
            bns_vfs_mem_kill(v);
            senv_check(&k.s);
        }
        end(&k);
        bns_vfs_mem_power_on(v);
        bns_vfs_mem_drop_handles(v);
        if (round % KINDS >= NO_SNAPSHOTS)
            dk_each_snapshot(v, DIR_PATH "/t-0", round % KINDS == DAMAGED);
    }
    bns_vfs_mem_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_of_sequences),
        cmocka_unit_test(sequences_go_round_behind_the_greatest),
        cmocka_unit_test(the_least_recent_is_forgotten_when_there_are_too_many),
        cmocka_unit_test(a_transaction_holds_the_stable_offset),
        cmocka_unit_test(snapshots_are_read_back_and_damage_is_found_out),
        cmocka_unit_test(a_directory_knows_its_producers_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
