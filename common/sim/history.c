/* history.c - events with interned texts, JSON lines in and out.
 *
 * Every text (f, key, value) is kept once, in a hash map from text to a number; the checkers work
 * on these numbers: equal values are equal numbers, 0 is "not there". Values are kept as compact
 * JSON with sorted keys, so that equal values are equal texts.
 *
 * Invariants: texts[i]->id == i + 1; events only refer to texts that are there.
 * May fail:   no memory; what a file says (validated, never asserted).
 */
#include <stdlib.h>

#include "base/hmap.h"
#include "base/list.h"
#include "sim/history_impl.h"

#define LINE_BYTES_MAX (1024u * 1024)

struct text {
    struct bns_hnode node;
    uint32_t id;
    char s[];
};

struct event {
    uint64_t time;
    int64_t process;
    enum bns_history_type type;
    uint32_t f, key, value; /* text ids, 0 = none */
};

struct bns_history {
    const struct bns_alloc *alloc;
    struct bns_hmap map;
    struct text **texts;
    size_t texts_count, texts_cap;
    struct event *events;
    size_t events_count, events_cap;
};

static const char *const type_names[] = {"invoke", "ok", "fail", "info"};

/* ---- texts ----------------------------------------------------------------------------------- */

static int reserve(const struct bns_alloc *a, void **array, size_t *cap, size_t count, size_t size)
{
    size_t more = *cap == 0 ? 64 : *cap * 2;
    void *p;

    if (count < *cap)
        return BNS_OK;
    p = bns_resize(a, *array, more * size);
    if (p == NULL)
        return BNS_E_NOMEM;
    *array = p;
    *cap = more;
    return BNS_OK;
}

int bns_history_intern(struct bns_history *h, const char *s, uint32_t *id)
{
    size_t len = s == NULL ? 0 : strlen(s);
    uint64_t hash = bns_hash(0, s == NULL ? "" : s, len);
    struct text *t;
    void *array = h->texts;

    *id = 0;
    if (s == NULL)
        return BNS_OK;
    for (struct bns_hnode *n = bns_hmap_find(&h->map, hash); n != NULL; n = bns_hmap_find_next(n)) {
        t = BNS_CONTAINER(n, struct text, node);
        if (strcmp(t->s, s) == 0) {
            *id = t->id;
            return BNS_OK;
        }
    }
    if (reserve(h->alloc, &array, &h->texts_cap, h->texts_count, sizeof h->texts[0]) != BNS_OK)
        return BNS_E_NOMEM;
    h->texts = array;
    t = bns_alloc(h->alloc, sizeof *t + len + 1);
    if (t == NULL)
        return BNS_E_NOMEM;
    memcpy(t->s, s, len + 1);
    t->id = (uint32_t)h->texts_count + 1;
    if (bns_hmap_insert(&h->map, &t->node, hash) != BNS_OK) {
        bns_free(h->alloc, t);
        return BNS_E_NOMEM;
    }
    h->texts[h->texts_count++] = t;
    *id = t->id;
    return BNS_OK;
}

const char *bns_history_text(const struct bns_history *h, uint64_t id)
{
    return id == 0 || id > h->texts_count ? NULL : h->texts[id - 1]->s;
}

const struct bns_alloc *bns_history_alloc(const struct bns_history *h)
{
    return h->alloc;
}

int bns_history_intern_json(struct bns_history *h, const json_t *v, uint32_t *id)
{
    char *s;
    int rv;

    *id = 0;
    if (v == NULL || json_is_null(v))
        return BNS_OK;
    s = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    if (s == NULL)
        return BNS_E_NOMEM;
    rv = bns_history_intern(h, s, id);
    free(s);
    return rv;
}

/* ---- events ---------------------------------------------------------------------------------- */

int bns_history_new(const struct bns_alloc *alloc, struct bns_history **out)
{
    struct bns_history *h = bns_alloc_zero(alloc, sizeof *h);

    if (h == NULL)
        return BNS_E_NOMEM;
    h->alloc = alloc;
    bns_hmap_init(&h->map, alloc);
    *out = h;
    return BNS_OK;
}

void bns_history_free(struct bns_history *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < h->texts_count; i++)
        bns_free(h->alloc, h->texts[i]);
    bns_free(h->alloc, h->texts);
    bns_free(h->alloc, h->events);
    bns_hmap_free(&h->map);
    bns_free(h->alloc, h);
}

static int add(struct bns_history *h, struct event e, const char *f, const char *key,
               const json_t *value)
{
    void *array = h->events;
    int rv = bns_history_intern(h, f, &e.f);

    if (rv == BNS_OK)
        rv = bns_history_intern(h, key, &e.key);
    if (rv == BNS_OK)
        rv = bns_history_intern_json(h, value, &e.value);
    if (rv == BNS_OK)
        rv = reserve(h->alloc, &array, &h->events_cap, h->events_count, sizeof h->events[0]);
    if (rv != BNS_OK)
        return rv;
    h->events = array;
    h->events[h->events_count++] = e;
    return BNS_OK;
}

int bns_history_add(struct bns_history *h, const struct bns_history_event *ev)
{
    struct event e = {.time = ev->time, .process = ev->process, .type = ev->type};
    json_t *value = NULL;
    int rv;

    if (ev->value != NULL) {
        value = json_loads(ev->value, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
        if (value == NULL)
            return BNS_E_INVALID;
    }
    rv = add(h, e, ev->f, ev->key, value);
    json_decref(value);
    return rv;
}

size_t bns_history_count(const struct bns_history *h)
{
    return h->events_count;
}

struct bns_history_event bns_history_at(const struct bns_history *h, size_t index)
{
    const struct event *e = &h->events[index];

    BNS_ASSERT(index < h->events_count);
    return (struct bns_history_event){e->time,
                                      e->process,
                                      e->type,
                                      bns_history_text(h, e->f),
                                      bns_history_text(h, e->key),
                                      bns_history_text(h, e->value)};
}

uint32_t bns_history_key_id(const struct bns_history *h, size_t index)
{
    return h->events[index].key;
}

/* ---- JSON lines ------------------------------------------------------------------------------ */

static int write_string(struct bns_buf *out, const char *s)
{
    json_t *j = json_string(s);
    char *text = j == NULL ? NULL : json_dumps(j, JSON_ENCODE_ANY);
    int rv = text == NULL ? BNS_E_NOMEM : bns_buf_str(out, text);

    free(text);
    json_decref(j);
    return rv;
}

int bns_history_write(const struct bns_history *h, struct bns_buf *out)
{
    int rv = BNS_OK;

    for (size_t i = 0; i < h->events_count && rv == BNS_OK; i++) {
        struct bns_history_event e = bns_history_at(h, i);
        rv = bns_buf_fmt(out,
                         "{\"index\":%zu,\"time\":%llu,\"process\":%lld,\"type\":\"%s\",\"f\":", i,
                         (unsigned long long)e.time, (long long)e.process, type_names[e.type]);
        if (rv == BNS_OK)
            rv = write_string(out, e.f);
        if (rv == BNS_OK && e.key != NULL)
            rv = bns_buf_str(out, ",\"key\":");
        if (rv == BNS_OK && e.key != NULL)
            rv = write_string(out, e.key);
        if (rv == BNS_OK)
            rv = bns_buf_str(out, ",\"value\":");
        if (rv == BNS_OK)
            rv = bns_buf_str(out, e.value == NULL ? "null" : e.value);
        if (rv == BNS_OK)
            rv = bns_buf_str(out, "}\n");
    }
    return rv;
}

static int bad_line(struct bns_err *err, size_t line, const char *what)
{
    return bns_err_set(err, BNS_E_INVALID, "history line %zu: %s", line, what);
}

static int parse_event(struct bns_history *h, const json_t *j, size_t line, struct bns_err *err)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    const char *f = json_string_value(json_object_get(j, "f"));
    const json_t *key = json_object_get(j, "key");
    const json_t *time = json_object_get(j, "time");
    const json_t *process = json_object_get(j, "process");
    struct event e = {0};
    int rv;

    if (type == NULL || f == NULL)
        return bad_line(err, line, "type and f must be strings");
    while (e.type <= BNS_HIST_INFO && strcmp(type, type_names[e.type]) != 0)
        e.type++;
    if (e.type > BNS_HIST_INFO)
        return bad_line(err, line, "type must be invoke, ok, fail or info");
    if (!json_is_integer(time) || json_integer_value(time) < 0 || !json_is_integer(process))
        return bad_line(err, line, "time and process must be integers");
    if (key != NULL && !json_is_null(key) && !json_is_string(key))
        return bad_line(err, line, "key must be a string");
    e.time = (uint64_t)json_integer_value(time);
    e.process = json_integer_value(process);
    rv = add(h, e, f, json_string_value(key), json_object_get(j, "value"));
    return rv == BNS_OK ? BNS_OK : bns_err_set(err, rv, "history line %zu: no memory", line);
}

int bns_history_parse(struct bns_history *h, struct bns_slice text, struct bns_err *err)
{
    int rv = BNS_OK;

    for (size_t line = 1; text.len > 0 && rv == BNS_OK; line++) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t len = end == NULL ? text.len : (size_t)(end - text.ptr);
        json_t *j;

        if (len > LINE_BYTES_MAX)
            return bad_line(err, line, "longer than 1 MiB");
        if (len > 0) {
            j = json_loadb((const char *)text.ptr, len, JSON_REJECT_DUPLICATES, NULL);
            rv = json_is_object(j) ? parse_event(h, j, line, err)
                                   : bad_line(err, line, "not a JSON object");
            json_decref(j);
        }
        text = bns_slice_skip(text, end == NULL ? len : len + 1);
    }
    return rv;
}
