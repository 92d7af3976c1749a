/* Goal:   what a client does with answers that a real server gives seldom: failures that leave open
 *         whether something was done, dials that hang, events in fragments, messages too large.
 * Method: a server that answers what the test tells it to (fake_etcd.h), in a simulated world. */
#include "fake_etcd.h"

#include "client/etcd/lease.h"
#include "client/etcd/lock.h"
#include "client/etcd/watch.h"

struct got {
    bool done, unknown;
    unsigned times;
    int status;
    char text[160];
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

static struct got call(struct bns_etcd *c, enum bns_etcd_method m, const ProtobufCMessage *req)
{
    struct bns_etcd_call_options o = {
        .method = m, .request = req, .deadline_ns = bns_now_ns(cw.env) + 3 * BNS_SEC};
    struct got g = {0};

    assert_int_equal(bns_etcd_call(c, &o, ended, &g, NULL), BNS_OK);
    assert_true(cw_until(&g.done, 60 * BNS_SEC));
    return g;
}

/* Everything that changes something is sent once, whatever etcd's own client does with it. */
static void what_may_have_happened_is_not_sent_again(void **state)
{
    static Etcdserverpb__LeaseGrantRequest grant = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    static Etcdserverpb__LeaseRevokeRequest revoke = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    static Etcdserverpb__AlarmRequest off = ETCDSERVERPB__ALARM_REQUEST__INIT;
    static Etcdserverpb__AlarmRequest list = ETCDSERVERPB__ALARM_REQUEST__INIT;
    static Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    static Etcdserverpb__RangeRequest get = ETCDSERVERPB__RANGE_REQUEST__INIT;
    static const struct {
        const char *name;
        enum bns_etcd_method m;
        const ProtobufCMessage *request;
        bool again;
    } t[] = {
        {"grant", BNS_ETCD_LEASE_GRANT, &grant.base, false},
        {"revoke", BNS_ETCD_LEASE_REVOKE, &revoke.base, false},
        {"alarm off", BNS_ETCD_ALARM, &off.base, false},
        {"alarm list", BNS_ETCD_ALARM, &list.base, true},
        {"put", BNS_ETCD_PUT, &put.base, false},
        {"get", BNS_ETCD_RANGE, &get.base, true},
    };
    struct bns_etcd *c;
    (void)state;

    off.has_action = true;
    off.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    fake_world(1, 2);
    fake.status = BNS_GRPC_UNAVAILABLE;
    fake.text = "etcdserver: leader changed";
    c = cw_client(NULL);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct got g;

        print_message("  %s\n", t[i].name);
        fake.seen[t[i].m] = 0;
        g = call(c, t[i].m, t[i].request);
        assert_int_equal(g.status, t[i].again ? BNS_GRPC_DEADLINE_EXCEEDED : BNS_GRPC_UNAVAILABLE);
        assert_int_equal(g.unknown, !t[i].again);
        if (t[i].again)
            assert_true(fake.seen[t[i].m] > 2);
        else
            assert_int_equal(fake.seen[t[i].m], 1);
    }
    bns_etcd_free(c);
    cw_free();
}

static void a_failure_says_whether_the_effect_may_have_happened(void **state)
{
    static const struct {
        int status;
        const char *text;
        bool unknown;
    } t[] = {
        {BNS_GRPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)", true},
        {BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", false},
        {BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests", false},
        {BNS_GRPC_DEADLINE_EXCEEDED, "context deadline exceeded", true},
        {BNS_GRPC_UNAVAILABLE, "etcdserver: request timed out", true},
        {BNS_GRPC_UNKNOWN, "context canceled", true},
        {BNS_GRPC_INVALID_ARGUMENT, "etcdserver: key is not provided", false},
        {BNS_GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists", false},
        {-1, "context deadline exceeded", true}, /* never answered */
    };
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    struct bns_etcd *c;
    (void)state;

    fake_world(2, 1);
    c = cw_client(NULL);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct got g;

        print_message("  %d %s\n", t[i].status, t[i].text);
        fake.status = t[i].status;
        fake.text = t[i].text;
        g = call(c, BNS_ETCD_PUT, &put.base);
        assert_int_equal(g.status, t[i].status < 0 ? BNS_GRPC_DEADLINE_EXCEEDED : t[i].status);
        assert_string_equal(g.text, t[i].text);
        assert_int_equal(g.unknown, t[i].unknown);
    }
    bns_world_block(cw.w, 1, 0, true);
    bns_world_block(cw.w, 0, 1, true);
    bns_etcd_free(c);
    c = cw_client(NULL); /* it never gets a connection: nothing can have happened */
    assert_false(call(c, BNS_ETCD_PUT, &put.base).unknown);
    bns_etcd_free(c);
    cw_free();
}

/* Calls that come all the time do not put off the moment at which a dial is given up. */
static void a_dial_that_hangs_is_given_up_under_steady_calls(void **state)
{
    struct bns_etcd *c;
    struct got g[20] = {0};
    unsigned n = 0;
    (void)state;

    fake_world(3, 2);
    bns_world_block(cw.w, 2, 0, true);
    bns_world_block(cw.w, 0, 2, true);
    c = cw_client(NULL);
    for (; n < 20 && !g[0].done; n++) {
        assert_int_equal(bns_etcd_put(c, BNS_LIT("k"), BNS_LIT("v"), 0, ended, &g[n]), BNS_OK);
        cw_pass(200 * BNS_MS);
    }
    assert_true(n >= 10);
    assert_true(n <= 11);                                 /* 2 s */
    assert_int_equal(g[0].status, 0 + BNS_GRPC_INTERNAL); /* an answer without a message */
    cw_pass(10 * BNS_SEC);
    bns_etcd_free(c);
    cw_free();
}

/* ---- leases -------------------------------------------------------------------------------- */

static int64_t granted_ids[4];
static unsigned first_lost;

/* The first grants are done, but the answer is lost; then as etcd does. */
static void take_grant(struct bns_grpc_call *c, enum bns_etcd_method m, struct bns_slice msg)
{
    Etcdserverpb__LeaseGrantRequest *r;
    Etcdserverpb__LeaseGrantResponse a = ETCDSERVERPB__LEASE_GRANT_RESPONSE__INIT;
    int64_t id;

    if (m != BNS_ETCD_LEASE_GRANT)
        return;
    r = etcdserverpb__lease_grant_request__unpack(NULL, msg.len, msg.ptr);
    assert_non_null(r);
    id = r->id;
    etcdserverpb__lease_grant_request__free_unpacked(r, NULL);
    assert_true(id > 0);
    granted_ids[fake.seen[m] - 1] = id;
    if (fake.seen[m] <= first_lost) {
        fake_finish(c, BNS_GRPC_UNAVAILABLE, "etcdserver: request timed out");
    } else if (first_lost > 0) {
        fake_finish(c, BNS_GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists");
    } else {
        a.has_id = a.has_ttl = true;
        a.id = id;
        a.ttl = 9;
        fake_answer(c, &a.base);
    }
}

struct held {
    bool granted, lost;
    int64_t id, ttl;
    int status;
};

static void on_granted(void *arg, int64_t id, int64_t ttl)
{
    struct held *h = arg;

    h->granted = true;
    h->id = id;
    h->ttl = ttl;
}

static void on_lost(void *arg, int status, const char *text)
{
    struct held *h = arg;

    (void)text;
    h->lost = true;
    h->status = status;
}

static const struct bns_etcd_lease_handler holding = {on_granted, NULL, on_lost};

/* A grant whose answer is lost is found again, not granted twice. */
static void a_grant_in_doubt_is_asked_for_with_the_same_id(void **state)
{
    (void)state;
    for (first_lost = 0; first_lost < 3; first_lost++) {
        struct held h = {0};
        const struct bns_etcd_lease_options o = {.ttl_s = 7, .handler = &holding, .arg = &h};
        struct bns_etcd_lease *l;
        struct bns_etcd *c;

        fake_world(4 + first_lost, 1);
        fake.take = take_grant;
        c = cw_client(NULL);
        assert_int_equal(bns_etcd_lease_open(c, &o, &l), BNS_OK);
        assert_int_equal(bns_etcd_lease_id(l), 0);
        assert_true(cw_until(&h.granted, 10 * BNS_SEC));
        assert_int_equal(fake.seen[BNS_ETCD_LEASE_GRANT], first_lost + 1);
        assert_true(h.id == granted_ids[0] && h.id == granted_ids[first_lost]);
        assert_int_equal(h.ttl, first_lost > 0 ? 7 : 9);
        assert_true(bns_etcd_lease_id(l) == h.id);
        bns_etcd_lease_close(l, false);
        bns_etcd_free(c);
        cw_free();
    }
}

/* An id of the owner: a lease that exists may be anybody's. */
static void a_grant_with_an_id_of_the_owner_is_asked_for_once(void **state)
{
    struct held h = {0};
    const struct bns_etcd_lease_options o = {.ttl_s = 7, .id = 77, .handler = &holding, .arg = &h};
    struct bns_etcd_lease *l;
    struct bns_etcd *c;
    (void)state;

    first_lost = 1;
    fake_world(8, 1);
    fake.take = take_grant;
    c = cw_client(NULL);
    assert_int_equal(bns_etcd_lease_open(c, &o, &l), BNS_OK);
    assert_true(cw_until(&h.lost, 10 * BNS_SEC));
    assert_int_equal(h.status, BNS_GRPC_UNAVAILABLE);
    assert_int_equal(fake.seen[BNS_ETCD_LEASE_GRANT], 1);
    bns_etcd_free(c);
    cw_free();
}

/* ---- locks that are closed while they enter -------------------------------------------------- */

static struct {
    bool put_first, key; /* the put was applied; the key is there */
    unsigned puts, dels;
    int put_status; /* of the answer to the put */
} keyed;

/* The put of the key is taken, and applied late: when it is let go. */
static void take_enter(struct bns_grpc_call *c, enum bns_etcd_method m, struct bns_slice msg)
{
    Etcdserverpb__DeleteRangeResponse d = ETCDSERVERPB__DELETE_RANGE_RESPONSE__INIT;

    (void)msg;
    if (m == BNS_ETCD_TXN) {
        fake_hold(c);
    } else if (m == BNS_ETCD_DELETE) {
        keyed.dels++;
        keyed.key = false;
        fake_answer(c, &d.base);
    }
}

static void apply_put(void)
{
    Etcdserverpb__TxnResponse r = ETCDSERVERPB__TXN_RESPONSE__INIT;
    Etcdserverpb__ResponseHeader h = ETCDSERVERPB__RESPONSE_HEADER__INIT;

    h.has_revision = r.has_succeeded = r.succeeded = true;
    h.revision = 5;
    r.header = &h;
    keyed.key = true;
    for (unsigned i = 0; i < fake.held_count; i++) {
        if (fake.held[i] == NULL)
            continue;
        if (keyed.put_status == 0)
            fake_answer(fake.held[i], &r.base);
        else
            fake_finish(fake.held[i], keyed.put_status, "etcdserver: request timed out");
    }
    fake.held_count = 0;
}

static void no_hold(void *arg, struct bns_slice key, int64_t token)
{
    (void)arg;
    (void)key;
    (void)token;
    fail_msg("a closed lock was told to be held");
}

static void no_loss(void *arg, int status, const char *text)
{
    (void)arg;
    (void)status;
    fail_msg("a closed lock was told to be lost: %s", text);
}

/* Its key is put after the close: it is deleted all the same. When nobody knows what became of the
 * put, done does not promise that the key is gone. */
static void a_lock_closed_while_it_enters_does_not_come_back(void **state)
{
    static const struct bns_etcd_lock_handler h = {no_hold, no_loss};
    const struct bns_etcd_lock_options o = {.name = BNS_LIT("l"), .lease = 7, .handler = &h};
    (void)state;

    for (unsigned variant = 0; variant < 4; variant++) {
        struct bns_etcd *c;
        struct bns_etcd_lock *l;
        struct got g = {0};

        memset(&keyed, 0, sizeof keyed);
        keyed.put_status = variant % 2 == 0 ? 0 : BNS_GRPC_UNAVAILABLE;
        fake_world(20 + variant, 1);
        fake.take = take_enter;
        c = cw_client(NULL);
        assert_int_equal(bns_etcd_lock_open(c, &o, &l), BNS_OK);
        cw_pass(BNS_SEC);
        assert_int_equal(fake.held_count, 1);
        if (variant >= 2) { /* the client is freed meanwhile */
            bns_etcd_lock_close(l, ended, &g);
            bns_etcd_free(c);
            assert_int_equal(g.times, 1);
            assert_int_equal(g.status, BNS_GRPC_CANCELLED);
            cw_free();
            continue;
        }
        bns_etcd_lock_close(l, ended, &g);
        cw_pass(BNS_SEC);
        assert_false(g.done);
        apply_put();
        assert_true(cw_until(&g.done, 10 * BNS_SEC));
        cw_pass(BNS_SEC);
        assert_false(keyed.key);
        assert_int_equal(g.times, 1);
        assert_int_equal(g.status, variant == 0 ? 0 : BNS_GRPC_ABORTED);
        assert_int_equal(g.unknown, variant == 1);
        bns_etcd_free(c);
        cw_free();
    }
}

/* ---- watches ------------------------------------------------------------------------------- */

#define REVISIONS 40

struct seen {
    bool over;
    unsigned calls, events;
    int64_t last;
    int status;
    char text[128];
};

static void on_events(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct seen *s = arg;

    s->calls++;
    for (size_t i = 0; i < r->n_events; i++) {
        int64_t rev = r->events[i]->kv->mod_revision;

        assert_true(rev == s->last || rev == s->last + 1);
        if (i == 0)
            assert_true(rev > s->last); /* no revision in two calls */
        s->last = rev;
        s->events++;
    }
    s->over = s->last == REVISIONS;
}

static void on_end(void *arg, int status, const char *text, int64_t compacted)
{
    struct seen *s = arg;

    (void)compacted;
    s->over = true;
    s->status = status;
    (void)snprintf(s->text, sizeof s->text, "%s", text);
}

static const struct bns_etcd_watch_handler watching = {.on_events = on_events, .on_end = on_end};

static unsigned fragment_events; /* in one fragment */
static bool with_break;          /* the first stream ends in the middle */

/* Revision r has r events, all in fragments; as a server does that is asked for them. */
static void take_watch(struct bns_grpc_call *c, enum bns_etcd_method m, struct bns_slice msg)
{
    Etcdserverpb__WatchRequest *q;
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    Etcdserverpb__KeyValue kv[64];
    Etcdserverpb__Event event[64], *events[64];
    int64_t from;
    unsigned sent = 0;

    assert_int_equal(m, BNS_ETCD_WATCH);
    q = etcdserverpb__watch_request__unpack(NULL, msg.len, msg.ptr);
    if (q->create_request == NULL) { /* asks for progress */
        etcdserverpb__watch_request__free_unpacked(q, NULL);
        return;
    }
    assert_true(q->create_request->fragment);
    from = q->create_request->start_revision;
    etcdserverpb__watch_request__free_unpacked(q, NULL);
    r.has_created = r.created = true;
    fake_send(c, &r.base);
    r.has_created = r.created = false;
    r.events = events;
    for (int64_t rev = from; rev <= REVISIONS; rev++) {
        for (int64_t i = 0; i < rev; i++) {
            size_t n = r.n_events++;

            etcdserverpb__key_value__init(&kv[n]);
            etcdserverpb__event__init(&event[n]);
            kv[n].has_mod_revision = true;
            kv[n].mod_revision = rev;
            event[n].kv = &kv[n];
            events[n] = &event[n];
            r.has_fragment = r.fragment = rev < REVISIONS || i + 1 < rev;
            if (r.n_events < fragment_events && r.fragment)
                continue;
            fake_send(c, &r.base);
            r.n_events = 0;
            if (with_break && fake.seen[m] == 1 && ++sent == 7) {
                fake_finish(c, BNS_GRPC_UNAVAILABLE, "the server goes");
                return;
            }
        }
    }
}

static struct bns_etcd_watch *watch(struct bns_etcd *c, struct seen *s)
{
    const struct bns_etcd_watch_options o = {
        .key = BNS_LIT("k"), .start_revision = 1, .handler = &watching, .arg = s};
    struct bns_etcd_watch *w = NULL;

    assert_int_equal(bns_etcd_watch_open(c, &o, &w), BNS_OK);
    return w;
}

static void fragments_are_told_as_whole_revisions(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 14; i++) {
        struct bns_etcd *c;
        struct bns_etcd_watch *w;
        struct seen s = {0};

        fragment_events = i / 2 == 6 ? 64 : 1 + i / 2 * 4;
        with_break = i % 2 == 1;
        fake_world(30 + i, 1);
        fake.take = take_watch;
        c = cw_client(NULL);
        w = watch(c, &s);
        assert_true(cw_until(&s.over, 60 * BNS_SEC));
        assert_int_equal(s.status, 0);
        assert_int_equal(s.events, REVISIONS * (REVISIONS + 1) / 2);
        bns_etcd_watch_close(w);
        bns_etcd_free(c);
        cw_free();
    }
}

#define PIECES 400
#define PIECE_EVENTS 100

/* One revision of 40,000 events, in 400 fragments. */
static void take_wide(struct bns_grpc_call *c, enum bns_etcd_method m, struct bns_slice msg)
{
    static Etcdserverpb__Event event[PIECE_EVENTS], *events[PIECE_EVENTS];
    static Etcdserverpb__KeyValue kv = ETCDSERVERPB__KEY_VALUE__INIT;
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;

    (void)msg;
    if (fake.seen[m] > 1)
        return; /* asks for progress */
    r.has_created = r.created = true;
    fake_send(c, &r.base);
    r.has_created = r.created = false;
    kv.has_mod_revision = true;
    kv.mod_revision = REVISIONS;
    for (size_t i = 0; i < PIECE_EVENTS; i++) {
        etcdserverpb__event__init(&event[i]);
        event[i].kv = &kv;
        events[i] = &event[i];
    }
    r.events = events;
    r.n_events = PIECE_EVENTS;
    for (unsigned i = 0; i < PIECES; i++) {
        r.has_fragment = r.fragment = i + 1 < PIECES;
        fake_send(c, &r.base);
    }
}

static void on_wide(void *arg, const Etcdserverpb__WatchResponse *r)
{
    struct seen *s = arg;

    s->calls++;
    s->events += (unsigned)r->n_events;
    s->over = true;
}

/* What waits for the rest of its revision costs memory in proportion to what has come. */
static void the_memory_of_a_wide_revision_is_linear(void **state)
{
    struct bns_etcd *c;
    struct bns_etcd_watch *w;
    struct seen s = {0};
    static const struct bns_etcd_watch_handler wide = {.on_events = on_wide, .on_end = on_end};
    const struct bns_etcd_watch_options o = {
        .key = BNS_LIT("k"), .start_revision = 1, .handler = &wide, .arg = &s};
    struct bns_test_heap *heap;
    size_t limit = (size_t)PIECES * PIECE_EVENTS * 600;
    (void)state;

    fake_world(45, 1);
    heap = bns_world_heap(cw.w, cw.servers);
    bns_test_heap_limit(heap, limit);
    fake.take = take_wide;
    c = cw_client(NULL);
    assert_int_equal(bns_etcd_watch_open(c, &o, &w), BNS_OK);
    assert_true(cw_until(&s.over, 60 * BNS_SEC));
    assert_int_equal(s.status, 0);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.events, PIECES * PIECE_EVENTS);
    print_message("  %zu bytes an event at most\n",
                  bns_test_heap_peak(heap) / (PIECES * PIECE_EVENTS));
    bns_etcd_watch_close(w);
    bns_etcd_free(c);
    cw_free();
}

static uint8_t mebibyte[1024 * 1024];

static void kept(void *arg, int code)
{
    (void)arg;
    (void)code; /* static bytes */
}

/* One response of 129 MiB. */
static void take_large(struct bns_grpc_call *c, enum bns_etcd_method m, struct bns_slice msg)
{
    struct bns_slice v[129];

    (void)msg;
    (void)m;
    for (size_t i = 0; i < 129; i++)
        v[i] = bns_slice(mebibyte, sizeof mebibyte);
    assert_int_equal(bns_grpc_send(c, v, 129, kept, NULL), BNS_OK);
}

static void a_response_too_large_ends_the_watch(void **state)
{
    struct bns_etcd *c;
    struct seen s = {0};
    (void)state;

    fake_world(50, 1);
    fake.take = take_large;
    c = cw_client(NULL);
    (void)watch(c, &s);
    assert_true(cw_until(&s.over, 60 * BNS_SEC));
    assert_int_equal(s.status, BNS_GRPC_RESOURCE_EXHAUSTED);
    assert_string_equal(s.text, "grpc: received message larger than max (135266304 vs. 134217728)");
    assert_int_equal(fake.seen[BNS_ETCD_WATCH], 1);
    bns_etcd_free(c);
    cw_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_have_happened_is_not_sent_again),
        cmocka_unit_test(a_failure_says_whether_the_effect_may_have_happened),
        cmocka_unit_test(a_dial_that_hangs_is_given_up_under_steady_calls),
        cmocka_unit_test(a_grant_in_doubt_is_asked_for_with_the_same_id),
        cmocka_unit_test(a_grant_with_an_id_of_the_owner_is_asked_for_once),
        cmocka_unit_test(a_lock_closed_while_it_enters_does_not_come_back),
        cmocka_unit_test(fragments_are_told_as_whole_revisions),
        cmocka_unit_test(the_memory_of_a_wide_revision_is_linear),
        cmocka_unit_test(a_response_too_large_ends_the_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
