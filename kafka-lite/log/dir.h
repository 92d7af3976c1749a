/* dir.h - one log directory: the partitions of a broker, and the one worker that writes them.
 *
 *   meta.properties  .lock  .kafka_cleanshutdown            which cluster, node, directory; in use?
 *   recovery-point-offset-checkpoint                        of every partition: durable up to here,
 *   log-start-offset-checkpoint                             readable from here,
 *   replication-offset-checkpoint                           readable up to here
 *   <topic>-<partition>/                                    log.h
 *   <topic>-<partition>.<32 hex digits>-delete/             on its way out
 *
 * Group commit. The worker takes every operation that is queued at that moment: it makes the
 * appends, then one fdatasync a partition that was written, then the answers. What comes meanwhile
 * is the next group. With KAFKA_FLUSH_GROUP no answer leaves and no reader sees a record before it
 * is durable, whatever `sync` says. With KAFKA_FLUSH_OS only partitions with an append that asks
 * for `sync` are synced in its group; readers see what was written.
 *
 * Reads, look-ups by time and the like run on the pool, one at a time a partition. They wait for an
 * append's write, and not for its fdatasync.
 *
 * Failure. A write that finds no room is undone, its append answers 56 (KAFKA_STORAGE_ERROR), the
 * next one may succeed. After any other failed write or sync the directory has failed: every append
 * from then on answers 56, reads go on, one line is logged, kafka_dir_failed() says so, and no
 * stop is a clean one. What was not answered may be there after the next start, or not.
 *
 * Thread:  the loop of `env`, every call; hooks and `done` run there too. env->alloc has to be
 *          callable from workers.
 * Memory:  an operation is the caller's: it stays where it is, with the bytes it points to, until
 *          its `done`, and may be freed or used again in there. A partition is the directory's.
 * Bounds:  `ops_max` operations and `bytes_max` bytes of appends are under way at most.
 * Errors:  a call returns BNS_OK, and `done` comes in a later turn; BNS_E_BUSY: a bound is reached;
 *          BNS_E_SHUTDOWN: the directory is not open, or is closing. Then `done` never comes. What
 *          became of an operation is op->error, a number of Kafka's protocol: 0 NONE, and
 *          -1 UNKNOWN_SERVER_ERROR (no memory), 1 OFFSET_OUT_OF_RANGE, 2 CORRUPT_MESSAGE,
 *          3 UNKNOWN_TOPIC_OR_PARTITION (deleted meanwhile), 10 MESSAGE_TOO_LARGE, 18
 *          RECORD_LIST_TOO_LARGE (longer than a segment), 32 INVALID_TIMESTAMP, 36
 *          TOPIC_ALREADY_EXISTS, 43 UNSUPPORTED_FOR_MESSAGE_FORMAT (a time that lies in a
 *          compressed batch), 45 OUT_OF_ORDER_SEQUENCE_NUMBER, 47
 *          INVALID_PRODUCER_EPOCH, 48 INVALID_TXN_STATE, 56 KAFKA_STORAGE_ERROR, 74
 *          FENCED_LEADER_EPOCH, 87 INVALID_RECORD; op->err.text says more when it is not "".
 */
#ifndef KAFKA_LOG_DIR_H
#define KAFKA_LOG_DIR_H

#include "base/env.h"
#include "log/log.h"
#include "wire/schema.h"

struct kafka_dir;
struct kafka_part;

enum kafka_flush { KAFKA_FLUSH_GROUP, KAFKA_FLUSH_OS };

struct kafka_part_cfg {         /* names: the topic's configuration that each one is */
    struct kafka_log_cfg log;   /* segment.bytes, index.interval.bytes, segment.ms, ... */
    uint32_t batch_bytes_max;   /* max.message.bytes, 1048588 */
    bool append_time;           /* message.timestamp.type=LogAppendTime */
    bool retain, compact;       /* cleanup.policy: delete, compact */
    int64_t time_before_max_ms; /* message.timestamp.before.max.ms, INT64_MAX */
    int64_t time_after_max_ms;  /* message.timestamp.after.max.ms, 3600000 */
    int64_t retention_ms;       /* 604800000; -1: no limit */
    int64_t retention_bytes;    /* -1: no limit */
};
void kafka_part_cfg_default(struct kafka_part_cfg *cfg);

struct kafka_dir_cfg {
    const char *path;       /* its parent is there; copied */
    const char *cluster_id; /* "": that of meta.properties, or a new one; copied */
    int32_t node_id;
    enum kafka_flush flush;
    uint32_t ops_max;             /* 16384 */
    uint64_t bytes_max;           /* 256 MiB */
    int64_t producer_expiry_ms;   /* producer.id.expiration.ms, 1 day */
    uint64_t checkpoint_every_ns; /* log.flush.offset.checkpoint.interval.ms, 60 s */
    uint64_t retention_every_ns;  /* log.retention.check.interval.ms, 300 s; 0: never */
    /* Asked for each partition that is found, before it is opened; `out` has the defaults. May be
     * NULL. id is all zero when the partition has none. */
    void (*part_cfg)(void *arg, const struct kafka_part *p, struct kafka_part_cfg *out);
    /* The high watermark or the beginning of a partition moved, or the directory failed (p NULL).
     * Called after the `done` of the operation that did it. May be NULL. */
    void (*on_advance)(void *arg, struct kafka_part *p);
    void *arg; /* of both */
};
void kafka_dir_cfg_default(struct kafka_dir_cfg *cfg);

/* ---- the directory --------------------------------------------------------------------------- */

/* code: BNS_OK; BNS_E_BUSY: another process has it; BNS_E_CONFLICT: it is of another cluster or
 * node; BNS_E_CORRUPT; errors of vfs.h. err->text says which file. */
typedef void kafka_dir_fn(void *arg, int code, const struct bns_err *err);

/* Makes or opens it, in jobs: partitions are recovered when the last stop was not clean. `opened`
 * is called once, in a later turn; on an error nothing is left to do but kafka_dir_close(). An
 * error here (BNS_E_NOMEM, BNS_E_INVALID: path or cluster id too long): there is nothing at all. */
BNS_MUST_CHECK int kafka_dir_open(struct bns_env *env, const struct kafka_dir_cfg *cfg,
                                  kafka_dir_fn *opened, void *arg, struct kafka_dir **out,
                                  struct bns_err *err);
/* Waits for what is under way, seals every log, writes the checkpoints and .kafka_cleanshutdown.
 * `closed` is called once, in a later turn; the directory is freed when it returns. code is BNS_OK
 * when the stop was a clean one. Not while it opens: wait for `opened`. */
void kafka_dir_close(struct kafka_dir *d, kafka_dir_fn *closed, void *arg);

bool kafka_dir_failed(const struct kafka_dir *d);
const char *kafka_dir_why(const struct kafka_dir *d); /* it failed; "" */
const struct kafka_dir_id *kafka_dir_meta(const struct kafka_dir *d);
size_t kafka_dir_count(const struct kafka_dir *d); /* partitions */
size_t kafka_dir_ops(const struct kafka_dir *d);   /* under way */

/* ---- partitions ------------------------------------------------------------------------------ */

struct kafka_part_view {    /* as of the last operation that was answered */
    int64_t begin, end;     /* offsets of the log */
    int64_t flushed;        /* what is before it is durable */
    int64_t high_watermark; /* what is before it is read: `flushed`, or `end` (KAFKA_FLUSH_OS) */
    int64_t last_stable;    /* no transaction that is open begins before it */
    uint64_t bytes;
    uint32_t segments, producers; /* producers: that have a sequence */
    int32_t epoch;                /* the latest leader epoch; -1: none */
};

/* NULL: there is none, or it is being created or deleted. */
struct kafka_part *kafka_dir_find(struct kafka_dir *d, struct bns_slice topic, int32_t index);
struct kafka_part *kafka_dir_find_id(struct kafka_dir *d, const struct kafka_uuid *id,
                                     int32_t index);
/* All of them: NULL gives the first. The partition given last must not have been deleted. */
struct kafka_part *kafka_dir_next(struct kafka_dir *d, struct kafka_part *p);

const char *kafka_part_topic(const struct kafka_part *p);
int32_t kafka_part_index(const struct kafka_part *p);
const struct kafka_uuid *kafka_part_id(const struct kafka_part *p); /* all zero: it has none */
const struct kafka_part_view *kafka_part_view(const struct kafka_part *p);
const struct kafka_part_cfg *kafka_part_cfg(const struct kafka_part *p);
struct kafka_dir *kafka_part_dir(const struct kafka_part *p);
void **kafka_part_user(struct kafka_part *p); /* the caller's, NULL at first */

/* ---- operations ------------------------------------------------------------------------------ */

struct kafka_op {
    void (*done)(struct kafka_op *op); /* set by the caller */
    void *arg;                         /* the caller's */
    int16_t error;                     /* from here on: outputs, and the directory's */
    struct bns_err err;
    struct kafka_part *part;
    struct kafka_part_view after;
    struct bns_job job;
    int kind;
    bool dir_failed;
};

struct kafka_op_create { /* topic, index, id, cfg: in. part: out, when error is 0 */
    struct kafka_op op;
    char topic[KAFKA_TOPIC_MAX + 1];
    int32_t index;
    struct kafka_uuid id;
    struct kafka_part_cfg cfg;
    int64_t now_ms; /* the directory's */
};
/* Durable when done. kafka_dir_find() gives the partition from then on. BNS_E_EXISTS: it is there,
 * or is being created. BNS_E_NOMEM; BNS_E_INVALID: no topic's name. */
BNS_MUST_CHECK int kafka_part_create(struct kafka_dir *d, struct kafka_op_create *op);

struct kafka_op_delete {
    struct kafka_op op;
};
/* The partition is not found from now on and the pointer is not to be used any more; one of the
 * same name may be created at once. Durable when done; the files are unlinked a few at a time. Not
 * to be called twice. */
BNS_MUST_CHECK int kafka_part_delete(struct kafka_part *p, struct kafka_op_delete *op);

struct kafka_op_config {
    struct kafka_op op;
    struct kafka_part_cfg cfg;
};
BNS_MUST_CHECK int kafka_part_set_cfg(struct kafka_part *p, struct kafka_op_config *op);

struct kafka_op_append {
    struct kafka_op op;
    uint8_t *bytes; /* one batch; offset, epoch and maybe times are written into it */
    size_t len;
    int32_t leader_epoch; /* -1: unknown */
    bool sync;            /* answered after fdatasync */
    /* out */
    int64_t base;           /* offset; of a duplicate: where it was put the first time */
    int64_t append_time_ms; /* -1: the producer's timestamps stand */
    int64_t log_start;
    int32_t bad_record; /* of error 87 and 32: its index in the batch; -1: the batch */
    bool duplicate;     /* nothing was appended */
    int64_t now_ms;     /* the directory's: when it was queued */
};
BNS_MUST_CHECK int kafka_part_append(struct kafka_part *p, struct kafka_op_append *op);

struct kafka_op_read {
    struct kafka_op op;
    int64_t offset;
    int64_t below; /* an offset: readable ends there; the high watermark at the latest */
    uint32_t bytes_max;
    bool one_at_least;  /* a first batch that is longer than bytes_max comes whole */
    struct bns_buf *to; /* the caller's; whole batches are appended, its `max` is a bound too */
    /* out */
    uint32_t bytes;         /* appended; 0: there is nothing at `offset` */
    int64_t base;           /* of the first batch: at or before `offset` */
    int64_t high_watermark; /* when it was queued */
};
/* 1: offset is not in [begin, high watermark]. */
BNS_MUST_CHECK int kafka_part_read(struct kafka_part *p, struct kafka_op_read *op);

struct kafka_op_time {
    struct kafka_op op;
    int64_t
        time_ms; /* the first record at or after it; KAFKA_TIME_MAX: the one with the greatest */
    /* out; offset -1: there is none */
    int64_t offset, found_ms;
    int32_t leader_epoch;
    int64_t below; /* the directory's: the high watermark when it was queued */
};
#define KAFKA_TIME_MAX INT64_C(-3)
BNS_MUST_CHECK int kafka_part_offset_for_time(struct kafka_part *p, struct kafka_op_time *op);

struct kafka_op_delete_records {
    struct kafka_op op;
    int64_t offset;        /* what is before it goes; -1: all up to the high watermark */
    int64_t low_watermark; /* out */
};
/* Durable when done. 1: offset is behind the high watermark. */
BNS_MUST_CHECK int kafka_part_delete_records(struct kafka_part *p,
                                             struct kafka_op_delete_records *op);

struct kafka_op_epoch_end {
    struct kafka_op op;
    int32_t epoch;
    struct kafka_epoch
        found; /* out: the greatest known at or below it, and where it ended; -1, -1 */
};
BNS_MUST_CHECK int kafka_part_epoch_end(struct kafka_part *p, struct kafka_op_epoch_end *op);

struct kafka_producer_view {
    int64_t producer_id, last_time_ms, txn_start; /* txn_start: -1: no transaction is open */
    int32_t last_sequence, coordinator_epoch;
    int16_t epoch;
};
struct kafka_op_producers {
    struct kafka_op op;
    size_t max;
    struct kafka_producer_view *views; /* the caller's, room for `max` */
    size_t count;                      /* out: filled, the least recent first */
    bool more;                         /* there are more than `max` */
};
BNS_MUST_CHECK int kafka_part_producers(struct kafka_part *p, struct kafka_op_producers *op);

#endif
