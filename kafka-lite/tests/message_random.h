/* message_random.h - any message of the table, filled at random: what the version has gets values,
 * the rest keeps its default, so that what was encoded can be compared after decoding. */
#ifndef KAFKA_TESTS_MESSAGE_RANDOM_H
#define KAFKA_TESTS_MESSAGE_RANDOM_H

#include "base/prng.h"
#include "wire/wire.h"

static void random_struct(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                          int version, void *msg);

static void random_slice(struct bns_prng *g, struct bns_arena *a, const struct kafka_field *f,
                         bool null, struct bns_slice *to)
{
    static const size_t lengths[] = {0, 1, 3, 22, 126, 127, 128, 1024, 1025, 5000};
    size_t n = lengths[bns_prng_below(g, f->type == KAFKA_STR ? 7 : 10)];
    uint8_t *p = bns_arena_alloc(a, n + 1);

    BNS_ASSERT(p != NULL);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(f->type == KAFKA_STR ? 'a' + bns_prng_below(g, 26) : bns_prng_next(g));
    *to = null ? bns_slice(NULL, 0) : bns_slice(p, n);
}

static void random_value(struct bns_prng *g, struct bns_arena *a, const struct kafka_field *f,
                         int version, void *to)
{
    uint64_t v = bns_prng_chance(g, 0.3) ? bns_prng_next(g) : bns_prng_below(g, 100);
    double d = (double)v;

    if (f->type == KAFKA_STRUCT)
        random_struct(g, a, f->of, version, to);
    else if (f->type == KAFKA_BOOL)
        *(bool *)to = (v & 1) != 0;
    else if (f->type == KAFKA_F64)
        memcpy(to, &d, sizeof d);
    else if (f->type == KAFKA_UUID)
        for (size_t i = 0; i < sizeof(struct kafka_uuid); i++)
            ((uint8_t *)to)[i] = (uint8_t)bns_prng_next(g);
    else if (kafka_fixed_bytes(f->type) != 0)
        memcpy(to, &v, kafka_fixed_bytes(f->type));
    else
        random_slice(g, a, f, false, to);
}

static void random_field(struct bns_prng *g, struct bns_arena *a, const struct kafka_field *f,
                         int version, void *to)
{
    bool null = kafka_in(f->nulls, version) && bns_prng_chance(g, 0.3);
    struct kafka_array *array = to;
    void *p;

    if (f->array) {
        array->count = null ? -1 : (int32_t)bns_prng_below(g, 4);
        array->at = NULL;
        if (array->count <= 0)
            return;
        array->at = bns_arena_alloc(a, (size_t)array->count * kafka_member_bytes(f));
        BNS_ASSERT(array->at != NULL);
        for (int32_t i = 0; i < array->count; i++)
            random_value(g, a, f, version,
                         (uint8_t *)array->at + (size_t)i * kafka_member_bytes(f));
    } else if (f->by_pointer) {
        p = null ? NULL : bns_arena_alloc(a, f->of->size);
        if (p != NULL)
            random_struct(g, a, f->of, version, p);
        memcpy(to, &p, sizeof p);
    } else if (null) {
        random_slice(g, a, f, true, to);
    } else {
        random_value(g, a, f, version, to);
    }
}

static void random_struct(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                          int version, void *msg)
{
    kafka_preset(s, msg);
    for (size_t i = 0; i < s->fields_count; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (!kafka_in(f->versions, version) || (f->tag >= 0 && bns_prng_chance(g, 0.4)))
            continue;
        random_field(g, a, f, version, (uint8_t *)msg + f->at);
    }
}

static void *random_message(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                            int version)
{
    void *msg = bns_arena_alloc(a, s->size);

    BNS_ASSERT(msg != NULL);
    random_struct(g, a, s, version, msg);
    return msg;
}

#endif
