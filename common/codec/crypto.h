/* crypto.h - hashes, through OpenSSL's libcrypto.
 *
 * Thread: any. Errors: BNS_E_INTERNAL when the library refuses (out of memory, FIPS policy).
 */
#ifndef BNS_CODEC_CRYPTO_H
#define BNS_CODEC_CRYPTO_H

#include "base/err.h"
#include "base/slice.h"

#define BNS_SHA1_BYTES 20

/* SHA-1 of n slices, one behind the other: for ids that real systems derive so, not for
 * security. */
BNS_MUST_CHECK int bns_sha1(const struct bns_slice *v, size_t n, uint8_t out[BNS_SHA1_BYTES]);

#define BNS_SHA256_BYTES 32

/* SHA-256 of bytes that come one after the other. Memory: the library's. */
struct bns_sha256;
BNS_MUST_CHECK int bns_sha256_new(struct bns_sha256 **out);
BNS_MUST_CHECK int bns_sha256_add(struct bns_sha256 *h, struct bns_slice bytes);
/* Nothing can be added afterwards. */
BNS_MUST_CHECK int bns_sha256_end(struct bns_sha256 *h, uint8_t out[BNS_SHA256_BYTES]);
void bns_sha256_free(struct bns_sha256 *h); /* NULL is fine */

#endif
