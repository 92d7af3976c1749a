/* fuzz_meta.c - any bytes as commands of the metadata and as its image: refused or applied, and
 * what was applied is written and read again the same. The first byte chooses: 0 records, 1 an
 * image, else a configuration value for a key of the table. */
#include "meta/config_table.h"
#include "meta/meta_int.h"

#include "../../common/tests/fuzz.h"

static void write_all(const struct kafka_image *m, struct bns_buf *b)
{
    struct kafka_image_cursor c = {.over = false};

    while (!c.over)
        BNS_ASSERT(kafka_image_write(m, &c, b->len + 64, b) == BNS_OK);
}

/* Written, read, written: the same bytes. */
static void again(struct kafka_image *m)
{
    struct kafka_image *copy;
    struct bns_buf a, b;
    struct bns_slice in;
    struct kafka_meta_record r;

    BNS_ASSERT(kafka_image_new(bns_alloc_libc(), &copy) == BNS_OK);
    bns_buf_init(&a, bns_alloc_libc(), 1 << 26);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 26);
    write_all(m, &a);
    for (in = bns_buf_slice(&a); in.len > 0;) {
        BNS_ASSERT(kafka_meta_record_next(&in, &r, NULL) == BNS_OK);
        BNS_ASSERT(kafka_image_apply(copy, &r, NULL) == BNS_OK);
    }
    write_all(copy, &b);
    BNS_ASSERT(bns_slice_eq(bns_buf_slice(&a), bns_buf_slice(&b)));
    BNS_ASSERT(kafka_image_topics(m) == kafka_image_topics(copy));
    BNS_ASSERT(kafka_image_partitions(m) == kafka_image_partitions(copy));
    bns_buf_free(&a);
    bns_buf_free(&b);
    kafka_image_free(copy);
}

static void records(struct bns_slice in)
{
    struct kafka_command_head head;
    struct kafka_image *m;
    struct kafka_meta_record r;
    struct bns_err err;

    if (kafka_command_head(&in, &head, &err) != BNS_OK)
        return;
    BNS_ASSERT(kafka_image_new(bns_alloc_libc(), &m) == BNS_OK);
    while (in.len > 0 && kafka_meta_record_next(&in, &r, &err) == BNS_OK) {
        int rv = kafka_image_apply(m, &r, &err);
        BNS_ASSERT(rv == BNS_OK || rv == BNS_E_CORRUPT);
    }
    again(m);
    kafka_image_free(m);
}

static void image(struct bns_slice in)
{
    struct bns_env env = {.alloc = bns_alloc_libc()};
    struct kafka_state state;
    struct kafka_image *m;
    struct bns_err err;

    if (kafka_image_bytes(&env, in, &m, &state, &err) != BNS_OK) {
        BNS_ASSERT(m == NULL);
        return;
    }
    again(m);
    kafka_image_free(m);
}

static void value(struct bns_slice in)
{
    struct bns_slice list, e = {NULL, 0};
    const struct kafka_config_key *k;
    struct bns_err err;
    int64_t v;

    if (in.len == 0)
        return;
    k = in.ptr[0] & 1 ? &kafka_topic_keys[in.ptr[0] / 2 % kafka_topic_keys_count]
                      : &kafka_broker_keys[in.ptr[0] / 2 % kafka_broker_keys_count];
    list = in = bns_slice_skip(in, 1);
    if (kafka_config_check(k, in, &err) == BNS_OK &&
        (k->type == KAFKA_CONFIG_INT || k->type == KAFKA_CONFIG_LONG))
        BNS_ASSERT(kafka_config_number(kafka_config_trim(in), &v) == BNS_OK);
    while (kafka_config_element(&list, &e))
        BNS_ASSERT(e.len <= in.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bns_slice in = bns_slice(data, size);

    if (size == 0)
        return 0;
    in = bns_slice_skip(in, 1);
    if (data[0] == 0)
        records(in);
    else if (data[0] == 1)
        image(in);
    else
        value(in);
    return 0;
}
