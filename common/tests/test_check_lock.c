/* test_check_lock.c - locks and leases: each anomaly by a small history that has it; what a right
 * server does always passes, with late answers, lost answers and clients that die; a server with a
 * planted mistake is found.
 */
#include "base/prng.h"
#include "check_kit.h"
#include "sim/check_lock.h"

#define GRANT "@100 0 i grant 7 {\"ttl_ms\":1000}\n@110 0 o grant 7 {\"ttl_ms\":1000}\n"

static const struct known_history leases[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"gone after its time", NULL, BNS_OK,
     GRANT "@1200 0 i look 7 null\n@1210 0 o look 7 {\"ttl_ms\":-1}", NULL},
    {"gone too early", "early", 0, GRANT "@1080 0 i look 7 null\n@1090 0 o look 7 {\"ttl_ms\":-1}",
     "line 3 sees it gone at 1090 ms; line 1 gave it 1000 ms from 100 ms on"},
    {"gone just when it may", NULL, BNS_OK,
     GRANT "@1080 0 i look 7 null\n@1100 0 o look 7 {\"ttl_ms\":-1}", NULL},
    {"early, but the server's clock runs fast", NULL, BNS_OK,
     "-1 n config - {\"drift_ppm\":100000}\n" GRANT
     "@1080 0 i look 7 null\n@1090 0 o look 7 {\"ttl_ms\":-1}",
     NULL},
    {"kept alive and gone too early", "early", 0,
     GRANT "@900 0 i keepalive 7 null\n@910 0 o keepalive 7 {\"ttl_ms\":1000}\n"
           "@1500 0 i look 7 null\n@1510 0 o look 7 {\"ttl_ms\":-1}",
     "line 3 gave it"},
    {"its key is gone too early", "early", 0,
     GRANT "@500 0 i look 7 null\n@510 0 o look 7 {\"there\":false}", NULL},
    {"a keepalive finds it gone too early", "early", 0,
     GRANT "@500 0 i keepalive 7 null\n@510 0 o keepalive 7 {\"ttl_ms\":0}", NULL},
    {"an unknown keepalive promises nothing", NULL, BNS_OK,
     GRANT "@900 0 i keepalive 7 null\n@910 0 n keepalive 7 null\n"
           "@1500 1 i look 7 null\n@1510 1 o look 7 {\"ttl_ms\":-1}",
     NULL},
    {"revoked", NULL, BNS_OK,
     GRANT "@300 1 i revoke 7 null\n@500 0 i look 7 null\n@510 0 o look 7 {\"ttl_ms\":-1}", NULL},
    {"a revoke that failed", "early", 0,
     GRANT "@300 1 i revoke 7 null\n@310 1 f revoke 7 null\n@500 0 i look 7 null\n"
           "@510 0 o look 7 {\"ttl_ms\":-1}",
     NULL},
    {"alive again", "came-back", 0,
     GRANT "@1200 0 i look 7 null\n@1210 0 o look 7 {\"ttl_ms\":-1}\n"
           "@1300 0 i look 7 null\n@1310 0 o look 7 {\"ttl_ms\":5}",
     NULL},
    {"alive after it was revoked", "came-back", 0,
     GRANT "@300 1 i revoke 7 null\n@310 1 o revoke 7 null\n"
           "@400 0 i keepalive 7 null\n@410 0 o keepalive 7 {\"ttl_ms\":1000}",
     "revoked it"},
    {"more than was granted", "ttl-above-granted", 0,
     GRANT "@400 0 i look 7 null\n@410 0 o look 7 {\"ttl_ms\":1001}", NULL},
    {"it never ends", "late", 0,
     "-1 n config - {\"slack_ms\":500}\n" GRANT
     "@1700 0 i look 7 null\n@1710 0 o look 7 {\"there\":true}",
     NULL},
    {"it ends within the slack", NULL, BNS_OK,
     "-1 n config - {\"slack_ms\":500}\n" GRANT
     "@1600 0 i look 7 null\n@1610 0 o look 7 {\"there\":true}",
     NULL},
    {"an unknown keepalive may have helped", NULL, BNS_OK,
     "-1 n config - {\"slack_ms\":500}\n" GRANT "@200 1 i keepalive 7 null\n"
     "@1700 0 i look 7 null\n@1710 0 o look 7 {\"there\":true}",
     NULL},
    {"granted twice", NULL, BNS_E_INVALID,
     GRANT "0 i grant 7 {\"ttl_ms\":1000}\n0 o grant 7 {\"ttl_ms\":1000}", "line 3"},
    {"a grant without time", NULL, BNS_E_INVALID, "0 i grant 7 {}\n0 o grant 7 null", "line 1"},
    {"a lease without a name", NULL, BNS_E_INVALID, "0 i grant - {\"ttl_ms\":1}", "line 1"},
    {"no answer", NULL, BNS_E_INVALID, GRANT "0 i keepalive 7 null\n0 o keepalive 7 null",
     "line 3"},
};

#define TOOK "@200 0 i acquire L {\"lease\":\"7\"}\n@210 0 o acquire L {\"token\":5}\n"

static const struct known_history locks[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"one after the other", NULL, BNS_OK,
     "0 i acquire L null\n0 o acquire L {\"token\":1}\n@5 0 i release L null\n"
     "@6 1 i acquire L null\n@7 1 o acquire L {\"token\":2}\n@8 0 o release L null",
     NULL},
    {"two at once", "two-holders", 0,
     "0 i acquire L null\n0 o acquire L {\"token\":1}\n"
     "@5 1 i acquire L null\n@7 1 o acquire L {\"token\":2}\n@8 0 i release L null",
     "process 0 holds it from 1 ms (line 1) to 8 ms at least"},
    {"two locks", NULL, BNS_OK,
     "0 i acquire L null\n0 o acquire L {\"token\":1}\n1 i acquire M null\n1 o acquire M null",
     NULL},
    {"within its lease", "two-holders", 0,
     GRANT TOOK "@900 1 i acquire L null\n@1000 1 o acquire L {\"token\":6}",
     "to 1100 ms at least"},
    {"after its lease", NULL, BNS_OK,
     GRANT TOOK "@900 1 i acquire L null\n@1101 1 o acquire L {\"token\":6}", NULL},
    {"within its renewed lease", "two-holders", 0,
     GRANT TOOK "@900 0 i keepalive 7 null\n@910 0 o keepalive 7 {\"ttl_ms\":1000}\n"
                "@1200 1 i acquire L null\n@1300 1 o acquire L {\"token\":6}",
     "to 1900 ms at least"},
    {"its lease is revoked", NULL, BNS_OK,
     GRANT TOOK "@300 2 i revoke 7 null\n@400 1 i acquire L null\n@410 1 o acquire L {\"token\":6}",
     NULL},
    {"an unknown release", NULL, BNS_OK,
     "0 i acquire L null\n0 o acquire L {\"token\":1}\n@5 0 i release L null\n0 n release L null\n"
     "@6 1 i acquire L null\n@7 1 o acquire L {\"token\":2}",
     NULL},
    {"a failed release", "two-holders", 0,
     "0 i acquire L null\n0 o acquire L {\"token\":1}\n@5 0 i release L null\n0 f release L null\n"
     "@6 1 i acquire L null\n@7 1 o acquire L {\"token\":2}",
     NULL},
    {"an unknown acquire", NULL, BNS_OK,
     "0 i acquire L null\n0 n acquire L null\n1 i acquire L null\n1 o acquire L {\"token\":2}",
     NULL},
    {"a lease nobody knows", NULL, BNS_OK,
     TOOK "@300 1 i acquire L null\n@310 1 o acquire L {\"token\":6}", NULL},
    {"one token twice", "same-token", 0,
     "0 i acquire L null\n0 o acquire L {\"token\":1}\n@5 0 i release L null\n0 o release L null\n"
     "@6 1 i acquire L null\n@7 1 o acquire L {\"token\":1}",
     NULL},
    {"a token goes back", "token-went-back", 0,
     "0 i acquire L null\n0 o acquire L {\"token\":2}\n@5 0 i release L null\n0 o release L null\n"
     "@6 1 i acquire L null\n@7 1 o acquire L {\"token\":1}",
     NULL},
    {"a stale holder is let in", "stale-holder", 0,
     "0 i use disk {\"token\":2}\n0 o use disk null\n1 i use disk {\"token\":1}\n"
     "1 o use disk null",
     "resource disk"},
    {"a stale holder is refused", NULL, BNS_OK,
     "0 i use disk {\"token\":2}\n0 o use disk null\n1 i use disk {\"token\":1}\n"
     "1 f use disk null\n0 i use disk {\"token\":2}\n0 o use disk null",
     NULL},
    {"both at one time", NULL, BNS_OK,
     "1 i use disk {\"token\":1}\n0 i use disk {\"token\":2}\n0 o use disk null\n"
     "1 o use disk null",
     NULL},
    {"a lock without a name", NULL, BNS_E_INVALID, "0 i acquire - null", "line 1"},
    {"no token", NULL, BNS_E_INVALID, "0 i acquire L null\n0 o acquire L {\"token\":\"x\"}",
     "line 1"},
    {"no lease", NULL, BNS_E_INVALID, "0 i acquire L {\"lease\":7}", "line 1"},
};

static void each_anomaly_of_a_lease_is_named(void **state)
{
    (void)state;
    known_verdicts("lease", leases, sizeof leases / sizeof leases[0]);
}

static void each_anomaly_of_a_lock_is_named(void **state)
{
    (void)state;
    known_verdicts("lock", locks, sizeof locks / sizeof locks[0]);
}

/* ---- a server, right or with a mistake ------------------------------------------------------- */

#define MS UINT64_C(1000000)
#define TTL (1000 * MS)
#define CLIENTS 4
#define OPS 400

enum mistake { NO_MISTAKE, SHORT_LEASE, NO_EXCLUSION, TOKEN_STANDS, LEASE_RETURNS, MISTAKES };

struct client {
    uint64_t lease;
    uint64_t expires; /* at the server */
    bool alive;       /* at the server */
    bool holds;       /* it believes */
};

struct model {
    struct bns_prng p;
    enum mistake mistake;
    uint64_t now, position, leases, token;
    struct client clients[CLIENTS];
    int holder; /* -1: nobody */
    struct bns_lease_op leases_ops[2 * OPS];
    struct bns_lock_op lock_ops[OPS];
    size_t leases_count, locks_count;
};

/* Every operation: a delay, the server's turn, a delay; one in ten answers is lost. */
static void begin(struct model *m, uint64_t *call, uint64_t *call_ns)
{
    *call = m->position++;
    *call_ns = m->now;
    m->now += bns_prng_below(&m->p, 30 * MS);
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &m->clients[i];
        uint64_t early = m->mistake == SHORT_LEASE ? TTL / 4 : 0;
        if (!c->alive || m->now + early < c->expires)
            continue;
        c->alive = false;
        m->holder = m->holder == i ? -1 : m->holder;
    }
}

static bool finish(struct model *m, uint64_t *ret, uint64_t *ret_ns, enum bns_check_end *end)
{
    bool lost = bns_prng_chance(&m->p, 0.1);

    m->now += bns_prng_below(&m->p, 30 * MS);
    *end = lost ? BNS_CHECK_INFO : BNS_CHECK_OK;
    *ret = lost ? BNS_CHECK_OPEN : m->position++;
    *ret_ns = lost ? UINT64_MAX : m->now;
    return !lost;
}

static void lease_step(struct model *m, int who, enum bns_lease_kind kind)
{
    struct bns_lease_op *op = &m->leases_ops[m->leases_count++];
    struct client *c = &m->clients[who];

    *op = (struct bns_lease_op){.kind = kind};
    begin(m, &op->call, &op->call_ns);
    if (kind == BNS_LEASE_GRANT) {
        c->lease = ++m->leases;
        c->alive = true;
    }
    op->lease = c->lease;
    if (kind == BNS_LEASE_KEEPALIVE && m->mistake == LEASE_RETURNS)
        c->alive = true;
    op->gone = !c->alive;
    if (kind == BNS_LEASE_REVOKE) {
        c->alive = op->gone = false;
        m->holder = m->holder == who ? -1 : m->holder;
    } else if (c->alive && kind != BNS_LEASE_LOOK) {
        c->expires = m->now + TTL;
    }
    op->ttl_ns = op->gone ? 0 : kind == BNS_LEASE_LOOK ? c->expires - m->now : TTL;
    (void)finish(m, &op->ret, &op->ret_ns, &op->end); /* its end is in op */
}

static void lock_step(struct model *m, int who)
{
    struct bns_lock_op *op = &m->lock_ops[m->locks_count];
    struct client *c = &m->clients[who];

    *op = (struct bns_lock_op){.kind = c->holds ? BNS_LOCK_RELEASE : BNS_LOCK_ACQUIRE,
                               .lock = 1,
                               .process = who,
                               .lease = c->lease};
    begin(m, &op->call, &op->call_ns);
    if (c->holds) {
        m->holder = m->holder == who ? -1 : m->holder;
    } else {
        if (!c->alive || (m->holder != -1 && m->holder != who && m->mistake != NO_EXCLUSION))
            return; /* it waits, and gives up: nothing happened, nothing is kept */
        m->holder = who;
        op->token = m->mistake == TOKEN_STANDS ? 1 : ++m->token;
    }
    m->locks_count++;
    c->holds = finish(m, &op->ret, &op->ret_ns, &op->end) && op->kind == BNS_LOCK_ACQUIRE;
}

static void run(struct model *m, uint64_t seed, enum mistake mistake)
{
    memset(m, 0, sizeof *m);
    bns_prng_seed(&m->p, seed);
    m->mistake = mistake;
    m->holder = -1;
    m->now = MS;
    for (int i = 0; i < OPS; i++) {
        int who = (int)bns_prng_below(&m->p, CLIENTS);
        struct client *c = &m->clients[who];
        uint64_t dice = bns_prng_below(&m->p, 10);

        m->now += bns_prng_below(&m->p, 100 * MS);
        if (c->lease == 0 || (!c->alive && dice < 5)) {
            c->holds = false; /* it noticed */
            lease_step(m, who, BNS_LEASE_GRANT);
        } else if (dice < 5) {
            lock_step(m, who);
        } else if (dice < 8) {
            lease_step(m, who, BNS_LEASE_KEEPALIVE);
        } else if (dice < 9) {
            lease_step(m, who, BNS_LEASE_LOOK);
        } else if (bns_prng_chance(&m->p, 0.2)) {
            c->holds = false;
            lease_step(m, who, BNS_LEASE_REVOKE);
        }
    }
}

static void a_right_server_passes_and_each_mistake_is_found(void **state)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc(), .slack_ns = 1};
    struct model *m = malloc(sizeof *m);
    unsigned found[MISTAKES] = {0};

    (void)state;
    assert_non_null(m);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        for (int i = NO_MISTAKE; i < MISTAKES; i++) {
            struct bns_verdict v;
            int rv;

            run(m, seed, (enum mistake)i);
            rv = bns_check_lease(&cfg, m->leases_ops, m->leases_count, &v);
            if (rv == BNS_OK)
                rv = bns_check_lock(&cfg, m->lock_ops, m->locks_count, m->leases_ops,
                                    m->leases_count, &v);
            if (i == NO_MISTAKE && rv != BNS_OK)
                fail_msg("seed %llu: %s: %s", (unsigned long long)seed, v.anomaly, v.text);
            found[i] += rv == BNS_E_CONFLICT;
        }
    }
    print_message("of 200: short lease %u, no exclusion %u, token stands %u, lease returns %u\n",
                  found[SHORT_LEASE], found[NO_EXCLUSION], found[TOKEN_STANDS],
                  found[LEASE_RETURNS]);
    for (int i = NO_MISTAKE + 1; i < MISTAKES; i++)
        assert_true(found[i] > 150);
    free(m);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof leases / sizeof leases[0]; i++) {
        if (leases[i].rv == BNS_OK)
            check_survives_oom("lease", leases[i].script,
                               leases[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
    for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++) {
        if (locks[i].rv == BNS_OK)
            check_survives_oom("lock", locks[i].script,
                               locks[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_anomaly_of_a_lease_is_named),
        cmocka_unit_test(each_anomaly_of_a_lock_is_named),
        cmocka_unit_test(a_right_server_passes_and_each_mistake_is_found),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
