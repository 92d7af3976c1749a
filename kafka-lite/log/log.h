/* log.h - one partition's log: segments in order, kept in the format of Apache Kafka 4.3.
 *
 *   <topic>-<partition>/   00000000000000000000.log .index .timeindex     an older segment
 *                          00000000000000004711.log .index .timeindex     the active one
 *                          leader-epoch-checkpoint  partition.metadata
 *
 * Offsets. [start, end): what can be read. `start` moves by kafka_log_advance() and with the oldest
 * segment, `end` by appends and truncation. The high watermark is the caller's.
 *
 * Durability. kafka_log_flush() makes every batch before `end` durable. An older segment is durable
 * before the next one exists, so a crash damages the last segment alone; after one (clean false) it
 * is scanned, and so are those from the recovery point on, which matters in directories that Kafka
 * wrote; what is found in them is synced before it is served. Each epoch is durable before its
 * first batch is written.
 *
 * Failure. A write that is refused is undone: nothing was appended, the log goes on. When it cannot
 * be undone, or a sync fails, the log has failed: every later call that writes answers BNS_E_IO.
 *
 * Thread:  one at a time, off the loop: each call may block (a job of the log dir's worker).
 * Memory:  a struct of some 400 bytes a segment; files are open of the active segment and of the
 *          one that was read last.
 * Errors:  of vfs.h; BNS_E_NOTFOUND: offset out of range; BNS_E_CORRUPT: batches from outside that
 *          are none, or damage in the middle of the log; BNS_E_TOOBIG; BNS_E_CONFLICT: a follower's
 *          batch that does not follow, or an epoch that is over.
 */
#ifndef KAFKA_LOG_LOG_H
#define KAFKA_LOG_LOG_H

#include "log/batch.h"
#include "log/checkpoint.h"

struct kafka_log_cfg {
    uint32_t segment_bytes;  /* log.segment.bytes, 1 GiB; at most 2^31 - 1 */
    uint32_t index_interval; /* log.index.interval.bytes, 4096 */
    uint32_t index_bytes;    /* log.index.size.max.bytes, 10 MiB */
    int64_t segment_ms;      /* log.roll.ms, 7 days */
    bool compacted;          /* gaps between offsets are no damage; else see recover.c */
    uint32_t mutant;         /* planted bug in force; read only in _mut builds */
};
void kafka_log_cfg_default(struct kafka_log_cfg *cfg);

struct kafka_log_start {
    struct bns_vfs *vfs;
    const struct bns_alloc *alloc;
    const char *dir;
    const struct kafka_log_cfg *cfg;
    bool clean;             /* the last stop was one: nothing is scanned */
    int64_t recovery_point; /* of recovery-point-offset-checkpoint, or 0 */
    int64_t log_start;      /* of log-start-offset-checkpoint, or 0 */
    int64_t now_ms;
    const char *topic_id; /* 22 letters; NULL: a directory without an id is fine, none is written */
};

struct kafka_log_report { /* what an open had to mend */
    uint32_t segments_scanned, segments_dropped;
    uint32_t gaps; /* between offsets, not mended: compaction leaves them */
    uint64_t bytes_scanned, bytes_cut;
    int64_t cut_segment; /* whose end was cut; -1: none */
    uint64_t cut_at;     /* byte of that segment */
    char why[160];
};

struct kafka_log;

/* Opens or creates the directory; its parent is there. BNS_E_CONFLICT: it has another topic id;
 * BNS_E_UNSUPPORTED: a compaction of Kafka was interrupted (*.swap). report may be NULL. */
BNS_MUST_CHECK int kafka_log_open(const struct kafka_log_start *start,
                                  struct kafka_log_report *report, struct kafka_log **out,
                                  struct bns_err *err);
/* Seals and syncs: after OK the stop was clean, and the recovery point is `end`. */
BNS_MUST_CHECK int kafka_log_seal(struct kafka_log *log, struct bns_err *err);
void kafka_log_close(struct kafka_log *log); /* frees it; syncs nothing; NULL is fine */

/* Holds for the segments and index entries that follow. */
void kafka_log_set_cfg(struct kafka_log *log, const struct kafka_log_cfg *cfg);

int64_t kafka_log_begin(const struct kafka_log *log);
int64_t kafka_log_end(const struct kafka_log *log);
int64_t kafka_log_flushed(const struct kafka_log *log); /* the recovery point */
uint64_t kafka_log_bytes(const struct kafka_log *log);  /* of all segments, indexes not counted */
size_t kafka_log_segments(const struct kafka_log *log);
const char *kafka_log_topic_id(const struct kafka_log *log); /* "" : none */
bool kafka_log_failed(const struct kafka_log *log);

/* Called before a new segment begins at `base`, when all before it is durable; an error refuses the
 * append, and is its answer. */
typedef int kafka_roll_fn(void *arg, int64_t base, struct bns_err *err);
void kafka_log_on_roll(struct kafka_log *log, kafka_roll_fn *fn, void *arg);

/* ---- append ---------------------------------------------------------------------------------- */

struct kafka_append {
    bool follow;      /* offsets and epochs are in the batches; else they are written into them */
    bool append_time; /* message.timestamp.type=LogAppendTime */
    int32_t leader_epoch; /* -1: unknown */
    int64_t now_ms;
};

struct kafka_appended {
    int64_t first, last; /* offsets */
    int64_t max_time, max_time_offset;
};

/* Checks every batch (head, CRC, codec, records of a plain one), then writes them all into one
 * segment. A producer's append is one batch (BNS_E_INVALID: more), and the greatest timestamp of a
 * plain one is what its records say. A follower's batches begin at `end` or behind it; when such
 * a gap needs a new segment, `end` moves behind the gap even if the batches are refused then.
 * BNS_E_TOOBIG: longer than a segment, or offsets 2^31 apart. `bytes` is changed in place. Nothing
 * is durable before kafka_log_flush(). */
BNS_MUST_CHECK int kafka_log_append(struct kafka_log *log, uint8_t *bytes, size_t len,
                                    const struct kafka_append *how, struct kafka_appended *out,
                                    struct bns_err *err);
BNS_MUST_CHECK int kafka_log_flush(struct kafka_log *log, struct bns_err *err);
/* The same in three steps, so that readers need not wait for the disk: `begin` and `end` exclude
 * other calls, `run` may overlap with calls that read. No append, roll or the like in between.
 * `end` gets what `run` returned, and returns it. */
struct kafka_sync {
    struct bns_file *file; /* NULL: there is nothing to do */
    int64_t end;
};
BNS_MUST_CHECK int kafka_log_sync_begin(struct kafka_log *log, struct kafka_sync *out,
                                        struct bns_err *err);
BNS_MUST_CHECK int kafka_log_sync_run(const struct kafka_sync *s, struct bns_err *err);
int kafka_log_sync_end(struct kafka_log *log, const struct kafka_sync *s, int rv);
/* A new segment, though the active one is not full; nothing when that is empty. */
BNS_MUST_CHECK int kafka_log_roll(struct kafka_log *log, int64_t now_ms, struct bns_err *err);

/* ---- read ------------------------------------------------------------------------------------ */

struct kafka_range {      /* whole batches, one behind the other in one file */
    int64_t segment;      /* of <dir>/<20 digits>.log */
    uint32_t position;    /* in it */
    uint32_t len;         /* 0: there is nothing to read */
    int64_t base;         /* the first batch's; may be before what was asked for */
    uint32_t first_bytes; /* of the first batch */
};

/* What to send to a reader at `offset`: batches from the one on that has it, at most bytes_max of
 * them (one_at_least: or one that is longer), none that begins at or behind `below`, none of a
 * second segment. offset == end: an empty range. BNS_E_NOTFOUND: not in [start, end]. The bytes
 * stay in their place until truncation or removal: the file may be opened and sent. */
struct kafka_want {
    int64_t offset, below; /* below: high watermark or last stable offset; INT64_MAX: all */
    uint32_t bytes_max;
    bool one_at_least;
};
BNS_MUST_CHECK int kafka_log_read(struct kafka_log *log, const struct kafka_want *want,
                                  struct kafka_range *out, struct bns_err *err);
/* Appends the bytes of a range to `to`. */
BNS_MUST_CHECK int kafka_log_load(struct kafka_log *log, const struct kafka_range *range,
                                  struct bns_buf *to, struct bns_err *err);

struct kafka_found {
    int64_t offset, time_ms;
    int32_t leader_epoch;
    bool inside; /* the batch is compressed: the record is in it, somewhere from offset on */
};
/* The first record at or after time_ms. BNS_E_NOTFOUND: there is none. */
BNS_MUST_CHECK int kafka_log_offset_for_time(struct kafka_log *log, int64_t time_ms,
                                             struct kafka_found *out, struct bns_err *err);
/* Calls fn with the head of each batch from the one that has `from` on; an error of fn stops. */
typedef int kafka_head_fn(void *arg, const struct kafka_batch *head);
BNS_MUST_CHECK int kafka_log_heads(struct kafka_log *log, int64_t from, kafka_head_fn *fn,
                                   void *arg, struct bns_err *err);
/* The greatest timestamp there is. BNS_E_NOTFOUND: none. */
BNS_MUST_CHECK int kafka_log_max_time(struct kafka_log *log, int64_t *out, struct bns_err *err);
/* The greatest known epoch not above this one, and where it ended: see kafka_epochs_end(). */
struct kafka_epoch kafka_log_epoch_end(const struct kafka_log *log, int32_t epoch);

/* ---- shorter --------------------------------------------------------------------------------- */

/* Drops what is at or behind `offset`, with the batch that has it, durably. */
BNS_MUST_CHECK int kafka_log_truncate(struct kafka_log *log, int64_t offset, struct bns_err *err);
/* Drops everything; the next offset is `offset`. */
BNS_MUST_CHECK int kafka_log_restart(struct kafka_log *log, int64_t offset, int64_t now_ms,
                                     struct bns_err *err);
/* Records before `offset` are not read any more (DeleteRecords). Not durable here: see
 * log-start-offset-checkpoint. BNS_E_NOTFOUND: behind the end. */
BNS_MUST_CHECK int kafka_log_advance(struct kafka_log *log, int64_t offset, struct bns_err *err);

struct kafka_retention {
    int64_t time_ms;        /* -1: no limit */
    int64_t bytes;          /* -1: no limit */
    int64_t high_watermark; /* nothing at or behind it goes */
    int64_t now_ms;
};
/* Removes the oldest segments as long as they are too old, too many, or before `start`: their files
 * become *.deleted, durably. *removed: how many. A segment without timestamps is never too old. */
BNS_MUST_CHECK int kafka_log_retain(struct kafka_log *log, const struct kafka_retention *r,
                                    uint32_t *removed, struct bns_err *err);
/* Unlinks *.deleted; nobody reads them any more. */
BNS_MUST_CHECK int kafka_log_purge(struct kafka_log *log, struct bns_err *err);

#endif
