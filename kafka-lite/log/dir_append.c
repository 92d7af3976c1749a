/* dir_append.c - a producer's batch before it gets into a log: what Kafka's broker checks, in its
 * order, and the error that each check has.
 *
 *   head, length, magic, CRC                            2 CORRUPT_MESSAGE
 *   longer than max.message.bytes                      10 MESSAGE_TOO_LARGE
 *   control batch, count and offsets, more than one    87 INVALID_RECORD
 *   no key in a compacted topic                        87
 *   timestamps out of bounds                           32 INVALID_TIMESTAMP
 *   longer than a segment                              18 RECORD_LIST_TOO_LARGE
 *   a transaction                                      48 INVALID_TXN_STATE
 *   the producer's epoch, its sequence                 47, 45; a duplicate is answered as the first
 *
 * Records of a compressed batch are not opened: their count and keys are the producer's word; of
 * their timestamps the greatest, which the head says, is checked.
 */
#include <inttypes.h>

#include "log/dir_int.h"

static int refuse(struct kafka_op_append *op, int16_t error, int32_t record, const char *why)
{
    op->op.error = error;
    op->bad_record = record;
    return bns_err_set(&op->op.err, BNS_E_INVALID, "%s", why);
}

static bool out_of_time(const struct kafka_part_cfg *cfg, int64_t now_ms, int64_t time_ms)
{
    if (cfg->append_time || time_ms < 0)
        return false;
    return (time_ms < now_ms && now_ms - time_ms > cfg->time_before_max_ms) ||
           (time_ms > now_ms && time_ms - now_ms > cfg->time_after_max_ms);
}

/* Each record of a plain batch. What is no record is left to the log. */
static int check_records(const struct kafka_part_cfg *cfg, struct kafka_op_append *op,
                         const struct kafka_batch *b)
{
    struct bns_slice in = b->records;
    struct kafka_record r;

    for (int32_t i = 0; i < b->count && kafka_record_next(&in, &r, NULL) == BNS_OK; i++) {
        if (cfg->compact && r.key.ptr == NULL)
            return refuse(op, ERR_INVALID_RECORD, i,
                          "compacted topic cannot accept message without key");
        if (out_of_time(cfg, op->now_ms, kafka_record_time(b, &r)))
            return refuse(op, ERR_TIMESTAMP, i, "timestamp is out of range");
    }
    return BNS_OK;
}

static int check(const struct kafka_part_cfg *cfg, struct kafka_op_append *op,
                 struct kafka_batch *b)
{
    struct bns_slice in = bns_slice(op->bytes, op->len);
    int rv = kafka_batch_next(&in, b, &op->op.err);

    if (rv != BNS_OK || !kafka_batch_crc_ok(b))
        return refuse(op, ERR_CORRUPT, -1, "no record batch, or its CRC is wrong");
    if (op->len > cfg->batch_bytes_max)
        return refuse(op, ERR_TOO_LARGE, -1, "the batch is larger than max.message.bytes");
    if (in.len > 0)
        return refuse(op, ERR_INVALID_RECORD, -1, "more than one record batch");
    if ((b->attributes & KAFKA_ATTR_CONTROL) != 0)
        return refuse(op, ERR_INVALID_RECORD, -1,
                      "clients are not allowed to write control records");
    if ((b->attributes & KAFKA_ATTR_TRANSACTIONAL) != 0)
        return refuse(op, ERR_TXN_STATE, -1, "no transaction is open");
    if (b->count <= 0 || b->last_offset_delta != b->count - 1)
        return refuse(op, ERR_INVALID_RECORD, -1, "the count of records is not that of offsets");
    if (b->producer_id >= 0 && (b->base_sequence < 0 || b->producer_epoch < 0))
        return refuse(op, ERR_INVALID_RECORD, -1, "a producer id without epoch and sequence");
    if (kafka_batch_codec(b) == KAFKA_PLAIN)
        rv = check_records(cfg, op, b);
    else if (out_of_time(cfg, op->now_ms, b->max_timestamp))
        rv = refuse(op, ERR_TIMESTAMP, -1, "timestamp is out of range");
    if (rv == BNS_OK && op->len > cfg->log.segment_bytes)
        rv = refuse(op, ERR_LIST_TOO_LARGE, -1, "the batch is larger than a segment");
    return rv;
}

/* False: it was appended before, or must not be. */
static bool in_sequence(struct kafka_op_append *op, const struct kafka_batch *b)
{
    struct kafka_part *p = op->op.part;
    struct kafka_sequence was = {0};

    if (b->producer_id < 0)
        return true;
    switch (kafka_producers_check(&p->producers, b, &was)) {
    case KAFKA_SEQ_OK:
        return true;
    case KAFKA_SEQ_DUPLICATE:
        op->duplicate = true;
        op->base = was.last_offset - was.offset_delta;
        op->append_time_ms = p->now.append_time ? was.time_ms : -1;
        kafka_dir_touch(p, op->sync); /* the first one may be in this very group */
        break;
    case KAFKA_SEQ_OUT_OF_ORDER:
        (void)refuse(op, ERR_SEQUENCE, -1, "the sequence is not the one that follows");
        break;
    case KAFKA_SEQ_FENCED:
        (void)refuse(op, ERR_PRODUCER_EPOCH, -1, "the epoch of the producer is over");
        break;
    }
    return false;
}

static void append(struct kafka_dir *d, struct kafka_op_append *op, struct kafka_batch *b)
{
    struct kafka_part *p = op->op.part;
    struct kafka_append how = {
        .append_time = p->now.append_time, .leader_epoch = op->leader_epoch, .now_ms = op->now_ms};
    struct kafka_appended got = {0};
    int rv = b->producer_id < 0 ? BNS_OK : kafka_producers_prepare(&p->producers, b->producer_id);

    if (rv == BNS_OK)
        rv = kafka_log_append(p->log, op->bytes, op->len, &how, &got, &op->op.err);
    if (rv == BNS_OK) {
        b->base_offset = got.first;
        b->max_timestamp = got.max_time;
        if (b->producer_id >= 0)
            kafka_producers_add(&p->producers, b);
        op->base = got.first;
        op->append_time_ms = p->now.append_time ? op->now_ms : -1;
        kafka_dir_touch(p, op->sync);
        return;
    }
    kafka_producers_undo(&p->producers, b->producer_id);
    op->op.error = rv == BNS_E_CORRUPT    ? ERR_INVALID_RECORD /* its CRC is right */
                   : rv == BNS_E_CONFLICT ? ERR_FENCED_EPOCH
                                          : kafka_dir_error(rv);
    if (kafka_log_failed(p->log))
        kafka_dir_break(d, rv, &op->op.err);
}

void kafka_dir_append(struct kafka_dir *d, struct kafka_op_append *op)
{
    struct kafka_part *p = op->op.part;
    struct kafka_batch b;

    op->base = op->append_time_ms = op->log_start = -1;
    op->bad_record = -1;
    op->duplicate = false;
    if (p->log == NULL) {
        op->op.error = ERR_UNKNOWN_PARTITION;
        return;
    }
    op->log_start = kafka_log_begin(p->log);
    if (d->broken) {
        op->op.error = ERR_STORAGE;
        return;
    }
    if (check(&p->now, op, &b) == BNS_OK && in_sequence(op, &b))
        append(d, op, &b);
}
