/* recover.c - what is left of a segment after a crash, and its indexes made anew.
 *
 * A crash leaves the log with any mixture of old and new sectors behind its last sync, and of any
 * length. The scan takes batches from the beginning of the file as long as each is whole: its head
 * is one, its length lies inside the file, its offsets are behind those of the one before, and its
 * CRC is right. The first that is not ends the log; it and what follows is cut off, whatever it
 * looks like: an answer was given only for what a sync had covered, and a sync covers the file from
 * its beginning.
 *
 * Base offset and leader epoch are outside the CRC, by Kafka's format: a wrong epoch is never found
 * out, a wrong base offset where offsets are dense. They are not in a topic that was compacted
 * once. So a batch behind a gap is taken when the good batch, or the segment, that follows begins
 * at its end or behind it, which a base offset that became greater hides from nobody. When nothing
 * follows it is taken before the recovery point alone: what lies behind that may be cut, and comes
 * again from the leader, where gaps come from.
 *
 * A kill may follow a sync that failed. Linux then has the bytes in its cache, and takes them for
 * written: a read shows them, another sync says that all is well, and a power cut loses them. So
 * what is behind the recovery point is written once more, in its place, before it is synced.
 *
 * Memory: a window of 256 KiB. Time: one pass; a batch longer than the window is summed in pieces.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "log/segment.h"

#define WINDOW_BYTES (256u << 10)
#define CRC_FROM 21u /* the first byte that the sum covers */

/* Makes [at, at + len) part of the window; len <= cap. */
static int show(struct kafka_reader *r, uint32_t at, uint32_t len, const uint8_t **out,
                struct bns_err *err)
{
    uint32_t want = r->end - at < r->cap ? r->end - at : r->cap;
    size_t got = 0;
    int rv;

    BNS_ASSERT(len <= r->cap && at <= r->end && len <= r->end - at);
    if (at < r->window_at || at - r->window_at > r->window_len ||
        len > r->window_len - (at - r->window_at)) {
        r->window_len = 0;
        rv = bns_file_read_at(r->file, at, r->window, want, &got, err);
        if (rv != BNS_OK)
            return rv;
        if (got < len)
            return bns_err_set(err, BNS_E_CORRUPT, "the log became shorter than %" PRIu32 " bytes",
                               r->end);
        r->window_at = at;
        r->window_len = (uint32_t)got;
    }
    *out = r->window + (at - r->window_at);
    return BNS_OK;
}

static int sum(struct kafka_reader *r, const struct kafka_place *p, struct bns_err *err)
{
    uint32_t at = p->position + CRC_FROM, end = p->position + p->len, crc = 0;
    const uint8_t *bytes = NULL;

    while (at < end) {
        uint32_t n = end - at < r->cap ? end - at : r->cap;
        int rv = show(r, at, n, &bytes, err);
        if (rv != BNS_OK)
            return rv;
        crc = bns_crc32c(crc, bytes, n);
        at += n;
    }
    if (crc != p->batch.crc)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "the sum of a batch is %08" PRIx32 ", not %08" PRIx32, crc,
                           p->batch.crc);
    return BNS_OK;
}

int kafka_reader_next(struct kafka_reader *r, bool crc, struct kafka_place *out,
                      struct bns_err *err)
{
    uint32_t left = r->end - r->position, whole;
    const uint8_t *head = NULL;
    size_t len = 0;
    int rv;

    BNS_ASSERT(r->cap >= KAFKA_BATCH_HEAD);
    out->position = r->position;
    if (left == 0)
        return BNS_E_NOTFOUND;
    if (left < KAFKA_BATCH_HEAD)
        return bns_err_set(err, BNS_E_CORRUPT, "%" PRIu32 " bytes are no batch", left);
    /* With the sum asked for the whole batch is shown at once, when it is short enough. */
    rv = show(r, r->position, KAFKA_BATCH_HEAD, &head, err);
    if (rv == BNS_OK)
        rv = kafka_batch_head(head, &out->batch, &len, err);
    if (rv != BNS_OK)
        return rv;
    if (len > left)
        return bns_err_set(err, BNS_E_CORRUPT,
                           "a batch of %zu bytes, of which %" PRIu32 " are there", len, left);
    whole = (uint32_t)len;
    if (out->batch.base_offset < r->next)
        return bns_err_set(err, BNS_E_CORRUPT, "offset %" PRId64 " behind %" PRId64,
                           out->batch.base_offset, r->next - 1);
    out->len = whole;
    if (crc) {
        rv = sum(r, out, err);
        if (rv != BNS_OK)
            return rv;
    }
    r->position += whole;
    r->next = kafka_batch_last_offset(&out->batch) + 1;
    return BNS_OK;
}

static int index_batch(struct kafka_segment *s, const struct kafka_place *p, struct bns_err *err)
{
    int64_t last = kafka_batch_last_offset(&p->batch);
    int rv = BNS_OK;

    if (!s->first_known) {
        s->first_time = p->batch.max_timestamp;
        s->first_known = true;
    }
    if (p->batch.max_timestamp > s->max_time) {
        s->max_time = p->batch.max_timestamp;
        s->max_time_offset = last;
    }
    if (s->unindexed > s->interval) {
        rv = kafka_index_add(&s->offsets, (struct kafka_entry){last, p->position}, err);
        if (rv == BNS_OK)
            rv = kafka_index_add(&s->times, (struct kafka_entry){s->max_time, s->max_time_offset},
                                 err);
        s->unindexed = 0;
    }
    s->unindexed += p->len;
    s->next = last + 1;
    return rv;
}

/* Does what follows the reader's last batch, which is behind a gap, go on from it? */
static int goes_on(struct kafka_reader *r, const struct kafka_scan *how, bool *yes)
{
    struct kafka_reader ahead = *r;
    struct kafka_place p;
    int rv;

    ahead.next = INT64_MIN;
    rv = kafka_reader_next(&ahead, how->crc, &p, NULL);
    r->window_at = ahead.window_at; /* the window is one */
    r->window_len = ahead.window_len;
    if (rv == BNS_OK)
        *yes = p.batch.base_offset >= r->next;
    else
        *yes = r->next <= how->sure || (rv == BNS_E_NOTFOUND && r->next <= how->until);
    return rv == BNS_E_NOTFOUND || rv == BNS_E_CORRUPT ? BNS_OK : rv;
}

static int batch_fits(const struct kafka_segment *s, struct kafka_scan *how, struct kafka_reader *r,
                      const struct kafka_place *p, struct bns_err *err)
{
    bool yes = true;
    int rv = BNS_OK;

    if (how->dense && p->batch.base_offset != s->next) {
        rv = goes_on(r, how, &yes);
        how->gaps += yes;
    }
    if (rv != BNS_OK)
        return rv;
    if (!yes)
        return bns_err_set(err, BNS_E_CORRUPT, "offset %" PRId64 " where %" PRId64 " has to be",
                           p->batch.base_offset, s->next);
    if (kafka_batch_last_offset(&p->batch) - s->base > INT32_MAX)
        return bns_err_set(err, BNS_E_CORRUPT, "offset %" PRId64 " is not of this segment",
                           kafka_batch_last_offset(&p->batch));
    return BNS_OK;
}

static int reset(struct kafka_segment *s, struct bns_err *err)
{
    int rv = kafka_index_cut(&s->offsets, 0, err);

    if (rv == BNS_OK)
        rv = kafka_index_cut(&s->times, 0, err);
    s->next = s->base;
    s->unindexed = 0;
    s->max_time = -1;
    s->max_time_offset = s->base;
    s->max_known = s->first_known = false;
    s->first_time = -1;
    return rv;
}

static int write_again(struct kafka_segment *s, struct kafka_reader *r, uint32_t at,
                       struct bns_err *err)
{
    struct bns_slice v;
    int rv = BNS_OK;

    r->end = s->size;
    s->dirty = true;
    for (; rv == BNS_OK && at < s->size; at += (uint32_t)v.len) {
        v.len = s->size - at < r->cap ? s->size - at : r->cap;
        rv = show(r, at, (uint32_t)v.len, &v.ptr, err);
        if (rv == BNS_OK)
            rv = bns_file_write_at(s->file, at, &v, 1, err);
    }
    return rv;
}

/* Everything up to the first batch that is wrong: BNS_E_CORRUPT with *end where it begins. *unsure:
 * where the first batch behind the recovery point begins. */
static int walk(struct kafka_segment *s, struct kafka_scan *how, struct kafka_reader *r,
                uint32_t *end, uint32_t *unsure, struct bns_err *err)
{
    struct kafka_place p;
    bool changed = false;
    int rv;

    for (;;) {
        *end = r->position;
        rv = kafka_reader_next(r, how->crc, &p, err);
        if (rv == BNS_OK)
            rv = batch_fits(s, how, r, &p, err);
        if (rv != BNS_OK)
            return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
        if (r->next <= how->sure)
            *unsure = r->position;
        rv = index_batch(s, &p, err);
        if (rv == BNS_OK && how->epochs != NULL &&
            p.batch.leader_epoch > kafka_epochs_latest(how->epochs))
            rv = kafka_epochs_assign(how->epochs, p.batch.leader_epoch, p.batch.base_offset,
                                     &changed);
        if (rv != BNS_OK)
            return rv;
        how->epochs_changed = how->epochs_changed || changed;
    }
}

int kafka_segment_scan(struct kafka_segment *s, struct kafka_scan *how, struct bns_err *err)
{
    struct kafka_reader r = {.cap = WINDOW_BYTES, .end = s->size, .next = s->base};
    struct bns_err why = {0};
    uint32_t end = 0, unsure = 0;
    int rv = reset(s, err);

    if (rv != BNS_OK)
        return rv;
    r.file = s->file;
    r.window = bns_alloc(s->dir->alloc, WINDOW_BYTES);
    if (r.window == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory to read a log", s->dir->path);
    rv = walk(s, how, &r, &end, &unsure, &why);
    if (rv == BNS_E_CORRUPT && how->cut) {
        how->cut_bytes = s->size - end;
        (void)snprintf(how->why, sizeof how->why, "%.*s", (int)sizeof how->why - 1, why.text);
        s->size = end;
        s->dirty = true;
        rv = bns_file_truncate(s->file, end, err);
        if (rv == BNS_OK)
            rv = kafka_segment_sync(s, err);
    } else if (rv != BNS_OK && err != NULL) {
        *err = why;
    }
    if (rv == BNS_OK && how->again)
        rv = write_again(s, &r, unsure, err);
    bns_free(s->dir->alloc, r.window);
    s->max_known = rv == BNS_OK;
    return rv;
}
