/* perf.c - check perf: does a cluster take as many puts a second as its size promises?
 *
 * As etcdctl's: so many clients put 1 KiB values for a minute, at a rate that is a limit for all
 * together; in the end the throughput must be nine tenths of it, no put slower than half a second,
 * the standard deviation at most a tenth of a second. The keys are deleted afterwards.
 */
#include "cli.h"

#include <inttypes.h>
#include <math.h>

#include "io/env_uv.h"

#define CLIENTS_MAX 1000u
#define SLOWEST 0.5
#define STDDEV 0.1
#define RATE_SHARE 0.9

struct load {
    const char *letter, *name;
    unsigned rate, clients, seconds;
};
static const struct load loads[] = {
    {"s", "small", 150, 50, 60},
    {"m", "medium", 1000, 200, 60},
    {"l", "large", 8000, 500, 60},
    {"xl", "xLarge", 15000, 1000, 60},
};

struct lane {
    struct perf *p;
    uint64_t begun_ns;
    bool busy;
};

struct perf {
    struct ctl *c;
    const struct load *load;
    struct bns_timer timer;
    struct lane lanes[CLIENTS_MAX];
    struct bns_etcd *clients[8]; /* connections; lanes take turns on them */
    uint64_t begun_ns, sent, done, failed;
    double sum, squares, slowest;
    char value[1024];
    const char *error;
};

static void answered(void *arg, const struct bns_etcd_answer *a)
{
    struct lane *l = arg;
    struct perf *p = l->p;
    double took = (double)(bns_now_ns(p->c->env) - l->begun_ns) / 1e9;

    l->busy = false;
    if (a->status != BNS_GRPC_OK) {
        p->failed++;
        p->error = ctl_error_text(p->c, a->status, ctl_print(p->c, "%s", a->text));
        return;
    }
    p->done++;
    p->sum += took;
    p->squares += took * took;
    p->slowest = took > p->slowest ? took : p->slowest;
}

/* One put on a free lane; false: none is free, or there is no memory. */
static bool put_one(struct perf *p)
{
    char key[256];
    int n;

    for (unsigned i = 0; i < p->load->clients; i++) {
        struct lane *l = &p->lanes[i];

        if (l->busy)
            continue;
        n = snprintf(key, sizeof key, "%s%" PRIx64, p->c->f.perf_prefix, p->sent);
        if (n < 0 || (size_t)n >= sizeof key)
            return false;
        l->begun_ns = bns_now_ns(p->c->env);
        if (bns_etcd_put(p->clients[i % 8], bns_slice(key, (size_t)n),
                         bns_slice(p->value, sizeof p->value), 0, answered, l) != BNS_OK)
            return false;
        l->busy = true;
        p->sent++;
        return true;
    }
    return false;
}

static void tick(void *arg)
{
    struct perf *p = arg;
    uint64_t now = bns_now_ns(p->c->env), passed = now - p->begun_ns;
    uint64_t due = passed / BNS_MS * p->load->rate / 1000;

    if (passed >= p->load->seconds * BNS_SEC) {
        bns_env_uv_stop(p->c->env);
        return;
    }
    while (p->sent < due && put_one(p))
        continue;
    bns_timer_start(p->c->env, &p->timer, now + 2 * BNS_MS);
}

static int verdict(const struct perf *p, double seconds)
{
    double n = (double)p->done, rate = n / seconds;
    double mean = n > 0 ? p->sum / n : 0;
    double stddev = n > 0 ? sqrt(fmax(0, p->squares / n - mean * mean)) : 0;
    bool good = true;

    if (p->failed > 0) {
        (void)printf("FAIL: too many errors\nFAIL: ERROR(%s) -> %" PRIu64 "\n", p->error,
                     p->failed);
        good = false;
    }
    if (rate <= RATE_SHARE * p->load->rate) {
        (void)printf("FAIL: Throughput too low: %d writes/s\n", (int)(rate + 0.5));
        good = false;
    } else {
        (void)printf("PASS: Throughput is %d writes/s\n", (int)(rate + 0.5));
    }
    if (p->slowest > SLOWEST) {
        (void)printf("Slowest request took too long: %fs\n", p->slowest);
        good = false;
    } else {
        (void)printf("PASS: Slowest request took %fs\n", p->slowest);
    }
    if (stddev > STDDEV) {
        (void)printf("Stddev too high: %fs\n", stddev);
        good = false;
    } else {
        (void)printf("PASS: Stddev is %fs\n", stddev);
    }
    (void)puts(good ? "PASS" : "FAIL");
    return good ? CTL_OK : CTL_ERROR;
}

int ctl_clean_up(struct ctl *c)
{
    Etcdserverpb__DeleteRangeRequest del = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    Etcdserverpb__DeleteRangeResponse *r;
    Etcdserverpb__CompactionRequest compact = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    void *ignored;
    int code = ctl_connect(c);

    c->f.prefix = true;
    c->f.from_key = c->f.prev_kv = false;
    if (code == CTL_OK)
        code = ctl_del_request(c, 1, (char *[]){(char *)(uintptr_t)c->f.perf_prefix, NULL}, &del);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_DELETE, &del.base, &r);
    if (code == CTL_OK && c->f.auto_compact && r->header != NULL) {
        compact.has_revision = compact.has_physical = compact.physical = true;
        compact.revision = r->header->revision;
        code = ctl_ask(c, BNS_ETCD_COMPACT, &compact.base, &ignored);
        if (code == CTL_OK)
            (void)printf("Compacted with revision %" PRId64 "\n", compact.revision);
    }
    if (code == CTL_OK && c->f.auto_defrag)
        code = ctl_defrag(c, 0, NULL);
    return code;
}

int ctl_check_perf(struct ctl *c, int argc, char **argv)
{
    struct perf *p = bns_arena_alloc(&c->arena, sizeof *p);
    uint64_t end;
    int code = CTL_OK, worst;

    (void)argv;
    BNS_ASSERT(p != NULL);
    memset(p, 0, sizeof *p);
    p->c = c;
    if (argc != 0)
        return ctl_fail(CTL_ARGS, "check perf takes no arguments");
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(c->f.load, loads[i].letter) == 0 || strcmp(c->f.load, loads[i].name) == 0)
            p->load = &loads[i];
    }
    if (p->load == NULL)
        return ctl_fail(CTL_FEATURE, "unknown load option %s", c->f.load);
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        p->lanes[i].p = p;
    for (unsigned i = 0; i < 8 && code == CTL_OK; i++) {
        p->clients[i] = ctl_client(c, c->f.endpoints, c->f.endpoints_count);
        code = p->clients[i] == NULL ? CTL_ARGS : CTL_OK;
    }
    if (code == CTL_OK) {
        memset(p->value, 'v', sizeof p->value);
        bns_timer_init(&p->timer, tick, p);
        p->begun_ns = bns_now_ns(c->env);
        tick(p);
        bns_env_uv_run(c->env);
    }
    if (code != CTL_OK)
        return code;
    end = bns_now_ns(c->env);
    worst = verdict(p, (double)(end - p->begun_ns) / 1e9);
    for (unsigned i = 0; i < 8; i++)
        bns_etcd_free(p->clients[i]);
    code = ctl_clean_up(c);
    return code == CTL_OK ? worst : code;
}
