/* Goal:   Raft messages survive the way through bytes; anything else is refused, never crashes.
 * Method: round trips over tables; cut at every byte; flip every byte; the n-th allocation fails;
 *         unknown fields of every wire type are skipped.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/varint.h"
#include "proto/raft_msg.h"

struct heap {
    struct bns_alloc alloc;
    long live, calls, fail_at;
};

static void *heap_resize(void *ctx, void *ptr, size_t n)
{
    struct heap *h = ctx;
    void *p;

    if (++h->calls == h->fail_at)
        return NULL;
    p = bns_resize(bns_alloc_libc(), ptr, n);
    h->live += p != NULL && ptr == NULL;
    return p;
}

static void *heap_alloc(void *ctx, size_t n)
{
    return heap_resize(ctx, NULL, n);
}

static void heap_release(void *ctx, void *ptr)
{
    ((struct heap *)ctx)->live -= ptr != NULL;
    bns_free(bns_alloc_libc(), ptr);
}

static void heap_init(struct heap *h, long fail_at)
{
    *h = (struct heap){.alloc = {heap_alloc, heap_resize, heap_release, h}, .fail_at = fail_at};
}

static struct bns_rcbuf *text(const char *s)
{
    return bns_rcbuf_copy(bns_alloc_libc(), bns_slice_str(s));
}

static void join(const struct bns_slice *v, size_t n, struct bns_buf *out)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bns_buf_add(out, v[i].ptr, v[i].len), BNS_OK);
}

/* A message with everything in it, as bytes. */
static void sample(struct bns_buf *out)
{
    struct bns_raft_entry e[4] = {
        {.index = 8, .term = 3, .kind = BNS_RAFT_NOOP},
        {.index = 9, .term = 3, .data = text("hello")},
        {.index = 10, .term = UINT64_MAX, .data = text("w")},
        {.index = UINT64_MAX, .term = 4, .kind = BNS_RAFT_CONF},
    };
    struct bns_raft_msg m = {.type = BNS_RAFT_MSG_APPEND,
                             .reject = true,
                             .flags = 255,
                             .group = UINT32_MAX,
                             .from = 1,
                             .to = UINT64_MAX,
                             .term = 5,
                             .log_term = 6,
                             .index = 7,
                             .commit = 1000,
                             .hint_index = 300,
                             .hint_term = 2,
                             .read_ctx = 1ull << 40,
                             .entries = e,
                             .entries_count = 4};
    struct bns_slice v[9];
    struct bns_buf head;
    size_t n = 0;

    bns_buf_init(&head, bns_alloc_libc(), 1 << 20);
    assert_int_equal(bns_raft_msg_encode(&m, &head, v, 9, &n), BNS_OK);
    assert_int_equal(n, 5); /* head, hello, head, w, head */
    assert_ptr_equal(v[1].ptr, e[1].data->bytes);
    join(v, n, out);
    bns_buf_free(&head);
    bns_rcbuf_put(e[1].data);
    bns_rcbuf_put(e[2].data);
}

static void everything_survives_the_round_trip(void **state)
{
    struct bns_raft_msg m;
    struct bns_buf b;
    struct heap h;
    (void)state;
    heap_init(&h, 0);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    sample(&b);
    assert_int_equal(bns_raft_msg_decode(bns_buf_slice(&b), &h.alloc, &m, NULL), BNS_OK);
    assert_true(m.type == BNS_RAFT_MSG_APPEND && m.reject && m.flags == 255);
    assert_true(m.group == UINT32_MAX && m.from == 1 && m.to == UINT64_MAX && m.term == 5);
    assert_true(m.log_term == 6 && m.index == 7 && m.commit == 1000 && m.hint_index == 300);
    assert_true(m.hint_term == 2 && m.read_ctx == 1ull << 40 && m.entries_count == 4);
    assert_true(m.entries[0].kind == BNS_RAFT_NOOP && m.entries[0].data == NULL);
    assert_true(bns_slice_eq(bns_rcbuf_slice(m.entries[1].data), BNS_LIT("hello")));
    assert_true(m.entries[2].term == UINT64_MAX && m.entries[2].data->len == 1);
    assert_true(m.entries[3].index == UINT64_MAX && m.entries[3].kind == BNS_RAFT_CONF);
    bns_raft_msg_free(&h.alloc, &m);
    assert_int_equal(h.live, 0);
    bns_buf_free(&b);
}

static void every_type_without_entries_is_one_slice(void **state)
{
    (void)state;
    for (uint8_t type = 1; type <= BNS_RAFT_MSG_SNAPSHOT_RESP; type++) {
        struct bns_raft_msg m = {.type = type, .from = 1, .to = 2, .term = type};
        struct bns_raft_msg back;
        struct bns_slice v[1];
        struct bns_buf head;
        size_t n;
        bns_buf_init(&head, bns_alloc_libc(), 4096);
        assert_int_equal(bns_raft_msg_encode(&m, &head, v, 1, &n), BNS_OK);
        assert_int_equal(n, 1);
        assert_int_equal(bns_raft_msg_decode(v[0], bns_alloc_libc(), &back, NULL), BNS_OK);
        assert_true(back.type == type && back.term == type && back.entries == NULL);
        bns_buf_free(&head);
    }
}

/* Cut anywhere: an error, or a shorter valid message (protobuf has no end mark); nothing leaks. */
static void a_cut_at_every_byte_is_harmless(void **state)
{
    struct bns_buf b;
    size_t refused = 0;
    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    sample(&b);
    for (size_t cut = 0; cut < b.len; cut++) {
        struct bns_raft_msg m;
        struct heap h;
        int rv;
        heap_init(&h, 0);
        rv = bns_raft_msg_decode(bns_slice(b.ptr, cut), &h.alloc, &m, NULL);
        refused += rv == BNS_E_PROTO;
        assert_true(rv == BNS_OK || rv == BNS_E_PROTO);
        assert_true(rv == BNS_OK || (m.entries == NULL && m.entries_count == 0));
        bns_raft_msg_free(&h.alloc, &m);
        assert_int_equal(h.live, 0);
    }
    assert_true(refused > b.len / 2);
    bns_buf_free(&b);
}

static void a_flip_of_every_bit_is_harmless(void **state)
{
    struct bns_buf b;
    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    sample(&b);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        struct bns_raft_msg m;
        struct heap h;
        heap_init(&h, 0);
        b.ptr[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        (void)!bns_raft_msg_decode(bns_buf_slice(&b), &h.alloc, &m, NULL);
        bns_raft_msg_free(&h.alloc, &m);
        assert_int_equal(h.live, 0);
        b.ptr[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    bns_buf_free(&b);
}

static void decoding_survives_oom(void **state)
{
    struct bns_buf b;
    bool fired = true;
    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    sample(&b);
    for (long fail_at = 1; fired; fail_at++) {
        struct bns_raft_msg m;
        struct bns_err err;
        struct heap h;
        int rv;
        heap_init(&h, fail_at);
        rv = bns_raft_msg_decode(bns_buf_slice(&b), &h.alloc, &m, &err);
        fired = h.calls >= fail_at;
        assert_int_equal(rv, fired ? BNS_E_NOMEM : BNS_OK);
        bns_raft_msg_free(&h.alloc, &m);
        assert_int_equal(h.live, 0);
    }
    bns_buf_free(&b);
}

static void bad_shapes_are_refused_and_unknown_fields_skipped(void **state)
{
    static const struct {
        const char *name, *in;
        size_t len;
        int rv;
    } t[] = {
        {"smallest", "\x08\x07", 2, BNS_OK},
        {"empty", "", 0, BNS_E_PROTO},
        {"type 0", "\x08\x00", 2, BNS_E_PROTO},
        {"type 14", "\x08\x0e", 2, BNS_E_PROTO},
        {"field 0", "\x08\x07\x00\x01", 4, BNS_E_PROTO},
        {"reject 2", "\x08\x07\x48\x02", 4, BNS_E_PROTO},
        {"flags 256", "\x08\x07\x78\x80\x02", 5, BNS_E_PROTO},
        {"group over 32 bits", "\x08\x07\x10\xff\xff\xff\xff\x1f", 8, BNS_E_PROTO},
        {"term as bytes", "\x08\x07\x2a\x01\x01", 5, BNS_E_PROTO},
        {"entries as number", "\x08\x07\x68\x01", 4, BNS_E_PROTO},
        {"length beyond the end", "\x08\x07\x6a\x05\x08", 5, BNS_E_PROTO},
        {"entry: kind over 8 bits", "\x08\x05\x6a\x03\x08\x80\x02", 7, BNS_E_PROTO},
        {"entry: data as number", "\x08\x05\x6a\x02\x20\x01", 6, BNS_E_PROTO},
        {"entry: cut inside", "\x08\x05\x6a\x01\x20", 5, BNS_E_PROTO},
        {"entry: term as bytes", "\x08\x05\x6a\x03\x12\x01\x01", 7, BNS_E_PROTO},
        {"empty entry", "\x08\x05\x6a\x00", 4, BNS_OK},
        {"unknown number", "\x08\x07\x80\x01\x05", 5, BNS_OK},
        {"unknown bytes", "\x08\x07\x72\x02zz", 6, BNS_OK},
        {"unknown fixed64", "\x08\x07\x81\x01\x01\x02\x03\x04\x05\x06\x07\x08", 12, BNS_OK},
        {"unknown fixed32", "\x08\x07\x85\x01\x01\x02\x03\x04", 8, BNS_OK},
        {"fixed64 cut", "\x08\x07\x81\x01\x01\x02", 6, BNS_E_PROTO},
        {"fixed32 cut", "\x08\x07\x85\x01\x01", 5, BNS_E_PROTO},
        {"group wire type", "\x08\x07\x83\x01", 4, BNS_E_PROTO},
        {"tag over 32 bits", "\x08\x07\x80\x80\x80\x80\x80\x01\x01", 9, BNS_E_PROTO},
        {"varint without end", "\x08\x07\x28\xff", 4, BNS_E_PROTO},
        {"unknown field in an entry", "\x08\x05\x6a\x02\x28\x01", 6, BNS_OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct bns_raft_msg m;
        struct bns_err err;
        print_message("  %s\n", t[i].name);
        assert_int_equal(
            bns_raft_msg_decode(bns_slice(t[i].in, t[i].len), bns_alloc_libc(), &m, &err), t[i].rv);
        bns_raft_msg_free(bns_alloc_libc(), &m);
    }
}

static void more_entries_than_allowed_are_refused_before_memory_is_taken(void **state)
{
    struct bns_raft_msg m;
    struct bns_buf b;
    struct heap h;
    (void)state;
    heap_init(&h, 0);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    assert_int_equal(bns_buf_add(&b, "\x08\x05", 2), BNS_OK);
    for (size_t i = 0; i <= BNS_RAFT_MSG_ENTRIES_MAX; i++)
        assert_int_equal(bns_buf_add(&b, "\x6a\x00", 2), BNS_OK);
    assert_int_equal(bns_raft_msg_decode(bns_buf_slice(&b), &h.alloc, &m, NULL), BNS_E_PROTO);
    assert_int_equal(h.calls, 0);
    bns_buf_free(&b);
}

static void encoding_reports_a_full_buffer(void **state)
{
    struct bns_raft_msg m = {.type = 1, .entries_count = BNS_RAFT_MSG_ENTRIES_MAX + 1};
    struct bns_buf head;
    size_t n;
    (void)state;
    bns_buf_init(&head, bns_alloc_libc(), 8);
    assert_int_equal(bns_raft_msg_encode(&m, &head, NULL, SIZE_MAX, &n), BNS_E_TOOBIG);
    m.entries_count = 0;
    assert_int_equal(bns_raft_msg_encode(&m, &head, NULL, 1, &n), BNS_E_TOOBIG);
    bns_buf_free(&head);
}

static void configurations_survive_the_round_trip(void **state)
{
    struct bns_raft_conf c = {.voters = {1, 5, 9},
                              .voters_count = 3,
                              .voters_old = {1, 4},
                              .voters_old_count = 2,
                              .learners = {7},
                              .learners_count = 1};
    struct bns_raft_conf d;
    struct bns_buf b;
    (void)state;
    bns_buf_init(&b, bns_alloc_libc(), 4096);
    assert_int_equal(bns_raft_conf_encode(&c, &b), BNS_OK);
    assert_int_equal(bns_raft_conf_decode(bns_buf_slice(&b), &d), BNS_OK);
    assert_memory_equal(&c, &d, sizeof c);
    for (size_t cut = 0; cut < b.len; cut++)
        (void)!bns_raft_conf_decode(bns_slice(b.ptr, cut), &d);
    assert_int_equal(bns_raft_conf_decode(BNS_LIT(""), &d), BNS_E_PROTO);
    assert_int_equal(bns_raft_conf_decode(BNS_LIT("\x0a\x01\x01"), &d), BNS_E_PROTO);
    assert_int_equal(bns_raft_conf_decode(BNS_LIT("\x08"), &d), BNS_E_PROTO);
    assert_int_equal(bns_raft_conf_decode(BNS_LIT("\x08\x01\x20\x01"), &d), BNS_OK);
    bns_buf_clear(&b);
    for (int i = 0; i < 17; i++)
        assert_int_equal(bns_buf_add(&b, "\x08\x01", 2), BNS_OK);
    assert_int_equal(bns_raft_conf_decode(bns_buf_slice(&b), &d), BNS_E_PROTO);
    bns_buf_free(&b);
    bns_buf_init(&b, bns_alloc_libc(), 1);
    assert_int_equal(bns_raft_conf_encode(&c, &b), BNS_E_TOOBIG);
    bns_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_survives_the_round_trip),
        cmocka_unit_test(every_type_without_entries_is_one_slice),
        cmocka_unit_test(a_cut_at_every_byte_is_harmless),
        cmocka_unit_test(a_flip_of_every_bit_is_harmless),
        cmocka_unit_test(decoding_survives_oom),
        cmocka_unit_test(bad_shapes_are_refused_and_unknown_fields_skipped),
        cmocka_unit_test(more_entries_than_allowed_are_refused_before_memory_is_taken),
        cmocka_unit_test(encoding_reports_a_full_buffer),
        cmocka_unit_test(configurations_survive_the_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
