/* bench_grpc.c - the gRPC server by itself: an echo service.
 *
 *   bench_grpc serve [port]     until killed; prints the port
 *
 * Methods of /bns.Echo: Unary, ServerStream (the first 4 bytes, big-endian, say how many copies),
 * ClientStream (answers with the number of bytes), Bidi.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(int argc, char **argv)
{
    uint16_t port = argc > 2 ? (uint16_t)strtoul(argv[2], NULL, 10) : 0;
    struct bns_grpc_config cfg = {.streams_max = 0};
    struct bns_err err = {.code = 0};
    struct bns_grpc_server *s;
    struct bns_env *env;

    if (bns_env_uv_new(bns_alloc_libc(), NULL, &env, &err) != BNS_OK ||
        bns_grpc_server_new(env, &cfg, &s) != BNS_OK ||
        bns_grpc_server_methods(s, methods, sizeof methods / sizeof methods[0]) != BNS_OK ||
        bns_grpc_server_listen(s, "127.0.0.1", port, &port, &err) != BNS_OK) {
        (void)fprintf(stderr, "bench_grpc: %s\n", err.text);
        return 1;
    }
    printf("%u\n", port);
    (void)fflush(stdout);
    bns_env_uv_run(env);
    return 0;
}
