/* Goal:   the rules for members, one by one: what is refused, when a configuration is in force, who
 *         counts, who may lead, how a leader hands over.
 * Method: cores joined by a queue that delivers at once (raft_group.h); the last nodes of a group
 *         may be outside its first configuration; or one core, its peers played by hand, out of
 *         memory at every allocation.
 */
#include "proto/raft_msg.h"
#include "raft_group.h"

static void open_with(struct group *g, size_t count, struct bns_raft_conf first)
{
    memset(g, 0, sizeof *g);
    g->count = count;
    g->now = 1000 * MS;
    g->queue = test_malloc(QUEUE_MAX * sizeof *g->queue);
    for (size_t i = 0; i < count; i++) {
        struct bns_raft_boot boot = {.snap.index = 0};
        struct bns_raft_config cfg = {.id = i + 1, .seed = 7 + i, .uncommitted_bytes_max = 4096};
        bool member = false;

        for (size_t k = 0; k < first.voters_count; k++)
            member = member || first.voters[k] == i + 1;
        for (size_t k = 0; k < first.learners_count; k++)
            member = member || first.learners[k] == i + 1;
        if (member)
            boot.snap.conf = first;
        g->n[i].id = i + 1;
        assert_int_equal(bns_raft_init(&g->n[i].raft, &cfg, &boot, bns_alloc_libc(), g->now),
                         BNS_OK);
    }
    advance(g, 100);
}

static const struct bns_raft_conf alone = {.voters = {1}, .voters_count = 1};
static const struct bns_raft_conf three = {.voters = {1, 2, 3}, .voters_count = 3};
static const struct bns_raft_conf observed = {
    .voters = {1, 2}, .voters_count = 2, .learners = {3}, .learners_count = 1};

static int change_by(struct group *g, struct node *n, const struct bns_raft_change *c, size_t count)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_CHANGE,
                             .changes = c,
                             .changes_count = count,
                             .context = bns_slice_str("why")};
    int rv = bns_raft_step(n->raft, g->now, &in);

    drain(g, n);
    return rv;
}

static int change1(struct group *g, struct node *n, enum bns_raft_change_kind kind, uint64_t id)
{
    struct bns_raft_change c = {kind, id};
    return change_by(g, n, &c, 1);
}

static int transfer(struct group *g, struct node *n, uint64_t to)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_TRANSFER, .peer = to};
    int rv = bns_raft_step(n->raft, g->now, &in);

    drain(g, n);
    return rv;
}

static struct bns_raft_status look(const struct node *n)
{
    struct bns_raft_status st;
    bns_raft_status(n->raft, &st);
    return st;
}

/* ---- the bytes ------------------------------------------------------------------------------- */

static void an_entry_tells_the_result_the_changes_and_the_context(void **state)
{
    struct bns_raft_conf_entry c = {.conf = {.voters = {1, 4}, .voters_count = 2},
                                    .changes = {{BNS_RAFT_REMOVE, 2}, {BNS_RAFT_ADD_VOTER, 4}},
                                    .changes_count = 2,
                                    .context = bns_slice_str("abc")};
    struct bns_raft_conf_entry d;
    struct bns_raft_conf conf;
    struct bns_rcbuf *b;
    (void)state;
    c.conf.voters_old_count = 1;
    c.conf.voters_old[0] = 2;
    assert_int_equal(bns_raft_change_encode(bns_alloc_libc(), &c, &b), BNS_OK);
    assert_int_equal(bns_raft_change_decode(bns_rcbuf_slice(b), &d), BNS_OK);
    assert_memory_equal(&c.conf, &d.conf, sizeof c.conf);
    assert_true(d.changes_count == 2 && d.changes[1].id == 4);
    assert_true(d.changes[1].kind == BNS_RAFT_ADD_VOTER && bns_slice_eq(d.context, c.context));
    assert_int_equal(bns_raft_conf_decode(bns_rcbuf_slice(b), &conf), BNS_OK);
    assert_memory_equal(&c.conf, &conf, sizeof conf);
    for (size_t cut = 0; cut < b->len; cut++)
        (void)!bns_raft_change_decode(bns_slice(b->bytes, cut), &d);
    bns_rcbuf_put(b);
}

static void entries_that_make_no_sense_are_refused(void **state)
{
    static const struct {
        const char *name, *in;
        size_t len;
        int rv;
    } t[] = {
        {"a configuration alone", "\x08\x01", 2, BNS_OK},
        {"nothing", "", 0, BNS_E_PROTO},
        {"no voters", "\x18\x01", 2, BNS_E_PROTO},
        {"context as a number", "\x08\x01\x20\x01", 4, BNS_E_PROTO},
        {"change as a number", "\x08\x01\x28\x01", 4, BNS_E_PROTO},
        {"change without a kind", "\x08\x01\x2a\x02\x10\x02", 6, BNS_E_PROTO},
        {"change without an id", "\x08\x01\x2a\x02\x08\x01", 6, BNS_E_PROTO},
        {"change of kind 5", "\x08\x01\x2a\x04\x08\x05\x10\x02", 8, BNS_E_PROTO},
        {"change", "\x08\x01\x2a\x04\x08\x04\x10\x02", 8, BNS_OK},
        {"change with more in it", "\x08\x01\x2a\x06\x08\x04\x10\x02\x18\x07", 10, BNS_OK},
        {"a field of the future", "\x08\x01\x32\x01z", 5, BNS_OK},
    };
    uint8_t many[2 + 17 * 6];
    struct bns_raft_conf_entry d;
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        print_message("  %s\n", t[i].name);
        assert_int_equal(bns_raft_change_decode(bns_slice(t[i].in, t[i].len), &d), t[i].rv);
    }
    memcpy(many, "\x08\x01", 2);
    for (size_t i = 0; i < 17; i++)
        memcpy(many + 2 + 6 * i, "\x2a\x04\x08\x04\x10\x02", 6);
    assert_int_equal(bns_raft_change_decode(bns_slice(many, 2 + 16 * 6), &d), BNS_OK);
    assert_int_equal(bns_raft_change_decode(bns_slice(many, sizeof many), &d), BNS_E_PROTO);
}

static void too_large_a_context_is_refused(void **state)
{
    struct bns_raft_conf_entry c = {.conf = alone};
    struct bns_raft_conf_entry d;
    struct bns_rcbuf *b;
    uint8_t *bytes = test_calloc(1, BNS_RAFT_CONTEXT_BYTES_MAX + 1);
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_CHANGE};
    struct group g;
    (void)state;
    c.context = bns_slice(bytes, BNS_RAFT_CONTEXT_BYTES_MAX + 1);
    assert_int_equal(bns_raft_change_encode(bns_alloc_libc(), &c, &b), BNS_OK);
    assert_int_equal(bns_raft_change_decode(bns_rcbuf_slice(b), &d), BNS_E_PROTO);
    bns_rcbuf_put(b);
    open_with(&g, 1, alone);
    in.context = c.context;
    assert_int_equal(bns_raft_step(g.n[0].raft, g.now, &in), BNS_E_TOOBIG);
    group_close(&g);
    test_free(bytes);
}

/* Commands of another family pass through the log as they are, forwarded ones too. */
static void families_share_the_log(void **state)
{
    struct group g;
    struct bns_rcbuf *b = bns_rcbuf_copy(bns_alloc_libc(), BNS_LIT("z"));
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = &b, .data_count = 1, .family = 5};
    (void)state;
    open_with(&g, 3, three);
    for (size_t i = 0; i < 2; i++) {
        step(&g, &g.n[i], in);
        drain(&g, &g.n[i]);
        settle(&g);
        advance(&g, 200);
        assert_int_equal(BNS_RAFT_FAMILY(g.n[2].last_kind), 5);
        assert_int_equal(g.n[2].applied, 2 + i);
        g.n[2].last_kind = 0;
    }
    bns_rcbuf_put(b);
    group_close(&g);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void changes_that_cannot_be_are_refused(void **state)
{
    static const struct {
        const char *name;
        struct bns_raft_change c[2];
        int rv;
    } t[] = {
        {"a voter again", {{BNS_RAFT_ADD_VOTER, 2}}, BNS_E_EXISTS},
        {"a voter as a learner", {{BNS_RAFT_ADD_LEARNER, 2}}, BNS_E_EXISTS},
        {"a learner again", {{BNS_RAFT_ADD_LEARNER, 3}}, BNS_E_EXISTS},
        {"a voter promoted", {{BNS_RAFT_PROMOTE, 2}}, BNS_E_EXISTS},
        {"a stranger promoted", {{BNS_RAFT_PROMOTE, 4}}, BNS_E_NOTFOUND},
        {"a stranger removed", {{BNS_RAFT_REMOVE, 4}}, BNS_E_NOTFOUND},
        {"nobody", {{BNS_RAFT_ADD_VOTER, 0}}, BNS_E_INVALID},
        {"no such kind", {{(enum bns_raft_change_kind)9, 4}}, BNS_E_INVALID},
        {"one id twice", {{BNS_RAFT_REMOVE, 2}, {BNS_RAFT_ADD_VOTER, 2}}, BNS_E_INVALID},
        {"all voters", {{BNS_RAFT_REMOVE, 1}, {BNS_RAFT_REMOVE, 2}}, BNS_E_INVALID},
    };
    struct bns_raft_change many[BNS_RAFT_PEERS_MAX + 1];
    struct group g;
    (void)state;
    open_with(&g, 3, observed);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        print_message("  %s\n", t[i].name);
        assert_int_equal(change_by(&g, &g.n[0], t[i].c, t[i].c[1].kind != 0 ? 2 : 1), t[i].rv);
        assert_int_equal(look(&g.n[0]).last_index, 1);
    }
    assert_int_equal(change1(&g, &g.n[1], BNS_RAFT_ADD_LEARNER, 4), BNS_E_NOTLEADER);
    for (size_t i = 0; i <= BNS_RAFT_PEERS_MAX; i++)
        many[i] = (struct bns_raft_change){BNS_RAFT_ADD_LEARNER, 10 + i};
    assert_int_equal(change_by(&g, &g.n[0], many, BNS_RAFT_PEERS_MAX + 1), BNS_E_TOOBIG);
    assert_int_equal(change_by(&g, &g.n[0], many, BNS_RAFT_PEERS_MAX - 2), BNS_E_TOOBIG);
    for (size_t i = 0; i <= BNS_RAFT_PEERS_MAX; i++)
        many[i].kind = BNS_RAFT_ADD_VOTER;
    assert_int_equal(change_by(&g, &g.n[0], many, BNS_RAFT_PEERS_MAX), BNS_E_TOOBIG);
    assert_int_equal(change_by(&g, &g.n[0], many, 0), BNS_OK); /* states what is */
    group_close(&g);
}

static void one_change_at_a_time(void **state)
{
    struct group g;
    (void)state;
    open_with(&g, 5, three);
    g.n[1].down = g.n[2].down = true;
    assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_ADD_LEARNER, 4), BNS_OK);
    settle(&g);
    assert_true(look(&g.n[0]).conf_pending);
    assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_ADD_LEARNER, 5), BNS_E_BUSY);
    assert_int_equal(bns_raft_conf(g.n[0].raft)->learners_count, 0); /* not in force yet */
    g.n[1].down = g.n[2].down = false;
    advance(&g, 300);
    assert_false(look(&g.n[0]).conf_pending);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(bns_raft_conf(g.n[i].raft)->learners_count, 1);
    assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_ADD_LEARNER, 5), BNS_OK);
    group_close(&g);
}

/* ---- one core, its peers played by hand ------------------------------------------------------ */

struct lone {
    struct bns_raft *raft;
    struct bns_alloc alloc;
    uint64_t now, seq, applied;
    uint64_t live;
    long calls, fail_at;
    uint64_t sent[16], timeout_now_to;
    uint64_t read_ctx; /* of the last heartbeat */
    bool vote_forced;
};

static void *lone_resize(void *ctx, void *ptr, size_t n)
{
    struct lone *l = ctx;
    void *p = ++l->calls == l->fail_at ? NULL : bns_resize(bns_alloc_libc(), ptr, n);

    l->live += p != NULL && ptr == NULL;
    return p;
}

static void *lone_alloc(void *ctx, size_t n)
{
    return lone_resize(ctx, NULL, n);
}

static void lone_release(void *ctx, void *ptr)
{
    struct lone *l = ctx;

    l->live -= ptr != NULL;
    bns_free(bns_alloc_libc(), ptr);
}

/* Takes what comes out; disk and state machine are done at once. */
static void lone_drain(struct lone *l)
{
    struct bns_raft_out o;

    while (bns_raft_next(l->raft, &o)) {
        if (o.kind == BNS_RAFT_OUT_PERSIST)
            l->seq = o.seq;
        else if (o.kind == BNS_RAFT_OUT_APPLY)
            l->applied = o.index;
        if (o.kind != BNS_RAFT_OUT_SEND)
            continue;
        l->sent[o.msg.type]++;
        if (o.msg.type == BNS_RAFT_MSG_TIMEOUT_NOW)
            l->timeout_now_to = o.msg.to;
        if (o.msg.type == BNS_RAFT_MSG_HEARTBEAT)
            l->read_ctx = o.msg.read_ctx;
        if (o.msg.type == BNS_RAFT_MSG_VOTE)
            l->vote_forced = (o.msg.flags & BNS_RAFT_FLAG_TRANSFER) != 0;
    }
}

/* A step that runs out of memory changes nothing, and is taken again. */
static int lone_step(struct lone *l, struct bns_raft_in in)
{
    struct bns_raft_status before, after;
    int rv;

    bns_raft_status(l->raft, &before);
    rv = bns_raft_step(l->raft, l->now, &in);
    if (rv == BNS_E_NOMEM) {
        bns_raft_status(l->raft, &after);
        assert_true(before.last_index == after.last_index && before.commit == after.commit);
        assert_true(before.term == after.term && before.role == after.role);
        rv = bns_raft_step(l->raft, l->now, &in);
    }
    lone_drain(l);
    return rv;
}

static void lone_settle(struct lone *l)
{
    uint64_t seq, applied;

    do {
        seq = l->seq;
        applied = l->applied;
        (void)lone_step(l, (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = seq});
        (void)lone_step(l, (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = applied});
    } while (seq != l->seq || applied != l->applied);
}

static int lone_recv(struct lone *l, struct bns_raft_msg m)
{
    struct bns_raft_status st;
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_RECV, .msg = &m};

    bns_raft_status(l->raft, &st);
    m.to = 1;
    if (m.term == 0)
        m.term = st.term;
    return lone_step(l, in);
}

static void lone_ack(struct lone *l, uint64_t from, uint64_t index)
{
    assert_int_equal(lone_recv(l, (struct bns_raft_msg){.type = BNS_RAFT_MSG_APPEND_RESP,
                                                        .from = from,
                                                        .index = index}),
                     BNS_OK);
    lone_settle(l);
}

static void lone_wait(struct lone *l, uint64_t ms)
{
    l->now += ms * MS;
    assert_int_equal(lone_step(l, (struct bns_raft_in){.kind = BNS_RAFT_IN_TIMER}), BNS_OK);
    lone_settle(l);
}

/* Node 1 of three leads in term 1; its first entry is on its own disk only. */
static void lone_open(struct lone *l, long fail_at)
{
    struct bns_raft_boot boot = {.snap.conf = three};
    struct bns_raft_config cfg = {.id = 1, .seed = 1};
    int rv;

    *l = (struct lone){.now = MS, .fail_at = fail_at};
    l->alloc = (struct bns_alloc){lone_alloc, lone_resize, lone_release, l};
    rv = bns_raft_init(&l->raft, &cfg, &boot, &l->alloc, l->now);
    if (rv == BNS_E_NOMEM)
        rv = bns_raft_init(&l->raft, &cfg, &boot, &l->alloc, l->now);
    assert_int_equal(rv, BNS_OK);
    assert_int_equal(lone_step(l, (struct bns_raft_in){.kind = BNS_RAFT_IN_CAMPAIGN}), BNS_OK);
    lone_settle(l);
    assert_int_equal(lone_recv(l, (struct bns_raft_msg){.type = BNS_RAFT_MSG_VOTE_RESP, .from = 2}),
                     BNS_OK);
    lone_settle(l);
}

static void lone_close(struct lone *l)
{
    bns_raft_close(l->raft);
    assert_int_equal(l->live, 0);
}

static struct bns_raft_status lone_look(const struct lone *l)
{
    struct bns_raft_status st;
    bns_raft_status(l->raft, &st);
    return st;
}

static int lone_change(struct lone *l, const struct bns_raft_change *c, size_t n)
{
    int rv = lone_step(
        l, (struct bns_raft_in){.kind = BNS_RAFT_IN_CHANGE, .changes = c, .changes_count = n});
    lone_settle(l);
    return rv;
}

static void no_change_before_the_first_entry_of_the_term_is_committed(void **state)
{
    static const struct bns_raft_change c = {BNS_RAFT_ADD_LEARNER, 4};
    struct lone l;
    (void)state;
    lone_open(&l, 0);
    assert_int_equal(lone_look(&l).role, BNS_RAFT_LEADER);
    assert_false(lone_look(&l).ready);
    assert_int_equal(lone_change(&l, &c, 1), BNS_E_BUSY);
    lone_ack(&l, 3, 1);
    assert_true(lone_look(&l).ready);
    assert_int_equal(lone_change(&l, &c, 1), BNS_OK);
    lone_close(&l);
}

static const struct bns_raft_change replace[] = {{BNS_RAFT_REMOVE, 2}, {BNS_RAFT_ADD_VOTER, 4}};

/* Two voters change: joint by the old majority, left by both, and nobody has to ask for that. */
static void several_changes_are_joint_and_end_by_themselves(void **state)
{
    long fail_at = 0;
    (void)state;
    for (bool fired = true; fired; fail_at++) {
        struct lone l;
        lone_open(&l, fail_at);
        lone_ack(&l, 3, 1);
        assert_int_equal(lone_change(&l, replace, 2), BNS_OK);
        assert_true(lone_look(&l).conf_pending && !lone_look(&l).joint);
        lone_ack(&l, 2, 2); /* with us the old majority */
        lone_wait(&l, 100);
        assert_true(lone_look(&l).joint && lone_look(&l).commit == 2);
        assert_int_equal(lone_look(&l).last_index, 3); /* the end of it is in the log */
        assert_int_equal(lone_change(&l, replace, 1), BNS_E_BUSY);
        lone_ack(&l, 2, 3); /* 1 and 2 are a majority of the old ones only */
        assert_int_equal(lone_look(&l).commit, 2);
        lone_ack(&l, 4, 3); /* 1 and 4 of the new ones, too */
        assert_int_equal(lone_look(&l).commit, 3);
        assert_false(lone_look(&l).joint);
        assert_int_equal(bns_raft_conf(l.raft)->voters_count, 3);
        assert_int_equal(bns_raft_conf(l.raft)->voters[1], 3);
        assert_true(bns_raft_talks_to(l.raft, 2)); /* it is told */
        for (int i = 0; i < 60; i++) {
            lone_ack(&l, 3, 3);
            lone_wait(&l, 100);
        }
        assert_false(bns_raft_talks_to(l.raft, 2));
        assert_int_equal(lone_look(&l).peers_count, 3);
        fired = fail_at == 0 || l.calls >= l.fail_at;
        lone_close(&l);
    }
    print_message("  %ld allocations\n", fail_at - 2);
    assert_true(fail_at > 6);
}

static void a_lagging_peer_is_brought_up_to_date_before_it_is_told(void **state)
{
    struct bns_rcbuf *b = bns_rcbuf_copy(bns_alloc_libc(), BNS_LIT("z"));
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = &b, .data_count = 1};
    struct lone l;
    (void)state;
    lone_open(&l, 0);
    lone_ack(&l, 3, 1);
    assert_int_equal(lone_step(&l, in), BNS_OK);
    lone_settle(&l);
    in = (struct bns_raft_in){.kind = BNS_RAFT_IN_TRANSFER, .peer = 2};
    assert_int_equal(lone_step(&l, in), BNS_OK);
    assert_int_equal(lone_step(&l, in), BNS_OK); /* the same again */
    assert_int_equal(lone_look(&l).transferee, 2);
    in.peer = 3;
    assert_int_equal(lone_step(&l, in), BNS_E_BUSY);
    in.peer = 1;
    assert_int_equal(lone_step(&l, in), BNS_OK); /* we lead already */
    in.peer = 7;
    assert_int_equal(lone_step(&l, in), BNS_E_NOTFOUND);
    in = (struct bns_raft_in){.kind = BNS_RAFT_IN_PROPOSE, .data = &b, .data_count = 1};
    assert_int_equal(lone_step(&l, in), BNS_E_BUSY);
    assert_int_equal(lone_change(&l, replace, 1), BNS_E_BUSY);
    lone_ack(&l, 2, 1);
    assert_int_equal(l.sent[BNS_RAFT_MSG_TIMEOUT_NOW], 0);
    lone_ack(&l, 2, 2);
    assert_int_equal(l.sent[BNS_RAFT_MSG_TIMEOUT_NOW], 1);
    assert_int_equal(l.timeout_now_to, 2);
    lone_wait(&l, 200); /* it may have been lost */
    assert_int_equal(l.sent[BNS_RAFT_MSG_TIMEOUT_NOW], 2);
    for (int i = 0; i < 10; i++) {
        lone_ack(&l, 3, 2);
        lone_wait(&l, 100);
    }
    assert_int_equal(lone_look(&l).transferee, 0); /* given up */
    in = (struct bns_raft_in){.kind = BNS_RAFT_IN_PROPOSE, .data = &b, .data_count = 1};
    assert_int_equal(lone_step(&l, in), BNS_OK);
    lone_settle(&l);
    bns_rcbuf_put(b);
    lone_close(&l);
}

/* Reads one after the other, each a round of heartbeats that 3 answers, for so long. */
static void lone_reads(struct lone *l, uint64_t ms)
{
    for (uint64_t end = l->now + ms * MS; l->now < end; l->now += 20 * MS) {
        struct bns_raft_in read = {.kind = BNS_RAFT_IN_READ, .cookie = l->now};
        struct bns_raft_msg beat = {.type = BNS_RAFT_MSG_HEARTBEAT_RESP, .from = 3};

        if (bns_raft_deadline(l->raft) <= l->now)
            lone_wait(l, 0);
        assert_int_equal(lone_step(l, read), BNS_OK);
        beat.read_ctx = l->read_ctx;
        assert_int_equal(lone_recv(l, beat), BNS_OK);
    }
}

static void steady_reads_do_not_keep_a_transfer_from_its_end(void **state)
{
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_TRANSFER, .peer = 2};
    struct lone l;
    (void)state;
    lone_open(&l, 0);
    lone_ack(&l, 3, 1);
    lone_ack(&l, 2, 1);
    assert_int_equal(lone_step(&l, in), BNS_OK);
    assert_int_equal(l.sent[BNS_RAFT_MSG_TIMEOUT_NOW], 1);
    lone_reads(&l, 500);
    assert_true(l.sent[BNS_RAFT_MSG_TIMEOUT_NOW] > 2); /* it may have been lost */
    assert_int_equal(lone_look(&l).transferee, 2);
    lone_reads(&l, 1000);
    assert_int_equal(lone_look(&l).transferee, 0);
    lone_close(&l);
}

static void steady_reads_do_not_keep_a_removed_member(void **state)
{
    static const struct bns_raft_change removal = {BNS_RAFT_REMOVE, 2};
    struct lone l;
    (void)state;
    lone_open(&l, 0);
    lone_ack(&l, 3, 1);
    assert_int_equal(lone_change(&l, &removal, 1), BNS_OK);
    lone_ack(&l, 3, 2);
    assert_int_equal(lone_look(&l).commit, 2);
    lone_reads(&l, 4000);
    assert_true(bns_raft_talks_to(l.raft, 2)); /* it is told */
    lone_reads(&l, 2000);
    assert_false(bns_raft_talks_to(l.raft, 2));
    lone_close(&l);
}

static void who_is_told_campaigns_at_once_and_says_so(void **state)
{
    struct bns_raft_msg beat = {.type = BNS_RAFT_MSG_HEARTBEAT, .from = 2, .term = 5};
    struct bns_raft_msg now = {.type = BNS_RAFT_MSG_TIMEOUT_NOW, .from = 3, .term = 5};
    struct lone l;
    (void)state;
    lone_open(&l, 0);
    assert_int_equal(lone_recv(&l, beat), BNS_OK);
    lone_settle(&l);
    assert_int_equal(lone_recv(&l, now), BNS_OK); /* not from its leader */
    assert_int_equal(lone_look(&l).role, BNS_RAFT_FOLLOWER);
    now.from = 2;
    assert_int_equal(lone_recv(&l, now), BNS_OK);
    assert_int_equal(lone_look(&l).role, BNS_RAFT_CANDIDATE);
    assert_true(lone_look(&l).term == 6 && l.vote_forced);
    assert_int_equal(lone_step(&l, (struct bns_raft_in){.kind = BNS_RAFT_IN_TRANSFER, .peer = 2}),
                     BNS_E_NOTLEADER);
    lone_close(&l);
}

/* Answers and requests of who is no member are not looked at; appends and votes are. */
static void strangers_may_lead_and_ask_for_votes_but_not_answer(void **state)
{
    struct bns_raft_entry e = {.index = 1, .term = 9, .kind = BNS_RAFT_NORMAL};
    struct bns_raft_msg p = {
        .type = BNS_RAFT_MSG_PROPOSE, .from = 8, .entries = &e, .entries_count = 1};
    struct lone l;
    (void)state;
    lone_open(&l, 0);
    assert_int_equal(lone_recv(&l, p), BNS_OK);
    assert_int_equal(lone_look(&l).last_index, 1);
    p.from = 2;
    e.kind = BNS_RAFT_CONF;
    assert_int_equal(lone_recv(&l, p), BNS_E_PROTO); /* a change is not forwarded so */
    lone_ack(&l, 8, 1);
    assert_int_equal(lone_look(&l).commit, 0);
    assert_int_equal(lone_recv(&l, (struct bns_raft_msg){.type = BNS_RAFT_MSG_APPEND_RESP,
                                                         .from = 8,
                                                         .term = 7,
                                                         .reject = true}),
                     BNS_OK);
    assert_int_equal(lone_look(&l).term, 1);
    assert_int_equal(
        lone_recv(&l, (struct bns_raft_msg){.type = BNS_RAFT_MSG_HEARTBEAT, .from = 8, .term = 9}),
        BNS_OK);
    assert_true(lone_look(&l).leader == 8 && lone_look(&l).term == 9);
    lone_close(&l);
}

/* ---- boot ------------------------------------------------------------------------------------ */

static void a_restart_knows_what_was_committed(void **state)
{
    struct bns_raft_conf_entry c = {.conf = {.voters = {1, 2, 3, 4}, .voters_count = 4}};
    struct bns_raft_entry log[3] = {{.index = 1, .term = 1, .kind = BNS_RAFT_NOOP},
                                    {.index = 2, .term = 1, .kind = BNS_RAFT_CONF},
                                    {.index = 3, .term = 1, .kind = BNS_RAFT_CONF}};
    struct bns_raft_boot boot = {
        .term = 1, .snap.conf = three, .entries = log, .entries_count = 3, .commit = 2};
    struct bns_raft_config cfg = {.id = 1};
    struct bns_raft *r;
    (void)state;
    assert_int_equal(bns_raft_change_encode(bns_alloc_libc(), &c, &log[1].data), BNS_OK);
    c.conf = (struct bns_raft_conf){.voters = {2, 3, 4}, .voters_count = 3};
    c.changes[0] = (struct bns_raft_change){BNS_RAFT_REMOVE, 1};
    c.changes_count = 1;
    assert_int_equal(bns_raft_change_encode(bns_alloc_libc(), &c, &log[2].data), BNS_OK);
    for (uint64_t commit = 1; commit <= 3; commit++) {
        struct bns_raft_status st;
        boot.commit = commit;
        assert_int_equal(bns_raft_init(&r, &cfg, &boot, bns_alloc_libc(), 1), BNS_OK);
        bns_raft_status(r, &st);
        assert_int_equal(bns_raft_conf(r)->voters_count, commit == 2 ? 4 : 3);
        assert_int_equal(st.removed, commit == 3);
        assert_int_equal(st.voter, commit < 3);
        assert_int_equal(st.conf_pending, commit < 3);
        assert_int_equal(bns_raft_deadline(r) == UINT64_MAX, commit == 3); /* never campaigns */
        bns_raft_close(r);
    }
    log[2].data->bytes[0] ^= 0xff;
    assert_int_equal(bns_raft_init(&r, &cfg, &boot, bns_alloc_libc(), 1), BNS_E_CORRUPT);
    bns_rcbuf_put(log[1].data);
    bns_rcbuf_put(log[2].data);
}

/* ---- groups ---------------------------------------------------------------------------------- */

static void learners_never_count_and_never_campaign(void **state)
{
    struct group g;
    (void)state;
    open_with(&g, 3, observed);
    assert_int_equal(propose(&g, &g.n[0], 1), BNS_OK);
    settle(&g);
    advance(&g, 200);
    assert_int_equal(g.n[2].applied, 2);
    step(&g, &g.n[2], (struct bns_raft_in){.kind = BNS_RAFT_IN_CAMPAIGN});
    assert_int_equal(look(&g.n[2]).role, BNS_RAFT_FOLLOWER);
    assert_int_equal(look(&g.n[2]).leader, 1);
    assert_int_equal(transfer(&g, &g.n[0], 3), BNS_E_INVALID);
    g.n[1].down = true; /* one of two voters and the learner: no majority */
    assert_int_equal(propose(&g, &g.n[0], 1), BNS_OK);
    settle(&g);
    assert_int_equal(look(&g.n[0]).commit, 2);
    advance(&g, 3000);
    assert_true(look(&g.n[0]).role != BNS_RAFT_LEADER);
    assert_int_equal(look(&g.n[2]).role, BNS_RAFT_FOLLOWER); /* it sees that nobody leads, and */
    assert_int_equal(look(&g.n[2]).leader, 0);               /* waits */
    assert_true(bns_raft_deadline(g.n[2].raft) == UINT64_MAX);
    group_close(&g);
}

static void a_group_grows_from_one_and_loses_its_first_leader(void **state)
{
    struct group g;
    (void)state;
    open_with(&g, 4, alone);
    for (uint64_t id = 2; id <= 4; id++) {
        assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_ADD_LEARNER, id), BNS_OK);
        advance(&g, 500);
        assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_PROMOTE, id), BNS_OK);
        advance(&g, 500);
        assert_int_equal(bns_raft_conf(g.n[id - 1].raft)->voters_count, id);
        assert_int_equal(g.n[id - 1].applied, g.n[0].applied);
    }
    assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_REMOVE, 1), BNS_OK);
    settle(&g); /* no election timeout passes */
    advance(&g, 100);
    assert_true(look(&g.n[0]).removed && look(&g.n[0]).role == BNS_RAFT_FOLLOWER);
    assert_true(look(&g.n[1]).leader > 1);
    assert_int_equal(change1(&g, by_id(&g, look(&g.n[1]).leader), BNS_RAFT_REMOVE, 4), BNS_OK);
    advance(&g, 500);
    assert_true(look(&g.n[3]).removed); /* it was told */
    assert_false(look(&g.n[1]).removed || look(&g.n[2]).removed);
    group_close(&g);
}

static void a_removed_member_that_was_not_told_disturbs_nobody(void **state)
{
    struct group g;
    uint64_t term;
    (void)state;
    open_with(&g, 3, three);
    g.n[2].down = true;
    assert_int_equal(change1(&g, &g.n[0], BNS_RAFT_REMOVE, 3), BNS_OK);
    advance(&g, 6000);
    assert_false(bns_raft_talks_to(g.n[0].raft, 3));
    g.n[2].down = false;
    term = look(&g.n[0]).term;
    advance(&g, 10000);
    assert_false(look(&g.n[2]).removed);
    assert_true(look(&g.n[0]).role == BNS_RAFT_LEADER && look(&g.n[0]).term == term);
    group_close(&g);
}

static void a_leader_without_room_hands_over_to_who_has_it(void **state)
{
    struct bns_raft_in full = {.kind = BNS_RAFT_IN_ROOM};
    struct bns_raft_in room = {.kind = BNS_RAFT_IN_ROOM, .ok = true};
    struct group g;
    (void)state;
    open_with(&g, 3, three);
    step(&g, &g.n[1], full);
    advance(&g, 300); /* it is told in answers to heartbeats */
    assert_true(look(&g.n[0]).peers[1].no_room);
    step(&g, &g.n[0], full);
    advance(&g, 300);
    assert_int_equal(g.n[2].role, BNS_RAFT_LEADER);
    assert_false(look(&g.n[0]).leader_no_room);
    step(&g, &g.n[2], full);
    advance(&g, 5000); /* nobody has room: it stays */
    assert_int_equal(g.n[2].role, BNS_RAFT_LEADER);
    assert_true(look(&g.n[0]).leader_no_room && look(&g.n[0]).no_room);
    step(&g, &g.n[0], room);
    advance(&g, 1500);
    assert_int_equal(g.n[0].role, BNS_RAFT_LEADER);
    group_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_tells_the_result_the_changes_and_the_context),
        cmocka_unit_test(entries_that_make_no_sense_are_refused),
        cmocka_unit_test(too_large_a_context_is_refused),
        cmocka_unit_test(families_share_the_log),
        cmocka_unit_test(changes_that_cannot_be_are_refused),
        cmocka_unit_test(one_change_at_a_time),
        cmocka_unit_test(no_change_before_the_first_entry_of_the_term_is_committed),
        cmocka_unit_test(several_changes_are_joint_and_end_by_themselves),
        cmocka_unit_test(a_lagging_peer_is_brought_up_to_date_before_it_is_told),
        cmocka_unit_test(steady_reads_do_not_keep_a_transfer_from_its_end),
        cmocka_unit_test(steady_reads_do_not_keep_a_removed_member),
        cmocka_unit_test(who_is_told_campaigns_at_once_and_says_so),
        cmocka_unit_test(strangers_may_lead_and_ask_for_votes_but_not_answer),
        cmocka_unit_test(a_restart_knows_what_was_committed),
        cmocka_unit_test(learners_never_count_and_never_campaign),
        cmocka_unit_test(a_group_grows_from_one_and_loses_its_first_leader),
        cmocka_unit_test(a_removed_member_that_was_not_told_disturbs_nobody),
        cmocka_unit_test(a_leader_without_room_hands_over_to_who_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
