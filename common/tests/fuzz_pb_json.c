/* fuzz_pb_json.c - any text as the JSON of a message: what is taken goes out and comes back the
 * same. */
#include "codec/pb_json.h"
#include "fuzz.h"
#include "pb_test.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *all = &bns__test__all__descriptor;
    ProtobufCMessage *msg = NULL;
    struct bns_arena a;
    struct bns_buf b, c;

    bns_arena_init(&a, bns_alloc_libc(), 16 << 20);
    bns_buf_init(&b, bns_alloc_libc(), 16 << 20);
    bns_buf_init(&c, bns_alloc_libc(), 16 << 20);
    if (bns_pb_from_json(all, bns_slice(data, size), 1 << 16, &a, &msg, NULL) == BNS_OK) {
        BNS_ASSERT(bns_pb_to_json(msg, &b) == BNS_OK);
        BNS_ASSERT(bns_pb_from_json(all, bns_buf_slice(&b), b.len, &a, &msg, NULL) == BNS_OK);
        BNS_ASSERT(bns_pb_to_json(msg, &c) == BNS_OK);
        BNS_ASSERT(bns_slice_eq(bns_buf_slice(&b), bns_buf_slice(&c)));
    }
    bns_buf_free(&b);
    bns_buf_free(&c);
    bns_arena_free(&a);
    return 0;
}
