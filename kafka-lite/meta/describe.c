/* describe.c - see describe.h: which value is in force, and where it comes from.
 *
 * A key of a broker has values in up to four places: altered for this broker, altered for all of
 * them, its file, the default. Some keys are read together, the finer unit first: log.retention.ms,
 * .minutes, .hours. Their values are listed place by place, and what stands before the first value
 * of the key itself is left out: so does Kafka, which makes the synonyms of a key that only a
 * coarser one sets an empty list. What is in force is the first value, place by place, of the first
 * key of the chain that has one anywhere but the default.
 */
#include "meta/describe.h"

#include <stdio.h>

#include "meta/plan.h"

#define CHAIN_MAX 3u

struct chain { /* keys that are read together; finest first */
    const char *keys[CHAIN_MAX];
    int64_t factors[CHAIN_MAX]; /* to the unit of the first */
};

static const struct chain chains[] = {
    {{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}, {1, 60000, 3600000}},
    {{"log.roll.ms", "log.roll.hours"}, {1, 3600000}},
    {{"log.roll.jitter.ms", "log.roll.jitter.hours"}, {1, 3600000}},
    {{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}, {1, 1}},
};

static struct chain chain_of(const char *key)
{
    for (size_t i = 0; i < sizeof chains / sizeof chains[0]; i++) {
        for (size_t k = 0; k < CHAIN_MAX && chains[i].keys[k] != NULL; k++) {
            if (strcmp(chains[i].keys[k], key) == 0)
                return chains[i];
        }
    }
    return (struct chain){.keys = {key}, .factors = {1}};
}

/* A key's value in one place; ptr NULL: none. */
static struct bns_slice value_in(const struct kafka_meta *m, const char *key,
                                 enum kafka_config_source place)
{
    const struct kafka_config_entry *e = NULL;
    const struct kafka_config_key *k;
    struct bns_slice name = bns_slice_str(key);
    char id[16];

    switch (place) {
    case KAFKA_SOURCE_BROKER:
        (void)snprintf(id, sizeof id, "%d", m->cfg.node_id);
        e = kafka_config_find(
            kafka_image_configs(m->image, KAFKA_RESOURCE_BROKER, bns_slice_str(id)), name);
        break;
    case KAFKA_SOURCE_ALL_BROKERS:
        e = kafka_config_find(
            kafka_image_configs(m->image, KAFKA_RESOURCE_BROKER, bns_slice("", 0)), name);
        break;
    case KAFKA_SOURCE_STATIC_BROKER:
        e = kafka_config_find(m->cfg.statics, name);
        break;
    default:
        k = kafka_broker_key(name);
        return k != NULL && k->preset != NULL ? bns_slice_str(k->preset) : bns_slice(NULL, 0);
    }
    return e != NULL ? e->value : bns_slice(NULL, 0);
}

/* ---- in force ------------------------------------------------------------------------------- */

/* The value, and its factor: of the finest key that has one. Defaults come last, all of them. */
static struct bns_slice chain_value(const struct kafka_meta *m, const struct chain *c,
                                    int64_t *factor)
{
    struct bns_slice v = {NULL, 0};

    for (size_t k = 0; k < CHAIN_MAX && c->keys[k] != NULL; k++) {
        for (int place = KAFKA_SOURCE_BROKER; place < KAFKA_SOURCE_DEFAULT; place++) {
            v = value_in(m, c->keys[k], (enum kafka_config_source)place);
            *factor = c->factors[k];
            if (v.ptr != NULL)
                return v;
        }
    }
    for (size_t k = 0; k < CHAIN_MAX && c->keys[k] != NULL && v.ptr == NULL; k++) {
        v = value_in(m, c->keys[k], KAFKA_SOURCE_DEFAULT);
        *factor = c->factors[k];
    }
    return v;
}

struct bns_slice kafka_meta_broker_value(const struct kafka_meta *m, const char *key)
{
    for (int place = KAFKA_SOURCE_BROKER; place <= KAFKA_SOURCE_DEFAULT; place++) {
        struct bns_slice v = value_in(m, key, (enum kafka_config_source)place);
        if (v.ptr != NULL)
            return v;
    }
    return bns_slice(NULL, 0);
}

/* Into the topic's unit; `text` has room for 24 bytes. */
static struct bns_slice scaled(struct bns_slice v, int64_t factor, char *text)
{
    int64_t n;

    if (factor == 1 || kafka_config_number(kafka_config_trim(v), &n) != BNS_OK)
        return v;
    if (n < 0 || __builtin_mul_overflow(n, factor, &n))
        n = n < 0 ? -1 : INT64_MAX;
    return bns_slice(text, (size_t)snprintf(text, 24, "%lld", (long long)n));
}

static struct bns_slice inherited(const struct kafka_meta *m, const struct kafka_config_key *k,
                                  char *text)
{
    struct bns_slice v = {NULL, 0};
    int64_t factor = 1;

    if (k->synonyms != NULL) {
        struct chain c = chain_of(k->synonyms[0].key);
        v = chain_value(m, &c, &factor);
    }
    if (v.ptr == NULL)
        return k->preset != NULL ? bns_slice_str(k->preset) : v;
    return scaled(v, factor, text);
}

struct bns_slice kafka_meta_topic_value(struct kafka_meta *m, const struct kafka_topic *t,
                                        const char *key)
{
    const struct kafka_config_key *k = kafka_topic_key(bns_slice_str(key));
    const struct kafka_config_entry *e;

    BNS_ASSERT(k != NULL);
    e = t != NULL ? kafka_config_find(&t->configs, bns_slice_str(key)) : NULL;
    return e != NULL ? e->value : inherited(m, k, m->scaled);
}

/* ---- entries -------------------------------------------------------------------------------- */

#define CONFIG_OUT struct kafka_describe_configs_response_configs
#define SYNONYM_OUT struct kafka_describe_configs_response_synonyms

static int copy(struct bns_arena *a, struct bns_slice *s)
{
    void *to;

    if (s->ptr == NULL)
        return BNS_OK;
    to = bns_arena_dup(a, s->ptr, s->len);
    if (to == NULL)
        return BNS_E_NOMEM;
    *s = bns_slice(to, s->len);
    return BNS_OK;
}

/* All values of a broker's key, place by place; only_all: those for all brokers. */
static size_t synonyms_of(const struct kafka_meta *m, const char *key, bool only_all,
                          SYNONYM_OUT *out)
{
    struct chain c = chain_of(key);
    size_t count = 0, from = 0;

    for (int place = KAFKA_SOURCE_BROKER; place <= KAFKA_SOURCE_DEFAULT; place++) {
        for (size_t k = 0; k < CHAIN_MAX && c.keys[k] != NULL; k++) {
            struct bns_slice v = value_in(m, c.keys[k], (enum kafka_config_source)place);
            if (v.ptr != NULL)
                out[count++] = (SYNONYM_OUT){bns_slice_str(c.keys[k]), v, (int8_t)place};
        }
    }
    while (from < count && !bns_slice_eq(out[from].name, bns_slice_str(key)))
        from++;
    count -= from;
    memmove(out, out + from, count * sizeof *out);
    if (!only_all)
        return count;
    for (size_t i = from = 0; i < count; i++) {
        if (out[i].source == KAFKA_SOURCE_ALL_BROKERS)
            out[from++] = out[i];
    }
    return from;
}
#define SYNONYMS_MAX (1 + 4 * CHAIN_MAX)

static int keep_synonyms(struct bns_arena *a, const SYNONYM_OUT *s, size_t count, CONFIG_OUT *out)
{
    out->synonyms.at = bns_arena_alloc(a, (count + 1) * sizeof *s);
    if (out->synonyms.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        out->synonyms.at[i] = s[i];
        if (copy(a, &out->synonyms.at[i].value) != BNS_OK)
            return BNS_E_NOMEM;
    }
    out->synonyms.count = (int32_t)count;
    return BNS_OK;
}

static int finish_entry(struct bns_arena *a, const struct kafka_config_key *k,
                        const struct kafka_describe_configs_request *q, SYNONYM_OUT *s,
                        size_t count, CONFIG_OUT *out)
{
    out->name = bns_slice_str(k->name);
    out->config_source = count > 0 ? s[0].source : KAFKA_SOURCE_DEFAULT;
    out->config_type = (int8_t)k->type;
    out->is_sensitive = k->type == KAFKA_CONFIG_PASSWORD;
    if (out->is_sensitive) {
        out->value = bns_slice(NULL, 0);
        for (size_t i = 0; i < count; i++)
            s[i].value = out->value;
    }
    if (q->include_documentation)
        out->documentation = bns_slice_str(k->documentation);
    if (copy(a, &out->value) != BNS_OK)
        return BNS_E_NOMEM;
    return keep_synonyms(a, s, q->include_synonyms ? count : 0, out);
}

static int topic_entry(const struct kafka_meta *m, struct bns_arena *a,
                       const struct kafka_config_set *own, const struct kafka_config_key *k,
                       const struct kafka_describe_configs_request *q, CONFIG_OUT *out)
{
    const struct kafka_config_entry *e = kafka_config_find(own, bns_slice_str(k->name));
    SYNONYM_OUT s[SYNONYMS_MAX];
    char text[24];
    size_t count = 0;

    memset(out, 0, sizeof *out);
    if (e != NULL)
        s[count++] = (SYNONYM_OUT){bns_slice_str(k->name), e->value, KAFKA_SOURCE_TOPIC};
    if (k->synonyms != NULL)
        count += synonyms_of(m, k->synonyms[0].key, false, s + count);
    out->value = e != NULL ? kafka_config_trim(e->value) : inherited(m, k, text);
    return finish_entry(a, k, q, s, count, out);
}

static int broker_entry(const struct kafka_meta *m, struct bns_arena *a, bool all,
                        const struct kafka_config_key *k,
                        const struct kafka_describe_configs_request *q, CONFIG_OUT *out)
{
    SYNONYM_OUT s[SYNONYMS_MAX];
    size_t count = synonyms_of(m, k->name, all, s);

    memset(out, 0, sizeof *out);
    out->read_only = !k->dynamic;
    out->value =
        all ? value_in(m, k->name, KAFKA_SOURCE_ALL_BROKERS) : kafka_meta_broker_value(m, k->name);
    return finish_entry(a, k, q, s, count, out);
}

/* ---- answers -------------------------------------------------------------------------------- */

#define RESOURCE_IN struct kafka_describe_configs_request_resources
#define RESULT_OUT struct kafka_describe_configs_response_results

static bool asked_for(const RESOURCE_IN *r, const char *key)
{
    if (r->configuration_keys.count < 0 || r->configuration_keys.at == NULL)
        return true;
    for (int32_t i = 0; i < r->configuration_keys.count; i++) {
        if (bns_slice_eq(r->configuration_keys.at[i], bns_slice_str(key)))
            return true;
    }
    return false;
}

static int refuse(RESULT_OUT *out, struct bns_arena *a, int16_t error, const char *text)
{
    struct kafka_fail f = {.error = 0};
    int rv = kafka_fail_set(&f, a, error, "%s", text);

    out->error_code = f.error;
    out->error_message = f.text;
    return rv;
}

static int describe_topic(const struct kafka_meta *m, struct bns_arena *a, const RESOURCE_IN *r,
                          const struct kafka_describe_configs_request *q, RESULT_OUT *out)
{
    const struct kafka_topic *t = kafka_image_topic(m->image, r->resource_name);
    struct kafka_fail f = {.error = 0};
    int rv;

    rv = kafka_topic_name_check(a, r->resource_name, &f);
    if (rv == BNS_OK && f.error == 0 && t == NULL) {
        f.error = KAFKA_UNKNOWN_TOPIC;
        f.text = bns_slice("", 0);
    }
    if (rv != BNS_OK || f.error != 0) {
        out->error_code = f.error;
        out->error_message = f.text;
        return rv;
    }
    out->configs.at = bns_arena_alloc(a, kafka_topic_keys_count * sizeof *out->configs.at);
    if (out->configs.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < kafka_topic_keys_count && rv == BNS_OK; i++) {
        if (asked_for(r, kafka_topic_keys[i].name))
            rv = topic_entry(m, a, &t->configs, &kafka_topic_keys[i], q,
                             &out->configs.at[out->configs.count++]);
    }
    return rv;
}

static int describe_broker(const struct kafka_meta *m, struct bns_arena *a, const RESOURCE_IN *r,
                           const struct kafka_describe_configs_request *q, RESULT_OUT *out)
{
    bool all = r->resource_name.len == 0;
    char text[128];
    int64_t id = 0;
    int rv = BNS_OK;

    if (!all && kafka_config_number(r->resource_name, &id) != BNS_OK) {
        (void)snprintf(text, sizeof text, "Broker id must be an integer, but it is: %.*s",
                       (int)(r->resource_name.len < 64 ? r->resource_name.len : 64),
                       (const char *)r->resource_name.ptr);
        return refuse(out, a, KAFKA_INVALID_REQUEST, text);
    }
    if (!all && id != m->cfg.node_id) {
        (void)snprintf(text, sizeof text,
                       "Unexpected broker id, expected %d or empty string, but received %lld",
                       m->cfg.node_id, (long long)id);
        return refuse(out, a, KAFKA_INVALID_REQUEST, text);
    }
    out->configs.at = bns_arena_alloc(a, kafka_broker_keys_count * sizeof *out->configs.at);
    if (out->configs.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < kafka_broker_keys_count && rv == BNS_OK; i++) {
        const struct kafka_config_key *k = &kafka_broker_keys[i];
        if (asked_for(r, k->name) &&
            (!all || value_in(m, k->name, KAFKA_SOURCE_ALL_BROKERS).ptr != NULL))
            rv = broker_entry(m, a, all, k, q, &out->configs.at[out->configs.count++]);
    }
    return rv;
}

int kafka_describe_configs(const struct kafka_meta *m, struct bns_arena *arena,
                           const struct kafka_describe_configs_request *q,
                           struct kafka_describe_configs_response *a)
{
    size_t count = q->resources.count > 0 ? (size_t)q->resources.count : 0;
    char text[64];
    int rv = BNS_OK;

    memset(a, 0, sizeof *a);
    a->results.at = bns_arena_alloc(arena, (count + 1) * sizeof *a->results.at);
    if (a->results.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < count && rv == BNS_OK; i++) {
        const RESOURCE_IN *r = &q->resources.at[i];
        RESULT_OUT *out = &a->results.at[i];

        memset(out, 0, sizeof *out);
        out->error_message = bns_slice("", 0);
        out->resource_type = r->resource_type;
        out->resource_name = r->resource_name;
        a->results.count++;
        (void)snprintf(text, sizeof text, "Unsupported resource type: %d", r->resource_type);
        if (r->resource_type == KAFKA_RESOURCE_TOPIC)
            rv = describe_topic(m, arena, r, q, out);
        else if (r->resource_type == KAFKA_RESOURCE_BROKER)
            rv = describe_broker(m, arena, r, q, out);
        else
            rv = refuse(out, arena, KAFKA_INVALID_REQUEST, text);
    }
    return rv;
}

int kafka_describe_created(const struct kafka_meta *m, struct bns_arena *arena,
                           const struct kafka_draft *d,
                           struct kafka_create_topics_response_topics *a)
{
    static const struct kafka_describe_configs_request plain;

    a->configs.at = bns_arena_alloc(arena, kafka_topic_keys_count * sizeof *a->configs.at);
    if (a->configs.at == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < kafka_topic_keys_count; i++) {
        const struct kafka_config_key *k = &kafka_topic_keys[i];
        CONFIG_OUT e;
        struct bns_slice own = {NULL, 0};

        for (size_t j = 0; j < d->count; j++) {
            if (bns_slice_eq(d->entries[j].key, bns_slice_str(k->name)))
                own = d->entries[j].value;
        }
        if (topic_entry(m, arena, NULL, k, &plain, &e) != BNS_OK)
            return BNS_E_NOMEM;
        a->configs.at[a->configs.count++] = (struct kafka_create_topics_response_configs){
            .name = e.name,
            .value = own.ptr != NULL ? own : e.value,
            .config_source = own.ptr != NULL ? KAFKA_SOURCE_TOPIC : e.config_source};
    }
    return BNS_OK;
}
