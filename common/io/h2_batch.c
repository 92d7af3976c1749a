/* h2_batch.c - collects what one turn of a connection sends, and writes it with one call.
 *
 * Layout:  a batch is a block of bytes (frame headers, HEADERS, small payloads, copied) and a list
 *          of slices that point into the block or into queued messages (large payloads, borrowed).
 *          Neighbours in the block are one slice. A batch that is full is written and a new one
 *          begun, so the order on the wire is the order of the calls.
 * Life:    a borrowed message is held by a reference per slice until the transport releases the
 *          batch. Batches come from the hub's pool.
 * Fails:   no memory, or the transport refuses: the caller gives the connection up.
 */
#include "io/h2.h"

#define POOL_MAX 256u

struct bns_h2_batch {
    struct bns_h2_batch *next; /* in the pool */
    struct bns_h2_hub *hub;
    size_t len;   /* bytes used of `bytes` */
    size_t total; /* bytes in all slices */
    uint32_t slices_count;
    uint32_t msgs_count;
    struct bns_slice slices[BNS_H2_BATCH_SLICES];
    struct bns_h2_msg *msgs[BNS_H2_BATCH_SLICES];
    uint8_t bytes[BNS_H2_BATCH_BYTES];
};

static void recycle(struct bns_h2_batch *b, int code)
{
    struct bns_h2_hub *hub = b->hub;

    for (uint32_t i = 0; i < b->msgs_count; i++)
        bns_h2_msg_put(hub, b->msgs[i], code);
    if (hub->batches_count < POOL_MAX) {
        b->next = hub->batches;
        hub->batches = b;
        hub->batches_count++;
    } else {
        bns_free(hub->env->alloc, b);
    }
    bns_h2_hub_put(hub);
}

static void on_release(void *arg, int code)
{
    recycle(arg, code);
}

static int begin(struct bns_h2 *h)
{
    struct bns_h2_hub *hub = h->hub;
    struct bns_h2_batch *b = hub->batches;

    BNS_ASSERT(h->batch == NULL);
    if (b != NULL) {
        hub->batches = b->next;
        hub->batches_count--;
    } else {
        b = bns_alloc(hub->env->alloc, sizeof *b);
        if (b == NULL)
            return BNS_E_NOMEM;
    }
    b->hub = hub;
    b->len = 0;
    b->total = 0;
    b->slices_count = 0;
    b->msgs_count = 0;
    hub->refs++;
    h->batch = b;
    return BNS_OK;
}

/* Room for one more slice. */
static int ready(struct bns_h2 *h)
{
    int rv = BNS_OK;

    if (h->batch != NULL && h->batch->slices_count == BNS_H2_BATCH_SLICES)
        rv = bns_h2_batch_flush(h);
    if (rv == BNS_OK && h->batch == NULL)
        rv = begin(h);
    return rv;
}

static void add_slice(struct bns_h2_batch *b, const uint8_t *ptr, size_t len)
{
    struct bns_slice *last = &b->slices[b->slices_count];

    b->total += len;
    if (b->slices_count > 0 && last[-1].ptr + last[-1].len == ptr && ptr >= b->bytes &&
        ptr < b->bytes + sizeof b->bytes) {
        last[-1].len += len;
        return;
    }
    BNS_ASSERT(b->slices_count < BNS_H2_BATCH_SLICES);
    *last = bns_slice(ptr, len);
    b->slices_count++;
}

int bns_h2_batch_copy(struct bns_h2 *h, const void *ptr, size_t len)
{
    const uint8_t *p = ptr;

    while (len > 0) {
        struct bns_h2_batch *b;
        size_t n;
        int rv = ready(h);

        if (rv != BNS_OK)
            return rv;
        b = h->batch;
        n = sizeof b->bytes - b->len;
        if (n == 0) {
            rv = bns_h2_batch_flush(h);
            if (rv != BNS_OK)
                return rv;
            continue;
        }
        if (n > len)
            n = len;
        memcpy(b->bytes + b->len, p, n);
        add_slice(b, b->bytes + b->len, n);
        b->len += n;
        p += n;
        len -= n;
    }
    return BNS_OK;
}

int bns_h2_batch_borrow(struct bns_h2 *h, struct bns_slice s, struct bns_h2_msg *m)
{
    struct bns_h2_batch *b;
    int rv = ready(h);

    if (rv != BNS_OK)
        return rv;
    b = h->batch;
    add_slice(b, s.ptr, s.len);
    if (b->msgs_count > 0 && b->msgs[b->msgs_count - 1] == m)
        return BNS_OK;
    BNS_ASSERT(b->msgs_count < BNS_H2_BATCH_SLICES);
    m->refs++;
    b->msgs[b->msgs_count++] = m;
    return BNS_OK;
}

size_t bns_h2_batch_bytes(const struct bns_h2 *h)
{
    return h->batch == NULL ? 0 : h->batch->total;
}

int bns_h2_batch_flush(struct bns_h2 *h)
{
    struct bns_h2_batch *b = h->batch;
    int rv;

    if (b == NULL)
        return BNS_OK;
    h->batch = NULL;
    bns_counter_add(h->hub->bytes_out, b->total);
    rv = bns_stream_write(h->stream, b->slices, b->slices_count, on_release, b);
    if (rv != BNS_OK)
        recycle(b, rv);
    return rv;
}

void bns_h2_batch_drop(struct bns_h2 *h)
{
    if (h->batch != NULL)
        recycle(h->batch, BNS_E_DROPPED);
    h->batch = NULL;
}

void bns_h2_batch_pool_free(struct bns_h2_hub *hub)
{
    while (hub->batches != NULL) {
        struct bns_h2_batch *b = hub->batches;
        hub->batches = b->next;
        bns_free(hub->env->alloc, b);
    }
    hub->batches_count = 0;
}
