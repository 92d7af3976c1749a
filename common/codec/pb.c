/* pb.c - protobuf-c made safe: allocator, packing, and messages by hand. The guard is pb_guard.c.
 *
 * protobuf-c asks an allocator for every string, list and scratch table, and gives them back one by
 * one; an arena takes the first and ignores the second, so a failed unpack leaks nothing and a
 * request ends with one call. The arena's `max` bounds what any message can cost.
 */
#include "codec/pb.h"

#include "base/varint.h"

#define WIRE_VARINT 0u
#define WIRE_64 1u
#define WIRE_LEN 2u
#define WIRE_32 5u
#define FIELD_ID_MAX ((1u << 29) - 1)

static void *arena_alloc(void *ctx, size_t n)
{
    return bns_arena_alloc(ctx, n);
}

static void arena_release(void *ctx, void *ptr)
{
    (void)ctx;
    (void)ptr;
}

ProtobufCAllocator bns_pb_allocator(struct bns_arena *arena)
{
    return (ProtobufCAllocator){arena_alloc, arena_release, arena};
}

/* An arena that remembers whether it ever said no. */
struct watched {
    struct bns_arena *arena;
    bool refused;
};

static void *watched_alloc(void *ctx, size_t n)
{
    struct watched *w = ctx;
    void *ptr = bns_arena_alloc(w->arena, n);

    if (ptr == NULL)
        w->refused = true;
    return ptr;
}

int bns_pb_unpack(const ProtobufCMessageDescriptor *desc, struct bns_slice in,
                  struct bns_arena *arena, const struct bns_pb_limits *limits,
                  ProtobufCMessage **out, struct bns_err *err)
{
    struct watched w = {arena, false};
    ProtobufCAllocator alloc = {watched_alloc, arena_release, &w};
    ProtobufCMessage *msg;
    int rv = bns_pb_guard(desc, in, limits, err);

    if (rv != BNS_OK)
        return rv;
    msg = protobuf_c_message_unpack(desc, &alloc, in.len, in.ptr);
    if (msg == NULL) {
        if (w.refused)
            return bns_err_set(err, BNS_E_NOMEM, "%s: no memory to unpack %zu bytes", desc->name,
                               in.len);
        return bns_err_set(err, BNS_E_PROTO, "%s: cannot be unpacked", desc->name);
    }
    *out = msg;
    return BNS_OK;
}

/* ---- packing --------------------------------------------------------------------------------- */
static bool scalar_is_zero(const ProtobufCFieldDescriptor *f, const void *member)
{
    uint32_t v32;
    uint64_t v64;

    switch (f->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE: /* by bits: -0.0 is not the default */
        memcpy(&v64, member, sizeof v64);
        return v64 == 0;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)member)->len == 0;
    default: /* 32-bit numbers, float, bool, enum: all four bytes wide */
        memcpy(&v32, member, sizeof v32);
        return v32 == 0;
    }
}

static void drop_zeros_of(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f)
{
    uint8_t *base = (uint8_t *)msg;
    void *member = base + f->offset;
    void *quantifier = base + f->quantifier_offset;
    bool oneof = (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
    uint32_t chosen;

    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            ProtobufCMessage **list = *(ProtobufCMessage ***)member;
            size_t n = *(size_t *)quantifier;
            for (size_t i = 0; i < n; i++)
                bns_pb_drop_zeros(list[i]);
            return;
        }
        memcpy(&chosen, quantifier, oneof ? sizeof chosen : 0);
        if (oneof && chosen != f->id)
            return;
        if (*(ProtobufCMessage **)member != NULL)
            bns_pb_drop_zeros(*(ProtobufCMessage **)member);
        return;
    }
    if (f->label != PROTOBUF_C_LABEL_OPTIONAL || oneof)
        return;
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        char **text = member;
        if (*text != NULL && **text == '\0')
            *text = NULL;
        return;
    }
    if (scalar_is_zero(f, member))
        *(protobuf_c_boolean *)quantifier = 0;
}

void bns_pb_drop_zeros(ProtobufCMessage *msg)
{
    for (unsigned i = 0; i < msg->descriptor->n_fields; i++)
        drop_zeros_of(msg, &msg->descriptor->fields[i]);
}

int bns_pb_pack(const ProtobufCMessage *msg, struct bns_buf *out)
{
    size_t len = protobuf_c_message_get_packed_size(msg);
    int rv = bns_buf_reserve(out, len);

    if (rv != BNS_OK || len == 0)
        return rv;
    len = protobuf_c_message_pack(msg, out->ptr + out->len);
    BNS_ASSERT(len <= out->cap - out->len);
    out->len += len;
    return BNS_OK;
}

int bns_pb_pack_arena(const ProtobufCMessage *msg, struct bns_arena *arena, struct bns_slice *out)
{
    size_t len = protobuf_c_message_get_packed_size(msg);
    uint8_t *ptr = bns_arena_alloc(arena, len);

    if (ptr == NULL)
        return BNS_E_NOMEM;
    *out = bns_slice(ptr, protobuf_c_message_pack(msg, ptr));
    BNS_ASSERT(out->len == len);
    return BNS_OK;
}

/* ---- by hand --------------------------------------------------------------------------------- */
static size_t put_tag(uint8_t *dst, uint32_t field, uint32_t wire)
{
    BNS_ASSERT(field >= 1);
    BNS_ASSERT(field <= FIELD_ID_MAX);
    return bns_varint_put(dst, (uint64_t)field << 3 | wire);
}

int bns_pb_put_u64_always(struct bns_buf *out, uint32_t field, uint64_t v)
{
    uint8_t dst[2 * BNS_VARINT_MAX];
    size_t n = put_tag(dst, field, WIRE_VARINT);

    n += bns_varint_put(dst + n, v);
    return bns_buf_add(out, dst, n);
}

int bns_pb_put_u64(struct bns_buf *out, uint32_t field, uint64_t v)
{
    return v == 0 ? BNS_OK : bns_pb_put_u64_always(out, field, v);
}

int bns_pb_put_i64(struct bns_buf *out, uint32_t field, int64_t v)
{
    return bns_pb_put_u64(out, field, (uint64_t)v);
}

int bns_pb_put_s64(struct bns_buf *out, uint32_t field, int64_t v)
{
    return bns_pb_put_u64(out, field, bns_zigzag(v));
}

int bns_pb_put_fixed64(struct bns_buf *out, uint32_t field, uint64_t v)
{
    uint8_t dst[BNS_VARINT_MAX + sizeof v];
    size_t n;

    if (v == 0)
        return BNS_OK;
    n = put_tag(dst, field, WIRE_64);
    bns_put_u64le(dst + n, v);
    return bns_buf_add(out, dst, n + sizeof v);
}

int bns_pb_put_len(struct bns_buf *out, uint32_t field, uint64_t len)
{
    uint8_t dst[2 * BNS_VARINT_MAX];
    size_t n = put_tag(dst, field, WIRE_LEN);

    n += bns_varint_put(dst + n, len);
    return bns_buf_add(out, dst, n);
}

int bns_pb_put_bytes_always(struct bns_buf *out, uint32_t field, struct bns_slice v)
{
    size_t start = out->len;
    int rv;

    if (v.len > SIZE_MAX - 2 * BNS_VARINT_MAX)
        return BNS_E_TOOBIG;
    rv = bns_pb_put_len(out, field, v.len);
    if (rv != BNS_OK)
        return rv;
    rv = bns_buf_add(out, v.ptr, v.len);
    if (rv != BNS_OK)
        out->len = start;
    return rv;
}

int bns_pb_put_bytes(struct bns_buf *out, uint32_t field, struct bns_slice v)
{
    return v.len == 0 ? BNS_OK : bns_pb_put_bytes_always(out, field, v);
}

size_t bns_pb_len_u64(uint32_t field, uint64_t v)
{
    return v == 0 ? 0 : bns_varint_len((uint64_t)field << 3) + bns_varint_len(v);
}

size_t bns_pb_len_bytes(uint32_t field, uint64_t len)
{
    return bns_varint_len((uint64_t)field << 3) + bns_varint_len(len) + (size_t)len;
}

/* Tags and lengths are 32-bit numbers: more than five bytes are malformed, whatever they hold (as
 * protobuf-c sees it too). */
static bool get_short(struct bns_slice *s, uint64_t *out)
{
    size_t before = s->len;
    return bns_varint_get(s, out) == BNS_OK && before - s->len <= 5;
}

int bns_pb_next(struct bns_slice *in, struct bns_pb_field *out)
{
    struct bns_slice s = *in;
    uint64_t tag;
    size_t n = 0;

    if (!get_short(&s, &tag) || tag >> 3 == 0 || tag >> 3 > FIELD_ID_MAX)
        return BNS_E_PROTO;
    *out = (struct bns_pb_field){.id = (uint32_t)(tag >> 3), .wire = (uint8_t)(tag & 7)};
    switch (out->wire) {
    case WIRE_VARINT:
        if (bns_varint_get(&s, &out->u64) != BNS_OK)
            return BNS_E_PROTO;
        break;
    case WIRE_64:
        n = 8;
        if (s.len < n)
            return BNS_E_PROTO;
        out->u64 = bns_get_u64le(s.ptr);
        break;
    case WIRE_32:
        n = 4;
        if (s.len < n)
            return BNS_E_PROTO;
        out->u64 = bns_get_u32le(s.ptr);
        break;
    case WIRE_LEN:
        if (!get_short(&s, &out->u64) || out->u64 > s.len)
            return BNS_E_PROTO;
        n = (size_t)out->u64;
        out->bytes = bns_slice(s.ptr, n);
        break;
    default: /* groups (3, 4), and 6, 7 that never were */
        return BNS_E_PROTO;
    }
    *in = bns_slice_skip(s, n);
    return BNS_OK;
}
