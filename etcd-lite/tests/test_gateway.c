/* test_gateway.c - the messages of every path of the JSON gateway go to JSON and come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway.h"
#include "tests/pb_json_trip.h"

static void messages_of_all_paths_come_back(void **state)
{
    size_t n;
    const struct bns_grpc_gateway_path *p = etcd_gateway_paths(&n);
    struct bns_prng prng;

    (void)state;
    bns_prng_seed(&prng, 3);
    assert_true(n > 40);
    for (size_t i = 0; i < n; i++) {
        print_message("  %s\n", p[i].path);
        for (int k = 0; k < 200; k++) {
            pb_json_trip(p[i].request, &prng);
            pb_json_trip(p[i].answer, &prng);
        }
    }
}

static void paths_differ(void **state)
{
    size_t n;
    const struct bns_grpc_gateway_path *p = etcd_gateway_paths(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        assert_true(strncmp(p[i].path, "/v3/", 4) == 0);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(p[i].path, p[k].path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_all_paths_come_back),
        cmocka_unit_test(paths_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
