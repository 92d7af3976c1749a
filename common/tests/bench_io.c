/* bench_io.c - what the loop, the internal RPC and the HTTP server cost on loopback.
 *
 *   bench_io            RPC in one process over loopback TCP: calls one at a time, calls 64 at a
 *                       time, one-way messages of 128 bytes
 *   bench_io http SECS  serves a 2 KiB answer at the printed port, for h2load or wrk */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/env_uv.h"
#include "io/http.h"
#include "io/rpc.h"

#define CALLS 100000u

struct bench {
    struct bns_env *env;
    struct bns_rpc_server *s;
    struct bns_rpc_peer *p;
    size_t done;
    size_t depth;
    size_t oneways;
    size_t sent;
};

static void stop(void *arg)
{
    bns_env_uv_stop(((struct bench *)arg)->env);
}

static void on_oneway(void *arg, uint64_t from, uint16_t method, struct bns_slice payload)
{
    struct bench *b = arg;

    (void)from;
    (void)method;
    (void)payload;
    if (++b->oneways == CALLS)
        stop(b);
}

static void on_request(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                       struct bns_slice payload)
{
    (void)arg;
    (void)from;
    (void)method;
    bns_rpc_reply(r, BNS_OK, payload);
}

static void ask(struct bench *b);

static void on_done(void *arg, int code, struct bns_slice payload)
{
    struct bench *b = arg;

    (void)payload;
    BNS_ASSERT(code == BNS_OK);
    if (++b->done == CALLS)
        stop(b);
    else if (b->done + b->depth <= CALLS)
        ask(b);
}

static void ask(struct bench *b)
{
    static const uint8_t bytes[128];
    struct bns_slice v = bns_slice(bytes, sizeof bytes);
    struct bns_rpc_call_options o = {
        .method = 1, .deadline_ns = bns_now_ns(b->env) + 60 * BNS_SEC, .done = on_done, .arg = b};

    BNS_ASSERT(bns_rpc_call(b->p, &o, &v, 1) == BNS_OK);
}

static void report(struct bench *b, const char *what, uint64_t begin_ns)
{
    double s = (double)(bns_now_ns(b->env) - begin_ns) / 1e9;
    printf("%-28s %9.0f /s  %7.2f us each\n", what, CALLS / s, s * 1e6 / CALLS);
}

static void calls(struct bench *b, size_t depth, const char *what)
{
    uint64_t begin = bns_now_ns(b->env);

    b->done = 0;
    b->depth = depth;
    for (size_t i = 0; i < depth; i++)
        ask(b);
    bns_env_uv_run(b->env);
    report(b, what, begin);
}

static void send_some(struct bns_task *t);
static struct bench bench;
static struct bns_task sender = {.fn = send_some};

static void send_some(struct bns_task *t)
{
    static const uint8_t bytes[128];
    struct bns_slice v = bns_slice(bytes, sizeof bytes);

    for (int i = 0; i < 256 && bench.sent < CALLS; i++) {
        if (bns_rpc_send(bench.p, 1, &v, 1, NULL, NULL) != BNS_OK)
            break;
        bench.sent++;
    }
    if (bench.sent < CALLS)
        bns_post(bench.env, t);
}

static void bench_rpc(void)
{
    static const struct bns_rpc_handler handler = {on_oneway, on_request};
    struct bns_rpc_identity a = {.node_id = 1}, c = {.node_id = 2};
    struct bns_rpc_peer_config cfg = {.node_id = 1, .host = "127.0.0.1", .on_up = stop};
    uint64_t begin;

    cfg.arg = &bench;
    BNS_ASSERT(bns_rpc_server_new(bench.env, &a, &handler, &bench, &bench.s) == BNS_OK);
    BNS_ASSERT(bns_rpc_server_listen(bench.s, "127.0.0.1", 0, &cfg.port, NULL) == BNS_OK);
    BNS_ASSERT(bns_rpc_peer_new(bench.env, &c, &cfg, &bench.p, NULL) == BNS_OK);
    bns_env_uv_run(bench.env);
    calls(&bench, 1, "calls, 1 at a time");
    calls(&bench, 64, "calls, 64 at a time");
    begin = bns_now_ns(bench.env);
    bns_post(bench.env, &sender);
    bns_env_uv_run(bench.env);
    report(&bench, "one-way messages", begin);
    bns_rpc_peer_free(bench.p);
    bns_rpc_server_free(bench.s);
}

static void page(void *arg, struct bns_http_req *q)
{
    bns_http_reply(q, 200, "text/plain", bns_slice(arg, 2048));
}

static void bench_http(uint64_t seconds)
{
    static char text[2048];
    struct bns_http_route route = {.method = "GET", .path = "/", .fn = page, .arg = text};
    struct bns_http_server *s;
    struct bns_timer end;
    uint16_t port;

    memset(text, 'x', sizeof text);
    BNS_ASSERT(bns_http_server_new(bench.env, NULL, &s) == BNS_OK);
    BNS_ASSERT(bns_http_server_routes(s, &route, 1) == BNS_OK);
    BNS_ASSERT(bns_http_server_listen(s, "127.0.0.1", 0, &port, NULL) == BNS_OK);
    printf("%u\n", (unsigned)port);
    (void)fflush(stdout); /* for the script that waits for it */
    bns_timer_init(&end, stop, &bench);
    bns_timer_start(bench.env, &end, bns_now_ns(bench.env) + seconds * BNS_SEC);
    bns_env_uv_run(bench.env);
    bns_http_server_free(s);
}

int main(int argc, char **argv)
{
    BNS_ASSERT(bns_env_uv_new(bns_alloc_libc(), NULL, &bench.env, NULL) == BNS_OK);
    if (argc == 3 && strcmp(argv[1], "http") == 0)
        bench_http(strtoull(argv[2], NULL, 10));
    else
        bench_rpc();
    bns_env_uv_free(bench.env);
    return 0;
}
