/* leases.c - one holder a client node: a lease, a key on it, renewals, and the end of both.
 *
 * A holder grants a lease, puts a key of its own on it, renews it for a while at whatever member,
 * then revokes it or lets it run out. What must hold:
 *   - a lease lives at least its time to live from the moment when a renewal (or the grant) that
 *     was answered had been sent, as the fastest clock counts: DRIFT_PERCENT of it. Who sees the
 *     key go earlier (a watch does), or is told earlier that the lease is not there, has caught a
 *     lease that ended too soon; that holds of a lease that its holder lets run out, too;
 *   - a lease that nobody renews ends: long after the faults no key on a lease is left.
 */
#include "daemon_int.h"

#include <stdio.h>

#include "codec/pb.h"

#define TTL_MIN 2
#define TTL_MAX 4
#define DRIFT_PERCENT 85u /* clocks of servers run up to 10 % too fast */
#define KEEP_NS (500 * BNS_MS)
#define CALL_NS (2 * BNS_SEC)

static void turn(void *arg);

static struct bns_slice pack(const ProtobufCMessage *msg, struct bns_arena *arena)
{
    struct bns_slice out;

    BNS_ASSERT(bns_pb_pack_arena(msg, arena, &out) == BNS_OK);
    return out;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Sent at sent_ns, answered with ttl seconds. */
static void lives(struct sim_holder *h, int64_t ttl)
{
    uint64_t until = h->sent_ns + (uint64_t)ttl * BNS_SEC / 100 * DRIFT_PERCENT;

    if (until > h->alive_until_ns)
        h->alive_until_ns = until;
}

static void gone(struct sim_holder *h, const char *how)
{
    uint64_t now = bns_world_now(h->m->w);

    if (h->step == SIM_HOLD_KEEP && h->id != 0 && now < h->alive_until_ns)
        sim_complain(h->m, "lease %llx ended %llu ms too soon: %s", (unsigned long long)h->id,
                     (unsigned long long)((h->alive_until_ns - now) / BNS_MS), how);
    h->step = SIM_HOLD_GRANT;
}

/* Nobody revokes it: when its key goes, it has run out. */
static void lapse(struct sim_holder *h)
{
    struct sim_lapse *l = &h->lapses[h->lapses_next++ % SIM_LAPSES_MAX];

    memcpy(l->key, h->key, sizeof l->key);
    l->until_ns = h->alive_until_ns;
}

/* Each of the watches that see it tells, the first one counts. */
static void lapsed(struct sim_holder *h, struct bns_slice key)
{
    uint64_t now = bns_world_now(h->m->w);

    for (unsigned i = 0; i < SIM_LAPSES_MAX; i++) {
        struct sim_lapse *l = &h->lapses[i];

        if (l->key[0] == '\0' || !bns_slice_eq(key, bns_slice_str(l->key)))
            continue;
        if (now < l->until_ns)
            sim_complain(h->m, "the lease of %s ran out %llu ms too soon", l->key,
                         (unsigned long long)((l->until_ns - now) / BNS_MS));
        h->m->out->judged[ETCD_SIM_EXPIRIES]++;
        l->key[0] = '\0';
    }
}

void sim_lease_key_gone(struct etcd_sim *m, struct bns_slice key)
{
    for (unsigned i = 0; i < m->cfg->clients; i++) {
        struct sim_holder *h = &m->clients[i].holder;

        lapsed(h, key);
        if (h->key[0] != '\0' && bns_slice_eq(key, bns_slice_str(h->key)))
            gone(h, "a watch saw its key go");
    }
}

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct sim_holder *h = bns_grpc_ccall_arg(c);
    const ProtobufCMessageDescriptor *d = &etcdserverpb__lease_grant_response__descriptor;
    ProtobufCMessage *out = NULL;
    struct bns_arena arena;

    if (h->asked != SIM_HOLD_GRANT && h->asked != SIM_HOLD_KEEP)
        return;
    if (h->asked == SIM_HOLD_KEEP)
        d = &etcdserverpb__lease_keep_alive_response__descriptor;
    bns_arena_init(&arena, bns_alloc_libc(), 65536);
    if (bns_pb_unpack(d, msg, &arena, NULL, &out, NULL) != BNS_OK) {
        sim_complain(h->m, "n%u answered a lease with bytes that are no response", h->server);
    } else if (h->asked == SIM_HOLD_GRANT) {
        h->got_id = ((const Etcdserverpb__LeaseGrantResponse *)(const void *)out)->id;
        h->got_ttl = ((const Etcdserverpb__LeaseGrantResponse *)(const void *)out)->ttl;
    } else {
        h->got_id = ((const Etcdserverpb__LeaseKeepAliveResponse *)(const void *)out)->id;
        h->got_ttl = ((const Etcdserverpb__LeaseKeepAliveResponse *)(const void *)out)->ttl;
    }
    bns_arena_free(&arena);
}

static void answered(struct sim_holder *h)
{
    switch (h->asked) {
    case SIM_HOLD_GRANT:
        h->id = h->got_id;
        h->alive_until_ns = 0;
        lives(h, h->got_ttl);
        (void)snprintf(h->key, sizeof h->key, "l%llu", (unsigned long long)++h->m->lease_keys);
        h->step = SIM_HOLD_PUT;
        break;
    case SIM_HOLD_PUT:
        h->step = SIM_HOLD_KEEP;
        h->renewals = (unsigned)bns_prng_below(&h->owner->env->prng, 20);
        break;
    case SIM_HOLD_KEEP:
        if (h->got_ttl <= 0 || h->got_id != h->id) {
            gone(h, "a renewal did not find it");
        } else {
            lives(h, h->got_ttl);
            h->m->out->renewals++;
        }
        break;
    default:
        h->step = SIM_HOLD_GRANT;
        break;
    }
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct sim_holder *h = bns_grpc_ccall_arg(c);
    struct bns_env *env = h->owner->env;

    h->busy = false;
    if (h->m->phase == SIM_DONE || h->m->failed)
        return;
    if (sim_auth_refused(status, text))
        sim_creds_stale(h->owner, false);
    if (status == BNS_GRPC_OK && h->asked == h->step)
        answered(h);
    else if (status == BNS_GRPC_NOT_FOUND && h->asked == SIM_HOLD_PUT)
        gone(h, text);
    else if (h->asked == SIM_HOLD_REVOKE || h->asked == SIM_HOLD_PUT)
        h->step = SIM_HOLD_GRANT; /* nobody knows: it runs out by itself */
    bns_timer_start(env, &h->timer, bns_now_ns(env) + bns_prng_below(&env->prng, KEEP_NS));
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

/* ---- questions ------------------------------------------------------------------------------- */

static struct bns_slice encode(struct sim_holder *h, struct bns_arena *arena, const char **path)
{
    static const uint8_t value[] = "held";
    Etcdserverpb__LeaseGrantRequest grant = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseRevokeRequest revoke = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    Etcdserverpb__LeaseKeepAliveRequest keep = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;

    switch (h->asked) {
    case SIM_HOLD_GRANT:
        *path = "/etcdserverpb.Lease/LeaseGrant";
        grant.has_ttl = true;
        grant.ttl = (int64_t)bns_prng_range(&h->owner->env->prng, TTL_MIN, TTL_MAX);
        return pack(&grant.base, arena);
    case SIM_HOLD_PUT:
        *path = "/etcdserverpb.KV/Put";
        put.has_key = put.has_value = put.has_lease = true;
        put.key = (ProtobufCBinaryData){strlen(h->key), (uint8_t *)h->key};
        put.value = (ProtobufCBinaryData){4, (uint8_t *)(uintptr_t)value};
        put.lease = h->id;
        return pack(&put.base, arena);
    case SIM_HOLD_KEEP:
        *path = "/etcdserverpb.Lease/LeaseKeepAlive";
        keep.has_id = true;
        keep.id = h->id;
        return pack(&keep.base, arena);
    default:
        *path = "/etcdserverpb.Lease/LeaseRevoke";
        revoke.has_id = true;
        revoke.id = h->id;
        return pack(&revoke.base, arena);
    }
}

static void ask(struct sim_holder *h)
{
    struct bns_env *env = h->owner->env;
    struct bns_grpc_call_options opt = {.deadline_ns = bns_now_ns(env) + CALL_NS};
    struct bns_arena arena;
    struct bns_slice req;

    h->busy = true;
    h->asked = h->step;
    h->got_id = h->got_ttl = 0;
    h->sent_ns = bns_world_now(h->m->w);
    h->server = sim_pick(h->m, &env->prng);
    sim_creds_use(h->owner, false, &opt);
    bns_arena_init(&arena, bns_alloc_libc(), 65536);
    req = encode(h, &arena, &opt.path);
    if (bns_grpc_unary(h->owner->grpc[h->server], &opt, req, &handler, h) != BNS_OK)
        sim_complain(h->m, "the client has no memory");
    bns_arena_free(&arena);
}

static void turn(void *arg)
{
    struct sim_holder *h = arg;
    struct bns_env *env = h->owner->env;

    if (h->m->phase != SIM_FAULTS || h->m->failed)
        return; /* what is held runs out */
    if (h->step == SIM_HOLD_KEEP && h->renewals-- == 0) {
        h->step = bns_prng_chance(&env->prng, 0.5) ? SIM_HOLD_REVOKE : SIM_HOLD_GRANT;
        if (h->step == SIM_HOLD_GRANT)
            lapse(h);
        h->alive_until_ns = 0;
    }
    ask(h);
}

void sim_holder_start(struct sim_client *o)
{
    struct sim_holder *h = &o->holder;

    h->m = o->m;
    h->owner = o;
    bns_timer_init(&h->timer, turn, h);
    bns_timer_start(o->env, &h->timer, bns_now_ns(o->env) + BNS_SEC);
}
