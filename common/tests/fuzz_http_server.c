/* fuzz_http_server.c - any bytes into the HTTP server, cut in any way, handlers that answer at
 * once, later, in pieces, or while the body still comes.
 *
 * The first byte chooses how the input is cut; the second one when the answers that are late come.
 * Whatever comes, each request is answered or told that its client is gone, and nothing is left. */
#include <stdlib.h>

#include "io/http.h"
#include "sim/heap.h"

#include "fake_env.h"
#include "fuzz.h"

#define LATE_MAX 8

struct rig {
    struct fake_env f;
    struct bns_http_req *late[LATE_MAX];
    size_t late_count;
    struct bns_stream *client;
};

static void now(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply(q, 200, "text/plain", bns_http_body(q));
}

static void later(void *arg, struct bns_http_req *q)
{
    struct rig *r = arg;

    if (r->late_count == LATE_MAX)
        bns_http_abort(q);
    else
        r->late[r->late_count++] = q;
}

static void pieces(void *arg, struct bns_http_req *q)
{
    struct bns_slice v = BNS_LIT("piece");

    (void)arg;
    if (bns_http_begin(q, 200, BNS_HTTP_CHUNKED) == BNS_OK &&
        bns_http_write(q, &v, 1, NULL, NULL) == BNS_OK)
        bns_http_end(q);
    else
        bns_http_abort(q);
}

static void body_data(void *arg, struct bns_slice data)
{
    struct bns_http_req *q = arg;

    if (data.len == 0)
        bns_http_reply_text(q, 201, "stored");
    else if (data.ptr[0] == '!') /* answers before the end */
        bns_http_reply_text(q, 400, "enough");
}

static void body_gone(void *arg)
{
    bns_http_abort(arg);
}

static void body(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_on_body(q, body_data, q);
    bns_http_on_gone(q, body_gone, q);
}

static void client_data(void *arg, struct bns_slice data)
{
    (void)arg;
    (void)data;
}
static void client_closed(void *arg, int code)
{
    (void)code;
    ((struct rig *)arg)->client = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct bns_stream_events events = {.on_data = client_data,
                                                    .on_close = client_closed};
    static struct rig r;
    struct bns_http_route routes[] = {
        {.method = "*", .path = "/now", .fn = now, .body_bytes_max = 64},
        {.method = "GET", .path = "/late", .fn = later, .arg = &r},
        {.method = "GET", .path = "/p", .fn = pieces, .prefix = true},
        {.method = "PUT", .path = "/b", .fn = body, .stream = true},
    };
    struct bns_test_heap *h;
    struct bns_http_server *s;
    struct bns_slice in;
    uint16_t port;

    if (size < 2)
        return 0;
    h = bns_test_heap(0);
    BNS_ASSERT(h != NULL);
    memset(&r, 0, sizeof r);
    fake_init(&r.f, bns_test_heap_alloc(h));
    r.f.chunk = data[0] + 1u;
    in = bns_slice(data + 2, size - 2);
    BNS_ASSERT(bns_http_server_new(&r.f.env, NULL, &s) == BNS_OK);
    BNS_ASSERT(bns_http_server_routes(s, routes, 4) == BNS_OK);
    BNS_ASSERT(bns_http_server_listen(s, "h", 0, &port, NULL) == BNS_OK);
    BNS_ASSERT(bns_net_connect(&r.f.env, "h", port, &events, &r, &r.client, NULL) == BNS_OK);
    BNS_ASSERT(bns_stream_write(r.client, &in, 1, NULL, NULL) == BNS_OK);
    for (int i = 0; i < 4; i++) {
        fake_run_for(&r.f, (uint64_t)data[1] * 100 * BNS_MS);
        if (r.late_count > 0)
            bns_http_reply_text(r.late[--r.late_count], 200, "late");
    }
    bns_http_server_free(s);
    while (r.late_count > 0)
        bns_http_reply_text(r.late[--r.late_count], 200, "too late");
    if (r.client != NULL)
        bns_stream_reset(r.client);
    fake_free(&r.f);
    BNS_ASSERT(bns_test_heap_close(h, NULL) == 0);
    return 0;
}
