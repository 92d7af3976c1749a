/* sim_daemon_mutants.c - the planted bugs of the daemon, each with a seed that catches it.
 *
 * Goal:   the simulation of whole daemons catches every one.
 * Method: each bug has the seed that caught it first (of 2,000 from 1 on). It is replayed with the
 *         bug, in a process of its own because an assertion of the daemon catches it as well as a
 *         checker does, and must fail; without the bug the same seed must be clean. Any change of
 *         the daemons or their clients makes another run of a seed: then one of the next few has to
 *         catch the bug.
 * Repeat: sim_daemon_mutants --find         searches again and prints the table
 *         sim_daemon_mutants --one BUG SEED WORK   one run in this process
 */
/* ctest: timeout=300 */
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon.h"

#define SEEDS_MAX 2000
#define SEEDS_NEAR 60

/* What a seed must have for the bug to show; others are passed over. */
enum needs { ANYTHING, MEMBERS, AUTH };

static const struct planted {
    uint32_t mutant;
    const char *name;
    uint64_t seed;
    const char *by; /* what the complaint begins with: the checker that must find it; NULL: any */
    int work;       /* with by: what the workers do; else as the seed says */
    enum needs needs;
} planted[] = {
    {25, "a follower's clock ends leases too", 0x2, NULL, -1, ANYTHING},
    {26, "the last entry is applied again after a restart", 0x1, NULL, -1, ANYTHING},
    {27, "the applied index is stored apart from the rows", 0x3, NULL, -1, ANYTHING},
    {28, "a read is answered before what it must see is applied", 0x2, NULL, -1, ANYTHING},
    {29, "an apply that finds no room on the disk is skipped", 0xc, NULL, -1, ANYTHING},
    {30, "ids of requests are used again: a late answer goes to another", 0x6, NULL, -1, ANYTHING},
    {33, "a watch that caught up skips what came meanwhile", 0xb, NULL, -1, ANYTHING},
    {34, "progress is told to a watch ahead of its events", 0x1, NULL, -1, ANYTHING},
    {90, "a read with a session's token does not wait for its revision", 0x3, NULL, -1, ANYTHING},
    {61, "only the first compare of a transaction is looked at", 0x1,
     "append: ", ETCD_SIM_WORK_APPEND, ANYTHING},
    {61, "the same, and money vanishes", 0x1, "bank: ", ETCD_SIM_WORK_BANK, ANYTHING},
    {62, "compares look at the store before its last change", 0x2, "lock: ", ETCD_SIM_WORK_LOCK,
     ANYTHING},
    {63, "a long range leaves out the key at a border", 0x1, "set: ", ETCD_SIM_WORK_SET, ANYTHING},
    {130, "a member that has known no token looks at nobody's permissions", 0x1, NULL, -1, AUTH},
    {131, "what a user might do once stands when it is revoked", 0x1, NULL, -1, AUTH},
    {132, "who was removed stays in the list of members", 0x17, NULL, -1, MEMBERS},
    {133, "who was promoted is listed as a learner for ever", 0x18, NULL, -1, MEMBERS},
    {134, "who missed its own removal is not told of it", 0xdb, NULL, -1, MEMBERS},
    {135, "a learner answers linearizable reads from what it has", 0x18, NULL, -1, MEMBERS},
    {136, "a follower counts the renewal of a lease itself", 0x3, NULL, -1, ANYTHING},
    {137, "a new leader's clock does not run for the leases it finds", 0x1, NULL, -1, ANYTHING},
};

#define PLANTED (sizeof planted / sizeof planted[0])

/* work -1: as the seed says. */
static bool clean(uint64_t seed, uint32_t mutant, int work, struct etcd_sim_result *r)
{
    struct etcd_sim_config cfg = etcd_sim_swarm(seed);

    if (work >= 0) {
        cfg.work = (enum etcd_sim_work)work;
        cfg.workers = ETCD_SIM_WORKERS_MAX;
    }
    cfg.world.mutant = mutant;
    return etcd_sim_run(seed, &cfg, r);
}

/* Runs one seed in another process. True: it was clean. `text`: what it said, one line. */
static bool clean_apart(uint64_t seed, const struct planted *p, char text[512])
{
    char bug[16], number[24], work[16];
    char *argv[] = {"sim_daemon_mutants", "--one", bug, number, work, NULL}, *envp[] = {NULL};
    posix_spawn_file_actions_t actions;
    size_t len = 0;
    ssize_t n;
    int fds[2], status = 0;
    pid_t pid;

    (void)snprintf(work, sizeof work, "%d", p->work);                        /* fits */
    (void)snprintf(bug, sizeof bug, "%u", p->mutant);                        /* fits */
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)seed); /* fits */
    BNS_ASSERT(pipe(fds) == 0);
    BNS_ASSERT(posix_spawn_file_actions_init(&actions) == 0);
    BNS_ASSERT(posix_spawn_file_actions_adddup2(&actions, fds[1], 2) == 0);
    BNS_ASSERT(posix_spawn_file_actions_addclose(&actions, fds[0]) == 0);
    BNS_ASSERT(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, envp) == 0);
    BNS_ASSERT(posix_spawn_file_actions_destroy(&actions) == 0);
    (void)close(fds[1]); /* the reading end tells all there is to know */
    while (len < 511 && (n = read(fds[0], text + len, 511 - len)) > 0)
        len += (size_t)n;
    (void)close(fds[0]); /* likewise */
    text[len] = '\0';
    text[strcspn(text, "\n")] = '\0';
    BNS_ASSERT(waitpid(pid, &status, 0) == pid);
    return status == 0;
}

static bool may_show(const struct planted *p, uint64_t seed)
{
    struct etcd_sim_config cfg = etcd_sim_swarm(seed);

    return p->needs == ANYTHING || (p->needs == MEMBERS ? cfg.members > 0 : cfg.auth > 0);
}

static bool found(const struct planted *p, const char *text)
{
    return p->by == NULL || strncmp(text, p->by, strlen(p->by)) == 0;
}

static int one(uint32_t mutant, uint64_t seed, int work)
{
    struct etcd_sim_result r;

    if (clean(seed, mutant, work, &r))
        return 0;
    (void)fprintf(stderr, "%s\n", r.text);
    return 1;
}

static void every_planted_bug_is_caught_by_its_seed(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        uint64_t seed = planted[i].seed;
        bool caught = false;
        char text[512] = "";

        for (; seed < planted[i].seed + SEEDS_NEAR && !caught; seed += !caught)
            caught = may_show(&planted[i], seed) && !clean_apart(seed, &planted[i], text) &&
                     found(&planted[i], text);
        print_message("  %2u %s, seed 0x%llx:\n     %s\n", planted[i].mutant, planted[i].name,
                      (unsigned long long)seed, text);
        if (!caught)
            fail_msg("seeds from 0x%llx on miss bug %u (%s): run --find",
                     (unsigned long long)planted[i].seed, planted[i].mutant, planted[i].name);
    }
}

static void the_same_seeds_are_clean_without_the_bugs(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct etcd_sim_result r;

        if (!clean(planted[i].seed, 0, planted[i].work, &r))
            fail_msg("seed 0x%llx: %s", (unsigned long long)planted[i].seed, r.text);
    }
}

static int find(uint32_t only)
{
    int missed = 0;

    for (size_t i = 0; i < PLANTED; i++) {
        char text[512];
        uint64_t seed = 1;

        if (only != 0 && only != planted[i].mutant)
            continue;
        while (seed <= SEEDS_MAX &&
               (!may_show(&planted[i], seed) || clean_apart(seed, &planted[i], text) ||
                !found(&planted[i], text)))
            seed++;
        missed += seed > SEEDS_MAX;
        printf("    {%u, \"%s\", 0x%llx, ... },%s\n      %s\n", planted[i].mutant, planted[i].name,
               (unsigned long long)seed, seed > SEEDS_MAX ? " /* NOT CAUGHT */" : "", text);
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

    if (argc > 4 && strcmp(argv[1], "--one") == 0)
        return one((uint32_t)strtoul(argv[2], NULL, 0), strtoull(argv[3], NULL, 0),
                   (int)strtol(argv[4], NULL, 0));
    if (argc > 1 && strcmp(argv[1], "--find") == 0)
        return find(argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
