/* raft_msg.h - Raft messages as bytes: protobuf wire format, field numbers of the internal RPC:
 * 1 type, 2 group, 3 from, 4 to, 5 term, 6 log_term, 7 index, 8 commit, 9 reject, 10 hint_index,
 * 11 hint_term, 12 read_ctx, 13 entries{1 kind, 2 term, 3 index, 4 data}, 14 snapshot{index, term,
 * conf}, 15 flags. Pure; input is bounded and validated (BNS_E_PROTO).
 */
#ifndef BNS_PROTO_RAFT_MSG_H
#define BNS_PROTO_RAFT_MSG_H

#include "base/buf.h"
#include "proto/raft.h"

#define BNS_RAFT_MSG_ENTRIES_MAX 16384

/* Encodes without copying entry data, which is large and shared: `head` gets the scalar fields and
 * each entry's framing; the bytes on the wire are the slices in the order given. slices_cap >=
 * 2 * entries_count + 1. The slices point into head and into the entries' data; head must not
 * change until they are sent. */
BNS_MUST_CHECK int bns_raft_msg_encode(const struct bns_raft_msg *m, struct bns_buf *head,
                                       struct bns_slice *slices, size_t slices_cap,
                                       size_t *slices_count);

/* Decodes; entries and their data are allocated from `alloc` (one reference each). Free with
 * bns_raft_msg_free. BNS_E_PROTO, BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_raft_msg_decode(struct bns_slice in, const struct bns_alloc *alloc,
                                       struct bns_raft_msg *out, struct bns_err *err);
void bns_raft_msg_free(const struct bns_alloc *alloc, struct bns_raft_msg *m);

BNS_MUST_CHECK int bns_raft_conf_encode(const struct bns_raft_conf *c, struct bns_buf *out);
/* The data of a CONF entry are a Conf, too: what it does not know it skips. */
BNS_MUST_CHECK int bns_raft_conf_decode(struct bns_slice in, struct bns_raft_conf *out);
/* The data of a CONF entry, one reference. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_raft_change_encode(const struct bns_alloc *alloc,
                                          const struct bns_raft_conf_entry *c,
                                          struct bns_rcbuf **out);

#endif
