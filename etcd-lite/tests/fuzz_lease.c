/* fuzz_lease.c - any bytes as a KeepAlive message, or as what members say of leases to each other.
 *
 * What is taken must be what protobuf's own decoder takes: the same id. */
#include "lease_ask.h"
#include "tests/fuzz.h"

#include <stdlib.h>

#include "codec/pb.h"
#include "rpc.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *d = &etcdserverpb__lease_keep_alive_response__descriptor;
    struct bns_slice in = bns_slice(data, size);
    ProtobufCMessage *m = NULL;
    struct bns_arena arena;
    int64_t id, ttl;

    if (etcd_lease_field(in, 2, &id) != BNS_OK || etcd_lease_field(in, 3, &ttl) != BNS_OK)
        return 0;
    bns_arena_init(&arena, bns_alloc_libc(), 1024 * 1024);
    if (bns_pb_unpack(d, in, &arena, NULL, &m, NULL) == BNS_OK) {
        const Etcdserverpb__LeaseKeepAliveResponse *r = (const void *)m;
        BNS_ASSERT(r->id == id);
        BNS_ASSERT(r->ttl == ttl);
    }
    bns_arena_free(&arena);
    return 0;
}
