/* Goal:   an alarm is replicated state: what it forbids is refused at apply, on every member alike,
 *         before and after a restart and in an installed snapshot.
 * Method: one store driven by hand (kv_world.h); requests become entries as in the daemon.
 */
#include "kv_world.h"

#include "alarm.h"
#include "kv_impl.h"

#define ALARM_DESC (&etcdserverpb__alarm_response__descriptor)
#define GET ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET
#define ON ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE
#define OFF ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE
#define ANY ETCDSERVERPB__ALARM_TYPE__NONE

/* The answer; NULL when it was refused with *status. */
static Etcdserverpb__AlarmResponse *ask(struct kvw *k, int action, uint64_t member, int type,
                                        int *status)
{
    Etcdserverpb__AlarmRequest r = ETCDSERVERPB__ALARM_REQUEST__INIT;
    struct got g;

    r.has_action = r.has_memberid = r.has_alarm = true;
    r.action = (Etcdserverpb__AlarmRequest__AlarmAction)action;
    r.memberid = member;
    r.alarm = (Etcdserverpb__AlarmType)type;
    assert_true(kvw_apply(k, ETCD_OP_ALARM, &r, &g));
    *status = g.status;
    return g.status == 0 ? kvw_decode(k, &g, ALARM_DESC) : NULL;
}

static void expect(struct kvw *k, int action, uint64_t member, int type, size_t count)
{
    int status;
    const Etcdserverpb__AlarmResponse *m = ask(k, action, member, type, &status);

    assert_int_equal(status, 0);
    assert_int_equal(m->n_alarms, count);
    if (count == 1 && action != GET) {
        assert_true(m->alarms[0]->memberid == member);
        assert_int_equal(m->alarms[0]->alarm, type);
    }
}

/* As a real etcd answers, action by action. */
static void alarms_are_raised_listed_and_cleared(void **state)
{
    static const struct {
        int action;
        uint64_t member;
        int type;
        size_t count;
    } t[] = {
        {GET, 0, ANY, 0},
        {OFF, 7, ETCD_ALARM_NOSPACE, 0},
        {ON, 1, ANY, 1},
        {ON, 7, ETCD_ALARM_NOSPACE, 1},
        {ON, 7, ETCD_ALARM_NOSPACE, 1}, /* once more: the same */
        {ON, UINT64_MAX, ETCD_ALARM_CORRUPT, 1},
        {GET, 0, ANY, 3},
        {GET, 3, ETCD_ALARM_CORRUPT, 1}, /* the member does not matter */
        {GET, 0, ETCD_ALARM_NOSPACE, 1},
        {OFF, 8, ETCD_ALARM_NOSPACE, 0},
        {OFF, 7, ETCD_ALARM_NOSPACE, 1},
        {OFF, UINT64_MAX, ETCD_ALARM_CORRUPT, 1},
        {OFF, 1, ANY, 1},
        {GET, 0, ANY, 0},
    };
    struct kvw k;
    (void)state;

    kvw_init(&k, 1, NULL);
    assert_true(kvw_up(&k));
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        expect(&k, t[i].action, t[i].member, t[i].type, t[i].count);
    kvw_free(&k);
}

static int status_of(struct kvw *k, enum etcd_op op, const void *req)
{
    struct got g;

    assert_true(kvw_apply(k, op, req, &g));
    free(g.bytes);
    return g.status;
}

struct answers {
    int put, del, txn_put, txn_del, compact, grant, revoke, range;
};

static void expect_all(struct kvw *k, struct answers want)
{
    Etcdserverpb__PutRequest put = put_req("a", "1");
    Etcdserverpb__DeleteRangeRequest del = delete_req("nothing", NULL);
    Etcdserverpb__RangeRequest range = range_req("a", NULL);
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT, *ops[1] = {&op};
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__CompactionRequest compact = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    static int64_t lease = 1000;
    struct got g;

    assert_int_equal(status_of(k, ETCD_OP_PUT, &put), want.put);
    assert_int_equal(status_of(k, ETCD_OP_DELETE, &del), want.del);
    txn.n_success = 1;
    txn.success = ops;
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &put;
    assert_int_equal(status_of(k, ETCD_OP_TXN, &txn), want.txn_put);
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op.request_delete_range = &del;
    assert_int_equal(status_of(k, ETCD_OP_TXN, &txn), want.txn_del);
    compact.has_revision = true;
    compact.revision = INT64_MAX; /* in the future: 11 when it is looked at */
    assert_int_equal(status_of(k, ETCD_OP_COMPACT, &compact), want.compact);
    assert_int_equal(do_grant(k, ++lease, 60), want.grant);
    assert_int_equal(do_revoke(k, 99), want.revoke); /* no such lease: 5 when it is looked at */
    g = kvw_range(k, &range);
    free(g.bytes);
    assert_int_equal(g.status, want.range);
}

static void what_an_alarm_forbids_is_refused_at_apply(void **state)
{
    static const struct answers calm = {.compact = 11, .revoke = 5};
    static const struct answers full = {
        .put = 8, .txn_put = 8, .compact = 11, .grant = 8, .revoke = 5};
    static const struct answers bad = {15, 15, 15, 15, 15, 15, 15, 15};
    struct kvw k;
    (void)state;

    kvw_init(&k, 2, NULL);
    assert_true(kvw_up(&k));
    expect_all(&k, calm);
    expect(&k, ON, 7, ETCD_ALARM_NOSPACE, 1);
    expect_all(&k, full);
    kvw_close(&k); /* the store, not the log, knows it after a restart */
    assert_true(kvw_up(&k));
    expect_all(&k, full);
    expect(&k, ON, 8, ETCD_ALARM_CORRUPT, 1);
    expect_all(&k, bad);
    expect(&k, OFF, 8, ETCD_ALARM_CORRUPT, 1);
    expect_all(&k, full);
    expect(&k, OFF, 7, ETCD_ALARM_NOSPACE, 1);
    expect_all(&k, calm);
    kvw_free(&k);
}

static void alarms_of_invented_members_are_bounded(void **state)
{
    struct kvw k;
    int status;
    (void)state;

    kvw_init(&k, 3, NULL);
    assert_true(kvw_up(&k));
    for (uint64_t i = 1; i <= ETCD_ALARMS_MAX; i++)
        expect(&k, ON, i, ETCD_ALARM_NOSPACE, 1);
    assert_null(ask(&k, ON, 1000, ETCD_ALARM_NOSPACE, &status));
    assert_int_equal(status, 8);
    expect(&k, ON, 5, ETCD_ALARM_NOSPACE, 1); /* it is there already */
    expect(&k, GET, 0, ANY, ETCD_ALARMS_MAX);
    expect(&k, OFF, 5, ETCD_ALARM_NOSPACE, 1);
    expect(&k, ON, 1000, ETCD_ALARM_NOSPACE, 1);
    kvw_free(&k);
}

static void take_all_slots(struct kvw_call *c)
{
    struct etcd_buckets *t = &c->k->kv->buckets;
    size_t words = ETCD_BUCKET_ROWS_MAX / 64;

    t->taken = bns_resize(c->k->kv->alloc, t->taken, words * sizeof *t->taken);
    assert_non_null(t->taken);
    memset(t->taken, 0xff, words * sizeof *t->taken);
    t->taken_words = words;
}

/* Every slot of every bucket is taken: no member dies of the entry that finds none. */
static void no_slot_for_an_alarm_is_an_answer(void **state)
{
    struct kvw k;
    struct kvw_call c = {.k = &k, .fn = take_all_slots};
    int status;
    (void)state;

    kvw_init(&k, 3, NULL);
    assert_true(kvw_up(&k));
    assert_true(kvw_call(&c));
    assert_null(ask(&k, ON, 1000, ETCD_ALARM_NOSPACE, &status));
    assert_int_equal(status, 8);
    assert_non_null(k.kv);
    expect(&k, GET, 0, ANY, 0);
    kvw_free(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alarms_are_raised_listed_and_cleared),
        cmocka_unit_test(what_an_alarm_forbids_is_refused_at_apply),
        cmocka_unit_test(alarms_of_invented_members_are_bounded),
        cmocka_unit_test(no_slot_for_an_alarm_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
