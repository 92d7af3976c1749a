/* wal.c - the write-ahead log: format, appends, group commit.
 *
 * One log serves all Raft groups of a process (and whoever else wants ordered durable bytes). A
 * batch is durable as a whole or not at all; batches become durable in the order of their appends.
 *
 * Files, little-endian, every record aligned to 8:
 *
 *   wal-<first lsn, 16 hex>.seg      a segment: header, records, zeros or old bytes to its end
 *   wal-<n>.tmp                      a spare, ready or in the making; removed at open
 *
 *   segment header, 64 bytes
 *      0 u32 crc32c of bytes 4..63        4 u32 version = 2
 *      8 char magic[8] "BNSWAL\0\1"      16 u64 first_lsn
 *     24 u8 log_id[16]                   40 u32 salt              44 u32 bytes of the file
 *     48 u64 prev_last_lsn               56 u32 flags (1 = reused)    60 u32 zero
 *
 *   record, 40-byte head, payload, zeros up to the next multiple of 8
 *      0 u32 head_crc = crc32c(salt, bytes 4..39)
 *      4 u32 body_crc = crc32c(salt, payload)
 *      8 u64 lsn                         16 u64 durable: highest durable lsn when it was written
 *     24 u32 len of the payload          28 u32 group
 *     32 u32 prev_crc: head_crc of the record before it, header crc for the first of a segment
 *     36 u8 type   37 u8 flags (1 = the batch continues in the next record)   38 u16 zero
 *
 * lsn grows by one a record, from 1, across segments. The salt of the first segment is random, each
 * further one has its predecessor's plus one: so no two are the same, and what an older use left in
 * a reused file validates under no later salt (wal_format.c says why). The first record of each
 * segment is a checkpoint, so that older segments can go. A segment gets its name
 * after its header and first batch were synced: a crash before leaves a .tmp, which holds nothing
 * that was acknowledged. A seal is written when the
 * log has been idle for 100 ms: its `durable` proves that everything before it was synced.
 *
 * Who does what:
 *   loop     places a batch (lsn, segment, offset), computes body_crc, hands the append over
 *   worker   gets all queued appends as one list: stamps `durable`, prev_crc and head_crc, writes
 *            them with one gathered write a segment, syncs once, publishes the new durable lsn.
 *            While it syncs, the next batch collects: group commit without timers.
 *   pool     makes spares, removes released segments, looks at free space (wal_segment.c)
 *
 * Errors: what can be refused is refused before it is accepted (NOSPACE, BUSY, TOOBIG, NOMEM).
 * After that a failed write or sync is fatal: pages of a failed fsync may be dropped by the kernel
 * as if clean, so no retry can be trusted. The log is poisoned, bns_fatal(env, 6) is called, every
 * queued append ends with BNS_E_IO and the next start rewrites the tail before it believes it.
 *
 * wal_fsync_seconds is measured on the loop, from hand-over (or the completion before it) to
 * completion: workers have no clock. wal_fsync_total counts every fdatasync of segments and spares.
 */
#include "store/wal.h"

#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "store/wal_impl.h"

#define SEAL_IDLE_NS (100 * BNS_MS)

/* ---- worker ---------------------------------------------------------------------------------- */

static int io_flush(struct bns_wal_io *io)
{
    int rv;

    if (io->slices_count == 0)
        return BNS_OK;
    rv = bns_file_write_at(io->segment->file, io->off, io->slices, io->slices_count, &io->err);
    if (rv != BNS_OK)
        return rv;
    io->off += io->gathered;
    io->bytes += io->gathered;
    io->gathered = 0;
    io->slices_count = 0;
    io->unsynced = true;
    return BNS_OK;
}

/* The first sync of a segment is behind us: only now it gets its name. */
static int io_name(struct bns_wal_io *io)
{
    char from[BNS_PATH_MAX], to[BNS_PATH_MAX], name[WAL_NAME_BYTES];
    int rv;

    bns_wal_spare_path(from, io->dir, io->segment->spare_no);
    bns_wal_name(name, io->segment->first_lsn);
    bns_wal_path(to, io->dir, name);
    rv = bns_vfs_rename(io->vfs, from, to, &io->err);
    if (rv == BNS_OK && !BNS_MUTANT(io, WAL_MUTANT_NO_DIR_SYNC))
        rv = bns_vfs_sync_dir(io->vfs, io->dir, &io->err);
    io->unnamed = false;
    return rv;
}

static int io_sync(struct bns_wal_io *io)
{
    int rv = BNS_OK;

    if (io->unsynced && !io->unsafe_no_sync) {
        rv = bns_file_sync(io->segment->file, true, &io->err);
        io->syncs++;
    }
    if (rv == BNS_OK && io->unnamed)
        rv = io_name(io);
    if (rv != BNS_OK)
        return rv;
    io->unsynced = false;
    io->durable = io->written;
    return BNS_OK;
}

static int io_add(struct bns_wal_io *io, const void *ptr, size_t len)
{
    if (len == 0)
        return BNS_OK;
    if (io->slices_count == WAL_IO_SLICES) {
        int rv = io_flush(io);
        if (rv != BNS_OK)
            return rv;
    }
    io->slices[io->slices_count++] = bns_slice(ptr, len);
    io->gathered += len;
    return BNS_OK;
}

/* Leaves the old segment durable, then begins the new one with its header. */
static int io_switch(struct bns_wal_io *io, struct bns_wal_segment *s)
{
    struct bns_wal_header h = {
        .first_lsn = s->first_lsn,
        .prev_last_lsn = s->prev_last_lsn,
        .salt = s->salt,
        .bytes = s->bytes,
        .flags = s->reused ? WAL_SEGMENT_REUSED : 0,
    };

    if (io->segment != NULL) {
        int rv = io_flush(io);
        BNS_ASSERT(io->written == s->prev_last_lsn);
        if (rv == BNS_OK)
            rv = io_sync(io);
        if (rv != BNS_OK)
            return rv;
        bns_file_close(io->segment->file);
        io->segment->file = NULL;
    }
    io->segment = s;
    io->unnamed = true;
    io->off = 0;
    memcpy(h.log_id, io->log_id, sizeof h.log_id);
    bns_wal_header_put(io->header, &h);
    io->prev_crc = bns_get_u32le(io->header);
    return io_add(io, io->header, sizeof io->header);
}

static int io_gather(struct bns_wal_io *io, struct bns_wal_append *a)
{
    static const uint8_t zeros[8];
    int rv = BNS_OK;

    BNS_ASSERT(a->lsn_first == io->written + 1);
    BNS_ASSERT(a->offset == io->off + io->gathered);
    for (size_t i = 0; i < a->records_count && rv == BNS_OK; i++) {
        const struct bns_wal_record *r = &a->records[i];
        uint8_t *head = a->heads + i * WAL_HEAD_BYTES;
        uint32_t len = bns_get_u32le(head + 24);

        bns_wal_head_stamp(head, io->segment->salt, io->durable, io->prev_crc);
        io->prev_crc = bns_get_u32le(head);
        rv = io_add(io, head, WAL_HEAD_BYTES);
        for (size_t k = 0; k < r->slices && rv == BNS_OK; k++)
            rv = io_add(io, r->payload[k].ptr, r->payload[k].len);
        if (rv == BNS_OK)
            rv = io_add(io, zeros, (8 - len % 8) % 8);
    }
    io->written = a->lsn_last;
    io->records += a->records_count;
    return rv;
}

/* The batch before this one is durable, but its callers may not know yet: waking them can take the
 * processor away from here, so the disk gets its next work first. */
static void io_release(struct bns_wal_io *io)
{
    if (io->worker == NULL || !bns_worker_held(io->env, io->worker))
        return;
    bns_file_write_behind(io->segment->file);
    bns_worker_release(io->env, io->worker);
}

/* The worker's handler: one gathered write and one sync for everything that was queued. */
void bns_wal_io_run(void *arg, struct bns_list *jobs)
{
    struct bns_wal_io *io = arg;
    struct bns_wal_append *last = BNS_CONTAINER(jobs->prev, struct bns_wal_append, job.node);
    int rv = io->code;

    io->syncs = io->records = io->bytes = 0;
    if (rv == BNS_OK && BNS_MUTANT(io, WAL_MUTANT_ACK_BEFORE_SYNC))
        rv = io_sync(io);
    BNS_LIST_EACH(n, jobs)
    {
        struct bns_wal_append *a = BNS_CONTAINER(n, struct bns_wal_append, job.node);
        if (rv == BNS_OK && a->segment != io->segment)
            rv = io_switch(io, a->segment);
        if (rv == BNS_OK)
            rv = io_gather(io, a);
        a->io_syncs = a->io_records = a->io_bytes = 0;
    }
    if (rv == BNS_OK)
        rv = io_flush(io);
    if (rv == BNS_OK)
        io_release(io);
    if (rv == BNS_OK && !BNS_MUTANT(io, WAL_MUTANT_ACK_BEFORE_SYNC))
        rv = io_sync(io);
    io->code = rv;
    BNS_LIST_EACH(n, jobs)
    BNS_CONTAINER(n, struct bns_wal_append, job.node)->code = rv;
    last->io_syncs = io->syncs;
    last->io_records = io->records;
    last->io_bytes = io->bytes;
}

/* ---- completions, on the loop ---------------------------------------------------------------- */

static void poison(struct bns_wal *w)
{
    char text[BNS_ERR_TEXT_MAX + 64];

    if (w->poisoned)
        return;
    w->poisoned = true;
    bns_timer_stop(w->env, &w->seal_timer);
    bns_timer_stop(w->env, &w->retry_timer);
    if (w->io.code == BNS_E_OFF) /* a simulated power cut: nothing is left to say */
        return;
    (void)snprintf(text, sizeof text, "wal: unsafe disk: refusing to continue: %s",
                   w->io.err.text); /* cut when long */
    bns_fatal(w->env, 6, text);
}

static void measure(struct bns_wal *w, const struct bns_wal_append *a)
{
    uint64_t now = bns_now_ns(w->env);

    w->syncs += a->io_syncs;
    w->records += a->io_records;
    w->bytes += a->io_bytes;
    bns_counter_add(w->metric_syncs, a->io_syncs);
    bns_counter_add(w->metric_bytes, a->io_bytes);
    if (a->io_syncs > 0)
        bns_hist_observe(w->metric_sync_seconds, (double)(now - w->busy_since_ns) / 1e9);
    bns_hist_observe(w->metric_batch, (double)a->io_records);
    w->busy_since_ns = now;
}

static void heads_free(struct bns_wal *w, struct bns_wal_append *a)
{
    if (a->heads != a->heads_inline)
        bns_free(w->env->alloc, a->heads);
    a->heads = NULL;
}

static void append_done(struct bns_job *j)
{
    struct bns_wal_append *a = BNS_CONTAINER(j, struct bns_wal_append, job);
    struct bns_wal *w = a->wal;
    int code = a->code;

    BNS_ASSERT(w->inflight > 0);
    w->inflight--;
    heads_free(w, a);
    if (code == BNS_OK) {
        BNS_ASSERT(a->lsn_first == w->durable_lsn + 1);
        w->durable_lsn = a->lsn_last;
        if (a->io_records > 0)
            measure(w, a);
        if (a->records[0].type == BNS_WAL_CHECKPOINT)
            bns_wal_release_segments(w);
    } else {
        poison(w);
        code = BNS_E_IO;
    }
    if (a->done != NULL)
        a->done(a, code);
    if (w->inflight == 0 && !w->closing)
        bns_wal_arm_seal(w);
    bns_wal_progress(w);
}

/* ---- appends, on the loop -------------------------------------------------------------------- */

static void submit(struct bns_wal *w, struct bns_wal_append *a)
{
    if (w->inflight == 0)
        w->busy_since_ns = bns_now_ns(w->env);
    w->inflight++;
    bns_worker_submit(w->env, w->worker, &a->job);
}

void bns_wal_submit_waiting(struct bns_wal *w, struct bns_wal_segment *s)
{
    struct bns_list *n;

    BNS_ASSERT(s->ready);
    while ((n = bns_list_pop(&s->waiting)) != NULL) {
        struct bns_wal_append *a = BNS_CONTAINER(n, struct bns_wal_append, job.node);
        BNS_ASSERT(w->queued_bytes >= a->bytes);
        w->queued_bytes -= a->bytes;
        submit(w, a);
    }
}

static void state_bytes(const struct bns_wal_record *r, uint8_t *dst)
{
    size_t at = 0;

    for (size_t i = 0; i < r->slices; i++) {
        if (r->payload[i].len > 0)
            memcpy(dst + at, r->payload[i].ptr, r->payload[i].len);
        at += r->payload[i].len;
    }
}

static void note_record(struct bns_wal *w, const struct bns_wal_record *r, uint64_t lsn)
{
    struct bns_wal_group *g;
    uint8_t state[WAL_STATE_BYTES] = {0};

    if (r->type == BNS_WAL_CHECKPOINT || r->type == BNS_WAL_SEAL)
        return;
    g = bns_wal_group_find(&w->groups, r->group);
    BNS_ASSERT(g != NULL); /* append made sure */
    if (r->type == BNS_WAL_STATE)
        state_bytes(r, state);
    bns_wal_group_note(g, lsn, r->type, state);
}

/* Gives the append its lsns and its place in the tail segment, which has room for it. Cannot
 * fail. */
void bns_wal_place(struct bns_wal *w, struct bns_wal_append *a)
{
    struct bns_wal_segment *s = bns_wal_tail(w);

    BNS_ASSERT(s->used + a->bytes <= s->bytes);
    a->wal = w;
    a->segment = s;
    a->offset = s->used;
    a->lsn_first = w->next_lsn;
    a->lsn_last = w->next_lsn + a->records_count - 1;
    a->job.run = NULL;
    a->job.done = append_done;
    for (size_t i = 0; i < a->records_count; i++) {
        const struct bns_wal_record *r = &a->records[i];
        struct bns_wal_head h = {
            .body_crc = s->salt,
            .lsn = w->next_lsn++,
            .len = (uint32_t)bns_wal_record_len(r),
            .group = r->group,
            .type = r->type,
            .flags = i + 1 < a->records_count ? WAL_FLAG_CONTINUES : 0,
        };
        for (size_t k = 0; k < r->slices; k++)
            h.body_crc = bns_crc32c(h.body_crc, r->payload[k].ptr, r->payload[k].len);
        bns_wal_head_put(a->heads + i * WAL_HEAD_BYTES, &h);
        note_record(w, r, h.lsn);
    }
    s->used += a->bytes;
    s->last_lsn = a->lsn_last;
    w->sealed = a->records[0].type == BNS_WAL_SEAL;
}

static void enqueue(struct bns_wal *w, struct bns_wal_append *a)
{
    bns_wal_place(w, a);
    if (a->segment->ready) {
        submit(w, a);
    } else {
        w->queued_bytes += a->bytes;
        bns_list_push(&a->segment->waiting, &a->job.node);
    }
}

static int roll(struct bns_wal *w, uint64_t need)
{
    struct bns_wal_segment *s;
    int rv = bns_wal_segment_new(w, need, &s);

    if (rv != BNS_OK)
        return rv;
    bns_list_push(&w->segments, &s->node);
    w->segments_count++;
    s->checkpoint.heads = s->checkpoint.heads_inline;
    s->checkpoint.bytes = bns_wal_framed(s->checkpoint_record.payload[0].len);
    enqueue(w, &s->checkpoint);
    bns_wal_spare_pump(w);
    return BNS_OK;
}

/* Checks one record and makes sure that its group is known. */
static int check_record(struct bns_wal *w, const struct bns_wal_record *r)
{
    struct bns_wal_group *g;
    uint64_t len = bns_wal_record_len(r);

    BNS_ASSERT(r->type >= BNS_WAL_ENTRY);
    BNS_ASSERT(r->type <= BNS_WAL_SNAPMARK);
    BNS_ASSERT(r->type != BNS_WAL_STATE || len == WAL_STATE_BYTES);
    if (len > BNS_WAL_RECORD_MAX)
        return BNS_E_TOOBIG;
    return bns_wal_group_get(&w->groups, r->group, &g);
}

static int refusal(const struct bns_wal *w)
{
    if (w->poisoned)
        return BNS_E_IO;
    if (w->closing)
        return BNS_E_SHUTDOWN;
    return BNS_OK;
}

int bns_wal_append(struct bns_wal *w, struct bns_wal_append *a)
{
    struct bns_wal_segment *tail = bns_wal_tail(w);
    bool fits;
    int rv = refusal(w);

    BNS_ASSERT(a->records_count > 0);
    bns_wal_space_check(w);
    a->bytes = 0;
    for (size_t i = 0; i < a->records_count && rv == BNS_OK; i++) {
        rv = check_record(w, &a->records[i]);
        a->bytes += bns_wal_framed(bns_wal_record_len(&a->records[i]));
    }
    if (rv != BNS_OK)
        return rv;
    if (a->bytes > WAL_BATCH_MAX)
        return BNS_E_TOOBIG;
    fits = a->bytes <= tail->bytes - tail->used;
    if (!fits || !tail->ready) {
        if (w->spare.state == WAL_SPARE_FAILED && w->spare.dip)
            return BNS_E_NOSPACE;
        if (w->queued_bytes + a->bytes > WAL_QUEUE_MAX)
            return BNS_E_BUSY;
    }
    a->heads = a->heads_inline;
    if (a->records_count > BNS_WAL_HEADS_INLINE)
        a->heads = bns_alloc_array(w->env->alloc, a->records_count, WAL_HEAD_BYTES);
    if (a->heads == NULL)
        return BNS_E_NOMEM;
    if (!fits)
        rv = roll(w, a->bytes);
    if (rv != BNS_OK) {
        heads_free(w, a);
        return rv;
    }
    bns_timer_stop(w->env, &w->seal_timer);
    enqueue(w, a);
    bns_wal_spare_pump(w);
    return BNS_OK;
}

/* ---- seal ------------------------------------------------------------------------------------ */

void bns_wal_arm_seal(struct bns_wal *w)
{
    if (!w->sealed && !w->poisoned)
        bns_timer_start(w->env, &w->seal_timer, bns_now_ns(w->env) + SEAL_IDLE_NS);
}

/* A full segment needs no seal: the next one's checkpoint will prove the same. */
static bool seal_now(struct bns_wal *w)
{
    struct bns_wal_segment *tail = bns_wal_tail(w);

    if (w->sealed || w->poisoned || w->inflight > 0 || !tail->ready)
        return false;
    if (tail->bytes - tail->used < WAL_HEAD_BYTES)
        return false;
    w->seal_record = (struct bns_wal_record){.type = BNS_WAL_SEAL};
    w->seal.records = &w->seal_record;
    w->seal.records_count = 1;
    w->seal.bytes = WAL_HEAD_BYTES;
    w->seal.heads = w->seal.heads_inline;
    w->seal.done = NULL;
    enqueue(w, &w->seal);
    return true;
}

void bns_wal_seal_fire(void *arg)
{
    struct bns_wal *w = arg;

    (void)seal_now(w); /* not now: the next completion arms the timer again */
}

/* ---- queries and release --------------------------------------------------------------------- */

uint64_t bns_wal_durable_lsn(const struct bns_wal *w)
{
    return w->durable_lsn;
}

void bns_wal_stats(const struct bns_wal *w, struct bns_wal_stats *out)
{
    *out = (struct bns_wal_stats){
        .syncs = w->syncs,
        .records = w->records,
        .bytes = w->bytes,
        .segments = w->segments_count,
        .durable_lsn = w->durable_lsn,
        .next_lsn = w->next_lsn,
    };
}

void bns_wal_release(struct bns_wal *w, uint32_t group, uint64_t lsn_first)
{
    struct bns_wal_group *g = bns_wal_group_find(&w->groups, group);
    struct bns_list *oldest = w->segments.next;
    uint64_t needed;

    if (g == NULL)
        return;
    needed = g->needed_lsn;
    if (lsn_first == BNS_NEVER)
        bns_wal_group_forget(&w->groups, group);
    else if (lsn_first > needed)
        g->needed_lsn = lsn_first < w->next_lsn ? lsn_first : w->next_lsn;
    /* Only a group that held the oldest segment can have set it free. */
    if (needed <= BNS_CONTAINER(oldest, struct bns_wal_segment, node)->last_lsn)
        bns_wal_release_segments(w);
}

/* ---- close ----------------------------------------------------------------------------------- */

static void finish(struct bns_task *t)
{
    struct bns_wal *w = BNS_CONTAINER(t, struct bns_wal, finish);
    const struct bns_alloc *alloc = w->env->alloc;
    void (*done)(void *arg) = w->close_done;
    void *arg = w->close_arg;
    struct bns_list *n;

    bns_worker_free(w->env, w->worker);
    while ((n = bns_list_pop(&w->segments)) != NULL)
        bns_wal_segment_free(w, BNS_CONTAINER(n, struct bns_wal_segment, node));
    while ((n = bns_list_pop(&w->recycled)) != NULL) /* the next open removes the files */
        bns_wal_segment_free(w, BNS_CONTAINER(n, struct bns_wal_segment, node));
    bns_file_close(w->spare.file);
    bns_wal_groups_free(&w->groups);
    bns_free(alloc, w);
    done(arg);
}

/* Segments whose file never came: their batches were accepted, but never promised. */
static void drop_waiting(struct bns_wal *w)
{
    struct bns_list failed;
    struct bns_list *n;

    bns_list_init(&failed);
    while (!bns_wal_tail(w)->ready) {
        struct bns_wal_segment *s = bns_wal_tail(w);
        bns_list_splice(&s->waiting, &failed); /* keeps append order across segments */
        bns_list_splice(&failed, &s->waiting);
        w->next_lsn = s->first_lsn;
        bns_list_del(&s->node);
        w->segments_count--;
        bns_list_del(&s->checkpoint.job.node);
        bns_wal_segment_free(w, s);
    }
    w->queued_bytes = 0;
    while ((n = bns_list_pop(&failed)) != NULL) {
        struct bns_wal_append *a = BNS_CONTAINER(n, struct bns_wal_append, job.node);
        heads_free(w, a);
        a->done(a, w->poisoned ? BNS_E_IO : BNS_E_NOSPACE);
    }
}

/* Called after anything completed; while closing it leads to the end, step by step. */
void bns_wal_progress(struct bns_wal *w)
{
    if (!w->closing || w->finish_posted)
        return;
    if (w->inflight > 0 || w->spare.state == WAL_SPARE_MAKING)
        return;
    if (w->space_running || w->remove_running)
        return;
    drop_waiting(w);
    if (seal_now(w))
        return;
    w->finish_posted = true;
    w->finish.fn = finish;
    bns_post(w->env, &w->finish);
}

void bns_wal_close(struct bns_wal *w, void (*done)(void *arg), void *arg)
{
    BNS_ASSERT(!w->closing);
    w->closing = true;
    w->close_done = done;
    w->close_arg = arg;
    bns_timer_stop(w->env, &w->seal_timer);
    bns_timer_stop(w->env, &w->retry_timer);
    if (w->spare.state == WAL_SPARE_FAILED) { /* one last try for batches that wait */
        w->spare.state = WAL_SPARE_NONE;
        bns_wal_spare_pump(w);
    }
    bns_wal_progress(w);
}
