/* gateway_kit.h - the echo service of grpc_kit.h behind a gateway and an HTTP server, in one fake
 * env, and a client that is a plain stream. The messages are those of pb_test.proto. */
#ifndef BNS_TESTS_GATEWAY_KIT_H
#define BNS_TESTS_GATEWAY_KIT_H

#include "base/rcbuf.h"
#include "io/grpc_gateway.h"
#include "pb_test.pb-c.h"

#include "grpc_kit.h"

#define GATE_ALL &bns__test__all__descriptor
#define GATE_INNER &bns__test__inner__descriptor

static const struct bns_grpc_gateway_path gate_paths[] = {
    {"/v3/unary", "/bns.Echo/Unary", GATE_ALL, GATE_ALL},
    {"/v3/many", "/bns.Echo/ServerStream", GATE_INNER, GATE_INNER},
    {"/v3/sum", "/bns.Echo/ClientStream", GATE_INNER, GATE_INNER},
    {"/v3/bidi", "/bns.Echo/Bidi", GATE_ALL, GATE_ALL},
    {"/v3/hang", "/bns.Echo/Hang", GATE_INNER, GATE_INNER},
    {"/v3/flood", "/bns.Echo/Flood", GATE_INNER, GATE_INNER},
    {"/v3/none", "/bns.Echo/None", GATE_INNER, GATE_INNER},
    {"/v3/nobody", "/bns.Nobody/None", GATE_INNER, GATE_INNER},
};

static const char *const gate_old[] = {"/v2/", NULL};

struct gate {
    struct kit k;
    struct bns_http_server *http;
    struct bns_grpc_gateway *g;
    struct bns_http_route route[2];
    uint16_t port;
};

struct gate_client {
    struct bns_stream *s;
    struct bns_buf got;
    bool closed;
};

static struct bns_grpc_config gate_config; /* of the servers that are made from now on */

static inline int gate_try(struct gate *t, int fail_at)
{
    const struct bns_grpc_gateway_config cfg = {.paths = gate_paths,
                                                .paths_count =
                                                    sizeof gate_paths / sizeof gate_paths[0],
                                                .prefixes_old = gate_old,
                                                .prefix_now = "/v3/",
                                                .elements_max = 1000};
    int rv = kit_try(&t->k, &gate_config, fail_at);

    t->http = NULL;
    t->g = NULL;
    if (rv == BNS_OK)
        rv = bns_http_server_new(&t->k.f.env, NULL, &t->http);
    if (rv == BNS_OK)
        rv = bns_grpc_gateway_new(&t->k.f.env, t->k.server, &cfg, &t->g);
    for (size_t i = 0; i < 2; i++)
        t->route[i] = (struct bns_http_route){.method = "*",
                                              .path = i == 0 ? "/v3" : "/v2",
                                              .fn = bns_grpc_gateway_serve,
                                              .arg = t->g,
                                              .body_bytes_max = UINT64_MAX,
                                              .prefix = true,
                                              .stream = true};
    if (rv == BNS_OK)
        rv = bns_http_server_routes(t->http, t->route, 2);
    if (rv == BNS_OK)
        rv = bns_http_server_listen(t->http, "127.0.0.1", 0, &t->port, NULL);
    return rv;
}

static inline size_t gate_close(struct gate *t, bool *fired)
{
    bns_http_server_free(t->http);
    bns_grpc_gateway_free(t->g);
    return kit_close(&t->k, fired);
}

static inline void gate_data(void *arg, struct bns_slice data)
{
    struct gate_client *c = arg;
    BNS_ASSERT(bns_buf_add(&c->got, data.ptr, data.len) == BNS_OK);
}

static inline void gate_closed(void *arg, int code)
{
    (void)code;
    ((struct gate_client *)arg)->closed = true;
}

static const struct bns_stream_events gate_events = {.on_data = gate_data, .on_close = gate_closed};

static inline void gate_dial(struct gate *t, struct gate_client *c)
{
    *c = (struct gate_client){.s = NULL};
    bns_buf_init(&c->got, bns_alloc_libc(), 256u << 20);
    BNS_ASSERT(bns_net_connect(&t->k.f.env, "127.0.0.1", t->port, &gate_events, c, &c->s, NULL) ==
               BNS_OK);
}

static inline void gate_said(void *arg, int code)
{
    (void)code;
    bns_rcbuf_put(arg);
}

static inline void gate_say(struct gate_client *c, struct bns_slice text)
{
    struct bns_rcbuf *b = bns_rcbuf_copy(bns_alloc_libc(), text);
    struct bns_slice v = bns_rcbuf_slice(b);

    BNS_ASSERT(b != NULL);
    if (c->closed || bns_stream_write(c->s, &v, 1, gate_said, b) != BNS_OK)
        bns_rcbuf_put(b); /* the server may have hung up */
}

/* A POST with a body of known length. */
static inline void gate_post(struct gate_client *c, const char *path, struct bns_slice body)
{
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 64u << 20);
    BNS_ASSERT(bns_buf_fmt(&b,
                           "POST %s HTTP/1.1\r\nHost: x\r\nGrpc-Metadata-Colour: red\r\n"
                           "Authorization: me\r\nContent-Length: %zu\r\n\r\n",
                           path, body.len) == BNS_OK);
    BNS_ASSERT(body.len == 0 || bns_buf_add(&b, body.ptr, body.len) == BNS_OK);
    gate_say(c, bns_buf_slice(&b));
    bns_buf_free(&b);
}

static inline void gate_end(struct gate *t, struct gate_client *c)
{
    if (!c->closed)
        bns_stream_reset(c->s);
    fake_run_for(&t->k.f, 0);
    bns_buf_free(&c->got);
}

#endif
