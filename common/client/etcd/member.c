/* member.c - one registration; see peers.h.
 *
 *     lease ──> put if there is no such key ──> up
 *                 │ there is one             │ the lease is lost, the key deleted
 *                 └─ watch until it goes     └─> down; a new lease
 */
#include "client/etcd/etcd_int.h"
#include "client/etcd/lease.h"
#include "client/etcd/peers.h"
#include "client/etcd/watch.h"

struct bns_etcd_member {
    struct bns_etcd *c;
    const struct bns_etcd_member_handler *h;
    void *arg;
    struct bns_etcd_lease *lease;
    struct bns_etcd_call *call;
    struct bns_etcd_watch *watch; /* of the key: ours, or the other's that we wait for */
    struct bns_timer timer;
    unsigned tries;
    int64_t ttl_s;
    bool up, busy, closed;
    size_t key_len, value_len;
    uint8_t bytes[]; /* key, value */
};

static void begin(void *arg);

static void free_member(struct bns_etcd_member *m)
{
    bns_timer_stop(m->c->env, &m->timer);
    if (m->call != NULL)
        bns_etcd_call_cancel(m->call);
    bns_etcd_watch_close(m->watch);
    bns_etcd_lease_close(m->lease, true);
    bns_free(m->c->env->alloc, m);
}

/* From the beginning, after a pause. */
static void again(struct bns_etcd_member *m, int status, const char *text)
{
    bool closed;

    m->up = false;
    m->busy = true;
    if (m->h->on_down != NULL)
        m->h->on_down(m->arg, status, text);
    m->busy = false;
    closed = m->closed;
    if (closed) {
        free_member(m);
        return;
    }
    if (m->call != NULL)
        bns_etcd_call_cancel(m->call);
    m->call = NULL;
    bns_etcd_watch_close(m->watch);
    m->watch = NULL;
    bns_etcd_lease_close(m->lease, true);
    m->lease = NULL;
    bns_timer_start(m->c->env, &m->timer,
                    bns_now_ns(m->c->env) + bns_etcd_backoff_ns(m->c, ++m->tries));
}

static void put_key(struct bns_etcd_member *m);

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct bns_etcd_member *m = arg;

    (void)r; /* puts are filtered out: the key has gone */
    if (m->up) {
        again(m, BNS_GRPC_ABORTED, "the key was deleted");
        return;
    }
    bns_etcd_watch_close(m->watch);
    m->watch = NULL;
    put_key(m);
}

static void on_watch_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct bns_etcd_member *m = arg;

    (void)compacted; /* then what we missed is found out by putting it again */
    m->watch = NULL;
    again(m, status, text);
}

static void put_told(void *arg, const struct bns_etcd_answer *a)
{
    static const struct bns_etcd_watch_handler handler = {.on_events = on_events,
                                                          .on_end = on_watch_end};
    struct bns_etcd_member *m = arg;
    const Etcdserverpb__TxnResponse *r = (const void *)a->msg;
    struct bns_etcd_watch_options o = {
        .key = bns_slice(m->bytes, m->key_len), .no_put = true, .handler = &handler, .arg = m};

    m->call = NULL;
    if (a->status != BNS_GRPC_OK || r->header == NULL) {
        again(m, a->status, a->text);
        return;
    }
    o.start_revision = r->header->revision + 1;
    if (bns_etcd_watch_open(m->c, &o, &m->watch) != BNS_OK) {
        m->watch = NULL;
        again(m, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory for a watch");
        return;
    }
    if (!r->succeeded)
        return; /* somebody has the name: wait until it is free */
    m->tries = 0;
    m->up = true;
    m->busy = true;
    m->h->on_up(m->arg, r->header->revision);
    m->busy = false;
    if (m->closed)
        free_member(m);
}

static void put_key(struct bns_etcd_member *m)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT, *cmps[] = {&cmp};
    Etcdserverpb__RequestOp then = ETCDSERVERPB__REQUEST_OP__INIT, *thens[] = {&then};
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_TXN, .request = &txn.base};

    cmp.has_key = cmp.has_target = put.has_key = put.has_value = put.has_lease = true;
    cmp.key = put.key = (ProtobufCBinaryData){m->key_len, m->bytes};
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    put.value = (ProtobufCBinaryData){m->value_len, m->bytes + m->key_len};
    put.lease = bns_etcd_lease_id(m->lease);
    then.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    then.request_put = &put;
    txn.n_compare = txn.n_success = 1;
    txn.compare = cmps;
    txn.success = thens;
    if (bns_etcd_call(m->c, &o, put_told, m, &m->call) != BNS_OK) {
        m->call = NULL;
        again(m, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory for a call");
    }
}

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    (void)id;
    (void)ttl;
    put_key(arg);
}

static void on_lease_lost(void *arg, int status, const char *text)
{
    struct bns_etcd_member *m = arg;

    m->lease = NULL;
    again(m, status, text);
}

static void begin(void *arg)
{
    static const struct bns_etcd_lease_handler handler = {on_granted, NULL, on_lease_lost};
    struct bns_etcd_member *m = arg;
    const struct bns_etcd_lease_options o = {.ttl_s = m->ttl_s, .handler = &handler, .arg = m};

    if (bns_etcd_lease_open(m->c, &o, &m->lease) != BNS_OK) {
        m->lease = NULL;
        bns_timer_start(m->c->env, &m->timer,
                        bns_now_ns(m->c->env) + bns_etcd_backoff_ns(m->c, ++m->tries));
    }
}

int bns_etcd_member_open(struct bns_etcd *c, const struct bns_etcd_member_options *o,
                         struct bns_etcd_member **out)
{
    struct bns_etcd_member *m;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    if (o->name.len == 0)
        return BNS_E_INVALID;
    m = bns_alloc_zero(c->env->alloc, sizeof *m + o->prefix.len + o->name.len + o->value.len);
    if (m == NULL)
        return BNS_E_NOMEM;
    m->c = c;
    m->h = o->handler;
    m->arg = o->arg;
    m->ttl_s = o->ttl_s;
    m->key_len = o->prefix.len + o->name.len;
    m->value_len = o->value.len;
    if (o->prefix.len > 0)
        memcpy(m->bytes, o->prefix.ptr, o->prefix.len);
    memcpy(m->bytes + o->prefix.len, o->name.ptr, o->name.len);
    if (o->value.len > 0)
        memcpy(m->bytes + m->key_len, o->value.ptr, o->value.len);
    bns_timer_init(&m->timer, begin, m);
    begin(m);
    *out = m;
    return BNS_OK;
}

void bns_etcd_member_close(struct bns_etcd_member *m)
{
    if (m == NULL)
        return;
    m->closed = true;
    if (!m->busy)
        free_member(m);
}
