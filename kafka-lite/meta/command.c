/* command.c - see command.h.
 *
 * Layout, little-endian:
 *
 *   command   version u8 = 1 | request u64 | base u64 | record...
 *   record    kind u8 | length varint | body
 *   bodies    TOPIC          id 16 | name
 *             PARTITION      id 16 | index | leader + 1 | leader epoch | partition epoch |
 *                            count | replicas... | count | isr...          all varints
 *             REMOVE_TOPIC   id 16
 *             CONFIG         resource u8 | has value u8 | name | key | value
 *             PRODUCER_IDS   next u64
 *   string    length varint | bytes
 *
 * A body is read to its last byte: what is left over is an error, as a kind that is not known is,
 * because a member that skipped a part of a command would differ from the others from then on.
 */
#include "meta/command.h"

#include "base/varint.h"

#define VERSION 1u
#define STRING_MAX 32767u /* as on the wire */

/* ---- encode --------------------------------------------------------------------------------- */

int kafka_command_begin(struct bns_buf *b, const struct kafka_command_head *h)
{
    uint8_t head[KAFKA_COMMAND_HEAD_BYTES];

    BNS_ASSERT(b->len == 0);
    head[0] = VERSION;
    bns_put_u64le(head + 1, h->request);
    bns_put_u64le(head + 9, h->base);
    return bns_buf_add(b, head, sizeof head);
}

struct writer { /* into a buffer; the first error stays */
    struct bns_buf *b;
    int rv;
};

static void put(struct writer *w, const void *ptr, size_t len)
{
    if (w->rv == BNS_OK && len > 0)
        w->rv = bns_buf_add(w->b, ptr, len);
}

static void put_varint(struct writer *w, uint64_t v)
{
    uint8_t bytes[BNS_VARINT_MAX];

    put(w, bytes, bns_varint_put(bytes, v));
}

static void put_string(struct writer *w, struct bns_slice s)
{
    BNS_ASSERT(s.len <= STRING_MAX);
    put_varint(w, s.len);
    put(w, s.ptr, s.len);
}

static void put_nodes(struct writer *w, const int32_t *nodes, uint32_t count)
{
    BNS_ASSERT(count <= KAFKA_REPLICAS_MAX);
    put_varint(w, count);
    for (uint32_t i = 0; i < count; i++)
        put_varint(w, (uint32_t)nodes[i]);
}

static void put_partition(struct writer *w, const struct kafka_partition_state *p)
{
    BNS_ASSERT(p->index >= 0 && p->index < KAFKA_PARTITIONS_MAX);
    BNS_ASSERT(p->leader >= -1 && p->leader < INT32_MAX);
    put_varint(w, (uint32_t)p->index);
    put_varint(w, (uint32_t)(p->leader + 1));
    put_varint(w, (uint32_t)p->leader_epoch);
    put_varint(w, (uint32_t)p->partition_epoch);
    put_nodes(w, p->replicas, p->replicas_count);
    put_nodes(w, p->isr, p->isr_count);
}

static void put_body(struct writer *w, const struct kafka_meta_record *r)
{
    uint8_t flags[2] = {(uint8_t)r->resource, r->value.ptr != NULL};
    uint8_t next[8];

    switch (r->kind) {
    case KAFKA_RECORD_TOPIC:
        put(w, r->id.bytes, sizeof r->id.bytes);
        put_string(w, r->name);
        return;
    case KAFKA_RECORD_PARTITION:
        put(w, r->id.bytes, sizeof r->id.bytes);
        put_partition(w, &r->partition);
        return;
    case KAFKA_RECORD_REMOVE_TOPIC:
        put(w, r->id.bytes, sizeof r->id.bytes);
        return;
    case KAFKA_RECORD_CONFIG:
        put(w, flags, sizeof flags);
        put_string(w, r->name);
        put_string(w, r->key);
        put_string(w, r->value);
        return;
    case KAFKA_RECORD_PRODUCER_IDS:
        bns_put_u64le(next, (uint64_t)r->next);
        put(w, next, sizeof next);
        return;
    }
    BNS_ASSERT(false); /* no such kind */
}

/* The length stands before the body: the body is written first, and moved when its length is known
 * to take more than the one byte that was left free. */
int kafka_meta_record_add(struct bns_buf *b, const struct kafka_meta_record *r)
{
    size_t begin = b->len, body, more;
    struct writer w = {.b = b, .rv = BNS_OK};
    uint8_t kind = (uint8_t)r->kind, length[BNS_VARINT_MAX];

    put(&w, &kind, 1);
    put(&w, "", 1);
    put_body(&w, r);
    body = b->len - begin - 2;
    more = bns_varint_put(length, body) - 1;
    if (w.rv == BNS_OK && more > 0)
        w.rv = bns_buf_reserve(b, more);
    if (w.rv != BNS_OK) {
        b->len = begin;
        return w.rv;
    }
    memmove(b->ptr + begin + 2 + more, b->ptr + begin + 2, body);
    memcpy(b->ptr + begin + 1, length, more + 1);
    b->len += more;
    return BNS_OK;
}

/* ---- decode --------------------------------------------------------------------------------- */

struct reader { /* the first thing wrong stays */
    struct bns_slice in;
    const char *wrong;
};

static void wrong(struct reader *r, const char *what)
{
    if (r->wrong == NULL)
        r->wrong = what;
    r->in.len = 0;
}

static uint64_t get_varint(struct reader *r, uint64_t max, const char *what)
{
    uint64_t v = 0;

    if (bns_varint_get(&r->in, &v) != BNS_OK || v > max) {
        wrong(r, what);
        return 0;
    }
    return v;
}

static struct bns_slice get_bytes(struct reader *r, size_t len, const char *what)
{
    struct bns_slice s = bns_slice(r->in.ptr, len);

    if (len > r->in.len) {
        wrong(r, what);
        return bns_slice("", 0);
    }
    r->in = bns_slice_skip(r->in, len);
    return s;
}

static struct bns_slice get_string(struct reader *r, const char *what)
{
    return get_bytes(r, (size_t)get_varint(r, STRING_MAX, what), what);
}

static void get_id(struct reader *r, struct kafka_uuid *id)
{
    struct bns_slice s = get_bytes(r, sizeof id->bytes, "a topic's id is cut short");

    if (s.len == sizeof id->bytes)
        memcpy(id->bytes, s.ptr, sizeof id->bytes);
}

static uint32_t get_nodes(struct reader *r, int32_t *nodes, const char *what)
{
    uint32_t count = (uint32_t)get_varint(r, KAFKA_REPLICAS_MAX, what);

    for (uint32_t i = 0; i < count && r->wrong == NULL; i++)
        nodes[i] = (int32_t)get_varint(r, INT32_MAX, what);
    return r->wrong == NULL ? count : 0;
}

static void get_partition(struct reader *r, struct kafka_meta_record *out)
{
    struct kafka_partition_state *p = &out->partition;

    p->index = (int32_t)get_varint(r, KAFKA_PARTITIONS_MAX - 1, "a partition's index");
    p->leader = (int32_t)get_varint(r, INT32_MAX, "a partition's leader") - 1;
    p->leader_epoch = (int32_t)get_varint(r, INT32_MAX, "a partition's leader epoch");
    p->partition_epoch = (int32_t)get_varint(r, INT32_MAX, "a partition's epoch");
    p->replicas = out->nodes;
    p->replicas_count = get_nodes(r, out->nodes, "a partition's replicas");
    p->isr = out->nodes + p->replicas_count;
    p->isr_count = get_nodes(r, out->nodes + p->replicas_count, "a partition's replicas in sync");
}

static void get_config(struct reader *r, struct kafka_meta_record *out)
{
    struct bns_slice flags = get_bytes(r, 2, "a configuration is cut short");

    if (flags.len < 2)
        return;
    out->resource = (int8_t)flags.ptr[0];
    if (out->resource != KAFKA_RESOURCE_TOPIC && out->resource != KAFKA_RESOURCE_BROKER)
        wrong(r, "a configuration of an unknown kind of resource");
    if (flags.ptr[1] > 1)
        wrong(r, "a configuration's flag");
    out->name = get_string(r, "the name of a configuration's resource");
    out->key = get_string(r, "a configuration's key");
    out->value = get_string(r, "a configuration's value");
    if (flags.ptr[1] == 0 && out->value.len > 0)
        wrong(r, "a value of a configuration that is taken away");
    if (flags.ptr[1] == 0)
        out->value = bns_slice(NULL, 0);
}

static void get_body(struct reader *r, struct kafka_meta_record *out)
{
    struct bns_slice s;

    switch (out->kind) {
    case KAFKA_RECORD_TOPIC:
        get_id(r, &out->id);
        out->name = get_string(r, "a topic's name");
        if (out->name.len == 0)
            wrong(r, "a topic without a name");
        return;
    case KAFKA_RECORD_PARTITION:
        get_id(r, &out->id);
        get_partition(r, out);
        return;
    case KAFKA_RECORD_REMOVE_TOPIC:
        get_id(r, &out->id);
        return;
    case KAFKA_RECORD_CONFIG:
        get_config(r, out);
        return;
    case KAFKA_RECORD_PRODUCER_IDS:
        s = get_bytes(r, 8, "a producer id is cut short");
        if (s.len == 8)
            out->next = (int64_t)bns_get_u64le(s.ptr);
        if (out->next < 0)
            wrong(r, "a negative producer id");
        return;
    }
    wrong(r, "a kind that this version does not know");
}

int kafka_meta_record_next(struct bns_slice *in, struct kafka_meta_record *out, struct bns_err *err)
{
    struct reader all = {.in = *in}, body = {.wrong = NULL};
    struct bns_slice kind = get_bytes(&all, 1, "no kind");
    size_t len = (size_t)get_varint(&all, SIZE_MAX, "a length");

    BNS_ASSERT(in->len > 0);
    body.in = get_bytes(&all, len, "a body that is cut short");
    memset(out, 0, offsetof(struct kafka_meta_record, nodes));
    if (all.wrong == NULL) {
        out->kind = (enum kafka_meta_record_kind)kind.ptr[0];
        get_body(&body, out);
        if (body.in.len > 0)
            wrong(&body, "bytes behind its end");
    }
    if (all.wrong != NULL || body.wrong != NULL)
        return bns_err_set(err, BNS_E_CORRUPT, "metadata record of kind %d: %s",
                           kind.len > 0 ? kind.ptr[0] : -1,
                           all.wrong != NULL ? all.wrong : body.wrong);
    *in = all.in;
    return BNS_OK;
}

int kafka_command_head(struct bns_slice *in, struct kafka_command_head *out, struct bns_err *err)
{
    if (in->len < KAFKA_COMMAND_HEAD_BYTES)
        return bns_err_set(err, BNS_E_CORRUPT, "metadata command of %zu bytes", in->len);
    if (in->ptr[0] != VERSION)
        return bns_err_set(err, BNS_E_CORRUPT, "metadata command of version %u, this is %u",
                           in->ptr[0], VERSION);
    out->request = bns_get_u64le(in->ptr + 1);
    out->base = bns_get_u64le(in->ptr + 9);
    *in = bns_slice_skip(*in, KAFKA_COMMAND_HEAD_BYTES);
    return BNS_OK;
}
