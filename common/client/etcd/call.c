/* call.c - one unary call of the etcd client: attempts, pauses, one answer.
 *
 *      WAIT (for the token) ──> SENT ──> answered: done
 *        ^                       │ failed, and may be sent again
 *        └──────── PAUSE <───────┘            ENDING: done in the next turn
 *
 * done runs from the end of gRPC's on_status, from the call's timer, or from bns_etcd_free(), never
 * from inside bns_etcd_call(); nothing of this file is touched after it but what `busy` keeps.
 */
#include "client/etcd/etcd_int.h"

#include <stdio.h>

#define SILENCE_NS BNS_SEC /* a deadline shorter than this says nothing about a connection */

static void go(struct bns_etcd_call *k);

static void free_call(struct bns_etcd_call *k)
{
    struct bns_etcd *c = k->c;

    bns_timer_stop(c->env, &k->timer);
    bns_list_del(&k->node);
    bns_buf_free(&k->request);
    bns_arena_free(&k->arena);
    bns_free(c->env->alloc, k);
    bns_etcd_call_gone(c);
}

/* Tells the owner; frees nothing. */
static void tell(struct bns_etcd_call *k, int status, const char *text, bool unknown)
{
    struct bns_etcd *c = k->c;
    bns_etcd_done *done = k->done;
    const struct bns_etcd_answer a = {
        .status = status,
        .text = text,
        .cause = status == BNS_GRPC_OK ? "" : k->cause,
        .msg = status == BNS_GRPC_OK ? k->msg : NULL,
        .arena = &k->arena,
        .unknown = unknown,
    };

    k->done = NULL;
    if (done == NULL)
        return;
    c->busy++;
    done(k->arg, &a);
    c->busy--;
}

static void finish(struct bns_etcd_call *k, int status, const char *text, bool unknown)
{
    struct bns_etcd *c = k->c;

    bns_timer_stop(c->env, &k->timer);
    k->state = BNS_ETCD_TOLD; /* done may free the client */
    tell(k, status, text, unknown);
    free_call(k);
    bns_etcd_let_go(c);
}

/* Ends the call in the next turn; the text is k->cause. */
static void end_soon(struct bns_etcd_call *k, int status)
{
    k->state = BNS_ETCD_ENDING;
    k->status = status;
    bns_timer_start(k->c->env, &k->timer, bns_now_ns(k->c->env));
}

static void keep_cause(struct bns_etcd_call *k, const char *text)
{
    if (text != k->cause)
        (void)snprintf(k->cause, sizeof k->cause, "%s", text); /* may be cut */
}

static void on_timer(void *arg)
{
    struct bns_etcd_call *k = arg;

    if (k->state == BNS_ETCD_ENDING) {
        char text[BNS_ETCD_HINT_MAX];

        (void)snprintf(text, sizeof text, "%s", k->cause); /* fits */
        finish(k, k->status, text, false);
    } else if (bns_now_ns(k->c->env) >= k->deadline_ns) {
        finish(k, BNS_GRPC_DEADLINE_EXCEEDED, "context deadline exceeded", false);
    } else if (k->state == BNS_ETCD_PAUSE) {
        go(k);
    } else {
        k->state = BNS_ETCD_PAUSE; /* WAIT: its deadline was moved; look again */
        go(k);
    }
}

/* Once more: at once at another endpoint, after a pause when all have been asked. */
static void again(struct bns_etcd_call *k)
{
    struct bns_etcd *c = k->c;
    uint64_t at = bns_now_ns(c->env);
    unsigned eps = (unsigned)c->eps_count;

    k->tries++;
    k->cc = NULL;
    k->state = BNS_ETCD_PAUSE;
    k->msg = NULL;
    k->bad = k->unbegun = false;
    bns_arena_free(&k->arena);
    if (k->tries % eps == 0)
        at += bns_etcd_backoff_ns(c, k->tries / eps);
    bns_timer_start(c->env, &k->timer, at < k->deadline_ns ? at : k->deadline_ns);
}

/* ---- one attempt ----------------------------------------------------------------------------- */

/* Every response of etcd begins with its header. */
static void session_seen(struct bns_etcd_session *s, const ProtobufCMessage *msg)
{
    const Etcdserverpb__ResponseHeader *h =
        ((const Etcdserverpb__PutResponse *)(const void *)msg)->header;

    if (h != NULL && h->revision > s->revision)
        s->revision = h->revision;
}

static size_t session_md(const struct bns_etcd_session *s, char text[24], struct bns_grpc_md *md)
{
    int len;

    if (s == NULL || s->revision <= 0)
        return 0;
    len = snprintf(text, 24, "%lld", (long long)s->revision); /* fits */
    *md = (struct bns_grpc_md){BNS_LIT("bonsai-min-revision"), bns_slice(text, (size_t)len)};
    return 1;
}

static void on_message(struct bns_grpc_ccall *cc, struct bns_slice msg)
{
    struct bns_etcd_call *k = bns_grpc_ccall_arg(cc);

    if (k->done == NULL || k->msg != NULL || k->bad)
        return;
    k->bad = bns_etcd_unpack(k->method, msg, &k->arena, &k->msg) != BNS_OK;
    if (!k->bad && k->session != NULL)
        session_seen(k->session, k->msg);
}

/* RESOURCE_EXHAUSTED is a refusal when etcd says it; it is also said, here and on the way, of an
 * answer that is too large, or of a stream that was reset to calm us. */
static bool may_have_happened(const struct bns_etcd_call *k, int status, const char *text)
{
    return !k->again && !k->unbegun &&
           (status == BNS_GRPC_CANCELLED || status == BNS_GRPC_UNKNOWN ||
            status == BNS_GRPC_DEADLINE_EXCEEDED || status == BNS_GRPC_INTERNAL ||
            status == BNS_GRPC_UNAVAILABLE ||
            (status == BNS_GRPC_RESOURCE_EXHAUSTED && strncmp(text, "etcdserver: ", 12) != 0));
}

static void deadline_passed(struct bns_etcd_call *k)
{
    struct bns_etcd *c = k->c;
    struct bns_grpc_client *g = c->ep[k->ep].grpc;

    if (bns_now_ns(c->env) - k->sent_ns >= SILENCE_NS) {
        if (g != NULL && bns_grpc_client_heard_ns(g) <= k->sent_ns)
            bns_etcd_ep_drop(c, k->ep); /* not a word: the connection may be dead */
        else
            bns_etcd_ep_failed(c, k->ep);
    }
    finish(k, BNS_GRPC_DEADLINE_EXCEEDED, "context deadline exceeded",
           may_have_happened(k, BNS_GRPC_DEADLINE_EXCEEDED, ""));
}

static void on_status(struct bns_grpc_ccall *cc, int status, const char *text)
{
    struct bns_etcd_call *k = bns_grpc_ccall_arg(cc);
    struct bns_etcd *c = k->c;

    k->cc = NULL;
    if (k->done == NULL) { /* cancelled */
        free_call(k);
        bns_etcd_let_go(c);
        return;
    }
    if (bns_grpc_ccall_unsent(cc))
        k->unbegun = true;
    if (status == BNS_GRPC_OK && k->msg == NULL) {
        status = BNS_GRPC_INTERNAL;
        text = k->bad ? "the server's answer cannot be read" : "the server answered nothing";
    }
    if (c->freed) {
        finish(k, BNS_GRPC_CANCELLED, "the client was closed",
               may_have_happened(k, BNS_GRPC_CANCELLED, ""));
        return;
    }
    if (status == BNS_GRPC_CANCELLED) { /* not by us */
        status = BNS_GRPC_UNAVAILABLE;
        text = BNS_ETCD_GIVEN_UP;
    }
    if (status != BNS_GRPC_OK)
        keep_cause(k, text);
    if (status == BNS_GRPC_UNAVAILABLE) {
        bns_etcd_ep_failed(c, k->ep);
        if (k->unbegun || k->again) {
            again(k);
            return;
        }
    }
    if (status == BNS_GRPC_DEADLINE_EXCEEDED && bns_now_ns(c->env) >= k->deadline_ns) {
        deadline_passed(k);
        return;
    }
    if (k->method != BNS_ETCD_AUTHENTICATE && bns_etcd_token_bad(c, k->token_gen, status, text)) {
        again(k); /* it was refused before anything was done */
        return;
    }
    finish(k, status, text, may_have_happened(k, status, text));
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void go(struct bns_etcd_call *k)
{
    struct bns_etcd *c = k->c;
    struct bns_grpc_md md[4];
    char session[24];
    struct bns_grpc_call_options o = {
        .path = bns_etcd_info[k->method].path, .md = md, .deadline_ns = k->deadline_ns};
    struct bns_grpc_client *g;
    int rv;

    if (!bns_etcd_ready(c, k->method)) {
        k->state = BNS_ETCD_WAIT;
        bns_timer_stop(c->env, &k->timer);
        if (k->deadline_ns != BNS_NEVER)
            bns_timer_start(c->env, &k->timer, k->deadline_ns);
        return;
    }
    bns_timer_stop(c->env, &k->timer);
    rv = bns_etcd_pick(c, &k->ep, &g);
    o.md_count = bns_etcd_metadata(c, k->method, md);
    o.md_count += session_md(k->session, session, md + o.md_count);
    k->token_gen = c->token_gen;
    k->sent_ns = bns_now_ns(c->env);
    if (rv == BNS_OK)
        rv = bns_grpc_call_start(g, &o, &handler, k, &k->cc);
    if (rv != BNS_OK) {
        keep_cause(k, bns_err_default_text(rv));
        bns_etcd_ep_failed(c, k->ep);
        again(k);
        return;
    }
    k->state = BNS_ETCD_SENT;
    if (bns_grpc_ccall_send_copy(k->cc, bns_buf_slice(&k->request)) == BNS_OK) {
        bns_grpc_ccall_half_close(k->cc);
    } else {
        k->unbegun = true;
        bns_grpc_ccall_cancel(k->cc);
    }
}

/* ---- what the owner and the client call ------------------------------------------------------ */

static bool only_reads(enum bns_etcd_method m, const ProtobufCMessage *request)
{
    if (m == BNS_ETCD_ALARM)
        return ((const Etcdserverpb__AlarmRequest *)(const void *)request)->action ==
               ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET;
    return bns_etcd_info[m].again;
}

int bns_etcd_call(struct bns_etcd *c, const struct bns_etcd_call_options *o, bns_etcd_done *done,
                  void *arg, struct bns_etcd_call **out)
{
    struct bns_etcd_call *k;
    int rv;

    BNS_ASSERT(done != NULL);
    if (c->freed)
        return BNS_E_SHUTDOWN;
    if (c->calls_count >= c->calls_max && o->method != BNS_ETCD_AUTHENTICATE)
        return BNS_E_BUSY;
    k = bns_alloc_zero(c->env->alloc, sizeof *k);
    if (k == NULL)
        return BNS_E_NOMEM;
    k->c = c;
    k->method = o->method;
    k->session = o->session;
    k->again = only_reads(o->method, o->request);
    k->done = done;
    k->arg = arg;
    k->deadline_ns = o->deadline_ns;
    if (o->deadline_ns == 0)
        k->deadline_ns = bns_now_ns(c->env) + c->call_timeout_ns;
    bns_timer_init(&k->timer, on_timer, k);
    bns_buf_init(&k->request, c->env->alloc, BNS_ETCD_ANSWER_MAX);
    bns_arena_init(&k->arena, c->env->alloc, 4u * BNS_ETCD_ANSWER_MAX);
    rv = bns_pb_pack(o->request, &k->request);
    if (rv != BNS_OK) {
        bns_buf_free(&k->request);
        bns_free(c->env->alloc, k);
        return rv;
    }
    bns_list_push(&c->calls, &k->node);
    c->calls_count++;
    go(k);
    if (out != NULL)
        *out = k;
    return BNS_OK;
}

void bns_etcd_call_cancel(struct bns_etcd_call *k)
{
    k->done = NULL;
    if (k->state == BNS_ETCD_SENT)
        bns_grpc_ccall_cancel(k->cc); /* on_status frees it */
    else
        free_call(k);
}

void bns_etcd_calls_token(struct bns_etcd *c, int status, const char *text)
{
    struct bns_list waiting;

    bns_list_init(&waiting);
    BNS_LIST_EACH(n, &c->calls)
    {
        struct bns_etcd_call *k = BNS_CONTAINER(n, struct bns_etcd_call, node);

        if (k->state == BNS_ETCD_WAIT) {
            bns_list_del(n);
            bns_list_push(&waiting, n);
        }
    }
    for (struct bns_list *n; (n = bns_list_pop(&waiting)) != NULL;) {
        struct bns_etcd_call *k = BNS_CONTAINER(n, struct bns_etcd_call, node);

        bns_list_push(&c->calls, n);
        if (status == BNS_GRPC_OK) {
            go(k);
        } else {
            keep_cause(k, text);
            end_soon(k, status);
        }
    }
}

void bns_etcd_calls_end(struct bns_etcd *c)
{
    struct bns_list all;

    bns_list_init(&all);
    bns_list_splice(&all, &c->calls);
    for (struct bns_list *n; (n = bns_list_pop(&all)) != NULL;) {
        struct bns_etcd_call *k = BNS_CONTAINER(n, struct bns_etcd_call, node);

        bns_list_push(&c->calls, n);
        tell(k, BNS_GRPC_CANCELLED, "the client was closed",
             k->state == BNS_ETCD_SENT && may_have_happened(k, BNS_GRPC_CANCELLED, ""));
        if (k->state != BNS_ETCD_SENT && k->state != BNS_ETCD_TOLD)
            free_call(k); /* else the connection that it is on is being taken apart just now */
    }
}

int bns_etcd_unpack(enum bns_etcd_method method, struct bns_slice in, struct bns_arena *arena,
                    ProtobufCMessage **out)
{
    static const struct bns_pb_limits limits = {.bytes = BNS_ETCD_ANSWER_MAX,
                                                .elements = BNS_ETCD_ANSWER_MAX};

    return bns_pb_unpack(bns_etcd_info[method].response, in, arena, &limits, out, NULL);
}
