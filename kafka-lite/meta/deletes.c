/* deletes.c - the plan for deleting topics, by name or by id.
 *
 * A topic may be meant by its name and by its id in one request: that is an error of both. */
#include "meta/plan.h"

static bool is_zero(const struct kafka_uuid *id)
{
    static const struct kafka_uuid zero;

    return memcmp(id->bytes, zero.bytes, sizeof zero.bytes) == 0;
}

struct target {
    struct bns_slice name; /* as asked; ptr NULL: by id */
    struct kafka_uuid id;
    const struct kafka_topic *topic;
};

static void target_of(const struct kafka_plan *p, const struct kafka_delete_topics_request *q,
                      size_t i, struct target *t)
{
    size_t first = q->topics.count > 0 ? (size_t)q->topics.count : 0;

    memset(t, 0, sizeof *t);
    if (i < first) {
        t->name = q->topics.at[i].name;
        t->id = q->topics.at[i].topic_id;
    } else {
        t->name = q->topic_names.at[i - first];
    }
    t->topic = t->name.ptr != NULL ? kafka_image_topic(p->m->image, t->name)
                                   : kafka_image_topic_by_id(p->m->image, &t->id);
}

static int plan_delete(struct kafka_plan *p, const struct target *t,
                       struct kafka_delete_topics_response_responses *a)
{
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_REMOVE_TOPIC};
    struct kafka_fail f = {.error = 0};
    int rv = BNS_OK;

    if (t->name.ptr != NULL && !is_zero(&t->id)) {
        a->topic_id = t->id;
        rv = kafka_fail_set(&f, p->arena, KAFKA_INVALID_REQUEST,
                            "You may not specify both topic name and topic id.");
    } else if (t->name.ptr == NULL && is_zero(&t->id)) {
        rv = kafka_fail_set(&f, p->arena, KAFKA_INVALID_REQUEST,
                            "Neither topic name nor id were specified.");
    } else if (!kafka_config_true(kafka_meta_broker_value(p->m, "delete.topic.enable"))) {
        f.error = KAFKA_DELETION_DISABLED;
        f.text = bns_slice_str(kafka_error_text(f.error));
    } else if (t->topic == NULL) {
        f.error = t->name.ptr != NULL ? KAFKA_UNKNOWN_TOPIC : KAFKA_UNKNOWN_TOPIC_ID;
        f.text = bns_slice_str(kafka_error_text(f.error));
        a->topic_id = t->id;
    } else {
        void *name = bns_arena_dup(p->arena, t->topic->name.ptr, t->topic->name.len);
        if (name == NULL)
            return BNS_E_NOMEM;
        a->name = bns_slice(name, t->topic->name.len); /* the topic's own goes with it */
        a->topic_id = t->topic->id;
        r.id = t->topic->id;
        rv = kafka_plan_add(p, &r);
    }
    a->error_code = f.error;
    a->error_message = f.text;
    return rv;
}

/* Names, then the names that ids stand for: a repeat is an error. An id nobody has stands for
 * itself. */
static uint8_t *repeats_of(struct kafka_plan *p, const struct target *t, size_t count)
{
    struct bns_slice *keys = bns_arena_alloc(p->arena, (count + 1) * sizeof *keys);

    if (keys == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        bool both = t[i].name.ptr != NULL && !is_zero(&t[i].id);
        bool none = t[i].name.ptr == NULL && is_zero(&t[i].id);

        if (both || none)
            keys[i] = bns_slice(NULL, 0);
        else if (t[i].topic != NULL)
            keys[i] = t[i].topic->name;
        else if (t[i].name.ptr != NULL)
            keys[i] = t[i].name;
        else
            keys[i] = bns_slice(t[i].id.bytes, sizeof t[i].id.bytes);
    }
    return kafka_repeats(p->arena, keys, count);
}

int kafka_plan_delete_topics(struct kafka_plan *p, const struct kafka_delete_topics_request *q,
                             struct kafka_delete_topics_response *a)
{
    size_t count = (q->topics.count > 0 ? (size_t)q->topics.count : 0) +
                   (q->topic_names.count > 0 ? (size_t)q->topic_names.count : 0);
    struct target *t = bns_arena_alloc(p->arena, (count + 1) * sizeof *t);
    uint8_t *repeats;
    int rv = BNS_OK;

    memset(a, 0, sizeof *a);
    a->responses.at = bns_arena_alloc(p->arena, (count + 1) * sizeof *a->responses.at);
    if (t == NULL || a->responses.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        target_of(p, q, i, &t[i]);
    repeats = repeats_of(p, t, count);
    if (repeats == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count && rv == BNS_OK; i++) {
        struct kafka_delete_topics_response_responses *r = &a->responses.at[a->responses.count];
        struct kafka_fail f = {.error = 0};

        if (repeats[i] == 2)
            continue;
        if (!kafka_plan_claim_topic(p, t[i].topic != NULL ? t[i].topic->name : t[i].name))
            return KAFKA_BLOCKED;
        memset(r, 0, sizeof *r);
        r->name = t[i].name;
        a->responses.count++;
        if (repeats[i] == 0) {
            rv = plan_delete(p, &t[i], r);
            continue;
        }
        rv =
            kafka_fail_set(&f, p->arena, KAFKA_INVALID_REQUEST,
                           t[i].name.ptr != NULL ? "Duplicate topic name." : "Duplicate topic id.");
        r->topic_id = t[i].id;
        r->error_code = f.error;
        r->error_message = f.text;
    }
    return rv;
}
