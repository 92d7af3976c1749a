/* dir_int.h - what the parts of a log directory share. For dir*.c only.
 *
 * Who owns what: fields are the loop's, the worker's, or behind the partition's lock, as marked.
 * The loop hands a partition to the worker with an operation and gets it back with the answer;
 * while the directory opens or closes all of it is the worker's. */
#ifndef KAFKA_LOG_DIR_INT_H
#define KAFKA_LOG_DIR_INT_H

#include <pthread.h>

#include "base/hmap.h"
#include "log/dir.h"
#include "log/log_int.h"
#include "log/producers.h"
#include "wire/uuid.h"

#define KAFKA_RECOVERY_FILE "recovery-point-offset-checkpoint"
#define KAFKA_START_FILE "log-start-offset-checkpoint"
#define KAFKA_MARK_FILE "replication-offset-checkpoint"
#define KAFKA_CLEAN_FILE ".kafka_cleanshutdown"
#define KAFKA_META_FILE "meta.properties"
#define KAFKA_NAME_MAX 256 /* of a file, with the NUL */

enum { /* Kafka's error numbers that an operation can have */
       ERR_UNKNOWN = -1,
       ERR_NONE = 0,
       ERR_OFFSET_RANGE = 1,
       ERR_CORRUPT = 2,
       ERR_UNKNOWN_PARTITION = 3,
       ERR_TOO_LARGE = 10,
       ERR_LIST_TOO_LARGE = 18,
       ERR_TIMESTAMP = 32,
       ERR_EXISTS = 36,
       ERR_UNSUPPORTED_FORMAT = 43,
       ERR_SEQUENCE = 45,
       ERR_PRODUCER_EPOCH = 47,
       ERR_TXN_STATE = 48,
       ERR_STORAGE = 56,
       ERR_FENCED_EPOCH = 74,
       ERR_INVALID_RECORD = 87,
};

enum kafka_op_kind {
    KAFKA_OP_CREATE,
    KAFKA_OP_DELETE,
    KAFKA_OP_CONFIG,
    KAFKA_OP_APPEND,
    KAFKA_OP_DELETE_RECORDS,
    KAFKA_OP_POOL, /* those behind it run on the pool */
    KAFKA_OP_READ,
    KAFKA_OP_TIME,
    KAFKA_OP_EPOCH_END,
    KAFKA_OP_PRODUCERS,
    KAFKA_OP_STEP, /* the directory's own: see struct kafka_step */
};

/* A piece of the directory's own work: run on the worker, then done on the loop. */
struct kafka_step;
typedef int kafka_step_fn(struct kafka_dir *d, struct kafka_step *s, struct bns_err *err);
struct kafka_step {
    struct kafka_op op;
    kafka_step_fn *run;
    int64_t now_ms;
    int code;
    bool more; /* it has not finished: it wants to be called again */
    bool busy;
};

#define KAFKA_CHANGED_MAX 64u
struct kafka_changed { /* a partition that retention made shorter */
    struct kafka_part *part;
    struct kafka_part_view view;
};

struct kafka_part {
    struct kafka_dir *dir;
    char topic[KAFKA_TOPIC_MAX + 1];
    int32_t index;
    struct kafka_uuid id;

    /* the loop's */
    struct bns_hnode by_name, by_id;
    struct bns_list all; /* of dir->parts */
    struct kafka_part_view view;
    struct kafka_part_cfg cfg;
    void *user;
    bool live, named; /* named: in the maps */
    uint32_t ops;     /* under way */

    /* behind the lock */
    pthread_mutex_t lock;
    struct kafka_log *log; /* NULL: not open any more */
    struct kafka_part_cfg now;
    struct kafka_producers producers;

    /* the worker's */
    struct bns_list node;    /* of dir->open */
    struct bns_list touched; /* of dir->touched */
    bool is_touched, wants_sync, gone;
    int64_t recovery_point, log_start; /* of the checkpoints, when it is opened */
    struct kafka_log_report report;
};

struct kafka_dir {
    struct bns_env *env;
    struct bns_worker *worker;
    struct kafka_dir_cfg cfg;
    char path[BNS_PATH_MAX];
    struct kafka_dir_id meta;
    uint8_t random[48]; /* for ids of a new directory */

    /* the loop's */
    enum { DIR_NEW, DIR_OPENING, DIR_OPEN, DIR_BROKEN, DIR_CLOSING } state;
    uint64_t seed; /* of the hashes */
    struct bns_hmap by_name, by_id;
    struct bns_list parts;
    size_t count, ops;
    uint64_t bytes;
    kafka_dir_fn *fn; /* opened, then closed */
    void *fn_arg;
    struct bns_timer checkpoint_timer, retention_timer;
    struct bns_task last;
    struct kafka_step opener, checkpointer, retainer, sweeper;
    bool failed, sweep_again;
    char why[BNS_ERR_TEXT_MAX];

    /* the worker's */
    struct bns_file *lock;
    struct bns_list open;      /* partitions, in the order in which they were opened */
    struct bns_list touched;   /* written in this group */
    struct bns_list *retained; /* the last one that retention looked at */
    bool clean;                /* the last stop was */
    bool starts_changed;       /* log-start-offset-checkpoint is old */
    bool broken;
    struct bns_err broken_why;                       /* written once, before `broken` is */
    struct kafka_changed changed[KAFKA_CHANGED_MAX]; /* between retention's step and its answer */
    size_t changed_count;
};

/* ---- dir.c ----------------------------------------------------------------------------------- */

void kafka_dir_step(struct kafka_dir *d, struct kafka_step *s);
struct kafka_part *kafka_part_new(struct kafka_dir *d, const char *topic, int32_t index);
void kafka_part_free(struct kafka_part *p);
/* One that is being created or opened, too. */
struct kafka_part *kafka_dir_find_any(struct kafka_dir *d, struct bns_slice topic, int32_t index);
/* Into the maps. BNS_E_NOMEM; BNS_E_EXISTS. */
BNS_MUST_CHECK int kafka_part_name_it(struct kafka_part *p);

/* ---- dir_work.c: on the worker or the pool --------------------------------------------------- */

void kafka_dir_work(void *arg, struct bns_list *jobs);
void kafka_dir_pool(struct bns_job *job);
void kafka_dir_touch(struct kafka_part *p, bool sync);
void kafka_dir_break(struct kafka_dir *d, int rv, const struct bns_err *err);
void kafka_dir_view(struct kafka_part *p, struct kafka_part_view *out); /* the lock is held */
int16_t kafka_dir_error(int rv);

/* ---- dir_append.c ---------------------------------------------------------------------------- */

void kafka_dir_append(struct kafka_dir *d, struct kafka_op_append *op);

/* ---- dir_producers.c: on the worker, the lock is held ---------------------------------------- */

BNS_MUST_CHECK int kafka_part_load_producers(struct kafka_part *p, int64_t now_ms,
                                             struct bns_err *err);
BNS_MUST_CHECK int kafka_part_snapshot(struct kafka_part *p, int64_t offset, struct bns_err *err);
/* Unlinks those before the first segment. */
BNS_MUST_CHECK int kafka_part_trim_snapshots(struct kafka_part *p, struct bns_err *err);

/* ---- dir_open.c: on the worker --------------------------------------------------------------- */

kafka_step_fn kafka_dir_scan;
kafka_step_fn kafka_dir_load;
kafka_step_fn kafka_dir_seal;
kafka_step_fn kafka_dir_checkpoint;
/* Both durable; errors of vfs.h. */
BNS_MUST_CHECK int kafka_dir_save_starts(struct kafka_dir *d, struct bns_err *err);
kafka_step_fn kafka_dir_retain;
kafka_step_fn kafka_dir_sweep;
BNS_MUST_CHECK int kafka_part_open(struct kafka_part *p, const char *topic_id, int64_t now_ms,
                                   struct bns_err *err);
/* The log closed, the directory renamed to *-delete, durably. */
BNS_MUST_CHECK int kafka_part_remove(struct kafka_part *p, struct bns_err *err);
/* "<topic>-<partition>"; false: no such name. topic has room for KAFKA_TOPIC_MAX + 1. */
bool kafka_part_parse(const char *name, char *topic, int32_t *index);

#endif
