/* test_daemon.c - the frame of a daemon, seen from outside: exit codes, lock, READY, signals.
 *
 * Method: this program starts itself as a child (argv[1] names the behaviour), with a pipe at its
 * stdout and one at its stderr, and waits for lines and exits; it never waits for time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- the child ------------------------------------------------------------------------------- */
static int start(struct bns_daemon *d, void *arg, struct bns_err *err)
{
    const char *how = arg;

    if (strcmp(how, "corrupt") == 0)
        return bns_err_set(err, BNS_E_CORRUPT, "segment 7: checksum differs");
    if (strcmp(how, "port") == 0)
        return bns_err_set(err, BNS_E_ADDRINUSE, "127.0.0.1:1: address in use");
    if (strcmp(how, "config") == 0)
        return bns_err_set(err, BNS_E_INVALID, "c.yaml:1: unknown section");
    if (strcmp(how, "io") == 0)
        return bns_err_set(err, BNS_E_IO, "disk gone");
    if (strcmp(how, "assert") == 0)
        BNS_ASSERT(bns_daemon_env(d) == NULL);
    if (strcmp(how, "stop") == 0) {
        bns_daemon_stop(d, 9);
        return BNS_OK;
    }
    bns_daemon_port(d, "client", "127.0.0.1", 2379);
    bns_daemon_port(d, "peer", "127.0.0.1", 2380);
    bns_daemon_ready(d);
    return BNS_OK;
}

static void drain(struct bns_daemon *d, void *arg)
{
    (void)printf("DRAIN\n");
    (void)fflush(stdout);
    if (strcmp(arg, "stuck") != 0)
        bns_daemon_stop(d, 0);
}

static void stop(struct bns_daemon *d, void *arg)
{
    (void)d;
    (void)arg;
    (void)printf("STOP\n");
    (void)fflush(stdout);
}

static int child(char **argv)
{
    static const struct bns_daemon_ops ops = {.start = start, .drain = drain, .stop = stop};
    struct bns_daemon_config cfg = {
        .program = "test-daemon",
        .data_dir = argv[2],
        .ports_file = strcmp(argv[3], "-") == 0 ? NULL : argv[3],
        .drain_ns = strcmp(argv[1], "stuck") == 0 ? 3600 * BNS_SEC : 0,
    };

    if (strcmp(argv[1], "limit") == 0) {
        cfg.drain_ns = 1;
        argv[1] = (char *)(uintptr_t) "stuck";
    }
    return bns_daemon_run(&cfg, &ops, argv[1]);
}

/* ---- the parent ------------------------------------------------------------------------------ */
struct proc {
    pid_t pid;
    FILE *out, *err;
};

static char dir[64];
static char data[96];
static char ports[96];

static struct proc spawn(const char *how, const char *ports_file)
{
    char *argv[] = {(char *)(uintptr_t) "test", (char *)(uintptr_t)how, data,
                    (char *)(uintptr_t)ports_file, NULL};
    posix_spawn_file_actions_t fa;
    struct proc p = {0};
    int out[2], err[2];

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    assert_int_equal(posix_spawn_file_actions_init(&fa), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&fa, out[1], 1), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&fa, err[1], 2), 0);
    assert_int_equal(posix_spawn(&p.pid, "/proc/self/exe", &fa, NULL, argv, environ), 0);
    assert_int_equal(posix_spawn_file_actions_destroy(&fa), 0);
    assert_int_equal(close(out[1]), 0);
    assert_int_equal(close(err[1]), 0);
    p.out = fdopen(out[0], "r");
    p.err = fdopen(err[0], "r");
    assert_non_null(p.out);
    assert_non_null(p.err);
    return p;
}

static void expect_line(FILE *f, const char *start_of_line)
{
    char line[512] = "";

    assert_non_null(fgets(line, sizeof line, f));
    if (strncmp(line, start_of_line, strlen(start_of_line)) != 0)
        fail_msg("expected '%s...', found '%s'", start_of_line, line);
}

/* Exit code, or minus the signal. */
static int end(struct proc *p)
{
    int status = 0;

    while (waitpid(p->pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    assert_int_equal(fclose(p->out), 0);
    assert_int_equal(fclose(p->err), 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void an_error_at_start_has_its_exit_code(void **state)
{
    static const struct {
        const char *how, *text;
        int code;
    } t[] = {
        {"corrupt", "test-daemon: segment 7: checksum differs\n", BNS_EXIT_CORRUPT},
        {"port", "test-daemon: 127.0.0.1:1: address in use\n", BNS_EXIT_BUSY},
        {"config", "test-daemon: c.yaml:1: unknown section\n", BNS_EXIT_CONFIG},
        {"io", "test-daemon: disk gone\n", BNS_EXIT_FAILURE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct proc p = spawn(t[i].how, "-");

        expect_line(p.err, t[i].text);
        assert_int_equal(end(&p), t[i].code);
    }
}

static void an_assertion_prints_a_backtrace_and_exits_70(void **state)
{
    struct proc p = spawn("assert", "-");
    char line[512];
    bool frame = false;
    (void)state;

    while (fgets(line, sizeof line, p.err) != NULL)
        frame = frame || strstr(line, "[0x") != NULL;
    assert_true(frame);
    assert_int_equal(end(&p), BNS_EXIT_BUG);
}

static void sigterm_and_sigint_drain_and_stop(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct proc p = spawn("run", "-");

        expect_line(p.out, "READY test-daemon pid=");
        assert_int_equal(kill(p.pid, signals[i]), 0);
        expect_line(p.out, "DRAIN");
        expect_line(p.out, "STOP");
        assert_int_equal(end(&p), 0);
    }
}

static void a_second_signal_ends_a_drain_that_hangs(void **state)
{
    struct proc p = spawn("stuck", "-");
    (void)state;

    expect_line(p.out, "READY");
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    expect_line(p.out, "DRAIN");
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    expect_line(p.out, "STOP");
    assert_int_equal(end(&p), 0);
}

static void the_drain_has_a_limit(void **state)
{
    struct proc p = spawn("limit", "-");
    (void)state;

    expect_line(p.out, "READY");
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    expect_line(p.out, "DRAIN");
    expect_line(p.out, "STOP");
    assert_int_equal(end(&p), 0);
}

static void a_stop_during_start_ends_the_daemon(void **state)
{
    struct proc p = spawn("stop", "-");
    (void)state;

    expect_line(p.out, "STOP");
    assert_int_equal(end(&p), 9);
}

static void a_locked_directory_says_who_holds_it(void **state)
{
    struct proc first = spawn("run", "-");
    struct proc second;
    char line[512] = "";
    char holder[64];
    (void)state;

    expect_line(first.out, "READY");
    second = spawn("run", "-");
    assert_non_null(fgets(line, sizeof line, second.err));
    (void)snprintf(holder, sizeof holder, "(pid %ld)", (long)first.pid);
    assert_non_null(strstr(line, "data directory in use; stop its owner or choose another"));
    assert_non_null(strstr(line, holder));
    assert_int_equal(end(&second), BNS_EXIT_BUSY);

    /* A killed owner leaves no lock behind. */
    assert_int_equal(kill(first.pid, SIGKILL), 0);
    assert_int_equal(end(&first), -SIGKILL);
    second = spawn("run", "-");
    expect_line(second.out, "READY");
    assert_int_equal(kill(second.pid, SIGTERM), 0);
    assert_int_equal(end(&second), 0);
}

static void the_ports_file_is_whole_when_ready_is_printed(void **state)
{
    struct proc p = spawn("run", ports);
    char text[128] = "";
    FILE *f;
    (void)state;

    expect_line(p.out, "READY");
    f = fopen(ports, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    assert_int_equal(fclose(f), 0);
    assert_string_equal(text, "client 2379\npeer 2380\n");
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    assert_int_equal(end(&p), 0);
    assert_int_equal(unlink(ports), 0);
}

static void a_ports_file_that_cannot_be_written_is_fatal(void **state)
{
    struct proc p = spawn("run", "/nonexistent/ports");
    (void)state;

    expect_line(p.err, "fatal: /nonexistent/ports.tmp: No such file");
    assert_int_equal(end(&p), BNS_EXIT_FAILURE);
}

static int make_dir(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/daemon-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(data, sizeof data, "%s/a/b", dir);
    (void)snprintf(ports, sizeof ports, "%s/ports", dir);
    return 0;
}

static int remove_dir(void **state)
{
    char path[128];
    (void)state;
    (void)snprintf(path, sizeof path, "%s/LOCK", data);
    if (unlink(path) != 0 || rmdir(data) != 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/a", dir);
    return rmdir(path) != 0 || rmdir(dir) != 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_at_start_has_its_exit_code),
        cmocka_unit_test(an_assertion_prints_a_backtrace_and_exits_70),
        cmocka_unit_test(sigterm_and_sigint_drain_and_stop),
        cmocka_unit_test(a_second_signal_ends_a_drain_that_hangs),
        cmocka_unit_test(the_drain_has_a_limit),
        cmocka_unit_test(a_stop_during_start_ends_the_daemon),
        cmocka_unit_test(a_locked_directory_says_who_holds_it),
        cmocka_unit_test(the_ports_file_is_whole_when_ready_is_printed),
        cmocka_unit_test(a_ports_file_that_cannot_be_written_is_fatal),
    };
    if (argc == 4)
        return child(argv);
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
