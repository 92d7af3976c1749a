/* check_read_watch.c - histories of writers and watchers, as operations of the watch checker.
 * README.md has the shapes.
 *
 * Keys become numbers in the order of the keys, so that ranges are ranges of numbers: first every
 * key has the number of its text, then all that occurred are sorted and renumbered. A number of a
 * key has the top bit set, which tells its name from that of a value.
 */
#include <stdlib.h>

#include "sim/check_read.h"
#include "sim/check_watch.h"

#define KEY_BIT (UINT64_C(1) << 63)

struct key {
    uint32_t id; /* of its text */
    const char *text;
};

struct told { /* one line, before it is known how many its watch has */
    size_t stream;
    struct bns_watch_told t;
    struct bns_watch_change *events;
};

struct range { /* what was asked for, until the keys are numbered */
    const char *key, *end;
    bool prefix, from;
};

struct owner {
    int64_t process;
    size_t stream; /* SIZE_MAX: none is open */
};

struct watches {
    struct check_reader *r;
    struct bns_watch_write *writes;
    size_t writes_count;
    struct bns_watch_stream *streams;
    struct range *ranges;
    size_t streams_count;
    struct told *told;
    size_t told_count;
    struct owner *owners; /* by process */
    size_t owners_count;
    struct key *keys;
    size_t keys_count, keys_max;
    uint64_t *number; /* of the key whose text has this number */
    size_t number_max;
};

static int bad_line(struct check_reader *r, size_t i, const char *what)
{
    return bns_verdict_senseless(r->v, "history line %zu: %s", i + 1, what);
}

static int text_key(struct watches *w, const char *text, uint64_t *out)
{
    uint32_t id;
    int rv = bns_history_intern(w->r->h, text, &id);

    if (rv != BNS_OK)
        return rv;
    if (w->keys_count == w->keys_max) {
        struct key *more = check_take(w->r, 2 * w->keys_max + 64, sizeof *more);
        if (more == NULL)
            return BNS_E_NOMEM;
        if (w->keys_count > 0)
            memcpy(more, w->keys, w->keys_count * sizeof *more);
        w->keys = more;
        w->keys_max = 2 * w->keys_max + 64;
    }
    w->keys[w->keys_count++] = (struct key){id, NULL};
    *out = id;
    return BNS_OK;
}

/* ---- writers --------------------------------------------------------------------------------- */

/* ["put",key,value] or ["delete",key]. */
static int take_change(struct watches *w, const struct check_call *c, const json_t *v,
                       struct bns_watch_change *x)
{
    const char *f = json_string_value(json_array_get(v, 0));
    const char *key = json_string_value(json_array_get(v, 1));
    int rv;

    if (f == NULL || key == NULL || (strcmp(f, "put") != 0 && strcmp(f, "delete") != 0))
        return check_bad(w->r, c->c, "each change is [\"put\",key,value] or [\"delete\",key]");
    x->deleted = x->maybe = f[0] == 'd';
    rv = text_key(w, key, &x->key);
    return rv == BNS_OK && !x->deleted ? check_id(w->r, json_array_get(v, 2), &x->value) : rv;
}

static int take_txn(struct watches *w, const struct check_call *c, struct bns_watch_write *op)
{
    struct bns_watch_change *x = check_take(w->r, json_array_size(c->in), sizeof *x);
    int rv = BNS_OK;

    if (!json_is_array(c->in))
        return check_bad(w->r, c->c, "a transaction is a list of changes");
    if (x == NULL)
        return BNS_E_NOMEM;
    op->changes = x;
    while (op->changes_count < json_array_size(c->in) && rv == BNS_OK) {
        rv = take_change(w, c, json_array_get(c->in, op->changes_count), &x[op->changes_count]);
        op->changes_count++;
    }
    return rv;
}

/* put: the value; cas: [old,new]; delete. */
static int take_single(struct watches *w, const struct check_call *c, struct bns_watch_write *op)
{
    struct bns_watch_change *x = check_take(w->r, 1, sizeof *x);
    const json_t *value = c->in;
    bool ok = c->c->end == BNS_HIST_OK;
    int rv;

    if (c->c->key == NULL)
        return check_bad(w->r, c->c, "a change without a key");
    if (x == NULL)
        return BNS_E_NOMEM;
    if (strcmp(c->c->f, "cas") == 0) {
        value = json_is_array(c->in) ? json_array_get(c->in, 1) : json_object_get(c->in, "new");
        if (ok && json_is_false(json_object_get(c->out, "swapped")))
            return BNS_OK;
    }
    op->changes = x;
    op->changes_count = 1;
    x->deleted = strcmp(c->c->f, "delete") == 0;
    x->maybe = x->deleted && !json_is_true(json_object_get(c->out, "deleted"));
    if (x->deleted && json_is_false(json_object_get(c->out, "deleted")))
        op->changes_count = 0;
    rv = text_key(w, c->c->key, &x->key);
    return rv == BNS_OK && !x->deleted ? check_id(w->r, value, &x->value) : rv;
}

static int take_write(struct check_reader *r, void *arg, const struct check_call *c)
{
    struct watches *w = arg;
    struct bns_watch_write *op = &w->writes[w->writes_count];
    const char *f = c->c->f;

    *op = (struct bns_watch_write){
        .call = c->c->call, .ret = check_ret(c->c), .end = check_end(c->c)};
    if (json_is_object(c->out) && !check_number(c->out, "rev", &op->rev))
        return check_bad(r, c->c, "a revision is a number");
    if (strcmp(f, "txn") == 0) {
        w->writes_count++;
        return take_txn(w, c, op);
    }
    if (strcmp(f, "put") != 0 && strcmp(f, "write") != 0 && strcmp(f, "cas") != 0 &&
        strcmp(f, "delete") != 0)
        return BNS_OK; /* a read, or of another kind of history */
    w->writes_count++;
    return take_single(w, c, op);
}

/* ---- watchers -------------------------------------------------------------------------------- */

static int by_process(const void *a, const void *b)
{
    const struct owner *x = a;
    const struct owner *y = b;
    return (x->process > y->process) - (x->process < y->process);
}

static int take_ask(struct watches *w, size_t i, const struct bns_history_event *e, const json_t *v)
{
    struct bns_watch_stream *s = &w->streams[w->streams_count];
    struct range *g = &w->ranges[w->streams_count++];
    const json_t *end = json_object_get(v, "end");
    const json_t *filters = json_object_get(v, "filters");
    uint64_t id;

    if (e->key == NULL || !check_number(v, "start", &s->start) ||
        (end != NULL && !json_is_string(end)))
        return bad_line(w->r, i, "a watch has a key, and may have start (a number), end (a text)");
    s->call = i;
    g->key = e->key;
    g->prefix = json_is_true(json_object_get(v, "prefix"));
    g->from = json_is_true(json_object_get(v, "from"));
    for (size_t j = 0; j < json_array_size(filters); j++) {
        const char *f = json_string_value(json_array_get(filters, j));
        s->no_put |= f != NULL && strcmp(f, "noput") == 0;
        s->no_delete |= f != NULL && strcmp(f, "nodelete") == 0;
    }
    if (end == NULL)
        return BNS_OK;
    id = 0;
    if (text_key(w, json_string_value(end), &id) != BNS_OK)
        return BNS_E_NOMEM;
    g->end = bns_history_text(w->r->h, id);
    return BNS_OK;
}

static int take_events(struct watches *w, size_t i, struct told *t, const json_t *list)
{
    t->t.events_count = json_array_size(list);
    t->events = check_take(w->r, t->t.events_count, sizeof *t->events);
    if (t->events == NULL)
        return BNS_E_NOMEM;
    t->t.events = t->events;
    for (size_t n = 0; n < t->t.events_count; n++) {
        const json_t *v = json_array_get(list, n);
        const char *f = json_string_value(json_array_get(v, 0));
        const char *key = json_string_value(json_array_get(v, 1));
        const json_t *rev = json_array_get(v, 3);
        struct bns_watch_change *x = &t->events[n];
        int rv;

        if (f == NULL || key == NULL || !json_is_integer(rev) || json_integer_value(rev) <= 0 ||
            (strcmp(f, "put") != 0 && strcmp(f, "delete") != 0))
            return bad_line(w->r, i, "an event is [\"put\" or \"delete\",key,value,revision]");
        x->deleted = f[0] == 'd';
        x->rev = (uint64_t)json_integer_value(rev);
        rv = text_key(w, key, &x->key);
        if (rv == BNS_OK && !x->deleted)
            rv = check_id(w->r, json_array_get(v, 2), &x->value);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

static int take_told(struct watches *w, size_t i, size_t stream, const json_t *v)
{
    struct told *t = &w->told[w->told_count++];
    const json_t *events = json_object_get(v, "events");

    *t = (struct told){.stream = stream, .t = {.at = i, .kind = BNS_WATCH_EVENTS}};
    if (!json_is_object(v) || !check_number(v, "rev", &t->t.rev))
        return bad_line(w->r, i,
                        "an answer is {\"events\":[...],\"rev\":number}, or created, "
                        "progress, canceled");
    t->t.fragment = json_is_true(json_object_get(v, "fragment"));
    if (json_is_true(json_object_get(v, "canceled")))
        t->t.kind = BNS_WATCH_CANCELED;
    else if (json_is_true(json_object_get(v, "created")))
        t->t.kind = BNS_WATCH_CREATED;
    else if (json_is_true(json_object_get(v, "progress")))
        t->t.kind = BNS_WATCH_PROGRESS;
    else if (!json_is_array(events))
        return bad_line(w->r, i, "an answer without events");
    return take_events(w, i, t, events);
}

static int take_line(struct watches *w, size_t i)
{
    struct bns_history_event e = bns_history_at(w->r->h, i);
    struct owner want = {.process = e.process};
    struct owner *o;
    json_t *v;
    int rv;

    if (strcmp(e.f, "watch") != 0)
        return BNS_OK;
    o = bsearch(&want, w->owners, w->owners_count, sizeof want, by_process);
    BNS_ASSERT(o != NULL); /* every process with such a line is in it */
    if (e.type == BNS_HIST_FAIL || e.type == BNS_HIST_INFO) {
        o->stream = SIZE_MAX;
        return BNS_OK;
    }
    rv = bns_history_json(e.value, &v);
    if (rv != BNS_OK)
        return rv;
    if (e.type == BNS_HIST_INVOKE) {
        o->stream = w->streams_count;
        rv = take_ask(w, i, &e, v);
    } else if (o->stream == SIZE_MAX) {
        rv = bad_line(w->r, i, "an answer, and no watch is open");
    } else {
        rv = take_told(w, i, o->stream, v);
    }
    json_decref(v);
    return rv;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    const struct key *x = a;
    const struct key *y = b;
    return strcmp(x->text, y->text);
}

static uint64_t lower(const struct watches *w, const char *text)
{
    size_t lo = 0, hi = w->keys_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(w->keys[mid].text, text) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void number_stream(struct watches *w, size_t n)
{
    const struct range *g = &w->ranges[n];
    uint64_t first = lower(w, g->key), end = first;

    if (g->from)
        end = w->keys_count;
    else if (g->end != NULL)
        end = lower(w, g->end);
    else if (g->prefix)
        while (end < w->keys_count && strncmp(w->keys[end].text, g->key, strlen(g->key)) == 0)
            end++;
    else if (end < w->keys_count && strcmp(w->keys[end].text, g->key) == 0)
        end++;
    w->streams[n].key_first = KEY_BIT | first;
    w->streams[n].key_end = KEY_BIT | end;
}

static int number_keys(struct watches *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->keys_count; i++) {
        w->keys[i].text = bns_history_text(w->r->h, w->keys[i].id);
        w->number_max = w->keys[i].id > w->number_max ? w->keys[i].id : w->number_max;
    }
    w->number = check_take(w->r, w->number_max + 1, sizeof *w->number);
    if (w->number == NULL)
        return BNS_E_NOMEM;
    if (w->keys_count > 0)
        qsort(w->keys, w->keys_count, sizeof *w->keys, by_text);
    for (size_t i = 0; i < w->keys_count; i++) {
        if (n == 0 || w->keys[n - 1].id != w->keys[i].id)
            w->keys[n++] = w->keys[i];
        w->number[w->keys[i].id] = KEY_BIT | (n - 1);
    }
    w->keys_count = n;
    return BNS_OK;
}

/* The answers of each watch become one array, in order. */
static int group_told(struct watches *w)
{
    struct bns_watch_told *all = check_take(w->r, w->told_count, sizeof *all);
    size_t at = 0;

    if (all == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < w->told_count; i++)
        w->streams[w->told[i].stream].told_count++;
    for (size_t i = 0; i < w->streams_count; i++) {
        w->streams[i].told = all + at;
        at += w->streams[i].told_count;
        w->streams[i].told_count = 0;
    }
    for (size_t i = 0; i < w->told_count; i++) {
        struct told *t = &w->told[i];
        struct bns_watch_stream *s = &w->streams[t->stream];
        for (size_t j = 0; j < t->t.events_count; j++)
            t->events[j].key = w->number[t->events[j].key];
        all[(size_t)(s->told - all) + s->told_count++] = t->t;
    }
    return BNS_OK;
}

static const char *name_of(void *arg, uint64_t id)
{
    const struct watches *w = arg;

    if ((id & KEY_BIT) == 0)
        return bns_history_text(w->r->h, id);
    id &= ~KEY_BIT;
    return id < w->keys_count ? w->keys[id].text : NULL;
}

static int make_room(struct watches *w)
{
    struct check_reader *r = w->r;
    size_t lines = 0, asks = 0, n = 0;

    for (size_t i = 0; i < bns_history_count(r->h); i++) {
        struct bns_history_event e = bns_history_at(r->h, i);
        lines += strcmp(e.f, "watch") == 0;
        asks += strcmp(e.f, "watch") == 0 && e.type == BNS_HIST_INVOKE;
    }
    w->writes = check_take(r, r->calls_count, sizeof *w->writes);
    w->streams = check_take(r, asks, sizeof *w->streams);
    w->ranges = check_take(r, asks, sizeof *w->ranges);
    w->told = check_take(r, lines, sizeof *w->told);
    w->owners = check_take(r, lines, sizeof *w->owners);
    if (w->writes == NULL || w->streams == NULL || w->ranges == NULL || w->told == NULL ||
        w->owners == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < bns_history_count(r->h); i++) {
        struct bns_history_event e = bns_history_at(r->h, i);
        if (strcmp(e.f, "watch") == 0)
            w->owners[w->owners_count++] = (struct owner){e.process, SIZE_MAX};
    }
    qsort(w->owners, w->owners_count, sizeof *w->owners, by_process);
    for (size_t i = 0; i < w->owners_count; i++) {
        if (n == 0 || w->owners[n - 1].process != w->owners[i].process)
            w->owners[n++] = w->owners[i];
    }
    w->owners_count = n;
    return BNS_OK;
}

int check_read_watch(struct check_reader *r)
{
    struct watches w = {.r = r};
    struct bns_check_names names = {name_of, &w};
    int rv = make_room(&w);

    if (rv == BNS_OK)
        rv = check_each(r, &w, take_write);
    for (size_t i = 0; i < bns_history_count(r->h) && rv == BNS_OK; i++)
        rv = take_line(&w, i);
    if (rv == BNS_OK)
        rv = number_keys(&w);
    if (rv == BNS_OK)
        rv = group_told(&w);
    if (rv != BNS_OK)
        return rv;
    for (size_t i = 0; i < w.streams_count; i++)
        number_stream(&w, i);
    for (size_t i = 0; i < w.writes_count; i++) {
        /* the changes are ours, in the arena */
        struct bns_watch_change *x = (struct bns_watch_change *)(uintptr_t)w.writes[i].changes;
        for (size_t j = 0; j < w.writes[i].changes_count; j++)
            x[j].key = w.number[x[j].key];
    }
    r->cfg.names = &names;
    return bns_check_watch(&r->cfg, w.writes, w.writes_count, w.streams, w.streams_count, r->v);
}
