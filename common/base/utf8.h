/* utf8.h - UTF-8 as RFC 3629 defines it (no overlong forms, no surrogates, <= U+10FFFF).
 *
 * Header only; used wherever text from outside is checked or cut.
 */
#ifndef BNS_BASE_UTF8_H
#define BNS_BASE_UTF8_H

#include "base/slice.h"

/* Bytes of the well-formed sequence at the start of s; 0 when there is none (also when empty). */
static inline size_t bns_utf8_step(struct bns_slice s)
{
    const uint8_t *p = s.ptr;

    if (s.len == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    if (s.len < 2 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xe0)
        return 2;
    if (s.len < 3 || (p[2] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xf0) {
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
            return 0;
        return 3;
    }
    if (s.len < 4 || (p[3] & 0xc0) != 0x80)
        return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return 4;
}

static inline bool bns_utf8_valid(struct bns_slice s)
{
    size_t i = 0;

    while (i < s.len) {
        uint64_t word;
        size_t n;

        if (s.len - i >= sizeof word) { /* eight ASCII bytes at a time */
            memcpy(&word, s.ptr + i, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof word;
                continue;
            }
        }
        n = bns_utf8_step((struct bns_slice){s.ptr + i, s.len - i});
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

#endif
