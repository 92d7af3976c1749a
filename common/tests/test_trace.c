/* test_trace.c - traces are written and read the same, bounded, and refused when damaged.
 *
 * Method: tables of damaged files; every cut and every flipped byte of a small good one; a world
 *         that is recorded runs as it does without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sim/heap.h"
#include "sim/trace.h"
#include "sim/world.h"

static struct bns_trace *small(size_t max, unsigned rounds)
{
    struct bns_trace *t;

    assert_int_equal(bns_trace_new(bns_alloc_libc(), 0x1f2e, max, &t), BNS_OK);
    bns_trace_title(t, "two \"nodes\" \\ and \x01");
    bns_trace_node(t, "n0", true);
    bns_trace_node(t, "c0", false);
    for (uint64_t i = 0; i < rounds; i++) {
        const struct bns_trace_event ev[] = {
            {.t = i * 10, .node = 0, .peer = BNS_TRACE_NONE, .kind = BNS_TRACE_START},
            {.t = i * 10 + 1,
             .node = 0,
             .peer = BNS_TRACE_NONE,
             .kind = BNS_TRACE_ROLE,
             .id = i + 1,
             .text = "leader"},
            {.t = i * 10 + 2, .node = 1, .peer = 0, .kind = BNS_TRACE_SEND, .id = i, .bytes = 9},
            {.t = i * 10 + 3, .node = 0, .peer = 1, .kind = BNS_TRACE_RECV, .id = i, .bytes = 9},
            {.t = i * 10 + 4,
             .node = BNS_TRACE_NONE,
             .peer = BNS_TRACE_NONE,
             .kind = BNS_TRACE_FAULT,
             .text = "heal"},
        };
        for (size_t k = 0; k < sizeof ev / sizeof ev[0]; k++)
            bns_trace_add(t, &ev[k]);
    }
    return t;
}

static struct bns_buf text_of(const struct bns_trace *t)
{
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 1u << 24);
    assert_int_equal(bns_trace_write(t, &b), BNS_OK);
    return b;
}

static void what_is_written_is_read(void **state)
{
    struct bns_trace *t = small(0, 3), *back = NULL;
    struct bns_buf one = text_of(t), two;

    (void)state;
    assert_int_equal(bns_trace_parse(bns_alloc_libc(), bns_buf_slice(&one), &back, NULL), BNS_OK);
    two = text_of(back);
    assert_true(bns_slice_eq(bns_buf_slice(&one), bns_buf_slice(&two)));
    assert_int_equal(bns_trace_count(back), 15);
    assert_int_equal(bns_trace_nodes(back), 2);
    assert_true(bns_trace_seed(back) == 0x1f2e);
    assert_string_equal(bns_trace_at(back, 1).text, "leader");
    assert_int_equal(bns_trace_at(back, 4).node, BNS_TRACE_NONE);
    bns_buf_free(&one);
    bns_buf_free(&two);
    bns_trace_free(t);
    bns_trace_free(back);
}

static void an_empty_trace_is_one_line(void **state)
{
    struct bns_trace *t = small(4, 0), *back = NULL;
    struct bns_buf b = text_of(t);

    (void)state;
    assert_int_equal(bns_trace_parse(bns_alloc_libc(), bns_buf_slice(&b), &back, NULL), BNS_OK);
    assert_int_equal(bns_trace_count(back), 0);
    bns_buf_free(&b);
    bns_trace_free(t);
    bns_trace_free(back);
}

/* The oldest events go; the header tells how many, and how the nodes stood. */
static void a_long_run_keeps_its_end(void **state)
{
    struct bns_trace *t = small(7, 100), *back = NULL;
    struct bns_buf b = text_of(t);
    struct bns_slice head = {b.ptr, (size_t)((uint8_t *)memchr(b.ptr, '\n', b.len) - b.ptr)};

    (void)state;
    assert_int_equal(bns_trace_count(t), 7);
    assert_true(bns_trace_skipped(t) == 493);
    assert_true(bns_trace_at(t, 6).t == 994);
    assert_non_null(memmem(head.ptr, head.len, "\"state\":\"up\",\"role\":\"leader\"", 28));
    assert_int_equal(bns_trace_parse(bns_alloc_libc(), bns_buf_slice(&b), &back, NULL), BNS_OK);
    assert_true(bns_trace_skipped(back) == 493);
    bns_buf_free(&b);
    bns_trace_free(t);
    bns_trace_free(back);
}

#define HEAD                                                                                       \
    "{\"format\":\"bonsai-trace\",\"version\":1,\"seed\":\"0x1\",\"title\":\"\",\"events\":1,"     \
    "\"skipped\":0,\"nodes\":[{\"name\":\"a\",\"kind\":\"server\",\"state\":\"up\","               \
    "\"role\":\"\"}]}\n"

static void damaged_files_are_refused_with_line_and_reason(void **state)
{
    static const struct {
        const char *text, *why;
    } t[] = {
        {"", "line 1: the header is missing"},
        {"{}\n", "line 1: this is no bonsai-trace header"},
        {"[1]\n", "line 1: not an object"},
        {"{\"format\":\"bonsai-trace\",\"version\":2}\n", "line 1: a version"},
        {"{\"format\":\"bonsai-trace\",\"version\":1,\"events\":9000000}\n", "line 1: the number"},
        {"{\"format\":\"bonsai-trace\",\"version\":1,\"events\":90}\n",
         "line 1: the header names more events"},
        {"{\"format\":\"bonsai-trace\",\"version\":1,\"seed\":\"7\"}\n", "line 1: nodes is not"},
        {"{\"format\":\"bonsai-trace\",\"version\":1,\"seed\":\"0x-1\",\"nodes\":[1]}\n",
         "line 1: the seed is not"},
        {"{\"format\":\"bonsai-trace\",\"version\":1,\"seed\":\"0x1\",\"nodes\":[1]}\n",
         "line 1: a node is not"},
        {HEAD "          \n          ", "line 2: '[' or '{' expected"},
        {HEAD "{\"t\":1,\"kind\":\"start\",\"node\":0}", "line 2: cut short"},
        {HEAD "{\"t\":1,\"kind\":\"burn\",\"node\":0}\n", "line 2: an unknown kind"},
        {HEAD "{\"t\":-1,\"kind\":\"start\",\"node\":0}\n", "line 2: t, id or bytes"},
        {HEAD "{\"kind\":\"start\",\"node\":0}\n", "line 2: t, id or bytes"},
        {HEAD "{\"t\":1,\"kind\":\"start\",\"node\":1}\n", "line 2: node or peer"},
        {HEAD "{\"t\":1,\"kind\":\"send\",\"node\":0}\n", "line 2: a message without"},
        {HEAD "{\"t\":1,\"t\":2,\"kind\":\"start\",\"node\":0}\n", "line 2: duplicate"},
        {HEAD "{\"t\":1,\"kind\":\"start\",\"node\":0}\n{\"t\":2,\"kind\":\"pause\"}\n",
         "line 3: more events"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_trace *out = NULL;
        struct bns_err err = {0};

        print_message("  %s\n", t[i].why);
        assert_int_equal(bns_trace_parse(bns_alloc_libc(), bns_slice_str(t[i].text), &out, &err),
                         BNS_E_INVALID);
        if (strstr(err.text, t[i].why) == NULL)
            fail_msg("%s", err.text);
    }
}

static void every_cut_is_refused_and_no_flip_crashes(void **state)
{
    struct bns_trace *t = small(0, 2);
    struct bns_buf b = text_of(t);

    (void)state;
    for (size_t i = 0; i < b.len; i++) {
        struct bns_trace *out = NULL;

        assert_int_equal(bns_trace_parse(bns_alloc_libc(), bns_slice(b.ptr, i), &out, NULL),
                         BNS_E_INVALID);
    }
    for (size_t i = 0; i < b.len * 8; i++) {
        struct bns_trace *out = NULL;

        b.ptr[i / 8] ^= (uint8_t)(1u << i % 8);
        if (bns_trace_parse(bns_alloc_libc(), bns_buf_slice(&b), &out, NULL) == BNS_OK)
            bns_trace_free(out);
        b.ptr[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    bns_buf_free(&b);
    bns_trace_free(t);
}

static void new_and_parse_survive_no_memory(void **state)
{
    struct bns_trace *t = small(0, 2);
    struct bns_buf b = text_of(t);
    bool fired = true;

    (void)state;
    for (int n = 1; fired; n++) {
        struct bns_test_heap *h = bns_test_heap(n);
        struct bns_trace *out = NULL;
        int rv = bns_trace_parse(bns_test_heap_alloc(h), bns_buf_slice(&b), &out, NULL);

        bns_trace_free(out);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
    bns_buf_free(&b);
    bns_trace_free(t);
}

static uint64_t run_world(struct bns_trace *t)
{
    struct bns_world_config cfg = bns_world_swarm(7, 3, 2, false);
    struct bns_world *w;
    uint64_t hash;

    assert_int_equal(bns_world_new(7, &cfg, &w), BNS_OK);
    bns_world_record(w, t);
    bns_world_nemesis(w, true);
    assert_null(bns_world_run(w, 20 * BNS_SEC, NULL, NULL));
    bns_world_heal(w);
    hash = bns_world_trace_hash(w);
    bns_world_free(w);
    return hash;
}

static void recording_changes_nothing(void **state)
{
    struct bns_trace *t;

    (void)state;
    assert_int_equal(bns_trace_new(bns_alloc_libc(), 7, 0, &t), BNS_OK);
    assert_true(run_world(t) == run_world(NULL));
    assert_int_equal(bns_trace_nodes(t), 3);
    assert_true(bns_trace_count(t) > 0);
    bns_trace_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_empty_trace_is_one_line),
        cmocka_unit_test(a_long_run_keeps_its_end),
        cmocka_unit_test(damaged_files_are_refused_with_line_and_reason),
        cmocka_unit_test(every_cut_is_refused_and_no_flip_crashes),
        cmocka_unit_test(new_and_parse_survive_no_memory),
        cmocka_unit_test(recording_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
