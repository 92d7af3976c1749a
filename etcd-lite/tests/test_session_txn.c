/* test_session_txn.c - the messages of the steps: what is sent, what is read, and with no memory.
 *
 * Goal:   a transaction of a step is what etcd's clients send; of an answer exactly the two facts
 *         are read that the machine asks for, however it is cut into slices.
 * Method: requests decoded again; answers by hand; the n-th allocation fails until one gets
 *         through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "codec/pb.h"
#include "kv.h"
#include "kvbytes.h"
#include "session_run.h"
#include "sim/heap.h"

static const Etcdserverpb__TxnRequest *decoded(const struct etcd_session_txn *t,
                                               struct bns_arena *arena)
{
    ProtobufCMessage *m = NULL;
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 65536);
    assert_int_equal(etcd_session_txn(t, &b), BNS_OK);
    bns_arena_init(arena, bns_alloc_libc(), 65536);
    assert_int_equal(bns_pb_unpack(&etcdserverpb__txn_request__descriptor, bns_buf_slice(&b), arena,
                                   NULL, &m, NULL),
                     BNS_OK);
    bns_buf_free(&b);
    return (const Etcdserverpb__TxnRequest *)(const void *)m;
}

static void a_claim_puts_or_reads(void **state)
{
    const struct etcd_session_txn t = {
        .key = BNS_LIT("a/1"), .value = BNS_LIT("v"), .lease = -1, .or_read = true};
    const Etcdserverpb__TxnRequest *r;
    struct bns_arena arena;
    (void)state;

    r = decoded(&t, &arena);
    assert_int_equal(r->n_compare, 1);
    assert_int_equal(r->compare[0]->create_revision, 0);
    assert_int_equal(r->compare[0]->target, ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE);
    assert_int_equal(r->success[0]->request_put->lease, -1);
    assert_false(r->success[0]->request_put->ignore_lease);
    assert_int_equal(r->n_failure, 1);
    assert_memory_equal(r->failure[0]->request_range->key.data, "a/1", 3);
    bns_arena_free(&arena);
}

static void without_a_value_it_deletes_and_a_lease_may_be_kept(void **state)
{
    struct etcd_session_txn t = {.key = BNS_LIT("a/1"), .rev = 7};
    const Etcdserverpb__TxnRequest *r;
    struct bns_arena arena;
    (void)state;

    r = decoded(&t, &arena);
    assert_int_equal(r->compare[0]->create_revision, 7);
    assert_int_equal(r->success[0]->request_case,
                     ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE);
    assert_int_equal(r->n_failure, 0);
    bns_arena_free(&arena);
    t.value = BNS_LIT("");
    t.keep_lease = true;
    r = decoded(&t, &arena);
    assert_true(r->success[0]->request_put->ignore_lease);
    bns_arena_free(&arena);
}

/* succeeded 2 = 0; responses 3 { response_range 1 { kvs 2 { key 1, create 2, mod 3, value 5 }}} */
static const uint8_t answer[] = {0x1a, 16, 0x0a, 14, 0x12, 10, 0x0a, 1,    'k',
                                 0x10, 4,  0x18, 9,  0x2a, 1,  'v',  0x20, 1};

static void an_answer_is_read_in_whatever_slices_it_comes(void **state)
{
    (void)state;
    for (size_t cut = 0; cut <= sizeof answer; cut++) {
        struct bns_slice v[3] = {{NULL, 0}, {answer, cut}, {answer + cut, sizeof answer - cut}};
        struct etcd_answer a = {.slices = v, .slices_count = 3};
        struct etcd_kvview kv;
        struct bns_buf b;
        bool succeeded = true;

        bns_buf_init(&b, bns_alloc_libc(), 65536);
        assert_int_equal(etcd_session_txn_read(bns_alloc_libc(), &a, &succeeded, &b), BNS_OK);
        assert_false(succeeded);
        assert_int_equal(etcd_kvbytes_parse(bns_buf_slice(&b), &kv), BNS_OK);
        assert_int_equal(kv.create, 4);
        assert_true(bns_slice_eq(kv.value, BNS_LIT("v")));
        bns_buf_free(&b);
    }
}

static void without_memory_they_say_so(void **state)
{
    const struct etcd_session_txn t = {.key = BNS_LIT("a/1"), .value = BNS_LIT("v")};
    struct bns_slice v[2] = {{answer, 5}, {answer + 5, sizeof answer - 5}};
    struct etcd_answer a = {.slices = v, .slices_count = 2};
    bool fired = true;
    (void)state;

    for (int n = 1; fired; n++) {
        struct bns_test_heap *h = bns_test_heap(n);
        const struct bns_alloc *alloc = bns_test_heap_alloc(h);
        struct bns_buf out, kv;
        bool succeeded;
        int rv;

        bns_buf_init(&out, alloc, 65536);
        bns_buf_init(&kv, alloc, 65536);
        rv = etcd_session_txn(&t, &out);
        if (rv == BNS_OK)
            rv = etcd_session_txn_read(alloc, &a, &succeeded, &kv);
        bns_buf_free(&out);
        bns_buf_free(&kv);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_claim_puts_or_reads),
        cmocka_unit_test(without_a_value_it_deletes_and_a_lease_may_be_kept),
        cmocka_unit_test(an_answer_is_read_in_whatever_slices_it_comes),
        cmocka_unit_test(without_memory_they_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
