/* apply.c - the metadata as a state machine under raft_node: applies, checkpoints, snapshots.
 *
 * A checkpoint needs the image as it was at one index, and applies go on. The image is turned into
 * bytes a slice a turn of the loop; what is to be applied meanwhile is parked, so the slices are of
 * one image, and the loop serves everything else in between. The bytes then go to disk on a pool
 * thread. A snapshot for another member is such bytes, kept until it is sent.
 *
 * An entry that cannot be decoded or applied was accepted by a majority: this member is wrong, or
 * older than the others. It stops; it does not guess.
 */
#include "base/varint.h"
#include "meta/meta_int.h"

#define SLICE_BYTES (128u * 1024)

/* ---- applies -------------------------------------------------------------------------------- */

/* What a command has done to the topic that its last records were about. */
struct touched {
    const struct kafka_topic *topic;
    int32_t partitions; /* before */
    bool is_new, config;
};

static void tell_touched(struct kafka_meta *m, struct touched *t)
{
    struct kafka_change c = {.topic = t->topic, .first = t->partitions};

    if (t->topic != NULL) {
        c.name = t->topic->name;
        c.resource = KAFKA_RESOURCE_TOPIC;
        if (t->is_new) {
            c.kind = KAFKA_CHANGE_TOPIC_NEW;
            kafka_meta_tell(m, &c);
        } else if (t->topic->partitions_count > t->partitions) {
            c.kind = KAFKA_CHANGE_PARTITIONS;
            kafka_meta_tell(m, &c);
        }
        if (t->config && !t->is_new) {
            c.kind = KAFKA_CHANGE_CONFIG;
            kafka_meta_tell(m, &c);
        }
    }
    *t = (struct touched){.topic = NULL};
}

static const struct kafka_topic *topic_of(const struct kafka_meta *m,
                                          const struct kafka_meta_record *r)
{
    if (r->kind == KAFKA_RECORD_CONFIG)
        return r->resource == KAFKA_RESOURCE_TOPIC ? kafka_image_topic(m->image, r->name) : NULL;
    return kafka_image_topic_by_id(m->image, &r->id);
}

static int apply_record(struct kafka_meta *m, const struct kafka_meta_record *r, struct touched *t,
                        struct bns_err *err)
{
    const struct kafka_topic *topic = topic_of(m, r);
    int rv;

    if (topic != t->topic || topic == NULL) {
        tell_touched(m, t);
        t->topic = topic;
        t->partitions = topic != NULL ? topic->partitions_count : 0;
    }
    if (r->kind == KAFKA_RECORD_REMOVE_TOPIC && topic != NULL) {
        struct kafka_change c = {.kind = KAFKA_CHANGE_TOPIC_GONE,
                                 .topic = topic,
                                 .resource = KAFKA_RESOURCE_TOPIC,
                                 .name = topic->name};
        kafka_meta_tell(m, &c);
        t->topic = NULL;
    }
    rv = kafka_image_apply(m->image, r, err);
    if (rv == BNS_OK && r->kind == KAFKA_RECORD_TOPIC)
        *t = (struct touched){.topic = topic_of(m, r), .is_new = true};
    if (rv == BNS_OK && r->kind == KAFKA_RECORD_CONFIG)
        t->config = true;
    if (rv == BNS_OK && r->kind == KAFKA_RECORD_CONFIG && topic == NULL) {
        struct kafka_change c = {
            .kind = KAFKA_CHANGE_CONFIG, .resource = r->resource, .name = r->name};
        kafka_meta_tell(m, &c);
        t->config = false;
    }
    return rv;
}

static int apply_command(struct kafka_meta *m, struct bns_slice in, struct bns_err *err)
{
    struct kafka_command_head head;
    struct touched t = {.topic = NULL};
    struct kafka_meta_record r;
    int rv = kafka_command_head(&in, &head, err);

    if (rv != BNS_OK)
        return rv;
    if (head.base != m->state.commands) {
        kafka_meta_applied(m, head.request, false);
        return BNS_OK;
    }
    while (rv == BNS_OK && in.len > 0) {
        rv = kafka_meta_record_next(&in, &r, err);
        if (rv == BNS_OK)
            rv = apply_record(m, &r, &t, err);
    }
    if (rv != BNS_OK)
        return rv;
    m->state.commands++;
    tell_touched(m, &t);
    kafka_meta_applied(m, head.request, true);
    return BNS_OK;
}

static int apply_entry(struct kafka_meta *m, const struct bns_raft_entry *e, struct bns_err *err)
{
    struct bns_raft_conf_entry change;
    int rv = BNS_OK;

    BNS_ASSERT(e->index == m->state.at.index + 1);
    m->state.at.index = e->index;
    m->state.at.term = e->term;
    m->state.digest = bns_hash_u64(m->state.digest, e->term);
    if (e->kind != BNS_RAFT_NORMAL && e->kind != BNS_RAFT_CONF)
        return BNS_OK;
    m->state.digest = bns_hash(m->state.digest, e->data->bytes, e->data->len);
    if (e->kind == BNS_RAFT_NORMAL)
        return apply_command(m, bns_rcbuf_slice(e->data), err);
    rv = bns_raft_change_decode(bns_rcbuf_slice(e->data), &change);
    if (rv == BNS_OK)
        m->state.at.conf = change.conf;
    return rv;
}

static void sm_apply(void *sm, const struct bns_raft_entry *e, size_t n, bns_sm_done *done,
                     void *arg)
{
    struct kafka_meta *m = sm;
    struct bns_err err = {0};
    int rv = BNS_OK;

    if (!bns_list_empty(&m->writings)) {
        BNS_ASSERT(m->parked_done == NULL);
        m->parked = e;
        m->parked_count = n;
        m->parked_done = done;
        m->parked_arg = arg;
        return;
    }
    for (size_t i = 0; i < n && rv == BNS_OK; i++)
        rv = apply_entry(m, &e[i], &err);
    if (rv != BNS_OK)
        kafka_meta_fatal(m, rv, &err);
    done(arg, rv);
}

/* ---- the image as bytes, a slice a turn ----------------------------------------------------- */

static void write_more(struct bns_task *t);

static void write_soon(struct kafka_meta *m)
{
    if (m->write_posted)
        return;
    m->write_posted = true;
    m->write_task.fn = write_more;
    bns_post(m->env, &m->write_task);
}

/* All of the writings see the same image: they take turns. */
static void write_more(struct bns_task *t)
{
    struct kafka_meta *m = BNS_CONTAINER(t, struct kafka_meta, write_task);
    struct kafka_writing *w;
    bns_sm_done *done = m->parked_done;
    int rv;

    m->write_posted = false;
    if (!bns_list_empty(&m->writings)) {
        w = BNS_CONTAINER(m->writings.next, struct kafka_writing, node);
        rv = kafka_image_write(m->image, &w->at, w->bytes.len + SLICE_BYTES, &w->bytes);
        if (rv != BNS_OK || w->at.over) {
            bns_list_del(&w->node);
            w->over(w, rv);
        }
    }
    if (!bns_list_empty(&m->writings)) {
        write_soon(m);
    } else if (done != NULL) {
        m->parked_done = NULL;
        sm_apply(m, m->parked, m->parked_count, done, m->parked_arg);
    }
    if (m->closing)
        kafka_meta_free_if_over(m);
}

static int write_start(struct kafka_meta *m, struct kafka_writing *w,
                       void (*over)(struct kafka_writing *w, int code))
{
    int rv;

    bns_buf_init(&w->bytes, m->env->alloc, KAFKA_IMAGE_BYTES_MAX);
    w->at = (struct kafka_image_cursor){.over = false};
    w->meta = m->state.at;
    w->over = over;
    w->m = m;
    rv = kafka_image_head(&m->state, &w->bytes);
    if (rv != BNS_OK) {
        bns_buf_free(&w->bytes);
        return rv;
    }
    bns_list_push(&m->writings, &w->node);
    write_soon(m);
    return BNS_OK;
}

/* ---- the file ------------------------------------------------------------------------------- */

static void job_run(struct bns_job *j)
{
    struct kafka_meta *m = BNS_CONTAINER(j, struct kafka_meta, job);

    m->job_code = kafka_image_save(m->env, m->file, bns_buf_slice(&m->job_bytes), &m->job_err);
}

static void job_over(struct bns_job *j)
{
    struct kafka_meta *m = BNS_CONTAINER(j, struct kafka_meta, job);
    bns_sm_done *done = m->job_done;
    int code = m->job_code;

    m->job_done = NULL;
    bns_buf_free(&m->job_bytes);
    if (code == BNS_OK) {
        m->durable = m->job_state.at;
        if (m->job_image != NULL) {
            struct kafka_change c = {.kind = KAFKA_CHANGE_ALL};
            while (!bns_list_empty(&m->writings)) { /* of the image that goes */
                struct kafka_writing *w =
                    BNS_CONTAINER(bns_list_pop(&m->writings), struct kafka_writing, node);
                w->over(w, BNS_E_CANCELED);
            }
            kafka_image_free(m->image);
            m->image = m->job_image;
            m->state = m->job_state;
            m->job_image = NULL;
            kafka_meta_tell(m, &c);
        }
    } else {
        kafka_image_free(m->job_image);
        m->job_image = NULL;
        if (code == BNS_E_IO)
            kafka_meta_fatal(m, code, &m->job_err);
    }
    done(m->job_arg, code);
}

static void job_start(struct kafka_meta *m)
{
    m->job_err = (struct bns_err){0};
    m->job.run = job_run;
    m->job.done = job_over;
    bns_pool_submit(m->env, &m->job);
}

static void checkpoint_written(struct kafka_writing *w, int code)
{
    struct kafka_meta *m = w->m;
    bns_sm_done *done = m->job_done;

    m->job_bytes = w->bytes;
    if (code == BNS_OK) {
        job_start(m);
        return;
    }
    bns_buf_free(&m->job_bytes);
    m->job_done = NULL;
    done(m->job_arg, code); /* nothing happened; the log grows until the next one */
}

static void sm_checkpoint(void *sm, bns_sm_done *done, void *arg)
{
    struct kafka_meta *m = sm;
    int rv;

    BNS_ASSERT(m->job_done == NULL);
    m->job_state = m->state;
    m->job_done = done;
    m->job_arg = arg;
    rv = write_start(m, &m->checkpoint, checkpoint_written);
    if (rv != BNS_OK) {
        m->job_done = NULL;
        done(arg, rv);
    }
}

static void sm_durable(void *sm, struct bns_raft_snapmeta *out)
{
    const struct kafka_meta *m = sm;

    *out = m->durable;
}

/* ---- snapshots out -------------------------------------------------------------------------- */

struct bns_sm_snap {
    struct kafka_writing writing;
    bns_sm_snap_done *done;
    void *arg;
};

static void sm_snap_close(void *sm, struct bns_sm_snap *s)
{
    struct kafka_meta *m = sm;

    bns_buf_free(&s->writing.bytes);
    bns_free(m->env->alloc, s);
}

static void snap_written(struct kafka_writing *w, int code)
{
    struct bns_sm_snap *s = BNS_CONTAINER(w, struct bns_sm_snap, writing);
    bns_sm_snap_done *done = s->done;
    void *arg = s->arg;

    if (code == BNS_OK) {
        done(arg, BNS_OK, s, &w->meta, w->bytes.len);
        return;
    }
    sm_snap_close(w->m, s);
    done(arg, code, NULL, NULL, 0);
}

static void sm_snap_open(void *sm, bns_sm_snap_done *done, void *arg)
{
    struct kafka_meta *m = sm;
    struct bns_sm_snap *s = bns_alloc_zero(m->env->alloc, sizeof *s);
    int rv = s == NULL ? BNS_E_NOMEM : BNS_OK;

    if (rv == BNS_OK) {
        s->done = done;
        s->arg = arg;
        rv = write_start(m, &s->writing, snap_written);
    }
    if (rv != BNS_OK) {
        bns_free(m->env->alloc, s);
        done(arg, rv, NULL, NULL, 0);
    }
}

static void sm_snap_read(void *sm, struct bns_sm_snap *s, uint64_t off, size_t len,
                         bns_sm_read_done *done, void *arg)
{
    const struct bns_buf *b = &s->writing.bytes;

    (void)sm;
    BNS_ASSERT(off <= b->len);
    if (len > b->len - off)
        len = b->len - (size_t)off;
    done(arg, BNS_OK, bns_slice(b->ptr + off, len));
}

/* ---- snapshots in --------------------------------------------------------------------------- */

static void sm_install_abort(void *sm)
{
    struct kafka_meta *m = sm;

    bns_buf_free(&m->incoming);
}

static void sm_install_begin(void *sm, const struct bns_raft_snapmeta *meta, uint64_t bytes,
                             bns_sm_done *done, void *arg)
{
    struct kafka_meta *m = sm;

    (void)meta;
    bns_buf_free(&m->incoming);
    done(arg, bytes <= KAFKA_IMAGE_BYTES_MAX ? bns_buf_reserve(&m->incoming, (size_t)bytes)
                                             : BNS_E_TOOBIG);
}

static void sm_install_chunk(void *sm, uint64_t off, struct bns_slice chunk, bns_sm_done *done,
                             void *arg)
{
    struct kafka_meta *m = sm;

    BNS_ASSERT(off == m->incoming.len);
    done(arg, bns_buf_add(&m->incoming, chunk.ptr, chunk.len));
}

static void sm_install_end(void *sm, bns_sm_done *done, void *arg)
{
    struct kafka_meta *m = sm;
    struct bns_err err = {0};
    int rv;

    BNS_ASSERT(m->job_done == NULL && m->job_image == NULL && m->parked_done == NULL);
    rv = kafka_image_bytes(m->env, bns_buf_slice(&m->incoming), &m->job_image, &m->job_state, &err);
    if (rv != BNS_OK) {
        bns_buf_free(&m->incoming);
        done(arg, rv);
        return;
    }
    m->job_bytes = m->incoming;
    bns_buf_init(&m->incoming, m->env->alloc, KAFKA_IMAGE_BYTES_MAX);
    m->job_done = done;
    m->job_arg = arg;
    job_start(m);
}

/* ---- the rest ------------------------------------------------------------------------------- */

static void sm_role(void *sm, enum bns_raft_role role, uint64_t term, uint64_t leader)
{
    (void)term;
    (void)leader;
    kafka_meta_role(sm, role == BNS_RAFT_LEADER);
}

static uint64_t sm_digest(void *sm)
{
    const struct kafka_meta *m = sm;

    return m->state.digest;
}

const struct bns_sm_ops kafka_meta_sm = {
    .apply = sm_apply,
    .checkpoint = sm_checkpoint,
    .durable = sm_durable,
    .snap_open = sm_snap_open,
    .snap_read = sm_snap_read,
    .snap_close = sm_snap_close,
    .install_begin = sm_install_begin,
    .install_chunk = sm_install_chunk,
    .install_end = sm_install_end,
    .install_abort = sm_install_abort,
    .role = sm_role,
    .digest = sm_digest,
};
