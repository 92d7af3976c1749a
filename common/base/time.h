/* time.h - units of time and their text forms. Clocks are read through the env only. */
#ifndef BNS_BASE_TIME_H
#define BNS_BASE_TIME_H

#include "base/err.h"
#include "base/slice.h"

#define BNS_US UINT64_C(1000)
#define BNS_MS UINT64_C(1000000)
#define BNS_SEC UINT64_C(1000000000)
#define BNS_NEVER UINT64_MAX

/* "200ms", "1.5s", "10m", "2h", "1h30m", "100us", "5ns" (Go's duration text). BNS_E_INVALID. */
BNS_MUST_CHECK int bns_duration_parse(const char *text, uint64_t *out_ns, struct bns_err *err);
/* "64MiB", "1.5GiB", "4096", "10MB", "1KiB". A bare number is bytes. BNS_E_INVALID. */
BNS_MUST_CHECK int bns_size_parse(const char *text, uint64_t *out_bytes, struct bns_err *err);
/* RFC 3339 with milliseconds, UTC: 2026-11-23T04:34:27.000Z. dst has 25 bytes. */
void bns_time_format(int64_t wall_ms, char *dst);

#endif
