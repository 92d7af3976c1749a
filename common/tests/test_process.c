/* test_process.c - children start, end, are signalled and forgotten. The loop waits for them; the
 * test waits for no time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/env_uv.h"
#include "io/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct ended {
    struct bns_env *env;
    struct bns_process *p;
    int code;
    int calls;
};

static void on_exit_cb(void *arg, int code)
{
    struct ended *x = arg;

    x->code = code;
    x->calls++;
    bns_process_free(x->p);
    bns_env_uv_stop(x->env);
}

static struct bns_env *make_env(void)
{
    struct bns_env *env = NULL;

    assert_int_equal(bns_env_uv_new(bns_alloc_libc(), NULL, &env, NULL), BNS_OK);
    return env;
}

static int shell(struct ended *x, const char *script, int output)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct bns_process_config cfg = {
        .program = "/bin/sh", .argv = argv, .output = output, .on_exit = on_exit_cb, .arg = x};

    return bns_process_start(x->env, &cfg, &x->p, NULL);
}

static void exit_codes_and_signals_arrive(void **state)
{
    static const struct {
        const char *script;
        int code;
    } t[] = {{"exit 0", 0}, {"exit 7", 7}, {"kill -9 $$", -SIGKILL}, {"read x; exit 3", 3}};
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct ended x = {.env = make_env()};

        assert_int_equal(shell(&x, t[i].script, -1), BNS_OK);
        bns_env_uv_run(x.env);
        assert_int_equal(x.calls, 1);
        assert_int_equal(x.code, t[i].code);
        bns_env_uv_free(x.env);
    }
}

static void output_goes_to_the_descriptor(void **state)
{
    struct ended x = {.env = make_env()};
    char text[32] = "";
    FILE *f = tmpfile();
    (void)state;

    assert_non_null(f);
    assert_int_equal(shell(&x, "echo out; echo err >&2", fileno(f)), BNS_OK);
    bns_env_uv_run(x.env);
    rewind(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    assert_string_equal(text, "out\nerr\n");
    assert_int_equal(fclose(f), 0);
    bns_env_uv_free(x.env);
}

/* The child waits for a line that never comes: only the signal ends it. */
static void a_signal_reaches_the_child(void **state)
{
    struct ended x = {.env = make_env()};
    int fds[2];
    (void)state;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(shell(&x, "exec 3<&1; read x <&3", fds[0]), BNS_OK);
    assert_true(bns_process_pid(x.p) > 0);
    assert_int_equal(bns_process_signal(x.p, SIGTERM), BNS_OK);
    bns_env_uv_run(x.env);
    assert_int_equal(x.code, -SIGTERM);
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
    bns_env_uv_free(x.env);
}

static void a_missing_program_is_an_error(void **state)
{
    struct bns_env *env = make_env();
    const char *const argv[] = {"x", NULL};
    struct bns_process_config cfg = {.program = "/nonexistent/x", .argv = argv, .output = -1};
    struct bns_process *p = NULL;
    struct bns_err err = {0};
    (void)state;

    assert_int_equal(bns_process_start(env, &cfg, &p, &err), BNS_E_NOTFOUND);
    assert_string_equal(err.text, "/nonexistent/x: no such file or directory");
    assert_null(p);
    bns_env_uv_free(env);
}

static void a_child_may_be_forgotten_while_it_runs(void **state)
{
    struct ended x = {.env = make_env()};
    pid_t pid;
    (void)state;

    assert_int_equal(shell(&x, "kill -STOP $$; exit 1", -1), BNS_OK);
    pid = bns_process_pid(x.p);
    bns_process_free(x.p);
    bns_env_uv_free(x.env);
    assert_int_equal(x.calls, 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_and_signals_arrive),
        cmocka_unit_test(output_goes_to_the_descriptor),
        cmocka_unit_test(a_signal_reaches_the_child),
        cmocka_unit_test(a_missing_program_is_an_error),
        cmocka_unit_test(a_child_may_be_forgotten_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
