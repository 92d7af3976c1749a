/* test_check.c - what is refused before it is proposed: etcd's codes and texts, as data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/slice.h"
#include "check.h"
#include "sim/heap.h"

typedef Etcdserverpb__RequestOp Op;

#define NODES 40000
static union node {
    Etcdserverpb__RangeRequest range;
    Etcdserverpb__PutRequest put;
    Etcdserverpb__DeleteRangeRequest del;
    Etcdserverpb__TxnRequest txn;
    Op op;
    Op *ops[8];
} nodes[NODES];
static size_t used;

static union node *node(void)
{
    assert_true(used < NODES);
    memset(&nodes[used], 0, sizeof nodes[used]);
    return &nodes[used++];
}
static ProtobufCBinaryData B(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}
static Op *op(int kind, void *req)
{
    union node *n = node();
    n->op.request_case = (Etcdserverpb__RequestOp__RequestCase)kind;
    n->op.request_range = req;
    return &n->op;
}

/* A transaction as text: "p<key>" puts, "d<from><to>" deletes [from, to) ('.' = the one key, '0' =
 * up to "\0"), "r" range, "(then|else)" nests, "?" an operation without a body. One letter a key.
 */
static Etcdserverpb__TxnRequest *parse(const char **s);

static void parse_ops(const char **s, size_t *count, Op ***out)
{
    Op *list[256];
    size_t n = 0;

    for (;; (*s)++) {
        static char letters[128][2];
        union node *r;
        char c = **s;
        if (c == 0 || c == '|' || c == ')')
            break;
        if (c == ' ')
            continue;
        r = c == '(' || c == '?' ? NULL : node();
        for (int i = 0; i < 128; i++)
            letters[i][0] = (char)i;
        if (c == 'p') {
            r->put.key = B(letters[(int)*++*s]);
            list[n++] = op(2, r);
        } else if (c == 'd') {
            r->del.key = B(letters[(int)*++*s]);
            ++*s;
            if (**s == '0')
                r->del.range_end = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t) ""};
            else if (**s != '.')
                r->del.range_end = B(letters[(int)**s]);
            list[n++] = op(3, r);
        } else if (c == 'r') {
            r->range.key = B("x");
            list[n++] = op(1, r);
        } else if (c == '(') {
            ++*s;
            list[n++] = op(4, parse(s));
            assert_int_equal(**s, ')');
        } else {
            list[n++] = op(0, NULL);
        }
    }
    *count = n;
    *out = malloc((n + 1) * sizeof **out); /* lives as long as the process: a test table */
    memcpy(*out, list, n * sizeof **out);
}

static Etcdserverpb__TxnRequest *parse(const char **s)
{
    union node *n = node();
    parse_ops(s, &n->txn.n_success, &n->txn.success);
    if (**s == '|') {
        ++*s;
        parse_ops(s, &n->txn.n_failure, &n->txn.failure);
    }
    return &n->txn;
}

static void free_lists(Etcdserverpb__TxnRequest *t)
{
    for (int side = 0; side < 2; side++) {
        Op **ops = side ? t->failure : t->success;
        size_t n = side ? t->n_failure : t->n_success;
        for (size_t i = 0; i < n; i++) {
            if (ops[i]->request_case == 4)
                free_lists(ops[i]->request_txn);
        }
        free(ops);
    }
}

static void intervals(void **state)
{
    static const struct {
        const char *txn;
        bool ok;
    } t[] = {
        {"", true},
        {"pa pb pc", true},
        {"pa pa", false},
        {"pa r r r da. ", false},
        {"pa db.", true},
        {"pb dac", false},
        {"pc dac", true}, /* the end is not in the range */
        {"pa dac", false},
        {"dac dbz pd", false},
        {"dac dbb pb", false},
        {"dzb pc", true},  /* an empty range */
        {"da0 px", true},  /* etcd does not see an open end here */
        {"(pa|pa)", true}, /* then and else exclude each other */
        {"(pa|pb) pa", false},
        {"(pa|pb) pb", false},
        {"(pa|) (pa|)", false},
        {"(pa|) (|pa)", false},
        {"(da.|) pa", false},
        {"(pa|) da.", false},
        {"(pa|) (da.|)", true}, /* a later sibling's deletes are not looked at, as in etcd */
        {"(da.|) (pa|)", false},
        {"((pa|pb)|(pa|pb)) pc", true},
        {"((pa|pb)|(pa|pc)) pc", false},
        {"pa | pa", true},
        {" | pa pa", false},
    };
    struct etcd_limits limits = {0};

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *s = t[i].txn;
        struct bns_test_heap *h = bns_test_heap(0);
        struct etcd_status why = {0, NULL};
        Etcdserverpb__TxnRequest *txn;
        print_message("  %s\n", t[i].txn);
        used = 0;
        txn = parse(&s);
        assert_int_equal(etcd_check_txn(txn, &limits, bns_test_heap_alloc(h), &why), t[i].ok);
        assert_int_equal(bns_test_heap_close(h, NULL), 0);
        if (!t[i].ok) {
            assert_int_equal(why.code, 3);
            assert_string_equal(why.text, "etcdserver: duplicate key given in txn request");
        }
        free_lists(txn);
    }
}

/* Fail the 1st, 2nd, 3rd ... allocation: the check says so and leaks nothing. */
static void check_survives_oom(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        const char *s = "(pa pb dcd|pe (pf|dg.)) pz dxy";
        struct bns_test_heap *h = bns_test_heap(fail_at);
        struct etcd_limits limits = {0};
        struct etcd_status why;
        Etcdserverpb__TxnRequest *txn;
        bool ok;
        used = 0;
        txn = parse(&s);
        ok = etcd_check_txn(txn, &limits, bns_test_heap_alloc(h), &why);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(ok, !fired);
        if (!ok)
            assert_int_equal(why.code, 8);
        free_lists(txn);
    }
}

static void operations_are_counted(void **state)
{
    struct etcd_limits limits = {.txn_ops_max = 4};
    static const struct {
        const char *txn;
        bool ok;
    } t[] = {
        {"r r r r", true},    {"r r r r r", false}, {"r|r r r r r", false}, {"(r r r)", true},
        {"(r r r r)", false}, {"(((r)))", true},    {"((((r))))", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *s = t[i].txn;
        struct etcd_status why = {0, NULL};
        Etcdserverpb__TxnRequest *txn;
        used = 0;
        txn = parse(&s);
        print_message("  %s\n", t[i].txn);
        assert_int_equal(etcd_check_txn(txn, &limits, bns_alloc_libc(), &why), t[i].ok);
        if (!t[i].ok)
            assert_string_equal(why.text, "etcdserver: too many operations in txn request");
        free_lists(txn);
    }
}

static void single_requests(void **state)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest d = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    struct etcd_limits limits = {0};
    struct etcd_status why;
    const char *s = "?";
    Etcdserverpb__TxnRequest *txn;

    (void)state;
    assert_false(etcd_check_range(&r, &why));
    assert_string_equal(why.text, "etcdserver: key is not provided");
    assert_false(etcd_check_put(&p, &why));
    assert_false(etcd_check_delete(&d, &why));
    assert_string_equal(why.text, "etcdserver: key is not provided");
    r.key = p.key = d.key = B("k");
    assert_true(etcd_check_range(&r, &why));
    assert_true(etcd_check_delete(&d, &why));
    r.sort_order = (Etcdserverpb__RangeRequest__SortOrder)3;
    assert_false(etcd_check_range(&r, &why));
    assert_string_equal(why.text, "etcdserver: invalid sort option");
    r.sort_order = 0;
    r.sort_target = (Etcdserverpb__RangeRequest__SortTarget)-1;
    assert_false(etcd_check_range(&r, &why));
    p.value = B("v");
    assert_true(etcd_check_put(&p, &why));
    assert_int_equal(etcd_cost_put(&p), 258);
    p.ignore_value = true;
    assert_false(etcd_check_put(&p, &why));
    assert_string_equal(why.text, "etcdserver: value is provided");
    p.ignore_value = false;
    p.ignore_lease = true;
    p.lease = 1;
    assert_false(etcd_check_put(&p, &why));
    assert_string_equal(why.text, "etcdserver: lease is provided");
    used = 0;
    txn = parse(&s);
    assert_false(etcd_check_txn(txn, &limits, bns_alloc_libc(), &why));
    assert_int_equal(why.code, 3);
    assert_string_equal(why.text, "etcdserver: key not found");
    free_lists(txn);
}

static void kinds_and_costs(void **state)
{
    static const struct {
        const char *txn;
        bool readonly;
        uint64_t cost;
    } t[] = {
        {"", true, 0},
        {"r r|r", true, 0},
        {"r|pa", false, 257},
        {"(r)", false, 0},
        {"(pa pb|pa)|pa", false, 514},
        {"dab", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *s = t[i].txn;
        Etcdserverpb__TxnRequest *txn;
        used = 0;
        txn = parse(&s);
        assert_int_equal(etcd_txn_readonly(txn), t[i].readonly);
        assert_int_equal(etcd_cost_txn(txn), t[i].cost);
        free_lists(txn);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(intervals),
        cmocka_unit_test(check_survives_oom),
        cmocka_unit_test(operations_are_counted),
        cmocka_unit_test(single_requests),
        cmocka_unit_test(kinds_and_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
