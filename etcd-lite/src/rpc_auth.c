/* rpc_auth.c - the service etcdserverpb.Auth, and the gate before all services.
 *
 * The gate: the table `needs` says for each method of the server what its caller must be. gRPC asks
 * it before a handler hears of the call. What depends on keys is checked elsewhere: writes at their
 * apply, reads and watches by their handlers. A method that is not in the table is an
 * administrator's, so that a new one cannot be open by oversight.
 *
 * A token names the entry that gave it. A member that has not applied that entry holds the call
 * until it has: else a client that asks another member at once would be told that its token is bad.
 *
 * Authenticate: a linearizable read (is auth on, has the password changed?), the comparison on the
 * worker, then an entry with name and random letters; when the auth store has changed between
 * comparison and entry, all over again. Passwords are hashed before anything is proposed; neither
 * log nor entries nor errors hold one.
 *
 * UserGet, UserList, RoleGet, RoleList are linearizable reads; etcd sends them through its log.
 */
#include "rpc_auth.h"

#include "codec/base64.h"
#include "codec/pb.h"
#include "server.h"

#define TEXT_NOMEM "etcdserver: out of memory"
#define TEXT_BUSY "etcdserver: too many requests"
#define ANSWER_MAX ((size_t)64 << 20)

/* ---- the gate ------------------------------------------------------------------------------- */

static const struct {
    const char *path; /* ends in '/': all methods of the service */
    enum etcd_need need;
} needs[] = {
    /* by key: checked at apply, or by the handler */
    {"/etcdserverpb.KV/Compact", ETCD_NEED_ADMIN}, /* history is everybody's */
    {"/etcdserverpb.KV/", ETCD_NEED_NOTHING},
    {"/etcdserverpb.Watch/", ETCD_NEED_NOTHING},
    {"/v3lockpb.Lock/", ETCD_NEED_NOTHING},
    {"/v3electionpb.Election/", ETCD_NEED_NOTHING},
    {"/etcdserverpb.Lease/", ETCD_NEED_SOMEONE}, /* and by the lease's keys */
    /* the entry's apply knows the administrator; a user may look at itself */
    {"/etcdserverpb.Auth/", ETCD_NEED_NOTHING},
    {"/etcdserverpb.Cluster/MemberList", ETCD_NEED_SOMEONE},
    {"/etcdserverpb.Maintenance/Status", ETCD_NEED_SOMEONE},
    {"/etcdserverpb.Maintenance/Alarm", ETCD_NEED_SOMEONE}, /* all but GET: administrator */
    {"/grpc.health.v1.Health/", ETCD_NEED_NOTHING},
};

enum etcd_need etcd_auth_need(struct bns_slice path)
{
    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++) {
        struct bns_slice p = bns_slice_str(needs[i].path);
        bool service = p.ptr[p.len - 1] == '/';

        if (service ? path.len > p.len && memcmp(path.ptr, p.ptr, p.len) == 0
                    : bns_slice_eq(path, p))
            return needs[i].need;
    }
    return ETCD_NEED_ADMIN;
}

static bool token_of(const struct bns_grpc_call *c, struct bns_slice *out)
{
    struct bns_slice bearer = BNS_LIT("Bearer ");

    if (!bns_grpc_metadata(c, "token", out) && !bns_grpc_metadata(c, "authorization", out))
        return false;
    if (out->len >= bearer.len && memcmp(out->ptr, bearer.ptr, bearer.len) == 0)
        *out = bns_slice_skip(*out, bearer.len);
    return true;
}

void etcd_auth_peek(struct etcd_server *s, struct bns_grpc_call *c, struct etcd_cn *cn,
                    struct etcd_who *out)
{
    const char *user = NULL;
    struct bns_slice token;

    *out = (struct etcd_who){.revision = 0};
    if (!etcd_auth_enabled(s->kv))
        return;
    if (token_of(c, &token)) {
        user = etcd_token_user(s->kv, token);
        if (user == NULL)
            out->why = etcd_auth_bad_token;
    } else if (s->opt->secure.client.client_cert_auth &&
               bns_grpc_peer_cn(c, cn->name, sizeof cn->name)) {
        user = cn->name;
    }
    if (user == NULL)
        return;
    out->name = bns_slice_str(user);
    out->revision = etcd_auth_revision(s->kv);
}

void etcd_auth_who(struct etcd_server *s, struct bns_grpc_call *c, struct etcd_who *out)
{
    struct etcd_cn cn;

    etcd_auth_peek(s, c, &cn, out);
    if (out->revision == 0)
        return;
    out->name.ptr = bns_arena_dup(bns_grpc_arena(c), out->name.ptr, out->name.len);
    if (out->name.ptr == NULL)
        *out = (struct etcd_who){.why = {BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM}};
}

/* Must the call wait until more is applied here? A leader knows of all that was ever applied: a
 * token of an entry that it has not committed was made up. */
static bool too_early(struct etcd_server *s, const struct bns_grpc_call *c, uint64_t asked_ns)
{
    struct bns_raft_status st;
    struct bns_slice token;
    uint64_t index;

    if (bns_now_ns(s->env) >= asked_ns + s->op_timeout_ns)
        return false;
    if (etcd_auth_loading(s->kv))
        return true;
    index = token_of(c, &token) ? etcd_token_index(token) : 0;
    if (index <= etcd_kv_applied(s->kv))
        return false;
    bns_raft_node_status(s->node, &st);
    return st.role != BNS_RAFT_LEADER || !st.ready || index <= st.commit;
}

enum bns_grpc_admission etcd_auth_admit(void *arg, struct bns_grpc_call *c, struct bns_slice path,
                                        uint64_t first_asked_ns, struct bns_grpc_refusal *why)
{
    struct etcd_server *s = arg;
    enum etcd_need need = etcd_auth_need(path);
    struct etcd_status st = {0};
    struct etcd_who who;
    struct etcd_cn cn;
    bool ok;

    /* while a snapshot comes in, what is known of auth is the past's */
    if (!etcd_auth_loading(s->kv) && !etcd_auth_enabled(s->kv))
        return BNS_GRPC_ADMIT;
    if (too_early(s, c, first_asked_ns))
        return BNS_GRPC_HOLD;
    if (etcd_auth_loading(s->kv)) {
        *why = (struct bns_grpc_refusal){BNS_GRPC_UNAVAILABLE, "etcdserver: request timed out"};
        return BNS_GRPC_REFUSE;
    }
    if (need == ETCD_NEED_NOTHING)
        return BNS_GRPC_ADMIT;
    etcd_auth_peek(s, c, &cn, &who);
    ok = need == ETCD_NEED_ADMIN ? etcd_auth_admin(s->kv, &who, &st)
                                 : etcd_auth_someone(s->kv, &who, &st);
    if (ok)
        return BNS_GRPC_ADMIT;
    *why = (struct bns_grpc_refusal){st.code, st.text};
    return BNS_GRPC_REFUSE;
}

bool etcd_auth_only_admin(struct etcd_server *s, struct bns_grpc_call *c)
{
    struct etcd_status st = {0};
    struct etcd_who who;
    struct etcd_cn cn;

    etcd_auth_peek(s, c, &cn, &who);
    if (etcd_auth_admin(s->kv, &who, &st))
        return true;
    bns_grpc_finish(c, st.code, st.text, NULL, 0);
    return false;
}

bool etcd_auth_may_prefix(struct etcd_server *s, struct bns_grpc_call *c, struct bns_slice prefix,
                          struct etcd_status *why)
{
    struct bns_slice end = {NULL, 0};
    struct etcd_who who;
    struct etcd_cn cn;
    uint8_t *copy;

    if (!etcd_auth_enabled(s->kv))
        return true;
    BNS_ASSERT(prefix.len > 0 && prefix.ptr[prefix.len - 1] == '/');
    *why = (struct etcd_status){BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM};
    copy = bns_arena_dup(bns_grpc_arena(c), prefix.ptr, prefix.len);
    if (copy == NULL)
        return false;
    copy[prefix.len - 1]++;
    end = bns_slice(copy, prefix.len);
    etcd_auth_peek(s, c, &cn, &who);
    if (etcd_auth_range(s->kv, &who, prefix, end, why))
        return true;
    why->code = BNS_GRPC_UNKNOWN;
    return false;
}

bool etcd_auth_prefix(struct etcd_server *s, struct bns_grpc_call *c, struct bns_slice prefix)
{
    struct etcd_status why = {0};

    if (etcd_auth_may_prefix(s, c, prefix, &why))
        return true;
    bns_grpc_finish(c, why.code, why.text, NULL, 0);
    return false;
}

bool etcd_auth_stale(const struct etcd_task *t)
{
    return etcd_auth_enabled(t->s->kv) && t->who.revision != etcd_auth_revision(t->s->kv);
}

/* ---- answers -------------------------------------------------------------------------------- */

static void fail(struct etcd_task *t, struct etcd_status st)
{
    etcd_task_fail(t, st.code, st.text);
}

static void fail_code(struct etcd_task *t, int rv)
{
    if (rv == BNS_E_TOOBIG)
        etcd_task_fail(t, BNS_GRPC_UNKNOWN, "bcrypt: password length exceeds 72 bytes");
    else
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, rv == BNS_E_BUSY ? TEXT_BUSY : TEXT_NOMEM);
}

/* Sends what put() appends behind a header. */
static void reply(struct etcd_task *t, int (*put)(struct etcd_task *t, struct bns_buf *out))
{
    struct etcd_server *s = t->s;
    struct bns_buf out;
    int rv;

    bns_buf_init(&out, s->env->alloc, ANSWER_MAX);
    rv = etcd_put_header(s, &out);
    if (rv == BNS_OK)
        rv = put(t, &out);
    if (rv == BNS_OK)
        etcd_task_reply(t, bns_buf_slice(&out));
    else
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
    bns_buf_free(&out);
}

static struct etcd_task *begin(struct bns_grpc_call *c, const ProtobufCMessageDescriptor *d,
                               struct bns_slice msg)
{
    const void *req = etcd_decode(c, d, msg);
    struct etcd_task *t = req == NULL ? NULL : etcd_task_new(bns_grpc_arg(c), c);

    if (t != NULL)
        t->req = req;
    return t;
}

/* ---- changes that are proposed as they came ------------------------------------------------- */

#define PROPOSE(name, descriptor, op)                                                              \
    static void name(struct bns_grpc_call *c, struct bns_slice msg)                                \
    {                                                                                              \
        struct etcd_task *t = begin(c, &descriptor, msg);                                          \
        if (t != NULL)                                                                             \
            etcd_task_propose(t, op, msg);                                                         \
    }

PROPOSE(on_enable, etcdserverpb__auth_enable_request__descriptor, ETCD_OP_AUTH_ENABLE)
PROPOSE(on_disable, etcdserverpb__auth_disable_request__descriptor, ETCD_OP_AUTH_DISABLE)
PROPOSE(on_user_delete, etcdserverpb__auth_user_delete_request__descriptor,
        ETCD_OP_AUTH_USER_DELETE)
PROPOSE(on_user_grant, etcdserverpb__auth_user_grant_role_request__descriptor,
        ETCD_OP_AUTH_USER_GRANT_ROLE)
PROPOSE(on_user_revoke, etcdserverpb__auth_user_revoke_role_request__descriptor,
        ETCD_OP_AUTH_USER_REVOKE_ROLE)
PROPOSE(on_role_add, etcdserverpb__auth_role_add_request__descriptor, ETCD_OP_AUTH_ROLE_ADD)
PROPOSE(on_role_delete, etcdserverpb__auth_role_delete_request__descriptor,
        ETCD_OP_AUTH_ROLE_DELETE)
PROPOSE(on_role_grant, etcdserverpb__auth_role_grant_permission_request__descriptor,
        ETCD_OP_AUTH_ROLE_GRANT_PERMISSION)
PROPOSE(on_role_revoke, etcdserverpb__auth_role_revoke_permission_request__descriptor,
        ETCD_OP_AUTH_ROLE_REVOKE_PERMISSION)

/* ---- passwords ------------------------------------------------------------------------------ */

/* A task with a password in it. The call's arena holds it: it stays until the job is done. */
struct secret {
    struct etcd_task *t;
    struct etcd_hash_job job;
    struct bns_slice name, password;
    enum etcd_op op;
    bool no_password;
    uint64_t checked; /* the auth store's revision when the password was looked up */
    char letters[ETCD_TOKEN_LETTERS + 1];
};

static struct secret *secret_new(struct etcd_task *t, const char *name, const char *password)
{
    struct secret *x = bns_arena_alloc(bns_grpc_arena(t->call), sizeof *x);

    if (x == NULL) {
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, TEXT_NOMEM);
        return NULL;
    }
    memset(x, 0, sizeof *x);
    x->t = t;
    x->name = bns_slice_str(name == NULL ? "" : name);
    x->password = bns_slice_str(password == NULL ? "" : password);
    t->ctx = x;
    return x;
}

/* {name 1, options 3 or nothing, hashedPassword 4} of UserAdd, {name 1, hashedPassword 3} of
 * UserChangePassword. */
static void propose_hash(struct secret *x)
{
    bool add = x->op == ETCD_OP_AUTH_USER_ADD;
    struct etcd_task *t = x->t;
    struct bns_buf b, text;
    int rv;

    bns_buf_init(&b, t->s->env->alloc, ANSWER_MAX);
    bns_buf_init(&text, t->s->env->alloc, 256);
    rv = bns_pb_put_bytes(&b, 1, x->name);
    if (rv == BNS_OK && add)
        rv = bns_pb_put_bytes_always(&b, 3, bns_slice("\x08\x01", x->no_password ? 2 : 0));
    if (rv == BNS_OK && !x->no_password)
        rv = bns_base64_encode(&text, bns_slice(x->job.hash, ETCD_HASH_LEN), true);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, add ? 4 : 3, bns_buf_slice(&text));
    if (rv == BNS_OK)
        etcd_task_propose(t, x->op, bns_buf_slice(&b));
    else
        fail_code(t, BNS_E_NOMEM);
    bns_buf_free(&text);
    bns_buf_free(&b);
}

static void hashed(struct etcd_hash_job *j)
{
    struct secret *x = BNS_CONTAINER(j, struct secret, job);

    x->t->storing = false;
    if (j->ok)
        propose_hash(x);
    else
        etcd_task_fail(x->t, BNS_GRPC_INTERNAL, "crypt: the password cannot be hashed");
}

/* Hashes, then proposes. */
static void hash_then_propose(struct secret *x)
{
    struct etcd_task *t = x->t;
    int rv;

    x->job.done = hashed;
    t->storing = true;
    rv = etcd_hash_make(&t->s->auth.hasher, &x->job, x->password, (uint32_t)t->s->opt->bcrypt_cost);
    if (rv == BNS_OK)
        return;
    t->storing = false;
    fail_code(t, rv);
}

/* Nobody but an administrator may make this member hash: the entry's apply would refuse it, but an
 * hour of bcrypt later. */
static bool may_hash(struct etcd_task *t)
{
    struct etcd_status st = {0};

    if (etcd_auth_admin(t->s->kv, &t->who, &st))
        return true;
    fail(t, st);
    return false;
}

static void on_user_add(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_task *t = begin(c, &etcdserverpb__auth_user_add_request__descriptor, msg);
    const Etcdserverpb__AuthUserAddRequest *r = t == NULL ? NULL : t->req;
    struct secret *x;

    if (t == NULL || !may_hash(t))
        return;
    x = secret_new(t, r->name, r->password);
    if (x == NULL)
        return;
    x->op = ETCD_OP_AUTH_USER_ADD;
    x->no_password = r->options != NULL && r->options->no_password;
    if (x->no_password)
        propose_hash(x);
    else
        hash_then_propose(x);
}

static void on_change_password(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_task *t =
        begin(c, &etcdserverpb__auth_user_change_password_request__descriptor, msg);
    const Etcdserverpb__AuthUserChangePasswordRequest *r = t == NULL ? NULL : t->req;
    struct secret *x;

    if (t == NULL || !may_hash(t))
        return;
    x = secret_new(t, r->name, r->password);
    if (x == NULL)
        return;
    x->op = ETCD_OP_AUTH_USER_CHANGE_PASSWORD;
    hash_then_propose(x);
}

/* ---- Authenticate --------------------------------------------------------------------------- */

static void check_password(struct etcd_task *t);

static int put_token(struct etcd_task *t, struct bns_buf *out)
{
    const struct secret *x = t->ctx;
    struct bns_buf text;
    int rv;

    bns_buf_init(&text, t->s->env->alloc, 64);
    rv = bns_buf_fmt(&text, "%s.%llu", x->letters, (unsigned long long)t->index);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(out, 2, bns_buf_slice(&text));
    bns_buf_free(&text);
    return rv;
}

static void authenticated(struct etcd_task *t, struct etcd_answer *a)
{
    const struct secret *x = t->ctx;

    if (a->status != 0) {
        etcd_task_fail(t, a->status, a->text);
        return;
    }
    t->index = a->index;
    a->release(a->release_arg, BNS_OK);
    if (x->checked == etcd_auth_revision(t->s->kv))
        reply(t, put_token);
    else
        check_password(t);
}

static int choose_letters(struct etcd_server *s, char out[ETCD_TOKEN_LETTERS + 1])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    uint64_t raw[ETCD_TOKEN_LETTERS];
    int rv = bns_entropy(s->env, raw, sizeof raw);

    for (size_t i = 0; i < ETCD_TOKEN_LETTERS; i++) /* of 2^64: no letter is preferred by much */
        out[i] = letters[raw[i] % (sizeof letters - 1)];
    out[ETCD_TOKEN_LETTERS] = 0;
    return rv;
}

static void verified(struct etcd_hash_job *j)
{
    struct secret *x = BNS_CONTAINER(j, struct secret, job);
    struct etcd_task *t = x->t;
    struct bns_buf b;
    int rv;

    t->storing = false;
    if (!j->ok) {
        fail(t, etcd_auth_failed);
        return;
    }
    bns_buf_init(&b, t->s->env->alloc, ANSWER_MAX);
    rv = choose_letters(t->s, x->letters);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 1, x->name);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 3, bns_slice(x->letters, ETCD_TOKEN_LETTERS));
    t->who = (struct etcd_who){.revision = 0};
    t->answered = authenticated;
    if (rv == BNS_OK)
        etcd_task_propose(t, ETCD_OP_AUTHENTICATE, bns_buf_slice(&b));
    else
        fail_code(t, BNS_E_NOMEM);
    bns_buf_free(&b);
}

static void check_password(struct etcd_task *t)
{
    struct secret *x = t->ctx;
    struct etcd_status st = {0};
    struct bns_slice hash = {NULL, 0};
    int rv;

    if (!etcd_auth_password(t->s->kv, x->name, &hash, &st)) {
        fail(t, st);
        return;
    }
    x->checked = etcd_auth_revision(t->s->kv);
    x->job.done = verified;
    t->storing = true;
    rv = etcd_hash_verify(&t->s->auth.hasher, &x->job, x->password, hash);
    if (rv == BNS_OK)
        return;
    t->storing = false;
    fail_code(t, rv);
}

static void on_authenticate(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_task *t = begin(c, &etcdserverpb__authenticate_request__descriptor, msg);
    const Etcdserverpb__AuthenticateRequest *r = t == NULL ? NULL : t->req;

    if (t != NULL && secret_new(t, r->name, r->password) != NULL)
        etcd_task_linearizable(t, check_password);
}

/* ---- reads ---------------------------------------------------------------------------------- */

static int put_status(struct etcd_task *t, struct bns_buf *out)
{
    int rv = bns_pb_put_u64(out, 2, etcd_auth_enabled(t->s->kv));

    return rv == BNS_OK ? bns_pb_put_u64(out, 3, etcd_auth_revision(t->s->kv)) : rv;
}

static void status_now(struct etcd_task *t)
{
    reply(t, put_status);
}

static void on_status(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_task *t = begin(c, &etcdserverpb__auth_status_request__descriptor, msg);

    if (t != NULL)
        etcd_task_linearizable(t, status_now);
}

static struct bns_slice name_or_empty(const char *s)
{
    return bns_slice_str(s == NULL ? "" : s);
}

static int put_user(struct etcd_task *t, struct bns_buf *out)
{
    const Etcdserverpb__AuthUserGetRequest *r = t->req;

    return etcd_auth_put_user(t->s->kv, name_or_empty(r->name), out);
}

static int put_role(struct etcd_task *t, struct bns_buf *out)
{
    const Etcdserverpb__AuthRoleGetRequest *r = t->req;

    return etcd_auth_put_role(t->s->kv, name_or_empty(r->role), out);
}

static int put_users(struct etcd_task *t, struct bns_buf *out)
{
    return etcd_auth_put_names(t->s->kv, false, out);
}

static int put_roles(struct etcd_task *t, struct bns_buf *out)
{
    return etcd_auth_put_names(t->s->kv, true, out);
}

/* An administrator may look at all, a user at what is `own`. */
static bool may_look(struct etcd_task *t, bool own)
{
    struct etcd_status st = {0};

    etcd_auth_who(t->s, t->call, &t->who);
    if (etcd_auth_admin(t->s->kv, &t->who, &st) || (own && t->who.why.code == 0))
        return true;
    fail(t, st);
    return false;
}

static void user_now(struct etcd_task *t)
{
    const Etcdserverpb__AuthUserGetRequest *r = t->req;
    struct bns_slice name = name_or_empty(r->name);
    struct bns_buf unused;

    etcd_auth_who(t->s, t->call, &t->who);
    if (!may_look(t, bns_slice_eq(name, t->who.name)))
        return;
    bns_buf_init(&unused, t->s->env->alloc, 0);
    if (etcd_auth_put_user(t->s->kv, name, &unused) == BNS_E_NOTFOUND)
        fail(t, etcd_auth_no_user);
    else
        reply(t, put_user);
    bns_buf_free(&unused);
}

static void role_now(struct etcd_task *t)
{
    const Etcdserverpb__AuthRoleGetRequest *r = t->req;
    struct bns_slice name = name_or_empty(r->role);
    struct bns_buf unused;

    etcd_auth_who(t->s, t->call, &t->who);
    if (!may_look(t, etcd_auth_has_role(t->s->kv, t->who.name, name)))
        return;
    bns_buf_init(&unused, t->s->env->alloc, 0);
    if (etcd_auth_put_role(t->s->kv, name, &unused) == BNS_E_NOTFOUND)
        fail(t, etcd_auth_no_role);
    else
        reply(t, put_role);
    bns_buf_free(&unused);
}

static void users_now(struct etcd_task *t)
{
    if (may_look(t, false))
        reply(t, put_users);
}

static void roles_now(struct etcd_task *t)
{
    if (may_look(t, false))
        reply(t, put_roles);
}

#define READ(name, descriptor, then)                                                               \
    static void name(struct bns_grpc_call *c, struct bns_slice msg)                                \
    {                                                                                              \
        struct etcd_task *t = begin(c, &descriptor, msg);                                          \
        if (t != NULL)                                                                             \
            etcd_task_linearizable(t, then);                                                       \
    }

READ(on_user_get, etcdserverpb__auth_user_get_request__descriptor, user_now)
READ(on_role_get, etcdserverpb__auth_role_get_request__descriptor, role_now)
READ(on_user_list, etcdserverpb__auth_user_list_request__descriptor, users_now)
READ(on_role_list, etcdserverpb__auth_role_list_request__descriptor, roles_now)

/* ---- the table ------------------------------------------------------------------------------ */

#define METHOD(name, fn)                                                                           \
    {                                                                                              \
        .path = "/etcdserverpb.Auth/" name, .handler = {.on_message = fn }                         \
    }

int etcd_auth_service(struct etcd_server *s)
{
    const struct bns_grpc_method methods[] = {
        METHOD("AuthEnable", on_enable),
        METHOD("AuthDisable", on_disable),
        METHOD("AuthStatus", on_status),
        METHOD("Authenticate", on_authenticate),
        METHOD("UserAdd", on_user_add),
        METHOD("UserGet", on_user_get),
        METHOD("UserList", on_user_list),
        METHOD("UserDelete", on_user_delete),
        METHOD("UserChangePassword", on_change_password),
        METHOD("UserGrantRole", on_user_grant),
        METHOD("UserRevokeRole", on_user_revoke),
        METHOD("RoleAdd", on_role_add),
        METHOD("RoleGet", on_role_get),
        METHOD("RoleList", on_role_list),
        METHOD("RoleDelete", on_role_delete),
        METHOD("RoleGrantPermission", on_role_grant),
        METHOD("RoleRevokePermission", on_role_revoke),
    };
    size_t count = sizeof methods / sizeof methods[0];

    _Static_assert(sizeof methods == sizeof s->auth.methods, "one place a method");
    memcpy(s->auth.methods, methods, sizeof methods);
    for (size_t i = 0; i < count; i++)
        s->auth.methods[i].arg = s;
    return bns_grpc_server_methods(s->grpc, s->auth.methods, count);
}
