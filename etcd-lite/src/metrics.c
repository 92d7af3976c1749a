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

static double resident_bytes(void)
{
    char text[128];
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;

    if (f != NULL) {
        if (fgets(text, sizeof text, f) != NULL) {
            char *space = NULL;

            (void)strtoull(text, &space, 10); /* the first number is the virtual size */
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

static void refresh_process(struct etcd_server *s)
{
    struct rusage ru = {0};

    set(s, "process_resident_memory_bytes", "Resident memory.", resident_bytes());
    set(s, "process_open_fds", "Open file descriptors.", open_files());
    if (getrusage(RUSAGE_SELF, &ru) == 0)
        set(s, "process_cpu_seconds_total", "CPU time of user and system.",
            (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec +
                (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
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
    set(s, "etcd_server_is_learner", "Whether or not this member is a learner.", 0);
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
    if (!s->env->sim) /* there the process is that of all nodes and of the clients */
        refresh_process(s);
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
    set_names(s);
    if (alias_all(m) != BNS_OK)
        return BNS_E_NOMEM;
    return bns_metrics_hook(m, refresh, s);
}
