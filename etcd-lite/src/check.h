/* check.h - what etcd refuses before it proposes: pure functions over a decoded request.
 *
 * Thread: any. Memory: scratch from `alloc`, freed before return. Nothing is kept.
 * Result: true = may go on. false = *out holds the gRPC status and etcd's exact text.
 */
#ifndef ETCD_CHECK_H
#define ETCD_CHECK_H

#include "base/alloc.h"
#include "base/err.h"
#include "rpc.pb-c.h"

/* A gRPC status and a constant text; code 0 = fine (text NULL). */
struct etcd_status {
    int code;
    const char *text;
};

struct etcd_limits {
    uint32_t txn_ops_max; /* 0 = 128 */
};

BNS_MUST_CHECK bool etcd_check_range(const Etcdserverpb__RangeRequest *r, struct etcd_status *out);
BNS_MUST_CHECK bool etcd_check_put(const Etcdserverpb__PutRequest *r, struct etcd_status *out);
BNS_MUST_CHECK bool etcd_check_delete(const Etcdserverpb__DeleteRangeRequest *r,
                                      struct etcd_status *out);
BNS_MUST_CHECK bool etcd_check_txn(const Etcdserverpb__TxnRequest *r,
                                   const struct etcd_limits *limits, const struct bns_alloc *alloc,
                                   struct etcd_status *out);

/* Only ranges in both branches: a read, never proposed. A nested txn counts as a write. */
bool etcd_txn_readonly(const Etcdserverpb__TxnRequest *r);
/* A read-only txn that needs no ReadIndex: all its ranges are serializable. */
bool etcd_txn_serializable(const Etcdserverpb__TxnRequest *r);

/* What a write may add to the store, as etcd's quota counts it: key + value + 256 a put. */
uint64_t etcd_cost_put(const Etcdserverpb__PutRequest *r);
uint64_t etcd_cost_txn(const Etcdserverpb__TxnRequest *r); /* the dearer branch; 0 = no put */

#endif
