/* fuzz_lock.c - any bytes as a request of the lock and election services, and as the answer that a
 * step of theirs reads.
 *
 * What a request becomes, a transaction, is always one that the checks of KV let pass, or refuse
 * with a text. */
#include "tests/fuzz.h"

#include "check.h"
#include "codec/pb.h"
#include "kv.h"
#include "lock.pb-c.h"
#include "session.h"
#include "session_run.h"

static void as_txn(struct bns_slice key, struct bns_slice value, int64_t rev, int64_t lease)
{
    const struct etcd_session_txn t = {.key = key,
                                       .value = value,
                                       .rev = rev,
                                       .lease = lease,
                                       .or_read = rev % 2 == 0,
                                       .keep_lease = lease == 0};
    const struct etcd_limits limits = {.txn_ops_max = 128};
    struct etcd_status st = {0};
    ProtobufCMessage *m = NULL;
    struct bns_arena arena;
    struct bns_buf b;

    bns_arena_init(&arena, bns_alloc_libc(), (size_t)64 << 20);
    bns_buf_init(&b, bns_alloc_libc(), (size_t)64 << 20);
    BNS_ASSERT(etcd_session_txn(&t, &b) == BNS_OK);
    BNS_ASSERT(bns_pb_unpack(&etcdserverpb__txn_request__descriptor, bns_buf_slice(&b), &arena,
                             NULL, &m, NULL) == BNS_OK);
    BNS_ASSERT(etcd_check_txn((const Etcdserverpb__TxnRequest *)(const void *)m, &limits,
                              bns_alloc_libc(), &st) == (key.len > 0));
    bns_buf_free(&b);
    bns_arena_free(&arena);
}

static void as_answer(struct bns_slice in)
{
    struct bns_slice halves[2] = {{in.ptr, in.len / 2}, {in.ptr + in.len / 2, in.len - in.len / 2}};
    struct etcd_answer a = {.slices = halves, .slices_count = 2};
    struct bns_buf kv;
    bool succeeded;

    bns_buf_init(&kv, bns_alloc_libc(), SIZE_MAX / 2);
    if (etcd_session_txn_read(bns_alloc_libc(), &a, &succeeded, &kv) == BNS_OK)
        BNS_ASSERT(kv.len <= in.len);
    bns_buf_free(&kv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *types[] = {&etcdserverpb__campaign_request__descriptor,
                                                 &etcdserverpb__proclaim_request__descriptor,
                                                 &etcdserverpb__lock_request__descriptor};
    struct bns_slice in = bns_slice(data, size);

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        ProtobufCMessage *m = NULL;
        struct bns_arena arena;

        bns_arena_init(&arena, bns_alloc_libc(), (size_t)16 << 20);
        if (bns_pb_unpack(types[i], in, &arena, NULL, &m, NULL) == BNS_OK && i == 0) {
            const Etcdserverpb__CampaignRequest *r = (const void *)m;
            as_txn(bns_slice(r->name.data, r->name.len), bns_slice(r->value.data, r->value.len),
                   r->lease, r->lease);
        } else if (m != NULL && i == 1) {
            const Etcdserverpb__LeaderKey *l =
                ((const Etcdserverpb__ProclaimRequest *)(const void *)m)->leader;
            if (l != NULL)
                as_txn(bns_slice(l->key.data, l->key.len), bns_slice(NULL, 0), l->rev, l->lease);
        }
        bns_arena_free(&arena);
    }
    as_answer(in);
    return 0;
}
