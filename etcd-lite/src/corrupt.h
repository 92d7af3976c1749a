/* corrupt.h - do the members hold the same data? HashKV compared over the peer connections.
 *
 * Thread: the loop.
 */
#ifndef ETCD_CORRUPT_H
#define ETCD_CORRUPT_H

#include "app/raft_node.h"
#include "kv.h"

struct etcd_server;
struct etcd_corrupt_round;

#define ETCD_METHOD_HASH (BNS_RAFT_NODE_METHOD + 8)
#define ETCD_CORRUPT_MEMBERS_MAX (BNS_RAFT_PEERS_MAX + 1)

/* What one member said. */
struct etcd_corrupt_vote {
    uint64_t id;
    bool known; /* it answered */
    uint32_t hash;
    int64_t compacted; /* only hashes over the same history are compared */
};

/* Into odd[] the members that differ from what a quorum of `members` holds; the id 0 alone when
 * there are differences and no quorum agrees. votes[0] says which history is compared. Returns how
 * many. Pure. */
size_t etcd_corrupt_judge(const struct etcd_corrupt_vote *votes, size_t count, size_t members,
                          uint64_t odd[ETCD_CORRUPT_MEMBERS_MAX]);

struct etcd_corrupt {
    struct etcd_corrupt_round *round; /* the one under way */
    struct bns_list asked;            /* hashes that other members wait for */
    size_t asked_count;
    uint64_t next_ns, compact_next_ns;
    int64_t compacted; /* at the last check because of a compaction */
    bool initial;      /* still to be done */
    struct bns_counter *m_rounds, *m_found;
};

void etcd_corrupt_init(struct etcd_server *s);
void etcd_corrupt_tick(struct etcd_server *s); /* begins a round when one is due; asks again */
void etcd_corrupt_stop(struct etcd_server *s); /* before the Raft node closes */
/* A request of another member with ETCD_METHOD_HASH. */
void etcd_corrupt_request(struct etcd_server *s, struct bns_rpc_request *r,
                          struct bns_slice payload);

#endif
