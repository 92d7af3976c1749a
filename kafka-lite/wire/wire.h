/* wire.h - Kafka messages from and to bytes, by the generated descriptions (schema.h).
 *
 *     struct kafka_metadata_request *q;
 *     rv = kafka_decode(&kafka_metadata_request_schema, &form, body, &arena, (void **)&q, &err);
 *
 * Thread:  any.
 * Memory:  decoded structs and arrays are the arena's; str, bytes and records point into the
 *          input, which has to outlive them. Encoded bytes are one block, and slices of it and of
 *          long bytes and records of the message, which are not copied and have to outlive it.
 * Errors:  BNS_E_PROTO with a text that names the field; BNS_E_NOMEM: also past the arena's `max`.
 *          Nothing is allocated for an array before its count is known to fit into the input.
 */
#ifndef KAFKA_WIRE_WIRE_H
#define KAFKA_WIRE_WIRE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "wire/schema.h"

struct kafka_form {
    int version;
    bool flexible;
};

static inline struct kafka_form kafka_form(const struct kafka_api *api, int version)
{
    return (struct kafka_form){version, version >= api->flexible};
}

const struct kafka_api *kafka_api(int key); /* NULL: not in the table */

/* A struct of this kind with every field at its default. NULL: no memory. */
void *kafka_new(const struct kafka_struct *s, struct bns_arena *arena);
void kafka_preset(const struct kafka_struct *s, void *msg);

/* Takes one message off the front of *in and moves *in past it. Fields that the version does not
 * have get their defaults. Tagged fields nobody knows are skipped. */
BNS_MUST_CHECK int kafka_decode(const struct kafka_struct *s, const struct kafka_form *form,
                                struct bns_slice *in, struct bns_arena *arena, void **out,
                                struct bns_err *err);

struct kafka_bytes {
    const struct bns_alloc *alloc;
    struct bns_slice *slices; /* in one block with the bytes that were copied */
    size_t count;
    uint64_t len; /* of all slices */
};

/* `front` bytes are left free at the start of slices[0], for a frame's head (kafka_bytes_front).
 * BNS_E_TOOBIG: a string or array is longer than its length field can say, or the message than
 * 2^31-1. BNS_E_INVALID: null where the version has no null. */
BNS_MUST_CHECK int kafka_encode(const struct kafka_struct *s, const struct kafka_form *form,
                                const void *msg, size_t front, const struct bns_alloc *alloc,
                                struct kafka_bytes *out);
uint8_t *kafka_bytes_front(const struct kafka_bytes *b);
void kafka_bytes_free(struct kafka_bytes *b);

/* One line, as JSON, of what the version has: for logs and `inspect`. At most `max` bytes of a
 * string and `max` elements of an array are shown. BNS_E_TOOBIG, BNS_E_NOMEM of the buffer. */
BNS_MUST_CHECK int kafka_print(const struct kafka_struct *s, int version, const void *msg,
                               size_t max, struct bns_buf *out);

#endif
