/* Goal:   locks have one holder, tokens grow, a holder whose key has gone is told; an election has
 *         one leader, whom everybody sees.
 * Method: real servers in a simulated world (client_world.h): four candidates with leases of their
 *         own take turns while leaders die and clients are cut off. Each effect goes through a
 *         resource that refuses old tokens, and that must never have to. */
#include "client_world.h"

#include "client/etcd/lease.h"
#include "client/etcd/lock.h"

#define CANDIDATES 4u

struct candidate {
    unsigned id;
    struct bns_etcd *c;
    struct bns_etcd_lease *lease;
    struct bns_etcd_lock *lock;
    struct bns_timer timer;
    bool held, stopping;
    unsigned turns, losses;
    int64_t token, lease_id;
};

static struct candidate all[CANDIDATES];
static int64_t newest; /* token that the resource has seen */
static unsigned double_holds, stale_tokens;

static void join(struct candidate *k);

/* The same lease asks again only when its old key is known to be gone. */
static void unlocked(void *arg, const struct bns_etcd_answer *a)
{
    struct candidate *k = arg;

    if (a->status != BNS_GRPC_OK && k->lease != NULL) {
        bns_etcd_lease_close(k->lease, true);
        k->lease = NULL;
    }
    if (!k->stopping)
        bns_timer_start(cw.env, &k->timer, bns_now_ns(cw.env));
}

static void drop_lock(struct candidate *k)
{
    struct bns_etcd_lock *l = k->lock;

    k->lock = NULL;
    k->held = false;
    bns_etcd_lock_close(l, unlocked, k);
}

static void leave(void *arg)
{
    struct candidate *k = arg;

    if (k->lock != NULL && k->held) {
        k->turns++;
        drop_lock(k);
    } else if (!k->stopping && k->lock == NULL) {
        join(k);
    }
}

static void on_held(void *arg, struct bns_slice key, int64_t token)
{
    struct candidate *k = arg;

    assert_true(key.len > 4);
    assert_memory_equal(key.ptr, "job/", 4);
    k->held = true;
    k->token = token;
    /* others that believe so, and whose leases surely live */
    for (unsigned i = 0; i < CANDIDATES; i++) {
        if (&all[i] != k && all[i].held && all[i].lease != NULL &&
            bns_etcd_lease_until_ns(all[i].lease) > bns_now_ns(cw.env))
            double_holds++;
    }
    if (token <= newest)
        stale_tokens++;
    newest = token > newest ? token : newest;
    bns_timer_start(cw.env, &k->timer, bns_now_ns(cw.env) + 300 * BNS_MS);
}

static void on_lock_lost(void *arg, int status, const char *text)
{
    struct candidate *k = arg;

    (void)status;
    (void)text;
    k->lock = NULL;
    k->held = false;
    k->losses++;
    if (!k->stopping)
        bns_timer_start(cw.env, &k->timer, bns_now_ns(cw.env) + 100 * BNS_MS);
}

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    struct candidate *k = arg;

    (void)ttl;
    k->lease_id = id;
    join(k);
}

static void on_lease_lost(void *arg, int status, const char *text)
{
    struct candidate *k = arg;

    (void)status;
    (void)text;
    k->lease = NULL;
    if (k->lock != NULL)
        drop_lock(k);
    else if (!k->stopping)
        bns_timer_start(cw.env, &k->timer, bns_now_ns(cw.env) + 100 * BNS_MS);
}

static void join(struct candidate *k)
{
    static const struct bns_etcd_lease_handler holding = {on_granted, NULL, on_lease_lost};
    static const struct bns_etcd_lock_handler locking = {on_held, on_lock_lost};
    const struct bns_etcd_lease_options lease = {.ttl_s = 3, .handler = &holding, .arg = k};
    const struct bns_etcd_lock_options lock = {
        .name = BNS_LIT("job"), .lease = k->lease_id, .handler = &locking, .arg = k};

    if (k->lease == NULL)
        assert_int_equal(bns_etcd_lease_open(k->c, &lease, &k->lease), BNS_OK);
    else
        assert_int_equal(bns_etcd_lock_open(k->c, &lock, &k->lock), BNS_OK);
}

static void one_holder_through_the_death_of_leaders(void **state)
{
    (void)state;
    for (uint64_t seed = 40; seed < 44; seed++) {
        cw_new(seed, 3, NULL);
        memset(all, 0, sizeof all);
        newest = 0;
        double_holds = stale_tokens = 0;
        for (unsigned i = 0; i < CANDIDATES; i++) {
            struct bns_etcd_options o = {0};

            all[i].id = i;
            all[i].c = cw_client(&o);
            bns_timer_init(&all[i].timer, leave, &all[i]);
            join(&all[i]);
        }
        for (unsigned round = 0; round < 4; round++) {
            unsigned lead = cw_leader();

            cw_pass(3 * BNS_SEC);
            if (seed % 2 == 0) {
                bns_world_power_cut(cw.w, lead);
                cw_pass(2 * BNS_SEC);
                bns_world_restart(cw.w, lead);
            } else { /* the clients lose all servers for longer than their leases live */
                for (unsigned i = 0; i < 3; i++)
                    bns_world_block(cw.w, 3, i, true);
                cw_pass(5 * BNS_SEC);
                bns_world_connect_all(cw.w);
            }
            cw_pass(8 * BNS_SEC);
        }
        assert_int_equal(double_holds, 0);
        assert_int_equal(stale_tokens, 0);
        for (unsigned i = 0; i < CANDIDATES; i++) {
            print_message("  %u: %u turns, %u losses\n", i, all[i].turns, all[i].losses);
            assert_true(all[i].turns >= 3);
            all[i].stopping = true;
            bns_timer_stop(cw.env, &all[i].timer);
            bns_etcd_lock_close(all[i].lock, NULL, NULL);
            bns_etcd_lease_close(all[i].lease, true);
            all[i].lock = NULL;
            all[i].lease = NULL;
            all[i].held = false;
            cw_pass(10 * BNS_MS);
            bns_etcd_free(all[i].c);
        }
        cw_free();
    }
}

/* ---- the key deleted under its holder; elections ------------------------------------------- */

struct one {
    bool granted, held, lost, done;
    int64_t lease, token;
    int status;
    char text[96], key[64], leader[32];
    unsigned leaders, nones;
};

static void one_granted(void *arg, int64_t id, int64_t ttl)
{
    (void)ttl;
    ((struct one *)arg)->granted = true;
    ((struct one *)arg)->lease = id;
}

static void one_lost(void *arg, int status, const char *text)
{
    struct one *o = arg;

    o->lost = true;
    o->status = status;
    (void)snprintf(o->text, sizeof o->text, "%s", text);
}

static void one_held(void *arg, struct bns_slice key, int64_t token)
{
    struct one *o = arg;

    o->held = true;
    o->token = token;
    (void)snprintf(o->key, sizeof o->key, "%.*s", (int)key.len, (const char *)key.ptr);
}

static void one_done(void *arg, const struct bns_etcd_answer *a)
{
    struct one *o = arg;

    o->done = true;
    o->status = a->status;
}

static void one_leader(void *arg, const Etcdserverpb__KeyValue *kv)
{
    struct one *o = arg;

    o->leaders++;
    (void)snprintf(o->leader, sizeof o->leader, "%.*s", (int)kv->value.len,
                   (const char *)kv->value.data);
}

static void one_none(void *arg)
{
    ((struct one *)arg)->nones++;
    ((struct one *)arg)->leader[0] = '\0';
}

static const struct bns_etcd_lease_handler one_lease = {one_granted, NULL, one_lost};
static const struct bns_etcd_lock_handler one_lock = {one_held, one_lost};
static const struct bns_etcd_observe_handler one_observe = {one_leader, one_none, one_lost};

static struct bns_etcd_lease *lease_of(struct bns_etcd *c, struct one *o)
{
    const struct bns_etcd_lease_options lo = {.ttl_s = 5, .handler = &one_lease, .arg = o};
    struct bns_etcd_lease *l = NULL;

    assert_int_equal(bns_etcd_lease_open(c, &lo, &l), BNS_OK);
    assert_true(cw_until(&o->granted, 10 * BNS_SEC));
    return l;
}

static struct bns_etcd_lock *lock_of(struct bns_etcd *c, struct one *o, const char *value)
{
    const struct bns_etcd_lock_options lo = {.name = BNS_LIT("e"),
                                             .value = bns_slice_str(value),
                                             .lease = o->lease,
                                             .handler = &one_lock,
                                             .arg = o};
    struct bns_etcd_lock *l = NULL;

    assert_int_equal(bns_etcd_lock_open(c, &lo, &l), BNS_OK);
    return l;
}

static void a_holder_whose_key_is_deleted_is_told(void **state)
{
    struct bns_etcd *c;
    struct bns_etcd_lease *lease;
    struct one o = {0}, d = {0};
    (void)state;

    cw_new(50, 1, NULL);
    c = cw_client(NULL);
    lease = lease_of(c, &o);
    (void)lock_of(c, &o, "");
    assert_true(cw_until(&o.held, 10 * BNS_SEC));
    assert_int_equal(bns_etcd_del(c, bns_slice_str(o.key), bns_slice(NULL, 0), one_done, &d),
                     BNS_OK);
    assert_true(cw_until(&o.lost, 10 * BNS_SEC));
    assert_string_equal(o.text, "the lock's key has gone");
    bns_etcd_lease_close(lease, false);
    bns_etcd_free(c);
    cw_free();
}

/* The waiter's lease ends while it waits: it must not believe that it holds when its turn comes. */
static void a_waiter_whose_lease_has_ended_does_not_hold(void **state)
{
    Etcdserverpb__LeaseRevokeRequest req = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    const struct bns_etcd_call_options revoke = {.method = BNS_ETCD_LEASE_REVOKE,
                                                 .request = &req.base};
    struct bns_etcd *c;
    struct bns_etcd_lease *la, *lb;
    struct bns_etcd_lock *first;
    struct one a = {0}, b = {0}, d = {0};
    (void)state;

    cw_new(51, 1, NULL);
    c = cw_client(NULL);
    la = lease_of(c, &a);
    lb = lease_of(c, &b);
    bns_etcd_lease_close(lb, false); /* nobody keeps it, and nobody tells its lock */
    first = lock_of(c, &a, "");
    assert_true(cw_until(&a.held, 10 * BNS_SEC));
    (void)lock_of(c, &b, "");
    cw_pass(BNS_SEC);
    req.has_id = true;
    req.id = b.lease;
    assert_int_equal(bns_etcd_call(c, &revoke, one_done, &d, NULL), BNS_OK);
    assert_true(cw_until(&d.done, 10 * BNS_SEC));
    bns_etcd_lock_close(first, NULL, NULL);
    assert_true(cw_until(&b.lost, 10 * BNS_SEC));
    assert_false(b.held);
    bns_etcd_lease_close(la, false);
    bns_etcd_free(c);
    cw_free();
}

static void an_election_is_seen_by_who_observes(void **state)
{
    struct bns_etcd *c;
    struct bns_etcd_lease *la, *lb;
    struct bns_etcd_lock *x, *y;
    struct bns_etcd_observe *watcher = NULL;
    struct one a = {0}, b = {0}, w = {0}, d = {0};
    (void)state;

    cw_new(52, 1, NULL);
    c = cw_client(NULL);
    la = lease_of(c, &a);
    lb = lease_of(c, &b);
    assert_int_equal(bns_etcd_observe_open(c, BNS_LIT("e"), &one_observe, &w, &watcher), BNS_OK);
    cw_pass(BNS_SEC);
    assert_int_equal(w.nones, 1);
    x = lock_of(c, &a, "ann");
    assert_true(cw_until(&a.held, 10 * BNS_SEC));
    y = lock_of(c, &b, "bob");
    cw_pass(BNS_SEC);
    assert_string_equal(w.leader, "ann");
    assert_int_equal(bns_etcd_lock_proclaim(x, BNS_LIT("anna"), one_done, &d), BNS_OK);
    cw_pass(BNS_SEC);
    assert_string_equal(w.leader, "anna");
    bns_etcd_lock_close(x, NULL, NULL);
    assert_true(cw_until(&b.held, 10 * BNS_SEC));
    assert_true(b.token > a.token);
    cw_pass(BNS_SEC);
    assert_string_equal(w.leader, "bob");
    assert_int_equal(w.leaders, 3);
    bns_etcd_lock_close(y, NULL, NULL);
    cw_pass(BNS_SEC);
    assert_int_equal(w.nones, 2);
    bns_etcd_observe_close(watcher);
    bns_etcd_lease_close(la, true);
    bns_etcd_lease_close(lb, true);
    cw_pass(BNS_SEC);
    bns_etcd_free(c);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_holder_through_the_death_of_leaders),
        cmocka_unit_test(a_holder_whose_key_is_deleted_is_told),
        cmocka_unit_test(a_waiter_whose_lease_has_ended_does_not_hold),
        cmocka_unit_test(an_election_is_seen_by_who_observes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
