/* rpc_kv.c - the service etcdserverpb.KV: check, then read or propose. */
#include "server.h"

static bool refused(struct bns_grpc_call *c, bool ok, const struct etcd_status *st)
{
    if (!ok)
        bns_grpc_finish(c, st->code, st->text, NULL, 0);
    return !ok;
}

static void answered(void *arg, struct etcd_answer *a)
{
    struct etcd_task *t = arg;

    t->storing = false;
    if (a->status == 0 && etcd_auth_stale(t)) {
        a->release(a->release_arg, BNS_OK);
        etcd_task_fail(t, etcd_auth_old.code, etcd_auth_old.text);
        return;
    }
    etcd_task_answer(t, a);
}

static bool forbidden(struct etcd_task *t, bool ok, const struct etcd_status *st)
{
    if (!ok)
        etcd_task_fail(t, st->code, st->text);
    return !ok;
}

static void range_now(struct etcd_task *t)
{
    const Etcdserverpb__RangeRequest *r = t->req;
    struct etcd_status st = {0};

    etcd_auth_who(t->s, t->call, &t->who);
    if (!forbidden(t,
                   etcd_auth_range(t->s->kv, &t->who, bns_slice(r->key.data, r->key.len),
                                   bns_slice(r->range_end.data, r->range_end.len), &st),
                   &st))
        etcd_kv_range(t->s->kv, r, answered, t);
}

static void range_soon(struct etcd_task *t)
{
    etcd_task_store(t, range_now);
}

static void on_range(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__RangeRequest *r =
        etcd_decode(c, &etcdserverpb__range_request__descriptor, msg);
    struct etcd_status st = {0};
    struct etcd_task *t;

    if (r == NULL || refused(c, etcd_check_range(r, &st), &st))
        return;
    t = etcd_task_new(bns_grpc_arg(c), c);
    if (t == NULL)
        return;
    t->req = r;
    if (BNS_MUTANT(t->s->env, ETCD_MUTANT_LEARNER_READS) && t->s->learner)
        range_soon(t);
    else if (r->serializable)
        etcd_task_at_least(t, range_soon);
    else if (t->s->learner)
        etcd_task_fail(t, ETCD_LEARNER_STATUS, ETCD_TEXT_LEARNER);
    else
        etcd_task_linearizable(t, range_soon);
}

static void propose(struct bns_grpc_call *c, enum etcd_op kind, uint64_t cost, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct etcd_task *t;

    if (!etcd_alarm_gate(s, c, cost))
        return;
    t = etcd_task_new(s, c);
    if (t != NULL)
        etcd_task_propose(t, kind, msg);
}

static void on_put(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__PutRequest *r = etcd_decode(c, &etcdserverpb__put_request__descriptor, msg);
    struct etcd_status st = {0};

    if (r != NULL && !refused(c, etcd_check_put(r, &st), &st))
        propose(c, ETCD_OP_PUT, etcd_cost_put(r), msg);
}

static void on_delete(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__DeleteRangeRequest *r =
        etcd_decode(c, &etcdserverpb__delete_range_request__descriptor, msg);
    struct etcd_status st = {0};

    if (r != NULL && !refused(c, etcd_check_delete(r, &st), &st))
        propose(c, ETCD_OP_DELETE, 0, msg);
}

static void txn_now(struct etcd_task *t)
{
    struct etcd_status st = {0};

    etcd_auth_who(t->s, t->call, &t->who);
    if (!forbidden(t, etcd_auth_txn(t->s->kv, &t->who, t->req, &st), &st))
        etcd_kv_txn_readonly(t->s->kv, t->req, answered, t);
}

static void txn_soon(struct etcd_task *t)
{
    etcd_task_store(t, txn_now);
}

static void on_txn(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    const Etcdserverpb__TxnRequest *r = etcd_decode(c, &etcdserverpb__txn_request__descriptor, msg);
    struct etcd_limits limits = {.txn_ops_max = (uint32_t)s->opt->txn_ops_max};
    struct etcd_status st = {0};
    struct etcd_task *t;

    if (r == NULL || refused(c, etcd_check_txn(r, &limits, s->env->alloc, &st), &st))
        return;
    if (!etcd_txn_readonly(r)) {
        propose(c, ETCD_OP_TXN, etcd_cost_txn(r), msg);
        return;
    }
    t = etcd_task_new(s, c);
    if (t == NULL)
        return;
    t->req = r;
    if (etcd_txn_serializable(r))
        etcd_task_at_least(t, txn_soon);
    else
        etcd_task_linearizable(t, txn_soon);
}

static void on_compact(struct bns_grpc_call *c, struct bns_slice msg)
{
    if (etcd_decode(c, &etcdserverpb__compaction_request__descriptor, msg) != NULL)
        propose(c, ETCD_OP_COMPACT, 0, msg);
}

int etcd_kv_service(struct etcd_server *s)
{
    /* the largest message: a write at its limit and the framing around it, as etcd allows */
    uint32_t max = (uint32_t)s->opt->request_bytes_max + 512 * 1024;
    const struct bns_grpc_method methods[] = {
        {.path = "/etcdserverpb.KV/Range",
         .handler = {.on_message = on_range, .on_end = etcd_task_gone}},
        {.path = "/etcdserverpb.KV/Put", .handler = {.on_message = on_put}},
        {.path = "/etcdserverpb.KV/DeleteRange", .handler = {.on_message = on_delete}},
        {.path = "/etcdserverpb.KV/Txn",
         .handler = {.on_message = on_txn, .on_end = etcd_task_gone}},
        {.path = "/etcdserverpb.KV/Compact", .handler = {.on_message = on_compact}},
    };
    size_t count = sizeof methods / sizeof methods[0];

    _Static_assert(sizeof methods == sizeof s->kv_methods, "one place a method");
    memcpy(s->kv_methods, methods, sizeof methods);
    for (size_t i = 0; i < count; i++) {
        s->kv_methods[i].kind = BNS_GRPC_UNARY;
        s->kv_methods[i].msg_bytes_max = max;
        s->kv_methods[i].arg = s;
    }
    return bns_grpc_server_methods(s->grpc, s->kv_methods, count);
}
