/* check.h - what the checkers of histories have in common: the verdict, and the way in for
 * histories that were kept as JSON lines.
 *
 * A checker takes operations in memory (check_append.h, check_set.h, check_bank.h, check_watch.h,
 * check_lock.h) and answers
 *     BNS_OK          nothing wrong was found
 *     BNS_E_CONFLICT  an anomaly: the verdict names it, the operations, and says it in plain words
 *     BNS_E_INVALID   the operations themselves make no sense (the verdict says why)
 *     BNS_E_TOOBIG    more than the bounds of the checker allow: nothing is known
 *     BNS_E_NOMEM
 * Positions (call, ret) are indexes of lines in the history, all different, and order operations in
 * real time: one that returned before another was called came first. Nothing is kept after a call.
 *
 * Thread: any. Memory: from the allocator given, all back at the end.
 */
#ifndef BNS_SIM_CHECK_H
#define BNS_SIM_CHECK_H

#include "sim/history.h"

#define BNS_CHECK_OPEN BNS_LIN_OPEN /* ret: nobody knows whether it happened, or when */
#define BNS_CHECK_SHOWN_MAX 8

enum bns_check_end {
    BNS_CHECK_OK,     /* it happened */
    BNS_CHECK_FAILED, /* it certainly did not */
    BNS_CHECK_INFO    /* nobody knows */
};

struct bns_verdict {
    const char *anomaly;               /* static, such as "G1c"; NULL when there is none */
    uint64_t ops[BNS_CHECK_SHOWN_MAX]; /* the `call` of the operations involved */
    size_t ops_count;
    size_t checked; /* operations that were looked at */
    size_t text_len;
    char text[1500]; /* in plain words; a number of a line is call + 1 */
};

/* What an id of a key or a value is called in texts; without one it is shown as a number. */
struct bns_check_names {
    const char *(*name)(void *arg, uint64_t id);
    void *arg;
};

struct bns_check_cfg {
    const struct bns_alloc *alloc;
    const struct bns_check_names *names; /* may be NULL */
    bool no_realtime;  /* append: serializable is enough; set: a stale read is allowed */
    bool total_known;  /* bank: else it is what the first read shows */
    bool negative_ok;  /* bank: balances under zero are allowed */
    int64_t total;     /* bank */
    bool others_write; /* watch: not all writers are in the history */
    bool expiry;       /* watch: deletes may come from leases that expire */
    uint64_t slack_ns; /* lease: alive this long after its time to live is an anomaly; 0: never */
    uint32_t
        drift_ppm; /* lock, lease: how much faster than the clients' a server's clock may run */
};

/* For the checkers themselves. */
void bns_verdict_clear(struct bns_verdict *v);
/* Starts the verdict: returns BNS_E_CONFLICT. */
int bns_verdict_anomaly(struct bns_verdict *v, const char *anomaly, const char *fmt, ...)
    BNS_PRINTF(3, 4);
/* Adds to its text, cut when full. */
void bns_verdict_say(struct bns_verdict *v, const char *fmt, ...) BNS_PRINTF(2, 3);
void bns_verdict_op(struct bns_verdict *v, uint64_t call); /* adds to its operations, once each */
/* Says why the operations make no sense: returns BNS_E_INVALID. */
int bns_verdict_senseless(struct bns_verdict *v, const char *fmt, ...) BNS_PRINTF(2, 3);

struct bns_check_name {
    char s[48];
};
struct bns_check_name bns_check_name(const struct bns_check_cfg *cfg, uint64_t id);
void *bns_check_array(const struct bns_alloc *a, size_t count, size_t size); /* zeroed, >= 1 */

/* ---- histories ------------------------------------------------------------------------------- */

/* Checks a history with the checker called `kind`: register, append, set, bank, watch, lock, lease.
 * Lines of process -1, type info, f "config" set what cfg sets (README). cfg->names is not used.
 * Errors as above; BNS_E_UNSUPPORTED for another kind. */
BNS_MUST_CHECK int bns_check_history(struct bns_history *h, const char *kind,
                                     const struct bns_check_cfg *cfg, struct bns_verdict *v);

extern const char *const bns_check_kinds[]; /* ends with NULL */

#endif
