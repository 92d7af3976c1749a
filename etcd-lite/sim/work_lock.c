/* work_lock.c - locks that hang on leases, and a resource that only the holder may write.
 *
 * A worker grants itself a lease, takes a lock (a key, put on the lease on condition that it is not
 * there; its create revision is the token), writes the resource on condition that the lock is still
 * the one it took, renews the lease, and lets go: it deletes the key, revokes the lease, or goes
 * away and lets it run out. A lease whose lock was given up may be used again, or run out later
 * without a renewal: then the next holder's key must stay.
 *
 * Who had no answer when it took or gave up a lock does not know whether it holds it, and starts
 * anew as another process. Renewals and writes of the resource have a process of their own: that
 * one of them has no answer does not change who holds the lock.
 */
#include "work.h"

#include <stdio.h>

#define LOCKS 2u
#define TTL_MIN 2
#define TTL_MAX 4
#define ID_FIRST 5000000      /* of a lease: clear of the ids that servers choose */
#define CALM_NS (3 * BNS_SEC) /* goes on so long after the faults */
#define DRIFT_PPM 150000      /* clocks of servers run up to 10 % too fast */

enum { GRANT, ACQUIRE, USE, KEEP, RELEASE, REVOKE }; /* steps */

static const struct {
    const char *f;
    bool side; /* in the history it is another process */
} steps[] = {
    [GRANT] = {"grant", false},   [ACQUIRE] = {"acquire", false}, [USE] = {"use", true},
    [KEEP] = {"keepalive", true}, [RELEASE] = {"release", false}, [REVOKE] = {"revoke", false},
};

static void lock_key(const struct sim_lock *l, char out[WORK_KEY_BYTES])
{
    (void)snprintf(out, WORK_KEY_BYTES, "lx%u", l->lock); /* fits */
}

/* ---- the history ----------------------------------------------------------------------------- */

static void swap_process(struct sim_worker *w)
{
    int64_t process = w->process;

    if (!steps[w->step].side)
        return;
    w->process = w->lock.side;
    w->lock.side = process;
}

static void note(struct sim_worker *w, enum bns_history_type type, const char *value)
{
    swap_process(w);
    work_record(w, type, steps[w->step].f, w->lock.name, value);
    swap_process(w);
}

static void invoke(struct sim_worker *w)
{
    struct sim_lock *l = &w->lock;
    char text[64];

    switch (w->step) {
    case GRANT:
        (void)snprintf(text, sizeof text, "{\"ttl_ms\":%lld}", (long long)l->ttl * 1000);
        break;
    case ACQUIRE:
        (void)snprintf(text, sizeof text, "{\"lease\":\"L%llu\"}", (unsigned long long)l->lease);
        break;
    case USE:
        (void)snprintf(text, sizeof text, "{\"token\":%lld}", (long long)l->token);
        break;
    default: /* all of them fit */
        (void)snprintf(text, sizeof text, "null");
        break;
    }
    if (w->step == ACQUIRE || w->step == RELEASE)
        (void)snprintf(l->name, sizeof l->name, "lx%u", l->lock);
    else if (w->step == USE)
        (void)snprintf(l->name, sizeof l->name, "f%u", l->lock);
    else
        (void)snprintf(l->name, sizeof l->name, "L%llu", (unsigned long long)l->lease);
    note(w, BNS_HIST_INVOKE, text);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static void grant(struct sim_worker *w)
{
    struct sim_lock *l = &w->lock;
    struct bns_prng *p = &w->owner->env->prng;

    w->step = GRANT;
    l->held = false;
    l->lease = ++w->m->elements;
    l->ttl = (int64_t)bns_prng_range(p, TTL_MIN, TTL_MAX);
    l->lock = (unsigned)bns_prng_below(p, LOCKS);
    l->left = (unsigned)bns_prng_range(p, 1, 20);
}

static bool begin(struct sim_worker *w)
{
    struct sim_lock *l = &w->lock;
    struct bns_prng *p = &w->owner->env->prng;
    bool last = l->left == 0;

    if (bns_world_now(w->m->w) > w->m->cfg->run_ns + CALM_NS)
        return false; /* what is held runs out before the end */
    if (l->side == 0)
        l->side = w->m->process_next++;
    l->left -= !last;
    if (l->lease == 0)
        grant(w);
    else if (!last)
        w->step = bns_prng_chance(p, 0.4) ? KEEP : (l->held ? USE : ACQUIRE);
    else if (l->held && bns_prng_chance(p, 0.6))
        w->step = RELEASE;
    else if (bns_prng_chance(p, 0.4))
        w->step = REVOKE;
    else
        grant(w); /* the old one runs out */
    invoke(w);
    return true;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static struct bns_slice encode_txn(const struct sim_worker *w, struct bns_arena *arena,
                                   const char **path)
{
    const struct sim_lock *l = &w->lock;
    struct work_txn t = {.compares_count = 1, .yes_count = 1};
    struct work_part *p = &t.yes[0];

    lock_key(l, t.compares[0].key);
    t.compares[0].target = WORK_CREATE;
    t.compares[0].number = w->step == ACQUIRE ? 0 : l->token;
    p->what = w->step == RELEASE ? WORK_DELETE : WORK_PUT;
    lock_key(l, p->key);
    if (w->step == USE)
        (void)snprintf(p->key, sizeof p->key, "f%u", l->lock); /* both fit */
    else
        p->lease = (int64_t)l->lease + ID_FIRST;
    (void)snprintf(p->value, sizeof p->value, "%lld", (long long)l->token);
    return work_encode_txn(&t, arena, path);
}

static struct bns_slice encode(struct sim_worker *w, struct bns_arena *arena, const char **path)
{
    Etcdserverpb__LeaseGrantRequest grant_request = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseRevokeRequest revoke = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    Etcdserverpb__LeaseKeepAliveRequest keep = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    int64_t id = (int64_t)w->lock.lease + ID_FIRST;

    w->loose = w->step == GRANT || w->step == KEEP || w->step == REVOKE;
    switch (w->step) {
    case GRANT:
        *path = "/etcdserverpb.Lease/LeaseGrant";
        grant_request.has_id = grant_request.has_ttl = true;
        grant_request.id = id;
        grant_request.ttl = w->lock.ttl;
        return work_pack(&grant_request.base, arena);
    case KEEP:
        *path = "/etcdserverpb.Lease/LeaseKeepAlive";
        keep.has_id = true;
        keep.id = id;
        return work_pack(&keep.base, arena);
    case REVOKE:
        *path = "/etcdserverpb.Lease/LeaseRevoke";
        revoke.has_id = true;
        revoke.id = id;
        return work_pack(&revoke.base, arena);
    default:
        return encode_txn(w, arena, path);
    }
}

static const ProtobufCMessageDescriptor *answer(const struct sim_worker *w)
{
    switch (w->step) {
    case GRANT:
        return &etcdserverpb__lease_grant_response__descriptor;
    case KEEP:
        return &etcdserverpb__lease_keep_alive_response__descriptor;
    case REVOKE:
        return &etcdserverpb__lease_revoke_response__descriptor;
    default:
        return &etcdserverpb__txn_response__descriptor;
    }
}

static void decode(struct sim_worker *w, const ProtobufCMessage *msg)
{
    struct sim_lock *l = &w->lock;

    if (w->step == GRANT) {
        l->got_id = ((const Etcdserverpb__LeaseGrantResponse *)(const void *)msg)->id;
        l->got_ttl = ((const Etcdserverpb__LeaseGrantResponse *)(const void *)msg)->ttl;
    } else if (w->step == KEEP) {
        l->got_id = ((const Etcdserverpb__LeaseKeepAliveResponse *)(const void *)msg)->id;
        l->got_ttl = ((const Etcdserverpb__LeaseKeepAliveResponse *)(const void *)msg)->ttl;
    } else if (w->step != REVOKE) {
        w->got_yes = ((const Etcdserverpb__TxnResponse *)(const void *)msg)->succeeded;
        return;
    }
    if (w->step != REVOKE && l->got_id != (int64_t)l->lease + ID_FIRST)
        sim_complain(w->m, "lease %llu was asked for, %lld answered", (unsigned long long)l->lease,
                     (long long)l->got_id);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answered(struct sim_worker *w)
{
    struct sim_lock *l = &w->lock;
    char text[64];

    switch (w->step) {
    case GRANT:
    case KEEP:
        if (l->got_ttl <= 0)
            l->lease = 0; /* gone: whether too soon the checker knows */
        (void)snprintf(text, sizeof text, "{\"ttl_ms\":%lld}", (long long)l->got_ttl * 1000);
        note(w, BNS_HIST_OK, text);
        return;
    case ACQUIRE:
        l->held = true;
        l->token = w->got_rev;
        l->left = (unsigned)bns_prng_range(&w->owner->env->prng, 1, 15);
        (void)snprintf(text, sizeof text, "{\"token\":%lld,\"lease\":\"L%llu\"}",
                       (long long)l->token, (unsigned long long)l->lease); /* fits, as above */
        note(w, BNS_HIST_OK, text);
        return;
    case RELEASE:
        l->held = false;
        l->left = (unsigned)bns_prng_below(&w->owner->env->prng, 4);
        break;
    case REVOKE:
        l->lease = 0;
        break;
    default:
        break;
    }
    note(w, BNS_HIST_OK, NULL);
}

static void configure(struct sim_worker *w)
{
    char text[48];
    struct bns_history_event e = {
        .time = 0, .process = -1, .type = BNS_HIST_INFO, .f = "config", .value = text};

    (void)snprintf(text, sizeof text, "{\"drift_ppm\":%d}", DRIFT_PPM); /* fits */
    BNS_ASSERT(bns_history_add(w->m->work_history, &e) == BNS_OK);
}

static enum work_next ended(struct sim_worker *w, int status, const char *text)
{
    struct sim_lock *l = &w->lock;
    bool txn = w->step == ACQUIRE || w->step == USE || w->step == RELEASE;
    bool missing = status == BNS_GRPC_NOT_FOUND;
    bool known = sim_op_definite(status, text) || missing;

    if (l->lease == 1 && w->step == GRANT)
        configure(w);
    if (status == BNS_GRPC_OK && (!txn || w->got_yes)) {
        answered(w);
        return WORK_DONE;
    }
    note(w, status == BNS_GRPC_OK || known ? BNS_HIST_FAIL : BNS_HIST_INFO, NULL);
    if (status == BNS_GRPC_OK && w->step != ACQUIRE)
        l->held = false; /* another has it */
    else if (missing || (status != BNS_GRPC_OK && !known && !steps[w->step].side))
        l->lease = 0;
    if (l->lease == 0)
        l->held = false;
    return WORK_DONE;
}

const struct work_kind work_lock = {.name = "lock",
                                    .also = "lease",
                                    .begin = begin,
                                    .encode = encode,
                                    .answer = answer,
                                    .decode = decode,
                                    .ended = ended};
