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

/* Appends one JSON string. BNS_E_NOMEM, BNS_E_TOOBIG: part of it may be there. */
BNS_MUST_CHECK int bns_pb_json_string(struct bns_buf *out, struct bns_slice s);

/* BNS_E_TOOBIG: longer than bytes_max or nested deeper than 64. BNS_E_INVALID: not JSON (with the
 * line), or a value that its field cannot hold (with the field's name). BNS_E_NOMEM. An empty input
 * counts as "{}". */
BNS_MUST_CHECK int bns_pb_from_json(const ProtobufCMessageDescriptor *desc, struct bns_slice json,
                                    size_t bytes_max, struct bns_arena *arena,
                                    ProtobufCMessage **out, struct bns_err *err);

#endif
