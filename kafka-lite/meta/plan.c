/* plan.c - see plan.h. */
#include "meta/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int kafka_fail_set(struct kafka_fail *f, struct bns_arena *a, int16_t error, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    void *copy;
    int len;

    va_start(args, fmt);
    len = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (len < 0)
        len = 0;
    if ((size_t)len >= sizeof text)
        len = (int)sizeof text - 1;
    copy = bns_arena_dup(a, text, (size_t)len);
    if (copy == NULL)
        return BNS_E_NOMEM;
    f->error = error;
    f->text = bns_slice(copy, (size_t)len);
    return BNS_OK;
}

const char *kafka_error_text(int16_t error)
{
    switch (error) {
    case KAFKA_UNKNOWN_TOPIC:
        return "This server does not host this topic-partition.";
    case KAFKA_UNKNOWN_TOPIC_ID:
        return "This server does not host this topic ID.";
    case KAFKA_DELETION_DISABLED:
        return "Topic deletion is disabled.";
    case 7:
        return "The request timed out.";
    case 41:
        return "This is not the correct controller for this cluster.";
    case 56:
        return "Disk error when trying to access log file on the disk.";
    default:
        return "The server experienced an unexpected error when processing the request.";
    }
}

struct named {
    struct bns_slice name;
    size_t at;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int c = bns_slice_cmp(x->name, y->name);

    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

uint8_t *kafka_repeats(struct bns_arena *a, const struct bns_slice *names, size_t count)
{
    uint8_t *kinds = bns_arena_alloc(a, count + 1);
    struct named *sorted = bns_arena_alloc(a, (count + 1) * sizeof *sorted);
    size_t n = 0;

    if (kinds == NULL || sorted == NULL)
        return NULL;
    memset(kinds, 0, count + 1);
    for (size_t i = 0; i < count; i++) {
        if (names[i].ptr != NULL)
            sorted[n++] = (struct named){names[i], i};
    }
    qsort(sorted, n, sizeof *sorted, by_name);
    for (size_t i = 1; i < n; i++) {
        if (!bns_slice_eq(sorted[i].name, sorted[i - 1].name))
            continue;
        if (kinds[sorted[i - 1].at] == 0)
            kinds[sorted[i - 1].at] = 1;
        kinds[sorted[i].at] = 2;
    }
    return kinds;
}

/* ---- drafts --------------------------------------------------------------------------------- */

int kafka_draft_begin(struct kafka_draft *d, struct bns_arena *a, size_t more)
{
    d->count = d->now != NULL ? d->now->count : 0;
    d->cap = d->count + more;
    d->entries = bns_arena_alloc(a, (d->cap + 1) * sizeof *d->entries);
    if (d->entries == NULL)
        return BNS_E_NOMEM;
    if (d->count > 0)
        memcpy(d->entries, d->now->entries, d->count * sizeof *d->entries);
    return BNS_OK;
}

static struct kafka_config_entry *draft_find(const struct kafka_draft *d, struct bns_slice key)
{
    for (size_t i = 0; i < d->count; i++) {
        if (bns_slice_eq(d->entries[i].key, key))
            return &d->entries[i];
    }
    return NULL;
}

void kafka_draft_set(struct kafka_draft *d, struct bns_slice key, struct bns_slice value)
{
    struct kafka_config_entry *e = draft_find(d, key);

    if (e == NULL) {
        BNS_ASSERT(d->count < d->cap);
        e = &d->entries[d->count++];
        e->key = key;
    }
    e->value = value;
}

static int fail_text(struct kafka_fail *f, struct kafka_plan *p, int16_t error,
                     const struct bns_err *err)
{
    return kafka_fail_set(f, p->arena, error, "%s", err->text);
}

static int64_t lag_of(const struct kafka_draft *d, const struct kafka_plan *p, const char *key)
{
    const struct kafka_config_entry *e = draft_find(d, bns_slice_str(key));
    int64_t v = 0;
    struct bns_slice text =
        e != NULL && e->value.ptr != NULL ? e->value : kafka_meta_topic_value(p->m, NULL, key);

    return kafka_config_number(kafka_config_trim(text), &v) == BNS_OK ? v : 0;
}

static int check_together(const struct kafka_draft *d, struct kafka_plan *p, struct kafka_fail *f)
{
    const struct kafka_config_entry *remote = draft_find(d, BNS_LIT("remote.storage.enable"));
    int64_t least = lag_of(d, p, "min.compaction.lag.ms");
    int64_t most = lag_of(d, p, "max.compaction.lag.ms");

    if (least > most)
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_CONFIG,
                              "conflict topic config setting min.compaction.lag.ms (%lld) > "
                              "max.compaction.lag.ms (%lld)",
                              (long long)least, (long long)most);
    if (remote != NULL && remote->value.ptr != NULL && kafka_config_true(remote->value))
        return kafka_fail_set(f, p->arena, KAFKA_INVALID_CONFIG,
                              "Tiered Storage functionality is disabled in the broker. Topic "
                              "cannot be configured with remote log storage.");
    return BNS_OK;
}

int kafka_draft_check(const struct kafka_draft *d, struct kafka_plan *p, struct kafka_fail *f)
{
    bool topic = d->resource == KAFKA_RESOURCE_TOPIC;
    int16_t error = topic ? KAFKA_INVALID_CONFIG : KAFKA_INVALID_REQUEST;
    struct bns_err err;

    for (size_t i = 0; i < d->count; i++) {
        const struct kafka_config_entry *e = &d->entries[i];
        const struct kafka_config_key *k = topic ? kafka_topic_key(e->key) : NULL;

        if (e->value.ptr == NULL)
            continue;
        if (e->value.len > INT16_MAX || e->key.len > INT16_MAX)
            return kafka_fail_set(f, p->arena, KAFKA_INVALID_CONFIG,
                                  "The configuration value cannot be added because it exceeds "
                                  "the maximum value size of %d bytes.",
                                  INT16_MAX);
        if (topic && k == NULL)
            return kafka_fail_set(f, p->arena, error, "Unknown topic config name: %.*s",
                                  (int)(e->key.len < 200 ? e->key.len : 200), e->key.ptr);
        if (!topic)
            k = kafka_broker_key(e->key);
        if (k != NULL && kafka_config_check(k, e->value, &err) != BNS_OK)
            return fail_text(f, p, error, &err);
    }
    return topic ? check_together(d, p, f) : BNS_OK;
}

int kafka_draft_records(const struct kafka_draft *d, struct kafka_plan *p)
{
    struct kafka_meta_record r = {
        .kind = KAFKA_RECORD_CONFIG, .resource = d->resource, .name = d->name};
    int rv = BNS_OK;

    for (size_t i = 0; i < d->count && rv == BNS_OK; i++) {
        const struct kafka_config_entry *e = &d->entries[i];
        const struct kafka_config_entry *was = kafka_config_find(d->now, e->key);

        if (was == NULL && e->value.ptr == NULL)
            continue;
        if (was != NULL && e->value.ptr != NULL && bns_slice_eq(was->value, e->value))
            continue;
        r.key = e->key;
        r.value = e->value;
        rv = kafka_plan_add(p, &r);
    }
    return rv;
}
