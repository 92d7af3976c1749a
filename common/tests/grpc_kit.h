/* grpc_kit.h - a gRPC server and a client in one fake env, and an echo service that can misbehave.
 *
 * Service /bns.Echo: Unary, ServerStream (the first 4 bytes say how many, modulo
 * 64), ClientStream, Bidi as their names say; Hang answers never
 * (finish by kit_finish_held()); Flood sends `flood_bytes` as fast as the client takes them, in
 * borrowed messages of 32 KiB.
 */
#ifndef BNS_TESTS_GRPC_KIT_H
#define BNS_TESTS_GRPC_KIT_H

#include "base/varint.h"
#include "io/grpc.h"
#include "sim/heap.h"

#include "fake_env.h"

#define FLOOD_MSG (32u * 1024)
#define KIT_HELD 1024

struct kit {
    struct bns_test_heap *heap;
    struct fake_env f;
    struct bns_grpc_server *server;
    struct bns_grpc_client *client;
    uint16_t port;
    /* what the service saw */
    unsigned started, messages, half_closed, ends[4];
    size_t bytes;
    size_t flood_bytes, queued_max;
    unsigned borrowed, released;
    struct bns_grpc_call *held[KIT_HELD];
    unsigned held_count;
    bool pause; /* ClientStream takes nothing until kit_resume */
    void (*ended)(void *arg); /* may be NULL: a call has ended just now */
    void *ended_arg;
    uint8_t block[FLOOD_MSG];
};

static inline struct kit *kit_of(struct bns_grpc_call *c)
{
    return bns_grpc_arg(c);
}

/* The context says whether a finish is owed. */
static inline void kit_start(struct bns_grpc_call *c)
{
    kit_of(c)->started++;
    bns_grpc_set_ctx(c, kit_of(c));
}

static inline void kit_finish(struct bns_grpc_call *c, int status, const char *text)
{
    bns_grpc_set_ctx(c, NULL);
    bns_grpc_finish(c, status, text, NULL, 0);
}

static inline void kit_end(struct bns_grpc_call *c, enum bns_grpc_end why)
{
    struct kit *k = kit_of(c);

    k->ends[why]++;
    if (k->ended != NULL)
        k->ended(k->ended_arg);
    for (unsigned i = 0; i < k->held_count; i++) {
        if (k->held[i] == c)
            return; /* goes on, detached */
    }
    if (bns_grpc_ctx(c) != NULL)
        kit_finish(c, BNS_GRPC_CANCELLED, NULL);
}

static inline void kit_echo(struct bns_grpc_call *c, struct bns_slice msg)
{
    kit_of(c)->messages++;
    if (bns_grpc_send_copy(c, msg) == BNS_OK)
        kit_finish(c, BNS_GRPC_OK, NULL);
    else
        kit_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory");
}

static inline void kit_many(struct bns_grpc_call *c, struct bns_slice msg)
{
    uint32_t n = msg.len < 4 ? 0 : bns_get_u32be(msg.ptr) % 64;
    int rv = BNS_OK;

    kit_of(c)->messages++;
    while (n-- > 0 && rv == BNS_OK)
        rv = bns_grpc_send_copy(c, msg);
    kit_finish(c, rv == BNS_OK ? BNS_GRPC_OK : BNS_GRPC_RESOURCE_EXHAUSTED, NULL);
}

static inline void kit_hold(struct bns_grpc_call *c)
{
    struct kit *k = kit_of(c);
    BNS_ASSERT(k->held_count < KIT_HELD);
    k->held[k->held_count++] = c;
}

static inline void kit_sum_start(struct bns_grpc_call *c)
{
    kit_start(c);
    if (kit_of(c)->pause) {
        bns_grpc_read(c, false);
        kit_hold(c);
    }
}

static inline void kit_sum(struct bns_grpc_call *c, struct bns_slice msg)
{
    kit_of(c)->messages++;
    kit_of(c)->bytes += msg.len;
}

static inline void kit_sum_end(struct bns_grpc_call *c)
{
    uint8_t out[8];

    kit_of(c)->half_closed++;
    bns_put_u64be(out, kit_of(c)->bytes);
    kit_echo(c, bns_slice(out, sizeof out));
}

static inline void kit_bidi(struct bns_grpc_call *c, struct bns_slice msg)
{
    kit_of(c)->messages++;
    if (msg.len == 4 && memcmp(msg.ptr, "stop", 4) == 0)
        kit_finish(c, BNS_GRPC_OUT_OF_RANGE, "stopped");
    else if (bns_grpc_send_copy(c, msg) != BNS_OK)
        kit_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory");
}

/* Gives the metadata "token-bin" back as "seen-bin", with a text that needs escapes. */
static inline void kit_bidi_end(struct bns_grpc_call *c)
{
    struct bns_grpc_md md[] = {{BNS_LIT("seen-bin"), {NULL, 0}},
                               {BNS_LIT("plain"), BNS_LIT("x y")}};

    kit_of(c)->half_closed++;
    (void)!bns_grpc_metadata(c, "token-bin", &md[0].value); /* stays empty without */
    bns_grpc_set_ctx(c, NULL);
    bns_grpc_finish(c, BNS_GRPC_ABORTED, "caf\303\251 100%\n", md, 2);
}

static inline void kit_hang(struct bns_grpc_call *c, struct bns_slice msg)
{
    (void)msg;
    kit_of(c)->messages++;
    kit_hold(c);
}

static inline void kit_finish_held(struct kit *k, int status)
{
    for (unsigned i = 0; i < k->held_count; i++)
        kit_finish(k->held[i], status, "late");
    k->held_count = 0;
}

static inline void kit_released(void *arg, int code)
{
    (void)code;
    ((struct kit *)arg)->released++;
}

static inline void kit_flood_more(struct bns_grpc_call *c)
{
    struct kit *k = kit_of(c);
    struct bns_slice v[2] = {bns_slice(k->block, 100),
                             bns_slice(k->block + 100, sizeof k->block - 100)};

    while (k->flood_bytes > 0 && bns_grpc_queued(c) < 64u * 1024) {
        if (bns_grpc_send(c, v, 2, kit_released, k) != BNS_OK) {
            kit_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory");
            return;
        }
        k->borrowed++;
        k->flood_bytes -= k->flood_bytes < FLOOD_MSG ? k->flood_bytes : FLOOD_MSG;
        if (bns_grpc_queued(c) > k->queued_max)
            k->queued_max = bns_grpc_queued(c);
    }
    if (k->flood_bytes == 0)
        kit_finish(c, BNS_GRPC_OK, NULL);
}

static inline void kit_flood(struct bns_grpc_call *c, struct bns_slice msg)
{
    (void)msg;
    kit_of(c)->messages++;
    kit_flood_more(c);
}

static inline void kit_methods(struct kit *k, struct bns_grpc_method *m)
{
    struct bns_grpc_handler h = {.on_start = kit_start, .on_end = kit_end};
    struct bns_grpc_method all[] = {
        {.path = "/bns.Echo/Unary", .kind = BNS_GRPC_UNARY},
        {.path = "/bns.Echo/ServerStream", .kind = BNS_GRPC_SERVER_STREAM},
        {.path = "/bns.Echo/ClientStream", .kind = BNS_GRPC_CLIENT_STREAM},
        {.path = "/bns.Echo/Bidi", .kind = BNS_GRPC_BIDI},
        {.path = "/bns.Echo/Hang", .kind = BNS_GRPC_UNARY, .streams_max = 3},
        {.path = "/bns.Echo/Flood", .kind = BNS_GRPC_SERVER_STREAM},
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        all[i].handler = h;
        all[i].arg = k;
    }
    all[0].handler.on_message = kit_echo;
    all[1].handler.on_message = kit_many;
    all[2].handler.on_start = kit_sum_start;
    all[2].handler.on_message = kit_sum;
    all[2].handler.on_half_close = kit_sum_end;
    all[3].handler.on_message = kit_bidi;
    all[3].handler.on_half_close = kit_bidi_end;
    all[4].handler.on_message = kit_hang;
    all[5].handler.on_message = kit_flood;
    all[5].handler.on_writable = kit_flood_more;
    memcpy(m, all, sizeof all);
}
#define KIT_METHODS 6

/* One per test: the table must outlive the server. */
static struct bns_grpc_method kit_table[KIT_METHODS];

/* fail_at: of the heap that server and client use (the fake env has libc's). */
static inline int kit_try(struct kit *k, const struct bns_grpc_config *cfg, int fail_at)
{
    int rv;

    memset(k, 0, sizeof *k);
    k->heap = bns_test_heap(fail_at);
    BNS_ASSERT(k->heap != NULL);
    fake_init(&k->f, bns_alloc_libc());
    k->f.env.alloc = bns_test_heap_alloc(k->heap);
    kit_methods(k, kit_table);
    rv = bns_grpc_server_new(&k->f.env, cfg, &k->server);
    if (rv == BNS_OK)
        rv = bns_grpc_server_methods(k->server, kit_table, KIT_METHODS);
    if (rv == BNS_OK)
        rv = bns_grpc_server_listen(k->server, "127.0.0.1", 0, &k->port, NULL);
    if (rv == BNS_OK)
        rv = bns_grpc_client_new(&k->f.env, "127.0.0.1", k->port, &k->client, NULL);
    return rv;
}

static inline void kit_open(struct kit *k, const struct bns_grpc_config *cfg)
{
    BNS_ASSERT(kit_try(k, cfg, 0) == BNS_OK);
}

/* Everything must be gone: bytes left, and (may be NULL) whether the failure fired. */
static inline size_t kit_close(struct kit *k, bool *fired)
{
    bns_grpc_client_free(k->client);
    bns_grpc_server_free(k->server);
    kit_finish_held(k, BNS_GRPC_OK);
    fake_free(&k->f);
    BNS_ASSERT(k->borrowed == k->released);
    return bns_test_heap_close(k->heap, fired);
}

/* ---- the client's side ----------------------------------------------------------------------- */
struct rec {
    unsigned opened, messages, writable, ended;
    size_t bytes, first_len;
    uint8_t first[64];
    int status;
    char text[160];
    char seen[64];
    size_t seen_len;
    bool in_order; /* each message of Flood is the block */
};

static inline void rec_open(struct bns_grpc_ccall *c)
{
    ((struct rec *)bns_grpc_ccall_arg(c))->opened++;
}

static inline void rec_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct rec *r = bns_grpc_ccall_arg(c);

    if (r->messages++ == 0) {
        r->first_len = msg.len;
        memcpy(r->first, msg.ptr, msg.len < sizeof r->first ? msg.len : sizeof r->first);
    }
    r->bytes += msg.len;
}

static inline void rec_writable(struct bns_grpc_ccall *c)
{
    ((struct rec *)bns_grpc_ccall_arg(c))->writable++;
}

static inline void rec_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct rec *r = bns_grpc_ccall_arg(c);
    struct bns_slice v;

    r->ended++;
    r->status = status;
    strncpy(r->text, text, sizeof r->text - 1);
    if (bns_grpc_ccall_trailer(c, "seen-bin", &v) && v.len <= sizeof r->seen) {
        r->seen_len = v.len;
        if (v.len > 0)
            memcpy(r->seen, v.ptr, v.len);
    }
}

static const struct bns_grpc_client_handler rec_handler = {.on_open = rec_open,
                                                           .on_message = rec_message,
                                                           .on_writable = rec_writable,
                                                           .on_status = rec_status};

static inline int kit_unary(struct kit *k, const char *path, struct bns_slice msg, struct rec *r)
{
    struct bns_grpc_call_options o = {.path = path};

    memset(r, 0, sizeof *r);
    return bns_grpc_unary(k->client, &o, msg, &rec_handler, r);
}

static inline struct bns_grpc_ccall *kit_call(struct kit *k, const char *path, struct rec *r)
{
    struct bns_grpc_call_options o = {.path = path};
    struct bns_grpc_ccall *c = NULL;

    memset(r, 0, sizeof *r);
    BNS_ASSERT(bns_grpc_call_start(k->client, &o, &rec_handler, r, &c) == BNS_OK);
    return c;
}

#endif
