/* request.c - from a frame to a handler, and from an answer to bytes.
 *
 *   apiKey i16 | apiVersion i16 | correlationId i32 | clientId nullable i16-string | tags if
 * flexible
 *
 * The answer's head is the correlation id, with a byte of no tags behind it when the version is
 * flexible; that of ApiVersions never has it, because a client asks it before it knows the broker.
 */
#include "base/varint.h"
#include "broker/conn.h"

static int take_i16(struct bns_slice *in, int16_t *out)
{
    if (in->len < 2)
        return BNS_E_PROTO;
    *out = (int16_t)bns_get_u16be(in->ptr);
    *in = bns_slice_skip(*in, 2);
    return BNS_OK;
}

/* The tags of a head: nobody knows one, so all are skipped. */
static int skip_tags(struct bns_slice *in)
{
    uint64_t count, v;

    if (bns_varint_get(in, &count) != BNS_OK)
        return BNS_E_PROTO;
    for (; count > 0; count--) { /* each takes two bytes of `in` at least */
        if (bns_varint_get(in, &v) != BNS_OK || bns_varint_get(in, &v) != BNS_OK || v > in->len)
            return BNS_E_PROTO;
        *in = bns_slice_skip(*in, (size_t)v);
    }
    return BNS_OK;
}

struct head {
    int16_t key, version;
    struct bns_slice client_id;
};

static int read_head(struct bns_slice *in, struct head *h, int32_t *correlation)
{
    int16_t n;

    h->client_id = bns_slice(NULL, 0);
    if (take_i16(in, &h->key) != BNS_OK || take_i16(in, &h->version) != BNS_OK || in->len < 4)
        return BNS_E_PROTO;
    *correlation = (int32_t)bns_get_u32be(in->ptr);
    *in = bns_slice_skip(*in, 4);
    if (take_i16(in, &n) != BNS_OK || n < -1 || (n > 0 && (size_t)n > in->len))
        return BNS_E_PROTO;
    if (n >= 0) {
        h->client_id = bns_slice(in->ptr, (size_t)n);
        *in = bns_slice_skip(*in, (size_t)n);
    }
    return BNS_OK;
}

static int refuse_key(const struct head *h, const struct kafka_entry *e, struct bns_err *err)
{
    const struct kafka_api *api = kafka_api(h->key);
    int shown = (int)(h->client_id.len < 48 ? h->client_id.len : 48);
    const char *id = h->client_id.ptr == NULL ? "" : (const char *)h->client_id.ptr;

    if (e == NULL)
        return bns_err_set(err, BNS_E_UNSUPPORTED,
                           "client \"%.*s\" asks for key %d (%s) v%d, which is "
                           "not served",
                           shown, id, h->key, api == NULL ? "unknown" : api->name, h->version);
    return bns_err_set(err, BNS_E_UNSUPPORTED,
                       "client \"%.*s\" asks for %s v%d, served are %d to %d", shown, id, api->name,
                       h->version, e->first, e->last);
}

/* Decodes into q; *entry is whose handler gets it. */
static int decode(struct kafka_request *q, struct bns_slice in, const struct kafka_entry **entry,
                  struct bns_err *err)
{
    struct head h;
    const struct kafka_entry *e;
    bool old;

    if (read_head(&in, &h, &q->correlation) != BNS_OK)
        return bns_err_set(err, BNS_E_PROTO, "bytes that are no request");
    e = kafka_server_entry(q->server, h.key);
    q->client_id = h.client_id;
    old = e == NULL || h.version < e->first || h.version > e->last;
    if (old && (e == NULL || h.key != KAFKA_KEY_API_VERSIONS || h.version < 0))
        return refuse_key(&h, e, err);
    *entry = e;
    q->api = kafka_api(h.key);
    BNS_ASSERT(q->api != NULL);
    q->form = kafka_form(q->api, old ? 0 : h.version);
    if (old) { /* its body may have any form */
        q->unsupported = true;
        q->msg = kafka_new(q->api->request, &q->arena);
        return q->msg != NULL ? BNS_OK : bns_err_set(err, BNS_E_NOMEM, "no memory for a request");
    }
    if (q->form.flexible && skip_tags(&in) != BNS_OK)
        return bns_err_set(err, BNS_E_PROTO, "%s v%d: bad tags in its head", q->api->name,
                           h.version);
    if (kafka_decode(q->api->request, &q->form, &in, &q->arena, &q->msg, err) != BNS_OK) {
        (void)bns_err_wrap(
            err, "client \"%.*s\", %s v%d", (int)(h.client_id.len < 48 ? h.client_id.len : 48),
            h.client_id.ptr == NULL ? "" : (const char *)h.client_id.ptr, q->api->name, h.version);
        return BNS_E_PROTO;
    }
    return BNS_OK;
}

void kafka_request_begin(struct kafka_conn *c, uint8_t *frame, size_t len, size_t cap)
{
    struct kafka_server *s = c->server;
    struct kafka_request *q = bns_alloc(c->env->alloc, sizeof *q);
    const struct kafka_entry *e = NULL;
    struct bns_err err = {0};

    if (q == NULL) {
        bns_free(c->env->alloc, frame);
        s->inflight -= cap;
        (void)bns_err_set(&err, BNS_E_NOMEM, "no memory for a request");
        kafka_conn_refuse(c, &err);
        return;
    }
    memset(q, 0, offsetof(struct kafka_request, room));
    q->broker = s->broker;
    q->env = c->env;
    q->listener = c->listener;
    q->arrived_ns = bns_now_ns(c->env);
    q->conn = c;
    q->server = s;
    q->frame = frame;
    q->frame_cap = cap;
    bns_list_init(&q->waiting);
    bns_list_init(&q->node);
    bns_arena_init(&q->arena, c->env->alloc, KAFKA_ARENA_MAX);
    bns_arena_lend(&q->arena, q->room, sizeof q->room);
    s->requests++;
    if (decode(q, bns_slice(frame, len), &e, &err) != BNS_OK) {
        kafka_request_free(q);
        kafka_conn_refuse(c, &err);
        return;
    }
    bns_list_push(&c->asked, &q->node);
    c->asked_count++;
    e->handle(q);
}

void kafka_request_free(struct kafka_request *q)
{
    struct kafka_server *s = q->server;

    if (q->on_free != NULL)
        q->on_free(q);
    if (q->out.slices != NULL)
        kafka_bytes_free(&q->out);
    bns_arena_free(&q->arena);
    bns_free(q->env->alloc, q->frame);
    if (s != NULL) {
        s->requests--;
        s->inflight -= q->frame_cap;
        kafka_server_fed(s);
    }
    bns_free(q->env->alloc, q);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answered(struct kafka_request *q)
{
    struct kafka_conn *c = q->conn;

    BNS_ASSERT(q->state == KAFKA_REQ_ASKED); /* once */
    q->state = KAFKA_REQ_ANSWERED;
    if (c == NULL) {
        kafka_request_free(q);
        return;
    }
    c->out_bytes += q->out.len;
    kafka_conn_flush(c);
}

static int encode(struct kafka_request *q, const void *response)
{
    bool tags = q->form.flexible && q->api->key != KAFKA_KEY_API_VERSIONS;
    uint8_t *front;
    int rv =
        kafka_encode(q->api->response, &q->form, response, tags ? 9 : 8, q->env->alloc, &q->out);

    if (rv != BNS_OK || q->out.len > INT32_MAX) {
        if (rv == BNS_OK)
            kafka_bytes_free(&q->out);
        q->out = (struct kafka_bytes){0};
        return rv == BNS_OK ? BNS_E_TOOBIG : rv;
    }
    front = kafka_bytes_front(&q->out);
    bns_put_u32be(front, (uint32_t)(q->out.len - 4));
    bns_put_u32be(front + 4, (uint32_t)q->correlation);
    if (tags)
        front[8] = 0;
    return BNS_OK;
}

void kafka_reply(struct kafka_request *q, const void *response)
{
    if (q->conn != NULL && encode(q, response) != BNS_OK)
        q->close_why = "its answer could not be encoded";
    answered(q);
}

void kafka_reply_nothing(struct kafka_request *q)
{
    answered(q);
}

void kafka_reply_close(struct kafka_request *q, const char *why)
{
    q->close_why = why;
    answered(q);
}

void *kafka_response_new(struct kafka_request *q)
{
    return kafka_new(q->api->response, &q->arena);
}

void *kafka_request_array(struct kafka_request *q, int32_t count, size_t size)
{
    size_t n;
    void *p;

    BNS_ASSERT(count >= 0);
    if (__builtin_mul_overflow((size_t)count, size, &n))
        return NULL;
    p = bns_arena_alloc(&q->arena, n == 0 ? 1 : n);
    return p == NULL ? NULL : memset(p, 0, n);
}

void kafka_request_peer(const struct kafka_request *q, char dst[64])
{
    memcpy(dst, q->conn == NULL ? "" : q->conn->peer, q->conn == NULL ? 1 : 64);
}

const char *kafka_request_software(const struct kafka_request *q)
{
    return q->conn == NULL ? "" : q->conn->software;
}
