/* watchers.c - one watch a client node, over all keys that the simulation writes.
 *
 * Every revision of these runs changes keys in WATCH_FROM .. WATCH_TO and nothing else. So a watch
 * must be told of every revision there is: events come with the revision of the one before (other
 * keys of the same change) or the next one, never with another. A progress notice at R says that
 * all up to R was told: then R is the last one that was. A watch that ends (its member died, it was
 * cancelled by us, nothing came for long) goes on at another member behind the last event that it
 * got. Only a compaction may take events away, and then the watch is told where history begins.
 */
#include "daemon_int.h"

#include "codec/pb.h"

#define WATCH_FROM "a"
#define WATCH_TO "m"
#define TICK_NS (300 * BNS_MS)
#define SILENCE_NS (4 * BNS_SEC)
#define PATH "/etcdserverpb.Watch/Watch"

static void send(struct sim_watcher *v, const Etcdserverpb__WatchRequest *r)
{
    struct bns_arena arena;
    struct bns_slice bytes;

    bns_arena_init(&arena, bns_alloc_libc(), 65536);
    BNS_ASSERT(bns_pb_pack_arena(&r->base, &arena, &bytes) == BNS_OK);
    if (bns_grpc_ccall_send_copy(v->call, bytes) != BNS_OK)
        bns_grpc_ccall_cancel(v->call); /* it has ended; on_status tells */
    bns_arena_free(&arena);
}

/* ---- what comes ------------------------------------------------------------------------------ */

static void take_event(struct sim_watcher *v, const Etcdserverpb__Event *e)
{
    struct etcd_sim *m = v->m;
    bool gone = e->type == ETCDSERVERPB__EVENT__EVENT_TYPE__DELETE;
    int64_t rev = e->kv == NULL ? 0 : e->kv->mod_revision;

    if (rev != v->last + 1 && (rev != v->last || v->in_message != rev)) {
        sim_complain(m, "a watch at n%u got revision %lld behind %lld", v->server, (long long)rev,
                     (long long)v->last);
        return;
    }
    v->last = rev;
    v->in_message = rev;
    m->out->events_watched++;
    if (e->kv->key.len > 0 && e->kv->key.data[0] == 'k')
        sim_observe_kv(m, e->kv, gone);
    else if (gone && e->kv->key.len > 0 && e->kv->key.data[0] == 'l')
        sim_lease_key_gone(m, bns_slice(e->kv->key.data, e->kv->key.len));
}

static void canceled(struct sim_watcher *v, const Etcdserverpb__WatchResponse *r)
{
    struct etcd_sim *m = v->m;

    if (r->compact_revision == 0 && m->cfg->auth)
        sim_creds_stale(v->owner, false); /* for want of a token */
    else if (r->compact_revision == 0)
        sim_complain(m, "n%u cancelled a watch: %s", v->server,
                     r->cancel_reason == NULL ? "" : r->cancel_reason);
    else if (r->compact_revision <= v->last || r->compact_revision > m->compact_asked)
        sim_complain(m, "n%u cancelled a watch at %lld for a compaction at %lld", v->server,
                     (long long)v->last + 1, (long long)r->compact_revision);
    else
        v->last = r->compact_revision - 1; /* the first revision that is still there is it */
    bns_grpc_ccall_cancel(v->call);
}

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct sim_watcher *v = bns_grpc_ccall_arg(c);
    const Etcdserverpb__WatchResponse *r;
    ProtobufCMessage *out = NULL;
    struct bns_arena arena;

    if (v->m->failed || v->m->phase == SIM_DONE)
        return;
    v->heard_ns = bns_now_ns(v->owner->env);
    bns_arena_init(&arena, bns_alloc_libc(), 16u * 1024 * 1024);
    if (bns_pb_unpack(&etcdserverpb__watch_response__descriptor, msg, &arena, NULL, &out, NULL) !=
        BNS_OK) {
        sim_complain(v->m, "n%u sent a watch bytes that are no response", v->server);
        bns_arena_free(&arena);
        return;
    }
    r = (const Etcdserverpb__WatchResponse *)(const void *)out;
    v->in_message = 0;
    for (size_t i = 0; i < r->n_events && !v->m->failed; i++)
        take_event(v, r->events[i]);
    if (r->canceled)
        canceled(v, r);
    else if (r->n_events == 0 && !r->created && r->header->revision > v->last)
        sim_complain(v->m, "n%u told a watch that all is told up to %lld; its last event was %lld",
                     v->server, (long long)r->header->revision, (long long)v->last);
    bns_arena_free(&arena);
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct sim_watcher *v = bns_grpc_ccall_arg(c);

    v->call = NULL;
    if (sim_auth_refused(status, text))
        sim_creds_stale(v->owner, false);
    else if (status == BNS_GRPC_UNIMPLEMENTED || status == BNS_GRPC_INVALID_ARGUMENT)
        sim_complain(v->m, "a watch at n%u ended with %d: %s", v->server, status, text);
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

/* ---- the turn -------------------------------------------------------------------------------- */

static void open_watch(struct sim_watcher *v)
{
    struct bns_grpc_call_options opt = {.path = PATH};
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;

    v->server = sim_pick(v->m, &v->owner->env->prng);
    v->heard_ns = bns_now_ns(v->owner->env);
    sim_creds_use(v->owner, false, &opt);
    if (bns_grpc_call_start(v->owner->grpc[v->server], &opt, &handler, v, &v->call) != BNS_OK) {
        v->call = NULL;
        return;
    }
    create.has_key = create.has_range_end = create.has_start_revision = true;
    create.key = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t)WATCH_FROM};
    create.range_end = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t)WATCH_TO};
    create.start_revision = v->last + 1;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = &create;
    send(v, &r);
}

static void ask_progress(struct sim_watcher *v)
{
    Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;

    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    r.progress_request = &progress;
    send(v, &r);
}

static void turn(void *arg)
{
    struct sim_watcher *v = arg;
    struct bns_env *env = v->owner->env;
    bool leave = v->m->phase == SIM_FAULTS && bns_prng_chance(&env->prng, 0.05);

    if (v->m->phase == SIM_DONE || v->m->failed)
        return;
    if (v->call == NULL)
        open_watch(v);
    else if (leave || bns_now_ns(env) > v->heard_ns + SILENCE_NS)
        bns_grpc_ccall_cancel(v->call);
    else
        ask_progress(v);
    bns_timer_start(env, &v->timer, bns_now_ns(env) + bns_prng_below(&env->prng, TICK_NS));
}

void sim_watcher_start(struct sim_client *o)
{
    struct sim_watcher *v = &o->watcher;

    v->m = o->m;
    v->owner = o;
    v->last = 1; /* an empty store's revision */
    bns_timer_init(&v->timer, turn, v);
    bns_timer_start(o->env, &v->timer, bns_now_ns(o->env) + TICK_NS);
}

bool sim_watchers_at(const struct etcd_sim *m, int64_t rev)
{
    for (unsigned i = 0; i < m->cfg->clients; i++) {
        if (m->clients[i].watcher.last < rev)
            return false;
    }
    return true;
}
