/* auth_world.h - entries of auth in short form, on top of kv_world.h. */
#ifndef ETCD_TESTS_AUTH_WORLD_H
#define ETCD_TESTS_AUTH_WORLD_H

#include "kv_world.h"

#include "auth.h"

/* Stored as the hash of a password that no test compares. */
#define HASH64 "JDJhJDA0JGFiY2RlZmdoaWprbG1ub3BxcnN0dU8="

/* Applies as `user`, whose header was made at auth revision `rev` (0: the one that holds now). The
 * status; text in g when it is not NULL. */
HELPER int apply_as(struct kvw *k, const char *user, uint64_t rev, enum etcd_op op, const void *req,
                    struct got *g)
{
    struct etcd_who who = {.revision = 0};
    struct got mine, *out = g == NULL ? &mine : g;
    struct bns_slice bytes;

    if (user != NULL) {
        who.name = bns_slice_str(user);
        who.revision = rev == 0 ? etcd_auth_revision(k->kv) : rev;
    }
    memset(out, 0, sizeof *out);
    assert_int_equal(bns_pb_pack_arena(req, &k->arena, &bytes), BNS_OK);
    k->id++;
    if (!kvw_apply_data(k, BNS_RAFT_NORMAL,
                        etcd_internal_encode_as(bns_alloc_libc(), k->id, &who, op, bytes), out))
        return -1;
    free(out->bytes);
    out->bytes = NULL;
    return out->status;
}

HELPER int auth_switch(struct kvw *k, const char *as, bool on)
{
    Etcdserverpb__AuthEnableRequest e = ETCDSERVERPB__AUTH_ENABLE_REQUEST__INIT;
    Etcdserverpb__AuthDisableRequest d = ETCDSERVERPB__AUTH_DISABLE_REQUEST__INIT;

    return on ? apply_as(k, as, 0, ETCD_OP_AUTH_ENABLE, &e, NULL)
              : apply_as(k, as, 0, ETCD_OP_AUTH_DISABLE, &d, NULL);
}
HELPER int user_add(struct kvw *k, const char *as, const char *name)
{
    Etcdserverpb__AuthUserAddRequest r = ETCDSERVERPB__AUTH_USER_ADD_REQUEST__INIT;

    r.name = (char *)(uintptr_t)name;
    r.hashedpassword = (char *)(uintptr_t)HASH64;
    return apply_as(k, as, 0, ETCD_OP_AUTH_USER_ADD, &r, NULL);
}
HELPER int user_delete(struct kvw *k, const char *as, const char *name)
{
    Etcdserverpb__AuthUserDeleteRequest r = ETCDSERVERPB__AUTH_USER_DELETE_REQUEST__INIT;

    r.name = (char *)(uintptr_t)name;
    return apply_as(k, as, 0, ETCD_OP_AUTH_USER_DELETE, &r, NULL);
}
HELPER int user_password(struct kvw *k, const char *as, const char *name)
{
    Etcdserverpb__AuthUserChangePasswordRequest r =
        ETCDSERVERPB__AUTH_USER_CHANGE_PASSWORD_REQUEST__INIT;

    r.name = (char *)(uintptr_t)name;
    r.hashedpassword = (char *)(uintptr_t)HASH64;
    return apply_as(k, as, 0, ETCD_OP_AUTH_USER_CHANGE_PASSWORD, &r, NULL);
}
HELPER int user_grant(struct kvw *k, const char *as, const char *name, const char *role)
{
    Etcdserverpb__AuthUserGrantRoleRequest r = ETCDSERVERPB__AUTH_USER_GRANT_ROLE_REQUEST__INIT;

    r.user = (char *)(uintptr_t)name;
    r.role = (char *)(uintptr_t)role;
    return apply_as(k, as, 0, ETCD_OP_AUTH_USER_GRANT_ROLE, &r, NULL);
}
HELPER int user_revoke(struct kvw *k, const char *as, const char *name, const char *role)
{
    Etcdserverpb__AuthUserRevokeRoleRequest r = ETCDSERVERPB__AUTH_USER_REVOKE_ROLE_REQUEST__INIT;

    r.name = (char *)(uintptr_t)name;
    r.role = (char *)(uintptr_t)role;
    return apply_as(k, as, 0, ETCD_OP_AUTH_USER_REVOKE_ROLE, &r, NULL);
}
HELPER int role_add(struct kvw *k, const char *as, const char *name)
{
    Etcdserverpb__AuthRoleAddRequest r = ETCDSERVERPB__AUTH_ROLE_ADD_REQUEST__INIT;

    r.name = (char *)(uintptr_t)name;
    return apply_as(k, as, 0, ETCD_OP_AUTH_ROLE_ADD, &r, NULL);
}
HELPER int role_delete(struct kvw *k, const char *as, const char *name)
{
    Etcdserverpb__AuthRoleDeleteRequest r = ETCDSERVERPB__AUTH_ROLE_DELETE_REQUEST__INIT;

    r.role = (char *)(uintptr_t)name;
    return apply_as(k, as, 0, ETCD_OP_AUTH_ROLE_DELETE, &r, NULL);
}
/* end: NULL = one key, "" = all keys from key on; type 0 READ, 1 WRITE, 2 READWRITE */
HELPER int role_grant(struct kvw *k, const char *as, const char *name, int type, const char *key,
                      const char *end)
{
    Etcdserverpb__AuthRoleGrantPermissionRequest r =
        ETCDSERVERPB__AUTH_ROLE_GRANT_PERMISSION_REQUEST__INIT;
    Etcdserverpb__Permission p = ETCDSERVERPB__PERMISSION__INIT;

    r.name = (char *)(uintptr_t)name;
    r.perm = &p;
    p.has_permtype = true;
    p.permtype = (Etcdserverpb__Permission__Type)type;
    p.has_key = true;
    p.key = B(key);
    p.has_range_end = end != NULL;
    p.range_end = end == NULL ? BN(NULL, 0) : end[0] == 0 ? BN("", 1) : B(end);
    return apply_as(k, as, 0, ETCD_OP_AUTH_ROLE_GRANT_PERMISSION, &r, NULL);
}
HELPER int role_revoke(struct kvw *k, const char *as, const char *name, const char *key,
                       const char *end)
{
    Etcdserverpb__AuthRoleRevokePermissionRequest r =
        ETCDSERVERPB__AUTH_ROLE_REVOKE_PERMISSION_REQUEST__INIT;

    r.role = (char *)(uintptr_t)name;
    r.has_key = true;
    r.key = B(key);
    r.has_range_end = end != NULL;
    r.range_end = end == NULL ? BN(NULL, 0) : end[0] == 0 ? BN("", 1) : B(end);
    return apply_as(k, as, 0, ETCD_OP_AUTH_ROLE_REVOKE_PERMISSION, &r, NULL);
}
HELPER int put_as(struct kvw *k, const char *user, const char *key)
{
    Etcdserverpb__PutRequest r = put_req(key, "v");

    return apply_as(k, user, 0, ETCD_OP_PUT, &r, NULL);
}

/* root with its role; auth is on. */
HELPER void auth_on(struct kvw *k)
{
    assert_int_equal(user_add(k, NULL, "root"), 0);
    assert_int_equal(user_grant(k, NULL, "root", "root"), 0);
    assert_int_equal(auth_switch(k, NULL, true), 0);
}

#endif
