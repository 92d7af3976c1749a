/* Goal:   the invariants of fanout.h hold after every step: nobody is asked twice, never more than
 *         `width` are open and never fewer than could be, each question that is given up is
 *         cancelled once, the end comes once, when it has to, and last.
 * Method: a monitor knows only what came out and what was put in, and says what must be true. It
 *         watches every sequence of up to five inputs for up to three branches (all of them, not a
 *         sample), and long random lives with many branches.
 * Repeat: the seed of a random life is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/prng.h"
#include "proto/fanout.h"

#include <string.h>

#define MANY 40u
#define MS UINT64_C(1000000)

struct monitor {
    struct bns_fanout_config cfg;
    struct bns_fanout *f;
    uint64_t began, now;
    enum { IDLE, OPEN, GOOD, BAD, GONE } is[MANY];
    uint64_t late_at[MANY];
    uint32_t open, asked, good;
    bool done, enough;
};

static uint64_t end_of(const struct monitor *m)
{
    return m->cfg.total_ns == 0 ? UINT64_MAX : m->began + m->cfg.total_ns;
}

static void drain(struct monitor *m)
{
    uint32_t width = m->cfg.width == 0 ? m->cfg.branches : m->cfg.width;
    struct bns_fanout_out o;

    while (bns_fanout_next(m->f, &o)) {
        assert_false(m->done); /* nothing behind DONE */
        switch (o.kind) {
        case BNS_FANOUT_SEND:
            assert_int_equal(m->is[o.branch], IDLE);
            assert_true(m->open < width);
            m->is[o.branch] = OPEN;
            m->late_at[o.branch] = m->cfg.branch_ns == 0 ? UINT64_MAX : m->now + m->cfg.branch_ns;
            m->open++;
            m->asked++;
            break;
        case BNS_FANOUT_CANCEL:
            assert_int_equal(m->is[o.branch], OPEN);
            m->is[o.branch] = GONE;
            m->open--;
            break;
        case BNS_FANOUT_DONE:
            assert_int_equal(m->open, 0);
            assert_int_equal(o.good, m->good);
            m->done = true;
            m->enough = o.enough;
        }
    }
}

static bool has_to_end(const struct monitor *m)
{
    uint32_t possible = m->good + m->open + (m->cfg.branches - m->asked);

    if (m->now >= end_of(m) || (m->open == 0 && m->asked == m->cfg.branches))
        return true;
    return m->cfg.need != 0 && (m->good >= m->cfg.need || possible < m->cfg.need);
}

static void check(struct monitor *m)
{
    uint32_t width = m->cfg.width == 0 ? m->cfg.branches : m->cfg.width;
    uint32_t wanted = m->cfg.need == 0 ? m->cfg.branches : m->cfg.need;
    uint64_t first = end_of(m);

    assert_int_equal(m->done, has_to_end(m));
    if (m->done) {
        assert_int_equal(m->enough, m->good >= wanted);
        assert_true(bns_fanout_deadline(m->f) == UINT64_MAX);
        return;
    }
    assert_true(m->open == width || m->asked == m->cfg.branches); /* no slot is left unused */
    for (uint32_t i = 0; i < m->cfg.branches; i++) {
        if (m->is[i] != OPEN)
            continue;
        assert_true(m->late_at[i] > m->now);
        first = m->late_at[i] < first ? m->late_at[i] : first;
    }
    assert_true(bns_fanout_deadline(m->f) == first);
}

static void begin(struct monitor *m, const struct bns_fanout_config *cfg)
{
    *m = (struct monitor){.cfg = *cfg, .began = 5 * MS, .now = 5 * MS};
    assert_int_equal(bns_fanout_init(&m->f, m->now, cfg, bns_alloc_libc()), BNS_OK);
    drain(m);
    check(m);
}

static void put(struct monitor *m, uint64_t at, enum bns_fanout_in_kind kind, uint32_t branch)
{
    const struct bns_fanout_in in = {.kind = kind, .branch = branch};
    bool counts = kind != BNS_FANOUT_IN_TIMER && m->is[branch] == OPEN && m->late_at[branch] > at &&
                  at < end_of(m) && !m->done;

    m->now = at;
    if (counts) {
        m->is[branch] = kind == BNS_FANOUT_IN_GOOD ? GOOD : BAD;
        m->good += kind == BNS_FANOUT_IN_GOOD;
        m->open--;
    }
    assert_int_equal(bns_fanout_step(m->f, at, &in), BNS_OK);
    drain(m);
    check(m);
}

/* Letter c of an alphabet: good or bad of each branch, a moment passes, the deadline comes. */
static void put_letter(struct monitor *m, uint32_t c)
{
    uint64_t at = bns_fanout_deadline(m->f);

    if (c < 2 * m->cfg.branches)
        put(m, m->now, c % 2 == 0 ? BNS_FANOUT_IN_GOOD : BNS_FANOUT_IN_BAD, c / 2);
    else if (c == 2 * m->cfg.branches)
        put(m, m->now + MS, BNS_FANOUT_IN_TIMER, 0);
    else
        put(m, at == UINT64_MAX ? m->now : at, BNS_FANOUT_IN_TIMER, 0);
}

static uint64_t all_lives(const struct bns_fanout_config *cfg, uint32_t length)
{
    uint32_t letters = 2 * cfg->branches + 2;
    uint64_t words = 1;

    for (uint32_t i = 0; i < length; i++)
        words *= letters;
    for (uint64_t w = 0; w < words; w++) {
        struct monitor m;
        uint64_t rest = w;

        begin(&m, cfg);
        for (uint32_t i = 0; i < length; i++, rest /= letters)
            put_letter(&m, (uint32_t)(rest % letters));
        bns_fanout_free(m.f);
    }
    return words;
}

static void every_short_life_keeps_the_invariants(void **state)
{
    uint64_t lives = 0;
    (void)state;

    for (uint32_t n = 0; n <= 3; n++)
        for (uint32_t need = 0; need <= n; need++)
            for (uint32_t width = 0; width <= n; width++)
                for (uint32_t times = 0; times < 4; times++) {
                    const struct bns_fanout_config cfg = {
                        .branches = n,
                        .need = need,
                        .width = width,
                        .branch_ns = times & 1 ? 2 * MS : 0,
                        .total_ns = times & 2 ? 3 * MS : 0,
                    };

                    lives += all_lives(&cfg, n == 3 ? 4 : 5);
                }
    print_message("%llu lives\n", (unsigned long long)lives);
}

static void one_random_life(uint64_t seed)
{
    struct bns_prng p;
    struct bns_fanout_config cfg;
    struct monitor m;

    bns_prng_seed(&p, seed);
    cfg.branches = (uint32_t)bns_prng_below(&p, MANY + 1);
    cfg.need = (uint32_t)bns_prng_below(&p, cfg.branches + 1);
    cfg.width = (uint32_t)bns_prng_below(&p, cfg.branches + 1);
    cfg.branch_ns = bns_prng_below(&p, 3) * MS;
    cfg.total_ns = bns_prng_below(&p, 3) * 20 * MS;
    begin(&m, &cfg);
    for (int i = 0; i < 300 && cfg.branches > 0; i++) {
        uint64_t at = m.now + bns_prng_below(&p, MS / 2);
        uint32_t branch = (uint32_t)bns_prng_below(&p, cfg.branches);
        uint64_t what = bns_prng_below(&p, 10);

        if (bns_fanout_deadline(m.f) < at)
            at = bns_fanout_deadline(m.f) > m.now ? bns_fanout_deadline(m.f) : m.now;
        put(&m, at,
            what < 6   ? BNS_FANOUT_IN_GOOD
            : what < 8 ? BNS_FANOUT_IN_BAD
                       : BNS_FANOUT_IN_TIMER,
            branch);
    }
    for (uint32_t i = 0; i < cfg.branches; i++) {
        enum bns_fanout_branch b = bns_fanout_branch(m.f, i);

        assert_int_equal(b == BNS_FANOUT_GOOD, m.is[i] == GOOD);
        assert_int_equal(b == BNS_FANOUT_BAD, m.is[i] == BAD);
        assert_int_equal(b == BNS_FANOUT_OPEN, m.is[i] == OPEN);
        assert_int_equal(b == BNS_FANOUT_UNASKED, m.is[i] == IDLE);
    }
    bns_fanout_free(m.f);
}

static void random_lives_keep_the_invariants(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++)
        one_random_life(seed);
}

static void answers_of_nobody_are_refused(void **state)
{
    const struct bns_fanout_config cfg = {.branches = 2};
    const struct bns_fanout_in in = {.kind = BNS_FANOUT_IN_GOOD, .branch = 2};
    struct monitor m;
    (void)state;

    begin(&m, &cfg);
    assert_int_equal(bns_fanout_step(m.f, m.now, &in), BNS_E_INVALID);
    check(&m);
    bns_fanout_free(m.f);
}

static void bounds_are_kept(void **state)
{
    struct bns_fanout_config cfg = {.branches = BNS_FANOUT_BRANCHES_MAX + 1};
    struct bns_fanout *f = NULL;
    (void)state;

    assert_int_equal(bns_fanout_init(&f, 0, &cfg, bns_alloc_libc()), BNS_E_INVALID);
    cfg = (struct bns_fanout_config){.branches = 2, .need = 3};
    assert_int_equal(bns_fanout_init(&f, 0, &cfg, bns_alloc_libc()), BNS_E_INVALID);
    cfg = (struct bns_fanout_config){.branches = BNS_FANOUT_BRANCHES_MAX};
    assert_int_equal(bns_fanout_init(&f, 0, &cfg, bns_alloc_libc()), BNS_OK);
    bns_fanout_free(f);
    bns_fanout_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_short_life_keeps_the_invariants),
        cmocka_unit_test(random_lives_keep_the_invariants),
        cmocka_unit_test(answers_of_nobody_are_refused),
        cmocka_unit_test(bounds_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
