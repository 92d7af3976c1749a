/* test_wal_tool.c - visit says what a start would say; repair makes a damaged log open again. */
#include "store/wal_impl.h"
#include "wal_model.h"

#define DIR_WAL "w"

static struct bns_vfs *make_log(struct model *m, int appends)
{
    struct bns_wal_config cfg = {.dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN};
    struct bns_vfs *v = NULL;
    struct bns_wal *w = NULL;
    struct senv s;

    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), 1, &v), BNS_OK);
    model_init(m, 5);
    senv_init(&s, v, 1, 0);
    model_replay_begin(m);
    assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, m, &w, NULL), BNS_OK);
    for (int i = 0; i < appends; i++) {
        assert_int_equal(model_append(m, w, 3000), BNS_OK);
        senv_pump(&s);
    }
    model_close(&s, w);
    assert_int_equal(senv_free(&s, NULL), 0);
    return v;
}

struct count {
    uint64_t records, own, last_lsn;
};

static int count_record(void *arg, const char *file, uint64_t off, uint64_t lsn, uint32_t group,
                        uint8_t type, struct bns_slice payload)
{
    struct count *c = arg;
    (void)payload;
    assert_non_null(strstr(file, ".seg"));
    assert_true(off >= WAL_HEADER_BYTES);
    assert_int_equal(lsn, c->last_lsn + 1);
    c->last_lsn = lsn;
    if (type == BNS_WAL_CHECKPOINT || type == BNS_WAL_SEAL) {
        assert_int_equal(group, 0);
        c->own++;
    } else {
        c->records++;
    }
    return BNS_OK;
}

static int stop_at_third(void *arg, const char *file, uint64_t off, uint64_t lsn, uint32_t group,
                         uint8_t type, struct bns_slice payload)
{
    (void)file;
    (void)off;
    (void)group;
    (void)type;
    (void)payload;
    ++*(int *)arg;
    return lsn == 3 ? BNS_E_CANCELED : BNS_OK;
}

/* Every record once, in order, across segments; the visitor can stop it. */
static void visit_shows_every_record(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = make_log(m, 60);
    struct count c = {0};
    struct bns_err err;
    int calls = 0;
    (void)state;

    assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), DIR_WAL, count_record, &c, &err), BNS_OK);
    assert_int_equal(c.records, m->count);
    assert_true(c.own >= 3); /* checkpoints of some segments and a seal */
    assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), DIR_WAL, stop_at_third, &calls, &err),
                     BNS_E_CANCELED);
    assert_int_equal(calls, 3);
    assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), DIR_WAL, NULL, NULL, &err), BNS_OK);
    assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), "none", NULL, NULL, &err), BNS_E_NOTFOUND);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

enum damage { FLIP_RECORD, FLIP_HEADER, CUT_FILE, GROW_FILE, LOSE_FILE, DAMAGES };

struct names {
    char name[32][64];
    size_t count;
};

static int on_name(void *arg, const char *name)
{
    struct names *n = arg;
    if (strstr(name, ".seg") != NULL && n->count < 32)
        (void)snprintf(n->name[n->count++], 64, DIR_WAL "/%s", name);
    return BNS_OK;
}

static void do_damage(struct bns_vfs *v, enum damage d, size_t which)
{
    struct names n = {.count = 0};
    struct bns_file *f = NULL;

    assert_int_equal(bns_vfs_list(v, DIR_WAL, on_name, &n, NULL), BNS_OK);
    assert_true(which < n.count);
    switch (d) {
    case FLIP_RECORD:
        assert_int_equal(bns_vfs_mem_flip(v, n.name[which], 5000, 4), BNS_OK);
        return;
    case FLIP_HEADER:
        assert_int_equal(bns_vfs_mem_flip(v, n.name[which], 45, 4), BNS_OK);
        return;
    case LOSE_FILE:
        assert_int_equal(bns_vfs_remove(v, n.name[which], NULL), BNS_OK);
        return;
    default:
        assert_int_equal(bns_vfs_open(v, n.name[which], BNS_OPEN_WRITE, &f, NULL), BNS_OK);
        assert_int_equal(bns_file_truncate(f, d == CUT_FILE ? 5000 : 99999, NULL), BNS_OK);
        bns_file_close(f);
    }
}

/* Whatever was damaged, in the first, a middle or the last segment: verify reports it, repair cuts
 * it, verify is then content, and the log opens with a prefix of what was written. */
static void repair_leaves_a_log_that_opens(void **state)
{
    (void)state;
    for (int d = 0; d < DAMAGES; d++) {
        for (size_t which = 0; which < 3; which++) {
            struct model *m = malloc(sizeof *m);
            struct bns_vfs *v = make_log(m, 60);
            struct bns_wal_config cfg = {.dir = DIR_WAL, .segment_bytes_max = WAL_SEGMENT_MIN};
            struct bns_wal *w = NULL;
            struct bns_wal_stats st;
            struct bns_err err = {0};
            struct senv s;
            uint64_t lost = 0;

            if (d == LOSE_FILE && which == 0)
                which = 1; /* a log that begins later is a log whose beginning was released */
            do_damage(v, (enum damage)d, which);
            assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), DIR_WAL, NULL, NULL, &err),
                             BNS_E_CORRUPT);
            assert_int_equal(bns_wal_repair(v, bns_alloc_libc(), DIR_WAL, &lost, &err), BNS_OK);
            assert_true(lost > 0 || d == GROW_FILE);
            assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), DIR_WAL, NULL, NULL, &err), BNS_OK);
            for (size_t i = 0; i < m->count; i++)
                m->records[i].acked = false; /* given up by whoever called repair */
            senv_init(&s, v, 2, 0);
            model_replay_begin(m);
            assert_int_equal(bns_wal_open(&s.env, &cfg, model_replay, m, &w, &err), BNS_OK);
            bns_wal_stats(w, &st);
            if (model_replay_end(m, st.next_lsn) != NULL)
                fail_msg("damage %d in segment %zu: %s", d, which, m->bad);
            model_close(&s, w);
            assert_int_equal(senv_free(&s, NULL), 0);
            bns_vfs_mem_free(v);
            model_free(m);
            free(m);
        }
    }
}

/* A log without damage, and an empty directory, are left as they are. */
static void repair_of_a_sound_log_changes_nothing(void **state)
{
    struct model *m = malloc(sizeof *m);
    struct bns_vfs *v = make_log(m, 20);
    uint64_t lost = 1, digest = bns_vfs_mem_digest(v, false);
    (void)state;

    assert_int_equal(bns_wal_repair(v, bns_alloc_libc(), DIR_WAL, &lost, NULL), BNS_OK);
    assert_int_equal(lost, 0);
    assert_true(digest == bns_vfs_mem_digest(v, false));
    assert_int_equal(bns_vfs_mkdir(v, "empty", NULL), BNS_OK);
    assert_int_equal(bns_wal_repair(v, bns_alloc_libc(), "empty", &lost, NULL), BNS_OK);
    assert_int_equal(lost, 0);
    bns_vfs_mem_free(v);
    model_free(m);
    free(m);
}

/* Each VFS call of a repair fails once: the error is returned, a second repair succeeds. */
static void repair_survives_errors(void **state)
{
    bool fired = true;
    (void)state;
    for (uint64_t at = 1; fired; at++) {
        struct model *m = malloc(sizeof *m);
        struct bns_vfs *v = make_log(m, 60);
        uint64_t lost;
        int rv;

        do_damage(v, FLIP_RECORD, 1);
        bns_vfs_mem_fail_at(v, at, BNS_VFAULT_EIO);
        rv = bns_wal_repair(v, bns_alloc_libc(), DIR_WAL, &lost, NULL);
        fired = bns_vfs_mem_fired(v);
        bns_vfs_mem_fail_at(v, 0, BNS_VFAULT_NONE);
        assert_int_equal(rv, fired ? BNS_E_IO : BNS_OK);
        assert_int_equal(bns_wal_repair(v, bns_alloc_libc(), DIR_WAL, &lost, NULL), BNS_OK);
        assert_int_equal(bns_wal_visit(v, bns_alloc_libc(), DIR_WAL, NULL, NULL, NULL), BNS_OK);
        assert_int_equal(bns_vfs_mem_handles(v), 0);
        bns_vfs_mem_free(v);
        model_free(m);
        free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(visit_shows_every_record),
        cmocka_unit_test(repair_leaves_a_log_that_opens),
        cmocka_unit_test(repair_of_a_sound_log_changes_nothing),
        cmocka_unit_test(repair_survives_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
