/* write.c - records on their way out, and what happens when they are durable or are not.
 *
 * A write carries what it will do: the values of offsets, ready made, so that nothing can fail when
 * it is durable; the number of the leader's sync or of the static member's join that it belongs to,
 * so that a later one is not taken for it. Its group stays until the write has come back.
 *
 *   META     nothing waits for it: a group that became empty
 *   SYNC     the assignment of a round: then it is given out
 *   STATIC   the new id of a static member: then its join is answered, or its old id comes back
 *   OFFSETS  commits and tombstones: then they are told, and the request is answered
 *   DELETE   the tombstone of a group: then it is gone
 */
#include "group/group_int.h"

#define WRITE_BYTES_MAX (100u * 1024 * 1024) /* a segment of the topic */

struct write *kafka_write_new(struct group *r, enum write_kind kind, size_t records)
{
    struct kafka_groups *g = r->owner;
    struct write *w = bns_alloc_zero(g->alloc, sizeof *w);
    size_t each = sizeof *w->records + sizeof *w->marks + sizeof *w->items, bytes;

    if (w == NULL)
        return NULL;
    bns_list_init(&w->all);
    bns_list_init(&w->w.node);
    bns_buf_init(&w->bytes, g->alloc, WRITE_BYTES_MAX);
    w->kind = kind;
    w->group = r;
    w->cap = records;
    if (__builtin_mul_overflow(records, each, &bytes) ||
        (w->records = bns_alloc_zero(g->alloc, bytes + 1)) == NULL) {
        bns_free(g->alloc, w);
        return NULL;
    }
    w->marks = (struct write_mark *)(void *)(w->records + records);
    w->items = (struct write_item *)(void *)(w->marks + records);
    return w;
}

void kafka_write_free(struct write *w)
{
    struct kafka_groups *g = w->group->owner;

    if (w->kind == WRITE_OFFSETS || w->kind == WRITE_DELETE)
        for (size_t i = 0; i < w->w.count; i++)
            if (w->items[i].slot != NULL) {
                bns_free(g->alloc, w->items[i].value);
                w->items[i].slot->writes--;
                kafka_slot_release(w->items[i].slot);
            }
    if (w->sent) {
        bns_list_del(&w->all);
        w->group->writes--;
        g->writes_count--;
    }
    kafka_slice_free(g->alloc, &w->member_id);
    kafka_slice_free(g->alloc, &w->old_id);
    bns_buf_free(&w->bytes);
    bns_free(g->alloc, w->records);
    bns_free(g->alloc, w);
}

static int begin(struct write *w, const struct kafka_group_key *key)
{
    struct write_mark *mark = &w->marks[w->w.count];
    int rv;

    BNS_ASSERT(w->w.count < w->cap);
    mark->key = w->bytes.len;
    rv = kafka_group_key_put(&w->bytes, key);
    mark->value = w->bytes.len;
    return rv;
}

static void end(struct write *w, bool gone)
{
    w->marks[w->w.count].end = w->bytes.len;
    w->marks[w->w.count++].gone = gone;
}

static int put_member(struct write *w, const struct member *m, bool next)
{
    const struct group *r = w->group;
    struct bns_slice assignment = next ? m->assignment_next : m->assignment;
    struct kafka_group_meta_member v = {
        .id = m->id,
        .instance = m->instance,
        .client_id = m->client_id,
        .client_host = m->client_host,
        .subscription = kafka_member_metadata(m, r->protocol),
        .assignment = assignment,
        .rebalance_ms = m->rebalance_ms < 0 ? m->session_ms : m->rebalance_ms,
        .session_ms = m->session_ms,
    };

    return kafka_group_member_put(&w->bytes, &v);
}

/* The group as it is, with the assignments that it has or (`next`) that it will have. */
int kafka_write_meta(struct write *w, bool next)
{
    struct group *r = w->group;
    struct kafka_group_key key = {.kind = KAFKA_GROUP_META, .group = r->id};
    struct kafka_group_meta meta = {
        .protocol_type = r->protocol_type,
        .generation = r->generation,
        .protocol = r->protocol,
        .leader = r->leader == NULL ? kafka_none : r->leader->id,
        .state_ms = r->state_ms,
        .members_count = (uint32_t)r->members_count,
    };
    int rv = begin(w, &key);

    if (rv == BNS_OK)
        rv = kafka_group_meta_put(&w->bytes, &meta);
    BNS_LIST_EACH(n, &r->members)
    if (rv == BNS_OK)
        rv = put_member(w, BNS_CONTAINER(n, struct member, node), next);
    if (rv == BNS_OK)
        end(w, false);
    return rv;
}

int kafka_write_gone(struct write *w)
{
    struct kafka_group_key key = {.kind = KAFKA_GROUP_META, .group = w->group->id};
    int rv = begin(w, &key);

    if (rv == BNS_OK)
        end(w, true);
    return rv;
}

int kafka_write_offset(struct write *w, struct offset_slot *slot, struct kafka_offset *value)
{
    struct kafka_group_key key = {
        .kind = KAFKA_GROUP_OFFSET,
        .group = w->group->id,
        .topic = bns_slice(slot->topic->name, slot->topic->len),
        .partition = slot->partition,
    };
    int rv = begin(w, &key);

    if (rv == BNS_OK && value != NULL)
        rv = kafka_offset_put(&w->bytes, value);
    if (rv != BNS_OK)
        return rv;
    w->items[w->w.count] = (struct write_item){slot, value};
    slot->writes++;
    end(w, value == NULL);
    return BNS_OK;
}

void kafka_write_send(struct write *w)
{
    struct kafka_groups *g = w->group->owner;

    BNS_ASSERT(w->w.count > 0);
    for (size_t i = 0; i < w->w.count; i++) {
        const struct write_mark *m = &w->marks[i];
        w->records[i].key = bns_slice(w->bytes.ptr + m->key, m->value - m->key);
        w->records[i].value =
            m->gone ? kafka_none : bns_slice(w->bytes.ptr + m->value, m->end - m->value);
    }
    w->w.group = w->group->id;
    w->w.records = w->records;
    w->w.bytes = w->bytes.len;
    w->sent = true;
    bns_list_push(&g->writes, &w->all);
    w->group->writes++;
    g->writes_count++;
    g->ops.persist(g->ops.arg, &w->w);
}

/* ---- they come back ----------------------------------------------------------------------------
 * */

/* What a client is told when a group could not be written. */
static int16_t meta_error(int16_t e)
{
    switch (e) {
    case 3:  /* UNKNOWN_TOPIC_OR_PARTITION */
    case 7:  /* REQUEST_TIMED_OUT */
    case 19: /* NOT_ENOUGH_REPLICAS */
        return KAFKA_GROUP_E_NOT_AVAILABLE;
    case 6:        /* NOT_LEADER_OR_FOLLOWER */
    case 56:       /* KAFKA_STORAGE_ERROR */
        return 16; /* NOT_COORDINATOR */
    case 4:        /* INVALID_FETCH_SIZE */
    case 10:       /* MESSAGE_TOO_LARGE */
    case 18:       /* RECORD_LIST_TOO_LARGE */
        return -1; /* UNKNOWN_SERVER_ERROR */
    default:
        return e;
    }
}

/* The same for offsets. */
static int16_t offset_error(int16_t e)
{
    return e == 4 || e == 10 || e == 18 ? 28 /* INVALID_COMMIT_OFFSET_SIZE */ : meta_error(e);
}

static void static_written(struct write *w, int16_t error)
{
    struct group *r = w->group;
    struct member *m = kafka_member_find(r, w->member_id);
    bool leads = m != NULL && m == r->leader, list = leads && w->can_skip;
    struct bns_slice leader;

    if (m == NULL || m->join_seq != w->seq)
        return; /* it has been answered */
    if (error != KAFKA_GROUP_OK) {
        struct bns_slice now = kafka_none;
        kafka_join_end(m, meta_error(error), kafka_none);
        if (kafka_member_rename(m, w->old_id, &now))
            kafka_slice_free(r->owner->alloc, &now);
        kafka_session_start(m);
        return;
    }
    /* Who cannot be told to skip the assignment must not take itself for the leader. */
    leader = leads && !w->can_skip ? w->old_id : r->leader->id;
    kafka_joined_now(m, list, leader, list);
    kafka_session_start(m);
}

static void offsets_written(struct write *w, int16_t error)
{
    for (size_t i = 0; i < w->w.count && error == KAFKA_GROUP_OK; i++)
        if (w->items[i].slot != NULL) {
            kafka_slot_set(w->items[i].slot, w->items[i].value);
            w->items[i].value = NULL;
        }
}

void kafka_groups_persisted(struct kafka_groups *g, struct kafka_group_write *kw, int16_t error)
{
    struct write *w = BNS_CONTAINER(kw, struct write, w);
    struct group *r = w->group;
    enum write_kind kind = w->kind;
    bool answer = w->has_token;
    void *token = w->token;

    BNS_ASSERT(w->sent);
    switch (kind) {
    case WRITE_META:
        break;
    case WRITE_SYNC:
        kafka_group_assigned(r, w->seq, meta_error(error));
        break;
    case WRITE_STATIC:
        static_written(w, error);
        break;
    case WRITE_OFFSETS:
    case WRITE_DELETE:
        offsets_written(w, error);
        break;
    }
    kafka_write_free(w);
    if (kind == WRITE_DELETE && error == KAFKA_GROUP_OK)
        kafka_group_drop(r);
    else if (kind == WRITE_DELETE)
        r->state = KAFKA_GROUP_EMPTY;
    if (answer)
        g->ops.written(g->ops.arg, token, offset_error(error));
}
