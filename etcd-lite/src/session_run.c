/* session_run.c - drives a claim (session.h) on this member.
 *
 * What the machine wants            what is done here
 *   GRANT PUT PROCLAIM LEAVE        a proposal, as a request of KV would make it; on any member
 *   LOOK                            a walk over the index, on the state that is applied here
 *   WAIT                            a stream of watches that only we read: the own key and the
 *                                   newest older one, deletions only, from the revision looked at
 *                                   on. Nothing lies between the look and the watch. No timer.
 *   CONFIRM                         ReadIndex, then a look; without a leader: again, RETRY_NS later
 *   DONE                            the call is finished, once nothing of ours is under way
 *
 * A look goes through the store's queue of reads, because the index is being replaced while a
 * snapshot is installed. What the watch tells comes while the pump of watches runs; it is acted on
 * in a turn of its own, since a stream may not be closed inside.
 *
 * When the client has gone the session goes on until its key is out of the queue: the call stays
 * ours until it is finished.
 */
#include "session_run.h"

#include "codec/pb.h"
#include "kvbytes.h"
#include "lease_kv.h"
#include "server.h"
#include "watch.h"

#define RETRY_NS (100 * BNS_MS)
#define TEXT_NOMEM "etcdserver: out of memory"
#define TEXT_STOPPED "etcdserver: server stopped"
#define TEXT_BUSY "etcdserver: too many requests"

struct etcd_session {
    struct bns_list node; /* service.sessions */
    struct bns_list park; /* service.retry */
    struct etcd_server *s;
    struct bns_grpc_call *call;
    struct etcd_claim claim;
    struct etcd_session_result result;
    struct bns_slice prefix, value;
    int (*answer)(struct etcd_server *s, const struct etcd_session_result *r, struct bns_buf *out);
    struct etcd_task task; /* the step under way */
    bool tasking;
    Etcdserverpb__RangeRequest probe; /* of a look: counts the own key */
    bool probing;
    struct bns_buf older; /* the key that is waited for */
    struct etcd_watch_stream *stream;
    bool woken;
    int watch_status; /* not 0: the stream of watches failed */
    const char *watch_text;
    struct bns_task step;
    bool posted;
};

static void act(struct etcd_session *x);

int etcd_session_status(int status)
{
    return status == BNS_GRPC_OK ? BNS_GRPC_OK : BNS_GRPC_UNKNOWN;
}

static int status_of(struct etcd_server *s, int status)
{
    return s->stopping ? BNS_GRPC_UNAVAILABLE : etcd_session_status(status);
}

void etcd_session_failed(struct etcd_task *t, int status, const char *text)
{
    bns_counter_add(t->s->m_failed, 1);
    bns_grpc_finish(t->call, status_of(t->s, status), text, NULL, 0);
}

struct etcd_task *etcd_session_task(struct bns_grpc_call *c)
{
    struct etcd_task *t = etcd_task_new(bns_grpc_arg(c), c);

    if (t != NULL)
        t->failed = etcd_session_failed;
    return t;
}

void etcd_session_reply(struct bns_grpc_call *c, struct bns_buf *out, int rv)
{
    if (rv == BNS_OK)
        rv = bns_grpc_send_copy(c, bns_buf_slice(out));
    if (rv == BNS_OK || rv == BNS_E_OFF)
        bns_grpc_finish(c, BNS_GRPC_OK, NULL, NULL, 0);
    else
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM, NULL, 0);
    bns_buf_free(out);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void close_stream(struct etcd_session *x)
{
    struct etcd_watch_stream *stream = x->stream;

    x->stream = NULL;
    etcd_watch_close(stream);
}

/* x may be gone afterwards: with its call. */
static void finish(struct etcd_session *x)
{
    struct etcd_server *s = x->s;
    struct bns_grpc_call *c = x->call;
    struct bns_buf out;
    int rv;

    BNS_ASSERT(x->claim.now == ETCD_CLAIM_DONE);
    close_stream(x);
    bns_list_del(&x->park);
    if (x->tasking)
        etcd_task_drop(&x->task);
    x->tasking = false;
    if (x->posted || x->probing)
        return; /* comes back here */
    bns_list_del(&x->node);
    s->lock.count--;
    bns_buf_free(&x->older);
    bns_grpc_set_ctx(c, NULL);
    if (x->claim.code != 0) {
        bns_counter_add(s->m_failed, 1);
        bns_grpc_finish(c, x->claim.code, x->claim.text, NULL, 0);
        return;
    }
    x->result.rev = x->claim.rev;
    x->result.revision = x->claim.header;
    bns_buf_init(&out, s->env->alloc, SIZE_MAX / 2);
    rv = x->answer(s, &x->result, &out);
    etcd_session_reply(c, &out, rv);
}

static void fail(struct etcd_session *x, int status, const char *text)
{
    (void)etcd_claim_failed(&x->claim, status_of(x->s, status), text); /* act() looks at it */
    if (x->s->lock.over)
        x->claim.now = ETCD_CLAIM_DONE;
    act(x);
}

/* ---- proposals ------------------------------------------------------------------------------ */

static void task_failed(struct etcd_task *t, int status, const char *text)
{
    struct etcd_session *x = BNS_CONTAINER(t, struct etcd_session, task);
    struct etcd_lock_service *l = &x->s->lock;

    x->tasking = false;
    if (x->claim.now == ETCD_CLAIM_CONFIRM && status == BNS_GRPC_UNAVAILABLE && !x->s->stopping) {
        bns_list_push(&l->retry, &x->park);
        if (l->timer.node.pos == 0)
            bns_timer_start(x->s->env, &l->timer, bns_now_ns(x->s->env) + RETRY_NS);
        return;
    }
    fail(x, status, text);
}

/* A key that was there: since when, and with this value? */
static int read_put(struct etcd_session *x, struct etcd_answer *a, int64_t *create, bool *same)
{
    struct etcd_kvview v = {0};
    struct bns_buf kv;
    bool put;
    int rv;

    *create = 0;
    *same = true;
    bns_buf_init(&kv, x->s->env->alloc, SIZE_MAX / 2);
    rv = etcd_session_txn_read(x->s->env->alloc, a, &put, &kv);
    if (rv == BNS_OK && !put) {
        rv = etcd_kvbytes_parse(bns_buf_slice(&kv), &v);
        *create = v.create;
        *same = !x->claim.election || bns_slice_eq(v.value, x->value);
    }
    bns_buf_free(&kv);
    return rv;
}

static void proposed(struct etcd_task *t, struct etcd_answer *a)
{
    struct etcd_session *x = BNS_CONTAINER(t, struct etcd_session, task);
    struct etcd_claim *c = &x->claim;
    int64_t create = 0, revision = a->revision;
    bool same = true, ok = true;
    struct bns_buf kv;
    int rv = BNS_OK;

    x->tasking = false;
    bns_buf_init(&kv, x->s->env->alloc, SIZE_MAX / 2);
    if (c->now == ETCD_CLAIM_PUT)
        rv = read_put(x, a, &create, &same);
    else if (c->now == ETCD_CLAIM_PROCLAIM)
        rv = etcd_session_txn_read(x->s->env->alloc, a, &ok, &kv);
    bns_buf_free(&kv);
    a->release(a->release_arg, BNS_OK);
    if (rv != BNS_OK) {
        fail(x, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
        return;
    }
    if (c->now == ETCD_CLAIM_GRANT)
        (void)etcd_claim_granted(c);
    else if (c->now == ETCD_CLAIM_PUT)
        (void)etcd_claim_put(c, revision, create, same);
    else if (c->now == ETCD_CLAIM_PROCLAIM)
        (void)etcd_claim_proclaimed(c, ok);
    else
        (void)etcd_claim_left(c);
    act(x);
}

static void propose(struct etcd_session *x, enum etcd_op op, uint64_t cost, struct bns_buf *request,
                    int rv)
{
    etcd_task_init(&x->task, x->s, x->call);
    x->task.answered = proposed;
    x->task.failed = task_failed;
    x->tasking = true;
    if (rv != BNS_OK)
        etcd_task_fail(&x->task, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    else if (etcd_session_gate(&x->task, cost))
        etcd_task_propose(&x->task, op, bns_buf_slice(request));
    bns_buf_free(request); /* of its own: x may be gone */
}

static int name_key(struct etcd_session *x)
{
    size_t len = x->prefix.len;
    char *key = bns_arena_alloc(bns_grpc_arena(x->call), len + 20);

    if (key == NULL)
        return BNS_E_NOMEM;
    memcpy(key, x->prefix.ptr, len);
    x->result.key = bns_slice(key, len + etcd_session_hex(x->result.lease, key + len));
    return BNS_OK;
}

static void propose_grant(struct etcd_session *x)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, x->s->env->alloc, 64);
    rv = etcd_lease_grant_request(x->s, ETCD_SESSION_TTL, &x->result.lease, &b);
    propose(x, ETCD_OP_LEASE_GRANT, ETCD_LEASE_COST, &b, rv);
}

static void propose_txn(struct etcd_session *x)
{
    struct etcd_session_txn t = {.value = x->value, .lease = x->result.lease};
    enum etcd_claim_do now = x->claim.now;
    int rv = now == ETCD_CLAIM_PUT ? name_key(x) : BNS_OK;
    struct bns_buf b;
    uint64_t cost;

    t.key = x->result.key;
    t.rev = now == ETCD_CLAIM_PUT ? 0 : x->claim.rev;
    t.or_read = now == ETCD_CLAIM_PUT;
    if (now == ETCD_CLAIM_LEAVE)
        t.value = bns_slice(NULL, 0);
    else if (t.value.ptr == NULL)
        t.value = BNS_LIT("");
    cost = now == ETCD_CLAIM_LEAVE ? 0 : t.key.len + t.value.len + 256;
    bns_buf_init(&b, x->s->env->alloc, SIZE_MAX / 2);
    if (rv == BNS_OK)
        rv = etcd_session_txn(&t, &b);
    propose(x, ETCD_OP_TXN, cost, &b, rv);
}

/* ---- watching ------------------------------------------------------------------------------- */

static void on_step(struct bns_task *t)
{
    struct etcd_session *x = BNS_CONTAINER(t, struct etcd_session, step);
    int status = x->watch_status;

    x->posted = false;
    x->watch_status = 0;
    if (x->claim.now == ETCD_CLAIM_WAIT && (x->woken || status != 0)) {
        close_stream(x);
        x->woken = false;
        if (status != 0) {
            fail(x, status, x->watch_text);
            return;
        }
        (void)etcd_claim_woken(&x->claim);
        act(x);
    } else if (x->claim.now == ETCD_CLAIM_DONE) {
        finish(x);
    }
}

static void post(struct etcd_session *x)
{
    if (x->posted)
        return;
    x->posted = true;
    bns_post(x->s->env, &x->step);
}

/* Is it news: a deletion, or the end of a watch? Others: that the watch was created. */
static int take(struct etcd_session *x, const struct bns_slice *v, size_t n)
{
    struct bns_slice msg;
    struct bns_pb_field f = {0};
    struct bns_buf all;
    int rv;

    bns_buf_init(&all, x->s->env->alloc, SIZE_MAX / 2);
    rv = etcd_session_flat(v, n, &all, &msg);
    while (rv == BNS_OK && msg.len > 0) {
        rv = bns_pb_next(&msg, &f);
        if (rv == BNS_OK && (f.id == 4 || f.id == 11))
            x->woken = true;
    }
    bns_buf_free(&all);
    if (x->woken)
        post(x);
    return rv;
}

static int out_send(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *release,
                    void *release_arg)
{
    int rv = take(arg, v, n);

    if (rv != BNS_OK)
        return BNS_E_NOMEM; /* nothing else can be wrong with what we made ourselves */
    if (release != NULL)
        release(release_arg, BNS_OK);
    return BNS_OK;
}

static int out_send_copy(void *arg, struct bns_slice msg)
{
    return out_send(arg, &msg, 1, NULL, NULL);
}

static size_t out_queued(void *arg)
{
    (void)arg;
    return 0; /* we are never slow */
}

static void out_fail(void *arg, int status, const char *text)
{
    struct etcd_session *x = arg;

    close_stream(x);
    x->watch_status = status;
    x->watch_text = text;
    post(x);
}

static const struct etcd_watch_out out = {
    .send = out_send, .send_copy = out_send_copy, .queued = out_queued, .fail = out_fail};

static void watch_deletion(struct etcd_session *x, struct bns_slice key, int64_t from)
{
    Etcdserverpb__WatchCreateRequest c = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest__FilterType filters[1] = {
        ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT};

    c.has_key = c.has_start_revision = true;
    c.key = (ProtobufCBinaryData){key.len, (uint8_t *)(uintptr_t)key.ptr};
    c.start_revision = from;
    c.n_filters = 1;
    c.filters = filters;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = &c;
    if (x->stream != NULL) /* else the one before has failed it */
        etcd_watch_request(x->stream, &r);
}

static void wait_for(struct etcd_session *x, const struct etcd_session_view *v)
{
    int rv;

    x->woken = false;
    x->watch_status = 0;
    bns_buf_clear(&x->older);
    rv = bns_buf_add(&x->older, v->older.ptr, v->older.len);
    if (rv == BNS_OK)
        rv = etcd_watch_open(x->s->kv, &out, x, &x->stream);
    if (rv != BNS_OK) {
        fail(x, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
        return;
    }
    watch_deletion(x, bns_buf_slice(&x->older), v->revision + 1);
    watch_deletion(x, x->result.key, v->revision + 1);
}

/* ---- looking -------------------------------------------------------------------------------- */

static void looked(void *arg, struct etcd_answer *a)
{
    struct etcd_session *x = arg;
    struct etcd_claim *c = &x->claim;
    struct etcd_session_view v;
    int status = a->status;
    const char *text = a->text;

    x->probing = false;
    if (status == 0)
        a->release(a->release_arg, BNS_OK);
    if (c->now == ETCD_CLAIM_DONE) {
        finish(x);
        return;
    }
    if (c->now != ETCD_CLAIM_LOOK && c->now != ETCD_CLAIM_CONFIRM)
        return; /* cancelled meanwhile */
    if (status != 0) {
        fail(x, status, text);
        return;
    }
    etcd_session_look(x->s->kv, x->prefix, x->result.key, c->rev, &v);
    if (c->now == ETCD_CLAIM_CONFIRM)
        (void)etcd_claim_confirmed(c, v.revision, v.ours);
    else if (etcd_claim_looked(c, v.ours, v.older.ptr != NULL) == ETCD_CLAIM_WAIT) {
        wait_for(x, &v);
        return;
    }
    act(x);
}

/* Through the queue of reads: the answer says that the index is whole just then. */
static void look(struct etcd_session *x)
{
    x->probe = (Etcdserverpb__RangeRequest)ETCDSERVERPB__RANGE_REQUEST__INIT;
    x->probe.has_key = x->probe.has_count_only = true;
    x->probe.key =
        (ProtobufCBinaryData){x->result.key.len, (uint8_t *)(uintptr_t)x->result.key.ptr};
    x->probe.count_only = true;
    x->probing = true;
    etcd_kv_range(x->s->kv, &x->probe, looked, x);
}

static void confirmed(struct etcd_task *t)
{
    struct etcd_session *x = BNS_CONTAINER(t, struct etcd_session, task);

    etcd_task_drop(t);
    x->tasking = false;
    look(x);
}

static void confirm(struct etcd_session *x)
{
    etcd_task_init(&x->task, x->s, x->call);
    x->task.failed = task_failed;
    x->tasking = true;
    etcd_task_linearizable(&x->task, confirmed);
}

/* ---- one step after the other ---------------------------------------------------------------- */

/* Does what the machine wants. x may be gone afterwards. */
static void act(struct etcd_session *x)
{
    switch (x->claim.now) {
    case ETCD_CLAIM_GRANT:
        propose_grant(x);
        break;
    case ETCD_CLAIM_PUT:
    case ETCD_CLAIM_PROCLAIM:
    case ETCD_CLAIM_LEAVE:
        propose_txn(x);
        break;
    case ETCD_CLAIM_LOOK:
        look(x);
        break;
    case ETCD_CLAIM_CONFIRM:
        confirm(x);
        break;
    case ETCD_CLAIM_WAIT: /* looked() has begun it */
        break;
    case ETCD_CLAIM_DONE:
        finish(x);
        break;
    }
}

static void cancel(struct etcd_session *x, int code, const char *text)
{
    enum etcd_claim_do was = x->claim.now;

    if (etcd_claim_cancel(&x->claim, code, text) == was)
        return;
    close_stream(x);
    bns_list_del(&x->park);
    if (x->tasking)
        etcd_task_drop(&x->task);
    x->tasking = false;
    act(x);
}

void etcd_session_start(struct bns_grpc_call *c, const struct etcd_session_request *r,
                        int (*answer)(struct etcd_server *s, const struct etcd_session_result *r,
                                      struct bns_buf *out))
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct etcd_session *x = bns_arena_alloc(bns_grpc_arena(c), sizeof *x);
    char *prefix = bns_arena_alloc(bns_grpc_arena(c), r->name.len + 1);
    void *value =
        r->value.len == 0 ? NULL : bns_arena_dup(bns_grpc_arena(c), r->value.ptr, r->value.len);
    bool nomem = x == NULL || prefix == NULL || (value == NULL && r->value.len > 0);

    if (nomem || s->stopping || s->lock.count >= ETCD_SESSIONS_MAX) {
        bns_grpc_finish(c, s->stopping ? BNS_GRPC_UNAVAILABLE : BNS_GRPC_RESOURCE_EXHAUSTED,
                        s->stopping ? TEXT_STOPPED
                        : nomem     ? TEXT_NOMEM
                                    : TEXT_BUSY,
                        NULL, 0);
        return;
    }
    if (r->name.len > 0)
        memcpy(prefix, r->name.ptr, r->name.len);
    prefix[r->name.len] = '/';
    if (!etcd_auth_prefix(s, c, bns_slice(prefix, r->name.len + 1)))
        return;
    *x = (struct etcd_session){.s = s, .call = c, .answer = answer, .step = {.fn = on_step}};
    x->prefix = bns_slice(prefix, r->name.len + 1);
    x->value = bns_slice(value, r->value.len);
    x->result.lease = r->lease;
    bns_list_init(&x->park);
    bns_buf_init(&x->older, s->env->alloc, SIZE_MAX / 2);
    bns_list_push(&s->lock.sessions, &x->node);
    s->lock.count++;
    bns_grpc_set_ctx(c, x);
    (void)etcd_claim_start(&x->claim, r->election, r->lease != 0, s->env->mutant);
    act(x);
}

void etcd_session_on_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    struct etcd_session *x = bns_grpc_ctx(c);

    (void)why; /* what is sent to a client that has gone is dropped */
    if (x != NULL)
        cancel(x, BNS_GRPC_CANCELLED, "context canceled");
}

/* ---- all sessions --------------------------------------------------------------------------- */

static void on_retry(void *arg)
{
    struct etcd_server *s = arg;
    struct bns_list again, *n;

    bns_list_init(&again);
    bns_list_splice(&again, &s->lock.retry);
    while ((n = bns_list_pop(&again)) != NULL)
        act(BNS_CONTAINER(n, struct etcd_session, park)); /* CONFIRM, else it were not here */
}

void etcd_sessions_init(struct etcd_server *s)
{
    bns_list_init(&s->lock.sessions);
    bns_list_init(&s->lock.retry);
    bns_list_init(&s->lock.observers);
    bns_timer_init(&s->lock.timer, on_retry, s);
}

void etcd_sessions_stop(struct etcd_server *s)
{
    struct bns_list all, *n;

    bns_timer_stop(s->env, &s->lock.timer);
    etcd_observers_end(s);
    bns_list_init(&all);
    bns_list_splice(&all, &s->lock.sessions);
    while ((n = bns_list_pop(&all)) != NULL) {
        struct etcd_session *x = BNS_CONTAINER(n, struct etcd_session, node);

        bns_list_push(&s->lock.sessions, &x->node);
        cancel(x, BNS_GRPC_UNAVAILABLE, TEXT_STOPPED);
    }
}

/* Those with a step under way end when it does: etcd_tasks_abort() is next. */
void etcd_sessions_abort(struct etcd_server *s)
{
    s->lock.over = true;
    bns_timer_stop(s->env, &s->lock.timer);
}
