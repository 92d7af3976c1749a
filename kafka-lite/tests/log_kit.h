/* log_kit.h - a log on the memory VFS, and a model of what it has to have.
 *
 * Batch number n is made from n alone: its size, its records, its timestamp. So what a log serves
 * at an offset can be compared with what was appended there, whichever run it was. */
#ifndef KAFKA_TESTS_LOG_KIT_H
#define KAFKA_TESTS_LOG_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/env.h"
#include "log/log.h"
#include "sim/heap.h"
#include "sim/vfs_mem.h"

#define KIT_DIR "data/t-0"
#define KIT_TIME INT64_C(1700000000000)
#define KIT_BATCHES_MAX 4096
#define KIT_TOPIC "AAAAAAAAAAAAAAAAAAAAAQ"

struct kit_batch {
    int64_t first, last, max_time;
    size_t made; /* from this number */
};

struct kit { /* the model: batches in their order */
    struct kit_batch at[KIT_BATCHES_MAX];
    size_t count;
    int64_t end;
    size_t flushed; /* how many are durable */
    size_t salt;    /* added to a batch's number: what follows a truncation is not what was there */
    int64_t begin;  /* what is before it is gone durably */
    int64_t restart; /* offset of a restart that was not finished; 0: none */
    bool maybe;      /* the next one was refused: a crash in its write may have kept it whole */
};

static inline struct bns_vfs *kit_vfs(uint64_t seed)
{
    struct bns_vfs *v = NULL;

    assert_int_equal(bns_vfs_mem_new(bns_alloc_libc(), seed, &v), BNS_OK);
    assert_int_equal(bns_vfs_mkdir(v, "data", NULL), BNS_OK);
    assert_int_equal(bns_vfs_sync_dir(v, ".", NULL), BNS_OK);
    return v;
}

static inline struct kafka_log_cfg kit_cfg(void)
{
    struct kafka_log_cfg cfg;

    kafka_log_cfg_default(&cfg);
    cfg.segment_bytes = 2000;
    cfg.index_interval = 100;
    return cfg;
}

static inline int kit_records(size_t n)
{
    return 1 + (int)(n % 3);
}

/* Times rise, but for every fifth batch, which is late; all of them differ. */
static inline int64_t kit_time(size_t n)
{
    return KIT_TIME + (int64_t)(n % 5 == 4 ? n - 3 : n) * 1000 + (n % 5 == 4 ? 500 : 0);
}

/* Batch number n behind what is in `out`. */
static inline void kit_make(size_t n, struct bns_buf *out)
{
    struct kafka_batch like = {.producer_id = -1, .producer_epoch = -1, .base_sequence = -1};
    struct kafka_batch_writer w;
    uint8_t value[64];

    BNS_ASSERT(kafka_batch_begin(&w, out) == BNS_OK);
    for (int i = 0; i < kit_records(n); i++) {
        size_t len = (n * 7 + (size_t)i * 13) % sizeof value;
        struct kafka_record r = {.key = bns_slice(&n, sizeof n)};
        for (size_t k = 0; k < len; k++)
            value[k] = (uint8_t)(n * 31 + k + (size_t)i);
        r.value = bns_slice(value, len);
        BNS_ASSERT(kafka_batch_add(&w, kit_time(n) - i, &r) == BNS_OK);
    }
    kafka_batch_end(&w, &like);
}

/* Appends the model's next batch; the model learns it when that is OK. */
static inline int kit_append(struct kit *k, struct kafka_log *log, int32_t epoch)
{
    struct kafka_append how = {.leader_epoch = epoch, .now_ms = KIT_TIME};
    struct kafka_appended got = {0};
    size_t made = k->count + k->salt;
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(made, &b);
    rv = kafka_log_append(log, b.ptr, b.len, &how, &got, NULL);
    bns_buf_free(&b);
    k->maybe = rv != BNS_OK;
    if (rv != BNS_OK) {
        k->at[k->count] =
            (struct kit_batch){k->end, k->end + kit_records(made) - 1, kit_time(made), made};
        return rv;
    }
    assert_int_equal(got.first, k->end);
    assert_int_equal(got.last, k->end + kit_records(made) - 1);
    assert_int_equal(got.max_time, kit_time(made));
    k->at[k->count++] = (struct kit_batch){got.first, got.last, got.max_time, made};
    k->end = got.last + 1;
    return BNS_OK;
}

/* The same as a follower: at an offset that is said. */
static inline int kit_follow(struct kit *k, struct kafka_log *log, int64_t offset)
{
    struct kafka_append how = {.follow = true};
    struct kafka_appended got = {0};
    struct bns_buf b;
    int rv;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    kit_make(k->count, &b);
    kafka_batch_place(b.ptr, offset, 0);
    rv = kafka_log_append(log, b.ptr, b.len, &how, &got, NULL);
    bns_buf_free(&b);
    k->maybe = rv != BNS_OK;
    k->at[k->count] = (struct kit_batch){offset, offset + kit_records(k->count) - 1,
                                         kit_time(k->count), k->count};
    if (rv != BNS_OK)
        return rv;
    assert_int_equal(got.first, offset);
    assert_int_equal(got.last, k->at[k->count].last);
    k->count++;
    k->end = got.last + 1;
    return BNS_OK;
}

static inline int kit_flush(struct kit *k, struct kafka_log *log)
{
    int rv = kafka_log_flush(log, NULL);

    if (rv == BNS_OK)
        k->flushed = k->count;
    return rv;
}

static const struct bns_alloc *kit_heap; /* of the logs that are opened; NULL: libc's */

static inline int kit_open(struct bns_vfs *v, const struct kafka_log_cfg *cfg, bool clean,
                           struct kafka_log_report *report, struct kafka_log **out)
{
    struct kafka_log_start start = {.vfs = v,
                                    .alloc = kit_heap == NULL ? bns_alloc_libc() : kit_heap,
                                    .dir = KIT_DIR,
                                    .cfg = cfg,
                                    .clean = clean,
                                    .now_ms = KIT_TIME,
                                    .topic_id = KIT_TOPIC};
    struct bns_err err = {0};

    return kafka_log_open(&start, report, out, &err);
}

static inline struct kafka_log *kit_opened(struct bns_vfs *v, const struct kafka_log_cfg *cfg,
                                           bool clean)
{
    struct kafka_log *log = NULL;

    assert_int_equal(kit_open(v, cfg, clean, NULL, &log), BNS_OK);
    return log;
}

/* The log has a prefix of the model's batches, whole and in their places. How many; -1: something
 * else (said on the terminal). */
static inline int kit_compare(const struct kit *k, struct kafka_log *log)
{
    struct kafka_want want = {.below = INT64_MAX, .bytes_max = 700, .one_at_least = true};
    int64_t next = kafka_log_begin(log), end = kafka_log_end(log);
    struct bns_buf got, made;
    size_t n = 0, known = k->count + k->maybe;
    int bad = 0;

    bns_buf_init(&got, bns_alloc_libc(), 1 << 20);
    bns_buf_init(&made, bns_alloc_libc(), 1 << 20);
    while (n < known && k->at[n].last < next)
        n++;
    while (bad == 0 && next < end && n < known && k->at[n].first < end) {
        struct kafka_range range = {0};
        struct kafka_batch b = {0};
        struct bns_slice in;
        bns_buf_clear(&got);
        want.offset = next;
        if (kafka_log_read(log, &want, &range, NULL) != BNS_OK || range.len == 0 ||
            kafka_log_load(log, &range, &got, NULL) != BNS_OK)
            bad = __LINE__;
        for (in = bns_buf_slice(&got); bad == 0 && in.len > 0; n++) {
            bns_buf_clear(&made);
            kit_make(n < known ? k->at[n].made : n, &made);
            if (n >= known || kafka_batch_next(&in, &b, NULL) != BNS_OK ||
                b.base_offset != k->at[n].first || kafka_batch_last_offset(&b) != k->at[n].last ||
                !kafka_batch_crc_ok(&b) || b.bytes.len != made.len ||
                memcmp(b.bytes.ptr + 16, made.ptr + 16, made.len - 16) != 0)
                bad = __LINE__;
            else
                next = k->at[n].last + 1;
        }
    }
    bns_buf_free(&got);
    bns_buf_free(&made);
    if (n < known && end == k->at[n].first)
        next = end; /* the gap before it is there, and nothing behind that */
    if (bad != 0 || next != end || (n < k->count && k->at[n].first < end)) {
        print_message("line %d: batch %zu, offset %lld of %lld\n", bad, n, (long long)next,
                      (long long)end);
        return -1;
    }
    return (int)n;
}

/* Every offset and every time is found where the model has it. False: something was served wrong.
 * `rotten`: a byte of a .log was flipped, and an answer of BNS_E_CORRUPT is not wrong. */
static inline bool kit_finds(const struct kit *k, struct kafka_log *log, size_t count, bool rotten)
{
    size_t begin = 0;

    while (begin < count && k->at[begin].first < kafka_log_begin(log))
        begin++;
    for (size_t n = begin; n < count; n++) {
        struct kafka_want want = {
            .offset = k->at[n].last, .below = INT64_MAX, .bytes_max = 1, .one_at_least = true};
        struct kafka_range range = {0};
        struct kafka_found found = {0};
        int rv = kafka_log_read(log, &want, &range, NULL);
        size_t first = begin;
        if (!(rotten && rv == BNS_E_CORRUPT) && (rv != BNS_OK || range.base != k->at[n].first))
            return false;
        while (first < count && k->at[first].max_time < k->at[n].max_time)
            first++;
        rv = kafka_log_offset_for_time(log, k->at[n].max_time, &found, NULL);
        if (!(rotten && rv == BNS_E_CORRUPT) &&
            (rv != BNS_OK || found.offset != k->at[first].first ||
             found.time_ms != k->at[first].max_time)) {
            print_message("time of batch %zu: %d, offset %lld, not %lld\n", n, rv,
                          (long long)found.offset, (long long)k->at[first].first);
            return false;
        }
    }
    return true;
}

#endif
