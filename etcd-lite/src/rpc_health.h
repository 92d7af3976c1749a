/* rpc_health.h - the service grpc.health.v1.Health. Thread: the loop. */
#ifndef ETCD_RPC_HEALTH_H
#define ETCD_RPC_HEALTH_H

#include "io/grpc.h"

struct etcd_server;

struct etcd_health {
    struct bns_list watchers; /* calls of Watch */
    struct bns_grpc_method methods[2];
};

BNS_MUST_CHECK int etcd_health_service(struct etcd_server *s);
void etcd_health_end(struct etcd_server *s); /* the server stops: those who watch are told */

#endif
