/* wal_impl.h - what the files of the WAL share; nobody else includes it.
 *
 * Who owns what: struct bns_wal is the loop's. struct bns_wal_io is the worker's once the worker
 * exists (before that, bns_wal_open() uses it). A segment's `file` passes to the worker with the
 * first append that points at the segment. The three pool jobs (spare, space, remove) own the
 * fields named for them while in flight.
 */
#ifndef BNS_STORE_WAL_IMPL_H
#define BNS_STORE_WAL_IMPL_H

#include "base/hmap.h"
#include "base/varint.h"
#include "store/vfs.h"
#include "store/wal.h"

#define WAL_HEADER_BYTES 64u
#define WAL_HEAD_BYTES 40u
#define WAL_VERSION 2u
#define WAL_FLAG_CONTINUES 1u
#define WAL_SEGMENT_REUSED 1u /* flag of a segment: behind its records lie older ones */
#define WAL_RECYCLED_MAX 4u   /* released segments that are kept for further use */
#define WAL_SEGMENT_MIN (64u * 1024)
#define WAL_SEGMENT_FIRST (1024u * 1024)
#define WAL_SEGMENT_DEFAULT (16u * 1024 * 1024)
#define WAL_SEGMENT_LIMIT (512u * 1024 * 1024) /* no header may claim more */
#define WAL_BATCH_MAX (64u * 1024 * 1024)
#define WAL_QUEUE_MAX (256u * 1024 * 1024)
#define WAL_NAME_BYTES 25u /* "wal-" 16 hex ".seg" and its NUL */
#define WAL_DIR_MAX (BNS_PATH_MAX - 32)
#define WAL_IO_SLICES 1024u
#define WAL_STATE_BYTES 24u
#define WAL_CHECKPOINT_HEAD 8u
#define WAL_CHECKPOINT_GROUP 40u

#define WAL_MUTANT_ACK_BEFORE_SYNC 3
#define WAL_MUTANT_TORN_TAIL 14
#define WAL_MUTANT_NO_DIR_SYNC 15

struct bns_wal_header { /* of a segment, decoded */
    uint64_t first_lsn, prev_last_lsn;
    uint8_t log_id[16];
    uint32_t salt, bytes, flags;
};

struct bns_wal_head { /* of a record, decoded */
    uint32_t head_crc, body_crc;
    uint64_t lsn, durable;
    uint32_t len, group, prev_crc;
    uint8_t type, flags;
};

/* Walks the records of one segment held in memory. */
struct bns_wal_scan {
    const uint8_t *buf;
    uint32_t bytes, salt;
    uint32_t off, prev_crc; /* of the next record */
    uint64_t lsn;           /* expected next */
    uint64_t lsn_first;     /* of the segment */
    bool reused;            /* behind the records lie older ones, not zeros */
    bool skip_body;         /* planted bug: torn tail accepted */
};

struct bns_wal_group {
    struct bns_hnode node;
    uint32_t id;
    bool has_state;
    uint64_t term, vote, commit;
    uint64_t needed_lsn, last_lsn; /* first record needed; last one but for STATE, 0 = none */
};

struct bns_wal_groups {
    const struct bns_alloc *alloc;
    struct bns_hmap map;
};

struct bns_wal_segment {
    struct bns_list node;
    struct bns_list waiting; /* appends that wait until the file is there */
    uint64_t first_lsn, last_lsn, prev_last_lsn;
    uint64_t used; /* next free offset; always a multiple of 8 */
    uint64_t spare_no;
    uint32_t bytes, salt;
    bool ready;            /* `file` was handed to the worker */
    bool reused;           /* the file held an older segment */
    bool recycle;          /* released: kept as wal-<spare_no>.tmp, with `file` open */
    struct bns_file *file; /* the worker's */
    struct bns_wal_append checkpoint;
    struct bns_wal_record checkpoint_record;
    uint8_t *checkpoint_bytes;
};

struct bns_wal_io {
    struct bns_env *env;       /* for the worker's own calls only */
    struct bns_worker *worker; /* NULL at open */
    struct bns_vfs *vfs;
    const char *dir;
    struct bns_wal_segment *segment;
    uint8_t log_id[16];
    uint64_t durable, written; /* lsn */
    uint64_t off;              /* where the gathered slices go */
    uint64_t gathered;         /* bytes in slices */
    uint32_t prev_crc, mutant;
    bool unsafe_no_sync, unsynced;
    bool unnamed;                     /* the segment's file is still a .tmp */
    uint8_t header[WAL_HEADER_BYTES]; /* of it */
    int code;                         /* sticky: poisoned */
    struct bns_err err;
    uint64_t syncs, records, bytes; /* of the present call */
    size_t slices_count;
    struct bns_slice slices[WAL_IO_SLICES];
};

enum wal_spare_state { WAL_SPARE_NONE, WAL_SPARE_MAKING, WAL_SPARE_READY, WAL_SPARE_FAILED };

struct bns_wal_spare {
    struct bns_job job;
    enum wal_spare_state state;
    uint64_t no, no_last;   /* of its file; the highest that was given to any */
    uint32_t bytes, target; /* allocated and synced; wanted */
    uint64_t reserve_bytes;
    bool reused;     /* an older segment's file, with its bytes */
    bool dip;        /* the present or last try may take the reserve */
    bool complained; /* the log has a line about it */
    bool sync_later; /* at open: the first batch's sync covers the zeros, too */
    struct bns_file *file;
    int code;
    struct bns_err err;
};

struct bns_wal {
    struct bns_env *env;
    struct bns_wal_config cfg;
    char dir[BNS_PATH_MAX];
    struct bns_worker *worker;
    struct bns_wal_io io;
    struct bns_wal_groups groups;
    struct bns_list segments; /* oldest first */
    uint64_t segments_count;
    uint64_t next_lsn, durable_lsn;
    uint64_t inflight, queued_bytes; /* appends not done; bytes waiting for a segment */
    bool poisoned, closing, sealed, finish_posted;

    struct bns_wal_spare spare;
    struct bns_job space_job;
    bool space_running, space_low;
    int space_code;
    uint64_t space_free, space_checked_ns;
    struct bns_job remove_job;
    bool remove_running;
    struct bns_list removing;
    uint64_t removed_count;
    struct bns_list recycled; /* struct bns_wal_segment: file, spare_no and bytes count */
    uint64_t recycled_count;  /* those to come from `removing` too */

    struct bns_timer seal_timer, retry_timer;
    struct bns_wal_append seal;
    struct bns_wal_record seal_record;
    struct bns_task finish;
    void (*close_done)(void *arg);
    void *close_arg;

    uint64_t busy_since_ns;
    uint64_t syncs, records, bytes;
    struct bns_counter *metric_syncs, *metric_bytes;
    struct bns_hist *metric_sync_seconds, *metric_batch;
};

/* ---- wal_format.c: bytes only ---------------------------------------------------------------- */
void bns_wal_header_put(uint8_t *dst, const struct bns_wal_header *h);
BNS_MUST_CHECK int bns_wal_header_get(const uint8_t *src, struct bns_wal_header *h);
void bns_wal_head_put(uint8_t *dst, const struct bns_wal_head *h); /* but head_crc */
void bns_wal_head_stamp(uint8_t *dst, uint32_t salt, uint64_t durable, uint32_t prev_crc);
uint64_t bns_wal_framed(uint64_t payload_len);
uint64_t bns_wal_record_len(const struct bns_wal_record *r); /* payload bytes */
void bns_wal_scan_init(struct bns_wal_scan *s, const uint8_t *buf, const struct bns_wal_header *h);
bool bns_wal_scan_next(struct bns_wal_scan *s, struct bns_wal_head *h, struct bns_slice *payload);
/* End of what must become zeros before records may be written at s->off; s->off: nothing. */
uint32_t bns_wal_scan_dirt(const struct bns_wal_scan *s);
bool bns_wal_scan_proof(const struct bns_wal_scan *s, uint64_t lsn, uint64_t *proof_lsn);
void bns_wal_name(char *dst, uint64_t first_lsn); /* WAL_NAME_BYTES */
bool bns_wal_name_parse(const char *name, uint64_t *first_lsn);
/* dir/name into dst (BNS_PATH_MAX); dir is at most WAL_DIR_MAX bytes. */
void bns_wal_path(char *dst, const char *dir, const char *name);
void bns_wal_spare_path(char *dst, const char *dir, uint64_t no);

/* ---- wal_read.c: the files of a log, one after the other, in memory -------------------------- */
struct bns_wal_reader {
    struct bns_vfs *vfs;
    const struct bns_alloc *alloc;
    const char *dir;
    uint64_t *lsns; /* first lsn of each segment, ascending */
    size_t count, cap;
    uint64_t *spares; /* numbers of wal-<n>.tmp */
    size_t spares_count, spares_cap;
    bool know_log_id;
    uint8_t log_id[16];
    char name[WAL_NAME_BYTES]; /* of the segment loaded last */
    struct bns_wal_header header;
    uint8_t *buf; /* header.bytes of it */
    size_t buf_cap;
};

/* Where a walk over a segment ended. Records at `scan` on are not valid; a batch that began at
 * batch_off has no end (batch_off == scan.off when there is none). */
struct bns_wal_walk {
    struct bns_wal_scan scan;
    uint32_t batch_off, batch_prev_crc;
    uint64_t batch_lsn;   /* the lsn that would come next after the last whole batch */
    uint32_t dirt_end;    /* [batch_off, dirt_end) must become zeros; bns_wal_judge() sets it */
    uint64_t durable_max; /* highest lsn that some valid record, or the header, proves durable */
};

typedef int bns_wal_walk_fn(void *arg, uint32_t off, const struct bns_wal_head *h,
                            struct bns_slice payload);

BNS_MUST_CHECK int bns_wal_reader_open(struct bns_wal_reader *r, struct bns_vfs *vfs,
                                       const struct bns_alloc *alloc, const char *dir,
                                       struct bns_err *err);
void bns_wal_reader_close(struct bns_wal_reader *r);
/* Reads segment i and checks its header, its size and that it belongs to this log. */
BNS_MUST_CHECK int bns_wal_reader_load(struct bns_wal_reader *r, size_t i, struct bns_err *err);
/* Calls fn for each record of each whole batch; an error of fn stops the walk. fn may be NULL. */
BNS_MUST_CHECK int bns_wal_walk(const struct bns_wal_reader *r, struct bns_wal_walk *walk,
                                bool skip_body, bns_wal_walk_fn *fn, void *arg);
int bns_wal_corrupt(const struct bns_wal_reader *r, uint64_t off, uint64_t lsn, const char *what,
                    struct bns_err *err);
/* Rule 1-3 of wal_open.c on the segment just walked: OK (clean, or torn) or CORRUPT. Sets
 * walk->dirt_end. */
BNS_MUST_CHECK int bns_wal_judge(const struct bns_wal_reader *r, struct bns_wal_walk *walk,
                                 size_t i, struct bns_err *err);
/* Zeros [off, end) of the segment in `f`, as far as `buf` is not zero there, and syncs. */
BNS_MUST_CHECK int bns_wal_zero(struct bns_file *f, const uint8_t *buf, uint32_t off, uint32_t end,
                                struct bns_err *err);

/* ---- wal_segment.c --------------------------------------------------------------------------- */
void bns_wal_groups_init(struct bns_wal_groups *g, const struct bns_alloc *alloc);
void bns_wal_groups_free(struct bns_wal_groups *g);
struct bns_wal_group *bns_wal_group_find(const struct bns_wal_groups *g, uint32_t id);
BNS_MUST_CHECK int bns_wal_group_get(struct bns_wal_groups *g, uint32_t id,
                                     struct bns_wal_group **out);
void bns_wal_group_forget(struct bns_wal_groups *g, uint32_t id);
bool bns_wal_group_needs(const struct bns_wal_group *g);
void bns_wal_group_note(struct bns_wal_group *g, uint64_t lsn, uint8_t type, const uint8_t *state);
size_t bns_wal_checkpoint_len(const struct bns_wal_groups *g);
void bns_wal_checkpoint_put(const struct bns_wal_groups *g, uint8_t *dst);
/* Adds the groups of a checkpoint's payload to g. BNS_E_CORRUPT, BNS_E_NOMEM. */
BNS_MUST_CHECK int bns_wal_checkpoint_get(struct bns_wal_groups *g, struct bns_slice payload);

BNS_MUST_CHECK int bns_wal_segment_new(struct bns_wal *w, uint64_t need,
                                       struct bns_wal_segment **out);
void bns_wal_segment_free(struct bns_wal *w, struct bns_wal_segment *s);
uint32_t bns_wal_segment_plan(const struct bns_wal *w); /* bytes of the next segment */
void bns_wal_release_segments(struct bns_wal *w);
void bns_wal_recycled_drop(struct bns_wal *w); /* gives their room back to the disk */

/* ---- wal_spare.c ----------------------------------------------------------------------------- */
/* The oldest segment that has no file yet, or NULL. */
struct bns_wal_segment *bns_wal_segment_waiting(const struct bns_wal *w);
/* Writes zeros up to s->target and syncs; used by the pool job and at open. */
void bns_wal_spare_make(struct bns_vfs *vfs, const char *dir, struct bns_wal_spare *s);
void bns_wal_spare_pump(struct bns_wal *w);
void bns_wal_spare_retry(struct bns_wal *w); /* after FAILED */
void bns_wal_space_check(struct bns_wal *w);
void bns_wal_space_now(struct bns_wal *w); /* blocking, for a microsecond */
void bns_wal_retry_fire(void *arg);

/* ---- wal.c ----------------------------------------------------------------------------------- */
static inline struct bns_wal_segment *bns_wal_tail(const struct bns_wal *w)
{
    BNS_ASSERT(!bns_list_empty(&w->segments));
    return BNS_CONTAINER(w->segments.prev, struct bns_wal_segment, node);
}
void bns_wal_place(struct bns_wal *w, struct bns_wal_append *a);
void bns_wal_submit_waiting(struct bns_wal *w, struct bns_wal_segment *s);
void bns_wal_io_run(void *arg, struct bns_list *jobs); /* the worker's handler */
void bns_wal_progress(struct bns_wal *w);              /* after anything completed */
void bns_wal_seal_fire(void *arg);
void bns_wal_arm_seal(struct bns_wal *w);

#endif
