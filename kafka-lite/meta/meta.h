/* meta.h - the cluster's metadata as a replicated state machine, and the requests that change it.
 *
 * Requests come as Kafka's messages and are answered as Kafka's messages, as its controller would.
 * A request is looked at when it is first in line: what it asks for is checked against the image,
 * what passes becomes one command, and it is answered when that is applied, so durable. Requests
 * that do not touch the same things go into one command. See meta.c.
 *
 * Thread:  all calls and callbacks on the env's loop.
 * Memory:  an op, its request and its response are the caller's until op->done; what the response
 *          points to is the op's arena's, or the request's.
 * Errors:  of a whole request: op->code, and every entry of the response says so too, with Kafka's
 *          error number:
 *            BNS_E_TIMEOUT   7, not applied within deadline_ns: outcome unknown
 *            BNS_E_BUSY      7, KAFKA_META_OPS_MAX requests are waiting: not done
 *            BNS_E_NOSPACE   56, no room on the disk: not done
 *            BNS_E_SHUTDOWN  41
 *          BNS_E_NOMEM: there is no response to send.
 */
#ifndef KAFKA_META_META_H
#define KAFKA_META_META_H

#include "app/raft_node.h"
#include "messages.h"
#include "meta/image.h"

#define KAFKA_META_OPS_MAX 4096u
#define KAFKA_PRODUCER_IDS_BLOCK 1000

struct kafka_meta;

enum kafka_change_kind {
    KAFKA_CHANGE_TOPIC_NEW,  /* topic: with all of its partitions and configuration */
    KAFKA_CHANGE_PARTITIONS, /* topic: partitions from `first` on are new */
    KAFKA_CHANGE_TOPIC_GONE, /* topic: about to be freed */
    KAFKA_CHANGE_CONFIG,     /* resource, name; topic for a topic's */
    KAFKA_CHANGE_ALL,        /* another image has taken the place of the old one */
};

struct kafka_change {
    enum kafka_change_kind kind;
    const struct kafka_topic *topic; /* borrowed for the call */
    int32_t first;
    int8_t resource;
    struct bns_slice name;
};

struct kafka_meta_config {
    const char *dir; /* the metadata's own; made when it is not there */
    int32_t node_id; /* of this broker: >= 0 */
    uint8_t cluster_id[16];
    /* The broker's own configuration, from its file, environment and flags; borrowed. */
    const struct kafka_config_set *statics;
    /* More than one member: as in raft_node.h, ids are node ids + 1. */
    const struct bns_raft_peer_addr *peers;
    size_t peers_count;
    const char *listen_host;
    uint16_t listen_port;
    uint64_t snapshot_entries;  /* 0 = 10,000 */
    uint32_t wal_segment_bytes; /* 0 = 4 MiB */
    uint64_t reserve_bytes;     /* of free space, kept back */
    /* Once: what was acknowledged before the start is applied, and requests are looked at. */
    void (*on_ready)(void *arg);
    /* After each change from on_ready on, before the request that made it is answered. */
    void (*on_change)(void *arg, const struct kafka_change *c);
    void *arg;
};

/* Blocking, at start-up. BNS_E_CORRUPT, BNS_E_INVALID, BNS_E_IO, BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_meta_open(struct bns_env *env, const struct kafka_meta_config *cfg,
                                   struct kafka_meta **out, struct bns_err *err);
BNS_MUST_CHECK int kafka_meta_start(struct kafka_meta *m, struct bns_err *err);
/* Waiting requests are answered with BNS_E_SHUTDOWN; done may run inside the call. The metadata is
 * freed before done. */
void kafka_meta_close(struct kafka_meta *m, void (*done)(void *arg), void *arg);

bool kafka_meta_ready(const struct kafka_meta *m);
const struct kafka_image *kafka_meta_image(const struct kafka_meta *m);
uint64_t kafka_meta_commands(const struct kafka_meta *m); /* ever applied */
struct bns_raft_node *kafka_meta_node(const struct kafka_meta *m);

/* ---- requests ------------------------------------------------------------------------------- */

enum kafka_op_kind {
    KAFKA_OP_CREATE_TOPICS,
    KAFKA_OP_DELETE_TOPICS,
    KAFKA_OP_CREATE_PARTITIONS,
    KAFKA_OP_ALTER_CONFIGS,
    KAFKA_OP_INCREMENTAL_ALTER_CONFIGS,
    KAFKA_OP_PRODUCER_IDS,
};

struct kafka_meta_op {
    struct bns_arena *arena;
    uint64_t deadline_ns;
    void (*done)(struct kafka_meta_op *op); /* never inside the call that asked */
    int code;
    /* private */
    enum kafka_op_kind kind;
    const void *request;
    void *response;
    struct bns_list node;
    struct bns_timer timer;
    struct kafka_meta *meta;
};

void kafka_meta_create_topics(struct kafka_meta *m, struct kafka_meta_op *op,
                              const struct kafka_create_topics_request *q,
                              struct kafka_create_topics_response *a);
/* Topics by name or by id (topics), and by name (topic_names): as the versions have them. */
void kafka_meta_delete_topics(struct kafka_meta *m, struct kafka_meta_op *op,
                              const struct kafka_delete_topics_request *q,
                              struct kafka_delete_topics_response *a);
void kafka_meta_create_partitions(struct kafka_meta *m, struct kafka_meta_op *op,
                                  const struct kafka_create_partitions_request *q,
                                  struct kafka_create_partitions_response *a);
void kafka_meta_alter_configs(struct kafka_meta *m, struct kafka_meta_op *op,
                              const struct kafka_alter_configs_request *q,
                              struct kafka_alter_configs_response *a);
void kafka_meta_incremental_alter_configs(struct kafka_meta *m, struct kafka_meta_op *op,
                                          const struct kafka_incremental_alter_configs_request *q,
                                          struct kafka_incremental_alter_configs_response *a);

/* KAFKA_PRODUCER_IDS_BLOCK ids from `first` on are the caller's: nobody is ever given them again.
 * On an error first is -1. */
struct kafka_producer_ids {
    int64_t first;
};
void kafka_meta_producer_ids(struct kafka_meta *m, struct kafka_meta_op *op,
                             struct kafka_producer_ids *out);

/* ---- configuration in force ----------------------------------------------------------------- */

/* Letters, digits, '.', '_' and '-', at most 249, not "." or "..". */
bool kafka_topic_name_valid(struct bns_slice name);

/* A topic's value: its own, else that of the broker, of all brokers, of the file, or the default.
 * key is a topic's (config_table.h); topic NULL: as a new one has it. The text is borrowed until
 * the next change or the next call; ptr NULL: none. Hours and minutes are milliseconds in it. */
struct bns_slice kafka_meta_topic_value(struct kafka_meta *m, const struct kafka_topic *t,
                                        const char *key);
/* A broker's value. */
struct bns_slice kafka_meta_broker_value(const struct kafka_meta *m, const char *key);

#endif
