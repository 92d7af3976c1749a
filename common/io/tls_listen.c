/* tls_listen.c - listeners and dialling, with TLS or without.
 *
 * A listener keeps its half-finished handshakes in the order of their arrival. One more than
 * BNS_TLS_HANDSHAKES_MAX drops the oldest: who means it is through in milliseconds, so a crowd that
 * only opens connections pushes out itself.
 */
#include "io/tls_int.h"

struct bns_tls_listener {
    struct bns_env *env;
    struct bns_tls *t; /* NULL: plain */
    struct bns_listener *listener;
    struct bns_list half; /* struct bns_tls_stream */
    size_t half_count;
    bns_accept_fn *fn;
    void *arg;
    bool alpn_http;
};

/* ---- listening ------------------------------------------------------------------------------- */
void bns_tls_listener_half(struct bns_tls_stream *s)
{
    struct bns_tls_listener *l = s->listener;

    if (l == NULL)
        return; /* closed meanwhile */
    BNS_ASSERT(l->half_count > 0);
    l->half_count--;
    bns_list_del(&s->node);
}

void bns_tls_hand_over(struct bns_tls_stream *s)
{
    struct bns_tls_listener *l = s->listener;

    BNS_ASSERT(l != NULL); /* its end drops the streams that are not handed over */
    s->listener = NULL;
    l->fn(l->arg, &s->base);
    BNS_ASSERT(s->ev.on_close != NULL || s->state > BNS_TLS_OPEN); /* of bns_accept_fn */
}

static void evict(struct bns_tls_stream *s)
{
    bns_tls_reject_log(s->t, s->under, true, "too many half-finished handshakes",
                       "the oldest was dropped; see who opens connections without using them");
    bns_tls_shake_over(s, BNS_TLS_EVICTED);
    bns_stream_reset(&s->base);
}

static void start_half(struct bns_tls_stream *s, bool accepted)
{
    struct bns_env *env = s->t->env;

    s->accepted = accepted;
    s->half = true;
    bns_tls_half(s->t, 1);
    bns_timer_start(env, &s->timer, bns_now_ns(env) + BNS_TLS_HANDSHAKE_NS);
}

static void on_accept(void *arg, struct bns_stream *under)
{
    struct bns_tls_listener *l = arg;
    struct bns_tls_stream *s = bns_tls_stream_new(l->t);

    if (s == NULL) {
        bns_stream_refuse(under);
        return;
    }
    s->under = under;
    s->listener = l;
    s->alpn = l->alpn_http ? "http" : NULL;
    start_half(s, true);
    bns_list_push(&l->half, &s->node);
    l->half_count++;
    bns_stream_set_events(under, &bns_tls_under_events, s);
    if (l->half_count > BNS_TLS_HANDSHAKES_MAX)
        evict(BNS_CONTAINER(l->half.next, struct bns_tls_stream, node));
}

int bns_tls_listen(struct bns_env *env, struct bns_tls *t, const struct bns_tls_listen_options *o,
                   struct bns_tls_listener **out, struct bns_err *err)
{
    struct bns_tls_listener *l = bns_alloc_zero(env->alloc, sizeof *l);
    int rv;

    BNS_ASSERT(t == NULL || t->ctx.serve != NULL);
    if (l == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s port %u: no memory for a listener", o->host,
                           (unsigned)o->port);
    l->env = env;
    l->t = t;
    l->fn = o->fn;
    l->arg = o->arg;
    l->alpn_http = o->alpn_http;
    bns_list_init(&l->half);
    if (t == NULL)
        rv = bns_net_listen(env, o->host, o->port, o->fn, o->arg, &l->listener, err);
    else
        rv = bns_net_listen(env, o->host, o->port, on_accept, l, &l->listener, err);
    if (rv != BNS_OK) {
        bns_free(env->alloc, l);
        return rv;
    }
    if (t != NULL)
        bns_tls_ref(t);
    *out = l;
    return BNS_OK;
}

uint16_t bns_tls_listener_port(const struct bns_tls_listener *l)
{
    return bns_listener_port(l->env, l->listener);
}

void bns_tls_listener_close(struct bns_tls_listener *l)
{
    struct bns_list *n;

    if (l == NULL)
        return;
    bns_listener_close(l->env, l->listener);
    while ((n = bns_list_pop(&l->half)) != NULL) {
        struct bns_tls_stream *s = BNS_CONTAINER(n, struct bns_tls_stream, node);

        s->listener = NULL;
        bns_stream_reset(&s->base);
    }
    if (l->t != NULL)
        bns_tls_unref(l->t);
    bns_free(l->env->alloc, l);
}

/* ---- dialling -------------------------------------------------------------------------------- */
int bns_tls_connect(struct bns_env *env, struct bns_tls *t, const struct bns_tls_dial *o,
                    const struct bns_stream_events *ev, void *arg, struct bns_stream **out,
                    struct bns_err *err)
{
    const char *name = o->server_name == NULL ? o->host : o->server_name;
    struct bns_tls_stream *s;
    int rv;

    if (t == NULL)
        return bns_net_connect(env, o->host, o->port, ev, arg, out, err);
    BNS_ASSERT(t->ctx.dial != NULL);
    s = bns_tls_stream_new(t);
    if (s == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "cannot dial %s port %u", o->host, (unsigned)o->port);
    s->alpn = o->alpn;
    s->server_name = bns_alloc(env->alloc, strlen(name) + 1);
    if (s->server_name == NULL) {
        rv = bns_err_set(err, BNS_E_NOMEM, "cannot dial %s port %u", o->host, (unsigned)o->port);
        goto fail;
    }
    memcpy(s->server_name, name, strlen(name) + 1);
    s->ev = *ev;
    s->arg = arg;
    rv = bns_net_connect(env, o->host, o->port, &bns_tls_under_events, s, &s->under, err);
    if (rv != BNS_OK)
        goto fail;
    start_half(s, false);
    *out = &s->base;
    return BNS_OK;

fail:
    bns_tls_stream_free(s);
    return rv;
}
