/* process.h - child processes of a libuv env: start, watch, signal.
 *
 * Thread:  the env's loop.
 * Memory:  a process is owned by who started it and freed by bns_process_free(), also while the
 *          child runs: it is then no longer watched. Free all before the env.
 * Errors:  BNS_E_NOTFOUND no such program, BNS_E_IO (text has program and cause), BNS_E_NOMEM.
 */
#ifndef BNS_IO_PROCESS_H
#define BNS_IO_PROCESS_H

#include "base/env.h"

#include <sys/types.h>

struct bns_process;

/* Once, when the child has ended: its exit code, or -signal. Freeing the process inside is fine. */
typedef void bns_process_exit_fn(void *arg, int code);

struct bns_process_config {
    const char *program;     /* a path, or a name looked up in PATH */
    const char *const *argv; /* argv[0] included, NULL at the end; copied */
    int output;              /* descriptor for the child's stdout and stderr; borrowed for the call;
                              * -1: ours */
    bool own_session;        /* setsid: signals of our terminal do not reach it */
    bns_process_exit_fn *on_exit;
    void *arg;
};

/* stdin of the child is /dev/null. */
BNS_MUST_CHECK int bns_process_start(struct bns_env *env, const struct bns_process_config *cfg,
                                     struct bns_process **out, struct bns_err *err);

pid_t bns_process_pid(const struct bns_process *p);

/* BNS_E_NOTFOUND when it has ended, BNS_E_FORBIDDEN, BNS_E_INVALID. */
BNS_MUST_CHECK int bns_process_signal(struct bns_process *p, int signo);

void bns_process_free(struct bns_process *p); /* NULL is fine */

#endif
