/* tcp.c - byte streams over TCP.
 *
 * Sockets are ours, libuv only says when they are ready (uv_poll): a write needs no request object,
 * and what one turn of the loop queued goes out in one sendmsg.
 *
 * States:
 *   RESOLVING the host is a name and is looked up; writes queue up; the socket is not used yet
 *   DIALING   connect() is on its way; writes queue up. An address that does not answer is followed
 *             by the next one of the name: a new socket takes the place of the old one
 *   OPEN      both ways
 *   CLOSING   the owner closed; what is queued is still written, for as long as the peer takes a
 *             byte every CLOSE_NS
 *   ENDING    on the `ending` list: what is left is released, and on_close called, at the end of
 *             the turn
 *   LINGERING the owner is gone; the write side is shut down and input is thrown away until the
 *             peer closes too (LINGER_NS at most). Closing a socket with unread input would send a
 *             reset, which can destroy the answer that the peer has not read yet
 *   GONE      the handle is being closed
 *
 * Reading: one buffer for the whole loop; at most READS_PER_TURN full buffers a stream and turn.
 * Writing: the queue is a ring of slices, each with the release of the write it ends. A flush sends
 *          up to FLUSH_BYTES a stream and turn, so that a fast reader cannot hold the loop.
 * Callbacks may do anything to the stream: it is freed only by the close callback of libuv, in a
 * later turn, and each loop here looks at the state again after it called out.
 *
 * Bounds: QUEUE_SLICES_MAX slices; bytes are bounded by the owner, who sees bns_stream_queued().
 */
#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>

#define DIAL_NS (10 * BNS_SEC)
#define CLOSE_NS (10 * BNS_SEC)
#define LINGER_NS (1 * BNS_SEC)
#define LINGER_BYTES (1024u * 1024)
#define KEEP_IDLE_S 60
#define KEEP_EVERY_S 15
#define READS_PER_TURN 4
#define FLUSH_BYTES (1024u * 1024)
#define FLUSH_IOV 128
#define QUEUE_SLICES_FIRST 8u
#define QUEUE_SLICES_KEEP 64u
#define QUEUE_SLICES_MAX (1u << 20)

enum state { RESOLVING, DIALING, OPEN, CLOSING, ENDING, LINGERING, GONE };

struct out {
    struct bns_slice bytes;
    bns_release_fn *release;
    void *arg;
};

struct tcp {
    struct bns_stream base; /* first */
    struct bns_env_uv *e;
    uv_poll_t poll;
    struct bns_lookup *lookup; /* while dialling a name */
    struct bns_timer timer;    /* dial, close, linger */
    struct bns_list node;      /* e->streams */
    struct bns_list dirty;     /* e->dirty */
    struct bns_list ending;    /* e->ending */
    struct bns_stream_events ev;
    void *arg;
    struct out *q; /* ring of `cap` (a power of two) */
    uint32_t q_head;
    uint32_t q_count;
    uint32_t q_cap;
    size_t head_sent; /* bytes of the first slice that are with the kernel */
    size_t queued;
    size_t thrown; /* bytes discarded while lingering */
    int fd;
    int code; /* for on_close */
    int events;
    enum state state;
    bool reading; /* the owner wants data */
    bool eof;
    bool full;  /* the kernel took less than we had: wait for room */
    bool high;  /* owes on_writable */
    bool reset; /* close with RST */
};

static struct tcp *tcp_of(struct bns_stream *s)
{
    return (struct tcp *)(void *)s;
}

static int code_of_errno(int e)
{
    switch (e) {
    case ETIMEDOUT:
        return BNS_E_TIMEOUT;
    case ENOMEM:
    case ENOBUFS:
        return BNS_E_NOMEM;
    case ECONNRESET:
    case EPIPE:
    case ECONNREFUSED:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ECONNABORTED:
        return BNS_E_DROPPED;
    default:
        return BNS_E_IO;
    }
}

/* ---- what we wait for ------------------------------------------------------------------------ */
static void on_ready(uv_poll_t *h, int status, int events);
static void dial_next(struct tcp *t, int code);

static void watch(struct tcp *t)
{
    int events = 0;

    switch (t->state) {
    case DIALING:
        events = UV_WRITABLE;
        break;
    case OPEN:
        events = (t->reading && !t->eof ? UV_READABLE : 0) | (t->full ? UV_WRITABLE : 0);
        break;
    case CLOSING:
        events = t->full ? UV_WRITABLE : 0;
        break;
    case LINGERING:
        events = UV_READABLE;
        break;
    case RESOLVING:
    case ENDING:
    case GONE:
        break;
    }
    if (events == t->events)
        return;
    t->events = events;
    if (events == 0)
        (void)uv_poll_stop(&t->poll); /* these two cannot fail on a handle that is not closing */
    else
        (void)uv_poll_start(&t->poll, events, on_ready);
}

static void mark_dirty(struct tcp *t)
{
    if (!bns_list_empty(&t->dirty))
        return;
    bns_list_push(&t->e->dirty, &t->dirty);
    bns_loop_kick(t->e);
}

/* ---- the queue ------------------------------------------------------------------------------- */
static int queue_grow(struct tcp *t, size_t more)
{
    const struct bns_alloc *a = t->e->env.alloc;
    uint32_t cap = t->q_cap == 0 ? QUEUE_SLICES_FIRST : t->q_cap;
    struct out *q;

    if (more > QUEUE_SLICES_MAX - t->q_count)
        return BNS_E_NOMEM;
    while (cap < t->q_count + more)
        cap *= 2;
    if (cap == t->q_cap)
        return BNS_OK;
    q = bns_alloc_array(a, cap, sizeof *q);
    if (q == NULL)
        return BNS_E_NOMEM;
    for (uint32_t i = 0; i < t->q_count; i++)
        q[i] = t->q[(t->q_head + i) & (t->q_cap - 1)];
    bns_free(a, t->q);
    t->q = q;
    t->q_head = 0;
    t->q_cap = cap;
    return BNS_OK;
}

static void queue_push(struct tcp *t, struct out o)
{
    t->q[(t->q_head + t->q_count) & (t->q_cap - 1)] = o;
    t->q_count++;
    t->queued += o.bytes.len;
}

static struct out queue_pop(struct tcp *t)
{
    struct out o = t->q[t->q_head];

    t->q_head = (t->q_head + 1) & (t->q_cap - 1);
    t->q_count--;
    if (t->q_count == 0 && t->q_cap > QUEUE_SLICES_KEEP) {
        bns_free(t->e->env.alloc, t->q);
        t->q = NULL;
        t->q_cap = 0;
        t->q_head = 0;
    }
    return o;
}

/* The kernel took n more bytes: releases every write that is through, also empty ones. */
static void queue_took(struct tcp *t, size_t n)
{
    t->head_sent += n;
    t->queued -= n;
    while (t->q_count > 0 && t->head_sent >= t->q[t->q_head].bytes.len) {
        struct out o = queue_pop(t);
        t->head_sent -= o.bytes.len;
        if (o.release != NULL)
            o.release(o.arg, BNS_OK);
    }
}

static void queue_drop(struct tcp *t, int code)
{
    while (t->q_count > 0) {
        struct out o = queue_pop(t);
        if (o.release != NULL)
            o.release(o.arg, code);
    }
    t->queued = 0;
    t->head_sent = 0;
}

/* ---- the end of a stream --------------------------------------------------------------------- */
static void end(struct tcp *t, int code)
{
    if (t->state >= ENDING)
        return;
    t->state = ENDING;
    t->code = code;
    bns_timers_stop(&t->e->env, &t->timer);
    bns_lookup_free(t->lookup);
    t->lookup = NULL;
    bns_list_del(&t->dirty);
    bns_list_push(&t->e->ending, &t->ending);
    watch(t);
    bns_loop_kick(t->e);
}

static void on_closed(uv_handle_t *h)
{
    struct tcp *t = h->data;

    bns_free(t->e->env.alloc, t->q);
    bns_free(t->e->env.alloc, t);
}

static void gone(struct tcp *t)
{
    struct linger rst = {.l_onoff = 1, .l_linger = 0};

    BNS_ASSERT(t->state != GONE);
    t->state = GONE;
    bns_timers_stop(&t->e->env, &t->timer);
    bns_lookup_free(t->lookup);
    t->lookup = NULL;
    bns_list_del(&t->node);
    t->e->conns--;
    uv_close((uv_handle_t *)&t->poll, on_closed);
    if (t->reset)
        (void)setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof rst); /* else a plain close */
    (void)close(t->fd); /* nothing can be done about an error */
}

static void linger(struct tcp *t)
{
    t->state = LINGERING;
    if (shutdown(t->fd, SHUT_WR) != 0) {
        gone(t);
        return;
    }
    bns_timers_start(&t->e->env, &t->timer, bns_loop_now(&t->e->env) + LINGER_NS);
    watch(t);
}

/* Tells the owner. */
static void finish(struct tcp *t)
{
    bns_list_del(&t->ending);
    queue_drop(t, BNS_E_DROPPED);
    if (t->ev.on_close != NULL)
        t->ev.on_close(t->arg, t->code);
    if (t->code == BNS_OK && !t->reset && !t->eof)
        linger(t);
    else
        gone(t);
}

static void on_timer(void *arg)
{
    struct tcp *t = arg;

    if (t->state == LINGERING) {
        gone(t);
        return;
    }
    if (t->state == DIALING) {
        dial_next(t, BNS_E_TIMEOUT);
        return;
    }
    t->reset = true;
    end(t, BNS_E_TIMEOUT);
}

/* ---- writing --------------------------------------------------------------------------------- */
static size_t gather(struct tcp *t, struct iovec *iov, size_t *bytes)
{
    size_t n = 0, skip = t->head_sent;

    *bytes = 0;
    for (uint32_t i = 0; i < t->q_count && n < FLUSH_IOV; i++) {
        struct bns_slice s = bns_slice_skip(t->q[(t->q_head + i) & (t->q_cap - 1)].bytes, skip);
        skip = 0;
        if (s.len == 0)
            continue;
        iov[n].iov_base = (void *)(uintptr_t)s.ptr; /* the kernel only reads */
        iov[n++].iov_len = s.len;
        *bytes += s.len;
    }
    return n;
}

static void tell_writable(struct tcp *t)
{
    if (t->state != OPEN || !t->high || t->queued >= BNS_STREAM_LOW_MARK)
        return;
    t->high = false;
    if (t->ev.on_writable != NULL)
        t->ev.on_writable(t->arg);
}

/* Sends until the queue is empty, the kernel is full, or the share of this turn is used up. */
static void flush(struct tcp *t)
{
    size_t sent = 0, want;
    bool room = true;

    while (room && t->q_count > 0 && (t->state == OPEN || t->state == CLOSING)) {
        struct iovec iov[FLUSH_IOV];
        struct msghdr m = {.msg_iov = iov};
        ssize_t n = 0;

        if (sent >= FLUSH_BYTES) {
            mark_dirty(t);
            return;
        }
        m.msg_iovlen = gather(t, iov, &want);
        if (want > 0)
            n = sendmsg(t->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            end(t, code_of_errno(errno));
            return;
        }
        room = n >= 0 && (size_t)n == want;
        t->full = !room;
        if (n > 0 && t->state == CLOSING)
            bns_timers_start(&t->e->env, &t->timer, bns_loop_now(&t->e->env) + CLOSE_NS);
        if (n >= 0) {
            sent += (size_t)n;
            queue_took(t, (size_t)n);
        }
    }
    if (t->q_count == 0)
        t->full = false;
    tell_writable(t);
    if (t->state == CLOSING && t->q_count == 0)
        end(t, BNS_OK);
    watch(t);
}

/* ---- reading --------------------------------------------------------------------------------- */
static void got_eof(struct tcp *t)
{
    t->eof = true;
    watch(t);
    if (t->ev.on_eof != NULL)
        t->ev.on_eof(t->arg);
    else
        bns_stream_close(&t->base);
}

static void read_some(struct tcp *t)
{
    for (int i = 0; i < READS_PER_TURN && t->state == OPEN && t->reading && !t->eof; i++) {
        ssize_t n = recv(t->fd, t->e->read_buf, BNS_READ_BYTES, MSG_DONTWAIT);

        if (n > 0) {
            t->ev.on_data(t->arg, bns_slice(t->e->read_buf, (size_t)n));
            if ((size_t)n < BNS_READ_BYTES)
                return;
        } else if (n == 0) {
            got_eof(t);
            return;
        } else if (errno != EINTR) {
            if (errno != EAGAIN)
                end(t, code_of_errno(errno));
            return;
        }
    }
}

static void throw_away(struct tcp *t)
{
    ssize_t n = recv(t->fd, t->e->read_buf, BNS_READ_BYTES, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        t->thrown += (size_t)n;
        if (t->thrown <= LINGER_BYTES)
            return;
        t->reset = true;
    }
    gone(t);
}

/* ---- dialling -------------------------------------------------------------------------------- */
/* A new socket under the same descriptor, so that the poll handle stays. */
static int renew(struct tcp *t, int family)
{
    int e = 0, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return errno;
    (void)uv_poll_stop(&t->poll); /* the kernel forgets the old one; cannot fail */
    t->events = 0;
    if (dup3(fd, t->fd, O_CLOEXEC) < 0)
        e = errno;
    (void)close(fd); /* never used, or known by the other number */
    if (e == 0)
        bns_tcp_tune(t->fd);
    return e;
}

static int dial(struct tcp *t, const struct sockaddr_storage *a, socklen_t len)
{
    t->state = DIALING;
    if (connect(t->fd, (const struct sockaddr *)a, len) != 0 && errno != EINPROGRESS)
        return errno;
    bns_timers_start(&t->e->env, &t->timer, bns_loop_now(&t->e->env) + DIAL_NS);
    watch(t);
    return 0;
}

/* Goes on to the next address of the name; ends the stream with `code` when there is none. */
static void dial_next(struct tcp *t, int code)
{
    struct sockaddr_storage a;
    socklen_t len;

    while (t->lookup != NULL && bns_lookup_next(t->lookup, &a, &len)) {
        int e = renew(t, a.ss_family);

        if (e == 0)
            e = dial(t, &a, len);
        if (e == 0)
            return;
        code = code_of_errno(e);
    }
    end(t, code);
}

static void on_lookup(void *arg, int code)
{
    if (code != BNS_OK)
        end(arg, code);
    else
        dial_next(arg, BNS_E_NOTFOUND);
}

static void connected(struct tcp *t)
{
    int e = 0;
    socklen_t len = sizeof e;

    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
        e = errno;
    if (e != 0) {
        dial_next(t, code_of_errno(e));
        return;
    }
    bns_lookup_free(t->lookup);
    t->lookup = NULL;
    bns_timers_stop(&t->e->env, &t->timer);
    t->state = OPEN;
    if (t->q_count > 0)
        mark_dirty(t);
    watch(t);
    if (t->ev.on_open != NULL)
        t->ev.on_open(t->arg);
}

/* The socket has an error: hand over what the peer sent before it, then the error. libuv has
 * stopped the handle. */
static void failed(struct tcp *t)
{
    int e = 0;
    socklen_t len = sizeof e;

    t->events = 0;
    if (t->state == LINGERING) {
        gone(t);
        return;
    }
    read_some(t);
    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
        e = errno;
    end(t, code_of_errno(e == 0 ? ECONNRESET : e));
}

static void on_ready(uv_poll_t *h, int status, int events)
{
    struct tcp *t = h->data;

    bns_loop_enter(t->e);
    if (t->state == DIALING) {
        connected(t);
    } else if (status < 0) {
        failed(t);
    } else if (t->state == LINGERING) {
        throw_away(t);
    } else {
        if ((events & UV_READABLE) != 0)
            read_some(t);
        if ((events & UV_WRITABLE) != 0 && (t->state == OPEN || t->state == CLOSING)) {
            t->full = false;
            mark_dirty(t);
            watch(t);
        }
    }
}

/* ---- the operations of a stream -------------------------------------------------------------- */
static void tcp_set_events(struct bns_stream *s, const struct bns_stream_events *ev, void *arg)
{
    struct tcp *t = tcp_of(s);

    BNS_ASSERT(ev->on_data != NULL);
    BNS_ASSERT(ev->on_close != NULL);
    t->ev = *ev;
    t->arg = arg;
}

static int tcp_write(struct bns_stream *s, const struct bns_slice *v, size_t n,
                     bns_release_fn *release, void *arg)
{
    struct tcp *t = tcp_of(s);
    int rv;

    if (t->state > OPEN)
        return BNS_E_OFF;
    rv = queue_grow(t, n == 0 ? 1 : n);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i + 1 < n; i++)
        queue_push(t, (struct out){.bytes = v[i]});
    queue_push(t, (struct out){.bytes = n == 0 ? bns_slice(NULL, 0) : v[n - 1],
                               .release = release,
                               .arg = arg});
    if (t->queued >= BNS_STREAM_LOW_MARK)
        t->high = true;
    if (!t->full && t->state == OPEN)
        mark_dirty(t);
    return BNS_OK;
}

static size_t tcp_queued(const struct bns_stream *s)
{
    return ((const struct tcp *)(const void *)s)->queued;
}

static void tcp_read(struct bns_stream *s, bool on)
{
    struct tcp *t = tcp_of(s);

    t->reading = on;
    watch(t);
}

static void tcp_close(struct bns_stream *s)
{
    struct tcp *t = tcp_of(s);

    if (t->state < OPEN) {
        t->reset = true;
        end(t, BNS_OK);
    } else if (t->state == OPEN && t->q_count == 0) {
        end(t, BNS_OK);
    } else if (t->state == OPEN) {
        t->state = CLOSING;
        bns_timers_start(&t->e->env, &t->timer, bns_loop_now(&t->e->env) + CLOSE_NS);
        watch(t);
    }
}

static void tcp_reset(struct bns_stream *s)
{
    struct tcp *t = tcp_of(s);

    if (t->state >= ENDING)
        return;
    t->reset = true;
    end(t, BNS_OK);
}

static void tcp_peer(const struct bns_stream *s, struct bns_net_addr *out)
{
    const struct tcp *t = (const struct tcp *)(const void *)s;
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof a;

    (void)getpeername(t->fd, (struct sockaddr *)&a, &len); /* a dead peer has the empty address */
    bns_addr_format(&a, out);
}

static const struct bns_stream_ops tcp_ops = {
    .set_events = tcp_set_events,
    .write = tcp_write,
    .queued = tcp_queued,
    .read = tcp_read,
    .close = tcp_close,
    .reset = tcp_reset,
    .peer = tcp_peer,
};

/* ---- birth ----------------------------------------------------------------------------------- */
/* Small writes leave at once, and a peer whose machine is gone is found after KEEP_IDLE_S and four
 * unanswered probes. A listener's settings pass to what it accepts. None of them is needed to be
 * right, so failures are ignored. */
void bns_tcp_tune(int fd)
{
    int one = 1, idle = KEEP_IDLE_S, every = KEEP_EVERY_S, probes = 4;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static int stream_new(struct bns_env_uv *e, int fd, enum state state, struct tcp **out)
{
    struct tcp *t = bns_alloc_zero(e->env.alloc, sizeof *t);

    if (t == NULL)
        return BNS_E_NOMEM;
    if (uv_poll_init(&e->loop, &t->poll, fd) != 0) {
        bns_free(e->env.alloc, t);
        return BNS_E_IO;
    }
    t->base.ops = &tcp_ops;
    t->e = e;
    t->poll.data = t;
    t->fd = fd;
    t->state = state;
    t->reading = true;
    bns_timer_init(&t->timer, on_timer, t);
    bns_list_init(&t->dirty);
    bns_list_init(&t->ending);
    bns_list_push(&e->streams, &t->node);
    e->conns++;
    *out = t;
    return BNS_OK;
}

int bns_tcp_adopt(struct bns_env_uv *e, int fd, struct bns_stream **out)
{
    struct tcp *t;
    int rv = stream_new(e, fd, OPEN, &t);

    if (rv != BNS_OK)
        return rv;
    watch(t);
    *out = &t->base;
    return BNS_OK;
}

bool bns_tcp_owned(const struct bns_stream *s)
{
    const struct tcp *t = (const struct tcp *)(const void *)s;

    return t->ev.on_close != NULL || t->state != OPEN;
}

int bns_tcp_connect(struct bns_env *env, const char *host, uint16_t port,
                    const struct bns_stream_events *ev, void *arg, struct bns_stream **out,
                    struct bns_err *err)
{
    struct bns_env_uv *e = bns_uv(env);
    struct sockaddr_storage a;
    socklen_t len;
    struct tcp *t;
    int fd, rv = bns_addr_parse(host, port, &a, &len);
    bool named = rv != BNS_OK && bns_host_kind(host) == BNS_HOST_NAME;

    if (rv != BNS_OK && !named)
        return bns_err_set(err, rv, "%s: neither an address nor a host name", host);
    fd = socket(named ? AF_INET : a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return bns_err_set(err, BNS_E_IO, "cannot make a socket to %s port %u: %s", host,
                           (unsigned)port, strerror(errno));
    bns_tcp_tune(fd);
    rv = stream_new(e, fd, named ? RESOLVING : DIALING, &t);
    if (rv != BNS_OK) {
        (void)close(fd); /* never used */
        return bns_err_set(err, rv, "cannot dial %s port %u", host, (unsigned)port);
    }
    tcp_set_events(&t->base, ev, arg);
    if (named)
        rv = bns_lookup_start(e, host, port, on_lookup, t, &t->lookup);
    else if ((rv = dial(t, &a, len)) != 0)
        rv = code_of_errno(rv);
    if (rv != BNS_OK)
        end(t, rv);
    *out = &t->base;
    return BNS_OK;
}

/* ---- the end of the turn --------------------------------------------------------------------- */
void bns_tcp_turn_end(struct bns_env_uv *e)
{
    struct bns_list now, *n;

    bns_list_init(&now);
    bns_list_splice(&now, &e->dirty); /* what callbacks write now is for the next turn */
    while ((n = bns_list_pop(&now)) != NULL)
        flush(BNS_CONTAINER(n, struct tcp, dirty));
    bns_list_splice(&now, &e->ending);
    while ((n = bns_list_pop(&now)) != NULL)
        finish(BNS_CONTAINER(n, struct tcp, ending));
}

void bns_tcp_drop_all(struct bns_env_uv *e)
{
    struct bns_list *n;

    BNS_LIST_EACH(c, &e->streams)
    {
        struct tcp *t = BNS_CONTAINER(c, struct tcp, node);
        if (t->state == CLOSING) {
            flush(t);
            end(t, BNS_OK);
        }
    }
    while ((n = bns_list_pop(&e->ending)) != NULL)
        finish(BNS_CONTAINER(n, struct tcp, ending));
    while (!bns_list_empty(&e->streams))
        gone(BNS_CONTAINER(e->streams.next, struct tcp, node));
}
