/* gateway.c - see gateway.h.
 *
 * Every RPC of etcd's v3 API has a path here, also those that are not served: they answer 501 as
 * soon as they are asked, and work as soon as their service is registered.
 *
 * Who may ask, as in etcd: over plain HTTP the Host must be in --host-whitelist (so that a page in
 * a browser cannot reach a server on loopback by a name of its own: DNS rebinding); over TLS any.
 * The headers of CORS go to origins in --cors; OPTIONS is answered here.
 */
#include "gateway.h"

#include <stdio.h>

#include "admin.pb-c.h"
#include "auth.pb-c.h"
#include "lock.pb-c.h"
#include "rpc.pb-c.h"
#include "server.h"

#define ELEMENTS_MIN 65536u
#define ELEMENTS_PER_OP 16u

#define D(name) &etcdserverpb__##name##__descriptor
#define CALL(path, method, name)                                                                   \
    {                                                                                              \
        path, method, D(name##_request), D(name##_response)                                        \
    }
#define KV(path, method, name) CALL("/v3/kv/" path, "/etcdserverpb.KV/" method, name)
#define LEASE(path, method, name) CALL("/v3/" path, "/etcdserverpb.Lease/" method, name)
#define CLUSTER(path, method, name)                                                                \
    CALL("/v3/cluster/member/" path, "/etcdserverpb.Cluster/" method, name)
#define MAINT(path, method, name)                                                                  \
    CALL("/v3/maintenance/" path, "/etcdserverpb.Maintenance/" method, name)
#define AUTH(path, method, name) CALL("/v3/auth/" path, "/etcdserverpb.Auth/" method, name)
#define LOCK(path, method, name) CALL("/v3/lock/" path, "/v3lockpb.Lock/" method, name)
#define ELECTION(path, method, name)                                                               \
    CALL("/v3/election/" path, "/v3electionpb.Election/" method, name)

static const struct bns_grpc_gateway_path paths[] = {
    KV("range", "Range", range),
    KV("put", "Put", put),
    KV("deleterange", "DeleteRange", delete_range),
    KV("txn", "Txn", txn),
    KV("compaction", "Compact", compaction),
    CALL("/v3/watch", "/etcdserverpb.Watch/Watch", watch),
    LEASE("lease/grant", "LeaseGrant", lease_grant),
    LEASE("lease/revoke", "LeaseRevoke", lease_revoke),
    LEASE("lease/keepalive", "LeaseKeepAlive", lease_keep_alive),
    LEASE("lease/timetolive", "LeaseTimeToLive", lease_time_to_live),
    LEASE("lease/leases", "LeaseLeases", lease_leases),
    LEASE("kv/lease/revoke", "LeaseRevoke", lease_revoke),
    LEASE("kv/lease/timetolive", "LeaseTimeToLive", lease_time_to_live),
    LEASE("kv/lease/leases", "LeaseLeases", lease_leases),
    CLUSTER("add", "MemberAdd", member_add),
    CLUSTER("remove", "MemberRemove", member_remove),
    CLUSTER("update", "MemberUpdate", member_update),
    CLUSTER("list", "MemberList", member_list),
    CLUSTER("promote", "MemberPromote", member_promote),
    MAINT("alarm", "Alarm", alarm),
    MAINT("status", "Status", status),
    MAINT("defragment", "Defragment", defragment),
    MAINT("hash", "Hash", hash),
    {"/v3/maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV", D(hash_kvrequest),
     D(hash_kvresponse)},
    MAINT("snapshot", "Snapshot", snapshot),
    MAINT("transfer-leadership", "MoveLeader", move_leader),
    MAINT("downgrade", "Downgrade", downgrade),
    AUTH("enable", "AuthEnable", auth_enable),
    AUTH("disable", "AuthDisable", auth_disable),
    AUTH("status", "AuthStatus", auth_status),
    AUTH("authenticate", "Authenticate", authenticate),
    AUTH("user/add", "UserAdd", auth_user_add),
    AUTH("user/get", "UserGet", auth_user_get),
    AUTH("user/list", "UserList", auth_user_list),
    AUTH("user/delete", "UserDelete", auth_user_delete),
    AUTH("user/changepw", "UserChangePassword", auth_user_change_password),
    AUTH("user/grant", "UserGrantRole", auth_user_grant_role),
    AUTH("user/revoke", "UserRevokeRole", auth_user_revoke_role),
    AUTH("role/add", "RoleAdd", auth_role_add),
    AUTH("role/get", "RoleGet", auth_role_get),
    AUTH("role/list", "RoleList", auth_role_list),
    AUTH("role/delete", "RoleDelete", auth_role_delete),
    AUTH("role/grant", "RoleGrantPermission", auth_role_grant_permission),
    AUTH("role/revoke", "RoleRevokePermission", auth_role_revoke_permission),
    LOCK("lock", "Lock", lock),
    LOCK("unlock", "Unlock", unlock),
    ELECTION("campaign", "Campaign", campaign),
    ELECTION("proclaim", "Proclaim", proclaim),
    ELECTION("leader", "Leader", leader),
    {"/v3/election/observe", "/v3electionpb.Election/Observe", D(leader_request),
     D(leader_response)},
    ELECTION("resign", "Resign", resign),
};

const struct bns_grpc_gateway_path *etcd_gateway_paths(size_t *count)
{
    *count = sizeof paths / sizeof paths[0];
    return paths;
}

/* Of older releases. etcd 3.4 knows only the first, but clients still come with the other. */
static const char *const prefixes_old[] = {"/v3beta/", "/v3alpha/", NULL};

int etcd_gateway_routes(struct etcd_server *s)
{
    const size_t by_ops = ELEMENTS_PER_OP * (size_t)s->opt->txn_ops_max;
    const struct bns_grpc_gateway_config cfg = {
        .paths = paths,
        .paths_count = sizeof paths / sizeof paths[0],
        .elements_max = by_ops > ELEMENTS_MIN ? by_ops : ELEMENTS_MIN,
        .prefixes_old = prefixes_old,
        .prefix_now = "/v3/",
    };
    static const char *const routes[] = {"/v3", "/v3beta", "/v3alpha"};
    struct etcd_gateway *g = &s->gateway;
    int rv = bns_grpc_gateway_new(s->env, s->grpc, &cfg, &g->json);

    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        g->routes[i] = (struct bns_http_route){.method = "*",
                                               .path = routes[i],
                                               .fn = bns_grpc_gateway_serve,
                                               .arg = g->json,
                                               .body_bytes_max = UINT64_MAX,
                                               .prefix = true,
                                               .stream = true};
    return bns_http_server_routes(s->http, g->routes, sizeof routes / sizeof routes[0]);
}

/* ---- who may ask ----------------------------------------------------------------------------- */
/* Is the text in the list (words between commas, "*" for any; NULL and "": any)? */
static bool listed(const char *list, struct bns_slice text)
{
    const char *rest = list;

    if (list == NULL || *list == '\0')
        return true;
    while (*rest != '\0') {
        size_t len = strcspn(rest, ",");
        struct bns_slice word = bns_slice(rest, len);

        if (bns_slice_eq(word, BNS_LIT("*")) || bns_slice_eq(word, text))
            return true;
        rest += len;
        rest += *rest == ',';
    }
    return false;
}

/* Without the port, and without the brackets of an IPv6 address. */
static struct bns_slice host_of(const struct bns_http_req *q)
{
    struct bns_slice v = bns_slice(NULL, 0);
    size_t end;

    if (!bns_http_header(q, "host", &v))
        return v;
    if (v.len > 0 && v.ptr[0] == '[') {
        v = bns_slice_skip(v, 1);
        for (end = 0; end < v.len && v.ptr[end] != ']'; end++) {
        }
        return bns_slice(v.ptr, end);
    }
    for (end = 0; end < v.len && v.ptr[end] != ':'; end++) {
    }
    return bns_slice(v.ptr, end);
}

static void refuse_host(struct bns_http_req *q, struct bns_slice host)
{
    char text[1024];

    (void)snprintf(text, sizeof text,
                   "etcd-lite received your request, but the Host header was unrecognized.\n\n"
                   "To fix this, choose one of the following options:\n"
                   "- Enable TLS, then any HTTPS request will be allowed.\n"
                   "- Add the hostname you want to use to the whitelist in settings:\n"
                   "  etcd-lite --host-whitelist \"%.*s\"\n",
                   (int)(host.len < 256 ? host.len : 256), (const char *)host.ptr); /* fits */
    bns_http_reply_text(q, 421, text);
}

static int add_cors(struct bns_http_req *q, struct bns_slice origin)
{
    int rv = bns_http_set_header(q, "Access-Control-Allow-Methods",
                                 BNS_LIT("POST, GET, OPTIONS, PUT, DELETE"));

    if (rv == BNS_OK)
        rv = bns_http_set_header(q, "Access-Control-Allow-Origin", origin);
    if (rv == BNS_OK)
        rv = bns_http_set_header(q, "Access-Control-Allow-Headers",
                                 BNS_LIT("accept, content-type, authorization"));
    return rv;
}

bool etcd_gateway_before(void *arg, struct bns_http_req *q)
{
    const struct etcd_options *o = ((struct etcd_server *)arg)->opt;
    struct bns_slice origin, host = host_of(q);
    int rv = BNS_OK;

    if (!bns_http_secure(q) && !listed(o->host_whitelist, host)) {
        refuse_host(q, host);
        return true;
    }
    if (listed(o->cors, BNS_LIT("*")))
        rv = add_cors(q, BNS_LIT("*"));
    else if (bns_http_header(q, "origin", &origin) && listed(o->cors, origin))
        rv = add_cors(q, origin);
    if (rv != BNS_OK) {
        bns_http_abort(q);
        return true;
    }
    if (!bns_slice_eq(bns_http_method(q), BNS_LIT("OPTIONS")))
        return false;
    bns_http_reply(q, 200, NULL, bns_slice(NULL, 0));
    return true;
}
