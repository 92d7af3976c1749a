/* sim_world.c - the simulator keeps its promises: same seed, same run; streams that are streams;
 * nodes that die and come back with what their disks kept.
 *
 * Method: a server appends numbered records to a file and acknowledges each after the sync of its
 * batch; clients send numbers over streams and remember what was acknowledged. Under a swarm of
 * faults no acknowledged number may be missing after any restart; after healing all must go on.
 * Repeat: BNS_SEED=n runs that seed only; BNS_TRACE=1 prints its events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim/world.h"

#define SERVERS 2
#define CLIENTS 2
#define PORT 700
#define NUMBERS_MAX 4096

enum planted { SKIP_SYNC = 1, SKIP_SYNC_DIR, MUTANTS_END };

/* ---- the server: a set of numbers in a log file ---------------------------------------------- */

struct shared { /* what the harness knows, outside all nodes */
    bool acked[SERVERS][NUMBERS_MAX];
    uint32_t next;
    uint64_t acks;
    uint64_t starts;
    const char *bad;
};

struct server {
    struct bns_env *env;
    unsigned id;
    struct shared *shared;
    struct bns_listener *listener;
    struct bns_worker *worker;
    struct bns_file *file;
    uint64_t size;
    bool have[NUMBERS_MAX];
};

struct conn {
    struct server *s;
    struct bns_stream *stream;
    uint8_t part[4];
    size_t part_len;
    uint32_t jobs;
    bool gone;
};

struct append { /* one number on its way to the disk */
    struct bns_job job;
    struct conn *c;
    struct server *s;
    uint8_t bytes[4];
    int rv;
};

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void conn_drop(struct conn *c)
{
    if (c->gone && c->jobs == 0)
        bns_free(c->s->env->alloc, c);
}

static void acked(void *arg, int code)
{
    struct append *a = arg;
    struct conn *c = a->c;

    (void)code;
    bns_free(c->s->env->alloc, a);
    c->jobs--;
    conn_drop(c);
}

static void appended(struct bns_job *j)
{
    struct append *a = BNS_CONTAINER(j, struct append, job);
    struct bns_slice s = bns_slice(a->bytes, 4);

    if (a->rv != BNS_OK) {
        bns_fatal(a->s->env, 6, "write failed");
        return;
    }
    if (a->c->gone || bns_stream_write(a->c->stream, &s, 1, acked, a) != BNS_OK)
        acked(a, BNS_E_DROPPED);
}

/* Group commit: all writes, one sync. */
static void append_batch(void *arg, struct bns_list *jobs)
{
    struct server *s = arg;
    int rv = BNS_OK;

    BNS_LIST_EACH(n, jobs)
    {
        struct append *a = BNS_CONTAINER(n, struct append, job.node);
        struct bns_slice b = bns_slice(a->bytes, 4);
        if (rv == BNS_OK)
            rv = bns_file_write_at(s->file, s->size, &b, 1, NULL);
        s->size += 4;
    }
    if (rv == BNS_OK && s->env->mutant != SKIP_SYNC)
        rv = bns_file_sync(s->file, true, NULL);
    BNS_LIST_EACH(n, jobs)
    BNS_CONTAINER(n, struct append, job.node)->rv = rv;
}

static void on_number(struct conn *c, uint32_t v)
{
    struct append *a = bns_alloc_zero(c->s->env->alloc, sizeof *a);

    if (a == NULL) {
        bns_fatal(c->s->env, 70, "no memory");
        return;
    }
    a->c = c;
    a->s = c->s;
    put_u32(a->bytes, v);
    a->job.done = appended;
    c->jobs++;
    bns_worker_submit(c->s->env, c->s->worker, &a->job);
}

static void on_data(void *arg, struct bns_slice data)
{
    struct conn *c = arg;

    for (size_t i = 0; i < data.len; i++) {
        c->part[c->part_len++] = data.ptr[i];
        if (c->part_len == 4) {
            c->part_len = 0;
            on_number(c, get_u32(c->part));
        }
    }
}

static void on_close(void *arg, int code)
{
    struct conn *c = arg;

    (void)code;
    c->gone = true;
    conn_drop(c);
}

static const struct bns_stream_events server_events = {.on_data = on_data, .on_close = on_close};

static void on_accept(void *arg, struct bns_stream *stream)
{
    struct server *s = arg;
    struct conn *c = bns_alloc_zero(s->env->alloc, sizeof *c);

    if (c == NULL) {
        bns_stream_reset(stream);
        return;
    }
    c->s = s;
    c->stream = stream;
    bns_stream_set_events(stream, &server_events, c);
}

static int recover(struct server *s)
{
    uint8_t b[4];
    size_t got;
    int rv = bns_vfs_mkdir(s->env->vfs, "data", NULL);

    if (rv == BNS_OK)
        rv = bns_vfs_sync_dir(s->env->vfs, "/", NULL);
    if (rv == BNS_OK)
        rv = bns_vfs_open(s->env->vfs, "data/log", BNS_OPEN_CREATE, &s->file, NULL);
    if (rv == BNS_OK && s->env->mutant != SKIP_SYNC_DIR)
        rv = bns_vfs_sync_dir(s->env->vfs, "data", NULL);
    while (rv == BNS_OK) {
        rv = bns_file_read_at(s->file, s->size, b, 4, &got, NULL);
        if (rv != BNS_OK || got < 4)
            break;
        if (get_u32(b) < NUMBERS_MAX)
            s->have[get_u32(b)] = true; /* a torn record reads as something else: not acked */
        s->size += 4;
    }
    s->size = s->size / 512 * 512 + 512; /* a torn sector is not written again */
    return rv;
}

static int server_start(struct bns_env *env, unsigned id, void *arg)
{
    struct server *s = bns_alloc_zero(env->alloc, sizeof *s);
    int rv;

    if (s == NULL)
        return BNS_E_NOMEM;
    s->env = env;
    s->id = id;
    s->shared = arg;
    s->shared->starts++;
    rv = recover(s);
    for (uint32_t i = 0; rv == BNS_OK && i < NUMBERS_MAX; i++) {
        if (s->shared->acked[id][i] && !s->have[i])
            s->shared->bad = "an acknowledged number is gone";
    }
    if (rv == BNS_OK)
        rv = bns_worker_new(env, "log", append_batch, s, &s->worker);
    if (rv == BNS_OK)
        rv = bns_net_listen(env, "0.0.0.0", PORT, on_accept, s, &s->listener, NULL);
    return rv;
}

/* ---- the client ------------------------------------------------------------------------------ */

struct client {
    struct bns_env *env;
    struct shared *shared;
    unsigned server;
    struct bns_stream *stream;
    struct bns_timer timer;
    bool open;
    uint8_t part[4];
    size_t part_len;
    uint8_t out[4];
    uint64_t window;
};

static void client_tick(void *arg);

static void client_open(void *arg)
{
    ((struct client *)arg)->open = true;
}

static void client_data(void *arg, struct bns_slice data)
{
    struct client *c = arg;

    for (size_t i = 0; i < data.len; i++) {
        c->part[c->part_len++] = data.ptr[i];
        if (c->part_len < 4)
            continue;
        c->part_len = 0;
        if (get_u32(c->part) >= c->shared->next)
            c->shared->bad = "a number came back that was never sent";
        else
            c->shared->acked[c->server][get_u32(c->part)] = true;
        c->shared->acks++;
    }
}

static void client_close(void *arg, int code)
{
    struct client *c = arg;

    (void)code;
    c->stream = NULL;
    c->open = false;
    c->part_len = 0;
}

static const struct bns_stream_events client_events = {
    .on_open = client_open, .on_data = client_data, .on_close = client_close};

static void number_free(void *arg, int code)
{
    uint8_t *p = arg;
    struct client *c;

    (void)code;
    memcpy(&c, p + 8, sizeof c);
    bns_free(c->env->alloc, p);
}

static void client_tick(void *arg)
{
    struct client *c = arg;
    char host[32];

    bns_timer_start(c->env, &c->timer,
                    bns_now_ns(c->env) + bns_prng_range(&c->env->prng, BNS_MS, 50 * BNS_MS));
    (void)snprintf(host, sizeof host, "10.0.0.%u", c->server + 1);
    if (c->stream == NULL &&
        bns_net_connect(c->env, host, PORT, &client_events, c, &c->stream, NULL) != BNS_OK)
        c->stream = NULL;
    if (c->stream != NULL && bns_stream_queued(c->stream) < 100 && c->shared->next < NUMBERS_MAX) {
        uint8_t *p = bns_alloc(c->env->alloc, 8 + sizeof c);
        struct bns_slice s = bns_slice(p, 4);
        assert_non_null(p);
        put_u32(p, c->shared->next++);
        memcpy(p + 8, &c, sizeof c);
        if (bns_stream_write(c->stream, &s, 1, number_free, p) != BNS_OK)
            bns_free(c->env->alloc, p);
    }
    if (c->stream != NULL && bns_prng_chance(&c->env->prng, 0.005))
        bns_stream_close(c->stream);
}

static int client_start(struct bns_env *env, unsigned id, void *arg)
{
    struct client *c = bns_alloc_zero(env->alloc, sizeof *c);

    if (c == NULL)
        return BNS_E_NOMEM;
    c->env = env;
    c->shared = arg;
    c->server = id % SERVERS;
    bns_timer_init(&c->timer, client_tick, c);
    bns_timer_start(env, &c->timer, bns_now_ns(env));
    return BNS_OK;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void print_line(void *arg, const char *text)
{
    (void)arg;
    print_message("%s\n", text);
}

static const char *check(struct bns_world *w, void *arg)
{
    (void)w;
    return ((struct shared *)arg)->bad;
}

struct outcome {
    uint64_t hash, events, acks, starts;
    const char *bad;
};

static struct outcome run(uint64_t seed, bool violent, uint32_t mutant)
{
    struct bns_world_config cfg = violent ? bns_world_swarm(seed, SERVERS + CLIENTS, SERVERS, false)
                                          : bns_world_calm(SERVERS + CLIENTS);
    struct shared *sh = calloc(1, sizeof *sh);
    struct bns_node_main server = {.start = server_start, .arg = sh, .restart_ns = BNS_SEC};
    struct bns_node_main client = {.start = client_start, .arg = sh};
    struct bns_world *w;
    struct outcome o;
    const char *bad;
    uint64_t before;

    assert_non_null(sh);
    if (violent && seed % 2 == 0) {
        cfg.nemesis.full = 0.002;
        cfg.nemesis.full_max_ns = 3 * BNS_SEC;
        cfg.nemesis.oom = 0.002;
    }
    cfg.mutant = mutant;
    assert_int_equal(bns_world_new(seed, &cfg, &w), BNS_OK);
    if (getenv("BNS_TRACE") != NULL)
        bns_world_trace(w, print_line, NULL);
    for (unsigned i = 0; i < SERVERS + CLIENTS; i++)
        bns_world_start(w, i, i < SERVERS ? &server : &client);
    bns_world_nemesis(w, violent);
    bad = bns_world_run(w, 30 * BNS_SEC, check, sh);
    bns_world_heal(w);
    if (bad == NULL) /* long enough for what hangs to time out */
        bad = bns_world_run(w, bns_world_now(w) + 30 * BNS_SEC, check, sh);
    before = sh->acks;
    if (bad == NULL)
        bad = bns_world_run(w, bns_world_now(w) + 5 * BNS_SEC, check, sh);
    if (bad == NULL && sh->acks == before && sh->next < NUMBERS_MAX)
        bad = "no progress after healing";
    for (unsigned i = 0; i < SERVERS; i++) /* the last word: what the disks keep */
        bns_world_power_cut(w, i);
    for (unsigned i = 0; i < SERVERS; i++)
        bns_world_restart(w, i);
    if (bad == NULL)
        bad = bns_world_run(w, bns_world_now(w) + BNS_SEC, check, sh);
    if (bad != NULL && mutant == 0)
        fail_msg("BNS_SEED=%llu: %s", (unsigned long long)seed, bad);
    o = (struct outcome){bns_world_trace_hash(w), bns_world_events(w), sh->acks, sh->starts, bad};
    bns_world_free(w);
    free(sh);
    return o;
}

static void a_calm_world_works(void **state)
{
    struct outcome o = run(1, false, 0);

    (void)state;
    assert_true(o.acks > 1000);
    assert_int_equal(o.starts, 2 * SERVERS);
}

static void same_seed_same_trace_hash(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct outcome a = run(seed, true, 0);
        struct outcome b = run(seed, true, 0);
        assert_true(a.hash == b.hash);
        assert_true(a.events == b.events);
        assert_true(a.acks == b.acks);
    }
    assert_true(run(1, true, 0).hash != run(2, true, 0).hash);
}

static void no_acknowledged_number_is_lost_in_a_swarm_of_faults(void **state)
{
    const char *env = getenv("BNS_SEED");
    uint64_t acks = 0;
    uint64_t starts = 0;
    uint64_t seed = env == NULL ? 1 : strtoull(env, NULL, 0);
    uint64_t last = env == NULL ? 100 : seed;

    (void)state;
    for (; seed <= last; seed++) {
        struct outcome o = run(seed, true, 0);
        acks += o.acks;
        starts += o.starts;
    }
    print_message("acknowledged %llu, starts %llu\n", (unsigned long long)acks,
                  (unsigned long long)starts);
    assert_true(env != NULL || acks > 10000);
    assert_true(env != NULL || starts > 600);
}

/* The harness can fail: servers that do not sync are found out. */
static void planted_bugs_are_caught(void **state)
{
    (void)state;
    for (uint32_t mutant = 1; mutant < MUTANTS_END; mutant++) {
        uint64_t seed = 1;
        while (seed <= 100 && run(seed, true, mutant).bad == NULL)
            seed++;
        print_message("mutant %u: seed %llu\n", mutant, (unsigned long long)seed);
        assert_true(seed <= 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_calm_world_works),
        cmocka_unit_test(same_seed_same_trace_hash),
        cmocka_unit_test(no_acknowledged_number_is_lost_in_a_swarm_of_faults),
        cmocka_unit_test(planted_bugs_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
