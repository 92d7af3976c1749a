/* rpc_watch.c - the service etcdserverpb.Watch: one call is one stream of watches.
 *
 * The watches live on this member's own applied state, so a lost leader does not disturb them. A
 * client that wants to know says "hasleader: true" in its metadata: then its call is refused, or
 * ended after three election timeouts, while there is no leader.
 *
 * A client that half-closes keeps its watches, as with etcd. At a stop all calls end at once: they
 * would otherwise hold up the drain for as long as it may take.
 */
#include "codec/pb.h"
#include "server.h"
#include "watch.h"

#define TEXT_NO_LEADER "etcdserver: no leader"
#define TEXT_NO_MEMORY "etcdserver: too many requests"
#define OVERHEAD_BYTES (512u * 1024)
#define ARENA_MAX ((size_t)64 * 1024 * 1024)

struct watch_call {
    struct bns_list node; /* server.watch_calls */
    struct etcd_server *s;
    struct bns_grpc_call *call;
    struct etcd_watch_stream *stream; /* NULL: over */
    bool needs_leader;
};

/* ---- the way out ---------------------------------------------------------------------------- */

static int out_send(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *release,
                    void *release_arg)
{
    return bns_grpc_send(((struct watch_call *)arg)->call, v, n, release, release_arg);
}

static int out_send_copy(void *arg, struct bns_slice msg)
{
    return bns_grpc_send_copy(((struct watch_call *)arg)->call, msg);
}

static size_t out_queued(void *arg)
{
    return bns_grpc_queued(((struct watch_call *)arg)->call);
}

static void out_peer(void *arg, struct bns_net_addr *to)
{
    bns_grpc_peer(((struct watch_call *)arg)->call, to);
}

/* Ends the call; c is not to be touched any more. */
static void end(struct watch_call *c, int status, const char *text)
{
    struct etcd_watch_stream *stream = c->stream;

    if (stream == NULL)
        return;
    c->stream = NULL;
    bns_list_del(&c->node);
    etcd_watch_close(stream);
    bns_grpc_finish(c->call, status, text, NULL, 0);
}

static void out_fail(void *arg, int status, const char *text)
{
    end(arg, status, text);
}

/* The texts are etcd's, as its Go client prints an error. */
static const char *out_permit(void *arg, struct bns_slice key, struct bns_slice range_end)
{
    static const struct {
        const struct etcd_status *st;
        const char *reason;
    } reasons[] = {
        {&etcd_auth_bad_token,
         "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"},
        {&etcd_auth_old,
         "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"},
        {&etcd_auth_no_name,
         "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"},
        {&etcd_auth_denied,
         "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
    };
    const struct watch_call *c = arg;
    struct etcd_status st = {0};
    struct etcd_who who;
    struct etcd_cn cn;

    if (etcd_auth_loading(c->s->kv))
        return etcd_watch_not_now;
    if (!etcd_auth_enabled(c->s->kv))
        return NULL;
    etcd_auth_peek(c->s, c->call, &cn, &who);
    if (etcd_auth_range(c->s->kv, &who, key, range_end, &st))
        return NULL;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].st->text == st.text)
            return reasons[i].reason;
    }
    return etcd_watch_not_now; /* no memory */
}

static const struct etcd_watch_out out = {.send = out_send,
                                          .send_copy = out_send_copy,
                                          .queued = out_queued,
                                          .fail = out_fail,
                                          .peer = out_peer,
                                          .permit = out_permit};

/* ---- the call ------------------------------------------------------------------------------- */

static void on_start(struct bns_grpc_call *call)
{
    struct etcd_server *s = bns_grpc_arg(call);
    struct watch_call *c = bns_arena_alloc(bns_grpc_arena(call), sizeof *c);
    struct bns_slice v;

    if (c != NULL) {
        *c = (struct watch_call){.s = s, .call = call};
        c->needs_leader =
            bns_grpc_metadata(call, "hasleader", &v) && bns_slice_eq(v, BNS_LIT("true"));
        bns_list_init(&c->node);
    }
    if (s->stopping) {
        bns_grpc_finish(call, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped", NULL, 0);
    } else if (c != NULL && c->needs_leader && s->leader == 0) {
        bns_grpc_finish(call, BNS_GRPC_UNAVAILABLE, TEXT_NO_LEADER, NULL, 0);
    } else if (c == NULL || etcd_watch_open(s->kv, &out, c, &c->stream) != BNS_OK) {
        bns_grpc_finish(call, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NO_MEMORY, NULL, 0);
    } else {
        bns_list_push(&s->watch_calls, &c->node);
        bns_grpc_set_ctx(call, c);
    }
}

static void on_message(struct bns_grpc_call *call, struct bns_slice msg)
{
    struct watch_call *c = bns_grpc_ctx(call);
    const struct bns_pb_limits limits = {.elements = 1000};
    ProtobufCMessage *m = NULL;
    struct bns_arena arena;
    struct bns_err err = {0};
    int rv;

    if (c == NULL || c->stream == NULL)
        return;
    bns_arena_init(&arena, c->s->env->alloc, ARENA_MAX);
    rv = bns_pb_unpack(&etcdserverpb__watch_request__descriptor, msg, &arena, &limits, &m, &err);
    if (rv == BNS_OK)
        etcd_watch_request(c->stream, (const Etcdserverpb__WatchRequest *)m);
    else
        end(c, rv == BNS_E_NOMEM ? BNS_GRPC_RESOURCE_EXHAUSTED : BNS_GRPC_INTERNAL, err.text);
    bns_arena_free(&arena);
}

static void on_writable(struct bns_grpc_call *call)
{
    struct watch_call *c = bns_grpc_ctx(call);

    if (c != NULL && c->stream != NULL)
        etcd_watch_writable(c->stream);
}

static void on_end(struct bns_grpc_call *call, enum bns_grpc_end why)
{
    struct watch_call *c = bns_grpc_ctx(call);

    (void)why; /* of one that we ended, nothing is left to do */
    if (c != NULL)
        end(c, BNS_GRPC_CANCELLED, "");
}

/* ---- without a leader ----------------------------------------------------------------------- */

static void end_those(struct etcd_server *s, bool all, const char *text)
{
    BNS_LIST_EACH(n, &s->watch_calls)
    {
        struct watch_call *c = BNS_CONTAINER(n, struct watch_call, node);
        if (all || c->needs_leader)
            end(c, BNS_GRPC_UNAVAILABLE, text);
    }
}

static void on_no_leader(void *arg)
{
    struct etcd_server *s = arg;

    if (s->leader != 0)
        return;
    end_those(s, false, TEXT_NO_LEADER);
    etcd_lease_no_leader(s);
    etcd_election_no_leader(s);
}

void etcd_watch_leader(struct etcd_server *s)
{
    if (s->leader != 0 || s->stopping)
        bns_timer_stop(s->env, &s->leaderless);
    else if (s->leaderless.node.pos == 0)
        bns_timer_start(s->env, &s->leaderless,
                        bns_now_ns(s->env) + 3 * s->opt->election_ms * BNS_MS);
}

void etcd_watch_end(struct etcd_server *s)
{
    bns_timer_stop(s->env, &s->leaderless);
    end_those(s, true, "etcdserver: server stopped");
}

int etcd_watch_service(struct etcd_server *s)
{
    struct etcd_watch_config cfg = {.cluster_id = s->cluster_id,
                                    .member_id = s->member_id,
                                    .raft_term = &s->term,
                                    .progress_ns = s->opt->watch_progress_ns,
                                    .fragment_bytes = s->opt->request_bytes_max + OVERHEAD_BYTES};

    bns_timer_init(&s->leaderless, on_no_leader, s);
    etcd_watch_setup(s->kv, &cfg);
    s->watch_methods[0] = (struct bns_grpc_method){
        .path = "/etcdserverpb.Watch/Watch",
        .kind = BNS_GRPC_BIDI,
        .msg_bytes_max = (uint32_t)s->opt->request_bytes_max + OVERHEAD_BYTES,
        .handler = {.on_start = on_start,
                    .on_message = on_message,
                    .on_writable = on_writable,
                    .on_end = on_end},
        .arg = s};
    return bns_grpc_server_methods(s->grpc, s->watch_methods, 1);
}
