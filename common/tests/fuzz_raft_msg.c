/* fuzz_raft_msg.c - any bytes as a Raft message: refused, or what is decoded encodes to bytes that
 * decode to the same again. */
#include "base/varint.h"
#include "fuzz.h"
#include "proto/raft_msg.h"

static void same(const struct bns_raft_msg *a, const struct bns_raft_msg *b)
{
    BNS_ASSERT(a->type == b->type && a->reject == b->reject && a->flags == b->flags);
    BNS_ASSERT(a->group == b->group && a->from == b->from && a->to == b->to);
    BNS_ASSERT(a->term == b->term && a->log_term == b->log_term && a->index == b->index);
    BNS_ASSERT(a->commit == b->commit && a->read_ctx == b->read_ctx);
    BNS_ASSERT(a->hint_index == b->hint_index && a->hint_term == b->hint_term);
    BNS_ASSERT(a->entries_count == b->entries_count);
    for (size_t i = 0; i < a->entries_count; i++) {
        const struct bns_raft_entry *x = &a->entries[i];
        const struct bns_raft_entry *y = &b->entries[i];
        BNS_ASSERT(x->index == y->index && x->term == y->term && x->kind == y->kind);
        BNS_ASSERT(bns_slice_eq(bns_rcbuf_slice(x->data), bns_rcbuf_slice(y->data)));
    }
}

static void round_trip(const struct bns_raft_msg *m)
{
    const struct bns_alloc *a = bns_alloc_libc();
    size_t cap = 2 * m->entries_count + 1;
    struct bns_slice *v = bns_alloc_array(a, cap, sizeof *v);
    struct bns_raft_msg back;
    struct bns_buf head, all;
    size_t n = 0;

    BNS_ASSERT(v != NULL);
    bns_buf_init(&head, a, 8u << 20);
    bns_buf_init(&all, a, 16u << 20);
    BNS_ASSERT(bns_raft_msg_encode(m, &head, v, cap, &n) == BNS_OK);
    for (size_t i = 0; i < n; i++)
        BNS_ASSERT(bns_buf_add(&all, v[i].ptr, v[i].len) == BNS_OK);
    BNS_ASSERT(bns_raft_msg_decode(bns_buf_slice(&all), a, &back, NULL) == BNS_OK);
    same(m, &back);
    bns_raft_msg_free(a, &back);
    bns_buf_free(&head);
    bns_buf_free(&all);
    bns_free(a, v);
}

/* What is understood comes back the same. */
static void change(const uint8_t *data, size_t size)
{
    struct bns_raft_conf_entry c, d;
    struct bns_rcbuf *b;

    if (bns_raft_change_decode(bns_slice(data, size), &c) != BNS_OK)
        return;
    BNS_ASSERT(bns_raft_change_encode(bns_alloc_libc(), &c, &b) == BNS_OK);
    BNS_ASSERT(bns_raft_change_decode(bns_rcbuf_slice(b), &d) == BNS_OK);
    BNS_ASSERT(memcmp(&c.conf, &d.conf, sizeof c.conf) == 0);
    BNS_ASSERT(c.changes_count == d.changes_count);
    BNS_ASSERT(bns_slice_eq(c.context, d.context));
    bns_rcbuf_put(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_raft_msg m;
    struct bns_raft_conf c;

    if (bns_raft_msg_decode(bns_slice(data, size), bns_alloc_libc(), &m, NULL) == BNS_OK) {
        round_trip(&m);
        bns_raft_msg_free(bns_alloc_libc(), &m);
    }
    (void)!bns_raft_conf_decode(bns_slice(data, size), &c);
    change(data, size);
    return 0;
}
