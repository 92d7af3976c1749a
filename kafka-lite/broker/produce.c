/* produce.c - Produce: batches to the logs of their partitions, an answer when they are durable.
 *
 * Every partition's append is queued in the order of arrival; the answer leaves when the last of
 * them is done. With acks=0 there is none, and an error closes the connection, as real brokers do.
 */
#include "broker/broker.h"
#include "broker/handlers.h"
#include "log/batch.h"

struct produce {
    struct kafka_request *q;
    struct kafka_produce_response *r;
    size_t left;
    bool bad, no_memory;
};

struct piece { /* one partition */
    struct kafka_op_append op;
    struct produce *of;
    struct kafka_produce_response_partition_responses *a;
};

static void finish(struct produce *p)
{
    const struct kafka_produce_request *m = p->q->msg;

    if (p->no_memory)
        kafka_reply_close(p->q, "out of memory");
    else if (m->acks != 0)
        kafka_reply(p->q, p->r);
    else if (p->bad)
        kafka_reply_close(p->q, "a batch with acks=0 was refused");
    else
        kafka_reply_nothing(p->q);
}

static void set_error(struct produce *p, struct kafka_produce_response_partition_responses *a,
                      int error)
{
    a->error_code = (int16_t)error;
    a->base_offset = -1;
    a->log_start_offset = -1;
    p->bad = true;
}

static void set_reason(struct piece *w)
{
    struct kafka_request *q = w->of->q;
    struct kafka_produce_response_record_errors *e;

    if (w->op.op.err.text[0] != '\0')
        w->a->error_message = bns_slice_str(w->op.op.err.text);
    if (w->op.bad_record < 0 || (w->op.op.error != KAFKA_ERR_INVALID_RECORD &&
                                 w->op.op.error != KAFKA_ERR_INVALID_TIMESTAMP))
        return;
    e = kafka_request_array(q, 1, sizeof *e);
    if (e == NULL)
        return; /* the error itself says enough */
    e->batch_index = w->op.bad_record;
    e->batch_index_error_message = w->a->error_message;
    w->a->record_errors.at = e;
    w->a->record_errors.count = 1;
}

static void appended(struct kafka_op *op)
{
    struct piece *w = op->arg;
    struct produce *p = w->of;

    if (op->error == 0) {
        w->a->base_offset = w->op.base;
        w->a->log_append_time_ms = w->op.append_time_ms;
        w->a->log_start_offset = w->op.log_start;
    } else {
        set_error(p, w->a, op->error);
        set_reason(w);
    }
    if (--p->left == 0)
        finish(p);
}

static int16_t look(const struct kafka_request *q, const struct kafka_topic *t,
                    struct bns_slice records)
{
    struct kafka_batch head;
    size_t len;

    if (t != NULL && kafka_topic_is_internal(t->name))
        return KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    if (records.len < KAFKA_BATCH_HEAD)
        return records.ptr == NULL ? KAFKA_ERR_INVALID_RECORD : KAFKA_ERR_CORRUPT_MESSAGE;
    if (q->form.version < 7 && kafka_batch_head(records.ptr, &head, &len, NULL) == BNS_OK &&
        kafka_batch_codec(&head) == KAFKA_ZSTD)
        return KAFKA_ERR_UNSUPPORTED_COMPRESSION_TYPE;
    return KAFKA_ERR_NONE;
}

static int16_t begin(struct produce *p, struct piece *w, const struct kafka_topic *t,
                     const struct kafka_produce_request_partition_data *d)
{
    const struct kafka_produce_request *m = p->q->msg;
    const struct kafka_place *place;
    struct kafka_part *part;
    int16_t error = look(p->q, t, d->records);

    if (error == 0)
        error = kafka_broker_part(p->q->broker, t, d->index, -1, &part);
    if (error != 0)
        return error;
    place = *kafka_part_user(part);
    if (m->acks == -1 && place->min_insync > (int32_t)t->partitions[d->index].isr_count)
        return KAFKA_ERR_NOT_ENOUGH_REPLICAS;
    w->of = p;
    w->op.op.done = appended;
    w->op.op.arg = w;
    w->op.bytes = (uint8_t *)(uintptr_t)d->records.ptr; /* of the request's own frame */
    w->op.len = d->records.len;
    w->op.leader_epoch = t->partitions[d->index].leader_epoch;
    w->op.sync = m->acks == -1;
    switch (kafka_part_append(part, &w->op)) {
    case BNS_OK:
        p->left++;
        return KAFKA_ERR_NONE;
    case BNS_E_SHUTDOWN:
        return KAFKA_ERR_NOT_LEADER_OR_FOLLOWER;
    default: /* too much is queued: to be tried again */
        return KAFKA_ERR_REQUEST_TIMED_OUT;
    }
}

static bool do_topic(struct produce *p, const struct kafka_produce_request_topic_data *d,
                     struct kafka_produce_response_responses *a)
{
    struct kafka_request *q = p->q;
    const struct kafka_produce_request *m = q->msg;
    const struct kafka_image *image = kafka_broker_image(q->broker);
    bool by_id = q->form.version >= 13;
    const struct kafka_topic *t =
        by_id ? kafka_image_topic_by_id(image, &d->topic_id) : kafka_image_topic(image, d->name);
    int32_t n = d->partition_data.count < 0 ? 0 : d->partition_data.count;

    a->name = d->name;
    a->topic_id = d->topic_id;
    a->partition_responses.at = kafka_request_array(q, n, sizeof *a->partition_responses.at);
    if (a->partition_responses.at == NULL)
        return false;
    a->partition_responses.count = n;
    for (int32_t i = 0; i < n; i++) {
        struct kafka_produce_response_partition_responses *pa = &a->partition_responses.at[i];
        struct piece *w;
        int16_t error;

        kafka_preset(&kafka_produce_response_partition_responses_schema, pa);
        pa->index = d->partition_data.at[i].index;
        w = kafka_request_array(q, 1, sizeof *w);
        if (w == NULL)
            return false;
        w->a = pa;
        if (m->acks < -1 || m->acks > 1)
            error = KAFKA_ERR_INVALID_REQUIRED_ACKS;
        else if (t == NULL && by_id)
            error = KAFKA_ERR_UNKNOWN_TOPIC_ID;
        else
            error = begin(p, w, t, &d->partition_data.at[i]);
        if (error != 0)
            set_error(p, pa, error);
    }
    return true;
}

void kafka_handle_produce(struct kafka_request *q)
{
    const struct kafka_produce_request *m = q->msg;
    struct produce *p = kafka_request_array(q, 1, sizeof *p);
    struct kafka_produce_response *r = kafka_response_new(q);
    int32_t n = m->topic_data.count < 0 ? 0 : m->topic_data.count;
    bool ok = p != NULL && r != NULL;

    if (ok) {
        p->q = q;
        p->r = r;
        p->left = 1; /* this call's own */
        r->responses.at = kafka_request_array(q, n, sizeof *r->responses.at);
        r->responses.count = n;
        ok = r->responses.at != NULL;
    }
    if (!ok) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    for (int32_t i = 0; i < n && ok; i++)
        ok = do_topic(p, &m->topic_data.at[i], &r->responses.at[i]);
    p->no_memory = !ok; /* what is queued ends first: its bytes are the request's */
    if (--p->left == 0)
        finish(p);
}
