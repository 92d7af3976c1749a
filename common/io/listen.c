/* listen.c - accepting connections without ever spinning.
 *
 * At most ACCEPTS_PER_TURN a listener and turn. A loop keeps RESERVED descriptors of RLIMIT_NOFILE
 * for files and dials: above that a new connection is accepted and reset at once (the client learns
 * it, and the queue of the kernel does not fill), and counted. When accept itself fails for lack of
 * descriptors or memory, the listener is not polled for PAUSE_NS: a level-triggered poll would come
 * back at once, for ever.
 */
#include "io/loop.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 64
#define BACKLOG 1024
#define PAUSE_NS (100 * BNS_MS)

struct bns_listener {
    struct bns_env_uv *e;
    struct bns_list node; /* e->listeners */
    uv_poll_t poll;
    struct bns_timer resume;
    bns_accept_fn *fn;
    void *arg;
    int fd;
    uint16_t port;
    bool closed;
};

static void on_ready(uv_poll_t *h, int status, int events);

static void resume(void *arg)
{
    struct bns_listener *l = arg;

    (void)uv_poll_start(&l->poll, UV_READABLE, on_ready); /* cannot fail while open */
}

static void pause_accepting(struct bns_listener *l, int e)
{
    struct bns_env *env = &l->e->env;

    (void)uv_poll_stop(&l->poll); /* cannot fail */
    bns_timer_start(env, &l->resume, bns_now_ns(env) + PAUSE_NS);
    if (bns_log_limit(env->log, bns_now_ns(env), 60 * BNS_SEC, &l->e->accept_log_ns))
        BNS_LOG(env->log, BNS_LOG_WARN, "tcp", "cannot accept connections, trying again",
                BNS_I64("errno", e), BNS_U64("port", l->port), BNS_U64("open", l->e->conns));
}

static size_t conns_max(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return 1;
    if (r.rlim_cur > 1u << 20)
        return 1u << 20;
    return r.rlim_cur > 512 ? (size_t)r.rlim_cur - 128 : (size_t)r.rlim_cur * 3 / 4;
}

static void refuse(struct bns_listener *l, int fd)
{
    struct linger rst = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof rst); /* else a plain close */
    (void)close(fd);                                               /* nothing was sent */
    if (l->e->conn_refused != NULL)
        bns_counter_add(l->e->conn_refused, 1);
}

static void on_ready(uv_poll_t *h, int status, int events)
{
    struct bns_listener *l = h->data;
    size_t max = conns_max();

    (void)events;
    bns_loop_enter(l->e);
    if (status < 0) {
        pause_accepting(l, 0);
        return;
    }
    for (int i = 0; i < ACCEPTS_PER_TURN && !l->closed; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct bns_stream *s;

        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
            continue;
        if (fd < 0) {
            if (errno != EAGAIN)
                pause_accepting(l, errno);
            return;
        }
        if (l->e->conns >= max || bns_tcp_adopt(l->e, fd, &s) != BNS_OK) {
            refuse(l, fd);
            continue;
        }
        l->fn(l->arg, s);
        BNS_ASSERT(bns_tcp_owned(s)); /* the contract of bns_accept_fn */
    }
}

static int bind_and_listen(int fd, const struct sockaddr_storage *a, socklen_t len)
{
    int one = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0)
        return errno;
    bns_tcp_tune(fd);
    if (bind(fd, (const struct sockaddr *)a, len) != 0)
        return errno;
    return listen(fd, BACKLOG) != 0 ? errno : 0;
}

static int listen_error(struct bns_err *err, const char *host, uint16_t port, int e)
{
    switch (e) {
    case EADDRINUSE:
        return bns_err_set(err, BNS_E_ADDRINUSE, "address in use: %s port %u", host,
                           (unsigned)port);
    case EADDRNOTAVAIL:
        return bns_err_set(err, BNS_E_INVALID, "%s: not an address of this machine", host);
    default:
        return bns_err_set(err, e == EACCES ? BNS_E_INVALID : BNS_E_IO,
                           "cannot listen on %s port %u: %s", host, (unsigned)port, strerror(e));
    }
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof a;
    struct bns_net_addr n;

    BNS_ASSERT(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    bns_addr_format(&a, &n);
    return n.port;
}

int bns_tcp_listen(struct bns_env *env, const char *host, uint16_t port, bns_accept_fn *fn,
                   void *arg, struct bns_listener **out, struct bns_err *err)
{
    struct bns_env_uv *e = bns_uv(env);
    struct bns_listener *l = NULL;
    struct sockaddr_storage a;
    socklen_t len;
    int fd, e_no, rv = bns_addr_parse(host, port, &a, &len);

    if (rv != BNS_OK)
        return bns_err_set(err, rv, "%s: not a numeric address", host);
    fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return listen_error(err, host, port, errno);
    e_no = bind_and_listen(fd, &a, len);
    if (e_no != 0) {
        rv = listen_error(err, host, port, e_no);
        goto fail;
    }
    l = bns_alloc_zero(env->alloc, sizeof *l);
    if (l == NULL || uv_poll_init(&e->loop, &l->poll, fd) != 0) {
        rv = bns_err_set(err, BNS_E_NOMEM, "no memory to listen on %s port %u", host,
                         (unsigned)port);
        goto fail;
    }
    l->e = e;
    l->fd = fd;
    l->fn = fn;
    l->arg = arg;
    l->port = port_of(fd);
    l->poll.data = l;
    bns_timer_init(&l->resume, resume, l);
    bns_list_push(&e->listeners, &l->node);
    resume(l);
    *out = l;
    return BNS_OK;

fail:
    (void)close(fd); /* nothing was sent */
    bns_free(env->alloc, l);
    return rv;
}

uint16_t bns_tcp_listener_port(const struct bns_listener *l)
{
    return l->port;
}

static void on_closed(uv_handle_t *h)
{
    struct bns_listener *l = h->data;

    bns_free(l->e->env.alloc, l);
}

void bns_tcp_listener_close(struct bns_listener *l)
{
    if (l == NULL)
        return;
    BNS_ASSERT(!l->closed);
    l->closed = true;
    bns_timer_stop(&l->e->env, &l->resume);
    bns_list_del(&l->node);
    uv_close((uv_handle_t *)&l->poll, on_closed);
    (void)close(l->fd); /* nothing was sent */
}
