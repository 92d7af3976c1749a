/* bench_wal.c - the log against the bare disk: append and sync, A/B interleaved, medians.
 *
 *   bench_wal [DIR]        default $TMPDIR or /tmp; ROUNDS (41) and MS (60) from the environment
 *
 * A is the whole log: production env, worker thread, checksums, segments being made, released and
 * used again in the background. B is a loop of pwrite + fdatasync, round and round in a file that
 * was filled with zeros before, one write of as many bytes a sync as A wrote a sync in the round
 * before. Depth 1: each append waits for the one before; depth 64: the queue is never empty.
 *
 * A disk that others use changes from one second to the next: so rounds are short, A and B take
 * turns at being the first of a pair, and what counts is the median of the pairs' ratios. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "io/env_uv.h"
#include "store/vfs_posix.h"
#include "store/wal.h"

#define DEPTH_MAX 64
#define ROUNDS_MAX 301
#define BARE_BYTES (64u * 1024 * 1024)

struct bench {
    struct bns_env *env;
    struct bns_wal *wal;
    struct bns_timer timer;
    struct bns_wal_append append[DEPTH_MAX];
    struct bns_wal_record record;
    size_t depth, running;
    bool stop;
    struct bns_wal_stats before, after;
    double seconds, cpu;
};

struct sample {
    double wal_syncs, bare_syncs, wal_bytes, batch, ratio, cpu;
    bool bare_first;
};

static uint8_t payload[65536];

static double now(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_wal: %s\n", what);
    exit(1);
}

static int no_replay(void *arg, uint64_t lsn, uint32_t group, uint8_t type, struct bns_slice p)
{
    (void)arg;
    (void)lsn;
    (void)group;
    (void)type;
    (void)p;
    return BNS_OK;
}

static void appended(struct bns_wal_append *a, int code)
{
    struct bench *b = a->arg;

    if (code != BNS_OK)
        die("an append failed");
    if (b->stop) {
        if (--b->running == 0)
            bns_env_uv_stop(b->env);
        return;
    }
    if (a->lsn_last % 8192 < 2)
        bns_wal_release(b->wal, 1, a->lsn_last);
    if (bns_wal_append(b->wal, a) != BNS_OK)
        die("an append was refused");
}

static void time_is_up(void *arg)
{
    ((struct bench *)arg)->stop = true;
}

static void run_wal(struct bench *b, size_t size, size_t depth, double seconds)
{
    b->record = (struct bns_wal_record){.group = 1, .type = BNS_WAL_ENTRY, .slices = 1};
    b->record.payload[0] = bns_slice(payload, size);
    b->running = depth;
    b->stop = false;
    bns_timer_init(&b->timer, time_is_up, b);
    bns_timer_start(b->env, &b->timer, bns_now_ns(b->env) + (uint64_t)(seconds * 1e9));
    bns_wal_stats(b->wal, &b->before);
    b->cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    b->seconds = now(CLOCK_MONOTONIC);
    for (size_t i = 0; i < depth; i++) {
        b->append[i] = (struct bns_wal_append){
            .records = &b->record, .records_count = 1, .done = appended, .arg = b};
        if (bns_wal_append(b->wal, &b->append[i]) != BNS_OK)
            die("an append was refused");
    }
    bns_env_uv_run(b->env);
    b->seconds = now(CLOCK_MONOTONIC) - b->seconds;
    b->cpu = now(CLOCK_PROCESS_CPUTIME_ID) - b->cpu;
    bns_wal_stats(b->wal, &b->after);
}

static int bare_open(const char *dir)
{
    static uint8_t zeros[1 << 20];
    char path[512];
    int fd;

    (void)snprintf(path, sizeof path, "%s/bare", dir);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (uint32_t off = 0; fd >= 0 && off < BARE_BYTES; off += sizeof zeros) {
        if (pwrite(fd, zeros, sizeof zeros, off) != (ssize_t)sizeof zeros)
            die("cannot fill the file");
    }
    if (fd < 0 || fsync(fd) != 0)
        die("cannot make the file");
    return fd;
}

static double run_bare(int fd, size_t batch, double seconds)
{
    static uint8_t bytes[1 << 20];
    double start = now(CLOCK_MONOTONIC), spent;
    uint64_t n = 0, off = 0;

    if (batch > sizeof bytes)
        batch = sizeof bytes;
    do {
        if (off + batch > BARE_BYTES)
            off = 0;
        memset(bytes, (int)n, batch);
        if (pwrite(fd, bytes, batch, (off_t)off) != (ssize_t)batch || fdatasync(fd) != 0)
            die("the disk failed");
        off += batch;
        n++;
        spent = now(CLOCK_MONOTONIC) - start;
    } while (spent < seconds);
    return (double)n / spent;
}

static int compare(const void *a, const void *b)
{
    double x = ((const struct sample *)a)->ratio, y = ((const struct sample *)b)->ratio;
    return (x > y) - (x < y);
}

static void closed(void *arg)
{
    bns_env_uv_stop(arg);
}

static int remove_name(void *arg, const char *name)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
    return unlink(path);
}

static size_t number(const char *name, size_t otherwise)
{
    const char *v = getenv(name);
    return v == NULL ? otherwise : (size_t)strtoul(v, NULL, 10);
}

static void pair(struct bench *b, int fd, size_t size, size_t depth, struct sample *s)
{
    double seconds = (double)number("MS", 60) / 1e3, syncs;

    if (s->bare_first)
        s->bare_syncs = run_bare(fd, (size_t)s->batch, seconds);
    run_wal(b, size, depth, seconds);
    syncs = (double)(b->after.syncs - b->before.syncs);
    s->wal_syncs = syncs / b->seconds;
    s->wal_bytes = (double)(b->after.bytes - b->before.bytes) / b->seconds;
    s->cpu = b->cpu / b->seconds;
    if (!s->bare_first)
        s->bare_syncs = run_bare(fd, (size_t)s->batch, seconds);
    s->ratio = s->wal_syncs / s->bare_syncs;
    s->batch = (double)(b->after.bytes - b->before.bytes) / syncs; /* for the next pair */
}

static void measure(struct bench *b, int fd, size_t size, size_t depth)
{
    static struct sample s[ROUNDS_MAX];
    size_t rounds = number("ROUNDS", 41);
    double batch;

    if (rounds < 1 || rounds > ROUNDS_MAX)
        rounds = 41;
    s[0] = (struct sample){.batch = (double)size};
    pair(b, fd, size, depth, &s[0]); /* finds out how large a batch is, and counts for nothing */
    batch = s[0].batch;
    for (size_t i = 0; i < rounds; i++) {
        s[i] = (struct sample){.batch = batch, .bare_first = i % 2 == 1};
        pair(b, fd, size, depth, &s[i]);
        batch = s[i].batch;
    }
    qsort(s, rounds, sizeof s[0], compare);
    printf("%7zu %6zu %10.0f %10.0f %10.0f %9.1f %7.2f %7.2f..%.2f %7.2f\n", size, depth,
           s[rounds / 2].batch, s[rounds / 2].wal_syncs, s[rounds / 2].bare_syncs,
           s[rounds / 2].wal_bytes / 1e6, s[rounds / 2].ratio, s[rounds / 4].ratio,
           s[rounds - 1 - rounds / 4].ratio, s[rounds / 2].cpu);
    (void)fflush(stdout); /* for who looks on */
}

int main(int argc, char **argv)
{
    const char *base = getenv("TMPDIR");
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct bns_wal_config cfg = {.segment_bytes_max = 16u << 20, .reserve_bytes = 64u << 20};
    struct bench b = {0};
    struct bns_err err;
    char dir[256], wal_dir[300];
    double start;
    int fd;

    (void)snprintf(dir, sizeof dir, "%s/bns-bench-wal-XXXXXX",
                   argc > 1       ? argv[1]
                   : base != NULL ? base
                                  : "/tmp");
    if (vfs == NULL || mkdtemp(dir) == NULL)
        die("no directory");
    fd = bare_open(dir);
    (void)snprintf(wal_dir, sizeof wal_dir, "%s/wal", dir);
    cfg.dir = wal_dir;
    if (bns_env_uv_new(bns_alloc_libc(), vfs, &b.env, &err) != BNS_OK)
        die(err.text);
    start = now(CLOCK_MONOTONIC);
    if (bns_wal_open(b.env, &cfg, no_replay, NULL, &b.wal, &err) != BNS_OK)
        die(err.text);
    printf("new log opened in %.1f ms\n", (now(CLOCK_MONOTONIC) - start) * 1e3);
    printf("%7s %6s %10s %10s %10s %9s %7s %13s %7s\n", "bytes", "depth", "batch", "wal syn/s",
           "bare syn/s", "MB/s", "ratio", "quartiles", "cpu");
    for (size_t size = 128; size <= 16384; size = size == 128 ? 1024 : size * 4) {
        measure(&b, fd, size, 1);
        measure(&b, fd, size, DEPTH_MAX);
    }
    bns_wal_close(b.wal, closed, b.env);
    bns_env_uv_run(b.env);
    bns_env_uv_free(b.env);
    (void)close(fd);
    if (bns_vfs_list(vfs, wal_dir, remove_name, wal_dir, NULL) != 0)
        die("cannot remove the log");
    (void)rmdir(wal_dir);
    if (bns_vfs_list(vfs, dir, remove_name, dir, NULL) != 0)
        die("cannot remove the directory");
    (void)rmdir(dir);
    bns_vfs_posix_free(vfs);
    return 0;
}
