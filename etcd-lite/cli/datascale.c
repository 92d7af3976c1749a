/* datascale.c - check datascale: how much memory does a server need for so many keys?
 *
 * As etcdctl's: so many clients put keys and values of 512 bytes; the resident memory that the
 * first endpoint's /metrics tells is read before and after. The keys are deleted afterwards.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>

#include "io/env_uv.h"
#include "io/http.h"

#define LANES_MAX 1000u
#define HALF 512u

struct scale {
    const char *letter, *name;
    unsigned limit, clients;
};
static const struct scale scales[] = {
    {"s", "small", 10000, 50},
    {"m", "medium", 100000, 200},
    {"l", "large", 1000000, 500},
    {"xl", "xLarge", 3000000, 1000},
};

struct fill {
    struct ctl *c;
    const struct scale *scale;
    struct bns_etcd *clients[8]; /* connections; calls take turns on them */
    unsigned sent, ended, failed;
    char key[256 + HALF], value[HALF];
    size_t prefix_len;
    const char *error;
};

/* ---- the memory of a server ------------------------------------------------------------------ */

struct fetched {
    struct ctl *c;
    double bytes;
    bool over;
};

static void on_metrics(void *arg, int code, const struct bns_http_answer *a)
{
    static const char name[] = "\nprocess_resident_memory_bytes ";
    struct fetched *f = arg;
    const char *at = NULL;

    if (code == BNS_OK && a->status == 200)
        at = memmem(a->body.ptr, a->body.len, name, sizeof name - 1);
    if (at != NULL) {
        size_t left = a->body.len - (size_t)((const uint8_t *)at - a->body.ptr) - (sizeof name - 1);
        char text[64];

        (void)snprintf(text, sizeof text, "%.*s", (int)(left < 60 ? left : 60),
                       at + sizeof name - 1); /* fits */
        f->bytes = strtod(text, NULL);
    }
    f->over = true;
    bns_env_uv_stop(f->c->env);
}

/* 0: it cannot be read. */
static double resident(struct ctl *c)
{
    struct fetched f = {.c = c};
    struct bns_endpoint at;
    bool tls;
    struct bns_http_fetch_opts o = {.target = "/metrics"};

    if (bns_etcd_endpoint(c->f.endpoints[0], &at, &tls, NULL) != BNS_OK)
        return 0;
    o.host = at.host;
    o.port = at.port;
    o.tls = c->tls; /* made for the first client, if it is needed */
    if (bns_http_fetch(c->env, &o, on_metrics, &f, NULL, NULL) != BNS_OK)
        return 0;
    while (!f.over)
        bns_env_uv_run(c->env); /* bounded by the fetch's own timeout */
    return f.bytes;
}

/* ---- the keys -------------------------------------------------------------------------------- */

static bool put_one(struct fill *p);

static void answered(void *arg, const struct bns_etcd_answer *a)
{
    struct fill *p = arg;

    p->ended++;
    if (a->status != BNS_GRPC_OK && p->failed++ == 0)
        p->error = ctl_error_text(p->c, a->status, ctl_print(p->c, "%s", a->text));
    if (p->sent < p->scale->limit)
        (void)put_one(p); /* if not, it counts as failed */
    if (p->ended == p->scale->limit || p->ended == p->sent)
        bns_env_uv_stop(p->c->env);
}

static bool put_one(struct fill *p)
{
    uint64_t id = bns_prng_next(&p->c->env->prng);
    unsigned n = p->sent++;

    memcpy(p->key + p->prefix_len, &id, sizeof id);
    if (bns_etcd_put(p->clients[n % 8], bns_slice(p->key, p->prefix_len + HALF),
                     bns_slice(p->value, HALF), 0, answered, p) == BNS_OK)
        return true;
    p->ended++;
    if (p->failed++ == 0)
        p->error = "out of memory";
    return false;
}

/* CTL_OK: there are none under the prefix yet. */
static int look_first(struct ctl *c)
{
    Etcdserverpb__RangeRequest get;
    Etcdserverpb__RangeResponse *r;
    int code;

    c->f.prefix = true;
    c->f.limit = 1;
    c->f.order = c->f.sort_by = "";
    c->f.consistency = "l";
    code = ctl_get_request(c, 1, (char *[]){(char *)(uintptr_t)c->f.perf_prefix, NULL}, &get);
    if (code == CTL_OK)
        code = ctl_ask(c, BNS_ETCD_RANGE, &get.base, &r);
    if (code == CTL_OK && r->n_kvs > 0)
        return ctl_fail(CTL_INPUT,
                        "prefix \"%s\" has keys. Delete with etcdctl del --prefix %s first",
                        c->f.perf_prefix, c->f.perf_prefix);
    return code;
}

static int verdict(const struct fill *p, double before, double after)
{
    if (p->failed > 0) {
        (void)printf("FAIL: too many errors\nFAIL: ERROR(%s) -> %u\n", p->error, p->failed);
        return CTL_ERROR;
    }
    (void)printf("PASS: Approximate system memory used : %.2f MB.\n",
                 (after - before) / (1024 * 1024));
    return CTL_OK;
}

static int run(struct fill *p)
{
    struct ctl *c = p->c;
    double before = resident(c), after;
    int code;

    if (before <= 0) {
        (void)puts("FAIL: Could not read process_resident_memory_bytes before the put operations.");
        return CTL_ERROR;
    }
    (void)printf(
        "Start data scale check for work load [%u key-value pairs, %u bytes per key-value, "
        "%u concurrent clients].\n",
        p->scale->limit, 2 * HALF, p->scale->clients);
    (void)fflush(stdout); /* it takes a while */
    for (unsigned i = 0; i < p->scale->clients; i++)
        (void)put_one(p); /* if not, it counts as failed */
    while (p->ended < p->scale->limit && p->ended < p->sent)
        bns_env_uv_run(c->env);
    after = resident(c);
    if (after <= 0) {
        (void)puts("FAIL: Could not read process_resident_memory_bytes after the put operations.");
        return CTL_ERROR;
    }
    code = ctl_clean_up(c);
    return code == CTL_OK ? verdict(p, before, after) : code;
}

int ctl_check_datascale(struct ctl *c, int argc, char **argv)
{
    struct fill *p = bns_arena_alloc(&c->arena, sizeof *p);
    int code = CTL_OK;

    (void)argv;
    BNS_ASSERT(p != NULL);
    memset(p, 0, sizeof *p);
    p->c = c;
    p->prefix_len = strlen(c->f.perf_prefix);
    if (argc != 0)
        return ctl_fail(CTL_ARGS, "check datascale takes no arguments");
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(c->f.load, scales[i].letter) == 0 || strcmp(c->f.load, scales[i].name) == 0)
            p->scale = &scales[i];
    }
    if (p->scale == NULL)
        return ctl_fail(CTL_FEATURE, "unknown load option %s", c->f.load);
    if (p->prefix_len > sizeof p->key - HALF)
        return ctl_fail(CTL_ARGS, "the prefix is longer than %zu bytes", sizeof p->key - HALF);
    memcpy(p->key, c->f.perf_prefix, p->prefix_len);
    for (unsigned i = 0; i < 8 && code == CTL_OK; i++) {
        p->clients[i] = ctl_client(c, c->f.endpoints, c->f.endpoints_count);
        code = p->clients[i] == NULL ? CTL_ARGS : CTL_OK;
    }
    if (code == CTL_OK)
        code = look_first(c);
    if (code == CTL_OK)
        code = run(p);
    for (unsigned i = 0; i < 8; i++)
        bns_etcd_free(p->clients[i]);
    return code;
}
