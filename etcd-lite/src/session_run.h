/* session_run.h - the lock and election services on one member: what drives a claim (session.h),
 * and what their calls have in common.
 *
 * A call's steps are etcd_tasks on its own gRPC call, one after the other: whatever holds for a
 * request of KV (deadline, caller's identity, what a stop does) holds for each step. There is no
 * connection to ourselves.
 *
 * Thread: the loop. Memory: in the call's arena, until the call is finished.
 * Bounds: ETCD_SESSIONS_MAX calls that wait, and as many that observe; each costs its arena, two
 *         watches and nothing else.
 */
#ifndef ETCD_SESSION_RUN_H
#define ETCD_SESSION_RUN_H

#include "base/buf.h"
#include "io/grpc.h"
#include "session.h"

#define ETCD_SESSIONS_MAX 100000u
#define ETCD_TEXT_NO_KEY "etcdserver: key is not provided"

struct etcd_server;
struct etcd_session;
struct etcd_task;
struct etcd_kv;

struct etcd_lock_service {
    struct bns_list sessions;  /* struct etcd_session */
    struct bns_list retry;     /* those that wait for a leader to confirm */
    struct bns_list observers; /* rpc_election.c */
    struct bns_timer timer;
    size_t count;
    size_t observing; /* calls of Observe */
    bool over;        /* nothing is started any more */
    struct bns_grpc_method lock_methods[2], election_methods[5];
};

/* What is asked of a claim's driver. Slices are borrowed from the call's message. */
struct etcd_session_request {
    bool election;
    int64_t lease; /* 0: one is granted */
    struct bns_slice name, value;
};

struct etcd_session_result {
    struct bns_slice key; /* the own key */
    int64_t lease, rev;   /* rev: its create revision */
    int64_t revision;     /* of the answer's header */
};

/* Runs a claim; `answer` puts the response message of a call that is first. The call is finished in
 * any case. `c` gets a ctx: its on_end is to be etcd_session_on_end(). */
void etcd_session_start(struct bns_grpc_call *c, const struct etcd_session_request *r,
                        int (*answer)(struct etcd_server *s, const struct etcd_session_result *r,
                                      struct bns_buf *out));
void etcd_session_on_end(struct bns_grpc_call *c, enum bns_grpc_end why);

void etcd_sessions_init(struct etcd_server *s);
void etcd_sessions_stop(struct etcd_server *s);  /* waiting calls leave and end: the server stops */
void etcd_sessions_abort(struct etcd_server *s); /* ... and now at once */

/* ---- for the services ------------------------------------------------------------------------ */

/* A service of etcd is a client of its own server: whatever it is refused comes out as UNKNOWN,
 * with the text. Only the end of the server is told as it is. */
int etcd_session_status(int status);
/* For task.failed: finishes the call so. */
void etcd_session_failed(struct etcd_task *t, int status, const char *text);
/* A task of its own for a call that is a single step; NULL: the call has been finished. */
struct etcd_task *etcd_session_task(struct bns_grpc_call *c);
void etcd_session_reply(struct bns_grpc_call *c, struct bns_buf *out, int rv); /* ends the call */

/* As etcd_alarm_gate(), for a step: false = the task has failed. */
BNS_MUST_CHECK bool etcd_session_gate(struct etcd_task *t, uint64_t cost);

/* Appends field 1, a ResponseHeader with this revision. */
BNS_MUST_CHECK int etcd_session_header(struct etcd_server *s, int64_t revision,
                                       struct bns_buf *out);
/* TxnRequest: if the key's create revision is `rev`, then (put with value and lease; without
 * value->ptr: delete), else (read the key, when or_read). */
struct etcd_session_txn {
    struct bns_slice key, value;
    int64_t rev, lease;
    bool or_read;
    bool keep_lease; /* not `lease`, but the one it has */
};
BNS_MUST_CHECK int etcd_session_txn(const struct etcd_session_txn *t, struct bns_buf *out);
/* TxnResponse: did it succeed; the KeyValue that was read, empty when there is none. */
struct etcd_answer;
BNS_MUST_CHECK int etcd_session_txn_read(const struct bns_alloc *alloc, const struct etcd_answer *a,
                                         bool *succeeded, struct bns_buf *kv);
/* Any slices as one; into `out` when there are several. */
BNS_MUST_CHECK int etcd_session_flat(const struct bns_slice *v, size_t n, struct bns_buf *out,
                                     struct bns_slice *flat);

/* ---- what is applied here (session_kv.c) ----------------------------------------------------- */

struct etcd_session_view {
    int64_t revision;
    bool ours;              /* the own key is there, created at rev */
    struct bns_slice older; /* the newest key created before rev; borrowed until the loop's next
                               turn; ptr NULL: none */
    struct bns_slice first; /* the key created first, likewise */
};
/* All keys that begin with prefix, which ends with '/'. */
void etcd_session_look(const struct etcd_kv *kv, struct bns_slice prefix, struct bns_slice own,
                       int64_t rev, struct etcd_session_view *out);

#endif
