/* conn_kit.h - a server in an env in memory, clients that say bytes, handlers that answer when the
 * test says so.
 *
 * Served: ApiVersions as the broker does it; Heartbeat, whose requests are parked until
 * kit_answer(), with the group's name in their order; ListGroups, answered at once, with as many
 * groups as its first filter says in decimal digits.
 */
#ifndef KAFKA_TESTS_CONN_KIT_H
#define KAFKA_TESTS_CONN_KIT_H

#include <stdlib.h>

#include "base/varint.h"
#include "broker/handlers.h"
#include "broker/server.h"
#include "sim/heap.h"
#include "tests/fake_env.h"

#define KIT_PARKED 128

struct kit {
    struct fake_env f;
    struct bns_test_heap *heap;
    struct kafka_server *s;
    struct kafka_listener at;
    struct kafka_request *parked[KIT_PARKED]; /* NULL: answered */
    size_t parked_count, gone;
    char log[4096];
    struct bns_log logger;
};

struct kit_client {
    struct kit *k;
    struct bns_stream *s; /* NULL: closed */
    struct bns_buf got;
    struct bns_buf out; /* lent to the stream */
    int code;
    bool eof;
};

static struct kit *the_kit; /* handlers have no argument of their own */

static inline void kit_gone(struct kafka_request *q)
{
    (void)q;
    the_kit->gone++;
}

static inline void kit_heartbeat(struct kafka_request *q)
{
    BNS_ASSERT(the_kit->parked_count < KIT_PARKED);
    q->on_gone = kit_gone;
    the_kit->parked[the_kit->parked_count++] = q;
}

/* Answers the i-th request that was parked, with this error. */
static inline void kit_answer(struct kit *k, size_t i, int16_t error)
{
    struct kafka_request *q = k->parked[i];
    struct kafka_heartbeat_response *r = kafka_response_new(q);

    BNS_ASSERT(r != NULL);
    k->parked[i] = NULL;
    r->error_code = error;
    kafka_reply(q, r);
}

static inline void kit_list_groups(struct kafka_request *q)
{
    const struct kafka_list_groups_request *m = q->msg;
    struct kafka_list_groups_response *r = kafka_response_new(q);
    char digits[12] = "0";

    if (r != NULL && m->states_filter.count > 0 && m->states_filter.at[0].len < sizeof digits)
        memcpy(digits, m->states_filter.at[0].ptr, m->states_filter.at[0].len);
    if (r != NULL) {
        r->groups.count = (int32_t)(strtol(digits, NULL, 10) % 20000);
        if (r->groups.count < 0)
            r->groups.count = 0;
        r->groups.at = kafka_request_array(q, r->groups.count, sizeof *r->groups.at);
    }
    if (r == NULL || r->groups.at == NULL) {
        kafka_reply_close(q, "out of memory");
        return;
    }
    for (int32_t i = 0; i < r->groups.count; i++) {
        struct bns_slice some = BNS_LIT("a group with a name of some length");

        r->groups.at[i].group_id = some;
        r->groups.at[i].protocol_type = some;
        r->groups.at[i].group_state = some;
        r->groups.at[i].group_type = some;
    }
    kafka_reply(q, r);
}

static const struct kafka_entry kit_entries[] = {
    {KAFKA_KEY_HEARTBEAT, 0, 4, 0, kit_heartbeat},
    {KAFKA_KEY_LIST_GROUPS, 0, 5, 0, kit_list_groups},
    {KAFKA_KEY_API_VERSIONS, 0, 4, 0, kafka_handle_api_versions},
};

static inline void kit_log(void *arg, struct bns_slice line)
{
    struct kit *k = arg;
    size_t n = line.len < sizeof k->log - 1 ? line.len : sizeof k->log - 1;

    memcpy(k->log, line.ptr, n); /* the last one */
    k->log[n] = '\0';
}

static inline int64_t kit_wall(void *arg)
{
    (void)arg;
    return 0;
}

/* cfg may be NULL. */
static inline void kit_open(struct kit *k, const struct kafka_server_cfg *cfg)
{
    struct kafka_server_start start = {.entries = kit_entries,
                                       .entries_count = sizeof kit_entries / sizeof kit_entries[0]};

    memset(k, 0, sizeof *k);
    the_kit = k;
    k->heap = bns_test_heap(0);
    fake_init(&k->f, bns_alloc_libc()); /* of what is tested, the heap is */
    k->f.env.alloc = bns_test_heap_alloc(k->heap);
    k->logger = (struct bns_log){.write = kit_log, .arg = k, .wall_ms = kit_wall};
    k->f.env.log = &k->logger;
    start.env = &k->f.env;
    kafka_server_cfg_default(&start.cfg);
    if (cfg != NULL)
        start.cfg = *cfg;
    BNS_ASSERT(kafka_server_new(&start, &k->s) == BNS_OK);
    k->at = (struct kafka_listener){.name = "PLAINTEXT", .host = "127.0.0.1"};
    BNS_ASSERT(kafka_server_listen(k->s, &k->at, NULL) == BNS_OK);
}

static inline void kit_run(struct kit *k)
{
    fake_run(&k->f, k->f.now);
}

static inline void kit_close(struct kit *k)
{
    kafka_server_close(k->s);
    kit_run(k);
    for (size_t i = 0; i < k->parked_count; i++) {
        if (k->parked[i] != NULL)
            kit_answer(k, i, 0);
    }
    kafka_server_free(k->s);
    kit_run(k);
    fake_free(&k->f);
    BNS_ASSERT(bns_test_heap_close(k->heap, NULL) == 0);
}

/* ---- clients --------------------------------------------------------------------------------- */

static inline void client_data(void *arg, struct bns_slice in)
{
    BNS_ASSERT(bns_buf_add(&((struct kit_client *)arg)->got, in.ptr, in.len) == BNS_OK);
}
static inline void client_closed(void *arg, int code)
{
    ((struct kit_client *)arg)->s = NULL;
    ((struct kit_client *)arg)->code = code;
}
static const struct bns_stream_events client_events = {.on_data = client_data,
                                                       .on_close = client_closed};

static inline void client_open(struct kit *k, struct kit_client *c)
{
    *c = (struct kit_client){.k = k};
    bns_buf_init(&c->got, bns_alloc_libc(), SIZE_MAX / 2);
    bns_buf_init(&c->out, bns_alloc_libc(), SIZE_MAX / 2);
    BNS_ASSERT(bns_net_connect(&k->f.env, "127.0.0.1", k->at.port, &client_events, c, &c->s,
                               NULL) == BNS_OK);
    kit_run(k);
}

static inline void client_close(struct kit_client *c)
{
    if (c->s != NULL)
        bns_stream_reset(c->s);
    kit_run(c->k);
    bns_buf_free(&c->got);
    bns_buf_free(&c->out);
}

static inline void free_lent(void *arg, int code)
{
    (void)code;
    free(arg);
}

static inline void client_say(struct kit_client *c, const void *ptr, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    struct bns_slice v;

    BNS_ASSERT(copy != NULL);
    memcpy(copy, ptr, len);
    v = bns_slice(copy, len);
    if (c->s == NULL || bns_stream_write(c->s, &v, 1, free_lent, copy) != BNS_OK)
        free(copy);
}

/* A whole frame of this message, into c->out. */
static inline void client_put(struct kit_client *c, int key, int version, int32_t id,
                              const void *msg)
{
    const struct kafka_api *api = kafka_api(key);
    struct kafka_form form = kafka_form(api, version);
    struct kafka_bytes b;
    uint8_t head[14];
    size_t n = form.flexible ? 14 : 13;

    BNS_ASSERT(kafka_encode(api->request, &form, msg, 0, bns_alloc_libc(), &b) == BNS_OK);
    bns_put_u16be(head, (uint16_t)key);
    bns_put_u16be(head + 2, (uint16_t)version);
    bns_put_u32be(head + 4, (uint32_t)id);
    bns_put_u16be(head + 8, 3);
    memcpy(head + 10, "cat", 3);
    head[13] = 0;
    uint8_t size[4];
    bns_put_u32be(size, (uint32_t)(n + b.len));
    BNS_ASSERT(bns_buf_add(&c->out, size, 4) == BNS_OK);
    BNS_ASSERT(bns_buf_add(&c->out, head, n) == BNS_OK);
    for (size_t i = 0; i < b.count; i++)
        BNS_ASSERT(bns_buf_add(&c->out, b.slices[i].ptr, b.slices[i].len) == BNS_OK);
    kafka_bytes_free(&b);
}

static inline void client_flush(struct kit_client *c)
{
    client_say(c, c->out.ptr, c->out.len);
    bns_buf_clear(&c->out);
}

static inline void put_heartbeat(struct kit_client *c, int version, int32_t id)
{
    struct kafka_heartbeat_request m;

    kafka_preset(&kafka_heartbeat_request_schema, &m);
    m.group_id = BNS_LIT("g");
    m.member_id = BNS_LIT("m");
    client_put(c, KAFKA_KEY_HEARTBEAT, version, id, &m);
}

static inline void put_list_groups(struct kit_client *c, int32_t id, const char *count)
{
    struct bns_slice filter = bns_slice_str(count);
    struct kafka_list_groups_request m;

    kafka_preset(&kafka_list_groups_request_schema, &m);
    m.states_filter.at = &filter;
    m.states_filter.count = 1;
    client_put(c, KAFKA_KEY_LIST_GROUPS, 5, id, &m);
}

/* Takes one whole answer off what came; its correlation id, or -1 when there is none. */
static inline int32_t client_next(struct kit_client *c, struct bns_buf *body)
{
    uint32_t size;
    int32_t id;

    if (c->got.len < 8)
        return -1;
    size = bns_get_u32be(c->got.ptr);
    if (c->got.len < 4 + (size_t)size)
        return -1;
    id = (int32_t)bns_get_u32be(c->got.ptr + 4);
    if (body != NULL) {
        bns_buf_clear(body);
        BNS_ASSERT(bns_buf_add(body, c->got.ptr + 8, size - 4) == BNS_OK);
    }
    bns_buf_consume(&c->got, 4 + (size_t)size);
    return id;
}

#endif
