/* test_watch_flow.c - watches when much flows: slow readers, large revisions, another store.
 *
 * Goal:   a client that does not read costs a bounded amount of memory and loses nothing; a
 *         revision stays whole however large it is; a snapshot that replaces the store leaves no
 *         gap; progress is told in time, and not when events say the same.
 * Method: kv_world.h in virtual time; the node's heap tells what a reader costs. BNS_WATCH_SLOW_MB
 *         gives the megabytes that pass a reader that does not read (16; the show takes 500). */
#include "kv_snap_world.h"
#include "watch_world.h"

static struct kvw world;
static struct sink sink;

static int up(void **state)
{
    (void)state;
    kvw_init(&world, 1, NULL);
    assert_true(kvw_up(&world));
    sink_open(&sink, &world);
    return 0;
}

static int down(void **state)
{
    (void)state;
    sink_close(&sink);
    kvw_free(&world);
    return 0;
}

static void setup(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_watch_setup(world.kv, arg);
}

/* A watch's cluster settings, before the first stream. */
static void configure(const struct etcd_watch_config *cfg)
{
    struct etcd_watch_config copy = *cfg;

    sink_close(&sink);
    assert_true(bns_world_call(world.w, 0, setup, &copy));
    sink_open(&sink, &world);
}

static void put_big(int i, size_t len)
{
    char key[32];
    char *value = malloc(len + 1);

    (void)snprintf(key, sizeof key, "key%05d", i % 100);
    memset(value, 'a' + i % 26, len);
    value[len] = 0;
    (void)snprintf(value, len, "%08d", i);
    value[8] = '.';
    assert_true(do_put(&world, key, value) > 0);
    free(value);
    bns_arena_free(&world.arena); /* what was decoded of it */
}

/* Everything that came since, each event once and in order; returns how many there were. */
static int64_t take_in_order(int64_t next)
{
    for (; sink.next < sink.count; sink.next++) {
        const Etcdserverpb__WatchResponse *m = sink.got[sink.next];
        for (size_t i = 0; i < m->n_events; i++) {
            assert_int_equal(m->events[i]->kv->mod_revision, next);
            next++;
        }
    }
    return next;
}

static void who_does_not_read_costs_little_and_gets_all(void **state)
{
    const char *mb = getenv("BNS_WATCH_SLOW_MB");
    int count = (mb == NULL ? 16 : (int)strtol(mb, NULL, 10)) * 16; /* of 64 KiB */
    struct bns_test_heap *heap = bns_world_heap(world.w, 0);
    size_t before, after;
    int64_t next = 2;

    (void)state;
    do_watch(&sink, "key", "kez", 0);
    sink_expect(&sink, "#0 rev=1 created");
    for (int i = 0; i < 400; i++) /* caches and rings are full then */
        put_big(i, 64 * 1024);
    next = take_in_order(next);
    assert_int_equal(next, 402);
    bns_arena_free(&sink.arena);
    sink.count = sink.next = 0;
    sink.hold = true;
    before = bns_test_heap_in_use(heap);
    for (int i = 0; i < count; i++)
        put_big(i, 64 * 1024);
    after = bns_test_heap_in_use(heap);
    print_message("  %d MB passed: %zu KiB queued, heap %zu -> %zu KiB\n", count / 16,
                  sink.queued_max / 1024, before / 1024, after / 1024);
    assert_true(sink.queued_max < 2 * 1024 * 1024);
    assert_true(after < before + 4 * 1024 * 1024);
    do_progress(&sink); /* it is told when all has been read */
    for (int rounds = 0; next < 402 + count; rounds++) {
        sink_call(&sink, sink_do_read, NULL);
        next = take_in_order(next);
        bns_arena_free(&sink.arena);
        sink.count = sink.next = 0;
        assert_true(rounds < 100 * count);
    }
    sink.hold = false;
    sink_call(&sink, sink_do_read, NULL);
    put_big(0, 10);
    assert_int_equal(take_in_order(next), next + 1);
    assert_true(bns_test_heap_in_use(heap) < before + 4 * 1024 * 1024);
}

/* Many that do not read: each is held to its share of what all may queue. When they read again, in
 * small bites of which the transport tells nothing, all of them get everything. */
static void many_who_do_not_read_share_one_bound(void **state)
{
    enum { MANY = 32, PUTS = 120 };
    static struct sink many[MANY];
    static int64_t next[MANY];
    const struct etcd_watch_config cfg = {.queue_all_bytes = 256 * 1024};
    size_t queued = 0;
    bool all = false;

    (void)state;
    configure(&cfg);
    world.settle_ns = 100 * BNS_MS; /* who waits for its share is looked at again and again */
    for (int i = 0; i < MANY; i++) {
        sink_open(&many[i], &world);
        do_watch(&many[i], "key", "kez", 0);
        many[i].hold = true;
        many[i].low = 64 * 1024; /* as gRPC */
        many[i].next = 1;
        next[i] = 2;
    }
    for (int i = 0; i < PUTS; i++)
        put_big(i, 1024);
    for (int i = 0; i < MANY; i++)
        queued += many[i].queued_max;
    print_message("  %zu KiB queued on %d streams\n", queued / 1024, MANY);
    assert_true(queued > 256 * 1024);
    assert_true(queued < 256 * 1024 + MANY * 20 * 1024);
    for (int round = 0; !all; round++) {
        assert_true(round < 10 * PUTS);
        all = true;
        for (int i = 0; i < MANY; i++) {
            sink_call(&many[i], sink_do_read, NULL);
            for (; many[i].next < many[i].count; many[i].next++) {
                const Etcdserverpb__WatchResponse *m = many[i].got[many[i].next];

                for (size_t k = 0; k < m->n_events; k++)
                    assert_int_equal(m->events[k]->kv->mod_revision, next[i]++);
            }
            all = all && next[i] == 2 + PUTS;
        }
    }
    for (int i = 0; i < MANY; i++)
        sink_close(&many[i]);
    world.settle_ns = 0;
}

/* One revision: more rows than the ring of recent ones holds, and many slices of a scan. */
static void a_large_revision_stays_whole(void **state)
{
    const int count = 12000;
    Etcdserverpb__WatchCreateRequest c = create_req("k", "l", 0);
    Etcdserverpb__DeleteRangeRequest d = delete_req("k", "l");

    (void)state;
    for (int i = 0; i < count; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "k%08d", i);
        (void)do_put(&world, key, "v");
    }
    do_create(&sink, c);
    c.start_revision = count + 2; /* from history */
    assert_true(kvw_apply(&world, ETCD_OP_DELETE, &d, NULL));
    c.has_prev_kv = c.prev_kv = true;
    do_create(&sink, c);
    assert_int_equal(sink.count, 4);
    for (size_t i = 1; i < 4; i += 2) {
        const Etcdserverpb__WatchResponse *m = sink.got[i == 1 ? 1 : 3];
        assert_int_equal(m->n_events, count);
        for (int k = 0; k < count; k++) {
            assert_int_equal(m->events[k]->type, 1);
            assert_int_equal(m->events[k]->kv->mod_revision, count + 2);
            assert_true((m->events[k]->prev_kv != NULL) == (i == 3));
        }
    }
}

static void fragments_are_what_was_asked_for(void **state)
{
    const struct etcd_watch_config cfg = {.fragment_bytes = 1000};
    Etcdserverpb__WatchCreateRequest c = create_req("k", "l", 1);
    char value[301];

    (void)state;
    configure(&cfg);
    memset(value, 'x', 300);
    value[300] = 0;
    for (int i = 0; i < 7; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "k%d", i);
        (void)do_put(&world, key, value);
    }
    do_create(&sink, c); /* not asked for: whole */
    assert_int_equal(sink.count, 2);
    assert_int_equal(sink.got[1]->n_events, 7);
    assert_false(sink.got[1]->fragment);
    c.has_fragment = c.fragment = true;
    do_create(&sink, c);
    assert_int_equal(sink.count, 7);
    for (size_t i = 3; i < 7; i++) {
        assert_int_equal(sink.got[i]->n_events, i < 6 ? 2 : 1);
        assert_int_equal(sink.got[i]->fragment, i < 6);
    }
    c.start_revision = 8; /* one event is never split */
    c.key = B("k6");
    memset(value, 'y', 300);
    do_create(&sink, c);
    assert_int_equal(sink.count, 9);
    assert_false(sink.got[8]->fragment);
}

static void run_until(uint64_t ns)
{
    (void)bns_world_run(world.w, ns, NULL, NULL);
}

static void progress_is_told_when_nothing_else_is(void **state)
{
    const struct etcd_watch_config cfg = {.progress_ns = BNS_SEC};
    Etcdserverpb__WatchCreateRequest c = create_req("a", NULL, 0);
    Etcdserverpb__WatchRequest r = of_create(&c);
    uint64_t start;

    (void)state;
    configure(&cfg);
    c.has_progress_notify = c.progress_notify = true;
    start = bns_world_now(world.w);
    sink_now(&sink, sink_do_request, &r);
    sink_expect(&sink, "#0 rev=1 created");
    run_until(start + 900 * BNS_MS);
    sink_expect(&sink, NULL);
    run_until(start + 1150 * BNS_MS);
    sink_expect(&sink, "#0 rev=1");
    run_until(start + 2250 * BNS_MS);
    sink_expect(&sink, "#0 rev=1");
    c.start_revision = 100; /* in the future: nothing to tell */
    sink_now(&sink, sink_do_request, &r);
    sink_expect(&sink, "#1 rev=1 created");
    run_until(start + 3350 * BNS_MS);
    sink_expect(&sink, "#0 rev=1");
    sink_expect(&sink, NULL);
}

/* A snapshot takes the store from revision 6 to one far ahead; watches go on from where they were,
 * or are told that what they need is compacted. */
static void install(bool compacted)
{
    struct kvw a;
    struct snap x, y;
    int64_t next = 7;

    kvw_init(&a, 7, NULL);
    assert_true(kvw_up(&a));
    for (int i = 0; i < 5; i++) { /* the common past */
        (void)do_put(&a, "key", "x");
        (void)do_put(&world, "key", "x");
    }
    do_watch(&sink, "key", NULL, 0);
    do_watch(&sink, "", "", 0);
    sink_expect(&sink, "#0 rev=6 created");
    sink_expect(&sink, "#1 rev=6 created");
    for (int i = 0; i < 1000; i++)
        (void)do_put(&a, "other", "x");
    (void)do_put(&a, "key", "y");
    if (compacted)
        (void)do_compact(&a, 900, true);
    snap_take(&a, &x, false);
    y = x;
    y.k = &world;
    snap_install_all(&y);
    assert_int_equal(y.code, BNS_OK);
    world.index = x.meta.index;
    if (compacted) {
        sink_expect(&sink, "#0 rev=1007 canceled compact=900");
        sink_expect(&sink, "#1 rev=1007 canceled compact=900");
    } else {
        sink_expect(&sink, "#0 rev=1007 +key=y@2/1007/6");
        next = take_in_order(next);
        assert_int_equal(next, 1008);
        (void)do_put(&world, "key", "z");
        assert_int_equal(sink.count, sink.next + 2);
        assert_int_equal(sink.got[sink.next]->events[0]->kv->mod_revision, 1008);
    }
    free(x.file);
    kvw_free(&a);
}

static void a_snapshot_leaves_no_gap(void **state)
{
    (void)state;
    install(false);
}

static void a_snapshot_that_compacts_cancels(void **state)
{
    (void)state;
    install(true);
}

/* Ten thousand watches on one key: all are told, and the event is looked up once. */
static void many_watches_on_one_key(void **state)
{
    const int count = 10000;
    Etcdserverpb__WatchCreateRequest c = create_req("key", NULL, 0);
    Etcdserverpb__WatchRequest r = of_create(&c);

    (void)state;
    for (int i = 0; i < count; i++)
        sink_now(&sink, sink_do_request, &r);
    assert_int_equal(sink.count, count);
    for (int n = 0; n < 3; n++)
        (void)do_put(&world, "key", "value");
    assert_int_equal(sink.count, 4 * count);
    for (int i = 0; i < 3 * count; i++) {
        const Etcdserverpb__WatchResponse *m = sink.got[count + i];
        assert_int_equal(m->watch_id, i % count);
        assert_int_equal(m->n_events, 1);
        assert_int_equal(m->events[0]->kv->mod_revision, 2 + i / count);
    }
}

/* After how many turns some, but not all of them were served. */
static int turns_to_serve(size_t watches)
{
    struct etcd_watch_stats st;
    int turns = 0;

    etcd_watch_stats(world.kv, &st);
    assert_int_equal(st.slow, watches);
    while (bns_world_step(world.w)) {
        etcd_watch_stats(world.kv, &st);
        turns += st.slow > 0 && st.slow < watches;
    }
    assert_int_equal(st.slow, 0);
    return turns;
}

/* Rows that are looked at for nothing are work too: else a few hundred ranges keep the loop. */
static void looking_back_is_shared_out_over_turns(void **state)
{
    const size_t watches = 400;

    (void)state;
    do_watch(&sink, "zzz", NULL, 0); /* from now on recent rows are kept */
    for (int i = 0; i < 4000; i++)
        (void)do_put(&world, "key", "v");
    for (size_t i = 0; i < watches; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "m%08zu", i);
        Etcdserverpb__WatchCreateRequest c = create_req(key, "n", 2);
        Etcdserverpb__WatchRequest r = of_create(&c);
        sink_now(&sink, sink_do_request, &r);
    }
    assert_true(turns_to_serve(watches) >= 4);
}

/* What the store was asked for once may be for very many. */
static void one_scan_for_many_is_shared_out_over_turns(void **state)
{
    const size_t watches = 60;
    const int rows = 160;

    (void)state;
    for (int i = 0; i < rows; i++)
        put_big(i, 2048);
    for (size_t i = 0; i < watches; i++) {
        Etcdserverpb__WatchCreateRequest c = create_req("k", "l", 2);
        Etcdserverpb__WatchRequest r = of_create(&c);
        sink_now(&sink, sink_do_request, &r);
    }
    assert_true(turns_to_serve(watches) >= 2);
    for (size_t i = watches; i < sink.count; i++)
        assert_int_equal(sink.got[i]->n_events, rows);
    assert_int_equal(sink.count, 2 * watches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_who_do_not_read_share_one_bound, up, down),
        cmocka_unit_test_setup_teardown(who_does_not_read_costs_little_and_gets_all, up, down),
        cmocka_unit_test_setup_teardown(a_large_revision_stays_whole, up, down),
        cmocka_unit_test_setup_teardown(fragments_are_what_was_asked_for, up, down),
        cmocka_unit_test_setup_teardown(progress_is_told_when_nothing_else_is, up, down),
        cmocka_unit_test_setup_teardown(a_snapshot_leaves_no_gap, up, down),
        cmocka_unit_test_setup_teardown(a_snapshot_that_compacts_cancels, up, down),
        cmocka_unit_test_setup_teardown(many_watches_on_one_key, up, down),
        cmocka_unit_test_setup_teardown(looking_back_is_shared_out_over_turns, up, down),
        cmocka_unit_test_setup_teardown(one_scan_for_many_is_shared_out_over_turns, up, down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
