/* test_sim_pure.c - a run of the simulator uses no socket, no sync, no clock, no thread.
 *
 * Method: sim_world runs one seed under strace, which may report none of the calls named below; a
 *         clock read by way of the vDSO makes no system call, so the simulator's archive may not
 *         even name such functions. Skipped, by name, where strace may not trace. */
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CALLS                                                                                      \
    "network,fsync,fdatasync,sync,syncfs,sync_file_range,clock_gettime,gettimeofday,nanosleep,"    \
    "clock_nanosleep,clone,clone3,fork,vfork,poll,epoll_wait,rename,ftruncate,pwrite64,getrandom"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* The first line of a shell command's output that `pick` likes; false: none. */
static bool find_line(const char *command, bool (*pick)(const char *line), char *out, size_t len)
{
    char path[] = "/tmp/bns_sim_pure.XXXXXX";
    char *argv[] = {"sh", "-c", (char *)(uintptr_t)command, NULL};
    posix_spawn_file_actions_t actions;
    char line[512];
    bool found = false;
    int fd = mkstemp(path);
    int status;
    pid_t pid;
    FILE *f;

    assert_true(fd >= 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, fd, 1), 0);
    assert_int_equal(posix_spawn(&pid, "/bin/sh", &actions, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    f = fdopen(fd, "r");
    assert_non_null(f);
    while (!found && fgets(line, sizeof line, f) != NULL) {
        found = pick(line);
        if (found)
            (void)snprintf(out, len, "%s", line);
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(unlink(path), 0);
    return found;
}

static void beside(const char *name, char *out, size_t len)
{
    char exe[400];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

    assert_true(n > 0);
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    (void)snprintf(out, len, "%s/%s", exe, name);
}

static bool any(const char *line)
{
    (void)line;
    return true;
}

static bool is_exit(const char *line)
{
    return strstr(line, "+++ exited with 0") != NULL;
}

/* getrandom: libc seeds its allocator with it at start, before main. */
static bool is_call(const char *line)
{
    return strstr(line, ") = ") != NULL && strstr(line, "getrandom") == NULL;
}

static void a_run_makes_none_of_these_system_calls(void **state)
{
    char exe[512];
    char command[2048];
    char line[512];

    (void)state;
    if (SANITIZED) {
        print_message("skipped: a sanitizer's runtime makes such calls of its own\n");
        skip();
    }
    if (!find_line("strace -f -o /dev/stdout true 2>/dev/null | grep exited", any, line,
                   sizeof line)) {
        if (getenv("BNS_REQUIRE_ALL") != NULL)
            fail_msg("strace is missing or may not trace here");
        print_message("skipped: strace is missing or may not trace here\n");
        skip();
    }
    beside("sim_world", exe, sizeof exe);
    if (access(exe, X_OK) != 0) {
        print_message("skipped: %s is not built\n", exe);
        skip();
    }
    (void)snprintf(command, sizeof command,
                   "BNS_SEED=3 strace -f -e trace=" CALLS " %s 2>&1 >/dev/null", exe);
    if (find_line(command, is_call, line, sizeof line))
        fail_msg("a simulated run called: %s", line);
    assert_true(find_line(command, is_exit, line, sizeof line)); /* it did run */
}

static bool forbidden(const char *line)
{
    static const char *const names[] = {
        " U clock_gettime\n", " U gettimeofday\n", " U time\n",   " U socket\n",
        " U connect\n",       " U bind\n",         " U fsync\n",  " U fdatasync\n",
        " U open\n",          " U openat\n",       " U fopen\n",  " U pthread_create\n",
        " U nanosleep\n",     " U rand\n",         " U random\n", " U getrandom\n",
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strstr(line, names[i]) != NULL)
            return true;
    }
    return false;
}

static void the_archive_names_no_clock_socket_or_thread(void **state)
{
    char lib[512];
    char command[600];
    char line[512];

    (void)state;
    beside("../common/libbns_sim_mut.a", lib, sizeof lib);
    (void)snprintf(command, sizeof command, "nm -u %s", lib);
    assert_true(find_line(command, any, line, sizeof line));
    if (find_line(command, forbidden, line, sizeof line))
        fail_msg("the simulator uses%s", line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_makes_none_of_these_system_calls),
        cmocka_unit_test(the_archive_names_no_clock_socket_or_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
