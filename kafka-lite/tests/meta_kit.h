/* meta_kit.h - one metadata in a simulated node, and requests from the test. */
#ifndef KAFKA_TESTS_META_KIT_H
#define KAFKA_TESTS_META_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "meta/describe.h"
#include "meta/meta.h"
#include "sim/world.h"

#define KIT_NODE 1
#define KIT_OPS 64

struct kit_op {
    struct kafka_meta_op op;
    struct bns_arena arena;
    bool used, done;
    union {
        struct kafka_create_topics_response created;
        struct kafka_delete_topics_response deleted;
        struct kafka_create_partitions_response grown;
        struct kafka_alter_configs_response altered;
        struct kafka_incremental_alter_configs_response changed;
        struct kafka_producer_ids ids;
    } a;
};

struct kit {
    struct bns_world *w;
    struct kafka_meta *meta;
    struct kit_op ops[KIT_OPS];
    uint64_t snapshot_entries, timeout_ns;
    bool up, ready;
    char changes[512]; /* what on_change was told */
};

static struct kit kit;

static void kit_ready(void *arg)
{
    (void)arg;
    kit.ready = true;
}

static void kit_change(void *arg, const struct kafka_change *c)
{
    static const char *const kinds[] = {"new", "more", "gone", "config", "all"};
    size_t len = strlen(kit.changes);

    (void)arg;
    (void)snprintf(kit.changes + len, sizeof kit.changes - len, "%s %.*s %d;", kinds[c->kind],
                   (int)c->name.len, (const char *)c->name.ptr,
                   c->topic != NULL ? c->topic->partitions_count : -1);
}

static int kit_start(struct bns_env *env, unsigned id, void *arg)
{
    static struct kafka_config_entry entry = {{(const uint8_t *)"node.id", 7},
                                              {(const uint8_t *)"1", 1}};
    static const struct kafka_config_set statics = {.entries = &entry, .count = 1};
    struct kafka_meta_config cfg = {.dir = "meta",
                                    .node_id = KIT_NODE,
                                    .statics = &statics,
                                    .snapshot_entries = kit.snapshot_entries,
                                    .wal_segment_bytes = 64 * 1024,
                                    .on_ready = kit_ready,
                                    .on_change = kit_change};
    struct bns_err err = {0};
    int rv = kafka_meta_open(env, &cfg, &kit.meta, &err);

    (void)id;
    (void)arg;
    if (rv == BNS_OK)
        rv = kafka_meta_start(kit.meta, &err);
    if (rv != BNS_OK)
        print_message("not started: %s\n", err.text);
    kit.up = rv == BNS_OK;
    return rv;
}

static void kit_died(unsigned id, int code, const char *text, void *arg)
{
    (void)id;
    (void)arg;
    if (code != 0)
        print_message("died: %d %s\n", code, text);
    kit.up = kit.ready = false;
    kit.meta = NULL;
}

static const struct bns_node_main kit_main = {.start = kit_start, .died = kit_died};

static void kit_run_ms(uint64_t ms)
{
    assert_null(bns_world_run(kit.w, bns_world_now(kit.w) + ms * BNS_MS, NULL, NULL));
}

static void kit_up(void)
{
    bns_world_start(kit.w, 0, &kit_main);
    for (int i = 0; i < 1000 && !kit.ready; i++)
        kit_run_ms(10);
    assert_true(kit.ready);
}

static inline void kit_open(uint64_t seed)
{
    struct bns_world_config cfg = bns_world_calm(1);

    memset(&kit, 0, sizeof kit);
    kit.timeout_ns = 5 * BNS_SEC;
    assert_int_equal(bns_world_new(seed, &cfg, &kit.w), BNS_OK);
    kit_up();
}

static void kit_op_done(struct kafka_meta_op *op)
{
    BNS_CONTAINER(op, struct kit_op, op)->done = true;
}

static struct kit_op *kit_op_new(void)
{
    for (size_t i = 0; i < KIT_OPS; i++) {
        struct kit_op *o = &kit.ops[i];
        if (o->used)
            continue;
        memset(o, 0, sizeof *o);
        o->used = true;
        bns_arena_init(&o->arena, bns_alloc_libc(), 16 << 20);
        o->op.arena = &o->arena;
        o->op.done = kit_op_done;
        return o;
    }
    fail_msg("too many requests");
    return NULL;
}

static void kit_op_free(struct kit_op *o)
{
    bns_arena_free(&o->arena);
    o->used = false;
}

static void kit_close(void)
{
    for (size_t i = 0; i < KIT_OPS; i++) {
        if (kit.ops[i].used)
            kit_op_free(&kit.ops[i]);
    }
    bns_world_free(kit.w);
}

struct kit_call {
    struct kit_op *o;
    int kind;
    const void *q;
};

static void kit_ask_now(struct bns_env *env, void *arg)
{
    const struct kit_call *c = arg;
    struct kit_op *o = c->o;

    o->op.deadline_ns = bns_now_ns(env) + kit.timeout_ns;
    switch (c->kind) {
    case KAFKA_OP_CREATE_TOPICS:
        kafka_meta_create_topics(kit.meta, &o->op, c->q, &o->a.created);
        break;
    case KAFKA_OP_DELETE_TOPICS:
        kafka_meta_delete_topics(kit.meta, &o->op, c->q, &o->a.deleted);
        break;
    case KAFKA_OP_CREATE_PARTITIONS:
        kafka_meta_create_partitions(kit.meta, &o->op, c->q, &o->a.grown);
        break;
    case KAFKA_OP_ALTER_CONFIGS:
        kafka_meta_alter_configs(kit.meta, &o->op, c->q, &o->a.altered);
        break;
    case KAFKA_OP_INCREMENTAL_ALTER_CONFIGS:
        kafka_meta_incremental_alter_configs(kit.meta, &o->op, c->q, &o->a.changed);
        break;
    default:
        kafka_meta_producer_ids(kit.meta, &o->op, &o->a.ids);
        break;
    }
    assert_false(o->done);
}

static struct kit_op *kit_ask(int kind, const void *q)
{
    struct kit_call c = {kit_op_new(), kind, q};

    assert_true(bns_world_call(kit.w, 0, kit_ask_now, &c));
    return c.o;
}

static void kit_wait(const struct kit_op *o)
{
    for (int i = 0; i < 10000 && !o->done; i++)
        kit_run_ms(1);
    assert_true(o->done);
}

static inline const struct kafka_topic *kit_topic(const char *name)
{
    return kafka_image_topic(kafka_meta_image(kit.meta), bns_slice_str(name));
}

/* One topic; its error. */
static inline int kit_create(const char *name, int32_t partitions, struct kafka_uuid *id)
{
    struct kafka_create_topics_request_topics t = {
        .name = bns_slice_str(name), .num_partitions = partitions, .replication_factor = -1};
    struct kafka_create_topics_request q = {.topics = {&t, 1}};
    struct kit_op *o = kit_ask(KAFKA_OP_CREATE_TOPICS, &q);
    int error;

    kit_wait(o);
    assert_int_equal(o->op.code, BNS_OK);
    assert_int_equal(o->a.created.topics.count, 1);
    error = o->a.created.topics.at[0].error_code;
    if (id != NULL)
        *id = o->a.created.topics.at[0].topic_id;
    kit_op_free(o);
    return error;
}

static inline int kit_delete(const char *name)
{
    struct bns_slice names[1] = {bns_slice_str(name)};
    struct kafka_delete_topics_request q = {.topic_names = {names, 1}};
    struct kit_op *o = kit_ask(KAFKA_OP_DELETE_TOPICS, &q);
    int error;

    kit_wait(o);
    error = o->a.deleted.responses.at[0].error_code;
    kit_op_free(o);
    return error;
}

#endif
