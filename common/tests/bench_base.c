/* bench_base.c - what the small things cost: checksums, hashes, maps, varints, parsers.
 *
 *   bench_base        one line each: median of five rounds, in ns of CPU time or GB/s
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/crc32c.h"
#include "base/heap.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/skiplist.h"
#include "base/varint.h"
#include "codec/grpc_msg.h"
#include "codec/http1.h"
#include "codec/pb.h"
#include "codec/pb_json.h"
#include "pb_test.pb-c.h"

#define ROUNDS 5
#define KEYS 100000u

static uint64_t sink; /* what was computed, so that it is computed */

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* cannot fail */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Seconds of one call, the median of ROUNDS. */
static double median(void (*fn)(void))
{
    double s[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        double from = now();
        fn();
        s[i] = now() - from;
    }
    qsort(s, ROUNDS, sizeof s[0], by_value);
    return s[ROUNDS / 2];
}

static uint8_t bytes[1 << 20];

static void crc_large(void)
{
    for (int i = 0; i < 100; i++)
        sink += bns_crc32c(0, bytes, sizeof bytes);
}

static void hash_large(void)
{
    for (int i = 0; i < 100; i++)
        sink += bns_hash(1, bytes, sizeof bytes);
}

static void crc_small(void)
{
    for (size_t i = 0; i < 1000000; i++)
        sink += bns_crc32c(0, bytes + (i & 1023), 40);
}

static void hash_small(void)
{
    for (size_t i = 0; i < 1000000; i++)
        sink += bns_hash(1, bytes + (i & 1023), 16);
}

static void varints(void)
{
    uint8_t dst[BNS_VARINT_MAX];

    for (uint64_t i = 0; i < 1000000; i++) {
        size_t n = bns_varint_put(dst, i * i);
        struct bns_slice s = bns_slice(dst, n);
        uint64_t v = 0;
        if (bns_varint_get(&s, &v) == BNS_OK)
            sink += v;
    }
}

static struct bns_hnode hnodes[KEYS];

static void map_insert_find_delete(void)
{
    struct bns_hmap m;

    bns_hmap_init(&m, bns_alloc_libc());
    for (uint64_t i = 0; i < KEYS; i++) {
        if (bns_hmap_insert(&m, &hnodes[i], bns_hash_u64(1, i)) != BNS_OK)
            exit(1);
    }
    for (uint64_t i = 0; i < KEYS; i++)
        sink += bns_hmap_find(&m, bns_hash_u64(1, i)) == &hnodes[i];
    for (uint64_t i = 0; i < KEYS; i++)
        bns_hmap_del(&m, &hnodes[i]);
    bns_hmap_free(&m);
}

static struct bns_heap_node timers[KEYS];

static void heap_insert_delete(void)
{
    struct bns_prng p;
    struct bns_heap h;

    bns_prng_seed(&p, 1);
    bns_heap_init(&h, bns_alloc_libc());
    for (size_t i = 0; i < KEYS; i++) {
        if (bns_heap_insert(&h, &timers[i], bns_prng_next(&p)) != BNS_OK)
            exit(1);
    }
    while (h.count > 0)
        bns_heap_del(&h, bns_heap_min(&h));
    bns_heap_free(&h);
}

struct item {
    uint8_t key[16];
    struct bns_skip_node skip;
};

static void skiplist_insert_find_delete(void)
{
    struct bns_skiplist s;
    struct bns_prng p;
    uint8_t key[16] = {0};

    bns_skip_init(&s, 1);
    for (int pass = 0; pass < 3; pass++) {
        bns_prng_seed(&p, 1);
        for (size_t i = 0; i < KEYS; i++) {
            struct bns_skip_node *n;
            bns_put_u64be(key + 8, bns_prng_next(&p));
            if (pass == 0) {
                uint8_t levels = bns_skip_draw_levels(&s);
                struct item *it = malloc(bns_skip_node_bytes(offsetof(struct item, skip), levels));
                if (it == NULL)
                    exit(1);
                memcpy(it->key, key, sizeof key);
                it->skip.key = it->key;
                it->skip.key_len = sizeof key;
                it->skip.levels = levels;
                sink += bns_skip_insert(&s, &it->skip) == BNS_OK;
            } else if (pass == 1) {
                sink += bns_skip_find(&s, bns_slice(key, sizeof key)) != NULL;
            } else {
                n = bns_skip_del(&s, bns_slice(key, sizeof key));
                if (n != NULL)
                    free(BNS_CONTAINER(n, struct item, skip));
            }
        }
    }
}

static void http1_heads(void)
{
    static const char text[] = "POST /v3/kv/put HTTP/1.1\r\nHost: localhost:2379\r\n"
                               "User-Agent: curl/7.88.1\r\nAccept: */*\r\n"
                               "Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello";
    struct bns_http1_event ev;
    struct bns_http1 p;

    bns_http1_init(&p, BNS_HTTP1_REQUEST, bns_alloc_libc(), NULL);
    for (int i = 0; i < 100000; i++) {
        struct bns_slice in = BNS_LIT(text);
        while (bns_http1_next(&p, &in, &ev) == BNS_OK)
            sink += ev.kind;
    }
    bns_http1_free(&p);
}

static void grpc_messages(void)
{
    struct bns_grpc_split s;
    struct bns_grpc_msg m;

    bns_put_u32be(bytes + 1, 100);
    bytes[0] = 0;
    bns_grpc_split_init(&s, bns_alloc_libc(), 1000);
    for (int i = 0; i < 1000000; i++) {
        struct bns_slice in = bns_slice(bytes, 105);
        while (bns_grpc_split_next(&s, &in, &m) == BNS_OK)
            sink += m.bytes.len;
    }
    bns_grpc_split_free(&s);
}

static struct bns_slice packed;

static void pb_guards(void)
{
    for (int i = 0; i < 100000; i++)
        sink += bns_pb_guard(&bns__test__all__descriptor, packed, NULL, NULL) == BNS_OK;
}

static void pb_unpacks(void)
{
    struct bns_arena a;

    bns_arena_init(&a, bns_alloc_libc(), 1 << 20);
    for (int i = 0; i < 100000; i++) {
        uint8_t first[4096];
        ProtobufCMessage *msg;
        bns_arena_lend(&a, first, sizeof first);
        if (bns_pb_unpack(&bns__test__all__descriptor, packed, &a, NULL, &msg, NULL) != BNS_OK)
            exit(1);
        bns_arena_free(&a);
    }
}

static void pb_jsons(void)
{
    struct bns_arena a;
    struct bns_buf b;
    ProtobufCMessage *msg;

    bns_arena_init(&a, bns_alloc_libc(), 1 << 20);
    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    if (bns_pb_unpack(&bns__test__all__descriptor, packed, &a, NULL, &msg, NULL) != BNS_OK)
        exit(1);
    for (int i = 0; i < 100000; i++) {
        bns_buf_clear(&b);
        sink += bns_pb_to_json(msg, &b) == BNS_OK;
    }
    bns_buf_free(&b);
    bns_arena_free(&a);
}

/* About a Put: two byte strings and a few numbers, and a nested message. */
static void make_message(struct bns_buf *b)
{
    struct bns_slice value = bns_slice(bytes, 128);
    int rv = BNS_OK;

    rv |= bns_pb_put_i64(b, 4, 123456789);
    rv |= bns_pb_put_bytes(b, 15, BNS_LIT("a/key/of/usual/length"));
    rv |= bns_pb_put_bytes(b, 16, value);
    rv |= bns_pb_put_bytes(b, 17, BNS_LIT("\x0a\x05inner\x10\x05"));
    if (rv != BNS_OK)
        exit(1);
    packed = bns_buf_slice(b);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*fn)(void);
        double ops;
        double bytes; /* > 0: print GB/s */
    } t[] = {
        {"crc32c 1 MiB", crc_large, 100, 1 << 20},
        {"hash 1 MiB", hash_large, 100, 1 << 20},
        {"crc32c 40 B", crc_small, 1e6, 0},
        {"hash 16 B", hash_small, 1e6, 0},
        {"varint put + get", varints, 1e6, 0},
        {"hmap insert + find + delete, 100 k", map_insert_find_delete, KEYS, 0},
        {"heap insert + delete, 100 k", heap_insert_delete, KEYS, 0},
        {"skiplist insert + find + delete, 100 k", skiplist_insert_find_delete, KEYS, 0},
        {"http1 request with 5 headers", http1_heads, 1e5, 0},
        {"grpc message split", grpc_messages, 1e6, 0},
        {"pb guard, 170 B", pb_guards, 1e5, 0},
        {"pb guard + unpack, 170 B", pb_unpacks, 1e5, 0},
        {"pb to JSON, 170 B", pb_jsons, 1e5, 0},
    };
    struct bns_buf b;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31);
    bns_buf_init(&b, bns_alloc_libc(), 4096);
    make_message(&b);
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        double s = median(t[i].fn) / t[i].ops;
        if (t[i].bytes > 0)
            printf("%-42s %10.2f GB/s\n", t[i].name, t[i].bytes / s * 1e-9);
        else
            printf("%-42s %10.1f ns\n", t[i].name, s * 1e9);
    }
    printf("(%llu)\n", (unsigned long long)sink);
    bns_buf_free(&b);
    return 0;
}
