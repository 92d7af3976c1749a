/* crypto.c - see crypto.h. */
#include "codec/crypto.h"

#include <openssl/evp.h>

int bns_sha1(const struct bns_slice *v, size_t n, uint8_t out[BNS_SHA1_BYTES])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha1(), NULL) == 1;

    for (size_t i = 0; ok && i < n; i++)
        ok = EVP_DigestUpdate(ctx, v[i].ptr, v[i].len) == 1;
    ok = ok && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? BNS_OK : BNS_E_INTERNAL;
}

/* struct bns_sha256 is the library's context under a name of its own. */
static EVP_MD_CTX *ctx_of(struct bns_sha256 *h)
{
    return (EVP_MD_CTX *)(void *)h;
}

int bns_sha256_new(struct bns_sha256 **out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        return BNS_E_INTERNAL;
    }
    *out = (struct bns_sha256 *)(void *)ctx;
    return BNS_OK;
}

int bns_sha256_add(struct bns_sha256 *h, struct bns_slice bytes)
{
    return EVP_DigestUpdate(ctx_of(h), bytes.ptr, bytes.len) == 1 ? BNS_OK : BNS_E_INTERNAL;
}

int bns_sha256_end(struct bns_sha256 *h, uint8_t out[BNS_SHA256_BYTES])
{
    return EVP_DigestFinal_ex(ctx_of(h), out, NULL) == 1 ? BNS_OK : BNS_E_INTERNAL;
}

void bns_sha256_free(struct bns_sha256 *h)
{
    EVP_MD_CTX_free(ctx_of(h));
}
