/* rpc_election.c - the service v3electionpb.Election but for Observe: session.c runs a Campaign,
 * the others are one transaction or one read.
 *
 * Proclaim and Resign take a LeaderKey as Campaign answered it: they change the key only while its
 * create revision is `rev`, so a leader of the past changes nothing. A LeaderKey without a lease
 * leaves the key on the lease that it is on (etcd moves it to a new one of 60 s).
 */
#include "rpc_election.h"

#include "codec/pb.h"

#define TEXT_NOMEM "etcdserver: out of memory"
#define TEXT_NO_LEADER "election: no leader"
#define TEXT_MISSING "\"leader\" field must be provided"

static struct bns_slice slice_of(ProtobufCBinaryData d)
{
    return bns_slice(d.data, d.len);
}

struct bns_slice etcd_election_prefix(struct bns_grpc_call *c, ProtobufCBinaryData name)
{
    char *p = bns_arena_alloc(bns_grpc_arena(c), name.len + 1);

    if (p == NULL) {
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM, NULL, 0);
        return bns_slice(NULL, 0);
    }
    if (name.len > 0)
        memcpy(p, name.data, name.len);
    p[name.len] = '/';
    return bns_slice(p, name.len + 1);
}

/* ---- Campaign ------------------------------------------------------------------------------- */

static int answer_campaign(struct etcd_server *s, const struct etcd_session_result *r,
                           struct bns_buf *out)
{
    char hex[20];
    size_t name_len = r->key.len - etcd_session_hex(r->lease, hex) - 1;
    struct bns_buf leader;
    int rv = etcd_session_header(s, r->revision, out);

    bns_buf_init(&leader, s->env->alloc, SIZE_MAX / 2);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&leader, 1, bns_slice(r->key.ptr, name_len));
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&leader, 2, r->key);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&leader, 3, r->rev);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&leader, 4, r->lease);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, 2, bns_buf_slice(&leader));
    bns_buf_free(&leader);
    return rv;
}

static void on_campaign(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__CampaignRequest *r =
        etcd_decode(c, &etcdserverpb__campaign_request__descriptor, msg);
    struct etcd_session_request q;

    if (r == NULL)
        return;
    q = (struct etcd_session_request){.election = true,
                                      .lease = r->lease,
                                      .name = slice_of(r->name),
                                      .value = slice_of(r->value)};
    etcd_session_start(c, &q, answer_campaign);
}

/* ---- Proclaim and Resign -------------------------------------------------------------------- */

static void changed(struct etcd_task *t, struct etcd_answer *a, bool must)
{
    struct etcd_server *s = t->s;
    int64_t revision = a->revision;
    bool ours = true;
    struct bns_buf out;
    int rv;

    bns_buf_init(&out, s->env->alloc, SIZE_MAX / 2);
    rv = etcd_session_txn_read(s->env->alloc, a, &ours, &out);
    a->release(a->release_arg, BNS_OK);
    bns_buf_clear(&out);
    if (rv == BNS_OK && must && !ours) {
        bns_buf_free(&out);
        etcd_session_failed(t, BNS_GRPC_UNKNOWN, ETCD_TEXT_NOT_LEADER);
        return;
    }
    if (rv == BNS_OK)
        rv = etcd_session_header(s, revision, &out);
    etcd_session_reply(t->call, &out, rv);
}

static void proclaimed(struct etcd_task *t, struct etcd_answer *a)
{
    changed(t, a, true);
}

static void resigned(struct etcd_task *t, struct etcd_answer *a)
{
    changed(t, a, false);
}

/* value.ptr NULL: delete. */
static void change(struct bns_grpc_call *c, const Etcdserverpb__LeaderKey *l,
                   struct bns_slice value)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct etcd_session_txn x = {.value = value};
    uint64_t cost = value.ptr == NULL || l == NULL ? 0 : value.len + l->key.len + 256;
    struct etcd_task *t;
    struct bns_buf b;
    int rv;

    if (l == NULL || l->key.len == 0) {
        bns_grpc_finish(c, BNS_GRPC_UNKNOWN, l == NULL ? TEXT_MISSING : ETCD_TEXT_NO_KEY, NULL, 0);
        return;
    }
    x.key = slice_of(l->key);
    x.rev = l->rev;
    x.lease = l->lease;
    x.keep_lease = l->lease == 0;
    t = etcd_session_task(c);
    if (t == NULL)
        return;
    t->answered = value.ptr == NULL ? resigned : proclaimed;
    bns_buf_init(&b, s->env->alloc, SIZE_MAX / 2);
    rv = etcd_session_txn(&x, &b);
    if (rv != BNS_OK)
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    else if (etcd_session_gate(t, cost))
        etcd_task_propose(t, ETCD_OP_TXN, bns_buf_slice(&b));
    bns_buf_free(&b);
}

static void on_proclaim(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__ProclaimRequest *r =
        etcd_decode(c, &etcdserverpb__proclaim_request__descriptor, msg);

    if (r != NULL)
        change(c, r->leader, r->value.len > 0 ? slice_of(r->value) : BNS_LIT(""));
}

static void on_resign(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__ResignRequest *r =
        etcd_decode(c, &etcdserverpb__resign_request__descriptor, msg);

    if (r != NULL)
        change(c, r->leader, bns_slice(NULL, 0));
}

/* ---- Leader --------------------------------------------------------------------------------- */

static void ask_read(void *arg, struct etcd_answer *a)
{
    struct etcd_leader_ask *q = arg;
    struct bns_pb_field f = {0};
    struct bns_slice msg, kv = {0};
    struct bns_buf all;
    int rv;

    if (a->status != 0) {
        q->done(q, a->status, a->text, 0, kv);
        return;
    }
    bns_buf_init(&all, q->s->env->alloc, SIZE_MAX / 2);
    rv = etcd_session_flat(a->slices, a->slices_count, &all, &msg);
    while (rv == BNS_OK && msg.len > 0) {
        rv = bns_pb_next(&msg, &f);
        if (rv == BNS_OK && f.id == 2)
            kv = f.bytes;
    }
    if (rv == BNS_OK)
        q->done(q, 0, NULL, a->revision, kv);
    else
        q->done(q, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM, 0, kv);
    bns_buf_free(&all);
    a->release(a->release_arg, BNS_OK);
}

static void ask_looked(void *arg, struct etcd_answer *a)
{
    struct etcd_leader_ask *q = arg;
    struct etcd_session_view v;

    if (a->status != 0) {
        q->done(q, a->status, a->text, 0, bns_slice(NULL, 0));
        return;
    }
    a->release(a->release_arg, BNS_OK);
    etcd_session_look(q->s->kv, q->prefix, bns_slice(NULL, 0), 0, &v);
    if (v.first.ptr == NULL) {
        q->done(q, 0, NULL, v.revision, bns_slice(NULL, 0));
        return;
    }
    q->range.count_only = false;
    q->range.key = (ProtobufCBinaryData){v.first.len, (uint8_t *)(uintptr_t)v.first.ptr};
    etcd_kv_range(q->s->kv, &q->range, ask_read, q);
}

/* First through the queue of reads, so that the index is whole; then the one key is read. */
void etcd_leader_ask(struct etcd_leader_ask *q)
{
    q->range = (Etcdserverpb__RangeRequest)ETCDSERVERPB__RANGE_REQUEST__INIT;
    q->range.has_key = q->range.has_count_only = q->range.count_only = true;
    q->range.key = (ProtobufCBinaryData){q->prefix.len, (uint8_t *)(uintptr_t)q->prefix.ptr};
    etcd_kv_range(q->s->kv, &q->range, ask_looked, q);
}

int etcd_leader_response(struct etcd_server *s, int64_t revision, struct bns_slice kv,
                         struct bns_buf *out)
{
    int rv = etcd_session_header(s, revision, out);

    return rv == BNS_OK ? bns_pb_put_bytes_always(out, 2, kv) : rv;
}

struct leader_call {
    struct etcd_task *t;
    struct etcd_leader_ask ask;
};

static void leader_known(struct etcd_leader_ask *a, int status, const char *text, int64_t revision,
                         struct bns_slice kv)
{
    struct etcd_task *t = BNS_CONTAINER(a, struct leader_call, ask)->t;
    struct etcd_status why = {0};
    struct bns_buf out;
    int rv;

    t->storing = false;
    etcd_task_drop(t);
    if (status == 0 && kv.len == 0) {
        status = BNS_GRPC_UNKNOWN;
        text = TEXT_NO_LEADER;
    }
    if (status == 0 && !etcd_auth_may_prefix(t->s, t->call, a->prefix, &why)) {
        status = why.code; /* taken away before what was read */
        text = why.text;
    }
    if (status != 0) {
        etcd_session_failed(t, status, text);
        return;
    }
    bns_buf_init(&out, t->s->env->alloc, SIZE_MAX / 2);
    rv = etcd_leader_response(t->s, revision, kv, &out);
    etcd_session_reply(t->call, &out, rv);
}

static void leader_start(struct etcd_task *t)
{
    struct leader_call *l = (struct leader_call *)(uintptr_t)t->req;

    etcd_leader_ask(&l->ask);
}

static void leader_soon(struct etcd_task *t)
{
    etcd_task_store(t, leader_start);
}

static void on_leader(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__LeaderRequest *r =
        etcd_decode(c, &etcdserverpb__leader_request__descriptor, msg);
    struct etcd_server *s = bns_grpc_arg(c);
    struct leader_call *l = r == NULL ? NULL : bns_arena_alloc(bns_grpc_arena(c), sizeof *l);
    struct bns_slice prefix;

    if (r == NULL)
        return;
    if (l == NULL) {
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM, NULL, 0);
        return;
    }
    prefix = etcd_election_prefix(c, r->name);
    *l = (struct leader_call){.ask = {.s = s, .prefix = prefix, .done = leader_known}};
    if (prefix.ptr == NULL || !etcd_auth_prefix(s, c, prefix))
        return;
    l->t = etcd_session_task(c);
    if (l->t == NULL)
        return;
    l->t->req = l;
    etcd_task_linearizable(l->t, leader_soon);
}

int etcd_election_service(struct etcd_server *s)
{
    const struct bns_grpc_method methods[] = {
        {.path = "/v3electionpb.Election/Campaign",
         .handler = {.on_message = on_campaign, .on_end = etcd_session_on_end}},
        {.path = "/v3electionpb.Election/Proclaim", .handler = {.on_message = on_proclaim}},
        {.path = "/v3electionpb.Election/Leader", .handler = {.on_message = on_leader}},
        {.path = "/v3electionpb.Election/Resign", .handler = {.on_message = on_resign}},
        {.path = "/v3electionpb.Election/Observe",
         .kind = BNS_GRPC_SERVER_STREAM,
         .handler = etcd_observe_handler},
    };
    size_t count = sizeof methods / sizeof methods[0];

    _Static_assert(sizeof methods == sizeof s->lock.election_methods, "one place a method");
    memcpy(s->lock.election_methods, methods, sizeof methods);
    for (size_t i = 0; i < count; i++)
        s->lock.election_methods[i].arg = s;
    return bns_grpc_server_methods(s->grpc, s->lock.election_methods, count);
}
