/* producers.c - the last batches of idempotent producers: verdicts, and snapshots of them. */
#include "log/producers.h"

#include <inttypes.h>

#include "base/crc32c.h"

#define HEAD_BYTES 10u
#define ENTRY_BYTES 46u
#define VERSION 1

void kafka_producers_init(struct kafka_producers *s, const struct bns_alloc *alloc, size_t max)
{
    *s = (struct kafka_producers){.alloc = alloc, .max = max};
    bns_hmap_init(&s->map, alloc);
    bns_list_init(&s->ages);
}

static void set_txn(struct kafka_producers *s, struct kafka_producer *p, int64_t start)
{
    s->open -= p->txn_start >= 0;
    p->txn_start = start;
    s->open += start >= 0;
}

static void forget(struct kafka_producers *s, struct kafka_producer *p)
{
    set_txn(s, p, -1);
    bns_hmap_del(&s->map, &p->node);
    bns_list_del(&p->age);
    bns_free(s->alloc, p);
}

void kafka_producers_free(struct kafka_producers *s)
{
    struct bns_list *n;

    while ((n = s->ages.next) != &s->ages)
        forget(s, BNS_CONTAINER(n, struct kafka_producer, age));
    bns_hmap_free(&s->map);
    bns_hmap_init(&s->map, s->alloc);
}

size_t kafka_producers_count(const struct kafka_producers *s)
{
    return s->map.count;
}

static uint64_t hash(int64_t id)
{
    return bns_hash_u64(0, (uint64_t)id); /* ids are the broker's own, given out in order */
}

struct kafka_producer *kafka_producers_find(const struct kafka_producers *s, int64_t id)
{
    struct bns_hnode *n = bns_hmap_find(&s->map, hash(id));

    for (; n != NULL; n = bns_hmap_find_next(n)) {
        struct kafka_producer *p = BNS_CONTAINER(n, struct kafka_producer, node);
        if (p->id == id)
            return p;
    }
    return NULL;
}

int64_t kafka_producers_first_open(const struct kafka_producers *s)
{
    int64_t first = INT64_MAX;

    if (s->open == 0)
        return first;
    BNS_LIST_EACH(n, &s->ages)
    {
        const struct kafka_producer *p = BNS_CONTAINER(n, struct kafka_producer, age);
        if (p->txn_start >= 0 && p->txn_start < first)
            first = p->txn_start;
    }
    return first;
}

/* ---- sequences ------------------------------------------------------------------------------- */

/* Sequences are 31 bits and go round: behind INT32_MAX comes 0. */
static int32_t sequence_after(int32_t sequence, int32_t by)
{
    return (int32_t)(((uint32_t)sequence + (uint32_t)by) & INT32_MAX);
}

static int32_t first_sequence(const struct kafka_sequence *q)
{
    return (int32_t)(((uint32_t)q->last - (uint32_t)q->offset_delta) & INT32_MAX);
}

static const struct kafka_sequence *find_batch(const struct kafka_producer *p,
                                               const struct kafka_batch *b)
{
    for (size_t i = 0; i < p->count; i++)
        if (first_sequence(&p->batches[i]) == b->base_sequence &&
            p->batches[i].offset_delta == b->last_offset_delta)
            return &p->batches[i];
    return NULL;
}

enum kafka_verdict kafka_producers_check(const struct kafka_producers *s,
                                         const struct kafka_batch *b, struct kafka_sequence *was)
{
    const struct kafka_producer *p = kafka_producers_find(s, b->producer_id);
    const struct kafka_sequence *same;
    int32_t next;

    BNS_ASSERT(b->producer_id >= 0 && b->base_sequence >= 0);
    if (p == NULL || p->epoch < 0)
        return KAFKA_SEQ_OK;
    if (b->producer_epoch < p->epoch)
        return KAFKA_SEQ_FENCED;
    if (b->producer_epoch > p->epoch)
        return b->base_sequence == 0 ? KAFKA_SEQ_OK : KAFKA_SEQ_OUT_OF_ORDER;
    same = find_batch(p, b);
    if (same != NULL) {
        *was = *same;
        return KAFKA_SEQ_DUPLICATE;
    }
    next = p->count == 0 ? 0 : sequence_after(p->batches[p->count - 1].last, 1);
    return b->base_sequence == next ? KAFKA_SEQ_OK : KAFKA_SEQ_OUT_OF_ORDER;
}

int kafka_producers_prepare(struct kafka_producers *s, int64_t id)
{
    struct kafka_producer *p = kafka_producers_find(s, id);
    int rv;

    if (p != NULL)
        return BNS_OK;
    p = bns_alloc_zero(s->alloc, sizeof *p);
    if (p == NULL)
        return BNS_E_NOMEM;
    p->id = id;
    p->epoch = -1;
    p->coordinator_epoch = -1;
    p->txn_start = -1;
    rv = bns_hmap_insert(&s->map, &p->node, hash(id));
    if (rv != BNS_OK) {
        bns_free(s->alloc, p);
        return rv;
    }
    bns_list_push(&s->ages, &p->age);
    if (s->map.count > s->max)
        forget(s, BNS_CONTAINER(s->ages.next, struct kafka_producer, age));
    return BNS_OK;
}

void kafka_producers_undo(struct kafka_producers *s, int64_t id)
{
    struct kafka_producer *p = kafka_producers_find(s, id);

    if (p != NULL && p->epoch < 0)
        forget(s, p);
}

static void push_batch(struct kafka_producer *p, const struct kafka_sequence *q)
{
    if (p->count == KAFKA_PRODUCER_BATCHES) {
        memmove(p->batches, p->batches + 1, (KAFKA_PRODUCER_BATCHES - 1) * sizeof *q);
        p->count--;
    }
    p->batches[p->count++] = *q;
}

void kafka_producers_add(struct kafka_producers *s, const struct kafka_batch *b)
{
    struct kafka_producer *p = kafka_producers_find(s, b->producer_id);

    BNS_ASSERT(p != NULL); /* prepared */
    bns_list_del(&p->age);
    bns_list_push(&s->ages, &p->age);
    if (b->producer_epoch != p->epoch)
        p->count = 0;
    p->epoch = b->producer_epoch;
    p->time_ms = b->max_timestamp;
    if ((b->attributes & KAFKA_ATTR_CONTROL) != 0) {
        set_txn(s, p, -1); /* the end of its transaction */
        return;
    }
    if ((b->attributes & KAFKA_ATTR_TRANSACTIONAL) != 0 && p->txn_start < 0)
        set_txn(s, p, b->base_offset);
    push_batch(p, &(struct kafka_sequence){
                      .last_offset = kafka_batch_last_offset(b),
                      .time_ms = b->max_timestamp,
                      .last = sequence_after(b->base_sequence, b->last_offset_delta),
                      .offset_delta = b->last_offset_delta,
                  });
}

void kafka_producers_expire(struct kafka_producers *s, int64_t now_ms, int64_t expiry_ms)
{
    BNS_LIST_EACH(n, &s->ages)
    {
        struct kafka_producer *p = BNS_CONTAINER(n, struct kafka_producer, age);
        if (p->txn_start < 0 && now_ms - expiry_ms >= p->time_ms)
            forget(s, p);
    }
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static void put(uint8_t *to, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static uint64_t get(const uint8_t *from, size_t bytes)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | from[i];
    return v;
}

static int put_producer(struct bns_buf *to, const struct kafka_producer *p)
{
    static const struct kafka_sequence none = {.last_offset = -1, .last = -1};
    const struct kafka_sequence *q = p->count == 0 ? &none : &p->batches[p->count - 1];
    uint8_t e[ENTRY_BYTES];

    put(e, (uint64_t)p->id, 8);
    put(e + 8, (uint64_t)p->epoch, 2);
    put(e + 10, (uint64_t)q->last, 4);
    put(e + 14, (uint64_t)q->last_offset, 8);
    put(e + 22, (uint64_t)q->offset_delta, 4);
    put(e + 26, (uint64_t)p->time_ms, 8);
    put(e + 34, (uint64_t)p->coordinator_epoch, 4);
    put(e + 38, (uint64_t)p->txn_start, 8);
    return bns_buf_add(to, e, sizeof e);
}

int kafka_producers_encode(const struct kafka_producers *s, struct bns_buf *to)
{
    uint8_t head[HEAD_BYTES] = {0};
    size_t start = to->len;
    uint32_t count = 0;
    int rv = bns_buf_add(to, head, sizeof head);

    BNS_LIST_EACH(n, &s->ages)
    {
        const struct kafka_producer *p = BNS_CONTAINER(n, struct kafka_producer, age);
        if (rv != BNS_OK || p->epoch < 0)
            continue;
        rv = put_producer(to, p);
        count++;
    }
    if (rv != BNS_OK)
        return rv;
    put(to->ptr + start, VERSION, 2);
    put(to->ptr + start + 6, count, 4);
    put(to->ptr + start + 2, bns_crc32c(0, to->ptr + start + 6, to->len - start - 6), 4);
    return BNS_OK;
}

static int take_producer(struct kafka_producers *s, const uint8_t *e)
{
    struct kafka_producer *p;
    struct kafka_sequence q = {.last = (int32_t)get(e + 10, 4),
                               .last_offset = (int64_t)get(e + 14, 8),
                               .offset_delta = (int32_t)get(e + 22, 4),
                               .time_ms = (int64_t)get(e + 26, 8)};
    int64_t id = (int64_t)get(e, 8);
    int rv = kafka_producers_prepare(s, id);

    if (rv != BNS_OK)
        return rv;
    p = kafka_producers_find(s, id);
    p->epoch = (int16_t)get(e + 8, 2);
    p->time_ms = q.time_ms;
    p->coordinator_epoch = (int32_t)get(e + 34, 4);
    p->count = 0;
    set_txn(s, p, (int64_t)get(e + 38, 8));
    if (q.last_offset >= 0 && q.last >= 0 && q.offset_delta >= 0)
        push_batch(p, &q);
    return BNS_OK;
}

int kafka_producers_decode(struct kafka_producers *s, struct bns_slice bytes, struct bns_err *err)
{
    uint64_t count;
    int rv = BNS_OK;

    BNS_ASSERT(kafka_producers_count(s) == 0);
    if (bytes.len < HEAD_BYTES || get(bytes.ptr, 2) != VERSION)
        return bns_err_set(err, BNS_E_CORRUPT, "no snapshot of producers, or of another version");
    count = get(bytes.ptr + 6, 4);
    if (bytes.len - HEAD_BYTES != count * ENTRY_BYTES)
        return bns_err_set(err, BNS_E_CORRUPT, "%" PRIu64 " producers in %zu bytes", count,
                           bytes.len);
    if (get(bytes.ptr + 2, 4) != bns_crc32c(0, bytes.ptr + 6, bytes.len - 6))
        return bns_err_set(err, BNS_E_CORRUPT, "the CRC of a snapshot of producers is wrong");
    for (uint64_t i = 0; rv == BNS_OK && i < count; i++)
        rv = take_producer(s, bytes.ptr + HEAD_BYTES + i * ENTRY_BYTES);
    if (rv != BNS_OK)
        kafka_producers_free(s);
    return rv;
}
