/* vfs_mem.h - a file system in memory that knows what a power cut leaves
 * behind, and can fail.
 *
 * Every 512-byte sector and every directory entry has a volatile and a durable
 * state. A sync of a file makes its sectors and its size durable, a sync_dir
 * makes the directory's entries durable, nothing else does: a file whose entry
 * was never synced vanishes with the power, data and all.
 *
 * Thread:  the VFS calls may come from any thread (one lock inside); the
 * bns_vfs_mem_ calls too, but for new and free. One thread gives the same
 * results for the same seed. Memory:  everything comes from the allocator given
 * to new. A handle lives until it is closed, or until
 * bns_vfs_mem_drop_handles() or bns_vfs_mem_free(). Errors:  as vfs.h.
 * BNS_E_OFF: the power is off, or it was since the handle was opened. Removing
 * a directory that is not empty: BNS_E_EXISTS. ".." in a path: BNS_E_INVALID.
 */
#ifndef BNS_SIM_VFS_MEM_H
#define BNS_SIM_VFS_MEM_H

#include "base/prng.h"
#include "store/vfs.h"

#define BNS_VFS_SECTOR 512u

enum bns_vfs_mem_op { /* bits, for masks; close, size and free_bytes are not
                         operations */
                      BNS_VOP_OPEN = 1,
                      BNS_VOP_REMOVE = 2,
                      BNS_VOP_RENAME = 4,
                      BNS_VOP_MKDIR = 8,
                      BNS_VOP_SYNC_DIR = 16,
                      BNS_VOP_LIST = 32,
                      BNS_VOP_STAT = 64,
                      BNS_VOP_LOCK = 128,
                      BNS_VOP_READ = 256,
                      BNS_VOP_WRITE = 512,
                      BNS_VOP_SYNC = 1024,
                      BNS_VOP_TRUNCATE = 2048,
                      BNS_VOP_ALL = 4095,
};

enum bns_vfs_mem_fault {
    BNS_VFAULT_NONE,
    BNS_VFAULT_EIO,       /* any call. sync: what was dirty is dropped, a later sync
                         reports success */
    BNS_VFAULT_NOSPACE,   /* open with CREATE, mkdir, write, sync, truncate; others
                         succeed */
    BNS_VFAULT_SHORT,     /* write: a part lands, then BNS_E_NOSPACE; other calls
                         succeed */
    BNS_VFAULT_POWER,     /* power cut in the middle of this call; it and all later
                         ones: OFF */
    BNS_VFAULT_KILL,      /* the process dies in this call (kill -9); the page cache
                         survives */
    BNS_VFAULT_SYNC_LOST, /* sync and sync_dir report success and do nothing */
    BNS_VFAULT_MISDIRECT, /* write: the bytes land on other sectors of the file,
                           reports success */
    BNS_VFAULT_STALE,     /* read: former contents of the sectors (config keep_old) */
    BNS_VFAULT_FLIP,      /* read: one bit of the bytes read has rotted, on the medium
                     */
};

struct bns_vfs_mem_event {
    enum bns_vfs_mem_op op;
    enum bns_vfs_mem_fault fault; /* what was injected */
    const char *path;
    uint64_t off;
    uint64_t len;
};

struct bns_vfs_mem_config {
    uint64_t capacity_bytes; /* 0: no limit */
    bool ordered_dirs;       /* entry changes survive a cut as a prefix (a journal);
                        else any subset may */
    bool keep_old;           /* remember former durable contents, for stale reads (memory
                    x2) */
    /* Chances per call, drawn from the seed. */
    double read_eio, write_eio, sync_eio, meta_eio, write_short, sync_lost, misdirect, stale, flip;
    double writeback; /* a dirty sector reaches the disk before it is overwritten;
                       0.1 at first */
    void (*hook)(void *arg, const struct bns_vfs_mem_event *ev); /* each operation; lock is held */
    void *hook_arg;
};

struct bns_vfs_mem_stats {
    uint64_t ops; /* all of the operations above */
    uint64_t opens, reads, writes, syncs, dir_syncs;
    uint64_t read_bytes, written_bytes;
    uint64_t faults; /* injected, power cuts not counted */
    uint64_t cuts;
    uint64_t sectors_lost; /* unsynced sectors that did not survive a cut */
    uint64_t entries_lost; /* unsynced entry changes that did not survive a cut */
    uint64_t used_bytes;   /* now */
};

BNS_MUST_CHECK int bns_vfs_mem_new(const struct bns_alloc *alloc, uint64_t seed,
                                   struct bns_vfs **out);
void bns_vfs_mem_free(struct bns_vfs *v); /* handles too; NULL is fine */

struct bns_vfs_mem_config *bns_vfs_mem_config(struct bns_vfs *v); /* may be changed at any time */
struct bns_vfs_mem_stats bns_vfs_mem_stats(struct bns_vfs *v);

/* The n-th operation from now (1 = the next one) has this fault, once. A later
 * call replaces an earlier one; kind BNS_VFAULT_NONE or n 0 disarms. */
void bns_vfs_mem_fail_at(struct bns_vfs *v, uint64_t n, enum bns_vfs_mem_fault kind);
/* The same, but only operations of `mask` on paths that contain `text` (NULL:
 * all) are counted. */
void bns_vfs_mem_fail_on(struct bns_vfs *v, unsigned mask, const char *text, uint64_t n,
                         enum bns_vfs_mem_fault kind);
bool bns_vfs_mem_fired(struct bns_vfs *v); /* the armed fault has struck */

/* Cuts the power: each unsynced sector and entry change survives or vanishes,
 * as drawn from prng (the shape of the loss is drawn first: all, none, half,
 * any share, or a prefix of each file). prng NULL: all that was not synced is
 * lost. Locks are gone; every call answers BNS_E_OFF. */
void bns_vfs_mem_power_cut(struct bns_vfs *v, struct bns_prng *prng);
/* The process dies: handles and locks are gone, unsynced bytes stay; calls
 * answer BNS_E_OFF. */
void bns_vfs_mem_kill(struct bns_vfs *v);
void bns_vfs_mem_power_on(struct bns_vfs *v); /* old handles go on answering BNS_E_OFF */
bool bns_vfs_mem_is_off(struct bns_vfs *v);
size_t bns_vfs_mem_handles(struct bns_vfs *v);    /* open ones, stale ones included */
void bns_vfs_mem_drop_handles(struct bns_vfs *v); /* frees stale handles that nobody will close */

/* Rots the byte at off of a file, in memory and on the medium: xor with mask.
 * BNS_E_NOTFOUND, BNS_E_INVALID (off is behind the end). */
BNS_MUST_CHECK int bns_vfs_mem_flip(struct bns_vfs *v, const char *path, uint64_t off,
                                    uint8_t mask);
/* A hash of all names and contents, volatile or durable: equal trees have equal
 * digests. */
uint64_t bns_vfs_mem_digest(struct bns_vfs *v, bool durable);

#endif
