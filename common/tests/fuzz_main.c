/* fuzz_main.c - runs a fuzz target without libFuzzer: replays a corpus, then mutates it for a
 * while.
 *
 *   fuzz_x DIR...             every file of the directories, then BNS_FUZZ_MS (1000) ms of mutants
 *   BNS_SEED=0x1f2e fuzz_x .. the same mutants again, in the same order
 *
 * A mutant is a corpus file (or nothing) after 1..8 steps out of: flip a bit, set a byte to a value
 * that parsers trip over, cut a range, insert random bytes, repeat a range, splice with another
 * file. A directory that is missing or empty counts as holding the empty input. On a crash the
 * input is written to crash-<seed>-<run>.bin in the working directory.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/prng.h"
#include "fuzz.h"

#define INPUT_MAX ((size_t)1 << 16)
#define FILES_MAX 4096u

struct corpus {
    struct bns_buf file[FILES_MAX];
    size_t count;
};

static struct {
    uint8_t bytes[INPUT_MAX];
    size_t len;
    uint64_t seed;
    uint64_t run;
} now; /* what runs at this moment: for the crash report */

/* Present when a sanitizer is linked in; it ends the process without a signal. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void save_input(void)
{
    static const char text[] = "fuzz: the input that failed is in crash-<seed>-<run>.bin\n";
    char name[64];
    FILE *f;

    (void)snprintf(name, sizeof name, "crash-%llx-%llu.bin", (unsigned long long)now.seed,
                   (unsigned long long)now.run);
    f = fopen(name, "wb");
    if (f != NULL) {
        (void)fwrite(now.bytes, 1, now.len, f);
        (void)fclose(f);
    }
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
}

static void on_crash(int number)
{
    (void)number;
    save_input();
    _exit(77);
}

static void run_one(const uint8_t *ptr, size_t len)
{
    uint8_t *exact = malloc(len == 0 ? 1 : len); /* its own block: a sanitizer sees overreads */

    if (exact == NULL)
        exit(2);
    if (len > 0)
        memcpy(exact, ptr, len);
    memmove(now.bytes, exact, len);
    now.len = len;
    now.run++;
    (void)LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

static void load_file(struct corpus *c, const char *path)
{
    struct bns_buf *b = &c->file[c->count];
    uint8_t chunk[4096];
    FILE *f = fopen(path, "rb");
    size_t n;

    if (f == NULL)
        return;
    bns_buf_init(b, bns_alloc_libc(), INPUT_MAX);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) {
        if (bns_buf_add(b, chunk, n) != BNS_OK)
            break; /* longer than an input may be: its head will do */
    }
    (void)fclose(f);
    c->count++;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, so that a seed means the same mutants on every file system. */
static void load_dir(struct corpus *c, const char *dir)
{
    static char *names[FILES_MAX];
    size_t count = 0;
    DIR *d = opendir(dir);
    struct dirent *e;

    if (d == NULL)
        return;
    while (count < FILES_MAX && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        if (asprintf(&names[count], "%s/%s", dir, e->d_name) < 0)
            exit(2);
        count++;
    }
    (void)closedir(d);
    qsort(names, count, sizeof names[0], by_name);
    for (size_t i = 0; i < count; i++) {
        if (c->count < FILES_MAX)
            load_file(c, names[i]);
        free(names[i]);
    }
}

static void insert(uint8_t *in, size_t *len, size_t at, size_t n)
{
    if (n > INPUT_MAX - *len)
        n = INPUT_MAX - *len;
    memmove(in + at + n, in + at, *len - at);
    *len += n;
}

static void mutate(struct bns_prng *p, const struct corpus *c, uint8_t *in, size_t *len)
{
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, '\r', '\n', ':', '"', '{', '[', '-', '%'};
    size_t at = (size_t)bns_prng_below(p, *len + 1);
    size_t left = *len - at;
    size_t n = (size_t)bns_prng_range(p, 1, bns_prng_chance(p, 0.9) ? 8 : 1024);
    size_t before = *len;

    switch (bns_prng_below(p, 6)) {
    case 0:
        if (left > 0)
            in[at] ^= (uint8_t)(1u << bns_prng_below(p, 8));
        break;
    case 1:
        if (left > 0)
            in[at] = odd[bns_prng_below(p, sizeof odd)];
        break;
    case 2:
        n = n < left ? n : left;
        memmove(in + at, in + at + n, left - n);
        *len -= n;
        break;
    case 3:
        insert(in, len, at, n);
        for (size_t i = 0; i < *len - before; i++)
            in[at + i] = (uint8_t)bns_prng_next(p);
        break;
    case 4: /* repeat what stands here */
        n = n < left ? n : left;
        insert(in, len, at, n);
        break;
    default:
        if (c->count > 0) {
            const struct bns_buf *o = &c->file[bns_prng_below(p, c->count)];
            size_t from = (size_t)bns_prng_below(p, o->len + 1);
            n = o->len - from < INPUT_MAX - at ? o->len - from : INPUT_MAX - at;
            if (n > 0)
                memcpy(in + at, o->ptr + from, n);
            *len = at + n;
        }
        break;
    }
}

static uint64_t elapsed_ms(const struct timespec *from)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return (uint64_t)((t.tv_sec - from->tv_sec) * 1000 + (t.tv_nsec - from->tv_nsec) / 1000000);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 0);
}

int main(int argc, char **argv)
{
    static struct corpus c;
    static uint8_t in[INPUT_MAX];
    const struct sigaction act = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};
    uint64_t ms = number_from("BNS_FUZZ_MS", 1000);
    struct timespec start;
    struct bns_prng p;

    (void)sigaction(SIGABRT, &act, NULL); /* without it a crash only loses its report */
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(save_input);
    else
        (void)sigaction(SIGSEGV, &act, NULL);
    now.seed = number_from("BNS_SEED", 1);
    bns_prng_seed(&p, now.seed);
    for (int i = 1; i < argc; i++)
        load_dir(&c, argv[i]);
    run_one(NULL, 0);
    for (size_t i = 0; i < c.count; i++)
        run_one(c.file[i].ptr, c.file[i].len);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    while (elapsed_ms(&start) < ms) {
        for (int i = 0; i < 64; i++) {
            size_t len = 0;
            if (c.count > 0) {
                const struct bns_buf *b = &c.file[bns_prng_below(&p, c.count)];
                len = b->len;
                if (len > 0)
                    memcpy(in, b->ptr, len);
            }
            for (uint64_t steps = bns_prng_range(&p, 1, 8); steps > 0; steps--)
                mutate(&p, &c, in, &len);
            run_one(in, len);
        }
    }
    printf("%zu files, %llu runs, seed=0x%llx\n", c.count, (unsigned long long)now.run,
           (unsigned long long)now.seed);
    for (size_t i = 0; i < c.count; i++)
        bns_buf_free(&c.file[i]);
    return 0;
}
