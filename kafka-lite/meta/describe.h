/* describe.h - configurations as DescribeConfigs and CreateTopics show them.
 *
 * Thread: the metadata's loop. Memory: the arena's. */
#ifndef KAFKA_META_DESCRIBE_H
#define KAFKA_META_DESCRIBE_H

#include "base/arena.h"
#include "meta/meta.h"

enum kafka_config_source {
    KAFKA_SOURCE_TOPIC = 1,
    KAFKA_SOURCE_BROKER = 2,        /* altered for one broker */
    KAFKA_SOURCE_ALL_BROKERS = 3,   /* altered for all brokers */
    KAFKA_SOURCE_STATIC_BROKER = 4, /* file, environment, flags */
    KAFKA_SOURCE_DEFAULT = 5,
};

/* The whole answer. BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_describe_configs(const struct kafka_meta *m, struct bns_arena *arena,
                                          const struct kafka_describe_configs_request *q,
                                          struct kafka_describe_configs_response *a);

/* a->configs of a topic that is being created as the draft says. BNS_E_NOMEM. */
struct kafka_draft;
BNS_MUST_CHECK int kafka_describe_created(const struct kafka_meta *m, struct bns_arena *arena,
                                          const struct kafka_draft *d,
                                          struct kafka_create_topics_response_topics *a);

#endif
