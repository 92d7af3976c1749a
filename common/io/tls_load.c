/* tls_load.c - from PEM files to an SSL_CTX.
 *
 * All files are read first, whole, through the VFS; their digest tells whether anything changed
 * since the last look. By content, not by time: a file that is replaced twice in one tick of the
 * file system's clock is seen, and one that is only touched is not loaded again.
 *
 * Choices:  TLS 1.2 and 1.3 alone; of TLS 1.2 the suites with ECDHE and AEAD, unless others are
 *           given. No renegotiation (each costs the server a signature), no compression. Tickets
 *           are the only resumption: no cache grows with the clients, and the key of the tickets
 *           goes with the SSL_CTX, so a reload ends the trust of the old files.
 *           Any certificate of the trusted file is an anchor, as in Go (no root is needed above
 *           it). Names come from subjectAltName alone, as in Go.
 *           Read and write buffers are given back when they are empty: an idle connection has none.
 */
#include "io/tls_int.h"

#include <stdio.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "store/vfs.h"

#define FILE_MAX (1024u * 1024)
#define CRL_MAX (16u * 1024 * 1024) /* some authorities revoke a lot */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"
#define CERT_LIST_MAX 65536 /* bytes of certificates that a peer may send */

struct texts { /* the files' contents */
    struct bns_buf cert, key, client_cert, client_key, ca, crl;
};

static const char *why(void)
{
    unsigned long e = ERR_peek_error();
    const char *text = e == 0 ? NULL : ERR_reason_error_string(e);

    ERR_clear_error();
    return text == NULL ? "unknown cause" : text;
}

/* ---- files ----------------------------------------------------------------------------------- */
static int read_file(struct bns_vfs *vfs, const char *path, struct bns_buf *out,
                     struct bns_err *err)
{
    struct bns_file *f = NULL;
    struct bns_err e = {0};
    uint64_t size = 0;
    size_t got = 0;
    int rv;

    if (path == NULL)
        return BNS_OK;
    rv = bns_vfs_open(vfs, path, BNS_OPEN_READ, &f, &e);
    if (rv == BNS_OK)
        rv = bns_file_size(f, &size, &e);
    if (rv == BNS_OK && size >= out->max)
        rv = bns_err_set(&e, BNS_E_TOOBIG, "%s: larger than %zu MiB", path,
                         out->max / (1024u * 1024));
    if (rv == BNS_OK)
        rv = bns_buf_reserve(out, (size_t)size + 1);
    if (rv == BNS_OK)
        rv = bns_file_read_at(f, 0, out->ptr, (size_t)size, &got, &e);
    bns_file_close(f);
    if (rv == BNS_E_NOMEM)
        return bns_err_set(err, rv, "%s: no memory", path);
    if (rv == BNS_E_NOTFOUND)
        return bns_err_set(err, BNS_E_INVALID, "%s: no such file; check the path", path);
    if (rv != BNS_OK)
        return bns_err_set(err, BNS_E_INVALID, "%s; it must be readable for this user", e.text);
    out->len = got;
    return BNS_OK;
}

static int read_all(const struct bns_tls *t, struct bns_vfs *vfs, struct texts *x,
                    struct bns_err *err)
{
    const struct bns_tls_files *f = &t->files;
    int rv = read_file(vfs, f->cert, &x->cert, err);

    if (rv == BNS_OK)
        rv = read_file(vfs, f->key, &x->key, err);
    if (rv == BNS_OK)
        rv = read_file(vfs, f->client_cert, &x->client_cert, err);
    if (rv == BNS_OK)
        rv = read_file(vfs, f->client_key, &x->client_key, err);
    if (rv == BNS_OK)
        rv = read_file(vfs, f->ca, &x->ca, err);
    if (rv == BNS_OK)
        rv = read_file(vfs, f->crl, &x->crl, err);
    return rv;
}

static int digest_all(const struct texts *x, uint8_t out[BNS_TLS_DIGEST], struct bns_err *err)
{
    const struct bns_buf *all[] = {&x->cert,       &x->key, &x->client_cert,
                                   &x->client_key, &x->ca,  &x->crl};
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool good = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

    for (size_t i = 0; good && i < sizeof all / sizeof all[0]; i++) {
        uint64_t len = all[i]->len;

        good = EVP_DigestUpdate(md, &len, sizeof len) == 1 &&
               (len == 0 || EVP_DigestUpdate(md, all[i]->ptr, all[i]->len) == 1);
    }
    good = good && EVP_DigestFinal_ex(md, out, NULL) == 1;
    EVP_MD_CTX_free(md);
    return good ? BNS_OK : bns_err_set(err, BNS_E_INTERNAL, "SHA-256 is not available: %s", why());
}

/* ---- PEM ------------------------------------------------------------------------------------- */
static BIO *bio_of(const struct bns_buf *b)
{
    return BIO_new_mem_buf(b->len == 0 ? (const uint8_t *)"" : b->ptr, (int)b->len);
}

static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return 0;
}

/* After the last object of a file PEM_read says NO_START_LINE; anything else is a broken file. */
static bool at_end(void)
{
    unsigned long e = ERR_peek_last_error();
    bool end =
        e == 0 || (ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE);

    if (end)
        ERR_clear_error();
    return end;
}

static int use_chain(SSL_CTX *ctx, BIO *in, const char *path, struct bns_err *err)
{
    X509 *c = PEM_read_bio_X509_AUX(in, NULL, no_password, NULL);
    bool good;

    if (c == NULL)
        return bns_err_set(err, BNS_E_INVALID, "%s: not a certificate in PEM (%s)", path, why());
    good = SSL_CTX_use_certificate(ctx, c) == 1;
    X509_free(c);
    if (!good)
        return bns_err_set(err, BNS_E_INVALID, "%s: the certificate cannot be used: %s", path,
                           why());
    while ((c = PEM_read_bio_X509(in, NULL, no_password, NULL)) != NULL) {
        good = SSL_CTX_add0_chain_cert(ctx, c) == 1; /* owned now */
        if (!good) {
            X509_free(c);
            return bns_err_set(err, BNS_E_INVALID, "%s: bad chain: %s", path, why());
        }
    }
    if (!at_end())
        return bns_err_set(err, BNS_E_INVALID, "%s: bad certificate in the chain: %s", path, why());
    return BNS_OK;
}

static int use_key(SSL_CTX *ctx, BIO *in, const char *path, const char *cert, struct bns_err *err)
{
    EVP_PKEY *k = PEM_read_bio_PrivateKey(in, NULL, no_password, NULL);
    bool good;

    if (k == NULL)
        return bns_err_set(err, BNS_E_INVALID,
                           "%s: not a private key in PEM without a password (%s)", path, why());
    good = X509_check_private_key(SSL_CTX_get0_certificate(ctx), k) == 1;
    if (!good) {
        EVP_PKEY_free(k);
        ERR_clear_error();
        return bns_err_set(err, BNS_E_INVALID,
                           "tls: private key does not match public key: %s is not the key of %s",
                           path, cert);
    }
    good = SSL_CTX_use_PrivateKey(ctx, k) == 1;
    EVP_PKEY_free(k);
    if (!good)
        return bns_err_set(err, BNS_E_INVALID, "%s: the key cannot be used: %s", path, why());
    return BNS_OK;
}

static int use_pair(SSL_CTX *ctx, const struct bns_buf *cert, const char *cert_path,
                    const struct bns_buf *key, const char *key_path, struct bns_err *err)
{
    BIO *c = bio_of(cert), *k = bio_of(key);
    int rv;

    if (c == NULL || k == NULL)
        rv = bns_err_set(err, BNS_E_NOMEM, "%s: no memory", cert_path);
    else
        rv = use_chain(ctx, c, cert_path, err);
    if (rv == BNS_OK)
        rv = use_key(ctx, k, key_path, cert_path, err);
    BIO_free(c);
    BIO_free(k);
    return rv;
}

/* Trust: every certificate of the file; a server also names them to its clients. */
static int use_ca(SSL_CTX *ctx, const struct bns_buf *ca, const char *path, bool serve,
                  struct bns_err *err)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *in = bio_of(ca);
    size_t count = 0;
    int rv = BNS_OK;
    X509 *c;

    if (in == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory", path);
    while ((c = PEM_read_bio_X509(in, NULL, no_password, NULL)) != NULL) {
        bool good =
            X509_STORE_add_cert(store, c) == 1 && (!serve || SSL_CTX_add_client_CA(ctx, c) == 1);

        X509_free(c);
        if (!good) {
            rv = bns_err_set(err, BNS_E_INVALID, "%s: bad certificate: %s", path, why());
            goto out;
        }
        count++;
    }
    if (!at_end())
        rv = bns_err_set(err, BNS_E_INVALID, "%s: bad certificate: %s", path, why());
    else if (count == 0)
        rv = bns_err_set(err, BNS_E_INVALID, "%s: holds no certificate in PEM", path);
out:
    BIO_free(in);
    return rv;
}

/* ---- contexts -------------------------------------------------------------------------------- */
/* HTTP/1.1 before HTTP/2: who offers both (curl, browsers) wants pages, which are served on
 * HTTP/1.1 alone; gRPC clients offer h2 alone. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned int in_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1\x02h2";
    struct bns_tls_stream *s = SSL_get_app_data(ssl);

    (void)arg;
    if (s == NULL || s->alpn == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, ours, sizeof ours - 1, in,
                              in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    return SSL_TLSEXT_ERR_OK;
}

/* In an open connection the state machine moves only for messages that are not data: key updates,
 * tickets. */
static void on_info(const SSL *ssl, int where, int value)
{
    struct bns_tls_stream *s = SSL_get_app_data(ssl);

    if (s == NULL)
        return;
    if ((where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT &&
        (value & 0xff) == SSL_AD_NO_RENEGOTIATION)
        s->renegotiates = true;
    if ((where & SSL_CB_LOOP) != 0 && s->state == BNS_TLS_OPEN && s->chatter < UINT16_MAX)
        s->chatter++;
}

static int new_ctx(const struct bns_tls *t, bool serve, SSL_CTX **out, struct bns_err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(serve ? TLS_server_method() : TLS_client_method());
    X509_VERIFY_PARAM *param;

    if (ctx == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for TLS: %s", why());
    *out = ctx;
    param = SSL_CTX_get0_param(ctx);
    if (SSL_CTX_set_min_proto_version(ctx, t->version_min) != 1 ||
        SSL_CTX_set_max_proto_version(ctx, t->version_max) != 1 ||
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN) != 1)
        return bns_err_set(err, BNS_E_INTERNAL, "OpenSSL refuses the versions of TLS: %s", why());
    if (SSL_CTX_set_cipher_list(ctx, t->ciphers != NULL ? t->ciphers : CIPHERS) != 1)
        return bns_err_set(err, BNS_E_INVALID, "no cipher suite is left: %s", why());
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE |
                                       SSL_OP_PRIORITIZE_CHACHA); /* the new set */
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); /* the new set */
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);        /* the old mode */
    SSL_CTX_set_max_cert_list(ctx, CERT_LIST_MAX);
    SSL_CTX_set_info_callback(ctx, on_info);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return BNS_OK;
}

static int trust(const struct bns_tls *t, SSL_CTX *ctx, const struct texts *x, bool serve,
                 struct bns_err *err)
{
    if (t->files.ca != NULL)
        return use_ca(ctx, &x->ca, t->files.ca, serve, err);
    if (SSL_CTX_set_default_verify_paths(ctx) != 1)
        return bns_err_set(err, BNS_E_INTERNAL, "the system's trusted certificates: %s", why());
    return BNS_OK;
}

/* A ticket lives for two hours, a certificate perhaps not as long: who resumes is verified no more,
 * so a ticket of a certificate that has expired meanwhile leads to a whole handshake, as in Go. */
static SSL_TICKET_RETURN on_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                   size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    X509 *c;

    (void)ssl;
    (void)name;
    (void)name_len;
    (void)arg;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    c = SSL_SESSION_get0_peer(session); /* NULL: nobody was asked for one */
    if (c != NULL && X509_cmp_current_time(X509_get0_notAfter(c)) <= 0)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static int make_serve(const struct bns_tls *t, const struct texts *x, SSL_CTX **out,
                      struct bns_err *err)
{
    static const unsigned char session_ctx[] = "bonsai";
    int rv = new_ctx(t, true, out, err);

    if (rv == BNS_OK)
        rv = use_pair(*out, &x->cert, t->files.cert, &x->key, t->files.key, err);
    if (rv == BNS_OK && t->client_cert_auth)
        rv = trust(t, *out, x, true, err);
    if (rv != BNS_OK)
        return rv;
    SSL_CTX_set_verify(*out,
                       t->client_cert_auth ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                           : SSL_VERIFY_NONE,
                       bns_tls_crl_verify);
    SSL_CTX_set_alpn_select_cb(*out, on_alpn, NULL);
    if (SSL_CTX_set_session_id_context(*out, session_ctx, sizeof session_ctx - 1) != 1 ||
        SSL_CTX_set_num_tickets(*out, 1) != 1 ||
        SSL_CTX_set_session_ticket_cb(*out, NULL, on_ticket, NULL) != 1)
        return bns_err_set(err, BNS_E_INTERNAL, "OpenSSL refuses session tickets: %s", why());
    return BNS_OK;
}

static int make_dial(const struct bns_tls *t, const struct texts *x, SSL_CTX **out,
                     struct bns_err *err)
{
    int rv = new_ctx(t, false, out, err);

    if (rv == BNS_OK && t->files.client_cert != NULL)
        rv = use_pair(*out, &x->client_cert, t->files.client_cert, &x->client_key,
                      t->files.client_key, err);
    else if (rv == BNS_OK && t->files.cert != NULL)
        rv = use_pair(*out, &x->cert, t->files.cert, &x->key, t->files.key, err);
    if (rv == BNS_OK)
        rv = trust(t, *out, x, false, err);
    if (rv == BNS_OK)
        SSL_CTX_set_verify(*out, t->skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
                           bns_tls_crl_verify);
    return rv;
}

void bns_tls_ctx_free(struct bns_tls_ctx *c)
{
    SSL_CTX_free(c->serve); /* NULL is fine */
    SSL_CTX_free(c->dial);
    bns_tls_crl_free(c->crl);
    *c = (struct bns_tls_ctx){0};
}

static void texts_init(struct texts *x, const struct bns_alloc *a)
{
    bns_buf_init(&x->cert, a, FILE_MAX + 1);
    bns_buf_init(&x->key, a, FILE_MAX + 1);
    bns_buf_init(&x->client_cert, a, FILE_MAX + 1);
    bns_buf_init(&x->client_key, a, FILE_MAX + 1);
    bns_buf_init(&x->ca, a, FILE_MAX + 1);
    bns_buf_init(&x->crl, a, CRL_MAX + 1);
}

static void forget(struct bns_buf *b)
{
    if (b->ptr != NULL)
        OPENSSL_cleanse(b->ptr, b->len);
    bns_buf_free(b);
}

int bns_tls_load(const struct bns_tls *t, struct bns_vfs *vfs, const uint8_t *known,
                 uint8_t digest[BNS_TLS_DIGEST], struct bns_tls_ctx *out, struct bns_err *err)
{
    struct texts x;
    int rv;

    ERR_clear_error();
    *out = (struct bns_tls_ctx){0};
    texts_init(&x, t->env->alloc);
    rv = read_all(t, vfs, &x, err);
    if (rv == BNS_OK)
        rv = digest_all(&x, digest, err);
    if (rv == BNS_OK && (known == NULL || memcmp(known, digest, BNS_TLS_DIGEST) != 0)) {
        if (t->serve)
            rv = make_serve(t, &x, &out->serve, err);
        if (rv == BNS_OK && t->want_dial)
            rv = make_dial(t, &x, &out->dial, err);
        if (rv == BNS_OK && t->files.crl != NULL)
            rv = bns_tls_crl_new(t->env->alloc, bns_slice(x.crl.ptr, x.crl.len), t->files.crl,
                                 &out->crl, err);
        if (rv != BNS_OK)
            bns_tls_ctx_free(out);
    }
    bns_buf_free(&x.cert);
    forget(&x.key);
    bns_buf_free(&x.client_cert);
    forget(&x.client_key);
    bns_buf_free(&x.ca);
    bns_buf_free(&x.crl);
    return rv;
}
