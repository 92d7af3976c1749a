/* restore.h - from a snapshot (ours, or a real etcd's) to a data directory of a new cluster.
 *
 * Keys with their history, leases, users and roles are kept; members, removed members and alarms
 * are not: the members are those of the flags, with the ids that the flags give. Each member of the
 * new cluster restores the same file with the same --initial-cluster, and all start from one state.
 *
 * A directory is whole, or says itself that it is not: its identity file (identity.c) is made first
 * with a text that a daemon refuses, and gets its real one when everything else is on disk.
 *
 * Thread:  the loop; start blocks while it reads and checks the file, the rest is jobs; done runs
 *          there, in a later turn.
 * Memory:  the config and its texts are borrowed until done. Bounded, but for the index of all keys
 *          at the end, when the new directory is opened once as the daemon would.
 * Errors:  the texts are etcd's where etcd has one. What was made of the directory is removed.
 */
#ifndef ETCD_RESTORE_H
#define ETCD_RESTORE_H

#include "base/env.h"

struct etcd_restore;

struct etcd_restore_config {
    const char *file, *data_dir; /* NULL: "<name>.etcd" */
    const char *name, *initial_cluster, *token, *peer_urls;
    bool skip_hash;
    uint64_t bump; /* added to the revision; then everything before counts as compacted */
    char *wide;    /* room for a text that struct bns_err would cut, or NULL */
};

#define ETCD_RESTORE_TEXT_MAX 1536

/* The text belongs to the call. */
typedef void etcd_restore_done(void *arg, int code, const char *text);

/* An error here means that nothing was made, and that done will not run. */
BNS_MUST_CHECK int etcd_restore_start(struct bns_env *env, const struct etcd_restore_config *cfg,
                                      etcd_restore_done *done, void *arg, struct etcd_restore **out,
                                      struct bns_err *err);
int64_t etcd_restore_revision(const struct etcd_restore *r); /* in done */
const char *etcd_restore_dir(const struct etcd_restore *r);  /* in done */
void etcd_restore_free(struct etcd_restore *r);              /* from done on; NULL is fine */
void etcd_restore_died(struct etcd_restore *r);              /* simulator: as etcd_kv_died() */

/* The first line of the identity file of a directory that is not finished. */
#define ETCD_RESTORE_UNFINISHED "etcd-lite restore not finished\n"

/* ---- etcd-lite snapshot status --------------------------------------------------------------- */

struct etcd_snapshot_status {
    uint32_t hash;
    int64_t revision;
    uint64_t keys;  /* alive */
    uint64_t bytes; /* in use */
    char version[32];
};

/* Reads the whole file. BNS_E_CORRUPT: the text begins as etcd's does. */
BNS_MUST_CHECK int etcd_snapshot_status(struct bns_vfs *vfs, const struct bns_alloc *alloc,
                                        const char *file, struct etcd_snapshot_status *out,
                                        struct bns_err *err);

/* ---- the verbs ------------------------------------------------------------------------------- */

/* argv: "snapshot", "restore" or "status", flags and words. Returns the exit code, as etcdutl's. */
int etcd_snapshot_main(int argc, char **argv);

#endif
