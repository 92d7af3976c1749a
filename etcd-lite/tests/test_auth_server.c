/* Goal:   what callers with few rights, or none, can see and take of a whole server.
 * Method: real servers in a simulated world and our client, as root, as a user, as nobody.
 */
#include "client_world.h"

#include "auth_int.h"

struct got {
    bool done;
    int status;
    char text[256];
    struct bns_arena arena; /* holds msg; to be freed */
    const ProtobufCMessage *msg;
};

static void ended(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    g->done = true;
    g->status = a->status;
    (void)snprintf(g->text, sizeof g->text, "%s", a->text);
    if (a->status != 0)
        return;
    g->msg = a->msg;
    g->arena = *a->arena;
    bns_arena_init(a->arena, cw.env->alloc, 1024 * 1024);
}

static void drop(struct got *g)
{
    if (g->msg != NULL)
        bns_arena_free(&g->arena);
    *g = (struct got){0};
}

static void begin(struct bns_etcd *c, enum bns_etcd_method m, const void *req, struct got *g)
{
    const struct bns_etcd_call_options o = {.method = m, .request = req};

    *g = (struct got){0};
    assert_int_equal(bns_etcd_call(c, &o, ended, g, NULL), BNS_OK);
}

/* The status; the message is dropped. */
static int ask(struct bns_etcd *c, enum bns_etcd_method m, const void *req)
{
    struct got g;
    int status;

    begin(c, m, req, &g);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    status = g.status;
    drop(&g);
    return status;
}

static ProtobufCBinaryData bytes(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static struct bns_etcd *client_as(const char *user, unsigned first)
{
    static const char *one[1];
    struct bns_etcd_options o = {.first_endpoint = true,
                                 .user = user,
                                 .password = user,
                                 .endpoints = one,
                                 .endpoints_count = 1};

    one[0] = cw.endpoint[first];
    return cw_client(&o);
}

static void add_user(struct bns_etcd *c, const char *name, const char *role)
{
    Etcdserverpb__AuthUserAddRequest add = ETCDSERVERPB__AUTH_USER_ADD_REQUEST__INIT;
    Etcdserverpb__AuthUserGrantRoleRequest grant = ETCDSERVERPB__AUTH_USER_GRANT_ROLE_REQUEST__INIT;

    add.name = add.password = grant.user = (char *)(uintptr_t)name;
    grant.role = (char *)(uintptr_t)role;
    assert_int_equal(ask(c, BNS_ETCD_USER_ADD, &add), 0);
    assert_int_equal(ask(c, BNS_ETCD_USER_GRANT, &grant), 0);
}

/* Auth is on: root, and u who may read and write m .. n. */
static void auth_on(unsigned servers)
{
    Etcdserverpb__AuthRoleAddRequest role = ETCDSERVERPB__AUTH_ROLE_ADD_REQUEST__INIT;
    Etcdserverpb__AuthRoleGrantPermissionRequest perm =
        ETCDSERVERPB__AUTH_ROLE_GRANT_PERMISSION_REQUEST__INIT;
    Etcdserverpb__Permission p = ETCDSERVERPB__PERMISSION__INIT;
    Etcdserverpb__AuthEnableRequest on = ETCDSERVERPB__AUTH_ENABLE_REQUEST__INIT;
    struct bns_etcd *c;

    cw_new(1, servers, NULL);
    for (unsigned i = 0; i < servers; i++)
        cw.server[i].opt.bcrypt_cost = 4;
    c = client_as(NULL, cw_leader());
    role.name = perm.name = "r";
    perm.perm = &p;
    p.has_permtype = p.has_key = p.has_range_end = true;
    p.permtype = ETCDSERVERPB__PERMISSION__TYPE__READWRITE;
    p.key = bytes("m");
    p.range_end = bytes("n");
    assert_int_equal(ask(c, BNS_ETCD_ROLE_ADD, &role), 0);
    assert_int_equal(ask(c, BNS_ETCD_ROLE_GRANT, &perm), 0);
    add_user(c, "root", "root");
    add_user(c, "u", "r");
    assert_int_equal(ask(c, BNS_ETCD_AUTH_ENABLE, &on), 0);
    bns_etcd_free(c);
}

/* The leader's keys are told; whether they may be is asked of them, not of what this member has
 * applied. At every moment of a put and of the question. */
static void keys_of_a_lease_are_told_to_those_who_may_read_them(void **state)
{
    Etcdserverpb__LeaseGrantRequest grant = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    Etcdserverpb__LeaseTimeToLiveRequest ttl = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    unsigned lead, told = 0, refused = 0;
    struct bns_etcd *root, *u;

    (void)state;
    auth_on(3);
    lead = cw_leader();
    root = client_as("root", lead);
    u = client_as("u", (lead + 1) % 3);
    grant.has_ttl = grant.has_id = ttl.has_id = ttl.has_keys = ttl.keys = true;
    grant.ttl = 600;
    put.has_key = put.has_lease = true;
    for (int64_t i = 0; i < 60; i++) {
        struct got g, wrote;

        grant.id = ttl.id = put.lease = 100 + i;
        assert_int_equal(ask(root, BNS_ETCD_LEASE_GRANT, &grant), 0);
        put.key = bytes("m1");
        assert_int_equal(ask(root, BNS_ETCD_PUT, &put), 0);
        cw_pass(300 * BNS_MS); /* everywhere */
        put.key = bytes("secret");
        begin(root, BNS_ETCD_PUT, &put, &wrote);
        if (i > 0)
            cw_pass((uint64_t)i * 100 * 1000);
        begin(u, BNS_ETCD_LEASE_TTL, &ttl, &g);
        assert_true(cw_until(&g.done, BNS_SEC));
        assert_true(cw_until(&wrote.done, BNS_SEC));
        if (g.status == 0) {
            const Etcdserverpb__LeaseTimeToLiveResponse *r = (const void *)g.msg;

            told++;
            assert_int_equal(r->n_keys, 1);
            assert_int_equal(r->keys[0].len, 2); /* not the secret one */
        } else {
            refused++;
            assert_int_equal(g.status, 7);
            assert_string_equal(g.text, "etcdserver: permission denied");
        }
        drop(&g);
        drop(&wrote);
    }
    print_message("told %u, refused %u\n", told, refused);
    assert_true(told > 0);
    assert_true(refused > 0);
    bns_etcd_free(root);
    bns_etcd_free(u);
    cw_free();
}

static uint64_t last_index(unsigned id)
{
    struct bns_raft_status st;

    bns_raft_node_status(cw.server[id].s->node, &st);
    return st.last_index;
}

static int ask_text(struct bns_etcd *c, enum bns_etcd_method m, const void *req, const char *text)
{
    struct got g;

    begin(c, m, req, &g);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    assert_string_equal(g.text, text);
    m = (enum bns_etcd_method)g.status;
    drop(&g);
    return (int)m;
}

#define EMPTY "etcdserver: user name is empty"
#define DENIED "etcdserver: permission denied"
#define FULL "etcdserver: mvcc: database space exceeded"

/* Neither the log nor the quota nor an alarm is theirs to fill. */
static void writes_of_nobody_reach_neither_log_nor_quota(void **state)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    static char large[600000];
    struct bns_etcd *nobody, *u;
    uint64_t index;

    (void)state;
    cw_extra = "--quota-backend-bytes=500000";
    auth_on(1);
    cw_extra = NULL;
    nobody = client_as(NULL, 0);
    u = client_as("u", 0);
    memset(large, 'x', sizeof large - 1);
    put.has_key = put.has_value = true;
    put.key = bytes("m1");
    put.value = bytes("v");
    assert_int_equal(ask(u, BNS_ETCD_PUT, &put), 0);
    index = last_index(0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask_text(nobody, BNS_ETCD_PUT, &put, EMPTY), 3);
    put.value = bytes(large);
    assert_int_equal(ask_text(nobody, BNS_ETCD_PUT, &put, EMPTY), 3);
    assert_false(etcd_kv_alarmed(cw.server[0].s->kv, ETCD_ALARM_NOSPACE));
    assert_true(last_index(0) == index);
    assert_int_equal(ask_text(u, BNS_ETCD_PUT, &put, FULL), 8);
    assert_true(etcd_kv_alarmed(cw.server[0].s->kv, ETCD_ALARM_NOSPACE));
    bns_etcd_free(nobody);
    bns_etcd_free(u);
    cw_free();
}

/* As etcd from 3.6.9 on. */
static void the_list_of_members_needs_a_user_and_a_compaction_needs_root(void **state)
{
    Etcdserverpb__MemberListRequest list = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    Etcdserverpb__CompactionRequest compact = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    struct bns_etcd *nobody, *u, *root;

    (void)state;
    auth_on(1);
    nobody = client_as(NULL, 0);
    u = client_as("u", 0);
    root = client_as("root", 0);
    put.has_key = true;
    put.key = bytes("m1");
    assert_int_equal(ask(u, BNS_ETCD_PUT, &put), 0);
    assert_int_equal(ask_text(nobody, BNS_ETCD_MEMBER_LIST, &list, EMPTY), 3);
    list.has_linearizable = list.linearizable = true;
    assert_int_equal(ask_text(nobody, BNS_ETCD_MEMBER_LIST, &list, EMPTY), 3);
    assert_int_equal(ask(u, BNS_ETCD_MEMBER_LIST, &list), 0);
    compact.has_revision = true;
    compact.revision = 2;
    assert_int_equal(ask_text(nobody, BNS_ETCD_COMPACT, &compact, EMPTY), 3);
    assert_int_equal(ask_text(u, BNS_ETCD_COMPACT, &compact, DENIED), 7);
    assert_int_equal(ask(root, BNS_ETCD_COMPACT, &compact), 0);
    bns_etcd_free(nobody);
    bns_etcd_free(u);
    bns_etcd_free(root);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_of_a_lease_are_told_to_those_who_may_read_them),
        cmocka_unit_test(writes_of_nobody_reach_neither_log_nor_quota),
        cmocka_unit_test(the_list_of_members_needs_a_user_and_a_compaction_needs_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
