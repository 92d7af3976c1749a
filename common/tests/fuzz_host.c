/* fuzz_host.c - any text as a host: what is called a name has only a name's letters, what is called
 * numeric is what the kernel takes, and nothing is both. */
#include "base/host.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/err.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char host[300];
    unsigned char bytes[16];
    bool numeric;

    if (size >= sizeof host)
        return 0;
    if (size > 0)
        memcpy(host, data, size);
    host[size] = 0;
    numeric = inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
    switch (bns_host_kind(host)) {
    case BNS_HOST_NUMERIC:
        BNS_ASSERT(numeric);
        break;
    case BNS_HOST_NAME:
        BNS_ASSERT(!numeric);
        BNS_ASSERT(strlen(host) < BNS_HOST_MAX - 1);
        BNS_ASSERT(strstr(host, "..") == NULL);
        BNS_ASSERT(
            strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
            strlen(host));
        break;
    case BNS_HOST_BAD:
        BNS_ASSERT(!numeric);
        break;
    }
    return 0;
}
