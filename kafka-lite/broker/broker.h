/* broker.h - one broker: the log directory, the cluster's metadata and the clients' connections.
 *
 *   meta.properties -> metadata (meta/meta.h) -> log directory (log/dir.h) -> the same partitions
 *   in both -> listeners -> serving
 *
 * The metadata decide which partitions there are; the log directory follows: see places.c. A
 * request that makes topics is answered when the directories are there too, so what is created can
 * be written and read at once.
 *
 * Thread:  the loop. Memory: from env->alloc.
 * Errors:  at start, of kafka_broker_start() or told by `on_failed`, with a text that says what is
 *          wrong and where.
 */
#ifndef KAFKA_BROKER_BROKER_H
#define KAFKA_BROKER_BROKER_H

#include "broker/server.h"
#include "log/dir.h"
#include "meta/meta.h"
#include "store/vfs.h"

struct kafka_broker_cfg {
    int32_t node_id;
    const char *data_dir;   /* is there */
    const char *cluster_id; /* 22 letters, "": that of the directory, or a new one */
    struct kafka_listener listeners[KAFKA_LISTENERS_MAX];
    size_t listeners_count;
    struct kafka_server_cfg server;
    enum kafka_flush flush;
    const struct kafka_config_set *statics; /* the broker's own configuration */
    uint32_t mutant;
    void (*on_serving)(void *arg); /* all listeners are open */
    void (*on_failed)(void *arg, int code, const struct bns_err *err);
    void *arg;
};

struct kafka_fetches { /* fetch.c */
    struct bns_list parked;
    uint64_t bytes; /* of all answers */
};

struct kafka_broker {
    struct bns_env *env;
    struct kafka_broker_cfg cfg;
    struct kafka_uuid cluster;
    char cluster_text[23];
    char meta_dir[BNS_PATH_MAX];
    struct kafka_server *server;
    struct kafka_dir *dir;
    struct kafka_meta *meta;
    bool dir_opening, dir_open, serving, draining, failed;

    struct { /* places.c */
        struct bns_list chores;
        size_t ops; /* under way */
        uint64_t begun, over;
        struct bns_list barriers;
        struct bns_task task;
        bool posted, pumping;
    } places;
    struct kafka_fetches fetches;
    struct { /* producer_ids.c */
        int64_t next, end;
        struct bns_list waiting;
        size_t waiting_count;
        bool asking;
        struct kafka_meta_op op;
        struct kafka_producer_ids block;
        struct bns_arena arena;
    } ids;

    struct bns_task quiet;
    bool quiet_posted;
    void (*drained)(void *arg);
    void *drained_arg;
};

/* Blocks while the metadata are read. On an error nothing is left. */
BNS_MUST_CHECK int kafka_broker_start(struct bns_env *env, const struct kafka_broker_cfg *cfg,
                                      struct kafka_broker **out, struct bns_err *err);
/* Answers what is under way, seals the logs, closes everything; then done, once. */
void kafka_broker_drain(struct kafka_broker *b, void (*done)(void *arg), void *arg);
/* After `done`, or never started to serve. NULL is fine. */
void kafka_broker_free(struct kafka_broker *b);
/* NULL: ready. */
const char *kafka_broker_not_ready(struct kafka_broker *b);

/* ---- for the handlers ------------------------------------------------------------------------ */

/* Of a partition; kafka_part_user(). */
struct kafka_place {
    struct bns_list waiters; /* fetch.c */
    int32_t min_insync;
};

const struct kafka_image *kafka_broker_image(const struct kafka_broker *b);
/* 0, or 3, 6, 56, 74, 75. epoch: what the client thinks it is, -1: it says nothing. */
int16_t kafka_broker_part(struct kafka_broker *b, const struct kafka_topic *t, int32_t index,
                          int32_t epoch, struct kafka_part **out);
bool kafka_topic_is_internal(struct bns_slice name);
int64_t kafka_broker_number(struct kafka_broker *b, const char *key, int64_t preset);
uint64_t kafka_broker_deadline(struct kafka_broker *b, int32_t timeout_ms);
bool kafka_uuid_is_zero(const struct kafka_uuid *u);

/* Calls fn(q) when every partition that the metadata have now is in the log directory: maybe at
 * once. Uses q->waiting. */
void kafka_places_after(struct kafka_request *q, void (*fn)(struct kafka_request *q));

/* places.c */
void kafka_places_init(struct kafka_broker *b);
void kafka_places_changed(struct kafka_broker *b, const struct kafka_change *c);
/* As after a start. BNS_E_INVALID: partitions that are not ours. */
BNS_MUST_CHECK int kafka_places_all(struct kafka_broker *b, struct bns_err *err);
void kafka_places_cfg(struct kafka_broker *b, const struct kafka_topic *t,
                      struct kafka_part_cfg *out);
void kafka_places_free(struct kafka_broker *b);

/* fetch.c */
void kafka_fetch_advanced(struct kafka_part *p);
void kafka_fetch_gone(struct kafka_place *place); /* there is no such partition any more */
void kafka_fetch_all(struct kafka_broker *b);     /* nobody waits any longer */

/* identity.c: reads meta.properties, or makes it. */
BNS_MUST_CHECK int kafka_identity(struct kafka_broker *b, struct bns_err *err);

#endif
