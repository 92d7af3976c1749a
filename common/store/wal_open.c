/* wal_open.c - start: find the segments, judge the tail, replay, make the tail safe to extend.
 *
 * Torn tail or corruption? Let X be the first place where a record fails to validate, L the lsn
 * expected there.
 *
 *   1. If a record behind X validates and has durable >= L, record L was durable once: CORRUPT.
 *   2. Otherwise nothing proves that L was ever acknowledged: torn tail. The incomplete batch and
 *      all behind it becomes zeros, synced, one line in the log. In a segment whose file was used
 *      before, "all behind it" ends with the last head that validates under this segment's salt:
 *      only such a head could ever be taken for a record. What the older use left stays, and a
 *      head that never got to the disk whole leaves no trace: such a tail is clean.
 *   3. In a segment that is not the last one: always CORRUPT, because a segment is synced before
 *      the next one begins. A file that ends early, a bad header, a first record (the checkpoint)
 *      that is not valid: always CORRUPT, because these were synced before the file got its name.
 *   4. Bit rot in the last synced batch, before its seal, looks like a torn tail: no local rule can
 *      tell. The window is closed 100 ms after the last batch, by the seal.
 *
 * CORRUPT changes nothing on disk; the text names file, offset, lsn and the repair command.
 *
 * The last group of records, those that nothing proves durable, is written again and synced before
 * it is trusted: after a failed fsync the page cache may show bytes that the disk never got, and a
 * restarted process would read them, act on them, and lose them with the next power cut. The same
 * goes for the names: the process that gave the last segment its name may have died before the
 * directory was synced, and a sync of the file does not make its name durable.
 *
 * Which records are live: those at or behind their group's first needed lsn in the newest
 * checkpoint, and all behind that checkpoint. Hard states are delivered from the oldest checkpoint
 * on, so that the last one delivered is the current one.
 */
#include <stdio.h>
#include <string.h>

#include "store/wal_impl.h"

struct opening {
    struct bns_wal *w;
    struct bns_wal_reader reader;
    bns_wal_replay_fn *replay;
    void *arg;
    struct bns_wal_groups newest; /* the newest checkpoint */
    uint64_t newest_lsn;          /* 0: none */
    bool first_done;              /* the oldest checkpoint was delivered */
    uint64_t replayed;
    struct bns_err *err;
};

/* ---- replay ---------------------------------------------------------------------------------- */

static bool live(const struct opening *o, uint32_t group, uint64_t lsn, bool state)
{
    const struct bns_wal_group *g;

    if (lsn > o->newest_lsn)
        return true;
    g = bns_wal_group_find(&o->newest, group);
    if (g == NULL)
        return false;
    return state || (bns_wal_group_needs(g) && lsn >= g->needed_lsn);
}

static int deliver(struct opening *o, uint64_t lsn, uint32_t group, uint8_t type,
                   struct bns_slice payload)
{
    struct bns_wal_group *g;
    int rv;

    if (!live(o, group, lsn, type == BNS_WAL_STATE))
        return BNS_OK;
    rv = bns_wal_group_get(&o->w->groups, group, &g);
    if (rv != BNS_OK)
        return bns_err_set(o->err, rv, "%s: no memory for group %u", o->w->dir, group);
    bns_wal_group_note(g, lsn, type, payload.ptr);
    o->replayed++;
    return o->replay(o->arg, lsn, group, type, payload);
}

/* The hard states of the oldest checkpoint; newer ones repeat what their records said. */
static int deliver_checkpoint(struct opening *o, uint64_t lsn, uint32_t off,
                              struct bns_slice payload)
{
    struct bns_wal_groups groups;
    struct bns_hnode *n = NULL;
    int rv;

    bns_wal_groups_init(&groups, o->w->env->alloc);
    rv = bns_wal_checkpoint_get(&groups, payload);
    if (rv == BNS_E_CORRUPT)
        rv = bns_wal_corrupt(&o->reader, off, lsn, "the checkpoint is malformed", o->err);
    else if (rv != BNS_OK)
        rv = bns_err_set(o->err, rv, "%s: no memory for a checkpoint", o->w->dir);
    while (rv == BNS_OK && !o->first_done && (n = bns_hmap_next(&groups.map, n)) != NULL) {
        const struct bns_wal_group *g = BNS_CONTAINER(n, struct bns_wal_group, node);
        uint8_t state[WAL_STATE_BYTES];
        if (!g->has_state)
            continue;
        bns_put_u64le(state, g->term);
        bns_put_u64le(state + 8, g->vote);
        bns_put_u64le(state + 16, g->commit);
        rv = deliver(o, lsn, g->id, BNS_WAL_STATE, bns_slice(state, sizeof state));
    }
    o->first_done = true;
    bns_wal_groups_free(&groups);
    return rv;
}

static int on_record(void *arg, uint32_t off, const struct bns_wal_head *h,
                     struct bns_slice payload)
{
    struct opening *o = arg;

    if (h->type == BNS_WAL_CHECKPOINT)
        return deliver_checkpoint(o, h->lsn, off, payload);
    if (h->type == BNS_WAL_SEAL)
        return BNS_OK;
    if (h->type == BNS_WAL_STATE && payload.len != WAL_STATE_BYTES)
        return bns_wal_corrupt(&o->reader, off, h->lsn, "a hard state of the wrong length", o->err);
    return deliver(o, h->lsn, h->group, h->type, payload);
}

/* The checkpoint at the start of the newest segment. When it is damaged, the judgement in order of
 * the segments will say so. */
static int find_newest(struct opening *o)
{
    struct bns_wal_reader *r = &o->reader;
    struct bns_wal_scan s;
    struct bns_wal_head h;
    struct bns_slice payload;
    int rv;

    if (r->count == 0)
        return BNS_OK;
    rv = bns_wal_reader_load(r, r->count - 1, o->err);
    if (rv != BNS_OK)
        return rv;
    bns_wal_scan_init(&s, r->buf, &r->header);
    if (!bns_wal_scan_next(&s, &h, &payload))
        return BNS_OK;
    rv = BNS_E_CORRUPT;
    if (h.type == BNS_WAL_CHECKPOINT)
        rv = bns_wal_checkpoint_get(&o->newest, payload);
    if (rv == BNS_E_CORRUPT)
        return bns_wal_corrupt(r, WAL_HEADER_BYTES, h.lsn, "not a checkpoint", o->err);
    if (rv != BNS_OK)
        return bns_err_set(o->err, rv, "%s: no memory for a checkpoint", r->dir);
    o->newest_lsn = h.lsn;
    return BNS_OK;
}

/* ---- segments -------------------------------------------------------------------------------- */

static int add_segment(struct opening *o, const struct bns_wal_walk *walk)
{
    struct bns_wal *w = o->w;
    const struct bns_wal_header *h = &o->reader.header;
    struct bns_wal_segment *s = bns_alloc_zero(w->env->alloc, sizeof *s);

    if (s == NULL)
        return bns_err_set(o->err, BNS_E_NOMEM, "%s: no memory for a segment", w->dir);
    bns_list_init(&s->waiting);
    s->first_lsn = h->first_lsn;
    s->prev_last_lsn = h->prev_last_lsn;
    s->last_lsn = walk->batch_lsn - 1;
    s->used = walk->batch_off;
    s->bytes = h->bytes;
    s->salt = h->salt;
    s->reused = (h->flags & WAL_SEGMENT_REUSED) != 0;
    s->ready = true;
    bns_list_push(&w->segments, &s->node);
    w->segments_count++;
    w->next_lsn = walk->batch_lsn;
    w->io.prev_crc = walk->batch_prev_crc;
    return BNS_OK;
}

/* Offset of the first record behind `durable`; `end` when there is none. */
static uint32_t unproven_from(const struct opening *o, uint64_t durable, uint32_t end)
{
    struct bns_wal_scan s;
    struct bns_wal_head h;
    struct bns_slice payload;
    uint32_t off = WAL_HEADER_BYTES;

    bns_wal_scan_init(&s, o->reader.buf, &o->reader.header);
    s.skip_body = true;
    while (off < end && bns_wal_scan_next(&s, &h, &payload) && h.lsn <= durable)
        off = s.off;
    return off;
}

/* The last segment has records: cut what is torn, rewrite what is unproven, keep it open. */
static int settle_tail(struct opening *o, const struct bns_wal_walk *walk)
{
    struct bns_wal *w = o->w;
    struct bns_wal_segment *s = bns_wal_tail(w);
    const uint8_t *buf = o->reader.buf;
    uint32_t end = walk->batch_off, from = unproven_from(o, walk->durable_max, end);
    struct bns_slice v = bns_slice(buf + from, end - from);
    int rv = BNS_OK;

    if (walk->dirt_end > end) {
        BNS_LOG(w->env->log, BNS_LOG_WARN, "wal", "torn tail cut", BNS_STR("file", o->reader.name),
                BNS_U64("offset", end), BNS_U64("lsn", walk->batch_lsn));
        rv = bns_wal_zero(s->file, buf, end, walk->dirt_end, o->err);
        w->syncs++;
    }
    if (rv == BNS_OK && from < end) {
        rv = bns_file_write_at(s->file, from, &v, 1, o->err);
        if (rv == BNS_OK)
            rv = bns_file_sync(s->file, true, o->err);
        w->syncs++;
    }
    return rv;
}

static int open_tail(struct opening *o)
{
    struct bns_wal *w = o->w;
    struct bns_wal_segment *s = bns_wal_tail(w);
    char name[WAL_NAME_BYTES], path[BNS_PATH_MAX];

    bns_wal_name(name, s->first_lsn);
    bns_wal_path(path, w->dir, name);
    return bns_vfs_open(w->env->vfs, path, BNS_OPEN_WRITE, &s->file, o->err);
}

static int replay_segments(struct opening *o)
{
    struct bns_wal_reader *r = &o->reader;
    uint64_t mutant_last = BNS_MUTANT(o->w->env, WAL_MUTANT_TORN_TAIL) ? r->count : 0;

    for (size_t i = 0; i < r->count; i++) {
        struct bns_wal_walk walk;
        bool last = i + 1 == r->count;
        int rv = bns_wal_reader_load(r, i, o->err);

        if (rv == BNS_OK)
            rv = bns_wal_walk(r, &walk, i + 1 == mutant_last, on_record, o);
        if (rv == BNS_OK)
            rv = bns_wal_judge(r, &walk, i, o->err);
        if (rv != BNS_OK)
            return rv;
        rv = add_segment(o, &walk);
        if (rv == BNS_OK && last)
            rv = open_tail(o);
        if (rv == BNS_OK && last)
            rv = settle_tail(o, &walk);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

/* ---- a new log ------------------------------------------------------------------------------- */

static int sync_parent(struct bns_wal *w, struct bns_err *err)
{
    char parent[BNS_PATH_MAX];
    size_t len = strlen(w->dir);

    while (len > 1 && w->dir[len - 1] == '/')
        len--;
    while (len > 0 && w->dir[len - 1] != '/')
        len--;
    if (len == 0)
        return bns_vfs_sync_dir(w->env->vfs, ".", err);
    while (len > 1 && w->dir[len - 1] == '/')
        len--;
    memcpy(parent, w->dir, len);
    parent[len] = '\0';
    return bns_vfs_sync_dir(w->env->vfs, parent, err);
}

/* The first segment, made here and now with the worker's own code: there is no worker yet. */
static int create_first(struct bns_wal *w, struct bns_err *err)
{
    struct bns_wal_segment *s;
    int rv = sync_parent(w, err);

    if (rv != BNS_OK)
        return rv;
    rv = bns_entropy(w->env, w->io.log_id, sizeof w->io.log_id);
    if (rv == BNS_OK)
        rv = bns_wal_segment_new(w, 0, &s);
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "%s: cannot make a segment: %s", w->dir,
                           bns_err_default_text(rv));
    bns_list_push(&w->segments, &s->node);
    w->segments_count++;
    s->checkpoint.heads = s->checkpoint.heads_inline;
    s->checkpoint.bytes = bns_wal_framed(s->checkpoint_record.payload[0].len);
    bns_wal_place(w, &s->checkpoint);
    w->spare.no = ++w->spare.no_last;
    w->spare.target = s->bytes;
    w->spare.sync_later = true;
    bns_wal_spare_make(w->env->vfs, w->dir, &w->spare);
    if (w->spare.code != BNS_OK)
        return bns_err_set(err, w->spare.code, "%s", w->spare.err.text);
    s->file = w->spare.file;
    s->spare_no = w->spare.no;
    s->ready = true;
    w->spare.sync_later = false;
    w->spare.file = NULL;
    w->spare.bytes = 0;
    bns_list_push(&s->waiting, &s->checkpoint.job.node);
    bns_wal_io_run(&w->io, &s->waiting);
    bns_list_del(&s->checkpoint.job.node);
    w->syncs += w->io.syncs;
    w->records += w->io.records;
    w->bytes += w->io.bytes;
    return w->io.code == BNS_OK ? BNS_OK : bns_err_set(err, w->io.code, "%s", w->io.err.text);
}

/* ---- open ------------------------------------------------------------------------------------ */

static int remove_spares(struct opening *o)
{
    char path[BNS_PATH_MAX];

    for (size_t i = 0; i < o->reader.spares_count; i++) {
        int rv;
        bns_wal_spare_path(path, o->w->dir, o->reader.spares[i]);
        rv = bns_vfs_remove(o->w->env->vfs, path, o->err);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

static int recover(struct opening *o)
{
    struct bns_wal *w = o->w;
    int rv = bns_vfs_mkdir(w->env->vfs, w->dir, o->err);

    if (rv == BNS_OK)
        rv = bns_wal_reader_open(&o->reader, w->env->vfs, w->env->alloc, w->dir, o->err);
    if (rv == BNS_OK)
        rv = find_newest(o);
    if (rv == BNS_OK)
        rv = replay_segments(o);
    if (rv == BNS_OK)
        rv = remove_spares(o);
    if (rv != BNS_OK)
        return rv;
    if (bns_list_empty(&w->segments)) {
        w->next_lsn = 1;
        return create_first(w, o->err);
    }
    rv = bns_vfs_sync_dir(w->env->vfs, w->dir, o->err);
    if (rv != BNS_OK)
        return rv;
    memcpy(w->io.log_id, o->reader.log_id, sizeof w->io.log_id);
    w->io.segment = bns_wal_tail(w);
    w->io.off = bns_wal_tail(w)->used;
    w->io.written = w->io.durable = w->next_lsn - 1;
    return BNS_OK;
}

static struct bns_wal *wal_new(struct bns_env *env, const struct bns_wal_config *cfg)
{
    struct bns_wal *w = bns_alloc_zero(env->alloc, sizeof *w);
    size_t len = strlen(cfg->dir);

    if (w == NULL)
        return NULL;
    w->env = env;
    w->cfg = *cfg;
    memcpy(w->dir, cfg->dir, len + 1);
    w->cfg.dir = w->dir;
    if (cfg->segment_bytes_max == 0)
        w->cfg.segment_bytes_max = WAL_SEGMENT_DEFAULT;
    w->cfg.segment_bytes_max &= ~7u;
    w->io.env = env;
    w->io.vfs = env->vfs;
    w->io.dir = w->dir;
    w->io.mutant = env->mutant;
    w->io.unsafe_no_sync = cfg->unsafe_no_sync;
    w->spare.reserve_bytes = cfg->reserve_bytes;
    bns_list_init(&w->segments);
    bns_list_init(&w->removing);
    bns_list_init(&w->recycled);
    bns_wal_groups_init(&w->groups, env->alloc);
    bns_timer_init(&w->seal_timer, bns_wal_seal_fire, w);
    bns_timer_init(&w->retry_timer, bns_wal_retry_fire, w);
    if (env->metrics != NULL) {
        w->metric_syncs = bns_counter(env->metrics, "wal_fsync_total", NULL, "syncs of the log");
        w->metric_bytes = bns_counter(env->metrics, "wal_bytes_total", NULL, "bytes appended");
        w->metric_sync_seconds =
            bns_hist(env->metrics, "wal_fsync_seconds", NULL, "write and sync of one batch");
        w->metric_batch =
            bns_hist(env->metrics, "wal_batch_records", NULL, "records made durable by one sync");
    }
    return w;
}

static void wal_free(struct bns_wal *w)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&w->segments)) != NULL)
        bns_wal_segment_free(w, BNS_CONTAINER(n, struct bns_wal_segment, node));
    BNS_ASSERT(bns_list_empty(&w->recycled)); /* nothing was released yet */
    bns_file_close(w->spare.file);
    bns_wal_groups_free(&w->groups);
    bns_free(w->env->alloc, w);
}

static int check_config(const struct bns_wal_config *cfg, struct bns_err *err)
{
    uint32_t bytes = cfg->segment_bytes_max;

    if (strlen(cfg->dir) > WAL_DIR_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of the log longer than %d bytes",
                           cfg->dir, WAL_DIR_MAX);
    if (bytes != 0 && (bytes < WAL_SEGMENT_MIN || bytes > WAL_SEGMENT_LIMIT))
        return bns_err_set(err, BNS_E_INVALID, "%s: segment size %u is not in %u..%u", cfg->dir,
                           bytes, WAL_SEGMENT_MIN, WAL_SEGMENT_LIMIT);
    return BNS_OK;
}

int bns_wal_open(struct bns_env *env, const struct bns_wal_config *cfg, bns_wal_replay_fn *replay,
                 void *arg, struct bns_wal **out, struct bns_err *err)
{
    struct opening o = {.replay = replay, .arg = arg, .err = err};
    struct bns_wal *w;
    int rv = check_config(cfg, err);

    if (rv != BNS_OK)
        return rv;
    w = wal_new(env, cfg);
    if (w == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a log", cfg->dir);
    o.w = w;
    o.reader.alloc = env->alloc;
    bns_wal_groups_init(&o.newest, env->alloc);
    rv = recover(&o);
    if (rv == BNS_OK) {
        w->durable_lsn = w->next_lsn - 1;
        rv = bns_worker_new(env, "wal", bns_wal_io_run, &w->io, &w->worker);
        if (rv != BNS_OK)
            rv = bns_err_set(err, rv, "%s: no worker for the log", w->dir);
        else
            bns_worker_hold(env, w->worker);
        w->io.worker = w->worker;
    }
    bns_wal_groups_free(&o.newest);
    bns_wal_reader_close(&o.reader);
    if (rv != BNS_OK) {
        wal_free(w);
        return rv;
    }
    BNS_LOG(env->log, BNS_LOG_INFO, "wal", "log open", BNS_U64("records", o.replayed),
            BNS_U64("segments", w->segments_count), BNS_U64("next_lsn", w->next_lsn));
    bns_counter_add(w->metric_syncs, w->syncs);
    bns_counter_add(w->metric_bytes, w->bytes);
    bns_wal_space_now(w);
    bns_wal_arm_seal(w);
    bns_wal_spare_pump(w);
    *out = w;
    return BNS_OK;
}
