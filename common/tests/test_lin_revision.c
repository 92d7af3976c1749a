/* test_lin_revision.c - what revisions decide without a search is what a search of everything says.
 *
 * Method: planted histories, one for each way to be wrong; then small executions of a right store,
 * with unknown outcomes and facts, half of them damaged in one place: a brute-force search over all
 * orders and all revisions must agree with each decision, and nearly all must be decided. Last, a
 * key with thousands of unknown outcomes, which no search gets through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "sim/heap.h"
#include "sim/lin.h"

#define OPEN BNS_LIN_OPEN
#define GET BNS_LIN_GET
#define PUT BNS_LIN_PUT
#define CAS BNS_LIN_CAS
#define DEL BNS_LIN_DELETE

enum { PLANTED_OPS = 5, PLANTED_FACTS = 2 };

static const struct {
    const char *name;
    int rv;
    size_t left; /* operations that are not decided */
    struct bns_lin_op ops[PLANTED_OPS];
    struct bns_lin_fact facts[PLANTED_FACTS];
} planted[] = {
    {"nothing", BNS_OK, 0, {{0}}, {{0}}},
    {"a write and a read of it",
     BNS_OK,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2}},
     {{0}}},
    {"a stale read",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = GET, .at = 1}},
     {{0}}},
    {"a read of a store that is new, of a row that is old",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = PUT, .value = 8, .rev = 3},
      {.call = 5, .ret = 6, .f = GET, .value = 7, .rev = 2, .at = 3}},
     {{0}}},
    {"a write is lost",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = GET, .at = 2}},
     {{0}}},
    {"an unknown delete took it",
     BNS_OK,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = OPEN, .f = DEL},
      {.call = 4, .ret = 5, .f = GET, .at = 3}},
     {{0}}},
    {"an unknown delete, and no revision for it",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = OPEN, .f = DEL},
      {.call = 4, .ret = 5, .f = GET, .at = 2}},
     {{0}}},
    {"an unknown delete that was called too late",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 4, .ret = 5, .f = GET, .at = 3},
      {.call = 6, .ret = OPEN, .f = DEL}},
     {{0}}},
    {"one unknown delete, and two are asked for",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = OPEN, .f = DEL},
      {.call = 4, .ret = 5, .f = GET, .at = 4},
      {.call = 6, .ret = 7, .f = PUT, .value = 8, .rev = 5},
      {.call = 8, .ret = 9, .f = GET, .at = 8}},
     {{0}}},
    {"an unknown write that was seen",
     BNS_OK,
     0,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2}},
     {{0}}},
    {"an unknown write, seen at two revisions",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2},
      {.call = 5, .ret = 6, .f = GET, .value = 7, .rev = 3, .at = 3}},
     {{0}}},
    {"an unknown write, seen and gone again",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2},
      {.call = 5, .ret = 6, .f = GET, .at = 3}},
     {{0}}},
    {"an unknown write, seen before it was called",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = GET, .value = 7, .rev = 2, .at = 2},
      {.call = 3, .ret = OPEN, .f = PUT, .value = 7}},
     {{0}}},
    {"an unknown write, seen at a revision that others had passed",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .key = 1, .f = PUT, .value = 6, .rev = 5},
      {.call = 3, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 4, .ret = 9, .f = GET, .value = 7, .rev = 4, .at = 5}},
     {{0}}},
    {"what nobody wrote",
     BNS_E_CONFLICT,
     0,
     {{.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2}},
     {{0}}},
    {"two values at one revision",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 2, .ret = OPEN, .f = PUT, .value = 8},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2},
      {.call = 5, .ret = 6, .f = GET, .value = 8, .rev = 2, .at = 2}},
     {{0}}},
    {"two writers were told one revision",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 3, .f = PUT, .value = 7, .rev = 2},
      {.call = 2, .ret = 4, .f = PUT, .value = 7, .rev = 2}},
     {{0}}},
    {"a comparison of revisions that matched an old one",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = PUT, .value = 8, .rev = 3},
      {.call = 5, .ret = 6, .f = CAS, .value = 9, .by_rev = true, .expect = 2, .rev = 4}},
     {{0}}},
    {"a comparison that failed, and shows that it matched",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3,
       .ret = 4,
       .f = CAS,
       .value = 9,
       .expect = 7,
       .failed = true,
       .at = 2,
       .was_known = true,
       .was_value = 7,
       .was_rev = 2}},
     {{0}}},
    {"an unknown comparison, met only by what came later",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = OPEN, .f = CAS, .value = 9, .expect = 7},
      {.call = 2, .ret = 3, .f = PUT, .value = 8, .rev = 2},
      {.call = 4, .ret = 5, .f = GET, .value = 9, .rev = 3, .at = 4},
      {.call = 6, .ret = 7, .f = PUT, .value = 7, .rev = 5}},
     {{0}}},
    {"an answer shows what was there before, and it was not",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = PUT, .value = 8, .rev = 3},
      {.call = 5, .ret = 6, .f = DEL, .rev = 4, .was_known = true, .was_value = 7, .was_rev = 2}},
     {{0}}},
    {"a read shows the future",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 4, .f = PUT, .value = 7, .rev = 3},
      {.call = 2, .ret = 3, .f = GET, .value = 7, .rev = 3, .at = 2}},
     {{0}}},
    {"keys apart, revisions go back",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .key = 1, .f = GET, .at = 9},
      {.call = 3, .ret = 4, .key = 2, .f = GET, .at = 8}},
     {{0}}},
    {"a fact that a later read does not know",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7}, {.call = 5, .ret = 6, .f = GET, .at = 2}},
     {{.rev = 3, .value = 7, .before = 4}}},
    {"a fact that a concurrent read does not know",
     BNS_OK,
     0,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7}, {.call = 3, .ret = 6, .f = GET, .at = 2}},
     {{.rev = 3, .value = 7, .before = 4}}},
    {"a fact between a value and its reader",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = OPEN, .f = PUT, .value = 8},
      {.call = 5, .ret = 6, .f = GET, .value = 7, .rev = 2, .at = 4}},
     {{.rev = 3, .value = 8, .before = OPEN}}},
    {"a deletion that was seen, and nobody deleted",
     BNS_E_CONFLICT,
     0,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2}},
     {{.rev = 3, .value = BNS_LIN_NIL, .before = OPEN}}},
    {"a read that does not tell where it stands is not decided",
     BNS_OK,
     2,
     {{.call = 1, .ret = 2, .f = PUT, .value = 7, .rev = 2},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2}},
     {{0}}},
    {"two open writers of one value are not decided",
     BNS_OK,
     3,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 2, .ret = OPEN, .f = PUT, .value = 7},
      {.call = 3, .ret = 4, .f = GET, .value = 7, .rev = 2, .at = 2}},
     {{0}}},
    {"a delete that found what nobody saw is not decided",
     BNS_OK,
     2,
     {{.call = 1, .ret = OPEN, .f = PUT, .value = 7}, {.call = 3, .ret = 4, .f = DEL, .rev = 3}},
     {{0}}},
};

static void each_planted_history_gets_its_verdict(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof planted / sizeof planted[0]; i++) {
        struct bns_lin_op ops[PLANTED_OPS];
        struct bns_lin_result res = {0};
        size_t n = 0, facts = 0, left = 99;
        int rv;

        while (n < PLANTED_OPS && planted[i].ops[n].ret != 0)
            n++;
        while (facts < PLANTED_FACTS && planted[i].facts[facts].rev != 0)
            facts++;
        memcpy(ops, planted[i].ops, sizeof ops);
        rv = bns_lin_by_revision(bns_alloc_libc(), ops, n,
                                 &(struct bns_lin_facts){planted[i].facts, facts}, &left, &res);
        print_message("  %s: %s\n", planted[i].name, rv == BNS_OK ? "ok" : res.why);
        assert_int_equal(rv, planted[i].rv);
        if (rv == BNS_OK)
            assert_int_equal(left, planted[i].left);
    }
}

/* ---- brute force ----------------------------------------------------------------------------- */

enum { OPS = 6, FACTS = 3, REVS = 16, BUSY = 9 };

struct small { /* one key */
    struct bns_lin_op ops[OPS];
    struct bns_lin_fact facts[FACTS];
    size_t count, facts_count;
};

struct brute {
    const struct small *s;
    unsigned done;
    uint64_t became[REVS + 1]; /* by revision: value + 1; 0: no change */
};

struct state {
    uint64_t value, mod, top; /* top: the store's revision is at least that */
};

static bool search(struct brute *b, struct state st);

static bool late_for_facts(const struct small *s, const struct bns_lin_op *op, uint64_t pos)
{
    for (size_t i = 0; i < s->facts_count; i++) {
        if (s->facts[i].before < op->call && pos < 2 * s->facts[i].rev)
            return true;
    }
    return false;
}

static bool try_change(struct brute *b, const struct bns_lin_op *op, uint64_t value,
                       struct state st)
{
    for (uint64_t r = st.top + 1; r <= REVS; r++) {
        if ((op->ret != OPEN && op->rev != r) || late_for_facts(b->s, op, 2 * r))
            continue;
        b->became[r] = value + 1;
        if (search(b, (struct state){value, r, r}))
            return true;
        b->became[r] = 0;
    }
    return false;
}

/* It changes nothing, and says so at `at`. */
static bool try_look(struct brute *b, const struct bns_lin_op *op, struct state st)
{
    if (op->ret != OPEN && (op->at < st.top || late_for_facts(b->s, op, 2 * op->at + 1)))
        return false;
    if (op->ret != OPEN)
        st.top = op->at;
    return search(b, st);
}

static bool try_op(struct brute *b, const struct bns_lin_op *op, struct state st)
{
    bool open = op->ret == OPEN, there = st.value != BNS_LIN_NIL;
    uint64_t mod = there ? st.mod : 0;
    bool match = op->by_rev ? mod == op->expect : st.value == op->expect;

    if (!open && op->was_known && (st.value != op->was_value || mod != op->was_rev))
        return false;
    switch (op->f) {
    case GET:
        return (open || (st.value == op->value && mod == op->rev)) && try_look(b, op, st);
    case PUT:
        return try_change(b, op, op->value, st);
    case CAS:
        if (!open && match == op->failed)
            return false;
        return match ? try_change(b, op, op->value, st) : try_look(b, op, st);
    default:
        if (!open && there == op->failed)
            return false;
        return there ? try_change(b, op, 0, st) : try_look(b, op, st);
    }
}

static bool complete(const struct brute *b)
{
    for (size_t i = 0; i < b->s->count; i++) {
        if ((b->done >> i & 1) == 0 && b->s->ops[i].ret != OPEN)
            return false;
    }
    for (size_t i = 0; i < b->s->facts_count; i++) {
        if (b->became[b->s->facts[i].rev] != b->s->facts[i].value + 1)
            return false;
    }
    return true;
}

static bool search(struct brute *b, struct state st)
{
    if (complete(b))
        return true;
    for (size_t i = 0; i < b->s->count; i++) {
        bool first = (b->done >> i & 1) == 0;

        for (size_t j = 0; j < b->s->count; j++) /* nothing undone returned before its call */
            first &= (b->done >> j & 1) != 0 || b->s->ops[j].ret > b->s->ops[i].call;
        if (!first)
            continue;
        b->done |= 1u << i;
        if (try_op(b, &b->s->ops[i], st))
            return true;
        b->done &= ~(1u << i);
    }
    return false;
}

/* ---- executions of a right store ------------------------------------------------------------- */

struct store {
    struct state st;
    struct small *s;
    uint64_t became[REVS + 1], seen_at[REVS + 1];
};

/* The operation takes effect. */
static void effect(struct store *t, struct bns_lin_op *op)
{
    bool there = t->st.value != BNS_LIN_NIL;
    uint64_t mod = there ? t->st.mod : 0;
    bool match = op->by_rev ? mod == op->expect : t->st.value == op->expect;

    op->was_value = t->st.value;
    op->was_rev = mod;
    op->failed = (op->f == CAS && !match) || (op->f == DEL && !there);
    if (op->f == GET) {
        op->value = t->st.value;
        op->rev = mod;
    }
    op->at = t->st.top;
    if (op->f == GET || op->failed)
        return;
    t->st.top++;
    t->st.value = op->f == DEL ? BNS_LIN_NIL : op->value;
    t->st.mod = op->rev = t->st.top;
    t->became[op->rev] = t->st.value + 1;
}

static void choose(struct bns_prng *p, const struct store *t, struct bns_lin_op *op, uint64_t value)
{
    static const enum bns_lin_f fs[] = {GET, GET, PUT, PUT, CAS, DEL};

    op->key = 9;
    op->f = fs[bns_prng_below(p, 6)];
    op->value = op->f == PUT || op->f == CAS ? value : 0;
    if (op->f == CAS) {
        op->by_rev = bns_prng_chance(p, 0.5);
        op->expect = op->by_rev ? t->st.mod : t->st.value;
        if (bns_prng_chance(p, 0.3))
            op->expect = bns_prng_below(p, 4);
    }
    op->was_known = op->f != GET && bns_prng_chance(p, 0.6);
}

/* Clients one after another or at once; some are never answered. */
static void execute(struct bns_prng *p, struct small *s)
{
    struct store t = {.s = s};
    size_t begun = 0, ended = 0;
    unsigned under_way = 0, done = 0, lost = 0;
    uint64_t at = 1;

    memset(s, 0, sizeof *s);
    s->count = 2 + (size_t)bns_prng_below(p, OPS - 1);
    t.st.top = 1;
    while (ended < s->count) {
        size_t i = (size_t)bns_prng_below(p, s->count);
        struct bns_lin_op *op = &s->ops[i];

        if (bns_prng_chance(p, 0.1) && t.st.top < BUSY)
            t.st.top++; /* another key changed */
        if (i == begun) {
            choose(p, &t, op, begun + 1);
            op->call = at++;
            op->ret = OPEN;
            lost |= (unsigned)bns_prng_chance(p, 0.35) << i;
            under_way |= 1u << begun++;
        } else if (i > begun || (under_way >> i & 1) == 0) {
            continue;
        } else if ((done >> i & 1) == 0) {
            if ((lost >> i & 1) == 0 || bns_prng_chance(p, 0.5))
                effect(&t, op);
            done |= 1u << i;
        } else {
            if ((lost >> i & 1) == 0)
                op->ret = at++;
            under_way &= ~(1u << i);
            ended++;
        }
    }
    for (uint64_t r = 1; r <= REVS && s->facts_count < FACTS; r++) {
        if (t.became[r] != 0 && bns_prng_chance(p, 0.4))
            s->facts[s->facts_count++] =
                (struct bns_lin_fact){.key = 9, .rev = r, .value = t.became[r] - 1, .before = OPEN};
    }
    for (size_t i = 0; i < s->count; i++) { /* what nobody was told */
        struct bns_lin_op *op = &s->ops[i];
        if (op->ret == OPEN) {
            op->rev = op->at = 0;
            op->failed = op->was_known = false;
            op->value = op->f == GET ? 0 : op->value;
        }
    }
}

static void damage(struct bns_prng *p, struct small *s)
{
    struct bns_lin_op *op = &s->ops[bns_prng_below(p, s->count)];
    uint64_t step = bns_prng_chance(p, 0.5) ? 1 : UINT64_MAX;

    switch (bns_prng_below(p, 7)) {
    case 0:
        op->at += op->at > 1 && op->ret != OPEN ? step : 0;
        break;
    case 1:
        op->rev += op->rev > 1 && op->ret != OPEN ? step : 0;
        break;
    case 2:
        op->value = op->f == GET && op->value != 0 ? 1 + bns_prng_below(p, 4) : op->value;
        break;
    case 3:
        op->failed = op->f == CAS && op->ret != OPEN && op->at != 0 && op->rev != 0 ? !op->failed
                                                                                    : op->failed;
        break;
    case 4:
        op->was_rev += op->was_known && op->was_rev > 1 ? step : 0;
        break;
    case 5:
        if (s->facts_count > 0)
            s->facts[0].before = bns_prng_below(p, 8);
        break;
    default:
        if (s->facts_count == 1 && s->facts[0].rev > 1)
            s->facts[0].rev += step;
        break;
    }
}

static void print_small(const struct small *s)
{
    for (size_t j = 0; j < s->count; j++) {
        const struct bns_lin_op *op = &s->ops[j];
        print_message("call %lld ret %lld f %d value %lld expect %lld rev %lld by_rev %d failed %d "
                      "at %lld was %d %lld %lld\n",
                      (long long)op->call, (long long)op->ret, op->f, (long long)op->value,
                      (long long)op->expect, (long long)op->rev, op->by_rev, op->failed,
                      (long long)op->at, op->was_known, (long long)op->was_value,
                      (long long)op->was_rev);
    }
    for (size_t j = 0; j < s->facts_count; j++)
        print_message("fact rev %lld value %lld before %lld\n", (long long)s->facts[j].rev,
                      (long long)s->facts[j].value, (long long)s->facts[j].before);
}

static void decisions_agree_with_brute_force(void **state)
{
    unsigned good = 0, bad = 0, undecided = 0;
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 77);
    for (int i = 0; i < 40000; i++) {
        struct small s, kept;
        struct bns_lin_result res = {0};
        size_t left = 0;
        struct brute b = {.s = &kept};
        bool want;
        int rv;

        execute(&p, &s);
        if (i % 2 == 1)
            damage(&p, &s);
        kept = s;
        want = search(&b, (struct state){0, 0, 0});
        if (!want && i % 2 == 0) {
            print_small(&kept);
            fail_msg("execution %d is right, and the brute force does not think so", i);
        }
        rv = bns_lin_by_revision(bns_alloc_libc(), s.ops, s.count,
                                 &(struct bns_lin_facts){s.facts, s.facts_count}, &left, &res);
        undecided += rv == BNS_OK && left > 0;
        good += rv == BNS_OK && left == 0;
        bad += rv == BNS_E_CONFLICT;
        if (!(rv == BNS_OK && left > 0) && rv != (want ? BNS_OK : BNS_E_CONFLICT)) {
            print_small(&kept);
            fail_msg("history %d: %d (%s), brute force says %d", i, rv, res.why ? res.why : "",
                     want);
        }
    }
    print_message("%u good, %u bad, %u not decided\n", good, bad, undecided);
    assert_true(good > 20000);
    assert_true(bad > 2000);
    assert_true(undecided < 1000);
}

/* ---- size, memory ---------------------------------------------------------------------------- */

/* Half of the operations of one key have an unknown outcome. */
static size_t large(struct bns_lin_op *ops, size_t count, bool lie)
{
    struct bns_prng p;
    struct state st = {0, 0, 1};

    bns_prng_seed(&p, 5);
    for (size_t i = 0; i < count; i++) {
        struct bns_lin_op *op = &ops[i];
        enum bns_lin_f f = (enum bns_lin_f)bns_prng_below(&p, 4);
        bool open = (f == PUT || f == DEL) && bns_prng_chance(&p, 0.5),
             does = !open || bns_prng_chance(&p, 0.5);

        *op = (struct bns_lin_op){.call = 2 * i,
                                  .ret = open ? OPEN : 2 * i + 1,
                                  .f = f,
                                  .was_known = !open && f != GET,
                                  .was_value = st.value,
                                  .was_rev = st.value == 0 ? 0 : st.mod};
        if (f == PUT || f == CAS)
            op->value = i + 1;
        if (f == CAS)
            op->expect = st.value;
        op->failed = f == DEL && st.value == 0 && !open;
        if (f == GET) {
            op->value = st.value;
            op->rev = st.value == 0 ? 0 : st.mod;
        } else if (does && (f != DEL || st.value != 0)) {
            st = (struct state){op->value, st.top + 1, st.top + 1};
            op->rev = open ? 0 : st.top;
        }
        op->at = open ? 0 : st.top;
    }
    if (lie) {
        for (size_t i = count / 2; i < count; i++) {
            if (ops[i].f == GET && ops[i].value != 0) {
                ops[i].at--; /* one below the last change it shows, or below one told before */
                ops[i].rev--;
                break;
            }
        }
    }
    return count;
}

static void thousands_of_unknown_outcomes_are_decided(void **state)
{
    enum { COUNT = 20000 };
    struct bns_lin_op *ops = calloc(COUNT, sizeof *ops);
    struct bns_lin_result res;
    size_t left = 1, count;

    (void)state;
    assert_non_null(ops);
    count = large(ops, COUNT, false);
    assert_int_equal(bns_lin_by_revision(bns_alloc_libc(), ops, count, NULL, &left, &res), BNS_OK);
    assert_int_equal(left, 0);
    count = large(ops, COUNT, true);
    assert_int_equal(bns_lin_by_revision(bns_alloc_libc(), ops, count, NULL, &left, &res),
                     BNS_E_CONFLICT);
    print_message("%s, revision %llu\n", res.why, (unsigned long long)res.rev);
    free(ops);
}

static void every_failed_allocation_is_told(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *h = bns_test_heap(fail_at);
        struct bns_lin_op ops[20];
        size_t left;
        int rv = bns_lin_by_revision(bns_test_heap_alloc(h), ops, large(ops, 20, false), NULL,
                                     &left, NULL);

        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_planted_history_gets_its_verdict),
        cmocka_unit_test(decisions_agree_with_brute_force),
        cmocka_unit_test(thousands_of_unknown_outcomes_are_decided),
        cmocka_unit_test(every_failed_allocation_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
