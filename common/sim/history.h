/* history.h - what clients asked and were told, as Jepsen-shaped JSON lines.
 *
 * {"index":0,"time":1200,"process":3,"type":"invoke","f":"put","key":"a","value":7}
 * {"index":1,"time":5100,"process":3,"type":"ok","f":"put","key":"a","value":{"value":7,"rev":2}}
 *
 * type: invoke, ok (it happened), fail (it certainly did not), info (nobody knows). A process has
 * one operation at a time; after info it never answers again. Lines of process -1 with type info
 * are no operations: faults that were made, and settings (README.md has every kind of history).
 *
 * Operations of registers (bns_history_ops):
 *   get     invoke null; ok: V, or {"value":V,"rev":revision of its last change}; null = not there
 *   put     V; ok may be {"value":V,"rev":R}
 *   cas     [old,new], or {"old":..,"new":..} or {"rev":compared revision,"new":..};
 *           ok may be {"swapped":bool,"rev":R}; any other ok means swapped
 *   delete  null; ok may be {"deleted":bool,"rev":R}
 * An ok that is an object may also have "at": the revision of the whole store where the operation
 * stands, if it changed nothing; and "was": {"value":V,"rev":R} or null, what was there before (or,
 * where the change was refused, at that time). With these no search is needed (lin_revision.c).
 * V is any JSON value but null; equal text, equal value.
 *
 * Thread:  one a history. Memory: the history owns all texts; the borrowed ones live as long as it.
 * Errors:  BNS_E_NOMEM; BNS_E_INVALID with line number and reason (text from outside).
 */
#ifndef BNS_SIM_HISTORY_H
#define BNS_SIM_HISTORY_H

#include "base/buf.h"
#include "sim/lin.h"

enum bns_history_type { BNS_HIST_INVOKE, BNS_HIST_OK, BNS_HIST_FAIL, BNS_HIST_INFO };

struct bns_history_event {
    uint64_t time; /* ns */
    int64_t process;
    enum bns_history_type type;
    const char *f;
    const char *key;   /* NULL: none */
    const char *value; /* JSON text, compact, keys sorted; NULL: null */
};

struct bns_history;

BNS_MUST_CHECK int bns_history_new(const struct bns_alloc *alloc, struct bns_history **out);
void bns_history_free(struct bns_history *h); /* NULL is fine */

/* Appends; the event's texts are copied. value must be valid JSON (BNS_E_INVALID if not). */
BNS_MUST_CHECK int bns_history_add(struct bns_history *h, const struct bns_history_event *ev);
size_t bns_history_count(const struct bns_history *h);
struct bns_history_event bns_history_at(const struct bns_history *h, size_t index);

BNS_MUST_CHECK int bns_history_write(const struct bns_history *h, struct bns_buf *out);
/* Appends the events of JSON lines. On error those before the bad line are there. */
BNS_MUST_CHECK int bns_history_parse(struct bns_history *h, struct bns_slice text,
                                     struct bns_err *err);

/* The text behind a number of the history; NULL for 0 and for what is none. */
const char *bns_history_text(const struct bns_history *h, uint64_t id);

#define BNS_HISTORY_NONE SIZE_MAX

/* An invocation with its completion. Texts are the history's. */
struct bns_history_call {
    size_t call, ret; /* events; ret BNS_HISTORY_NONE: it never ended */
    int64_t process;
    enum bns_history_type end; /* BNS_HIST_INFO when it never ended */
    uint64_t call_ns, ret_ns;  /* ret_ns UINT64_MAX: it never ended */
    uint32_t key_id;           /* 0: no key */
    const char *f, *key;
    const char *in, *out; /* value of the invocation, of the completion; NULL: null */
};

/* Pairs invocations with completions, in the order of the invocations. *calls (of *count) is the
 * caller's to bns_free with the history's allocator. Events whose f is "watch" are left out: they
 * are streams. BNS_E_INVALID: a completion without invocation, a process that did not wait. */
BNS_MUST_CHECK int bns_history_pair(struct bns_history *h, struct bns_history_call **calls,
                                    size_t *count, struct bns_err *err);

/* Pairs operations of registers: fails and unanswered gets are left out, info and unanswered
 * changes stay open. *ops (of *count) is the caller's to bns_free with the history's allocator. An
 * operation's call is the index of its invoke event. BNS_E_INVALID: unknown f, wrong shape, a
 * completion without invocation, a process that did not wait. */
BNS_MUST_CHECK int bns_history_ops(struct bns_history *h, struct bns_lin_op **ops, size_t *count,
                                   struct bns_err *err);

#endif
