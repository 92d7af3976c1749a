/* Goal:   watches of the client lose and repeat nothing; the loss of a lease is told in time.
 * Method: real servers in a simulated world (client_world.h); connections, servers and leaders go
 *         away under streams. */
#include "client_world.h"

#include "client/etcd/lease.h"
#include "client/etcd/watch.h"

struct seen {
    bool created, ended, enough, wrong;
    int status;
    char text[128];
    int64_t compacted, last, progress;
    unsigned events, want;
    struct bns_etcd_watch *close; /* in the first event */
};

static void on_created(void *arg, int64_t revision)
{
    struct seen *s = arg;

    s->wrong = s->wrong || s->created || revision < 1;
    s->created = true;
}

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct seen *s = arg;

    for (size_t i = 0; i < r->n_events; i++) {
        int64_t rev = r->events[i]->kv->mod_revision;

        s->wrong = s->wrong || rev != s->last + 1; /* one key a revision, and nobody else writes */
        s->last = rev;
        s->events++;
    }
    s->enough = s->events >= s->want;
    if (s->close != NULL)
        bns_etcd_watch_close(s->close);
    s->close = NULL;
}

static void on_progress(void *arg, int64_t revision)
{
    ((struct seen *)arg)->progress = revision;
}

static void on_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct seen *s = arg;

    s->ended = true;
    s->status = status;
    s->compacted = compacted;
    (void)snprintf(s->text, sizeof s->text, "%s", text);
}

static const struct bns_etcd_watch_handler watching = {on_created, on_events, on_progress, on_end};

struct put {
    bool done;
    int status;
};

static void on_put(void *arg, const struct bns_etcd_answer *a)
{
    struct put *p = arg;

    p->done = true;
    p->status = a->status;
}

/* Puts until `count` were acknowledged. */
static void put_some(struct bns_etcd *c, unsigned count)
{
    for (unsigned i = 0; i < count;) {
        struct put p = {0};

        assert_int_equal(bns_etcd_put(c, BNS_LIT("k"), BNS_LIT("v"), 0, on_put, &p), BNS_OK);
        assert_true(cw_until(&p.done, 60 * BNS_SEC));
        i += p.status == 0;
    }
}

static struct bns_etcd_watch *watch(struct bns_etcd *c, struct seen *s, int64_t from)
{
    struct bns_etcd_watch_options o = {.key = BNS_LIT("k"),
                                       .start_revision = from,
                                       .trust_progress = true,
                                       .handler = &watching,
                                       .arg = s};
    struct bns_etcd_watch *w = NULL;

    assert_int_equal(bns_etcd_watch_open(c, &o, &w), BNS_OK);
    return w;
}

/* The server of the stream dies, is cut off without a word, its connection is reset: nothing is
 * missing and nothing comes twice. */
static void a_watch_resumes_where_it_was(void **state)
{
    (void)state;
    for (unsigned fault = 0; fault < 3; fault++) {
        struct bns_etcd *c, *writer;
        struct bns_etcd_options o = {.first_endpoint = true};
        struct seen s = {.last = 1};
        struct bns_etcd_watch *w;
        unsigned lead;

        cw_new(10 + fault, 3, NULL);
        lead = cw_leader();
        const char *order[3] = {cw.endpoints[(lead + 1) % 3], cw.endpoints[lead],
                                cw.endpoints[(lead + 2) % 3]};
        o.endpoints = order;
        o.endpoints_count = 3;
        c = cw_client(&o);
        o.endpoints = order + 1;
        o.endpoints_count = 2;
        writer = cw_client(&o);
        w = watch(c, &s, 2);
        assert_true(cw_until(&s.created, 10 * BNS_SEC));
        for (unsigned round = 0; round < 3; round++) {
            put_some(writer, 5);
            if (fault == 0 && bns_world_state(cw.w, (lead + 1) % 3) == BNS_NODE_UP)
                bns_world_kill(cw.w, (lead + 1) % 3);
            if (fault == 1) {
                bns_world_block(cw.w, (lead + 1) % 3, 3, true);
                bns_world_block(cw.w, 3, (lead + 1) % 3, true);
            }
            if (fault == 2)
                bns_world_reset_one(cw.w, 3, round == 1);
            put_some(writer, 5);
        }
        s.want = 30;
        s.enough = s.events >= s.want;
        assert_true(cw_until(&s.enough, 60 * BNS_SEC));
        assert_int_equal(s.events, 30);
        assert_false(s.wrong);
        bns_etcd_watch_close(w);
        bns_etcd_free(c);
        bns_etcd_free(writer);
        cw_free();
    }
}

static void compaction_is_told_with_the_revision_that_is_left(void **state)
{
    Etcdserverpb__CompactionRequest req = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_COMPACT, .request = &req.base};
    struct bns_etcd *c;
    struct seen s = {.last = 1};
    struct put p = {0};
    (void)state;

    cw_new(20, 1, NULL);
    c = cw_client(NULL);
    put_some(c, 9);
    req.has_revision = true;
    req.revision = 7;
    assert_int_equal(bns_etcd_call(c, &o, on_put, &p, NULL), BNS_OK);
    assert_true(cw_until(&p.done, BNS_SEC));
    (void)watch(c, &s, 3);
    assert_true(cw_until(&s.ended, 10 * BNS_SEC));
    assert_int_equal(s.status, 11);
    assert_int_equal(s.compacted, 7);
    assert_string_equal(s.text, "etcdserver: mvcc: required revision has been compacted");
    assert_int_equal(s.events, 0);
    bns_etcd_free(c);
    cw_free();
}

static void a_watch_can_be_closed_in_its_own_event(void **state)
{
    struct bns_etcd *c;
    struct seen s = {.last = 1, .want = 1};
    (void)state;

    cw_new(21, 1, NULL);
    c = cw_client(NULL);
    s.close = watch(c, &s, 0);
    assert_true(cw_until(&s.created, 10 * BNS_SEC));
    put_some(c, 3);
    cw_pass(BNS_SEC);
    assert_int_equal(s.events, 1);
    bns_etcd_free(c);
    cw_free();
}

static void a_quiet_watch_learns_how_far_it_has_seen(void **state)
{
    struct bns_etcd *c;
    struct seen s = {.last = 1};
    struct bns_etcd_watch *w;
    struct put p = {0};
    (void)state;

    cw_new(22, 1, NULL);
    c = cw_client(NULL);
    w = watch(c, &s, 0);
    assert_true(cw_until(&s.created, 10 * BNS_SEC));
    assert_int_equal(bns_etcd_put(c, BNS_LIT("other"), BNS_LIT("v"), 0, on_put, &p), BNS_OK);
    assert_true(cw_until(&p.done, BNS_SEC));
    cw_pass(20 * BNS_SEC);
    assert_int_equal(s.progress, 2);
    assert_int_equal(bns_etcd_watch_next(w), 3);
    assert_int_equal(s.events, 0);
    bns_etcd_watch_close(w);
    bns_etcd_free(c);
    cw_free();
}

/* ---- leases ---------------------------------------------------------------------------------- */

struct held {
    bool granted, lost;
    unsigned kept;
    int64_t id, ttl;
    uint64_t lost_ns;
    int status;
    char text[128];
};

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    struct held *h = arg;

    h->granted = true;
    h->id = id;
    h->ttl = ttl;
}

static void on_kept(void *arg, int64_t ttl)
{
    (void)ttl;
    ((struct held *)arg)->kept++;
}

static void on_lost(void *arg, int status, const char *text)
{
    struct held *h = arg;

    h->lost = true;
    h->lost_ns = bns_world_now(cw.w);
    h->status = status;
    (void)snprintf(h->text, sizeof h->text, "%s", text);
}

static const struct bns_etcd_lease_handler holding = {on_granted, on_kept, on_lost};

static struct bns_etcd_lease *hold(struct bns_etcd *c, struct held *h, int64_t ttl)
{
    struct bns_etcd_lease_options o = {.ttl_s = ttl, .handler = &holding, .arg = h};
    struct bns_etcd_lease *l = NULL;

    assert_int_equal(bns_etcd_lease_open(c, &o, &l), BNS_OK);
    assert_true(cw_until(&h->granted, 10 * BNS_SEC));
    return l;
}

static int64_t ttl_of(struct bns_etcd *c, int64_t id);

static void ttl_told(void *arg, const struct bns_etcd_answer *a)
{
    *(int64_t *)arg =
        a->status == 0 ? ((const Etcdserverpb__LeaseTimeToLiveResponse *)(const void *)a->msg)->ttl
                       : -2;
}

static int64_t ttl_of(struct bns_etcd *c, int64_t id)
{
    Etcdserverpb__LeaseTimeToLiveRequest req = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_LEASE_TTL, .request = &req.base};
    int64_t ttl = -3;

    req.has_id = true;
    req.id = id;
    assert_int_equal(bns_etcd_call(c, &o, ttl_told, &ttl, NULL), BNS_OK);
    for (int i = 0; i < 100 && ttl == -3; i++)
        cw_pass(100 * BNS_MS);
    return ttl;
}

static void a_lease_is_kept_through_the_loss_of_the_leader(void **state)
{
    struct bns_etcd *c;
    struct held h = {0};
    struct bns_etcd_lease *l;
    unsigned lead;
    (void)state;

    cw_new(30, 3, NULL);
    lead = cw_leader();
    c = cw_client(NULL);
    l = hold(c, &h, 9);
    cw_pass(10 * BNS_SEC);
    bns_world_power_cut(cw.w, lead);
    cw_pass(30 * BNS_SEC);
    assert_false(h.lost);
    assert_true(h.kept >= 8);
    assert_true(ttl_of(c, h.id) > 0);
    bns_etcd_lease_close(l, true);
    cw_pass(BNS_SEC);
    assert_int_equal(ttl_of(c, h.id), -1);
    bns_etcd_free(c);
    cw_free();
}

/* Told before the server can have given it to somebody else. */
static void loss_is_told_before_the_lease_can_have_expired(void **state)
{
    struct bns_etcd *c;
    struct held h = {0};
    struct bns_etcd_lease *l;
    uint64_t until;
    (void)state;

    cw_new(31, 1, NULL);
    c = cw_client(NULL);
    l = hold(c, &h, 6);
    cw_pass(7 * BNS_SEC);
    assert_false(h.lost);
    bns_world_block(cw.w, 0, 1, true);
    bns_world_block(cw.w, 1, 0, true);
    until = bns_etcd_lease_until_ns(l);
    assert_true(cw_until(&h.lost, 20 * BNS_SEC));
    assert_true(bns_world_now(cw.w) < until + 100 * BNS_MS);
    assert_true(h.lost_ns > 7 * BNS_SEC);
    bns_etcd_free(c);
    cw_free();
}

static void a_revoked_lease_is_told(void **state)
{
    Etcdserverpb__LeaseRevokeRequest req = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    const struct bns_etcd_call_options o = {.method = BNS_ETCD_LEASE_REVOKE, .request = &req.base};
    struct bns_etcd *c;
    struct held h = {0};
    struct put p = {0};
    (void)state;

    cw_new(32, 1, NULL);
    c = cw_client(NULL);
    (void)hold(c, &h, 6);
    req.has_id = true;
    req.id = h.id;
    assert_int_equal(bns_etcd_call(c, &o, on_put, &p, NULL), BNS_OK);
    assert_true(cw_until(&h.lost, 10 * BNS_SEC));
    assert_int_equal(h.status, 5);
    assert_string_equal(h.text, "etcdserver: requested lease not found");
    bns_etcd_free(c);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_watch_resumes_where_it_was),
        cmocka_unit_test(compaction_is_told_with_the_revision_that_is_left),
        cmocka_unit_test(a_watch_can_be_closed_in_its_own_event),
        cmocka_unit_test(a_quiet_watch_learns_how_far_it_has_seen),
        cmocka_unit_test(a_lease_is_kept_through_the_loss_of_the_leader),
        cmocka_unit_test(loss_is_told_before_the_lease_can_have_expired),
        cmocka_unit_test(a_revoked_lease_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
