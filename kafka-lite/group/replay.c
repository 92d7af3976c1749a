/* replay.c - records coming back after a start; looking at groups; which partition is a group's.
 *
 * A group's record is its members in their last durable round, so a group comes back Stable, or
 * Empty when it had none; sessions begin when all is read. A round that was under way is
 * forgotten: its members find their generation refused, and join again.
 */
#include "group/group_int.h"

bool kafka_group_subscribed(const struct group *r, struct bns_slice topic)
{
    bool found = false;

    if (!kafka_group_is_consumer(r) || r->members_count == 0)
        return false;
    if (r->protocol.ptr == NULL)
        return true;
    BNS_LIST_EACH(n, &r->members)
    {
        const struct member *m = BNS_CONTAINER(n, struct member, node);
        struct bns_slice s = kafka_member_metadata(m, r->protocol);
        uint32_t count;
        if (s.len < 6) /* version i16, topics [str], which is how every version begins */
            return true;
        count = (uint32_t)s.ptr[2] << 24 | (uint32_t)s.ptr[3] << 16 | (uint32_t)s.ptr[4] << 8 |
                s.ptr[5];
        s = bns_slice_skip(s, 6);
        for (uint32_t i = 0; i < count; i++) {
            size_t len = s.len < 2 ? SIZE_MAX : (size_t)(s.ptr[0] << 8 | s.ptr[1]) + 2;
            if (len > s.len)
                return true; /* not to be read, so nobody knows */
            found = found || bns_slice_eq(bns_slice(s.ptr + 2, len - 2), topic);
            s = bns_slice_skip(s, len);
        }
    }
    return found;
}

static int replay_offset(struct kafka_groups *g, const struct kafka_group_key *k,
                         struct bns_slice value)
{
    struct group *r = kafka_group_find(g, k->group);
    struct kafka_offset o, *v;
    struct offset_slot *s;
    int rv;

    if (value.ptr == NULL) {
        s = r == NULL ? NULL : kafka_slot_find(r, k->topic, k->partition);
        if (s != NULL) {
            kafka_slot_set(s, NULL);
            kafka_slot_release(s);
        }
        return BNS_OK;
    }
    rv = kafka_offset_get(value, &o);
    if (rv != BNS_OK)
        return rv;
    if (r == NULL)
        r = kafka_group_add(g, k->group);
    s = r == NULL ? NULL : kafka_slot_get(r, k->topic, k->partition);
    if (s == NULL)
        return BNS_E_NOMEM;
    v = kafka_offset_dup(g, &o);
    if (v == NULL) {
        kafka_slot_release(s);
        return BNS_E_NOMEM;
    }
    kafka_slot_set(s, v);
    return BNS_OK;
}

static int replay_member(struct group *r, const struct kafka_group_meta *meta,
                         const struct kafka_group_meta_member *mm)
{
    struct kafka_groups *g = r->owner;
    struct kafka_group_protocol p = {meta->protocol, mm->subscription};
    struct kafka_join j = {
        .instance = mm->instance,
        .client_id = mm->client_id,
        .client_host = mm->client_host,
        .session_ms = mm->session_ms,
        .rebalance_ms = mm->rebalance_ms,
    };
    struct member *m;

    if (kafka_member_find(r, mm->id) != NULL ||
        (mm->instance.ptr != NULL && kafka_member_static(r, mm->instance) != NULL))
        return BNS_E_CORRUPT;
    m = kafka_member_new(r, mm->id, &j);
    if (m == NULL)
        return BNS_E_NOMEM;
    m->assignment = kafka_slice_dup(g->alloc, mm->assignment);
    if (m->assignment.ptr == NULL || !kafka_protocols_set(m, &p, 1) || !kafka_member_enter(m)) {
        kafka_member_remove(m);
        return BNS_E_NOMEM;
    }
    if (bns_slice_eq(meta->leader, mm->id))
        r->leader = m;
    return BNS_OK;
}

static void members_drop(struct group *r)
{
    BNS_LIST_EACH(n, &r->members)
    kafka_member_remove(BNS_CONTAINER(n, struct member, node));
    kafka_slice_free(r->owner->alloc, &r->protocol_type);
    kafka_slice_free(r->owner->alloc, &r->protocol);
    r->state = KAFKA_GROUP_EMPTY;
}

static int replay_group(struct kafka_groups *g, struct bns_slice id, struct bns_slice value)
{
    struct group *r = kafka_group_find(g, id);
    struct kafka_group_meta meta;
    int rv = BNS_OK;

    if (value.ptr == NULL) {
        if (r != NULL && r->offsets_count == 0)
            kafka_group_drop(r);
        else if (r != NULL)
            members_drop(r);
        return BNS_OK;
    }
    rv = kafka_group_meta_get(value, &meta);
    if (rv != BNS_OK)
        return rv;
    if (r == NULL)
        r = kafka_group_add(g, id);
    if (r == NULL)
        return BNS_E_NOMEM;
    members_drop(r);
    r->generation = BNS_MUTANT(g, KAFKA_GROUP_MUTANT_REPLAY) ? 0 : meta.generation;
    if (meta.protocol_type.len > 0)
        r->protocol_type = kafka_slice_dup(g->alloc, meta.protocol_type);
    if (meta.protocol.ptr != NULL)
        r->protocol = kafka_slice_dup(g->alloc, meta.protocol);
    if ((meta.protocol_type.len > 0 && r->protocol_type.ptr == NULL) ||
        (meta.protocol.ptr != NULL && r->protocol.ptr == NULL))
        return BNS_E_NOMEM;
    for (uint32_t i = 0; i < meta.members_count && rv == BNS_OK; i++) {
        struct kafka_group_meta_member mm;
        rv = kafka_group_member_next(&meta, &mm);
        if (rv == BNS_OK)
            rv = replay_member(r, &meta, &mm);
    }
    r->state = r->members_count > 0 ? KAFKA_GROUP_STABLE : KAFKA_GROUP_EMPTY;
    r->state_ms = meta.state_ms;
    return rv;
}

int kafka_groups_replay(struct kafka_groups *g, struct bns_slice key, struct bns_slice value)
{
    struct kafka_group_key k;
    int rv = kafka_group_key_get(key, &k);

    if (rv == BNS_E_UNSUPPORTED)
        return BNS_OK;
    if (rv != BNS_OK)
        return rv;
    return k.kind == KAFKA_GROUP_OFFSET ? replay_offset(g, &k, value)
                                        : replay_group(g, k.group, value);
}

void kafka_groups_loaded(struct kafka_groups *g)
{
    BNS_LIST_EACH(n, &g->all)
    {
        struct group *r = BNS_CONTAINER(n, struct group, all);
        BNS_LIST_EACH(k, &r->members)
        kafka_session_start(BNS_CONTAINER(k, struct member, node));
        if (r->members_count > g->cfg.size_max)
            kafka_group_prepare(r);
    }
}

/* ---- looking
 * ------------------------------------------------------------------------------------ */

static void view(const struct group *r, struct kafka_group_view *out)
{
    *out = (struct kafka_group_view){
        .id = r->id,
        .protocol_type = r->protocol_type,
        .protocol = r->protocol,
        .leader = r->leader == NULL ? kafka_none : r->leader->id,
        .state = r->state,
        .generation = r->generation,
        .members = r->members_count,
        .offsets = r->offsets_count,
    };
}

bool kafka_groups_describe(const struct kafka_groups *g, struct bns_slice group,
                           struct kafka_group_view *out,
                           void (*fn)(void *arg, const struct kafka_group_member_view *m),
                           void *arg)
{
    const struct group *r = kafka_group_find(g, group);

    if (r == NULL)
        return false;
    view(r, out);
    if (fn == NULL)
        return true;
    BNS_LIST_EACH(n, &r->members)
    {
        const struct member *m = BNS_CONTAINER(n, struct member, node);
        struct kafka_group_member_view v = {
            .id = m->id,
            .instance = m->instance,
            .client_id = m->client_id,
            .client_host = m->client_host,
            .metadata = BNS_LIT(""),
            .assignment = BNS_LIT(""),
        };
        if (r->state == KAFKA_GROUP_STABLE) {
            v.metadata = kafka_member_metadata(m, r->protocol);
            v.assignment = m->assignment;
        }
        fn(arg, &v);
    }
    return true;
}

void kafka_groups_list(const struct kafka_groups *g,
                       void (*fn)(void *arg, const struct kafka_group_view *v), void *arg)
{
    BNS_LIST_EACH(n, &g->all)
    {
        struct kafka_group_view v;
        view(BNS_CONTAINER(n, struct group, all), &v);
        fn(arg, &v);
    }
}

/* String.hashCode() of the name in UTF-16, without its sign. Not UTF-8: each byte is a unit. */
int32_t kafka_groups_partition(struct bns_slice group, int32_t partitions)
{
    uint32_t h = 0;

    BNS_ASSERT(partitions > 0);
    for (size_t i = 0; i < group.len;) {
        uint32_t c = group.ptr[i], more = c < 0xc0 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        if (more > group.len - i - 1)
            more = 0;
        if (more > 0)
            c &= 0x3fu >> more;
        for (uint32_t k = 1; k <= more; k++)
            c = c << 6 | (group.ptr[i + k] & 0x3f);
        if (c > 0xffff) {
            c -= 0x10000;
            h = h * 31 + (0xd800 + (c >> 10));
            c = 0xdc00 + (c & 0x3ff);
        }
        h = h * 31 + c;
        i += more + 1;
    }
    return (int32_t)(h == 0x80000000u ? 0 : (int32_t)h < 0 ? 0u - h : h) % partitions;
}
