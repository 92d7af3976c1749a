/* trace_view.h - a trace of the simulator as one page that draws it and steps through it.
 *
 * Thread: any. Errors: BNS_E_INVALID with line and reason when the trace is damaged, BNS_E_NOMEM,
 * BNS_E_TOOBIG.
 */
#ifndef BNS_BONSAI_TRACE_VIEW_H
#define BNS_BONSAI_TRACE_VIEW_H

#include "base/buf.h"

#define BONSAI_TRACE_BYTES_MAX (128u * 1024 * 1024)

/* Appends the page (trace_view.html with `trace`, a file of sim/trace.h, in it) to out. */
BNS_MUST_CHECK int bonsai_trace_page(struct bns_slice trace, struct bns_buf *out,
                                     struct bns_err *err);

/* The verb: bonsai sim view [TRACE] [-o PAGE]. argv[0] is "view"; returns the exit code. */
int bonsai_sim_view(int argc, char **argv);

#endif
