/* record.c - the records of __consumer_offsets; record.h has their layout.
 *
 * A cursor remembers that something was missing, so that a layout reads as a list of its fields and
 * is checked once behind the last. Strings of flexible versions have an unsigned varint of their
 * length + 1 in front, others an i16; bytes an i32. -1, or 0 in the varint, is null.
 */
#include "group/record.h"

#define STRING_MAX 32767u

struct cursor {
    struct bns_slice in;
    bool flexible;
    bool bad;
};

static uint64_t number(struct cursor *c, size_t width)
{
    uint64_t v = 0;

    if (c->bad || c->in.len < width) {
        c->bad = true;
        return 0;
    }
    for (size_t i = 0; i < width; i++)
        v = v << 8 | c->in.ptr[i];
    c->in = bns_slice_skip(c->in, width);
    return v;
}

static int16_t get16(struct cursor *c)
{
    return (int16_t)number(c, 2);
}

static int32_t get32(struct cursor *c)
{
    return (int32_t)number(c, 4);
}

static int64_t get64(struct cursor *c)
{
    return (int64_t)number(c, 8);
}

static uint32_t uvarint(struct cursor *c)
{
    uint32_t v = 0;

    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint32_t byte = (uint32_t)number(c, 1);
        if (c->bad || (shift == 28 && byte > 0x0f))
            break;
        v |= (byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return v;
    }
    c->bad = true;
    return 0;
}

static struct bns_slice take(struct cursor *c, int64_t len)
{
    struct bns_slice s = {NULL, 0};

    if (c->bad || len < 0 || (uint64_t)len > c->in.len) {
        c->bad = true;
        return s;
    }
    s = bns_slice(c->in.ptr, (size_t)len);
    c->in = bns_slice_skip(c->in, (size_t)len);
    return s;
}

static struct bns_slice nullable(struct cursor *c, bool bytes)
{
    int64_t len = c->flexible ? (int64_t)uvarint(c) - 1 : bytes ? get32(c) : get16(c);

    if (len == -1)
        return (struct bns_slice){NULL, 0};
    return take(c, len);
}

static struct bns_slice text(struct cursor *c)
{
    struct bns_slice s = nullable(c, false);

    if (s.ptr == NULL)
        c->bad = true;
    return s;
}

static struct bns_slice bytes(struct cursor *c)
{
    struct bns_slice s = nullable(c, true);

    if (s.ptr == NULL)
        c->bad = true;
    return s;
}

/* Tagged fields: `id`, when given, gets field 0 if it is 16 bytes long. */
static void tags(struct cursor *c, uint8_t *id)
{
    uint32_t count;

    if (!c->flexible)
        return;
    count = uvarint(c);
    for (uint32_t i = 0; i < count && !c->bad; i++) {
        uint32_t tag = uvarint(c);
        struct bns_slice s = take(c, uvarint(c));
        if (!c->bad && tag == 0 && id != NULL && s.len == 16)
            memcpy(id, s.ptr, 16);
    }
}

static int ended(const struct cursor *c)
{
    return c->bad || c->in.len > 0 ? BNS_E_CORRUPT : BNS_OK;
}

int kafka_group_key_get(struct bns_slice in, struct kafka_group_key *out)
{
    struct cursor c = {.in = in};
    int16_t version = get16(&c);

    *out = (struct kafka_group_key){.kind = KAFKA_GROUP_OFFSET};
    if (c.bad)
        return BNS_E_CORRUPT;
    if (version < 0 || version > 2)
        return BNS_E_UNSUPPORTED;
    out->group = text(&c);
    if (version == 2) {
        out->kind = KAFKA_GROUP_META;
        return ended(&c);
    }
    out->topic = text(&c);
    out->partition = get32(&c);
    return ended(&c);
}

int kafka_offset_get(struct bns_slice in, struct kafka_offset *out)
{
    struct cursor c = {.in = in};
    int16_t version = get16(&c);

    *out = (struct kafka_offset){.leader_epoch = -1, .expire_ms = -1};
    if (c.bad)
        return BNS_E_CORRUPT;
    if (version < 0 || version > 4)
        return BNS_E_UNSUPPORTED;
    c.flexible = version >= 4;
    out->offset = get64(&c);
    if (version >= 3)
        out->leader_epoch = get32(&c);
    out->metadata = text(&c);
    out->commit_ms = get64(&c);
    if (version == 1)
        out->expire_ms = get64(&c);
    tags(&c, out->topic_id);
    return ended(&c);
}

static void member(struct cursor *c, int16_t version, struct kafka_group_meta_member *out)
{
    *out = (struct kafka_group_meta_member){.rebalance_ms = -1};
    out->id = text(c);
    if (version >= 3)
        out->instance = nullable(c, false);
    out->client_id = text(c);
    out->client_host = text(c);
    if (version >= 1)
        out->rebalance_ms = get32(c);
    out->session_ms = get32(c);
    out->subscription = bytes(c);
    out->assignment = bytes(c);
    tags(c, NULL);
}

int kafka_group_meta_get(struct bns_slice in, struct kafka_group_meta *out)
{
    struct cursor c = {.in = in};
    struct bns_slice members;
    int64_t count;

    *out = (struct kafka_group_meta){.version = get16(&c), .state_ms = -1};
    if (c.bad)
        return BNS_E_CORRUPT;
    if (out->version < 0 || out->version > 4)
        return BNS_E_UNSUPPORTED;
    c.flexible = out->version >= 4;
    out->protocol_type = text(&c);
    out->generation = get32(&c);
    out->protocol = nullable(&c, false);
    out->leader = nullable(&c, false);
    if (out->version >= 2)
        out->state_ms = get64(&c);
    count = c.flexible ? (int64_t)uvarint(&c) - 1 : get32(&c);
    if (c.bad || count < 0 || (uint64_t)count > c.in.len)
        return BNS_E_CORRUPT;
    out->members_count = (uint32_t)count;
    members = c.in;
    for (int64_t i = 0; i < count && !c.bad; i++) {
        struct kafka_group_meta_member m;
        member(&c, out->version, &m);
    }
    out->members = bns_slice(members.ptr, members.len - c.in.len);
    tags(&c, NULL);
    return ended(&c);
}

int kafka_group_member_next(struct kafka_group_meta *m, struct kafka_group_meta_member *out)
{
    struct cursor c = {.in = m->members, .flexible = m->version >= 4};

    member(&c, m->version, out);
    if (c.bad)
        return BNS_E_CORRUPT;
    m->members = c.in;
    return BNS_OK;
}

/* ---- writing ----------------------------------------------------------------------------------
 * */

static int put(struct bns_buf *b, uint64_t v, unsigned width)
{
    uint8_t raw[8];

    for (unsigned i = 0; i < width; i++)
        raw[i] = (uint8_t)(v >> (8 * (width - 1 - i)));
    return bns_buf_add(b, raw, width);
}

static int put_varint(struct bns_buf *b, uint32_t v)
{
    uint8_t raw[5];
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        raw[n++] = (uint8_t)(v | 0x80);
    raw[n++] = (uint8_t)v;
    return bns_buf_add(b, raw, n);
}

static int put_bytes(struct bns_buf *b, struct bns_slice s, unsigned width)
{
    int rv;

    if (s.len > (width == 2 ? STRING_MAX : INT32_MAX))
        return BNS_E_TOOBIG;
    rv = put(b, s.len, width);
    return rv == BNS_OK && s.len > 0 ? bns_buf_add(b, s.ptr, s.len) : rv;
}

static int put_text(struct bns_buf *b, struct bns_slice s)
{
    return put_bytes(b, s, 2);
}

static int put_nullable(struct bns_buf *b, struct bns_slice s)
{
    return s.ptr == NULL ? put(b, UINT16_MAX, 2) : put_text(b, s);
}

int kafka_group_key_put(struct bns_buf *b, const struct kafka_group_key *k)
{
    bool offset = k->kind == KAFKA_GROUP_OFFSET;
    int rv = put(b, offset ? 1 : 2, 2);

    if (rv == BNS_OK)
        rv = put_text(b, k->group);
    if (rv == BNS_OK && offset)
        rv = put_text(b, k->topic);
    if (rv == BNS_OK && offset)
        rv = put(b, (uint32_t)k->partition, 4);
    return rv;
}

static int put_expiring(struct bns_buf *b, const struct kafka_offset *o)
{
    int rv = put(b, 1, 2);

    if (rv == BNS_OK)
        rv = put(b, (uint64_t)o->offset, 8);
    if (rv == BNS_OK)
        rv = put_text(b, o->metadata);
    if (rv == BNS_OK)
        rv = put(b, (uint64_t)o->commit_ms, 8);
    return rv == BNS_OK ? put(b, (uint64_t)o->expire_ms, 8) : rv;
}

int kafka_offset_put(struct bns_buf *b, const struct kafka_offset *o)
{
    static const uint8_t none[16];
    bool id = memcmp(o->topic_id, none, sizeof none) != 0;
    int rv;

    if (o->expire_ms != -1)
        return put_expiring(b, o);
    if (o->metadata.len > STRING_MAX)
        return BNS_E_TOOBIG;
    rv = put(b, 4, 2);
    if (rv == BNS_OK)
        rv = put(b, (uint64_t)o->offset, 8);
    if (rv == BNS_OK)
        rv = put(b, (uint32_t)o->leader_epoch, 4);
    if (rv == BNS_OK)
        rv = put_varint(b, (uint32_t)o->metadata.len + 1);
    if (rv == BNS_OK && o->metadata.len > 0)
        rv = bns_buf_add(b, o->metadata.ptr, o->metadata.len);
    if (rv == BNS_OK)
        rv = put(b, (uint64_t)o->commit_ms, 8);
    if (rv == BNS_OK)
        rv = put(b, id ? 1 : 0, 1); /* tagged fields */
    if (rv == BNS_OK && id)
        rv = put(b, 0x0010, 2); /* tag 0, 16 bytes */
    return rv == BNS_OK && id ? bns_buf_add(b, o->topic_id, sizeof o->topic_id) : rv;
}

int kafka_group_meta_put(struct bns_buf *b, const struct kafka_group_meta *m)
{
    int rv = put(b, 3, 2);

    if (rv == BNS_OK)
        rv = put_text(b, m->protocol_type);
    if (rv == BNS_OK)
        rv = put(b, (uint32_t)m->generation, 4);
    if (rv == BNS_OK)
        rv = put_nullable(b, m->protocol);
    if (rv == BNS_OK)
        rv = put_nullable(b, m->leader);
    if (rv == BNS_OK)
        rv = put(b, (uint64_t)m->state_ms, 8);
    return rv == BNS_OK ? put(b, m->members_count, 4) : rv;
}

int kafka_group_member_put(struct bns_buf *b, const struct kafka_group_meta_member *m)
{
    int rv = put_text(b, m->id);

    if (rv == BNS_OK)
        rv = put_nullable(b, m->instance);
    if (rv == BNS_OK)
        rv = put_text(b, m->client_id);
    if (rv == BNS_OK)
        rv = put_text(b, m->client_host);
    if (rv == BNS_OK)
        rv = put(b, (uint32_t)m->rebalance_ms, 4);
    if (rv == BNS_OK)
        rv = put(b, (uint32_t)m->session_ms, 4);
    if (rv == BNS_OK)
        rv = put_bytes(b, m->subscription, 4);
    return rv == BNS_OK ? put_bytes(b, m->assignment, 4) : rv;
}
