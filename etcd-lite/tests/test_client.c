/* Goal:   the client's calls: answers, failover, what is sent twice and what never is.
 * Method: real servers in a simulated world (client_world.h); they die, hang, are cut off. */
#include "client_world.h"

struct got {
    bool done;
    unsigned times;
    int status;
    bool unknown;
    char text[256], cause[256], value[64];
    int64_t revision, count;
};

static void ended(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    g->done = true;
    g->times++;
    g->status = a->status;
    g->unknown = a->unknown;
    (void)snprintf(g->text, sizeof g->text, "%s", a->text);
    (void)snprintf(g->cause, sizeof g->cause, "%s", a->cause);
}

static void ranged(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    ended(arg, a);
    if (a->status == 0) {
        const Etcdserverpb__RangeResponse *r = (const void *)a->msg;

        g->count = r->count;
        g->revision = r->header->revision;
        if (r->n_kvs > 0)
            (void)snprintf(g->value, sizeof g->value, "%.*s", (int)r->kvs[0]->value.len,
                           (const char *)r->kvs[0]->value.data);
    }
}

static void txned(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    ended(arg, a);
    if (a->status == 0) {
        const Etcdserverpb__TxnResponse *r = (const void *)a->msg;

        g->count = r->succeeded;
        g->revision = r->header->revision;
    }
}

static struct got put(struct bns_etcd *c, const char *key, const char *value)
{
    struct got g = {0};

    assert_int_equal(bns_etcd_put(c, bns_slice_str(key), bns_slice_str(value), 0, ended, &g),
                     BNS_OK);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    return g;
}

static struct got get(struct bns_etcd *c, const char *key)
{
    struct got g = {0};

    assert_int_equal(bns_etcd_get(c, bns_slice_str(key), bns_slice(NULL, 0), ranged, &g), BNS_OK);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    return g;
}

static void keys_are_put_read_changed_and_deleted(void **state)
{
    struct bns_etcd *c;
    struct bns_etcd_cas cas = {BNS_LIT("a"), BNS_LIT("3"), 0, 0};
    struct got g = {0};
    uint8_t end[8];
    (void)state;

    cw_new(1, 1, NULL);
    c = cw_client(NULL);
    assert_int_equal(put(c, "a", "1").status, 0);
    assert_int_equal(put(c, "ab", "2").status, 0);
    assert_string_equal(get(c, "a").value, "1");
    assert_int_equal(get(c, "none").count, 0);
    assert_int_equal(
        bns_etcd_get(c, BNS_LIT("a"), bns_etcd_prefix_end(BNS_LIT("a"), end), ranged, &g), BNS_OK);
    assert_true(cw_until(&g.done, BNS_SEC));
    assert_int_equal(g.count, 2);
    for (int64_t rev = 0; rev < 3; rev += 2) { /* 0: it must not be there. 2: as it was put */
        g = (struct got){0};
        cas.revision = rev;
        assert_int_equal(bns_etcd_put_if(c, &cas, txned, &g), BNS_OK);
        assert_true(cw_until(&g.done, BNS_SEC));
        assert_int_equal(g.status, 0);
        assert_int_equal(g.count, rev == 2);
    }
    assert_string_equal(get(c, "a").value, "3");
    g = (struct got){0};
    assert_int_equal(bns_etcd_del(c, BNS_LIT("a"), bns_slice(NULL, 0), ended, &g), BNS_OK);
    assert_true(cw_until(&g.done, BNS_SEC));
    assert_int_equal(get(c, "a").count, 0);
    g = put(c, "", "x");
    assert_int_equal(g.status, 3);
    assert_string_equal(g.text, "etcdserver: key is not provided");
    assert_false(g.unknown);
    bns_etcd_free(c);
    cw_free();
}

/* A write that never left goes to the next endpoint; one that a server may have seen does not. */
static void writes_are_sent_once_and_reads_until_they_succeed(void **state)
{
    struct bns_etcd_options o = {.first_endpoint = true};
    struct bns_etcd *c;
    struct got g = {0}, r = {0};
    unsigned lead;
    (void)state;

    cw_new(2, 3, NULL);
    lead = cw_leader();
    const char *order[3] = {cw.endpoints[lead], cw.endpoints[(lead + 1) % 3],
                            cw.endpoints[(lead + 2) % 3]};

    o.endpoints = order;
    o.endpoints_count = 3;
    c = cw_client(&o);
    assert_int_equal(put(c, "k", "0").status, 0);
    /* in flight when the server dies: the outcome is unknown, a read finds an answer elsewhere */
    assert_int_equal(bns_etcd_put(c, BNS_LIT("k"), BNS_LIT("1"), 0, ended, &g), BNS_OK);
    assert_int_equal(bns_etcd_get(c, BNS_LIT("k"), bns_slice(NULL, 0), ranged, &r), BNS_OK);
    cw_pass(50 * BNS_US);
    bns_world_kill(cw.w, lead);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    assert_true(cw_until(&r.done, 60 * BNS_SEC));
    assert_int_equal(g.status, 14);
    assert_true(g.unknown);
    assert_int_equal(r.status, 0);
    /* nobody at the first endpoint: the write had not begun, and goes on */
    bns_etcd_free(c);
    bns_world_power_cut(cw.w, lead);
    c = cw_client(&o);
    g = put(c, "k", "2");
    assert_int_equal(g.status, 0);
    assert_string_equal(get(c, "k").value, "2");
    bns_etcd_free(c);
    cw_free();
}

static void nobody_there_ends_with_the_deadline_and_its_cause(void **state)
{
    const char *nobody[] = {"10.0.0.2:99", "10.0.0.2:98"};
    struct bns_etcd_options o = {.endpoints = nobody, .endpoints_count = 2};
    struct bns_etcd *c;
    struct got g;
    uint64_t begun;
    (void)state;

    cw_new(3, 1, NULL);
    c = cw_client(&o);
    begun = bns_world_now(cw.w);
    g = put(c, "a", "1");
    assert_int_equal(g.status, 4);
    assert_false(g.unknown);
    assert_string_equal(g.text, "context deadline exceeded");
    assert_non_null(strstr(g.cause, "cannot connect to 10.0.0.2:9"));
    assert_true(bns_world_now(cw.w) - begun >= 5 * BNS_SEC);
    assert_true(bns_world_now(cw.w) - begun < 6 * BNS_SEC);
    bns_etcd_free(c);
    cw_free();
}

/* The first endpoint takes no packet: the dial is given up and the next one answers. */
static void a_dial_that_hangs_is_given_up(void **state)
{
    struct bns_etcd *c;
    struct got g;
    uint64_t begun;
    (void)state;

    cw_new(4, 3, NULL);
    (void)cw_leader();
    bns_world_block(cw.w, 3, 0, true);
    bns_world_block(cw.w, 0, 3, true);
    c = cw_client(NULL);
    begun = bns_world_now(cw.w);
    g = put(c, "a", "1");
    assert_int_equal(g.status, 0);
    assert_true(bns_world_now(cw.w) - begun < 3 * BNS_SEC);
    bns_etcd_free(c);
    cw_free();
}

/* A connection that went dead without a word costs one deadline, not every later one. */
static void a_dead_connection_is_left_after_one_deadline(void **state)
{
    struct bns_etcd *c;
    struct got g;
    (void)state;

    cw_new(5, 3, NULL);
    (void)cw_leader();
    c = cw_client(NULL);
    assert_int_equal(put(c, "a", "1").status, 0);
    bns_world_block(cw.w, 3, 0, true);
    bns_world_block(cw.w, 0, 3, true);
    g = put(c, "a", "2");
    assert_int_equal(g.status, 4);
    assert_true(g.unknown);
    assert_int_equal(put(c, "a", "3").status, 0);
    assert_string_equal(get(c, "a").value, "3");
    bns_etcd_free(c);
    cw_free();
}

static void closing_ends_every_call_once(void **state)
{
    struct bns_etcd *c;
    struct got g[4] = {0};
    struct bns_etcd_call *k = NULL;
    Etcdserverpb__StatusRequest req = ETCDSERVERPB__STATUS_REQUEST__INIT;
    struct bns_etcd_call_options o = {.method = BNS_ETCD_STATUS, .request = &req.base};
    (void)state;

    for (unsigned wait = 0; wait < 8; wait++) {
        cw_new(6, 1, NULL);
        c = cw_client(NULL);
        memset(g, 0, sizeof g);
        for (int i = 0; i < 3; i++)
            assert_int_equal(bns_etcd_put(c, BNS_LIT("a"), BNS_LIT("1"), 0, ended, &g[i]), BNS_OK);
        assert_int_equal(bns_etcd_call(c, &o, ended, &g[3], &k), BNS_OK);
        bns_etcd_call_cancel(k);
        cw_pass((uint64_t)wait * 100 * BNS_US);
        bns_etcd_free(c);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(g[i].times, 1);
            assert_true(g[i].status == 0 || g[i].status == 1);
        }
        assert_int_equal(g[3].times, 0);
        cw_pass(BNS_SEC);
        cw_free();
    }
}

static void drained(void *arg)
{
    *(bool *)arg = true;
}

/* Told when the calls under way have ended, and only then; also when there are none. */
static void a_drain_waits_for_the_calls_under_way(void **state)
{
    struct bns_etcd *c;
    struct got g = {0};
    bool empty = false, none = false;
    (void)state;

    cw_new(8, 1, NULL);
    c = cw_client(NULL);
    bns_etcd_drain(c, drained, &none);
    assert_false(none);
    assert_true(cw_until(&none, BNS_SEC));
    assert_int_equal(bns_etcd_put(c, BNS_LIT("a"), BNS_LIT("1"), 0, ended, &g), BNS_OK);
    bns_etcd_drain(c, drained, &empty);
    while (!g.done) {
        assert_false(empty);
        assert_true(bns_world_step(cw.w));
    }
    assert_true(cw_until(&empty, BNS_SEC));
    empty = false;
    bns_etcd_drain(c, drained, &empty);
    bns_etcd_free(c); /* then it is not told */
    cw_pass(BNS_SEC);
    assert_false(empty);
    cw_free();
}

static void endpoints_are_read_in_every_form(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } t[] = {
        {"127.0.0.1:2379", true},
        {"http://127.0.0.1:2379", true},
        {"http://a.b:1/", true},
        {"[::1]:2379", true},
        {"http://[::1]", true},
        {"localhost", true},
        {"::1", false},
        {"a:0", false},
        {"a:65536", false},
        {"ftp://a:1", false},
        {"", false},
        {"a:", false},
        {"a:1x", false},
        {"https://a:1", false},
        {"a b:1", false},
    };
    (void)state;

    cw_new(7, 1, NULL);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *const list[] = {t[i].text};
        struct bns_etcd_options o = {.endpoints = list, .endpoints_count = 1};
        struct bns_etcd *c = NULL;
        struct bns_err err = {0};

        print_message("  %s\n", t[i].text);
        assert_int_equal(bns_etcd_new(cw.env, &o, &c, &err), t[i].good ? BNS_OK : BNS_E_INVALID);
        bns_etcd_free(c);
    }
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_put_read_changed_and_deleted),
        cmocka_unit_test(writes_are_sent_once_and_reads_until_they_succeed),
        cmocka_unit_test(nobody_there_ends_with_the_deadline_and_its_cause),
        cmocka_unit_test(a_dial_that_hangs_is_given_up),
        cmocka_unit_test(a_dead_connection_is_left_after_one_deadline),
        cmocka_unit_test(closing_ends_every_call_once),
        cmocka_unit_test(a_drain_waits_for_the_calls_under_way),
        cmocka_unit_test(endpoints_are_read_in_every_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
