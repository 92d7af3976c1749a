/* env.h - the one seam between our code and the machine: loop, timers, net, files, workers, clock.
 *
 * Production plugs in libuv and POSIX (io/env_uv.h); tests plug in the simulator (sim/world.h) and
 * run the same objects. No code below `app` reaches a socket, a file, a clock or a thread by any
 * other way.
 *
 * Thread:   one env belongs to one loop thread; every call here is made on it, except bns_post()
 *           (any thread) and the bodies of jobs (on a worker: bytes and VFS calls only).
 * Memory:   timers, jobs, tasks are intrusive structs owned by the caller, alive until they fire,
 *           are stopped, or complete.
 * Death:    when a simulated node loses power (or calls fatal) nothing more is delivered, VFS calls
 *           answer BNS_E_OFF, and the node's allocator is freed whole. In production fatal exits.
 */
#ifndef BNS_BASE_ENV_H
#define BNS_BASE_ENV_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/heap.h"
#include "base/host.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/prng.h"
#include "base/slice.h"
#include "base/time.h"

struct bns_env;
struct bns_vfs;

/* ---- timers --------------------------------------------------------------------------------- */
struct bns_timer {
    struct bns_heap_node node; /* the env's */
    void (*fn)(void *arg);
    void *arg;
};
static inline void bns_timer_init(struct bns_timer *t, void (*fn)(void *arg), void *arg)
{
    *t = (struct bns_timer){.fn = fn, .arg = arg};
}

/* ---- tasks: run on the loop, later, from any thread ----------------------------------------- */
struct bns_task {
    struct bns_list node; /* the env's */
    void (*fn)(struct bns_task *t);
};

/* ---- jobs: bytes and VFS calls off the loop ------------------------------------------------- */
struct bns_job {
    struct bns_list node;            /* the env's; in a worker's handler: links the batch */
    void (*run)(struct bns_job *j);  /* pool jobs only: on a pool thread */
    void (*done)(struct bns_job *j); /* on the loop, after the handler returned */
};

/* One ordered queue with a thread of its own. The handler gets ALL jobs queued at that moment, in
 * order (this is what makes group commit without timers), and leaves them linked in `jobs`; their
 * done callbacks run on the loop in list order (the handler may reorder). */
struct bns_worker;
typedef void bns_worker_fn(void *arg, struct bns_list *jobs);

/* ---- byte streams --------------------------------------------------------------------------- */
struct bns_stream;
struct bns_listener;

/* Called on the loop. None is called after on_close, nor after bns_stream_close() returned except
 * on_close itself. */
struct bns_stream_events {
    void (*on_open)(void *arg);                        /* dialled streams only; may be NULL */
    void (*on_data)(void *arg, struct bns_slice data); /* data borrowed for the call */
    void (*on_eof)(void *arg);             /* the peer half-closed; may be NULL: close */
    void (*on_writable)(void *arg);        /* queued fell below the low mark; may be NULL */
    void (*on_close)(void *arg, int code); /* exactly once, last; BNS_OK = closed by us */
};

typedef void bns_release_fn(void *arg, int code); /* the bytes are no longer needed */
/* A new connection. Set the events before returning (bns_stream_set_events), or close it. */
typedef void bns_accept_fn(void *arg, struct bns_stream *s);

#define BNS_STREAM_LOW_MARK (64u * 1024) /* on_writable fires when queued falls below this again */

struct bns_net_addr {
    char host[64]; /* numeric IPv4 or IPv6 */
    uint16_t port;
};

struct bns_env_ops {
    uint64_t (*now_ns)(struct bns_env *e);
    int64_t (*wall_ms)(struct bns_env *e);
    int (*entropy)(struct bns_env *e, void *dst, size_t len);
    void (*timer_start)(struct bns_env *e, struct bns_timer *t, uint64_t deadline_ns);
    void (*timer_stop)(struct bns_env *e, struct bns_timer *t);
    void (*post)(struct bns_env *e, struct bns_task *t);
    int (*worker_new)(struct bns_env *e, const char *name, bns_worker_fn *fn, void *arg,
                      struct bns_worker **out);
    void (*worker_submit)(struct bns_worker *w, struct bns_job *j);
    void (*worker_free)(struct bns_worker *w);
    void (*worker_hold)(struct bns_worker *w);    /* these three may be NULL: nothing is held */
    bool (*worker_held)(struct bns_worker *w);    /* in the handler */
    void (*worker_release)(struct bns_worker *w); /* in the handler */
    void (*pool_submit)(struct bns_env *e, struct bns_job *j);
    int (*listen)(struct bns_env *e, const char *host, uint16_t port, bns_accept_fn *fn, void *arg,
                  struct bns_listener **out, struct bns_err *err);
    uint16_t (*listener_port)(const struct bns_listener *l);
    void (*listener_close)(struct bns_listener *l);
    int (*connect)(struct bns_env *e, const char *host, uint16_t port,
                   const struct bns_stream_events *ev, void *arg, struct bns_stream **out,
                   struct bns_err *err);
    void (*fatal)(struct bns_env *e, int exit_code, const char *text);
};

/* A stream carries its own operations, so that TLS can wrap one later. */
struct bns_stream_ops {
    void (*set_events)(struct bns_stream *s, const struct bns_stream_events *ev, void *arg);
    int (*write)(struct bns_stream *s, const struct bns_slice *v, size_t n, bns_release_fn *release,
                 void *arg);
    size_t (*queued)(const struct bns_stream *s);
    void (*read)(struct bns_stream *s, bool on);
    void (*close)(struct bns_stream *s);
    void (*reset)(struct bns_stream *s);
    void (*peer)(const struct bns_stream *s, struct bns_net_addr *out);
};

struct bns_stream {
    const struct bns_stream_ops *ops;
};

struct bns_env {
    const struct bns_env_ops *ops;
    const struct bns_alloc *alloc;
    struct bns_vfs *vfs;
    struct bns_log *log;         /* may be NULL */
    struct bns_metrics *metrics; /* may be NULL */
    struct bns_prng prng;
    uint32_t mutant; /* planted bug in force, 0 = none; read only in _mut builds */
    bool sim;        /* a simulated node */
};

#ifdef BNS_MUTANTS
#define BNS_MUTANT(holder, n) ((holder)->mutant == (n))
#else
#define BNS_MUTANT(holder, n) ((void)(holder), false)
#endif

/* Monotonic, cached per loop turn. */
static inline uint64_t bns_now_ns(struct bns_env *e)
{
    return e->ops->now_ns(e);
}
static inline int64_t bns_wall_ms(struct bns_env *e)
{
    return e->ops->wall_ms(e);
}
/* Unpredictable bytes (ids, salts, tokens). In the simulator drawn from the seed. */
BNS_MUST_CHECK static inline int bns_entropy(struct bns_env *e, void *dst, size_t len)
{
    return e->ops->entropy(e, dst, len);
}
/* Fires once at or after deadline_ns. Starting a running timer moves it. A deadline in the past
 * fires on the next turn, never inside this call. */
static inline void bns_timer_start(struct bns_env *e, struct bns_timer *t, uint64_t deadline_ns)
{
    e->ops->timer_start(e, t, deadline_ns);
}
static inline void bns_timer_stop(struct bns_env *e, struct bns_timer *t) /* no-op when idle */
{
    e->ops->timer_stop(e, t);
}
/* Any thread. t->fn runs on e's loop in a later turn, in post order. t is not touched after fn
 * starts. */
static inline void bns_post(struct bns_env *e, struct bns_task *t)
{
    e->ops->post(e, t);
}
/* BNS_E_NOMEM, BNS_E_INTERNAL (no thread). */
BNS_MUST_CHECK static inline int bns_worker_new(struct bns_env *e, const char *name,
                                                bns_worker_fn *fn, void *arg,
                                                struct bns_worker **out)
{
    return e->ops->worker_new(e, name, fn, arg, out);
}
static inline void bns_worker_submit(struct bns_env *e, struct bns_worker *w, struct bns_job *j)
{
    e->ops->worker_submit(w, j);
}
/* Asserts that all submitted jobs have completed (their done ran). Joins the thread. NULL is
 * fine. */
static inline void bns_worker_free(struct bns_env *e, struct bns_worker *w)
{
    e->ops->worker_free(w);
}
/* From now on a batch that is over while the next one is queued already may be held back, until the
 * handler of that next one calls bns_worker_release() or returns. For a handler that can give the
 * disk its next work first: waking the loop may cost this thread its processor for a while. */
static inline void bns_worker_hold(struct bns_env *e, struct bns_worker *w)
{
    if (e->ops->worker_hold != NULL)
        e->ops->worker_hold(w);
}
static inline bool bns_worker_held(struct bns_env *e, struct bns_worker *w)
{
    return e->ops->worker_held != NULL && e->ops->worker_held(w);
}
static inline void bns_worker_release(struct bns_env *e, struct bns_worker *w)
{
    if (e->ops->worker_release != NULL)
        e->ops->worker_release(w);
}
/* Runs j->run on one of 2..4 pool threads, in any order with others. */
static inline void bns_pool_submit(struct bns_env *e, struct bns_job *j)
{
    e->ops->pool_submit(e, j);
}
/* port 0 = any free one. BNS_E_ADDRINUSE, BNS_E_INVALID (host is not numeric or not ours). */
BNS_MUST_CHECK static inline int bns_net_listen(struct bns_env *e, const char *host, uint16_t port,
                                                bns_accept_fn *fn, void *arg,
                                                struct bns_listener **out, struct bns_err *err)
{
    return e->ops->listen(e, host, port, fn, arg, out, err);
}
static inline uint16_t bns_listener_port(struct bns_env *e, const struct bns_listener *l)
{
    return e->ops->listener_port(l);
}
static inline void bns_listener_close(struct bns_env *e, struct bns_listener *l) /* NULL is fine */
{
    e->ops->listener_close(l);
}
/* Dials host: numeric, "localhost", or a name, which is looked up at every dial. Failure to connect
 * arrives as on_close(code) without on_open, BNS_E_NOTFOUND when the name has no address now; an
 * error here (bad host, no memory) means that no event will come. */
BNS_MUST_CHECK static inline int bns_net_connect(struct bns_env *e, const char *host, uint16_t port,
                                                 const struct bns_stream_events *ev, void *arg,
                                                 struct bns_stream **out, struct bns_err *err)
{
    return e->ops->connect(e, host, port, ev, arg, out, err);
}
/* Stops the process with exit_code after one line on stderr; in the simulator the node dies.
 * Returns only in the simulator; the caller then unwinds. */
static inline void bns_fatal(struct bns_env *e, int exit_code, const char *text)
{
    e->ops->fatal(e, exit_code, text);
}

/* ---- stream calls --------------------------------------------------------------------------- */
static inline void bns_stream_set_events(struct bns_stream *s, const struct bns_stream_events *ev,
                                         void *arg)
{
    s->ops->set_events(s, ev, arg);
}
/* Queues n slices; they stay borrowed until release(arg, code) runs on the loop (in write order,
 * at the latest before on_close; never inside this call). release may be NULL for bytes that
 * outlive the stream. On error (BNS_E_NOMEM, or BNS_E_OFF when closing) release is NOT called. */
BNS_MUST_CHECK static inline int bns_stream_write(struct bns_stream *s, const struct bns_slice *v,
                                                  size_t n, bns_release_fn *release, void *arg)
{
    return s->ops->write(s, v, n, release, arg);
}
/* Bytes not yet given to the kernel. */
static inline size_t bns_stream_queued(const struct bns_stream *s)
{
    return s->ops->queued(s);
}
static inline void bns_stream_read(struct bns_stream *s, bool on) /* backpressure; on at first */
{
    s->ops->read(s, on);
}
/* Writes what is queued, then closes; on_close(BNS_OK) follows in a later turn. Idempotent. */
static inline void bns_stream_close(struct bns_stream *s)
{
    s->ops->close(s);
}
/* Drops what is queued and closes at once (RST); on_close follows in a later turn. Idempotent. */
static inline void bns_stream_reset(struct bns_stream *s)
{
    s->ops->reset(s);
}
static inline void bns_stream_ignore_data(void *arg, struct bns_slice data)
{
    (void)arg;
    (void)data;
}
static inline void bns_stream_ignore_close(void *arg, int code)
{
    (void)arg;
    (void)code;
}
/* Resets a stream that nobody takes; its former owner hears no more of it. */
static inline void bns_stream_refuse(struct bns_stream *s)
{
    static const struct bns_stream_events nobody = {.on_data = bns_stream_ignore_data,
                                                    .on_close = bns_stream_ignore_close};

    s->ops->set_events(s, &nobody, NULL);
    s->ops->reset(s);
}
static inline void bns_stream_peer(const struct bns_stream *s, struct bns_net_addr *out)
{
    s->ops->peer(s, out);
}

#endif
