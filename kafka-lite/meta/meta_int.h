/* meta_int.h - what the files of the metadata share. */
#ifndef KAFKA_META_META_INT_H
#define KAFKA_META_META_INT_H

#include "base/env.h"
#include "meta/meta.h"
#include "store/vfs.h"

#define KAFKA_CLAIMS_MAX 256u
#define KAFKA_COMMAND_BYTES_MAX (8u << 20)
#define KAFKA_IMAGE_BYTES_MAX (1u << 30)
#define KAFKA_BLOCKED 1 /* a plan: it touches what an earlier one of the same command touches */

/* The command being made: what the requests in it have put their hands on. */
struct kafka_plan {
    struct kafka_meta *m;
    struct bns_arena *arena; /* of the request */
    struct bns_buf records;
    uint64_t claims[KAFKA_CLAIMS_MAX];
    size_t claims_count;  /* more are not noted: then the command takes no further request */
    size_t claims_before; /* of earlier requests */
    bool full;
    int64_t producer_next;
    uint32_t records_count; /* of the request */
};

/* The image as records, a slice a turn. Nothing is applied meanwhile. */
struct kafka_writing {
    struct kafka_meta *m;
    struct bns_list node;
    struct bns_buf bytes; /* head and records */
    struct kafka_image_cursor at;
    struct bns_raft_snapmeta meta;
    void (*over)(struct kafka_writing *w, int code);
};

struct kafka_state { /* beside the image */
    struct bns_raft_snapmeta at;
    uint64_t commands; /* applied */
    uint64_t digest;   /* of all of them */
};

struct kafka_meta {
    struct bns_env *env;
    struct kafka_meta_config cfg;
    char dir[BNS_PATH_MAX], wal[BNS_PATH_MAX], file[BNS_PATH_MAX];
    struct kafka_image *image;
    struct kafka_state state;
    struct bns_raft_snapmeta durable;
    struct bns_raft_node *node;

    bool ready, told_ready, leading, reading, closing, node_closed;
    struct bns_raft_read read; /* the one that makes it ready */
    struct bns_list waiting;   /* ops, in order */
    struct bns_list batch;     /* ops of the command that was proposed */
    size_t ops;
    uint64_t request;       /* of that command; 0: none is under way */
    uint64_t request_first; /* drawn at the start */
    struct bns_task task;
    bool task_posted;
    struct kafka_plan plan;
    struct bns_list refused; /* ops that found no room */
    struct bns_task refuse_task;
    bool refuse_posted;

    struct bns_list writings;
    struct kafka_writing checkpoint;
    struct bns_task write_task;
    bool write_posted;
    const struct bns_raft_entry *parked; /* a batch that waits for the writings */
    size_t parked_count;
    bns_sm_done *parked_done;
    void *parked_arg;

    struct bns_job job; /* writes a file: one at a time */
    struct bns_buf job_bytes;
    int job_code;
    struct bns_err job_err;
    bns_sm_done *job_done;
    void *job_arg;
    struct kafka_image *job_image; /* an installed one */
    struct kafka_state job_state;
    struct bns_buf incoming;

    char scaled[24]; /* of the last value that was made of another unit's */

    void (*closed)(void *arg);
    void *closed_arg;
};

/* meta.c */
void kafka_meta_run_soon(struct kafka_meta *m);
void kafka_meta_free_if_over(struct kafka_meta *m);
void kafka_meta_fatal(struct kafka_meta *m, int code, const struct bns_err *err);
/* false: an earlier request of the command being made has claimed it. */
bool kafka_plan_claim(struct kafka_plan *p, int8_t resource, struct bns_slice name);
bool kafka_plan_claim_topic(struct kafka_plan *p, struct bns_slice name); /* topics.c */
BNS_MUST_CHECK int kafka_plan_add(struct kafka_plan *p, const struct kafka_meta_record *r);

void kafka_meta_applied(struct kafka_meta *m, uint64_t request, bool valid);
void kafka_meta_role(struct kafka_meta *m, bool leading);
void kafka_meta_tell(struct kafka_meta *m, const struct kafka_change *c);

/* apply.c */
extern const struct bns_sm_ops kafka_meta_sm;

/* image_file.c: the image as bytes, in the file and in a snapshot for other members. */
BNS_MUST_CHECK int kafka_image_head(const struct kafka_state *s, struct bns_buf *b);
BNS_MUST_CHECK int kafka_image_save(struct bns_env *env, const char *path, struct bns_slice bytes,
                                    struct bns_err *err); /* blocking */
BNS_MUST_CHECK int kafka_meta_load(struct kafka_meta *m, struct bns_err *err);
BNS_MUST_CHECK int kafka_image_bytes(struct bns_env *env, struct bns_slice in,
                                     struct kafka_image **image, struct kafka_state *state,
                                     struct bns_err *err);

/* Plans: BNS_OK with the response made and the records added, KAFKA_BLOCKED, or an error, and then
 * nothing of it counts. The others fill a response for a request that failed as a whole. */
int kafka_plan_create_topics(struct kafka_plan *p, const struct kafka_create_topics_request *q,
                             struct kafka_create_topics_response *a);
int kafka_plan_delete_topics(struct kafka_plan *p, const struct kafka_delete_topics_request *q,
                             struct kafka_delete_topics_response *a);
int kafka_plan_create_partitions(struct kafka_plan *p,
                                 const struct kafka_create_partitions_request *q,
                                 struct kafka_create_partitions_response *a);
int kafka_plan_alter_configs(struct kafka_plan *p, const struct kafka_alter_configs_request *q,
                             struct kafka_alter_configs_response *a);
int kafka_plan_incremental(struct kafka_plan *p,
                           const struct kafka_incremental_alter_configs_request *q,
                           struct kafka_incremental_alter_configs_response *a);
int kafka_plan_refuse(struct kafka_meta_op *op, int16_t error);

#endif
