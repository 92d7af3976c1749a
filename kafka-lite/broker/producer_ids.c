/* producer_ids.c - InitProducerId for producers without transactions.
 *
 * The metadata give blocks of ids that nobody is ever given again; a broker hands them out one by
 * one and asks for the next block when it has none left. Ids of a block that a crash leaves are
 * lost. Transactions are not served: a transactional id is refused with an error that clients give
 * up at.
 */
#include "broker/broker.h"
#include "broker/handlers.h"

#define WAITING_MAX 10000u

static void give(struct kafka_request *q, int64_t id, int16_t error)
{
    struct kafka_init_producer_id_response *r = kafka_response_new(q);

    if (r == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    r->error_code = error;
    r->producer_id = error == 0 ? id : -1;
    r->producer_epoch = error == 0 ? 0 : -1;
    kafka_reply(q, r);
}

static void ask(struct kafka_broker *b);

static void serve(struct kafka_broker *b, int16_t error)
{
    while (!bns_list_empty(&b->ids.waiting) && (error != 0 || b->ids.next < b->ids.end)) {
        struct kafka_request *q =
            BNS_CONTAINER(bns_list_pop(&b->ids.waiting), struct kafka_request, waiting);

        b->ids.waiting_count--;
        give(q, error == 0 ? b->ids.next++ : -1, error);
    }
    if (!bns_list_empty(&b->ids.waiting) && !b->ids.asking)
        ask(b);
}

static void given(struct kafka_meta_op *op)
{
    struct kafka_broker *b = BNS_CONTAINER(op, struct kafka_broker, ids.op);
    int16_t error = KAFKA_ERR_COORDINATOR_LOAD_IN_PROGRESS; /* clients ask again */

    b->ids.asking = false;
    bns_arena_free(&b->ids.arena);
    if (op->code == BNS_OK && b->ids.block.first >= 0) {
        b->ids.next = b->ids.block.first;
        b->ids.end = b->ids.next + KAFKA_PRODUCER_IDS_BLOCK;
        error = 0;
    }
    serve(b, error);
    kafka_server_fed(b->server);
}

static void ask(struct kafka_broker *b)
{
    b->ids.asking = true;
    b->ids.op = (struct kafka_meta_op){
        .arena = &b->ids.arena, .deadline_ns = kafka_broker_deadline(b, 10000), .done = given};
    kafka_meta_producer_ids(b->meta, &b->ids.op, &b->ids.block);
}

void kafka_handle_init_producer_id(struct kafka_request *q)
{
    const struct kafka_init_producer_id_request *m = q->msg;
    struct kafka_broker *b = q->broker;

    if (m->transactional_id.ptr != NULL) {
        give(q, -1,
             m->transactional_id.len == 0 ? KAFKA_ERR_INVALID_REQUEST
                                          : KAFKA_ERR_UNSUPPORTED_VERSION);
        return;
    }
    if (b->ids.waiting_count >= WAITING_MAX) {
        give(q, -1, KAFKA_ERR_COORDINATOR_LOAD_IN_PROGRESS);
        return;
    }
    bns_list_push(&b->ids.waiting, &q->waiting);
    b->ids.waiting_count++;
    if (!b->ids.asking)
        serve(b, 0);
}
