/* main.c - the kafka-lite daemon: options, then the daemon frame around one broker. */
#include <stdio.h>
#include <unistd.h>

#include "app/admin.h"
#include "options.h"

struct app {
    struct kafka_options opt;
    struct kafka_broker *broker;
    struct bns_daemon *daemon;
    struct bns_http_server *http;
    struct bns_admin admin;
    uint16_t admin_port;
};

static const char *not_ready(void *arg)
{
    struct app *a = arg;

    return kafka_broker_not_ready(a->broker);
}

static void serving(void *arg)
{
    struct app *a = arg;
    struct kafka_broker *b = a->broker;

    for (size_t i = 0; i < b->cfg.listeners_count; i++)
        bns_daemon_port(a->daemon, i == 0 ? "client" : b->cfg.listeners[i].name,
                        b->cfg.listeners[i].host, b->cfg.listeners[i].port);
    if (a->admin_port != 0)
        bns_daemon_port(a->daemon, "admin", a->opt.admin_host, a->admin_port);
    /* The words that helpers of container tests wait for. */
    BNS_LOG(bns_daemon_env(a->daemon)->log, BNS_LOG_INFO, "kafka",
            "Transitioning from RECOVERY to RUNNING", BNS_I64("node", b->cfg.node_id),
            BNS_STR("cluster", b->cluster_text),
            BNS_STR("flush", b->cfg.flush == KAFKA_FLUSH_OS ? "os: acknowledged when written"
                                                            : "group: acknowledged when durable"));
    bns_daemon_ready(a->daemon);
}

static void failed(void *arg, int code, const struct bns_err *err)
{
    struct app *a = arg;

    bns_fatal(bns_daemon_env(a->daemon), bns_exit_code(code), err->text);
}

static int start_admin(struct app *a, struct bns_env *env, struct bns_err *err)
{
    int rv;

    if (!a->opt.admin)
        return BNS_OK;
    rv = bns_http_server_new(env, NULL, &a->http);
    a->admin = (struct bns_admin){.env = env, .not_ready = not_ready, .arg = a};
    if (rv == BNS_OK)
        rv = bns_admin_routes(&a->admin, a->http);
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "no memory for the admin port");
    return bns_http_server_listen(a->http, a->opt.admin_host, (uint16_t)a->opt.admin_port,
                                  &a->admin_port, err);
}

static int start(struct bns_daemon *d, void *arg, struct bns_err *err)
{
    struct app *a = arg;
    struct bns_env *env = bns_daemon_env(d);
    int rv = start_admin(a, env, err);

    a->daemon = d;
    a->opt.broker.on_serving = serving;
    a->opt.broker.on_failed = failed;
    a->opt.broker.arg = a;
    return rv == BNS_OK ? kafka_broker_start(env, &a->opt.broker, &a->broker, err) : rv;
}

static void drained(void *arg)
{
    struct app *a = arg;

    bns_daemon_stop(a->daemon, BNS_EXIT_OK);
}

static void drain(struct bns_daemon *d, void *arg)
{
    struct app *a = arg;

    (void)d;
    kafka_broker_drain(a->broker, drained, a);
}

static void stop(struct bns_daemon *d, void *arg)
{
    struct app *a = arg;

    if (bns_daemon_cut(d))
        return;
    kafka_broker_free(a->broker);
    bns_http_server_free(a->http);
}

int main(int argc, char **argv)
{
    static const struct bns_daemon_ops ops = {start, drain, stop, NULL};
    struct app a = {0};
    struct bns_arena arena;
    struct bns_daemon_config cfg = {.program = "kafka-lite"};
    int code = 0;

    bns_arena_init(&arena, bns_alloc_libc(), 8u * 1024 * 1024);
    if (kafka_options_read(&a.opt, &arena, argc, argv, environ, &code)) {
        cfg.data_dir = a.opt.data_dir;
        cfg.ports_file = a.opt.ports_file;
        cfg.log_level = a.opt.level;
        cfg.log_format = a.opt.format;
        code = bns_daemon_run(&cfg, &ops, &a);
    }
    bns_arena_free(&arena);
    return code;
}
