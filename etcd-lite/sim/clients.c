/* clients.c - client nodes: lanes that each have one operation under way, and the final reads.
 *
 * A lane picks an operation and a member, sends it with a deadline, takes the answer, thinks, goes
 * on; after a failure the next operation goes to whichever member the dice say. Once the faults
 * have stopped, what begins after GRACE must succeed. In the end the lanes come to rest, and one of
 * them reads every key at every member, then asks all for their hash until they stand at the same
 * revision: the hashes must be equal.
 */
#include "daemon_int.h"

#include <stdio.h>

#define STRICT_DEADLINE_NS (20 * BNS_SEC)
#define RETRY_NS (100 * BNS_MS)
#define BACKOFF_NS BNS_SEC /* at most, after a failure: each may leave an outcome unknown */

static void lane_turn(void *arg);

static void rest(struct sim_lane *l, uint64_t ns)
{
    bns_timer_start(l->owner->env, &l->timer, bns_now_ns(l->owner->env) + ns);
}

/* ---- the final reads ------------------------------------------------------------------------- */

/* Steps: for each member each key, then the keys on leases, then the hash of each member. */
static void final_choose(struct sim_lane *l)
{
    struct etcd_sim *m = l->m;
    unsigned reads = m->final_count * m->cfg->keys;

    l->value = l->expect = 0;
    l->rev = 0;
    l->session = false;
    if (l->step < reads) {
        l->f = SIM_GET;
        l->server = m->final[l->step / m->cfg->keys];
        l->key = l->step % m->cfg->keys;
    } else if (l->step == reads) {
        l->f = SIM_LEASED;
        l->server = m->final[0];
        l->key = 0;
    } else {
        l->f = SIM_HASH;
        l->server = m->final[l->step - reads - 1];
        l->key = 0;
    }
}

static void compare_hashes(struct sim_lane *l)
{
    struct etcd_sim *m = l->m;
    unsigned first = m->final[0];
    bool same = true;

    for (unsigned k = 1; k < m->final_count; k++)
        same = same && m->hash_revs[m->final[k]] == m->hash_revs[first];
    for (unsigned k = 1; k < m->final_count && same; k++) {
        unsigned i = m->final[k];

        if (m->hashes[i] != m->hashes[first])
            sim_complain(m, "n%u and n%u differ at revision %lld: HashKV says %08x and %08x", i,
                         first, (long long)m->hash_revs[first], m->hashes[i], m->hashes[first]);
    }
    if (same && sim_watchers_at(m, m->hash_revs[first]))
        m->phase = SIM_DONE;
    else
        l->step = m->final_count * m->cfg->keys; /* somebody lags: again */
}

static void final_ended(struct sim_lane *l, int status)
{
    struct etcd_sim *m = l->m;
    unsigned reads = m->final_count * m->cfg->keys;

    if (status == BNS_GRPC_OK && l->f == SIM_HASH) {
        m->hashes[l->server] = l->got_hash;
        m->hash_revs[l->server] = l->got_rev;
    }
    if (status == BNS_GRPC_OK)
        l->step++;
    if (l->step == reads + 1 + m->final_count)
        compare_hashes(l);
}

/* ---- one operation --------------------------------------------------------------------------- */

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct sim_lane *l = bns_grpc_ccall_arg(c);

    if (l->busy)
        sim_op_decode(l, msg);
    else
        sim_complain(l->m, "a message for a call that had ended");
}

void sim_lane_finish(struct sim_lane *l, int status, const char *text)
{
    struct etcd_sim *m = l->m;

    if (!l->busy) {
        sim_complain(m, "a call ended twice");
        return;
    }
    l->busy = false;
    m->busy--;
    bns_world_record_event(m->w, BNS_TRACE_REPLY, l->owner->id, l->op, text);
    if (l->strict && status == BNS_GRPC_UNAVAILABLE && !l->owner->found_dead[l->server])
        l->owner->found_dead[l->server] = true; /* its peer lost power, nobody had asked since */
    else if (l->strict && status != BNS_GRPC_OK && status != BNS_GRPC_OUT_OF_RANGE)
        sim_complain(m, "operation %d at n%u, long after the faults stopped, ended with %d: %s",
                     (int)l->f, l->server, status, text);
    if (m->phase == SIM_DONE)
        return;
    sim_op_ended(l, status, text);
    if (m->phase == SIM_FINAL) {
        final_ended(l, status);
        rest(l, status == BNS_GRPC_OK ? BNS_MS : RETRY_NS);
        return;
    }
    rest(l, bns_prng_below(&l->owner->env->prng,
                           (status == BNS_GRPC_OK ? m->cfg->think_ns : BACKOFF_NS) + 1));
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    sim_lane_finish(bns_grpc_ccall_arg(c), status, text);
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static uint64_t deadline(struct sim_lane *l)
{
    struct bns_env *env = l->owner->env;

    if (l->strict)
        return bns_now_ns(env) + STRICT_DEADLINE_NS;
    return bns_now_ns(env) +
           bns_prng_range(&env->prng, 50 * BNS_MS,
                          bns_prng_chance(&env->prng, 0.8) ? BNS_SEC : 8 * BNS_SEC);
}

static void send(struct sim_lane *l)
{
    char token[ETCD_TOKEN_TEXT];
    int len = snprintf(token, sizeof token, "%lld", (long long)l->floor); /* fits */
    struct bns_grpc_md md[2] = {{bns_slice_str(ETCD_MIN_REVISION), bns_slice(token, (size_t)len)}};
    struct bns_grpc_call_options opt = {
        .deadline_ns = deadline(l), .md = md, .md_count = l->session};
    struct bns_arena arena;
    struct bns_slice req;

    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    opt.md_count += sim_creds_md(l->owner, l->as_user, &md[opt.md_count]);
    req = sim_op_encode(l, &arena, &opt.path);
    sim_op_invoked(l);
    if (bns_grpc_unary(l->owner->grpc[l->server], &opt, req, &handler, l) != BNS_OK)
        sim_complain(l->m, "the client has no memory");
    bns_arena_free(&arena);
}

/* ---- scrapes: what a monitoring system asks -------------------------------------------------- */

static void scraped(void *arg, int code, const struct bns_http_answer *a)
{
    struct sim_lane *l = arg;
    const char *want = l->key % 2 == 0 ? "etcd_server_has_leader" : "\"health\":";

    l->fetch = NULL;
    l->busy = false;
    l->m->busy--;
    bns_world_record_event(l->m->w, BNS_TRACE_REPLY, l->owner->id, l->op, bns_err_name(code));
    if (code == BNS_OK && a->status != 200 && a->status != 503)
        sim_complain(l->m, "n%u answered a scrape with %d", l->server, a->status);
    if (code == BNS_OK && a->status == 200 && l->m->cfg->world.nemesis.oom == 0 &&
        memmem(a->body.ptr, a->body.len, want, strlen(want)) == NULL)
        sim_complain(l->m, "n%u answered a scrape without %s", l->server, want);
    if (code == BNS_OK)
        l->m->out->scrapes++;
    if (l->strict && code != BNS_OK)
        sim_complain(l->m, "a scrape of n%u, long after the faults stopped: %s", l->server,
                     bns_err_name(code));
    rest(l, bns_prng_below(&l->owner->env->prng, l->m->cfg->think_ns + 1));
}

static void scrape(struct sim_lane *l)
{
    struct bns_http_fetch_opts o = {.host = bns_world_host(l->m->w, l->server),
                                    .port = SIM_CLIENT_PORT,
                                    .target = l->key % 2 == 0 ? "/metrics" : "/health",
                                    .timeout_ns = 5 * BNS_SEC};

    if (bns_http_fetch(l->owner->env, &o, scraped, l, &l->fetch, NULL) != BNS_OK)
        sim_complain(l->m, "the client has no memory");
}

/* ---- lanes ----------------------------------------------------------------------------------- */

static void begin(struct sim_lane *l)
{
    static const char *const names[] = {"get",          "put",  "cas",    "cas",
                                        "delete",       "old",  "range",  "compact",
                                        "serializable", "hash", "leased", "scrape"};
    struct etcd_sim *m = l->m;
    char text[64];

    l->busy = true;
    m->busy++;
    l->op = ++m->ops;
    l->begun_ns = bns_world_now(m->w);
    l->strict = m->phase >= SIM_STRICT;
    l->messages = 0;
    l->got_rev = l->got_mod = 0;
    l->got_value = 0;
    l->got_yes = l->was_known = false;
    l->was_value = 0;
    l->was_rev = 0;
    l->recorded = false;
    l->floor = m->rev_known;
    l->as_user = l->number % 2 == 1 && l->f != SIM_COMPACT; /* which is an administrator's */
    l->may = sim_auth_may(m, l);
    l->may_epoch = m->authority.epoch;
    (void)snprintf(text, sizeof text, "%s k%u", names[l->f], l->key); /* fits */
    bns_world_record_event(m->w, BNS_TRACE_INVOKE, l->owner->id, l->op, text);
    if (l->f == SIM_SCRAPE)
        scrape(l);
    else
        send(l);
}

static void lane_turn(void *arg)
{
    struct sim_lane *l = arg;
    struct etcd_sim *m = l->m;

    BNS_ASSERT(!l->busy);
    if (m->phase == SIM_DONE || m->failed)
        return;
    if (m->phase == SIM_FINAL) {
        if (l->number != 0)
            return; /* at rest */
        if (m->busy > 0) {
            rest(l, RETRY_NS);
            return;
        }
        final_choose(l);
    } else {
        sim_op_choose(l, &l->owner->env->prng);
    }
    begin(l);
}

static int client_start(struct bns_env *env, unsigned id, void *arg)
{
    struct sim_client *o = arg;
    int rv = BNS_OK;

    (void)id;
    o->env = env;
    for (unsigned i = 0; i < o->m->hosts && rv == BNS_OK; i++)
        rv = bns_grpc_client_new(env, bns_world_host(o->m->w, i), SIM_CLIENT_PORT, &o->grpc[i],
                                 NULL);
    for (unsigned i = 0; i < o->m->cfg->lanes && rv == BNS_OK; i++) {
        struct sim_lane *l = &o->lanes[i];

        l->m = o->m;
        l->owner = o;
        l->number = (o->id - o->m->hosts) * o->m->cfg->lanes + i;
        l->process = o->m->process_next++;
        bns_timer_init(&l->timer, lane_turn, l);
        rest(l, bns_prng_below(&env->prng, 500 * BNS_MS));
    }
    for (unsigned i = 0; i < o->m->cfg->workers && rv == BNS_OK; i++)
        sim_worker_start(o, i);
    if (rv == BNS_OK) {
        sim_watcher_start(o);
        sim_holder_start(o);
    }
    if (rv == BNS_OK && o->m->cfg->members && o->id == o->m->hosts)
        sim_operator_start(o);
    if (rv == BNS_OK && o->m->cfg->auth) {
        sim_creds_start(o);
        if (o->id == o->m->hosts)
            sim_authority_start(o);
    }
    return rv;
}

void sim_clients_start(struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->cfg->clients; i++) {
        struct bns_node_main main = {.start = client_start, .arg = &m->clients[i]};

        m->clients[i].m = m;
        m->clients[i].id = m->hosts + i;
        bns_world_start(m->w, m->hosts + i, &main);
    }
}

static void close_client(struct bns_env *env, void *arg)
{
    struct sim_client *o = arg;

    (void)env;
    for (unsigned i = 0; i < o->m->hosts; i++)
        bns_grpc_client_free(o->grpc[i]);
}

void sim_clients_end(struct etcd_sim *m)
{
    m->phase = SIM_DONE;
    for (unsigned i = 0; i < m->cfg->clients; i++)
        (void)bns_world_call(m->w, m->clients[i].id, close_client, &m->clients[i]);
}
