/* Goal:   the simulator catches every planted bug; a bug that survives is a hole in the tests.
 * Method: each bug has the seed that caught it first (of 2,000 from 1 on). The test replays that
 *         seed with the bug (it must be caught) and without (it must be clean).
 * Repeat: sim_raft_mutants --find [N]     searches again, for bug N or all, and prints the table
 *         BNS_MUTANT=6 BNS_SEED=0x3 sim_raft   shows what one bug does
 * Bugs 14 (torn tail accepted) and 15 (directory not synced) live in the WAL.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sim/raft_world.h"

#define SEEDS_MAX 2000

static const struct planted {
    uint32_t mutant;
    const char *name;
    uint64_t seed;
} planted[] = {
    {1, "counts an entry of an old term", 0x98},
    {2, "skips the no-op", 0x1},
    {3, "answers before the sync", 0x1},
    {4, "forgets its vote", 0x19},
    {5, "forgets its term", 0x4},
    {6, "votes without checking the log", 0x3},
    {7, "does not cut a conflicting tail", 0x4},
    {8, "cuts committed entries", 0x1},
    {9, "commits past the durable index", 0x1},
    {10, "ReadIndex without a quorum round", 0xb5},
    {11, "ReadIndex before the no-op", 0x13},
    {12, "installs a stale snapshot", 0x1c},
    {13, "installs a snapshot without its term", 0x1c},
    {16, "votes twice in a term", 0x1},
    {17, "remembers match of an earlier leadership", 0xe0},
    {18, "heartbeat commits past match", 0x4},
    {19, "a read joins a round that began before it", 0x1},
    {21, "takes all writes in flight for durable", 0x1},
    {45, "changes the members before its no-op is committed", 0x6},
    {46, "two changes at once", 0x6},
    {47, "a learner is counted", 0x6},
    {48, "a removed leader goes on", 0x6},
    {49, "hands over to a peer that lags", 0x6},
};

#define PLANTED (sizeof planted / sizeof planted[0])

static void every_planted_bug_is_caught_by_its_seed(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_world_options opt = {.seed = planted[i].seed, .mutant = planted[i].mutant};
        struct bns_raft_world_result r;
        bool clean = bns_raft_world_run(&opt, &r);
        print_message("  %2u %-42s seed 0x%llx: %s\n", planted[i].mutant, planted[i].name,
                      (unsigned long long)planted[i].seed, r.bad);
        if (clean)
            fail_msg("seed 0x%llx no longer catches bug %u (%s): run sim_raft_mutants --find",
                     (unsigned long long)planted[i].seed, planted[i].mutant, planted[i].name);
    }
}

static void the_same_seeds_are_clean_without_the_bugs(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_world_options opt = {.seed = planted[i].seed};
        struct bns_raft_world_result r;
        if (!bns_raft_world_run(&opt, &r))
            fail_msg("seed 0x%llx: %s", (unsigned long long)planted[i].seed, r.bad);
    }
}

static int find(const char *only)
{
    int missed = 0;

    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_world_options opt = {.mutant = planted[i].mutant};
        struct bns_raft_world_result r = {.ok = true};
        char number[16];
        (void)snprintf(number, sizeof number, "%u", planted[i].mutant);
        if (only != NULL && strcmp(only, number) != 0)
            continue;
        for (opt.seed = 1; opt.seed <= SEEDS_MAX; opt.seed++)
            if (!bns_raft_world_run(&opt, &r))
                break;
        if (r.ok)
            (void)printf("    missed: %u %s\n", planted[i].mutant, planted[i].name);
        else
            (void)printf("    {%u, \"%s\", 0x%llx},\n", planted[i].mutant, planted[i].name,
                         (unsigned long long)opt.seed);
        (void)fflush(stdout);
        missed += r.ok;
    }
    return missed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_planted_bug_is_caught_by_its_seed),
        cmocka_unit_test(the_same_seeds_are_clean_without_the_bugs),
    };

    if (argc > 1 && strcmp(argv[1], "--find") == 0)
        return find(argc > 2 ? argv[2] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
