/* rpc_election_observe.c - Observe: who leads, and every value it proclaims, until the client goes.
 *
 * LOOK    the key created first is read; sent when there is one
 * FOLLOW  a watch on that key: each put is sent; its deletion means: LOOK
 * AWAIT   nobody leads: a watch on the prefix, for the first put, which is sent; then FOLLOW
 *
 * The first look is linearizable. Later ones look at what is applied here, which holds the deletion
 * that the watch told of; so what one call is told never goes back. A leader that came and went
 * between two looks is not told of, as in etcd. A client that does not read is sent nothing more
 * until it does: the watch waits as any watch does, and so does the next look.
 */
#include "codec/pb.h"
#include "kvbytes.h"
#include "rpc_election.h"
#include "watch.h"

#define QUEUED_MAX (1024u * 1024) /* bytes that the client has not taken */
#define TEXT_NOMEM "etcdserver: out of memory"

struct observer {
    struct bns_list node; /* service.observers */
    struct etcd_server *s;
    struct bns_grpc_call *call; /* NULL: finished */
    struct etcd_task task;      /* the first look */
    bool tasking;
    struct etcd_leader_ask ask;
    bool asking;
    struct bns_buf key; /* whom it follows; empty: nobody */
    struct etcd_watch_stream *stream;
    bool turn;    /* another look is due, or (follow_from) another watch */
    bool stalled; /* ... when the client has read */
    int64_t follow_from;
    bool needs_leader;
    int fail_status;
    const char *fail_text;
    struct bns_task step;
    bool posted;
    bool held; /* a function is at work on it */
    struct bns_slice prefix;
};

static void look(struct observer *o);

static void close_stream(struct observer *o)
{
    struct etcd_watch_stream *stream = o->stream;

    o->stream = NULL;
    etcd_watch_close(stream);
}

/* o is to be touched no more, except by what it waits for. */
static void settle(struct observer *o)
{
    if (o->call != NULL || o->posted || o->asking || o->held)
        return;
    bns_list_del(&o->node);
    o->s->lock.observing--;
    bns_buf_free(&o->key);
    bns_free(o->s->env->alloc, o);
}

static void end(struct observer *o, int status, const char *text)
{
    struct bns_grpc_call *c = o->call;

    if (c == NULL)
        return;
    o->call = NULL;
    close_stream(o);
    if (o->tasking)
        etcd_task_drop(&o->task);
    o->tasking = false;
    bns_grpc_set_ctx(c, NULL);
    bns_grpc_finish(c, status, text, NULL, 0);
}

static void post(struct observer *o)
{
    if (o->posted)
        return;
    o->posted = true;
    bns_post(o->s->env, &o->step);
}

/* A leader's KeyValue goes to the client. */
static int tell(struct observer *o, int64_t revision, struct bns_slice kv)
{
    struct bns_buf out;
    int rv;

    bns_buf_init(&out, o->s->env->alloc, SIZE_MAX / 2);
    rv = etcd_leader_response(o->s, revision, kv, &out);
    if (rv == BNS_OK)
        rv = bns_grpc_send_copy(o->call, bns_buf_slice(&out));
    bns_buf_free(&out);
    return rv == BNS_E_OFF ? BNS_OK : rv; /* the client has gone: on_end() comes */
}

/* ---- what the watch tells ------------------------------------------------------------------- */

/* One event: type 1 (1 = deleted), kv 2. */
static int take_event(struct observer *o, struct bns_slice event)
{
    struct bns_pb_field f = {0};
    struct bns_slice kv = {0};
    struct etcd_kvview v;
    bool deleted = false;
    int rv = BNS_OK;

    while (rv == BNS_OK && event.len > 0) {
        rv = bns_pb_next(&event, &f);
        if (rv == BNS_OK && f.id == 1)
            deleted = f.u64 == 1;
        else if (rv == BNS_OK && f.id == 2)
            kv = f.bytes;
    }
    if (rv == BNS_OK)
        rv = etcd_kvbytes_parse(kv, &v);
    if (rv != BNS_OK || o->turn)
        return rv;
    if (deleted) {
        o->turn = true;
        o->follow_from = 0;
        return BNS_OK;
    }
    if (o->key.len > 0)
        return tell(o, etcd_kv_revision(o->s->kv), kv);
    rv = bns_buf_add(&o->key, v.key.ptr, v.key.len); /* the first one to come */
    if (rv == BNS_OK)
        rv = tell(o, v.mod, kv);
    if (rv != BNS_OK)
        bns_buf_clear(&o->key);
    o->turn = rv == BNS_OK;
    o->follow_from = v.mod + 1;
    return rv;
}

static int out_send(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *release,
                    void *release_arg)
{
    struct observer *o = arg;
    struct bns_pb_field f = {0};
    struct bns_slice msg;
    struct bns_buf all;
    int rv;

    if (o->call == NULL)
        return BNS_E_OFF;
    bns_buf_init(&all, o->s->env->alloc, SIZE_MAX / 2);
    rv = etcd_session_flat(v, n, &all, &msg);
    while (rv == BNS_OK && msg.len > 0) {
        rv = bns_pb_next(&msg, &f);
        if (rv == BNS_OK && f.id == 11)
            rv = take_event(o, f.bytes);
        if (rv == BNS_OK && f.id == 4 && !o->turn) { /* what it would tell has been compacted */
            o->turn = true;
            o->follow_from = 0;
        }
    }
    bns_buf_free(&all);
    if (rv != BNS_OK) { /* part of it may have been sent: it cannot be sent again */
        o->fail_status = BNS_GRPC_RESOURCE_EXHAUSTED;
        o->fail_text = TEXT_NOMEM;
    }
    if (o->turn || rv != BNS_OK)
        post(o);
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
    struct observer *o = arg;

    return o->call == NULL ? 0 : bns_grpc_queued(o->call);
}

static void out_fail(void *arg, int status, const char *text)
{
    struct observer *o = arg;

    close_stream(o);
    o->fail_status = status;
    o->fail_text = text;
    post(o);
}

static const struct etcd_watch_out out = {
    .send = out_send, .send_copy = out_send_copy, .queued = out_queued, .fail = out_fail};

/* The key that is followed, or, without one, the prefix, from this revision on. */
static void watch(struct observer *o, int64_t from)
{
    Etcdserverpb__WatchCreateRequest c = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    struct bns_buf end_key;
    int rv = BNS_OK;

    bns_buf_init(&end_key, o->s->env->alloc, SIZE_MAX / 2);
    c.has_key = c.has_start_revision = true;
    c.key = (ProtobufCBinaryData){o->key.len, o->key.ptr};
    c.start_revision = from;
    if (o->key.len == 0) {
        rv = bns_buf_add(&end_key, o->prefix.ptr, o->prefix.len);
        if (rv == BNS_OK)
            end_key.ptr[end_key.len - 1]++; /* '/' + 1: the end of what begins with it */
        c.key = (ProtobufCBinaryData){o->prefix.len, (uint8_t *)(uintptr_t)o->prefix.ptr};
        c.has_range_end = true;
        c.range_end = (ProtobufCBinaryData){end_key.len, end_key.ptr};
    }
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = &c;
    if (rv == BNS_OK)
        rv = etcd_watch_open(o->s->kv, &out, o, &o->stream);
    if (rv == BNS_OK)
        etcd_watch_request(o->stream, &r);
    bns_buf_free(&end_key);
    if (rv != BNS_OK)
        end(o, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
}

/* ---- turns ---------------------------------------------------------------------------------- */

static void on_step(struct bns_task *t)
{
    struct observer *o = BNS_CONTAINER(t, struct observer, step);

    o->posted = false;
    o->held = true; /* what is done here may call back */
    if (o->call != NULL && o->fail_status != 0)
        end(o, etcd_session_status(o->fail_status), o->fail_text);
    if (o->call != NULL && o->turn) {
        o->turn = false;
        close_stream(o);
        if (o->follow_from != 0)
            watch(o, o->follow_from);
        else
            look(o);
    }
    o->held = false;
    settle(o);
}

static void known(struct etcd_leader_ask *a, int status, const char *text, int64_t revision,
                  struct bns_slice kv)
{
    struct observer *o = BNS_CONTAINER(a, struct observer, ask);
    struct etcd_kvview v;
    int rv = BNS_OK;

    o->asking = false;
    if (o->call == NULL) {
        settle(o);
        return;
    }
    bns_buf_clear(&o->key);
    if (status == 0 && kv.len > 0) {
        rv = etcd_kvbytes_parse(kv, &v);
        if (rv == BNS_OK)
            rv = bns_buf_add(&o->key, v.key.ptr, v.key.len);
        if (rv == BNS_OK)
            rv = tell(o, revision, kv);
    }
    if (rv != BNS_OK)
        end(o, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    else if (status != 0)
        end(o, etcd_session_status(status), text);
    else
        watch(o, revision + 1);
    settle(o);
}

static void look(struct observer *o)
{
    if (bns_grpc_queued(o->call) >= QUEUED_MAX) {
        o->stalled = true;
        return;
    }
    o->asking = true;
    etcd_leader_ask(&o->ask);
}

static void read_failed(struct etcd_task *t, int status, const char *text)
{
    struct observer *o = BNS_CONTAINER(t, struct observer, task);

    o->tasking = false;
    end(o, o->s->stopping ? BNS_GRPC_UNAVAILABLE : etcd_session_status(status), text);
    settle(o);
}

static void read_done(struct etcd_task *t)
{
    struct observer *o = BNS_CONTAINER(t, struct observer, task);
    struct etcd_status why = {0};

    etcd_task_drop(t);
    o->tasking = false;
    if (etcd_auth_may_prefix(o->s, o->call, o->prefix, &why)) {
        look(o);
        return;
    }
    end(o, why.code, why.text); /* taken away before what was read */
    settle(o);
}

/* ---- the call ------------------------------------------------------------------------------- */

static struct observer *observer_new(struct bns_grpc_call *c, ProtobufCBinaryData name)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct observer *o = bns_alloc_zero(s->env->alloc, sizeof *o + name.len + 1);
    uint8_t *prefix;

    if (o == NULL)
        return NULL;
    prefix = (uint8_t *)(o + 1);
    if (name.len > 0)
        memcpy(prefix, name.data, name.len);
    prefix[name.len] = '/';
    o->s = s;
    o->call = c;
    o->prefix = bns_slice(prefix, name.len + 1);
    o->ask = (struct etcd_leader_ask){.s = s, .prefix = o->prefix, .done = known};
    o->step.fn = on_step;
    bns_buf_init(&o->key, s->env->alloc, SIZE_MAX / 2);
    bns_list_push(&s->lock.observers, &o->node);
    s->lock.observing++;
    return o;
}

static void on_observe(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__LeaderRequest *r =
        etcd_decode(c, &etcdserverpb__leader_request__descriptor, msg);
    struct etcd_server *s = bns_grpc_arg(c);
    struct bns_slice v;
    struct bns_slice prefix;
    struct observer *o;

    if (r == NULL)
        return;
    prefix = etcd_election_prefix(c, r->name);
    if (prefix.ptr == NULL || !etcd_auth_prefix(s, c, prefix))
        return;
    if (s->lock.observing >= ETCD_SESSIONS_MAX) {
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests", NULL, 0);
        return;
    }
    o = s->stopping ? NULL : observer_new(c, r->name);
    if (o == NULL) {
        bns_grpc_finish(c, s->stopping ? BNS_GRPC_UNAVAILABLE : BNS_GRPC_RESOURCE_EXHAUSTED,
                        s->stopping ? "etcdserver: server stopped" : TEXT_NOMEM, NULL, 0);
        return;
    }
    bns_grpc_set_ctx(c, o);
    o->needs_leader = bns_grpc_metadata(c, "hasleader", &v) && bns_slice_eq(v, BNS_LIT("true"));
    if (o->needs_leader && s->leader == 0) {
        end(o, BNS_GRPC_UNAVAILABLE, "etcdserver: no leader");
        settle(o);
        return;
    }
    etcd_task_init(&o->task, s, c);
    o->task.failed = read_failed;
    o->tasking = true;
    etcd_task_linearizable(&o->task, read_done);
}

static void on_writable(struct bns_grpc_call *c)
{
    struct observer *o = bns_grpc_ctx(c);

    if (o == NULL || o->call == NULL)
        return;
    if (o->stream != NULL)
        etcd_watch_writable(o->stream);
    if (!o->stalled)
        return;
    o->stalled = false;
    o->turn = true; /* in a turn of its own */
    o->follow_from = 0;
    post(o);
}

static void on_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    struct observer *o = bns_grpc_ctx(c);

    (void)why; /* of one that we ended, nothing is left to do */
    if (o == NULL)
        return;
    end(o, BNS_GRPC_CANCELLED, "context canceled");
    settle(o);
}

const struct bns_grpc_handler etcd_observe_handler = {
    .on_message = on_observe, .on_writable = on_writable, .on_end = on_end};

/* ---- all observers -------------------------------------------------------------------------- */

static void end_those(struct etcd_server *s, bool all, const char *text)
{
    BNS_LIST_EACH(n, &s->lock.observers)
    {
        struct observer *o = BNS_CONTAINER(n, struct observer, node);

        if (!all && !o->needs_leader)
            continue;
        end(o, BNS_GRPC_UNAVAILABLE, text);
        settle(o);
    }
}

void etcd_election_no_leader(struct etcd_server *s)
{
    end_those(s, false, "etcdserver: no leader");
}

void etcd_observers_end(struct etcd_server *s)
{
    end_those(s, true, "etcdserver: server stopped");
}
