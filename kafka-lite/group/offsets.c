/* offsets.c - committed offsets: commit, fetch, delete, expire; and deletion of groups.
 *
 * A group has topics, a topic has slots. A slot has the value that is committed, and is there while
 * it has one or while a write is under way for it: so when a write comes back, taking its value
 * over needs no memory. What is told is what is durable, nothing else.
 *
 * Expiry (KIP-211): of a group that is empty, the retention after it became so; of a group with
 * members of the consumer protocol, of topics that none of them subscribes to, after the commit; of
 * a group that never had members, after the commit; of others, never. A value with a time to expire
 * at (OffsetCommit up to version 4) goes by that. An empty group without offsets is deleted.
 */
#include "group/group_int.h"

#define TOMBSTONES_MAX 512u /* of one write */

static uint64_t topic_hash(const struct group *r, struct bns_slice topic)
{
    return bns_hash(r->owner->cfg.hash_seed, topic.ptr, topic.len);
}

static struct offset_topic *topic_find(const struct group *r, struct bns_slice topic)
{
    for (struct bns_hnode *n = bns_hmap_find(&r->topics, topic_hash(r, topic)); n != NULL;
         n = bns_hmap_find_next(n)) {
        struct offset_topic *t = BNS_CONTAINER(n, struct offset_topic, node);
        if (bns_slice_eq(bns_slice(t->name, t->len), topic))
            return t;
    }
    return NULL;
}

static struct offset_slot *slot_in(const struct offset_topic *t, int32_t partition)
{
    uint64_t h = bns_hash_u64(t->group->owner->cfg.hash_seed, (uint32_t)partition);

    for (struct bns_hnode *n = bns_hmap_find(&t->parts, h); n != NULL; n = bns_hmap_find_next(n)) {
        struct offset_slot *s = BNS_CONTAINER(n, struct offset_slot, node);
        if (s->partition == partition)
            return s;
    }
    return NULL;
}

struct offset_slot *kafka_slot_find(const struct group *r, struct bns_slice topic,
                                    int32_t partition)
{
    const struct offset_topic *t = topic_find(r, topic);

    return t == NULL ? NULL : slot_in(t, partition);
}

static void topic_release(struct offset_topic *t)
{
    if (t->parts.count > 0)
        return;
    bns_hmap_del(&t->group->topics, &t->node);
    bns_hmap_free(&t->parts);
    bns_free(t->group->owner->alloc, t);
}

static struct offset_topic *topic_get(struct group *r, struct bns_slice topic)
{
    struct offset_topic *t = topic_find(r, topic);

    if (t != NULL)
        return t;
    t = bns_alloc_zero(r->owner->alloc, sizeof *t + topic.len + 1);
    if (t == NULL)
        return NULL;
    t->group = r;
    t->len = topic.len;
    if (topic.len > 0)
        memcpy(t->name, topic.ptr, topic.len);
    bns_hmap_init(&t->parts, r->owner->alloc);
    if (bns_hmap_insert(&r->topics, &t->node, topic_hash(r, topic)) == BNS_OK)
        return t;
    bns_free(r->owner->alloc, t);
    return NULL;
}

struct offset_slot *kafka_slot_get(struct group *r, struct bns_slice topic, int32_t partition)
{
    struct kafka_groups *g = r->owner;
    struct offset_topic *t = topic_get(r, topic);
    struct offset_slot *s = t == NULL ? NULL : slot_in(t, partition);

    if (t == NULL || s != NULL)
        return s;
    s = g->offsets_count >= g->cfg.offsets_max ? NULL : bns_alloc_zero(g->alloc, sizeof *s);
    if (s != NULL) {
        s->topic = t;
        s->partition = partition;
        if (bns_hmap_insert(&t->parts, &s->node,
                            bns_hash_u64(g->cfg.hash_seed, (uint32_t)partition)) == BNS_OK) {
            r->offsets_count++;
            g->offsets_count++;
            return s;
        }
    }
    bns_free(g->alloc, s);
    topic_release(t);
    return NULL;
}

void kafka_slot_release(struct offset_slot *s)
{
    struct offset_topic *t = s->topic;
    struct kafka_groups *g = t->group->owner;

    if (s->value != NULL || s->writes > 0)
        return;
    bns_hmap_del(&t->parts, &s->node);
    t->group->offsets_count--;
    g->offsets_count--;
    bns_free(g->alloc, s);
    topic_release(t);
}

void kafka_slot_set(struct offset_slot *s, struct kafka_offset *value)
{
    bns_free(s->topic->group->owner->alloc, s->value);
    s->value = value;
}

struct kafka_offset *kafka_offset_dup(const struct kafka_groups *g, const struct kafka_offset *o)
{
    struct kafka_offset *v = bns_alloc(g->alloc, sizeof *v + o->metadata.len + 1);

    if (v == NULL)
        return NULL;
    *v = *o;
    if (o->metadata.len > 0)
        memcpy(v + 1, o->metadata.ptr, o->metadata.len);
    v->metadata = bns_slice(v + 1, o->metadata.len);
    return v;
}

/* Calls fn for each slot; it may release the slot. */
static void each_slot(const struct group *r, bool (*fn)(void *arg, struct offset_slot *s),
                      void *arg)
{
    struct bns_hnode *t = bns_hmap_next(&r->topics, NULL), *next_t;

    for (; t != NULL; t = next_t) {
        const struct bns_hmap *parts = &BNS_CONTAINER(t, struct offset_topic, node)->parts;
        struct bns_hnode *s = bns_hmap_next(parts, NULL), *next_s;
        next_t = bns_hmap_next(&r->topics, t);
        for (; s != NULL; s = next_s) {
            next_s = bns_hmap_next(parts, s);
            if (!fn(arg, BNS_CONTAINER(s, struct offset_slot, node)))
                return;
        }
    }
}

static bool free_slot(void *arg, struct offset_slot *s)
{
    (void)arg;
    kafka_slot_set(s, NULL);
    kafka_slot_release(s);
    return true;
}

void kafka_offsets_free(struct group *r)
{
    each_slot(r, free_slot, NULL);
    BNS_ASSERT(r->offsets_count == 0);
}

/* ---- commit ------------------------------------------------------------------------------------
 * */

/* Length in UTF-16 units, which is how Kafka counts. */
static size_t utf16_len(struct bns_slice s)
{
    size_t units = 0;

    for (size_t i = 0; i < s.len; i++)
        units += (size_t)((s.ptr[i] & 0xc0) != 0x80) + (size_t)(s.ptr[i] >= 0xf0);
    return units;
}

static int16_t may_commit(struct group *r, const struct kafka_group_who *w)
{
    struct member *m;
    int16_t error;

    if (r->state == KAFKA_GROUP_DEAD)
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    if (w->generation < 0 && r->state == KAFKA_GROUP_EMPTY)
        return KAFKA_GROUP_OK;
    if (w->generation < 0 && w->member_id.len == 0 && w->instance.ptr == NULL)
        return KAFKA_GROUP_E_UNKNOWN_MEMBER;
    error = kafka_member_check(r, w->member_id, w->instance);
    if (error != KAFKA_GROUP_OK)
        return error;
    if (w->generation != r->generation && !BNS_MUTANT(r->owner, KAFKA_GROUP_MUTANT_OLD_COMMIT))
        return KAFKA_GROUP_E_GENERATION;
    if (r->state == KAFKA_GROUP_COMPLETING)
        return KAFKA_GROUP_E_REBALANCE;
    m = kafka_member_find(r, w->member_id);
    if (!m->is_new)
        kafka_session_start(m);
    return KAFKA_GROUP_OK;
}

static bool commit_part(struct write *w, const struct kafka_commit *c, size_t i)
{
    struct kafka_groups *g = w->group->owner;
    const struct kafka_commit_part *p = &c->parts[i];
    struct offset_slot *slot = kafka_slot_get(w->group, p->topic, p->partition);
    struct kafka_offset *v = slot == NULL ? NULL : kafka_offset_dup(g, &p->offset);

    if (v != NULL) {
        v->commit_ms = g->wall_ms;
        v->expire_ms = -1;
        if (c->retention_ms != -1 &&
            __builtin_add_overflow(g->wall_ms, c->retention_ms, &v->expire_ms))
            v->expire_ms = INT64_MAX;
        if (kafka_write_offset(w, slot, v) == BNS_OK)
            return true;
        bns_free(g->alloc, v);
    }
    if (slot != NULL)
        kafka_slot_release(slot);
    return false;
}

static struct group *group_for_commit(struct kafka_groups *g, const struct kafka_commit *c,
                                      int16_t *error)
{
    struct group *r = kafka_group_find(g, c->who.group);

    if (r != NULL) {
        *error = may_commit(r, &c->who);
        return r;
    }
    *error = KAFKA_GROUP_OK;
    if (c->who.generation < 0)
        r = kafka_group_add(g, c->who.group);
    if (r == NULL)
        *error = c->who.generation < 0 ? KAFKA_GROUP_E_NOT_AVAILABLE
                 : c->not_found        ? KAFKA_GROUP_E_NOT_FOUND
                                       : KAFKA_GROUP_E_GENERATION;
    return r;
}

static void send_with(struct write *w, void *token)
{
    struct kafka_groups *g = w->group->owner;

    w->token = token;
    w->has_token = true;
    if (BNS_MUTANT(g, KAFKA_GROUP_MUTANT_COMMIT_EARLY)) {
        w->has_token = false;
        for (size_t i = 0; i < w->w.count; i++)
            if (w->items[i].value != NULL)
                kafka_slot_set(w->items[i].slot, kafka_offset_dup(g, w->items[i].value));
        kafka_write_send(w);
        g->ops.written(g->ops.arg, token, KAFKA_GROUP_OK);
        return;
    }
    kafka_write_send(w);
}

int16_t kafka_groups_commit(struct kafka_groups *g, const struct kafka_commit *c, void *token)
{
    int16_t error;
    struct group *r = group_for_commit(g, c, &error);
    struct write *w;

    if (error != KAFKA_GROUP_OK)
        return error;
    w = kafka_write_new(r, WRITE_OFFSETS, c->parts_count);
    if (w == NULL)
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    for (size_t i = 0; i < c->parts_count; i++) {
        struct kafka_commit_part *p = &c->parts[i];
        if (p->error == 0 && (utf16_len(p->offset.metadata) > g->cfg.metadata_max ||
                              p->offset.metadata.len > INT16_MAX))
            p->error = KAFKA_GROUP_E_METADATA_TOO_LARGE;
        if (p->error == 0 && !commit_part(w, c, i)) {
            kafka_write_free(w);
            return KAFKA_GROUP_E_NOT_AVAILABLE;
        }
    }
    if (w->w.count == 0) {
        kafka_write_free(w);
        return KAFKA_GROUP_NOTHING;
    }
    send_with(w, token);
    return KAFKA_GROUP_OK;
}

/* ---- fetch -------------------------------------------------------------------------------------
 * */

const struct kafka_offset *kafka_groups_offset(const struct kafka_groups *g, struct bns_slice group,
                                               struct bns_slice topic, int32_t partition)
{
    const struct group *r = kafka_group_find(g, group);
    const struct offset_slot *s = r == NULL ? NULL : kafka_slot_find(r, topic, partition);

    return s == NULL ? NULL : s->value;
}

struct telling {
    void (*fn)(void *arg, struct bns_slice topic, int32_t partition, const struct kafka_offset *o);
    void *arg;
};

static bool tell(void *arg, struct offset_slot *s)
{
    const struct telling *t = arg;

    if (s->value != NULL)
        t->fn(t->arg, bns_slice(s->topic->name, s->topic->len), s->partition, s->value);
    return true;
}

void kafka_groups_offsets(const struct kafka_groups *g, struct bns_slice group,
                          void (*fn)(void *arg, struct bns_slice topic, int32_t partition,
                                     const struct kafka_offset *o),
                          void *arg)
{
    const struct group *r = kafka_group_find(g, group);
    struct telling t = {fn, arg};

    if (r != NULL)
        each_slot(r, tell, &t);
}

/* ---- delete ------------------------------------------------------------------------------------
 * */

int16_t kafka_groups_offset_delete(struct kafka_groups *g, struct bns_slice group,
                                   struct kafka_offset_delete *parts, size_t count, void *token)
{
    struct group *r = kafka_group_find(g, group);
    struct write *w;

    if (r == NULL || r->state == KAFKA_GROUP_DEAD)
        return KAFKA_GROUP_E_NOT_FOUND;
    if (r->state != KAFKA_GROUP_EMPTY && !kafka_group_is_consumer(r))
        return KAFKA_GROUP_E_NOT_EMPTY;
    w = kafka_write_new(r, WRITE_OFFSETS, count);
    if (w == NULL)
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    for (size_t i = 0; i < count; i++) {
        struct offset_slot *s;
        if (parts[i].error == 0 && kafka_group_subscribed(r, parts[i].topic))
            parts[i].error = KAFKA_GROUP_E_SUBSCRIBED;
        s = parts[i].error == 0 ? kafka_slot_find(r, parts[i].topic, parts[i].partition) : NULL;
        if (s != NULL && kafka_write_offset(w, s, NULL) != BNS_OK) {
            kafka_write_free(w);
            return KAFKA_GROUP_E_NOT_AVAILABLE;
        }
    }
    if (w->w.count == 0) {
        kafka_write_free(w);
        return KAFKA_GROUP_NOTHING;
    }
    send_with(w, token);
    return KAFKA_GROUP_OK;
}

/* Tombstones for what goes, a write at a time. */
struct going {
    struct group *group;
    struct write *w;
    struct bns_slice topic; /* of this topic only, when ptr is set */
    bool (*goes)(const struct offset_slot *s);
    bool failed;
    size_t stay;
};

static bool bury(void *arg, struct offset_slot *s)
{
    struct going *d = arg;

    if (!d->goes(s)) {
        d->stay++;
        return true;
    }
    if (d->w != NULL && d->w->w.count == d->w->cap) {
        kafka_write_send(d->w);
        d->w = NULL;
    }
    if (d->w == NULL)
        d->w = kafka_write_new(d->group, WRITE_OFFSETS, TOMBSTONES_MAX);
    d->failed = d->w == NULL || kafka_write_offset(d->w, s, NULL) != BNS_OK;
    return !d->failed;
}

static void bury_end(struct going *d)
{
    if (d->w == NULL)
        return;
    if (d->w->w.count > 0)
        kafka_write_send(d->w);
    else
        kafka_write_free(d->w);
    d->w = NULL;
}

static bool all_go(const struct offset_slot *s)
{
    (void)s;
    return true;
}

/* Everything of an empty group goes, itself last. `alone`: its offsets are on their way out. */
static bool group_delete(struct group *r, bool alone, void *token, bool has_token)
{
    struct going d = {.group = r, .goes = all_go};
    struct write *last = kafka_write_new(r, WRITE_DELETE, 1);

    if (last == NULL)
        return false;
    if (kafka_write_gone(last) != BNS_OK) {
        kafka_write_free(last);
        return false;
    }
    if (!alone)
        each_slot(r, bury, &d);
    bury_end(&d);
    if (d.failed) {
        kafka_write_free(last);
        return false;
    }
    last->token = token;
    last->has_token = has_token;
    r->state = KAFKA_GROUP_DEAD;
    kafka_write_send(last);
    return true;
}

int16_t kafka_groups_delete(struct kafka_groups *g, struct bns_slice group, void *token)
{
    struct group *r = kafka_group_find(g, group);

    if (r == NULL || r->state == KAFKA_GROUP_DEAD)
        return KAFKA_GROUP_E_NOT_FOUND;
    if (r->state != KAFKA_GROUP_EMPTY)
        return KAFKA_GROUP_E_NOT_EMPTY;
    return group_delete(r, false, token, true) ? KAFKA_GROUP_OK : KAFKA_GROUP_E_NOT_AVAILABLE;
}

void kafka_groups_topic_deleted(struct kafka_groups *g, struct bns_slice topic)
{
    BNS_LIST_EACH(n, &g->all)
    {
        struct group *r = BNS_CONTAINER(n, struct group, all);
        struct offset_topic *t = topic_find(r, topic);
        struct going d = {.group = r, .goes = all_go};
        struct bns_hnode *s = t == NULL ? NULL : bns_hmap_next(&t->parts, NULL), *next;
        for (; s != NULL && !d.failed; s = next) {
            next = bns_hmap_next(&t->parts, s);
            (void)bury(&d, BNS_CONTAINER(s, struct offset_slot, node)); /* d.failed says it */
        }
        bury_end(&d);
    }
}

/* ---- expiry ------------------------------------------------------------------------------------
 * */

static bool expired(const struct offset_slot *s)
{
    const struct group *r = s->topic->group;
    const struct kafka_offset *v = s->value;
    int64_t now = r->owner->wall_ms, base;

    if (v == NULL || s->writes > 0)
        return false;
    if (!BNS_MUTANT(r->owner, KAFKA_GROUP_MUTANT_EXPIRE_LIVE) &&
        kafka_group_subscribed(r, bns_slice(s->topic->name, s->topic->len)))
        return false;
    if (v->expire_ms != -1)
        return now >= v->expire_ms;
    base = v->commit_ms;
    if (r->protocol_type.ptr != NULL && r->state == KAFKA_GROUP_EMPTY && r->state_ms != -1)
        base = r->state_ms;
    return now - base >= r->owner->cfg.offsets_retention_ms;
}

/* Whether offsets of a group may expire at all. */
static bool expiring(const struct group *r)
{
    if (BNS_MUTANT(r->owner, KAFKA_GROUP_MUTANT_EXPIRE_LIVE))
        return r->state != KAFKA_GROUP_DEAD;
    if (r->state == KAFKA_GROUP_DEAD)
        return false;
    if (r->protocol_type.ptr == NULL || r->state == KAFKA_GROUP_EMPTY)
        return true;
    return kafka_group_is_consumer(r) && r->state == KAFKA_GROUP_STABLE;
}

bool kafka_groups_expire(struct kafka_groups *g, uint32_t groups)
{
    struct bns_list *n = g->cursor == NULL ? g->all.next : g->cursor;

    for (uint32_t i = 0; i < groups && n != &g->all; i++) {
        struct group *r = BNS_CONTAINER(n, struct group, all);
        struct going d = {.group = r, .goes = expired};
        n = n->next;
        if (!expiring(r))
            continue;
        each_slot(r, bury, &d);
        bury_end(&d);
        if (!d.failed && d.stay == 0 && r->state == KAFKA_GROUP_EMPTY && r->joining_count == 0)
            (void)group_delete(r, true, NULL, false); /* without memory: the next time */
    }
    g->cursor = n == &g->all ? NULL : n;
    return g->cursor == NULL;
}
