/* log_int.h - what the parts of a log share. For log*.c and recover*.c only. */
#ifndef KAFKA_LOG_LOG_INT_H
#define KAFKA_LOG_LOG_INT_H

#include "base/env.h"
#include "log/log.h"
#include "log/segment.h"

#define KAFKA_EPOCHS_FILE "leader-epoch-checkpoint"
#define KAFKA_PARTITION_FILE "partition.metadata"

struct kafka_log {
    struct kafka_home dir;
    struct kafka_log_cfg cfg;
    struct kafka_segment **segments; /* by base; the last is active; at least one */
    size_t count, cap;
    int64_t start, end, flushed;
    struct kafka_epochs epochs;
    struct kafka_segment *awake; /* an older one whose files are open; NULL */
    /* The active segment's log once more: its own handle is the readers', who may close it. */
    struct bns_file *syncer;
    kafka_roll_fn *on_roll; /* may be NULL */
    void *roll_arg;
    bool failed;
    char topic_id[24];
};

static inline struct kafka_segment *kafka_log_active(const struct kafka_log *log)
{
    return log->segments[log->count - 1];
}

/* One more segment behind the others, in memory. */
BNS_MUST_CHECK int kafka_log_push(struct kafka_log *log, int64_t base, struct kafka_segment **out,
                                  struct bns_err *err);
void kafka_log_forget(struct kafka_log *log, size_t i); /* the same, undone */
/* Opens an older segment's files and closes those of the one before. */
BNS_MUST_CHECK int kafka_log_use(struct kafka_log *log, struct kafka_segment *s,
                                 struct bns_err *err);
/* The segment that has the offset, or would: the last whose base is not behind it. */
size_t kafka_log_which(const struct kafka_log *log, int64_t offset);
BNS_MUST_CHECK int kafka_log_save_epochs(struct kafka_log *log, struct bns_err *err);
/* A new active segment behind the others, its directory synced. */
BNS_MUST_CHECK int kafka_log_add_segment(struct kafka_log *log, int64_t base, int64_t now_ms,
                                         struct bns_err *err);
void kafka_log_drop_syncer(struct kafka_log *log); /* the active segment is about to be another */
/* Removes the segments from number `from` on, the last first, durably. */
BNS_MUST_CHECK int kafka_log_drop(struct kafka_log *log, size_t from, struct bns_err *err);
int kafka_log_fail(struct kafka_log *log, int rv); /* the log has failed, unless rv is OK */

#endif
