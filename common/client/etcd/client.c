/* client.c - endpoints and tokens of the etcd client.
 *
 * Endpoints: one serves at a time; calls and streams go there. When it fails (no connection, the
 *          connection lost, UNAVAILABLE, silence until a deadline) the next one does, in a circle.
 *          Each has a gRPC client, made at the first use. It is thrown away, with its connection,
 *          when the dial takes too long or the server has been silent: what was on it ends with 14.
 * Token:   NEED -> ASK -> HAVE. Calls wait in NEED and ASK; who finds out that a token is bad says
 *          which one (its number), so that a thousand calls ask for one new token.
 * Life:    the struct stays until the last call and stream is gone, and no callback of the owner is
 *          on the stack.
 */
#include "client/etcd/etcd_int.h"

#include <stdio.h>
#include <stdlib.h>

#define DIAL_NS (2 * BNS_SEC)
#define CALL_NS (5 * BNS_SEC)
#define CALLS_MAX 65536u
#define BACKOFF_NS (25 * BNS_MS)
#define BACKOFF_MAX_NS BNS_SEC
#define PORT_DEFAULT 2379u

#define etcdserverpb__hash_kv_response__descriptor                                                 \
    etcdserverpb__hash_kvresponse__descriptor /* as protobuf-c spells it */

const struct bns_etcd_info bns_etcd_info[BNS_ETCD_METHODS_COUNT] = {
#define INFO(name, path, stem, again)                                                              \
    {"/etcdserverpb." path, &etcdserverpb__##stem##_response__descriptor, again},
    BNS_ETCD_METHODS(INFO)
#undef INFO
};

/* ---- endpoints ------------------------------------------------------------------------------- */

int bns_etcd_endpoint(const char *text, struct bns_endpoint *out, bool *tls, struct bns_err *err)
{
    const char *host = strstr(text, "://"), *end, *colon;
    unsigned long port = PORT_DEFAULT;
    size_t len;

    *tls = strncmp(text, "https://", 8) == 0;
    if (host != NULL && !*tls && strncmp(text, "http://", 7) != 0)
        return bns_err_set(err, BNS_E_INVALID, "endpoint \"%s\": neither http nor https", text);
    host = host == NULL ? text : host + 3;
    len = strlen(host);
    if (len > 0 && host[len - 1] == '/')
        len--;
    end = host + len;
    colon = memrchr(host, ':', len);
    if (colon != NULL && memchr(colon, ']', (size_t)(end - colon)) == NULL) {
        char *stop;

        port = strtoul(colon + 1, &stop, 10);
        if (stop != end || stop == colon + 1 || port == 0 || port > 65535)
            return bns_err_set(err, BNS_E_INVALID, "endpoint \"%s\": bad port", text);
        len = (size_t)(colon - host);
    }
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    if (len < sizeof out->host) {
        memcpy(out->host, host, len);
        out->host[len] = '\0';
    }
    if (len >= sizeof out->host || bns_host_kind(out->host) == BNS_HOST_BAD)
        return bns_err_set(err, BNS_E_INVALID, "endpoint \"%s\": neither an address nor a name",
                           text);
    out->port = (uint16_t)port;
    return BNS_OK;
}

/* When the dial under way takes too long, however many calls have come since; 0: there is none. */
static uint64_t dial_end(const struct bns_etcd_ep *ep)
{
    uint64_t since = bns_grpc_client_dialling_ns(ep->grpc);

    return since == 0 ? 0 : since + ep->c->dial_timeout_ns;
}

static void ep_timer(void *arg)
{
    struct bns_etcd_ep *ep = arg;
    struct bns_grpc_client *old = ep->grpc;
    uint64_t end = old == NULL ? 0 : dial_end(ep);

    if (old == NULL || (!ep->drop && end == 0))
        return;
    if (!ep->drop && end > bns_now_ns(ep->c->env)) { /* it has dialled again since */
        bns_timer_start(ep->c->env, &ep->timer, end);
        return;
    }
    ep->drop = false;
    ep->grpc = NULL;
    bns_etcd_ep_failed(ep->c, (size_t)(ep - ep->c->ep));
    bns_grpc_client_free(old); /* last: it ends calls, and their owners may free the client */
}

int bns_etcd_pick(struct bns_etcd *c, size_t *index, struct bns_grpc_client **out)
{
    struct bns_etcd_ep *ep = &c->ep[c->current];
    uint64_t now = bns_now_ns(c->env), end;
    int rv = BNS_OK;

    *index = c->current;
    if (ep->grpc == NULL) {
        rv = bns_grpc_client_new(c->env, ep->at.host, ep->at.port, &ep->grpc, NULL);
        if (rv == BNS_OK && c->tls != NULL)
            rv = bns_grpc_client_tls(ep->grpc, c->tls,
                                     c->server_name[0] == '\0' ? NULL : c->server_name);
    }
    if (rv == BNS_OK && !ep->drop && !bns_grpc_client_connected(ep->grpc)) {
        end = dial_end(ep);
        if (end == 0)
            end = now + c->dial_timeout_ns; /* the call that comes dials */
        bns_timer_start(c->env, &ep->timer, end > now ? end : now);
    }
    *out = ep->grpc;
    return rv;
}

void bns_etcd_ep_failed(struct bns_etcd *c, size_t ep)
{
    if (c->current == ep)
        c->current = (ep + 1) % c->eps_count;
}

void bns_etcd_ep_drop(struct bns_etcd *c, size_t ep)
{
    bns_etcd_ep_failed(c, ep);
    c->ep[ep].drop = true;
    bns_timer_start(c->env, &c->ep[ep].timer, bns_now_ns(c->env));
}

uint64_t bns_etcd_backoff_ns(struct bns_etcd *c, unsigned n)
{
    uint64_t ns = BACKOFF_NS;

    for (; n > 1 && ns < BACKOFF_MAX_NS; n--)
        ns *= 2;
    if (ns > BACKOFF_MAX_NS)
        ns = BACKOFF_MAX_NS;
    return ns - ns / 10 + bns_prng_below(&c->env->prng, ns / 5 + 1);
}

/* ---- the token ------------------------------------------------------------------------------- */

size_t bns_etcd_metadata(struct bns_etcd *c, enum bns_etcd_method m, struct bns_grpc_md *md)
{
    size_t n = 0;

    md[n++] = (struct bns_grpc_md){BNS_LIT("client-api-version"), BNS_LIT("3.6")};
    if (c->token[0] != '\0' && m != BNS_ETCD_AUTHENTICATE)
        md[n++] = (struct bns_grpc_md){BNS_LIT("token"), bns_slice_str(c->token)};
    if (m == BNS_ETCD_WATCH || m == BNS_ETCD_LEASE_KEEP)
        md[n++] = (struct bns_grpc_md){BNS_LIT("hasleader"), BNS_LIT("true")};
    return n;
}

static void told_token(void *arg, const struct bns_etcd_answer *a)
{
    struct bns_etcd *c = arg;
    const Etcdserverpb__AuthenticateResponse *r = (const void *)a->msg;
    int status = a->status;
    const char *text = a->text;

    if (c->freed)
        return;
    c->token[0] = '\0';
    c->auth = BNS_ETCD_AUTH_HAVE;
    c->token_gen++;
    if (status == BNS_GRPC_OK && (r->token == NULL || strlen(r->token) >= sizeof c->token)) {
        status = BNS_GRPC_INTERNAL;
        text = "the server's token is empty or too long";
    } else if (status == BNS_GRPC_OK) {
        (void)snprintf(c->token, sizeof c->token, "%s", r->token); /* fits */
    } else if (strstr(text, "authentication is not enabled") != NULL) {
        status = BNS_GRPC_OK; /* then none is needed */
    }
    if (status != BNS_GRPC_OK)
        c->auth = BNS_ETCD_AUTH_NEED;
    bns_etcd_calls_token(c, status, text);
    bns_etcd_streams_token(c, status, text);
}

bool bns_etcd_ready(struct bns_etcd *c, enum bns_etcd_method m)
{
    Etcdserverpb__AuthenticateRequest req = ETCDSERVERPB__AUTHENTICATE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_AUTHENTICATE, .request = &req.base};

    if (m == BNS_ETCD_AUTHENTICATE || c->auth == BNS_ETCD_AUTH_NONE ||
        c->auth == BNS_ETCD_AUTH_HAVE)
        return true;
    if (c->auth == BNS_ETCD_AUTH_NEED) {
        req.name = (char *)(uintptr_t)c->user;
        req.password = (char *)(uintptr_t)c->password;
        if (bns_etcd_call(c, &o, told_token, c, NULL) == BNS_OK)
            c->auth = BNS_ETCD_AUTH_ASK; /* else who waits has a deadline, and the next one asks */
    }
    return false;
}

bool bns_etcd_token_bad(struct bns_etcd *c, uint32_t gen, int status, const char *text)
{
    if (c->user == NULL || !(status == BNS_GRPC_UNAUTHENTICATED ||
                             (status == BNS_GRPC_INVALID_ARGUMENT &&
                              strcmp(text, "etcdserver: revision of auth store is old") == 0) ||
                             (status == BNS_GRPC_INVALID_ARGUMENT && c->token[0] == '\0' &&
                              strcmp(text, "etcdserver: user name is empty") == 0)))
        return false; /* the last: auth was enabled after we had asked */
    if (gen == c->token_gen && c->auth == BNS_ETCD_AUTH_HAVE)
        c->auth = BNS_ETCD_AUTH_NEED;
    return true;
}

/* ---- birth and end --------------------------------------------------------------------------- */

static void drained(void *arg)
{
    struct bns_etcd *c = arg;
    void (*done)(void *arg) = c->drained;

    if (done == NULL || c->calls_count > 0)
        return; /* another call has begun: its end comes back */
    c->drained = NULL;
    done(c->drained_arg);
}

static int set_up(struct bns_etcd *c, const struct bns_etcd_options *o, struct bns_err *err)
{
    for (size_t i = 0; i < o->endpoints_count; i++) {
        struct bns_etcd_ep *ep = &c->ep[i];
        bool tls;
        int rv = bns_etcd_endpoint(o->endpoints[i], &ep->at, &tls, err);

        if (rv != BNS_OK)
            return rv;
        if (tls && o->tls == NULL)
            return bns_err_set(err, BNS_E_INVALID, "endpoint \"%s\" needs TLS", o->endpoints[i]);
        ep->c = c;
        bns_timer_init(&ep->timer, ep_timer, ep);
    }
    if (o->server_name != NULL && strlen(o->server_name) >= sizeof c->server_name)
        return bns_err_set(err, BNS_E_INVALID, "the server's name is too long");
    if (o->server_name != NULL)
        (void)snprintf(c->server_name, sizeof c->server_name, "%s", o->server_name); /* fits */
    if (o->user == NULL)
        return BNS_OK;
    c->auth = BNS_ETCD_AUTH_NEED;
    c->user = bns_arena_dup(&c->arena, o->user, strlen(o->user));
    c->password =
        o->password == NULL ? "" : bns_arena_dup(&c->arena, o->password, strlen(o->password));
    if (c->user == NULL || c->password == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for user and password");
    return BNS_OK;
}

int bns_etcd_new(struct bns_env *env, const struct bns_etcd_options *o, struct bns_etcd **out,
                 struct bns_err *err)
{
    struct bns_etcd *c;
    int rv;

    if (o->endpoints_count == 0 || o->endpoints_count > BNS_ETCD_ENDPOINTS_MAX)
        return bns_err_set(err, BNS_E_INVALID, "%zu endpoints, but 1 to %u are possible",
                           o->endpoints_count, BNS_ETCD_ENDPOINTS_MAX);
    c = bns_alloc_zero(env->alloc, sizeof *c);
    if (c == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for a client of etcd");
    c->env = env;
    c->tls = o->tls;
    c->eps_count = o->endpoints_count;
    c->dial_timeout_ns = o->dial_timeout_ns == 0 ? DIAL_NS : o->dial_timeout_ns;
    c->call_timeout_ns = o->call_timeout_ns == 0 ? CALL_NS : o->call_timeout_ns;
    c->calls_max = o->calls_max == 0 ? CALLS_MAX : o->calls_max;
    c->current = o->first_endpoint ? 0 : bns_prng_below(&env->prng, c->eps_count);
    bns_list_init(&c->calls);
    bns_list_init(&c->streams);
    bns_timer_init(&c->drain, drained, c);
    bns_arena_init(&c->arena, env->alloc, 64u * 1024);
    rv = set_up(c, o, err);
    if (rv != BNS_OK) {
        bns_arena_free(&c->arena);
        bns_free(env->alloc, c);
        return rv;
    }
    *out = c;
    return BNS_OK;
}

void bns_etcd_call_gone(struct bns_etcd *c)
{
    c->calls_count--;
    if (c->calls_count == 0 && c->drained != NULL && !c->freed)
        bns_timer_start(c->env, &c->drain, bns_now_ns(c->env));
}

void bns_etcd_drain(struct bns_etcd *c, void (*done)(void *arg), void *arg)
{
    BNS_ASSERT(!c->freed);
    BNS_ASSERT(c->drained == NULL);
    c->drained = done;
    c->drained_arg = arg;
    if (c->calls_count == 0)
        bns_timer_start(c->env, &c->drain, bns_now_ns(c->env));
}

void bns_etcd_let_go(struct bns_etcd *c)
{
    if (!c->freed || c->busy > 0 || !bns_list_empty(&c->calls) || !bns_list_empty(&c->streams))
        return;
    bns_arena_free(&c->arena);
    bns_free(c->env->alloc, c);
}

void bns_etcd_free(struct bns_etcd *c)
{
    if (c == NULL)
        return;
    BNS_ASSERT(!c->freed);
    c->freed = true;
    c->drained = NULL;
    bns_timer_stop(c->env, &c->drain);
    c->busy++;
    for (size_t i = 0; i < c->eps_count; i++) {
        bns_timer_stop(c->env, &c->ep[i].timer);
        bns_grpc_client_free(c->ep[i].grpc);
        c->ep[i].grpc = NULL;
    }
    bns_etcd_calls_end(c);
    bns_etcd_streams_end(c);
    c->busy--;
    bns_etcd_let_go(c);
}

struct bns_env *bns_etcd_env(const struct bns_etcd *c)
{
    return c->env;
}
