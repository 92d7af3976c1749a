/* fanout.h - one question to many: ask them all, or so many at a time, until enough have answered
 * or the time is over.
 *
 *            SEND 0 ──> REPLY 0                   good = 2, enough
 *   START ── SEND 1 ──────────────> (late)        CANCEL 1, DONE
 *            SEND 2 ─────> REPLY 2
 *
 * A scrape wants all answers and gives each the same time; a quorum read wants `need` of them and
 * cancels the rest; a crawl keeps `width` questions open and goes on as they are answered. Nothing
 * is asked twice: who wants a second try starts another fan-out over what failed.
 *
 * Pure: no clock, no I/O. Time is an argument, outputs are drained by next() after each step.
 *
 * Thread:     any, one at a time. Memory: from `alloc`, all of it at init.
 * Invariants: a branch gets at most one SEND, and a CANCEL only between its SEND and its end; at
 *             most `width` are open; DONE comes once, and last; it comes when it has to: at `need`
 *             good answers, when they cannot be reached any more, or at the deadline.
 */
#ifndef BNS_PROTO_FANOUT_H
#define BNS_PROTO_FANOUT_H

#include "base/alloc.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define BNS_FANOUT_BRANCHES_MAX 4096u

struct bns_fanout_config {
    uint32_t branches;  /* at most BNS_FANOUT_BRANCHES_MAX; 0: done at once */
    uint32_t need;      /* good answers that are enough; 0: everyone is waited for */
    uint32_t width;     /* open at once; 0: all */
    uint64_t branch_ns; /* for one answer; 0: no limit but that of the whole */
    uint64_t total_ns;  /* for the whole; 0: no limit */
};

enum bns_fanout_branch { /* what became of a branch */
                         BNS_FANOUT_UNASKED,
                         BNS_FANOUT_OPEN,
                         BNS_FANOUT_GOOD,
                         BNS_FANOUT_BAD,
                         BNS_FANOUT_LATE,    /* its time was over */
                         BNS_FANOUT_DROPPED, /* still open when the whole was done */
};

enum bns_fanout_in_kind {
    BNS_FANOUT_IN_TIMER, /* the deadline has come; harmless before */
    BNS_FANOUT_IN_GOOD,  /* branch has answered */
    BNS_FANOUT_IN_BAD,   /* branch has failed, or has answered something useless */
};
struct bns_fanout_in {
    enum bns_fanout_in_kind kind;
    uint32_t branch;
};

enum bns_fanout_out_kind { BNS_FANOUT_SEND, BNS_FANOUT_CANCEL, BNS_FANOUT_DONE };
struct bns_fanout_out {
    enum bns_fanout_out_kind kind;
    uint32_t branch; /* SEND, CANCEL */
    uint32_t good;   /* DONE: how many have answered well */
    bool enough;     /* DONE: `need` of them, or all of them when need is 0 */
};

struct bns_fanout;

/* The first outputs are there at once. BNS_E_INVALID: too many branches, or need > branches.
 * BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_fanout_init(struct bns_fanout **out, uint64_t now_ns,
                                   const struct bns_fanout_config *cfg,
                                   const struct bns_alloc *alloc);
void bns_fanout_free(struct bns_fanout *f); /* NULL is fine */

/* An answer of a branch that is not open changes nothing: it came too late. BNS_E_INVALID: there
 * is no such branch; nothing is changed. */
BNS_MUST_CHECK int bns_fanout_step(struct bns_fanout *f, uint64_t now_ns,
                                   const struct bns_fanout_in *in);
/* Drain until false after init and after each step. */
bool bns_fanout_next(struct bns_fanout *f, struct bns_fanout_out *out);
/* When to step with IN_TIMER; UINT64_MAX: never. */
uint64_t bns_fanout_deadline(const struct bns_fanout *f);

enum bns_fanout_branch bns_fanout_branch(const struct bns_fanout *f, uint32_t branch);

#endif
