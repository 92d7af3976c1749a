/* Goal:   what is left of a lease survives the leader, and ends no lease too early.
 * Method: the lessor alone for when a checkpoint is due; three stores behind one log
 *         (lease_world.h) for what it does. The argument is in lease.c; test_lease_model.c plays it
 *         at random.
 */
#include "lease_world.h"

#define AT(s) ((uint64_t)(s)*BNS_SEC)

/* ---- when one is due ------------------------------------------------------------------------ */

struct solo {
    struct etcd_lessor l;
    struct etcd_lease *e;
};

static void solo(struct solo *x, int64_t ttl)
{
    etcd_lessor_init(&x->l, bns_alloc_libc(), 1);
    etcd_lessor_promote(&x->l, 0, 0);
    etcd_lessor_settle(&x->l);
    assert_int_equal(etcd_lessor_grant(&x->l, 1, ttl, 1, 0), BNS_OK);
    x->e = etcd_lessor_find(&x->l, 1);
}

/* The second at which the next one is due, -1: none before the lease ends. */
static int64_t next_mark(struct solo *x, uint64_t from, int64_t *seconds)
{
    for (uint64_t s = from; AT(s) < x->e->due.key; s++) {
        if (etcd_lessor_mark(&x->l, AT(s), seconds) != NULL)
            return (int64_t)s;
    }
    return -1;
}

static void one_comes_after_half_and_then_every_quarter(void **state)
{
    static const struct {
        int64_t ttl, first, left, second;
    } t[] = {
        {9, -1, 0, 0},
        {10, 5, 5, 7},
        {60, 30, 30, 45},
        {100, 50, 50, 75},
        {240, 60, 180, 120},
        {3600, 60, 3540, 120},
        {8000000000, 60, 7999999940, 120},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct solo x;
        int64_t seconds = 0;

        print_message("  ttl %lld\n", (long long)t[i].ttl);
        solo(&x, t[i].ttl);
        assert_int_equal(t[i].ttl < 4000000 ? next_mark(&x, 0, &seconds)
                                            : next_mark(&x, 55, &seconds),
                         t[i].first);
        if (t[i].first >= 0) {
            assert_int_equal(seconds, t[i].left);
            assert_int_equal(next_mark(&x, (uint64_t)t[i].first, &seconds), t[i].second);
        }
        etcd_lessor_clear(&x.l);
    }
}

/* A client renews every third of the TTL. */
static void one_that_is_kept_alive_has_none(void **state)
{
    struct solo x;
    int64_t seconds;
    (void)state;

    solo(&x, 30);
    for (uint64_t s = 1; s < 1000; s++) {
        assert_null(etcd_lessor_mark(&x.l, AT(s), &seconds));
        if (s % 10 == 0)
            assert_true(etcd_lessor_renew(&x.l, x.e, AT(s)));
    }
    assert_int_equal(next_mark(&x, 1000, &seconds), 1005);
    assert_int_equal(seconds, 15);
    etcd_lessor_clear(&x.l);
}

static void seconds_are_rounded_up(void **state)
{
    struct solo x;
    int64_t seconds = 0;
    (void)state;

    solo(&x, 60);
    assert_non_null(etcd_lessor_mark(&x.l, AT(30) + 1, &seconds));
    assert_int_equal(seconds, 30);
    assert_non_null(etcd_lessor_mark(&x.l, AT(46) - 1, &seconds));
    assert_int_equal(seconds, 15);
    assert_non_null(etcd_lessor_mark_next(&x.l, AT(46), NULL, &seconds));
    assert_int_equal(seconds, 14);
    assert_null(etcd_lessor_mark_next(&x.l, AT(46), NULL, &seconds));
    etcd_lessor_clear(&x.l);
}

static void told(struct etcd_lease_wait *w, int code)
{
    (void)w;
    assert_int_equal(code, BNS_OK);
    w->fn = NULL;
}

static void a_renewal_is_told_when_the_checkpoint_is_gone(void **state)
{
    struct etcd_lease_wait w = {.fn = told};
    struct solo x;
    int64_t seconds;
    (void)state;

    solo(&x, 60);
    assert_non_null(etcd_lessor_mark(&x.l, AT(30), &seconds));
    assert_false(etcd_lessor_renew(&x.l, x.e, AT(31)));
    assert_false(x.e->revoking);
    assert_int_equal(etcd_lessor_deadline(&x.l), AT(91)); /* it has the time at once */
    etcd_lessor_wait(x.e, &w);
    etcd_lessor_saved(&x.l, x.e, 30, AT(32)); /* the entry of the checkpoint itself */
    assert_non_null(w.fn);
    etcd_lessor_saved(&x.l, x.e, 0, AT(32));
    assert_null(w.fn);
    assert_true(etcd_lessor_renew(&x.l, x.e, AT(33)));
    assert_int_equal(next_mark(&x, 33, &seconds), 63);
    etcd_lessor_clear(&x.l);
}

/* Asked for twice, because the first took long: what is said between the two would be hidden by the
 * second, and a renewal after it would be answered though the log says less. */
static void nothing_is_said_while_one_is_still_taken_back(void **state)
{
    struct solo x;
    int64_t seconds;
    (void)state;

    solo(&x, 60);
    assert_non_null(etcd_lessor_mark(&x.l, AT(30), &seconds));
    etcd_lessor_saved(&x.l, x.e, 30, AT(30));
    assert_false(etcd_lessor_renew(&x.l, x.e, AT(31)));
    x.e->clears_out = 2;
    etcd_lessor_saved(&x.l, x.e, 0, AT(35)); /* the first */
    assert_null(etcd_lessor_mark_next(&x.l, AT(70), NULL, &seconds));
    assert_null(etcd_lessor_mark(&x.l, AT(70), &seconds));
    etcd_lessor_saved(&x.l, x.e, 0, AT(71)); /* the second */
    assert_non_null(etcd_lessor_mark_next(&x.l, AT(72), NULL, &seconds));
    assert_false(etcd_lessor_renew(&x.l, x.e, AT(73))); /* it must be taken back first */
    etcd_lessor_clear(&x.l);
}

static void an_old_checkpoint_counts_only_once_all_is_applied(void **state)
{
    struct solo x;
    int64_t seconds;
    (void)state;

    solo(&x, 60);
    etcd_lessor_demote(&x.l);
    etcd_lessor_saved(&x.l, x.e, 20, AT(40));
    etcd_lessor_promote(&x.l, AT(100), AT(1));
    assert_int_equal(etcd_lessor_deadline(&x.l), AT(161));
    assert_null(etcd_lessor_mark(&x.l, AT(150), &seconds));
    assert_false(etcd_lessor_renew(&x.l, x.e, AT(102)));
    etcd_lessor_settle(&x.l);
    assert_int_equal(etcd_lessor_deadline(&x.l), AT(121));
    etcd_lessor_settle(&x.l); /* once */
    etcd_lessor_saved(&x.l, x.e, 0, AT(110));
    assert_true(etcd_lessor_renew(&x.l, x.e, AT(110)));
    assert_int_equal(etcd_lessor_deadline(&x.l), AT(170));
    etcd_lessor_clear(&x.l);
}

/* ---- three members -------------------------------------------------------------------------- */

static void grant(struct lw *w, int64_t id, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest q = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;

    q.has_id = q.has_ttl = true;
    q.id = id;
    q.ttl = ttl;
    lw_entry(w, ETCD_OP_LEASE_GRANT, &q.base);
    lw_apply_all(w);
}

static void elect(struct lw *w, unsigned id)
{
    lw_elect(w, id);
    for (unsigned i = 0; i < LW_MEMBERS; i++)
        lw_hear(w, i);
    lw_apply_all(w);
}

/* Lets so many seconds pass; members apply what comes. */
static void pass(struct lw *w, uint64_t seconds)
{
    for (uint64_t end = lw_now(w) + AT(seconds); lw_now(w) < end;) {
        lw_run(w, BNS_SEC / 4);
        lw_apply_all(w);
    }
}

static size_t leases(const struct lw *w)
{
    return etcd_kv_leases(w->m[0].kv);
}

static struct etcd_lease *lease(struct lw *w, unsigned id, int64_t lease_id)
{
    return etcd_lessor_find(&w->m[id].kv->leases.lessor, lease_id);
}

static int64_t left(struct lw *w, unsigned id, int64_t lease_id)
{
    return etcd_lease_remaining(lease(w, id, lease_id), bns_now_ns(w->m[id].kv->env));
}

/* The seconds until the lease is gone when the leader changes every `period` seconds. */
static uint64_t lives(uint32_t mutant, int64_t ttl, uint64_t period)
{
    struct lw w;
    uint64_t s = 0;

    lw_init(&w, 7, mutant);
    elect(&w, 0);
    grant(&w, 1, ttl);
    for (; leases(&w) > 0 && s < 1000; s++) {
        pass(&w, 1);
        if (s % period == period - 1)
            elect(&w, ((unsigned)w.leader + 1) % LW_MEMBERS);
    }
    lw_free(&w);
    return s;
}

static void a_lease_ages_though_the_leader_changes(void **state)
{
    uint64_t s = lives(0, 100, 60);
    (void)state;

    print_message("  100 s, a new leader every 60 s: gone after %llu s\n", (unsigned long long)s);
    assert_true(s >= 100);
    assert_true(s <= 125); /* what passed since the last checkpoint comes back, once a leader */
}

static void a_checkpoint_that_prolongs_is_caught(void **state)
{
    (void)state;
    assert_true(lives(ETCD_MUTANT_MARK_LONG, 100, 60) > 125);
}

static void do_hand_over(struct bns_env *env, void *arg)
{
    struct lw_member *m = arg;

    (void)env;
    etcd_kv_lease_hand_over(m->kv);
}

static void hand_over(struct lw *w, unsigned id)
{
    assert_true(bns_world_call(w->w, id, do_hand_over, &w->m[id]));
    lw_apply_all(w);
}

static void what_is_handed_over_is_what_is_left(void **state)
{
    struct lw w;
    (void)state;

    lw_init(&w, 7, 0);
    elect(&w, 0);
    grant(&w, 1, 1000);
    grant(&w, 2, 9); /* too short for checkpoints */
    pass(&w, 5);
    hand_over(&w, 1); /* no clock: nothing */
    assert_int_equal(lease(&w, 1, 1)->saved, 0);
    hand_over(&w, 0);
    assert_in_range(lease(&w, 1, 1)->saved, 994, 996);
    elect(&w, 1);
    assert_in_range(left(&w, 1, 1), 994, 996);
    assert_in_range(left(&w, 1, 2), 9, 10);
    lw_free(&w);
}

/* The only member comes back and leads. */
static void a_restart_keeps_what_is_left(void **state)
{
    struct lw w;
    (void)state;

    lw_init(&w, 7, 0);
    elect(&w, 0);
    grant(&w, 1, 40);
    pass(&w, 21); /* checkpoint at 20 */
    assert_int_equal(lease(&w, 0, 1)->saved, 20);
    lw_run(&w, BNS_SEC); /* rows are on the disk */
    bns_world_kill(w.w, 0);
    lw_run(&w, BNS_MS);
    lw_up(&w, 0);
    lw_apply_all(&w);
    assert_int_equal(lease(&w, 0, 1)->saved, 20);
    lw_elect(&w, 0);
    lw_apply_all(&w);
    assert_in_range(left(&w, 0, 1), 19, 21);
    lw_free(&w);
}

static void a_renewal_takes_the_checkpoint_back_first(void **state)
{
    int64_t ttl = 0;
    struct lw w;
    (void)state;

    lw_init(&w, 7, 0);
    elect(&w, 0);
    grant(&w, 1, 40);
    pass(&w, 21);
    assert_int_equal(lw_renew(&w, 0, 1, &ttl), BNS_E_AGAIN);
    lw_run(&w, BNS_MS); /* it is proposed; a leader that has not applied it is elected */
    assert_int_equal(lw_renew(&w, 0, 1, &ttl), BNS_E_AGAIN);
    lw_apply_all(&w);
    assert_int_equal(lease(&w, 1, 1)->saved, 0);
    assert_int_equal(lw_renew(&w, 0, 1, &ttl), BNS_OK);
    assert_int_equal(ttl, 40);
    elect(&w, 2);
    assert_in_range(left(&w, 2, 1), 39, 41);
    assert_int_equal(etcd_kv_lease_digest(w.m[0].kv), etcd_kv_lease_digest(w.m[2].kv));
    lw_free(&w);
}

/* A leader is elected that has not applied yet what takes the checkpoint back. Does the lease live
 * on? */
static bool lives_on(uint32_t mutant)
{
    int64_t ttl = 0;
    struct lw w;
    bool alive;

    lw_init(&w, 7, mutant);
    elect(&w, 0);
    grant(&w, 1, 40);
    pass(&w, 35);
    assert_in_range(lease(&w, 1, 1)->saved, 5, 11);
    assert_int_equal(lw_renew(&w, 0, 1, &ttl), BNS_E_AGAIN);
    lw_run(&w, BNS_MS);
    lw_apply(&w, 0, w.last);
    assert_int_equal(lw_renew(&w, 0, 1, &ttl), BNS_OK);
    lw_elect(&w, 1);
    lw_run(&w, AT(20)); /* it applies nothing for so long */
    lw_hear(&w, 0);
    lw_apply_all(&w);
    alive = leases(&w) == 1;
    lw_free(&w);
    return alive;
}

static void a_leader_that_lags_ends_nothing_by_an_old_checkpoint(void **state)
{
    (void)state;
    assert_true(lives_on(0));
    assert_false(lives_on(ETCD_MUTANT_MARK_EARLY));
}

static void say(struct lw *w, uint64_t term, uint64_t index, int64_t seconds)
{
    Etcdserverpb__InternalRaftRequest r = ETCDSERVERPB__INTERNAL_RAFT_REQUEST__INIT;
    Etcdserverpb__LeaseCheckpointRequest q = ETCDSERVERPB__LEASE_CHECKPOINT_REQUEST__INIT;
    Etcdserverpb__LeaseCheckpoint c = ETCDSERVERPB__LEASE_CHECKPOINT__INIT, *cs[1] = {&c};
    struct bns_buf b;

    c.has_id = c.has_remaining_ttl = c.has_granted_index = true;
    c.id = 1;
    c.remaining_ttl = seconds;
    c.granted_index = index;
    q.n_checkpoints = 1;
    q.checkpoints = cs;
    r.lease_checkpoint = &q;
    r.has_only_in_term = true;
    r.only_in_term = term;
    bns_buf_init(&b, bns_alloc_libc(), 65536);
    assert_int_equal(bns_pb_pack(&r.base, &b), BNS_OK);
    lw_append(w, bns_rcbuf_copy(bns_alloc_libc(), bns_buf_slice(&b)));
    bns_buf_free(&b);
    lw_apply_all(w);
}

static void only_what_this_terms_leader_says_of_this_lease_counts(void **state)
{
    uint64_t index;
    struct lw w;
    (void)state;

    lw_init(&w, 7, 0);
    elect(&w, 0);
    grant(&w, 1, 40);
    index = lease(&w, 0, 1)->index;
    say(&w, w.term - 1, index, 5);
    say(&w, w.term, index + 1, 5);
    say(&w, w.term, 0, 5);
    say(&w, w.term, index, 41);
    say(&w, w.term, index, -1);
    assert_int_equal(lease(&w, 2, 1)->saved, 0);
    say(&w, w.term, index, 5);
    assert_int_equal(lease(&w, 2, 1)->saved, 5);
    say(&w, w.term, index, 0);
    assert_int_equal(lease(&w, 2, 1)->saved, 0);
    lw_free(&w);
}

static void a_revoked_lease_leaves_no_checkpoint(void **state)
{
    Etcdserverpb__LeaseRevokeRequest q = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    struct lw w;
    (void)state;

    lw_init(&w, 7, 0);
    elect(&w, 0);
    grant(&w, 1, 40);
    pass(&w, 21);
    assert_non_null(etcd_bucket_next(w.m[1].kv, ETCD_BUCKET_LEASES, NULL));
    q.has_id = true;
    q.id = 1;
    lw_entry(&w, ETCD_OP_LEASE_REVOKE, &q.base);
    lw_apply_all(&w);
    assert_null(etcd_bucket_next(w.m[1].kv, ETCD_BUCKET_LEASES, NULL));
    assert_int_equal(w.m[1].kv->leases.lessor.saved_count, 0);
    grant(&w, 1, 40);
    assert_int_equal(lease(&w, 1, 1)->saved, 0);
    lw_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_comes_after_half_and_then_every_quarter),
        cmocka_unit_test(one_that_is_kept_alive_has_none),
        cmocka_unit_test(seconds_are_rounded_up),
        cmocka_unit_test(a_renewal_is_told_when_the_checkpoint_is_gone),
        cmocka_unit_test(nothing_is_said_while_one_is_still_taken_back),
        cmocka_unit_test(an_old_checkpoint_counts_only_once_all_is_applied),
        cmocka_unit_test(a_lease_ages_though_the_leader_changes),
        cmocka_unit_test(a_checkpoint_that_prolongs_is_caught),
        cmocka_unit_test(what_is_handed_over_is_what_is_left),
        cmocka_unit_test(a_restart_keeps_what_is_left),
        cmocka_unit_test(a_renewal_takes_the_checkpoint_back_first),
        cmocka_unit_test(a_leader_that_lags_ends_nothing_by_an_old_checkpoint),
        cmocka_unit_test(only_what_this_terms_leader_says_of_this_lease_counts),
        cmocka_unit_test(a_revoked_lease_leaves_no_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
