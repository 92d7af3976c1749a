/* sim_limits.h - a run of a seed, made smaller: fewer nodes and clients, less time, fewer faults.
 *
 * A seed that fails is easier to understand when less happens in it. Each limit only takes away
 * from what etcd_sim_swarm() drew. The run is another one, with its own trace; that it still fails
 * is for the caller to try (`bonsai sim shrink` does).
 *
 * Thread: any. Memory: nothing is kept.
 */
#ifndef ETCD_SIM_SIM_LIMITS_H
#define ETCD_SIM_SIM_LIMITS_H

#include <stdio.h>

#include "daemon.h"

/* name: nodes, clients, lanes, keys, workers, spares, members, auth, seconds (with faults), faults
 * (a list with commas of those that stay; "none"). BNS_E_INVALID with what is possible; *cfg is
 * then unchanged. */
BNS_MUST_CHECK int etcd_sim_limit(struct etcd_sim_config *cfg, const char *name, const char *value,
                                  struct bns_err *err);
/* Prints the configuration as the limits that give it: "--nodes 3 ... --faults loss,crash". */
void etcd_sim_describe(const struct etcd_sim_config *cfg, FILE *to);

#endif
