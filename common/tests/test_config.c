/* test_config.c - a right file is read, a wrong one is refused with its line and the nearest
 * name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/config.h"
#include "base/time.h"
#include "sim/heap.h"

struct options {
    const char *dir, *level;
    uint64_t id, election, segment;
    bool lease_reads;
};

#define KEYS(o)                                                                                    \
    {                                                                                              \
        {"node", "id", BNS_VALUE_U64, &(o)->id}, {"node", "data_dir", BNS_VALUE_STR, &(o)->dir},   \
            {"raft", "election", BNS_VALUE_DURATION, &(o)->election},                              \
            {"raft", "lease-reads", BNS_VALUE_BOOL, &(o)->lease_reads},                            \
            {"wal", "segment", BNS_VALUE_BYTES, &(o)->segment},                                    \
            {"log", "level", BNS_VALUE_STR, &(o)->level}, {NULL, NULL, BNS_VALUE_STR, NULL},       \
    }

static int parse(struct options *o, const char *text, struct bns_arena *arena, struct bns_err *err)
{
    const struct bns_config_key keys[] = KEYS(o);

    return bns_config_parse("c.yaml", bns_slice_str(text), keys, arena, err);
}

static const char whole[] = "# a comment\n"
                            "node:\n"
                            "  id: 3\n"
                            "  data_dir: \"/var/lib/x\"\n"
                            "raft: {election: 1s, lease-reads: true}\n"
                            "wal:\n"
                            "  segment: 16MiB\n";

static void a_file_sets_what_it_names(void **state)
{
    struct options o = {.level = "info"};
    struct bns_arena arena;
    struct bns_err err = {0};
    (void)state;

    bns_arena_init(&arena, bns_alloc_libc(), 4096);
    assert_int_equal(parse(&o, whole, &arena, &err), BNS_OK);
    assert_int_equal(o.id, 3);
    assert_string_equal(o.dir, "/var/lib/x");
    assert_true(o.election == BNS_SEC);
    assert_true(o.lease_reads);
    assert_true(o.segment == 16u << 20);
    assert_string_equal(o.level, "info"); /* not named: the default stays */
    bns_arena_free(&arena);
}

static void empty_files_are_legal(void **state)
{
    static const char *const texts[] = {"", "\n", "# nothing\n", "---\n", "{}\n", "node: {}\n"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct options o = {.id = 9};
        struct bns_arena arena;

        bns_arena_init(&arena, bns_alloc_libc(), 4096);
        assert_int_equal(parse(&o, texts[i], &arena, NULL), BNS_OK);
        assert_int_equal(o.id, 9);
        bns_arena_free(&arena);
    }
}

static void a_wrong_file_is_refused_with_its_line(void **state)
{
    static const struct {
        const char *text, *error;
    } t[] = {
        {"nod:\n  id: 3\n", "c.yaml:1: unknown section 'nod'; did you mean 'node'?"},
        {"zebra:\n  id: 3\n", "c.yaml:1: unknown section 'zebra'"},
        {"node:\n  idd: 3\n", "c.yaml:2: unknown key 'idd'; did you mean 'id'?"},
        {"node:\n  id: 3\n  dat_dir: x\n",
         "c.yaml:3: unknown key 'dat_dir'; did you mean 'data_dir'?"},
        {"node:\n  election: 1s\n", "c.yaml:2: unknown key 'election'"},
        {"node:\n  id: three\n", "c.yaml:2: node.id: expected a whole number, found 'three'"},
        {"node:\n  id:\n", "c.yaml:2: node.id: expected a whole number"},
        {"node:\n  id: [1, 2]\n", "c.yaml:2: node.id: expected a whole number"},
        {"node:\n  data_dir: {a: b}\n", "c.yaml:2: node.data_dir: expected text"},
        {"raft:\n  lease-reads: yes\n",
         "c.yaml:2: raft.lease-reads: expected true or false, found 'yes'"},
        {"raft:\n  election: 1000\n",
         "c.yaml:2: raft.election: expected a duration such as 200ms, found '1000'"},
        {"node:\n  id: 3\nlog:\nnode:\n", "c.yaml:3: expected indented 'key: value' lines below "
                                          "the section's name"},
        {"node:\n  id: 3\nnode:\n  id: 4\n", "c.yaml:3: section 'node' stands on line 1 already"},
        {"node:\n  id: 3\n  id: 4\n", "c.yaml:3: key 'id' stands on line 2 already"},
        {"- node\n", "c.yaml:1: expected sections, such as 'log:'"},
        {"node\n", "c.yaml:1: expected sections, such as 'log:'"},
        {"node: 3\n", "c.yaml:1: expected indented 'key: value' lines below the section's name"},
        {"? [a]\n: b\n", "c.yaml:1: expected the name of a section"},
        {"node:\n  ? [a]\n  : b\n", "c.yaml:2: expected the name of a key"},
        {"node: {id: 1}\n---\nnode: {id: 2}\n",
         "c.yaml:2: a second document; one is all there may be"},
        {"node:\n  id: *x\n", "c.yaml:2: node.id: expected a whole number"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct options o = {0};
        struct bns_arena arena;
        struct bns_err err = {0};

        bns_arena_init(&arena, bns_alloc_libc(), 4096);
        assert_int_equal(parse(&o, t[i].text, &arena, &err), BNS_E_INVALID);
        assert_string_equal(err.text, t[i].error);
        bns_arena_free(&arena);
    }
}

static void broken_yaml_names_its_line(void **state)
{
    struct options o = {0};
    struct bns_arena arena;
    struct bns_err err = {0};
    (void)state;

    bns_arena_init(&arena, bns_alloc_libc(), 4096);
    assert_int_equal(parse(&o, "node:\n  id: 3\n bad\n", &arena, &err), BNS_E_INVALID);
    assert_non_null(strstr(err.text, "c.yaml:"));
    assert_non_null(strstr(err.text, "not YAML"));
    bns_arena_free(&arena);
}

/* As etcd's own files: lists where the key has the kind, keys with nothing behind them. */
static void a_flat_file_has_lists_and_empty_keys(void **state)
{
    static const struct {
        const char *text, *list, *error;
    } t[] = {
        {"list: [a, b]\nid: 3\n", "a,b", NULL},
        {"list:\n  - a\nid: 3\n", "a", NULL},
        {"list: a,b\nid: 3\n", "a,b", NULL},
        {"list: []\nid: 3\n", "", NULL},
        {"list:\nid: 3\n", "was", NULL},
        {"list: ~\nid: 3\nname: null\n", "was", NULL},
        {"list: [a, [b]]\n", NULL, "c.yaml:1: list: expected a list of words"},
        {"list: ['a,b']\n", NULL, "c.yaml:1: list: expected a list of words"},
        {"list: ['']\n", NULL, "c.yaml:1: list: expected a list of words"},
        {"list: {a: b}\n", NULL, "c.yaml:1: list: expected a list of words"},
        {"name: [a]\n", NULL, "c.yaml:1: name: expected text"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *list = "was", *name = "was";
        uint64_t id = 0;
        const struct bns_config_key keys[] = {{"", "list", BNS_VALUE_LIST, &list},
                                              {"", "name", BNS_VALUE_STR, &name},
                                              {"", "id", BNS_VALUE_U64, &id},
                                              {NULL, NULL, BNS_VALUE_STR, NULL}};
        struct bns_arena arena;
        struct bns_err err = {0};
        int rv;

        bns_arena_init(&arena, bns_alloc_libc(), 4096);
        rv = bns_config_parse("c.yaml", bns_slice_str(t[i].text), keys, &arena, &err);
        assert_int_equal(rv, t[i].error == NULL ? BNS_OK : BNS_E_INVALID);
        if (t[i].error != NULL) {
            assert_string_equal(err.text, t[i].error);
        } else {
            assert_string_equal(list, t[i].list);
            assert_string_equal(name, "was");
            assert_int_equal(id, 3);
        }
        bns_arena_free(&arena);
    }
}

static void the_environment_wins_over_the_file(void **state)
{
    struct options o = {.id = 1};
    const struct bns_config_key keys[] = KEYS(&o);
    char id[] = "BNS_NODE_ID=7", lease[] = "BNS_RAFT_LEASE_READS=true";
    char other[] = "BNS_SEED=3", empty[] = "BNS_NODE_DATA_DIR=", bad[] = "BNS_WAL_SEGMENT=big";
    char *good[] = {id, lease, other, empty, NULL};
    char *wrong[] = {bad, NULL};
    struct bns_err err = {0};
    (void)state;

    assert_int_equal(bns_config_env(keys, good, &err), BNS_OK);
    assert_int_equal(o.id, 7);
    assert_true(o.lease_reads);
    assert_null(o.dir);
    assert_int_equal(bns_config_env(keys, wrong, &err), BNS_E_INVALID);
    assert_string_equal(err.text, "environment variable BNS_WAL_SEGMENT: expected a size such as "
                                  "64MiB, found 'big'");
}

/* What --print-config prints sets the same values again. */
static void a_printed_configuration_reads_back(void **state)
{
    struct options a = {
        .dir = "odd \" \\ \n \x01 name", .id = 5, .election = 1500, .segment = 4096};
    struct options b = {0};
    const struct bns_config_key keys[] = KEYS(&a);
    struct bns_buf out;
    struct bns_arena arena;
    (void)state;

    bns_buf_init(&out, bns_alloc_libc(), 65536);
    bns_arena_init(&arena, bns_alloc_libc(), 4096);
    assert_int_equal(bns_config_print(keys, &out), BNS_OK);
    assert_int_equal(bns_buf_byte(&out, 0), BNS_OK);
    assert_int_equal(parse(&b, (const char *)out.ptr, &arena, NULL), BNS_OK);
    assert_string_equal(b.dir, a.dir);
    assert_int_equal(b.id, 5);
    assert_int_equal(b.election, 1500);
    assert_int_equal(b.segment, 4096);
    assert_string_equal(b.level, "");
    bns_arena_free(&arena);
    bns_buf_free(&out);
}

static void no_memory_is_an_error(void **state)
{
    bool fired = true;
    (void)state;
    for (int n = 1; fired; n++) {
        struct bns_test_heap *h = bns_test_heap(n);
        struct bns_arena arena;
        struct options o = {0};
        int rv;

        bns_arena_init(&arena, bns_test_heap_alloc(h), 4096);
        rv = parse(&o, whole, &arena, NULL);
        bns_arena_free(&arena);
        assert_int_equal(bns_test_heap_close(h, &fired), 0);
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
    }
}

static void every_cut_of_a_file_is_read_or_refused(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof whole; len++) {
        struct options o = {0};
        const struct bns_config_key keys[] = KEYS(&o);
        struct bns_arena arena;
        int rv;

        bns_arena_init(&arena, bns_alloc_libc(), 4096);
        rv = bns_config_parse("c", bns_slice(whole, len), keys, &arena, NULL);
        assert_true(rv == BNS_OK || rv == BNS_E_INVALID);
        bns_arena_free(&arena);
    }
}

static void a_missing_file_is_named(void **state)
{
    struct options o = {0};
    const struct bns_config_key keys[] = KEYS(&o);
    struct bns_err err = {0};
    (void)state;

    assert_int_equal(bns_config_load("/nonexistent/c.yaml", keys, NULL, &err), BNS_E_NOTFOUND);
    assert_string_equal(err.text, "/nonexistent/c.yaml: No such file or directory");
    assert_int_equal(bns_config_load("/", keys, NULL, &err), BNS_E_IO);
    assert_int_equal(bns_config_load("/dev/zero", keys, NULL, &err), BNS_E_TOOBIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_sets_what_it_names),
        cmocka_unit_test(empty_files_are_legal),
        cmocka_unit_test(a_wrong_file_is_refused_with_its_line),
        cmocka_unit_test(broken_yaml_names_its_line),
        cmocka_unit_test(a_flat_file_has_lists_and_empty_keys),
        cmocka_unit_test(the_environment_wins_over_the_file),
        cmocka_unit_test(a_printed_configuration_reads_back),
        cmocka_unit_test(no_memory_is_an_error),
        cmocka_unit_test(every_cut_of_a_file_is_read_or_refused),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
