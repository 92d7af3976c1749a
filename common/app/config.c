/* config.c - one YAML file of sections, and the environment over it.
 *
 * The file is read as libyaml's events, not as its document tree: the shape is two levels of
 * mappings with scalars in them, so a small state machine sees every node with its line and refuses
 * the rest (anchors, tags of other types, a second document, lists where there is none) where it
 * stands. Depth is bounded by that shape: the first node that is too deep ends the parse.
 *
 * A key may stand once. A value that YAML calls null (nothing behind the colon) is a mistake for
 * every kind but text in quotes; in a flat file, which may be etcd's own sample, it is no value.
 */
#include "app/config.h"

#include "base/alloc.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define KEYS_MAX 512

enum place { START, TOP, SECTION, SECTION_BODY, VALUE, ITEMS, END };

struct reader {
    const char *name;
    const struct bns_config_key *keys;
    struct bns_arena *arena;
    struct bns_err *err;
    yaml_event_t *ev;
    enum place place;
    const char *section;              /* as it stands in the table */
    const struct bns_config_key *key; /* the value of which comes next */
    size_t section_lines[KEYS_MAX];   /* by index of the section's first key; 0 = not seen */
    size_t key_lines[KEYS_MAX];       /* by index; 0 = not seen */
    bool flat;                        /* keys without a section may stand, their section is "" */
    struct bns_buf items;             /* of a list, so far, with commas between */
};

static size_t line_of(const struct reader *r)
{
    return r->ev->start_mark.line + 1;
}

static int refuse(const struct reader *r, const char *what)
{
    return bns_err_set(r->err, BNS_E_INVALID, "%s:%zu: %s", r->name, line_of(r), what);
}

/* The names that may stand here: sections, or the keys of one section. */
static int unknown(const struct reader *r, const char *what, const char *word)
{
    const char *names[KEYS_MAX];
    size_t count = 0;
    const char *near;

    for (const struct bns_config_key *k = r->keys; k->section != NULL && count < KEYS_MAX; k++) {
        if (r->section == NULL)
            names[count++] = k->section;
        else if (strcmp(k->section, r->section) == 0)
            names[count++] = k->key;
    }
    near = bns_nearest(word, names, count);
    if (near == NULL)
        return bns_err_set(r->err, BNS_E_INVALID, "%s:%zu: unknown %s '%.64s'", r->name, line_of(r),
                           what, word);
    return bns_err_set(r->err, BNS_E_INVALID, "%s:%zu: unknown %s '%.64s'; did you mean '%s'?",
                       r->name, line_of(r), what, word, near);
}

static int seen_before(struct reader *r, size_t *line, const char *what, const char *name)
{
    if (*line != 0)
        return bns_err_set(r->err, BNS_E_INVALID, "%s:%zu: %s '%s' stands on line %zu already",
                           r->name, line_of(r), what, name, *line);
    *line = line_of(r);
    return BNS_OK;
}

/* A scalar as a C string, or NULL with an error set. */
static const char *scalar(const struct reader *r)
{
    const char *text;

    if (r->ev->type != YAML_SCALAR_EVENT)
        return NULL;
    text = (const char *)r->ev->data.scalar.value;
    return strlen(text) == r->ev->data.scalar.length ? text : NULL; /* a NUL inside */
}

static int on_section(struct reader *r)
{
    const char *word = scalar(r);

    if (word == NULL)
        return refuse(r, "expected the name of a section");
    r->section = NULL;
    for (size_t i = 0; r->keys[i].section != NULL; i++) {
        if (strcmp(r->keys[i].section, word) != 0)
            continue;
        r->section = r->keys[i].section;
        r->place = SECTION;
        return seen_before(r, &r->section_lines[i], "section", word);
    }
    return unknown(r, "section", word);
}

static bool is_section(const struct reader *r, const char *word)
{
    for (const struct bns_config_key *k = r->keys; k->section != NULL; k++) {
        if (strcmp(k->section, word) == 0)
            return true;
    }
    return false;
}

static int on_key(struct reader *r)
{
    const char *word = scalar(r);

    if (word == NULL)
        return refuse(r, "expected the name of a key");
    for (size_t i = 0; r->keys[i].section != NULL; i++) {
        if (strcmp(r->keys[i].section, r->section) != 0 || strcmp(r->keys[i].key, word) != 0)
            continue;
        r->key = &r->keys[i];
        r->place = VALUE;
        return seen_before(r, &r->key_lines[i], "key", word);
    }
    if (r->flat && r->section[0] == '\0' && *word != '\0' && is_section(r, word))
        return on_section(r);
    return unknown(r, "key", word);
}

/* "section.key", or the bare key of a flat file. */
static const char *dot(const struct bns_config_key *k)
{
    return k->section[0] == '\0' ? "" : ".";
}

static int unexpected(const struct reader *r)
{
    const struct bns_config_key *k = r->key;

    return bns_err_set(r->err, BNS_E_INVALID, "%s:%zu: %s%s%s: expected %s", r->name, line_of(r),
                       k->section, dot(k), k->key, bns_value_kind_text(k->kind));
}

static int set_value(struct reader *r, const char *text, size_t len)
{
    const struct bns_config_key *k = r->key;
    int rv;

    if (k->kind == BNS_VALUE_STR || k->kind == BNS_VALUE_LIST) {
        text = bns_arena_dup(r->arena, text, len);
        if (text == NULL)
            return bns_err_set(r->err, BNS_E_NOMEM, "%s: no memory for its text", r->name);
    }
    rv = bns_value_set(k->kind, k->dst, text, r->err);
    if (rv != BNS_OK)
        bns_err_wrap(r->err, "%s:%zu: %s%s%s", r->name, line_of(r), k->section, dot(k), k->key);
    r->place = SECTION_BODY;
    return rv;
}

static int on_value(struct reader *r)
{
    const char *text = scalar(r);
    bool nothing;

    if (r->ev->type == YAML_SEQUENCE_START_EVENT && r->key->kind == BNS_VALUE_LIST) {
        r->place = ITEMS;
        return BNS_OK;
    }
    if (text == NULL)
        return unexpected(r);
    nothing = r->ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
              (*text == '\0' || (r->flat && (strcmp(text, "~") == 0 || strcmp(text, "null") == 0)));
    if (nothing && r->flat) {
        r->place = SECTION_BODY;
        return BNS_OK;
    }
    return nothing ? unexpected(r) : set_value(r, text, strlen(text));
}

/* One word of a list, or its end. */
static int on_item(struct reader *r)
{
    const char *word = scalar(r);
    int rv;

    if (r->ev->type == YAML_SEQUENCE_END_EVENT) {
        rv = set_value(r, r->items.len == 0 ? "" : (const char *)r->items.ptr, r->items.len);
        bns_buf_free(&r->items);
        return rv;
    }
    if (word == NULL || *word == '\0' || strchr(word, ',') != NULL)
        return unexpected(r);
    rv = r->items.len == 0 ? BNS_OK : bns_buf_byte(&r->items, ',');
    if (rv == BNS_OK)
        rv = bns_buf_str(&r->items, word);
    return rv == BNS_OK ? BNS_OK : bns_err_set(r->err, rv, "%s: no memory for its text", r->name);
}

/* One event in the place where the reader is. */
static int on_event(struct reader *r)
{
    yaml_event_type_t type = r->ev->type;

    if (type == YAML_STREAM_START_EVENT || type == YAML_STREAM_END_EVENT ||
        type == YAML_DOCUMENT_END_EVENT)
        return BNS_OK;
    switch (r->place) {
    case START:
        if (type == YAML_DOCUMENT_START_EVENT)
            return BNS_OK;
        if (type == YAML_SCALAR_EVENT && r->ev->data.scalar.length == 0) {
            r->place = END; /* a file of comments */
            return BNS_OK;
        }
        if (type != YAML_MAPPING_START_EVENT)
            return refuse(r, r->flat ? "expected 'key: value' lines"
                                     : "expected sections, such as 'log:'");
        r->place = r->flat ? SECTION_BODY : TOP;
        return BNS_OK;
    case TOP:
        if (type != YAML_MAPPING_END_EVENT)
            return on_section(r);
        r->place = END;
        return BNS_OK;
    case SECTION:
        if (type != YAML_MAPPING_START_EVENT)
            return refuse(r, "expected indented 'key: value' lines below the section's name");
        r->place = SECTION_BODY;
        return BNS_OK;
    case SECTION_BODY:
        if (type != YAML_MAPPING_END_EVENT)
            return on_key(r);
        if (r->flat && r->section[0] != '\0')
            r->section = r->keys[0].section; /* go on with what has none */
        else
            r->place = r->flat ? END : TOP;
        return BNS_OK;
    case VALUE:
        return on_value(r);
    case ITEMS:
        return on_item(r);
    case END:
        return refuse(r, "a second document; one is all there may be");
    }
    return BNS_E_INTERNAL;
}

/* libyaml's complaint, or out of memory. */
static int parser_error(const struct reader *r, const yaml_parser_t *p)
{
    if (p->error == YAML_MEMORY_ERROR)
        return bns_err_set(r->err, BNS_E_NOMEM, "%s: no memory to read it", r->name);
    return bns_err_set(r->err, BNS_E_INVALID, "%s:%zu: not YAML: %s", r->name,
                       p->problem_mark.line + 1, p->problem == NULL ? "?" : p->problem);
}

int bns_config_parse(const char *name, struct bns_slice text, const struct bns_config_key *keys,
                     struct bns_arena *arena, struct bns_err *err)
{
    struct reader r = {.name = name, .keys = keys, .arena = arena, .err = err};
    yaml_parser_t p;
    bool done = false;
    int rv = BNS_OK;

    for (size_t i = 0; keys[i].section != NULL; i++)
        BNS_ASSERT(i < KEYS_MAX);
    r.flat = keys[0].section != NULL && keys[0].section[0] == '\0';
    r.section = r.flat ? keys[0].section : NULL;
    bns_buf_init(&r.items, bns_alloc_libc(), BNS_CONFIG_BYTES_MAX * 2);
    if (!yaml_parser_initialize(&p))
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory to read it", name);
    yaml_parser_set_input_string(&p, text.ptr == NULL ? (const uint8_t *)"" : text.ptr, text.len);
    while (rv == BNS_OK && !done) {
        yaml_event_t ev;

        if (!yaml_parser_parse(&p, &ev)) {
            rv = parser_error(&r, &p);
            break;
        }
        r.ev = &ev;
        rv = on_event(&r);
        done = ev.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&ev);
    }
    yaml_parser_delete(&p);
    bns_buf_free(&r.items);
    return rv;
}

int bns_config_load(const char *path, const struct bns_config_key *keys, struct bns_arena *arena,
                    struct bns_err *err)
{
    FILE *f = fopen(path, "re");
    uint8_t *bytes = NULL;
    size_t len;
    int rv;

    if (f == NULL)
        return bns_err_set(err, errno == ENOENT ? BNS_E_NOTFOUND : BNS_E_IO, "%s: %s", path,
                           strerror(errno));
    bytes = malloc(BNS_CONFIG_BYTES_MAX + 1);
    if (bytes == NULL) {
        rv = bns_err_set(err, BNS_E_NOMEM, "%s: no memory to read it", path);
        goto done;
    }
    len = fread(bytes, 1, BNS_CONFIG_BYTES_MAX + 1, f);
    if (ferror(f)) {
        rv = bns_err_set(err, BNS_E_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (len > BNS_CONFIG_BYTES_MAX) {
        rv = bns_err_set(err, BNS_E_TOOBIG, "%s: more than %u bytes", path, BNS_CONFIG_BYTES_MAX);
        goto done;
    }
    rv = bns_config_parse(path, bns_slice(bytes, len), keys, arena, err);

done:
    free(bytes);
    (void)fclose(f); /* it was read only */
    return rv;
}

/* "election-ms" and "ELECTION_MS" are one name; returns what follows it in `var`, or NULL. */
static const char *match(const char *var, const char *name)
{
    for (; *name != '\0'; name++, var++) {
        int c = *name == '-' ? '_' : toupper((unsigned char)*name);

        if (c != (unsigned char)*var)
            return NULL;
    }
    return var;
}

int bns_config_env(const struct bns_config_key *keys, char *const *environ, struct bns_err *err)
{
    for (; *environ != NULL; environ++) {
        if (strncmp(*environ, "BNS_", 4) != 0)
            continue;
        for (const struct bns_config_key *k = keys; k->section != NULL; k++) {
            const char *at = match(*environ + 4, k->section);
            int rv;

            if (at == NULL || *at != '_')
                continue;
            at = match(at + 1, k->key);
            if (at == NULL || *at != '=' || at[1] == '\0')
                continue;
            rv = bns_value_set(k->kind, k->dst, at + 1, err);
            if (rv != BNS_OK) {
                bns_err_wrap(err, "environment variable %.*s", (int)(at - *environ), *environ);
                return rv;
            }
        }
    }
    return BNS_OK;
}

/* In single quotes a quote is doubled; libyaml folds line breaks there, so they are escaped. */
static int print_text(struct bns_buf *out, const char *text)
{
    int rv = bns_buf_byte(out, '"');

    for (; rv == BNS_OK && *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            rv = bns_buf_fmt(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            rv = bns_buf_fmt(out, "\\x%02x", (unsigned)(unsigned char)*text);
        else
            rv = bns_buf_byte(out, (uint8_t)*text);
    }
    return rv == BNS_OK ? bns_buf_str(out, "\"\n") : rv;
}

static int print_value(struct bns_buf *out, const struct bns_config_key *k)
{
    const char *text;

    switch (k->kind) {
    case BNS_VALUE_STR:
    case BNS_VALUE_LIST:
        text = *(const char *const *)k->dst;
        return print_text(out, text == NULL ? "" : text);
    case BNS_VALUE_BOOL:
        return bns_buf_fmt(out, "%s\n", *(const bool *)k->dst ? "true" : "false");
    case BNS_VALUE_DURATION:
        return bns_buf_fmt(out, "%" PRIu64 "ns\n", *(const uint64_t *)k->dst);
    case BNS_VALUE_U64:
    case BNS_VALUE_BYTES:
        return bns_buf_fmt(out, "%" PRIu64 "\n", *(const uint64_t *)k->dst);
    }
    return BNS_E_INTERNAL;
}

int bns_config_print(const struct bns_config_key *keys, struct bns_buf *out)
{
    const char *section = "";

    for (const struct bns_config_key *k = keys; k->section != NULL; k++) {
        int rv = BNS_OK;

        if (strcmp(section, k->section) != 0)
            rv = bns_buf_fmt(out, "%s:\n", k->section);
        section = k->section;
        if (rv == BNS_OK)
            rv = bns_buf_fmt(out, "  %s: ", k->key);
        if (rv == BNS_OK)
            rv = print_value(out, k);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}
