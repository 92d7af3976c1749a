/* base64.h - RFC 4648 base64: standard alphabet out, both alphabets in, padding optional in.
 *
 * Thread: any. Errors: BNS_E_INVALID (a byte outside the alphabets, a length that cannot be, set
 * bits past the end), BNS_E_NOMEM, BNS_E_TOOBIG; the output is then unchanged.
 */
#ifndef BNS_CODEC_BASE64_H
#define BNS_CODEC_BASE64_H

#include "base/buf.h"

BNS_MUST_CHECK int bns_base64_encode(struct bns_buf *out, struct bns_slice in, bool pad);
BNS_MUST_CHECK int bns_base64_decode(struct bns_buf *out, struct bns_slice in);

#endif
