/* places.c - the log directory follows the metadata.
 *
 * Each change of a topic is a chore, done in order, a partition at a time and at most OPS_MAX of
 * them at once: a partition that is missing is created, one whose configuration is another gets
 * it, those of a topic that is gone are deleted. The directory does operations in order, so a
 * topic that is created anew finds the name free.
 *
 * A request that waits for its topics stands behind the chores that there were when it came.
 */
#include <inttypes.h>
#include <stdio.h>

#include "broker/broker.h"
#include "meta/config_table.h"

#define OPS_MAX 64u

struct chore {
    struct bns_list node;
    bool gone, all; /* all: of every topic, from `name` on */
    char name[KAFKA_TOPIC_MAX + 2];
    struct kafka_uuid id;
    int32_t next, count;
    size_t ops; /* under way */
};

struct place_op {
    struct kafka_broker *b;
    struct chore *chore;
    union {
        struct kafka_op op;
        struct kafka_op_create create;
        struct kafka_op_delete remove;
        struct kafka_op_config config;
    };
};

static void pump(struct kafka_broker *b);

static void out_of_memory(struct kafka_broker *b)
{
    bns_fatal(b->env, 1, "no memory to follow the metadata");
}

/* ---- a partition's configuration ------------------------------------------------------------- */

static int64_t number(struct kafka_broker *b, const struct kafka_topic *t, const char *key,
                      int64_t preset)
{
    struct bns_slice text = kafka_meta_topic_value(b->meta, t, key);
    int64_t n;

    return text.ptr != NULL && kafka_config_number(text, &n) == BNS_OK ? n : preset;
}

static bool says(struct kafka_broker *b, const struct kafka_topic *t, const char *key,
                 const char *word)
{
    struct bns_slice list = kafka_meta_topic_value(b->meta, t, key), one;

    while (list.ptr != NULL && kafka_config_element(&list, &one)) {
        if (bns_slice_eq(one, bns_slice_str(word)))
            return true;
    }
    return false;
}

void kafka_places_cfg(struct kafka_broker *b, const struct kafka_topic *t,
                      struct kafka_part_cfg *out)
{
    kafka_part_cfg_default(out);
    out->log.segment_bytes = (uint32_t)number(b, t, "segment.bytes", out->log.segment_bytes);
    out->log.index_interval =
        (uint32_t)number(b, t, "index.interval.bytes", out->log.index_interval);
    out->log.index_bytes = (uint32_t)number(b, t, "segment.index.bytes", out->log.index_bytes);
    out->log.segment_ms = number(b, t, "segment.ms", out->log.segment_ms);
    out->batch_bytes_max = (uint32_t)number(b, t, "max.message.bytes", out->batch_bytes_max);
    out->append_time = says(b, t, "message.timestamp.type", "LogAppendTime");
    out->compact = says(b, t, "cleanup.policy", "compact");
    out->retain = says(b, t, "cleanup.policy", "delete");
    out->log.compacted = out->compact;
    out->time_before_max_ms =
        number(b, t, "message.timestamp.before.max.ms", out->time_before_max_ms);
    out->time_after_max_ms = number(b, t, "message.timestamp.after.max.ms", out->time_after_max_ms);
    out->retention_ms = number(b, t, "retention.ms", out->retention_ms);
    out->retention_bytes = number(b, t, "retention.bytes", out->retention_bytes);
}

static bool same_cfg(const struct kafka_part_cfg *x, const struct kafka_part_cfg *y)
{
    return x->log.segment_bytes == y->log.segment_bytes &&
           x->log.index_interval == y->log.index_interval &&
           x->log.index_bytes == y->log.index_bytes && x->log.segment_ms == y->log.segment_ms &&
           x->batch_bytes_max == y->batch_bytes_max && x->append_time == y->append_time &&
           x->compact == y->compact && x->retain == y->retain &&
           x->time_before_max_ms == y->time_before_max_ms &&
           x->time_after_max_ms == y->time_after_max_ms && x->retention_ms == y->retention_ms &&
           x->retention_bytes == y->retention_bytes;
}

static void furnish(struct kafka_broker *b, const struct kafka_topic *t, struct kafka_part *p)
{
    struct kafka_place *place = *kafka_part_user(p);

    if (place == NULL) {
        place = bns_alloc_zero(b->env->alloc, sizeof *place);
        if (place == NULL) {
            out_of_memory(b);
            return;
        }
        bns_list_init(&place->waiters);
        *kafka_part_user(p) = place;
    }
    if (t != NULL)
        place->min_insync = (int32_t)number(b, t, "min.insync.replicas", 1);
}

static void unfurnish(struct kafka_broker *b, struct kafka_part *p)
{
    struct kafka_place *place = *kafka_part_user(p);

    if (place == NULL)
        return;
    *kafka_part_user(p) = NULL;
    kafka_fetch_gone(place); /* they ask again, and find none */
    BNS_ASSERT(bns_list_empty(&place->waiters));
    bns_free(b->env->alloc, place);
}

/* ---- operations ------------------------------------------------------------------------------ */

static void fire_barriers(struct kafka_broker *b);

static void end_chore(struct kafka_broker *b, struct chore *c)
{
    bns_list_del(&c->node);
    bns_free(b->env->alloc, c);
    b->places.over++;
    fire_barriers(b);
}

static void op_done(struct kafka_op *op)
{
    struct place_op *o = op->arg;
    struct kafka_broker *b = o->b;
    struct chore *c = o->chore;

    if (op->error != 0)
        BNS_LOG(b->env->log, BNS_LOG_ERROR, "kafka", "a partition cannot follow the metadata",
                BNS_STR("topic", c->name), BNS_I64("error", op->error),
                BNS_STR("why", op->err.text));
    else if (!c->gone && o->create.op.part != NULL)
        furnish(b, kafka_image_topic_by_id(kafka_broker_image(b), &c->id), op->part);
    bns_free(b->env->alloc, o);
    c->ops--;
    b->places.ops--;
    pump(b);
    kafka_server_fed(b->server);
}

static int submit(struct kafka_broker *b, struct chore *c, struct place_op *o, struct kafka_part *p,
                  const struct kafka_topic *t)
{
    o->b = b;
    o->chore = c;
    o->op.done = op_done;
    o->op.arg = o;
    if (c->gone) {
        unfurnish(b, p);
        return kafka_part_delete(p, &o->remove);
    }
    if (p != NULL) {
        kafka_places_cfg(b, t, &o->config.cfg);
        return kafka_part_set_cfg(p, &o->config);
    }
    memcpy(o->create.topic, c->name, sizeof o->create.topic);
    o->create.index = c->next;
    o->create.id = c->id;
    kafka_places_cfg(b, t, &o->create.cfg);
    return kafka_part_create(b->dir, &o->create);
}

/* One partition of the chore; BNS_E_BUSY: not now. */
static int one(struct kafka_broker *b, struct chore *c)
{
    const struct kafka_topic *t = kafka_image_topic_by_id(kafka_broker_image(b), &c->id);
    struct kafka_part *p = kafka_dir_find_id(b->dir, &c->id, c->next);
    struct kafka_part_cfg cfg;
    struct place_op *o;
    int rv;

    if (c->gone ? p == NULL : t == NULL)
        return BNS_OK; /* there is none, or it is gone already: another chore's */
    if (!c->gone && p != NULL) {
        furnish(b, t, p);
        kafka_places_cfg(b, t, &cfg);
        if (same_cfg(&cfg, kafka_part_cfg(p)))
            return BNS_OK;
    }
    o = bns_alloc_zero(b->env->alloc, sizeof *o);
    if (o == NULL) {
        out_of_memory(b);
        return BNS_E_BUSY;
    }
    rv = submit(b, c, o, p, t);
    if (rv == BNS_OK) {
        c->ops++;
        b->places.ops++;
        return BNS_OK;
    }
    bns_free(b->env->alloc, o);
    return rv == BNS_E_BUSY ? BNS_E_BUSY : BNS_OK;
}

/* The next topic of a chore that goes over all; false: there is none. */
static bool next_topic(struct kafka_broker *b, struct chore *c)
{
    const struct kafka_topic *t =
        kafka_image_topic_from(kafka_broker_image(b), bns_slice_str(c->name));

    if (t != NULL && c->count > 0 && bns_slice_eq(t->name, bns_slice_str(c->name)))
        t = kafka_image_topic_next(t);
    if (t == NULL)
        return false;
    memcpy(c->name, t->name.ptr, t->name.len);
    c->name[t->name.len] = '\0';
    c->id = t->id;
    c->next = 0;
    c->count = t->partitions_count;
    return true;
}

static void again(struct bns_task *t)
{
    struct kafka_broker *b = BNS_CONTAINER(t, struct kafka_broker, places.task);

    b->places.posted = false;
    pump(b);
}

static void pump_soon(struct kafka_broker *b)
{
    if (b->places.posted)
        return;
    b->places.posted = true;
    bns_post(b->env, &b->places.task);
}

static void pump(struct kafka_broker *b)
{
    size_t steps = 0;

    if (b->places.pumping)
        return;
    b->places.pumping = true;
    while (!bns_list_empty(&b->places.chores) && b->places.ops < OPS_MAX) {
        struct chore *c = BNS_CONTAINER(b->places.chores.next, struct chore, node);

        if (++steps > 4 * OPS_MAX) { /* goes on in the next turn */
            pump_soon(b);
            break;
        }
        if (c->next < c->count) {
            if (one(b, c) == BNS_E_BUSY) {
                if (b->places.ops == 0) /* others fill the directory's queue */
                    pump_soon(b);
                break;
            }
            c->next++;
        } else if (!c->all || !next_topic(b, c)) {
            if (c->ops > 0)
                break; /* the next chore begins when this one is over */
            end_chore(b, c);
        }
    }
    b->places.pumping = false;
}

/* ---- chores ---------------------------------------------------------------------------------- */

static struct chore *add(struct kafka_broker *b)
{
    struct chore *c = bns_alloc_zero(b->env->alloc, sizeof *c);

    if (c == NULL) {
        out_of_memory(b);
        return NULL;
    }
    bns_list_push(&b->places.chores, &c->node);
    b->places.begun++;
    return c;
}

static void add_all(struct kafka_broker *b)
{
    struct chore *c = add(b);

    if (c != NULL)
        c->all = true;
}

void kafka_places_changed(struct kafka_broker *b, const struct kafka_change *change)
{
    const struct kafka_topic *t = change->topic;
    struct chore *c;

    if (t == NULL) {
        add_all(b);
    } else {
        c = add(b);
        if (c == NULL)
            return;
        memcpy(c->name, t->name.ptr, t->name.len); /* at most KAFKA_TOPIC_MAX */
        c->id = t->id;
        c->gone = change->kind == KAFKA_CHANGE_TOPIC_GONE;
        c->next = change->kind == KAFKA_CHANGE_PARTITIONS ? change->first : 0;
        c->count = t->partitions_count;
    }
    pump_soon(b); /* the topic of this call may be about to be freed */
}

static bool of_a_topic(const struct kafka_broker *b, const struct kafka_part *p)
{
    const struct kafka_topic *t = kafka_image_topic_by_id(kafka_broker_image(b), kafka_part_id(p));

    return t != NULL && kafka_part_index(p) < t->partitions_count;
}

/* Metadata that are new have deleted nothing: the directory is another broker's, or its metadata
 * are lost. */
static int know_them(struct kafka_broker *b, struct bns_err *err)
{
    struct kafka_part *p = kafka_dir_next(b->dir, NULL);

    while (p != NULL && of_a_topic(b, p))
        p = kafka_dir_next(b->dir, p);
    if (p == NULL || kafka_meta_commands(b->meta) > 0)
        return BNS_OK;
    return bns_err_set(err, BNS_E_INVALID,
                       "%s has partitions (%s-%" PRId32 "), and its metadata are new: bring back "
                       "%s/metadata, or move the partitions away",
                       b->cfg.data_dir, kafka_part_topic(p), kafka_part_index(p), b->cfg.data_dir);
}

/* What a crash left between a change of the metadata and the directory: topics are made, and
 * partitions of none are deleted. BNS_E_INVALID: they are not ours to delete. */
int kafka_places_all(struct kafka_broker *b, struct bns_err *err)
{
    int rv = know_them(b, err);

    if (rv != BNS_OK)
        return rv;
    for (struct kafka_part *p = kafka_dir_next(b->dir, NULL); p != NULL;
         p = kafka_dir_next(b->dir, p)) {
        struct chore *c;

        if (of_a_topic(b, p))
            continue;
        BNS_LOG(b->env->log, BNS_LOG_WARN, "kafka", "a partition of no topic is deleted",
                BNS_STR("topic", kafka_part_topic(p)), BNS_I64("partition", kafka_part_index(p)));
        c = add(b);
        if (c == NULL)
            return BNS_OK; /* the next start does it */
        c->gone = true;
        c->id = *kafka_part_id(p);
        c->next = kafka_part_index(p);
        c->count = c->next + 1;
    }
    add_all(b);
    pump(b);
    return BNS_OK;
}

/* ---- barriers -------------------------------------------------------------------------------- */

struct barrier {
    struct bns_list node;
    uint64_t target;
    struct kafka_request *q;
    void (*fn)(struct kafka_request *q);
};

static void fire_barriers(struct kafka_broker *b)
{
    while (!bns_list_empty(&b->places.barriers)) {
        struct barrier *w = BNS_CONTAINER(b->places.barriers.next, struct barrier, node);

        if (w->target > b->places.over)
            return;
        bns_list_del(&w->node);
        w->fn(w->q);
    }
}

void kafka_places_after(struct kafka_request *q, void (*fn)(struct kafka_request *q))
{
    struct kafka_broker *b = q->broker;
    struct barrier *w = bns_arena_alloc(&q->arena, sizeof *w);

    if (w == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    *w = (struct barrier){.target = b->places.begun, .q = q, .fn = fn};
    bns_list_push(&b->places.barriers, &w->node);
    fire_barriers(b);
}

void kafka_places_init(struct kafka_broker *b)
{
    bns_list_init(&b->places.chores);
    bns_list_init(&b->places.barriers);
    b->places.task.fn = again;
}

void kafka_places_free(struct kafka_broker *b)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&b->places.chores)) != NULL)
        bns_free(b->env->alloc, BNS_CONTAINER(n, struct chore, node));
    if (!b->dir_open)
        return;
    for (struct kafka_part *p = kafka_dir_next(b->dir, NULL); p != NULL;
         p = kafka_dir_next(b->dir, p)) {
        bns_free(b->env->alloc, *kafka_part_user(p));
        *kafka_part_user(p) = NULL;
    }
}
