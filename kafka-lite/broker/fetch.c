/* fetch.c - Fetch: batches from the logs, and waiting for them.
 *
 *   partition after partition: nothing new -> the next one; else a read (a job), then the next one
 *   at the end: enough bytes, an error, or no time left -> the answer
 *               else it waits at each of its partitions; one that advances by what is missing, or
 *               the time, makes it begin again
 *
 * Bytes: at most maxBytes in all and partitionMaxBytes of a partition, but always the first batch
 * of the first partition that has one. All answers together hold about BYTES_MAX; above it every
 * one gets as little as it may, and comes back for the rest.
 *
 * Every fetch is a whole one: the answer's session id is 0, and clients send all partitions each
 * time (KIP-227).
 */
#include "broker/broker.h"
#include "broker/handlers.h"

#define BYTES_MAX (UINT64_C(256) * 1024 * 1024)
#define BYTES_FEW (64u * 1024)
#define BUF_MAX (UINT64_C(512) * 1024 * 1024)

struct spot {
    struct bns_list node; /* of a place's waiters */
    struct fetch *of;
    const struct kafka_fetch_request_partitions *p;
    struct kafka_fetch_response_partitions *a;
    const struct kafka_fetch_request_topics *topic;
    uint64_t seen; /* bytes of the log when it was looked at */
    size_t at, len;
};

struct fetch {
    struct kafka_request *q;
    struct kafka_broker *b;
    struct kafka_fetch_response *r;
    struct spot *spots;
    size_t count, next;
    struct kafka_op_read op;
    struct bns_buf buf;
    uint64_t charged; /* in b->fetches.bytes */
    struct bns_timer timer;
    uint64_t deadline;
    uint64_t come; /* bytes that came while it waited */
    bool parked, over, bad;
    struct bns_list node; /* b->fetches.parked */
};

static void step(struct fetch *f);

static void charge(struct fetch *f, uint64_t bytes)
{
    f->b->fetches.bytes += bytes - f->charged;
    f->charged = bytes;
}

static void fetch_free(struct kafka_request *q)
{
    struct fetch *f = q->arg;

    if (q->server != NULL)
        charge(f, 0);
    bns_buf_free(&f->buf);
}

static void answer(struct fetch *f)
{
    for (size_t i = 0; i < f->count; i++) {
        struct spot *s = &f->spots[i];
        s->a->records = s->len == 0 ? BNS_LIT("") : bns_slice(f->buf.ptr + s->at, s->len);
    }
    f->q->on_gone = NULL;
    kafka_reply(f->q, f->r);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void unpark(struct fetch *f)
{
    if (!f->parked)
        return;
    f->parked = false;
    bns_timer_stop(f->b->env, &f->timer);
    bns_list_del(&f->node);
    for (size_t i = 0; i < f->count; i++)
        bns_list_del(&f->spots[i].node);
}

static void begin_again(struct fetch *f)
{
    unpark(f);
    f->next = 0;
    f->bad = false;
    bns_buf_clear(&f->buf);
    step(f);
}

static void out_of_time(void *arg)
{
    struct fetch *f = arg;

    f->over = bns_now_ns(f->b->env) >= f->deadline; /* else something came before it waited */
    begin_again(f);
}

static void gone(struct kafka_request *q)
{
    struct fetch *f = q->arg;

    f->over = true;
    if (f->parked) {
        unpark(f);
        answer(f);
    }
}

static uint64_t wanted(const struct fetch *f)
{
    const struct kafka_fetch_request *m = f->q->msg;

    return m->min_bytes > 0 ? (uint64_t)m->min_bytes : 0;
}

/* Bytes that came to this partition since it was last looked at. */
static void count_new(struct spot *s, const struct kafka_part *p)
{
    uint64_t bytes = kafka_part_view(p)->bytes;

    s->of->come += bytes > s->seen ? bytes - s->seen : 0;
    s->seen = bytes;
}

static void park(struct fetch *f)
{
    f->parked = true;
    f->come = 0;
    bns_list_push(&f->b->fetches.parked, &f->node);
    for (size_t i = 0; i < f->count; i++) {
        struct spot *s = &f->spots[i];
        const struct kafka_image *image = kafka_broker_image(f->b);
        const struct kafka_topic *t = f->q->form.version >= 13
                                          ? kafka_image_topic_by_id(image, &s->topic->topic_id)
                                          : kafka_image_topic(image, s->topic->topic);
        struct kafka_part *p = NULL;

        if (kafka_broker_part(f->b, t, s->p->partition, -1, &p) != 0)
            continue;
        bns_list_push(&((struct kafka_place *)*kafka_part_user(p))->waiters, &s->node);
        count_new(s, p); /* while the other partitions were read */
    }
    bns_timer_start(f->b->env, &f->timer,
                    f->come > 0 && f->buf.len + f->come >= wanted(f) ? 0 : f->deadline);
}

void kafka_fetch_advanced(struct kafka_part *p)
{
    struct kafka_place *place = *kafka_part_user(p);
    struct bns_list woken, *n;

    if (place == NULL)
        return;
    bns_list_init(&woken);
    bns_list_splice(&woken, &place->waiters);
    while ((n = bns_list_pop(&woken)) != NULL) {
        struct spot *s = BNS_CONTAINER(n, struct spot, node);
        struct fetch *f = s->of;

        count_new(s, p);
        if (f->buf.len + f->come >= wanted(f))
            begin_again(f);
        else
            bns_list_push(&place->waiters, &s->node);
    }
}

void kafka_fetch_gone(struct kafka_place *place)
{
    struct bns_list *n;

    while ((n = bns_list_pop(&place->waiters)) != NULL)
        begin_again(BNS_CONTAINER(n, struct spot, node)->of);
}

void kafka_fetch_all(struct kafka_broker *b)
{
    while (!bns_list_empty(&b->fetches.parked)) {
        struct fetch *f = BNS_CONTAINER(b->fetches.parked.next, struct fetch, node);
        f->over = true;
        unpark(f);
        answer(f);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void done(struct fetch *f)
{
    if (f->over || f->bad || f->b->draining || f->buf.len >= wanted(f) ||
        bns_now_ns(f->b->env) >= f->deadline)
        answer(f);
    else
        park(f);
}

static void error(struct fetch *f, struct spot *s, int code)
{
    s->a->error_code = (int16_t)code;
    s->a->high_watermark = -1;
    s->a->last_stable_offset = -1;
    s->a->log_start_offset = -1;
    f->bad = true;
}

static void read_done(struct kafka_op *op)
{
    struct fetch *f = op->arg;
    struct spot *s = &f->spots[f->next];

    if (op->error != 0) {
        error(f, s, op->error);
    } else {
        s->len = f->op.bytes;
        if (s->a->high_watermark < f->op.high_watermark)
            s->a->high_watermark = f->op.high_watermark;
        charge(f, f->buf.len);
    }
    f->next++;
    step(f);
}

/* What may come of this partition; 0: nothing any more. */
static uint32_t room(const struct fetch *f, const struct spot *s)
{
    const struct kafka_fetch_request *m = f->q->msg;
    uint64_t all = m->max_bytes < 0 ? 0 : (uint64_t)m->max_bytes;
    uint64_t cap = (uint64_t)kafka_broker_number(f->b, "fetch.max.bytes", 57671680);
    uint64_t one = s->p->partition_max_bytes < 0 ? 0 : (uint64_t)s->p->partition_max_bytes;

    if (f->b->fetches.bytes > BYTES_MAX)
        cap = BYTES_FEW;
    if (all > cap)
        all = cap;
    if (f->buf.len == 0)
        return (uint32_t)(one < all ? one : all);
    all = all > f->buf.len ? all - f->buf.len : 0;
    return (uint32_t)(one < all ? one : all);
}

/* True: a read is under way. */
static bool look(struct fetch *f, struct spot *s)
{
    const struct kafka_fetch_request *m = f->q->msg;
    const struct kafka_image *image = kafka_broker_image(f->b);
    bool by_id = f->q->form.version >= 13;
    const struct kafka_topic *t = by_id ? kafka_image_topic_by_id(image, &s->topic->topic_id)
                                        : kafka_image_topic(image, s->topic->topic);
    const struct kafka_part_view *v;
    struct kafka_part *p = NULL;
    int64_t below;
    int16_t code = kafka_broker_part(f->b, t, s->p->partition, s->p->current_leader_epoch, &p);

    kafka_preset(&kafka_fetch_response_partitions_schema, s->a);
    s->a->partition_index = s->p->partition;
    s->a->aborted_transactions.count = m->isolation_level == 1 ? 0 : -1;
    s->at = f->buf.len;
    s->len = 0;
    if (code != 0) {
        error(f, s, t == NULL && by_id ? KAFKA_ERR_UNKNOWN_TOPIC_ID : code);
        return false;
    }
    v = kafka_part_view(p);
    s->seen = v->bytes;
    s->a->high_watermark = v->high_watermark;
    s->a->last_stable_offset = v->last_stable;
    s->a->log_start_offset = v->begin;
    below = m->isolation_level == 1 ? v->last_stable : v->high_watermark;
    if (s->p->fetch_offset < v->begin || s->p->fetch_offset > v->end) {
        error(f, s, KAFKA_ERR_OFFSET_OUT_OF_RANGE);
        return false;
    }
    if (s->p->fetch_offset >= below || (room(f, s) == 0 && f->buf.len > 0))
        return false;
    f->op = (struct kafka_op_read){.op = {.done = read_done, .arg = f},
                                   .offset = s->p->fetch_offset,
                                   .below = below,
                                   .bytes_max = room(f, s),
                                   .one_at_least = f->buf.len == 0,
                                   .to = &f->buf};
    if (kafka_part_read(p, &f->op) == BNS_OK)
        return true;
    f->over = true; /* too much is queued: what there is so far */
    return false;
}

static void step(struct fetch *f)
{
    while (f->next < f->count) {
        if (look(f, &f->spots[f->next]))
            return;
        f->next++;
    }
    done(f);
}

/* ---- the request ----------------------------------------------------------------------------- */

static bool lay_out(struct fetch *f)
{
    const struct kafka_fetch_request *m = f->q->msg;
    int32_t topics = m->topics.count < 0 ? 0 : m->topics.count;
    size_t at = 0;

    for (int32_t i = 0; i < topics; i++)
        f->count +=
            m->topics.at[i].partitions.count < 0 ? 0 : (size_t)m->topics.at[i].partitions.count;
    f->spots = f->count > INT32_MAX
                   ? NULL
                   : kafka_request_array(f->q, (int32_t)f->count, sizeof *f->spots);
    f->r->responses.at = kafka_request_array(f->q, topics, sizeof *f->r->responses.at);
    if (f->spots == NULL || f->r->responses.at == NULL)
        return false;
    f->r->responses.count = topics;
    for (int32_t i = 0; i < topics; i++) {
        const struct kafka_fetch_request_topics *t = &m->topics.at[i];
        struct kafka_fetch_response_responses *a = &f->r->responses.at[i];
        int32_t n = t->partitions.count < 0 ? 0 : t->partitions.count;

        a->topic = t->topic;
        a->topic_id = t->topic_id;
        a->partitions.at = kafka_request_array(f->q, n, sizeof *a->partitions.at);
        if (a->partitions.at == NULL)
            return false;
        a->partitions.count = n;
        for (int32_t j = 0; j < n; j++) {
            struct spot *s = &f->spots[at++];
            bns_list_init(&s->node);
            s->of = f;
            s->topic = t;
            s->p = &t->partitions.at[j];
            s->a = &a->partitions.at[j];
        }
    }
    return true;
}

void kafka_handle_fetch(struct kafka_request *q)
{
    const struct kafka_fetch_request *m = q->msg;
    struct fetch *f = kafka_request_array(q, 1, sizeof *f);
    struct kafka_fetch_response *r = kafka_response_new(q);

    if (f == NULL || r == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    f->q = q;
    f->b = q->broker;
    f->r = r;
    bns_list_init(&f->node);
    bns_buf_init(&f->buf, q->env->alloc, BUF_MAX);
    bns_timer_init(&f->timer, out_of_time, f);
    f->deadline = q->arrived_ns + (m->max_wait_ms > 0 ? (uint64_t)m->max_wait_ms : 0) * BNS_MS;
    if (m->session_id != 0) {
        r->error_code = KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND;
        kafka_reply(q, r);
        return;
    }
    if (!lay_out(f)) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    q->arg = f;
    q->on_free = fetch_free;
    q->on_gone = gone;
    step(f);
}
