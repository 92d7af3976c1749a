/* Goal:   members come and go at run time: what raft_node promises to the server around it.
 * Method: nodes with the registers of the simulator in a calm virtual world. As a server does, a
 *         member learns and forgets addresses when it applies a change. Some begin the group, the
 *         others join it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "app/raft_node.h"
#include "app/raft_node_int.h"
#include "sim/register_sm.h"
#include "sim/vfs_mem.h"
#include "sim/world.h"

#define MEMBERS_MAX 5u
#define NONE 12345

struct member {
    struct bns_register_sm *sm;
    struct bns_raft_node *node;
    bool up;
    unsigned removed; /* so often it was told */
    unsigned conf_entries;
};

static struct fixture {
    struct bns_world *w;
    struct bns_sm_ops ops;
    struct member m[MEMBERS_MAX];
    unsigned first; /* so many begin the group */
    bool known[MEMBERS_MAX], gone[MEMBERS_MAX];
    uint64_t snapshot_entries;
    bool leave_at_once; /* who is removed closes its node */
    bool moved;         /* member 1 is not where those think that start now */
    char context[32];   /* of the last change applied */
} fx;

static void addr_of(unsigned id, struct bns_raft_peer_addr *a)
{
    memset(a, 0, sizeof *a);
    a->id = id + 1;
    a->port = 2380;
    (void)snprintf(a->host, sizeof a->host, "%s", bns_world_host(fx.w, id));
}

static void apply_change(struct member *m, const struct bns_raft_entry *e)
{
    struct bns_raft_conf_entry c;

    assert_int_equal(bns_raft_change_decode(bns_rcbuf_slice(e->data), &c), BNS_OK);
    m->conf_entries++;
    if (c.context.len > 0)
        (void)snprintf(fx.context, sizeof fx.context, "%.*s", (int)c.context.len,
                       (const char *)c.context.ptr);
    for (size_t i = 0; i < c.changes_count; i++) {
        unsigned id = (unsigned)c.changes[i].id - 1;
        struct bns_raft_peer_addr a;

        addr_of(id, &a);
        if (c.changes[i].kind == BNS_RAFT_REMOVE)
            bns_raft_node_peer_remove(m->node, a.id);
        else
            assert_int_equal(bns_raft_node_peer_set(m->node, &a), BNS_OK);
        fx.known[id] = c.changes[i].kind != BNS_RAFT_REMOVE;
        fx.gone[id] = !fx.known[id];
    }
}

static void apply(void *sm, const struct bns_raft_entry *e, size_t n, bns_sm_done *done, void *arg)
{
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        for (size_t k = 0; k < n && fx.m[i].sm == sm; k++)
            if (e[k].kind == BNS_RAFT_CONF)
                apply_change(&fx.m[i], &e[k]);
    bns_register_ops()->apply(sm, e, n, done, arg);
}

static void was_applied(void *arg, uint64_t index, const struct bns_register_cmd *cmd, bool done)
{
    (void)arg;
    (void)index;
    (void)cmd;
    (void)done;
}

static void on_removed(void *arg)
{
    struct member *m = arg;

    m->removed++;
    if (!fx.leave_at_once)
        return;
    m->up = false;
    bns_raft_node_close(m->node, NULL, NULL); /* as a server that exits */
}

static bool is_removed(void *arg, uint64_t id)
{
    (void)arg;
    return id <= MEMBERS_MAX && fx.gone[id - 1];
}

static int start(struct bns_env *env, unsigned id, void *arg)
{
    struct member *m = &fx.m[id];
    struct bns_raft_peer_addr peers[MEMBERS_MAX] = {0};
    struct bns_raft_node_config cfg = {
        .group = 1,
        .id = id + 1,
        .peers = peers,
        .joining = id >= fx.first,
        .listen_host = bns_world_host(fx.w, id),
        .listen_port = 2380,
        .snapshot_entries = fx.snapshot_entries,
        .trailing_entries = 1,
        .on_removed = on_removed,
        .is_removed = is_removed,
        .members_arg = m,
        .wal = {.dir = "wal", .segment_bytes_max = 64 * 1024, .reserve_bytes = 1 << 20},
    };
    struct bns_err err = {0};
    int rv = bns_vfs_mkdir(env->vfs, "wal", &err);

    (void)arg;
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (i < fx.first || fx.known[i] || i == id)
            addr_of(i, &peers[cfg.peers_count++]);
    peers[0].port = fx.moved && id != 0 ? 1 : peers[0].port;
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

static void run_ms(uint64_t ms)
{
    assert_null(bns_world_run(fx.w, bns_world_now(fx.w) + ms * BNS_MS, NULL, NULL));
}

static void open_group(unsigned first, uint64_t snapshot_entries)
{
    struct bns_world_config cfg = bns_world_calm(MEMBERS_MAX);

    memset(&fx, 0, sizeof fx);
    fx.first = first;
    fx.snapshot_entries = snapshot_entries;
    fx.ops = *bns_register_ops();
    fx.ops.apply = apply;
    assert_int_equal(bns_world_new(1, &cfg, &fx.w), BNS_OK);
    for (unsigned i = 0; i < first; i++)
        bns_world_start(fx.w, i, &main_of);
    run_ms(3000);
}

static struct bns_raft_status status(unsigned id)
{
    struct bns_raft_status st = {0};

    if (fx.m[id].up)
        bns_raft_node_status(fx.m[id].node, &st);
    return st;
}

static unsigned leader(void)
{
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (fx.m[i].up && status(i).role == BNS_RAFT_LEADER && !status(i).removed)
            return i;
    fail_msg("nobody leads");
    return 0;
}

/* ---- code of a node -------------------------------------------------------------------------- */

struct ask {
    unsigned member;
    uint64_t id;
    struct bns_raft_change changes[4];
    size_t count;
    int rv, code;
};

static void ended(void *arg, int code)
{
    struct ask *a = arg;

    assert_int_equal(a->code, NONE); /* once */
    a->code = code;
}

static void change_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;

    (void)env;
    a->rv = bns_raft_node_change(fx.m[a->member].node, a->changes, a->count,
                                 bns_slice_str("peer urls"), ended, a);
    assert_int_equal(a->code, NONE); /* never inside the call */
}

static void transfer_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;

    (void)env;
    a->rv = bns_raft_node_transfer(fx.m[a->member].node, a->id, ended, a);
    assert_int_equal(a->code, NONE);
}

static void propose_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;
    struct bns_register_cmd cmd = {.id = a->id, .value = a->id};
    struct bns_rcbuf *b = bns_register_encode(env->alloc, &cmd);

    assert_non_null(b);
    a->rv = bns_raft_node_propose(fx.m[a->member].node, b);
    bns_rcbuf_put(b);
}

static void peer_set_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;
    struct bns_raft_peer_addr addr;

    (void)env;
    addr_of(0, &addr);
    for (a->id = 100; a->rv == BNS_OK; a->id++) {
        addr.id = a->id;
        a->rv = bns_raft_node_peer_set(fx.m[a->member].node, &addr);
    }
    for (uint64_t id = 100; id < a->id; id++)
        bns_raft_node_peer_remove(fx.m[a->member].node, id);
}

static int propose(unsigned member, uint64_t id)
{
    struct ask a = {.member = member, .id = id};

    assert_true(bns_world_call(fx.w, member, propose_now, &a));
    return a.rv;
}

static int change2(unsigned member, struct bns_raft_change x, struct bns_raft_change y)
{
    struct ask a = {.member = member, .changes = {x, y}, .count = y.id == 0 ? 1 : 2, .code = NONE};

    assert_true(bns_world_call(fx.w, member, change_now, &a));
    assert_int_equal(a.rv, BNS_OK);
    run_ms(12000);
    return a.code;
}

static int change(unsigned member, enum bns_raft_change_kind kind, uint64_t id)
{
    return change2(member, (struct bns_raft_change){kind, id}, (struct bns_raft_change){kind, 0});
}

static int transfer(unsigned member, uint64_t to)
{
    struct ask a = {.member = member, .id = to, .code = NONE};

    assert_true(bns_world_call(fx.w, member, transfer_now, &a));
    if (a.rv != BNS_OK)
        return a.rv;
    run_ms(5000);
    return a.code;
}

static void peer_set_without_memory(struct bns_env *env, void *arg)
{
    struct ask *a = arg;
    struct bns_raft_peer_addr addr;

    (void)env;
    addr_of((unsigned)a->id - 1, &addr);
    bns_test_heap_fail_at(bns_world_heap(fx.w, a->member), 1);
    a->rv = bns_raft_node_peer_set(fx.m[a->member].node, &addr);
    bns_test_heap_fail_at(bns_world_heap(fx.w, a->member), 0);
}

static void forget_now(struct bns_env *env, void *arg)
{
    struct ask *a = arg;

    change_now(env, arg);
    bns_raft_node_change_forget(fx.m[a->member].node, a);
}

/* ---- the tests ------------------------------------------------------------------------------- */

/* Only the connection could not be made: it is made a second later. */
static void an_address_outlives_a_dial_that_failed(void **state)
{
    struct ask a = {.member = 0, .id = 2, .code = NONE};

    (void)state;
    open_group(1, 1000);
    assert_true(bns_world_call(fx.w, 0, peer_set_without_memory, &a));
    assert_int_equal(a.rv, BNS_E_NOMEM);
    fx.known[0] = true;
    bns_world_start(fx.w, 1, &main_of);
    run_ms(4000);
    assert_true(bns_raft_node_peer_since(fx.m[0].node, 2) != 0);
    bns_world_free(fx.w);
}

static void a_change_that_nobody_waits_for_goes_on(void **state)
{
    struct ask a = {.member = 0, .changes = {{BNS_RAFT_ADD_LEARNER, 2}}, .count = 1, .code = NONE};

    (void)state;
    open_group(1, 1000);
    assert_true(bns_world_call(fx.w, 0, forget_now, &a));
    assert_int_equal(a.rv, BNS_OK);
    run_ms(3000);
    assert_int_equal(a.code, NONE);
    assert_int_equal(bns_raft_node_conf(fx.m[0].node)->learners_count, 1);
    bns_world_free(fx.w);
}

/* Told before the second is up: with etcd's tools one adds a member and then starts it. */
static void a_group_of_one_grows_and_is_left_by_its_first_member(void **state)
{
    (void)state;
    open_group(1, 1000);
    assert_int_equal(propose(0, 1), BNS_OK);
    assert_int_equal(change(0, BNS_RAFT_ADD_VOTER, 2), BNS_OK);
    assert_string_equal(fx.context, "peer urls");
    assert_int_equal(bns_raft_node_conf(fx.m[0].node)->voters_count, 2);
    bns_world_start(fx.w, 1, &main_of);
    run_ms(4000);
    assert_true(status(1).voter);
    assert_int_equal(change(leader(), BNS_RAFT_ADD_LEARNER, 3), BNS_OK);
    bns_world_start(fx.w, 2, &main_of);
    run_ms(4000);
    assert_true(status(2).learner && !status(2).voter);
    assert_int_equal(status(2).applied, status(0).applied);
    assert_int_equal(change(2, BNS_RAFT_PROMOTE, 3), BNS_OK); /* asked of the learner itself */
    assert_true(status(2).voter);
    assert_int_equal(transfer(leader(), 1), BNS_OK);
    assert_int_equal(leader(), 0);
    assert_int_equal(change(0, BNS_RAFT_REMOVE, 1), BNS_OK);
    run_ms(3000);
    assert_int_equal(fx.m[0].removed, 1);
    assert_true(status(0).removed && status(0).role == BNS_RAFT_FOLLOWER);
    assert_true(leader() != 0);
    assert_int_equal(propose(1, 2), BNS_OK);
    run_ms(1000);
    assert_int_equal(bns_register_value(fx.m[2].sm, 0), 2);
    assert_int_equal(fx.m[1].removed + fx.m[2].removed, 0);
    bns_world_free(fx.w);
}

/* Two become one, and the one that leads goes: the other must know that it is alone now. */
static void of_two_the_leader_can_be_removed(void **state)
{
    (void)state;
    open_group(2, 1000);
    for (unsigned i = 0; i < 2; i++)
        fx.known[i] = true;
    unsigned old = leader();
    fx.leave_at_once = true;
    assert_int_equal(change(old, BNS_RAFT_REMOVE, old + 1), BNS_OK);
    assert_int_equal(fx.m[old].removed, 1);
    run_ms(3000);
    assert_int_equal(leader(), 1 - old);
    assert_int_equal(propose(1 - old, 3), BNS_OK);
    run_ms(500);
    assert_int_equal(bns_register_value(fx.m[1 - old].sm, 0), 3);
    bns_world_free(fx.w);
}

/* The removal is committed; the other one, which is all of the group now, has not heard of it. */
static void remove_and_lose_the_other(struct ask *a)
{
    *a = (struct ask){.member = leader(), .count = 1, .code = NONE};
    a->id = a->member + 1;
    a->changes[0] = (struct bns_raft_change){BNS_RAFT_REMOVE, a->id};
    assert_true(bns_world_call(fx.w, a->member, change_now, a));
    for (int i = 0; i < 100000 && !status(a->member).removed; i++)
        assert_null(bns_world_run(fx.w, bns_world_now(fx.w) + 10 * BNS_US, NULL, NULL));
    assert_true(status(a->member).removed);
    bns_world_kill(fx.w, 1 - a->member);
}

static void who_is_removed_stays_until_another_one_knows(void **state)
{
    struct ask a;

    (void)state;
    for (unsigned again = 0; again < 2; again++) {
        open_group(2, 1000);
        remove_and_lose_the_other(&a);
        run_ms(15000);
        assert_int_equal(fx.m[a.member].removed, 0);
        if (again) { /* a start changes nothing */
            bns_world_kill(fx.w, a.member);
            bns_world_start(fx.w, a.member, &main_of);
            run_ms(5000);
            assert_int_equal(fx.m[a.member].removed, 0);
        }
        bns_world_start(fx.w, 1 - a.member, &main_of);
        run_ms(8000);
        assert_int_equal(status(1 - a.member).role, BNS_RAFT_LEADER);
        assert_int_equal(propose(1 - a.member, 7), BNS_OK);
        assert_int_equal(fx.m[a.member].removed, 1);
        bns_world_free(fx.w);
    }
}

static void a_joining_member_takes_a_snapshot_and_knows_the_members_after_a_restart(void **state)
{
    (void)state;
    open_group(3, 5);
    for (uint64_t id = 1; id <= 50; id++) {
        assert_int_equal(propose(leader(), id), BNS_OK);
        run_ms(20);
    }
    assert_true(status(leader()).first_index > 1);
    bns_world_start(fx.w, 3, &main_of); /* up before it is added: it waits, and never campaigns */
    run_ms(15000);
    assert_int_equal(status(3).term, 0);
    assert_int_equal(change(0, BNS_RAFT_ADD_VOTER, 4), BNS_OK);
    run_ms(3000);
    assert_int_equal(status(3).applied, status(0).applied);
    assert_true(status(3).voter);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t id = 1; id <= 20; id++) {
            assert_int_equal(propose(leader(), id), BNS_OK);
            run_ms(20);
        }
        bns_world_power_cut(fx.w, 3);
        run_ms(500);
        bns_world_restart(fx.w, 3);
        run_ms(3000);
        assert_true(status(3).voter);
        assert_int_equal(bns_raft_node_conf(fx.m[3].node)->voters_count, 4);
    }
    assert_int_equal(transfer(leader(), 4), BNS_OK);
    assert_int_equal(leader(), 3);
    bns_world_free(fx.w);
}

static void refusals_come_with_their_reason_whoever_is_asked(void **state)
{
    static const struct {
        enum bns_raft_change_kind kind;
        uint64_t id;
        int code;
    } t[] = {
        {BNS_RAFT_ADD_VOTER, 2, BNS_E_EXISTS}, {BNS_RAFT_ADD_LEARNER, 2, BNS_E_EXISTS},
        {BNS_RAFT_PROMOTE, 2, BNS_E_EXISTS},   {BNS_RAFT_PROMOTE, 5, BNS_E_NOTFOUND},
        {BNS_RAFT_REMOVE, 5, BNS_E_NOTFOUND},  {(enum bns_raft_change_kind)9, 5, BNS_E_INVALID},
        {BNS_RAFT_ADD_LEARNER, 4, BNS_OK},     {BNS_RAFT_ADD_LEARNER, 4, BNS_E_EXISTS},
    };
    (void)state;
    for (unsigned via = 0; via < 2; via++) {
        open_group(3, 1000);
        for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
            unsigned member = via == 0 ? leader() : (leader() + 1) % 3;
            assert_int_equal(change(member, t[i].kind, t[i].id), t[i].code);
        }
        assert_int_equal(transfer(leader(), 4), BNS_E_INVALID);
        assert_int_equal(transfer(leader(), 9), BNS_E_NOTFOUND);
        assert_int_equal(transfer((leader() + 1) % 3, 1), BNS_E_NOTLEADER);
        assert_int_equal(transfer(leader(), leader() + 1), BNS_OK);
        bns_world_free(fx.w);
    }
}

static void two_changes_at_once_follow_one_another(void **state)
{
    struct ask a[3] = {0};
    (void)state;
    open_group(3, 1000);
    for (unsigned i = 0; i < 3; i++) {
        a[i] = (struct ask){.member = i, .count = 1, .code = NONE};
        a[i].changes[0] = (struct bns_raft_change){
            i < 2 ? BNS_RAFT_ADD_LEARNER : BNS_RAFT_ADD_VOTER, i < 2 ? 4 + i : 4};
        assert_true(bns_world_call(fx.w, i, change_now, &a[i]));
    }
    run_ms(10000);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(a[i].code, BNS_OK);
    assert_int_equal(bns_raft_node_conf(fx.m[0].node)->voters_count, 4);
    assert_int_equal(bns_raft_node_conf(fx.m[0].node)->learners_count, 1);
    bns_world_free(fx.w);
}

/* One entry for the joint configuration, one for its end. */
static void a_member_is_replaced_in_one_change(void **state)
{
    (void)state;
    open_group(3, 1000);
    for (unsigned i = 0; i < 3; i++)
        fx.known[i] = true;
    bns_world_kill(fx.w, 2);
    run_ms(3000);
    bns_world_start(fx.w, 3, &main_of);
    assert_int_equal(change2(leader(), (struct bns_raft_change){BNS_RAFT_REMOVE, 3},
                             (struct bns_raft_change){BNS_RAFT_ADD_VOTER, 4}),
                     BNS_OK);
    run_ms(3000);
    assert_int_equal(fx.m[0].conf_entries, 2);
    assert_int_equal(bns_raft_node_conf(fx.m[3].node)->voters_count, 3);
    assert_false(status(3).joint);
    bns_world_restart(fx.w, 2); /* it knows nothing, but the others do */
    run_ms(30000);
    assert_int_equal(fx.m[2].removed, 1);
    assert_true(leader() != 2);
    bns_world_free(fx.w);
}

static void a_change_without_a_leader_ends(void **state)
{
    (void)state;
    open_group(3, 1000);
    for (unsigned i = 1; i < 3; i++)
        bns_world_kill(fx.w, i);
    run_ms(5000);
    assert_int_equal(change(0, BNS_RAFT_REMOVE, 3), BNS_E_NOTLEADER);
    assert_int_equal(transfer(0, 2), BNS_E_NOTLEADER);
    bns_world_free(fx.w);
}

static void hand_over_to_who_does_not_answer_is_given_up(void **state)
{
    unsigned old, dead;
    (void)state;
    open_group(3, 1000);
    old = leader();
    dead = (old + 1) % 3;
    bns_world_kill(fx.w, dead);
    run_ms(100);
    assert_int_equal(transfer(old, dead + 1), BNS_E_TIMEOUT);
    assert_int_equal(leader(), old);
    assert_int_equal(propose(old, 5), BNS_OK); /* it takes proposals again */
    run_ms(500);
    assert_int_equal(bns_register_value(fx.m[old].sm, 0), 5);
    bns_world_free(fx.w);
}

static void fill_disk(unsigned id, bool full)
{
    struct bns_vfs *v = bns_world_vfs(fx.w, id);

    bns_vfs_mem_config(v)->capacity_bytes = full ? bns_vfs_mem_stats(v).used_bytes + 1 : 0;
}

static void a_leader_without_room_hands_over(void **state)
{
    unsigned old;
    (void)state;
    open_group(3, 1000);
    old = leader();
    fill_disk(old, true);
    run_ms(5000);
    assert_true(leader() != old);
    assert_int_equal(propose(leader(), 7), BNS_OK);
    assert_int_equal(propose(old, 8), BNS_E_NOSPACE);
    run_ms(500);
    assert_int_equal(bns_register_value(fx.m[leader()].sm, 0), 7);
    fill_disk(old, false);
    run_ms(3000);
    assert_int_equal(propose(old, 9), BNS_OK);
    run_ms(500);
    assert_int_equal(bns_register_value(fx.m[old].sm, 0), 9);
    bns_world_free(fx.w);
}

/* Nobody has room but one that is no voter: the leader stays, and says so through everyone. */
static void without_room_anywhere_followers_refuse_at_once(void **state)
{
    unsigned old;
    uint64_t term;
    (void)state;
    open_group(3, 1000);
    old = leader();
    assert_int_equal(change(old, BNS_RAFT_ADD_LEARNER, 4), BNS_OK);
    bns_world_start(fx.w, 3, &main_of);
    run_ms(3000);
    for (unsigned i = 0; i < 3; i++)
        fill_disk((old + 1 + i) % 3, true);
    run_ms(6000);
    term = status(leader()).term;
    run_ms(10000);
    assert_int_equal(status(leader()).term, term);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(propose(i, 9), BNS_E_NOSPACE);
    assert_int_equal(change(3, BNS_RAFT_PROMOTE, 4), BNS_E_NOSPACE);
    bns_world_free(fx.w);
}

/* It was down when the one that leads now was added, and its own flags do not name it. */
static void a_member_answers_a_leader_that_it_has_never_heard_of(void **state)
{
    (void)state;
    open_group(1, 1000);
    assert_int_equal(change(0, BNS_RAFT_ADD_LEARNER, 2), BNS_OK);
    bns_world_start(fx.w, 2, &main_of);
    assert_int_equal(change(0, BNS_RAFT_ADD_VOTER, 3), BNS_OK);
    assert_int_equal(transfer(0, 3), BNS_OK);
    fx.known[2] = false;
    bns_world_start(fx.w, 1, &main_of);
    run_ms(5000);
    assert_int_equal(leader(), 2);
    assert_int_equal(status(1).leader, 3);
    assert_true(status(2).applied > 3 && status(1).applied == status(2).applied);
    assert_true(bns_raft_node_peer_since(fx.m[1].node, 3) != 0);
    assert_int_equal(change(2, BNS_RAFT_PROMOTE, 2), BNS_OK);
    bns_world_free(fx.w);
}

static void a_member_answers_a_leader_that_has_moved(void **state)
{
    (void)state;
    open_group(1, 1000);
    assert_int_equal(change(0, BNS_RAFT_ADD_LEARNER, 2), BNS_OK);
    fx.moved = true;
    bns_world_start(fx.w, 1, &main_of);
    run_ms(8000);
    assert_int_equal(status(1).leader, 1);
    assert_true(status(0).applied > 1 && status(1).applied == status(0).applied);
    assert_true(bns_raft_node_peer_since(fx.m[1].node, 1) != 0);
    bns_world_free(fx.w);
}

struct hearsay {
    uint64_t from, known;
    size_t len; /* of bytes; 0: those of an address */
    uint8_t bytes[BNS_RN_WHERE_MAX];
    bool tls;
};

static void hear_now(struct bns_env *env, void *arg)
{
    struct hearsay *h = arg;
    struct bns_raft_node *n = fx.m[0].node;
    struct bns_raft_peer_addr addr;
    size_t len = h->len;

    (void)env;
    addr_of(4, &addr);
    addr.tls = h->tls;
    if (len == 0)
        len = bns_rn_where_encode(&addr, h->bytes);
    bns_rn_where_heard(n, h->from, bns_slice(h->bytes, len));
    for (h->known = 0; h->from != 0 && bns_rn_peer_find(n, h->from) != NULL; h->from++)
        h->known++;
}

static uint64_t hear(struct hearsay h)
{
    assert_true(bns_world_call(fx.w, 0, hear_now, &h));
    return h.known;
}

static void hearsay_is_bounded_and_makes_room_for_members(void **state)
{
    struct ask a = {0};

    (void)state;
    open_group(1, 1000);
    assert_int_equal(hear((struct hearsay){.from = 0}), 0);
    assert_int_equal(hear((struct hearsay){.from = 77, .len = 1}), 0);
    assert_int_equal(hear((struct hearsay){.from = 77, .len = 5, .bytes = "\0\1\0\1"}), 0);
    fx.gone[4] = true; /* whoever was removed stays unknown */
    assert_int_equal(hear((struct hearsay){.from = 5}), 0);
    for (uint64_t id = 1000; id < 1000 + 2 * BNS_RAFT_PEERS_MAX - 1; id++)
        assert_int_equal(hear((struct hearsay){.from = id}), 1);
    assert_int_equal(hear((struct hearsay){.from = 2000}), 1); /* nobody is there: one makes room */
    assert_true(bns_world_call(fx.w, 0, peer_set_now, &a));    /* as many as if nobody were there */
    assert_int_equal(a.rv, BNS_E_TOOBIG);
    assert_int_equal(a.id, 100 + 2 * BNS_RAFT_PEERS_MAX - 1 + 1);
    run_ms(3000);
    bns_world_free(fx.w);
}

static void addresses_are_bounded(void **state)
{
    struct ask a = {0};
    (void)state;
    open_group(3, 1000);
    assert_true(bns_world_call(fx.w, 0, peer_set_now, &a));
    assert_int_equal(a.rv, BNS_E_TOOBIG);
    assert_int_equal(a.id, 100 + 2 * BNS_RAFT_PEERS_MAX - 3 + 1);
    run_ms(1000);
    a = (struct ask){0}; /* and there is room again */
    assert_true(bns_world_call(fx.w, 0, peer_set_now, &a));
    assert_int_equal(a.id, 100 + 2 * BNS_RAFT_PEERS_MAX - 3 + 1);
    run_ms(1000);
    bns_world_free(fx.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_of_one_grows_and_is_left_by_its_first_member),
        cmocka_unit_test(an_address_outlives_a_dial_that_failed),
        cmocka_unit_test(a_change_that_nobody_waits_for_goes_on),
        cmocka_unit_test(of_two_the_leader_can_be_removed),
        cmocka_unit_test(who_is_removed_stays_until_another_one_knows),
        cmocka_unit_test(a_joining_member_takes_a_snapshot_and_knows_the_members_after_a_restart),
        cmocka_unit_test(refusals_come_with_their_reason_whoever_is_asked),
        cmocka_unit_test(two_changes_at_once_follow_one_another),
        cmocka_unit_test(a_member_is_replaced_in_one_change),
        cmocka_unit_test(a_change_without_a_leader_ends),
        cmocka_unit_test(hand_over_to_who_does_not_answer_is_given_up),
        cmocka_unit_test(a_leader_without_room_hands_over),
        cmocka_unit_test(without_room_anywhere_followers_refuse_at_once),
        cmocka_unit_test(addresses_are_bounded),
        cmocka_unit_test(a_member_answers_a_leader_that_it_has_never_heard_of),
        cmocka_unit_test(a_member_answers_a_leader_that_has_moved),
        cmocka_unit_test(hearsay_is_bounded_and_makes_room_for_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
