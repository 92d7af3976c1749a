/* sim_run.c - bonsai sim run | replay: many seeds, or one, of a system's simulation program. */
#include "bonsai/sim_run.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "bonsai/trace_view.h"
#include "io/env_uv.h"
#include "io/process.h"
#include "sim/trace.h"

#define JOBS_MAX 64
#define SEEDS_MAX 1000000000u

int sim_program_find(const char *system, struct sim_program *out, struct bns_err *err)
{
    char dir[SIM_PATH_BYTES / 2];
    int rv = bonsai_system_find(system, &out->system, err);

    if (rv != BNS_OK)
        return rv;
    if (out->system->sim == NULL)
        return bns_err_set(err, BNS_E_NOTFOUND, "%s has no simulation", system);
    (void)snprintf(out->path, sizeof out->path, "%s/%s", bonsai_own_dir(dir, sizeof dir),
                   out->system->sim); /* both fit */
    if (access(out->path, X_OK) != 0)
        return bns_err_set(err, BNS_E_NOTFOUND, "%s: %s; build it (ninja %s)", out->path,
                           strerror(errno), out->system->sim);
    return BNS_OK;
}

/* ---- seeds ----------------------------------------------------------------------------------- */

static int seed_of_trace(const char *path, uint64_t *out, struct bns_err *err)
{
    FILE *f = fopen(path, "re");
    struct bns_trace *t = NULL;
    struct bns_buf text;
    char part[16384];
    size_t n;
    int rv = BNS_OK;

    if (f == NULL)
        return bns_err_set(err, BNS_E_INVALID,
                           "'%.80s' is no seed: a number, 0x and hexadecimal digits, or a trace",
                           path);
    bns_buf_init(&text, bns_alloc_libc(), BONSAI_TRACE_BYTES_MAX);
    while (rv == BNS_OK && (n = fread(part, 1, sizeof part, f)) > 0)
        rv = bns_buf_add(&text, part, n);
    if (rv != BNS_OK || ferror(f)) {
        rv = bns_err_set(err, BNS_E_CORRUPT, "%.80s: no trace: it cannot be read", path);
    } else {
        rv = bns_trace_parse(bns_alloc_libc(), bns_buf_slice(&text), &t, err);
        if (rv != BNS_OK) {
            (void)bns_err_wrap(err, "%.80s", path); /* its code is replaced */
            rv = BNS_E_CORRUPT;
        } else {
            *out = bns_trace_seed(t);
        }
    }
    (void)fclose(f); /* it was read only */
    bns_trace_free(t);
    bns_buf_free(&text);
    return rv;
}

int sim_seed(const char *text, uint64_t *out, struct bns_err *err)
{
    bool hex = strncmp(text, "0x", 2) == 0;
    const char *digits = hex ? text + 2 : text;
    size_t len = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");

    if (len == 0 || digits[len] != '\0')
        return seed_of_trace(text, out, err);
    errno = 0;
    *out = strtoull(digits, NULL, hex ? 16 : 10);
    if (errno != 0)
        return bns_err_set(err, BNS_E_INVALID, "'%.80s' is no seed: it has more than 64 bits",
                           text);
    return BNS_OK;
}

/* ---- children -------------------------------------------------------------------------------- */

struct running {
    struct bns_env *env;
    struct sim_child *child;
    struct bns_process *process;
    size_t *left;
};

static void ended(void *arg, int code)
{
    struct running *r = arg;

    r->child->code = code;
    if (--*r->left == 0)
        bns_env_uv_stop(r->env);
}

static int start_child(struct running *r, const struct sim_program *p, struct bns_err *err)
{
    const char *argv[SIM_ARGS_MAX + 1] = {p->system->sim};
    struct bns_process_config cfg = {
        .program = p->path, .argv = argv, .output = r->child->output, .on_exit = ended, .arg = r};

    for (size_t i = 0; i < SIM_ARGS_MAX && r->child->args[i] != NULL; i++)
        argv[i + 1] = r->child->args[i];
    argv[SIM_ARGS_MAX] = NULL;
    return bns_process_start(r->env, &cfg, &r->process, err);
}

int sim_children(const struct sim_program *p, struct sim_child *children, size_t count,
                 struct bns_err *err)
{
    struct running r[JOBS_MAX];
    struct bns_env *env = NULL;
    size_t started = 0, left = 0;
    int rv;

    BNS_ASSERT(count > 0 && count <= JOBS_MAX);
    (void)fflush(stdout); /* before the children's own lines; it is written again at the end */
    rv = bns_env_uv_new(bns_alloc_libc(), NULL, &env, err);
    while (started < count && rv == BNS_OK) {
        r[started] = (struct running){env, &children[started], NULL, &left};
        rv = start_child(&r[started], p, err);
        if (rv == BNS_OK) {
            started++;
            left++;
        }
    }
    if (left > 0)
        bns_env_uv_run(env);
    for (size_t i = 0; i < started; i++)
        bns_process_free(r[i].process);
    bns_env_uv_free(env);
    return rv;
}

/* ---- run ------------------------------------------------------------------------------------- */

static int usage(const char *verb, int rv, const struct bns_err *err)
{
    (void)fprintf(stderr, "bonsai sim %s: %s\n", verb, err->text);
    return rv == BNS_E_INVALID ? BNS_EXIT_USAGE : BNS_EXIT_FAILURE;
}

/* The seeds are shared out; the worst exit code of all. */
static int run_jobs(const struct sim_program *p, uint64_t start, uint64_t seeds, size_t jobs)
{
    struct sim_child children[JOBS_MAX] = {0};
    char text[JOBS_MAX][2][24];
    struct bns_err err;
    int code;

    for (size_t i = 0; i < jobs; i++) {
        uint64_t first = seeds * i / jobs, next = seeds * (i + 1) / jobs;
        (void)snprintf(text[i][0], sizeof text[i][0], "%llu",
                       (unsigned long long)(next - first)); /* a number fits */
        (void)snprintf(text[i][1], sizeof text[i][1], "%llu",
                       (unsigned long long)(start + first)); /* as above */
        children[i] = (struct sim_child){
            .args = {"--hunt", text[i][0], "--start", text[i][1], NULL}, .output = -1};
    }
    (void)unsetenv("BNS_SEED"); /* that would replay one; fails for bad names only */
    code = sim_children(p, children, jobs, &err);
    if (code != BNS_OK)
        return usage("run", code, &err);
    for (size_t i = 0; i < jobs; i++) {
        if (children[i].code < 0)
            (void)fprintf(stderr, "bonsai sim run: %s ended by signal %d\n", p->system->sim,
                          -children[i].code);
        if (children[i].code != 0 && code != BNS_EXIT_USAGE)
            code = children[i].code == BNS_EXIT_USAGE ? BNS_EXIT_USAGE : BNS_EXIT_FAILURE;
    }
    return code;
}

int bonsai_sim_run(int argc, char **argv)
{
    uint64_t seeds = 100, jobs = 1, start = 1;
    const char *from = NULL;
    const struct bns_cli_flag flags[] = {
        {"seeds", 'n', BNS_VALUE_U64, &seeds, "how many (100)", NULL},
        {"start", 's', BNS_VALUE_STR, &from, "the first (1)", NULL},
        {"jobs", 'j', BNS_VALUE_U64, &jobs, "processes side by side (1)", NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai sim run",
                                "bonsai sim run SYSTEM [flags]",
                                "Runs seeds of a system's simulation. Exit code 1: one failed; its "
                                "line says how to replay it.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct bns_cli_words words;
    struct sim_program p;
    struct bns_err err;
    int rv = bns_cli_parse(&cli, argc, argv, &words, &err);

    if (rv == BNS_OK && bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (rv == BNS_OK && words.count != 1)
        rv = bns_err_set(&err, BNS_E_INVALID, "name one system, such as etcd-lite");
    if (rv == BNS_OK && (seeds == 0 || seeds > SEEDS_MAX))
        rv = bns_err_set(&err, BNS_E_INVALID, "--seeds: 1 to %u", SEEDS_MAX);
    if (rv == BNS_OK && (jobs == 0 || jobs > JOBS_MAX || jobs > seeds))
        rv = bns_err_set(&err, BNS_E_INVALID, "--jobs: 1 to %u, and no more than seeds", JOBS_MAX);
    if (rv == BNS_OK && from != NULL)
        rv = sim_seed(from, &start, &err);
    if (rv == BNS_OK)
        rv = sim_program_find(argv[1], &p, &err);
    return rv == BNS_OK ? run_jobs(&p, start, seeds, (size_t)jobs) : usage("run", rv, &err);
}

/* ---- replay ---------------------------------------------------------------------------------- */

int bonsai_sim_replay(int argc, char **argv)
{
    static const char *const names[] = {"--trace", "--history", "--nodes",   "--clients",
                                        "--lanes", "--keys",    "--seconds", "--faults"};
    const char *value[sizeof names / sizeof names[0]] = {NULL};
    const struct bns_cli_flag flags[] = {
        {"trace", 't', BNS_VALUE_STR, &value[0], "write its trace there, for sim view", NULL},
        {"history", 0, BNS_VALUE_STR, &value[1], "write there what clients asked and were told",
         NULL},
        {"nodes", 0, BNS_VALUE_STR, &value[2], "fewer nodes than the seed says", NULL},
        {"clients", 0, BNS_VALUE_STR, &value[3], "fewer clients", NULL},
        {"lanes", 0, BNS_VALUE_STR, &value[4], "fewer operations at a time a client", NULL},
        {"keys", 0, BNS_VALUE_STR, &value[5], "fewer keys", NULL},
        {"seconds", 0, BNS_VALUE_STR, &value[6], "faults for a shorter time", NULL},
        {"faults", 0, BNS_VALUE_STR, &value[7], "only these faults: a list with commas, or none",
         NULL},
        {NULL, 0, BNS_VALUE_STR, NULL, NULL, NULL},
    };
    const struct bns_cli cli = {"bonsai sim replay",
                                "bonsai sim replay SYSTEM SEED|TRACE [flags]",
                                "Runs one seed again, event for event. A trace has its seed in it.",
                                "bonsai " BNS_VERSION,
                                flags,
                                false};
    struct sim_child child = {.output = -1};
    struct bns_cli_words words;
    struct sim_program p;
    struct bns_err err;
    char text[24];
    uint64_t seed = 0;
    size_t n = 0;
    int rv = bns_cli_parse(&cli, argc, argv, &words, &err);

    if (rv == BNS_OK && bns_cli_answered(&cli, &words))
        return BNS_EXIT_OK;
    if (rv == BNS_OK && words.count != 2)
        rv = bns_err_set(&err, BNS_E_INVALID, "name a system and a seed");
    if (rv == BNS_OK)
        rv = sim_seed(argv[2], &seed, &err);
    if (rv == BNS_OK)
        rv = sim_program_find(argv[1], &p, &err);
    if (rv != BNS_OK)
        return usage("replay", rv, &err);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (value[i] != NULL) {
            child.args[n++] = names[i];
            child.args[n++] = value[i];
        }
    }
    (void)snprintf(text, sizeof text, "0x%llx", (unsigned long long)seed); /* a number fits */
    if (setenv("BNS_SEED", text, 1) != 0)
        return BNS_EXIT_FAILURE;
    rv = sim_children(&p, &child, 1, &err);
    if (rv != BNS_OK)
        return usage("replay", rv, &err);
    if (child.code < 0)
        (void)fprintf(stderr, "bonsai sim replay: %s ended by signal %d\n", p.system->sim,
                      -child.code);
    return child.code < 0 ? BNS_EXIT_FAILURE : child.code;
}
