/* kv_impl.h - what the files of the key-value store share. Everything here is the loop's. */
#ifndef ETCD_KV_IMPL_H
#define ETCD_KV_IMPL_H

#include "alarm.h"
#include "base/arena.h"
#include "base/buf.h"
#include "cache.h"
#include "index.h"
#include "kv.h"
#include "kv_bucket.h"
#include "kvbytes.h"
#include "lease_kv.h"
#include "revstore.h"

/* Planted bugs (BNS_MUTANT). */
#define ETCD_MUTANT_TXN_FIRST 61    /* only the first compare of a transaction is looked at */
#define ETCD_MUTANT_TXN_OLD 62      /* compares look at the store before its last change */
#define ETCD_MUTANT_RANGE_BORDER 63 /* a long range leaves out the key at a border */
#define ETCD_MUTANT_HALF_SEEN 121   /* an entry is seen after its first turn */

extern const struct etcd_status etcd_ok, etcd_compacted, etcd_future, etcd_no_key, etcd_no_lease;
extern const struct etcd_status etcd_no_memory, etcd_stopped, etcd_damaged;
/* The write has happened, there is no memory to say so: its client must not take it for refused. */
extern const struct etcd_status etcd_answer_lost;

/* ---- answers under way (pending.c) ---------------------------------------------------------- */
enum etcd_part_kind { /* 1 .. 4: the field numbers of ResponseOp */
                      ETCD_PART_NONE,
                      ETCD_PART_RANGE,
                      ETCD_PART_PUT,
                      ETCD_PART_DELETE,
                      ETCD_PART_TXN,
                      ETCD_PART_COMPACT,
                      ETCD_PART_HASH,
                      ETCD_PART_LEASE
};

/* One response message; the parts of a pending answer are a tree in pre-order. */
struct etcd_part {
    uint8_t kind;
    bool nested;         /* in a txn: with a header of its own */
    bool more;           /* RANGE */
    bool succeeded;      /* TXN */
    bool strip;          /* RANGE: keys_only, values are taken out of what was read */
    bool by_value;       /* RANGE: sort by value and cut to limit once the values are there */
    bool descending;     /* with by_value */
    uint32_t children;   /* TXN: parts that follow, one tree each */
    int64_t header;      /* revision in a nested header, 0 = an empty one */
    int64_t total;       /* RANGE: count; DELETE: deleted; HASH: revision; LEASE: id */
    int64_t limit;       /* with by_value; HASH: compacted; LEASE: ttl */
    size_t first, count; /* rows */
    size_t bytes;        /* measured */
    uint32_t hash;
};

#define ETCD_INLINE_ROWS 2
struct etcd_pending {
    struct bns_list node; /* kv->pendings while the store is asked, kv->physical */
    struct etcd_kv *kv;
    uint64_t seq;
    int64_t revision;
    uint64_t index; /* a write's, in the log */
    uint64_t began_ns;
    struct etcd_waiter *waiter; /* a write's; NULL = a read, or nobody waits any more */
    etcd_done *done;            /* a read's */
    void *arg;
    bool failed; /* no memory for a row or a part */
    struct etcd_row *rows;
    size_t rows_count, rows_cap;
    struct etcd_part *parts;
    size_t parts_count, parts_cap;
    uint64_t bytes; /* of rows that the store is asked for */
    struct etcd_store_job job;
    struct etcd_row rows_inline[ETCD_INLINE_ROWS];
    struct etcd_part parts_inline[1];
};

struct etcd_pending *etcd_pending_new(struct etcd_kv *kv); /* NULL: no memory */
void etcd_pending_free(struct etcd_pending *p);
/* Index of a new part (zeroed). Without memory p->failed is set and 0 returned. */
size_t etcd_pending_part(struct etcd_pending *p, enum etcd_part_kind kind, bool nested);
/* kv: the row's bytes when they are known (a reference is taken over), else NULL. */
void etcd_pending_row(struct etcd_pending *p, const struct etcd_rev *r, struct bns_rcbuf *kv);
/* Fetches what is missing, then answers; p is gone then. May answer inside. */
void etcd_pending_run(struct etcd_pending *p);
/* Answers with an error; p is gone. */
void etcd_pending_refuse(struct etcd_pending *p, struct etcd_status why);
void etcd_pending_no_memory(struct etcd_pending *p); /* ends it likewise */
void etcd_refuse(etcd_done *done, void *arg, struct etcd_status why);

/* answer.c */
void etcd_pending_finish(struct etcd_pending *p); /* all rows are there */

/* ---- values that decide (txn.c) ------------------------------------------------------------- */
/* Rows whose bytes a compare or an ignore_* option needs. Evaluation is a pure function of the
 * state that is run again when the missing rows have been read. */
struct etcd_eval {
    struct etcd_kv *kv;
    struct etcd_row *have; /* sorted by (main, sub) but for the missing ones behind `sorted` */
    size_t count, cap, sorted;
    struct bns_buf path; /* a byte a txn, in pre-order: which branch */
    size_t path_pos;
    struct etcd_store_job job;
    struct bns_timer retry;
    void (*resume)(struct etcd_eval *ev); /* the missing rows have been read */
};
void etcd_eval_init(struct etcd_eval *ev, struct etcd_kv *kv);
void etcd_eval_reset(struct etcd_eval *ev);
void etcd_eval_free(struct etcd_eval *ev);
/* ev->resume later. A row that is not in the store ends the node: BNS_E_CORRUPT. */
void etcd_eval_fetch(struct etcd_eval *ev);
/* The bytes of a row that was read or kept for exec.c, borrowed; NULL = not here. */
struct bns_rcbuf *etcd_eval_find(const struct etcd_eval *ev, const struct etcd_rev *r);

enum etcd_step { ETCD_GO, ETCD_MISSING, ETCD_REFUSED, ETCD_NOMEM };
/* Which branches a txn takes at revision `rev`, into ev->path. GO, MISSING, NOMEM. */
enum etcd_step etcd_txn_path(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t, int64_t rev);
/* Would every operation on the path work? GO, MISSING, REFUSED (*why), NOMEM. */
enum etcd_step etcd_txn_check(struct etcd_eval *ev, const Etcdserverpb__TxnRequest *t, int64_t rev,
                              struct etcd_status *why);
enum etcd_step etcd_put_check(struct etcd_eval *ev, const Etcdserverpb__PutRequest *r, int64_t rev,
                              struct etcd_status *why);

/* exec.c: what changes the state. p may be NULL: no answer is wanted. BNS_E_NOMEM. BNS_E_AGAIN:
 * the turn of the loop is over, call again in the next one (apply_turns.c). */
struct etcd_exec {
    struct etcd_kv *kv;
    struct etcd_eval *ev;
    struct etcd_pending *p;
    int64_t begin;     /* the revision before */
    uint32_t changes;  /* rows so far: the next sub revision */
    uint32_t told;     /* of them, those that the watches know of: in former turns */
    uint64_t digest;   /* kv->now's when it is over */
    size_t step, done; /* operations: walked over in this turn; finished */
    bool in_delete;    /* a delete goes on at `cursor` */
    struct bns_buf cursor;
    size_t part;
    int64_t deleted;
};
BNS_MUST_CHECK int etcd_exec_put(struct etcd_exec *x, const Etcdserverpb__PutRequest *r,
                                 bool nested);
BNS_MUST_CHECK int etcd_exec_delete(struct etcd_exec *x, const Etcdserverpb__DeleteRangeRequest *r,
                                    bool nested);
BNS_MUST_CHECK int etcd_exec_txn(struct etcd_exec *x, const Etcdserverpb__TxnRequest *t,
                                 bool nested);
/* The history so far as one number: equal on members that applied the same rows in order. */
uint64_t etcd_digest_row(uint64_t digest, const struct etcd_row *r);
/* Deletes a key that is alive and on a lease. */
BNS_MUST_CHECK int etcd_exec_bury(struct etcd_exec *x, struct bns_slice key);

/* range.c: one RANGE part and its rows at revision `rev`, in p. */
void etcd_range_resolve(struct etcd_kv *kv, struct etcd_pending *p,
                        const Etcdserverpb__RangeRequest *r, int64_t rev, int64_t header,
                        bool nested);
/* The revision to read at, 0 = refused. */
int64_t etcd_range_revision(const struct etcd_kv *kv, int64_t wanted, int64_t now,
                            struct etcd_status *why);
void etcd_reads_refuse(struct etcd_kv *kv); /* those that wait */
void etcd_reads_pump(struct etcd_kv *kv);   /* takes waiting reads as far as bounds allow */

/* ---- the store object ----------------------------------------------------------------------- */
struct etcd_apply {
    const struct bns_raft_entry *entries;
    size_t count, pos;
    bns_sm_done *done;
    void *arg;
    bool active, running, reading;
    struct etcd_eval eval;
    struct bns_arena arena; /* of the entry at pos, while it is unpacked */
    Etcdserverpb__InternalRaftRequest *req;
    /* apply_turns.c */
    uint32_t room; /* keys that this turn of the loop may still change or look at */
    bool open;     /* the entry at pos has begun in a former turn */
    struct etcd_exec x;
    struct etcd_pending *p; /* its answer */
    struct bns_task task;
    bool posted;
};

struct etcd_compaction {
    bool running, submitted;
    uint64_t after_seq; /* answers older than this may still read what goes */
    int64_t at;
    struct bns_buf cursor; /* the next key to look at */
    bool at_end;
    struct etcd_row *rows; /* out of the index, to be deleted */
    size_t rows_count, rows_cap, rows_pos;
    struct etcd_store_job job;
    struct bns_task task;
    bool posted;
};

struct etcd_defrag {
    bool running, at_end;
    uint64_t moved, free_bytes, began_ns; /* free: when it began */
    struct etcd_store_job job;
    struct bns_list waiting; /* struct etcd_defrag_wait */
    struct bns_hist *m_seconds;
};

struct etcd_install {
    bool active;    /* between install_end and its done: no reads */
    bool submitted; /* the store is busy with it */
    uint64_t began_ns;
    struct bns_raft_snapmeta meta;
    struct etcd_store_job job;
    bns_sm_done *done;
    void *arg;
};

struct etcd_leases {
    struct etcd_lessor lessor;
    struct etcd_lease_hooks hooks;
    uint64_t term;
    struct bns_timer timer;
    uint64_t armed_ns;           /* when the timer is to fire; BNS_NEVER */
    uint64_t turn_ns;            /* no expiry before this */
    bool late;                   /* the last turn was given away */
    bool was_open;               /* an entry was open at the last turn */
    struct bns_timer mark_timer; /* lease_mark_kv.c */
    uint64_t mark_armed_ns, mark_turn_ns;
    struct etcd_lease_row *rows; /* applied, not yet given to the store */
    size_t rows_count, rows_cap;
    struct bns_counter *m_granted, *m_revoked, *m_renewed, *m_expired, *m_marked;
    struct bns_hist *m_ttl;
};

struct etcd_looks {          /* lease_look.c */
    struct bns_list waiting; /* struct etcd_lease_look */
    struct bns_task task;
    bool posted;
    bool due;     /* the first one goes before the next entry */
    bool entered; /* an entry has ended since the last one */
};

struct etcd_watch_hub;

struct etcd_kv {
    struct bns_env *env;
    const struct bns_alloc *alloc;
    struct etcd_store *store;
    struct etcd_index index;
    struct etcd_cache cache;
    struct etcd_watch_hub *watch;
    uint64_t quota_bytes, queue_bytes, read_bytes;
    uint32_t turn_keys;
    bool dead, stopping;
    char fatal_text[96];

    struct etcd_meta now;     /* as applied; compact_scheduled = the logical compacted revision */
    struct etcd_meta durable; /* as the last checkpoint left it */
    uint64_t db_bytes, db_bytes_used;

    struct etcd_row *rows; /* applied, not yet given to the store */
    size_t rows_count, rows_cap;
    uint64_t rows_bytes;
    bool meta_dirty;
    struct bns_timer flush;
    uint64_t queued_bytes; /* given to the store, not yet written */
    uint64_t jobs;         /* in the store */
    uint64_t hashing;      /* HashKV requests under way */

    struct etcd_apply apply;
    struct bns_hmap waiters;
    uint64_t seed;
    struct bns_list pendings; /* by seq */
    uint64_t seq;
    uint64_t reading_bytes;
    struct bns_list reads;    /* requests that wait for bounds or for an install */
    struct bns_list physical; /* answers that wait for the compaction to end */
    struct etcd_looks looks;
    bool pumping;
    struct etcd_compaction compact;
    struct etcd_defrag defrag;
    struct etcd_install install;
    struct etcd_leases leases;
    struct etcd_buckets buckets;
    uint32_t alarms; /* a bit a type */
    uint32_t alarms_count;
    int64_t awaited; /* revision; INT64_MAX: none */
    void (*on_awaited)(void *arg);
    void *on_awaited_arg;
    void (*on_members)(void *arg);
    void *on_members_arg;
    struct etcd_auth *auth; /* auth.h */
    void (*drained)(void *arg);
    void *drained_arg;
    struct bns_task drain_task;
    bool drain_posted;
    struct bns_counter *m_put, *m_delete, *m_range, *m_txn;
    struct bns_hist *m_commit; /* from hand-over to completion: workers have no clock */
    struct bns_hist *m_hash, *m_hash_rev, *m_snapshot, *m_saved;
};

/* kv.c */
void etcd_kv_reached(struct etcd_kv *kv); /* the revision has changed */
void etcd_kv_took(const struct etcd_kv *kv, struct bns_hist *h, uint64_t began_ns);
void etcd_kv_fatal(struct etcd_kv *kv, int code, const char *text);
/* Submits with counting; every done callback calls etcd_kv_job_over first and returns when false.
 * */
void etcd_kv_submit(struct etcd_kv *kv, struct etcd_store_job *j);
BNS_MUST_CHECK bool etcd_kv_job_over(struct etcd_kv *kv, struct etcd_store_job *j);
void etcd_kv_check_drained(struct etcd_kv *kv);
void etcd_kv_flush(struct etcd_kv *kv); /* rows and meta to the store, now */
void etcd_kv_flush_soon(struct etcd_kv *kv);
BNS_MUST_CHECK int etcd_kv_push_row(struct etcd_kv *kv, int64_t main, uint32_t sub,
                                    struct bns_rcbuf *kv_bytes); /* takes the reference over */
int etcd_kv_index_row(struct etcd_kv *kv, int64_t main, uint32_t sub, struct bns_slice bytes);
struct bns_slice etcd_bytes(ProtobufCBinaryData d);

/* kv_members.c. All BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_members_attr(struct etcd_kv *kv,
                                     const Etcdserverpb__ClusterMemberAttrSetRequest *r);
BNS_MUST_CHECK int etcd_members_made(struct etcd_kv *kv,
                                     const Etcdserverpb__ClusterMembersRequest *r);
BNS_MUST_CHECK int etcd_members_update(struct etcd_kv *kv, const Etcdserverpb__Member *m);
/* An entry of kind CONF. *id = of the request that made it, 0 = none. */
BNS_MUST_CHECK int etcd_members_conf(struct etcd_kv *kv, const struct bns_raft_entry *e,
                                     uint64_t *id);
void etcd_members_told(struct etcd_kv *kv);

/* lease_kv.c */
void etcd_leases_init(struct etcd_kv *kv);
void etcd_leases_stop(struct etcd_kv *kv);
void etcd_leases_clear(struct etcd_kv *kv); /* before the index, whose keys they name */
int etcd_leases_row(void *arg, const struct etcd_lease_row *r); /* arg: the kv */
BNS_MUST_CHECK int etcd_leases_loaded(struct etcd_kv *kv, struct bns_err *err);
/* key is in the index. BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_lease_attach(struct etcd_kv *kv, struct bns_slice key, int64_t lease);
void etcd_lease_role(struct etcd_kv *kv, bool leader, uint64_t term);
/* lease_grant or lease_revoke. BNS_E_NOMEM; *why = refused. */
BNS_MUST_CHECK int etcd_lease_apply(struct etcd_kv *kv, const struct bns_raft_entry *e,
                                    const Etcdserverpb__InternalRaftRequest *r,
                                    struct etcd_pending *p, struct etcd_status *why);

/* An entry of this term is applied. */
void etcd_lease_applied(struct etcd_kv *kv, uint64_t term);

/* lease_look.c */
void etcd_looks_init(struct etcd_kv *kv);
bool etcd_look_first(struct etcd_kv *kv); /* applies wait: etcd_apply_step() will be called */
void etcd_look_turn_over(struct etcd_kv *kv);
void etcd_looks_end(struct etcd_kv *kv); /* tells NOTLEADER */

/* lease_mark_kv.c */
void etcd_lease_marks_init(struct etcd_kv *kv);
void etcd_lease_marks_arm(struct etcd_kv *kv); /* when something is due, or no more */
void etcd_lease_clear_soon(struct etcd_kv *kv, struct etcd_lease *e); /* a renewal waits for it */
BNS_MUST_CHECK int etcd_lease_mark_apply(struct etcd_kv *kv, uint64_t term,
                                         const Etcdserverpb__InternalRaftRequest *r);
/* Before a lease goes for good. */
BNS_MUST_CHECK int etcd_lease_mark_drop(struct etcd_kv *kv, const struct etcd_lease *e);
BNS_MUST_CHECK int etcd_lease_marks_loaded(struct etcd_kv *kv, struct bns_err *err);

/* apply.c */
void etcd_apply_step(struct etcd_kv *kv);
void etcd_sm_apply(void *sm, const struct bns_raft_entry *e, size_t n, bns_sm_done *done,
                   void *arg);

/* apply_turns.c */
void etcd_turns_init(struct etcd_kv *kv);
void etcd_turns_free(struct etcd_kv *kv);
bool etcd_turn_begins(struct etcd_kv *kv); /* false: not now, it will begin by itself */
void etcd_exec_begin(struct etcd_kv *kv, struct etcd_pending *p);
void etcd_exec_pause(struct etcd_exec *x); /* BNS_E_AGAIN came up */
void etcd_exec_end(struct etcd_exec *x);   /* what was changed is one revision */
/* The revision that watches may be told of next: one more than kv->now's while an entry is open. */
int64_t etcd_open_revision(const struct etcd_kv *kv);

/* compact.c */
struct etcd_status etcd_compact_apply(struct etcd_kv *kv, int64_t at);
void etcd_compact_kick(struct etcd_kv *kv);   /* goes on when nothing stands in the way */
void etcd_compact_resume(struct etcd_kv *kv); /* what a restart or a snapshot left unfinished */

/* defrag.c */
void etcd_defrag_init(struct etcd_kv *kv);

/* watch.c: what the store tells the watches */
BNS_MUST_CHECK int etcd_watch_hub_new(struct etcd_kv *kv);
void etcd_watch_hub_free(struct etcd_kv *kv);
void etcd_watch_notify(struct etcd_kv *kv, uint32_t changes); /* the last rows are a revision */
void etcd_watch_open_rows(struct etcd_kv *kv, uint32_t rows); /* ... are a part of the next one */
void etcd_watch_open_ends(struct etcd_kv *kv);                /* which is complete now */
void etcd_watch_installed(struct etcd_kv *kv);
bool etcd_watch_reading(const struct etcd_kv *kv); /* the store is being asked */
bool etcd_watch_posted(const struct etcd_kv *kv);  /* a task of it is to run */
void etcd_watch_stop(struct etcd_kv *kv);

/* kv_snap.c */
void etcd_install_kick(struct etcd_kv *kv); /* goes on when no read is in the way */
extern const struct bns_sm_ops etcd_sm_ops;

#endif
