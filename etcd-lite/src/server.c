/* server.c - start and stop of one member.
 *
 * Start: identity -> store -> log (replayed, joined with the store) -> services -> listeners ->
 * the Raft core runs. Stop is the reverse: no new requests, the open ones finish (or are told that
 * the server stopped), the log closes, the store's queue empties.
 */
#include "server.h"

#include <stdio.h>

#include "base/varint.h"
#include "wal_dir.h"

#define DRAIN_NS (5 * BNS_SEC)
#define HAND_OVER_NS (2 * BNS_SEC)
#define LINGER_MAX_NS (500 * BNS_MS)
#define READ_BYTES (16u * 1024 * 1024) /* of values, on their way from the store */

static void on_role(void *arg, enum bns_raft_role role, uint64_t term, uint64_t leader)
{
    struct etcd_server *s = arg;

    (void)role;
    s->term = term;
    s->leader = leader;
    etcd_asks_role(s);
    etcd_cluster_role(s);
    if (s->stopping) /* no timer is started any more */
        return;
    etcd_watch_leader(s);
    if (leader == 0 || s->serving)
        return;
    s->serving = true;
    bns_timer_start(s->env, &s->publish, bns_now_ns(s->env));
    BNS_LOG(s->env->log, BNS_LOG_INFO, "etcd", "ready to serve client requests",
            BNS_HEX("member", s->member_id), BNS_HEX("cluster", s->cluster_id));
    if (s->on_serving != NULL)
        s->on_serving(s->on_serving_arg);
}

static void on_http1(void *arg, struct bns_stream *stream, struct bns_slice read_so_far)
{
    struct etcd_server *s = arg;

    bns_http_server_adopt(s->http, stream, read_so_far);
}

static int subdir(struct bns_env *env, const char *dir, const char *name, char out[BNS_PATH_MAX],
                  struct bns_err *err)
{
    int len = snprintf(out, BNS_PATH_MAX, "%s/%s", dir, name);

    if (len < 0 || len >= BNS_PATH_MAX)
        return bns_err_set(err, BNS_E_INVALID, "--data-dir %s: the path is too long", dir);
    return bns_vfs_mkdir(env->vfs, out, err);
}

static int propose_revoke(void *arg, struct bns_rcbuf *entry)
{
    struct etcd_server *s = arg;

    return s->node == NULL ? BNS_E_SHUTDOWN : bns_raft_node_propose_urgent(s->node, entry);
}

/* Whose the directory is: as it says, or as the flags do, or as whom the cluster awaits us. With
 * --initial-cluster-state existing the flags may name members that came later: then the directory
 * alone counts. */
static int who(struct etcd_server *s, const struct etcd_identity *joins, struct bns_err *err)
{
    const struct etcd_options *o = s->opt;
    struct etcd_identity mine = {.cluster_id = o->members.cluster_id, .member_id = o->self->id}, is;
    int rv = o->joins ? etcd_identity_read(s->env->vfs, o->data_dir, &is, err) : BNS_E_NOTFOUND;

    if (rv == BNS_E_NOTFOUND)
        rv = etcd_identity_check(s->env->vfs, o->data_dir, joins != NULL ? joins : &mine, &is, err);
    if (rv != BNS_OK)
        return rv;
    s->cluster_id = is.cluster_id;
    s->member_id = is.member_id;
    s->joined = is.joined;
    s->told = is.told;
    return BNS_OK;
}

static int open_store(struct etcd_server *s, struct bns_err *err)
{
    const struct etcd_options *o = s->opt;
    struct etcd_kv_config kc = {
        .quota_bytes = o->quota_bytes, .read_bytes = READ_BYTES, .turn_keys = o->turn_keys};
    char dir[BNS_PATH_MAX];
    int rv = subdir(s->env, o->data_dir, "kv", dir, err);
    kc.dir = dir;
    if (rv == BNS_OK)
        rv = etcd_kv_open(s->env, &kc, &s->kv, err);
    if (rv == BNS_OK)
        etcd_kv_leases_on(s->kv, &(struct etcd_lease_hooks){.extend_ns = o->election_ms * BNS_MS,
                                                            .propose = propose_revoke,
                                                            .no_checkpoints = !o->lease_checkpoint,
                                                            .arg = s});
    return rv;
}

/* ---- the members ---------------------------------------------------------------------------- */

static bool is_learner(const struct etcd_server *s)
{
    const struct etcd_roster_member *self;
    struct etcd_roster r;

    etcd_roster_read(s, &r);
    self = etcd_roster_find(&r, s->member_id);
    return self != NULL && self->learner;
}

static void sync_members(void *arg)
{
    struct etcd_server *s = arg;

    if (!s->stopping)
        etcd_cluster_sync(s);
    s->learner = is_learner(s);
}

/* Inside an apply: the Raft node is not to be called now. */
static void on_members(void *arg)
{
    struct etcd_server *s = arg;

    if (!s->stopping)
        bns_timer_start(s->env, &s->members_timer, bns_now_ns(s->env));
}

static bool is_removed(void *arg, uint64_t id)
{
    struct etcd_server *s = arg;

    return etcd_kv_member_removed(s->kv, id) && !BNS_MUTANT(s->env, ETCD_MUTANT_REMOVED_UNTOLD);
}

static void on_removed(void *arg)
{
    struct etcd_server *s = arg;

    BNS_LOG(s->env->log, BNS_LOG_ERROR, "etcd",
            "the member has been permanently removed from the cluster: it stops; the data "
            "directory used by this member must be removed before it can be added again",
            BNS_HEX("member", s->member_id), BNS_STR("data_dir", s->opt->data_dir));
    if (s->on_removed != NULL && !s->stopping && !s->handing_over)
        s->on_removed(s->on_removed_arg);
}

static int peer_addresses(struct etcd_server *s, struct bns_raft_peer_addr *out, size_t *count,
                          struct bns_err *err)
{
    struct etcd_roster r;

    etcd_roster_read(s, &r);
    for (size_t i = 0; i < r.count; i++) {
        int rv = etcd_peer_addr(r.member[i].id, &r.member[i].peer_urls, &out[i], err);

        if (rv != BNS_OK)
            return rv;
        out[i].learner = r.member[i].learner;
    }
    *count = r.count;
    return BNS_OK;
}

/* Tokens that entries of the log give which are older than this start are void. */
static void setup_tokens(struct etcd_server *s)
{
    struct bns_raft_status st = {.last_index = UINT64_MAX};

    if (s->node != NULL)
        bns_raft_node_status(s->node, &st);
    etcd_tokens_setup(s->kv, s->opt->auth_token_ttl_s * BNS_SEC, st.last_index);
}

static int open_log(struct etcd_server *s, struct bns_err *err)
{
    const struct etcd_options *o = s->opt;
    struct bns_raft_peer_addr peers[BNS_RAFT_PEERS_MAX] = {0};
    size_t peers_count = 0;
    char dir[BNS_PATH_MAX];
    struct bns_raft_node_config nc = {
        .group = 1,
        .id = s->member_id,
        .peers = peers,
        .joining = s->joined,
        .listen_host = o->peer.host,
        .listen_port = o->peer.port,
        .tls = s->secure.peer,
        .listen_tls = o->peer.tls,
        .election_ns = o->election_ms * BNS_MS,
        .heartbeat_ns = o->heartbeat_ms * BNS_MS,
        .snapshot_entries = o->snapshot_count,
        .trailing_entries = o->trailing_entries,
        .wal = {.segment_bytes_max = o->segment_bytes,
                .reserve_bytes = o->reserve_bytes,
                .unsafe_no_sync = o->unsafe_no_fsync},
        .on_role = on_role,
        .on_role_arg = s,
        .on_request = etcd_ask_request,
        .on_request_arg = s,
        .on_removed = on_removed,
        .is_removed = is_removed,
        .on_http = etcd_peer_http_adopt,
        .members_arg = s,
    };
    const struct etcd_wal_dir w = {o->data_dir, o->wal_dir, s->cluster_id, s->member_id};
    int rv = etcd_wal_dir_open(s->env->vfs, &w, dir, &s->wal_lock, err);

    bns_put_u64be(nc.cluster_id, s->cluster_id);
    nc.wal.dir = dir;
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(s->env->vfs, o->data_dir, err);
    if (rv == BNS_OK)
        rv = peer_addresses(s, peers, &peers_count, err);
    nc.peers_count = peers_count;
    nc.listen_optional = peers_count == 1 && o->peer_default;
    s->was_removed = etcd_kv_member_removed(s->kv, s->member_id);
    setup_tokens(s);
    if (rv == BNS_OK)
        rv = bns_raft_node_open(s->env, &nc, etcd_kv_sm(), s->kv, &s->node, err);
    if (rv == BNS_OK)
        setup_tokens(s);
    return rv;
}

/* A learner has what the others have, a little later, and cannot ask the leader for more. */
static enum bns_grpc_admission may_run(void *arg, struct bns_grpc_call *c, struct bns_slice path,
                                       uint64_t first_asked_ns, struct bns_grpc_refusal *why)
{
    static const char *const may[] = {"/etcdserverpb.KV/Range", "/etcdserverpb.Maintenance/Status",
                                      "/etcdserverpb.Maintenance/Snapshot",
                                      "/grpc.health.v1.Health/Check",
                                      "/grpc.health.v1.Health/Watch"};
    struct etcd_server *s = arg;
    bool is = !s->learner;

    for (size_t i = 0; i < sizeof may / sizeof may[0] && !is; i++)
        is = bns_slice_eq(path, bns_slice_str(may[i]));
    if (etcd_kv_member_removed(s->kv, s->member_id)) { /* it only stays to tell the others */
        *why = (struct bns_grpc_refusal){BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped"};
        return BNS_GRPC_REFUSE;
    }
    /* until what it says of itself is applied here, one that joins knows nothing of users */
    if (s->joined && etcd_kv_member(s->kv, s->member_id).len == 0) {
        *why = (struct bns_grpc_refusal){BNS_GRPC_UNAVAILABLE, "etcdserver: not ready"};
        return BNS_GRPC_REFUSE;
    }
    if (is)
        return etcd_auth_admit(arg, c, path, first_asked_ns, why);
    *why = (struct bns_grpc_refusal){ETCD_LEARNER_STATUS, ETCD_TEXT_LEARNER};
    return BNS_GRPC_REFUSE;
}

static enum bns_grpc_admission admit(void *arg, struct bns_grpc_call *c, struct bns_slice path,
                                     uint64_t first_asked_ns, struct bns_grpc_refusal *why)
{
    enum bns_grpc_admission is = may_run(arg, c, path, first_asked_ns, why);

    if (is != BNS_GRPC_HOLD) /* else it is asked again */
        etcd_metrics_call(arg, c, path);
    return is;
}

static int open_services(struct etcd_server *s, struct bns_err *err)
{
    struct bns_http_config hc = {.before = etcd_gateway_before, .before_arg = s};
    struct bns_grpc_config gc = {.streams_max = (uint32_t)s->opt->streams_max,
                                 .on_http1 = s->opt->client_http.count > 0 ? NULL : on_http1,
                                 .keepalive_ns = s->opt->more.keepalive_ns,
                                 .keepalive_timeout_ns = s->opt->more.keepalive_timeout_ns,
                                 .admit = admit,
                                 .handling_seconds = strcmp(s->opt->more.metrics, "extensive") == 0,
                                 .arg = s};
    int rv = bns_grpc_server_new(s->env, &gc, &s->grpc);

    if (rv == BNS_OK)
        rv = bns_http_server_new(s->env, &hc, &s->http);
    if (rv == BNS_OK && s->opt->more.metrics_urls.count > 0)
        rv = bns_http_server_new(s->env, NULL, &s->metrics_http);
    if (rv == BNS_OK)
        rv = etcd_peer_http(s);
    if (rv == BNS_OK)
        rv = etcd_metrics_init(s);
    if (rv == BNS_OK)
        rv = etcd_kv_service(s);
    if (rv == BNS_OK)
        rv = etcd_cluster_service(s);
    if (rv == BNS_OK)
        rv = etcd_maint_service(s);
    if (rv == BNS_OK)
        rv = etcd_health_service(s);
    if (rv == BNS_OK)
        rv = etcd_watch_service(s);
    if (rv == BNS_OK)
        rv = etcd_lease_service(s);
    if (rv == BNS_OK)
        rv = etcd_lock_service(s);
    if (rv == BNS_OK)
        rv = etcd_election_service(s);
    if (rv == BNS_OK)
        rv = etcd_snapshot_service(s);
    if (rv == BNS_OK)
        rv = etcd_auth_service(s);
    if (rv == BNS_OK)
        rv = etcd_http_routes(s);
    if (rv == BNS_OK && s->opt->more.gateway)
        rv = etcd_gateway_routes(s);
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "cannot make the services: %s", bns_err_default_text(rv));
    return BNS_OK;
}

static int listen_all(struct etcd_server *s, struct bns_err *err)
{
    for (size_t i = 0; i < s->opt->client_urls.count; i++) {
        struct etcd_url u;
        uint16_t port = 0;
        int rv = etcd_url_parse(s->opt->client_urls.url[i], &u, err);

        if (rv == BNS_OK)
            rv = bns_grpc_server_listen_tls(s->grpc, u.tls ? s->secure.client : NULL, u.host,
                                            u.port, &port, err);
        if (rv != BNS_OK) {
            bns_err_wrap(err, "--listen-client-urls %s", s->opt->client_urls.url[i]);
            return rv;
        }
        if (i == 0)
            s->client_port = port;
    }
    return BNS_OK;
}

static int listen_http(struct etcd_server *s, struct bns_http_server *http, const char *flag,
                       const struct etcd_urls *urls, uint16_t *first, struct bns_err *err)
{
    int rv = BNS_OK;

    for (size_t i = 0; rv == BNS_OK && i < urls->count; i++) {
        struct etcd_url u;

        rv = etcd_url_parse(urls->url[i], &u, err);
        if (rv == BNS_OK)
            rv = bns_http_server_listen_tls(http, u.tls ? s->secure.client : NULL, u.host, u.port,
                                            i == 0 ? first : NULL, err);
        if (rv != BNS_OK)
            bns_err_wrap(err, "--%s %s", flag, urls->url[i]);
    }
    return rv;
}

static void hand_over_late(void *arg);

_Static_assert(ETCD_URLS_MAX <= BNS_HTTP_LISTENERS_MAX, "every HTTP URL is listened on");

int etcd_server_start(struct bns_env *env, const struct etcd_options *opt,
                      const struct etcd_identity *joins, struct etcd_server **out,
                      struct bns_err *err)
{
    struct etcd_server *s = bns_alloc_zero(env->alloc, sizeof *s);
    int rv;

    if (s == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "out of memory");
    s->env = env;
    s->opt = opt;
    s->op_timeout_ns = 5 * BNS_SEC + 2 * opt->election_ms * BNS_MS;
    bns_list_init(&s->ops);
    bns_timer_init(&s->ops_timer, etcd_tasks_timer, s);
    bns_list_init(&s->parked);
    bns_list_init(&s->watch_calls);
    bns_list_init(&s->snapshots);
    bns_timer_init(&s->parked_timer, etcd_tasks_pump, s);
    bns_timer_init(&s->publish, etcd_publish, s);
    bns_timer_init(&s->members_timer, sync_members, s);
    bns_timer_init(&s->hand_over_timer, hand_over_late, s);
    etcd_asks_init(s);
    etcd_min_revision_init(s);
    etcd_sessions_init(s);
    etcd_cluster_init(s);
    etcd_hasher_init(&s->auth.hasher, env);
    *out = s;
    rv = etcd_request_ids(s, err);
    if (rv == BNS_OK)
        rv = who(s, joins, err);
    if (rv == BNS_OK)
        rv = etcd_secure_open(env, &opt->secure, &s->secure, err);
    if (rv == BNS_OK)
        rv = open_store(s, err);
    if (rv == BNS_OK)
        etcd_kv_on_members(s->kv, on_members, s);
    s->learner = rv == BNS_OK && is_learner(s);
    if (rv == BNS_OK)
        rv = open_log(s, err);
    if (rv == BNS_OK)
        rv = open_services(s, err);
    if (rv == BNS_OK)
        rv = listen_all(s, err);
    if (rv == BNS_OK)
        rv = listen_http(s, s->http, "listen-client-http-urls", &opt->client_http, NULL, err);
    if (rv == BNS_OK)
        rv = listen_http(s, s->metrics_http, "listen-metrics-urls", &opt->more.metrics_urls,
                         &s->metrics_port, err);
    if (rv == BNS_OK)
        rv = bns_raft_node_start(s->node, err);
    return rv;
}

static void secure_stopped(void *arg)
{
    struct etcd_server *s = arg;

    if (s->drained != NULL)
        s->drained(s->drained_arg);
}

static void store_drained(void *arg)
{
    struct etcd_server *s = arg;

    etcd_secure_stop(&s->secure, secure_stopped, s);
}

static void node_closed(void *arg)
{
    struct etcd_server *s = arg;

    s->node = NULL;
    etcd_kv_drain(s->kv, store_drained, s);
}

static void hasher_stopped(void *arg)
{
    struct etcd_server *s = arg;

    etcd_sessions_abort(s);
    etcd_tasks_abort(s);
    etcd_asks_stop(s);
    etcd_cluster_stop(s);
    bns_timer_stop(s->env, &s->members_timer);
    bns_timer_stop(s->env, &s->ops_timer);
    bns_timer_stop(s->env, &s->parked_timer);
    bns_timer_stop(s->env, &s->publish);
    etcd_maint_stop(s);
    bns_raft_node_close(s->node, node_closed, s);
}

static void http_drained(void *arg)
{
    struct etcd_server *s = arg;

    etcd_hasher_stop(&s->auth.hasher, hasher_stopped, s);
}

static void grpc_drained(void *arg)
{
    struct etcd_server *s = arg;

    bns_http_server_drain(s->http, DRAIN_NS, http_drained, s);
}

static void metrics_drained(void *arg)
{
    struct etcd_server *s = arg;

    bns_grpc_server_drain(s->grpc, "etcdserver: server stopped", DRAIN_NS, grpc_drained, s);
}

static void drain_now(struct etcd_server *s)
{
    BNS_ASSERT(!s->stopping);
    s->stopping = true;
    etcd_watch_end(s);
    etcd_health_end(s);
    etcd_snapshots_end(s);
    etcd_lease_streams_end(s); /* they have no end of their own */
    etcd_sessions_stop(s);
    etcd_kv_lease_hand_over(s->kv);
    if (s->metrics_http != NULL)
        bns_http_server_drain(s->metrics_http, DRAIN_NS, metrics_drained, s);
    else
        metrics_drained(s);
}

/* Whoever has not heard of the next leader goes on sending proposals here, and they are passed on:
 * for a heartbeat interval, in which everybody hears of it. */
static void handed_over(void *arg, int code)
{
    struct etcd_server *s = arg;
    uint64_t linger = s->opt->heartbeat_ms * BNS_MS;

    if (!s->handing_over)
        return; /* it was waited for long enough */
    if (code == BNS_OK) {
        BNS_LOG(s->env->log, BNS_LOG_INFO, "etcd", "leadership handed over before the stop",
                BNS_HEX("leader", s->leader));
        if (linger > LINGER_MAX_NS)
            linger = LINGER_MAX_NS;
        bns_timer_start(s->env, &s->hand_over_timer, bns_now_ns(s->env) + linger);
        s->handed_over = true;
        return;
    }
    BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd",
            "leadership not handed over before the stop: the others will elect",
            BNS_STR("why", bns_err_default_text(code)));
    s->handing_over = false;
    bns_timer_stop(s->env, &s->hand_over_timer);
    drain_now(s);
}

/* Enough. */
static void hand_over_late(void *arg)
{
    struct etcd_server *s = arg;

    if (!s->handed_over) {
        handed_over(s, BNS_E_TIMEOUT);
        return;
    }
    s->handing_over = false;
    drain_now(s);
}

/* A leader hands over while it still serves, so that nobody waits for an election: what comes in
 * meanwhile is kept, and goes to the next leader. The checkpoints of leases go before, so that the
 * next one knows what is left of them. No other voter was heard of lately (or there is none), or
 * one hands over already: nothing to wait for. */
static bool hand_over(struct etcd_server *s)
{
    if (s->node == NULL || s->leader != s->member_id ||
        etcd_kv_member_removed(s->kv, s->member_id)) /* Raft sees to it */
        return false;
    etcd_kv_lease_hand_over(s->kv);
    s->handing_over = bns_raft_node_transfer(s->node, 0, handed_over, s) == BNS_OK;
    if (s->handing_over)
        bns_timer_start(s->env, &s->hand_over_timer, bns_now_ns(s->env) + HAND_OVER_NS);
    return s->handing_over;
}

void etcd_server_drain(struct etcd_server *s, void (*done)(void *arg), void *arg)
{
    BNS_ASSERT(!s->stopping);
    BNS_ASSERT(!s->handing_over);
    s->drained = done;
    s->drained_arg = arg;
    if (!hand_over(s))
        drain_now(s);
}

void etcd_server_free(struct etcd_server *s)
{
    if (s == NULL)
        return;
    bns_grpc_server_free(s->grpc);
    bns_http_server_free(s->http);
    bns_grpc_gateway_free(s->gateway.json);
    bns_http_server_free(s->peer_http);
    bns_http_server_free(s->metrics_http);
    etcd_kv_close(s->kv);
    etcd_hasher_free(&s->auth.hasher);
    etcd_min_revision_free(s);
    etcd_secure_free(&s->secure);
    bns_file_close(s->wal_lock); /* NULL is fine */
    bns_free(s->env->alloc, s);
}
