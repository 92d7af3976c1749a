/* answer.c - a pending answer as bytes: measured bottom-up, then written once.
 *
 * Stored KeyValue bytes are sent as they are: short ones are copied into one buffer, long ones stay
 * where they are and become slices of their own, so a 1 MiB value is never copied. The buffer, the
 * slices and the references live in one block (struct body) that the answer's release frees.
 */
#include "kv_impl.h"

#include <stdlib.h>

#include "base/varint.h"

#define COPY_MAX 1024 /* longer KeyValues are sent from where they are */
#define HEAD_MAX 48
#define MESSAGE_MAX INT32_MAX

struct body {
    const struct bns_alloc *alloc;
    size_t refs_count, slices_count;
    struct bns_rcbuf **refs;
    struct bns_slice *slices;
    uint8_t head[HEAD_MAX];
    uint8_t *at;    /* where the next byte is written */
    uint8_t *start; /* of the run of copied bytes that is not yet a slice */
};

static const struct etcd_status too_large = {
    8, "grpc: trying to send message larger than max (2147483647)"};

static void body_release(void *arg, int code)
{
    struct body *b = arg;

    (void)code;
    for (size_t i = 0; i < b->refs_count; i++)
        bns_rcbuf_put(b->refs[i]);
    bns_free(b->alloc, b);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static size_t int_len(int64_t v)
{
    return v == 0 ? 0 : 1 + bns_varint_len((uint64_t)v);
}

static size_t message_len(size_t bytes)
{
    return 1 + bns_varint_len(bytes) + bytes;
}

/* Sets parts[*i].bytes and those below; *i moves past the tree. Depth: that of the request's txns,
 * which the decoder bounds. */
static void measure(struct etcd_pending *p, size_t *i)
{
    struct etcd_part *part = &p->parts[(*i)++];
    size_t n = part->nested ? message_len(int_len(part->header)) : 0;

    for (size_t k = part->first; k < part->first + part->count; k++)
        n += message_len(p->rows[k].kv->len);
    switch (part->kind) {
    case ETCD_PART_RANGE:
        n += (part->more ? 2 : 0) + int_len(part->total);
        break;
    case ETCD_PART_DELETE:
        n += int_len(part->total);
        break;
    case ETCD_PART_TXN:
        n += part->succeeded ? 2 : 0;
        for (uint32_t c = 0; c < part->children; c++) {
            const struct etcd_part *child = &p->parts[*i];
            measure(p, i);
            n += message_len(child->kind == ETCD_PART_NONE ? 0 : message_len(child->bytes));
        }
        break;
    case ETCD_PART_LEASE:
        n += int_len(part->total) + int_len(part->limit);
        break;
    case ETCD_PART_HASH:
        n += int_len((int64_t)part->hash) + int_len(part->limit) + int_len(part->total);
        break;
    default:
        break;
    }
    part->bytes = n;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static void put_int(struct body *b, uint32_t field, int64_t v)
{
    if (v == 0)
        return;
    *b->at++ = (uint8_t)(field << 3);
    b->at += bns_varint_put(b->at, (uint64_t)v);
}

static void put_len(struct body *b, uint32_t field, size_t len)
{
    *b->at++ = (uint8_t)(field << 3 | 2);
    b->at += bns_varint_put(b->at, len);
}

static void cut(struct body *b)
{
    if (b->at > b->start)
        b->slices[b->slices_count++] = bns_slice(b->start, (size_t)(b->at - b->start));
    b->start = b->at;
}

static void put_row(struct body *b, uint32_t field, struct bns_rcbuf *kv)
{
    put_len(b, field, kv->len);
    if (kv->len <= COPY_MAX) {
        memcpy(b->at, kv->bytes, kv->len);
        b->at += kv->len;
        return;
    }
    cut(b);
    b->refs[b->refs_count++] = bns_rcbuf_get(kv);
    b->slices[b->slices_count++] = bns_rcbuf_slice(kv);
}

static void write_part(struct etcd_pending *p, size_t *i, struct body *b)
{
    const struct etcd_part *part = &p->parts[(*i)++];
    uint32_t field = part->kind == ETCD_PART_DELETE ? 3 : 2;

    if (part->nested) {
        put_len(b, 1, int_len(part->header));
        put_int(b, 3, part->header);
    }
    if (part->kind == ETCD_PART_DELETE)
        put_int(b, 2, part->total);
    for (size_t k = part->first; k < part->first + part->count; k++)
        put_row(b, field, p->rows[k].kv);
    if (part->kind == ETCD_PART_RANGE) {
        put_int(b, 3, part->more);
        put_int(b, 4, part->total);
    } else if (part->kind == ETCD_PART_HASH) {
        put_int(b, 2, (int64_t)part->hash);
        put_int(b, 3, part->limit);
        put_int(b, 4, part->total);
    } else if (part->kind == ETCD_PART_LEASE) {
        put_int(b, 2, part->total);
        put_int(b, 3, part->limit);
    } else if (part->kind == ETCD_PART_TXN) {
        put_int(b, 2, part->succeeded);
        for (uint32_t c = 0; c < part->children; c++) {
            const struct etcd_part *child = &p->parts[*i];
            if (child->kind == ETCD_PART_NONE) {
                put_len(b, 3, 0);
            } else {
                put_len(b, 3, message_len(child->bytes));
                put_len(b, child->kind, child->bytes);
            }
            write_part(p, i, b);
        }
    }
}

/* ---- last touches --------------------------------------------------------------------------- */

struct by_value {
    struct bns_slice value;
    size_t seq;
    struct etcd_row row;
};

static int ascending(const void *a, const void *b)
{
    const struct by_value *x = a, *y = b;
    int c = bns_slice_cmp(x->value, y->value);
    return c != 0 ? c : (x->seq > y->seq) - (x->seq < y->seq);
}

static int descending(const void *a, const void *b)
{
    const struct by_value *x = a, *y = b;
    int c = bns_slice_cmp(y->value, x->value);
    return c != 0 ? c : (x->seq > y->seq) - (x->seq < y->seq);
}

static int sort_by_value(struct etcd_pending *p, struct etcd_part *part)
{
    struct by_value *v = bns_alloc_array(p->kv->alloc, part->count + 1, sizeof *v);

    if (v == NULL)
        return BNS_E_NOMEM;
    for (size_t i = 0; i < part->count; i++) {
        struct etcd_kvview view = {.value = {NULL, 0}};
        v[i].row = p->rows[part->first + i];
        v[i].seq = i;
        if (etcd_kvbytes_parse(bns_rcbuf_slice(v[i].row.kv), &view) == BNS_OK)
            v[i].value = view.value;
        else
            v[i].value = bns_slice(NULL, 0); /* open has parsed every row: not reached */
    }
    qsort(v, part->count, sizeof *v, part->descending ? descending : ascending);
    for (size_t i = 0; i < part->count; i++)
        p->rows[part->first + i] = v[i].row;
    bns_free(p->kv->alloc, v);
    if (part->limit > 0 && part->count > (uint64_t)part->limit) {
        part->count = (size_t)part->limit;
        part->more = true;
    }
    return BNS_OK;
}

static int strip_values(struct etcd_pending *p, const struct etcd_part *part)
{
    for (size_t i = part->first; i < part->first + part->count; i++) {
        struct etcd_row *r = &p->rows[i];
        struct etcd_kvview v;
        struct bns_rcbuf *b;
        if (etcd_kvbytes_parse(bns_rcbuf_slice(r->kv), &v) != BNS_OK || v.value.len == 0)
            continue;
        v.value.len = 0;
        b = etcd_kvbytes_make(p->kv->alloc, &v);
        if (b == NULL)
            return BNS_E_NOMEM;
        bns_rcbuf_put(r->kv);
        r->kv = b;
    }
    return BNS_OK;
}

static int prepare(struct etcd_pending *p)
{
    int rv = BNS_OK;

    for (size_t i = 0; i < p->parts_count && rv == BNS_OK; i++) {
        struct etcd_part *part = &p->parts[i];
        if (part->by_value)
            rv = sort_by_value(p, part);
        if (part->strip && rv == BNS_OK)
            rv = strip_values(p, part);
    }
    return rv;
}

/* One block: struct, slices, references, copied bytes. */
static struct body *body_new(const struct etcd_pending *p, size_t bytes)
{
    size_t large = 0, large_bytes = 0, need;
    struct body *b;

    for (size_t i = 0; i < p->parts_count; i++) {
        const struct etcd_part *part = &p->parts[i];
        for (size_t k = part->first; k < part->first + part->count; k++) {
            if (p->rows[k].kv->len > COPY_MAX) {
                large++;
                large_bytes += p->rows[k].kv->len;
            }
        }
    }
    BNS_ASSERT(bytes >= large_bytes);
    need = bytes - large_bytes;
    b = bns_alloc(p->kv->alloc, sizeof *b + (2 * large + 2) * sizeof(struct bns_slice) +
                                    large * sizeof(struct bns_rcbuf *) + need + BNS_VARINT_MAX);
    if (b == NULL)
        return NULL;
    *b = (struct body){.alloc = p->kv->alloc, .slices_count = 1};
    b->slices = (struct bns_slice *)(b + 1);
    b->refs = (struct bns_rcbuf **)(b->slices + 2 * large + 2);
    b->start = (uint8_t *)(b->refs + large);
    b->at = b->start;
    b->slices[0] = bns_slice(b->head, 0);
    return b;
}

void etcd_pending_finish(struct etcd_pending *p)
{
    struct etcd_answer a = {.revision = p->revision, .index = p->index, .began_ns = p->began_ns};
    struct etcd_waiter *w = p->waiter;
    etcd_done *done = p->done;
    void *arg = p->arg;
    struct body *b = NULL;
    size_t i = 0;

    if (w == NULL && done == NULL) {
        etcd_pending_free(p);
        return;
    }
    if (prepare(p) == BNS_OK) {
        measure(p, &i);
        if (p->parts[0].bytes > MESSAGE_MAX - HEAD_MAX) {
            etcd_pending_refuse(p, too_large);
            return;
        }
        b = body_new(p, p->parts[0].bytes);
    }
    if (b == NULL) {
        etcd_pending_no_memory(p);
        return;
    }
    i = 0;
    write_part(p, &i, b);
    BNS_ASSERT(i == p->parts_count);
    cut(b);
    a.slices = b->slices;
    a.slices_count = b->slices_count;
    a.bytes = p->parts[0].bytes;
    a.release = body_release;
    a.release_arg = b;
    p->waiter = NULL;
    etcd_pending_free(p);
    if (w != NULL) {
        w->pending = NULL;
        w->fn(w, &a);
    } else {
        done(arg, &a);
    }
}

void etcd_answer_header(struct etcd_answer *a, uint64_t cluster_id, uint64_t member_id,
                        uint64_t raft_term)
{
    /* slices[0].ptr is the head of our own struct body */
    struct body *b = a->release_arg;
    size_t len = int_len((int64_t)cluster_id) + int_len((int64_t)member_id) + int_len(a->revision) +
                 int_len((int64_t)raft_term);
    uint8_t *at = b->at;

    _Static_assert(HEAD_MAX >= 2 + 4 * 11, "a full header fits");
    b->at = b->head;
    put_len(b, 1, len);
    put_int(b, 1, (int64_t)cluster_id);
    put_int(b, 2, (int64_t)member_id);
    put_int(b, 3, a->revision);
    put_int(b, 4, (int64_t)raft_term);
    a->slices[0] = bns_slice(b->head, (size_t)(b->at - b->head));
    b->at = at;
}
