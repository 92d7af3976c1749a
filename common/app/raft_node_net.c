/* raft_node_net.c - messages between members: one dialled connection a peer, one-way frames.
 *
 * A message is encoded at once (entry data are shared, not copied) and leaves when the PERSIST it
 * depends on is durable. What cannot be sent is dropped: Raft repeats it. A connection that breaks
 * is told to the core (UNREACHABLE), which goes back to probing that peer.
 */
#include "app/raft_node_int.h"

#include <stdio.h>

#include "app/raft_node_snap.h"

#define WAL_ENTRY_OVERHEAD 72u /* head, index, term, kind, padding: at most */
#define GAVE_NS BNS_SEC        /* by then everybody has heard of the next leader */

struct bns_rn_peer *bns_rn_peer_find(struct bns_raft_node *n, uint64_t id)
{
    for (size_t i = 0; i < BNS_RN_PEERS_MAX && id != 0; i++) {
        if (n->peers[i].addr.id == id)
            return &n->peers[i];
    }
    return NULL;
}

static void outmsg_free(void *arg, int code)
{
    struct bns_rn_outmsg *m = arg;
    const struct bns_alloc *a = m->head.alloc;

    (void)code; /* a lost message is repeated by the core */
    for (size_t i = 0; i < m->refs_count; i++)
        bns_rcbuf_put(m->refs[i]);
    bns_buf_free(&m->head);
    bns_free(a, m->refs);
    bns_free(a, m);
}

static void transmit(struct bns_raft_node *n, struct bns_rn_outmsg *m)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, m->to);
    uint64_t bytes = 0;

    if (p == NULL || p->link == NULL) {
        outmsg_free(m, BNS_E_DROPPED);
        return;
    }
    for (size_t i = 0; i < m->slices_count; i++)
        bytes += m->slices[i].len;
    bns_rn_where_say(p);
    if (bns_rpc_send(p->link, BNS_RN_METHOD_RAFT, m->slices, m->slices_count, outmsg_free, m) ==
        BNS_OK) {
        bns_counter_add(p->m_sent, bytes);
    } else {
        bns_counter_add(p->m_lost, 1);
        outmsg_free(m, BNS_E_DROPPED);
    }
}

int bns_rn_send(struct bns_raft_node *n, const struct bns_raft_out *o)
{
    const struct bns_alloc *a = bns_rn_alloc(n);
    size_t cap = 2 * o->msg.entries_count + 1;
    struct bns_rn_outmsg *m = bns_alloc_zero(a, sizeof *m + cap * sizeof m->slices[0]);
    int rv = BNS_E_NOMEM;

    if (m == NULL)
        return rv;
    m->n = n;
    m->to = o->msg.to;
    m->after_seq = o->after_seq;
    bns_buf_init(&m->head, a, 16u * 1024 * 1024);
    if (o->msg.entries_count > 0) {
        m->refs = bns_alloc_array(a, o->msg.entries_count, sizeof *m->refs);
        if (m->refs == NULL)
            goto fail;
    }
    for (size_t i = 0; i < o->msg.entries_count; i++) {
        if (o->msg.entries[i].data != NULL)
            m->refs[m->refs_count++] = bns_rcbuf_get(o->msg.entries[i].data);
    }
    rv = bns_raft_msg_encode(&o->msg, &m->head, m->slices, cap, &m->slices_count);
    if (rv != BNS_OK)
        goto fail;
    if (m->after_seq <= n->stored_seq || BNS_MUTANT(n->env, 3)) {
        transmit(n, m);
    } else if (n->held_count < BNS_RN_HELD_MAX) {
        bns_list_push(&n->held, &m->node);
        n->held_count++;
    } else { /* the disk has taken nothing for long */
        outmsg_free(m, BNS_E_DROPPED);
    }
    return BNS_OK;

fail:
    outmsg_free(m, rv);
    return rv;
}

/* In the order of sending. A message behind one that depends on more waits with it. */
void bns_rn_send_held(struct bns_raft_node *n)
{
    while (!bns_list_empty(&n->held)) {
        struct bns_rn_outmsg *m = BNS_CONTAINER(n->held.next, struct bns_rn_outmsg, node);

        if (m->after_seq > n->stored_seq)
            return;
        bns_list_del(&m->node);
        n->held_count--;
        transmit(n, m);
    }
}

/* What would be new work where the log has no room: forwarded proposals, and entries as soon as
 * they do not fit into the files that the log has. The core has not seen them, so that votes, terms
 * and commit indexes go on being stored, and reads being confirmed, however full the disk is. */
static bool no_room_for(struct bns_raft_node *n, const struct bns_raft_msg *m)
{
    uint64_t bytes = 0;

    if (m->entries_count == 0 || bns_wal_has_room(n->wal))
        return false;
    if (m->type == BNS_RAFT_MSG_PROPOSE)
        return true;
    for (size_t i = 0; i < m->entries_count; i++)
        bytes += bns_rcbuf_slice(m->entries[i].data).len + WAL_ENTRY_OVERHEAD;
    return !bns_wal_fits(n->wal, bytes);
}

/* Is it handing over, or soon will as there is no room here; or has it handed over just now, and
 * not everybody has heard of the next leader? */
static bool hands_over(const struct bns_raft_node *n)
{
    if (n->st.role != BNS_RAFT_LEADER)
        return n->gave_ns != 0 && bns_now_ns(n->env) - n->gave_ns < GAVE_NS;
    return n->st.transferee != 0 || n->wal_full || !bns_wal_has_room(n->wal);
}

/* Forwarded proposals that the core would drop. They wait as those of this node do, for the next
 * leader; whoever made them hears of it when they are applied there. */
static bool kept(struct bns_raft_node *n, const struct bns_raft_msg *m)
{
    if (m->type != BNS_RAFT_MSG_PROPOSE || !hands_over(n))
        return false;
    for (size_t i = 0; i < m->entries_count; i++) {
        if (m->entries[i].kind != BNS_RAFT_NORMAL || m->entries[i].data == NULL ||
            bns_rn_prop_keep(n, m->entries[i].data) != BNS_OK)
            bns_counter_add(n->m_no_room, 1);
    }
    return true;
}

static void on_oneway(void *arg, uint64_t from, uint16_t method, struct bns_slice payload)
{
    struct bns_raft_node *n = arg;
    struct bns_raft_msg msg = {0};
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_RECV, .msg = &msg};
    struct bns_rn_peer *p;
    int rv;

    if (n->closing)
        return;
    if (method == BNS_RN_METHOD_WHERE)
        bns_rn_where_heard(n, from, payload);
    if (method != BNS_RN_METHOD_RAFT)
        return;
    p = bns_rn_peer_find(n, from);
    bns_counter_add(p == NULL ? NULL : p->m_received, payload.len);
    rv = bns_raft_msg_decode(payload, bns_rn_alloc(n), &msg, NULL);
    if (rv != BNS_OK || msg.from != from || msg.to != n->cfg.id || msg.group != n->cfg.group)
        bns_counter_add(n->m_bad_messages, 1);
    else if (kept(n, &msg))
        bns_rn_kick(n);
    else if (no_room_for(n, &msg))
        bns_counter_add(n->m_no_room, 1); /* Raft repeats it */
    else
        bns_rn_step(n, &in);
    if (rv == BNS_OK)
        bns_raft_msg_free(bns_rn_alloc(n), &msg);
}

static void on_request(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                       struct bns_slice payload)
{
    struct bns_raft_node *n = arg;

    if (n->closing)
        bns_rpc_reply(r, BNS_E_SHUTDOWN, bns_slice(NULL, 0));
    else if (method == BNS_RN_METHOD_MEMBER)
        bns_rn_conf_request(n, r, from, method, payload);
    else if (bns_rn_peer_find(n, from) == NULL)
        bns_rpc_reply(r, BNS_E_FORBIDDEN, bns_slice(NULL, 0));
    else if (method == BNS_RN_METHOD_SNAP)
        bns_rn_snap_request(n, r, from, payload);
    else if (method == BNS_RN_METHOD_CHANGE)
        bns_rn_conf_request(n, r, from, method, payload);
    else if (method >= BNS_RAFT_NODE_METHOD && n->cfg.on_request != NULL)
        n->cfg.on_request(n->cfg.on_request_arg, r, from, method, payload);
    else
        bns_rpc_reply(r, BNS_E_UNSUPPORTED, bns_slice(NULL, 0));
}

int bns_raft_node_call(struct bns_raft_node *n, uint64_t to, const struct bns_rpc_call_options *o,
                       struct bns_slice payload)
{
    struct bns_rn_peer *p = bns_rn_peer_find(n, to);

    BNS_ASSERT(o->method >= BNS_RAFT_NODE_METHOD);
    if (n->closing)
        return BNS_E_SHUTDOWN;
    if (p == NULL || p->link == NULL)
        return BNS_E_NOTFOUND;
    return bns_rpc_call(p->link, o, &payload, 1);
}

static void on_up(void *arg)
{
    struct bns_rn_peer *p = arg;

    p->up_ns = bns_now_ns(p->n->env);
    p->said_where = false;
}

uint64_t bns_raft_node_peer_since(const struct bns_raft_node *n, uint64_t id)
{
    for (size_t i = 0; i < BNS_RN_PEERS_MAX && id != 0; i++) {
        const struct bns_rn_peer *p = &n->peers[i];

        if (p->addr.id == id)
            return p->link != NULL && bns_rpc_peer_up(p->link) ? p->up_ns : 0;
    }
    return 0;
}

static void on_down(void *arg)
{
    struct bns_rn_peer *p = arg;
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_UNREACHABLE, .peer = p->addr.id};

    bns_rn_step(p->n, &in);
}

void bns_rn_identity(struct bns_raft_node *n, struct bns_rpc_identity *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->cluster_id, n->cfg.cluster_id, sizeof out->cluster_id);
    out->node_id = n->cfg.id;
    out->incarnation = (uint64_t)bns_wall_ms(n->env);
}

/* By member, with the labels that dashboards of etcd ask for. */
static struct bns_hist *peer_metrics(struct bns_rn_peer *p)
{
    struct bns_metrics *m = p->n->env->metrics;
    char to[40], from[40];

    (void)snprintf(to, sizeof to, "To=\"%llx\"", (unsigned long long)p->addr.id);       /* fits */
    (void)snprintf(from, sizeof from, "From=\"%llx\"", (unsigned long long)p->addr.id); /* fits */
    p->m_sent =
        bns_counter(m, "raft_peer_sent_bytes_total", to, "Bytes of messages sent to a member.");
    p->m_lost = bns_counter(m, "raft_peer_sent_failures_total", to,
                            "Messages that a member's connection did not take.");
    p->m_received = bns_counter(m, "raft_peer_received_bytes_total", from,
                                "Bytes of messages that a member sent.");
    return bns_hist(m, "raft_peer_round_trip_seconds", to, "Round trips of pings to a member.");
}

/* Not ourselves, and no free place. */
int bns_rn_peer_dial(struct bns_rn_peer *p, struct bns_err *err)
{
    struct bns_raft_node *n = p->n;
    struct bns_endpoint more[BNS_RPC_ADDRS_MAX - 1];
    size_t more_count = p->addr.more_count;
    struct bns_rpc_identity id;
    struct bns_rpc_peer_config pc = {
        .node_id = p->addr.id,
        .host = p->addr.host,
        .port = p->addr.port,
        .more = more,
        .queue_bytes_max = BNS_RN_PEER_QUEUE_MAX,
        .on_up = on_up,
        .on_down = on_down,
        .arg = p,
    };

    if (p->addr.id == 0 || p->addr.id == n->cfg.id)
        return BNS_OK;
    memcpy(more, p->addr.more, sizeof more);
    if (p->heard.port != 0) { /* instead of the last, if there are so many */
        more_count -= more_count == BNS_RPC_ADDRS_MAX - 1;
        more[more_count++] = p->heard;
    }
    pc.more_count = more_count;
    if (p->addr.tls)
        pc.tls = n->cfg.tls;
    pc.rtt = peer_metrics(p);
    bns_rn_identity(n, &id);
    return bns_rpc_peer_new(n->env, &id, &pc, &p->link, err);
}

int bns_rn_net_start(struct bns_raft_node *n, struct bns_err *err)
{
    static const struct bns_rpc_handler handler = {on_oneway, on_request};
    struct bns_rpc_identity id;
    int rv;

    bns_rn_identity(n, &id);
    if (n->cfg.listen_host != NULL) {
        rv = bns_rpc_server_new(n->env, &id, &handler, n, &n->server);
        if (rv != BNS_OK)
            return bns_err_set(err, rv, "raft: cannot make the peer server");
        rv = bns_rpc_server_listen_tls(n->server, n->cfg.listen_tls ? n->cfg.tls : NULL,
                                       n->cfg.listen_host, n->cfg.listen_port, &n->port, err);
        if (rv != BNS_OK && (!n->cfg.listen_optional || rv == BNS_E_NOMEM))
            return rv;
        if (rv != BNS_OK) /* it serves all the same, but nobody can join it */
            n->port = 0;
        if (n->cfg.on_http != NULL)
            bns_rpc_server_http(n->server, n->cfg.on_http, n->cfg.members_arg);
    }
    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++) {
        rv = bns_rn_peer_dial(&n->peers[i], err);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

void bns_rn_net_close(struct bns_raft_node *n)
{
    struct bns_list *it;

    for (size_t i = 0; i < BNS_RN_PEERS_MAX; i++) {
        bns_rpc_peer_free(n->peers[i].link);
        n->peers[i].link = NULL;
    }
    bns_rpc_server_free(n->server);
    n->server = NULL;
    while ((it = bns_list_pop(&n->held)) != NULL)
        outmsg_free(BNS_CONTAINER(it, struct bns_rn_outmsg, node), BNS_E_DROPPED);
}

uint16_t bns_raft_node_port(const struct bns_raft_node *n)
{
    return n->port;
}
