/* sqlite_vfs.h - SQLite on our VFS, so that the simulator owns its bytes too.
 *
 * Registers an sqlite3_vfs named "bns-<n>" that maps SQLite's calls to one bns_vfs. Exclusive
 * locking mode only (PRAGMA locking_mode=EXCLUSIVE must be the first statement on a connection,
 * else a database in WAL mode answers CANTOPEN): there is no shared memory and no file lock, so one
 * file has one connection at a time; the daemon's lock file keeps other processes away. Use
 * temp_store=MEMORY; a temporary file lies beside the database otherwise.
 *
 * SQLite's randomness comes from the env given here. Its clock stands still at the wall time of
 * registration, because workers have no clock: schemas must not ask for the time. xSleep returns at
 * once. In the simulator SQLite's own generator is seeded, too, by bns_sqlite_vfs_new().
 *
 * Thread:  register and unregister at start-up and shut-down; the connection belongs to one worker.
 * Memory:  SQLite's allocator, not the env's: SQLite keeps pointers to a registered VFS.
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

/* Maps an SQLite result code to ours (NOMEM, NOSPACE for FULL, CORRUPT, BUSY, IO, OFF after a power
 * cut, INTERNAL) and puts `what`, sqlite3_errmsg(db) and, for I/O errors, the VFS's own text into
 * err. db may be NULL. */
int bns_sqlite_err(sqlite3 *db, int rc, const char *what, struct bns_err *err);

#endif
