/* membership.c - an operator who changes who belongs to the cluster, while everything goes on.
 *
 * It works as operators do: asks for the list of members (a linearizable read), does one thing,
 * asks again, because nobody knows what became of a change that was not answered.
 *
 *   list -> a member without a process?  start one that joins, on its host, with the list as
 *           --initial-cluster; again with a newer list when it has not come to know who it is
 *        -> else by the dice: add (a voter, or a learner), promote, remove (the leader too), move
 *           the leader, give a member another peer URL; or nothing
 *
 * A voter that was added and does not run yet may be the one that is missing for a quorum; then no
 * linearizable read tells of it. So after a list that failed the operator asks one member what it
 * holds, and starts who was never started. With auth on nobody may ask without a token, and without
 * a quorum there are none: then the operator goes to the host and looks.
 *
 * A member that was removed ends by itself, its host is free then for another one. When the faults
 * have stopped, only learners are promoted, and who has ended the run in the list must vote:
 * `settled`. Who was removed and can still know it (one that it knows is still there) must have
 * ended; who cannot is ended by the operator.
 */
#include "daemon_int.h"

#include <stdio.h>

#include "codec/pb.h"

#define THINK_NS (1500 * BNS_MS)
#define CALL_MIN_NS BNS_SEC
#define CALL_MAX_NS (8 * BNS_SEC)

static void rest(struct sim_operator *o, uint64_t ns)
{
    bns_timer_start(o->owner->env, &o->timer, bns_now_ns(o->owner->env) + ns);
}

unsigned sim_pick(struct etcd_sim *m, struct bns_prng *p)
{
    unsigned at[ETCD_SIM_HOSTS_MAX], n = 0;

    if (!m->cfg->members)
        return (unsigned)bns_prng_below(p, m->cfg->servers);
    for (unsigned i = 0; i < m->hosts; i++) {
        if (m->servers[i].votes)
            at[n++] = i;
    }
    if (n == 0 || (m->phase == SIM_FAULTS && bns_prng_chance(p, 0.03)))
        return (unsigned)bns_prng_below(p, m->hosts);
    return at[bns_prng_below(p, n)];
}

/* ---- who is where ---------------------------------------------------------------------------- */

struct sim_id *sim_id_find(struct etcd_sim *m, uint64_t id)
{
    for (unsigned i = 0; i < m->ids_count; i++) {
        if (m->ids[i].id == id)
            return &m->ids[i];
    }
    return NULL;
}

void sim_id_add(struct etcd_sim *m, uint64_t id, unsigned host)
{
    if (sim_id_find(m, id) != NULL)
        return;
    BNS_ASSERT(m->ids_count < SIM_IDS_MAX);
    m->ids[m->ids_count++] = (struct sim_id){.id = id, .host = host};
}

static void name_of(unsigned host, char out[16])
{
    (void)snprintf(out, 16, "peer%u", host); /* fits */
}

/* A host has an address and a name: two URLs for one place. */
static void url_of(struct etcd_sim *m, unsigned host, bool by_name, char out[ETCD_URL_MAX])
{
    char name[16];

    name_of(host, name);
    (void)snprintf(out, ETCD_URL_MAX, "http://%s:%u", by_name ? name : bns_world_host(m->w, host),
                   SIM_PEER_PORT); /* fits */
}

static unsigned host_of(struct etcd_sim *m, const char *url)
{
    char one[ETCD_URL_MAX], other[ETCD_URL_MAX];

    for (unsigned i = 0; i < m->hosts; i++) {
        url_of(m, i, false, one);
        url_of(m, i, true, other);
        if (strcmp(url, one) == 0 || strcmp(url, other) == 0)
            return i;
    }
    return m->hosts;
}

/* ---- the list -------------------------------------------------------------------------------- */

/* NULL: it is said to be where nobody is. */
static const struct sim_id *note_member(struct sim_operator *o, uint64_t id, const char *url)
{
    unsigned host = host_of(o->m, url);

    if (host == o->m->hosts) {
        sim_complain(o->m, "member %llx is said to be at '%s'", (unsigned long long)id, url);
        return NULL;
    }
    sim_id_add(o->m, id, host);
    return sim_id_find(o->m, id);
}

static void take_list(struct sim_operator *o, Etcdserverpb__Member **members, size_t n)
{
    memset(&o->got, 0, sizeof o->got);
    for (size_t i = 0; i < n && i < ETCD_ROSTER_MAX; i++) {
        const Etcdserverpb__Member *is = members[i];
        struct etcd_roster_member *r = &o->got.member[o->got.count++];
        const char *url = is->n_peerurls == 1 ? is->peerurls[0] : "";

        r->id = is->id;
        r->learner = is->islearner;
        r->peer_urls.count = 1;
        (void)snprintf(r->peer_urls.url[0], ETCD_URL_MAX, "%s", url); /* it was ours */
        if (note_member(o, is->id, url) == NULL)
            return;
    }
}

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct sim_operator *o = bns_grpc_ccall_arg(c);
    const Etcdserverpb__MemberListResponse *r;
    ProtobufCMessage *out = NULL;
    struct bns_arena arena;

    if (o->asked != SIM_CHANGE_LIST || o->m->failed)
        return;
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    if (bns_pb_unpack(&etcdserverpb__member_list_response__descriptor, msg, &arena, NULL, &out,
                      NULL) != BNS_OK) {
        sim_complain(o->m, "n%u answered a list of members with bytes that are none", o->server);
    } else {
        r = (const Etcdserverpb__MemberListResponse *)(const void *)out;
        take_list(o, r->members, r->n_members);
    }
    bns_arena_free(&arena);
}

/* ---- processes follow the list --------------------------------------------------------------- */

static const struct etcd_roster_member *listed(const struct sim_operator *o, uint64_t id)
{
    return etcd_roster_find(&o->list, id);
}

static void start_member(struct sim_operator *o, const struct etcd_roster_member *r)
{
    struct etcd_sim *m = o->m;
    struct sim_server *v = &m->servers[sim_id_find(m, r->id)->host];
    bool stale = v->member == r->id && !v->served && !sim_server_flags_are(v, &o->list);

    if (v->member == r->id && !stale)
        return;
    if (v->member != 0) { /* another list, or one that was removed and does not know */
        bool same = v->member == r->id;

        sim_server_retire(v);
        v->member = same ? r->id : 0; /* its directory stays */
    }
    if (bns_world_state(m->w, v->id) != BNS_NODE_UP) /* else it is dying: the next time */
        sim_server_join(v, &o->list, r->id);
}

/* Does it know anybody who is still there? */
static bool can_learn(const struct sim_operator *o, const struct sim_server *v)
{
    struct etcd_roster *knows;
    bool can = false;

    if (!v->up || v->s == NULL)
        return true; /* it starts, or ends */
    knows = bns_alloc(bns_alloc_libc(), sizeof *knows);
    BNS_ASSERT(knows != NULL);
    etcd_roster_read(v->s, knows);
    for (size_t i = 0; i < knows->count; i++)
        can = can || (listed(o, knows->member[i].id) != NULL && knows->member[i].id != v->member);
    bns_free(bns_alloc_libc(), knows);
    return can;
}

static void end_member(struct sim_operator *o, struct sim_server *v)
{
    bool up = bns_world_state(o->m->w, v->id) == BNS_NODE_UP;

    if (v->leaves && !up) { /* it has said so, and its process is no more */
        o->m->out->leaves++;
        sim_server_retire(v);
    } else if (!v->served || (o->m->phase == SIM_HEALED && !can_learn(o, v))) {
        sim_server_retire(v);
    }
}

static bool is_settled(const struct sim_operator *o)
{
    const struct etcd_sim *m = o->m;

    if (m->phase != SIM_HEALED)
        return false;
    for (unsigned i = 0; i < m->hosts; i++) {
        const struct sim_server *v = &m->servers[i];

        if (v->member != 0 && (!v->votes || !v->up || v->s == NULL || !v->s->serving))
            return false;
    }
    return true;
}

static void follow_list(struct sim_operator *o)
{
    struct etcd_sim *m = o->m;

    for (unsigned i = 0; i < m->hosts && !m->failed; i++) {
        struct sim_server *v = &m->servers[i];
        const struct etcd_roster_member *r = v->member == 0 ? NULL : listed(o, v->member);

        v->votes = r != NULL && !r->learner && v->served;
        if (v->member != 0 && r == NULL)
            end_member(o, v);
    }
    for (size_t i = 0; i < o->list.count && !m->failed; i++)
        start_member(o, &o->list.member[i]);
    o->settled = is_settled(o);
}

/* An old list, maybe: it says whom nobody has started, but not who belongs no more. */
static void follow_weak_list(struct sim_operator *o, bool refused)
{
    const struct sim_server *asked = &o->m->servers[o->server];

    if (refused) {
        o->got.count = 0;
        if (asked->up && asked->s != NULL)
            etcd_roster_read(asked->s, &o->got);
    }
    for (size_t i = 0; i < o->got.count && !o->m->failed; i++) {
        const struct etcd_roster_member *r = &o->got.member[i];
        const struct sim_id *is = note_member(o, r->id, r->peer_urls.url[0]);
        struct sim_server *v;

        if (is == NULL)
            return;
        v = &o->m->servers[is->host];

        if (!is->started && v->member == 0 && bns_world_state(o->m->w, v->id) != BNS_NODE_UP)
            sim_server_join(v, &o->got, is->id);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct sim_operator *o = bns_grpc_ccall_arg(c);
    struct etcd_sim *m = o->m;
    bool list, oom = m->cfg->world.nemesis.oom > 0 && strstr(text, "reset the stream") != NULL;
    bool refused = sim_auth_refused(status, text);

    o->busy = false;
    if (m->phase == SIM_DONE || m->failed)
        return;
    bns_world_note(m->w, "operator: %d at n%u: %d %s", (int)o->asked, o->server, status, text);
    if (refused)
        sim_creds_stale(o->owner, false);
    else if (!oom && (status == BNS_GRPC_UNIMPLEMENTED || status == BNS_GRPC_INTERNAL ||
                      status == BNS_GRPC_INVALID_ARGUMENT))
        sim_complain(m, "change %d of members at n%u ended with %d: %s", (int)o->asked, o->server,
                     status, text);
    list = o->asked == SIM_CHANGE_LIST;
    o->fresh = list && status == BNS_GRPC_OK && o->got.count > 0 && !o->weak;
    if (list && (status == BNS_GRPC_OK || refused) && o->weak)
        follow_weak_list(o, refused);
    o->weak = list && status != BNS_GRPC_OK && !o->weak;
    if (o->fresh) {
        o->list = o->got;
        follow_list(o);
    }
    if (status == BNS_GRPC_OK && o->asked == SIM_CHANGE_MOVE)
        m->out->moves++;
    else if (status == BNS_GRPC_OK && o->asked != SIM_CHANGE_LIST)
        m->out->changes++;
    rest(o, o->fresh || (!list && status == BNS_GRPC_OK)
                ? BNS_MS
                : bns_prng_below(&o->owner->env->prng, THINK_NS));
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

/* ---- questions ------------------------------------------------------------------------------- */

static struct bns_slice pack(ProtobufCMessage *msg, struct bns_arena *arena)
{
    struct bns_slice out;

    bns_pb_drop_zeros(msg);
    BNS_ASSERT(bns_pb_pack_arena(msg, arena, &out) == BNS_OK);
    return out;
}

static struct bns_slice encode_urls(struct sim_operator *o, struct bns_arena *arena)
{
    Etcdserverpb__MemberAddRequest add = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    Etcdserverpb__MemberUpdateRequest update = ETCDSERVERPB__MEMBER_UPDATE_REQUEST__INIT;
    char url[ETCD_URL_MAX], *urls[1] = {url};

    url_of(o->m, o->host, bns_prng_chance(&o->owner->env->prng, 0.5), url);
    if (o->asked == SIM_CHANGE_UPDATE) {
        update.has_id = true;
        update.id = o->id;
        update.n_peerurls = 1;
        update.peerurls = urls;
        return pack(&update.base, arena);
    }
    add.n_peerurls = 1;
    add.peerurls = urls;
    add.has_islearner = true;
    add.islearner = o->asked == SIM_CHANGE_ADD_LEARNER;
    return pack(&add.base, arena);
}

static struct bns_slice encode(struct sim_operator *o, struct bns_arena *arena)
{
    Etcdserverpb__MemberListRequest list = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    Etcdserverpb__MemberRemoveRequest removal = ETCDSERVERPB__MEMBER_REMOVE_REQUEST__INIT;
    Etcdserverpb__MemberPromoteRequest promote = ETCDSERVERPB__MEMBER_PROMOTE_REQUEST__INIT;
    Etcdserverpb__MoveLeaderRequest move = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;

    switch (o->asked) {
    case SIM_CHANGE_REMOVE:
        removal.has_id = true;
        removal.id = o->id;
        return pack(&removal.base, arena);
    case SIM_CHANGE_PROMOTE:
        promote.has_id = true;
        promote.id = o->id;
        return pack(&promote.base, arena);
    case SIM_CHANGE_MOVE:
        move.has_targetid = true;
        move.targetid = o->id;
        return pack(&move.base, arena);
    case SIM_CHANGE_LIST:
        list.has_linearizable = list.linearizable = !o->weak;
        return pack(&list.base, arena);
    default:
        return encode_urls(o, arena);
    }
}

static void ask(struct sim_operator *o, enum sim_change what)
{
    static const char *const paths[] = {
        [SIM_CHANGE_LIST] = "/etcdserverpb.Cluster/MemberList",
        [SIM_CHANGE_ADD] = "/etcdserverpb.Cluster/MemberAdd",
        [SIM_CHANGE_ADD_LEARNER] = "/etcdserverpb.Cluster/MemberAdd",
        [SIM_CHANGE_PROMOTE] = "/etcdserverpb.Cluster/MemberPromote",
        [SIM_CHANGE_REMOVE] = "/etcdserverpb.Cluster/MemberRemove",
        [SIM_CHANGE_UPDATE] = "/etcdserverpb.Cluster/MemberUpdate",
        [SIM_CHANGE_MOVE] = "/etcdserverpb.Maintenance/MoveLeader",
    };
    struct bns_env *env = o->owner->env;
    struct bns_grpc_call_options opt = {
        .path = paths[what],
        .deadline_ns = bns_now_ns(env) + bns_prng_range(&env->prng, CALL_MIN_NS, CALL_MAX_NS)};
    struct bns_arena arena;
    struct bns_slice req;

    o->asked = what;
    o->busy = true;
    o->fresh = false;
    if (what != SIM_CHANGE_MOVE)
        o->server = sim_pick(o->m, &env->prng);
    bns_world_note(o->m->w, "operator: %d of %llx at n%u", (int)what, (unsigned long long)o->id,
                   o->server);
    sim_creds_use(o->owner, false, &opt);
    bns_arena_init(&arena, bns_alloc_libc(), 65536);
    req = encode(o, &arena);
    if (bns_grpc_unary(o->owner->grpc[o->server], &opt, req, &handler, o) != BNS_OK)
        sim_complain(o->m, "the client has no memory");
    bns_arena_free(&arena);
}

/* ---- what is done next ----------------------------------------------------------------------- */

static size_t count_learners(const struct sim_operator *o)
{
    size_t n = 0;

    for (size_t i = 0; i < o->list.count; i++)
        n += o->list.member[i].learner;
    return n;
}

/* Whoever says so; hosts: nobody. */
static unsigned find_leader(struct etcd_sim *m)
{
    for (unsigned i = 0; i < m->hosts; i++) {
        const struct sim_server *v = &m->servers[i];

        if (v->up && v->s != NULL && v->s->leader == v->s->member_id)
            return i;
    }
    return m->hosts;
}

static bool add_member(struct sim_operator *o, bool learner)
{
    struct etcd_sim *m = o->m;
    unsigned start = (unsigned)bns_prng_below(&o->owner->env->prng, m->hosts);

    for (unsigned i = 0; i < m->hosts; i++) {
        o->host = (start + i) % m->hosts;
        if (m->servers[o->host].member != 0)
            continue;
        ask(o, learner ? SIM_CHANGE_ADD_LEARNER : SIM_CHANGE_ADD);
        return true;
    }
    return false;
}

static bool promote_member(struct sim_operator *o)
{
    for (size_t i = 0; i < o->list.count; i++) {
        if (!o->list.member[i].learner)
            continue;
        o->id = o->list.member[i].id;
        ask(o, SIM_CHANGE_PROMOTE);
        return true;
    }
    return false;
}

static void choose_member(struct sim_operator *o)
{
    const struct etcd_roster_member *r =
        &o->list.member[bns_prng_below(&o->owner->env->prng, o->list.count)];

    o->id = r->id;
    o->host = sim_id_find(o->m, r->id)->host;
}

static bool remove_member(struct sim_operator *o)
{
    unsigned leads = find_leader(o->m);

    if (o->list.count < 2)
        return false;
    choose_member(o);
    if (leads < o->m->hosts && bns_prng_chance(&o->owner->env->prng, 0.4))
        o->id = o->m->servers[leads].member;
    if (listed(o, o->id) == NULL)
        return false;
    ask(o, SIM_CHANGE_REMOVE);
    return true;
}

static bool move_leader(struct sim_operator *o)
{
    o->server = find_leader(o->m);
    if (o->server == o->m->hosts)
        return false;
    choose_member(o);
    ask(o, SIM_CHANGE_MOVE);
    return true;
}

static bool act(struct sim_operator *o)
{
    uint64_t dice = bns_prng_below(&o->owner->env->prng, 100);

    if (o->m->phase != SIM_FAULTS)
        return promote_member(o);
    if (count_learners(o) > 0 && dice < 40)
        return promote_member(o);
    if (dice < 55)
        return add_member(o, dice % 4 > 0);
    if (dice < 75)
        return remove_member(o);
    if (dice < 90)
        return move_leader(o);
    choose_member(o);
    ask(o, SIM_CHANGE_UPDATE);
    return true;
}

static void turn(void *arg)
{
    struct sim_operator *o = arg;

    if (o->m->phase > SIM_HEALED || o->m->failed || o->settled)
        return;
    BNS_ASSERT(!o->busy);
    if (!o->fresh) {
        ask(o, SIM_CHANGE_LIST);
    } else if (!act(o)) {
        o->fresh = false;
        rest(o, bns_prng_below(&o->owner->env->prng, THINK_NS));
    }
}

void sim_operator_start(struct sim_client *c)
{
    struct sim_operator *o = &c->m->operator;

    o->m = c->m;
    o->owner = c;
    for (unsigned i = 0; i < c->m->hosts; i++) {
        char name[16];

        name_of(i, name);
        bns_world_name(c->m->w, name, i);
    }
    bns_timer_init(&o->timer, turn, o);
    rest(o, BNS_SEC);
}
