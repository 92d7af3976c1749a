/* Goal:   the metrics of many nodes become one text in the format, whatever the nodes answer, and a
 *         node that is slow, silent or broken costs its own numbers only.
 * Method: HTTP servers of our own on one loop stand in for nodes. The merged text is parsed again:
 *         families in one piece each, every good sample once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/federate.h"
#include "codec/expo.h"
#include "io/env_uv.h"
#include "io/http.h"

#include <stdio.h>
#include <stdlib.h>

#define MERGED_MAX (8u * 1024 * 1024)

struct stand_in {
    struct bns_http_server *server;
    struct bns_http_route route;
    struct bns_http_req *held[4]; /* requests that are never answered */
    size_t held_count;
    const char *text;          /* NULL: never answer */
    uint64_t skew;             /* the clock jumps by this before it answers */
    int status;
    uint16_t port;
};

static struct bns_env_ops jumping_ops;
static uint64_t (*true_now)(struct bns_env *e);
static uint64_t jumped;

static uint64_t jumping_now(struct bns_env *e)
{
    return true_now(e) + jumped;
}

static void on_request(void *arg, struct bns_http_req *q)
{
    struct stand_in *n = arg;

    jumped += n->skew;
    if (n->text == NULL)
        n->held[n->held_count++] = q;
    else
        bns_http_reply(q, n->status, "text/plain; version=0.0.4", bns_slice_str(n->text));
}

static void stand_up(struct bns_env *env, struct stand_in *n, int status, const char *text)
{
    *n = (struct stand_in){.status = status, .text = text};
    n->route = (struct bns_http_route){"GET", "/metrics", on_request, n, 0, false, false};
    assert_int_equal(bns_http_server_new(env, NULL, &n->server), BNS_OK);
    assert_int_equal(bns_http_server_routes(n->server, &n->route, 1), BNS_OK);
    assert_int_equal(bns_http_server_listen(n->server, "127.0.0.1", 0, &n->port, NULL), BNS_OK);
}

static void drained(void *arg)
{
    bns_env_uv_stop(arg);
}

static void take_down(struct bns_env *env, struct stand_in *n)
{
    for (size_t i = 0; i < n->held_count; i++)
        bns_http_abort(n->held[i]);
    bns_http_server_drain(n->server, BNS_SEC, drained, env);
    bns_env_uv_run(env);
    bns_http_server_free(n->server);
}

static void on_done(void *arg)
{
    bns_env_uv_stop(arg);
}

static struct bns_federate *ask(struct bns_env *env, const struct bns_federate_opts *o)
{
    struct bns_federate *f = NULL;

    assert_int_equal(bns_federate_start(env, o, on_done, env, &f), BNS_OK);
    bns_env_uv_run(env);
    return f;
}

/* The merged text, with a NUL; it parses, and no family comes twice. The caller frees it. */
static char *merged(const struct bns_federate *f)
{
    struct bns_buf out;
    struct bns_expo x;
    struct bns_expo_line l;
    char seen[4096] = "\n", name[128];
    int rv;

    bns_buf_init(&out, bns_alloc_libc(), MERGED_MAX);
    assert_int_equal(bns_federate_text(f, &out), BNS_OK);
    assert_int_equal(bns_buf_byte(&out, 0), BNS_OK);
    x = (struct bns_expo){.rest = bns_slice(out.ptr, out.len - 1)};
    while ((rv = bns_expo_next(&x, &l)) == BNS_OK) {
        if (l.kind != BNS_EXPO_TYPE)
            continue;
        (void)snprintf(name, sizeof name, "\n%.*s\n", (int)l.name.len, (const char *)l.name.ptr);
        assert_null(strstr(seen, name));
        strncat(seen, name + 1, sizeof seen - strlen(seen) - 1);
    }
    assert_int_equal(rv, BNS_E_NOTFOUND);
    return (char *)out.ptr;
}

static struct bns_federate_target target(const char *node, uint16_t port)
{
    struct bns_federate_target t = {.port = port};

    (void)snprintf(t.system, sizeof t.system, "etcd-lite");
    (void)snprintf(t.node, sizeof t.node, "%s", node);
    return t;
}

static struct bns_env *new_env(void)
{
    struct bns_env *env = NULL;

    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), NULL, &env, NULL), BNS_OK);
    return env;
}

static void families_of_all_nodes_stand_together(void **state)
{
    struct bns_env *env = new_env();
    struct stand_in n1, n2;
    struct bns_federate_target t[2];
    struct bns_federate_opts o = {.targets = t, .targets_count = 2};
    struct bns_federate *f;
    char *text;
    double v = 0;
    (void)state;

    stand_up(env, &n1, 200,
             "# HELP b Bees.\n# TYPE b counter\nb{x=\"1\"} 1\nb{x=\"2\"} 2 77\n"
             "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_sum 1.5\nh_count 3\nplain 5\n");
    stand_up(env, &n2, 200,
             "# HELP a Ants.\n# TYPE a gauge\na 7\n# HELP b Bees.\n# TYPE b counter\n"
             "b{node=\"x\",system=\"y\",} 4\n");
    t[0] = target("n1", n1.port);
    t[1] = target("n2", n2.port);
    f = ask(env, &o);
    text = merged(f);
    assert_non_null(strstr(text, "up{system=\"etcd-lite\",node=\"n1\"} 1\n"
                                 "up{system=\"etcd-lite\",node=\"n2\"} 1\n"));
    assert_non_null(strstr(
        text, "# HELP a Ants.\n# TYPE a gauge\na{system=\"etcd-lite\",node=\"n2\"} 7\n"
              "# HELP b Bees.\n# TYPE b counter\nb{system=\"etcd-lite\",node=\"n1\",x=\"1\"} 1\n"
              "b{system=\"etcd-lite\",node=\"n1\",x=\"2\"} 2 77\n"
              "b{system=\"etcd-lite\",node=\"n2\",exported_node=\"x\",exported_system=\"y\"} 4\n"
              "# TYPE h histogram\nh_bucket{system=\"etcd-lite\",node=\"n1\",le=\"+Inf\"} 3\n"
              "h_sum{system=\"etcd-lite\",node=\"n1\"} 1.5\n"
              "h_count{system=\"etcd-lite\",node=\"n1\"} 3\n"
              "plain{system=\"etcd-lite\",node=\"n1\"} 5\n"));
    assert_true(bns_federate_value(f, 0, "b", &v));
    assert_true(v == 3);
    assert_false(bns_federate_value(f, 0, "a", &v));
    assert_int_equal(bns_federate_answer(f, 0)->samples, 6);
    free(text);
    bns_federate_free(f);
    take_down(env, &n1);
    take_down(env, &n2);
    bns_env_uv_free(env);
}

static void one_bad_node_costs_only_its_own_numbers(void **state)
{
    struct bns_env *env = new_env();
    struct stand_in good, slow, sick, junk;
    struct bns_federate_target t[7];
    struct bns_federate_opts o = {
        .targets = t, .targets_count = 7, .deadline_ns = 200 * BNS_MS, .body_bytes_max = 200};
    struct bns_federate *f;
    char *text;
    (void)state;

    stand_up(env, &good, 200, "a 1\n");
    stand_up(env, &slow, 200, NULL);
    stand_up(env, &sick, 500, "a 2\n");
    stand_up(env, &junk, 200, "a 3\n<html>\nup 1\na{ 4\na 5\n");
    t[0] = target("slow", slow.port);
    t[1] = target("sick", sick.port);
    t[2] = target("down", 0);
    t[3] = target("junk", junk.port);
    t[4] = target("good", good.port);
    t[5] = target("own", 0);
    t[5].text = BNS_LIT("a 6\n");
    t[6] = target("late", slow.port);
    f = ask(env, &o);
    text = merged(f);
    assert_non_null(strstr(text, "up{system=\"etcd-lite\",node=\"slow\"} 0\n"
                                 "up{system=\"etcd-lite\",node=\"sick\"} 0\n"
                                 "up{system=\"etcd-lite\",node=\"down\"} 0\n"
                                 "up{system=\"etcd-lite\",node=\"junk\"} 1\n"
                                 "up{system=\"etcd-lite\",node=\"good\"} 1\n"
                                 "up{system=\"etcd-lite\",node=\"own\"} 1\n"));
    assert_non_null(strstr(text, "a{system=\"etcd-lite\",node=\"junk\"} 3\n"
                                 "a{system=\"etcd-lite\",node=\"junk\"} 5\n"
                                 "a{system=\"etcd-lite\",node=\"good\"} 1\n"
                                 "a{system=\"etcd-lite\",node=\"own\"} 6\n"));
    assert_non_null(strstr(text, "scrape_bad_lines{system=\"etcd-lite\",node=\"junk\"} 3\n"));
    assert_int_equal(bns_federate_answer(f, 0)->code, BNS_E_TIMEOUT);
    assert_int_equal(bns_federate_answer(f, 1)->status, 500);
    assert_int_equal(bns_federate_answer(f, 2)->code, BNS_E_DROPPED);
    assert_true(bns_federate_answer(f, 0)->took >= 200 * BNS_MS);
    assert_true(bns_federate_answer(f, 4)->took < bns_federate_answer(f, 0)->took);
    free(text);
    bns_federate_free(f);
    take_down(env, &good);
    take_down(env, &slow);
    take_down(env, &sick);
    take_down(env, &junk);
    bns_env_uv_free(env);
}

static void a_body_over_the_bound_is_refused(void **state)
{
    static char big[4000];
    struct bns_env *env = new_env();
    struct stand_in n;
    struct bns_federate_target t;
    struct bns_federate_opts o = {.targets = &t, .targets_count = 1};
    (void)state;

    memset(big, 'a', sizeof big - 1);
    memcpy(big + sizeof big - 4, " 1\n", 3);
    stand_up(env, &n, 200, big);
    for (int more = 0; more < 2; more++) {
        struct bns_federate *f;

        t = target("n", n.port);
        o.body_bytes_max = sizeof big - 1 - (size_t)more;
        f = ask(env, &o);
        assert_int_equal(bns_federate_answer(f, 0)->up, more == 0);
        assert_int_equal(bns_federate_answer(f, 0)->code, more == 0 ? BNS_OK : BNS_E_TOOBIG);
        bns_federate_free(f);
    }
    take_down(env, &n);
    bns_env_uv_free(env);
}

static void nobody_to_ask_is_an_answer_too(void **state)
{
    struct bns_env *env = new_env();
    struct bns_federate_opts o = {.targets_count = 0};
    struct bns_federate *f = ask(env, &o);
    char *text = merged(f);
    (void)state;

    assert_non_null(strstr(text, "# TYPE up gauge\n"));
    free(text);
    bns_federate_free(f);
    o.targets_count = BNS_FEDERATE_TARGETS_MAX + 1;
    assert_int_equal(bns_federate_start(env, &o, on_done, env, &f), BNS_E_INVALID);
    bns_env_uv_free(env);
}

/* A process that was stopped, or is slow, finds the answer in its socket before it finds that time
 * is up. */
static void an_answer_may_come_when_time_is_up(void **state)
{
    struct bns_env *env = new_env();
    struct stand_in n;
    struct bns_federate_target t;
    struct bns_federate_opts o = {
        .targets = &t, .targets_count = 1, .deadline_ns = 300 * BNS_MS};
    struct bns_federate *f;
    (void)state;

    jumping_ops = *env->ops;
    true_now = jumping_ops.now_ns;
    jumping_ops.now_ns = jumping_now;
    env->ops = &jumping_ops;
    stand_up(env, &n, 200, "a 1\n");
    n.skew = o.deadline_ns;
    t = target("n", n.port);
    f = ask(env, &o);
    assert_true(bns_federate_answer(f, 0)->up);
    assert_int_equal(bns_federate_answer(f, 0)->code, BNS_OK);
    bns_federate_free(f);
    take_down(env, &n);
    bns_env_uv_free(env);
}

/* Freed while it waits: nothing comes later, nothing leaks (the sanitizers say so). */
static void it_can_be_given_up(void **state)
{
    struct bns_env *env = new_env();
    struct stand_in n;
    struct bns_federate_target t;
    struct bns_federate_opts o = {.targets = &t, .targets_count = 1};
    struct bns_federate *f = NULL;
    (void)state;

    stand_up(env, &n, 200, NULL);
    t = target("n", n.port);
    assert_int_equal(bns_federate_start(env, &o, on_done, env, &f), BNS_OK);
    bns_federate_free(f);
    take_down(env, &n);
    bns_env_uv_free(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_of_all_nodes_stand_together),
        cmocka_unit_test(one_bad_node_costs_only_its_own_numbers),
        cmocka_unit_test(a_body_over_the_bound_is_refused),
        cmocka_unit_test(nobody_to_ask_is_an_answer_too),
        cmocka_unit_test(an_answer_may_come_when_time_is_up),
        cmocka_unit_test(it_can_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
