/* segment.h - one segment of a log: `<base>.log` and its two indexes.
 *
 *   00000000000000004711.log          record batches, one behind the other, nothing else
 *   00000000000000004711.index        which batch begins where, one entry in 4 KiB (index.h)
 *   00000000000000004711.timeindex    how late the records up to an offset are
 *
 * The log is the truth. An index entry is believed when the batch that it points at is the one that
 * it names; when it is not, both indexes are made anew from the log. So an index may be late (a
 * crash), cut or damaged: look-ups become slower for once, never wrong.
 *
 * Only the last segment of a log is written. A segment rests (its files are closed) until it is
 * woken; every function below but init, rest and free wakes it.
 *
 * Thread:  as the log it belongs to. Memory: borrowed `dir`; two blocks of pending entries.
 * Errors:  of vfs.h. BNS_E_CORRUPT: a batch of the log is none. BNS_E_NOTFOUND: no such batch.
 */
#ifndef KAFKA_LOG_SEGMENT_H
#define KAFKA_LOG_SEGMENT_H

#include "log/batch.h"
#include "log/checkpoint.h"
#include "log/index.h"

#define KAFKA_SEGMENT_BYTES_MAX ((uint32_t)INT32_MAX) /* a position is an i32 */

struct kafka_segment {
    const struct kafka_home *dir;
    struct bns_file *file; /* NULL: it rests */
    struct kafka_index offsets, times;
    int64_t base;
    int64_t next; /* the offset behind the last batch; known after recover, create and end */
    uint32_t size;
    uint32_t interval; /* bytes of log between two entries of an index */
    uint32_t unindexed;
    int64_t max_time, max_time_offset; /* -1: no batch has a timestamp */
    int64_t first_time;                /* greatest timestamp of the first batch; -1: none */
    int64_t created_ms;
    bool max_known, first_known;
    bool dirty; /* the log was written since the last sync */
};

struct kafka_place {          /* of a batch in a segment */
    struct kafka_batch batch; /* its head */
    uint32_t position, len;
};

void kafka_segment_init(struct kafka_segment *s, const struct kafka_home *dir, int64_t base,
                        uint32_t interval);
/* New and empty files; what had these names is gone. The caller syncs the directory. On an error
 * none of them is left; *broken: maybe one is. */
BNS_MUST_CHECK int kafka_segment_create(struct kafka_segment *s, int64_t now_ms, bool *broken,
                                        struct bns_err *err);
/* Looks how long the log is, without opening it. */
BNS_MUST_CHECK int kafka_segment_stat(struct kafka_segment *s, struct bns_err *err);
BNS_MUST_CHECK int kafka_segment_wake(struct kafka_segment *s, struct bns_err *err);
/* For a scan: the log as it is, both indexes empty, whatever they were. */
BNS_MUST_CHECK int kafka_segment_wake_bare(struct kafka_segment *s, struct bns_err *err);
void kafka_segment_rest(struct kafka_segment *s); /* pending index entries are lost */

/* Appends whole batches whose heads are checked. On an error the log is cut back to what it was;
 * *broken says that this failed too: the file's end is unknown. */
BNS_MUST_CHECK int kafka_segment_append(struct kafka_segment *s, struct bns_slice batches,
                                        bool *broken, struct bns_err *err);
/* The first batch whose last offset is at least `offset`. */
BNS_MUST_CHECK int kafka_segment_find(struct kafka_segment *s, int64_t offset,
                                      struct kafka_place *out, struct bns_err *err);
/* The greatest position not above `limit` where a batch begins or the log ends, from the batch at
 * `from` on. */
BNS_MUST_CHECK int kafka_segment_boundary(struct kafka_segment *s, const struct kafka_place *from,
                                          uint32_t limit, uint32_t *out, struct bns_err *err);
/* The first batch that ends at or behind `from` and has a record at or after time_ms. */
BNS_MUST_CHECK int kafka_segment_find_time(struct kafka_segment *s, int64_t time_ms, int64_t from,
                                           struct kafka_place *out, struct bns_err *err);
/* Fills s->max_time and s->max_time_offset; s->first_time. */
BNS_MUST_CHECK int kafka_segment_max_time(struct kafka_segment *s, struct bns_err *err);
BNS_MUST_CHECK int kafka_segment_first_time(struct kafka_segment *s, struct bns_err *err);
/* Walks to the end of the log: fills s->next. */
BNS_MUST_CHECK int kafka_segment_end(struct kafka_segment *s, struct bns_err *err);
/* Drops the batches from the one on that has `offset` or is behind it, and syncs. */
BNS_MUST_CHECK int kafka_segment_cut(struct kafka_segment *s, int64_t offset, struct bns_err *err);
BNS_MUST_CHECK int kafka_segment_sync(struct kafka_segment *s, struct bns_err *err); /* the log */
/* Before it becomes an older one, or at a clean stop: the greatest timestamp is put down in the
 * time index, and all three files are synced. */
BNS_MUST_CHECK int kafka_segment_seal(struct kafka_segment *s, struct bns_err *err);
/* Renames the files to *.deleted, rests. The caller syncs the directory. */
BNS_MUST_CHECK int kafka_segment_remove(struct kafka_segment *s, struct bns_err *err);

/* ---- scanning (recover.c) -------------------------------------------------------------------- */

struct kafka_reader { /* batches of a file, through a window of its bytes */
    struct bns_file *file;
    uint8_t *window; /* of `cap` bytes */
    uint32_t cap, position, end;
    uint32_t window_at, window_len;
    int64_t next; /* a batch that begins before it is wrong; INT64_MIN: any */
};

/* The batch at r->position, and moves behind it. BNS_E_NOTFOUND at the end, BNS_E_CORRUPT: no
 * batch, or one that goes beyond the end, or whose offsets are not behind the last one's; with crc,
 * one whose sum is wrong. *position then is where it begins. */
BNS_MUST_CHECK int kafka_reader_next(struct kafka_reader *r, bool crc, struct kafka_place *out,
                                     struct bns_err *err);

struct kafka_scan {
    bool cut;                    /* what is wrong is cut off; else it is BNS_E_CORRUPT */
    bool crc;                    /* every byte is read and summed; else heads only */
    bool again;                  /* what is not surely synced is written again; see recover.c */
    bool dense;                  /* a gap between offsets has to be proven; see recover.c */
    int64_t until;               /* of the next segment: its base; -1: there is none */
    int64_t sure;                /* the recovery point: batches before it were synced once */
    struct kafka_epochs *epochs; /* new ones are put down; NULL: not */
    bool epochs_changed;
    uint32_t gaps;      /* how many were found in order */
    uint32_t cut_bytes; /* what was cut off */
    char why[160];      /* and why */
};

/* Reads the log from its beginning up to the first byte that is not part of a good batch, and makes
 * both indexes anew. Fills s->next. The three files are open. */
BNS_MUST_CHECK int kafka_segment_scan(struct kafka_segment *s, struct kafka_scan *how,
                                      struct bns_err *err);

#endif
