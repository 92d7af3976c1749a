/* srv.h - SRV records of the DNS (RFC 2782): where a service of a domain is found.
 *
 * Thread: any, and it blocks as long as the system's resolver asks (seconds): for the start of a
 *         program, before there is a loop.
 * Memory: fixed sizes, owned by the caller. What is not said below is unchanged on error.
 */
#ifndef BNS_IO_SRV_H
#define BNS_IO_SRV_H

#include "base/err.h"
#include "base/host.h"
#include "base/prng.h"
#include "base/slice.h"

#define BNS_SRV_MAX 64u

struct bns_srv {
    uint16_t priority, weight, port;
    char target[BNS_HOST_MAX]; /* a name, without the dot at its end */
};

/* The SRV records in a message of a name server, as they stand there; those that say that there is
 * no such service (the target ".") are left out. *count <= BNS_SRV_MAX.
 * BNS_E_PROTO: no such message, or a target that is not a host's name; BNS_E_TOOBIG: too many. */
BNS_MUST_CHECK int bns_srv_parse(struct bns_slice msg, struct bns_srv out[BNS_SRV_MAX],
                                 size_t *count, struct bns_err *err);

/* In the order to try them: by priority, and within one at random, by weight. */
void bns_srv_order(struct bns_srv *srv, size_t count, struct bns_prng *prng);

/* Asks the name servers of /etc/resolv.conf, with its search list; *count >= 1, in order.
 * BNS_E_NOTFOUND: there is no such record; BNS_E_IO: no name server answered; and those above. The
 * text is "lookup NAME on SERVER: ...", as Go has it. */
BNS_MUST_CHECK int bns_srv_lookup(const char *name, struct bns_prng *prng,
                                  struct bns_srv out[BNS_SRV_MAX], size_t *count,
                                  struct bns_err *err);

#endif
