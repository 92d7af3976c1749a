/* record.h - the records of __consumer_offsets: keys and values, to and from bytes.
 *
 *   key 0, 1   version i16, group str, topic str, partition i32
 *     value 4    offset i64, leaderEpoch i32, metadata str*, commitMs i64, tags (0: topicId uuid)
 *     value 3    the same without tags, metadata a plain string; 2: no leaderEpoch; 1: no
 *                leaderEpoch, then expireMs i64; 0: as 2
 *   key 2      version i16, group str
 *     value 3    protocolType str, generation i32, protocol str?, leader str?, stateMs i64 (from
 *     2),            members [id str, instance str? (from 3), clientId str, clientHost str,
 *                rebalanceMs i32 (from 1), sessionMs i32, subscription bytes, assignment bytes]
 *                4: the same, flexible
 *   null       a tombstone
 *
 * Each value begins with its version, an i16. As Apache Kafka 4.3 does, offsets are written as
 * version 4, or 1 when they have a time to expire at, and groups as version 3; all are read.
 *
 * Thread: any. Memory: what is decoded points into the input. Errors: BNS_E_CORRUPT, or
 * BNS_E_UNSUPPORTED: a key or a version that is not in this list; BNS_E_NOMEM, BNS_E_TOOBIG of the
 * buffer, and TOOBIG for a string of more than 32,767 bytes.
 */
#ifndef KAFKA_GROUP_RECORD_H
#define KAFKA_GROUP_RECORD_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

enum kafka_group_kind { KAFKA_GROUP_OFFSET, KAFKA_GROUP_META };

struct kafka_group_key {
    enum kafka_group_kind kind;
    struct bns_slice group;
    struct bns_slice topic; /* of an offset, with `partition` */
    int32_t partition;
};

struct kafka_offset {
    int64_t offset;
    int32_t leader_epoch; /* -1: unknown */
    struct bns_slice metadata;
    int64_t commit_ms;
    int64_t expire_ms;    /* -1: by the retention time of the broker */
    uint8_t topic_id[16]; /* zero: unknown */
};

struct kafka_group_meta {
    struct bns_slice protocol_type;
    int32_t generation;
    struct bns_slice protocol, leader; /* ptr NULL: none */
    int64_t state_ms;                  /* -1: unknown */
    uint32_t members_count;
    struct bns_slice members; /* kafka_group_member_next */
    int16_t version;
};

struct kafka_group_meta_member {
    struct bns_slice id, instance, client_id, client_host, subscription, assignment;
    int32_t rebalance_ms; /* -1: as session_ms */
    int32_t session_ms;
};

BNS_MUST_CHECK int kafka_group_key_get(struct bns_slice in, struct kafka_group_key *out);
BNS_MUST_CHECK int kafka_offset_get(struct bns_slice in, struct kafka_offset *out);
/* Every member is checked to be whole, and that nothing is behind the last. */
BNS_MUST_CHECK int kafka_group_meta_get(struct bns_slice in, struct kafka_group_meta *out);
/* Takes one member off the front of out->members. */
BNS_MUST_CHECK int kafka_group_member_next(struct kafka_group_meta *m,
                                           struct kafka_group_meta_member *out);

BNS_MUST_CHECK int kafka_group_key_put(struct bns_buf *b, const struct kafka_group_key *k);
BNS_MUST_CHECK int kafka_offset_put(struct bns_buf *b, const struct kafka_offset *o);
/* The head of a group's value, for m->members_count members that follow one by one. */
BNS_MUST_CHECK int kafka_group_meta_put(struct bns_buf *b, const struct kafka_group_meta *m);
BNS_MUST_CHECK int kafka_group_member_put(struct bns_buf *b,
                                          const struct kafka_group_meta_member *m);

#endif
