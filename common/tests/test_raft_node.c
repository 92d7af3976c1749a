/* Goal:   promises of the driver that a random run seldom puts to the test.
 * Method: members with the registers of the simulator in a calm virtual world; each test stands in
 *         the way of one call of the state machine, or of one member.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "app/raft_node.h"
#include "sim/register_sm.h"
#include "sim/vfs_mem.h"
#include "sim/world.h"

#define MEMBERS_MAX 5u

struct member {
    struct fixture *f;
    struct bns_register_sm *sm;
    struct bns_raft_node *node;
    struct bns_timer timer;
    const struct bns_raft_entry *entries; /* of a batch that is being applied slowly */
    size_t count;
    bns_sm_done *done;
    void *arg;
    bool up;
};

struct fixture {
    struct bns_world *w;
    struct bns_sm_ops ops;
    struct member m[MEMBERS_MAX];
    unsigned count;
    uint64_t snapshot_entries;
    unsigned refused, refusals; /* of install_end: so far, at most */
    uint64_t applied_ids[64];   /* how often a command was applied anywhere */
    uint64_t applied_first;     /* its id */
};

static struct fixture fx; /* the operations of a state machine have no argument of their own */

static struct member *member_of(const void *sm)
{
    for (unsigned i = 0; i < fx.count; i++) {
        if (fx.m[i].sm == sm)
            return &fx.m[i];
    }
    fail_msg("a state machine that nobody made");
    return NULL;
}

static void was_applied(void *arg, uint64_t index, const struct bns_register_cmd *cmd, bool done)
{
    (void)arg;
    (void)index;
    (void)done;
    if (fx.applied_first == 0)
        fx.applied_first = cmd->id;
    fx.applied_ids[cmd->id % 64]++;
}

static int start(struct bns_env *env, unsigned id, void *arg)
{
    struct member *m = &fx.m[id];
    struct bns_raft_peer_addr peers[MEMBERS_MAX] = {0};
    struct bns_raft_node_config cfg = {
        .group = 1,
        .id = id + 1,
        .peers = peers,
        .peers_count = fx.count,
        .listen_host = bns_world_host(fx.w, id),
        .listen_port = 2380,
        .snapshot_entries = fx.snapshot_entries,
        .trailing_entries = 1,
        .wal = {.dir = "wal", .segment_bytes_max = 64 * 1024, .reserve_bytes = 1 << 20},
    };
    struct bns_err err = {0};
    int rv = bns_vfs_mkdir(env->vfs, "wal", &err);

    (void)arg;
    for (unsigned i = 0; i < fx.count; i++) {
        peers[i].id = i + 1;
        peers[i].port = 2380;
        (void)snprintf(peers[i].host, sizeof peers[i].host, "%s", bns_world_host(fx.w, i));
    }
    if (rv == BNS_OK)
        rv = bns_register_open(env, ".", was_applied, m, &m->sm, &err);
    if (rv == BNS_OK)
        rv = bns_raft_node_open(env, &cfg, &fx.ops, m->sm, &m->node, &err);
    if (rv == BNS_OK)
        rv = bns_raft_node_start(m->node, &err);
    if (rv != BNS_OK)
        print_message("member %u: %s\n", id + 1, err.text);
    m->up = rv == BNS_OK;
    return rv;
}

static void died(unsigned id, int code, const char *text, void *arg)
{
    (void)arg;
    if (code != 0)
        print_message("member %u died: %s\n", id + 1, text);
    fx.m[id].up = false;
    fx.m[id].sm = NULL;
}

static const struct bns_node_main main_of = {.start = start, .died = died};

static void open_world(unsigned count, uint64_t seed)
{
    struct bns_world_config cfg = bns_world_calm(count);

    memset(&fx, 0, sizeof fx);
    fx.count = count;
    fx.snapshot_entries = 1000;
    fx.ops = *bns_register_ops();
    assert_int_equal(bns_world_new(seed, &cfg, &fx.w), BNS_OK);
}

static void run_ms(uint64_t ms)
{
    assert_null(bns_world_run(fx.w, bns_world_now(fx.w) + ms * BNS_MS, NULL, NULL));
}

static struct bns_raft_status status(unsigned id)
{
    struct bns_raft_status st = {0};

    if (fx.m[id].up)
        bns_raft_node_status(fx.m[id].node, &st);
    return st;
}

struct ask {
    unsigned member;
    uint64_t id;
    int rv;
};

static void propose_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;
    struct bns_register_cmd cmd = {.id = a->id, .value = a->id};
    struct bns_rcbuf *b = bns_register_encode(env->alloc, &cmd);

    assert_non_null(b);
    a->rv = bns_raft_node_propose(fx.m[a->member].node, b);
    bns_rcbuf_put(b);
}

static void propose(unsigned member, uint64_t id)
{
    struct ask a = {.member = member, .id = id};

    assert_true(bns_world_call(fx.w, member, propose_now, &a));
    assert_int_equal(a.rv, BNS_OK);
}

/* ---- a state machine that is slow and durable early ------------------------------------------ */

static void apply_later(void *arg)
{
    struct member *m = arg;
    size_t count = m->count;

    m->count = 0;
    bns_register_ops()->apply(m->sm, m->entries, count, m->done, m->arg);
}

static void apply_slowly(void *sm, const struct bns_raft_entry *e, size_t n, bns_sm_done *done,
                         void *arg)
{
    struct member *m = member_of(sm);
    unsigned id = (unsigned)(m - fx.m);
    struct bns_env *env = bns_world_env(fx.w, id);

    m->entries = e;
    m->count = n;
    m->done = done;
    m->arg = arg;
    bns_timer_init(&m->timer, apply_later, m);
    bns_timer_start(env, &m->timer, bns_now_ns(env) + 50 * BNS_MS);
}

/* As a store that has applied, and made durable, the first entry of a batch under way. */
static void durable_ahead(void *sm, struct bns_raft_snapmeta *out)
{
    const struct member *m = member_of(sm);

    *out = (struct bns_raft_snapmeta){.index = bns_register_applied(sm)};
    out->term = out->index > 0; /* one member: one term */
    if (m->count > 0 && m->entries[0].index > out->index)
        out->index = m->entries[0].index;
}

static void checkpoint_at_once(void *sm, bns_sm_done *done, void *arg)
{
    (void)sm;
    done(arg, BNS_OK);
}

static void a_checkpoint_may_hold_a_part_of_the_batch_under_way(void **state)
{
    (void)state;
    open_world(1, 1);
    fx.snapshot_entries = 1;
    fx.ops.apply = apply_slowly;
    fx.ops.durable = durable_ahead;
    fx.ops.checkpoint = checkpoint_at_once;
    bns_world_start(fx.w, 0, &main_of);
    run_ms(500);
    for (uint64_t id = 1; id <= 20; id++) {
        propose(0, id);
        run_ms(20);
    }
    run_ms(3000);
    assert_true(fx.m[0].up);
    for (uint64_t id = 1; id <= 20; id++)
        assert_int_equal(fx.applied_ids[id], 1);
    bns_world_free(fx.w);
}

/* ---- a state machine that refuses a snapshot ------------------------------------------------- */

static void refuse_install(void *sm, bns_sm_done *done, void *arg)
{
    if (fx.refused < fx.refusals) {
        fx.refused++;
        bns_register_ops()->install_abort(sm);
        done(arg, BNS_E_NOSPACE);
        return;
    }
    bns_register_ops()->install_end(sm, done, arg);
}

static void a_refused_snapshot_is_sent_again(void **state)
{
    uint64_t id = 0;
    (void)state;

    open_world(3, 1);
    fx.snapshot_entries = 5;
    fx.refusals = 3;
    fx.ops.install_end = refuse_install;
    for (unsigned i = 0; i < 2; i++)
        bns_world_start(fx.w, i, &main_of);
    run_ms(3000);
    for (int i = 0; i < 50; i++) {
        propose(0, ++id);
        run_ms(20);
    }
    assert_true(status(0).first_index > 1);
    bns_world_start(fx.w, 2, &main_of);
    run_ms(10000);
    assert_int_equal(fx.refused, 3);
    assert_int_equal(status(2).applied, status(0).applied);
    propose(2, ++id); /* and it goes on from there */
    run_ms(1000);
    assert_int_equal(status(2).applied, status(0).applied);
    assert_int_equal(fx.applied_ids[id], 3);
    bns_world_free(fx.w);
}

/* ---- no leader ------------------------------------------------------------------------------- */

/* A write that waited in vain must not come to life when its client has long written anew. */
static void a_proposal_does_not_wait_for_ever(void **state)
{
    (void)state;
    open_world(3, 1);
    bns_world_start(fx.w, 0, &main_of);
    run_ms(100);
    propose(0, 1);
    run_ms(12000);
    propose(0, 2);
    for (unsigned i = 1; i < 3; i++)
        bns_world_start(fx.w, i, &main_of);
    run_ms(3000);
    assert_int_equal(fx.applied_ids[1], 0);
    assert_int_equal(fx.applied_ids[2], 3);
    bns_world_free(fx.w);
}

/* ---- a full disk ----------------------------------------------------------------------------- */

static unsigned leader(void)
{
    for (unsigned i = 0; i < fx.count; i++)
        if (status(i).role == BNS_RAFT_LEADER)
            return i;
    fail_msg("nobody leads");
    return 0;
}

/* What followers have sent to a leader whose disk fills up, or that hands over, is not lost: it
 * waits for the next leader. */
static void what_was_forwarded_outlives_a_leader_without_room(void **state)
{
    unsigned accepted = 0, asked = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        bool taken[64] = {false};
        struct bns_vfs *vfs;
        unsigned lead;

        open_world(3, seed);
        for (unsigned i = 0; i < 3; i++)
            bns_world_start(fx.w, i, &main_of);
        run_ms(3000);
        lead = leader();
        vfs = bns_world_vfs(fx.w, lead);
        for (unsigned id = 1; id < 64; id++) {
            struct ask a = {.member = (lead + 1 + id % 2) % 3, .id = id};

            if (id == 8)
                bns_vfs_mem_config(vfs)->capacity_bytes = bns_vfs_mem_stats(vfs).used_bytes + 1;
            assert_true(bns_world_call(fx.w, a.member, propose_now, &a));
            taken[id] = a.rv == BNS_OK;
            assert_true(a.rv == BNS_OK || a.rv == BNS_E_NOSPACE);
            accepted += taken[id];
            asked++;
            run_ms(40);
        }
        run_ms(4000);
        assert_int_not_equal(leader(), lead);
        for (unsigned id = 1; id < 64; id++) {
            if (taken[id] && fx.applied_ids[id] < 2)
                fail_msg("seed %d: %u was accepted and is lost", (int)seed, id);
        }
        bns_world_free(fx.w);
    }
    print_message("  %u of %u accepted\n", accepted, asked);
    assert_true(accepted > asked / 2);
}

/* ---- a member that comes late ---------------------------------------------------------------- */

/* The member with the lowest id may campaign at once on an empty log, but not against a cluster
 * that has begun without it (or whose member it is, with a new disk). */
static void a_member_that_comes_late_does_not_depose_the_leader(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        uint64_t term;

        open_world(5, seed);
        for (unsigned i = 1; i < 5; i++)
            bns_world_start(fx.w, i, &main_of);
        run_ms(6000);
        term = status(1).term;
        assert_true(status(1).leader != 0);
        bns_world_start(fx.w, 0, &main_of);
        run_ms(5000);
        assert_int_equal(status(0).applied, status(1).applied);
        if (status(1).term != term)
            fail_msg("seed %llu: term %llu became %llu", (unsigned long long)seed,
                     (unsigned long long)term, (unsigned long long)status(1).term);
        bns_world_free(fx.w);
    }
}

/* The same bytes again and again; nobody applies them. */
static void fill_lanes(struct bns_env *env, void *arg)
{
    struct bns_raft_node *n = fx.m[0].node;
    struct bns_rcbuf *junk = bns_rcbuf_new(env->alloc, 60000);
    unsigned writes = 0, urgent = 0;
    int *rv = arg;

    assert_non_null(junk);
    memset(junk->bytes, 0, junk->len);
    while ((rv[0] = bns_raft_node_propose(n, junk)) == BNS_OK)
        writes++;
    while ((rv[1] = bns_raft_node_propose_urgent(n, junk)) == BNS_OK)
        urgent++;
    bns_rcbuf_put(junk);
    print_message("  %u writes, then %u that are urgent\n", writes, urgent);
    assert_true(writes > 1000);
    assert_true(urgent > 60);
    assert_true(urgent < 80);
}

static void propose_urgent_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;
    struct bns_register_cmd cmd = {.id = a->id, .value = a->id};
    struct bns_rcbuf *b = bns_register_encode(env->alloc, &cmd);

    assert_non_null(b);
    a->rv = bns_raft_node_propose_urgent(fx.m[a->member].node, b);
    bns_rcbuf_put(b);
}

/* Both lanes are full and bounded; what waits in the urgent one is in the log first. */
static void the_urgent_lane_goes_first_and_has_room_of_its_own(void **state)
{
    struct ask a = {.id = 2};
    int rv[2];

    (void)state;
    open_world(3, 1);
    bns_world_start(fx.w, 0, &main_of);
    run_ms(100);
    assert_true(bns_world_call(fx.w, 0, fill_lanes, rv));
    assert_int_equal(rv[0], BNS_E_BUSY);
    assert_int_equal(rv[1], BNS_E_BUSY);
    run_ms(12000); /* no leader came: all are dropped */
    for (int i = 0; i < 20; i++)
        propose(0, 1);
    assert_true(bns_world_call(fx.w, 0, propose_urgent_now, &a));
    assert_int_equal(a.rv, BNS_OK);
    for (unsigned i = 1; i < 3; i++)
        bns_world_start(fx.w, i, &main_of);
    run_ms(3000);
    assert_int_equal(fx.applied_first, 2);
    assert_int_equal(fx.applied_ids[1], 60);
    assert_int_equal(fx.applied_ids[2], 3);
    bns_world_free(fx.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_may_hold_a_part_of_the_batch_under_way),
        cmocka_unit_test(a_refused_snapshot_is_sent_again),
        cmocka_unit_test(a_proposal_does_not_wait_for_ever),
        cmocka_unit_test(what_was_forwarded_outlives_a_leader_without_room),
        cmocka_unit_test(the_urgent_lane_goes_first_and_has_room_of_its_own),
        cmocka_unit_test(a_member_that_comes_late_does_not_depose_the_leader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
