/* kv.c - the usual requests of KV, put together. */
#include "client/etcd/etcd_int.h"

static ProtobufCBinaryData bytes_of(struct bns_slice s)
{
    return (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.ptr};
}

static int call(struct bns_etcd *c, enum bns_etcd_method m, const ProtobufCMessage *request,
                bns_etcd_done *done, void *arg)
{
    const struct bns_etcd_call_options o = {.method = m, .request = request};

    return bns_etcd_call(c, &o, done, arg, NULL);
}

static void put_request(Etcdserverpb__PutRequest *r, struct bns_slice key, struct bns_slice value,
                        int64_t lease)
{
    etcdserverpb__put_request__init(r);
    r->has_key = r->has_value = true;
    r->key = bytes_of(key);
    r->value = bytes_of(value);
    r->has_lease = lease != 0;
    r->lease = lease;
}

int bns_etcd_put(struct bns_etcd *c, struct bns_slice key, struct bns_slice value, int64_t lease,
                 bns_etcd_done *done, void *arg)
{
    Etcdserverpb__PutRequest r;

    put_request(&r, key, value, lease);
    return call(c, BNS_ETCD_PUT, &r.base, done, arg);
}

int bns_etcd_get(struct bns_etcd *c, struct bns_slice key, struct bns_slice end,
                 bns_etcd_done *done, void *arg)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;

    r.has_key = true;
    r.key = bytes_of(key);
    r.has_range_end = end.len > 0;
    r.range_end = bytes_of(end);
    return call(c, BNS_ETCD_RANGE, &r.base, done, arg);
}

int bns_etcd_del(struct bns_etcd *c, struct bns_slice key, struct bns_slice end,
                 bns_etcd_done *done, void *arg)
{
    Etcdserverpb__DeleteRangeRequest r = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;

    r.has_key = true;
    r.key = bytes_of(key);
    r.has_range_end = end.len > 0;
    r.range_end = bytes_of(end);
    return call(c, BNS_ETCD_DELETE, &r.base, done, arg);
}

int bns_etcd_put_if(struct bns_etcd *c, const struct bns_etcd_cas *o, bns_etcd_done *done,
                    void *arg)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT, *cmps[] = {&cmp};
    Etcdserverpb__RequestOp then = ETCDSERVERPB__REQUEST_OP__INIT, *thens[] = {&then};
    Etcdserverpb__RequestOp other = ETCDSERVERPB__REQUEST_OP__INIT, *others[] = {&other};
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__PutRequest put;

    put_request(&put, o->key, o->value, o->lease);
    get.has_key = cmp.has_key = true;
    get.key = cmp.key = bytes_of(o->key);
    cmp.has_target = true;
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
    cmp.mod_revision = o->revision;
    then.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    then.request_put = &put;
    other.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    other.request_range = &get;
    txn.n_compare = txn.n_success = txn.n_failure = 1;
    txn.compare = cmps;
    txn.success = thens;
    txn.failure = others;
    return call(c, BNS_ETCD_TXN, &txn.base, done, arg);
}

struct bns_slice bns_etcd_prefix_end(struct bns_slice prefix, uint8_t *dst)
{
    size_t len = prefix.len;

    while (len > 0 && prefix.ptr[len - 1] == 0xff)
        len--;
    if (len == 0) {
        dst[0] = 0;
        return bns_slice(dst, 1);
    }
    memcpy(dst, prefix.ptr, len);
    dst[len - 1]++;
    return bns_slice(dst, len);
}
