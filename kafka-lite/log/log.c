/* log.c - one partition's log: appends, flushes, new segments.
 *
 * An append is checked whole before the first byte is written; its place is decided, and then the
 * order of what is written is: a new segment if one is due, the epoch if it is a new one (durable),
 * the batches (not durable). Any of them may fail; only what succeeded is remembered.
 *
 * A new segment is due, as in Kafka, when the batches do not fit into segment_bytes, when they are
 * segment_ms later than the first batch, when an index is full, or when an offset is too far from
 * the base to be written in 32 bits. The old one is sealed (synced, with its indexes) first.
 */
#include <inttypes.h>
#include <string.h>

#include "log/log_int.h"

#define MUTANT_ROLL_WITHOUT_SYNC 1
#define MUTANT_FLUSH_NOTHING 2

void kafka_log_cfg_default(struct kafka_log_cfg *cfg)
{
    *cfg = (struct kafka_log_cfg){.segment_bytes = 1u << 30,
                                  .index_interval = 4096,
                                  .index_bytes = 10u << 20,
                                  .segment_ms = INT64_C(7) * 24 * 3600 * 1000};
}

int64_t kafka_log_begin(const struct kafka_log *log)
{
    return log->start;
}

int64_t kafka_log_end(const struct kafka_log *log)
{
    return log->end;
}

int64_t kafka_log_flushed(const struct kafka_log *log)
{
    return log->flushed;
}

uint64_t kafka_log_bytes(const struct kafka_log *log)
{
    uint64_t n = 0;

    for (size_t i = 0; i < log->count; i++)
        n += log->segments[i]->size;
    return n;
}

size_t kafka_log_segments(const struct kafka_log *log)
{
    return log->count;
}

const char *kafka_log_topic_id(const struct kafka_log *log)
{
    return log->topic_id;
}

bool kafka_log_failed(const struct kafka_log *log)
{
    return log->failed;
}

int kafka_log_fail(struct kafka_log *log, int rv)
{
    log->failed = log->failed || rv != BNS_OK;
    return rv;
}

static int has_failed(const struct kafka_log *log, struct bns_err *err)
{
    return bns_err_set(err, BNS_E_IO, "%s: the log has failed before", log->dir.path);
}

/* ---- segments -------------------------------------------------------------------------------- */

int kafka_log_push(struct kafka_log *log, int64_t base, struct kafka_segment **out,
                   struct bns_err *err)
{
    struct kafka_segment *s;

    if (log->count == log->cap) {
        size_t cap = log->cap == 0 ? 2 : log->cap * 2;
        struct kafka_segment **p = bns_resize(log->dir.alloc, log->segments, cap * sizeof *p);
        if (p == NULL)
            goto fail;
        log->segments = p;
        log->cap = cap;
    }
    s = bns_alloc(log->dir.alloc, sizeof *s);
    if (s == NULL)
        goto fail;
    kafka_segment_init(s, &log->dir, base, log->cfg.index_interval);
    log->segments[log->count++] = s;
    *out = s;
    return BNS_OK;

fail:
    return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a segment", log->dir.path);
}

void kafka_log_forget(struct kafka_log *log, size_t i)
{
    struct kafka_segment *s = log->segments[i];

    if (log->awake == s)
        log->awake = NULL;
    kafka_segment_rest(s);
    bns_free(log->dir.alloc, s);
    log->count--;
    memmove(log->segments + i, log->segments + i + 1, (log->count - i) * sizeof(void *));
}

int kafka_log_use(struct kafka_log *log, struct kafka_segment *s, struct bns_err *err)
{
    if (log->awake != NULL && log->awake != s && log->awake != kafka_log_active(log))
        kafka_segment_rest(log->awake);
    log->awake = s;
    return kafka_segment_wake(s, err);
}

size_t kafka_log_which(const struct kafka_log *log, int64_t offset)
{
    size_t low = 1, high = log->count; /* before low: base <= offset, or the first */

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (log->segments[mid]->base <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low - 1;
}

int kafka_log_add_segment(struct kafka_log *log, int64_t base, int64_t now_ms, struct bns_err *err)
{
    struct kafka_segment *s = NULL;
    int rv = kafka_log_push(log, base, &s, err);

    if (rv != BNS_OK)
        return rv;
    rv = kafka_segment_create(s, now_ms, err);
    if (rv == BNS_OK)
        rv = kafka_log_fail(log, bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err));
    if (rv != BNS_OK)
        kafka_log_forget(log, log->count - 1);
    return rv;
}

int kafka_log_drop(struct kafka_log *log, size_t from, struct bns_err *err)
{
    int rv = BNS_OK;

    while (rv == BNS_OK && log->count > from) {
        rv = kafka_segment_remove(log->segments[log->count - 1], err);
        if (rv == BNS_OK)
            rv = bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err);
        if (rv == BNS_OK)
            kafka_log_forget(log, log->count - 1);
    }
    return rv;
}

int kafka_log_save_epochs(struct kafka_log *log, struct bns_err *err)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, log->dir.alloc, KAFKA_CHECKPOINT_BYTES_MAX);
    rv = kafka_epochs_text(&log->epochs, &b);
    if (rv == BNS_OK)
        rv = kafka_file_replace(log->dir.vfs, log->dir.path, KAFKA_EPOCHS_FILE, bns_buf_slice(&b),
                                err);
    bns_buf_free(&b);
    return rv;
}

int kafka_log_roll(struct kafka_log *log, int64_t now_ms, struct bns_err *err)
{
    struct kafka_segment *old = kafka_log_active(log);
    int rv = BNS_OK;

    if (log->failed)
        return has_failed(log, err);
    if (old->size == 0)
        return BNS_OK;
    if (!BNS_MUTANT(&log->cfg, MUTANT_ROLL_WITHOUT_SYNC)) {
        rv = kafka_log_flush(log, err);
        if (rv == BNS_OK)
            rv = kafka_segment_seal(old, err); /* only of its indexes: no reason to fail */
    }
    if (rv != BNS_OK)
        return rv;
    rv = kafka_log_add_segment(log, log->end, now_ms, err);
    if (rv == BNS_OK)
        kafka_segment_rest(old);
    return rv;
}

/* ---- append ---------------------------------------------------------------------------------- */

/* What the batches of one append come to. */
struct sums {
    int64_t first, next; /* offsets */
    int64_t max_time, max_time_offset;
    int32_t epoch;
};

static int check_place(const struct kafka_log *log, const struct kafka_batch *b,
                       const struct sums *sums, struct bns_err *err)
{
    bool gap = log->cfg.compacted ? b->base_offset < sums->next : b->base_offset != sums->next;

    if (gap)
        return bns_err_set(err, BNS_E_CONFLICT,
                           "%s: a batch at offset %" PRId64 ", but %" PRId64 " is next",
                           log->dir.path, b->base_offset, sums->next);
    if (b->leader_epoch < sums->epoch)
        return bns_err_set(err, BNS_E_CONFLICT,
                           "%s: a batch of leader epoch %" PRId32 " behind one of %" PRId32,
                           log->dir.path, b->leader_epoch, sums->epoch);
    return BNS_OK;
}

static int check_batch(const struct kafka_batch *b, bool follow, struct bns_err *err)
{
    if (!kafka_batch_crc_ok(b))
        return bns_err_set(err, BNS_E_CORRUPT, "the CRC of a batch is wrong");
    if (follow)
        return BNS_OK;
    if (b->count == 0 || b->last_offset_delta != b->count - 1)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "a batch of %" PRId32 " records whose last has offset delta %" PRId32,
                           b->count, b->last_offset_delta);
    return kafka_batch_codec(b) == KAFKA_PLAIN ? kafka_records_check(b, err) : BNS_OK;
}

/* Checks all batches; writes nothing. */
static int check(const struct kafka_log *log, struct bns_slice in, const struct kafka_append *how,
                 struct bns_err *err)
{
    struct sums sums = {.next = log->end, .epoch = kafka_epochs_latest(&log->epochs)};
    struct kafka_batch b;
    int rv = BNS_OK;

    if (in.len == 0)
        return bns_err_set(err, BNS_E_CORRUPT, "no batch");
    if (in.len > log->cfg.segment_bytes)
        return bns_err_set(err, BNS_E_TOOBIG, "%zu bytes; a segment has %" PRIu32 " at most",
                           in.len, log->cfg.segment_bytes);
    if (!how->follow && how->leader_epoch >= 0 && how->leader_epoch < sums.epoch)
        return bns_err_set(err, BNS_E_CONFLICT,
                           "%s: leader epoch %" PRId32 " is over, it is %" PRId32, log->dir.path,
                           how->leader_epoch, sums.epoch);
    while (rv == BNS_OK && in.len > 0) {
        rv = kafka_batch_next(&in, &b, err);
        if (rv == BNS_E_AGAIN)
            rv = bns_err_set(err, BNS_E_CORRUPT, "a batch that is cut short");
        if (rv == BNS_OK)
            rv = check_batch(&b, how->follow, err);
        if (rv == BNS_OK && how->follow)
            rv = check_place(log, &b, &sums, err);
        if (rv != BNS_OK)
            return rv;
        if (sums.next > INT64_MAX - b.last_offset_delta - 1)
            return bns_err_set(err, BNS_E_TOOBIG, "%s: no offsets are left", log->dir.path);
        sums.next =
            how->follow ? kafka_batch_last_offset(&b) + 1 : sums.next + b.last_offset_delta + 1;
        sums.epoch = how->follow ? b.leader_epoch : sums.epoch;
    }
    return rv;
}

/* Writes offsets and epoch into the batches, or reads them from there. */
static void place(const struct kafka_log *log, uint8_t *bytes, size_t len,
                  const struct kafka_append *how, struct sums *sums)
{
    struct bns_slice in = bns_slice(bytes, len);
    struct kafka_batch b;

    *sums = (struct sums){.next = log->end, .max_time = -1};
    for (bool first = true; in.len > 0; first = false) {
        uint8_t *at = bytes + (len - in.len);
        int rv;
        if (!how->follow) {
            kafka_batch_place(at, sums->next, how->leader_epoch);
            if (how->append_time)
                kafka_batch_append_time(at, how->now_ms);
        }
        rv = kafka_batch_next(&in, &b, NULL);
        BNS_ASSERT(rv == BNS_OK); /* checked before */
        if (first) {
            sums->first = b.base_offset;
            sums->max_time_offset = kafka_batch_last_offset(&b);
        }
        sums->next = kafka_batch_last_offset(&b) + 1;
        sums->epoch = b.leader_epoch;
        if (b.max_timestamp > sums->max_time) {
            sums->max_time = b.max_timestamp;
            sums->max_time_offset = kafka_batch_last_offset(&b);
        }
    }
}

static int roll_if_due(struct kafka_log *log, size_t len, const struct sums *sums, int64_t now_ms,
                       struct bns_err *err)
{
    struct kafka_segment *s = kafka_log_active(log);
    uint32_t offsets_max = log->cfg.index_bytes / KAFKA_OFFSET_ENTRY;
    uint32_t times_max = log->cfg.index_bytes / KAFKA_TIME_ENTRY;
    int64_t waited;
    int rv = kafka_segment_first_time(s, err);

    if (rv != BNS_OK || s->size == 0)
        return rv;
    waited = s->first_time >= 0 ? sums->max_time - s->first_time : now_ms - s->created_ms;
    if (s->size <= log->cfg.segment_bytes - len && waited <= log->cfg.segment_ms &&
        s->offsets.count < offsets_max && s->times.count + 1 < times_max &&
        sums->next - 1 - s->base <= INT32_MAX)
        return BNS_OK;
    return kafka_log_roll(log, now_ms, err);
}

/* The epochs that begin in these batches, durable before the batches are written. */
static int new_epochs(struct kafka_log *log, struct bns_slice in, struct bns_err *err)
{
    struct kafka_batch b;
    bool changed = false, any = false;
    int rv = BNS_OK;

    while (rv == BNS_OK && in.len > 0) {
        rv = kafka_batch_next(&in, &b, err);
        if (rv == BNS_OK && b.leader_epoch > kafka_epochs_latest(&log->epochs)) {
            rv = kafka_epochs_assign(&log->epochs, b.leader_epoch, b.base_offset, &changed);
            any = any || changed;
        }
    }
    if (rv == BNS_OK && any)
        rv = kafka_log_save_epochs(log, err);
    if (rv != BNS_OK)
        (void)kafka_epochs_cut_end(&log->epochs,
                                   log->end); /* whether there was one: all the same */
    return rv;
}

int kafka_log_append(struct kafka_log *log, uint8_t *bytes, size_t len,
                     const struct kafka_append *how, struct kafka_appended *out,
                     struct bns_err *err)
{
    struct bns_slice all = bns_slice(bytes, len);
    struct sums sums;
    bool broken = false;
    int rv;

    if (log->failed)
        return has_failed(log, err);
    rv = check(log, all, how, err);
    if (rv != BNS_OK)
        return rv;
    place(log, bytes, len, how, &sums);
    rv = roll_if_due(log, len, &sums, how->now_ms, err);
    if (rv == BNS_OK)
        rv = new_epochs(log, all, err);
    if (rv == BNS_OK)
        rv = kafka_segment_append(kafka_log_active(log), all, &broken, err);
    if (rv != BNS_OK) {
        log->failed = log->failed || broken || rv == BNS_E_IO || rv == BNS_E_OFF;
        return rv;
    }
    log->end = sums.next;
    *out = (struct kafka_appended){sums.first, sums.next - 1, sums.max_time, sums.max_time_offset};
    return BNS_OK;
}

int kafka_log_flush(struct kafka_log *log, struct bns_err *err)
{
    int rv = BNS_OK;

    if (log->failed)
        return has_failed(log, err);
    if (!BNS_MUTANT(&log->cfg, MUTANT_FLUSH_NOTHING))
        rv = kafka_log_fail(log, kafka_segment_sync(kafka_log_active(log), err));
    if (rv == BNS_OK)
        log->flushed = log->end;
    return rv;
}

/* ---- the end --------------------------------------------------------------------------------- */

int kafka_log_seal(struct kafka_log *log, struct bns_err *err)
{
    int rv = kafka_log_flush(log, err);

    return rv == BNS_OK ? kafka_segment_seal(kafka_log_active(log), err) : rv;
}

void kafka_log_close(struct kafka_log *log)
{
    if (log == NULL)
        return;
    while (log->count > 0)
        kafka_log_forget(log, log->count - 1);
    bns_free(log->dir.alloc, log->segments);
    kafka_epochs_free(&log->epochs);
    bns_free(log->dir.alloc, log);
}
