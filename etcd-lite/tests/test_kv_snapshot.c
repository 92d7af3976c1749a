/* test_kv_snapshot.c - a snapshot taken while writes go on, installed on another node. */
#include "kv_snap_world.h"

static void fill(struct kvw *k, int from, int to)
{
    for (int i = from; i < to; i++) {
        char key[16], value[256];
        (void)snprintf(key, sizeof key, "key%04d", i % 700);
        (void)snprintf(value, sizeof value, "%0200d", i);
        (void)do_put(k, key, value);
        if (i % 20 != 3)
            continue;
        assert_int_equal(do_grant(k, i + 1, 60 + i), 0);
        assert_int_equal(do_put_leased(k, key, i + 1), 0);
        assert_int_equal(do_put_leased(k, "key0000", i + 1), 0); /* moves from lease to lease */
        if (i % 40 == 3)
            assert_int_equal(do_revoke(k, i + 1), 0);
    }
}

static void snapshot_moves_the_state(void **state)
{
    struct kvw a, b;
    struct snap x, y;
    Etcdserverpb__RangeRequest r = range_req("key", "kez");
    Etcdserverpb__RangeResponse *m;
    struct got g;
    uint64_t digest;

    (void)state;
    kvw_init(&a, 1, NULL);
    kvw_init(&b, 2, NULL);
    assert_true(kvw_up(&a));
    assert_true(kvw_up(&b));
    fill(&a, 0, 2000);
    do_compact(&a, 900, true);
    fill(&b, 0, 10); /* a past that must vanish */
    snap_take(&a, &x, true);
    assert_true(x.meta.index > 2001);
    assert_true(x.meta.index <= a.index);
    y = x;
    y.k = &b;
    snap_install_all(&y);
    assert_int_equal(y.code, BNS_OK);
    assert_int_equal(etcd_kv_applied(b.kv), x.meta.index);
    b.index = x.meta.index;
    while (b.index < a.index) /* the log goes on behind the snapshot */
        do_put(&b, "during", "x");
    digest = etcd_kv_sm()->digest(a.kv);
    assert_true(digest == etcd_kv_sm()->digest(b.kv));
    assert_true(etcd_kv_leases(b.kv) > 40);
    assert_true(etcd_kv_lease_digest(a.kv) == etcd_kv_lease_digest(b.kv));
    assert_int_equal(kvw_hash(&a, 0), kvw_hash(&b, 0));
    g = kvw_range(&b, &r);
    m = kvw_decode(&b, &g, RANGE_DESC);
    assert_int_equal(m->count, 700 - 17); /* less the keys that were revoked last */
    kvw_close(&b);
    assert_true(kvw_up(&b));
    assert_int_equal(kvw_hash(&a, 0), kvw_hash(&b, 0));
    assert_true(etcd_kv_lease_digest(a.kv) == etcd_kv_lease_digest(b.kv));
    assert_int_equal(etcd_kv_compacted(b.kv), 900);
    free(x.file);
    kvw_free(&a);
    kvw_free(&b);
}

/* Power goes in the n-th call of an installation: afterwards the store is the old or the new one.
 */
static void install_is_all_or_nothing(void **state)
{
    struct kvw a;
    struct snap x;
    uint32_t old_hash = 0, new_hash;
    uint64_t old_leases, new_leases;
    bool fired = true, saw_old = false, saw_new = false;

    (void)state;
    kvw_init(&a, 1, NULL);
    assert_true(kvw_up(&a));
    fill(&a, 0, 60);
    snap_take(&a, &x, false);
    new_hash = kvw_hash(&a, 0);
    new_leases = etcd_kv_lease_digest(a.kv);
    for (uint64_t n = 1; fired; n++) {
        struct kvw b;
        struct snap y = x;
        uint32_t hash;
        kvw_init(&b, n, NULL);
        assert_true(kvw_up(&b));
        fill(&b, 0, 25);
        assert_true(do_checkpoint(&b));
        old_hash = kvw_hash(&b, 0);
        old_leases = etcd_kv_lease_digest(b.kv);
        y.k = &b;
        bns_vfs_mem_fail_at(bns_world_vfs(b.w, 0), n, BNS_VFAULT_POWER);
        snap_install_all(&y);
        fired = b.fired;
        if (b.kv == NULL)
            assert_true(kvw_up(&b));
        hash = kvw_hash(&b, 0);
        if ((hash != old_hash && hash != new_hash) ||
            etcd_kv_lease_digest(b.kv) != (hash == old_hash ? old_leases : new_leases))
            fail_msg("n=%llu: neither the old state nor the new one", (unsigned long long)n);
        saw_old = saw_old || hash == old_hash;
        saw_new = saw_new || (fired && hash == new_hash);
        kvw_free(&b);
    }
    assert_true(saw_old);
    assert_true(saw_new);
    free(x.file);
    kvw_free(&a);
}

/* A disk that fails in the n-th call of an installation: the node goes on with what it had and
 * takes the next snapshot, or it ends. It never stays as one whose store answers nothing. */
static void a_failing_disk_leaves_a_store_or_no_node(void **state)
{
    struct kvw a;
    struct snap x;
    bool ended = false, went_on = false;

    (void)state;
    kvw_init(&a, 1, NULL);
    assert_true(kvw_up(&a));
    fill(&a, 0, 60);
    snap_take(&a, &x, false);
    for (uint64_t n = 1; n < 150; n++) {
        struct kvw b;
        struct snap y = x;

        kvw_init(&b, n, NULL);
        assert_true(kvw_up(&b));
        fill(&b, 0, 25);
        assert_true(do_checkpoint(&b));
        y.k = &b;
        bns_vfs_mem_fail_at(bns_world_vfs(b.w, 0), n, BNS_VFAULT_EIO);
        snap_install_all(&y);
        bns_vfs_mem_fail_at(bns_world_vfs(b.w, 0), 0, BNS_VFAULT_NONE);
        ended = ended || b.kv == NULL;
        if (b.kv == NULL) {
            assert_true(kvw_up(&b));
        } else if (y.code != BNS_OK) {
            went_on = true;
            y = x;
            y.k = &b;
            snap_install_all(&y);
            if (b.kv == NULL || y.code != BNS_OK)
                fail_msg("n=%llu: no further snapshot is taken", (unsigned long long)n);
        }
        kvw_free(&b);
    }
    assert_true(ended);
    assert_true(went_on);
    free(x.file);
    kvw_free(&a);
}

static void damaged_snapshot_is_refused(void **state)
{
    struct kvw a, b;
    struct snap x, y;
    uint32_t hash;

    (void)state;
    kvw_init(&a, 1, NULL);
    kvw_init(&b, 2, NULL);
    assert_true(kvw_up(&a));
    assert_true(kvw_up(&b));
    fill(&a, 0, 60);
    fill(&b, 0, 5);
    hash = kvw_hash(&b, 0);
    snap_take(&a, &x, false);
    y = x;
    y.k = &b;
    y.meta.index++; /* not what was announced */
    snap_install_all(&y);
    assert_int_equal(y.code, BNS_E_CORRUPT);
    y.meta.index--;
    memset(y.file, 0xff, 4096);
    snap_install_all(&y);
    assert_int_not_equal(y.code, BNS_OK);
    y.off = 0;
    assert_true(snap_step(&y, snap_do_begin));
    assert_true(bns_world_call(b.w, 0, snap_do_abort, &y));
    kvw_settle(&b);
    assert_int_equal(kvw_hash(&b, 0), hash);
    assert_true(do_put(&b, "a", "b") > 0);
    free(x.file);
    kvw_free(&a);
    kvw_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshot_moves_the_state),
        cmocka_unit_test(install_is_all_or_nothing),
        cmocka_unit_test(a_failing_disk_leaves_a_store_or_no_node),
        cmocka_unit_test(damaged_snapshot_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
