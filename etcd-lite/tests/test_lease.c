/* test_lease.c - the lessor alone, on a clock that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lease_kv.h"
#include "sim/heap.h"

#define AT(s) ((uint64_t)(s)*BNS_SEC)

static void grant(struct etcd_lessor *l, int64_t id, int64_t ttl, uint64_t now)
{
    assert_int_equal(etcd_lessor_grant(l, id, ttl, 1, now), BNS_OK);
}

static void hang(struct etcd_lessor *l, int64_t id, const char *key)
{
    assert_int_equal(etcd_lessor_attach(l, id, bns_slice_str(key)), BNS_OK);
}

static int64_t of(const struct etcd_lessor *l, const char *key)
{
    return etcd_lessor_of(l, bns_slice_str(key));
}

/* The id of the next lease that is due, 0 = none. */
static int64_t due(struct etcd_lessor *l, uint64_t now)
{
    struct etcd_lease *e = etcd_lessor_expired(l, now, AT(3));
    return e == NULL ? 0 : e->id;
}

/* ---- the replicated part -------------------------------------------------------------------- */

static void an_id_is_granted_once(void **state)
{
    struct etcd_lessor l;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    grant(&l, 5, 10, 0);
    assert_int_equal(etcd_lessor_grant(&l, 5, 20, 1, 0), BNS_E_EXISTS);
    assert_int_equal(etcd_lessor_find(&l, 5)->ttl, 10);
    grant(&l, -5, ETCD_LEASE_TTL_MAX, 0); /* etcd takes negative ids too */
    assert_null(etcd_lessor_find(&l, 6));
    etcd_lessor_revoke(&l, etcd_lessor_find(&l, 5));
    assert_null(etcd_lessor_find(&l, 5));
    grant(&l, 5, 20, 0);
    etcd_lessor_clear(&l);
    assert_null(etcd_lessor_find(&l, 5));
}

static void a_key_hangs_on_one_lease_at_a_time(void **state)
{
    struct etcd_lessor l;
    struct bns_slice keys[3];

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    grant(&l, 1, 10, 0);
    grant(&l, 2, 10, 0);
    hang(&l, 1, "b");
    hang(&l, 1, "a");
    hang(&l, 1, "ab");
    hang(&l, 1, "a"); /* again: still once */
    assert_int_equal(etcd_lessor_find(&l, 1)->keys_count, 3);
    etcd_lease_keys(etcd_lessor_find(&l, 1), keys);
    assert_true(bns_slice_eq(keys[0], BNS_LIT("a")));
    assert_true(bns_slice_eq(keys[1], BNS_LIT("ab")));
    assert_true(bns_slice_eq(keys[2], BNS_LIT("b")));
    hang(&l, 2, "a");
    assert_int_equal(of(&l, "a"), 2);
    assert_int_equal(etcd_lessor_find(&l, 1)->keys_count, 2);
    etcd_lessor_detach(&l, BNS_LIT("a"));
    etcd_lessor_detach(&l, BNS_LIT("a"));
    etcd_lessor_detach(&l, BNS_LIT("none"));
    assert_int_equal(of(&l, "a"), 0);
    assert_int_equal(etcd_lessor_find(&l, 2)->keys_count, 0);
    etcd_lessor_clear(&l);
}

/* Many keys come and go in any order: they are always there, in order. */
static void keys_of_a_lease_stay_in_order(void **state)
{
    enum { N = 500 };
    static char names[N][4];
    struct etcd_lessor l;
    struct bns_slice out[N];
    bool on[N] = {false};
    uint64_t x = 1;
    size_t count = 0;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    grant(&l, 1, 10, 0);
    for (int i = 0; i < N; i++)
        (void)snprintf(names[i], sizeof names[i], "%03d", i);
    for (int step = 0; step < 5000; step++) {
        size_t at, n = 0;

        x = x * 6364136223846793005u + 1442695040888963407u;
        at = (size_t)(x >> 33) % N;
        if (on[at])
            etcd_lessor_detach(&l, bns_slice_str(names[at]));
        else
            hang(&l, 1, names[at]);
        on[at] = !on[at];
        count = on[at] ? count + 1 : count - 1;
        assert_int_equal(etcd_lessor_find(&l, 1)->keys_count, count);
        if (step % 50 != 0)
            continue;
        etcd_lease_keys(etcd_lessor_find(&l, 1), out);
        for (size_t i = 0; i < N; i++)
            if (on[i])
                assert_true(bns_slice_eq(out[n++], bns_slice_str(names[i])));
        assert_int_equal(n, count);
    }
    etcd_lessor_clear(&l);
}

/* Rows are read oldest first, and leases before or after them. */
static void loading_meets_leases_that_are_gone(void **state)
{
    struct etcd_lessor l;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    hang(&l, 7, "a"); /* an old row of a revoked lease */
    assert_false(etcd_lessor_settled(&l));
    etcd_lessor_detach(&l, BNS_LIT("a"));
    assert_true(etcd_lessor_settled(&l));
    assert_null(etcd_lessor_find(&l, 7));
    hang(&l, 7, "a");
    hang(&l, 8, "a"); /* moved on */
    assert_null(etcd_lessor_find(&l, 7));
    assert_false(etcd_lessor_settled(&l));
    grant(&l, 8, 5, 0); /* its own row comes later */
    assert_true(etcd_lessor_settled(&l));
    assert_int_equal(of(&l, "a"), 8);
    assert_int_equal(etcd_lessor_grant(&l, 8, 5, 1, 0), BNS_E_EXISTS);
    etcd_lessor_clear(&l);
}

/* ---- the clock ------------------------------------------------------------------------------ */

static void only_a_primary_has_a_clock(void **state)
{
    struct etcd_lessor l;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    grant(&l, 1, 10, AT(0));
    assert_int_equal(etcd_lessor_deadline(&l), BNS_NEVER);
    assert_int_equal(due(&l, AT(1000)), 0);
    etcd_lessor_promote(&l, AT(1000), AT(1));
    assert_int_equal(due(&l, AT(1011) - 1), 0); /* the full TTL and the extension, from then on */
    assert_int_equal(etcd_lessor_deadline(&l), AT(1011));
    etcd_lessor_demote(&l);
    assert_int_equal(due(&l, AT(5000)), 0);
    assert_int_equal(etcd_lessor_deadline(&l), BNS_NEVER);
    etcd_lessor_promote(&l, AT(6000), 0);
    grant(&l, 2, 5, AT(6001)); /* granted by a primary: from its grant on */
    assert_int_equal(due(&l, AT(6006)), 2);
    assert_int_equal(due(&l, AT(6006)), 0);
    assert_int_equal(due(&l, AT(6010)), 2); /* not revoked yet: once more */
    assert_int_equal(due(&l, AT(6010)), 1);
    etcd_lessor_clear(&l);
}

static void renewing_gives_the_full_ttl_and_never_takes(void **state)
{
    struct etcd_lessor l;
    struct etcd_lease *e;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    grant(&l, 1, 10, AT(0));
    etcd_lessor_promote(&l, AT(0), AT(5));
    e = etcd_lessor_find(&l, 1);
    assert_int_equal(etcd_lease_remaining(e, AT(0)), 15);
    assert_true(etcd_lessor_renew(&l, e, AT(1))); /* 11 would be less than what was given */
    assert_int_equal(etcd_lessor_deadline(&l), AT(15));
    assert_true(etcd_lessor_renew(&l, e, AT(14)));
    assert_int_equal(etcd_lessor_deadline(&l), AT(24));
    assert_int_equal(etcd_lease_remaining(e, AT(24) - 1), 0);
    assert_int_equal(etcd_lease_remaining(e, AT(14) + 1), 9);
    assert_int_equal(etcd_lease_remaining(e, AT(30)), 0);
    assert_true(etcd_lessor_renew(&l, e, AT(25))); /* due, but nothing was proposed yet */
    assert_int_equal(due(&l, AT(35)), 1);
    etcd_lessor_proposed(e, false);
    assert_true(etcd_lessor_renew(&l, e, AT(35))); /* nobody took the proposal */
    e = etcd_lessor_expired(&l, AT(45), BNS_SEC);
    assert_non_null(e);
    etcd_lessor_proposed(e, true);
    e = etcd_lessor_expired(&l, AT(46), BNS_SEC);
    assert_non_null(e);
    etcd_lessor_proposed(e, false);
    assert_false(etcd_lessor_renew(&l, e, AT(46))); /* the first one may still happen: too late */
    etcd_lessor_demote(&l);
    etcd_lessor_promote(&l, AT(36), 0);
    assert_true(etcd_lessor_renew(&l, e, AT(37))); /* a new term, a new life */
    etcd_lessor_clear(&l);
}

static void the_longest_ttl_does_not_wrap(void **state)
{
    struct etcd_lessor l;
    uint64_t now = AT(86400) * 365 * 30;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    etcd_lessor_promote(&l, now, AT(1));
    grant(&l, 1, ETCD_LEASE_TTL_MAX, now);
    etcd_lessor_promote(&l, now, AT(50));
    assert_int_equal(due(&l, now + AT(ETCD_LEASE_TTL_MAX) - 1), 0);
    assert_int_equal(etcd_lease_remaining(etcd_lessor_find(&l, 1), now), ETCD_LEASE_TTL_MAX + 50);
    etcd_lessor_clear(&l);
}

struct waiter {
    struct etcd_lease_wait w;
    int code, calls;
};

static void on_wait(struct etcd_lease_wait *w, int code)
{
    struct waiter *x = BNS_CONTAINER(w, struct waiter, w);
    x->code = code;
    x->calls++;
}

static void who_waits_for_the_end_is_told_once(void **state)
{
    struct waiter a = {.w = {.fn = on_wait}}, b = a, c = a;
    struct etcd_lessor l;
    struct etcd_lease *e;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    etcd_lessor_promote(&l, 0, 0);
    grant(&l, 1, 1, 0);
    grant(&l, 2, 1, 0);
    assert_int_equal(due(&l, AT(2)) + due(&l, AT(2)), 3);
    e = etcd_lessor_find(&l, 1);
    etcd_lessor_wait(e, &a.w);
    etcd_lessor_wait(e, &b.w);
    etcd_lessor_unwait(&b.w);
    etcd_lessor_wait(etcd_lessor_find(&l, 2), &c.w);
    etcd_lessor_revoke(&l, e);
    assert_int_equal(a.code, BNS_E_NOTFOUND);
    assert_int_equal(a.calls + c.calls, 1);
    etcd_lessor_demote(&l);
    assert_int_equal(c.code, BNS_E_NOTLEADER);
    etcd_lessor_clear(&l);
    assert_int_equal(a.calls, 1);
    assert_int_equal(b.calls, 0);
    assert_int_equal(c.calls, 1);
}

/* A new leader of very many leases gives none less than its TTL, and has at most 750 end within any
 * second. */
static void many_leases_are_spread_after_an_election(void **state)
{
    enum { N = 4000 };
    static uint64_t at[N];
    struct etcd_lessor l;

    (void)state;
    etcd_lessor_init(&l, bns_alloc_libc(), 1);
    for (int i = 1; i <= N; i++)
        grant(&l, i, 10 + i % 3, 0);
    etcd_lessor_promote(&l, AT(100), AT(1));
    for (int i = 0; i < N; i++) {
        struct etcd_lease *e;
        at[i] = etcd_lessor_deadline(&l);
        e = etcd_lessor_expired(&l, at[i], AT(100000));
        assert_true(at[i] >= AT(101 + e->ttl));
        assert_true(i < 750 || at[i] >= at[i - 750] + AT(1));
    }
    assert_true(at[N - 1] <= AT(101 + 12 + N / 750 + 1));
    etcd_lessor_clear(&l);
}

static void the_least_ttl_is_that_of_etcd(void **state)
{
    static const struct {
        uint64_t election_ms, heartbeat_ms;
        int64_t ttl;
    } t[] = {{1000, 100, 2}, {500, 100, 1},  {5000, 500, 8},
             {100, 10, 1},   {2000, 100, 3}, {50000, 5000, 75}};

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        assert_int_equal(etcd_lease_ttl_min(t[i].election_ms, t[i].heartbeat_ms), t[i].ttl);
}

/* ---- without memory ------------------------------------------------------------------------- */

/* The n-th allocation fails: what was asked for did not happen, and nothing else changed. */
static void every_allocation_may_fail(void **state)
{
    char names[40][8];
    bool fired = true;
    int failures = 0;

    (void)state;
    for (int i = 0; i < 40; i++)
        (void)snprintf(names[i], sizeof names[i], "k%d", i);
    for (int n = 1; fired; n++) {
        struct bns_test_heap *h = bns_test_heap(n);
        struct etcd_lessor l;
        etcd_lessor_init(&l, bns_test_heap_alloc(h), 1);
        for (int i = 0; i < 40; i++) {
            size_t leases = l.leases.count, keys = l.keys.count;
            int rv = i % 2 == 0 ? etcd_lessor_grant(&l, i + 1, 5, 1, 0)
                                : etcd_lessor_attach(&l, i, bns_slice_str(names[i]));
            if (rv == BNS_OK)
                continue;
            failures++;
            assert_int_equal(rv, BNS_E_NOMEM);
            assert_int_equal(l.leases.count, leases);
            assert_int_equal(l.keys.count, keys);
            assert_int_equal(l.due.count, leases);
        }
        etcd_lessor_promote(&l, 0, 0);
        etcd_lessor_demote(&l);
        etcd_lessor_clear(&l);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
    }
    assert_true(failures > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_is_granted_once),
        cmocka_unit_test(a_key_hangs_on_one_lease_at_a_time),
        cmocka_unit_test(keys_of_a_lease_stay_in_order),
        cmocka_unit_test(loading_meets_leases_that_are_gone),
        cmocka_unit_test(only_a_primary_has_a_clock),
        cmocka_unit_test(renewing_gives_the_full_ttl_and_never_takes),
        cmocka_unit_test(the_longest_ttl_does_not_wrap),
        cmocka_unit_test(who_waits_for_the_end_is_told_once),
        cmocka_unit_test(many_leases_are_spread_after_an_election),
        cmocka_unit_test(the_least_ttl_is_that_of_etcd),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
