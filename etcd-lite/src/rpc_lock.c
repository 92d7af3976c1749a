/* rpc_lock.c - the service v3lockpb.Lock: session.c does it, this is its shape on the wire.
 *
 * Lock holds a key under "name/"; the key's name ends with the lease in hexadecimal, so calls with
 * the same lease are the same holder. Unlock deletes the key that Lock answered with.
 */
#include "codec/pb.h"
#include "lock.pb-c.h"
#include "server.h"

static int answer_lock(struct etcd_server *s, const struct etcd_session_result *r,
                       struct bns_buf *out)
{
    int rv = etcd_session_header(s, r->revision, out);

    return rv == BNS_OK ? bns_pb_put_bytes(out, 2, r->key) : rv;
}

static void on_lock(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__LockRequest *r =
        etcd_decode(c, &etcdserverpb__lock_request__descriptor, msg);
    struct etcd_session_request q;

    if (r == NULL)
        return;
    q = (struct etcd_session_request){.lease = r->lease,
                                      .name = bns_slice(r->name.data, r->name.len)};
    etcd_session_start(c, &q, answer_lock);
}

static void unlocked(struct etcd_task *t, struct etcd_answer *a)
{
    int64_t revision = a->revision;
    struct bns_buf out;
    int rv;

    a->release(a->release_arg, BNS_OK);
    bns_buf_init(&out, t->s->env->alloc, 256);
    rv = etcd_session_header(t->s, revision, &out);
    etcd_session_reply(t->call, &out, rv);
}

static void on_unlock(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__UnlockRequest *r =
        etcd_decode(c, &etcdserverpb__unlock_request__descriptor, msg);
    struct etcd_server *s = bns_grpc_arg(c);
    struct etcd_task *t;
    struct bns_buf b;
    int rv;

    if (r == NULL)
        return;
    if (r->key.len == 0) {
        bns_grpc_finish(c, BNS_GRPC_UNKNOWN, ETCD_TEXT_NO_KEY, NULL, 0);
        return;
    }
    t = etcd_session_task(c);
    if (t == NULL)
        return;
    t->answered = unlocked;
    bns_buf_init(&b, s->env->alloc, SIZE_MAX / 2);
    rv = bns_pb_put_bytes(&b, 1, bns_slice(r->key.data, r->key.len)); /* a DeleteRangeRequest */
    if (rv != BNS_OK)
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory");
    else if (etcd_session_gate(t, 0))
        etcd_task_propose(t, ETCD_OP_DELETE, bns_buf_slice(&b));
    bns_buf_free(&b);
}

int etcd_lock_service(struct etcd_server *s)
{
    const struct bns_grpc_method methods[] = {
        {.path = "/v3lockpb.Lock/Lock",
         .handler = {.on_message = on_lock, .on_end = etcd_session_on_end}},
        {.path = "/v3lockpb.Lock/Unlock", .handler = {.on_message = on_unlock}},
    };
    size_t count = sizeof methods / sizeof methods[0];

    _Static_assert(sizeof methods == sizeof s->lock.lock_methods, "one place a method");
    memcpy(s->lock.lock_methods, methods, sizeof methods);
    for (size_t i = 0; i < count; i++) {
        s->lock.lock_methods[i].kind = BNS_GRPC_UNARY;
        s->lock.lock_methods[i].arg = s;
    }
    return bns_grpc_server_methods(s->grpc, s->lock.lock_methods, count);
}
