/* secure.h - etcd's TLS flags: their table, their rules, and the two sides made of them.
 *
 * Thread: start-up, but etcd_secure_reload() and _stop(), on the loop.
 */
#ifndef ETCD_SECURE_H
#define ETCD_SECURE_H

#include "app/cli.h"
#include "app/config.h"
#include "base/arena.h"
#include "io/tls.h"
#include "members.h"

#define ETCD_SECURE_FLAGS 28
#define ETCD_SECURE_HOSTS ((size_t)2 * ETCD_URLS_MAX)

struct etcd_secure_side { /* clients, or peers */
    const char *cert_file, *key_file;
    const char *client_cert_file, *client_key_file;
    const char *trusted_ca_file;
    const char *allowed_cn, *allowed_hostname;
    const char *crl_file;
    bool client_cert_auth;
    bool auto_tls;

    /* derived */
    const char *fixtures; /* where the side makes its own certificate; NULL: it does not */
    const char *hosts[ETCD_SECURE_HOSTS];
    size_t hosts_count;
};

struct etcd_secure_options {
    struct etcd_secure_side client, peer;
    const char *cipher_suites, *version_min, *version_max;
    uint64_t self_signed_years; /* of a certificate that is made here */

    /* derived */
    const char *ciphers; /* OpenSSL's names */
    enum bns_tls_version min, max;
    bool client_tls;            /* a client URL is https */
    bool peer_serve, peer_dial; /* our peer URL is https; a member's is */
};

struct etcd_options;

/* Flags; each is also a variable. Writes at most ETCD_SECURE_FLAGS, returns how many. */
size_t etcd_secure_flags(struct etcd_secure_options *o, struct bns_cli_flag *out);
/* The keys of the configuration file; in etcd's they stand in sections. As above. */
size_t etcd_secure_keys(struct etcd_secure_options *o, struct bns_config_key *out);
/* After the URLs are known: etcd's rules, with its words. BNS_E_INVALID. */
BNS_MUST_CHECK int etcd_secure_derive(struct etcd_options *o, struct bns_arena *arena,
                                      struct bns_err *err);
/* secure_auto.c: what etcd_secure_derive() and etcd_secure_open() do for such a side. */
BNS_MUST_CHECK int etcd_secure_auto_derive(struct etcd_options *o, struct bns_arena *arena,
                                           struct bns_err *err);
BNS_MUST_CHECK int etcd_secure_auto_make(struct bns_env *env, const struct etcd_secure_options *o,
                                         const struct etcd_secure_side *s, struct bns_err *err);
/* What etcd warns of, one line each on stderr. */
void etcd_secure_warn(const struct etcd_options *o, const char *program);

/* The sides that are needed, else NULL. */
struct etcd_secure {
    struct bns_tls *client, *peer;
    void (*stopped)(void *arg);
    void *stopped_arg;
};
BNS_MUST_CHECK int etcd_secure_open(struct bns_env *env, const struct etcd_secure_options *o,
                                    struct etcd_secure *out, struct bns_err *err);
bool etcd_secure_reload(struct etcd_secure *s); /* false: no certificates are in use */
void etcd_secure_stop(struct etcd_secure *s, void (*done)(void *arg), void *arg);
void etcd_secure_free(struct etcd_secure *s);

#endif
