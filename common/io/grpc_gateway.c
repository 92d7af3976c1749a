/* grpc_gateway.c - requests of the gateway: from an HTTP request to messages of a call.
 *
 * The body is cut into JSON values (pb_json_cut.h), each of them is read into a message in an arena
 * of its own, packed, and given to the handler as if it had come over HTTP/2. A method that takes
 * one message takes the first value, at the end of the body, or an empty message when there is
 * none; what stands behind the value is ignored, as real gateways do. A stream's call starts with
 * its first value; an error in a later one only ends the input.
 *
 * Everything that the handler says is noted (grpc_gateway_out.c) and done from a timer in the next
 * turn: handlers, HTTP and gateway never stand on the stack in a circle.
 *
 * Ends: the HTTP connection is lost: the call is closed, as a client that cancels. The call
 * finishes: what is queued is sent, then the end, then the call is closed.
 */
#include "io/grpc_gateway_impl.h"

#include <stdio.h>

#include "codec/grpc_msg.h"
#include "codec/pb.h"
#include "codec/pb_json.h"

#define ELEMENTS_MAX 65536u
#define JSON_MORE (64u * 1024)
#define FIELDS_MAX 64u
#define ARENA_PER_BYTE 4u /* of JSON: structs of messages with hardly anything in them */
#define ARENA_PER_ELEMENT 512u

/* ---- life ------------------------------------------------------------------------------------ */
int bns_grpc_gateway_new(struct bns_env *env, struct bns_grpc_server *server,
                         const struct bns_grpc_gateway_config *cfg, struct bns_grpc_gateway **out)
{
    struct bns_grpc_gateway *g = bns_alloc_zero(env->alloc, sizeof *g);

    if (g == NULL)
        return BNS_E_NOMEM;
    g->env = env;
    g->server = server;
    g->cfg = *cfg;
    if (g->cfg.elements_max == 0)
        g->cfg.elements_max = ELEMENTS_MAX;
    *out = g;
    return BNS_OK;
}

void bns_grpc_gateway_free(struct bns_grpc_gateway *g)
{
    if (g == NULL)
        return;
    BNS_ASSERT(g->open == 0);
    bns_free(g->env->alloc, g);
}

void bns_gateway_close(struct bns_gateway_req *r)
{
    const struct bns_alloc *alloc = r->g->env->alloc;

    bns_timer_stop(r->g->env, &r->timer);
    if (r->call != NULL)
        bns_grpc_local_close(r->call);
    bns_gateway_drop(r);
    bns_json_cut_free(&r->cut);
    bns_buf_free(&r->rest);
    bns_buf_free(&r->held);
    r->g->open--;
    bns_free(alloc, r->text);
    bns_free(alloc, r);
}

void bns_gateway_later(struct bns_gateway_req *r)
{
    bns_timer_start(r->g->env, &r->timer, bns_now_ns(r->g->env));
}

static void on_gone(void *arg)
{
    struct bns_gateway_req *r = arg;

    bns_http_abort(r->q);
    bns_gateway_close(r);
}

static void on_writable(void *arg)
{
    bns_gateway_later(arg);
}

/* ---- the call -------------------------------------------------------------------------------- */
static bool one_message(const struct bns_gateway_req *r)
{
    return r->kind == BNS_GRPC_UNARY || r->kind == BNS_GRPC_SERVER_STREAM;
}

static bool is_name(struct bns_slice name)
{
    bool ok = name.len > 0;

    for (size_t i = 0; ok && i < name.len; i++) {
        uint8_t c = name.ptr[i];
        ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    }
    return ok;
}

/* What of the HTTP headers goes to the handler. */
static size_t metadata(const struct bns_http_req *q, struct bns_grpc_md md[FIELDS_MAX])
{
    static const char prefix[] = "grpc-metadata-";
    const size_t len = sizeof prefix - 1;
    const struct bns_http1_header *h;
    size_t count, n = 0;

    h = bns_http_headers(q, &count);
    for (size_t i = 0; i < count && n < FIELDS_MAX; i++) {
        struct bns_slice name = h[i].name;

        if (name.len > len && memcmp(name.ptr, prefix, len) == 0)
            name = bns_slice_skip(name, len);
        else if (!bns_slice_eq(name, BNS_LIT("authorization")))
            continue;
        if (is_name(name))
            md[n++] = (struct bns_grpc_md){.name = name, .value = h[i].value};
    }
    return n;
}

static int start_call(struct bns_gateway_req *r)
{
    struct bns_grpc_md md[FIELDS_MAX];
    struct bns_grpc_local_options o = {
        .path = bns_slice_str(r->path->method), .md = md, .deadline_ns = r->deadline_ns};

    if (r->call != NULL)
        return BNS_OK;
    o.md_count = metadata(r->q, md);
    return bns_grpc_local_start(r->g->server, &o, &bns_gateway_sink, r, &r->call);
}

static void half_close(struct bns_gateway_req *r)
{
    if (!r->closed)
        bns_grpc_local_half_close(r->call);
    r->closed = true;
}

static void end_input(struct bns_gateway_req *r)
{
    r->in_over = true;
    if (r->call == NULL && start_call(r) != BNS_OK)
        bns_gateway_refuse(r, BNS_GRPC_RESOURCE_EXHAUSTED, "out of memory");
    else if (!r->read_off && !r->holding)
        half_close(r);
}

/* A call may begin by reading nothing: because it is held, or because the handler says so. */
static int give(struct bns_gateway_req *r, struct bns_slice bytes)
{
    BNS_ASSERT(!r->holding);
    if (!r->read_off) {
        bns_grpc_local_message(r->call, bytes);
        return BNS_OK;
    }
    r->holding = true;
    bns_buf_clear(&r->held);
    return bytes.len == 0 ? BNS_OK : bns_buf_add(&r->held, bytes.ptr, bytes.len);
}

/* A value that is no message. The first one is the answer; a later one ends the input. */
static void bad_value(struct bns_gateway_req *r, int code, const char *text)
{
    if (r->call != NULL)
        end_input(r);
    else if (code == BNS_E_NOMEM)
        bns_gateway_refuse(r, BNS_GRPC_RESOURCE_EXHAUSTED, "out of memory");
    else
        bns_gateway_refuse(r, BNS_GRPC_INVALID_ARGUMENT, text);
}

static void deliver(struct bns_gateway_req *r, struct bns_slice json)
{
    struct bns_arena arena;
    ProtobufCMessage *m = NULL;
    struct bns_err err = {0};
    struct bns_slice bytes;
    int rv;

    if (bns_slice_eq(json, BNS_LIT("null")))
        json = BNS_LIT("{}");
    bns_arena_init(&arena, r->g->env->alloc,
                   JSON_MORE + ARENA_PER_BYTE * json.len + ARENA_PER_ELEMENT * r->cut.elements);
    rv = bns_pb_from_json(r->path->request, json, SIZE_MAX, &arena, &m, &err);
    if (rv == BNS_OK) {
        bns_pb_drop_zeros(m);
        rv = bns_pb_pack_arena(m, &arena, &bytes);
    }
    if (rv == BNS_OK)
        rv = start_call(r);
    if (rv == BNS_OK && give(r, bytes) != BNS_OK)
        bns_gateway_refuse(r, BNS_GRPC_RESOURCE_EXHAUSTED, "out of memory");
    else if (rv != BNS_OK)
        bad_value(r, rv, err.text);
    bns_arena_free(&arena);
}

/* The body is over. */
static void on_eof(struct bns_gateway_req *r)
{
    int rv;

    if (r->in_over)
        return;
    rv = r->cut.whole ? BNS_OK : bns_json_cut_end(&r->cut);
    if (rv == BNS_E_PROTO) {
        bad_value(r, rv, "unexpected EOF");
        return;
    }
    if (rv == BNS_OK)
        deliver(r, bns_buf_slice(&r->cut.text));
    else if (one_message(r))
        deliver(r, BNS_LIT("{}"));
    if (!r->finished)
        end_input(r);
}

/* Takes values out of *in until it is empty or the handler takes no more. */
static void take(struct bns_gateway_req *r, struct bns_slice *in)
{
    char text[96];

    while (in->len > 0 && !r->in_over && !r->read_off && !r->finished && !r->cut.whole) {
        int rv = bns_json_cut_next(&r->cut, in);

        if (rv == BNS_E_AGAIN || (rv == BNS_OK && one_message(r)))
            continue; /* the one value waits for the end of the body */
        if (rv == BNS_OK) {
            deliver(r, bns_buf_slice(&r->cut.text));
            bns_json_cut_reset(&r->cut);
            continue;
        }
        (void)snprintf(text, sizeof text, "a JSON value may have %zu bytes and %zu elements",
                       r->cut.text.max, r->cut.elements_max); /* fits */
        bad_value(r, rv, text);
    }
    if (r->in_over || r->finished || r->cut.whole)
        in->len = 0; /* not looked at */
}

static void go_on(struct bns_gateway_req *r)
{
    if (r->eof && r->rest.len == 0 && !r->read_off && !r->finished)
        on_eof(r);
}

static void on_body(void *arg, struct bns_slice data)
{
    struct bns_gateway_req *r = arg;

    if (data.len == 0)
        r->eof = true;
    if (r->rest.len == 0)
        take(r, &data);
    if (data.len > 0 && bns_buf_add(&r->rest, data.ptr, data.len) != BNS_OK)
        bns_gateway_refuse(r, BNS_GRPC_RESOURCE_EXHAUSTED, "out of memory");
    go_on(r);
}

/* What came while the handler took nothing. */
static void resume(struct bns_gateway_req *r)
{
    struct bns_slice in = bns_buf_slice(&r->rest);
    size_t len = in.len;

    if (r->holding && !r->read_off) {
        r->holding = false;
        bns_grpc_local_message(r->call, bns_buf_slice(&r->held));
        bns_buf_free(&r->held);
    }
    if (r->read_off || r->finished)
        return;
    if (r->in_over && r->call != NULL)
        half_close(r);
    if (len > 0) {
        take(r, &in);
        bns_buf_consume(&r->rest, len - in.len);
    }
    if (r->rest.len == 0) {
        bns_buf_free(&r->rest);
        if (!r->eof)
            bns_http_body_read(r->q, true);
        go_on(r);
    }
}

static void pump(void *arg)
{
    struct bns_gateway_req *r = arg;

    if (!r->finished)
        resume(r);
    (void)bns_gateway_send(r); /* r may be gone */
}

/* ---- the HTTP request ------------------------------------------------------------------------ */
static bool begins(struct bns_slice s, struct bns_slice with)
{
    return s.len >= with.len && memcmp(s.ptr, with.ptr, with.len) == 0;
}

static const struct bns_grpc_gateway_path *find(const struct bns_grpc_gateway *g,
                                                struct bns_slice path)
{
    struct bns_slice front = bns_slice(NULL, 0);

    for (size_t i = 0; g->cfg.prefixes_old != NULL && g->cfg.prefixes_old[i] != NULL; i++) {
        if (front.len == 0 && begins(path, bns_slice_str(g->cfg.prefixes_old[i]))) {
            front = bns_slice_str(g->cfg.prefix_now);
            path = bns_slice_skip(path, strlen(g->cfg.prefixes_old[i]));
        }
    }
    for (size_t i = 0; i < g->cfg.paths_count; i++) {
        struct bns_slice p = bns_slice_str(g->cfg.paths[i].path);

        if (front.len + path.len == p.len && (front.len == 0 || begins(p, front)) &&
            bns_slice_eq(bns_slice_skip(p, front.len), path))
            return &g->cfg.paths[i];
    }
    return NULL;
}

static bool set_deadline(struct bns_gateway_req *r)
{
    struct bns_slice v;
    uint64_t ns, now = bns_now_ns(r->g->env);
    char text[64];

    r->deadline_ns = BNS_NEVER;
    if (!bns_http_header(r->q, "grpc-timeout", &v))
        return true;
    if (bns_grpc_timeout_parse(v, &ns) == BNS_OK) {
        r->deadline_ns = ns > BNS_NEVER - 1 - now ? BNS_NEVER : now + ns;
        return true;
    }
    (void)snprintf(text, sizeof text, "invalid grpc-timeout: %.*s", (int)(v.len < 32 ? v.len : 32),
                   (const char *)v.ptr); /* cut */
    bns_gateway_refuse(r, BNS_GRPC_INVALID_ARGUMENT, text);
    return false;
}

void bns_grpc_gateway_serve(void *arg, struct bns_http_req *q)
{
    struct bns_grpc_gateway *g = arg;
    const struct bns_grpc_gateway_path *path = find(g, bns_http_path(q));
    struct bns_gateway_req *r;

    if (path == NULL) {
        bns_http_reply_text(q, 404, "Not Found\n");
        return;
    }
    if (!bns_slice_eq(bns_http_method(q), BNS_LIT("POST"))) {
        bns_http_reply_text(q, 405, "Method Not Allowed\n");
        return;
    }
    r = bns_alloc_zero(g->env->alloc, sizeof *r);
    if (r == NULL) {
        bns_http_reply_text(q, 503, "out of memory\n");
        return;
    }
    g->open++;
    r->g = g;
    r->q = q;
    r->path = path;
    bns_timer_init(&r->timer, pump, r);
    if (!bns_grpc_local_method(g->server, bns_slice_str(path->method), &r->kind, &r->msg_bytes_max))
        r->msg_bytes_max = 1024 * 1024; /* it will be refused */
    bns_json_cut_init(&r->cut, g->env->alloc, 2 * (size_t)r->msg_bytes_max + JSON_MORE,
                      g->cfg.elements_max);
    bns_buf_init(&r->rest, g->env->alloc, SIZE_MAX / 2);
    bns_buf_init(&r->held, g->env->alloc, SIZE_MAX / 2);
    bns_http_on_gone(q, on_gone, r);
    bns_http_on_writable(q, on_writable, r);
    bns_http_on_body(q, on_body, r);
    (void)set_deadline(r); /* if not, the answer is on its way */
}
