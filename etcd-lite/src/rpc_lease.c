/* rpc_lease.c - the service etcdserverpb.Lease.
 *
 * Grant and Revoke are proposals. What the log holds is decided before: an id is chosen when the
 * client gives none, and the TTL is raised to the least allowed, so that members with other
 * election timeouts apply the same. KeepAlive and TimeToLive ask the leader (lease_ask.c). Leases
 * is a linearizable read of this member's own table.
 *
 * A KeepAlive stream takes up to STREAM_MAX renewals at a time and answers each as it is known; the
 * header is filled before the renewal, so that its revision is not later than it. The stream ends
 * when the client has closed its side and all is answered, or with the first error.
 */
#include "codec/pb.h"
#include "server.h"

#define STREAM_MAX 64u /* renewals under way; beyond: the client's flow control */
#define LIST_MAX ((size_t)INT32_MAX)

#define TEXT_STOPPED "etcdserver: server stopped"
#define TEXT_NO_LEADER "etcdserver: no leader"
#define TEXT_NOMEM "etcdserver: out of memory"

static void status_of(int code, int *status, const char **text)
{
    *status = BNS_GRPC_UNAVAILABLE;
    if (code == BNS_E_NOTLEADER) {
        *text = TEXT_NO_LEADER;
    } else if (code == BNS_E_SHUTDOWN) {
        *text = TEXT_STOPPED;
    } else if (code == BNS_E_NOMEM || code == BNS_E_TOOBIG) {
        *status = BNS_GRPC_RESOURCE_EXHAUSTED;
        *text = TEXT_NOMEM;
    } else if (code == BNS_E_BUSY) {
        *status = BNS_GRPC_RESOURCE_EXHAUSTED;
        *text = "etcdserver: too many requests";
    } else {
        *text = "etcdserver: request timed out";
    }
}

/* ---- grant and revoke ----------------------------------------------------------------------- */

static int64_t choose_id(struct etcd_server *s)
{
    int64_t id;

    do {
        id = (int64_t)(etcd_request_id(s) & INT64_MAX);
    } while (id == 0 || etcd_kv_lease_exists(s->kv, id));
    return id;
}

int etcd_lease_grant_request(struct etcd_server *s, int64_t ttl, int64_t *id, struct bns_buf *out)
{
    int rv = bns_pb_put_i64(out, 1, ttl > s->lease_ttl_min ? ttl : s->lease_ttl_min);

    if (*id == 0)
        *id = choose_id(s);
    return rv == BNS_OK ? bns_pb_put_i64(out, 2, *id) : rv;
}

static void on_grant(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    const Etcdserverpb__LeaseGrantRequest *r =
        etcd_decode(c, &etcdserverpb__lease_grant_request__descriptor, msg);
    struct etcd_task *t;
    struct bns_buf b;
    int64_t id;
    int rv;

    if (r == NULL)
        return;
    id = r->id;
    if (r->ttl > ETCD_LEASE_TTL_MAX) {
        bns_grpc_finish(c, BNS_GRPC_OUT_OF_RANGE, ETCD_TEXT_LEASE_TTL, NULL, 0);
        return;
    }
    if (!etcd_alarm_gate(s, c, ETCD_LEASE_COST))
        return;
    t = etcd_task_new(s, c);
    if (t == NULL)
        return;
    bns_buf_init(&b, s->env->alloc, 64);
    rv = etcd_lease_grant_request(s, r->ttl, &id, &b);
    if (rv == BNS_OK)
        etcd_task_propose(t, ETCD_OP_LEASE_GRANT, bns_buf_slice(&b));
    else
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    bns_buf_free(&b);
}

static void on_revoke(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_task *t;

    if (etcd_decode(c, &etcdserverpb__lease_revoke_request__descriptor, msg) == NULL ||
        !etcd_alarm_gate(bns_grpc_arg(c), c, 0))
        return;
    t = etcd_task_new(bns_grpc_arg(c), c);
    if (t != NULL)
        etcd_task_propose(t, ETCD_OP_LEASE_REVOKE, msg);
}

/* ---- TimeToLive and Leases ------------------------------------------------------------------ */

struct look {
    struct etcd_task *t;
    struct etcd_ask ask;
    uint64_t auth_revision; /* with keys: as of the check of permissions */
};

/* May who asks read the keys that the leader told? Not those that are known here: this member may
 * be behind. */
static bool may_tell(const struct look *k, struct etcd_status *why)
{
    struct etcd_kv *kv = k->t->s->kv;

    if (etcd_auth_enabled(kv) && k->auth_revision != etcd_auth_revision(kv)) {
        *why = etcd_auth_old;
        return false;
    }
    return etcd_auth_told_keys(kv, &k->t->who, bns_buf_slice(&k->ask.body), why);
}

static void looked(struct etcd_ask *a, int code)
{
    struct look *k = BNS_CONTAINER(a, struct look, ask);
    struct etcd_server *s = k->t->s;
    struct etcd_status st = {0};
    struct bns_buf out;
    const char *text;
    int status, rv;

    if (code != BNS_OK && code != BNS_E_NOTFOUND) {
        status_of(code, &status, &text);
        etcd_task_fail(k->t, status, text);
        return;
    }
    if (a->keys && code == BNS_OK && !may_tell(k, &st)) {
        etcd_task_fail(k->t, st.code, st.text);
        return;
    }
    bns_buf_init(&out, s->env->alloc, a->body.len + 256);
    rv = etcd_put_header(s, &out);
    if (rv == BNS_OK && code == BNS_OK)
        rv = bns_buf_add(&out, a->body.ptr, a->body.len);
    if (rv == BNS_OK && code != BNS_OK)
        rv = bns_pb_put_i64(&out, 2, a->id);
    if (rv == BNS_OK && code != BNS_OK)
        rv = bns_pb_put_i64(&out, 3, -1);
    if (rv == BNS_OK)
        etcd_task_reply(k->t, bns_buf_slice(&out));
    else
        etcd_task_fail(k->t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    bns_buf_free(&out);
}

static void on_time_to_live(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    const Etcdserverpb__LeaseTimeToLiveRequest *r =
        etcd_decode(c, &etcdserverpb__lease_time_to_live_request__descriptor, msg);
    bool ok = r != NULL && etcd_alarm_gate(s, c, 0);
    struct etcd_task *t = ok ? etcd_task_new(s, c) : NULL;
    struct look *k;

    if (t == NULL)
        return;
    k = bns_arena_alloc(bns_grpc_arena(c), sizeof *k);
    if (k == NULL) {
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
        return;
    }
    *k = (struct look){.t = t,
                       .auth_revision = etcd_auth_revision(s->kv),
                       .ask = {.id = r->id, .look = true, .keys = r->keys, .done = looked}};
    etcd_ask(s, &k->ask);
}

static void leases_now(struct etcd_task *t)
{
    struct etcd_server *s = t->s;
    struct etcd_status st = {0};
    struct bns_buf out;
    int rv;

    etcd_auth_who(s, t->call, &t->who);
    if (!etcd_auth_leases(s->kv, &t->who, &st)) {
        etcd_task_fail(t, st.code, st.text);
        return;
    }
    bns_buf_init(&out, s->env->alloc, LIST_MAX);
    rv = etcd_put_header(s, &out);
    if (rv == BNS_OK)
        rv = etcd_kv_lease_list(s->kv, &out);
    if (rv == BNS_OK)
        etcd_task_reply(t, bns_buf_slice(&out));
    else
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    bns_buf_free(&out);
}

static void on_leases(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_task *t;

    if (etcd_decode(c, &etcdserverpb__lease_leases_request__descriptor, msg) == NULL ||
        !etcd_alarm_gate(bns_grpc_arg(c), c, 0))
        return;
    t = etcd_task_new(bns_grpc_arg(c), c);
    if (t != NULL)
        etcd_task_linearizable(t, leases_now);
}

/* ---- KeepAlive ------------------------------------------------------------------------------ */

struct stream {
    struct bns_list node; /* service.streams */
    struct etcd_server *s;
    struct bns_grpc_call *call; /* NULL: finished */
    uint32_t under_way;
    bool paused, half_closed;
    bool needs_leader; /* said so: ends when there has been none for a while */
};

struct beat {
    struct etcd_ask ask;
    struct stream *st;
    struct bns_buf answer; /* its beginning: header and id */
};

static void end_stream(struct stream *st, int status, const char *text)
{
    struct bns_grpc_call *c = st->call;

    if (c == NULL)
        return;
    st->call = NULL;
    bns_grpc_set_ctx(c, NULL);
    bns_grpc_finish(c, status, text, NULL, 0);
}

/* Frees the stream once nothing refers to it. */
static void settle(struct stream *st)
{
    if (st->half_closed && st->under_way == 0)
        end_stream(st, BNS_GRPC_OK, NULL);
    if (st->call != NULL || st->under_way > 0)
        return;
    bns_list_del(&st->node);
    bns_free(st->s->env->alloc, st);
}

static void beaten(struct etcd_ask *a, int code)
{
    struct beat *b = BNS_CONTAINER(a, struct beat, ask);
    struct stream *st = b->st;
    const char *text;
    int status, rv = BNS_OK;

    if (code == BNS_E_NOTFOUND)
        code = BNS_OK; /* TTL 0, which proto3 leaves out */
    else if (code == BNS_OK)
        rv = bns_pb_put_i64(&b->answer, 3, a->ttl);
    if (code == BNS_OK && rv == BNS_OK && st->call != NULL)
        rv = bns_grpc_send_copy(st->call, bns_buf_slice(&b->answer));
    if (rv == BNS_E_NOMEM || rv == BNS_E_TOOBIG)
        code = BNS_E_NOMEM;
    if (code != BNS_OK) {
        status_of(code, &status, &text);
        end_stream(st, status, text);
    }
    bns_buf_free(&b->answer);
    bns_free(st->s->env->alloc, b);
    st->under_way--;
    if (st->call != NULL && st->paused && st->under_way < STREAM_MAX / 2) {
        st->paused = false;
        bns_grpc_read(st->call, true);
    }
    settle(st);
}

static struct stream *stream_new(struct bns_grpc_call *c)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct stream *st = bns_alloc_zero(s->env->alloc, sizeof *st);

    if (st == NULL)
        return NULL;
    st->s = s;
    st->call = c;
    bns_list_push(&s->lease.streams, &st->node);
    bns_grpc_set_ctx(c, st);
    return st;
}

static void on_beat_start(struct bns_grpc_call *c)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct stream *st = stream_new(c);
    struct bns_slice v;

    if (st == NULL) {
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM, NULL, 0);
        return;
    }
    st->needs_leader = bns_grpc_metadata(c, "hasleader", &v) && bns_slice_eq(v, BNS_LIT("true"));
    if (s->stopping || (st->needs_leader && s->leader == 0)) {
        end_stream(st, BNS_GRPC_UNAVAILABLE, s->stopping ? TEXT_STOPPED : TEXT_NO_LEADER);
        settle(st);
    }
}

/* A token may expire, a permission go, while the stream is open. */
static bool may_renew(struct etcd_server *s, struct bns_grpc_call *c, int64_t id,
                      struct etcd_status *why)
{
    struct etcd_cn cn;
    struct etcd_who who;

    etcd_auth_peek(s, c, &cn, &who);
    return etcd_auth_someone(s->kv, &who, why) && etcd_auth_lease(s->kv, &who, id, true, why);
}

static void on_beat(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct stream *st = bns_grpc_ctx(c);
    struct etcd_status why = {0};
    struct beat *b;
    int64_t id = 0;
    int rv = etcd_lease_field(msg, 1, &id);

    if (rv != BNS_OK) {
        end_stream(st, BNS_GRPC_INTERNAL, "grpc: error unmarshalling request: damaged message");
        settle(st);
        return;
    }
    if (!may_renew(s, c, id, &why)) {
        end_stream(st, why.code, why.text);
        settle(st);
        return;
    }
    b = bns_alloc_zero(s->env->alloc, sizeof *b);
    if (b != NULL) {
        bns_buf_init(&b->answer, s->env->alloc, 256);
        rv = etcd_put_header(s, &b->answer);
        if (rv == BNS_OK)
            rv = bns_pb_put_i64(&b->answer, 2, id);
    }
    if (b == NULL || rv != BNS_OK) {
        if (b != NULL)
            bns_buf_free(&b->answer);
        bns_free(s->env->alloc, b);
        end_stream(st, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
        settle(st);
        return;
    }
    b->st = st;
    b->ask = (struct etcd_ask){.id = id, .done = beaten};
    if (++st->under_way == STREAM_MAX) {
        st->paused = true;
        bns_grpc_read(c, false);
    }
    etcd_ask(s, &b->ask);
}

static void on_beat_half_close(struct bns_grpc_call *c)
{
    struct stream *st = bns_grpc_ctx(c);

    if (st == NULL)
        return;
    st->half_closed = true;
    settle(st);
}

static void on_beat_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    struct stream *st = bns_grpc_ctx(c);

    if (st == NULL || st->call == NULL || why == BNS_GRPC_END_DONE)
        return;
    end_stream(st, BNS_GRPC_CANCELLED, "context canceled");
    settle(st);
}

static void end_those(struct etcd_server *s, bool all, const char *text)
{
    BNS_LIST_EACH(n, &s->lease.streams)
    {
        struct stream *st = BNS_CONTAINER(n, struct stream, node);

        if (!all && !st->needs_leader)
            continue;
        end_stream(st, BNS_GRPC_UNAVAILABLE, text);
        settle(st);
    }
}

void etcd_lease_streams_end(struct etcd_server *s)
{
    end_those(s, true, TEXT_STOPPED);
}

void etcd_lease_no_leader(struct etcd_server *s)
{
    end_those(s, false, TEXT_NO_LEADER);
}

int etcd_lease_service(struct etcd_server *s)
{
    const struct bns_grpc_method methods[] = {
        {.path = "/etcdserverpb.Lease/LeaseGrant", .handler = {.on_message = on_grant}},
        {.path = "/etcdserverpb.Lease/LeaseRevoke", .handler = {.on_message = on_revoke}},
        {.path = "/etcdserverpb.Lease/LeaseTimeToLive", .handler = {.on_message = on_time_to_live}},
        {.path = "/etcdserverpb.Lease/LeaseLeases", .handler = {.on_message = on_leases}},
        {.path = "/etcdserverpb.Lease/LeaseKeepAlive",
         .kind = BNS_GRPC_BIDI,
         .handler = {.on_start = on_beat_start,
                     .on_message = on_beat,
                     .on_half_close = on_beat_half_close,
                     .on_end = on_beat_end}},
    };
    size_t count = sizeof methods / sizeof methods[0];

    _Static_assert(sizeof methods == sizeof s->lease.methods, "one place a method");
    s->lease_ttl_min = etcd_lease_ttl_min(s->opt->election_ms, s->opt->heartbeat_ms);
    memcpy(s->lease.methods, methods, sizeof methods);
    for (size_t i = 0; i < count; i++)
        s->lease.methods[i].arg = s;
    return bns_grpc_server_methods(s->grpc, s->lease.methods, count);
}
