/* pb_json_trip.h - what must hold of the JSON of every message of every descriptor. */
#ifndef BNS_TESTS_PB_JSON_TRIP_H
#define BNS_TESTS_PB_JSON_TRIP_H

#include "codec/pb_json.h"

#include "pb_random.h"

/* The walk over `bytes`, cut into slices at random and taken in small steps. */
static inline int pb_json_walked(const ProtobufCMessageDescriptor *d, struct bns_slice bytes,
                                 struct bns_prng *p, struct bns_buf *out)
{
    struct bns_pb_json_walk w;
    struct bns_slice v[8];
    size_t n = 1 + bns_prng_below(p, 8), at = 0;
    int rv = BNS_E_AGAIN;

    for (size_t i = 0; i < n; i++) {
        size_t len = i + 1 == n ? bytes.len - at : bns_prng_below(p, bytes.len - at + 1);
        v[i] = bns_slice(len == 0 ? bytes.ptr : bytes.ptr + at, len);
        at += len;
    }
    bns_pb_json_walk_init(&w, d, v, n);
    while (rv == BNS_E_AGAIN)
        rv = bns_pb_json_walk_next(&w, out, bns_prng_below(p, 100));
    return rv;
}

/* A random message: to JSON and back gives its bytes again; the walk gives the same JSON. */
static inline void pb_json_trip(const ProtobufCMessageDescriptor *d, struct bns_prng *p)
{
    struct bns_buf json, walked, bytes, again;
    struct bns_buf *all[] = {&json, &walked, &bytes, &again};
    struct bns_arena a;
    ProtobufCMessage *m, *back = NULL;

    for (size_t i = 0; i < 4; i++)
        bns_buf_init(all[i], bns_alloc_libc(), 64u << 20);
    bns_arena_init(&a, bns_alloc_libc(), 64u << 20);
    m = pb_random(d, &a, p, 0);
    BNS_ASSERT(bns_pb_pack(m, &bytes) == BNS_OK);
    BNS_ASSERT(bns_pb_to_json(m, &json) == BNS_OK);
    BNS_ASSERT(bns_pb_from_json(d, bns_buf_slice(&json), json.len, &a, &back, NULL) == BNS_OK);
    BNS_ASSERT(bns_pb_pack(back, &again) == BNS_OK);
    BNS_ASSERT(bns_slice_eq(bns_buf_slice(&bytes), bns_buf_slice(&again)));
    BNS_ASSERT(pb_json_walked(d, bns_buf_slice(&bytes), p, &walked) == BNS_OK);
    BNS_ASSERT(bns_slice_eq(bns_buf_slice(&json), bns_buf_slice(&walked)));
    bns_arena_free(&a);
    for (size_t i = 0; i < 4; i++)
        bns_buf_free(all[i]);
}

#endif
