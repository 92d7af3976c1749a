/* vfs_mem_data.c - the bytes of a file of the memory file system, with their
 * durable shadow.
 *
 * A file is an array of 4 KiB blocks, NULL where nothing was written. A block
 * holds the volatile bytes (what read returns) and, only while some sector
 * differs from the medium, a copy of the durable bytes:
 *
 *     write   first change since the last sync: dur = copy of vol; the sectors
 * become dirty sync    dur is dropped (the medium now equals vol); the size
 * becomes durable cut     each dirty sector: vol -> dur (it survived) or dur ->
 * vol (it did not); the size is the durable one, the volatile one, or a sector
 * boundary between them
 *
 * A dirty sector that is overwritten may have reached the medium before
 * (`writeback`), so that states between two syncs are seen too. A failed sync
 * moves dirty sectors to `lost`: they look clean, reads may see them, and no
 * later sync writes them; a new write makes them dirty again.
 *
 * Invariants: (dirty | lost) != 0 <=> dur != NULL <=> the block is in the
 * inode's dirty list; dirty & lost == 0; volatile bytes behind vol_size are
 * zero. May fail:   no memory, no space (capacity counts whole blocks of files
 * in use).
 */
#include "sim/vfs_mem_impl.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct mem_block *block_at(const struct mem_inode *ino, uint64_t index)
{
    return index < ino->blocks_cap ? ino->blocks[index] : NULL;
}

static int blocks_grow(struct mem_store *s, struct mem_inode *ino, uint64_t index)
{
    size_t cap = ino->blocks_cap == 0 ? 8 : ino->blocks_cap;
    struct mem_block **p;

    while (cap <= index)
        cap *= 2;
    p = bns_resize(s->alloc, ino->blocks, cap * sizeof *p);
    if (p == NULL)
        return BNS_E_NOMEM;
    memset(p + ino->blocks_cap, 0, (cap - ino->blocks_cap) * sizeof *p);
    ino->blocks = p;
    ino->blocks_cap = cap;
    return BNS_OK;
}

static int block_get(struct mem_store *s, struct mem_inode *ino, uint64_t index,
                     struct mem_block **out)
{
    struct mem_block *b = block_at(ino, index);

    *out = b;
    if (b != NULL)
        return BNS_OK;
    if (s->cfg.capacity_bytes != 0 && s->used_bytes + MEM_BLOCK_BYTES > s->cfg.capacity_bytes)
        return BNS_E_NOSPACE;
    if (index >= ino->blocks_cap && blocks_grow(s, ino, index) != BNS_OK)
        return BNS_E_NOMEM;
    b = bns_alloc_zero(s->alloc, sizeof *b);
    if (b == NULL)
        return BNS_E_NOMEM;
    b->index = index;
    bns_list_init(&b->node);
    ino->blocks[index] = b;
    ino->blocks_count++;
    s->used_bytes += MEM_BLOCK_BYTES;
    *out = b;
    return BNS_OK;
}

static void block_free(struct mem_store *s, struct mem_inode *ino, struct mem_block *b)
{
    bns_list_del(&b->node);
    ino->blocks[b->index] = NULL;
    ino->blocks_count--;
    if (ino->users > 0) {
        BNS_ASSERT(s->used_bytes >= MEM_BLOCK_BYTES);
        s->used_bytes -= MEM_BLOCK_BYTES;
    }
    bns_free(s->alloc, b->dur);
    bns_free(s->alloc, b->old);
    bns_free(s->alloc, b);
}

/* The medium now holds what dur says: keeps the former bytes when that is
 * wanted. */
static void block_clean(struct mem_store *s, struct mem_block *b)
{
    if (s->cfg.keep_old) {
        bns_free(s->alloc, b->old);
        b->old = b->dur;
    } else {
        bns_free(s->alloc, b->dur);
    }
    b->dur = NULL;
    b->dirty = 0;
    b->lost = 0;
    bns_list_del(&b->node);
}

/* Makes the sectors of mask dirty, before their volatile bytes change. */
static int block_dirty(struct mem_store *s, struct mem_inode *ino, struct mem_block *b,
                       uint8_t mask)
{
    if (b->dur == NULL) {
        b->dur = bns_alloc(s->alloc, MEM_BLOCK_BYTES);
        if (b->dur == NULL)
            return BNS_E_NOMEM;
        memcpy(b->dur, b->vol, MEM_BLOCK_BYTES);
        bns_list_push(&ino->dirty, &b->node);
    }
    for (unsigned i = 0; i < MEM_BLOCK_SECTORS; i++) {
        size_t at = i * BNS_VFS_SECTOR;
        if ((b->dirty & mask & (1u << i)) != 0 && s->cfg.writeback > 0 &&
            bns_prng_chance(&s->prng, s->cfg.writeback))
            memcpy(b->dur + at, b->vol + at, BNS_VFS_SECTOR);
    }
    b->dirty = (uint8_t)(b->dirty | mask);
    b->lost = (uint8_t)(b->lost & ~mask);
    return BNS_OK;
}

/* The sectors of a block that bytes from..to (to > from) of it touch. */
static uint8_t sector_mask(size_t from, size_t to)
{
    unsigned first = (unsigned)(from / BNS_VFS_SECTOR);
    unsigned last = (unsigned)((to - 1) / BNS_VFS_SECTOR);
    return (uint8_t)((0xffu << first) & (0xffu >> (MEM_BLOCK_SECTORS - 1 - last)));
}

int mem_data_write(struct mem_store *s, struct mem_inode *ino, uint64_t off, struct bns_slice b,
                   size_t *done)
{
    *done = 0;
    if (off > MEM_FILE_BYTES_MAX || b.len > MEM_FILE_BYTES_MAX - off)
        return BNS_E_NOSPACE;

    while (*done < b.len) {
        uint64_t at = off + *done;
        size_t from = (size_t)(at % MEM_BLOCK_BYTES);
        size_t n = (size_t)min_u64(MEM_BLOCK_BYTES - from, b.len - *done);
        struct mem_block *blk;
        int rv = block_get(s, ino, at / MEM_BLOCK_BYTES, &blk);

        if (rv == BNS_OK)
            rv = block_dirty(s, ino, blk, sector_mask(from, from + n));
        if (rv != BNS_OK)
            return rv;
        memcpy(blk->vol + from, b.ptr + *done, n);
        *done += n;
        ino->vol_size = max_u64(ino->vol_size, at + n);
    }
    return BNS_OK;
}

/* One sector of a block as it was before; the bytes of now when that is not
 * known. */
static const uint8_t *stale_bytes(const struct mem_block *b)
{
    return b->dur != NULL ? b->dur : b->old != NULL ? b->old : b->vol;
}

size_t mem_data_read(const struct mem_inode *ino, uint64_t off, uint8_t *dst, size_t len,
                     bool stale)
{
    size_t done = 0;

    if (off >= ino->vol_size)
        return 0;
    len = (size_t)min_u64(len, ino->vol_size - off);
    while (done < len) {
        uint64_t at = off + done;
        size_t from = (size_t)(at % MEM_BLOCK_BYTES);
        size_t n = (size_t)min_u64(MEM_BLOCK_BYTES - from, len - done);
        const struct mem_block *b = block_at(ino, at / MEM_BLOCK_BYTES);

        if (b == NULL)
            memset(dst + done, 0, n);
        else
            memcpy(dst + done, (stale ? stale_bytes(b) : b->vol) + from, n);
        done += n;
    }
    return len;
}

int mem_data_truncate(struct mem_store *s, struct mem_inode *ino, uint64_t size)
{
    if (size > MEM_FILE_BYTES_MAX)
        return BNS_E_NOSPACE;
    for (uint64_t i = size / MEM_BLOCK_BYTES; i < ino->blocks_cap && size < ino->vol_size; i++) {
        struct mem_block *b = ino->blocks[i];
        uint64_t start = i * MEM_BLOCK_BYTES;
        size_t from = start >= size ? 0 : (size_t)(size - start);

        if (b == NULL || from == MEM_BLOCK_BYTES)
            continue;
        if (block_dirty(s, ino, b, sector_mask(from, MEM_BLOCK_BYTES)) != BNS_OK)
            return BNS_E_NOMEM;
        memset(b->vol + from, 0, MEM_BLOCK_BYTES - from);
    }
    ino->vol_size = size;
    return BNS_OK;
}

void mem_data_sync(struct mem_store *s, struct mem_inode *ino)
{
    BNS_LIST_EACH(n, &ino->dirty)
    {
        struct mem_block *b = BNS_CONTAINER(n, struct mem_block, node);

        if (b->lost == 0) {
            block_clean(s, b);
            if (b->index * MEM_BLOCK_BYTES >= ino->vol_size)
                block_free(s, ino, b);
            continue;
        }
        for (unsigned i = 0; i < MEM_BLOCK_SECTORS; i++) {
            size_t at = i * BNS_VFS_SECTOR;
            if ((b->dirty & (1u << i)) != 0)
                memcpy(b->dur + at, b->vol + at, BNS_VFS_SECTOR);
        }
        b->dirty = 0;
    }
    ino->dur_size = ino->vol_size;
}

void mem_data_sync_failed(struct mem_store *s, struct mem_inode *ino)
{
    bool keep = bns_prng_chance(&s->prng, 0.5); /* the page cache keeps what could not be written */

    BNS_LIST_EACH(n, &ino->dirty)
    {
        struct mem_block *b = BNS_CONTAINER(n, struct mem_block, node);

        for (unsigned i = 0; i < MEM_BLOCK_SECTORS; i++) {
            size_t at = i * BNS_VFS_SECTOR;
            if ((b->dirty & (1u << i)) == 0)
                continue;
            if (bns_prng_chance(&s->prng, 0.3))
                memcpy(b->dur + at, b->vol + at, BNS_VFS_SECTOR);
            else if (!keep && b->index * MEM_BLOCK_BYTES + at < ino->vol_size)
                memcpy(b->vol + at, b->dur + at, BNS_VFS_SECTOR);
        }
        b->lost = (uint8_t)(b->lost | b->dirty);
        b->dirty = 0;
    }
    if (ino->vol_size % BNS_VFS_SECTOR != 0) { /* old bytes must not show behind the end */
        struct mem_block *b = block_at(ino, ino->vol_size / MEM_BLOCK_BYTES);
        size_t from = (size_t)(ino->vol_size % MEM_BLOCK_BYTES);
        if (b != NULL)
            memset(b->vol + from, 0, BNS_VFS_SECTOR - from % BNS_VFS_SECTOR);
    }
}

/* Zeroes what lies behind the new size and frees whole blocks there. */
static void cut_tail(struct mem_store *s, struct mem_inode *ino)
{
    for (uint64_t i = ino->vol_size / MEM_BLOCK_BYTES; i < ino->blocks_cap; i++) {
        struct mem_block *b = ino->blocks[i];
        uint64_t start = i * MEM_BLOCK_BYTES;

        if (b == NULL)
            continue;
        if (start >= ino->vol_size) {
            block_free(s, ino, b);
        } else {
            size_t from = (size_t)(ino->vol_size - start);
            memset(b->vol + from, 0, MEM_BLOCK_BYTES - from);
        }
    }
}

static uint64_t cut_size(const struct mem_inode *ino, const struct mem_cut *cut)
{
    uint64_t lo = ino->dur_size;
    uint64_t hi = ino->vol_size;

    if (cut->prng == NULL || lo == hi)
        return lo;
    switch (bns_prng_below(cut->prng, 4)) {
    case 0:
        return lo;
    case 1:
    case 2:
        return hi;
    default:
        if (hi < lo)
            return lo;
        return min_u64(hi, lo + bns_prng_below(cut->prng, hi - lo + 1) / BNS_VFS_SECTOR *
                                    BNS_VFS_SECTOR);
    }
}

/* Where the surviving prefix of this file ends. */
static uint64_t cut_prefix(const struct mem_inode *ino, struct bns_prng *prng)
{
    uint64_t first = UINT64_MAX;
    uint64_t last = 0;

    BNS_LIST_EACH(n, &ino->dirty)
    {
        const struct mem_block *b = BNS_CONTAINER(n, struct mem_block, node);
        first = min_u64(first, b->index);
        last = max_u64(last, b->index);
    }
    return (first * MEM_BLOCK_SECTORS +
            bns_prng_below(prng, (last - first + 1) * MEM_BLOCK_SECTORS + 1)) *
           BNS_VFS_SECTOR;
}

void mem_data_cut(struct mem_store *s, struct mem_inode *ino, const struct mem_cut *cut)
{
    uint64_t size = cut_size(ino, cut);
    uint64_t limit = 0;

    if (cut->prng != NULL && cut->prefix && !bns_list_empty(&ino->dirty))
        limit = cut_prefix(ino, cut->prng);
    BNS_LIST_EACH(n, &ino->dirty)
    {
        struct mem_block *b = BNS_CONTAINER(n, struct mem_block, node);

        for (unsigned i = 0; i < MEM_BLOCK_SECTORS; i++) {
            size_t at = i * BNS_VFS_SECTOR;
            uint64_t pos = b->index * MEM_BLOCK_BYTES + at;
            bool dirty = (b->dirty & (1u << i)) != 0;
            bool live = false;

            if (dirty && cut->prng != NULL)
                live = cut->prefix ? pos < limit : bns_prng_chance(cut->prng, cut->survive);
            /* A truncation that did not survive did not clear anything either. */
            if (dirty && size == ino->dur_size && pos >= ino->vol_size)
                live = false;
            if (live)
                continue;
            if (dirty)
                s->sectors_lost++;
            memcpy(b->vol + at, b->dur + at, BNS_VFS_SECTOR);
        }
        block_clean(s, b);
    }
    ino->vol_size = size;
    ino->dur_size = size;
    cut_tail(s, ino);
}

void mem_data_flip(struct mem_inode *ino, uint64_t off, uint8_t mask)
{
    struct mem_block *b = block_at(ino, off / MEM_BLOCK_BYTES);

    if (b == NULL)
        return; /* a hole has no medium that could rot */
    b->vol[off % MEM_BLOCK_BYTES] ^= mask;
    if (b->dur != NULL)
        b->dur[off % MEM_BLOCK_BYTES] ^= mask;
}

uint64_t mem_data_hash(const struct mem_inode *ino, bool durable, uint64_t h)
{
    static const uint8_t zeros[MEM_BLOCK_BYTES];
    uint64_t size = durable ? ino->dur_size : ino->vol_size;

    h = mem_hash(h, &size, sizeof size);
    for (uint64_t at = 0; at < size; at += MEM_BLOCK_BYTES) {
        const struct mem_block *b = block_at(ino, at / MEM_BLOCK_BYTES);
        const uint8_t *p = b == NULL ? zeros : durable && b->dur != NULL ? b->dur : b->vol;
        h = mem_hash(h, p, (size_t)min_u64(MEM_BLOCK_BYTES, size - at));
    }
    return h;
}

void mem_data_free(struct mem_store *s, struct mem_inode *ino)
{
    for (size_t i = 0; i < ino->blocks_cap; i++) {
        if (ino->blocks[i] != NULL)
            block_free(s, ino, ino->blocks[i]);
    }
    bns_free(s->alloc, ino->blocks);
    ino->blocks = NULL;
    ino->blocks_cap = 0;
}
