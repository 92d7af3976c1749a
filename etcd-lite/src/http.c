/* http.c - /health and /version on the client port, with etcd's bodies; app/admin.h's beside them.
 */
#include "server.h"

struct probe {
    struct bns_raft_read read;
    struct etcd_server *s;
    struct bns_http_req *q;
};

#define PROBE_NS (5 * BNS_SEC)

static void reply_json(struct bns_http_req *q, int status, struct bns_slice body)
{
    bns_http_reply(q, status, "application/json", body);
}

static void probed(struct bns_raft_read *r, int code)
{
    struct probe *p = BNS_CONTAINER(r, struct probe, read);

    if (code == BNS_OK)
        reply_json(p->q, 200, BNS_LIT("{\"health\":\"true\",\"reason\":\"\"}"));
    else if (p->s->leader == 0)
        reply_json(p->q, 503, BNS_LIT("{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}"));
    else
        reply_json(p->q, 503,
                   BNS_LIT("{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request "
                           "timed out\"}"));
    bns_free(p->s->env->alloc, p);
}

static bool asks(struct bns_http_req *q, const struct bns_alloc *alloc, const char *name,
                 const char *value)
{
    struct bns_buf v;
    bool yes;

    bns_buf_init(&v, alloc, 64);
    yes = bns_http_param(q, name, &v) == BNS_OK &&
          bns_slice_eq(bns_buf_slice(&v), bns_slice_str(value));
    bns_buf_free(&v);
    return yes;
}

static bool alarmed(struct etcd_server *s, struct bns_http_req *q)
{
    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_CORRUPT) &&
        !asks(q, s->env->alloc, "exclude", "CORRUPT")) {
        reply_json(q, 503, BNS_LIT("{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}"));
        return true;
    }
    if (etcd_kv_alarmed(s->kv, ETCD_ALARM_NOSPACE) &&
        !asks(q, s->env->alloc, "exclude", "NOSPACE")) {
        reply_json(q, 503, BNS_LIT("{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}"));
        return true;
    }
    return false;
}

static void on_health(void *arg, struct bns_http_req *q)
{
    struct etcd_server *s = arg;
    struct probe *p;

    if (alarmed(s, q))
        return;
    if (asks(q, s->env->alloc, "serializable", "true")) {
        reply_json(q, 200, BNS_LIT("{\"health\":\"true\",\"reason\":\"\"}"));
        return;
    }
    if (s->leader == 0) {
        reply_json(q, 503, BNS_LIT("{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}"));
        return;
    }
    p = bns_alloc_zero(s->env->alloc, sizeof *p);
    if (p == NULL) {
        reply_json(q, 503, BNS_LIT("{\"health\":\"false\",\"reason\":\"out of memory\"}"));
        return;
    }
    p->s = s;
    p->q = q;
    p->read.fn = probed;
    bns_raft_node_read(s->node, &p->read, bns_now_ns(s->env) + PROBE_NS);
}

static void on_version(void *arg, struct bns_http_req *q)
{
    (void)arg;
    reply_json(q, 200,
               BNS_LIT("{\"etcdserver\":\"" ETCD_API_VERSION
                       "\",\"etcdcluster\":\"" ETCD_API_VERSION "\",\"storage\":\"" ETCD_API_VERSION
                       "\",\"bonsai\":\"" BNS_VERSION "\"}"));
}

static const char *not_ready(void *arg)
{
    const struct etcd_server *s = arg;

    if (s->stopping)
        return "stopping";
    return s->leader == 0 ? "no leader" : NULL;
}

int etcd_http_routes(struct etcd_server *s)
{
    int rv;

    s->admin = (struct bns_admin){.env = s->env, .not_ready = not_ready, .arg = s};
    rv = bns_admin_routes(&s->admin, s->http);
    if (rv != BNS_OK)
        return rv;
    s->routes[0] = (struct bns_http_route){"GET", "/health", on_health, s, 0, false, false};
    s->routes[1] = (struct bns_http_route){"GET", "/version", on_version, s, 0, false, false};
    return bns_http_server_routes(s->http, s->routes, 2);
}
