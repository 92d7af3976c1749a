/* env_uv.c - one loop: its turns, its clock, its wake-ups, its end.
 *
 * A turn of libuv is: timers, idle, prepare, poll (with the callbacks of sockets and of the async
 * handle), check, close. We use three hooks:
 *
 *   idle     runs only when kicked: drains what the loop posted to itself. While it is active the
 *            poll does not block, so a kick costs no system call.
 *   prepare  the end of our turn: tells on_close, flushes every stream that was written to in this
 *            turn with one system call each, sets the timer, forgets the time.
 *   async    another thread has left something in the ring.
 *
 * The time is read once a turn, at the first callback after the poll, and kept until the end of
 * the turn; loop_lag_seconds is how long the callbacks of one turn took, the delay that any other
 * event had to bear. Outside run() (start-up) the clock is read anew at every call.
 */
#include "io/loop.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct signal_hook {
    struct bns_list node;
    uv_signal_t handle;
    struct bns_env_uv *e;
    void (*fn)(void *arg, int signo);
    void *arg;
};

uint64_t bns_loop_now(struct bns_env *env)
{
    struct bns_env_uv *e = bns_uv(env);

    if (!e->now_known) {
        e->now_ns = uv_hrtime();
        e->now_known = e->running;
    }
    return e->now_ns;
}

void bns_loop_enter(struct bns_env_uv *e)
{
    (void)bns_loop_now(&e->env); /* for its effect */
    if (e->turn_ns == 0)
        e->turn_ns = e->now_ns; /* timers read the clock again, in the middle of a turn */
}

static int64_t wall_ms(struct bns_env *env)
{
    struct timespec ts;

    (void)env;
    BNS_ASSERT(clock_gettime(CLOCK_REALTIME, &ts) == 0);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int entropy(struct bns_env *env, void *dst, size_t len)
{
    uint8_t *p = dst;

    (void)env;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return BNS_E_IO;
        p += n;
        len -= (size_t)n;
    }
    return BNS_OK;
}

static void fatal(struct bns_env *env, int exit_code, const char *text)
{
    char line[512];
    int n = snprintf(line, sizeof line, "fatal: %s\n", text);

    (void)env;
    if (n >= (int)sizeof line) {
        n = (int)sizeof line;
        line[n - 1] = '\n';
    }
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) {
        /* nobody reads it: the exit code has to tell */
    }
    _exit(exit_code);
}

static void on_idle(uv_idle_t *h)
{
    struct bns_env_uv *e = h->data;

    bns_loop_enter(e);
    (void)uv_idle_stop(h); /* cannot fail */
    bns_ring_drain(e);
}

static void on_async(uv_async_t *h)
{
    struct bns_env_uv *e = h->data;

    bns_loop_enter(e);
    bns_ring_drain(e);
}

void bns_loop_kick(struct bns_env_uv *e)
{
    (void)uv_idle_start(&e->idle, on_idle); /* idempotent, cannot fail */
}

static void find_metrics(struct bns_env_uv *e)
{
    struct bns_metrics *m = e->env.metrics;

    e->metrics = m;
    e->loop_lag = NULL;
    e->conn_open = NULL;
    e->conn_refused = NULL;
    if (m == NULL)
        return;
    e->loop_lag = bns_hist(m, "loop_lag_seconds", NULL, "time the callbacks of one loop turn took");
    e->conn_open = bns_gauge(m, "conn_open", NULL, "open connections of this loop");
    e->conn_refused = bns_counter(m, "conn_refused_total", NULL,
                                  "connections refused for lack of file descriptors");
}

static void on_prepare(uv_prepare_t *h)
{
    struct bns_env_uv *e = h->data;

    bns_loop_enter(e);
    if (e->metrics != e->env.metrics)
        find_metrics(e);
    bns_tcp_turn_end(e);
    uv_update_time(&e->loop); /* or the poll would sleep too long by the length of this turn */
    bns_timers_arm(e);
    if (e->metrics != NULL) {
        bns_hist_observe(e->loop_lag, (double)(uv_hrtime() - e->turn_ns) / 1e9);
        bns_gauge_set(e->conn_open, (double)e->conns);
    }
    e->turn_ns = 0;
    e->now_known = false;
}

static const struct bns_env_ops uv_ops = {
    .now_ns = bns_loop_now,
    .wall_ms = wall_ms,
    .entropy = entropy,
    .timer_start = bns_timers_start,
    .timer_stop = bns_timers_stop,
    .post = bns_ring_post,
    .worker_new = bns_workers_new,
    .worker_submit = bns_workers_submit,
    .worker_free = bns_workers_free,
    .worker_hold = bns_workers_hold,
    .worker_held = bns_workers_held,
    .worker_release = bns_workers_release,
    .pool_submit = bns_disk_pool_submit,
    .listen = bns_tcp_listen,
    .listener_port = bns_tcp_listener_port,
    .listener_close = bns_tcp_listener_close,
    .connect = bns_tcp_connect,
    .fatal = fatal,
};

static int start_handles(struct bns_env_uv *e)
{
    int rv = uv_prepare_init(&e->loop, &e->prepare);

    rv = rv != 0 ? rv : uv_idle_init(&e->loop, &e->idle);
    rv = rv != 0 ? rv : bns_timers_init(e);
    rv = rv != 0 ? rv : uv_async_init(&e->loop, &e->async, on_async);
    e->prepare.data = e;
    e->idle.data = e;
    e->async.data = e;
    return rv != 0 ? rv : uv_prepare_start(&e->prepare, on_prepare);
}

int bns_env_uv_new(const struct bns_alloc *alloc, struct bns_vfs *vfs, struct bns_env **out,
                   struct bns_err *err)
{
    struct bns_env_uv *e = bns_alloc_zero(alloc, sizeof *e);
    uint64_t seed = 0;
    int rv;

    if (e == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for an event loop");
    e->env = (struct bns_env){.ops = &uv_ops, .alloc = alloc, .vfs = vfs};
    bns_list_init(&e->streams);
    bns_list_init(&e->dirty);
    bns_list_init(&e->ending);
    bns_list_init(&e->listeners);
    bns_list_init(&e->signals);
    e->read_buf = bns_alloc(alloc, BNS_READ_BYTES);
    if (e->read_buf == NULL) {
        rv = bns_err_set(err, BNS_E_NOMEM, "no memory for an event loop");
        goto fail;
    }
    rv = entropy(&e->env, &seed, sizeof seed);
    if (rv != BNS_OK) {
        (void)bns_err_set(err, rv, "cannot read random bytes: %s", strerror(errno));
        goto fail;
    }
    bns_prng_seed(&e->env.prng, seed);
    rv = uv_loop_init(&e->loop);
    if (rv != 0) {
        rv = bns_err_set(err, BNS_E_IO, "cannot make an event loop: %s", uv_strerror(rv));
        goto fail;
    }
    rv = start_handles(e);
    BNS_ASSERT(rv == 0); /* only the eventfd of the async handle allocates; loop_init made it */
    BNS_ASSERT(bns_ring_init(&e->ring) == BNS_OK);
    *out = &e->env;
    return BNS_OK;

fail:
    bns_free(alloc, e->read_buf);
    bns_free(alloc, e);
    return rv;
}

void bns_env_uv_run(struct bns_env *env)
{
    struct bns_env_uv *e = bns_uv(env);

    BNS_ASSERT(!e->running);
    bns_ring_own(e);
    e->running = true;
    e->now_known = false;
    e->turn_ns = 0;
    (void)uv_run(&e->loop, UV_RUN_DEFAULT); /* non-zero only says that handles are left */
    e->running = false;
    e->now_known = false;
}

void bns_env_uv_stop(struct bns_env *env)
{
    uv_stop(&bns_uv(env)->loop);
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct signal_hook *s = h->data;

    bns_loop_enter(s->e);
    s->fn(s->arg, signo);
}

int bns_env_uv_signal(struct bns_env *env, int signo, void (*fn)(void *arg, int signo), void *arg)
{
    struct bns_env_uv *e = bns_uv(env);
    struct signal_hook *s = bns_alloc_zero(env->alloc, sizeof *s);

    if (s == NULL)
        return BNS_E_NOMEM;
    s->e = e;
    s->fn = fn;
    s->arg = arg;
    s->handle.data = s;
    BNS_ASSERT(uv_signal_init(&e->loop, &s->handle) == 0);
    bns_list_push(&e->signals, &s->node); /* freed with the env, also after an error */
    return uv_signal_start(&s->handle, on_signal, signo) == 0 ? BNS_OK : BNS_E_INVALID;
}

static void on_signal_closed(uv_handle_t *h)
{
    struct signal_hook *s = h->data;

    bns_free(s->e->env.alloc, s);
}

void bns_env_uv_free(struct bns_env *env)
{
    struct bns_env_uv *e;
    struct bns_list *n;

    if (env == NULL)
        return;
    e = bns_uv(env);
    BNS_ASSERT(!e->running);
    bns_workers_free(e->pool);
    BNS_ASSERT(e->workers == 0);
    BNS_ASSERT(bns_list_empty(&e->listeners));
    bns_tcp_drop_all(e);
    while ((n = bns_list_pop(&e->signals)) != NULL)
        uv_close((uv_handle_t *)&BNS_CONTAINER(n, struct signal_hook, node)->handle,
                 on_signal_closed);
    uv_close((uv_handle_t *)&e->prepare, NULL);
    uv_close((uv_handle_t *)&e->idle, NULL);
    uv_close((uv_handle_t *)&e->timer, NULL);
    uv_close((uv_handle_t *)&e->async, NULL);
    while (uv_run(&e->loop, UV_RUN_DEFAULT) != 0) {
        /* the close callbacks run */
    }
    BNS_ASSERT(uv_loop_close(&e->loop) == 0);
    bns_ring_free(&e->ring);
    bns_heap_free(&e->timers);
    bns_free(env->alloc, e->read_buf);
    bns_free(env->alloc, e);
}
