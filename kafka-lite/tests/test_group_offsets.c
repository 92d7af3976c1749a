/* test_group_offsets.c - committed offsets, their expiry, deletion; and the coordinator without
 * memory and with bad records. */
#include "group_kit.h"

#define DAY_MS INT64_C(86400000)

static int16_t commit(struct kit *k, const char *id, int32_t generation, int64_t offset)
{
    int16_t e;
    struct kit_answer *a = kit_commit(k, id, generation, offset, &e);
    if (e == 0)
        assert_true(a->came);
    return e != 0 ? e : a->error;
}

/* A Stable group of one member, who leads; generation 1. */
static struct kit *alone(char id[64], const char *metadata, const char *type)
{
    struct kit *k = kit_new();
    struct kit_answer *a =
        kit_join(k, (struct kit_join){.id = "", .version = 3, .metadata = metadata, .type = type});
    kit_wait(k, 1);
    assert_int_equal(a->error, 0);
    (void)snprintf(id, 64, "%s", a->id);
    assert_int_equal(kit_sync(k, id, 1, NULL, NULL)->error, 0);
    return k;
}

static void a_commit_counts_in_its_generation_only(void **state)
{
    char id[64];
    struct kit *k = alone(id, NULL, NULL);

    (void)state;
    assert_int_equal(commit(k, id, 1, 5), 0);
    assert_int_equal(kit_offset(k), 5);
    assert_int_equal(commit(k, id, 0, 6), 22);
    assert_int_equal(commit(k, "who", 1, 6), 25);
    assert_int_equal(commit(k, "", -1, 6), 25); /* an admin, while the group is in use */
    assert_int_equal(commit(k, id, -1, 6), 22);
    assert_int_equal(kit_join(k, (struct kit_join){.id = id})->generation, 2);
    assert_int_equal(commit(k, id, 2, 6), 27); /* it has joined, and not synced */
    assert_int_equal(kit_sync(k, id, 2, NULL, NULL)->error, 0);
    assert_int_equal(commit(k, id, 2, 7), 0);
    assert_int_equal(kit_leave(k, id), 0);
    assert_int_equal(commit(k, "", -1, 3), 0); /* reset by an admin */
    assert_int_equal(kit_offset(k), 3);
    kit_free(k);
}

static void a_commit_is_told_when_it_is_durable(void **state)
{
    struct kit *k = kit_new();
    struct kit_answer *a, *b;
    int16_t e;

    (void)state;
    k->at_once = false;
    a = kit_commit(k, "", -1, 5, &e);
    b = kit_commit(k, "", -1, 6, &e);
    assert_int_equal(e, 0);
    assert_false(a->came);
    assert_int_equal(kit_offset(k), -1);
    assert_true(kit_write(k, 0));
    assert_true(a->came && !b->came);
    assert_int_equal(kit_offset(k), 5);
    assert_true(kit_write(k, 56));
    assert_int_equal(b->error, 16);
    assert_int_equal(kit_offset(k), 5);
    kit_crash(k);
    assert_int_equal(kit_offset(k), 5);
    kit_free(k);
}

static void an_unknown_group_is_a_generation_or_a_group_that_is_not(void **state)
{
    struct kit *k = kit_new();
    struct kafka_commit_part p = {.topic = BNS_LIT("t")};
    struct kafka_commit c = {
        .who = {BNS_LIT("g"), BNS_LIT("m"), {NULL, 0}, 3}, .parts = &p, .parts_count = 1};

    (void)state;
    assert_int_equal(kafka_groups_commit(k->g, &c, kit_token(k)), 22);
    c.not_found = true;
    assert_int_equal(kafka_groups_commit(k->g, &c, kit_token(k)), 69);
    kit_free(k);
}

static void metadata_of_more_than_4096_units_is_refused_alone(void **state)
{
    struct kit *k = kit_new();
    static char text[3 * 4097 + 1];
    struct kafka_commit_part p[2] = {{.topic = BNS_LIT("t"), .offset = {.offset = 1}},
                                     {.topic = BNS_LIT("t"), .partition = 1}};
    struct kafka_commit c = {.who = {BNS_LIT("g"), BNS_LIT(""), {NULL, 0}, -1},
                             .retention_ms = -1,
                             .parts = p,
                             .parts_count = 2};

    (void)state;
    for (size_t i = 0; i < 4097; i++)
        memcpy(text + 3 * i, "\xe2\x82\xac", 3); /* three bytes, one unit */
    p[0].offset.metadata = bns_slice(text, 3 * 4096);
    p[1].offset.metadata = bns_slice(text, 3 * 4097);
    assert_int_equal(kafka_groups_commit(k->g, &c, kit_token(k)), 0);
    assert_int_equal(p[0].error, 0);
    assert_int_equal(p[1].error, 12);
    kit_settle(k);
    assert_int_equal(kit_offset(k), 1);
    c.parts = &p[1];
    c.parts_count = 1;
    assert_int_equal(kafka_groups_commit(k->g, &c, kit_token(k)), KAFKA_GROUP_NOTHING);
    kit_free(k);
}

static void expire(struct kit *k)
{
    while (!kafka_groups_expire(k->g, 1))
        continue;
    kit_settle(k);
}

static void wait_days(struct kit *k, int64_t days)
{
    k->ms += (uint64_t)(days * DAY_MS);
    kafka_groups_now(k->g, k->ms, KIT_WALL + (int64_t)k->ms);
}

static void offsets_expire_when_nobody_uses_them_and_not_before(void **state)
{
    static const struct {
        const char *name;
        bool member;   /* there is one, and stays */
        bool consumer; /* of the consumer protocol, subscribed to nothing that is known */
        bool left;     /* it was there */
        int64_t days;
        bool gone;
    } t[] = {
        {"no group's, too early", false, false, false, 6, false},
        {"no group's", false, false, false, 8, true},
        {"in use by another protocol", true, false, false, 80, false},
        {"in use, of who knows which topics", true, true, false, 80, false},
        {"after the last has left, too early", true, true, true, 6, false},
        {"after the last has left", true, true, true, 8, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char id[64] = "";
        struct kit *k = t[i].member ? alone(id, NULL, t[i].consumer ? "consumer" : "x") : kit_new();
        print_message("  %s\n", t[i].name);
        assert_int_equal(commit(k, id, t[i].member ? 1 : -1, 5), 0);
        if (t[i].left) {
            wait_days(k, 0);
            assert_int_equal(kit_leave(k, id), 0);
        }
        wait_days(k, t[i].days);
        expire(k);
        assert_int_equal(kit_offset(k), t[i].gone ? -1 : 5);
        assert_int_equal(kafka_groups_count(k->g), t[i].gone ? 0 : 1);
        kit_crash(k);
        assert_int_equal(kit_offset(k), t[i].gone ? -1 : 5);
        assert_int_equal(kafka_groups_count(k->g), t[i].gone ? 0 : 1);
        kit_free(k);
    }
}

/* The coordinator reads the topics of a subscription: version i16, topics [str]. */
static void topics_that_are_subscribed_to_keep_their_offsets(void **state)
{
    struct kit *k = kit_new();
    uint8_t sub[] = {0, 1, 0, 0, 0, 1, 0, 1, 'u'};
    struct kafka_group_protocol p = {BNS_LIT("range"), bns_slice(sub, sizeof sub)};
    struct kafka_join j = {.group = BNS_LIT("g"),
                           .client_id = BNS_LIT("c"),
                           .client_host = BNS_LIT("h"),
                           .protocol_type = BNS_LIT("consumer"),
                           .session_ms = 1800000,
                           .rebalance_ms = 1000,
                           .protocols = &p,
                           .protocols_count = 1};
    struct kafka_offset_delete d[2] = {{BNS_LIT("u"), 0, 0}, {BNS_LIT("t"), 0, 0}};
    struct kit_answer *a;
    char id[64];

    (void)state;
    kafka_groups_join(k->g, &j, kit_token(k));
    a = &k->answers[k->told];
    kit_wait(k, 1);
    (void)snprintf(id, sizeof id, "%s", a->id);
    assert_int_equal(kit_sync(k, id, 1, NULL, NULL)->error, 0);
    assert_int_equal(commit(k, id, 1, 5), 0);
    assert_int_equal(kafka_groups_offset_delete(k->g, BNS_LIT("g"), d, 2, kit_token(k)), 0);
    kit_settle(k);
    assert_int_equal(d[0].error, 86);
    assert_int_equal(d[1].error, 0);
    assert_int_equal(kit_offset(k), -1);
    assert_int_equal(commit(k, id, 1, 6), 0);
    wait_days(k, 8);
    expire(k); /* 't' is not subscribed to */
    assert_int_equal(kit_offset(k), -1);
    kit_free(k);
}

static void a_group_is_deleted_when_it_is_empty(void **state)
{
    char id[64];
    struct kit *k = alone(id, NULL, NULL);

    (void)state;
    assert_int_equal(commit(k, id, 1, 5), 0);
    assert_int_equal(kafka_groups_delete(k->g, BNS_LIT("g"), kit_token(k)), 68);
    assert_int_equal(kafka_groups_delete(k->g, BNS_LIT("who"), kit_token(k)), 69);
    assert_int_equal(kit_leave(k, id), 0);
    k->at_once = false;
    assert_int_equal(kafka_groups_delete(k->g, BNS_LIT("g"), kit_token(k)), 0);
    assert_int_equal(kit_view(k).state, KAFKA_GROUP_DEAD);
    assert_int_equal(kit_enter(k)->error, 15);
    assert_int_equal(kit_offset(k), 5); /* until it is durable */
    while (kit_write(k, 0))
        continue;
    assert_int_equal(kafka_groups_count(k->g), 0);
    kit_crash(k);
    assert_int_equal(kafka_groups_count(k->g), 0);
    kit_free(k);
}

static void a_deletion_that_is_not_written_did_not_happen(void **state)
{
    struct kit *k = kit_new();

    (void)state;
    assert_int_equal(commit(k, "", -1, 5), 0);
    k->at_once = false;
    assert_int_equal(kafka_groups_delete(k->g, BNS_LIT("g"), kit_token(k)), 0);
    while (kit_write(k, 56))
        continue;
    assert_int_equal(kit_offset(k), 5);
    k->at_once = true;
    assert_int_equal(commit(k, "", -1, 6), 0);
    kit_free(k);
}

static void a_topic_that_is_deleted_takes_its_offsets_along(void **state)
{
    struct kit *k = kit_new();

    (void)state;
    assert_int_equal(commit(k, "", -1, 5), 0);
    kafka_groups_topic_deleted(k->g, BNS_LIT("u"));
    kit_settle(k);
    assert_int_equal(kit_offset(k), 5);
    kafka_groups_topic_deleted(k->g, BNS_LIT("t"));
    kit_settle(k);
    assert_int_equal(kit_offset(k), -1);
    kit_free(k);
}

/* Every record of a group's life, cut at every byte and with every byte changed, is an error or a
 * record, and no more than that. */
static void damaged_records_are_refused_or_read(void **state)
{
    char id[64];
    struct kit *k = alone(id, NULL, NULL);
    size_t count;

    (void)state;
    assert_int_equal(commit(k, id, 1, 5), 0);
    count = k->records_count;
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++)
        for (int key = 0; key < 2; key++) {
            struct bns_slice whole = key ? k->records[i].key : k->records[i].value;
            for (size_t at = 0; at < whole.len; at++) {
                struct bns_slice r[2] = {k->records[i].key, k->records[i].value};
                uint8_t copy[512];
                struct kit *x = kit_new();
                assert_true(whole.len <= sizeof copy);
                r[key ? 0 : 1] = bns_slice(whole.ptr, at);
                assert_int_not_equal(kafka_groups_replay(x->g, r[0], r[1]), BNS_OK);
                memcpy(copy, whole.ptr, whole.len);
                copy[at] ^= 0x81;
                r[key ? 0 : 1] = bns_slice(copy, whole.len);
                if (kafka_groups_replay(x->g, r[0], r[1]) == BNS_OK) /* it may, or not */
                    kafka_groups_loaded(x->g);
                kit_free(x);
            }
        }
    kit_free(k);
}

/* ---- without memory
 * ----------------------------------------------------------------------------- */

struct poor {
    long left; /* allocations until one fails; -1: none does */
    long live;
};

static void *poor_resize(void *ctx, void *ptr, size_t n)
{
    struct poor *p = ctx;
    void *out;
    if (p->left == 0) {
        p->left = -1;
        return NULL;
    }
    p->left -= p->left > 0;
    out = realloc(ptr, n);
    p->live += ptr == NULL && out != NULL;
    return out;
}

static void *poor_alloc(void *ctx, size_t n)
{
    return poor_resize(ctx, NULL, n);
}

static void poor_release(void *ctx, void *ptr)
{
    struct poor *p = ctx;
    p->live -= ptr != NULL;
    free(ptr);
}

static void life(struct kit *k)
{
    struct kit_answer *a = kit_enter(k),
                      *b = kit_join(k, (struct kit_join){.id = "", .version = 4});
    int16_t e;

    if (b->came && b->error == 79)
        b = kit_join(k, (struct kit_join){.id = b->id});
    kit_wait(k, 20000);
    assert_true(a->came && b->came);
    if (a->error == 0)
        (void)kit_sync(k, a->id, a->generation, NULL, NULL);
    (void)kit_commit(k, a->id, a->generation, 3, &e);
    b = kit_join(k, (struct kit_join){.id = "", .version = 3, .instance = "i"});
    a = kit_join(k, (struct kit_join){.id = "", .version = 3, .instance = "i"});
    kit_wait(k, 100000);
    assert_true(a->came && b->came);
    (void)kafka_groups_delete(k->g, BNS_LIT("g"), kit_token(k));
    kit_settle(k);
}

static void each_allocation_may_fail(void **state)
{
    struct poor p;
    bool failed = true;
    struct bns_alloc alloc = {poor_alloc, poor_resize, poor_release, &p};

    (void)state;
    for (long at = 0; failed; at++) {
        struct kit *k = kit_new();
        kafka_groups_free(k->g);
        k->g = NULL;
        k->alloc = &alloc;
        p = (struct poor){.left = at};
        if (kit_make(k) == BNS_OK)
            life(k);
        for (size_t i = 1; i <= k->told && k->g != NULL; i++)
            if (k->answers[i].came && k->answers[i].error != 0)
                assert_true(k->answers[i].error == 15 || k->answers[i].error == 25 ||
                            k->answers[i].error == 79 || k->answers[i].error == 27 ||
                            k->answers[i].error == 82);
        failed = p.left == -1;
        kit_free(k);
        assert_int_equal(p.live, 0);
        assert_true(at < 2000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_counts_in_its_generation_only),
        cmocka_unit_test(a_commit_is_told_when_it_is_durable),
        cmocka_unit_test(an_unknown_group_is_a_generation_or_a_group_that_is_not),
        cmocka_unit_test(metadata_of_more_than_4096_units_is_refused_alone),
        cmocka_unit_test(offsets_expire_when_nobody_uses_them_and_not_before),
        cmocka_unit_test(topics_that_are_subscribed_to_keep_their_offsets),
        cmocka_unit_test(a_group_is_deleted_when_it_is_empty),
        cmocka_unit_test(a_deletion_that_is_not_written_did_not_happen),
        cmocka_unit_test(a_topic_that_is_deleted_takes_its_offsets_along),
        cmocka_unit_test(damaged_records_are_refused_or_read),
        cmocka_unit_test(each_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
