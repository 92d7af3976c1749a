/* test_lease_kv.c - leases as entries of the log: answers and errors, keys that come and go. */
#include "kv_impl.h"
#include "kv_world.h"

static struct kvw k;

static int up(void **state)
{
    (void)state;
    kvw_init(&k, 1, NULL);
    return kvw_up(&k) ? 0 : -1;
}

static int down(void **state)
{
    (void)state;
    kvw_free(&k);
    return 0;
}

static int64_t lease_of(const char *key)
{
    return etcd_lessor_of(&k.kv->leases.lessor, bns_slice_str(key));
}

/* The lease field of the stored KeyValue; -1 = no such key. */
static int64_t stored_lease(const char *key)
{
    Etcdserverpb__RangeRequest r = range_req(key, NULL);
    struct got g = kvw_range(&k, &r);
    Etcdserverpb__RangeResponse *m = kvw_decode(&k, &g, RANGE_DESC);

    return m->n_kvs == 0 ? -1 : m->kvs[0]->lease;
}

static struct got grant(int64_t id, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest r = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    struct got g;

    r.has_id = id != 0;
    r.id = id;
    r.has_ttl = ttl != 0;
    r.ttl = ttl;
    assert_true(kvw_apply(&k, ETCD_OP_LEASE_GRANT, &r, &g));
    return g;
}

static struct got revoke(int64_t id)
{
    Etcdserverpb__LeaseRevokeRequest r = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    struct got g;

    r.has_id = id != 0;
    r.id = id;
    assert_true(kvw_apply(&k, ETCD_OP_LEASE_REVOKE, &r, &g));
    return g;
}

static void grant_answers_id_and_ttl(void **state)
{
    struct got g = grant(77, 100);
    Etcdserverpb__LeaseGrantResponse *m = kvw_decode(&k, &g, GRANT_DESC);

    (void)state;
    assert_int_equal(m->id, 77);
    assert_int_equal(m->ttl, 100);
    assert_null(m->error);
    assert_int_equal(m->header->revision, 1); /* a lease is not a revision */
    assert_int_equal(do_grant(&k, -3, ETCD_LEASE_TTL_MAX), 0);
    assert_int_equal(etcd_kv_leases(k.kv), 2);
}

static void errors_are_those_of_etcd(void **state)
{
    static const struct {
        const char *what;
        int64_t id, ttl;
        int status;
        const char *text;
    } t[] = {
        {"again", 5, 10, 9, "etcdserver: lease already exists"},
        {"too long", 6, ETCD_LEASE_TTL_MAX + 1, 11, "etcdserver: too large lease TTL"},
        {"too long wins", 5, INT64_MAX, 11, "etcdserver: too large lease TTL"},
        {"no id", 0, 10, 5, "etcdserver: requested lease not found"},
    };
    struct got g;

    (void)state;
    assert_int_equal(do_grant(&k, 5, 10), 0);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        g = grant(t[i].id, t[i].ttl);
        print_message("  %s\n", t[i].what);
        assert_int_equal(g.status, t[i].status);
        assert_string_equal(g.text, t[i].text);
    }
    g = revoke(6);
    assert_int_equal(g.status, 5);
    assert_string_equal(g.text, "etcdserver: requested lease not found");
    assert_int_equal(revoke(0).status, 5);
    assert_int_equal(do_put_leased(&k, "a", 6), 5);
    assert_int_equal(etcd_kv_revision(k.kv), 1);
    assert_int_equal(etcd_kv_leases(k.kv), 1);
}

static void a_revocation_deletes_its_keys_in_one_revision(void **state)
{
    Etcdserverpb__RangeRequest r = range_req("a", "z");
    Etcdserverpb__LeaseRevokeResponse *rr;
    Etcdserverpb__RangeResponse *m;
    struct got g;

    (void)state;
    assert_int_equal(do_grant(&k, 5, 10), 0);
    (void)do_put(&k, "free", "1");
    assert_int_equal(
        do_put_leased(&k, "c", 5) + do_put_leased(&k, "a", 5) + do_put_leased(&k, "b", 5), 0);
    g = revoke(5);
    rr = kvw_decode(&k, &g, REVOKE_DESC);
    assert_int_equal(rr->header->revision, 6);
    g = kvw_range(&k, &r);
    m = kvw_decode(&k, &g, RANGE_DESC);
    assert_int_equal(m->n_kvs, 1);
    for (uint32_t sub = 0; sub < 3; sub++) { /* tombstones in the order of the keys */
        char name[2] = {(char)('a' + (int)sub), 0};
        struct etcd_key *x =
            etcd_index_first(&k.kv->index, bns_slice_str(name), bns_slice(NULL, 0));
        assert_int_equal(x->revs[x->count - 1].main, 6);
        assert_int_equal(x->revs[x->count - 1].sub, sub);
        assert_true(etcd_rev_dead(&x->revs[x->count - 1]));
    }
    assert_int_equal(do_grant(&k, 5, 10), 0); /* the id is free again */
    assert_int_equal(do_revoke(&k, 5), 0);
    assert_int_equal(etcd_kv_revision(k.kv), 6); /* no key, no revision */
}

static void a_key_follows_its_last_put(void **state)
{
    Etcdserverpb__PutRequest keep = put_req("a", "kept");
    struct got g;

    (void)state;
    assert_int_equal(do_grant(&k, 5, 10) + do_grant(&k, 6, 10), 0);
    assert_int_equal(do_put_leased(&k, "a", 5), 0);
    assert_int_equal(lease_of("a"), 5);
    assert_int_equal(do_put_leased(&k, "a", 6), 0);
    assert_int_equal(lease_of("a"), 6);
    assert_int_equal(stored_lease("a"), 6);
    assert_int_equal(do_revoke(&k, 5), 0);
    assert_int_equal(stored_lease("a"), 6);
    keep.has_ignore_lease = keep.ignore_lease = true;
    assert_true(kvw_apply(&k, ETCD_OP_PUT, &keep, &g));
    assert_int_equal(g.status, 0);
    free(g.bytes);
    assert_int_equal(lease_of("a"), 6);
    assert_int_equal(stored_lease("a"), 6);
    (void)do_put(&k, "a", "free");
    assert_int_equal(lease_of("a"), 0);
    assert_int_equal(stored_lease("a"), 0);
    assert_int_equal(do_put_leased(&k, "a", 6), 0);
    (void)do_delete(&k, "a", NULL);
    assert_int_equal(lease_of("a"), 0);
    assert_int_equal(do_put_leased(&k, "b", 6), 0);
    (void)do_put(&k, "a", "not on it any more");
    assert_int_equal(do_revoke(&k, 6), 0);
    assert_int_equal(stored_lease("a"), 0);
    assert_int_equal(stored_lease("b"), -1);
}

/* Put, move and delete of leased keys; refused as a whole when a lease is missing. */
static void transactions_move_keys_between_leases(void **state)
{
    Etcdserverpb__PutRequest p1 = put_req("a", "1"), p2 = put_req("b", "2");
    Etcdserverpb__DeleteRangeRequest d = delete_req("c", NULL);
    Etcdserverpb__RequestOp o[3] = {ETCDSERVERPB__REQUEST_OP__INIT, ETCDSERVERPB__REQUEST_OP__INIT,
                                    ETCDSERVERPB__REQUEST_OP__INIT};
    Etcdserverpb__RequestOp *ops[] = {&o[0], &o[1], &o[2]};
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    struct got g;

    (void)state;
    assert_int_equal(do_grant(&k, 5, 10) + do_grant(&k, 6, 10), 0);
    assert_int_equal(do_put_leased(&k, "a", 5) + do_put_leased(&k, "c", 5), 0);
    p1.has_lease = p2.has_lease = true;
    p1.lease = 6;
    p2.lease = 7;
    o[0].request_case = o[1].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    o[2].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    o[0].request_put = &p1;
    o[1].request_put = &p2;
    o[2].request_delete_range = &d;
    t.n_success = 3;
    t.success = ops;
    assert_true(kvw_apply(&k, ETCD_OP_TXN, &t, &g));
    assert_int_equal(g.status, 5);
    assert_int_equal(lease_of("a"), 5);
    assert_int_equal(lease_of("c"), 5);
    p2.lease = 5;
    assert_true(kvw_apply(&k, ETCD_OP_TXN, &t, &g));
    assert_int_equal(g.status, 0);
    free(g.bytes);
    assert_int_equal(lease_of("a"), 6);
    assert_int_equal(lease_of("b"), 5);
    assert_int_equal(lease_of("c"), 0);
}

static void a_restart_finds_leases_and_their_keys(void **state)
{
    uint64_t digest;

    (void)state;
    for (int64_t i = 1; i <= 50; i++) {
        char key[8];
        (void)snprintf(key, sizeof key, "k%d", (int)i % 7);
        assert_int_equal(do_grant(&k, i, 10 + i), 0);
        assert_int_equal(do_put_leased(&k, key, i), 0);
        if (i % 3 == 0)
            assert_int_equal(do_revoke(&k, i), 0);
    }
    (void)do_compact(&k, etcd_kv_revision(k.kv) - 5, true);
    digest = etcd_kv_lease_digest(k.kv);
    kvw_close(&k);
    assert_true(kvw_up(&k));
    assert_true(etcd_kv_lease_digest(k.kv) == digest);
    assert_int_equal(etcd_kv_leases(k.kv), 34);
    assert_int_equal(do_grant(&k, 50, 10), 9);
    assert_int_equal(do_revoke(&k, 50), 0);
}

/* ---- the clock ------------------------------------------------------------------------------ */

struct clock {
    unsigned calls;
    struct bns_rcbuf *last;
    int rv;
};

static int on_propose(void *arg, struct bns_rcbuf *entry)
{
    struct clock *c = arg;

    c->calls++;
    bns_rcbuf_put(c->last);
    c->last = bns_rcbuf_copy(bns_alloc_libc(), bns_rcbuf_slice(entry));
    return c->rv;
}

static void do_hooks(struct kvw_call *c)
{
    etcd_kv_leases_on(k.kv, &(struct etcd_lease_hooks){
                                .extend_ns = BNS_SEC, .propose = on_propose, .arg = (void *)c->g});
}

static void do_lead(struct kvw_call *c)
{
    etcd_kv_sm()->role(k.kv, c->rev != 0 ? BNS_RAFT_LEADER : BNS_RAFT_FOLLOWER, k.term, 1);
}

static void lead(bool leads)
{
    struct kvw_call c = {.k = &k, .fn = do_lead, .rev = leads};

    assert_true(bns_world_call(k.w, 0, kvw_in, &c));
}

static void run_for(uint64_t ns)
{
    assert_null(bns_world_run(k.w, bns_world_now(k.w) + ns, NULL, NULL));
}

static void expiry_is_proposed_in_its_term_and_bounded(void **state)
{
    struct clock clock = {.rv = BNS_E_BUSY};
    struct kvw_call c = {.k = &k, .fn = do_hooks, .g = (void *)&clock};

    (void)state;
    assert_true(kvw_call(&c));
    for (int64_t i = 1; i <= 900; i++)
        assert_int_equal(do_grant(&k, i, 5), 0);
    run_for(100 * BNS_SEC);
    assert_int_equal(clock.calls, 0); /* a follower has no clock */
    lead(true);
    run_for(6 * BNS_SEC - BNS_MS);
    assert_int_equal(clock.calls, 0); /* the full TTL and the extension */
    run_for(2 * BNS_MS);
    assert_int_equal(clock.calls, 500);
    run_for(BNS_SEC);
    assert_int_equal(clock.calls, 900);
    run_for(BNS_SEC);
    assert_int_equal(clock.calls, 900);
    run_for(BNS_SEC);
    assert_true(clock.calls > 900); /* what was not revoked is tried again after 3 s */
    lead(false);
    clock.calls = 0;
    run_for(100 * BNS_SEC);
    assert_int_equal(clock.calls, 0);
    k.term++; /* a new leader puts the old proposal into the log: it does nothing */
    assert_true(kvw_apply_data(&k, BNS_RAFT_NORMAL, bns_rcbuf_get(clock.last), NULL));
    assert_int_equal(etcd_kv_leases(k.kv), 900);
    k.term--;
    assert_true(kvw_apply_data(&k, BNS_RAFT_NORMAL, bns_rcbuf_get(clock.last), NULL));
    assert_int_equal(etcd_kv_leases(k.kv), 899);
    bns_rcbuf_put(clock.last);
}

static int alarm_corrupt(bool on)
{
    Etcdserverpb__AlarmRequest r = ETCDSERVERPB__ALARM_REQUEST__INIT;
    struct got g;

    r.has_action = r.has_memberid = r.has_alarm = true;
    r.action = on ? ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE
                  : ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    r.memberid = 7;
    r.alarm = ETCDSERVERPB__ALARM_TYPE__CORRUPT;
    assert_true(kvw_apply(&k, ETCD_OP_ALARM, &r, &g));
    free(g.bytes);
    return g.status;
}

/* No revocation is applied while the alarm stands, so none is proposed; then all are. */
static void under_corrupt_nothing_is_proposed(void **state)
{
    struct clock clock = {.rv = BNS_OK};
    struct kvw_call c = {.k = &k, .fn = do_hooks, .g = (void *)&clock};

    (void)state;
    k.settle_ns = BNS_MS; /* timers go on for ever */
    assert_true(kvw_call(&c));
    for (int64_t i = 1; i <= 20; i++)
        assert_int_equal(do_grant(&k, i, 5), 0);
    assert_int_equal(alarm_corrupt(true), 0);
    lead(true);
    run_for(600 * BNS_SEC);
    assert_int_equal(clock.calls, 0);
    assert_int_equal(alarm_corrupt(false), 0);
    for (int i = 0; i < 40 && clock.calls == 0; i++)
        run_for(100 * BNS_MS);
    assert_int_equal(clock.calls, 20);
    lead(false);
    bns_rcbuf_put(clock.last);
}

static void a_paused_leader_hears_its_clients_once_more(void **state)
{
    struct clock clock = {.rv = BNS_OK};
    struct kvw_call c = {.k = &k, .fn = do_hooks, .g = (void *)&clock};
    uint64_t start;

    (void)state;
    assert_true(kvw_call(&c));
    assert_int_equal(do_grant(&k, 1, 5), 0);
    lead(true);
    start = bns_world_now(k.w);
    bns_world_pause(k.w, 0, 20 * BNS_SEC);
    while (bns_world_now(k.w) < start + 20 * BNS_SEC && bns_world_step(k.w)) {
    }
    run_for(400 * BNS_MS);
    assert_int_equal(clock.calls, 0);
    run_for(BNS_SEC);
    assert_int_equal(clock.calls, 1);
    lead(false);
    bns_rcbuf_put(clock.last);
}

/* A renewal that came meanwhile waits for the end of the entry: it is heard before the clock. */
static void nothing_expires_while_an_entry_is_under_way(void **state)
{
    struct clock clock = {.rv = BNS_OK};
    struct kvw_call c = {.k = &k, .fn = do_hooks, .g = (void *)&clock};

    (void)state;
    assert_true(kvw_call(&c));
    assert_int_equal(do_grant(&k, 1, 5), 0);
    lead(true);
    k.kv->apply.open = true;
    run_for(20 * BNS_SEC);
    assert_int_equal(clock.calls, 0);
    k.kv->apply.open = false;
    run_for(400 * BNS_MS);
    assert_int_equal(clock.calls, 0);
    run_for(2 * BNS_SEC);
    assert_int_equal(clock.calls, 1);
    lead(false);
    bns_rcbuf_put(clock.last);
}

static void the_planted_bug_lets_a_follower_propose(void **state)
{
    struct clock clock = {.rv = BNS_OK};
    struct kvw_call c = {.k = &k, .fn = do_hooks, .g = (void *)&clock};

    (void)state;
    assert_true(kvw_call(&c));
    assert_int_equal(do_grant(&k, 1, 5), 0);
    bns_world_env(k.w, 0)->mutant = ETCD_MUTANT_FOLLOWER_CLOCK;
    lead(false);
    run_for(7 * BNS_SEC);
    assert_true(clock.calls > 0);
    bns_world_env(k.w, 0)->mutant = 0;
    lead(false);
    clock.calls = 0;
    run_for(20 * BNS_SEC);
    assert_int_equal(clock.calls, 0);
    bns_rcbuf_put(clock.last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(grant_answers_id_and_ttl, up, down),
        cmocka_unit_test_setup_teardown(errors_are_those_of_etcd, up, down),
        cmocka_unit_test_setup_teardown(a_revocation_deletes_its_keys_in_one_revision, up, down),
        cmocka_unit_test_setup_teardown(a_key_follows_its_last_put, up, down),
        cmocka_unit_test_setup_teardown(transactions_move_keys_between_leases, up, down),
        cmocka_unit_test_setup_teardown(a_restart_finds_leases_and_their_keys, up, down),
        cmocka_unit_test_setup_teardown(expiry_is_proposed_in_its_term_and_bounded, up, down),
        cmocka_unit_test_setup_teardown(under_corrupt_nothing_is_proposed, up, down),
        cmocka_unit_test_setup_teardown(a_paused_leader_hears_its_clients_once_more, up, down),
        cmocka_unit_test_setup_teardown(nothing_expires_while_an_entry_is_under_way, up, down),
        cmocka_unit_test_setup_teardown(the_planted_bug_lets_a_follower_propose, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
