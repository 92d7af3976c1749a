/* Goal:   what the server promises below its services.
 * Method: a server object of which only the part in question is set up, in a simulated world.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "server.h"
#include "sim/world.h"

static void fill(struct bns_env *env, uint64_t *ids, size_t count)
{
    struct etcd_server s = {.env = env};
    struct etcd_member self = {.id = UINT64_C(0xabcd)};
    struct etcd_options opt = {.self = &self};

    s.opt = &opt;
    assert_int_equal(etcd_request_ids(&s, NULL), BNS_OK);
    for (size_t i = 0; i < count; i++)
        ids[i] = etcd_request_id(&s);
}

static int start(struct bns_env *env, unsigned id, void *arg)
{
    uint64_t(*ids)[1000] = arg;

    /* two lives at the same time of the same clock, and two members alike in their low bits */
    fill(env, ids[2 * id], 1000);
    fill(env, ids[2 * id + 1], 1000);
    return BNS_OK;
}

static void ids_of_requests_never_meet(void **state)
{
    static uint64_t ids[4][1000];
    const struct bns_node_main main = {.start = start, .arg = ids};
    struct bns_world_config cfg = bns_world_calm(2);
    struct bns_world *w = NULL;
    (void)state;

    assert_int_equal(bns_world_new(1, &cfg, &w), BNS_OK);
    bns_world_start(w, 0, &main);
    bns_world_start(w, 1, &main);
    assert_null(bns_world_run(w, BNS_SEC, NULL, NULL));
    for (size_t i = 0; i < 4000; i++) {
        assert_true(ids[i / 1000][i % 1000] != 0);
        for (size_t k = 0; k < i; k++)
            assert_true(ids[i / 1000][i % 1000] != ids[k / 1000][k % 1000]);
    }
    bns_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_requests_never_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
