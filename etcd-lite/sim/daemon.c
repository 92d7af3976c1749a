/* daemon.c - one run: faults, healing, the demand for progress, the final reads, the verdict.
 *
 *     0 .. run_ns             faults strike, clients work
 *     .. + GRACE              faults have stopped; what was lost may still time out
 *     .. + STRICT             every operation that begins succeeds
 *     then                    lanes come to rest; final reads; at heal_ns all must be done
 */
#include <stdarg.h>
#include <stdio.h>

#include "daemon_int.h"

#define GRACE_NS (8 * BNS_SEC)
#define STRICT_NS (4 * BNS_SEC)
#define LEASES_NS (4 * BNS_SEC) /* with STRICT_NS: what a new leader lets the longest lease live */

void sim_complain(struct etcd_sim *m, const char *fmt, ...)
{
    va_list ap;

    if (m->failed)
        return;
    m->failed = true;
    va_start(ap, fmt);
    (void)vsnprintf(m->out->text, sizeof m->out->text, fmt, ap); /* cut when long */
    va_end(ap);
    bns_world_note(m->w, "WRONG: %s", m->out->text);
}

const char *etcd_sim_judged_name(enum etcd_sim_judged kind)
{
    static const char *const names[ETCD_SIM_JUDGED] = {
        [ETCD_SIM_DENIED] = "denials",        [ETCD_SIM_ALLOWED] = "operations of a user",
        [ETCD_SIM_OFF] = "ones without auth", [ETCD_SIM_CONFS] = "changes of members",
        [ETCD_SIM_JOINS] = "joins",           [ETCD_SIM_REMOVALS] = "removals",
        [ETCD_SIM_PROMOTIONS] = "promotions", [ETCD_SIM_EXPIRIES] = "leases that ran out",
        [ETCD_SIM_LOCKS] = "locks taken",
    };

    return names[kind];
}

static const char *look(struct bns_world *w, void *arg)
{
    struct etcd_sim *m = arg;

    (void)w;
    sim_servers_look(m);
    return m->failed ? m->out->text : NULL;
}

/* ---- faults of a seed ------------------------------------------------------------------------ */

/* Each in a third of the seeds; from a stream of its own, so that the others stay as they are. */
static void swarm_operators(uint64_t seed, struct etcd_sim_config *c)
{
    struct bns_prng p;

    bns_prng_seed(&p, seed ^ UINT64_C(0x3e3be5));
    c->auth = bns_prng_chance(&p, 0.3);
    if (c->auth)
        c->heal_ns = 56 * BNS_SEC; /* at most */
    if (!bns_prng_chance(&p, 0.34))
        return;
    c->members = 1;
    c->spares = (unsigned)bns_prng_range(&p, 0, ETCD_SIM_SPARES_MAX);
    if (bns_prng_chance(&p, 0.2))
        c->servers = 1;
    c->heal_ns = 56 * BNS_SEC; /* at most */
    c->world.servers = c->servers + c->spares;
    c->world.nodes = c->world.servers + c->clients;
}

struct etcd_sim_config etcd_sim_swarm(uint64_t seed)
{
    struct bns_prng p;
    struct etcd_sim_config c = {.run_ns = 40 * BNS_SEC, .heal_ns = 20 * BNS_SEC};

    bns_prng_seed(&p, seed ^ UINT64_C(0xdae307));
    c.servers = bns_prng_chance(&p, 0.8) ? 3 : 5;
    c.clients = (unsigned)bns_prng_range(&p, 1, 3);
    c.lanes = (unsigned)bns_prng_range(&p, 1, ETCD_SIM_LANES_MAX);
    c.keys = (unsigned)bns_prng_range(&p, 1, 5);
    c.think_ns = bns_prng_range(&p, 10 * BNS_MS, 300 * BNS_MS);
    c.snapshot_count = bns_prng_range(&p, 10, 300);
    c.trailing_entries = bns_prng_range(&p, 1, 50);
    c.turn_keys = (uint32_t)(seed % 4); /* no draw: the seeds stay what they were */
    c.segment_bytes = 64 * 1024;
    c.world = bns_world_swarm(seed, c.servers + c.clients, c.servers, false);
    c.stop = bns_prng_chance(&p, 0.3) ? bns_prng_double(&p) * 0.03 : 0;
    c.world.nemesis.oom = bns_prng_chance(&p, 0.3) ? bns_prng_double(&p) * 0.01 : 0;
    if (bns_prng_chance(&p, 0.3)) {
        c.world.nemesis.full = bns_prng_double(&p) * 0.02;
        c.world.nemesis.full_max_ns = bns_prng_range(&p, 100 * BNS_MS, 10 * BNS_SEC);
        c.reserve_bytes = bns_prng_chance(&p, 0.5) ? 256 * 1024 : 0;
    }
    c.workers =
        bns_prng_chance(&p, 0.9) ? (unsigned)bns_prng_range(&p, 1, ETCD_SIM_WORKERS_MAX) : 0;
    c.work = (enum etcd_sim_work)bns_prng_below(&p, ETCD_SIM_WORKS);
    swarm_operators(seed, &c);
    return c;
}

/* ---- the run --------------------------------------------------------------------------------- */

static void run_phase(struct etcd_sim *m, enum sim_phase phase, uint64_t until_ns)
{
    if (m->failed)
        return;
    m->phase = phase;
    (void)bns_world_run(m->w, until_ns, look, m); /* its complaint is in m */
}

static void run_final(struct etcd_sim *m, uint64_t until_ns)
{
    m->phase = SIM_FINAL;
    while (!m->failed && m->phase == SIM_FINAL && bns_world_now(m->w) < until_ns)
        (void)bns_world_run(m->w, bns_world_now(m->w) + 50 * BNS_MS, look, m); /* as above */
    if (m->phase != SIM_DONE)
        sim_complain(m, "%llu s after the faults stopped the members do not hold the same",
                     (unsigned long long)(m->cfg->heal_ns / BNS_SEC));
}

static bool is_settled(const struct etcd_sim *m)
{
    return (!m->cfg->members || m->operator.settled) && (!m->cfg->auth || m->authority.settled);
}

/* Until everybody who belongs votes, nobody else runs, every client has a token, and somebody has
 * led for a while: the first leader may come late, when a member that was never started is missing
 * for a quorum. */
static void run_settle(struct etcd_sim *m, uint64_t until_ns)
{
    bool done = false;

    while (!m->failed && !done && bns_world_now(m->w) < until_ns) {
        run_phase(m, SIM_HEALED, bns_world_now(m->w) + 100 * BNS_MS);
        if (is_settled(m) && m->quiet_ns == 0)
            m->quiet_ns = bns_world_now(m->w);
        done = m->quiet_ns != 0 && (!m->cfg->auth || sim_creds_fresh(m)) &&
               bns_world_now(m->w) >= m->led_ns + LEASES_NS;
    }
    if (!done)
        sim_complain(m, "%llu s after the faults stopped members%s and auth%s are not settled",
                     (unsigned long long)((until_ns - m->cfg->run_ns) / BNS_SEC),
                     m->operator.settled ? ", which are," : "",
                     m->authority.settled ? ", which is," : "");
}

static void choose_final(struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->hosts; i++) {
        if (m->servers[i].member != 0)
            m->final[m->final_count++] = i;
    }
}

static void run(struct etcd_sim *m)
{
    uint64_t end = m->cfg->run_ns + m->cfg->heal_ns;
    uint64_t strict, before;

    sim_servers_start(m);
    sim_clients_start(m);
    if (m->cfg->stop > 0)
        bns_world_at(m->w, BNS_SEC, sim_servers_stop_turn, m);
    bns_world_nemesis(m->w, true);
    run_phase(m, SIM_FAULTS, m->cfg->run_ns);
    bns_world_heal(m->w);
    run_phase(m, SIM_HEALED, m->cfg->run_ns + GRACE_NS);
    if (m->cfg->members || m->cfg->auth)
        run_settle(m, end - 2 * STRICT_NS);
    choose_final(m);
    strict = bns_world_now(m->w);
    before = m->out->ops_ok;
    run_phase(m, SIM_STRICT, strict + STRICT_NS);
    if (!m->failed && m->out->ops_ok == before)
        sim_complain(m, "no operation succeeded in %llu s, long after the faults stopped",
                     (unsigned long long)(STRICT_NS / BNS_SEC));
    if (!m->failed)
        run_final(m, end);
    if (!m->failed)
        sim_work_check(m);
    if (!m->failed)
        sim_check_history(m);
    if (m->failed)
        sim_servers_note(m);
}

static void open_tables(struct etcd_sim *m)
{
    const struct bns_alloc *a = bns_alloc_libc();

    m->digests = bns_alloc_zero(a, SIM_APPLIED_MAX * sizeof *m->digests);
    m->leader_of = bns_alloc_zero(a, SIM_TERMS_MAX * sizeof *m->leader_of);
    m->seen = bns_alloc_zero(a, SIM_REVS_MAX * sizeof *m->seen);
    m->seen_at = bns_alloc_zero(a, SIM_REVS_MAX * sizeof *m->seen_at);
    BNS_ASSERT(m->seen_at != NULL);
    BNS_ASSERT(m->digests != NULL);
    BNS_ASSERT(m->leader_of != NULL);
    BNS_ASSERT(m->seen != NULL);
    BNS_ASSERT(bns_history_new(a, &m->history) == BNS_OK);
    BNS_ASSERT(bns_history_new(a, &m->work_history) == BNS_OK);
    bns_arena_init(&m->arena, a, 4u * 1024 * 1024);
}

static void close_tables(struct etcd_sim *m)
{
    const struct bns_alloc *a = bns_alloc_libc();

    bns_history_free(m->history);
    bns_history_free(m->work_history);
    bns_arena_free(&m->arena);
    bns_free(a, m->seen_at);
    bns_free(a, m->seen);
    bns_free(a, m->leader_of);
    bns_free(a, m->digests);
    bns_free(a, m);
}

bool etcd_sim_run(uint64_t seed, const struct etcd_sim_config *cfg, struct etcd_sim_result *out)
{
    struct etcd_sim *m = bns_alloc_zero(bns_alloc_libc(), sizeof *m);
    bool ok;

    memset(out, 0, sizeof *out);
    BNS_ASSERT(m != NULL);
    BNS_ASSERT(cfg->servers <= ETCD_SIM_SERVERS_MAX && cfg->clients <= ETCD_SIM_CLIENTS_MAX);
    BNS_ASSERT(cfg->spares <= ETCD_SIM_SPARES_MAX && (cfg->members || cfg->spares == 0));
    m->hosts = cfg->servers + cfg->spares;
    BNS_ASSERT(cfg->workers <= ETCD_SIM_WORKERS_MAX && cfg->work < ETCD_SIM_WORKS);
    BNS_ASSERT(cfg->lanes <= ETCD_SIM_LANES_MAX && cfg->keys <= ETCD_SIM_KEYS_MAX);
    m->cfg = cfg;
    m->out = out;
    m->rev_known = 1;
    bns_prng_seed(&m->prng, seed ^ UINT64_C(0x570b));
    open_tables(m);
    BNS_ASSERT(bns_world_new(seed, &cfg->world, &m->w) == BNS_OK);
    bns_world_record(m->w, cfg->trace);
    bns_world_trace(m->w, cfg->line, cfg->line_arg);
    run(m);
    out->trace_hash = bns_world_trace_hash(m->w);
    out->events = bns_world_events(m->w);
    out->virtual_ns = bns_world_now(m->w);
    ok = !m->failed;
    sim_clients_end(m);
    for (unsigned i = 0; i < m->hosts; i++) /* SQLite's memory is not the node's */
        bns_world_kill(m->w, i);
    bns_world_free(m->w);
    if (cfg->history != NULL)
        BNS_ASSERT(bns_history_write(m->history, cfg->history) == BNS_OK);
    if (cfg->work_history != NULL)
        BNS_ASSERT(bns_history_write(m->work_history, cfg->work_history) == BNS_OK);
    close_tables(m);
    return ok;
}
