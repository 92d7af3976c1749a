/* discovery.h - --discovery-srv: the members of a new cluster, told by SRV records. */
#ifndef ETCD_DISCOVERY_H
#define ETCD_DISCOVERY_H

#include "options.h"

/* Sets o->initial_cluster: what an earlier start has kept in the data directory, or what the name
 * servers say now (it blocks, for seconds). o's name, data directory and advertised peer URLs are
 * set. BNS_E_INVALID: the records do not fit together or to the flags; BNS_E_NOTFOUND, BNS_E_IO,
 * BNS_E_PROTO: as bns_srv_lookup(); BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_discover(struct etcd_options *o, struct bns_arena *arena,
                                 struct bns_err *err);

/* Keeps it, durably, before the directory is anybody's; nothing to do without --discovery-srv.
 * Blocking. BNS_E_IO, BNS_E_NOSPACE. */
BNS_MUST_CHECK int etcd_discovery_keep(const struct etcd_options *o, struct bns_vfs *vfs,
                                       struct bns_err *err);

#endif
