/* Goal:   inspection looks at so much and no more, and pages of it leave nothing out: with keys
 *         that do not fit into a URL, keys of many revisions, and with little memory.
 * Method: an index of a store that is nothing else; answers are read back as JSON. What the running
 *         daemon answers is in tests/matrix/test_inspect.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "codec/base64.h"
#include "inspect.h"
#include "kv_impl.h"

#define KEY_MAX 3000u

static struct etcd_kv kv;

static void begin(void)
{
    memset(&kv, 0, sizeof kv);
    etcd_index_init(&kv.index, bns_alloc_libc(), 5);
}

static void add(const void *key, size_t len, int64_t main, uint32_t size)
{
    const struct etcd_rev rev = {.main = main, .create = main, .version = 1, .size = size};

    assert_int_equal(etcd_index_add(&kv.index, bns_slice(key, len), &rev), BNS_OK);
}

static json_t *ask(struct bns_slice from, uint32_t limit, uint32_t top)
{
    const struct etcd_inspect_page p = {.from = from, .limit = limit, .top = top};
    struct bns_buf b;
    json_t *v;

    bns_buf_init(&b, bns_alloc_libc(), 1u << 26);
    assert_int_equal(etcd_inspect_index(&kv, &p, &b), BNS_OK);
    v = json_loadb((const char *)b.ptr, b.len, 0, NULL);
    assert_non_null(v);
    bns_buf_free(&b);
    return v;
}

static json_int_t number(const json_t *v, const char *name)
{
    assert_true(json_is_integer(json_object_get(v, name)));
    return json_integer_value(json_object_get(v, name));
}

/* Keys that agree in more bytes than an answer shows, between short ones. */
static void pages_go_past_keys_that_are_too_long_to_be_told(void **state)
{
    static uint8_t key[KEY_MAX];
    static const uint8_t all = 0xff;
    json_int_t looked = 0;
    struct bns_buf from;
    unsigned pages = 0;
    bool more = true;
    (void)state;

    begin();
    memset(key, 'm', sizeof key);
    for (uint32_t i = 0; i < 50; i++) {
        key[KEY_MAX - 1] = (uint8_t)i;
        add(key, sizeof key, 2 + (int64_t)i, 100);
    }
    add("a", 1, 60, 10);
    add("z", 1, 61, 10);
    add(&all, 1, 62, 10);
    bns_buf_init(&from, bns_alloc_libc(), 16384);
    while (more) {
        json_t *v = ask(bns_buf_slice(&from), 20, 1);
        const json_t *next = json_object_get(v, "next");

        looked += number(v, "looked_at");
        more = next != NULL;
        bns_buf_clear(&from);
        if (more)
            assert_int_equal(bns_base64_decode(&from, bns_slice_str(json_string_value(next))),
                             BNS_OK);
        assert_true(from.len <= ETCD_INSPECT_KEY_MAX);
        json_decref(v);
        assert_true(++pages < 10);
    }
    assert_true(looked >= 20 + 2); /* those behind the long ones were reached */
    bns_buf_free(&from);
    etcd_index_free(&kv.index);
}

static void a_key_of_many_revisions_is_estimated_and_says_so(void **state)
{
    const json_t *first;
    json_t *v;
    (void)state;

    begin();
    for (int64_t i = 0; i < 5000; i++)
        add("busy", 4, 2 + i, 100);
    for (int64_t i = 0; i < 1024; i++)
        add("exact", 5, 10000 + i, 50);
    v = ask(bns_slice(NULL, 0), 10, 2);
    first = json_array_get(json_object_get(v, "largest"), 0);
    assert_true(json_is_true(json_object_get(first, "estimated")));
    assert_int_equal(number(first, "bytes"), 500000);
    first = json_array_get(json_object_get(v, "largest"), 1);
    assert_false(json_is_true(json_object_get(first, "estimated")));
    assert_int_equal(number(first, "bytes"), 51200);
    assert_int_equal(number(v, "looked_at"), 2);
    json_decref(v);
    etcd_index_free(&kv.index);
}

static void a_page_ends_at_its_bound_of_revisions(void **state)
{
    json_t *v;
    (void)state;

    begin();
    for (uint32_t k = 0; k < 600; k++) {
        char key[8];
        int len = snprintf(key, sizeof key, "%05u", k);

        for (int64_t i = 0; i < 1024; i++)
            add(key, (size_t)len, 2 + i, 1);
    }
    v = ask(bns_slice(NULL, 0), ETCD_INSPECT_LIMIT_MAX, 0);
    assert_int_equal(number(v, "looked_at"), 256); /* times 1,024 is the bound */
    assert_non_null(json_object_get(v, "next"));
    assert_int_equal(json_array_size(json_object_get(v, "largest")), 0);
    json_decref(v);
    etcd_index_free(&kv.index);
}

static void the_largest_come_first_however_many_are_asked_for(void **state)
{
    static const uint32_t tops[] = {0, 1, 3, 20, ETCD_INSPECT_TOP_MAX};
    (void)state;

    begin();
    for (uint32_t k = 0; k < 40; k++) {
        char key[8];
        int len = snprintf(key, sizeof key, "%05u", k);

        add(key, (size_t)len, 2 + k, 1 + k * 7 % 40);
    }
    for (size_t t = 0; t < sizeof tops / sizeof tops[0]; t++) {
        json_t *v = ask(bns_slice(NULL, 0), 1000, tops[t]), *list = json_object_get(v, "largest");

        assert_int_equal(json_array_size(list), tops[t] < 40 ? tops[t] : 40);
        for (size_t i = 0; i < json_array_size(list); i++)
            assert_int_equal(number(json_array_get(list, i), "bytes"), 40 - (json_int_t)i);
        json_decref(v);
    }
    etcd_index_free(&kv.index);
}

static void without_memory_it_says_so(void **state)
{
    const struct etcd_inspect_page p = {.limit = 100, .top = 10};
    struct bns_buf b;
    int rv = BNS_E_TOOBIG;
    (void)state;

    begin();
    add("key", 3, 2, 10);
    for (size_t room = 0; rv != BNS_OK; room++) { /* an answer of n bytes at most */
        assert_true(room < 1000);
        bns_buf_init(&b, bns_alloc_libc(), room);
        rv = etcd_inspect_index(&kv, &p, &b);
        assert_true(rv == BNS_OK || rv == BNS_E_TOOBIG);
        bns_buf_free(&b);
    }
    etcd_index_free(&kv.index);
}

static void text_from_outside_is_a_json_string(void **state)
{
    const struct bns_slice text = BNS_LIT("a\"b\\c\n\x01\xc3\xbc");
    struct bns_buf b;
    json_t *v;
    (void)state;

    bns_buf_init(&b, bns_alloc_libc(), 1000);
    assert_int_equal(etcd_inspect_text(&b, text), BNS_OK);
    v = json_loadb((const char *)b.ptr, b.len, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    assert_int_equal(json_string_length(v), text.len);
    assert_memory_equal(json_string_value(v), text.ptr, text.len);
    json_decref(v);
    bns_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_go_past_keys_that_are_too_long_to_be_told),
        cmocka_unit_test(a_key_of_many_revisions_is_estimated_and_says_so),
        cmocka_unit_test(a_page_ends_at_its_bound_of_revisions),
        cmocka_unit_test(the_largest_come_first_however_many_are_asked_for),
        cmocka_unit_test(without_memory_it_says_so),
        cmocka_unit_test(text_from_outside_is_a_json_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
