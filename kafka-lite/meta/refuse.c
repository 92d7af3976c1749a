/* refuse.c - the response to a request that failed as a whole: every entry says so. */
#include "meta/plan.h"

/* Entries of an array of the request, and the array of the response that has as many. */
#define ROWS(count_of, list)                                                                       \
    size_t count = (count_of) > 0 ? (size_t)(count_of) : 0;                                        \
    memset(a, 0, sizeof *a);                                                                       \
    a->list.at = bns_arena_alloc(op->arena, (count + 1) * sizeof *a->list.at);                     \
    if (a->list.at == NULL)                                                                        \
        return BNS_E_NOMEM;                                                                        \
    memset(a->list.at, 0, (count + 1) * sizeof *a->list.at);                                       \
    a->list.count = (int32_t)count

static int create_topics(struct kafka_meta_op *op, int16_t error, struct bns_slice text)
{
    const struct kafka_create_topics_request *q = op->request;
    struct kafka_create_topics_response *a = op->response;
    ROWS(q->topics.count, topics);

    for (size_t i = 0; i < count; i++) {
        a->topics.at[i].name = q->topics.at[i].name;
        a->topics.at[i].error_code = error;
        a->topics.at[i].error_message = text;
        a->topics.at[i].num_partitions = -1;
        a->topics.at[i].replication_factor = -1;
    }
    return BNS_OK;
}

static int delete_topics(struct kafka_meta_op *op, int16_t error, struct bns_slice text)
{
    const struct kafka_delete_topics_request *q = op->request;
    struct kafka_delete_topics_response *a = op->response;
    size_t first = q->topics.count > 0 ? (size_t)q->topics.count : 0;
    ROWS((int32_t)first + (q->topic_names.count > 0 ? q->topic_names.count : 0), responses);

    for (size_t i = 0; i < count; i++) {
        struct kafka_delete_topics_response_responses *r = &a->responses.at[i];
        r->name = i < first ? q->topics.at[i].name : q->topic_names.at[i - first];
        if (i < first)
            r->topic_id = q->topics.at[i].topic_id;
        r->error_code = error;
        r->error_message = text;
    }
    return BNS_OK;
}

static int create_partitions(struct kafka_meta_op *op, int16_t error, struct bns_slice text)
{
    const struct kafka_create_partitions_request *q = op->request;
    struct kafka_create_partitions_response *a = op->response;
    ROWS(q->topics.count, results);

    for (size_t i = 0; i < count; i++) {
        a->results.at[i].name = q->topics.at[i].name;
        a->results.at[i].error_code = error;
        a->results.at[i].error_message = text;
    }
    return BNS_OK;
}

static int alter_configs(struct kafka_meta_op *op, int16_t error, struct bns_slice text)
{
    const struct kafka_alter_configs_request *q = op->request;
    struct kafka_alter_configs_response *a = op->response;
    ROWS(q->resources.count, responses);

    for (size_t i = 0; i < count; i++) {
        a->responses.at[i].resource_type = q->resources.at[i].resource_type;
        a->responses.at[i].resource_name = q->resources.at[i].resource_name;
        a->responses.at[i].error_code = error;
        a->responses.at[i].error_message = text;
    }
    return BNS_OK;
}

static int incremental(struct kafka_meta_op *op, int16_t error, struct bns_slice text)
{
    const struct kafka_incremental_alter_configs_request *q = op->request;
    struct kafka_incremental_alter_configs_response *a = op->response;
    ROWS(q->resources.count, responses);

    for (size_t i = 0; i < count; i++) {
        a->responses.at[i].resource_type = q->resources.at[i].resource_type;
        a->responses.at[i].resource_name = q->resources.at[i].resource_name;
        a->responses.at[i].error_code = error;
        a->responses.at[i].error_message = text;
    }
    return BNS_OK;
}

int kafka_plan_refuse(struct kafka_meta_op *op, int16_t error)
{
    struct bns_slice text = bns_slice_str(kafka_error_text(error));
    struct kafka_producer_ids *ids = op->response;

    switch (op->kind) {
    case KAFKA_OP_CREATE_TOPICS:
        return create_topics(op, error, text);
    case KAFKA_OP_DELETE_TOPICS:
        return delete_topics(op, error, text);
    case KAFKA_OP_CREATE_PARTITIONS:
        return create_partitions(op, error, text);
    case KAFKA_OP_ALTER_CONFIGS:
        return alter_configs(op, error, text);
    case KAFKA_OP_INCREMENTAL_ALTER_CONFIGS:
        return incremental(op, error, text);
    case KAFKA_OP_PRODUCER_IDS:
        ids->first = -1;
        return BNS_OK;
    }
    return BNS_E_INTERNAL;
}
