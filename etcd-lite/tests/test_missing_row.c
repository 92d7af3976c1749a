/* Goal:   a decision that needs a row which the index names and the store has lost ends the node as
 *         corrupt, by name, instead of asking for ever; want of memory there only delays it.
 * Method: one store driven by hand; a row is deleted behind its back, by a job of the store itself.
 */
#include "kv_world.h"

#include "kv_impl.h"

struct loss {
    struct etcd_store_job job;
    struct kvw *k;
    struct etcd_row row;
    bool done;
};

static void lost(struct etcd_store_job *j)
{
    struct loss *l = BNS_CONTAINER(j, struct loss, job);

    assert_true(etcd_kv_job_over(l->k->kv, j));
    l->done = true;
}

static void lose(struct bns_env *env, void *arg)
{
    struct loss *l = arg;

    (void)env;
    etcd_kv_flush(l->k->kv);
    l->job = (struct etcd_store_job){
        .kind = ETCD_STORE_DELETE, .done = lost, .rows = &l->row, .rows_count = 1};
    etcd_kv_submit(l->k->kv, &l->job);
}

/* A txn whose compare needs the value of a; and a put with ignore_value, which needs it too. */
static bool decide(struct kvw *k, bool by_put, struct got *g)
{
    Etcdserverpb__PutRequest put = put_req("a", "");
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT, *cmps[1] = {&cmp};
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;

    if (by_put) {
        put.has_value = false;
        put.has_ignore_value = put.ignore_value = true;
        return kvw_apply(k, ETCD_OP_PUT, &put, g);
    }
    cmp.has_target = cmp.has_key = true;
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    cmp.key = B("a");
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    cmp.value = B("1");
    txn.n_compare = 1;
    txn.compare = cmps;
    return kvw_apply(k, ETCD_OP_TXN, &txn, g);
}

static void start(struct kvw *k, uint64_t seed)
{
    static const struct etcd_kv_config cfg = {.cache_bytes = 1}; /* nothing stays in memory */

    kvw_init(k, seed, &cfg);
    assert_true(kvw_up(k));
    assert_true(do_put(k, "a", "1") == 2);
    assert_true(do_put(k, "b", "1") == 3);
}

static void a_lost_row_ends_the_node_by_name(void **state)
{
    (void)state;
    for (int by_put = 0; by_put < 2; by_put++) {
        struct kvw k;
        struct loss l = {.k = &k, .row = {2, 0, NULL}};
        struct got g;

        start(&k, 1);
        assert_true(bns_world_call(k.w, 0, lose, &l));
        kvw_settle(&k);
        assert_true(l.done);
        assert_false(decide(&k, by_put == 1, &g));
        assert_null(k.kv);
        assert_int_equal(k.died_code, 4);
        assert_string_equal(k.died_text, "row 2/0 of the key index is not in the store");
        kvw_free(&k);
    }
}

/* Each allocation of the worker and of the loop fails once, from the proposal on; either the node
 * ends for want of memory or the decision is right. */
static void want_of_memory_only_delays(void **state)
{
    bool fired = true;
    int late = 0;
    (void)state;

    for (int n = 1; fired; n++) {
        struct kvw k;
        struct got g = {0};
        uint64_t before;

        start(&k, 2);
        before = bns_world_now(k.w);
        bns_test_heap_fail_at(bns_world_heap(k.w, 0), n);
        fired = false;
        if (decide(&k, false, &g)) {
            Etcdserverpb__TxnResponse *m;

            if (g.status == 0) {
                m = kvw_decode(&k, &g, TXN_DESC);
                assert_true(m->succeeded);
            }
            late += bns_world_now(k.w) - before >= 20 * BNS_MS;
        } else {
            assert_int_equal(k.died_code, 1);
        }
        if (k.kv != NULL)
            bns_test_heap_fail_at(bns_world_heap(k.w, 0), 0);
        fired = n < 40;
        kvw_free(&k);
    }
    assert_true(late > 0); /* the worker's own was among them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_row_ends_the_node_by_name),
        cmocka_unit_test(want_of_memory_only_delays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
