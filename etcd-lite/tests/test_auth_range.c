/* test_auth_range.c - merged intervals of permissions against a model that looks at each key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "auth_range.h"
#include "base/prng.h"

/* The model's keys: all texts of up to LETTERS letters out of "ab", in order. */
#define LETTERS 4
#define KEYS 30
static char keys[KEYS][LETTERS + 1];

static void add_keys(const char *prefix, size_t *n)
{
    size_t len = strlen(prefix);

    if (len > 0)
        strncpy(keys[(*n)++], prefix, LETTERS + 1);
    if (len == LETTERS)
        return;
    for (char c = 'a'; c <= 'b'; c++) {
        char next[LETTERS + 1] = {0};

        memcpy(next, prefix, len);
        next[len] = c;
        add_keys(next, n);
    }
}

/* A range as a request has it: 0 one key, 1 up to the key `to`, 2 to the end. */
struct range {
    size_t from, to;
    int kind;
};

static struct bns_slice end_of(const struct range *r)
{
    if (r->kind == 0)
        return bns_slice(NULL, 0);
    return r->kind == 1 ? bns_slice_str(keys[r->to]) : bns_slice("", 1);
}

static struct range draw(struct bns_prng *p)
{
    return (struct range){bns_prng_below(p, KEYS), bns_prng_below(p, KEYS),
                          (int)bns_prng_below(p, 3)};
}

/* Does it hold the key that stands behind `at`, "" or a zero byte behind it? All ranges begin and
 * end at keys, so between two of them nothing changes. */
static bool holds(const struct range *r, size_t at, bool after)
{
    if (r->kind == 0)
        return at == r->from && !after;
    return at >= r->from && (r->kind == 2 || at < r->to);
}

static bool model_covers(const struct range *have, size_t n, const struct range *want)
{
    bool any = false;

    for (size_t at = 0; at < KEYS; at++) {
        for (int after = 0; after < 2; after++) {
            bool ok = false;

            if (!holds(want, at, after))
                continue;
            any = true;
            for (size_t i = 0; i < n; i++)
                ok = ok || holds(&have[i], at, after);
            if (!ok)
                return false;
        }
    }
    return any;
}

static void a_request_is_allowed_when_every_key_of_it_is(void **state)
{
    struct bns_prng p;
    size_t n = 0, allowed = 0;

    (void)state;
    add_keys("", &n);
    assert_int_equal(n, KEYS);
    bns_prng_seed(&p, 7);
    for (int run = 0; run < 4000; run++) {
        struct range have[6], want;
        size_t count = bns_prng_below(&p, 7);
        struct etcd_spans s = {.count = 0};
        struct bns_arena arena;

        bns_arena_init(&arena, bns_alloc_libc(), SIZE_MAX);
        for (size_t i = 0; i < count; i++) {
            struct bns_slice end;

            have[i] = draw(&p);
            end = end_of(&have[i]);
            assert_int_equal(etcd_spans_add(&s, &arena, bns_slice_str(keys[have[i].from]), end),
                             BNS_OK);
        }
        etcd_spans_merge(&s);
        for (size_t i = 1; i < s.count; i++)
            assert_true(s.at[i - 1].to.ptr != NULL &&
                        bns_slice_cmp(s.at[i - 1].to, s.at[i].from) < 0);
        for (int i = 0; i < 20; i++) {
            bool got;

            want = draw(&p);
            if (want.kind == 1 && want.to <= want.from)
                continue; /* holds no key: see below */
            got = etcd_spans_cover(&s, bns_slice_str(keys[want.from]), end_of(&want));
            assert_int_equal(got, model_covers(have, count, &want));
            allowed += got;
        }
        bns_arena_free(&arena);
    }
    print_message("  %zu allowed\n", allowed);
    assert_true(allowed > 1000);
}

static void shapes(void **state)
{
    static const struct {
        const char *key;
        struct bns_slice end;
        bool ok;
    } t[] = {
        {"a", {NULL, 0}, true},
        {"a", {(const uint8_t *)"b", 1}, true},
        {"a", {(const uint8_t *)"d", 1}, true}, /* two permissions that touch */
        {"a", {(const uint8_t *)"d\0", 2}, false},
        {"a", {(const uint8_t *)"", 1}, false},
        {"a0", {(const uint8_t *)"c", 1}, true},
        {"d", {NULL, 0}, false},
        {"p", {NULL, 0}, true},
        {"p", {(const uint8_t *)"p\0", 2}, true}, /* one key, written as a range */
        {"p", {(const uint8_t *)"p\1", 2}, false},
        {"x", {(const uint8_t *)"", 1}, true},
        {"zzz", {(const uint8_t *)"", 1}, true},
        {"w", {(const uint8_t *)"", 1}, false},
        {"y", {(const uint8_t *)"x", 1}, true}, /* no key at all, begun where all is allowed */
        {"", {NULL, 0}, false},
    };
    struct etcd_spans s = {.count = 0};
    struct bns_arena arena;

    (void)state;
    bns_arena_init(&arena, bns_alloc_libc(), SIZE_MAX);
    assert_int_equal(etcd_spans_add(&s, &arena, BNS_LIT("b"), BNS_LIT("d")), BNS_OK);
    assert_int_equal(etcd_spans_add(&s, &arena, BNS_LIT("a"), BNS_LIT("b")), BNS_OK);
    assert_int_equal(etcd_spans_add(&s, &arena, BNS_LIT("p"), bns_slice(NULL, 0)), BNS_OK);
    assert_int_equal(etcd_spans_add(&s, &arena, BNS_LIT("x"), bns_slice("", 1)), BNS_OK);
    assert_int_equal(etcd_spans_add(&s, &arena, BNS_LIT("y"), BNS_LIT("z")), BNS_OK);
    assert_int_equal(etcd_spans_add(&s, &arena, BNS_LIT("q"), BNS_LIT("q")), BNS_OK); /* none */
    etcd_spans_merge(&s);
    assert_int_equal(s.count, 3);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        print_message("  %zu %s\n", i, t[i].key);
        assert_int_equal(etcd_spans_cover(&s, bns_slice_str(t[i].key), t[i].end), t[i].ok);
    }
    bns_arena_free(&arena);
}

static void no_permission_covers_nothing(void **state)
{
    struct etcd_spans s = {.count = 0};

    (void)state;
    etcd_spans_merge(&s);
    assert_false(etcd_spans_cover(&s, BNS_LIT("a"), bns_slice(NULL, 0)));
    assert_false(etcd_spans_cover(&s, bns_slice("", 1), bns_slice("", 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_allowed_when_every_key_of_it_is),
        cmocka_unit_test(shapes),
        cmocka_unit_test(no_permission_covers_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
