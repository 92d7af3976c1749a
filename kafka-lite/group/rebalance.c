/* rebalance.c - the states of a group, and everything that time does to it.
 *
 * Preparing ends when every member has joined again and nobody has been given an id who has not
 * come back with it, or after the longest rebalance timeout of the members: who is missing then is
 * out, but for static members. An empty group's first round waits a little for others (KIP-134),
 * again and again while somebody new comes, up to the rebalance timeout. Completing ends when the
 * leader's assignment is durable; whoever has not synced one rebalance timeout after the joining
 * is out.
 *
 * One timer a group serves all three, as they exclude each other. A member's session runs while it
 * is not parked here; one that joins for the first time has `join_ms` in all.
 *
 * Invariants: Preparing ends, whatever members do; parked requests are answered when their state
 * ends; the generation grows with every round.
 */
#include "group/group_int.h"

#define TICK_MAX 64
#define RETRY_MS 1000u /* no memory for the next round */

const char *kafka_group_state_name(enum kafka_group_state s)
{
    static const char *const names[] = {"Empty", "PreparingRebalance", "CompletingRebalance",
                                        "Stable", "Dead"};
    return names[s];
}

void kafka_group_enter_state(struct group *r, enum kafka_group_state s)
{
    r->state = s;
    r->state_ms = r->owner->wall_ms;
}

void kafka_session_start(struct member *m)
{
    struct kafka_groups *g = m->group->owner;
    int32_t ms = m->is_new || m->session_ms < 0 ? g->cfg.join_ms : m->session_ms;

    kafka_timer_set(g, &m->timer, g->mono_ms + (uint64_t)ms);
}

static uint64_t rebalance_ms(const struct group *r)
{
    int32_t most = 0;

    BNS_LIST_EACH(n, &r->members)
    {
        const struct member *m = BNS_CONTAINER(n, struct member, node);
        int32_t ms = m->rebalance_ms < 0 ? m->session_ms : m->rebalance_ms;
        if (ms > most)
            most = ms;
    }
    return (uint64_t)most;
}

static void timer_stop(struct group *r)
{
    r->timer_sync = false;
    r->initial = false;
    kafka_timer_set(r->owner, &r->timer, UINT64_MAX);
}

static void timer_in(struct group *r, uint64_t ms)
{
    kafka_timer_set(r->owner, &r->timer, r->owner->mono_ms + ms);
}

/* ---- parked requests ---------------------------------------------------------------------------
 * */

void kafka_join_refuse(struct kafka_groups *g, void *token, int16_t error, struct bns_slice id)
{
    struct kafka_join_answer a = {
        .error = error,
        .generation = -1,
        .leader = BNS_LIT(""),
        .member_id = id.ptr == NULL ? BNS_LIT("") : id,
    };

    g->ops.joined(g->ops.arg, token, &a);
}

static void join_unpark(struct member *m)
{
    BNS_ASSERT(m->join_parked);
    m->join_parked = false;
    m->join_seq = 0;
    m->group->parked_count--;
}

void kafka_join_end(struct member *m, int16_t error, struct bns_slice id)
{
    if (!m->join_parked)
        return;
    join_unpark(m);
    kafka_join_refuse(m->group->owner, m->join_token, error, id);
}

void kafka_join_park(struct member *m, void *token)
{
    kafka_join_end(m, KAFKA_GROUP_E_REBALANCE, m->id);
    m->join_parked = true;
    m->join_token = token;
    m->join_seq = ++m->group->owner->seq;
    m->group->parked_count++;
}

/* Everybody's metadata for the leader. False: no memory. */
static bool tell_members(struct group *r)
{
    struct kafka_groups *g = r->owner;
    size_t i = 0;

    if (g->told_cap < r->members_count) {
        size_t cap = r->members_count * 2, bytes;
        void *p;
        if (__builtin_mul_overflow(cap, sizeof *g->told, &bytes))
            return false;
        p = bns_resize(g->alloc, g->told, bytes);
        if (p == NULL)
            return false;
        g->told = p;
        g->told_cap = cap;
    }
    BNS_LIST_EACH(n, &r->members)
    {
        const struct member *m = BNS_CONTAINER(n, struct member, node);
        g->told[i++] =
            (struct kafka_join_member){m->id, m->instance, kafka_member_metadata(m, r->protocol)};
    }
    return true;
}

void kafka_joined_now(struct member *m, bool leader_list, struct bns_slice leader, bool skip)
{
    struct group *r = m->group;
    struct kafka_groups *g = r->owner;
    struct kafka_join_answer a = {
        .generation = r->generation,
        .protocol_type = r->protocol_type,
        .protocol = r->protocol,
        .leader = leader,
        .member_id = m->id,
        .skip_assignment = skip,
    };

    if (leader_list && !tell_members(r)) {
        kafka_join_end(m, KAFKA_GROUP_E_NOT_AVAILABLE, m->id);
        return;
    }
    if (leader_list) {
        a.members = g->told;
        a.members_count = r->members_count;
    }
    join_unpark(m);
    g->ops.joined(g->ops.arg, m->join_token, &a);
}

void kafka_sync_end(struct member *m, int16_t error)
{
    struct group *r = m->group;
    struct kafka_groups *g = r->owner;
    struct kafka_sync_answer a = {.error = error};

    if (!m->sync_parked)
        return;
    m->sync_parked = false;
    if (error == KAFKA_GROUP_OK) {
        a.protocol_type = r->protocol_type;
        a.protocol = r->protocol;
        a.assignment = m->assignment;
    }
    g->ops.synced(g->ops.arg, m->sync_token, &a);
    kafka_session_start(m);
}

/* ---- joining -----------------------------------------------------------------------------------
 * */

bool kafka_group_all_joined(const struct group *r)
{
    return r->members_count == r->parked_count && r->joining_count == 0;
}

void kafka_group_prepare(struct group *r)
{
    struct kafka_groups *g = r->owner;

    if (r->state == KAFKA_GROUP_COMPLETING)
        BNS_LIST_EACH(n, &r->members)
    kafka_sync_end(BNS_CONTAINER(n, struct member, node), KAFKA_GROUP_E_REBALANCE);
    timer_stop(r);
    r->was_empty = r->state == KAFKA_GROUP_EMPTY;
    kafka_group_enter_state(r, KAFKA_GROUP_PREPARING);
    if (r->was_empty) {
        uint64_t delay = (uint64_t)g->cfg.initial_delay_ms, most = rebalance_ms(r);
        r->initial = true;
        r->newcomer = false;
        r->initial_left_ms = most > delay ? most - delay : 0;
        timer_in(r, delay);
    } else if (kafka_group_all_joined(r)) {
        kafka_group_joined(r);
    } else {
        timer_in(r, rebalance_ms(r));
    }
}

void kafka_group_maybe_joined(struct group *r)
{
    if (r->state == KAFKA_GROUP_PREPARING && kafka_group_all_joined(r) && !r->was_empty)
        kafka_group_joined(r);
}

void kafka_group_rebalance(struct group *r)
{
    if (r->state == KAFKA_GROUP_PREPARING)
        kafka_group_maybe_joined(r);
    else
        kafka_group_prepare(r);
}

/* The leader stays when it has joined again. Otherwise somebody who has; false: nobody has. */
static bool elect(struct group *r)
{
    if (r->leader == NULL || r->leader->join_parked)
        return r->leader != NULL;
    BNS_LIST_EACH(n, &r->members)
    {
        struct member *m = BNS_CONTAINER(n, struct member, node);
        if (m->join_parked) {
            r->leader = m;
            return true;
        }
    }
    return false;
}

static void became_empty(struct group *r)
{
    struct write *w;

    kafka_slice_free(r->owner->alloc, &r->protocol);
    r->generation++;
    kafka_group_enter_state(r, KAFKA_GROUP_EMPTY);
    w = kafka_write_new(r, WRITE_META, 1);
    if (w == NULL)
        return; /* a start finds its last members, whose sessions then end */
    if (kafka_write_meta(w, false) != BNS_OK) {
        kafka_write_free(w);
        return;
    }
    kafka_write_send(w);
}

static void next_generation(struct group *r)
{
    struct bns_slice protocol = kafka_group_vote(r);

    BNS_ASSERT(protocol.ptr != NULL); /* each join was checked against all members */
    protocol = kafka_slice_dup(r->owner->alloc, protocol);
    if (protocol.ptr == NULL) {
        timer_in(r, RETRY_MS);
        return;
    }
    kafka_slice_free(r->owner->alloc, &r->protocol);
    r->protocol = protocol;
    if (!BNS_MUTANT(r->owner, KAFKA_GROUP_MUTANT_SAME_GENERATION) || r->generation == 0)
        r->generation++;
    kafka_group_enter_state(r, KAFKA_GROUP_COMPLETING);
    r->sync_seq = 0;
    BNS_LIST_EACH(n, &r->members)
    {
        struct member *m = BNS_CONTAINER(n, struct member, node);
        m->is_new = false;
        r->syncing_count += !m->sync_pending;
        m->sync_pending = true;
        if (m->join_parked)
            kafka_joined_now(m, m == r->leader, r->leader->id, false);
        kafka_session_start(m);
    }
    r->timer_sync = true;
    timer_in(r, rebalance_ms(r));
}

void kafka_group_joined(struct group *r)
{
    BNS_ASSERT(r->state == KAFKA_GROUP_PREPARING);
    timer_stop(r);
    BNS_LIST_EACH(n, &r->members)
    {
        struct member *m = BNS_CONTAINER(n, struct member, node);
        if (!m->join_parked && m->instance.ptr == NULL)
            kafka_member_remove(m);
    }
    if (r->members_count == 0)
        became_empty(r);
    else if (elect(r))
        next_generation(r);
    else /* static members alone, and all silent: until their sessions end */
        timer_in(r, rebalance_ms(r));
}

/* ---- syncing -----------------------------------------------------------------------------------
 * */

void kafka_sync_seen(struct member *m)
{
    struct group *r = m->group;

    r->syncing_count -= m->sync_pending;
    m->sync_pending = false;
    if (r->syncing_count == 0 && r->timer_sync)
        timer_stop(r);
}

/* The leader's assignment is written, or is not. */
void kafka_group_assigned(struct group *r, uint64_t seq, int16_t error)
{
    if (r->state != KAFKA_GROUP_COMPLETING || r->sync_seq != seq)
        return; /* a later round, or a later word of the leader, has taken its place */
    BNS_LIST_EACH(n, &r->members)
    {
        struct member *m = BNS_CONTAINER(n, struct member, node);
        kafka_slice_free(r->owner->alloc, &m->assignment);
        if (error == KAFKA_GROUP_OK) {
            m->assignment = m->assignment_next;
            m->assignment_next = kafka_none;
        }
        kafka_sync_end(m, error);
    }
    if (error == KAFKA_GROUP_OK)
        kafka_group_enter_state(r, KAFKA_GROUP_STABLE);
    else
        kafka_group_rebalance(r);
}

static void sync_due(struct group *r)
{
    r->timer_sync = false;
    BNS_LIST_EACH(n, &r->members)
    {
        struct member *m = BNS_CONTAINER(n, struct member, node);
        if (!m->sync_pending)
            continue;
        kafka_join_end(m, KAFKA_GROUP_E_UNKNOWN_MEMBER, kafka_none);
        kafka_member_remove(m);
    }
    kafka_group_prepare(r);
}

/* ---- time --------------------------------------------------------------------------------------
 * */

static void group_due(struct group *r)
{
    kafka_timer_set(r->owner, &r->timer, UINT64_MAX);
    if (r->timer_sync) {
        sync_due(r);
    } else if (r->initial && r->newcomer && r->initial_left_ms > 0) {
        uint64_t delay = (uint64_t)r->owner->cfg.initial_delay_ms;
        if (delay > r->initial_left_ms)
            delay = r->initial_left_ms;
        r->newcomer = false;
        r->initial_left_ms -= delay;
        timer_in(r, delay);
    } else if (r->state == KAFKA_GROUP_PREPARING) {
        kafka_group_joined(r);
    }
}

static void member_due(struct member *m)
{
    struct group *r = m->group;

    kafka_timer_set(r->owner, &m->timer, UINT64_MAX);
    if (!m->id_given && !m->is_new && (m->join_parked || m->sync_parked))
        return; /* it waits for us; its session begins again with the answer */
    kafka_join_end(m, KAFKA_GROUP_E_UNKNOWN_MEMBER, kafka_none);
    if (m->id_given || r->state == KAFKA_GROUP_PREPARING) {
        kafka_member_remove(m);
        if (BNS_MUTANT(r->owner, KAFKA_GROUP_MUTANT_PARKED))
            timer_stop(r);
        else if (r->state == KAFKA_GROUP_PREPARING && kafka_group_all_joined(r))
            kafka_group_joined(r);
        return;
    }
    kafka_member_remove(m);
    kafka_group_rebalance(r);
}

void kafka_groups_tick(struct kafka_groups *g)
{
    for (int i = 0; i < TICK_MAX; i++) {
        struct bns_heap_node *n = bns_heap_min(&g->timers);
        struct timer *t;
        if (n == NULL || n->key > g->mono_ms)
            return;
        t = BNS_CONTAINER(n, struct timer, node);
        if (t->of_group)
            group_due(BNS_CONTAINER(t, struct group, timer));
        else
            member_due(BNS_CONTAINER(t, struct member, timer));
    }
}
