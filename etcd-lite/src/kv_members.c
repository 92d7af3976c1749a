/* kv_members.c - what the members publish of themselves: name and client URLs, through the log.
 *
 * In the store it is rows (0, slot) with the bytes of a ClusterMemberAttrSetRequest: revision 0
 * has no keys, so the index and HashKV pass these rows over. Slots are given in the order of the
 * log, so they are the same on every member.
 */
#include "codec/pb.h"
#include "kv_impl.h"

static size_t slot_of(const struct etcd_kv *kv, uint64_t id)
{
    size_t i = 0;

    while (i < kv->members_count && kv->members[i].id != id)
        i++;
    return i;
}

struct bns_slice etcd_kv_member(const struct etcd_kv *kv, uint64_t id)
{
    size_t i = slot_of(kv, id);

    return i < kv->members_count ? bns_rcbuf_slice(kv->members[i].bytes) : bns_slice(NULL, 0);
}

static void put(struct etcd_kv *kv, size_t slot, uint64_t id, struct bns_rcbuf *bytes)
{
    if (slot == kv->members_count)
        kv->members_count++;
    else
        bns_rcbuf_put(kv->members[slot].bytes);
    kv->members[slot].id = id;
    kv->members[slot].bytes = bytes;
}

void etcd_members_free(struct etcd_kv *kv)
{
    while (kv->members_count > 0)
        bns_rcbuf_put(kv->members[--kv->members_count].bytes);
}

int etcd_members_row(struct etcd_kv *kv, uint32_t slot, struct bns_slice bytes)
{
    struct bns_slice rest = bytes;
    struct bns_pb_field f = {0};
    struct bns_rcbuf *copy;

    if (slot != kv->members_count || slot >= ETCD_MEMBER_SLOTS || bytes.len == 0 ||
        bns_pb_next(&rest, &f) != BNS_OK || f.id != 1 || f.wire != 0)
        return BNS_E_CORRUPT;
    copy = bns_rcbuf_copy(kv->alloc, bytes);
    if (copy == NULL)
        return BNS_E_NOMEM;
    put(kv, slot, f.u64, copy);
    return BNS_OK;
}

int etcd_members_apply(struct etcd_kv *kv, const Etcdserverpb__ClusterMemberAttrSetRequest *r)
{
    size_t slot = slot_of(kv, r->member_id);
    struct bns_rcbuf *bytes;
    struct bns_buf packed;
    int rv;

    if (slot == ETCD_MEMBER_SLOTS || r->member_id == 0)
        return BNS_OK; /* more members than a cluster can have, or none: not kept */
    bns_buf_init(&packed, kv->alloc, 64 * 1024);
    rv = bns_pb_pack(&r->base, &packed);
    if (rv == BNS_E_TOOBIG) {
        bns_buf_free(&packed);
        return BNS_OK; /* likewise on every member */
    }
    bytes = rv == BNS_OK ? bns_rcbuf_copy(kv->alloc, bns_buf_slice(&packed)) : NULL;
    bns_buf_free(&packed);
    if (bytes == NULL)
        return BNS_E_NOMEM;
    rv = etcd_kv_push_row(kv, 0, (uint32_t)slot, bns_rcbuf_get(bytes));
    if (rv == BNS_OK)
        put(kv, slot, r->member_id, bytes);
    else
        bns_rcbuf_put(bytes);
    return rv;
}
