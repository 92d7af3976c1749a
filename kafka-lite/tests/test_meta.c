/* Goal:   the metadata answers as it should, tells of each change once, and has it after a restart.
 * Method: one node in a calm virtual world; requests one by one and many at once.
 */
#include "meta_kit.h"

static bool same_id(const struct kafka_uuid *a, const struct kafka_uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static void a_created_topic_is_there_after_a_restart(void **state)
{
    struct kafka_uuid id;

    (void)state;
    kit_open(1);
    assert_int_equal(kit_create("t", 3, &id), 0);
    assert_string_equal(kit.changes, "new t 3;");
    assert_int_equal(kit_create("t", 3, NULL), 36);
    bns_world_power_cut(kit.w, 0);
    kit_run_ms(10);
    kit_up();
    assert_non_null(kit_topic("t"));
    assert_true(same_id(&kit_topic("t")->id, &id));
    assert_int_equal(kit_topic("t")->partitions_count, 3);
    assert_int_equal(kit_topic("t")->partitions[2].leader, KIT_NODE);
    assert_ptr_equal(kafka_image_topic_by_id(kafka_meta_image(kit.meta), &id), kit_topic("t"));
    assert_string_equal(kit.changes, "new t 3;"); /* what was there before is not told again */
    kit_close();
}

static void a_name_that_is_made_again_has_another_id(void **state)
{
    struct kafka_uuid first, second;

    (void)state;
    kit_open(2);
    assert_int_equal(kit_create("t", 1, &first), 0);
    assert_int_equal(kit_delete("t"), 0);
    assert_int_equal(kit_delete("t"), 3);
    assert_null(kit_topic("t"));
    assert_int_equal(kit_create("t", 2, &second), 0);
    assert_false(same_id(&first, &second));
    assert_null(kafka_image_topic_by_id(kafka_meta_image(kit.meta), &first));
    assert_string_equal(kit.changes, "new t 1;gone t 1;new t 2;");
    kit_close();
}

static void requests_at_once_are_answered_as_if_one_by_one(void **state)
{
    struct kafka_create_topics_request_topics t[3] = {
        {.name = BNS_LIT("a.b")}, {.name = BNS_LIT("a_b")}, {.name = BNS_LIT("c")}};
    struct kafka_create_topics_request q[3];
    struct bns_slice gone[1] = {BNS_LIT("a.b")};
    struct kafka_delete_topics_request del = {.topic_names = {gone, 1}};
    struct kit_op *o[8];

    (void)state;
    kit_open(3);
    for (int i = 0; i < 3; i++) {
        t[i].num_partitions = t[i].replication_factor = -1;
        q[i] = (struct kafka_create_topics_request){.topics = {&t[i], 1}};
    }
    o[0] = kit_ask(KAFKA_OP_CREATE_TOPICS, &q[0]);
    o[1] = kit_ask(KAFKA_OP_CREATE_TOPICS, &q[2]);
    o[2] = kit_ask(KAFKA_OP_CREATE_TOPICS, &q[0]); /* exists */
    o[3] = kit_ask(KAFKA_OP_CREATE_TOPICS, &q[1]); /* collides */
    o[4] = kit_ask(KAFKA_OP_DELETE_TOPICS, &del);
    o[5] = kit_ask(KAFKA_OP_CREATE_TOPICS, &q[1]);
    o[6] = kit_ask(KAFKA_OP_PRODUCER_IDS, NULL);
    o[7] = kit_ask(KAFKA_OP_PRODUCER_IDS, NULL);
    for (int i = 0; i < 8; i++)
        kit_wait(o[i]);
    assert_int_equal(o[0]->a.created.topics.at[0].error_code, 0);
    assert_int_equal(o[1]->a.created.topics.at[0].error_code, 0);
    assert_int_equal(o[2]->a.created.topics.at[0].error_code, 36);
    assert_int_equal(o[3]->a.created.topics.at[0].error_code, 17);
    assert_int_equal(o[4]->a.deleted.responses.at[0].error_code, 0);
    assert_int_equal(o[5]->a.created.topics.at[0].error_code, 0);
    assert_int_equal(o[6]->a.ids.first, 0);
    assert_int_equal(o[7]->a.ids.first, KAFKA_PRODUCER_IDS_BLOCK);
    assert_int_equal(kafka_image_topics(kafka_meta_image(kit.meta)), 2);
    kit_close();
}

static struct kafka_incremental_alter_configs_response_responses change(const char *topic,
                                                                        const char *key, int8_t op,
                                                                        const char *value)
{
    struct kafka_incremental_alter_configs_request_configs c = {
        .name = bns_slice_str(key),
        .config_operation = op,
        .value = value != NULL ? bns_slice_str(value) : bns_slice(NULL, 0)};
    struct kafka_incremental_alter_configs_request_resources r = {
        .resource_type = KAFKA_RESOURCE_TOPIC,
        .resource_name = bns_slice_str(topic),
        .configs = {&c, 1}};
    struct kafka_incremental_alter_configs_request q = {.resources = {&r, 1}};
    struct kit_op *o = kit_ask(KAFKA_OP_INCREMENTAL_ALTER_CONFIGS, &q);

    kit_wait(o);
    assert_int_equal(o->a.changed.responses.count, 1);
    return o->a.changed.responses.at[0]; /* its text lives as long as the op */
}

static void value_is(const char *key, const char *value)
{
    struct bns_slice v = kafka_meta_topic_value(kit.meta, kit_topic("t"), key);

    assert_int_equal(v.len, strlen(value));
    assert_memory_equal(v.ptr, value, v.len);
}

static void configurations_are_set_deleted_appended_and_subtracted(void **state)
{
    (void)state;
    kit_open(4);
    assert_int_equal(kit_create("t", 1, NULL), 0);
    value_is("retention.ms", "604800000"); /* of 168 hours */
    assert_int_equal(change("t", "retention.ms", 0, "5").error_code, 0);
    value_is("retention.ms", "5");
    assert_int_equal(change("t", "cleanup.policy", 2, "compact").error_code, 0);
    value_is("cleanup.policy", "delete,compact");
    assert_int_equal(change("t", "cleanup.policy", 2, "compact").error_code, 0);
    value_is("cleanup.policy", "delete,compact");
    assert_int_equal(change("t", "cleanup.policy", 3, "delete").error_code, 0);
    value_is("cleanup.policy", "compact");
    assert_int_equal(change("t", "retention.ms", 1, NULL).error_code, 0);
    value_is("retention.ms", "604800000");
    assert_int_equal(change("t", "nope", 0, "1").error_code, 40);
    assert_int_equal(change("t", "retention.ms", 0, "-2").error_code, 40);
    assert_int_equal(change("u", "retention.ms", 0, "1").error_code, 3);
    assert_string_equal(kit.changes, "new t 1;config t 1;config t 1;config t 1;config t 1;");
    kit_close();
}

static void the_image_outlives_its_log(void **state)
{
    char name[32];

    (void)state;
    kit_open(5);
    kit.snapshot_entries = 20;
    bns_world_kill(kit.w, 0);
    kit_run_ms(10);
    for (int round = 0; round < 4; round++) {
        kit_up();
        assert_int_equal(kafka_image_topics(kafka_meta_image(kit.meta)), 40 * round);
        for (int i = 0; i < 40; i++) {
            (void)snprintf(name, sizeof name, "t%d-%d", round, i);
            assert_int_equal(kit_create(name, 1 + i % 3, NULL), 0);
        }
        bns_world_power_cut(kit.w, 0);
        kit_run_ms(10);
    }
    kit_up();
    assert_int_equal(kafka_image_topics(kafka_meta_image(kit.meta)), 160);
    kit_close();
}

static void who_waits_too_long_is_told_so(void **state)
{
    struct kafka_create_topics_request_topics t = {
        .name = BNS_LIT("t"), .num_partitions = 1, .replication_factor = 1};
    struct kafka_create_topics_request q = {.topics = {&t, 1}};
    struct kit_op *o;

    (void)state;
    kit_open(6);
    kit.timeout_ns = 1;
    o = kit_ask(KAFKA_OP_CREATE_TOPICS, &q);
    kit_wait(o);
    assert_int_equal(o->op.code, BNS_E_TIMEOUT);
    assert_int_equal(o->a.created.topics.at[0].error_code, 7);
    kit.timeout_ns = 5 * BNS_SEC;
    kit_run_ms(100);
    assert_int_equal(kit_create("u", 1, NULL), 0); /* the line goes on */
    kit_close();
}

static void was_closed(void *arg)
{
    *(bool *)arg = true;
}

static void close_now(struct bns_env *env, void *arg)
{
    (void)env;
    kafka_meta_close(kit.meta, was_closed, arg);
}

static void who_waits_when_it_closes_is_answered(void **state)
{
    struct kafka_create_topics_request_topics t = {
        .name = BNS_LIT("t"), .num_partitions = 1, .replication_factor = 1};
    struct kafka_create_topics_request q = {.topics = {&t, 1}};
    struct kit_op *o;
    bool closed = false;

    (void)state;
    kit_open(7);
    o = kit_ask(KAFKA_OP_CREATE_TOPICS, &q);
    assert_true(bns_world_call(kit.w, 0, close_now, &closed));
    kit_run_ms(1000);
    assert_true(closed);
    assert_int_equal(o->op.code, BNS_E_SHUTDOWN);
    assert_int_equal(o->a.created.topics.at[0].error_code, 41);
    assert_int_equal(bns_test_heap_in_use(bns_world_heap(kit.w, 0)), 0);
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_created_topic_is_there_after_a_restart),
        cmocka_unit_test(a_name_that_is_made_again_has_another_id),
        cmocka_unit_test(requests_at_once_are_answered_as_if_one_by_one),
        cmocka_unit_test(configurations_are_set_deleted_appended_and_subtracted),
        cmocka_unit_test(the_image_outlives_its_log),
        cmocka_unit_test(who_waits_too_long_is_told_so),
        cmocka_unit_test(who_waits_when_it_closes_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
