/* tls.h - TLS 1.2 and 1.3 (OpenSSL) below the byte stream: whoever reads and writes a stream does
 * not know whether it is encrypted.
 *
 *     struct bns_tls       certificates, keys and trust of one side of a daemon ("client",
 *                          "peer"), read anew when their files change
 *     bns_tls_listen()     a listener whose streams are handed over after their handshake
 *     bns_tls_connect()    a dialled stream that is open after its handshake
 * Both take NULL instead of a struct bns_tls: then they are the plain calls of base/env.h.
 *
 * Thread:  the env's loop. A reload reads and parses files in a pool job.
 * Codes:   on_close of a TLS stream has those of the env, and: BNS_E_UNAUTH the handshake failed
 *          (a certificate was refused, by either side), BNS_E_PROTO what came is no TLS,
 *          BNS_E_TIMEOUT the handshake took longer than BNS_TLS_HANDSHAKE_NS, BNS_E_DROPPED the
 *          connection ended without close_notify (what came before it may be cut).
 * Bounds:  BNS_TLS_HANDSHAKES_MAX half-finished handshakes a listener (the oldest is dropped),
 *          BNS_TLS_STARTS_PER_TURN started in a turn of the loop; no renegotiation.
 */
#ifndef BNS_IO_TLS_H
#define BNS_IO_TLS_H

#include "base/env.h"

#define BNS_TLS_HANDSHAKE_NS (10 * BNS_SEC)
#define BNS_TLS_HANDSHAKES_MAX 1024u
#define BNS_TLS_STARTS_PER_TURN 8u

struct bns_tls;

enum bns_tls_version { BNS_TLS_DEFAULT, BNS_TLS_1_2, BNS_TLS_1_3 };

/* All texts are copied. Files are PEM (but crl_file), read through env->vfs. */
struct bns_tls_config {
    const char *name; /* in messages and metrics: "client", "peer" */
    bool serve;       /* it will be given to bns_tls_listen(): needs cert_file and key_file */
    bool dial;        /* it will be given to bns_tls_connect() */
    const char *cert_file, *key_file;               /* the certificate with its chain; its key */
    const char *client_cert_file, *client_key_file; /* to dial with; NULL: those above, if any */
    const char *ca_file;                            /* who is trusted; NULL: the system's list */
    const char *crl_file;         /* revoked certificates, PEM or DER; NULL: none are */
    bool client_cert_auth;        /* accept only who shows a certificate that ca_file signed */
    const char *allowed_cn;       /* of a client's certificate; NULL: any */
    const char *allowed_hostname; /* likewise, one of its names */
    bool skip_verify;             /* dialling: trust anyone */
    const char *ciphers;          /* of TLS 1.2, OpenSSL's names; NULL: ECDHE with AEAD */
    enum bns_tls_version version_min, version_max;
};

/* Start-up, blocking. BNS_E_INVALID with one line that names the file and what to do. */
BNS_MUST_CHECK int bns_tls_new(struct bns_env *env, const struct bns_tls_config *cfg,
                               struct bns_tls **out, struct bns_err *err);
/* Looks at the files now, whatever the time (SIGHUP). Otherwise they are looked at when a
 * connection comes and the last look was a second ago; that connection waits for the look. A
 * broken file leaves the old certificates in force, with an error in the log. */
void bns_tls_reload(struct bns_tls *t);
/* Runs done, in this call or later, when no look at the files is under way and what streams have
 * written in this turn is encrypted; looks no more. */
void bns_tls_stop(struct bns_tls *t, void (*done)(void *arg), void *arg);
/* After bns_tls_stop(), or when the process ends; before the env is freed. Streams may outlive it.
 * NULL is fine. */
void bns_tls_free(struct bns_tls *t);

/* ---- listeners ------------------------------------------------------------------------------- */
struct bns_tls_listener;

/* As bns_net_listen(). `t` may be NULL: plain. ALPN when `alpn_http`: http/1.1 when it is offered,
 * else h2, which is for gRPC; otherwise what clients offer is ignored. */
struct bns_tls_listen_options {
    const char *host;
    uint16_t port;
    bool alpn_http;
    bns_accept_fn *fn;
    void *arg;
};
BNS_MUST_CHECK int bns_tls_listen(struct bns_env *env, struct bns_tls *t,
                                  const struct bns_tls_listen_options *o,
                                  struct bns_tls_listener **out, struct bns_err *err);
uint16_t bns_tls_listener_port(const struct bns_tls_listener *l);
/* Half-finished handshakes are dropped. NULL is fine. */
void bns_tls_listener_close(struct bns_tls_listener *l);

/* ---- dialling -------------------------------------------------------------------------------- */
struct bns_tls_dial {
    const char *host;
    uint16_t port;
    const char *server_name; /* that the certificate must have; NULL: host */
    const char *alpn;        /* "h2", "http/1.1", or NULL */
};
/* As bns_net_connect(). `t` may be NULL: plain. */
BNS_MUST_CHECK int bns_tls_connect(struct bns_env *env, struct bns_tls *t,
                                   const struct bns_tls_dial *o, const struct bns_stream_events *ev,
                                   void *arg, struct bns_stream **out, struct bns_err *err);

/* ---- streams --------------------------------------------------------------------------------- */
/* The common name of the certificate that the other side has shown and that was verified; false:
 * none, or a plain stream. */
bool bns_tls_peer_cn(const struct bns_stream *s, char *out, size_t out_len);

bool bns_tls_is(const struct bns_stream *s); /* not a plain stream */

/* For servers in plain text: is this the begin of a TLS handshake? Then counts it and logs what to
 * do, once a second (*log_ns is the caller's, 0 at first); the caller closes. */
bool bns_tls_misdirected(struct bns_env *env, const struct bns_stream *s, struct bns_slice data,
                         uint64_t *log_ns);

#endif
