/* sim_grpc.c - the gRPC client and server as nodes of a simulated world.
 *
 * Goal:   whatever the network and the power do, each call ends exactly once; an answer that says
 *         OK is the answer to that call; once the faults stop every call succeeds.
 * Method: one server, two clients that keep four calls of mixed kinds open, each with a deadline;
 *         segments cut to a few bytes, loss, resets that one side does not hear of, partitions, the
 *         server killed and restarted. Then heal, and let every client do 50 more calls.
 * Repeat: BNS_SEED=0x1f2e sim_grpc runs that seed alone.
 *
 * ctest: timeout=120 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "base/varint.h"
#include "io/grpc.h"
#include "sim/world.h"

#define SEEDS 100u
#define LANES 4u
#define CLIENTS 2u
#define PORT 2379

struct lane {
    struct client *owner;
    struct bns_timer timer; /* between two calls */
    uint32_t sent, got;     /* numbers; of a stream: how many messages came */
    bool stream, wrong, open;
};

struct client {
    struct run *run;
    struct bns_env *env;
    struct bns_grpc_client *grpc;
    struct lane lanes[LANES];
    unsigned good, failed;
};

struct run {
    struct bns_world *w;
    struct bns_grpc_method methods[2];
    struct client clients[CLIENTS];
    bool healed, asleep;
};

/* ---- the server ---------------------------------------------------------------------------- */
static void square(struct bns_grpc_call *c, struct bns_slice msg)
{
    uint8_t out[8];
    uint64_t v = msg.len == 4 ? bns_get_u32be(msg.ptr) : 0;

    bns_put_u64be(out, v * v);
    if (bns_grpc_send_copy(c, bns_slice(out, 8)) == BNS_OK)
        bns_grpc_finish(c, BNS_GRPC_OK, NULL, NULL, 0);
    else
        bns_grpc_finish(c, BNS_GRPC_RESOURCE_EXHAUSTED, "no memory", NULL, 0);
}

/* 20 messages of 4 KiB that start with the number and their place. */
static void many(struct bns_grpc_call *c, struct bns_slice msg)
{
    static uint8_t out[4096];
    int rv = BNS_OK;

    for (uint32_t i = 0; i < 20 && rv == BNS_OK; i++) {
        memcpy(out, msg.ptr, msg.len < 4 ? msg.len : 4);
        bns_put_u32be(out + 4, i);
        rv = bns_grpc_send_copy(c, bns_slice(out, sizeof out));
    }
    bns_grpc_finish(c, rv == BNS_OK ? BNS_GRPC_OK : BNS_GRPC_RESOURCE_EXHAUSTED, NULL, NULL, 0);
}

static int server_start(struct bns_env *env, unsigned id, void *arg)
{
    struct run *r = arg;
    struct bns_grpc_server *s; /* dies with the node */
    int rv = bns_grpc_server_new(env, NULL, &s);

    r->methods[0] = (struct bns_grpc_method){
        .path = "/s.S/Square", .kind = BNS_GRPC_UNARY, .handler = {.on_message = square}};
    r->methods[1] = (struct bns_grpc_method){
        .path = "/s.S/Many", .kind = BNS_GRPC_SERVER_STREAM, .handler = {.on_message = many}};
    if (rv == BNS_OK)
        rv = bns_grpc_server_methods(s, r->methods, 2);
    if (rv == BNS_OK)
        rv = bns_grpc_server_listen(s, bns_world_host(r->w, id), PORT, NULL, NULL);
    return rv;
}

/* ---- the clients --------------------------------------------------------------------------- */
static void on_message(struct bns_grpc_ccall *c, struct bns_slice msg)
{
    struct lane *l = bns_grpc_ccall_arg(c);

    if (!l->open)
        l->wrong = true;
    if (l->stream)
        l->wrong = l->wrong || msg.len != 4096 || bns_get_u32be(msg.ptr) != l->sent ||
                   bns_get_u32be(msg.ptr + 4) != l->got;
    else
        l->wrong =
            l->wrong || msg.len != 8 || bns_get_u64be(msg.ptr) != (uint64_t)l->sent * l->sent;
    l->got++;
}

static void on_status(struct bns_grpc_ccall *c, int status, const char *text)
{
    struct lane *l = bns_grpc_ccall_arg(c);
    struct client *o = l->owner;

    (void)text;
    if (!l->open || (status == BNS_GRPC_OK && l->got != (l->stream ? 20u : 1u)))
        l->wrong = true;
    l->open = false;
    if (status == BNS_GRPC_OK)
        o->good++;
    else
        o->failed++;
    if (!o->run->asleep)
        bns_timer_start(o->env, &l->timer,
                        bns_now_ns(o->env) + bns_prng_below(&o->env->prng, 300 * BNS_MS));
}

static const struct bns_grpc_client_handler handler = {.on_message = on_message,
                                                       .on_status = on_status};

static void next_call(void *arg)
{
    struct lane *l = arg;
    struct client *o = l->owner;
    struct bns_grpc_call_options opt;
    uint8_t in[4];

    BNS_ASSERT(!l->open);
    l->sent++;
    l->got = 0;
    l->stream = bns_prng_chance(&o->env->prng, 0.3);
    l->open = true;
    bns_put_u32be(in, l->sent);
    opt = (struct bns_grpc_call_options){
        .path = l->stream ? "/s.S/Many" : "/s.S/Square",
        .deadline_ns = bns_now_ns(o->env) + bns_prng_range(&o->env->prng, BNS_MS, 3 * BNS_SEC)};
    if (o->run->healed)
        opt.deadline_ns = bns_now_ns(o->env) + 30 * BNS_SEC;
    if (bns_grpc_unary(o->grpc, &opt, bns_slice(in, 4), &handler, l) != BNS_OK) {
        l->open = false;
        bns_timer_start(o->env, &l->timer, bns_now_ns(o->env) + 100 * BNS_MS);
    }
}

static int client_start(struct bns_env *env, unsigned id, void *arg)
{
    struct client *o = arg;
    int rv;

    (void)id;
    o->env = env;
    rv = bns_grpc_client_new(env, bns_world_host(o->run->w, 0), PORT, &o->grpc, NULL);
    for (unsigned i = 0; i < LANES && rv == BNS_OK; i++) {
        o->lanes[i].owner = o;
        bns_timer_init(&o->lanes[i].timer, next_call, &o->lanes[i]);
        bns_timer_start(env, &o->lanes[i].timer, bns_now_ns(env));
    }
    return rv;
}

static const char *check(struct bns_world *w, void *arg)
{
    struct run *r = arg;

    (void)w;
    for (unsigned i = 0; i < CLIENTS; i++) {
        for (unsigned n = 0; n < LANES; n++) {
            if (r->clients[i].lanes[n].wrong)
                return "a call ended twice, or with another call's answer";
        }
    }
    return NULL;
}

static void close_client(struct bns_env *env, void *arg)
{
    (void)env;
    bns_grpc_client_free(arg);
}

static uint64_t run_seed(uint64_t seed, unsigned *good, unsigned *failed)
{
    struct bns_world_config cfg = bns_world_swarm(seed, 1 + CLIENTS, 1, false);
    struct bns_node_main server = {.start = server_start};
    struct run r = {.healed = false};
    const char *bad;
    unsigned before[CLIENTS], lost[CLIENTS];
    uint64_t hash;

    BNS_ASSERT(bns_world_new(seed, &cfg, &r.w) == BNS_OK);
    server.arg = &r;
    bns_world_start(r.w, 0, &server);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct bns_node_main client = {.start = client_start, .arg = &r.clients[i]};
        r.clients[i].run = &r;
        bns_world_start(r.w, 1 + i, &client);
    }
    bns_world_nemesis(r.w, true);
    bad = bns_world_run(r.w, 10 * BNS_SEC, check, &r);
    bns_world_heal(r.w);
    if (bad == NULL) /* calls that the faults have met end */
        bad = bns_world_run(r.w, 25 * BNS_SEC, check, &r);
    r.healed = true;
    if (bad == NULL)
        bad = bns_world_run(r.w, 26 * BNS_SEC, check, &r);
    for (unsigned i = 0; i < CLIENTS; i++) {
        before[i] = r.clients[i].good;
        lost[i] = r.clients[i].failed;
    }
    if (bad == NULL)
        bad = bns_world_run(r.w, 36 * BNS_SEC, check, &r);
    for (unsigned i = 0; i < CLIENTS && bad == NULL; i++) {
        if (r.clients[i].good < before[i] + 50)
            bad = "less than 50 calls in 10 s after the faults stopped";
        if (r.clients[i].failed > lost[i])
            bad = "a call failed after the faults stopped";
        *good += r.clients[i].good;
        *failed += r.clients[i].failed;
    }
    r.asleep = true;
    for (unsigned i = 0; i < CLIENTS; i++) {
        unsigned open = 0;
        for (unsigned n = 0; n < LANES; n++) {
            open += r.clients[i].lanes[n].open;
            if (!r.clients[i].lanes[n].open)
                bns_timer_stop(r.clients[i].env, &r.clients[i].lanes[n].timer);
        }
        lost[i] = r.clients[i].failed + r.clients[i].good + open;
        (void)bns_world_call(r.w, 1 + i, close_client, r.clients[i].grpc);
        if (bad == NULL && r.clients[i].failed + r.clients[i].good != lost[i])
            bad = "closing the client did not end its calls";
    }
    hash = bns_world_trace_hash(r.w);
    bns_world_free(r.w);
    if (bad != NULL)
        fail_msg("seed=0x%llx: %s", (unsigned long long)seed, bad);
    return hash;
}

static void calls_end_once_with_their_own_answer(void **state)
{
    const char *one = getenv("BNS_SEED");
    unsigned good = 0, failed = 0;

    (void)state;
    if (one != NULL) {
        (void)run_seed(strtoull(one, NULL, 0), &good, &failed);
    } else {
        for (uint64_t seed = 1; seed <= SEEDS; seed++)
            (void)run_seed(seed, &good, &failed);
        assert_true(failed > 0); /* the faults did strike */
    }
    print_message("  %u calls answered, %u not\n", good, failed);
}

static void same_seed_same_trace(void **state)
{
    unsigned good[2] = {0}, failed[2] = {0};

    (void)state;
    assert_true(run_seed(7, &good[0], &failed[0]) == run_seed(7, &good[1], &failed[1]));
    assert_int_equal(good[0], good[1]);
    assert_int_equal(failed[0], failed[1]);
    assert_true(run_seed(8, &good[0], &failed[0]) != run_seed(7, &good[1], &failed[1]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_end_once_with_their_own_answer),
        cmocka_unit_test(same_seed_same_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
