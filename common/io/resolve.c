/* resolve.c - host names to addresses, by the system's resolver (getaddrinfo) on libuv's threads.
 *
 * Nobody else in a daemon uses those threads, so that a name server that does not answer delays
 * other names and nothing else. Nothing is kept: each dial asks anew, so a machine that came back
 * with another address is found. The addresses come in the order of RFC 6724, to be tried in turn.
 *
 * A lookup that is running cannot be stopped: its owner leaves, and the memory goes with the last
 * callback. bns_env_uv_free() waits for it (at most the resolver's own time-out).
 */
#include "io/loop.h"

struct bns_lookup {
    uv_getaddrinfo_t req;
    struct bns_env_uv *e;
    bns_lookup_fn *fn; /* NULL: the owner has left */
    void *arg;
    struct addrinfo *list, *next;
    uint16_t port;
    bool running;
};

static void lookup_free(struct bns_lookup *l)
{
    uv_freeaddrinfo(l->list);
    bns_free(l->e->env.alloc, l);
}

static void on_answer(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct bns_lookup *l = req->data;

    bns_loop_enter(l->e);
    l->running = false;
    l->list = list;
    l->next = list;
    if (l->fn == NULL)
        lookup_free(l);
    else
        l->fn(l->arg, status == 0 && list != NULL ? BNS_OK : BNS_E_NOTFOUND);
}

int bns_lookup_start(struct bns_env_uv *e, const char *host, uint16_t port, bns_lookup_fn *fn,
                     void *arg, struct bns_lookup **out)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct bns_lookup *l = bns_alloc_zero(e->env.alloc, sizeof *l);
    int rv;

    if (l == NULL)
        return BNS_E_NOMEM;
    *l = (struct bns_lookup){.e = e, .fn = fn, .arg = arg, .port = port, .running = true};
    l->req.data = l;
    rv = uv_getaddrinfo(&e->loop, &l->req, on_answer, host, NULL, &hints);
    if (rv != 0) {
        bns_free(e->env.alloc, l);
        return rv == UV_ENOMEM ? BNS_E_NOMEM : BNS_E_INVALID;
    }
    *out = l;
    return BNS_OK;
}

bool bns_lookup_next(struct bns_lookup *l, struct sockaddr_storage *out, socklen_t *len)
{
    struct addrinfo *a = l->next;

    BNS_ASSERT(!l->running);
    while (a != NULL && a->ai_family != AF_INET && a->ai_family != AF_INET6)
        a = a->ai_next;
    if (a == NULL)
        return false;
    BNS_ASSERT(a->ai_addrlen <= sizeof *out);
    memset(out, 0, sizeof *out);
    memcpy(out, a->ai_addr, a->ai_addrlen);
    *len = a->ai_addrlen;
    bns_addr_set_port(out, l->port);
    l->next = a->ai_next;
    return true;
}

void bns_lookup_free(struct bns_lookup *l)
{
    if (l == NULL)
        return;
    if (!l->running) {
        lookup_free(l);
        return;
    }
    l->fn = NULL;
    (void)uv_cancel((uv_req_t *)&l->req); /* when it fails the answer comes, and ends it */
}
