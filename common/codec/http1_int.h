/* http1_int.h - shared by http1.c (the machine) and http1_head.c (the grammar of a whole head). */
#ifndef BNS_CODEC_HTTP1_INT_H
#define BNS_CODEC_HTTP1_INT_H

#include "codec/http1.h"

bool bns_http1_token_char(uint8_t c); /* RFC 9110 5.6.2 */
int bns_http1_fail(struct bns_http1 *p, int code, int status, const char *why);
/* p->text holds a whole head, every line ended by CRLF. Fills p->head. */
BNS_MUST_CHECK int bns_http1_parse_head(struct bns_http1 *p);

#endif
