/* vfs_ram.h - a file system in memory, for tests that want a daemon without a disk: nothing is kept
 * when the process ends, a sync does nothing.
 *
 * (sim/vfs_mem.h is the one for the simulator: it knows what a power cut leaves behind.)
 *
 * Thread:  as vfs.h: from several threads (one lock inside); `alloc` must be callable from all.
 * Paths:   a directory is there when it was made or when something is in it: parents need not be
 *          made first.
 * Errors:  as vfs.h. BNS_E_NOSPACE: more than capacity_bytes. A write that fails has written
 *          nothing or its beginning.
 */
#ifndef BNS_STORE_VFS_RAM_H
#define BNS_STORE_VFS_RAM_H

#include "store/vfs.h"

/* capacity_bytes 0 = 64 GiB. NULL when out of memory. */
struct bns_vfs *bns_vfs_ram(const struct bns_alloc *alloc, uint64_t capacity_bytes);
void bns_vfs_ram_free(struct bns_vfs *vfs);     /* no file is open any more; NULL is fine */
uint64_t bns_vfs_ram_used(struct bns_vfs *vfs); /* bytes of memory in files */

#endif
