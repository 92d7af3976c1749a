/* Goal:   a quorum that agrees decides who is odd; without one nobody is accused by name.
 * Method: tables of what members say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "corrupt.h"

static void odd_members_are_those_outside_a_quorum(void **state)
{
    /* hash 0 = no answer; compacted: 5 everywhere but where `apart` says */
    static const struct {
        const char *name;
        uint32_t hash[5];
        size_t members;
        size_t apart; /* a member with another compacted revision; 0 = none */
        size_t odd_count;
        uint64_t odd[3];
    } t[] = {
        {"all agree", {7, 7, 7}, 3, 0, 0, {0}},
        {"one follower differs", {7, 8, 7}, 3, 0, 1, {2}},
        {"the one that asks differs", {8, 7, 7}, 3, 0, 1, {1}},
        {"two that differ from each other", {7, 7, 7, 8, 9}, 5, 0, 2, {4, 5}},
        {"two that agree with each other", {8, 8, 7, 7, 7}, 5, 0, 2, {1, 2}},
        {"all differ", {7, 8, 9}, 3, 0, 1, {0}},
        {"two members", {7, 8}, 2, 0, 1, {0}},
        {"one does not answer, two differ", {7, 8, 0}, 3, 0, 1, {0}},
        {"one does not answer, two agree", {7, 7, 0}, 3, 0, 0, {0}},
        {"half of four", {7, 7, 8, 8}, 4, 0, 1, {0}},
        {"nobody answers", {7, 0, 0}, 3, 0, 0, {0}},
        {"another history is not compared", {7, 7, 8}, 3, 3, 0, {0}},
        {"alone", {7}, 1, 0, 0, {0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct etcd_corrupt_vote v[5] = {0};
        uint64_t odd[ETCD_CORRUPT_MEMBERS_MAX];

        print_message("  %s\n", t[i].name);
        for (size_t k = 0; k < t[i].members; k++)
            v[k] = (struct etcd_corrupt_vote){.id = k + 1,
                                              .known = t[i].hash[k] != 0,
                                              .hash = t[i].hash[k],
                                              .compacted = k + 1 == t[i].apart ? 6 : 5};
        assert_int_equal(etcd_corrupt_judge(v, t[i].members, t[i].members, odd),
                         t[i].odd_count);
        for (size_t k = 0; k < t[i].odd_count; k++)
            assert_true(odd[k] == t[i].odd[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_members_are_those_outside_a_quorum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
