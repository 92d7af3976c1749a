/* pb_json.c - protobuf messages as JSON and back, along the descriptor (rules in pb_json.h).
 *
 * Out: fields in the order of their numbers, written straight into the buffer. In: jansson reads
 * the text, then the tree is walked with the descriptor at hand; the message and all it points to
 * live in the arena. jansson holds integers in 63 bits: a text with larger ones is read once
 * more with those in quotes.
 *
 * Recursion: one level per nested message; in, never past DEPTH_MAX (and jansson's own bound while
 * it parses); out, as deep as the caller's message.
 */
#include "codec/pb_json_int.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "codec/base64.h"

#define DEPTH_MAX 64u

/* ---- out ------------------------------------------------------------------------------------- */
int bns_pb_json_string(struct bns_buf *out, struct bns_slice s)
{
    int rv = bns_buf_byte(out, '"');

    while (rv == BNS_OK && s.len > 0) {
        size_t n = bns_utf8_step(s);
        uint8_t c = s.ptr[0];

        if (n == 0) /* cannot come from a guarded message; JSON must be text all the same */
            rv = bns_buf_str(out, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\')
            rv = bns_buf_fmt(out, "\\%c", c);
        else if (c == '\n')
            rv = bns_buf_str(out, "\\n");
        else if (c == '\r')
            rv = bns_buf_str(out, "\\r");
        else if (c == '\t')
            rv = bns_buf_str(out, "\\t");
        else if (c < 0x20)
            rv = bns_buf_fmt(out, "\\u%04x", c);
        else
            rv = bns_buf_add(out, s.ptr, n);
        s = bns_slice_skip(s, n == 0 ? 1 : n);
    }
    return rv == BNS_OK ? bns_buf_byte(out, '"') : rv;
}

/* The fewest digits (6 to 9 of a float, 15 to 17 of a double) that read back as v. */
static int put_real(struct bns_buf *out, double v, bool narrow)
{
    char text[40] = "-0.0"; /* as "-0" it would come back as an integer, which has no such zero */

    if (isnan(v))
        return bns_buf_str(out, "\"NaN\"");
    if (isinf(v))
        return bns_buf_str(out, v > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    for (int digits = narrow ? 6 : 15; v != 0 || !signbit(v); digits++) {
        double back;
        (void)snprintf(text, sizeof text, "%.*g", digits, v); /* 24 characters at most */
        back = narrow ? (double)strtof(text, NULL) : strtod(text, NULL);
        if (!(back < v) && !(back > v))
            break;
    }
    return bns_buf_str(out, text);
}

static int put_enum(struct bns_buf *out, const ProtobufCEnumDescriptor *d, int v)
{
    const ProtobufCEnumValue *name = protobuf_c_enum_descriptor_get_value(d, v);

    if (name == NULL) /* a newer peer's value */
        return bns_buf_fmt(out, "%d", v);
    return bns_buf_fmt(out, "\"%s\"", name->name);
}

static int put_bytes(struct bns_buf *out, const ProtobufCBinaryData *v)
{
    int rv = bns_buf_byte(out, '"');

    if (rv == BNS_OK)
        rv = bns_base64_encode(out, bns_slice(v->data, v->len), true);
    return rv == BNS_OK ? bns_buf_byte(out, '"') : rv;
}

static int put_message(struct bns_buf *out, const ProtobufCMessage *msg);

static int put_value(struct bns_buf *out, const ProtobufCFieldDescriptor *f, const void *v)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return bns_buf_fmt(out, "%d", *(const int32_t *)v);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return bns_buf_fmt(out, "%u", *(const uint32_t *)v);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return bns_buf_fmt(out, "\"%lld\"", (long long)*(const int64_t *)v);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return bns_buf_fmt(out, "\"%llu\"", (unsigned long long)*(const uint64_t *)v);
    case PROTOBUF_C_TYPE_FLOAT:
        return put_real(out, (double)*(const float *)v, true);
    case PROTOBUF_C_TYPE_DOUBLE:
        return put_real(out, *(const double *)v, false);
    case PROTOBUF_C_TYPE_BOOL:
        return bns_buf_str(out, *(const protobuf_c_boolean *)v ? "true" : "false");
    case PROTOBUF_C_TYPE_ENUM:
        return put_enum(out, f->descriptor, *(const int *)v);
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(char *const *)v;
        return bns_pb_json_string(out, bns_slice_str(s == NULL ? "" : s));
    }
    case PROTOBUF_C_TYPE_BYTES:
        return put_bytes(out, v);
    case PROTOBUF_C_TYPE_MESSAGE:
        return put_message(out, *(ProtobufCMessage *const *)v);
    }
    BNS_ASSERT(false); /* every type is above */
    return BNS_E_INTERNAL;
}

/* Bytes of one value in a message struct. */
static size_t width(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static bool is_zero(const ProtobufCFieldDescriptor *f, const void *v)
{
    static const uint8_t zero[8] = {0};

    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(ProtobufCMessage *const *)v == NULL;
    if (f->type == PROTOBUF_C_TYPE_STRING)
        return *(char *const *)v == NULL || **(char *const *)v == '\0';
    if (f->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)v)->len == 0;
    return memcmp(v, zero, width(f->type)) == 0;
}

/* Whether an unrepeated field is written. */
static bool is_shown(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f)
{
    const uint8_t *base = (const uint8_t *)msg;

    if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        uint32_t chosen;
        memcpy(&chosen, base + f->quantifier_offset, sizeof chosen);
        return chosen == f->id &&
               !(f->type == PROTOBUF_C_TYPE_MESSAGE && is_zero(f, base + f->offset));
    }
    if (f->label == PROTOBUF_C_LABEL_REQUIRED)
        return !(f->type == PROTOBUF_C_TYPE_MESSAGE && is_zero(f, base + f->offset));
    if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_MESSAGE &&
        f->type != PROTOBUF_C_TYPE_STRING &&
        !*(const protobuf_c_boolean *)(const void *)(base + f->quantifier_offset))
        return false;
    return !is_zero(f, base + f->offset);
}

bool bns_pb_json_list_empty(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f)
{
    return *(const size_t *)(const void *)((const uint8_t *)msg + f->quantifier_offset) == 0;
}

int bns_pb_json_elements(struct bns_buf *out, const ProtobufCMessage *msg,
                         const ProtobufCFieldDescriptor *f)
{
    const uint8_t *base = (const uint8_t *)msg;
    const uint8_t *list = *(uint8_t *const *)(const void *)(base + f->offset);
    size_t n = *(const size_t *)(const void *)(base + f->quantifier_offset);
    int rv = BNS_OK;

    for (size_t i = 0; rv == BNS_OK && i < n; i++) {
        if (i > 0)
            rv = bns_buf_byte(out, ',');
        if (rv == BNS_OK)
            rv = put_value(out, f, list + i * width(f->type));
    }
    return rv;
}

static int put_list(struct bns_buf *out, const ProtobufCMessage *msg,
                    const ProtobufCFieldDescriptor *f)
{
    int rv = bns_buf_byte(out, '[');

    if (rv == BNS_OK)
        rv = bns_pb_json_elements(out, msg, f);
    return rv == BNS_OK ? bns_buf_byte(out, ']') : rv;
}

int bns_pb_json_field(struct bns_buf *out, const ProtobufCMessage *msg,
                      const ProtobufCFieldDescriptor *f, bool *first)
{
    const uint8_t *base = (const uint8_t *)msg;
    bool list = f->label == PROTOBUF_C_LABEL_REPEATED;
    int rv;

    if (list ? bns_pb_json_list_empty(msg, f) : !is_shown(msg, f))
        return BNS_OK;
    rv = bns_buf_fmt(out, "%s\"%s\":", *first ? "" : ",", f->name);
    *first = false;
    if (rv != BNS_OK)
        return rv;
    return list ? put_list(out, msg, f) : put_value(out, f, base + f->offset);
}

static int put_message(struct bns_buf *out, const ProtobufCMessage *msg)
{
    bool first = true;
    int rv = bns_buf_byte(out, '{');

    for (unsigned i = 0; rv == BNS_OK && i < msg->descriptor->n_fields; i++)
        rv = bns_pb_json_field(out, msg, &msg->descriptor->fields[i], &first);
    return rv == BNS_OK ? bns_buf_byte(out, '}') : rv;
}

int bns_pb_to_json(const ProtobufCMessage *msg, struct bns_buf *out)
{
    size_t start = out->len;
    int rv = put_message(out, msg);

    if (rv != BNS_OK)
        out->len = start;
    return rv;
}

/* ---- in -------------------------------------------------------------------------------------- */
struct reader {
    struct bns_arena *arena;
    struct bns_err *err;
    const ProtobufCMessageDescriptor *desc; /* of the message being read: for error texts */
};

static int refuse(struct reader *r, const ProtobufCFieldDescriptor *f, const char *what)
{
    return bns_err_set(r->err, BNS_E_INVALID, "%s.%s: %s", r->desc->name, f->name, what);
}

static int no_memory(struct reader *r)
{
    return bns_err_set(r->err, BNS_E_NOMEM, "%s: no memory", r->desc->name);
}

/* "range_end" answers to "rangeEnd". */
static bool is_camel(const char *name, const char *key)
{
    for (; *name != '\0'; name++, key++) {
        char c = *name;
        if (c == '_' && name[1] >= 'a' && name[1] <= 'z') {
            name++;
            c = (char)(*name - 'a' + 'A');
        }
        if (c != *key)
            return false;
    }
    return *key == '\0';
}

static const ProtobufCFieldDescriptor *find(const ProtobufCMessageDescriptor *d, const char *key)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(d, key);

    for (unsigned i = 0; f == NULL && i < d->n_fields; i++) {
        if (is_camel(d->fields[i].name, key))
            f = &d->fields[i];
    }
    return f;
}

/* A decimal integer, nothing else around it. */
static bool parse_digits(const char *s, bool *negative, uint64_t *magnitude)
{
    uint64_t v = 0;

    *negative = *s == '-';
    if (*negative)
        s++;
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    *magnitude = v;
    return true;
}

/* Reads a number or a string of digits as sign and magnitude. */
static bool read_digits(const json_t *j, bool *negative, uint64_t *magnitude)
{
    if (json_is_string(j))
        return parse_digits(json_string_value(j), negative, magnitude);
    if (!json_is_integer(j))
        return false;
    *negative = json_integer_value(j) < 0;
    *magnitude = (uint64_t)json_integer_value(j);
    if (*negative)
        *magnitude = 0 - *magnitude;
    return true;
}

static int read_signed(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                       int64_t *out)
{
    uint64_t bound = width(f->type) == 4 ? (uint64_t)INT32_MAX : (uint64_t)INT64_MAX;
    uint64_t magnitude;
    bool negative;

    if (!read_digits(j, &negative, &magnitude))
        return refuse(r, f, "not an integer");
    if (magnitude > bound + (negative ? 1 : 0))
        return refuse(r, f, "integer out of range");
    *out = (int64_t)(negative ? 0 - magnitude : magnitude);
    return BNS_OK;
}

static int read_unsigned(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                         uint64_t *out)
{
    bool negative;

    if (!read_digits(j, &negative, out))
        return refuse(r, f, "not an integer");
    if ((negative && *out != 0) || (width(f->type) == 4 && *out > UINT32_MAX))
        return refuse(r, f, "integer out of range");
    return BNS_OK;
}

static int read_real(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                     double *out)
{
    const char *text = json_string_value(j);
    char *end;

    if (json_is_number(j)) {
        *out = json_number_value(j);
        return BNS_OK;
    }
    if (text == NULL || *text == '\0')
        return refuse(r, f, "not a number");
    if (strcmp(text, "NaN") == 0 || strcmp(text, "Infinity") == 0 ||
        strcmp(text, "-Infinity") == 0) {
        *out = text[0] == 'N' ? (double)NAN : text[0] == 'I' ? HUGE_VAL : -HUGE_VAL;
        return BNS_OK;
    }
    if (strspn(text, "+-.0123456789eE") != strlen(text))
        return refuse(r, f, "not a number");
    *out = strtod(text, &end);
    return *end != '\0' ? refuse(r, f, "not a number") : BNS_OK;
}

static int read_enum(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j, int *out)
{
    const ProtobufCEnumValue *v;

    if (json_is_integer(j)) {
        json_int_t n = json_integer_value(j);
        if (n < INT32_MIN || n > INT32_MAX)
            return refuse(r, f, "number out of range");
        *out = (int)n;
        return BNS_OK;
    }
    if (!json_is_string(j))
        return refuse(r, f, "neither a name nor a number");
    v = protobuf_c_enum_descriptor_get_value_by_name(f->descriptor, json_string_value(j));
    if (v == NULL)
        return refuse(r, f, "unknown name");
    *out = v->value;
    return BNS_OK;
}

static int read_text(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                     char **out)
{
    if (!json_is_string(j))
        return refuse(r, f, "not a string");
    *out = bns_arena_str(r->arena, bns_slice(json_string_value(j), json_string_length(j)));
    return *out == NULL ? no_memory(r) : BNS_OK;
}

static int read_bytes(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                      ProtobufCBinaryData *out)
{
    struct bns_slice text;
    struct bns_buf b;
    size_t room;

    if (!json_is_string(j))
        return refuse(r, f, "not a base64 string");
    text = bns_slice(json_string_value(j), json_string_length(j));
    room = text.len / 4 * 3 + 3;
    bns_buf_init(&b, bns_alloc_libc(), room);
    b.ptr = bns_arena_alloc(r->arena, room); /* a fixed buffer: it is large enough, never grown */
    if (b.ptr == NULL)
        return no_memory(r);
    b.cap = room;
    if (bns_base64_decode(&b, text) != BNS_OK)
        return refuse(r, f, "not base64");
    out->data = b.ptr;
    out->len = b.len;
    return BNS_OK;
}

static int read_message(struct reader *r, const ProtobufCMessageDescriptor *d, const json_t *j,
                        uint32_t depth, ProtobufCMessage **out);

static int read_number(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                       void *member)
{
    bool wide = width(f->type) == 8;
    int64_t i64 = 0;
    uint64_t u64 = 0;
    double real = 0;
    int rv;

    switch (f->type) {
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        rv = read_real(r, f, j, &real);
        if (wide)
            *(double *)member = real;
        else if (isfinite(real) && !isfinite((float)real))
            return rv != BNS_OK ? rv : refuse(r, f, "number out of range");
        else
            *(float *)member = (float)real;
        return rv;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        rv = read_unsigned(r, f, j, &u64);
        break;
    default:
        rv = read_signed(r, f, j, &i64);
        u64 = (uint64_t)i64;
        break;
    }
    if (wide)
        memcpy(member, &u64, 8);
    else
        *(uint32_t *)member = (uint32_t)u64;
    return rv;
}

static int read_value(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                      uint32_t depth, void *member)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(j))
            return refuse(r, f, "neither true nor false");
        *(protobuf_c_boolean *)member = json_is_true(j);
        return BNS_OK;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(r, f, j, member);
    case PROTOBUF_C_TYPE_STRING:
        return read_text(r, f, j, member);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(r, f, j, member);
    case PROTOBUF_C_TYPE_MESSAGE:
        if (!json_is_object(j))
            return refuse(r, f, "not an object");
        return read_message(r, f->descriptor, j, depth + 1, member);
    default:
        return read_number(r, f, j, member);
    }
}

static int read_list(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                     uint32_t depth, ProtobufCMessage *msg)
{
    uint8_t *base = (uint8_t *)msg;
    size_t n = json_array_size(j);
    uint8_t *list;

    if (!json_is_array(j))
        return refuse(r, f, "not a list");
    if (n == 0)
        return BNS_OK;
    list = n > SIZE_MAX / 16 ? NULL : bns_arena_alloc(r->arena, n * width(f->type));
    if (list == NULL)
        return no_memory(r);
    memset(list, 0, n * width(f->type));
    for (size_t i = 0; i < n; i++) {
        int rv = read_value(r, f, json_array_get(j, i), depth, list + i * width(f->type));
        if (rv != BNS_OK)
            return rv;
    }
    *(uint8_t **)(void *)(base + f->offset) = list;
    *(size_t *)(void *)(base + f->quantifier_offset) = n;
    return BNS_OK;
}

static int read_field(struct reader *r, const ProtobufCFieldDescriptor *f, const json_t *j,
                      uint32_t depth, ProtobufCMessage *msg)
{
    uint8_t *base = (uint8_t *)msg;
    void *quantifier = base + f->quantifier_offset;
    bool oneof = (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
    uint32_t chosen = 0;
    int rv;

    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return read_list(r, f, j, depth, msg);
    if (oneof) {
        memcpy(&chosen, quantifier, sizeof chosen);
        if (chosen != 0 && chosen != f->id)
            return refuse(r, f, "another member of the same oneof is set");
    }
    rv = read_value(r, f, j, depth, base + f->offset);
    if (rv != BNS_OK)
        return rv;
    if (oneof)
        memcpy(quantifier, &f->id, sizeof f->id);
    else if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_MESSAGE &&
             f->type != PROTOBUF_C_TYPE_STRING)
        *(protobuf_c_boolean *)quantifier = 1;
    return BNS_OK;
}

static int read_message(struct reader *r, const ProtobufCMessageDescriptor *d, const json_t *j,
                        uint32_t depth, ProtobufCMessage **out)
{
    const ProtobufCMessageDescriptor *outer = r->desc;
    ProtobufCMessage *msg;
    const char *key;
    json_t *value;

    r->desc = d;
    if (depth > DEPTH_MAX)
        return bns_err_set(r->err, BNS_E_TOOBIG, "%s: nested deeper than %u", d->name, DEPTH_MAX);
    msg = bns_arena_alloc(r->arena, d->sizeof_message);
    if (msg == NULL)
        return no_memory(r);
    protobuf_c_message_init(d, msg);
    json_object_foreach((json_t *)(uintptr_t)j, key, value)
    {
        const ProtobufCFieldDescriptor *f = find(d, key);
        int rv;

        if (f == NULL || json_is_null(value))
            continue;
        rv = read_field(r, f, value, depth, msg);
        if (rv != BNS_OK)
            return rv;
    }
    r->desc = outer;
    *out = msg;
    return BNS_OK;
}

/* Copies JSON with integers of 19 digits and more (which may not fit jansson's 63 bits) in quotes:
 * the strings they become are what 64-bit fields take as well. */
static int quote_long_integers(struct bns_slice in, struct bns_buf *out)
{
    bool text = false;
    size_t i = 0;
    int rv = BNS_OK;

    while (rv == BNS_OK && i < in.len) {
        size_t n = 1;
        bool quote = false;

        if (text) {
            text = in.ptr[i] != '"';
            n = in.ptr[i] == '\\' && in.len - i > 1 ? 2 : 1;
        } else if (in.ptr[i] == '"') {
            text = true;
        } else if (in.ptr[i] == '-' || (in.ptr[i] >= '0' && in.ptr[i] <= '9')) {
            while (i + n < in.len && memchr("0123456789+-.eE", in.ptr[i + n], 15) != NULL)
                n++;
            quote = n >= 19;
            for (size_t k = 1; quote && k < n; k++)
                quote = in.ptr[i + k] >= '0' && in.ptr[i + k] <= '9';
        }
        if (quote)
            rv = bns_buf_fmt(out, "\"%.*s\"", (int)n, (const char *)in.ptr + i);
        else
            rv = bns_buf_add(out, in.ptr + i, n);
        i += n;
    }
    return rv;
}

/* The tree of the text. BNS_E_INVALID (*at tells why), BNS_E_NOMEM. */
static int parse(struct bns_slice json, struct bns_arena *arena, json_t **root, json_error_t *at)
{
    struct bns_buf again;
    int rv = BNS_OK;

    *root = json_loadb((const char *)json.ptr, json.len, 0, at);
    if (*root == NULL && json_error_code(at) == json_error_numeric_overflow) {
        bns_buf_init(&again, arena->alloc, json.len < SIZE_MAX / 2 ? json.len * 2 : SIZE_MAX);
        rv = quote_long_integers(json, &again);
        if (rv == BNS_OK)
            *root = json_loadb((const char *)again.ptr, again.len, 0, at);
        bns_buf_free(&again);
    }
    if (rv != BNS_OK || *root != NULL)
        return rv;
    return json_error_code(at) == json_error_out_of_memory ? BNS_E_NOMEM : BNS_E_INVALID;
}

int bns_pb_from_json(const ProtobufCMessageDescriptor *desc, struct bns_slice json,
                     size_t bytes_max, struct bns_arena *arena, ProtobufCMessage **out,
                     struct bns_err *err)
{
    struct reader r = {arena, err, desc};
    json_error_t at;
    json_t *root;
    int rv;

    if (json.len > bytes_max)
        return bns_err_set(err, BNS_E_TOOBIG, "%s: %zu bytes of JSON, at most %zu allowed",
                           desc->name, json.len, bytes_max);
    if (json.len == 0)
        json = BNS_LIT("{}");
    rv = parse(json, arena, &root, &at);
    if (rv == BNS_E_INVALID)
        return bns_err_set(err, rv, "invalid JSON at line %d column %d: %s", at.line, at.column,
                           at.text);
    if (rv != BNS_OK)
        return no_memory(&r);
    if (!json_is_object(root))
        rv = bns_err_set(err, BNS_E_INVALID, "%s: a JSON object is expected", desc->name);
    else
        rv = read_message(&r, desc, root, 1, out);
    json_decref(root);
    return rv;
}
