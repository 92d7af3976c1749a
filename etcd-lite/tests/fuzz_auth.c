/* fuzz_auth.c - any bytes as an entry of auth, and as tokens, against a living store.
 *
 * The first byte is the operation, the second who asks. The store must live; each entry is
 * answered; the revision grows by one at most, and only when the answer is no error; what is stored
 * reads back after a restart. */
#include "auth_world.h"
#include "tests/fuzz.h"

static struct kvw k;
static unsigned runs;

static const struct {
    enum etcd_op op;
    const ProtobufCMessageDescriptor *desc;
} ops[] = {
    {ETCD_OP_AUTH_ENABLE, &etcdserverpb__auth_enable_request__descriptor},
    {ETCD_OP_AUTH_DISABLE, &etcdserverpb__auth_disable_request__descriptor},
    {ETCD_OP_AUTHENTICATE, &etcdserverpb__internal_authenticate_request__descriptor},
    {ETCD_OP_AUTH_USER_ADD, &etcdserverpb__auth_user_add_request__descriptor},
    {ETCD_OP_AUTH_USER_DELETE, &etcdserverpb__auth_user_delete_request__descriptor},
    {ETCD_OP_AUTH_USER_CHANGE_PASSWORD,
     &etcdserverpb__auth_user_change_password_request__descriptor},
    {ETCD_OP_AUTH_USER_GRANT_ROLE, &etcdserverpb__auth_user_grant_role_request__descriptor},
    {ETCD_OP_AUTH_USER_REVOKE_ROLE, &etcdserverpb__auth_user_revoke_role_request__descriptor},
    {ETCD_OP_AUTH_ROLE_ADD, &etcdserverpb__auth_role_add_request__descriptor},
    {ETCD_OP_AUTH_ROLE_DELETE, &etcdserverpb__auth_role_delete_request__descriptor},
    {ETCD_OP_AUTH_ROLE_GRANT_PERMISSION,
     &etcdserverpb__auth_role_grant_permission_request__descriptor},
    {ETCD_OP_AUTH_ROLE_REVOKE_PERMISSION,
     &etcdserverpb__auth_role_revoke_permission_request__descriptor},
};
#define OPS (sizeof ops / sizeof ops[0])

static void begin(void)
{
    bool up;

    if (k.w != NULL)
        kvw_free(&k);
    kvw_init(&k, runs, NULL);
    up = kvw_up(&k);
    BNS_ASSERT(up);
    auth_on(&k);
    (void)user_add(&k, "root", "u");
    (void)role_add(&k, "root", "r");
    (void)role_grant(&k, "root", "r", 2, "a", "c");
    (void)user_grant(&k, "root", "u", "r");
}

static void again(void)
{
    uint64_t digest = etcd_kv_sm()->digest(k.kv), revision = etcd_auth_revision(k.kv);
    bool up;

    kvw_close(&k);
    up = kvw_up(&k);
    BNS_ASSERT(up);
    BNS_ASSERT(etcd_kv_sm()->digest(k.kv) == digest);
    BNS_ASSERT(etcd_auth_revision(k.kv) == revision);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const users[] = {"root", "u", NULL};
    ProtobufCMessage *m = NULL;
    uint64_t before;
    int status;

    if (size < 2)
        return 0;
    if (runs % 500 == 0)
        begin();
    else if (runs % 100 == 0)
        again();
    runs++;
    (void)etcd_token_index(bns_slice(data, size)); /* any text may come as a token */
    if (bns_pb_unpack(ops[data[0] % OPS].desc, bns_slice(data + 2, size - 2), &k.arena, NULL, &m,
                      NULL) == BNS_OK) {
        before = etcd_auth_revision(k.kv);
        status = apply_as(&k, users[data[1] % 3], 0, ops[data[0] % OPS].op, m, NULL);
        BNS_ASSERT(k.kv != NULL);
        BNS_ASSERT(etcd_auth_revision(k.kv) - before <= (status == 0 ? 1u : 0u));
        (void)put_as(&k, "u", "a");
    }
    bns_arena_free(&k.arena);
    return 0;
}
