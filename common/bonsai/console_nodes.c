/* console_nodes.c - what the page shows of the nodes, as JSON.
 *
 * {"now_ms": ..., "version": "0.1.0", "data_dir": "...", "pid": ..., "rss_bytes": ...,
 *  "nodes": [{"id": "etcd-lite-n1", "system": "etcd-lite", "node": 1, "port": 2379,
 *             "state": "ready", "pid": ..., "ready_ms": ..., "restarts": 0, "running_ms": ...,
 *             "rss_bytes": ..., "cpu_ms": ..., "answers": true, "scrape_ms": 0.9,
 *             "role": "leader", "term": 3, ... }],
 *  "events": [{"id": 1, "at_ms": ..., "node": "etcd-lite-n1", "kind": "ended", "text": "..."}]}
 *
 * Counters are sent as they stand; who shows a rate takes two answers and their now_ms. A number
 * that the node does not have is absent.
 */
#include "bonsai/console.h"

#include <math.h>
#include <unistd.h>

/* What is taken from a node's /metrics, and its name in our answer. */
static const struct {
    const char *key, *metric;
} numbers[] = {
    {"term", "raft_term"},
    {"has_leader", "raft_has_leader"},
    {"apply_lag", "raft_apply_lag"},
    {"applied", "etcd_server_proposals_applied_total"},
    {"leader_changes", "raft_leader_changes_total"},
    {"connections", "conn_open"},
    {"clients", "bns_grpc_connections"},
    {"watch_events", "etcd_debugging_mvcc_events_total"},
    {"keys", "etcd_debugging_mvcc_keys_total"},
    {"revision", "etcd_debugging_mvcc_current_revision"},
    {"db_bytes", "etcd_mvcc_db_total_size_in_bytes"},
    {"watchers", "etcd_debugging_mvcc_watcher_total"},
    {"puts", "etcd_mvcc_put_total"},
    {"deletes", "etcd_mvcc_delete_total"},
    {"ranges", "etcd_mvcc_range_total"},
    {"txns", "etcd_mvcc_txn_total"},
    {"calls", "grpc_server_handled_total"},
    {"in_bytes", "bns_h2_received_bytes_total"},
    {"out_bytes", "bns_h2_sent_bytes_total"},
    {"wal_bytes", "wal_bytes_total"},
    {"fsyncs", "wal_fsync_total"},
    {"fsync_sum_s", "wal_fsync_seconds_sum"},
    {"fsync_count", "wal_fsync_seconds_count"},
};

static json_t *number_json(double v)
{
    if (v == floor(v) && fabs(v) < 9e15)
        return json_integer((json_int_t)v);
    return isfinite(v) ? json_real(v) : json_null();
}

static const char *role_name(double role)
{
    static const char *const names[] = {"follower", "pre-candidate", "candidate", "leader"};

    return role >= 0 && role <= 3 && role == floor(role) ? names[(size_t)role] : "unknown";
}

static int add_metrics(json_t *to, const struct bns_federate *f, size_t i)
{
    const struct bns_federate_answer *a = bns_federate_answer(f, i);
    double v;
    int rv = json_object_set_new(to, "answers", json_boolean(a->up));

    rv |= json_object_set_new(to, "scrape_ms", json_real((double)a->took / 1e6));
    rv |= json_object_set_new(to, "bad_lines", json_integer((json_int_t)a->bad_lines));
    if (bns_federate_value(f, i, "raft_role", &v))
        rv |= json_object_set_new(to, "role", json_string(role_name(v)));
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
        if (bns_federate_value(f, i, numbers[k].metric, &v))
            rv |= json_object_set_new(to, numbers[k].key, number_json(v));
    return rv;
}

static json_t *node_json(const struct bonsai_node_state *n, const struct bns_federate *f, size_t i)
{
    char id[32], address[32];
    json_t *o;

    (void)snprintf(id, sizeof id, "%s-n%u", n->system, n->number);
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", n->port);
    o = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", id,
                  "system", n->system, "node", (json_int_t)n->number, "port", (json_int_t)n->port,
                  "address", address, "state", n->state, "pid", (json_int_t)n->pid, "ready_ms",
                  (json_int_t)n->ready_ms, "restarts", (json_int_t)n->restarts, "running_ms",
                  (json_int_t)n->running_ms, "rss_bytes",
                  (json_int_t)(n->pid == 0 ? 0 : bonsai_pid_rss(n->pid)), "cpu_ms",
                  (json_int_t)(n->pid == 0 ? 0 : bonsai_pid_cpu_ms(n->pid)));
    if (o != NULL && add_metrics(o, f, i) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *events_json(const struct bonsai_view *v)
{
    json_t *all = json_array();
    uint64_t id = v->events_last > BONSAI_EVENTS_MAX ? v->events_last - BONSAI_EVENTS_MAX + 1 : 1;

    for (; id <= v->events_last; id++) {
        const struct bonsai_event *e = &v->events[(id - 1) % BONSAI_EVENTS_MAX];
        json_t *o =
            json_pack("{s:I, s:I, s:s, s:s, s:s}", "id", (json_int_t)e->id, "at_ms",
                      (json_int_t)e->at_ms, "node", e->node, "kind", e->kind, "text", e->text);

        if (json_array_append_new(all, o) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

json_t *bonsai_console_nodes(const struct bonsai_view *v)
{
    json_t *nodes = json_array();

    for (size_t i = 0; i < v->state->nodes_count; i++) {
        if (json_array_append_new(nodes, node_json(&v->state->nodes[i], v->metrics, i)) != 0) {
            json_decref(nodes);
            return NULL;
        }
    }
    return json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "now_ms", (json_int_t)v->now_ms,
                     "version", BNS_VERSION, "data_dir", v->data_dir, "pid", (json_int_t)getpid(),
                     "rss_bytes", (json_int_t)bonsai_pid_rss(getpid()), "cpu_ms",
                     (json_int_t)bonsai_pid_cpu_ms(getpid()), "nodes", nodes, "events",
                     events_json(v));
}
