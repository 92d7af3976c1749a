/* task.c - the life of one request: decode, wait for Raft or the store, answer, or time out.
 *
 * All tasks have the same timeout (5 s + twice the election timeout, as etcd), so they stand in one
 * list in the order of their deadlines and one timer serves all. A task that timed out while its
 * proposal is under way tells the client so (the outcome is unknown, as with etcd).
 *
 * A read of the store is put off while its connection is over its budget of answers that the client
 * has not taken, and while much is being read: else a client that asks for much and never reads
 * would have all of it in our memory. So a connection holds at most its budget and what was being
 * read. Put-off reads are looked at after each answer and every PARKED_NS.
 */
#include <stdio.h>

#include "codec/pb.h"
#include "server.h"

#define PARKED_NS (10 * BNS_MS)
#define PARKED_MAX 4096u

#define TEXT_BUSY "etcdserver: too many requests"
#define TEXT_TIMEOUT "etcdserver: request timed out"
#define TEXT_BEHIND "etcdserver: this member has not applied the revision asked for"
#define TEXT_NO_LEADER "etcdserver: no leader"

static void arm(struct etcd_server *s)
{
    if (bns_list_empty(&s->ops))
        bns_timer_stop(s->env, &s->ops_timer);
    else
        bns_timer_start(s->env, &s->ops_timer,
                        BNS_CONTAINER(s->ops.next, struct etcd_task, node)->deadline_ns);
}

/* Leaves the queues; the call is finished by the caller right after. */
static void detach(struct etcd_task *t)
{
    bns_list_del(&t->node);
    if (t->waiting)
        etcd_kv_unwait(t->s->kv, &t->wait);
    if (t->reading)
        bns_raft_node_read_cancel(t->s->node, &t->read);
    if (t->parked) {
        bns_list_del(&t->park);
        t->s->parked_count--;
    }
    etcd_task_unwait_revision(t);
    t->waiting = false;
    t->reading = false;
    t->parked = false;
}

void etcd_tasks_timer(void *arg)
{
    struct etcd_server *s = arg;
    uint64_t now = bns_now_ns(s->env);

    while (!bns_list_empty(&s->ops)) {
        struct etcd_task *t = BNS_CONTAINER(s->ops.next, struct etcd_task, node);

        if (t->deadline_ns > now)
            break;
        if (t->storing) { /* the store answers for certain: not a matter of time */
            bns_list_del(&t->node);
            continue;
        }
        bns_counter_add(s->m_timeouts, 1);
        bns_counter_add(t->reading ? s->m_reads_slow : NULL, 1);
        if (etcd_task_is_behind(t))
            etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, TEXT_BEHIND);
        else if (s->leader == 0 && t->reading)
            etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, TEXT_NO_LEADER);
        else
            etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, TEXT_TIMEOUT);
    }
    arm(s);
}

void etcd_tasks_abort(struct etcd_server *s)
{
    BNS_LIST_EACH(it, &s->ops)
    {
        struct etcd_task *t = BNS_CONTAINER(it, struct etcd_task, node);

        if (!t->storing)
            etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped");
    }
}

struct etcd_task *etcd_task_new(struct etcd_server *s, struct bns_grpc_call *c)
{
    struct etcd_task *t = bns_arena_alloc(bns_grpc_arena(c), sizeof *t);

    if (t == NULL) {
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory", NULL, 0);
        return NULL;
    }
    etcd_task_init(t, s, c);
    return t;
}

void etcd_task_init(struct etcd_task *t, struct etcd_server *s, struct bns_grpc_call *c)
{
    *t = (struct etcd_task){.s = s, .call = c};
    bns_list_init(&t->node);
    bns_list_init(&t->read.node);
    bns_list_init(&t->park);
    etcd_auth_who(s, c, &t->who);
    t->deadline_ns = bns_now_ns(s->env) + s->op_timeout_ns;
}

void etcd_task_enlist(struct etcd_task *t)
{
    bool first = bns_list_empty(&t->s->ops);

    if (!bns_list_empty(&t->node))
        return;
    bns_list_push(&t->s->ops, &t->node);
    if (first)
        arm(t->s);
}

void etcd_task_fail(struct etcd_task *t, int status, const char *text)
{
    detach(t);
    if (t->failed != NULL) {
        t->failed(t, status, text);
        return;
    }
    bns_counter_add(t->s->m_failed, 1);
    bns_grpc_finish(t->call, status, text, NULL, 0);
}

void etcd_task_drop(struct etcd_task *t)
{
    detach(t);
}

void etcd_task_reply(struct etcd_task *t, struct bns_slice msg)
{
    detach(t);
    if (bns_grpc_send_copy(t->call, msg) == BNS_E_NOMEM)
        bns_grpc_finish(t->call, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory", NULL, 0);
    else
        bns_grpc_finish(t->call, BNS_GRPC_OK, NULL, NULL, 0);
}

void etcd_task_reply_buf(struct etcd_task *t, struct bns_buf *out, int rv)
{
    if (rv == BNS_OK)
        etcd_task_reply(t, bns_buf_slice(out));
    else
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory");
    bns_buf_free(out);
}

void etcd_task_answer(struct etcd_task *t, struct etcd_answer *a)
{
    struct etcd_server *s = t->s; /* the task ends with its call */
    char text[ETCD_TOKEN_TEXT];
    struct bns_grpc_md token;
    int64_t revision;
    int rv;

    if (a->status != 0) {
        etcd_task_fail(t, a->status, a->text);
        return;
    }
    etcd_metrics_answer(t, a);
    detach(t);
    if (t->answered != NULL) {
        t->answered(t, a);
        etcd_tasks_pump(s);
        return;
    }
    etcd_answer_header(a, t->s->cluster_id, t->s->member_id, t->s->term);
    revision = a->revision;
    rv = bns_grpc_send(t->call, a->slices, a->slices_count, a->release, a->release_arg);
    if (rv != BNS_OK)
        a->release(a->release_arg, rv);
    if (rv == BNS_E_NOMEM)
        bns_grpc_finish(t->call, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory", NULL, 0);
    else
        bns_grpc_finish(t->call, BNS_GRPC_OK, NULL, &token,
                        etcd_task_token(t, revision, text, &token));
    etcd_tasks_pump(s);
}

/* ---- reads that are put off ----------------------------------------------------------------- */

void etcd_tasks_pump(void *arg)
{
    struct etcd_server *s = arg;

    if (s->parked_pumping || s->parked_count == 0)
        return;
    s->parked_pumping = true;
    for (size_t n = s->parked_count; n > 0 && !etcd_kv_reads_wait(s->kv); n--) {
        struct etcd_task *t = BNS_CONTAINER(bns_list_pop(&s->parked), struct etcd_task, park);

        if (bns_grpc_over(t->call)) {
            bns_list_push(&s->parked, &t->park);
            continue;
        }
        s->parked_count--;
        t->parked = false;
        t->storing = true;
        t->start(t);
    }
    s->parked_pumping = false;
    if (s->parked_count > 0)
        bns_timer_start(s->env, &s->parked_timer, bns_now_ns(s->env) + PARKED_NS);
}

void etcd_task_store(struct etcd_task *t, void (*start)(struct etcd_task *t))
{
    struct etcd_server *s = t->s;

    if (!etcd_kv_reads_wait(s->kv) && !bns_grpc_over(t->call)) {
        t->storing = true;
        start(t);
        return;
    }
    if (s->parked_count == PARKED_MAX) {
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_BUSY);
        return;
    }
    t->start = start;
    t->parked = true;
    bns_list_push(&s->parked, &t->park);
    etcd_task_enlist(t);
    if (s->parked_count++ == 0)
        bns_timer_start(s->env, &s->parked_timer, bns_now_ns(s->env) + PARKED_NS);
}

static void read_done(struct bns_raft_read *r, int code)
{
    struct etcd_task *t = BNS_CONTAINER(r, struct etcd_task, read);

    t->reading = false;
    if (code != BNS_OK)
        bns_counter_add(t->s->m_reads_failed, 1);
    if (code == BNS_E_TIMEOUT)
        bns_counter_add(t->s->m_reads_slow, 1);
    if (code == BNS_OK)
        t->then(t);
    else if (code == BNS_E_NOTLEADER)
        etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, TEXT_NO_LEADER);
    else if (code == BNS_E_SHUTDOWN)
        etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped");
    else if (code == BNS_E_BUSY)
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_BUSY);
    else
        etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, TEXT_TIMEOUT);
}

void etcd_task_linearizable(struct etcd_task *t, void (*then)(struct etcd_task *t))
{
    t->then = then;
    t->read.fn = read_done;
    t->reading = true;
    etcd_task_enlist(t);
    bns_raft_node_read(t->s->node, &t->read, t->deadline_ns);
}

static void applied(struct etcd_waiter *w, struct etcd_answer *a)
{
    struct etcd_task *t = BNS_CONTAINER(w, struct etcd_task, wait);

    t->waiting = false;
    if (t->instead == NULL) {
        etcd_task_answer(t, a);
        return;
    }
    if (a->status == 0)
        a->release(a->release_arg, BNS_OK);
    etcd_task_fail(t, t->instead->code, t->instead->text);
}

/* Each life of each member counts from a random 64-bit number. Two ids must never meet: an entry of
 * another member, or of a former life, would be taken for the write that waits here, and its client
 * told that it is done. Clocks may be set back and member ids may agree in any of their bits. */
int etcd_request_ids(struct etcd_server *s, struct bns_err *err)
{
    int rv = bns_entropy(s->env, &s->request_seq, sizeof s->request_seq);

    return rv == BNS_OK ? rv : bns_err_set(err, rv, "no entropy for the ids of requests");
}

uint64_t etcd_request_id(struct etcd_server *s)
{
    if (++s->request_seq == 0) /* 0 is nobody's */
        s->request_seq = 1;
    return s->request_seq;
}

/* Auth is on, and who asks showed nothing. Only a leader that has applied all that is committed
 * knows: elsewhere it may have been turned off, and the entry's apply decides. */
static bool surely_nobody(const struct etcd_task *t)
{
    struct bns_raft_status st;

    if (!etcd_auth_enabled(t->s->kv) || t->who.revision != 0)
        return false;
    bns_raft_node_status(t->s->node, &st);
    return st.role == BNS_RAFT_LEADER && st.ready && st.commit == etcd_kv_applied(t->s->kv);
}

void etcd_task_propose(struct etcd_task *t, enum etcd_op kind, struct bns_slice request)
{
    struct etcd_server *s = t->s;
    struct bns_rcbuf *entry;
    int rv;

    if (request.len > s->opt->request_bytes_max) {
        etcd_task_fail(t, BNS_GRPC_INVALID_ARGUMENT, "etcdserver: request is too large");
        return;
    }
    if (t->who.why.code != 0) {
        etcd_task_fail(t, t->who.why.code, t->who.why.text);
        return;
    }
    if (kind != ETCD_OP_AUTHENTICATE && surely_nobody(t)) {
        etcd_task_fail(t, etcd_auth_no_name.code, etcd_auth_no_name.text); /* as its apply would */
        return;
    }
    t->wait.id = etcd_request_id(s);
    if (BNS_MUTANT(s->env, ETCD_MUTANT_LATE_ANSWER))
        t->wait.id = s->member_id + t->wait.id % 16;
    t->wait.fn = applied;
    entry = etcd_internal_encode_as(s->env->alloc, t->wait.id, &t->who, kind, request);
    rv = entry == NULL ? BNS_E_NOMEM : etcd_kv_wait(s->kv, &t->wait);
    if (rv == BNS_OK) {
        t->waiting = true;
        rv = kind == ETCD_OP_LEASE_REVOKE ? bns_raft_node_propose_urgent(s->node, entry)
                                          : bns_raft_node_propose(s->node, entry);
    }
    bns_rcbuf_put(entry);
    if (rv == BNS_OK) {
        etcd_task_enlist(t);
        return;
    }
    if (rv == BNS_E_NOSPACE)
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, ETCD_TEXT_NOSPACE);
    else if (rv == BNS_E_SHUTDOWN)
        etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped");
    else
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_BUSY);
}

void *etcd_decode(struct bns_grpc_call *c, const void *descriptor, struct bns_slice msg)
{
    ProtobufCMessage *out = NULL;
    struct bns_pb_limits limits = {.bytes = 128u * 1024 * 1024};
    struct bns_err err = {0};
    char text[BNS_ERR_TEXT_MAX + 64];
    int rv = bns_pb_unpack(descriptor, msg, bns_grpc_arena(c), &limits, &out, &err);

    if (rv == BNS_OK)
        return out;
    (void)snprintf(text, sizeof text, "grpc: error unmarshalling request: %s", err.text);
    bns_grpc_finish(c, rv == BNS_E_NOMEM ? BNS_GRPC_RESOURCE_EXHAUSTED : BNS_GRPC_INTERNAL, text,
                    NULL, 0);
    return NULL;
}
