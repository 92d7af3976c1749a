/* segment.c - one segment of a log: append, find, cut, seal.
 *
 * Append fills the indexes as Kafka 4.3 does: before a batch is counted, when more than `interval`
 * bytes were appended since the last entry, the batch gets one: (its last offset, its position) and
 * (greatest timestamp so far, the last offset of the batch that has it).
 *
 * Find takes the greatest entry at or before the offset, and walks heads from there: some 4 KiB and
 * one batch. The entry is checked first: the batch it points at has to end at the entry's offset.
 */
#include "log/segment.h"

#include <inttypes.h>
#include <stdio.h>

#define HEADS_BYTES 4096u /* a window on the stack for walks from head to head */

static const char *const suffixes[] = {".log", ".index", ".timeindex"};

void kafka_segment_init(struct kafka_segment *s, const struct kafka_home *dir, int64_t base,
                        uint32_t interval)
{
    *s = (struct kafka_segment){.dir = dir,
                                .base = base,
                                .next = base,
                                .interval = interval,
                                .max_time = -1,
                                .max_time_offset = base,
                                .first_time = -1};
}

static int open_log(struct kafka_segment *s, int flags, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = kafka_home_path(s->dir, s->base, ".log", path, err);

    return rv == BNS_OK ? bns_vfs_open(s->dir->vfs, path, flags, &s->file, err) : rv;
}

static int open_indexes(struct kafka_segment *s, int flags, struct bns_err *err)
{
    int rv = kafka_index_open(&s->offsets, s->dir, s->base, KAFKA_OFFSET_ENTRY, flags, err);

    if (rv == BNS_OK)
        rv = kafka_index_open(&s->times, s->dir, s->base, KAFKA_TIME_ENTRY, flags, err);
    return rv;
}

/* Undoes a create; what is not there is fine. */
static int unlink_files(struct kafka_segment *s, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = BNS_OK;

    for (size_t i = 0; rv == BNS_OK && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        rv = kafka_home_path(s->dir, s->base, suffixes[i], path, err);
        if (rv == BNS_OK)
            rv = bns_vfs_remove(s->dir->vfs, path, err);
        if (rv == BNS_E_NOTFOUND)
            rv = BNS_OK;
    }
    return rv == BNS_OK ? bns_vfs_sync_dir(s->dir->vfs, s->dir->path, err) : rv;
}

int kafka_segment_create(struct kafka_segment *s, int64_t now_ms, bool *broken, struct bns_err *err)
{
    int rv = open_log(s, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, err);

    *broken = false;
    if (rv == BNS_OK)
        rv = open_indexes(s, KAFKA_INDEX_MAKE | KAFKA_INDEX_EMPTY, err);
    if (rv != BNS_OK) {
        kafka_segment_rest(s);
        *broken = unlink_files(s, NULL) != BNS_OK;
        return rv;
    }
    s->created_ms = now_ms;
    s->max_known = true;
    s->dirty = true;
    return BNS_OK;
}

int kafka_segment_stat(struct kafka_segment *s, struct bns_err *err)
{
    struct bns_file_stat st;
    char path[BNS_PATH_MAX];
    int rv = kafka_home_path(s->dir, s->base, ".log", path, err);

    if (rv == BNS_OK)
        rv = bns_vfs_stat(s->dir->vfs, path, &st, err);
    if (rv == BNS_OK && st.size > KAFKA_SEGMENT_BYTES_MAX)
        rv = bns_err_set(err, BNS_E_TOOBIG, "%s: %" PRIu64 " bytes; a segment has 2 GiB at most",
                         path, st.size);
    if (rv == BNS_OK)
        s->size = (uint32_t)st.size;
    return rv;
}

/* On an error the segment rests. */
static int reindex(struct kafka_segment *s, struct bns_err *err)
{
    struct kafka_scan how = {0};
    int64_t created = s->created_ms;
    int rv;

    kafka_index_close(&s->offsets);
    kafka_index_close(&s->times);
    rv = open_indexes(s, KAFKA_INDEX_MAKE | KAFKA_INDEX_EMPTY, err);
    if (rv == BNS_OK)
        rv = kafka_segment_scan(s, &how, err);
    s->created_ms = created;
    if (rv == BNS_OK)
        rv = kafka_index_add(&s->times, (struct kafka_entry){s->max_time, s->max_time_offset}, err);
    if (rv != BNS_OK) {
        kafka_segment_rest(s); /* all of it: half of it would pass for awake */
        return rv;
    }
    /* Kept, so that it is done once. Where there is no room they stay in memory, and answer. */
    if (kafka_index_store(&s->offsets, NULL) == BNS_OK)
        (void)(kafka_index_store(&s->times, NULL) == BNS_OK);
    return BNS_OK;
}

int kafka_segment_wake(struct kafka_segment *s, struct bns_err *err)
{
    int rv;

    if (s->file != NULL)
        return BNS_OK;
    rv = open_log(s, BNS_OPEN_WRITE, err);
    if (rv == BNS_OK)
        rv = open_indexes(s, 0, err);
    if (s->file != NULL && (rv == BNS_E_CORRUPT || rv == BNS_E_NOTFOUND))
        rv = reindex(s, err);
    else if (rv == BNS_OK && (s->offsets.last.value > s->size ||
                              (s->offsets.count > 0 && s->offsets.last.value == s->size)))
        rv = reindex(s, err);
    if (rv != BNS_OK)
        kafka_segment_rest(s);
    return rv;
}

int kafka_segment_wake_bare(struct kafka_segment *s, struct bns_err *err)
{
    int rv;

    kafka_segment_rest(s);
    rv = open_log(s, BNS_OPEN_WRITE, err);
    if (rv == BNS_OK)
        rv = open_indexes(s, KAFKA_INDEX_MAKE | KAFKA_INDEX_EMPTY, err);
    if (rv != BNS_OK)
        kafka_segment_rest(s);
    return rv;
}

void kafka_segment_rest(struct kafka_segment *s)
{
    bns_file_close(s->file);
    s->file = NULL;
    kafka_index_close(&s->offsets);
    kafka_index_close(&s->times);
}

/* ---- append ---------------------------------------------------------------------------------- */

static void count_batch(struct kafka_segment *s, const struct kafka_batch *b, uint32_t position)
{
    int64_t last = kafka_batch_last_offset(b);
    struct kafka_entry place = {last, position}, time;

    if (position == 0) {
        s->first_time = b->max_timestamp;
        s->first_known = true;
    }
    if (b->max_timestamp > s->max_time) {
        s->max_time = b->max_timestamp;
        s->max_time_offset = last;
    }
    if (s->unindexed > s->interval) {
        time = (struct kafka_entry){s->max_time, s->max_time_offset};
        /* An entry that finds no room is asked for again by the next batch: look-ups walk further
         * meanwhile. The disk that refused it is going to refuse a sync, and that one is told. */
        if (kafka_index_add(&s->offsets, place, NULL) == BNS_OK &&
            kafka_index_add(&s->times, time, NULL) == BNS_OK)
            s->unindexed = 0;
    }
    s->unindexed += (uint32_t)b->bytes.len;
    s->next = last + 1;
}

int kafka_segment_append(struct kafka_segment *s, struct bns_slice batches, bool *broken,
                         struct bns_err *err)
{
    struct kafka_batch b;
    uint32_t position = s->size;
    int rv = kafka_segment_wake(s, err);

    *broken = false;
    if (rv == BNS_OK && !s->max_known)
        rv = kafka_segment_max_time(s, err);
    if (rv != BNS_OK)
        return rv;
    BNS_ASSERT(batches.len <= KAFKA_SEGMENT_BYTES_MAX - s->size);
    s->dirty = true;
    rv = bns_file_write_at(s->file, s->size, &batches, 1, err);
    if (rv != BNS_OK) {
        *broken = bns_file_truncate(s->file, s->size, NULL) != BNS_OK;
        return rv;
    }
    s->size += (uint32_t)batches.len;
    while (batches.len > 0) {
        rv = kafka_batch_next(&batches, &b, NULL);
        BNS_ASSERT(rv == BNS_OK);
        count_batch(s, &b, position);
        position += (uint32_t)b.bytes.len;
    }
    return BNS_OK;
}

/* ---- find ------------------------------------------------------------------------------------ */

static void start_walk(struct kafka_segment *s, uint8_t *window, uint32_t position,
                       struct kafka_reader *r)
{
    *r = (struct kafka_reader){.file = s->file,
                               .window = window,
                               .cap = HEADS_BYTES,
                               .position = position,
                               .end = s->size,
                               .next = s->base};
}

/* A reader at the batch that entry number i of the index points at. BNS_E_CORRUPT: it points
 * elsewhere. */
static int start_at_entry(struct kafka_segment *s, uint32_t i, uint8_t *window,
                          struct kafka_reader *r, struct bns_err *err)
{
    struct kafka_entry e;
    struct kafka_place p;
    int rv = kafka_index_get(&s->offsets, i, &e, err);

    if (rv != BNS_OK)
        return rv;
    if (e.key < s->base || e.value < 0 || e.value >= s->size)
        return bns_err_set(err, BNS_E_CORRUPT, "%s: an index points outside its log", s->dir->path);
    start_walk(s, window, (uint32_t)e.value, r);
    rv = kafka_reader_next(r, false, &p, err);
    if (rv == BNS_OK && kafka_batch_last_offset(&p.batch) != e.key)
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: an index points at another batch", s->dir->path);
    r->position = (uint32_t)e.value;
    r->next = s->base;
    return rv == BNS_E_NOTFOUND ? BNS_E_CORRUPT : rv;
}

/* A reader at a batch that is not behind the one with this offset (by_position: not behind this
 * position), and near it. */
static int start_near(struct kafka_segment *s, int64_t key, bool by_position, uint8_t *window,
                      struct kafka_reader *r, struct bns_err *err)
{
    uint32_t n = 0;
    int rv;

    for (int tries = 0;; tries++) {
        rv = kafka_index_find(&s->offsets, key, by_position, &n, err);
        if (rv != BNS_OK)
            return rv;
        if (n == 0) {
            start_walk(s, window, 0, r);
            return BNS_OK;
        }
        rv = start_at_entry(s, n - 1, window, r, err);
        if (rv != BNS_E_CORRUPT || tries > 0)
            return rv;
        rv = reindex(s, err);
        if (rv != BNS_OK)
            return rv;
    }
}

int kafka_segment_find(struct kafka_segment *s, int64_t offset, struct kafka_place *out,
                       struct bns_err *err)
{
    uint8_t window[HEADS_BYTES];
    struct kafka_reader r;
    int rv = kafka_segment_wake(s, err);

    if (rv == BNS_OK)
        rv = start_near(s, offset, false, window, &r, err);
    while (rv == BNS_OK) {
        rv = kafka_reader_next(&r, false, out, err);
        if (rv == BNS_OK && kafka_batch_last_offset(&out->batch) >= offset)
            return BNS_OK;
    }
    return rv;
}

int kafka_segment_boundary(struct kafka_segment *s, const struct kafka_place *from, uint32_t limit,
                           uint32_t *out, struct bns_err *err)
{
    uint8_t window[HEADS_BYTES];
    struct kafka_reader r;
    struct kafka_place p;
    int rv = kafka_segment_wake(s, err);

    *out = from->position;
    if (limit >= s->size) {
        *out = s->size;
        return rv;
    }
    if (rv == BNS_OK)
        rv = start_near(s, limit, true, window, &r, err);
    if (rv != BNS_OK)
        return rv;
    if (r.position < from->position)
        start_walk(s, window, from->position, &r);
    while (r.position <= limit) {
        *out = r.position;
        rv = kafka_reader_next(&r, false, &p, err);
        if (rv != BNS_OK)
            return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
    }
    return BNS_OK;
}

int kafka_segment_end(struct kafka_segment *s, struct bns_err *err)
{
    uint8_t window[HEADS_BYTES];
    struct kafka_reader r;
    struct kafka_place p;
    int rv = kafka_segment_wake(s, err);

    if (rv == BNS_OK)
        rv = start_near(s, INT64_MAX, false, window, &r, err);
    while (rv == BNS_OK)
        rv = kafka_reader_next(&r, false, &p, err);
    if (rv != BNS_E_NOTFOUND)
        return rv;
    s->next = r.next;
    return BNS_OK;
}

/* ---- times ----------------------------------------------------------------------------------- */

/* The batch that an entry of the time index names. BNS_E_CORRUPT: it names none. */
static int find_named(struct kafka_segment *s, struct kafka_entry e, struct kafka_place *out,
                      struct bns_err *err)
{
    int rv = kafka_segment_find(s, e.value, out, err);

    if (rv == BNS_E_NOTFOUND || (rv == BNS_OK && (out->batch.max_timestamp != e.key ||
                                                  kafka_batch_last_offset(&out->batch) != e.value)))
        rv = bns_err_set(err, BNS_E_CORRUPT, "%s: a time index names another batch", s->dir->path);
    return rv;
}

int kafka_segment_max_time(struct kafka_segment *s, struct bns_err *err)
{
    uint8_t window[HEADS_BYTES];
    struct kafka_reader r;
    struct kafka_place p = {0};
    struct kafka_entry max;
    int rv = kafka_segment_wake(s, err);

    if (rv != BNS_OK || s->max_known)
        return rv;
    max = s->times.last;
    if (s->times.count > 0) {
        rv = find_named(s, max, &p, err);
        if (rv == BNS_E_CORRUPT)
            return reindex(s, err); /* which looks at every batch */
    }
    start_walk(s, window, p.position, &r);
    while (rv == BNS_OK) {
        rv = kafka_reader_next(&r, false, &p, err);
        if (rv == BNS_OK && p.batch.max_timestamp > max.key)
            max = (struct kafka_entry){p.batch.max_timestamp, kafka_batch_last_offset(&p.batch)};
    }
    if (rv != BNS_E_NOTFOUND)
        return rv;
    s->max_time = max.key;
    s->max_time_offset = max.value;
    s->max_known = true;
    return BNS_OK;
}

int kafka_segment_first_time(struct kafka_segment *s, struct bns_err *err)
{
    struct kafka_place p;
    int rv;

    if (s->first_known)
        return BNS_OK;
    rv = kafka_segment_find(s, s->base, &p, err);
    if (rv == BNS_OK) {
        s->first_time = p.batch.max_timestamp;
        s->first_known = true;
    }
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

/* Where to begin: no record before it is at or after time_ms. */
static int before_time(struct kafka_segment *s, int64_t time_ms, int64_t from,
                       struct kafka_place *out, struct bns_err *err)
{
    struct kafka_entry e = {-1, s->base};
    uint32_t n = 0;
    int rv;

    for (int tries = 0;; tries++) {
        rv = kafka_index_find(&s->times, time_ms, false, &n, err);
        if (rv == BNS_OK && n > 0)
            rv = kafka_index_get(&s->times, n - 1, &e, err);
        if (rv != BNS_OK)
            return rv;
        if (n == 0 || e.value < from)
            return kafka_segment_find(s, from, out, err);
        rv = find_named(s, e, out, err);
        if (rv != BNS_E_CORRUPT || tries > 0)
            return rv;
        rv = reindex(s, err);
        if (rv != BNS_OK)
            return rv;
    }
}

int kafka_segment_find_time(struct kafka_segment *s, int64_t time_ms, int64_t from,
                            struct kafka_place *out, struct bns_err *err)
{
    uint8_t window[HEADS_BYTES];
    struct kafka_reader r;
    int rv = kafka_segment_wake(s, err);

    if (rv == BNS_OK)
        rv = before_time(s, time_ms, from, out, err);
    if (rv != BNS_OK)
        return rv;
    start_walk(s, window, out->position, &r);
    do
        rv = kafka_reader_next(&r, false, out, err);
    while (rv == BNS_OK && out->batch.max_timestamp < time_ms);
    return rv;
}

/* ---- cut, seal, remove ----------------------------------------------------------------------- */

static int cut_indexes(struct kafka_segment *s, const struct kafka_place *at, struct bns_err *err)
{
    uint32_t n = 0;
    int rv = kafka_index_find(&s->offsets, (int64_t)at->position - 1, true, &n, err);

    if (rv == BNS_OK)
        rv = kafka_index_cut(&s->offsets, n, err);
    if (rv == BNS_OK)
        rv = kafka_index_find(&s->times, at->batch.base_offset - 1, true, &n, err);
    if (rv == BNS_OK)
        rv = kafka_index_cut(&s->times, n, err);
    return rv == BNS_E_CORRUPT ? reindex(s, err) : rv;
}

int kafka_segment_cut(struct kafka_segment *s, int64_t offset, struct bns_err *err)
{
    struct kafka_place at;
    int rv = kafka_segment_find(s, offset, &at, err);

    if (rv != BNS_OK)
        return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
    s->dirty = true;
    rv = bns_file_truncate(s->file, at.position, err);
    if (rv != BNS_OK)
        return rv;
    s->size = at.position;
    s->unindexed = 0;
    s->max_known = false;
    s->first_known = s->first_known && s->size > 0;
    if (!s->first_known)
        s->first_time = -1;
    rv = cut_indexes(s, &at, err);
    if (rv == BNS_OK)
        rv = kafka_segment_sync(s, err);
    return rv == BNS_OK ? kafka_segment_end(s, err) : rv;
}

int kafka_segment_sync(struct kafka_segment *s, struct bns_err *err)
{
    bool rests;
    int rv;

    if (!s->dirty)
        return BNS_OK;
    rests = s->file == NULL; /* a look-up closed it, because its indexes could not be mended */
    rv = rests ? open_log(s, BNS_OPEN_WRITE, err) : BNS_OK;
    if (rv == BNS_OK)
        rv = bns_file_sync(s->file, true, err);
    if (rv == BNS_OK)
        s->dirty = false;
    if (rests)
        kafka_segment_rest(s);
    return rv;
}

int kafka_segment_seal(struct kafka_segment *s, struct bns_err *err)
{
    int rv = kafka_segment_max_time(s, err);

    if (rv == BNS_OK)
        rv = kafka_index_add(&s->times, (struct kafka_entry){s->max_time, s->max_time_offset}, err);
    if (rv == BNS_OK)
        rv = kafka_segment_sync(s, err);
    if (rv == BNS_OK)
        rv = kafka_index_sync(&s->offsets, err);
    if (rv == BNS_OK)
        rv = kafka_index_sync(&s->times, err);
    return rv;
}

int kafka_segment_remove(struct kafka_segment *s, struct bns_err *err)
{
    char from[BNS_PATH_MAX], to[BNS_PATH_MAX], gone[32];
    int rv = BNS_OK;

    kafka_segment_rest(s);
    for (size_t i = 0; rv == BNS_OK && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        (void)snprintf(gone, sizeof gone, "%s.deleted", suffixes[i]);
        rv = kafka_home_path(s->dir, s->base, suffixes[i], from, err);
        if (rv == BNS_OK)
            rv = kafka_home_path(s->dir, s->base, gone, to, err);
        if (rv == BNS_OK)
            rv = bns_vfs_rename(s->dir->vfs, from, to, err);
        if (rv == BNS_E_NOTFOUND && i > 0)
            rv = BNS_OK;
    }
    return rv;
}
