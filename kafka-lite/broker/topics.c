/* topics.c - what changes the metadata: CreateTopics, DeleteTopics, CreatePartitions, AlterConfigs,
 * IncrementalAlterConfigs; and DescribeConfigs.
 *
 * The metadata check and answer (meta/meta.h); here a request only waits: for its command, then for
 * the log directory to follow.
 */
#include "broker/broker.h"
#include "broker/handlers.h"
#include "meta/describe.h"

struct change {
    struct kafka_meta_op op;
    struct kafka_request *q;
    void *response;
};

static void answer(struct kafka_request *q)
{
    struct change *c = q->arg;

    kafka_reply(q, c->response);
}

static void changed(struct kafka_meta_op *op)
{
    struct change *c = BNS_CONTAINER(op, struct change, op);

    if (op->code == BNS_E_NOMEM)
        kafka_reply_close(c->q, "out of memory");
    else
        kafka_places_after(c->q, answer);
}

/* NULL: no memory; the request is over then. */
static struct change *begin(struct kafka_request *q, int32_t timeout_ms)
{
    struct change *c = kafka_request_array(q, 1, sizeof *c);

    if (c != NULL)
        c->response = kafka_response_new(q);
    if (c == NULL || c->response == NULL) {
        kafka_reply_close(q, "out of memory");
        return NULL;
    }
    c->q = q;
    c->op.arena = &q->arena;
    c->op.deadline_ns = kafka_broker_deadline(q->broker, timeout_ms);
    c->op.done = changed;
    q->arg = c;
    return c;
}

void kafka_handle_create_topics(struct kafka_request *q)
{
    const struct kafka_create_topics_request *m = q->msg;
    struct change *c = begin(q, m->timeout_ms);

    if (c != NULL)
        kafka_meta_create_topics(q->broker->meta, &c->op, m, c->response);
}

void kafka_handle_delete_topics(struct kafka_request *q)
{
    const struct kafka_delete_topics_request *m = q->msg;
    struct change *c = begin(q, m->timeout_ms);

    if (c != NULL)
        kafka_meta_delete_topics(q->broker->meta, &c->op, m, c->response);
}

void kafka_handle_create_partitions(struct kafka_request *q)
{
    const struct kafka_create_partitions_request *m = q->msg;
    struct change *c = begin(q, m->timeout_ms);

    if (c != NULL)
        kafka_meta_create_partitions(q->broker->meta, &c->op, m, c->response);
}

void kafka_handle_alter_configs(struct kafka_request *q)
{
    struct change *c = begin(q, 30000);

    if (c != NULL)
        kafka_meta_alter_configs(q->broker->meta, &c->op, q->msg, c->response);
}

void kafka_handle_incremental_alter_configs(struct kafka_request *q)
{
    struct change *c = begin(q, 30000);

    if (c != NULL)
        kafka_meta_incremental_alter_configs(q->broker->meta, &c->op, q->msg, c->response);
}

void kafka_handle_describe_configs(struct kafka_request *q)
{
    struct kafka_describe_configs_response *r = kafka_response_new(q);

    if (r == NULL || kafka_describe_configs(q->broker->meta, &q->arena, q->msg, r) != BNS_OK)
        kafka_reply_close(q, "out of memory");
    else
        kafka_reply(q, r);
}
