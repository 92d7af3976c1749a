/* test_session.c - the machine behind Lock and Campaign, without any server.
 *
 * Goal:   who is told that it is first, is; everybody's key leaves the queue; every call ends.
 * Method: tables for the single steps. Then a model: a log of puts and deletions, members that
 *         have applied more or less of it, sessions that step in any order, leases that end,
 *         clients that go, steps that fail. The planted bugs must be caught. The failing seed is
 *         printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "session.h"

static void leases_are_printed_as_go_does(void **state)
{
    static const struct {
        int64_t lease;
        const char *text;
    } t[] = {{0, "0"},
             {1, "1"},
             {15, "f"},
             {16, "10"},
             {-5, "-5"},
             {0x3ceea20824158306, "3ceea20824158306"},
             {-255, "-ff"},
             {INT64_MAX, "7fffffffffffffff"},
             {INT64_MIN, "-8000000000000000"}};
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char out[20];
        size_t n = etcd_session_hex(t[i].lease, out);

        assert_string_equal(out, t[i].text);
        assert_int_equal(n, strlen(t[i].text));
    }
}

static void without_a_lease_one_is_granted(void **state)
{
    struct etcd_claim c;
    (void)state;
    assert_int_equal(etcd_claim_start(&c, false, false, 0), ETCD_CLAIM_GRANT);
    assert_int_equal(etcd_claim_granted(&c), ETCD_CLAIM_PUT);
    assert_int_equal(etcd_claim_put(&c, 7, 0, true), ETCD_CLAIM_LOOK);
    assert_int_equal(etcd_claim_looked(&c, true, false), ETCD_CLAIM_DONE);
    assert_int_equal(c.code, 0);
    assert_int_equal(c.rev, 7);
    assert_int_equal(c.header, 7);
}

static void a_campaign_with_another_value_proclaims_it(void **state)
{
    struct etcd_claim c;
    (void)state;
    (void)etcd_claim_start(&c, true, true, 0); /* PUT */
    assert_int_equal(etcd_claim_put(&c, 9, 4, false), ETCD_CLAIM_PROCLAIM);
    assert_int_equal(etcd_claim_proclaimed(&c, false), ETCD_CLAIM_DONE);
    assert_int_equal(c.code, 2);
    assert_string_equal(c.text, ETCD_TEXT_NOT_LEADER);
}

static void waits(struct etcd_claim *c)
{
    (void)etcd_claim_start(c, false, true, 0); /* PUT */
    assert_int_equal(etcd_claim_put(c, 9, 0, true), ETCD_CLAIM_LOOK);
    assert_int_equal(etcd_claim_looked(c, true, true), ETCD_CLAIM_WAIT);
}

static void who_waited_reads_its_key_again(void **state)
{
    struct etcd_claim c;
    (void)state;
    waits(&c);
    assert_int_equal(etcd_claim_woken(&c), ETCD_CLAIM_LOOK);
    assert_int_equal(etcd_claim_looked(&c, true, false), ETCD_CLAIM_CONFIRM);
    assert_int_equal(etcd_claim_confirmed(&c, 12, false), ETCD_CLAIM_DONE);
    assert_int_equal(c.code, 2);
    assert_string_equal(c.text, ETCD_TEXT_LOCK_EXPIRED);
    waits(&c);
    (void)etcd_claim_woken(&c);
    (void)etcd_claim_looked(&c, true, false);
    (void)etcd_claim_confirmed(&c, 12, true);
    assert_int_equal(c.code, 0);
    assert_int_equal(c.header, 12);
    assert_int_equal(c.rev, 9);
}

static void a_cancelled_call_takes_its_key_back_wherever_it_was(void **state)
{
    struct etcd_claim c;
    (void)state;
    (void)etcd_claim_start(&c, false, false, 0);
    assert_int_equal(etcd_claim_cancel(&c, 1, "x"), ETCD_CLAIM_GRANT);
    assert_int_equal(etcd_claim_granted(&c), ETCD_CLAIM_DONE);
    (void)etcd_claim_start(&c, false, true, 0);
    assert_int_equal(etcd_claim_cancel(&c, 1, "x"), ETCD_CLAIM_PUT); /* it is under way */
    assert_int_equal(etcd_claim_put(&c, 9, 0, true), ETCD_CLAIM_LEAVE);
    assert_int_equal(etcd_claim_left(&c), ETCD_CLAIM_DONE);
    (void)etcd_claim_start(&c, true, true, 0);
    (void)etcd_claim_put(&c, 9, 4, false);
    assert_int_equal(etcd_claim_cancel(&c, 1, "x"), ETCD_CLAIM_PROCLAIM);
    assert_int_equal(etcd_claim_proclaimed(&c, true), ETCD_CLAIM_LEAVE);
    waits(&c);
    assert_int_equal(etcd_claim_cancel(&c, 1, "x"), ETCD_CLAIM_LEAVE);
    assert_int_equal(etcd_claim_cancel(&c, 2, "y"), ETCD_CLAIM_LEAVE); /* once */
    assert_int_equal(c.code, 1);
    for (unsigned i = 1; i < ETCD_LEAVE_TRIES; i++)
        assert_int_equal(etcd_claim_failed(&c, 14, "z"), ETCD_CLAIM_LEAVE);
    assert_int_equal(etcd_claim_failed(&c, 14, "z"), ETCD_CLAIM_DONE);
    assert_int_equal(c.code, 1);
}

static void what_is_not_known_to_be_there_is_not_deleted(void **state)
{
    struct etcd_claim c;
    (void)state;
    (void)etcd_claim_start(&c, false, true, 0);
    assert_int_equal(etcd_claim_failed(&c, 2, "timed out"), ETCD_CLAIM_DONE);
    assert_string_equal(c.text, "timed out");
    waits(&c);
    (void)etcd_claim_woken(&c);
    assert_int_equal(etcd_claim_failed(&c, 2, "memory"), ETCD_CLAIM_LEAVE); /* this is known */
}

/* ---- the model ------------------------------------------------------------------------------ */

#define SESSIONS 6
#define LOG_MAX 4000

struct change {
    int session;
    bool put;
};

struct model {
    struct bns_prng p;
    struct change log[LOG_MAX]; /* revision i + 1 */
    int64_t revision;
    struct {
        struct etcd_claim c;
        int64_t create;  /* now; 0: no key */
        int64_t applied; /* where it looks */
        int64_t waits_for;
        bool told;
    } s[SESSIONS];
    bool election;
    unsigned firsts, expired, cancelled;
    const char *wrong;
};

/* Create revision of a session's key at a revision, 0: none. */
static int64_t created(const struct model *m, int i, int64_t at)
{
    for (int64_t r = at; r > 0; r--) {
        if (m->log[r - 1].session == i)
            return m->log[r - 1].put ? r : 0;
    }
    return 0;
}

/* The newest key created before rev, as of `at`; 0: none. */
static int64_t older(const struct model *m, int64_t rev, int64_t at)
{
    int64_t found = 0;

    for (int i = 0; i < SESSIONS; i++) {
        int64_t c = created(m, i, at);
        if (c != 0 && c < rev && c > found)
            found = c;
    }
    return found;
}

static void change(struct model *m, int i, bool put)
{
    m->log[m->revision++] = (struct change){i, put};
    m->s[i].create = put ? m->revision : 0;
}

static void done(struct model *m, int i)
{
    struct etcd_claim *c = &m->s[i].c;
    int64_t at = c->waited ? m->revision : m->s[i].applied;

    if (m->s[i].told)
        return;
    m->s[i].told = true;
    if (c->code == 0) {
        m->firsts++;
        if (created(m, i, at) != c->rev)
            m->wrong = "who has no key any more was told that it is first";
        else if (older(m, c->rev, at) != 0)
            m->wrong = "two are first";
    } else if (c->cancelled && c->leaves == 0 && m->s[i].create == c->rev && c->rev != 0) {
        m->wrong = "a cancelled call left its key in the queue";
    }
}

static void session_step(struct model *m, int i)
{
    struct etcd_claim *c = &m->s[i].c;
    int64_t *applied = &m->s[i].applied, had = m->s[i].create;

    if (*applied < m->revision && bns_prng_below(&m->p, 2) == 0)
        *applied += 1 + (int64_t)bns_prng_below(&m->p, (uint64_t)(m->revision - *applied));
    if (bns_prng_below(&m->p, 40) == 0 && c->now != ETCD_CLAIM_DONE && c->now != ETCD_CLAIM_WAIT) {
        (void)etcd_claim_failed(c, 2, "failed"); /* looked at below */
        return;
    }
    switch (c->now) {
    case ETCD_CLAIM_GRANT:
        (void)etcd_claim_granted(c);
        break;
    case ETCD_CLAIM_PUT:
        if (had == 0)
            change(m, i, true);
        *applied = m->revision;
        (void)etcd_claim_put(c, m->revision, had, bns_prng_below(&m->p, 2) == 0);
        break;
    case ETCD_CLAIM_PROCLAIM:
        (void)etcd_claim_proclaimed(c, m->s[i].create == c->rev);
        break;
    case ETCD_CLAIM_LOOK:
        m->s[i].waits_for = older(m, c->rev, *applied);
        (void)etcd_claim_looked(c, created(m, i, *applied) == c->rev, m->s[i].waits_for != 0);
        break;
    case ETCD_CLAIM_WAIT:
        for (int k = 0; k < SESSIONS; k++) {
            if (created(m, k, *applied) == m->s[i].waits_for && created(m, i, *applied) == c->rev)
                return;
        }
        (void)etcd_claim_woken(c);
        break;
    case ETCD_CLAIM_CONFIRM:
        *applied = m->revision;
        (void)etcd_claim_confirmed(c, m->revision, m->s[i].create == c->rev);
        break;
    case ETCD_CLAIM_LEAVE:
        if (m->s[i].create == c->rev)
            change(m, i, false);
        (void)etcd_claim_left(c);
        break;
    case ETCD_CLAIM_DONE:
        break;
    }
}

static void any_step(struct model *m, uint32_t mutant)
{
    int i = (int)bns_prng_below(&m->p, SESSIONS);
    struct etcd_claim *c = &m->s[i].c;
    uint64_t d = bns_prng_below(&m->p, 100);

    if (d < 4 && m->s[i].create != 0) { /* its lease ends, or it unlocks */
        change(m, i, false);
        m->expired++;
    } else if (d < 6) {
        m->cancelled += c->now != ETCD_CLAIM_DONE;
        (void)etcd_claim_cancel(c, 1, "gone");
    } else if (c->now == ETCD_CLAIM_DONE && m->s[i].told && d < 40) {
        m->s[i].told = false;
        (void)etcd_claim_start(c, m->election, bns_prng_below(&m->p, 4) != 0, mutant);
    } else {
        session_step(m, i);
    }
    if (c->now == ETCD_CLAIM_DONE)
        done(m, i);
}

/* Nobody goes, nothing fails any more, who is first leaves: all calls must end. */
static const char *quiesce(struct model *m)
{
    for (int round = 0; round < 200; round++) {
        bool idle = true;

        for (int i = 0; i < SESSIONS && m->wrong == NULL; i++) {
            m->s[i].applied = m->revision;
            if (m->s[i].c.now != ETCD_CLAIM_DONE)
                session_step(m, i);
            idle = idle && m->s[i].c.now == ETCD_CLAIM_DONE;
            if (m->s[i].c.now == ETCD_CLAIM_DONE) {
                done(m, i);
                if (m->s[i].create != 0)
                    change(m, i, false);
            }
        }
        if (idle || m->wrong != NULL)
            return m->wrong;
    }
    return "a call does not end";
}

static const char *one_seed(uint64_t seed, uint32_t mutant, struct model *m)
{
    memset(m, 0, sizeof *m);
    bns_prng_seed(&m->p, seed);
    m->election = seed % 2 == 0;
    for (int i = 0; i < SESSIONS; i++) {
        m->s[i].c.now = ETCD_CLAIM_DONE;
        m->s[i].told = true;
    }
    for (int n = 0; n < 2000 && m->wrong == NULL; n++)
        any_step(m, mutant);
    return m->wrong != NULL ? m->wrong : quiesce(m);
}

static void who_is_told_that_it_is_first_is(void **state)
{
    static struct model m;
    unsigned firsts = 0, expired = 0, cancelled = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        const char *wrong = one_seed(seed, 0, &m);
        if (wrong != NULL)
            fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
        firsts += m.firsts;
        expired += m.expired;
        cancelled += m.cancelled;
    }
    print_message("  %u were first, %u keys went, %u cancelled\n", firsts, expired, cancelled);
    assert_true(firsts > 1000 && expired > 1000 && cancelled > 1000);
}

static void the_planted_bugs_are_caught(void **state)
{
    static const struct {
        uint32_t mutant;
        const char *wrong;
    } t[] = {{ETCD_MUTANT_LOCK_UNREAD, "who has no key any more was told that it is first"},
             {ETCD_MUTANT_CAMPAIGN_EARLY, "two are first"}};
    static struct model m;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        unsigned caught = 0;

        for (uint64_t seed = 1; seed <= 100; seed++) {
            const char *wrong = one_seed(seed, t[i].mutant, &m);
            caught += wrong != NULL && strcmp(wrong, t[i].wrong) == 0;
        }
        print_message("  %u: caught by %u of 100 seeds\n", t[i].mutant, caught);
        assert_true(caught > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_are_printed_as_go_does),
        cmocka_unit_test(without_a_lease_one_is_granted),
        cmocka_unit_test(a_campaign_with_another_value_proclaims_it),
        cmocka_unit_test(who_waited_reads_its_key_again),
        cmocka_unit_test(a_cancelled_call_takes_its_key_back_wherever_it_was),
        cmocka_unit_test(what_is_not_known_to_be_there_is_not_deleted),
        cmocka_unit_test(who_is_told_that_it_is_first_is),
        cmocka_unit_test(the_planted_bugs_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
