/* admin.c - /metrics, /healthz, /readyz on an HTTP server.
 *
 * Health and readiness differ on purpose: a supervisor restarts what is not healthy, a load
 * balancer only stops sending to what is not ready. A node without a quorum is healthy, and not
 * ready.
 */
#include "app/admin.h"

#define METRICS_BYTES_MAX (4u * 1024 * 1024)

static void on_metrics(void *arg, struct bns_http_req *q)
{
    struct bns_admin *a = arg;
    struct bns_buf text;
    int rv;

    if (a->env->metrics == NULL) {
        bns_http_reply_text(q, 404, "this node keeps no metrics\n");
        return;
    }
    bns_buf_init(&text, a->env->alloc, METRICS_BYTES_MAX);
    rv = bns_metrics_text(a->env->metrics, &text);
    if (rv == BNS_OK)
        bns_http_reply(q, 200, "text/plain; version=0.0.4; charset=utf-8", bns_buf_slice(&text));
    else
        bns_http_reply_text(q, bns_err_http(rv), bns_err_default_text(rv));
    bns_buf_free(&text);
}

static void on_health(void *arg, struct bns_http_req *q)
{
    (void)arg;
    bns_http_reply_text(q, 200, "ok\n");
}

static void on_ready(void *arg, struct bns_http_req *q)
{
    struct bns_admin *a = arg;
    const char *why = a->not_ready == NULL ? NULL : a->not_ready(a->arg);

    if (why == NULL)
        bns_http_reply_text(q, 200, "ready\n");
    else
        bns_http_reply_text(q, 503, why);
}

int bns_admin_routes(struct bns_admin *a, struct bns_http_server *server)
{
    a->routes[0] = (struct bns_http_route){"GET", "/metrics", on_metrics, a, 0, false, false};
    a->routes[1] = (struct bns_http_route){"GET", "/healthz", on_health, a, 0, false, false};
    a->routes[2] = (struct bns_http_route){"GET", "/readyz", on_ready, a, 0, false, false};
    return bns_http_server_routes(server, a->routes, a->own_ready ? 2 : 3);
}
