/* fuzz_pb.c - any bytes as a protobuf message: what the guard lets through is unpacked, goes out as
 * JSON, comes back from it, and packs again; protobuf-c never fails where the guard said yes. */
#include "codec/pb.h"
#include "codec/pb_json.h"
#include "fuzz.h"
#include "pb_test.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *all = &bns__test__all__descriptor;
    struct bns_pb_limits limits = {.bytes = 1 << 16, .depth = 20, .elements = 1000};
    ProtobufCMessage *msg = NULL;
    ProtobufCMessage *back = NULL;
    struct bns_arena a;
    struct bns_buf b;
    struct bns_slice packed;
    int rv;

    bns_arena_init(&a, bns_alloc_libc(), 16 << 20);
    bns_buf_init(&b, bns_alloc_libc(), 16 << 20);
    rv = bns_pb_guard(all, bns_slice(data, size), &limits, NULL);
    if (rv == BNS_OK) {
        rv = bns_pb_unpack(all, bns_slice(data, size), &a, &limits, &msg, NULL);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_NOMEM);
    }
    if (msg != NULL) {
        BNS_ASSERT(bns_pb_pack_arena(msg, &a, &packed) == BNS_OK);
        bns_pb_drop_zeros(msg);
        BNS_ASSERT(bns_pb_to_json(msg, &b) == BNS_OK);
        rv = bns_pb_from_json(all, bns_buf_slice(&b), b.len, &a, &back, NULL);
        BNS_ASSERT(rv == BNS_OK);
        bns_pb_drop_zeros(back);
        BNS_ASSERT(bns_pb_pack_arena(back, &a, &packed) == BNS_OK);
    }
    bns_buf_free(&b);
    bns_arena_free(&a);
    return 0;
}
