/* fuzz_rpc.c - any bytes into the accepting and into the dialling side of the internal RPC.
 *
 * The first byte chooses the side (bit 0), whether a good HELLO goes first (bit 1), whether the
 * rest are raw bytes or (bit 2) records of kind, method, aux, id, length, payload that are sent as
 * frames with good checksums, and how it is cut (bits 3..7). Whatever comes, the connection ends or
 * waits, and nothing is left. */
#include <stdlib.h>

#include "codec/frame.h"
#include "io/rpc.h"
#include "sim/heap.h"

#include "fake_env.h"
#include "fuzz.h"

struct side {
    struct bns_stream *s;
    struct bns_slice in;
    uint8_t hello[BNS_FRAME_HEAD_BYTES + BNS_HELLO_BYTES];
    bool greet;
};

static void on_oneway(void *arg, uint64_t from, uint16_t method, struct bns_slice payload)
{
    (void)arg;
    (void)from;
    (void)method;
    (void)payload;
}

static void on_request(void *arg, struct bns_rpc_request *q, uint64_t from, uint16_t method,
                       struct bns_slice payload)
{
    (void)arg;
    (void)from;
    bns_rpc_reply(q, method % 2 == 0 ? BNS_OK : BNS_E_BUSY, payload);
}

static void stream_data(void *arg, struct bns_slice data)
{
    struct bns_rpc_stream **s = arg;

    if (data.len > 0 && data.ptr[0] == '!') {
        bns_rpc_stream_close(*s, BNS_E_BUSY);
        *s = NULL;
        return;
    }
    bns_rpc_stream_ack(*s, data.len);
    if (bns_rpc_stream_write(*s, &(struct bns_slice){(const uint8_t *)"x", 1}, 1, NULL, NULL) !=
        BNS_OK)
        bns_rpc_stream_end(*s);
}
static void stream_end(void *arg)
{
    bns_rpc_stream_end(*(struct bns_rpc_stream **)arg);
}
static void stream_close(void *arg, int code)
{
    (void)code;
    *(struct bns_rpc_stream **)arg = NULL;
}
static const struct bns_rpc_stream_events stream_events = {
    .on_data = stream_data, .on_end = stream_end, .on_close = stream_close};

static struct bns_rpc_stream *streams[4];

static void on_stream(void *arg, struct bns_rpc_stream *s, uint64_t from, uint16_t method,
                      struct bns_slice payload)
{
    (void)arg;
    (void)from;
    (void)method;
    (void)payload;
    for (size_t i = 0; i < 4; i++) {
        if (streams[i] == NULL) {
            streams[i] = s;
            bns_rpc_stream_accept(s, &stream_events, &streams[i]);
            return;
        }
    }
    bns_rpc_stream_close(s, BNS_E_BUSY);
}

static void say(struct side *d)
{
    struct bns_slice v[2] = {bns_slice(d->hello, sizeof d->hello), d->in};

    BNS_ASSERT(bns_stream_write(d->s, d->greet ? v : v + 1, d->greet ? 2 : 1, NULL, NULL) == 0);
}

static void side_data(void *arg, struct bns_slice data)
{
    (void)arg;
    (void)data;
}
static void side_closed(void *arg, int code)
{
    (void)code;
    ((struct side *)arg)->s = NULL;
}
static const struct bns_stream_events side_events = {.on_data = side_data, .on_close = side_closed};

static void side_accept(void *arg, struct bns_stream *s)
{
    struct side *d = arg;

    if (d->s != NULL) { /* one is enough */
        bns_stream_reset(s);
        return;
    }
    d->s = s;
    bns_stream_set_events(s, &side_events, d);
    say(d);
}

static void make_frames(struct bns_slice in, struct bns_buf *out)
{
    while (in.len >= 5) {
        struct bns_frame f = {.kind = in.ptr[0] % 11,
                              .method = (uint16_t)(in.ptr[1] << 8 | 1),
                              .aux = in.ptr[2],
                              .id = in.ptr[3]};
        size_t len = in.ptr[4] < in.len - 5 ? in.ptr[4] : in.len - 5;

        f.payload = bns_slice(in.ptr + 5, len);
        BNS_ASSERT(bns_frame_encode(&f, out) == BNS_OK);
        in = bns_slice_skip(in, 5 + len);
    }
}

static void make_hello(struct side *d, uint64_t node)
{
    struct bns_hello h = {.ver_min = 1, .ver_max = 1, .node_id = node};
    struct bns_frame f = {.kind = BNS_FRAME_HELLO};
    struct bns_slice v = bns_slice(d->hello + BNS_FRAME_HEAD_BYTES, BNS_HELLO_BYTES);

    bns_hello_encode(&h, d->hello + BNS_FRAME_HEAD_BYTES);
    BNS_ASSERT(bns_frame_head(&f, &v, 1, d->hello) == BNS_OK);
}

static void asked(void *arg, int code, struct bns_slice payload)
{
    (void)code;
    (void)payload;
    ++*(size_t *)arg;
}

static void attack_server(struct fake_env *f, struct side *d)
{
    static const struct bns_rpc_handler handler = {on_oneway, on_request};
    struct bns_rpc_identity id = {.node_id = 1};
    struct bns_rpc_server *s;
    uint16_t port;

    BNS_ASSERT(bns_rpc_server_new(&f->env, &id, &handler, NULL, &s) == BNS_OK);
    bns_rpc_server_streams(s, on_stream);
    BNS_ASSERT(bns_rpc_server_listen(s, "127.0.0.1", 0, &port, NULL) == BNS_OK);
    make_hello(d, 2);
    BNS_ASSERT(bns_net_connect(&f->env, "h", port, &side_events, d, &d->s, NULL) == BNS_OK);
    say(d);
    fake_run_for(f, 10 * BNS_SEC);
    bns_rpc_server_free(s);
}

static void attack_peer(struct fake_env *f, struct side *d)
{
    struct bns_rpc_identity id = {.node_id = 2};
    struct bns_rpc_peer_config cfg = {.host = "h", .node_id = 1};
    struct bns_rpc_stream_options so = {.method = 0x8001, .ev = &stream_events, .arg = &streams[0]};
    struct bns_rpc_peer *p;
    struct bns_listener *l;
    size_t dones = 0;
    struct bns_rpc_call_options o = {
        .method = 1, .deadline_ns = f->now + 5 * BNS_SEC, .done = asked, .arg = &dones};

    make_hello(d, 1);
    BNS_ASSERT(bns_net_listen(&f->env, "h", 0, side_accept, d, &l, NULL) == BNS_OK);
    cfg.port = bns_listener_port(&f->env, l);
    BNS_ASSERT(bns_rpc_peer_new(&f->env, &id, &cfg, &p, NULL) == BNS_OK);
    BNS_ASSERT(bns_rpc_call(p, &o, NULL, 0) == BNS_OK);
    fake_run_for(f, BNS_SEC);
    if (bns_rpc_peer_up(p) && bns_rpc_stream_open(p, &so, &streams[0]) == BNS_OK && d->s != NULL)
        say(d); /* again, with a stream open */
    fake_run_for(f, 2 * BNS_SEC);
    bns_rpc_peer_free(p);
    BNS_ASSERT(dones == 1);
    bns_listener_close(&f->env, l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_test_heap *h;
    struct fake_env f;
    struct side d = {.s = NULL};
    struct bns_buf frames;

    if (size == 0)
        return 0;
    h = bns_test_heap(0);
    BNS_ASSERT(h != NULL);
    fake_init(&f, bns_test_heap_alloc(h));
    d.in = bns_slice(data + 1, size - 1);
    memset(streams, 0, sizeof streams);
    bns_buf_init(&frames, f.env.alloc, SIZE_MAX / 2);
    if ((data[0] & 4) != 0) {
        make_frames(d.in, &frames);
        d.in = bns_buf_slice(&frames);
    }
    d.greet = (data[0] & 2) != 0;
    f.chunk = (size_t)(data[0] >> 3) * 8 + 1;
    if ((data[0] & 1) == 0)
        attack_server(&f, &d);
    else
        attack_peer(&f, &d);
    if (d.s != NULL)
        bns_stream_reset(d.s);
    fake_free(&f);
    bns_buf_free(&frames);
    for (size_t i = 0; i < 4; i++)
        BNS_ASSERT(streams[i] == NULL); /* each was told its end */
    BNS_ASSERT(bns_test_heap_close(h, NULL) == 0);
    return 0;
}
