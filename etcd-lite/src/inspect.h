/* inspect.h - what a member is made of, as JSON: the parts that lie in the key-value store.
 *
 * Nothing here changes anything. A call looks at so much and no more: who wants all asks again from
 * `next` on, and what comes and goes meanwhile is told once or not at all.
 *
 * Thread: the loop. Errors: BNS_E_NOMEM, BNS_E_TOOBIG from the buffer; BNS_E_NOTFOUND: no such
 * stream. What was appended before an error is to be thrown away.
 */
#ifndef ETCD_INSPECT_H
#define ETCD_INSPECT_H

#include "kv.h"

#define ETCD_INSPECT_LIMIT 1000u      /* of a page, where the request says nothing */
#define ETCD_INSPECT_LIMIT_MAX 10000u /* likewise, at most */
#define ETCD_INSPECT_TOP 10u
#define ETCD_INSPECT_TOP_MAX 100u

struct etcd_inspect_page {
    struct bns_slice from; /* index: the first key to look at */
    uint64_t cursor;       /* leases, watchers: `next` of the page before; 0 = from the start */
    uint32_t limit;        /* keys, leases, streams, or watches of one stream; 1 .. LIMIT_MAX */
    uint32_t top;          /* index: the largest keys of the page; watchers: watches of a stream */
    uint64_t stream;       /* watchers: of this stream alone; 0 = all streams */
};

/* Each appends one JSON object. */
BNS_MUST_CHECK int etcd_inspect_index(const struct etcd_kv *kv, const struct etcd_inspect_page *p,
                                      struct bns_buf *out);
BNS_MUST_CHECK int etcd_inspect_leases(const struct etcd_kv *kv, const struct etcd_inspect_page *p,
                                       uint64_t now_ns, struct bns_buf *out);
BNS_MUST_CHECK int etcd_inspect_watchers(const struct etcd_kv *kv,
                                         const struct etcd_inspect_page *p, struct bns_buf *out);

/* "name": and the bytes, in base64; of more than ETCD_INSPECT_KEY_MAX the first ones, and
 * "name_len": behind them. */
#define ETCD_INSPECT_KEY_MAX 1024u
BNS_MUST_CHECK int etcd_inspect_bytes(struct bns_buf *out, const char *name, struct bns_slice v);
/* A JSON string: text that came from outside. */
BNS_MUST_CHECK int etcd_inspect_text(struct bns_buf *out, struct bns_slice text);

#endif
