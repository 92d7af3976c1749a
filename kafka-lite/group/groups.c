/* groups.c - the table of groups; members, their protocols, and how many support each.
 *
 * A member is made with all the memory that it will need: entering, leaving and its timer can then
 * not fail. Its session is in the heap from its first moment on, at UINT64_MAX while it is stopped;
 * setting it anew takes the room that it had. The same holds for the group's own timer.
 */
#include "group/group_int.h"

void kafka_groups_cfg_default(struct kafka_groups_cfg *cfg)
{
    *cfg = (struct kafka_groups_cfg){
        .session_min_ms = 6000,
        .session_max_ms = 1800000,
        .initial_delay_ms = 3000,
        .join_ms = 300000,
        .size_max = INT32_MAX,
        .metadata_max = 4096,
        .offsets_retention_ms = INT64_C(7) * 24 * 3600 * 1000,
        .groups_max = 100000,
        .members_max = 200000,
        .offsets_max = 5000000,
    };
}

int kafka_groups_new(const struct bns_alloc *alloc, const struct kafka_groups_cfg *cfg,
                     const struct kafka_group_ops *ops, struct kafka_groups **out)
{
    struct kafka_groups *g = bns_alloc_zero(alloc, sizeof *g);

    if (g == NULL)
        return BNS_E_NOMEM;
    g->alloc = alloc;
    g->cfg = *cfg;
    g->ops = *ops;
    g->mutant = cfg->mutant;
    bns_hmap_init(&g->groups, alloc);
    bns_heap_init(&g->timers, alloc);
    bns_list_init(&g->all);
    bns_list_init(&g->writes);
    *out = g;
    return BNS_OK;
}

void kafka_groups_free(struct kafka_groups *g)
{
    if (g == NULL)
        return;
    BNS_LIST_EACH(n, &g->writes)
    kafka_write_free(BNS_CONTAINER(n, struct write, all));
    BNS_LIST_EACH(n, &g->all)
    kafka_group_drop(BNS_CONTAINER(n, struct group, all));
    bns_hmap_free(&g->groups);
    bns_heap_free(&g->timers);
    bns_free(g->alloc, g->told);
    bns_free(g->alloc, g);
}

void kafka_groups_now(struct kafka_groups *g, uint64_t mono_ms, int64_t wall_ms)
{
    BNS_ASSERT(mono_ms >= g->mono_ms);
    g->mono_ms = mono_ms;
    g->wall_ms = wall_ms;
}

uint64_t kafka_groups_deadline(const struct kafka_groups *g)
{
    const struct bns_heap_node *n = bns_heap_min(&g->timers);

    return n == NULL ? UINT64_MAX : n->key;
}

size_t kafka_groups_count(const struct kafka_groups *g)
{
    return g->groups.count;
}

size_t kafka_groups_writes(const struct kafka_groups *g)
{
    return g->writes_count;
}

struct bns_slice kafka_slice_dup(const struct bns_alloc *a, struct bns_slice s)
{
    uint8_t *p = bns_alloc(a, s.len + 1);

    if (p == NULL)
        return kafka_none;
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return bns_slice(p, s.len);
}

void kafka_slice_free(const struct bns_alloc *a, struct bns_slice *s)
{
    bns_free(a, (void *)(uintptr_t)s->ptr);
    *s = kafka_none;
}

static uint64_t hash(const struct kafka_groups *g, struct bns_slice s)
{
    return bns_hash(g->cfg.hash_seed, s.ptr, s.len);
}

void kafka_timer_set(struct kafka_groups *g, struct timer *t, uint64_t key)
{
    int rv;

    BNS_ASSERT(t->node.pos != 0);
    bns_heap_del(&g->timers, &t->node);
    rv = bns_heap_insert(&g->timers, &t->node, key);
    BNS_ASSERT(rv == BNS_OK); /* its old room is still there */
}

/* ---- groups -----------------------------------------------------------------------------------
 * */

struct group *kafka_group_find(const struct kafka_groups *g, struct bns_slice id)
{
    for (struct bns_hnode *n = bns_hmap_find(&g->groups, hash(g, id)); n != NULL;
         n = bns_hmap_find_next(n)) {
        struct group *r = BNS_CONTAINER(n, struct group, node);
        if (bns_slice_eq(r->id, id))
            return r;
    }
    return NULL;
}

struct group *kafka_group_add(struct kafka_groups *g, struct bns_slice id)
{
    struct group *r;

    if (g->groups.count >= g->cfg.groups_max)
        return NULL;
    r = bns_alloc_zero(g->alloc, sizeof *r);
    if (r == NULL)
        return NULL;
    r->owner = g;
    r->timer.of_group = true;
    r->state_ms = g->wall_ms;
    bns_list_init(&r->members);
    bns_list_init(&r->joining);
    bns_hmap_init(&r->by_id, g->alloc);
    bns_hmap_init(&r->by_instance, g->alloc);
    bns_hmap_init(&r->supports, g->alloc);
    bns_hmap_init(&r->topics, g->alloc);
    r->id = kafka_slice_dup(g->alloc, id);
    if (r->id.ptr == NULL)
        goto fail;
    if (bns_heap_insert(&g->timers, &r->timer.node, UINT64_MAX) != BNS_OK)
        goto fail;
    if (bns_hmap_insert(&g->groups, &r->node, hash(g, id)) != BNS_OK)
        goto fail;
    bns_list_push(&g->all, &r->all);
    return r;

fail:
    bns_heap_del(&g->timers, &r->timer.node);
    kafka_slice_free(g->alloc, &r->id);
    bns_free(g->alloc, r);
    return NULL;
}

void kafka_group_drop(struct group *r)
{
    struct kafka_groups *g = r->owner;

    BNS_ASSERT(r->writes == 0);
    BNS_LIST_EACH(n, &r->members)
    kafka_member_remove(BNS_CONTAINER(n, struct member, node));
    BNS_LIST_EACH(n, &r->joining)
    kafka_member_remove(BNS_CONTAINER(n, struct member, node));
    kafka_offsets_free(r);
    if (g->cursor == &r->all)
        g->cursor = r->all.next;
    bns_list_del(&r->all);
    bns_hmap_del(&g->groups, &r->node);
    bns_heap_del(&g->timers, &r->timer.node);
    bns_hmap_free(&r->by_id);
    bns_hmap_free(&r->by_instance);
    bns_hmap_free(&r->supports);
    bns_hmap_free(&r->topics);
    kafka_slice_free(g->alloc, &r->protocol_type);
    kafka_slice_free(g->alloc, &r->protocol);
    kafka_slice_free(g->alloc, &r->id);
    bns_free(g->alloc, r);
}

bool kafka_group_is_consumer(const struct group *r)
{
    return bns_slice_eq(r->protocol_type, BNS_LIT("consumer"));
}

/* ---- how many members support a protocol -------------------------------------------------------
 * */

static struct support *support_find(const struct group *r, struct bns_slice name)
{
    for (struct bns_hnode *n = bns_hmap_find(&r->supports, hash(r->owner, name)); n != NULL;
         n = bns_hmap_find_next(n)) {
        struct support *s = BNS_CONTAINER(n, struct support, node);
        if (bns_slice_eq(bns_slice(s->name, s->len), name))
            return s;
    }
    return NULL;
}

static void support_drop(struct group *r, const struct kafka_group_protocol *p, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct support *s = support_find(r, p[i].name);
        BNS_ASSERT(s != NULL);
        if (--s->count == 0) {
            bns_hmap_del(&r->supports, &s->node);
            bns_free(r->owner->alloc, s);
        }
    }
}

static bool support_add_one(struct group *r, struct bns_slice name)
{
    struct support *s = support_find(r, name);

    if (s == NULL) {
        s = bns_alloc_zero(r->owner->alloc, sizeof *s + name.len + 1);
        if (s == NULL)
            return false;
        s->len = name.len;
        if (name.len > 0)
            memcpy(s->name, name.ptr, name.len);
        if (bns_hmap_insert(&r->supports, &s->node, hash(r->owner, name)) != BNS_OK) {
            bns_free(r->owner->alloc, s);
            return false;
        }
    }
    s->count++;
    return true;
}

static bool support_add(struct group *r, const struct kafka_group_protocol *p, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!support_add_one(r, p[i].name)) {
            support_drop(r, p, i);
            return false;
        }
    return true;
}

bool kafka_group_supports(const struct group *r, const struct kafka_join *j)
{
    if (j->protocols_count > KAFKA_GROUP_PROTOCOLS_MAX)
        return false;
    if (r->state == KAFKA_GROUP_EMPTY)
        return j->protocol_type.len > 0 && j->protocols_count > 0;
    if (r->protocol_type.ptr == NULL || !bns_slice_eq(r->protocol_type, j->protocol_type))
        return false;
    for (size_t i = 0; i < j->protocols_count; i++) {
        const struct support *s = support_find(r, j->protocols[i].name);
        if ((s == NULL ? 0 : s->count) == r->members_count)
            return true;
    }
    return false;
}

/* The first of a member's protocols that all support; kafka_none can only be when there is none. */
static struct bns_slice choice(const struct group *r, const struct member *m)
{
    for (size_t i = 0; i < m->protocols_count; i++) {
        const struct support *s = support_find(r, m->protocols[i].name);
        if (s != NULL && s->count == r->members_count)
            return m->protocols[i].name;
    }
    return kafka_none;
}

struct bns_slice kafka_group_vote(const struct group *r)
{
    struct bns_slice names[KAFKA_GROUP_PROTOCOLS_MAX], best = kafka_none;
    size_t votes[KAFKA_GROUP_PROTOCOLS_MAX], count = 0, most = 0;

    BNS_LIST_EACH(n, &r->members)
    {
        struct bns_slice s = choice(r, BNS_CONTAINER(n, struct member, node));
        size_t i = 0;
        while (i < count && !bns_slice_eq(names[i], s))
            i++;
        if (s.ptr == NULL || i == KAFKA_GROUP_PROTOCOLS_MAX)
            continue;
        if (i == count) {
            names[count] = s;
            votes[count++] = 0;
        }
        votes[i]++;
    }
    for (size_t i = 0; i < count; i++)
        if (votes[i] > most) {
            most = votes[i];
            best = names[i];
        }
    return best;
}

/* ---- members ----------------------------------------------------------------------------------
 * */

static struct kafka_group_protocol *protocols_dup(const struct kafka_groups *g,
                                                  const struct kafka_group_protocol *p,
                                                  size_t *count)
{
    size_t bytes = sizeof *p * (*count + 1), kept = 0;
    struct kafka_group_protocol *out;
    uint8_t *next;

    for (size_t i = 0; i < *count; i++)
        bytes += p[i].name.len + p[i].metadata.len;
    out = bns_alloc(g->alloc, bytes + 1);
    if (out == NULL)
        return NULL;
    next = (uint8_t *)(out + *count + 1);
    for (size_t i = 0; i < *count; i++) {
        bool twice = false;
        for (size_t k = 0; k < kept && !twice; k++)
            twice = bns_slice_eq(out[k].name, p[i].name);
        if (twice)
            continue;
        if (p[i].name.len > 0)
            memcpy(next, p[i].name.ptr, p[i].name.len);
        out[kept].name = bns_slice(next, p[i].name.len);
        next += p[i].name.len;
        if (p[i].metadata.len > 0)
            memcpy(next, p[i].metadata.ptr, p[i].metadata.len);
        out[kept++].metadata = bns_slice(next, p[i].metadata.len);
        next += p[i].metadata.len;
    }
    *count = kept;
    return out;
}

static bool is_in(const struct member *m)
{
    return !m->id_given;
}

bool kafka_protocols_set(struct member *m, const struct kafka_group_protocol *p, size_t count)
{
    struct kafka_groups *g = m->group->owner;
    struct kafka_group_protocol *copy = protocols_dup(g, p, &count);

    if (copy == NULL)
        return false;
    if (is_in(m)) {
        if (!support_add(m->group, copy, count)) {
            bns_free(g->alloc, copy);
            return false;
        }
        support_drop(m->group, m->protocols, m->protocols_count);
    }
    bns_free(g->alloc, m->protocols);
    m->protocols = copy;
    m->protocols_count = count;
    return true;
}

bool kafka_protocols_same(const struct member *m, const struct kafka_join *j)
{
    if (m->protocols_count != j->protocols_count)
        return false;
    for (size_t i = 0; i < m->protocols_count; i++)
        if (!bns_slice_eq(m->protocols[i].name, j->protocols[i].name) ||
            !bns_slice_eq(m->protocols[i].metadata, j->protocols[i].metadata))
            return false;
    return true;
}

struct bns_slice kafka_member_metadata(const struct member *m, struct bns_slice protocol)
{
    for (size_t i = 0; i < m->protocols_count; i++)
        if (bns_slice_eq(m->protocols[i].name, protocol))
            return m->protocols[i].metadata;
    return bns_slice(NULL, 0);
}

static struct bns_slice put(uint8_t **next, struct bns_slice s)
{
    struct bns_slice out = bns_slice(*next, s.len);

    if (s.ptr == NULL)
        return kafka_none;
    if (s.len > 0)
        memcpy(*next, s.ptr, s.len);
    *next += s.len;
    return out;
}

struct member *kafka_member_new(struct group *r, struct bns_slice id, const struct kafka_join *j)
{
    struct kafka_groups *g = r->owner;
    struct member *m;
    uint8_t *next;

    if (g->members_count >= g->cfg.members_max)
        return NULL;
    m = bns_alloc_zero(g->alloc,
                       sizeof *m + j->instance.len + j->client_id.len + j->client_host.len + 1);
    if (m == NULL)
        return NULL;
    next = (uint8_t *)(m + 1);
    bns_list_init(&m->node);
    m->group = r;
    m->id_given = true;
    m->instance = put(&next, j->instance);
    m->client_id = put(&next, j->client_id);
    m->client_host = put(&next, j->client_host);
    m->session_ms = j->session_ms;
    m->rebalance_ms = j->rebalance_ms;
    m->id = kafka_slice_dup(g->alloc, id);
    if (m->id.ptr == NULL)
        goto fail;
    if (bns_heap_insert(&g->timers, &m->timer.node, UINT64_MAX) != BNS_OK)
        goto fail;
    if (bns_hmap_insert(&r->by_id, &m->by_id, hash(g, id)) != BNS_OK)
        goto fail;
    bns_list_push(&r->joining, &m->node);
    r->joining_count++;
    g->members_count++;
    return m;

fail:
    bns_heap_del(&g->timers, &m->timer.node);
    kafka_slice_free(g->alloc, &m->id);
    bns_free(g->alloc, m);
    return NULL;
}

bool kafka_member_enter(struct member *m)
{
    struct group *r = m->group;
    struct kafka_groups *g = r->owner;

    BNS_ASSERT(m->id_given);
    BNS_ASSERT(m->protocols != NULL);
    if (!support_add(r, m->protocols, m->protocols_count))
        return false;
    if (m->instance.ptr != NULL &&
        bns_hmap_insert(&r->by_instance, &m->by_instance, hash(g, m->instance)) != BNS_OK) {
        support_drop(r, m->protocols, m->protocols_count);
        return false;
    }
    bns_list_del(&m->node);
    r->joining_count--;
    m->id_given = false;
    bns_list_push(&r->members, &m->node);
    r->members_count++;
    if (r->leader == NULL)
        r->leader = m;
    return true;
}

void kafka_member_remove(struct member *m)
{
    struct group *r = m->group;
    struct kafka_groups *g = r->owner;

    bns_list_del(&m->node);
    if (m->id_given) {
        r->joining_count--;
    } else {
        support_drop(r, m->protocols, m->protocols_count);
        r->members_count--;
        r->parked_count -= m->join_parked;
        r->syncing_count -= m->sync_pending;
        if (m->instance.ptr != NULL)
            bns_hmap_del(&r->by_instance, &m->by_instance);
    }
    bns_hmap_del(&r->by_id, &m->by_id);
    bns_heap_del(&g->timers, &m->timer.node);
    if (r->leader == m)
        r->leader = bns_list_empty(&r->members)
                        ? NULL
                        : BNS_CONTAINER(r->members.next, struct member, node);
    g->members_count--;
    kafka_slice_free(g->alloc, &m->id);
    kafka_slice_free(g->alloc, &m->assignment);
    kafka_slice_free(g->alloc, &m->assignment_next);
    bns_free(g->alloc, m->protocols);
    bns_free(g->alloc, m);
}

struct member *kafka_member_find(const struct group *r, struct bns_slice id)
{
    for (struct bns_hnode *n = bns_hmap_find(&r->by_id, hash(r->owner, id)); n != NULL;
         n = bns_hmap_find_next(n)) {
        struct member *m = BNS_CONTAINER(n, struct member, by_id);
        if (bns_slice_eq(m->id, id))
            return m;
    }
    return NULL;
}

struct member *kafka_member_static(const struct group *r, struct bns_slice instance)
{
    for (struct bns_hnode *n = bns_hmap_find(&r->by_instance, hash(r->owner, instance)); n != NULL;
         n = bns_hmap_find_next(n)) {
        struct member *m = BNS_CONTAINER(n, struct member, by_instance);
        if (bns_slice_eq(m->instance, instance))
            return m;
    }
    return NULL;
}

bool kafka_member_rename(struct member *m, struct bns_slice id, struct bns_slice *old)
{
    struct group *r = m->group;
    struct bns_slice copy = kafka_slice_dup(r->owner->alloc, id);
    int rv;

    if (copy.ptr == NULL)
        return false;
    bns_hmap_del(&r->by_id, &m->by_id);
    *old = m->id;
    m->id = copy;
    rv = bns_hmap_insert(&r->by_id, &m->by_id, hash(r->owner, id));
    BNS_ASSERT(rv == BNS_OK); /* the table is there */
    return true;
}

int16_t kafka_member_check(const struct group *r, struct bns_slice id, struct bns_slice instance)
{
    const struct member *m;

    if (instance.ptr != NULL) {
        m = kafka_member_static(r, instance);
        if (m == NULL)
            return KAFKA_GROUP_E_UNKNOWN_MEMBER;
        if (!bns_slice_eq(m->id, id))
            return KAFKA_GROUP_E_FENCED;
    }
    m = kafka_member_find(r, id);
    return m == NULL || m->id_given ? KAFKA_GROUP_E_UNKNOWN_MEMBER : KAFKA_GROUP_OK;
}
