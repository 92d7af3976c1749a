/* dir.c - a log directory as the loop sees it: partitions by name, operations out and back, ticks.
 *
 * An operation goes to the worker, or to the pool when it only reads, and comes back with what it
 * found and with a view of its partition; the view here is the one that came last from the worker,
 * whose answers come in order. A partition that was deleted leaves the maps at once and is freed
 * when nothing of it is under way.
 *
 * The directory's own work (opening, checkpoints, retention, unlinking, closing) is made of steps:
 * a step is an operation without a partition. A long one does a part of it and asks to be called
 * again, so that appends come in between.
 */
#include <stdio.h>
#include <string.h>

#include "log/dir_int.h"

#define OPS_MAX 16384u
#define BYTES_MAX (UINT64_C(256) << 20)

void kafka_part_cfg_default(struct kafka_part_cfg *cfg)
{
    *cfg = (struct kafka_part_cfg){.batch_bytes_max = 1048588,
                                   .retain = true,
                                   .time_before_max_ms = INT64_MAX,
                                   .time_after_max_ms = 3600000,
                                   .retention_ms = INT64_C(604800000),
                                   .retention_bytes = -1};
    kafka_log_cfg_default(&cfg->log);
}

void kafka_dir_cfg_default(struct kafka_dir_cfg *cfg)
{
    *cfg = (struct kafka_dir_cfg){.cluster_id = "",
                                  .flush = KAFKA_FLUSH_GROUP,
                                  .ops_max = OPS_MAX,
                                  .bytes_max = BYTES_MAX,
                                  .producer_expiry_ms = 24 * 3600 * 1000,
                                  .checkpoint_every_ns = 60 * BNS_SEC,
                                  .retention_every_ns = 300 * BNS_SEC};
}

bool kafka_dir_failed(const struct kafka_dir *d)
{
    return d->failed;
}

const char *kafka_dir_why(const struct kafka_dir *d)
{
    return d->why;
}

const struct kafka_dir_id *kafka_dir_meta(const struct kafka_dir *d)
{
    return &d->meta;
}

size_t kafka_dir_count(const struct kafka_dir *d)
{
    return d->count;
}

size_t kafka_dir_ops(const struct kafka_dir *d)
{
    return d->ops;
}

const char *kafka_part_topic(const struct kafka_part *p)
{
    return p->topic;
}

int32_t kafka_part_index(const struct kafka_part *p)
{
    return p->index;
}

const struct kafka_uuid *kafka_part_id(const struct kafka_part *p)
{
    return &p->id;
}

const struct kafka_part_view *kafka_part_view(const struct kafka_part *p)
{
    return &p->view;
}

const struct kafka_part_cfg *kafka_part_cfg(const struct kafka_part *p)
{
    return &p->cfg;
}

struct kafka_dir *kafka_part_dir(const struct kafka_part *p)
{
    return p->dir;
}

void **kafka_part_user(struct kafka_part *p)
{
    return &p->user;
}

/* ---- partitions ------------------------------------------------------------------------------ */

static uint64_t name_hash(const struct kafka_dir *d, struct bns_slice topic, int32_t index)
{
    return bns_hash_u64(bns_hash(d->seed, topic.ptr, topic.len), (uint64_t)index);
}

static uint64_t id_hash(const struct kafka_dir *d, const struct kafka_uuid *id, int32_t index)
{
    return bns_hash_u64(bns_hash(d->seed, id->bytes, sizeof id->bytes), (uint64_t)index);
}

struct kafka_part *kafka_dir_find_any(struct kafka_dir *d, struct bns_slice topic, int32_t index)
{
    struct bns_hnode *n = bns_hmap_find(&d->by_name, name_hash(d, topic, index));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, by_name);
        if (p->index == index && strlen(p->topic) == topic.len &&
            memcmp(p->topic, topic.ptr, topic.len) == 0)
            return p;
    }
    return NULL;
}

struct kafka_part *kafka_dir_find(struct kafka_dir *d, struct bns_slice topic, int32_t index)
{
    struct kafka_part *p = kafka_dir_find_any(d, topic, index);

    return p != NULL && p->live ? p : NULL;
}

struct kafka_part *kafka_dir_find_id(struct kafka_dir *d, const struct kafka_uuid *id,
                                     int32_t index)
{
    struct bns_hnode *n = bns_hmap_find(&d->by_id, id_hash(d, id, index));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, by_id);
        if (p->index == index && memcmp(&p->id, id, sizeof *id) == 0)
            return p->live ? p : NULL;
    }
    return NULL;
}

struct kafka_part *kafka_dir_next(struct kafka_dir *d, struct kafka_part *p)
{
    struct bns_list *n = p == NULL ? d->parts.next : p->all.next;

    for (; n != &d->parts; n = n->next) {
        p = BNS_CONTAINER(n, struct kafka_part, all);
        if (p->live)
            return p;
    }
    return NULL;
}

struct kafka_part *kafka_part_new(struct kafka_dir *d, const char *topic, int32_t index)
{
    struct kafka_part *p = bns_alloc_zero(d->env->alloc, sizeof *p);

    if (p == NULL)
        return NULL;
    if (pthread_mutex_init(&p->lock, NULL) != 0) {
        bns_free(d->env->alloc, p);
        return NULL;
    }
    p->dir = d;
    p->index = index;
    (void)snprintf(p->topic, sizeof p->topic, "%s", topic); /* checked to be short enough */
    bns_list_init(&p->all);
    bns_list_init(&p->node);
    bns_list_init(&p->touched);
    kafka_part_cfg_default(&p->cfg);
    p->now = p->cfg;
    kafka_producers_init(&p->producers, d->env->alloc, KAFKA_PRODUCERS_MAX);
    return p;
}

int kafka_part_name_it(struct kafka_part *p)
{
    struct kafka_dir *d = p->dir;
    struct bns_slice topic = bns_slice(p->topic, strlen(p->topic));
    int rv;

    if (kafka_dir_find_any(d, topic, p->index) != NULL)
        return BNS_E_EXISTS;
    rv = bns_hmap_insert(&d->by_name, &p->by_name, name_hash(d, topic, p->index));
    if (rv != BNS_OK)
        return rv;
    rv = bns_hmap_insert(&d->by_id, &p->by_id, id_hash(d, &p->id, p->index));
    if (rv != BNS_OK) {
        bns_hmap_del(&d->by_name, &p->by_name);
        return rv;
    }
    bns_list_push(&d->parts, &p->all);
    p->named = true;
    d->count++;
    return BNS_OK;
}

static void unname(struct kafka_part *p)
{
    if (!p->named)
        return;
    bns_hmap_del(&p->dir->by_name, &p->by_name);
    bns_hmap_del(&p->dir->by_id, &p->by_id);
    bns_list_del(&p->all);
    p->named = p->live = false;
    p->dir->count--;
}

void kafka_part_free(struct kafka_part *p)
{
    unname(p);
    kafka_log_close(p->log);
    kafka_producers_free(&p->producers);
    (void)pthread_mutex_destroy(&p->lock); /* nobody has it */
    bns_free(p->dir->env->alloc, p);
}

/* ---- operations ------------------------------------------------------------------------------ */

static void finish_close(struct kafka_dir *d);
static void sweep(struct kafka_dir *d);

/* What the worker said of the directory, in the order of its answers. */
static void take_failure(struct kafka_dir *d)
{
    if (d->failed)
        return;
    d->failed = true;
    (void)snprintf(d->why, sizeof d->why, "%s", d->broken_why.text);
    BNS_LOG(d->env->log, BNS_LOG_ERROR, "kafka", "the log directory has failed",
            BNS_STR("dir", d->path), BNS_STR("why", d->why));
    if (d->cfg.on_advance != NULL && d->state == DIR_OPEN)
        d->cfg.on_advance(d->cfg.arg, NULL);
}

static size_t bytes_of(const struct kafka_op *op)
{
    return op->kind == KAFKA_OP_APPEND ? BNS_CONTAINER(op, const struct kafka_op_append, op)->len
                                       : 0;
}

/* The caller hears of it, and the partition may go. */
static void answer(struct kafka_dir *d, struct kafka_op *op)
{
    struct kafka_part *p = op->part;
    bool moved = false, last = op->kind == KAFKA_OP_DELETE;

    if (op->after.segments > 0) {
        moved =
            p->view.high_watermark != op->after.high_watermark || p->view.begin != op->after.begin;
        p->view = op->after;
    }
    if (op->dir_failed)
        take_failure(d);
    if (op->kind == KAFKA_OP_CREATE) {
        p->live = op->error == ERR_NONE;
        last = !p->live;
        moved = false;
        op->part = p->live ? p : NULL;
    }
    if (op->kind == KAFKA_OP_CONFIG)
        p->cfg = BNS_CONTAINER(op, struct kafka_op_config, op)->cfg;
    if (last)
        unname(p);
    d->ops--;
    d->bytes -= bytes_of(op);
    op->done(op);
    if (moved && p->live && d->cfg.on_advance != NULL)
        d->cfg.on_advance(d->cfg.arg, p);
    p->ops--;
    if (!p->named && p->ops == 0)
        kafka_part_free(p);
    if (last)
        sweep(d);
    finish_close(d);
}

static void op_done(struct bns_job *job)
{
    struct kafka_op *op = BNS_CONTAINER(job, struct kafka_op, job);

    answer(op->part->dir, op);
}

static int submit(struct kafka_part *p, struct kafka_op *op, enum kafka_op_kind kind)
{
    struct kafka_dir *d = p->dir;

    op->kind = (int)kind;
    if (d->state != DIR_OPEN)
        return BNS_E_SHUTDOWN;
    if (d->ops >= d->cfg.ops_max || bytes_of(op) > d->cfg.bytes_max - d->bytes)
        return BNS_E_BUSY;
    d->ops++;
    d->bytes += bytes_of(op);
    p->ops++;
    op->part = p;
    op->error = ERR_NONE;
    op->dir_failed = false;
    op->err = (struct bns_err){0};
    op->after = (struct kafka_part_view){0};
    op->job = (struct bns_job){.run = kafka_dir_pool, .done = op_done};
    if (kind > KAFKA_OP_POOL)
        bns_pool_submit(d->env, &op->job);
    else
        bns_worker_submit(d->env, d->worker, &op->job);
    return BNS_OK;
}

int kafka_part_create(struct kafka_dir *d, struct kafka_op_create *op)
{
    char name[KAFKA_NAME_MAX], topic[KAFKA_TOPIC_MAX + 1];
    struct kafka_part *p;
    int32_t index = 0;
    int rv, len = snprintf(name, sizeof name, "%.249s-%d", op->topic, (int)op->index);

    if (d->state != DIR_OPEN)
        return BNS_E_SHUTDOWN;
    if (len < 0 || len >= KAFKA_NAME_MAX || !kafka_part_parse(name, topic, &index) ||
        strcmp(topic, op->topic) != 0)
        return BNS_E_INVALID;
    p = kafka_part_new(d, op->topic, op->index);
    if (p == NULL)
        return BNS_E_NOMEM;
    p->id = op->id;
    p->cfg = p->now = op->cfg;
    rv = kafka_part_name_it(p);
    if (rv == BNS_OK) {
        op->now_ms = bns_wall_ms(d->env);
        rv = submit(p, &op->op, KAFKA_OP_CREATE);
    }
    if (rv != BNS_OK)
        kafka_part_free(p);
    return rv;
}

int kafka_part_delete(struct kafka_part *p, struct kafka_op_delete *op)
{
    int rv;

    BNS_ASSERT(p->live);
    rv = submit(p, &op->op, KAFKA_OP_DELETE);
    if (rv == BNS_OK)
        unname(p);
    return rv;
}

int kafka_part_set_cfg(struct kafka_part *p, struct kafka_op_config *op)
{
    return submit(p, &op->op, KAFKA_OP_CONFIG);
}

int kafka_part_append(struct kafka_part *p, struct kafka_op_append *op)
{
    op->now_ms = bns_wall_ms(p->dir->env);
    return submit(p, &op->op, KAFKA_OP_APPEND);
}

int kafka_part_read(struct kafka_part *p, struct kafka_op_read *op)
{
    if (op->below > p->view.high_watermark)
        op->below = p->view.high_watermark;
    op->high_watermark = p->view.high_watermark;
    return submit(p, &op->op, KAFKA_OP_READ);
}

int kafka_part_offset_for_time(struct kafka_part *p, struct kafka_op_time *op)
{
    op->below = p->view.high_watermark;
    return submit(p, &op->op, KAFKA_OP_TIME);
}

int kafka_part_delete_records(struct kafka_part *p, struct kafka_op_delete_records *op)
{
    return submit(p, &op->op, KAFKA_OP_DELETE_RECORDS);
}

int kafka_part_epoch_end(struct kafka_part *p, struct kafka_op_epoch_end *op)
{
    return submit(p, &op->op, KAFKA_OP_EPOCH_END);
}

int kafka_part_producers(struct kafka_part *p, struct kafka_op_producers *op)
{
    return submit(p, &op->op, KAFKA_OP_PRODUCERS);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void checkpoint_done(struct kafka_op *op);
static void retain_done(struct kafka_op *op);

static void step_done(struct bns_job *job)
{
    struct kafka_step *s = BNS_CONTAINER(job, struct kafka_step, op.job);
    struct kafka_dir *d = s->op.arg;

    s->busy = false;
    d->ops--;
    if (s->op.dir_failed)
        take_failure(d);
    s->op.done(&s->op); /* the last: it may free the directory */
}

void kafka_dir_step(struct kafka_dir *d, struct kafka_step *s)
{
    BNS_ASSERT(!s->busy);
    s->busy = true;
    d->ops++;
    s->op.arg = d;
    s->op.kind = KAFKA_OP_STEP;
    s->op.dir_failed = false;
    s->op.err = (struct bns_err){0};
    s->now_ms = bns_wall_ms(d->env);
    s->code = BNS_OK;
    s->op.job = (struct bns_job){.done = step_done};
    bns_worker_submit(d->env, d->worker, &s->op.job);
}

static void begin(struct kafka_dir *d, struct kafka_step *s, kafka_step_fn *run,
                  void (*done)(struct kafka_op *))
{
    if (s->busy || d->state != DIR_OPEN)
        return;
    s->run = run;
    s->op.done = done;
    kafka_dir_step(d, s);
}

static void on_checkpoint(void *arg)
{
    struct kafka_dir *d = arg;

    begin(d, &d->checkpointer, kafka_dir_checkpoint, checkpoint_done);
}

static void checkpoint_done(struct kafka_op *op)
{
    struct kafka_dir *d = op->arg;

    if (d->checkpointer.code != BNS_OK)
        BNS_LOG(d->env->log, BNS_LOG_WARN, "kafka", "checkpoints were not written",
                BNS_STR("why", op->err.text));
    if (d->state == DIR_OPEN)
        bns_timer_start(d->env, &d->checkpoint_timer,
                        bns_now_ns(d->env) + d->cfg.checkpoint_every_ns);
    finish_close(d);
}

static void on_retention(void *arg)
{
    struct kafka_dir *d = arg;

    begin(d, &d->retainer, kafka_dir_retain, retain_done);
}

/* Every partition's view, some of which are older than what retention left. */
static void retain_done(struct kafka_op *op)
{
    struct kafka_dir *d = op->arg;

    if (d->retainer.code != BNS_OK)
        BNS_LOG(d->env->log, BNS_LOG_WARN, "kafka", "retention stopped",
                BNS_STR("why", op->err.text));
    for (size_t i = 0; i < d->changed_count; i++) {
        struct kafka_changed *c = &d->changed[i];
        bool moved = c->part->view.begin != c->view.begin ||
                     c->part->view.high_watermark != c->view.high_watermark;
        if (!c->part->live)
            continue;
        c->part->view = c->view;
        if (moved && d->cfg.on_advance != NULL)
            d->cfg.on_advance(d->cfg.arg, c->part);
    }
    if (d->state == DIR_OPEN && d->retainer.more)
        kafka_dir_step(d, &d->retainer);
    else if (d->state == DIR_OPEN)
        bns_timer_start(d->env, &d->retention_timer,
                        bns_now_ns(d->env) + d->cfg.retention_every_ns);
    finish_close(d);
}

static void sweep_done(struct kafka_op *op)
{
    struct kafka_dir *d = op->arg;

    if (d->sweeper.code != BNS_OK)
        BNS_LOG(d->env->log, BNS_LOG_WARN, "kafka", "a deleted partition is not unlinked",
                BNS_STR("why", op->err.text));
    if (d->state == DIR_OPEN && d->sweeper.code == BNS_OK && (d->sweeper.more || d->sweep_again))
        sweep(d);
    finish_close(d);
}

static void sweep(struct kafka_dir *d)
{
    d->sweep_again = d->sweeper.busy;
    begin(d, &d->sweeper, kafka_dir_sweep, sweep_done);
}

/* ---- open and close -------------------------------------------------------------------------- */

static void tell_recovery(struct kafka_dir *d, const struct kafka_part *p)
{
    const struct kafka_log_report *r = &p->report;

    if (r->cut_segment >= 0 || r->segments_dropped > 0)
        BNS_LOG(d->env->log, BNS_LOG_WARN, "kafka", "the end of a log was cut",
                BNS_STR("topic", p->topic), BNS_I64("partition", p->index),
                BNS_I64("segment", r->cut_segment), BNS_U64("at", r->cut_at),
                BNS_U64("bytes", r->bytes_cut), BNS_U64("segments", r->segments_dropped),
                BNS_STR("why", r->why));
}

static void opened(struct kafka_op *op)
{
    struct kafka_dir *d = op->arg;
    int code = d->opener.code;

    if (code == BNS_OK && d->opener.run == kafka_dir_scan) { /* now the partitions are known */
        BNS_LIST_EACH(n, &d->parts)
        {
            struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, all);
            if (d->cfg.part_cfg != NULL)
                d->cfg.part_cfg(d->cfg.arg, p, &p->cfg);
            p->now = p->cfg;
        }
        d->opener.run = kafka_dir_load;
        kafka_dir_step(d, &d->opener);
        return;
    }
    d->state = code == BNS_OK ? DIR_OPEN : DIR_BROKEN;
    if (code == BNS_OK) {
        BNS_LIST_EACH(n, &d->parts)
        {
            struct kafka_part *p = BNS_CONTAINER(n, struct kafka_part, all);
            p->live = true;
            kafka_dir_view(p, &p->view);
            tell_recovery(d, p);
        }
        bns_timer_start(d->env, &d->checkpoint_timer,
                        bns_now_ns(d->env) + d->cfg.checkpoint_every_ns);
        if (d->cfg.retention_every_ns > 0)
            bns_timer_start(d->env, &d->retention_timer,
                            bns_now_ns(d->env) + d->cfg.retention_every_ns);
        sweep(d);
    }
    d->fn(d->fn_arg, code, &op->err);
}

int kafka_dir_open(struct bns_env *env, const struct kafka_dir_cfg *cfg, kafka_dir_fn *fn,
                   void *arg, struct kafka_dir **out, struct bns_err *err)
{
    struct kafka_dir *d;
    int rv;

    if (strlen(cfg->path) + KAFKA_NAME_MAX + 48 > BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: path of a log directory too long",
                           cfg->path);
    if (strlen(cfg->cluster_id) >= sizeof d->meta.cluster_id)
        return bns_err_set(err, BNS_E_INVALID, "%.64s...: a cluster id too long", cfg->cluster_id);
    d = bns_alloc_zero(env->alloc, sizeof *d);
    if (d == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a log directory", cfg->path);
    d->env = env;
    d->cfg = *cfg;
    d->fn = fn;
    d->fn_arg = arg;
    (void)snprintf(d->path, sizeof d->path, "%s", cfg->path); /* lengths checked above */
    (void)snprintf(d->meta.cluster_id, sizeof d->meta.cluster_id, "%s", cfg->cluster_id);
    bns_hmap_init(&d->by_name, env->alloc);
    bns_hmap_init(&d->by_id, env->alloc);
    bns_list_init(&d->parts);
    bns_list_init(&d->open);
    bns_list_init(&d->touched);
    bns_timer_init(&d->checkpoint_timer, on_checkpoint, d);
    bns_timer_init(&d->retention_timer, on_retention, d);
    rv = bns_entropy(env, d->random, sizeof d->random);
    if (rv == BNS_OK)
        rv = bns_entropy(env, &d->seed, sizeof d->seed);
    if (rv == BNS_OK)
        rv = bns_worker_new(env, "log", kafka_dir_work, d, &d->worker);
    if (rv != BNS_OK) {
        bns_free(env->alloc, d);
        return bns_err_set(err, rv, "%s: no worker for a log directory", cfg->path);
    }
    d->state = DIR_OPENING;
    d->opener.run = kafka_dir_scan;
    d->opener.op.done = opened;
    kafka_dir_step(d, &d->opener);
    *out = d;
    return BNS_OK;
}

static void free_it(struct bns_task *t)
{
    struct kafka_dir *d = BNS_CONTAINER(t, struct kafka_dir, last);

    bns_worker_free(d->env, d->worker);
    d->fn(d->fn_arg, d->opener.code, &d->opener.op.err);
    BNS_LIST_EACH(n, &d->parts)
    {
        kafka_part_free(BNS_CONTAINER(n, struct kafka_part, all));
    }
    bns_hmap_free(&d->by_name);
    bns_hmap_free(&d->by_id);
    bns_free(d->env->alloc, d);
}

static void closed(struct kafka_op *op)
{
    struct kafka_dir *d = op->arg;

    d->last.fn = free_it; /* a worker is not freed from within its last answer */
    bns_post(d->env, &d->last);
}

/* When nothing is under way any more the directory is sealed, by its last step. */
static void finish_close(struct kafka_dir *d)
{
    if (d->state != DIR_CLOSING || d->ops > 0 || d->opener.busy)
        return;
    d->opener.run = kafka_dir_seal;
    d->opener.op.done = closed;
    kafka_dir_step(d, &d->opener);
}

void kafka_dir_close(struct kafka_dir *d, kafka_dir_fn *fn, void *arg)
{
    BNS_ASSERT(d->state == DIR_OPEN || d->state == DIR_BROKEN);
    d->state = DIR_CLOSING;
    d->fn = fn;
    d->fn_arg = arg;
    bns_timer_stop(d->env, &d->checkpoint_timer);
    bns_timer_stop(d->env, &d->retention_timer);
    finish_close(d);
}
