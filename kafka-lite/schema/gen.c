/* gen.c - from the table of messages to C: a build step, never shipped.
 *
 *   kafka_gen messages.txt DIR      writes DIR/messages.h and DIR/messages.c
 *
 * A recursive-descent parser over the notation that the table explains at its top, and two walks
 * over the tree: one prints the structs (those inside before those around them), one the
 * descriptions of their fields. Whatever is wrong with the table ends the build, with its line.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX 4096
#define APIS_MAX 128
#define NAME_MAX_BYTES 160
#define LAST_VERSION 999

struct range {
    int first, last;
};

struct node {
    char name[64];
    char c[NAME_MAX_BYTES]; /* of a struct: its C name */
    int type;               /* index in types[] */
    bool array, has_nulls, preset_null;
    struct range versions, nulls;
    int tag;
    char preset[32];
    struct node *child, *next;
};

struct api {
    char name[64];
    int key, flexible;
    struct range versions;
    struct node *request, *response;
};

static const struct {
    const char *name, *c, *token;
} types[] = {
    {"bool", "bool", "KAFKA_BOOL"},
    {"i8", "int8_t", "KAFKA_I8"},
    {"i16", "int16_t", "KAFKA_I16"},
    {"u16", "uint16_t", "KAFKA_U16"},
    {"i32", "int32_t", "KAFKA_I32"},
    {"i64", "int64_t", "KAFKA_I64"},
    {"f64", "double", "KAFKA_F64"},
    {"uuid", "struct kafka_uuid", "KAFKA_UUID"},
    {"str", "struct bns_slice", "KAFKA_STR"},
    {"bytes", "struct bns_slice", "KAFKA_BYTES"},
    {"records", "struct bns_slice", "KAFKA_RECORDS"},
    {"{}", NULL, "KAFKA_STRUCT"},
};
#define TYPES (sizeof types / sizeof types[0])
#define T_STRUCT ((int)TYPES - 1)

static const char *path;
static const char *at;
static int line = 1;
static struct node nodes[NODES_MAX];
static size_t nodes_count;
static struct api apis[APIS_MAX];
static size_t apis_count;

static _Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void die(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s:%d: ", path, line);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

/* ---- the table ------------------------------------------------------------------------------ */

static void skip_space(void)
{
    for (;; at++) {
        if (*at == '#' && (line == 1 || at[-1] == '\n')) {
            while (*at != '\n' && *at != '\0')
                at++;
        }
        if (*at == '\n')
            line++;
        if (*at == '\0' || !isspace((unsigned char)*at))
            return;
    }
}

static bool eat(char c)
{
    if (*at != c)
        return false;
    at++;
    return true;
}

static void must(char c)
{
    if (!eat(c))
        die("'%c' expected before '%.10s'", c, at);
}

static int number(void)
{
    char *end;
    long v = strtol(at, &end, 10);

    if (end == at || v < 0 || v > LAST_VERSION)
        die("a number expected at '%.10s'", at);
    at = end;
    return (int)v;
}

static void word(char *to, size_t size)
{
    size_t n = 0;

    while (isalnum((unsigned char)at[n]))
        n++;
    if (n == 0 || n >= size)
        die("a name expected at '%.10s'", at);
    memcpy(to, at, n);
    to[n] = '\0';
    at += n;
}

/* A, A+ or A-B */
static struct range range(struct range around)
{
    struct range r;

    r.first = number();
    r.last = r.first;
    if (eat('+'))
        r.last = around.last;
    else if (eat('-'))
        r.last = number();
    if (r.first < around.first || r.last > around.last || r.first > r.last)
        die("versions %d-%d are not inside %d-%d", r.first, r.last, around.first, around.last);
    return r;
}

static int scalar(void)
{
    char name[16];

    word(name, sizeof name);
    for (int i = 0; i < T_STRUCT; i++) {
        if (strcmp(types[i].name, name) == 0)
            return i;
    }
    die("no type is called '%s'", name);
}

static struct node *node_new(void)
{
    if (nodes_count == NODES_MAX)
        die("more than %d fields", NODES_MAX);
    nodes[nodes_count].tag = -1;
    return &nodes[nodes_count++];
}

static struct node *fields(struct range around, const char *ends);

/* Versions stand behind what they belong to: look ahead to them past the brackets. */
static struct range versions_ahead(struct range around)
{
    const char *here = at;
    struct range r = around;
    int depth = 0;

    for (; *at != '\0'; at++) {
        if (*at == '[' || *at == '{')
            depth++;
        else if ((*at == ']' || *at == '}') && --depth < 0)
            break;
        else if (depth == 0 && isspace((unsigned char)*at))
            break;
        else if (depth == 0 && *at == '@') {
            at++;
            r = range(around);
            break;
        }
    }
    at = here;
    return r;
}

static bool only_a_type(void)
{
    size_t n = 0;

    while (isalnum((unsigned char)at[n]))
        n++;
    return n > 0 && at[n] == ']';
}

static void preset(struct node *f)
{
    size_t n = 0;

    if (strncmp(at, "null", 4) == 0) {
        f->preset_null = true;
        at += 4;
        return;
    }
    if (strncmp(at, "true", 4) == 0) {
        memcpy(f->preset, "1", 2);
        at += 4;
        return;
    }
    while (isdigit((unsigned char)at[n]) || at[n] == '-')
        n++;
    if (n == 0 || n >= sizeof f->preset)
        die("a default expected at '%.10s'", at);
    memcpy(f->preset, at, n);
    f->preset[n] = '\0';
    at += n;
}

static void suffixes(struct node *f)
{
    for (;;) {
        if (eat('?')) {
            f->has_nulls = true;
            f->nulls = isdigit((unsigned char)*at) ? range(f->versions) : f->versions;
        } else if (eat('@')) {
            (void)range((struct range){0, LAST_VERSION}); /* what versions_ahead has read */
        } else if (eat('#')) {
            f->tag = number();
        } else if (eat('=')) {
            preset(f);
        } else {
            break;
        }
    }
    if (f->preset_null && !f->has_nulls)
        die("%s: the default is null, but it is never null", f->name);
    if (f->array && f->has_nulls && f->type == T_STRUCT && f->tag >= 0)
        die("%s: a tagged array that may be null is not there in any message", f->name);
}

static struct node *field(struct range around)
{
    struct node *f = node_new();

    word(f->name, sizeof f->name);
    f->versions = versions_ahead(around);
    if (eat(':')) {
        f->type = scalar();
    } else if (eat('[')) {
        f->array = true;
        if (only_a_type()) {
            f->type = scalar();
        } else {
            f->type = T_STRUCT;
            f->child = fields(f->versions, "]");
        }
        must(']');
    } else {
        must('{');
        f->type = T_STRUCT;
        f->child = fields(f->versions, "}");
        must('}');
    }
    suffixes(f);
    return f;
}

static struct node *fields(struct range around, const char *ends)
{
    struct node *first = NULL, **next = &first;

    for (skip_space(); *at != '\0' && strchr(ends, *at) == NULL; skip_space()) {
        if (isdigit((unsigned char)*at))
            break; /* the next message's key */
        *next = field(around);
        next = &(*next)->next;
    }
    return first;
}

static void api(void)
{
    struct api *a = &apis[apis_count];
    struct range all = {0, LAST_VERSION};
    char flex[8];

    if (apis_count++ == APIS_MAX)
        die("more than %d messages", APIS_MAX);
    a->key = number();
    skip_space();
    word(a->name, sizeof a->name);
    skip_space();
    a->versions = range(all);
    skip_space();
    word(flex, sizeof flex);
    skip_space();
    if (strcmp(flex, "flex") != 0)
        die("'flex' expected");
    a->flexible = -1;
    if (isdigit((unsigned char)*at))
        a->flexible = number();
    else
        word(flex, sizeof flex); /* never */
    skip_space();
    must('>');
    a->request = fields(a->versions, "<");
    must('<');
    a->response = fields(a->versions, ">");
}

/* ---- C -------------------------------------------------------------------------------------- */

static void snake(char *to, const char *from)
{
    size_t n = 0;

    for (; *from != '\0'; from++) {
        if (isupper((unsigned char)*from) && n > 0)
            to[n++] = '_';
        to[n++] = (char)tolower((unsigned char)*from);
        if (n + 2 > NAME_MAX_BYTES)
            die("too long a name");
    }
    to[n] = '\0';
}

static size_t called(const struct node *first, const char *name)
{
    size_t n = 0;

    for (const struct node *f = first; f != NULL; f = f->next)
        n += f->type == T_STRUCT ? (strcmp(f->name, name) == 0) + called(f->child, name) : 0;
    return n;
}

/* A struct is called after its message and its field; where the message has two such fields, after
 * the struct around it and its field. */
static void name_structs(const char *message, const struct node *root, const char *around,
                         struct node *first)
{
    char s[NAME_MAX_BYTES];

    for (struct node *f = first; f != NULL; f = f->next) {
        if (f->type != T_STRUCT)
            continue;
        snake(s, f->name);
        if (snprintf(f->c, sizeof f->c, "%s_%s", called(root, f->name) > 1 ? around : message, s) >=
            NAME_MAX_BYTES)
            die("too long a name: %s", s);
        name_structs(message, root, f->c, f->child);
    }
}

static bool by_pointer(const struct node *f)
{
    return f->type == T_STRUCT && !f->array && f->has_nulls;
}

static void emit_structs(FILE *out, const char *name, const struct node *first)
{
    char member[NAME_MAX_BYTES], type[NAME_MAX_BYTES + 8];

    for (const struct node *f = first; f != NULL; f = f->next) {
        if (f->type == T_STRUCT)
            emit_structs(out, f->c, f->child);
    }
    fprintf(out, "struct %s {\n", name);
    for (const struct node *f = first; f != NULL; f = f->next) {
        snake(member, f->name);
        (void)snprintf(type, sizeof type, f->type == T_STRUCT ? "struct %s" : "%s",
                       f->type == T_STRUCT ? f->c : types[f->type].c);
        if (f->array)
            fprintf(out, "    struct {\n        %s *at;\n        int32_t count;\n    } %s;\n", type,
                    member);
        else
            fprintf(out, "    %s %s%s;\n", type, by_pointer(f) ? "*" : "", member);
    }
    fprintf(out, first == NULL ? "    char nothing;\n};\n\n" : "};\n\n");
}

static void emit_field(FILE *out, const char *name, const struct node *f)
{
    char member[NAME_MAX_BYTES];

    snake(member, f->name);
    fprintf(out, "    {.name = \"%s\", .type = %s, .at = offsetof(struct %s, %s), .tag = %d,\n",
            f->name, types[f->type].token, name, member, f->tag);
    fprintf(out, "     .versions = {%d, %d}, .nulls = {%d, %d}", f->versions.first,
            f->versions.last, f->has_nulls ? f->nulls.first : 1, f->has_nulls ? f->nulls.last : 0);
    if (f->type == T_STRUCT)
        fprintf(out, ", .of = &%s_schema", f->c);
    if (f->preset[0] != '\0')
        fprintf(out, ", .preset = %s", f->preset);
    fprintf(out, "%s%s%s},\n", f->array ? ", .array = true" : "",
            f->preset_null ? ", .preset_null = true" : "",
            by_pointer(f) ? ", .by_pointer = true" : "");
}

static void emit_schema(FILE *out, const char *name, const struct node *first)
{
    for (const struct node *f = first; f != NULL; f = f->next) {
        if (f->type == T_STRUCT)
            emit_schema(out, f->c, f->child);
    }
    if (first != NULL) {
        fprintf(out, "static const struct kafka_field %s_fields[] = {\n", name);
        for (const struct node *f = first; f != NULL; f = f->next)
            emit_field(out, name, f);
        fprintf(out, "};\n");
    }
    fprintf(out, "const struct kafka_struct %s_schema = {.name = \"%s\", ", name, name);
    if (first != NULL)
        fprintf(out,
                ".fields = %s_fields,\n    .fields_count = sizeof %s_fields / sizeof %s_fields"
                "[0], ",
                name, name, name);
    fprintf(out, ".size = sizeof(struct %s)};\n\n", name);
}

static void emit_names(FILE *out, const char *name, const struct node *first)
{
    for (const struct node *f = first; f != NULL; f = f->next) {
        if (f->type == T_STRUCT)
            emit_names(out, f->c, f->child);
    }
    fprintf(out, "extern const struct kafka_struct %s_schema;\n", name);
}

static void name_all(void)
{
    char base[NAME_MAX_BYTES], name[NAME_MAX_BYTES + 32];

    for (size_t i = 0; i < apis_count; i++) {
        snake(base, apis[i].name);
        (void)snprintf(name, sizeof name, "kafka_%s_request", base);
        name_structs(name, apis[i].request, name, apis[i].request);
        (void)snprintf(name, sizeof name, "kafka_%s_response", base);
        name_structs(name, apis[i].response, name, apis[i].response);
    }
}

/* Calls emit for the request and the response of every message. */
static void each(FILE *out, void (*emit)(FILE *, const char *, const struct node *))
{
    char base[NAME_MAX_BYTES], name[NAME_MAX_BYTES + 32];

    for (size_t i = 0; i < apis_count; i++) {
        snake(base, apis[i].name);
        (void)snprintf(name, sizeof name, "kafka_%s_request", base);
        emit(out, name, apis[i].request);
        (void)snprintf(name, sizeof name, "kafka_%s_response", base);
        emit(out, name, apis[i].response);
    }
}

static void emit_apis(FILE *out)
{
    char base[NAME_MAX_BYTES];

    fprintf(out, "const struct kafka_api kafka_apis[] = {\n");
    for (size_t i = 0; i < apis_count; i++) {
        const struct api *a = &apis[i];
        snake(base, a->name);
        fprintf(out, "    {\"%s\", %d, %d, %d, %s", a->name, a->key, a->versions.first,
                a->versions.last, a->flexible < 0 ? "INT16_MAX" : "");
        if (a->flexible >= 0)
            fprintf(out, "%d", a->flexible);
        fprintf(out, ",\n     &kafka_%s_request_schema, &kafka_%s_response_schema},\n", base, base);
    }
    fprintf(out, "};\nconst size_t kafka_apis_count = %zu;\n", apis_count);
}

static FILE *create(const char *dir, const char *name)
{
    char file[1024];
    FILE *out;

    (void)snprintf(file, sizeof file, "%s/%s", dir, name);
    out = fopen(file, "w");
    if (out == NULL)
        die("cannot write %s", file);
    fprintf(out, "/* Made from kafka-lite/schema/messages.txt by schema/gen.c. */\n");
    return out;
}

static void done(FILE *out)
{
    if (ferror(out) || fclose(out) != 0)
        die("cannot write the output");
}

static char *whole(const char *name)
{
    static char text[1 << 20];
    FILE *in = fopen(name, "r");
    size_t n;

    if (in == NULL)
        die("cannot read it");
    n = fread(text, 1, sizeof text, in);
    if (ferror(in) || n == sizeof text)
        die("cannot read it, or it is over 1 MiB");
    (void)fclose(in);
    text[n] = '\0';
    return text;
}

int main(int argc, char **argv)
{
    FILE *out;

    if (argc != 3) {
        fprintf(stderr, "usage: kafka_gen messages.txt DIR\n");
        return 2;
    }
    path = argv[1];
    at = whole(path);
    for (skip_space(); *at != '\0'; skip_space())
        api();
    name_all();
    out = create(argv[2], "messages.h");
    fprintf(out, "#ifndef KAFKA_MESSAGES_H\n#define KAFKA_MESSAGES_H\n\n"
                 "#include \"wire/schema.h\"\n\n");
    each(out, emit_structs);
    each(out, emit_names);
    fprintf(out, "extern const struct kafka_api kafka_apis[];\n"
                 "extern const size_t kafka_apis_count;\n");
    for (size_t i = 0; i < apis_count; i++) {
        char name[NAME_MAX_BYTES];
        snake(name, apis[i].name);
        for (char *c = name; *c != '\0'; c++)
            *c = (char)toupper((unsigned char)*c);
        fprintf(out, "#define KAFKA_KEY_%s %d\n", name, apis[i].key);
    }
    fprintf(out, "\n#endif\n");
    done(out);
    out = create(argv[2], "messages.c");
    fprintf(out, "#include <stddef.h>\n\n#include \"messages.h\"\n\n");
    each(out, emit_schema);
    emit_apis(out);
    done(out);
    return 0;
}
