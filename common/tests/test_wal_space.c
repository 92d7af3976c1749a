/* test_wal_space.c - where the log's files come from and go to: spares, reuse, release, full disks.
 * On the memory VFS; the sweeps over crashes and damage are in sim_wal.c. */
#include "store/wal_impl.h"
#include "wal_model.h"

#define DIR_WAL "w"

static int count_name(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
    return BNS_OK;
}

/* Segments go when both groups let them go, and not before; a reopen agrees. */
static void release_removes_segments(void **state)
{
    static uint8_t bytes[9000];
    struct bns_vfs *v = model_vfs(4);
    struct model *none = malloc(sizeof *none);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    int files = 0;
    (void)state;

    model_init(none, 1);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, none, 0);
    for (int i = 0; i < 40; i++) {
        struct bns_wal_record r = {.group = (uint32_t)(i % 2), .type = BNS_WAL_ENTRY, .slices = 1};
        struct bns_wal_append a = {.records = &r, .records_count = 1};
        r.payload[0] = bns_slice(bytes, sizeof bytes);
        assert_int_equal(bns_wal_append(w, &a), BNS_OK);
        senv_pump(&s);
    }
    bns_wal_stats(w, &st);
    assert_true(st.segments >= 4);
    bns_wal_release(w, 0, st.next_lsn);
    senv_pump(&s);
    bns_wal_stats(w, &st);
    assert_true(st.segments >= 4); /* group 1 still needs them */
    bns_wal_release(w, 1, st.next_lsn);
    senv_pump(&s);
    bns_wal_stats(w, &st);
    assert_int_equal(st.segments, 1);
    assert_int_equal(bns_vfs_list(v, DIR_WAL, count_name, &files, NULL), BNS_OK);
    assert_in_range(files, 1, 2 + WAL_RECYCLED_MAX); /* the segment, spares */
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    free(none);
}

/* A full disk refuses, keeps what was accepted, and goes on when there is room. */
static void full_disk_refuses_then_recovers(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(5);
    struct senv s;
    struct bns_wal *w;
    int rv = BNS_OK, refused = 0;
    (void)state;

    model_init(m, 11);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 3 * WAL_SEGMENT_MIN;
    for (int i = 0; i < 300 && refused < 5; i++) {
        rv = model_append(m, w, 3000);
        refused += rv == BNS_E_NOSPACE;
        if (rv != BNS_OK && rv != BNS_E_NOSPACE)
            assert_int_equal(rv, BNS_E_BUSY);
        if (i % 5 == 0)
            senv_pump(&s);
    }
    assert_true(refused > 0);
    assert_int_equal(s.fatal_code, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 0;
    senv_advance(&s, BNS_SEC);
    assert_int_equal(model_append(m, w, 3000), BNS_OK);
    senv_pump(&s);
    assert_int_equal(m->acked_lsn, m->records[m->count - 1].lsn);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = model_open(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* Under the reserve there is no room for new work, and no spare is made ahead; what was accepted
 * already gets its segments from the reserve, until that is used up; there is room again later. */
static void reserve_is_for_what_was_accepted(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(6);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    int rv = BNS_OK;
    (void)state;

    model_init(m, 12);
    senv_init(&s, v, 1, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 10 * WAL_SEGMENT_MIN;
    w = model_open(&s, m, 5 * WAL_SEGMENT_MIN);
    assert_true(bns_wal_has_room(w));
    bns_vfs_mem_config(v)->capacity_bytes = 4 * WAL_SEGMENT_MIN;
    senv_advance(&s, 2 * BNS_SEC);
    assert_false(bns_wal_has_room(w));
    for (int i = 0; i < 100 && rv == BNS_OK; i++) {
        rv = model_append(m, w, 3000);
        senv_pump(&s);
        if (bns_wal_tail(w)->used > WAL_SEGMENT_MIN / 2)
            assert_true(w->spare.state == WAL_SPARE_FAILED); /* never ahead */
    }
    assert_int_equal(rv, BNS_E_NOSPACE);
    bns_wal_stats(w, &st);
    assert_int_equal(st.segments, 5); /* four fill the disk; one batch waits for the fifth */
    assert_true(st.durable_lsn < st.next_lsn - 1);
    assert_int_equal(s.fatal_code, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 20 * WAL_SEGMENT_MIN;
    senv_advance(&s, BNS_SEC);
    assert_true(bns_wal_has_room(w));
    assert_int_equal(model_append(m, w, 3000), BNS_OK);
    senv_pump(&s);
    assert_int_equal(m->acked_lsn, m->records[m->count - 1].lsn);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = model_open(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* The next segment cannot be made: no room is reported while the tail still takes what is on its
 * way, and the disk has not one byte left. */
static void a_disk_at_zero_still_takes_what_fits(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(6);
    struct senv s;
    struct bns_wal *w;
    uint64_t left;
    (void)state;

    model_init(m, 17);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, WAL_SEGMENT_MIN);
    bns_vfs_mem_config(v)->capacity_bytes = WAL_SEGMENT_MIN;
    assert_true(bns_wal_fits(w, 0));
    while (
        bns_wal_has_room(w)) { /* known at once when the spare is due, whatever was known before */
        assert_int_equal(model_append(m, w, 500), BNS_OK);
        senv_pump(&s);
    }
    left = WAL_SEGMENT_MIN - bns_wal_tail(w)->used;
    assert_in_range(left, WAL_SEGMENT_MIN / 2 - 4000, WAL_SEGMENT_MIN / 2);
    assert_true(bns_wal_fits(w, left - WAL_SEGMENT_MIN / 8));
    assert_false(bns_wal_fits(w, left - WAL_SEGMENT_MIN / 8 + 1));
    while (bns_wal_fits(w, 4 * 600)) {
        assert_int_equal(model_append(m, w, 500), BNS_OK);
        senv_pump(&s);
        assert_int_equal(m->acked_lsn, m->records[m->count - 1].lsn);
    }
    assert_true(bns_wal_tail(w)->bytes - bns_wal_tail(w)->used >= WAL_SEGMENT_MIN / 8);
    bns_vfs_mem_config(v)->capacity_bytes = 0;
    senv_advance(&s, BNS_SEC);
    assert_true(bns_wal_has_room(w));
    assert_true(bns_wal_fits(w, 40000)); /* in the spare */
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* Who asks before it appends is never told what the disk was like more than a second ago. */
static void room_is_looked_up_when_unknown(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(6);
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 12);
    senv_init(&s, v, 1, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 10 * WAL_SEGMENT_MIN;
    w = model_open(&s, m, 5 * WAL_SEGMENT_MIN);
    bns_vfs_mem_config(v)->capacity_bytes = 4 * WAL_SEGMENT_MIN;
    assert_true(bns_wal_has_room(w)); /* as it was at the start */
    senv_advance(&s, BNS_SEC);
    assert_false(bns_wal_has_room(w));
    bns_vfs_mem_config(v)->capacity_bytes = 10 * WAL_SEGMENT_MIN;
    assert_false(bns_wal_has_room(w));
    senv_advance(&s, BNS_SEC);
    assert_true(bns_wal_has_room(w));
    assert_int_equal(model_append(m, w, 100), BNS_OK);
    senv_pump(&s);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* ---- waiting for a segment ------------------------------------------------------------------- */

/* The pool is slow: batches wait, through several segments, and then go on in order. */
static void appends_wait_for_segments_in_order(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(11);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 21);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
    s.hold_pool = true;
    for (int i = 0; i < 50; i++)
        assert_int_equal(model_append(m, w, 8000), BNS_OK);
    senv_pump(&s);
    bns_wal_stats(w, &st);
    assert_true(st.segments >= 4);
    assert_true(st.durable_lsn < st.next_lsn - 1);
    s.hold_pool = false;
    senv_pump(&s);
    bns_wal_stats(w, &st);
    assert_int_equal(st.durable_lsn, st.next_lsn - 1);
    assert_null(m->bad);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = model_open(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

static void count_code(struct bns_wal_append *a, int code)
{
    int *codes = a->arg;
    codes[-code]++;
}

/* More than 256 MiB waiting is refused; a close that finds no room ends what waits with NOSPACE. */
static void what_waits_is_bounded_and_ended_by_close(void **state)
{
    uint8_t *big = calloc(1, BNS_WAL_RECORD_MAX);
    struct bns_wal_append a[20];
    struct bns_wal_record r = {.type = BNS_WAL_ENTRY, .slices = 1};
    struct bns_vfs *v = model_vfs(12);
    struct model *m = malloc(sizeof *m);
    int codes[32] = {0}, accepted = 0, rv = BNS_OK;
    struct senv s;
    struct bns_wal *w;
    bool closed = false;
    (void)state;

    model_init(m, 1);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
    s.hold_pool = true;
    bns_vfs_mem_config(v)->capacity_bytes = 2 * WAL_SEGMENT_MIN;
    r.payload[0] = bns_slice(big, BNS_WAL_RECORD_MAX);
    while (accepted < 20 && rv == BNS_OK) {
        a[accepted] = (struct bns_wal_append){
            .records = &r, .records_count = 1, .done = count_code, .arg = codes};
        rv = bns_wal_append(w, &a[accepted]);
        accepted += rv == BNS_OK;
    }
    assert_int_equal(rv, BNS_E_BUSY);
    assert_int_equal(accepted, 15); /* the 16th would pass 256 MiB with the heads and checkpoints */
    bns_wal_close(w, model_closed, &closed);
    assert_int_equal(bns_wal_append(w, &a[accepted]), BNS_E_SHUTDOWN);
    senv_pump(&s);
    assert_false(closed); /* a spare is in the making */
    s.hold_pool = false;
    senv_pump(&s);
    assert_true(closed);
    assert_int_equal(codes[-BNS_E_NOSPACE], 15);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_config(v)->capacity_bytes = 0;
    senv_init(&s, v, 2, 0);
    w = model_open(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    free(big);
    free(m);
}

/* The disk is full, batches wait, the owner closes: a last try is made, and now there is room. */
static void close_tries_once_more(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(13);
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 31);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
    bns_vfs_mem_config(v)->capacity_bytes = WAL_SEGMENT_MIN + 4096;
    s.hold_pool = true;
    for (int i = 0; i < 30; i++)
        assert_int_equal(model_append(m, w, 8000), BNS_OK);
    s.hold_pool = false;
    senv_pump(&s);
    assert_true(m->acked_lsn < m->records[m->count - 1].lsn);
    bns_vfs_mem_config(v)->capacity_bytes = 0;
    model_close(&s, w);
    assert_int_equal(m->acked_lsn, m->records[m->count - 1].lsn);
    assert_false(m->got_error);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = model_open(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

static void release_all(struct model *m, struct bns_wal *w)
{
    for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
        m->released[g] = m->acked_lsn;
        bns_wal_release(w, g, m->acked_lsn);
    }
}

static void append_some(struct senv *s, struct model *m, struct bns_wal *w, int count)
{
    for (int i = 0; i < count; i++) {
        assert_int_equal(model_append(m, w, 5000), BNS_OK);
        senv_pump(s);
    }
}

/* A removal or a renaming that fails leaves no hole: the segment stays, and goes with the next
 * release. A directory that cannot be synced: the file is not used again. */
static void failed_removal_is_made_up_for(void **state)
{
    static const struct {
        unsigned op;
        const char *text;
        uint64_t n;
        bool stays; /* in the log, until the next release */
    } t[] = {{BNS_VOP_REMOVE, ".seg", 2, true}, {BNS_VOP_RENAME, ".seg", 1, true},
             {BNS_VOP_RENAME, ".seg", 3, true}, {BNS_VOP_OPEN, ".seg", 2, true},
             {BNS_VOP_SYNC_DIR, NULL, 1, true}, {BNS_VOP_SYNC_DIR, NULL, 3, true}};
    (void)state;

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct model *m = malloc(sizeof *m);
        struct bns_vfs *v = model_vfs(14);
        struct bns_wal_stats st;
        struct senv s;
        struct bns_wal *w;

        model_init(m, 41);
        senv_init(&s, v, 1, 0);
        w = model_open(&s, m, 0);
        append_some(&s, m, w, 100);
        bns_vfs_mem_fail_on(v, t[i].op, t[i].text, t[i].n, BNS_VFAULT_EIO);
        release_all(m, w);
        senv_pump(&s);
        assert_true(bns_vfs_mem_fired(v));
        assert_int_equal(s.fatal_code, 0);
        bns_wal_stats(w, &st);
        assert_true((st.segments > 1) == t[i].stays);
        append_some(&s, m, w, 20);
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        senv_init(&s, v, 2, 0);
        w = model_open(&s, m, 0); /* no hole */
        for (int k = 0; k < 60; k++) {
            append_some(&s, m, w, 1);
            release_all(m, w);
        }
        senv_pump(&s);
        bns_wal_stats(w, &st);
        assert_in_range(st.segments, 1, 2);
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
        model_free(m);
        free(m);
    }
}

static int count_tmp(void *arg, const char *name)
{
    *(int *)arg += strstr(name, ".tmp") != NULL;
    return BNS_OK;
}

/* Once the log has let go of a segment no further file is made and nothing is written twice: the
 * disk gets the records and little else. No two segments have the same salt. */
static void released_segments_are_used_again(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(21);
    struct bns_vfs_mem_stats io1, io2;
    struct bns_wal_stats st1, st2;
    struct senv s;
    struct bns_wal *w;
    uint32_t salt;
    int tmp = 0;
    (void)state;

    model_init(m, 43);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
    salt = bns_wal_tail(w)->salt;
    append_some(&s, m, w, 60);
    release_all(m, w);
    senv_pump(&s);
    assert_int_equal(bns_vfs_list(v, DIR_WAL, count_tmp, &tmp, NULL), BNS_OK);
    assert_in_range(tmp, WAL_RECYCLED_MAX, WAL_RECYCLED_MAX + 1);
    io1 = bns_vfs_mem_stats(v);
    bns_wal_stats(w, &st1);
    for (int i = 0; i < 200; i++) {
        append_some(&s, m, w, 1);
        release_all(m, w);
    }
    senv_pump(&s);
    io2 = bns_vfs_mem_stats(v);
    bns_wal_stats(w, &st2);
    assert_true(bns_wal_tail(w)->reused);
    assert_true(bns_wal_tail(w)->salt - salt > 20); /* one a segment, one more each time */
    assert_true(st2.bytes - st1.bytes > 10 * WAL_SEGMENT_MIN);
    assert_true(io2.written_bytes - io1.written_bytes == st2.bytes - st1.bytes);
    assert_true(io2.used_bytes <= io1.used_bytes);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = model_open(&s, m, 0);
    tmp = 0;
    assert_int_equal(bns_vfs_list(v, DIR_WAL, count_tmp, &tmp, NULL), BNS_OK);
    assert_in_range(tmp, 0, 1); /* a restart begins without */
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    assert_int_equal(bns_vfs_mem_handles(v), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* Below the reserve the log gives back what it only keeps for speed, all but its one spare; what
 * cannot be removed just stays, and the log goes on. */
static void spares_are_given_back_when_space_is_low(void **state)
{
    (void)state;
    for (int fail = 0; fail < 3; fail++) {
        struct model *m = malloc(sizeof *m);
        struct bns_vfs *v = model_vfs(22);
        struct bns_vfs_mem_stats io1, io2;
        struct senv s;
        struct bns_wal *w;
        int tmp = 0;

        model_init(m, 44);
        senv_init(&s, v, 1, 0);
        w = model_open(&s, m, WAL_SEGMENT_MIN);
        append_some(&s, m, w, 60);
        release_all(m, w);
        senv_pump(&s);
        assert_int_equal(w->recycled_count + (w->spare.reused ? 1 : 0), WAL_RECYCLED_MAX);
        io1 = bns_vfs_mem_stats(v);
        bns_vfs_mem_config(v)->capacity_bytes = io1.used_bytes;
        if (fail == 1)
            bns_vfs_mem_fail_on(v, BNS_VOP_REMOVE, ".tmp", 1, BNS_VFAULT_EIO);
        if (fail == 2)
            bns_vfs_mem_fail_on(v, BNS_VOP_SYNC_DIR, NULL, 1, BNS_VFAULT_EIO);
        senv_advance(&s, BNS_SEC);
        assert_false(bns_wal_has_room(w));
        senv_advance(&s, BNS_SEC);
        if (fail < 2)
            assert_int_equal(w->recycled_count, 0);
        else /* one went, and that was enough */
            assert_int_equal(w->recycled_count, WAL_RECYCLED_MAX - 1);
        assert_true(bns_wal_has_room(w)); /* what came back is enough */
        io2 = bns_vfs_mem_stats(v);
        assert_true(io2.used_bytes + (fail < 2 ? 2 : 1) * WAL_SEGMENT_MIN <= io1.used_bytes);
        assert_int_equal(bns_vfs_list(v, DIR_WAL, count_tmp, &tmp, NULL), BNS_OK);
        assert_in_range(tmp, 0, fail < 2 ? 2 : WAL_RECYCLED_MAX);
        append_some(&s, m, w, 10);
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        senv_init(&s, v, 2, 0);
        w = model_open(&s, m, 0);
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
        model_free(m);
        free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(release_removes_segments),
        cmocka_unit_test(full_disk_refuses_then_recovers),
        cmocka_unit_test(reserve_is_for_what_was_accepted),
        cmocka_unit_test(a_disk_at_zero_still_takes_what_fits),
        cmocka_unit_test(room_is_looked_up_when_unknown),
        cmocka_unit_test(appends_wait_for_segments_in_order),
        cmocka_unit_test(what_waits_is_bounded_and_ended_by_close),
        cmocka_unit_test(close_tries_once_more),
        cmocka_unit_test(failed_removal_is_made_up_for),
        cmocka_unit_test(released_segments_are_used_again),
        cmocka_unit_test(spares_are_given_back_when_space_is_low),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
