/* daemon.c - the frame that every daemon runs in.
 *
 * Order matters in two places. The data directory is locked before anything reads it, and the lock
 * is given back last, after the stores are closed. Signals are caught before READY is printed, so
 * that whoever waits for READY may send SIGTERM at once.
 *
 * What start has begun when it fails, and what a drain that was cut short leaves, may be in the
 * hands of other threads (a log that closes, a store that writes). There the process ends without
 * freeing anything: to the disk that is a crash, which every store survives.
 *
 * The handler of SIGABRT runs in a process that is broken: it calls only what is safe there
 * (backtrace_symbols_fd after a first call of backtrace has loaded the unwinder, write, _exit).
 */
#include "app/daemon.h"

#include "base/alloc.h"
#include "base/metrics.h"
#include "io/env_uv.h"
#include "store/vfs_posix.h"

#include <errno.h>
#include <execinfo.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define LOCK_NAME "LOCK"
#define FRAMES_MAX 64

struct port {
    const char *name;
    const char *host;
    uint16_t port;
};

struct bns_daemon {
    const struct bns_daemon_config *cfg;
    const struct bns_daemon_ops *ops;
    void *arg;
    struct bns_vfs *vfs;
    struct bns_file *lock;
    struct bns_env *env;
    struct bns_log log;
    struct bns_metrics *metrics;
    struct bns_timer drain_limit;
    struct port ports[BNS_DAEMON_PORTS_MAX];
    size_t ports_count;
    bool ready;
    bool draining;
    bool cut; /* the drain was not waited for */
    bool stopped;
    int exit_code;
};

int bns_exit_code(int code)
{
    switch (code) {
    case BNS_OK:
        return BNS_EXIT_OK;
    case BNS_E_INVALID:
        return BNS_EXIT_CONFIG;
    case BNS_E_CORRUPT:
        return BNS_EXIT_CORRUPT;
    case BNS_E_BUSY:
    case BNS_E_ADDRINUSE:
        return BNS_EXIT_BUSY;
    default:
        return BNS_EXIT_FAILURE;
    }
}

static void on_abort(int signo)
{
    static const char text[] = "internal bug; please report the lines above and below\n";
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);

    (void)signo;
    if (write(STDERR_FILENO, text, sizeof text - 1) > 0) /* else nobody can be told */
        backtrace_symbols_fd(frames, count, STDERR_FILENO);
    _exit(BNS_EXIT_BUG);
}

void bns_daemon_catch_abort(void)
{
    struct sigaction sa = {.sa_handler = on_abort};
    void *frame;

    (void)backtrace(&frame, 1); /* loads the unwinder while malloc still works */
    BNS_ASSERT(sigaction(SIGABRT, &sa, NULL) == 0);
}

/* As many descriptors as the system lets us have: one a connection. */
static void raise_file_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0)
        return;
    lim.rlim_cur = lim.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &lim); /* the old limit serves too */
}

/* mkdir of the path and of what is missing above it. */
static int make_dirs(struct bns_vfs *vfs, const char *path, struct bns_err *err)
{
    char part[BNS_PATH_MAX];
    size_t len = strlen(path);
    struct bns_file_stat st;

    if (len == 0 || len >= sizeof part)
        return bns_err_set(err, BNS_E_INVALID, "data directory '%.64s': bad length", path);
    for (size_t i = 1; i <= len; i++) {
        int rv;

        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (bns_vfs_stat(vfs, part, &st, NULL) == BNS_OK && st.is_dir)
            continue; /* of which we need not be the owner */
        rv = bns_vfs_mkdir(vfs, part, err);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

static int lock_dir(struct bns_daemon *d, struct bns_err *err)
{
    char path[BNS_PATH_MAX];
    int rv = make_dirs(d->vfs, d->cfg->data_dir, err);

    if (rv != BNS_OK)
        return rv;
    if (snprintf(path, sizeof path, "%s/" LOCK_NAME, d->cfg->data_dir) >= (int)sizeof path)
        return bns_err_set(err, BNS_E_INVALID, "data directory: the name is too long");
    rv = bns_vfs_lock(d->vfs, path, &d->lock, err);
    if (rv == BNS_E_BUSY)
        bns_err_wrap(err, "data directory in use; stop its owner or choose another --data-dir");
    return rv;
}

static uint64_t drain_ns(const struct bns_daemon *d)
{
    return d->cfg->drain_ns == 0 ? 10 * BNS_SEC : d->cfg->drain_ns;
}

static void on_drain_limit(void *arg)
{
    struct bns_daemon *d = arg;

    BNS_LOG(&d->log, BNS_LOG_WARN, "daemon", "drain took too long, stopping",
            BNS_U64("limit_ms", drain_ns(d) / BNS_MS));
    d->cut = true;
    bns_daemon_stop(d, BNS_EXIT_OK);
}

void bns_daemon_drain(struct bns_daemon *d)
{
    if (d->draining || d->stopped)
        return;
    d->draining = true;
    if (d->ops->drain == NULL) {
        bns_daemon_stop(d, BNS_EXIT_OK);
        return;
    }
    bns_timer_start(d->env, &d->drain_limit, bns_now_ns(d->env) + drain_ns(d));
    d->ops->drain(d, d->arg);
}

static void on_signal(void *arg, int signo)
{
    struct bns_daemon *d = arg;

    if (signo == SIGHUP && !d->draining && d->ops->reload != NULL && d->ops->reload(d, d->arg)) {
        BNS_LOG(&d->log, BNS_LOG_INFO, "daemon", "signal: reading files again",
                BNS_I64("signal", signo));
        return;
    }
    BNS_LOG(&d->log, BNS_LOG_INFO, "daemon", d->draining ? "signal: stopping" : "signal: draining",
            BNS_I64("signal", signo));
    if (!d->draining) {
        bns_daemon_drain(d);
        return;
    }
    if (!d->stopped)
        d->cut = true;
    bns_daemon_stop(d, BNS_EXIT_OK);
}

bool bns_daemon_cut(const struct bns_daemon *d)
{
    return d->cut;
}

void bns_daemon_stop(struct bns_daemon *d, int exit_code)
{
    if (d->stopped)
        return;
    d->stopped = true;
    d->exit_code = exit_code;
    bns_timer_stop(d->env, &d->drain_limit);
    bns_env_uv_stop(d->env);
}

struct bns_env *bns_daemon_env(struct bns_daemon *d)
{
    return d->env;
}

void bns_daemon_port(struct bns_daemon *d, const char *name, const char *host, uint16_t port)
{
    BNS_ASSERT(!d->ready);
    BNS_ASSERT(d->ports_count < BNS_DAEMON_PORTS_MAX);
    d->ports[d->ports_count++] = (struct port){name, host, port};
}

/* Written beside and renamed: a reader sees all of it or none. */
static int write_ports(struct bns_daemon *d, struct bns_err *err)
{
    const char *path = d->cfg->ports_file;
    char tmp[BNS_PATH_MAX];
    FILE *f;
    bool good;

    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return bns_err_set(err, BNS_E_INVALID, "ports file: the name is too long");
    f = fopen(tmp, "we");
    if (f == NULL)
        return bns_err_set(err, BNS_E_IO, "%s: %s", tmp, strerror(errno));
    for (size_t i = 0; i < d->ports_count; i++)
        (void)fprintf(f, "%s %u\n", d->ports[i].name, d->ports[i].port); /* ferror tells */
    good = !ferror(f);
    good = fclose(f) == 0 && good;
    if (!good || rename(tmp, path) != 0)
        return bns_err_set(err, BNS_E_IO, "%s: %s", path, strerror(errno));
    return BNS_OK;
}

void bns_daemon_ready(struct bns_daemon *d)
{
    struct bns_err err;

    BNS_ASSERT(!d->ready);
    d->ready = true;
    if (d->cfg->ports_file != NULL && write_ports(d, &err) != BNS_OK)
        bns_fatal(d->env, BNS_EXIT_FAILURE, err.text);
    (void)printf("READY %s pid=%ld", d->cfg->program, (long)getpid()); /* who listens, may not */
    for (size_t i = 0; i < d->ports_count; i++) {
        const struct port *p = &d->ports[i];
        bool v6 = strchr(p->host, ':') != NULL;

        (void)printf(" %s=%s%s%s:%u", p->name, v6 ? "[" : "", p->host, v6 ? "]" : "", p->port);
    }
    (void)printf("\n");
    (void)fflush(stdout);
}

static int set_up(struct bns_daemon *d, struct bns_err *err)
{
    const struct bns_alloc *alloc = bns_alloc_libc();
    struct sigaction hup;
    int rv;

    d->vfs = bns_vfs_posix(alloc);
    if (d->vfs == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory to start");
    if (d->cfg->data_dir != NULL) {
        rv = lock_dir(d, err);
        if (rv != BNS_OK)
            return rv;
    }
    rv = bns_metrics_new(alloc, &d->metrics);
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "no memory to start");
    rv = bns_env_uv_new(alloc, d->vfs, &d->env, err);
    if (rv != BNS_OK)
        return rv;
    d->env->log = &d->log;
    d->env->metrics = d->metrics;
    bns_timer_init(&d->drain_limit, on_drain_limit, d);
    rv = bns_env_uv_signal(d->env, SIGTERM, on_signal, d);
    if (rv == BNS_OK)
        rv = bns_env_uv_signal(d->env, SIGINT, on_signal, d);
    if (rv == BNS_OK && sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
        rv = bns_env_uv_signal(d->env, SIGHUP, on_signal, d); /* not under nohup */
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "cannot catch SIGTERM, SIGINT and SIGHUP");
    return BNS_OK;
}

_Noreturn static void leave(int exit_code)
{
    (void)fflush(stdout); /* who listens, may not */
    _exit(exit_code);
}

int bns_daemon_run(const struct bns_daemon_config *cfg, const struct bns_daemon_ops *ops, void *arg)
{
    struct bns_daemon d = {.cfg = cfg, .ops = ops, .arg = arg};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct bns_err err = {0};
    bool started;
    int rv;

    bns_daemon_catch_abort();
    BNS_ASSERT(sigaction(SIGPIPE, &ignore, NULL) == 0);
    raise_file_limit();
    bns_log_stderr(&d.log);
    d.log.level = cfg->log_level;
    d.log.format = cfg->log_format;

    rv = set_up(&d, &err);
    started = rv == BNS_OK;
    if (started)
        rv = ops->start(&d, arg, &err);
    if (rv == BNS_OK) {
        if (!d.stopped)
            bns_env_uv_run(d.env);
        if (ops->stop != NULL)
            ops->stop(&d, arg);
        if (d.cut)
            leave(d.exit_code);
    } else {
        (void)fprintf(stderr, "%s: %s\n", cfg->program,
                      err.text[0] == '\0' ? bns_err_default_text(rv) : err.text);
        d.exit_code = bns_exit_code(rv);
        if (started)
            leave(d.exit_code);
    }
    bns_env_uv_free(d.env);
    bns_metrics_free(d.metrics);
    bns_file_close(d.lock);
    bns_vfs_posix_free(d.vfs);
    return d.exit_code;
}
