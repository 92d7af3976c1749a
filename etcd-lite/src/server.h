/* server.h - one etcd-lite member: the key-value store, its Raft node, the gRPC and HTTP services.
 *
 * Thread: the daemon's loop.
 */
#ifndef ETCD_SERVER_H
#define ETCD_SERVER_H

#include "alarm.h"
#include "app/admin.h"
#include "app/raft_node.h"
#include "autocompact.h"
#include "base/heap.h"
#include "cluster.h"
#include "corrupt.h"
#include "gateway.h"
#include "identity.h"
#include "io/grpc.h"
#include "io/http.h"
#include "kv.h"
#include "lease_ask.h"
#include "options.h"
#include "rpc_health.h"
#include "session_run.h"
#include "rpc_auth.h"

/* A planted bug (BNS_MUTANT): ids of requests are used again while an answer may still come. */
#define ETCD_MUTANT_LATE_ANSWER 30
/* ... a serializable read does not wait for the revision that its client has seen. */
#define ETCD_MUTANT_TOKEN_IGNORED 90

#define ETCD_API_VERSION "3.6.0"
#define ETCD_CHECK_PATHS 7u /* of http.c */
#define ETCD_INSPECT_PATHS 5u

struct etcd_maint {
    struct bns_timer timer; /* a tick a second while the server runs */
    struct bns_timer compact_timer;
    struct etcd_autocompact compact;
    struct bns_grpc_method methods[5];
};

/* Calls by what their clients say of themselves: `client-api-version` of the metadata. */
#define ETCD_CLIENT_VERSIONS 8u /* the first one: unknown, and all beyond these */
struct etcd_client_version {
    char text[12]; /* "3.6" */
    struct bns_counter *unary, *stream;
};

struct etcd_server {
    struct bns_env *env;
    const struct etcd_options *opt;
    struct etcd_kv *kv;
    struct bns_raft_node *node;
    uint64_t cluster_id, member_id; /* of the data directory */
    bool joined;                    /* not one of the first members */
    bool learner;                   /* this member does not vote */
    struct etcd_roster told;        /* joined: whom it was told of */
    struct etcd_secure secure;
    struct bns_file *wal_lock; /* of --wal-dir */
    struct bns_grpc_server *grpc;
    struct bns_http_server *http;
    struct bns_http_server *peer_http;    /* /members and /version on the peer port */
    struct bns_http_server *metrics_http; /* --listen-metrics-urls; NULL: none */
    uint64_t request_seq;                 /* unique ids of proposals */
    struct bns_list ops; /* struct etcd_task, by deadline: all have the same timeout */
    struct bns_timer ops_timer;
    struct bns_list parked; /* struct etcd_task: reads that are put off */
    size_t parked_count;
    struct bns_timer parked_timer;
    bool parked_pumping;
    struct {                     /* min_revision.c */
        struct bns_heap waiting; /* struct etcd_task, by revision */
        struct bns_task task;
        bool posted;
        struct bns_counter *m_waits;
    } min_revision;
    struct bns_timer publish;
    uint64_t op_timeout_ns;
    uint64_t leader, term; /* as the state machine was last told */
    struct bns_grpc_method kv_methods[5], cluster_methods[6], watch_methods[1];
    struct etcd_maint maint; /* rpc_maint.c */
    struct etcd_corrupt corrupt;
    struct etcd_health health;
    struct {
        uint64_t refused_cost; /* the dearest write that NOSPACE was raised for */
    } alarm;
    struct bns_list watch_calls; /* rpc_watch.c */
    struct bns_grpc_method snapshot_methods[1];
    struct bns_list snapshots; /* rpc_snapshot.c */
    size_t snapshots_count;
    struct bns_timer leaderless; /* since when there is no leader */
    struct etcd_lease_service lease;
    struct etcd_lock_service lock;
    struct etcd_auth_service auth;
    int64_t lease_ttl_min;
    bool stopping_asks;
    struct bns_list changes; /* struct etcd_change */
    struct bns_timer changes_timer;
    size_t changes_count;           /* of all, also those that the closing node answers */
    size_t changes_waiting;         /* proposed here, not yet applied */
    struct bns_timer members_timer; /* who belongs has changed: dial */
    bool was_removed;               /* at the start: it came only to tell the others */
    void (*on_removed)(void *arg);  /* this member belongs no more: it should stop */
    void *on_removed_arg;
    struct bns_http_route routes[2 + ETCD_CHECK_PATHS + ETCD_INSPECT_PATHS], peer_routes[2];
    struct bns_admin admin, metrics_admin;
    struct etcd_gateway gateway;
    uint16_t client_port, metrics_port; /* of the first URL of each */
    void (*on_serving)(void *arg);      /* once, when the first leader is known */
    void *on_serving_arg;
    bool serving;
    bool stopping;
    bool handing_over; /* leadership, before it stops */
    bool handed_over;  /* and it has a successor */
    struct bns_timer hand_over_timer;
    void (*drained)(void *arg);
    void *drained_arg;
    struct bns_counter *m_failed, *m_timeouts, *m_healthy, *m_unhealthy, *m_reads_failed;
    struct bns_counter *m_reads_slow, *m_slow, *m_promoted;
    struct etcd_active_peer { /* metrics.c */
        uint64_t id;
        struct bns_gauge *gauge;
    } active_peers[BNS_RAFT_PEERS_MAX];
    uint64_t slow_log_ns; /* when a slow request was last logged */
    struct etcd_client_version clients[ETCD_CLIENT_VERSIONS];
};

/* Blocking: opens store and log, listens. The data directory exists and is locked. After an error
 * what was opened stays open: the process ends. joins: as whom a new member comes to a cluster that
 * runs (join.h); NULL: the flags or the directory say who this is. */
BNS_MUST_CHECK int etcd_server_start(struct bns_env *env, const struct etcd_options *opt,
                                     const struct etcd_identity *joins, struct etcd_server **out,
                                     struct bns_err *err);
/* Stops taking requests, finishes the open ones, closes log and store; then done. */
void etcd_server_drain(struct etcd_server *s, void (*done)(void *arg), void *arg);
void etcd_server_free(struct etcd_server *s); /* after drain; NULL is fine */

#define ETCD_LEARNER_STATUS BNS_GRPC_FAILED_PRECONDITION
#define ETCD_TEXT_LEARNER "etcdserver: rpc not supported for learner"

/* ---- for the services ------------------------------------------------------------------------ */

/* One request that waits for Raft or the store. Lives in the call's arena, until the call is
 * finished; when the client has gone it goes on and its answer is dropped. */
struct etcd_task {
    struct bns_list node; /* server.ops */
    struct etcd_server *s;
    struct bns_grpc_call *call;
    uint64_t deadline_ns;
    struct etcd_waiter wait;
    struct bns_raft_read read;
    struct bns_list park;        /* server.parked */
    struct bns_heap_node behind; /* server.min_revision.waiting */
    bool waiting, reading, storing, parked;
    const void *req;                     /* the decoded message */
    const struct etcd_status *instead;   /* of the answer, once the proposal is applied */
    struct etcd_who who;                 /* asks; found out when the task was made */
    void *ctx;                           /* the handler's */
    uint64_t index;                      /* likewise */
    void (*then)(struct etcd_task *op);  /* after the linearizable read, or at the revision */
    void (*start)(struct etcd_task *op); /* the read of the store */
    /* NULL: the task's answer, or failure, is the call's. Else it is one step of several: what
     * came of it, once; the task is out of all queues. The answer (status 0) is to be released. */
    void (*answered)(struct etcd_task *op, struct etcd_answer *a);
    void (*failed)(struct etcd_task *op, int status, const char *text);
};

uint64_t etcd_request_id(struct etcd_server *s); /* unique in the cluster; not 0 */
BNS_MUST_CHECK int etcd_request_ids(struct etcd_server *s, struct bns_err *err); /* once, first */
void etcd_publish(void *arg); /* publish.c; arg: the server */

/* NULL: out of memory, the call has been finished. */
struct etcd_task *etcd_task_new(struct etcd_server *s, struct bns_grpc_call *c);
/* Before each use of a task that is part of something else. */
void etcd_task_init(struct etcd_task *op, struct etcd_server *s, struct bns_grpc_call *c);
void etcd_task_drop(struct etcd_task *op); /* out of all queues: nobody is told */
void etcd_task_fail(struct etcd_task *op, int status, const char *text); /* ends op and call */
void etcd_task_answer(struct etcd_task *op, struct etcd_answer *a);      /* likewise */
void etcd_task_reply(struct etcd_task *op, struct bns_slice msg);        /* copies msg; likewise */
void etcd_task_enlist(struct etcd_task *op); /* its deadline counts from now on; no-op if it does */
void etcd_task_linearizable(struct etcd_task *op, void (*then)(struct etcd_task *op));
/* Runs start, which reads the store, now or when there is room for the answer. */
void etcd_task_store(struct etcd_task *op, void (*start)(struct etcd_task *op));
/* Proposes request bytes; the answer ends the op. */
void etcd_task_propose(struct etcd_task *op, enum etcd_op kind, struct bns_slice request);
/* Decodes into the call's arena; on failure the call has been finished. */
void *etcd_decode(struct bns_grpc_call *c, const void *descriptor, struct bns_slice msg);

/* ---- reads of this member's state that see what their client has seen (min_revision.c) ------- */
#define ETCD_MIN_REVISION "bonsai-min-revision"
#define ETCD_TOKEN_TEXT 24u
/* For a serializable read: runs then, now or once this member has applied the revision that the
 * call's metadata names; or the task fails. */
void etcd_task_at_least(struct etcd_task *op, void (*then)(struct etcd_task *op));
bool etcd_task_is_behind(const struct etcd_task *op); /* it waits for that */
void etcd_task_unwait_revision(struct etcd_task *op); /* no-op when it does not */
/* For the on_end of methods that use it. */
void etcd_task_gone(struct bns_grpc_call *c, enum bns_grpc_end why);
/* The trailer with the session's token, 0 or 1 of them; out points into text. */
size_t etcd_task_token(const struct etcd_task *op, int64_t revision, char text[ETCD_TOKEN_TEXT],
                       struct bns_grpc_md *out);
void etcd_min_revision_init(struct etcd_server *s);
void etcd_min_revision_free(struct etcd_server *s);

/* Registers KV, and Cluster. */
BNS_MUST_CHECK int etcd_kv_service(struct etcd_server *s);
BNS_MUST_CHECK int etcd_cluster_service(struct etcd_server *s);
/* rpc_maint.c. Registers Maintenance, starts its tick. */
BNS_MUST_CHECK int etcd_maint_service(struct etcd_server *s);
void etcd_maint_stop(struct etcd_server *s);
/* Ends the task with what is in out, or with a refusal when rv says that memory was short; frees
 * out. */
void etcd_task_reply_buf(struct etcd_task *t, struct bns_buf *out, int rv);
/* rpc_watch.c. Registers Watch. */
BNS_MUST_CHECK int etcd_watch_service(struct etcd_server *s);
void etcd_watch_leader(struct etcd_server *s);                /* s->leader has changed */
void etcd_watch_end(struct etcd_server *s);                   /* all calls end: the server stops */
BNS_MUST_CHECK int etcd_lease_service(struct etcd_server *s); /* Lease */
/* None for three election timeouts: KeepAlive of clients that want to know ends. */
void etcd_lease_no_leader(struct etcd_server *s);
void etcd_lease_streams_end(struct etcd_server *s); /* KeepAlive ends with "server stopped" */
BNS_MUST_CHECK int etcd_lock_service(struct etcd_server *s);     /* v3lockpb.Lock */
BNS_MUST_CHECK int etcd_election_service(struct etcd_server *s); /* v3electionpb.Election */
void etcd_election_no_leader(struct etcd_server *s);             /* as etcd_lease_no_leader */
void etcd_observers_end(struct etcd_server *s);                  /* as etcd_lease_streams_end */
/* The request of a grant: the TTL raised to the least allowed, an id chosen when it is 0. */
BNS_MUST_CHECK int etcd_lease_grant_request(struct etcd_server *s, int64_t ttl, int64_t *id,
                                            struct bns_buf *out);
#define ETCD_LEASE_COST 64u /* of the quota, as etcd counts it */
BNS_MUST_CHECK int etcd_snapshot_service(struct etcd_server *s); /* Maintenance.Snapshot */
void etcd_snapshots_end(struct etcd_server *s);                  /* all calls: the server stops */
/* Appends field 1, a ResponseHeader as of now. */
BNS_MUST_CHECK int etcd_put_header(struct etcd_server *s, struct bns_buf *out);

/* /health, /livez, /readyz, /version, and those of app/admin.h: /metrics, /healthz */
BNS_MUST_CHECK int etcd_http_routes(struct etcd_server *s);
/* inspect.c: the routes /inspect/..., ETCD_INSPECT_PATHS of them. */
void etcd_inspect_routes(struct etcd_server *s, struct bns_http_route *out);
/* peer_http.c: /members and /version for members to come, on the peer port. */
BNS_MUST_CHECK int etcd_peer_http(struct etcd_server *s);
void etcd_peer_http_adopt(void *arg, struct bns_stream *stream, struct bns_slice read_so_far);
BNS_MUST_CHECK int etcd_metrics_init(struct etcd_server *s);
void etcd_metrics_call(struct etcd_server *s, const struct bns_grpc_call *c, struct bns_slice path);
/* Counts, and logs, an answer that took longer than 100 ms to put together. */
void etcd_metrics_answer(struct etcd_task *op, const struct etcd_answer *a);
void etcd_tasks_timer(void *arg);
void etcd_tasks_pump(void *arg);              /* starts the reads that were put off and may go on */
void etcd_tasks_abort(struct etcd_server *s); /* all that wait end with "server stopped" */

#endif
