/* raft_world.h - the fast simulator: Raft cores alone, in one virtual world, under a swarm of
 * faults.
 *
 * One run = one seed: 60 virtual seconds in which the seed decides network, disks, clocks, crashes
 * and load, then everything is healed and the group must elect, converge and answer every client.
 * The invariants of raft_world_check.c are checked after every event.
 *
 * Thread: one. Same options, same run: result.hash covers every event.
 */
#ifndef BNS_SIM_RAFT_WORLD_H
#define BNS_SIM_RAFT_WORLD_H

#include "base/err.h"

struct bns_raft_world_options {
    uint64_t seed;
    uint32_t mutant;      /* planted bug, 0 = none */
    uint32_t nodes;       /* 0 = 5 */
    uint32_t learners;    /* so many of them, the last ones */
    uint64_t duration_ns; /* of the faults; 0 = 60 s */
    bool trace;           /* each event as a line on stderr */
};

struct bns_raft_world_result {
    bool ok;
    char bad[200]; /* what was violated, empty when ok */
    uint64_t hash, events, now_ns;
    uint64_t elections, committed, writes, reads, crashes, snapshots, messages;
    uint64_t changes, transfers;
};

/* False when the seed showed a violation (result->bad), or memory ran out. */
bool bns_raft_world_run(const struct bns_raft_world_options *opt,
                        struct bns_raft_world_result *result);

#endif
