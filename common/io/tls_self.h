/* tls_self.h - a certificate that nobody signed but itself, for TLS without an authority.
 *
 * Thread: start-up, blocking.
 */
#ifndef BNS_IO_TLS_SELF_H
#define BNS_IO_TLS_SELF_H

#include "base/env.h"

#define BNS_TLS_SELF_YEARS_MAX 292u /* a span of more overflows in Go, where the rule comes from */

struct bns_tls_self {
    const char *dir;          /* it is there; cert.pem and key.pem in it */
    const char *organization; /* the subject */
    const char *const *hosts; /* addresses and names that the certificate is for, one at least */
    size_t hosts_count;
    uint32_t years; /* of 365 days, 1 to BNS_TLS_SELF_YEARS_MAX */
};

/* Files that are both there stay as they are; otherwise both are made, and durable. *made (may be
 * NULL) says which. BNS_E_INVALID: the span; errors of the VFS, of memory, of OpenSSL. After an
 * error or a crash the next call finds a pair, or none. */
BNS_MUST_CHECK int bns_tls_self(struct bns_env *env, const struct bns_tls_self *o, bool *made,
                                struct bns_err *err);

#endif
