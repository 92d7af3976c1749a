/* test_lin.c - the linearizability checker says yes and no where it must, and histories survive
 * being written and read.
 *
 * Method: known histories as JSON lines; then small random histories, where a brute-force search of
 * all orders (and, with revisions, of all revisions that untold changes may have had) must agree.
 * */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/prng.h"
#include "sim/heap.h"
#include "sim/history.h"

/* "p i put a 1" is process p, type i(nvoke) o(k) f(ail) n (info), f, key, value. */
static struct bns_history *history(const char *script)
{
    struct bns_history *h;
    const char *p = script;

    assert_int_equal(bns_history_new(bns_alloc_libc(), &h), BNS_OK);
    while (*p != '\0') {
        struct bns_history_event e = {.time = 1};
        char type, f[8], key[8], value[64];
        long long process;
        int used = 0;

        assert_int_equal(
            sscanf(p, "%lld %c %7s %7s %63[^\n]%n", &process, &type, f, key, value, &used), 5);
        e.process = process;
        e.type = type == 'i'   ? BNS_HIST_INVOKE
                 : type == 'o' ? BNS_HIST_OK
                 : type == 'f' ? BNS_HIST_FAIL
                               : BNS_HIST_INFO;
        e.f = f;
        e.key = key;
        e.value = value;
        assert_int_equal(bns_history_add(h, &e), BNS_OK);
        p += used;
        p += *p == '\n';
    }
    return h;
}

static int verdict(struct bns_history *h, const struct bns_lin_model *m)
{
    struct bns_lin_op *ops;
    size_t count;
    struct bns_err err;
    int rv = bns_history_ops(h, &ops, &count, &err);

    if (rv != BNS_OK)
        return rv;
    rv = bns_lin_check(bns_alloc_libc(), m, ops, count, 0, NULL);
    bns_free(bns_alloc_libc(), ops);
    return rv;
}

static const struct {
    const char *name;
    const struct bns_lin_model *m;
    int rv;
    const char *script;
} known[] = {
    {"empty", &bns_lin_register, BNS_OK, ""},
    {"read own write", &bns_lin_register, BNS_OK,
     "0 i put a 1\n0 o put a 1\n0 i get a null\n0 o get a 1"},
    {"stale read", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a 1\n0 i put a 2\n0 o put a 2\n1 i get a null\n1 o get a 1"},
    {"read of a concurrent write", &bns_lin_register, BNS_OK,
     "0 i put a 1\n1 i get a null\n1 o get a 1\n0 o put a 1"},
    {"new then old", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n1 i get a null\n1 o get a 1\n1 i get a null\n1 o get a null\n0 o put a 1"},
    {"a failed write is not seen", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n0 f put a 1\n1 i get a null\n1 o get a 1"},
    {"an unknown write may be seen late", &bns_lin_register, BNS_OK,
     "0 i put a 1\n0 n put a 1\n1 i get a null\n1 o get a null\n1 i get a null\n1 o get a 1"},
    {"an unknown write happens once", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n0 n put a 1\n1 i get a null\n1 o get a 1\n1 i put a 2\n1 o put a 2\n"
     "1 i get a null\n1 o get a 1"},
    {"keys are independent", &bns_lin_register, BNS_OK,
     "0 i put a 1\n0 o put a 1\n0 i get b null\n0 o get b null"},
    {"cas takes the old value", &bns_lin_register, BNS_OK,
     "0 i put a 1\n0 o put a 1\n0 i cas a [1,2]\n0 o cas a [1,2]\n0 i get a null\n0 o get a 2"},
    {"two cas from one value", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a 1\n0 i cas a [1,2]\n1 i cas a [1,3]\n0 o cas a [1,2]\n"
     "1 o cas a [1,3]"},
    {"cas that must have matched", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a 1\n0 i cas a [1,2]\n0 o cas a {\"swapped\":false}"},
    {"deleted is not there", &bns_lin_register, BNS_OK,
     "0 i put a 1\n0 o put a 1\n0 i delete a null\n0 o delete a {\"deleted\":true}\n"
     "0 i get a null\n0 o get a null"},
    {"delete that found nothing", &bns_lin_register, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a 1\n0 i delete a null\n0 o delete a {\"deleted\":false}"},
    {"revisions fit", &bns_lin_kv, BNS_OK,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i get a null\n0 o get a {\"value\":1,\"rev\":2}"},
    {"wrong revision", &bns_lin_kv, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i get a null\n0 o get a {\"value\":1,\"rev\":3}"},
    {"revision goes back", &bns_lin_kv, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a {\"rev\":5}\n0 i put a 2\n0 o put a {\"rev\":4}"},
    {"the revision of an unknown write settles", &bns_lin_kv, BNS_E_CONFLICT,
     "0 i put a 1\n0 n put a null\n1 i get a null\n1 o get a {\"value\":1,\"rev\":3}\n"
     "1 i get a null\n1 o get a {\"value\":1,\"rev\":4}"},
    {"cas by revision", &bns_lin_kv, BNS_OK,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i cas a {\"rev\":2,\"new\":7}\n"
     "0 o cas a {\"swapped\":true,\"rev\":3}\n0 i get a null\n"
     "0 o get a {\"value\":7,\"rev\":3}"},
    {"cas by an old revision", &bns_lin_kv, BNS_E_CONFLICT,
     "0 i put a 1\n0 o put a {\"rev\":2}\n0 i cas a {\"rev\":1,\"new\":7}\n"
     "0 o cas a {\"swapped\":true,\"rev\":3}"},
    {"unknown f", &bns_lin_kv, BNS_E_INVALID, "0 i jump a 1"},
    {"answer without question", &bns_lin_kv, BNS_E_INVALID, "0 o put a 1"},
    {"impatient process", &bns_lin_kv, BNS_E_INVALID, "0 i put a 1\n0 i put a 2"},
    {"a dead process speaks", &bns_lin_kv, BNS_E_INVALID, "0 i put a 1\n0 n put a 1\n0 i put a 2"},
    {"cas without values", &bns_lin_kv, BNS_E_INVALID, "0 i cas a 3"},
    {"revision that is none", &bns_lin_kv, BNS_E_INVALID,
     "0 i get a null\n0 o get a {\"value\":1,\"rev\":\"x\"}"},
};

static void known_histories_get_their_verdict(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct bns_history *h = history(known[i].script);
        print_message("  %s\n", known[i].name);
        assert_int_equal(verdict(h, known[i].m), known[i].rv);
        bns_history_free(h);
    }
}

static void histories_survive_writing_and_reading(void **state)
{
    struct bns_history *h = history("0 i put a\"b {\"z\":1,\"a\":[2,\"\\u00e9\"]}\n0 n put a\"b 1\n"
                                    "-7 i get k null\n-7 o get k 1.5");
    struct bns_history *back;
    struct bns_buf a;
    struct bns_buf b;
    struct bns_err err;

    (void)state;
    bns_buf_init(&a, bns_alloc_libc(), 1 << 20);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    assert_int_equal(bns_history_new(bns_alloc_libc(), &back), BNS_OK);
    assert_int_equal(bns_history_write(h, &a), BNS_OK);
    assert_int_equal(bns_history_parse(back, bns_buf_slice(&a), &err), BNS_OK);
    assert_int_equal(bns_history_write(back, &b), BNS_OK);
    assert_true(bns_slice_eq(bns_buf_slice(&a), bns_buf_slice(&b)));
    assert_int_equal(bns_history_count(back), 4);
    assert_string_equal(bns_history_at(back, 0).key, "a\"b");
    assert_string_equal(bns_history_at(back, 0).value, "{\"a\":[2,\"\xc3\xa9\"],\"z\":1}");
    assert_null(bns_history_at(back, 2).value);
    assert_int_equal(bns_history_at(back, 3).process, -7);
    bns_history_free(h);
    bns_history_free(back);
    bns_buf_free(&a);
    bns_buf_free(&b);
}

static void bad_lines_are_refused_with_their_number(void **state)
{
    static const struct {
        const char *text, *error;
    } t[] = {
        {"\n\n7", "history line 3: not a JSON object"},
        {"{\"type\":\"ok\"", "history line 1: not a JSON object"},
        {"{\"type\":\"ok\"}", "history line 1: type and f must be strings"},
        {"{\"type\":\"o\",\"f\":\"get\"}", "history line 1: type must be invoke, ok, fail or info"},
        {"{\"type\":\"ok\",\"f\":\"get\",\"time\":-1,\"process\":1}",
         "history line 1: time and process must be integers"},
        {"{\"type\":\"ok\",\"f\":\"get\",\"time\":1,\"process\":1,\"key\":3}",
         "history line 1: key must be a string"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_history *h;
        struct bns_err err;
        assert_int_equal(bns_history_new(bns_alloc_libc(), &h), BNS_OK);
        assert_int_equal(bns_history_parse(h, bns_slice_str(t[i].text), &err), BNS_E_INVALID);
        assert_string_equal(err.text, t[i].error);
        bns_history_free(h);
    }
}

/* ---- brute force ----------------------------------------------------------------------------- */

#define BRUTE_OPS 5
#define BRUTE_REVS 11

struct brute {
    const struct bns_lin_op *ops;
    size_t count;
    bool revs;
    unsigned done;
};

static bool brute(struct brute *b, uint64_t value, uint64_t rev);

/* A change to `value` with every revision it may have had. */
static bool brute_change(struct brute *b, const struct bns_lin_op *op, uint64_t value, uint64_t rev)
{
    if (!b->revs)
        return brute(b, value, 0);
    for (uint64_t r = rev + 1; r <= BRUTE_REVS; r++) {
        if ((op->ret == BNS_LIN_OPEN || op->rev == r) && brute(b, value, r))
            return true;
    }
    return false;
}

static bool brute_do(struct brute *b, const struct bns_lin_op *op, uint64_t value, uint64_t rev)
{
    bool open = op->ret == BNS_LIN_OPEN;
    bool match = op->by_rev ? (value == 0 ? 0 : rev) == op->expect : value == op->expect;

    switch (op->f) {
    case BNS_LIN_GET:
        return (open || (value == op->value && (!b->revs || value == 0 || rev == op->rev))) &&
               brute(b, value, rev);
    case BNS_LIN_PUT:
        return brute_change(b, op, op->value, rev);
    case BNS_LIN_CAS:
        if (!open && match == op->failed)
            return false;
        return match ? brute_change(b, op, op->value, rev) : brute(b, value, rev);
    case BNS_LIN_DELETE:
        if (!open && (value == 0) != op->failed)
            return false;
        return value != 0 ? brute_change(b, op, 0, rev) : brute(b, value, rev);
    }
    return false;
}

static bool brute(struct brute *b, uint64_t value, uint64_t rev)
{
    bool all = true;

    for (size_t i = 0; i < b->count; i++)
        all &= (b->done >> i & 1) != 0 || b->ops[i].ret == BNS_LIN_OPEN;
    if (all)
        return true;
    for (size_t i = 0; i < b->count; i++) {
        bool first = (b->done >> i & 1) == 0;
        for (size_t j = 0; j < b->count; j++) /* nothing undone returned before it was called */
            first &= (b->done >> j & 1) != 0 || b->ops[j].ret > b->ops[i].call;
        if (!first)
            continue;
        b->done |= 1u << i;
        if (brute_do(b, &b->ops[i], value, rev))
            return true;
        b->done &= ~(1u << i);
    }
    return false;
}

static size_t random_ops(struct bns_prng *p, struct bns_lin_op *ops, bool revs)
{
    size_t n = 1 + (size_t)bns_prng_below(p, BRUTE_OPS);
    uint64_t at[2 * BRUTE_OPS];

    for (size_t i = 0; i < 2 * n; i++)
        at[i] = i;
    for (size_t i = 2 * n; i-- > 1;) {
        size_t j = (size_t)bns_prng_below(p, i + 1);
        uint64_t x = at[i];
        at[i] = at[j];
        at[j] = x;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t a = at[2 * i];
        uint64_t b = at[2 * i + 1];
        ops[i] = (struct bns_lin_op){
            .call = a < b ? a : b,
            .ret = a < b ? b : a,
            .key = 9,
            .f = (enum bns_lin_f)bns_prng_below(p, 4),
            .by_rev = revs && bns_prng_chance(p, 0.5),
            .failed = bns_prng_chance(p, 0.3),
        };
        ops[i].value = bns_prng_below(p, 3);
        if (ops[i].f != BNS_LIN_GET && ops[i].value == 0)
            ops[i].value = 1;
        ops[i].expect = bns_prng_below(p, ops[i].by_rev ? 6 : 3);
        ops[i].rev = revs ? 1 + bns_prng_below(p, 5) : 0;
        if (bns_prng_chance(p, 0.3))
            ops[i].ret = BNS_LIN_OPEN;
        ops[i].failed &= ops[i].f == BNS_LIN_CAS || ops[i].f == BNS_LIN_DELETE;
    }
    return n;
}

static void agrees_with_brute_force(void **state)
{
    unsigned yes[2] = {0, 0};
    struct bns_prng p;

    (void)state;
    bns_prng_seed(&p, 7);
    for (int i = 0; i < 60000; i++) {
        bool revs = i % 2 == 1;
        struct bns_lin_op ops[BRUTE_OPS];
        size_t n = random_ops(&p, ops, revs);
        struct brute b = {ops, n, revs, 0};
        bool want = brute(&b, 0, 0);
        int rv = bns_lin_check(bns_alloc_libc(), revs ? &bns_lin_kv : &bns_lin_register, ops, n, 0,
                               NULL);
        yes[revs] += want;
        if (rv != (want ? BNS_OK : BNS_E_CONFLICT)) {
            for (size_t j = 0; j < n; j++)
                print_message("call %llu ret %lld f %d value %llu expect %llu rev %llu by_rev %d "
                              "failed %d\n",
                              (unsigned long long)ops[j].call, (long long)ops[j].ret, ops[j].f,
                              (unsigned long long)ops[j].value, (unsigned long long)ops[j].expect,
                              (unsigned long long)ops[j].rev, ops[j].by_rev, ops[j].failed);
            fail_msg("history %d: checker says %d, brute force %d", i, rv, want);
        }
    }
    assert_true(yes[0] > 3000);
    assert_true(yes[1] > 1000);
}

/* ---- size, budget, memory -------------------------------------------------------------------- */

/* A good history of many keys with c clients at a time; one read may be made to lie. */
static size_t big(struct bns_lin_op *ops, size_t count, bool lie)
{
    uint64_t now[8] = {0};
    struct bns_prng p;

    bns_prng_seed(&p, 3);
    for (size_t i = 0; i < count; i++) {
        size_t key = (size_t)bns_prng_below(&p, 8);
        /* Each takes effect at 100 i, called before and answered after. */
        ops[i] = (struct bns_lin_op){.call = 100 * i + 1000 - bns_prng_below(&p, 9) * 100 - i % 50,
                                     .ret = 100 * i + 1051 + bns_prng_below(&p, 9) * 100 + i % 49,
                                     .key = key,
                                     .f = i % 3 == 0 ? BNS_LIN_PUT : BNS_LIN_GET};
        ops[i].value = ops[i].f == BNS_LIN_PUT ? i + 1 : now[key];
        now[key] = ops[i].value;
    }
    if (lie)
        ops[count - 1].value = 1;
    return count;
}

static void big_histories_are_checked_and_the_lie_is_named(void **state)
{
    enum { COUNT = 5000 };
    struct bns_lin_op *ops = calloc(COUNT, sizeof *ops);
    struct bns_lin_result res;
    size_t n;

    (void)state;
    assert_non_null(ops);
    n = big(ops, COUNT, false);
    assert_int_equal(bns_lin_check(bns_alloc_libc(), &bns_lin_register, ops, n, 0, &res), BNS_OK);
    print_message("visited %llu for %zu operations\n", (unsigned long long)res.visited, n);
    assert_int_equal(bns_lin_check(bns_alloc_libc(), &bns_lin_register, ops, n, 100, &res),
                     BNS_E_TOOBIG);
    n = big(ops, COUNT, true);
    assert_int_equal(bns_lin_check(bns_alloc_libc(), &bns_lin_register, ops, n, 0, &res),
                     BNS_E_CONFLICT);
    assert_int_equal(res.key, ops[n - 1].key);
    ops[0].ret = ops[0].call;
    assert_int_equal(bns_lin_check(bns_alloc_libc(), &bns_lin_register, ops, 1, 0, &res),
                     BNS_E_INVALID);
    free(ops);
}

static void revisions_of_a_store_are_checked(void **state)
{
    struct bns_lin_op ops[3] = {
        {.call = 1, .ret = 2, .key = 1, .f = BNS_LIN_PUT, .value = 1, .rev = 2},
        {.call = 3, .ret = 4, .key = 2, .f = BNS_LIN_PUT, .value = 1, .rev = 3},
        {.call = 5, .ret = 6, .key = 2, .f = BNS_LIN_GET, .value = 1, .rev = 3},
    };
    struct bns_lin_result res;

    (void)state;
    assert_int_equal(bns_lin_revisions(bns_alloc_libc(), ops, 3, &res), BNS_OK);
    assert_int_equal(bns_lin_revisions(bns_alloc_libc(), ops, 0, &res), BNS_OK);
    ops[0].rev = 3; /* twice the same */
    assert_int_equal(bns_lin_revisions(bns_alloc_libc(), ops, 3, &res), BNS_E_CONFLICT);
    ops[0].rev = 4; /* back in time, on another key */
    assert_int_equal(bns_lin_revisions(bns_alloc_libc(), ops, 3, &res), BNS_E_CONFLICT);
    assert_int_equal(res.op, 1);
    ops[1].call = 0; /* concurrent */
    assert_int_equal(bns_lin_revisions(bns_alloc_libc(), ops, 3, &res), BNS_OK);
}

static void every_failed_allocation_is_survived(void **state)
{
    static const char text[] =
        "{\"time\":1,\"process\":0,\"type\":\"invoke\",\"f\":\"put\",\"key\":\"a\",\"value\":1}\n"
        "{\"time\":2,\"process\":0,\"type\":\"ok\",\"f\":\"put\",\"key\":\"a\",\"value\":1}\n"
        "{\"time\":3,\"process\":1,\"type\":\"invoke\",\"f\":\"get\",\"key\":\"a\"}\n"
        "{\"time\":4,\"process\":1,\"type\":\"ok\",\"f\":\"get\",\"key\":\"a\",\"value\":1}\n";
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct bns_test_heap *heap = bns_test_heap(fail_at);
        const struct bns_alloc *a = bns_test_heap_alloc(heap);
        struct bns_history *h = NULL;
        struct bns_lin_op *ops = NULL;
        size_t count = 0;
        int rv = bns_history_new(a, &h);

        if (rv == BNS_OK)
            rv = bns_history_parse(h, BNS_LIT(text), NULL);
        if (rv == BNS_OK)
            rv = bns_history_ops(h, &ops, &count, NULL);
        if (rv == BNS_OK)
            rv = bns_lin_check(a, &bns_lin_register, ops, count, 0, NULL);
        if (rv == BNS_OK)
            rv = bns_lin_revisions(a, ops, count, NULL);
        bns_free(a, ops);
        bns_history_free(h);
        assert_int_equal(bns_test_heap_close(heap, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_histories_get_their_verdict),
        cmocka_unit_test(histories_survive_writing_and_reading),
        cmocka_unit_test(bad_lines_are_refused_with_their_number),
        cmocka_unit_test(agrees_with_brute_force),
        cmocka_unit_test(big_histories_are_checked_and_the_lie_is_named),
        cmocka_unit_test(revisions_of_a_store_are_checked),
        cmocka_unit_test(every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
