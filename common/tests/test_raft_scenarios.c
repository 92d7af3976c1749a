/* Goal:   the scenarios in tests/scenarios/raft_*.txt come out as they are written there.
 * Method: each script is run and its text compared, whole. `test_raft_scenarios --rewrite` stores
 *         what came out; the difference is then reviewed like prose.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sim/raft_script.h"

static const char *const names[] = {
    "bootstrap",
    "figure8",
    "stale_read",
    "prevote",
    "conflict_hints",
    "snapshot",
    "slow_follower",
    "read_batch",
    "one_way",
    "forward",
    "uncommitted",
    "restart_vote",
    "parallel_write",
    "check_quorum",
    "snapshot_retry",
    "late_members",
    "add_voter",
    "learner",
    "joint",
    "change_rules",
    "remove_leader",
    "remove_leader_of_two",
    "smaller_quorum",
    "removed_follower",
    "transfer",
    "room",
};

static bool rewrite;

static void path_of(const char *name, char *out, size_t len)
{
    /* ctest runs in common/, people anywhere in the tree's root */
    FILE *f;
    (void)snprintf(out, len, "tests/scenarios/raft_%s.txt", name);
    f = fopen(out, "rb");
    if (f == NULL)
        (void)snprintf(out, len, "common/tests/scenarios/raft_%s.txt", name);
    else
        (void)fclose(f);
}

static void load(const char *path, struct bns_buf *b)
{
    FILE *f = fopen(path, "rb");
    size_t n;

    if (f == NULL)
        fail_msg("%s: cannot be opened", path);
    assert_int_equal(bns_buf_reserve(b, 1 << 18), BNS_OK);
    n = fread(b->ptr, 1, 1 << 18, f);
    b->len = n;
    (void)fclose(f);
}

static size_t first_difference(struct bns_slice a, struct bns_slice b)
{
    size_t line = 1;
    for (size_t i = 0; i < a.len && i < b.len && a.ptr[i] == b.ptr[i]; i++)
        line += a.ptr[i] == '\n';
    return line;
}

static void every_scenario_comes_out_as_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct bns_err err = {0};
        struct bns_buf in;
        struct bns_buf out;
        char path[160];

        bns_buf_init(&in, bns_alloc_libc(), 1 << 20);
        bns_buf_init(&out, bns_alloc_libc(), 1 << 20);
        path_of(names[i], path, sizeof path);
        load(path, &in);
        if (bns_raft_script_run(bns_buf_slice(&in), &out, &err) != BNS_OK)
            fail_msg("%s: %s", path, err.text);
        if (rewrite) {
            FILE *f = fopen(path, "wb");
            assert_non_null(f);
            assert_int_equal(fwrite(out.ptr, 1, out.len, f), out.len);
            (void)fclose(f);
        } else if (!bns_slice_eq(bns_buf_slice(&in), bns_buf_slice(&out))) {
            (void)fwrite(out.ptr, 1, out.len, stderr);
            fail_msg("%s: differs from line %zu on; if that is right: test_raft_scenarios "
                     "--rewrite",
                     path, first_difference(bns_buf_slice(&in), bns_buf_slice(&out)));
        }
        bns_buf_free(&in);
        bns_buf_free(&out);
    }
}

static void a_command_that_makes_no_sense_is_named(void **state)
{
    static const char *const bad[] = {"nodes 0\n",
                                      "nodes 3 speed=2\n",
                                      "status\n",
                                      "nodes 3\nnodes 3\n",
                                      "nodes 1\ncrash 2\n",
                                      "nodes 2\npropose x via 3\n",
                                      "nodes 2\ncut 1 2\n",
                                      "nodes 2\npartition 1 2\n",
                                      "nodes 1\nfly 1\n",
                                      "nodes 1\ncrash 1\ncrash 1\n",
                                      "nodes 1\nread via 9\n"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bns_err err = {0};
        struct bns_buf out;
        bns_buf_init(&out, bns_alloc_libc(), 1 << 16);
        assert_int_equal(bns_raft_script_run(bns_slice_str(bad[i]), &out, &err), BNS_E_INVALID);
        assert_non_null(strstr(err.text, "line "));
        bns_buf_free(&out);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scenario_comes_out_as_written),
        cmocka_unit_test(a_command_that_makes_no_sense_is_named),
    };
    rewrite = argc > 1 && strcmp(argv[1], "--rewrite") == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
