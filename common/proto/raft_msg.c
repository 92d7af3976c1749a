/* raft_msg.c - Raft messages as protobuf bytes, written and read by hand: the schema is tiny, and
 * entry data must not be copied on the way out.
 *
 *   message Raft {                          message Entry {         message Conf {
 *     uint32 type = 1;                        uint32 kind = 1;        repeated uint64 voters = 1;
 *     uint32 group = 2;                       uint64 term = 2;        repeated uint64 voters_old =
 *     2; uint64 from = 3, to = 4, term = 5;      uint64 index = 3;       repeated uint64 learners =
 *     3; uint64 log_term = 6, index = 7;         bytes  data = 4;      }
 *     uint64 commit = 8;  bool reject = 9;  }
 *     uint64 hint_index = 10, hint_term = 11, read_ctx = 12;
 *     repeated Entry entries = 13;  uint32 flags = 15;
 *   }
 *   message ConfEntry {                     message Change {
 *     // fields 1 to 3 of Conf                uint32 kind = 1;  // enum bns_raft_change_kind
 *     bytes context = 4;                      uint64 id = 2;
 *     repeated Change changes = 5;          }
 *   }
 * The data of an entry of kind CONF are a ConfEntry; a reader of Conf reads them, too, and further
 * fields have room behind.
 * Zero scalars are left out (proto3). Field 14 is reserved. Unknown fields of any wire type are
 * skipped; a known field with a wrong wire type, a number that does not fit, a length beyond the
 * input, more than BNS_RAFT_MSG_ENTRIES_MAX entries: BNS_E_PROTO. An entry without data has none
 * (NULL); the difference to empty data does not survive, and means nothing to the core.
 *
 * Encoding: the room for all framing is reserved first (ENTRY_HEAD_MAX bytes an entry), so pointers
 * into `head` stay good; then slices alternate between head and data.
 * Decoding: two passes, the first counts and bounds the entries before anything is allocated.
 */
#include "proto/raft_msg.h"
#include "base/varint.h"
#include "proto/quorum.h"

#define SCALARS_MAX (16u * 12)
#define ENTRY_HEAD_MAX 64u /* tag, length, kind, term, index, tag and length of data */

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LEN = 2, WIRE_32 = 5 };

_Static_assert(BNS_VARINT_MAX + 2 <= 12, "a scalar field fits its share of SCALARS_MAX");

/* ---- encoding ------------------------------------------------------------------------------- */

static uint8_t *put_tag(uint8_t *p, uint32_t field, uint32_t wire)
{
    return p + bns_varint_put(p, field << 3 | wire);
}

static uint8_t *put_scalar(uint8_t *p, uint32_t field, uint64_t v)
{
    if (v == 0)
        return p;
    p = put_tag(p, field, WIRE_VARINT);
    return p + bns_varint_put(p, v);
}

static uint8_t *put_scalars(uint8_t *p, const struct bns_raft_msg *m)
{
    p = put_scalar(p, 1, m->type);
    p = put_scalar(p, 2, m->group);
    p = put_scalar(p, 3, m->from);
    p = put_scalar(p, 4, m->to);
    p = put_scalar(p, 5, m->term);
    p = put_scalar(p, 6, m->log_term);
    p = put_scalar(p, 7, m->index);
    p = put_scalar(p, 8, m->commit);
    p = put_scalar(p, 9, m->reject);
    p = put_scalar(p, 10, m->hint_index);
    p = put_scalar(p, 11, m->hint_term);
    p = put_scalar(p, 12, m->read_ctx);
    return put_scalar(p, 15, m->flags);
}

/* Everything of an entry but its data. */
static uint8_t *put_entry(uint8_t *p, const struct bns_raft_entry *e)
{
    uint8_t inner[ENTRY_HEAD_MAX];
    uint8_t *q = inner;
    size_t len = e->data == NULL ? 0 : e->data->len;

    q = put_scalar(q, 1, e->kind);
    q = put_scalar(q, 2, e->term);
    q = put_scalar(q, 3, e->index);
    if (len > 0) {
        q = put_tag(q, 4, WIRE_LEN);
        q += bns_varint_put(q, len);
    }
    p = put_tag(p, 13, WIRE_LEN);
    p += bns_varint_put(p, (size_t)(q - inner) + len);
    memcpy(p, inner, (size_t)(q - inner));
    return p + (q - inner);
}

int bns_raft_msg_encode(const struct bns_raft_msg *m, struct bns_buf *head,
                        struct bns_slice *slices, size_t slices_cap, size_t *slices_count)
{
    size_t n = 0;
    uint8_t *from;
    uint8_t *p;
    int rv;

    BNS_ASSERT(slices_cap >= 2 * m->entries_count + 1);
    if (m->entries_count > BNS_RAFT_MSG_ENTRIES_MAX)
        return BNS_E_TOOBIG;
    rv = bns_buf_reserve(head, SCALARS_MAX + m->entries_count * ENTRY_HEAD_MAX);
    if (rv != BNS_OK)
        return rv;

    from = head->ptr + head->len;
    p = put_scalars(from, m);
    for (size_t i = 0; i < m->entries_count; i++) {
        const struct bns_raft_entry *e = &m->entries[i];
        p = put_entry(p, e);
        if (e->data == NULL || e->data->len == 0)
            continue;
        slices[n++] = bns_slice(from, (size_t)(p - from));
        slices[n++] = bns_rcbuf_slice(e->data);
        from = p;
    }
    if (p > from || n == 0)
        slices[n++] = bns_slice(from, (size_t)(p - from));
    head->len = (size_t)(p - head->ptr);
    *slices_count = n;
    return BNS_OK;
}

/* ---- decoding ------------------------------------------------------------------------------- */

/* One field: its number, and its number or bytes. Fixed-width fields are known to nobody here. */
struct field {
    uint64_t number;
    uint32_t wire;
    uint64_t v;
    struct bns_slice bytes;
};

static int next_field(struct bns_slice *in, struct field *f)
{
    uint64_t tag;
    size_t skip;

    if (bns_varint_get(in, &tag) != BNS_OK || tag >> 3 == 0 || tag > UINT32_MAX)
        return BNS_E_PROTO;
    f->number = tag >> 3;
    f->wire = (uint32_t)(tag & 7);
    f->v = 0;
    switch (f->wire) {
    case WIRE_VARINT:
        return bns_varint_get(in, &f->v) == BNS_OK ? BNS_OK : BNS_E_PROTO;
    case WIRE_LEN:
        if (bns_varint_get(in, &f->v) != BNS_OK || f->v > in->len)
            return BNS_E_PROTO;
        f->bytes = bns_slice(in->ptr, (size_t)f->v);
        skip = (size_t)f->v;
        break;
    case WIRE_64:
    case WIRE_32:
        skip = f->wire == WIRE_64 ? 8 : 4;
        if (in->len < skip)
            return BNS_E_PROTO;
        break;
    default:
        return BNS_E_PROTO;
    }
    *in = bns_slice_skip(*in, skip);
    return BNS_OK;
}

static int get_small(const struct field *f, uint64_t max, uint64_t *out)
{
    if (f->wire != WIRE_VARINT || f->v > max)
        return BNS_E_PROTO;
    *out = f->v;
    return BNS_OK;
}

static int get_scalar(const struct field *f, struct bns_raft_msg *m)
{
    uint64_t *const wide[] = {NULL,           NULL,          NULL,        &m->from,   &m->to,
                              &m->term,       &m->log_term,  &m->index,   &m->commit, NULL,
                              &m->hint_index, &m->hint_term, &m->read_ctx};
    uint64_t v = 0;
    int rv = BNS_OK;

    switch (f->number) {
    case 1:
        rv = get_small(f, BNS_RAFT_MSG_LAST, &v);
        m->type = (uint8_t)v;
        return rv;
    case 2:
        rv = get_small(f, UINT32_MAX, &v);
        m->group = (uint32_t)v;
        return rv;
    case 9:
        rv = get_small(f, 1, &v);
        m->reject = v != 0;
        return rv;
    case 15:
        rv = get_small(f, UINT8_MAX, &v);
        m->flags = (uint8_t)v;
        return rv;
    default:
        if (f->number < sizeof wide / sizeof wide[0])
            rv = get_small(f, UINT64_MAX, wide[f->number]);
        return rv; /* others are unknown: skipped */
    }
}

/* First pass: scalars, and how many entries there are. */
static int get_head(struct bns_slice in, struct bns_raft_msg *m)
{
    struct field f;
    int rv;

    while (in.len > 0) {
        rv = next_field(&in, &f);
        if (rv == BNS_OK && f.number == 13) {
            if (f.wire != WIRE_LEN || ++m->entries_count > BNS_RAFT_MSG_ENTRIES_MAX)
                rv = BNS_E_PROTO;
        } else if (rv == BNS_OK) {
            rv = get_scalar(&f, m);
        }
        if (rv != BNS_OK)
            return rv;
    }
    return m->type == 0 ? BNS_E_PROTO : BNS_OK;
}

static int get_entry(struct bns_slice in, const struct bns_alloc *alloc, struct bns_raft_entry *e)
{
    struct bns_slice data = {NULL, 0};
    struct field f;
    uint64_t kind = 0;
    int rv = BNS_OK;

    while (rv == BNS_OK && in.len > 0) {
        rv = next_field(&in, &f);
        if (rv != BNS_OK)
            break;
        if (f.number == 1)
            rv = get_small(&f, UINT8_MAX, &kind);
        else if (f.number == 2)
            rv = get_small(&f, UINT64_MAX, &e->term);
        else if (f.number == 3)
            rv = get_small(&f, UINT64_MAX, &e->index);
        else if (f.number == 4 && f.wire != WIRE_LEN)
            rv = BNS_E_PROTO;
        else if (f.number == 4)
            data = f.bytes;
    }
    if (rv != BNS_OK)
        return rv;
    e->kind = (uint8_t)kind;
    if (data.len == 0)
        return BNS_OK;
    e->data = bns_rcbuf_copy(alloc, data);
    return e->data == NULL ? BNS_E_NOMEM : BNS_OK;
}

static int get_entries(struct bns_slice in, const struct bns_alloc *alloc,
                       struct bns_raft_entry *entries)
{
    struct field f;
    size_t n = 0;
    int rv;

    while (in.len > 0) {
        rv = next_field(&in, &f);
        if (rv == BNS_OK && f.number == 13)
            rv = get_entry(f.bytes, alloc, &entries[n++]);
        if (rv != BNS_OK)
            return rv;
    }
    return BNS_OK;
}

int bns_raft_msg_decode(struct bns_slice in, const struct bns_alloc *alloc,
                        struct bns_raft_msg *out, struct bns_err *err)
{
    struct bns_raft_entry *entries = NULL;
    int rv;

    memset(out, 0, sizeof *out);
    rv = get_head(in, out);
    if (rv == BNS_OK && out->entries_count > 0) {
        entries = bns_alloc_zero(alloc, out->entries_count * sizeof *entries);
        out->entries = entries;
        rv = entries == NULL ? BNS_E_NOMEM : get_entries(in, alloc, entries);
    }
    if (rv == BNS_OK)
        return BNS_OK;
    if (entries != NULL)
        bns_raft_msg_free(alloc, out);
    memset(out, 0, sizeof *out);
    return bns_err_set(err, rv, "raft message of %zu bytes: %s", in.len, bns_err_default_text(rv));
}

void bns_raft_msg_free(const struct bns_alloc *alloc, struct bns_raft_msg *m)
{
    for (size_t i = 0; i < m->entries_count; i++)
        bns_rcbuf_put(m->entries[i].data);
    bns_free(alloc, (void *)(uintptr_t)m->entries); /* decode made them; const is for readers */
    m->entries = NULL;
    m->entries_count = 0;
}

/* ---- configurations ------------------------------------------------------------------------- */

static uint8_t *put_ids(uint8_t *p, uint32_t field, const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p = put_scalar(p, field, ids[i]);
    return p;
}

int bns_raft_conf_encode(const struct bns_raft_conf *c, struct bns_buf *out)
{
    uint8_t *p;
    int rv;

    BNS_ASSERT(bns_raft_conf_valid(c));
    rv = bns_buf_reserve(out, 3u * BNS_RAFT_PEERS_MAX * 12);
    if (rv != BNS_OK)
        return rv;
    p = out->ptr + out->len;
    p = put_ids(p, 1, c->voters, c->voters_count);
    p = put_ids(p, 2, c->voters_old, c->voters_old_count);
    p = put_ids(p, 3, c->learners, c->learners_count);
    out->len = (size_t)(p - out->ptr);
    return BNS_OK;
}

static int add_id(uint64_t *ids, uint8_t *count, const struct field *f)
{
    if (f->wire != WIRE_VARINT || *count >= BNS_RAFT_PEERS_MAX)
        return BNS_E_PROTO;
    ids[(*count)++] = f->v;
    return BNS_OK;
}

int bns_raft_conf_decode(struct bns_slice in, struct bns_raft_conf *out)
{
    struct field f;
    int rv;

    memset(out, 0, sizeof *out);
    while (in.len > 0) {
        rv = next_field(&in, &f);
        if (rv == BNS_OK && f.number == 1)
            rv = add_id(out->voters, &out->voters_count, &f);
        else if (rv == BNS_OK && f.number == 2)
            rv = add_id(out->voters_old, &out->voters_old_count, &f);
        else if (rv == BNS_OK && f.number == 3)
            rv = add_id(out->learners, &out->learners_count, &f);
        if (rv != BNS_OK)
            return rv;
    }
    return bns_raft_conf_valid(out) ? BNS_OK : BNS_E_PROTO;
}

/* ---- entries of kind CONF ------------------------------------------------------------------- */

int bns_raft_change_encode(const struct bns_alloc *alloc, const struct bns_raft_conf_entry *c,
                           struct bns_rcbuf **out)
{
    struct bns_buf b;
    uint8_t *p;
    int rv;

    BNS_ASSERT(c->changes_count <= BNS_RAFT_PEERS_MAX);
    bns_buf_init(&b, alloc, 2u * BNS_RAFT_CONTEXT_BYTES_MAX);
    rv = bns_raft_conf_encode(&c->conf, &b);
    if (rv == BNS_OK)
        rv = bns_buf_reserve(&b, 24u + c->context.len + c->changes_count * 24u);
    if (rv != BNS_OK)
        goto out;
    p = b.ptr + b.len;
    if (c->context.len > 0) {
        p = put_tag(p, 4, WIRE_LEN);
        p += bns_varint_put(p, c->context.len);
        memcpy(p, c->context.ptr, c->context.len);
        p += c->context.len;
    }
    for (size_t i = 0; i < c->changes_count; i++) {
        uint8_t inner[24];
        uint8_t *q = put_scalar(inner, 1, c->changes[i].kind);
        q = put_scalar(q, 2, c->changes[i].id);
        p = put_tag(p, 5, WIRE_LEN);
        p += bns_varint_put(p, (size_t)(q - inner));
        memcpy(p, inner, (size_t)(q - inner));
        p += q - inner;
    }
    b.len = (size_t)(p - b.ptr);
    *out = bns_rcbuf_copy(alloc, bns_buf_slice(&b));
    rv = *out == NULL ? BNS_E_NOMEM : BNS_OK;
out:
    bns_buf_free(&b);
    return rv;
}

static int get_change(struct bns_slice in, struct bns_raft_change *out)
{
    struct field f;
    uint64_t kind = 0;
    int rv = BNS_OK;

    out->id = 0;
    while (rv == BNS_OK && in.len > 0) {
        rv = next_field(&in, &f);
        if (rv == BNS_OK && f.number == 1)
            rv = get_small(&f, BNS_RAFT_REMOVE, &kind);
        else if (rv == BNS_OK && f.number == 2)
            rv = get_small(&f, UINT64_MAX, &out->id);
    }
    out->kind = (enum bns_raft_change_kind)kind;
    return rv == BNS_OK && (kind == 0 || out->id == 0) ? BNS_E_PROTO : rv;
}

int bns_raft_change_decode(struct bns_slice data, struct bns_raft_conf_entry *out)
{
    struct field f;
    int rv;

    memset(out, 0, sizeof *out);
    rv = bns_raft_conf_decode(data, &out->conf);
    while (rv == BNS_OK && data.len > 0) {
        rv = next_field(&data, &f);
        if (rv != BNS_OK || (f.number != 4 && f.number != 5))
            continue;
        if (f.wire != WIRE_LEN || (f.number == 5 && out->changes_count == BNS_RAFT_PEERS_MAX))
            rv = BNS_E_PROTO;
        else if (f.number == 5)
            rv = get_change(f.bytes, &out->changes[out->changes_count++]);
        else if (f.bytes.len > BNS_RAFT_CONTEXT_BYTES_MAX)
            rv = BNS_E_PROTO;
        else
            out->context = f.bytes;
    }
    return rv;
}
