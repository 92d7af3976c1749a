/* dir_work.c - operations on the worker, group by group, and on the pool.
 *
 * A group is what was queued when the worker came to it. First every operation is made, in order;
 * then each partition that was written is synced, without its lock, so that readers go on; then the
 * answers are filled in: what a failed sync covered answers 56. So a group costs one fdatasync a
 * partition, however many appends it has.
 */
#include <string.h>

#include "log/dir_int.h"

int16_t kafka_dir_error(int rv)
{
    switch (rv) {
    case BNS_OK:
        return ERR_NONE;
    case BNS_E_NOMEM:
    case BNS_E_TOOBIG: /* of a buffer */
        return ERR_UNKNOWN;
    case BNS_E_CORRUPT:
        return ERR_CORRUPT;
    case BNS_E_NOTFOUND:
        return ERR_OFFSET_RANGE;
    case BNS_E_EXISTS:
        return ERR_EXISTS;
    default:
        return ERR_STORAGE;
    }
}

void kafka_dir_break(struct kafka_dir *d, int rv, const struct bns_err *err)
{
    if (d->broken)
        return;
    d->broken_why = *err;
    d->broken_why.code = rv;
    d->broken = true;
}

void kafka_dir_touch(struct kafka_part *p, bool sync)
{
    if (!p->is_touched)
        bns_list_push(&p->dir->touched, &p->touched);
    p->is_touched = true;
    p->wants_sync = p->wants_sync || sync;
}

void kafka_dir_view(struct kafka_part *p, struct kafka_part_view *out)
{
    struct kafka_log *log = p->log;
    bool all = p->dir->cfg.flush == KAFKA_FLUSH_OS;

    if (log == NULL)
        return;
    *out = (struct kafka_part_view){.begin = kafka_log_begin(log),
                                    .end = kafka_log_end(log),
                                    .flushed = kafka_log_flushed(log),
                                    .bytes = kafka_log_bytes(log),
                                    .segments = (uint32_t)kafka_log_segments(log),
                                    .epoch = kafka_epochs_latest(&log->epochs)};
    out->high_watermark = all ? out->end : out->flushed;
    out->producers = (uint32_t)kafka_producers_count(&p->producers);
    out->last_stable = kafka_producers_first_open(&p->producers);
    if (out->last_stable > out->high_watermark)
        out->last_stable = out->high_watermark;
}

static void lock(struct kafka_part *p)
{
    BNS_ASSERT(pthread_mutex_lock(&p->lock) == 0);
}

static void unlock(struct kafka_part *p)
{
    BNS_ASSERT(pthread_mutex_unlock(&p->lock) == 0);
}

/* ---- the worker ------------------------------------------------------------------------------ */

static void run_create(struct kafka_dir *d, struct kafka_op_create *op)
{
    struct kafka_part *p = op->op.part;
    static const struct kafka_uuid none;
    char id[KAFKA_UUID_TEXT];
    int rv;

    if (d->broken) {
        op->op.error = ERR_STORAGE;
        return;
    }
    kafka_uuid_text(&op->id, id);
    lock(p);
    rv = kafka_part_open(p, memcmp(&op->id, &none, sizeof none) == 0 ? NULL : id, op->now_ms,
                         &op->op.err);
    unlock(p);
    op->op.error = rv == BNS_E_CONFLICT ? ERR_EXISTS : kafka_dir_error(rv);
}

static void run_delete(struct kafka_dir *d, struct kafka_op_delete *op)
{
    int rv = kafka_part_remove(op->op.part, &op->op.err);

    if (rv == BNS_OK)
        rv = kafka_dir_checkpoint(d, NULL, &op->op.err); /* a namesake must not find its offsets */
    if (rv != BNS_OK && rv != BNS_E_NOSPACE)
        kafka_dir_break(d, rv, &op->op.err);
    op->op.error = kafka_dir_error(rv);
}

static void run_config(struct kafka_op_config *op)
{
    struct kafka_part *p = op->op.part;

    lock(p);
    p->now = op->cfg;
    if (p->log != NULL)
        kafka_log_set_cfg(p->log, &op->cfg.log);
    unlock(p);
}

static void run_delete_records(struct kafka_dir *d, struct kafka_op_delete_records *op)
{
    struct kafka_part *p = op->op.part;
    struct kafka_part_view v = {0};
    int rv = BNS_OK;

    lock(p);
    kafka_dir_view(p, &v);
    if (p->log == NULL) {
        op->op.error = ERR_UNKNOWN_PARTITION;
    } else if (d->broken) {
        op->op.error = ERR_STORAGE;
    } else if (op->offset > v.high_watermark || op->offset < -1) {
        op->op.error = ERR_OFFSET_RANGE;
    } else {
        rv = kafka_log_advance(p->log, op->offset == -1 ? v.high_watermark : op->offset,
                               &op->op.err);
        op->op.error = kafka_dir_error(rv);
        op->low_watermark = kafka_log_begin(p->log);
        d->starts_changed = true;
    }
    unlock(p);
}

static void run_step(struct kafka_dir *d, struct kafka_step *s)
{
    s->more = false;
    s->code = s->run(d, s, &s->op.err);
}

static void run(struct kafka_dir *d, struct kafka_op *op)
{
    switch ((enum kafka_op_kind)op->kind) {
    case KAFKA_OP_CREATE:
        run_create(d, BNS_CONTAINER(op, struct kafka_op_create, op));
        return;
    case KAFKA_OP_DELETE:
        run_delete(d, BNS_CONTAINER(op, struct kafka_op_delete, op));
        return;
    case KAFKA_OP_CONFIG:
        run_config(BNS_CONTAINER(op, struct kafka_op_config, op));
        return;
    case KAFKA_OP_APPEND:
        lock(op->part);
        kafka_dir_append(d, BNS_CONTAINER(op, struct kafka_op_append, op));
        unlock(op->part);
        return;
    case KAFKA_OP_DELETE_RECORDS:
        run_delete_records(d, BNS_CONTAINER(op, struct kafka_op_delete_records, op));
        return;
    case KAFKA_OP_STEP:
        run_step(d, BNS_CONTAINER(op, struct kafka_step, op));
        return;
    case KAFKA_OP_POOL:
    case KAFKA_OP_READ:
    case KAFKA_OP_TIME:
    case KAFKA_OP_EPOCH_END:
    case KAFKA_OP_PRODUCERS:
        break;
    }
    BNS_ASSERT(false);
}

static void sync_part(struct kafka_dir *d, struct kafka_part *p)
{
    struct kafka_sync s = {0};
    struct bns_err err = {0};
    int rv;

    if (p->log == NULL || (d->cfg.flush == KAFKA_FLUSH_OS && !p->wants_sync))
        return;
    lock(p);
    rv = kafka_log_sync_begin(p->log, &s, &err);
    unlock(p);
    if (rv == BNS_OK) {
        rv = kafka_log_sync_run(&s, &err);
        lock(p);
        rv = kafka_log_sync_end(p->log, &s, rv);
        unlock(p);
    }
    if (rv != BNS_OK)
        kafka_dir_break(d, rv, &err);
}

static void sync_all(struct kafka_dir *d)
{
    struct bns_err err = {0};
    struct bns_list *n;

    while ((n = bns_list_pop(&d->touched)) != NULL) {
        struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, touched);
        sync_part(d, p);
        p->is_touched = p->wants_sync = false;
    }
    if (d->starts_changed && !d->broken) {
        int rv = kafka_dir_save_starts(d, &err);
        if (rv == BNS_OK)
            d->starts_changed = false;
        else if (rv != BNS_E_NOSPACE)
            kafka_dir_break(d, rv, &err);
    }
}

static void finish(struct kafka_dir *d, struct kafka_op *op)
{
    struct kafka_part *p = op->part;

    op->dir_failed = d->broken;
    if (op->kind == KAFKA_OP_STEP)
        return;
    lock(p);
    kafka_dir_view(p, &op->after);
    unlock(p);
    if (op->kind == KAFKA_OP_DELETE_RECORDS && op->error == ERR_NONE && d->starts_changed)
        op->error = ERR_STORAGE;
    if (op->kind == KAFKA_OP_APPEND && op->error == ERR_NONE) {
        struct kafka_op_append *a = BNS_CONTAINER(op, struct kafka_op_append, op);
        if (op->after.segments == 0)
            op->error = ERR_UNKNOWN_PARTITION; /* deleted by this very group */
        else if ((d->cfg.flush == KAFKA_FLUSH_GROUP || a->sync) && op->after.flushed <= a->base)
            op->error = ERR_STORAGE;
    }
    if (op->error == ERR_STORAGE && op->err.text[0] == '\0')
        (void)bns_err_set(&op->err, BNS_E_IO, "%s", d->broken_why.text);
}

void kafka_dir_work(void *arg, struct bns_list *jobs)
{
    struct kafka_dir *d = arg;

    BNS_LIST_EACH(n, jobs)
    {
        run(d, BNS_CONTAINER(BNS_CONTAINER(n, struct bns_job, node), struct kafka_op, job));
    }
    sync_all(d);
    BNS_LIST_EACH(m, jobs)
    {
        finish(d, BNS_CONTAINER(BNS_CONTAINER(m, struct bns_job, node), struct kafka_op, job));
    }
}

/* ---- the pool -------------------------------------------------------------------------------- */

static int run_read(struct kafka_part *p, struct kafka_op_read *op)
{
    struct kafka_want want = {.offset = op->offset,
                              .below = op->below,
                              .bytes_max = op->bytes_max,
                              .one_at_least = op->one_at_least};
    struct kafka_range range = {0};
    size_t room = op->to->max - op->to->len;
    int rv;

    op->bytes = 0;
    op->base = op->offset;
    if (op->offset > op->high_watermark)
        return BNS_E_NOTFOUND;
    if (want.bytes_max > room)
        want.bytes_max = (uint32_t)room;
    rv = kafka_log_read(p->log, &want, &range, &op->op.err);
    if (rv == BNS_OK)
        rv = kafka_log_load(p->log, &range, op->to, &op->op.err);
    if (rv != BNS_OK)
        return rv;
    op->bytes = range.len;
    op->base = range.base;
    return BNS_OK;
}

static int run_time(struct kafka_part *p, struct kafka_op_time *op)
{
    struct kafka_found found = {.offset = -1, .time_ms = -1, .leader_epoch = -1};
    int64_t time_ms = op->time_ms;
    int rv = BNS_OK;

    if (time_ms == KAFKA_TIME_MAX)
        rv = kafka_log_max_time(p->log, &time_ms, &op->op.err);
    if (rv == BNS_OK)
        rv = kafka_log_offset_for_time(p->log, time_ms, &found, &op->op.err);
    if (rv == BNS_E_NOTFOUND || (rv == BNS_OK && found.offset >= op->below)) {
        found = (struct kafka_found){.offset = -1, .time_ms = -1, .leader_epoch = -1};
        rv = BNS_OK;
    }
    if (rv == BNS_OK && found.inside)
        rv = bns_err_set(&op->op.err, BNS_E_UNSUPPORTED, "a time within a compressed batch");
    op->offset = found.offset;
    op->found_ms = found.time_ms;
    op->leader_epoch = found.leader_epoch;
    return rv;
}

/* The least recent first. */
static void run_producers(struct kafka_part *p, struct kafka_op_producers *op)
{
    op->count = 0;
    op->more = false;
    BNS_LIST_EACH(n, &p->producers.ages)
    {
        const struct kafka_producer *q = BNS_CONTAINER(n, struct kafka_producer, age);
        if (op->count == op->max) {
            op->more = true;
            return;
        }
        op->views[op->count++] = (struct kafka_producer_view){
            .producer_id = q->id,
            .last_time_ms = q->time_ms,
            .txn_start = q->txn_start,
            .last_sequence = q->count == 0 ? -1 : q->batches[q->count - 1].last,
            .coordinator_epoch = q->coordinator_epoch,
            .epoch = q->epoch,
        };
    }
}

void kafka_dir_pool(struct bns_job *job)
{
    struct kafka_op *op = BNS_CONTAINER(job, struct kafka_op, job);
    struct kafka_part *p = op->part;
    int rv = BNS_OK;

    lock(p);
    if (p->log == NULL) {
        op->error = ERR_UNKNOWN_PARTITION;
    } else if (op->kind == KAFKA_OP_READ) {
        rv = run_read(p, BNS_CONTAINER(op, struct kafka_op_read, op));
    } else if (op->kind == KAFKA_OP_TIME) {
        rv = run_time(p, BNS_CONTAINER(op, struct kafka_op_time, op));
    } else if (op->kind == KAFKA_OP_PRODUCERS) {
        run_producers(p, BNS_CONTAINER(op, struct kafka_op_producers, op));
    } else {
        struct kafka_op_epoch_end *e = BNS_CONTAINER(op, struct kafka_op_epoch_end, op);
        BNS_ASSERT(op->kind == KAFKA_OP_EPOCH_END);
        e->found = kafka_log_epoch_end(p->log, e->epoch);
    }
    unlock(p);
    if (rv != BNS_OK)
        op->error = rv == BNS_E_UNSUPPORTED ? ERR_UNSUPPORTED_FORMAT : kafka_dir_error(rv);
}
