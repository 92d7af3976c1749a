/* main.c - bonsai: runs the systems side by side, and looks into their files.
 *
 * Exit codes: app/cli.h.
 */
#include "bonsai/bonsai.h"

#include "app/daemon.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help; /* NULL: internal */
} verbs[] = {
    {"up", bonsai_up, "start every system, or those named; -d: in the background"},
    {"down", bonsai_down, "stop what up has started"},
    {"status", bonsai_status, "what runs, where, how much memory it takes"},
    {"logs", bonsai_logs, "the ends of the nodes' logs"},
    {"probe", bonsai_ask, "ask one node, here or elsewhere, whether it serves"},
    {"wal", bonsai_wal, "look into a write-ahead log: dump, verify, repair, stat"},
    {"sim", bonsai_sim, "runs of the simulator: run, replay, shrink, view"},
    {"supervise", bonsai_supervise_verb, NULL},
};
#define VERBS (sizeof verbs / sizeof verbs[0])

static void help(FILE *to)
{
    (void)fprintf(to, "usage: bonsai VERB [flags]; bonsai VERB --help tells more\n\n");
    for (size_t i = 0; i < VERBS; i++)
        if (verbs[i].help != NULL)
            (void)fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    (void)fprintf(to,
                  "\nflags:\n  -h, --help  print this and exit\n  --version   print the version "
                  "and exit\n");
}

static int unknown(const char *word)
{
    const char *names[VERBS];
    size_t count = 0;
    const char *near;

    for (size_t i = 0; i < VERBS; i++)
        if (verbs[i].help != NULL)
            names[count++] = verbs[i].name;
    near = bns_nearest(word, names, count);
    if (near == NULL)
        (void)fprintf(stderr, "bonsai: unknown verb '%.64s'; see bonsai --help\n", word);
    else
        (void)fprintf(stderr, "bonsai: unknown verb '%.64s'; did you mean '%s'?\n", word, near);
    return BNS_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    static const struct bns_cli_flag none[] = {{NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL}};
    const struct bns_cli cli = {"bonsai", "bonsai VERB [flags]", NULL, "bonsai " BNS_VERSION, none,
                                true};
    struct bns_cli_words words;
    struct bns_err err;

    bns_daemon_catch_abort();
    if (bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK) {
        (void)fprintf(stderr, "bonsai: %s\n", err.text);
        return BNS_EXIT_USAGE;
    }
    if (words.help) {
        help(stdout);
        return BNS_EXIT_OK;
    }
    if (words.version) {
        (void)printf("%s\n", cli.version);
        return BNS_EXIT_OK;
    }
    if (words.count == 0) {
        help(stderr);
        return BNS_EXIT_USAGE;
    }
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(words.count, argv + 1);
    return unknown(argv[1]);
}
