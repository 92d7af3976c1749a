/* cli.h - command line flags as a table, and the values that flags, environment and files share.
 *
 * Accepted forms: --name value, --name=value, -name value, -name=value (Go's flag package, which
 * the real etcd uses), and -x for a flag's letter. A boolean takes no separate value: --name, or
 * --name=false. `--` ends the flags. Words that are no flags are kept, in order.
 *
 * Thread:  any, start-up. Memory: values of kind STR are borrowed from argv or the environment.
 * Errors:  BNS_E_INVALID: unknown flag (with the nearest name), missing or bad value. The text is
 *          ready to print; the program exits 2 (BNS_EXIT_USAGE).
 */
#ifndef BNS_APP_CLI_H
#define BNS_APP_CLI_H

#include "base/err.h"

#include <stdio.h>

enum bns_exit {
    BNS_EXIT_OK = 0,
    BNS_EXIT_FAILURE = 1,
    BNS_EXIT_USAGE = 2,
    BNS_EXIT_CONFIG = 3,
    BNS_EXIT_CORRUPT = 4, /* needs a human */
    BNS_EXIT_BUSY = 5,    /* address in use or data directory locked */
    BNS_EXIT_UNSAFE = 6,  /* fsync failed */
    BNS_EXIT_BUG = 70,    /* an assertion of ours */
};

enum bns_value_kind {
    BNS_VALUE_STR,      /* dst: const char * */
    BNS_VALUE_LIST,     /* the same: words with commas between; a file may have a YAML list */
    BNS_VALUE_BOOL,     /* dst: bool; Go's words: true, t, 1, false, f, 0 */
    BNS_VALUE_U64,      /* dst: uint64_t, decimal digits */
    BNS_VALUE_DURATION, /* dst: uint64_t, nanoseconds from "200ms" */
    BNS_VALUE_BYTES,    /* dst: uint64_t, bytes from "64MiB" */
};

/* Reads `text` into *dst; unchanged on error. STR and LIST borrow text. BNS_E_INVALID with what was
 * expected and what was there, without a name: the caller wraps it. */
BNS_MUST_CHECK int bns_value_set(enum bns_value_kind kind, void *dst, const char *text,
                                 struct bns_err *err);
/* "text", "true or false", ... for messages. */
const char *bns_value_kind_text(enum bns_value_kind kind);

struct bns_cli_flag {
    const char *name; /* without dashes; ends the table when NULL */
    char letter;      /* 0 = none */
    enum bns_value_kind kind;
    void *dst;        /* holds the default before the parse */
    const char *help; /* one line; NULL: not shown by --help */
    bool *given;      /* may be NULL; set to true when the flag or its variable was there */
};

struct bns_cli {
    const char *program;
    const char *usage; /* the lines behind "usage: " */
    const char *about; /* printed by --help before the flags; may be NULL */
    const char *version;
    const struct bns_cli_flag *flags;
    bool stop_at_word; /* the first word ends the flags: it is a verb with flags of its own */
};

struct bns_cli_words {
    bool help;    /* --help or -h: the caller prints bns_cli_help() and exits 0 */
    bool version; /* --version */
    int count;    /* words that are no flags; they are argv[1 .. count] after the parse */
};

/* Reads every flag into its dst, later ones winning, and moves the words to the front of argv. */
BNS_MUST_CHECK int bns_cli_parse(const struct bns_cli *cli, int argc, char **argv,
                                 struct bns_cli_words *out, struct bns_err *err);

/* Sets flags from variables PREFIX_NAME (--data-dir: ETCD_DATA_DIR with the prefix "ETCD_"). Call
 * it before the parse, so that flags win. Variables that name no flag are left alone. An empty
 * variable counts as absent. */
BNS_MUST_CHECK int bns_cli_env(const struct bns_cli *cli, const char *prefix, char *const *environ,
                               struct bns_err *err);

void bns_cli_help(const struct bns_cli *cli, FILE *to);

/* The usual answers: prints help or version and returns true when one was asked for. */
bool bns_cli_answered(const struct bns_cli *cli, const struct bns_cli_words *words);

/* The candidate nearest to `word` (case is ignored), or NULL when none is near: more than a third
 * of the letters, at least two, would have to change. */
const char *bns_nearest(const char *word, const char *const *candidates, size_t count);

#endif
