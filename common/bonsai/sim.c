/* sim.c - bonsai sim: runs of the simulator, from outside.
 *
 * A table of verbs; each lives in a file of its own.
 */
#include "bonsai/bonsai.h"
#include "bonsai/trace_view.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} verbs[] = {
    {"run", bonsai_sim_run, "many seeds of a system's simulation"},
    {"replay", bonsai_sim_replay, "one seed again, with its trace"},
    {"shrink", bonsai_sim_shrink, "the smallest run of a seed that still fails"},
    {"view", bonsai_sim_view, "a trace as one page that draws it and steps through it"},
};
#define VERBS (sizeof verbs / sizeof verbs[0])

static int unknown(const char *word)
{
    const char *names[VERBS];
    const char *near;

    for (size_t i = 0; i < VERBS; i++)
        names[i] = verbs[i].name;
    near = bns_nearest(word, names, VERBS);
    if (near == NULL)
        (void)fprintf(stderr, "bonsai sim: unknown verb '%.64s'; see bonsai sim --help\n", word);
    else
        (void)fprintf(stderr, "bonsai sim: unknown verb '%.64s'; did you mean '%s'?\n", word, near);
    return BNS_EXIT_USAGE;
}

static void help(FILE *to)
{
    (void)fprintf(to, "usage: bonsai sim VERB [flags]; bonsai sim VERB --help tells more\n\n");
    for (size_t i = 0; i < VERBS; i++)
        (void)fprintf(to, "  %-8s %s\n", verbs[i].name, verbs[i].help);
}

int bonsai_sim(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return BNS_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help(stdout);
        return BNS_EXIT_OK;
    }
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
