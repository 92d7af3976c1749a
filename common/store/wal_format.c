/* wal_format.c - the bytes of a segment: headers, records, names, and the walk over them.
 *
 * The format itself is described at the top of wal.c. Everything here is bytes in, bytes out: no
 * file, no allocation, so that the fuzzer and the byte-flip tests meet the same code as a start.
 *
 * A record at offset `off` is valid when all of this holds:
 *   - its 40 bytes and its padded payload lie inside the segment
 *   - head_crc matches under the segment's salt. Bytes that another use of the file left never do:
 *     the checksum of given bytes under another start value is another one, always (a CRC is a
 *     bijection of its start value), and no two segments of a log have the same salt
 *   - lsn is the expected one, durable < lsn, type and flags are known, the spare bits are zero
 *   - prev_crc is the head_crc of the record before it (of the segment header for the first one),
 *     so that a well-formed record in the wrong place ends the walk too
 *   - body_crc matches the payload
 */
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "store/wal_impl.h"

static const uint8_t magic[8] = {'B', 'N', 'S', 'W', 'A', 'L', 0, 1};

void bns_wal_header_put(uint8_t *dst, const struct bns_wal_header *h)
{
    memset(dst, 0, WAL_HEADER_BYTES);
    bns_put_u32le(dst + 4, WAL_VERSION);
    memcpy(dst + 8, magic, sizeof magic);
    bns_put_u64le(dst + 16, h->first_lsn);
    memcpy(dst + 24, h->log_id, sizeof h->log_id);
    bns_put_u32le(dst + 40, h->salt);
    bns_put_u32le(dst + 44, h->bytes);
    bns_put_u64le(dst + 48, h->prev_last_lsn);
    bns_put_u32le(dst + 56, h->flags);
    bns_put_u32le(dst, bns_crc32c(0, dst + 4, WAL_HEADER_BYTES - 4));
}

int bns_wal_header_get(const uint8_t *src, struct bns_wal_header *h)
{
    if (bns_get_u32le(src) != bns_crc32c(0, src + 4, WAL_HEADER_BYTES - 4))
        return BNS_E_CORRUPT;
    if (memcmp(src + 8, magic, sizeof magic) != 0)
        return BNS_E_CORRUPT;
    if (bns_get_u32le(src + 4) != WAL_VERSION)
        return BNS_E_UNSUPPORTED;
    h->first_lsn = bns_get_u64le(src + 16);
    memcpy(h->log_id, src + 24, sizeof h->log_id);
    h->salt = bns_get_u32le(src + 40);
    h->bytes = bns_get_u32le(src + 44);
    h->prev_last_lsn = bns_get_u64le(src + 48);
    h->flags = bns_get_u32le(src + 56);
    if (h->flags > WAL_SEGMENT_REUSED || bns_get_u32le(src + 60) != 0)
        return BNS_E_CORRUPT;
    if (h->first_lsn == 0 || h->prev_last_lsn != h->first_lsn - 1)
        return BNS_E_CORRUPT;
    if (h->bytes < WAL_HEADER_BYTES || h->bytes > WAL_SEGMENT_LIMIT || h->bytes % 8 != 0)
        return BNS_E_CORRUPT;
    return BNS_OK;
}

void bns_wal_head_put(uint8_t *dst, const struct bns_wal_head *h)
{
    bns_put_u32le(dst, 0);
    bns_put_u32le(dst + 4, h->body_crc);
    bns_put_u64le(dst + 8, h->lsn);
    bns_put_u64le(dst + 16, h->durable);
    bns_put_u32le(dst + 24, h->len);
    bns_put_u32le(dst + 28, h->group);
    bns_put_u32le(dst + 32, h->prev_crc);
    dst[36] = h->type;
    dst[37] = h->flags;
    dst[38] = 0;
    dst[39] = 0;
}

void bns_wal_head_stamp(uint8_t *dst, uint32_t salt, uint64_t durable, uint32_t prev_crc)
{
    bns_put_u64le(dst + 16, durable);
    bns_put_u32le(dst + 32, prev_crc);
    bns_put_u32le(dst, bns_crc32c(salt, dst + 4, WAL_HEAD_BYTES - 4));
}

uint64_t bns_wal_framed(uint64_t payload_len)
{
    return WAL_HEAD_BYTES + ((payload_len + 7) & ~UINT64_C(7));
}

uint64_t bns_wal_record_len(const struct bns_wal_record *r)
{
    uint64_t len = 0;

    BNS_ASSERT(r->slices <= BNS_WAL_SLICES_MAX);
    for (size_t i = 0; i < r->slices; i++)
        len += r->payload[i].len;
    return len;
}

static void head_get(const uint8_t *src, struct bns_wal_head *h)
{
    h->head_crc = bns_get_u32le(src);
    h->body_crc = bns_get_u32le(src + 4);
    h->lsn = bns_get_u64le(src + 8);
    h->durable = bns_get_u64le(src + 16);
    h->len = bns_get_u32le(src + 24);
    h->group = bns_get_u32le(src + 28);
    h->prev_crc = bns_get_u32le(src + 32);
    h->type = src[36];
    h->flags = src[37];
}

/* The checks that one head can pass by itself, wherever it stands. */
static bool head_valid(const struct bns_wal_scan *s, uint32_t off, struct bns_wal_head *h)
{
    const uint8_t *p = s->buf + off;

    if (s->bytes < WAL_HEAD_BYTES || off > s->bytes - WAL_HEAD_BYTES)
        return false;
    if (p[36] < BNS_WAL_ENTRY || p[36] > BNS_WAL_SEAL)
        return false; /* the cheap checks first: most of a segment may be zeros, or old records */
    head_get(p, h);
    if (h->lsn < s->lsn_first)
        return false;
    if (h->head_crc != bns_crc32c(s->salt, p + 4, WAL_HEAD_BYTES - 4))
        return false;
    if (h->durable >= h->lsn || h->flags > WAL_FLAG_CONTINUES || p[38] != 0 || p[39] != 0)
        return false;
    if (h->len > BNS_WAL_RECORD_MAX)
        return false;
    return bns_wal_framed(h->len) <= s->bytes - off;
}

void bns_wal_scan_init(struct bns_wal_scan *s, const uint8_t *buf, const struct bns_wal_header *h)
{
    *s = (struct bns_wal_scan){
        .buf = buf,
        .bytes = h->bytes,
        .salt = h->salt,
        .off = WAL_HEADER_BYTES,
        .prev_crc = bns_get_u32le(buf),
        .lsn = h->first_lsn,
        .lsn_first = h->first_lsn,
        .reused = (h->flags & WAL_SEGMENT_REUSED) != 0,
    };
}

bool bns_wal_scan_next(struct bns_wal_scan *s, struct bns_wal_head *h, struct bns_slice *payload)
{
    const uint8_t *body;

    if (!head_valid(s, s->off, h))
        return false;
    if (h->lsn != s->lsn || h->prev_crc != s->prev_crc)
        return false;
    body = s->buf + s->off + WAL_HEAD_BYTES;
    if (!s->skip_body && h->body_crc != bns_crc32c(s->salt, body, h->len))
        return false;
    *payload = bns_slice(body, h->len);
    s->off += (uint32_t)bns_wal_framed(h->len);
    s->prev_crc = h->head_crc;
    s->lsn++;
    return true;
}

/* A file that was used before keeps its old bytes, which nothing will ever take for records; only a
 * head of the present use could be. A fresh file holds zeros: all else there was torn. */
uint32_t bns_wal_scan_dirt(const struct bns_wal_scan *s)
{
    uint32_t end = s->off;
    struct bns_wal_head h;

    for (uint32_t off = s->off; off < s->bytes; off += 8) { /* both are multiples of 8 */
        if (s->reused && head_valid(s, off, &h))
            end = off + WAL_HEAD_BYTES;
        else if (!s->reused && bns_get_u64le(s->buf + off) != 0)
            end = off + 8;
    }
    return end;
}

bool bns_wal_scan_proof(const struct bns_wal_scan *s, uint64_t lsn, uint64_t *proof_lsn)
{
    struct bns_wal_head h;

    for (uint32_t off = s->off; off < s->bytes; off += 8) {
        if (!head_valid(s, off, &h) || h.durable < lsn)
            continue;
        *proof_lsn = h.lsn;
        return true;
    }
    return false;
}

void bns_wal_name(char *dst, uint64_t first_lsn)
{
    int n = snprintf(dst, WAL_NAME_BYTES, "wal-%016llx.seg", (unsigned long long)first_lsn);
    BNS_ASSERT(n == (int)WAL_NAME_BYTES - 1);
}

bool bns_wal_name_parse(const char *name, uint64_t *first_lsn)
{
    char again[WAL_NAME_BYTES];
    uint64_t v = 0;

    if (strlen(name) != WAL_NAME_BYTES - 1 || memcmp(name, "wal-", 4) != 0)
        return false;
    for (size_t i = 4; i < 20; i++) {
        char c = name[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    bns_wal_name(again, v);
    *first_lsn = v;
    return strcmp(again, name) == 0;
}

void bns_wal_path(char *dst, const char *dir, const char *name)
{
    int n = snprintf(dst, BNS_PATH_MAX, "%s/%s", dir, name);
    BNS_ASSERT(n > 0);
    BNS_ASSERT(n < BNS_PATH_MAX);
}

void bns_wal_spare_path(char *dst, const char *dir, uint64_t no)
{
    int n = snprintf(dst, BNS_PATH_MAX, "%s/wal-%llu.tmp", dir, (unsigned long long)no);
    BNS_ASSERT(n > 0);
    BNS_ASSERT(n < BNS_PATH_MAX);
}
