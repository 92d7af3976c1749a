/* auth.c - users and roles: the replicated state, and what each entry of the log does to it.
 *
 * State: three buckets (kv_bucket.h) that every member agrees on. AUTH: "enabled" (one byte) and
 * "revision" (8 bytes, big-endian; none = 1, as a fresh etcd has). USERS: name -> User. ROLES: name
 * -> Role; both as etcd stores them, so that a snapshot can carry them either way. A user's roles
 * are sorted by name, a role's permissions by key.
 *
 * Each change adds one to the revision (enabling does not, granting a role that is there neither).
 * Checks, their order and their texts are etcd's. What an entry does depends on nothing but the
 * state and the entry: passwords come hashed, tokens come with their random letters.
 *
 * Two additions to etcd's rules keep memory bounded: a user or role larger than ETCD_AUTH_ROW_MAX,
 * and one more byte than ETCD_AUTH_BYTES_MAX of all, are refused as a full database would.
 */
#include "auth_int.h"

#include "base/varint.h"
#include "codec/base64.h"
#include "codec/pb.h"

#define KEY_ENABLED BNS_LIT("enabled")
#define KEY_REVISION BNS_LIT("revision")
#define PASSWORD_MAX 1024u /* of a hash, decoded */

const struct etcd_status etcd_auth_no_name = {3, "etcdserver: user name is empty"};
const struct etcd_status etcd_auth_failed = {
    3, "etcdserver: authentication failed, invalid user ID or password"};
const struct etcd_status etcd_auth_denied = {7, "etcdserver: permission denied"};
const struct etcd_status etcd_auth_off = {9, "etcdserver: authentication is not enabled"};
const struct etcd_status etcd_auth_old = {3, "etcdserver: revision of auth store is old"};
const struct etcd_status etcd_auth_bad_token = {16, "etcdserver: invalid auth token"};
const struct etcd_status etcd_auth_no_user = {9, "etcdserver: user name not found"};
const struct etcd_status etcd_auth_no_role = {9, "etcdserver: role name not found"};
const struct etcd_status etcd_auth_no_password_user = {
    2, "auth: authentication failed, password was given for no password user"};

static const struct etcd_status no_root_user = {9, "etcdserver: root user does not exist"};
static const struct etcd_status no_root_role = {9, "etcdserver: root user does not have root role"};
static const struct etcd_status user_exists = {9, "etcdserver: user name already exists"};
static const struct etcd_status role_exists = {9, "etcdserver: role name already exists"};
static const struct etcd_status role_no_name = {3, "etcdserver: role name is empty"};
static const struct etcd_status no_permission_given = {3, "etcdserver: permission not given"};
static const struct etcd_status role_not_granted = {9,
                                                    "etcdserver: role is not granted to the user"};
static const struct etcd_status permission_not_granted = {
    9, "etcdserver: permission is not granted to the role"};
static const struct etcd_status bad_management = {3, "etcdserver: invalid auth management"};
static const struct etcd_status no_space = {8, ETCD_TEXT_NOSPACE};

static struct bns_slice text_of(const char *s)
{
    return s == NULL ? bns_slice("", 0) : bns_slice_str(s);
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* Puts a row, within the bounds. */
static int put_row(struct etcd_auth *a, enum etcd_bucket b, struct bns_slice name,
                   struct bns_slice value, struct etcd_status *why)
{
    size_t old = etcd_bucket_get(a->kv, b, name).len;
    size_t now = a->bytes - old + value.len;
    int rv;

    if (value.len > ETCD_AUTH_ROW_MAX || (now > ETCD_AUTH_BYTES_MAX && value.len > old)) {
        *why = no_space;
        return BNS_OK;
    }
    rv = etcd_bucket_put(a->kv, b, name, value);
    if (rv == BNS_E_TOOBIG) {
        *why = no_space;
        return BNS_OK;
    }
    if (rv == BNS_OK)
        a->bytes = a->bytes - old + value.len;
    return rv;
}

static int del_row(struct etcd_auth *a, enum etcd_bucket b, struct bns_slice name)
{
    size_t old = etcd_bucket_get(a->kv, b, name).len;
    int rv = etcd_bucket_del(a->kv, b, name);

    if (rv == BNS_OK)
        a->bytes -= old;
    return rv;
}

/* The state has changed: one revision more, and nothing that was derived from it holds. */
static int commit(struct etcd_auth *a)
{
    uint8_t be[8];

    a->revision++;
    if (!BNS_MUTANT(a->kv->env, ETCD_MUTANT_PERMS_KEPT))
        etcd_perms_clear(a);
    bns_put_u64be(be, a->revision);
    return etcd_bucket_put(a->kv, ETCD_BUCKET_AUTH, KEY_REVISION, bns_slice(be, sizeof be));
}

static int commit_unless(struct etcd_auth *a, int rv, const struct etcd_status *why)
{
    return rv == BNS_OK && why->code == 0 ? commit(a) : rv;
}

static bool role_exists_in(const struct etcd_auth *a, struct bns_slice name)
{
    return etcd_bucket_get(a->kv, ETCD_BUCKET_ROLES, name).ptr != NULL;
}

/* ---- on and off ----------------------------------------------------------------------------- */

static int set_enabled(struct etcd_auth *a, bool on)
{
    const uint8_t byte = on;

    a->enabled = on;
    return etcd_bucket_put(a->kv, ETCD_BUCKET_AUTH, KEY_ENABLED, bns_slice(&byte, 1));
}

static int enable(struct etcd_auth *a, struct etcd_status *why)
{
    struct etcd_user_view root;
    struct bns_slice bytes;

    if (a->enabled)
        return BNS_OK;
    if (!etcd_user_find(a->kv, ETCD_ROOT, &bytes, &root)) {
        *why = no_root_user;
        return BNS_OK;
    }
    if (!root.root) {
        *why = no_root_role;
        return BNS_OK;
    }
    etcd_perms_clear(a);
    return set_enabled(a, true);
}

static int disable(struct etcd_auth *a)
{
    int rv;

    if (!a->enabled)
        return BNS_OK;
    rv = set_enabled(a, false);
    if (rv == BNS_OK)
        rv = commit(a);
    etcd_tokens_clear(a->kv);
    return rv;
}

static int authenticate(struct etcd_auth *a, uint64_t index,
                        const Etcdserverpb__InternalAuthenticateRequest *r, struct etcd_status *why)
{
    struct etcd_user_view u;
    struct bns_slice bytes, letters = text_of(r->simple_token);

    if (!a->enabled)
        *why = etcd_auth_off;
    else if (!etcd_user_find(a->kv, text_of(r->name), &bytes, &u) || u.no_password)
        *why = etcd_auth_failed;
    if (why->code != 0 || letters.len != ETCD_TOKEN_LETTERS)
        return BNS_OK;
    return etcd_tokens_give(a->kv, index, r->name, r->simple_token);
}

/* ---- users ---------------------------------------------------------------------------------- */

/* A User's fields; roles are those of `from` but for `drop`, with `add` at its place. */
struct user_new {
    struct bns_slice name, password;
    const struct bns_slice *options; /* NULL: the field is left out */
    struct bns_slice from;           /* a User, or empty */
    const struct bns_slice *drop, *add;
};

static int put_roles(struct bns_buf *out, const struct user_new *u)
{
    struct bns_slice rest = u->from, role;
    bool added = u->add == NULL;
    int rv = BNS_OK;

    while (rv == BNS_OK && etcd_user_next_role(&rest, &role)) {
        if (u->drop != NULL && bns_slice_eq(role, *u->drop))
            continue;
        if (!added && bns_slice_cmp(*u->add, role) < 0) {
            rv = bns_pb_put_bytes_always(out, 3, *u->add);
            added = true;
        }
        if (rv == BNS_OK)
            rv = bns_pb_put_bytes_always(out, 3, role);
    }
    if (rv == BNS_OK && !added)
        rv = bns_pb_put_bytes_always(out, 3, *u->add);
    return rv;
}

static int put_user(struct etcd_auth *a, const struct user_new *u, struct etcd_status *why)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, a->kv->alloc, 4 * ETCD_AUTH_ROW_MAX);
    rv = bns_pb_put_bytes(&b, 1, u->name);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 2, u->password);
    if (rv == BNS_OK)
        rv = put_roles(&b, u);
    if (rv == BNS_OK && u->options != NULL)
        rv = bns_pb_put_bytes_always(&b, 4, *u->options);
    if (rv == BNS_E_TOOBIG) {
        *why = no_space;
        rv = BNS_OK;
    } else if (rv == BNS_OK) {
        rv = put_row(a, ETCD_BUCKET_USERS, u->name, bns_buf_slice(&b), why);
    }
    bns_buf_free(&b);
    return rv;
}

/* As it was, but for its roles or its password. */
static struct user_new changed(struct bns_slice name, struct bns_slice bytes,
                               const struct etcd_user_view *u)
{
    return (struct user_new){.name = name,
                             .password = u->password,
                             .options = u->options.ptr == NULL ? NULL : &u->options,
                             .from = bytes};
}

/* The bytes of a hash that came in base64; into b. */
static int decode_hash(struct bns_buf *b, const char *hashed, struct etcd_status *why)
{
    int rv = bns_base64_decode(b, text_of(hashed));

    if (rv != BNS_E_INVALID && rv != BNS_E_TOOBIG)
        return rv;
    *why = etcd_auth_no_password_user; /* what etcd says of a hash that is none */
    return BNS_OK;
}

static int user_add(struct etcd_auth *a, const Etcdserverpb__AuthUserAddRequest *r,
                    struct etcd_status *why)
{
    struct bns_slice name = text_of(r->name);
    bool no_password = r->options != NULL && r->options->no_password;
    struct bns_slice options = no_password ? bns_slice("\x08\x01", 2) : bns_slice("", 0);
    struct bns_buf hash;
    int rv = BNS_OK;

    if (name.len == 0)
        *why = etcd_auth_no_name;
    else if (etcd_bucket_get(a->kv, ETCD_BUCKET_USERS, name).ptr != NULL)
        *why = user_exists;
    if (why->code != 0)
        return BNS_OK;
    bns_buf_init(&hash, a->kv->alloc, PASSWORD_MAX);
    if (!no_password)
        rv = decode_hash(&hash, r->hashedpassword, why);
    if (rv == BNS_OK && why->code == 0) {
        const struct user_new u = {
            .name = name, .password = bns_buf_slice(&hash), .options = &options};
        rv = put_user(a, &u, why);
    }
    bns_buf_free(&hash);
    return commit_unless(a, rv, why);
}

static int user_delete(struct etcd_auth *a, struct bns_slice name, struct etcd_status *why)
{
    int rv;

    if (a->enabled && bns_slice_eq(name, ETCD_ROOT))
        *why = bad_management;
    else if (etcd_bucket_get(a->kv, ETCD_BUCKET_USERS, name).ptr == NULL)
        *why = etcd_auth_no_user;
    if (why->code != 0)
        return BNS_OK;
    rv = del_row(a, ETCD_BUCKET_USERS, name);
    etcd_tokens_forget(a->kv, name);
    return commit_unless(a, rv, why);
}

static int change_password(struct etcd_auth *a,
                           const Etcdserverpb__AuthUserChangePasswordRequest *r,
                           struct etcd_status *why)
{
    struct bns_slice name = text_of(r->name), bytes;
    struct etcd_user_view old;
    struct bns_buf hash;
    int rv = BNS_OK;

    if (!etcd_user_find(a->kv, name, &bytes, &old)) {
        *why = etcd_auth_no_user;
        return BNS_OK;
    }
    bns_buf_init(&hash, a->kv->alloc, PASSWORD_MAX);
    if (!old.no_password)
        rv = decode_hash(&hash, r->hashedpassword, why);
    if (rv == BNS_OK && why->code == 0) {
        struct user_new u = changed(name, bytes, &old);
        u.password = bns_buf_slice(&hash);
        rv = put_user(a, &u, why);
    }
    bns_buf_free(&hash);
    if (rv == BNS_OK && why->code == 0)
        etcd_tokens_forget(a->kv, name);
    return commit_unless(a, rv, why);
}

static int user_grant(struct etcd_auth *a, const Etcdserverpb__AuthUserGrantRoleRequest *r,
                      struct etcd_status *why)
{
    struct bns_slice name = text_of(r->user), role = text_of(r->role), bytes;
    struct etcd_user_view old;
    struct user_new u;
    int rv;

    if (!etcd_user_find(a->kv, name, &bytes, &old))
        *why = etcd_auth_no_user;
    else if (!bns_slice_eq(role, ETCD_ROOT) && !role_exists_in(a, role))
        *why = etcd_auth_no_role;
    if (why->code != 0 || etcd_user_has(bytes, role))
        return BNS_OK;
    u = changed(name, bytes, &old);
    u.add = &role;
    rv = put_user(a, &u, why);
    return commit_unless(a, rv, why);
}

static int user_revoke(struct etcd_auth *a, const Etcdserverpb__AuthUserRevokeRoleRequest *r,
                       struct etcd_status *why)
{
    struct bns_slice name = text_of(r->name), role = text_of(r->role), bytes;
    struct etcd_user_view old;
    struct user_new u;
    int rv;

    if (a->enabled && bns_slice_eq(name, ETCD_ROOT) && bns_slice_eq(role, ETCD_ROOT))
        *why = bad_management;
    else if (!etcd_user_find(a->kv, name, &bytes, &old))
        *why = etcd_auth_no_user;
    else if (!etcd_user_has(bytes, role))
        *why = role_not_granted;
    if (why->code != 0)
        return BNS_OK;
    u = changed(name, bytes, &old);
    u.drop = &role;
    rv = put_user(a, &u, why);
    return commit_unless(a, rv, why);
}

/* ---- roles ---------------------------------------------------------------------------------- */

static int role_add(struct etcd_auth *a, struct bns_slice name, struct etcd_status *why)
{
    struct bns_buf b;
    int rv;

    if (name.len == 0)
        *why = role_no_name;
    else if (role_exists_in(a, name))
        *why = role_exists;
    if (why->code != 0)
        return BNS_OK;
    bns_buf_init(&b, a->kv->alloc, 4 * ETCD_AUTH_ROW_MAX);
    rv = bns_pb_put_bytes(&b, 1, name);
    if (rv == BNS_OK)
        rv = put_row(a, ETCD_BUCKET_ROLES, name, bns_buf_slice(&b), why);
    bns_buf_free(&b);
    return commit_unless(a, rv, why);
}

/* All users lose the role, too: one look at each user, of which there are 16 MiB at most. */
static int role_delete(struct etcd_auth *a, struct bns_slice name, struct etcd_status *why)
{
    const struct etcd_bucket_row *row = NULL;
    int rv;

    if (a->enabled && bns_slice_eq(name, ETCD_ROOT))
        *why = bad_management;
    else if (!role_exists_in(a, name))
        *why = etcd_auth_no_role;
    if (why->code != 0)
        return BNS_OK;
    rv = del_row(a, ETCD_BUCKET_ROLES, name);
    while (rv == BNS_OK && (row = etcd_bucket_next(a->kv, ETCD_BUCKET_USERS, row)) != NULL) {
        struct bns_slice bytes = etcd_bucket_value(row);
        struct etcd_user_view old;
        struct user_new u;

        if (!etcd_user_has(bytes, name) || !etcd_user_parse(bytes, &old))
            continue;
        u = changed(etcd_bucket_key(row), bytes, &old);
        u.drop = &name;
        rv = put_user(a, &u, why);
    }
    return commit_unless(a, rv, why);
}

static int put_perm(struct bns_buf *out, const Etcdserverpb__Permission *p)
{
    struct bns_slice key = etcd_bytes(p->key), end = etcd_bytes(p->range_end);
    uint64_t type = (uint64_t)p->permtype;
    size_t len = bns_pb_len_u64(1, type) + (key.len > 0 ? bns_pb_len_bytes(2, key.len) : 0) +
                 (end.len > 0 ? bns_pb_len_bytes(3, end.len) : 0);
    int rv = bns_pb_put_len(out, 2, len);

    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 1, type);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(out, 2, key);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(out, 3, end);
    return rv;
}

/* The role's permissions, without the one on exactly this range, and with `add` (may be NULL) at
 * its place. *found: there was one. */
struct role_new {
    struct bns_slice name, from, key, range_end;
    const Etcdserverpb__Permission *add;
    bool found;
};

static int put_perms(struct bns_buf *out, struct role_new *n)
{
    bool added = n->add == NULL;
    struct bns_slice rest = n->from;
    struct etcd_perm_view p;
    int rv = BNS_OK;

    while (rv == BNS_OK && etcd_role_next_perm(&rest, &p)) {
        bool same = bns_slice_eq(p.key, n->key) && bns_slice_eq(p.range_end, n->range_end);

        n->found = n->found || same;
        if (!added && (same || bns_slice_cmp(n->key, p.key) < 0)) {
            rv = put_perm(out, n->add);
            added = true;
        }
        if (rv == BNS_OK && !same)
            rv = bns_pb_put_bytes_always(out, 2, p.raw);
    }
    if (rv == BNS_OK && !added)
        rv = put_perm(out, n->add);
    return rv;
}

static int put_role(struct etcd_auth *a, struct role_new *n, struct etcd_status *why)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, a->kv->alloc, 4 * ETCD_AUTH_ROW_MAX);
    rv = bns_pb_put_bytes(&b, 1, n->name);
    if (rv == BNS_OK)
        rv = put_perms(&b, n);
    if (rv == BNS_OK && n->add == NULL && !n->found)
        *why = permission_not_granted;
    if (rv == BNS_E_TOOBIG) {
        *why = no_space;
        rv = BNS_OK;
    }
    if (rv == BNS_OK && why->code == 0)
        rv = put_row(a, ETCD_BUCKET_ROLES, n->name, bns_buf_slice(&b), why);
    bns_buf_free(&b);
    return commit_unless(a, rv, why);
}

static bool perm_valid(struct bns_slice key, struct bns_slice range_end)
{
    if (key.len == 0)
        return false;
    return range_end.len == 0 || bns_slice_cmp(key, range_end) < 0 ||
           (range_end.len == 1 && range_end.ptr[0] == 0);
}

static int role_grant(struct etcd_auth *a, const Etcdserverpb__AuthRoleGrantPermissionRequest *r,
                      struct etcd_status *why)
{
    struct role_new n = {.name = text_of(r->name), .add = r->perm};

    if (r->perm == NULL) {
        *why = no_permission_given;
        return BNS_OK;
    }
    n.key = etcd_bytes(r->perm->key);
    n.range_end = etcd_bytes(r->perm->range_end);
    n.from = etcd_bucket_get(a->kv, ETCD_BUCKET_ROLES, n.name);
    if (!perm_valid(n.key, n.range_end) || (uint64_t)r->perm->permtype > 2)
        *why = bad_management;
    else if (n.from.ptr == NULL)
        *why = etcd_auth_no_role;
    return why->code != 0 ? BNS_OK : put_role(a, &n, why);
}

static int role_revoke(struct etcd_auth *a, const Etcdserverpb__AuthRoleRevokePermissionRequest *r,
                       struct etcd_status *why)
{
    struct role_new n = {
        .name = text_of(r->role), .key = etcd_bytes(r->key), .range_end = etcd_bytes(r->range_end)};

    n.from = etcd_bucket_get(a->kv, ETCD_BUCKET_ROLES, n.name);
    if (n.from.ptr == NULL) {
        *why = etcd_auth_no_role;
        return BNS_OK;
    }
    return put_role(a, &n, why);
}

/* ---- entries -------------------------------------------------------------------------------- */

bool etcd_auth_is_op(const Etcdserverpb__InternalRaftRequest *r)
{
    return r->auth_enable != NULL || r->auth_disable != NULL || r->authenticate != NULL ||
           r->auth_user_add != NULL || r->auth_user_delete != NULL ||
           r->auth_user_change_password != NULL || r->auth_user_grant_role != NULL ||
           r->auth_user_revoke_role != NULL || r->auth_role_add != NULL ||
           r->auth_role_delete != NULL || r->auth_role_grant_permission != NULL ||
           r->auth_role_revoke_permission != NULL;
}

/* A change ends with rows of AUTH: without a place for them it does not begin. One more is asked
 * for, because the change's own row may take the first. */
static bool has_rows(struct etcd_kv *kv)
{
    uint32_t missing = (uint32_t)(etcd_bucket_get(kv, ETCD_BUCKET_AUTH, KEY_ENABLED).ptr == NULL) +
                       (uint32_t)(etcd_bucket_get(kv, ETCD_BUCKET_AUTH, KEY_REVISION).ptr == NULL);

    return missing == 0 || etcd_bucket_room(kv, ETCD_BUCKET_AUTH, missing + 1);
}

int etcd_auth_apply(struct etcd_kv *kv, uint64_t index, const Etcdserverpb__InternalRaftRequest *r,
                    struct etcd_status *why)
{
    struct etcd_auth *a = kv->auth;

    if (!has_rows(kv) && r->authenticate == NULL) {
        *why = no_space;
        return BNS_OK;
    }
    if (r->auth_enable != NULL)
        return enable(a, why);
    if (r->auth_disable != NULL)
        return disable(a);
    if (r->authenticate != NULL)
        return authenticate(a, index, r->authenticate, why);
    if (r->auth_user_add != NULL)
        return user_add(a, r->auth_user_add, why);
    if (r->auth_user_delete != NULL)
        return user_delete(a, text_of(r->auth_user_delete->name), why);
    if (r->auth_user_change_password != NULL)
        return change_password(a, r->auth_user_change_password, why);
    if (r->auth_user_grant_role != NULL)
        return user_grant(a, r->auth_user_grant_role, why);
    if (r->auth_user_revoke_role != NULL)
        return user_revoke(a, r->auth_user_revoke_role, why);
    if (r->auth_role_add != NULL)
        return role_add(a, text_of(r->auth_role_add->name), why);
    if (r->auth_role_delete != NULL)
        return role_delete(a, text_of(r->auth_role_delete->role), why);
    if (r->auth_role_grant_permission != NULL)
        return role_grant(a, r->auth_role_grant_permission, why);
    return role_revoke(a, r->auth_role_revoke_permission, why);
}

/* ---- open and install ----------------------------------------------------------------------- */

int etcd_auth_new(struct etcd_kv *kv)
{
    struct etcd_auth *a = bns_alloc_zero(kv->alloc, sizeof *a);

    if (a == NULL)
        return BNS_E_NOMEM;
    a->kv = kv;
    a->revision = 1;
    bns_hmap_init(&a->perms, kv->alloc);
    kv->auth = a;
    etcd_tokens_init(kv);
    return BNS_OK;
}

void etcd_auth_free(struct etcd_kv *kv)
{
    if (kv->auth == NULL)
        return;
    etcd_perms_clear(kv->auth);
    bns_hmap_free(&kv->auth->perms);
    etcd_tokens_clear(kv);
    bns_hmap_free(&kv->auth->tokens.map);
    bns_free(kv->alloc, kv->auth);
    kv->auth = NULL;
}

static bool load_row(struct etcd_auth *a, enum etcd_bucket b, const struct etcd_bucket_row *row)
{
    struct bns_slice value = etcd_bucket_value(row);
    struct bns_pb_field f = {0};
    struct etcd_user_view u;
    struct etcd_perm_view p;

    a->bytes += value.len;
    if (b == ETCD_BUCKET_USERS)
        return etcd_user_parse(value, &u);
    while (value.len > 0) {
        if (bns_pb_next(&value, &f) != BNS_OK)
            return false;
        if (f.id == 2 && (f.wire != 2 || !etcd_perm_parse(f.bytes, &p)))
            return false;
    }
    return true;
}

int etcd_auth_load(struct etcd_kv *kv, struct bns_err *err)
{
    const enum etcd_bucket buckets[] = {ETCD_BUCKET_USERS, ETCD_BUCKET_ROLES};
    struct bns_slice on = etcd_bucket_get(kv, ETCD_BUCKET_AUTH, KEY_ENABLED);
    struct bns_slice rev = etcd_bucket_get(kv, ETCD_BUCKET_AUTH, KEY_REVISION);
    struct etcd_auth *a = kv->auth;

    etcd_perms_clear(a);
    etcd_tokens_clear(kv);
    a->enabled = on.len == 1 && on.ptr[0] == 1;
    a->revision = rev.len == 8 ? bns_get_u64be(rev.ptr) : 1;
    a->revision = a->revision == 0 ? 1 : a->revision;
    a->bytes = 0;
    for (int i = 0; i < 2; i++) {
        const struct etcd_bucket_row *row = NULL;

        while ((row = etcd_bucket_next(kv, buckets[i], row)) != NULL) {
            if (!load_row(a, buckets[i], row))
                return bns_err_set(err, BNS_E_CORRUPT, "a stored user or role is damaged");
        }
    }
    return BNS_OK;
}
