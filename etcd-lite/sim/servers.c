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
    char *none[] = {NULL};
    int code = 0;

    memset(a, 0, sizeof *a);
    add(a, "etcd-lite");
    add(a, "--name=n%u", v->id);
    add(a, v->memberships < 2 ? "--data-dir=/data" : "--data-dir=/data%u", v->memberships);
    add(a, "--listen-client-urls=http://%s:%u", host, SIM_CLIENT_PORT);
    add(a, "--advertise-client-urls=http://%s:%u", host, SIM_CLIENT_PORT);
    add(a, "--listen-peer-urls=http://%s:%u", host, SIM_PEER_PORT);
    add(a, "--initial-advertise-peer-urls=%s", v->urls);
    add(a, "--initial-cluster=%s", v->cluster);
    if (v->joins)
        add(a, "--initial-cluster-state=existing");
    add(a, "--snapshot-count=%llu", (unsigned long long)m->cfg->snapshot_count);
    add(a, "--insecure");
    BNS_ASSERT(etcd_options_read(&v->opt, &m->arena, a->argc, a->argv, none, &code) == ETCD_RUN);
    v->opt.bcrypt_cost = 4;
    v->opt.segment_bytes = m->cfg->segment_bytes;
    v->opt.reserve_bytes = m->cfg->reserve_bytes;
    v->opt.trailing_entries = m->cfg->trailing_entries;
    v->opt.turn_keys = m->cfg->turn_keys;
}

/* ---- birth ----------------------------------------------------------------------------------- */

static int make_dir(struct bns_env *env, const char *dir, struct bns_err *err)
{
    int rv = bns_vfs_mkdir(env->vfs, dir, err);

    return rv == BNS_OK ? bns_vfs_sync_dir(env->vfs, "/", err) : rv;
}

static void removed(void *arg);

static int serve(struct sim_server *v, struct bns_env *env, const struct etcd_identity *joins,
                 struct bns_err *err)
{
    int rv = etcd_server_start(env, &v->opt, joins, &v->s, err);

    v->up = rv == BNS_OK;
    if (rv != BNS_OK)
        return rv;
    v->s->on_removed = removed;
    v->s->on_removed_arg = v;
    v->served = true;
    if (v->s->member_id != v->member)
        sim_complain(v->m, "n%u was started as member %llx and runs as %llx", v->id,
                     (unsigned long long)v->member, (unsigned long long)v->s->member_id);
    return rv;
}

static void no_start(struct sim_server *v, int rv, const char *why)
{
    bns_world_note(v->m->w, "n%u does not start: %s", v->id, why);
    if (rv == BNS_E_CORRUPT || rv == BNS_E_INVALID || rv == BNS_E_UNSUPPORTED)
        sim_complain(v->m, "n%u does not start: %s", v->id, why);
}

/* The cluster has told it who it is, or nobody has: then the operator starts it again. */
static void joined(void *arg, int code, const struct etcd_identity *who, const struct bns_err *why)
{
    struct sim_server *v = arg;
    struct bns_env *env = bns_world_env(v->m->w, v->id);
    struct bns_err err = *why;
    struct etcd_join *j = v->join;

    v->join = NULL;
    if (code == BNS_OK) {
        code = serve(v, env, who, &err);
        if (code != BNS_OK)
            no_start(v, code, err.text);
        else
            v->m->out->judged[ETCD_SIM_JOINS] = ++v->m->out->joins;
    }
    if (code != BNS_OK)
        bns_fatal(env, 1, err.text);
    etcd_join_free(j);
}

/* As main.c does it. */
static int serve_or_join(struct sim_server *v, struct bns_env *env, struct bns_err *err)
{
    struct etcd_identity *is = bns_alloc(bns_alloc_libc(), sizeof *is);
    int rv = BNS_OK;

    BNS_ASSERT(is != NULL);
    if (v->opt.joins && etcd_identity_read(env->vfs, v->opt.data_dir, is, err) == BNS_E_NOTFOUND)
        rv = etcd_join(env, &v->opt, joined, v, &v->join, err);
    else
        rv = serve(v, env, NULL, err);
    bns_free(bns_alloc_libc(), is);
    return rv;
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
    v->join = NULL;
    v->stopping = false;
    memset(&v->applied_conf, 0, sizeof v->applied_conf);
    memset(&v->leads_conf, 0, sizeof v->leads_conf);
    v->applied = v->term = v->leader = 0;
    v->life++;
    m->out->starts++;
    rv = bns_metrics_new(env->alloc, &v->metrics);
    env->metrics = v->metrics;
    if (rv == BNS_OK)
        rv = make_dir(env, v->opt.data_dir, &err);
    if (rv == BNS_OK)
        rv = serve_or_join(v, env, &err);
    if (rv != BNS_OK)
        no_start(v, rv, err.text);
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
    v->join = NULL;
    v->up = false;
    v->stopping = false;
    m->out->deaths++;
}

static void run_server(struct sim_server *v)
{
    const struct bns_node_main main = {
        .start = server_start, .died = server_died, .arg = v->m, .restart_ns = RESTART_NS};

    v->leaves = false;
    options(v, &v->m->args[v->id]);
    bns_world_start(v->m->w, v->id, &main);
}

/* Appends "n<host>=<URL>" for each. */
static void name_urls(char *out, size_t cap, unsigned host, const struct etcd_urls *urls)
{
    for (size_t k = 0; k < urls->count; k++) {
        size_t len = strlen(out);
        int n = snprintf(out + len, cap - len, "%sn%u=%s", len == 0 ? "" : ",", host, urls->url[k]);

        BNS_ASSERT(n > 0 && (size_t)n < cap - len);
    }
}

void sim_servers_start(struct etcd_sim *m)
{
    char cluster[sizeof m->servers[0].cluster] = "";

    for (unsigned i = 0; i < m->hosts; i++) {
        struct sim_server *v = &m->servers[i];
        struct etcd_urls at = {.count = 1};

        v->m = m;
        v->id = i;
        (void)snprintf(v->urls, sizeof v->urls, "http://%s:%u", bns_world_host(m->w, i),
                       SIM_PEER_PORT); /* fits */
        memcpy(at.url[0], v->urls, sizeof v->urls);
        if (i < m->cfg->servers)
            name_urls(cluster, sizeof cluster, i, &at);
    }
    for (unsigned i = 0; i < m->cfg->servers; i++) {
        struct sim_server *v = &m->servers[i];

        memcpy(v->cluster, cluster, sizeof cluster);
        v->memberships = 1;
        run_server(v);
        v->member = v->opt.self->id;
        v->votes = true;
        sim_id_add(m, v->member, i);
        sim_id_find(m, v->member)->started = true;
    }
}

/* ---- members that come and go ---------------------------------------------------------------- */

/* --initial-cluster of one that joins these. */
static void name_all(struct sim_server *v, const struct etcd_roster *list, char *out, size_t cap)
{
    out[0] = '\0';
    for (size_t i = 0; i < list->count; i++) {
        const struct sim_id *is = sim_id_find(v->m, list->member[i].id);

        BNS_ASSERT(is != NULL);
        name_urls(out, cap, is->host, &list->member[i].peer_urls);
    }
}

bool sim_server_flags_are(struct sim_server *v, const struct etcd_roster *list)
{
    char cluster[sizeof v->cluster];

    name_all(v, list, cluster, sizeof cluster);
    return strcmp(cluster, v->cluster) == 0;
}

void sim_server_join(struct sim_server *v, const struct etcd_roster *list, uint64_t id)
{
    const struct etcd_roster_member *self = etcd_roster_find(list, id);

    BNS_ASSERT(self != NULL && bns_world_state(v->m->w, v->id) != BNS_NODE_UP);
    name_all(v, list, v->cluster, sizeof v->cluster);
    memcpy(v->urls, self->peer_urls.url[0], sizeof v->urls);
    if (v->member != id)
        v->memberships++;
    sim_id_find(v->m, id)->started = true;
    v->member = id;
    v->served = v->votes = false;
    v->joins = true;
    run_server(v);
}

void sim_server_retire(struct sim_server *v)
{
    bns_world_note(v->m->w, "n%u runs no more", v->id);
    bns_world_retire(v->m->w, v->id);
    v->member = 0;
    v->votes = false;
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
    if (v->leaves) { /* exit code 0 */
        v->m->out->leaves++;
        sim_server_retire(v);
        return;
    }
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
    v->m->out->hand_overs += v->stop_led && v->s->leader != 0 && v->s->leader != v->s->member_id;
    bns_world_at(v->m->w, bns_world_now(v->m->w) + BNS_MS, free_turn, v);
}

static void stop_server(struct bns_env *env, void *arg)
{
    struct sim_server *v = arg;

    v->stopping = true;
    v->stop_ns = bns_now_ns(env);
    v->stop_led = v->s->leader == v->s->member_id;
    v->m->out->stops_leading += v->stop_led;
    v->m->out->stops++;
    bns_world_note(v->m->w, "n%u is told to stop", v->id);
    etcd_server_drain(v->s, drained, v);
}

/* This member belongs no more: main.c ends in good order then. */
static void removed(void *arg)
{
    struct sim_server *v = arg;
    const struct sim_id *is = sim_id_find(v->m, v->s->member_id);

    if (is == NULL || !is->removed)
        sim_complain(v->m, "n%u ends as one who was removed, and nobody has removed it", v->id);
    v->m->out->judged[ETCD_SIM_REMOVALS]++;
    v->leaves = true;
    stop_server(v->s->env, v);
}

void sim_servers_stop_turn(struct bns_world *w, void *arg)
{
    struct etcd_sim *m = arg;
    struct sim_server *v = &m->servers[bns_prng_below(&m->prng, m->hosts)];
    bool strike = bns_prng_chance(&m->prng, m->cfg->stop);

    if (m->phase != SIM_FAULTS)
        return;
    if (strike && v->up && v->s != NULL && !v->stopping)
        (void)bns_world_call(w, v->id, stop_server, v); /* false: it is paused */
    bns_world_at(w, bns_world_now(w) + STOP_TICK_NS, sim_servers_stop_turn, m);
}

/* ---- invariants ------------------------------------------------------------------------------ */

static void look_at_role(struct etcd_sim *m, struct sim_server *v)
{
    uint64_t self = v->s->member_id;
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
    m->led_ns = bns_world_now(m->w);
    if (m->cfg->members)
        sim_members_leads(m, v);
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
    for (unsigned i = 0; i < m->hosts; i++) {
        struct sim_server *v = &m->servers[i];
        uint64_t applied;

        if (v->stopping && bns_now_ns(bns_world_env(m->w, i)) > v->stop_ns + STOP_MAX_NS)
            sim_complain(m, "n%u does not come to its end", i);
        if (!v->up || v->s == NULL)
            continue;
        if (v->s->term != v->term || v->s->leader != v->leader)
            look_at_role(m, v);
        applied = etcd_kv_applied(v->s->kv);
        if (applied != v->applied && m->cfg->members)
            sim_members_applied(m, v);
        if (applied != v->applied)
            look_at_state(m, v, applied);
        if (m->cfg->members)
            sim_members_event(m, v);
    }
}

void sim_servers_note(struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->hosts; i++) {
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
