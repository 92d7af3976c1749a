/* schema.h - what the generated tables say about a message: one codec reads them all.
 *
 * kafka-lite/schema/messages.txt has one entry a message; schema/gen.c, built first, turns it into
 * C structs (messages.h) and these descriptions of them. Nothing here is written by hand per
 * message or per version.
 *
 * How a field lies in its C struct:
 *
 *   bool, i8 .. i64, u16, f64    the C type of that width
 *   uuid                         struct kafka_uuid
 *   str, bytes, records          struct bns_slice; ptr NULL is null, an empty one has a ptr
 *   array                        struct { T *at; int32_t count; }; count -1 is null
 *   struct                       the struct itself; where it may be null a pointer to it
 *
 * Source: the protocol guide of Apache Kafka; KIP-482 (flexible versions, tagged fields).
 */
#ifndef KAFKA_WIRE_SCHEMA_H
#define KAFKA_WIRE_SCHEMA_H

#include "base/slice.h"

struct kafka_uuid {
    uint8_t bytes[16];
};

struct kafka_array { /* how every array member of a generated struct lies */
    void *at;
    int32_t count;
};

enum kafka_type {
    KAFKA_BOOL,
    KAFKA_I8,
    KAFKA_I16,
    KAFKA_U16,
    KAFKA_I32,
    KAFKA_I64,
    KAFKA_F64,
    KAFKA_UUID,
    KAFKA_STR,
    KAFKA_BYTES,
    KAFKA_RECORDS,
    KAFKA_STRUCT,
};

struct kafka_versions { /* first > last: none */
    int16_t first, last;
};

struct kafka_struct;

struct kafka_field {
    const char *name;
    const struct kafka_struct *of; /* KAFKA_STRUCT */
    int64_t preset;                /* the default of a number */
    uint16_t at;                   /* offset in the C struct */
    uint8_t type;                  /* of an array: of its elements */
    bool array;
    bool preset_null; /* the default is null */
    bool by_pointer;  /* a struct that may be null */
    int8_t tag;       /* -1: not tagged */
    struct kafka_versions versions, nulls;
};

struct kafka_struct {
    const char *name;
    const struct kafka_field *fields;
    uint16_t fields_count;
    uint16_t size; /* of the C struct */
};

struct kafka_api {
    const char *name;
    int16_t key, first, last;
    int16_t flexible; /* the first flexible version; INT16_MAX: none */
    const struct kafka_struct *request, *response;
};

/* Bytes of a number or uuid, the same in the C struct and on the wire; 0 for the other types. */
static inline size_t kafka_fixed_bytes(int type)
{
    static const uint8_t bytes[] = {
        [KAFKA_BOOL] = 1, [KAFKA_I8] = 1,  [KAFKA_I16] = 2,   [KAFKA_U16] = 2,   [KAFKA_I32] = 4,
        [KAFKA_I64] = 8,  [KAFKA_F64] = 8, [KAFKA_UUID] = 16, [KAFKA_STRUCT] = 0};
    return bytes[type];
}

/* What one value takes in the C struct: the field's own, or an element of its array. */
static inline size_t kafka_member_bytes(const struct kafka_field *f)
{
    if (f->type == KAFKA_STRUCT)
        return f->of->size;
    return kafka_fixed_bytes(f->type) != 0 ? kafka_fixed_bytes(f->type) : sizeof(struct bns_slice);
}

static inline bool kafka_in(struct kafka_versions v, int version)
{
    return version >= v.first && version <= v.last;
}

#endif
