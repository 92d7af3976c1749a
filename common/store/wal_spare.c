/* wal_spare.c - files for segments to come: made ahead, or taken from segments that were released.
 *
 * A segment's file exists before anyone depends on it: wal-<n>.tmp, its blocks allocated and
 * synced, so that a sync of the log never waits for the file system's journal and a full disk is
 * met here, where nothing has been promised yet. Two sources:
 *
 *   recycled  a released segment of the full size, renamed (wal_segment.c). Nothing is written: its
 *             old records are left as they are and can never be taken for new ones (wal_format.c).
 *             At most four are kept, and none but the spare when free space is below the reserve.
 *   fresh     zeros, written and synced by a pool job: for the first segment when it is half full,
 *             so that a new log stays small, and later as soon as the last spare is taken. That
 *             costs the disk every byte twice, so it is for the start of a log only.
 *
 *     spare:    NONE -> (recycled) READY -> (taken) NONE
 *               NONE -> MAKING -> READY
 *                          \-> FAILED -> (retry timer, 200 ms) MAKING
 *
 * Space. The reserve is for what was accepted already. A spare is made ahead only from what is free
 * above the reserve. While that fails, or free space is below the reserve, the log has no room
 * (bns_wal_has_room) and its owner accepts no new work; but the tail and the spare still hold what
 * was accepted before, and the small records that keep a group alive (bns_wal_fits). Appends are
 * refused for want of space only when they need a new segment and even the reserve has none left.
 * Batches that wait for a segment are neither acknowledged nor lost: they go on when there is room.
 */
#include <string.h>

#include "store/wal_impl.h"

#define RETRY_NS (200 * BNS_MS)
#define SPACE_CHECK_NS BNS_SEC
#define FITS_MARGIN (256u * 1024)
#define ZERO_BYTES (64u * 1024)
#define ZERO_SLICES 16u /* 1 MiB a call */

/* ---- spares ---------------------------------------------------------------------------------- */

static int spare_write(struct bns_vfs *vfs, const char *dir, struct bns_wal_spare *s)
{
    static const uint8_t zeros[ZERO_BYTES];
    struct bns_slice v[ZERO_SLICES];
    char path[BNS_PATH_MAX];
    uint64_t free_bytes;
    int rv;

    rv = bns_vfs_free_bytes(vfs, dir, &free_bytes, &s->err);
    if (rv != BNS_OK)
        return rv;
    if (free_bytes < (s->dip ? 0 : s->reserve_bytes) + (s->target - s->bytes))
        return bns_err_set(&s->err, BNS_E_NOSPACE, "%s: %llu bytes free, not enough for a segment",
                           dir, (unsigned long long)free_bytes);
    if (s->file == NULL) {
        bns_wal_spare_path(path, dir, s->no);
        rv = bns_vfs_open(vfs, path, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &s->file, &s->err);
        if (rv != BNS_OK)
            return rv;
        s->bytes = 0;
        s->reused = false;
    }
    while (s->bytes < s->target) {
        uint32_t left = s->target - s->bytes, len = 0;
        size_t n = 0;
        for (; n < ZERO_SLICES && len < left; n++) {
            uint32_t piece = left - len < ZERO_BYTES ? left - len : ZERO_BYTES;
            v[n] = bns_slice(zeros, piece);
            len += piece;
        }
        rv = bns_file_write_at(s->file, s->bytes, v, n, &s->err);
        if (rv != BNS_OK)
            return rv;
        s->bytes += len;
    }
    return s->sync_later ? BNS_OK : bns_file_sync(s->file, true, &s->err);
}

/* A failed spare is thrown away whole: after an error nobody knows which of its pages are real. */
void bns_wal_spare_make(struct bns_vfs *vfs, const char *dir, struct bns_wal_spare *s)
{
    char path[BNS_PATH_MAX];

    s->code = spare_write(vfs, dir, s);
    if (s->code == BNS_OK || s->file == NULL)
        return;
    bns_file_close(s->file);
    s->file = NULL;
    s->bytes = 0;
    bns_wal_spare_path(path, dir, s->no);
    if (bns_vfs_remove(vfs, path, NULL) != BNS_OK)
        return; /* the next open removes what is left of it */
}

static void spare_run(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, spare.job);

    bns_wal_spare_make(w->env->vfs, w->dir, &w->spare);
}

static void spare_done(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, spare.job);

    BNS_ASSERT(w->spare.state == WAL_SPARE_MAKING);
    if (w->spare.code == BNS_OK) {
        w->spare.state = WAL_SPARE_READY;
        w->spare.complained = false;
        w->syncs++;
        bns_counter_add(w->metric_syncs, 1);
    } else {
        w->spare.state = WAL_SPARE_FAILED;
        if (!w->spare.complained)
            BNS_LOG(w->env->log, BNS_LOG_WARN, "wal", "no room for the next segment",
                    BNS_STR("code", bns_err_name(w->spare.code)),
                    BNS_STR("error", w->spare.err.text));
        w->spare.complained = true;
        if (!w->closing)
            bns_timer_start(w->env, &w->retry_timer, bns_now_ns(w->env) + RETRY_NS);
    }
    bns_wal_spare_pump(w);
    bns_wal_progress(w);
}

static void take_recycled(struct bns_wal *w)
{
    struct bns_wal_segment *s =
        BNS_CONTAINER(bns_list_pop(&w->recycled), struct bns_wal_segment, node);

    w->spare.file = s->file;
    w->spare.no = s->spare_no;
    w->spare.bytes = s->bytes;
    w->spare.reused = true;
    s->file = NULL;
    BNS_ASSERT(w->recycled_count > 0);
    w->recycled_count--;
    bns_wal_segment_free(w, s);
}

/* Leads to READY at once when there is a recycled file of that size, to MAKING otherwise. */
static void spare_start(struct bns_wal *w, uint32_t target)
{
    BNS_ASSERT(w->spare.state != WAL_SPARE_MAKING);
    BNS_ASSERT(target % 8 == 0);
    if (w->spare.file == NULL && !bns_list_empty(&w->recycled))
        take_recycled(w);
    if (w->spare.file == NULL) {
        w->spare.no = ++w->spare.no_last;
        w->spare.bytes = 0;
    } else if (w->spare.bytes >= target) {
        w->spare.state = WAL_SPARE_READY;
        return;
    }
    w->spare.target = target;
    w->spare.dip = bns_wal_segment_waiting(w) != NULL;
    w->spare.state = WAL_SPARE_MAKING;
    w->spare.job.run = spare_run;
    w->spare.job.done = spare_done;
    bns_pool_submit(w->env, &w->spare.job);
}

static void segment_take_spare(struct bns_wal *w, struct bns_wal_segment *s)
{
    BNS_ASSERT(w->spare.state == WAL_SPARE_READY);
    BNS_ASSERT(w->spare.bytes >= s->bytes);
    s->bytes = w->spare.bytes;
    s->reused = w->spare.reused;
    s->file = w->spare.file;
    s->spare_no = w->spare.no;
    s->ready = true;
    w->spare.file = NULL;
    w->spare.bytes = 0;
    w->spare.state = WAL_SPARE_NONE;
    bns_wal_submit_waiting(w, s);
}

struct bns_wal_segment *bns_wal_segment_waiting(const struct bns_wal *w)
{
    BNS_LIST_EACH(n, &w->segments)
    {
        struct bns_wal_segment *s = BNS_CONTAINER(n, struct bns_wal_segment, node);
        if (!s->ready)
            return s;
    }
    return NULL;
}

/* Gives the spare to who waits for it, and sees to the next one when it is time. */
void bns_wal_spare_pump(struct bns_wal *w)
{
    struct bns_wal_segment *s;

    if (w->poisoned)
        return;
    while ((s = bns_wal_segment_waiting(w)) != NULL) {
        if (w->spare.state == WAL_SPARE_FAILED && !w->spare.dip)
            w->spare.state = WAL_SPARE_NONE; /* once more, from the reserve */
        if (w->spare.state == WAL_SPARE_MAKING || w->spare.state == WAL_SPARE_FAILED)
            return;
        if (w->spare.state == WAL_SPARE_NONE || w->spare.bytes < s->bytes)
            spare_start(w, s->bytes);
        if (w->spare.state == WAL_SPARE_MAKING)
            return;
        segment_take_spare(w, s);
    }
    s = bns_wal_tail(w);
    if (w->spare.state == WAL_SPARE_NONE && !w->closing &&
        (s->bytes > WAL_SEGMENT_FIRST || s->used > s->bytes / 2))
        spare_start(w, bns_wal_segment_plan(w));
}

void bns_wal_spare_retry(struct bns_wal *w)
{
    if (w->spare.state != WAL_SPARE_FAILED || w->closing)
        return;
    w->spare.state = WAL_SPARE_NONE;
    bns_wal_spare_pump(w);
}

void bns_wal_retry_fire(void *arg)
{
    struct bns_wal *w = arg;

    if (w->closing || w->poisoned)
        return;
    bns_wal_spare_retry(w);
    if (w->space_low)
        bns_wal_space_check(w);
}

/* ---- free space ------------------------------------------------------------------------------ */

static void space_run(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, space_job);

    w->space_code = bns_vfs_free_bytes(w->env->vfs, w->dir, &w->space_free, NULL);
}

static void space_judge(struct bns_wal *w)
{
    bool low = w->space_code != BNS_OK || w->space_free < w->cfg.reserve_bytes;

    if (low != w->space_low)
        BNS_LOG(w->env->log, BNS_LOG_WARN, "wal",
                low ? "free space is below the reserve: refusing appends" : "there is room again",
                BNS_U64("free_bytes", w->space_free),
                BNS_U64("reserve_bytes", w->cfg.reserve_bytes));
    w->space_low = low;
    if (low)
        bns_wal_recycled_drop(w);
    if (low && !w->closing)
        bns_timer_start(w->env, &w->retry_timer, bns_now_ns(w->env) + RETRY_NS);
}

static void space_done(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, space_job);

    w->space_running = false;
    space_judge(w);
    bns_wal_progress(w);
}

void bns_wal_space_now(struct bns_wal *w)
{
    w->space_checked_ns = bns_now_ns(w->env);
    if (w->cfg.reserve_bytes == 0)
        return;
    space_run(&w->space_job);
    space_judge(w);
}

/* Asks at most once a second (five times while space is low), and only when there is a reserve. */
void bns_wal_space_check(struct bns_wal *w)
{
    uint64_t now = bns_now_ns(w->env);

    if (w->cfg.reserve_bytes == 0 || w->space_running || w->closing)
        return;
    if (!w->space_low && now - w->space_checked_ns < SPACE_CHECK_NS)
        return;
    w->space_checked_ns = now;
    w->space_running = true;
    w->space_job.run = space_run;
    w->space_job.done = space_done;
    bns_pool_submit(w->env, &w->space_job);
}

/* While space is low the retry timer asks. */
bool bns_wal_has_room(struct bns_wal *w)
{
    if (!w->space_low && !w->space_running && !w->closing &&
        bns_now_ns(w->env) - w->space_checked_ns >= SPACE_CHECK_NS)
        bns_wal_space_now(w);
    return !w->space_low && w->spare.state != WAL_SPARE_FAILED;
}

bool bns_wal_fits(const struct bns_wal *w, uint64_t bytes)
{
    const struct bns_wal_segment *s = bns_wal_tail(w);
    uint64_t margin = w->cfg.segment_bytes_max / 8, file = 0;

    if (margin > FITS_MARGIN)
        margin = FITS_MARGIN;
    if (!s->ready)
        return false;
    if (bytes + margin <= s->bytes - s->used)
        return true;
    if (w->spare.state == WAL_SPARE_READY)
        file = w->spare.bytes;
    else if (!bns_list_empty(&w->recycled))
        file = BNS_CONTAINER(w->recycled.next, struct bns_wal_segment, node)->bytes;
    return bytes + margin + WAL_HEADER_BYTES + bns_wal_framed(bns_wal_checkpoint_len(&w->groups)) <=
           file;
}
