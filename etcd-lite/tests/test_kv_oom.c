/* test_kv_oom.c - the n-th allocation fails, n = 1, 2, 3 ... until a run gets through.
 *
 * Opening reports it and leaves nothing behind. A read is answered, with the error or with the
 * answer. An apply cannot fail: the node ends with exit 6, and the log brings the entry back. */
#include "kv_world.h"

struct oom {
    struct kvw *k;
    int fail_at;
};

static int start(struct bns_env *env, unsigned id, void *arg)
{
    struct oom *o = arg;
    struct bns_test_heap *h = bns_world_heap(o->k->w, id);
    struct bns_err err;
    int rv;

    rv = bns_vfs_mkdir(env->vfs, "/data", &err);
    if (rv != BNS_OK)
        return rv;
    bns_test_heap_fail_at(h, o->fail_at);
    o->k->cfg.dir = "/data";
    o->k->open_rv = etcd_kv_open(env, &o->k->cfg, &o->k->kv, &err);
    bns_test_heap_fail_at(h, 0);
    if (o->k->open_rv != BNS_OK) {
        assert_int_equal(o->k->open_rv, BNS_E_NOMEM);
        assert_int_equal(bns_test_heap_blocks(h), 0);
        o->k->kv = NULL;
    }
    return BNS_OK;
}

static void open_reports_it(void **state)
{
    struct kvw k;
    struct oom o = {&k, 0};
    struct bns_node_main m = {.start = start, .died = kvw_died, .arg = &o};
    int n = 0;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    for (int i = 0; i < 20; i++) {
        char key[8];
        (void)snprintf(key, sizeof key, "k%d", i % 7);
        do_put(&k, key, "v");
        assert_int_equal(do_grant(&k, i + 1, 60), 0);
        assert_int_equal(do_put_leased(&k, "leased", i + 1), 0);
    }
    kvw_close(&k);
    m.died = NULL; /* nothing is open when opening failed */
    do {
        o.fail_at = ++n;
        bns_world_start(k.w, 0, &m);
        kvw_settle(&k);
        if (k.kv == NULL)
            bns_world_kill(k.w, 0);
        kvw_settle(&k);
    } while (k.kv == NULL);
    print_message("  %d allocations\n", n - 1);
    assert_true(n > 10);
    assert_int_equal(etcd_kv_revision(k.kv), 41);
    assert_int_equal(etcd_kv_leases(k.kv), 20);
    kvw_free(&k);
}

static void reads_are_answered(void **state)
{
    struct kvw k;
    struct etcd_kv_config cfg = {.cache_bytes = 1};
    Etcdserverpb__RangeRequest r = range_req("k", "l");
    bool failed = true;

    (void)state;
    kvw_init(&k, 1, &cfg);
    assert_true(kvw_up(&k));
    for (int i = 0; i < 40; i++) {
        char key[8];
        (void)snprintf(key, sizeof key, "k%d", i);
        do_put(&k, key, "v");
    }
    r.sort_target = (Etcdserverpb__RangeRequest__SortTarget)4;
    r.sort_order = (Etcdserverpb__RangeRequest__SortOrder)2;
    r.keys_only = true;
    for (int n = 1; failed; n++) {
        size_t blocks = bns_test_heap_blocks(bns_world_heap(k.w, 0));
        struct got g;
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), n);
        g = kvw_range(&k, &r);
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), 0);
        failed = g.status != 0;
        if (failed)
            assert_int_equal(g.status, 8);
        else
            free(g.bytes);
        assert_int_equal(bns_test_heap_blocks(bns_world_heap(k.w, 0)), blocks);
        assert_true(n < 1000);
    }
    kvw_free(&k);
}

static void apply_ends_the_node_or_succeeds(void **state)
{
    struct kvw k;
    int died = 0;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    for (int n = 1; n < 12; n++) {
        Etcdserverpb__PutRequest r = put_req("key", "value");
        int64_t before = etcd_kv_revision(k.kv);
        bool applied;
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), n);
        applied = kvw_apply(&k, ETCD_OP_PUT, &r, NULL);
        if (k.kv == NULL) {
            died++;
            assert_int_equal(bns_world_exit_code(k.w, 0), 1);
            assert_true(kvw_up(&k));
            assert_int_equal(etcd_kv_revision(k.kv), before);
            k.index = etcd_kv_applied(k.kv);
        } else {
            bns_test_heap_fail_at(bns_world_heap(k.w, 0), 0);
            assert_true(applied);
            assert_int_equal(etcd_kv_revision(k.kv), before + 1);
        }
    }
    assert_true(died > 0);
    kvw_free(&k);
}

/* There may be no memory for the answer to a write that has been applied: its client is told that
 * the outcome is unknown, not that it was refused. */
static void what_happened_is_not_told_as_refused(void **state)
{
    struct kvw k;
    int unknown = 0;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    for (int n = 1; n < 30; n++) {
        Etcdserverpb__PutRequest r = put_req("key", "value");
        int64_t before = do_put(&k, "key", "old"); /* the table of waiters is there from now on */
        struct got g = {0};

        r.has_prev_kv = r.prev_kv = true;
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), n);
        (void)kvw_apply(&k, ETCD_OP_PUT, &r, &g); /* told by whether the node lives */
        free(g.bytes); /* the node may die after it has answered, too */
        if (k.kv == NULL) {
            assert_true(kvw_up(&k));
            k.index = etcd_kv_applied(k.kv);
            continue;
        }
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), 0);
        assert_int_equal(etcd_kv_revision(k.kv), before + 1);
        if (g.status != 0) {
            assert_int_equal(g.status, 14);
            unknown++;
        }
    }
    assert_true(unknown > 0);
    kvw_free(&k);
}

/* Each kind of entry that touches leases, with every allocation failing in turn. */
static void lease_entries_end_the_node_or_succeed(void **state)
{
    Etcdserverpb__LeaseGrantRequest grant = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseRevokeRequest revoke = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    Etcdserverpb__PutRequest put = put_req("new", "value");
    const struct {
        enum etcd_op op;
        const void *req;
    } t[] = {{ETCD_OP_LEASE_GRANT, &grant}, {ETCD_OP_PUT, &put}, {ETCD_OP_LEASE_REVOKE, &revoke}};

    (void)state;
    grant.has_id = grant.has_ttl = revoke.has_id = put.has_lease = true;
    grant.id = 7;
    grant.ttl = 60;
    put.lease = revoke.id = 5;
    for (size_t i = 0; i < 3; i++) {
        struct kvw k;
        int died = 0;
        kvw_init(&k, i + 1, NULL);
        assert_true(kvw_up(&k));
        for (int n = 1; n < 40; n++) {
            uint64_t before;
            bool applied;
            (void)do_revoke(&k, 7);
            (void)do_revoke(&k, 5);
            assert_int_equal(do_grant(&k, 5, 60), 0);
            for (int j = 0; j < 3; j++) {
                char key[8];
                (void)snprintf(key, sizeof key, "k%d", j);
                assert_int_equal(do_put_leased(&k, key, 5), 0);
            }
            assert_true(do_checkpoint(&k));
            before = etcd_kv_lease_digest(k.kv);
            bns_test_heap_fail_at(bns_world_heap(k.w, 0), n);
            applied = kvw_apply(&k, t[i].op, t[i].req, NULL);
            if (k.kv == NULL) {
                died++;
                assert_int_equal(bns_world_exit_code(k.w, 0), 1);
                assert_true(kvw_up(&k));
                assert_true(etcd_kv_lease_digest(k.kv) == before);
                k.index = etcd_kv_applied(k.kv);
                continue;
            }
            assert_true(applied);
            assert_true(etcd_kv_lease_digest(k.kv) != before);
            bns_test_heap_fail_at(bns_world_heap(k.w, 0), 0);
        }
        assert_true(died > 1);
        kvw_free(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_reports_it),
        cmocka_unit_test(reads_are_answered),
        cmocka_unit_test(apply_ends_the_node_or_succeeds),
        cmocka_unit_test(what_happened_is_not_told_as_refused),
        cmocka_unit_test(lease_entries_end_the_node_or_succeed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
