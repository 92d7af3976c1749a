/* sqlite_vfs.h - SQLite on our VFS, so that the simulator owns its bytes too.
 *
 * Registers an sqlite3_vfs named "bns-<n>" that maps SQLite's calls to one bns_vfs. Exclusive
 * locking mode only: no shared memory. SQLite's randomness and clock come from the env given here.
 *
 * Thread:  register and unregister at start-up and shut-down; the connection belongs to one worker.
 */
#ifndef BNS_STORE_SQLITE_VFS_H
#define BNS_STORE_SQLITE_VFS_H

#include <sqlite3.h>

#include "base/env.h"
#include "store/vfs.h"

struct bns_sqlite_vfs;

BNS_MUST_CHECK int bns_sqlite_vfs_new(struct bns_env *env, struct bns_sqlite_vfs **out,
                                      struct bns_err *err);
/* No connection is open any more; NULL is fine. */
void bns_sqlite_vfs_free(struct bns_sqlite_vfs *v);
const char *bns_sqlite_vfs_name(const struct bns_sqlite_vfs *v); /* for sqlite3_open_v2 */

/* Maps an SQLite result code to ours (NOMEM, NOSPACE for FULL, CORRUPT, IO, OFF after a power cut,
 * INTERNAL) and puts sqlite3_errmsg(db) and `what` into err. */
int bns_sqlite_err(sqlite3 *db, int rc, const char *what, struct bns_err *err);

#endif
