/* Goal:   whoever asks for a change of the members, or for another leader, is answered by the
 *         server's deadline, wherever the leader is lost.
 * Method: three servers in a simulated world; the leader is cut off from the others, or dies, at
 *         moments around the request, which is asked of it or of a follower.
 */
#include "client_world.h"

#define DEADLINE_NS (7 * BNS_SEC) /* five seconds and two election timeouts */
#define SLACK_NS (500 * BNS_MS)

struct got {
    bool done;
    int status;
    char text[200];
    uint64_t at_ns;
};

static void ended(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    g->done = true;
    g->status = a->status;
    g->at_ns = bns_world_now(cw.w);
    (void)snprintf(g->text, sizeof g->text, "%s", a->text);
}

static void begin(struct bns_etcd *c, enum bns_etcd_method m, const void *req, struct got *g)
{
    const struct bns_etcd_call_options o = {
        .method = m, .request = req, .deadline_ns = bns_world_now(cw.w) + 60 * BNS_SEC};

    *g = (struct got){0};
    assert_int_equal(bns_etcd_call(c, &o, ended, g, NULL), BNS_OK);
}

static struct bns_etcd *client_of(unsigned id)
{
    static const char *one[1];
    struct bns_etcd_options o = {.first_endpoint = true, .endpoints = one, .endpoints_count = 1};

    one[0] = cw.endpoint[id];
    return cw_client(&o);
}

static void cut_off(unsigned id)
{
    for (unsigned i = 0; i < 3; i++) {
        if (i == id)
            continue;
        bns_world_block(cw.w, id, i, true);
        bns_world_block(cw.w, i, id, true);
    }
}

static void run(unsigned n, bool at_leader, bool dies, uint64_t after_ns)
{
    static const enum bns_etcd_method methods[] = {BNS_ETCD_MEMBER_ADD, BNS_ETCD_MEMBER_ADD,
                                                   BNS_ETCD_MOVE_LEADER};
    Etcdserverpb__MemberAddRequest add = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    Etcdserverpb__MoveLeaderRequest move = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;
    unsigned lead = cw_leader(), ask = at_leader ? lead : (lead + 1) % 3;
    struct got g[3];
    char url[64], *urls[] = {url};
    struct bns_etcd *c = client_of(ask);
    uint64_t begun;

    add.has_islearner = add.islearner = true;
    add.n_peerurls = 1;
    add.peerurls = urls;
    move.has_targetid = true;
    move.targetid = cw.server[(lead + 1) % 3].opt.self->id;
    begun = bns_world_now(cw.w);
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(url, sizeof url, "http://10.9.%u.%u:2380", n, i + 1);
        begin(c, methods[i], methods[i] == BNS_ETCD_MOVE_LEADER ? (void *)&move : (void *)&add,
              &g[i]);
    }
    if (after_ns > 0)
        cw_pass(after_ns);
    if (dies)
        bns_world_kill(cw.w, lead);
    else
        cut_off(lead);
    for (unsigned i = 0; i < 3; i++) {
        if (!cw_until(&g[i].done, 60 * BNS_SEC) || g[i].at_ns > begun + DEADLINE_NS + SLACK_NS)
            fail_msg("call %u, at the leader %d, dies %d, after %d us: %d ms, %d %s", i, at_leader,
                     dies, (int)(after_ns / 1000), (int)((g[i].at_ns - begun) / BNS_MS),
                     g[i].status, g[i].text);
    }
    bns_world_connect_all(cw.w);
    bns_etcd_free(c);
    cw_pass(8 * BNS_SEC); /* healed, and connections older than five seconds */
}

static void a_lost_leader_keeps_nobody_waiting(void **state)
{
    static const uint64_t after[] = {0, 500000, 1500000, 3000000, 20000000};
    unsigned n = 0;

    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        for (unsigned i = 0; i < sizeof after / sizeof after[0]; i++) {
            cw_new(++n, 3, NULL);
            (void)cw_leader();
            cw_pass(6 * BNS_SEC);
            run(n, (kind & 1) != 0, (kind & 2) != 0 && (kind & 1) == 0, after[i]);
            cw_free();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_leader_keeps_nobody_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
