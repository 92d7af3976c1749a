/* fuzz_request.c - any bytes as a request, and as a log entry, against a living store.
 *
 * The first byte says as what: 0 = an entry, unchecked, as a lying peer could send it; else a
 * request as the server takes it: decoded, checked, and when it passes applied or read. The store
 * must live, a checked request must be answered, and the answer must decode. The store lives on
 * from input to input, and starts anew after many. */
#include "tests/fuzz.h"
#include "kv_world.h"

static struct kvw k;
static unsigned runs;

static const ProtobufCMessageDescriptor *const kinds[] = {
    NULL,
    &etcdserverpb__range_request__descriptor,
    &etcdserverpb__put_request__descriptor,
    &etcdserverpb__delete_range_request__descriptor,
    &etcdserverpb__txn_request__descriptor,
    &etcdserverpb__compaction_request__descriptor,
    &etcdserverpb__lease_grant_request__descriptor,
    &etcdserverpb__lease_revoke_request__descriptor,
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static void read_it(void (*fn)(struct kvw_call *), const void *req,
                    const ProtobufCMessageDescriptor *d)
{
    struct got g = kvw_read(&k, fn, req, 0);

    if (g.status == 0)
        (void)kvw_decode(&k, &g, d);
}

static void write_it(enum etcd_op op, struct bns_slice in, const ProtobufCMessageDescriptor *d)
{
    struct got g = {0};
    bool applied;

    k.id++;
    applied = kvw_apply_data(&k, BNS_RAFT_NORMAL,
                             etcd_internal_encode(bns_alloc_libc(), k.id, op, in), &g);
    BNS_ASSERT(applied);
    if (g.status == 0)
        (void)kvw_decode(&k, &g, d);
}

static void request(unsigned kind, struct bns_slice in)
{
    struct etcd_limits limits = {0};
    struct etcd_status why = {0, NULL};
    ProtobufCMessage *m = NULL;

    if (bns_pb_unpack(kinds[kind], in, &k.arena, NULL, &m, NULL) != BNS_OK)
        return;
    if (kind == 1 && etcd_check_range((void *)m, &why))
        read_it(kvw_do_range, m, RANGE_DESC);
    else if (kind == 2 && etcd_check_put((void *)m, &why))
        write_it(ETCD_OP_PUT, in, PUT_DESC);
    else if (kind == 3 && etcd_check_delete((void *)m, &why))
        write_it(ETCD_OP_DELETE, in, DELETE_DESC);
    else if (kind == 4 && etcd_check_txn((void *)m, &limits, bns_alloc_libc(), &why) &&
             !etcd_txn_readonly((void *)m))
        write_it(ETCD_OP_TXN, in, TXN_DESC);
    else if (kind == 4 && why.code == 0)
        read_it(kvw_do_txn, m, TXN_DESC);
    else if (kind == 5)
        write_it(ETCD_OP_COMPACT, in, &etcdserverpb__compaction_response__descriptor);
    else if (kind == 6)
        write_it(ETCD_OP_LEASE_GRANT, in, GRANT_DESC);
    else if (kind == 7)
        write_it(ETCD_OP_LEASE_REVOKE, in, REVOKE_DESC);
    BNS_ASSERT(why.code == 0 || why.text != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_slice in;

    if (size == 0)
        return 0;
    if (runs++ % 2000 == 0) {
        bool up;
        if (k.w != NULL)
            kvw_free(&k);
        kvw_init(&k, runs, NULL);
        up = kvw_up(&k);
        BNS_ASSERT(up);
        (void)do_put(&k, "a", "1");
        (void)do_put(&k, "b", "2");
        (void)do_grant(&k, 1, 60);
        (void)do_put_leased(&k, "c", 1);
    }
    in = bns_slice(data + 1, size - 1);
    if (data[0] % KINDS == 0) {
        bool applied =
            kvw_apply_data(&k, BNS_RAFT_NORMAL, bns_rcbuf_copy(bns_alloc_libc(), in), NULL);
        BNS_ASSERT(applied);
    } else {
        request(data[0] % KINDS, in);
    }
    bns_arena_free(&k.arena);
    return 0;
}
