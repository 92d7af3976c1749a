/* json.c - etcd's messages as Go's encoding/json prints its structs, which is what etcdctl does:
 * fields in the order of their numbers, names of the schema, integers as numbers, bytes in base64,
 * zeros left out. A member of a oneof stands in objects named after Go's types. */
#include "cli.h"

#include <inttypes.h>

void ctl_json_string(const char *s)
{
    (void)putchar('"');
    for (const unsigned char *p = (const unsigned char *)s; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            (void)printf("\\%c", *p);
        else if (*p == '\n')
            (void)fputs("\\n", stdout);
        else if (*p == '\t')
            (void)fputs("\\t", stdout);
        else if (*p == '\r')
            (void)fputs("\\r", stdout);
        else if (*p < 0x20 || *p == '<' || *p == '>' || *p == '&')
            (void)printf("\\u%04x", *p);
        else
            (void)putchar(*p);
    }
    (void)putchar('"');
}

void ctl_json_bytes(const ProtobufCBinaryData *b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    (void)putchar('"');
    for (size_t i = 0; i < b->len; i += 3) {
        size_t n = b->len - i < 3 ? b->len - i : 3;
        uint32_t v = (uint32_t)b->data[i] << 16;

        if (n > 1)
            v |= (uint32_t)b->data[i + 1] << 8;
        if (n > 2)
            v |= b->data[i + 2];
        (void)putchar(digits[v >> 18]);
        (void)putchar(digits[v >> 12 & 63]);
        (void)putchar(n > 1 ? digits[v >> 6 & 63] : '=');
        (void)putchar(n > 2 ? digits[v & 63] : '=');
    }
    (void)putchar('"');
}

static void value(const ProtobufCFieldDescriptor *f, const void *at)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT64:
        (void)printf("%" PRId64, *(const int64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        (void)printf("%" PRIu64, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        (void)printf("%" PRIu32, *(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_ENUM:
        (void)printf("%" PRId32, *(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        (void)fputs(*(const protobuf_c_boolean *)at ? "true" : "false", stdout);
        break;
    case PROTOBUF_C_TYPE_STRING:
        ctl_json_string(*(char *const *)at);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        ctl_json_bytes(at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        ctl_json(*(ProtobufCMessage *const *)at);
        break;
    default:
        (void)fputs("null", stdout); /* etcd's schemas have no other type */
        break;
    }
}

static size_t size_of(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return 4;
    }
}

static bool is_zero(const ProtobufCFieldDescriptor *f, const void *at)
{
    static const uint8_t zeros[8];

    if (f->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)at)->len == 0;
    if (f->type == PROTOBUF_C_TYPE_STRING)
        return *(char *const *)at == NULL || **(char *const *)at == '\0';
    return memcmp(at, zeros, size_of(f)) == 0;
}

/* "response_range" as Go calls its type: "ResponseRange". */
static void go_name(const char *name)
{
    bool up = true;

    for (; *name != '\0'; name++) {
        if (*name != '_')
            (void)putchar(up && *name >= 'a' && *name <= 'z' ? *name - 32 : *name);
        up = *name == '_';
    }
}

static void key(const char *name, bool *first)
{
    if (!*first)
        (void)putchar(',');
    *first = false;
    (void)printf("\"%s\":", name);
}

static void array(const ProtobufCFieldDescriptor *f, size_t count, const char *at)
{
    (void)putchar('[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            (void)putchar(',');
        value(f, at + i * size_of(f));
    }
    (void)putchar(']');
}

void ctl_json_fields(const ProtobufCMessage *m, bool *first)
{
    const char *base = (const char *)m;

    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const char *at = base + f->offset;

        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = *(const size_t *)(const void *)(base + f->quantifier_offset);

            if (count > 0) {
                key(f->name, first);
                array(f, count, *(const char *const *)(const void *)at);
            }
        } else if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            if (*(const uint32_t *)(const void *)(base + f->quantifier_offset) != f->id)
                continue;
            key("Response", first);
            (void)fputs("{\"", stdout);
            go_name(f->name);
            (void)fputs("\":", stdout);
            value(f, at);
            (void)putchar('}');
        } else if (!is_zero(f, at)) {
            key(f->name, first);
            value(f, at);
        }
    }
}

void ctl_json(const ProtobufCMessage *m)
{
    bool first = true;

    (void)putchar('{');
    ctl_json_fields(m, &first);
    (void)putchar('}');
}
