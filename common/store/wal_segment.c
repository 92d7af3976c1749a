/* wal_segment.c - the life of a segment: groups and checkpoints, spares, rolling, release.
 *
 * A segment is born as a spare: a pool job writes wal-<n>.tmp full of zeros and syncs it, while the
 * current segment is between half and full. So its blocks are allocated before anyone depends on
 * them, and a full disk is met here, where nothing has been promised yet.
 *
 * Rolling is decided on the loop, by arithmetic: a batch that does not fit into the tail segment
 * opens a new one, whose first record is a checkpoint. When the spare is there the segment takes
 * its file; otherwise its appends wait, placed (lsn, offset, checksum) but not submitted, until a
 * spare of that size has been made. The worker then writes header, checkpoint and batch, syncs,
 * renames the file to its final name and syncs the directory, and only then acknowledges.
 *
 *     spare:    NONE -> MAKING -> READY -> (taken) NONE
 *                          \-> FAILED -> (retry timer, 200 ms) MAKING
 *     segment:  waiting (no file) -> ready (file with the worker) -> released -> removed
 *
 * FAILED refuses appends that need a new segment; batches accepted before it wait and are neither
 * acknowledged nor lost: they go on when there is room again.
 *
 * Checkpoint payload: u32 groups, u32 zero, then for each group
 *     u32 group | u32 flags (1 = has a hard state, 2 = needs records) | u64 term | u64 vote |
 *     u64 commit | u64 first needed lsn
 *
 * Release: the oldest segments go while all their records are before every group's first needed
 * lsn. They are removed one by one, oldest first, with a directory sync after each: a crash then
 * leaves a log without holes.
 */
#include <stdio.h>
#include <string.h>

#include "store/wal_impl.h"

#define GROUP_HAS_STATE 1u
#define GROUP_NEEDS 2u
#define RETRY_NS (200 * BNS_MS)
#define SPACE_CHECK_NS BNS_SEC
#define ZERO_BYTES (64u * 1024)
#define ZERO_SLICES 16u /* 1 MiB a call */

/* ---- groups ---------------------------------------------------------------------------------- */

void bns_wal_groups_init(struct bns_wal_groups *g, const struct bns_alloc *alloc)
{
    g->alloc = alloc;
    bns_hmap_init(&g->map, alloc);
}

static struct bns_wal_group *group_of(struct bns_hnode *n)
{
    return BNS_CONTAINER(n, struct bns_wal_group, node);
}

void bns_wal_groups_free(struct bns_wal_groups *g)
{
    struct bns_hnode *n = bns_hmap_next(&g->map, NULL);

    while (n != NULL) {
        struct bns_hnode *next = bns_hmap_next(&g->map, n);
        bns_hmap_del(&g->map, n);
        bns_free(g->alloc, group_of(n));
        n = next;
    }
    bns_hmap_free(&g->map);
}

/* Group ids are given by our own daemon, so the hash needs no secret seed. */
struct bns_wal_group *bns_wal_group_find(const struct bns_wal_groups *g, uint32_t id)
{
    struct bns_hnode *n = bns_hmap_find(&g->map, bns_hash_u64(0, id));

    while (n != NULL && group_of(n)->id != id)
        n = bns_hmap_find_next(n);
    return n == NULL ? NULL : group_of(n);
}

int bns_wal_group_get(struct bns_wal_groups *g, uint32_t id, struct bns_wal_group **out)
{
    struct bns_wal_group *p = bns_wal_group_find(g, id);

    if (p == NULL) {
        p = bns_alloc_zero(g->alloc, sizeof *p);
        if (p == NULL)
            return BNS_E_NOMEM;
        p->id = id;
        if (bns_hmap_insert(&g->map, &p->node, bns_hash_u64(0, id)) != BNS_OK) {
            bns_free(g->alloc, p);
            return BNS_E_NOMEM;
        }
    }
    *out = p;
    return BNS_OK;
}

void bns_wal_group_forget(struct bns_wal_groups *g, uint32_t id)
{
    struct bns_wal_group *p = bns_wal_group_find(g, id);

    if (p == NULL)
        return;
    bns_hmap_del(&g->map, &p->node);
    bns_free(g->alloc, p);
}

bool bns_wal_group_needs(const struct bns_wal_group *g)
{
    return g->last_lsn != 0 && g->last_lsn >= g->needed_lsn;
}

void bns_wal_group_note(struct bns_wal_group *g, uint64_t lsn, uint8_t type, const uint8_t *state)
{
    if (type == BNS_WAL_STATE) {
        g->has_state = true;
        g->term = bns_get_u64le(state);
        g->vote = bns_get_u64le(state + 8);
        g->commit = bns_get_u64le(state + 16);
        return;
    }
    if (!bns_wal_group_needs(g) && lsn > g->needed_lsn)
        g->needed_lsn = lsn;
    g->last_lsn = lsn;
}

size_t bns_wal_checkpoint_len(const struct bns_wal_groups *g)
{
    return WAL_CHECKPOINT_HEAD + g->map.count * WAL_CHECKPOINT_GROUP;
}

void bns_wal_checkpoint_put(const struct bns_wal_groups *g, uint8_t *dst)
{
    struct bns_hnode *n = NULL;

    bns_put_u32le(dst, (uint32_t)g->map.count);
    bns_put_u32le(dst + 4, 0);
    dst += WAL_CHECKPOINT_HEAD;
    while ((n = bns_hmap_next(&g->map, n)) != NULL) {
        const struct bns_wal_group *p = group_of(n);
        bool needs = bns_wal_group_needs(p);
        bns_put_u32le(dst, p->id);
        bns_put_u32le(dst + 4, (p->has_state ? GROUP_HAS_STATE : 0) | (needs ? GROUP_NEEDS : 0));
        bns_put_u64le(dst + 8, p->term);
        bns_put_u64le(dst + 16, p->vote);
        bns_put_u64le(dst + 24, p->commit);
        bns_put_u64le(dst + 32, p->needed_lsn);
        dst += WAL_CHECKPOINT_GROUP;
    }
}

int bns_wal_checkpoint_get(struct bns_wal_groups *g, struct bns_slice payload)
{
    const uint8_t *p = payload.ptr;
    uint32_t count;

    if (payload.len < WAL_CHECKPOINT_HEAD)
        return BNS_E_CORRUPT;
    count = bns_get_u32le(p);
    if (payload.len != WAL_CHECKPOINT_HEAD + (uint64_t)count * WAL_CHECKPOINT_GROUP)
        return BNS_E_CORRUPT;
    p += WAL_CHECKPOINT_HEAD;
    for (uint32_t i = 0; i < count; i++, p += WAL_CHECKPOINT_GROUP) {
        uint32_t flags = bns_get_u32le(p + 4);
        struct bns_wal_group *group;
        int rv = bns_wal_group_get(g, bns_get_u32le(p), &group);
        if (rv != BNS_OK)
            return rv;
        group->has_state = (flags & GROUP_HAS_STATE) != 0;
        group->term = bns_get_u64le(p + 8);
        group->vote = bns_get_u64le(p + 16);
        group->commit = bns_get_u64le(p + 24);
        group->needed_lsn = bns_get_u64le(p + 32);
        group->last_lsn = (flags & GROUP_NEEDS) != 0 ? group->needed_lsn : 0;
    }
    return BNS_OK;
}

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
    if (free_bytes < s->reserve_bytes + (s->target - s->bytes))
        return bns_err_set(&s->err, BNS_E_NOSPACE, "%s: %llu bytes free, not enough for a segment",
                           dir, (unsigned long long)free_bytes);
    if (s->file == NULL) {
        bns_wal_spare_path(path, dir, s->no);
        rv = bns_vfs_open(vfs, path, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &s->file, &s->err);
        if (rv != BNS_OK)
            return rv;
        s->bytes = 0;
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
        w->syncs++;
        bns_counter_add(w->metric_syncs, 1);
    } else {
        w->spare.state = WAL_SPARE_FAILED;
        BNS_LOG(w->env->log, BNS_LOG_WARN, "wal", "no room for the next segment",
                BNS_STR("code", bns_err_name(w->spare.code)), BNS_STR("error", w->spare.err.text));
        if (!w->closing)
            bns_timer_start(w->env, &w->retry_timer, bns_now_ns(w->env) + RETRY_NS);
    }
    bns_wal_spare_pump(w);
    bns_wal_progress(w);
}

static void spare_start(struct bns_wal *w, uint32_t target)
{
    BNS_ASSERT(w->spare.state != WAL_SPARE_MAKING);
    BNS_ASSERT(target % 8 == 0);
    if (w->spare.file == NULL) {
        w->spare.no++;
        w->spare.bytes = 0;
    }
    w->spare.target = target;
    w->spare.state = WAL_SPARE_MAKING;
    w->spare.job.run = spare_run;
    w->spare.job.done = spare_done;
    bns_pool_submit(w->env, &w->spare.job);
}

static void segment_take_spare(struct bns_wal *w, struct bns_wal_segment *s)
{
    BNS_ASSERT(w->spare.state == WAL_SPARE_READY);
    BNS_ASSERT(w->spare.bytes == s->bytes);
    s->file = w->spare.file;
    s->spare_no = w->spare.no;
    s->ready = true;
    w->spare.file = NULL;
    w->spare.bytes = 0;
    w->spare.state = WAL_SPARE_NONE;
    bns_wal_submit_waiting(w, s);
}

static struct bns_wal_segment *first_waiting(struct bns_wal *w)
{
    BNS_LIST_EACH(n, &w->segments)
    {
        struct bns_wal_segment *s = BNS_CONTAINER(n, struct bns_wal_segment, node);
        if (!s->ready)
            return s;
    }
    return NULL;
}

/* Gives the spare to who waits for it, and starts making the next one when it is time. */
void bns_wal_spare_pump(struct bns_wal *w)
{
    struct bns_wal_segment *s;

    if (w->poisoned)
        return;
    while ((s = first_waiting(w)) != NULL) {
        if (w->spare.state == WAL_SPARE_MAKING || w->spare.state == WAL_SPARE_FAILED)
            return;
        if (w->spare.state == WAL_SPARE_NONE || w->spare.bytes < s->bytes) {
            spare_start(w, s->bytes);
            return;
        }
        segment_take_spare(w, s);
    }
    s = bns_wal_tail(w);
    if (w->spare.state == WAL_SPARE_NONE && !w->closing && s->used > s->bytes / 2)
        spare_start(w, bns_wal_segment_plan(w));
}

void bns_wal_retry_fire(void *arg)
{
    struct bns_wal *w = arg;

    if (w->closing || w->poisoned)
        return;
    if (w->spare.state == WAL_SPARE_FAILED) {
        w->spare.state = WAL_SPARE_NONE;
        bns_wal_spare_pump(w);
    }
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
    return !w->space_low;
}

/* ---- segments -------------------------------------------------------------------------------- */

uint32_t bns_wal_segment_plan(const struct bns_wal *w)
{
    uint32_t max = w->cfg.segment_bytes_max, bytes;

    if (bns_list_empty(&w->segments))
        return max < WAL_SEGMENT_FIRST ? max : WAL_SEGMENT_FIRST;
    bytes = bns_wal_tail(w)->bytes;
    return bytes > max / 2 ? max : bytes * 2;
}

/* A new tail segment with room for `need` bytes behind its checkpoint. It is not in the list
 * yet. */
int bns_wal_segment_new(struct bns_wal *w, uint64_t need, struct bns_wal_segment **out)
{
    size_t len = bns_wal_checkpoint_len(&w->groups);
    uint64_t bytes = WAL_HEADER_BYTES + bns_wal_framed(len) + need;
    uint64_t planned = bns_wal_segment_plan(w);
    struct bns_wal_segment *s;
    int rv = BNS_E_NOMEM;

    BNS_ASSERT(need % 8 == 0);
    if (len > BNS_WAL_RECORD_MAX || bytes > WAL_SEGMENT_LIMIT)
        return BNS_E_TOOBIG;
    s = bns_alloc_zero(w->env->alloc, sizeof *s);
    if (s == NULL)
        return BNS_E_NOMEM;
    bns_list_init(&s->waiting);
    s->checkpoint_bytes = bns_alloc(w->env->alloc, len);
    if (s->checkpoint_bytes == NULL)
        goto fail;
    rv = bns_entropy(w->env, &s->salt, sizeof s->salt);
    if (rv != BNS_OK)
        goto fail;
    if (w->spare.state == WAL_SPARE_READY)
        planned = w->spare.bytes;
    else if (w->spare.state == WAL_SPARE_MAKING && first_waiting(w) == NULL)
        planned = w->spare.target;
    s->bytes = (uint32_t)(bytes > planned ? bytes : planned);
    s->first_lsn = w->next_lsn;
    s->last_lsn = s->prev_last_lsn = w->next_lsn - 1;
    s->used = WAL_HEADER_BYTES;
    bns_wal_checkpoint_put(&w->groups, s->checkpoint_bytes);
    s->checkpoint_record = (struct bns_wal_record){
        .type = BNS_WAL_CHECKPOINT,
        .slices = 1,
        .payload = {bns_slice(s->checkpoint_bytes, len)},
    };
    s->checkpoint.records = &s->checkpoint_record;
    s->checkpoint.records_count = 1;
    *out = s;
    return BNS_OK;

fail:
    bns_wal_segment_free(w, s);
    return rv;
}

void bns_wal_segment_free(struct bns_wal *w, struct bns_wal_segment *s)
{
    if (s == NULL)
        return;
    bns_file_close(s->file);
    bns_free(w->env->alloc, s->checkpoint_bytes);
    bns_free(w->env->alloc, s);
}

/* ---- release --------------------------------------------------------------------------------- */

/* The lowest lsn that some group needs; BNS_NEVER when none needs any. */
static uint64_t lowest_needed(const struct bns_wal *w)
{
    struct bns_hnode *n = NULL;
    uint64_t lowest = BNS_NEVER;

    while ((n = bns_hmap_next(&w->groups.map, n)) != NULL) {
        const struct bns_wal_group *g = group_of(n);
        if (bns_wal_group_needs(g) && g->needed_lsn < lowest)
            lowest = g->needed_lsn;
    }
    return lowest;
}

static void remove_run(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, remove_job);
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX];

    BNS_LIST_EACH(n, &w->removing)
    {
        struct bns_wal_segment *s = BNS_CONTAINER(n, struct bns_wal_segment, node);
        bns_wal_name(name, s->first_lsn);
        bns_wal_path(path, w->dir, name);
        /* A file that stays only costs room; what must not happen is a hole before it. */
        if (bns_vfs_remove(w->env->vfs, path, NULL) != BNS_OK)
            return;
        w->removed_count++;
        if (bns_vfs_sync_dir(w->env->vfs, w->dir, NULL) != BNS_OK)
            return;
    }
}

static void remove_done(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, remove_job);
    bool all;

    for (; w->removed_count > 0; w->removed_count--) {
        struct bns_list *n = bns_list_pop(&w->removing);
        bns_wal_segment_free(w, BNS_CONTAINER(n, struct bns_wal_segment, node));
    }
    all = bns_list_empty(&w->removing);
    while (!bns_list_empty(&w->removing)) { /* these stay for the next release */
        struct bns_list *n = w->removing.prev;
        bns_list_del(n);
        bns_list_push_front(&w->segments, n);
        w->segments_count++;
    }
    w->remove_running = false;
    if (all && !w->closing)
        bns_wal_release_segments(w);
    bns_wal_progress(w);
}

/* A segment leaves when the one behind it holds durable records: until then the worker may still
 * have it open, and its records may be the only copy of the hard states. */
void bns_wal_release_segments(struct bns_wal *w)
{
    uint64_t lowest;

    if (w->remove_running || w->poisoned)
        return;
    lowest = lowest_needed(w);
    BNS_LIST_EACH(n, &w->segments)
    {
        struct bns_wal_segment *s = BNS_CONTAINER(n, struct bns_wal_segment, node);
        if (s == bns_wal_tail(w) || s->last_lsn >= lowest || w->durable_lsn <= s->last_lsn)
            break;
        bns_list_del(&s->node);
        bns_list_push(&w->removing, &s->node);
        w->segments_count--;
    }
    if (bns_list_empty(&w->removing))
        return;
    w->remove_running = true;
    w->removed_count = 0;
    w->remove_job.run = remove_run;
    w->remove_job.done = remove_done;
    bns_pool_submit(w->env, &w->remove_job);
}
