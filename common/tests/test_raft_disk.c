/* Goal:   a core whose disk takes nothing any more keeps its memory within bounds.
 * Method: cores of one group (raft_group.h), one of them with a disk that holds everything back.
 */
#include "raft_group.h"

/* A quorum commits without the leader's disk; what the leader keeps in memory has a bound. */
static void a_leader_whose_disk_hangs_stops_taking_proposals(void **state)
{
    struct bns_rcbuf *big = bns_rcbuf_new(bns_alloc_libc(), 1 << 20);
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = &big, .data_count = 1};
    struct bns_raft_status st;
    struct group g;
    (void)state;
    group_open(&g, 3);
    advance(&g, 1);
    g.n[0].hold_disk = true;
    for (int i = 0; i < 200; i++, settle(&g)) {
        step(&g, &g.n[1], in);
        drain(&g, &g.n[1]);
    }
    bns_raft_status(g.n[0].raft, &st);
    assert_true(st.commit > 30 && st.log_bytes <= 66u << 20);
    assert_int_equal(bns_raft_step(g.n[0].raft, g.now, &in), BNS_E_BUSY);
    g.n[0].hold_disk = false;
    step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = g.n[0].held_seq});
    drain(&g, &g.n[0]);
    assert_int_equal(bns_raft_step(g.n[0].raft, g.now, &in), BNS_OK);
    bns_rcbuf_put(big);
    group_close(&g);
}

/* Wins every pre-vote; the disk takes nothing: one new term waits for it, not one a second. */
static void a_candidate_whose_disk_hangs_stays_in_its_term(void **state)
{
    struct group g;
    (void)state;
    group_open(&g, 3);
    for (int i = 0; i < 100; i++) {
        struct bns_raft_out o;
        g.now = bns_raft_deadline(g.n[0].raft);
        step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_TIMER});
        while (bns_raft_next(g.n[0].raft, &o)) {
            struct bns_raft_msg yes = {
                .type = BNS_RAFT_MSG_PREVOTE_RESP, .from = o.msg.to, .to = 1, .term = o.msg.term};
            g.n[0].persists += o.kind == BNS_RAFT_OUT_PERSIST;
            if (o.kind == BNS_RAFT_OUT_SEND && o.msg.type == BNS_RAFT_MSG_PREVOTE)
                step(&g, &g.n[0], (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = &yes});
        }
    }
    assert_int_equal(g.n[0].persists, 1);
    group_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leader_whose_disk_hangs_stops_taking_proposals),
        cmocka_unit_test(a_candidate_whose_disk_hangs_stays_in_its_term),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
