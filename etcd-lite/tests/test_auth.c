/* test_auth.c - users, roles and permissions as the log makes them: etcd's answers, what each
 * request needs, tokens; equal after a restart and on a member that got a snapshot. */
#include "auth_world.h"
#include "auth_int.h"
#include "base/prng.h"
#include "kv_snap_world.h"

static void management_answers_as_etcd_does(void **state)
{
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    assert_int_equal(etcd_auth_revision(k.kv), 1);
    assert_int_equal(auth_switch(&k, NULL, true), 9); /* no root */
    assert_int_equal(user_add(&k, NULL, "root"), 0);
    assert_int_equal(etcd_auth_revision(k.kv), 2);
    assert_int_equal(auth_switch(&k, NULL, true), 9); /* without its role */
    assert_int_equal(user_grant(&k, NULL, "root", "root"), 0);
    assert_int_equal(user_add(&k, NULL, ""), 3);
    assert_int_equal(user_add(&k, NULL, "root"), 9);
    assert_int_equal(user_add(&k, NULL, "ann"), 0);
    assert_int_equal(role_add(&k, NULL, ""), 3);
    assert_int_equal(role_add(&k, NULL, "r"), 0);
    assert_int_equal(role_add(&k, NULL, "r"), 9);
    assert_int_equal(user_grant(&k, NULL, "ann", "nope"), 9);
    assert_int_equal(user_grant(&k, NULL, "bob", "r"), 9);
    assert_int_equal(user_grant(&k, NULL, "ann", "r"), 0);
    assert_int_equal(etcd_auth_revision(k.kv), 6);
    assert_int_equal(user_grant(&k, NULL, "ann", "r"), 0); /* is there: no new revision */
    assert_int_equal(etcd_auth_revision(k.kv), 6);
    assert_int_equal(user_revoke(&k, NULL, "ann", "root"), 9);
    assert_int_equal(user_revoke(&k, NULL, "bob", "r"), 9);
    assert_int_equal(role_grant(&k, NULL, "r", 0, "", NULL), 3);
    assert_int_equal(role_grant(&k, NULL, "r", 0, "b", "a"), 3);
    assert_int_equal(role_grant(&k, NULL, "nope", 0, "a", NULL), 9);
    assert_int_equal(role_grant(&k, NULL, "r", 0, "a", NULL), 0);
    assert_int_equal(role_revoke(&k, NULL, "r", "b", NULL), 9);
    assert_int_equal(role_revoke(&k, NULL, "nope", "a", NULL), 9);
    assert_int_equal(role_revoke(&k, NULL, "r", "a", NULL), 0);
    assert_int_equal(user_password(&k, NULL, "bob"), 9);
    assert_int_equal(user_password(&k, NULL, "ann"), 0);
    assert_int_equal(user_delete(&k, NULL, "bob"), 9);
    assert_int_equal(role_delete(&k, NULL, "nope"), 9);
    assert_int_equal(auth_switch(&k, NULL, true), 0);
    assert_int_equal(auth_switch(&k, "root", true), 0);
    assert_int_equal(etcd_auth_revision(k.kv), 9);
    /* on: only root, and root stays what it is */
    assert_int_equal(user_add(&k, NULL, "x"), 3);
    assert_int_equal(user_add(&k, "ann", "x"), 7);
    assert_int_equal(user_add(&k, "nobody", "x"), 9);
    assert_int_equal(user_delete(&k, "root", "root"), 3);
    assert_int_equal(user_revoke(&k, "root", "root", "root"), 3);
    assert_int_equal(role_delete(&k, "root", "root"), 3);
    assert_true(etcd_auth_has_role(k.kv, BNS_LIT("ann"), BNS_LIT("r")));
    assert_int_equal(role_delete(&k, "root", "r"), 0);
    assert_false(etcd_auth_has_role(k.kv, BNS_LIT("ann"), BNS_LIT("r")));
    assert_int_equal(user_delete(&k, "root", "ann"), 0);
    assert_int_equal(auth_switch(&k, "ann", false), 9);
    assert_int_equal(auth_switch(&k, "root", false), 0);
    assert_int_equal(etcd_auth_revision(k.kv), 12);
    assert_int_equal(put_as(&k, NULL, "a"), 0);
    kvw_free(&k);
}

/* ---- what each request needs ---------------------------------------------------------------- */

/* u may read r .. s, write w .. x, and both m .. n. */
static void make_user(struct kvw *k)
{
    auth_on(k);
    assert_int_equal(user_add(k, "root", "u"), 0);
    assert_int_equal(role_add(k, "root", "one"), 0);
    assert_int_equal(role_add(k, "root", "two"), 0);
    assert_int_equal(role_grant(k, "root", "one", 0, "r", "s"), 0);
    assert_int_equal(role_grant(k, "root", "two", 1, "w", "x"), 0);
    assert_int_equal(role_grant(k, "root", "one", 2, "m", "m5"), 0);
    assert_int_equal(role_grant(k, "root", "two", 2, "m5", "n"), 0);
    assert_int_equal(user_grant(k, "root", "u", "one"), 0);
    assert_int_equal(user_grant(k, "root", "u", "two"), 0);
}

static int put_opt(struct kvw *k, const char *user, const char *key, bool prev, int64_t lease)
{
    Etcdserverpb__PutRequest r = put_req(key, "v");

    r.has_prev_kv = r.prev_kv = prev;
    r.has_lease = lease != 0;
    r.lease = lease;
    return apply_as(k, user, 0, ETCD_OP_PUT, &r, NULL);
}

static int del_opt(struct kvw *k, const char *key, const char *end, bool prev)
{
    Etcdserverpb__DeleteRangeRequest r = delete_req(key, end);

    r.has_prev_kv = r.prev_kv = prev;
    return apply_as(k, "u", 0, ETCD_OP_DELETE, &r, NULL);
}

static void writes_need_write_and_old_values_need_read(void **state)
{
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    assert_int_equal(put_opt(&k, NULL, "w1", false, 0), 3);
    assert_int_equal(put_opt(&k, "ghost", "w1", false, 0), 7);
    assert_int_equal(put_opt(&k, "u", "w1", false, 0), 0);
    assert_int_equal(put_opt(&k, "u", "w1", true, 0), 7);
    assert_int_equal(put_opt(&k, "u", "r1", false, 0), 7);
    assert_int_equal(put_opt(&k, "u", "m1", true, 0), 0);
    assert_int_equal(put_opt(&k, "root", "r1", true, 0), 0);
    assert_int_equal(del_opt(&k, "w1", NULL, true), 7);
    assert_int_equal(del_opt(&k, "w", "x", false), 0);
    assert_int_equal(del_opt(&k, "w", "x0", false), 7);
    assert_int_equal(del_opt(&k, "w", "", false), 7);
    assert_int_equal(del_opt(&k, "m1", "m9", true), 0); /* across two roles */
    assert_int_equal(del_opt(&k, "r1", NULL, false), 7);
    kvw_free(&k);
}

static int do_revoke_as(struct kvw *k, const char *user, int64_t lease)
{
    Etcdserverpb__LeaseRevokeRequest r = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;

    r.has_id = true;
    r.id = lease;
    return apply_as(k, user, 0, ETCD_OP_LEASE_REVOKE, &r, NULL);
}

static void leases_need_write_on_all_their_keys(void **state)
{
    Etcdserverpb__LeaseRevokeRequest r = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    assert_int_equal(do_grant(&k, 5, 60), 0);
    assert_int_equal(do_grant(&k, 6, 60), 0);
    assert_int_equal(put_opt(&k, "u", "w1", false, 5), 0);
    assert_int_equal(put_opt(&k, "root", "r1", false, 6), 0);
    assert_int_equal(put_opt(&k, "u", "w2", false, 6), 7);
    assert_int_equal(put_opt(&k, "u", "w2", false, 99), 5); /* no such lease: later */
    r.has_id = true;
    r.id = 6;
    assert_int_equal(apply_as(&k, "u", 0, ETCD_OP_LEASE_REVOKE, &r, NULL), 7);
    assert_int_equal(apply_as(&k, NULL, 0, ETCD_OP_LEASE_REVOKE, &r, NULL), 3);
    r.id = 5;
    assert_int_equal(apply_as(&k, "u", 0, ETCD_OP_LEASE_REVOKE, &r, NULL), 0);
    r.id = 6;
    assert_int_equal(apply_as(&k, "root", 0, ETCD_OP_LEASE_REVOKE, &r, NULL), 0);
    kvw_free(&k);
}

struct lease_ask {
    struct kvw_call c;
    int64_t lease;
    bool ok;
    uint64_t steps;
};

static void ask_lease(struct kvw_call *c)
{
    struct lease_ask *a = (struct lease_ask *)(void *)c;
    struct etcd_kv *kv = c->k->kv;
    struct etcd_who who = {.name = BNS_LIT("u"), .revision = etcd_auth_revision(kv)};
    struct etcd_status why = {0};
    uint64_t before = kv->auth->lease_steps;

    a->ok = etcd_auth_lease(kv, &who, a->lease, true, &why);
    assert_int_equal(why.code, a->ok ? 0 : 7);
    a->steps = kv->auth->lease_steps - before;
}

/* One interval of the user holds all the keys: one step, however many they are. */
static void a_lease_with_many_keys_is_checked_in_few_steps(void **state)
{
    struct lease_ask a = {.c = {.fn = ask_lease}, .lease = 5};
    char key[16];
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    a.c.k = &k;
    assert_int_equal(do_grant(&k, 5, 6000), 0);
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(key, sizeof key, "%c%04d", i % 2 == 0 ? 'w' : 'm', i);
        assert_int_equal(put_opt(&k, "root", key, false, 5), 0);
    }
    assert_true(kvw_call(&a.c));
    assert_true(a.ok);
    assert_true(a.steps <= 2);
    assert_int_equal(put_opt(&k, "u", "w", false, 5), 0);
    assert_int_equal(put_opt(&k, "root", "n", false, 5), 0); /* between the intervals */
    assert_true(kvw_call(&a.c));
    assert_false(a.ok);
    assert_int_equal(put_opt(&k, "u", "w1", false, 5), 7);
    assert_int_equal(put_opt(&k, "root", "n", false, 0), 0); /* off the lease */
    assert_true(kvw_call(&a.c));
    assert_true(a.ok);
    kvw_free(&k);
}

/* Random keys on a lease, random permissions: as if each key were asked for. */
static void leases_are_checked_as_their_keys_would_be(void **state)
{
    struct lease_ask a = {.c = {.fn = ask_lease}, .lease = 7};
    struct bns_prng p;
    struct kvw k;

    (void)state;
    bns_prng_seed(&p, 11);
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    auth_on(&k);
    a.c.k = &k;
    for (int round = 0; round < 40; round++) {
        bool may[26] = {false}, all = true;
        char key[2] = {0}, end[2] = {0};

        if (round > 0) {
            assert_int_equal(user_delete(&k, "root", "u"), 0);
            assert_int_equal(role_delete(&k, "root", "r"), 0);
        }
        assert_int_equal(user_add(&k, "root", "u"), 0);
        assert_int_equal(role_add(&k, "root", "r"), 0);
        assert_int_equal(user_grant(&k, "root", "u", "r"), 0);
        for (int i = 0; i < 4; i++) {
            unsigned from = (unsigned)(bns_prng_next(&p) % 26);
            unsigned to = from + (unsigned)(bns_prng_next(&p) % (26 - from + 1));

            key[0] = (char)('a' + from);
            end[0] = (char)('a' + to);
            if (to <= from)
                continue;
            assert_int_equal(role_grant(&k, "root", "r", 1, key, end), 0);
            for (unsigned x = from; x < to; x++)
                may[x] = true;
        }
        assert_int_equal(do_grant(&k, 7, 6000), 0);
        for (int i = 0; i < 1 + round % 6; i++) {
            key[0] = (char)('a' + bns_prng_next(&p) % 26);
            all = all && may[key[0] - 'a'];
            assert_int_equal(put_opt(&k, "root", key, false, 7), 0);
        }
        assert_true(kvw_call(&a.c));
        assert_int_equal(a.ok, all);
        assert_true(a.steps <= 5);
        assert_int_equal(do_revoke_as(&k, "root", 7), 0);
    }
    kvw_free(&k);
}

static void an_expired_lease_goes_although_nobody_revokes_it(void **state)
{
    static const uint8_t entry[] = {9 << 3 | 2, 2, 1 << 3, 5, 0xc8, 0xe2, 0x09, 1};
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    assert_int_equal(do_grant(&k, 5, 60), 0);
    assert_int_equal(put_opt(&k, "root", "r1", false, 5), 0);
    assert_int_equal(etcd_kv_leases(k.kv), 1);
    /* granted_index as the lessor's own revocations have it, but of another lease: nothing */
    assert_true(kvw_apply_data(&k, BNS_RAFT_NORMAL,
                               bns_rcbuf_copy(bns_alloc_libc(), bns_slice(entry, sizeof entry)),
                               NULL));
    assert_int_equal(etcd_kv_leases(k.kv), 1);
    kvw_free(&k);
}

static int txn_as(struct kvw *k, Etcdserverpb__RequestOp *op, Etcdserverpb__Compare *cmp, int where)
{
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__TxnRequest inner = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__RequestOp nest = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__RequestOp put = ETCDSERVERPB__REQUEST_OP__INIT;
    Etcdserverpb__PutRequest p = put_req("w9", "v");
    Etcdserverpb__RequestOp *ops[2] = {op, &put};

    put.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    put.request_put = &p;
    nest.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
    nest.request_txn = &inner;
    t.n_compare = inner.n_compare = 0;
    if (where == 2) { /* nested */
        inner.n_failure = op == NULL ? 0 : 1;
        inner.failure = ops;
        inner.n_compare = cmp == NULL ? 0 : 1;
        inner.compare = &cmp;
        ops[0] = op;
        t.n_success = 1;
        t.success = (Etcdserverpb__RequestOp *[]){&nest};
        return apply_as(k, "u", 0, ETCD_OP_TXN, &t, NULL);
    }
    t.n_compare = cmp == NULL ? 0 : 1;
    t.compare = &cmp;
    t.n_success = where == 0 ? (op == NULL ? 0 : 2) : 0;
    t.success = ops;
    t.n_failure = where == 1 ? (op == NULL ? 0 : 2) : 0;
    t.failure = ops;
    return apply_as(k, "u", 0, ETCD_OP_TXN, &t, NULL);
}

static void a_txn_needs_all_that_any_branch_of_it_could_do(void **state)
{
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    for (int where = 0; where < 3; where++) {
        static const char *const ks[] = {"r1", "w1", "m1", "a1"};
        static const int range_ok[] = {0, 7, 0, 7}, put_ok[] = {7, 0, 0, 7};
        static const int prev_ok[] = {7, 7, 0, 7};

        for (int i = 0; i < 4; i++) {
            Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT;
            Etcdserverpb__RangeRequest range = range_req(ks[i], NULL);
            Etcdserverpb__PutRequest put = put_req(ks[i], "v");
            Etcdserverpb__DeleteRangeRequest del = delete_req(ks[i], NULL);
            Etcdserverpb__Compare cmp = ETCDSERVERPB__COMPARE__INIT;

            op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
            op.request_range = &range;
            assert_int_equal(txn_as(&k, &op, NULL, where), range_ok[i]);
            op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
            op.request_put = &put;
            assert_int_equal(txn_as(&k, &op, NULL, where), put_ok[i]);
            put.has_prev_kv = put.prev_kv = true;
            assert_int_equal(txn_as(&k, &op, NULL, where), prev_ok[i]);
            op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
            op.request_delete_range = &del;
            assert_int_equal(txn_as(&k, &op, NULL, where), put_ok[i]);
            del.has_prev_kv = del.prev_kv = true;
            assert_int_equal(txn_as(&k, &op, NULL, where), prev_ok[i]);
            cmp.has_key = true;
            cmp.key = B(ks[i]);
            assert_int_equal(txn_as(&k, NULL, &cmp, where), range_ok[i]);
        }
    }
    kvw_free(&k);
}

static void a_header_that_is_older_than_the_users_is_refused(void **state)
{
    Etcdserverpb__PutRequest r = put_req("w1", "v");
    struct kvw k;
    struct got g;
    uint64_t rev;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    rev = etcd_auth_revision(k.kv);
    assert_int_equal(apply_as(&k, "u", rev, ETCD_OP_PUT, &r, &g), 0);
    assert_int_equal(role_add(&k, "root", "another"), 0);
    assert_int_equal(apply_as(&k, "u", rev, ETCD_OP_PUT, &r, &g), 3);
    assert_string_equal(g.text, "etcdserver: revision of auth store is old");
    assert_int_equal(apply_as(&k, "u", rev + 1, ETCD_OP_PUT, &r, &g), 0);
    kvw_free(&k);
}

/* The planted bug: what the tests above show as refused is then done. */
static void the_planted_bug_is_seen(void **state)
{
    struct kvw k;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    assert_int_equal(put_opt(&k, "u", "r1", false, 0), 7);
    bns_world_env(k.w, 0)->mutant = ETCD_MUTANT_AUTH_EARLY;
    assert_int_equal(put_opt(&k, "u", "r1", false, 0), 0);
    bns_world_env(k.w, 0)->mutant = 0;
    kvw_free(&k);
}

/* ---- tokens --------------------------------------------------------------------------------- */

#define L1 "abcdefghijklmnop"
#define L2 "ABCDEFGHIJKLMNOP"

/* Something done at an instant; other than kvw_call() it does not run the clock. */
struct now {
    struct kvw *k;
    const char *name, *letters; /* to be authenticated */
    char token[64];
    bool known;
    struct kvw_write x;
};

static void do_authenticate(struct bns_env *env, void *arg)
{
    Etcdserverpb__InternalAuthenticateRequest r = ETCDSERVERPB__INTERNAL_AUTHENTICATE_REQUEST__INIT;
    struct now *n = arg;
    struct bns_slice bytes;

    (void)env;
    r.name = (char *)(uintptr_t)n->name;
    r.simple_token = (char *)(uintptr_t)n->letters;
    assert_int_equal(bns_pb_pack_arena((void *)&r, &n->k->arena, &bytes), BNS_OK);
    n->x = (struct kvw_write){.k = n->k};
    n->x.e = (struct bns_raft_entry){
        .index = n->k->index + 1,
        .term = 1,
        .kind = BNS_RAFT_NORMAL,
        .data = etcd_internal_encode(bns_alloc_libc(), ++n->k->id, ETCD_OP_AUTHENTICATE, bytes)};
    etcd_kv_sm()->apply(n->k->kv, &n->x.e, 1, kvw_on_applied, &n->x);
    assert_true(n->x.applied);
    bns_rcbuf_put(n->x.e.data);
}

/* The index of the entry. */
static uint64_t authenticate(struct kvw *k, const char *name, const char *letters)
{
    struct now n = {.k = k, .name = name, .letters = letters};

    assert_true(bns_world_call(k->w, 0, do_authenticate, &n));
    (void)bns_world_run(k->w, bns_world_now(k->w) + BNS_SEC, NULL, NULL);
    return k->index;
}

static void do_know(struct bns_env *env, void *arg)
{
    struct now *n = arg;

    (void)env;
    n->known = etcd_token_user(n->k->kv, bns_slice_str(n->token)) != NULL;
}

static bool known(struct kvw *k, const char *letters, uint64_t index)
{
    struct now n = {.k = k};

    (void)snprintf(n.token, sizeof n.token, "%s.%llu", letters, (unsigned long long)index);
    assert_true(bns_world_call(k->w, 0, do_know, &n));
    (void)bns_world_run(k->w, bns_world_now(k->w) + BNS_SEC, NULL, NULL);
    return n.known;
}

static void pass(struct kvw *k, uint64_t seconds)
{
    (void)bns_world_run(k->w, bns_world_now(k->w) + seconds * BNS_SEC, NULL, NULL);
}

static void tokens_live_while_they_are_used(void **state)
{
    struct kvw k;
    uint64_t a, b;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    a = authenticate(&k, "root", L1);
    assert_false(known(&k, L1, a)); /* auth is off */
    make_user(&k);
    b = authenticate(&k, "nobody", L1);
    assert_false(known(&k, L1, b));
    a = authenticate(&k, "u", L1);
    b = authenticate(&k, "root", L2);
    assert_int_equal(etcd_tokens(k.kv), 2);
    assert_true(known(&k, L1, a));
    assert_true(known(&k, L2, b));
    assert_false(known(&k, L1, b));
    assert_false(known(&k, L1, a + 2));
    pass(&k, 200);
    assert_true(known(&k, L1, a));
    pass(&k, 200);
    assert_true(known(&k, L1, a));
    assert_false(known(&k, L2, b)); /* nobody used it for 300 s */
    assert_int_equal(etcd_tokens(k.kv), 1);
    pass(&k, 301);
    assert_false(known(&k, L1, a));
    kvw_free(&k);
}

static void do_forget(struct bns_env *env, void *arg)
{
    struct now *n = arg;
    Etcdserverpb__AuthUserChangePasswordRequest p =
        ETCDSERVERPB__AUTH_USER_CHANGE_PASSWORD_REQUEST__INIT;
    Etcdserverpb__AuthUserDeleteRequest d = ETCDSERVERPB__AUTH_USER_DELETE_REQUEST__INIT;
    Etcdserverpb__AuthDisableRequest off = ETCDSERVERPB__AUTH_DISABLE_REQUEST__INIT;
    const void *req[] = {&p, &d, &off};
    const enum etcd_op ops[] = {ETCD_OP_AUTH_USER_CHANGE_PASSWORD, ETCD_OP_AUTH_USER_DELETE,
                                ETCD_OP_AUTH_DISABLE};
    int which = n->letters[0] - '0';
    struct etcd_who root = {BNS_LIT("root"), etcd_auth_revision(n->k->kv), {0, NULL}};
    struct bns_slice bytes;

    (void)env;
    p.name = d.name = (char *)(uintptr_t) "u";
    p.hashedpassword = (char *)(uintptr_t)HASH64;
    assert_int_equal(bns_pb_pack_arena(req[which], &n->k->arena, &bytes), BNS_OK);
    n->x = (struct kvw_write){.k = n->k};
    n->x.e = (struct bns_raft_entry){
        .index = n->k->index + 1,
        .term = 1,
        .kind = BNS_RAFT_NORMAL,
        .data = etcd_internal_encode_as(bns_alloc_libc(), ++n->k->id, &root, ops[which], bytes)};
    etcd_kv_sm()->apply(n->k->kv, &n->x.e, 1, kvw_on_applied, &n->x);
    assert_true(n->x.applied);
    bns_rcbuf_put(n->x.e.data);
}

static void a_new_password_a_deleted_user_and_auth_off_void_tokens(void **state)
{
    static const char *const whats[] = {"0 password", "1 delete", "2 off"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct kvw k;
        struct now n = {.k = &k, .letters = whats[i]};
        uint64_t a, b;

        print_message("  %s\n", whats[i]);
        kvw_init(&k, 1, NULL);
        assert_true(kvw_up(&k));
        make_user(&k);
        a = authenticate(&k, "u", L1);
        b = authenticate(&k, "root", L2);
        assert_true(known(&k, L1, a));
        assert_true(bns_world_call(k.w, 0, do_forget, &n));
        (void)bns_world_run(k.w, bns_world_now(k.w) + BNS_SEC, NULL, NULL);
        assert_false(known(&k, L1, a));
        assert_int_equal(known(&k, L2, b), i != 2); /* the other user's stays */
        kvw_free(&k);
    }
}

static void a_restart_forgets_tokens_and_does_not_believe_its_log(void **state)
{
    struct kvw k;
    uint64_t a;

    (void)state;
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    make_user(&k);
    a = authenticate(&k, "u", L1);
    assert_true(known(&k, L1, a));
    kvw_close(&k);
    assert_true(kvw_up(&k));
    assert_false(known(&k, L1, a));
    etcd_tokens_setup(k.kv, 0, k.index + 1); /* the log held one more entry at this start */
    a = authenticate(&k, "u", L1);
    assert_false(known(&k, L1, a));
    a = authenticate(&k, "u", L1);
    assert_true(known(&k, L1, a));
    kvw_free(&k);
}

/* ---- the state itself ----------------------------------------------------------------------- */

static void expect_state(struct kvw *k)
{
    assert_true(etcd_auth_enabled(k->kv));
    assert_int_equal(etcd_auth_revision(k->kv), 12);
    assert_int_equal(put_opt(k, NULL, "w1", false, 0), 3);
    assert_int_equal(put_opt(k, "u", "w1", false, 0), 0);
    assert_int_equal(put_opt(k, "u", "m4", true, 0), 0);
    assert_int_equal(put_opt(k, "u", "r1", false, 0), 7);
    assert_int_equal(del_opt(k, "m1", "m9", true), 0);
}

static void users_outlive_a_restart_and_travel_in_snapshots(void **state)
{
    struct kvw a, b;
    struct snap x, y;

    (void)state;
    kvw_init(&a, 1, NULL);
    kvw_init(&b, 2, NULL);
    assert_true(kvw_up(&a));
    assert_true(kvw_up(&b));
    make_user(&a);
    expect_state(&a);
    kvw_close(&a);
    assert_true(kvw_up(&a));
    expect_state(&a);
    snap_take(&a, &x, false);
    y = x;
    y.k = &b;
    snap_install_all(&y);
    assert_int_equal(y.code, BNS_OK);
    b.index = a.index;
    assert_true(etcd_kv_sm()->digest(a.kv) == etcd_kv_sm()->digest(b.kv));
    expect_state(&b);
    free(x.file);
    kvw_free(&a);
    kvw_free(&b);
}

static void a_token_is_the_index_and_letters(void **state)
{
    static const struct {
        const char *token;
        uint64_t index;
    } t[] = {
        {L1 ".17", 17},
        {L1 ".18446744073709551615", UINT64_MAX},
        {L1 ".18446744073709551616", 0},
        {L1 ".", 0},
        {L1, 0},
        {"", 0},
        {L1 ".1x", 0},
        {L1 "q.1", 0},
        {L1 ".-1", 0},
        {L1 ".0000000000000000000000001", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        assert_true(etcd_token_index(bns_slice_str(t[i].token)) == t[i].index);
}

/* All slots but the first `left` and those that are the reserve's. */
static uint32_t slots_left;

static void take_slots(struct kvw_call *c)
{
    struct etcd_buckets *t = &c->k->kv->buckets;
    size_t words = ETCD_BUCKET_ROWS_MAX / 64;

    t->taken = bns_resize(c->k->kv->alloc, t->taken, words * sizeof *t->taken);
    assert_non_null(t->taken);
    memset(t->taken, 0xff, words * sizeof *t->taken);
    t->taken_words = words;
    for (uint32_t i = 0; i < slots_left; i++)
        t->taken[words - 1 - i / 64] &= ~(UINT64_C(1) << (63 - i % 64));
}

/* Slots run out at any entry on the way to enabled auth, and in any row of it: an answer, the
 * member lives, and what was refused has left nothing behind. */
static void no_slot_for_auth_is_an_answer(void **state)
{
    struct kvw k;
    struct kvw_call c = {.k = &k, .fn = take_slots};
    (void)state;

    for (slots_left = 0; slots_left < 4; slots_left++) {
        uint64_t revision;

        kvw_init(&k, 1, NULL);
        assert_true(kvw_up(&k));
        revision = etcd_auth_revision(k.kv);
        assert_true(kvw_call(&c));
        assert_int_equal(role_add(&k, NULL, "r"), 8); /* what is left is the reserve */
        assert_int_equal(user_add(&k, NULL, "root"), 8);
        assert_int_equal(auth_switch(&k, NULL, true), slots_left < 3 ? 8 : 9);
        assert_non_null(k.kv);
        assert_true(etcd_auth_revision(k.kv) == revision);
        kvw_free(&k);
    }
    /* what was made before goes on: its rows are there */
    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    auth_on(&k);
    slots_left = 0;
    assert_true(kvw_call(&c));
    assert_int_equal(user_add(&k, "root", "ann"), 8);
    assert_int_equal(user_password(&k, "root", "root"), 0);
    assert_int_equal(auth_switch(&k, "root", false), 0);
    assert_non_null(k.kv);
    kvw_free(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(management_answers_as_etcd_does),
        cmocka_unit_test(writes_need_write_and_old_values_need_read),
        cmocka_unit_test(leases_need_write_on_all_their_keys),
        cmocka_unit_test(a_lease_with_many_keys_is_checked_in_few_steps),
        cmocka_unit_test(leases_are_checked_as_their_keys_would_be),
        cmocka_unit_test(an_expired_lease_goes_although_nobody_revokes_it),
        cmocka_unit_test(a_txn_needs_all_that_any_branch_of_it_could_do),
        cmocka_unit_test(a_header_that_is_older_than_the_users_is_refused),
        cmocka_unit_test(the_planted_bug_is_seen),
        cmocka_unit_test(tokens_live_while_they_are_used),
        cmocka_unit_test(a_new_password_a_deleted_user_and_auth_off_void_tokens),
        cmocka_unit_test(a_restart_forgets_tokens_and_does_not_believe_its_log),
        cmocka_unit_test(users_outlive_a_restart_and_travel_in_snapshots),
        cmocka_unit_test(a_token_is_the_index_and_letters),
        cmocka_unit_test(no_slot_for_auth_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
