/* rpc_cluster.c - Cluster.MemberList. */
#include "codec/pb.h"
#include "server.h"

int etcd_put_header(struct etcd_server *s, struct bns_buf *out)
{
    struct bns_buf h;
    int rv;

    bns_buf_init(&h, s->env->alloc, 128);
    rv = bns_pb_put_u64(&h, 1, s->opt->members.cluster_id);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&h, 2, s->opt->self->id);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&h, 3, etcd_kv_revision(s->kv));
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&h, 4, s->term);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, 1, bns_buf_slice(&h));
    bns_buf_free(&h);
    return rv;
}

/* Those that the member published: Attributes.client_urls (2 in 2) become Member.clientURLs (4). */
static int put_client_urls(struct bns_slice published, struct bns_buf *out)
{
    struct bns_pb_field f = {0};
    struct bns_slice attr = {0};
    int rv = BNS_OK;

    while (rv == BNS_OK && published.len > 0) {
        rv = bns_pb_next(&published, &f);
        if (rv == BNS_OK && f.id == 2)
            attr = f.bytes;
    }
    while (rv == BNS_OK && attr.len > 0) {
        rv = bns_pb_next(&attr, &f);
        if (rv == BNS_OK && f.id == 2)
            rv = bns_pb_put_bytes(out, 4, f.bytes);
    }
    return rv;
}

static int put_member(struct etcd_server *s, const struct etcd_member *m, struct bns_buf *out)
{
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, s->env->alloc, 16384);
    rv = bns_pb_put_u64(&b, 1, m->id);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes(&b, 2, bns_slice_str(m->name));
    for (size_t i = 0; rv == BNS_OK && i < m->peer_urls.count; i++)
        rv = bns_pb_put_bytes(&b, 3, bns_slice_str(m->peer_urls.url[i]));
    if (rv == BNS_OK)
        rv = put_client_urls(etcd_kv_member(s->kv, m->id), &b);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, 2, bns_buf_slice(&b));
    bns_buf_free(&b);
    return rv;
}

static void members_now(struct etcd_task *t)
{
    struct etcd_server *s = t->s;
    struct bns_buf out;
    int rv;

    bns_buf_init(&out, s->env->alloc, 1024 * 1024);
    rv = etcd_put_header(s, &out);
    for (size_t i = 0; rv == BNS_OK && i < s->opt->members.count; i++)
        rv = put_member(s, &s->opt->members.member[i], &out);
    etcd_task_reply_buf(t, &out, rv);
}

static void on_member_list(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__MemberListRequest *r =
        etcd_decode(c, &etcdserverpb__member_list_request__descriptor, msg);
    struct etcd_task *t;

    if (r == NULL)
        return;
    t = etcd_task_new(bns_grpc_arg(c), c);
    if (t == NULL)
        return;
    if (r->linearizable)
        etcd_task_linearizable(t, members_now);
    else
        members_now(t);
}

int etcd_cluster_service(struct etcd_server *s)
{
    s->cluster_methods[0] = (struct bns_grpc_method){.path = "/etcdserverpb.Cluster/MemberList",
                                                     .kind = BNS_GRPC_UNARY,
                                                     .handler = {.on_message = on_member_list},
                                                     .arg = s};
    return bns_grpc_server_methods(s->grpc, s->cluster_methods, 1);
}
