/* producers.h - what a partition knows of idempotent producers: epoch, and the last five batches.
 *
 * A producer numbers its records per partition. A batch that comes again (its answer was lost) is
 * recognised and answered with the offset that it got the first time; one that does not follow is
 * refused, so that nothing is lost or swapped in between (KIP-98). The rules, as Kafka's:
 *
 *   epoch below the known one                                     fenced
 *   sequences of one of the last five batches of the same epoch   duplicate
 *   same epoch: first sequence is the last one + 1, after 2^31-1 comes 0
 *   a new epoch: first sequence is 0
 *   nothing is known of the producer: any sequence                else out of order
 *
 *   <offset>.snapshot   0 i16 version 1   2 u32 CRC-32C of what is behind it   6 i32 count, then
 *     i64 producer id  i16 epoch  i32 last sequence  i64 last offset  i32 offset delta
 *     i64 timestamp  i32 coordinator epoch  i64 first offset of its transaction, or -1
 *
 * A snapshot has all batches before its offset, and of each producer the last one alone.
 *
 * Thread: one at a time. Memory: some 200 bytes a producer, `max` of them: then the one that wrote
 * least recently is forgotten. Errors: of each call.
 *
 * Source: KIP-98; KIP-360; the ProducerSnapshot schema of Apache Kafka.
 */
#ifndef KAFKA_LOG_PRODUCERS_H
#define KAFKA_LOG_PRODUCERS_H

#include "base/hmap.h"
#include "base/list.h"
#include "log/batch.h"

#define KAFKA_PRODUCER_BATCHES 5u
#define KAFKA_PRODUCERS_MAX 100000u

struct kafka_producer {
    struct bns_hnode node;
    struct bns_list age;
    int64_t id, time_ms, txn_start; /* txn_start: -1: none is open */
    int32_t coordinator_epoch;
    int16_t epoch; /* -1: nothing is known */
    uint8_t count; /* of batches */
    struct kafka_sequence {
        int64_t last_offset, time_ms;
        int32_t last, offset_delta;    /* last: sequence */
    } batches[KAFKA_PRODUCER_BATCHES]; /* the oldest first */
};

struct kafka_producers {
    const struct bns_alloc *alloc;
    struct bns_hmap map;
    struct bns_list ages; /* the least recent first */
    size_t max;
    size_t open; /* that have a transaction open */
};

void kafka_producers_init(struct kafka_producers *s, const struct bns_alloc *alloc, size_t max);
void kafka_producers_free(struct kafka_producers *s); /* leaves it empty and usable */
size_t kafka_producers_count(const struct kafka_producers *s);
struct kafka_producer *kafka_producers_find(const struct kafka_producers *s, int64_t id);
/* The first offset of the transaction that began first; INT64_MAX: none is open. */
int64_t kafka_producers_first_open(const struct kafka_producers *s);

enum kafka_verdict { KAFKA_SEQ_OK, KAFKA_SEQ_DUPLICATE, KAFKA_SEQ_OUT_OF_ORDER, KAFKA_SEQ_FENCED };
/* May a producer's batch be appended? *was: of a duplicate, what was put down then. */
enum kafka_verdict kafka_producers_check(const struct kafka_producers *s,
                                         const struct kafka_batch *b, struct kafka_sequence *was);
/* Makes room for what kafka_producers_add() puts down. BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_producers_prepare(struct kafka_producers *s, int64_t id);
void kafka_producers_undo(struct kafka_producers *s, int64_t id); /* nothing was added */
/* The batch is in the log, with its offset in it. It was prepared, and is not checked: in a log
 * that is replayed it is as it is. */
void kafka_producers_add(struct kafka_producers *s, const struct kafka_batch *b);
/* Forgets those without a transaction whose last timestamp is that old. */
void kafka_producers_expire(struct kafka_producers *s, int64_t now_ms, int64_t expiry_ms);

/* ---- snapshots ------------------------------------------------------------------------------- */

BNS_MUST_CHECK int kafka_producers_encode(const struct kafka_producers *s, struct bns_buf *to);
/* Into an empty one. BNS_E_CORRUPT: it is none, and nothing was put down; BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_producers_decode(struct kafka_producers *s, struct bns_slice bytes,
                                          struct bns_err *err);

#endif
