/* vectors.c - random messages as bytes, for another implementation to read and write back.
 *
 *   kafka_vectors messages SEED ROUNDS     lines of `KEY request|response VERSION HEX`
 *   kafka_vectors batches SEED COUNT       lines of `batch HEX`
 *   kafka_vectors write DIR SEED COUNT     appends random batches to the log in DIR; stops cleanly
 *   kafka_vectors cut DIR SEED COUNT       the same, and stops like a crash
 *   kafka_vectors read DIR clean|crashed   lines of `FIRST LAST COUNT CRC` of the log in DIR */
#include "batch_random.h"
#include "message_random.h"
#include "log/log.h"
#include "messages.h"
#include "store/vfs_posix.h"

#include <stdio.h>
#include <stdlib.h>

static void put_hex(struct bns_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", s.ptr[i]);
}

static void batch(struct bns_prng *g)
{
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    random_batch(g, &b);
    printf("batch ");
    put_hex(bns_buf_slice(&b));
    putchar('\n');
    bns_buf_free(&b);
}

static void line(struct bns_prng *g, const struct kafka_api *api, bool request, int version)
{
    const struct kafka_struct *s = request ? api->request : api->response;
    struct kafka_form form = kafka_form(api, version);
    struct kafka_bytes b;
    struct bns_arena a;
    void *msg;

    bns_arena_init(&a, bns_alloc_libc(), 64u << 20);
    msg = random_message(g, &a, s, version);
    if (kafka_encode(s, &form, msg, 0, bns_alloc_libc(), &b) != BNS_OK)
        abort();
    printf("%d %s %d ", api->key, request ? "request" : "response", version);
    for (size_t i = 0; i < b.count; i++)
        put_hex(b.slices[i]);
    putchar('\n');
    kafka_bytes_free(&b);
    bns_arena_free(&a);
}

static void messages(struct bns_prng *g, long rounds)
{
    for (size_t i = 0; i < kafka_apis_count; i++) {
        for (int v = kafka_apis[i].first; v <= kafka_apis[i].last; v++) {
            for (long n = 0; n < rounds; n++) {
                line(g, &kafka_apis[i], true, v);
                line(g, &kafka_apis[i], false, v);
            }
        }
    }
}

/* ---- logs ------------------------------------------------------------------------------------ */

static struct kafka_log *open_log(struct bns_vfs *vfs, const char *dir, bool clean)
{
    struct kafka_log_cfg cfg;
    struct kafka_log_start start = {
        .vfs = vfs, .alloc = bns_alloc_libc(), .dir = dir, .cfg = &cfg, .clean = clean};
    struct kafka_log *log = NULL;
    struct bns_err err = {0};

    kafka_log_cfg_default(&cfg);
    cfg.segment_bytes = 64 << 10;
    cfg.segment_ms = INT64_MAX;
    cfg.index_interval = 1024;
    if (kafka_log_open(&start, NULL, &log, &err) != BNS_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return log;
}

static int write_log(const char *dir, uint64_t seed, long count, bool clean)
{
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct kafka_log *log = open_log(vfs, dir, false);
    struct kafka_append how = {.now_ms = INT64_C(1700000000000)};
    struct kafka_appended out;
    struct bns_err err = {0};
    struct bns_prng g;
    struct bns_buf b;
    int rv = BNS_OK;

    bns_prng_seed(&g, seed);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (long i = 0; rv == BNS_OK && i < count; i++) {
        bns_buf_clear(&b);
        random_batch(&g, &b);
        how.leader_epoch = (int32_t)(i / 100);
        rv = kafka_log_append(log, b.ptr, b.len, &how, &out, &err);
    }
    if (rv == BNS_OK)
        rv = clean ? kafka_log_seal(log, &err) : kafka_log_flush(log, &err);
    if (rv != BNS_OK)
        (void)fprintf(stderr, "%s\n", err.text);
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_posix_free(vfs);
    return rv == BNS_OK ? 0 : 1;
}

static int read_log(const char *dir, bool clean)
{
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct kafka_log *log = open_log(vfs, dir, clean);
    struct kafka_want want = {.below = INT64_MAX, .bytes_max = 1 << 16, .one_at_least = true};
    struct kafka_range range;
    struct kafka_batch batch;
    struct bns_slice in;
    struct bns_buf b;
    int rv = BNS_OK;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (want.offset = kafka_log_begin(log); rv == BNS_OK && want.offset < kafka_log_end(log);) {
        bns_buf_clear(&b);
        rv = kafka_log_read(log, &want, &range, NULL);
        if (rv == BNS_OK)
            rv = kafka_log_load(log, &range, &b, NULL);
        for (in = bns_buf_slice(&b); rv == BNS_OK && in.len > 0;) {
            rv = kafka_batch_next(&in, &batch, NULL);
            if (rv == BNS_OK && !kafka_batch_crc_ok(&batch))
                rv = BNS_E_CORRUPT;
            want.offset = kafka_batch_last_offset(&batch) + 1;
            printf("%lld %lld %d %u\n", (long long)batch.base_offset, (long long)want.offset - 1,
                   batch.count, batch.crc);
        }
    }
    if (rv == BNS_OK && !clean)
        rv = kafka_log_seal(log, NULL); /* the indexes that were made anew */
    bns_buf_free(&b);
    kafka_log_close(log);
    bns_vfs_posix_free(vfs);
    return rv == BNS_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool logs = argc >= 4 && strcmp(argv[1], "batches") != 0 && strcmp(argv[1], "messages") != 0;
    bool of_messages = argc == 4 && strcmp(argv[1], "messages") == 0;
    struct bns_prng g;
    long rounds;

    if (logs && argc == 4 && strcmp(argv[1], "read") == 0)
        return read_log(argv[2], strcmp(argv[3], "clean") == 0);
    if (logs && argc == 5)
        return write_log(argv[2], strtoull(argv[3], NULL, 0), strtol(argv[4], NULL, 10),
                         strcmp(argv[1], "write") == 0);
    if (argc != 4 || (!of_messages && strcmp(argv[1], "batches") != 0)) {
        fprintf(stderr, "usage: kafka_vectors messages|batches SEED COUNT\n");
        return 2;
    }
    bns_prng_seed(&g, strtoull(argv[2], NULL, 0));
    rounds = strtol(argv[3], NULL, 10);
    if (of_messages)
        messages(&g, rounds);
    for (long n = 0; !of_messages && n < rounds; n++)
        batch(&g);
    return 0;
}
