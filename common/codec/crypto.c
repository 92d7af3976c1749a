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
