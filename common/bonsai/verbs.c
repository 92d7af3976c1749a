/* verbs.c - up, down, status, logs.
 *
 * `up` in the foreground is the supervisor itself. `up -d` starts this executable again, in a
 * session of its own, with an internal verb and a pipe as its stdout: the supervisor prints the
 * table there, then a NUL byte, then lets go of it. No NUL means that it failed; its exit code is
 * then ours. Its stderr is logs/bonsai.log once it is up, and ours until then.
 */
#include "bonsai/bonsai.h"

#include "app/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define PATH_BYTES 640
#define ENV_PREFIX "BONSAI_" /* BONSAI_DATA_DIR and so on, under the flags */
#define DIR_BYTES_MAX 400    /* leaves room for what we put behind it */

static int complain(const char *verb, const struct bns_err *err)
{
    (void)fprintf(stderr, "bonsai %s: %s\n", verb, err->text);
    return BNS_EXIT_USAGE;
}

const char *bonsai_own_dir(char *dst, size_t cap)
{
    ssize_t n = readlink("/proc/self/exe", dst, cap - 1);
    char *slash;

    if (n <= 0)
        return ".";
    dst[n] = '\0';
    slash = strrchr(dst, '/');
    if (slash != NULL)
        *slash = '\0';
    return dst;
}

/* How many nodes a system's data directory holds: n1, n2, ... without a gap. */
static uint64_t nodes_on_disk(const char *data_dir, const char *system)
{
    char path[PATH_BYTES];
    uint64_t k = 0;

    do
        (void)snprintf(path, sizeof path, "%s/%s/n%u", data_dir, system, (unsigned)++k);
    while (k <= BONSAI_NODES_MAX && access(path, F_OK) == 0);
    return k - 1;
}

static int check_nodes(struct bonsai_opts *o, struct bns_err *err)
{
    for (size_t i = 0; i < o->systems_count; i++) {
        const char *name = o->systems[i]->name;
        uint64_t there = nodes_on_disk(o->data_dir, name);

        if (o->nodes == 0)
            o->nodes = there != 0 ? there : o->systems[i]->nodes_default;
        if (there != 0 && there != o->nodes)
            return bns_err_set(
                err, BNS_E_INVALID,
                "%s/%s holds a cluster of %u; use --nodes %u, another --data-dir, or "
                "remove it",
                o->data_dir, name, (unsigned)there, (unsigned)there);
    }
    if (o->nodes > BONSAI_NODES_MAX)
        return bns_err_set(err, BNS_E_INVALID, "--nodes: at most %d", BONSAI_NODES_MAX);
    if (o->port_shift > 40000)
        return bns_err_set(err, BNS_E_INVALID, "--port-shift: at most 40000");
    if (o->console_port > UINT16_MAX)
        return bns_err_set(err, BNS_E_INVALID, "--console-port: at most %d", UINT16_MAX);
    if (strlen(o->data_dir) > DIR_BYTES_MAX || strlen(o->bin_dir) > DIR_BYTES_MAX)
        return bns_err_set(err, BNS_E_INVALID, "directory names: at most %d bytes", DIR_BYTES_MAX);
    return BNS_OK;
}

/* Reads the flags of `up`. Returns -1 to go on, or an exit code. */
static int up_flags(struct bonsai_opts *o, int argc, char **argv)
{
    const struct bns_cli_flag flags[] = {
        {"nodes", 'n', BNS_VALUE_U64, &o->nodes, "nodes a system", NULL},
        {"detach", 'd', BNS_VALUE_BOOL, &o->detach, "go on in the background", NULL},
        {"data-dir", 0, BNS_VALUE_STR, &o->data_dir, "data, logs and state (bonsai-data)", NULL},
        {"bin-dir", 0, BNS_VALUE_STR, &o->bin_dir, "the systems' executables (beside bonsai)",
         NULL},
        {"port-shift", 0, BNS_VALUE_U64, &o->port_shift, "added to every port", NULL},
        {"console-port", 0, BNS_VALUE_U64, &o->console_port,
         "of the web page on loopback (8800); 0: any free one", &o->console_given},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai up",
                                "bonsai up [system...] [flags]",
                                "Starts every system side by side on loopback and keeps it "
                                "running.\nEach flag may come from the environment too: "
                                "BONSAI_DATA_DIR and so on.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    struct bns_err err;

    if (bns_cli_env(&cli, ENV_PREFIX, environ, &err) != BNS_OK ||
        bns_cli_parse(&cli, argc, argv, &words, &err) != BNS_OK)
        return complain("up", &err);
    if (bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    for (int i = 1; i <= words.count; i++) {
        const struct bonsai_system *sys;

        if (bonsai_system_find(argv[i], &sys, &err) != BNS_OK)
            return complain("up", &err);
        for (size_t k = 0; k < o->systems_count; k++)
            if (o->systems[k] == sys)
                sys = NULL;
        if (sys != NULL)
            o->systems[o->systems_count++] = sys;
    }
    for (size_t i = 0; words.count == 0 && i < bonsai_systems_count; i++)
        o->systems[o->systems_count++] = &bonsai_systems[i];
    if (check_nodes(o, &err) != BNS_OK)
        return complain("up", &err);
    return -1;
}

/* Copies the child's table to our stdout. True when it ended with the NUL of success. */
static bool copy_table(int fd)
{
    char buf[4096];
    char last = 'x';
    ssize_t n;

    while ((n = read(fd, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0)
            continue;
        last = buf[n - 1];
        (void)fwrite(buf, 1, (size_t)(last == '\0' ? n - 1 : n), stdout);
    }
    (void)fflush(stdout);
    return last == '\0';
}

/* Starts ourselves again with the internal verb; the pid, or -1. */
static pid_t spawn_supervisor(int argc, char **argv, int out)
{
    char **args = calloc((size_t)argc + 2, sizeof *args);
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    pid_t pid = -1;
    int rv;

    if (args == NULL)
        return -1;
    args[0] = (char *)(uintptr_t) "bonsai";
    args[1] = (char *)(uintptr_t) "supervise";
    for (int i = 1; i < argc; i++)
        args[i + 1] = argv[i];
    if (posix_spawn_file_actions_init(&fa) != 0)
        goto no_actions;
    if (posix_spawnattr_init(&attr) != 0)
        goto no_attr;
    rv = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
    rv = rv != 0 ? rv : posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    rv = rv != 0 ? rv : posix_spawn_file_actions_adddup2(&fa, out, 1);
    if (rv == 0 && posix_spawn(&pid, "/proc/self/exe", &fa, &attr, args, environ) != 0)
        pid = -1;
    (void)posix_spawnattr_destroy(&attr);
no_attr:
    (void)posix_spawn_file_actions_destroy(&fa);
no_actions:
    free(args);
    return pid;
}

static int detach(int argc, char **argv)
{
    int fds[2];
    pid_t pid;
    int status = 0;
    bool good;

    if (pipe2(fds, O_CLOEXEC) != 0) {
        (void)fprintf(stderr, "bonsai up: pipe: %s\n", strerror(errno));
        return BNS_EXIT_FAILURE;
    }
    pid = spawn_supervisor(argc, argv, fds[1]);
    (void)close(fds[1]); /* the child has its own */
    if (pid < 0) {
        (void)fprintf(stderr, "bonsai up: cannot start the supervisor: %s\n", strerror(errno));
        (void)close(fds[0]);
        return BNS_EXIT_FAILURE;
    }
    good = copy_table(fds[0]);
    (void)close(fds[0]); /* nothing more comes */
    if (good)
        return BNS_EXIT_OK;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        /* again */
    }
    return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : BNS_EXIT_FAILURE;
}

int bonsai_up(int argc, char **argv)
{
    char dir[PATH_BYTES];
    struct bonsai_opts o = {.data_dir = "bonsai-data", .bin_dir = bonsai_own_dir(dir, sizeof dir)};
    char **given = calloc((size_t)argc + 1, sizeof *given);
    int rv;

    if (given == NULL)
        return BNS_EXIT_FAILURE;
    memcpy(given, argv, (size_t)argc * sizeof *given); /* the parse moves words */
    rv = up_flags(&o, argc, argv);
    if (rv == -1)
        rv = o.detach ? detach(argc, given) : bonsai_supervise(&o);
    free(given);
    return rv;
}

int bonsai_supervise_verb(int argc, char **argv)
{
    char dir[PATH_BYTES];
    struct bonsai_opts o = {.data_dir = "bonsai-data", .bin_dir = bonsai_own_dir(dir, sizeof dir)};
    int rv = up_flags(&o, argc, argv);

    return rv == -1 ? bonsai_supervise(&o) : rv;
}

/* The one flag that down, status and logs share, and their own. Returns -1 to go on. */
static int small_flags(const struct bns_cli *cli, int argc, char **argv,
                       struct bns_cli_words *words, const char *const *data_dir)
{
    struct bns_err err;

    if (bns_cli_env(cli, ENV_PREFIX, environ, &err) != BNS_OK ||
        bns_cli_parse(cli, argc, argv, words, &err) != BNS_OK)
        return complain(argv[0], &err);
    if (bns_cli_answered(cli, words))
        return BNS_EXIT_OK;
    if (strlen(*data_dir) > DIR_BYTES_MAX) {
        (void)bns_err_set(&err, BNS_E_INVALID, "--data-dir: at most %d bytes", DIR_BYTES_MAX);
        return complain(argv[0], &err);
    }
    return -1;
}

int bonsai_down(int argc, char **argv)
{
    const char *data_dir = "bonsai-data";
    const struct bns_cli_flag flags[] = {
        {"data-dir", 0, BNS_VALUE_STR, &data_dir, "as given to up (bonsai-data)", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai down",
                                "bonsai down [flags]",
                                "Stops everything that up has started. Data stays.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    struct bonsai_state s;
    size_t left;
    int rv = small_flags(&cli, argc, argv, &words, &data_dir);

    if (rv != -1)
        return rv;
    if (bonsai_is_up(data_dir)) {
        struct bns_err err;

        if (bonsai_state_read(data_dir, &s, &err) != BNS_OK) {
            (void)fprintf(stderr, "bonsai down: %s\n", err.text);
            return BNS_EXIT_FAILURE;
        }
        if (!bonsai_end_process(s.pid, 20000)) {
            (void)fprintf(stderr, "bonsai down: process %ld is not ours to stop\n", (long)s.pid);
            return BNS_EXIT_FAILURE;
        }
        (void)bonsai_reap(data_dir); /* of a supervisor that had to be killed */
        (void)printf("stopped\n");
        return BNS_EXIT_OK;
    }
    left = bonsai_reap(data_dir);
    if (left > 0)
        (void)printf("stopped %zu nodes that an earlier bonsai left behind\n", left);
    else
        (void)printf("nothing runs under %s\n", data_dir);
    return BNS_EXIT_OK;
}

int bonsai_status(int argc, char **argv)
{
    const char *data_dir = "bonsai-data";
    const char *format = "table";
    const struct bns_cli_flag flags[] = {
        {"data-dir", 0, BNS_VALUE_STR, &data_dir, "as given to up (bonsai-data)", NULL},
        {"write-out", 'w', BNS_VALUE_STR, &format, "table or json", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai status",
                                "bonsai status [flags]",
                                "Shows what runs. Exit code 0: every node is ready.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    struct bonsai_state s;
    struct bns_err err;
    int rv = small_flags(&cli, argc, argv, &words, &data_dir);

    if (rv != -1)
        return rv;
    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0) {
        (void)bns_err_set(&err, BNS_E_INVALID, "--write-out: expected table or json, found '%.64s'",
                          format);
        return complain("status", &err);
    }
    if (!bonsai_is_up(data_dir)) {
        (void)fprintf(stderr, "bonsai status: nothing runs under %s; start it with bonsai up -d\n",
                      data_dir);
        return BNS_EXIT_FAILURE;
    }
    if (bonsai_state_read(data_dir, &s, &err) != BNS_OK) {
        (void)fprintf(stderr, "bonsai status: %s\n", err.text);
        return BNS_EXIT_FAILURE;
    }
    if (strcmp(format, "json") != 0)
        bonsai_table(&s, stdout);
    else if (bonsai_table_json(&s, stdout) != BNS_OK)
        return BNS_EXIT_FAILURE;
    for (size_t i = 0; i < s.nodes_count; i++)
        if (strcmp(s.nodes[i].state, "ready") != 0)
            return BNS_EXIT_FAILURE;
    return BNS_EXIT_OK;
}

/* The ends of the logs of one system, or of one node when number != 0. How many there were. */
static size_t tail_system(const char *data_dir, const char *system, uint64_t number, size_t lines)
{
    size_t found = 0;

    for (unsigned k = 1; k <= BONSAI_NODES_MAX; k++) {
        char path[PATH_BYTES], prefix[64];

        if (number != 0 && number != k)
            continue;
        (void)snprintf(path, sizeof path, "%s/logs/%s-n%u.log", data_dir, system, k);
        (void)snprintf(prefix, sizeof prefix, "%s n%u | ", system, k);
        if (bonsai_tail(path, lines, prefix, stdout))
            found++;
    }
    return found;
}

int bonsai_logs(int argc, char **argv)
{
    const char *data_dir = "bonsai-data";
    uint64_t lines = 20, number = 0;
    const struct bns_cli_flag flags[] = {
        {"data-dir", 0, BNS_VALUE_STR, &data_dir, "as given to up (bonsai-data)", NULL},
        {"lines", 'l', BNS_VALUE_U64, &lines, "how many of each log (20)", NULL},
        {"node", 'n', BNS_VALUE_U64, &number, "only this node", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai logs",
                                "bonsai logs [system...] [flags]",
                                "Prints the ends of the nodes' logs.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    struct bns_err err;
    size_t found = 0;
    int rv = small_flags(&cli, argc, argv, &words, &data_dir);

    if (rv != -1)
        return rv;
    for (int i = 1; i <= words.count; i++) {
        const struct bonsai_system *sys;

        if (bonsai_system_find(argv[i], &sys, &err) != BNS_OK)
            return complain("logs", &err);
        found += tail_system(data_dir, sys->name, number, (size_t)lines);
    }
    for (size_t i = 0; words.count == 0 && i < bonsai_systems_count; i++)
        found += tail_system(data_dir, bonsai_systems[i].name, number, (size_t)lines);
    if (found == 0) {
        (void)fprintf(stderr, "bonsai logs: no such log under %s/logs\n", data_dir);
        return BNS_EXIT_FAILURE;
    }
    return BNS_EXIT_OK;
}
