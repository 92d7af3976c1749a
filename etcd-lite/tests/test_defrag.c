/* Goal:   Defragment makes the store's file shorter while it is read and written, loses nothing,
 *         and a crash in any of its file operations leaves a store that opens with the same data.
 * Method: one store driven by hand (kv_world.h), filled, compacted, defragmented.
 */
#include "kv_world.h"

#define KEYS 300

static void put_many(struct kvw *k, const char *value)
{
    for (int i = 0; i < KEYS; i++) {
        char key[16];

        (void)snprintf(key, sizeof key, "k%03d", i);
        if (k->kv == NULL || do_put(k, key, value) == 0)
            return;
    }
}

/* Two versions of each key, the first compacted away: half of the file is free. */
static void make_holes(struct kvw *k)
{
    static char big[2000];
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    struct got g;

    memset(big, 'v', sizeof big - 1);
    put_many(k, big);
    put_many(k, "small");
    r.has_revision = r.has_physical = true;
    r.revision = etcd_kv_revision(k->kv);
    r.physical = true;
    assert_true(kvw_apply(k, ETCD_OP_COMPACT, &r, &g));
    assert_int_equal(g.status, 0);
    free(g.bytes);
}

struct asker {
    struct etcd_defrag_wait w;
    struct kvw *k;
    int done, status;
};

static void on_done(struct etcd_defrag_wait *w, struct etcd_status why)
{
    struct asker *a = BNS_CONTAINER(w, struct asker, w);

    a->done++;
    a->status = why.code;
}

static void ask(struct bns_env *env, void *arg)
{
    struct asker *a = arg;

    (void)env;
    a->w.done = on_done;
    etcd_kv_defrag(a->k->kv, &a->w);
}

static void the_file_shrinks_and_nothing_is_lost(void **state)
{
    struct kvw k;
    struct asker a[2] = {{.k = &k}, {.k = &k}};
    uint64_t before, used;
    uint32_t hash;
    (void)state;

    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_holes(&k);
    before = etcd_kv_db_size(k.kv);
    used = etcd_kv_db_size_in_use(k.kv);
    hash = kvw_hash(&k, 0);
    assert_true(used < before / 2);
    assert_true(bns_world_call(k.w, 0, ask, &a[0]));
    assert_true(bns_world_call(k.w, 0, ask, &a[1])); /* joins it */
    kvw_settle(&k);
    assert_int_equal(a[0].done, 1);
    assert_int_equal(a[0].status, 0);
    assert_int_equal(a[1].done, 1);
    print_message("  %llu -> %llu bytes\n", (unsigned long long)before,
                  (unsigned long long)etcd_kv_db_size(k.kv));
    assert_true(etcd_kv_db_size(k.kv) < before / 2);
    assert_true(etcd_kv_db_size(k.kv) == etcd_kv_db_size_in_use(k.kv));
    assert_int_equal(kvw_hash(&k, 0), hash);
    kvw_close(&k);
    assert_true(kvw_up(&k));
    assert_int_equal(kvw_hash(&k, 0), hash);
    kvw_free(&k);
}

/* Between two slices the loop applies and answers: one step of the world at a time. */
static void puts_go_on_between_slices(void **state)
{
    struct kvw k;
    struct asker a = {.k = &k};
    int64_t revision;
    int steps = 0;
    (void)state;

    kvw_init(&k, 2, NULL);
    assert_true(kvw_up(&k));
    make_holes(&k);
    revision = etcd_kv_revision(k.kv);
    assert_true(bns_world_call(k.w, 0, ask, &a));
    while (a.done == 0 && bns_world_step(k.w))
        steps++;
    assert_int_equal(a.status, 0);
    assert_true(steps > 5); /* it was cut */
    assert_true(do_put(&k, "after", "x") == revision + 1);
    kvw_free(&k);
}

static void a_stop_in_the_middle_answers_and_ends(void **state)
{
    struct kvw k;
    struct asker a = {.k = &k};
    struct kvw_call c = {.k = &k, .fn = kvw_do_drain};
    (void)state;

    kvw_init(&k, 3, NULL);
    assert_true(kvw_up(&k));
    make_holes(&k);
    assert_true(bns_world_call(k.w, 0, ask, &a));
    assert_true(kvw_call(&c));
    assert_true(c.done);
    assert_int_equal(a.done, 1);
    assert_int_equal(a.status, 14);
    c.fn = kvw_do_close;
    (void)kvw_call(&c);
    kvw_free(&k);
}

/* The power goes in the n-th file operation after the request, for each n until it gets through. */
static void a_power_cut_anywhere_loses_nothing(void **state)
{
    bool fired = true;
    int n = 0;
    (void)state;

    for (n = 1; fired; n += 3) {
        struct kvw k;
        struct asker a = {.k = &k};
        uint32_t hash;

        kvw_init(&k, 4, NULL);
        assert_true(kvw_up(&k));
        make_holes(&k);
        hash = kvw_hash(&k, 0);
        kvw_close(&k); /* all of it is on the disk */
        assert_true(kvw_up(&k));
        k.fired = false;
        bns_vfs_mem_fail_at(bns_world_env(k.w, 0)->vfs, (uint64_t)n, BNS_VFAULT_POWER);
        assert_true(bns_world_call(k.w, 0, ask, &a));
        kvw_settle(&k);
        fired = k.fired;
        if (!fired) {
            assert_int_equal(a.status, 0);
            kvw_close(&k);
        }
        assert_true(kvw_up(&k));
        assert_int_equal(kvw_hash(&k, 0), hash);
        kvw_free(&k);
    }
    print_message("  %d file operations\n", n);
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_shrinks_and_nothing_is_lost),
        cmocka_unit_test(puts_go_on_between_slices),
        cmocka_unit_test(a_stop_in_the_middle_answers_and_ends),
        cmocka_unit_test(a_power_cut_anywhere_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
