/* tls_shake.c - handshakes: their start, their end, and what is refused.
 *
 * A handshake may wait before it begins (tls.c): while the certificate files are looked at, and
 * when enough others began in this turn. From the accept, or the dial, to its end it has
 * BNS_TLS_HANDSHAKE_NS.
 *
 * An accepted stream that does not begin with a handshake record is plain text: an HTTP request is
 * answered 400 in plain text, with the sentence that Go's server says, anything else is closed.
 *
 * Who is accepted: OpenSSL checks chain, dates and purpose (extended key usage: a client's
 * certificate does not serve as a server's, nor the reverse). A dialled server must have the name
 * or the address that was dialled, among its subjectAltNames. Allowed names of clients are checked
 * here after the handshake.
 */
#include "io/tls_int.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

/* ---- the end --------------------------------------------------------------------------------- */
void bns_tls_shake_over(struct bns_tls_stream *s, enum bns_tls_result r)
{
    BNS_ASSERT(s->half);
    s->half = false;
    bns_timer_stop(s->t->env, &s->timer);
    bns_tls_half(s->t, -1);
    bns_tls_count(s->t, s->accepted, r);
    if (s->accepted)
        bns_tls_listener_half(s);
}

/* Who never said a byte (a probe of the port) or was never reached has failed no handshake. */
void bns_tls_shake_lost(struct bns_tls_stream *s)
{
    if (!s->half)
        return;
    if (s->state == BNS_TLS_SHAKING) {
        bns_tls_reject_log(s->t, s->under, s->accepted, "the connection ended in the handshake",
                           s->accepted ? "the client may not trust our certificate: give it our CA "
                                         "(--cacert)"
                                       : "look into the log of the server");
        bns_tls_shake_over(s, BNS_TLS_FAILED);
        return;
    }
    s->half = false;
    bns_timer_stop(s->t->env, &s->timer);
    bns_tls_half(s->t, -1);
    if (s->accepted)
        bns_tls_listener_half(s);
}

void bns_tls_on_timer(void *arg)
{
    struct bns_tls_stream *s = arg;

    if (s->half) {
        bns_tls_reject_log(s->t, s->under, s->accepted, "the handshake took too long",
                           "it must be over within 10 s");
        bns_tls_shake_over(s, BNS_TLS_TIMEOUT);
    }
    bns_stream_reset(&s->base);
    s->code = BNS_E_TIMEOUT;
}

/* ---- what a refusal means -------------------------------------------------------------------- */
static const char *remedy_of_verify(const struct bns_tls_stream *s, long result)
{
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "renew the certificate of the other side, or set the clocks";
    case X509_V_ERR_CERT_REVOKED:
        return "its certificate, or one above it, is in the revocation list: it needs a new one";
    case X509_V_ERR_INVALID_PURPOSE:
        return s->accepted ? "its certificate needs the extended key usage clientAuth"
                           : "its certificate needs the extended key usage serverAuth";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return "put the dialled name or address into its certificate (subjectAltName)";
    default:
        return "its certificate must be signed by one of the trusted CA file";
    }
}

static const struct {
    int reason, code;
    const char *remedy;
} reasons[] = {
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, BNS_E_UNAUTH,
     "give the client a certificate and its key (--cert, --key)"},
    {SSL_R_TLSV1_ALERT_UNKNOWN_CA, BNS_E_UNAUTH,
     "the other side does not trust our certificate: give it our CA (--cacert)"},
    {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, BNS_E_UNAUTH,
     "the other side refuses our certificate: its log says why (name, CA, dates, usage)"},
    {SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, BNS_E_UNAUTH,
     "our certificate lacks the extended key usage for this side"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, BNS_E_UNAUTH, "renew our certificate"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, BNS_E_UNAUTH,
     "our certificate is in the other side's revocation list: renew it"},
    {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, BNS_E_UNAUTH,
     "the other side refuses our certificate: its log says why (name, CA, dates, usage)"},
    {SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, BNS_E_UNAUTH,
     "the server wants a certificate of us: give one, with its key"},
    {SSL_R_UNSUPPORTED_PROTOCOL, BNS_E_PROTO, "use TLS 1.2 or 1.3"},
    {SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, BNS_E_PROTO, "use TLS 1.2 or 1.3"},
    {SSL_R_NO_SHARED_CIPHER, BNS_E_PROTO,
     "the cipher suites of both sides have none in common (--cipher-suites)"},
    {SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, BNS_E_PROTO,
     "the server wants a certificate of us, or no cipher suite is in common: see its log"},
    {SSL_R_NO_APPLICATION_PROTOCOL, BNS_E_PROTO, "offer h2 or http/1.1 by ALPN"},
    {SSL_R_WRONG_VERSION_NUMBER, BNS_E_PROTO,
     "the other side does not speak TLS: use http:// for it"},
    {SSL_R_HTTP_REQUEST, BNS_E_PROTO, "use https:// for it"},
};

void bns_tls_judge(struct bns_tls_stream *s, struct bns_tls_verdict *out)
{
    long verify = SSL_get_verify_result(s->ssl);
    unsigned long e = ERR_peek_error();
    const char *text = e == 0 ? NULL : ERR_reason_error_string(e);

    *out = (struct bns_tls_verdict){"broken TLS", "see the other side's log", BNS_E_PROTO};
    if (e != 0 && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK) {
        out->why = X509_verify_cert_error_string(verify);
        out->remedy = remedy_of_verify(s, verify);
        out->code = BNS_E_UNAUTH;
        return;
    }
    if (text != NULL)
        out->why = text;
    for (size_t i = 0; e != 0 && i < sizeof reasons / sizeof reasons[0]; i++) {
        if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == reasons[i].reason) {
            out->remedy = reasons[i].remedy;
            out->code = reasons[i].code;
        }
    }
}

static void refused(struct bns_tls_stream *s)
{
    struct bns_tls_verdict v = {"out of memory", "give this process more memory", BNS_E_NOMEM};

    if (!s->no_memory)
        bns_tls_judge(s, &v);
    bns_tls_reject_log(s->t, s->under, s->accepted, v.why, v.remedy);
    bns_tls_shake_over(s, BNS_TLS_FAILED);
    ERR_clear_error();
    bns_tls_broken(s, v.code);
}

/* ---- plain text ------------------------------------------------------------------------------ */
static bool is_http(struct bns_slice v)
{
    static const char *const methods[] = {"GET ",    "HEAD ", "POST ", "PUT ",
                                          "DELETE ", "OPTIO", "PATCH"};

    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (v.len >= strlen(methods[i]) && memcmp(v.ptr, methods[i], strlen(methods[i])) == 0)
            return true;
    }
    return false;
}

static void plain_text(struct bns_tls_stream *s)
{
    const struct bns_slice answer = BNS_LIT("HTTP/1.0 400 Bad Request\r\n\r\n"
                                            "Client sent an HTTP request to an HTTPS server.\n");

    bns_tls_reject_log(s->t, s->under, true, "plain text on a TLS port",
                       "dial https:// instead of http://, with the CA of this server");
    if (is_http(s->in) && bns_stream_write(s->under, &answer, 1, NULL, NULL) != BNS_OK)
        s->no_memory = true; /* closed without the answer */
    bns_tls_shake_over(s, BNS_TLS_PLAIN);
    bns_tls_broken(s, BNS_E_PROTO);
}

/* ---- the start ------------------------------------------------------------------------------- */
static bool is_address(const char *name)
{
    struct in6_addr a;

    return inet_pton(AF_INET, name, &a) == 1 || inet_pton(AF_INET6, name, &a) == 1;
}

static bool set_name(struct bns_tls_stream *s)
{
    X509_VERIFY_PARAM *p = SSL_get0_param(s->ssl);

    if (is_address(s->server_name))
        return X509_VERIFY_PARAM_set1_ip_asc(p, s->server_name) == 1;
    return X509_VERIFY_PARAM_set1_host(p, s->server_name, 0) == 1 &&
           SSL_set_tlsext_host_name(s->ssl, s->server_name) == 1;
}

static bool set_alpn(struct bns_tls_stream *s)
{
    unsigned char wire[16];
    size_t len = s->alpn == NULL ? 0 : strlen(s->alpn);

    if (len == 0)
        return true;
    BNS_ASSERT(len < sizeof wire);
    wire[0] = (unsigned char)len;
    memcpy(wire + 1, s->alpn, len);
    return SSL_set_alpn_protos(s->ssl, wire, (unsigned)len + 1) == 0; /* 0 is good here */
}

/* False: not yet, or never. */
static bool begin(struct bns_tls_stream *s)
{
    struct bns_tls *t = s->t;
    bool good;

    if (s->accepted && s->in.len == 0)
        return false;
    if (s->accepted && s->in.ptr[0] != SSL3_RT_HANDSHAKE) {
        plain_text(s);
        return false;
    }
    if (!bns_tls_may_start(t)) {
        if (bns_list_empty(&s->wait))
            bns_list_push(&t->waiting, &s->wait);
        return false;
    }
    good = bns_tls_ssl_new(s, s->accepted ? t->ctx.serve : t->ctx.dial) == BNS_OK;
    if (good && s->accepted)
        SSL_set_accept_state(s->ssl);
    else if (good)
        SSL_set_connect_state(s->ssl);
    if (good && !s->accepted)
        good = set_name(s) && set_alpn(s);
    if (!good) {
        s->no_memory = true;
        refused(s);
        return false;
    }
    s->state = BNS_TLS_SHAKING;
    return true;
}

/* ---- done ------------------------------------------------------------------------------------ */
static bool allowed(struct bns_tls_stream *s)
{
    const struct bns_tls *t = s->t;
    X509 *c = SSL_get0_peer_certificate(s->ssl);
    char cn[256];

    if (!s->accepted)
        return true;
    if (t->allowed_cn != NULL &&
        (!bns_tls_peer_cn(&s->base, cn, sizeof cn) || strcmp(cn, t->allowed_cn) != 0))
        return false;
    return t->allowed_hostname == NULL ||
           (c != NULL && X509_check_host(c, t->allowed_hostname, 0,
                                         X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1);
}

static void shaken(struct bns_tls_stream *s)
{
    if (!allowed(s)) {
        bns_tls_reject_log(s->t, s->under, true, "the name of the client is not the allowed one",
                           "its certificate must have the allowed CN or hostname");
        bns_tls_shake_over(s, BNS_TLS_FAILED);
        bns_tls_broken(s, BNS_E_UNAUTH);
        return;
    }
    bns_tls_shake_over(s, BNS_TLS_OK);
    s->state = BNS_TLS_OPEN;
    if (!bns_tls_give(s)) {
        bns_tls_broken(s, BNS_E_NOMEM);
        return;
    }
    if (s->accepted)
        bns_tls_hand_over(s);
    else if (s->ev.on_open != NULL)
        s->ev.on_open(s->arg);
    if (s->state != BNS_TLS_OPEN)
        return;
    if (!s->reading)
        bns_stream_read(s->under, false);
    if (!bns_list_empty(&s->out))
        bns_tls_mark(s);
}

void bns_tls_shake(struct bns_tls_stream *s)
{
    int rc;

    if (s->state == BNS_TLS_WAITING && !begin(s))
        return;
    ERR_clear_error();
    s->block_hint = 0;
    rc = SSL_do_handshake(s->ssl);
    if (rc == 1)
        shaken(s);
    else if (s->no_memory || SSL_get_error(s->ssl, rc) != SSL_ERROR_WANT_READ)
        refused(s);
    else if (!bns_tls_give(s))
        refused(s);
}
