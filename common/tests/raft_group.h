/* raft_group.h - cores of one group joined by a queue that delivers at once, for tests. Disks are
 * durable at once unless a test holds them back. */
#ifndef BNS_TESTS_RAFT_GROUP_H
#define BNS_TESTS_RAFT_GROUP_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include "proto/raft.h"

#define MS 1000000ull
#define NODES_MAX 5
#define QUEUE_MAX 4096

struct packet {
    struct bns_raft_msg msg;
    struct bns_raft_entry entries[64];
};

struct node {
    struct bns_raft *raft;
    uint64_t id;
    uint64_t applied, applied_sum;
    uint64_t ok_cookie, ok_index, ok_count, fail_cookie, fail_count;
    uint64_t persists, held_seq;
    bool hold_disk, down;
    uint8_t last_kind; /* of the entry applied last */
    enum bns_raft_role role;
    uint64_t leader, term;
};

struct group {
    struct node n[NODES_MAX];
    size_t count;
    uint64_t now;
    struct packet *queue;
    size_t head, tail;
    uint64_t sent[16];
};

static inline void step(struct group *g, struct node *n, struct bns_raft_in in)
{
    int rv = bns_raft_step(n->raft, g->now, &in);
    assert_int_equal(rv, BNS_OK);
}

static inline void post(struct group *g, const struct bns_raft_msg *m)
{
    struct packet *p = &g->queue[g->tail++ % QUEUE_MAX];

    assert_true(g->tail - g->head < QUEUE_MAX);
    assert_true(m->entries_count <= 64);
    g->sent[m->type]++;
    p->msg = *m;
    for (size_t i = 0; i < m->entries_count; i++) {
        p->entries[i] = m->entries[i];
        if (p->entries[i].data != NULL)
            bns_rcbuf_get(p->entries[i].data);
    }
    p->msg.entries = p->entries;
}

static inline void drain(struct group *g, struct node *n);

static inline void honour(struct group *g, struct node *n, const struct bns_raft_out *o,
                          uint64_t *stored, uint64_t *applied)
{
    switch (o->kind) {
    case BNS_RAFT_OUT_PERSIST:
        n->persists++;
        *stored = o->seq;
        break;
    case BNS_RAFT_OUT_SEND:
        post(g, &o->msg);
        break;
    case BNS_RAFT_OUT_APPLY:
        for (size_t i = 0; i < o->entries_count; i++) {
            assert_true(o->entries[i].index == n->applied + 1);
            n->applied++;
            n->last_kind = o->entries[i].kind;
            n->applied_sum += o->entries[i].data == NULL ? 0 : o->entries[i].data->bytes[0];
        }
        *applied = n->applied;
        break;
    case BNS_RAFT_OUT_READ_OK:
        n->ok_cookie = o->cookie;
        n->ok_index = o->index;
        n->ok_count++;
        break;
    case BNS_RAFT_OUT_READ_FAIL:
        n->fail_cookie = o->cookie;
        n->fail_count++;
        break;
    case BNS_RAFT_OUT_ROLE:
        n->role = o->role;
        n->term = o->term;
        n->leader = o->leader;
        break;
    default:
        break;
    }
}

static inline void drain(struct group *g, struct node *n)
{
    struct bns_raft_out o;
    uint64_t stored;
    uint64_t applied;

    do {
        stored = applied = 0;
        while (bns_raft_next(n->raft, &o))
            honour(g, n, &o, &stored, &applied);
        if (stored != 0 && n->hold_disk)
            n->held_seq = stored;
        else if (stored != 0)
            step(g, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_STORED, .seq = stored});
        if (applied != 0)
            step(g, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_APPLIED, .index = applied});
    } while (stored != 0 || applied != 0);
}

static inline struct node *by_id(struct group *g, uint64_t id)
{
    return &g->n[id - 1];
}

/* Delivers until nothing is on its way. */
static inline void settle(struct group *g)
{
    while (g->head < g->tail) {
        struct packet *p = &g->queue[g->head++ % QUEUE_MAX];
        struct packet copy = *p;
        struct node *n = by_id(g, p->msg.to);
        copy.msg.entries = copy.entries;
        if (!n->down && !by_id(g, p->msg.from)->down) {
            step(g, n, (struct bns_raft_in){.kind = BNS_RAFT_IN_RECV, .msg = &copy.msg});
            drain(g, n);
        }
        for (size_t i = 0; i < copy.msg.entries_count; i++)
            bns_rcbuf_put(copy.entries[i].data);
    }
}

static inline void group_open(struct group *g, size_t count)
{
    struct bns_raft_boot boot = {0};

    memset(g, 0, sizeof *g);
    g->count = count;
    g->now = 1000 * MS;
    g->queue = test_malloc(QUEUE_MAX * sizeof *g->queue);
    boot.snap.conf.voters_count = (uint8_t)count;
    for (size_t i = 0; i < count; i++)
        boot.snap.conf.voters[i] = i + 1;
    for (size_t i = 0; i < count; i++) {
        struct bns_raft_config cfg = {.id = i + 1, .seed = 7 + i};
        g->n[i].id = i + 1;
        assert_int_equal(bns_raft_init(&g->n[i].raft, &cfg, &boot, bns_alloc_libc(), g->now),
                         BNS_OK);
    }
}

static inline void group_close(struct group *g)
{
    settle(g);
    for (size_t i = 0; i < g->count; i++)
        bns_raft_close(g->n[i].raft);
    test_free(g->queue);
}

static inline void advance(struct group *g, uint64_t ms)
{
    uint64_t end = g->now + ms * MS;

    for (;;) {
        struct node *due = NULL;
        uint64_t at = end;
        for (size_t i = 0; i < g->count; i++) {
            uint64_t d = bns_raft_deadline(g->n[i].raft);
            if (!g->n[i].down && d <= at) {
                at = d;
                due = &g->n[i];
            }
        }
        if (due == NULL)
            break;
        g->now = at > g->now ? at : g->now;
        step(g, due, (struct bns_raft_in){.kind = BNS_RAFT_IN_TIMER});
        drain(g, due);
        settle(g);
    }
    g->now = end;
}

static inline int propose(struct group *g, struct node *n, uint8_t byte)
{
    struct bns_rcbuf *b = bns_rcbuf_copy(bns_alloc_libc(), bns_slice(&byte, 1));
    struct bns_raft_in in = {.kind = BNS_RAFT_IN_PROPOSE, .data = &b, .data_count = 1};
    int rv = bns_raft_step(n->raft, g->now, &in);

    drain(g, n);
    bns_rcbuf_put(b);
    return rv;
}

#endif
