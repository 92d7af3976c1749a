/* vfs_posix.h - the VFS on the real file system.
 *
 * Thread:  the vfs may be used by several threads at once, so `alloc` must be callable from all of
 *          them (bns_alloc_libc()). One file belongs to one thread at a time.
 * Modes:   directories are made 0700, files 0600; every descriptor is close-on-exec.
 */
#ifndef BNS_STORE_VFS_POSIX_H
#define BNS_STORE_VFS_POSIX_H

#include "store/vfs.h"

/* NULL when out of memory. Owned by the caller. */
struct bns_vfs *bns_vfs_posix(const struct bns_alloc *alloc);

/* No file of it is open any more. NULL is fine. */
void bns_vfs_posix_free(struct bns_vfs *vfs);

#endif
