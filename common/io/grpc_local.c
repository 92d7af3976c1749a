/* grpc_local.c - see grpc_local.h. A local call is a struct bns_grpc_call without a stream: s.h is
 * NULL all the time, and `sink` stands where the stream would.
 *
 * The functions of the HTTP/2 role that concern messages are used as they are: they look at the
 * call, not at the stream. What the splitter does for a stream (the limit on one message) is done
 * here.
 */
#include "io/grpc_impl.h"

#include <stdio.h>

#include "base/rcbuf.h"

static int add_fields(struct bns_grpc_call *c, const struct bns_grpc_md *md, size_t n)
{
    int rv = BNS_OK;

    for (size_t i = 0; rv == BNS_OK && i < n; i++)
        rv = bns_grpc_field_add(&c->arena, &c->fields, md[i].name, md[i].value, &c->bad_md);
    return rv;
}

int bns_grpc_local_start(struct bns_grpc_server *s, const struct bns_grpc_local_options *o,
                         const struct bns_grpc_sink *sink, void *arg, struct bns_grpc_call **out)
{
    struct bns_grpc_call *c = bns_grpc_call_new(s);
    void *path;

    if (c == NULL)
        return BNS_E_NOMEM;
    c->sink = sink;
    c->sink_arg = arg;
    c->local = true;
    s->locals++;
    path = bns_arena_dup(&c->arena, o->path.ptr, o->path.len);
    c->path = bns_slice(path, o->path.len);
    if (path == NULL || add_fields(c, o->md, o->md_count) != BNS_OK) {
        c->ended = true; /* nobody was told anything */
        c->finished = true;
        c->counted = true;
        bns_grpc_local_close(c);
        return BNS_E_NOMEM;
    }
    if (o->deadline_ns != 0)
        c->deadline = o->deadline_ns;
    *out = c;
    if (s->draining) {
        bns_grpc_call_fail(c, BNS_GRPC_UNAVAILABLE, s->drain_text, BNS_GRPC_END_CLOSED);
        return BNS_OK;
    }
    if (!bns_grpc_call_prepare(c))
        return BNS_OK;
    if (c->deadline != BNS_NEVER)
        bns_timer_start(c->env, &c->timer, c->deadline);
    bns_grpc_call_run(c);
    return BNS_OK;
}

bool bns_grpc_local_method(struct bns_grpc_server *s, struct bns_slice path,
                           enum bns_grpc_kind *kind, uint32_t *msg_bytes_max)
{
    const struct bns_grpc_entry *e = bns_grpc_find(s, path);

    if (e == NULL)
        return false;
    *kind = e->m->kind;
    *msg_bytes_max = e->m->msg_bytes_max == 0 ? BNS_GRPC_MSG_MAX : e->m->msg_bytes_max;
    return true;
}

static bool over(const struct bns_grpc_call *c)
{
    BNS_ASSERT(c->sink != NULL);
    return !c->started || c->finished || c->ended;
}

void bns_grpc_local_message(struct bns_grpc_call *c, struct bns_slice msg)
{
    uint32_t max;
    char text[96];

    if (bns_grpc_keep_message(c, msg) || over(c))
        return;
    max = c->method->m->msg_bytes_max == 0 ? BNS_GRPC_MSG_MAX : c->method->m->msg_bytes_max;
    if (msg.len <= max) {
        bns_grpc_call_message(&c->s, msg);
        return;
    }
    (void)snprintf(text, sizeof text, "grpc: received message larger than max (%zu vs. %u)",
                   msg.len, max); /* fits */
    bns_grpc_local_fail(c, BNS_GRPC_RESOURCE_EXHAUSTED, text);
}

void bns_grpc_local_half_close(struct bns_grpc_call *c)
{
    if (!bns_grpc_keep_end(c) && !over(c))
        bns_grpc_call_half_close(&c->s);
}

void bns_grpc_local_writable(struct bns_grpc_call *c)
{
    bns_grpc_call_writable(&c->s);
}

void bns_grpc_local_fail(struct bns_grpc_call *c, int status, const char *text)
{
    bns_grpc_call_fail(c, status, text, BNS_GRPC_END_RESET);
}

void bns_grpc_local_close(struct bns_grpc_call *c)
{
    struct bns_grpc_server *s = c->server;

    BNS_ASSERT(c->sink != NULL);
    c->sink = NULL;
    bns_grpc_call_detached(c, c->finished || c->ended ? c->status : BNS_GRPC_CANCELLED,
                           BNS_GRPC_END_RESET);
    if (s != NULL)
        bns_grpc_local_gone(s);
}

bool bns_grpc_is_local(const struct bns_grpc_call *c)
{
    return c->local;
}

static void put_copy(void *arg, int code)
{
    (void)code; /* sent or not: the copy is not needed */
    bns_rcbuf_put(arg);
}

int bns_grpc_local_copy(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct bns_rcbuf *b = bns_rcbuf_copy(c->alloc, msg);
    struct bns_slice all = bns_rcbuf_slice(b);
    int rv;

    if (b == NULL)
        return BNS_E_NOMEM;
    rv = c->sink->send(c->sink_arg, &all, 1, put_copy, b);
    if (rv != BNS_OK)
        bns_rcbuf_put(b);
    return rv;
}
