/* tls_self.c - see tls_self.h.
 *
 * The certificate: version 3, a random serial number of 128 bits, ECDSA on P-256, issuer and
 *   subject "O=<organization>", from now on; a CA, so that it may be given to clients as the one
 *   they trust; for servers. The key is written as SEC1 ("EC PRIVATE KEY"), mode 0600.
 * The pair: a certificate beside a key that is not its own would stop every start that follows. So
 *   what is left of half a pair goes first, then the key comes, then the certificate, each written
 *   beside and renamed: the certificate is there only when its key is.
 */
#include "io/tls_self.h"

#include <arpa/inet.h>
#include <stdio.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "store/vfs.h"

#define SERIAL_BYTES 16

static const char *why(void)
{
    unsigned long e = ERR_peek_error();
    const char *text = e == 0 ? NULL : ERR_reason_error_string(e);

    ERR_clear_error();
    return text == NULL ? "unknown cause" : text;
}

/* ---- the certificate ------------------------------------------------------------------------- */
static bool add_ext(X509 *c, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;
    bool good;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, c, c, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    good = e != NULL && X509_add_ext(c, e, -1) == 1;
    X509_EXTENSION_free(e);
    return good;
}

/* By hand: a host is a text from outside, and no line of OpenSSL's configuration language. */
static bool add_host(GENERAL_NAMES *names, const char *host)
{
    GENERAL_NAME *n = GENERAL_NAME_new();
    uint8_t address[16];
    int len = inet_pton(AF_INET, host, address) == 1    ? 4
              : inet_pton(AF_INET6, host, address) == 1 ? 16
                                                        : 0;
    ASN1_STRING *text = len > 0 ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
    const void *bytes = len > 0 ? (const void *)address : host;

    if (n == NULL || text == NULL ||
        ASN1_STRING_set(text, bytes, len > 0 ? len : (int)strlen(host)) != 1) {
        ASN1_STRING_free(text);
        GENERAL_NAME_free(n);
        return false;
    }
    GENERAL_NAME_set0_value(n, len > 0 ? GEN_IPADD : GEN_DNS, text);
    if (sk_GENERAL_NAME_push(names, n) > 0)
        return true;
    GENERAL_NAME_free(n);
    return false;
}

static bool add_hosts(X509 *c, const struct bns_tls_self *o)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool good = names != NULL;

    for (size_t i = 0; good && i < o->hosts_count; i++)
        good = add_host(names, o->hosts[i]);
    good = good && X509_add1_ext_i2d(c, NID_subject_alt_name, names, 0, 0) == 1;
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
    return good;
}

static bool set_serial(struct bns_env *env, X509 *c)
{
    uint8_t bytes[SERIAL_BYTES];
    BIGNUM *n;
    bool good;

    if (bns_entropy(env, bytes, sizeof bytes) != BNS_OK)
        return false;
    n = BN_bin2bn(bytes, sizeof bytes, NULL);
    good = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(c)) != NULL;
    BN_free(n);
    return good;
}

static bool fill(struct bns_env *env, const struct bns_tls_self *o, X509 *c, EVP_PKEY *key)
{
    time_t now = (time_t)(bns_wall_ms(env) / 1000);
    X509_NAME *name = X509_get_subject_name(c);

    return X509_set_version(c, X509_VERSION_3) == 1 && set_serial(env, c) &&
           X509_time_adj_ex(X509_getm_notBefore(c), 0, 0, &now) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(c), (int)o->years * 365, 0, &now) != NULL &&
           X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const uint8_t *)o->organization,
                                      -1, -1, 0) == 1 &&
           X509_set_issuer_name(c, name) == 1 && X509_set_pubkey(c, key) == 1 &&
           add_ext(c, NID_key_usage, "critical,digitalSignature,keyEncipherment,keyCertSign") &&
           add_ext(c, NID_ext_key_usage, "serverAuth") &&
           add_ext(c, NID_basic_constraints, "critical,CA:TRUE") &&
           add_ext(c, NID_subject_key_identifier, "hash") && add_hosts(c, o) &&
           X509_sign(c, key, EVP_sha256()) > 0;
}

/* ---- the files ------------------------------------------------------------------------------- */
static int path_in(const struct bns_tls_self *o, const char *name, char out[BNS_PATH_MAX],
                   struct bns_err *err)
{
    int len = snprintf(out, BNS_PATH_MAX, "%s/%s", o->dir, name);

    if (len < 0 || len >= BNS_PATH_MAX - 4) /* ".new" */
        return bns_err_set(err, BNS_E_INVALID, "%s: the path is too long", o->dir);
    return BNS_OK;
}

static int is_there(struct bns_vfs *vfs, const char *path, bool *out, struct bns_err *err)
{
    struct bns_file_stat st;
    int rv = bns_vfs_stat(vfs, path, &st, err);

    *out = rv == BNS_OK;
    return rv == BNS_E_NOTFOUND ? BNS_OK : rv;
}

static int put(struct bns_vfs *vfs, const char *path, BIO *pem, struct bns_err *err)
{
    struct bns_file *f = NULL;
    char beside[BNS_PATH_MAX];
    struct bns_slice text;
    char *bytes = NULL;
    long len = BIO_get_mem_data(pem, &bytes);
    int rv;

    text = bns_slice(bytes, (size_t)len);
    (void)snprintf(beside, sizeof beside, "%s.new", path); /* fits: path_in() */
    rv = bns_vfs_open(vfs, beside, BNS_OPEN_CREATE | BNS_OPEN_TRUNC, &f, err);
    if (rv == BNS_OK)
        rv = bns_file_write_at(f, 0, &text, 1, err);
    if (rv == BNS_OK)
        rv = bns_file_sync(f, false, err);
    bns_file_close(f);
    return rv == BNS_OK ? bns_vfs_rename(vfs, beside, path, err) : rv;
}

static int remove_if_there(struct bns_vfs *vfs, const char *path, bool there, struct bns_err *err)
{
    return there ? bns_vfs_remove(vfs, path, err) : BNS_OK;
}

static int make(struct bns_env *env, const struct bns_tls_self *o, const char *cert_path,
                const char *key_path, struct bns_err *err)
{
    BIO *cert_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_secmem());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *c = X509_new();
    int rv;

    if (cert_pem == NULL || key_pem == NULL || key == NULL || c == NULL || !fill(env, o, c, key) ||
        PEM_write_bio_X509(cert_pem, c) != 1 ||
        PEM_write_bio_PrivateKey_traditional(key_pem, key, NULL, NULL, 0, NULL, NULL) != 1)
        rv =
            bns_err_set(err, BNS_E_INTERNAL, "cannot make a certificate for %s: %s", o->dir, why());
    else
        rv = put(env->vfs, key_path, key_pem, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(env->vfs, o->dir, err);
    if (rv == BNS_OK)
        rv = put(env->vfs, cert_path, cert_pem, err);
    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(env->vfs, o->dir, err);
    X509_free(c);
    EVP_PKEY_free(key);
    BIO_free(cert_pem);
    BIO_free(key_pem);
    return rv;
}

int bns_tls_self(struct bns_env *env, const struct bns_tls_self *o, bool *made, struct bns_err *err)
{
    char cert[BNS_PATH_MAX], key[BNS_PATH_MAX];
    bool has_cert = false, has_key = false;
    int rv;

    BNS_ASSERT(o->hosts_count > 0);
    if (made != NULL)
        *made = false;
    if (o->years == 0 || o->years > BNS_TLS_SELF_YEARS_MAX)
        return bns_err_set(err, BNS_E_INVALID,
                           "selfSignedCertValidity is invalid,it should be greater than 0 and at "
                           "most %u",
                           BNS_TLS_SELF_YEARS_MAX);
    rv = path_in(o, "cert.pem", cert, err);
    if (rv == BNS_OK)
        rv = path_in(o, "key.pem", key, err);
    if (rv == BNS_OK)
        rv = is_there(env->vfs, cert, &has_cert, err);
    if (rv == BNS_OK)
        rv = is_there(env->vfs, key, &has_key, err);
    if (rv != BNS_OK || (has_cert && has_key))
        return rv;
    rv = remove_if_there(env->vfs, cert, has_cert, err);
    if (rv == BNS_OK && has_cert) /* durable, before another key comes */
        rv = bns_vfs_sync_dir(env->vfs, o->dir, err);
    if (rv == BNS_OK)
        rv = make(env, o, cert, key, err);
    if (rv == BNS_OK && made != NULL)
        *made = true;
    return rv;
}
