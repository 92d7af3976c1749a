/* bolt_export.h - a copy of the revision store becomes the file that etcd would have kept.
 *
 * The copy is the one that snapshots are made of (revstore_snap.c): a database at one applied
 * index. It is turned into a bbolt file beside it, a slice a call, and then read from front to end
 * as etcd's snapshot stream wants it: the bytes, and the SHA-256 of them.
 *
 * Thread:  the store's worker. Memory: as in bolt.h.
 * Errors:  BNS_E_NOSPACE, BNS_E_IO, BNS_E_CORRUPT, BNS_E_TOOBIG (a name that bbolt cannot hold),
 *          BNS_E_NOMEM. They concern the snapshot, not the store.
 */
#ifndef ETCD_BOLT_EXPORT_H
#define ETCD_BOLT_EXPORT_H

#include "revstore.h"

#include <sqlite3.h>

#define ETCD_STORAGE_VERSION "3.6.0"

struct etcd_export;

/* Makes the file `path`. db: the copy; members: Member messages, each in a field 2, for when the
 * copy does not say who they are. Both are borrowed until the export is finished. */
BNS_MUST_CHECK int etcd_export_new(struct bns_vfs *vfs, const struct bns_alloc *alloc,
                                   const char *path, sqlite3 *db, struct bns_slice members,
                                   struct etcd_export **out, struct bns_err *err);
/* Some rows more; *finished: the file is complete, and db is not needed any more. */
BNS_MUST_CHECK int etcd_export_step(struct etcd_export *x, bool *finished, struct bns_err *err);
uint64_t etcd_export_bytes(const struct etcd_export *x); /* of the finished file */
/* The next *len bytes or fewer; when there are none left the digest, once: *len = 32. */
BNS_MUST_CHECK int etcd_export_read(struct etcd_export *x, uint8_t *buf, size_t *len,
                                    struct bns_err *err);
void etcd_export_free(struct etcd_export *x); /* removes the file; NULL is fine */

#endif
