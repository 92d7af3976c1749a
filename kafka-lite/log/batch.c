/* batch.c - record batches, their heads and their records. A record is all varints, zigzag:
 *
 *   length  attributes(1 byte)  timestampDelta  offsetDelta  keyLength key  valueLength value
 *   headersCount  (keyLength key valueLength value)*            a length of -1 is null
 */
#include "log/batch.h"

#include <inttypes.h>

#include "base/crc32c.h"
#include "base/varint.h"

#define AT_LENGTH 8
#define AT_EPOCH 12
#define AT_MAGIC 16
#define AT_CRC 17
#define AT_ATTRIBUTES 21
#define AT_LAST_DELTA 23
#define AT_BASE_TIME 27
#define AT_MAX_TIME 35
#define AT_PRODUCER 43
#define AT_PRODUCER_EPOCH 51
#define AT_SEQUENCE 53
#define AT_COUNT 57

static int32_t get_i32(const uint8_t *p)
{
    return (int32_t)bns_get_u32be(p);
}

static int64_t get_i64(const uint8_t *p)
{
    return (int64_t)bns_get_u64be(p);
}

int kafka_batch_head(const uint8_t *p, struct kafka_batch *out, size_t *len, struct bns_err *err)
{
    int32_t length = get_i32(p + AT_LENGTH);

    if (length < (int32_t)(KAFKA_BATCH_HEAD - KAFKA_BATCH_PREFIX))
        return bns_err_set(err, BNS_E_CORRUPT, "a batch of %" PRId32 " bytes", length);
    if (p[AT_MAGIC] != 2)
        return bns_err_set(err, BNS_E_CORRUPT, "a batch of magic %u; only 2 is known", p[AT_MAGIC]);
    *out = (struct kafka_batch){
        .base_offset = get_i64(p),
        .leader_epoch = get_i32(p + AT_EPOCH),
        .crc = bns_get_u32be(p + AT_CRC),
        .attributes = (int16_t)bns_get_u16be(p + AT_ATTRIBUTES),
        .last_offset_delta = get_i32(p + AT_LAST_DELTA),
        .base_timestamp = get_i64(p + AT_BASE_TIME),
        .max_timestamp = get_i64(p + AT_MAX_TIME),
        .producer_id = get_i64(p + AT_PRODUCER),
        .producer_epoch = (int16_t)bns_get_u16be(p + AT_PRODUCER_EPOCH),
        .base_sequence = get_i32(p + AT_SEQUENCE),
        .count = get_i32(p + AT_COUNT),
    };
    *len = KAFKA_BATCH_PREFIX + (size_t)length;
    if (out->count < 0 || out->last_offset_delta < 0 ||
        (out->count > 0 && out->last_offset_delta < out->count - 1))
        return bns_err_set(err, BNS_E_CORRUPT,
                           "a batch of %" PRId32 " records whose last has offset delta %" PRId32,
                           out->count, out->last_offset_delta);
    if (out->base_offset < 0 || out->base_offset >= INT64_MAX - out->last_offset_delta)
        return bns_err_set(err, BNS_E_CORRUPT, "a batch at offset %" PRId64, out->base_offset);
    return BNS_OK;
}

int kafka_batch_next(struct bns_slice *in, struct kafka_batch *out, struct bns_err *err)
{
    size_t len = 0;
    int rv;

    if (in->len < KAFKA_BATCH_HEAD) {
        int32_t length = in->len < KAFKA_BATCH_PREFIX ? INT32_MAX : get_i32(in->ptr + AT_LENGTH);
        if (length < (int32_t)(KAFKA_BATCH_HEAD - KAFKA_BATCH_PREFIX))
            return bns_err_set(err, BNS_E_CORRUPT, "a batch of %" PRId32 " bytes", length);
        return BNS_E_AGAIN;
    }
    rv = kafka_batch_head(in->ptr, out, &len, err);
    if (rv != BNS_OK)
        return rv;
    if (in->len < len)
        return BNS_E_AGAIN;
    out->bytes = bns_slice(in->ptr, len);
    out->records = bns_slice_skip(out->bytes, KAFKA_BATCH_HEAD);
    *in = bns_slice_skip(*in, len);
    return BNS_OK;
}

bool kafka_batch_crc_ok(const struct kafka_batch *b)
{
    return bns_crc32c(0, b->bytes.ptr + AT_ATTRIBUTES, b->bytes.len - AT_ATTRIBUTES) == b->crc;
}

void kafka_batch_place(uint8_t *head, int64_t base_offset, int32_t leader_epoch)
{
    bns_put_u64be(head, (uint64_t)base_offset);
    bns_put_u32be(head + AT_EPOCH, (uint32_t)leader_epoch);
}

static void set_crc(uint8_t *batch)
{
    size_t len = KAFKA_BATCH_PREFIX + bns_get_u32be(batch + AT_LENGTH);

    bns_put_u32be(batch + AT_CRC, bns_crc32c(0, batch + AT_ATTRIBUTES, len - AT_ATTRIBUTES));
}

void kafka_batch_append_time(uint8_t *batch, int64_t now_ms)
{
    uint16_t attributes = bns_get_u16be(batch + AT_ATTRIBUTES);

    bns_put_u16be(batch + AT_ATTRIBUTES, attributes | KAFKA_ATTR_APPEND_TIME);
    bns_put_u64be(batch + AT_MAX_TIME, (uint64_t)now_ms);
    set_crc(batch);
}

void kafka_batch_create_time(uint8_t *batch, int64_t max_time)
{
    uint16_t attributes = bns_get_u16be(batch + AT_ATTRIBUTES);
    uint16_t wanted = attributes & (uint16_t)~KAFKA_ATTR_APPEND_TIME;

    if (attributes == wanted && get_i64(batch + AT_MAX_TIME) == max_time)
        return;
    bns_put_u16be(batch + AT_ATTRIBUTES, wanted);
    bns_put_u64be(batch + AT_MAX_TIME, (uint64_t)max_time);
    set_crc(batch);
}

/* ---- records --------------------------------------------------------------------------------- */

static bool take_int(struct bns_slice *in, int64_t *out)
{
    uint64_t v = 0;

    if (bns_varint_get(in, &v) != BNS_OK)
        return false;
    *out = bns_unzigzag(v);
    return true;
}

/* A length and its bytes; null only where that may be. */
static bool take_bytes(struct bns_slice *in, bool may_null, struct bns_slice *out)
{
    int64_t n = 0;

    if (!take_int(in, &n) || n < (may_null ? -1 : 0) || n > (int64_t)in->len)
        return false;
    if (n < 0) {
        *out = bns_slice(NULL, 0);
        return true;
    }
    *out = bns_slice(in->ptr, (size_t)n);
    *in = bns_slice_skip(*in, (size_t)n);
    return true;
}

static bool take_record(struct bns_slice in, struct kafka_record *out)
{
    int64_t delta = 0, headers = 0;

    if (in.len == 0)
        return false;
    in = bns_slice_skip(in, 1); /* attributes: none are defined */
    if (!take_int(&in, &out->timestamp_delta) || !take_int(&in, &delta) || delta < 0 ||
        delta > INT32_MAX || !take_bytes(&in, true, &out->key) ||
        !take_bytes(&in, true, &out->value) || !take_int(&in, &headers) || headers < 0 ||
        headers > (int64_t)in.len / 2)
        return false;
    out->offset_delta = (int32_t)delta;
    out->headers_count = (int32_t)headers;
    out->headers = in;
    for (int64_t i = 0; i < headers; i++) {
        struct bns_slice key, value;
        if (!take_bytes(&in, false, &key) || !take_bytes(&in, true, &value))
            return false;
    }
    return in.len == 0;
}

int kafka_record_next(struct bns_slice *records, struct kafka_record *out, struct bns_err *err)
{
    struct bns_slice in = *records, body;

    if (in.len == 0)
        return BNS_E_NOTFOUND;
    if (!take_bytes(&in, false, &body) || !take_record(body, out))
        return bns_err_set(err, BNS_E_CORRUPT, "a record that is not whole");
    *records = in;
    return BNS_OK;
}

int kafka_header_next(struct bns_slice *headers, struct bns_slice *key, struct bns_slice *value)
{
    if (headers->len == 0)
        return BNS_E_NOTFOUND;
    return take_bytes(headers, false, key) && take_bytes(headers, true, value) ? BNS_OK
                                                                               : BNS_E_CORRUPT;
}

/* max_time: NULL, or what is raised to the greatest timestamp. */
static int walk_records(const struct kafka_batch *b, int64_t *max_time, struct bns_err *err)
{
    struct bns_slice in = b->records;
    struct kafka_record r;
    int64_t last = -1, time = 0;
    int32_t n = 0;
    int rv;

    while ((rv = kafka_record_next(&in, &r, err)) == BNS_OK) {
        if (n == b->count)
            return bns_err_set(err, BNS_E_CORRUPT, "more than %" PRId32 " records", b->count);
        if (r.offset_delta <= last || r.offset_delta > b->last_offset_delta)
            return bns_err_set(err, BNS_E_CORRUPT, "record %" PRId32 " has offset delta %" PRId32,
                               n, r.offset_delta);
        if (max_time != NULL && __builtin_add_overflow(b->base_timestamp, r.timestamp_delta, &time))
            return bns_err_set(err, BNS_E_CORRUPT,
                               "timestamp delta %" PRId64 " of record %" PRId32
                               " does not fit behind %" PRId64,
                               r.timestamp_delta, n, b->base_timestamp);
        if (max_time != NULL && time > *max_time)
            *max_time = time;
        last = r.offset_delta;
        n++;
    }
    if (rv != BNS_E_NOTFOUND)
        return rv;
    if (n != b->count)
        return bns_err_set(err, BNS_E_CORRUPT, "%" PRId32 " records, %" PRId32 " announced", n,
                           b->count);
    return BNS_OK;
}

int kafka_records_check(const struct kafka_batch *b, struct bns_err *err)
{
    return walk_records(b, NULL, err);
}

int kafka_records_max_time(const struct kafka_batch *b, int64_t *out, struct bns_err *err)
{
    *out = -1;
    return walk_records(b, out, err);
}

/* ---- making one ------------------------------------------------------------------------------ */

static int put_int(struct bns_buf *out, int64_t v)
{
    uint8_t b[BNS_VARINT_MAX];

    return bns_buf_add(out, b, bns_varint_put(b, bns_zigzag(v)));
}

static size_t int_len(int64_t v)
{
    return bns_varint_len(bns_zigzag(v));
}

static size_t bytes_len(struct bns_slice s)
{
    return s.ptr == NULL ? 1 : int_len((int64_t)s.len) + s.len;
}

static int put_bytes(struct bns_buf *out, struct bns_slice s)
{
    int rv = put_int(out, s.ptr == NULL ? -1 : (int64_t)s.len);

    return rv == BNS_OK && s.len > 0 ? bns_buf_add(out, s.ptr, s.len) : rv;
}

int kafka_header_add(struct bns_buf *out, struct bns_slice key, struct bns_slice value)
{
    size_t before = out->len;
    int rv = put_bytes(out, key);

    if (rv == BNS_OK)
        rv = put_bytes(out, value);
    if (rv != BNS_OK)
        out->len = before;
    return rv;
}

int kafka_batch_begin(struct kafka_batch_writer *w, struct bns_buf *out)
{
    static const uint8_t head[KAFKA_BATCH_HEAD];

    *w = (struct kafka_batch_writer){.out = out, .start = out->len, .max_timestamp = -1};
    return bns_buf_add(out, head, sizeof head);
}

int kafka_batch_add(struct kafka_batch_writer *w, int64_t timestamp_ms,
                    const struct kafka_record *r)
{
    int64_t delta = w->count == 0 ? 0 : timestamp_ms - w->base_timestamp;
    size_t len = 1 + int_len(delta) + int_len(w->count) + bytes_len(r->key) + bytes_len(r->value) +
                 int_len(r->headers_count) + r->headers.len;
    size_t before = w->out->len;
    int rv;

    rv = bns_buf_reserve(w->out, len + BNS_VARINT_MAX); /* so that nothing below can fail */
    if (rv != BNS_OK)
        return rv;
    rv |= put_int(w->out, (int64_t)len);
    rv |= bns_buf_byte(w->out, 0);
    rv |= put_int(w->out, delta);
    rv |= put_int(w->out, w->count);
    rv |= put_bytes(w->out, r->key);
    rv |= put_bytes(w->out, r->value);
    rv |= put_int(w->out, r->headers_count);
    if (r->headers.len > 0)
        rv |= bns_buf_add(w->out, r->headers.ptr, r->headers.len);
    BNS_ASSERT(rv == BNS_OK && w->out->len - before == len + int_len((int64_t)len));
    if (w->count == 0)
        w->base_timestamp = timestamp_ms;
    if (timestamp_ms > w->max_timestamp)
        w->max_timestamp = timestamp_ms;
    w->count++;
    return BNS_OK;
}

void kafka_batch_end(struct kafka_batch_writer *w, const struct kafka_batch *like)
{
    uint8_t *p = w->out->ptr + w->start;

    kafka_batch_place(p, like->base_offset, like->leader_epoch);
    bns_put_u32be(p + AT_LENGTH, (uint32_t)(w->out->len - w->start - KAFKA_BATCH_PREFIX));
    p[AT_MAGIC] = 2;
    bns_put_u16be(p + AT_ATTRIBUTES, (uint16_t)like->attributes);
    bns_put_u32be(p + AT_LAST_DELTA, (uint32_t)(w->count == 0 ? 0 : w->count - 1));
    bns_put_u64be(p + AT_BASE_TIME, (uint64_t)(w->count == 0 ? -1 : w->base_timestamp));
    bns_put_u64be(p + AT_MAX_TIME, (uint64_t)w->max_timestamp);
    bns_put_u64be(p + AT_PRODUCER, (uint64_t)like->producer_id);
    bns_put_u16be(p + AT_PRODUCER_EPOCH, (uint16_t)like->producer_epoch);
    bns_put_u32be(p + AT_SEQUENCE, (uint32_t)like->base_sequence);
    bns_put_u32be(p + AT_COUNT, (uint32_t)w->count);
    set_crc(p);
}
