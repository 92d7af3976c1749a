/* lock.c - see lock.h.
 *
 *     ENTER ──> LOOK <──────────────┐
 *                │ somebody before: │ its key has gone
 *                │      WAIT ───────┘
 *                └ nobody: VERIFY ──> HELD
 *
 * ENTER is a transaction that puts the key if there is none and reads it otherwise; sent again with
 * an unknown outcome it finds its own key. LOOK reads the newest key under the prefix that is
 * older than ours. VERIFY reads our key again: the lease may have ended while we waited, and then
 * "nobody before us" says nothing (the bug that Jepsen found in etcd 3.4.3). WAIT and HELD watch
 * one key from the revision of the read before them, so nothing happens unseen in between.
 *
 * Close deletes the key. A put that is under way is waited for first: else the server may take the
 * deletion first, and the key would come back with nobody to hold it. A put whose outcome was never
 * told may even be applied after that: then only the end of the lease is the end of the key, and
 * `done` says so.
 */
#include "client/etcd/lock.h"

#include "client/etcd/etcd_int.h"
#include "client/etcd/watch.h"

#include <inttypes.h>
#include <stdio.h>

enum step { ENTER, LOOK, WAIT, VERIFY, HELD };

struct bns_etcd_lock {
    struct bns_etcd *c;
    const struct bns_etcd_lock_handler *h;
    void *arg;
    enum step step;
    struct bns_etcd_call *call;
    struct bns_etcd_watch *watch;
    struct bns_timer timer; /* the next try */
    unsigned tries;
    int64_t lease, rev; /* rev: that created our key */
    int64_t seen;       /* of the last read */
    bool busy, closed, told;
    bool doubt;          /* a put of our key may still be on its way */
    bns_etcd_done *done; /* once closed: of the deletion; NULL: nobody asks */
    void *done_arg;
    size_t prefix_len, key_len, value_len;
    uint8_t *value;
    uint8_t bytes[]; /* key, of which the prefix is the beginning; value */
};

static void step(struct bns_etcd_lock *l);

static ProtobufCBinaryData key_of(struct bns_etcd_lock *l)
{
    return (ProtobufCBinaryData){l->key_len, l->bytes};
}

static void free_lock(struct bns_etcd_lock *l)
{
    bns_timer_stop(l->c->env, &l->timer);
    if (l->call != NULL)
        bns_etcd_call_cancel(l->call);
    bns_etcd_watch_close(l->watch);
    bns_free(l->c->env->alloc, l);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void deleted(void *arg, const struct bns_etcd_answer *a)
{
    static const struct bns_etcd_answer doubtful = {
        .status = BNS_GRPC_ABORTED,
        .text = "the lock's key may come back: only the end of its lease is its end",
        .cause = "",
        .unknown = true};
    struct bns_etcd_lock *l = arg;
    bns_etcd_done *done = l->done;
    void *done_arg = l->done_arg;
    bool doubt = l->doubt && a->status == BNS_GRPC_OK;

    l->call = NULL;
    free_lock(l);
    if (done != NULL)
        done(done_arg, doubt ? &doubtful : a);
}

/* Nobody is told of the lock any more: its key goes, unless it is just being put. */
static void leave(struct bns_etcd_lock *l)
{
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_DELETE, .request = &del.base};
    struct bns_etcd_answer none = {.status = BNS_GRPC_RESOURCE_EXHAUSTED,
                                   .text = "no memory to delete the lock's key",
                                   .cause = ""};
    int rv;

    bns_timer_stop(l->c->env, &l->timer);
    bns_etcd_watch_close(l->watch);
    l->watch = NULL;
    if (l->step == ENTER && l->call != NULL)
        return; /* entered() comes back */
    if (l->call != NULL)
        bns_etcd_call_cancel(l->call);
    del.has_key = true;
    del.key = key_of(l);
    rv = bns_etcd_call(l->c, &o, deleted, l, &l->call);
    if (rv == BNS_OK)
        return;
    if (rv == BNS_E_SHUTDOWN) {
        none.status = BNS_GRPC_CANCELLED;
        none.text = "the client was closed";
    }
    deleted(l, &none);
}

static void lost(struct bns_etcd_lock *l, int status, const char *text)
{
    l->busy = true; /* a close from inside does no harm */
    l->h->on_lost(l->arg, status, text);
    if (l->closed)
        leave(l);
    else
        free_lock(l);
}

static void go(struct bns_etcd_lock *l, enum step next)
{
    l->step = next;
    l->tries = 0;
    step(l);
}

static void on_timer(void *arg)
{
    step(arg);
}

static void later(struct bns_etcd_lock *l)
{
    bns_timer_start(l->c->env, &l->timer,
                    bns_now_ns(l->c->env) + bns_etcd_backoff_ns(l->c, ++l->tries));
}

/* True: the step's answer is there. Else it is asked again, or the lock is gone. */
static bool good(struct bns_etcd_lock *l, const struct bns_etcd_answer *a)
{
    l->call = NULL;
    if (a->status == BNS_GRPC_OK)
        return true;
    if (a->status == BNS_GRPC_UNAVAILABLE || a->status == BNS_GRPC_DEADLINE_EXCEEDED ||
        a->status == BNS_GRPC_INTERNAL || a->status == BNS_GRPC_RESOURCE_EXHAUSTED ||
        a->status == BNS_GRPC_UNKNOWN)
        later(l);
    else
        lost(l, a->status, a->text);
    return false;
}

static void ask(struct bns_etcd_lock *l, enum bns_etcd_method m, const ProtobufCMessage *request,
                bns_etcd_done *done)
{
    const struct bns_etcd_call_options o = {.method = m, .request = request};

    if (bns_etcd_call(l->c, &o, done, l, &l->call) != BNS_OK) {
        l->call = NULL;
        later(l);
    }
}

/* ---- ENTER ----------------------------------------------------------------------------------- */

static void entered(void *arg, const struct bns_etcd_answer *a)
{
    struct bns_etcd_lock *l = arg;
    const Etcdserverpb__TxnResponse *r = (const void *)a->msg;
    const Etcdserverpb__RangeResponse *own;

    l->doubt = l->doubt || a->unknown;
    if (l->closed) {
        l->call = NULL;
        leave(l);
        return;
    }
    if (!good(l, a))
        return;
    if (r->succeeded && r->header != NULL) {
        l->rev = r->header->revision;
        go(l, LOOK);
        return;
    }
    own = r->n_responses == 1 && r->responses[0]->response_case ==
                                     ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE
              ? r->responses[0]->response_range
              : NULL;
    if (own == NULL || own->n_kvs != 1) {
        lost(l, BNS_GRPC_INTERNAL, "the server's answer makes no sense");
        return;
    }
    l->rev = own->kvs[0]->create_revision;
    go(l, LOOK);
}

static void enter(struct bns_etcd_lock *l)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT, *cmps[] = {&cmp};
    Etcdserverpb__RequestOp then = ETCDSERVERPB__REQUEST_OP__INIT, *thens[] = {&then};
    Etcdserverpb__RequestOp other = ETCDSERVERPB__REQUEST_OP__INIT, *others[] = {&other};
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;

    cmp.has_key = cmp.has_target = put.has_key = put.has_value = put.has_lease = get.has_key = true;
    cmp.key = put.key = get.key = key_of(l);
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    put.value = (ProtobufCBinaryData){l->value_len, l->value};
    put.lease = l->lease;
    then.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    then.request_put = &put;
    other.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    other.request_range = &get;
    txn.n_compare = txn.n_success = txn.n_failure = 1;
    txn.compare = cmps;
    txn.success = thens;
    txn.failure = others;
    ask(l, BNS_ETCD_TXN, &txn.base, entered);
}

/* ---- watching one key ------------------------------------------------------------------------ */

static void key_gone(struct bns_etcd_lock *l)
{
    bns_etcd_watch_close(l->watch); /* its callback is on the stack: it goes afterwards */
    l->watch = NULL;
    if (l->step == WAIT)
        go(l, LOOK);
    else
        lost(l, BNS_GRPC_ABORTED, "the lock's key has gone");
}

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    (void)r; /* puts are filtered out: it is a deletion */
    key_gone(arg);
}

static void on_watch_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct bns_etcd_lock *l = arg;

    l->watch = NULL;
    if (compacted > 0)
        go(l, l->step == WAIT ? LOOK : VERIFY); /* what we missed a new read will tell */
    else
        lost(l, status, text);
}

/* False: the lock is tried again later. */
static bool watch_key(struct bns_etcd_lock *l, const ProtobufCBinaryData *key)
{
    static const struct bns_etcd_watch_handler handler = {.on_events = on_events,
                                                          .on_end = on_watch_end};
    const struct bns_etcd_watch_options o = {.key = bns_slice(key->data, key->len),
                                             .start_revision = l->seen + 1,
                                             .no_put = true,
                                             .handler = &handler,
                                             .arg = l};

    if (bns_etcd_watch_open(l->c, &o, &l->watch) == BNS_OK)
        return true;
    l->watch = NULL;
    later(l);
    return false;
}

/* ---- LOOK, VERIFY ---------------------------------------------------------------------------- */

static void looked(void *arg, const struct bns_etcd_answer *a)
{
    struct bns_etcd_lock *l = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;

    if (!good(l, a))
        return;
    l->seen = r->header == NULL ? 0 : r->header->revision;
    if (r->n_kvs == 0)
        go(l, VERIFY);
    else if (watch_key(l, &r->kvs[0]->key))
        l->step = WAIT;
}

static void look(struct bns_etcd_lock *l)
{
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    uint8_t end[512];
    struct bns_slice s = bns_etcd_prefix_end(bns_slice(l->bytes, l->prefix_len), end);

    get.has_key = get.has_range_end = get.has_limit = get.has_sort_order = get.has_sort_target =
        get.has_max_create_revision = get.has_keys_only = true;
    get.key = (ProtobufCBinaryData){l->prefix_len, l->bytes};
    get.range_end = (ProtobufCBinaryData){s.len, end};
    get.limit = 1;
    get.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    get.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__CREATE;
    get.max_create_revision = l->rev - 1;
    get.keys_only = true;
    ask(l, BNS_ETCD_RANGE, &get.base, looked);
}

static void verified(void *arg, const struct bns_etcd_answer *a)
{
    struct bns_etcd_lock *l = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;
    ProtobufCBinaryData key = key_of(l);

    if (!good(l, a))
        return;
    if (r->n_kvs != 1 || r->kvs[0]->create_revision != l->rev) {
        lost(l, BNS_GRPC_ABORTED, "the lock's key has gone: its lease has ended");
        return;
    }
    l->seen = r->header == NULL ? 0 : r->header->revision;
    if (!watch_key(l, &key))
        return;
    l->step = HELD;
    if (l->told)
        return; /* read again after a compaction */
    l->told = true;
    l->busy = true;
    l->h->on_held(l->arg, bns_slice(l->bytes, l->key_len), l->rev);
    l->busy = false;
    if (l->closed)
        leave(l);
}

static void step(struct bns_etcd_lock *l)
{
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;

    if (l->step == ENTER) {
        enter(l);
    } else if (l->step == LOOK) {
        look(l);
    } else {
        get.has_key = true;
        get.key = key_of(l);
        ask(l, BNS_ETCD_RANGE, &get.base, verified);
    }
}

/* ---- what owners call ------------------------------------------------------------------------ */

int bns_etcd_lock_open(struct bns_etcd *c, const struct bns_etcd_lock_options *o,
                       struct bns_etcd_lock **out)
{
    struct bns_etcd_lock *l;
    char lease[24];
    size_t lease_len =
        (size_t)snprintf(lease, sizeof lease, "%" PRIx64, (uint64_t)o->lease); /* fits */

    if (c->freed)
        return BNS_E_SHUTDOWN;
    if (o->name.len > 500)
        return BNS_E_TOOBIG;
    l = bns_alloc_zero(c->env->alloc, sizeof *l + o->name.len + 1 + lease_len + o->value.len);
    if (l == NULL)
        return BNS_E_NOMEM;
    l->c = c;
    l->h = o->handler;
    l->arg = o->arg;
    l->lease = o->lease;
    bns_timer_init(&l->timer, on_timer, l);
    if (o->name.len > 0)
        memcpy(l->bytes, o->name.ptr, o->name.len);
    l->bytes[o->name.len] = '/';
    l->prefix_len = o->name.len + 1;
    memcpy(l->bytes + l->prefix_len, lease, lease_len);
    l->key_len = l->prefix_len + lease_len;
    l->value = l->bytes + l->key_len;
    l->value_len = o->value.len;
    if (o->value.len > 0)
        memcpy(l->value, o->value.ptr, o->value.len);
    step(l);
    *out = l;
    return BNS_OK;
}

struct bns_slice bns_etcd_lock_key(const struct bns_etcd_lock *l)
{
    return bns_slice(l->bytes, l->key_len);
}

int64_t bns_etcd_lock_token(const struct bns_etcd_lock *l)
{
    return l->step == HELD ? l->rev : 0;
}

int bns_etcd_lock_proclaim(struct bns_etcd_lock *l, struct bns_slice value, bns_etcd_done *done,
                           void *arg)
{
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT, *cmps[] = {&cmp};
    Etcdserverpb__RequestOp then = ETCDSERVERPB__REQUEST_OP__INIT, *thens[] = {&then};
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_TXN, .request = &txn.base};

    cmp.has_key = cmp.has_target = put.has_key = put.has_value = put.has_lease = true;
    cmp.key = put.key = key_of(l);
    cmp.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
    cmp.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    cmp.create_revision = l->rev;
    put.value = (ProtobufCBinaryData){value.len, (uint8_t *)(uintptr_t)value.ptr};
    put.lease = l->lease;
    then.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    then.request_put = &put;
    txn.n_compare = txn.n_success = 1;
    txn.compare = cmps;
    txn.success = thens;
    return bns_etcd_call(l->c, &o, done, arg, NULL);
}

void bns_etcd_lock_close(struct bns_etcd_lock *l, bns_etcd_done *done, void *arg)
{
    if (l == NULL)
        return;
    BNS_ASSERT(!l->closed);
    l->closed = true;
    l->done = done;
    l->done_arg = arg;
    if (!l->busy)
        leave(l);
}
