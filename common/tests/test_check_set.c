/* test_check_set.c - set-full and bank: each anomaly by a small history that has it; executions of
 * a right store always pass, also with unknown outcomes; planted damage is found.
 */
#include "base/prng.h"
#include "check_kit.h"
#include "sim/check_bank.h"
#include "sim/check_set.h"

static const struct known_history sets[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"added and read", NULL, BNS_OK,
     "0 i add s 1\n0 o add s 1\n0 i read s null\n0 o read s [1]\n0 i read s null\n0 o read s [1]",
     NULL},
    {"never read", NULL, BNS_OK, "1 i read s null\n0 i add s 1\n0 o add s 1\n1 o read s []", NULL},
    {"lost", "lost", 0, "0 i add s 1\n0 o add s 1\n0 i read s null\n0 o read s []",
     "1 of s: line 1 added it; it was known when the read of line 3 began"},
    {"lost after it was read", "lost", 0,
     "0 i add s 1\n0 o add s 1\n0 i read s null\n0 o read s [1]\n0 i read s null\n0 o read s null",
     NULL},
    {"an unknown add, read and lost", "lost", 0,
     "0 i add s 1\n0 n add s 1\n1 i read s null\n1 o read s [1]\n1 i read s null\n1 o read s []",
     NULL},
    {"an unknown add, never seen", NULL, BNS_OK,
     "0 i add s 1\n0 n add s 1\n1 i read s null\n1 o read s []", NULL},
    {"an unknown add, seen late", NULL, BNS_OK,
     "0 i add s 1\n0 n add s 1\n1 i read s null\n1 o read s []\n1 i read s null\n1 o read s [1]",
     NULL},
    {"an unfinished add, seen", NULL, BNS_OK, "0 i add s 1\n1 i read s null\n1 o read s [1]", NULL},
    {"stale", "stale", 0,
     "0 i add s 1\n0 o add s 1\n0 i read s null\n0 o read s []\n0 i read s null\n0 o read s [1]",
     "though a later one does"},
    {"stale, where that is allowed", NULL, BNS_OK,
     "-1 n config - {\"realtime\":false}\n0 i add s 1\n0 o add s 1\n0 i read s null\n"
     "0 o read s []\n0 i read s null\n0 o read s [1]",
     NULL},
    {"duplicate", "duplicate", 0, "0 i add s 1\n0 o add s 1\n0 i read s null\n0 o read s [1,1]",
     NULL},
    {"phantom", "phantom", 0, "0 i add s 1\n0 o add s 1\n0 i read s null\n0 o read s [1,\"x\"]",
     "\"x\""},
    {"from the future", "phantom", 0, "0 i read s null\n0 o read s [1]\n0 i add s 1\n0 o add s 1",
     "before"},
    {"of another set", "phantom", 0, "0 i add s 1\n0 o add s 1\n0 i read t null\n0 o read t [1]",
     NULL},
    {"sets are independent", NULL, BNS_OK,
     "0 i add s 1\n0 o add s 1\n0 i add t 1\n0 o add t 1\n0 i read t null\n0 o read t [1]\n"
     "0 i read s null\n0 o read s [1]",
     NULL},
    {"failed and there", "revived", 0, "0 i add s 1\n0 f add s 1\n0 i read s null\n0 o read s [1]",
     NULL},
    {"failed reads say nothing", NULL, BNS_OK,
     "0 i add s 1\n0 o add s 1\n0 i read s null\n0 f read s null", NULL},
    {"added twice", NULL, BNS_E_INVALID, "0 i add s 1\n0 o add s 1\n0 i add s 1", "lines 1 and 3"},
    {"no list", NULL, BNS_E_INVALID, "0 i read s null\n0 o read s 3", "line 1"},
    {"another operation", NULL, BNS_E_INVALID, "0 i remove s 1", "line 1"},
};

static const struct known_history banks[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"moved", NULL, BNS_OK,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5},\"rev\":1}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n0 o transfer - null\n"
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":3,\"b\":7},\"rev\":2}",
     NULL},
    {"money appears", "wrong-total", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n"
     "1 i read - null\n1 o read - {\"accounts\":{\"a\":5,\"b\":7}}",
     "12, not to 10"},
    {"not what was configured", "wrong-total", 0,
     "-1 n config - {\"total\":11}\n0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}",
     NULL},
    {"under zero", "negative-balance", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":-1,\"b\":5}}", "a\" at -1"},
    {"under zero, where that is allowed", NULL, BNS_OK,
     "-1 n config - {\"negative\":true}\n0 i read - null\n"
     "0 o read - {\"accounts\":{\"a\":-1,\"b\":5}}",
     NULL},
    {"an account vanishes", "other-accounts", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":0}}\n0 i read - null\n"
     "0 o read - {\"accounts\":{\"a\":5}}",
     NULL},
    {"another account", "other-accounts", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":0}}\n0 i read - null\n"
     "0 o read - {\"accounts\":{\"a\":5,\"c\":0}}",
     NULL},
    {"one revision, two states", "two-states", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":0},\"rev\":7}\n"
     "1 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n0 i read - null\n"
     "0 o read - {\"accounts\":{\"a\":3,\"b\":2},\"rev\":7}",
     "revision 7"},
    {"revision goes back", "revision-went-back", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":0},\"rev\":7}\n0 i read - null\n"
     "0 o read - {\"accounts\":{\"a\":5,\"b\":0},\"rev\":6}",
     NULL},
    {"reads side by side", NULL, BNS_OK,
     "0 i read - null\n1 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":0},\"rev\":7}\n"
     "1 o read - {\"accounts\":{\"a\":5,\"b\":0},\"rev\":6}",
     NULL},
    {"a lost transfer", "impossible-balance", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n0 o transfer - null\n"
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}",
     "between 3 and 3"},
    {"a transfer counted twice", "impossible-balance", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n0 n transfer - null\n"
     "1 i read - null\n1 o read - {\"accounts\":{\"a\":1,\"b\":9}}",
     "between 3 and 5"},
    {"a failed transfer that happened", "impossible-balance", 0,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n0 f transfer - null\n"
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":3,\"b\":7}}",
     NULL},
    {"an unknown transfer, late", NULL, BNS_OK,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":2}\n0 n transfer - null\n"
     "1 i read - null\n1 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "1 i read - null\n1 o read - {\"accounts\":{\"a\":3,\"b\":7}}",
     NULL},
    {"to oneself", NULL, BNS_OK,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}\n"
     "0 i transfer - {\"from\":\"a\",\"to\":\"a\",\"amount\":2}\n0 o transfer - null\n"
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":5,\"b\":5}}",
     NULL},
    {"no transfer", NULL, BNS_E_INVALID, "0 i transfer - {\"from\":\"a\",\"to\":\"b\"}", "line 1"},
    {"an amount under zero", NULL, BNS_E_INVALID,
     "0 i transfer - {\"from\":\"a\",\"to\":\"b\",\"amount\":-1}", "line 1"},
    {"no accounts", NULL, BNS_E_INVALID, "0 i read - null\n0 o read - 7", "line 1"},
    {"no balance", NULL, BNS_E_INVALID, "0 i read - null\n0 o read - {\"accounts\":{\"a\":\"x\"}}",
     "line 1"},
    {"too much money", NULL, BNS_E_INVALID,
     "0 i read - null\n0 o read - {\"accounts\":{\"a\":1000000000000001}}", "out of range"},
    {"settings that are none", NULL, BNS_E_INVALID, "-1 n config - {\"total\":\"x\"}", "line 1"},
};

static void each_anomaly_of_a_set_is_named(void **state)
{
    (void)state;
    known_verdicts("set", sets, sizeof sets / sizeof sets[0]);
}

static void each_anomaly_of_a_bank_is_named(void **state)
{
    (void)state;
    known_verdicts("bank", banks, sizeof banks / sizeof banks[0]);
}

/* ---- executions of a right store ------------------------------------------------------------- */

enum { OPS = 400, ACCOUNTS = 5, WIDTH = 6 };

/* Operation i takes effect at 1000 i (when it does), is called before and answered after. */
static uint64_t call_of(struct bns_prng *p, size_t i)
{
    return 1000 * (WIDTH + i) - 1000 * bns_prng_below(p, WIDTH) - 2 * i % 1000 - 1;
}

static uint64_t ret_of(struct bns_prng *p, size_t i)
{
    return 1000 * (WIDTH + i) + 1000 * bns_prng_below(p, WIDTH) + 2 * i % 1000;
}

struct set_run {
    struct bns_set_op ops[OPS];
    uint64_t lists[OPS][OPS];
};

static void run_set(struct bns_prng *p, struct set_run *s)
{
    uint64_t now[OPS];
    size_t len = 0;

    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < OPS; i++) {
        struct bns_set_op *op = &s->ops[i];
        *op = (struct bns_set_op){
            .call = call_of(p, i), .ret = ret_of(p, i), .add = bns_prng_chance(p, 0.5), .value = i};
        if (op->add && bns_prng_chance(p, 0.2)) {
            op->end = bns_prng_chance(p, 0.5) ? BNS_CHECK_FAILED : BNS_CHECK_INFO;
            op->ret = BNS_CHECK_OPEN;
        }
        if (op->add &&
            (op->end == BNS_CHECK_OK || (op->end == BNS_CHECK_INFO && bns_prng_chance(p, 0.5))))
            now[len++] = i;
        if (!op->add) {
            memcpy(s->lists[i], now, len * sizeof now[0]);
            op->list = s->lists[i];
            op->list_count = len;
        }
    }
}

/* Takes out of read i an element that was acknowledged before it began. */
static bool lose(struct set_run *s, size_t i)
{
    struct bns_set_op *op = &s->ops[i];

    for (size_t j = 0; j < op->list_count && !op->add; j++) {
        const struct bns_set_op *add = &s->ops[op->list[j]];
        if (add->end != BNS_CHECK_OK || add->ret >= op->call)
            continue;
        s->lists[i][j] = op->list[--op->list_count];
        return true;
    }
    return false;
}

/* Half a million adds and 10,000 reads would take too long. */
static void too_many_are_refused(const struct bns_check_cfg *cfg)
{
    enum { MANY = 510000, READS = 10000 };
    struct bns_set_op *ops = calloc(MANY, sizeof *ops);
    struct bns_verdict v;

    assert_non_null(ops);
    for (size_t i = 0; i < MANY; i++)
        ops[i] =
            (struct bns_set_op){.call = 2 * i, .ret = 2 * i + 1, .add = i >= READS, .value = i};
    assert_int_equal(bns_check_set(cfg, ops, MANY, &v), BNS_E_TOOBIG);
    free(ops);
}

static void a_right_set_passes_and_damage_is_found(void **state)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    struct set_run *s = malloc(sizeof *s);
    struct bns_verdict v;
    unsigned lost = 0, stale = 0;

    (void)state;
    assert_non_null(s);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct bns_prng p;
        bns_prng_seed(&p, seed);
        run_set(&p, s);
        if (bns_check_set(&cfg, s->ops, OPS, &v) != BNS_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, v.text);
        if (!lose(s, OPS - 1 - (size_t)bns_prng_below(&p, OPS / 2)))
            continue;
        assert_int_equal(bns_check_set(&cfg, s->ops, OPS, &v), BNS_E_CONFLICT);
        stale += strcmp(v.anomaly, "stale") == 0;
        lost += strcmp(v.anomaly, "lost") == 0;
    }
    print_message("%u stale, %u lost\n", stale, lost);
    assert_true(stale > 50);
    too_many_are_refused(&cfg);
    s->ops[0].end = BNS_CHECK_OK;
    s->ops[0].ret = s->ops[0].call;
    assert_int_equal(bns_check_set(&cfg, s->ops, OPS, &v), BNS_E_INVALID);
    free(s);
}

struct bank_run {
    struct bns_bank_op ops[OPS];
    struct bns_bank_account shown[OPS][ACCOUNTS];
};

static void run_bank(struct bns_prng *p, struct bank_run *b)
{
    struct bns_bank_account now[ACCOUNTS];
    uint64_t rev = 1;

    memset(b, 0, sizeof *b);
    for (uint64_t i = 0; i < ACCOUNTS; i++)
        now[i] = (struct bns_bank_account){ACCOUNTS - i, 20};
    for (size_t i = 0; i < OPS; i++) {
        struct bns_bank_op *op = &b->ops[i];
        *op = (struct bns_bank_op){.call = call_of(p, i),
                                   .ret = ret_of(p, i),
                                   .transfer = bns_prng_chance(p, 0.5),
                                   .from = bns_prng_below(p, ACCOUNTS),
                                   .to = bns_prng_below(p, ACCOUNTS),
                                   .amount = (int64_t)bns_prng_below(p, 9)};
        if (op->transfer && (bns_prng_chance(p, 0.1) || now[op->from].balance < op->amount)) {
            op->end = BNS_CHECK_FAILED;
            op->ret = BNS_CHECK_OPEN;
        }
        if (op->transfer && op->end == BNS_CHECK_OK && bns_prng_chance(p, 0.1)) {
            op->end = BNS_CHECK_INFO;
            op->ret = BNS_CHECK_OPEN;
        }
        if (op->transfer &&
            (op->end == BNS_CHECK_OK || (op->end == BNS_CHECK_INFO && bns_prng_chance(p, 0.5)))) {
            now[op->from].balance -= op->amount;
            now[op->to].balance += op->amount;
            rev++;
        }
        op->from = now[op->from].id;
        op->to = now[op->to].id;
        memcpy(b->shown[i], now, sizeof now);
        op->accounts = op->transfer ? NULL : b->shown[i];
        op->accounts_count = op->transfer ? 0 : ACCOUNTS;
        op->rev = op->transfer ? 0 : rev;
    }
}

static size_t pick(struct bns_prng *p, const struct bank_run *b, bool transfer)
{
    size_t i;

    do
        i = OPS / 2 + (size_t)bns_prng_below(p, OPS / 2);
    while (b->ops[i].transfer != transfer);
    return i;
}

static void a_right_bank_passes_and_damage_is_found(void **state)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    struct bank_run *b = malloc(sizeof *b);
    unsigned impossible = 0;
    struct bns_verdict v;

    (void)state;
    assert_non_null(b);
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct bns_prng p;
        size_t i;

        bns_prng_seed(&p, seed);
        run_bank(&p, b);
        if (bns_check_bank(&cfg, b->ops, OPS, &v) != BNS_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, v.text);
        i = pick(&p, b, false);
        b->shown[i][0].balance += 1;
        assert_int_equal(bns_check_bank(&cfg, b->ops, OPS, &v), BNS_E_CONFLICT);
        assert_string_equal(v.anomaly, "wrong-total");
        assert_int_equal(v.ops[0], b->ops[i].call);
        b->shown[i][1].balance -= 1; /* the total is right again, the state is not */
        b->ops[i].rev = 0;
        impossible += bns_check_bank(&cfg, b->ops, OPS, &v) == BNS_E_CONFLICT;
        b->shown[i][0].balance -= 1000;
        b->shown[i][1].balance += 1000;
        cfg.negative_ok = true;
        assert_int_equal(bns_check_bank(&cfg, b->ops, OPS, &v), BNS_E_CONFLICT);
        assert_string_equal(v.anomaly, "impossible-balance");
        cfg.negative_ok = false;
    }
    print_message("%u of 200 times one coin in the wrong account\n", impossible);
    b->ops[0].transfer = true;
    b->ops[0].amount = BNS_BANK_MONEY_MAX + 1;
    assert_int_equal(bns_check_bank(&cfg, b->ops, OPS, &v), BNS_E_INVALID);
    assert_int_equal(bns_check_bank(&cfg, b->ops, BNS_BANK_OPS_MAX + 1, &v), BNS_E_TOOBIG);
    free(b);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (sets[i].rv == BNS_OK)
            check_survives_oom("set", sets[i].script,
                               sets[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
    for (size_t i = 0; i < sizeof banks / sizeof banks[0]; i++) {
        if (banks[i].rv == BNS_OK)
            check_survives_oom("bank", banks[i].script,
                               banks[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_anomaly_of_a_set_is_named),
        cmocka_unit_test(each_anomaly_of_a_bank_is_named),
        cmocka_unit_test(a_right_set_passes_and_damage_is_found),
        cmocka_unit_test(a_right_bank_passes_and_damage_is_found),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
