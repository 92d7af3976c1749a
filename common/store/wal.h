/* wal.h - segmented, checksummed write-ahead log shared by all groups of one process.
 *
 * Thread:    every call is made on the loop thread; `done` callbacks run there too. The WAL's own
 *            worker does pwritev and fdatasync; it drains its queue: one sync a batch.
 * Memory:    payload slices are borrowed until `done` runs. Nothing is copied.
 * Errors:    BNS_E_NOSPACE the append was refused, nothing was written, try again later. Who may
 *                          refuse work before it comes to this asks bns_wal_has_room()
 *            BNS_E_IO      the log is poisoned: bns_fatal(env, 6) has been called
 *            BNS_E_CORRUPT at open: file, offset, lsn and the repair command are in the text
 *                          (exit 4)
 * Ordering:  records become durable in append order; `done` callbacks keep that order.
 * Format:    at the top of wal.c. Replay rule (torn tail or corruption): at the top of wal_open.c.
 */
#ifndef BNS_STORE_WAL_H
#define BNS_STORE_WAL_H

#include "base/env.h"

enum bns_wal_type {
    BNS_WAL_ENTRY = 1,      /* payload: u64 index, u64 term, u8 kind, data */
    BNS_WAL_STATE = 2,      /* payload: u64 term, u64 vote, u64 commit */
    BNS_WAL_TRUNCATE = 3,   /* payload: u64 from index: entries >= from of this group are void */
    BNS_WAL_SNAPMARK = 4,   /* payload: u64 index, u64 term, conf bytes */
    BNS_WAL_CHECKPOINT = 5, /* the WAL's own: hard state and first needed lsn of all groups */
    BNS_WAL_SEAL = 6,       /* the WAL's own: written after ~100 ms of idleness */
};

#define BNS_WAL_RECORD_MAX (16u * 1024 * 1024)
#define BNS_WAL_SLICES_MAX 4

struct bns_wal;

struct bns_wal_record {
    uint32_t group; /* Raft group, 0 = process */
    uint8_t type;   /* ENTRY, STATE, TRUNCATE or SNAPMARK */
    uint8_t slices;
    struct bns_slice payload[BNS_WAL_SLICES_MAX]; /* written one behind the other */
};

#define BNS_WAL_HEADS_INLINE 2

/* One append = one atomic batch. Owned by the caller until done. The caller sets records,
 * records_count (>= 1), done and arg; nothing else needs to be initialised. */
struct bns_wal_append {
    struct bns_job job;                   /* the WAL's */
    const struct bns_wal_record *records; /* borrowed until done */
    size_t records_count;
    uint64_t lsn_first, lsn_last; /* set by bns_wal_append() */
    void (*done)(struct bns_wal_append *a, int code);
    void *arg;
    /* The WAL's own from here on. */
    struct bns_wal *wal;
    struct bns_wal_segment *segment;
    uint64_t offset, bytes; /* place in the segment, framed length */
    uint8_t *heads;         /* 40 bytes a record */
    uint8_t heads_inline[BNS_WAL_HEADS_INLINE * 40];
    int code;
    uint64_t io_syncs, io_records, io_bytes; /* of the whole write, on its last append only */
};

struct bns_wal_config {
    const char *dir;
    uint32_t segment_bytes_max; /* 16 MiB; segments grow 1, 2, 4, 8, 16 MiB up to it; min 64 KiB */
    uint64_t reserve_bytes; /* with less than this free there is no room for new work; 0: unknown */
    bool unsafe_no_sync;
};

struct bns_wal_stats { /* also metrics: wal_fsync_seconds, wal_batch_records, wal_* */
    uint64_t syncs, records, bytes, segments, durable_lsn, next_lsn;
};

typedef int bns_wal_replay_fn(void *arg, uint64_t lsn, uint32_t group, uint8_t type,
                              struct bns_slice payload);

/* Start-up, blocking: opens or creates the log under cfg->dir, replays every live record through
 * `replay` (payload borrowed for the call; an error of it stops the open and is returned), rewrites
 * and syncs the last batch, and leaves the log writable. *out is owned by the caller.
 * The hard states that the oldest checkpoint keeps come first, as STATE records. A release is made
 * durable by the next segment's checkpoint: until then released records may be replayed again. */
BNS_MUST_CHECK int bns_wal_open(struct bns_env *env, const struct bns_wal_config *cfg,
                                bns_wal_replay_fn *replay, void *arg, struct bns_wal **out,
                                struct bns_err *err);

/* Queues a batch; returns before it is durable; done runs in a later turn. On any error nothing was
 * queued, nothing changed and done will not run: BNS_E_NOSPACE, BNS_E_BUSY (256 MiB wait for a new
 * segment), BNS_E_TOOBIG (record over 16 MiB, batch over 64 MiB), BNS_E_NOMEM, BNS_E_SHUTDOWN,
 * BNS_E_IO (poisoned). done's code is BNS_OK or BNS_E_IO, or BNS_E_NOSPACE when bns_wal_close()
 * found no room for a batch that waited for a new segment. */
BNS_MUST_CHECK int bns_wal_append(struct bns_wal *w, struct bns_wal_append *a);

/* Is there room for new work: the reserve is free, and the next segment's file can be made? What is
 * known of the disk is at most a second old: an answer that is older is looked up first, inside the
 * call (statfs). For who can still refuse the work that an append would end: what was accepted
 * while this was true is appended from the files that exist already, and then from the reserve. */
bool bns_wal_has_room(struct bns_wal *w);

/* Without room: does a batch of so many framed bytes still fit into the files that exist, with a
 * margin (256 KiB, at most an eighth of a segment) left over for small records? */
bool bns_wal_fits(const struct bns_wal *w, uint64_t bytes);

uint64_t bns_wal_durable_lsn(const struct bns_wal *w);

/* The group needs no record before lsn_first any more; its last hard state is kept for it. Segments
 * that no group needs are deleted in the background. BNS_NEVER: the group is forgotten, its hard
 * state too (a later append makes it a new group). */
void bns_wal_release(struct bns_wal *w, uint32_t group, uint64_t lsn_first);

void bns_wal_stats(const struct bns_wal *w, struct bns_wal_stats *out);

/* Refuses new appends, lets the queued ones finish, closes the files, then calls done (may be
 * inside this call when idle). The struct is freed before done runs. */
void bns_wal_close(struct bns_wal *w, void (*done)(void *arg), void *arg);

/* ---- offline tools: bonsai wal dump|verify|repair|stat; nobody else has the log open ---- */
typedef int bns_wal_visit_fn(void *arg, const char *file, uint64_t off, uint64_t lsn,
                             uint32_t group, uint8_t type, struct bns_slice payload);
/* Checks every segment and calls fn (may be NULL) for each record of each whole batch, the WAL's
 * own records too; an error of fn stops and is returned. A torn tail is not an error: the next open
 * cuts it. BNS_E_CORRUPT, BNS_E_NOTFOUND (no such directory), BNS_E_IO, BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_wal_visit(struct bns_vfs *vfs, const struct bns_alloc *alloc,
                                 const char *dir, bns_wal_visit_fn *fn, void *arg,
                                 struct bns_err *err);
/* Cuts everything from the first invalid record on, later segments too, so that the log opens
 * again; what was lost is in *lost_bytes (0: there was nothing to repair). For people who decided
 * so. */
BNS_MUST_CHECK int bns_wal_repair(struct bns_vfs *vfs, const struct bns_alloc *alloc,
                                  const char *dir, uint64_t *lost_bytes, struct bns_err *err);

#endif
