/* console.h - the web page of `bonsai up`, and what it shows, as JSON.
 *
 *     /            the page (console.html): one file, no build step, nothing from elsewhere
 *     /api/nodes   what runs, and the numbers of the nodes' own /metrics
 *     /api/logs    lines of one log: ?node=etcd-lite-n1&after=OFFSET (console_logs.c)
 *     /trace       the page of `sim view`, empty: it opens a trace
 *     /metrics     of all nodes, as one text (app/federate.h)
 *     /healthz     200 "ok": the supervisor's loop turns
 *
 * It shows and changes nothing: GET only. It listens on loopback, and answers only when the Host
 * header names loopback too: a page from elsewhere whose name was turned to 127.0.0.1 gets nothing.
 *
 * Thread:  the supervisor's loop.
 * Bounds:  connections, one request each; one fan-out at a time, which all that wait for it share.
 */
#ifndef BNS_BONSAI_CONSOLE_H
#define BNS_BONSAI_CONSOLE_H

#include "app/federate.h"
#include "bonsai/bonsai.h"
#include "io/http.h"

#include <jansson.h>

#define BONSAI_EVENTS_MAX 128 /* kept; older ones are forgotten */
#define BONSAI_CONSOLE_PORT 8800

struct bonsai_console;

struct bonsai_console_config {
    struct bns_env *env;
    const char *data_dir;                                  /* borrowed */
    uint16_t port;                                         /* 0 = any free one */
    void (*snapshot)(void *arg, struct bonsai_state *out); /* always the same nodes */
    void *arg;
};

/* BNS_E_ADDRINUSE with the port and what to do; BNS_E_NOMEM. */
BNS_MUST_CHECK int bonsai_console_new(const struct bonsai_console_config *cfg,
                                      struct bonsai_console **out, struct bns_err *err);
uint16_t bonsai_console_port(const struct bonsai_console *c);
void bonsai_console_free(struct bonsai_console *c); /* NULL is fine */

/* Something happened to a node; the page lists it. Does nothing when c is NULL. */
void bonsai_console_event(struct bonsai_console *c, const struct bonsai_node *n, const char *kind,
                          const char *fmt, ...) BNS_PRINTF(4, 5);

/* ---- between the console's files ---- */
struct bonsai_event {
    uint64_t id; /* from 1 */
    int64_t at_ms;
    char node[32];    /* "etcd-lite-n1" */
    const char *kind; /* "started" "ready" "ended" "failed"; a constant */
    char text[96];
};

struct bonsai_view {
    const struct bonsai_state *state;
    const struct bns_federate *metrics; /* target i is node i of the state */
    const char *data_dir;
    int64_t now_ms;
    const struct bonsai_event *events; /* a ring: event id stands at (id - 1) % EVENTS_MAX */
    uint64_t events_last;              /* id of the newest; 0: none */
};

/* console_nodes.c: the body of /api/nodes. NULL when out of memory. */
json_t *bonsai_console_nodes(const struct bonsai_view *v);

/* console_logs.c: the body of /api/logs. `node` was checked. after = UINT64_MAX: the end of the
 * log. NULL: no memory. A log that is not there has no lines. */
json_t *bonsai_console_logs(const char *data_dir, const char *node, uint64_t after);

/* console_page.c */
struct bns_slice bonsai_console_page(void);
struct bns_slice bonsai_trace_view_page(void); /* with an empty element "trace" */

#endif
