/* join.c - what members ask: join, sync, heartbeat, leave.
 *
 * The checks come in the order in which Apache Kafka 4.3.1 makes them, as clients see the first
 * that fails. A static member (KIP-345) is its instance: when it comes back without an id it gets
 * a new one and takes the place, assignment and all, of the old one, which is fenced from then on.
 */
#include "group/group_int.h"

static int16_t join_acceptable(const struct group *r, const struct member *m)
{
    const struct kafka_groups *g = r->owner;
    bool in = m != NULL && !m->id_given;

    switch (r->state) {
    case KAFKA_GROUP_EMPTY:
        return KAFKA_GROUP_OK;
    case KAFKA_GROUP_DEAD:
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    case KAFKA_GROUP_PREPARING:
        return (in && m->join_parked) || r->parked_count < g->cfg.size_max ? KAFKA_GROUP_OK
                                                                           : KAFKA_GROUP_E_FULL;
    case KAFKA_GROUP_COMPLETING:
    case KAFKA_GROUP_STABLE:
        break;
    }
    return in || r->members_count < g->cfg.size_max ? KAFKA_GROUP_OK : KAFKA_GROUP_E_FULL;
}

/* The member enters the group, and there is a rebalance. */
static void enter(struct member *m, const struct kafka_join *j, void *token)
{
    struct group *r = m->group;
    struct kafka_groups *g = r->owner;

    m->session_ms = j->session_ms;
    m->rebalance_ms = j->rebalance_ms;
    if (r->members_count == 0) { /* nobody is there whose type it would have to have */
        struct bns_slice type = kafka_slice_dup(g->alloc, j->protocol_type);
        if (type.ptr == NULL)
            goto fail;
        kafka_slice_free(g->alloc, &r->protocol_type);
        r->protocol_type = type;
    }
    if (!kafka_protocols_set(m, j->protocols, j->protocols_count) || !kafka_member_enter(m))
        goto fail;
    if (r->state == KAFKA_GROUP_PREPARING && r->was_empty)
        r->newcomer = true;
    m->is_new = true;
    kafka_join_park(m, token);
    kafka_session_start(m);
    kafka_group_rebalance(r);
    return;

fail:
    kafka_join_refuse(g, token, KAFKA_GROUP_E_NOT_AVAILABLE, kafka_none);
    kafka_member_remove(m);
}

static struct bns_slice fresh_id(struct kafka_groups *g, const struct kafka_join *j,
                                 struct bns_buf *to)
{
    struct bns_slice front = j->instance.ptr != NULL ? j->instance : j->client_id;

    g->ops.uuid(g->ops.arg, g->uuid_text);
    if ((front.len > 0 && bns_buf_add(to, front.ptr, front.len) != BNS_OK) ||
        bns_buf_byte(to, '-') != BNS_OK ||
        bns_buf_add(to, g->uuid_text, KAFKA_GROUP_UUID_TEXT) != BNS_OK)
        return kafka_none;
    return bns_buf_slice(to);
}

static bool update(struct member *m, const struct kafka_join *j, void *token)
{
    if (!kafka_protocols_set(m, j->protocols, j->protocols_count)) {
        kafka_join_refuse(m->group->owner, token, KAFKA_GROUP_E_NOT_AVAILABLE, m->id);
        return false;
    }
    m->session_ms = j->session_ms;
    m->rebalance_ms = j->rebalance_ms;
    kafka_join_park(m, token);
    return true;
}

/* A static member is there, and comes back under a new id. While the group is Stable and would
 * choose the same protocol, nobody else notices. */
static void static_returns(struct member *m, struct bns_slice id, const struct kafka_join *j,
                           void *token)
{
    struct group *r = m->group;
    struct kafka_groups *g = r->owner;
    struct bns_slice old = kafka_none;
    struct write *w = kafka_write_new(r, WRITE_STATIC, 1);

    if (w == NULL || !kafka_member_rename(m, id, &old)) {
        if (w != NULL)
            kafka_write_free(w);
        kafka_join_refuse(g, token, KAFKA_GROUP_E_NOT_AVAILABLE, kafka_none);
        return;
    }
    w->old_id = old;
    kafka_join_end(m, KAFKA_GROUP_E_FENCED, old);
    kafka_sync_end(m, KAFKA_GROUP_E_FENCED);
    m->is_new = false;
    if (!update(m, j, token)) {
        kafka_write_free(w);
        return;
    }
    kafka_session_start(m);
    if (r->state == KAFKA_GROUP_STABLE && bns_slice_eq(r->protocol, kafka_group_vote(r))) {
        w->member_id = kafka_slice_dup(g->alloc, m->id);
        w->seq = m->join_seq;
        w->can_skip = j->can_skip;
        if (w->member_id.ptr != NULL && kafka_write_meta(w, false) == BNS_OK) {
            kafka_sync_seen(m);
            kafka_write_send(w);
            return;
        }
    }
    kafka_write_free(w);
    if (r->state == KAFKA_GROUP_PREPARING)
        kafka_group_maybe_joined(r);
    else
        kafka_group_prepare(r);
}

static void join_new(struct group *r, const struct kafka_join *j, void *token)
{
    struct kafka_groups *g = r->owner;
    struct member *m = j->instance.ptr == NULL ? NULL : kafka_member_static(r, j->instance);
    struct bns_buf text;
    struct bns_slice id;

    bns_buf_init(&text, g->alloc, 1 << 17);
    id = fresh_id(g, j, &text);
    if (id.ptr == NULL) {
        kafka_join_refuse(g, token, KAFKA_GROUP_E_NOT_AVAILABLE, kafka_none);
    } else if (m != NULL) {
        static_returns(m, id, j, token);
    } else if ((m = kafka_member_new(r, id, j)) == NULL) {
        kafka_join_refuse(g, token, KAFKA_GROUP_E_NOT_AVAILABLE, kafka_none);
    } else if (j->instance.ptr == NULL && j->id_required) {
        kafka_session_start(m);
        kafka_join_refuse(g, token, KAFKA_GROUP_E_ID_REQUIRED, id);
    } else {
        enter(m, j, token);
    }
    bns_buf_free(&text);
}

/* Answers with the round that is; parks only to answer. */
static void join_told(struct member *m, void *token, bool list)
{
    kafka_join_park(m, token);
    kafka_joined_now(m, list, m->group->leader->id, false);
}

static void join_known(struct group *r, struct member *m, const struct kafka_join *j, void *token)
{
    struct kafka_groups *g = r->owner;
    bool same = kafka_protocols_same(m, j), leads = m == r->leader;

    switch (r->state) {
    case KAFKA_GROUP_PREPARING:
        break;
    case KAFKA_GROUP_COMPLETING:
        if (same) { /* it has not got the answer, it seems */
            join_told(m, token, leads);
            return;
        }
        break;
    case KAFKA_GROUP_STABLE:
        if (!leads && same) {
            join_told(m, token, false);
            return;
        }
        break;
    case KAFKA_GROUP_EMPTY:
    case KAFKA_GROUP_DEAD:
        kafka_join_refuse(g, token, KAFKA_GROUP_E_UNKNOWN_MEMBER, j->member_id);
        return;
    }
    if (update(m, j, token))
        kafka_group_rebalance(r);
}

void kafka_groups_join(struct kafka_groups *g, const struct kafka_join *j, void *token)
{
    bool unknown = j->member_id.len == 0;
    struct group *r = kafka_group_find(g, j->group);
    struct member *m = r == NULL || unknown ? NULL : kafka_member_find(r, j->member_id);
    int16_t error = KAFKA_GROUP_OK;

    if (j->group.len == 0)
        error = KAFKA_GROUP_E_GROUP_ID;
    else if (j->session_ms < g->cfg.session_min_ms || j->session_ms > g->cfg.session_max_ms)
        error = KAFKA_GROUP_E_SESSION_TIMEOUT;
    else if (r == NULL && !unknown)
        error = KAFKA_GROUP_E_UNKNOWN_MEMBER;
    else if (r == NULL && (r = kafka_group_add(g, j->group)) == NULL)
        error = KAFKA_GROUP_E_NOT_AVAILABLE;
    if (error != KAFKA_GROUP_OK) {
        kafka_join_refuse(g, token, error, j->member_id);
        return;
    }
    error = join_acceptable(r, m);
    if (error == KAFKA_GROUP_E_FULL) {
        if (m != NULL) {
            kafka_sync_end(m, KAFKA_GROUP_E_UNKNOWN_MEMBER);
            kafka_member_remove(m);
            kafka_group_maybe_joined(r);
        }
        kafka_join_refuse(g, token, error, kafka_none);
        return;
    }
    if (error == KAFKA_GROUP_OK && !kafka_group_supports(r, j))
        error = KAFKA_GROUP_E_PROTOCOL;
    if (error == KAFKA_GROUP_OK && !unknown && (m == NULL || !m->id_given || j->instance.ptr))
        error = kafka_member_check(r, j->member_id, j->instance);
    if (error != KAFKA_GROUP_OK)
        kafka_join_refuse(g, token, error, j->member_id);
    else if (unknown)
        join_new(r, j, token);
    else if (m->id_given)
        enter(m, j, token);
    else
        join_known(r, m, j, token);
}

/* ---- sync
 * --------------------------------------------------------------------------------------- */

static void sync_refuse(struct kafka_groups *g, void *token, int16_t error)
{
    struct kafka_sync_answer a = {.error = error};

    g->ops.synced(g->ops.arg, token, &a);
}

static bool differs(struct bns_slice said, struct bns_slice is)
{
    return said.ptr != NULL && is.ptr != NULL && !bns_slice_eq(said, is);
}

static int16_t sync_check(const struct group *r, const struct kafka_sync *s)
{
    int16_t error;

    if (r == NULL)
        return KAFKA_GROUP_E_UNKNOWN_MEMBER;
    if (r->state == KAFKA_GROUP_DEAD)
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    error = kafka_member_check(r, s->member_id, s->instance);
    if (error != KAFKA_GROUP_OK)
        return error;
    if (s->generation != r->generation && !BNS_MUTANT(r->owner, KAFKA_GROUP_MUTANT_OLD_SYNC))
        return KAFKA_GROUP_E_GENERATION;
    if (differs(s->protocol_type, r->protocol_type) || differs(s->protocol, r->protocol))
        return KAFKA_GROUP_E_PROTOCOL;
    if (r->state == KAFKA_GROUP_EMPTY)
        return KAFKA_GROUP_E_UNKNOWN_MEMBER;
    return r->state == KAFKA_GROUP_PREPARING ? KAFKA_GROUP_E_REBALANCE : KAFKA_GROUP_OK;
}

/* What the leader says each member gets; who is not named gets nothing. */
static bool assignments_take(struct group *r, const struct kafka_sync *s)
{
    struct kafka_groups *g = r->owner;

    BNS_LIST_EACH(n, &r->members)
    {
        struct member *m = BNS_CONTAINER(n, struct member, node);
        kafka_slice_free(g->alloc, &m->assignment_next);
        m->assignment_next = kafka_slice_dup(g->alloc, bns_slice("", 0));
        if (m->assignment_next.ptr == NULL)
            return false;
    }
    for (size_t i = 0; i < s->assignments_count; i++) {
        struct member *m = kafka_member_find(r, s->assignments[i].member_id);
        struct bns_slice copy;
        if (m == NULL || m->id_given)
            continue;
        copy = kafka_slice_dup(g->alloc, s->assignments[i].bytes);
        if (copy.ptr == NULL)
            return false;
        kafka_slice_free(g->alloc, &m->assignment_next);
        m->assignment_next = copy;
    }
    return true;
}

static void leader_syncs(struct group *r, const struct kafka_sync *s)
{
    struct kafka_groups *g = r->owner;
    uint64_t seq = ++g->seq;
    struct write *w;
    int rv;

    r->sync_seq = seq;
    w = assignments_take(r, s) ? kafka_write_new(r, WRITE_SYNC, 1) : NULL;
    if (w == NULL) {
        kafka_group_assigned(r, seq, KAFKA_GROUP_E_NOT_AVAILABLE);
        return;
    }
    rv = kafka_write_meta(w, true);
    if (rv != BNS_OK) {
        kafka_write_free(w);
        kafka_group_assigned(r, seq, rv == BNS_E_TOOBIG ? -1 : KAFKA_GROUP_E_NOT_AVAILABLE);
        return;
    }
    w->seq = seq;
    if (BNS_MUTANT(g, KAFKA_GROUP_MUTANT_SYNC_EARLY))
        kafka_group_assigned(r, seq, KAFKA_GROUP_OK);
    kafka_write_send(w);
}

void kafka_groups_sync(struct kafka_groups *g, const struct kafka_sync *s, void *token)
{
    struct group *r = kafka_group_find(g, s->group);
    int16_t error = s->group.len == 0 ? KAFKA_GROUP_E_GROUP_ID : sync_check(r, s);
    struct member *m;

    if (error != KAFKA_GROUP_OK) {
        sync_refuse(g, token, error);
        return;
    }
    m = kafka_member_find(r, s->member_id);
    kafka_sync_end(m, KAFKA_GROUP_E_REBALANCE);
    kafka_sync_seen(m);
    m->sync_parked = true;
    m->sync_token = token;
    if (r->state == KAFKA_GROUP_STABLE)
        kafka_sync_end(m, KAFKA_GROUP_OK);
    else if (m == r->leader)
        leader_syncs(r, s);
}

/* ---- heartbeat and leave
 * ------------------------------------------------------------------------ */

int16_t kafka_groups_heartbeat(struct kafka_groups *g, const struct kafka_group_who *w)
{
    struct group *r = kafka_group_find(g, w->group);
    int16_t error;

    if (w->group.len == 0)
        return KAFKA_GROUP_E_GROUP_ID;
    if (r == NULL)
        return KAFKA_GROUP_E_UNKNOWN_MEMBER;
    if (r->state == KAFKA_GROUP_DEAD)
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    error = kafka_member_check(r, w->member_id, w->instance);
    if (error != KAFKA_GROUP_OK)
        return error;
    if (w->generation != r->generation)
        return KAFKA_GROUP_E_GENERATION;
    if (r->state == KAFKA_GROUP_EMPTY)
        return KAFKA_GROUP_E_UNKNOWN_MEMBER;
    kafka_session_start(kafka_member_find(r, w->member_id));
    return r->state == KAFKA_GROUP_PREPARING ? KAFKA_GROUP_E_REBALANCE : KAFKA_GROUP_OK;
}

static struct member *leaver(const struct group *r, const struct kafka_leaver *l, int16_t *error)
{
    struct member *m;

    *error = KAFKA_GROUP_OK;
    if (l->member_id.len == 0) {
        m = l->instance.ptr == NULL ? NULL : kafka_member_static(r, l->instance);
        if (m == NULL)
            *error = KAFKA_GROUP_E_UNKNOWN_MEMBER;
        return m;
    }
    m = kafka_member_find(r, l->member_id);
    if (m == NULL || !m->id_given)
        *error = kafka_member_check(r, l->member_id, l->instance);
    return *error == KAFKA_GROUP_OK ? m : NULL;
}

int16_t kafka_groups_leave(struct kafka_groups *g, struct bns_slice group,
                           struct kafka_leaver *leavers, size_t count)
{
    struct group *r = kafka_group_find(g, group);
    size_t gone = 0;

    if (group.len == 0)
        return KAFKA_GROUP_E_GROUP_ID;
    if (r != NULL && r->state == KAFKA_GROUP_DEAD)
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    for (size_t i = 0; i < count; i++) {
        struct member *m;
        leavers[i].error = KAFKA_GROUP_E_UNKNOWN_MEMBER;
        m = r == NULL ? NULL : leaver(r, &leavers[i], &leavers[i].error);
        if (m == NULL)
            continue;
        gone++;
        kafka_join_end(m, KAFKA_GROUP_E_UNKNOWN_MEMBER, kafka_none);
        kafka_sync_end(m, KAFKA_GROUP_E_UNKNOWN_MEMBER);
        kafka_member_remove(m);
    }
    if (gone > 0 && r->state != KAFKA_GROUP_EMPTY)
        kafka_group_rebalance(r);
    return KAFKA_GROUP_OK;
}
