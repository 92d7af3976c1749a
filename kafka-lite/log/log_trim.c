/* log_trim.c - a log becomes shorter: at its end (truncation), at its beginning (retention).
 *
 * Segments go one by one, each durably, the last first at the end and the first first at the
 * beginning: a crash in between leaves a log without holes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log/log_int.h"

#define PURGE_BATCH 64u /* names that are looked at in one go */

static int has_failed(const struct kafka_log *log, struct bns_err *err)
{
    return bns_err_set(err, BNS_E_IO, "%s: the log has failed before", log->dir.path);
}

/* The first segment stays in memory whatever fails, so that the log always has one. */
static int empty_first(struct kafka_log *log, int64_t offset, int64_t now_ms, struct bns_err *err)
{
    struct kafka_segment *s = log->segments[0];
    bool broken; /* an error fails the log in any case */
    int rv;

    kafka_log_drop_syncer(log);
    rv = kafka_segment_remove(s, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err);
    if (rv != BNS_OK)
        return rv;
    kafka_segment_init(s, &log->dir, offset, log->cfg.index_interval);
    log->start = log->end = log->flushed = offset;
    kafka_epochs_free(&log->epochs);
    rv = kafka_segment_create(s, now_ms, &broken, err);
    return rv == BNS_OK ? bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err) : rv;
}

int kafka_log_restart(struct kafka_log *log, int64_t offset, int64_t now_ms, struct bns_err *err)
{
    int rv;

    if (log->failed)
        return has_failed(log, err);
    rv = kafka_log_drop(log, 1, err);
    if (rv == BNS_OK)
        rv = empty_first(log, offset, now_ms, err);
    if (rv == BNS_OK)
        rv = kafka_log_save_epochs(log, err);
    return kafka_log_fail(log, rv);
}

int kafka_log_truncate(struct kafka_log *log, int64_t offset, struct bns_err *err)
{
    struct kafka_segment *last;
    int rv;

    if (log->failed)
        return has_failed(log, err);
    if (offset >= log->end)
        return BNS_OK;
    if (offset < log->segments[0]->base)
        return bns_err_set(err, BNS_E_NOTFOUND,
                           "%s: offset %" PRId64 " is before the first segment", log->dir.path,
                           offset);
    rv = kafka_log_drop(log, kafka_log_which(log, offset) + 1, err);
    if (rv == BNS_OK) {
        last = kafka_log_active(log);
        rv = kafka_log_use(log, last, err);
        if (rv == BNS_OK)
            rv = kafka_segment_cut(last, offset, err);
        if (rv == BNS_OK)
            rv = kafka_segment_end(last, err);
        if (rv == BNS_OK)
            rv = kafka_segment_sync(last, err);
    }
    if (rv == BNS_OK) {
        log->end = kafka_log_active(log)->next;
        log->flushed = log->end;
        if (log->start > log->end)
            log->start = log->end;
        if (kafka_epochs_cut_end(&log->epochs, log->end))
            rv = kafka_log_save_epochs(log, err);
    }
    return kafka_log_fail(log, rv);
}

int kafka_log_advance(struct kafka_log *log, int64_t offset, struct bns_err *err)
{
    if (offset > log->end)
        return bns_err_set(err, BNS_E_NOTFOUND,
                           "%s: offset %" PRId64 " is behind the end, %" PRId64, log->dir.path,
                           offset, log->end);
    if (offset > log->start) {
        log->start = offset;
        (void)kafka_epochs_cut_begin(&log->epochs, offset); /* durable as `start` is */
    }
    return BNS_OK;
}

/* ---- retention ------------------------------------------------------------------------------- */

/* Is the oldest segment to go? */
static int is_over(struct kafka_log *log, const struct kafka_retention *r, bool *yes,
                   struct bns_err *err)
{
    struct kafka_segment *s = log->segments[0];
    int64_t behind = log->count > 1 ? log->segments[1]->base : log->end;
    uint64_t bytes = kafka_log_bytes(log);
    int rv;

    *yes = false;
    if (behind > r->high_watermark || (s->size == 0 && log->count == 1))
        return BNS_OK;
    *yes = behind <= log->start || s->size == 0 ||
           (r->bytes >= 0 && bytes > (uint64_t)r->bytes && bytes - (uint64_t)r->bytes >= s->size);
    if (*yes || r->time_ms < 0)
        return BNS_OK;
    rv = kafka_log_use(log, s, err);
    if (rv == BNS_OK)
        rv = kafka_segment_max_time(s, err);
    if (rv == BNS_OK)
        *yes = s->max_time >= 0 && r->now_ms - s->max_time > r->time_ms;
    return rv;
}

static int remove_first(struct kafka_log *log, int64_t now_ms, struct bns_err *err)
{
    int rv = BNS_OK;

    if (log->count == 1)
        rv = kafka_log_roll(log, now_ms, err);
    if (rv != BNS_OK)
        return rv;
    rv = kafka_segment_remove(log->segments[0], err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err);
    if (rv != BNS_OK)
        return kafka_log_fail(log, rv);
    kafka_log_forget(log, 0);
    if (log->start < log->segments[0]->base)
        log->start = log->segments[0]->base;
    if (kafka_epochs_cut_begin(&log->epochs, log->start))
        rv = kafka_log_save_epochs(log, err);
    return rv;
}

int kafka_log_retain(struct kafka_log *log, const struct kafka_retention *r, uint32_t *removed,
                     struct bns_err *err)
{
    bool yes = true;
    int rv = BNS_OK;

    *removed = 0;
    if (log->failed)
        return has_failed(log, err);
    while (rv == BNS_OK && yes) {
        rv = is_over(log, r, &yes, err);
        if (rv == BNS_OK && yes) {
            rv = remove_first(log, r->now_ms, err);
            *removed += rv == BNS_OK;
        }
    }
    return rv;
}

struct names {
    char at[PURGE_BATCH][64];
    size_t count;
};

static int take_deleted(void *arg, const char *name)
{
    struct names *n = arg;
    size_t len = strlen(name);

    if (len < 8 || len >= sizeof n->at[0] || strcmp(name + len - 8, ".deleted") != 0)
        return 0;
    memcpy(n->at[n->count], name, len + 1);
    n->count++;
    return n->count == PURGE_BATCH ? 1 : 0;
}

int kafka_log_purge(struct kafka_log *log, struct bns_err *err)
{
    struct names *n = bns_alloc(log->dir.alloc, sizeof *n);
    char path[BNS_PATH_MAX];
    int rv;

    if (n == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for names", log->dir.path);
    do {
        n->count = 0;
        rv = bns_vfs_list(log->dir.vfs, log->dir.path, take_deleted, n, err);
        for (size_t i = 0; rv >= 0 && i < n->count; i++) {
            int len = snprintf(path, sizeof path, "%s/%s", log->dir.path, n->at[i]);
            rv = len < 0 || len >= BNS_PATH_MAX ? BNS_E_INVALID
                                                : bns_vfs_remove(log->dir.vfs, path, err);
        }
    } while (rv >= 0 && n->count == PURGE_BATCH);
    bns_free(log->dir.alloc, n);
    return rv < 0 ? rv : BNS_OK;
}
