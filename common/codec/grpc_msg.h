/* grpc_msg.h - gRPC's own small formats: message framing, timeouts, status texts.
 *
 * Source:  gRPC "PROTOCOL-HTTP2".
 * Thread:  any; a splitter belongs to one stream.
 * Memory:  a message is borrowed until the next call on the splitter (or until the input it lies in
 *          goes away: a message that arrived in one piece is not copied).
 */
#ifndef BNS_CODEC_GRPC_MSG_H
#define BNS_CODEC_GRPC_MSG_H

#include "base/buf.h"

#define BNS_GRPC_PREFIX_BYTES 5
#define BNS_GRPC_TIMEOUT_BYTES 10 /* 8 digits, unit, NUL */

struct bns_grpc_split {
    struct bns_buf body; /* of a message that came in pieces */
    uint32_t bytes_max;
    uint32_t want; /* bytes of the message being read */
    uint8_t head[BNS_GRPC_PREFIX_BYTES];
    uint8_t head_len;
    int failed; /* the error that ended this stream, BNS_OK before */
};

struct bns_grpc_msg {
    struct bns_slice bytes;
    bool compressed;
};

void bns_grpc_split_init(struct bns_grpc_split *s, const struct bns_alloc *alloc,
                         uint32_t bytes_max);
void bns_grpc_split_free(struct bns_grpc_split *s);

/* Takes bytes from the front of *in. BNS_OK: *out is the next message, call again. BNS_E_AGAIN: *in
 * is used up. BNS_E_TOOBIG: a message says that it is longer than bytes_max (nothing was allocated
 * for it). BNS_E_PROTO: flag byte neither 0 nor 1. BNS_E_NOMEM. An error is final. */
BNS_MUST_CHECK int bns_grpc_split_next(struct bns_grpc_split *s, struct bns_slice *in,
                                       struct bns_grpc_msg *out);
/* Whether the stream may end here: not inside a message. */
bool bns_grpc_split_idle(const struct bns_grpc_split *s);

void bns_grpc_prefix(uint8_t dst[BNS_GRPC_PREFIX_BYTES], bool compressed, uint32_t len);

/* grpc-timeout: 1..8 digits and one of H M S m u n. BNS_E_INVALID; never overflows (8 digits of
 * hours stay below 2^64 ns only up to 5,124,095 h: more saturates to BNS_NEVER - 1). */
BNS_MUST_CHECK int bns_grpc_timeout_parse(struct bns_slice text, uint64_t *out_ns);
/* The finest unit that fits in 8 digits, rounded up; with a NUL. */
void bns_grpc_timeout_format(uint64_t ns, char dst[BNS_GRPC_TIMEOUT_BYTES]);

/* grpc-message: bytes outside space..~ and '%' itself leave as %XX. */
BNS_MUST_CHECK int bns_grpc_percent_encode(struct bns_buf *out, struct bns_slice text);
/* Takes anything: a '%' that two hex digits do not follow stays as it is, as the protocol asks. */
BNS_MUST_CHECK int bns_grpc_percent_decode(struct bns_buf *out, struct bns_slice text);

#endif
