/* main.c - the etcd-lite daemon: options, then the daemon frame around one server. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/daemon.h"
#include "cli.h"
#include "discovery.h"
#include "join.h"
#include "restore.h"
#include "server.h"
#include "store/vfs_ram.h"

struct app {
    struct etcd_options opt;
    struct etcd_server *server;
    struct etcd_join *join;
    struct bns_daemon *daemon;
    struct bns_vfs *ram; /* --storage memory */
    bool useless;        /* the data directory is that of a member removed before this start */
};

static void serving(void *arg)
{
    struct app *a = arg;

    bns_daemon_ready(a->daemon);
}

static void removed(void *arg)
{
    struct app *a = arg;

    a->useless = a->server->was_removed;
    bns_daemon_drain(a->daemon);
}

static int serve(struct app *a, const struct etcd_identity *joins, struct bns_err *err)
{
    struct bns_daemon *d = a->daemon;
    int rv = etcd_server_start(bns_daemon_env(d), &a->opt, joins, &a->server, err);
    uint16_t peer;

    if (rv != BNS_OK)
        return rv;
    bns_daemon_port(d, "client", a->opt.client.host, a->server->client_port);
    peer = bns_raft_node_port(a->server->node);
    if (peer != 0 && (a->opt.members.count > 1 || !a->opt.peer_default))
        bns_daemon_port(d, "peer", a->opt.peer.host, peer);
    if (a->server->metrics_port != 0)
        bns_daemon_port(d, "metrics", "127.0.0.1", a->server->metrics_port);
    a->server->on_removed = removed;
    a->server->on_removed_arg = a;
    a->server->on_serving = serving;
    a->server->on_serving_arg = a;
    if (a->server->serving)
        serving(a);
    return BNS_OK;
}

static void joined(void *arg, int code, const struct etcd_identity *who, const struct bns_err *why)
{
    struct app *a = arg;
    struct bns_err err = *why;

    if (code == BNS_OK)
        code = serve(a, who, &err);
    if (code != BNS_OK)
        bns_fatal(bns_daemon_env(a->daemon), bns_exit_code(code), err.text);
    etcd_join_free(a->join);
    a->join = NULL;
}

/* A member that joins has no identity before the cluster has told it. */
static int start(struct bns_daemon *d, void *arg, struct bns_err *err)
{
    struct app *a = arg;
    struct bns_env *env = bns_daemon_env(d);
    struct etcd_identity is;
    int rv;

    a->daemon = d;
    if (a->opt.memory) {
        a->ram = bns_vfs_ram(bns_alloc_libc(), 0);
        if (a->ram == NULL)
            return bns_err_set(err, BNS_E_NOMEM, "out of memory");
        env->vfs = a->ram;
    }
    rv = etcd_discovery_keep(&a->opt, env->vfs, err);
    if (rv != BNS_OK)
        return rv;
    if (a->opt.joins && etcd_identity_read(env->vfs, a->opt.data_dir, &is, err) == BNS_E_NOTFOUND)
        return etcd_join(env, &a->opt, joined, a, &a->join, err);
    return serve(a, NULL, err);
}

static void drained(void *arg)
{
    struct app *a = arg;

    bns_daemon_stop(a->daemon, a->useless ? BNS_EXIT_CONFIG : BNS_EXIT_OK);
}

static void drain(struct bns_daemon *d, void *arg)
{
    struct app *a = arg;

    (void)d;
    if (a->server != NULL)
        etcd_server_drain(a->server, drained, a);
    else
        drained(a);
}

static void stop(struct bns_daemon *d, void *arg)
{
    struct app *a = arg;

    if (bns_daemon_cut(d))
        return;
    etcd_server_free(a->server);
    bns_vfs_ram_free(a->ram);
}

static bool reload(struct bns_daemon *d, void *arg)
{
    struct app *a = arg;

    (void)d;
    return a->server != NULL && etcd_secure_reload(&a->server->secure);
}

/* Called as etcdctl, or with a verb: behind the flags that verbs have, and servers do not. */
static bool is_cli(const char *called, int argc, char **argv)
{
    if (strcmp(called, "etcdctl") == 0)
        return true;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-')
            return etcd_cli_is_verb(argv[i]) || i > 1; /* a flag of verbs stood before it */
        if (etcd_cli_flag(argv[i]) == 0)
            return false; /* a server's */
        i += etcd_cli_flag(argv[i]) - 1;
    }
    return false;
}

int main(int argc, char **argv)
{
    static const struct bns_daemon_ops ops = {start, drain, stop, reload};
    struct app a = {0};
    struct bns_arena arena;
    const char *called = strrchr(argv[0], '/') == NULL ? argv[0] : strrchr(argv[0], '/') + 1;
    struct bns_daemon_config cfg = {.program = "etcd-lite"};
    struct bns_err err = {0};
    int code = 0;

    if (argc > 2 && strcmp(argv[1], "snapshot") == 0 && /* files, which no server is asked for */
        (strcmp(argv[2], "restore") == 0 || strcmp(argv[2], "status") == 0))
        return etcd_snapshot_main(argc - 1, argv + 1);
    if (is_cli(called, argc, argv))
        return etcd_cli_main(strcmp(called, "etcdctl") == 0 ? called : "etcd-lite", argc, argv);
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    if (etcd_options_read(&a.opt, &arena, argc, argv, environ, &code) == ETCD_RUN) {
        cfg.data_dir = a.opt.memory ? NULL : a.opt.data_dir;
        cfg.ports_file = a.opt.ports_file;
        cfg.log_level = a.opt.level;
        cfg.log_format = a.opt.format;
        if (etcd_log_redirect(&a.opt, &err) == BNS_OK) {
            code = bns_daemon_run(&cfg, &ops, &a);
        } else {
            (void)fprintf(stderr, "etcd-lite: %s\n", err.text); /* stderr may be closed */
            code = BNS_EXIT_CONFIG;
        }
    }
    bns_arena_free(&arena);
    return code;
}
