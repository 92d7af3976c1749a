/* hmap.c - intrusive chained hash map, and the seeded hash that goes with it.
 *
 * The table has a power-of-two number of slots, at least as many as nodes; it doubles when full and
 * never shrinks (a map lives at its peak size). When doubling fails the chains just grow longer.
 *
 * Hash: blocks of 16 bytes are folded by a 64x64 -> 128 bit multiplication whose halves are xored
 * (the "folded multiply" of Wang Yi's wyhash family). The seed enters every fold, so that a peer
 * who does not know it cannot aim collisions. Not cryptographic.
 */
#include "base/hmap.h"

#include <string.h>

#define SLOTS_MIN 8u

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Odd constants with about half of their bits set: the fractional parts of square roots of primes
 * (the first 64 bits, as SHA-512 starts from), made odd. */
static const uint64_t k0 = UINT64_C(0x6a09e667f3bcc909);
static const uint64_t k1 = UINT64_C(0xbb67ae8584caa73b);
static const uint64_t k2 = UINT64_C(0x3c6ef372fe94f82b);

uint64_t bns_hash(uint64_t seed, const void *ptr, size_t len)
{
    const uint8_t *p = ptr;
    size_t left = len;
    uint64_t h = fold(seed ^ k0, k1);
    uint64_t a = 0;
    uint64_t b = 0;

    while (left > 16) {
        h = fold(load64(p) ^ k2 ^ h, load64(p + 8) ^ k1);
        p += 16;
        left -= 16;
    }
    if (left >= 8) { /* 8..16 bytes: two loads that may overlap */
        a = load64(p);
        b = load64(p + left - 8);
    } else if (left >= 4) {
        a = load32(p);
        b = load32(p + left - 4);
    } else if (left > 0) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[left / 2] << 8 | p[left - 1];
    }
    h = fold(a ^ k1, b ^ h);
    return fold(h ^ k2, k0 ^ (uint64_t)len ^ seed);
}

uint64_t bns_hash_u64(uint64_t seed, uint64_t v)
{
    uint64_t h = fold(v ^ k1, seed ^ k2);
    return fold(h ^ v, k0 ^ seed);
}

void bns_hmap_init(struct bns_hmap *m, const struct bns_alloc *alloc)
{
    BNS_ASSERT(alloc != NULL);
    *m = (struct bns_hmap){.alloc = alloc};
}

void bns_hmap_free(struct bns_hmap *m)
{
    if (m->slots != NULL)
        bns_free(m->alloc, m->slots);
    m->slots = NULL;
    m->slots_count = 0;
    m->count = 0;
}

static struct bns_hnode **slot(const struct bns_hmap *m, uint64_t hash)
{
    return &m->slots[hash & (m->slots_count - 1)];
}

/* Moves every node into a table of twice the size; false (and no change) without memory. */
static bool grow(struct bns_hmap *m)
{
    size_t count = m->slots_count == 0 ? SLOTS_MIN : m->slots_count * 2;
    struct bns_hnode **old = m->slots;
    size_t old_count = m->slots_count;
    struct bns_hnode **slots;

    slots = bns_alloc_array(m->alloc, count, sizeof(struct bns_hnode *));
    if (slots == NULL)
        return false;
    memset(slots, 0, count * sizeof(struct bns_hnode *));
    m->slots = slots;
    m->slots_count = count;
    for (size_t i = 0; i < old_count; i++) {
        struct bns_hnode *n = old[i];
        while (n != NULL) {
            struct bns_hnode *next = n->next;
            struct bns_hnode **s = slot(m, n->hash);
            n->next = *s;
            *s = n;
            n = next;
        }
    }
    if (old != NULL)
        bns_free(m->alloc, old);
    return true;
}

int bns_hmap_insert(struct bns_hmap *m, struct bns_hnode *n, uint64_t hash)
{
    struct bns_hnode **s;

    if (m->count >= m->slots_count && !grow(m) && m->slots_count == 0)
        return BNS_E_NOMEM;
    n->hash = hash;
    s = slot(m, hash);
    n->next = *s;
    *s = n;
    m->count++;
    return BNS_OK;
}

void bns_hmap_del(struct bns_hmap *m, struct bns_hnode *n)
{
    struct bns_hnode **p;

    BNS_ASSERT(m->count > 0);
    p = slot(m, n->hash);
    while (*p != n) {
        BNS_ASSERT(*p != NULL); /* n is not in this map */
        p = &(*p)->next;
    }
    *p = n->next;
    n->next = NULL;
    m->count--;
}

static struct bns_hnode *same(struct bns_hnode *n, uint64_t hash)
{
    while (n != NULL && n->hash != hash)
        n = n->next;
    return n;
}

struct bns_hnode *bns_hmap_find(const struct bns_hmap *m, uint64_t hash)
{
    return m->slots_count == 0 ? NULL : same(*slot(m, hash), hash);
}

struct bns_hnode *bns_hmap_find_next(const struct bns_hnode *n)
{
    return same(n->next, n->hash);
}

struct bns_hnode *bns_hmap_next(const struct bns_hmap *m, const struct bns_hnode *n)
{
    size_t i = 0;

    if (n != NULL) {
        if (n->next != NULL)
            return n->next;
        i = (n->hash & (m->slots_count - 1)) + 1;
    }
    while (i < m->slots_count) {
        if (m->slots[i] != NULL)
            return m->slots[i];
        i++;
    }
    return NULL;
}

static uint64_t reversed(uint64_t v)
{
    uint64_t r = 0;

    for (int i = 0; i < 64; i++, v >>= 1)
        r = r << 1 | (v & 1);
    return r;
}

/* The cursor is a slot, and slots are visited in the order of their reversed bits: when the table
 * doubles, slot i becomes i and i + count, which stand next to each other in that order. So what
 * was visited stays visited, and what was not is still to come (the cursor of Redis's SCAN). */
uint64_t bns_hmap_scan(const struct bns_hmap *m, uint64_t cursor,
                       void (*fn)(void *arg, struct bns_hnode *n), void *arg)
{
    uint64_t mask = (uint64_t)m->slots_count - 1;

    if (m->slots_count == 0)
        return 0;
    for (struct bns_hnode *n = m->slots[cursor & mask]; n != NULL; n = n->next)
        fn(arg, n);
    return reversed(reversed(cursor | ~mask) + 1);
}
