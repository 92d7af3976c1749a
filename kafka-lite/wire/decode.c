/* decode.c - bytes to structs.
 *
 * A field that is not flexible has a fixed length word: i16 before str, i32 before bytes, records
 * and arrays, -1 for null. In a flexible message the length is an unsigned varint of length + 1, 0
 * for null, and every struct is followed by its tagged fields: count, then tag, size, bytes, tags
 * rising. A struct that may be null has a byte before it: negative is null.
 *
 * Nothing is believed: a length is compared with what is left before it is used, and an array's
 * count with what is left divided by the least its elements can take (min_bytes), so that an array
 * of C structs is at most a constant factor larger than the bytes that asked for it.
 */
#include "base/varint.h"
#include "wire/wire.h"

#define LEVELS_MAX 8 /* structs in structs; the table has 5 */

struct reader {
    struct bns_slice in;
    const struct kafka_form *form;
    struct bns_arena *arena;
    struct bns_err *err;
};

static const uint8_t nothing[1]; /* what an empty str points to */

static int bad(struct reader *r, const char *name, const char *what)
{
    return bns_err_set(r->err, BNS_E_PROTO, "field %s: %s", name, what);
}

/* The fewest bytes a struct of this kind takes: never 0, for a count to be bounded by it. */
static size_t min_bytes(const struct kafka_struct *s, const struct kafka_form *form)
{
    size_t n = form->flexible ? 1 : 0;

    for (size_t i = 0; i < s->fields_count; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (f->tag >= 0 || !kafka_in(f->versions, form->version))
            continue;
        if (f->array || f->type == KAFKA_BYTES || f->type == KAFKA_RECORDS)
            n += form->flexible ? 1 : 4;
        else if (f->type == KAFKA_STR)
            n += form->flexible ? 1 : 2;
        else if (f->type == KAFKA_STRUCT)
            n += f->by_pointer ? 1 : min_bytes(f->of, form);
        else
            n += kafka_fixed_bytes(f->type);
    }
    return n == 0 ? 1 : n;
}

static int take(struct reader *r, const char *name, size_t n, const uint8_t **at)
{
    if (r->in.len < n)
        return bad(r, name, "cut short");
    *at = n == 0 ? nothing : r->in.ptr;
    r->in = bns_slice_skip(r->in, n);
    return BNS_OK;
}

/* An unsigned varint of at most 32 bits. */
static int take_varint(struct reader *r, const char *name, uint32_t *out)
{
    uint64_t v = 0;

    if (bns_varint_get(&r->in, &v) != BNS_OK || v > UINT32_MAX)
        return bad(r, name, "bad varint");
    *out = (uint32_t)v;
    return BNS_OK;
}

/* A length in the field's own form; -1 for null, never less. */
static int take_length(struct reader *r, const struct kafka_field *f, int64_t *out)
{
    bool narrow = f->type == KAFKA_STR && !f->array;
    const uint8_t *at = NULL;
    uint32_t v = 0;
    int rv;

    if (r->form->flexible) {
        rv = take_varint(r, f->name, &v);
        *out = (int64_t)v - 1;
    } else {
        rv = take(r, f->name, narrow ? 2 : 4, &at);
        if (rv == BNS_OK)
            *out = narrow ? (int16_t)bns_get_u16be(at) : (int32_t)bns_get_u32be(at);
    }
    if (rv != BNS_OK)
        return rv;
    if (*out < -1 || *out > INT32_MAX)
        return bad(r, f->name, "negative or too large length");
    return BNS_OK;
}

static int null_check(struct reader *r, const struct kafka_field *f)
{
    return kafka_in(f->nulls, r->form->version) ? BNS_OK : bad(r, f->name, "null");
}

static int take_fixed(struct reader *r, const struct kafka_field *f, void *to)
{
    const uint8_t *at = NULL;
    uint64_t u;
    int rv = take(r, f->name, kafka_fixed_bytes(f->type), &at);

    if (rv != BNS_OK)
        return rv;
    switch (f->type) {
    case KAFKA_BOOL:
        *(bool *)to = at[0] != 0;
        break;
    case KAFKA_I8:
        memcpy(to, at, 1);
        break;
    case KAFKA_I16:
    case KAFKA_U16:
        *(uint16_t *)to = bns_get_u16be(at);
        break;
    case KAFKA_I32:
        *(uint32_t *)to = bns_get_u32be(at);
        break;
    case KAFKA_I64:
    case KAFKA_F64:
        u = bns_get_u64be(at);
        memcpy(to, &u, sizeof u);
        break;
    default:
        memcpy(to, at, sizeof(struct kafka_uuid));
        break;
    }
    return BNS_OK;
}

static int take_slice(struct reader *r, const struct kafka_field *f, struct bns_slice *to)
{
    int64_t n = 0;
    int rv = take_length(r, f, &n);

    if (rv != BNS_OK)
        return rv;
    to->len = 0;
    to->ptr = NULL;
    if (n < 0)
        return null_check(r, f);
    rv = take(r, f->name, (size_t)n, &to->ptr);
    to->len = rv == BNS_OK ? (size_t)n : 0;
    return rv;
}

static int take_struct(struct reader *r, const struct kafka_struct *s, void *msg, int level);

/* One value: a scalar, or an element of an array. */
static int take_value(struct reader *r, const struct kafka_field *f, void *to, int level)
{
    struct kafka_field element;

    if (f->type == KAFKA_STRUCT)
        return take_struct(r, f->of, to, level);
    if (kafka_fixed_bytes(f->type) != 0)
        return take_fixed(r, f, to);
    if (!f->array)
        return take_slice(r, f, to);
    element = *f; /* a str in an array is never null */
    element.array = false;
    element.nulls = (struct kafka_versions){1, 0};
    return take_slice(r, &element, to);
}

static int take_array(struct reader *r, const struct kafka_field *f, struct kafka_array *to,
                      int level)
{
    size_t wire = f->type == KAFKA_STRUCT ? min_bytes(f->of, r->form) : kafka_fixed_bytes(f->type);
    int64_t n = 0;
    int rv = take_length(r, f, &n);

    if (rv != BNS_OK)
        return rv;
    if (wire == 0)
        wire = r->form->flexible ? 1 : 2; /* of strs */
    to->at = NULL;
    to->count = (int32_t)n;
    if (n <= 0)
        return n < 0 ? null_check(r, f) : BNS_OK;
    if ((uint64_t)n > r->in.len / wire)
        return bad(r, f->name, "more elements than bytes");
    to->at = bns_arena_alloc(r->arena, (size_t)n * kafka_member_bytes(f));
    if (to->at == NULL)
        return bns_err_set(r->err, BNS_E_NOMEM, "field %s: no memory for its elements", f->name);
    for (int64_t i = 0; i < n && rv == BNS_OK; i++)
        rv = take_value(r, f, (uint8_t *)to->at + (size_t)i * kafka_member_bytes(f), level);
    return rv;
}

/* A struct that may be null. */
static int take_pointed(struct reader *r, const struct kafka_field *f, void **to, int level)
{
    const uint8_t *at = NULL;
    int rv = take(r, f->name, 1, &at);

    *to = NULL;
    if (rv != BNS_OK)
        return rv;
    if ((int8_t)at[0] < 0)
        return null_check(r, f);
    *to = bns_arena_alloc(r->arena, f->of->size);
    if (*to == NULL)
        return bns_err_set(r->err, BNS_E_NOMEM, "field %s: no memory", f->name);
    return take_struct(r, f->of, *to, level);
}

static int take_field(struct reader *r, const struct kafka_field *f, void *msg, int level)
{
    void *to = (uint8_t *)msg + f->at;

    if (f->array)
        return take_array(r, f, to, level);
    if (f->by_pointer)
        return take_pointed(r, f, to, level);
    return take_value(r, f, to, level);
}

static const struct kafka_field *tagged(const struct kafka_struct *s, uint32_t tag, int version)
{
    for (size_t i = 0; i < s->fields_count; i++) {
        if (s->fields[i].tag >= 0 && (uint32_t)s->fields[i].tag == tag &&
            kafka_in(s->fields[i].versions, version))
            return &s->fields[i];
    }
    return NULL;
}

/* One tagged field: its own bytes are all it may look at. */
static int take_tagged(struct reader *r, const struct kafka_struct *s, uint32_t tag, void *msg,
                       int level)
{
    const struct kafka_field *f = tagged(s, tag, r->form->version);
    const uint8_t *at = NULL;
    struct bns_slice rest;
    uint32_t size = 0;
    int rv = take_varint(r, s->name, &size);

    if (rv == BNS_OK)
        rv = take(r, s->name, size, &at);
    if (rv != BNS_OK || f == NULL)
        return rv;
    rest = r->in;
    r->in = bns_slice(at, size);
    rv = take_field(r, f, msg, level);
    if (rv == BNS_OK && r->in.len != 0)
        rv = bad(r, f->name, "bytes behind its end");
    r->in = rest;
    return rv;
}

static int take_tags(struct reader *r, const struct kafka_struct *s, void *msg, int level)
{
    uint32_t count = 0, tag = 0;
    int64_t before = -1;
    int rv = take_varint(r, s->name, &count);

    for (uint32_t i = 0; i < count && rv == BNS_OK; i++) {
        rv = take_varint(r, s->name, &tag);
        if (rv != BNS_OK)
            break;
        if ((int64_t)tag <= before)
            return bad(r, s->name, "tags that do not rise");
        before = tag;
        rv = take_tagged(r, s, tag, msg, level);
    }
    return rv;
}

static int take_struct(struct reader *r, const struct kafka_struct *s, void *msg, int level)
{
    int rv = BNS_OK;

    BNS_ASSERT(level < LEVELS_MAX);
    kafka_preset(s, msg);
    for (size_t i = 0; i < s->fields_count && rv == BNS_OK; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (f->tag < 0 && kafka_in(f->versions, r->form->version))
            rv = take_field(r, f, msg, level + 1);
    }
    if (rv == BNS_OK && r->form->flexible)
        rv = take_tags(r, s, msg, level + 1);
    return rv;
}

static void preset_number(const struct kafka_field *f, void *to)
{
    double d = (double)f->preset;

    if (f->type == KAFKA_F64)
        memcpy(to, &d, sizeof d);
    else
        memcpy(to, &f->preset, kafka_fixed_bytes(f->type)); /* little-endian: the low bytes */
}

static void preset_field(const struct kafka_field *f, void *to)
{
    struct bns_slice *s = to;
    struct kafka_array *a = to;

    if (f->array)
        a->count = f->preset_null ? -1 : 0;
    else if (f->type == KAFKA_STRUCT && !f->by_pointer)
        kafka_preset(f->of, to);
    else if (f->type == KAFKA_STR || f->type == KAFKA_BYTES || f->type == KAFKA_RECORDS)
        s->ptr = f->preset_null ? NULL : nothing;
    else if (f->type != KAFKA_STRUCT && f->type != KAFKA_UUID)
        preset_number(f, to);
}

void kafka_preset(const struct kafka_struct *s, void *msg)
{
    memset(msg, 0, s->size);
    for (size_t i = 0; i < s->fields_count; i++)
        preset_field(&s->fields[i], (uint8_t *)msg + s->fields[i].at);
}

void *kafka_new(const struct kafka_struct *s, struct bns_arena *arena)
{
    void *msg = bns_arena_alloc(arena, s->size);

    if (msg != NULL)
        kafka_preset(s, msg);
    return msg;
}

int kafka_decode(const struct kafka_struct *s, const struct kafka_form *form, struct bns_slice *in,
                 struct bns_arena *arena, void **out, struct bns_err *err)
{
    struct reader r = {.in = *in, .form = form, .arena = arena, .err = err};
    int rv;

    *out = bns_arena_alloc(arena, s->size);
    if (*out == NULL)
        return bns_err_set(err, BNS_E_NOMEM, "%s: no memory", s->name);
    rv = take_struct(&r, s, *out, 0);
    if (rv != BNS_OK) {
        *out = NULL;
        return rv;
    }
    *in = r.in;
    return BNS_OK;
}
