/* sim_run.h - a system's simulation program as a child process.
 *
 * A system never includes another's headers, nor does bonsai: each system has a program beside its
 * executable that simulates it, and all of them speak the same command line:
 *     PROGRAM --hunt N --start S              N seeds from S on; exit 1 when one failed
 *     BNS_SEED=S PROGRAM [--trace FILE] [--history FILE] [LIMITS]     one seed; exit 1: it failed,
 *                                             and a line "seed 0x...: why" says what was wrong
 *     BNS_SEED=S PROGRAM --describe yes       prints the seed's own limits
 *     LIMITS: --nodes N --clients N --lanes N --keys N --seconds N --faults LIST
 * BNS_MUTANT passes through. Exit 2: a bad option.
 *
 * Thread: the main one; the environment of the process is changed.
 */
#ifndef BNS_BONSAI_SIM_RUN_H
#define BNS_BONSAI_SIM_RUN_H

#include "bonsai/bonsai.h"

#define SIM_ARGS_MAX 32
#define SIM_PATH_BYTES 512

struct sim_program {
    const struct bonsai_system *system;
    char path[SIM_PATH_BYTES];
};

/* BNS_E_INVALID: no such system; BNS_E_NOTFOUND: its program is not there. */
BNS_MUST_CHECK int sim_program_find(const char *system, struct sim_program *out,
                                    struct bns_err *err);
/* A seed: decimal digits, 0x and hexadecimal ones, or the name of a trace file, which has one.
 * BNS_E_INVALID: none of them; BNS_E_CORRUPT: a damaged trace. */
BNS_MUST_CHECK int sim_seed(const char *text, uint64_t *out, struct bns_err *err);

struct sim_child {
    const char *args[SIM_ARGS_MAX]; /* behind the program's name; NULL ends */
    int output;                     /* -1: ours */
    int code;                       /* out: exit code, or -signal */
};
/* Starts all, waits until all have ended. BNS_E_NOMEM, BNS_E_IO, BNS_E_NOTFOUND. */
BNS_MUST_CHECK int sim_children(const struct sim_program *p, struct sim_child *children,
                                size_t count, struct bns_err *err);

#endif
