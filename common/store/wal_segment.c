/* wal_segment.c - the life of a segment: groups and checkpoints, spares, rolling, release.
 *
 * A segment takes its file from wal_spare.c. Rolling is decided on the loop, by arithmetic: a batch
 * that does not fit into the tail segment opens a new one, whose first record is a checkpoint. When
 * the spare is there the segment takes its file; otherwise its appends wait, placed (lsn, offset,
 * checksum) but not submitted, until a spare of that size has been made. The worker then writes
 * header, checkpoint and batch, syncs, renames the file to its final name and syncs the directory,
 * and only then acknowledges.
 *
 *     segment:  waiting (no file) -> ready (file with the worker) -> released -> removed
 *                                                                           \-> recycled
 *
 * Checkpoint payload: u32 groups, u32 zero, then for each group
 *     u32 group | u32 flags (1 = has a hard state, 2 = needs records) | u64 term | u64 vote |
 *     u64 commit | u64 first needed lsn
 *
 * Release: the oldest segments go while all their records are before every group's first needed
 * lsn. They are removed, or renamed to spares, one by one, oldest first, with a directory sync
 * after each: a crash then leaves a log without holes, and no file is written again that could
 * still come back under its old name.
 */
#include <string.h>

#include "store/wal_impl.h"

#define GROUP_HAS_STATE 1u
#define GROUP_NEEDS 2u

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

/* ---- segments -------------------------------------------------------------------------------- */

uint32_t bns_wal_segment_plan(const struct bns_wal *w)
{
    uint32_t max = w->cfg.segment_bytes_max, bytes;

    if (bns_list_empty(&w->segments))
        return max < WAL_SEGMENT_FIRST ? max : WAL_SEGMENT_FIRST;
    bytes = bns_wal_tail(w)->bytes;
    return bytes > max / 2 ? max : bytes * 2;
}

/* Never one that an older segment had: its file may be the one that is used again. */
static int next_salt(struct bns_wal *w, uint32_t *out)
{
    if (bns_list_empty(&w->segments))
        return bns_entropy(w->env, out, sizeof *out);
    *out = bns_wal_tail(w)->salt + 1;
    return BNS_OK;
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
    rv = next_salt(w, &s->salt);
    if (rv != BNS_OK)
        goto fail;
    if (w->spare.state == WAL_SPARE_READY)
        planned = w->spare.bytes;
    else if (w->spare.state == WAL_SPARE_MAKING && bns_wal_segment_waiting(w) == NULL)
        planned = w->spare.target;
    else if (w->spare.state == WAL_SPARE_FAILED && planned > WAL_SEGMENT_FIRST)
        planned = WAL_SEGMENT_FIRST; /* it will come from the reserve */
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

static void drop_file(struct bns_wal_segment *s)
{
    bns_file_close(s->file);
    s->file = NULL;
}

/* Takes the segment's name away: whatever happens now, no start will read it. */
static int retire(struct bns_wal *w, struct bns_wal_segment *s)
{
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX], spare[BNS_PATH_MAX];
    int rv;

    if (s->file != NULL) { /* was recycled before, and its room is wanted */
        drop_file(s);
        bns_wal_spare_path(spare, w->dir, s->spare_no);
        if (bns_vfs_remove(w->env->vfs, spare, NULL) != BNS_OK) {
            /* the next open removes what stays */
        }
        return BNS_OK;
    }
    bns_wal_name(name, s->first_lsn);
    bns_wal_path(path, w->dir, name);
    if (!s->recycle)
        return bns_vfs_remove(w->env->vfs, path, NULL);
    bns_wal_spare_path(spare, w->dir, s->spare_no);
    rv = bns_vfs_open(w->env->vfs, path, BNS_OPEN_WRITE, &s->file, NULL);
    if (rv == BNS_OK)
        rv = bns_vfs_rename(w->env->vfs, path, spare, NULL);
    return rv;
}

static void remove_run(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, remove_job);

    BNS_LIST_EACH(n, &w->removing)
    {
        struct bns_wal_segment *s = BNS_CONTAINER(n, struct bns_wal_segment, node);
        /* A file that stays only costs room; what must not happen is a hole before it. */
        if (retire(w, s) != BNS_OK) {
            drop_file(s);
            return;
        }
        w->removed_count++;
        if (bns_vfs_sync_dir(w->env->vfs, w->dir, NULL) != BNS_OK) {
            drop_file(s); /* it may come back under its old name: never to be written again */
            return;
        }
    }
}

static void not_recycled(struct bns_wal *w, struct bns_wal_segment *s)
{
    BNS_ASSERT(s->file == NULL);
    if (s->recycle)
        w->recycled_count--;
    s->recycle = false;
}

static void remove_done(struct bns_job *j)
{
    struct bns_wal *w = BNS_CONTAINER(j, struct bns_wal, remove_job);
    bool all;

    for (; w->removed_count > 0; w->removed_count--) {
        struct bns_wal_segment *s =
            BNS_CONTAINER(bns_list_pop(&w->removing), struct bns_wal_segment, node);
        if (s->file != NULL) {
            bns_list_push(&w->recycled, &s->node);
            continue;
        }
        not_recycled(w, s);
        bns_wal_segment_free(w, s);
    }
    all = bns_list_empty(&w->removing);
    while (!bns_list_empty(&w->removing)) { /* these stay for the next release */
        struct bns_list *n = w->removing.prev;
        struct bns_wal_segment *s = BNS_CONTAINER(n, struct bns_wal_segment, node);
        bns_list_del(n);
        if (s->file != NULL) {
            bns_list_push_front(&w->recycled, n);
            continue;
        }
        not_recycled(w, s);
        bns_list_push_front(&w->segments, n);
        w->segments_count++;
    }
    w->remove_running = false;
    if (all && !w->closing)
        bns_wal_release_segments(w);
    bns_wal_spare_retry(w); /* there may be a file now, or room for one */
    bns_wal_progress(w);
}

/* Worth keeping: of the size that segments have from now on, and not too many. */
static bool recyclable(const struct bns_wal *w, const struct bns_wal_segment *s)
{
    return s->bytes == w->cfg.segment_bytes_max && w->recycled_count < WAL_RECYCLED_MAX &&
           !w->space_low && !w->closing;
}

static void remove_start(struct bns_wal *w)
{
    w->remove_running = true;
    w->removed_count = 0;
    w->remove_job.run = remove_run;
    w->remove_job.done = remove_done;
    bns_pool_submit(w->env, &w->remove_job);
}

void bns_wal_recycled_drop(struct bns_wal *w)
{
    if (w->remove_running || w->closing || bns_list_empty(&w->recycled))
        return;
    bns_list_splice(&w->removing, &w->recycled);
    remove_start(w);
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
        s->recycle = recyclable(w, s);
        if (s->recycle) {
            s->spare_no = ++w->spare.no_last;
            w->recycled_count++;
        }
    }
    if (bns_list_empty(&w->removing))
        return;
    remove_start(w);
}
