/* fuzz_where.c - any bytes as what a member says of its addresses: refused, or hosts and ports that
 * can be dialled, which encode to the same bytes. */
#include <string.h>

#include "app/raft_node_int.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[BNS_RN_WHERE_MAX];
    struct bns_raft_peer_addr a;

    if (!bns_rn_where_decode(bns_slice(data, size), &a))
        return 0;
    BNS_ASSERT(a.port != 0 && bns_host_kind(a.host) != BNS_HOST_BAD);
    BNS_ASSERT(a.more_count < BNS_RPC_ADDRS_MAX);
    BNS_ASSERT(bns_rn_where_encode(&a, again) == size && memcmp(again, data, size) == 0);
    return 0;
}
