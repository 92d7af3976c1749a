/* test_watch.c - what a watch is told, response by response.
 *
 * Goal:   etcd's rules of Watch, each with the exact response.
 * Method: one store on a simulated node; responses are rendered as text (watch_world.h) and
 *         compared with what a real etcd sends. */
#include "watch_world.h"

static struct kvw world;
static struct sink sink;

static int up(void **state)
{
    (void)state;
    kvw_init(&world, 1, NULL);
    assert_true(kvw_up(&world));
    sink_open(&sink, &world);
    assert_int_equal(sink.open_rv, BNS_OK);
    return 0;
}

static int down(void **state)
{
    (void)state;
    sink_close(&sink);
    kvw_free(&world);
    return 0;
}

static void txn_of(struct kvw *k, const char *put1, const char *put2, const char *del)
{
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    Etcdserverpb__PutRequest p1 = put_req(put1, "t1"), p2 = put_req(put2, "t2");
    Etcdserverpb__DeleteRangeRequest d = delete_req(del, NULL);
    Etcdserverpb__RequestOp op[3] = {ETCDSERVERPB__REQUEST_OP__INIT, ETCDSERVERPB__REQUEST_OP__INIT,
                                     ETCDSERVERPB__REQUEST_OP__INIT};
    Etcdserverpb__RequestOp *ops[3] = {&op[0], &op[1], &op[2]};

    op[0].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op[0].request_put = &p1;
    op[1].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op[1].request_put = &p2;
    op[2].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op[2].request_delete_range = &d;
    t.n_success = 3;
    t.success = ops;
    assert_true(kvw_apply(k, ETCD_OP_TXN, &t, NULL));
}

static void events_come_as_they_happen(void **state)
{
    (void)state;
    do_watch(&sink, "a", NULL, 0);
    sink_expect(&sink, "#0 rev=1 created");
    (void)do_put(&world, "a", "1");
    sink_expect(&sink, "#0 rev=2 +a=1@2/2/1");
    (void)do_put(&world, "b", "x");
    sink_expect(&sink, NULL);
    (void)do_put(&world, "a", "2");
    sink_expect(&sink, "#0 rev=4 +a=2@2/4/2");
    (void)do_delete(&world, "a", NULL);
    sink_expect(&sink, "#0 rev=5 -a@5");
    (void)do_delete(&world, "a", NULL);
    sink_expect(&sink, NULL);
}

static void history_comes_first_and_then_what_happens(void **state)
{
    (void)state;
    (void)do_put(&world, "a", "1");
    (void)do_put(&world, "b", "1");
    (void)do_put(&world, "a", "2");
    (void)do_delete(&world, "a", NULL);
    do_watch(&sink, "a", NULL, 1);
    sink_expect(&sink, "#0 rev=5 created");
    sink_expect(&sink, "#0 rev=5 +a=1@2/2/1 +a=2@2/4/2 -a@5");
    do_watch(&sink, "a", "c", 3);
    sink_expect(&sink, "#1 rev=5 created");
    sink_expect(&sink, "#1 rev=5 +b=1@3/3/1 +a=2@2/4/2 -a@5");
    (void)do_put(&world, "a", "3");
    sink_expect(&sink, "#0 rev=6 +a=3@6/6/1");
    sink_expect(&sink, "#1 rev=6 +a=3@6/6/1");
    do_watch(&sink, "", "", 6);
    sink_expect(&sink, "#2 rev=6 created");
    sink_expect(&sink, "#2 rev=6 +a=3@6/6/1");
}

static void a_transaction_is_one_response(void **state)
{
    (void)state;
    (void)do_put(&world, "c", "1");
    do_watch(&sink, "a", "z", 0);
    sink_expect(&sink, "#0 rev=2 created");
    txn_of(&world, "a", "b", "c");
    sink_expect(&sink, "#0 rev=3 +a=t1@3/3/1 +b=t2@3/3/1 -c@3");
    do_watch(&sink, "a", "z", 3);
    sink_expect(&sink, "#1 rev=3 created");
    sink_expect(&sink, "#1 rev=3 +a=t1@3/3/1 +b=t2@3/3/1 -c@3");
}

static void previous_values_come_when_asked_for(void **state)
{
    Etcdserverpb__WatchCreateRequest c = create_req("a", NULL, 1);

    (void)state;
    c.has_prev_kv = true;
    c.prev_kv = true;
    (void)do_put(&world, "a", "1");
    (void)do_put(&world, "a", "2");
    do_create(&sink, c);
    sink_expect(&sink, "#0 rev=3 created");
    sink_expect(&sink, "#0 rev=3 +a=1@2/2/1 +a=2@2/3/2(was 1@2)");
    (void)do_delete(&world, "a", NULL);
    sink_expect(&sink, "#0 rev=4 -a@4(was 2@3)");
    (void)do_put(&world, "a", "3");
    sink_expect(&sink, "#0 rev=5 +a=3@5/5/1");
    (void)do_put(&world, "a", "4");
    sink_expect(&sink, "#0 rev=6 +a=4@5/6/2(was 3@5)");
    (void)do_compact(&world, 6, true);
    c.start_revision = 6; /* what was before lies below the compacted revision */
    do_create(&sink, c);
    sink_expect(&sink, "#1 rev=6 created");
    sink_expect(&sink, "#1 rev=6 +a=4@5/6/2");
}

static void filters_leave_out_puts_or_deletes(void **state)
{
    Etcdserverpb__WatchCreateRequest__FilterType put[] = {0}, both[] = {0, 1, 1, 0}, del[] = {1};
    Etcdserverpb__WatchCreateRequest c = create_req("a", NULL, 0);

    (void)state;
    c.n_filters = 1;
    c.filters = put;
    do_create(&sink, c);
    c.filters = del;
    do_create(&sink, c);
    c.n_filters = 4;
    c.filters = both;
    do_create(&sink, c);
    sink.next = 3;
    (void)do_put(&world, "a", "1");
    sink_expect(&sink, "#1 rev=2 +a=1@2/2/1");
    (void)do_delete(&world, "a", NULL);
    sink_expect(&sink, "#0 rev=3 -a@3");
    sink_expect(&sink, NULL);
    c = create_req("a", NULL, 1);
    c.n_filters = 1;
    c.filters = put;
    do_create(&sink, c);
    sink_expect(&sink, "#3 rev=3 created");
    sink_expect(&sink, "#3 rev=3 -a@3");
}

static void ids_are_given_or_chosen(void **state)
{
    Etcdserverpb__WatchCreateRequest c = create_req("a", NULL, 0);

    (void)state;
    c.has_watch_id = true;
    c.watch_id = 1;
    do_create(&sink, c);
    sink_expect(&sink, "#1 rev=1 created");
    do_watch(&sink, "a", NULL, 0);
    sink_expect(&sink, "#0 rev=1 created");
    do_watch(&sink, "a", NULL, 0); /* 1 is in use */
    sink_expect(&sink, "#2 rev=1 created");
    do_create(&sink, c);
    sink_expect(&sink, "#-1 rev=1 created canceled "
                       "\"mvcc: duplicate watch ID provided on the WatchStream\"");
    c.watch_id = -7;
    do_create(&sink, c);
    sink_expect(&sink, "#-7 rev=1 created");
    do_cancel(&sink, 1);
    sink_expect(&sink, "#1 rev=1 canceled");
    do_cancel(&sink, 1);
    do_cancel(&sink, 99);
    sink_expect(&sink, NULL);
    c.watch_id = 1;
    do_create(&sink, c);
    sink_expect(&sink, "#1 rev=1 created");
}

static void bad_requests_are_created_and_canceled(void **state)
{
    (void)state;
    do_watch(&sink, "b", "a", 0);
    sink_expect(&sink, "#-1 rev=1 created canceled \"mvcc: watcher range is empty\"");
    do_watch(&sink, "b", "b", 0);
    sink_expect(&sink, "#-1 rev=1 created canceled \"mvcc: watcher range is empty\"");
    do_watch(&sink, "b", NULL, -1);
    sink_expect(&sink, "#-1 rev=1 created canceled \"etcdserver: mvcc: required revision has been "
                       "compacted\"");
    do_watch(&sink, "b", NULL, 0);
    sink_expect(&sink, "#0 rev=1 created");
}

static void a_watch_below_the_compacted_revision_is_canceled(void **state)
{
    (void)state;
    (void)do_put(&world, "a", "1");
    (void)do_put(&world, "a", "2");
    (void)do_delete(&world, "a", NULL);
    (void)do_put(&world, "b", "1");
    (void)do_compact(&world, 4, true);
    do_watch(&sink, "a", NULL, 3);
    sink_expect(&sink, "#0 rev=5 created");
    sink_expect(&sink, "#0 rev=5 canceled compact=4");
    do_watch(&sink, "a", NULL, 4); /* the tombstone at the compacted revision is an event */
    sink_expect(&sink, "#1 rev=5 created");
    sink_expect(&sink, "#1 rev=5 -a@4");
    do_watch(&sink, "a", "c", 4);
    sink_expect(&sink, "#2 rev=5 created");
    sink_expect(&sink, "#2 rev=5 -a@4 +b=1@5/5/1");
    (void)do_compact(&world, 5, true); /* who has all is not concerned */
    (void)do_put(&world, "a", "3");
    sink_expect(&sink, "#1 rev=6 +a=3@6/6/1");
    sink_expect(&sink, "#2 rev=6 +a=3@6/6/1");
    do_cancel(&sink, 0); /* the id was taken until now */
    sink_expect(&sink, "#0 rev=6 canceled");
    do_cancel(&sink, 0);
    sink_expect(&sink, NULL);
}

static void a_future_start_gets_nothing_before(void **state)
{
    (void)state;
    do_watch(&sink, "a", NULL, 4);
    sink_expect(&sink, "#0 rev=1 created");
    do_progress(&sink);
    (void)do_put(&world, "a", "1");
    (void)do_put(&world, "a", "2");
    sink_expect(&sink, NULL);
    (void)do_put(&world, "b", "2"); /* revision 4: reached */
    sink_expect(&sink, "#-1 rev=4");
    (void)do_put(&world, "a", "3");
    sink_expect(&sink, "#0 rev=5 +a=3@2/5/3");
    do_progress(&sink);
    sink_expect(&sink, "#-1 rev=5");
    sink_expect(&sink, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_come_as_they_happen, up, down),
        cmocka_unit_test_setup_teardown(history_comes_first_and_then_what_happens, up, down),
        cmocka_unit_test_setup_teardown(a_transaction_is_one_response, up, down),
        cmocka_unit_test_setup_teardown(previous_values_come_when_asked_for, up, down),
        cmocka_unit_test_setup_teardown(filters_leave_out_puts_or_deletes, up, down),
        cmocka_unit_test_setup_teardown(ids_are_given_or_chosen, up, down),
        cmocka_unit_test_setup_teardown(bad_requests_are_created_and_canceled, up, down),
        cmocka_unit_test_setup_teardown(a_watch_below_the_compacted_revision_is_canceled, up, down),
        cmocka_unit_test_setup_teardown(a_future_start_gets_nothing_before, up, down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
