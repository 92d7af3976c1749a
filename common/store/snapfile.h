/* snapfile.h - snapshot files: chunks of at most 256 KiB, each with a CRC32C, a footer with totals.
 *
 * A snapshot is written to <path>.tmp, synced, renamed and its directory synced: it is whole or
 * absent. Every read is verified.
 *
 * Thread:  blocking calls, made from jobs (worker or pool) or at start-up; one file, one thread.
 * Errors:  BNS_E_CORRUPT (text has file, chunk, offset), BNS_E_IO, BNS_E_NOSPACE, BNS_E_NOMEM.
 */
#ifndef BNS_STORE_SNAPFILE_H
#define BNS_STORE_SNAPFILE_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/slice.h"
#include "store/vfs.h"

#define BNS_SNAP_CHUNK_MAX (256u * 1024)
#define BNS_SNAP_META_MAX (64u * 1024)

struct bns_snap_writer;
struct bns_snap_reader;

struct bns_snap_info {
    uint64_t chunks;
    uint64_t bytes; /* of all chunks */
    uint32_t crc;   /* of all chunks' bytes, in order */
};

/* meta: opaque bytes of the owner (index, term, configuration), readable before any chunk. */
BNS_MUST_CHECK int bns_snap_create(struct bns_vfs *vfs, const struct bns_alloc *alloc,
                                   const char *path, struct bns_slice meta,
                                   struct bns_snap_writer **out, struct bns_err *err);
/* Planted bugs, for the simulator: hands over env->mutant. Does nothing in a release build. */
void bns_snap_set_mutant(struct bns_snap_writer *w, uint32_t mutant);
BNS_MUST_CHECK int bns_snap_write(struct bns_snap_writer *w, struct bns_slice chunk,
                                  struct bns_err *err);
/* Footer, sync, rename, sync of the directory; frees w in every case (on error the .tmp is
 * removed). */
BNS_MUST_CHECK int bns_snap_commit(struct bns_snap_writer *w, struct bns_snap_info *info,
                                   struct bns_err *err);
void bns_snap_abort(struct bns_snap_writer *w); /* removes the .tmp; NULL is fine */

BNS_MUST_CHECK int bns_snap_open(struct bns_vfs *vfs, const struct bns_alloc *alloc,
                                 const char *path, struct bns_snap_reader **out,
                                 struct bns_err *err);
struct bns_slice bns_snap_meta(const struct bns_snap_reader *r);
void bns_snap_info(const struct bns_snap_reader *r, struct bns_snap_info *out);
/* Reads chunk `no` (0-based) into dst (BNS_SNAP_CHUNK_MAX bytes). */
BNS_MUST_CHECK int bns_snap_read(struct bns_snap_reader *r, uint64_t no, void *dst, size_t *len,
                                 struct bns_err *err);
void bns_snap_close(struct bns_snap_reader *r); /* NULL is fine */

#endif
