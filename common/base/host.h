/* host.h - what a host in an address or a URL is: a number, a name, or neither.
 *
 * Thread: any. Memory: nothing is allocated.
 */
#ifndef BNS_BASE_HOST_H
#define BNS_BASE_HOST_H

#include <stdbool.h>
#include <stdint.h>

#define BNS_HOST_MAX 256 /* bytes of a host with its NUL: a DNS name has at most 253 */

/* A host that may be a name, and a port. */
struct bns_endpoint {
    char host[BNS_HOST_MAX];
    uint16_t port;
};

enum bns_host_kind {
    BNS_HOST_BAD,     /* empty, too long, a forbidden character, or a malformed number */
    BNS_HOST_NUMERIC, /* IPv4 in four decimal parts, or IPv6 without brackets */
    BNS_HOST_NAME,    /* by the rules of RFC 1123 2.1; '_' is let through, as resolvers do */
};
enum bns_host_kind bns_host_kind(const char *host);

#endif
