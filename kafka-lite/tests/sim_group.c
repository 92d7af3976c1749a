/* Goal:   members that come, go, hang and lose their messages, and a coordinator that crashes,
 * never         get two owners of a partition in a generation, lose an acknowledged offset, or
 * stay stuck;         and the world that says so finds every planted bug.
 * Method: group_world.h. Each bug has the first seed that catches it; the test replays that seed
 * with         the bug (caught) and without (clean), and a range of seeds clean.
 * Repeat: sim_group --find [N]        searches again, for bug N or all, and prints the table
 *         sim_group --seeds A B       runs these seeds without a bug
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "group_world.h"

#define SEEDS_MAX 2000
#define SEEDS_CLEAN 60

static const struct planted {
    uint32_t mutant;
    const char *name;
    uint64_t seed;
} planted[] = {
    {1, "a commit is answered before it is durable", 0x10},
    {2, "a round keeps its generation", 0x1},
    {3, "who is silent goes, the others stay parked", 0x7e},
    {4, "the generation is not read back", 0x1},
    {5, "offsets of a live group expire", 0x1},
    {6, "assignments are answered before they are durable", 0x5b},
    {7, "an old sync gets today's assignment", 0x8},
    {8, "a commit of an older generation counts", 0xb},
};

#define PLANTED (sizeof planted / sizeof planted[0])

static void every_planted_bug_is_caught_by_its_seed(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++) {
        struct w_options opt = {.seed = planted[i].seed, .mutant = planted[i].mutant};
        struct w_result r;
        bool clean = w_run(&opt, &r);
        print_message("  %u %-50s seed 0x%llx: %s\n", planted[i].mutant, planted[i].name,
                      (unsigned long long)planted[i].seed, r.bad);
        if (clean)
            fail_msg("seed 0x%llx no longer catches bug %u (%s): run sim_group --find",
                     (unsigned long long)planted[i].seed, planted[i].mutant, planted[i].name);
    }
}

static int clean(uint64_t from, uint64_t to, bool loud)
{
    int bad = 0;

    for (uint64_t seed = from; seed <= to; seed++) {
        struct w_options opt = {.seed = seed};
        struct w_result r;
        if (w_run(&opt, &r) && !loud)
            continue;
        bad += r.bad[0] != '\0';
        print_message("  seed 0x%llx: %s, %llu steps, %d generations, together after %llu ms\n",
                      (unsigned long long)seed, r.bad[0] == '\0' ? "clean" : r.bad,
                      (unsigned long long)r.steps, (int)r.generations,
                      (unsigned long long)r.converged_ms);
    }
    return bad;
}

static void the_same_seeds_and_more_are_clean_without_the_bugs(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED; i++)
        assert_int_equal(clean(planted[i].seed, planted[i].seed, false), 0);
    assert_int_equal(clean(1, SEEDS_CLEAN, false), 0);
}

/* Each member restarts once, one every 300 ms, and the coordinator in the middle. */
static void a_group_of_200_members_comes_together_again(void **state)
{
    struct w_options opt = {.seed = 7, .members = W_MEMBERS_MAX, .rolling = true};
    struct w_result r;

    (void)state;
    if (!w_run(&opt, &r))
        fail_msg("%s", r.bad);
    print_message("  together %llu ms after the last fault, %llu steps, %d generations\n",
                  (unsigned long long)r.converged_ms, (unsigned long long)r.steps,
                  (int)r.generations);
    assert_true(r.converged_ms < 30000);
}

static int find(const char *only)
{
    int missed = 0;

    for (size_t i = 0; i < PLANTED; i++) {
        struct w_options opt = {.mutant = planted[i].mutant};
        struct w_result r = {.bad = ""};
        if (only != NULL && strtoul(only, NULL, 10) != planted[i].mutant)
            continue;
        for (opt.seed = 1; opt.seed <= SEEDS_MAX; opt.seed++)
            if (!w_run(&opt, &r))
                break;
        if (r.bad[0] == '\0')
            (void)printf("    missed: %u %s\n", planted[i].mutant, planted[i].name);
        else
            (void)printf("    {%u, \"%s\", 0x%llx}, %s\n", planted[i].mutant, planted[i].name,
                         (unsigned long long)opt.seed, r.bad);
        (void)fflush(stdout);
        missed += r.bad[0] == '\0';
    }
    return missed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_planted_bug_is_caught_by_its_seed),
        cmocka_unit_test(the_same_seeds_and_more_are_clean_without_the_bugs),
        cmocka_unit_test(a_group_of_200_members_comes_together_again),
    };

    if (argc > 1 && strcmp(argv[1], "--find") == 0)
        return find(argc > 2 ? argv[2] : NULL);
    if (argc > 3 && strcmp(argv[1], "--seeds") == 0)
        return clean(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0), true) != 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
