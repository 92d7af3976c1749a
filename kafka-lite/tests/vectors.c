/* vectors.c - random messages as bytes, for another implementation to read and write back.
 *
 *   kafka_vectors messages SEED ROUNDS     lines of `KEY request|response VERSION HEX`
 *   kafka_vectors batches SEED COUNT       lines of `batch HEX` */
#include "batch_random.h"
#include "message_random.h"
#include "messages.h"

#include <stdio.h>
#include <stdlib.h>

static void put_hex(struct bns_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", s.ptr[i]);
}

static void batch(struct bns_prng *g)
{
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    random_batch(g, &b);
    printf("batch ");
    put_hex(bns_buf_slice(&b));
    putchar('\n');
    bns_buf_free(&b);
}

static void line(struct bns_prng *g, const struct kafka_api *api, bool request, int version)
{
    const struct kafka_struct *s = request ? api->request : api->response;
    struct kafka_form form = kafka_form(api, version);
    struct kafka_bytes b;
    struct bns_arena a;
    void *msg;

    bns_arena_init(&a, bns_alloc_libc(), 64u << 20);
    msg = random_message(g, &a, s, version);
    if (kafka_encode(s, &form, msg, 0, bns_alloc_libc(), &b) != BNS_OK)
        abort();
    printf("%d %s %d ", api->key, request ? "request" : "response", version);
    for (size_t i = 0; i < b.count; i++)
        put_hex(b.slices[i]);
    putchar('\n');
    kafka_bytes_free(&b);
    bns_arena_free(&a);
}

static void messages(struct bns_prng *g, long rounds)
{
    for (size_t i = 0; i < kafka_apis_count; i++) {
        for (int v = kafka_apis[i].first; v <= kafka_apis[i].last; v++) {
            for (long n = 0; n < rounds; n++) {
                line(g, &kafka_apis[i], true, v);
                line(g, &kafka_apis[i], false, v);
            }
        }
    }
}

int main(int argc, char **argv)
{
    bool of_messages = argc == 4 && strcmp(argv[1], "messages") == 0;
    struct bns_prng g;
    long rounds;

    if (argc != 4 || (!of_messages && strcmp(argv[1], "batches") != 0)) {
        fprintf(stderr, "usage: kafka_vectors messages|batches SEED COUNT\n");
        return 2;
    }
    bns_prng_seed(&g, strtoull(argv[2], NULL, 0));
    rounds = strtol(argv[3], NULL, 10);
    if (of_messages)
        messages(&g, rounds);
    for (long n = 0; !of_messages && n < rounds; n++)
        batch(&g);
    return 0;
}
