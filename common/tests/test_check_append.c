/* test_check_append.c - list-append: each anomaly by the smallest history that has it; no false
 * alarm and no miss against a brute-force search of all serial orders; planted damage is found.
 */
#include "base/prng.h"
#include "check_kit.h"
#include "sim/check_append.h"

static const struct known_history known[] = {
    {"empty", NULL, BNS_OK, "", NULL},
    {"append, then read", NULL, BNS_OK,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[1]]]",
     NULL},
    {"own append is seen", NULL, BNS_OK,
     "0 i txn - [[\"append\",\"x\",1],[\"r\",\"x\",null]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"r\",\"x\",[1]]]",
     NULL},
    {"own append is not seen", "internal", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"r\",\"x\",null]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"r\",\"x\",[]]]",
     "line 1"},
    {"two reads of one transaction differ", "internal", 0,
     "1 i txn - [[\"append\",\"x\",1]]\n1 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null],[\"r\",\"x\",null]]\n"
     "0 o txn - [[\"r\",\"x\",[]],[\"r\",\"x\",[1]]]",
     NULL},
    {"an append seen before it is made", "internal", 0,
     "0 i txn - [[\"r\",\"x\",null],[\"append\",\"x\",1]]\n"
     "0 o txn - [[\"r\",\"x\",[1]],[\"append\",\"x\",1]]",
     "before it appended it"},
    {"an element twice", "duplicate-elements", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[1,1]]]",
     "1 twice in \"x\""},
    {"an element of nobody", "phantom", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[1,7]]]",
     "7 in \"x\""},
    {"an element of another key", "phantom", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"y\",null]]\n0 o txn - [[\"r\",\"y\",[1]]]",
     NULL},
    {"G1a: a failed append is read", "G1a", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 f txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[1]]]",
     "failed"},
    {"an unknown append may be read", NULL, BNS_OK,
     "0 i txn - [[\"append\",\"x\",1]]\n0 n txn - null\n"
     "1 i txn - [[\"r\",\"x\",null]]\n1 o txn - [[\"r\",\"x\",[]]]\n"
     "1 i txn - [[\"r\",\"x\",null]]\n1 o txn - [[\"r\",\"x\",[1]]]",
     NULL},
    {"an unknown append cannot go again", "G-single-realtime", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 n txn - null\n"
     "1 i txn - [[\"r\",\"x\",null]]\n1 o txn - [[\"r\",\"x\",[1]]]\n"
     "1 i txn - [[\"r\",\"x\",null]]\n1 o txn - [[\"r\",\"x\",[]]]",
     "had ended before"},
    {"G1b: the middle of a transaction", "G1b", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"append\",\"x\",2]]\n"
     "1 i txn - [[\"r\",\"x\",null]]\n1 o txn - [[\"r\",\"x\",[1]]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"append\",\"x\",2]]",
     "in the middle"},
    {"two orders", "incompatible-order", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n1 i txn - [[\"append\",\"x\",2]]\n"
     "0 o txn - [[\"append\",\"x\",1]]\n1 o txn - [[\"append\",\"x\",2]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n1 i txn - [[\"r\",\"x\",null]]\n"
     "0 o txn - [[\"r\",\"x\",[1,2]]]\n1 o txn - [[\"r\",\"x\",[2,1]]]",
     "element 1 is 2"},
    {"own appends in another order", "incompatible-order", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"append\",\"x\",2]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"append\",\"x\",2]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[2,1]]]",
     "other order"},
    {"lost append", "lost-append", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[]]]",
     "line 1 appended 1 to \"x\""},
    {"an append that may still come", NULL, BNS_OK,
     "0 i txn - [[\"append\",\"x\",1]]\n1 i txn - [[\"r\",\"x\",null]]\n"
     "1 o txn - [[\"r\",\"x\",[]]]\n0 o txn - [[\"append\",\"x\",1]]",
     NULL},
    {"G0: writes in a circle", "G0", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"append\",\"y\",1]]\n"
     "1 i txn - [[\"append\",\"x\",2],[\"append\",\"y\",2]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"append\",\"y\",1]]\n"
     "1 o txn - [[\"append\",\"x\",2],[\"append\",\"y\",2]]\n"
     "2 i txn - [[\"r\",\"x\",null]]\n2 o txn - [[\"r\",\"x\",[1,2]]]\n"
     "2 i txn - [[\"r\",\"y\",null]]\n2 o txn - [[\"r\",\"y\",[2,1]]]",
     "appended to \"x\" before"},
    {"G1c: each read the other", "G1c", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"r\",\"y\",null]]\n"
     "1 i txn - [[\"append\",\"y\",2],[\"r\",\"x\",null]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"r\",\"y\",[2]]]\n"
     "1 o txn - [[\"append\",\"y\",2],[\"r\",\"x\",[1]]]",
     "which line 2 appended"},
    {"G-single: a torn snapshot", "G-single", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"append\",\"y\",1]]\n"
     "1 i txn - [[\"r\",\"x\",null],[\"r\",\"y\",null]]\n"
     "1 o txn - [[\"r\",\"x\",[1]],[\"r\",\"y\",[]]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"append\",\"y\",1]]\n"
     "2 i txn - [[\"r\",\"y\",null]]\n2 o txn - [[\"r\",\"y\",[1]]]",
     "read \"y\" without 1"},
    {"G-single: a torn snapshot, never read", "G-single", 0,
     "0 i txn - [[\"append\",\"x\",1],[\"append\",\"y\",1]]\n"
     "1 i txn - [[\"r\",\"x\",null],[\"r\",\"y\",null]]\n"
     "1 o txn - [[\"r\",\"x\",[1]],[\"r\",\"y\",[]]]\n"
     "0 o txn - [[\"append\",\"x\",1],[\"append\",\"y\",1]]",
     NULL},
    {"G-single: lost update", "G-single", 0,
     "0 i txn - [[\"r\",\"x\",null],[\"append\",\"x\",1]]\n"
     "1 i txn - [[\"r\",\"x\",null],[\"append\",\"x\",2]]\n"
     "0 o txn - [[\"r\",\"x\",[]],[\"append\",\"x\",1]]\n"
     "1 o txn - [[\"r\",\"x\",[]],[\"append\",\"x\",2]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[1,2]]]",
     NULL},
    {"G2: write skew", "G2", 0,
     "0 i txn - [[\"r\",\"x\",null],[\"append\",\"y\",1]]\n"
     "1 i txn - [[\"r\",\"y\",null],[\"append\",\"x\",2]]\n"
     "0 o txn - [[\"r\",\"x\",[]],[\"append\",\"y\",1]]\n"
     "1 o txn - [[\"r\",\"y\",[]],[\"append\",\"x\",2]]\n"
     "0 i txn - [[\"r\",\"x\",null],[\"r\",\"y\",null]]\n"
     "0 o txn - [[\"r\",\"x\",[2]],[\"r\",\"y\",[1]]]",
     NULL},
    {"G0-realtime: against the clock", "G0-realtime", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "1 i txn - [[\"append\",\"x\",2]]\n1 o txn - [[\"append\",\"x\",2]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[2,1]]]",
     "line 1 had ended before line 3 began"},
    {"G1c-realtime: read before written", "G1c-realtime", 0,
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[1]]]\n"
     "1 i txn - [[\"append\",\"x\",1]]\n1 o txn - [[\"append\",\"x\",1]]",
     NULL},
    {"G-single-realtime: a stale read", "G-single-realtime", 0,
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "1 i txn - [[\"r\",\"x\",null]]\n0 i txn - [[\"r\",\"x\",null]]\n"
     "0 o txn - [[\"r\",\"x\",[1]]]\n1 o txn - [[\"r\",\"x\",[]]]",
     NULL},
    {"G2-realtime: skew around an end", "G2-realtime", 0,
     "1 i txn - [[\"r\",\"y\",null],[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"append\",\"y\",1]]\n0 o txn - [[\"append\",\"y\",1]]\n"
     "2 i txn - [[\"r\",\"x\",null]]\n2 o txn - [[\"r\",\"x\",[]]]\n"
     "1 o txn - [[\"r\",\"y\",[]],[\"append\",\"x\",1]]\n"
     "2 i txn - [[\"r\",\"x\",null],[\"r\",\"y\",null]]\n"
     "2 o txn - [[\"r\",\"x\",[1]],[\"r\",\"y\",[1]]]",
     NULL},
    {"real time may be left out", NULL, BNS_OK,
     "-1 n config - {\"realtime\":false}\n"
     "0 i txn - [[\"append\",\"x\",1]]\n0 o txn - [[\"append\",\"x\",1]]\n"
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",[]]]",
     NULL},
    {"a fault is no operation", NULL, BNS_OK, "-1 n kill - \"n1\"\n-1 n start - \"n1\"", NULL},
    {"one element appended twice", NULL, BNS_E_INVALID,
     "0 i txn - [[\"append\",\"x\",1]]\n1 i txn - [[\"append\",\"x\",1]]", "lines 1 and 2"},
    {"another operation", NULL, BNS_E_INVALID, "0 i txn - [[\"w\",\"x\",1]]", "line 1"},
    {"no transaction", NULL, BNS_E_INVALID, "0 i put - 1", "no transaction"},
    {"another answer", NULL, BNS_E_INVALID,
     "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"y\",[]]]", "other operations"},
    {"shorter answer", NULL, BNS_E_INVALID, "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - []",
     "other operations"},
    {"no list", NULL, BNS_E_INVALID, "0 i txn - [[\"r\",\"x\",null]]\n0 o txn - [[\"r\",\"x\",3]]",
     "a list"},
    {"answer without question", NULL, BNS_E_INVALID, "0 o txn - []", "line 1"},
};

static void each_anomaly_is_named(void **state)
{
    (void)state;
    known_verdicts("append", known, sizeof known / sizeof known[0]);
}

/* ---- random histories ------------------------------------------------------------------------ */

enum { TXNS = 6, OPS = 3, KEYS = 2, ELEMS = TXNS * OPS };

struct random_history {
    struct bns_append_txn txns[TXNS];
    struct bns_append_op ops[TXNS][OPS];
    uint64_t lists[TXNS][OPS][ELEMS];
    size_t count;
};

struct store { /* what a serial execution sees */
    uint64_t list[KEYS][ELEMS];
    size_t len[KEYS];
};

static void shuffle(struct bns_prng *p, uint64_t *a, size_t n)
{
    for (size_t i = n; i-- > 1;) {
        size_t j = (size_t)bns_prng_below(p, i + 1);
        uint64_t x = a[i];
        a[i] = a[j];
        a[j] = x;
    }
}

/* Transactions of random operations, called and answered at random positions. The last one reads
 * every key, after all others. */
static void make(struct bns_prng *p, struct random_history *h)
{
    uint64_t at[2 * TXNS];
    uint64_t value = 0;

    memset(h, 0, sizeof *h);
    h->count = 3 + (size_t)bns_prng_below(p, TXNS - 2);
    for (size_t i = 0; i < 2 * h->count; i++)
        at[i] = i;
    shuffle(p, at, 2 * (h->count - 1));
    for (size_t t = 0; t < h->count; t++) {
        struct bns_append_txn *txn = &h->txns[t];
        uint64_t a = at[2 * t], b = at[2 * t + 1];
        bool last = t == h->count - 1;

        *txn = (struct bns_append_txn){.call = a < b ? a : b,
                                       .ret = a < b ? b : a,
                                       .process = (int64_t)t,
                                       .ops = h->ops[t],
                                       .ops_count = last ? KEYS : 1 + bns_prng_below(p, OPS)};
        if (!last && bns_prng_chance(p, 0.2)) {
            txn->end = bns_prng_chance(p, 0.5) ? BNS_CHECK_FAILED : BNS_CHECK_INFO;
            txn->ret = BNS_CHECK_OPEN;
        }
        for (size_t i = 0; i < txn->ops_count; i++) {
            bool append = !last && bns_prng_chance(p, 0.5);
            h->ops[t][i] = (struct bns_append_op){.append = append,
                                                  .key = last ? i : bns_prng_below(p, KEYS),
                                                  .value = append ? ++value : 0,
                                                  .list = h->lists[t][i]};
        }
    }
}

/* Executes one transaction: writes what it reads, or compares. */
static bool execute(struct random_history *h, size_t t, struct store *s, bool write)
{
    struct bns_append_txn *txn = &h->txns[t];

    for (size_t i = 0; i < txn->ops_count; i++) {
        struct bns_append_op *op = &h->ops[t][i];
        size_t len = s->len[op->key];

        if (op->append) {
            s->list[op->key][s->len[op->key]++] = op->value;
            continue;
        }
        if (write) {
            op->list_count = len;
            memcpy(h->lists[t][i], s->list[op->key], len * sizeof(uint64_t));
        } else if (txn->end == BNS_CHECK_OK &&
                   (op->list_count != len ||
                    memcmp(op->list, s->list[op->key], len * sizeof(uint64_t)) != 0)) {
            return false;
        }
    }
    return true;
}

/* Is there a serial order of the rest that respects real time and shows what was read? */
static bool brute(struct random_history *h, const struct store *s, unsigned done)
{
    bool rest = false;

    for (size_t t = 0; t < h->count; t++)
        rest |= (done >> t & 1) == 0 && h->txns[t].end == BNS_CHECK_OK;
    if (!rest)
        return true;
    for (size_t t = 0; t < h->count; t++) {
        struct store after = *s;
        bool may = (done >> t & 1) == 0 && h->txns[t].end != BNS_CHECK_FAILED;
        for (size_t u = 0; u < h->count && may; u++)
            may = (done >> u & 1) != 0 || h->txns[u].end != BNS_CHECK_OK || u == t ||
                  h->txns[u].ret > h->txns[t].call;
        if (may && execute(h, t, &after, false) && brute(h, &after, done | 1u << t))
            return true;
    }
    return false;
}

/* Runs the transactions in a random order that real time allows (or not, when wild), then spoils a
 * read here and there. */
static void run(struct bns_prng *p, struct random_history *h)
{
    uint64_t order[TXNS];
    struct store s = {0};
    bool wild = bns_prng_chance(p, 0.3);

    for (size_t t = 0; t < h->count; t++)
        order[t] = wild ? t : h->txns[t].call; /* in the order of their calls is always right */
    if (wild)
        shuffle(p, order, h->count - 1);
    for (size_t step = 0; step < h->count; step++) {
        size_t next = 0;
        for (size_t t = 1; t < h->count; t++)
            next = order[t] < order[next] ? t : next;
        order[next] = UINT64_MAX;
        if (h->txns[next].end == BNS_CHECK_OK ||
            (h->txns[next].end == BNS_CHECK_INFO && bns_prng_chance(p, 0.5)))
            (void)execute(h, next, &s, true); /* writing never fails */
    }
    for (size_t t = 0; t + 1 < h->count; t++) {
        struct bns_append_op *op = &h->ops[t][0];
        if (!op->append && op->list_count > 0 && bns_prng_chance(p, 0.15))
            op->list_count--;
    }
}

static void agrees_with_brute_force(void **state)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    unsigned good = 0, bad = 0, missed = 0;
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 11);
    for (int i = 0; i < 40000; i++) {
        struct random_history h;
        struct store s = {0};
        struct bns_verdict v;
        bool all_known = true, want;
        int rv;

        make(&p, &h);
        run(&p, &h);
        want = brute(&h, &s, 0);
        rv = bns_check_append(&cfg, h.txns, h.count, &v);
        for (size_t t = 0; t < h.count; t++)
            all_known &= h.txns[t].end != BNS_CHECK_INFO;
        if (want && rv != BNS_OK)
            fail_msg("history %d: false alarm %s: %s", i, v.anomaly, v.text);
        if (!want && rv != BNS_E_CONFLICT && all_known)
            fail_msg("history %d: no serial order, and not noticed", i);
        good += want;
        bad += !want;
        missed += !want && rv == BNS_OK;
    }
    print_message("%u good, %u bad, of which %u with unknown outcomes were not noticed\n", good,
                  bad, missed);
    assert_true(good > 5000);
    assert_true(bad > 5000);
    assert_true(missed * 100 < bad);
}

/* ---- size ------------------------------------------------------------------------------------ */

enum { BIG = 20000, BIG_KEYS = 50, WIDTH = 8 };

struct big {
    struct bns_append_txn txns[BIG];
    struct bns_append_op ops[BIG][2];
    uint64_t lists[BIG_KEYS][BIG];
    size_t len[BIG_KEYS];
};

/* One append and one read each, WIDTH at a time, effective in order. */
static struct big *make_big(void)
{
    struct big *b = calloc(1, sizeof *b);
    struct bns_prng p;

    assert_non_null(b);
    bns_prng_seed(&p, 5);
    for (size_t i = 0; i < BIG; i++) {
        size_t key = (size_t)bns_prng_below(&p, BIG_KEYS);
        size_t other = (size_t)bns_prng_below(&p, BIG_KEYS);
        struct bns_append_op *op = b->ops[i];

        op[0] = (struct bns_append_op){
            .key = other, .list = b->lists[other], .list_count = b->len[other]};
        op[1] = (struct bns_append_op){.append = true, .key = key, .value = i};
        b->lists[key][b->len[key]++] = i;
        b->txns[i] = (struct bns_append_txn){
            .call = 100 * i + 1000 - bns_prng_below(&p, WIDTH) * 100 - i % 50,
            .ret = 100 * i + 1051 + bns_prng_below(&p, WIDTH) * 100 + i % 49,
            .process = (int64_t)(i % WIDTH),
            .ops = op,
            .ops_count = 2};
    }
    return b;
}

static void big_histories_pass_and_planted_damage_is_found(void **state)
{
    struct bns_check_cfg cfg = {.alloc = bns_alloc_libc()};
    struct big *b = make_big();
    struct bns_append_op *op;
    struct bns_verdict v;
    struct bns_prng p;

    (void)state;
    assert_int_equal(bns_check_append(&cfg, b->txns, BIG, &v), BNS_OK);
    assert_int_equal(v.checked, BIG);
    bns_prng_seed(&p, 9);
    for (int round = 0; round < 30; round++) {
        size_t i = BIG / 2 + (size_t)bns_prng_below(&p, BIG / 2);
        size_t writer, less = 0;

        op = &b->ops[i][0];
        do /* so much less that what it misses was acknowledged before it began */
            writer = (size_t)op->list[op->list_count - ++less];
        while (b->txns[writer].ret > b->txns[i].call);
        op->list_count -= less;
        assert_int_equal(bns_check_append(&cfg, b->txns, BIG, &v), BNS_E_CONFLICT);
        if (round < 3)
            print_message("%s: %s\n", v.anomaly, v.text);
        op->list_count += less;
        b->txns[writer].end = BNS_CHECK_FAILED; /* read, so it cannot have failed */
        assert_int_equal(bns_check_append(&cfg, b->txns, BIG, &v), BNS_E_CONFLICT);
        assert_string_equal(v.anomaly, "G1a");
        b->txns[writer].end = BNS_CHECK_OK;
    }
    assert_int_equal(bns_check_append(&cfg, b->txns, BIG, &v), BNS_OK);
    assert_int_equal(bns_check_append(&cfg, b->txns, BNS_APPEND_TXNS_MAX + 1, &v), BNS_E_TOOBIG);
    b->txns[7].ops_count = BNS_APPEND_OPS_MAX + 1;
    assert_int_equal(bns_check_append(&cfg, b->txns, BIG, &v), BNS_E_TOOBIG);
    b->txns[7].ops_count = 2;
    b->txns[7].ret = b->txns[7].call;
    assert_int_equal(bns_check_append(&cfg, b->txns, BIG, &v), BNS_E_INVALID);
    free(b);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].rv == BNS_OK)
            check_survives_oom("append", known[i].script,
                               known[i].anomaly == NULL ? BNS_OK : BNS_E_CONFLICT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_anomaly_is_named),
        cmocka_unit_test(agrees_with_brute_force),
        cmocka_unit_test(big_histories_pass_and_planted_damage_is_found),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
