/* lease.c - see lease.h.
 *
 *     GRANT ──> idle ──(a third of the TTL)──> asked ──> idle
 *                 │                              │ no answer for a third of the TTL, stream lost
 *                 └────────── without a stream <─┘
 * One timer: the end of the lease, or what is to be done next, whichever is first.
 *
 * A grant whose outcome is not known is asked for again, with the same id, which is picked here: if
 * the server then says that there is such a lease, it is ours, and nothing is granted twice.
 */
#include "client/etcd/lease.h"

#include "client/etcd/etcd_int.h"

#include <stdio.h>

struct bns_etcd_lease {
    struct bns_etcd *c;
    const struct bns_etcd_lease_handler *h;
    void *arg;
    struct bns_etcd_call *grant;    /* NULL: done */
    struct bns_etcd_stream *stream; /* NULL: none */
    struct bns_timer timer;
    int64_t id, ttl_s;
    uint64_t sent_ns, until_ns, next_ns; /* next_ns: when to ask, or to open a stream */
    uint64_t give_up_ns;                 /* of the grant */
    unsigned tries;
    bool live;   /* granted, as far as we know */
    bool picked; /* the id is ours */
    bool doubt;  /* a grant of that id may have happened */
    bool asked, adopted, busy, closed;
    int status; /* of the last failure */
    char text[BNS_ETCD_HINT_MAX];
};

static void look(struct bns_etcd_lease *l);

static void free_lease(struct bns_etcd_lease *l)
{
    bns_timer_stop(l->c->env, &l->timer);
    if (l->grant != NULL)
        bns_etcd_call_cancel(l->grant);
    bns_etcd_stream_close(l->stream);
    bns_free(l->c->env->alloc, l);
}

static bool gone(struct bns_etcd_lease *l)
{
    bool closed = l->closed;

    l->busy = false;
    if (closed)
        free_lease(l);
    return closed;
}

static void lost(struct bns_etcd_lease *l, int status, const char *text)
{
    l->busy = true; /* a close from inside does no harm */
    l->h->on_lost(l->arg, status, text);
    free_lease(l);
}

static uint64_t third(const struct bns_etcd_lease *l)
{
    return l->ttl_s <= 0 ? BNS_SEC : (uint64_t)l->ttl_s * BNS_SEC / 3;
}

static void on_message(void *arg, struct bns_slice msg)
{
    struct bns_etcd_lease *l = arg;
    const Etcdserverpb__LeaseKeepAliveResponse *r;
    ProtobufCMessage *m;
    struct bns_arena arena;
    uint8_t space[512];
    int64_t ttl = 0;
    int rv;

    bns_arena_init(&arena, l->c->env->alloc, 64u * 1024);
    bns_arena_lend(&arena, space, sizeof space);
    rv = bns_etcd_unpack(BNS_ETCD_LEASE_KEEP, msg, &arena, &m);
    if (rv == BNS_OK) {
        r = (const void *)m;
        ttl = r->ttl;
    }
    bns_arena_free(&arena);
    if (rv != BNS_OK || !l->asked)
        return; /* unreadable: as if it had not come */
    l->asked = false;
    l->tries = 0;
    if (ttl <= 0) {
        lost(l, BNS_GRPC_NOT_FOUND, "etcdserver: requested lease not found");
        return;
    }
    l->ttl_s = ttl;
    l->until_ns = l->sent_ns + (uint64_t)ttl * BNS_SEC;
    l->next_ns = l->sent_ns + third(l);
    if (l->h->on_kept != NULL) {
        l->busy = true;
        l->h->on_kept(l->arg, ttl);
        if (gone(l))
            return;
    }
    look(l);
}

static void on_end(void *arg, int status, const char *text)
{
    struct bns_etcd_lease *l = arg;

    l->stream = NULL;
    l->asked = false;
    l->status = status;
    (void)snprintf(l->text, sizeof l->text, "%s", text); /* may be cut */
    l->next_ns = bns_now_ns(l->c->env) + bns_etcd_backoff_ns(l->c, ++l->tries);
    if (l->adopted && l->until_ns == 0 && status != BNS_GRPC_UNAVAILABLE)
        lost(l, status, l->text);
    else
        look(l);
}

static const struct bns_etcd_stream_handler handler = {.on_message = on_message, .on_end = on_end};

static void keep(struct bns_etcd_lease *l, uint64_t now)
{
    Etcdserverpb__LeaseKeepAliveRequest req = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    const struct bns_etcd_stream_options o = {
        .method = BNS_ETCD_LEASE_KEEP, .first = &req.base, .handler = &handler, .arg = l};
    int rv;

    req.has_id = true;
    req.id = l->id;
    if (l->stream == NULL)
        rv = bns_etcd_stream_open(l->c, &o, &l->stream);
    else
        rv = bns_etcd_stream_send(l->stream, &req.base);
    if (rv == BNS_OK) {
        l->asked = true;
        l->sent_ns = now;
        l->next_ns = now + third(l); /* by then it is answered, or asked elsewhere */
        return;
    }
    if (l->stream == NULL)
        l->status = BNS_GRPC_RESOURCE_EXHAUSTED;
    l->next_ns = now + bns_etcd_backoff_ns(l->c, ++l->tries);
}

/* What is due is done, and the timer set for the rest. */
static void look(struct bns_etcd_lease *l)
{
    uint64_t now = bns_now_ns(l->c->env), at;

    if (l->until_ns != 0 && now >= l->until_ns) {
        lost(l, l->status == 0 ? BNS_GRPC_DEADLINE_EXCEEDED : l->status,
             l->text[0] == '\0' ? "the lease was not renewed in time" : l->text);
        return;
    }
    if (now >= l->next_ns && l->asked) {
        bns_etcd_stream_suspect(l->stream);
        bns_etcd_stream_close(l->stream);
        l->stream = NULL;
        l->asked = false;
    }
    if (now >= l->next_ns)
        keep(l, now);
    at = l->next_ns;
    if (l->until_ns != 0 && l->until_ns < at)
        at = l->until_ns;
    bns_timer_start(l->c->env, &l->timer, at);
}

/* ---- the grant ------------------------------------------------------------------------------- */

static void granted(void *arg, const struct bns_etcd_answer *a);

static int ask_grant(struct bns_etcd_lease *l)
{
    Etcdserverpb__LeaseGrantRequest req = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    const struct bns_etcd_call_options o = {
        .method = BNS_ETCD_LEASE_GRANT, .request = &req.base, .deadline_ns = l->give_up_ns};
    int rv;

    req.has_ttl = req.has_id = true;
    req.ttl = l->ttl_s;
    req.id = l->id;
    rv = bns_etcd_call(l->c, &o, granted, l, &l->grant);
    if (rv != BNS_OK)
        l->grant = NULL;
    return rv;
}

static void on_timer(void *arg)
{
    struct bns_etcd_lease *l = arg;

    if (l->live)
        look(l);
    else if (ask_grant(l) != BNS_OK)
        lost(l, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory to ask for a lease");
}

static bool is_ours(const struct bns_etcd_lease *l, const struct bns_etcd_answer *a)
{
    return l->picked && l->doubt && strcmp(a->text, "etcdserver: lease already exists") == 0;
}

static void granted(void *arg, const struct bns_etcd_answer *a)
{
    struct bns_etcd_lease *l = arg;
    const Etcdserverpb__LeaseGrantResponse *r = (const void *)a->msg;
    uint64_t at = bns_now_ns(l->c->env);

    l->grant = NULL;
    if (a->status != BNS_GRPC_OK && !is_ours(l, a)) {
        l->doubt = l->doubt || a->unknown;
        at += bns_etcd_backoff_ns(l->c, ++l->tries);
        if (a->unknown && l->picked && at < l->give_up_ns)
            bns_timer_start(l->c->env, &l->timer, at);
        else
            lost(l, a->status, a->text);
        return;
    }
    if (a->status == BNS_GRPC_OK) { /* else what was asked for; a server gives no less */
        l->id = r->id;
        l->ttl_s = r->ttl;
    }
    l->live = true;
    l->tries = 0;
    l->until_ns = l->sent_ns + (uint64_t)(l->ttl_s < 0 ? 0 : l->ttl_s) * BNS_SEC;
    l->next_ns = l->sent_ns + third(l);
    if (l->h->on_granted != NULL) {
        l->busy = true;
        l->h->on_granted(l->arg, l->id, l->ttl_s);
        if (gone(l))
            return;
    }
    look(l);
}

/* A positive number that nobody else picks. */
static int pick_id(struct bns_etcd_lease *l)
{
    uint64_t id = 0;
    int rv = BNS_OK;

    while (rv == BNS_OK && id == 0) {
        rv = bns_entropy(l->c->env, &id, sizeof id);
        id &= INT64_MAX;
    }
    l->id = (int64_t)id;
    return rv;
}

int bns_etcd_lease_open(struct bns_etcd *c, const struct bns_etcd_lease_options *o,
                        struct bns_etcd_lease **out)
{
    struct bns_etcd_lease *l;
    int rv = BNS_OK;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    l = bns_alloc_zero(c->env->alloc, sizeof *l);
    if (l == NULL)
        return BNS_E_NOMEM;
    l->c = c;
    l->h = o->handler;
    l->arg = o->arg;
    l->sent_ns = l->next_ns = bns_now_ns(c->env);
    l->give_up_ns = l->sent_ns + c->call_timeout_ns;
    l->id = o->id;
    l->ttl_s = o->ttl_s;
    bns_timer_init(&l->timer, on_timer, l);
    if (o->granted) {
        l->adopted = l->live = true;
        bns_timer_start(c->env, &l->timer, l->next_ns);
    } else {
        l->picked = o->id == 0;
        if (l->picked)
            rv = pick_id(l);
        if (rv == BNS_OK)
            rv = ask_grant(l);
    }
    if (rv != BNS_OK) {
        bns_free(c->env->alloc, l);
        return rv;
    }
    *out = l;
    return BNS_OK;
}

int64_t bns_etcd_lease_id(const struct bns_etcd_lease *l)
{
    return l->live ? l->id : 0;
}

uint64_t bns_etcd_lease_until_ns(const struct bns_etcd_lease *l)
{
    return l->until_ns;
}

static void revoked(void *arg, const struct bns_etcd_answer *a)
{
    (void)arg;
    (void)a; /* if not, it runs out by itself */
}

void bns_etcd_lease_close(struct bns_etcd_lease *l, bool revoke)
{
    Etcdserverpb__LeaseRevokeRequest req = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_LEASE_REVOKE, .request = &req.base};

    if (l == NULL)
        return;
    req.has_id = true;
    req.id = l->id;
    if (revoke && l->live && !l->closed) {
        int rv = bns_etcd_call(l->c, &o, revoked, NULL, NULL);
        (void)rv; /* if not, it runs out by itself */
    }
    l->closed = true;
    if (!l->busy)
        free_lease(l);
}
