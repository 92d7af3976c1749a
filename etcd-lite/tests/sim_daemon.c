/* sim_daemon.c - whole etcd-lite daemons and their gRPC clients in one virtual world.
 *
 * Goal:   no seed loses an acknowledged write, serves a stale read, lets two members differ, leaks,
 *         or leaves the cluster stuck once the faults stop.
 * Method: etcd-lite/sim: real bytes through h2, RPC, WAL, SQLite and the memory disk; a swarm of
 *         faults per seed; invariants after every event; linearizability and equal hashes at the
 *         end.
 * Repeat: BNS_SEED=0x1f2e sim_daemon        replays one seed (BNS_TRACE=1 prints every event)
 *         sim_daemon --trace FILE           with BNS_SEED: writes the trace for the viewer
 *         sim_daemon --history FILE         with BNS_SEED: writes what clients asked and were told;
 *                                           what the workers did goes into FILE.append (.bank ...)
 *         sim_daemon --hunt N --start S     hunts N seeds from S on
 *         BNS_MUTANT=22 sim_daemon --hunt 2000   with a planted bug
 *         sim_daemon --nodes N --clients N --lanes N --keys N --workers N --spares N --members 0
 *                    --auth 0 --seconds N --faults LIST
 *                                           smaller than the seed says (sim/sim_limits.h)
 *         sim_daemon --describe yes         with BNS_SEED: prints the seed as such limits
 */
/* ctest: timeout=300 */
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon.h"
#include "sim_limits.h"
#include "sim/trace.h"

#define SEEDS 16
#define SEED_FIRST 306u /* of a stretch with many changes of members and of auth */
#define SEEDS_MORE 120u /* at most, where the others judged nothing of some kind */
#define FILE_BYTES_MAX (256u * 1024 * 1024)

struct options {
    uint64_t hunt, start, seed;
    const char *trace, *history;
    bool describe;
    struct {
        const char *name, *value;
    } limits[16];
    size_t limits_count;
};

static uint64_t number(const char *text, uint64_t otherwise)
{
    char *end;
    uint64_t v;

    if (text == NULL || *text == '\0')
        return otherwise;
    v = strtoull(text, &end, 0);
    return *end == '\0' ? v : otherwise;
}

static void print_line(void *arg, const char *text)
{
    (void)arg;
    (void)printf("%s\n", text);
}

static struct etcd_sim_config config(uint64_t seed)
{
    struct etcd_sim_config cfg = etcd_sim_swarm(seed);

    cfg.world.mutant = (uint32_t)number(getenv("BNS_MUTANT"), 0);
    if (getenv("BNS_TRACE") != NULL)
        cfg.line = print_line;
    return cfg;
}

static void report(uint64_t seed, const struct etcd_sim_result *r)
{
    (void)fprintf(stderr, "seed 0x%llx: %s\n  replay: BNS_SEED=0x%llx sim_daemon --trace FILE\n",
                  (unsigned long long)seed, r->text, (unsigned long long)seed);
}

static void add(struct etcd_sim_result *sum, const struct etcd_sim_result *r)
{
    sum->events += r->events;
    sum->ops_ok += r->ops_ok;
    sum->ops_failed += r->ops_failed;
    sum->ops_open += r->ops_open;
    sum->scrapes += r->scrapes;
    sum->events_watched += r->events_watched;
    sum->renewals += r->renewals;
    sum->starts += r->starts;
    sum->stops += r->stops;
    sum->stops_leading += r->stops_leading;
    sum->hand_overs += r->hand_overs;
    sum->terms += r->terms;
    sum->applied += r->applied;
    sum->searched += r->searched;
    sum->work_ok += r->work_ok;
    sum->virtual_ns += r->virtual_ns;
    sum->changes += r->changes;
    sum->auth_changes += r->auth_changes;
    sum->tokens += r->tokens;
    sum->denied += r->denied;
    sum->user_ok += r->user_ok;
    sum->joins += r->joins;
    sum->leaves += r->leaves;
    sum->moves += r->moves;
    for (unsigned i = 0; i < ETCD_SIM_JUDGED; i++)
        sum->judged[i] += r->judged[i];
}

static void print_means(const struct etcd_sim_result *sum, uint64_t seeds)
{
    const struct {
        const char *name;
        uint64_t n;
    } t[] = {
        {"events", sum->events},
        {"operations answered", sum->ops_ok},
        {"refused", sum->ops_failed},
        {"unknown", sum->ops_open},
        {"of workers", sum->work_ok},
        {"scrapes", sum->scrapes},
        {"events watched", sum->events_watched},
        {"renewals", sum->renewals},
        {"applied", sum->applied},
        {"starts", sum->starts},
        {"stops", sum->stops},
        {"terms", sum->terms},
    };

    for (size_t i = 0; i < sizeof t / sizeof t[0] && seeds > 0; i++)
        (void)printf("%s %llu %s", i > 0 ? "," : "", (unsigned long long)(t[i].n / seeds),
                     t[i].name);
    (void)printf("\n");
}

struct tally { /* seeds in which something happened */
    uint64_t members, auth, leases;
};

static void print_sums(const struct etcd_sim_result *sum, const struct tally *t)
{
    (void)printf("in all: %.1f h of virtual time\n", (double)sum->virtual_ns / 3600e9);
    (void)printf("members changed in %llu seeds: %llu changes, %llu joined, %llu removed ones "
                 "ended, %llu leaders moved\n",
                 (unsigned long long)t->members, (unsigned long long)sum->changes,
                 (unsigned long long)sum->joins, (unsigned long long)sum->leaves,
                 (unsigned long long)sum->moves);
    (void)printf("%llu leaders were told to stop, %llu of them handed over\n",
                 (unsigned long long)sum->stops_leading, (unsigned long long)sum->hand_overs);
    (void)printf("auth changed in %llu seeds: %llu changes, %llu tokens, %llu operations denied, "
                 "%llu done as a user\nleases renewed in %llu seeds\n",
                 (unsigned long long)t->auth, (unsigned long long)sum->auth_changes,
                 (unsigned long long)sum->tokens, (unsigned long long)sum->denied,
                 (unsigned long long)sum->user_ok, (unsigned long long)t->leases);
    (void)printf("judged:");
    for (unsigned i = 0; i < ETCD_SIM_JUDGED; i++)
        (void)printf("%s %llu %s", i > 0 ? "," : "", (unsigned long long)sum->judged[i],
                     etcd_sim_judged_name((enum etcd_sim_judged)i));
    (void)printf("\n");
}

/* Runs seeds start .. + count - 1; how many failed. `sum`: of all of them. */
static uint64_t hunt(uint64_t start, uint64_t count, uint64_t stop_after,
                     struct etcd_sim_result *sum)
{
    struct tally tally = {0};
    uint64_t failed = 0, done = 0, unchecked = 0;
    clock_t began = clock();
    double s;

    memset(sum, 0, sizeof *sum);
    for (uint64_t seed = start; seed < start + count && failed < stop_after; seed++, done++) {
        struct etcd_sim_config cfg = config(seed);
        struct etcd_sim_result r;

        if (!etcd_sim_run(seed, &cfg, &r)) {
            report(seed, &r);
            failed++;
        }
        unchecked += r.unchecked;
        if (r.unchecked)
            (void)fprintf(stderr, "seed 0x%llx: the search for a linear order was given up\n",
                          (unsigned long long)seed);
        add(sum, &r);
        tally.members += r.changes > 0;
        tally.auth += r.auth_changes > 0;
        tally.leases += r.renewals > 0;
        if (done % 100 == 99)
            (void)fprintf(stderr, "%llu seeds\n", (unsigned long long)done + 1);
    }
    s = (double)(clock() - began) / CLOCKS_PER_SEC;
    (void)printf("%llu seeds from 0x%llx, %llu failed, %llu unchecked, %llu operations searched; "
                 "%.1f s CPU, %.0f seeds/h\nper seed:",
                 (unsigned long long)done, (unsigned long long)start, (unsigned long long)failed,
                 (unsigned long long)unchecked, (unsigned long long)sum->searched, s,
                 s > 0 ? (double)done * 3600 / s : 0);
    print_means(sum, done);
    print_sums(sum, &tally);
    return failed;
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* The first kind that nothing was judged of; ETCD_SIM_JUDGED: there is none. */
static unsigned find_unjudged(const struct etcd_sim_result *sum)
{
    unsigned i = 0;

    while (i < ETCD_SIM_JUDGED && sum->judged[i] > 0)
        i++;
    return i;
}

static bool may_show(const struct etcd_sim_config *cfg, unsigned kind)
{
    switch (kind) {
    case ETCD_SIM_DENIED:
    case ETCD_SIM_ALLOWED:
    case ETCD_SIM_OFF:
        return cfg->auth > 0;
    case ETCD_SIM_EXPIRIES:
        return true;
    case ETCD_SIM_LOCKS:
        return cfg->workers > 0 && cfg->work == ETCD_SIM_WORK_LOCK;
    default:
        return cfg->members > 0 && cfg->spares > 0;
    }
}

/* Answers of every kind are judged in these seeds, or in the next few that can show what is
 * missing: a simulation that skips them as unknown would find nothing wrong with them. */
static void no_seed_breaks_the_daemons(void **state)
{
    uint64_t runs = number(getenv("BNS_RUNS"), SEEDS), seed = SEED_FIRST + runs;
    struct etcd_sim_result sum, r;
    unsigned kind;

    (void)state;
    assert_int_equal(hunt(SEED_FIRST, runs, 1, &sum), 0);
    while ((kind = find_unjudged(&sum)) < ETCD_SIM_JUDGED &&
           seed < SEED_FIRST + runs + SEEDS_MORE) {
        struct etcd_sim_config cfg = config(seed++);

        if (!may_show(&cfg, kind))
            continue;
        print_message("no %s yet: seed 0x%llx\n", etcd_sim_judged_name((enum etcd_sim_judged)kind),
                      (unsigned long long)seed - 1);
        if (!etcd_sim_run(seed - 1, &cfg, &r)) {
            report(seed - 1, &r);
            fail_msg("%s", r.text);
        }
        add(&sum, &r);
    }
    if (kind < ETCD_SIM_JUDGED)
        fail_msg("%s: none was judged in the seeds from %u to %llu",
                 etcd_sim_judged_name((enum etcd_sim_judged)kind), SEED_FIRST,
                 (unsigned long long)seed - 1);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct etcd_sim_config cfg = config(seed);
        struct etcd_sim_result a, b;

        assert_true(etcd_sim_run(seed, &cfg, &a));
        assert_true(etcd_sim_run(seed, &cfg, &b));
        assert_true(a.trace_hash == b.trace_hash && a.events == b.events && a.events > 1000);
        assert_true(a.ops_ok == b.ops_ok && a.applied == b.applied && a.ops_ok > 0);
    }
}

/* Every seed that ever failed, with what was wrong. */
static void seeds_that_failed_once_stay_clean(void **state)
{
    static const struct {
        uint64_t seed;
        bool workers; /* there were some then */
        const char *was;
    } t[] = {
        {0x289d, false,
         "a put that happened was told as refused, when there was no memory for the answer"},
        {0x6, false, "a timer for streams without a leader ran on in a server that had stopped"},
        {0xad5d0, true, "a learner that was removed while it was cut off never asked about it"},
        {0xb4f29, true, "a member knew no address of a leader that came while it was down"},
        {0xb72fd, true, "one of two left, and the other one needed its vote"},
        {0xbf3c5, true, "a leader that was read all the time went on with who was removed"},
        {0xdd3d8, true, "a drain ended a call between two of its headers, and it began then"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct etcd_sim_config cfg = config(t[i].seed);
        struct etcd_sim_result r;

        cfg.workers = t[i].workers ? cfg.workers : 0;
        if (!etcd_sim_run(t[i].seed, &cfg, &r)) {
            report(t[i].seed, &r);
            fail_msg("again: %s", t[i].was);
        }
    }
}

/* Runs this program once more; what it prints, cut to fit. */
static void run_self(char *const envp[], char *out, size_t cap)
{
    char *argv[] = {"sim_daemon", NULL};
    posix_spawn_file_actions_t actions;
    size_t len = 0;
    ssize_t n;
    int fds[2], status = 0;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, fds[1], 1), 0);
    assert_int_equal(posix_spawn_file_actions_addclose(&actions, fds[0]), 0);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, envp), 0);
    assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
    assert_int_equal(close(fds[1]), 0);
    while ((n = read(fds[0], out + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    out[len] = '\0';
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* Nothing of the machine or the process gets in. */
static void another_process_gives_the_same_run(void **state)
{
    char *envp[] = {"BNS_SEED=3", NULL};
    struct etcd_sim_config cfg = config(3);
    struct etcd_sim_result r;
    unsigned long long seed = 0, events = 0, hash = 0;
    unsigned servers = 0;
    char text[256];

    (void)state;
    run_self(envp, text, sizeof text);
    assert_int_equal(sscanf(text, "seed 0x%llx: ok, %u servers, %llu events, hash %llx", &seed,
                            &servers, &events, &hash),
                     4);
    assert_true(etcd_sim_run(3, &cfg, &r));
    assert_true(hash == r.trace_hash && events == r.events && seed == 3);
}

/* ---- one seed -------------------------------------------------------------------------------- */

static bool write_file(const char *path, struct bns_buf *b)
{
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL && fwrite(b->ptr, 1, b->len, f) == b->len;

    if (f != NULL && fclose(f) != 0)
        ok = false;
    if (!ok)
        (void)fprintf(stderr, "sim_daemon: cannot write %s\n", path);
    return ok;
}

static int replay(const struct options *o)
{
    struct etcd_sim_config cfg = config(o->seed);
    struct etcd_sim_result r;
    struct bns_trace *t = NULL;
    struct bns_buf trace, history, work;
    char path[512];
    struct bns_err err;
    bool ok, written = true;

    for (size_t i = 0; i < o->limits_count; i++) {
        if (etcd_sim_limit(&cfg, o->limits[i].name, o->limits[i].value, &err) == BNS_OK)
            continue;
        (void)fprintf(stderr, "sim_daemon: %s\n", err.text);
        return 2;
    }
    if (o->describe) {
        etcd_sim_describe(&cfg, stdout);
        return 0;
    }
    bns_buf_init(&trace, bns_alloc_libc(), FILE_BYTES_MAX);
    bns_buf_init(&history, bns_alloc_libc(), FILE_BYTES_MAX);
    bns_buf_init(&work, bns_alloc_libc(), FILE_BYTES_MAX);
    if (o->trace != NULL && bns_trace_new(bns_alloc_libc(), o->seed, 0, &t) != BNS_OK)
        return 1;
    if (t != NULL)
        bns_trace_title(t, "sim_daemon");
    cfg.trace = t;
    cfg.history = &history;
    cfg.work_history = &work;
    ok = etcd_sim_run(o->seed, &cfg, &r);
    if (t != NULL)
        written = bns_trace_write(t, &trace) == BNS_OK && write_file(o->trace, &trace);
    if (o->history != NULL) {
        (void)snprintf(path, sizeof path, "%s.%s", o->history, sim_work_name(&cfg)); /* cut */
        written = write_file(o->history, &history) && write_file(path, &work) && written;
    }
    if (!ok)
        report(o->seed, &r);
    else
        (void)printf("seed 0x%llx: ok, %u servers, %llu events, hash %016llx\n",
                     (unsigned long long)o->seed, cfg.servers, (unsigned long long)r.events,
                     (unsigned long long)r.trace_hash);
    bns_trace_free(t);
    bns_buf_free(&trace);
    bns_buf_free(&history);
    bns_buf_free(&work);
    return ok && written ? 0 : 1;
}

/* False: there is no such option, or its value is missing. */
static bool take_option(struct options *o, const char *name, const char *value)
{
    if (value == NULL || strncmp(name, "--", 2) != 0)
        return false;
    if (strcmp(name, "--hunt") == 0)
        o->hunt = number(value, 1000);
    else if (strcmp(name, "--start") == 0)
        o->start = number(value, 1);
    else if (strcmp(name, "--trace") == 0)
        o->trace = value;
    else if (strcmp(name, "--history") == 0)
        o->history = value;
    else if (strcmp(name, "--describe") == 0)
        o->describe = true;
    else if (o->limits_count == sizeof o->limits / sizeof o->limits[0])
        return false;
    else {
        o->limits[o->limits_count].name = name + 2;
        o->limits[o->limits_count++].value = value;
    }
    return true;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(another_process_gives_the_same_run),
        cmocka_unit_test(seeds_that_failed_once_stay_clean),
        cmocka_unit_test(no_seed_breaks_the_daemons),
    };
    struct etcd_sim_result sum;
    struct options o = {.start = 1, .seed = number(getenv("BNS_SEED"), 0)};

    for (int i = 1; i < argc; i += 2) {
        if (take_option(&o, argv[i], argv[i + 1]))
            continue;
        (void)fprintf(stderr, "sim_daemon: %s: no such option, or no value behind it\n", argv[i]);
        return 2;
    }
    if (getenv("BNS_SEED") != NULL)
        return replay(&o);
    if (o.hunt > 0)
        return hunt(o.start, o.hunt, getenv("BNS_MUTANT") != NULL ? 1 : 20, &sum) == 0 ? 0 : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
