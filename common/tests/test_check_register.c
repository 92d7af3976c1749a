/* test_check_register.c - histories of registers: what is done to shorten the search changes no
 * verdict.
 *
 * Method: known histories; random ones with unknown outcomes, written as lines, where the plain
 * search over all operations must say the same.
 */
#include "base/prng.h"
#include "check_kit.h"

static const struct known_history known[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"stale read", "not-linearizable", 0,
     "0 i put a 1\n0 o put a 1\n0 i put a 2\n0 o put a 2\n1 i get a null\n1 o get a 1", "line 5"},
    {"an unknown write that is seen", NULL, BNS_OK,
     "0 i put a 1\n0 n put a 1\n1 i get a null\n1 o get a 1", NULL},
    {"an unknown write, seen and gone again", "not-linearizable", 0,
     "0 i put a 1\n0 n put a 1\n1 i get a null\n1 o get a 1\n1 i get a null\n1 o get a null", NULL},
    {"an unknown write, seen before it was asked", "not-linearizable", 0,
     "1 i get a null\n1 o get a 1\n0 i put a 1\n0 n put a 1", NULL},
    {"an unknown delete that happened", NULL, BNS_OK,
     "0 i put a 1\n0 o put a 1\n0 i delete a null\n0 n delete a null\n1 i get a null\n"
     "1 o get a null",
     NULL},
    {"compare and set by revision", NULL, BNS_OK,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i cas a {\"rev\":2,\"new\":7}\n"
     "0 o cas a {\"swapped\":true,\"rev\":3}\n0 i get a null\n0 o get a "
     "{\"value\":7,\"rev\":3}",
     NULL},
    {"compare and set by an old revision", "not-linearizable", 0,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i cas a {\"rev\":1,\"new\":7}\n"
     "0 o cas a {\"swapped\":true,\"rev\":3}",
     NULL},
    {"a lost write, by revisions", "not-linearizable", 0,
     "0 i put a 1\n0 o put a {\"rev\":2,\"was\":null}\n0 i get a null\n0 o get a "
     "{\"value\":null,\"at\":3}",
     "line 3, at revision 3: it is not there"},
    {"an unknown delete, by revisions", NULL, BNS_OK,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i delete a null\n0 n delete a null\n1 i get a null\n"
     "1 o get a {\"value\":null,\"at\":3}",
     NULL},
    {"a put shows what was not there", "not-linearizable", 0,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i put a 3\n0 o put a "
     "{\"rev\":3,\"was\":{\"value\":7,\"rev\":2}}",
     "two values were seen at one revision"},
    {"what was there is no revision", NULL, BNS_E_INVALID,
     "0 i put a 1\n0 o put a {\"rev\":2,\"was\":{\"value\":7,\"rev\":\"x\"}}", "line 1"},
    {"revisions of two keys go back", "revision-order", 0,
     "0 i put a 1\n0 o put a {\"rev\":5}\n0 i put b 1\n0 o put b {\"rev\":4}", NULL},
    {"no register", NULL, BNS_E_INVALID, "0 i jump a 1", "line 1"},
    {"answer without question", NULL, BNS_E_INVALID, "0 o put a 1", "line 1"},
};

static void each_history_gets_its_verdict(void **state)
{
    (void)state;
    known_verdicts("register", known, sizeof known / sizeof known[0]);
}

/* ---- random histories ------------------------------------------------------------------------ */

enum { CLIENTS = 3, STEPS = 12 };

static void add(struct bns_history *h, int process, enum bns_history_type type, const char *f,
                const char *value)
{
    struct bns_history_event e = {
        .time = 1, .process = process, .type = type, .f = f, .key = "k", .value = value};
    assert_int_equal(bns_history_add(h, &e), BNS_OK);
}

/* Clients whose operations overlap; some answers never come, some reads tell something wrong. */
static struct bns_history *random_history(struct bns_prng *p)
{
    static const char *const fs[] = {"get", "put", "delete", "put"};
    const char *busy[CLIENTS] = {NULL};
    char arg[CLIENTS][16], now[16] = "null";
    int process[CLIENTS] = {0, 1, 2}, next = CLIENTS, written = 0;
    struct bns_history *h;

    assert_int_equal(bns_history_new(bns_alloc_libc(), &h), BNS_OK);
    for (int step = 0; step < 2 * STEPS; step++) {
        int c = (int)bns_prng_below(p, CLIENTS);
        if (busy[c] == NULL) {
            busy[c] = fs[bns_prng_below(p, 4)];
            (void)snprintf(arg[c], sizeof arg[c], "null");
            if (busy[c][0] == 'p')
                (void)snprintf(arg[c], sizeof arg[c], "%d",
                               bns_prng_chance(p, 0.8) ? ++written : 1);
            add(h, process[c], BNS_HIST_INVOKE, busy[c], arg[c]);
            continue;
        }
        if (busy[c][0] != 'g' && bns_prng_chance(p, 0.8)) /* it takes effect */
            memcpy(now, arg[c], sizeof now);
        else if (busy[c][0] != 'g') {
            add(h, process[c], BNS_HIST_INFO, busy[c], "null");
            process[c] = next++;
            busy[c] = NULL;
            continue;
        }
        if (busy[c][0] == 'g')
            memcpy(arg[c], now, sizeof now);
        if (busy[c][0] == 'g' && written > 0 && bns_prng_chance(p, 0.1))
            (void)snprintf(arg[c], sizeof arg[c], "%d", 1 + (int)bns_prng_below(p, 3));
        if (busy[c][0] != 'g' && bns_prng_chance(p, 0.3)) {
            add(h, process[c], BNS_HIST_INFO, busy[c], "null");
            process[c] = next++;
        } else {
            add(h, process[c], BNS_HIST_OK, busy[c], arg[c]);
        }
        busy[c] = NULL;
    }
    return h;
}

static void short_cuts_change_no_verdict(void **state)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    unsigned good = 0, bad = 0;
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 21);
    for (int i = 0; i < 20000; i++) {
        struct bns_history *h = random_history(&p);
        struct bns_lin_op *ops;
        struct bns_verdict v;
        size_t count;
        int rv = bns_check_history(h, "register", &cfg, &v), want;

        assert_int_equal(bns_history_ops(h, &ops, &count, NULL), BNS_OK);
        want = bns_lin_check(cfg.alloc, &bns_lin_register, ops, count, 0, NULL);
        if (rv != want)
            fail_msg("history %d: %d, the plain search says %d: %s", i, rv, want, v.text);
        good += want == BNS_OK;
        bad += want == BNS_E_CONFLICT;
        bns_free(cfg.alloc, ops);
        bns_history_free(h);
    }
    print_message("%u good, %u bad\n", good, bad);
    assert_true(good > 3000);
    assert_true(bad > 3000);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].rv == BNS_OK)
            check_survives_oom("register", known[i].script,
                               known[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_history_gets_its_verdict),
        cmocka_unit_test(short_cuts_change_no_verdict),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
