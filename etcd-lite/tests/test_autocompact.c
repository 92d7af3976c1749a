/* Goal:   compaction by itself follows etcd's two modes: when it comes, to which revision, who does
 *         it.
 * Method: the pure core under a hand-made clock; the revision counts seconds, so that what is kept
 *         can be read off.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "autocompact.h"
#include "base/time.h"

#define S BNS_SEC
#define HOURS (3600 * BNS_SEC)

static void retentions_are_numbers_or_durations(void **state)
{
    static const struct {
        const char *mode, *retention;
        int rv;
        uint64_t period_ns;
        int64_t keep;
    } t[] = {
        {"", "0", BNS_OK, 0, 0},
        {"periodic", "1", BNS_OK, HOURS, 0},
        {"periodic", "72", BNS_OK, 72 * HOURS, 0},
        {"periodic", "10m", BNS_OK, 600 * S, 0},
        {"periodic", "1h30m", BNS_OK, 5400 * S, 0},
        {"revision", "1000", BNS_OK, 0, 1000},
        {"revision", "0", BNS_OK, 0, 0},
        {"revision", "5m", BNS_E_INVALID, 0, 0},
        {"periodic", "-1", BNS_E_INVALID, 0, 0},
        {"periodic", "", BNS_E_INVALID, 0, 0},
        {"periodic", "1x", BNS_E_INVALID, 0, 0},
        {"periodic", "5ns", BNS_E_INVALID, 0, 0},
        {"periodic", "10001", BNS_E_INVALID, 0, 0},
        {"periodic", "99999999999999999999", BNS_E_INVALID, 0, 0},
        {"hourly", "1", BNS_E_INVALID, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct etcd_autocompact_cfg c;
        struct bns_err err = {0};

        print_message("  %s %s\n", t[i].mode, t[i].retention);
        assert_int_equal(etcd_autocompact_parse(t[i].mode, t[i].retention, &c, &err), t[i].rv);
        if (t[i].rv != BNS_OK)
            continue;
        assert_true(c.period_ns == t[i].period_ns);
        assert_true(c.keep == t[i].keep);
    }
}

/* Runs to `end`; the revision is the second. Writes down when which compaction came. */
struct event {
    uint64_t at_s;
    int64_t rev;
};

static size_t run(struct etcd_autocompact *a, uint64_t from_s, uint64_t end_s, bool leader,
                  bool works, struct event *out, size_t cap)
{
    size_t n = 0;

    for (uint64_t s = from_s; s <= end_s; s++) {
        int64_t rev;

        if (a->next_ns > s * S)
            continue;
        rev = etcd_autocompact_step(a, s * S, (int64_t)s, leader);
        if (rev == 0)
            continue;
        assert_true(n < cap);
        out[n++] = (struct event){s, rev};
        if (works)
            etcd_autocompact_done(a, s * S, rev);
    }
    return n;
}

static void start(struct etcd_autocompact *a, const char *mode, const char *retention)
{
    struct etcd_autocompact_cfg c;

    assert_int_equal(etcd_autocompact_parse(mode, retention, &c, NULL), BNS_OK);
    assert_int_equal(etcd_autocompact_init(a, bns_alloc_libc(), &c, 0), BNS_OK);
}

static void periodic_keeps_the_history_of_the_period(void **state)
{
    static const struct {
        const char *retention;
        uint64_t end_s, first_s, every_s, period_s;
    } t[] = {
        {"10m", 3600, 600, 600, 600},
        {"1", 4 * 3600, 3600, 3600, 3600},
        {"5", 9 * 3600, 5 * 3600, 3600, 5 * 3600},
        {"24", 30 * 3600, 24 * 3600, 3600, 24 * 3600},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct etcd_autocompact a;
        struct event e[16];
        size_t n;

        start(&a, "periodic", t[i].retention);
        n = run(&a, 1, t[i].end_s, true, true, e, 16);
        assert_int_equal(n, (t[i].end_s - t[i].first_s) / t[i].every_s);
        for (size_t k = 0; k < n; k++) {
            uint64_t kept = e[k].at_s - (uint64_t)e[k].rev;

            /* a note is up to a tenth of the interval (or of an hour) old */
            assert_true(kept >= t[i].period_s);
            assert_true(kept <= t[i].period_s + t[i].every_s / 10);
        }
        etcd_autocompact_free(&a);
    }
}

static void what_did_not_work_is_tried_again(void **state)
{
    struct etcd_autocompact a;
    struct event e[64];
    (void)state;

    start(&a, "periodic", "10m");
    assert_true(run(&a, 1, 900, true, false, e, 64) >= 5); /* each minute, not each ten */
    etcd_autocompact_free(&a);
}

static void only_the_leader_compacts_and_a_new_one_goes_on(void **state)
{
    struct etcd_autocompact a;
    struct event e[64];
    size_t n;
    (void)state;

    start(&a, "periodic", "10m");
    assert_int_equal(run(&a, 1, 1800, false, true, e, 64), 0);
    n = run(&a, 1801, 1900, true, true, e, 64);
    assert_int_equal(n, 1);
    assert_true(e[0].at_s - (uint64_t)e[0].rev <= 660); /* from notes taken as a follower */
    etcd_autocompact_free(&a);
}

static void by_revision_keeps_so_many(void **state)
{
    struct etcd_autocompact a;
    struct event e[64];
    size_t n;
    (void)state;

    start(&a, "revision", "400");
    n = run(&a, 1, 1000, true, true, e, 64);
    assert_int_equal(n, 2); /* at 300 s there are not 400 revisions yet */
    assert_true(e[0].at_s >= 600 && e[0].rev == (int64_t)e[0].at_s - 400);
    assert_true(e[1].at_s >= 900 && e[1].rev == (int64_t)e[1].at_s - 400);
    /* nothing new: nothing to do */
    assert_true(etcd_autocompact_step(&a, 5000 * S, e[1].rev + 400, true) == 0);
    etcd_autocompact_free(&a);
}

static void off_means_never(void **state)
{
    struct etcd_autocompact a;
    (void)state;

    start(&a, "periodic", "0");
    assert_true(a.next_ns == BNS_NEVER);
    etcd_autocompact_free(&a);
    start(&a, "revision", "0");
    assert_true(a.next_ns == BNS_NEVER);
    etcd_autocompact_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retentions_are_numbers_or_durations),
        cmocka_unit_test(periodic_keeps_the_history_of_the_period),
        cmocka_unit_test(what_did_not_work_is_tried_again),
        cmocka_unit_test(only_the_leader_compacts_and_a_new_one_goes_on),
        cmocka_unit_test(by_revision_keeps_so_many),
        cmocka_unit_test(off_means_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
