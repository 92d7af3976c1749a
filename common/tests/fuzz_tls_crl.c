/* fuzz_tls_crl.c - any bytes as a file of revocation lists: lists or none, and nothing is left. */
#include "fuzz.h"
#include "io/tls_int.h"
#include "sim/heap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_test_heap *heap = bns_test_heap(0);
    struct bns_tls_crl *c = NULL;
    X509 *cert = X509_new();
    bool fired;

    BNS_ASSERT(cert != NULL);
    BNS_ASSERT(ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) == 1);
    if (bns_tls_crl_new(bns_test_heap_alloc(heap), bns_slice(data, size), "f", &c, NULL) == BNS_OK)
        (void)bns_tls_crl_has(c, cert);
    bns_tls_crl_free(c);
    X509_free(cert);
    BNS_ASSERT(bns_test_heap_close(heap, &fired) == 0);
    return 0;
}
