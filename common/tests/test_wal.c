/* test_wal.c - the log on the memory VFS: round trips, rolling, refusals, poison.
 * Space and spares: test_wal_space.c. The sweeps over crashes and damage: sim_wal.c. */
#include "base/crc32c.h"
#include "store/wal_impl.h"
#include "wal_model.h"

#define DIR_WAL "w"

/* Random batches of three groups, many segments, reopened again and again: all comes back. */
static void what_was_appended_is_replayed(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(1);
    (void)state;

    model_init(m, 42);
    for (uint64_t round = 0; round < 8; round++) {
        struct senv s;
        struct bns_wal *w;
        senv_init(&s, v, round + 100, 0);
        w = model_open(&s, m, 0);
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
    struct bns_vfs *v = model_vfs(2);
    struct bns_wal_stats before, after;
    struct bns_vfs_mem_stats io1, io2;
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 7);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
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
    struct bns_vfs *v = model_vfs(3);
    struct bns_wal_stats st;
    struct senv s;
    struct bns_wal *w;
    uint64_t next;
    (void)state;

    model_init(m, 9);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
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

/* A failed sync or write: fatal 6 once, no acknowledgement after it, everything ends. */
static void io_error_poisons(void **state)
{
    static const unsigned ops[] = {BNS_VOP_SYNC, BNS_VOP_WRITE};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct model *m = malloc(sizeof *m);
        struct bns_vfs *v = model_vfs(7);
        struct senv s;
        struct bns_wal *w;
        uint64_t acked;

        model_init(m, 13);
        senv_init(&s, v, 1, 0);
        w = model_open(&s, m, 0);
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
        w = model_open(&s, m, 0);
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
    struct bns_vfs *v = model_vfs(8);
    struct model *m = malloc(sizeof *m);
    struct bns_wal_record r[5];
    struct bns_wal_append a = {.records = r, .records_count = 1};
    struct senv s;
    struct bns_wal *w;
    (void)state;

    model_init(m, 1);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
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
    struct bns_vfs *v = model_vfs(9);
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

/* sync: never still writes everything in order, without one fdatasync of a record. */
static void unsafe_mode_does_not_sync(void **state)
{
    struct bns_wal_config cfg = {
        .dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN, .unsafe_no_sync = true};
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = model_vfs(15);
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
    w = model_open(&s, m, 0);
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
        {"newer format", {5, 4, {0}, 1, 4096, 0}, 5, 3, BNS_E_UNSUPPORTED, "has format version 3"},
        {"older format", {5, 4, {0}, 1, 4096, 0}, 5, 1, BNS_E_UNSUPPORTED, "has format version 1"},
        {"another name", {6, 5, {0}, 1, 4096, 0}, 5, 2, BNS_E_CORRUPT, "that of another segment"},
        {"another size", {5, 4, {0}, 1, 8192, 0}, 5, 2, BNS_E_CORRUPT, "the size in its header"},
        {"lsn 0", {0, UINT64_MAX, {0}, 1, 4096, 0}, 0, 2, BNS_E_CORRUPT, "fails its checksum"},
        {"a gap", {5, 3, {0}, 1, 4096, 0}, 5, 2, BNS_E_CORRUPT, "fails its checksum"},
        {"tiny", {5, 4, {0}, 1, 8, 0}, 5, 2, BNS_E_CORRUPT, "fails its checksum"},
        {"huge", {5, 4, {0}, 1, 0xfffffff8, 0}, 5, 2, BNS_E_CORRUPT, "fails its checksum"},
        {"odd size", {5, 4, {0}, 1, 4095, 0}, 5, 2, BNS_E_CORRUPT, "fails its checksum"},
        {"empty", {5, 4, {0}, 1, 4096, 0}, 5, 2, BNS_E_CORRUPT, "lost its checkpoint"},
        {"unknown flags", {5, 4, {0}, 1, 4096, 2}, 5, 2, BNS_E_CORRUPT, "fails its checksum"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_wal_config cfg = {.dir = DIR_WAL};
        struct bns_vfs *v = model_vfs(16);
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
    struct bns_vfs *v = model_vfs(17);
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
    w = model_open(&s, m, 0);
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    assert_int_equal(bns_vfs_list(v, DIR_WAL, count_name, &files, NULL), BNS_OK);
    assert_int_equal(files, 1 + sizeof others / sizeof others[0]);
    h.log_id[3] = 9;
    write_header(v, &h, 1000, WAL_VERSION);
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
    struct bns_vfs *v = model_vfs(18);
    struct bns_wal *w;
    struct bns_err err = {0};
    struct senv s;
    (void)state;

    model_init(m, 71);
    senv_init(&s, v, 1, 0);
    w = model_open(&s, m, 0);
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
    struct bns_vfs *v = model_vfs(10);
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
        cmocka_unit_test(io_error_poisons),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(forgotten_group_is_gone),
        cmocka_unit_test(unsafe_mode_does_not_sync),
        cmocka_unit_test(impossible_headers_are_refused),
        cmocka_unit_test(foreign_files),
        cmocka_unit_test(replay_can_refuse),
        cmocka_unit_test(config_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
