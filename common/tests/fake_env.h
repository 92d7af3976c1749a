/* fake_env.h - an env in memory for tests of what stands on streams: virtual time, no threads, no
 * sockets. Streams connect within one env.
 *
 * Turns: fake_run(f, t) moves bytes, calls events and fires timers until virtual time t; nothing is
 * delivered inside a call of the code under test. `chunk` is the most bytes that on_data gets at
 * once (1 = a message cut at every byte), `window` what a stream holds before its writer has to
 * wait. Same calls, same order: no randomness but the prng, seeded with 1.
 */
#ifndef BNS_TESTS_FAKE_ENV_H
#define BNS_TESTS_FAKE_ENV_H

#include "base/buf.h"
#include "base/env.h"

struct fake_out {
    struct bns_slice bytes;
    bns_release_fn *release;
    void *arg;
};

struct fake_stream {
    struct bns_stream base; /* first */
    struct fake_env *f;
    struct bns_list node;
    struct fake_stream *peer; /* NULL: gone */
    struct bns_stream_events ev;
    void *arg;
    struct fake_out *q;
    size_t q_count, q_cap, q_head;
    size_t q_sent; /* of q[0] */
    size_t queued;
    struct bns_buf inbox; /* from the peer, not yet delivered */
    bool dialled, open_told, off, closing, ended, high;
    bool peer_end, eof_told, refused;
    int code;
};

struct bns_listener {
    struct fake_env *f;
    struct bns_list node;
    uint16_t port;
    bns_accept_fn *fn;
    void *arg;
};

struct fake_env {
    struct bns_env env;          /* first */
    const struct bns_alloc *own; /* of the fake itself; fake_init sets env.alloc */
    struct bns_heap timers;
    struct bns_list streams, listeners, tasks;
    uint64_t now;
    const char *nameless; /* dials of this host end as a name without an address */
    size_t nameless_dials;
    size_t chunk, window;
    uint16_t next_port;
    bool blackhole; /* bytes of dialled streams vanish, no end is told: a half-open link */
    size_t turns;
    int fatal_code;
};

static inline struct fake_env *fake_of(struct bns_env *e)
{
    return (struct fake_env *)(void *)e;
}
static inline struct fake_stream *fake_stream_of(const struct bns_stream *s)
{
    return (struct fake_stream *)(uintptr_t)s;
}

static inline uint64_t fake_now(struct bns_env *e)
{
    return fake_of(e)->now;
}
static inline int64_t fake_wall(struct bns_env *e)
{
    return (int64_t)(fake_of(e)->now / BNS_MS) + INT64_C(1700000000000);
}
static inline int fake_entropy(struct bns_env *e, void *dst, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)dst)[i] = (uint8_t)bns_prng_next(&e->prng);
    return BNS_OK;
}
static inline void fake_timer_stop(struct bns_env *e, struct bns_timer *t)
{
    bns_heap_del(&fake_of(e)->timers, &t->node);
}
static inline void fake_timer_start(struct bns_env *e, struct bns_timer *t, uint64_t deadline_ns)
{
    fake_timer_stop(e, t);
    BNS_ASSERT(bns_heap_insert(&fake_of(e)->timers, &t->node, deadline_ns) == BNS_OK);
}
static inline void fake_post(struct bns_env *e, struct bns_task *t)
{
    bns_list_push(&fake_of(e)->tasks, &t->node);
}
static inline void fake_fatal(struct bns_env *e, int code, const char *text)
{
    (void)text;
    fake_of(e)->fatal_code = code;
}

/* ---- streams --------------------------------------------------------------------------------- */
static inline void fake_set_events(struct bns_stream *s, const struct bns_stream_events *ev,
                                   void *arg)
{
    fake_stream_of(s)->ev = *ev;
    fake_stream_of(s)->arg = arg;
}

static inline int fake_write(struct bns_stream *s, const struct bns_slice *v, size_t n,
                             bns_release_fn *release, void *arg)
{
    struct fake_stream *t = fake_stream_of(s);

    if (t->closing || t->ended)
        return BNS_E_OFF;
    if (t->q_head + t->q_count + n + 1 > t->q_cap) {
        t->q_cap = 2 * (t->q_cap + n + 1);
        t->q = bns_resize(t->f->own, t->q, t->q_cap * sizeof *t->q);
        BNS_ASSERT(t->q != NULL);
    }
    for (size_t i = 0; i < n; i++) {
        t->q[t->q_head + t->q_count++] = (struct fake_out){.bytes = v[i]};
        t->queued += v[i].len;
    }
    t->q[t->q_head + t->q_count++] = (struct fake_out){.release = release, .arg = arg};
    if (t->queued >= BNS_STREAM_LOW_MARK)
        t->high = true;
    return BNS_OK;
}
static inline size_t fake_queued(const struct bns_stream *s)
{
    return fake_stream_of(s)->queued;
}
static inline void fake_read(struct bns_stream *s, bool on)
{
    fake_stream_of(s)->off = !on;
}
static inline void fake_close(struct bns_stream *s)
{
    fake_stream_of(s)->closing = true;
}
static inline void fake_end(struct fake_stream *t, int code)
{
    if (t->ended)
        return;
    t->ended = true;
    t->code = code;
}
static inline void fake_reset(struct bns_stream *s)
{
    struct fake_stream *t = fake_stream_of(s);

    if (t->peer != NULL && !t->ended && !t->f->blackhole)
        fake_end(t->peer, BNS_E_DROPPED);
    fake_end(t, BNS_OK);
}
static inline void fake_peer(const struct bns_stream *s, struct bns_net_addr *out)
{
    (void)s;
    *out = (struct bns_net_addr){.host = "127.0.0.1", .port = 1};
}

static const struct bns_stream_ops fake_stream_ops = {
    .set_events = fake_set_events,
    .write = fake_write,
    .queued = fake_queued,
    .read = fake_read,
    .close = fake_close,
    .reset = fake_reset,
    .peer = fake_peer,
};

static inline struct fake_stream *fake_stream_new(struct fake_env *f)
{
    struct fake_stream *t = bns_alloc_zero(f->own, sizeof *t);

    BNS_ASSERT(t != NULL);
    t->base.ops = &fake_stream_ops;
    t->f = f;
    bns_buf_init(&t->inbox, f->own, SIZE_MAX / 2);
    bns_list_push(&f->streams, &t->node);
    return t;
}

static inline int fake_listen(struct bns_env *e, const char *host, uint16_t port, bns_accept_fn *fn,
                              void *arg, struct bns_listener **out, struct bns_err *err)
{
    struct fake_env *f = fake_of(e);
    struct bns_listener *l = bns_alloc_zero(f->own, sizeof *l);

    (void)host;
    if (l == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory to listen");
    *l = (struct bns_listener){.f = f, .fn = fn, .arg = arg};
    l->port = port != 0 ? port : ++f->next_port;
    bns_list_push(&f->listeners, &l->node);
    *out = l;
    return BNS_OK;
}
static inline uint16_t fake_listener_port(const struct bns_listener *l)
{
    return l->port;
}
static inline void fake_listener_close(struct bns_listener *l)
{
    if (l == NULL)
        return;
    bns_list_del(&l->node);
    bns_free(l->f->own, l);
}

static inline int fake_connect(struct bns_env *e, const char *host, uint16_t port,
                               const struct bns_stream_events *ev, void *arg,
                               struct bns_stream **out, struct bns_err *err)
{
    struct fake_env *f = fake_of(e);
    struct fake_stream *t, *s;

    (void)err;
    t = fake_stream_new(f);
    t->dialled = true;
    fake_set_events(&t->base, ev, arg);
    *out = &t->base;
    if (f->nameless != NULL && strcmp(host, f->nameless) == 0) {
        f->nameless_dials++;
        t->refused = true;
        fake_end(t, BNS_E_NOTFOUND);
        return BNS_OK;
    }
    BNS_LIST_EACH(n, &f->listeners)
    {
        struct bns_listener *l = BNS_CONTAINER(n, struct bns_listener, node);
        if (l->port != port)
            continue;
        s = fake_stream_new(f);
        s->peer = t;
        t->peer = s;
        l->fn(l->arg, &s->base);
        return BNS_OK;
    }
    t->refused = true;
    fake_end(t, BNS_E_DROPPED);
    return BNS_OK;
}

static const struct bns_env_ops fake_ops = {
    .now_ns = fake_now,
    .wall_ms = fake_wall,
    .entropy = fake_entropy,
    .timer_start = fake_timer_start,
    .timer_stop = fake_timer_stop,
    .post = fake_post,
    .listen = fake_listen,
    .listener_port = fake_listener_port,
    .listener_close = fake_listener_close,
    .connect = fake_connect,
    .fatal = fake_fatal,
};

static inline void fake_init(struct fake_env *f, const struct bns_alloc *alloc)
{
    memset(f, 0, sizeof *f);
    f->env.ops = &fake_ops;
    f->env.alloc = alloc;
    f->own = alloc;
    f->env.sim = true;
    f->now = BNS_SEC;
    f->chunk = 64u * 1024;
    f->window = 256u * 1024;
    f->next_port = 1000;
    bns_prng_seed(&f->env.prng, 1);
    bns_heap_init(&f->timers, alloc);
    bns_list_init(&f->streams);
    bns_list_init(&f->listeners);
    bns_list_init(&f->tasks);
}

/* ---- turns ----------------------------------------------------------------------------------- */
static inline bool fake_send(struct fake_stream *t)
{
    bool did = false;

    while (t->q_count > 0) {
        struct fake_out o = t->q[t->q_head];
        struct bns_slice rest = bns_slice_skip(o.bytes, t->q_sent);
        size_t room = t->peer == NULL || t->f->blackhole  ? rest.len
                      : t->peer->inbox.len < t->f->window ? t->f->window - t->peer->inbox.len
                                                          : 0;
        size_t n = rest.len < room ? rest.len : room;

        if (rest.len > 0 && n == 0)
            return did;
        did = true;
        if (t->peer != NULL && !t->f->blackhole)
            BNS_ASSERT(bns_buf_add(&t->peer->inbox, rest.ptr, n) == BNS_OK);
        t->q_sent += n;
        t->queued -= n;
        if (n < rest.len)
            continue;
        t->q_sent = 0;
        t->q_head = --t->q_count == 0 ? 0 : t->q_head + 1;
        if (o.release != NULL)
            o.release(o.arg, BNS_OK);
        if (t->ended)
            return true;
    }
    return did;
}

/* One event of the stream; false when there is none. */
static inline bool fake_event(struct fake_stream *t)
{
    static uint8_t bytes[64u * 1024];
    size_t n = t->inbox.len < t->f->chunk ? t->inbox.len : t->f->chunk;

    if (t->dialled && !t->open_told && t->peer != NULL) {
        t->open_told = true;
        if (t->ev.on_open != NULL)
            t->ev.on_open(t->arg);
        return true;
    }
    if (!t->off && !t->closing && n > 0) {
        memcpy(bytes, t->inbox.ptr, n);
        bns_buf_consume(&t->inbox, n);
        t->ev.on_data(t->arg, bns_slice(bytes, n));
        return true;
    }
    if (!t->off && !t->closing && t->peer_end && !t->eof_told) {
        t->eof_told = true;
        if (t->ev.on_eof != NULL)
            t->ev.on_eof(t->arg);
        else
            t->closing = true;
        return true;
    }
    if (t->high && t->queued < BNS_STREAM_LOW_MARK && !t->closing) {
        t->high = false;
        if (t->ev.on_writable != NULL)
            t->ev.on_writable(t->arg);
        return true;
    }
    return false;
}

static inline void fake_bury(struct fake_stream *t)
{
    size_t n = t->q_count;

    for (size_t i = 0; i < n; i++) {
        struct fake_out o = t->q[t->q_head + i];
        if (o.release != NULL)
            o.release(o.arg, BNS_E_DROPPED);
    }
    if (t->peer != NULL) {
        if (!t->f->blackhole)
            t->peer->peer_end = true;
        t->peer->peer = NULL;
    }
    bns_list_del(&t->node);
    if (t->ev.on_close != NULL)
        t->ev.on_close(t->arg, t->code);
    bns_buf_free(&t->inbox);
    bns_free(t->f->own, t->q);
    bns_free(t->f->own, t);
}

static inline bool fake_turn_stream(struct fake_stream *t)
{
    bool did = false;

    if (!t->ended)
        did = fake_send(t);
    if (!t->ended)
        did = fake_event(t) || did;
    if (!t->ended && t->closing && t->q_count == 0)
        fake_end(t, BNS_OK);
    if (t->ended) {
        fake_bury(t);
        return true;
    }
    return did;
}

/* Everything that can happen now; false when nothing did. Streams are only freed by their own
 * turn. */
static inline bool fake_turn(struct fake_env *f)
{
    struct bns_list *n;
    bool did = false;

    f->turns++;
    BNS_LIST_EACH(s, &f->streams)
    did = fake_turn_stream(BNS_CONTAINER(s, struct fake_stream, node)) || did;
    while ((n = bns_list_pop(&f->tasks)) != NULL) {
        struct bns_task *t = BNS_CONTAINER(n, struct bns_task, node);
        t->fn(t);
        did = true;
    }
    return did;
}

static inline void fake_run(struct fake_env *f, uint64_t until)
{
    for (;;) {
        struct bns_heap_node *n;
        struct bns_timer *t;

        while (fake_turn(f)) {
        }
        n = bns_heap_min(&f->timers);
        if (n == NULL || n->key > until)
            break;
        if (n->key > f->now)
            f->now = n->key;
        bns_heap_del(&f->timers, n);
        t = BNS_CONTAINER(n, struct bns_timer, node);
        t->fn(t->arg);
    }
    if (until > f->now)
        f->now = until;
}

static inline void fake_run_for(struct fake_env *f, uint64_t ns)
{
    fake_run(f, f->now + ns);
}

/* Everything was closed before: runs what is left and frees. */
static inline void fake_free(struct fake_env *f)
{
    while (fake_turn(f)) {
    }
    BNS_ASSERT(bns_list_empty(&f->streams));
    BNS_ASSERT(bns_list_empty(&f->listeners));
    BNS_ASSERT(f->timers.count == 0);
    bns_heap_free(&f->timers);
}

#endif
