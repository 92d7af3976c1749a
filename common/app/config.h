/* config.h - one YAML file of sections, and the environment over it.
 *
 *     raft:                       BNS_RAFT_ELECTION=2s overrides the line below
 *       election: 1s
 *     wal:
 *       segment: 16MiB
 *
 * The keys are a table of the program. Rising order: defaults in the table's destinations, file,
 * environment, flags (app/cli.h): load, then env, then the flags' parse.
 *
 * Where the first section is named "" the file is flat, as etcd's: `name: n1` lines, and among them
 * the sections that have a name. There a key with nothing behind it changes nothing, as with etcd.
 *
 * A value of kind LIST is text with commas, or a YAML list of words (without commas).
 *
 * Thread:  any, start-up.
 * Memory:  text values from the file are copied into the arena given.
 * Errors:  BNS_E_INVALID with "file:line: what, nearest name"; BNS_E_NOTFOUND no such file;
 *          BNS_E_TOOBIG over 1 MiB; BNS_E_NOMEM. The program exits 3 (BNS_EXIT_CONFIG).
 *          Destinations of lines before a wrong one keep what they got.
 */
#ifndef BNS_APP_CONFIG_H
#define BNS_APP_CONFIG_H

#include "app/cli.h"
#include "base/arena.h"
#include "base/buf.h"

#define BNS_CONFIG_BYTES_MAX (1024u * 1024)

struct bns_config_key {
    const char *section; /* ends the table when NULL */
    const char *key;
    enum bns_value_kind kind;
    void *dst;
};

/* Reads a file. */
BNS_MUST_CHECK int bns_config_load(const char *path, const struct bns_config_key *keys,
                                   struct bns_arena *arena, struct bns_err *err);

/* The same from bytes; `name` stands for the file in messages. */
BNS_MUST_CHECK int bns_config_parse(const char *name, struct bns_slice text,
                                    const struct bns_config_key *keys, struct bns_arena *arena,
                                    struct bns_err *err);

/* BNS_SECTION_KEY, dashes as underscores. Values are borrowed. An empty variable counts as
 * absent. */
BNS_MUST_CHECK int bns_config_env(const struct bns_config_key *keys, char *const *environ,
                                  struct bns_err *err);

/* What is in force, as a file that bns_config_load() accepts (--print-config). BNS_E_NOMEM,
 * BNS_E_TOOBIG. */
BNS_MUST_CHECK int bns_config_print(const struct bns_config_key *keys, struct bns_buf *out);

#endif
