/* tls_crl.c - revocation lists: whose certificate is refused although it is signed.
 *
 * As in etcd the file is trusted as it is (it lies beside the key), and a certificate is revoked
 * when its serial number is in it, whoever issued it: too strict rather than too lax. Every
 * certificate of the chain that was built is looked up, not only the first, so that leaving one out
 * of what is sent helps nobody; and at both ends, so that a member that dials looks as well.
 *
 * A changed list makes a new SSL_CTX (its bytes are part of the digest), and with it new keys for
 * tickets: a session from before the revocation cannot be resumed.
 *
 * PEM, any number of lists, or DER, one. The numbers are sorted once; a handshake searches by
 * halves. What they point into lives as long as the lists, which are kept. The lists belong to the
 * last good look at the files: a handshake that began before it ended asks the new ones.
 */
#include "io/tls_int.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

struct bns_tls_crl {
    const struct bns_alloc *alloc;
    STACK_OF(X509_CRL) * lists;
    const ASN1_INTEGER **serials; /* sorted */
    size_t count;
};

static int by_serial(const void *a, const void *b)
{
    return ASN1_INTEGER_cmp(*(const ASN1_INTEGER *const *)a, *(const ASN1_INTEGER *const *)b);
}

static bool keep(struct bns_tls_crl *c, X509_CRL *list)
{
    STACK_OF(X509_REVOKED) *r = X509_CRL_get_REVOKED(list);
    int more = r == NULL ? 0 : sk_X509_REVOKED_num(r);
    const ASN1_INTEGER **grown;

    if (sk_X509_CRL_push(c->lists, list) <= 0) {
        X509_CRL_free(list);
        return false;
    }
    if (more == 0)
        return true;
    grown = bns_resize(c->alloc, c->serials, (c->count + (size_t)more) * sizeof *grown);
    if (grown == NULL)
        return false;
    c->serials = grown;
    for (int i = 0; i < more; i++)
        c->serials[c->count++] = X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(r, i));
    return true;
}

void bns_tls_crl_free(struct bns_tls_crl *c)
{
    if (c == NULL)
        return;
    sk_X509_CRL_pop_free(c->lists, X509_CRL_free);
    bns_free(c->alloc, c->serials);
    bns_free(c->alloc, c);
}

static int read_pem(struct bns_tls_crl *c, BIO *in)
{
    X509_CRL *list;

    while ((list = PEM_read_bio_X509_CRL(in, NULL, NULL, NULL)) != NULL) {
        if (!keep(c, list))
            return BNS_E_NOMEM;
    }
    /* anything else is a broken list, perhaps behind good ones */
    return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? BNS_OK : BNS_E_INVALID;
}

static int read_der(struct bns_tls_crl *c, struct bns_slice text)
{
    const unsigned char *at = text.ptr;
    X509_CRL *list = text.len == 0 ? NULL : d2i_X509_CRL(NULL, &at, (long)text.len);

    if (list == NULL)
        return BNS_E_INVALID;
    if (at != text.ptr + text.len) {
        X509_CRL_free(list);
        return BNS_E_INVALID;
    }
    return keep(c, list) ? BNS_OK : BNS_E_NOMEM;
}

int bns_tls_crl_new(const struct bns_alloc *alloc, struct bns_slice text, const char *path,
                    struct bns_tls_crl **out, struct bns_err *err)
{
    struct bns_tls_crl *c = bns_alloc_zero(alloc, sizeof *c);
    BIO *in = BIO_new_mem_buf(text.len == 0 ? (const uint8_t *)"" : text.ptr, (int)text.len);
    int rv = BNS_E_NOMEM;

    if (c == NULL || in == NULL)
        goto fail;
    c->alloc = alloc;
    c->lists = sk_X509_CRL_new_null();
    if (c->lists == NULL)
        goto fail;
    rv = read_pem(c, in);
    if (rv == BNS_OK && sk_X509_CRL_num(c->lists) == 0)
        rv = read_der(c, text);
    if (rv != BNS_OK)
        goto fail;
    if (c->count > 0)
        qsort(c->serials, c->count, sizeof c->serials[0], by_serial);
    ERR_clear_error();
    BIO_free(in);
    *out = c;
    return BNS_OK;

fail:
    ERR_clear_error();
    BIO_free(in); /* NULL is fine */
    bns_tls_crl_free(c);
    return rv == BNS_E_NOMEM ? bns_err_set(err, rv, "%s: no memory", path)
                             : bns_err_set(err, rv, "%s: no revocation list in PEM or DER", path);
}

bool bns_tls_crl_has(const struct bns_tls_crl *c, const X509 *cert)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);

    return c->count > 0 &&
           bsearch(&serial, c->serials, c->count, sizeof c->serials[0], by_serial) != NULL;
}

int bns_tls_crl_verify(int good, X509_STORE_CTX *x)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct bns_tls_stream *s = ssl == NULL ? NULL : SSL_get_app_data(ssl);
    X509 *cert = X509_STORE_CTX_get_current_cert(x);

    if (good != 1 || s == NULL || s->t->ctx.crl == NULL || cert == NULL ||
        !bns_tls_crl_has(s->t->ctx.crl, cert))
        return good;
    bns_counter_add(s->t->revoked, 1);
    X509_STORE_CTX_set_error(x, X509_V_ERR_CERT_REVOKED);
    return 0;
}
