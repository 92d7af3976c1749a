/* Goal:   out of memory at any one allocation, each feature of the client ends well: a call begins
 *         nothing or has one answer, which does not deny what was done; what tries again by itself
 *         gets there; nothing leaks.
 * Method: a real server in a simulated world (client_world.h); the n-th allocation of the client's
 *         node fails, for n = 1, 2, ... until a round is through before it. */
#include "client_world.h"

#include "client/etcd/lease.h"
#include "client/etcd/lock.h"
#include "client/etcd/peers.h"
#include "client/etcd/watch.h"

#define LONG (30 * BNS_SEC)

struct got {
    bool done, unknown, succeeded;
    unsigned times;
    int status;
    int64_t count, version;
    char value[32];
};

static struct bns_etcd *client;

static void ended(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;

    g->done = true;
    g->times++;
    g->status = a->status;
    g->unknown = a->unknown;
}

static void ranged(void *arg, const struct bns_etcd_answer *a)
{
    struct got *g = arg;
    const Etcdserverpb__RangeResponse *r = (const void *)a->msg;

    ended(arg, a);
    if (a->status != BNS_GRPC_OK)
        return;
    g->count = r->count;
    if (r->n_kvs == 0)
        return;
    g->version = r->kvs[0]->version;
    (void)snprintf(g->value, sizeof g->value, "%.*s", (int)r->kvs[0]->value.len,
                   (const char *)r->kvs[0]->value.data);
}

static void txned(void *arg, const struct bns_etcd_answer *a)
{
    ended(arg, a);
    if (a->status == BNS_GRPC_OK)
        ((struct got *)arg)->succeeded =
            ((const Etcdserverpb__TxnResponse *)(const void *)a->msg)->succeeded;
}

/* Answered once, or never begun. */
static struct got wait_for(int rv, struct got *g)
{
    if (rv != BNS_OK) {
        assert_int_equal(rv, BNS_E_NOMEM);
        g->status = -1;
        return *g;
    }
    assert_true(cw_until(&g->done, LONG));
    assert_int_equal(g->times, 1);
    return *g;
}

static void no_more_failures(void)
{
    bns_test_heap_fail_at(bns_world_heap(cw.w, cw.servers), 0);
}

static struct got get_range(struct bns_slice key, struct bns_slice end)
{
    struct got g = {0};

    (void)wait_for(bns_etcd_get(client, key, end, ranged, &g), &g);
    return g;
}

/* What is there, surely. */
static struct got look(const char *key)
{
    struct got g;

    no_more_failures();
    g = get_range(bns_slice_str(key), bns_slice(NULL, 0));
    assert_int_equal(g.status, 0);
    return g;
}

/* Does the answer to a write agree with what is there? */
static void agrees(const struct got *g, bool there)
{
    if (g->status == 0)
        assert_true(there);
    else if (!g->unknown)
        assert_false(there);
}

/* `round` begins with a client that has not dialled; the n-th allocation from there on fails. */
static void sweep(uint64_t seed, void (*round)(unsigned n), void (*prepare)(void))
{
    struct bns_test_heap *heap;
    unsigned n = 0;
    bool fired = true;

    cw_new(seed, 1, NULL);
    heap = bns_world_heap(cw.w, cw.servers);
    (void)cw_leader();
    while (fired) {
        size_t in_use = bns_test_heap_in_use(heap);
        uint64_t calls;

        n++;
        client = cw_client(NULL);
        if (prepare != NULL)
            prepare();
        calls = bns_test_heap_calls(heap);
        bns_test_heap_fail_at(heap, (int)n);
        round(n);
        no_more_failures();
        fired = bns_test_heap_calls(heap) - calls >= n;
        bns_etcd_free(client);
        cw_pass(100 * BNS_MS);
        if (bns_test_heap_in_use(heap) != in_use)
            fail_msg("allocation %u failed, and %zu bytes leaked", n,
                     bns_test_heap_in_use(heap) - in_use);
    }
    print_message("  %u allocations\n", n - 1);
    assert_true(n > 10);
    cw_free();
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void put_round(unsigned n)
{
    struct got g = {0};
    char key[16];

    (void)snprintf(key, sizeof key, "p%u", n);
    (void)wait_for(bns_etcd_put(client, bns_slice_str(key), BNS_LIT("v"), 0, ended, &g), &g);
    agrees(&g, look(key).count == 1);
}

static void get_round(unsigned n)
{
    struct got g = {0};

    (void)n;
    g = get_range(BNS_LIT("p1"), bns_slice(NULL, 0));
    assert_true(g.status == 0 || g.status == -1 || g.status == BNS_GRPC_INTERNAL ||
                g.status == BNS_GRPC_RESOURCE_EXHAUSTED);
    assert_false(g.unknown); /* it only reads */
}

static void txn_round(unsigned n)
{
    struct got g = {0};
    char key[16];
    struct bns_etcd_cas cas = {.value = BNS_LIT("v")};

    (void)snprintf(key, sizeof key, "t%u", n);
    cas.key = bns_slice_str(key);
    (void)wait_for(bns_etcd_put_if(client, &cas, txned, &g), &g);
    if (g.status == 0)
        assert_true(g.succeeded);
    agrees(&g, look(key).count == 1);
}

static void calls_begin_nothing_or_have_one_answer(void **state)
{
    (void)state;
    sweep(1, put_round, NULL);
    sweep(2, get_round, NULL);
    sweep(3, txn_round, NULL);
}

static void a_client_without_memory_is_none(void **state)
{
    struct bns_etcd_options o = {.user = "u", .password = "p"};
    struct bns_test_heap *heap;
    struct bns_etcd *c = NULL;
    int rv = BNS_E_NOMEM;
    (void)state;

    cw_new(4, 1, NULL);
    heap = bns_world_heap(cw.w, cw.servers);
    o.endpoints = cw.endpoints;
    o.endpoints_count = 1;
    for (int n = 1; rv != BNS_OK; n++) {
        bns_test_heap_fail_at(heap, n);
        rv = bns_etcd_new(cw.env, &o, &c, NULL);
        assert_true(rv == BNS_OK || rv == BNS_E_NOMEM);
        bns_test_heap_fail_at(heap, 0);
        assert_true(n < 10);
    }
    bns_etcd_free(c);
    cw_free();
}

/* ---- watches --------------------------------------------------------------------------------- */

struct seen {
    int64_t version, want;
    bool enough, created, wrong, over;
};

static void on_created(void *arg, int64_t revision)
{
    (void)revision;
    ((struct seen *)arg)->created = true;
}

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct seen *s = arg;

    for (size_t i = 0; i < r->n_events; i++) {
        s->wrong = s->wrong || r->events[i]->kv->version != s->version + 1;
        s->version = r->events[i]->kv->version;
    }
    s->enough = s->want != 0 && s->version >= s->want;
}

static void on_end(void *arg, int status, const char *text, int64_t compacted)
{
    (void)status;
    (void)text;
    (void)compacted;
    ((struct seen *)arg)->over = true;
}

/* Three puts, acknowledged or not; the versions of the key tell which came. */
static void watch_round(unsigned n)
{
    static const struct bns_etcd_watch_handler handler = {on_created, on_events, NULL, on_end};
    struct seen s = {0};
    char key[16];
    struct bns_etcd_watch_options o = {.start_revision = 1, .handler = &handler, .arg = &s};
    struct bns_etcd_watch *w = NULL;
    int rv;

    (void)snprintf(key, sizeof key, "w%u", n);
    o.key = bns_slice_str(key);
    rv = bns_etcd_watch_open(client, &o, &w);
    if (rv != BNS_OK) {
        assert_int_equal(rv, BNS_E_NOMEM);
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        struct got g = {0};

        (void)wait_for(bns_etcd_put(client, o.key, BNS_LIT("v"), 0, ended, &g), &g);
    }
    s.want = look(key).version;
    s.enough = s.version >= s.want;
    assert_true(cw_until(&s.enough, LONG));
    assert_false(s.wrong);
    assert_false(s.over);
    bns_etcd_watch_close(w);
}

static void a_watch_resumes_and_misses_nothing(void **state)
{
    (void)state;
    sweep(5, watch_round, NULL);
}

/* ---- leases ---------------------------------------------------------------------------------- */

struct one {
    bool granted, kept, lost, held, over;
    unsigned ends;
    int64_t lease, token;
    char leader[16];
    bool wanted; /* the leader is who was waited for */
};

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    (void)ttl;
    ((struct one *)arg)->granted = true;
    ((struct one *)arg)->lease = id;
}

static void on_kept(void *arg, int64_t ttl)
{
    (void)ttl;
    ((struct one *)arg)->kept = ((struct one *)arg)->over = true;
}

static void on_lost(void *arg, int status, const char *text)
{
    struct one *o = arg;

    assert_true(status != BNS_GRPC_OK);
    assert_true(text[0] != '\0');
    o->lost = o->over = true;
    o->ends++;
}

static const struct bns_etcd_lease_handler leasing = {on_granted, on_kept, on_lost};

static void lease_round(unsigned n)
{
    struct one o = {0};
    struct bns_etcd_lease *l = NULL;
    const struct bns_etcd_lease_options lo = {.ttl_s = 3, .handler = &leasing, .arg = &o};
    int rv = bns_etcd_lease_open(client, &lo, &l);

    (void)n;
    if (rv != BNS_OK) {
        assert_int_equal(rv, BNS_E_NOMEM);
        return;
    }
    assert_true(cw_until(&o.over, LONG)); /* kept alive, or said to be lost */
    if (o.lost) {
        assert_int_equal(o.ends, 1);
        return;
    }
    bns_etcd_lease_close(l, true);
    cw_pass(BNS_SEC);
    assert_int_equal(o.ends, 0);
}

static void a_lease_is_kept_or_said_to_be_lost(void **state)
{
    (void)state;
    sweep(6, lease_round, NULL);
}

/* ---- locks and elections --------------------------------------------------------------------- */

static struct one me;
static struct bns_etcd_lease *my_lease;
static struct bns_etcd *helper; /* has the lease: what becomes of it does not depend on `client` */

static void take_lease(void)
{
    const struct bns_etcd_lease_options lo = {.ttl_s = 60, .handler = &leasing, .arg = &me};

    memset(&me, 0, sizeof me);
    helper = cw_client(NULL);
    assert_int_equal(bns_etcd_lease_open(helper, &lo, &my_lease), BNS_OK);
    assert_true(cw_until(&me.granted, LONG));
}

static void drop_lease(void)
{
    no_more_failures();
    bns_etcd_lease_close(my_lease, true);
    cw_pass(BNS_SEC);
    bns_etcd_free(helper);
}

static void on_held(void *arg, struct bns_slice key, int64_t token)
{
    struct one *o = arg;

    assert_true(key.len > 0);
    o->held = o->over = true;
    o->token = token;
}

static const struct bns_etcd_lock_handler locking = {on_held, on_lost};

static struct bns_etcd_lock *lock_begin(struct one *o, const char *value)
{
    const struct bns_etcd_lock_options lo = {.name = BNS_LIT("lock"),
                                             .value = bns_slice_str(value),
                                             .lease = me.lease,
                                             .handler = &locking,
                                             .arg = o};
    struct bns_etcd_lock *l = NULL;
    int rv = bns_etcd_lock_open(client, &lo, &l);

    assert_true(rv == BNS_OK || rv == BNS_E_NOMEM);
    return rv == BNS_OK ? l : NULL;
}

static void lock_round(unsigned n)
{
    struct one o = {0};
    struct got g = {0};
    struct bns_etcd_lock *l = lock_begin(&o, "");

    (void)n;
    if (l != NULL) {
        assert_true(cw_until(&o.over, LONG));
        assert_true(o.held); /* it tries until it has it */
        assert_int_equal(bns_etcd_lock_token(l), o.token);
        bns_etcd_lock_close(l, ended, &g);
        assert_true(cw_until(&g.done, LONG));
        assert_int_equal(g.times, 1);
        no_more_failures();
        if (g.status == 0)
            assert_int_equal(get_range(BNS_LIT("lock/"), BNS_LIT("lock0")).count, 0);
    }
    drop_lease();
    assert_int_equal(get_range(BNS_LIT("lock/"), BNS_LIT("lock0")).count, 0);
}

static void on_leader(void *arg, const Etcdserverpb__KeyValue *kv)
{
    struct one *o = arg;

    (void)snprintf(o->leader, sizeof o->leader, "%.*s", (int)kv->value.len,
                   (const char *)kv->value.data);
    o->wanted = kv->value.len == 3 && memcmp(kv->value.data, "two", 3) == 0;
}

static const struct bns_etcd_observe_handler observing = {on_leader, NULL, on_lost};

static void election_round(unsigned n)
{
    struct one o = {0}, seen = {0};
    struct bns_etcd_observe *w = NULL;
    int rv = bns_etcd_observe_open(client, BNS_LIT("lock"), &observing, &seen, &w);
    struct bns_etcd_lock *l = lock_begin(&o, "one");

    (void)n;
    assert_true(rv == BNS_OK || rv == BNS_E_NOMEM);
    if (l != NULL) {
        struct got g = {.status = -1};

        assert_true(cw_until(&o.over, LONG));
        assert_true(o.held);
        while (g.status != 0) { /* the same again does no harm */
            g = (struct got){0};
            (void)wait_for(bns_etcd_lock_proclaim(l, BNS_LIT("two"), txned, &g), &g);
        }
        assert_true(g.succeeded);
        if (rv == BNS_OK)
            assert_true(cw_until(&seen.wanted, LONG));
        bns_etcd_lock_close(l, NULL, NULL);
    }
    if (rv == BNS_OK)
        bns_etcd_observe_close(w);
    assert_int_equal(seen.ends, 0);
    drop_lease();
}

static void a_lock_is_had_in_the_end_and_leaves_no_key(void **state)
{
    (void)state;
    sweep(7, lock_round, take_lease);
}

static void an_election_is_won_and_seen(void **state)
{
    (void)state;
    sweep(8, election_round, take_lease);
}

/* ---- members --------------------------------------------------------------------------------- */

struct view {
    bool up, there, gone, over;
};

static void on_up(void *arg, int64_t revision)
{
    assert_true(revision > 0);
    ((struct view *)arg)->up = true;
}

static void on_peer(void *arg, struct bns_slice name, struct bns_slice value, int64_t revision)
{
    struct view *v = arg;

    assert_true(bns_slice_eq(name, BNS_LIT("ann")));
    assert_true(bns_slice_eq(value, BNS_LIT("here")));
    assert_true(revision > 0);
    v->there = true;
    v->gone = false;
}

static void on_gone(void *arg, struct bns_slice name)
{
    assert_true(bns_slice_eq(name, BNS_LIT("ann")));
    ((struct view *)arg)->gone = true;
}

static void on_peers_end(void *arg, int status, const char *text)
{
    (void)status;
    (void)text;
    ((struct view *)arg)->over = true;
}

static void member_round(unsigned n)
{
    static const struct bns_etcd_member_handler registering = {on_up, NULL};
    static const struct bns_etcd_peers_handler viewing = {on_peer, on_gone, NULL, on_peers_end};
    struct view v = {0};
    struct bns_etcd_member_options o = {.prefix = BNS_LIT("svc/"),
                                        .name = BNS_LIT("ann"),
                                        .value = BNS_LIT("here"),
                                        .ttl_s = 2,
                                        .handler = &registering,
                                        .arg = &v};
    struct bns_etcd_member *m = NULL;
    struct bns_etcd_peers *p = NULL;
    bool watches = bns_etcd_peers_open(client, o.prefix, &viewing, &v, &p) == BNS_OK;

    (void)n;
    if (bns_etcd_member_open(client, &o, &m) == BNS_OK) {
        assert_true(cw_until(&v.up, LONG));
        if (watches)
            assert_true(cw_until(&v.there, LONG));
        bns_etcd_member_close(m);
        if (watches)
            assert_true(cw_until(&v.gone, LONG)); /* revoked, or run out */
    }
    assert_false(v.over);
    if (watches)
        bns_etcd_peers_close(p);
    cw_pass(3 * BNS_SEC); /* the name is free again */
}

static void a_member_is_registered_and_seen_in_the_end(void **state)
{
    (void)state;
    sweep(9, member_round, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_begin_nothing_or_have_one_answer),
        cmocka_unit_test(a_client_without_memory_is_none),
        cmocka_unit_test(a_watch_resumes_and_misses_nothing),
        cmocka_unit_test(a_lease_is_kept_or_said_to_be_lost),
        cmocka_unit_test(a_lock_is_had_in_the_end_and_leaves_no_key),
        cmocka_unit_test(an_election_is_won_and_seen),
        cmocka_unit_test(a_member_is_registered_and_seen_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
