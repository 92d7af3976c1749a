/* encode.c - structs to bytes: one walk, twice. The first time it only counts, the second time it
 * writes into a block of exactly that size.
 *
 * Long bytes and records stay where they are and become slices of their own, so that a fetched
 * batch is never copied. The size of a tagged field stands before it, and is counted by a walk of
 * its own (they are few and small).
 */
#include "base/varint.h"
#include "wire/wire.h"

#define COPY_MAX 1024

struct writer {
    const struct kafka_form *form;
    uint8_t *at; /* NULL: count only */
    uint8_t *start;
    struct bns_slice *slices;
    size_t slices_count;
    uint64_t copied, lent; /* bytes */
    size_t lent_count;
    int code;
};

static void raw(struct writer *w, const void *ptr, size_t n)
{
    w->copied += n;
    if (w->at == NULL || n == 0)
        return;
    memcpy(w->at, ptr, n);
    w->at += n;
}

static void cut(struct writer *w)
{
    if (w->at > w->start)
        w->slices[w->slices_count++] = bns_slice(w->start, (size_t)(w->at - w->start));
    w->start = w->at;
}

static void put_varint(struct writer *w, uint64_t v)
{
    uint8_t b[BNS_VARINT_MAX];

    raw(w, b, bns_varint_put(b, v));
}

static void put_bytes(struct writer *w, struct bns_slice s)
{
    if (s.len <= COPY_MAX) {
        raw(w, s.ptr, s.len);
        return;
    }
    w->lent += s.len;
    w->lent_count++;
    if (w->at == NULL)
        return;
    cut(w);
    w->slices[w->slices_count++] = s;
}

static bool put_null(struct writer *w, const struct kafka_field *f)
{
    if (!kafka_in(f->nulls, w->form->version))
        w->code = BNS_E_INVALID;
    return w->code == BNS_OK;
}

/* n = -1: null. */
static void put_length(struct writer *w, const struct kafka_field *f, int64_t n, bool narrow)
{
    uint8_t b[4];

    if (n < 0 && !put_null(w, f))
        return;
    if (n > (narrow ? INT16_MAX : INT32_MAX)) {
        w->code = BNS_E_TOOBIG;
        return;
    }
    if (w->form->flexible) {
        put_varint(w, (uint64_t)(n + 1));
    } else if (narrow) {
        bns_put_u16be(b, (uint16_t)n);
        raw(w, b, 2);
    } else {
        bns_put_u32be(b, (uint32_t)n);
        raw(w, b, 4);
    }
}

static void put_slice(struct writer *w, const struct kafka_field *f, const struct bns_slice *s)
{
    put_length(w, f, s->ptr == NULL ? -1 : (int64_t)s->len, f->type == KAFKA_STR);
    if (w->code == BNS_OK && s->ptr != NULL)
        put_bytes(w, *s);
}

static void put_struct(struct writer *w, const struct kafka_struct *s, const void *msg);

static void put_value(struct writer *w, const struct kafka_field *f, const void *from)
{
    uint64_t u;
    uint8_t b[8];

    switch (f->type) {
    case KAFKA_STRUCT:
        put_struct(w, f->of, from);
        break;
    case KAFKA_BOOL:
        b[0] = *(const bool *)from;
        raw(w, b, 1);
        break;
    case KAFKA_I8:
        raw(w, from, 1);
        break;
    case KAFKA_I16:
    case KAFKA_U16:
        bns_put_u16be(b, *(const uint16_t *)from);
        raw(w, b, 2);
        break;
    case KAFKA_I32:
        bns_put_u32be(b, *(const uint32_t *)from);
        raw(w, b, 4);
        break;
    case KAFKA_I64:
    case KAFKA_F64:
        memcpy(&u, from, sizeof u);
        bns_put_u64be(b, u);
        raw(w, b, 8);
        break;
    case KAFKA_UUID:
        raw(w, from, sizeof(struct kafka_uuid));
        break;
    default:
        put_slice(w, f, from);
        break;
    }
}

static void put_array(struct writer *w, const struct kafka_field *f, const struct kafka_array *a)
{
    struct kafka_field element = *f; /* a str in an array is never null */
    size_t size = kafka_member_bytes(f);

    element.array = false;
    element.nulls = (struct kafka_versions){1, 0};
    put_length(w, f, a->count < 0 ? -1 : a->count, false);
    for (int32_t i = 0; i < a->count && w->code == BNS_OK; i++)
        put_value(w, &element, (const uint8_t *)a->at + (size_t)i * size);
}

static void put_field(struct writer *w, const struct kafka_field *f, const void *from)
{
    const void *pointed;

    if (f->array) {
        put_array(w, f, from);
    } else if (f->by_pointer) {
        memcpy(&pointed, from, sizeof pointed);
        raw(w, pointed == NULL ? "\xff" : "\x01", 1);
        if (pointed != NULL)
            put_struct(w, f->of, pointed);
        else
            (void)put_null(w, f);
    } else {
        put_value(w, f, from);
    }
}

static bool at_default(const struct kafka_field *f, const void *from);

static bool all_default(const struct kafka_struct *s, const void *msg)
{
    for (size_t i = 0; i < s->fields_count; i++) {
        if (!at_default(&s->fields[i], (const uint8_t *)msg + s->fields[i].at))
            return false;
    }
    return true;
}

static bool at_default(const struct kafka_field *f, const void *from)
{
    static const struct kafka_uuid zero;
    const struct bns_slice *s = from;
    const struct kafka_array *a = from;
    const void *pointed;
    double d = (double)f->preset;

    if (f->array)
        return a->count == (f->preset_null ? -1 : 0);
    switch (f->type) {
    case KAFKA_STRUCT:
        if (!f->by_pointer)
            return all_default(f->of, from);
        memcpy(&pointed, from, sizeof pointed);
        return pointed == NULL;
    case KAFKA_STR:
    case KAFKA_BYTES:
    case KAFKA_RECORDS:
        return f->preset_null ? s->ptr == NULL : s->ptr != NULL && s->len == 0;
    case KAFKA_UUID:
        return memcmp(from, &zero, sizeof zero) == 0;
    case KAFKA_F64:
        return memcmp(from, &d, sizeof d) == 0;
    default:
        return memcmp(from, &f->preset, kafka_member_bytes(f)) == 0;
    }
}

static bool sent_as_tag(const struct kafka_field *f, int version, const void *msg)
{
    return f->tag >= 0 && kafka_in(f->versions, version) &&
           !at_default(f, (const uint8_t *)msg + f->at);
}

static void put_tagged(struct writer *w, const struct kafka_field *f, const void *from)
{
    struct writer counting = {.form = w->form};

    put_field(&counting, f, from);
    put_varint(w, (uint64_t)f->tag);
    put_varint(w, counting.copied + counting.lent);
    put_field(w, f, from);
}

/* The table has tags in rising order nowhere but here. */
static void put_tags(struct writer *w, const struct kafka_struct *s, const void *msg)
{
    uint32_t count = 0;

    for (size_t i = 0; i < s->fields_count; i++)
        count += sent_as_tag(&s->fields[i], w->form->version, msg);
    put_varint(w, count);
    for (int tag = 0; count > 0; tag++) {
        BNS_ASSERT(tag <= INT8_MAX);
        for (size_t i = 0; i < s->fields_count; i++) {
            const struct kafka_field *f = &s->fields[i];
            if (f->tag != tag || !sent_as_tag(f, w->form->version, msg))
                continue;
            put_tagged(w, f, (const uint8_t *)msg + f->at);
            count--;
        }
    }
}

static void put_struct(struct writer *w, const struct kafka_struct *s, const void *msg)
{
    for (size_t i = 0; i < s->fields_count && w->code == BNS_OK; i++) {
        const struct kafka_field *f = &s->fields[i];
        if (f->tag < 0 && kafka_in(f->versions, w->form->version))
            put_field(w, f, (const uint8_t *)msg + f->at);
    }
    if (w->form->flexible && w->code == BNS_OK)
        put_tags(w, s, msg);
}

int kafka_encode(const struct kafka_struct *s, const struct kafka_form *form, const void *msg,
                 size_t front, const struct bns_alloc *alloc, struct kafka_bytes *out)
{
    struct writer w = {.form = form, .copied = front};
    size_t slices;

    put_struct(&w, s, msg);
    if (w.code == BNS_OK && w.copied + w.lent > INT32_MAX)
        w.code = BNS_E_TOOBIG;
    if (w.code != BNS_OK)
        return w.code;
    slices = 2 * w.lent_count + 1;
    *out = (struct kafka_bytes){.alloc = alloc, .len = w.copied + w.lent};
    out->slices = bns_alloc(alloc, slices * sizeof *out->slices + (size_t)w.copied + 1);
    if (out->slices == NULL)
        return BNS_E_NOMEM;
    w = (struct writer){.form = form, .slices = out->slices};
    w.start = (uint8_t *)(out->slices + slices);
    w.at = w.start + front;
    put_struct(&w, s, msg);
    cut(&w);
    if (w.slices_count == 0) /* not one byte, and no front */
        w.slices[w.slices_count++] = bns_slice(w.start, 0);
    BNS_ASSERT(w.code == BNS_OK && w.copied + w.lent + front == out->len);
    BNS_ASSERT(w.slices_count <= slices);
    out->count = w.slices_count;
    return BNS_OK;
}

uint8_t *kafka_bytes_front(const struct kafka_bytes *b)
{
    return (uint8_t *)(uintptr_t)b->slices[0].ptr;
}

void kafka_bytes_free(struct kafka_bytes *b)
{
    bns_free(b->alloc, b->slices);
    *b = (struct kafka_bytes){0};
}
