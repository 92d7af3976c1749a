/* sim_raft_node.c - raft_node, core, WAL, snapshot files and RPC in one virtual world.
 *
 * Goal:   no seed loses an acknowledged write, serves a stale read, lets two members differ, or
 * leaves
 *         the cluster stuck once the faults stop.
 * Method: swarm faults per seed; invariants after every event; heal; progress; linearizability.
 * Repeat: BNS_SEED=0x1f2e ./sim_raft_node    one seed; with BNS_TRACE=1 every event is printed
 *         BNS_RUNS=2000 ./sim_raft_node      more seeds
 *
 * ctest: timeout=300 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim/raft_cluster.h"

#define MEMBER_SEEDS 24u

static void print_line(void *arg, const char *text)
{
    (void)arg;
    print_message("%s\n", text);
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static void run_config(uint64_t seed, struct bns_raft_cluster_config *cfg,
                       struct bns_raft_cluster_result *r)
{
    cfg->world.mutant = (uint32_t)from_env("BNS_MUTANT", 0);
    if (getenv("BNS_TRACE") != NULL)
        cfg->trace = print_line;
    if (!bns_raft_cluster_run(seed, cfg, r))
        fail_msg("seed 0x%llx: %s\nreplay: BNS_SEED=0x%llx sim_raft_node", (unsigned long long)seed,
                 r->text, (unsigned long long)seed);
}

static void run_seed(uint64_t seed, struct bns_raft_cluster_result *r)
{
    struct bns_raft_cluster_config cfg = bns_raft_cluster_swarm(seed);

    run_config(seed, &cfg, r);
}

static void no_seed_breaks_the_cluster(void **state)
{
    struct bns_raft_cluster_result r;
    uint64_t runs = from_env("BNS_RUNS", 40), first = from_env("BNS_START", 1), ok = 0,
             restarts = 0, stops = 0;

    (void)state;
    if (getenv("BNS_SEED") != NULL) {
        first = from_env("BNS_SEED", 1);
        runs = 1;
    }
    for (uint64_t seed = first; seed < first + runs; seed++) {
        run_seed(seed, &r);
        ok += r.ops_ok;
        restarts += r.restarts;
        stops += r.stops;
    }
    print_message("seeds %llu..%llu: %llu operations, %llu starts, %llu stops\n",
                  (unsigned long long)first, (unsigned long long)(first + runs - 1),
                  (unsigned long long)ok, (unsigned long long)restarts, (unsigned long long)stops);
    assert_true(ok > runs);
}

/* The same while members are added, promoted and removed, and the leader is moved. All of that must
 * have happened, else nothing is proven. */
static void no_seed_breaks_changing_members(void **state)
{
    uint64_t runs = from_env("BNS_RUNS", MEMBER_SEEDS), first = from_env("BNS_START", 1);
    struct bns_raft_cluster_result r, sum = {0};

    (void)state;
    if (getenv("BNS_SEED") != NULL) {
        first = from_env("BNS_SEED", 1);
        runs = 1;
    }
    for (uint64_t seed = first; seed < first + runs; seed++) {
        struct bns_raft_cluster_config cfg = bns_raft_cluster_swarm_members(seed);

        run_config(seed, &cfg, &r);
        sum.changes += r.changes;
        sum.joints += r.joints;
        sum.promotions += r.promotions;
        sum.leaves += r.leaves;
        sum.moves += r.moves;
    }
    print_message("seeds %llu..%llu: %llu changes of members, %llu joint, %llu promotions, %llu "
                  "removed ones ended, %llu leaders moved\n",
                  (unsigned long long)first, (unsigned long long)(first + runs - 1),
                  (unsigned long long)sum.changes, (unsigned long long)sum.joints,
                  (unsigned long long)sum.promotions, (unsigned long long)sum.leaves,
                  (unsigned long long)sum.moves);
    if (runs >= MEMBER_SEEDS) {
        assert_true(sum.changes > runs);
        assert_true(sum.joints > 0 && sum.promotions > 0);
        assert_true(sum.leaves > 0 && sum.moves > 0);
    }
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct bns_raft_cluster_result a, b;

        run_seed(seed, &a);
        run_seed(seed, &b);
        assert_true(a.trace_hash == b.trace_hash);
        assert_true(a.events == b.events && a.events > 1000);
    }
}

/* One client, so that nothing but its own read or write moves the members. */
static void without_faults_nothing_waits_for_a_heartbeat(void **state)
{
    struct bns_raft_cluster_config cfg = bns_raft_cluster_swarm(1);
    struct bns_raft_cluster_result r;

    (void)state;
    cfg.servers = 3;
    cfg.clients = 1;
    cfg.snapshot_entries = 10000;
    cfg.world = bns_world_calm(3);
    cfg.stop = 0;
    assert_true(bns_raft_cluster_run(1, &cfg, &r));
    print_message("slowest of %llu operations: %llu us\n", (unsigned long long)r.ops_ok,
                  (unsigned long long)(r.slowest_ns / 1000));
    assert_true(r.ops_ok > 100);
    assert_true(r.slowest_ns < 50 * BNS_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
        cmocka_unit_test(no_seed_breaks_the_cluster),
        cmocka_unit_test(no_seed_breaks_changing_members),
        cmocka_unit_test(without_faults_nothing_waits_for_a_heartbeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
