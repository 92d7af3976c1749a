/* cluster.h - who belongs to the cluster, and how that changes.
 *
 * Thread: the loop.
 */
#ifndef ETCD_CLUSTER_H
#define ETCD_CLUSTER_H

#include "app/raft_node.h"
#include "io/grpc.h"
#include "kv.h"
#include "members.h"

/* Planted bugs (BNS_MUTANT): who was removed stays in the list of members; who was promoted is a
 * learner there for ever; who missed its own removal is not told of it; a learner answers
 * linearizable reads from what it has. */
#define ETCD_MUTANT_MEMBER_STAYS 132
#define ETCD_MUTANT_PROMOTED_UNSAID 133
#define ETCD_MUTANT_REMOVED_UNTOLD 134
#define ETCD_MUTANT_LEARNER_READS 135

struct etcd_server;
struct etcd_task;

/* ---- the members as of now (roster.c) -------------------------------------------------------- */

/* The store's; as long as the log says nothing, the flags' or what a member that joins was told. */
void etcd_roster_read(const struct etcd_server *s, struct etcd_roster *out);
/* From a Member; m is zero before. */
void etcd_roster_take(struct bns_slice message, struct etcd_roster_member *m);
/* BNS_E_INVALID: a URL that cannot be dialled. */
BNS_MUST_CHECK int etcd_peer_addr(uint64_t id, const struct etcd_urls *urls,
                                  struct bns_raft_peer_addr *out, struct bns_err *err);
/* Appends every member as `field`: a Member with what it has published. BNS_E_NOMEM. */
BNS_MUST_CHECK int etcd_roster_put(const struct etcd_server *s, uint32_t field,
                                   struct bns_buf *out);
BNS_MUST_CHECK int etcd_roster_put_one(const struct etcd_server *s, uint32_t field,
                                       const struct etcd_roster_member *m, struct bns_buf *out);

/* ---- changes (cluster.c) --------------------------------------------------------------------- */

enum etcd_change_kind {
    ETCD_CHANGE_ADD = 1,
    ETCD_CHANGE_ADD_LEARNER = 2,
    ETCD_CHANGE_PROMOTE = 3,
    ETCD_CHANGE_REMOVE = 4,
    ETCD_CHANGE_UPDATE = 5
};

/* May this be done now? Code 0, or etcd's status and text. On the leader. */
struct etcd_status etcd_cluster_check(const struct etcd_server *s, enum etcd_change_kind kind,
                                      const struct etcd_roster_member *m);

/* One request, here or sent on to the leader; it repeats itself while there is none, until its
 * deadline, but never what may have happened. */
struct etcd_change {
    struct bns_list node; /* server.changes */
    struct etcd_server *s;
    enum etcd_change_kind kind;
    struct etcd_roster_member m; /* id, peer URLs */
    uint64_t deadline_ns;
    struct bns_rpc_request *from; /* another member asks */
    struct etcd_waiter wait;
    bool waiting; /* for the apply */
    bool asking;  /* Raft's node or another member answers */
    bool sent;    /* ... another member, by the deadline: until then it cannot be given up */
    bool retrying, proposed, applied;
    /* Once, maybe inside the call. body: the answer without its header, when status is 0. */
    void (*done)(struct etcd_change *c, struct etcd_status status, struct bns_slice body);
    void *arg;
};

/* kind, m, done, arg are set, the rest is zero. */
void etcd_change(struct etcd_server *s, struct etcd_change *c);
/* One of another member; arg as for config.on_request. */
#define ETCD_METHOD_CHANGE (BNS_RAFT_NODE_METHOD + 2)
void etcd_change_request(struct etcd_server *s, struct bns_rpc_request *r,
                         struct bns_slice payload);

void etcd_cluster_init(struct etcd_server *s);
void etcd_cluster_role(struct etcd_server *s); /* another leader: asks again, says who belongs */
void etcd_cluster_stop(struct etcd_server *s); /* ends those that wait */
/* Dials who belongs, hangs up on who does not. */
void etcd_cluster_sync(struct etcd_server *s);

#endif
