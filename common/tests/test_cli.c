/* test_cli.c - flags are read as the real etcd reads them, and a wrong one names the right one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/cli.h"
#include "base/time.h"

struct options {
    const char *name;
    const char *data_dir;
    uint64_t nodes, pause, quota;
    bool detach, name_given;
};

#define ARGS_MAX 8

static int parse(struct options *o, const char *const *args, bool stop, struct bns_cli_words *words,
                 char **argv, struct bns_err *err)
{
    const struct bns_cli_flag flags[] = {
        {"name", 0, BNS_VALUE_STR, &o->name, "a name", &o->name_given},
        {"data-dir", 0, BNS_VALUE_STR, &o->data_dir, "a directory", NULL},
        {"nodes", 'n', BNS_VALUE_U64, &o->nodes, "how many", NULL},
        {"pause", 0, BNS_VALUE_DURATION, &o->pause, "how long", NULL},
        {"quota", 0, BNS_VALUE_BYTES, &o->quota, "how much", NULL},
        {"detach", 'd', BNS_VALUE_BOOL, &o->detach, "go away", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    struct bns_cli cli = {"prog", "prog [flags]", NULL, "1", flags, stop};
    int argc = 1;

    argv[0] = (char *)(uintptr_t) "prog";
    while (argc < ARGS_MAX && args[argc - 1] != NULL) {
        argv[argc] = (char *)(uintptr_t)args[argc - 1];
        argc++;
    }
    return bns_cli_parse(&cli, argc, argv, words, err);
}

static void every_form_of_a_flag_is_read(void **state)
{
    static const char *const forms[][ARGS_MAX] = {
        {"--name", "n1", "--nodes", "3", "--detach"},
        {"--name=n1", "--nodes=3", "--detach=true"},
        {"-name", "n1", "-nodes=3", "-detach"},
        {"--name=x", "--name=n1", "-n", "3", "-d"},
        {"--name=n1", "-n", "3", "--detach=false", "--detach=1"},
        {"--name=n1", "-n", "3", "--detach=T"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct options o = {0};
        struct bns_cli_words words;
        struct bns_err err = {0};
        char *argv[ARGS_MAX];

        assert_int_equal(parse(&o, forms[i], false, &words, argv, &err), BNS_OK);
        assert_string_equal(o.name, "n1");
        assert_true(o.name_given);
        assert_int_equal(o.nodes, 3);
        assert_true(o.detach);
        assert_int_equal(words.count, 0);
    }
}

static void a_wrong_flag_names_what_is_wrong(void **state)
{
    static const struct {
        const char *args[ARGS_MAX];
        const char *text;
    } t[] = {
        {{"--nmae", "n1"}, "unknown flag --nmae; did you mean --name?"},
        {{"--data_dir=x"}, "unknown flag --data_dir; did you mean --data-dir?"},
        {{"--verson"}, "unknown flag --verson; did you mean --version?"},
        {{"--frobnicate"}, "unknown flag --frobnicate; see prog --help"},
        {{"--"
          "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
         "unknown flag --xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; "
         "see prog --help"},
        {{"--name"}, "--name needs a value: text"},
        {{"--nodes", "three"}, "--nodes: expected a whole number, found 'three'"},
        {{"--nodes", "-1"}, "--nodes: expected a whole number, found '-1'"},
        {{"--nodes", "18446744073709551616"},
         "--nodes: expected a whole number, found '18446744073709551616'"},
        {{"--detach=yes"}, "--detach: expected true or false, found 'yes'"},
        {{"--pause", "5"}, "--pause: expected a duration such as 200ms, found '5'"},
        {{"--quota", "2 apples"}, "--quota: expected a size such as 64MiB, found '2 apples'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct options o = {0};
        struct bns_cli_words words;
        struct bns_err err = {0};
        char *argv[ARGS_MAX];

        assert_int_equal(parse(&o, t[i].args, false, &words, argv, &err), BNS_E_INVALID);
        assert_string_equal(err.text, t[i].text);
    }
}

static void values_have_units(void **state)
{
    static const char *const args[] = {
        "--pause", "1.5s", "--quota=64MiB", "--nodes", "18446744073709551615", NULL};
    struct options o = {0};
    struct bns_cli_words words;
    char *argv[ARGS_MAX];
    (void)state;

    assert_int_equal(parse(&o, args, false, &words, argv, NULL), BNS_OK);
    assert_true(o.pause == 1500 * BNS_MS);
    assert_true(o.quota == 64u << 20);
    assert_true(o.nodes == UINT64_MAX);
}

static void words_keep_their_order(void **state)
{
    static const char *const mixed[] = {"up", "--nodes", "3", "etcd-lite", "--", "--name", NULL};
    static const char *const verb[] = {"-d", "up", "--nodes", "3", NULL};
    struct options o = {0};
    struct bns_cli_words words;
    char *argv[ARGS_MAX];
    (void)state;

    assert_int_equal(parse(&o, mixed, false, &words, argv, NULL), BNS_OK);
    assert_int_equal(words.count, 3);
    assert_string_equal(argv[1], "up");
    assert_string_equal(argv[2], "etcd-lite");
    assert_string_equal(argv[3], "--name");

    /* With a verb the flags behind it are the verb's. */
    o = (struct options){0};
    assert_int_equal(parse(&o, verb, true, &words, argv, NULL), BNS_OK);
    assert_true(o.detach);
    assert_int_equal(words.count, 3);
    assert_string_equal(argv[1], "up");
    assert_string_equal(argv[2], "--nodes");
    assert_int_equal(o.nodes, 0);
}

static void help_and_version_are_always_there(void **state)
{
    static const char *const forms[][2] = {{"--help"}, {"-h"}, {"-help"}, {"--version"}};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct options o = {0};
        struct bns_cli_words words;
        char *argv[ARGS_MAX];

        assert_int_equal(parse(&o, forms[i], false, &words, argv, NULL), BNS_OK);
        assert_int_equal(words.help, i < 3);
        assert_int_equal(words.version, i == 3);
    }
}

static void the_environment_sets_flags(void **state)
{
    const char *dir = "default";
    uint64_t nodes = 1;
    const struct bns_cli_flag flags[] = {
        {"data-dir", 0, BNS_VALUE_STR, &dir, "", NULL},
        {"nodes", 0, BNS_VALUE_U64, &nodes, "", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    struct bns_cli cli = {"prog", "prog", NULL, "1", flags, false};
    char good[] = "ETCD_DATA_DIR=/x", empty[] = "ETCD_NODES=", other[] = "ETCD_UNKNOWN=1";
    char alien[] = "DATA_DIR=/y", bad[] = "ETCD_NODES=many";
    char *environ_good[] = {good, empty, other, alien, NULL};
    char *environ_bad[] = {bad, NULL};
    struct bns_err err = {0};
    (void)state;

    assert_int_equal(bns_cli_env(&cli, "ETCD_", environ_good, &err), BNS_OK);
    assert_string_equal(dir, "/x");
    assert_int_equal(nodes, 1);
    assert_int_equal(bns_cli_env(&cli, "ETCD_", environ_bad, &err), BNS_E_INVALID);
    assert_string_equal(err.text, "environment variable ETCD_NODES: --nodes: expected a whole "
                                  "number, found 'many'");
}

static void the_nearest_word_is_near(void **state)
{
    static const char *const words[] = {"up", "down", "status", "logs", "wal"};
    static const struct {
        const char *word, *near;
    } t[] = {
        {"stauts", "status"}, {"STATUS", "status"}, {"log", "logs"}, {"don", "down"},
        {"wall", "wal"},      {"xyzzy", NULL},      {"", NULL},      {"u", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *near = bns_nearest(t[i].word, words, 5);

        print_message("  %s\n", t[i].word);
        if (t[i].near == NULL)
            assert_null(near);
        else
            assert_string_equal(near, t[i].near);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_a_flag_is_read),
        cmocka_unit_test(a_wrong_flag_names_what_is_wrong),
        cmocka_unit_test(values_have_units),
        cmocka_unit_test(words_keep_their_order),
        cmocka_unit_test(help_and_version_are_always_there),
        cmocka_unit_test(the_environment_sets_flags),
        cmocka_unit_test(the_nearest_word_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
