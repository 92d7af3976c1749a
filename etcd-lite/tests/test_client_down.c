/* Goal:   when all endpoints are away and come back, calls end with their deadline and everything
 *         that stays open goes on by itself; a token that the server has forgotten is replaced
 *         without anybody noticing.
 * Method: real servers in a simulated world (client_world.h), all of them killed or cut off for
 *         longer than any pause of the client; then started again. For tokens, auth is enabled and
 *         a server is killed, or time passes beyond the life of a token. */
#include "client_world.h"

#include "client/etcd/lease.h"
#include "client/etcd/lock.h"
#include "client/etcd/peers.h"
#include "client/etcd/watch.h"

#define LONG (60 * BNS_SEC)

struct got {
    bool done, unknown;
    unsigned times;
    int status;
    int64_t count;
    char text[128];
};

static void ended(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    g->done = true;
    g->times++;
    g->status = a->status;
    g->unknown = a->unknown;
    (void)snprintf(g->text, sizeof g->text, "%s", a->text);
}

static void ranged(void *arg, const struct bns_etcd_answer *a)
{
    ended(arg, a);
    if (a->status == BNS_GRPC_OK)
        ((struct got *)arg)->count =
            ((const Etcdserverpb__RangeResponse *)(const void *)a->msg)->count;
}

static struct got wait_for(int rv, struct got *g)
{
    assert_int_equal(rv, BNS_OK);
    assert_true(cw_until(&g->done, LONG));
    assert_int_equal(g->times, 1);
    return *g;
}

static struct got put(struct bns_etcd *c, const char *key)
{
    struct got g = {0};

    return wait_for(bns_etcd_put(c, bns_slice_str(key), BNS_LIT("v"), 0, ended, &g), &g);
}

static struct got get(struct bns_etcd *c, const char *key)
{
    struct got g = {0};

    return wait_for(bns_etcd_get(c, bns_slice_str(key), bns_slice(NULL, 0), ranged, &g), &g);
}

/* ---- everything that stays open -------------------------------------------------------------- */

struct world {
    struct bns_etcd *c;
    struct bns_etcd_watch *watch;
    struct bns_etcd_lease *lease;
    struct bns_etcd_lock *lock;
    struct bns_etcd_member *member;
    struct bns_etcd_peers *peers;
    bool granted, kept, held, up, there, seen; /* seen: the version that is waited for */
    unsigned losses, downs, ends, ups, gones;
    char why[128];
    int64_t version, want, token, lease_id;
};

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct world *w = arg;

    for (size_t i = 0; i < r->n_events; i++)
        assert_int_equal(r->events[i]->kv->version, ++w->version);
    w->seen = w->version >= w->want;
}

static void on_watch_end(void *arg, int status, const char *text, int64_t compacted)
{
    (void)status;
    (void)text;
    (void)compacted;
    ((struct world *)arg)->ends++;
}

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    (void)ttl;
    ((struct world *)arg)->granted = true;
    ((struct world *)arg)->lease_id = id;
}

static void on_kept(void *arg, int64_t ttl)
{
    (void)ttl;
    ((struct world *)arg)->kept = true;
}

static void on_lost(void *arg, int status, const char *text)
{
    struct world *w = arg;

    (void)snprintf(w->why, sizeof w->why, "%d %s", status, text);
    w->losses++;
}

static void on_down(void *arg, int status, const char *text)
{
    (void)status;
    (void)text;
    ((struct world *)arg)->downs++;
}

static void on_held(void *arg, struct bns_slice key, int64_t token)
{
    (void)key;
    ((struct world *)arg)->held = true;
    ((struct world *)arg)->token = token;
}

static void on_up(void *arg, int64_t revision)
{
    (void)revision;
    ((struct world *)arg)->up = true;
    ((struct world *)arg)->ups++;
}

static void on_peer(void *arg, struct bns_slice name, struct bns_slice value, int64_t revision)
{
    (void)value;
    (void)revision;
    ((struct world *)arg)->there = bns_slice_eq(name, BNS_LIT("ann"));
}

static void on_gone(void *arg, struct bns_slice name)
{
    (void)name;
    ((struct world *)arg)->gones++;
}

static void on_peers_end(void *arg, int status, const char *text)
{
    (void)status;
    (void)text;
    ((struct world *)arg)->ends++;
}

static const struct bns_etcd_watch_handler watching = {.on_events = on_events,
                                                       .on_end = on_watch_end};
static const struct bns_etcd_lease_handler leasing = {on_granted, on_kept, on_lost};
static const struct bns_etcd_lock_handler locking = {on_held, on_lost};
static const struct bns_etcd_member_handler registering = {on_up, on_down};
static const struct bns_etcd_peers_handler viewing = {on_peer, on_gone, NULL, on_peers_end};

static void open_all(struct world *w, struct bns_etcd *c)
{
    const struct bns_etcd_watch_options wo = {
        .key = BNS_LIT("k"), .start_revision = 1, .handler = &watching, .arg = w};
    const struct bns_etcd_lease_options lo = {.ttl_s = 60, .handler = &leasing, .arg = w};
    struct bns_etcd_lock_options ko = {.name = BNS_LIT("lock"), .handler = &locking, .arg = w};
    const struct bns_etcd_member_options mo = {.prefix = BNS_LIT("svc/"),
                                               .name = BNS_LIT("ann"),
                                               .ttl_s = 60,
                                               .handler = &registering,
                                               .arg = w};

    w->c = c;
    assert_int_equal(bns_etcd_watch_open(c, &wo, &w->watch), BNS_OK);
    assert_int_equal(bns_etcd_lease_open(c, &lo, &w->lease), BNS_OK);
    assert_true(cw_until(&w->granted, LONG));
    ko.lease = w->lease_id;
    assert_int_equal(bns_etcd_lock_open(c, &ko, &w->lock), BNS_OK);
    assert_int_equal(bns_etcd_member_open(c, &mo, &w->member), BNS_OK);
    assert_int_equal(bns_etcd_peers_open(c, BNS_LIT("svc/"), &viewing, w, &w->peers), BNS_OK);
    assert_true(cw_until(&w->held, LONG));
    assert_true(cw_until(&w->up, LONG));
    assert_true(cw_until(&w->there, LONG));
}

/* One more put, and the watch tells of it; the lease is kept; nothing was lost. */
static void all_goes_on(struct world *w)
{
    struct got g = {.status = -1};

    w->kept = false;
    for (unsigned i = 0; g.status != 0 && i < 10; i++) {
        g = put(w->c, "k");
        w->want += g.status == 0 || g.unknown;
    }
    assert_int_equal(g.status, 0);
    w->want = w->want > w->version ? w->version + 1 : w->version; /* what is unknown may not be */
    w->seen = w->version >= w->want;
    assert_true(cw_until(&w->seen, LONG));
    assert_true(cw_until(&w->kept, LONG));
    assert_int_equal(bns_etcd_lock_token(w->lock), w->token);
    assert_int_equal(w->losses + w->downs, 0);
    assert_int_equal(w->ends, 0);
    assert_int_equal(w->gones, 0);
    assert_int_equal(w->ups, 1);
    assert_int_equal(bns_etcd_peers_count(w->peers), 1);
}

static void close_all(struct world *w)
{
    bns_etcd_watch_close(w->watch);
    bns_etcd_lock_close(w->lock, NULL, NULL);
    bns_etcd_peers_close(w->peers);
    bns_etcd_member_close(w->member);
    cw_pass(BNS_SEC);
    bns_etcd_lease_close(w->lease, true);
    cw_pass(BNS_SEC);
    bns_etcd_free(w->c);
}

static void cut(bool off)
{
    for (unsigned i = 0; i < cw.servers; i++) {
        bns_world_block(cw.w, cw.servers, i, off);
        bns_world_block(cw.w, i, cw.servers, off);
    }
}

static void all_go_away_and_come_back(void **state)
{
    (void)state;
    for (unsigned fault = 0; fault < 2; fault++) { /* 0: killed, 1: cut off without a word */
        struct world w = {0};
        struct got g;
        uint64_t since;

        print_message("  %s\n", fault == 0 ? "killed" : "cut off");
        cw_new(70 + fault, 3, NULL);
        (void)cw_leader();
        open_all(&w, cw_client(NULL));
        all_goes_on(&w);
        for (unsigned i = 0; fault == 0 && i < 3; i++)
            bns_world_kill(cw.w, i);
        if (fault == 1)
            cut(true);
        since = bns_world_now(cw.w);
        for (unsigned i = 0; i < 2; i++) { /* one call after the other ends in time */
            g = put(w.c, "away");
            assert_true(g.status == BNS_GRPC_DEADLINE_EXCEEDED ||
                        (g.status == BNS_GRPC_UNAVAILABLE && g.unknown));
        }
        g = get(w.c, "away");
        assert_int_equal(g.status, BNS_GRPC_DEADLINE_EXCEEDED);
        assert_true(bns_world_now(cw.w) - since < 17 * BNS_SEC);
        cw_pass(10 * BNS_SEC);
        for (unsigned i = 0; fault == 0 && i < 3; i++)
            bns_world_restart(cw.w, i);
        cut(false);
        all_goes_on(&w);
        close_all(&w);
        cw_free();
    }
}

/* Away for longer than the lease lives: its loss is told in time, and all that hangs on it; the
 * member is there again by itself. */
static void away_for_longer_than_the_lease(void **state)
{
    struct world w = {0};
    uint64_t since;
    bool up;
    (void)state;

    cw_new(75, 3, NULL);
    (void)cw_leader();
    open_all(&w, cw_client(NULL));
    cut(true);
    since = bns_world_now(cw.w);
    while ((w.losses == 0 || w.downs == 0) && bns_world_now(cw.w) - since < 70 * BNS_SEC)
        cw_pass(BNS_SEC);
    assert_int_equal(w.losses, 1);
    assert_int_equal(w.downs, 1);
    assert_string_equal(w.why, "14 the server was silent: its connection was given up");
    assert_true(bns_world_now(cw.w) - since <= 61 * BNS_SEC);
    w.lease = NULL;
    cw_pass(20 * BNS_SEC);
    w.up = false;
    cut(false);
    up = cw_until(&w.up, LONG);
    assert_true(up);
    cw_pass(20 * BNS_SEC);
    assert_int_equal(w.ups, 2);
    assert_int_equal(w.losses, 2); /* the lock: its key has gone with the lease */
    assert_string_equal(w.why, "10 the lock's key has gone");
    w.lock = NULL;
    assert_int_equal(bns_etcd_peers_count(w.peers), 1);
    close_all(&w);
    cw_free();
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static void call(struct bns_etcd *c, enum bns_etcd_method m, const ProtobufCMessage *req)
{
    const struct bns_etcd_call_options o = {.method = m, .request = req};
    struct got g = {0};

    (void)wait_for(bns_etcd_call(c, &o, ended, &g, NULL), &g);
    if (g.status != 0)
        fail_msg("%s", g.text);
}

/* The user root with its role, and auth is on. */
static void enable_auth(void)
{
    Etcdserverpb__AuthUserAddRequest user = ETCDSERVERPB__AUTH_USER_ADD_REQUEST__INIT;
    Etcdserverpb__AuthRoleAddRequest role = ETCDSERVERPB__AUTH_ROLE_ADD_REQUEST__INIT;
    Etcdserverpb__AuthUserGrantRoleRequest grant = ETCDSERVERPB__AUTH_USER_GRANT_ROLE_REQUEST__INIT;
    Etcdserverpb__AuthEnableRequest enable = ETCDSERVERPB__AUTH_ENABLE_REQUEST__INIT;
    struct bns_etcd *c = cw_client(NULL);
    char root[] = "root", secret[] = "secret";

    user.name = role.name = grant.user = grant.role = root;
    user.password = secret;
    call(c, BNS_ETCD_USER_ADD, &user.base);
    call(c, BNS_ETCD_ROLE_ADD, &role.base);
    call(c, BNS_ETCD_USER_GRANT, &grant.base);
    call(c, BNS_ETCD_AUTH_ENABLE, &enable.base);
    bns_etcd_free(c);
}

static struct bns_etcd *as_root(const char *password)
{
    struct bns_etcd_options o = {.first_endpoint = true, .user = "root", .password = password};

    return cw_client(&o);
}

/* Tokens live in a member's memory: one that was started again knows none of them. */
static void a_token_is_replaced_when_its_server_was_restarted(void **state)
{
    struct world w = {0};
    struct bns_etcd *c;
    struct got g;
    (void)state;

    cw_extra = "--bcrypt-cost=4";
    cw_new(80, 1, NULL);
    cw_extra = NULL;
    (void)cw_leader();
    enable_auth();
    open_all(&w, as_root("secret"));
    all_goes_on(&w);
    for (unsigned i = 0; i < 3; i++) {
        bns_world_kill(cw.w, 0);
        cw_pass(BNS_SEC);
        bns_world_restart(cw.w, 0);
        (void)cw_leader();
        g = put(w.c, "other");
        if (g.status != 0)
            fail_msg("%d %s", g.status, g.text);
        all_goes_on(&w);
    }
    close_all(&w);
    c = as_root("wrong");
    g = put(c, "k");
    assert_int_equal(g.status, BNS_GRPC_INVALID_ARGUMENT);
    assert_string_equal(g.text, "etcdserver: authentication failed, invalid user ID or password");
    assert_false(g.unknown);
    bns_etcd_free(c);
    c = cw_client(NULL); /* nobody */
    g = put(c, "k");
    assert_int_equal(g.status, BNS_GRPC_INVALID_ARGUMENT);
    assert_string_equal(g.text, "etcdserver: user name is empty");
    bns_etcd_free(c);
    cw_free();
}

static void a_token_that_has_run_out_is_replaced(void **state)
{
    struct world w = {0};
    struct got g;
    (void)state;

    cw_extra = "--bcrypt-cost=4";
    cw_extra_2 = "--auth-token-ttl=2";
    cw_new(81, 3, NULL);
    cw_extra = cw_extra_2 = NULL;
    (void)cw_leader();
    enable_auth();
    open_all(&w, as_root("secret"));
    for (unsigned i = 0; i < 4; i++) {
        cw_pass((i % 2 == 0 ? 30u : 2u) * BNS_SEC); /* 2 s: about when it runs out */
        g = put(w.c, "other");
        if (g.status != 0)
            fail_msg("%d %s", g.status, g.text);
        g = get(w.c, "other");
        assert_int_equal(g.count, 1);
        all_goes_on(&w);
    }
    close_all(&w);
    cw_free();
}

/* A thousand calls at once with a token that is gone: one new token is enough for all. */
static void many_calls_ask_for_one_new_token(void **state)
{
    static struct got g[1000];
    struct bns_etcd *c;
    (void)state;

    cw_extra = "--bcrypt-cost=4";
    cw_new(82, 1, NULL);
    cw_extra = NULL;
    (void)cw_leader();
    enable_auth();
    c = as_root("secret");
    assert_int_equal(put(c, "k").status, 0);
    bns_world_kill(cw.w, 0);
    bns_world_restart(cw.w, 0);
    (void)cw_leader();
    memset(g, 0, sizeof g);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(bns_etcd_get(c, BNS_LIT("k"), bns_slice(NULL, 0), ranged, &g[i]), BNS_OK);
    for (size_t i = 0; i < 1000; i++) {
        assert_true(cw_until(&g[i].done, LONG));
        assert_int_equal(g[i].status, 0);
        assert_int_equal(g[i].times, 1);
    }
    bns_etcd_free(c);
    cw_free();
}

struct owner {
    struct bns_etcd *c;
    bool done;
    int status;
};

static void ended_and_freed(void *arg, const struct bns_etcd_answer *a)
{
    struct owner *o = arg;

    o->status = a->status;
    o->done = true;
    bns_etcd_free(o->c);
}

/* Whatever ends a call, its done may free the client: time that ran out between two attempts (all
 * are away), a token that cannot be had, an answer. */
static void a_client_is_freed_in_the_done_of_any_call(void **state)
{
    static const int want[] = {BNS_GRPC_DEADLINE_EXCEEDED, BNS_GRPC_INVALID_ARGUMENT, BNS_GRPC_OK};
    (void)state;

    for (unsigned i = 0; i < 3; i++) {
        struct owner o = {0};

        cw_extra = "--bcrypt-cost=4";
        cw_new(83 + i, 1, NULL);
        cw_extra = NULL;
        (void)cw_leader();
        enable_auth();
        o.c = as_root(i == 1 ? "wrong" : "secret");
        if (i == 0)
            bns_world_kill(cw.w, 0);
        assert_int_equal(bns_etcd_put(o.c, BNS_LIT("k"), BNS_LIT("v"), 0, ended_and_freed, &o),
                         BNS_OK);
        assert_true(cw_until(&o.done, LONG));
        assert_int_equal(o.status, want[i]);
        cw_pass(BNS_SEC);
        cw_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_is_freed_in_the_done_of_any_call),
        cmocka_unit_test(all_go_away_and_come_back),
        cmocka_unit_test(away_for_longer_than_the_lease),
        cmocka_unit_test(a_token_is_replaced_when_its_server_was_restarted),
        cmocka_unit_test(a_token_that_has_run_out_is_replaced),
        cmocka_unit_test(many_calls_ask_for_one_new_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
