/* metrics.c - the names that etcd's dashboards use, refreshed right before a scrape. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server.h"
#include "watch.h"

static void set(struct etcd_server *s, const char *name, const char *help, double v)
{
    bns_gauge_set(bns_gauge(s->env->metrics, name, NULL, help), v);
}

static double memory_bytes(bool resident)
{
    char text[128];
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;

    if (f != NULL) {
        if (fgets(text, sizeof text, f) != NULL) {
            char *space = NULL;

            pages = strtoull(text, &space, 10); /* the first number is the virtual size */
            if (resident)
                pages = strtoull(space, NULL, 10);
        }
        (void)fclose(f); /* only read */
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    double count = -3; /* ".", "..", and the directory itself */

    if (d == NULL)
        return 0;
    while (readdir(d) != NULL)
        count++;
    (void)closedir(d); /* only read */
    return count;
}

static double limit_of(unsigned resource)
{
    struct rlimit r;

    return getrlimit(resource, &r) == 0 && r.rlim_cur != RLIM_INFINITY ? (double)r.rlim_cur : -1;
}

static void refresh_process(struct etcd_server *s)
{
    struct rusage ru = {0};
    double files = open_files();

    set(s, "process_resident_memory_bytes", "Resident memory.", memory_bytes(true));
    set(s, "process_virtual_memory_bytes", "Virtual memory.", memory_bytes(false));
    set(s, "process_virtual_memory_max_bytes", "Its limit; -1: none.", limit_of(RLIMIT_AS));
    set(s, "process_open_fds", "Open file descriptors.", files);
    set(s, "process_max_fds", "Their limit.", limit_of(RLIMIT_NOFILE));
    set(s, "os_fd_used", "The number of used file descriptors.", files);
    set(s, "os_fd_limit", "The file descriptor limit.", limit_of(RLIMIT_NOFILE));
    if (getrusage(RUSAGE_SELF, &ru) == 0)
        set(s, "process_cpu_seconds_total", "CPU time of user and system.",
            (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec +
                (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
}

static void set_active(struct etcd_server *s, struct etcd_active_peer *p, uint64_t id)
{
    char labels[80];

    if (p->id != id) {
        (void)snprintf(labels, sizeof labels, "Local=\"%llx\",Remote=\"%llx\"", /* fits */
                       (unsigned long long)s->member_id, (unsigned long long)id);
        p->id = id;
        p->gauge = bns_gauge(s->env->metrics, "etcd_network_active_peers", labels,
                             "The current number of active peer connections.");
    }
    bns_gauge_set(p->gauge, bns_raft_node_peer_since(s->node, id) != 0);
}

/* A member that is removed keeps its 0, and gives its place to another one. */
static void refresh_peers(struct etcd_server *s)
{
    struct etcd_roster r;

    etcd_roster_read(s, &r);
    for (size_t i = 0; i < BNS_RAFT_PEERS_MAX; i++) {
        struct etcd_active_peer *p = &s->active_peers[i];

        if (p->id != 0 && etcd_roster_find(&r, p->id) == NULL) {
            bns_gauge_set(p->gauge, 0);
            p->id = 0;
        }
    }
    for (size_t i = 0; i < r.count; i++) {
        struct etcd_active_peer *at = NULL;

        for (size_t k = 0; k < BNS_RAFT_PEERS_MAX; k++) {
            struct etcd_active_peer *p = &s->active_peers[k];

            if (p->id == r.member[i].id || (p->id == 0 && (at == NULL || at->id == 0)))
                at = p;
        }
        if (at != NULL && r.member[i].id != s->member_id)
            set_active(s, at, r.member[i].id);
    }
}

static void refresh(void *arg)
{
    struct etcd_server *s = arg;
    struct bns_raft_status st;
    struct etcd_watch_stats ws;

    bns_raft_node_status(s->node, &st);
    set(s, "etcd_server_has_leader", "Whether or not a leader exists.", st.leader != 0);
    set(s, "etcd_server_is_leader", "Whether or not this member is a leader.",
        st.role == BNS_RAFT_LEADER);
    set(s, "etcd_server_is_learner", "Whether or not this member is a learner.", st.learner);
    set(s, "etcd_server_proposals_committed_total", "Consensus proposals committed.",
        (double)st.commit);
    set(s, "etcd_server_proposals_applied_total", "Consensus proposals applied.",
        (double)st.applied);
    set(s, "etcd_server_quota_backend_bytes", "Backend storage quota; 0 = off.",
        etcd_kv_quota(s->kv) != UINT64_MAX ? (double)etcd_kv_quota(s->kv) : 0.0);
    set(s, "etcd_server_proposals_pending", "Proposals of this member that are not applied yet.",
        (double)etcd_kv_waiting(s->kv));
    set(s, "etcd_disk_defrag_inflight", "Whether or not defrag is active on the member.",
        etcd_kv_defragging(s->kv));
    set(s, "etcd_mvcc_db_total_size_in_bytes", "Bytes of the store's file.",
        (double)etcd_kv_db_size(s->kv));
    set(s, "etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of it in use.",
        (double)etcd_kv_db_size_in_use(s->kv));
    set(s, "etcd_debugging_mvcc_keys_total", "Keys alive.", (double)etcd_kv_keys(s->kv));
    set(s, "etcd_debugging_mvcc_current_revision", "Current revision.",
        (double)etcd_kv_revision(s->kv));
    set(s, "etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.",
        (double)etcd_kv_compacted(s->kv));
    etcd_watch_stats(s->kv, &ws);
    set(s, "etcd_debugging_mvcc_watch_stream_total", "Watch streams open.", (double)ws.streams);
    set(s, "etcd_debugging_mvcc_watcher_total", "Watches.", (double)ws.watches);
    set(s, "etcd_debugging_mvcc_slow_watcher_total", "Watches with events still to be sent.",
        (double)ws.slow);
    set(s, "etcd_debugging_mvcc_pending_events_total", "Events read for watches, not sent yet.",
        (double)ws.pending);
    if (s->env->sim) /* there the process is that of all nodes and of the clients */
        return;
    refresh_process(s);
    refresh_peers(s);
    set(s, "etcd_server_snapshot_apply_in_progress_total",
        "1 if the server is applying the incoming snapshot. 0 if none.", etcd_kv_installing(s->kv));
}

/* What is counted below under other names. */
static int alias_all(struct bns_metrics *m)
{
    static const struct {
        const char *name, *of, *help;
    } t[] = {
        {"etcd_server_leader_changes_seen_total", "raft_leader_changes_total",
         "The number of leader changes seen."},
        {"etcd_server_proposals_failed_total", "raft_proposals_dropped_total",
         "The total number of failed proposals seen."},
        {"etcd_disk_wal_fsync_duration_seconds", "wal_fsync_seconds",
         "The latency distributions of fsync called by WAL."},
        {"etcd_disk_wal_write_bytes_total", "wal_bytes_total",
         "Total number of bytes written in WAL."},
        {"etcd_network_peer_sent_bytes_total", "raft_peer_sent_bytes_total",
         "The total number of bytes sent to peers."},
        {"etcd_network_peer_received_bytes_total", "raft_peer_received_bytes_total",
         "The total number of bytes received from peers."},
        {"etcd_network_peer_sent_failures_total", "raft_peer_sent_failures_total",
         "The total number of send failures to peers."},
        {"etcd_network_peer_round_trip_time_seconds", "raft_peer_round_trip_seconds",
         "Round-Trip-Time histogram between peers."},
        {"etcd_network_client_grpc_sent_bytes_total", "bns_h2_sent_bytes_total",
         "The total number of bytes sent to grpc clients."},
        {"etcd_network_client_grpc_received_bytes_total", "bns_h2_received_bytes_total",
         "The total number of bytes received from grpc clients."},
        {"etcd_debugging_mvcc_put_total", "etcd_mvcc_put_total", "Its name in older releases."},
        {"etcd_debugging_mvcc_delete_total", "etcd_mvcc_delete_total",
         "Its name in older releases."},
        {"etcd_debugging_mvcc_range_total", "etcd_mvcc_range_total", "Its name in older releases."},
        {"etcd_debugging_mvcc_txn_total", "etcd_mvcc_txn_total", "Its name in older releases."},
        {"etcd_debugging_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_bytes",
         "Its name in older releases."},
    };
    int rv = BNS_OK;

    for (size_t i = 0; i < sizeof t / sizeof t[0] && rv == BNS_OK; i++)
        rv = bns_metrics_alias(m, t[i].name, t[i].of, t[i].help);
    return rv;
}

/* ---- requests by client ---------------------------------------------------------------------- */

static void set_client(struct etcd_server *s, size_t at, struct bns_slice version)
{
    static const char help[] = "The total number of client requests per client version.";
    struct etcd_client_version *v = &s->clients[at];
    char labels[64];

    memcpy(v->text, version.ptr, version.len);
    v->text[version.len] = '\0';
    (void)snprintf(labels, sizeof labels, "client_api_version=\"%s\",type=\"unary\"",
                   v->text); /* fits */
    v->unary = bns_counter(s->env->metrics, "etcd_server_client_requests_total", labels, help);
    (void)snprintf(labels, sizeof labels, "client_api_version=\"%s\",type=\"stream\"",
                   v->text); /* fits */
    v->stream = bns_counter(s->env->metrics, "etcd_server_client_requests_total", labels, help);
}

/* Digits and dots, and short: it becomes a label, and comes from outside. */
static bool is_version(struct bns_slice v)
{
    bool good = v.len > 0 && v.len < sizeof((struct etcd_client_version *)NULL)->text;

    for (size_t i = 0; good && i < v.len; i++)
        good = (v.ptr[i] >= '0' && v.ptr[i] <= '9') || v.ptr[i] == '.';
    return good;
}

static struct etcd_client_version *client_of(struct etcd_server *s, struct bns_slice version)
{
    size_t i = 1;

    if (!is_version(version))
        return &s->clients[0];
    while (i < ETCD_CLIENT_VERSIONS && s->clients[i].text[0] != '\0' &&
           !bns_slice_eq(version, bns_slice_str(s->clients[i].text)))
        i++;
    if (i == ETCD_CLIENT_VERSIONS)
        return &s->clients[0];
    if (s->clients[i].text[0] == '\0')
        set_client(s, i, version);
    return &s->clients[i];
}

void etcd_metrics_call(struct etcd_server *s, const struct bns_grpc_call *c, struct bns_slice path)
{
    static const char *const streams[] = {
        "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Maintenance/Snapshot", "/v3electionpb.Election/Observe"};
    struct bns_slice version = {NULL, 0};
    struct etcd_client_version *v;
    bool stream = false;

    if (s->env->metrics == NULL)
        return;
    for (size_t i = 0; i < sizeof streams / sizeof streams[0] && !stream; i++)
        stream = bns_slice_eq(path, bns_slice_str(streams[i]));
    (void)bns_grpc_metadata(c, "client-api-version", &version); /* then it is unknown */
    v = client_of(s, version);
    bns_counter_add(stream ? v->stream : v->unary, 1);
}

/* ---- slow ones ------------------------------------------------------------------------------- */

#define SLOW_LOG_NS (10 * BNS_MS) /* not more often: what is slow should not become slower */

/* In the largest unit that leaves no fraction. */
static void whole(uint64_t ns, char text[32])
{
    static const struct {
        const char *unit;
        uint64_t ns;
    } units[] = {{"s", BNS_SEC}, {"ms", BNS_MS}, {"us", BNS_US}, {"ns", 1}};
    size_t i = 0;

    while (ns % units[i].ns != 0)
        i++;
    (void)snprintf(text, 32, "%llu%s", (unsigned long long)(ns / units[i].ns), units[i].unit);
}

void etcd_metrics_answer(struct etcd_task *t, const struct etcd_answer *a)
{
    struct etcd_server *s = t->s;
    uint64_t now = bns_now_ns(s->env), took = a->began_ns == 0 ? 0 : now - a->began_ns;
    char expected[32];

    if (took <= s->opt->warning_apply_ns)
        return;
    bns_counter_add(s->m_slow, 1);
    if (!bns_log_limit(s->env->log, now, SLOW_LOG_NS, &s->slow_log_ns))
        return;
    whole(s->opt->warning_apply_ns, expected);
    BNS_LOG(s->env->log, BNS_LOG_WARN, "etcd", "apply request took too long",
            BNS_U64("took_ms", took / BNS_MS), BNS_STR("expected-duration", expected),
            BNS_STR("prefix", a->index == 0 ? "read-only " : ""),
            BNS_U64("revision", (uint64_t)a->revision), BNS_U64("index", a->index),
            BNS_U64("response_bytes", a->bytes));
}

static void set_names(struct etcd_server *s)
{
    struct bns_metrics *m = s->env->metrics;
    char id[64];

    (void)snprintf(id, sizeof id, "server_id=\"%llx\"", /* fits */
                   (unsigned long long)s->opt->self->id);
    bns_gauge_set(bns_gauge(m, "etcd_server_id", id, "Member ID in hexadecimal format."), 1);
    bns_gauge_set(bns_gauge(m, "etcd_server_version", "server_version=\"" ETCD_API_VERSION "\"",
                            "Which version is running."),
                  1);
    bns_gauge_set(bns_gauge(m, "etcd_cluster_version", "cluster_version=\"3.6\"",
                            "Which version is running."),
                  1);
}

int etcd_metrics_init(struct etcd_server *s)
{
    struct bns_metrics *m = s->env->metrics;

    if (m == NULL)
        return BNS_OK;
    s->m_failed = bns_counter(m, "etcd_server_requests_failed_total", NULL, "Requests refused.");
    s->m_timeouts = bns_counter(m, "etcd_server_requests_timed_out_total", NULL,
                                "Requests without an answer in time.");
    set(s, "process_start_time_seconds", "Start of the process, Unix time.",
        (double)bns_wall_ms(s->env) / 1000.0);
    s->m_healthy = bns_counter(m, "etcd_server_health_success", NULL,
                               "The total number of successful health checks.");
    s->m_unhealthy = bns_counter(m, "etcd_server_health_failures", NULL,
                                 "The total number of failed health checks.");
    s->m_reads_failed = bns_counter(m, "etcd_server_read_indexes_failed_total", NULL,
                                    "The total number of failed read indexes seen.");
    s->m_reads_slow = bns_counter(m, "etcd_server_slow_read_indexes_total", NULL,
                                  "The total number of pending read indexes not in sync with "
                                  "leader's or timed out read index requests.");
    s->m_slow = bns_counter(m, "etcd_server_slow_apply_total", NULL,
                            "The total number of slow apply requests.");
    if (!s->env->sim) /* as in kv.c */
        s->m_promoted = bns_counter(m, "etcd_server_learner_promote_successes", NULL,
                                    "The total number of successful learner promotions while "
                                    "this member is leader.");
    set_client(s, 0, BNS_LIT("unknown"));
    set_names(s);
    if (alias_all(m) != BNS_OK)
        return BNS_E_NOMEM;
    return bns_metrics_hook(m, refresh, s);
}
