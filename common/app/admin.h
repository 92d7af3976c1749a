/* admin.h - /metrics, /healthz, /readyz on an HTTP server.
 *
 *     /metrics  Prometheus text 0.0.4 of env->metrics
 *     /healthz  200 "ok": the loop turns
 *     /readyz   200 "ready", or 503 and the reason: clients are answered, or not yet, or no more
 *
 * Thread:  the env's loop. Memory: the struct is the caller's and outlives the server.
 */
#ifndef BNS_APP_ADMIN_H
#define BNS_APP_ADMIN_H

#include "io/http.h"

struct bns_admin {
    struct bns_env *env;
    /* NULL when ready, or the reason why not (a constant or borrowed until the next call). The
     * whole pointer may be NULL: always ready. */
    const char *(*not_ready)(void *arg);
    void *arg;
    bool own_ready;                  /* the daemon has a /readyz of its own */
    struct bns_http_route routes[3]; /* the admin's */
};

/* Sets env, not_ready and arg before; adds the routes to `server`. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_admin_routes(struct bns_admin *a, struct bns_http_server *server);

#endif
