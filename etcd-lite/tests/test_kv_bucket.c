/* test_kv_bucket.c - small tables beside the keys are kept, deleted, reopened, carried by
 * snapshots. */
#include "kv_snap_world.h"

#include "kv_bucket.h"

static void change(struct kvw_call *c)
{
    struct etcd_kv *kv = c->k->kv;

    for (int i = 0; i < 500; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "user%d", i);

        assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_CLUSTER, bns_slice(key, (size_t)len),
                                         bns_slice(key, (size_t)(i % 5))),
                         BNS_OK);
    }
    for (int i = 0; i < 500; i += 3) {
        char key[16];
        int len = snprintf(key, sizeof key, "user%d", i);

        assert_int_equal(etcd_bucket_del(kv, ETCD_BUCKET_CLUSTER, bns_slice(key, (size_t)len)),
                         BNS_OK);
    }
    assert_int_equal(etcd_bucket_del(kv, ETCD_BUCKET_REMOVED, BNS_LIT("user1")), BNS_OK);
    assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_REMOVED, BNS_LIT(""), BNS_LIT("x")), BNS_OK);
    assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_REMOVED, BNS_LIT("user1"), BNS_LIT("y")),
                     BNS_OK);
    assert_int_equal(etcd_bucket_put(kv, ETCD_BUCKET_REMOVED, BNS_LIT("user1"), BNS_LIT("zz")),
                     BNS_OK);
}

static void look(struct kvw_call *c)
{
    struct etcd_kv *kv = c->k->kv;
    const struct etcd_bucket_row *r = NULL;
    size_t n = 0;

    assert_true(
        bns_slice_eq(etcd_bucket_get(kv, ETCD_BUCKET_REMOVED, BNS_LIT("user1")), BNS_LIT("zz")));
    assert_true(bns_slice_eq(etcd_bucket_get(kv, ETCD_BUCKET_REMOVED, BNS_LIT("")), BNS_LIT("x")));
    assert_null(etcd_bucket_get(kv, ETCD_BUCKET_REMOVED, BNS_LIT("user")).ptr);
    assert_null(etcd_bucket_get(kv, ETCD_BUCKET_CLUSTER, BNS_LIT("user3")).ptr);
    assert_non_null(etcd_bucket_get(kv, ETCD_BUCKET_CLUSTER, BNS_LIT("user5")).ptr); /* empty */
    assert_null(etcd_bucket_get(kv, ETCD_BUCKET_ALARMS, BNS_LIT("user5")).ptr);
    while ((r = etcd_bucket_next(kv, ETCD_BUCKET_CLUSTER, r)) != NULL)
        n++;
    assert_int_equal(n, 500 - 167);
}

static void rows_outlive_a_restart_and_travel_in_snapshots(void **state)
{
    struct kvw a, b;
    struct snap x, y;
    struct kvw_call c = {.k = &a, .fn = change};

    (void)state;
    kvw_init(&a, 1, NULL);
    kvw_init(&b, 2, NULL);
    assert_true(kvw_up(&a));
    assert_true(kvw_up(&b));
    assert_true(kvw_call(&c));
    (void)do_put(&a, "k", "v");
    c.fn = look;
    assert_true(kvw_call(&c));
    kvw_close(&a);
    assert_true(kvw_up(&a));
    assert_true(kvw_call(&c));
    snap_take(&a, &x, false);
    y = x;
    y.k = &b;
    snap_install_all(&y);
    assert_int_equal(y.code, BNS_OK);
    c.k = &b;
    assert_true(kvw_call(&c));
    assert_true(etcd_kv_sm()->digest(a.kv) == etcd_kv_sm()->digest(b.kv));
    assert_int_equal(kvw_hash(&a, 0), kvw_hash(&b, 0)); /* no part of it */
    free(x.file);
    kvw_free(&a);
    kvw_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_outlive_a_restart_and_travel_in_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
