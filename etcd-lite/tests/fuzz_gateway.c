/* fuzz_gateway.c - any text as the request, and any bytes as the answer, of every gateway path.
 *
 * The first byte chooses the path. What follows is read as JSON of its request: what is taken must
 * pack, and its JSON must come back. Then as the packed answer: where the walk finds a message, so
 * does unpacking, and both give JSON of one length. */
#include "codec/pb.h"
#include "codec/pb_json.h"
#include "gateway.h"
#include "tests/fuzz.h"

static void as_request(const ProtobufCMessageDescriptor *d, struct bns_slice in)
{
    ProtobufCMessage *msg = NULL;
    struct bns_arena a;
    struct bns_buf b, c, bytes;

    bns_arena_init(&a, bns_alloc_libc(), 64 << 20);
    bns_buf_init(&b, bns_alloc_libc(), 16 << 20);
    bns_buf_init(&c, bns_alloc_libc(), 16 << 20);
    bns_buf_init(&bytes, bns_alloc_libc(), 16 << 20);
    if (bns_pb_from_json(d, in, 1 << 16, &a, &msg, NULL) == BNS_OK) {
        BNS_ASSERT(bns_pb_to_json(msg, &b) == BNS_OK);
        bns_pb_drop_zeros(msg);
        BNS_ASSERT(bns_pb_pack(msg, &bytes) == BNS_OK);
        BNS_ASSERT(bns_pb_unpack(d, bns_buf_slice(&bytes), &a, NULL, &msg, NULL) == BNS_OK);
        BNS_ASSERT(bns_pb_to_json(msg, &c) == BNS_OK);
        BNS_ASSERT(bns_slice_eq(bns_buf_slice(&b), bns_buf_slice(&c)));
    }
    bns_buf_free(&bytes);
    bns_buf_free(&b);
    bns_buf_free(&c);
    bns_arena_free(&a);
}

static void as_answer(const ProtobufCMessageDescriptor *d, struct bns_slice in)
{
    struct bns_slice v[2] = {bns_slice(in.ptr, in.len / 2), bns_slice_skip(in, in.len / 2)};
    struct bns_pb_json_walk w;
    ProtobufCMessage *msg = NULL;
    struct bns_arena a;
    struct bns_buf walked, json;
    int rv = BNS_E_AGAIN;

    bns_arena_init(&a, bns_alloc_libc(), 64 << 20);
    bns_buf_init(&walked, bns_alloc_libc(), 16 << 20);
    bns_buf_init(&json, bns_alloc_libc(), 16 << 20);
    bns_pb_json_walk_init(&w, d, v, 2);
    while (rv == BNS_E_AGAIN)
        rv = bns_pb_json_walk_next(&w, &walked, 10);
    if (rv == BNS_OK) {
        BNS_ASSERT(bns_pb_unpack(d, in, &a, NULL, &msg, NULL) == BNS_OK);
        BNS_ASSERT(bns_pb_to_json(msg, &json) == BNS_OK);
        BNS_ASSERT(walked.len >= json.len); /* of a oneof written twice the last one counts */
    }
    bns_buf_free(&walked);
    bns_buf_free(&json);
    bns_arena_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n;
    const struct bns_grpc_gateway_path *p = etcd_gateway_paths(&n);

    if (size == 0)
        return 0;
    p += data[0] % n;
    as_request(p->request, bns_slice(data + 1, size - 1));
    as_answer(p->answer, bns_slice(data + 1, size - 1));
    return 0;
}
