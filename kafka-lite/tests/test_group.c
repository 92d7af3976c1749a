/* test_group.c - the classic coordinator: members, rounds, static members, limits.
 *
 * Expected codes are those of Apache Kafka 4.3.1. Time is virtual.
 */
#include "group_kit.h"

static void the_first_round_of_two_members(void **state)
{
    struct kit *k = kit_new();
    struct kit_answer *a, *b, *s, *f;
    char la[128], lb[128];

    (void)state;
    k->cfg.initial_delay_ms = 3000;
    kafka_groups_free(k->g);
    assert_int_equal(kit_make(k), BNS_OK);
    a = kit_enter(k);
    kit_wait(k, 2000);
    b = kit_enter(k); /* within the delay, which begins again */
    kit_wait(k, 2500);
    assert_false(a->came);
    kit_wait(k, 2000);
    assert_true(a->came && b->came);
    assert_int_equal(a->error, 0);
    assert_int_equal(a->generation, 1);
    assert_string_equal(a->leader, a->id);
    assert_string_equal(b->leader, a->id);
    assert_int_equal(a->members, 2);
    assert_int_equal(b->members, 0);
    assert_string_equal(a->protocol, "range");
    assert_string_equal(a->type, "consumer");
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_COMPLETING);
    assert_int_equal(kit_beat(k, a->id, 1), 0);

    f = kit_sync(k, b->id, 1, NULL, NULL);
    assert_false(f->came);
    (void)snprintf(la, sizeof la, "%s=left", a->id);
    (void)snprintf(lb, sizeof lb, "%s=right", b->id);
    k->at_once = false;
    s = kit_sync(k, a->id, 1, la, lb);
    assert_false(s->came || f->came); /* not before it is durable */
    assert_true(kit_write(k, 0));
    assert_true(s->came && f->came);
    assert_string_equal(s->assignment, "left");
    assert_string_equal(f->assignment, "right");
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_STABLE);
    kit_free(k);
}

/* Two members in a Stable group of generation 1; their ids go to `id`. */
static struct kit *stable(char id[2][64], const char *instance)
{
    struct kit *k = kit_new();
    struct kit_answer *a, *b;
    char l[128];

    k->cfg.initial_delay_ms = 10;
    kafka_groups_free(k->g);
    assert_int_equal(kit_make(k), BNS_OK);
    a = kit_join(k, (struct kit_join){.id = "", .version = 3, .instance = instance});
    b = kit_enter(k);
    kit_wait(k, 30);
    assert_true(a->came && b->came && a->error == 0 && b->error == 0);
    (void)snprintf(id[0], 64, "%s", a->id);
    (void)snprintf(id[1], 64, "%s", b->id);
    (void)snprintf(l, sizeof l, "%s=left", a->id);
    (void)kit_sync(k, id[0], 1, l, NULL);
    assert_int_equal(kit_sync(k, id[1], 1, NULL, NULL)->error, 0);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_STABLE);
    return k;
}

static void every_refusal_has_kafkas_code(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    static const struct {
        const char *name;
        struct kit_join j;
        int16_t error;
    } joins[] = {
        {"session too short", {.id = "", .session_ms = 5999}, 26},
        {"session too long", {.id = "", .session_ms = 1800001}, 26},
        {"no such member", {.id = "who"}, 25},
        {"no protocol in common", {.id = "", .protocols = "sticky"}, 23},
        {"another type", {.id = "", .type = "connect"}, 23},
        {"an id first", {.id = "", .version = 4}, 79},
        {"an instance that is not there", {.id = "x", .instance = "i"}, 25},
    };

    (void)state;
    for (size_t i = 0; i < sizeof joins / sizeof joins[0]; i++) {
        struct kit_answer *a = kit_join(k, joins[i].j);
        print_message("  %s\n", joins[i].name);
        assert_true(a->came);
        assert_int_equal(a->error, joins[i].error);
        assert_int_equal(a->generation, -1);
    }
    assert_int_equal(kit_sync(k, id[0], 2, NULL, NULL)->error, 22);
    assert_int_equal(kit_sync(k, "who", 1, NULL, NULL)->error, 25);
    assert_int_equal(kit_beat(k, id[0], 2), 22);
    assert_int_equal(kit_beat(k, "who", 1), 25);
    assert_int_equal(kit_leave(k, "who"), 25);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_STABLE);
    assert_int_equal(kit_beat(k, id[0], 1), 0);
    kit_free(k);
}

static void a_newcomer_makes_the_others_join_again(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kit_answer *c = kit_enter(k), *a, *b;

    (void)state;
    assert_false(c->came);
    assert_int_equal(kit_beat(k, id[0], 1), 27);
    assert_int_equal(kit_sync(k, id[0], 1, NULL, NULL)->error, 27);
    a = kit_join(k, (struct kit_join){.id = id[0]});
    b = kit_join(k, (struct kit_join){.id = id[1]});
    assert_true(a->came && b->came && c->came);
    assert_int_equal(c->generation, 2);
    assert_string_equal(c->leader, id[0]); /* who leads goes on */
    assert_int_equal(a->members, 3);
    assert_int_equal(kit_beat(k, id[1], 1), 22);
    kit_free(k);
}

static void a_follower_that_asks_again_disturbs_nobody_and_the_leader_does(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kit_answer *b = kit_join(k, (struct kit_join){.id = id[1]}), *a;

    (void)state;
    assert_true(b->came);
    assert_int_equal(b->error, 0);
    assert_int_equal(b->generation, 1);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_STABLE);
    b = kit_join(k, (struct kit_join){.id = id[1], .metadata = "more"});
    assert_false(b->came);
    a = kit_join(k, (struct kit_join){.id = id[0]});
    assert_true(a->came && b->came);
    assert_int_equal(a->generation, 2);
    a = kit_join(k, (struct kit_join){.id = id[0]}); /* its answer was lost */
    assert_int_equal(a->generation, 2);
    assert_int_equal(a->members, 2);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_COMPLETING);
    a = kit_join(k, (struct kit_join){.id = id[0], .metadata = "other"});
    assert_false(a->came);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_PREPARING);
    kit_free(k);
}

static void who_is_silent_is_out(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kit_answer *b;

    (void)state;
    for (int i = 0; i < 4; i++) {
        kit_wait(k, 3000);
        (void)kit_beat(k, id[1], 1);
    }
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_PREPARING);
    assert_int_equal(kit_beat(k, id[0], 1), 25);
    b = kit_join(k, (struct kit_join){.id = id[1]});
    assert_true(b->came);
    assert_int_equal(b->generation, 2);
    assert_string_equal(b->leader, id[1]);
    kit_wait(k, 70000); /* it never syncs */
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_EMPTY);
    assert_int_equal(kit_view(k).generation, 3);
    kit_free(k);
}

static void joining_ends_with_the_longest_rebalance_timeout(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kit_answer *c = kit_enter(k);

    (void)state;
    for (int i = 0; i < 9; i++) { /* they say that they are there, and do not join */
        kit_wait(k, 6000);
        (void)kit_beat(k, id[0], 1);
        (void)kit_beat(k, id[1], 1);
        assert_false(c->came);
    }
    kit_wait(k, 6100);
    assert_true(c->came);
    assert_int_equal(c->generation, 2);
    assert_int_equal(c->members, 1);
    assert_int_equal(kit_beat(k, id[0], 1), 25);
    kit_free(k);
}

static void an_id_that_nobody_uses_holds_a_round_up_until_its_session_ends(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kit_answer *a, *b, *c = kit_join(k, (struct kit_join){.id = "", .version = 4});

    (void)state;
    assert_int_equal(c->error, 79);
    assert_true(strlen(c->id) > 0);
    a = kit_join(k, (struct kit_join){.id = id[0]});
    b = kit_join(k, (struct kit_join){.id = id[1]});
    assert_false(a->came || b->came);
    kit_wait(k, 10100);
    assert_true(a->came && b->came);
    c = kit_join(k, (struct kit_join){.id = c->id});
    assert_int_equal(c->error, 25);
    c = kit_join(k, (struct kit_join){.id = "", .version = 4});
    c = kit_join(k, (struct kit_join){.id = c->id, .version = 4});
    assert_false(c->came); /* it is in, and waits for the others */
    kit_free(k);
}

static void a_leave_is_seen_at_once(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kit_answer *b;

    (void)state;
    assert_int_equal(kit_leave(k, id[0]), 0);
    assert_int_equal(kit_beat(k, id[1], 1), 27);
    b = kit_join(k, (struct kit_join){.id = id[1]});
    assert_true(b->came);
    assert_string_equal(b->leader, id[1]);
    assert_int_equal(kit_leave(k, id[1]), 0);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_EMPTY);
    assert_int_equal(kit_beat(k, id[1], 2), 25);
    kit_free(k);
}

static void a_static_member_comes_back_unnoticed(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, "i1");
    struct kit_answer *a = kit_join(k, (struct kit_join){.id = "", .instance = "i1"});

    (void)state;
    assert_true(a->came);
    assert_int_equal(a->error, 0);
    assert_int_equal(a->generation, 1);
    assert_string_equal(a->leader, id[0]); /* not told that it leads: it cannot skip */
    assert_string_not_equal(a->id, id[0]);
    assert_int_equal(a->members, 0);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_STABLE);
    assert_int_equal(kit_beat(k, id[0], 1), 25);
    assert_int_equal(kit_join(k, (struct kit_join){.id = id[0], .instance = "i1"})->error, 82);
    assert_string_equal(kit_sync(k, a->id, 1, NULL, NULL)->assignment, "left");
    a = kit_join(k, (struct kit_join){.id = "", .instance = "i1", .version = 9});
    assert_true(a->skip);
    assert_string_equal(a->leader, a->id);
    assert_int_equal(a->members, 2);
    kit_crash(k);
    assert_int_equal(kit_beat(k, a->id, 1), 0);
    kit_free(k);
}

static void a_static_member_whose_return_cannot_be_written_stays_who_it_was(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, "i1");
    struct kit_answer *a;

    (void)state;
    k->at_once = false;
    a = kit_join(k, (struct kit_join){.id = "", .instance = "i1"});
    assert_false(a->came);
    assert_true(kit_write(k, 56));
    assert_int_equal(a->error, 16);
    assert_int_equal(kit_beat(k, id[0], 1), 0);
    kit_free(k);
}

static void a_static_member_may_be_silent_through_a_round(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, "i1");
    struct kit_answer *b = kit_join(k, (struct kit_join){.id = id[1], .metadata = "x"});

    (void)state;
    for (int i = 0; i < 10 && !b->came; i++) {
        kit_wait(k, 6100);
        (void)kit_beat(k, id[0], 1);
    }
    assert_true(b->came); /* the rebalance timeout: it stays, and no longer leads */
    assert_string_equal(b->leader, id[1]);
    assert_int_equal(b->members, 2);
    kit_free(k);
}

static void an_admin_removes_by_instance(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, "i1");
    struct kafka_leaver l[3] = {{BNS_LIT(""), BNS_LIT("i1"), 0},
                                {BNS_LIT(""), BNS_LIT("i2"), 0},
                                {bns_slice_str(id[1]), BNS_LIT("i1"), 0}};

    (void)state;
    assert_int_equal(kafka_groups_leave(k->g, BNS_LIT("g"), l, 3), 0);
    assert_int_equal(l[0].error, 0);
    assert_int_equal(l[1].error, 25);
    assert_int_equal(l[2].error, 25);
    assert_int_equal(kafka_groups_leave(k->g, BNS_LIT("nobody"), l, 1), 0);
    assert_int_equal(l[0].error, 25);
    kit_free(k);
}

static void the_protocol_is_the_one_most_vote_for_of_those_all_have(void **state)
{
    struct kit *k = kit_new();
    struct kit_answer *a[3];

    (void)state;
    k->cfg.initial_delay_ms = 10;
    kafka_groups_free(k->g);
    assert_int_equal(kit_make(k), BNS_OK);
    a[0] = kit_join(k, (struct kit_join){.id = "", .version = 3, .protocols = "only,x,y"});
    a[1] = kit_join(k, (struct kit_join){.id = "", .version = 3, .protocols = "y,x"});
    a[2] = kit_join(k, (struct kit_join){.id = "", .version = 3, .protocols = "y,x,z"});
    kit_wait(k, 40);
    for (int i = 0; i < 3; i++)
        assert_string_equal(a[i]->protocol, "y");
    kit_free(k);
}

static void a_group_is_not_larger_than_it_may_be(void **state)
{
    struct kit *k = kit_new();
    struct kit_answer *a, *b, *c;

    (void)state;
    k->cfg.size_max = 2;
    k->cfg.initial_delay_ms = 10;
    kafka_groups_free(k->g);
    assert_int_equal(kit_make(k), BNS_OK);
    a = kit_enter(k);
    b = kit_enter(k);
    c = kit_enter(k);
    assert_int_equal(c->error, 81);
    assert_string_equal(c->id, "");
    kit_wait(k, 30);
    assert_true(a->came && b->came);
    assert_int_equal(kit_enter(k)->error, 81);
    kit_free(k);
}

static void an_assignment_that_cannot_be_written_is_not_given_out(void **state)
{
    struct kit *k = kit_new();
    struct kit_answer *a = kit_enter(k), *s;

    (void)state;
    k->at_once = false;
    kit_wait(k, 10);
    s = kit_sync(k, a->id, 1, NULL, NULL);
    assert_true(kit_write(k, 56));
    assert_true(s->came);
    assert_int_equal(s->error, 16);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_PREPARING);
    kit_free(k);
}

static void a_crash_forgets_the_round_under_way_and_nothing_else(void **state)
{
    char id[2][64];
    struct kit *k = stable(id, NULL);
    struct kafka_group_view v;

    (void)state;
    (void)kit_join(k, (struct kit_join){.id = id[0]});
    assert_int_equal(kit_join(k, (struct kit_join){.id = id[1]})->generation, 2);
    kit_crash(k);
    v = kit_view(k);
    assert_int_equal(v.state, KAFKA_GROUP_STABLE);
    assert_int_equal(v.generation, 1);
    assert_int_equal(v.members, 2);
    assert_int_equal(kit_beat(k, id[0], 2), 22);
    assert_string_equal(kit_sync(k, id[0], 1, NULL, NULL)->assignment, "left");
    kit_wait(k, 200000); /* nobody is heard of */
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_EMPTY);
    kit_crash(k);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_EMPTY);
    assert_true(kit_view(k).generation >= 2);
    kit_free(k);
}

static void the_partition_of_a_group_is_javas_hash(void **state)
{
    static const struct {
        const char *group;
        int32_t partition; /* Math.abs("...".hashCode()) % 50, as Java says */
    } t[] = {
        {"", 0},
        {"a", 47},
        {"console-consumer-12345", 6},
        {"gr\xc3\xbcppe", 12},
        {"\xf0\x9f\x98\x80-group", 43},
        {"polygenelubricants", 0}, /* its hash is INT_MIN */
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        assert_int_equal(kafka_groups_partition(bns_slice_str(t[i].group), 50), t[i].partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_round_of_two_members),
        cmocka_unit_test(every_refusal_has_kafkas_code),
        cmocka_unit_test(a_newcomer_makes_the_others_join_again),
        cmocka_unit_test(a_follower_that_asks_again_disturbs_nobody_and_the_leader_does),
        cmocka_unit_test(who_is_silent_is_out),
        cmocka_unit_test(joining_ends_with_the_longest_rebalance_timeout),
        cmocka_unit_test(an_id_that_nobody_uses_holds_a_round_up_until_its_session_ends),
        cmocka_unit_test(a_leave_is_seen_at_once),
        cmocka_unit_test(a_static_member_comes_back_unnoticed),
        cmocka_unit_test(a_static_member_whose_return_cannot_be_written_stays_who_it_was),
        cmocka_unit_test(a_static_member_may_be_silent_through_a_round),
        cmocka_unit_test(an_admin_removes_by_instance),
        cmocka_unit_test(the_protocol_is_the_one_most_vote_for_of_those_all_have),
        cmocka_unit_test(a_group_is_not_larger_than_it_may_be),
        cmocka_unit_test(an_assignment_that_cannot_be_written_is_not_given_out),
        cmocka_unit_test(a_crash_forgets_the_round_under_way_and_nothing_else),
        cmocka_unit_test(the_partition_of_a_group_is_javas_hash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
