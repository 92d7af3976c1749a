/* sim_meta.c - the metadata through crashes at any moment.
 *
 * Goal:   what was acknowledged is there after every restart, with the id it was given: topics,
 *         their partitions and configuration; what was acknowledged to be gone stays gone; a name
 *         made again has an id never seen before; no producer id is handed out twice.
 * Method: random requests, several under way, against a model of what may be; the node is killed or
 *         loses its power in the middle of any operation of its file system; image files are
 *         written all the time.
 * Repeat: BNS_SEED=7 ./sim_meta     one seed;  BNS_RUNS=500 ./sim_meta     more of them
 *
 * ctest: timeout=120 */
#include <stdlib.h>

#include "meta/config_table.h"
#include "meta_kit.h"

#define NAMES 8
#define IDS_MAX 4096

struct name {
    char text[8];
    bool may_be, may_not_be; /* after the last restart or answer */
    struct kafka_uuid id;    /* when certain: may_be && !may_not_be */
    int32_t partitions, asked_partitions;
    int64_t ms, asked_ms; /* retention.ms; 0: not set */
    bool ms_unsure;
    struct kit_op *op;
    struct kafka_create_topics_request_topics create;
    struct kafka_create_topics_request create_q;
    struct bns_slice delete_name;
    struct kafka_delete_topics_request delete_q;
    struct kafka_create_partitions_request_topics grow;
    struct kafka_create_partitions_request grow_q;
    struct kafka_incremental_alter_configs_request_configs config;
    struct kafka_incremental_alter_configs_request_resources resource;
    struct kafka_incremental_alter_configs_request config_q;
    char value[24];
};

static struct {
    struct name names[NAMES];
    struct kafka_uuid ids[IDS_MAX]; /* all that were ever acknowledged */
    size_t ids_count;
    int64_t blocks_next; /* behind the last block of producer ids that was acknowledged */
    struct kit_op *blocks[2];
    uint64_t answers, crashes, checked;
    char wrong[256];
} model;

static bool same_id(const struct kafka_uuid *a, const struct kafka_uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

#define WRONG(...) (void)snprintf(model.wrong, sizeof model.wrong, __VA_ARGS__)

static void new_id(const struct name *n, const struct kafka_uuid *id)
{
    for (size_t i = 0; i < model.ids_count; i++) {
        if (same_id(&model.ids[i], id))
            WRONG("%s: an id for the second time", n->text);
    }
    assert_true(model.ids_count < IDS_MAX);
    model.ids[model.ids_count++] = *id;
}

/* ---- requests ------------------------------------------------------------------------------- */

static void ask_create(struct name *n, struct bns_prng *prng)
{
    n->asked_partitions = (int32_t)bns_prng_range(prng, 1, 5);
    n->create = (struct kafka_create_topics_request_topics){.name = bns_slice_str(n->text),
                                                            .num_partitions = n->asked_partitions,
                                                            .replication_factor = 1};
    n->create_q = (struct kafka_create_topics_request){.topics = {&n->create, 1}};
    n->op = kit_ask(KAFKA_OP_CREATE_TOPICS, &n->create_q);
}

static void ask_delete(struct name *n)
{
    n->delete_name = bns_slice_str(n->text);
    n->delete_q = (struct kafka_delete_topics_request){.topic_names = {&n->delete_name, 1}};
    n->op = kit_ask(KAFKA_OP_DELETE_TOPICS, &n->delete_q);
}

static void ask_grow(struct name *n)
{
    n->asked_partitions = n->partitions + 1;
    n->grow = (struct kafka_create_partitions_request_topics){
        .name = bns_slice_str(n->text), .count = n->asked_partitions, .assignments = {NULL, -1}};
    n->grow_q = (struct kafka_create_partitions_request){.topics = {&n->grow, 1}};
    n->op = kit_ask(KAFKA_OP_CREATE_PARTITIONS, &n->grow_q);
}

static void ask_config(struct name *n, struct bns_prng *prng)
{
    n->asked_ms = (int64_t)bns_prng_range(prng, 1, 1000);
    (void)snprintf(n->value, sizeof n->value, "%lld", (long long)n->asked_ms);
    n->config = (struct kafka_incremental_alter_configs_request_configs){
        .name = BNS_LIT("retention.ms"), .value = bns_slice_str(n->value)};
    n->resource = (struct kafka_incremental_alter_configs_request_resources){
        .resource_type = KAFKA_RESOURCE_TOPIC,
        .resource_name = bns_slice_str(n->text),
        .configs = {&n->config, 1}};
    n->config_q = (struct kafka_incremental_alter_configs_request){.resources = {&n->resource, 1}};
    n->op = kit_ask(KAFKA_OP_INCREMENTAL_ALTER_CONFIGS, &n->config_q);
}

static void ask_some(struct bns_prng *prng)
{
    for (size_t i = 0; i < NAMES; i++) {
        struct name *n = &model.names[i];
        if (n->op != NULL || !bns_prng_chance(prng, 0.3))
            continue;
        if (!n->may_be || bns_prng_chance(prng, 0.2))
            ask_create(n, prng);
        else if (bns_prng_chance(prng, 0.3))
            ask_delete(n);
        else if (bns_prng_chance(prng, 0.4))
            ask_grow(n);
        else
            ask_config(n, prng);
    }
    for (size_t i = 0; i < 2; i++) {
        if (model.blocks[i] == NULL && model.blocks[1] == NULL && bns_prng_chance(prng, 0.3))
            model.blocks[i] = kit_ask(KAFKA_OP_PRODUCER_IDS, NULL);
    }
}

/* ---- answers -------------------------------------------------------------------------------- */

static void created(struct name *n)
{
    const struct kafka_create_topics_response_topics *t = &n->op->a.created.topics.at[0];

    if (t->error_code == 36 && !n->may_be)
        WRONG("%s: said to exist, and cannot", n->text);
    if (t->error_code != 0)
        return;
    if (!n->may_not_be)
        WRONG("%s: created, and exists", n->text);
    new_id(n, &t->topic_id);
    n->may_be = true;
    n->may_not_be = false;
    n->id = t->topic_id;
    n->partitions = t->num_partitions;
    n->ms = 0;
    n->ms_unsure = false;
}

static void answered(struct name *n)
{
    int16_t error;

    model.answers++;
    switch (n->op->op.kind) {
    case KAFKA_OP_CREATE_TOPICS:
        created(n);
        break;
    case KAFKA_OP_DELETE_TOPICS:
        error = n->op->a.deleted.responses.at[0].error_code;
        if (error == 3 && !n->may_not_be)
            WRONG("%s: said not to exist, and does", n->text);
        n->may_be = false;
        n->may_not_be = true;
        break;
    case KAFKA_OP_CREATE_PARTITIONS:
        if (n->op->a.grown.results.at[0].error_code == 0)
            n->partitions = n->asked_partitions;
        break;
    default:
        if (n->op->a.changed.responses.at[0].error_code == 0) {
            n->ms = n->asked_ms;
            n->ms_unsure = false;
        }
        break;
    }
}

static void take_answers(void)
{
    for (size_t i = 0; i < NAMES; i++) {
        struct name *n = &model.names[i];
        if (n->op == NULL || !n->op->done)
            continue;
        assert_int_equal(n->op->op.code, BNS_OK);
        answered(n);
        kit_op_free(n->op);
        n->op = NULL;
    }
    for (size_t i = 0; i < 2; i++) { /* asked in this order, answered in it */
        int64_t first;
        if (model.blocks[i] == NULL || !model.blocks[i]->done)
            continue;
        first = model.blocks[i]->a.ids.first;
        if (first < model.blocks_next)
            WRONG("producer ids from %lld for the second time", (long long)first);
        model.blocks_next = first + KAFKA_PRODUCER_IDS_BLOCK;
        kit_op_free(model.blocks[i]);
        model.blocks[i] = NULL;
    }
}

/* ---- crashes -------------------------------------------------------------------------------- */

/* What was asked for and not answered may have happened. */
static void forget_requests(void)
{
    for (size_t i = 0; i < NAMES; i++) {
        struct name *n = &model.names[i];
        if (n->op == NULL)
            continue;
        if (n->op->op.kind == KAFKA_OP_CREATE_TOPICS)
            n->may_be = true;
        else if (n->op->op.kind == KAFKA_OP_DELETE_TOPICS)
            n->may_not_be = true;
        else if (n->op->op.kind == KAFKA_OP_INCREMENTAL_ALTER_CONFIGS)
            n->ms_unsure = true;
        kit_op_free(n->op);
        n->op = NULL;
    }
    for (size_t i = 0; i < 2; i++) {
        if (model.blocks[i] != NULL)
            kit_op_free(model.blocks[i]);
        model.blocks[i] = NULL;
    }
}

static void check_name(struct name *n)
{
    const struct kafka_topic *t = kit_topic(n->text);
    const struct kafka_config_entry *e;
    int64_t ms = 0;

    model.checked++;
    if (t == NULL && !n->may_not_be)
        WRONG("%s: was acknowledged, and is not there", n->text);
    if (t != NULL && !n->may_be)
        WRONG("%s: was acknowledged to be gone, and is there", n->text);
    if (t == NULL || model.wrong[0] != '\0') {
        n->may_be = false;
        return;
    }
    if (!n->may_not_be && !same_id(&t->id, &n->id))
        WRONG("%s: another id", n->text);
    if (!n->may_not_be && t->partitions_count < n->partitions)
        WRONG("%s: %d partitions, were %d", n->text, t->partitions_count, n->partitions);
    e = kafka_config_find(&t->configs, BNS_LIT("retention.ms"));
    if (e != NULL && kafka_config_number(e->value, &ms) != BNS_OK)
        WRONG("%s: its configuration is no number", n->text);
    if (!n->may_not_be && !n->ms_unsure && ms != n->ms)
        WRONG("%s: retention.ms is %lld, was %lld", n->text, (long long)ms, (long long)n->ms);
    n->may_not_be = false;
    n->ms_unsure = false;
    n->ms = ms;
    n->id = t->id;
    n->partitions = t->partitions_count;
}

static void crash(struct bns_prng *prng)
{
    if (bns_prng_chance(prng, 0.2)) {
        bns_world_kill(kit.w, 0);
    } else {
        bns_world_power_cut_soon(kit.w, 0, 20 * BNS_MS);
        ask_some(prng);
        for (int i = 0; i < 100 && kit.up; i++)
            kit_run_ms(1);
    }
    kit_run_ms(1);
    assert_false(kit.up);
    take_answers();
    forget_requests();
    model.crashes++;
    kit_up();
    for (size_t i = 0; i < NAMES && model.wrong[0] == '\0'; i++)
        check_name(&model.names[i]);
    if (kafka_image_producer_next(kafka_meta_image(kit.meta)) < model.blocks_next)
        WRONG("producer ids that were handed out are free again");
}

static const char *run_seed(uint64_t seed, uint32_t mutant)
{
    struct bns_world_config cfg = bns_world_calm(1);
    struct bns_prng prng;

    memset(&kit, 0, sizeof kit);
    memset(&model, 0, sizeof model);
    bns_prng_seed(&prng, seed);
    kit.timeout_ns = 1000 * BNS_SEC;
    kit.snapshot_entries = bns_prng_range(&prng, 3, 30);
    cfg.mutant = mutant;
    assert_int_equal(bns_world_new(seed, &cfg, &kit.w), BNS_OK);
    for (size_t i = 0; i < NAMES; i++) {
        (void)snprintf(model.names[i].text, sizeof model.names[i].text, "t%zu", i);
        model.names[i].may_not_be = true;
    }
    kit_up();
    for (int i = 0; i < 12 && model.wrong[0] == '\0'; i++) {
        for (uint64_t j = bns_prng_below(&prng, 30); j > 0; j--) {
            ask_some(&prng);
            kit_run_ms(bns_prng_below(&prng, 4));
            take_answers();
        }
        crash(&prng);
    }
    kit_close();
    return model.wrong[0] != '\0' ? model.wrong : NULL;
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static void no_crash_takes_what_was_acknowledged(void **state)
{
    uint64_t first = from_env("BNS_SEED", 1), runs = from_env("BNS_RUNS", 40), answers = 0;

    (void)state;
    if (getenv("BNS_SEED") != NULL)
        runs = 1;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        const char *wrong = run_seed(seed, (uint32_t)from_env("BNS_MUTANT", 0));
        if (wrong != NULL)
            fail_msg("seed %llu: %s\nreplay: BNS_SEED=%llu sim_meta", (unsigned long long)seed,
                     wrong, (unsigned long long)seed);
        answers += model.answers;
    }
    print_message("seeds %llu..%llu: %llu answers\n", (unsigned long long)first,
                  (unsigned long long)(first + runs - 1), (unsigned long long)answers);
    assert_true(runs == 1 || answers > 10 * runs);
}

static void planted_bugs_are_found(void **state)
{
    static const struct {
        uint32_t mutant;
        const char *what;
    } t[] = {{201, "a block of producer ids is given to two requests of one command"},
             {203, "the image that a start begins with has no topics' configuration"},
             {204, "a request is answered when its command is proposed"}};

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *wrong = NULL;
        uint64_t seed = 0;
        while (wrong == NULL && seed < 100)
            wrong = run_seed(++seed, t[i].mutant);
        print_message("  %s: seed %llu: %s\n", t[i].what, (unsigned long long)seed,
                      wrong != NULL ? wrong : "not found");
        assert_non_null(wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_crash_takes_what_was_acknowledged),
        cmocka_unit_test(planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
