/* plan.h - small things that the plans share. Memory: everything is the request's arena's. */
#ifndef KAFKA_META_PLAN_H
#define KAFKA_META_PLAN_H

#include "base/arena.h"
#include "meta/config_table.h"
#include "meta/meta_int.h"

enum {
    KAFKA_UNKNOWN_SERVER_ERROR = -1,
    KAFKA_UNKNOWN_TOPIC = 3,
    KAFKA_INVALID_TOPIC = 17,
    KAFKA_TOPIC_EXISTS = 36,
    KAFKA_INVALID_PARTITIONS = 37,
    KAFKA_INVALID_REPLICATION = 38,
    KAFKA_INVALID_ASSIGNMENT = 39,
    KAFKA_INVALID_CONFIG = 40,
    KAFKA_INVALID_REQUEST = 42,
    KAFKA_POLICY_VIOLATION = 44,
    KAFKA_DELETION_DISABLED = 73,
    KAFKA_UNKNOWN_TOPIC_ID = 100,
};

#define KAFKA_REQUEST_PARTITIONS_MAX 10000
#define KAFKA_CONFIGS_MAX 512 /* of one resource in one request */

struct kafka_fail { /* what is wrong with one entry of a request; error 0: nothing */
    int16_t error;
    struct bns_slice text; /* ptr NULL: none */
};

/* Sets error and text; BNS_OK, or BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_fail_set(struct kafka_fail *f, struct bns_arena *a, int16_t error,
                                  const char *fmt, ...) BNS_PRINTF(4, 5);
/* What the number says where Kafka has no text of its own. */
const char *kafka_error_text(int16_t error);

/* What is wrong with a topic's name. */
BNS_MUST_CHECK int kafka_topic_name_check(struct bns_arena *a, struct bns_slice s,
                                          struct kafka_fail *f);

/* kinds[i]: 0 = names[i] is there once, 1 = the first of several, 2 = a further one. NULL: no
 * memory. A name with a NULL ptr is like no other. */
uint8_t *kafka_repeats(struct bns_arena *a, const struct bns_slice *names, size_t count);

/* One resource's configuration as it is to be: begun with what is set, changed, checked, and
 * turned into records for what is different. */
struct kafka_draft {
    int8_t resource;
    struct bns_slice name;
    const struct kafka_config_set *now; /* NULL: nothing is set */
    struct kafka_config_entry *entries;
    size_t count, cap;
};
BNS_MUST_CHECK int kafka_draft_begin(struct kafka_draft *d, struct bns_arena *a, size_t more);
void kafka_draft_set(struct kafka_draft *d, struct bns_slice key, struct bns_slice value);
/* Is the whole of it allowed? */
BNS_MUST_CHECK int kafka_draft_check(const struct kafka_draft *d, struct kafka_plan *p,
                                     struct kafka_fail *f);
BNS_MUST_CHECK int kafka_draft_records(const struct kafka_draft *d, struct kafka_plan *p);

#endif
