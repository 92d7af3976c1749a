/* prng.h - xoshiro256** seeded by splitmix64. Not for secrets: those come from env entropy. */
#ifndef BNS_BASE_PRNG_H
#define BNS_BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct bns_prng {
    uint64_t s[4];
};

void bns_prng_seed(struct bns_prng *p, uint64_t seed);
uint64_t bns_prng_next(struct bns_prng *p);
uint64_t bns_prng_below(struct bns_prng *p, uint64_t n); /* 0 .. n-1, unbiased; n > 0 */
uint64_t bns_prng_range(struct bns_prng *p, uint64_t lo, uint64_t hi); /* lo .. hi inclusive */
double bns_prng_double(struct bns_prng *p);                            /* [0, 1) */
bool bns_prng_chance(struct bns_prng *p, double probability);
struct bns_prng bns_prng_split(struct bns_prng *p); /* an independent stream */

#endif
