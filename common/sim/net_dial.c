/* net_dial.c - listening, dialling and accepting in the simulator.
 *
 * A dial sends a SYN. While the path is blocked, the other machine has no power, or nobody has the
 * address, it is sent again after 1, 2, 4 s; after DIAL_TIMEOUT_NS the stream ends with
 * BNS_E_TIMEOUT. A machine that is up and does not listen there refuses (BNS_E_DROPPED). Otherwise
 * the accepting endpoint is made at once (the kernel's backlog: the program may be paused), its
 * owner
 * is called in an event, and the answer travels back; it may be held up as the SYN was.
 *
 * Addresses: 10.0.0.<id + 1> is node id; localhost, 127.*, ::1 are the node itself. Names are those
 *            of bns_world_name(); another one has no address, which is told after LOOKUP_NS.
 * May fail:  bad host, port taken, no memory in the node's heap.
 */
#include <stdio.h>

#include "sim/net_impl.h"

#define DIAL_TIMEOUT_NS (10 * BNS_SEC)
#define LOOKUP_NS (2 * BNS_MS)

/* ---- dialling -------------------------------------------------------------------------------- */

static struct bns_listener *listener_at(struct sim_node *n, uint16_t port)
{
    BNS_LIST_EACH(l, &n->listeners)
    {
        struct bns_listener *s = BNS_CONTAINER(l, struct bns_listener, node);
        if (s->port == port)
            return s;
    }
    return NULL;
}

static void run_accept(struct sim_event *e)
{
    struct endpoint *ep = e->ctx;
    struct bns_listener *s = listener_at(ep->n, ep->link->half[1].port);

    if (ep->state == EP_ENDED)
        return;
    if (s == NULL) {
        bns_stream_reset(&ep->base);
        return;
    }
    s->fn(s->arg, &ep->base);
    if (!sim_live(ep->n))
        return;
    if (ep->ev.on_close == NULL && ep->state == EP_OPEN)
        bns_stream_close(&ep->base);
    sim_ep_read_soon(ep);
}

static void run_open(struct sim_event *e)
{
    struct endpoint *ep = e->ctx;

    if (ep->state != EP_DIALING)
        return;
    ep->state = EP_OPEN;
    if (ep->ev.on_open != NULL)
        ep->ev.on_open(ep->arg);
    if (!sim_live(ep->n))
        return;
    sim_ep_flush_soon(ep, BNS_US);
    sim_ep_read_soon(ep);
}

static void syn_later(struct link *k, const char *name, void (*fn)(struct sim_event *e))
{
    struct bns_world *w = k->w;

    k->gap = k->gap == 0 ? BNS_SEC : k->gap * 2;
    if (w->now + k->gap <= k->dial_until)
        k->syn = sim_at(w, NULL, w->now + k->gap, name, fn, k);
    else
        k->syn = sim_at(w, NULL, k->dial_until, name, fn, k);
}

static void dial_failed(struct link *k, int code)
{
    if (k->half[0].ep != NULL)
        sim_ep_end(k->half[0].ep, code);
}

static void refused(struct sim_event *e)
{
    struct link *k = e->ctx;

    k->syn = NULL;
    dial_failed(k, BNS_E_DROPPED);
}

static void no_address(struct sim_event *e)
{
    struct link *k = e->ctx;

    k->syn = NULL;
    dial_failed(k, BNS_E_NOTFOUND);
}

static void synack_arrives(struct sim_event *e)
{
    struct link *k = e->ctx;
    struct bns_world *w = k->w;

    k->syn = NULL;
    if (k->half[0].ep == NULL)
        return;
    if (sim_path_blocked(w, k->half[1].host, k->half[0].host)) {
        if (w->now >= k->dial_until)
            dial_failed(k, BNS_E_TIMEOUT);
        else
            syn_later(k, "synack", synack_arrives);
        return;
    }
    if (k->half[0].ep->state == EP_DIALING)
        (void)sim_at(w, k->half[0].ep->n, w->now, "open", run_open, k->half[0].ep);
}

static void syn_arrives(struct sim_event *e)
{
    struct link *k = e->ctx;
    struct bns_world *w = k->w;
    unsigned from = k->half[0].host;
    unsigned to = k->half[1].host;
    struct endpoint *ep = NULL;

    k->syn = NULL;
    if (k->half[0].ep == NULL || k->half[0].ep->state != EP_DIALING)
        return;
    if (sim_path_blocked(w, from, to)) {
        if (w->now >= k->dial_until)
            dial_failed(k, BNS_E_TIMEOUT);
        else
            syn_later(k, "syn", syn_arrives);
        return;
    }
    if (sim_live(&w->nodes[to]) && listener_at(&w->nodes[to], k->half[1].port) != NULL)
        ep = sim_ep_new(&w->nodes[to], k, 1, EP_OPEN);
    if (ep != NULL)
        (void)sim_at(w, ep->n, w->now, "accept", run_accept, ep);
    k->syn = sim_at(w, NULL, w->now + sim_latency(w, to, from), ep != NULL ? "synack" : "refused",
                    ep != NULL ? synack_arrives : refused, k);
}

/* The node that a host means to node n; HOST_NONE when nobody has that address. */
static int host_find(struct sim_node *n, const char *host, unsigned *out)
{
    unsigned a[4];
    char rest;

    *out = n->id;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0)
        return BNS_OK;
    if (sscanf(host, "%3u.%3u.%3u.%3u%c", &a[0], &a[1], &a[2], &a[3], &rest) != 4 || a[0] > 255 ||
        a[1] > 255 || a[2] > 255 || a[3] > 255)
        return BNS_E_INVALID;
    if (a[0] == 127)
        return BNS_OK;
    *out = HOST_NONE;
    if (a[0] == 10 && a[1] == 0 && a[2] == 0 && a[3] > 0 && a[3] <= n->w->cfg.nodes)
        *out = a[3] - 1;
    return BNS_OK;
}

/* ---- names ----------------------------------------------------------------------------------- */

void bns_world_name(struct bns_world *w, const char *name, unsigned id)
{
    size_t at = 0;

    BNS_ASSERT(bns_host_kind(name) == BNS_HOST_NAME);
    BNS_ASSERT(id < w->cfg.nodes || id == BNS_WORLD_NODES_MAX);
    while (at < BNS_WORLD_NAMES_MAX && w->names[at][0] != 0 && strcmp(w->names[at], name) != 0)
        at++;
    BNS_ASSERT(at < BNS_WORLD_NAMES_MAX);
    (void)snprintf(w->names[at], sizeof w->names[at], "%s", name); /* its kind says that it fits */
    w->named[at] = id;
}

static bool name_known(const struct bns_world *w, const char *name, unsigned *out)
{
    for (size_t i = 0; i < BNS_WORLD_NAMES_MAX && w->names[i][0] != 0; i++) {
        if (strcmp(w->names[i], name) == 0 && w->named[i] != BNS_WORLD_NODES_MAX) {
            *out = w->named[i];
            return true;
        }
    }
    return false;
}

static uint16_t port_free(struct sim_node *n)
{
    do {
        n->port_next = n->port_next < 32768 ? 32768 : (uint16_t)(n->port_next + 1);
    } while (listener_at(n, n->port_next) != NULL);
    return n->port_next;
}

int sim_connect(struct bns_env *e, const char *host, uint16_t port,
                const struct bns_stream_events *ev, void *arg, struct bns_stream **out,
                struct bns_err *err)
{
    struct sim_node *n = sim_node_of(e);
    struct bns_world *w = n->w;
    struct link *k;
    unsigned to;
    bool unknown = false;

    if (host_find(n, host, &to) != BNS_OK) {
        if (bns_host_kind(host) != BNS_HOST_NAME)
            return bns_err_set(err, BNS_E_INVALID, "%s: neither an address nor a host name", host);
        to = HOST_NONE;
        unknown = !name_known(w, host, &to);
    }
    if (!sim_live(n))
        return bns_err_set(err, BNS_E_OFF, "%s: the node is off", host);
    k = bns_alloc_zero(w->alloc, sizeof *k);
    BNS_ASSERT(k != NULL);
    k->w = w;
    k->half[0] = (struct half){.host = n->id, .port = port_free(n)};
    k->half[1] = (struct half){.host = to, .port = port};
    for (unsigned i = 0; i < 2; i++) {
        bns_list_init(&k->pipe[i].flying);
        bns_list_init(&k->pipe[i].received);
    }
    if (sim_ep_new(n, k, 0, EP_DIALING) == NULL) {
        bns_free(w->alloc, k);
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory for a connection", host);
    }
    bns_list_push(&w->links, &k->node);
    w->links_count++;
    k->half[0].ep->ev = *ev;
    k->half[0].ep->arg = arg;
    k->dial_until = w->now + DIAL_TIMEOUT_NS;
    if (unknown)
        k->syn = sim_at(w, NULL, w->now + LOOKUP_NS, "no-address", no_address, k);
    else
        k->syn = sim_at(w, NULL, w->now + sim_latency(w, n->id, to == HOST_NONE ? n->id : to),
                        "syn", syn_arrives, k);
    *out = &k->half[0].ep->base;
    return BNS_OK;
}

int sim_listen(struct bns_env *e, const char *host, uint16_t port, bns_accept_fn *fn, void *arg,
               struct bns_listener **out, struct bns_err *err)
{
    struct sim_node *n = sim_node_of(e);
    struct bns_listener *s;
    unsigned id;
    bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;

    if (!sim_live(n))
        return bns_err_set(err, BNS_E_OFF, "%s: the node is off", host);
    if (!any && (host_find(n, host, &id) != BNS_OK || id != n->id))
        return bns_err_set(err, BNS_E_INVALID, "%s: not an address of this machine", host);
    if (port != 0 && listener_at(n, port) != NULL)
        return bns_err_set(err, BNS_E_ADDRINUSE, "address in use: %s port %u", host,
                           (unsigned)port);
    s = bns_alloc_zero(e->alloc, sizeof *s);
    if (s == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory to listen on %s", host);
    *s = (struct bns_listener){
        .n = n, .port = port != 0 ? port : port_free(n), .fn = fn, .arg = arg};
    bns_list_push(&n->listeners, &s->node);
    *out = s;
    return BNS_OK;
}

uint16_t sim_listener_port(const struct bns_listener *l)
{
    return l->port;
}

void sim_listener_close(struct bns_listener *l)
{
    if (l == NULL || !sim_live(l->n))
        return;
    bns_list_del(&l->node);
    bns_free(l->n->env.alloc, l);
}
