/* crc32c.c - CRC-32C (polynomial 0x1edc6f41, reflected; RFC 3720 appendix B.4) through ISA-L,
 * which picks SSE4.2 or AVX code at run time.
 *
 * ISA-L's crc32_iscsi() keeps the raw register: start value and final inversion are the caller's.
 * It takes an int length, so longer inputs go in pieces.
 */
#include "base/crc32c.h"

#include <isa-l/crc.h>

#define PIECE ((size_t)1 << 30)

uint32_t bns_crc32c(uint32_t crc, const void *ptr, size_t len)
{
    unsigned char *p = (unsigned char *)(uintptr_t)ptr; /* ISA-L's prototype lacks const */

    crc = ~crc;
    while (len > 0) {
        size_t n = len < PIECE ? len : PIECE;
        crc = crc32_iscsi(p, (int)n, crc);
        p += n;
        len -= n;
    }
    return ~crc;
}
