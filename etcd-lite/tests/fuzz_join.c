/* fuzz_join.c - a list of members from whoever answers at a peer URL. */
#include "join.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct etcd_roster r;
    struct bns_err err = {0};

    if (etcd_join_parse((const char *)data, size, &r, &err) == BNS_OK) {
        BNS_ASSERT(r.count > 0 && r.count <= ETCD_ROSTER_MAX);
        for (size_t i = 0; i < r.count; i++)
            BNS_ASSERT(r.member[i].peer_urls.count > 0);
    }
    return 0;
}
