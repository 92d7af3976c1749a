/* index.h - the two sparse indexes of a segment, as Apache Kafka keeps them.
 *
 *   <base>.index      8 bytes an entry: i32 offset - base, i32 position         both big-endian
 *   <base>.timeindex  12 bytes:         i64 timestamp,     i32 offset - base
 *
 * An entry of the first says: the batch whose last record has this offset begins at this position.
 * One of the second: no record up to this offset is later than this timestamp, and the batch that
 * ends at it has it. Offsets, positions and timestamps rise strictly. Entries are added in memory
 * and written with kafka_index_store(): an index that was lost is made anew from its log.
 *
 * What a file says is a hint: kafka_segment checks it against the batch that it points at.
 *
 * Thread:  as the log that it belongs to. Memory: at most KAFKA_INDEX_PENDING entries.
 * Errors:  of vfs.h; BNS_E_CORRUPT: not a whole number of entries, or the last is before the first.
 */
#ifndef KAFKA_LOG_INDEX_H
#define KAFKA_LOG_INDEX_H

#include "base/alloc.h"
#include "store/vfs.h"

#define KAFKA_INDEX_PENDING 128u /* entries that wait to be written */
#define KAFKA_OFFSET_ENTRY 8u
#define KAFKA_TIME_ENTRY 12u

struct kafka_home { /* where the files of one partition are */
    struct bns_vfs *vfs;
    const struct bns_alloc *alloc;
    char path[BNS_PATH_MAX];
};

/* <dir>/<20 digits><suffix> into to[BNS_PATH_MAX]. BNS_E_INVALID: too long. */
BNS_MUST_CHECK int kafka_home_path(const struct kafka_home *d, int64_t base, const char *suffix,
                                   char *to, struct bns_err *err);

struct kafka_entry {
    int64_t key;   /* offset of .index, timestamp of .timeindex */
    int64_t value; /* position of .index, offset of .timeindex */
};

struct kafka_index {
    const struct kafka_home *dir;
    struct bns_file *file; /* NULL: closed */
    int64_t base;
    uint32_t entry_bytes;
    uint32_t count;          /* all entries */
    uint32_t stored;         /* of these in the file */
    uint8_t *pending;        /* the others; NULL until there is one */
    struct kafka_entry last; /* of the last entry; of none: {base or -1, 0 or base} */
    bool dirty;              /* the file was written since the last sync */
};

/* Opens it. make: a missing file is created, else BNS_E_NOTFOUND. empty: what it has is dropped. */
enum { KAFKA_INDEX_MAKE = 1, KAFKA_INDEX_EMPTY = 2 };
BNS_MUST_CHECK int kafka_index_open(struct kafka_index *ix, const struct kafka_home *dir,
                                    int64_t base, uint32_t entry_bytes, int flags,
                                    struct bns_err *err);
void kafka_index_close(struct kafka_index *ix); /* what is pending is lost */

BNS_MUST_CHECK int kafka_index_get(struct kafka_index *ix, uint32_t i, struct kafka_entry *out,
                                   struct bns_err *err);
/* Which entry is the last whose key (by_value: whose value) is at most `key`: its number + 1; 0
 * when all are greater. */
BNS_MUST_CHECK int kafka_index_find(struct kafka_index *ix, int64_t key, bool by_value,
                                    uint32_t *out, struct bns_err *err);
/* Adds one that is greater than the last; others are left out. BNS_E_NOMEM, errors of a write. */
BNS_MUST_CHECK int kafka_index_add(struct kafka_index *ix, struct kafka_entry e,
                                   struct bns_err *err);
BNS_MUST_CHECK int kafka_index_store(struct kafka_index *ix, struct bns_err *err);
BNS_MUST_CHECK int kafka_index_sync(struct kafka_index *ix, struct bns_err *err); /* stores first */
BNS_MUST_CHECK int kafka_index_cut(struct kafka_index *ix, uint32_t count, struct bns_err *err);

#endif
