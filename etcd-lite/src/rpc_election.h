/* rpc_election.h - what the files of the election service share. Thread: the loop. */
#ifndef ETCD_RPC_ELECTION_H
#define ETCD_RPC_ELECTION_H

#include "lock.pb-c.h"
#include "server.h"

/* Who leads: the KeyValue of the key under prefix that was created first, at the state applied
 * here. */
struct etcd_leader_ask {
    struct etcd_server *s;
    struct bns_slice prefix; /* borrowed until done */
    /* Once, perhaps inside the call. status 0: kv is borrowed, empty when nobody leads. */
    void (*done)(struct etcd_leader_ask *a, int status, const char *text, int64_t revision,
                 struct bns_slice kv);
    Etcdserverpb__RangeRequest range; /* its own */
};
void etcd_leader_ask(struct etcd_leader_ask *a);

/* name + "/" in the call's arena; ptr NULL: no memory, the call has been finished. */
struct bns_slice etcd_election_prefix(struct bns_grpc_call *c, ProtobufCBinaryData name);
/* LeaderResponse{header with revision, kv}. */
BNS_MUST_CHECK int etcd_leader_response(struct etcd_server *s, int64_t revision,
                                        struct bns_slice kv, struct bns_buf *out);

/* rpc_election_observe.c: the handler of Observe. */
extern const struct bns_grpc_handler etcd_observe_handler;

#endif
