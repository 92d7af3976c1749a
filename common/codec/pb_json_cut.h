/* pb_json_cut.h - finds where a JSON value ends in bytes that come in pieces.
 *
 * For bodies that hold one value after another (streams of requests): the values are not looked
 * into, only their brackets and strings are followed. What is cut out may still be no JSON.
 *
 * Thread: any.
 */
#ifndef BNS_CODEC_PB_JSON_CUT_H
#define BNS_CODEC_PB_JSON_CUT_H

#include "base/buf.h"

struct bns_json_cut {
    struct bns_buf text; /* of the value, as far as it has come */
    size_t elements_max, elements;
    uint32_t depth;
    bool begun, scalar, in_string, escaped, whole;
};

/* A value has at most bytes_max bytes and elements_max commas, colons and opening brackets (each
 * may cost its reader some hundred bytes). */
void bns_json_cut_init(struct bns_json_cut *c, const struct bns_alloc *alloc, size_t bytes_max,
                       size_t elements_max);
void bns_json_cut_free(struct bns_json_cut *c);
void bns_json_cut_reset(struct bns_json_cut *c); /* makes room for the next value */
/* Takes bytes from the front of *in until a value is whole (c->text) or *in is empty.
 * BNS_OK: whole. BNS_E_AGAIN: more is needed. BNS_E_TOOBIG: over a limit; BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_json_cut_next(struct bns_json_cut *c, struct bns_slice *in);
/* No more bytes come. BNS_OK: a scalar was whole after all. BNS_E_NOTFOUND: nothing but blanks.
 * BNS_E_PROTO: the value is cut short. */
BNS_MUST_CHECK int bns_json_cut_end(struct bns_json_cut *c);

#endif
