/* kvbytes.h - a stored KeyValue message as bytes: written once, stored and sent as it is.
 *
 * Fields in ascending order, zero fields left out, as etcd's own encoder writes them, so that
 * HashKV over these bytes equals a real etcd's. A tombstone holds field 1 (key) only.
 */
#ifndef ETCD_KVBYTES_H
#define ETCD_KVBYTES_H

#include "base/rcbuf.h"

struct etcd_kvview {
    struct bns_slice key;
    struct bns_slice value;
    int64_t create;
    int64_t mod; /* 0 = tombstone */
    int64_t version;
    int64_t lease;
};

/* One reference; NULL when out of memory. */
struct bns_rcbuf *etcd_kvbytes_make(const struct bns_alloc *a, const struct etcd_kvview *v);

/* The slices point into `in`. BNS_E_CORRUPT. */
BNS_MUST_CHECK int etcd_kvbytes_parse(struct bns_slice in, struct etcd_kvview *out);

#endif
