/* vfs_mem_impl.h - what the parts of the memory file system share. For
 * vfs_mem*.c only. */
#ifndef BNS_SIM_VFS_MEM_IMPL_H
#define BNS_SIM_VFS_MEM_IMPL_H

#include "base/list.h"
#include "sim/vfs_mem.h"

#define MEM_BLOCK_BYTES 4096u
#define MEM_BLOCK_SECTORS (MEM_BLOCK_BYTES / BNS_VFS_SECTOR)
#define MEM_FILE_BYTES_MAX (UINT64_C(1) << 34)

_Static_assert(MEM_BLOCK_SECTORS == 8, "the sector masks of a block are bytes");

struct mem_block {
    struct bns_list node; /* in the inode's dirty list when dirty | lost */
    uint64_t index;
    uint8_t dirty; /* sectors that a sync would write */
    uint8_t lost;  /* sectors that differ from the medium, which no sync will write */
    uint8_t *dur;  /* the medium; NULL: same as vol */
    uint8_t *old;  /* what the medium had before; NULL: not kept */
    uint8_t vol[MEM_BLOCK_BYTES];
};

struct mem_inode;

struct mem_entry {
    char *name;
    struct mem_inode *ino; /* a reference */
};

struct mem_dir { /* sorted by name */
    struct mem_entry *entries;
    size_t count;
    size_t cap;
};

struct mem_inode {
    struct bns_list node; /* in mem_fs.inodes */
    uint32_t refs;        /* entries of both kinds, pending changes, handles */
    uint32_t users;       /* volatile entries and handles: its blocks count as used space */
    bool is_dir;
    bool locked;
    uint64_t vol_size;
    uint64_t dur_size;
    struct mem_block **blocks;
    size_t blocks_cap;
    size_t blocks_count; /* not NULL */
    struct bns_list dirty;
    struct mem_dir vol;
    struct mem_dir dur;
};

struct mem_store { /* what the data part needs to know */
    const struct bns_alloc *alloc;
    struct bns_vfs_mem_config cfg;
    struct bns_prng prng;
    uint64_t used_bytes;
    uint64_t sectors_lost;
};

struct mem_cut {           /* the shape of one power cut */
    struct bns_prng *prng; /* NULL: everything unsynced is lost */
    bool prefix;
    double survive;
};

/* Writes; *done says how many bytes landed, also on error. BNS_E_NOSPACE,
 * BNS_E_NOMEM. */
int mem_data_write(struct mem_store *s, struct mem_inode *ino, uint64_t off, struct bns_slice b,
                   size_t *done);
size_t mem_data_read(const struct mem_inode *ino, uint64_t off, uint8_t *dst, size_t len,
                     bool stale);
int mem_data_truncate(struct mem_store *s, struct mem_inode *ino, uint64_t size);
void mem_data_sync(struct mem_store *s, struct mem_inode *ino);
/* A sync that failed: some dirty sectors are on the medium, the others will
 * never be; reads see the new or the old bytes of those. */
void mem_data_sync_failed(struct mem_store *s, struct mem_inode *ino);
void mem_data_cut(struct mem_store *s, struct mem_inode *ino, const struct mem_cut *cut);
void mem_data_flip(struct mem_inode *ino, uint64_t off, uint8_t mask);
uint64_t mem_data_hash(const struct mem_inode *ino, bool durable, uint64_t h);
void mem_data_free(struct mem_store *s, struct mem_inode *ino);

/* ---- names (vfs_mem_names.c)
 * ------------------------------------------------------------------- */

struct mem_effect { /* one entry of one directory changes */
    struct mem_inode *dir;
    char *name;
    struct mem_inode *ino; /* NULL: the entry goes away */
};

struct mem_change { /* visible now, durable with the next sync_dir of one of its
                       directories */
    struct bns_list node;
    size_t effects_count;
    struct mem_effect effects[2]; /* two for a rename, which is atomic */
};

struct mem_names {
    struct mem_store store;
    struct mem_inode *root;
    struct bns_list inodes;  /* all of them, oldest first */
    struct bns_list pending; /* struct mem_change, oldest first */
    uint64_t entries_lost;
};

struct mem_place {         /* what a path means now */
    struct mem_inode *dir; /* where the last component lives; NULL for the root itself */
    struct mem_inode *ino; /* NULL: there is none */
    char name[BNS_PATH_MAX];
};

int mem_names_init(struct mem_names *t);
void mem_names_free(struct mem_names *t);
/* BNS_E_NOTFOUND (a directory on the way is missing), BNS_E_INVALID (path). */
int mem_names_find(struct mem_names *t, const char *path, struct mem_place *out);
int mem_names_create(struct mem_names *t, const struct mem_place *at, bool is_dir,
                     struct mem_inode **out);
int mem_names_remove(struct mem_names *t, const struct mem_place *at);
int mem_names_rename(struct mem_names *t, const struct mem_place *from, const struct mem_place *to);
void mem_names_sync(struct mem_names *t, struct mem_inode *dir);
void mem_names_cut(struct mem_names *t, const struct mem_cut *cut);
uint64_t mem_names_hash(const struct mem_names *t, bool durable);
void mem_inode_use(struct mem_names *t, struct mem_inode *ino);  /* one more user and reference */
void mem_inode_drop(struct mem_names *t, struct mem_inode *ino); /* one less */

static inline uint64_t mem_hash(uint64_t h, const void *ptr, size_t len) /* FNV-1a */
{
    const uint8_t *p = ptr;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif
