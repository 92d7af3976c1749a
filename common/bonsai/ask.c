/* ask.c - bonsai probe: asks one running node whether it serves, in its clients' protocol.
 *
 * For health checks of containers and scripts, which have no curl. The question is the one that
 * `bonsai up` waits for: etcd answers /health with 200 after a linearizable read, so "ready" means
 * that a put would work. Exit code 0: ready; 1: it answered something else, or nothing in time.
 */
#include "bonsai/bonsai.h"

#include "io/env_uv.h"
#include "io/http.h"

struct ask {
    struct bns_env *env;
    const struct bns_http_fetch_opts *o;
    int exit_code;
};

static void answered(void *arg, int code, const struct bns_http_answer *a)
{
    struct ask *k = arg;

    k->exit_code = BNS_EXIT_FAILURE;
    if (code != BNS_OK) {
        (void)fprintf(stderr, "bonsai probe: %s port %u: %s\n", k->o->host, (unsigned)k->o->port,
                      code == BNS_E_NOTFOUND  ? "the name has no address"
                      : code == BNS_E_DROPPED ? "nobody answers"
                                              : bns_err_default_text(code));
    } else if (a->status != 200) {
        (void)fprintf(stderr, "bonsai probe: %s port %u answers %d: %.*s\n", k->o->host,
                      (unsigned)k->o->port, a->status, (int)(a->body.len < 200 ? a->body.len : 200),
                      (const char *)a->body.ptr);
    } else {
        (void)printf("ready\n");
        k->exit_code = BNS_EXIT_OK;
    }
    bns_env_uv_stop(k->env);
}

static int ask(const struct bns_http_fetch_opts *o, struct bns_err *err)
{
    struct ask k = {.o = o, .exit_code = BNS_EXIT_FAILURE};
    int rv = bns_env_uv_new(bns_alloc_libc(), NULL, &k.env, err);

    if (rv != BNS_OK)
        return rv;
    rv = bns_http_fetch(k.env, o, answered, &k, NULL, err);
    if (rv == BNS_OK) {
        bns_env_uv_run(k.env);
        rv = k.exit_code;
    }
    bns_env_uv_free(k.env);
    return rv;
}

/* What the flags say must make sense; BNS_E_INVALID. */
static int check(const struct bns_http_fetch_opts *o, uint64_t port, int words, struct bns_err *err)
{
    if (words != 1)
        return bns_err_set(err, BNS_E_INVALID, "name one system, such as etcd-lite");
    if (port == 0 || port > 65535)
        return bns_err_set(err, BNS_E_INVALID, "--port: not in 1..65535");
    if (o->timeout_ns == 0)
        return bns_err_set(err, BNS_E_INVALID, "--timeout: must be positive");
    if (bns_host_kind(o->host) == BNS_HOST_BAD)
        return bns_err_set(err, BNS_E_INVALID, "--host: neither an address nor a name");
    return BNS_OK;
}

int bonsai_ask(int argc, char **argv)
{
    struct bns_http_fetch_opts o = {.host = "127.0.0.1", .timeout_ns = 2 * BNS_SEC};
    uint64_t port = 0;
    const struct bns_cli_flag flags[] = {
        {"host", 0, BNS_VALUE_STR, &o.host, "where the node is (127.0.0.1)", NULL},
        {"port", 'p', BNS_VALUE_U64, &port, "its clients' port (the system's own)", NULL},
        {"timeout", 0, BNS_VALUE_DURATION, &o.timeout_ns, "how long to wait (2s)", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai probe",
                                "bonsai probe SYSTEM [flags]",
                                "Asks a node whether it serves. Exit code 0: it does.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    const struct bonsai_system *sys = NULL;
    struct bns_cli_words words = {0};
    struct bns_err err = {0};
    int rv = bns_cli_parse(&cli, argc, argv, &words, &err);

    if (rv == BNS_OK && bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (rv == BNS_OK && words.count == 1)
        rv = bonsai_system_find(argv[1], &sys, &err);
    if (rv == BNS_OK && sys != NULL && port == 0)
        port = sys->port;
    if (rv == BNS_OK)
        rv = check(&o, sys == NULL ? 1 : port, words.count, &err);
    if (rv == BNS_OK) {
        o.port = (uint16_t)port;
        o.target = sys->probe_path;
        rv = ask(&o, &err);
        if (rv >= 0)
            return rv;
    }
    (void)fprintf(stderr, "bonsai probe: %s\n", err.text);
    return rv == BNS_E_INVALID ? BNS_EXIT_USAGE : BNS_EXIT_FAILURE;
}
