/* Goal:   the core's promises one by one, with the driver's part played by hand.
 * Method: cores of one group joined by a queue that delivers at once; disks that are durable at
 *         once unless a test holds them back. No faults here: those are sim_raft.c's.
 */
#include "raft_group.h"

static void lowest_id_leads_at_once_on_an_empty_log(void **state)
{
    struct group g;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    assert_int_equal(g.n[0].role, BNS_RAFT_LEADER);
    assert_true(g.n[1].leader == 1 && g.n[2].leader == 1);
    assert_true(g.n[0].term == 1);
    assert_true(g.n[2].applied == 1); /* the no-op */
    group_close(&g);
}

static void single_voter_leads_and_commits_alone(void **state)
{
    struct group g;
    (void)state;
    group_open(&g, 1);
    advance(&g, 1);
    assert_int_equal(g.n[0].role, BNS_RAFT_LEADER);
    assert_int_equal(propose(&g, &g.n[0], 5), BNS_OK);
    assert_true(g.n[0].applied == 2 && g.n[0].applied_sum == 5);
    step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_READ, .cookie = 9});
    drain(&g, &g.n[0]);
    assert_true(g.n[0].ok_cookie == 9 && g.n[0].ok_index == 2);
    group_close(&g);
}

static void proposals_through_any_member_are_applied_by_all(void **state)
{
    struct group g;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(propose(&g, &g.n[i], (uint8_t)(1 << i)), BNS_OK);
        settle(&g);
    }
    for (size_t i = 0; i < 3; i++)
        assert_true(g.n[i].applied == 4 && g.n[i].applied_sum == 7);
    group_close(&g);
}

static void another_member_leads_when_the_leader_is_gone(void **state)
{
    struct group g;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    g.n[0].down = true;
    advance(&g, 3000);
    assert_true((g.n[1].role == BNS_RAFT_LEADER) != (g.n[2].role == BNS_RAFT_LEADER));
    assert_int_equal(propose(&g, &g.n[1], 4), BNS_OK);
    settle(&g);
    assert_true(g.n[1].applied_sum == 4 && g.n[2].applied_sum == 4);
    g.n[0].down = false;
    advance(&g, 500);
    assert_int_equal(g.n[0].role, BNS_RAFT_FOLLOWER);
    assert_true(g.n[0].applied_sum == 4);
    group_close(&g);
}

static void reads_of_all_members_are_answered_and_batched(void **state)
{
    struct group g;
    uint64_t beats;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    assert_int_equal(propose(&g, &g.n[0], 1), BNS_OK);
    settle(&g);
    for (size_t i = 0; i < 3; i++) {
        beats = g.sent[BNS_RAFT_MSG_HEARTBEAT];
        for (uint64_t k = 0; k < 100; k++)
            step(&g, &g.n[i], (struct bns_raft_in){.kind = BNS_RAFT_IN_READ, .cookie = k});
        drain(&g, &g.n[i]);
        settle(&g);
        assert_true(g.n[i].ok_count == 100 && g.n[i].ok_index == 2);
        assert_true(g.sent[BNS_RAFT_MSG_HEARTBEAT] - beats == 2); /* one round */
    }
    assert_true(g.sent[BNS_RAFT_MSG_READ] == 2);
    group_close(&g);
}

static void reads_fail_when_the_leader_lost_its_quorum(void **state)
{
    struct group g;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    g.n[1].down = g.n[2].down = true;
    step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_READ, .cookie = 3});
    drain(&g, &g.n[0]);
    advance(&g, 1500);
    assert_int_equal(g.n[0].role == BNS_RAFT_LEADER, false);
    assert_true(g.n[0].fail_count == 1 && g.n[0].fail_cookie == 3 && g.n[0].ok_count == 0);
    group_close(&g);
}

static void leader_counts_itself_only_when_its_disk_has_it(void **state)
{
    struct group g;
    struct bns_raft_status st;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    g.n[0].hold_disk = true;
    g.n[2].down = true;
    assert_int_equal(propose(&g, &g.n[0], 1), BNS_OK);
    settle(&g);
    bns_raft_status(g.n[0].raft, &st);
    assert_true(st.commit == 1 && st.last_index == 2 && st.durable_index == 1);
    step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = g.n[0].held_seq});
    drain(&g, &g.n[0]);
    bns_raft_status(g.n[0].raft, &st);
    assert_true(st.commit == 2 && st.applied == 2);
    group_close(&g);
}

/* ---- out of memory -------------------------------------------------------------------------- */

struct failing {
    struct bns_alloc alloc;
    long live, calls, fail_at;
};

static void *failing_resize(void *ctx, void *ptr, size_t n)
{
    struct failing *h = ctx;
    void *p;

    if (++h->calls == h->fail_at)
        return NULL;
    p = bns_resize(bns_alloc_libc(), ptr, n);
    h->live += p != NULL && ptr == NULL;
    return p;
}

static void *failing_alloc(void *ctx, size_t n)
{
    return failing_resize(ctx, NULL, n);
}

static void failing_release(void *ctx, void *ptr)
{
    ((struct failing *)ctx)->live -= ptr != NULL;
    bns_free(bns_alloc_libc(), ptr);
}

/* The outputs of one drain as a number. */
static uint64_t drain_hash(struct bns_raft *r, uint64_t *seq, uint64_t *applied)
{
    struct bns_raft_out o;
    uint64_t h = 0;

    while (bns_raft_next(r, &o)) {
        h = h * 31 + (uint64_t)o.kind + o.seq + o.after_seq * 3 + o.term + o.vote + o.commit;
        h = h * 31 + o.msg.type + o.msg.to * 5 + o.msg.index + o.msg.term + o.entries_count;
        h = h * 31 + o.msg.entries_count + o.cookie + o.index + (uint64_t)o.msg.reject;
        if (o.kind == BNS_RAFT_OUT_PERSIST)
            *seq = o.seq;
        if (o.kind == BNS_RAFT_OUT_APPLY)
            *applied = o.index;
    }
    return h;
}

static bool same_status(const struct bns_raft_status *a, const struct bns_raft_status *b)
{
    return a->role == b->role && a->term == b->term && a->vote == b->vote &&
           a->leader == b->leader && a->commit == b->commit && a->applied == b->applied &&
           a->first_index == b->first_index && a->last_index == b->last_index &&
           a->durable_index == b->durable_index && a->log_bytes == b->log_bytes &&
           a->reads_waiting == b->reads_waiting;
}

#define SCRIPT_STEPS 200

/* Input i of a fixed story of node 2 of 3: follower, forwarder, reader, then leader. */
static struct bns_raft_in story(size_t i, struct bns_raft_msg *m, struct bns_raft_entry *e,
                                struct bns_rcbuf **data, const uint64_t *sa)
{
    uint64_t at = i / 4;

    *m = (struct bns_raft_msg){.from = 1, .to = 2, .term = 1, .type = BNS_RAFT_MSG_APPEND};
    if (i >= 120 && i % 4 != 3) {
        if (i == 120)
            return (struct bns_raft_in){.kind = BNS_RAFT_IN_CAMPAIGN};
        m->term = 2;
        m->type = i < 124 ? BNS_RAFT_MSG_VOTE_RESP : BNS_RAFT_MSG_PROPOSE;
        m->entries = e;
        m->entries_count = i < 124 ? 0 : 2;
        e[0] = e[1] = (struct bns_raft_entry){.data = data[0]};
        return (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = m};
    }
    switch (i % 4) {
    case 0:
        m->index = at * 2;
        m->log_term = at == 0 ? 0 : 1;
        m->commit = at;
        m->entries = e;
        m->entries_count = 2;
        for (uint64_t k = 0; k < 2; k++)
            e[k] = (struct bns_raft_entry){.index = at * 2 + 1 + k, .term = 1, .data = data[0]};
        return (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = m};
    case 1:
        return (struct bns_raft_in){
            .kind = BNS_RAFT_IN_PROPOSE, .data = data, .data_count = 1 + at % 3};
    case 2:
        return (struct bns_raft_in){.kind = BNS_RAFT_IN_READ, .cookie = i};
    default:
        if (i % 8 == 3)
            return (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = sa[0]};
        return (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = sa[1]};
    }
}

/* Runs the story with the fail_at-th allocation failing; a step that ran out of memory must have
 * changed nothing, and is taken again. Returns a hash of all outputs; *fired: it did fail. */
static uint64_t run_story(long fail_at, bool *fired)
{
    struct failing h = {{failing_alloc, failing_resize, failing_release, &h}, 0, 0, fail_at};
    struct bns_raft_boot boot = {.snap.conf = {.voters = {1, 2, 3}, .voters_count = 3}};
    struct bns_raft_config cfg = {.id = 2, .seed = 5};
    struct bns_rcbuf *data[3];
    struct bns_raft *r = NULL;
    uint64_t sa[2] = {0, 0};
    uint64_t hash = 0;
    int rv = bns_raft_init(&r, &cfg, &boot, &h.alloc, MS);

    if (rv == BNS_E_NOMEM) {
        assert_int_equal(h.live, 0);
        rv = bns_raft_init(&r, &cfg, &boot, &h.alloc, MS);
    }
    assert_int_equal(rv, BNS_OK);
    for (size_t i = 0; i < 3; i++)
        data[i] = bns_rcbuf_copy(bns_alloc_libc(), BNS_LIT("0123456789"));
    for (size_t i = 0; i < SCRIPT_STEPS; i++) {
        struct bns_raft_entry e[2];
        struct bns_raft_msg m;
        struct bns_raft_in in = story(i, &m, e, data, sa);
        struct bns_raft_status before;
        struct bns_raft_status after;
        uint64_t now = MS + i * MS;

        bns_raft_status(r, &before);
        rv = bns_raft_step(r, now, &in);
        if (rv == BNS_E_NOMEM) {
            bns_raft_status(r, &after);
            assert_true(same_status(&before, &after));
            rv = bns_raft_step(r, now, &in);
        }
        assert_true(rv == BNS_OK || rv == BNS_E_NOTLEADER);
        if (i % 3 != 1) /* several steps before some drains */
            hash = hash * 131 + drain_hash(r, &sa[0], &sa[1]);
    }
    bns_raft_close(r);
    for (size_t i = 0; i < 3; i++)
        bns_rcbuf_put(data[i]);
    assert_int_equal(h.live, 0);
    *fired = h.calls >= fail_at;
    return hash;
}

static void every_step_survives_oom_and_changes_nothing(void **state)
{
    bool fired;
    uint64_t expect = run_story(0, &fired);
    (void)state;
    fired = true;
    for (long fail_at = 1; fired; fail_at++)
        assert_true(run_story(fail_at, &fired) == expect);
}

/* ---- tables --------------------------------------------------------------------------------- */

static void configurations_and_boot_states_are_checked(void **state)
{
    static struct bns_raft_entry ok[] = {{.index = 6, .term = 2}, {.index = 7, .term = 3}};
    static struct bns_raft_entry gap[] = {{.index = 6, .term = 2}, {.index = 8, .term = 3}};
    static struct bns_raft_entry back[] = {{.index = 6, .term = 3}, {.index = 7, .term = 2}};
    static struct bns_raft_entry zero[] = {{.index = 1, .term = 0}};
    static const struct {
        const char *name;
        uint64_t id, heartbeat, term, commit, snap_index, snap_term, applied;
        const struct bns_raft_entry *entries;
        size_t count;
        uint8_t voters;
        int rv;
    } t[] = {
        {"first start", 1, 0, 0, 0, 0, 0, 0, NULL, 0, 1, BNS_OK},
        {"no id", 0, 0, 0, 0, 0, 0, 0, NULL, 0, 1, BNS_E_INVALID},
        {"no voters: it joins", 1, 0, 0, 0, 0, 0, 0, NULL, 0, 0, BNS_OK},
        {"slow heartbeat", 1, 2000 * MS, 0, 0, 0, 0, 0, NULL, 0, 1, BNS_E_INVALID},
        {"a log", 1, 0, 3, 7, 5, 2, 6, ok, 2, 1, BNS_OK},
        {"a gap", 1, 0, 3, 5, 5, 2, 5, gap, 2, 1, BNS_E_CORRUPT},
        {"terms go back", 1, 0, 3, 5, 5, 2, 5, back, 2, 1, BNS_E_CORRUPT},
        {"entry of term 0", 1, 0, 3, 0, 0, 0, 0, zero, 1, 1, BNS_E_CORRUPT},
        {"term behind the log", 1, 0, 2, 5, 5, 2, 5, ok, 2, 1, BNS_E_CORRUPT},
        {"snapshot without a term", 1, 0, 3, 5, 5, 0, 5, NULL, 0, 1, BNS_E_CORRUPT},
        {"term without a snapshot", 1, 0, 3, 0, 0, 1, 0, NULL, 0, 1, BNS_E_CORRUPT},
        {"applied before the log", 1, 0, 3, 5, 5, 2, 4, ok, 2, 1, BNS_E_CORRUPT},
        {"applied behind the log", 1, 0, 3, 5, 5, 2, 8, ok, 2, 1, BNS_E_CORRUPT},
        {"commit behind the log", 1, 0, 3, 8, 5, 2, 5, ok, 2, 1, BNS_E_CORRUPT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_config cfg = {.id = t[i].id, .heartbeat_ns = t[i].heartbeat};
        struct bns_raft_boot boot = {
            .term = t[i].term,
            .commit = t[i].commit,
            .snap = {t[i].snap_index, t[i].snap_term, {.voters = {1}, .voters_count = t[i].voters}},
            .entries = t[i].entries,
            .entries_count = t[i].count,
            .applied = t[i].applied};
        struct bns_raft *r = NULL;
        print_message("  %s\n", t[i].name);
        assert_int_equal(bns_raft_init(&r, &cfg, &boot, bns_alloc_libc(), 1), t[i].rv);
        bns_raft_close(r);
    }
}

static const struct bns_raft_entry one[] = {{.index = 3, .term = 3}};
static const struct bns_raft_entry other[] = {{.index = 1, .term = 3}};
static const struct bns_raft_entry later[] = {{.index = 3, .term = 4}};
static const struct bns_raft_entry conf[] = {{.index = 3, .term = 3, .kind = 2}};
static const struct {
    const char *name;
    struct bns_raft_msg m;
} impossible[] = {
    {"type 0", {.from = 1, .to = 2, .term = 3}},
    {"type 14", {.type = 14, .from = 1, .to = 2, .term = 3}},
    {"for another node", {.type = 7, .from = 1, .to = 3, .term = 3}},
    {"for another group", {.type = 7, .group = 1, .from = 1, .to = 2, .term = 3}},
    {"from ourselves", {.type = 7, .from = 2, .to = 2, .term = 3}},
    {"from nobody", {.type = 7, .from = 0, .to = 2, .term = 3}},
    {"a stranger leads, too", {.type = 7, .from = 9, .to = 2, .term = 3}},
    {"a term beyond reason", {.type = 7, .from = 1, .to = 2, .term = UINT64_MAX}},
    {"an index beyond reason", {.type = 6, .from = 1, .to = 2, .term = 3, .index = ~0ull}},
    {"log term beyond the term", {.type = 5, .from = 1, .to = 2, .term = 3, .log_term = 4}},
    {"a number beyond reason", {.type = 8, .from = 1, .to = 2, .term = 3, .read_ctx = ~0ull}},
    {"too many entries", {.type = 9, .from = 1, .to = 2, .term = 3, .entries_count = 99999}},
    {"a second leader", {.type = 7, .from = 3, .to = 2, .term = 3}},
    {"a second leader appends", {.type = 5, .from = 3, .to = 2, .term = 3}},
    {"vote in term 0", {.type = 3, .from = 3, .to = 2}},
    {"read without a number", {.type = 10, .from = 3, .to = 2, .term = 3}},
    {"index without a term", {.type = 5, .from = 1, .to = 2, .term = 3, .index = 2, .log_term = 0}},
    {"a gap",
     {.type = 5,
      .from = 1,
      .to = 2,
      .term = 3,
      .index = 1,
      .log_term = 3,
      .entries = one,
      .entries_count = 1}},
    {"entry later than the leader",
     {.type = 5,
      .from = 1,
      .to = 2,
      .term = 3,
      .index = 2,
      .log_term = 3,
      .entries = later,
      .entries_count = 1}},
    {"a change of membership without one",
     {.type = 5,
      .from = 1,
      .to = 2,
      .term = 3,
      .index = 2,
      .log_term = 3,
      .entries = conf,
      .entries_count = 1}},
    {"contradicts what is committed",
     {.type = 5, .from = 1, .to = 2, .term = 3, .entries = other, .entries_count = 1}},
};

/* What no honest peer sends is refused and changes nothing. Node 2 follows node 1 in term 3. */
static void impossible_messages_are_refused(void **state)
{
    struct bns_raft_entry log[] = {{.index = 1, .term = 2}, {.index = 2, .term = 3}};
    struct bns_raft_boot boot = {.term = 3,
                                 .commit = 2,
                                 .entries = log,
                                 .entries_count = 2,
                                 .snap.conf = {.voters = {1, 2, 3}, .voters_count = 3}};
    struct bns_raft_config cfg = {.id = 2};
    struct bns_raft_msg hb = {.type = 7, .from = 1, .to = 2, .term = 3};
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_RECV, .msg = &hb};
    struct bns_raft_status before;
    struct bns_raft_status after;
    struct bns_raft_out o;
    struct bns_raft *r;
    (void)state;
    assert_int_equal(bns_raft_init(&r, &cfg, &boot, bns_alloc_libc(), 1), BNS_OK);
    assert_int_equal(bns_raft_step(r, 2, &in), BNS_OK);
    while (bns_raft_next(r, &o))
        continue;
    bns_raft_status(r, &before);
    for (size_t i = 0; i < sizeof impossible / sizeof impossible[0]; i++) {
        print_message("  %s\n", impossible[i].name);
        in.msg = &impossible[i].m;
        assert_int_equal(bns_raft_step(r, 2, &in), BNS_E_PROTO);
        bns_raft_status(r, &after);
        assert_true(same_status(&before, &after));
    }
    bns_raft_close(r);
}

static void snapshots_that_make_no_sense_are_refused(void **state)
{
    static const struct {
        const char *name;
        uint64_t index, term, peer, leader_term;
        uint8_t voters;
        int rv;
        bool install;
    } t[] = {
        {"from nobody", 9, 1, 0, 3, 3, BNS_E_PROTO, false},
        {"from ourselves", 9, 1, 2, 3, 3, BNS_E_PROTO, false},
        {"index 0", 0, 1, 1, 3, 3, BNS_E_PROTO, false},
        {"term 0", 9, 0, 1, 3, 3, BNS_E_PROTO, false},
        {"later than its leader", 9, 4, 1, 3, 3, BNS_E_PROTO, false},
        {"index beyond reason", ~0ull, 1, 1, 3, 3, BNS_E_PROTO, false},
        {"term beyond reason", 9, 1, 1, ~0ull, 3, BNS_E_PROTO, false},
        {"nobody votes", 9, 1, 1, 3, 0, BNS_E_PROTO, false},
        {"of a leader of the past", 9, 1, 3, 2, 3, BNS_OK, false},
        {"good", 9, 1, 1, 3, 3, BNS_OK, true},
        {"of a second leader", 9, 1, 3, 3, 3, BNS_E_PROTO, false},
        {"while one is being installed", 10, 1, 1, 3, 3, BNS_OK, false},
    };
    struct bns_raft_boot boot = {.term = 3, .snap.conf = {.voters = {1, 2, 3}, .voters_count = 3}};
    struct bns_raft_config cfg = {.id = 2};
    struct bns_raft *r;
    (void)state;
    assert_int_equal(bns_raft_init(&r, &cfg, &boot, bns_alloc_libc(), 1), BNS_OK);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_snapmeta s = {t[i].index, t[i].term, boot.snap.conf};
        struct bns_raft_in in = {.kind = BNS_RAFT_IN_SNAPSHOT_RECEIVED,
                                 .snap = &s,
                                 .peer = t[i].peer,
                                 .term = t[i].leader_term};
        struct bns_raft_out o;
        bool install = false;
        print_message("  %s\n", t[i].name);
        s.conf.voters_count = t[i].voters;
        assert_int_equal(bns_raft_step(r, 2, &in), t[i].rv);
        while (bns_raft_next(r, &o))
            install = install || o.kind == BNS_RAFT_OUT_INSTALL;
        assert_int_equal(install, t[i].install);
    }
    bns_raft_close(r);
}

/* The state machine refuses what came: the member takes part again, and takes the next one. */
static void a_failed_install_is_not_the_end(void **state)
{
    struct bns_raft_boot boot = {.term = 3, .snap.conf = {.voters = {1, 2, 3}, .voters_count = 3}};
    struct bns_raft_config cfg = {.id = 2};
    struct bns_raft_snapmeta s = {9, 1, boot.snap.conf};
    struct bns_raft_in received = {
        .kind = BNS_RAFT_IN_SNAPSHOT_RECEIVED, .snap = &s, .peer = 1, .term = 3};
    struct bns_raft_in failed = {.kind = BNS_RAFT_IN_INSTALL_FAILED, .index = 9};
    struct bns_raft_status st;
    struct bns_raft *r;
    (void)state;
    assert_int_equal(bns_raft_init(&r, &cfg, &boot, bns_alloc_libc(), 1), BNS_OK);
    for (int i = 0; i < 3; i++) {
        struct bns_raft_out o;
        bool install = false;
        assert_int_equal(bns_raft_step(r, 2, &received), BNS_OK);
        while (bns_raft_next(r, &o))
            install = install || o.kind == BNS_RAFT_OUT_INSTALL;
        assert_true(install);
        assert_int_equal(bns_raft_step(r, 2, &failed), BNS_OK);
        while (bns_raft_next(r, &o))
            continue;
        bns_raft_status(r, &st);
        assert_true(st.commit == 0 && st.applied == 0);
    }
    bns_raft_close(r);
}

static void limits_of_proposals_and_reads(void **state)
{
    struct bns_rcbuf *big = bns_rcbuf_new(bns_alloc_libc(), BNS_RAFT_ENTRY_BYTES_MAX);
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = &big, .data_count = 1};
    struct group g;
    int rv = BNS_OK;
    (void)state;
    assert_non_null(big);
    group_open(&g, 3);
    assert_int_equal(bns_raft_step(g.n[0].raft, g.now, &in), BNS_E_TOOBIG);
    assert_int_equal(propose(&g, &g.n[0], 1), BNS_E_NOTLEADER);
    advance(&g, 1);
    g.n[1].down = g.n[2].down = true;
    in = (struct bns_raft_in){.kind = BNS_RAFT_IN_READ};
    for (; rv == BNS_OK && in.cookie < 100000; in.cookie += rv == BNS_OK)
        rv = bns_raft_step(g.n[0].raft, g.now, &in);
    assert_int_equal(rv, BNS_E_BUSY);
    assert_true(in.cookie == 65536);
    drain(&g, &g.n[0]);
    bns_rcbuf_put(big);
    group_close(&g);
}

/* A learner replicates and applies, but does not vote, campaign, or count. */
static void learners_follow_and_do_not_count(void **state)
{
    struct bns_raft_boot boot = {
        .snap.conf = {.voters = {1, 2}, .voters_count = 2, .learners = {3}, .learners_count = 1}};
    struct bns_raft_status st;
    struct group g;
    (void)state;
    group_open(&g, 3);
    for (size_t i = 0; i < 3; i++) {
        struct bns_raft_config cfg = {.id = i + 1, .seed = i};
        bns_raft_close(g.n[i].raft);
        assert_int_equal(bns_raft_init(&g.n[i].raft, &cfg, &boot, bns_alloc_libc(), g.now), BNS_OK);
    }
    assert_true(bns_raft_deadline(g.n[2].raft) == UINT64_MAX);
    advance(&g, 1);
    assert_int_equal(propose(&g, &g.n[2], 3), BNS_OK);
    settle(&g);
    assert_true(g.n[2].applied_sum == 3 && g.sent[BNS_RAFT_MSG_VOTE] == 1);
    g.n[1].down = true;
    assert_int_equal(propose(&g, &g.n[0], 4), BNS_OK);
    settle(&g);
    bns_raft_status(g.n[0].raft, &st);
    assert_true(st.commit == 2 && st.last_index == 3 && st.peers[2].learner);
    assert_true(bns_raft_conf(g.n[0].raft)->learners_count == 1);
    group_close(&g);
}

static void an_unreachable_peer_is_probed_again(void **state)
{
    struct bns_raft_status st;
    struct group g;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    assert_int_equal(propose(&g, &g.n[0], 1), BNS_OK);
    settle(&g);
    step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_UNREACHABLE, .peer = 2});
    drain(&g, &g.n[0]);
    bns_raft_status(g.n[0].raft, &st);
    assert_true(st.peers[1].state == 0 && st.peers[1].next == st.peers[1].match + 1);
    advance(&g, 300);
    bns_raft_status(g.n[0].raft, &st);
    assert_true(st.peers[1].state == 1 && st.peers[1].recent_active);
    group_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_id_leads_at_once_on_an_empty_log),
        cmocka_unit_test(single_voter_leads_and_commits_alone),
        cmocka_unit_test(proposals_through_any_member_are_applied_by_all),
        cmocka_unit_test(another_member_leads_when_the_leader_is_gone),
        cmocka_unit_test(reads_of_all_members_are_answered_and_batched),
        cmocka_unit_test(reads_fail_when_the_leader_lost_its_quorum),
        cmocka_unit_test(leader_counts_itself_only_when_its_disk_has_it),
        cmocka_unit_test(every_step_survives_oom_and_changes_nothing),
        cmocka_unit_test(configurations_and_boot_states_are_checked),
        cmocka_unit_test(impossible_messages_are_refused),
        cmocka_unit_test(snapshots_that_make_no_sense_are_refused),
        cmocka_unit_test(a_failed_install_is_not_the_end),
        cmocka_unit_test(limits_of_proposals_and_reads),
        cmocka_unit_test(learners_follow_and_do_not_count),
        cmocka_unit_test(an_unreachable_peer_is_probed_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
