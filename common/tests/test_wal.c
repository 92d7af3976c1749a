/* test_wal.c - the log on the memory VFS: round trips, rolling, release, refusals, poison.
 * The sweeps over crashes and damage are in sim_wal.c. */
#include "base/crc32c.h"
#include "store/wal_impl.h"
#include "wal_model.h"

#define DIR_WAL "w"

static struct bns_wal *open_log(struct senv *s, struct model *m, uint64_t reserve)
{
    struct bns_wal_config cfg = {
        .dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN, .reserve_bytes = reserve};
    struct bns_wal_stats st;
    struct bns_wal *w = NULL;
    struct bns_err err = {0};
    int rv;

    model_replay_begin(m);
    rv = bns_wal_open(&s->env, &cfg, model_replay, m, &w, &err);
    if (rv != BNS_OK)
        fail_msg("open: %s", err.text);
    bns_wal_stats(w, &st);
    if (model_replay_end(m, st.next_lsn) != NULL)
        fail_msg("replay: %s", m->bad);
    return w;
}

static struct bns_vfs *vfs_new(uint64_t seed)
{
    struct bns_vfs *v = NULL;
    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &v), BNS_OK);
    return v;
}

/* Random batches of three groups, many segments, reopened again and again: all comes back. */
static void what_was_appended_is_replayed(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(1);
    (void)state;

    model_init(m, 42);
    for (uint64_t round = 0; round < 8; round++) {
        struct senv s;
        struct bns_wal *w;
        senv_init(&s, v, round + 100, 0);
        w = open_log(&s, m, 0);
        for (int i = 0; i < 60; i++) {
            int rv = model_append(m, w, i % 10 == 0 ? 20000 : 300);
            if (rv != BNS_OK)
                assert_int_equal(rv, BNS_E_BUSY);
            if (i % 7 == 0)
                senv_pump(&s);
            if (i % 31 == 0)
                senv_advance(&s, BNS_SEC);
        }
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
    }
    assert_int_equal(bns_vfs_mem_handles(v), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* All that is queued goes to disk with one write and one sync. */
static void one_sync_a_handler_call(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(2);
    struct bns_wal_stats before, after;
    struct bns_vfs_mem_stats io1, io2;
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 7);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
    senv_pump(&s);
    bns_wal_stats(w, &before);
    io1 = bns_vfs_mem_stats(v);
    for (int i = 0; i < 40; i++)
        assert_int_equal(model_append(m, w, 100), BNS_OK);
    senv_pump(&s);
    bns_wal_stats(w, &after);
    io2 = bns_vfs_mem_stats(v);
    assert_int_equal(after.syncs - before.syncs, 1);
    assert_int_equal(io2.syncs - io1.syncs, 1);
    assert_int_equal(io2.writes - io1.writes, 1);
    assert_int_equal(after.durable_lsn, after.next_lsn - 1);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* A seal follows 100 ms of idleness, once; it makes damage before it detectable. */
static void idle_log_is_sealed_once(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(3);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    uint64_t next;
    (void)state;

    model_init(m, 9);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
    assert_int_equal(model_append(m, w, 100), BNS_OK);
    senv_pump(&s);
    bns_wal_stats(w, &st);
    next = st.next_lsn;
    senv_advance(&s, 99 * BNS_MS);
    bns_wal_stats(w, &st);
    assert_int_equal(st.next_lsn, next);
    senv_advance(&s, 10 * BNS_SEC);
    bns_wal_stats(w, &st);
    assert_int_equal(st.next_lsn, next + 1);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

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
    struct bns_vfs *v = vfs_new(4);
    struct model *none = malloc(sizeof *none);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    int files = 0;
    (void)state;

    model_init(none, 1);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, none, 0);
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
    assert_in_range(files, 1, 2); /* the segment and perhaps a spare */
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    free(none);
}

/* A full disk refuses, keeps what was accepted, and goes on when there is room. */
static void full_disk_refuses_then_recovers(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(5);
    struct senv s;
    struct bns_wal *w;
    int rv = BNS_OK, refused = 0;
    (void)state;

    model_init(m, 11);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
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
    w = open_log(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* Under the reserve nothing is accepted; the check is repeated until there is room. */
static void reserve_is_kept_free(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(6);
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 12);
    senv_init(&s, v, 1, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 10 * WAL_SEGMENT_MIN;
    w = open_log(&s, m, 5 * WAL_SEGMENT_MIN);
    assert_int_equal(model_append(m, w, 100), BNS_OK);
    senv_pump(&s);
    bns_vfs_mem_config(v)->capacity_bytes = 4 * WAL_SEGMENT_MIN;
    senv_advance(&s, 2 * BNS_SEC);
    assert_int_equal(model_append(m, w, 100), BNS_OK); /* this one starts the check */
    senv_pump(&s);
    assert_int_equal(model_append(m, w, 100), BNS_E_NOSPACE);
    bns_vfs_mem_config(v)->capacity_bytes = 10 * WAL_SEGMENT_MIN;
    senv_advance(&s, BNS_SEC);
    assert_int_equal(model_append(m, w, 100), BNS_OK);
    senv_pump(&s);
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
    struct bns_vfs *v = vfs_new(6);
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 12);
    senv_init(&s, v, 1, 0);
    bns_vfs_mem_config(v)->capacity_bytes = 10 * WAL_SEGMENT_MIN;
    w = open_log(&s, m, 5 * WAL_SEGMENT_MIN);
    bns_vfs_mem_config(v)->capacity_bytes = 4 * WAL_SEGMENT_MIN;
    assert_true(bns_wal_has_room(w)); /* as it was at the start */
    senv_advance(&s, BNS_SEC);
    assert_false(bns_wal_has_room(w));
    assert_int_equal(model_append(m, w, 100), BNS_E_NOSPACE);
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

/* A failed sync or write: fatal 6 once, no acknowledgement after it, everything ends. */
static void io_error_poisons(void **state)
{
    static const unsigned ops[] = {BNS_VOP_SYNC, BNS_VOP_WRITE};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct model *m = malloc(sizeof *m);
        struct bns_vfs *v = vfs_new(7);
        struct senv s;
        struct bns_wal *w;
        uint64_t acked;

        model_init(m, 13);
        senv_init(&s, v, 1, 0);
        w = open_log(&s, m, 0);
        assert_int_equal(model_append(m, w, 100), BNS_OK);
        senv_pump(&s);
        acked = m->acked_lsn;
        bns_vfs_mem_fail_on(v, ops[i], "wal-", 1, BNS_VFAULT_EIO);
        assert_int_equal(model_append(m, w, 100), BNS_OK);
        assert_int_equal(model_append(m, w, 100), BNS_OK);
        senv_pump(&s);
        assert_true(bns_vfs_mem_fired(v));
        assert_int_equal(s.fatal_code, 6);
        assert_non_null(strstr(s.fatal_text, "wal-"));
        assert_true(m->got_error);
        assert_int_equal(m->error_code, BNS_E_IO);
        assert_int_equal(m->acked_lsn, acked);
        assert_int_equal(model_append(m, w, 100), BNS_E_IO);
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        senv_init(&s, v, 2, 0);
        w = open_log(&s, m, 0);
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
        bns_vfs_mem_free(v);
        model_free(m);
        free(m);
    }
}

/* Limits: a record over 16 MiB, a batch over 64 MiB, a batch bigger than a segment. */
static void sizes_are_bounded(void **state)
{
    uint8_t *big = calloc(1, BNS_WAL_RECORD_MAX + 1);
    struct bns_vfs *v = vfs_new(8);
    struct model *m = malloc(sizeof *m);
    struct bns_wal_record r[5];
    struct bns_wal_append a = {.records = r, .records_count = 1};
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 1);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
    for (size_t i = 0; i < 5; i++) {
        r[i] = (struct bns_wal_record){.type = BNS_WAL_ENTRY, .slices = 1};
        r[i].payload[0] = bns_slice(big, BNS_WAL_RECORD_MAX);
    }
    a.records_count = 5;
    assert_int_equal(bns_wal_append(w, &a), BNS_E_TOOBIG);
    a.records_count = 1;
    assert_int_equal(bns_wal_append(w, &a), BNS_OK);
    senv_pump(&s);
    assert_int_equal(bns_wal_durable_lsn(w), a.lsn_last);
    r[0].payload[0].len++;
    assert_int_equal(bns_wal_append(w, &a), BNS_E_TOOBIG);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    free(big);
    free(m);
}

static int count_group(void *arg, uint64_t lsn, uint32_t group, uint8_t type,
                       struct bns_slice payload)
{
    (void)lsn;
    (void)type;
    (void)payload;
    *(int *)arg += group == 77;
    return BNS_OK;
}

/* A forgotten group, hard state and all, is gone once the next segment's checkpoint is there. */
static void forgotten_group_is_gone(void **state)
{
    static uint8_t bytes[30000];
    struct bns_wal_config cfg = {.dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN};
    struct bns_vfs *v = vfs_new(9);
    int expected[] = {2, 0};
    (void)state;

    for (int round = 0; round < 3; round++) {
        struct senv s;
        struct bns_wal *w = NULL;
        int seen = 0;
        senv_init(&s, v, (uint64_t)round, 0);
        assert_int_equal(bns_wal_open(&s.env, &cfg, count_group, &seen, &w, NULL), BNS_OK);
        if (round > 0)
            assert_int_equal(seen, expected[round - 1]);
        for (uint32_t i = 0; i < 5 && round < 2; i++) {
            struct bns_wal_record r = {.group = i < 2 && round == 0 ? 77 : 3, .slices = 1};
            struct bns_wal_append a = {.records = &r, .records_count = 1};
            r.type = i == 0 ? BNS_WAL_STATE : BNS_WAL_ENTRY;
            r.payload[0] = bns_slice(bytes, i == 0 ? 24 : sizeof bytes);
            assert_int_equal(bns_wal_append(w, &a), BNS_OK);
            senv_pump(&s);
            if (round == 1)
                bns_wal_release(w, 77, BNS_NEVER);
        }
        model_close(&s, w);
        assert_int_equal(senv_free(&s, NULL), 0);
    }
    bns_vfs_mem_free(v);
}

/* ---- waiting for a segment ------------------------------------------------------------------- */

/* The pool is slow: batches wait, through several segments, and then go on in order. */
static void appends_wait_for_segments_in_order(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(11);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 21);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
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
    w = open_log(&s, m, 0);
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
    struct bns_vfs *v = vfs_new(12);
    struct model *m = malloc(sizeof *m);
    int codes[32] = {0}, accepted = 0, rv = BNS_OK;
    struct senv s;
    struct bns_wal *w;
    bool closed = false;
    (void)state;

    model_init(m, 1);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
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
    w = open_log(&s, m, 0);
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
    struct bns_vfs *v = vfs_new(13);
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 31);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
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
    w = open_log(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* A removal that fails leaves no hole: the segment stays, and goes with the next release. */
static void failed_removal_is_made_up_for(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(14);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 41);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(model_append(m, w, 5000), BNS_OK);
        senv_pump(&s);
    }
    bns_vfs_mem_fail_on(v, BNS_VOP_REMOVE, ".seg", 2, BNS_VFAULT_EIO);
    for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
        m->released[g] = m->acked_lsn;
        bns_wal_release(w, g, m->acked_lsn);
    }
    senv_pump(&s);
    assert_true(bns_vfs_mem_fired(v));
    bns_wal_stats(w, &st);
    assert_true(st.segments > 1);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = open_log(&s, m, 0); /* no hole */
    for (int i = 0; i < 60; i++) {
        assert_int_equal(model_append(m, w, 5000), BNS_OK);
        senv_pump(&s);
        for (uint32_t g = 0; g < MODEL_GROUPS; g++) {
            m->released[g] = m->acked_lsn;
            bns_wal_release(w, g, m->acked_lsn);
        }
    }
    senv_pump(&s);
    bns_wal_stats(w, &st);
    assert_in_range(st.segments, 1, 2);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* sync: never still writes everything in order, without one fdatasync of a record. */
static void unsafe_mode_does_not_sync(void **state)
{
    struct bns_wal_config cfg = {
        .dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN, .unsafe_no_sync = true};
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(15);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w = NULL;
    uint64_t syncs;
    (void)state;

    model_init(m, 51);
    senv_init(&s, v, 1, 0);
    model_replay_begin(m);
    assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, m, &w, NULL), BNS_OK);
    bns_wal_stats(w, &st);
    syncs = st.syncs;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(model_append(m, w, 1000), BNS_OK);
        senv_pump(&s);
    }
    bns_wal_stats(w, &st);
    assert_int_equal(st.syncs, syncs);
    assert_int_equal(m->acked_lsn, m->records[m->count - 1].lsn);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    w = open_log(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* ---- what open refuses ----------------------------------------------------------------------- */

static void write_header(struct bns_vfs *v, const struct bns_wal_header *h, uint64_t name_lsn,
                         uint32_t version)
{
    static uint8_t bytes[4096];
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX];
    struct bns_slice b = bns_slice(bytes, sizeof bytes);
    struct bns_file *f = NULL;

    bns_wal_header_put(bytes, h);
    bns_put_u32le(bytes + 4, version);
    bns_put_u32le(bytes, bns_crc32c(0, bytes + 4, 60));
    bns_wal_name(name, name_lsn);
    bns_wal_path(path, DIR_WAL, name);
    assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_CREATE, &f, NULL), BNS_OK);
    assert_int_equal(bns_file_write_at(f, 0, &b, 1, NULL), BNS_OK);
    bns_file_close(f);
}

/* Well-formed headers that say something impossible, as data. */
static void impossible_headers_are_refused(void **state)
{
    static const struct {
        const char *what;
        struct bns_wal_header h;
        uint64_t name_lsn;
        uint32_t version;
        int rv;
        const char *text;
    } t[] = {
        {"newer format", {5, 4, {0}, 1, 4096}, 5, 2, BNS_E_UNSUPPORTED, "version 2 is newer"},
        {"another name", {6, 5, {0}, 1, 4096}, 5, 1, BNS_E_CORRUPT, "that of another segment"},
        {"another size", {5, 4, {0}, 1, 8192}, 5, 1, BNS_E_CORRUPT, "the size in its header"},
        {"lsn 0", {0, UINT64_MAX, {0}, 1, 4096}, 0, 1, BNS_E_CORRUPT, "fails its checksum"},
        {"a gap", {5, 3, {0}, 1, 4096}, 5, 1, BNS_E_CORRUPT, "fails its checksum"},
        {"tiny", {5, 4, {0}, 1, 8}, 5, 1, BNS_E_CORRUPT, "fails its checksum"},
        {"huge", {5, 4, {0}, 1, 0xfffffff8}, 5, 1, BNS_E_CORRUPT, "fails its checksum"},
        {"odd size", {5, 4, {0}, 1, 4095}, 5, 1, BNS_E_CORRUPT, "fails its checksum"},
        {"empty", {5, 4, {0}, 1, 4096}, 5, 1, BNS_E_CORRUPT, "lost its checkpoint"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_wal_config cfg = {.dir = DIR_WAL};
        struct bns_vfs *v = vfs_new(16);
        struct bns_wal *w = NULL;
        struct bns_err err = {0};
        struct senv s;

        print_message("  %s\n", t[i].what);
        assert_int_equal(bns_vfs_mkdir(v, DIR_WAL, NULL), BNS_OK);
        write_header(v, &t[i].h, t[i].name_lsn, t[i].version);
        senv_init(&s, v, 1, 0);
        assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, NULL, &w, &err), t[i].rv);
        assert_non_null(strstr(err.text, t[i].text));
        assert_int_equal(senv_free(&s, NULL), 0);
        bns_vfs_mem_free(v);
    }
}

/* A segment of another log between ours; files that are none of ours are left alone. */
static void foreign_files(void **state)
{
    static const char *const others[] = {"wal-00000000000000A1.seg",
                                         "wal-0000000000000001.seg2",
                                         "wal-1.tmp2",
                                         "wal-x.tmp",
                                         "wal-99999999999999999999999.tmp",
                                         "note",
                                         "wal-99999999999999999999.tmp"};
    struct bns_wal_header h = {.first_lsn = 1000, .prev_last_lsn = 999, .bytes = 4096};
    struct bns_wal_config cfg = {.dir = DIR_WAL};
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(17);
    struct bns_wal *w = NULL;
    struct bns_err err = {0};
    struct senv s;
    int files = 0;
    (void)state;

    model_init(m, 61);
    assert_int_equal(bns_vfs_mkdir(v, DIR_WAL, NULL), BNS_OK);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char path[64];
        struct bns_file *f = NULL;
        (void)snprintf(path, sizeof path, DIR_WAL "/%s", others[i]);
        assert_int_equal(bns_vfs_open(v, path, BNS_OPEN_CREATE, &f, NULL), BNS_OK);
        bns_file_close(f);
    }
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    assert_int_equal(bns_vfs_list(v, DIR_WAL, count_name, &files, NULL), BNS_OK);
    assert_int_equal(files, 1 + sizeof others / sizeof others[0]);
    h.log_id[3] = 9;
    write_header(v, &h, 1000, 1);
    senv_init(&s, v, 2, 0);
    assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, m, &w, &err), BNS_E_CORRUPT);
    assert_non_null(strstr(err.text, "another log"));
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    free(m);
}

static int refuse(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice p)
{
    (void)lsn;
    (void)group;
    (void)type;
    (void)p;
    return bns_err_set(arg, BNS_E_CONFLICT, "not mine");
}

/* An error of the owner's replay stops the open and is returned as it is. */
static void replay_can_refuse(void **state)
{
    struct bns_wal_config cfg = {.dir = DIR_WAL};
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = vfs_new(18);
    struct bns_wal *w;
    struct bns_err err = {0};
    struct senv s;
    (void)state;

    model_init(m, 71);
    senv_init(&s, v, 1, 0);
    w = open_log(&s, m, 0);
    assert_int_equal(model_append(m, w, 100), BNS_OK);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    senv_init(&s, v, 2, 0);
    assert_int_equal(bns_wal_open(&s.env, &cfg, refuse, &err, &w, &err), BNS_E_CONFLICT);
    assert_string_equal(err.text, "not mine");
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* A bad configuration is refused with a text, before anything is touched. */
static void config_is_checked(void **state)
{
    char path[600];
    struct bns_wal_config cfg = {.dir = path, .segment_bytes_max = 4096};
    struct bns_vfs *v = vfs_new(10);
    struct bns_wal *w = NULL;
    struct bns_err err;
    struct senv s;
    (void)state;

    senv_init(&s, v, 1, 0);
    memset(path, 'a', sizeof path);
    path[3] = '\0';
    assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, NULL, &w, &err), BNS_E_INVALID);
    path[3] = 'a';
    path[599] = '\0';
    cfg.segment_bytes_max = 0;
    assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, NULL, &w, &err), BNS_E_INVALID);
    assert_int_equal(senv_free(&s, NULL), 0);
    bns_vfs_mem_free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_is_replayed),
        cmocka_unit_test(one_sync_a_handler_call),
        cmocka_unit_test(idle_log_is_sealed_once),
        cmocka_unit_test(release_removes_segments),
        cmocka_unit_test(full_disk_refuses_then_recovers),
        cmocka_unit_test(reserve_is_kept_free),
        cmocka_unit_test(room_is_looked_up_when_unknown),
        cmocka_unit_test(io_error_poisons),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(forgotten_group_is_gone),
        cmocka_unit_test(appends_wait_for_segments_in_order),
        cmocka_unit_test(what_waits_is_bounded_and_ended_by_close),
        cmocka_unit_test(close_tries_once_more),
        cmocka_unit_test(failed_removal_is_made_up_for),
        cmocka_unit_test(unsafe_mode_does_not_sync),
        cmocka_unit_test(impossible_headers_are_refused),
        cmocka_unit_test(foreign_files),
        cmocka_unit_test(replay_can_refuse),
        cmocka_unit_test(config_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
