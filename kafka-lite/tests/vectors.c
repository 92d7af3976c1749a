/* vectors.c - random messages as bytes, for another implementation to read and write back.
 *
 *   kafka_vectors SEED ROUNDS      lines of `KEY request|response VERSION HEX` */
#include "message_random.h"
#include "messages.h"

#include <stdio.h>
#include <stdlib.h>

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
    for (size_t i = 0; i < b.count; i++) {
        for (size_t k = 0; k < b.slices[i].len; k++)
            printf("%02x", b.slices[i].ptr[k]);
    }
    putchar('\n');
    kafka_bytes_free(&b);
    bns_arena_free(&a);
}

int main(int argc, char **argv)
{
    struct bns_prng g;
    long rounds;

    if (argc != 3) {
        fprintf(stderr, "usage: kafka_vectors SEED ROUNDS\n");
        return 2;
    }
    bns_prng_seed(&g, strtoull(argv[1], NULL, 0));
    rounds = strtol(argv[2], NULL, 10);
    for (size_t i = 0; i < kafka_apis_count; i++) {
        for (int v = kafka_apis[i].first; v <= kafka_apis[i].last; v++) {
            for (long n = 0; n < rounds; n++) {
                line(&g, &kafka_apis[i], true, v);
                line(&g, &kafka_apis[i], false, v);
            }
        }
    }
    return 0;
}
