/* bolt.h - bbolt's file format: what etcd keeps its data in, and what its snapshots are.
 *
 * A writer that is fed sorted rows, and a reader of any legal file (bolt_write.c, bolt_read.c; the
 * layout is described in bolt_write.c). Both use bounded memory: a page a level, one row.
 *
 * Thread:  any one; calls block on the file. Memory: from the allocator that is given.
 * Errors:  writer: BNS_E_TOOBIG (a key over 32,768 bytes, a value over 2 GiB), BNS_E_NOMEM and what
 *          the file says. Reader: BNS_E_CORRUPT (the text names the page), BNS_E_TOOBIG (a row over
 *          ETCD_BOLT_ROW_MAX), BNS_E_NOMEM, BNS_E_IO.
 */
#ifndef ETCD_BOLT_H
#define ETCD_BOLT_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/slice.h"
#include "store/vfs.h"

#define ETCD_BOLT_PAGE 4096u
#define ETCD_BOLT_KEY_MAX 32768u
#define ETCD_BOLT_ROW_MAX (64u * 1024 * 1024) /* of one value that is read */

/* The format, as both sides need it. */
#define BOLT_MAGIC 0xED0CDAEDu
#define BOLT_VERSION 2u
#define BOLT_BRANCH 1u
#define BOLT_LEAF 2u
#define BOLT_META 4u
#define BOLT_HEAD 16u /* of a page; of an element, too */
#define BOLT_META_BYTES 64u
#define BOLT_IS_BUCKET 1u /* flag of a leaf's element */
#define BOLT_NO_FREELIST UINT64_MAX
uint64_t etcd_bolt_checksum(const uint8_t *meta); /* of its first 56 bytes: FNV-1a */

/* ---- writer --------------------------------------------------------------------------------- */

struct etcd_bolt_writer;

/* f is empty, borrowed until the writer is freed. */
BNS_MUST_CHECK int etcd_bolt_writer_new(const struct bns_alloc *alloc, struct bns_file *f,
                                        struct etcd_bolt_writer **out, struct bns_err *err);
/* Buckets, and the keys in each, in strictly ascending order: anything else is a bug of ours. */
BNS_MUST_CHECK int etcd_bolt_begin(struct etcd_bolt_writer *w, struct bns_slice bucket,
                                   struct bns_err *err);
BNS_MUST_CHECK int etcd_bolt_put(struct etcd_bolt_writer *w, struct bns_slice key,
                                 struct bns_slice value, struct bns_err *err);
BNS_MUST_CHECK int etcd_bolt_end(struct etcd_bolt_writer *w, struct bns_err *err);
/* The file is complete, not synced; *bytes = its size. */
BNS_MUST_CHECK int etcd_bolt_finish(struct etcd_bolt_writer *w, uint64_t *bytes,
                                    struct bns_err *err);
void etcd_bolt_writer_free(struct etcd_bolt_writer *w); /* NULL is fine */

/* ---- reader --------------------------------------------------------------------------------- */

struct etcd_bolt;
struct etcd_bolt_cursor;

/* Reads the first `bytes` of f, which is borrowed. */
BNS_MUST_CHECK int etcd_bolt_open(const struct bns_alloc *alloc, struct bns_file *f, uint64_t bytes,
                                  struct etcd_bolt **out, struct bns_err *err);
void etcd_bolt_close(struct etcd_bolt *b);           /* its cursors are closed; NULL is fine */
uint64_t etcd_bolt_bytes(const struct etcd_bolt *b); /* pages in use, in bytes, as bbolt counts */

/* Over the buckets: key = name, value = what etcd_bolt_rows() wants. */
BNS_MUST_CHECK int etcd_bolt_buckets(struct etcd_bolt *b, struct etcd_bolt_cursor **out,
                                     struct bns_err *err);
/* Over the rows of the bucket that `at` stands on; at may move on meanwhile. */
BNS_MUST_CHECK int etcd_bolt_rows(const struct etcd_bolt_cursor *at, struct etcd_bolt_cursor **out,
                                  struct bns_err *err);
/* The next row: key and value are borrowed until the next call. BNS_E_NOTFOUND: there is none. */
BNS_MUST_CHECK int etcd_bolt_next(struct etcd_bolt_cursor *c, struct bns_slice *key,
                                  struct bns_slice *value, struct bns_err *err);
void etcd_bolt_cursor_close(struct etcd_bolt_cursor *c); /* NULL is fine */

#endif
