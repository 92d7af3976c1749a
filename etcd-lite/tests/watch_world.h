/* watch_world.h - watch streams on the store of kv_world.h: requests in, decoded responses out.
 *
 * A sink is a transport that takes everything at once, or (hold) nothing until it is told to read;
 * then it counts what is queued as gRPC does, and says "writable" when it has been emptied. */
#ifndef ETCD_TESTS_WATCH_WORLD_H
#define ETCD_TESTS_WATCH_WORLD_H

#include "kv_world.h"
#include "watch.h"

#define WATCH_DESC (&etcdserverpb__watch_response__descriptor)

struct held {
    bns_release_fn *release;
    void *arg;
    uint8_t *bytes;
    size_t len;
};

struct sink {
    struct kvw *k;
    struct bns_arena arena; /* of decoded responses */
    struct etcd_watch_stream *s;
    size_t low;     /* from so much on, "writable" is told when all has been read */
    bool hold, off; /* off: the call has ended, nothing is taken */
    struct held *held;
    size_t held_count, held_cap, queued, queued_max;
    Etcdserverpb__WatchResponse **got;
    size_t count, cap, next; /* next: the first that the test has not looked at */
    int fail_status;
    char fail_text[128];
    int open_rv;
};

HELPER void sink_decode(struct sink *x, const uint8_t *bytes, size_t len)
{
    const struct bns_pb_limits limits = {.bytes = SIZE_MAX / 4, .elements = 10000000};
    ProtobufCMessage *m = NULL;
    struct bns_err err = {0};

    assert_int_equal(
        bns_pb_unpack(WATCH_DESC, bns_slice(bytes, len), &x->arena, &limits, &m, &err), BNS_OK);
    if (x->count == x->cap) {
        x->cap = x->cap == 0 ? 16 : x->cap * 2;
        x->got = realloc(x->got, x->cap * sizeof *x->got);
    }
    x->got[x->count++] = (Etcdserverpb__WatchResponse *)m;
}

HELPER int sink_send(void *arg, const struct bns_slice *v, size_t n, bns_release_fn *release,
                     void *release_arg)
{
    struct sink *x = arg;
    struct held h = {.release = release, .arg = release_arg};

    if (x->off)
        return BNS_E_OFF;
    for (size_t i = 0; i < n; i++)
        h.len += v[i].len;
    h.bytes = malloc(h.len + 1);
    h.len = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(v[i].len > 0);
        memcpy(h.bytes + h.len, v[i].ptr, v[i].len);
        h.len += v[i].len;
    }
    if (!x->hold && x->held_count == 0) {
        sink_decode(x, h.bytes, h.len);
        free(h.bytes);
        if (release != NULL)
            release(release_arg, BNS_OK);
        return BNS_OK;
    }
    if (x->held_count == x->held_cap) {
        x->held_cap = x->held_cap == 0 ? 16 : x->held_cap * 2;
        x->held = realloc(x->held, x->held_cap * sizeof *x->held);
    }
    x->held[x->held_count++] = h;
    x->queued += h.len;
    if (x->queued > x->queued_max)
        x->queued_max = x->queued;
    return BNS_OK;
}

HELPER int sink_copy(void *arg, struct bns_slice msg)
{
    return sink_send(arg, &msg, 1, NULL, NULL);
}

HELPER size_t sink_queued(void *arg)
{
    return ((struct sink *)arg)->queued;
}

HELPER void sink_drop(struct sink *x)
{
    for (size_t i = 0; i < x->held_count; i++) {
        if (x->held[i].release != NULL)
            x->held[i].release(x->held[i].arg, BNS_E_DROPPED);
        free(x->held[i].bytes);
    }
    x->held_count = 0;
    x->queued = 0;
}

HELPER void sink_fail(void *arg, int status, const char *text)
{
    struct sink *x = arg;

    x->fail_status = status;
    (void)snprintf(x->fail_text, sizeof x->fail_text, "%s", text);
    etcd_watch_close(x->s);
    x->s = NULL;
}

static const struct etcd_watch_out sink_out = {
    .send = sink_send, .send_copy = sink_copy, .queued = sink_queued, .fail = sink_fail};

/* ---- calls into the node -------------------------------------------------------------------- */

struct sink_call {
    struct kvw_call c;
    struct sink *x;
    const Etcdserverpb__WatchRequest *req;
};

HELPER struct sink *sink_of(struct kvw_call *c)
{
    return BNS_CONTAINER(c, struct sink_call, c)->x;
}
HELPER void sink_do_open(struct kvw_call *c)
{
    struct sink *x = sink_of(c);
    x->open_rv = etcd_watch_open(c->k->kv, &sink_out, x, &x->s);
}
HELPER void sink_do_request(struct kvw_call *c)
{
    struct sink *x = sink_of(c);
    if (x->s != NULL)
        etcd_watch_request(x->s, BNS_CONTAINER(c, struct sink_call, c)->req);
}
HELPER void sink_do_close(struct kvw_call *c)
{
    struct sink *x = sink_of(c);
    etcd_watch_close(x->s);
    x->s = NULL;
    sink_drop(x);
}
HELPER void sink_do_read(struct kvw_call *c)
{
    struct sink *x = sink_of(c);
    bool above = x->queued >= x->low;
    struct held *held = x->held;
    size_t n = x->held_count;

    x->held = NULL;
    x->held_count = 0;
    x->held_cap = 0;
    x->queued = 0;
    for (size_t i = 0; i < n; i++) {
        sink_decode(x, held[i].bytes, held[i].len);
        if (held[i].release != NULL)
            held[i].release(held[i].arg, BNS_OK);
        free(held[i].bytes);
    }
    free(held);
    if (above && x->s != NULL)
        etcd_watch_writable(x->s);
}

/* Does it, without letting anything else happen. */
HELPER void sink_now(struct sink *x, void (*fn)(struct kvw_call *),
                     const Etcdserverpb__WatchRequest *r)
{
    struct sink_call c = {.c = {.k = x->k, .fn = fn}, .x = x, .req = r};

    assert_true(bns_world_call(x->k->w, 0, kvw_in, &c.c));
}
HELPER void sink_call(struct sink *x, void (*fn)(struct kvw_call *),
                      const Etcdserverpb__WatchRequest *r)
{
    sink_now(x, fn, r);
    kvw_settle(x->k);
}

HELPER void sink_open(struct sink *x, struct kvw *k)
{
    memset(x, 0, sizeof *x);
    x->k = k;
    x->low = 64 * 1024;
    bns_arena_init(&x->arena, bns_alloc_libc(), SIZE_MAX / 2);
    sink_call(x, sink_do_open, NULL);
}
HELPER void sink_close(struct sink *x)
{
    if (x->k->kv != NULL)
        sink_call(x, sink_do_close, NULL);
    bns_arena_free(&x->arena);
    free(x->got);
    free(x->held);
    memset(x, 0, sizeof *x);
}

/* ---- requests ------------------------------------------------------------------------------- */

/* end: NULL = one key, "" = all keys from key on */
HELPER Etcdserverpb__WatchCreateRequest create_req(const char *key, const char *end, int64_t start)
{
    Etcdserverpb__WatchCreateRequest r = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;

    r.has_key = true;
    r.key = B(key);
    r.has_range_end = end != NULL;
    r.range_end = end == NULL ? BN(NULL, 0) : end[0] == 0 ? BN("", 1) : B(end);
    r.has_start_revision = true;
    r.start_revision = start;
    return r;
}
HELPER Etcdserverpb__WatchRequest of_create(Etcdserverpb__WatchCreateRequest *c)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;

    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = c;
    return r;
}
HELPER void do_create(struct sink *x, Etcdserverpb__WatchCreateRequest c)
{
    Etcdserverpb__WatchRequest r = of_create(&c);

    sink_call(x, sink_do_request, &r);
}
HELPER void do_watch(struct sink *x, const char *key, const char *end, int64_t start)
{
    do_create(x, create_req(key, end, start));
}
HELPER void do_cancel(struct sink *x, int64_t id)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCancelRequest c = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;

    c.has_watch_id = true;
    c.watch_id = id;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    r.cancel_request = &c;
    sink_call(x, sink_do_request, &r);
}
HELPER void do_progress(struct sink *x)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest p = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;

    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    r.progress_request = &p;
    sink_call(x, sink_do_request, &r);
}

/* ---- what came, as text --------------------------------------------------------------------- */

/* "#id rev=R" and created, canceled, compact=C, "reason", more (a fragment); then per event
 * " +key=value@create/mod/version" or " -key@mod", with "(was value@mod)". */
HELPER void sink_text(const Etcdserverpb__WatchResponse *m, char *out, size_t size)
{
    size_t n = 0;

#define SAY(...)                                                                                   \
    do {                                                                                           \
        if (n < size)                                                                              \
            n += (size_t)snprintf(out + n, size - n, __VA_ARGS__);                                 \
    } while (0)
    SAY("#%lld rev=%lld", (long long)m->watch_id,
        m->header == NULL ? -1LL : (long long)m->header->revision);
    if (m->created)
        SAY(" created");
    if (m->canceled)
        SAY(" canceled");
    if (m->compact_revision != 0)
        SAY(" compact=%lld", (long long)m->compact_revision);
    if (m->cancel_reason != NULL && m->cancel_reason[0] != 0)
        SAY(" \"%s\"", m->cancel_reason);
    if (m->fragment)
        SAY(" more");
    for (size_t i = 0; i < m->n_events; i++) {
        const Etcdserverpb__Event *e = m->events[i];
        const Etcdserverpb__KeyValue *v = e->kv;
        SAY(" %s%.*s", e->type == 1 ? "-" : "+", (int)v->key.len, (const char *)v->key.data);
        if (e->type == 1)
            SAY("@%lld", (long long)v->mod_revision);
        else
            SAY("=%.*s@%lld/%lld/%lld", (int)v->value.len, (const char *)v->value.data,
                (long long)v->create_revision, (long long)v->mod_revision, (long long)v->version);
        if (e->type == 1)
            assert_true(v->create_revision == 0 && v->version == 0 && v->value.len == 0);
        if (e->prev_kv != NULL)
            SAY("(was %.*s@%lld)", (int)e->prev_kv->value.len, (const char *)e->prev_kv->value.data,
                (long long)e->prev_kv->mod_revision);
    }
#undef SAY
}

/* The next response is this text; NULL: there is none. */
HELPER void sink_expect(struct sink *x, const char *text)
{
    char got[4096] = "nothing";

    if (x->next < x->count)
        sink_text(x->got[x->next], got, sizeof got);
    assert_string_equal(got, text == NULL ? "nothing" : text);
    if (x->next < x->count)
        x->next++;
}

#endif
