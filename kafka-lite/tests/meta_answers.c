/* meta_answers.c - the metadata as a program, for a comparison with Kafka's own.
 *
 *   kafka_meta_answers table    lines of `topic|broker NAME TYPE DEFAULT RANGE DYNAMIC SYNONYMS`,
 *                               separated by tabs
 *   kafka_meta_answers check    lines of `KEY=VALUE` from stdin: what is wrong, or ok
 *   kafka_meta_answers ask      lines of `KEY VERSION HEX` from stdin, requests: the responses as
 *                               JSON. The broker is node 1, in a virtual world */
#include <stdlib.h>

#include "meta/config_table.h"
#include "meta_kit.h"
#include "wire/wire.h"

#define LINE_MAX_BYTES (1u << 20)

static void print_key(const char *what, const struct kafka_config_key *k)
{
    static const char *const types[] = {"",     "BOOLEAN", "STRING", "INT",   "SHORT",
                                        "LONG", "DOUBLE",  "LIST",   "CLASS", "PASSWORD"};

    printf("%s\t%s\t%s\t%s\t", what, k->name, types[k->type],
           k->preset != NULL ? k->preset : "null");
    if (k->has_min || k->has_max) {
        printf("[");
        if (k->has_min)
            printf("%lld,...", (long long)k->min);
        if (k->has_max)
            printf(",%lld", (long long)k->max);
        printf("]%s%s", k->also != NULL ? " or " : "", k->also != NULL ? k->also : "");
    } else if (k->values != NULL) {
        for (size_t i = 0; k->values[i] != NULL; i++)
            printf("%s%s", i == 0 ? "[" : ", ", k->values[i]);
        printf("]");
    } else if (k->throttled) {
        printf("[partitionId]:[brokerId],[partitionId]:[brokerId],...");
    }
    printf("\t%s\t", k->dynamic ? "dynamic" : "-");
    for (const struct kafka_config_synonym *s = k->synonyms; s != NULL && s->key != NULL; s++)
        printf("%s%s*%lld", s == k->synonyms ? "" : " ", s->key, (long long)s->factor);
    printf("\n");
    if (k->documentation == NULL || strlen(k->documentation) < 10)
        printf("%s has no documentation\n", k->name);
}

static void table(void)
{
    for (size_t i = 0; i < kafka_topic_keys_count; i++)
        print_key("topic", &kafka_topic_keys[i]);
    for (size_t i = 0; i < kafka_broker_keys_count; i++)
        print_key("broker", &kafka_broker_keys[i]);
}

static void check(char *line)
{
    char *value = strchr(line, '=');
    const struct kafka_config_key *k;
    struct bns_err err = {0};

    assert_non_null(value);
    *value++ = '\0';
    k = kafka_topic_key(bns_slice_str(line));
    assert_non_null(k);
    if (kafka_config_check(k, bns_slice_str(value), &err) == BNS_OK)
        printf("ok\n");
    else
        printf("%s\n", err.text);
}

static size_t unhex(char *text)
{
    size_t len = strlen(text) / 2;

    for (size_t i = 0; i < len; i++) {
        char byte[3] = {text[2 * i], text[2 * i + 1], '\0'};
        text[i] = (char)strtoul(byte, NULL, 16);
    }
    return len;
}

static int kind_of(int key)
{
    static const struct {
        int key, kind;
    } t[] = {{19, KAFKA_OP_CREATE_TOPICS},
             {20, KAFKA_OP_DELETE_TOPICS},
             {37, KAFKA_OP_CREATE_PARTITIONS},
             {33, KAFKA_OP_ALTER_CONFIGS},
             {44, KAFKA_OP_INCREMENTAL_ALTER_CONFIGS}};

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        if (t[i].key == key)
            return t[i].kind;
    }
    fail_msg("no request of the metadata: %d", key);
    return -1;
}

static void ask(char *line)
{
    struct kafka_describe_configs_response described;
    char *end;
    int key = (int)strtol(line, &end, 10), version = (int)strtol(end, &end, 10);
    struct bns_slice in = bns_slice(end + 1, unhex(end + 1));
    const struct kafka_api *api = kafka_api(key);
    struct kafka_form form = kafka_form(api, version);
    struct bns_arena a;
    struct bns_buf out;
    struct kit_op *o = NULL;
    void *q;

    bns_arena_init(&a, bns_alloc_libc(), 64 << 20);
    bns_buf_init(&out, bns_alloc_libc(), 64 << 20);
    assert_int_equal(kafka_decode(api->request, &form, &in, &a, &q, NULL), BNS_OK);
    if (key == 32) {
        assert_int_equal(kafka_describe_configs(kit.meta, &a, q, &described), BNS_OK);
    } else {
        o = kit_ask(kind_of(key), q);
        kit_wait(o);
        assert_int_equal(o->op.code, BNS_OK);
    }
    assert_int_equal(
        kafka_print(api->response, version, o != NULL ? (void *)&o->a : &described, 1 << 20, &out),
        BNS_OK);
    printf("%.*s\n", (int)out.len, (const char *)out.ptr);
    if (o != NULL)
        kit_op_free(o);
    bns_buf_free(&out);
    bns_arena_free(&a);
}

int main(int argc, char **argv)
{
    static char line[LINE_MAX_BYTES];
    bool asks = argc == 2 && strcmp(argv[1], "ask") == 0;

    if (argc == 2 && strcmp(argv[1], "table") == 0) {
        table();
        return 0;
    }
    if (!asks && (argc != 2 || strcmp(argv[1], "check") != 0)) {
        fprintf(stderr, "usage: kafka_meta_answers table|check|ask\n");
        return 2;
    }
    if (asks)
        kit_open(1);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (asks)
            ask(line);
        else
            check(line);
    }
    if (asks)
        kit_close();
    return 0;
}
