/* group_kit.h - a coordinator with a clock, a topic and answers that tests can look at.
 *
 * Writes wait in order until kit_write() says what became of them; what succeeded is the topic,
 * from which kit_crash() makes the coordinator anew. A token is the index of its answer.
 */
#ifndef KAFKA_TESTS_GROUP_KIT_H
#define KAFKA_TESTS_GROUP_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/heap.h"
#include "group/group.h"

#define KIT_ANSWERS 4096
#define KIT_RECORDS 4096

struct kit_answer {
    bool came;
    int16_t error;
    int32_t generation;
    char id[64], leader[64], protocol[32], type[32], assignment[64];
    bool skip;
    size_t members;
    char member_ids[8][64];
};

struct kit_record {
    struct bns_slice key, value;
};

struct kit {
    struct kafka_groups *g;
    struct kafka_groups_cfg cfg;
    const struct bns_alloc *alloc;
    uint64_t ms;
    uint32_t ids;
    struct bns_list writes;
    size_t writes_count, told;
    bool at_once; /* kit_* calls write what waits */
    struct kit_answer answers[KIT_ANSWERS];
    struct kit_record records[KIT_RECORDS];
    size_t records_count;
};

#define KIT_WALL INT64_C(1700000000000)

static inline void kit_text(char *dst, size_t room, struct bns_slice s)
{
    size_t n = s.len < room - 1 ? s.len : room - 1;
    if (n > 0)
        memcpy(dst, s.ptr, n);
    dst[n] = '\0';
}

static inline struct kit_answer *kit_answered(struct kit *k, void *token)
{
    struct kit_answer *a = &k->answers[(uintptr_t)token];
    assert_true((uintptr_t)token > 0 && (uintptr_t)token <= k->told);
    assert_false(a->came); /* a request is answered once */
    a->came = true;
    return a;
}

static inline void kit_joined(void *arg, void *token, const struct kafka_join_answer *j)
{
    struct kit_answer *a = kit_answered(arg, token);
    a->error = j->error;
    a->generation = j->generation;
    a->skip = j->skip_assignment;
    a->members = j->members_count;
    for (size_t i = 0; i < j->members_count && i < 8; i++)
        kit_text(a->member_ids[i], 64, j->members[i].id);
    kit_text(a->id, sizeof a->id, j->member_id);
    kit_text(a->leader, sizeof a->leader, j->leader);
    kit_text(a->protocol, sizeof a->protocol, j->protocol);
    kit_text(a->type, sizeof a->type, j->protocol_type);
}

static inline void kit_synced(void *arg, void *token, const struct kafka_sync_answer *s)
{
    struct kit_answer *a = kit_answered(arg, token);
    a->error = s->error;
    kit_text(a->protocol, sizeof a->protocol, s->protocol);
    kit_text(a->assignment, sizeof a->assignment, s->assignment);
}

static inline void kit_written(void *arg, void *token, int16_t error)
{
    kit_answered(arg, token)->error = error;
}

static inline void kit_persist(void *arg, struct kafka_group_write *w)
{
    struct kit *k = arg;
    bns_list_push(&k->writes, &w->node);
    k->writes_count++;
}

static inline void kit_uuid(void *arg, char dst[KAFKA_GROUP_UUID_TEXT])
{
    struct kit *k = arg;
    char text[KAFKA_GROUP_UUID_TEXT + 1];
    (void)snprintf(text, sizeof text, "%036u", ++k->ids);
    memcpy(dst, text, KAFKA_GROUP_UUID_TEXT);
}

static inline struct bns_slice kit_keep(struct bns_slice s)
{
    uint8_t *p;
    if (s.ptr == NULL)
        return s;
    p = malloc(s.len + 1);
    assert_non_null(p);
    memcpy(p, s.ptr, s.len);
    return bns_slice(p, s.len);
}

/* The oldest write is done. False: there is none. */
static inline bool kit_write(struct kit *k, int16_t error)
{
    struct bns_list *n = bns_list_pop(&k->writes);
    struct kafka_group_write *w;
    if (n == NULL)
        return false;
    w = BNS_CONTAINER(n, struct kafka_group_write, node);
    k->writes_count--;
    for (size_t i = 0; i < w->count && error == 0; i++) {
        assert_true(k->records_count < KIT_RECORDS);
        k->records[k->records_count++] =
            (struct kit_record){kit_keep(w->records[i].key), kit_keep(w->records[i].value)};
    }
    kafka_groups_persisted(k->g, w, error);
    return true;
}

static inline int kit_make(struct kit *k)
{
    struct kafka_group_ops ops = {.joined = kit_joined,
                                  .synced = kit_synced,
                                  .persist = kit_persist,
                                  .written = kit_written,
                                  .uuid = kit_uuid,
                                  .arg = k};
    int rv = kafka_groups_new(k->alloc, &k->cfg, &ops, &k->g);
    bns_list_init(&k->writes);
    k->writes_count = 0;
    if (rv == BNS_OK)
        kafka_groups_now(k->g, k->ms, KIT_WALL + (int64_t)k->ms);
    return rv;
}

static inline struct kit *kit_new(void)
{
    struct kit *k = calloc(1, sizeof *k);
    assert_non_null(k);
    kafka_groups_cfg_default(&k->cfg);
    k->cfg.initial_delay_ms = 0;
    k->alloc = bns_alloc_libc();
    k->at_once = true;
    k->ms = 1000;
    assert_int_equal(kit_make(k), BNS_OK);
    return k;
}

static inline void kit_free(struct kit *k)
{
    kafka_groups_free(k->g);
    for (size_t i = 0; i < k->records_count; i++) {
        free((void *)(uintptr_t)k->records[i].key.ptr);
        free((void *)(uintptr_t)k->records[i].value.ptr);
    }
    free(k);
}

static inline void kit_settle(struct kit *k)
{
    do {
        while (kafka_groups_deadline(k->g) <= k->ms)
            kafka_groups_tick(k->g);
    } while (k->at_once && kit_write(k, 0));
}

static inline void kit_wait(struct kit *k, uint64_t ms)
{
    uint64_t end = k->ms + ms;
    kit_settle(k);
    while (k->ms < end) {
        uint64_t next = kafka_groups_deadline(k->g);
        k->ms = next < end ? next : end;
        kafka_groups_now(k->g, k->ms, KIT_WALL + (int64_t)k->ms);
        kit_settle(k);
    }
}

/* What is not durable is lost, and so is everybody who waited. */
static inline void kit_crash(struct kit *k)
{
    kafka_groups_free(k->g);
    assert_int_equal(kit_make(k), BNS_OK);
    for (size_t i = 0; i < k->records_count; i++)
        assert_int_equal(kafka_groups_replay(k->g, k->records[i].key, k->records[i].value), BNS_OK);
    kafka_groups_loaded(k->g);
}

static inline void *kit_token(struct kit *k)
{
    assert_true(k->told + 1 < KIT_ANSWERS);
    return (void *)(uintptr_t)++k->told;
}

struct kit_join {
    const char *id, *instance, *protocols; /* "range,sticky" */
    int version;                           /* 0: 5 */
    int session_ms, rebalance_ms;          /* 0: 10000, 60000 */
    const char *metadata;                  /* NULL: "m" */
    const char *type;                      /* NULL: "consumer" */
};

static inline struct kit_answer *kit_join(struct kit *k, struct kit_join in)
{
    struct kafka_group_protocol p[8];
    char text[128];
    size_t count = 0;
    int version = in.version == 0 ? 5 : in.version;
    struct kafka_join j = {
        .group = BNS_LIT("g"),
        .member_id = bns_slice_str(in.id),
        .client_id = BNS_LIT("c"),
        .client_host = BNS_LIT("/127.0.0.1"),
        .protocol_type = bns_slice_str(in.type == NULL ? "consumer" : in.type),
        .session_ms = in.session_ms == 0 ? 10000 : in.session_ms,
        .rebalance_ms = in.rebalance_ms == 0 ? 60000 : in.rebalance_ms,
        .protocols = p,
        .id_required = version >= 4,
        .can_skip = version >= 9,
    };
    void *token = kit_token(k);
    if (in.instance != NULL)
        j.instance = bns_slice_str(in.instance);
    (void)snprintf(text, sizeof text, "%s", in.protocols == NULL ? "range" : in.protocols);
    for (char *rest = NULL, *s = strtok_r(text, ",", &rest); s != NULL;
         s = strtok_r(NULL, ",", &rest))
        p[count++] = (struct kafka_group_protocol){
            bns_slice_str(s), bns_slice_str(in.metadata == NULL ? "m" : in.metadata)};
    j.protocols_count = count;
    kafka_groups_join(k->g, &j, token);
    kit_settle(k);
    return &k->answers[k->told];
}

/* A dynamic member with an id of its own; its join is parked or answered. */
static inline struct kit_answer *kit_enter(struct kit *k)
{
    return kit_join(k, (struct kit_join){.id = "", .version = 3});
}

/* "member=assignment" each, by the leader; none for a follower. */
static inline struct kit_answer *kit_sync(struct kit *k, const char *id, int32_t generation,
                                          const char *a, const char *b)
{
    struct kafka_assignment as[2];
    struct kafka_sync s = {.group = BNS_LIT("g"),
                           .member_id = bns_slice_str(id),
                           .generation = generation,
                           .assignments = as};
    const char *each[2] = {a, b};
    void *token = kit_token(k);
    for (size_t i = 0; i < 2; i++)
        if (each[i] != NULL) {
            const char *eq = strchr(each[i], '=');
            as[s.assignments_count++] = (struct kafka_assignment){
                bns_slice(each[i], (size_t)(eq - each[i])), bns_slice_str(eq + 1)};
        }
    kafka_groups_sync(k->g, &s, token);
    kit_settle(k);
    return &k->answers[k->told];
}

static inline int16_t kit_beat(struct kit *k, const char *id, int32_t generation)
{
    struct kafka_group_who w = {BNS_LIT("g"), bns_slice_str(id), {NULL, 0}, generation};
    int16_t e = kafka_groups_heartbeat(k->g, &w);
    kit_settle(k);
    return e;
}

static inline int16_t kit_leave(struct kit *k, const char *id)
{
    struct kafka_leaver l = {bns_slice_str(id), {NULL, 0}, 0};
    int16_t e = kafka_groups_leave(k->g, BNS_LIT("g"), &l, 1);
    kit_settle(k);
    return e != 0 ? e : l.error;
}

static inline struct kit_answer *kit_commit(struct kit *k, const char *id, int32_t generation,
                                            int64_t offset, int16_t *error)
{
    struct kafka_commit_part p = {
        .topic = BNS_LIT("t"), .partition = 0, .offset = {.offset = offset, .leader_epoch = -1}};
    struct kafka_commit c = {.who = {BNS_LIT("g"), bns_slice_str(id), {NULL, 0}, generation},
                             .retention_ms = -1,
                             .parts = &p,
                             .parts_count = 1};
    void *token = kit_token(k);
    *error = kafka_groups_commit(k->g, &c, token);
    kit_settle(k);
    return &k->answers[k->told];
}

static inline int64_t kit_offset(const struct kit *k)
{
    const struct kafka_offset *o = kafka_groups_offset(k->g, BNS_LIT("g"), BNS_LIT("t"), 0);
    return o == NULL ? -1 : o->offset;
}

static inline struct kafka_group_view kit_view(const struct kit *k)
{
    struct kafka_group_view v = {.state = KAFKA_GROUP_DEAD};
    (void)kafka_groups_describe(k->g, BNS_LIT("g"), &v, NULL, NULL);
    return v;
}

#endif
