/* rpc_cluster.c - the service etcdserverpb.Cluster, and Maintenance.MoveLeader.
 */
#include "codec/pb.h"
#include "server.h"

static const char text_urls[] = "etcdserver: given member URLs are invalid";

int etcd_put_header(struct etcd_server *s, struct bns_buf *out)
{
    struct bns_buf h;
    int rv;

    bns_buf_init(&h, s->env->alloc, 128);
    rv = bns_pb_put_u64(&h, 1, s->cluster_id);
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&h, 2, s->member_id);
    if (rv == BNS_OK)
        rv = bns_pb_put_i64(&h, 3, etcd_kv_revision(s->kv));
    if (rv == BNS_OK)
        rv = bns_pb_put_u64(&h, 4, s->term);
    if (rv == BNS_OK)
        rv = bns_pb_put_bytes_always(out, 1, bns_buf_slice(&h));
    bns_buf_free(&h);
    return rv;
}

/* ---- the list ------------------------------------------------------------------------------- */

static void members_now(struct etcd_task *t)
{
    struct etcd_server *s = t->s;
    struct bns_buf out;
    int rv;

    bns_buf_init(&out, s->env->alloc, 1024 * 1024);
    rv = etcd_put_header(s, &out);
    if (rv == BNS_OK)
        rv = etcd_roster_put(s, 2, &out);
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

/* ---- changes -------------------------------------------------------------------------------- */

struct asked {
    struct etcd_task *t;
    struct etcd_change change;
};

static void changed(struct etcd_change *ch, struct etcd_status status, struct bns_slice body)
{
    struct asked *a = BNS_CONTAINER(ch, struct asked, change);
    struct bns_buf out;
    int rv;

    if (status.code != 0) {
        etcd_task_fail(a->t, status.code, status.text);
        return;
    }
    bns_buf_init(&out, a->t->s->env->alloc, 2 * 1024 * 1024);
    rv = etcd_put_header(a->t->s, &out);
    if (rv == BNS_OK)
        rv = bns_buf_add(&out, body.ptr, body.len);
    etcd_task_reply_buf(a->t, &out, rv);
}

static struct asked *asked_new(struct bns_grpc_call *c, enum etcd_change_kind kind, uint64_t id)
{
    struct etcd_task *t = etcd_task_new(bns_grpc_arg(c), c);
    struct asked *a = t == NULL ? NULL : bns_arena_alloc(bns_grpc_arena(c), sizeof *a);

    if (t == NULL)
        return NULL;
    if (a == NULL) {
        etcd_task_fail(t, BNS_GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory");
        return NULL;
    }
    memset(a, 0, sizeof *a);
    a->t = t;
    a->change.kind = kind;
    a->change.m.id = id;
    a->change.done = changed;
    return a;
}

/* In order, as etcd has them. */
static bool take_urls(char **urls, size_t n, struct etcd_roster_member *m)
{
    struct bns_raft_peer_addr addr;

    if (n == 0 || n > ETCD_URLS_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(urls[i]), at = m->peer_urls.count;
        struct etcd_url u;

        if (len >= ETCD_URL_MAX || etcd_url_parse(urls[i], &u, NULL) != BNS_OK)
            return false;
        for (; at > 0 && strcmp(m->peer_urls.url[at - 1], urls[i]) > 0; at--)
            memcpy(m->peer_urls.url[at], m->peer_urls.url[at - 1], ETCD_URL_MAX);
        memcpy(m->peer_urls.url[at], urls[i], len + 1);
        m->peer_urls.count++;
    }
    return etcd_peer_addr(m->id, &m->peer_urls, &addr, NULL) == BNS_OK;
}

static void change_urls(struct bns_grpc_call *c, struct asked *a, char **urls, size_t n)
{
    (void)c;
    if (take_urls(urls, n, &a->change.m))
        etcd_change(a->t->s, &a->change);
    else
        etcd_task_fail(a->t, BNS_GRPC_INVALID_ARGUMENT, text_urls);
}

static void on_member_add(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__MemberAddRequest *r =
        etcd_decode(c, &etcdserverpb__member_add_request__descriptor, msg);
    struct asked *a =
        r == NULL ? NULL
                  : asked_new(c, r->islearner ? ETCD_CHANGE_ADD_LEARNER : ETCD_CHANGE_ADD, 0);

    if (a != NULL)
        change_urls(c, a, r->peerurls, r->n_peerurls);
}

static void on_member_update(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__MemberUpdateRequest *r =
        etcd_decode(c, &etcdserverpb__member_update_request__descriptor, msg);
    struct asked *a = r == NULL ? NULL : asked_new(c, ETCD_CHANGE_UPDATE, r->id);

    if (a != NULL)
        change_urls(c, a, r->peerurls, r->n_peerurls);
}

static void on_member_remove(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__MemberRemoveRequest *r =
        etcd_decode(c, &etcdserverpb__member_remove_request__descriptor, msg);
    struct asked *a = r == NULL ? NULL : asked_new(c, ETCD_CHANGE_REMOVE, r->id);

    if (a != NULL)
        etcd_change(a->t->s, &a->change);
}

static void on_member_promote(struct bns_grpc_call *c, struct bns_slice msg)
{
    const Etcdserverpb__MemberPromoteRequest *r =
        etcd_decode(c, &etcdserverpb__member_promote_request__descriptor, msg);
    struct asked *a = r == NULL ? NULL : asked_new(c, ETCD_CHANGE_PROMOTE, r->id);

    if (a != NULL)
        etcd_change(a->t->s, &a->change);
}

/* ---- leadership ----------------------------------------------------------------------------- */

static void moved(void *arg, int code)
{
    struct etcd_task *t = arg;
    struct bns_buf out;
    int rv;

    if (code == BNS_E_SHUTDOWN) {
        etcd_task_fail(t, BNS_GRPC_UNAVAILABLE, "etcdserver: server stopped");
        return;
    }
    if (code != BNS_OK) { /* in etcd's table of codes it is missing */
        etcd_task_fail(t, BNS_GRPC_UNKNOWN,
                       "etcdserver: request timed out, leader transfer took too long");
        return;
    }
    bns_buf_init(&out, t->s->env->alloc, 4096);
    rv = etcd_put_header(t->s, &out);
    etcd_task_reply_buf(t, &out, rv);
}

static void on_move_leader(struct bns_grpc_call *c, struct bns_slice msg)
{
    struct etcd_server *s = bns_grpc_arg(c);
    const Etcdserverpb__MoveLeaderRequest *r =
        etcd_decode(c, &etcdserverpb__move_leader_request__descriptor, msg);
    struct etcd_task *t = r == NULL ? NULL : etcd_task_new(s, c);
    const struct etcd_roster_member *to;
    struct etcd_roster roster;
    int rv;

    if (t == NULL)
        return;
    if (s->leader != s->member_id) {
        etcd_task_fail(t, BNS_GRPC_FAILED_PRECONDITION, "etcdserver: not leader");
        return;
    }
    etcd_roster_read(s, &roster);
    to = etcd_roster_find(&roster, r->targetid);
    if (to != NULL && !to->learner && to->id != s->member_id)
        etcd_kv_lease_hand_over(s->kv); /* the next leader knows what is left of each */
    rv = r->targetid == 0 ? BNS_E_NOTFOUND : bns_raft_node_transfer(s->node, r->targetid, moved, t);
    if (rv == BNS_E_NOTFOUND || rv == BNS_E_INVALID)
        etcd_task_fail(t, BNS_GRPC_FAILED_PRECONDITION, "etcdserver: bad leader transferee");
    else if (rv == BNS_E_NOTLEADER)
        etcd_task_fail(t, BNS_GRPC_FAILED_PRECONDITION, "etcdserver: not leader");
    else if (rv != BNS_OK)
        moved(t, rv);
}

#define METHOD(path_, fn)                                                                          \
    (struct bns_grpc_method)                                                                       \
    {                                                                                              \
        .path = path_, .kind = BNS_GRPC_UNARY, .handler = {.on_message = fn}, .arg = s             \
    }

int etcd_cluster_service(struct etcd_server *s)
{
    struct bns_grpc_method *m = s->cluster_methods;

    m[0] = METHOD("/etcdserverpb.Cluster/MemberList", on_member_list);
    m[1] = METHOD("/etcdserverpb.Cluster/MemberAdd", on_member_add);
    m[2] = METHOD("/etcdserverpb.Cluster/MemberRemove", on_member_remove);
    m[3] = METHOD("/etcdserverpb.Cluster/MemberUpdate", on_member_update);
    m[4] = METHOD("/etcdserverpb.Cluster/MemberPromote", on_member_promote);
    m[5] = METHOD("/etcdserverpb.Maintenance/MoveLeader", on_move_leader);
    return bns_grpc_server_methods(s->grpc, m, 6);
}
