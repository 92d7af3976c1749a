/* batch_random.h - a random plain batch of 1 to 20 records, with and without keys and headers. */
#ifndef KAFKA_TESTS_BATCH_RANDOM_H
#define KAFKA_TESTS_BATCH_RANDOM_H

#include "base/prng.h"
#include "log/batch.h"

static struct bns_slice random_bytes(struct bns_prng *g, uint8_t *to, bool may_null)
{
    static const uint16_t lengths[] = {0, 1, 5, 63, 64, 127, 300};
    size_t n = lengths[bns_prng_below(g, 7)];

    if (may_null && bns_prng_chance(g, 0.2))
        return bns_slice(NULL, 0);
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)('a' + bns_prng_below(g, 26));
    return bns_slice(to, n);
}

static void random_batch(struct bns_prng *g, struct bns_buf *out)
{
    struct kafka_batch like = {.base_offset = (int64_t)bns_prng_below(g, 1u << 30),
                               .leader_epoch = (int32_t)bns_prng_below(g, 9),
                               .producer_id = -1,
                               .producer_epoch = -1,
                               .base_sequence = -1};
    int64_t time = 1700000000000 + (int64_t)bns_prng_below(g, 1000000);
    struct kafka_batch_writer w;
    struct bns_buf headers;
    uint8_t a[512], b[512];

    if (bns_prng_chance(g, 0.5)) {
        like.producer_id = (int64_t)bns_prng_below(g, 1u << 20);
        like.producer_epoch = (int16_t)bns_prng_below(g, 100);
        like.base_sequence = (int32_t)bns_prng_below(g, 1u << 20);
    }
    bns_buf_init(&headers, bns_alloc_libc(), 1 << 16);
    BNS_ASSERT(kafka_batch_begin(&w, out) == BNS_OK);
    for (uint64_t n = bns_prng_range(g, 1, 20); n > 0; n--) {
        struct kafka_record r = {.headers_count = (int32_t)bns_prng_below(g, 3)};
        bns_buf_clear(&headers);
        for (int32_t i = 0; i < r.headers_count; i++)
            BNS_ASSERT(kafka_header_add(&headers, random_bytes(g, a, false),
                                        random_bytes(g, b, true)) == BNS_OK);
        r.headers = bns_buf_slice(&headers);
        r.key = random_bytes(g, a, true);
        r.value = random_bytes(g, b, true);
        BNS_ASSERT(kafka_batch_add(&w, time + (int64_t)bns_prng_below(g, 200000) - 100000, &r) ==
                   BNS_OK);
    }
    kafka_batch_end(&w, &like);
    bns_buf_free(&headers);
}

#endif
