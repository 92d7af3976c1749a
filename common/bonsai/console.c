/* console.c - the HTTP side of the console: who may ask, one fan-out for all who wait, answers.
 *
 * /api/nodes and /metrics need the nodes' own numbers. The first that asks starts a fan-out; who
 * comes while it is under way gets its result too, so that ten open pages cost the nodes no more
 * than one. Nothing is asked when nobody looks. The states of the processes are taken at the moment
 * of the answer: a node that died meanwhile is shown as dead.
 */
#include "bonsai/console.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#define CONNECTIONS_MAX 64
#define SCRAPE_NS (400 * BNS_MS)
#define METRICS_BYTES_MAX (64u * 1024 * 1024)

enum wanted { WANT_NODES, WANT_METRICS };

struct bonsai_console {
    struct bonsai_console_config cfg;
    struct bns_env *env;
    struct bns_http_server *server;
    uint16_t port;
    struct bns_federate *fanout; /* NULL when none is under way */
    struct bns_buf own;          /* our own metrics, the last target */
    struct bonsai_state state;
    struct {
        struct bns_http_req *q;
        enum wanted what;
    } waiters[CONNECTIONS_MAX];
    size_t waiters_count;
    struct bonsai_event events[BONSAI_EVENTS_MAX];
    uint64_t events_last;
    struct bns_http_route routes[6];
};

/* ---- who may ask ----------------------------------------------------------------------------- */
static bool host_is_loopback(const struct bns_http_req *q)
{
    static const char *const good[] = {"127.0.0.1", "localhost", "[::1]"};
    struct bns_slice host;

    if (!bns_http_header(q, "host", &host))
        return false;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t n = strlen(good[i]);

        if (host.len >= n && memcmp(host.ptr, good[i], n) == 0 &&
            (host.len == n || host.ptr[n] == ':'))
            return true;
    }
    return false;
}

/* False: answered. Sets the headers that every answer has. */
static bool admit(struct bns_http_req *q)
{
    static const struct {
        const char *name, *value;
    } headers[] = {
        {"cache-control", "no-store"},
        {"x-content-type-options", "nosniff"},
        {"x-frame-options", "DENY"},
        {"referrer-policy", "no-referrer"},
        {"content-security-policy",
         "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
         "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"},
    };

    if (!host_is_loopback(q)) {
        bns_http_reply_text(q, 403,
                            "the Host header has to name loopback: open this page as "
                            "http://127.0.0.1 or http://localhost\n");
        return false;
    }
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        if (bns_http_set_header(q, headers[i].name, bns_slice_str(headers[i].value)) != BNS_OK) {
            bns_http_reply_text(q, 503, "out of memory\n");
            return false;
        }
    }
    return true;
}

/* ---- answers --------------------------------------------------------------------------------- */
/* Takes the reference. */
static void reply_json(struct bns_http_req *q, json_t *json)
{
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);

    json_decref(json);
    if (text == NULL) {
        bns_http_reply_text(q, 503, "out of memory\n");
        return;
    }
    bns_http_reply(q, 200, "application/json", bns_slice_str(text));
    free(text);
}

static void reply_nodes(struct bonsai_console *c, struct bns_http_req *q)
{
    struct bonsai_view v = {
        .state = &c->state,
        .metrics = c->fanout,
        .data_dir = c->cfg.data_dir,
        .now_ms = bns_wall_ms(c->env),
        .events = c->events,
        .events_last = c->events_last,
    };

    reply_json(q, bonsai_console_nodes(&v));
}

static void reply_metrics(struct bonsai_console *c, struct bns_http_req *q)
{
    struct bns_buf text;
    int rv;

    bns_buf_init(&text, c->env->alloc, METRICS_BYTES_MAX);
    rv = bns_federate_text(c->fanout, &text);
    if (rv == BNS_OK)
        bns_http_reply(q, 200, "text/plain; version=0.0.4; charset=utf-8", bns_buf_slice(&text));
    else
        bns_http_reply_text(q, bns_err_http(rv), bns_err_default_text(rv));
    bns_buf_free(&text);
}

static void on_fanout(void *arg)
{
    struct bonsai_console *c = arg;

    c->cfg.snapshot(c->cfg.arg, &c->state);
    for (size_t i = 0; i < c->waiters_count; i++) {
        if (c->waiters[i].what == WANT_NODES)
            reply_nodes(c, c->waiters[i].q);
        else
            reply_metrics(c, c->waiters[i].q);
    }
    c->waiters_count = 0;
    bns_federate_free(c->fanout);
    c->fanout = NULL;
}

/* ---- the fan-out ----------------------------------------------------------------------------- */
static int start_fanout(struct bonsai_console *c)
{
    struct bns_federate_target targets[BONSAI_SYSTEMS_MAX * BONSAI_NODES_MAX + 1];
    struct bns_federate_opts o = {.targets = targets, .deadline_ns = SCRAPE_NS};
    struct bns_federate_target *own;
    int rv;

    c->cfg.snapshot(c->cfg.arg, &c->state);
    for (size_t i = 0; i < c->state.nodes_count; i++) {
        const struct bonsai_node_state *n = &c->state.nodes[i];
        struct bns_federate_target *t = &targets[o.targets_count++];

        *t = (struct bns_federate_target){.port = n->pid == 0 ? 0 : n->port};
        (void)snprintf(t->system, sizeof t->system, "%s", n->system);
        (void)snprintf(t->node, sizeof t->node, "n%u", n->number);
    }
    bns_buf_clear(&c->own);
    rv = bns_metrics_text(c->env->metrics, &c->own);
    if (rv != BNS_OK)
        return rv;
    own = &targets[o.targets_count++];
    *own = (struct bns_federate_target){.text = bns_buf_slice(&c->own)};
    (void)snprintf(own->system, sizeof own->system, "bonsai");
    (void)snprintf(own->node, sizeof own->node, "supervisor");
    return bns_federate_start(c->env, &o, on_fanout, c, &c->fanout);
}

static void wait_for_fanout(struct bonsai_console *c, struct bns_http_req *q, enum wanted what)
{
    int rv = BNS_OK;

    if (!admit(q))
        return;
    if (c->waiters_count == CONNECTIONS_MAX) { /* of connections that were lost meanwhile */
        bns_http_reply_text(q, 503, "too many requests at once\n");
        return;
    }
    if (c->fanout == NULL)
        rv = start_fanout(c);
    if (rv != BNS_OK) {
        bns_http_reply_text(q, bns_err_http(rv), bns_err_default_text(rv));
        return;
    }
    c->waiters[c->waiters_count].q = q;
    c->waiters[c->waiters_count++].what = what;
}

static void on_nodes(void *arg, struct bns_http_req *q)
{
    wait_for_fanout(arg, q, WANT_NODES);
}

static void on_metrics(void *arg, struct bns_http_req *q)
{
    wait_for_fanout(arg, q, WANT_METRICS);
}

/* ---- what needs no fan-out ------------------------------------------------------------------- */
static void reply_page(struct bns_http_req *q, struct bns_slice page)
{
    if (!admit(q))
        return;
    if (bns_http_set_header(q, "content-type", BNS_LIT("text/html; charset=utf-8")) != BNS_OK)
        bns_http_reply_text(q, 503, "out of memory\n");
    else
        bns_http_reply_slices(q, 200, &page, 1, NULL, NULL);
}

static void on_page(void *arg, struct bns_http_req *q)
{
    (void)arg;
    reply_page(q, bonsai_console_page());
}

static void on_trace(void *arg, struct bns_http_req *q)
{
    (void)arg;
    reply_page(q, bonsai_trace_view_page());
}

static void on_health(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply_text(q, 200, "ok\n");
}

/* A log is named by its node, or "bonsai" for the supervisor's; nothing else is a name. */
static bool known_log(struct bonsai_console *c, const char *name)
{
    char id[32];

    if (strcmp(name, "bonsai") == 0)
        return true;
    c->cfg.snapshot(c->cfg.arg, &c->state);
    for (size_t i = 0; i < c->state.nodes_count; i++) {
        (void)snprintf(id, sizeof id, "%s-n%u", c->state.nodes[i].system, c->state.nodes[i].number);
        if (strcmp(name, id) == 0)
            return true;
    }
    return false;
}

/* Reads a parameter into dst as a string. BNS_E_NOTFOUND: absent. */
static int param(const struct bns_http_req *q, const struct bns_alloc *a, const char *name,
                 char *dst, size_t cap)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, a, cap - 1);
    rv = bns_http_param(q, name, &b);
    if (rv == BNS_OK && b.len > 0)
        memcpy(dst, b.ptr, b.len);
    dst[rv == BNS_OK ? b.len : 0] = '\0';
    bns_buf_free(&b);
    return rv;
}

static void on_logs(void *arg, struct bns_http_req *q)
{
    struct bonsai_console *c = arg;
    char node[32], after[24];
    uint64_t offset = UINT64_MAX;
    int rv;

    if (!admit(q))
        return;
    if (param(q, c->env->alloc, "node", node, sizeof node) != BNS_OK || !known_log(c, node)) {
        bns_http_reply_text(q, 404, "no such log; ?node= takes an id of /api/nodes, or bonsai\n");
        return;
    }
    rv = param(q, c->env->alloc, "after", after, sizeof after);
    if (rv == BNS_OK)
        rv = bns_value_set(BNS_VALUE_U64, &offset, after, NULL);
    if ((rv != BNS_OK && rv != BNS_E_NOTFOUND) || (rv == BNS_OK && offset > INT64_MAX)) {
        bns_http_reply_text(q, 400, "?after= takes an offset in bytes\n");
        return;
    }
    reply_json(q, bonsai_console_logs(c->cfg.data_dir, node, offset));
}

/* ---- life ------------------------------------------------------------------------------------ */
int bonsai_console_new(const struct bonsai_console_config *cfg, struct bonsai_console **out,
                       struct bns_err *err)
{
    static const struct bns_http_config http = {.connections_max = CONNECTIONS_MAX};
    struct bonsai_console *c = bns_alloc_zero(cfg->env->alloc, sizeof *c);
    int rv;

    if (c == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for the console");
    c->cfg = *cfg;
    c->env = cfg->env;
    bns_buf_init(&c->own, c->env->alloc, METRICS_BYTES_MAX);
    c->routes[0] = (struct bns_http_route){"GET", "/", on_page, c, 0, false, false};
    c->routes[1] = (struct bns_http_route){"GET", "/api/nodes", on_nodes, c, 0, false, false};
    c->routes[2] = (struct bns_http_route){"GET", "/api/logs", on_logs, c, 0, false, false};
    c->routes[3] = (struct bns_http_route){"GET", "/metrics", on_metrics, c, 0, false, false};
    c->routes[4] = (struct bns_http_route){"GET", "/healthz", on_health, c, 0, false, false};
    c->routes[5] = (struct bns_http_route){"GET", "/trace", on_trace, c, 0, false, false};
    rv = bns_http_server_new(c->env, &http, &c->server);
    if (rv == BNS_OK)
        rv = bns_http_server_routes(c->server, c->routes, 6);
    if (rv != BNS_OK) {
        (void)bns_err_set(err, rv, "no memory for the console");
        goto fail;
    }
    rv = bns_http_server_listen(c->server, "127.0.0.1", cfg->port, &c->port, err);
    if (rv == BNS_E_ADDRINUSE)
        (void)bns_err_set(err, rv,
                          "console: port %u is taken; choose another with --console-port, 0 for "
                          "any free one",
                          cfg->port);
    if (rv != BNS_OK)
        goto fail;
    *out = c;
    return BNS_OK;

fail:
    bonsai_console_free(c);
    return rv;
}

uint16_t bonsai_console_port(const struct bonsai_console *c)
{
    return c->port;
}

void bonsai_console_free(struct bonsai_console *c)
{
    if (c == NULL)
        return;
    bns_http_server_free(c->server);
    for (size_t i = 0; i < c->waiters_count; i++)
        bns_http_reply_text(c->waiters[i].q, 503, "bonsai is going down\n"); /* nobody hears it */
    bns_federate_free(c->fanout);
    bns_buf_free(&c->own);
    bns_free(c->env->alloc, c);
}

void bonsai_console_event(struct bonsai_console *c, const struct bonsai_node *n, const char *kind,
                          const char *fmt, ...)
{
    struct bonsai_event *e;
    va_list ap;

    if (c == NULL)
        return;
    e = &c->events[c->events_last % BONSAI_EVENTS_MAX];
    *e = (struct bonsai_event){.id = ++c->events_last, .at_ms = bns_wall_ms(c->env), .kind = kind};
    (void)snprintf(e->node, sizeof e->node, "%s-n%u", n->system->name, n->number);
    va_start(ap, fmt);
    (void)vsnprintf(e->text, sizeof e->text, fmt, ap); /* may be cut */
    va_end(ap);
}
