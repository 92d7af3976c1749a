/* revstore.h - the revision store: rows (main, sub) -> KeyValue bytes, in SQLite, on one worker.
 *
 * The loop submits jobs; the worker takes all that are queued, in order, and runs them inside one
 * transaction, so a job sees the effect of every earlier one, and a batch costs one commit. A
 * commit is not synced (synchronous=NORMAL): the Raft log is kept until a CHECKPOINT has made the
 * applied index durable. Applied index, term, revision and compaction state are written in the
 * same transaction as the rows.
 *
 * Files: <dir>/kv-<n>.db (n counts installed snapshots; the highest is the store), its -wal,
 *        snap-<n>.db (outgoing snapshots), install.db (an incoming one). Leftovers go at open.
 *
 * Thread: open and close at start-up and shut-down; submit on the loop; the rest is the worker's.
 * Memory: a job and what it points to belong to the submitter and are untouched by it until done.
 *         Values read are rcbufs of libc's allocator (the node's, in the simulator).
 * Errors: job->code. BNS_E_IO, BNS_E_NOSPACE, BNS_E_CORRUPT from the database end the node;
 *         those of snapshot and install jobs do not.
 */
#ifndef ETCD_REVSTORE_H
#define ETCD_REVSTORE_H

#include "base/env.h"
#include "base/rcbuf.h"
#include "proto/raft.h"
#include "store/vfs.h"

#define ETCD_STORE_FORMAT 1

struct etcd_store;

/* Planted bugs (BNS_MUTANT). */
#define ETCD_MUTANT_APPLY_TWICE 26   /* a restart applies the last entry once more */
#define ETCD_MUTANT_INDEX_APART 27   /* the applied index is not stored with the rows */
#define ETCD_MUTANT_APPLY_SKIPPED 29 /* what finds no room on the disk is left out */
#define ETCD_MUTANT_HALF_KEPT 120    /* rows of an entry that did not end stay in the file */
struct etcd_backup;                  /* an outgoing snapshot being written or read */

/* WRITE, DELETE, READ, SCAN. READ fills kv where it is NULL; a row that is not there stays NULL. */
struct etcd_row {
    int64_t main;
    uint32_t sub;
    struct bns_rcbuf *kv;
};

/* WRITE: ttl 0 = the lease is gone. LEASES: as found. */
struct etcd_lease_row {
    int64_t id, ttl;
    uint64_t index; /* of the entry that granted it */
};

struct etcd_meta {
    uint64_t applied, term;
    int64_t revision;
    int64_t compact_scheduled, compact_finished; /* -1 = never */
    uint64_t digest;
    struct bns_raft_conf conf;
};

enum etcd_store_kind {
    ETCD_STORE_WRITE,         /* rows, leases, meta when has_meta */
    ETCD_STORE_DELETE,        /* rows */
    ETCD_STORE_READ,          /* rows from pos on; a slice: pos < rows_count = submit again */
    ETCD_STORE_SCAN,          /* rows behind (after_main, after_sub), at most rows_cap, in order */
    ETCD_STORE_LEASES,        /* leases behind after_lease, at most leases_cap, by id */
    ETCD_STORE_VACUUM,        /* fills at most len free pages from the file's end; finished = none
                               * is left; bytes = by how much the file became shorter */
    ETCD_STORE_CHECKPOINT,    /* all before it is durable; meta = what the disk holds */
    ETCD_STORE_BACKUP_OPEN,   /* backup: a new file */
    ETCD_STORE_BACKUP_STEP,   /* a slice; finished = the file is complete, meta and bytes are set */
    ETCD_STORE_BACKUP_READ,   /* off, len into buf */
    ETCD_STORE_BACKUP_BOLT,   /* a slice: what is complete becomes bbolt's; finished: bytes */
    ETCD_STORE_BACKUP_BLOB,   /* the next len bytes of that into buf, or at the end the digest */
    ETCD_STORE_BACKUP_CLOSE,  /* removes the file */
    ETCD_STORE_INSTALL_OPEN,  /* truncates install.db */
    ETCD_STORE_INSTALL_WRITE, /* off, data */
    ETCD_STORE_INSTALL_END,   /* verified, renamed, opened: is the store; meta = its */
    ETCD_STORE_INSTALL_ABORT,
};

struct etcd_store_job {
    struct bns_job job;
    enum etcd_store_kind kind;
    void (*done)(struct etcd_store_job *j); /* on the loop */
    void *arg;
    int code;
    bool broken; /* with code: there is no store any more, whatever this job was for */
    struct bns_err err;
    struct etcd_row *rows;
    size_t rows_count, rows_cap, pos;
    struct etcd_lease_row *leases;
    size_t leases_count, leases_cap;
    int64_t after_lease;
    bool has_meta, finished;
    struct etcd_meta meta;
    int64_t after_main;
    uint32_t after_sub;
    struct etcd_backup *backup;
    struct bns_slice members; /* BACKUP_BOLT: who they are, when the store does not say */
    uint64_t off, bytes;
    struct bns_slice data;
    uint8_t *buf;
    size_t len;
    uint64_t db_bytes, db_bytes_used; /* as of this job's batch */
};

/* Told of every row, in order, while the store is opened; kv is borrowed for the call. */
typedef int etcd_store_row_fn(void *arg, int64_t main, uint32_t sub, struct bns_slice kv);

/* Blocking. *meta = what is durable (all zero but revision 1 and compact -1 when new). */
BNS_MUST_CHECK int etcd_store_open(struct bns_env *env, const char *dir, etcd_store_row_fn *fn,
                                   void *arg, struct etcd_store **out, struct etcd_meta *meta,
                                   struct bns_err *err);
/* Blocking, right after the open: told of every lease, by id. An error of fn ends it. */
BNS_MUST_CHECK int etcd_store_leases(struct etcd_store *s,
                                     int (*fn)(void *arg, const struct etcd_lease_row *r),
                                     void *arg, struct bns_err *err);
void etcd_store_close(struct etcd_store *s); /* no job is queued; NULL is fine */
/* After the death of a simulated node: gives back what SQLite holds outside of the node's memory,
 * without calling the env. */
void etcd_store_died(struct etcd_store *s);
void etcd_store_submit(struct etcd_store *s, struct etcd_store_job *j);
uint64_t etcd_store_db_bytes(const struct etcd_store *s, uint64_t *used); /* before the first job */
const struct bns_alloc *etcd_store_alloc(const struct etcd_store *s);     /* of buffers it makes */

#endif
