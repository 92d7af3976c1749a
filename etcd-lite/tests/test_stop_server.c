/* Goal:   a leader that is told to stop hands over first: who puts sees no election, and loses no
 *         put; and it stops within its bounds when nobody can take over.
 * Method: servers in a simulated world; clients that put one value after the other, through the
 *         members that stay, while the leader is drained as SIGTERM does it.
 */
#include "client_world.h"

#define ELECTION_NS BNS_SEC /* of the servers, at the least */
#define HAND_OVER_NS (2 * BNS_SEC)
#define CLIENTS 2u

struct writer {
    struct bns_etcd *c;
    char value[24];
    unsigned count, failed;
    bool over, ended;
    uint64_t last_ns, longest_ns; /* between two answers */
};

struct stop {
    struct etcd_server *s;
    bool drained;
    uint64_t begun_ns, took_ns;
    uint64_t leader; /* whom it knew as the leader at its end */
};

static void put(struct writer *w);

static void on_put(void *arg, const struct bns_etcd_answer *a)
{
    struct writer *w = arg;
    uint64_t now = bns_world_now(cw.w);

    if (a->status != 0 && w->failed++ == 0)
        print_message("  put %u: %d %s\n", w->count, a->status, a->text);
    w->count++;
    if (now - w->last_ns > w->longest_ns)
        w->longest_ns = now - w->last_ns;
    w->last_ns = now;
    if (w->over)
        w->ended = true;
    else
        put(w);
}

static void put(struct writer *w)
{
    (void)snprintf(w->value, sizeof w->value, "%u", w->count);
    assert_int_equal(bns_etcd_put(w->c, bns_slice_str("k"), bns_slice_str(w->value), 0, on_put, w),
                     BNS_OK);
}

static void drained(void *arg)
{
    struct stop *p = arg;

    p->drained = true;
    p->took_ns = bns_world_now(cw.w) - p->begun_ns;
    p->leader = p->s->leader;
}

static void drain(struct bns_env *env, void *arg)
{
    struct stop *p = arg;

    (void)env;
    etcd_server_drain(p->s, drained, p);
}

static void release(struct bns_env *env, void *arg)
{
    (void)env;
    etcd_server_free(arg);
}

static void stop(unsigned id, struct stop *p)
{
    *p = (struct stop){.s = cw.server[id].s, .begun_ns = bns_world_now(cw.w)};
    assert_true(bns_world_call(cw.w, id, drain, p));
    assert_true(cw_until(&p->drained, 30 * BNS_SEC));
    cw_pass(BNS_MS);
    assert_true(bns_world_call(cw.w, id, release, p->s));
    cw.server[id].s = NULL;
    assert_int_equal(bns_world_timers(cw.w, id), 0);
    bns_world_kill(cw.w, id);
}

static void nobody_who_puts_sees_an_election(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct writer w[CLIENTS] = {0};
        struct stop p;
        unsigned lead;

        cw_new(seed, 3, NULL);
        lead = cw_leader();
        cw_pass(2 * BNS_SEC);
        for (unsigned i = 0; i < CLIENTS; i++) {
            const char *one[] = {cw.endpoint[(lead + 1 + i) % 3]};
            struct bns_etcd_options o = {
                .first_endpoint = true, .endpoints = one, .endpoints_count = 1};
            w[i].c = cw_client(&o);
            w[i].last_ns = bns_world_now(cw.w);
            put(&w[i]);
        }
        cw_pass(BNS_SEC);
        assert_int_equal(cw_leader(), lead);
        stop(lead, &p);
        print_message("  seed %d: stopped in %d ms", (int)seed, (int)(p.took_ns / BNS_MS));
        assert_true(p.leader != 0 && p.leader != cw.server[lead].opt.self->id);
        cw_pass(BNS_SEC);
        for (unsigned i = 0; i < CLIENTS; i++) {
            unsigned count = w[i].count;

            w[i].over = true;
            assert_true(cw_until(&w[i].ended, 10 * BNS_SEC));
            print_message(", %u puts, longest %d ms", count, (int)(w[i].longest_ns / BNS_MS));
            assert_int_equal(w[i].failed, 0);
            assert_true(count > 20);
            assert_true(w[i].longest_ns < ELECTION_NS / 2);
            bns_etcd_free(w[i].c);
        }
        print_message("\n");
        cw_free();
    }
}

static void nobody_can_take_over(void **state)
{
    static const struct {
        const char *name;
        unsigned servers;
        bool cut;
        uint64_t before_ns, most_ns; /* from the cut to the stop; it takes no longer */
    } t[] = {
        {"alone", 1, false, 0, 500 * BNS_MS},
        {"the others are cut off at this moment", 3, true, 0, HAND_OVER_NS + 500 * BNS_MS},
        {"the others died a while ago", 3, true, 10 * BNS_SEC, 500 * BNS_MS},
    };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct stop p;
        unsigned lead;

        cw_new(i + 1, t[i].servers, NULL);
        lead = cw_leader();
        cw_pass(2 * BNS_SEC);
        for (unsigned k = 0; k < t[i].servers && t[i].cut; k++) {
            bns_world_block(cw.w, lead, k, k != lead);
            bns_world_block(cw.w, k, lead, k != lead);
        }
        cw_pass(t[i].before_ns);
        stop(lead, &p);
        print_message("  %s: %d ms\n", t[i].name, (int)(p.took_ns / BNS_MS));
        assert_true(p.took_ns <= t[i].most_ns);
        cw_free();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_who_puts_sees_an_election),
        cmocka_unit_test(nobody_can_take_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
