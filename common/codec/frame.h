/* frame.h - the frame of the internal node-to-node protocol, and its HELLO.
 *
 *   offset 0  u32  len     bytes after this word: 20 + payload, payload <= BNS_FRAME_PAYLOAD_MAX
 *          4  u32  crc     CRC-32C of everything behind it
 *          8  u8   ver     1
 *          9  u8   kind    enum bns_frame_kind
 *         10  u16  method
 *         12  u32  aux     request: ms left; response: status; credit: bytes
 *         16  u64  id
 *         24  payload                                                   all little-endian
 *
 * Thread:  any; a reader belongs to one connection.
 * Memory:  a frame's payload is borrowed until the next call on the reader, or until the input goes
 *          away (a frame that arrived in one piece is not copied).
 */
#ifndef BNS_CODEC_FRAME_H
#define BNS_CODEC_FRAME_H

#include "base/buf.h"

#define BNS_FRAME_HEAD_BYTES 24u
#define BNS_FRAME_PAYLOAD_MAX (64u * 1024 * 1024 - 20)
#define BNS_FRAME_VERSION 1

enum bns_frame_kind {
    BNS_FRAME_REQUEST = 0,
    BNS_FRAME_RESPONSE = 1,
    BNS_FRAME_ONE_WAY = 2,
    BNS_FRAME_DATA = 3,
    BNS_FRAME_END = 4,
    BNS_FRAME_CANCEL = 5,
    BNS_FRAME_PING = 6,
    BNS_FRAME_PONG = 7,
    BNS_FRAME_GO_AWAY = 8,
    BNS_FRAME_CREDIT = 9,
    BNS_FRAME_HELLO = 10, /* the first frame each way */
};

struct bns_frame {
    uint8_t kind;
    uint16_t method;
    uint32_t aux;
    uint64_t id;
    struct bns_slice payload;
};

/* Writes the 24 bytes that stand before a payload of n slices; f->payload is ignored. The slices
 * are read for the checksum and sent by the caller behind the head. BNS_E_TOOBIG. */
BNS_MUST_CHECK int bns_frame_head(const struct bns_frame *f, const struct bns_slice *v, size_t n,
                                  uint8_t dst[BNS_FRAME_HEAD_BYTES]);
/* Appends the whole frame, payload copied. BNS_E_NOMEM, BNS_E_TOOBIG. */
BNS_MUST_CHECK int bns_frame_encode(const struct bns_frame *f, struct bns_buf *out);

struct bns_frame_reader {
    struct bns_buf part; /* a frame that came in pieces */
    uint32_t payload_max;
    bool taken; /* `part` holds the frame given out last */
    int failed;
};

/* payload_max: raise it once the peer is known (a stranger needs no more than a HELLO). */
void bns_frame_reader_init(struct bns_frame_reader *r, const struct bns_alloc *alloc,
                           uint32_t payload_max);
void bns_frame_reader_limit(struct bns_frame_reader *r, uint32_t payload_max);
void bns_frame_reader_free(struct bns_frame_reader *r);

/* Takes bytes from the front of *in. BNS_OK: *out is the next frame, call again. BNS_E_AGAIN: *in
 * is used up. BNS_E_TOOBIG (before anything is allocated for it), BNS_E_PROTO (version, kind,
 * length), BNS_E_CORRUPT (checksum), BNS_E_NOMEM: final. */
BNS_MUST_CHECK int bns_frame_next(struct bns_frame_reader *r, struct bns_slice *in,
                                  struct bns_frame *out);

#define BNS_HELLO_BYTES 48u

/* Payload of HELLO: "BNSR" | u8 ver_min | u8 ver_max | u16 0 | cluster_id[16] | u64 node_id |
 * u64 incarnation | u64 features. Bytes behind are room for later versions and ignored. */
struct bns_hello {
    uint8_t ver_min;
    uint8_t ver_max;
    uint8_t cluster_id[16];
    uint64_t node_id;
    uint64_t incarnation;
    uint64_t features;
};

void bns_hello_encode(const struct bns_hello *h, uint8_t dst[BNS_HELLO_BYTES]);
/* BNS_E_PROTO: too short, another magic, or no version of ours within ver_min..ver_max. */
BNS_MUST_CHECK int bns_hello_decode(struct bns_slice in, struct bns_hello *out,
                                    struct bns_err *err);

#endif
