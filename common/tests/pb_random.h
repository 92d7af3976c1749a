/* pb_random.h - random messages of any descriptor: what JSON can carry, so no field holds the zero
 * that JSON leaves out. */
#ifndef BNS_TESTS_PB_RANDOM_H
#define BNS_TESTS_PB_RANDOM_H

#include "base/arena.h"
#include "base/prng.h"
#include "codec/pb.h"

#define PB_RANDOM_DEPTH 5

static inline ProtobufCMessage *pb_random(const ProtobufCMessageDescriptor *d, struct bns_arena *a,
                                          struct bns_prng *p, int depth);

static inline size_t pb_random_width(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL:
        return 4;
    default:
        return 8;
    }
}

static inline char *pb_random_text(struct bns_arena *a, struct bns_prng *p)
{
    static const char *const parts[] = {
        "a", "\"", "\\", "\n", "\t", "\x01", "\xc3\xa9", "\xe2\x82\xac", "/<>", "\xf0\x9f\x8c\xb3"};
    char text[64] = "";
    size_t n = 1 + bns_prng_below(p, 12), len = 0;

    for (size_t i = 0; i < n; i++) {
        const char *part = parts[bns_prng_below(p, sizeof parts / sizeof parts[0])];
        memcpy(text + len, part, strlen(part));
        len += strlen(part);
    }
    return bns_arena_dup(a, text, len);
}

static inline void pb_random_value(const ProtobufCFieldDescriptor *f, void *v, struct bns_arena *a,
                                   struct bns_prng *p, int depth)
{
    uint64_t bits = bns_prng_next(p) >> bns_prng_below(p, 64);
    const ProtobufCEnumDescriptor *e = f->descriptor;

    bits = (bits & UINT32_MAX) == 0 ? 1 : bits;
    switch (f->type) {
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)v = 1;
        return;
    case PROTOBUF_C_TYPE_ENUM:
        do {
            *(int *)v = e->values[bns_prng_below(p, e->n_values)].value;
        } while (*(int *)v == 0 && e->n_values > 1);
        return;
    case PROTOBUF_C_TYPE_FLOAT:
        *(float *)v = (float)(int32_t)bits / 8;
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)v = (double)(int64_t)bits / 3;
        return;
    case PROTOBUF_C_TYPE_STRING:
        *(char **)v = pb_random_text(a, p);
        return;
    case PROTOBUF_C_TYPE_BYTES: {
        ProtobufCBinaryData *b = v;
        uint8_t raw[70];
        b->len = 1 + bns_prng_below(p, sizeof raw - 1);
        for (size_t i = 0; i < b->len; i++)
            raw[i] = (uint8_t)bns_prng_next(p);
        b->data = bns_arena_dup(a, raw, b->len);
        return;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)v = pb_random(f->descriptor, a, p, depth + 1);
        return;
    default:
        if (pb_random_width(f) == 4)
            *(uint32_t *)v = (uint32_t)bits;
        else
            memcpy(v, &bits, 8);
        return;
    }
}

static inline void pb_random_field(const ProtobufCFieldDescriptor *f, uint8_t *base,
                                   struct bns_arena *a, struct bns_prng *p, int depth)
{
    void *quantifier = base + f->quantifier_offset;
    size_t width = pb_random_width(f);

    if (f->type == PROTOBUF_C_TYPE_MESSAGE && depth >= PB_RANDOM_DEPTH)
        return;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t n = 1 + bns_prng_below(p, 3);
        uint8_t *list = bns_arena_alloc(a, n * width);

        BNS_ASSERT(list != NULL);
        memset(list, 0, n * width);
        for (size_t i = 0; i < n; i++)
            pb_random_value(f, list + i * width, a, p, depth);
        *(size_t *)quantifier = n;
        *(uint8_t **)(void *)(base + f->offset) = list;
        return;
    }
    if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        uint32_t chosen;
        memcpy(&chosen, quantifier, sizeof chosen);
        if (chosen != 0)
            return;
        memcpy(quantifier, &f->id, sizeof f->id);
    } else if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING &&
               f->type != PROTOBUF_C_TYPE_MESSAGE) {
        *(protobuf_c_boolean *)quantifier = 1;
    }
    pb_random_value(f, base + f->offset, a, p, depth);
}

static inline ProtobufCMessage *pb_random(const ProtobufCMessageDescriptor *d, struct bns_arena *a,
                                          struct bns_prng *p, int depth)
{
    ProtobufCMessage *m = bns_arena_alloc(a, d->sizeof_message);
    uint64_t few = 1 + bns_prng_below(p, 4);

    BNS_ASSERT(m != NULL);
    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields; i++) {
        if (d->fields[i].label == PROTOBUF_C_LABEL_REQUIRED || bns_prng_below(p, 4) < few)
            pb_random_field(&d->fields[i], (uint8_t *)m, a, p, depth);
    }
    return m;
}

#endif
