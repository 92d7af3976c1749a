/* lease_ask.c - renewals and TimeToLive: asked on any member, answered by the leader.
 *
 * On the leader: have the leadership confirmed by a quorum in a round that begins now (ReadIndex;
 * all asks of a turn share one), which also waits until everything committed so far is applied.
 * Then look at the lessor, if this member still leads. lease.c says why no less will do.
 * Elsewhere: send it to the leader over the connections that carry Raft's messages; the leader does
 * the above and answers. No leader, or one that does not answer within TRY_NS (an election timeout
 * when that is longer): tried again, with whoever leads then, until the deadline. Repeating is
 * harmless: a renewal only ever adds time.
 *
 * Between members: method RENEW, LeaseKeepAliveRequest -> LeaseKeepAliveResponse; method LOOK,
 * LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse; both without header. Codes: BNS_E_NOTFOUND,
 * BNS_E_NOTLEADER.
 */
#include "lease_ask.h"

#include "codec/pb.h"
#include "server.h"

#define METHOD_RENEW (BNS_RAFT_NODE_METHOD + 0)
#define METHOD_LOOK (BNS_RAFT_NODE_METHOD + 1)
#define RETRY_NS (50 * BNS_MS)
#define TRY_NS BNS_SEC
#define ASKS_MAX 65536u
#define BODY_MAX (64u * 1024 * 1024 - 4096) /* one frame */

static void try_now(struct etcd_ask *a);

int etcd_lease_field(struct bns_slice msg, uint32_t field, int64_t *out)
{
    struct bns_pb_field f = {0};

    *out = 0;
    while (msg.len > 0) {
        int rv = bns_pb_next(&msg, &f);

        if (rv != BNS_OK)
            return rv;
        if (f.id != field)
            continue;
        if (f.wire != 0)
            return BNS_E_PROTO;
        *out = (int64_t)f.u64;
    }
    return BNS_OK;
}

static void tick_soon(struct etcd_server *s, uint64_t in_ns)
{
    struct etcd_lease_service *l = &s->lease;

    if (s->stopping_asks) /* no timer is started any more */
        return;
    if (!bns_list_empty(&l->retry) || !bns_list_empty(&l->waiting))
        bns_timer_start(s->env, &l->timer, bns_now_ns(s->env) + in_ns);
}

static void finish(struct etcd_ask *a, int code)
{
    struct bns_buf body;

    bns_list_del(&a->node);
    if (a->asked)
        a->s->lease.asks--;
    a->asked = false;
    body = a->body; /* the ask may be gone after done */
    a->done(a, code);
    bns_buf_free(&body);
}

/* Not now; another member is told, it tries again itself. */
static void later(struct etcd_ask *a)
{
    struct etcd_server *s = a->s;

    if (s->stopping_asks) {
        finish(a, BNS_E_SHUTDOWN);
    } else if (a->from != NULL) {
        finish(a, BNS_E_NOTLEADER);
    } else if (bns_now_ns(s->env) >= a->deadline_ns) {
        finish(a, s->leader == 0 ? BNS_E_NOTLEADER : BNS_E_TIMEOUT);
    } else {
        bns_list_push(&s->lease.retry, &a->node);
        if (s->lease.timer.node.pos == 0)
            tick_soon(s, RETRY_NS);
    }
}

/* ---- on the leader -------------------------------------------------------------------------- */

static void answer_here(struct etcd_ask *a);

static void on_revoked(struct etcd_lease_wait *w, int code)
{
    struct etcd_ask *a = BNS_CONTAINER(w, struct etcd_ask, wait);

    a->waiting = false;
    bns_list_del(&a->node);
    if (code == BNS_E_NOTFOUND)
        finish(a, code);
    else if (code == BNS_OK)
        answer_here(a);
    else
        later(a);
}

static void wait_here(struct etcd_ask *a)
{
    struct etcd_server *s = a->s;

    a->waiting = true;
    bns_list_push(&s->lease.waiting, &a->node);
    if (s->lease.timer.node.pos == 0)
        tick_soon(s, RETRY_NS);
}

static void on_looked(struct etcd_lease_look *l, int code)
{
    struct etcd_ask *a = BNS_CONTAINER(l, struct etcd_ask, looking);

    a->waiting = false;
    bns_list_del(&a->node);
    if (code == BNS_E_NOTLEADER) {
        bns_buf_clear(&a->body); /* a part of it may be there */
        later(a);
    } else {
        finish(a, code);
    }
}

static void answer_here(struct etcd_ask *a)
{
    struct etcd_server *s = a->s;
    int rv;

    a->wait.fn = on_revoked;
    if (a->look) {
        a->looking = (struct etcd_lease_look){
            .id = a->id, .keys = a->keys, .out = &a->body, .fn = on_looked};
        wait_here(a); /* before: it may be answered, and gone, inside */
        etcd_kv_lease_look(s->kv, &a->looking);
        return;
    }
    rv = etcd_kv_lease_renew(s->kv, a->id, &a->wait, &a->ttl);
    if (rv == BNS_E_AGAIN) {
        wait_here(a);
    } else if (rv == BNS_E_NOTLEADER) {
        later(a);
    } else {
        finish(a, rv);
    }
}

static void on_confirmed(struct bns_raft_read *r, int code)
{
    struct etcd_ask *a = BNS_CONTAINER(r, struct etcd_ask, read);

    a->reading = false;
    if (a->s->stopping_asks && code == BNS_OK)
        code = BNS_E_SHUTDOWN; /* it was under way when the others were ended */
    if (code == BNS_OK)
        answer_here(a);
    else if (code == BNS_E_SHUTDOWN || code == BNS_E_BUSY)
        finish(a, code);
    else
        later(a);
}

/* ---- elsewhere ------------------------------------------------------------------------------ */

static void on_answer(void *arg, int code, struct bns_slice payload)
{
    struct etcd_ask *a = arg;

    if (code == BNS_OK && a->look)
        code = bns_buf_add(&a->body, payload.ptr, payload.len);
    else if (code == BNS_OK)
        code = etcd_lease_field(payload, 3, &a->ttl);
    if (code == BNS_OK || code == BNS_E_NOTFOUND || code == BNS_E_NOMEM || code == BNS_E_TOOBIG)
        finish(a, code); /* asked again the leader would say the same */
    else
        later(a);
}

static int send_on(struct etcd_ask *a, uint64_t leader)
{
    uint64_t election_ns = a->s->opt->election_ms * BNS_MS;
    uint64_t end = bns_now_ns(a->s->env) + (election_ns > TRY_NS ? election_ns : TRY_NS);
    struct bns_rpc_call_options o = {
        .method = a->look ? METHOD_LOOK : METHOD_RENEW,
        /* keys may take long: asked for again they would only queue behind themselves */
        .deadline_ns = (a->look && a->keys) || a->deadline_ns < end ? a->deadline_ns : end,
        .done = on_answer,
        .arg = a,
    };
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, a->s->env->alloc, 64);
    rv = bns_pb_put_i64(&b, 1, a->id);
    if (rv == BNS_OK && a->look && a->keys)
        rv = bns_pb_put_u64(&b, 2, 1);
    if (rv == BNS_OK)
        rv = bns_raft_node_call(a->s->node, leader, &o, bns_buf_slice(&b));
    bns_buf_free(&b);
    return rv;
}

static void try_now(struct etcd_ask *a)
{
    struct etcd_server *s = a->s;

    if (etcd_kv_lease_primary(s->kv) || BNS_MUTANT(s->env, ETCD_MUTANT_RENEWED_HERE)) {
        a->read.fn = on_confirmed;
        a->reading = true;
        bns_list_init(&a->read.node);
        bns_raft_node_read_urgent(s->node, &a->read, a->deadline_ns);
    } else if (a->from != NULL || s->leader == 0 || send_on(a, s->leader) != BNS_OK) {
        later(a);
    }
}

/* ---- all asks ------------------------------------------------------------------------------- */

void etcd_ask(struct etcd_server *s, struct etcd_ask *a)
{
    a->s = s;
    a->deadline_ns = bns_now_ns(s->env) + s->op_timeout_ns;
    bns_list_init(&a->node);
    bns_list_init(&a->read.node);
    bns_list_init(&a->wait.node);
    bns_buf_init(&a->body, s->env->alloc, BODY_MAX);
    if (s->stopping_asks) {
        finish(a, BNS_E_SHUTDOWN);
    } else if (s->lease.asks >= ASKS_MAX) {
        finish(a, BNS_E_BUSY);
    } else {
        a->asked = true;
        s->lease.asks++;
        try_now(a);
    }
}

static void unwait(struct etcd_ask *a)
{
    if (a->waiting && a->look)
        etcd_kv_lease_unlook(a->s->kv, &a->looking);
    else if (a->waiting)
        etcd_lessor_unwait(&a->wait);
    a->waiting = false;
}

static void on_tick(void *arg)
{
    struct etcd_server *s = arg;
    uint64_t now = bns_now_ns(s->env);
    struct bns_list again, *it;

    bns_list_init(&again);
    BNS_LIST_EACH(n, &s->lease.waiting)
    {
        struct etcd_ask *a = BNS_CONTAINER(n, struct etcd_ask, node);

        if (a->deadline_ns > now)
            continue;
        unwait(a);
        finish(a, BNS_E_TIMEOUT);
    }
    bns_list_splice(&again, &s->lease.retry);
    while ((it = bns_list_pop(&again)) != NULL) {
        struct etcd_ask *a = BNS_CONTAINER(it, struct etcd_ask, node);

        if (a->deadline_ns <= now)
            later(a); /* which ends it */
        else
            try_now(a);
    }
    tick_soon(s, RETRY_NS);
}

void etcd_asks_init(struct etcd_server *s)
{
    bns_list_init(&s->lease.retry);
    bns_list_init(&s->lease.waiting);
    bns_list_init(&s->lease.streams);
    bns_timer_init(&s->lease.timer, on_tick, s);
}

void etcd_asks_role(struct etcd_server *s)
{
    tick_soon(s, 0); /* in a turn of its own: the core is being drained */
}

void etcd_asks_stop(struct etcd_server *s)
{
    struct bns_list *lists[2] = {&s->lease.retry, &s->lease.waiting};
    struct bns_list *it;

    s->stopping_asks = true;
    for (int i = 0; i < 2; i++) {
        while ((it = bns_list_pop(lists[i])) != NULL) {
            struct etcd_ask *a = BNS_CONTAINER(it, struct etcd_ask, node);

            unwait(a);
            finish(a, BNS_E_SHUTDOWN);
        }
    }
    bns_timer_stop(s->env, &s->lease.timer);
}

/* ---- asked by another member ---------------------------------------------------------------- */

static void reply(struct etcd_ask *a, int code)
{
    const struct bns_alloc *alloc = a->s->env->alloc;
    struct bns_buf b;

    bns_buf_init(&b, alloc, 64);
    if (code == BNS_OK && !a->look)
        code = bns_pb_put_i64(&b, 3, a->ttl);
    if (code == BNS_OK)
        bns_rpc_reply(a->from, code, a->look ? bns_buf_slice(&a->body) : bns_buf_slice(&b));
    else
        bns_rpc_reply(a->from, code, bns_slice(NULL, 0));
    bns_buf_free(&b);
    bns_free(alloc, a);
}

static int take_request(struct etcd_ask *a, struct bns_slice payload)
{
    int64_t keys = 0;
    int rv = etcd_lease_field(payload, 1, &a->id);

    if (rv == BNS_OK && a->look)
        rv = etcd_lease_field(payload, 2, &keys);
    a->keys = keys != 0;
    return rv;
}

void etcd_ask_request(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                      struct bns_slice payload)
{
    struct etcd_server *s = arg;
    struct etcd_ask *a;

    (void)from;
    if (method == ETCD_METHOD_HASH) {
        etcd_corrupt_request(s, r, payload);
        return;
    }
    if (method == ETCD_METHOD_CHANGE) {
        etcd_change_request(s, r, payload);
        return;
    }
    if (method != METHOD_RENEW && method != METHOD_LOOK) {
        bns_rpc_reply(r, BNS_E_UNSUPPORTED, bns_slice(NULL, 0));
        return;
    }
    a = bns_alloc_zero(s->env->alloc, sizeof *a);
    if (a != NULL)
        a->look = method == METHOD_LOOK;
    if (a == NULL || take_request(a, payload) != BNS_OK) {
        bns_rpc_reply(r, a == NULL ? BNS_E_NOMEM : BNS_E_PROTO, bns_slice(NULL, 0));
        bns_free(s->env->alloc, a);
        return;
    }
    a->from = r;
    a->done = reply;
    etcd_ask(s, a);
}
