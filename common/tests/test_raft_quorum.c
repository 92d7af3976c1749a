/* Goal:   majority arithmetic is right, joint configurations included.
 * Method: brute force. A value v is reached when the voters that have >= v are a majority of each
 *         half; the best v is found by trying all. Votes: every assignment of none/yes/no is tried
 *         against the definition "some completion of the open votes wins".
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/prng.h"
#include "proto/quorum.h"

struct values {
    uint64_t of[16]; /* by id */
};

static uint64_t value_of(const void *arg, uint64_t id)
{
    return ((const struct values *)arg)->of[id];
}

static bool majority(const uint64_t *ids, size_t n, const struct values *v, uint64_t least)
{
    size_t have = 0;
    for (size_t i = 0; i < n; i++)
        have += v->of[ids[i]] >= least;
    return n == 0 || have > n / 2;
}

static void make(struct bns_raft_conf *c, unsigned voters, unsigned old)
{
    memset(c, 0, sizeof *c);
    for (unsigned id = 1; id <= 7; id++) {
        if ((voters >> (id - 1) & 1) != 0)
            c->voters[c->voters_count++] = id;
        if ((old >> (id - 1) & 1) != 0)
            c->voters_old[c->voters_old_count++] = id;
    }
}

static void reached_equals_brute_force_up_to_seven_joint_voters(void **state)
{
    struct bns_prng p;
    struct bns_raft_conf c;
    (void)state;
    bns_prng_seed(&p, 1);
    for (unsigned voters = 1; voters < 128; voters++) {
        for (unsigned old = 0; old < 128; old++) {
            struct values v = {{0}};
            uint64_t best = 0;
            make(&c, voters, old);
            for (unsigned id = 1; id <= 7; id++)
                v.of[id] = bns_prng_below(&p, 6);
            for (uint64_t k = 0; k < 6; k++)
                if (majority(c.voters, c.voters_count, &v, k) &&
                    majority(c.voters_old, c.voters_old_count, &v, k))
                    best = k;
            assert_true(bns_quorum_reached(&c, value_of, &v) == best);
        }
    }
}

static void without_voters_everything_is_reached(void **state)
{
    struct bns_raft_conf c = {0};
    struct values v = {{0}};
    (void)state;
    assert_true(bns_quorum_reached(&c, value_of, &v) == UINT64_MAX);
    assert_int_equal(bns_quorum_votes(&c, value_of, &v), BNS_QUORUM_WON);
}

static bool wins(const struct bns_raft_conf *c, const struct values *v, bool open_say_yes)
{
    struct values w = *v;
    for (size_t id = 1; id <= 7; id++) {
        if (w.of[id] == BNS_VOTE_NONE && open_say_yes)
            w.of[id] = BNS_VOTE_YES;
        w.of[id] = w.of[id] == BNS_VOTE_YES;
    }
    return majority(c->voters, c->voters_count, &w, 1) &&
           majority(c->voters_old, c->voters_old_count, &w, 1);
}

static void votes_equal_brute_force(void **state)
{
    static const struct {
        unsigned voters, old;
    } t[] = {{1, 0}, {3, 0}, {7, 0}, {15, 0}, {31, 0}, {127, 0}, {7, 14}, {31, 7}, {3, 96}};
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_conf c;
        make(&c, t[i].voters, t[i].old);
        for (unsigned code = 0; code < 2187; code++) { /* 3^7 */
            struct values v = {{0}};
            unsigned rest = code;
            enum bns_quorum_result expect = BNS_QUORUM_PENDING;
            for (unsigned id = 1; id <= 7; id++, rest /= 3)
                v.of[id] = rest % 3;
            if (wins(&c, &v, false))
                expect = BNS_QUORUM_WON;
            else if (!wins(&c, &v, true))
                expect = BNS_QUORUM_LOST;
            assert_int_equal(bns_quorum_votes(&c, value_of, &v), expect);
        }
    }
}

static void configurations_are_validated(void **state)
{
    static const struct {
        const char *name;
        struct bns_raft_conf c;
        bool ok;
    } t[] = {
        {"one voter", {.voters = {1}, .voters_count = 1}, true},
        {"no voter", {.learners = {1}, .learners_count = 1}, false},
        {"id zero", {.voters = {0, 1}, .voters_count = 2}, false},
        {"twice", {.voters = {1, 1}, .voters_count = 2}, false},
        {"not sorted", {.voters = {2, 1}, .voters_count = 2}, false},
        {"voter and learner",
         {.voters = {1, 2}, .voters_count = 2, .learners = {2}, .learners_count = 1},
         false},
        {"joint, overlapping",
         {.voters = {1, 2}, .voters_count = 2, .voters_old = {2, 3}, .voters_old_count = 2},
         true},
        {"count beyond the array", {.voters = {1}, .voters_count = 17}, false},
        {"old not sorted",
         {.voters = {1}, .voters_count = 1, .voters_old = {3, 2}, .voters_old_count = 2},
         false},
        {"learners not sorted",
         {.voters = {1}, .voters_count = 1, .learners = {3, 2}, .learners_count = 2},
         false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        print_message("  %s\n", t[i].name);
        assert_int_equal(bns_raft_conf_valid(&t[i].c), t[i].ok);
    }
}

static void seventeen_members_are_one_too_many(void **state)
{
    struct bns_raft_conf c = {.voters_count = 16, .learners_count = 1, .learners = {99}};
    uint64_t ids[BNS_RAFT_PEERS_MAX];
    (void)state;
    for (uint64_t i = 0; i < 16; i++)
        c.voters[i] = i + 1;
    assert_false(bns_raft_conf_valid(&c));
    c.voters_count = 15;
    assert_true(bns_raft_conf_valid(&c));
    assert_int_equal(bns_raft_conf_members(&c, ids), 16);
    assert_true(ids[0] == 1 && ids[14] == 15 && ids[15] == 99);
    assert_true(bns_raft_conf_is_learner(&c, 99) && !bns_raft_conf_is_voter(&c, 99));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reached_equals_brute_force_up_to_seven_joint_voters),
        cmocka_unit_test(without_voters_everything_is_reached),
        cmocka_unit_test(votes_equal_brute_force),
        cmocka_unit_test(configurations_are_validated),
        cmocka_unit_test(seventeen_members_are_one_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
