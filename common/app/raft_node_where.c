/* raft_node_where.c - a member says where it is found.
 *
 * Each member dials every other one, and answers go out over the connection that the answering one
 * dialled. So a member that lags behind the changes of members cannot answer one that it has never
 * heard of, or whose address has changed since: neither gets votes from it nor can bring it up to
 * date. Therefore the first message on a new connection says where its sender is found. Who does
 * not know the sender takes it as a peer; who knows another address that does not answer tries this
 * one too. The log decides, as soon as it has come (bns_raft_node_peer_set). etcd does the same
 * with the header X-PeerURLs of its streams.
 *
 *   WHERE = u8 tls | u8 count | count * (u16 port | u8 length | host)
 */
#include "app/raft_node_int.h"

#include <string.h>

size_t bns_rn_where_encode(const struct bns_raft_peer_addr *a, uint8_t out[BNS_RN_WHERE_MAX])
{
    uint8_t *p = out;

    *p++ = a->tls;
    *p++ = (uint8_t)(1 + a->more_count);
    for (size_t i = 0; i <= a->more_count; i++) {
        const char *host = i == 0 ? a->host : a->more[i - 1].host;
        uint16_t port = i == 0 ? a->port : a->more[i - 1].port;
        size_t len = strlen(host);

        BNS_ASSERT(len < BNS_HOST_MAX);
        *p++ = (uint8_t)(port >> 8);
        *p++ = (uint8_t)port;
        *p++ = (uint8_t)len;
        memcpy(p, host, len);
        p += len;
    }
    return (size_t)(p - out);
}

static bool take(struct bns_slice *in, char host[BNS_HOST_MAX], uint16_t *port)
{
    size_t len;

    if (in->len < 3 || in->len < 3u + in->ptr[2])
        return false;
    *port = (uint16_t)(in->ptr[0] << 8 | in->ptr[1]);
    len = in->ptr[2];
    if (*port == 0 || memchr(in->ptr + 3, 0, len) != NULL)
        return false;
    memcpy(host, in->ptr + 3, len);
    host[len] = '\0';
    *in = bns_slice(in->ptr + 3 + len, in->len - 3 - len);
    return bns_host_kind(host) != BNS_HOST_BAD;
}

bool bns_rn_where_decode(struct bns_slice in, struct bns_raft_peer_addr *out)
{
    bool ok;
    size_t n;

    memset(out, 0, sizeof *out);
    if (in.len < 2 || in.ptr[0] > 1 || in.ptr[1] == 0 || in.ptr[1] > BNS_RPC_ADDRS_MAX)
        return false;
    out->tls = in.ptr[0] == 1;
    n = in.ptr[1];
    in = bns_slice(in.ptr + 2, in.len - 2);
    ok = take(&in, out->host, &out->port);
    for (out->more_count = 0; ok && out->more_count + 1 < n; out->more_count++)
        ok = take(&in, out->more[out->more_count].host, &out->more[out->more_count].port);
    return ok && in.len == 0;
}

static void release(void *arg, int code)
{
    (void)code; /* the next connection says it again */
    bns_rcbuf_put(arg);
}

void bns_rn_where_say(struct bns_rn_peer *p)
{
    const struct bns_rn_peer *self = bns_rn_peer_find(p->n, p->n->cfg.id);
    uint8_t bytes[BNS_RN_WHERE_MAX];
    struct bns_rcbuf *b;
    struct bns_slice s;

    if (p->said_where || self == NULL || self->addr.port == 0)
        return;
    b = bns_rcbuf_copy(bns_rn_alloc(p->n),
                       bns_slice(bytes, bns_rn_where_encode(&self->addr, bytes)));
    if (b == NULL)
        return; /* with the next message */
    s = bns_rcbuf_slice(b);
    p->said_where = bns_rpc_send(p->link, BNS_RN_METHOD_WHERE, &s, 1, release, b) == BNS_OK;
    if (!p->said_where)
        bns_rcbuf_put(b);
}

/* Is it one of those that are dialled anyway? */
static bool has_addr(const struct bns_raft_peer_addr *a, const struct bns_raft_peer_addr *heard)
{
    bool has = a->port == heard->port && strcmp(a->host, heard->host) == 0;

    for (size_t i = 0; i < a->more_count && !has; i++)
        has = a->more[i].port == heard->port && strcmp(a->more[i].host, heard->host) == 0;
    return has;
}

/* The log's addresses stay, and the first of those that it said itself is dialled after them. */
static void try_too(struct bns_rn_peer *p, const struct bns_raft_peer_addr *heard)
{
    struct bns_endpoint *e = &p->heard;

    if (p->leaving || (p->link != NULL && bns_rpc_peer_up(p->link)) || heard->tls != p->addr.tls ||
        has_addr(&p->addr, heard) || (e->port == heard->port && strcmp(e->host, heard->host) == 0))
        return;
    e->port = heard->port;
    memcpy(e->host, heard->host, sizeof e->host);
    bns_rn_peer_redial(p);
}

void bns_rn_where_heard(struct bns_raft_node *n, uint64_t from, struct bns_slice payload)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, from);
    struct bns_raft_peer_addr heard;

    if (!bns_rn_where_decode(payload, &heard)) {
        bns_counter_add(n->m_bad_messages, 1);
        return;
    }
    if (from == 0 || from == n->cfg.id || (n->cfg.listen_tls && !heard.tls) ||
        (n->cfg.is_removed != NULL && n->cfg.is_removed(n->cfg.members_arg, from)))
        return;
    if (p != NULL) {
        try_too(p, &heard);
        return;
    }
    heard.id = from;
    (void)bns_rn_peer_set(n, &heard, true); /* 32 others are known, or dialled in a second */
}
