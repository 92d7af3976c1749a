/* test_admin.c - what a scraper and a load balancer see on the admin routes, over a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/admin.h"
#include "base/metrics.h"
#include "io/env_uv.h"

struct asked {
    struct bns_env *env;
    int code, status;
    char body[16384];
};

static const char *reason;

static const char *not_ready(void *arg)
{
    (void)arg;
    return reason;
}

static void on_answer(void *arg, int code, const struct bns_http_answer *a)
{
    struct asked *x = arg;

    x->code = code;
    if (code == BNS_OK) {
        size_t n = a->body.len < sizeof x->body - 1 ? a->body.len : sizeof x->body - 1;

        x->status = a->status;
        memcpy(x->body, a->body.ptr, n);
        x->body[n] = '\0';
    }
    bns_env_uv_stop(x->env);
}

static void ask(struct asked *x, uint16_t port, const char *path)
{
    struct bns_http_fetch_opts o = {.host = "127.0.0.1", .port = port, .target = path};

    memset(x->body, 0, sizeof x->body);
    x->status = 0;
    assert_int_equal(bns_http_fetch(x->env, &o, on_answer, x, NULL, NULL), BNS_OK);
    bns_env_uv_run(x->env);
    assert_int_equal(x->code, BNS_OK);
}

static void drained(void *arg)
{
    bns_env_uv_stop(arg);
}

static void the_admin_routes_answer(void **state)
{
    struct bns_env *env = NULL;
    struct bns_metrics *m = NULL;
    struct bns_http_server *s = NULL;
    struct bns_admin a;
    struct asked x;
    uint16_t port = 0;
    (void)state;

    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), NULL, &env, NULL), BNS_OK);
    assert_int_equal(bns_http_server_new(env, NULL, &s), BNS_OK);
    a = (struct bns_admin){.env = env, .not_ready = not_ready};
    x = (struct asked){.env = env};
    assert_int_equal(bns_admin_routes(&a, s), BNS_OK);
    assert_int_equal(bns_http_server_listen(s, "127.0.0.1", 0, &port, NULL), BNS_OK);

    ask(&x, port, "/metrics");
    assert_int_equal(x.status, 404);
    assert_int_equal(bns_metrics_new(bns_alloc_libc(), &m), BNS_OK);
    env->metrics = m;
    bns_counter_add(bns_counter(m, "bns_test_total", NULL, "a test"), 3);
    ask(&x, port, "/metrics");
    assert_int_equal(x.status, 200);
    assert_non_null(strstr(x.body, "# TYPE bns_test_total counter\n"));
    assert_non_null(strstr(x.body, "bns_test_total 3\n"));

    ask(&x, port, "/healthz");
    assert_int_equal(x.status, 200);
    assert_string_equal(x.body, "ok\n");
    ask(&x, port, "/readyz");
    assert_int_equal(x.status, 200);
    reason = "no leader";
    ask(&x, port, "/readyz");
    assert_int_equal(x.status, 503);
    assert_string_equal(x.body, "no leader");
    ask(&x, port, "/healthz");
    assert_int_equal(x.status, 200);
    ask(&x, port, "/nothing");
    assert_int_equal(x.status, 404);

    bns_http_server_drain(s, BNS_SEC, drained, env);
    bns_env_uv_run(env);
    bns_http_server_free(s);
    bns_env_uv_free(env);
    bns_metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_admin_routes_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
