/* config_table.h - the configuration keys of topics and brokers: types, defaults, what they allow.
 *
 * A topic's key has synonyms: the broker's keys that give its value when the topic has none, the
 * first of them that is set. Names, types, defaults and limits are Apache Kafka 4.3.1's.
 *
 * Thread: any. Memory: constant.
 */
#ifndef KAFKA_META_CONFIG_TABLE_H
#define KAFKA_META_CONFIG_TABLE_H

#include "base/err.h"
#include "base/slice.h"

enum kafka_config_type { /* as DescribeConfigs has them */
                         KAFKA_CONFIG_BOOLEAN = 1,
                         KAFKA_CONFIG_STRING = 2,
                         KAFKA_CONFIG_INT = 3,
                         KAFKA_CONFIG_SHORT = 4,
                         KAFKA_CONFIG_LONG = 5,
                         KAFKA_CONFIG_DOUBLE = 6,
                         KAFKA_CONFIG_LIST = 7,
                         KAFKA_CONFIG_CLASS = 8,
                         KAFKA_CONFIG_PASSWORD = 9,
};

struct kafka_config_synonym {
    const char *key; /* of the broker */
    int64_t factor;  /* its value times this is the topic's: hours to milliseconds */
};

struct kafka_config_key {
    const char *name;
    enum kafka_config_type type;
    const char *preset; /* NULL: none */
    bool has_min, has_max;
    int64_t min, max;
    const char *also;          /* a value outside of the range that is allowed too; NULL: none */
    const char *const *values; /* those allowed, up to NULL; NULL: any */
    bool throttled;            /* LIST: "*", or partition:broker pairs */
    bool dynamic;              /* of a broker: may be altered while it runs */
    bool per_broker;           /* dynamic, and not for all brokers at once */
    const struct kafka_config_synonym *synonyms; /* of a topic's, up to key NULL */
    const char *documentation;
};

extern const struct kafka_config_key kafka_topic_keys[]; /* sorted by name */
extern const size_t kafka_topic_keys_count;
extern const struct kafka_config_key kafka_broker_keys[]; /* sorted by name */
extern const size_t kafka_broker_keys_count;

const struct kafka_config_key *kafka_topic_key(struct bns_slice name); /* NULL: there is none */
const struct kafka_config_key *kafka_broker_key(struct bns_slice name);

/* BNS_E_INVALID with Kafka's text: the value is not of the key's type, or not allowed. */
BNS_MUST_CHECK int kafka_config_check(const struct kafka_config_key *k, struct bns_slice value,
                                      struct bns_err *err);
/* BNS_E_INVALID: not a number of 64 bits, decimal, as Java reads one. */
BNS_MUST_CHECK int kafka_config_number(struct bns_slice text, int64_t *out);
bool kafka_config_true(struct bns_slice text);
struct bns_slice kafka_config_trim(struct bns_slice s);
/* The next element of a list, trimmed; false: none is left. */
bool kafka_config_element(struct bns_slice *list, struct bns_slice *out);

#endif
