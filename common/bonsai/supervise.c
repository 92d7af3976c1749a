/* supervise.c - keeps the nodes running. A daemon in the frame of app/daemon.h.
 *
 * A node's life:
 *
 *     STARTING --first good probe--> READY
 *        |  ^                          |
 *      exit |                         exit
 *        v  |                          |
 *      WAITING <-----------------------+      100 ms, doubled at each exit up to 10 s; a node that
 *        |                                    has been ready for 60 s starts again at 100 ms
 *        +--exit code 2, 3, 4--> FAILED       usage, configuration, corruption: a restart cannot
 *                                             help, a person has to look
 *
 * Until every node has been ready once, an exit that a restart cannot mend (also 5: port or
 * directory taken) and a deadline of 30 s end the whole set: `up` either works or says why not.
 * The end: SIGTERM to all, and what the frame's drain limit finds alive is killed.
 */
#include "bonsai/bonsai.h"

#include "app/daemon.h"
#include "bonsai/console.h"
#include "io/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 640
#define PROBE_EVERY_NS (2 * BNS_MS)
#define PROBE_SLOW_NS (50 * BNS_MS) /* from the 100th probe on */
#define PROBE_LIMIT_NS (5 * BNS_SEC)
#define UP_LIMIT_NS (30 * BNS_SEC)
#define BACKOFF_MIN_NS (100 * BNS_MS)
#define BACKOFF_MAX_NS (10 * BNS_SEC)
#define STABLE_NS (60 * BNS_SEC)
#define LOG_BYTES_MAX (16L * 1024 * 1024)

enum phase { STARTING, READY, WAITING, FAILED };
static const char *const phase_names[] = {"starting", "ready", "waiting", "failed"};

struct supervisor;

struct node {
    struct supervisor *s;
    struct bonsai_node is;
    enum phase phase;
    struct bns_process *process; /* NULL when it does not run */
    struct bonsai_probe probe;
    struct bns_timer timer; /* STARTING: next probe or its limit; WAITING: restart */
    uint64_t started_ns, ready_ns, backoff_ns;
    uint64_t ready_ms, restarts, probes;
    bool was_ready;
};

struct supervisor {
    const struct bonsai_opts *o;
    struct bns_daemon *d;
    struct bns_env *env;
    struct bns_timer up_limit;
    struct bonsai_console *console;
    struct node nodes[BONSAI_SYSTEMS_MAX * BONSAI_NODES_MAX];
    size_t count;
    bool up; /* every node has been ready once */
    bool draining;
    int exit_code;
};

static void snapshot(void *arg, struct bonsai_state *out)
{
    const struct supervisor *s = arg;

    *out = (struct bonsai_state){.pid = getpid(), .nodes_count = s->count};
    if (s->console != NULL)
        out->console = bonsai_console_port(s->console);
    for (size_t i = 0; i < s->count; i++) {
        const struct node *n = &s->nodes[i];
        struct bonsai_node_state *st = &out->nodes[i];

        (void)snprintf(st->system, sizeof st->system, "%s", n->is.system->name);
        st->number = n->is.number;
        st->port = n->is.port;
        st->pid = n->process == NULL ? 0 : bns_process_pid(n->process);
        st->started = st->pid == 0 ? 0 : bonsai_pid_started(st->pid);
        st->state = phase_names[n->phase];
        st->ready_ms = n->ready_ms;
        st->restarts = n->restarts;
        if (st->pid != 0)
            st->running_ms = (bns_now_ns(s->env) - n->started_ns) / BNS_MS;
    }
}

static void publish(struct supervisor *s)
{
    struct bonsai_state st;
    struct bns_err err;

    snapshot(s, &st);
    if (bonsai_state_write(s->o->data_dir, &st, &err) != BNS_OK)
        BNS_LOG(s->env->log, BNS_LOG_WARN, "bonsai", "state not written", BNS_STR("why", err.text));
}

static void log_path(const struct node *n, char *dst)
{
    (void)snprintf(dst, PATH_BYTES, "%s/logs/%s-n%u.log", n->s->o->data_dir, n->is.system->name,
                   n->is.number); /* the length of data_dir was checked */
}

/* Opens the node's log for appending; what grew over the bound is kept once, as .old. */
static int log_open(const struct node *n)
{
    char path[PATH_BYTES], old[PATH_BYTES + 8];
    struct stat st;

    log_path(n, path);
    (void)snprintf(old, sizeof old, "%s.old", path);
    if (stat(path, &st) == 0 && st.st_size > LOG_BYTES_MAX)
        (void)rename(path, old); /* else it goes on growing, which the next start sees */
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void when_all_gone(struct supervisor *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->nodes[i].process != NULL)
            return;
    bns_daemon_stop(s->d, s->exit_code);
}

/* The set cannot come up: say why, end what runs. */
static void give_up(struct node *n, int exit_code, const char *why)
{
    struct supervisor *s = n->s;
    char path[PATH_BYTES];

    log_path(n, path);
    (void)fprintf(stderr, "bonsai: %s n%u %s\n", n->is.system->name, n->is.number, why);
    if (bonsai_tail(path, 5, "    ", stderr))
        (void)fprintf(stderr, "bonsai: its log is %s\n", path);
    s->exit_code = exit_code;
    bns_daemon_drain(s->d);
}

static void on_up_limit(void *arg)
{
    struct supervisor *s = arg;

    for (size_t i = 0; i < s->count; i++) {
        if (!s->nodes[i].was_ready) {
            give_up(&s->nodes[i], BNS_EXIT_FAILURE, "did not answer within 30 s");
            return;
        }
    }
}

static void probe_later(struct node *n)
{
    uint64_t pause = n->probes > 100 ? PROBE_SLOW_NS : PROBE_EVERY_NS;

    bns_timer_start(n->s->env, &n->timer, bns_now_ns(n->s->env) + pause);
}

/* From now on nobody listens at the other ends of our stdout and stderr. */
static void let_go(struct supervisor *s)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof path, "%s/logs/bonsai.log", s->o->data_dir);
    if (freopen("/dev/null", "we", stdout) == NULL || freopen(path, "ae", stderr) == NULL)
        bns_fatal(s->env, BNS_EXIT_FAILURE, "cannot let go of stdout and stderr");
}

static void everything_is_up(struct supervisor *s)
{
    struct bonsai_state st;

    s->up = true;
    bns_timer_stop(s->env, &s->up_limit);
    snapshot(s, &st);
    bonsai_table(&st, stdout);
    if (s->o->detach) {
        /* Whoever started us reads up to here: a NUL says that all went well. */
        (void)fputc('\0', stdout);
        (void)fflush(stdout);
        let_go(s);
    } else {
        (void)printf("\nrunning; Ctrl-C stops everything\n");
        (void)fflush(stdout);
    }
}

static void on_probe(void *arg, bool good)
{
    struct node *n = arg;
    struct supervisor *s = n->s;

    if (n->phase != STARTING || s->draining)
        return;
    if (!good) {
        probe_later(n);
        return;
    }
    bns_timer_stop(s->env, &n->timer);
    n->phase = READY;
    n->was_ready = true;
    n->ready_ns = bns_now_ns(s->env);
    n->ready_ms = (n->ready_ns - n->started_ns + BNS_MS / 2) / BNS_MS;
    bonsai_console_event(s->console, &n->is, "ready", "ready in %llu ms",
                         (unsigned long long)n->ready_ms);
    publish(s); /* before anyone is told: what they then ask for is there */
    for (size_t i = 0; i < s->count; i++)
        if (!s->nodes[i].was_ready)
            return;
    if (!s->up)
        everything_is_up(s);
}

static void start_node(struct node *n);

static void on_timer(void *arg)
{
    struct node *n = arg;

    if (n->phase == WAITING) {
        n->restarts++;
        start_node(n);
        publish(n->s);
        return;
    }
    BNS_ASSERT(n->phase == STARTING);
    if (n->probe.stream != NULL) { /* the limit of a probe, or the last life's is still closing */
        bns_stream_reset(n->probe.stream);
        return;
    }
    n->probes++;
    if (bonsai_probe_start(&n->probe, n->is.system->probe_path, n->is.port) != BNS_OK)
        probe_later(n);
    else
        bns_timer_start(n->s->env, &n->timer, bns_now_ns(n->s->env) + PROBE_LIMIT_NS);
}

static void wait_for_restart(struct node *n)
{
    uint64_t now = bns_now_ns(n->s->env);

    if (n->phase == READY && now - n->ready_ns >= STABLE_NS)
        n->backoff_ns = 0;
    n->backoff_ns = n->backoff_ns == 0 ? BACKOFF_MIN_NS : 2 * n->backoff_ns;
    if (n->backoff_ns > BACKOFF_MAX_NS)
        n->backoff_ns = BACKOFF_MAX_NS;
    n->phase = WAITING;
    bns_timer_start(n->s->env, &n->timer, now + n->backoff_ns);
}

static void tell_end(struct node *n, int code)
{
    char what[48], then[48];

    if (code < 0)
        (void)snprintf(what, sizeof what, "killed by signal %d (%s)", -code,
                       sigabbrev_np(-code) == NULL ? "?" : sigabbrev_np(-code));
    else
        (void)snprintf(what, sizeof what, "ended with exit code %d", code);
    if (n->phase == FAILED)
        (void)snprintf(then, sizeof then, "needs a person");
    else
        (void)snprintf(then, sizeof then, "starts again in %llu ms",
                       (unsigned long long)(n->backoff_ns / BNS_MS));
    bonsai_console_event(n->s->console, &n->is, n->phase == FAILED ? "failed" : "ended", "%s; %s",
                         what, then);
}

static void on_exit_cb(void *arg, int code)
{
    struct node *n = arg;
    struct supervisor *s = n->s;
    bool hopeless = code == BNS_EXIT_USAGE || code == BNS_EXIT_CONFIG || code == BNS_EXIT_CORRUPT;

    bns_process_free(n->process);
    n->process = NULL;
    bns_timer_stop(s->env, &n->timer);
    bonsai_probe_cancel(&n->probe);
    if (s->draining) {
        when_all_gone(s);
        return;
    }
    BNS_LOG(s->env->log, BNS_LOG_INFO, "bonsai", "node ended",
            BNS_STR("system", n->is.system->name), BNS_U64("node", n->is.number),
            BNS_I64("code", code));
    if (!s->up && (hopeless || code == BNS_EXIT_BUSY)) {
        char why[64];

        (void)snprintf(why, sizeof why, "ended with exit code %d", code);
        give_up(n, code, why);
        return;
    }
    if (hopeless)
        n->phase = FAILED;
    else
        wait_for_restart(n);
    tell_end(n, code);
    publish(s);
}

static int spawn(struct node *n, struct bns_err *err)
{
    struct supervisor *s = n->s;
    struct bns_arena arena;
    const char *argv[BONSAI_ARGV_MAX];
    char program[PATH_BYTES];
    struct bns_process_config cfg = {
        .program = program, .argv = argv, .own_session = true, .on_exit = on_exit_cb, .arg = n};
    int rv;

    bns_arena_init(&arena, s->env->alloc, 64u * 1024);
    (void)snprintf(program, sizeof program, "%s/%s", s->o->bin_dir, n->is.system->name);
    argv[0] = n->is.system->name;
    rv = n->is.system->argv(s->o, &n->is, &arena, argv, BONSAI_ARGV_MAX);
    if (rv != BNS_OK) {
        (void)bns_err_set(err, rv, "no memory for the flags of %s", n->is.system->name);
        goto done;
    }
    cfg.output = log_open(n);
    if (cfg.output < 0) {
        rv = bns_err_set(err, BNS_E_IO, "log of %s n%u: %s", n->is.system->name, n->is.number,
                         strerror(errno));
        goto done;
    }
    rv = bns_process_start(s->env, &cfg, &n->process, err);
    (void)close(cfg.output); /* the child has its own */

done:
    bns_arena_free(&arena);
    return rv;
}

static void start_node(struct node *n)
{
    struct supervisor *s = n->s;
    struct bns_err err;

    n->started_ns = bns_now_ns(s->env);
    n->probes = 0;
    if (spawn(n, &err) == BNS_OK) {
        n->phase = STARTING;
        bonsai_console_event(s->console, &n->is, "started", "pid %ld",
                             (long)bns_process_pid(n->process));
        probe_later(n);
        return;
    }
    n->phase = WAITING;
    if (!s->up) {
        give_up(n, BNS_EXIT_FAILURE, err.text);
        return;
    }
    BNS_LOG(s->env->log, BNS_LOG_WARN, "bonsai", "node not started", BNS_STR("why", err.text));
    wait_for_restart(n);
}

static uint16_t console_port(const struct bonsai_opts *o)
{
    if (o->console_given)
        return (uint16_t)o->console_port;
    return (uint16_t)(BONSAI_CONSOLE_PORT + o->port_shift);
}

/* ---- the daemon's three calls ---------------------------------------------------------------- */
static int start(struct bns_daemon *d, void *arg, struct bns_err *err)
{
    struct supervisor *s = arg;
    char logs[PATH_BYTES];
    struct bonsai_console_config console = {
        .data_dir = s->o->data_dir,
        .port = console_port(s->o),
        .snapshot = snapshot,
        .arg = s,
    };
    size_t left;
    int rv;

    s->d = d;
    s->env = console.env = bns_daemon_env(d);
    left = bonsai_reap(s->o->data_dir);
    if (left > 0)
        (void)fprintf(stderr, "bonsai: ended %zu nodes that an earlier bonsai left behind\n", left);
    (void)snprintf(logs, sizeof logs, "%s/logs", s->o->data_dir);
    if (mkdir(logs, 0700) != 0 && errno != EEXIST)
        return bns_err_set(err, BNS_E_IO, "%s: %s", logs, strerror(errno));
    bns_timer_init(&s->up_limit, on_up_limit, s);
    bns_timer_start(s->env, &s->up_limit, bns_now_ns(s->env) + UP_LIMIT_NS);
    for (size_t i = 0; i < s->count; i++) {
        struct node *n = &s->nodes[i];

        n->s = s;
        n->probe = (struct bonsai_probe){.env = s->env, .done = on_probe, .arg = n};
        bns_timer_init(&n->timer, on_timer, n);
    }
    rv = bonsai_console_new(&console, &s->console, err);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < s->count && !s->draining; i++)
        start_node(&s->nodes[i]);
    publish(s);
    return BNS_OK;
}

static void drain(struct bns_daemon *d, void *arg)
{
    struct supervisor *s = arg;

    (void)d;
    s->draining = true;
    bns_timer_stop(s->env, &s->up_limit);
    for (size_t i = 0; i < s->count; i++) {
        struct node *n = &s->nodes[i];

        bns_timer_stop(s->env, &n->timer);
        bonsai_probe_cancel(&n->probe);
        if (n->process != NULL && bns_process_signal(n->process, SIGTERM) != BNS_OK)
            BNS_LOG(s->env->log, BNS_LOG_INFO, "bonsai", "node ended before its signal",
                    BNS_U64("node", n->is.number));
    }
    when_all_gone(s);
}

static void stop(struct bns_daemon *d, void *arg)
{
    struct supervisor *s = arg;

    (void)d;
    bonsai_console_free(s->console);
    s->console = NULL;
    for (size_t i = 0; i < s->count; i++) {
        struct node *n = &s->nodes[i];

        bns_timer_stop(s->env, &n->timer);
        bonsai_probe_cancel(&n->probe);
        if (n->process != NULL && bns_process_signal(n->process, SIGKILL) == BNS_OK)
            (void)fprintf(stderr, "bonsai: %s n%u did not stop in time: killed\n",
                          n->is.system->name, n->is.number);
        bns_process_free(n->process);
    }
    bonsai_state_remove(s->o->data_dir);
}

int bonsai_supervise(const struct bonsai_opts *o)
{
    static struct supervisor s; /* too large for a stack; one a process */
    static const struct bns_daemon_ops ops = {.start = start, .drain = drain, .stop = stop};
    const struct bns_daemon_config cfg = {
        .program = "bonsai",
        .data_dir = o->data_dir,
        .log_level = BNS_LOG_INFO,
        .drain_ns = 15 * BNS_SEC,
    };

    s = (struct supervisor){.o = o};
    for (size_t i = 0; i < o->systems_count; i++) {
        for (uint32_t k = 1; k <= o->nodes; k++) {
            s.nodes[s.count++].is = (struct bonsai_node){
                .system = o->systems[i],
                .number = k,
                .count = (uint32_t)o->nodes,
                .port = (uint16_t)(o->systems[i]->port + o->port_shift + 100 * (k - 1)),
            };
        }
    }
    return bns_daemon_run(&cfg, &ops, &s);
}
