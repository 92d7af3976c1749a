/* configs.c - plans for altering configurations.
 *
 * A resource's changes go into a draft of its whole configuration, which is checked as a whole;
 * only what is different becomes records. The order of the checks, their numbers and their texts
 * are those of Kafka's broker and controller.
 */
#include <stdio.h>

#include "meta/plan.h"

enum { OP_SET, OP_DELETE, OP_APPEND, OP_SUBTRACT };

#define SHOWN(s) (int)((s).len < 200 ? (s).len : 200), (const char *)((s).len > 0 ? (s).ptr : NULL)

struct change {
    struct bns_slice name, value;
    int8_t op;
};

struct resource { /* of either of the two requests */
    int8_t type;
    struct bns_slice name;
    struct change *changes;
    size_t count;
    bool replace; /* what is not named goes */
    struct kafka_fail fail;
};

/* ---- what a broker's resource allows -------------------------------------------------------- */

static int check_broker_name(struct kafka_plan *p, const struct resource *r, struct kafka_fail *f)
{
    int64_t id;

    if (r->name.len == 0)
        return BNS_OK;
    if (kafka_config_number(r->name, &id) != BNS_OK || id < INT32_MIN || id > INT32_MAX)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Node id must be an integer, but it is: %.*s", SHOWN(r->name));
    if (id != p->m->cfg.node_id)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Unexpected broker id, expected %d, but received %.*s",
                              p->m->cfg.node_id, SHOWN(r->name));
    return BNS_OK;
}

/* The names of keys that break a rule, as Java prints a set; "" when there are none. */
static size_t list_keys(const struct resource *r, bool (*breaks)(const struct kafka_config_key *k),
                        char *to, size_t size)
{
    size_t len = 0;

    to[0] = '\0';
    for (size_t i = 0; i < r->count; i++) {
        const struct kafka_config_key *k = kafka_broker_key(r->changes[i].name);
        if (k == NULL || !breaks(k) || len >= size)
            continue;
        len += (size_t)snprintf(to + len, size - len, "%s%s", len > 0 ? ", " : "", k->name);
    }
    return len;
}

static bool is_static(const struct kafka_config_key *k)
{
    return !k->dynamic;
}

static bool is_per_broker(const struct kafka_config_key *k)
{
    return k->per_broker;
}

static int check_broker_keys(struct kafka_plan *p, const struct resource *r, struct kafka_fail *f)
{
    char names[160];

    if (list_keys(r, is_static, names, sizeof names) > 0)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Cannot update these configs dynamically: [%s]", names);
    if (r->name.len == 0 && list_keys(r, is_per_broker, names, sizeof names) > 0)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Cannot update these configs at default cluster level, broker id "
                              "must be specified: [%s]",
                              names);
    return BNS_OK;
}

/* ---- one resource --------------------------------------------------------------------------- */

static int check_changes(struct kafka_plan *p, const struct resource *r, struct kafka_fail *f)
{
    struct bns_slice *names = bns_arena_alloc(p->arena, (r->count + 1) * sizeof *names);
    uint8_t *repeats;

    if (names == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < r->count; i++)
        names[i] = r->changes[i].name;
    repeats = kafka_repeats(p->arena, names, r->count);
    if (repeats == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < r->count; i++) {
        if (repeats[i] != 0)
            return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                                  "Error due to duplicate config keys");
    }
    for (size_t i = 0; i < r->count; i++) {
        if (r->changes[i].value.ptr == NULL && r->changes[i].op != OP_DELETE)
            return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                                  "Null value not supported for : %.*s", SHOWN(names[i]));
    }
    if (r->count > KAFKA_CONFIGS_MAX)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Over %d configuration entries for one resource.", KAFKA_CONFIGS_MAX);
    return BNS_OK;
}

static int check_resource(struct kafka_plan *p, const struct resource *r, struct kafka_fail *f)
{
    int rv = check_changes(p, r, f);

    if (rv != BNS_OK || f->error != 0)
        return rv;
    if (r->type == KAFKA_RESOURCE_BROKER) {
        rv = check_broker_name(p, r, f);
        return rv == BNS_OK && f->error == 0 ? check_broker_keys(p, r, f) : rv;
    }
    if (r->type != KAFKA_RESOURCE_TOPIC)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST, "Unknown resource type %d",
                              r->type);
    if (r->name.len == 0)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_REQUEST,
                              "Default topic resources are not allowed.");
    if (kafka_image_topic(p->m->image, r->name) == NULL)
        return kafka_fail_set(f, p->arena, KAFKA_UNKNOWN_TOPIC, "The topic '%.*s' does not exist.",
                              SHOWN(r->name));
    return BNS_OK;
}

static bool list_has(struct bns_slice list, struct bns_slice what)
{
    struct bns_slice e = {NULL, 0};

    while (kafka_config_element(&list, &e)) {
        if (bns_slice_eq(e, what))
            return true;
    }
    return false;
}

/* `list` with the elements of `more`, or without them. Empty elements are none. */
static int change_list(struct kafka_plan *p, struct bns_slice list, struct bns_slice more, bool add,
                       struct bns_slice *out)
{
    struct bns_slice e = {NULL, 0}, rest = list;
    uint8_t *to = bns_arena_alloc(p->arena, list.len + more.len + 2);
    size_t len = 0;

    if (to == NULL)
        return BNS_E_NOMEM;
    for (int round = 0; round < (add ? 2 : 1); round++) {
        while (kafka_config_element(&rest, &e)) {
            bool skip = round == 0 ? !add && list_has(more, e) : list_has(bns_slice(to, len), e);
            if (e.len == 0 || skip)
                continue;
            if (len > 0)
                to[len++] = ',';
            memcpy(to + len, e.ptr, e.len);
            len += e.len;
        }
        rest = more;
        e = bns_slice(NULL, 0);
    }
    *out = bns_slice(to, len);
    return BNS_OK;
}

static int apply_change(struct kafka_plan *p, struct kafka_draft *d, const struct change *c,
                        struct kafka_fail *f)
{
    const struct kafka_config_key *k =
        d->resource == KAFKA_RESOURCE_TOPIC ? kafka_topic_key(c->name) : kafka_broker_key(c->name);
    const struct kafka_config_entry *was = kafka_config_find(d->now, c->name);
    struct bns_slice value = c->value;
    int rv = BNS_OK;

    if (c->op < OP_SET || c->op > OP_SUBTRACT) {
        f->error = KAFKA_UNKNOWN_SERVER_ERROR;
        return BNS_OK;
    }
    if (c->op == OP_DELETE) {
        value = bns_slice(NULL, 0);
    } else if (c->op != OP_SET) {
        const char *preset = k != NULL && k->preset != NULL ? k->preset : "";
        if (k == NULL || k->type != KAFKA_CONFIG_LIST)
            return kafka_fail_set(f, p->arena, KAFKA_INVALID_CONFIG,
                                  "Can't %s to key %.*s because its type is not LIST.",
                                  c->op == OP_APPEND ? "APPEND" : "SUBTRACT", SHOWN(c->name));
        rv = change_list(p, was != NULL ? was->value : bns_slice_str(preset), c->value,
                         c->op == OP_APPEND, &value);
    }
    if (rv == BNS_OK)
        kafka_draft_set(d, c->name, value);
    return rv;
}

static int plan_changes(struct kafka_plan *p, const struct resource *r, bool validate_only,
                        struct kafka_fail *f)
{
    struct kafka_draft d = {.resource = r->type,
                            .name = r->name,
                            .now = kafka_image_configs(p->m->image, r->type, r->name)};
    int rv = kafka_draft_begin(&d, p->arena, r->count);

    for (size_t i = 0; r->replace && i < d.count && rv == BNS_OK; i++)
        d.entries[i].value = bns_slice(NULL, 0);
    for (size_t i = 0; i < r->count && rv == BNS_OK && f->error == 0; i++)
        rv = apply_change(p, &d, &r->changes[i], f);
    if (rv == BNS_OK && f->error == 0)
        rv = kafka_draft_check(&d, p, f);
    if (rv == BNS_OK && f->error == 0 && !validate_only)
        rv = kafka_draft_records(&d, p);
    return rv;
}

/* What one resource is called among the others: its type, then its name. */
static struct bns_slice full_name(struct kafka_plan *p, const struct resource *r)
{
    uint8_t *to = bns_arena_alloc(p->arena, r->name.len + 1);

    if (to == NULL)
        return bns_slice(NULL, 0);
    to[0] = (uint8_t)r->type;
    if (r->name.len > 0)
        memcpy(to + 1, r->name.ptr, r->name.len);
    return bns_slice(to, r->name.len + 1);
}

static int plan_all(struct kafka_plan *p, struct resource *all, size_t count, bool validate_only)
{
    struct bns_slice *names = bns_arena_alloc(p->arena, (count + 1) * sizeof *names);
    uint8_t *repeats;
    int rv = BNS_OK;

    if (names == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        names[i] = full_name(p, &all[i]);
        if (names[i].ptr == NULL)
            return BNS_E_NOMEM;
    }
    repeats = kafka_repeats(p->arena, names, count);
    if (repeats == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count && rv == BNS_OK; i++) {
        struct resource *r = &all[i];
        bool mine = r->type == KAFKA_RESOURCE_TOPIC ? kafka_plan_claim_topic(p, r->name)
                                                    : kafka_plan_claim(p, r->type, r->name);
        if (!mine)
            return KAFKA_BLOCKED;
        if (repeats[i] != 0)
            rv = kafka_fail_set(&r->fail, p->arena, KAFKA_INVALID_REQUEST,
                                "Each resource must appear at most once.");
        else
            rv = check_resource(p, r, &r->fail);
        if (rv == BNS_OK && r->fail.error == 0)
            rv = plan_changes(p, r, validate_only, &r->fail);
    }
    return rv;
}

/* ---- the two requests ----------------------------------------------------------------------- */

static size_t positive(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

static struct resource *resources_new(struct kafka_plan *p, size_t count)
{
    struct resource *r = bns_arena_alloc(p->arena, (count + 1) * sizeof *r);

    return r == NULL ? NULL : memset(r, 0, (count + 1) * sizeof *r);
}

int kafka_plan_incremental(struct kafka_plan *p,
                           const struct kafka_incremental_alter_configs_request *q,
                           struct kafka_incremental_alter_configs_response *a)
{
    size_t count = positive(q->resources.count);
    struct resource *all = resources_new(p, count);
    int rv;

    memset(a, 0, sizeof *a);
    a->responses.at = bns_arena_alloc(p->arena, (count + 1) * sizeof *a->responses.at);
    if (all == NULL || a->responses.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct kafka_incremental_alter_configs_request_resources *r = &q->resources.at[i];
        all[i].type = r->resource_type;
        all[i].name = r->resource_name;
        all[i].count = positive(r->configs.count);
        all[i].changes = bns_arena_alloc(p->arena, (all[i].count + 1) * sizeof *all[i].changes);
        if (all[i].changes == NULL)
            return BNS_E_NOMEM;
        for (size_t j = 0; j < all[i].count; j++)
            all[i].changes[j] = (struct change){.name = r->configs.at[j].name,
                                                .value = r->configs.at[j].value,
                                                .op = r->configs.at[j].config_operation};
    }
    rv = plan_all(p, all, count, q->validate_only);
    for (size_t i = 0; i < count; i++)
        a->responses.at[i] = (struct kafka_incremental_alter_configs_response_responses){
            .error_code = all[i].fail.error,
            .error_message = all[i].fail.text,
            .resource_type = all[i].type,
            .resource_name = all[i].name};
    a->responses.count = (int32_t)count;
    return rv;
}

int kafka_plan_alter_configs(struct kafka_plan *p, const struct kafka_alter_configs_request *q,
                             struct kafka_alter_configs_response *a)
{
    size_t count = positive(q->resources.count);
    struct resource *all = resources_new(p, count);
    int rv;

    memset(a, 0, sizeof *a);
    a->responses.at = bns_arena_alloc(p->arena, (count + 1) * sizeof *a->responses.at);
    if (all == NULL || a->responses.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct kafka_alter_configs_request_resources *r = &q->resources.at[i];
        all[i].type = r->resource_type;
        all[i].name = r->resource_name;
        all[i].replace = true;
        all[i].count = positive(r->configs.count);
        all[i].changes = bns_arena_alloc(p->arena, (all[i].count + 1) * sizeof *all[i].changes);
        if (all[i].changes == NULL)
            return BNS_E_NOMEM;
        for (size_t j = 0; j < all[i].count; j++)
            all[i].changes[j] = (struct change){
                .name = r->configs.at[j].name, .value = r->configs.at[j].value, .op = OP_SET};
    }
    rv = plan_all(p, all, count, q->validate_only);
    for (size_t i = 0; i < count; i++)
        a->responses.at[i] =
            (struct kafka_alter_configs_response_responses){.error_code = all[i].fail.error,
                                                            .error_message = all[i].fail.text,
                                                            .resource_type = all[i].type,
                                                            .resource_name = all[i].name};
    a->responses.count = (int32_t)count;
    return rv;
}
