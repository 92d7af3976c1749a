/* stream.c - one streaming call of the etcd client, as it is: no resumption, that is its owner's.
 *
 * An end that gRPC does not tell (no token, no memory) is told by a timer in the next turn. A
 * closed stream has no handler, and stays until gRPC has told its end.
 */
#include "client/etcd/etcd_int.h"

#include <stdio.h>

static void free_stream(struct bns_etcd_stream *s)
{
    struct bns_etcd *c = s->c;

    bns_timer_stop(c->env, &s->timer);
    bns_list_del(&s->node);
    bns_buf_free(&s->first);
    bns_free(c->env->alloc, s);
    bns_etcd_let_go(c);
}

static void finish(struct bns_etcd_stream *s, int status, const char *text)
{
    struct bns_etcd *c = s->c;
    const struct bns_etcd_stream_handler *h = s->handler;

    s->handler = NULL;
    s->telling = true;
    if (h != NULL) {
        c->busy++;
        h->on_end(s->arg, status, text);
        c->busy--;
    }
    free_stream(s);
}

static void on_timer(void *arg)
{
    struct bns_etcd_stream *s = arg;
    char text[BNS_ETCD_HINT_MAX];

    (void)snprintf(text, sizeof text, "%s", s->text); /* fits */
    finish(s, s->status, text);
}

static void end_soon(struct bns_etcd_stream *s, int status, const char *text)
{
    s->status = status;
    (void)snprintf(s->text, sizeof s->text, "%s", text); /* may be cut */
    bns_timer_start(s->c->env, &s->timer, bns_now_ns(s->c->env));
}

static void on_message(struct bns_grpc_ccall *cc, struct bns_slice msg)
{
    struct bns_etcd_stream *s = bns_grpc_ccall_arg(cc);
    struct bns_etcd *c = s->c;

    if (s->handler == NULL)
        return;
    c->busy++;
    s->handler->on_message(s->arg, msg);
    c->busy--;
}

static void on_status(struct bns_grpc_ccall *cc, int status, const char *text)
{
    struct bns_etcd_stream *s = bns_grpc_ccall_arg(cc);
    struct bns_etcd *c = s->c;

    s->cc = NULL;
    if (s->handler != NULL && status == BNS_GRPC_CANCELLED) { /* not by its owner */
        status = BNS_GRPC_UNAVAILABLE;
        text = c->freed ? text : BNS_ETCD_GIVEN_UP;
    }
    if (status == BNS_GRPC_UNAVAILABLE && !s->suspect)
        bns_etcd_ep_failed(c, s->ep);
    if (!c->freed)
        (void)bns_etcd_token_bad(c, s->token_gen, status, text); /* the next one has a new token */
    finish(s, status, text);
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void go(struct bns_etcd_stream *s)
{
    struct bns_etcd *c = s->c;
    struct bns_grpc_md md[3];
    struct bns_grpc_call_options o = {.path = bns_etcd_info[s->method].path, .md = md};
    struct bns_grpc_client *g;
    int rv = bns_etcd_pick(c, &s->ep, &g);

    o.md_count = bns_etcd_metadata(c, s->method, md);
    s->token_gen = c->token_gen;
    if (rv == BNS_OK)
        rv = bns_grpc_call_start(g, &o, &handler, s, &s->cc);
    if (rv != BNS_OK) {
        s->cc = NULL;
        bns_etcd_ep_failed(c, s->ep);
        end_soon(s, BNS_GRPC_UNAVAILABLE, bns_err_default_text(rv));
        return;
    }
    if (s->off)
        bns_grpc_ccall_read(s->cc, false);
    if (bns_grpc_ccall_send_copy(s->cc, bns_buf_slice(&s->first)) != BNS_OK)
        bns_grpc_ccall_cancel(s->cc);
    else if (s->last)
        bns_grpc_ccall_half_close(s->cc);
}

int bns_etcd_stream_open(struct bns_etcd *c, const struct bns_etcd_stream_options *o,
                         struct bns_etcd_stream **out)
{
    struct bns_etcd_stream *s;
    int rv;

    if (c->freed)
        return BNS_E_SHUTDOWN;
    s = bns_alloc_zero(c->env->alloc, sizeof *s);
    if (s == NULL)
        return BNS_E_NOMEM;
    s->c = c;
    s->method = o->method;
    s->handler = o->handler;
    s->arg = o->arg;
    s->last = o->last;
    bns_timer_init(&s->timer, on_timer, s);
    bns_buf_init(&s->first, c->env->alloc, BNS_ETCD_ANSWER_MAX);
    rv = bns_pb_pack(o->first, &s->first);
    if (rv != BNS_OK) {
        bns_buf_free(&s->first);
        bns_free(c->env->alloc, s);
        return rv;
    }
    bns_list_push(&c->streams, &s->node);
    if (bns_etcd_ready(c, s->method))
        go(s);
    *out = s;
    return BNS_OK;
}

int bns_etcd_stream_send(struct bns_etcd_stream *s, const ProtobufCMessage *msg)
{
    struct bns_buf b;
    int rv;

    if (s->cc == NULL)
        return BNS_E_AGAIN;
    bns_buf_init(&b, s->c->env->alloc, BNS_ETCD_ANSWER_MAX);
    rv = bns_pb_pack(msg, &b);
    if (rv == BNS_OK)
        rv = bns_grpc_ccall_send_copy(s->cc, bns_buf_slice(&b));
    bns_buf_free(&b);
    return rv;
}

void bns_etcd_stream_read(struct bns_etcd_stream *s, bool on)
{
    s->off = !on;
    if (s->cc != NULL)
        bns_grpc_ccall_read(s->cc, on);
}

void bns_etcd_stream_close(struct bns_etcd_stream *s)
{
    if (s == NULL)
        return;
    BNS_ASSERT(s->handler != NULL);
    s->handler = NULL;
    if (s->cc != NULL)
        bns_grpc_ccall_cancel(s->cc); /* on_status frees it */
    else
        bns_timer_start(s->c->env, &s->timer, bns_now_ns(s->c->env)); /* may be inside a callback */
}

void bns_etcd_stream_suspect(struct bns_etcd_stream *s)
{
    if (s->cc == NULL || s->suspect)
        return;
    s->suspect = true;
    bns_etcd_ep_drop(s->c, s->ep);
}

void bns_etcd_streams_token(struct bns_etcd *c, int status, const char *text)
{
    for (struct bns_list *n = c->streams.next; n != &c->streams; n = n->next) {
        struct bns_etcd_stream *s = BNS_CONTAINER(n, struct bns_etcd_stream, node);

        if (s->cc != NULL || s->handler == NULL || s->status != 0)
            continue;
        if (status == BNS_GRPC_OK)
            go(s);
        else
            end_soon(s, status, text);
    }
}

void bns_etcd_streams_end(struct bns_etcd *c)
{
    BNS_LIST_EACH(n, &c->streams)
    {
        struct bns_etcd_stream *s = BNS_CONTAINER(n, struct bns_etcd_stream, node);

        BNS_ASSERT(s->handler == NULL); /* else its owner was not closed */
        if (s->cc == NULL && !s->telling)
            free_stream(s);
    }
}
