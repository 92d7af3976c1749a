/* crc32c.h - CRC-32C (Castagnoli) through ISA-L. bns_crc32c(0, "123456789", 9) = 0xe3069283.
 * Chaining: bns_crc32c(bns_crc32c(0, a), b) = crc of a then b. */
#ifndef BNS_BASE_CRC32C_H
#define BNS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t bns_crc32c(uint32_t crc, const void *ptr, size_t len);

#endif
