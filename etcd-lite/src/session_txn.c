/* session_txn.c - the messages that the steps of a call are made of: requests out, answers in. */
#include "base/varint.h"
#include "codec/pb.h"
#include "kv.h"
#include "server.h"
#include "session_run.h"

static ProtobufCBinaryData data(struct bns_slice s)
{
    return (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.ptr};
}

int etcd_session_txn(const struct etcd_session_txn *t, struct bns_buf *out)
{
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__RequestOp then = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__RequestOp or_else = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare *cmps[1] = {&cmp};
    Etcdserverpb__RequestOp *thens[1] = {&then}, *elses[1] = {&or_else};

    cmp.has_key = cmp.has_target = true;
    cmp.key = put.key = del.key = get.key = data(t->key);
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    cmp.create_revision = t->rev;
    put.has_key = del.has_key = get.has_key = true;
    put.has_value = t->value.len > 0;
    put.value = data(t->value);
    put.has_lease = !t->keep_lease;
    put.lease = t->lease;
    put.has_ignore_lease = put.ignore_lease = t->keep_lease;
    if (t->value.ptr != NULL) {
        then.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        then.request_put = &put;
    } else {
        then.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        then.request_delete_range = &del;
    }
    or_else.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    or_else.request_range = &get;
    txn.n_compare = txn.n_success = 1;
    txn.n_failure = t->or_read ? 1 : 0;
    txn.compare = cmps;
    txn.success = thens;
    txn.failure = elses;
    return bns_pb_pack(&txn.base, out);
}

int etcd_session_flat(const struct bns_slice *v, size_t n, struct bns_buf *out,
                      struct bns_slice *flat)
{
    int rv = BNS_OK;

    if (n == 1) {
        *flat = v[0];
        return BNS_OK;
    }
    for (size_t i = 0; i < n && rv == BNS_OK; i++)
        rv = v[i].len == 0 ? BNS_OK : bns_buf_add(out, v[i].ptr, v[i].len);
    *flat = bns_buf_slice(out);
    return rv;
}

/* The last field `id` of wire type 2 in msg; ptr NULL: none, or not protobuf. */
static struct bns_slice inner(struct bns_slice msg, uint32_t id)
{
    struct bns_slice found = {0};
    struct bns_pb_field f = {0};

    while (msg.len > 0 && bns_pb_next(&msg, &f) == BNS_OK) {
        if (f.id == id && f.wire == 2)
            found = f.bytes;
    }
    return found;
}

/* TxnResponse: succeeded 2, responses 3; ResponseOp: response_range 1; RangeResponse: kvs 2. */
int etcd_session_txn_read(const struct bns_alloc *alloc, const struct etcd_answer *a,
                          bool *succeeded, struct bns_buf *kv)
{
    struct bns_slice msg, rest, found;
    struct bns_pb_field f = {0};
    struct bns_buf all;
    int rv;

    *succeeded = false;
    bns_buf_init(&all, alloc, SIZE_MAX / 2);
    rv = etcd_session_flat(a->slices, a->slices_count, &all, &msg);
    for (rest = msg; rv == BNS_OK && rest.len > 0;) {
        rv = bns_pb_next(&rest, &f);
        if (rv == BNS_OK && f.id == 2)
            *succeeded = f.u64 != 0;
    }
    if (rv == BNS_OK) {
        found = inner(inner(inner(msg, 3), 1), 2);
        if (found.len > 0)
            rv = bns_buf_add(kv, found.ptr, found.len);
    }
    bns_buf_free(&all);
    return rv;
}

int etcd_session_header(struct etcd_server *s, int64_t revision, struct bns_buf *out)
{
    struct bns_buf h;
    int rv;

    bns_buf_init(&h, s->env->alloc, 128);
    rv = bns_pb_put_u64(&h, 1, s->cluster_id);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&h, 2, s->member_id);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&h, 3, revision);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&h, 4, s->term);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, 1, bns_buf_slice(&h));
    bns_buf_free(&h);
    return rv;
}
