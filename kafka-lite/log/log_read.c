/* log_read.c - what a log has: batches by offset and by time, epochs. */
#include <inttypes.h>

#include "log/log_int.h"

#define HEADS_BYTES 4096u /* a window for walks from head to head */

/* The first batch at or behind the offset, in its segment or a later one. */
static int find(struct kafka_log *log, int64_t offset, size_t *which, struct kafka_place *out,
                struct bns_err *err)
{
    int rv = BNS_E_NOTFOUND;

    for (size_t i = kafka_log_which(log, offset); rv == BNS_E_NOTFOUND && i < log->count; i++) {
        rv = kafka_log_use(log, log->segments[i], err);
        if (rv == BNS_OK)
            rv = kafka_segment_find(log->segments[i], offset, out, err);
        *which = i;
    }
    return rv;
}

/* Where the readable bytes of this segment end: before the batch that has `below`. */
static int end_below(struct kafka_log *log, struct kafka_segment *s, int64_t below, uint32_t *out,
                     struct bns_err *err)
{
    struct kafka_place p = {0};
    int rv;

    *out = s->size;
    if (below >= log->end)
        return BNS_OK;
    rv = kafka_segment_find(s, below, &p, err);
    if (rv == BNS_E_CORRUPT && log->failed)
        rv = BNS_OK; /* what a failed sync covered may be lost already; what is before it is not */
    if (rv == BNS_OK)
        *out = p.position;
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

int kafka_log_read(struct kafka_log *log, const struct kafka_want *want, struct kafka_range *out,
                   struct bns_err *err)
{
    struct kafka_place p;
    struct kafka_segment *s;
    uint32_t end = 0, stop = 0;
    size_t which = 0;
    int rv;

    *out = (struct kafka_range){.segment = kafka_log_active(log)->base, .base = want->offset};
    if (want->offset < log->start || want->offset > log->end)
        return bns_err_set(err, BNS_E_NOTFOUND,
                           "%s: offset %" PRId64 " is not within %" PRId64 " and %" PRId64,
                           log->dir.path, want->offset, log->start, log->end);
    if (want->offset == log->end || want->offset >= want->below)
        return BNS_OK;
    rv = find(log, want->offset, &which, &p, err);
    if (rv != BNS_OK)
        return rv == BNS_E_NOTFOUND ? BNS_OK : rv; /* compaction left nothing up to the end */
    s = log->segments[which];
    *out = (struct kafka_range){s->base, p.position, 0, p.batch.base_offset, p.len};
    rv = end_below(log, s, want->below, &end, err);
    if (rv != BNS_OK || end <= p.position)
        return rv;
    if (end - p.position > want->bytes_max) {
        if (p.len > want->bytes_max)
            stop = p.position + (want->one_at_least ? p.len : 0);
        else
            rv = kafka_segment_boundary(s, &p, p.position + want->bytes_max, &stop, err);
    } else {
        stop = end;
    }
    if (rv == BNS_OK)
        out->len = stop - p.position;
    return rv;
}

int kafka_log_load(struct kafka_log *log, const struct kafka_range *range, struct bns_buf *to,
                   struct bns_err *err)
{
    struct kafka_segment *s = log->segments[kafka_log_which(log, range->segment)];
    size_t got = 0;
    int rv;

    if (range->len == 0)
        return BNS_OK;
    if (s->base != range->segment || range->position > s->size ||
        range->len > s->size - range->position)
        return bns_err_set(err, BNS_E_NOTFOUND, "%s: a range that is gone", log->dir.path);
    rv = kafka_log_use(log, s, err);
    if (rv == BNS_OK)
        rv = bns_buf_reserve(to, range->len);
    if (rv == BNS_OK)
        rv = bns_file_read_at(s->file, range->position, to->ptr + to->len, range->len, &got, err);
    if (rv == BNS_OK && got != range->len)
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: the log became shorter", log->dir.path);
    if (rv == BNS_OK)
        to->len += got;
    return rv;
}

/* ---- times ----------------------------------------------------------------------------------- */

/* The first record of a plain batch at or after the time, and not before `from`. */
static int find_record(struct kafka_log *log, struct kafka_segment *s, const struct kafka_place *p,
                       int64_t time_ms, struct kafka_found *out, struct bns_err *err)
{
    struct kafka_range range = {s->base, p->position, p->len, p->batch.base_offset, p->len};
    struct kafka_record r;
    struct kafka_batch b;
    struct bns_slice in;
    struct bns_buf bytes;
    int rv;

    bns_buf_init(&bytes, log->dir.alloc, KAFKA_SEGMENT_BYTES_MAX);
    rv = kafka_log_load(log, &range, &bytes, err);
    in = bns_buf_slice(&bytes);
    if (rv == BNS_OK)
        rv = kafka_batch_next(&in, &b, err);
    if (rv == BNS_OK && !kafka_batch_crc_ok(&b))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: a batch whose CRC is wrong", log->dir.path);
    while (rv == BNS_OK) {
        rv = kafka_record_next(&b.records, &r, err);
        if (rv != BNS_OK)
            break;
        out->offset = b.base_offset + r.offset_delta;
        out->time_ms = (b.attributes & KAFKA_ATTR_APPEND_TIME) != 0 ? b.max_timestamp
                                                                    : kafka_record_time(&b, &r);
        if (out->time_ms >= time_ms && out->offset >= log->start)
            break;
    }
    bns_buf_free(&bytes);
    return rv;
}

static int find_time(struct kafka_log *log, struct kafka_segment *s, int64_t time_ms,
                     struct kafka_found *out, struct bns_err *err)
{
    struct kafka_place p;
    int64_t from = log->start;
    int rv = kafka_log_use(log, s, err);

    if (rv == BNS_OK)
        rv = kafka_segment_max_time(s, err);
    if (rv == BNS_OK && s->max_time < time_ms)
        rv = BNS_E_NOTFOUND;
    while (rv == BNS_OK) {
        rv = kafka_segment_find_time(s, time_ms, from, &p, err);
        if (rv != BNS_OK)
            break;
        *out =
            (struct kafka_found){.offset = p.batch.base_offset > from ? p.batch.base_offset : from,
                                 .time_ms = p.batch.max_timestamp,
                                 .leader_epoch = p.batch.leader_epoch,
                                 .inside = kafka_batch_codec(&p.batch) != KAFKA_PLAIN};
        if (out->inside)
            return BNS_OK;
        rv = find_record(log, s, &p, time_ms, out, err);
        if (rv != BNS_E_NOTFOUND)
            return rv;
        from = kafka_batch_last_offset(&p.batch) + 1; /* only records before `start` were so late */
        rv = BNS_OK;
    }
    return rv;
}

int kafka_log_offset_for_time(struct kafka_log *log, int64_t time_ms, struct kafka_found *out,
                              struct bns_err *err)
{
    int rv = BNS_E_NOTFOUND;

    for (size_t i = 0; rv == BNS_E_NOTFOUND && i < log->count; i++)
        rv = find_time(log, log->segments[i], time_ms, out, err);
    return rv;
}

int kafka_log_heads(struct kafka_log *log, int64_t from, kafka_head_fn *fn, void *arg,
                    struct bns_err *err)
{
    uint8_t window[HEADS_BYTES];
    struct kafka_place p = {0};
    int rv = BNS_OK;

    for (size_t i = kafka_log_which(log, from); rv == BNS_OK && i < log->count; i++) {
        struct kafka_segment *s = log->segments[i];
        struct kafka_reader r = {.window = window, .cap = HEADS_BYTES, .next = INT64_MIN};
        rv = kafka_log_use(log, s, err);
        if (rv == BNS_OK)
            rv = kafka_segment_find(s, from, &p, err);
        r.file = s->file; /* the look-up may have opened another */
        r.end = s->size;
        r.position = p.position;
        while (rv == BNS_OK) {
            rv = kafka_reader_next(&r, false, &p, err);
            if (rv == BNS_OK)
                rv = fn(arg, &p.batch);
        }
        rv = rv == BNS_E_NOTFOUND ? BNS_OK : rv;
    }
    return rv;
}

int kafka_log_max_time(struct kafka_log *log, int64_t *out, struct bns_err *err)
{
    int64_t max = -1;
    int rv = BNS_OK;

    for (size_t i = 0; rv == BNS_OK && i < log->count; i++) {
        rv = kafka_log_use(log, log->segments[i], err);
        if (rv == BNS_OK)
            rv = kafka_segment_max_time(log->segments[i], err);
        if (rv == BNS_OK && log->segments[i]->max_time > max)
            max = log->segments[i]->max_time;
    }
    *out = max;
    return rv == BNS_OK && max < 0 ? BNS_E_NOTFOUND : rv;
}

struct kafka_epoch kafka_log_epoch_end(const struct kafka_log *log, int32_t epoch)
{
    return kafka_epochs_end(&log->epochs, epoch, log->end);
}
