/* publish.c - tells the cluster this member's name and client URLs, once it serves.
 *
 * Proposed through the log until the store says what the options say, so MemberList answers the
 * same on every member. A proposal may be lost with a leader: it is repeated.
 */
#include "codec/pb.h"
#include "server.h"

#define RETRY_NS (2 * BNS_SEC)

static int encode(const struct etcd_server *s, struct bns_buf *out)
{
    struct bns_buf attr;
    int rv;

    bns_buf_init(&attr, s->env->alloc, 16384);
    rv = bns_pb_put_bytes(&attr, 1, bns_slice_str(s->opt->self->name));
    for (size_t i = 0; rv == BNS_OK && i < s->opt->advertised.count; i++)
        rv = bns_pb_put_bytes(&attr, 2, bns_slice_str(s->opt->advertised.url[i]));
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(out, 1, s->member_id);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, 2, bns_buf_slice(&attr));
    bns_buf_free(&attr);
    return rv;
}

void etcd_publish(void *arg)
{
    struct etcd_server *s = arg;
    struct bns_rcbuf *entry = NULL;
    struct bns_buf want;

    if (s->stopping || s->node == NULL)
        return;
    bns_buf_init(&want, s->env->alloc, 32768);
    if (encode(s, &want) == BNS_OK &&
        bns_slice_eq(bns_buf_slice(&want), etcd_kv_member(s->kv, s->member_id))) {
        bns_buf_free(&want);
        return;
    }
    if (want.len > 0)
        entry = etcd_internal_encode(s->env->alloc, etcd_request_id(s), ETCD_OP_MEMBER_ATTR,
                                     bns_buf_slice(&want));
    if (entry == NULL || bns_raft_node_propose(s->node, entry) != BNS_OK)
        BNS_LOG(s->env->log, BNS_LOG_DEBUG, "etcd", "client URLs not published: tried again");
    bns_rcbuf_put(entry);
    bns_buf_free(&want);
    bns_timer_start(s->env, &s->publish, bns_now_ns(s->env) + RETRY_NS);
}
