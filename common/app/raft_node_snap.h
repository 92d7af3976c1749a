/* raft_node_snap.h - snapshot streams between members. Private to common/app/raft_node*.c. */
#ifndef BNS_APP_RAFT_NODE_SNAP_H
#define BNS_APP_RAFT_NODE_SNAP_H

#include "app/raft_node_int.h"

/* One request of a stream; answered when the chunk is with the state machine. */
void bns_rn_snap_request(struct bns_raft_node *n, struct bns_rpc_request *r, uint64_t from,
                         struct bns_slice payload);

#endif
