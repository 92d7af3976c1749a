/* lease_ask.h - questions about a lease that only the leader may answer, asked on any member.
 *
 * Thread: the loop.
 * Memory: an ask is the asker's; it stays until done has run, exactly once.
 * Bounds: ASKS_MAX at a time; each ends at its deadline.
 */
#ifndef ETCD_LEASE_ASK_H
#define ETCD_LEASE_ASK_H

#include "app/raft_node.h"
#include "io/grpc.h"
#include "lease_kv.h"

struct etcd_server;

struct etcd_ask {
    struct bns_list node; /* service.retry or service.waiting */
    struct etcd_server *s;
    int64_t id;
    bool look; /* TimeToLive; else a renewal */
    bool keys; /* with look */
    bool reading, waiting;
    bool asked;                   /* the client waits, the server has counted it */
    struct bns_rpc_request *from; /* another member asks */
    uint64_t deadline_ns;
    struct bns_raft_read read;
    struct etcd_lease_wait wait;
    struct etcd_lease_look looking;
    int64_t ttl;         /* the answer to a renewal */
    struct bns_buf body; /* the answer to a look: LeaseTimeToLiveResponse without its header */
    /* BNS_OK; BNS_E_NOTFOUND: no such lease; BNS_E_NOTLEADER, TIMEOUT, SHUTDOWN, BUSY, NOMEM. The
     * ask is the asker's again; body is freed after done. May run inside etcd_ask(). */
    void (*done)(struct etcd_ask *a, int code);
    void *arg;
};

struct etcd_lease_service {
    struct bns_list retry;   /* struct etcd_ask: no leader to ask just now */
    struct bns_list waiting; /* struct etcd_ask: the store will tell */
    struct bns_list streams; /* KeepAlive calls */
    struct bns_timer timer;
    size_t asks;
    struct bns_grpc_method methods[5];
};

/* The varint in this field of a message, the last one when there are several, 0 when there is none.
 * BNS_E_CORRUPT, BNS_E_PROTO: another wire type. */
BNS_MUST_CHECK int etcd_lease_field(struct bns_slice msg, uint32_t field, int64_t *out);

/* id, look, keys, done, arg are set, the rest is zero. */
void etcd_ask(struct etcd_server *s, struct etcd_ask *a);
/* For config.on_request of the Raft node; arg: the server. */
void etcd_ask_request(void *arg, struct bns_rpc_request *r, uint64_t from, uint16_t method,
                      struct bns_slice payload);
void etcd_asks_init(struct etcd_server *s);
void etcd_asks_role(struct etcd_server *s); /* another leader, or none */
void etcd_asks_stop(struct etcd_server *s); /* ends those that wait here */

#endif
