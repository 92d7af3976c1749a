/* group_world.h - one coordinator and its members on virtual time: loss, delay, pauses, crashes.
 *
 * A member is a little client: it joins, computes assignments when it leads, heartbeats, commits
 * ever larger offsets of what it owns, leaves, stops, comes back. What it sends on one connection
 * arrives in order; a member that waits too long takes another connection, and what is on the old
 * one may still arrive, much later. The coordinator's writes become durable in order, after a
 * while; a crash keeps some of those that were under way.
 *
 * Checked after every step:
 *   - in one generation, a partition is given to one member
 *   - nobody joins a generation that is older than one in which somebody was given an assignment
 *   - what is told as committed never falls below what was acknowledged
 *   - a request is answered once
 * and at the end, when faults have stopped: every member is in, every partition is owned, in
 * bounded time.
 */
#ifndef KAFKA_TESTS_GROUP_WORLD_H
#define KAFKA_TESTS_GROUP_WORLD_H

#include <stdio.h>
#include <stdlib.h>

#include "base/heap.h"
#include "base/hmap.h"
#include "base/prng.h"
#include "group/group.h"

#define W_MEMBERS_MAX 200
#define W_PARTS 16
#define W_GENERATIONS 8192
#define W_RECORDS 65536
#define W_FAULTS_MS 90000
#define W_HEAL_MS 120000
#define W_RETENTION_MS 40000

enum w_kind { W_JOIN, W_SYNC, W_BEAT, W_COMMIT, W_LEAVE };
enum w_state { W_OUT, W_JOINING, W_SYNCING, W_IN };

struct w_given {
    char id[64];
    uint32_t owned;
};

struct w_msg {
    struct bns_heap_node node; /* on its way */
    struct bns_list here;      /* at the coordinator */
    bool answer, lost;
    enum w_kind kind;
    uint32_t member, conn, life;
    char id[64];
    int32_t generation;
    int part;
    int64_t offset;
    int16_t error;
    bool leads;
    struct w_given *given; /* the leader's answer and its sync: who gets what */
    uint32_t given_count;
    uint32_t metadata;
    uint32_t owned; /* bits */
};

struct w_member {
    enum w_state state;
    bool fixed; /* a static member */
    char id[64];
    uint32_t conn, life, metadata;
    uint64_t last_arrival, act_at, give_up_at;
    bool waits; /* for an answer */
    int32_t generation;
    uint32_t owned;
    int64_t at[W_PARTS];
};

struct w_record {
    struct bns_slice key, value;
};

struct w_options {
    uint64_t seed;
    uint32_t mutant;
    uint32_t members; /* 0: by the seed */
    bool rolling;     /* no loss: members restart one after the other, the coordinator once */
    bool verbose;
};

struct world {
    struct w_options opt;
    struct bns_prng prng;
    struct kafka_groups *g;
    struct kafka_groups_cfg cfg;
    uint64_t now, steps;
    struct bns_heap wire;
    struct bns_list here;
    struct bns_list writes;
    size_t writes_count;
    uint64_t write_at, crash_at, expire_at, rolling_at;
    uint32_t life, ids, members_count, rolled;
    struct w_member members[W_MEMBERS_MAX];
    uint64_t owners[W_GENERATIONS][W_PARTS];
    int32_t generation_given;
    int64_t acked[W_PARTS];
    struct w_record *records;
    size_t records_count;
    double loss, pause;
    uint64_t delay_ms, write_ms;
    uint64_t converged_at;
    char bad[160];
};

static inline void w_msg_free(struct w_msg *m)
{
    free(m->given);
    free(m);
}

static inline void w_bad(struct world *w, const char *text, int64_t a, int64_t b)
{
    if (w->bad[0] == '\0')
        (void)snprintf(w->bad, sizeof w->bad, "at %llu ms: %s (%lld, %lld)",
                       (unsigned long long)w->now, text, (long long)a, (long long)b);
}

static inline bool w_healed(const struct world *w)
{
    return w->now >= W_FAULTS_MS;
}

static inline bool w_chance(struct world *w, double p)
{
    return bns_prng_chance(&w->prng, p);
}

/* ---- the wire
 * ----------------------------------------------------------------------------------- */

static inline void w_send(struct world *w, struct w_msg *m)
{
    struct w_member *c = &w->members[m->member];
    uint64_t delay = bns_prng_range(&w->prng, 1, w_healed(w) ? 5 : w->delay_ms);
    int rv;

    if (!w_healed(w) && w_chance(w, w->loss / 4))
        delay += bns_prng_range(&w->prng, 1000, 20000); /* it lies in some buffer */
    m->lost = !w_healed(w) && w_chance(w, w->loss);
    if (!m->answer && c->last_arrival > w->now + delay)
        delay = c->last_arrival - w->now;
    if (!m->answer)
        c->last_arrival = w->now + delay;
    rv = bns_heap_insert(&w->wire, &m->node, w->now + delay);
    BNS_ASSERT(rv == BNS_OK);
}

static inline struct w_msg *w_request(struct world *w, uint32_t i, enum w_kind kind)
{
    struct w_member *c = &w->members[i];
    struct w_msg *m = calloc(1, sizeof *m);

    BNS_ASSERT(m != NULL);
    bns_list_init(&m->here);
    m->kind = kind;
    m->member = i;
    m->conn = c->conn;
    m->life = c->life;
    m->generation = c->generation;
    m->metadata = c->metadata;
    memcpy(m->id, c->id, sizeof m->id);
    return m;
}

static inline void w_ask(struct world *w, struct w_msg *m)
{
    struct w_member *c = &w->members[m->member];

    c->waits = true;
    c->give_up_at = w->now + (m->kind == W_JOIN ? 25000 : 4000);
    w_send(w, m);
}

static inline void w_new_conn(struct w_member *c)
{
    c->conn++;
    c->last_arrival = 0;
    c->waits = false;
}

/* ---- members
 * ------------------------------------------------------------------------------------ */

static inline void w_again(struct world *w, uint32_t i, bool forget, uint64_t in_ms)
{
    struct w_member *c = &w->members[i];

    c->state = W_OUT;
    c->owned = 0;
    c->waits = false;
    if (forget)
        c->id[0] = '\0';
    c->act_at = w->now + in_ms;
}

static inline void w_rejoin_other_conn(struct world *w, uint32_t i)
{
    w_new_conn(&w->members[i]);
    w->members[i].metadata++; /* a new round, so that no older commit can count beside newer ones */
    w_again(w, i, false, 1 + bns_prng_below(&w->prng, 50));
}

/* The process ends, and another begins. */
static inline void w_restart(struct world *w, uint32_t i, uint64_t in_ms)
{
    struct w_member *c = &w->members[i];

    w_new_conn(c);
    c->life++;
    w_again(w, i, true, in_ms);
}

static inline void w_in(struct world *w, uint32_t i)
{
    struct w_member *c = &w->members[i];
    struct w_msg *m;
    int part = (int)bns_prng_below(&w->prng, W_PARTS);

    c->act_at = w->now + 200 + bns_prng_below(&w->prng, 800);
    if (!w_healed(w) && w_chance(w, w->pause)) {
        uint64_t kind = bns_prng_below(&w->prng, 5);
        if (kind == 0) /* longer than its session */
            c->act_at = w->now + 12000;
        else if (kind == 1)
            w_restart(w, i, 100);
        else if (kind == 2) {
            w_ask(w, w_request(w, i, W_LEAVE));
        } else {
            /* a commit is on its way, and nobody waits for it */
            if ((c->owned & 1u << part) != 0 && part != 0) {
                m = w_request(w, i, W_COMMIT);
                m->part = part;
                m->offset = ++c->at[part];
                w_send(w, m);
            }
            w_rejoin_other_conn(w, i);
        }
        return;
    }
    if ((c->owned & 1u << part) != 0 && (part != 0 || c->at[0] < 1)) {
        m = w_request(w, i, W_COMMIT);
        m->part = part;
        c->at[part] += (int64_t)bns_prng_range(&w->prng, 1, 5);
        m->offset = c->at[part];
        w_ask(w, m);
        return;
    }
    w_ask(w, w_request(w, i, W_BEAT));
}

static inline void w_act(struct world *w, uint32_t i)
{
    struct w_member *c = &w->members[i];

    if (c->waits) { /* for too long */
        w_rejoin_other_conn(w, i);
    } else if (c->state == W_IN) {
        w_in(w, i);
    } else {
        struct w_msg *m = w_request(w, i, W_JOIN);
        c->state = W_JOINING;
        w_ask(w, m);
    }
}

static inline void w_take_assignment(struct world *w, struct w_member *c, uint32_t owned)
{
    c->state = W_IN;
    c->owned = owned;
    c->act_at = w->now + 1 + bns_prng_below(&w->prng, 500);
    for (int p = 0; p < W_PARTS; p++) {
        char topic[2] = {'t', '\0'};
        const struct kafka_offset *o =
            kafka_groups_offset(w->g, BNS_LIT("g"), bns_slice_str(topic), p);
        c->at[p] = o == NULL ? 0 : o->offset;
    }
}

/* What the leader gives: one partition after the other, from somewhere on. */
static inline void w_lead(struct world *w, struct w_msg *m)
{
    uint64_t from = bns_prng_below(&w->prng, m->given_count);

    for (uint32_t p = 0; p < W_PARTS; p++)
        m->given[(from + p) % m->given_count].owned |= 1u << p;
}

static inline void w_joined_answer(struct world *w, struct w_msg *m)
{
    struct w_member *c = &w->members[m->member];
    struct w_msg *s;

    memcpy(c->id, m->id, sizeof c->id);
    c->generation = m->generation;
    c->state = W_SYNCING;
    s = w_request(w, m->member, W_SYNC);
    s->leads = m->leads;
    if (m->leads) {
        s->given = m->given;
        s->given_count = m->given_count;
        m->given = NULL;
        w_lead(w, s);
    }
    w_ask(w, s);
}

static inline void w_answered(struct world *w, struct w_msg *m)
{
    struct w_member *c = &w->members[m->member];

    if (m->conn != c->conn || m->life != c->life || !c->waits)
        return;
    c->waits = false;
    if (m->error == KAFKA_GROUP_E_UNKNOWN_MEMBER || m->error == KAFKA_GROUP_E_FENCED) {
        w_again(w, m->member, true, 20);
    } else if (m->kind == W_LEAVE) {
        w_restart(w, m->member, 100);
    } else if (m->kind == W_JOIN && m->error == KAFKA_GROUP_E_ID_REQUIRED) {
        memcpy(c->id, m->id, sizeof c->id);
        w_again(w, m->member, false, 1);
    } else if (m->error != 0) {
        w_again(w, m->member, false, m->error == KAFKA_GROUP_E_REBALANCE ? 5 : 100);
    } else if (m->kind == W_JOIN) {
        w_joined_answer(w, m);
    } else if (m->kind == W_SYNC) {
        w_take_assignment(w, c, m->owned);
    }
}

/* ---- the coordinator's operations
 * --------------------------------------------------------------- */

static inline struct w_msg *w_reply(struct world *w, void *token, int16_t error)
{
    struct w_msg *m = token;

    if (m->answer)
        w_bad(w, "a request is answered twice", m->kind, 0);
    bns_list_del(&m->here);
    m->answer = true;
    m->error = error;
    return m;
}

static inline void w_joined(void *arg, void *token, const struct kafka_join_answer *a)
{
    struct world *w = arg;
    struct w_msg *m = w_reply(w, token, a->error);

    m->leads = a->members_count > 0 && !a->skip_assignment;
    if (a->error == 0 || a->error == KAFKA_GROUP_E_ID_REQUIRED) {
        m->generation = a->generation;
        (void)snprintf(m->id, sizeof m->id, "%.*s", (int)a->member_id.len,
                       (const char *)a->member_id.ptr);
    }
    if (m->leads) {
        m->given = calloc(a->members_count, sizeof *m->given);
        BNS_ASSERT(m->given != NULL);
        m->given_count = (uint32_t)a->members_count;
    }
    for (uint32_t i = 0; i < m->given_count; i++)
        (void)snprintf(m->given[i].id, sizeof m->given[i].id, "%.*s", (int)a->members[i].id.len,
                       (const char *)a->members[i].id.ptr);
    if (a->error == 0 && a->generation < w->generation_given)
        w_bad(w, "a generation is older than one that was given out", a->generation,
              w->generation_given);
    w_send(w, m);
}

static inline void w_synced(void *arg, void *token, const struct kafka_sync_answer *a)
{
    struct world *w = arg;
    struct w_msg *m = w_reply(w, token, a->error);
    const struct w_member *c = &w->members[m->member];
    uint64_t who = c->fixed ? m->member + 1 : bns_hash(1, m->id, strlen(m->id)) | 1u << 31;

    m->owned = 0;
    if (a->error == 0 && a->assignment.len == sizeof m->owned)
        memcpy(&m->owned, a->assignment.ptr, sizeof m->owned);
    BNS_ASSERT(m->generation < W_GENERATIONS);
    for (uint32_t p = 0; p < W_PARTS && a->error == 0; p++) {
        uint64_t *owner = &w->owners[m->generation][p];
        if ((m->owned & 1u << p) == 0)
            continue;
        if (*owner != 0 && *owner != who)
            w_bad(w, "two owners of a partition in one generation", p, m->generation);
        *owner = who;
    }
    if (a->error == 0 && m->generation > w->generation_given)
        w->generation_given = m->generation;
    w_send(w, m);
}

static inline void w_written(void *arg, void *token, int16_t error)
{
    struct world *w = arg;
    struct w_msg *m = w_reply(w, token, error);

    if (error == 0 && m->offset > w->acked[m->part])
        w->acked[m->part] = m->offset;
    w_send(w, m);
}

static inline void w_persist(void *arg, struct kafka_group_write *kw)
{
    struct world *w = arg;

    if (bns_list_empty(&w->writes))
        w->write_at = w->now + bns_prng_range(&w->prng, 1, w->write_ms);
    bns_list_push(&w->writes, &kw->node);
    w->writes_count++;
}

static inline void w_uuid(void *arg, char dst[KAFKA_GROUP_UUID_TEXT])
{
    struct world *w = arg;
    char text[KAFKA_GROUP_UUID_TEXT + 1];

    (void)snprintf(text, sizeof text, "%036u", ++w->ids);
    memcpy(dst, text, KAFKA_GROUP_UUID_TEXT);
}

static inline void w_start(struct world *w)
{
    struct kafka_group_ops ops = {.joined = w_joined,
                                  .synced = w_synced,
                                  .persist = w_persist,
                                  .written = w_written,
                                  .uuid = w_uuid,
                                  .arg = w};
    int rv = kafka_groups_new(bns_alloc_libc(), &w->cfg, &ops, &w->g);

    BNS_ASSERT(rv == BNS_OK);
    w->life++;
    kafka_groups_now(w->g, w->now, (int64_t)w->now);
    for (size_t i = 0; i < w->records_count; i++) {
        rv = kafka_groups_replay(w->g, w->records[i].key, w->records[i].value);
        BNS_ASSERT(rv == BNS_OK);
    }
    kafka_groups_loaded(w->g);
}

static inline struct bns_slice w_keep(struct bns_slice s)
{
    uint8_t *p = s.ptr == NULL ? NULL : malloc(s.len + 1);

    if (p != NULL)
        memcpy(p, s.ptr, s.len);
    return bns_slice(p, s.len);
}

static inline void w_record(struct world *w, const struct kafka_group_write *kw)
{
    for (size_t i = 0; i < kw->count; i++) {
        BNS_ASSERT(w->records_count < W_RECORDS);
        w->records[w->records_count++] =
            (struct w_record){w_keep(kw->records[i].key), w_keep(kw->records[i].value)};
    }
}

static inline void w_durable(struct world *w)
{
    struct kafka_group_write *kw =
        BNS_CONTAINER(bns_list_pop(&w->writes), struct kafka_group_write, node);

    w_record(w, kw);
    w->writes_count--;
    w->write_at = w->now + bns_prng_range(&w->prng, 1, w->write_ms);
    kafka_groups_persisted(w->g, kw, 0);
}

static inline void w_crash(struct world *w)
{
    uint64_t kept = bns_prng_below(&w->prng, w->writes_count + 1);
    struct bns_list *n;

    for (uint64_t i = 0; (n = bns_list_pop(&w->writes)) != NULL; i++)
        if (i < kept)
            w_record(w, BNS_CONTAINER(n, struct kafka_group_write, node));
    w->writes_count = 0;
    kafka_groups_free(w->g);
    while ((n = bns_list_pop(&w->here)) != NULL)
        w_msg_free(BNS_CONTAINER(n, struct w_msg, here));
    /* Connections break: what is on them is gone, and everybody knows. */
    for (struct bns_heap_node *h; (h = bns_heap_min(&w->wire)) != NULL;) {
        bns_heap_del(&w->wire, h);
        w_msg_free(BNS_CONTAINER(h, struct w_msg, node));
    }
    for (uint32_t i = 0; i < w->members_count; i++) {
        struct w_member *c = &w->members[i];
        if (c->waits || c->state != W_OUT)
            w_rejoin_other_conn(w, i);
    }
    w_start(w);
}

/* ---- requests arrive
 * ----------------------------------------------------------------------------- */

static inline void w_take_join(struct world *w, struct w_msg *m)
{
    const struct w_member *c = &w->members[m->member];
    char instance[16];
    struct kafka_group_protocol p = {BNS_LIT("range"), bns_slice(&m->metadata, sizeof m->metadata)};
    struct kafka_join j = {.group = BNS_LIT("g"),
                           .member_id = bns_slice_str(m->id),
                           .client_id = BNS_LIT("c"),
                           .client_host = BNS_LIT("h"),
                           .protocol_type = BNS_LIT("consumer"),
                           .session_ms = 8000,
                           .rebalance_ms = 15000,
                           .protocols = &p,
                           .protocols_count = 1,
                           .id_required = m->member % 2 == 0,
                           .can_skip = m->member % 4 < 2};

    (void)snprintf(instance, sizeof instance, "i%u", m->member);
    if (c->fixed)
        j.instance = bns_slice_str(instance);
    kafka_groups_join(w->g, &j, m);
}

static inline void w_take_sync(struct world *w, struct w_msg *m)
{
    static struct kafka_assignment a[2 * W_MEMBERS_MAX];
    struct kafka_sync s = {.group = BNS_LIT("g"),
                           .member_id = bns_slice_str(m->id),
                           .generation = m->generation,
                           .assignments = a};

    BNS_ASSERT(m->given_count <= 2 * W_MEMBERS_MAX);
    for (uint32_t i = 0; i < m->given_count; i++)
        a[s.assignments_count++] = (struct kafka_assignment){
            bns_slice_str(m->given[i].id), bns_slice(&m->given[i].owned, sizeof m->given[i].owned)};
    kafka_groups_sync(w->g, &s, m);
}

static inline void w_take_commit(struct world *w, struct w_msg *m)
{
    struct kafka_commit_part p = {
        .topic = BNS_LIT("t"), .partition = m->part, .offset = {.offset = m->offset}};
    struct kafka_commit c = {.who = {BNS_LIT("g"), bns_slice_str(m->id), {NULL, 0}, m->generation},
                             .retention_ms = -1,
                             .parts = &p,
                             .parts_count = 1};
    int16_t e = kafka_groups_commit(w->g, &c, m);

    if (e != 0)
        w_send(w, w_reply(w, m, e));
}

static inline void w_arrives(struct world *w, struct w_msg *m)
{
    struct kafka_group_who who = {BNS_LIT("g"), bns_slice_str(m->id), {NULL, 0}, m->generation};
    struct kafka_leaver l = {bns_slice_str(m->id), {NULL, 0}, 0};
    int16_t e;

    bns_list_push(&w->here, &m->here);
    switch (m->kind) {
    case W_JOIN:
        w_take_join(w, m);
        break;
    case W_SYNC:
        w_take_sync(w, m);
        break;
    case W_COMMIT:
        w_take_commit(w, m);
        break;
    case W_BEAT:
        e = kafka_groups_heartbeat(w->g, &who);
        w_send(w, w_reply(w, m, e));
        break;
    case W_LEAVE:
        e = kafka_groups_leave(w->g, BNS_LIT("g"), &l, 1);
        w_send(w, w_reply(w, m, e));
        break;
    }
}

/* ---- the world
 * ----------------------------------------------------------------------------------- */

static inline void w_check(struct world *w)
{
    for (int p = 0; p < W_PARTS; p++) {
        const struct kafka_offset *o =
            w->acked[p] == 0 ? NULL : kafka_groups_offset(w->g, BNS_LIT("g"), BNS_LIT("t"), p);
        if (w->acked[p] > 0 && (o == NULL || o->offset < w->acked[p]))
            w_bad(w, "an acknowledged offset went back", o == NULL ? -1 : o->offset, w->acked[p]);
    }
}

static inline bool w_converged(const struct world *w)
{
    struct kafka_group_view v;
    uint32_t owned = 0;

    if (!kafka_groups_describe(w->g, BNS_LIT("g"), &v, NULL, NULL) ||
        v.state != KAFKA_GROUP_STABLE || v.members != w->members_count)
        return false;
    for (uint32_t i = 0; i < w->members_count; i++) {
        if (w->members[i].state != W_IN || w->members[i].generation != v.generation)
            return false;
        owned |= w->members[i].owned;
    }
    return owned == (1u << W_PARTS) - 1;
}

static inline uint64_t w_next(const struct world *w, uint32_t *member)
{
    const struct bns_heap_node *h = bns_heap_min(&w->wire);
    uint64_t at = kafka_groups_deadline(w->g);

    if (h != NULL && h->key < at)
        at = h->key;
    if (!bns_list_empty(&w->writes) && w->write_at < at)
        at = w->write_at;
    at = w->crash_at < at ? w->crash_at : at;
    at = w->expire_at < at ? w->expire_at : at;
    at = w->rolling_at < at ? w->rolling_at : at;
    *member = UINT32_MAX;
    for (uint32_t i = 0; i < w->members_count; i++) {
        const struct w_member *c = &w->members[i];
        uint64_t t = c->waits ? c->give_up_at : c->act_at;
        if (t < at) {
            at = t;
            *member = i;
        }
    }
    return at;
}

static inline void w_roll(struct world *w)
{
    if (w->rolled == w->members_count / 2)
        w_crash(w);
    w_restart(w, w->rolled++, 50);
    w->rolling_at = w->rolled == w->members_count ? UINT64_MAX : w->now + 300;
}

static inline void w_deliver(struct world *w, struct bns_heap_node *h)
{
    struct w_msg *m = BNS_CONTAINER(h, struct w_msg, node);

    bns_heap_del(&w->wire, h);
    if (!m->lost && !m->answer) {
        w_arrives(w, m);
        return;
    }
    if (!m->lost)
        w_answered(w, m);
    w_msg_free(m);
}

static inline void w_step(struct world *w)
{
    uint32_t member;
    uint64_t at = w_next(w, &member);
    struct bns_heap_node *h = bns_heap_min(&w->wire);

    w->steps++;
    w->now = at > w->now ? at : w->now;
    kafka_groups_now(w->g, w->now, (int64_t)w->now);
    if (member != UINT32_MAX) {
        w_act(w, member);
    } else if (w->rolling_at <= w->now) {
        w_roll(w);
    } else if (w->crash_at <= w->now) {
        w->crash_at = w_healed(w) ? UINT64_MAX : w->now + bns_prng_range(&w->prng, 5000, 40000);
        if (!w_healed(w))
            w_crash(w);
    } else if (w->expire_at <= w->now) {
        w->expire_at = w->now + 5000;
        (void)kafka_groups_expire(w->g, 4);
    } else if (!bns_list_empty(&w->writes) && w->write_at <= w->now) {
        w_durable(w);
    } else if (h != NULL && h->key <= w->now) {
        w_deliver(w, h);
    } else {
        kafka_groups_tick(w->g);
    }
    w_check(w);
}

static inline void w_free(struct world *w)
{
    struct bns_list *n;

    kafka_groups_free(w->g);
    while ((n = bns_list_pop(&w->here)) != NULL)
        w_msg_free(BNS_CONTAINER(n, struct w_msg, here));
    for (struct bns_heap_node *h; (h = bns_heap_min(&w->wire)) != NULL;) {
        bns_heap_del(&w->wire, h);
        w_msg_free(BNS_CONTAINER(h, struct w_msg, node));
    }
    bns_heap_free(&w->wire);
    for (size_t i = 0; i < w->records_count; i++) {
        free((void *)(uintptr_t)w->records[i].key.ptr);
        free((void *)(uintptr_t)w->records[i].value.ptr);
    }
    free(w->records);
    free(w);
}

struct w_result {
    char bad[160];
    uint64_t converged_ms; /* after the faults ended */
    uint64_t steps;
    int32_t generations;
};

static inline struct world *w_new(const struct w_options *opt)
{
    struct world *w = calloc(1, sizeof *w);

    BNS_ASSERT(w != NULL);
    w->records = calloc(W_RECORDS, sizeof *w->records);
    BNS_ASSERT(w->records != NULL);
    w->opt = *opt;
    bns_prng_seed(&w->prng, opt->seed);
    bns_heap_init(&w->wire, bns_alloc_libc());
    bns_list_init(&w->here);
    bns_list_init(&w->writes);
    kafka_groups_cfg_default(&w->cfg);
    w->cfg.mutant = opt->mutant;
    w->cfg.offsets_retention_ms = W_RETENTION_MS;
    w->cfg.initial_delay_ms = (int32_t)bns_prng_below(&w->prng, 3) * 1000;
    w->members_count = opt->members != 0 ? opt->members : 2 + (uint32_t)bns_prng_below(&w->prng, 9);
    w->loss = opt->rolling ? 0 : 0.02 * bns_prng_double(&w->prng);
    w->pause = opt->rolling ? 0 : 0.08 * bns_prng_double(&w->prng);
    w->delay_ms = bns_prng_range(&w->prng, 2, 200);
    w->write_ms = bns_prng_range(&w->prng, 1, 100);
    w->crash_at = opt->rolling ? UINT64_MAX : bns_prng_range(&w->prng, 5000, 40000);
    w->rolling_at = opt->rolling ? 20000 : UINT64_MAX;
    w->expire_at = 5000;
    for (uint32_t i = 0; i < w->members_count; i++) {
        w->members[i].fixed = w_chance(w, 0.3);
        w->members[i].act_at = bns_prng_below(&w->prng, 3000);
    }
    w_start(w);
    return w;
}

/* True: nothing bad was seen. */
static inline bool w_run(const struct w_options *opt, struct w_result *out)
{
    struct world *w = w_new(opt);
    bool done = false;

    while (w->bad[0] == '\0' && !done && w->now < W_FAULTS_MS + W_HEAL_MS) {
        w_step(w);
        done = w_healed(w) && w_converged(w);
    }
    if (w->bad[0] == '\0' && !done)
        w_bad(w, "the group did not come together", (int64_t)w->members_count, 0);
    *out = (struct w_result){.converged_ms = done ? w->now - W_FAULTS_MS : 0,
                             .steps = w->steps,
                             .generations = w->generation_given};
    memcpy(out->bad, w->bad, sizeof out->bad);
    w_free(w);
    return out->bad[0] == '\0';
}

#endif
