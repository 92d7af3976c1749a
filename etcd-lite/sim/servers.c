/* servers.c - the daemons of the simulation: birth, orderly stop, death, and what must hold of them
 * after every event.
 *
 * Invariants: at most one member says of itself that it leads a term; what members have applied is
 * equal at equal applied indexes for ever; the applied index of a process never goes back; nobody
 * stops for a reason that no fault has given (damaged data, an assertion); who is stopped in good
 * order leaves no memory behind and comes to its end.
 */
#include "daemon_int.h"

#include <stdarg.h>
#include <stdio.h>

#define STOP_MAX_NS (60 * BNS_SEC) /* pauses and full disks included */
#define STOP_TICK_NS (100 * BNS_MS)
#define RESTART_NS (500 * BNS_MS)

static int64_t log_ms(void *arg)
{
    const struct sim_server *v = arg;

    return BNS_WORLD_WALL_MS + (int64_t)(bns_world_now(v->m->w) / BNS_MS);
}

static void log_line(void *arg, struct bns_slice line)
{
    const struct sim_server *v = arg;
    char text[256];

    if (v->m->cfg->trace == NULL && v->m->cfg->line == NULL)
        return;
    (void)snprintf(text, sizeof text, "%.*s", (int)line.len - 1,
                   (const char *)line.ptr); /* cut is fine */
    bns_world_record_event(v->m->w, BNS_TRACE_NOTE, v->id, 0, text);
    if (v->m->cfg->line != NULL)
        v->m->cfg->line(v->m->cfg->line_arg, text);
}

/* ---- options, as from a command line --------------------------------------------------------- */

BNS_PRINTF(2, 3) static void add(struct sim_args *a, const char *fmt, ...)
{
    va_list ap;
    int n;

    BNS_ASSERT(a->argc < SIM_ARGS_MAX);
    va_start(ap, fmt);
    n = vsnprintf(a->text[a->argc], sizeof a->text[0], fmt, ap);
    va_end(ap);
    BNS_ASSERT(n > 0 && (size_t)n < sizeof a->text[0]);
    a->argv[a->argc] = a->text[a->argc];
    a->argc++;
}

/* The texts of the options live in the server, as those of a process do. */
static void options(struct sim_server *v, struct sim_args *a)
{
    struct etcd_sim *m = v->m;
    const char *host = bns_world_host(m->w, v->id);
    char cluster[400] = "";
    char *none[] = {NULL};
    int code = 0;

    for (unsigned i = 0; i < m->cfg->servers; i++) {
        size_t len = strlen(cluster);

        (void)snprintf(cluster + len, sizeof cluster - len, "%sn%u=http://%s:%u", /* fits */
                       i == 0 ? "" : ",", i, bns_world_host(m->w, i), SIM_PEER_PORT);
    }
    add(a, "etcd-lite");
    add(a, "--name=n%u", v->id);
    add(a, "--data-dir=/data");
    add(a, "--listen-client-urls=http://%s:%u", host, SIM_CLIENT_PORT);
    add(a, "--advertise-client-urls=http://%s:%u", host, SIM_CLIENT_PORT);
    add(a, "--listen-peer-urls=http://%s:%u", host, SIM_PEER_PORT);
    add(a, "--initial-advertise-peer-urls=http://%s:%u", host, SIM_PEER_PORT);
    add(a, "--initial-cluster=%s", cluster);
    add(a, "--snapshot-count=%llu", (unsigned long long)m->cfg->snapshot_count);
    add(a, "--insecure");
    BNS_ASSERT(etcd_options_read(&v->opt, &m->arena, a->argc, a->argv, none, &code) == ETCD_RUN);
    v->opt.segment_bytes = m->cfg->segment_bytes;
    v->opt.reserve_bytes = m->cfg->reserve_bytes;
    v->opt.trailing_entries = m->cfg->trailing_entries;
}

/* ---- birth ----------------------------------------------------------------------------------- */

static int make_dir(struct bns_env *env, struct bns_err *err)
{
    int rv = bns_vfs_mkdir(env->vfs, "/data", err);

    return rv == BNS_OK ? bns_vfs_sync_dir(env->vfs, "/", err) : rv;
}

static int server_start(struct bns_env *env, unsigned id, void *arg)
{
    struct etcd_sim *m = arg;
    struct sim_server *v = &m->servers[id];
    struct bns_err err = {0};
    int rv;

    v->log =
        (struct bns_log){.level = BNS_LOG_DEBUG, .wall_ms = log_ms, .write = log_line, .arg = v};
    env->log = &v->log;
    v->s = NULL;
    v->stopping = false;
    v->applied = v->term = v->leader = 0;
    v->life++;
    m->out->starts++;
    rv = bns_metrics_new(env->alloc, &v->metrics);
    env->metrics = v->metrics;
    if (rv == BNS_OK)
        rv = make_dir(env, &err);
    if (rv == BNS_OK)
        rv = etcd_server_start(env, &v->opt, NULL, &v->s, &err);
    v->up = rv == BNS_OK;
    if (rv != BNS_OK)
        bns_world_note(m->w, "n%u does not start: %s", id, err.text);
    if (rv == BNS_E_CORRUPT || rv == BNS_E_INVALID || rv == BNS_E_UNSUPPORTED)
        sim_complain(m, "n%u does not start: %s", id, err.text);
    return rv;
}

/* Exit codes: 4 damaged data, 70 an assertion: no fault that strikes here gives reason for them. */
static void server_died(unsigned id, int code, const char *text, void *arg)
{
    struct etcd_sim *m = arg;
    struct sim_server *v = &m->servers[id];

    if (code != 0)
        bns_world_note(m->w, "n%u stopped with %d: %s", id, code, text);
    if (code == 4 || code == 70)
        sim_complain(m, "n%u stopped with %d: %s", id, code, text);
    if (v->s != NULL)
        etcd_kv_died(v->s->kv);
    v->s = NULL;
    v->up = false;
    v->stopping = false;
    m->out->deaths++;
}

void sim_servers_start(struct etcd_sim *m)
{
    const struct bns_node_main main = {
        .start = server_start, .died = server_died, .arg = m, .restart_ns = RESTART_NS};

    for (unsigned i = 0; i < m->cfg->servers; i++) {
        struct sim_server *v = &m->servers[i];

        v->m = m;
        v->id = i;
        options(v, &m->args[i]);
        bns_world_start(m->w, i, &main);
    }
}

/* ---- stops in good order --------------------------------------------------------------------- */

/* The process ends: what is on its disk stays, and nothing was left behind. */
static void process_ends(struct bns_world *w, void *arg)
{
    struct sim_server *v = arg;
    size_t left = bns_test_heap_in_use(bns_world_heap(w, v->id));

    if (!v->stopping || v->s != NULL)
        return; /* it died meanwhile */
    if (left > 0)
        sim_complain(v->m, "n%u stopped, %zu bytes of its memory are left", v->id, left);
    bns_world_kill(w, v->id);
    bns_world_restart(w, v->id);
}

static void free_server(struct bns_env *env, void *arg)
{
    struct sim_server *v = arg;

    etcd_server_free(v->s);
    v->s = NULL;
    env->metrics = NULL;
    bns_metrics_free(v->metrics);
    if (bns_world_timers(v->m->w, v->id) > 0) /* in memory that is gone */
        sim_complain(v->m, "n%u stopped, %zu timers are still running", v->id,
                     bns_world_timers(v->m->w, v->id));
    bns_world_at(v->m->w, bns_world_now(v->m->w) + BNS_SEC, process_ends, v);
}

static void free_turn(struct bns_world *w, void *arg)
{
    struct sim_server *v = arg;

    if (v->stopping && v->s != NULL && !v->up && !bns_world_call(w, v->id, free_server, v))
        bns_world_at(w, bns_world_now(w) + 100 * BNS_MS, free_turn, v); /* it is paused */
}

static void drained(void *arg)
{
    struct sim_server *v = arg;

    v->up = false;
    bns_world_at(v->m->w, bns_world_now(v->m->w) + BNS_MS, free_turn, v);
}

static void stop_server(struct bns_env *env, void *arg)
{
    struct sim_server *v = arg;

    v->stopping = true;
    v->stop_ns = bns_now_ns(env);
    v->m->out->stops++;
    bns_world_note(v->m->w, "n%u is told to stop", v->id);
    etcd_server_drain(v->s, drained, v);
}

void sim_servers_stop_turn(struct bns_world *w, void *arg)
{
    struct etcd_sim *m = arg;
    struct sim_server *v = &m->servers[bns_prng_below(&m->prng, m->cfg->servers)];
    bool strike = bns_prng_chance(&m->prng, m->cfg->stop);

    if (m->phase != SIM_FAULTS)
        return;
    if (strike && v->up && !v->stopping)
        (void)bns_world_call(w, v->id, stop_server, v); /* false: it is paused */
    bns_world_at(w, bns_world_now(w) + STOP_TICK_NS, sim_servers_stop_turn, m);
}

/* ---- invariants ------------------------------------------------------------------------------ */

static void look_at_role(struct etcd_sim *m, struct sim_server *v)
{
    uint64_t self = v->opt.self->id;
    static const char *const names[] = {"follower", "candidate", "candidate", "leader"};
    struct bns_raft_status st;

    v->term = v->s->term;
    v->leader = v->s->leader;
    bns_raft_node_status(v->s->node, &st);
    bns_world_record_event(m->w, BNS_TRACE_ROLE, v->id, v->term, names[st.role]);
    if (v->term >= SIM_TERMS_MAX) {
        sim_complain(m, "n%u has come to term %llu", v->id, (unsigned long long)v->term);
        return;
    }
    if (v->term > m->out->terms)
        m->out->terms = v->term;
    if (v->leader != self)
        return;
    if (m->leader_of[v->term] != 0 && m->leader_of[v->term] != self)
        sim_complain(m, "term %llu has two leaders, n%u is the second", (unsigned long long)v->term,
                     v->id);
    m->leader_of[v->term] = self;
}

static void look_at_state(struct etcd_sim *m, struct sim_server *v, uint64_t applied)
{
    uint64_t digest = etcd_kv_sm()->digest(v->s->kv);

    if (applied < v->applied)
        sim_complain(m, "n%u: the applied index went from %llu back to %llu", v->id,
                     (unsigned long long)v->applied, (unsigned long long)applied);
    v->applied = applied;
    if (applied >= SIM_APPLIED_MAX) {
        sim_complain(m, "the run is too long for the table of digests");
        return;
    }
    if (m->digests[applied] == 0)
        m->digests[applied] = digest;
    if (m->digests[applied] != digest)
        sim_complain(m, "n%u differs from the others at index %llu", v->id,
                     (unsigned long long)applied);
    if (applied > m->out->applied)
        m->out->applied = applied;
}

void sim_servers_look(struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->cfg->servers; i++) {
        struct sim_server *v = &m->servers[i];
        uint64_t applied;

        if (v->stopping && bns_now_ns(bns_world_env(m->w, i)) > v->stop_ns + STOP_MAX_NS)
            sim_complain(m, "n%u does not come to its end", i);
        if (!v->up || v->s == NULL)
            continue;
        if (v->s->term != v->term || v->s->leader != v->leader)
            look_at_role(m, v);
        applied = etcd_kv_applied(v->s->kv);
        if (applied != v->applied)
            look_at_state(m, v, applied);
    }
}

void sim_servers_note(struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->cfg->servers; i++) {
        struct bns_raft_status st;

        if (!m->servers[i].up || m->servers[i].s == NULL || m->servers[i].s->node == NULL) {
            bns_world_note(m->w, "n%u is down", i);
            continue;
        }
        bns_raft_node_status(m->servers[i].s->node, &st);
        bns_world_note(m->w,
                       "n%u role %d term %llu leader %llx commit %llu applied %llu revision %lld",
                       i, st.role, (unsigned long long)st.term, (unsigned long long)st.leader,
                       (unsigned long long)st.commit, (unsigned long long)st.applied,
                       (long long)etcd_kv_revision(m->servers[i].s->kv));
    }
}
