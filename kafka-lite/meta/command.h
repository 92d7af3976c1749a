/* command.h - what changes the cluster's metadata: records, and commands that hold some of them.
 *
 * A command is one entry of the replicated log; its records are applied together or not at all. A
 * snapshot is a stream of the same records.
 *
 * Thread:  any. Memory: decoded strings point into the bytes.
 * Errors:  BNS_E_CORRUPT with a text: cut short, a length that cannot be, a kind nobody knows;
 *          BNS_E_NOMEM: no memory, or past the buffer's bound.
 */
#ifndef KAFKA_META_COMMAND_H
#define KAFKA_META_COMMAND_H

#include "base/buf.h"
#include "base/err.h"
#include "wire/schema.h"

#define KAFKA_REPLICAS_MAX 64u
#define KAFKA_PARTITIONS_MAX 1000000 /* of one topic */

enum kafka_meta_record_kind {
    KAFKA_RECORD_TOPIC = 1,        /* name, id: a topic without partitions */
    KAFKA_RECORD_PARTITION = 2,    /* id, partition: the next one of a topic, or changes one */
    KAFKA_RECORD_REMOVE_TOPIC = 3, /* id; its configuration goes with it */
    KAFKA_RECORD_CONFIG = 4,       /* resource, name, key, value: null takes the key away */
    KAFKA_RECORD_PRODUCER_IDS = 5, /* next: the first producer id that nobody has been given */
};

enum kafka_resource { KAFKA_RESOURCE_TOPIC = 2, KAFKA_RESOURCE_BROKER = 4 };

struct kafka_partition_state {
    int32_t index;
    int32_t leader; /* -1: nobody */
    int32_t leader_epoch, partition_epoch;
    const int32_t *replicas, *isr;
    uint32_t replicas_count, isr_count;
};

struct kafka_meta_record {
    enum kafka_meta_record_kind kind;
    struct kafka_uuid id;
    struct bns_slice name, key, value;
    struct kafka_partition_state partition;
    int8_t resource;
    int64_t next;
    int32_t nodes[2 * KAFKA_REPLICAS_MAX]; /* of a decoded record: replicas, isr */
};

struct kafka_command_head {
    uint64_t request; /* whose it is; unique among all processes that ever ran */
    uint64_t base;    /* only when so many commands have been applied before, else it is void */
};
#define KAFKA_COMMAND_HEAD_BYTES 17u

/* The buffer is empty before the head; records follow. */
BNS_MUST_CHECK int kafka_command_begin(struct bns_buf *b, const struct kafka_command_head *h);
BNS_MUST_CHECK int kafka_meta_record_add(struct bns_buf *b, const struct kafka_meta_record *r);

/* Takes the head off; *in is the records then. */
BNS_MUST_CHECK int kafka_command_head(struct bns_slice *in, struct kafka_command_head *out,
                                      struct bns_err *err);
/* Takes one record off the front of *in, which is not empty. r->partition points into r. */
BNS_MUST_CHECK int kafka_meta_record_next(struct bns_slice *in, struct kafka_meta_record *r,
                                          struct bns_err *err);

#endif
