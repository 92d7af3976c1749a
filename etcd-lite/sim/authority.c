/* authority.c - an operator who turns auth on and off and changes what user "u" may do, under load.
 *
 * Half of the lanes ask as "u", all others as "root". What u may do to key k<i> follows from three
 * kinds of facts, each of which the operator changes by one call: is auth on; has u the role "all"
 * (every key of the lanes); has the role "some", which u always has, key k<i>. From the moment a
 * change is asked for until it is answered its fact is unknown; when nobody knows what became of a
 * call, it stays so for UNSURE_NS (longer than anything waits anywhere), and until the next answer.
 *
 * What must hold:
 *   - a request of u that began when it was surely denied, and during which nothing was being
 *     changed, is not answered with OK;
 *   - one that was surely allowed all the while is not answered with "permission denied";
 *   - nobody is denied anything while auth was surely off (a member that has not applied that yet
 *     may ask for a name or token: a refusal before anything was done);
 *   - root is never denied anything.
 * What is refused has not happened: the history's checkers see to that. All members hold the same
 * at every index, users and roles too (servers.c compares digests of all tables).
 *
 * When the faults have stopped, u gets its role back; whether auth is on is left as it is.
 */
#include "daemon_int.h"

#include <stdio.h>

#include "codec/pb.h"

#define THINK_NS (1200 * BNS_MS)
#define CALL_MIN_NS BNS_SEC
#define CALL_MAX_NS (6 * BNS_SEC)
#define UNSURE_NS (25 * BNS_SEC)

enum {
    SETUP_ROOT,
    SETUP_ROOT_ROLE,
    SETUP_USER,
    SETUP_SOME,
    SETUP_ALL,
    SETUP_ALL_RANGE,
    SETUP_HAS_SOME,
    SETUP_HAS_ALL,
    SETUP_DONE
};

/* ---- what is known --------------------------------------------------------------------------- */

enum sim_may sim_auth_may(const struct etcd_sim *m, const struct sim_lane *l)
{
    const struct sim_authority *a = &m->authority;
    enum sim_fact some = l->f == SIM_RANGE ? SIM_NO : a->key[l->key];

    if (a->on == SIM_NO)
        return SIM_MAY_OFF;
    if (!l->as_user)
        return SIM_MAY_UNKNOWN;
    if (l->session || l->f == SIM_SERIALIZABLE || l->f == SIM_SCRAPE)
        return SIM_MAY_UNKNOWN; /* needs no keys; or may show, and follow, what was */
    if (a->on == SIM_YES && a->all == SIM_NO && some == SIM_NO)
        return SIM_MAY_NOT;
    if (a->on == SIM_YES && (a->all == SIM_YES || some == SIM_YES))
        return SIM_MAY;
    return SIM_MAY_UNKNOWN;
}

bool sim_auth_refused(int status, const char *text)
{
    const struct etcd_status all[] = {etcd_auth_denied, etcd_auth_no_name, etcd_auth_old,
                                      etcd_auth_bad_token};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (status == all[i].code && strcmp(text, all[i].text) == 0)
            return true;
    }
    return false;
}

void sim_auth_ended(struct sim_lane *l, int status, const char *text)
{
    struct etcd_sim *m = l->m;
    bool still = l->may_epoch == m->authority.epoch, denied = status == etcd_auth_denied.code;

    if (status == BNS_GRPC_OK && l->as_user)
        m->out->user_ok++;
    if (denied)
        m->out->denied++;
    m->out->judged[ETCD_SIM_DENIED] += still && l->may == SIM_MAY_NOT && denied;
    m->out->judged[ETCD_SIM_ALLOWED] += still && l->may == SIM_MAY && status == BNS_GRPC_OK;
    m->out->judged[ETCD_SIM_OFF] += still && l->may == SIM_MAY_OFF && status == BNS_GRPC_OK;
    if (still && l->may == SIM_MAY_NOT && status == BNS_GRPC_OK)
        sim_complain(m, "n%u let u do operation %d on k%u, which it may not", l->server, (int)l->f,
                     l->key);
    if (still && l->may == SIM_MAY && denied)
        sim_complain(m, "n%u denied u operation %d on k%u, which it may do", l->server, (int)l->f,
                     l->key);
    if (still && l->may == SIM_MAY_OFF && denied)
        sim_complain(m, "auth is off, and n%u denied operation %d on k%u", l->server, (int)l->f,
                     l->key);
    if (denied && !l->as_user)
        sim_complain(m, "n%u denied root operation %d on k%u", l->server, (int)l->f, l->key);
    if (sim_auth_refused(status, text) && !denied)
        sim_creds_stale(l->owner, l->as_user);
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct bns_slice pack(ProtobufCMessage *msg, struct bns_arena *arena)
{
    struct bns_slice out;

    bns_pb_drop_zeros(msg);
    BNS_ASSERT(bns_pb_pack_arena(msg, arena, &out) == BNS_OK);
    return out;
}

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static ProtobufCBinaryData bytes(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static struct bns_slice user_add(const char *name, struct bns_arena *arena, const char **path)
{
    Etcdserverpb__AuthUserAddRequest r = ETCDSERVERPB__AUTH_USER_ADD_REQUEST__INIT;

    *path = "/etcdserverpb.Auth/UserAdd";
    r.name = text(name);
    r.password = text(name);
    return pack(&r.base, arena);
}

static struct bns_slice role_add(const char *name, struct bns_arena *arena, const char **path)
{
    Etcdserverpb__AuthRoleAddRequest r = ETCDSERVERPB__AUTH_ROLE_ADD_REQUEST__INIT;

    *path = "/etcdserverpb.Auth/RoleAdd";
    r.name = text(name);
    return pack(&r.base, arena);
}

static struct bns_slice user_role(const char *user, const char *role, bool grant,
                                  struct bns_arena *arena, const char **path)
{
    Etcdserverpb__AuthUserGrantRoleRequest g = ETCDSERVERPB__AUTH_USER_GRANT_ROLE_REQUEST__INIT;
    Etcdserverpb__AuthUserRevokeRoleRequest r = ETCDSERVERPB__AUTH_USER_REVOKE_ROLE_REQUEST__INIT;

    *path = grant ? "/etcdserverpb.Auth/UserGrantRole" : "/etcdserverpb.Auth/UserRevokeRole";
    g.user = r.name = text(user);
    g.role = r.role = text(role);
    return grant ? pack(&g.base, arena) : pack(&r.base, arena);
}

static struct bns_slice role_key(const char *role, const char *key, const char *end, bool grant,
                                 struct bns_arena *arena)
{
    Etcdserverpb__AuthRoleGrantPermissionRequest g =
        ETCDSERVERPB__AUTH_ROLE_GRANT_PERMISSION_REQUEST__INIT;
    Etcdserverpb__AuthRoleRevokePermissionRequest r =
        ETCDSERVERPB__AUTH_ROLE_REVOKE_PERMISSION_REQUEST__INIT;
    Etcdserverpb__Permission perm = ETCDSERVERPB__PERMISSION__INIT;

    perm.has_permtype = perm.has_key = true;
    perm.permtype = ETCDSERVERPB__PERMISSION__TYPE__READWRITE;
    perm.key = bytes(key);
    perm.has_range_end = *end != '\0';
    perm.range_end = bytes(end);
    g.name = r.role = text(role);
    g.perm = &perm;
    r.has_key = true;
    r.key = bytes(key);
    return grant ? pack(&g.base, arena) : pack(&r.base, arena);
}

static struct bns_slice encode_setup(const struct sim_authority *a, struct bns_arena *arena,
                                     const char **path)
{
    switch (a->setup) {
    case SETUP_ROOT:
        return user_add("root", arena, path);
    case SETUP_ROOT_ROLE:
        return user_role("root", "root", true, arena, path);
    case SETUP_USER:
        return user_add("u", arena, path);
    case SETUP_SOME:
        return role_add("some", arena, path);
    case SETUP_ALL:
        return role_add("all", arena, path);
    case SETUP_ALL_RANGE:
        *path = "/etcdserverpb.Auth/RoleGrantPermission";
        return role_key("all", "k", "l", true, arena);
    case SETUP_HAS_SOME:
        return user_role("u", "some", true, arena, path);
    default:
        return user_role("u", "all", true, arena, path);
    }
}

static struct bns_slice encode(const struct sim_authority *a, struct bns_arena *arena,
                               const char **path)
{
    char key[8];

    if (a->setup < SETUP_DONE)
        return encode_setup(a, arena, path);
    if (a->fact == &a->m->authority.on) {
        *path =
            a->to == SIM_YES ? "/etcdserverpb.Auth/AuthEnable" : "/etcdserverpb.Auth/AuthDisable";
        return bns_slice(NULL, 0);
    }
    if (a->fact == &a->m->authority.all)
        return user_role("u", "all", a->to == SIM_YES, arena, path);
    *path = a->to == SIM_YES ? "/etcdserverpb.Auth/RoleGrantPermission"
                             : "/etcdserverpb.Auth/RoleRevokePermission";
    (void)snprintf(key, sizeof key, "k%d", (int)(a->fact - a->key)); /* fits */
    return role_key("some", key, "", a->to == SIM_YES, arena);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* It is so already. */
static bool is_so(int status, const char *t)
{
    static const char *const texts[] = {"etcdserver: user name already exists",
                                        "etcdserver: role name already exists",
                                        "etcdserver: role is not granted to the user",
                                        "etcdserver: permission is not granted to the role"};

    for (size_t i = 0; status == BNS_GRPC_FAILED_PRECONDITION && i < sizeof texts / sizeof texts[0];
         i++) {
        if (strcmp(t, texts[i]) == 0)
            return true;
    }
    return false;
}

static void rest(struct sim_authority *a, uint64_t ns)
{
    bns_timer_start(a->owner->env, &a->timer, bns_now_ns(a->owner->env) + ns);
}

static void changed(struct sim_authority *a, int status, const char *t)
{
    struct etcd_sim *m = a->m;
    bool ok = status == BNS_GRPC_OK || is_so(status, t);
    bool sure = bns_world_now(m->w) >= a->unsure_until_ns;

    if (ok && sure)
        *a->fact = a->to;
    else if (sim_auth_refused(status, t))
        *a->fact = a->was;
    else if (!ok)
        a->unsure_until_ns = bns_world_now(m->w) + UNSURE_NS;
    if (ok)
        m->out->auth_changes++;
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *t)
{
    struct sim_authority *a = bns_grpc_ccall_arg(c);
    struct etcd_sim *m = a->m;

    if (m->phase == SIM_DONE || m->failed)
        return;
    bns_world_note(m->w, "authority: %d %s", status, t);
    if (sim_auth_refused(status, t) && status != etcd_auth_denied.code)
        sim_creds_stale(a->owner, false);
    if (status == etcd_auth_denied.code)
        sim_complain(m, "n%u denied root a change of auth", a->server);
    if (a->setup >= SETUP_DONE)
        changed(a, status, t);
    else if (status == BNS_GRPC_OK || is_so(status, t))
        a->setup++;
    else if (!sim_auth_refused(status, t)) /* it may be done after what comes next */
        a->unsure_until_ns = bns_world_now(m->w) + UNSURE_NS;
    rest(a, status == BNS_GRPC_OK && a->setup < SETUP_DONE
                ? BNS_MS
                : bns_prng_below(&a->owner->env->prng, THINK_NS));
}

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    (void)c; /* a header, and nothing else */
    (void)msg;
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void ask(struct sim_authority *a)
{
    struct bns_env *env = a->owner->env;
    struct bns_grpc_call_options opt = {
        .deadline_ns = bns_now_ns(env) + bns_prng_range(&env->prng, CALL_MIN_NS, CALL_MAX_NS)};
    struct bns_arena arena;
    struct bns_slice req;

    a->server = sim_pick(a->m, &env->prng);
    sim_creds_use(a->owner, false, &opt);
    bns_arena_init(&arena, bns_alloc_libc(), 65536);
    req = encode(a, &arena, &opt.path);
    bns_world_note(a->m->w, "authority: %s at n%u", opt.path, a->server);
    if (bns_grpc_unary(a->owner->grpc[a->server], &opt, req, &handler, a) != BNS_OK)
        sim_complain(a->m, "the client has no memory");
    bns_arena_free(&arena);
}

/* ---- what is done next ----------------------------------------------------------------------- */

static void change(struct sim_authority *a, enum sim_fact *fact, enum sim_fact to)
{
    a->fact = fact;
    a->was = *fact;
    a->to = to;
    *fact = SIM_UNKNOWN;
    a->epoch++;
    ask(a);
}

static enum sim_fact other(enum sim_fact f, struct bns_prng *p)
{
    if (f == SIM_UNKNOWN)
        return bns_prng_chance(p, 0.5) ? SIM_YES : SIM_NO;
    return f == SIM_YES ? SIM_NO : SIM_YES;
}

static void act(struct sim_authority *a)
{
    struct bns_prng *p = &a->owner->env->prng;
    uint64_t dice = bns_prng_below(p, 100);
    enum sim_fact *key = &a->key[bns_prng_below(p, a->m->cfg->keys)];

    if (a->on == SIM_NO ? dice < 60 : dice < 15)
        change(a, &a->on, other(a->on, p));
    else if (dice < 65)
        change(a, &a->all, other(a->all, p));
    else
        change(a, key, other(*key, p));
}

/* u may all, and whether auth is on is known. */
static bool settle(struct sim_authority *a)
{
    if (a->setup < SETUP_DONE) {
        ask(a);
    } else if (bns_world_now(a->m->w) < a->unsure_until_ns) {
        rest(a, 100 * BNS_MS);
    } else if (a->on == SIM_UNKNOWN) {
        change(a, &a->on, SIM_YES);
    } else if (a->all != SIM_YES) {
        change(a, &a->all, SIM_YES);
    } else {
        return true;
    }
    return false;
}

static void turn(void *arg)
{
    struct sim_authority *a = arg;

    if (a->m->phase > SIM_HEALED || a->m->failed)
        return;
    if (a->m->phase == SIM_HEALED)
        a->settled = settle(a);
    else if (a->setup < SETUP_DONE)
        ask(a);
    else
        act(a);
}

void sim_authority_start(struct sim_client *o)
{
    struct sim_authority *a = &o->m->authority;

    a->m = o->m;
    a->owner = o;
    a->on = SIM_NO;
    a->all = SIM_YES;
    for (unsigned i = 0; i < ETCD_SIM_KEYS_MAX; i++)
        a->key[i] = SIM_NO;
    bns_timer_init(&a->timer, turn, a);
    rest(a, BNS_SEC);
}
