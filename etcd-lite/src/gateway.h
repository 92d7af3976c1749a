/* gateway.h - etcd's JSON gateway: its paths, CORS and the list of host names.
 *
 * Thread: the loop.
 */
#ifndef ETCD_GATEWAY_H
#define ETCD_GATEWAY_H

#include "io/grpc_gateway.h"

struct etcd_server;
struct etcd_options;

struct etcd_gateway {
    struct bns_grpc_gateway *json;
    struct bns_http_route routes[3];
};

/* After the gRPC and HTTP servers are made. Services may be registered later. */
BNS_MUST_CHECK int etcd_gateway_routes(struct etcd_server *s);
const struct bns_grpc_gateway_path *etcd_gateway_paths(size_t *count); /* for tests */
/* For bns_http_config: --host-whitelist and --cors; arg is the server. */
bool etcd_gateway_before(void *arg, struct bns_http_req *q);

#endif
