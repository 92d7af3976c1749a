/* raft_script.h - scenario scripts for the Raft core: text in, text out.
 *
 * A script is blocks of commands, a line `----`, and what they print, up to an empty line. Running
 * it gives the same script with the output that really came; a test compares the two, and
 * `--rewrite` stores the new one. Lines that begin with # are comments. Commands: raft_script.c.
 *
 * Thread: one. Errors: BNS_E_INVALID with line and reason for a command that is not understood.
 */
#ifndef BNS_SIM_RAFT_SCRIPT_H
#define BNS_SIM_RAFT_SCRIPT_H

#include "base/buf.h"

BNS_MUST_CHECK int bns_raft_script_run(struct bns_slice script, struct bns_buf *out,
                                       struct bns_err *err);

#endif
