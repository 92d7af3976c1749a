/* bench_kv.c - what one member's store does a second, without log and network: puts of 256 bytes
 * in batches of 64, and single-key reads, from memory and from SQLite. */
#include <time.h>

#include "kv_load.h"

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void one(const char *name, uint64_t puts, uint64_t reads_per_batch, uint64_t cache)
{
    static struct load l;
    double t;

    memset(&l, 0, sizeof l);
    l.puts_max = puts;
    l.reads_per_batch = reads_per_batch;
    t = seconds();
    load_run(&l, &(struct etcd_kv_config){.cache_bytes = cache});
    t = seconds() - t;
    print_message("%-34s %9.0f puts/s %9.0f reads/s\n", name, (double)l.puts / t,
                  (double)l.reads / t);
}

static void bench(void **state)
{
    (void)state;
    one("puts only", 6400 * 40, 0, 0);
    one("puts and reads, from memory", 6400 * 5, 640, 0);
    one("puts and reads, from SQLite", 6400 * 5, 64, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bench)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
