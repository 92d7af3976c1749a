/* raft_cluster.h - members that run bns_raft_node in a simulated world, and their clients.
 *
 * What is replicated is the subject: the registers of sim/register_sm.h, or a real state machine
 * that can be seen as registers (etcd-lite's store: a key each). Server code is the production
 * code: raft_node, core, WAL, snapshot files, RPC. Clients are harness events: they put,
 * compare-and-set and read linearizably at a member of their choice, and record a history for the
 * checker. Servers are also stopped in good order in the middle of it all, run out of memory and
 * of disk. After every event of the world the invariants are looked at; at the end faults stop,
 * progress is demanded, and the history is checked.
 *
 * Thread: one. Memory: malloc through the world's allocator; all back at free.
 */
#ifndef BNS_SIM_RAFT_CLUSTER_H
#define BNS_SIM_RAFT_CLUSTER_H

#include "sim/register_sm.h"
#include "sim/world.h"

/* Tells the harness that command `id` was applied on this server (index 0: not known). */
void bns_raft_cluster_applied(void *server, uint64_t index, uint64_t id, bool done);

/* The state machine is closed. It has given back all memory when `whole`. */
void bns_raft_cluster_closed(void *server, bool whole);

typedef void bns_cluster_read_done(void *arg, uint64_t value); /* 0 = never put */

struct bns_cluster_subject {
    int (*open)(struct bns_env *env, void *server, void **sm, struct bns_err *err);
    void (*died)(void *sm); /* the node is gone; may be NULL */
    /* In good order, behind bns_raft_node_close(); then bns_raft_cluster_closed(). */
    void (*close)(struct bns_env *env, void *server, void *sm);
    const struct bns_sm_ops *(*ops)(void);
    uint64_t (*applied)(const void *sm);
    /* Then bns_raft_cluster_applied() on this server, or never. */
    int (*propose)(struct bns_env *env, void *server, void *sm, struct bns_raft_node *n,
                   const struct bns_register_cmd *cmd);
    void (*read)(struct bns_env *env, void *sm, uint8_t key, bns_cluster_read_done *done,
                 void *arg);
    /* The configuration that it has applied; NULL: such a subject has no spares. */
    const struct bns_raft_conf *(*conf)(const void *sm);
    bool tells_index; /* every server tells every command with its index */
};

extern const struct bns_cluster_subject bns_cluster_registers;

struct bns_raft_cluster_config {
    const struct bns_cluster_subject *subject;
    struct bns_world_config world;
    unsigned servers;
    unsigned spares; /* members to come; 0: nobody changes the members */
    unsigned clients;
    uint64_t run_ns;  /* with faults */
    uint64_t heal_ns; /* then, without */
    uint64_t snapshot_entries, trailing_entries;
    uint64_t reserve_bytes;
    double stop; /* chance, every 100 ms, that a server is stopped in good order */
    void (*trace)(void *arg, const char *text);
    void *trace_arg;
};

struct bns_raft_cluster_result {
    uint64_t trace_hash, events;
    uint64_t slowest_ns; /* answered operation, of those begun after 2 s */
    uint64_t ops_ok, ops_open, snapshots_installed, restarts, applied, stops;
    /* with spares: changes applied, those of more than one voter, learners that became voters,
     * servers that ended because they were removed, leaders moved as they were asked to */
    uint64_t changes, joints, promotions, leaves, moves;
    char text[2048]; /* why it failed */
};

struct bns_raft_cluster_config bns_raft_cluster_swarm(uint64_t seed);
/* The same, and members are added, promoted, removed, the leader moved. */
struct bns_raft_cluster_config bns_raft_cluster_swarm_members(uint64_t seed);
/* True: nothing is wrong. */
bool bns_raft_cluster_run(uint64_t seed, const struct bns_raft_cluster_config *cfg,
                          struct bns_raft_cluster_result *out);

#endif
