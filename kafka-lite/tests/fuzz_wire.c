/* fuzz_wire.c - any bytes as any message in any version: refused, or decoded to what encodes and
 * decodes to the same bytes again. */
#include "messages.h"
#include "wire/wire.h"

#include "../../common/tests/fuzz.h"

static void check(const struct kafka_struct *s, const struct kafka_form *form, struct bns_slice in,
                  struct bns_arena *a)
{
    struct kafka_bytes one, two;
    struct bns_buf flat, line;
    struct bns_slice again, left;
    void *msg = NULL;

    if (kafka_decode(s, form, &in, a, &msg, NULL) != BNS_OK)
        return;
    BNS_ASSERT(kafka_encode(s, form, msg, 0, bns_alloc_libc(), &one) == BNS_OK);
    bns_buf_init(&flat, bns_alloc_libc(), 64u << 20);
    bns_buf_init(&line, bns_alloc_libc(), 64u << 20);
    for (size_t i = 0; i < one.count; i++)
        BNS_ASSERT(bns_buf_add(&flat, one.slices[i].ptr, one.slices[i].len) == BNS_OK);
    again = bns_buf_slice(&flat);
    BNS_ASSERT(kafka_decode(s, form, &again, a, &msg, NULL) == BNS_OK && again.len == 0);
    BNS_ASSERT(kafka_encode(s, form, msg, 0, bns_alloc_libc(), &two) == BNS_OK);
    BNS_ASSERT(one.len == two.len);
    left = bns_buf_slice(&flat);
    for (size_t i = 0; i < two.count; i++) {
        BNS_ASSERT(left.len >= two.slices[i].len &&
                   bns_slice_eq(bns_slice(left.ptr, two.slices[i].len), two.slices[i]));
        left = bns_slice_skip(left, two.slices[i].len);
    }
    BNS_ASSERT(kafka_print(s, form->version, msg, 20, &line) == BNS_OK);
    kafka_bytes_free(&one);
    kafka_bytes_free(&two);
    bns_buf_free(&flat);
    bns_buf_free(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct kafka_api *api;
    struct kafka_form form;
    struct bns_arena a;

    if (size < 2)
        return 0;
    api = &kafka_apis[data[0] % kafka_apis_count];
    form = kafka_form(api, api->first + (data[1] >> 1) % (api->last - api->first + 1));
    bns_arena_init(&a, bns_alloc_libc(), 64u << 20);
    check((data[1] & 1) != 0 ? api->request : api->response, &form, bns_slice(data + 2, size - 2),
          &a);
    bns_arena_free(&a);
    return 0;
}
