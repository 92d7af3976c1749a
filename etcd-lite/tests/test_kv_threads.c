/* test_kv_threads.c - loop and worker at full speed on real files, for the thread sanitizer.
 * ctest: labels=threads timeout=120 */
#include "kv_load.h"

static void load_with_a_cache(void **state)
{
    static struct load l;

    (void)state;
    memset(&l, 0, sizeof l);
    l.puts_max = 20 * 64 * 10;
    l.reads_per_batch = 8;
    load_run(&l, &(struct etcd_kv_config){.dir = NULL});
}

/* Every read goes to the worker, and applies pause for a queue of a few kilobytes. */
static void load_without_a_cache(void **state)
{
    static struct load l;

    (void)state;
    memset(&l, 0, sizeof l);
    l.puts_max = 20 * 64 * 10;
    l.reads_per_batch = 8;
    load_run(&l, &(struct etcd_kv_config){.cache_bytes = 1, .queue_bytes = 4096, .read_bytes = 1});
    assert_true(l.checkpoints > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_with_a_cache),
        cmocka_unit_test(load_without_a_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
