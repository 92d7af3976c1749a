/* rpc_peer.c - the dialling side of the internal RPC: keep a connection up, send, call.
 *
 * Dial, HELLO, up; when it breaks, wait RETRY_MIN_NS doubled up to RETRY_MAX_NS (with jitter, so
 * that nodes that lost one leader do not come back in step) and dial again, at the next address
 * when there are several and the last dial led to nothing. A good HELLO resets the wait. A name
 * that has no address is told once, until a connection comes up.
 *
 * Calls stand in one of two lists: `waiting` (no connection yet) or `asked`. When a connection
 * breaks, asked ones end with BNS_E_OFF, since nobody knows what became of them; waiting ones wait
 * on. Each has a timer for its deadline. Answers to calls that are over are ignored.
 *
 * The owner may free the peer inside any callback: `depth` counts our frames on the stack that
 * still touch it, and the last one of them frees the memory.
 *
 * Bounds: bytes queued and waiting together stay under queue_bytes_max; CALLS_MAX calls.
 */
#include "io/rpc_int.h"

#include "base/hmap.h"

#define RETRY_MIN_NS (50 * BNS_MS)
#define RETRY_MAX_NS (1 * BNS_SEC)
#define CALLS_MAX 65536u

struct call {
    struct bns_hnode hnode; /* p->calls, by id */
    struct bns_list node;   /* p->waiting or p->asked */
    struct bns_rpc_peer *p;
    struct bns_timer timer;
    struct bns_rcbuf *payload; /* until it is sent */
    uint64_t id;
    struct bns_rpc_call_options o;
    bool asked;
};

struct bns_rpc_peer {
    struct bns_env *env;
    struct bns_rpc_identity me;
    struct bns_rpc_peer_config cfg;
    struct bns_endpoint at[BNS_RPC_ADDRS_MAX];
    size_t at_count, at_now;
    struct bns_rpc_conn *c;
    struct bns_timer retry;
    uint64_t retry_ns;
    struct bns_hmap calls;
    struct bns_list waiting;
    struct bns_list asked;
    size_t waiting_bytes;
    uint64_t next_id;
    uint64_t warned_ns;
    unsigned depth;
    bool up;
    bool nameless; /* said that the name has no address */
    bool freed;
};

static void enter(struct bns_rpc_peer *p)
{
    p->depth++;
}

static void leave(struct bns_rpc_peer *p)
{
    BNS_ASSERT(p->depth > 0);
    if (--p->depth == 0 && p->freed)
        bns_free(p->env->alloc, p);
}

/* ---- calls ----------------------------------------------------------------------------------- */
static void call_end(struct call *k, int code, struct bns_slice payload)
{
    struct bns_rpc_peer *p = k->p;
    struct bns_rpc_call_options o = k->o;

    bns_list_del(&k->node);
    bns_hmap_del(&p->calls, &k->hnode);
    bns_timer_stop(p->env, &k->timer);
    if (!k->asked)
        p->waiting_bytes -= k->payload->len;
    bns_rcbuf_put(k->payload);
    bns_free(p->env->alloc, k);
    o.done(o.arg, code, payload); /* may free the peer */
}

static void end_all(struct bns_list *calls, int code)
{
    while (!bns_list_empty(calls))
        call_end(BNS_CONTAINER(calls->next, struct call, node), code, bns_slice(NULL, 0));
}

static void on_deadline(void *arg)
{
    struct call *k = arg;
    struct bns_rpc_peer *p = k->p;
    struct bns_frame f = {.kind = BNS_FRAME_CANCEL, .method = k->o.method, .id = k->id};

    if (k->asked && p->up && bns_rpc_conn_send_copy(p->c, &f) != BNS_OK) {
        /* the other side then works for nothing, no more */
    }
    enter(p);
    call_end(k, BNS_E_TIMEOUT, bns_slice(NULL, 0));
    leave(p);
}

static void payload_sent(void *arg, int code)
{
    (void)code; /* the answer tells */
    bns_rcbuf_put(arg);
}

static int call_send(struct call *k)
{
    struct bns_rpc_peer *p = k->p;
    uint64_t now = bns_now_ns(p->env);
    uint64_t left_ms = k->o.deadline_ns > now ? (k->o.deadline_ns - now) / BNS_MS : 0;
    struct bns_slice v = bns_rcbuf_slice(k->payload);
    struct bns_frame f = {.kind = BNS_FRAME_REQUEST,
                          .method = k->o.method,
                          .aux = left_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)left_ms,
                          .id = k->id};
    int rv = bns_rpc_conn_send(p->c, &f, &v, 1, payload_sent, k->payload);

    if (rv != BNS_OK)
        return rv;
    p->waiting_bytes -= v.len;
    k->payload = NULL;
    k->asked = true;
    bns_list_del(&k->node);
    bns_list_push(&p->asked, &k->node);
    return BNS_OK;
}

static struct call *call_find(struct bns_rpc_peer *p, uint64_t id)
{
    struct bns_hnode *n = bns_hmap_find(&p->calls, bns_hash_u64(0, id));

    while (n != NULL && BNS_CONTAINER(n, struct call, hnode)->id != id)
        n = bns_hmap_find_next(n);
    return n == NULL ? NULL : BNS_CONTAINER(n, struct call, hnode);
}

static struct bns_rcbuf *join(const struct bns_alloc *a, const struct bns_slice *v, size_t n,
                              size_t bytes)
{
    struct bns_rcbuf *b = bns_rcbuf_new(a, bytes);
    size_t at = 0;

    for (size_t i = 0; b != NULL && i < n; i++) {
        if (v[i].len > 0)
            memcpy(b->bytes + at, v[i].ptr, v[i].len);
        at += v[i].len;
    }
    return b;
}

/* BNS_E_BUSY when `v` does not fit into the queue. */
static int room_for(const struct bns_rpc_peer *p, const struct bns_slice *v, size_t n,
                    size_t *bytes)
{
    size_t queued = p->waiting_bytes + (p->c == NULL ? 0 : bns_stream_queued(p->c->stream));

    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (__builtin_add_overflow(*bytes, v[i].len, bytes) || *bytes > BNS_FRAME_PAYLOAD_MAX)
            return BNS_E_TOOBIG;
    }
    /* one message always fits into an empty queue */
    return queued > 0 && queued + *bytes > p->cfg.queue_bytes_max ? BNS_E_BUSY : BNS_OK;
}

int bns_rpc_call(struct bns_rpc_peer *p, const struct bns_rpc_call_options *o,
                 const struct bns_slice *v, size_t n)
{
    const struct bns_alloc *a = p->env->alloc;
    struct call *k;
    size_t bytes;
    int rv = room_for(p, v, n, &bytes);

    BNS_ASSERT(o->done != NULL);
    if (p->freed)
        return BNS_E_OFF; /* asked by the done of a call that is being cancelled */
    if (rv != BNS_OK)
        return rv;
    if (p->calls.count >= CALLS_MAX)
        return BNS_E_BUSY;
    k = bns_alloc_zero(a, sizeof *k);
    if (k == NULL)
        return BNS_E_NOMEM;
    *k = (struct call){.p = p, .o = *o, .id = ++p->next_id};
    k->payload = join(a, v, n, bytes);
    if (k->payload == NULL ||
        bns_hmap_insert(&p->calls, &k->hnode, bns_hash_u64(0, k->id)) != BNS_OK) {
        bns_rcbuf_put(k->payload);
        bns_free(a, k);
        return BNS_E_NOMEM;
    }
    p->waiting_bytes += bytes;
    bns_list_push(&p->waiting, &k->node);
    bns_timer_init(&k->timer, on_deadline, k);
    bns_timer_start(p->env, &k->timer, o->deadline_ns);
    if (p->up && call_send(k) != BNS_OK) {
        /* it waits for the next connection: this one is at its end, or memory is short */
    }
    return BNS_OK;
}

int bns_rpc_send(struct bns_rpc_peer *p, uint16_t method, const struct bns_slice *v, size_t n,
                 bns_release_fn *release, void *arg)
{
    struct bns_frame f = {.kind = BNS_FRAME_ONE_WAY, .method = method};
    size_t bytes;
    int rv = room_for(p, v, n, &bytes);

    if (!p->up)
        return BNS_E_OFF;
    if (rv != BNS_OK)
        return rv;
    return bns_rpc_conn_send(p->c, &f, v, n, release, arg);
}

/* ---- the connection -------------------------------------------------------------------------- */
static int on_hello(void *owner, const struct bns_hello *h, struct bns_err *err)
{
    struct bns_rpc_peer *p = owner;

    if (p->cfg.node_id != 0 && h->node_id != p->cfg.node_id)
        return bns_err_set(err, BNS_E_PROTO, "node %016llx answers, node %016llx was dialled",
                           (unsigned long long)h->node_id, (unsigned long long)p->cfg.node_id);
    BNS_LIST_EACH(n, &p->waiting)
    {
        if (call_send(BNS_CONTAINER(n, struct call, node)) != BNS_OK)
            return bns_err_set(err, BNS_E_NOMEM, "no memory for the calls that wait");
    }
    p->up = true;
    p->nameless = false;
    p->retry_ns = RETRY_MIN_NS;
    enter(p);
    if (p->cfg.on_up != NULL)
        p->cfg.on_up(p->cfg.arg);
    leave(p);
    return BNS_OK;
}

static int on_frame(void *owner, const struct bns_frame *f)
{
    struct bns_rpc_peer *p = owner;
    struct call *k;

    if (f->kind == BNS_FRAME_GO_AWAY)
        return BNS_OK; /* the close follows */
    if (f->kind != BNS_FRAME_RESPONSE)
        return BNS_E_PROTO;
    k = call_find(p, f->id);
    if (k == NULL)
        return BNS_OK; /* it was over before */
    if (!k->asked)
        return BNS_E_PROTO; /* an answer to what was never sent */
    enter(p);
    call_end(k, f->aux <= 127 ? -(int)f->aux : BNS_E_INTERNAL, f->payload);
    leave(p);
    return BNS_OK;
}

static void dial_later(struct bns_rpc_peer *p)
{
    uint64_t half = p->retry_ns / 2;

    bns_timer_start(p->env, &p->retry,
                    bns_now_ns(p->env) + half + bns_prng_below(&p->env->prng, half + 1));
    p->retry_ns = p->retry_ns * 2 < RETRY_MAX_NS ? p->retry_ns * 2 : RETRY_MAX_NS;
}

/* What else went wrong the connection has logged, if it is worth it. */
static void dial_failed(struct bns_rpc_peer *p, int code)
{
    if (code == BNS_E_NOTFOUND && !p->nameless) {
        p->nameless = true;
        BNS_LOG(p->env->log, BNS_LOG_WARN, "rpc", "a peer's name has no address yet, asking again",
                BNS_STR("host", p->at[p->at_now].host));
    }
    p->at_now = (p->at_now + 1) % p->at_count;
}

static void on_dead(void *owner, int code)
{
    struct bns_rpc_peer *p = owner;
    bool was_up = p->up;

    p->c = NULL;
    p->up = false;
    if (!was_up)
        dial_failed(p, code);
    dial_later(p);
    enter(p);
    end_all(&p->asked, BNS_E_OFF);
    if (was_up && !p->freed && p->cfg.on_down != NULL)
        p->cfg.on_down(p->cfg.arg);
    leave(p);
}

static const struct bns_rpc_conn_ops conn_ops = {on_hello, on_frame, on_dead, NULL};

static int dial(struct bns_rpc_peer *p, struct bns_err *err)
{
    struct bns_rpc_conn *c = bns_alloc_zero(p->env->alloc, sizeof *c);
    const struct bns_endpoint *at = &p->at[p->at_now];
    const struct bns_tls_dial d = {.host = at->host, .port = at->port};
    int rv;

    if (c == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory to dial %s", at->host);
    c->env = p->env;
    c->me = p->me;
    c->ops = &conn_ops;
    c->owner = p;
    c->warned_ns = &p->warned_ns;
    c->queue_max = BNS_RPC_QUEUE_MAX;
    c->dials = true;
    c->rtt = p->cfg.rtt;
    rv = bns_tls_connect(p->env, p->cfg.tls, &d, &bns_rpc_conn_events, c, &c->stream, err);
    if (rv != BNS_OK) {
        bns_free(p->env->alloc, c);
        return rv;
    }
    bns_rpc_conn_init(c);
    p->c = c;
    return BNS_OK;
}

static void on_retry(void *arg)
{
    struct bns_rpc_peer *p = arg;

    if (dial(p, NULL) != BNS_OK)
        dial_later(p);
}

static int addresses(struct bns_rpc_peer *p, const struct bns_rpc_peer_config *cfg,
                     struct bns_err *err)
{
    BNS_ASSERT(cfg->more_count < BNS_RPC_ADDRS_MAX);
    for (size_t i = 0; i <= cfg->more_count; i++) {
        const char *host = i == 0 ? cfg->host : cfg->more[i - 1].host;
        size_t len = strnlen(host, BNS_HOST_MAX);

        if (len == BNS_HOST_MAX)
            return bns_err_set(err, BNS_E_INVALID, "the address of a peer is too long");
        memcpy(p->at[i].host, host, len);
        p->at[i].port = i == 0 ? cfg->port : cfg->more[i - 1].port;
    }
    p->at_count = cfg->more_count + 1;
    p->cfg.host = NULL;
    p->cfg.more = NULL;
    return BNS_OK;
}

int bns_rpc_peer_new(struct bns_env *env, const struct bns_rpc_identity *id,
                     const struct bns_rpc_peer_config *cfg, struct bns_rpc_peer **out,
                     struct bns_err *err)
{
    struct bns_rpc_peer *p = bns_alloc_zero(env->alloc, sizeof *p);
    int rv;

    if (p == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a peer");
    p->env = env;
    p->me = *id;
    p->cfg = *cfg;
    if (p->cfg.queue_bytes_max == 0)
        p->cfg.queue_bytes_max = BNS_RPC_QUEUE_MAX;
    p->retry_ns = RETRY_MIN_NS;
    bns_list_init(&p->waiting);
    bns_list_init(&p->asked);
    bns_hmap_init(&p->calls, env->alloc);
    bns_timer_init(&p->retry, on_retry, p);
    rv = addresses(p, cfg, err);
    if (rv == BNS_OK)
        rv = dial(p, err);
    if (rv != BNS_OK)
        goto fail;
    *out = p;
    return BNS_OK;

fail:
    bns_free(env->alloc, p);
    return rv;
}

void bns_rpc_peer_free(struct bns_rpc_peer *p)
{
    if (p == NULL)
        return;
    BNS_ASSERT(!p->freed);
    enter(p);
    p->freed = true;
    p->up = false;
    bns_timer_stop(p->env, &p->retry);
    if (p->c != NULL)
        bns_rpc_conn_drop(p->c, true);
    p->c = NULL;
    end_all(&p->asked, BNS_E_CANCELED);
    end_all(&p->waiting, BNS_E_CANCELED);
    bns_hmap_free(&p->calls);
    leave(p);
}

int bns_rpc_stream_open(struct bns_rpc_peer *p, const struct bns_rpc_stream_options *o,
                        struct bns_rpc_stream **out)
{
    struct bns_frame f = {
        .kind = BNS_FRAME_REQUEST, .method = o->method, .id = ++p->next_id, .payload = o->payload};
    struct bns_rpc_stream *s;
    int rv;

    BNS_ASSERT((o->method & BNS_RPC_STREAM_BIT) != 0);
    if (!p->up)
        return BNS_E_OFF;
    rv = room_for(p, &o->payload, 1, &(size_t){0});
    if (rv != BNS_OK)
        return rv;
    s = bns_rpc_stream_new(p->c, f.id, o->method);
    if (s == NULL)
        return BNS_E_BUSY;
    rv = bns_rpc_conn_send_copy(p->c, &f);
    if (rv != BNS_OK) {
        bns_rpc_stream_forget(s);
        return rv;
    }
    bns_rpc_stream_accept(s, o->ev, o->arg);
    *out = s;
    return BNS_OK;
}

size_t bns_rpc_peer_calls(const struct bns_rpc_peer *p)
{
    return p->calls.count;
}

bool bns_rpc_peer_up(const struct bns_rpc_peer *p)
{
    return p->up;
}
