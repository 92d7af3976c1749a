/* observe.c - who leads an election? See lock.h.
 *
 * Reads the first key under the prefix, then watches the prefix from that revision; whatever
 * happens under it, reads again. A read that is under way while something happens is followed by
 * another.
 */
#include "client/etcd/etcd_int.h"
#include "client/etcd/lock.h"
#include "client/etcd/watch.h"

struct bns_etcd_observe {
    struct bns_etcd *c;
    const struct bns_etcd_observe_handler *h;
    void *arg;
    struct bns_etcd_call *call;
    struct bns_etcd_watch *watch;
    struct bns_timer timer;
    unsigned tries;
    int64_t created, modified; /* of what was told last; -1: nothing was */
    bool stale, busy, closed;
    size_t prefix_len;
    uint8_t end[512];
    uint8_t prefix[];
};

static void free_observe(struct bns_etcd_observe *o)
{
    bns_timer_stop(o->c->env, &o->timer);
    if (o->call != NULL)
        bns_etcd_call_cancel(o->call);
    bns_etcd_watch_close(o->watch);
    bns_free(o->c->env->alloc, o);
}

static void finish(struct bns_etcd_observe *o, int status, const char *text)
{
    o->busy = true; /* a close from inside does no harm */
    o->h->on_end(o->arg, status, text);
    free_observe(o);
}

static void look(void *arg);

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct bns_etcd_observe *o = arg;

    (void)r;
    o->stale = true;
    if (o->call == NULL)
        look(o);
}

static void on_watch_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct bns_etcd_observe *o = arg;

    o->watch = NULL;
    if (compacted > 0)
        on_events(o, NULL);
    else
        finish(o, status, text);
}

static void keep_watch(struct bns_etcd_observe *o, int64_t from)
{
    static const struct bns_etcd_watch_handler handler = {.on_events = on_events,
                                                          .on_end = on_watch_end};
    struct bns_slice prefix = bns_slice(o->prefix, o->prefix_len);
    const struct bns_etcd_watch_options w = {.key = prefix,
                                             .end = bns_etcd_prefix_end(prefix, o->end),
                                             .start_revision = from,
                                             .handler = &handler,
                                             .arg = o};

    if (o->watch == NULL && bns_etcd_watch_open(o->c, &w, &o->watch) != BNS_OK) {
        o->watch = NULL;
        bns_timer_start(o->c->env, &o->timer,
                        bns_now_ns(o->c->env) + bns_etcd_backoff_ns(o->c, ++o->tries));
    }
}

/* Tells what is new; false: the observer is gone. */
static bool tell(struct bns_etcd_observe *o, const Etcdserverpb__RangeResponse *r)
{
    const Etcdserverpb__KeyValue *kv = r->n_kvs > 0 ? r->kvs[0] : NULL;
    int64_t created = kv == NULL ? 0 : kv->create_revision;
    int64_t modified = kv == NULL ? 0 : kv->mod_revision;

    if (created == o->created && modified == o->modified)
        return true;
    o->created = created;
    o->modified = modified;
    o->busy = true;
    if (kv != NULL)
        o->h->on_leader(o->arg, kv);
    else if (o->h->on_none != NULL)
        o->h->on_none(o->arg);
    o->busy = false;
    if (!o->closed)
        return true;
    free_observe(o);
    return false;
}

static void looked(void *arg, const struct bns_etcd_answer *a)
{
    struct bns_etcd_observe *o = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;
    bool lost = a->status == BNS_GRPC_UNAVAILABLE || a->status == BNS_GRPC_DEADLINE_EXCEEDED ||
                a->status == BNS_GRPC_RESOURCE_EXHAUSTED || a->status == BNS_GRPC_INTERNAL;

    o->call = NULL;
    if (lost) {
        bns_timer_start(o->c->env, &o->timer,
                        bns_now_ns(o->c->env) + bns_etcd_backoff_ns(o->c, ++o->tries));
    } else if (a->status != BNS_GRPC_OK) {
        finish(o, a->status, a->text);
    } else {
        int64_t seen = r->header == NULL ? 0 : r->header->revision;

        o->tries = 0;
        if (!tell(o, r))
            return;
        keep_watch(o, seen + 1);
        if (o->stale)
            look(o);
    }
}

static void look(void *arg)
{
    struct bns_etcd_observe *o = arg;
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    const struct bns_etcd_call_options call = {.method = BNS_ETCD_RANGE, .request = &get.base};
    struct bns_slice end = bns_etcd_prefix_end(bns_slice(o->prefix, o->prefix_len), o->end);

    if (o->call != NULL)
        return;
    o->stale = false;
    get.has_key = get.has_range_end = get.has_limit = get.has_sort_order = get.has_sort_target =
        true;
    get.key = (ProtobufCBinaryData){o->prefix_len, o->prefix};
    get.range_end = (ProtobufCBinaryData){end.len, o->end};
    get.limit = 1;
    get.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__ASCEND;
    get.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__CREATE;
    if (bns_etcd_call(o->c, &call, looked, o, &o->call) != BNS_OK) {
        o->call = NULL;
        bns_timer_start(o->c->env, &o->timer,
                        bns_now_ns(o->c->env) + bns_etcd_backoff_ns(o->c, ++o->tries));
    }
}

int bns_etcd_observe_open(struct bns_etcd *c, struct bns_slice name,
                          const struct bns_etcd_observe_handler *h, void *arg,
                          struct bns_etcd_observe **out)
{
    struct bns_etcd_observe *o;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    if (name.len > 500)
        return BNS_E_TOOBIG;
    o = bns_alloc_zero(c->env->alloc, sizeof *o + name.len + 1);
    if (o == NULL)
        return BNS_E_NOMEM;
    o->c = c;
    o->h = h;
    o->arg = arg;
    o->created = o->modified = -1;
    if (name.len > 0)
        memcpy(o->prefix, name.ptr, name.len);
    o->prefix[name.len] = '/';
    o->prefix_len = name.len + 1;
    bns_timer_init(&o->timer, look, o);
    look(o);
    *out = o;
    return BNS_OK;
}

void bns_etcd_observe_close(struct bns_etcd_observe *o)
{
    if (o == NULL)
        return;
    o->closed = true;
    if (!o->busy)
        free_observe(o);
}
