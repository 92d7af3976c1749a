/* log_open.c - from a directory to a log: what is there, what a crash left of it.
 *
 * 1. List. `*.deleted` and `*.cleaned` are left-overs and are unlinked; an index without a log too.
 * 2. partition.metadata: made, or compared with the id that is expected.
 * 3. Segments, in order of their bases. After a clean stop none is read, but the last one's tail.
 *    Otherwise each is scanned from the one on that has the recovery point, and at least the last
 *    one that is not empty. Where one is cut, those behind it are dropped. An empty one behind the
 *    last batch is dropped when its base is an offset that was given away before: the file system
 *    refused it, and refused to unlink it.
 * 4. Epochs: those of the file, then those that the scan found; cut to [start, end). A file that is
 *    damaged is made anew from the heads of all batches.
 * 5. After a kill the bytes and the names that were found may be in the page cache alone. So all
 *    that was scanned is synced, and the directory, before the recovery point is said to be `end`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log/log_int.h"

#define NAME_DIGITS 20u
#define STEM_MAX 64u
#define MUTANT_BELIEVE_THE_CACHE 3
#define MUTANT_BELIEVE_THE_NAMES 4

/* ---- names ----------------------------------------------------------------------------------- */

struct found { /* what the directory has */
    const struct bns_alloc *alloc;
    int64_t *bases, *indexes; /* of .log, of .index and .timeindex */
    size_t bases_count, bases_cap, indexes_count, indexes_cap;
    char (*junk)[STEM_MAX];
    size_t junk_count, junk_cap;
    bool swap;
};

static void *grow(const struct bns_alloc *alloc, void *at, size_t count, size_t *cap, size_t size)
{
    size_t more = *cap == 0 ? 8 : *cap * 2;
    void *p;

    if (count < *cap)
        return at;
    p = bns_resize(alloc, at, more * size);
    if (p != NULL)
        *cap = more;
    return p;
}

static int add_base(const struct bns_alloc *alloc, int64_t **at, size_t *count, size_t *cap,
                    int64_t base)
{
    int64_t *p = grow(alloc, *at, *count, cap, sizeof *p);

    if (p == NULL)
        return BNS_E_NOMEM;
    *at = p;
    p[(*count)++] = base;
    return BNS_OK;
}

static bool base_of(const char *name, int64_t *out)
{
    int64_t v = 0;

    for (size_t i = 0; i < NAME_DIGITS; i++)
        if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, name[i] - '0', &v))
            return false;
    *out = v;
    return true;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n >= m && strcmp(name + n - m, end) == 0;
}

static int take_name(void *arg, const char *name)
{
    struct found *f = arg;
    int64_t base = 0;

    if (ends_with(name, ".swap"))
        f->swap = true;
    if (ends_with(name, ".deleted") || ends_with(name, ".cleaned")) {
        void *p = grow(f->alloc, f->junk, f->junk_count, &f->junk_cap, sizeof *f->junk);
        if (p == NULL)
            return BNS_E_NOMEM;
        f->junk = p;
        if (strlen(name) < STEM_MAX)
            (void)snprintf(f->junk[f->junk_count++], STEM_MAX, "%s", name); /* it fits */
        return BNS_OK;
    }
    if (strlen(name) <= NAME_DIGITS || !base_of(name, &base))
        return BNS_OK;
    if (strcmp(name + NAME_DIGITS, ".log") == 0)
        return add_base(f->alloc, &f->bases, &f->bases_count, &f->bases_cap, base);
    if (strcmp(name + NAME_DIGITS, ".index") == 0 || strcmp(name + NAME_DIGITS, ".timeindex") == 0)
        return add_base(f->alloc, &f->indexes, &f->indexes_count, &f->indexes_cap, base);
    return BNS_OK;
}

static void found_free(struct found *f)
{
    bns_free(f->alloc, f->bases);
    bns_free(f->alloc, f->indexes);
    bns_free(f->alloc, f->junk);
}

static int remove_name(struct kafka_log *log, const char *path, struct bns_err *err)
{
    int rv = bns_vfs_remove(log->dir.vfs, path, err);

    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

static int by_value(const void *a, const void *b)
{
    int64_t x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Left-overs, and indexes without a log. */
static int sweep(struct kafka_log *log, struct found *f, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = BNS_OK;

    for (size_t i = 0; rv == BNS_OK && i < f->junk_count; i++) {
        int n = snprintf(path, sizeof path, "%s/%s", log->dir.path, f->junk[i]);
        rv = n < 0 || n >= BNS_PATH_MAX ? BNS_E_INVALID : remove_name(log, path, err);
    }
    for (size_t i = 0; rv == BNS_OK && i < f->indexes_count; i++) {
        if (f->bases_count > 0 &&
            bsearch(&f->indexes[i], f->bases, f->bases_count, sizeof *f->bases, by_value) != NULL)
            continue;
        rv = kafka_home_path(&log->dir, f->indexes[i], ".index", path, err);
        if (rv == BNS_OK)
            rv = remove_name(log, path, err);
        if (rv == BNS_OK)
            rv = kafka_home_path(&log->dir, f->indexes[i], ".timeindex", path, err);
        if (rv == BNS_OK)
            rv = remove_name(log, path, err);
    }
    return rv;
}

static int list(struct kafka_log *log, int64_t now_ms, struct bns_err *err)
{
    struct found f = {.alloc = log->dir.alloc};
    struct kafka_segment *s = NULL;
    int rv = bns_vfs_list(log->dir.vfs, log->dir.path, take_name, &f, err);

    if (rv == BNS_OK && f.swap)
        rv = bns_err_set(err, BNS_E_UNSUPPORTED,
                         "%s: a compaction was interrupted (*.swap); start Kafka on it once",
                         log->dir.path);
    if (rv == BNS_OK && f.bases_count > 1)
        qsort(f.bases, f.bases_count, sizeof *f.bases, by_value);
    if (rv == BNS_OK)
        rv = sweep(log, &f, err);
    for (size_t i = 0; rv == BNS_OK && i < f.bases_count; i++) {
        rv = kafka_log_push(log, f.bases[i], &s, err);
        if (rv == BNS_OK)
            rv = kafka_segment_stat(s, err);
        if (rv == BNS_OK)
            s->created_ms = now_ms; /* nobody knows; without timestamps it rolls by this */
    }
    found_free(&f);
    return rv;
}

/* ---- partition.metadata ---------------------------------------------------------------------- */

static int topic_id(struct kafka_log *log, const char *want, struct bns_err *err)
{
    struct bns_slice id = {0};
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, log->dir.alloc, 4096);
    rv = kafka_file_load(log->dir.vfs, log->dir.path, KAFKA_PARTITION_FILE, &b, NULL);
    if (rv == BNS_OK)
        rv = kafka_partition_parse(bns_buf_slice(&b), &id, err);
    if (rv == BNS_OK) {
        memcpy(log->topic_id, id.ptr, id.len);
        if (want != NULL && strcmp(want, log->topic_id) != 0)
            rv = bns_err_set(err, BNS_E_CONFLICT, "%s: it is of topic id %s, not %s", log->dir.path,
                             log->topic_id, want);
    } else if (rv == BNS_E_NOTFOUND) {
        rv = BNS_OK;
        if (want != NULL) {
            (void)snprintf(log->topic_id, sizeof log->topic_id, "%s", want); /* 22 letters */
            rv = kafka_partition_text(&b, log->topic_id);
            if (rv == BNS_OK)
                rv = kafka_file_replace(log->dir.vfs, log->dir.path, KAFKA_PARTITION_FILE,
                                        bns_buf_slice(&b), err);
        }
    }
    bns_buf_free(&b);
    return rv;
}

/* ---- segments -------------------------------------------------------------------------------- */

static int use_bare(struct kafka_log *log, struct kafka_segment *s, struct bns_err *err)
{
    if (log->awake != NULL)
        kafka_segment_rest(log->awake);
    log->awake = s;
    return kafka_segment_wake_bare(s, err);
}

/* The one that was written last: the others were synced before it was made. */
static bool is_last_written(const struct kafka_log *log, size_t i)
{
    for (i++; i < log->count; i++)
        if (log->segments[i]->size > 0)
            return false;
    return true;
}

static int scan(struct kafka_log *log, size_t i, struct kafka_scan *how,
                struct kafka_log_report *report, struct bns_err *err)
{
    struct kafka_segment *s = log->segments[i];
    uint32_t size = s->size;
    int rv = use_bare(log, s, err);

    if (rv == BNS_OK) {
        s->dirty = !BNS_MUTANT(&log->cfg, MUTANT_BELIEVE_THE_CACHE);
        how->cut_bytes = 0;
        how->again = s->dirty && is_last_written(log, i);
        how->until = i + 1 < log->count ? log->segments[i + 1]->base : -1;
        rv = kafka_segment_scan(s, how, err);
    }
    if (rv != BNS_OK)
        return rv;
    report->segments_scanned++;
    report->bytes_scanned += size;
    report->bytes_cut += how->cut_bytes;
    if (how->cut_bytes > 0) {
        report->cut_segment = s->base;
        report->cut_at = s->size;
        memcpy(report->why, how->why, sizeof report->why);
    }
    return i + 1 < log->count ? kafka_segment_seal(s, err) : BNS_OK;
}

/* The first segment that a crash may have damaged. */
static size_t first_doubtful(const struct kafka_log *log, int64_t recovery_point)
{
    size_t which = kafka_log_which(log, recovery_point), last = log->count - 1;

    while (last > 0 && log->segments[last]->size == 0)
        last--;
    return which < last ? which : last;
}

static int drop_behind(struct kafka_log *log, size_t from, struct kafka_log_report *report,
                       struct bns_err *err)
{
    for (size_t i = from; i < log->count; i++) {
        report->segments_dropped++;
        report->bytes_cut += log->segments[i]->size;
    }
    return kafka_log_drop(log, from, err);
}

static int recover(struct kafka_log *log, const struct kafka_log_start *start,
                   struct kafka_scan *how, struct kafka_log_report *report, struct bns_err *err)
{
    int rv = BNS_OK;

    for (size_t i = first_doubtful(log, start->recovery_point); rv == BNS_OK && i < log->count;
         i++) {
        struct kafka_segment *s = log->segments[i];
        rv = scan(log, i, how, report, err);
        if (rv != BNS_OK || i + 1 == log->count)
            return rv;
        if (how->cut_bytes > 0 || s->next > log->segments[i + 1]->base)
            rv = drop_behind(log, i + 1, report, err);
        else
            how->gaps += s->next < log->segments[i + 1]->base;
    }
    return rv;
}

/* After a clean stop: empty segments whose base is not behind the last batch. */
static int drop_stale(struct kafka_log *log, struct kafka_log_report *report, struct bns_err *err)
{
    size_t last = log->count - 1;
    int rv;

    while (last > 0 && log->segments[last]->size == 0)
        last--;
    if (last + 1 == log->count)
        return BNS_OK;
    rv = kafka_log_use(log, log->segments[last], err);
    if (rv == BNS_OK)
        rv = kafka_segment_end(log->segments[last], err);
    if (rv != BNS_OK)
        return rv == BNS_E_CORRUPT ? BNS_OK : rv; /* said to who reads it */
    for (size_t i = last + 1; i < log->count; i++)
        if (log->segments[i]->base < log->segments[last]->next)
            return drop_behind(log, i, report, err);
    return BNS_OK;
}

/* The end, after a clean stop: the last batch's. A tail that is none is cut all the same. */
static int find_end(struct kafka_log *log, struct kafka_scan *how, struct kafka_log_report *report,
                    struct bns_err *err)
{
    struct kafka_segment *s = kafka_log_active(log);
    int rv = kafka_log_use(log, s, err);

    if (rv == BNS_OK)
        rv = kafka_segment_end(s, err);
    if (rv != BNS_E_CORRUPT)
        return rv;
    return scan(log, log->count - 1, how, report, err);
}

/* ---- epochs ---------------------------------------------------------------------------------- */

static int load_epochs(struct kafka_log *log, bool *damaged, struct bns_err *err)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, log->dir.alloc, KAFKA_CHECKPOINT_BYTES_MAX + 1);
    rv = kafka_file_load(log->dir.vfs, log->dir.path, KAFKA_EPOCHS_FILE, &b, NULL);
    if (rv == BNS_OK)
        rv = kafka_epochs_parse(&log->epochs, bns_buf_slice(&b), err);
    *damaged = rv == BNS_E_CORRUPT || rv == BNS_E_NOTFOUND;
    if (*damaged)
        kafka_epochs_free(&log->epochs);
    bns_buf_free(&b);
    return *damaged ? BNS_OK : rv;
}

/* From the heads of all batches. */
static int rebuild_epochs(struct kafka_log *log, struct bns_err *err)
{
    struct kafka_scan how = {.epochs = &log->epochs};
    int rv = BNS_OK;

    kafka_epochs_free(&log->epochs);
    for (size_t i = 0; rv == BNS_OK && i < log->count; i++) {
        rv = use_bare(log, log->segments[i], err);
        if (rv == BNS_OK)
            rv = kafka_segment_scan(log->segments[i], &how, err);
        if (rv == BNS_OK && i + 1 < log->count)
            rv = kafka_segment_seal(log->segments[i], err);
    }
    return rv;
}

static int mend_epochs(struct kafka_log *log, bool damaged, bool changed, struct bns_err *err)
{
    int rv = damaged ? rebuild_epochs(log, err) : BNS_OK;

    if (rv != BNS_OK)
        return rv;
    changed = kafka_epochs_cut_end(&log->epochs, log->end) || changed || damaged;
    changed = kafka_epochs_cut_begin(&log->epochs, log->start) || changed;
    return changed ? kafka_log_save_epochs(log, err) : BNS_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int load(struct kafka_log *log, const struct kafka_log_start *start,
                struct kafka_log_report *report, struct bns_err *err)
{
    struct kafka_scan how = {.crc = true,
                             .cut = true,
                             .dense = !log->cfg.compacted,
                             .sure = start->recovery_point,
                             .epochs = &log->epochs};
    bool damaged = false;
    int rv = load_epochs(log, &damaged, err);

    if (rv == BNS_OK && log->count > 0)
        rv = start->clean ? drop_stale(log, report, err) : recover(log, start, &how, report, err);
    if (rv == BNS_OK && log->count == 0)
        rv = kafka_log_add_segment(log, start->log_start, start->now_ms, err);
    if (rv == BNS_OK)
        rv = find_end(log, &how, report, err);
    if (rv != BNS_OK)
        return rv;
    log->end = kafka_log_active(log)->next;
    log->start =
        log->segments[0]->base > start->log_start ? log->segments[0]->base : start->log_start;
    if (log->start > log->end)
        return kafka_log_restart(log, log->start, start->now_ms, err);
    report->gaps = how.gaps;
    rv = mend_epochs(log, damaged, how.epochs_changed, err);
    if (rv == BNS_OK && !start->clean && !BNS_MUTANT(&log->cfg, MUTANT_BELIEVE_THE_NAMES))
        rv = bns_vfs_sync_dir(log->dir.vfs, log->dir.path, err);
    if (rv == BNS_OK)
        rv = kafka_segment_sync(kafka_log_active(log), err);
    log->flushed = log->end;
    return rv;
}

static int make_dir(struct kafka_log *log, struct bns_err *err)
{
    char parent[BNS_PATH_MAX];
    const char *slash = strrchr(log->dir.path, '/');
    int rv = bns_vfs_mkdir(log->dir.vfs, log->dir.path, err);

    if (rv != BNS_OK)
        return rv;
    (void)snprintf(parent, sizeof parent, "%.*s", /* it is shorter than the path */
                   slash == NULL ? 1 : (int)(slash - log->dir.path),
                   slash == NULL ? "." : log->dir.path);
    return bns_vfs_sync_dir(log->dir.vfs, parent[0] == '\0' ? "/" : parent, err);
}

int kafka_log_open(const struct kafka_log_start *start, struct kafka_log_report *report,
                   struct kafka_log **out, struct bns_err *err)
{
    const struct bns_alloc *alloc = start->alloc;
    const char *dir = start->dir;
    struct kafka_log_report unused;
    struct kafka_log *log;
    int rv;

    BNS_ASSERT(start->cfg->segment_bytes <= KAFKA_SEGMENT_BYTES_MAX && start->log_start >= 0);
    if (strlen(dir) + 40 > BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of a log too long", dir);
    log = bns_alloc_zero(alloc, sizeof *log);
    if (log == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a log", dir);
    report = report == NULL ? &unused : report;
    *report = (struct kafka_log_report){.cut_segment = -1};
    log->dir.vfs = start->vfs;
    log->dir.alloc = alloc;
    (void)snprintf(log->dir.path, sizeof log->dir.path, "%s", dir); /* length checked above */
    log->cfg = *start->cfg;
    kafka_epochs_init(&log->epochs, alloc);
    rv = make_dir(log, err);
    if (rv == BNS_OK)
        rv = topic_id(log, start->topic_id, err);
    if (rv == BNS_OK)
        rv = list(log, start->now_ms, err);
    if (rv == BNS_OK)
        rv = load(log, start, report, err);
    if (rv != BNS_OK)
        goto fail;
    *out = log;
    return BNS_OK;

fail:
    kafka_log_close(log);
    return rv;
}
