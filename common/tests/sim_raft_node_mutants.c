/* sim_raft_node_mutants.c - the planted bugs that live below and around the core: driver and WAL.
 *
 * Goal:   the simulation of whole members catches each of them.
 * Method: each bug has the seed that caught it first (of 2,000 from 1 on); replayed with the bug
 * it must
 *         be caught, without it must be clean.
 * Repeat: sim_raft_node_mutants --find     searches again and prints the table
 *
 * ctest: timeout=300 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/raft_cluster.h"

#define SEEDS_MAX 2000

static const struct planted {
    uint32_t mutant;
    const char *name;
    uint64_t seed;
} planted[] = {
    {3, "answers before the sync", 0x8},
    {14, "accepts a torn tail", 0x8},
    {15, "does not sync the directory after a rename", 0x25},
};

#define PLANTED (sizeof planted / sizeof planted[0])

static bool clean(uint64_t seed, uint32_t mutant, struct bns_raft_cluster_result *r)
{
    struct bns_raft_cluster_config cfg = bns_raft_cluster_swarm(seed);

    cfg.world.mutant = mutant;
    return bns_raft_cluster_run(seed, &cfg, r);
}

static void every_planted_bug_is_caught_by_its_seed(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_cluster_result r;
        bool survives = clean(planted[i].seed, planted[i].mutant, &r);

        print_message("  %2u %-44s seed 0x%llx: %s\n", planted[i].mutant, planted[i].name,
                      (unsigned long long)planted[i].seed, r.text);
        if (survives)
            fail_msg("seed 0x%llx no longer catches bug %u (%s): sim_raft_node_mutants --find",
                     (unsigned long long)planted[i].seed, planted[i].mutant, planted[i].name);
    }
}

static void the_same_seeds_are_clean_without_the_bugs(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_cluster_result r;

        if (!clean(planted[i].seed, 0, &r))
            fail_msg("seed 0x%llx: %s", (unsigned long long)planted[i].seed, r.text);
    }
}

static int find(void)
{
    int missed = 0;

    for (size_t i = 0; i < PLANTED; i++) {
        struct bns_raft_cluster_result r;
        uint64_t seed = 1;

        while (seed <= SEEDS_MAX && clean(seed, planted[i].mutant, &r))
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
        return find();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
