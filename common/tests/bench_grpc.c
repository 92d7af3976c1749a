/* bench_grpc.c - the gRPC server and client by themselves: an echo service.
 *
 *   bench_grpc [connections [calls [bytes [in-flight]]]]    64 connections, 500,000 unary calls of
 *                               100 bytes, 1 in flight on each; the server is a process of its own
 *   bench_grpc serve [port]     until killed; prints the port (for h2load, grpcio, ...)
 *
 * Methods of /bns.Echo: Unary, ServerStream (the first 4 bytes, big-endian, say how many copies),
 * ClientStream (answers with the number of bytes), Bidi.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/varint.h"
#include "io/env_uv.h"
#include "io/grpc.h"

static void echo(struct bns_grpc_call *c, struct bns_slice msg)
{
    if (bns_grpc_send_copy(c, msg) == BNS_OK)
        bns_grpc_finish(c, BNS_GRPC_OK, NULL, NULL, 0);
    else
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
}

static void echo_many(struct bns_grpc_call *c, struct bns_slice msg)
{
    uint32_t n = msg.len < 4 ? 0 : bns_get_u32be(msg.ptr);
    int rv = BNS_OK;

    while (n-- > 0 && rv == BNS_OK)
        rv = bns_grpc_send_copy(c, msg);
    bns_grpc_finish(c, rv == BNS_OK ? BNS_GRPC_OK : BNS_GRPC_RESOURCE_EXHAUSTED, NULL, NULL, 0);
}

static void sum(struct bns_grpc_call *c, struct bns_slice msg)
{
    bns_grpc_set_ctx(c, (void *)((uintptr_t)bns_grpc_ctx(c) + msg.len));
}

static void sum_end(struct bns_grpc_call *c)
{
    uint8_t out[8];

    bns_put_u64be(out, (uintptr_t)bns_grpc_ctx(c));
    echo(c, bns_slice(out, sizeof out));
}

static void bidi(struct bns_grpc_call *c, struct bns_slice msg)
{
    (void)!bns_grpc_send_copy(c, msg);
}

static void bidi_end(struct bns_grpc_call *c)
{
    struct bns_slice v = BNS_LIT("none");
    struct bns_grpc_md md[] = {{BNS_LIT("seen-bin"), {NULL, 0}}, {BNS_LIT("plain"), v}};

    if (bns_grpc_metadata(c, "token-bin", &v))
        md[0].value = v;
    bns_grpc_finish(c, BNS_GRPC_ABORTED, "caf\303\251 100%", md, 2);
}

static const struct bns_grpc_method methods[] = {
    {.path = "/bns.Echo/Unary", .kind = BNS_GRPC_UNARY, .handler = {.on_message = echo}},
    {.path = "/bns.Echo/ServerStream",
     .kind = BNS_GRPC_SERVER_STREAM,
     .handler = {.on_message = echo_many}},
    {.path = "/bns.Echo/ClientStream",
     .kind = BNS_GRPC_CLIENT_STREAM,
     .handler = {.on_message = sum, .on_half_close = sum_end}},
    {.path = "/bns.Echo/Bidi",
     .kind = BNS_GRPC_BIDI,
     .handler = {.on_message = bidi, .on_half_close = bidi_end}},
};

static uint16_t start_server(struct bns_env **env, uint16_t port)
{
    static struct bns_grpc_server *s;
    struct bns_err err = {.code = 0};

    if (bns_env_uv_new(bns_alloc_libc(), NULL, env, &err) != BNS_OK ||
        bns_grpc_server_new(*env, NULL, &s) != BNS_OK ||
        bns_grpc_server_methods(s, methods, sizeof methods / sizeof methods[0]) != BNS_OK ||
        bns_grpc_server_listen(s, "127.0.0.1", port, &port, &err) != BNS_OK) {
        (void)fprintf(stderr, "bench_grpc: %s\n", err.text);
        exit(1);
    }
    return port;
}

/* ---- load ----------------------------------------------------------------------------------- */
struct load {
    struct bns_env *env;
    struct bns_grpc_client **clients;
    struct bns_slice request;
    unsigned long started, done, failed, calls;
};

struct lane {
    struct load *load;
    struct bns_grpc_client *client;
};

static void lane_next(struct lane *lane);

static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    (void)c;
    (void)msg;
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct lane *lane = bns_grpc_ccall_arg(c);
    struct load *l = lane->load;

    (void)text;
    l->failed += status != BNS_GRPC_OK;
    if (++l->done == l->calls)
        bns_env_uv_stop(l->env);
    else
        lane_next(lane);
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void lane_next(struct lane *lane)
{
    static const struct bns_grpc_call_options o = {.path = "/bns.Echo/Unary"};
    struct load *l = lane->load;

    if (l->started == l->calls)
        return;
    l->started++;
    if (bns_grpc_unary(lane->client, &o, l->request, &handler, lane) != BNS_OK) {
        (void)fprintf(stderr, "bench_grpc: cannot start a call\n");
        exit(1);
    }
}

static double seconds(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void run_load(uint16_t port, unsigned long conns, unsigned long calls, size_t bytes,
                     unsigned long flight)
{
    static uint8_t zeros[1 << 20];
    struct load l = {.calls = calls,
                     .request = {zeros, bytes < sizeof zeros ? bytes : sizeof zeros}};
    struct lane *lanes = calloc(conns, sizeof *lanes);
    uint64_t begin;

    l.request = bns_slice(zeros, bytes < sizeof zeros ? bytes : sizeof zeros);
    if (lanes == NULL || bns_env_uv_new(bns_alloc_libc(), NULL, &l.env, NULL) != BNS_OK)
        exit(1);
    begin = bns_now_ns(l.env);
    for (unsigned long i = 0; i < conns; i++) {
        lanes[i].load = &l;
        if (bns_grpc_client_new(l.env, "127.0.0.1", port, &lanes[i].client, NULL) != BNS_OK)
            exit(1);
        for (unsigned long n = 0; n < flight; n++)
            lane_next(&lanes[i]);
    }
    bns_env_uv_run(l.env);
    printf("%lu connections, %lu in flight, %zu bytes: %.0f calls/s, %lu failed\n", conns, flight,
           l.request.len, (double)calls / ((double)(bns_now_ns(l.env) - begin) / 1e9), l.failed);
    for (unsigned long i = 0; i < conns; i++)
        bns_grpc_client_free(lanes[i].client);
    bns_env_uv_free(l.env);
    free(lanes);
}

static unsigned long number(int argc, char **argv, int i, unsigned long otherwise)
{
    return argc > i ? strtoul(argv[i], NULL, 10) : otherwise;
}

/* The server is a process of its own, so that its CPU time can be told apart. */
static uint16_t spawn_server(const char *self, pid_t *pid)
{
    char *args[] = {(char *)(uintptr_t)self, (char *)(uintptr_t) "serve", NULL};
    posix_spawn_file_actions_t fa;
    char line[16] = "";
    int fd[2];

    if (pipe(fd) != 0 || posix_spawn_file_actions_init(&fa) != 0 ||
        posix_spawn_file_actions_adddup2(&fa, fd[1], STDOUT_FILENO) != 0 ||
        posix_spawn_file_actions_addclose(&fa, fd[0]) != 0 ||
        posix_spawn(pid, "/proc/self/exe", &fa, NULL, args, NULL) != 0 ||
        read(fd[0], line, sizeof line - 1) <= 0) {
        (void)fprintf(stderr, "bench_grpc: cannot start the server\n");
        exit(1);
    }
    (void)posix_spawn_file_actions_destroy(&fa); /* cannot fail */
    return (uint16_t)strtoul(line, NULL, 10);
}

int main(int argc, char **argv)
{
    unsigned long conns = number(argc, argv, 1, 64), calls = number(argc, argv, 2, 500000);
    struct rusage mine, server;
    uint16_t port;
    int status;
    pid_t pid;

    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        struct bns_env *env;

        port = start_server(&env, (uint16_t)number(argc, argv, 2, 0));
        printf("%u\n", port);
        (void)fflush(stdout);
        bns_env_uv_run(env);
        return 0;
    }
    if (conns == 0 || calls == 0)
        return 2;
    port = spawn_server(argv[0], &pid);
    run_load(port, conns, calls, number(argc, argv, 3, 100), number(argc, argv, 4, 1));
    (void)kill(pid, SIGTERM);
    if (wait4(pid, &status, 0, &server) != pid || getrusage(RUSAGE_SELF, &mine) != 0)
        return 1;
    printf("CPU: server %.2f s (%.2f us a call), client %.2f s; server's peak RSS %ld KiB\n",
           seconds(&server), seconds(&server) * 1e6 / (double)calls, seconds(&mine),
           server.ru_maxrss);
    return 0;
}
