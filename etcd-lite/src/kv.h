/* kv.h - etcd-lite's key-value store: MVCC over a replicated log, seen from the server.
 *
 * One object a member. Behind it: the key index in memory (index.h), the revision store in SQLite
 * on a worker of its own (revstore.h), a cache of recent KeyValue bytes. It is a state machine for
 * bns_raft_node (etcd_kv_sm()); the object itself is the `sm` argument of those operations.
 *
 * A write:  the server checks (check.h), asks etcd_kv_room(), encodes with etcd_internal_encode(),
 *           registers an etcd_waiter under the request's id, proposes. Apply finds the waiter and
 *           hands it the answer. A request without a waiter here (it came through another member,
 *           or is replayed) is applied without building an answer.
 * A read:   the server does its ReadIndex, then etcd_kv_range() answers at the applied state.
 * Answers:  a response message WITHOUT field 1: etcd_answer_header() puts the ResponseHeader in
 *           front (slices[0] is kept free for it); then send slices[0 .. slices_count).
 *
 * Thread:   every call and callback on the env's loop; etcd_kv_open and _close block (start-up,
 *           shut-down).
 * Memory:   requests are borrowed until done; answers own their bytes until released, exactly once.
 * Errors:   a failing store ends the process through bns_fatal (exit 6 input/output, 4 corrupt,
 *           1 no memory for an apply).
 */
#ifndef ETCD_KV_H
#define ETCD_KV_H

#include "app/raft_node.h"
#include "base/env.h"
#include "base/hmap.h"
#include "base/rcbuf.h"
#include "check.h"
#include "internal.pb-c.h"
#include "rpc.pb-c.h"

struct etcd_kv;

struct etcd_kv_config {
    const char *dir;      /* exists; the store keeps its files in it */
    uint64_t quota_bytes; /* 0 = 2 GiB; UINT64_MAX = off */
    uint64_t cache_bytes; /* recent KeyValue bytes on the loop; 0 = 8 MiB */
    uint64_t queue_bytes; /* rows waiting for SQLite before applies pause; 0 = 16 MiB */
    uint64_t read_bytes;  /* values being read before further reads wait; 0 = 64 MiB */
    uint32_t turn_keys;   /* changed by applies in one turn of the loop; 0 = 1,024 */
};

/* Blocking. Opens or creates the store, makes what it holds durable, rebuilds the index by one
 * scan; an interrupted compaction goes on once the loop runs. BNS_E_CORRUPT (text has the file),
 * BNS_E_UNSUPPORTED (newer format), BNS_E_IO, BNS_E_NOSPACE, BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_kv_open(struct bns_env *env, const struct etcd_kv_config *cfg,
                                struct etcd_kv **out, struct bns_err *err);
/* No apply, read, snapshot or install is in flight (the raft node is closed) and nothing is awaited
 * from the store any more: see etcd_kv_drain. NULL is fine. */
void etcd_kv_close(struct etcd_kv *kv);
/* Stops background work; done runs (never inside the call) when the store's queue is empty. */
void etcd_kv_drain(struct etcd_kv *kv, void (*done)(void *arg), void *arg);

/* Simulator: to be called when the node has died, before its memory goes: SQLite's own memory is
 * not part of the node's. Nothing else may be called afterwards. NULL is fine. */
void etcd_kv_died(struct etcd_kv *kv);

/* The operations of struct etcd_kv as a replicated state machine. durable() and snapshots report a
 * configuration without voters as long as no CONF entry was applied: the static members stand. */
const struct bns_sm_ops *etcd_kv_sm(void);

int64_t etcd_kv_revision(const struct etcd_kv *kv);        /* 1 = fresh */
int64_t etcd_kv_compacted(const struct etcd_kv *kv);       /* -1 = never, as etcd reports it */
uint64_t etcd_kv_applied(const struct etcd_kv *kv);        /* Raft index */
uint64_t etcd_kv_db_size(const struct etcd_kv *kv);        /* bytes of the file */
uint64_t etcd_kv_db_size_in_use(const struct etcd_kv *kv); /* without free pages */
uint64_t etcd_kv_keys(const struct etcd_kv *kv);           /* keys alive now */
/* fn runs, once, inside whatever brings the store to that revision; one asker, who asks again with
 * another number when he likes. INT64_MAX: never. */
void etcd_kv_await(struct etcd_kv *kv, int64_t revision, void (*fn)(void *arg), void *arg);
size_t etcd_kv_waiting(const struct etcd_kv *kv); /* writes of this member */
bool etcd_kv_defragging(const struct etcd_kv *kv);
bool etcd_kv_installing(const struct etcd_kv *kv); /* a snapshot takes the place of all data */
uint64_t etcd_kv_quota(const struct etcd_kv *kv); /* bytes; UINT64_MAX = off */
/* Room for a write of this cost (etcd_cost_put, etcd_cost_txn)? If not: status 8, the text is
 * ETCD_TEXT_NOSPACE. */
bool etcd_kv_room(const struct etcd_kv *kv, uint64_t cost);
#define ETCD_TEXT_NOSPACE "etcdserver: mvcc: database space exceeded"

/* ---- answers -------------------------------------------------------------------------------- */
struct etcd_answer {
    int status;               /* gRPC status; not 0: text, no slices, no release */
    const char *text;         /* constant */
    int64_t revision;         /* for the header */
    uint64_t index;           /* a write's: Raft's, of its entry */
    uint64_t began_ns;        /* when its reads were begun, or its entry applied; 0: refused */
    struct bns_slice *slices; /* [0] is the header's place, empty until etcd_answer_header() */
    size_t slices_count;
    size_t bytes;            /* of all slices but [0] */
    bns_release_fn *release; /* gives back slices and what they point to; called once */
    void *release_arg;
};
typedef void etcd_done(void *arg, struct etcd_answer *a);

/* Encodes ResponseHeader as field 1 into slices[0], with a->revision. */
void etcd_answer_header(struct etcd_answer *a, uint64_t cluster_id, uint64_t member_id,
                        uint64_t raft_term);

/* ---- reads ---------------------------------------------------------------------------------- */
/* The request passed its check. done runs inside the call when the answer is in memory. */
/* So much is being read that a further read would wait. */
bool etcd_kv_reads_wait(const struct etcd_kv *kv);
void etcd_kv_range(struct etcd_kv *kv, const Etcdserverpb__RangeRequest *req, etcd_done *done,
                   void *arg);
void etcd_kv_txn_readonly(struct etcd_kv *kv, const Etcdserverpb__TxnRequest *req, etcd_done *done,
                          void *arg);
/* HashKV as etcd computes it; reads the whole store in slices. revision 0 = now. */
void etcd_kv_hash(struct etcd_kv *kv, int64_t revision, etcd_done *done, void *arg);
/* Hash: all rows as they are stored, those of the tables beside the keys too. A HashResponse. */
void etcd_kv_hash_all(struct etcd_kv *kv, etcd_done *done, void *arg);

/* What a member has published of itself (ETCD_OP_MEMBER_ATTR), as the bytes of a
 * ClusterMemberAttrSetRequest; empty when it has not. Borrowed until the loop's next turn. */
struct bns_slice etcd_kv_member(const struct etcd_kv *kv, uint64_t id);

/* The members as the log made them: rows of ETCD_BUCKET_MEMBERS (kv_bucket.h), the key is
 * etcd_member_key(id), the value a Member without client URLs. Not known: the log says
 * nothing of members yet, the flags stand. */
bool etcd_kv_members_known(const struct etcd_kv *kv);
bool etcd_kv_member_removed(const struct etcd_kv *kv, uint64_t id); /* for ever */
/* fn runs inside the apply of whatever changed members, and after a snapshot was installed. */
void etcd_kv_on_members(struct etcd_kv *kv, void (*fn)(void *arg), void *arg);
struct etcd_member_key {
    uint8_t bytes[8];
};
struct etcd_member_key etcd_member_key(uint64_t id);

/* ---- writes --------------------------------------------------------------------------------- */
enum etcd_op {
    ETCD_OP_PUT = 4,
    ETCD_OP_DELETE = 5,
    ETCD_OP_TXN = 6,
    ETCD_OP_COMPACT = 7,
    ETCD_OP_LEASE_GRANT = 8,
    ETCD_OP_LEASE_REVOKE = 9,
    ETCD_OP_ALARM = 10,
    ETCD_OP_LEASE_CHECKPOINT = 11,
    ETCD_OP_AUTH_ENABLE = 1000,
    ETCD_OP_AUTH_DISABLE = 1011,
    ETCD_OP_AUTHENTICATE = 1012,
    ETCD_OP_AUTH_USER_ADD = 1100,
    ETCD_OP_AUTH_USER_DELETE = 1101,
    ETCD_OP_AUTH_USER_CHANGE_PASSWORD = 1103,
    ETCD_OP_AUTH_USER_GRANT_ROLE = 1104,
    ETCD_OP_AUTH_USER_REVOKE_ROLE = 1105,
    ETCD_OP_AUTH_ROLE_ADD = 1200,
    ETCD_OP_AUTH_ROLE_DELETE = 1201,
    ETCD_OP_AUTH_ROLE_GRANT_PERMISSION = 1203,
    ETCD_OP_AUTH_ROLE_REVOKE_PERMISSION = 1204,
    ETCD_OP_CLUSTER_VERSION = 1300,
    ETCD_OP_MEMBER_ATTR = 1301,
    ETCD_OP_MEMBERS = 20002,
    ETCD_OP_MEMBER_UPDATE = 20003
};

/* InternalRaftRequest{header{ID}, op: request}, the request's bytes as the client sent them. One
 * reference; NULL when out of memory. id is not 0. */
struct bns_rcbuf *etcd_internal_encode(const struct bns_alloc *alloc, uint64_t id, enum etcd_op op,
                                       struct bns_slice request);

/* Gives free pages back to the file system, in slices between other work (defrag.c). done runs
 * once; w is the asker's until then. */
struct etcd_defrag_wait {
    struct bns_list node; /* the store's */
    void (*done)(struct etcd_defrag_wait *w, struct etcd_status why);
};
void etcd_kv_defrag(struct etcd_kv *kv, struct etcd_defrag_wait *w);

struct etcd_pending;
struct etcd_waiter {
    struct bns_hnode node;        /* the store's */
    struct etcd_pending *pending; /* the store's: applied, answer under way */
    uint64_t id;                  /* unique among the waiters */
    /* Once, after apply; w is no longer known to the store and may be freed. */
    void (*fn)(struct etcd_waiter *w, struct etcd_answer *a);
};
/* w->id and w->fn are set. Before proposing. BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_kv_wait(struct etcd_kv *kv, struct etcd_waiter *w);
/* fn will not run. No-op when it has run. */
void etcd_kv_unwait(struct etcd_kv *kv, struct etcd_waiter *w);

#endif
