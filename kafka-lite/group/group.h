/* group.h - the coordinator of classic consumer groups, and their committed offsets.
 *
 *            first join           all joined, or          leader's assignment
 *            (a delay)            rebalance timeout       is durable
 *   Empty ──────────────> Preparing ───────> Completing ───────> Stable
 *     ^                       ^  ^                │                │   a member joins, leaves,
 *     │   nobody joined       │  └────────────────┴────────────────┘   changes or is silent
 *     └───────────────────────┘
 *
 * Members send what they support, the coordinator chooses the protocol and the leader, the leader
 * computes who gets what: to the coordinator it is bytes. Every round has a generation, and an
 * answer, a heartbeat or a commit counts only in its own. State that others may rely on is written
 * as records of __consumer_offsets first (record.h): an assignment before anybody gets it, an
 * offset before it is told or answered. What is replayed after a crash is then at most one round
 * behind.
 *
 * Behaviour, error codes and their order are those of Apache Kafka 4.3.1; KIP-345 (static members),
 * KIP-394 (member ids), KIP-134 (initial delay), KIP-389 (maximum size), KIP-211 (expiry of
 * offsets), KIP-814 (skipAssignment). What differs: a group is not written before its first
 * assignment, and a request that is sent again while its first is parked ends the first with
 * REBALANCE_IN_PROGRESS.
 *
 * Sans-IO: no clock, no socket, no file. Tell the time by kafka_groups_now(), then call; call
 * kafka_groups_tick() at kafka_groups_deadline(). A join or a sync is parked under a token of the
 * caller's and answered once by `joined` or `synced`, maybe within the call. What is to be written
 * goes out by `persist` and comes back by kafka_groups_persisted(): of one group in order, and
 * never within `persist`. No operation of `ops` may call back into the coordinator.
 *
 * Thread:  one. Memory: slices given in are copied; slices given out are good until the call or the
 * callback returns. Errors: numbers of Kafka's protocol; 15 (COORDINATOR_NOT_AVAILABLE), which
 * clients repeat, also when memory or a bound is at its end. BNS_ codes where named.
 */
#ifndef KAFKA_GROUP_GROUP_H
#define KAFKA_GROUP_GROUP_H

#include "base/alloc.h"
#include "base/list.h"
#include "group/record.h"

enum kafka_group_error {
    KAFKA_GROUP_OK = 0,
    KAFKA_GROUP_E_MESSAGE_TOO_LARGE = 10,
    KAFKA_GROUP_E_METADATA_TOO_LARGE = 12,
    KAFKA_GROUP_E_NOT_AVAILABLE = 15,
    KAFKA_GROUP_E_GENERATION = 22,
    KAFKA_GROUP_E_PROTOCOL = 23,
    KAFKA_GROUP_E_GROUP_ID = 24,
    KAFKA_GROUP_E_UNKNOWN_MEMBER = 25,
    KAFKA_GROUP_E_SESSION_TIMEOUT = 26,
    KAFKA_GROUP_E_REBALANCE = 27,
    KAFKA_GROUP_E_NOT_EMPTY = 68,
    KAFKA_GROUP_E_NOT_FOUND = 69,
    KAFKA_GROUP_E_ID_REQUIRED = 79,
    KAFKA_GROUP_E_FULL = 81,
    KAFKA_GROUP_E_FENCED = 82,
    KAFKA_GROUP_E_SUBSCRIBED = 86,
};

#define KAFKA_GROUP_PROTOCOLS_MAX 128u /* of one member */
#define KAFKA_GROUP_UUID_TEXT 36

struct kafka_groups;

struct kafka_group_protocol {
    struct bns_slice name, metadata;
};

struct kafka_join_member {
    struct bns_slice id, instance, metadata; /* instance.ptr NULL: dynamic */
};

struct kafka_join_answer {
    int16_t error;
    int32_t generation;                       /* -1 when there is none */
    struct bns_slice protocol_type, protocol; /* ptr NULL: null */
    struct bns_slice leader, member_id;
    bool skip_assignment;
    const struct kafka_join_member *members; /* for the leader */
    size_t members_count;
};

struct kafka_sync_answer {
    int16_t error;
    struct bns_slice protocol_type, protocol; /* ptr NULL: null */
    struct bns_slice assignment;
};

struct kafka_group_record {
    struct bns_slice key, value; /* value.ptr NULL: a tombstone */
};

/* Records that have to become durable together. They stay where they are until
 * kafka_groups_persisted() is called; `node` and `user` are the caller's. */
struct kafka_group_write {
    struct bns_slice group; /* its name chooses the partition */
    const struct kafka_group_record *records;
    size_t count;
    size_t bytes;
    struct bns_list node;
    void *user;
};

struct kafka_group_ops {
    void (*joined)(void *arg, void *token, const struct kafka_join_answer *a);
    void (*synced)(void *arg, void *token, const struct kafka_sync_answer *a);
    void (*persist)(void *arg, struct kafka_group_write *w);
    /* A commit, or a deletion of offsets or of a group, was written (0) or not. */
    void (*written)(void *arg, void *token, int16_t error);
    /* A random UUID as text, for a member's id. */
    void (*uuid)(void *arg, char dst[KAFKA_GROUP_UUID_TEXT]);
    void *arg;
};

struct kafka_groups_cfg {         /* names: the broker's properties */
    int32_t session_min_ms;       /* group.min.session.timeout.ms, 6000 */
    int32_t session_max_ms;       /* group.max.session.timeout.ms, 1800000 */
    int32_t initial_delay_ms;     /* group.initial.rebalance.delay.ms, 3000 */
    int32_t join_ms;              /* a new member's session until it is in, 300000 */
    uint32_t size_max;            /* group.max.size, INT32_MAX */
    uint32_t metadata_max;        /* offset.metadata.max.bytes, 4096 (UTF-16 units) */
    int64_t offsets_retention_ms; /* offsets.retention.minutes, 7 days */
    uint32_t groups_max, members_max, offsets_max; /* of the whole coordinator */
    uint64_t hash_seed;
    uint32_t mutant; /* a planted bug; read only in _mut builds */
};
void kafka_groups_cfg_default(struct kafka_groups_cfg *cfg);

/* BNS_E_NOMEM. Everything is copied. */
BNS_MUST_CHECK int kafka_groups_new(const struct bns_alloc *alloc,
                                    const struct kafka_groups_cfg *cfg,
                                    const struct kafka_group_ops *ops, struct kafka_groups **out);
/* Parked requests and writes under way are dropped without a call. NULL is fine. */
void kafka_groups_free(struct kafka_groups *g);

/* Monotonic, and the wall clock that records carry. mono_ms never runs backwards. */
void kafka_groups_now(struct kafka_groups *g, uint64_t mono_ms, int64_t wall_ms);
uint64_t kafka_groups_deadline(const struct kafka_groups *g); /* mono_ms; UINT64_MAX: none */
/* Ends what is due: at most 64 timers a call, the next deadline is then in the past. */
void kafka_groups_tick(struct kafka_groups *g);
/* error: 0, or what the append answered. Frees w. */
void kafka_groups_persisted(struct kafka_groups *g, struct kafka_group_write *w, int16_t error);

/* ---- what a start does ------------------------------------------------------------------------
 * */

/* One record of __consumer_offsets, oldest first; value.ptr NULL: a tombstone. Records of other
 * kinds of groups are passed over. BNS_E_CORRUPT, BNS_E_NOMEM. */
BNS_MUST_CHECK int kafka_groups_replay(struct kafka_groups *g, struct bns_slice key,
                                       struct bns_slice value);
/* After the last: sessions begin, and groups above size_max rebalance. */
void kafka_groups_loaded(struct kafka_groups *g);

/* ---- members ----------------------------------------------------------------------------------
 * */

struct kafka_join {
    struct bns_slice group, member_id, instance; /* instance.ptr NULL: a dynamic member */
    struct bns_slice client_id, client_host, protocol_type;
    int32_t session_ms, rebalance_ms; /* rebalance_ms < 0: as session_ms (version 0) */
    const struct kafka_group_protocol *protocols;
    size_t protocols_count;
    bool id_required; /* version 4 and up: a member learns its id before it joins */
    bool can_skip;    /* version 9 and up: knows skipAssignment */
};
void kafka_groups_join(struct kafka_groups *g, const struct kafka_join *j, void *token);

struct kafka_assignment {
    struct bns_slice member_id, bytes;
};
struct kafka_sync {
    struct bns_slice group, member_id, instance;
    int32_t generation;
    struct bns_slice protocol_type, protocol; /* ptr NULL: not said */
    const struct kafka_assignment *assignments;
    size_t assignments_count;
};
void kafka_groups_sync(struct kafka_groups *g, const struct kafka_sync *s, void *token);

struct kafka_group_who {
    struct bns_slice group, member_id, instance;
    int32_t generation;
};
int16_t kafka_groups_heartbeat(struct kafka_groups *g, const struct kafka_group_who *w);

struct kafka_leaver {
    struct bns_slice member_id, instance; /* member_id "": whoever has the instance */
    int16_t error;                        /* out */
};
/* The answer as a whole; each leaver has its own. */
int16_t kafka_groups_leave(struct kafka_groups *g, struct bns_slice group,
                           struct kafka_leaver *leavers, size_t count);

/* ---- offsets ----------------------------------------------------------------------------------
 * */

struct kafka_commit_part {
    struct bns_slice topic;
    int32_t partition;
    struct kafka_offset offset; /* commit_ms and expire_ms are the coordinator's */
    int16_t error;              /* in: not 0: left out; out: also METADATA_TOO_LARGE */
};
struct kafka_commit {
    struct kafka_group_who who; /* generation -1 and no member: an admin, or no group's member */
    int64_t retention_ms;       /* -1: the broker's */
    struct kafka_commit_part *parts;
    size_t parts_count;
    bool not_found; /* version 9 and up: an unknown group is 69, not 22 */
};
/* 0: `written` comes, with the error of the parts that have none. Otherwise the error of them all,
 * and nothing comes. KAFKA_GROUP_NOTHING: no part is to be written, each has its error; nothing
 * comes. */
#define KAFKA_GROUP_NOTHING INT16_MAX
int16_t kafka_groups_commit(struct kafka_groups *g, const struct kafka_commit *c, void *token);

/* NULL: none is committed. Good until the next call. */
const struct kafka_offset *kafka_groups_offset(const struct kafka_groups *g, struct bns_slice group,
                                               struct bns_slice topic, int32_t partition);
/* Every committed offset of a group, topic by topic. */
void kafka_groups_offsets(const struct kafka_groups *g, struct bns_slice group,
                          void (*fn)(void *arg, struct bns_slice topic, int32_t partition,
                                     const struct kafka_offset *o),
                          void *arg);

struct kafka_offset_delete {
    struct bns_slice topic;
    int32_t partition;
    int16_t error; /* in: not 0: left out; out: also SUBSCRIBED */
};
/* As kafka_groups_commit(). */
int16_t kafka_groups_offset_delete(struct kafka_groups *g, struct bns_slice group,
                                   struct kafka_offset_delete *parts, size_t count, void *token);
/* The offsets of a topic that is deleted, in every group. They go as expired ones do. */
void kafka_groups_topic_deleted(struct kafka_groups *g, struct bns_slice topic);

/* Expires offsets, and empty groups without any: looks at the next few groups. True: it was the
 * last of them, and the next call begins anew (offsets.retention.check.interval.ms later). */
bool kafka_groups_expire(struct kafka_groups *g, uint32_t groups);

/* ---- looking ----------------------------------------------------------------------------------
 * */

enum kafka_group_state {
    KAFKA_GROUP_EMPTY,
    KAFKA_GROUP_PREPARING,
    KAFKA_GROUP_COMPLETING,
    KAFKA_GROUP_STABLE,
    KAFKA_GROUP_DEAD, /* its deletion is being written */
};
const char *kafka_group_state_name(enum kafka_group_state s); /* "PreparingRebalance" */

struct kafka_group_view {
    struct bns_slice id, protocol_type, protocol, leader; /* ptr NULL: none */
    enum kafka_group_state state;
    int32_t generation;
    size_t members, offsets;
};
struct kafka_group_member_view {
    struct bns_slice id, instance, client_id, client_host;
    struct bns_slice metadata, assignment; /* "" unless the group is Stable */
};
/* False: there is no such group. fn may be NULL; it gets each member. */
bool kafka_groups_describe(const struct kafka_groups *g, struct bns_slice group,
                           struct kafka_group_view *out,
                           void (*fn)(void *arg, const struct kafka_group_member_view *m),
                           void *arg);
void kafka_groups_list(const struct kafka_groups *g,
                       void (*fn)(void *arg, const struct kafka_group_view *v), void *arg);
/* 0: `written` comes. Otherwise NOT_EMPTY, NOT_FOUND, ..., and nothing comes. */
int16_t kafka_groups_delete(struct kafka_groups *g, struct bns_slice group, void *token);

size_t kafka_groups_count(const struct kafka_groups *g);
size_t kafka_groups_writes(const struct kafka_groups *g); /* under way */

/* Which partition of __consumer_offsets a group belongs to: Java's hash of its name, in UTF-16. */
int32_t kafka_groups_partition(struct bns_slice group, int32_t partitions);

#endif
