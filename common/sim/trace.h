/* trace.h - what happened in a run, as a file that a person can look at: JSON lines.
 *
 * The first line is the header, then one line an event, in the order of time:
 *
 * {"format":"bonsai-trace","version":1,"seed":"0x1f2e","title":"...","events":2,"skipped":0,
 *  "nodes":[{"name":"n0","kind":"server","state":"down","role":""}, ...]}       (one line)
 * {"t":1200,"node":0,"kind":"send","peer":1,"id":7,"bytes":120,"text":"rpc"}
 * {"t":1500,"node":1,"kind":"recv","peer":0,"id":7,"bytes":120}
 *
 *   format, version   always these; a reader refuses others
 *   events            how many lines follow; fewer or more: the file is damaged
 *   skipped           how many older events were thrown away to bound the file: the last ones are
 *                     kept. state ("up", "down", "paused") and role of a node are those before the
 *                     first event that was kept
 *   nodes[].kind      "server" or "client"; "node" and "peer" of events are positions in this list
 *   t                 virtual ns since the beginning, never going back
 *   node              where it happened; missing: to the world as a whole
 *   kind              one of enum bns_trace_kind
 *   peer, id          send, recv, drop: the other end, and a number that the send shares with the
 *                     recv or drop of the same bytes (an arrow). One send has at most one of them;
 *                     its drop may stand on either end
 *   bytes, text       as it makes sense for the kind; missing: 0, ""
 *
 * start: the process begins. crash: it ends by itself or is killed, or its machine has no power
 * (text says which). role: text is "follower", "candidate", "leader" (or what the system calls it),
 * id is the term. pause, resume: like SIGSTOP, SIGCONT. fsync: of a file, bytes: how many were
 * unsynced. fault: what the nemesis did; a partition has text "partition", id a set of nodes (bit
 * n: node n) and `bytes` 1 when it blocks one way only (from the set to the others); "heal" ends
 * all. invoke, reply: a client's operation, id pairs them. note: anything else.
 *
 * Thread:  one a trace. Memory: a ring of events_max events, texts are copied (and cut at 127
 *          bytes).
 * Errors:  BNS_E_NOMEM; bns_trace_parse: BNS_E_INVALID with line number and reason.
 */
#ifndef BNS_SIM_TRACE_H
#define BNS_SIM_TRACE_H

#include "base/buf.h"

#define BNS_TRACE_VERSION 1
#define BNS_TRACE_NODES_MAX 64
#define BNS_TRACE_EVENTS_MAX 200000u /* the default of bns_trace_new(), and the most a file has */
#define BNS_TRACE_NONE UINT32_MAX    /* no node, no peer */

enum bns_trace_kind {
    BNS_TRACE_SEND,
    BNS_TRACE_RECV,
    BNS_TRACE_DROP,
    BNS_TRACE_START,
    BNS_TRACE_CRASH,
    BNS_TRACE_PAUSE,
    BNS_TRACE_RESUME,
    BNS_TRACE_ROLE,
    BNS_TRACE_FSYNC,
    BNS_TRACE_FAULT,
    BNS_TRACE_INVOKE,
    BNS_TRACE_REPLY,
    BNS_TRACE_NOTE,
    BNS_TRACE_KINDS
};

extern const char *const bns_trace_kind_names[BNS_TRACE_KINDS]; /* as in files */

struct bns_trace_event {
    uint64_t t; /* ns */
    uint32_t node, peer;
    enum bns_trace_kind kind;
    uint64_t id, bytes;
    const char *text; /* NULL: "" */
};

struct bns_trace;

/* events_max: 0 = BNS_TRACE_EVENTS_MAX. */
BNS_MUST_CHECK int bns_trace_new(const struct bns_alloc *alloc, uint64_t seed, size_t events_max,
                                 struct bns_trace **out);
void bns_trace_free(struct bns_trace *t); /* NULL is fine */
void bns_trace_title(struct bns_trace *t, const char *title);
/* Nodes are numbered in the order in which they are told. */
void bns_trace_node(struct bns_trace *t, const char *name, bool server);

/* Appends; when the ring is full the oldest event goes. t may be NULL: nothing happens. Asserts
 * that time does not go back and that nodes are known. */
void bns_trace_add(struct bns_trace *t, const struct bns_trace_event *ev);

uint64_t bns_trace_seed(const struct bns_trace *t);
uint64_t bns_trace_skipped(const struct bns_trace *t);
size_t bns_trace_nodes(const struct bns_trace *t);
size_t bns_trace_count(const struct bns_trace *t);
struct bns_trace_event bns_trace_at(const struct bns_trace *t, size_t index); /* text: borrowed */

/* The file, header first. */
BNS_MUST_CHECK int bns_trace_write(const struct bns_trace *t, struct bns_buf *out);
/* Reads a file; *out is the caller's. */
BNS_MUST_CHECK int bns_trace_parse(const struct bns_alloc *alloc, struct bns_slice text,
                                   struct bns_trace **out, struct bns_err *err);

#endif
