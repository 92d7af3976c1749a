/* raft_cluster.h - members that run bns_raft_node over registers in a simulated world, and clients.
 *
 * Server code is the production code: raft_node, core, WAL, snapshot files, RPC. Clients are
 * harness events: they put, compare-and-set and read linearizably at a member of their choice, and
 * record a history for the checker. After every event of the world the invariants are looked at;
 * at the end faults stop, progress is demanded, and the history is checked.
 *
 * Thread: one. Memory: malloc through the world's allocator; all back at free.
 */
#ifndef BNS_SIM_RAFT_CLUSTER_H
#define BNS_SIM_RAFT_CLUSTER_H

#include "sim/world.h"

struct bns_raft_cluster_config {
    struct bns_world_config world;
    unsigned servers;
    unsigned clients;
    uint64_t run_ns;  /* with faults */
    uint64_t heal_ns; /* then, without */
    uint64_t snapshot_entries, trailing_entries;
    void (*trace)(void *arg, const char *text);
    void *trace_arg;
};

struct bns_raft_cluster_result {
    uint64_t trace_hash, events;
    uint64_t ops_ok, ops_open, snapshots_installed, restarts, applied;
    char text[512]; /* why it failed */
};

struct bns_raft_cluster_config bns_raft_cluster_swarm(uint64_t seed);
/* True: nothing is wrong. */
bool bns_raft_cluster_run(uint64_t seed, const struct bns_raft_cluster_config *cfg,
                          struct bns_raft_cluster_result *out);

#endif
