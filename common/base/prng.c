/* prng.c - xoshiro256** 1.0 (D. Blackman, S. Vigna, "Scrambled linear pseudorandom number
 * generators", 2018), its state filled by splitmix64 from one 64-bit seed.
 *
 * Every random choice of a run comes from a state like this one: same seed, same run.
 */
#include "base/prng.h"

#include "base/err.h"

static uint64_t rotl(uint64_t v, int n)
{
    return v << n | v >> (64 - n);
}

void bns_prng_seed(struct bns_prng *p, uint64_t seed)
{
    for (int i = 0; i < 4; i++) { /* splitmix64; never yields four zeros */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        p->s[i] = z ^ z >> 31;
    }
}

uint64_t bns_prng_next(struct bns_prng *p)
{
    uint64_t *s = p->s;
    uint64_t out = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

/* Multiply and shift; draws that would make some values likelier than others are drawn again
 * (D. Lemire, "Fast random integer generation in an interval", 2019). */
uint64_t bns_prng_below(struct bns_prng *p, uint64_t n)
{
    unsigned __int128 m;

    BNS_ASSERT(n > 0);
    m = (unsigned __int128)bns_prng_next(p) * n;
    if ((uint64_t)m < n) {
        uint64_t floor = (0 - n) % n; /* 2^64 mod n */
        while ((uint64_t)m < floor)
            m = (unsigned __int128)bns_prng_next(p) * n;
    }
    return (uint64_t)(m >> 64);
}

uint64_t bns_prng_range(struct bns_prng *p, uint64_t lo, uint64_t hi)
{
    BNS_ASSERT(lo <= hi);
    if (hi - lo == UINT64_MAX)
        return bns_prng_next(p);
    return lo + bns_prng_below(p, hi - lo + 1);
}

double bns_prng_double(struct bns_prng *p)
{
    return (double)(bns_prng_next(p) >> 11) * 0x1.0p-53;
}

bool bns_prng_chance(struct bns_prng *p, double probability)
{
    return bns_prng_double(p) < probability;
}

struct bns_prng bns_prng_split(struct bns_prng *p)
{
    struct bns_prng child;
    bns_prng_seed(&child, bns_prng_next(p));
    return child;
}
