/* rpc_maint.c - the service etcdserverpb.Maintenance, and the server's tick of one second.
 *
 * Alarm GET is a linearizable read here (etcd writes a log entry for it); raising and clearing go
 * through the log.
 */
#include <inttypes.h>

#include "codec/pb.h"
#include "server.h"

#define TICK_NS BNS_SEC
#define QUOTA_LARGE (UINT64_C(8) << 30)

/* ---- alarms --------------------------------------------------------------------------------- */

static void alarms_now(struct etcd_task *t)
{
    const Etcdserverpb__AlarmRequest *r = t->req;
    struct bns_buf out;
    int rv;

    bns_buf_init(&out, t->s->env->alloc, 64 * 1024);
    rv = etcd_put_header(t->s, &out);
    if (rv == BNS_OK)
        rv = etcd_alarm_put_all(t->s, (int)r->alarm, 2, &out);
    etcd_task_reply_buf(t, &out, rv);
}

static void on_alarm(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__AlarmRequest *r =
        etcd_decode(c, &etcdserverpb__alarm_request__descriptor, msg);
    struct etcd_task *t;

    if (r == NULL)
        return;
    if ((int)r->action < ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET ||
        (int)r->action > ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE) {
        bns_grpc_finish(c, BNS_GRPC_INVALID_ARGUMENT, "etcdserver: unknown alarm action", NULL, 0);
        return;
    }
    if ((int)r->action != ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET &&
        !etcd_auth_only_admin(bns_grpc_arg(c), c))
        return;
    t = etcd_task_new(bns_grpc_arg(c), c);
    if (t == NULL)
        return;
    t->req = r;
    if ((int)r->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET)
        etcd_task_linearizable(t, alarms_now);
    else
        etcd_task_propose(t, ETCD_OP_ALARM, msg);
}

/* ---- status --------------------------------------------------------------------------------- */

struct errors {
    struct bns_buf *out;
    int rv;
};

/* As Go prints an AlarmMember, with the blank at the end. */
static void put_error(void *arg, uint64_t member, int type, bool auto_raised)
{
    static const char *const names[] = {"", "alarm:NOSPACE ", "alarm:CORRUPT "};
    struct errors *e = arg;
    struct bns_buf text;

    (void)auto_raised;
    if (e->rv != BNS_OK || type < 0 || type > ETCD_ALARM_CORRUPT)
        return;
    bns_buf_init(&text, e->out->alloc, 128);
    if (member != 0)
        e->rv = bns_buf_fmt(&text, "memberID:%" PRIu64 " ", member);
    if (e->rv == BNS_OK)
        e->rv = bns_buf_str(&text, names[type]);
    if (e->rv == BNS_OK)
        e->rv = bns_pb_put_bytes_always(e->out, 8, bns_buf_slice(&text));
    bns_buf_free(&text);
}

static int put_errors(struct etcd_server *s, struct bns_buf *out)
{
    struct errors e = {out, BNS_OK};

    if (s->leader == 0)
        e.rv = bns_pb_put_bytes(out, 8, BNS_LIT("etcdserver: no leader"));
    etcd_kv_alarms(s->kv, put_error, &e);
    return e.rv;
}

static int put_status(struct etcd_server *s, struct bns_buf *out)
{
    struct bns_raft_status st;
    int rv = etcd_put_header(s, out);

    bns_raft_node_status(s->node, &st);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(out, 2, BNS_LIT(ETCD_API_VERSION));
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 3, etcd_kv_db_size(s->kv));
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 4, st.leader);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 5, st.commit);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 6, st.term);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 7, st.applied);
    if (rv == BNS_OK)
        rv = put_errors(s, out);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 9, etcd_kv_db_size_in_use(s->kv));
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(out, 11, BNS_LIT(ETCD_API_VERSION));
    if (rv == BNS_OK && etcd_kv_quota(s->kv) != UINT64_MAX)
        rv = bns_pb_put_u64(out, 12, etcd_kv_quota(s->kv));
    return rv;
}

static void on_status(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    struct etcd_task *t;
    struct bns_buf out;

    if (etcd_decode(c, &etcdserverpb__status_request__descriptor, msg) == NULL)
        return;
    t = etcd_task_new(s, c);
    if (t == NULL)
        return;
    bns_buf_init(&out, s->env->alloc, 16384);
    etcd_task_reply_buf(t, &out, put_status(s, &out));
}

static void hashed(void *arg, struct etcd_answer *a)
{
    struct etcd_task *t = arg;

    t->storing = false;
    etcd_task_answer(t, a);
}

static void on_hash(struct bns_grpc_call *c, struct bns_slice msg)
{
    bool ok = etcd_decode(c, &etcdserverpb__hash_request__descriptor, msg) != NULL;
    struct etcd_task *t = ok ? etcd_task_new(bns_grpc_arg(c), c) : NULL;

    if (t == NULL)
        return;
    t->storing = true;
    etcd_kv_hash_all(t->s->kv, hashed, t);
}

static void on_hash_kv(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__HashKVRequest *r =
        etcd_decode(c, &etcdserverpb__hash_kvrequest__descriptor, msg);
    struct etcd_task *t = r == NULL ? NULL : etcd_task_new(bns_grpc_arg(c), c);

    if (t == NULL)
        return;
    t->storing = true;
    etcd_kv_hash(t->s->kv, r->revision, hashed, t);
}

/* ---- defragment ----------------------------------------------------------------------------- */

struct defrag {
    struct etcd_defrag_wait wait;
    struct etcd_task *t;
};

static void defragmented(struct etcd_defrag_wait *w, struct etcd_status why)
{
    struct etcd_task *t = BNS_CONTAINER(w, struct defrag, wait)->t;
    struct bns_buf out;

    t->storing = false;
    if (why.code != 0) {
        etcd_task_fail(t, why.code, why.text);
        return;
    }
    bns_buf_init(&out, t->s->env->alloc, 256);
    etcd_task_reply_buf(t, &out, etcd_put_header(t->s, &out));
}

static void on_defragment(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    bool ok = etcd_decode(c, &etcdserverpb__defragment_request__descriptor, msg) != NULL;
    struct etcd_task *t = ok ? etcd_task_new(s, c) : NULL;
    struct defrag *d;

    if (t == NULL)
        return;
    d = bns_arena_alloc(bns_grpc_arena(c), sizeof *d);
    if (d == NULL) {
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory");
        return;
    }
    *d = (struct defrag){.wait.done = defragmented, .t = t};
    t->storing = true;
    etcd_kv_defrag(s->kv, &d->wait);
}

/* ---- the service ---------------------------------------------------------------------------- */

static void on_tick(void *arg)
{
    struct etcd_server *s = arg;

    etcd_alarm_tick(s);
    etcd_corrupt_tick(s);
    bns_timer_start(s->env, &s->maint.timer, bns_now_ns(s->env) + TICK_NS);
}

/* Compaction by itself: the leader proposes, every member takes its notes. */
static void on_compact_timer(void *arg)
{
    struct etcd_server *s = arg;
    uint64_t now = bns_now_ns(s->env);
    int64_t rev = etcd_autocompact_step(&s->maint.compact, now, etcd_kv_revision(s->kv),
                                        etcd_kv_lease_primary(s->kv));
    struct bns_rcbuf *entry = NULL;
    struct bns_buf b;

    bns_timer_start(s->env, &s->maint.compact_timer, s->maint.compact.next_ns);
    if (rev != 0 && rev <= etcd_kv_compacted(s->kv)) {
        etcd_autocompact_done(&s->maint.compact, now, rev);
        return;
    }
    if (rev == 0)
        return;
    bns_buf_init(&b, s->env->alloc, 64);
    if (bns_pb_put_i64(&b, 1, rev) == BNS_OK)
        entry = etcd_internal_encode(s->env->alloc, etcd_request_id(s), ETCD_OP_COMPACT,
                                     bns_buf_slice(&b));
    if (entry != NULL && bns_raft_node_propose(s->node, entry) == BNS_OK) {
        etcd_autocompact_done(&s->maint.compact, now, rev);
        BNS_LOG(s->env->log, BNS_LOG_INFO, "etcd", "auto-compaction", BNS_I64("revision", rev));
    } else {
        BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd", "auto-compaction not proposed: tried again",
                BNS_I64("revision", rev));
    }
    bns_rcbuf_put(entry);
    bns_buf_free(&b);
}

/* What an operator should know before it matters. */
static void warn_all(struct etcd_server *s)
{
    uint64_t quota = etcd_kv_quota(s->kv);

    if (quota == UINT64_MAX)
        BNS_LOG(s->env->log, BNS_LOG_INFO, "etcd", "no quota for the store: it may fill the disk");
    else if (quota > QUOTA_LARGE)
        BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd",
                "quota-backend-bytes is larger than the 8 GiB that are recommended",
                BNS_U64("bytes", quota));
    if (s->opt->memory)
        BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd",
                "UNSAFE: --storage memory: all data is lost when this process ends, and a member "
                "that has ended cannot come back under its id; for tests only");
    if (s->opt->unsafe_no_fsync)
        BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd",
                "UNSAFE: --unsafe-no-fsync: acknowledged data is lost when the machine stops; for "
                "tests only");
}

int etcd_maint_service(struct etcd_server *s)
{
    const struct bns_grpc_method methods[] = {
        {.path = "/etcdserverpb.Maintenance/Alarm", .handler = {.on_message = on_alarm}},
        {.path = "/etcdserverpb.Maintenance/Status", .handler = {.on_message = on_status}},
        {.path = "/etcdserverpb.Maintenance/Defragment", .handler = {.on_message = on_defragment}},
        {.path = "/etcdserverpb.Maintenance/Hash", .handler = {.on_message = on_hash}},
        {.path = "/etcdserverpb.Maintenance/HashKV", .handler = {.on_message = on_hash_kv}},
    };
    size_t count = sizeof methods / sizeof methods[0];

    _Static_assert(sizeof methods == sizeof s->maint.methods, "one place a method");
    memcpy(s->maint.methods, methods, sizeof methods);
    for (size_t i = 0; i < count; i++) {
        s->maint.methods[i].kind = BNS_GRPC_UNARY;
        s->maint.methods[i].arg = s;
    }
    bns_timer_init(&s->maint.timer, on_tick, s);
    bns_timer_start(s->env, &s->maint.timer, bns_now_ns(s->env) + TICK_NS);
    bns_timer_init(&s->maint.compact_timer, on_compact_timer, s);
    etcd_corrupt_init(s);
    warn_all(s);
    if (etcd_autocompact_init(&s->maint.compact, s->env->alloc, &s->opt->autocompact,
                              bns_now_ns(s->env)) != BNS_OK)
        return BNS_E_NOMEM;
    if (s->maint.compact.next_ns != BNS_NEVER)
        bns_timer_start(s->env, &s->maint.compact_timer, s->maint.compact.next_ns);
    return bns_grpc_server_methods(s->grpc, s->maint.methods, count);
}

void etcd_maint_stop(struct etcd_server *s)
{
    bns_timer_stop(s->env, &s->maint.timer);
    bns_timer_stop(s->env, &s->maint.compact_timer);
    etcd_autocompact_free(&s->maint.compact);
    etcd_corrupt_stop(s);
}
