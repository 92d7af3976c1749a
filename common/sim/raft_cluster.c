/* raft_cluster.c - see raft_cluster.h.
 *
 * Invariants after every event: the command applied at an index is the same on every member for
 * ever (shadow log), digests are equal at equal applied indexes, an acknowledged write is in the
 * shadow log.
 */
#include "sim/raft_cluster_int.h"

#include <stdarg.h>
#include <stdio.h>

#define TIMEOUT_NS (4 * BNS_SEC)
#define STOP_TICK_NS (100 * BNS_MS)
#define STOP_MAX_NS (60 * BNS_SEC) /* pauses and full disks included */

/* A read in a server; it may outlive the client's patience. */
struct read {
    struct bns_raft_read read;
    struct bns_env *env;
    struct op *o;
    uint64_t id;
};

void cluster_complain(struct cluster *c, const char *fmt, ...)
{
    va_list ap;

    if (c->failed)
        return;
    c->failed = true;
    va_start(ap, fmt);
    (void)vsnprintf(c->out->text, sizeof c->out->text, fmt, ap); /* cut when long */
    va_end(ap);
}

/* ---- servers -------------------------------------------------------------------------------- */

static void end_op(struct op *o, bool known)
{
    struct bns_lin_op *h = &o->c->history[o->slot];

    o->active = false;
    if (!known) {
        o->c->out->ops_open++;
        return;
    }
    h->ret = ++o->c->position;
    o->c->out->ops_ok++;
    if (o->begun_ns > 2 * BNS_SEC && bns_world_now(o->c->w) - o->begun_ns > o->c->out->slowest_ns)
        o->c->out->slowest_ns = bns_world_now(o->c->w) - o->begun_ns;
}

void bns_raft_cluster_applied(void *server, uint64_t index, uint64_t id, bool done)
{
    struct server *s = server;
    struct cluster *c = s->c;
    struct op *o = &c->ops[id % CLIENTS_MAX];

    if (id >= OPS_MAX) {
        cluster_complain(c, "index %llu: an id that nobody proposed", (unsigned long long)index);
        return;
    }
    if (c->by_id[id] != 0 && c->by_id[id] != index)
        cluster_complain(c, "command %llu was applied at %llu and at %llu", (unsigned long long)id,
                         (unsigned long long)c->by_id[id], (unsigned long long)index);
    c->by_id[id] = index;
    if (!o->active || o->id != id || o->server != s->id)
        return;
    c->history[o->slot].failed = !done;
    if (done)
        c->last[o->cmd.key] = o->cmd.value;
    end_op(o, true);
}

static void check_server(struct cluster *c, struct server *s)
{
    uint64_t applied = c->cfg->subject->applied(s->sm);
    uint64_t digest = c->cfg->subject->ops()->digest(s->sm);

    if (s->stopping && bns_now_ns(bns_world_env(c->w, s->id)) > s->stop_ns + STOP_MAX_NS)
        cluster_complain(c, "server %u does not come to its end", s->id);
    if (applied == 0)
        return;
    if (applied >= LOG_MAX) {
        cluster_complain(c, "the run is too long for the shadow log");
        return;
    }
    if (c->digests[applied] == 0)
        c->digests[applied] = digest;
    if (c->digests[applied] != digest)
        cluster_complain(c, "server %u differs from the others at index %llu", s->id,
                         (unsigned long long)applied);
    if (applied > c->out->applied)
        c->out->applied = applied;
    if (c->cfg->spares > 0)
        cluster_members_applied(s, applied);
}

static const char *check(struct bns_world *w, void *arg)
{
    struct cluster *c = arg;

    (void)w;
    for (unsigned i = 0; i < c->hosts; i++) {
        if (c->servers[i].up)
            check_server(c, &c->servers[i]);
    }
    return c->failed ? c->out->text : NULL;
}

static int64_t log_ms(void *arg)
{
    const struct server *s = arg;

    return BNS_WORLD_WALL_MS + (int64_t)(bns_world_now(s->c->w) / BNS_MS);
}

static void log_line(void *arg, struct bns_slice line)
{
    const struct server *s = arg;

    bns_world_note(s->c->w, "server %u: %.*s", s->id, (int)line.len - 1, (const char *)line.ptr);
}

static int server_start(struct bns_env *env, unsigned id, void *arg)
{
    struct cluster *c = arg;
    struct server *s = &c->servers[id];
    struct bns_raft_peer_addr peers[SERVERS_MAX] = {0};
    struct bns_raft_node_config nc = {
        .group = 1,
        .id = id + 1,
        .peers = peers,
        .peers_count = c->cfg->servers,
        .listen_host = bns_world_host(c->w, id),
        .listen_port = 2380,
        .snapshot_entries = c->cfg->snapshot_entries,
        .trailing_entries = c->cfg->trailing_entries,
        .wal = {.dir = "wal",
                .segment_bytes_max = 64 * 1024,
                .reserve_bytes = c->cfg->reserve_bytes},
    };
    struct bns_err err = {0};
    int rv;

    s->log =
        (struct bns_log){.level = BNS_LOG_DEBUG, .wall_ms = log_ms, .write = log_line, .arg = s};
    env->log = &s->log;
    for (unsigned i = 0; i < c->cfg->servers; i++) {
        peers[i].id = i + 1;
        peers[i].port = 2380;
        (void)snprintf(peers[i].host, sizeof peers[i].host, "%s", bns_world_host(c->w, i));
    }
    cluster_members_config(s, &nc, peers);
    rv = bns_vfs_mkdir(env->vfs, "wal", &err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(env->vfs, ".", &err);
    if (rv == BNS_OK)
        rv = c->cfg->subject->open(env, s, &s->sm, &err);
    if (rv == BNS_OK)
        rv = bns_raft_node_open(env, &nc, c->cfg->subject->ops(), s->sm, &s->node, &err);
    if (rv == BNS_OK)
        rv = cluster_members_addresses(s);
    if (rv == BNS_OK)
        rv = bns_raft_node_start(s->node, &err);
    s->up = rv == BNS_OK;
    if (rv == BNS_E_CORRUPT)
        cluster_complain(c, "server %u does not start: %s", id, err.text);
    c->out->restarts++;
    return rv;
}

static void server_died(unsigned id, int code, const char *text, void *arg)
{
    struct cluster *c = arg;

    if (code != 0)
        bns_world_note(c->w, "server %u stopped with %d: %s", id, code, text);
    c->servers[id].up = false;
    if (c->cfg->subject->died != NULL && c->servers[id].sm != NULL)
        c->cfg->subject->died(c->servers[id].sm);
    c->servers[id].sm = NULL;
    c->servers[id].stopping = false;
    for (unsigned i = 0; i < c->cfg->clients; i++) {
        if (c->ops[i].active && c->ops[i].server == id)
            end_op(&c->ops[i], false);
    }
}

/* ---- clients -------------------------------------------------------------------------------- */

static void read_over(void *arg, uint64_t value)
{
    struct read *r = arg;
    struct op *o = r->o;

    if (o->active && o->id == r->id) {
        struct bns_lin_op *h = &o->c->history[o->slot];

        h->value = value;
        o->c->last[h->key] = value;
        end_op(o, true);
    }
    bns_free(r->env->alloc, r);
}

static void on_read(struct bns_raft_read *br, int code)
{
    struct read *r = BNS_CONTAINER(br, struct read, read);
    struct op *o = r->o;
    bool mine = o->active && o->id == r->id;

    if (mine && code == BNS_OK) {
        const struct bns_cluster_subject *sub = o->c->cfg->subject;

        sub->read(r->env, o->c->servers[o->server].sm, (uint8_t)o->c->history[o->slot].key,
                  read_over, r);
        return;
    }
    if (mine)
        end_op(o, false);
    bns_free(r->env->alloc, r);
}

static void issue_read(struct bns_env *env, struct op *o)
{
    struct read *r = bns_alloc_zero(env->alloc, sizeof *r);

    if (r == NULL) { /* the server has no memory */
        end_op(o, false);
        return;
    }
    r->env = env;
    r->o = o;
    r->id = o->id;
    r->read.fn = on_read;
    bns_raft_node_read(o->c->servers[o->server].node, &r->read, bns_now_ns(env) + TIMEOUT_NS / 2);
}

static void issue(struct bns_env *env, void *arg)
{
    struct op *o = arg;
    struct server *s = &o->c->servers[o->server];

    if (s->node == NULL) /* stopped, its process not yet gone */
        end_op(o, false);
    else if (o->c->history[o->slot].f == BNS_LIN_GET)
        issue_read(env, o);
    else if (o->c->cfg->subject->propose(env, s, s->sm, s->node, &o->cmd) != BNS_OK)
        end_op(o, false);
}

static void choose(struct cluster *c, struct op *o, struct bns_prng *p)
{
    struct bns_lin_op *h = &c->history[o->slot];
    uint64_t dice = bns_prng_below(p, 10);

    *h = (struct bns_lin_op){.ret = BNS_LIN_OPEN, .key = bns_prng_below(p, 3)};
    o->id = ++c->next_id * CLIENTS_MAX + o->client;
    o->cmd = (struct bns_register_cmd){.id = o->id, .key = (uint8_t)h->key, .value = o->id + 1};
    h->value = o->cmd.value;
    if (dice < 4) {
        h->f = BNS_LIN_GET;
        h->value = 0;
    } else if (dice < 8) {
        h->f = BNS_LIN_PUT;
    } else {
        h->f = BNS_LIN_CAS;
        o->cmd.cas = true;
        o->cmd.old = c->last[h->key];
        h->expect = o->cmd.old;
    }
    h->call = ++c->position;
}

static void client_turn(struct bns_world *w, void *arg)
{
    struct op *o = arg;
    struct cluster *c = o->c;
    struct bns_prng *p = bns_world_prng(w);
    uint64_t now = bns_world_now(w);

    if (o->active && now > o->begun_ns + TIMEOUT_NS)
        end_op(o, false);
    if (!o->active && !c->stopping && (c->next_id + 2) * CLIENTS_MAX < OPS_MAX) {
        o->server = (unsigned)bns_prng_below(p, c->hosts);
        if (c->servers[o->server].up && cluster_members_converge(&c->servers[o->server])) {
            o->slot = c->history_count++;
            o->active = true;
            o->begun_ns = now;
            choose(c, o, p);
            if (!bns_world_call(w, o->server, issue, o) && o->active)
                end_op(o, false);
        }
    }
    bns_world_at(w, now + bns_prng_range(p, 5 * BNS_MS, 120 * BNS_MS), client_turn, o);
}

/* ---- stops in good order --------------------------------------------------------------------- */

/* The process ends: what is on its disk stays, and nothing was left behind. */
static void process_ends(struct bns_world *w, void *arg)
{
    struct server *s = arg;
    size_t left = bns_test_heap_in_use(bns_world_heap(w, s->id));

    if (!s->stopping || s->node != NULL)
        return; /* it died meanwhile */
    if (s->whole && left > 0)
        cluster_complain(s->c, "server %u stopped, %zu bytes of its memory are left", s->id, left);
    if (s->leaves) { /* it belongs no more */
        s->c->out->leaves++;
        bns_world_retire(w, s->id);
        return;
    }
    bns_world_kill(w, s->id);
    bns_world_restart(w, s->id);
}

void bns_raft_cluster_closed(void *server, bool whole)
{
    struct server *s = server;

    s->sm = NULL;
    s->whole = whole;
    bns_world_at(s->c->w, bns_world_now(s->c->w) + BNS_SEC, process_ends, s);
}

static void node_closed(void *arg)
{
    struct server *s = arg;

    s->node = NULL;
    s->up = false;
    s->c->cfg->subject->close(bns_world_env(s->c->w, s->id), s, s->sm);
}

void cluster_stop_server(struct bns_env *env, void *arg)
{
    struct server *s = arg;

    s->stopping = true;
    s->stop_ns = bns_now_ns(env);
    s->c->out->stops++;
    bns_raft_node_close(s->node, node_closed, s);
}

/* Stops one server now and then; clients go on asking it until it has gone. */
static void stop_turn(struct bns_world *w, void *arg)
{
    struct cluster *c = arg;
    struct server *s = &c->servers[bns_prng_below(&c->stop_prng, c->hosts)];
    bool strike = bns_prng_chance(&c->stop_prng, c->cfg->stop);

    if (bns_world_now(w) >= c->cfg->run_ns)
        return;
    if (strike && s->up && !s->stopping)
        (void)bns_world_call(w, s->id, cluster_stop_server, s); /* false: it is paused */
    bns_world_at(w, bns_world_now(w) + STOP_TICK_NS, stop_turn, c);
}

/* Where each server stands, into the trace. */
static void note_status(struct cluster *c)
{
    for (unsigned i = 0; i < c->hosts; i++) {
        struct bns_raft_status st;

        if (!c->servers[i].up) {
            bns_world_note(c->w, "server %u is down", i);
            continue;
        }
        bns_raft_node_status(c->servers[i].node, &st);
        bns_world_note(c->w,
                       "server %u role %d term %llu leader %llu commit %llu applied %llu log "
                       "%llu..%llu durable %llu",
                       i, st.role, (unsigned long long)st.term, (unsigned long long)st.leader,
                       (unsigned long long)st.commit, (unsigned long long)st.applied,
                       (unsigned long long)st.first_index, (unsigned long long)st.last_index,
                       (unsigned long long)st.durable_index);
        for (uint32_t k = 0; st.role == BNS_RAFT_LEADER && k < st.peers_count; k++)
            bns_world_note(c->w, "  peer %llu match %llu next %llu state %u inflight %u active %d",
                           (unsigned long long)st.peers[k].id,
                           (unsigned long long)st.peers[k].match,
                           (unsigned long long)st.peers[k].next, st.peers[k].state,
                           st.peers[k].inflight, st.peers[k].recent_active);
    }
}

/* ---- registers as the subject -------------------------------------------------------------- */

static void register_applied(void *server, uint64_t index, const struct bns_register_cmd *cmd,
                             bool done)
{
    bns_raft_cluster_applied(server, index, cmd->id, done);
}

static int register_open(struct bns_env *env, void *server, void **sm, struct bns_err *err)
{
    struct bns_register_sm *r = NULL;
    int rv = bns_register_open(env, ".", register_applied, server, &r, err);

    *sm = r;
    return rv;
}

static uint64_t register_index(const void *sm)
{
    return bns_register_applied(sm);
}

static const struct bns_raft_conf *register_conf(const void *sm)
{
    return bns_register_conf(sm);
}

static int register_propose(struct bns_env *env, void *server, void *sm, struct bns_raft_node *n,
                            const struct bns_register_cmd *cmd)
{
    struct bns_rcbuf *b = bns_register_encode(env->alloc, cmd);
    int rv = b == NULL ? BNS_E_NOMEM : bns_raft_node_propose(n, b);

    (void)server;
    (void)sm;
    bns_rcbuf_put(b);
    return rv;
}

static void register_read(struct bns_env *env, void *sm, uint8_t key, bns_cluster_read_done *done,
                          void *arg)
{
    (void)env;
    done(arg, bns_register_value(sm, key));
}

static void register_close(struct bns_env *env, void *server, void *sm)
{
    (void)env;
    bns_register_close(sm);
    bns_raft_cluster_closed(server, true);
}

const struct bns_cluster_subject bns_cluster_registers = {
    .open = register_open,
    .close = register_close,
    .ops = bns_register_ops,
    .applied = register_index,
    .propose = register_propose,
    .read = register_read,
    .conf = register_conf,
    .tells_index = true,
};

/* ---- the run -------------------------------------------------------------------------------- */

struct bns_raft_cluster_config bns_raft_cluster_swarm(uint64_t seed)
{
    struct bns_prng p;
    struct bns_raft_cluster_config cfg = {
        .subject = &bns_cluster_registers, .run_ns = 30 * BNS_SEC, .heal_ns = 20 * BNS_SEC};

    bns_prng_seed(&p, seed ^ UINT64_C(0x6e0de));
    cfg.servers = bns_prng_chance(&p, 0.2) ? 1 : (bns_prng_chance(&p, 0.7) ? 3 : 5);
    cfg.clients = (unsigned)bns_prng_range(&p, 1, CLIENTS_MAX);
    cfg.snapshot_entries = bns_prng_range(&p, 10, 200);
    cfg.trailing_entries = bns_prng_range(&p, 1, 50);
    cfg.world = bns_world_swarm(seed, cfg.servers, cfg.servers, false);
    bns_prng_seed(&p,
                  seed ^ UINT64_C(0x570b5)); /* a stream of its own: drawn later than the rest */
    cfg.stop = bns_prng_chance(&p, 0.3) ? bns_prng_double(&p) * 0.05 : 0;
    cfg.world.nemesis.oom = bns_prng_chance(&p, 0.3) ? bns_prng_double(&p) * 0.01 : 0;
    if (bns_prng_chance(&p, 0.3)) {
        cfg.world.nemesis.full = bns_prng_double(&p) * 0.02;
        cfg.world.nemesis.full_max_ns = bns_prng_range(&p, 100 * BNS_MS, 10 * BNS_SEC);
        cfg.reserve_bytes = bns_prng_chance(&p, 0.5) ? 64 * 1024 : 0;
    }
    return cfg;
}

struct bns_raft_cluster_config bns_raft_cluster_swarm_members(uint64_t seed)
{
    struct bns_raft_cluster_config cfg = bns_raft_cluster_swarm(seed);
    struct bns_world_config was = cfg.world;
    struct bns_prng p;

    bns_prng_seed(&p, seed ^ UINT64_C(0x3e3be5));
    cfg.servers = bns_prng_chance(&p, 0.3) ? 1 : 3;
    cfg.spares = (unsigned)bns_prng_range(&p, 2, SERVERS_MAX - cfg.servers);
    cfg.world = bns_world_swarm(seed, cfg.servers + cfg.spares, cfg.servers + cfg.spares, false);
    cfg.world.nemesis.oom = was.nemesis.oom;
    cfg.world.nemesis.full = was.nemesis.full;
    cfg.world.nemesis.full_max_ns = was.nemesis.full_max_ns;
    cfg.heal_ns = 60 * BNS_SEC; /* who was removed and not told asks after a while */
    return cfg;
}

static void converge(struct cluster *c)
{
    uint64_t top = 0;

    for (unsigned i = 0; i < c->hosts && !c->failed; i++) {
        if (!cluster_members_converge(&c->servers[i]))
            continue;
        if (!c->servers[i].up)
            cluster_complain(c, "server %u is not up after the faults stopped", i);
        else if (c->cfg->subject->applied(c->servers[i].sm) > top)
            top = c->cfg->subject->applied(c->servers[i].sm);
    }
    for (unsigned i = 0; i < c->hosts && !c->failed; i++) {
        if (cluster_members_converge(&c->servers[i]) &&
            c->cfg->subject->applied(c->servers[i].sm) != top)
            cluster_complain(c,
                             "server %u stands at %llu, another at %llu, after the faults stopped",
                             i, (unsigned long long)c->cfg->subject->applied(c->servers[i].sm),
                             (unsigned long long)top);
    }
}

static void check_history(struct cluster *c)
{
    struct bns_lin_result res = {0};
    int rv;

    for (size_t i = 0; i < c->history_count; i++) {
        const struct bns_lin_op *h = &c->history[i];

        if (c->cfg->subject->tells_index && h->f == BNS_LIN_PUT && h->ret != BNS_LIN_OPEN &&
            c->by_id[h->value - 1] == 0)
            cluster_complain(c, "an acknowledged write is nowhere in the log");
    }
    rv = bns_lin_check(bns_alloc_libc(), &bns_lin_register, c->history, c->history_count, 0, &res);
    for (size_t i = 0; rv == BNS_E_CONFLICT && i < c->history_count; i++) {
        const struct bns_lin_op *h = &c->history[i];

        if (h->key == res.key)
            bns_world_note(c->w, "op %zu f %d call %llu ret %llu value %llu expect %llu failed %d",
                           i, (int)h->f, (unsigned long long)h->call,
                           h->ret == BNS_LIN_OPEN ? 0 : (unsigned long long)h->ret,
                           (unsigned long long)h->value, (unsigned long long)h->expect, h->failed);
    }
    if (rv == BNS_E_CONFLICT)
        cluster_complain(c, "not linearizable: key %llu, operation %zu",
                         (unsigned long long)res.key, res.op);
}

static void run(struct cluster *c)
{
    const struct bns_node_main main = {
        .start = server_start, .died = server_died, .arg = c, .restart_ns = 500 * BNS_MS};
    const char *bad;
    uint64_t ok_before;

    for (unsigned i = 0; i < c->hosts; i++) {
        c->servers[i] = (struct server){.c = c, .id = i};
        bns_world_start(c->w, i, &main);
    }
    for (unsigned i = 0; i < c->cfg->clients; i++) {
        c->ops[i].c = c;
        c->ops[i].client = i;
        bns_world_at(c->w, BNS_MS * (i + 1), client_turn, &c->ops[i]);
    }
    if (c->cfg->stop > 0)
        bns_world_at(c->w, BNS_SEC, stop_turn, c);
    if (c->cfg->spares > 0)
        cluster_members_start(c);
    bns_world_nemesis(c->w, true);
    bad = bns_world_run(c->w, c->cfg->run_ns, check, c);
    bns_world_heal(c->w);
    ok_before = c->out->ops_ok;
    if (bad == NULL)
        bad = bns_world_run(c->w, c->cfg->run_ns + c->cfg->heal_ns / 2, check, c);
    if (bad == NULL && c->out->ops_ok == ok_before)
        cluster_complain(c, "no operation succeeded in %llu s after the faults stopped",
                         (unsigned long long)(c->cfg->heal_ns / 2 / BNS_SEC));
    c->stopping = true;
    if (bad == NULL)
        bad = bns_world_run(c->w, c->cfg->run_ns + c->cfg->heal_ns, check, c);
    if (bad == NULL && c->cfg->spares > 0)
        cluster_members_check(c);
    if (bad == NULL)
        converge(c);
    if (!c->failed)
        check_history(c);
    if (c->failed)
        note_status(c);
}

bool bns_raft_cluster_run(uint64_t seed, const struct bns_raft_cluster_config *cfg,
                          struct bns_raft_cluster_result *out)
{
    const struct bns_alloc *a = bns_alloc_libc();
    struct cluster *c = bns_alloc_zero(a, sizeof *c);
    bool ok;

    memset(out, 0, sizeof *out);
    BNS_ASSERT(c != NULL);
    BNS_ASSERT(cfg->servers + cfg->spares <= SERVERS_MAX && cfg->clients <= CLIENTS_MAX);
    c->hosts = cfg->servers + cfg->spares;
    c->cfg = cfg;
    c->out = out;
    bns_prng_seed(&c->stop_prng, seed ^ UINT64_C(0x570b));
    bns_prng_seed(&c->members_prng, seed ^ UINT64_C(0x3e3be));
    c->history = bns_alloc_array(a, OPS_MAX, sizeof *c->history);
    c->by_id = bns_alloc_zero(a, OPS_MAX * sizeof *c->by_id);
    BNS_ASSERT(c->history != NULL && c->by_id != NULL);
    BNS_ASSERT(bns_world_new(seed, &cfg->world, &c->w) == BNS_OK);
    bns_world_trace(c->w, cfg->trace, cfg->trace_arg);
    run(c);
    out->trace_hash = bns_world_trace_hash(c->w);
    out->events = bns_world_events(c->w);
    ok = !c->failed;
    for (unsigned i = 0; i < c->hosts; i++) { /* what a subject has outside its node's memory */
        if (c->servers[i].sm != NULL)
            bns_world_kill(c->w, i);
    }
    bns_world_free(c->w);
    bns_free(a, c->by_id);
    bns_free(a, c->history);
    bns_free(a, c);
    return ok;
}
