/* grpc_raw.h - a client that says exactly the bytes it is told to: HTTP/2 frames by hand.
 *
 * Received bytes are cut into frames and counted by type; the last GOAWAY and RST_STREAM are kept.
 */
#ifndef BNS_TESTS_GRPC_RAW_H
#define BNS_TESTS_GRPC_RAW_H

#include "grpc_kit.h"

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONT };

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

struct raw {
    struct kit *k;
    struct bns_stream *s;
    struct bns_buf in;
    bool open, closed, hushed;
    unsigned frames[16], acks; /* acks of PING */
    unsigned ended;            /* HEADERS with END_STREAM */
    size_t bytes;
    uint32_t rst_id, rst_code;
    uint32_t goaway_id, goaway_code;
    char goaway_text[64];
    struct bns_buf headers; /* of the last HEADERS */
};

static inline void raw_frame(struct raw *r, const uint8_t *p, uint32_t len)
{
    uint8_t type = p[3], flags = p[4];

    if (type < 16)
        r->frames[type]++;
    if (type == PING && (flags & 1) != 0)
        r->acks++;
    if (type == HEADERS) {
        r->ended += (flags & 1) != 0;
        bns_buf_clear(&r->headers);
        BNS_ASSERT(bns_buf_add(&r->headers, p + 9, len) == BNS_OK);
    }
    if (type == RST_STREAM) {
        r->rst_id = bns_get_u32be(p + 5);
        r->rst_code = bns_get_u32be(p + 9);
    }
    if (type == GOAWAY) {
        r->goaway_id = bns_get_u32be(p + 9);
        r->goaway_code = bns_get_u32be(p + 13);
        memset(r->goaway_text, 0, sizeof r->goaway_text);
        memcpy(r->goaway_text, p + 17, len - 8 < 63 ? len - 8 : 63);
    }
}

static inline void raw_data(void *arg, struct bns_slice data)
{
    struct raw *r = arg;

    r->bytes += data.len;
    BNS_ASSERT(bns_buf_add(&r->in, data.ptr, data.len) == BNS_OK);
    while (r->in.len >= 9) {
        uint32_t len = bns_get_u32be(r->in.ptr) >> 8;
        if (r->in.len < 9 + len)
            break;
        raw_frame(r, r->in.ptr, len);
        bns_buf_consume(&r->in, 9 + len);
    }
}
static inline void raw_open(void *arg)
{
    ((struct raw *)arg)->open = true;
}
static inline void raw_close(void *arg, int code)
{
    (void)code;
    ((struct raw *)arg)->closed = true;
    ((struct raw *)arg)->s = NULL;
}

static const struct bns_stream_events raw_events = {
    .on_open = raw_open, .on_data = raw_data, .on_close = raw_close};

static inline void raw_dial(struct raw *r, struct kit *k)
{
    memset(r, 0, sizeof *r);
    r->k = k;
    bns_buf_init(&r->in, bns_alloc_libc(), 64u << 20);
    bns_buf_init(&r->headers, bns_alloc_libc(), 64u << 20);
    BNS_ASSERT(bns_net_connect(&k->f.env, "127.0.0.1", k->port, &raw_events, r, &r->s, NULL) ==
               BNS_OK);
    fake_run_for(&k->f, BNS_MS);
}

static inline void raw_free(struct raw *r)
{
    if (r->s != NULL)
        bns_stream_reset(r->s);
    fake_run_for(&r->k->f, BNS_MS);
    bns_buf_free(&r->in);
    bns_buf_free(&r->headers);
}

static inline void raw_copied(void *arg, int code)
{
    (void)code;
    free(arg);
}

static inline void raw_send(struct raw *r, const void *ptr, size_t len)
{
    struct bns_slice v = {malloc(len == 0 ? 1 : len), len};

    BNS_ASSERT(v.ptr != NULL);
    if (len > 0)
        memcpy((void *)(uintptr_t)v.ptr, ptr, len);
    if (r->s == NULL || bns_stream_write(r->s, &v, 1, raw_copied, (void *)(uintptr_t)v.ptr) != 0)
        free((void *)(uintptr_t)v.ptr);
}

static inline void put_frame(struct bns_buf *b, uint8_t type, uint8_t flags, uint32_t id,
                             struct bns_slice payload)
{
    uint8_t head[9];

    bns_put_u32be(head, (uint32_t)payload.len << 8);
    head[3] = type;
    head[4] = flags;
    bns_put_u32be(head + 5, id);
    BNS_ASSERT(bns_buf_add(b, head, 9) == BNS_OK);
    if (payload.len > 0)
        BNS_ASSERT(bns_buf_add(b, payload.ptr, payload.len) == BNS_OK);
}

/* A literal field without indexing; both shorter than 127 bytes. */
static inline void put_field(struct bns_buf *b, const char *name, const char *value)
{
    BNS_ASSERT(bns_buf_byte(b, 0) == BNS_OK);
    BNS_ASSERT(bns_buf_byte(b, (uint8_t)strlen(name)) == BNS_OK);
    BNS_ASSERT(bns_buf_str(b, name) == BNS_OK);
    BNS_ASSERT(bns_buf_byte(b, (uint8_t)strlen(value)) == BNS_OK);
    BNS_ASSERT(bns_buf_str(b, value) == BNS_OK);
}

static inline void put_request_fields(struct bns_buf *b, const char *method, const char *path,
                                      const char *type)
{
    put_field(b, ":method", method);
    put_field(b, ":scheme", "http");
    put_field(b, ":path", path);
    put_field(b, ":authority", "x");
    if (type != NULL)
        put_field(b, "content-type", type);
    put_field(b, "te", "trailers");
}

static inline void put_hello(struct bns_buf *b)
{
    BNS_ASSERT(bns_buf_str(b, PREFACE) == BNS_OK);
    put_frame(b, SETTINGS, 0, 0, bns_slice(NULL, 0));
    put_frame(b, SETTINGS, 1, 0, bns_slice(NULL, 0)); /* acknowledges the server's */
}

static inline void put_request(struct bns_buf *b, uint32_t id, const char *path,
                               struct bns_slice body)
{
    struct bns_buf h;

    bns_buf_init(&h, bns_alloc_libc(), 1u << 20);
    put_request_fields(&h, "POST", path, "application/grpc");
    put_frame(b, HEADERS, 4, id, bns_buf_slice(&h));
    put_frame(b, DATA, 1, id, body);
    bns_buf_free(&h);
}

/* Sends the buffer, empties it, and lets time pass. */
static inline void raw_flush(struct raw *r, struct bns_buf *b)
{
    raw_send(r, b->ptr, b->len);
    bns_buf_clear(b);
    fake_run_for(&r->k->f, BNS_MS);
}

#endif
