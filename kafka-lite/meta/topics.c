/* topics.c - plans for creating and deleting topics, and for more partitions.
 *
 * The order of the checks, the numbers and the texts are those of Kafka's controller: names, then
 * configuration, then partitions and replicas. Entries of a request are good or bad on their own;
 * only more than 10,000 new partitions make the whole of it bad.
 */
#include <stdio.h>

#include "meta/describe.h"
#include "meta/plan.h"
#include "wire/uuid.h"

#define NAME_MAX_BYTES 249u
#define METADATA_TOPIC BNS_LIT("__cluster_metadata")
#define SHOWN(s) (int)((s).len < 250 ? (s).len : 250), (const char *)((s).len > 0 ? (s).ptr : NULL)

/* ---- names ---------------------------------------------------------------------------------- */

static bool name_letters(struct bns_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool kafka_topic_name_valid(struct bns_slice s)
{
    return s.len > 0 && s.len <= NAME_MAX_BYTES && !bns_slice_eq(s, BNS_LIT(".")) &&
           !bns_slice_eq(s, BNS_LIT("..")) && name_letters(s);
}

int kafka_topic_name_check(struct bns_arena *a, struct bns_slice s, struct kafka_fail *f)
{
    int rv = BNS_OK;

    if (s.len == 0)
        rv = kafka_fail_set(f, a, KAFKA_INVALID_TOPIC,
                            "Topic name is invalid: the empty string is not allowed");
    else if (bns_slice_eq(s, BNS_LIT(".")) || bns_slice_eq(s, BNS_LIT("..")))
        rv = kafka_fail_set(f, a, KAFKA_INVALID_TOPIC,
                            "Topic name is invalid: '%.*s' is not allowed", SHOWN(s));
    else if (s.len > NAME_MAX_BYTES)
        rv = kafka_fail_set(f, a, KAFKA_INVALID_TOPIC,
                            "Topic name is invalid: the length of '%.*s' is longer than the max "
                            "allowed length 249",
                            SHOWN(s));
    else if (!name_letters(s))
        rv = kafka_fail_set(f, a, KAFKA_INVALID_TOPIC,
                            "Topic name is invalid: '%.*s' contains one or more characters other "
                            "than ASCII alphanumerics, '.', '_' and '-'",
                            SHOWN(s));
    return rv;
}

/* Names that differ only in '.' and '_' collide in the names of metrics. They have everything up to
 * their first such letter in common: only that part of the order is looked through. */
static const struct kafka_topic *collision(const struct kafka_image *m, struct bns_slice name)
{
    const struct kafka_topic *t;
    size_t prefix = 0;

    while (prefix < name.len && name.ptr[prefix] != '.' && name.ptr[prefix] != '_')
        prefix++;
    if (prefix == name.len)
        return NULL;
    t = kafka_image_topic_from(m, bns_slice(name.ptr, prefix));
    for (; t != NULL; t = kafka_image_topic_next(t)) {
        bool same = t->name.len == name.len;
        if (t->name.len < prefix || memcmp(t->name.ptr, name.ptr, prefix) != 0)
            return NULL;
        for (size_t i = prefix; same && i < name.len; i++) {
            uint8_t a = t->name.ptr[i], b = name.ptr[i];
            same = a == b || ((a == '.' || a == '_') && (b == '.' || b == '_'));
        }
        if (same)
            return t;
    }
    return NULL;
}

static int check_name(struct kafka_plan *p, struct bns_slice name, struct kafka_fail *f)
{
    const struct kafka_topic *t;
    int rv;

    if (bns_slice_eq(name, METADATA_TOPIC))
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Creation of internal topic __cluster_metadata is prohibited.");
    rv = kafka_topic_name_check(p->arena, name, f);
    if (rv != BNS_OK || f->error != 0)
        return rv;
    if (kafka_image_topic(p->m->image, name) != NULL)
        return kafka_fail_set(f, p->arena, KAFKA_TOPIC_EXISTS, "Topic '%.*s' already exists.",
                              SHOWN(name));
    t = collision(p->m->image, name);
    if (t != NULL)
        rv = kafka_fail_set(f, p->arena, KAFKA_INVALID_TOPIC,
                            "Topic '%.*s' collides with existing topic: %.*s", SHOWN(name),
                            SHOWN(t->name));
    return rv;
}

/* Where a topic is claimed: names that collide are one claim. */
static bool claim_name(struct kafka_plan *p, struct bns_slice name)
{
    uint8_t plain[NAME_MAX_BYTES];

    if (name.len > sizeof plain)
        return true; /* no such topic can be */
    for (size_t i = 0; i < name.len; i++)
        plain[i] = name.ptr[i] == '.' ? '_' : name.ptr[i];
    return kafka_plan_claim(p, KAFKA_RESOURCE_TOPIC, bns_slice(plain, name.len));
}

bool kafka_plan_claim_topic(struct kafka_plan *p, struct bns_slice name)
{
    return claim_name(p, name);
}

/* ---- partitions ----------------------------------------------------------------------------- */

static int add_partition(struct kafka_plan *p, const struct kafka_uuid *id, int32_t index,
                         const int32_t *replicas, uint32_t count)
{
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_PARTITION, .id = *id};

    r.partition = (struct kafka_partition_state){.index = index,
                                                 .leader = replicas[0],
                                                 .replicas = replicas,
                                                 .replicas_count = count,
                                                 .isr = replicas,
                                                 .isr_count = count};
    return kafka_plan_add(p, &r);
}

static int check_replicas(struct kafka_plan *p, const int32_t *ids, int32_t count,
                          struct kafka_fail *f)
{
    int32_t self = p->m->cfg.node_id;

    if (count <= 0)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_ASSIGNMENT,
                              "The manual partition assignment includes an empty replica list.");
    for (int32_t i = 0; i < count; i++) {
        if (ids[i] != self)
            return kafka_fail_set(f, p->arena, KAFKA_INVALID_ASSIGNMENT,
                                  "The manual partition assignment includes broker %d, but no such "
                                  "broker is registered.",
                                  ids[i]);
    }
    if (count > 1)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_ASSIGNMENT,
                              "The manual partition assignment includes the broker %d more than "
                              "once.",
                              self);
    return BNS_OK;
}

static int check_assignments(struct kafka_plan *p,
                             const struct kafka_create_topics_request_topics *t,
                             struct kafka_fail *f)
{
    int32_t count = t->assignments.count;
    uint8_t *seen = bns_arena_alloc(p->arena, (size_t)count);
    int32_t found = 0;
    int rv = seen == NULL ? BNS_E_NOMEM : BNS_OK;

    if (rv == BNS_OK && t->replication_factor != -1)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "A manual partition assignment was specified, but replication factor "
                              "was not set to -1.");
    if (rv == BNS_OK && t->num_partitions != -1)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "A manual partition assignment was specified, but numPartitions was "
                              "not set to -1.");
    if (rv == BNS_OK)
        memset(seen, 0, (size_t)count);
    for (int32_t i = 0; i < count && rv == BNS_OK && f->error == 0; i++) {
        const struct kafka_create_topics_request_assignments *a = &t->assignments.at[i];
        bool inside = a->partition_index >= 0 && a->partition_index < count;
        if (inside && seen[a->partition_index])
            return kafka_fail_set(f, p->arena, KAFKA_INVALID_ASSIGNMENT,
                                  "Found multiple manual partition assignments for partition %d",
                                  a->partition_index);
        if (inside) {
            seen[a->partition_index] = 1;
            found++;
        }
        rv = check_replicas(p, a->broker_ids.at, a->broker_ids.count, f);
    }
    if (rv == BNS_OK && f->error == 0 && found < count)
        rv = kafka_fail_set(f, p->arena, KAFKA_INVALID_ASSIGNMENT,
                            "partitions should be a consecutive 0-based integer sequence");
    return rv;
}

static int check_replication(struct kafka_plan *p, int32_t factor, struct kafka_fail *f)
{
    if (factor > 1)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REPLICATION,
                              "Unable to replicate the partition %d time(s): The target "
                              "replication factor of %d cannot be reached because only 1 "
                              "broker(s) are registered or some brokers have all their log "
                              "directories cordoned.",
                              factor, factor);
    return BNS_OK;
}

static int32_t broker_number(const struct kafka_plan *p, const char *key)
{
    int64_t v = 1;

    if (kafka_config_number(kafka_config_trim(kafka_meta_broker_value(p->m, key)), &v) != BNS_OK ||
        v < 1 || v > INT32_MAX)
        v = 1;
    return (int32_t)v;
}

/* How many partitions it is to have; what is wrong with that goes into f. */
static int check_shape(struct kafka_plan *p, const struct kafka_create_topics_request_topics *t,
                       int32_t *partitions, struct kafka_fail *f)
{
    int32_t factor = t->replication_factor;

    if (t->assignments.count > 0) {
        *partitions = t->assignments.count;
        return check_assignments(p, t, f);
    }
    if (factor < -1 || factor == 0)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REPLICATION,
                              "Replication factor must be larger than 0, or -1 to use the default "
                              "value.");
    if (t->num_partitions < -1 || t->num_partitions == 0)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_PARTITIONS,
                              "Number of partitions was set to an invalid non-positive value.");
    *partitions = t->num_partitions == -1 ? broker_number(p, "num.partitions") : t->num_partitions;
    return check_replication(
        p, factor == -1 ? broker_number(p, "default.replication.factor") : factor, f);
}

/* ---- create --------------------------------------------------------------------------------- */

static int make_id(struct kafka_plan *p, struct kafka_uuid *id)
{
    do { /* a version 4 one, whose text does not look like an option of a command */
        if (bns_entropy(p->m->env, id->bytes, sizeof id->bytes) != BNS_OK)
            return BNS_E_INTERNAL;
        id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | 0x40);
        id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
    } while ((id->bytes[0] >> 2) == 62 || kafka_image_topic_by_id(p->m->image, id) != NULL);
    return BNS_OK;
}

static int draft_configs(struct kafka_plan *p, const struct kafka_create_topics_request_topics *t,
                         struct kafka_draft *d, struct kafka_fail *f)
{
    size_t count = t->configs.count > 0 ? (size_t)t->configs.count : 0;
    int rv;

    d->resource = KAFKA_RESOURCE_TOPIC;
    d->name = t->name;
    if (count > KAFKA_CONFIGS_MAX)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_CONFIG,
                              "Over %d configuration entries for one topic.", KAFKA_CONFIGS_MAX);
    rv = kafka_draft_begin(d, p->arena, count);
    for (size_t i = 0; i < count && rv == BNS_OK && f->error == 0; i++) {
        if (t->configs.at[i].value.ptr == NULL)
            rv = kafka_fail_set(f, p->arena, KAFKA_INVALID_CONFIG,
                                "Null value not supported for topic configs: %.*s",
                                SHOWN(t->configs.at[i].name));
        else
            kafka_draft_set(d, t->configs.at[i].name, t->configs.at[i].value);
    }
    if (rv == BNS_OK && f->error == 0)
        rv = kafka_draft_check(d, p, f);
    return rv;
}

static int create_records(struct kafka_plan *p, const struct kafka_create_topics_request_topics *t,
                          const struct kafka_draft *d, const struct kafka_uuid *id,
                          int32_t partitions)
{
    struct kafka_meta_record r = {.kind = KAFKA_RECORD_TOPIC, .id = *id, .name = t->name};
    int32_t self = p->m->cfg.node_id;
    int rv = kafka_plan_add(p, &r);

    if (rv == BNS_OK)
        rv = kafka_draft_records(d, p);
    for (int32_t i = 0; i < partitions && rv == BNS_OK; i++)
        rv = add_partition(p, id, i, &self, 1);
    return rv;
}

static int plan_create(struct kafka_plan *p, const struct kafka_create_topics_request_topics *t,
                       bool validate_only, struct kafka_create_topics_response_topics *a)
{
    struct kafka_fail f = {.error = 0};
    struct kafka_draft d = {.now = NULL};
    int32_t partitions = 0;
    int rv = check_name(p, t->name, &f);

    if (rv == BNS_OK && f.error == 0)
        rv = draft_configs(p, t, &d, &f);
    if (rv == BNS_OK && f.error == 0)
        rv = check_shape(p, t, &partitions, &f);
    if (rv == BNS_OK && f.error == 0)
        rv = make_id(p, &a->topic_id);
    if (rv == BNS_OK && f.error == 0 && !validate_only)
        rv = create_records(p, t, &d, &a->topic_id, partitions);
    if (rv == BNS_OK && f.error == 0) {
        a->num_partitions = partitions;
        a->replication_factor = 1;
        rv = kafka_describe_created(p->m, p->arena, &d, a);
    }
    a->error_code = f.error;
    a->error_message = f.text;
    return rv;
}

/* Over the limit, or not: of the whole request. */
static bool too_many(const struct kafka_plan *p, const struct kafka_create_topics_request *q)
{
    int64_t total = 0;

    for (int32_t i = 0; i < q->topics.count; i++) {
        const struct kafka_create_topics_request_topics *t = &q->topics.at[i];
        if (t->assignments.count > 0)
            total += t->assignments.count;
        else if (t->num_partitions == -1)
            total += broker_number(p, "num.partitions");
        else if (t->num_partitions > 0)
            total += t->num_partitions;
    }
    return total > KAFKA_REQUEST_PARTITIONS_MAX;
}

static void preset_created(struct kafka_create_topics_response_topics *a, struct bns_slice name)
{
    memset(a, 0, sizeof *a);
    a->name = name;
    a->num_partitions = -1;
    a->replication_factor = -1;
}

int kafka_plan_create_topics(struct kafka_plan *p, const struct kafka_create_topics_request *q,
                             struct kafka_create_topics_response *a)
{
    size_t count = q->topics.count > 0 ? (size_t)q->topics.count : 0;
    struct bns_slice *names = bns_arena_alloc(p->arena, (count + 1) * sizeof *names);
    bool many = too_many(p, q);
    uint8_t *repeats;
    int rv = BNS_OK;

    memset(a, 0, sizeof *a);
    a->topics.at = bns_arena_alloc(p->arena, (count + 1) * sizeof *a->topics.at);
    if (names == NULL || a->topics.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        names[i] = q->topics.at[i].name;
    repeats = kafka_repeats(p->arena, names, count);
    if (repeats == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count && rv == BNS_OK; i++) {
        struct kafka_create_topics_response_topics *t = &a->topics.at[a->topics.count];
        struct kafka_fail f = {.error = 0};

        if (repeats[i] == 2)
            continue;
        if (!claim_name(p, names[i]))
            return KAFKA_BLOCKED;
        preset_created(t, names[i]);
        a->topics.count++;
        if (many)
            rv = kafka_fail_set(&f, p->arena, KAFKA_POLICY_VIOLATION,
                                "Excessively large number of partitions per request.");
        else if (repeats[i] == 1)
            rv = kafka_fail_set(&f, p->arena, KAFKA_INVALID_REQUEST, "Duplicate topic name.");
        else
            rv = plan_create(p, &q->topics.at[i], q->validate_only, t);
        if (f.error != 0) {
            t->error_code = f.error;
            t->error_message = f.text;
        }
    }
    return rv;
}

/* ---- more partitions ------------------------------------------------------------------------ */

static int check_growth(struct kafka_plan *p,
                        const struct kafka_create_partitions_request_topics *q,
                        const struct kafka_topic *t, struct kafka_fail *f)
{
    int32_t more, have = t->partitions_count;
    int rv = BNS_OK;

    if (q->count == have)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_PARTITIONS,
                              "Topic already has %d partition(s).", have);
    if (q->count < have)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_PARTITIONS,
                              "The topic %.*s currently has %d partition(s); %d would not be an "
                              "increase.",
                              SHOWN(t->name), have, q->count);
    more = q->count - have;
    if (q->assignments.count >= 0 && q->assignments.count != more)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_ASSIGNMENT,
                              "Attempted to add %d additional partition(s), but only %d "
                              "assignment(s) were specified.",
                              more, q->assignments.count);
    if (more > KAFKA_REQUEST_PARTITIONS_MAX || q->count > KAFKA_PARTITIONS_MAX)
        f->error = KAFKA_UNKNOWN_SERVER_ERROR;
    for (int32_t i = 0; i < q->assignments.count && rv == BNS_OK && f->error == 0; i++)
        rv = check_replicas(p, q->assignments.at[i].broker_ids.at,
                            q->assignments.at[i].broker_ids.count, f);
    return rv;
}

static int plan_growth(struct kafka_plan *p, const struct kafka_create_partitions_request_topics *q,
                       bool validate_only, struct kafka_create_partitions_response_results *a)
{
    const struct kafka_topic *t = kafka_image_topic(p->m->image, q->name);
    struct kafka_fail f = {.error = KAFKA_UNKNOWN_TOPIC};
    int32_t self = p->m->cfg.node_id;
    int rv = BNS_OK;

    if (t != NULL) {
        f.error = 0;
        rv = check_growth(p, q, t, &f);
    }
    if (rv == BNS_OK && f.error == 0 && !validate_only &&
        p->records_count + (uint32_t)(q->count - t->partitions_count) >
            KAFKA_REQUEST_PARTITIONS_MAX)
        f.error = KAFKA_UNKNOWN_SERVER_ERROR;
    if (rv == BNS_OK && f.error == 0 && !validate_only) {
        for (int32_t i = t->partitions_count; i < q->count && rv == BNS_OK; i++)
            rv = add_partition(p, &t->id, i, &self, 1);
    }
    a->error_code = f.error;
    a->error_message = f.text;
    return rv;
}

int kafka_plan_create_partitions(struct kafka_plan *p,
                                 const struct kafka_create_partitions_request *q,
                                 struct kafka_create_partitions_response *a)
{
    size_t count = q->topics.count > 0 ? (size_t)q->topics.count : 0;
    struct bns_slice *names = bns_arena_alloc(p->arena, (count + 1) * sizeof *names);
    uint8_t *repeats;
    int rv = BNS_OK;

    memset(a, 0, sizeof *a);
    a->results.at = bns_arena_alloc(p->arena, (count + 1) * sizeof *a->results.at);
    if (names == NULL || a->results.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++)
        names[i] = q->topics.at[i].name;
    repeats = kafka_repeats(p->arena, names, count);
    if (repeats == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count && rv == BNS_OK; i++) {
        struct kafka_create_partitions_response_results *t = &a->results.at[a->results.count];
        struct kafka_fail f = {.error = 0};

        if (repeats[i] == 2)
            continue;
        if (!claim_name(p, names[i]))
            return KAFKA_BLOCKED;
        memset(t, 0, sizeof *t);
        t->name = names[i];
        a->results.count++;
        if (repeats[i] == 0) {
            rv = plan_growth(p, &q->topics.at[i], q->validate_only, t);
            continue;
        }
        rv = kafka_fail_set(&f, p->arena, KAFKA_INVALID_REQUEST, "Duplicate topic name.");
        t->error_code = f.error;
        t->error_message = f.text;
    }
    return rv;
}
