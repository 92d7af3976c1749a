/* Goal:   no seed may break Raft's safety, and once the faults stop every group must elect,
 *         converge and answer its clients.
 * Method: sim/raft_world: a swarm of fault rates drawn from the seed, all invariants after every
 *         single event, then healing and a demand for progress.
 * Repeat: BNS_SEED=0x1f2e sim_raft        replays one seed (BNS_TRACE=1: prints every event)
 *         BNS_MUTANT=6 sim_raft --hunt 2000   with a planted bug
 *         BNS_NODES=7 BNS_LEARNERS=2 sim_raft --hunt 2000   another group (default 5 and 0)
 *         sim_raft --hunt N [--start S]   hunts N seeds from S on
 */
/* ctest: timeout=300 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "sim/raft_world.h"

#define SEEDS 150

static uint64_t number(const char *text, uint64_t otherwise)
{
    char *end;
    uint64_t v;

    if (text == NULL || *text == '\0')
        return otherwise;
    v = strtoull(text, &end, 0);
    return *end == '\0' ? v : otherwise;
}

static struct bns_raft_world_options from_environment(uint64_t seed)
{
    return (struct bns_raft_world_options){
        .seed = seed,
        .mutant = (uint32_t)number(getenv("BNS_MUTANT"), 0),
        .nodes = (uint32_t)number(getenv("BNS_NODES"), 0),
        .learners = (uint32_t)number(getenv("BNS_LEARNERS"), 0),
        .trace = getenv("BNS_TRACE") != NULL,
    };
}

static void report(uint64_t seed, const struct bns_raft_world_result *r)
{
    (void)fprintf(stderr,
                  "seed 0x%llx: %s\n  at %.3f s, event %llu; replay: BNS_SEED=0x%llx sim_raft\n",
                  (unsigned long long)seed, r->bad, (double)r->now_ns / 1e9,
                  (unsigned long long)r->events, (unsigned long long)seed);
}

/* Runs seeds start .. start + count - 1; how many failed. */
static uint64_t hunt(uint64_t start, uint64_t count, uint64_t stop_after)
{
    struct bns_raft_world_result sum = {0};
    uint64_t failed = 0;
    uint64_t done = 0;
    clock_t began = clock();
    double s;

    for (uint64_t seed = start; seed < start + count && failed < stop_after; seed++, done++) {
        struct bns_raft_world_options opt = from_environment(seed);
        struct bns_raft_world_result r;
        if (!bns_raft_world_run(&opt, &r)) {
            report(seed, &r);
            failed++;
        }
        sum.events += r.events;
        sum.elections += r.elections;
        sum.writes += r.writes;
        sum.reads += r.reads;
        sum.crashes += r.crashes;
        sum.snapshots += r.snapshots;
        sum.committed += r.committed;
        sum.changes += r.changes;
        sum.transfers += r.transfers;
        if (done % 1000 == 999)
            (void)fprintf(stderr, "%llu seeds\n", (unsigned long long)done + 1);
    }
    s = (double)(clock() - began) / CLOCKS_PER_SEC;
    (void)printf(
        "%llu seeds from 0x%llx, %llu failed; %.1f s CPU, %.0f seeds/h; per seed: %llu "
        "events, %llu elections, %llu committed, %llu writes, %llu reads, %llu crashes, "
        "%llu snapshots; %llu changes, %llu hand-overs in all\n",
        (unsigned long long)done, (unsigned long long)start, (unsigned long long)failed, s,
        s > 0 ? (double)done * 3600 / s : 0, (unsigned long long)(sum.events / done),
        (unsigned long long)(sum.elections / done), (unsigned long long)(sum.committed / done),
        (unsigned long long)(sum.writes / done), (unsigned long long)(sum.reads / done),
        (unsigned long long)(sum.crashes / done), (unsigned long long)(sum.snapshots / done),
        (unsigned long long)sum.changes, (unsigned long long)sum.transfers);
    return failed;
}

static void no_seed_breaks_safety_or_liveness(void **state)
{
    (void)state;
    assert_int_equal(hunt(1, number(getenv("BNS_RUNS"), SEEDS), 1), 0);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct bns_raft_world_options opt = {.seed = seed};
        struct bns_raft_world_result a;
        struct bns_raft_world_result b;
        assert_true(bns_raft_world_run(&opt, &a));
        assert_true(bns_raft_world_run(&opt, &b));
        assert_true(a.hash == b.hash && a.events == b.events && a.hash != 0);
    }
}

static void groups_of_every_size_survive(void **state)
{
    (void)state;
    for (uint32_t nodes = 1; nodes <= 7; nodes++) {
        for (uint64_t seed = 1; seed <= 6; seed++) {
            struct bns_raft_world_options opt = {
                .seed = 0x900 + seed, .nodes = nodes, .learners = (uint32_t)(seed % 3)};
            struct bns_raft_world_result r;
            if (opt.learners >= nodes)
                opt.learners = 0;
            if (!bns_raft_world_run(&opt, &r)) {
                report(opt.seed, &r);
                fail_msg("%u nodes, %u of them learners", nodes, opt.learners);
            }
        }
    }
}

/* Every seed that ever failed, with what was wrong. */
static void seeds_that_failed_once_stay_clean(void **state)
{
    static const struct {
        uint64_t seed;
        const char *was;
    } t[] = {
        {0x2, "heartbeat answers let probes and pokes overrun the window"},
        {0x17, "a probe moved its next index, so that back-off stood still"},
        {0x777, "a batch was applied across the installation of a snapshot"},
        {0x1314317, "each repeated answer ended a probe and opened a window of appends"},
        {0x1314e12, "a follower that took nothing answered, and was sent more at once"},
        {0x8b, "a removed leader whose log was longer kept its successor from leading"},
        {0x306, "a removed leader was handing over to a member that was removed with it"},
        {0x3000ea, "the world: events of a paused node came late, and its time ran out"},
        {0x20082e, "the checker: an only voter's term was lost with its power"},
        {0x20087e, "likewise, with a member that had been removed"},
        {0xc8505ee, "the world: clients wrote more in batches than it could take in time"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_world_options opt = {.seed = t[i].seed};
        struct bns_raft_world_result r;
        if (!bns_raft_world_run(&opt, &r)) {
            report(opt.seed, &r);
            fail_msg("again: %s", t[i].was);
        }
    }
}

static int replay(uint64_t seed)
{
    struct bns_raft_world_options opt = from_environment(seed);
    struct bns_raft_world_result r;

    if (!bns_raft_world_run(&opt, &r)) {
        report(seed, &r);
        return 1;
    }
    (void)printf("seed 0x%llx: ok, %llu events, hash %016llx\n", (unsigned long long)seed,
                 (unsigned long long)r.events, (unsigned long long)r.hash);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(seeds_that_failed_once_stay_clean),
        cmocka_unit_test(groups_of_every_size_survive),
        cmocka_unit_test(no_seed_breaks_safety_or_liveness),
    };
    uint64_t runs = 0;
    uint64_t start = 1;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--hunt") == 0)
            runs = number(argv[i + 1], 1000);
        else if (strcmp(argv[i], "--start") == 0)
            start = number(argv[i + 1], 1);
    }
    if (getenv("BNS_SEED") != NULL)
        return replay(number(getenv("BNS_SEED"), 1));
    if (runs > 0)
        return hunt(start, runs, getenv("BNS_MUTANT") != NULL ? 1 : 20) == 0 ? 0 : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
