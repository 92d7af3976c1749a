/* raft_cluster_int.h - what the parts of the cluster of raft_nodes share. For common/sim alone. */
#ifndef BNS_SIM_RAFT_CLUSTER_INT_H
#define BNS_SIM_RAFT_CLUSTER_INT_H

#include "app/raft_node.h"
#include "sim/lin.h"
#include "sim/raft_cluster.h"

#define SERVERS_MAX 8u /* spares included */
#define CLIENTS_MAX 8u
#define OPS_MAX 131072u
#define LOG_MAX 65536u

struct cluster;

struct op {
    struct cluster *c;
    uint64_t begun_ns;
    unsigned client, server;
    size_t slot; /* in the history */
    uint64_t id; /* unique */
    bool active;
    struct bns_register_cmd cmd;
};

struct server {
    struct cluster *c;
    unsigned id;
    struct bns_raft_node *node;
    struct bns_log log; /* of its env, into the trace */
    void *sm;
    bool up;
    bool stopping, whole;
    uint64_t stop_ns; /* when the stop began */
    /* raft_cluster_members.c */
    bool asked_for;            /* its addition: it may be done at any time, and never again */
    bool belonged, removed;    /* as far as anybody has applied */
    uint64_t removed_index;    /* who has applied that far knows it */
    bool leaves;               /* it knows, and ends */
    struct bns_raft_conf conf; /* that it has applied, as last looked at */
    uint64_t transfer_to;      /* member that it hands over to; 0: to any */
};

struct cluster {
    struct bns_world *w;
    const struct bns_raft_cluster_config *cfg;
    struct bns_raft_cluster_result *out;
    unsigned hosts; /* servers and spares */
    struct server servers[SERVERS_MAX];
    struct op ops[CLIENTS_MAX]; /* one open operation a client */
    struct bns_lin_op *history;
    size_t history_count;
    uint64_t position, next_id;
    struct bns_prng stop_prng, members_prng;
    uint64_t conf_index;          /* members are those of `conf` since then */
    struct bns_raft_conf conf;    /* the newest that anybody has applied */
    uint64_t digests[LOG_MAX];    /* by index; 0 = not applied anywhere yet */
    uint64_t *by_id;              /* id -> index at which it was applied */
    uint64_t last[BNS_REGISTERS]; /* a value that each key had lately */
    bool failed, stopping;
};

/* raft_cluster.c */
void cluster_complain(struct cluster *c, const char *fmt, ...) BNS_PRINTF(2, 3);
void cluster_stop_server(struct bns_env *env, void *server); /* in good order */

/* raft_cluster_members.c */
/* Of the first servers `peers` has the addresses. */
void cluster_members_config(struct server *s, struct bns_raft_node_config *cfg,
                            struct bns_raft_peer_addr peers[SERVERS_MAX]);
/* Where all others are; before the start. */
int cluster_members_addresses(struct server *s);
void cluster_members_start(struct cluster *c);                    /* the operator */
void cluster_members_applied(struct server *s, uint64_t applied); /* it has applied more */
void cluster_members_check(struct cluster *c);                    /* in the end */
bool cluster_members_converge(const struct server *s);            /* it must be there in the end */

#endif
