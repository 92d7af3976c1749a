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

#endif
