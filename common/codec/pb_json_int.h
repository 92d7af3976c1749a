/* pb_json_int.h - what the files of pb_json share. Nobody else includes this. */
#ifndef BNS_CODEC_PB_JSON_INT_H
#define BNS_CODEC_PB_JSON_INT_H

#include "codec/pb_json.h"

/* "name":value, unless the field is absent or zero; *first: no comma before it. */
BNS_MUST_CHECK int bns_pb_json_field(struct bns_buf *out, const ProtobufCMessage *msg,
                                     const ProtobufCFieldDescriptor *f, bool *first);
/* The elements of a list, with commas between them. */
BNS_MUST_CHECK int bns_pb_json_elements(struct bns_buf *out, const ProtobufCMessage *msg,
                                        const ProtobufCFieldDescriptor *f);
bool bns_pb_json_list_empty(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f);

#endif
