/* restore_int.h - what the files of restore share. */
#ifndef ETCD_RESTORE_INT_H
#define ETCD_RESTORE_INT_H

#include "bolt.h"
#include "kv.h"
#include "members.h"
#include "restore.h"
#include "revstore.h"
#include "store/wal.h"

#define RESTORE_ROWS 256u
#define RESTORE_BYTES (512u * 1024)

/* What a snapshot becomes, in batches: rows of the revision store. */
struct etcd_import {
    const struct bns_alloc *alloc;
    struct etcd_bolt *bolt;
    struct etcd_bolt_cursor *top, *rows;
    int kind; /* of the present bucket */
    bool seen_keys;
    uint32_t slot; /* of the next row of a small table */
    uint64_t digest;
    uint64_t index;         /* of the log, that all of it stands at */
    int64_t revision, main; /* the highest; of the last row of a key */
    uint32_t sub;
    int64_t scheduled, finished; /* compaction; -1 = never */
    size_t batch_bytes;
};

BNS_MUST_CHECK int etcd_import_open(struct etcd_import *im, const struct bns_alloc *alloc,
                                    struct bns_file *f, uint64_t bytes, struct bns_err *err);
/* Fills rows and leases of j (caps are set); j->finished: that was the last. What is in j belongs
 * to it also after an error. */
BNS_MUST_CHECK int etcd_import_batch(struct etcd_import *im, struct etcd_store_job *j,
                                     struct bns_err *err);
void etcd_import_close(struct etcd_import *im);

/* Opens the file, checks size and digest; *bytes without the digest. The texts are etcd's. */
BNS_MUST_CHECK int etcd_snapshot_open(struct bns_vfs *vfs, const struct etcd_restore_config *cfg,
                                      struct bns_file **out, uint64_t *bytes, struct bns_err *err);

#endif
