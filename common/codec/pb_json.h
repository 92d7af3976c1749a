/* pb_json.h - protobuf messages as JSON, both ways, for any descriptor.
 *
 * Rules (etcd's gateway, which are proto3's): bytes are base64 (out: standard and padded; in:
 * URL-safe and unpadded too); 64-bit integers are strings out, numbers or strings in; enums are
 * names out, names or numbers in; field names as in the schema out, camelCase taken too; zero
 * scalars, empty lists and absent messages are left out; null and unknown fields are ignored.
 *
 * Thread:  any.
 * Memory:  a message read from JSON lives in the arena.
 */
#ifndef BNS_CODEC_PB_JSON_H
#define BNS_CODEC_PB_JSON_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/buf.h"

/* Appends one JSON object, no blanks. BNS_E_NOMEM, BNS_E_TOOBIG: `out` is unchanged. */
BNS_MUST_CHECK int bns_pb_to_json(const ProtobufCMessage *msg, struct bns_buf *out);

/* The JSON of a packed message in pieces, without unpacking more than one of its fields at a time.
 * The slices are borrowed until the walk is over. The fields come as they lie in the bytes. */
struct bns_pb_json_walk {
    const ProtobufCMessageDescriptor *desc;
    const struct bns_slice *v;
    size_t n, at_slice, at_byte;
    uint64_t left; /* bytes */
    const ProtobufCFieldDescriptor *list; /* that is being written */
    bool begun, any;
    uint64_t seen[2]; /* fields, by index */
};
/* A message of at most 128 fields, none of them `required`. */
void bns_pb_json_walk_init(struct bns_pb_json_walk *w, const ProtobufCMessageDescriptor *desc,
                           const struct bns_slice *v, size_t n);
/* Appends until about `bytes` are there. BNS_OK: the whole is out. BNS_E_AGAIN: more to come.
 * BNS_E_PROTO: bytes that are no such message, or whose fields come twice or lists in parts.
 * BNS_E_NOMEM, BNS_E_TOOBIG. An error is final, `out` may have changed. */
BNS_MUST_CHECK int bns_pb_json_walk_next(struct bns_pb_json_walk *w, struct bns_buf *out,
                                         size_t bytes);

/* Appends one JSON string. BNS_E_NOMEM, BNS_E_TOOBIG: part of it may be there. */
BNS_MUST_CHECK int bns_pb_json_string(struct bns_buf *out, struct bns_slice s);

/* BNS_E_TOOBIG: longer than bytes_max or nested deeper than 64. BNS_E_INVALID: not JSON (with the
 * line), or a value that its field cannot hold (with the field's name). BNS_E_NOMEM. An empty input
 * counts as "{}". */
BNS_MUST_CHECK int bns_pb_from_json(const ProtobufCMessageDescriptor *desc, struct bns_slice json,
                                    size_t bytes_max, struct bns_arena *arena,
                                    ProtobufCMessage **out, struct bns_err *err);

#endif
