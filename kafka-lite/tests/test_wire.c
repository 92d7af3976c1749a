/* test_wire.c - every message of the table, every version, both ways. */
#include "base/prng.h"
#include "base/varint.h"
#include "message_random.h"
#include "messages.h"
#include "wire/uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ARENA_MAX (64u << 20)

static struct bns_slice joined(const struct kafka_bytes *b, struct bns_arena *a)
{
    uint8_t *p = bns_arena_alloc(a, (size_t)b->len + 1);
    size_t n = 0;

    assert_non_null(p);
    for (size_t i = 0; i < b->count; i++) {
        if (b->slices[i].len > 0)
            memcpy(p + n, b->slices[i].ptr, b->slices[i].len);
        n += b->slices[i].len;
    }
    assert_int_equal(n, b->len);
    return bns_slice(p, n);
}

static struct bns_slice encoded(const struct kafka_struct *s, const struct kafka_form *form,
                                const void *msg, struct bns_arena *a)
{
    struct kafka_bytes b;
    struct bns_slice out;

    assert_int_equal(kafka_encode(s, form, msg, 0, bns_alloc_libc(), &b), BNS_OK);
    out = joined(&b, a);
    kafka_bytes_free(&b);
    return out;
}

typedef void each_fn(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                     const struct kafka_form *form);

/* Every request and response in every version. */
static void each(each_fn *fn, int rounds)
{
    struct bns_prng g;
    struct bns_arena a;

    bns_prng_seed(&g, 20261123);
    for (size_t i = 0; i < kafka_apis_count; i++) {
        for (int v = kafka_apis[i].first; v <= kafka_apis[i].last; v++) {
            struct kafka_form form = kafka_form(&kafka_apis[i], v);
            for (int n = 0; n < rounds; n++) {
                bns_arena_init(&a, bns_alloc_libc(), ARENA_MAX);
                fn(&g, &a, kafka_apis[i].request, &form);
                fn(&g, &a, kafka_apis[i].response, &form);
                bns_arena_free(&a);
            }
        }
    }
}

static void there_and_back(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                           const struct kafka_form *form)
{
    void *msg = random_message(g, a, s, form->version), *again = NULL;
    struct bns_slice one = encoded(s, form, msg, a), in = one, two;
    struct bns_err err = {0};

    if (kafka_decode(s, form, &in, a, &again, &err) != BNS_OK)
        fail_msg("%s v%d: %s", s->name, form->version, err.text);
    assert_int_equal(in.len, 0);
    two = encoded(s, form, again, a);
    assert_true(bns_slice_eq(one, two));
}

static void what_is_encoded_decodes_to_the_same(void **state)
{
    (void)state;
    each(there_and_back, 20);
}

static void cut_everywhere(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                           const struct kafka_form *form)
{
    void *msg = random_message(g, a, s, form->version), *again = NULL;
    struct bns_slice whole = encoded(s, form, msg, a), in;
    uint8_t *copy;

    for (size_t n = 0; n < whole.len; n += 1 + whole.len / 300) {
        copy = malloc(n + 1); /* its own block, for the sanitizer to see the first byte too many */
        assert_non_null(copy);
        memcpy(copy, whole.ptr, n);
        in = bns_slice(copy, n);
        assert_int_equal(kafka_decode(s, form, &in, a, &again, NULL), BNS_E_PROTO);
        assert_null(again);
        free(copy);
    }
}

static void a_message_cut_anywhere_is_refused(void **state)
{
    (void)state;
    each(cut_everywhere, 1);
}

static void flipped(struct bns_prng *g, struct bns_arena *a, const struct kafka_struct *s,
                    const struct kafka_form *form)
{
    void *msg = random_message(g, a, s, form->version), *again = NULL;
    struct bns_slice whole = encoded(s, form, msg, a), in;
    uint8_t *copy = bns_arena_alloc(a, whole.len + 1);
    struct kafka_bytes b;

    for (size_t n = 0; n < whole.len; n += 1 + whole.len / 100) {
        memcpy(copy, whole.ptr, whole.len);
        copy[n] ^= (uint8_t)(1u << bns_prng_below(g, 8));
        in = bns_slice(copy, whole.len);
        if (kafka_decode(s, form, &in, a, &again, NULL) != BNS_OK)
            continue;
        assert_int_equal(kafka_encode(s, form, again, 0, bns_alloc_libc(), &b), BNS_OK);
        kafka_bytes_free(&b);
    }
}

static void a_flipped_bit_is_refused_or_another_message(void **state)
{
    (void)state;
    each(flipped, 2);
}

static void absent_keeps_default(struct bns_prng *g, struct bns_arena *a,
                                 const struct kafka_struct *s, const struct kafka_form *form)
{
    void *msg = kafka_new(s, a), *again = NULL;
    struct bns_slice in;
    struct kafka_bytes b;
    int rv = kafka_encode(s, form, msg, 0, bns_alloc_libc(), &b);

    (void)g;
    if (rv == BNS_E_INVALID)
        return; /* a default of null in a version that has no null */
    assert_int_equal(rv, BNS_OK);
    in = joined(&b, a);
    kafka_bytes_free(&b);
    assert_int_equal(kafka_decode(s, form, &in, a, &again, NULL), BNS_OK);
    for (size_t i = 0; i < s->fields_count; i++) {
        const struct kafka_field *f = &s->fields[i];
        size_t n = kafka_fixed_bytes(f->type);
        if (!f->array && n > 0)
            assert_memory_equal((uint8_t *)msg + f->at, (uint8_t *)again + f->at, n);
    }
}

static void fields_that_a_version_lacks_have_their_defaults(void **state)
{
    (void)state;
    each(absent_keeps_default, 1);
}

static struct bns_slice hex(struct bns_arena *a, const char *text)
{
    size_t n = strlen(text) / 2;
    uint8_t *p = bns_arena_alloc(a, n + 1);
    unsigned v = 0;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(sscanf(text + 2 * i, "%2x", &v), 1);
        p[i] = (uint8_t)v;
    }
    return bns_slice(p, n);
}

/* By hand from the protocol's description. */
static void bytes_are_those_of_the_protocol(void **state)
{
    struct bns_arena a;
    struct kafka_metadata_request *q;
    struct kafka_api_versions_response *r;
    struct kafka_form old = {0, false}, mid = {4, false}, flex = {12, true}, v3 = {3, true};
    struct bns_slice out;

    (void)state;
    bns_arena_init(&a, bns_alloc_libc(), ARENA_MAX);
    q = kafka_new(&kafka_metadata_request_schema, &a);
    out = encoded(&kafka_metadata_request_schema, &old, q, &a);
    assert_true(bns_slice_eq(out, hex(&a, "00000000")));
    q->topics.count = -1;
    out = encoded(&kafka_metadata_request_schema, &mid, q, &a);
    assert_true(bns_slice_eq(out, hex(&a, "ffffffff01")));
    q->topics.at = bns_arena_alloc(&a, sizeof *q->topics.at);
    q->topics.count = 1;
    kafka_preset(&kafka_metadata_request_topics_schema, q->topics.at);
    q->topics.at[0].name = BNS_LIT("ab");
    out = encoded(&kafka_metadata_request_schema, &flex, q, &a);
    assert_true(bns_slice_eq(out, hex(&a, "02"
                                          "00000000000000000000000000000000"
                                          "036162"
                                          "00"
                                          "01"
                                          "00"
                                          "00")));
    r = kafka_new(&kafka_api_versions_response_schema, &a);
    r->finalized_features_epoch = 5;
    out = encoded(&kafka_api_versions_response_schema, &v3, r, &a);
    assert_true(bns_slice_eq(out, hex(&a, "0000"
                                          "01"
                                          "00000000"
                                          "01"
                                          "01"
                                          "08"
                                          "0000000000000005")));
    bns_arena_free(&a);
}

static void what_is_not_in_the_rules_is_refused_by_name(void **state)
{
    static const struct {
        int key, version;
        const char *bytes, *says;
    } t[] = {
        {3, 0, "80000000", "field topics: negative or too large length"},
        {3, 0, "ffffffff", "field topics: null"},
        {3, 4, "7fffffff00", "field topics: more elements than bytes"},
        {3, 12, "00000000000000", NULL},
        {3, 12, "ffffffff0f", "field topics: negative or too large length"},
        {3, 12, "ffffffff07", "field topics: more elements than bytes"},
        {3, 12, "ffffffffff0f", "field topics: bad varint"},
        {3, 0, "00000001ffff", "field name: null"},
        {18, 3, "03616203616201020500", "kafka_api_versions_request: cut short"},
        {18, 3,
         "036162036162020500"
         "0500",
         "field kafka_api_versions_request: tags that do not rise"},
        {18, 3, "03616203616201050100", NULL},
    };
    struct bns_arena a;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const struct kafka_api *api = kafka_api(t[i].key);
        struct kafka_form form = kafka_form(api, t[i].version);
        struct bns_err err = {0};
        struct bns_slice in;
        void *msg = NULL;
        int rv;

        bns_arena_init(&a, bns_alloc_libc(), ARENA_MAX);
        in = hex(&a, t[i].bytes);
        rv = kafka_decode(api->request, &form, &in, &a, &msg, &err);
        if (t[i].says == NULL) {
            assert_int_equal(rv, BNS_OK);
        } else {
            assert_int_equal(rv, BNS_E_PROTO);
            if (strstr(err.text, t[i].says) == NULL)
                fail_msg("row %zu: '%s'", i, err.text);
        }
        bns_arena_free(&a);
    }
}

static void long_records_are_lent_not_copied(void **state)
{
    static uint8_t batch[100000];
    struct kafka_form form = kafka_form(kafka_api(KAFKA_KEY_PRODUCE), 9);
    struct kafka_produce_request *q;
    struct kafka_bytes b;
    struct bns_arena a;

    (void)state;
    bns_arena_init(&a, bns_alloc_libc(), ARENA_MAX);
    q = kafka_new(&kafka_produce_request_schema, &a);
    q->topic_data.count = 1;
    q->topic_data.at = kafka_new(&kafka_produce_request_topic_data_schema, &a);
    q->topic_data.at->partition_data.count = 1;
    q->topic_data.at->partition_data.at =
        kafka_new(&kafka_produce_request_partition_data_schema, &a);
    q->topic_data.at->partition_data.at->records = bns_slice(batch, sizeof batch);
    assert_int_equal(kafka_encode(&kafka_produce_request_schema, &form, q, 4, bns_alloc_libc(), &b),
                     BNS_OK);
    assert_int_equal(b.count, 3);
    assert_ptr_equal(b.slices[1].ptr, batch);
    assert_int_equal(b.slices[1].len, sizeof batch);
    bns_put_u32be(kafka_bytes_front(&b), (uint32_t)b.len - 4);
    assert_int_equal(bns_get_u32be(b.slices[0].ptr), b.len - 4);
    kafka_bytes_free(&b);
    bns_arena_free(&a);
}

static void null_where_there_is_none_is_refused(void **state)
{
    struct kafka_form form = {0, false};
    struct kafka_metadata_request q;
    struct kafka_bytes b;

    (void)state;
    kafka_preset(&kafka_metadata_request_schema, &q);
    q.topics.count = -1; /* from version 1 on */
    assert_int_equal(
        kafka_encode(&kafka_metadata_request_schema, &form, &q, 0, bns_alloc_libc(), &b),
        BNS_E_INVALID);
}

static void an_array_may_be_null_its_strings_may_not(void **state)
{
    struct kafka_form form = {4, true};
    struct kafka_describe_configs_request q;
    struct kafka_describe_configs_request_resources r;
    struct bns_slice names[2] = {BNS_LIT("a"), {NULL, 0}};
    struct kafka_bytes b;

    (void)state;
    kafka_preset(&kafka_describe_configs_request_schema, &q);
    kafka_preset(&kafka_describe_configs_request_resources_schema, &r);
    q.resources.at = &r;
    q.resources.count = 1;
    r.configuration_keys.count = -1;
    assert_int_equal(
        kafka_encode(&kafka_describe_configs_request_schema, &form, &q, 0, bns_alloc_libc(), &b),
        BNS_OK);
    kafka_bytes_free(&b);
    r.configuration_keys.at = names;
    r.configuration_keys.count = 2;
    assert_int_equal(
        kafka_encode(&kafka_describe_configs_request_schema, &form, &q, 0, bns_alloc_libc(), &b),
        BNS_E_INVALID);
}

static void too_long_a_string_is_refused(void **state)
{
    static uint8_t text[40000];
    struct kafka_form form = {0, false};
    struct kafka_find_coordinator_request q;
    struct kafka_bytes b;

    (void)state;
    kafka_preset(&kafka_find_coordinator_request_schema, &q);
    q.key = bns_slice(text, sizeof text);
    assert_int_equal(
        kafka_encode(&kafka_find_coordinator_request_schema, &form, &q, 0, bns_alloc_libc(), &b),
        BNS_E_TOOBIG);
}

static void an_arena_that_is_full_is_said(void **state)
{
    struct bns_prng g;
    struct bns_arena big, small;
    struct kafka_form form = kafka_form(kafka_api(KAFKA_KEY_METADATA), 9);
    struct bns_slice whole, in;
    void *msg, *again = NULL;
    bool seen = false, fits = false;

    (void)state;
    bns_prng_seed(&g, 3);
    bns_arena_init(&big, bns_alloc_libc(), ARENA_MAX);
    msg = random_message(&g, &big, &kafka_metadata_response_schema, 9);
    whole = encoded(&kafka_metadata_response_schema, &form, msg, &big);
    for (size_t max = 0; max < 8192 && !fits; max += 16) {
        int rv;
        bns_arena_init(&small, bns_alloc_libc(), max);
        in = whole;
        rv = kafka_decode(&kafka_metadata_response_schema, &form, &in, &small, &again, NULL);
        assert_true(rv == BNS_OK || rv == BNS_E_NOMEM);
        seen = seen || rv == BNS_E_NOMEM;
        fits = rv == BNS_OK;
        bns_arena_free(&small);
    }
    assert_true(seen && fits);
    bns_arena_free(&big);
}

static void messages_print_as_json(void **state)
{
    struct kafka_metadata_request q;
    struct kafka_metadata_request_topics topics[3];
    struct bns_buf b;

    (void)state;
    kafka_preset(&kafka_metadata_request_schema, &q);
    for (size_t i = 0; i < 3; i++)
        kafka_preset(&kafka_metadata_request_topics_schema, &topics[i]);
    topics[0].name = BNS_LIT("a\"b\n");
    topics[1].name = bns_slice(NULL, 0);
    topics[1].topic_id.bytes[15] = 1;
    topics[2].name = BNS_LIT("abcdefgh");
    q.topics.at = topics;
    q.topics.count = 3;
    bns_buf_init(&b, bns_alloc_libc(), 4096);
    assert_int_equal(kafka_print(&kafka_metadata_request_schema, 1, &q, 6, &b), BNS_OK);
    assert_int_equal(bns_buf_byte(&b, 0), BNS_OK);
    assert_string_equal((char *)b.ptr, "{\"topics\":[{\"name\":\"a\\\"b\\u000a\"},{\"name\":null},"
                                       "{\"name\":\"abcdef...(8)\"}]}");
    bns_buf_clear(&b);
    assert_int_equal(kafka_print(&kafka_metadata_request_schema, 12, &q, 2, &b), BNS_OK);
    assert_int_equal(bns_buf_byte(&b, 0), BNS_OK);
    assert_string_equal((char *)b.ptr,
                        "{\"topics\":[{\"topicId\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"name\":\"a\\\""
                        "...(4)\"},{\"topicId\":\"AAAAAAAAAAAAAAAAAAAAAQ\",\"name\":null},"
                        "\"...(1 more)\"],\"allowAutoTopicCreation\":true,"
                        "\"includeTopicAuthorizedOperations\":false}");
    bns_buf_free(&b);
}

static void uuids_go_to_22_letters_and_back(void **state)
{
    struct kafka_uuid u, v;
    struct bns_prng g;
    char text[KAFKA_UUID_TEXT];

    (void)state;
    bns_prng_seed(&g, 1);
    for (int n = 0; n < 1000; n++) {
        for (size_t i = 0; i < sizeof u.bytes; i++)
            u.bytes[i] = (uint8_t)bns_prng_next(&g);
        kafka_uuid_text(&u, text);
        assert_int_equal(strlen(text), 22);
        assert_true(kafka_uuid_parse(&v, bns_slice_str(text)));
        assert_memory_equal(&u, &v, sizeof u);
    }
    assert_true(kafka_uuid_parse(&v, BNS_LIT("AAAAAAAAAAAAAAAAAAAAAB"))); /* as in Java */
    assert_false(kafka_uuid_parse(&v, BNS_LIT("AAAAAAAAAAAAAAAAAAAAA+")));
    assert_false(kafka_uuid_parse(&v, BNS_LIT("AAAA")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_decodes_to_the_same),
        cmocka_unit_test(a_message_cut_anywhere_is_refused),
        cmocka_unit_test(a_flipped_bit_is_refused_or_another_message),
        cmocka_unit_test(fields_that_a_version_lacks_have_their_defaults),
        cmocka_unit_test(bytes_are_those_of_the_protocol),
        cmocka_unit_test(what_is_not_in_the_rules_is_refused_by_name),
        cmocka_unit_test(long_records_are_lent_not_copied),
        cmocka_unit_test(null_where_there_is_none_is_refused),
        cmocka_unit_test(an_array_may_be_null_its_strings_may_not),
        cmocka_unit_test(too_long_a_string_is_refused),
        cmocka_unit_test(an_arena_that_is_full_is_said),
        cmocka_unit_test(messages_print_as_json),
        cmocka_unit_test(uuids_go_to_22_letters_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
