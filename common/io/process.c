/* process.c - child processes on libuv's uv_spawn.
 *
 * libuv makes the child (with every signal reset and every descriptor but the three closed on exec)
 * and reaps it on SIGCHLD. A process object lives from start to free; its memory goes when libuv
 * has let go of the handle, which is a loop turn later (the env's own free runs that turn too).
 */
#include "io/process.h"

#include "io/loop.h"

#include <signal.h>

struct bns_process {
    struct bns_env_uv *e;
    uv_process_t handle;
    bns_process_exit_fn *on_exit;
    void *arg;
    bool ended;
};

static void on_exit_cb(uv_process_t *h, int64_t status, int signo)
{
    struct bns_process *p = h->data;

    bns_loop_enter(p->e);
    BNS_ASSERT(!p->ended);
    p->ended = true;
    if (p->on_exit != NULL)
        p->on_exit(p->arg, signo != 0 ? -signo : (int)status);
}

static void on_closed(uv_handle_t *h)
{
    struct bns_process *p = h->data;

    bns_free(p->e->env.alloc, p);
}

static int code_of(int uv_code)
{
    switch (uv_code) {
    case UV_ENOENT:
        return BNS_E_NOTFOUND;
    case UV_ENOMEM:
        return BNS_E_NOMEM;
    default:
        return BNS_E_IO;
    }
}

int bns_process_start(struct bns_env *env, const struct bns_process_config *cfg,
                      struct bns_process **out, struct bns_err *err)
{
    struct bns_process *p = bns_alloc_zero(env->alloc, sizeof *p);
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = cfg->output < 0 ? 1 : cfg->output},
        {.flags = UV_INHERIT_FD, .data.fd = cfg->output < 0 ? 2 : cfg->output},
    };
    uv_process_options_t opts = {
        .file = cfg->program,
        .args = (char **)(uintptr_t)cfg->argv, /* libuv does not write to it */
        .exit_cb = on_exit_cb,
        .flags = cfg->own_session ? UV_PROCESS_DETACHED : 0,
        .stdio = stdio,
        .stdio_count = 3,
    };
    int rv;

    BNS_ASSERT(cfg->argv != NULL && cfg->argv[0] != NULL);
    if (p == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory to start it", cfg->program);
    p->e = bns_uv(env);
    p->on_exit = cfg->on_exit;
    p->arg = cfg->arg;
    p->handle.data = p;
    rv = uv_spawn(&p->e->loop, &p->handle, &opts);
    if (rv != 0) {
        /* libuv has taken the handle into its lists even then. */
        uv_close((uv_handle_t *)&p->handle, on_closed);
        return bns_err_set(err, code_of(rv), "%s: %s", cfg->program, uv_strerror(rv));
    }
    *out = p;
    return BNS_OK;
}

pid_t bns_process_pid(const struct bns_process *p)
{
    return p->handle.pid;
}

int bns_process_signal(struct bns_process *p, int signo)
{
    int rv = p->ended ? UV_ESRCH : uv_process_kill(&p->handle, signo);

    switch (rv) {
    case 0:
        return BNS_OK;
    case UV_ESRCH:
        return BNS_E_NOTFOUND;
    case UV_EPERM:
        return BNS_E_FORBIDDEN;
    default:
        return BNS_E_INVALID;
    }
}

void bns_process_free(struct bns_process *p)
{
    if (p == NULL)
        return;
    p->on_exit = NULL;
    uv_close((uv_handle_t *)&p->handle, on_closed);
}
