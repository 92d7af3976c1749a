/* addr.c - numeric addresses to and from the kernel's form. Names: resolve.c. */
#include "io/loop.h"

#include <arpa/inet.h>

int bns_addr_parse(const char *host, uint16_t port, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    memset(out, 0, sizeof *out);
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(out, &v4, sizeof v4);
        *len = sizeof v4;
        return BNS_OK;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(out, &v6, sizeof v6);
        *len = sizeof v6;
        return BNS_OK;
    }
    return BNS_E_INVALID;
}

void bns_addr_set_port(struct sockaddr_storage *a, uint16_t port)
{
    uint16_t be = htons(port);

    if (a->ss_family == AF_INET6)
        memcpy((char *)a + offsetof(struct sockaddr_in6, sin6_port), &be, sizeof be);
    else if (a->ss_family == AF_INET)
        memcpy((char *)a + offsetof(struct sockaddr_in, sin_port), &be, sizeof be);
}

void bns_addr_format(const struct sockaddr_storage *in, struct bns_net_addr *out)
{
    memset(out, 0, sizeof *out);
    if (in->ss_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, in, sizeof v6);
        out->port = ntohs(v6.sin6_port);
        (void)inet_ntop(AF_INET6, &v6.sin6_addr, out->host, sizeof out->host); /* it fits */
    } else if (in->ss_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, in, sizeof v4);
        out->port = ntohs(v4.sin_port);
        (void)inet_ntop(AF_INET, &v4.sin_addr, out->host, sizeof out->host); /* it fits */
    }
}
