/* log.c - one partition's log: appends, flushes, new segments.
 *
 * An append is checked whole before the first byte is written; its place is decided, and then the
 * order of what is written is: a new segment if one is due, the epoch if it is a new one (durable),
 * the batches (not durable). Any of them may fail; only what succeeded is remembered.
 *
 * A new segment is due, as in Kafka, when the batches do not fit into segment_bytes, when they are
 * segment_ms later than the first batch, when an index is full, or when an offset is too far from
 * the base to be written in 32 bits. The old one is sealed (synced, with its indexes) first. Its
 * base is the first batch's offset: a follower's may be behind a gap, and then the gap is part of
 * the log from there on, whether the batches get into it or not.
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

void kafka_log_set_cfg(struct kafka_log *log, const struct kafka_log_cfg *cfg)
{
    BNS_ASSERT(cfg->segment_bytes <= KAFKA_SEGMENT_BYTES_MAX);
    log->cfg = *cfg;
    for (size_t i = 0; i < log->count; i++)
        log->segments[i]->interval = cfg->index_interval;
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
    bool broken = false;
    int rv = kafka_log_push(log, base, &s, err);

    if (rv != BNS_OK)
        return rv;
    kafka_log_drop_syncer(log);
    rv = kafka_segment_create(s, now_ms, &broken, err);
    if (rv == BNS_OK)
        rv = kafka_log_fail(log, bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err));
    if (rv != BNS_OK)
        kafka_log_forget(log, log->count - 1);
    log->failed = log->failed || broken;
    return rv;
}

int kafka_log_drop(struct kafka_log *log, size_t from, struct bns_err *err)
{
    int rv = BNS_OK;

    kafka_log_drop_syncer(log);
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

/* The active segment is empty, and too far from `base`: another one takes its place. The new one is
 * durable before the old one goes, so the log always has an end. */
static int replace_empty(struct kafka_log *log, int64_t base, int64_t now_ms, struct bns_err *err)
{
    int rv = kafka_log_add_segment(log, base, now_ms, err);

    if (rv != BNS_OK)
        return rv;
    rv = kafka_segment_remove(log->segments[log->count - 2], err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err);
    if (rv == BNS_OK)
        kafka_log_forget(log, log->count - 2);
    return kafka_log_fail(log, rv);
}

void kafka_log_on_roll(struct kafka_log *log, kafka_roll_fn *fn, void *arg)
{
    log->on_roll = fn;
    log->roll_arg = arg;
}

static int roll_behind(struct kafka_log *log, int64_t base, int64_t now_ms, struct bns_err *err)
{
    struct kafka_segment *old = kafka_log_active(log);
    int rv = BNS_OK;

    if (!BNS_MUTANT(&log->cfg, MUTANT_ROLL_WITHOUT_SYNC)) {
        rv = kafka_log_flush(log, err);
        if (rv == BNS_OK)
            rv = kafka_segment_seal(old, err); /* only of its indexes: no reason to fail */
    }
    if (rv == BNS_OK && log->on_roll != NULL)
        rv = log->on_roll(log->roll_arg, base, err);
    if (rv != BNS_OK)
        return rv;
    rv = kafka_log_add_segment(log, base, now_ms, err);
    if (rv == BNS_OK)
        kafka_segment_rest(old);
    return rv;
}

int kafka_log_roll(struct kafka_log *log, int64_t now_ms, struct bns_err *err)
{
    if (log->failed)
        return has_failed(log, err);
    if (kafka_log_active(log)->size == 0)
        return BNS_OK;
    return roll_behind(log, log->end, now_ms, err);
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
    if (b->base_offset < sums->next) /* gaps are the leader's: its topic was compacted once */
        return bns_err_set(err, BNS_E_CONFLICT,
                           "%s: a batch at offset %" PRId64 ", but %" PRId64 " is next",
                           log->dir.path, b->base_offset, sums->next);
    if (b->leader_epoch < sums->epoch)
        return bns_err_set(err, BNS_E_CONFLICT,
                           "%s: a batch of leader epoch %" PRId32 " behind one of %" PRId32,
                           log->dir.path, b->leader_epoch, sums->epoch);
    return BNS_OK;
}

static int check_batch(const struct kafka_batch *b, bool follow, int64_t *max_time,
                       struct bns_err *err)
{
    *max_time = b->max_timestamp;
    if (!kafka_batch_crc_ok(b))
        return bns_err_set(err, BNS_E_CORRUPT, "the CRC of a batch is wrong");
    if (kafka_batch_codec(b) > KAFKA_ZSTD)
        return bns_err_set(err, BNS_E_CORRUPT, "a batch of codec %d; there are %d",
                           (int)kafka_batch_codec(b), KAFKA_ZSTD);
    if (follow)
        return BNS_OK;
    if (b->count == 0 || b->last_offset_delta != b->count - 1)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "a batch of %" PRId32 " records whose last has offset delta %" PRId32,
                           b->count, b->last_offset_delta);
    return kafka_batch_codec(b) == KAFKA_PLAIN ? kafka_records_max_time(b, max_time, err) : BNS_OK;
}

/* Checks all batches; writes nothing. *max_time: the greatest timestamp of a producer's. */
static int check(const struct kafka_log *log, struct bns_slice in, const struct kafka_append *how,
                 int64_t *max_time, struct bns_err *err)
{
    struct sums sums = {.first = -1, .next = log->end, .epoch = kafka_epochs_latest(&log->epochs)};
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
            rv = check_batch(&b, how->follow, max_time, err);
        if (rv == BNS_OK && how->follow)
            rv = check_place(log, &b, &sums, err);
        if (rv != BNS_OK)
            return rv;
        if (sums.next > INT64_MAX - b.last_offset_delta - 1)
            return bns_err_set(err, BNS_E_TOOBIG, "%s: no offsets are left", log->dir.path);
        if (!how->follow && in.len > 0)
            return bns_err_set(err, BNS_E_INVALID, "%zu bytes behind the one batch", in.len);
        if (sums.first < 0)
            sums.first = how->follow ? b.base_offset : sums.next;
        sums.next =
            how->follow ? kafka_batch_last_offset(&b) + 1 : sums.next + b.last_offset_delta + 1;
        sums.epoch = how->follow ? b.leader_epoch : sums.epoch;
        if (sums.next - 1 - sums.first > INT32_MAX)
            return bns_err_set(err, BNS_E_TOOBIG,
                               "%s: offsets %" PRId64 " and %" PRId64 " do not fit into a segment",
                               log->dir.path, sums.first, sums.next - 1);
    }
    return rv;
}

/* Writes offsets and epoch into the batches, or reads them from there. */
static void place(const struct kafka_log *log, struct bns_slice all, const struct kafka_append *how,
                  int64_t max_time, struct sums *sums)
{
    struct bns_slice in = all;
    struct kafka_batch b;

    *sums = (struct sums){.next = log->end, .max_time = -1};
    for (bool first = true; in.len > 0; first = false) {
        uint8_t *at = (uint8_t *)all.ptr + (all.len - in.len); /* the caller's, to be changed */
        int rv;
        if (!how->follow) {
            kafka_batch_place(at, sums->next, how->leader_epoch);
            if (how->append_time)
                kafka_batch_append_time(at, how->now_ms);
            else
                kafka_batch_create_time(at, max_time);
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
    bool near = sums->next - 1 - s->base <= INT32_MAX;
    int64_t waited;
    int rv = kafka_segment_first_time(s, err);

    if (rv != BNS_OK || (s->size == 0 && near))
        return rv;
    waited = s->first_time >= 0 ? sums->max_time - s->first_time : now_ms - s->created_ms;
    if (s->size <= log->cfg.segment_bytes - len && waited <= log->cfg.segment_ms &&
        s->offsets.count < offsets_max && s->times.count + 1 < times_max && near)
        return BNS_OK;
    rv = s->size == 0 ? replace_empty(log, sums->first, now_ms, err)
                      : roll_behind(log, sums->first, now_ms, err);
    if (rv == BNS_OK) {
        log->end = sums->first;
        if (log->start < log->segments[0]->base)
            log->start = log->segments[0]->base;
    }
    return rv;
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
    int64_t max_time = -1;
    bool broken = false;
    int rv;

    if (log->failed)
        return has_failed(log, err);
    rv = check(log, all, how, &max_time, err);
    if (rv != BNS_OK)
        return rv;
    place(log, all, how, max_time, &sums);
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

/* ---- flush in three steps -------------------------------------------------------------------- */

void kafka_log_drop_syncer(struct kafka_log *log)
{
    bns_file_close(log->syncer);
    log->syncer = NULL;
}

int kafka_log_sync_begin(struct kafka_log *log, struct kafka_sync *out, struct bns_err *err)
{
    struct kafka_segment *s = kafka_log_active(log);
    char path[BNS_PATH_MAX];
    int rv;

    *out = (struct kafka_sync){.end = log->end};
    if (log->failed)
        return has_failed(log, err);
    if (!s->dirty || BNS_MUTANT(&log->cfg, MUTANT_FLUSH_NOTHING))
        return BNS_OK;
    if (log->syncer == NULL) {
        rv = kafka_home_path(&log->dir, s->base, ".log", path, err);
        if (rv == BNS_OK)
            rv = bns_vfs_open(log->dir.vfs, path, BNS_OPEN_WRITE, &log->syncer, NULL);
        if (rv != BNS_OK)
            return kafka_log_flush(log, err); /* then with the readers' handle, while they wait */
    }
    out->file = log->syncer;
    return BNS_OK;
}

int kafka_log_sync_run(const struct kafka_sync *s, struct bns_err *err)
{
    return s->file == NULL ? BNS_OK : bns_file_sync(s->file, true, err);
}

int kafka_log_sync_end(struct kafka_log *log, const struct kafka_sync *s, int rv)
{
    if (rv != BNS_OK)
        return kafka_log_fail(log, rv);
    BNS_ASSERT(log->end == s->end);
    if (s->file != NULL)
        kafka_log_active(log)->dirty = false;
    log->flushed = s->end;
    return BNS_OK;
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
    kafka_log_drop_syncer(log);
    while (log->count > 0)
        kafka_log_forget(log, log->count - 1);
    bns_free(log->dir.alloc, log->segments);
    kafka_epochs_free(&log->epochs);
    bns_free(log->dir.alloc, log);
}
