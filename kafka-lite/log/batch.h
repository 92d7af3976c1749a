/* batch.h - record batches (magic 2): what a producer sends, a log keeps and a consumer gets.
 *
 *   offset 0  i64 baseOffset            12 i32 partitionLeaderEpoch     16 i8  magic = 2
 *          8  i32 batchLength           17 u32 crc                      21 i16 attributes
 *         23  i32 lastOffsetDelta       27 i64 baseTimestamp            35 i64 maxTimestamp
 *         43  i64 producerId            51 i16 producerEpoch            53 i32 baseSequence
 *         57  i32 recordCount           61 records, maybe compressed               all big-endian
 *
 * batchLength counts what is behind it; the CRC-32C covers what is behind the CRC. So a broker may
 * write baseOffset and partitionLeaderEpoch into a producer's batch without touching the rest.
 *
 * Thread: any. Memory: slices borrow. Errors: BNS_E_AGAIN: the input ends inside the batch;
 * BNS_E_CORRUPT: no batch, with a text that says what is wrong.
 *
 * Source: the message format of Apache Kafka's documentation; KIP-98.
 */
#ifndef KAFKA_LOG_BATCH_H
#define KAFKA_LOG_BATCH_H

#include "base/buf.h"
#include "base/err.h"

#define KAFKA_BATCH_HEAD 61u
#define KAFKA_BATCH_PREFIX 12u /* baseOffset and batchLength */

enum kafka_codec { KAFKA_PLAIN, KAFKA_GZIP, KAFKA_SNAPPY, KAFKA_LZ4, KAFKA_ZSTD };

enum { /* attributes */
       KAFKA_ATTR_CODEC = 7,
       KAFKA_ATTR_APPEND_TIME = 1 << 3,
       KAFKA_ATTR_TRANSACTIONAL = 1 << 4,
       KAFKA_ATTR_CONTROL = 1 << 5,
       KAFKA_ATTR_DELETE_HORIZON = 1 << 6,
};

struct kafka_batch {
    int64_t base_offset, base_timestamp, max_timestamp, producer_id;
    int32_t leader_epoch, last_offset_delta, base_sequence, count;
    uint32_t crc;
    int16_t attributes, producer_epoch;
    struct bns_slice bytes;   /* all of it */
    struct bns_slice records; /* behind the head, as they are sent */
};

static inline int64_t kafka_batch_last_offset(const struct kafka_batch *b)
{
    return b->base_offset + b->last_offset_delta;
}

static inline enum kafka_codec kafka_batch_codec(const struct kafka_batch *b)
{
    return (enum kafka_codec)(b->attributes & KAFKA_ATTR_CODEC);
}

/* Takes one batch off the front of *in and moves *in past it. The head is checked, not the CRC. */
BNS_MUST_CHECK int kafka_batch_next(struct bns_slice *in, struct kafka_batch *out,
                                    struct bns_err *err);
/* The same of a head alone, KAFKA_BATCH_HEAD bytes: out->bytes and out->records stay empty, *len is
 * how long the whole batch says it is. */
BNS_MUST_CHECK int kafka_batch_head(const uint8_t *head, struct kafka_batch *out, size_t *len,
                                    struct bns_err *err);
bool kafka_batch_crc_ok(const struct kafka_batch *b);
/* Writes what a broker decides into the head of a batch: not covered by the CRC. */
void kafka_batch_place(uint8_t *head, int64_t base_offset, int32_t leader_epoch);
/* The broker's clock instead of the producer's: these two are covered, so the CRC is made anew. */
void kafka_batch_append_time(uint8_t *batch, int64_t now_ms);
/* The producer's clock, and the greatest timestamp of its records, if the head says another one. */
void kafka_batch_create_time(uint8_t *batch, int64_t max_time);

/* ---- records of a batch that is not compressed ---------------------------------------------- */

struct kafka_record {
    int64_t timestamp_delta;
    int32_t offset_delta;
    struct bns_slice key, value; /* ptr NULL: null */
    int32_t headers_count;
    struct bns_slice headers; /* see kafka_header_next */
};

/* The next record; BNS_E_NOTFOUND behind the last. */
BNS_MUST_CHECK int kafka_record_next(struct bns_slice *records, struct kafka_record *out,
                                     struct bns_err *err);
/* One header off the front of r->headers. */
BNS_MUST_CHECK int kafka_header_next(struct bns_slice *headers, struct bns_slice *key,
                                     struct bns_slice *value);
/* Every record of a plain batch is whole, `count` of them, their offsets rising up to
 * last_offset_delta, with nothing behind them. */
BNS_MUST_CHECK int kafka_records_check(const struct kafka_batch *b, struct bns_err *err);
/* The same, and their timestamps are in 64 bits. *out: the greatest; -1: none has one. */
BNS_MUST_CHECK int kafka_records_max_time(const struct kafka_batch *b, int64_t *out,
                                          struct bns_err *err);
/* A record's timestamp, by its batch; it wraps around, as Java's does. */
static inline int64_t kafka_record_time(const struct kafka_batch *b, const struct kafka_record *r)
{
    return (int64_t)((uint64_t)b->base_timestamp + (uint64_t)r->timestamp_delta);
}

/* ---- making one ------------------------------------------------------------------------------ */

struct kafka_batch_writer {
    struct bns_buf *out; /* the batch begins at `start` */
    size_t start;
    int32_t count;
    int64_t base_timestamp, max_timestamp;
};

/* Begins a plain batch behind what is in the buffer. BNS_E_NOMEM, BNS_E_TOOBIG of the buffer. */
BNS_MUST_CHECK int kafka_batch_begin(struct kafka_batch_writer *w, struct bns_buf *out);
/* headers: encoded as in a record (kafka_header_add), headers_count of them. */
BNS_MUST_CHECK int kafka_batch_add(struct kafka_batch_writer *w, int64_t timestamp_ms,
                                   const struct kafka_record *r);
BNS_MUST_CHECK int kafka_header_add(struct bns_buf *out, struct bns_slice key,
                                    struct bns_slice value);
/* Fills the head from `like` (ids, sequence, attributes, offset, epoch) and makes the CRC. */
void kafka_batch_end(struct kafka_batch_writer *w, const struct kafka_batch *like);

#endif
