/* wal_dir.h - where the log of a member lies: in its data directory, or in one of its own.
 *
 * Thread: start-up, blocking.
 */
#ifndef ETCD_WAL_DIR_H
#define ETCD_WAL_DIR_H

#include "base/env.h"
#include "store/vfs.h"

struct etcd_wal_dir {
    const char *data_dir;
    const char *wal_dir; /* --wal-dir; NULL or "": <data-dir>/wal */
    uint64_t cluster_id, member_id;
};

/* out: the log's directory, which is there (the caller syncs the data
 * directory). *lock: a lock on it, NULL for one inside the data
 * directory; the caller closes it after the log. BNS_E_INVALID: this is not where the log of this
 * member lies, or it belongs to another one; BNS_E_BUSY: in use; and errors of the VFS. */
BNS_MUST_CHECK int etcd_wal_dir_open(struct bns_vfs *vfs, const struct etcd_wal_dir *w,
                                     char out[BNS_PATH_MAX], struct bns_file **lock,
                                     struct bns_err *err);

#endif
