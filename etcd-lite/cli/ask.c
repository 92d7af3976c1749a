/* ask.c - one call, waited for; how errors are said. */
#include "cli.h"

#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "io/env_uv.h"
#include "io/tls.h"
#include "store/vfs_posix.h"

#define STDIN_MAX (128u * 1024 * 1024)

struct ctl_kept { /* an answer */
    struct ctl_kept *next;
    struct bns_arena arena;
};

int ctl_fail(int code, const char *fmt, ...)
{
    va_list ap;

    (void)fflush(stdout); /* what came before the error stands before it */
    (void)fputs("Error: ", stderr);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap); /* a closed terminal is nobody's loss */
    va_end(ap);
    (void)fputc('\n', stderr);
    return code;
}

char *ctl_print(struct ctl *c, const char *fmt, ...)
{
    va_list ap;
    char *text = NULL, *kept;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    BNS_ASSERT(n >= 0);
    kept = bns_arena_dup(&c->arena, text, (size_t)n);
    free(text);
    BNS_ASSERT(kept != NULL); /* the arena has no bound, and the process ends when memory does */
    return kept;
}

struct ctl_scratch ctl_scratch(struct ctl *c)
{
    struct ctl_scratch s = {c->arena, c->kept};

    bns_arena_init(&c->arena, bns_alloc_libc(), SIZE_MAX);
    return s;
}

void ctl_scratch_end(struct ctl *c, struct ctl_scratch s)
{
    for (; c->kept != s.kept; c->kept = c->kept->next)
        bns_arena_free(&c->kept->arena);
    bns_arena_free(&c->arena);
    c->arena = s.arena;
}

/* ---- the client ------------------------------------------------------------------------------ */

static bool wants_tls(const struct ctl *c, const char *const *endpoints, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(endpoints[i], "https://", 8) == 0)
            return true;
    }
    return c->f.cacert[0] != '\0' || c->f.cert[0] != '\0' || c->f.skip_verify ||
           !c->f.insecure_transport;
}

static const char *or_null(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

static int make_tls(struct ctl *c)
{
    const struct bns_tls_config cfg = {.name = "client",
                                       .dial = true,
                                       .client_cert_file = or_null(c->f.cert),
                                       .client_key_file = or_null(c->f.key),
                                       .ca_file = or_null(c->f.cacert),
                                       .skip_verify = c->f.skip_verify};
    const char *const files[] = {c->f.cacert, c->f.cert, c->f.key};
    struct bns_err err = {0};

    if ((c->f.cert[0] == '\0') != (c->f.key[0] == '\0'))
        return ctl_fail(CTL_ARGS, "KeyFile and CertFile must both be present[key: %s, cert: %s]",
                        c->f.key, c->f.cert);
    for (size_t i = 0; i < 3; i++) {
        if (files[i][0] != '\0' && access(files[i], R_OK) != 0)
            return ctl_fail(CTL_ARGS, "open %s: no such file or directory", files[i]);
    }
    if (bns_tls_new(c->env, &cfg, &c->tls, &err) != BNS_OK)
        return ctl_fail(CTL_ARGS, "%s", err.text);
    return CTL_OK;
}

/* "user:password", or a user whose password is asked for. */
static int read_user(struct ctl *c, struct bns_etcd_options *o)
{
    const char *colon = strchr(c->f.user, ':');

    if (c->f.user[0] == '\0')
        return CTL_OK;
    if (c->f.password[0] != '\0') {
        o->user = c->f.user;
        o->password = c->f.password;
        return CTL_OK;
    }
    if (colon == NULL) {
        o->user = c->f.user;
        o->password = ctl_password(c, "Password: ");
        c->f.password = o->password == NULL ? "" : o->password; /* asked once */
        return o->password != NULL ? CTL_OK : ctl_fail(CTL_ERROR, "EOF");
    }
    o->user = bns_arena_dup(&c->arena, c->f.user, (size_t)(colon - c->f.user));
    o->password = colon + 1;
    if (o->user == NULL || o->user[0] == '\0')
        return ctl_fail(CTL_ARGS, "empty user name is not allowed");
    return CTL_OK;
}

int ctl_prepare(struct ctl *c)
{
    struct bns_err err = {0};

    if (c->env != NULL)
        return CTL_OK;
    c->vfs = bns_vfs_posix(bns_alloc_libc());
    if (c->vfs == NULL || bns_env_uv_new(bns_alloc_libc(), c->vfs, &c->env, &err) != BNS_OK)
        return ctl_fail(CTL_ERROR, "%s", err.text);
    return CTL_OK;
}

struct bns_etcd *ctl_client(struct ctl *c, const char *const *endpoints, size_t count)
{
    struct bns_etcd_options o = {.endpoints = endpoints,
                                 .endpoints_count = count,
                                 .dial_timeout_ns = (uint64_t)c->f.dial_timeout_ns,
                                 .call_timeout_ns = (uint64_t)c->f.command_timeout_ns,
                                 .server_name =
                                     c->f.insecure_discovery ? NULL : or_null(c->f.discovery),
                                 .first_endpoint = true};
    struct bns_etcd *etcd = NULL;
    struct bns_err err = {0};

    if (ctl_prepare(c) != CTL_OK || read_user(c, &o) != CTL_OK)
        return NULL;
    if (wants_tls(c, endpoints, count) && c->tls == NULL && make_tls(c) != CTL_OK)
        return NULL;
    o.tls = wants_tls(c, endpoints, count) ? c->tls : NULL;
    if (bns_etcd_new(c->env, &o, &etcd, &err) != BNS_OK) {
        (void)ctl_fail(CTL_ARGS, "%s", err.text);
        return NULL;
    }
    return etcd;
}

int ctl_connect(struct ctl *c)
{
    if (c->etcd == NULL)
        c->etcd = ctl_client(c, c->f.endpoints, c->f.endpoints_count);
    return c->etcd == NULL ? CTL_ARGS : CTL_OK;
}

static void stop(struct bns_task *t)
{
    bns_env_uv_stop(BNS_CONTAINER(t, struct ctl, last)->env);
}

void ctl_done(struct ctl *c)
{
    bns_etcd_free(c->etcd);
    if (c->env != NULL) { /* clients have posted what lets go of the last of them */
        c->last.fn = stop;
        bns_post(c->env, &c->last);
        bns_env_uv_run(c->env);
    }
    bns_tls_free(c->tls);
    bns_env_uv_free(c->env);
    bns_vfs_posix_free(c->vfs);
    for (; c->kept != NULL; c->kept = c->kept->next)
        bns_arena_free(&c->kept->arena);
    bns_arena_free(&c->arena);
}

/* ---- calls ----------------------------------------------------------------------------------- */

struct waiting {
    struct ctl *c;
    struct ctl_reply reply;
    bool over;
};

static void answered(void *arg, const struct bns_etcd_answer *a)
{
    struct waiting *w = arg;

    w->reply.status = a->status;
    w->reply.text = ctl_print(w->c, "%s", a->text);
    if (a->msg != NULL) { /* its memory is kept until the process ends */
        struct ctl_kept *k = bns_arena_alloc(&w->c->arena, sizeof *k);

        BNS_ASSERT(k != NULL);
        *k = (struct ctl_kept){w->c->kept, *a->arena};
        w->c->kept = k;
        w->reply.msg = (void *)(uintptr_t)a->msg;
        bns_arena_init(a->arena, bns_alloc_libc(), 0);
    }
    w->over = true;
    bns_env_uv_stop(w->c->env);
}

struct ctl_reply ctl_ask_at(struct ctl *c, struct bns_etcd *etcd, enum bns_etcd_method m,
                            const ProtobufCMessage *request)
{
    const struct bns_etcd_call_options o = {
        .method = m, .request = request, .session = c->session.revision > 0 ? &c->session : NULL};
    struct waiting w = {.c = c};

    if (bns_etcd_call(etcd, &o, answered, &w, NULL) != BNS_OK) {
        w.reply.status = BNS_GRPC_RESOURCE_EXHAUSTED;
        w.reply.text = "out of memory";
        return w.reply;
    }
    while (!w.over) /* others stop the loop, too: a signal, a lease that is lost */
        bns_env_uv_run(c->env);
    return w.reply;
}

static const char *const status_names[] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

const char *ctl_error_text(struct ctl *c, int status, const char *text)
{
    if (strncmp(text, "etcdserver: ", 12) == 0 || status == BNS_GRPC_DEADLINE_EXCEEDED)
        return status == BNS_GRPC_DEADLINE_EXCEEDED ? "context deadline exceeded" : text;
    return ctl_print(c, "rpc error: code = %s desc = %s",
                     status_names[status >= 0 && status <= 16 ? status : 2], text);
}

int ctl_reply_fail(struct ctl *c, int status, const char *text)
{
    bool credentials = strstr(text, "authentication failed, invalid user ID") != NULL;

    return ctl_fail(credentials ? CTL_CONNECTION : CTL_ERROR, "%s",
                    ctl_error_text(c, status, text));
}

int ctl_ask(struct ctl *c, enum bns_etcd_method m, const ProtobufCMessage *request, void *msg)
{
    struct ctl_reply r;

    if (ctl_connect(c) != CTL_OK)
        return CTL_ARGS;
    r = ctl_ask_at(c, c->etcd, m, request);
    if (r.status != BNS_GRPC_OK)
        return ctl_reply_fail(c, r.status, r.text);
    *(void **)msg = r.msg;
    return CTL_OK;
}

int ctl_format(struct ctl *c, bool table)
{
    static const char *const names[] = {"simple", "json", "fields", "table", "protobuf"};

    for (size_t i = 0; i < 5; i++) {
        if (strcmp(c->f.write_out, names[i]) == 0) {
            c->out = (enum ctl_out)i;
            if (c->out == CTL_TABLE && !table)
                return ctl_fail(CTL_FEATURE, "table not supported as output format");
            return CTL_OK;
        }
    }
    return ctl_fail(CTL_FEATURE, "unsupported output format");
}

int ctl_format_status(struct ctl *c)
{
    int code = ctl_format(c, true);

    if (code == CTL_OK && c->out == CTL_PROTOBUF)
        return ctl_fail(CTL_FEATURE, "protobuf not supported as output format");
    return code;
}

/* ---- what is typed --------------------------------------------------------------------------- */

const char *ctl_stdin(struct ctl *c, bool line)
{
    struct bns_buf b;
    const char *text = NULL;
    char ch;

    bns_buf_init(&b, bns_alloc_libc(), STDIN_MAX);
    while (read(STDIN_FILENO, &ch, 1) == 1) {
        if (line && ch == '\n') {
            text = "";
            break;
        }
        if (bns_buf_byte(&b, (uint8_t)ch) != BNS_OK)
            break;
    }
    if (b.len > 0 || text != NULL)
        text = bns_arena_dup(&c->arena, b.ptr == NULL ? (const void *)"" : b.ptr, b.len);
    bns_buf_free(&b);
    return text;
}

const char *ctl_password(struct ctl *c, const char *prompt)
{
    struct termios was, quiet;
    bool tty = tcgetattr(STDIN_FILENO, &was) == 0;
    const char *text;

    (void)fputs(prompt, stdout);
    (void)fflush(stdout);
    if (tty) {
        quiet = was;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet); /* then it is seen: no harm to us */
    }
    text = ctl_stdin(c, true);
    if (tty) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &was);
    }
    (void)fputc('\n', stdout);
    return text;
}

/* ---- other programs -------------------------------------------------------------------------- */

static bool start(struct ctl *c, char *const *argv, char *const *more, pid_t *pid)
{
    size_t own = 0, extra = 0;
    char **envp;

    while (environ[own] != NULL)
        own++;
    while (more[extra] != NULL)
        extra++;
    envp = bns_arena_alloc(&c->arena, (own + extra + 1) * sizeof *envp);
    BNS_ASSERT(envp != NULL);
    memcpy(envp, more, extra * sizeof *envp); /* the first one of a name counts */
    memcpy(envp + extra, environ, (own + 1) * sizeof *envp);
    (void)fflush(stdout); /* what we have said stands before what it says */
    return posix_spawnp(pid, argv[0], NULL, NULL, argv, envp) == 0;
}

static int wait_for(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1 - WTERMSIG(status);
}

const char *ctl_run_text(struct ctl *c, char *const *argv, int code)
{
    char *text;

    if (code == -1 && strchr(argv[0], '/') != NULL)
        return ctl_print(c, "fork/exec %s: no such file or directory", argv[0]);
    if (code == -1)
        return ctl_print(c, "exec: \"%s\": executable file not found in $PATH", argv[0]);
    if (code >= 0)
        return ctl_print(c, "exit status %d", code);
    text = ctl_print(c, "signal: %s", strsignal(-1 - code));
    text[8] = (char)(text[8] | 0x20); /* lower case */
    return text;
}

int ctl_run(struct ctl *c, char *const *argv, char *const *more)
{
    pid_t pid;

    return start(c, argv, more, &pid) ? wait_for(pid) : -1;
}

struct child {
    struct bns_job job;
    struct ctl *c;
    pid_t pid;
    int status;
    bool over;
};

static void child_run(struct bns_job *j)
{
    struct child *k = BNS_CONTAINER(j, struct child, job);

    k->status = wait_for(k->pid);
}

static void child_done(struct bns_job *j)
{
    struct child *k = BNS_CONTAINER(j, struct child, job);

    k->over = true;
    bns_env_uv_stop(k->c->env);
}

int ctl_run_kept(struct ctl *c, char *const *argv, char *const *more)
{
    struct child k = {.job = {.run = child_run, .done = child_done}, .c = c};

    if (!start(c, argv, more, &k.pid))
        return -1;
    bns_pool_submit(c->env, &k.job);
    while (!k.over)
        bns_env_uv_run(c->env); /* others may stop it, too */
    return k.status;
}
