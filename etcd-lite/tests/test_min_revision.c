/* Goal:   a session reads its own writes on any member; who waits costs little and leaves in time.
 * Method: three real servers in a simulated world; one of them is cut off from the others, but not
 *         from the clients. The simulation of whole daemons (sim_daemon) does the same under faults
 *         and has a planted bug for it. */
#include "client_world.h"

struct got {
    bool done;
    int status;
    char text[256], value[64], token[32];
    int64_t revision;
};

static void ended(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    g->done = true;
    g->status = a->status;
    (void)snprintf(g->text, sizeof g->text, "%s", a->text);
}

static void ranged(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;

    ended(arg, a);
    if (a->status != 0)
        return;
    g->revision = r->header->revision;
    if (r->n_kvs > 0)
        (void)snprintf(g->value, sizeof g->value, "%.*s", (int)r->kvs[0]->value.len,
                       (const char *)r->kvs[0]->value.data);
}

static struct bns_etcd *client_of(unsigned server)
{
    struct bns_etcd_options o = {.endpoints = &cw.endpoints[server], .endpoints_count = 1};

    return cw_client(&o);
}

static void put(struct bns_etcd *c, struct bns_etcd_session *session, const char *value)
{
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
    const struct bns_etcd_call_options o = {
        .method = BNS_ETCD_PUT, .request = &r.base, .session = session};
    struct got g = {0};

    r.has_key = r.has_value = true;
    r.key = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t) "k"};
    r.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)(uintptr_t)value};
    assert_int_equal(bns_etcd_call(c, &o, ended, &g, NULL), BNS_OK);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    assert_int_equal(g.status, 0);
}

/* A serializable read of k; g->done later. */
static void read_begin(struct bns_etcd *c, struct bns_etcd_session *session, struct got *g)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_RANGE,
                                            .request = &r.base,
                                            .session = session,
                                            .deadline_ns = bns_now_ns(cw.env) + 12 * BNS_SEC};

    r.has_key = r.has_serializable = r.serializable = true;
    r.key = (ProtobufCBinaryData){1, (uint8_t *)(uintptr_t) "k"};
    *g = (struct got){0};
    assert_int_equal(bns_etcd_call(c, &o, ranged, g, NULL), BNS_OK);
}

static struct got read_now(struct bns_etcd *c, struct bns_etcd_session *session)
{
    struct got g;

    read_begin(c, session, &g);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    return g;
}

static unsigned follower(void)
{
    return (cw_leader() + 1) % 3;
}

static size_t waiting(unsigned server)
{
    return cw.server[server].s->min_revision.waiting.count;
}

static void cut_off(unsigned server)
{
    for (unsigned i = 0; i < 3; i++) {
        bns_world_block(cw.w, server, i, i != server);
        bns_world_block(cw.w, i, server, i != server);
    }
}

static void a_session_reads_on_a_follower_what_it_wrote_on_the_leader(void **state)
{
    struct bns_etcd_session session = {0};
    struct bns_etcd *there, *here;
    unsigned lead, far;
    struct got g;
    (void)state;

    cw_new(11, 3, NULL);
    lead = cw_leader();
    far = follower();
    there = client_of(lead);
    here = client_of(far);
    put(there, &session, "old");
    assert_string_equal(read_now(here, &session).value, "old");
    cut_off(far);
    put(there, &session, "new");
    assert_string_equal(read_now(here, NULL).value, "old"); /* so it may answer without a token */
    read_begin(here, &session, &g);
    cw_pass(2 * BNS_SEC);
    assert_false(g.done);
    assert_int_equal(waiting(far), 1);
    bns_world_connect_all(cw.w);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    assert_string_equal(g.value, "new");
    assert_true(g.revision >= session.revision);
    assert_int_equal(waiting(far), 0);
    bns_etcd_free(there);
    bns_etcd_free(here);
    cw_free();
}

static void a_member_that_stays_behind_says_so_and_another_answers(void **state)
{
    struct bns_etcd_session session = {0};
    struct bns_etcd *there, *here, *all;
    struct bns_etcd_options o = {.first_endpoint = true, .endpoints_count = 2};
    const char *endpoints[2];
    unsigned lead, far;
    struct got g;
    (void)state;

    cw_new(12, 3, NULL);
    lead = cw_leader();
    far = follower();
    there = client_of(lead);
    here = client_of(far);
    endpoints[0] = cw.endpoints[far];
    endpoints[1] = cw.endpoints[lead];
    o.endpoints = endpoints;
    all = cw_client(&o);
    cut_off(far);
    put(there, &session, "new");
    g = read_now(here, &session); /* until its deadline */
    assert_int_equal(g.status, BNS_GRPC_DEADLINE_EXCEEDED);
    g = read_now(all, &session);
    assert_int_equal(g.status, 0);
    assert_string_equal(g.value, "new");
    bns_etcd_free(there);
    bns_etcd_free(here);
    bns_etcd_free(all);
    cw_free();
}

/* ---- calls with any metadata ----------------------------------------------------------------- */

static void raw_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    (void)c;
    (void)msg;
}

static void raw_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct got *g = bns_grpc_ccall_arg(c);
    struct bns_slice token;

    g->done = true;
    g->status = status;
    (void)snprintf(g->text, sizeof g->text, "%s", text);
    if (bns_grpc_ccall_trailer(c, "bonsai-revision", &token))
        (void)snprintf(g->token, sizeof g->token, "%.*s", (int)token.len, (const char *)token.ptr);
}

static const struct bns_grpc_client_handler raw = {.on_message = raw_message,
                                                   .on_status = raw_status};

static struct bns_grpc_ccall *raw_begin(struct bns_grpc_client *client, const char *least,
                                        uint64_t for_ns, struct got *g)
{
    static const uint8_t serializable[] = {0x0a, 1, 'k', 0x38, 1};
    const struct bns_grpc_md md = {BNS_LIT(ETCD_MIN_REVISION), bns_slice_str(least)};
    const struct bns_grpc_call_options o = {.path = "/etcdserverpb.KV/Range",
                                            .md = &md,
                                            .md_count = 1,
                                            .deadline_ns = bns_now_ns(cw.env) + for_ns};
    struct bns_grpc_ccall *call;

    *g = (struct got){0};
    assert_int_equal(bns_grpc_call_start(client, &o, &raw, g, &call), BNS_OK);
    assert_int_equal(bns_grpc_ccall_send_copy(call, bns_slice(serializable, sizeof serializable)),
                     BNS_OK);
    bns_grpc_ccall_half_close(call);
    return call;
}

static struct bns_grpc_client *raw_client(unsigned server)
{
    struct bns_grpc_client *client;

    assert_int_equal(
        bns_grpc_client_new(cw.env, bns_world_host(cw.w, server), CW_PORT, &client, NULL), BNS_OK);
    return client;
}

static void a_token_is_a_revision_and_nothing_else(void **state)
{
    static const struct {
        const char *token;
        int status;
    } t[] = {
        {"0", 0},
        {"1", 0},
        {"0000000000000000000000000001", 0},
        {"", BNS_GRPC_INVALID_ARGUMENT},
        {"-1", BNS_GRPC_INVALID_ARGUMENT},
        {"+1", BNS_GRPC_INVALID_ARGUMENT},
        {"1x", BNS_GRPC_INVALID_ARGUMENT},
        {"1e3", BNS_GRPC_INVALID_ARGUMENT},
        {"9223372036854775808", BNS_GRPC_INVALID_ARGUMENT},
        {"99999999999999999999999999", BNS_GRPC_INVALID_ARGUMENT},
        {"9223372036854775807", BNS_GRPC_DEADLINE_EXCEEDED}, /* it waits */
    };
    struct bns_grpc_client *client;
    (void)state;

    cw_new(13, 1, NULL);
    (void)cw_leader();
    client = raw_client(0);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct got g;

        (void)raw_begin(client, t[i].token, BNS_SEC, &g);
        assert_true(cw_until(&g.done, 60 * BNS_SEC));
        if (g.status != t[i].status)
            fail_msg("\"%s\": %d %s", t[i].token, g.status, g.text);
        assert_string_equal(g.token, t[i].status == 0 ? "1" : "");
        if (t[i].status == BNS_GRPC_INVALID_ARGUMENT)
            assert_string_equal(g.text, "etcdserver: bonsai-min-revision is not a revision");
        cw_pass(BNS_SEC);
        assert_int_equal(waiting(0), 0); /* its deadline has ended it on both sides */
    }
    bns_grpc_client_free(client);
    cw_free();
}

#define WAITING_MAX 4096u

static void so_many_wait_and_not_one_more_and_who_leaves_makes_room(void **state)
{
    static struct got gots[WAITING_MAX + 1];
    static struct bns_grpc_ccall *calls[WAITING_MAX + 1];
    struct bns_grpc_client *client;
    unsigned refused = 0;
    (void)state;

    cw_new(14, 1, NULL);
    (void)cw_leader();
    client = raw_client(0);
    for (size_t i = 0; i <= WAITING_MAX; i++)
        calls[i] = raw_begin(client, "1000", 60 * BNS_SEC, &gots[i]);
    cw_pass(2 * BNS_SEC);
    assert_int_equal(waiting(0), WAITING_MAX);
    for (size_t i = 0; i <= WAITING_MAX; i++) {
        refused += gots[i].done;
        if (gots[i].done)
            assert_string_equal(gots[i].text, "etcdserver: too many requests");
        else
            bns_grpc_ccall_cancel(calls[i]);
    }
    assert_int_equal(refused, 1);
    cw_pass(2 * BNS_SEC);
    assert_int_equal(waiting(0), 0);
    bns_grpc_client_free(client);
    cw_free();
}

static void reads_go_on_in_the_order_of_their_revisions(void **state)
{
    struct bns_etcd_session session = {0};
    struct bns_etcd *c;
    struct bns_grpc_client *client;
    struct got third, second, never;
    (void)state;

    cw_new(15, 1, NULL);
    (void)cw_leader();
    c = client_of(0);
    client = raw_client(0);
    (void)raw_begin(client, "3", 60 * BNS_SEC, &third);
    (void)raw_begin(client, "2", 60 * BNS_SEC, &second);
    (void)raw_begin(client, "4", 60 * BNS_SEC, &never);
    cw_pass(100 * BNS_MS);
    put(c, &session, "a"); /* revision 2 */
    cw_pass(100 * BNS_MS);
    assert_true(second.done);
    assert_false(third.done);
    put(c, &session, "b");
    cw_pass(100 * BNS_MS);
    assert_true(third.done);
    assert_string_equal(third.token, "3");
    assert_false(never.done);
    cw_pass(10 * BNS_SEC); /* the time of a request is over */
    assert_int_equal(never.status, BNS_GRPC_UNAVAILABLE);
    assert_string_equal(never.text,
                        "etcdserver: this member has not applied the revision asked for");
    assert_int_equal(waiting(0), 0);
    bns_etcd_free(c);
    bns_grpc_client_free(client);
    cw_free();
}

static void a_server_that_stops_ends_those_who_wait(void **state)
{
    struct bns_grpc_client *client;
    struct got g;
    (void)state;

    cw_new(16, 1, NULL);
    (void)cw_leader();
    client = raw_client(0);
    (void)raw_begin(client, "9", 60 * BNS_SEC, &g);
    cw_pass(100 * BNS_MS);
    assert_int_equal(waiting(0), 1);
    bns_world_kill(cw.w, 0);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    assert_int_equal(g.status, BNS_GRPC_UNAVAILABLE);
    bns_grpc_client_free(client);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_reads_on_a_follower_what_it_wrote_on_the_leader),
        cmocka_unit_test(a_member_that_stays_behind_says_so_and_another_answers),
        cmocka_unit_test(a_token_is_a_revision_and_nothing_else),
        cmocka_unit_test(so_many_wait_and_not_one_more_and_who_leaves_makes_room),
        cmocka_unit_test(reads_go_on_in_the_order_of_their_revisions),
        cmocka_unit_test(a_server_that_stops_ends_those_who_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
