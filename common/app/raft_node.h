/* raft_node.h - one Raft group in a daemon: core + WAL + peer RPC + a state machine.
 *
 * kafka-lite's controller, the namenode's edit log, the TSO and etcd-lite implement struct
 * bns_sm_ops and get replication, snapshots, linearizable reads and recovery.
 *
 * Thread:  all calls and callbacks on the env's loop.
 * Memory:  entries and slices given to callbacks are borrowed until the matching done is called.
 */
#ifndef BNS_APP_RAFT_NODE_H
#define BNS_APP_RAFT_NODE_H

#include "base/env.h"
#include "io/rpc.h"
#include "proto/raft.h"
#include "store/wal.h"

struct bns_raft_node;
struct bns_sm_snap; /* the state machine's: an open, consistent snapshot */

typedef void bns_sm_done(void *arg, int code);
typedef void bns_sm_snap_done(void *arg, int code, struct bns_sm_snap *snap,
                              const struct bns_raft_snapmeta *meta, uint64_t bytes);
typedef void bns_sm_read_done(void *arg, int code, struct bns_slice chunk);

/* The state machine. `done` may be run inside the call or later. Applying cannot fail: done with an
 * error means that the node is going down (bns_fatal has been called). */
struct bns_sm_ops {
    /* Committed entries in order (NOOP and CONF too: they move the applied index). One batch at a
     * time: the next comes after done. The effect may be volatile until checkpoint. */
    void (*apply)(void *sm, const struct bns_raft_entry *e, size_t n, bns_sm_done *done, void *arg);
    /* Makes all that is applied durable, with the applied index and its term in the same
     * transaction; then durable() tells at least the index applied at the call. */
    void (*checkpoint)(void *sm, bns_sm_done *done, void *arg);
    /* What the disk holds: index 0 = nothing. Answered before bns_raft_node_start() too. */
    void (*durable)(void *sm, struct bns_raft_snapmeta *out);
    /* A consistent snapshot while applies go on; meta says at which index it came to stand. */
    void (*snap_open)(void *sm, bns_sm_snap_done *done, void *arg);
    void (*snap_read)(void *sm, struct bns_sm_snap *s, uint64_t off, size_t len,
                      bns_sm_read_done *done, void *arg);
    void (*snap_close)(void *sm, struct bns_sm_snap *s);
    /* Replaces everything. begin, chunk..., end or abort; whole or absent after a crash. No apply
     * is in flight from end until its done. */
    void (*install_begin)(void *sm, const struct bns_raft_snapmeta *meta, uint64_t bytes,
                          bns_sm_done *done, void *arg);
    void (*install_chunk)(void *sm, uint64_t off, struct bns_slice chunk, bns_sm_done *done,
                          void *arg);
    /* done with an error: nothing was replaced, the old state goes on. */
    void (*install_end)(void *sm, bns_sm_done *done, void *arg);
    void (*install_abort)(void *sm);
    void (*role)(void *sm, enum bns_raft_role role, uint64_t term, uint64_t leader);
    /* Digest of the state at the applied index; equal on all members (simulator, checks). */
    uint64_t (*digest)(void *sm);
};

struct bns_raft_peer_addr {
    uint64_t id;
    char host[BNS_HOST_MAX]; /* numeric, or a name */
    uint16_t port;
    struct bns_endpoint more[BNS_RPC_ADDRS_MAX - 1]; /* of the same member, dialled in turn */
    size_t more_count;
    bool tls;     /* dialled with the node's */
    bool learner; /* first start: not one of the first voters */
};

struct bns_raft_node_config {
    uint32_t group;
    uint64_t id;
    uint8_t cluster_id[16];
    /* All members, this one too. At the first start they are the first voters (those that are no
     * learners); later the configuration is in the log, and only the addresses are looked at. */
    const struct bns_raft_peer_addr *peers;
    size_t peers_count;
    /* This node is not one of the first members: while neither its data nor its log tell of a
     * configuration it never campaigns, and takes the log or a snapshot of any leader. */
    bool joining;
    const char *listen_host; /* where peers reach us; NULL with one member = no listener */
    uint16_t listen_port;
    bool listen_optional; /* a port that is taken is no error: bns_raft_node_port() is 0 then */
    struct bns_tls *tls;  /* borrowed: for peers that have it, and our listener when listen_tls */
    bool listen_tls;
    uint64_t election_ns, heartbeat_ns;
    uint64_t snapshot_entries; /* 0 = 10,000: checkpoint after so many applied entries */
    uint64_t snapshot_bytes;   /* 0 = 64 MiB */
    uint64_t trailing_entries, trailing_bytes;
    struct bns_wal_config wal;
    /* Beside ops->role: for the server around the state machine. May be NULL. */
    void (*on_role)(void *arg, enum bns_raft_role role, uint64_t term, uint64_t leader);
    void *on_role_arg;
    /* Requests of other members, method >= BNS_RAFT_NODE_METHOD: to be answered by bns_rpc_reply()
     * once, now or later. NULL: refused. */
    void (*on_request)(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                       struct bns_slice payload);
    void *on_request_arg;
    /* Once, in a turn of its own: a committed change removed this node, the state machine has
     * applied it, and another member knows; or a member whose is_removed() knows has told so.
     * The node goes on, as a bystander, until it is closed; also after a start. May be NULL. */
    void (*on_removed)(void *arg);
    /* Has this id been a member and been removed? Asked for nodes that are no members (any more).
     * May be NULL: no. */
    bool (*is_removed)(void *arg, uint64_t id);
    /* A connection to the peer listener that begins with an HTTP request; to be adopted by an HTTP
     * server. NULL: closed, as a stranger's. */
    void (*on_http)(void *arg, struct bns_stream *stream, struct bns_slice read_so_far);
    void *members_arg;
};
#define BNS_RAFT_NODE_METHOD 64u

/* Start-up, blocking: opens the WAL, replays, joins it with what the state machine holds. The core
 * runs from bns_raft_node_start() on. BNS_E_CORRUPT, BNS_E_INVALID, BNS_E_IO, BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_raft_node_open(struct bns_env *env, const struct bns_raft_node_config *cfg,
                                      const struct bns_sm_ops *ops, void *sm,
                                      struct bns_raft_node **out, struct bns_err *err);
BNS_MUST_CHECK int bns_raft_node_start(struct bns_raft_node *n, struct bns_err *err);

/* Takes a reference on data. The outcome arrives through apply (or never: the caller has a
 * deadline). Without a leader it waits, but is dropped after 5 to 10 s. BNS_E_BUSY; BNS_E_NOSPACE:
 * no room in the log here, or at the leader as far as it told; BNS_E_NOMEM; BNS_E_SHUTDOWN. */
BNS_MUST_CHECK int bns_raft_node_propose(struct bns_raft_node *n, struct bns_rcbuf *data);

/* Likewise, ahead of all that wait, with room of its own (4 MiB), and however far applies lag
 * behind: for what must not starve under overload, such as the end of a lease. */
BNS_MUST_CHECK int bns_raft_node_propose_urgent(struct bns_raft_node *n, struct bns_rcbuf *data);

/* A linearizable read: fn runs once applied >= a read index confirmed by a quorum round that began
 * after this call (BNS_OK), or with BNS_E_NOTLEADER, BNS_E_NOQUORUM, BNS_E_TIMEOUT, BNS_E_BUSY.
 * fn does not run inside the call, but with BNS_E_SHUTDOWN when the node is closing. */
struct bns_raft_read {
    struct bns_list node; /* the raft_node's */
    uint64_t index, deadline_ns;
    void (*fn)(struct bns_raft_read *r, int code);
};
void bns_raft_node_read(struct bns_raft_node *n, struct bns_raft_read *r, uint64_t deadline_ns);
/* Likewise, with room of its own when very many wait: for renewals of leases. */
void bns_raft_node_read_urgent(struct bns_raft_node *n, struct bns_raft_read *r,
                               uint64_t deadline_ns);
void bns_raft_node_read_cancel(struct bns_raft_node *n, struct bns_raft_read *r);

/* A request to another member, over the connection that carries Raft's messages; its on_request
 * answers. As bns_rpc_call(), and BNS_E_NOTFOUND: no such member; BNS_E_SHUTDOWN. o->method >=
 * BNS_RAFT_NODE_METHOD. When the node closes, o->done runs with BNS_E_CANCELED. */
BNS_MUST_CHECK int bns_raft_node_call(struct bns_raft_node *n, uint64_t to,
                                      const struct bns_rpc_call_options *o,
                                      struct bns_slice payload);

/* ---- members --------------------------------------------------------------------------------- */
typedef void bns_raft_node_done(void *arg, int code);

/* Changes the configuration: all of the changes or none, one or many (then through a joint
 * configuration). On any member: the leader is asked. `context` (<= BNS_RAFT_CONTEXT_BYTES_MAX,
 * copied) comes back in the CONF entry that apply gets: bns_raft_change_decode(). No changes at
 * all: an entry that states the configuration, with the context.
 * done, once, never inside the call:
 *   BNS_OK         it is in the leader's log. The outcome is its apply, or never: have a deadline
 *   BNS_E_EXISTS, BNS_E_NOTFOUND, BNS_E_INVALID, BNS_E_TOOBIG   see BNS_RAFT_IN_CHANGE
 *   BNS_E_NOSPACE  the leader has no room for entries
 *   BNS_E_BUSY     for five seconds another change was under way, or the leader was too new
 *   BNS_E_NOTLEADER  for five seconds there was no leader
 *   BNS_E_DROPPED, BNS_E_TIMEOUT   the leader was asked and did not answer: outcome unknown
 *   BNS_E_SHUTDOWN
 * At once, and then done does not run: BNS_E_SHUTDOWN, BNS_E_TOOBIG, BNS_E_BUSY (64 are waiting),
 * BNS_E_NOMEM. The address of a new member is to be set (peer_set) on every member when it applies
 * the entry. */
BNS_MUST_CHECK int bns_raft_node_change(struct bns_raft_node *n,
                                        const struct bns_raft_change *changes, size_t changes_count,
                                        struct bns_slice context, bns_raft_node_done *done,
                                        void *arg);

/* Hands leadership to voter `to` (0: the best), which has then what was proposed before. done,
 * once, never inside the call: BNS_OK: this node knows `to` as the leader (0: another leader);
 * BNS_E_CONFLICT: somebody else leads now; BNS_E_TIMEOUT: given up after an election timeout (two
 * when nobody leads), proposals go on;
 * BNS_E_SHUTDOWN. At once: BNS_E_NOTLEADER; BNS_E_NOTFOUND: no member (0: no other voter was heard
 * of); BNS_E_INVALID: a learner; BNS_E_BUSY: one is under way; BNS_E_SHUTDOWN. */
BNS_MUST_CHECK int bns_raft_node_transfer(struct bns_raft_node *n, uint64_t to,
                                          bns_raft_node_done *done, void *arg);

/* Nobody waits any more for a change that was asked for with this arg: its done will not run. What
 * comes of it is not known. */
void bns_raft_node_change_forget(struct bns_raft_node *n, const void *arg);

/* Where a member is to be found: a new one is dialled, one with another address dialled anew (equal
 * addresses change nothing). Says nothing about the configuration. BNS_E_TOOBIG: 32 are known;
 * BNS_E_SHUTDOWN. Others, as BNS_E_NOMEM: it is known, and dialled again every second. */
BNS_MUST_CHECK int bns_raft_node_peer_set(struct bns_raft_node *n,
                                          const struct bns_raft_peer_addr *addr);
/* Its connection and streams end when the core has told it of its removal, and it has answered what
 * it was asked (or those calls have run out of time). */
void bns_raft_node_peer_remove(struct bns_raft_node *n, uint64_t id);

/* The configuration in force; no voters: not known yet (joining). */
const struct bns_raft_conf *bns_raft_node_conf(const struct bns_raft_node *n);

/* Since when the connection to a member has been up without a break; 0: it is not. */
uint64_t bns_raft_node_peer_since(const struct bns_raft_node *n, uint64_t id);

void bns_raft_node_status(const struct bns_raft_node *n, struct bns_raft_status *out);
uint16_t bns_raft_node_port(const struct bns_raft_node *n); /* of the peer listener, 0 = none */

/* Stops taking proposals, finishes what the WAL has, closes; done may run inside the call. */
void bns_raft_node_close(struct bns_raft_node *n, void (*done)(void *arg), void *arg);

#endif
