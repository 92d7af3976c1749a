/* test_kv_crash.c - what a store is after the power went in any call to the file system.
 *
 * Method: a clean run of a workload records, for every applied index: revision, compacted revision,
 * leases with their keys, HashKV. Then the power is cut inside the n-th VFS operation, n = 1, 2, 3
 * ... until the workload gets through; each time the store must open again and be exactly the
 * state of some applied index that is not older than the last checkpoint, and the rest of the log
 * must lead to the same end. The same with kill -9, where the page cache survives.
 * ctest: timeout=300 */
#include "kv_world.h"

#define ENTRIES 60

struct model {
    int64_t revision[ENTRIES + 1], compacted[ENTRIES + 1];
    uint32_t hash[ENTRIES + 1];
    uint64_t leases[ENTRIES + 1];
};

static char big[20000];

/* Entry i (1-based) of the workload; false when the node died. */
static bool entry(struct kvw *k, int i)
{
    char key[16];
    int64_t rev = etcd_kv_revision(k->kv);

    (void)snprintf(key, sizeof key, "k%d", i * 7 % 11);
    if (i % 20 == 19)
        (void)do_compact(k, rev - 3, i % 40 == 19);
    else if (i % 7 == 1)
        (void)do_grant(k, i % 4 + 1, 60 + i);
    else if (i % 7 == 4)
        (void)do_put_leased(k, key, i % 4 + 1); /* refused when there is no such lease */
    else if (i % 13 == 12)
        (void)do_revoke(k, i % 4 + 1);
    else if (i % 9 == 8)
        (void)do_delete(k, "k3", "k6");
    else
        (void)do_put(k, key, i % 10 == 5 ? big : key);
    return k->kv != NULL;
}

static void record(struct kvw *k, struct model *m)
{
    m->revision[k->index] = etcd_kv_revision(k->kv);
    m->compacted[k->index] = etcd_kv_compacted(k->kv);
    m->hash[k->index] = kvw_hash(k, 0);
    m->leases[k->index] = etcd_kv_lease_digest(k->kv);
}

static bool same(struct kvw *k, const struct model *m, uint64_t at)
{
    return m->revision[at] == etcd_kv_revision(k->kv) &&
           m->compacted[at] == etcd_kv_compacted(k->kv) && m->hash[at] == kvw_hash(k, 0) &&
           m->leases[at] == etcd_kv_lease_digest(k->kv);
}

/* Runs entries up to the end or to the node's death; *safe = the last index that must survive. */
static void run(struct kvw *k, uint64_t *safe)
{
    while (k->kv != NULL && k->index < ENTRIES) {
        if (!entry(k, (int)k->index + 1))
            return;
        if (k->index % 15 == 0 && do_checkpoint(k))
            *safe = k->index;
    }
}

static void clean(struct model *m)
{
    struct kvw k;

    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    record(&k, m);
    while (k.index < ENTRIES) {
        assert_true(entry(&k, (int)k.index + 1));
        record(&k, m);
    }
    kvw_free(&k);
}

static bool cut_at(const struct model *m, uint64_t n, enum bns_vfs_mem_fault fault)
{
    struct kvw k;
    uint64_t safe = 0, applied;
    bool fired;

    kvw_init(&k, n + 1, NULL);
    k.arm_n = n;
    k.arm = fault;
    if (kvw_up(&k))
        run(&k, &safe);
    fired = k.fired;
    if (k.kv == NULL) {
        if (!kvw_up(&k)) /* it may have died while starting: once more from what is there */
            fail_msg("n=%llu: the store does not open: %d", (unsigned long long)n, k.open_rv);
        applied = etcd_kv_applied(k.kv);
        if (applied < safe || applied > ENTRIES || !same(&k, m, applied))
            fail_msg("n=%llu: applied %llu, checkpoint %llu, revision %lld", (unsigned long long)n,
                     (unsigned long long)applied, (unsigned long long)safe,
                     (long long)etcd_kv_revision(k.kv));
        k.index = applied;
        run(&k, &safe);
    }
    assert_int_equal(k.index, ENTRIES);
    assert_true(same(&k, m, ENTRIES));
    kvw_free(&k);
    return fired;
}

static void power_cut_in_every_call(void **state)
{
    static struct model m;
    uint64_t n = 1;

    (void)state;
    clean(&m);
    while (cut_at(&m, n, BNS_VFAULT_POWER))
        n++;
    print_message("  %llu calls\n", (unsigned long long)n);
    assert_true(n > 100);
}

static void kill_in_every_third_call(void **state)
{
    static struct model m;
    uint64_t n = 1;

    (void)state;
    clean(&m);
    while (cut_at(&m, n, BNS_VFAULT_KILL))
        n += 3;
    assert_true(n > 100);
}

/* A write or a sync that fails ends the node with exit 6; nothing is answered after it. */
static void failed_sync_ends_the_node(void **state)
{
    struct kvw k;

    (void)state;
    kvw_init(&k, 5, NULL);
    assert_true(kvw_up(&k));
    do_put(&k, "a", "1");
    bns_vfs_mem_fail_on(bns_world_vfs(k.w, 0), BNS_VOP_SYNC, "kv-1", 1, BNS_VFAULT_EIO);
    assert_false(do_checkpoint(&k));
    assert_null(k.kv);
    assert_int_equal(bns_world_exit_code(k.w, 0), 6);
    assert_true(kvw_up(&k));
    kvw_free(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_cut_in_every_call),
        cmocka_unit_test(kill_in_every_third_call),
        cmocka_unit_test(failed_sync_ends_the_node),
    };
    memset(big, 'b', sizeof big - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
