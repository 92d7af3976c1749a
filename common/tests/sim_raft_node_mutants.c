/* sim_raft_node_mutants.c - the planted bugs that live below and around the core: driver and WAL.
 *
 * Goal:   the simulation of whole members catches each of them.
 * Method: each bug has the seed that caught it first (of 2,000 from 1 on); replayed with the bug
 * it must
 *         be caught, without it must be clean. Where members change, any change of the code makes
 *         another run of a seed: then one of the next few has to catch the bug.
 * Repeat: sim_raft_node_mutants --find [BUG] searches again and prints the table
 *
 * ctest: timeout=300 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/raft_cluster.h"

#define SEEDS_MAX 2000
#define SEEDS_NEAR 40

static const struct planted {
    uint32_t mutant;
    const char *name;
    uint64_t seed;
    bool members; /* change meanwhile */
} planted[] = {
    {3, "answers before the sync", 0x8, false},
    {14, "accepts a torn tail", 0x8, false},
    {15, "does not sync the directory after a rename", 0x25, false},
    {46, "two changes at once", 0xe, true},
    {48, "a removed leader goes on", 0x1, true},
    {138, "who missed its removal does not believe the others", 0x1, true},
};

#define PLANTED (sizeof planted / sizeof planted[0])

static bool clean(uint64_t seed, uint32_t mutant, bool members, struct bns_raft_cluster_result *r)
{
    struct bns_raft_cluster_config cfg =
        members ? bns_raft_cluster_swarm_members(seed) : bns_raft_cluster_swarm(seed);

    cfg.world.mutant = mutant;
    return bns_raft_cluster_run(seed, &cfg, r);
}

static void every_planted_bug_is_caught_by_its_seed(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        uint64_t seed = planted[i].seed, end = seed + (planted[i].members ? SEEDS_NEAR : 1);
        struct bns_raft_cluster_result r;

        while (seed < end && clean(seed, planted[i].mutant, planted[i].members, &r))
            seed++;
        print_message("  %2u %-44s seed 0x%llx: %s\n", planted[i].mutant, planted[i].name,
                      (unsigned long long)seed, r.text);
        if (seed == end)
            fail_msg("seed 0x%llx no longer catches bug %u (%s): sim_raft_node_mutants --find",
                     (unsigned long long)planted[i].seed, planted[i].mutant, planted[i].name);
    }
}

static void the_same_seeds_are_clean_without_the_bugs(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_cluster_result r;

        if (!clean(planted[i].seed, 0, planted[i].members, &r))
            fail_msg("seed 0x%llx: %s", (unsigned long long)planted[i].seed, r.text);
    }
}

static int find(uint32_t only)
{
    int missed = 0;

    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_cluster_result r;
        uint64_t seed = 1;

        if (only != 0 && only != planted[i].mutant)
            continue;
        while (seed <= SEEDS_MAX && clean(seed, planted[i].mutant, planted[i].members, &r))
            seed++;
        missed += seed > SEEDS_MAX;
        printf("    {%u, \"%s\", 0x%llx},%s\n", planted[i].mutant, planted[i].name,
               (unsigned long long)seed, seed > SEEDS_MAX ? " /* NOT CAUGHT */" : "");
        (void)fflush(stdout); /* progress only */
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
        return find(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
