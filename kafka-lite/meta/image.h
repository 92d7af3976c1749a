/* image.h - the cluster's metadata in memory: topics, configurations, producer ids.
 *
 * An image is what its records make of it, in order: no clock, no chance, no table of a version.
 * All members that applied the same records hold the same image.
 *
 * Thread:  one loop. Memory: from the allocator given to new; what look-ups return is borrowed
 *          until the next record is applied.
 */
#ifndef KAFKA_META_IMAGE_H
#define KAFKA_META_IMAGE_H

#include "base/hmap.h"
#include "base/list.h"
#include "base/skiplist.h"
#include "meta/command.h"

struct kafka_config_entry {
    struct bns_slice key, value;
};

struct kafka_config_set { /* what was set for one resource; sorted by key */
    struct kafka_config_entry *entries;
    uint32_t count, cap;
};

struct kafka_topic {
    struct kafka_uuid id;
    struct bns_slice name;
    struct kafka_partition_state *partitions; /* partitions[i].index == i */
    int32_t partitions_count, partitions_cap;
    struct kafka_config_set configs;
    struct bns_hnode by_id; /* the image's */
    struct bns_skip_node by_name;
};

struct kafka_image;

BNS_MUST_CHECK int kafka_image_new(const struct bns_alloc *alloc, struct kafka_image **out);
void kafka_image_free(struct kafka_image *m); /* NULL is fine */

/* BNS_E_CORRUPT: the record does not fit what is there (a topic that exists or does not, a
 * partition out of order); BNS_E_NOMEM. Nothing is changed on error. */
BNS_MUST_CHECK int kafka_image_apply(struct kafka_image *m, const struct kafka_meta_record *r,
                                     struct bns_err *err);

const struct kafka_topic *kafka_image_topic(const struct kafka_image *m, struct bns_slice name);
const struct kafka_topic *kafka_image_topic_by_id(const struct kafka_image *m,
                                                  const struct kafka_uuid *id);
/* In order of names: the first one at or behind `name`; the one behind a topic. NULL: no more. */
const struct kafka_topic *kafka_image_topic_from(const struct kafka_image *m,
                                                 struct bns_slice name);
const struct kafka_topic *kafka_image_topic_next(const struct kafka_topic *t);
size_t kafka_image_topics(const struct kafka_image *m);
uint64_t kafka_image_partitions(const struct kafka_image *m); /* of all topics */

/* What was set for a resource (a broker's name is its id, "" = all brokers); NULL: nothing. */
const struct kafka_config_set *kafka_image_configs(const struct kafka_image *m, int8_t resource,
                                                   struct bns_slice name);
const struct kafka_config_entry *kafka_config_find(const struct kafka_config_set *s,
                                                   struct bns_slice key); /* s may be NULL */
/* Resources of brokers with a configuration, in order of names: 0, 1, ...; false: no more. */
bool kafka_image_broker(const struct kafka_image *m, size_t i, struct bns_slice *name);

int64_t kafka_image_producer_next(const struct kafka_image *m);

/* The image as records, a slice at a time: appends whole records to b until it has `bytes` or more,
 * or nothing is left. The image must not change from the first slice, with a cursor of zeros, to
 * the last, which sets `over`. On error b and the cursor are as good as lost. */
struct kafka_image_cursor {
    uint32_t step; /* private */
    uint32_t at;
    const struct kafka_topic *topic;
    bool over;
};
BNS_MUST_CHECK int kafka_image_write(const struct kafka_image *m, struct kafka_image_cursor *c,
                                     size_t bytes, struct bns_buf *b);

#endif
