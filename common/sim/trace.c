/* trace.c - see trace.h for the format.
 *
 * Events are kept in a ring of fixed size, so that a trace costs the same however long the run is;
 * what falls out is folded into the state of its node, so that a reader knows who was up and who
 * led when the kept part begins.
 *
 * Invariants: t never goes back; node and peer of every event are NONE or a known node.
 * May fail:   no memory; a file that is damaged (parse names line and reason).
 */
#include "sim/trace.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 128
#define NAME_BYTES 32
#define LINE_BYTES_MAX 16384u
#define EVENT_BYTES_MIN 16u /* of a line */

struct item {
    uint64_t t, id, bytes;
    uint32_t node, peer;
    enum bns_trace_kind kind;
    char text[TEXT_BYTES];
};

struct node {
    char name[NAME_BYTES];
    bool server;
    const char *state;
    char role[NAME_BYTES];
};

struct bns_trace {
    const struct bns_alloc *alloc;
    uint64_t seed, skipped;
    char title[TEXT_BYTES];
    struct node nodes[BNS_TRACE_NODES_MAX];
    size_t nodes_count;
    struct item *ring;
    size_t max, first, count;
};

const char *const bns_trace_kind_names[BNS_TRACE_KINDS] = {
    "send", "recv",  "drop",  "start",  "crash", "pause", "resume",
    "role", "fsync", "fault", "invoke", "reply", "note",
};

static const char *const states[] = {"up", "down", "paused"};

/* Copies printable ASCII, cut to fit; other bytes become '?', so that a cut is never inside one. */
static void copy_text(char *dst, size_t cap, const char *src)
{
    size_t n = 0;

    for (; src != NULL && src[n] != '\0' && n + 1 < cap; n++)
        dst[n] = src[n] >= ' ' && src[n] <= '~' ? src[n] : '?';
    dst[n] = '\0';
}

int bns_trace_new(const struct bns_alloc *alloc, uint64_t seed, size_t events_max,
                  struct bns_trace **out)
{
    struct bns_trace *t = bns_alloc_zero(alloc, sizeof *t);

    BNS_ASSERT(events_max <= BNS_TRACE_EVENTS_MAX);
    if (t == NULL)
        return BNS_E_NOMEM;
    t->alloc = alloc;
    t->seed = seed;
    t->max = events_max == 0 ? BNS_TRACE_EVENTS_MAX : events_max;
    t->ring = bns_alloc_array(alloc, t->max, sizeof *t->ring);
    if (t->ring == NULL) {
        bns_trace_free(t);
        return BNS_E_NOMEM;
    }
    *out = t;
    return BNS_OK;
}

void bns_trace_free(struct bns_trace *t)
{
    if (t == NULL)
        return;
    bns_free(t->alloc, t->ring);
    bns_free(t->alloc, t);
}

void bns_trace_title(struct bns_trace *t, const char *title)
{
    copy_text(t->title, sizeof t->title, title);
}

void bns_trace_node(struct bns_trace *t, const char *name, bool server)
{
    struct node *n = &t->nodes[t->nodes_count++];

    BNS_ASSERT(t->nodes_count <= BNS_TRACE_NODES_MAX);
    copy_text(n->name, sizeof n->name, name);
    n->server = server;
    n->state = "down";
}

/* The state of its node after an event. */
static void fold(struct bns_trace *t, const struct item *i)
{
    struct node *n = i->node == BNS_TRACE_NONE ? NULL : &t->nodes[i->node];

    if (n == NULL)
        return;
    if (i->kind == BNS_TRACE_START || i->kind == BNS_TRACE_RESUME)
        n->state = "up";
    else if (i->kind == BNS_TRACE_CRASH)
        n->state = "down";
    else if (i->kind == BNS_TRACE_PAUSE)
        n->state = "paused";
    else if (i->kind == BNS_TRACE_ROLE)
        copy_text(n->role, sizeof n->role, i->text);
    if (i->kind == BNS_TRACE_CRASH)
        n->role[0] = '\0';
}

void bns_trace_add(struct bns_trace *t, const struct bns_trace_event *ev)
{
    struct item *i;

    if (t == NULL)
        return;
    BNS_ASSERT(ev->node == BNS_TRACE_NONE || ev->node < t->nodes_count);
    BNS_ASSERT(ev->peer == BNS_TRACE_NONE || ev->peer < t->nodes_count);
    BNS_ASSERT(t->count == 0 || ev->t >= bns_trace_at(t, t->count - 1).t);
    if (t->count == t->max) {
        fold(t, &t->ring[t->first]);
        t->first = (t->first + 1) % t->max;
        t->count--;
        t->skipped++;
    }
    i = &t->ring[(t->first + t->count++) % t->max];
    *i = (struct item){.t = ev->t,
                       .id = ev->id,
                       .bytes = ev->bytes,
                       .node = ev->node,
                       .peer = ev->peer,
                       .kind = ev->kind};
    copy_text(i->text, sizeof i->text, ev->text);
}

uint64_t bns_trace_seed(const struct bns_trace *t)
{
    return t->seed;
}

uint64_t bns_trace_skipped(const struct bns_trace *t)
{
    return t->skipped;
}

size_t bns_trace_nodes(const struct bns_trace *t)
{
    return t->nodes_count;
}

size_t bns_trace_count(const struct bns_trace *t)
{
    return t->count;
}

struct bns_trace_event bns_trace_at(const struct bns_trace *t, size_t index)
{
    const struct item *i = &t->ring[(t->first + index) % t->max];

    BNS_ASSERT(index < t->count);
    return (struct bns_trace_event){i->t, i->node, i->peer, i->kind, i->id, i->bytes, i->text};
}

/* ---- writing --------------------------------------------------------------------------------- */

static int quoted(struct bns_buf *out, const char *text) /* printable ASCII */
{
    int rv = bns_buf_byte(out, '"');

    for (; *text != '\0' && rv == BNS_OK; text++) {
        if (*text == '"' || *text == '\\')
            rv = bns_buf_byte(out, '\\');
        if (rv == BNS_OK)
            rv = bns_buf_byte(out, (uint8_t)*text);
    }
    return rv == BNS_OK ? bns_buf_byte(out, '"') : rv;
}

static int write_header(const struct bns_trace *t, struct bns_buf *out)
{
    int rv = bns_buf_fmt(
        out, "{\"format\":\"bonsai-trace\",\"version\":%d,\"seed\":\"0x%llx\",\"title\":",
        BNS_TRACE_VERSION, (unsigned long long)t->seed);

    if (rv == BNS_OK)
        rv = quoted(out, t->title);
    if (rv == BNS_OK)
        rv = bns_buf_fmt(out, ",\"events\":%zu,\"skipped\":%llu,\"nodes\":[", t->count,
                         (unsigned long long)t->skipped);
    for (size_t i = 0; i < t->nodes_count && rv == BNS_OK; i++) {
        const struct node *n = &t->nodes[i];

        rv = bns_buf_str(out, i == 0 ? "{\"name\":" : ",{\"name\":");
        if (rv == BNS_OK)
            rv = quoted(out, n->name);
        if (rv == BNS_OK)
            rv = bns_buf_fmt(out, ",\"kind\":\"%s\",\"state\":\"%s\",\"role\":",
                             n->server ? "server" : "client", n->state);
        if (rv == BNS_OK)
            rv = quoted(out, n->role);
        if (rv == BNS_OK)
            rv = bns_buf_byte(out, '}');
    }
    return rv == BNS_OK ? bns_buf_str(out, "]}\n") : rv;
}

static int write_number(struct bns_buf *out, const char *name, uint64_t v)
{
    return bns_buf_fmt(out, ",\"%s\":%llu", name, (unsigned long long)v);
}

static int write_item(const struct item *i, struct bns_buf *out)
{
    int rv = bns_buf_fmt(out, "{\"t\":%llu,\"kind\":\"%s\"", (unsigned long long)i->t,
                         bns_trace_kind_names[i->kind]);

    if (rv == BNS_OK && i->node != BNS_TRACE_NONE)
        rv = write_number(out, "node", i->node);
    if (rv == BNS_OK && i->peer != BNS_TRACE_NONE)
        rv = write_number(out, "peer", i->peer);
    if (rv == BNS_OK && i->id != 0)
        rv = write_number(out, "id", i->id);
    if (rv == BNS_OK && i->bytes != 0)
        rv = write_number(out, "bytes", i->bytes);
    if (rv == BNS_OK && i->text[0] != '\0')
        rv = bns_buf_str(out, ",\"text\":");
    if (rv == BNS_OK && i->text[0] != '\0')
        rv = quoted(out, i->text);
    return rv == BNS_OK ? bns_buf_str(out, "}\n") : rv;
}

int bns_trace_write(const struct bns_trace *t, struct bns_buf *out)
{
    int rv = write_header(t, out);

    for (size_t i = 0; i < t->count && rv == BNS_OK; i++)
        rv = write_item(&t->ring[(t->first + i) % t->max], out);
    return rv;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reader {
    size_t line;
    size_t events; /* as the header promised */
    size_t rest;   /* bytes behind this line */
    struct bns_trace *t;
    struct bns_err *err;
};

static int damaged(const struct reader *r, const char *why)
{
    return bns_err_set(r->err, BNS_E_INVALID, "trace: line %zu: %s", r->line, why);
}

/* A member that is missing (0 then), or a whole number not below 0. */
static bool number(const json_t *j, const char *name, uint64_t *out)
{
    const json_t *v = json_object_get(j, name);

    *out = 0;
    if (v == NULL)
        return true;
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static bool text_of(const json_t *j, const char *name, const char **out)
{
    const json_t *v = json_object_get(j, name);

    *out = v == NULL ? "" : json_string_value(v);
    return *out != NULL;
}

static int read_node(struct reader *r, const json_t *j)
{
    const char *name, *kind, *state, *role;
    struct node *n;

    if (!json_is_object(j) || !text_of(j, "name", &name) || !text_of(j, "kind", &kind) ||
        !text_of(j, "state", &state) || !text_of(j, "role", &role))
        return damaged(r, "a node is not an object of texts");
    if (strcmp(kind, "server") != 0 && strcmp(kind, "client") != 0)
        return damaged(r, "the kind of a node is neither server nor client");
    bns_trace_node(r->t, name, strcmp(kind, "server") == 0);
    n = &r->t->nodes[r->t->nodes_count - 1];
    copy_text(n->role, sizeof n->role, role);
    n->state = NULL;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (strcmp(state, states[i]) == 0)
            n->state = states[i];
    }
    return n->state != NULL ? BNS_OK
                            : damaged(r, "the state of a node is none of up, down, paused");
}

static int read_seed(struct reader *r, const char *text, uint64_t *seed)
{
    size_t digits = strncmp(text, "0x", 2) == 0 ? strspn(text + 2, "0123456789abcdef") : 0;

    if (digits == 0 || digits > 16 || text[2 + digits] != '\0')
        return damaged(r, "the seed is not a text like 0x1f2e");
    *seed = strtoull(text + 2, NULL, 16);
    return BNS_OK;
}

static int read_header(struct reader *r, const json_t *j, const struct bns_alloc *alloc)
{
    const char *format, *seed_text, *title;
    const json_t *nodes = json_object_get(j, "nodes");
    uint64_t version, events = 0, skipped = 0, seed = 0;
    int rv;

    if (!text_of(j, "format", &format) || strcmp(format, "bonsai-trace") != 0)
        return damaged(r, "this is no bonsai-trace header");
    if (!number(j, "version", &version) || version != BNS_TRACE_VERSION)
        return damaged(r, "a version that this program does not know");
    if (!number(j, "events", &events) || events > BNS_TRACE_EVENTS_MAX ||
        !number(j, "skipped", &skipped))
        return damaged(r, "the number of events is missing or too large");
    if (events > r->rest / EVENT_BYTES_MIN)
        return damaged(r, "the header names more events than the file can hold");
    if (!text_of(j, "seed", &seed_text) || !text_of(j, "title", &title))
        return damaged(r, "seed and title are not texts");
    if (!json_is_array(nodes) || json_array_size(nodes) == 0 ||
        json_array_size(nodes) > BNS_TRACE_NODES_MAX)
        return damaged(r, "nodes is not a list of 1 to 64 nodes");
    rv = read_seed(r, seed_text, &seed);
    if (rv == BNS_OK)
        rv = bns_trace_new(alloc, seed, events == 0 ? 1 : events, &r->t);
    if (rv != BNS_OK)
        return rv;
    r->events = events;
    r->t->skipped = skipped;
    bns_trace_title(r->t, title);
    for (size_t i = 0; i < json_array_size(nodes) && rv == BNS_OK; i++)
        rv = read_node(r, json_array_get(nodes, i));
    return rv;
}

static bool node_of(const struct reader *r, const json_t *j, const char *name, uint32_t *out)
{
    uint64_t v;

    *out = BNS_TRACE_NONE;
    if (json_object_get(j, name) == NULL)
        return true;
    if (!number(j, name, &v) || v >= r->t->nodes_count)
        return false;
    *out = (uint32_t)v;
    return true;
}

static int read_event(struct reader *r, const json_t *j)
{
    struct bns_trace_event ev = {.kind = BNS_TRACE_KINDS};
    const char *kind;

    if (r->t->count == r->events)
        return damaged(r, "more events than the header says");
    if (!text_of(j, "kind", &kind) || !text_of(j, "text", &ev.text))
        return damaged(r, "kind and text are not texts");
    for (int k = 0; k < BNS_TRACE_KINDS; k++) {
        if (strcmp(kind, bns_trace_kind_names[k]) == 0)
            ev.kind = (enum bns_trace_kind)k;
    }
    if (ev.kind == BNS_TRACE_KINDS)
        return damaged(r, "an unknown kind of event");
    if (json_object_get(j, "t") == NULL || !number(j, "t", &ev.t) || !number(j, "id", &ev.id) ||
        !number(j, "bytes", &ev.bytes))
        return damaged(r, "t, id or bytes is no number");
    if (!node_of(r, j, "node", &ev.node) || !node_of(r, j, "peer", &ev.peer))
        return damaged(r, "node or peer is not in the list of nodes");
    if (r->t->count > 0 && ev.t < bns_trace_at(r->t, r->t->count - 1).t)
        return damaged(r, "time goes back");
    if (ev.kind <= BNS_TRACE_DROP && (ev.node == BNS_TRACE_NONE || ev.peer == BNS_TRACE_NONE))
        return damaged(r, "a message without both ends");
    bns_trace_add(r->t, &ev);
    return BNS_OK;
}

static int read_line(struct reader *r, struct bns_slice line, const struct bns_alloc *alloc)
{
    json_error_t why;
    json_t *j;
    int rv;

    if (line.len > LINE_BYTES_MAX)
        return damaged(r, "longer than 16 KiB");
    j = json_loadb((const char *)line.ptr, line.len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(j))
        rv = damaged(r, j == NULL ? why.text : "not an object");
    else
        rv = r->t == NULL ? read_header(r, j, alloc) : read_event(r, j);
    json_decref(j);
    return rv;
}

int bns_trace_parse(const struct bns_alloc *alloc, struct bns_slice text, struct bns_trace **out,
                    struct bns_err *err)
{
    struct reader r = {.err = err};
    int rv = BNS_OK;

    while (text.len > 0 && rv == BNS_OK) {
        const uint8_t *nl = memchr(text.ptr, '\n', text.len);
        size_t len = nl == NULL ? text.len : (size_t)(nl - (const uint8_t *)text.ptr);

        r.line++;
        r.rest = text.len - len;
        rv = nl == NULL ? damaged(&r, "cut short") : read_line(&r, bns_slice(text.ptr, len), alloc);
        text = bns_slice_skip(text, nl == NULL ? len : len + 1);
    }
    if (rv == BNS_OK && (r.t == NULL || r.t->count < r.events)) {
        r.line++;
        rv = damaged(&r, r.t == NULL ? "the header is missing"
                                     : "the file ends before the last event that the header names");
    }
    if (rv != BNS_OK) {
        bns_trace_free(r.t);
        return rv;
    }
    *out = r.t;
    return BNS_OK;
}
