/* force.h - --force-new-cluster: this member alone, with the data it has. */
#ifndef ETCD_FORCE_H
#define ETCD_FORCE_H

#include "proto/raft.h"
#include "server.h"

/* out->context is borrowed from `bytes`, which the caller frees. BNS_E_INVALID: this member is not
 * one of the cluster's; BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_force(struct etcd_server *s, struct bns_raft_conf_entry *out,
                              struct bns_buf *bytes, struct bns_err *err);

#endif
