/* state.c - what a running supervisor tells other calls of bonsai, and whether it is there.
 *
 * state.json is written beside and renamed, so a reader sees one whole state. It may be stale: the
 * supervisor's lock on the data directory says whether it lives, and a pid counts as ours only with
 * the start time that the kernel gave it. A process is ended through a pidfd, which cannot come to
 * mean another process.
 */
#include "bonsai/bonsai.h"

#include "store/vfs_posix.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define PATH_BYTES 640

static const char *const state_names[] = {"starting", "ready", "waiting", "failed"};

static void state_path(char *dst, const char *data_dir, const char *suffix)
{
    (void)snprintf(dst, PATH_BYTES, "%s/state.json%s", data_dir, suffix); /* data_dir is checked */
}

static json_t *node_json(const struct bonsai_node_state *n)
{
    return json_pack("{s:s, s:i, s:i, s:I, s:I, s:s, s:I, s:I, s:I}", "system", n->system, "node",
                     (int)n->number, "port", (int)n->port, "pid", (json_int_t)n->pid, "started",
                     (json_int_t)n->started, "state", n->state, "ready_ms", (json_int_t)n->ready_ms,
                     "restarts", (json_int_t)n->restarts, "rss_bytes",
                     (json_int_t)(n->pid == 0 ? 0 : bonsai_pid_rss(n->pid)));
}

/* NULL when out of memory. */
static json_t *state_json(const struct bonsai_state *s)
{
    json_t *nodes = json_array();
    json_t *root;

    for (size_t i = 0; i < s->nodes_count; i++) {
        if (json_array_append_new(nodes, node_json(&s->nodes[i])) != 0) {
            json_decref(nodes);
            return NULL;
        }
    }
    root = json_pack("{s:I, s:i, s:o}", "pid", (json_int_t)s->pid, "console", (int)s->console,
                     "nodes", nodes);
    return root;
}

int bonsai_table_json(const struct bonsai_state *s, FILE *to)
{
    json_t *root = state_json(s);
    int rv = root == NULL ? BNS_E_NOMEM : BNS_OK;

    if (rv == BNS_OK && json_dumpf(root, to, JSON_INDENT(2)) == 0)
        (void)fputc('\n', to); /* whoever reads sees the cut */
    json_decref(root);
    return rv;
}

int bonsai_state_write(const char *data_dir, const struct bonsai_state *s, struct bns_err *err)
{
    char path[PATH_BYTES], tmp[PATH_BYTES];
    json_t *root = state_json(s);
    int rv = BNS_OK;

    if (root == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "no memory for the state file");
    state_path(path, data_dir, "");
    state_path(tmp, data_dir, ".tmp");
    if (json_dump_file(root, tmp, JSON_INDENT(2)) != 0 || rename(tmp, path) != 0)
        rv = bns_err_set(err, BNS_E_IO, "%s: %s", path, strerror(errno));
    json_decref(root);
    return rv;
}

static int read_node(json_t *json, struct bonsai_node_state *n)
{
    const char *system, *state;
    int number, port;
    json_int_t pid, started, ready, restarts;

    if (json_unpack(json, "{s:s, s:i, s:i, s:I, s:I, s:s, s:I, s:I}", "system", &system, "node",
                    &number, "port", &port, "pid", &pid, "started", &started, "state", &state,
                    "ready_ms", &ready, "restarts", &restarts) != 0)
        return BNS_E_CORRUPT;
    if (strlen(system) >= sizeof n->system || number < 1 || number > BONSAI_NODES_MAX || port < 1 ||
        port > UINT16_MAX || pid < 0 || pid > INT32_MAX || started < 0 || ready < 0 || restarts < 0)
        return BNS_E_CORRUPT;
    *n = (struct bonsai_node_state){
        .number = (uint32_t)number,
        .port = (uint16_t)port,
        .pid = (pid_t)pid,
        .started = (uint64_t)started,
        .ready_ms = (uint64_t)ready,
        .restarts = (uint64_t)restarts,
    };
    memcpy(n->system, system, strlen(system));
    for (size_t i = 0; i < sizeof state_names / sizeof state_names[0]; i++)
        if (strcmp(state, state_names[i]) == 0)
            n->state = state_names[i];
    return n->state == NULL ? BNS_E_CORRUPT : BNS_OK;
}

int bonsai_state_read(const char *data_dir, struct bonsai_state *out, struct bns_err *err)
{
    char path[PATH_BYTES];
    json_error_t why;
    json_t *root, *nodes;
    json_int_t pid = 0;
    int console = 0;
    int rv = BNS_E_CORRUPT;

    *out = (struct bonsai_state){0};
    state_path(path, data_dir, "");
    root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL && access(path, F_OK) != 0)
        return bns_err_set(err, BNS_E_NOTFOUND, "%s: %s", path, strerror(errno));
    if (json_unpack(root, "{s:I, s?i, s:o}", "pid", &pid, "console", &console, "nodes", &nodes) !=
            0 ||
        pid <= 0 || pid > INT32_MAX || console < 0 || console > UINT16_MAX ||
        json_array_size(nodes) > sizeof out->nodes / sizeof out->nodes[0])
        goto done;
    out->console = (uint16_t)console;
    out->pid = (pid_t)pid;
    out->nodes_count = json_array_size(nodes);
    for (size_t i = 0; i < out->nodes_count; i++)
        if (read_node(json_array_get(nodes, i), &out->nodes[i]) != BNS_OK)
            goto done;
    rv = BNS_OK;

done:
    json_decref(root);
    if (rv != BNS_OK)
        return bns_err_set(err, rv, "%s: not a state file of this bonsai", path);
    return BNS_OK;
}

void bonsai_state_remove(const char *data_dir)
{
    char path[PATH_BYTES];

    state_path(path, data_dir, "");
    (void)unlink(path); /* a stale one is recognised as such */
}

/* Field `index` (from 3) of /proc/PID/stat; the second, in parentheses, may hold anything. */
static uint64_t stat_field(pid_t pid, int index)
{
    char path[64], text[1024];
    size_t len;
    char *at;
    FILE *f;
    uint64_t v = 0;

    (void)snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    f = fopen(path, "re");
    if (f == NULL)
        return 0;
    len = fread(text, 1, sizeof text - 1, f);
    (void)fclose(f); /* it was read only */
    text[len] = '\0';
    at = strrchr(text, ')');
    for (int i = 2; at != NULL && i < index; i++)
        at = strchr(at + 1, ' ');
    if (at == NULL || sscanf(at, "%" SCNu64, &v) != 1)
        return 0;
    return v;
}

uint64_t bonsai_pid_started(pid_t pid)
{
    return stat_field(pid, 22);
}

uint64_t bonsai_pid_rss(pid_t pid)
{
    return stat_field(pid, 24) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t bonsai_pid_cpu_ms(pid_t pid)
{
    return (stat_field(pid, 14) + stat_field(pid, 15)) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

bool bonsai_is_up(const char *data_dir)
{
    char path[PATH_BYTES];
    struct bns_vfs *vfs = bns_vfs_posix(bns_alloc_libc());
    struct bns_file *lock = NULL;
    int rv;

    (void)snprintf(path, sizeof path, "%s/LOCK", data_dir);
    if (vfs == NULL || access(path, F_OK) != 0) {
        bns_vfs_posix_free(vfs);
        return false;
    }
    rv = bns_vfs_lock(vfs, path, &lock, NULL);
    bns_file_close(lock);
    bns_vfs_posix_free(vfs);
    return rv == BNS_E_BUSY;
}

bool bonsai_end_process(pid_t pid, int limit_ms)
{
    int fd = pidfd_open(pid, 0);
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    bool ours;

    if (fd < 0)
        return errno == ESRCH;
    ours = pidfd_send_signal(fd, SIGTERM, NULL, 0) == 0 || errno == ESRCH;
    if (ours && poll(&pfd, 1, limit_ms) == 0) {
        (void)pidfd_send_signal(fd, SIGKILL, NULL, 0); /* it may have ended just now */
        (void)poll(&pfd, 1, -1);
    }
    (void)close(fd); /* nothing is written through it */
    return ours;
}

size_t bonsai_reap(const char *data_dir)
{
    struct bonsai_state s;
    size_t count = 0;

    if (bonsai_state_read(data_dir, &s, NULL) != BNS_OK)
        return 0;
    for (size_t i = 0; i < s.nodes_count; i++) {
        const struct bonsai_node_state *n = &s.nodes[i];

        if (n->pid == 0 || bonsai_pid_started(n->pid) != n->started)
            continue;
        if (bonsai_end_process(n->pid, 10000))
            count++;
    }
    bonsai_state_remove(data_dir);
    return count;
}
