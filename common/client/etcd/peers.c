/* peers.c - the names under a prefix; see peers.h.
 *
 * A read of the prefix, then a watch from the revision of the read. When the watch is lost to a
 * compaction, or there was no memory for a name, a read again: what it does not show has gone. The
 * names are a plain list: they are few, and change seldom.
 */
#include "client/etcd/peers.h"

#include "client/etcd/etcd_int.h"
#include "client/etcd/watch.h"

struct peer {
    struct bns_list node;
    bool seen; /* in the read under way */
    int64_t modified;
    size_t len;
    uint8_t name[];
};

struct bns_etcd_peers {
    struct bns_etcd *c;
    const struct bns_etcd_peers_handler *h;
    void *arg;
    struct bns_etcd_call *call;
    struct bns_etcd_watch *watch;
    struct bns_timer timer;
    unsigned tries;
    struct bns_list names;
    size_t count;
    bool synced, closed;
    bool short_of; /* memory, for a name: read again */
    unsigned busy;
    size_t prefix_len;
    uint8_t *end;     /* of the range */
    uint8_t prefix[]; /* and room for the end */
};

static void look(void *arg);

static void free_peers(struct bns_etcd_peers *p)
{
    bns_timer_stop(p->c->env, &p->timer);
    if (p->call != NULL)
        bns_etcd_call_cancel(p->call);
    bns_etcd_watch_close(p->watch);
    for (struct bns_list *n; (n = bns_list_pop(&p->names)) != NULL;)
        bns_free(p->c->env->alloc, BNS_CONTAINER(n, struct peer, node));
    bns_free(p->c->env->alloc, p);
}

static struct peer *find(struct bns_etcd_peers *p, struct bns_slice name)
{
    BNS_LIST_EACH(n, &p->names)
    {
        struct peer *e = BNS_CONTAINER(n, struct peer, node);

        if (bns_slice_eq(bns_slice(e->name, e->len), name))
            return e;
    }
    return NULL;
}

static void drop(struct bns_etcd_peers *p, struct peer *e)
{
    bns_list_del(&e->node);
    p->count--;
    if (!p->closed)
        p->h->on_gone(p->arg, bns_slice(e->name, e->len));
    bns_free(p->c->env->alloc, e);
}

static void is_there(struct bns_etcd_peers *p, const Etcdserverpb__KeyValue *kv)
{
    struct bns_slice name = bns_slice_skip(bns_slice(kv->key.data, kv->key.len), p->prefix_len);
    struct peer *e = find(p, name);

    if (e == NULL && p->count >= BNS_ETCD_PEERS_MAX) {
        BNS_LOG(p->c->env->log, BNS_LOG_WARN, "peers", "a peer is left out",
                BNS_BYTES("name", name), BNS_U64("kept", p->count));
        return;
    }
    if (e == NULL) {
        e = bns_alloc_zero(p->c->env->alloc, sizeof *e + name.len);
        if (e == NULL) {
            p->short_of = true;
            return;
        }
        e->len = name.len;
        if (name.len > 0)
            memcpy(e->name, name.ptr, name.len);
        bns_list_push(&p->names, &e->node);
        p->count++;
    }
    e->seen = true;
    if (e->modified == kv->mod_revision)
        return;
    e->modified = kv->mod_revision;
    if (!p->closed)
        p->h->on_peer(p->arg, name, bns_slice(kv->value.data, kv->value.len), kv->create_revision);
}

/* A callback of ours has come to its end; false: closed meanwhile. */
static bool leave(struct bns_etcd_peers *p)
{
    bool closed = p->closed;

    p->busy--;
    if (closed && p->busy == 0)
        free_peers(p);
    return !closed;
}

static void later(struct bns_etcd_peers *p)
{
    bns_timer_start(p->c->env, &p->timer,
                    bns_now_ns(p->c->env) + bns_etcd_backoff_ns(p->c, ++p->tries));
}

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct bns_etcd_peers *p = arg;

    p->busy++;
    p->short_of = false;
    for (size_t i = 0; i < r->n_events && !p->closed; i++) {
        const Etcdserverpb__KeyValue *kv = r->events[i]->kv;
        struct peer *e;

        if (r->events[i]->type != ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE) {
            is_there(p, kv);
            continue;
        }
        e = find(p, bns_slice_skip(bns_slice(kv->key.data, kv->key.len), p->prefix_len));
        if (e != NULL)
            drop(p, e);
    }
    if (!leave(p) || !p->short_of)
        return;
    bns_etcd_watch_close(p->watch); /* its callback is on the stack: it goes afterwards */
    p->watch = NULL;
    later(p);
}

static void finish(struct bns_etcd_peers *p, int status, const char *text)
{
    p->busy++; /* a close from inside does no harm */
    p->h->on_end(p->arg, status, text);
    free_peers(p);
}

static void on_watch_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct bns_etcd_peers *p = arg;

    p->watch = NULL;
    if (compacted > 0)
        look(p);
    else
        finish(p, status, text);
}

static void take_all(struct bns_etcd_peers *p, const Etcdserverpb__RangeResponse *r)
{
    BNS_LIST_EACH(n, &p->names)
    {
        BNS_CONTAINER(n, struct peer, node)->seen = false;
    }
    p->short_of = false;
    for (size_t i = 0; i < r->n_kvs; i++)
        is_there(p, r->kvs[i]);
    BNS_LIST_EACH(m, &p->names)
    {
        struct peer *e = BNS_CONTAINER(m, struct peer, node);

        if (!e->seen)
            drop(p, e);
    }
    if (p->short_of)
        return;
    if (!p->synced && !p->closed && p->h->on_synced != NULL)
        p->h->on_synced(p->arg);
    p->synced = true;
    p->tries = 0;
}

static void looked(void *arg, const struct bns_etcd_answer *a)
{
    static const struct bns_etcd_watch_handler handler = {.on_events = on_events,
                                                          .on_end = on_watch_end};
    struct bns_etcd_peers *p = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;
    struct bns_slice prefix = bns_slice(p->prefix, p->prefix_len);
    struct bns_etcd_watch_options o = {.key = prefix, .handler = &handler, .arg = p};

    p->call = NULL;
    if (a->status == BNS_GRPC_UNAVAILABLE || a->status == BNS_GRPC_DEADLINE_EXCEEDED ||
        a->status == BNS_GRPC_RESOURCE_EXHAUSTED || a->status == BNS_GRPC_INTERNAL) {
        later(p);
        return;
    }
    if (a->status != BNS_GRPC_OK) {
        finish(p, a->status, a->text);
        return;
    }
    p->busy++;
    take_all(p, r);
    if (!leave(p))
        return;
    if (p->short_of) {
        later(p);
        return;
    }
    o.end = bns_etcd_prefix_end(prefix, p->end);
    o.start_revision = r->header == NULL ? 0 : r->header->revision + 1;
    if (bns_etcd_watch_open(p->c, &o, &p->watch) != BNS_OK) {
        p->watch = NULL;
        later(p);
    }
}

static void look(void *arg)
{
    struct bns_etcd_peers *p = arg;
    struct bns_slice prefix = bns_slice(p->prefix, p->prefix_len);
    Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_RANGE, .request = &get.base};

    get.has_key = get.has_range_end = true;
    get.key = (ProtobufCBinaryData){p->prefix_len, p->prefix};
    get.range_end = (ProtobufCBinaryData){bns_etcd_prefix_end(prefix, p->end).len, p->end};
    if (bns_etcd_call(p->c, &o, looked, p, &p->call) != BNS_OK) {
        p->call = NULL;
        later(p);
    }
}

int bns_etcd_peers_open(struct bns_etcd *c, struct bns_slice prefix,
                        const struct bns_etcd_peers_handler *h, void *arg,
                        struct bns_etcd_peers **out)
{
    struct bns_etcd_peers *p;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    if (prefix.len == 0)
        return BNS_E_INVALID;
    p = bns_alloc_zero(c->env->alloc, sizeof *p + 2 * prefix.len);
    if (p == NULL)
        return BNS_E_NOMEM;
    p->c = c;
    p->h = h;
    p->arg = arg;
    p->prefix_len = prefix.len;
    memcpy(p->prefix, prefix.ptr, prefix.len);
    p->end = p->prefix + prefix.len;
    bns_list_init(&p->names);
    bns_timer_init(&p->timer, look, p);
    look(p);
    *out = p;
    return BNS_OK;
}

size_t bns_etcd_peers_count(const struct bns_etcd_peers *p)
{
    return p->count;
}

void bns_etcd_peers_close(struct bns_etcd_peers *p)
{
    if (p == NULL)
        return;
    p->closed = true;
    if (p->busy == 0)
        free_peers(p);
}
