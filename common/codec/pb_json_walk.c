/* pb_json_walk.c - JSON of a packed message, piece by piece (pb_json.h).
 *
 * The fields of the outermost message are taken one by one as they lie in the bytes: the bytes of
 * one field are a message of their own with one member, which is unpacked into an arena and
 * written. So memory and time of a step are bounded by the largest field, not by the message. A
 * list is written as one list only when its elements stand together, as all encoders write them;
 * bytes where they do not are refused.
 */
#include "base/varint.h"
#include "codec/pb.h"
#include "codec/pb_json_int.h"

#define FIELD_ID_MAX ((1u << 29) - 1)
#define HEAD_BYTES 16u /* of a field: tag and length */

void bns_pb_json_walk_init(struct bns_pb_json_walk *w, const ProtobufCMessageDescriptor *desc,
                           const struct bns_slice *v, size_t n)
{
    *w = (struct bns_pb_json_walk){.desc = desc, .v = v, .n = n};
    for (size_t i = 0; i < n; i++)
        w->left += v[i].len;
}

/* Copies at most len bytes from where the walk stands, without moving it. */
static size_t peek(const struct bns_pb_json_walk *w, uint8_t *dst, size_t len)
{
    size_t at = w->at_byte, have = 0;

    for (size_t i = w->at_slice; i < w->n && have < len; i++, at = 0) {
        size_t part = w->v[i].len - at;

        if (part > len - have)
            part = len - have;
        if (part > 0)
            memcpy(dst + have, w->v[i].ptr + at, part);
        have += part;
    }
    return have;
}

static void advance(struct bns_pb_json_walk *w, size_t len)
{
    w->left -= len;
    while (w->at_slice < w->n && len >= w->v[w->at_slice].len - w->at_byte) {
        len -= w->v[w->at_slice].len - w->at_byte;
        w->at_byte = 0;
        w->at_slice++;
    }
    w->at_byte += len;
    BNS_ASSERT(w->at_slice < w->n || len == 0);
}

/* The bytes of one field, tag included: where they lie, or a copy in the arena. */
static int take_bytes(struct bns_pb_json_walk *w, size_t len, struct bns_arena *arena,
                      struct bns_slice *out)
{
    uint8_t *copy;

    if (w->v[w->at_slice].len - w->at_byte >= len) {
        *out = bns_slice(w->v[w->at_slice].ptr + w->at_byte, len);
    } else {
        copy = bns_arena_alloc(arena, len);
        if (copy == NULL)
            return BNS_E_NOMEM;
        (void)peek(w, copy, len); /* as many as there are: checked before */
        *out = bns_slice(copy, len);
    }
    advance(w, len);
    return BNS_OK;
}

/* How many bytes the next field has, and its number. */
static int measure(const struct bns_pb_json_walk *w, uint32_t *id, size_t *len)
{
    uint8_t head[HEAD_BYTES];
    struct bns_slice in = bns_slice(head, peek(w, head, sizeof head));
    size_t all = in.len;
    uint64_t tag, size = 0;

    if (bns_varint_get(&in, &tag) != BNS_OK || tag >> 3 == 0 || tag >> 3 > FIELD_ID_MAX)
        return BNS_E_PROTO;
    *id = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0:
    case 2:
        if (bns_varint_get(&in, &size) != BNS_OK)
            return BNS_E_PROTO;
        size = (tag & 7) == 2 ? size : 0;
        break;
    case 1:
        size = 8;
        break;
    case 5:
        size = 4;
        break;
    default:
        return BNS_E_PROTO;
    }
    if (size > w->left - (all - in.len))
        return BNS_E_PROTO;
    *len = (size_t)size + (all - in.len);
    return BNS_OK;
}

/* Ends the open list when f does not belong to it, and begins f's. */
static int open_field(struct bns_pb_json_walk *w, const ProtobufCFieldDescriptor *f,
                      struct bns_buf *out)
{
    size_t index = (size_t)(f - w->desc->fields);
    int rv = BNS_OK;

    if (w->list == f)
        return bns_buf_byte(out, ',');
    if (w->list != NULL)
        rv = bns_buf_byte(out, ']');
    w->list = NULL;
    if ((w->seen[index / 64] & UINT64_C(1) << index % 64) != 0)
        return BNS_E_PROTO;
    w->seen[index / 64] |= UINT64_C(1) << index % 64;
    if (rv != BNS_OK || f->label != PROTOBUF_C_LABEL_REPEATED)
        return rv;
    w->list = f;
    rv = bns_buf_fmt(out, "%s\"%s\":[", w->any ? "," : "", f->name);
    w->any = true;
    return rv;
}

static int put(struct bns_pb_json_walk *w, const ProtobufCFieldDescriptor *f,
               struct bns_slice bytes, struct bns_arena *arena, struct bns_buf *out)
{
    const struct bns_pb_limits limits = {.bytes = SIZE_MAX, .elements = UINT32_MAX};
    ProtobufCMessage *msg;
    bool first = !w->any;
    int rv = bns_pb_unpack(w->desc, bytes, arena, &limits, &msg, NULL);

    if (rv != BNS_OK)
        return rv;
    if (f->label == PROTOBUF_C_LABEL_REPEATED && bns_pb_json_list_empty(msg, f))
        return BNS_OK; /* packed, with nothing in it */
    rv = open_field(w, f, out);
    if (rv != BNS_OK)
        return rv;
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return bns_pb_json_elements(out, msg, f);
    rv = bns_pb_json_field(out, msg, f, &first);
    w->any = !first;
    return rv;
}

static int step(struct bns_pb_json_walk *w, struct bns_buf *out)
{
    const ProtobufCFieldDescriptor *f;
    struct bns_arena arena;
    struct bns_slice bytes;
    uint32_t id;
    size_t len;
    int rv = measure(w, &id, &len);

    if (rv != BNS_OK)
        return rv;
    f = protobuf_c_message_descriptor_get_field(w->desc, id);
    if (f == NULL) {
        advance(w, len);
        return BNS_OK;
    }
    bns_arena_init(&arena, out->alloc, SIZE_MAX / 2);
    rv = take_bytes(w, len, &arena, &bytes);
    if (rv == BNS_OK)
        rv = put(w, f, bytes, &arena, out);
    bns_arena_free(&arena);
    return rv;
}

int bns_pb_json_walk_next(struct bns_pb_json_walk *w, struct bns_buf *out, size_t bytes)
{
    size_t start = out->len;
    int rv = BNS_OK;

    BNS_ASSERT(w->desc->n_fields <= 64 * sizeof w->seen / sizeof w->seen[0]);
    if (!w->begun)
        rv = bns_buf_byte(out, '{');
    w->begun = true;
    while (rv == BNS_OK && w->left > 0) {
        if (out->len - start >= bytes)
            return BNS_E_AGAIN;
        rv = step(w, out);
    }
    if (rv == BNS_OK && w->list != NULL)
        rv = bns_buf_byte(out, ']');
    return rv == BNS_OK ? bns_buf_byte(out, '}') : rv;
}
