/* Goal:   a dial by name reaches whichever address of it answers, asks anew each time, never blocks
 *         the loop, and leaves nothing behind when its owner goes first.
 * Method: the libuv env on loopback; this program's own getaddrinfo() takes the place of the
 *         system's, so that names mean what the test says and a lookup takes as long as it wants.
 * ctest: labels=threads */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "io/env_uv.h"
#include "sim/heap.h"

/* ---- the resolver ---------------------------------------------------------------------------- */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    const char *moving; /* what moving.test means */
    bool hold;          /* slow.test does not answer yet */
    size_t asked;
} names = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static struct addrinfo *one(const char *numeric, struct addrinfo *next)
{
    struct addrinfo *a = calloc(1, sizeof *a);
    struct sockaddr_in6 *v6 = calloc(1, sizeof *v6);
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)v6;

    assert_true(a != NULL && v6 != NULL);
    a->ai_family = strchr(numeric, ':') != NULL ? AF_INET6 : AF_INET;
    a->ai_addrlen = a->ai_family == AF_INET6 ? sizeof *v6 : sizeof *v4;
    a->ai_addr = (struct sockaddr *)v6;
    a->ai_next = next;
    v6->sin6_family = (sa_family_t)a->ai_family;
    assert_int_equal(
        inet_pton(a->ai_family, numeric,
                  a->ai_family == AF_INET6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr),
        1);
    return a;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    int rv = 0;

    (void)service;
    (void)hints;
    assert_int_equal(pthread_mutex_lock(&names.lock), 0);
    names.asked++;
    if (strcmp(name, "two.test") == 0)
        *out = one("::1", one("127.0.0.2", one("127.0.0.1", NULL)));
    else if (strcmp(name, "dead.test") == 0)
        *out = one("127.0.0.2", one("127.0.0.3", NULL));
    else if (strcmp(name, "moving.test") == 0)
        *out = one(names.moving, NULL);
    else if (strcmp(name, "slow.test") == 0)
        *out = one("127.0.0.1", NULL);
    else
        rv = EAI_NONAME;
    while (strcmp(name, "slow.test") == 0 && names.hold)
        assert_int_equal(pthread_cond_wait(&names.cond, &names.lock), 0);
    assert_int_equal(pthread_mutex_unlock(&names.lock), 0);
    return rv;
}

void freeaddrinfo(struct addrinfo *a)
{
    while (a != NULL) {
        struct addrinfo *next = a->ai_next;

        free(a->ai_addr);
        free(a);
        a = next;
    }
}

static void hold(bool on)
{
    assert_int_equal(pthread_mutex_lock(&names.lock), 0);
    names.hold = on;
    assert_int_equal(pthread_cond_broadcast(&names.cond), 0);
    assert_int_equal(pthread_mutex_unlock(&names.lock), 0);
}

/* ---- one dial -------------------------------------------------------------------------------- */
struct rig {
    struct bns_test_heap *heap;
    struct bns_env *env;
    struct bns_listener *l;
    uint16_t port;
    struct bns_stream *s;
    struct bns_timer guard, soon;
    size_t opens, closes, accepted, released;
    uint8_t heard[8];
    size_t heard_len;
    int code;
};

static void too_long(void *arg)
{
    (void)arg;
    fail_msg("nothing happened for a minute");
}

static void on_open(void *arg)
{
    struct rig *r = arg;

    r->opens++;
    bns_stream_close(r->s);
}

static void on_data(void *arg, struct bns_slice data)
{
    (void)arg;
    (void)data;
}

static void on_close(void *arg, int code)
{
    struct rig *r = arg;

    r->closes++;
    r->code = code;
    if (r->opens == 0)
        bns_env_uv_stop(r->env); /* else the other side has the last word */
}

static const struct bns_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_close = on_close};

static void heard(void *arg, struct bns_slice data)
{
    struct rig *r = arg;

    for (size_t i = 0; i < data.len && r->heard_len < sizeof r->heard; i++)
        r->heard[r->heard_len++] = data.ptr[i];
}

static void served_close(void *arg, int code)
{
    (void)code;
    bns_env_uv_stop(((struct rig *)arg)->env);
}

static const struct bns_stream_events served = {.on_data = heard, .on_close = served_close};

static void on_accept(void *arg, struct bns_stream *s)
{
    struct rig *r = arg;

    r->accepted++;
    bns_stream_set_events(s, &served, r);
}

static void rig_start(struct rig *r)
{
    *r = (struct rig){.heap = bns_test_heap(0)};
    assert_int_equal(bns_env_uv_new(bns_test_heap_alloc(r->heap), NULL, &r->env, NULL), BNS_OK);
    assert_int_equal(bns_net_listen(r->env, "127.0.0.1", 0, on_accept, r, &r->l, NULL), BNS_OK);
    r->port = bns_listener_port(r->env, r->l);
    bns_timer_init(&r->guard, too_long, NULL);
    bns_timer_start(r->env, &r->guard, bns_now_ns(r->env) + 60 * BNS_SEC);
}

static void rig_end(struct rig *r)
{
    bns_timer_stop(r->env, &r->guard);
    bns_listener_close(r->env, r->l);
    bns_env_uv_free(r->env);
    assert_int_equal(bns_test_heap_close(r->heap, NULL), 0);
}

static int dial(struct rig *r, const char *host)
{
    r->opens = 0;
    r->closes = 0;
    return bns_net_connect(r->env, host, r->port, &events, r, &r->s, NULL);
}

static void released(void *arg, int code)
{
    (void)code;
    ((struct rig *)arg)->released++;
}

static void the_first_address_that_answers_is_used(void **state)
{
    struct bns_slice v = BNS_LIT("early");
    struct rig r;

    (void)state;
    rig_start(&r);
    assert_int_equal(dial(&r, "two.test"), BNS_OK);
    assert_int_equal(bns_stream_write(r.s, &v, 1, released, &r), BNS_OK); /* waits, then goes out */
    assert_int_equal(r.closes, 0);
    bns_env_uv_run(r.env);
    assert_int_equal(r.opens, 1);
    assert_int_equal(r.accepted, 1);
    assert_int_equal(r.code, BNS_OK);
    assert_int_equal(r.released, 1);
    rig_end(&r);
    assert_int_equal(r.heard_len, 5);
    assert_memory_equal(r.heard, "early", 5);
}

static void a_name_that_leads_nowhere_says_why(void **state)
{
    static const struct {
        const char *host;
        int rv, code;
    } t[] = {
        {"dead.test", BNS_OK, BNS_E_DROPPED}, /* addresses, but nobody listens */
        {"unknown.test", BNS_OK, BNS_E_NOTFOUND},
        {"", BNS_E_INVALID, 0},
        {"a b", BNS_E_INVALID, 0},
        {"256.0.0.1", BNS_E_INVALID, 0},
        {"-x.test", BNS_E_INVALID, 0},
    };
    struct rig r;

    (void)state;
    rig_start(&r);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        print_message("  '%s'\n", t[i].host);
        assert_int_equal(dial(&r, t[i].host), t[i].rv);
        if (t[i].rv != BNS_OK)
            continue;
        bns_env_uv_run(r.env);
        assert_int_equal(r.opens, 0);
        assert_int_equal(r.closes, 1);
        assert_int_equal(r.code, t[i].code);
    }
    rig_end(&r);
}

static void each_dial_asks_anew(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r);
    names.moving = "127.0.0.2";
    assert_int_equal(dial(&r, "moving.test"), BNS_OK);
    bns_env_uv_run(r.env);
    assert_int_equal(r.code, BNS_E_DROPPED);
    names.moving = "127.0.0.1";
    assert_int_equal(dial(&r, "moving.test"), BNS_OK);
    bns_env_uv_run(r.env);
    assert_int_equal(r.opens, 1);
    assert_int_equal(r.code, BNS_OK);
    rig_end(&r);
}

static void close_soon(void *arg)
{
    bns_stream_reset(((struct rig *)arg)->s);
}

/* The loop runs on (its timer fires) while the lookup hangs, and so does the dial's end. */
static void an_owner_that_leaves_first_leaves_nothing_behind(void **state)
{
    struct rig r;

    (void)state;
    for (int free_first = 0; free_first < 2; free_first++) {
        rig_start(&r);
        hold(true);
        assert_int_equal(dial(&r, "slow.test"), BNS_OK);
        bns_timer_init(&r.soon, close_soon, &r);
        bns_timer_start(r.env, &r.soon, bns_now_ns(r.env) + 20 * BNS_MS);
        bns_env_uv_run(r.env);
        assert_int_equal(r.opens, 0);
        assert_int_equal(r.closes, 1);
        assert_int_equal(r.code, BNS_OK);
        if (free_first == 0) { /* it answers while the loop runs; another name goes through */
            hold(false);
            assert_int_equal(dial(&r, "two.test"), BNS_OK);
            bns_env_uv_run(r.env);
            assert_int_equal(r.opens, 1);
        }
        hold(false);
        rig_end(&r);
    }
}

static void every_allocation_may_fail(void **state)
{
    bool fired = true;

    (void)state;
    for (int fail_at = 1; fired; fail_at++) {
        struct rig r;

        rig_start(&r);
        bns_test_heap_fail_at(r.heap, fail_at);
        if (dial(&r, "two.test") == BNS_OK) {
            bns_timer_init(&r.soon, close_soon, &r);
            bns_timer_start(r.env, &r.soon, bns_now_ns(r.env) + 200 * BNS_MS);
            bns_env_uv_run(r.env);
            bns_timer_stop(r.env, &r.soon);
        }
        bns_timer_stop(r.env, &r.guard);
        bns_listener_close(r.env, r.l);
        bns_env_uv_free(r.env);
        assert_int_equal(bns_test_heap_close(r.heap, &fired), 0);
    }
}

static void hosts_are_numbers_names_or_neither(void **state)
{
    char long_label[66], longest[256];
    const struct {
        const char *host;
        enum bns_host_kind kind;
    } t[] = {
        {"127.0.0.1", BNS_HOST_NUMERIC},
        {"::1", BNS_HOST_NUMERIC},
        {"0.0.0.0", BNS_HOST_NUMERIC},
        {"localhost", BNS_HOST_NAME},
        {"etcd-1", BNS_HOST_NAME},
        {"n1_data.example.org.", BNS_HOST_NAME},
        {"1.2.3.4.example", BNS_HOST_NAME},
        {"", BNS_HOST_BAD},
        {".", BNS_HOST_BAD},
        {"a..b", BNS_HOST_BAD},
        {"a..", BNS_HOST_BAD},
        {"a-.b", BNS_HOST_BAD},
        {"-a", BNS_HOST_BAD},
        {"1.2.3", BNS_HOST_BAD},
        {"1.2.3.999", BNS_HOST_BAD},
        {"01.2.3.4", BNS_HOST_BAD},
        {"[::1]", BNS_HOST_BAD},
        {"a/b", BNS_HOST_BAD},
        {"a%00", BNS_HOST_BAD},
        {long_label, BNS_HOST_BAD},
        {long_label + 1, BNS_HOST_BAD},
        {long_label + 2, BNS_HOST_NAME},
        {longest, BNS_HOST_BAD},
        {longest + 2, BNS_HOST_NAME},
    };

    (void)state;
    memset(long_label, 'a', sizeof long_label - 1);
    long_label[sizeof long_label - 1] = 0;
    for (size_t i = 0; i < sizeof longest; i++)
        longest[i] = i % 50 == 49 ? '.' : 'b';
    longest[sizeof longest - 1] = 0;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        print_message("  '%s'\n", t[i].host);
        assert_int_equal(bns_host_kind(t[i].host), t[i].kind);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_address_that_answers_is_used),
        cmocka_unit_test(a_name_that_leads_nowhere_says_why),
        cmocka_unit_test(each_dial_asks_anew),
        cmocka_unit_test(an_owner_that_leaves_first_leaves_nothing_behind),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(hosts_are_numbers_names_or_neither),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
