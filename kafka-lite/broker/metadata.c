/* metadata.c - Metadata: brokers, topics, partitions; DescribeCluster.
 *
 * Topics that are not there are made first, when client and broker allow it: the answer is given
 * when they can be written, so it has a leader for each of their partitions.
 */
#include "broker/broker.h"
#include "broker/handlers.h"

#define OPERATIONS_TOPIC                                                                           \
    3576 /* all that topics have: read write create delete alter describe ... */
#define OPERATIONS_CLUSTER 8096 /* all that a cluster has */

struct ask {
    struct kafka_meta_op op;
    struct kafka_request *q;
    struct kafka_create_topics_request create;
    struct kafka_create_topics_response created;
};

static void fill_partition(struct kafka_request *q, const struct kafka_partition_state *p,
                           struct kafka_metadata_response_partitions *a)
{
    kafka_preset(&kafka_metadata_response_partitions_schema, a);
    a->partition_index = p->index;
    a->leader_id = p->leader;
    a->leader_epoch = p->leader_epoch;
    a->error_code = p->leader < 0 ? KAFKA_ERR_LEADER_NOT_AVAILABLE : KAFKA_ERR_NONE;
    a->replica_nodes.at =
        bns_arena_dup(&q->arena, p->replicas, p->replicas_count * sizeof(int32_t));
    a->isr_nodes.at = bns_arena_dup(&q->arena, p->isr, p->isr_count * sizeof(int32_t));
    a->replica_nodes.count = a->replica_nodes.at == NULL ? 0 : (int32_t)p->replicas_count;
    a->isr_nodes.count = a->isr_nodes.at == NULL ? 0 : (int32_t)p->isr_count;
}

static bool fill_topic(struct kafka_request *q, const struct kafka_topic *t,
                       struct kafka_metadata_response_topics *a)
{
    const struct kafka_metadata_request *m = q->msg;

    a->name = t->name;
    a->topic_id = t->id;
    a->is_internal = kafka_topic_is_internal(t->name);
    if (m->include_topic_authorized_operations)
        a->topic_authorized_operations = OPERATIONS_TOPIC;
    a->partitions.at = kafka_request_array(q, t->partitions_count, sizeof *a->partitions.at);
    if (a->partitions.at == NULL)
        return false;
    a->partitions.count = t->partitions_count;
    for (int32_t i = 0; i < t->partitions_count; i++)
        fill_partition(q, &t->partitions[i], &a->partitions.at[i]);
    return true;
}

static int16_t why_missing(const struct ask *k, struct bns_slice name)
{
    if (!kafka_topic_name_valid(name))
        return KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    for (int32_t i = 0; k != NULL && i < k->created.topics.count; i++) {
        if (bns_slice_eq(k->created.topics.at[i].name, name) &&
            k->created.topics.at[i].error_code != 0)
            return k->created.topics.at[i].error_code;
    }
    return KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
}

static bool fill_asked(struct kafka_request *q, const struct ask *k,
                       struct kafka_metadata_response *r)
{
    const struct kafka_metadata_request *m = q->msg;
    const struct kafka_image *image = kafka_broker_image(q->broker);

    r->topics.at = kafka_request_array(q, m->topics.count, sizeof *r->topics.at);
    if (r->topics.at == NULL)
        return false;
    r->topics.count = m->topics.count;
    for (int32_t i = 0; i < m->topics.count; i++) {
        const struct kafka_metadata_request_topics *want = &m->topics.at[i];
        struct kafka_metadata_response_topics *a = &r->topics.at[i];
        bool by_id = want->name.ptr == NULL;
        const struct kafka_topic *t = by_id ? kafka_image_topic_by_id(image, &want->topic_id)
                                            : kafka_image_topic(image, want->name);

        kafka_preset(&kafka_metadata_response_topics_schema, a);
        a->name = want->name;
        if (by_id && q->form.version < 12)
            a->name = BNS_LIT("");
        a->topic_id = want->topic_id;
        if (t == NULL)
            a->error_code = by_id ? KAFKA_ERR_UNKNOWN_TOPIC_ID : why_missing(k, want->name);
        else if (!fill_topic(q, t, a))
            return false;
    }
    return true;
}

static bool fill_all(struct kafka_request *q, struct kafka_metadata_response *r)
{
    const struct kafka_image *image = kafka_broker_image(q->broker);
    const struct kafka_topic *t = kafka_image_topic_from(image, BNS_LIT(""));
    size_t n = kafka_image_topics(image);

    r->topics.at = kafka_request_array(q, (int32_t)n, sizeof *r->topics.at);
    if (r->topics.at == NULL)
        return false;
    for (; t != NULL && r->topics.count < (int32_t)n; t = kafka_image_topic_next(t)) {
        struct kafka_metadata_response_topics *a = &r->topics.at[r->topics.count++];

        kafka_preset(&kafka_metadata_response_topics_schema, a);
        if (!fill_topic(q, t, a))
            return false;
    }
    return true;
}

static bool wants_all(const struct kafka_request *q)
{
    const struct kafka_metadata_request *m = q->msg;

    return m->topics.count < 0 || (q->form.version == 0 && m->topics.count == 0);
}

static void answer(struct kafka_request *q)
{
    const struct kafka_metadata_request *m = q->msg;
    struct kafka_metadata_response *r = kafka_response_new(q);
    struct kafka_broker *b = q->broker;
    struct kafka_metadata_response_brokers *me = kafka_request_array(q, 1, sizeof *me);

    if (r == NULL || me == NULL || !(wants_all(q) ? fill_all(q, r) : fill_asked(q, q->arg, r))) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    kafka_preset(&kafka_metadata_response_brokers_schema, me);
    me->node_id = b->cfg.node_id;
    me->host = bns_slice_str(q->listener->advertised_host);
    me->port = q->listener->advertised_port;
    r->brokers.at = me;
    r->brokers.count = 1;
    r->cluster_id = bns_slice_str(b->cluster_text);
    r->controller_id = b->cfg.node_id;
    if (m->include_cluster_authorized_operations)
        r->cluster_authorized_operations = OPERATIONS_CLUSTER;
    kafka_reply(q, r);
}

static void created(struct kafka_meta_op *op)
{
    struct kafka_request *q = BNS_CONTAINER(op, struct ask, op)->q;

    if (op->code == BNS_E_NOMEM)
        kafka_reply_close(q, "out of memory");
    else
        kafka_places_after(q, answer);
}

/* What is asked for by name and is not there; NULL: nothing is to be made, or no memory. */
static struct ask *missing(struct kafka_request *q)
{
    const struct kafka_metadata_request *m = q->msg;
    const struct kafka_image *image = kafka_broker_image(q->broker);
    struct ask *k = NULL;

    for (int32_t i = 0; i < m->topics.count; i++) {
        struct bns_slice name = m->topics.at[i].name;
        struct kafka_create_topics_request_topics *t;

        if (name.ptr == NULL || kafka_image_topic(image, name) != NULL ||
            !kafka_topic_name_valid(name) || kafka_topic_is_internal(name))
            continue;
        if (k == NULL) {
            k = kafka_request_array(q, 1, sizeof *k);
            if (k == NULL)
                return NULL;
            kafka_preset(&kafka_create_topics_request_schema, &k->create);
            kafka_preset(&kafka_create_topics_response_schema, &k->created);
            k->create.topics.at =
                kafka_request_array(q, m->topics.count, sizeof *k->create.topics.at);
            if (k->create.topics.at == NULL)
                return NULL;
        }
        t = &k->create.topics.at[k->create.topics.count++];
        kafka_preset(&kafka_create_topics_request_topics_schema, t);
        t->name = name;
        t->num_partitions = -1;
        t->replication_factor = -1;
    }
    return k;
}

static bool allowed(struct kafka_request *q)
{
    const struct kafka_metadata_request *m = q->msg;

    return m->allow_auto_topic_creation &&
           !bns_slice_eq(kafka_meta_broker_value(q->broker->meta, "auto.create.topics.enable"),
                         BNS_LIT("false"));
}

void kafka_handle_metadata(struct kafka_request *q)
{
    struct ask *k = wants_all(q) || !allowed(q) ? NULL : missing(q);

    if (k == NULL) {
        kafka_places_after(q, answer); /* what another one makes just now is there first */
        return;
    }
    k->q = q;
    q->arg = k;
    k->op.arena = &q->arena;
    k->op.deadline_ns = kafka_broker_deadline(q->broker, 30000);
    k->op.done = created;
    kafka_meta_create_topics(q->broker->meta, &k->op, &k->create, &k->created);
}

void kafka_handle_describe_cluster(struct kafka_request *q)
{
    const struct kafka_describe_cluster_request *m = q->msg;
    struct kafka_describe_cluster_response *r = kafka_response_new(q);
    struct kafka_describe_cluster_response_brokers *me = kafka_request_array(q, 1, sizeof *me);
    struct kafka_broker *b = q->broker;

    if (r == NULL || me == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    r->endpoint_type = m->endpoint_type;
    if (m->endpoint_type > 1) { /* this is a broker's listener, not a controller's */
        r->error_code = KAFKA_ERR_MISMATCHED_ENDPOINT_TYPE;
        kafka_reply(q, r);
        return;
    }
    kafka_preset(&kafka_describe_cluster_response_brokers_schema, me);
    me->broker_id = b->cfg.node_id;
    me->host = bns_slice_str(q->listener->advertised_host);
    me->port = q->listener->advertised_port;
    r->brokers.at = me;
    r->brokers.count = 1;
    r->cluster_id = bns_slice_str(b->cluster_text);
    r->controller_id = b->cfg.node_id;
    if (m->include_cluster_authorized_operations)
        r->cluster_authorized_operations = OPERATIONS_CLUSTER;
    kafka_reply(q, r);
}
