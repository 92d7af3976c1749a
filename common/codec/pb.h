/* pb.h - protobuf with protobuf-c: arenas, a guard before unpack, proto3's way of packing, and
 * helpers to write messages by hand.
 *
 * Schemas are syntax = "proto2" (the wire format is the same; presence is visible). The guard walks
 * the bytes along the descriptor before protobuf-c sees them, because protobuf-c allocates what the
 * bytes ask for, recurses as deep as they nest, and cuts strings at a NUL.
 *
 * Thread:  any.
 * Memory:  a message unpacked into an arena dies with it; never call
 *          protobuf_c_message_free_unpacked on it.
 */
#ifndef BNS_CODEC_PB_H
#define BNS_CODEC_PB_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"

struct bns_pb_limits {
    size_t bytes;        /* of the whole input; 0 = 4 MiB */
    uint32_t depth;      /* nested messages; 0 = 64 (unpack takes about 1 KiB of stack a level) */
    uint32_t elements;   /* fields and packed elements in all; 0 = 1,000,000 */
    bool refuse_unknown; /* fields the descriptor does not know are an error */
};

/* BNS_E_TOOBIG: over a limit. BNS_E_PROTO: not protobuf, a field with the wrong wire type, a string
 * that is not UTF-8 or holds a NUL, a group, a required field missing, an unknown field when those
 * are refused. err names the field. `limits` may be NULL. */
BNS_MUST_CHECK int bns_pb_guard(const ProtobufCMessageDescriptor *desc, struct bns_slice in,
                                const struct bns_pb_limits *limits, struct bns_err *err);

/* Guard, then unpack into the arena. As above, and BNS_E_NOMEM (arena full or no memory). */
BNS_MUST_CHECK int bns_pb_unpack(const ProtobufCMessageDescriptor *desc, struct bns_slice in,
                                 struct bns_arena *arena, const struct bns_pb_limits *limits,
                                 ProtobufCMessage **out, struct bns_err *err);

ProtobufCAllocator bns_pb_allocator(struct bns_arena *arena); /* free does nothing */

/* Clears the has_ flags of optional scalars that are zero, in nested messages too, so that they are
 * left out as proto3 does. Members of a oneof keep their presence. Strings: an optional string that
 * is "" is set to NULL. */
void bns_pb_drop_zeros(ProtobufCMessage *msg);

/* Appends the packed message (presence as it is; call bns_pb_drop_zeros first for proto3's form).
 * BNS_E_NOMEM, BNS_E_TOOBIG: `out` is unchanged. */
BNS_MUST_CHECK int bns_pb_pack(const ProtobufCMessage *msg, struct bns_buf *out);
/* Packs into the arena. BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_pb_pack_arena(const ProtobufCMessage *msg, struct bns_arena *arena,
                                     struct bns_slice *out);

/* ---- by hand: each appends one field; zero and empty are left out, as proto3 does ------------ */
BNS_MUST_CHECK int bns_pb_put_u64(struct bns_buf *out, uint32_t field,
                                  uint64_t v); /* also bool, enum */
BNS_MUST_CHECK int bns_pb_put_i64(struct bns_buf *out, uint32_t field, int64_t v); /* also int32 */
BNS_MUST_CHECK int bns_pb_put_s64(struct bns_buf *out, uint32_t field,
                                  int64_t v); /* sint: zigzag */
BNS_MUST_CHECK int bns_pb_put_fixed64(struct bns_buf *out, uint32_t field, uint64_t v);
BNS_MUST_CHECK int bns_pb_put_bytes(struct bns_buf *out, uint32_t field, struct bns_slice v);
/* A length-delimited field even when it is empty: elements of repeated fields, members of a oneof,
 * messages that are present. */
BNS_MUST_CHECK int bns_pb_put_bytes_always(struct bns_buf *out, uint32_t field, struct bns_slice v);
BNS_MUST_CHECK int bns_pb_put_u64_always(struct bns_buf *out, uint32_t field, uint64_t v);
/* Only the tag and the length: `len` bytes of content follow by another way. */
BNS_MUST_CHECK int bns_pb_put_len(struct bns_buf *out, uint32_t field, uint64_t len);

size_t bns_pb_len_u64(uint32_t field, uint64_t v);     /* bytes of the whole field; 0 when v is 0 */
size_t bns_pb_len_bytes(uint32_t field, uint64_t len); /* tag + length + len, also when len is 0 */

/* ---- reading by hand ------------------------------------------------------------------------- */
struct bns_pb_field {
    uint32_t id;
    uint8_t wire;           /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
    uint64_t u64;           /* of wire 0, 1, 5 */
    struct bns_slice bytes; /* of wire 2 */
};
/* Takes one field off the front of *in. BNS_E_PROTO; *in is then unchanged. *in must not be
 * empty. */
BNS_MUST_CHECK int bns_pb_next(struct bns_slice *in, struct bns_pb_field *out);

#endif
