/* fuzz_srv.c - any bytes as a name server's answer: refused, or records whose targets are names. */
#include "io/srv.h"

#include "base/err.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_srv srv[BNS_SRV_MAX];
    struct bns_prng prng;
    size_t count = 0;

    if (bns_srv_parse(bns_slice(data, size), srv, &count, NULL) != BNS_OK)
        return 0;
    BNS_ASSERT(count <= BNS_SRV_MAX);
    bns_prng_seed(&prng, size);
    bns_srv_order(srv, count, &prng);
    for (size_t i = 0; i < count; i++) {
        BNS_ASSERT(bns_host_kind(srv[i].target) != BNS_HOST_BAD);
        BNS_ASSERT(i == 0 || srv[i - 1].priority <= srv[i].priority);
    }
    return 0;
}
