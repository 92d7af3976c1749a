/* fuzz_tls.c - any bytes into both sides of a TLS connection, before, in and after the handshake.
 *
 * The first byte chooses what the rest is (bits 0, 1), the version (bit 2), how the bytes are cut
 * (bits 3..5):
 *   0  what a client sends to our server
 *   1  what a server sends to our client
 *   2  what a client sends to our server behind a good handshake
 *   3  a place (two bytes), and what is changed from there on in what a good client sends
 * Whatever comes, the connection ends or waits, and nothing is left. */
#include <stdlib.h>

#include "fuzz.h"
#include "tls_kit.h"

struct side {
    struct bns_stream *s;
    struct bns_slice in; /* written once it is there */
};

static struct {
    struct kit k;
    struct bns_test_heap *heap;
    struct bns_vfs *vfs;
    struct bns_tls *serve, *dial;
    struct bns_tls_listener *l;
    struct bns_listener *raw; /* of a server that says what the input says */
    SSL_CTX *ctx[2];
    struct bns_slice in;
    struct bns_stream *owner; /* of our server's stream */
    size_t in_use;
    bool ready;
} g;

static void owner_data(void *arg, struct bns_slice data)
{
    (void)arg;
    if (g.owner != NULL && data.len > 0 && data.ptr[0] == '!')
        bns_stream_close(g.owner);
}

static void owner_close(void *arg, int code)
{
    (void)arg;
    (void)code;
    g.owner = NULL;
}

static void on_accept(void *arg, struct bns_stream *s)
{
    static const struct bns_stream_events ev = {.on_data = owner_data, .on_close = owner_close};

    (void)arg;
    g.owner = s;
    bns_stream_set_events(s, &ev, NULL);
}

/* The other server: answers the first bytes with the input. */
static void raw_data(void *arg, struct bns_slice data)
{
    struct side *r = arg;

    (void)data;
    if (r->in.len > 0 && bns_stream_write(r->s, &r->in, 1, NULL, NULL) != BNS_OK)
        abort();
    r->in.len = 0;
}

static void raw_close(void *arg, int code)
{
    (void)code;
    free(arg);
}

static void on_raw(void *arg, struct bns_stream *s)
{
    static const struct bns_stream_events ev = {.on_data = raw_data, .on_close = raw_close};
    struct side *r = calloc(1, sizeof *r);

    (void)arg;
    BNS_ASSERT(r != NULL);
    r->s = s;
    r->in = g.in;
    bns_stream_set_events(s, &ev, r);
}

static SSL_CTX *raw_ctx(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    BNS_ASSERT(ctx != NULL);
    BNS_ASSERT(SSL_CTX_set_max_proto_version(ctx, version) == 1);
    return ctx;
}

static void get_ready(void)
{
    struct kit_pair ca = kit_issue(NULL, (struct kit_issue){.cn = "ca", .ca = true});
    struct kit_pair leaf = kit_issue(&ca, (struct kit_issue){.cn = "leaf"});
    const struct bns_tls_config serve = {
        .name = "s", .serve = true, .cert_file = "leaf.pem", .key_file = "leaf.key"};
    const struct bns_tls_config dial = {.name = "d", .dial = true, .ca_file = "ca.pem"};
    const struct bns_tls_listen_options o = {.host = "h", .fn = on_accept, .alpn_http = true};

    g.heap = bns_test_heap(0);
    BNS_ASSERT(bns_vfs_mem_new(bns_alloc_libc(), 1, &g.vfs) == BNS_OK);
    kit_write_pair(g.vfs, "ca", &ca);
    kit_write_pair(g.vfs, "leaf", &leaf);
    kit_pair_free(&ca);
    kit_pair_free(&leaf);
    kit_init(&g.k, bns_test_heap_alloc(g.heap), g.vfs);
    g.k.f.env.log = NULL;
    BNS_ASSERT(bns_tls_new(&g.k.f.env, &serve, &g.serve, NULL) == BNS_OK);
    BNS_ASSERT(bns_tls_new(&g.k.f.env, &dial, &g.dial, NULL) == BNS_OK);
    BNS_ASSERT(bns_tls_listen(&g.k.f.env, g.serve, &o, &g.l, NULL) == BNS_OK);
    BNS_ASSERT(bns_net_listen(&g.k.f.env, "h", 0, on_raw, NULL, &g.raw, NULL) == BNS_OK);
    g.ctx[0] = raw_ctx(TLS1_2_VERSION);
    g.ctx[1] = raw_ctx(TLS1_3_VERSION);
    g.in_use = bns_test_heap_in_use(g.heap);
    g.ready = true;
}

static void end_raw(struct kit_raw *r)
{
    fake_run_for(&g.k.f, BNS_MS);
    if (!r->closed)
        bns_stream_close(r->s);
    fake_run_for(&g.k.f, BNS_MS);
    if (!r->closed)
        bns_stream_reset(r->s);
    fake_run_for(&g.k.f, BNS_MS);
    if (g.owner != NULL)
        bns_stream_reset(g.owner);
    fake_run_for(&g.k.f, BNS_MS);
    kit_raw_free(r);
}

static void to_our_server(const uint8_t *data, size_t size, SSL_CTX *ctx)
{
    struct kit_raw r;

    kit_raw_dial(&r, &g.k.f.env, bns_tls_listener_port(g.l), ctx);
    if (ctx != NULL)
        fake_run_for(&g.k.f, BNS_MS);
    kit_raw_send(&r, data, size);
    end_raw(&r);
}

static void changed(const uint8_t *data, size_t size, SSL_CTX *ctx)
{
    struct kit_raw r;

    if (size < 2)
        return;
    kit_raw_dial(&r, &g.k.f.env, bns_tls_listener_port(g.l), ctx);
    r.change_at = (size_t)data[0] << 8 | data[1];
    r.change = bns_slice(data + 2, size - 2);
    fake_run_for(&g.k.f, BNS_MS);
    if (!r.closed && SSL_is_init_finished(r.ssl))
        kit_raw_write(&r, "hello!");
    end_raw(&r);
}

static void client_close(void *arg, int code)
{
    (void)code;
    *(bool *)arg = true;
}

static void to_our_client(const uint8_t *data, size_t size)
{
    static const struct bns_stream_events ev = {.on_data = bns_stream_ignore_data,
                                                .on_close = client_close};
    const struct bns_tls_dial o = {.host = "127.0.0.1",
                                   .port = bns_listener_port(&g.k.f.env, g.raw)};
    struct bns_stream *s = NULL;
    bool closed = false;

    g.in = bns_slice(data, size);
    BNS_ASSERT(bns_tls_connect(&g.k.f.env, g.dial, &o, &ev, &closed, &s, NULL) == BNS_OK);
    fake_run_for(&g.k.f, BNS_MS);
    if (!closed)
        bns_stream_reset(s);
    fake_run_for(&g.k.f, BNS_MS);
    BNS_ASSERT(closed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t chunks[8] = {65536, 1, 2, 5, 7, 64, 300, 4000};
    SSL_CTX *ctx;

    if (!g.ready)
        get_ready();
    if (size < 1 || size > 8192)
        return 0;
    g.k.f.chunk = chunks[data[0] >> 3 & 7];
    ctx = g.ctx[data[0] >> 2 & 1];
    switch (data[0] & 3) {
    case 0:
        to_our_server(data + 1, size - 1, NULL);
        break;
    case 1:
        to_our_client(data + 1, size - 1);
        break;
    case 2:
        to_our_server(data + 1, size - 1, ctx);
        break;
    default:
        changed(data + 1, size - 1, ctx);
        break;
    }
    fake_run_for(&g.k.f, 20 * BNS_SEC); /* time limits too */
    BNS_ASSERT(bns_test_heap_in_use(g.heap) == g.in_use);
    return 0;
}
