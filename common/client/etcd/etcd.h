/* etcd.h - a client of etcd's v3 API, for etcd-lite or the real etcd: calls with failover, KV.
 *
 *     struct bns_etcd         a set of endpoints, a user, defaults        (this file)
 *     bns_etcd_call()         any unary RPC: request message in, response message out
 *     bns_etcd_get() ...      the usual requests of KV, put together
 *     bns_etcd_stream_open()  any streaming RPC, raw: no resumption
 *     watch.h  lease.h  lock.h  peers.h   what stands on them: watches that resume, leases that are
 *                             kept alive, locks and elections, who is there
 *
 * Thread:    the env's loop, callbacks too. It runs in the simulator.
 * Memory:    requests are packed within the call and not kept. Answers are borrowed for the
 *            callback. Keys and values are bytes.
 * Errors:    a call that was started ends in exactly one `done`, with a gRPC status and the text
 *            of the server ("etcdserver: ..."). Functions return BNS_E_NOMEM, BNS_E_SHUTDOWN
 *            (the client is being freed) and then nothing has begun.
 * Failover:  the rule of etcd's own client for puts and reads, here for all. A call that surely
 *            never reached a server (no connection, a refused stream) goes to the next endpoint,
 *            whatever it is. A call that only reads is sent again after UNAVAILABLE too. What
 *            changes something and may have reached a server is never sent twice (etcd's client
 *            does send grants, revocations and alarms again: two leases, a revocation that fails
 *            although it was done); its answer says `unknown`, and the caller finds out by reading.
 *            After each round of all endpoints: a pause, 25 ms at first, doubled up to 1 s, with
 *            jitter. The deadline ends it: status 4, "context deadline exceeded".
 * Auth:      with a user, the first call asks for a token and the rest wait for it. A token that
 *            the server no longer knows is asked for anew, and the call sent again: nothing of it
 *            had been done. A server without auth is used without token.
 * Bounds:    calls under way: calls_max of the options; an answer: 128 MiB.
 */
#ifndef BNS_CLIENT_ETCD_ETCD_H
#define BNS_CLIENT_ETCD_ETCD_H

#include "admin.pb-c.h"
#include "auth.pb-c.h"
#include "base/env.h"
#include "base/host.h"
#include "io/grpc.h"
#include "lock.pb-c.h"
#include "rpc.pb-c.h"

struct bns_etcd;

#define BNS_ETCD_ENDPOINTS_MAX 16u

struct bns_etcd_options {
    const char *const *endpoints; /* "host:port", "http://host:port", "https://host:port"; copied */
    size_t endpoints_count;       /* 1 .. BNS_ETCD_ENDPOINTS_MAX */
    struct bns_tls *tls;          /* borrowed; https needs one, and with one all endpoints use it */
    const char *server_name;      /* that certificates must have; NULL: the endpoint's host */
    const char *user, *password;  /* NULL: none; copied */
    uint64_t dial_timeout_ns;     /* then the next endpoint is tried; 0 = 2 s */
    uint64_t call_timeout_ns;     /* of calls that name no deadline; 0 = 5 s */
    uint32_t calls_max;           /* 0 = 65,536 */
    bool first_endpoint;          /* begin with the first one; else with one at random */
};

/* "http://host:port", "host:port", "host"; *tls is told by the scheme. BNS_E_INVALID. */
BNS_MUST_CHECK int bns_etcd_endpoint(const char *text, struct bns_endpoint *out, bool *tls,
                                     struct bns_err *err);

/* Dials nothing. BNS_E_INVALID: no endpoint, or one that is none, with the text in err. */
BNS_MUST_CHECK int bns_etcd_new(struct bns_env *env, const struct bns_etcd_options *o,
                                struct bns_etcd **out, struct bns_err *err);
/* Open calls end with 1 within this call. Watches, leases, locks and peers must have been closed.
 * Legal in `done` of a call and of a drain; not in callbacks that hand over messages of streams.
 * What it has posted runs in the loop's next turn: before the env is freed. NULL is fine. */
void bns_etcd_free(struct bns_etcd *c);
/* Runs done once, in a later turn, when no call is under way: what was closed before (leases that
 * are revoked, locks) has then been answered or given up. Not after bns_etcd_free(), and not a
 * second time while one waits. */
void bns_etcd_drain(struct bns_etcd *c, void (*done)(void *arg), void *arg);
struct bns_env *bns_etcd_env(const struct bns_etcd *c);

/* ---- any unary call -------------------------------------------------------------------------- */

/* X(name, path, stem of the response's descriptor, only reads: may be sent again when it may have
 * happened). An ALARM that asks for the list only reads, too. */
#define BNS_ETCD_METHODS(X)                                                                        \
    X(RANGE, "KV/Range", range, true)                                                              \
    X(PUT, "KV/Put", put, false)                                                                   \
    X(DELETE, "KV/DeleteRange", delete_range, false)                                               \
    X(TXN, "KV/Txn", txn, false)                                                                   \
    X(COMPACT, "KV/Compact", compaction, false)                                                    \
    X(LEASE_GRANT, "Lease/LeaseGrant", lease_grant, false)                                         \
    X(LEASE_REVOKE, "Lease/LeaseRevoke", lease_revoke, false)                                      \
    X(LEASE_TTL, "Lease/LeaseTimeToLive", lease_time_to_live, true)                                \
    X(LEASE_LIST, "Lease/LeaseLeases", lease_leases, true)                                         \
    X(LEASE_KEEP, "Lease/LeaseKeepAlive", lease_keep_alive, true)                                  \
    X(WATCH, "Watch/Watch", watch, true)                                                           \
    X(MEMBER_LIST, "Cluster/MemberList", member_list, true)                                        \
    X(MEMBER_ADD, "Cluster/MemberAdd", member_add, false)                                          \
    X(MEMBER_REMOVE, "Cluster/MemberRemove", member_remove, false)                                 \
    X(MEMBER_UPDATE, "Cluster/MemberUpdate", member_update, false)                                 \
    X(MEMBER_PROMOTE, "Cluster/MemberPromote", member_promote, false)                              \
    X(STATUS, "Maintenance/Status", status, true)                                                  \
    X(ALARM, "Maintenance/Alarm", alarm, false)                                                    \
    X(DEFRAGMENT, "Maintenance/Defragment", defragment, false)                                     \
    X(HASH, "Maintenance/Hash", hash, true)                                                        \
    X(HASH_KV, "Maintenance/HashKV", hash_kv, true)                                                \
    X(SNAPSHOT, "Maintenance/Snapshot", snapshot, true)                                            \
    X(MOVE_LEADER, "Maintenance/MoveLeader", move_leader, false)                                   \
    X(AUTH_ENABLE, "Auth/AuthEnable", auth_enable, false)                                          \
    X(AUTH_DISABLE, "Auth/AuthDisable", auth_disable, false)                                       \
    X(AUTH_STATUS, "Auth/AuthStatus", auth_status, true)                                           \
    X(AUTHENTICATE, "Auth/Authenticate", authenticate, true)                                       \
    X(USER_ADD, "Auth/UserAdd", auth_user_add, false)                                              \
    X(USER_GET, "Auth/UserGet", auth_user_get, true)                                               \
    X(USER_LIST, "Auth/UserList", auth_user_list, true)                                            \
    X(USER_DELETE, "Auth/UserDelete", auth_user_delete, false)                                     \
    X(USER_PASSWORD, "Auth/UserChangePassword", auth_user_change_password, false)                  \
    X(USER_GRANT, "Auth/UserGrantRole", auth_user_grant_role, false)                               \
    X(USER_REVOKE, "Auth/UserRevokeRole", auth_user_revoke_role, false)                            \
    X(ROLE_ADD, "Auth/RoleAdd", auth_role_add, false)                                              \
    X(ROLE_GET, "Auth/RoleGet", auth_role_get, true)                                               \
    X(ROLE_LIST, "Auth/RoleList", auth_role_list, true)                                            \
    X(ROLE_DELETE, "Auth/RoleDelete", auth_role_delete, false)                                     \
    X(ROLE_GRANT, "Auth/RoleGrantPermission", auth_role_grant_permission, false)                   \
    X(ROLE_REVOKE, "Auth/RoleRevokePermission", auth_role_revoke_permission, false)

enum bns_etcd_method {
#define BNS_ETCD_ENUM(name, path, stem, again) BNS_ETCD_##name,
    BNS_ETCD_METHODS(BNS_ETCD_ENUM)
#undef BNS_ETCD_ENUM
        BNS_ETCD_METHODS_COUNT
};

struct bns_etcd_answer {
    int status;        /* enum bns_grpc_status */
    const char *text;  /* of the server, or of this client; "" with status 0 */
    const char *cause; /* why the last attempt failed, when the deadline ended it; or "" */
    const ProtobufCMessage *msg; /* with status 0: of the method's response type */
    /* What msg lies in. To keep it: copy the struct, and bns_arena_init() this one anew. */
    struct bns_arena *arena;
    bool unknown; /* failed, and a server may have done it all the same */
};
typedef void bns_etcd_done(void *arg, const struct bns_etcd_answer *a);

struct bns_etcd_call;

/* A session: whoever uses it reads its own writes, and never an older state than it has seen, on
 * whichever member and by whichever client. Each answer raises `revision` to that of its header;
 * each call sends it along, and a serializable read is answered by a state at least as new, without
 * a round to the leader. That is etcd-lite's (metadata bonsai-min-revision): a real etcd ignores
 * it, so there only linearizable reads keep the promise. Starts as {0}; the number may be stored,
 * and handed to others. */
struct bns_etcd_session {
    int64_t revision;
};

struct bns_etcd_call_options {
    struct bns_etcd_session *session; /* borrowed until done; NULL: none */
    enum bns_etcd_method method;
    const ProtobufCMessage *request; /* packed as it is */
    uint64_t deadline_ns;            /* absolute; 0: the client's default from now; BNS_NEVER */
};
/* *out (may be NULL) is valid until done. BNS_E_BUSY: calls_max are under way. */
BNS_MUST_CHECK int bns_etcd_call(struct bns_etcd *c, const struct bns_etcd_call_options *o,
                                 bns_etcd_done *done, void *arg, struct bns_etcd_call **out);
/* done will not run. Whether it happened is not known. */
void bns_etcd_call_cancel(struct bns_etcd_call *call);

/* ---- KV -------------------------------------------------------------------------------------- */

/* One key; a value of 0 bytes is legal. done: PutResponse. */
BNS_MUST_CHECK int bns_etcd_put(struct bns_etcd *c, struct bns_slice key, struct bns_slice value,
                                int64_t lease, bns_etcd_done *done, void *arg);
/* [key, end); end of 0 bytes: that key alone. done: RangeResponse. Linearizable. */
BNS_MUST_CHECK int bns_etcd_get(struct bns_etcd *c, struct bns_slice key, struct bns_slice end,
                                bns_etcd_done *done, void *arg);
/* As above. done: DeleteRangeResponse. */
BNS_MUST_CHECK int bns_etcd_del(struct bns_etcd *c, struct bns_slice key, struct bns_slice end,
                                bns_etcd_done *done, void *arg);
/* Put if the key's mod revision is `revision`, 0: if there is no such key. done: TxnResponse, whose
 * first response is a range of that key when it did not succeed. */
struct bns_etcd_cas {
    struct bns_slice key, value;
    int64_t revision, lease;
};
BNS_MUST_CHECK int bns_etcd_put_if(struct bns_etcd *c, const struct bns_etcd_cas *o,
                                   bns_etcd_done *done, void *arg);

/* The end of the range of all keys that begin with `prefix`, in dst, which has prefix.len bytes or
 * 1, whichever is more. A prefix of 0xff bytes or of none: "\0", to the last key. */
struct bns_slice bns_etcd_prefix_end(struct bns_slice prefix, uint8_t *dst);

/* ---- any stream ------------------------------------------------------------------------------ */
struct bns_etcd_stream;

struct bns_etcd_stream_handler {
    /* Borrowed bytes of one response. The stream may be closed in it, the client not freed. */
    void (*on_message)(void *arg, struct bns_slice msg);
    /* Last; then the stream is gone. Not called after bns_etcd_stream_close(). */
    void (*on_end)(void *arg, int status, const char *text);
};
struct bns_etcd_stream_options {
    enum bns_etcd_method method;
    const ProtobufCMessage *first;                 /* the first request; goes along */
    bool last;                                     /* it is the only one */
    const struct bns_etcd_stream_handler *handler; /* borrowed */
    void *arg;
};
/* Opens on the endpoint that serves now, with `hasleader: true`. *out is valid until on_end. */
BNS_MUST_CHECK int bns_etcd_stream_open(struct bns_etcd *c, const struct bns_etcd_stream_options *o,
                                        struct bns_etcd_stream **out);
/* BNS_E_AGAIN: it still waits for a token; BNS_E_OFF: it has ended, on_end follows. */
BNS_MUST_CHECK int bns_etcd_stream_send(struct bns_etcd_stream *s, const ProtobufCMessage *msg);
void bns_etcd_stream_read(struct bns_etcd_stream *s, bool on); /* off: flow control */
void bns_etcd_stream_close(struct bns_etcd_stream *s);         /* NULL is fine */
/* The server has been silent for too long: its connection is given up, all that is on it ends with
 * 14, and what comes next goes to another endpoint. The stream ends too, later. */
void bns_etcd_stream_suspect(struct bns_etcd_stream *s);

/* A pause before the n-th try in a row (n from 1), with jitter. */
uint64_t bns_etcd_backoff_ns(struct bns_etcd *c, unsigned n);

/* One response of a stream, into the arena. BNS_E_PROTO, BNS_E_TOOBIG, BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_etcd_unpack(enum bns_etcd_method method, struct bns_slice in,
                                   struct bns_arena *arena, ProtobufCMessage **out);

#endif
