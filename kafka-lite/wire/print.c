/* print.c - a message as one line of JSON, for people: long strings and arrays are cut, and what
 * was cut is said (`"abc...(1000)"`, `"...(500 more)"`). Bytes and records are only counted. */
#include <inttypes.h>
#include <stdio.h>

#include "wire/uuid.h"
#include "wire/wire.h"

struct printer {
    struct bns_buf *out;
    int version;
    size_t max;
    int code;
};

static void text(struct printer *p, const char *s)
{
    if (p->code == BNS_OK)
        p->code = bns_buf_str(p->out, s);
}

static void byte(struct printer *p, uint8_t c)
{
    char hex[8];

    if (c == '"' || c == '\\')
        (void)snprintf(hex, sizeof hex, "\\%c", c);
    else if (c >= 0x20 && c < 0x7f)
        (void)snprintf(hex, sizeof hex, "%c", c);
    else
        (void)snprintf(hex, sizeof hex, "\\u%04x", c);
    text(p, hex);
}

static void put_str(struct printer *p, const struct bns_slice *s)
{
    char cut[32];

    text(p, "\"");
    for (size_t i = 0; i < s->len && i < p->max; i++)
        byte(p, s->ptr[i]);
    if (s->len > p->max) {
        (void)snprintf(cut, sizeof cut, "...(%zu)", s->len);
        text(p, cut);
    }
    text(p, "\"");
}

static void put_number(struct printer *p, int type, const void *from)
{
    char s[32];
    double d;

    switch (type) {
    case KAFKA_BOOL:
        (void)snprintf(s, sizeof s, "%s", *(const bool *)from ? "true" : "false");
        break;
    case KAFKA_I8:
        (void)snprintf(s, sizeof s, "%d", *(const int8_t *)from);
        break;
    case KAFKA_I16:
        (void)snprintf(s, sizeof s, "%d", *(const int16_t *)from);
        break;
    case KAFKA_U16:
        (void)snprintf(s, sizeof s, "%d", *(const uint16_t *)from);
        break;
    case KAFKA_I32:
        (void)snprintf(s, sizeof s, "%" PRId32, *(const int32_t *)from);
        break;
    case KAFKA_I64:
        (void)snprintf(s, sizeof s, "%" PRId64, *(const int64_t *)from);
        break;
    default:
        memcpy(&d, from, sizeof d);
        (void)snprintf(s, sizeof s, "%g", d);
        break;
    }
    text(p, s);
}

static void put_struct(struct printer *p, const struct kafka_struct *s, const void *msg);

static void put_slice(struct printer *p, const struct kafka_field *f, const struct bns_slice *s)
{
    char size[48];

    if (s->ptr == NULL) {
        text(p, "null");
    } else if (f->type == KAFKA_STR) {
        put_str(p, s);
    } else {
        (void)snprintf(size, sizeof size, "\"%zu bytes\"", s->len);
        text(p, size);
    }
}

static void put_uuid(struct printer *p, const struct kafka_uuid *u)
{
    char s[KAFKA_UUID_TEXT];

    kafka_uuid_text(u, s);
    text(p, "\"");
    text(p, s);
    text(p, "\"");
}

static void put_value(struct printer *p, const struct kafka_field *f, const void *from)
{
    if (f->type == KAFKA_STRUCT)
        put_struct(p, f->of, from);
    else if (f->type == KAFKA_UUID)
        put_uuid(p, from);
    else if (kafka_fixed_bytes(f->type) != 0)
        put_number(p, f->type, from);
    else
        put_slice(p, f, from);
}

static void put_array(struct printer *p, const struct kafka_field *f, const struct kafka_array *a)
{
    char more[48];

    if (a->count < 0) {
        text(p, "null");
        return;
    }
    text(p, "[");
    for (int32_t i = 0; i < a->count && (size_t)i < p->max && p->code == BNS_OK; i++) {
        text(p, i > 0 ? "," : "");
        put_value(p, f, (const uint8_t *)a->at + (size_t)i * kafka_member_bytes(f));
    }
    if (a->count > 0 && (size_t)a->count > p->max) {
        (void)snprintf(more, sizeof more, ",\"...(%zu more)\"", (size_t)a->count - p->max);
        text(p, p->max == 0 ? more + 1 : more);
    }
    text(p, "]");
}

static void put_field(struct printer *p, const struct kafka_field *f, const void *from)
{
    const void *pointed;

    if (f->array) {
        put_array(p, f, from);
    } else if (f->by_pointer) {
        memcpy(&pointed, from, sizeof pointed);
        if (pointed == NULL)
            text(p, "null");
        else
            put_struct(p, f->of, pointed);
    } else {
        put_value(p, f, from);
    }
}

static void put_struct(struct printer *p, const struct kafka_struct *s, const void *msg)
{
    const char *before = "";

    text(p, "{");
    for (size_t i = 0; i < s->fields_count && p->code == BNS_OK; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (!kafka_in(f->versions, p->version))
            continue;
        text(p, before);
        text(p, "\"");
        text(p, f->name);
        text(p, "\":");
        put_field(p, f, (const uint8_t *)msg + f->at);
        before = ",";
    }
    text(p, "}");
}

int kafka_print(const struct kafka_struct *s, int version, const void *msg, size_t max,
                struct bns_buf *out)
{
    struct printer p = {.out = out, .version = version, .max = max};

    put_struct(&p, s, msg);
    return p.code;
}
