/* group_vectors.c - random records of __consumer_offsets for Kafka's own classes, theirs for us.
 *
 *   kafka_group_vectors write SEED COUNT    prints "KEY VALUE" in hex, one record a line
 *   kafka_group_vectors read                reads "KEY VALUE TEXT", decodes, compares with TEXT
 *
 * TEXT: offset,epoch,metadata,commit,expire or type,generation,protocol,leader,state and of each
 * member id,instance,client,host,rebalance,session,subscription,assignment; a comma behind each.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/prng.h"
#include "group/record.h"

static void hex(const struct bns_buf *b)
{
    for (size_t i = 0; i < b->len; i++)
        (void)printf("%02x", b->ptr[i]);
}

static struct bns_slice text(struct bns_prng *p, char *room, bool maybe_null)
{
    static const char *const pieces[] = {
        "a", "Z9", "\xc3\xa9", "\xe2\x82\xac", "-", "\xf0\x9f\x98\x80"};
    size_t n = bns_prng_below(p, 12);

    if (maybe_null && bns_prng_chance(p, 0.3))
        return bns_slice(NULL, 0);
    room[0] = '\0';
    while (n-- > 0)
        (void)snprintf(room + strlen(room), 64 - strlen(room), "%s", pieces[bns_prng_below(p, 6)]);
    return bns_slice_str(room);
}

static int offset(struct bns_prng *p, struct bns_buf *key, struct bns_buf *value)
{
    char room[3][64];
    struct kafka_group_key k = {.kind = KAFKA_GROUP_OFFSET,
                                .group = text(p, room[0], false),
                                .topic = text(p, room[1], false),
                                .partition = (int32_t)bns_prng_below(p, 1000)};
    struct kafka_offset o = {.offset = (int64_t)(bns_prng_next(p) >> 1),
                             .leader_epoch = (int32_t)bns_prng_below(p, 9) - 1,
                             .metadata = text(p, room[2], false),
                             .commit_ms = (int64_t)bns_prng_below(p, INT64_MAX),
                             .expire_ms = bns_prng_chance(p, 0.3) ? 77 : -1};
    int rv = kafka_group_key_put(key, &k);

    if (bns_prng_chance(p, 0.5))
        for (size_t i = 0; i < 16; i++)
            o.topic_id[i] = (uint8_t)bns_prng_next(p);
    return rv != BNS_OK ? rv : kafka_offset_put(value, &o);
}

static int meta(struct bns_prng *p, struct bns_buf *key, struct bns_buf *value)
{
    char room[8][64];
    struct kafka_group_key k = {.kind = KAFKA_GROUP_META, .group = text(p, room[0], false)};
    struct kafka_group_meta m = {.protocol_type = text(p, room[1], false),
                                 .generation = (int32_t)bns_prng_below(p, INT32_MAX),
                                 .protocol = text(p, room[2], true),
                                 .leader = text(p, room[3], true),
                                 .state_ms = (int64_t)bns_prng_below(p, INT64_MAX) - 1,
                                 .members_count = (uint32_t)bns_prng_below(p, 4)};
    int rv = kafka_group_key_put(key, &k);

    if (rv == BNS_OK)
        rv = kafka_group_meta_put(value, &m);
    for (uint32_t i = 0; i < m.members_count && rv == BNS_OK; i++) {
        struct kafka_group_meta_member mm = {.id = text(p, room[0], false),
                                             .instance = text(p, room[1], true),
                                             .client_id = text(p, room[2], false),
                                             .client_host = text(p, room[3], false),
                                             .subscription = text(p, room[4], false),
                                             .assignment = text(p, room[5], false),
                                             .rebalance_ms = (int32_t)bns_prng_below(p, 99999),
                                             .session_ms = (int32_t)bns_prng_below(p, 99999)};
        rv = kafka_group_member_put(value, &mm);
    }
    return rv;
}

static int write_all(uint64_t seed, long count)
{
    struct bns_prng p;
    struct bns_buf key, value;
    int rv = BNS_OK;

    bns_prng_seed(&p, seed);
    bns_buf_init(&key, bns_alloc_libc(), 1 << 20);
    bns_buf_init(&value, bns_alloc_libc(), 1 << 20);
    for (long i = 0; i < count && rv == BNS_OK; i++) {
        bns_buf_clear(&key);
        bns_buf_clear(&value);
        rv = i % 2 == 0 ? offset(&p, &key, &value) : meta(&p, &key, &value);
        hex(&key);
        (void)putchar(' ');
        hex(&value);
        (void)putchar('\n');
    }
    bns_buf_free(&key);
    bns_buf_free(&value);
    return rv == BNS_OK ? 0 : 1;
}

static size_t unhex(const char *s, uint8_t *dst, size_t room)
{
    size_t n = 0;
    unsigned byte;

    for (; n < room && s[2 * n] != ' ' && sscanf(s + 2 * n, "%2x", &byte) == 1; n++)
        dst[n] = (uint8_t)byte;
    return n;
}

static int add(struct bns_buf *b, struct bns_slice s)
{
    int rv = s.ptr == NULL ? bns_buf_str(b, "null") : BNS_OK;

    if (rv == BNS_OK && s.len > 0)
        rv = bns_buf_add(b, s.ptr, s.len);
    return rv == BNS_OK ? bns_buf_byte(b, ',') : rv;
}

static int tell_meta(struct bns_slice in, struct bns_buf *b)
{
    struct kafka_group_meta m;
    struct kafka_group_meta_member mm;
    int rv = kafka_group_meta_get(in, &m);

    if (rv == BNS_OK)
        rv = add(b, m.protocol_type);
    if (rv == BNS_OK)
        rv = bns_buf_fmt(b, "%" PRId32 ",", m.generation);
    if (rv == BNS_OK)
        rv = add(b, m.protocol);
    if (rv == BNS_OK)
        rv = add(b, m.leader);
    if (rv == BNS_OK)
        rv = bns_buf_fmt(b, "%" PRId64 ",", m.state_ms);
    for (uint32_t i = 0; i < m.members_count && rv == BNS_OK; i++) {
        rv = kafka_group_member_next(&m, &mm);
        struct bns_slice each[] = {mm.id, mm.instance, mm.client_id, mm.client_host};
        for (size_t k = 0; k < 4 && rv == BNS_OK; k++)
            rv = add(b, each[k]);
        if (rv == BNS_OK)
            rv = bns_buf_fmt(b, "%" PRId32 ",%" PRId32 ",", mm.rebalance_ms, mm.session_ms);
        if (rv == BNS_OK)
            rv = add(b, mm.subscription);
        if (rv == BNS_OK)
            rv = add(b, mm.assignment);
    }
    return rv;
}

static int tell_offset(struct bns_slice in, struct bns_buf *b)
{
    struct kafka_offset o;
    int rv = kafka_offset_get(in, &o);

    if (rv == BNS_OK)
        rv = bns_buf_fmt(b, "%" PRId64 ",%" PRId32 ",", o.offset, o.leader_epoch);
    if (rv == BNS_OK)
        rv = add(b, o.metadata);
    return rv == BNS_OK ? bns_buf_fmt(b, "%" PRId64 ",%" PRId64 ",", o.commit_ms, o.expire_ms) : rv;
}

static int read_all(void)
{
    static char line[1 << 16];
    static uint8_t raw[2][1 << 14];
    int differ = 0, lines = 0;
    struct bns_buf b;

    bns_buf_init(&b, bns_alloc_libc(), 1 << 20);
    for (; fgets(line, sizeof line, stdin) != NULL; lines++) {
        char *value = strchr(line, ' ') + 1, *said = strchr(value, ' ') + 1;
        struct bns_slice k = bns_slice(raw[0], unhex(line, raw[0], sizeof raw[0]));
        struct bns_slice v = bns_slice(raw[1], unhex(value, raw[1], sizeof raw[1]));
        struct kafka_group_key key;
        int rv = kafka_group_key_get(k, &key);
        said[strcspn(said, "\n")] = '\0';
        bns_buf_clear(&b);
        if (rv == BNS_OK)
            rv = key.kind == KAFKA_GROUP_META ? tell_meta(v, &b) : tell_offset(v, &b);
        if (rv != BNS_OK || !bns_slice_eq(bns_buf_slice(&b), bns_slice_str(said))) {
            (void)printf("%d: %.*s, Kafka says %s\n", rv, (int)b.len, (const char *)b.ptr, said);
            differ++;
        }
    }
    bns_buf_free(&b);
    (void)printf("%d records, %d differ\n", lines, differ);
    return lines == 0 || differ > 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "write") == 0)
        return write_all(strtoull(argv[2], NULL, 0), strtol(argv[3], NULL, 10));
    if (argc == 2 && strcmp(argv[1], "read") == 0)
        return read_all();
    (void)fprintf(stderr, "usage: kafka_group_vectors write SEED COUNT | read\n");
    return 2;
}
