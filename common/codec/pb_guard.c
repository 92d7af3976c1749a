/* pb_guard.c - looks through protobuf bytes along a descriptor before protobuf-c does.
 *
 * protobuf-c takes an unpack's cost from the bytes: it recurses a level per nested message, makes a
 * list entry per element, and copies strings up to a NUL. One pass here, without any allocation,
 * refuses what is too deep, too many, malformed, or not text. After it, an unpack can fail for lack
 * of memory only.
 *
 * Recursion: one level per nested message, never past limits->depth; a level takes under 300 bytes.
 */
#include "base/utf8.h"
#include "base/varint.h"
#include "codec/pb.h"

#define BYTES_MAX ((size_t)4 * 1024 * 1024)
#define DEPTH_MAX 64u
#define ELEMENTS_MAX 1000000u
#define REQUIRED_WORDS 4u /* descriptors with required fields have at most 256 fields */

struct guard {
    struct bns_pb_limits limits;
    uint32_t elements;
    struct bns_err *err;
};

static int refuse(struct guard *g, int code, const ProtobufCMessageDescriptor *d,
                  const ProtobufCFieldDescriptor *f, const char *what)
{
    return bns_err_set(g->err, code, "%s%s%s: %s", d->name, f == NULL ? "" : ".",
                       f == NULL ? "" : f->name, what);
}

static int count(struct guard *g, const ProtobufCMessageDescriptor *d,
                 const ProtobufCFieldDescriptor *f)
{
    if (g->elements == g->limits.elements)
        return refuse(g, BNS_E_TOOBIG, d, f, "too many fields and elements");
    g->elements++;
    return BNS_OK;
}

/* The wire type of one value of that type. */
static uint8_t wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 5;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 1;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return 2;
    default:
        return 0;
    }
}

/* A packed list: whole elements only. */
static int packed(struct guard *g, const ProtobufCMessageDescriptor *d,
                  const ProtobufCFieldDescriptor *f, struct bns_slice in)
{
    size_t width = wire_of(f->type) == 5 ? 4 : 8;
    uint64_t v;
    int rv;

    if (wire_of(f->type) != 0) {
        if (in.len % width != 0)
            return refuse(g, BNS_E_PROTO, d, f, "packed list is cut short");
        if (in.len / width > g->limits.elements - g->elements)
            return refuse(g, BNS_E_TOOBIG, d, f, "too many fields and elements");
        g->elements += (uint32_t)(in.len / width);
        return BNS_OK;
    }
    while (in.len > 0) {
        if (bns_varint_get(&in, &v) != BNS_OK)
            return refuse(g, BNS_E_PROTO, d, f, "bad varint in a packed list");
        rv = count(g, d, f);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

static int message(struct guard *g, const ProtobufCMessageDescriptor *d, struct bns_slice in,
                   uint32_t depth);

static int known(struct guard *g, const ProtobufCMessageDescriptor *d,
                 const ProtobufCFieldDescriptor *f, const struct bns_pb_field *v, uint32_t depth)
{
    uint8_t wire = wire_of(f->type);

    if (f->label == PROTOBUF_C_LABEL_REPEATED && wire != 2 && v->wire == 2)
        return packed(g, d, f, v->bytes);
    if (v->wire != wire)
        return refuse(g, BNS_E_PROTO, d, f, "wrong wire type");
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        if (!bns_utf8_valid(v->bytes))
            return refuse(g, BNS_E_PROTO, d, f, "string is not valid UTF-8");
        if (v->bytes.len > 0 && memchr(v->bytes.ptr, 0, v->bytes.len) != NULL)
            return refuse(g, BNS_E_PROTO, d, f, "string holds a NUL");
    }
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return message(g, f->descriptor, v->bytes, depth + 1);
    return BNS_OK;
}

static int missing(struct guard *g, const ProtobufCMessageDescriptor *d,
                   const uint64_t seen[REQUIRED_WORDS])
{
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (d->fields[i].label != PROTOBUF_C_LABEL_REQUIRED)
            continue;
        BNS_ASSERT(i / 64 < REQUIRED_WORDS);
        if ((seen[i / 64] >> i % 64 & 1) == 0)
            return refuse(g, BNS_E_PROTO, d, &d->fields[i], "required field is missing");
    }
    return BNS_OK;
}

static int message(struct guard *g, const ProtobufCMessageDescriptor *d, struct bns_slice in,
                   uint32_t depth)
{
    uint64_t seen[REQUIRED_WORDS] = {0};
    int rv;

    if (depth > g->limits.depth)
        return refuse(g, BNS_E_TOOBIG, d, NULL, "messages are nested too deep");
    while (in.len > 0) {
        const ProtobufCFieldDescriptor *f;
        struct bns_pb_field v;

        if (bns_pb_next(&in, &v) != BNS_OK)
            return refuse(g, BNS_E_PROTO, d, NULL, "malformed field");
        f = protobuf_c_message_descriptor_get_field(d, v.id);
        rv = count(g, d, f);
        if (rv != BNS_OK)
            return rv;
        if (f == NULL) {
            if (g->limits.refuse_unknown)
                return bns_err_set(g->err, BNS_E_PROTO, "%s: unknown field %u", d->name, v.id);
            continue;
        }
        if ((size_t)(f - d->fields) / 64 < REQUIRED_WORDS)
            seen[(f - d->fields) / 64] |= UINT64_C(1) << (f - d->fields) % 64;
        rv = known(g, d, f, &v, depth);
        if (rv != BNS_OK)
            return rv;
    }
    return missing(g, d, seen);
}

int bns_pb_guard(const ProtobufCMessageDescriptor *desc, struct bns_slice in,
                 const struct bns_pb_limits *limits, struct bns_err *err)
{
    struct guard g = {.err = err};

    if (limits != NULL)
        g.limits = *limits;
    if (g.limits.bytes == 0)
        g.limits.bytes = BYTES_MAX;
    if (g.limits.depth == 0)
        g.limits.depth = DEPTH_MAX;
    if (g.limits.elements == 0)
        g.limits.elements = ELEMENTS_MAX;
    if (in.len > g.limits.bytes)
        return bns_err_set(err, BNS_E_TOOBIG, "%s: %zu bytes, at most %zu allowed", desc->name,
                           in.len, g.limits.bytes);
    return message(&g, desc, in, 1);
}
