/* list_offsets.c - what is answered partition by partition, maybe after a job for each:
 * ListOffsets, DeleteRecords, OffsetForLeaderEpoch; and DescribeLogDirs.
 */
#include "broker/broker.h"
#include "broker/handlers.h"

enum { LATEST = -1, EARLIEST = -2, GREATEST = -3, EARLIEST_LOCAL = -4, LATEST_TIERED = -5 };

struct many {
    struct kafka_request *q;
    void *response;
    size_t left;
    bool no_memory; /* for a part of the answer: half of one would look whole */
};

struct piece {
    struct many *of;
    void *answer; /* of one partition */
    union {
        struct kafka_op op;
        struct kafka_op_time time;
        struct kafka_op_delete_records remove;
        struct kafka_op_epoch_end epoch;
    };
};

static void over(struct many *m)
{
    if (--m->left > 0)
        return;
    if (m->no_memory)
        kafka_reply_close(m->q, "out of memory");
    else
        kafka_reply(m->q, m->response);
}

/* NULL: no memory; the request is over then. */
static struct many *begin(struct kafka_request *q)
{
    struct many *m = kafka_request_array(q, 1, sizeof *m);

    if (m != NULL)
        m->response = kafka_response_new(q);
    if (m == NULL || m->response == NULL) {
        kafka_reply_close(q, "out of memory");
        return NULL;
    }
    m->q = q;
    m->left = 1; /* the handler's own */
    return m;
}

static struct piece *piece(struct many *m, void *answer, void (*done)(struct kafka_op *op))
{
    struct piece *w = kafka_request_array(m->q, 1, sizeof *w);

    if (w == NULL)
        return NULL;
    w->of = m;
    w->answer = answer;
    w->op.done = done;
    w->op.arg = w;
    return w;
}

/* After the call that queued an operation; 0, or the error of the partition. */
static int16_t queued(struct many *m, int rv)
{
    if (rv == BNS_OK) {
        m->left++;
        return KAFKA_ERR_NONE;
    }
    return rv == BNS_E_SHUTDOWN ? KAFKA_ERR_NOT_LEADER_OR_FOLLOWER : KAFKA_ERR_REQUEST_TIMED_OUT;
}

/* ---- ListOffsets ----------------------------------------------------------------------------- */

static void time_done(struct kafka_op *op)
{
    struct piece *w = op->arg;
    struct kafka_list_offsets_response_partitions *a = w->answer;

    a->error_code = op->error;
    if (op->error == 0) {
        a->offset = w->time.offset;
        a->timestamp = w->time.offset < 0 ? -1 : w->time.found_ms;
        a->leader_epoch = w->time.offset < 0 ? -1 : w->time.leader_epoch;
    }
    over(w->of);
}

static int16_t list_one(struct many *m, const struct kafka_topic *t,
                        const struct kafka_list_offsets_request_partitions *p,
                        struct kafka_list_offsets_response_partitions *a)
{
    const struct kafka_list_offsets_request *q = m->q->msg;
    const struct kafka_part_view *v;
    struct kafka_part *part = NULL;
    struct piece *w;
    int16_t code =
        kafka_broker_part(m->q->broker, t, p->partition_index, p->current_leader_epoch, &part);

    if (code != 0)
        return code;
    v = kafka_part_view(part);
    switch (p->timestamp) {
    case LATEST:
        a->offset = q->isolation_level == 1 ? v->last_stable : v->high_watermark;
        a->leader_epoch = t->partitions[p->partition_index].leader_epoch;
        return KAFKA_ERR_NONE;
    case EARLIEST:
    case EARLIEST_LOCAL:
        a->offset = v->begin;
        a->leader_epoch = t->partitions[p->partition_index].leader_epoch;
        return KAFKA_ERR_NONE;
    case LATEST_TIERED: /* there are no tiers */
        return KAFKA_ERR_NONE;
    default:
        break;
    }
    if (p->timestamp < 0 && p->timestamp != GREATEST)
        return KAFKA_ERR_UNSUPPORTED_VERSION;
    w = piece(m, a, time_done);
    if (w == NULL)
        return KAFKA_ERR_REQUEST_TIMED_OUT;
    w->time.time_ms = p->timestamp == GREATEST ? KAFKA_TIME_MAX : p->timestamp;
    return queued(m, kafka_part_offset_for_time(part, &w->time));
}

void kafka_handle_list_offsets(struct kafka_request *q)
{
    const struct kafka_list_offsets_request *m = q->msg;
    struct many *k = begin(q);
    struct kafka_list_offsets_response *r;

    if (k == NULL)
        return;
    r = k->response;
    r->topics.at = kafka_request_array(q, m->topics.count, sizeof *r->topics.at);
    k->no_memory = r->topics.at == NULL;
    for (int32_t i = 0; r->topics.at != NULL && i < m->topics.count; i++) {
        const struct kafka_topic *t =
            kafka_image_topic(kafka_broker_image(q->broker), m->topics.at[i].name);
        int32_t n = m->topics.at[i].partitions.count;
        struct kafka_list_offsets_response_topics *a = &r->topics.at[i];

        a->name = m->topics.at[i].name;
        a->partitions.at = kafka_request_array(q, n, sizeof *a->partitions.at);
        a->partitions.count = a->partitions.at == NULL ? 0 : n;
        k->no_memory |= a->partitions.at == NULL;
        r->topics.count = i + 1;
        for (int32_t j = 0; j < a->partitions.count; j++) {
            struct kafka_list_offsets_response_partitions *pa = &a->partitions.at[j];

            kafka_preset(&kafka_list_offsets_response_partitions_schema, pa);
            pa->partition_index = m->topics.at[i].partitions.at[j].partition_index;
            pa->error_code = list_one(k, t, &m->topics.at[i].partitions.at[j], pa);
        }
    }
    over(k);
}

/* ---- DeleteRecords --------------------------------------------------------------------------- */

static void remove_done(struct kafka_op *op)
{
    struct piece *w = op->arg;
    struct kafka_delete_records_response_partitions *a = w->answer;

    a->error_code = op->error;
    a->low_watermark = op->error == 0 ? w->remove.low_watermark : -1;
    over(w->of);
}

static int16_t remove_one(struct many *m, const struct kafka_topic *t,
                          const struct kafka_delete_records_request_partitions *p,
                          struct kafka_delete_records_response_partitions *a)
{
    struct kafka_part *part = NULL;
    struct piece *w;
    int16_t code = kafka_broker_part(m->q->broker, t, p->partition_index, -1, &part);

    if (code == 0 && kafka_topic_is_internal(t->name))
        code = KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    if (code == 0 && !kafka_part_cfg(part)->retain)
        code = KAFKA_ERR_POLICY_VIOLATION; /* a compacted one */
    if (code == 0 && p->offset < -1)
        code = KAFKA_ERR_OFFSET_OUT_OF_RANGE;
    if (code != 0)
        return code;
    w = piece(m, a, remove_done);
    if (w == NULL)
        return KAFKA_ERR_REQUEST_TIMED_OUT;
    w->remove.offset = p->offset;
    return queued(m, kafka_part_delete_records(part, &w->remove));
}

void kafka_handle_delete_records(struct kafka_request *q)
{
    const struct kafka_delete_records_request *m = q->msg;
    struct many *k = begin(q);
    struct kafka_delete_records_response *r;

    if (k == NULL)
        return;
    r = k->response;
    r->topics.at = kafka_request_array(q, m->topics.count, sizeof *r->topics.at);
    k->no_memory = r->topics.at == NULL;
    for (int32_t i = 0; r->topics.at != NULL && i < m->topics.count; i++) {
        const struct kafka_topic *t =
            kafka_image_topic(kafka_broker_image(q->broker), m->topics.at[i].name);
        int32_t n = m->topics.at[i].partitions.count;
        struct kafka_delete_records_response_topics *a = &r->topics.at[i];

        a->name = m->topics.at[i].name;
        a->partitions.at = kafka_request_array(q, n, sizeof *a->partitions.at);
        a->partitions.count = a->partitions.at == NULL ? 0 : n;
        k->no_memory |= a->partitions.at == NULL;
        r->topics.count = i + 1;
        for (int32_t j = 0; j < a->partitions.count; j++) {
            struct kafka_delete_records_response_partitions *pa = &a->partitions.at[j];

            pa->partition_index = m->topics.at[i].partitions.at[j].partition_index;
            pa->low_watermark = -1;
            pa->error_code = remove_one(k, t, &m->topics.at[i].partitions.at[j], pa);
        }
    }
    over(k);
}

/* ---- OffsetForLeaderEpoch -------------------------------------------------------------------- */

static void epoch_done(struct kafka_op *op)
{
    struct piece *w = op->arg;
    struct kafka_offset_for_leader_epoch_response_partitions *a = w->answer;

    a->error_code = op->error;
    if (op->error == 0) {
        a->leader_epoch = w->epoch.found.epoch;
        a->end_offset = w->epoch.found.start;
    }
    over(w->of);
}

static int16_t epoch_one(struct many *m, const struct kafka_topic *t,
                         const struct kafka_offset_for_leader_epoch_request_partitions *p,
                         struct kafka_offset_for_leader_epoch_response_partitions *a)
{
    struct kafka_part *part = NULL;
    struct piece *w;
    int16_t code = kafka_broker_part(m->q->broker, t, p->partition, p->current_leader_epoch, &part);

    if (code != 0)
        return code;
    w = piece(m, a, epoch_done);
    if (w == NULL)
        return KAFKA_ERR_REQUEST_TIMED_OUT;
    w->epoch.epoch = p->leader_epoch;
    return queued(m, kafka_part_epoch_end(part, &w->epoch));
}

void kafka_handle_offset_for_leader_epoch(struct kafka_request *q)
{
    const struct kafka_offset_for_leader_epoch_request *m = q->msg;
    struct many *k = begin(q);
    struct kafka_offset_for_leader_epoch_response *r;

    if (k == NULL)
        return;
    r = k->response;
    r->topics.at = kafka_request_array(q, m->topics.count, sizeof *r->topics.at);
    k->no_memory = r->topics.at == NULL;
    for (int32_t i = 0; r->topics.at != NULL && i < m->topics.count; i++) {
        const struct kafka_topic *t =
            kafka_image_topic(kafka_broker_image(q->broker), m->topics.at[i].topic);
        int32_t n = m->topics.at[i].partitions.count;
        struct kafka_offset_for_leader_epoch_response_topics *a = &r->topics.at[i];

        a->topic = m->topics.at[i].topic;
        a->partitions.at = kafka_request_array(q, n, sizeof *a->partitions.at);
        a->partitions.count = a->partitions.at == NULL ? 0 : n;
        k->no_memory |= a->partitions.at == NULL;
        r->topics.count = i + 1;
        for (int32_t j = 0; j < a->partitions.count; j++) {
            struct kafka_offset_for_leader_epoch_response_partitions *pa = &a->partitions.at[j];

            kafka_preset(&kafka_offset_for_leader_epoch_response_partitions_schema, pa);
            pa->partition = m->topics.at[i].partitions.at[j].partition;
            pa->error_code = epoch_one(k, t, &m->topics.at[i].partitions.at[j], pa);
        }
    }
    over(k);
}
