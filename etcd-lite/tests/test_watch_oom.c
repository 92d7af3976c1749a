/* test_watch_oom.c - the n-th allocation fails, n = 1, 2, 3 ... until a run gets through.
 *
 * A watch is opened on history and gets what follows; nothing is kept in memory, so that the store
 * is asked. Afterwards the watch has been told everything, each event once; or its stream ended
 * with status 8 and what came before is a beginning of it; or the node ended, because rows could
 * not be written. Nothing is left behind. */
#include "watch_world.h"

#define HISTORY 30
#define AFTER 5

static void setup(struct bns_env *env, void *arg)
{
    const struct etcd_watch_config cfg = {
        .recent_bytes = 1, .batch_bytes = 2000, .fragment_bytes = 1500};

    (void)env;
    etcd_watch_setup(((struct kvw *)arg)->kv, &cfg);
}

static int64_t told(struct sink *x)
{
    int64_t next = 2;

    for (size_t i = 1; i < x->count; i++) { /* the first is created */
        for (size_t e = 0; e < x->got[i]->n_events; e++) {
            const Etcdserverpb__Event *ev = x->got[i]->events[e];
            assert_int_equal(ev->kv->mod_revision, next++);
            assert_true((ev->prev_kv != NULL) == (ev->kv->version > 1));
        }
    }
    return next;
}

/* False: the sweep is through. */
static bool run(const char *key, const char *end, int n, int *ended, int *died)
{
    struct etcd_kv_config cfg = {.cache_bytes = 1};
    struct bns_test_heap *h;
    struct kvw k;
    struct sink x;
    Etcdserverpb__WatchCreateRequest c = create_req(key, end, 1);
    uint64_t calls;

    c.has_prev_kv = c.prev_kv = true;
    c.has_fragment = c.fragment = true;
    kvw_init(&k, 1, &cfg);
    assert_true(kvw_up(&k));
    h = bns_world_heap(k.w, 0);
    assert_true(bns_world_call(k.w, 0, setup, &k));
    for (int i = 0; i < HISTORY; i++) {
        char value[400];
        (void)snprintf(value, sizeof value, "%0300d", i);
        (void)do_put(&k, "key", value);
    }
    bns_test_heap_fail_at(h, n);
    calls = bns_test_heap_calls(h);
    sink_open(&x, &k);
    if (x.open_rv == BNS_OK)
        do_create(&x, c);
    for (int i = 0; i < AFTER && k.kv != NULL; i++) {
        Etcdserverpb__PutRequest r = put_req("key", "later");
        (void)kvw_apply(&k, ETCD_OP_PUT, &r, NULL);
    }
    calls = bns_test_heap_calls(h) - calls;
    bns_test_heap_fail_at(h, 0);
    if (k.kv == NULL) {
        ++*died;
        x.s = NULL;
    } else if (x.open_rv == BNS_OK && x.fail_status == 0) {
        assert_int_equal(told(&x), 2 + HISTORY + AFTER);
    } else {
        ++*ended;
        assert_true(x.open_rv == BNS_E_NOMEM || x.fail_status == 8);
        assert_true(told(&x) <= 2 + HISTORY + AFTER);
    }
    sink_close(&x);
    kvw_free(&k); /* checks that no block is left */
    return (uint64_t)n <= calls;
}

static void sweep(const char *key, const char *end)
{
    int n = 1, ended = 0, died = 0;

    while (run(key, end, n, &ended, &died))
        n++;
    print_message("  %d allocations, %d streams ended, %d nodes died\n", n - 1, ended, died);
    assert_true(n > 20);
    assert_true(ended > 0);
    assert_true(ended + died < n / 2);
}

static void a_watch_of_a_key(void **state)
{
    (void)state;
    sweep("key", NULL);
}

static void a_watch_of_a_range(void **state)
{
    (void)state;
    sweep("k", "l");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_watch_of_a_key),
        cmocka_unit_test(a_watch_of_a_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
